//! Hosts of which only an engine's endpoint is known: a socket, a port with TLS, a context of docker's command line. Needs
//! root, docker and openssl.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod engine_support;
mod host_support;

use std::fs;

use engine_support::remote::{Remote, authority, certificate, context};
use host_support::Desk;

/// A daemon that wants certificates, with everything one can get wrong about them.
fn lab(desk: &Desk) -> Remote {
    let dir = desk.path("tls");
    fs::create_dir(&dir).unwrap();
    authority(&dir, "ca");
    authority(&dir, "other");
    certificate(&dir, "server", "ca", 1);
    certificate(&dir, "client", "ca", 1);
    certificate(&dir, "old", "ca", -1);
    certificate(&dir, "wrong", "other", 1);
    let remote = Remote::new(&desk.path("docker"), &dir, "server");
    // As docker lays them out.
    let docker = desk.path("certs");
    fs::create_dir(&docker).unwrap();
    for (from, to) in [("ca", "ca"), ("client", "cert"), ("client-key", "key")] {
        fs::copy(dir.join(format!("{from}.pem")), docker.join(format!("{to}.pem"))).unwrap();
    }
    let (config, url) = (desk.path("docker-config"), format!("tcp://127.0.0.1:{}", remote.port));
    context(&config, "rack", &url, Some((&dir, "client")));
    context(&config, "elsewhere", "ssh://ann@rack7", None);
    let client = |name: &str| format!("{{ ca = 'tls/ca.pem', cert = 'tls/{name}.pem', key = 'tls/{name}-key.pem' }}");
    let hosts = [
        ("local", String::new()),
        ("socket", "endpoint = 'unix:///var/run/docker.sock'".to_owned()),
        ("relative", "endpoint = 'unix://docker/docker.sock'".to_owned()),
        ("tls", format!("endpoint = '{url}'\ntls = 'certs'")),
        ("rack", "context = 'rack'".to_owned()),
        ("old", format!("endpoint = '{url}'\ntls = {}", client("old"))),
        ("wrong", format!("endpoint = '{url}'\ntls = {}", client("wrong"))),
        ("clear", format!("endpoint = '{url}'")),
        ("closed", "endpoint = 'tcp://127.0.0.1:1'".to_owned()),
        ("absent", "endpoint = 'unix:///no/such.sock'".to_owned()),
        ("unknown", "context = 'wrack'".to_owned()),
        ("elsewhere", "context = 'elsewhere'".to_owned()),
    ];
    let hosts: String = hosts.iter().map(|(name, how)| format!("[[host]]\nname = '{name}'\n{how}\n")).collect();
    let engines = "[[engine]]\nname = 'native'\nkind = 'native'\n[[engine]]\nname = 'docker'\nkind = 'docker'\n";
    desk.write("matrix.toml", &format!("{hosts}{engines}[[image]]\nname = 'empty'\nscratch = true\n"));
    remote
}

/// Where it goes wrong: the host, what is said, what is advised.
const REFUSED: [(&str, &str, &str); 7] = [
    ("old", "", "refused our certificate: it expired"),
    ("wrong", "", "refused our certificate"),
    ("clear", "HTTPS", "give the host `tls"),
    ("closed", "Connection refused", "nothing listens on that port"),
    ("absent", "/no/such.sock", "is the path right"),
    ("unknown", "docker context `wrack`", "known contexts: default, elsewhere, rack"),
    ("elsewhere", "ssh://ann@rack7 is reached over SSH", "declare the machine as a host with `ssh"),
];

#[test]
fn hosts_behind_endpoints_run_the_cells_of_their_engine_and_say_what_keeps_them_from_it() {
    let desk = Desk::new();
    let _remote = lab(&desk);
    let (output, cells) = desk.run(&[]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{said}");
    let local = &cells["local:docker:empty"];
    // Two daemons, each reached in two ways.
    for (host, like) in [("socket", "local"), ("relative", "relative"), ("tls", "relative"), ("rack", "relative")] {
        let cell = &cells[&format!("{host}:docker:empty")];
        assert_eq!(cell["verdict"], "pass", "{host}: {cell:?}\n{said}");
        assert_eq!(cell["vector"], cells[&format!("{like}:docker:empty")]["vector"], "{host} answers differently");
        // What the engine says of its host, and nothing that only this machine knows.
        assert_eq!(cell["host.kernel.release"], local["host.kernel.release"]);
        assert_eq!(cell["host.arch"], local["host.arch"]);
        assert!(!local["host.cpu.model"].is_empty() && cell["host.cpu.model"].is_empty(), "{cell:?}");
        // No native cell and no control that the host cannot have.
        let skipped = &cells[&format!("{host}:native:-")];
        assert!(
            skipped["verdict"] == "skip" && skipped["reason"].contains("reaches docker or podman only"),
            "{skipped:?}"
        );
        assert!(!cells.contains_key(&format!("{host}:control.no-policy:empty")));
    }
    assert_eq!(cells["local:native:-"]["verdict"], "pass");
    for (host, cause, hint) in REFUSED {
        let cell = &cells[&format!("{host}:docker:empty")];
        assert_eq!((cell["verdict"].as_str(), cell["fault_phase"].as_str()), ("error", "host"), "{cell:?}");
        assert!(
            cell["fault"].contains(cause) && cell["hint"].contains(hint),
            "{host}: {} ({})",
            cell["fault"],
            cell["hint"]
        );
    }
}

#[test]
fn doctor_looks_through_endpoints_and_asks_for_no_engine_they_cannot_have() {
    let desk = Desk::new();
    let _remote = lab(&desk);
    let output = desk.command(&["doctor", "--format", "json"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", String::from_utf8_lossy(&output.stderr));
    let said = String::from_utf8_lossy(&output.stderr);
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {said}"));
    let of = |what: &str| found.as_array().unwrap().iter().find(|finding| finding["what"] == what).cloned();
    for host in ["socket", "tls", "rack"] {
        for what in [format!("host {host}"), format!("engine {host}:docker")] {
            assert_eq!(of(&what).unwrap()["ok"], true, "{what}: {found}");
        }
        assert!(of(&format!("engine {host}:native")).is_none());
    }
    for (host, cause, hint) in REFUSED {
        let finding = of(&format!("host {host}")).unwrap();
        let text = |key: &str| finding[key].as_str().unwrap_or_default().to_owned();
        assert!(finding["ok"] == false && text("says").contains(cause) && text("help").contains(hint), "{finding}");
    }
}

#[test]
fn a_daemon_that_docker_s_environment_names_with_tls_is_never_spoken_to_in_the_clear() {
    let desk = Desk::new();
    let remote = lab(&desk);
    let engine = "[[engine]]\nname = 'docker'\nkind = 'docker'\n";
    desk.write(
        "matrix.toml",
        &format!("[[host]]\nname = 'local'\n{engine}[[image]]\nname = 'empty'\nscratch = true\n"),
    );
    let address = format!("127.0.0.1:{}", remote.port);
    // Where docker looks for certificates unless told otherwise.
    for name in ["ca", "cert", "key"] {
        fs::copy(
            desk.path("certs").join(format!("{name}.pem")),
            desk.path("docker-config").join(format!("{name}.pem")),
        )
        .unwrap();
    }
    for (url, verify) in [(format!("tcp://{address}"), "1"), (format!("https://{address}"), "")] {
        let mut run = desk.command(&["run", "--no-controls"]);
        let output = run.env("DOCKER_HOST", &url).env("DOCKER_TLS_VERIFY", verify).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{url}: {}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(desk.cells()["local:docker:empty"]["verdict"], "pass");
    }
    fs::remove_file(desk.path("docker-config/key.pem")).unwrap();
    let mut run = desk.command(&["run", "--no-controls"]);
    run.env("DOCKER_HOST", format!("https://{address}")).output().unwrap();
    let cell = &desk.cells()["local:docker:empty"];
    assert!(cell["fault"].contains("docker-config/key.pem"), "{cell:?}");
}

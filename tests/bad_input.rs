//! One matrix in which everything that users get wrong, and everything that breaks under them, is there at once: each is an
//! error of its own cells that says what to do, and the cells beside it run.
//!
//! Needs root, sshd, docker, docker-registry, apache2-utils and skopeo; what is absent fails the test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod host_support;
mod image_support;
mod registry_support;

use std::fs;
use std::path::Path;
use std::process::Command;

use host_support::Lab;
use registry_support::{Real, layout, layout_with, push, push_as};

/// Images that docker keeps of this test, removed also when it fails.
struct InDocker(Vec<String>);

impl Drop for InDocker {
    fn drop(&mut self) {
        let _ = Command::new("docker").args(["rmi", "--force"]).args(&self.0).output();
    }
}

/// Changes a byte in the middle of the largest blob a registry keeps: it serves what it has.
fn damage(registry: &Path) {
    let blobs = registry.join("data/docker/registry/v2/blobs/sha256");
    let dirs = fs::read_dir(blobs).unwrap().flat_map(|dir| fs::read_dir(dir.unwrap().path()).unwrap());
    let files = dirs.map(|dir| dir.unwrap().path().join("data"));
    let largest = files.max_by_key(|file| file.metadata().map_or(0, |about| about.len())).unwrap();
    let mut bytes = fs::read(&largest).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(largest, bytes).unwrap();
}

/// Where it goes wrong: the cell, what is said, what is advised.
const WRONG: [(&str, &str, &str); 10] = [
    (
        "local:no-such-runtime:empty",
        "docker has no runtime `runk`; it has ",
        "`runtimes` in the daemon's configuration",
    ),
    ("local:no-such-command:empty", "no program `runk`", "install it"),
    ("local:refused-option:empty", "option `seccomp`: systemd-nspawn takes no profile", "or use docker"),
    ("local:built-in:locked", "refuses the credentials", "`docker login "),
    ("local:built-in:damaged", "was promised", "push it to the registry again"),
    ("local:built-in:big", "No space left", "make room"),
    ("local:built-in:nobody", "127.0.0.1:1", "see whether it is up"),
    ("dead:built-in:empty", "nothing listens there", "is sshd running"),
    ("changed:built-in:empty", "its host key is not the one that is known", "ssh-keygen -R"),
    ("stranger:docker:empty", "Permission denied", "add yourself to group docker"),
];
const RIGHT: [&str; 6] = [
    "local:built-in:empty",
    "local:built-in:good",
    "local:docker:empty",
    "box:built-in:empty",
    "box:docker:empty",
    "stranger:built-in:empty",
];

#[test]
fn everything_that_goes_wrong_in_one_matrix_is_said_and_what_is_right_runs() {
    let lab = Lab::with_stranger();
    let before = lab.left();
    // Another sshd than the one that is known by this name.
    let known = fs::read_to_string(lab.path("known")).unwrap();
    let other = fs::read_to_string(lab.path("stranger.pub")).unwrap();
    fs::write(lab.path("known"), format!("{known}changed {other}")).unwrap();
    let config = fs::read_to_string(lab.path("config")).unwrap();
    fs::write(
        lab.path("config"),
        format!("Host changed\n  HostKeyAlias changed\n{}", config.replace(" far keyless", " far keyless changed")),
    )
    .unwrap();

    let sources = [(); 3].map(|()| tempfile::tempdir().unwrap());
    layout(sources[0].path());
    layout_with(sources[1].path(), 8 << 20);
    layout_with(sources[2].path(), 50_000);
    let stores = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let [public, private, broken] = [0, 1, 2].map(|at| Real::start(stores[at].path(), at == 1));
    push(sources[0].path(), &public, &[]);
    push_as(sources[1].path(), &public, &[], "big");
    push(sources[0].path(), &private, &["--dest-creds", "user:sesame"]);
    push(sources[2].path(), &broken, &[]);
    damage(stores[2].path());
    fs::create_dir(lab.path("docker-config")).unwrap();
    let login = format!("{{\"auths\":{{\"{}\":{{\"auth\":\"dXNlcjp3cm9uZw==\"}}}}}}", private.1);
    fs::write(lab.path("docker-config/config.json"), login).unwrap();
    let images = [
        ("good", format!("{}/team/app:one", public.1)),
        ("big", format!("{}/team/big:one", public.1)),
        ("locked", format!("{}/team/app:one", private.1)),
        ("damaged", format!("{}/team/app:one", broken.1)),
        ("nobody", "127.0.0.1:1/team/app:one".to_owned()),
    ];
    let _in_docker = InDocker(images.iter().map(|(_, reference)| reference.clone()).collect());
    let images = images.map(|(name, reference)| format!("[[image]]\nname = '{name}'\nreference = '{reference}'\n"));
    let engines = [
        ("built-in", "built-in", ""),
        ("docker", "docker", ""),
        ("no-such-runtime", "docker", "runtime = 'runk'"),
        ("no-such-command", "oci", "runtime = 'runk'"),
        ("refused-option", "nspawn", "options = { seccomp = 'docker' }"),
    ];
    let engines = engines.map(|(name, kind, more)| format!("[[engine]]\nname = '{name}'\nkind = '{kind}'\n{more}\n"));
    let local = "[[host]]\nname = 'local'\n";
    lab.matrix(&["box", "dead", "changed", "stranger"], &format!("{local}{}{}", engines.concat(), images.concat()));

    // The cache for images is a small disk of its own.
    fs::create_dir_all(lab.path("cache/images")).unwrap();
    let script = "mount -t tmpfs -o size=4m tmpfs \"$0\" && exec \"$@\"";
    let run = lab.command(&["run", "--no-controls"]);
    let mut command = Command::new("unshare");
    command.args(["-m", "--propagation", "private", "sh", "-c", script]).arg(lab.path("cache/images"));
    command.arg(run.get_program()).args(run.get_args()).current_dir(lab.dir.path());
    for (name, value) in run.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    for cell in WRONG.iter().map(|(cell, ..)| cell).chain(&RIGHT) {
        command.args(["--cells", cell]);
    }
    let output = command.output().unwrap();
    let (said, cells) = (String::from_utf8_lossy(&output.stderr), lab.cells());
    assert_eq!(output.status.code(), Some(3), "{said}");
    for cell in RIGHT {
        assert_eq!((cells[cell]["error"].as_str(), cells[cell]["fail_must"].as_str()), ("0", "0"), "{cell}: {said}");
    }
    for (name, cause, hint) in WRONG {
        let cell = &cells[name];
        assert_eq!(cell["verdict"], "error", "{cell:?}");
        assert!(cell["fault"].contains(cause) && cell["hint"].contains(hint), "{cell:?}");
    }
    lab.assert_nothing_is_left(&before);
}

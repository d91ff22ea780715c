//! Reaching an engine: TLS with the right, a wrong and an expired certificate on either side, contexts, sockets that are
//! absent, closed, forbidden, or not an engine's.
//!
//! Root, dockerd, openssl and busybox-static are needed; what is absent fails the test.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod engine_support;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use abicus::engine::container::{ContainerEngine, Endpoint, Environment, Kind, Tls};
use abicus::engine::{Engine, EngineOptions};
use abicus::fault::{Fault, Phase};
use engine_support::remote::{Remote, authority, certificate, context};
use engine_support::{Bench, engine, options, says, with_runtime};

fn tls(dir: &Path, ca: &str, client: &str) -> Tls {
    let pem = |name: String| dir.join(format!("{name}.pem"));
    Tls { ca: pem(ca.to_owned()), cert: pem(client.to_owned()), key: pem(format!("{client}-key")) }
}

fn client(remote: &Remote, host: &str, tls: Option<Tls>) -> ContainerEngine {
    let address = format!("{host}:{}", remote.port);
    with_runtime(Kind::Docker, Endpoint::Tcp { address, tls }, None, options(""))
}

async fn refuses(remote: &Remote, host: &str, tls: Option<Tls>, hint: &str) {
    let fault = client(remote, host, tls).fingerprint().await.unwrap_err();
    assert!(fault.phase == Phase::Engine && fault.hint.as_deref().is_some_and(|h| h.contains(hint)), "{fault:?}");
}

#[tokio::test]
async fn tls_works_with_the_right_certificates_and_every_wrong_one_is_named() {
    let bench = Bench::new();
    let dir = bench.dir().join("tls");
    std::fs::create_dir(&dir).unwrap();
    authority(&dir, "ca");
    authority(&dir, "other");
    certificate(&dir, "server", "ca", 1);
    certificate(&dir, "server-old", "ca", -1);
    certificate(&dir, "client", "ca", 1);
    certificate(&dir, "client-old", "ca", -1);
    certificate(&dir, "client-other", "other", 1);

    let remote = Remote::new(&bench.dir().join("docker"), &dir, "server");
    let engine = client(&remote, "127.0.0.1", Some(tls(&dir, "ca", "client")));
    let image = engine.prepare(&bench.scratch()).await.unwrap();
    let said = says(&engine, &bench, &image, "echo over TLS; /.abicus/busybox cat /etc/hosts").await;
    assert!(said.starts_with("over TLS\n") && said.contains("localhost"), "{said}");

    refuses(&remote, "127.0.0.1", Some(tls(&dir, "ca", "client-other")), "refused our certificate").await;
    refuses(&remote, "127.0.0.1", Some(tls(&dir, "ca", "client-old")), "expired").await;
    refuses(&remote, "127.0.0.1", Some(tls(&dir, "other", "client")), "another authority than `ca`").await;
    refuses(&remote, "localhost", Some(tls(&dir, "ca", "client")), "for another name").await;
    refuses(&remote, "127.0.0.1", None, "wants TLS").await;
    let missing =
        client(&remote, "127.0.0.1", Some(Tls::in_dir(&dir.join("nowhere")))).fingerprint().await.unwrap_err();
    assert!(missing.cause.contains("nowhere/ca.pem"), "{missing:?}");

    contexts(&bench, &dir, remote.port).await;
    drop(remote.daemon);

    let old = Remote::new(&bench.dir().join("docker-old"), &dir, "server-old");
    refuses(&old, "127.0.0.1", Some(tls(&dir, "ca", "client")), "has expired").await;
}

async fn contexts(bench: &Bench, certificates: &Path, port: u16) {
    let config = bench.dir().join("docker-config");
    context(&config, "rack", &format!("tcp://127.0.0.1:{port}"), Some((certificates, "client")));
    let at = |name: &str| {
        let environment = Environment { docker_config: Some(config.clone()), ..Environment::default() };
        let endpoint = Endpoint::Context(name.to_owned());
        ContainerEngine::new(Kind::Docker, endpoint, None, EngineOptions::default(), environment).unwrap()
    };
    assert_eq!(at("rack").fingerprint().await.unwrap()["engine.kind"], "docker");
    let fault = at("wrack").fingerprint().await.unwrap_err();
    assert!(fault.hint.as_deref().is_some_and(|h| h.contains("default, rack")), "{fault:?}");

    // The one in use, as the command line would choose it.
    std::fs::write(config.join("config.json"), r#"{"currentContext":"rack"}"#).unwrap();
    let environment = Environment { docker_config: Some(config.clone()), ..Environment::default() };
    let current = ContainerEngine::new(Kind::Docker, Endpoint::Default, None, EngineOptions::default(), environment);
    assert_eq!(current.unwrap().fingerprint().await.unwrap()["engine.kind"], "docker");
}

async fn fault_at(socket: &Path) -> Fault {
    engine(Kind::Docker, socket, options("")).fingerprint().await.unwrap_err()
}

fn advises(fault: &Fault, words: &str) {
    assert!(fault.phase == Phase::Engine && fault.hint.as_deref().is_some_and(|h| h.contains(words)), "{fault:?}");
}

#[tokio::test]
async fn an_absent_socket_and_one_where_nobody_listens_are_told_apart() {
    let bench = Bench::new();
    let socket = bench.dir().join("docker.sock");
    advises(&fault_at(&socket).await, "not installed or not running");
    drop(UnixListener::bind(&socket).unwrap());
    advises(&fault_at(&socket).await, "nobody listens");
}

#[tokio::test]
async fn a_port_where_nothing_listens_is_refused_at_once() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let endpoint = Endpoint::Tcp { address: format!("127.0.0.1:{port}"), tls: None };
    advises(
        &with_runtime(Kind::Docker, endpoint, None, options("")).fingerprint().await.unwrap_err(),
        "nothing listens",
    );
}

/// Runs one of these tests again as another user or without programs, and returns what it printed.
fn elsewhere(test: &str, user: &str, socket: &Path) -> String {
    // The build directory may be closed to other users.
    let program = std::env::temp_dir().join(format!("abicus-test-program-{}-{test}", std::process::id()));
    std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
    let done = Command::new("/usr/bin/setpriv")
        .args(["--reuid", user, "--regid", user, "--clear-groups"])
        .arg(&program)
        .args(["--exact", test, "--nocapture"])
        .env_clear()
        .env("ABICUS_TEST_SOCKET", socket)
        .env("PATH", "/nonexistent")
        .output()
        .expect("util-linux is installed");
    std::fs::remove_file(&program).unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8_lossy(&done.stdout).into_owned()
}

#[tokio::test]
async fn a_socket_that_is_not_ours_says_how_to_get_at_it() {
    if let Some(socket) = std::env::var_os("ABICUS_TEST_SOCKET") {
        return println!("{:?}", fault_at(Path::new(&socket)).await);
    }
    let bench = Bench::new();
    let socket = bench.dir().join("docker.sock");
    let _listener = UnixListener::bind(&socket).unwrap();
    std::fs::set_permissions(&socket, PermissionsExt::from_mode(0o660)).unwrap();
    let said = elsewhere("a_socket_that_is_not_ours_says_how_to_get_at_it", "12345", &socket);
    assert!(said.contains("permission denied: add yourself to group docker or use sudo"), "{said}");
}

#[tokio::test]
async fn podman_that_is_not_installed_says_what_to_install() {
    if std::env::var_os("ABICUS_TEST_SOCKET").is_some() {
        let podman = with_runtime(Kind::Podman, Endpoint::Default, Some("crun"), options(""));
        return println!("{:?}", podman.fingerprint().await.unwrap_err());
    }
    let said = elsewhere("podman_that_is_not_installed_says_what_to_install", "0", &PathBuf::from("/"));
    assert!(said.contains("podman is not installed") && said.contains("Debian: podman"), "{said}");
}

/// Something that listens and answers every request with these bytes.
fn impostor(socket: &Path, answer: &'static str, hold: Duration) {
    let listener = UnixListener::bind(socket).unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || {
                let _ = stream.read(&mut [0; 4096]);
                let _ = stream.write_all(answer.as_bytes());
                std::thread::sleep(hold);
            });
        }
    });
}

#[tokio::test]
async fn what_answers_but_is_no_engine_is_not_taken_for_one() {
    let bench = Bench::new();
    for (n, answer) in [
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}",
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello",
        "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n",
        "SSH-2.0-OpenSSH_9.2p1\r\n",
    ]
    .into_iter()
    .enumerate()
    {
        let socket = bench.dir().join(format!("{n}.sock"));
        impostor(&socket, answer, Duration::ZERO);
        assert_eq!(fault_at(&socket).await.phase, Phase::Engine, "{answer}");
    }
}

#[tokio::test]
async fn an_answer_that_stops_half_way_does_not_hang_the_driver() {
    let bench = Bench::new();
    let socket = bench.dir().join("half.sock");
    impostor(&socket, "HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n{\"ApiVersion\":", Duration::from_secs(120));
    let began = Instant::now();
    let fault = fault_at(&socket).await;
    assert!(fault.transient && fault.cause.contains("no answer within"), "{fault:?}");
    assert!(began.elapsed() < Duration::from_secs(25), "{:?}", began.elapsed());
}

#[tokio::test]
async fn an_endless_answer_is_cut() {
    let bench = Bench::new();
    let socket = bench.dir().join("endless.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n\"");
            while stream.write_all(&[b'x'; 65536]).is_ok() {}
        }
    });
    let fault = fault_at(&socket).await;
    assert!(fault.cause.contains("length limit"), "{fault:?}");
}

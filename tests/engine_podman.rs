//! Podman for real: rootful through a service abicus starts, rootful and rootless through services of the tests.
//!
//! These tests need root, podman with crun and runc, and Debian's busybox-static. What is absent fails them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod engine_support;

use std::process::Command;
use std::time::{Duration, Instant};

use abicus::engine::container::{ContainerEngine, Endpoint, Kind};
use abicus::engine::{Ended, Engine};
use abicus::fault::Phase;
use engine_support::{Bench, Daemon, LOOPBACK, engine, options, says, show, signal_to, with_runtime};

/// A service abicus starts itself, with runc: crun refuses some hosts' cgroups.
fn own(runtime: &str, text: &str) -> ContainerEngine {
    with_runtime(Kind::Podman, Endpoint::Default, Some(runtime), options(text))
}

/// Services with runc that this process started and that still run.
fn services() -> usize {
    let me = std::process::id().to_string();
    let list = Command::new("ps").args(["-o", "stat=,args=", "--ppid", &me]).output().unwrap().stdout;
    let list = String::from_utf8_lossy(&list).into_owned();
    list.lines().filter(|l| l.contains("podman --runtime runc") && !l.starts_with('Z')).count()
}

/// What every podman must do, in one container storage of its own.
async fn behaves(engine: &ContainerEngine, bench: &Bench) {
    let image = engine.prepare(&bench.scratch()).await.unwrap();

    let attempt = engine.run(&bench.sh("echo out; echo err >&2; exit 7"), &image).await;
    assert_eq!(attempt.ended, Ok(Ended::Exit(7)), "{}", show(&attempt));
    assert_eq!((attempt.stdout.as_slice(), attempt.stderr.as_slice()), (&b"out\n"[..], &b"err\n"[..]));

    let said = says(engine, bench, &image, LOOPBACK).await;
    assert!(said.contains("localhost") && said.contains("pong\n"), "{said}");

    let mut job = bench.sh("trap '' TERM; echo before; /.abicus/busybox sleep 100");
    job.deadline = Duration::from_secs(2);
    let began = Instant::now();
    let attempt = engine.run(&job, &image).await;
    assert_eq!(attempt.ended, Ok(Ended::Deadline), "{}", show(&attempt));
    assert_eq!(attempt.stdout, b"before\n");
    assert!(began.elapsed() < Duration::from_secs(14), "{:?}", began.elapsed());

    let attempt = engine.run(&bench.sh("/.abicus/busybox yes flood"), &image).await;
    assert_eq!(attempt.ended, Ok(Ended::OutputCap), "{}", show(&attempt));

    let attempt = engine.run(&bench.job(&["/.abicus/absent"]), &image).await;
    let fault = attempt.ended.clone().unwrap_err();
    assert!(fault.phase == Phase::Start && fault.hint.is_some(), "{fault:?}");

    let tree = engine.prepare(&bench.tree()).await.unwrap();
    let said =
        says(engine, bench, &tree, "/.abicus/busybox cat /etc/linked; /.abicus/busybox readlink /etc/pointer").await;
    assert!(said.contains("ID=abicus-test") && said.ends_with("os-release\n"), "{said}");

    let job = bench.sh("/.abicus/busybox sleep 100");
    let run = engine.run(&job, &image);
    assert!(tokio::time::timeout(Duration::from_millis(300), run).await.is_err(), "it was given up");
    assert_eq!(engine.sweep(Some(&bench.run)).await.unwrap(), Vec::<String>::new(), "every cell removed itself");
}

/// Only where the storage is the test's own: the user's cached images are not ours to remove.
async fn forgets_its_images(engine: &ContainerEngine) {
    let swept = engine.sweep_cache().await.unwrap();
    assert!(swept.len() >= 2 && swept.iter().all(|s| s.contains("abicus-cache/")), "{swept:?}");
    assert_eq!(engine.sweep_cache().await.unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn a_service_of_abicus_own_uses_the_runtime_asked_for_and_ends_with_the_engine() {
    let (bench, engine) = (Bench::new(), own("runc", ""));
    let facts = engine.fingerprint().await.unwrap();
    assert_eq!(facts["engine.runtime"], "runc");
    assert!(facts.contains_key("engine.version") && facts.contains_key("engine.component.conmon"), "{facts:#?}");
    behaves(&engine, &bench).await;
    let names = [bench.scratch(), bench.tree()]
        .map(|image| format!("abicus-cache/{}:{:.12}", image.id, image.digest.trim_start_matches("sha256:")));
    assert!(Command::new("podman").arg("rmi").args(names).output().unwrap().status.success());
    assert_eq!(services(), 1);
    drop(engine);
    let deadline = Instant::now() + Duration::from_secs(10);
    while services() > 0 {
        assert!(Instant::now() < deadline, "the service outlives the engine");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn rootful_podman_with_crun_does_what_it_must() {
    let bench = Bench::new();
    let service = Daemon::podman(&bench.dir().join("podman"), &["--runtime", "crun"]);
    let engine = engine(Kind::Podman, &service.socket, options(""));
    assert_eq!(engine.fingerprint().await.unwrap()["engine.runtime"], "crun");
    behaves(&engine, &bench).await;
    forgets_its_images(&engine).await;
}

#[tokio::test]
async fn rootless_podman_does_what_it_must_and_its_ignored_limits_are_named() {
    let bench = Bench::new();
    let service = Daemon::rootless(&bench.dir().join("podman"), "crun");
    let plain = engine(Kind::Podman, &service.socket, options(""));
    assert_eq!(plain.fingerprint().await.unwrap()["engine.rootless"], "true");
    behaves(&plain, &bench).await;
    forgets_its_images(&plain).await;

    let limited = engine(Kind::Podman, &service.socket, options("memory = '32MiB'"));
    let image = limited.prepare(&bench.scratch()).await.unwrap();
    let attempt = limited.run(&bench.sh("true"), &image).await;
    assert_eq!(attempt.ended, Ok(Ended::Exit(0)), "{}", show(&attempt));
    let cgroup = limited.fingerprint().await.unwrap()["engine.cgroup.version"].clone();
    let noted = attempt.notes.iter().any(|n| n.contains("`memory` has no effect"));
    assert_eq!(noted, cgroup == "1", "{:?}", attempt.notes);
    limited.sweep_cache().await.unwrap();
}

#[tokio::test]
async fn a_runtime_that_is_not_there_is_refused_before_any_cell_runs() {
    let fault = own("no-such-runtime", "").fingerprint().await.unwrap_err();
    assert!(fault.phase == Phase::Engine && fault.cause.contains("no-such-runtime"), "{fault:?}");
}

#[tokio::test]
async fn a_service_that_is_there_is_not_believed_to_change_its_runtime() {
    let bench = Bench::new();
    let service = Daemon::podman(&bench.dir().join("podman"), &["--runtime", "crun"]);
    let asked = with_runtime(Kind::Podman, Endpoint::Unix(service.socket.clone()), Some("runc"), options(""));
    let fault = asked.fingerprint().await.unwrap_err();
    assert!(fault.cause.contains("`crun`") && fault.cause.contains("`runc`"), "{fault:?}");
}

#[tokio::test]
async fn podman_is_not_taken_for_docker() {
    let bench = Bench::new();
    let service = Daemon::podman(&bench.dir().join("podman"), &[]);
    let fault = engine(Kind::Docker, &service.socket, options("")).fingerprint().await.unwrap_err();
    assert!(fault.cause.contains("is podman, not docker"), "{fault:?}");
}

/// Over TCP nothing can be learned of the process that serves, and it may be the root of a container or of a machine that
/// was made hard.
#[tokio::test]
async fn a_far_service_that_cannot_raise_limits_is_named_with_the_option_that_helps() {
    let bench = Bench::new();
    let dir = bench.dir().join("podman");
    std::fs::create_dir_all(&dir).unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    // Files far fewer than the million that podman asks for.
    let script = "umount /sys/fs/cgroup/unified 2>/dev/null; ulimit -n 4096; exec setpriv --bounding-set -sys_resource \
         podman --runtime runc --root \"$0/root\" --runroot \"$0/run\" system service --time 0 \"tcp://127.0.0.1:$1\"";
    let mut service = Command::new("unshare")
        .args(["-m", "--propagation", "private", "sh", "-c", script])
        .args([dir.as_os_str(), port.to_string().as_ref()])
        .spawn()
        .unwrap();
    let make = |text: &str| {
        let endpoint = Endpoint::Tcp { address: format!("127.0.0.1:{port}"), tls: None };
        with_runtime(Kind::Podman, endpoint, None, options(text))
    };
    let began = Instant::now();
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(began.elapsed() < Duration::from_secs(30), "it does not listen");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let refused = make("");
    let image = refused.prepare(&bench.scratch()).await.unwrap();
    let attempt = refused.run(&bench.sh("true"), &image).await;
    let fault = attempt.ended.clone().expect_err("it could raise them");
    let helped = make("ulimits = { nofile = { soft = 1024, hard = 4096 }, nproc = { soft = 1024, hard = 1024 } }");
    let image = helped.prepare(&bench.scratch()).await.unwrap();
    let other = helped.run(&bench.sh("true"), &image).await;
    helped.sweep_cache().await.unwrap();
    signal_to(service.id(), "TERM");
    service.wait().unwrap();
    assert!(fault.phase == Phase::Start && fault.hint.as_deref().is_some_and(|h| h.contains("`ulimits`")), "{fault:?}");
    assert_eq!(other.ended, Ok(Ended::Exit(0)), "{}", show(&other));
}

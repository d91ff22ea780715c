//! A dockerd that breaks: killed, stopped in order, stalled, blind to this machine's files, with other runtimes.
//!
//! Private daemons in their own mount and network namespaces; this machine's is not touched. Root and busybox-static are
//! needed, and crun for the runtime; what is absent fails the test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod engine_support;

use std::process::Command;
use std::time::{Duration, Instant};

use abicus::engine::container::{Endpoint, Kind};
use abicus::engine::{Ended, Engine};
use abicus::fault::Phase;
use engine_support::{Bench, Daemon, LOOPBACK, engine, options, says, show, with_runtime};

/// Runs a long job, waits until it has said that it runs, does something to the daemon.
async fn disturbed(bench: &Bench, daemon: &Daemon, seconds: u64, signal: &str) -> (abicus::engine::Attempt, Duration) {
    let engine = engine(Kind::Docker, &daemon.socket, options(""));
    let image = engine.prepare(&bench.scratch()).await.unwrap();
    says(&engine, bench, &image, "true").await;
    let mut job = bench.sh("echo started; /.abicus/busybox sleep 60");
    job.deadline = Duration::from_secs(seconds);
    let began = Instant::now();
    let disturb = async {
        let socket = format!("unix://{}", daemon.socket.display());
        let running = || Command::new("docker").args(["-H", &socket, "ps", "-q"]).output().unwrap().stdout;
        while running().is_empty() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        // It runs; now it says so.
        tokio::time::sleep(Duration::from_millis(1500)).await;
        daemon.signal(signal);
    };
    let (attempt, ()) = tokio::join!(engine.run(&job, &image), disturb);
    (attempt, began.elapsed())
}

#[tokio::test]
async fn a_daemon_killed_in_mid_run_is_an_outage_and_what_it_left_is_swept_after_its_return() {
    let bench = Bench::new();
    let (dir, began) = (bench.dir().join("docker"), Instant::now());
    let mut killed = Daemon::docker(&dir, "", &[]);
    let (attempt, took) = disturbed(&bench, &killed, 60, "KILL").await;
    let fault = attempt.ended.clone().unwrap_err();
    assert!(fault.phase == Phase::Transport && fault.transient, "{}", show(&attempt));
    assert_eq!(attempt.stdout, b"started\n", "what it wrote is kept");
    assert!(attempt.notes.iter().any(|n| n.contains("abicus sweep")), "{:?}", attempt.notes);
    assert!(took < Duration::from_secs(30), "{took:?}");
    killed.child.wait().unwrap();

    // The program lives on. The kernel killed its containerd with it, which nobody has reaped yet where PID 1 is slow, and
    // then dockerd takes the stale process for a running one.
    std::fs::remove_file(dir.join("exec/containerd/containerd.pid")).unwrap();
    let daemon = Daemon::docker(&dir, "", &[]);
    let again = engine(Kind::Docker, &daemon.socket, options(""));
    // It ends what was running before it answers, and the program ignores it for ten seconds.
    while again.fingerprint().await.is_err() {
        assert!(began.elapsed() < Duration::from_secs(90), "the daemon did not come back");
    }
    assert_eq!(again.sweep(Some(&bench.run)).await.unwrap().len(), 1);
    assert_eq!(again.sweep(Some(&bench.run)).await.unwrap().len(), 0);
}

#[tokio::test]
async fn a_daemon_stopped_in_order_kills_the_program_and_that_is_no_result_of_the_program() {
    let bench = Bench::new();
    let daemon = Daemon::docker(&bench.dir().join("docker"), "", &[]);
    let (attempt, _) = disturbed(&bench, &daemon, 60, "TERM").await;
    let fault = attempt.ended.clone().unwrap_err();
    assert!(fault.transient && matches!(fault.phase, Phase::Transport | Phase::Wait), "{}", show(&attempt));
}

#[tokio::test]
async fn a_stalled_daemon_costs_the_deadline_and_the_clean_up_and_no_more() {
    let bench = Bench::new();
    let daemon = Daemon::docker(&bench.dir().join("docker"), "", &[]);
    let (attempt, took) = disturbed(&bench, &daemon, 4, "STOP").await;
    daemon.signal("CONT");
    let fault = attempt.ended.clone().unwrap_err();
    assert!(fault.phase == Phase::Transport && fault.transient, "{}", show(&attempt));
    assert!(took < Duration::from_secs(30), "{took:?}");
    let engine = engine(Kind::Docker, &daemon.socket, options(""));
    engine.sweep(Some(&bench.run)).await.unwrap();
    assert_eq!(engine.sweep(Some(&bench.run)).await.unwrap().len(), 0);
}

#[tokio::test]
async fn a_stalled_daemon_does_not_hang_the_fingerprint() {
    let bench = Bench::new();
    let daemon = Daemon::docker(&bench.dir().join("docker"), "", &[]);
    daemon.signal("STOP");
    let began = Instant::now();
    let fault = engine(Kind::Docker, &daemon.socket, options("")).fingerprint().await.unwrap_err();
    assert!(fault.phase == Phase::Engine && fault.hint.is_some(), "{fault:?}");
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_daemon_that_does_not_see_our_files_is_given_the_payload_and_the_hosts_file_by_upload() {
    let bench = Bench::new();
    let hide = format!("mount -t tmpfs none {};", bench.payload.dir.display());
    let daemon = Daemon::docker(&bench.dir().join("docker"), &hide, &[]);
    for text in ["", "read_only = true"] {
        let engine = engine(Kind::Docker, &daemon.socket, options(text));
        let image = engine.prepare(&bench.scratch()).await.unwrap();
        let said = says(&engine, &bench, &image, LOOPBACK).await;
        assert!(said.contains("localhost") && said.contains("pong\n"), "{text}: {said}");
        let mounts =
            says(&engine, &bench, &image, "B=/.abicus/busybox; $B mkdir -p /p && $B mount -t proc p /p; $B ls -A /")
                .await;
        assert!(mounts.contains(".abicus"), "{text}: {mounts}");
        assert_eq!(files_of(&daemon, &image.0), "", "{text}: the image was not left alone");
        assert_eq!(engine.sweep(Some(&bench.run)).await.unwrap(), Vec::<String>::new());
    }
}

/// What is in an image, as the daemon itself hands it over: engines add what every container has.
fn files_of(daemon: &Daemon, image: &str) -> String {
    let docker = |arguments: &[&str]| {
        let mut command = std::process::Command::new("docker");
        command.arg("-H").arg(format!("unix://{}", daemon.socket.display())).args(arguments).output().unwrap().stdout
    };
    let saved = docker(&["save", image]);
    assert!(!saved.is_empty(), "docker save {image}");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("saved.tar");
    std::fs::write(&path, saved).unwrap();
    let list = "tar -xf \"$1\" -C \"$2\" && find \"$2\" -name layer.tar -exec tar -tf {} \\;";
    let listed =
        std::process::Command::new("sh").args(["-ec", list, "sh"]).arg(&path).arg(dir.path()).output().unwrap();
    assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
    String::from_utf8(listed.stdout).unwrap()
}

#[tokio::test]
async fn the_runtime_asked_for_is_used_and_an_unknown_one_is_refused() {
    let bench = Bench::new();
    let daemon = Daemon::docker(
        &bench.dir().join("docker"),
        "",
        &["--add-runtime", "other=/usr/bin/crun", "--add-runtime", "gone=/nonexistent/runtime"],
    );
    let at =
        |runtime: &str| with_runtime(Kind::Docker, Endpoint::Unix(daemon.socket.clone()), Some(runtime), options(""));
    let engine = at("other");
    let image = engine.prepare(&bench.scratch()).await.unwrap();
    says(&engine, &bench, &image, "true").await;

    let fault = at("bogus").fingerprint().await.unwrap_err();
    assert!(
        fault.phase == Phase::Engine && fault.cause.contains("it has") && fault.cause.contains("other"),
        "{fault:?}"
    );

    let engine = at("gone");
    let image = engine.prepare(&bench.scratch()).await.unwrap();
    let attempt = engine.run(&bench.sh("true"), &image).await;
    let fault = attempt.ended.clone().unwrap_err();
    assert!(fault.phase == Phase::Start && fault.cause.contains("/nonexistent/runtime"), "{fault:?}");
    assert_ne!(attempt.ended, Ok(Ended::Exit(0)));
}

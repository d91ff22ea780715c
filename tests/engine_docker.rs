//! Docker for real: this machine's daemon, and private ones that are allowed to break.
//!
//! These tests need root, a running dockerd, and Debian's busybox-static. What is absent fails them; nothing is skipped.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod engine_support;

use std::path::Path;
use std::time::{Duration, Instant};

use abicus::engine::container::{ContainerEngine, Kind};
use abicus::engine::{Ended, Engine};
use abicus::fault::Phase;
use engine_support::{Bench, LOOPBACK, engine, options, says, show};

const SOCKET: &str = "/var/run/docker.sock";

fn docker(text: &str) -> ContainerEngine {
    engine(Kind::Docker, Path::new(SOCKET), options(text))
}

#[tokio::test]
async fn the_engine_says_what_it_is_made_of() {
    let facts = docker("").fingerprint().await.unwrap();
    for name in ["engine.version", "engine.api", "engine.runtime", "engine.runtime.version", "engine.storage"] {
        assert!(facts.get(name).is_some_and(|v| !v.is_empty()), "{name}: {facts:#?}");
    }
    assert_eq!(facts["engine.kind"], "docker");
}

#[tokio::test]
async fn a_program_runs_in_scratch_with_its_two_streams_and_its_exit_code() {
    let (bench, engine) = (Bench::new(), docker(""));
    let image = engine.prepare(&bench.scratch()).await.unwrap();
    let attempt = engine.run(&bench.sh("echo out; echo err >&2; exit 7"), &image).await;
    assert_eq!(attempt.ended, Ok(Ended::Exit(7)), "{}", show(&attempt));
    assert_eq!((attempt.stdout.as_slice(), attempt.stderr.as_slice()), (&b"out\n"[..], &b"err\n"[..]));
    assert_eq!(engine.sweep(Some(&bench.run)).await.unwrap(), Vec::<String>::new(), "it removed its own container");
}

#[tokio::test]
async fn the_name_localhost_resolves_and_its_loopback_is_up() {
    let (bench, engine) = (Bench::new(), docker(""));
    let image = engine.prepare(&bench.scratch()).await.unwrap();
    let said = says(&engine, &bench, &image, LOOPBACK).await;
    assert!(said.contains("127.0.0.1\tlocalhost") && said.contains("pong\n"), "{said}");
}

#[tokio::test]
async fn a_hang_is_killed_at_its_deadline_and_what_it_wrote_is_kept() {
    let (bench, engine) = (Bench::new(), docker(""));
    let image = engine.prepare(&bench.scratch()).await.unwrap();
    let mut job = bench.sh("trap '' TERM; echo before; /.abicus/busybox sleep 100");
    job.deadline = Duration::from_secs(2);
    let began = Instant::now();
    let attempt = engine.run(&job, &image).await;
    assert_eq!(attempt.ended, Ok(Ended::Deadline), "{}", show(&attempt));
    assert_eq!(attempt.stdout, b"before\n");
    assert!(began.elapsed() < Duration::from_secs(12), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_flood_is_cut_at_the_cap_and_killed() {
    let (bench, engine) = (Bench::new(), docker(""));
    let image = engine.prepare(&bench.scratch()).await.unwrap();
    let began = Instant::now();
    let attempt = engine.run(&bench.sh("/.abicus/busybox yes flood"), &image).await;
    assert_eq!(attempt.ended, Ok(Ended::OutputCap), "{}", show(&attempt));
    assert_eq!(attempt.stdout.len(), 1 << 20);
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_missing_program_is_a_fault_of_starting() {
    let (bench, engine) = (Bench::new(), docker(""));
    let image = engine.prepare(&bench.scratch()).await.unwrap();
    let attempt = engine.run(&bench.job(&["/.abicus/absent"]), &image).await;
    let fault = attempt.ended.clone().unwrap_err();
    assert!(fault.phase == Phase::Start && !fault.transient && fault.hint.is_some(), "{fault:?}");
    assert_eq!(engine.sweep(Some(&bench.run)).await.unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn a_tree_is_imported_once_and_the_cells_leave_it_untouched() {
    let (bench, engine) = (Bench::new(), docker(""));
    let tree = bench.tree();
    let image = engine.prepare(&tree).await.unwrap();
    let script =
        "B=/.abicus/busybox; $B cat /etc/linked; $B readlink /etc/pointer; $B stat -c %h /etc/linked; $B ls -A /";
    let said = says(&engine, &bench, &image, script).await;
    assert!(said.contains("ID=abicus-test") && said.contains("\nos-release\n2\n"), "{said}");

    says(&engine, &bench, &image, "echo changed > /etc/linked").await;
    let said = says(&engine, &bench, &image, "/.abicus/busybox cat /etc/linked").await;
    assert!(said.contains("ID=abicus-test"), "{said}");

    std::fs::remove_dir_all(bench.dir().join("tree")).unwrap();
    assert_eq!(docker("").prepare(&tree).await.unwrap(), image, "a second engine finds it and reads no tree");
}

#[tokio::test]
async fn running_out_of_memory_is_never_an_exit_code_of_the_program() {
    let (bench, engine) = (Bench::new(), docker("memory = '32MiB'"));
    let image = engine.prepare(&bench.scratch()).await.unwrap();
    let attempt = engine.run(&bench.job(&["/.abicus/busybox", "tail", "/dev/zero"]), &image).await;
    // The kernel kills it in any case; whether docker hears of that is up to its shim, and some do not (seen with
    // containerd 1.6 on cgroup v1). Then the cause is unknown and not guessed, and memory is named among the possible ones.
    match &attempt.ended {
        Ok(ended) => assert_eq!(*ended, Ended::OutOfMemory, "{}", show(&attempt)),
        Err(fault) => {
            assert_eq!(fault.phase, Phase::Wait, "{fault:?}");
            assert!(fault.hint.as_deref().is_some_and(|h| h.contains("ran out of memory")), "{fault:?}");
        }
    }
}

#[tokio::test]
async fn a_container_killed_by_somebody_else_is_a_fault_and_no_result() {
    let (bench, engine) = (Bench::new(), docker(""));
    let image = engine.prepare(&bench.scratch()).await.unwrap();
    let label = format!("label=abicus.run={}", bench.run);
    let killer = tokio::task::spawn_blocking(move || {
        let ids = loop {
            let ids =
                std::process::Command::new("docker").args(["ps", "-q", "--filter", &label]).output().unwrap().stdout;
            let ids = String::from_utf8(ids).unwrap().trim().to_owned();
            if !ids.is_empty() {
                break ids;
            }
            std::thread::sleep(Duration::from_millis(50));
        };
        assert!(std::process::Command::new("docker").args(["kill", &ids]).output().unwrap().status.success());
    });
    let attempt = engine.run(&bench.sh("echo here; /.abicus/busybox sleep 30"), &image).await;
    killer.await.unwrap();
    let fault = attempt.ended.clone().unwrap_err();
    assert!(fault.phase == Phase::Wait && fault.transient, "{fault:?}");
    assert_eq!(attempt.stdout, b"here\n", "what it wrote is kept");
}

#[tokio::test]
async fn a_cell_that_is_given_up_leaves_no_container() {
    let (bench, engine) = (Bench::new(), docker(""));
    let image = engine.prepare(&bench.scratch()).await.unwrap();
    says(&engine, &bench, &image, "true").await;
    // Given up at every stage of its life: during creation, start and run.
    for wait in [0, 5, 20, 60, 120, 250, 600] {
        let job = bench.sh("/.abicus/busybox sleep 100");
        let run = engine.run(&job, &image);
        assert!(tokio::time::timeout(Duration::from_millis(wait), run).await.is_err(), "it ended by itself");
    }
    assert_eq!(engine.sweep(Some(&bench.run)).await.unwrap(), Vec::<String>::new(), "they removed themselves");
}

#[tokio::test]
async fn a_sweep_removes_what_a_dead_driver_left_and_nothing_else() {
    let (bench, other, engine) = (Bench::new(), Bench::new(), docker(""));
    let image = engine.prepare(&bench.scratch()).await.unwrap();
    for run in [&bench.run, &other.run] {
        let label = format!("abicus.run={run}");
        let args = ["create", "--label", &label, "--network", "none", &image.0, "/x"];
        assert!(std::process::Command::new("docker").args(args).output().unwrap().status.success());
    }
    let swept = engine.sweep(Some(&bench.run)).await.unwrap();
    assert!(swept.len() == 1 && swept[0].contains(bench.run.as_str()), "{swept:?}");
    assert_eq!(engine.sweep(Some(&bench.run)).await.unwrap().len(), 0);
    assert_eq!(engine.sweep(Some(&other.run)).await.unwrap().len(), 1, "the other run's was still there");
}

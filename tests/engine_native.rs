//! No engine: programs straight on this machine, with the same ends and the same tidiness as in a cell.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod builtin_support;

use std::fs;
use std::time::{Duration, Instant};

use abicus::engine::{Attempt, Ended, Engine, Job, Prepared};
use abicus::fault::Phase;
use builtin_support::*;

fn native(bench: &Bench, argv: &[&str]) -> Attempt {
    let engine = abicus::engine::native::Native::new(bench.here());
    let job = Job { argv: argv.iter().map(|s| (*s).to_owned()).collect(), ..bench.job.clone() };
    runtime().block_on(engine.run(&job, &Prepared("host".to_owned())))
}

fn native_sh(bench: &Bench, script: &str) -> Attempt {
    native(
        bench,
        &[
            "/.abicus/busybox",
            "sh",
            "-c",
            &format!("b() {{ {}/busybox \"$@\"; }}\n{script}", bench.path("payload").display()),
        ],
    )
}

#[test]
fn a_native_program_runs_in_the_hosts_own_namespaces() {
    let bench = Bench::new();
    let own = |name: &str| fs::read_link(format!("/proc/self/ns/{name}")).unwrap().to_string_lossy().into_owned();
    let text =
        said(&native_sh(&bench, "for n in mnt net pid user uts; do b readlink /proc/self/ns/$n; done; pwd; b wc -c"));
    let expected: Vec<_> = ["mnt", "net", "pid", "user", "uts"].iter().map(|n| own(n)).collect();
    assert_eq!(text, format!("{}\n/\n0\n", expected.join("\n")));
}

#[test]
fn a_native_program_ends_as_it_ended() {
    let mut bench = Bench::new();
    assert_eq!(native_sh(&bench, "exit 127").ended, Ok(Ended::Exit(127)));
    assert_eq!(native_sh(&bench, "kill -SEGV $$").ended, Ok(Ended::Signal(11)));
    assert_eq!(native(&bench, &["/no/such"]).ended.unwrap_err().phase, Phase::Start);
    assert_eq!(said(&native(&bench, &["true"])), "", "found by PATH");
    bench.job.output_cap = 1000;
    let flood = native_sh(&bench, "b yes");
    assert_eq!((flood.ended, flood.stdout.len()), (Ok(Ended::OutputCap), 1000));
}

#[test]
fn nothing_a_native_program_started_outlives_it() {
    let mut bench = Bench::new();
    // Its own session, its own group, an orphan: only the launcher's adoption finds it.
    let escape = "b setsid b sh -c 'b() { \"$0\" \"$@\"; }; trap \"\" TERM HUP; (exec \"$0\" sleep NAP)' \"$B\" & b usleep 200000";
    let nap = nap(4714);
    let escape = format!("B={}/busybox; {}", bench.path("payload").display(), escape.replace("NAP", &nap));
    let begun = Instant::now();
    assert_eq!(native_sh(&bench, &format!("{escape}; exit 3")).ended, Ok(Ended::Exit(3)));
    assert!(processes(&nap).is_empty());
    bench.job.deadline = Duration::from_millis(600);
    let attempt = native_sh(&bench, &format!("{escape}; b sleep {nap}"));
    assert_eq!(attempt.ended, Ok(Ended::Deadline));
    assert!(processes(&nap).is_empty());
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
}

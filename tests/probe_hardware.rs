//! What the kernel probe says of the processor, beside what lscpu and the kernel say.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![cfg(target_arch = "x86_64")]

#[path = "probe_support/cpuinfo.rs"]
mod cpuinfo;
mod probe_support;

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use abicus::catalog::{Catalogue, Contract, Requirement};
use probe_support::{Action, Seen, filter, free, jailed, rule};

const GROUPS: [&str; 2] = ["cpu.", "bench."];

fn cpu() -> Seen {
    free(&["--only", "cpu."])
}

#[test]
fn every_row_is_asked_and_every_answer_has_a_row() {
    let ours = |id: &str| GROUPS.iter().any(|group| id.starts_with(group));
    let rows: Vec<_> = Catalogue::built_in().rows().map(|row| row.id.to_string()).filter(|id| ours(id)).collect();
    let asked: Vec<_> = free(&["--bench", "--only", "cpu.", "--only", "bench."]).checks().into_keys().collect();
    assert_eq!(rows, asked);
}

/// Nobody here wrote /proc/cpuinfo: what it lists works, what it does not list is not said to be advertised.
#[test]
fn what_works_is_what_the_kernel_lists() {
    let wrong = cpuinfo::disagreements(&fs::read_to_string("/proc/cpuinfo").unwrap(), &cpu());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_level_is_the_one_the_loader_finds() {
    let loader = Command::new("/lib64/ld-linux-x86-64.so.2").arg("--help").output().unwrap();
    let said = String::from_utf8(loader.stdout).unwrap();
    let found = (2..=4).filter(|n| said.contains(&format!("x86-64-v{n} (supported"))).max().unwrap_or(1);
    assert_eq!(cpu().saw("cpu.level"), found.to_string());
}

#[test]
fn facts_name_the_processor_as_lscpu_does() {
    let output = Command::new("lscpu").env("LC_ALL", "C").output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let lscpu = |key: &str| {
        let line = said.lines().find(|line| line.trim_start().starts_with(key)).unwrap();
        line.split_once(':').unwrap().1.trim().to_owned()
    };
    let seen = cpu();
    let fact = |name: &str| seen.lines.iter().find(|line| line["fact"] == name).unwrap()["value"].as_str().unwrap();
    assert_eq!(fact("cpu.vendor"), lscpu("Vendor ID"));
    assert_eq!(fact("cpu.model"), lscpu("Model name"));
}

#[test]
fn twenty_runs_say_the_same_quickly() {
    let lines =
        |seen: Seen| seen.raw.lines().filter(|l| l.starts_with("{\"check\"")).map(str::to_owned).collect::<Vec<_>>();
    let first = lines(cpu());
    let mut quickest = Duration::MAX;
    for _ in 1..20 {
        let from = Instant::now();
        assert_eq!(lines(cpu()), first);
        quickest = quickest.min(from.elapsed());
    }
    assert!(quickest < Duration::from_millis(50), "{quickest:?}");
}

#[test]
fn what_must_and_should_hold_does_natively() {
    let seen = cpu();
    for row in Catalogue::built_in().rows().filter(|row| row.id.to_string().starts_with("cpu.")) {
        let line = &seen.checks()[&row.id.to_string()];
        let good = match row.contract {
            Contract::Works => line["saw"] == "ok",
            Contract::Value => row
                .expect
                .iter()
                .any(|e| line["value"].as_str() == Some(e) || e.parse::<i64>().is_ok_and(|n| line["value"] == n)),
            _ => true,
        };
        assert!(good || line["saw"] == "not-asked" || row.requirement == Requirement::May, "{line}");
    }
}

/// A signal frame needs as much as the kernel says: where that is more than the old constant, the constant is too small.
#[test]
fn the_old_size_of_a_signal_stack_fails_where_frames_are_larger() {
    let seen = cpu();
    let needed: u32 = seen.saw("cpu.minsigstksz").parse().unwrap();
    assert_eq!(seen.saw("cpu.sigaltstack.2048"), if needed > 2048 { "signal 11" } else { "ok" });
}

#[test]
fn a_filter_that_refuses_is_seen() {
    const SIGALTSTACK: u32 = 131;
    let seen = jailed(&filter(&[rule(SIGALTSTACK, Action::Errno(1))], Action::Allow), &["--only", "cpu.sigaltstack"]);
    for id in ["cpu.sigaltstack.minimum", "cpu.sigaltstack.2048", "cpu.sigaltstack.8192"] {
        assert_eq!(seen.saw(id), "errno 1", "{id}");
    }
}

/// A filter makes a call that it lets through dearer, and the look at the clock through the vDSO does not know.
#[test]
fn benchmarks_tell_a_filter_and_keep_their_samples() {
    let from = Instant::now();
    let open = free(&["--bench", "--only", "bench."]);
    assert!(from.elapsed() < Duration::from_secs(4), "{:?}", from.elapsed());
    let least = |seen: &Seen, id: &str| {
        let line = &seen.checks()[id];
        let samples: Vec<f64> = line["samples"].as_array().unwrap().iter().map(|n| n.as_f64().unwrap()).collect();
        assert!(samples.len() >= 5, "{line}");
        samples.into_iter().fold(f64::MAX, f64::min)
    };
    for id in open.checks().keys() {
        assert!(least(&open, id) > 0.0, "{id}");
    }
    // Two hundred comparisons before the call is let through, and an argument looked at, so that no cache of the kernel's helps.
    let mut rules: Vec<_> = (0..40).map(|n| rule(10_000 + n, Action::Errno(1))).collect();
    rules.push(probe_support::Rule { call: 110, argument: Some((0, 12345)), action: Action::Errno(1) });
    let filter = filter(&rules, Action::Allow);
    // In turn, and the least of all, because whoever else works on this machine slows down what he meets.
    let only = ["--bench", "--only", "bench.getppid", "--only", "bench.spin"];
    let runs: Vec<_> = (0..6).map(|_| (free(&only), jailed(&filter, &only))).collect();
    let ratio = |id: &str| {
        let of =
            |pick: fn(&(Seen, Seen)) -> &Seen| runs.iter().map(|run| least(pick(run), id)).fold(f64::MAX, f64::min);
        of(|run| &run.1) / of(|run| &run.0)
    };
    assert!(ratio("bench.getppid") > 1.05 * ratio("bench.spin"), "{} {}", ratio("bench.getppid"), ratio("bench.spin"));
}

#[test]
fn nothing_is_measured_unless_asked() {
    assert!(free(&["--only", "bench."]).checks().is_empty());
}

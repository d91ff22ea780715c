//! Whole runs through the real binary on a scripted engine. Each directory of `tests/cases` is one:
//! `matrix.toml`, `script.toml`, `captures/`, and `expected` (exit code, terminal, cells.csv without what is volatile).
#![allow(clippy::unwrap_used, clippy::panic)]

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

const ACCEPT: &str = "ABICUS_ACCEPT=1 cargo test --test cases";

#[test]
fn every_case_ends_as_expected() {
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let mut wrong = String::new();
    let mut count = 0;
    let mut dirs: Vec<PathBuf> = std::fs::read_dir(cases).unwrap().map(|entry| entry.unwrap().path()).collect();
    dirs.sort();
    for dir in dirs {
        count += 1;
        let seen = run(&dir);
        let path = dir.join("expected");
        if std::env::var_os("ABICUS_ACCEPT").is_some() {
            std::fs::write(&path, &seen).unwrap();
        }
        let expected = std::fs::read_to_string(&path).unwrap_or_default();
        if seen != expected {
            let _ = writeln!(wrong, "{}:\n--- expected\n{expected}\n--- seen\n{seen}", dir.display());
        }
    }
    assert!(count >= 10, "only {count} cases were found");
    assert!(wrong.is_empty(), "{wrong}\nif this is right: {ACCEPT}");
}

fn run(dir: &Path) -> String {
    let scratch = tempfile::tempdir().unwrap();
    let reports = scratch.path().join("reports");
    let output = Command::new(env!("CARGO_BIN_EXE_abicus"))
        .current_dir(dir)
        .args(["run", "--no-controls", "--reports"])
        .arg(&reports)
        .env("ABICUS_CACHE", scratch.path().join("cache"))
        .env("COLUMNS", "100")
        .output()
        .unwrap();
    let run = std::fs::read_dir(&reports).unwrap().next().unwrap().unwrap();
    let cells = std::fs::read_to_string(run.path().join("cells.csv")).unwrap();
    let run = run.file_name().to_string_lossy().into_owned();
    let clean = |bytes: &[u8]| {
        let text =
            String::from_utf8_lossy(bytes).replace(&*scratch.path().to_string_lossy(), "TMP").replace(&run, "RUN");
        let lines = text.lines().filter(|line| !line.contains("checks known")).map(without_milliseconds);
        lines.collect::<Vec<_>>().join("\n")
    };
    let mut seen = format!("exit {}\n", output.status.code().unwrap());
    let _ = writeln!(seen, "--- stderr\n{}\n--- stdout\n{}", clean(&output.stderr), clean(&output.stdout));
    let _ = writeln!(seen, "--- cells.csv\n{}", stable_columns(&cells, &run));
    seen
}

/// `in 12 ms` differs from run to run.
fn without_milliseconds(line: &str) -> String {
    match line.split_once(" checks in ") {
        Some((before, after)) => {
            let after = after.trim_start_matches(|c: char| c.is_ascii_digit());
            format!("{before} checks in N{after}")
        }
        None => line.to_owned(),
    }
}

/// Everything but times and what describes this machine.
fn stable_columns(csv: &str, run: &str) -> String {
    let mut reader = csv::ReaderBuilder::new().from_reader(csv.as_bytes());
    let header = reader.headers().unwrap().clone();
    let volatile = |name: &str| {
        name.ends_with("_ms")
            || name.ends_with("_seconds")
            || ["host_", "host.", "kernel", "cpu", "arch"].iter().any(|v| name.starts_with(v))
    };
    let mut out = String::new();
    for record in reader.records() {
        let record = record.unwrap();
        for (name, value) in header.iter().zip(&record).filter(|(name, value)| !volatile(name) && !value.is_empty()) {
            let _ = writeln!(out, "{name}: {}", value.replace(run, "RUN"));
        }
    }
    out
}

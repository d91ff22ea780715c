//! A run through the real binary on two real kernels: what differs between them is what must, and a guest that is no
//! kernel, or panics, costs its own cells and nothing else.
//!
//! Needs what `ci/setup fleet` installs, and fails without. Kernels are those that `abicus vm build` keeps, or makes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![cfg(target_arch = "x86_64")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Host `none` boots a file that is no kernel; host `panics` has no first program.
const MATRIX: &str = r#"
[defaults]
timeout = "60s"
[[host]]
name = "old"
vm = { kernel = { suite = "bullseye" } }
[[host]]
name = "new"
vm = { kernel = { suite = "bookworm" } }
[[host]]
name = "none"
vm = { kernel = "vmlinuz", deadline = "20s" }
[[host]]
name = "panics"
vm = { kernel = { suite = "bookworm" }, cmdline = "rdinit=/none" }
[[engine]]
name = "native"
kind = "native"
[[engine]]
name = "built-in"
kind = "built-in"
[[image]]
name = "scratch"
scratch = true
"#;

/// Rows of a CSV file, each by column name.
fn rows(path: &Path) -> Vec<BTreeMap<String, String>> {
    csv::Reader::from_path(path).unwrap().deserialize().map(Result::unwrap).collect()
}

/// Processes whose command line begins with QEMU's name and holds `mark`.
fn guests(mark: &str) -> Vec<String> {
    let lines =
        fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    let lines = lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " "));
    lines.filter(|line| line.starts_with("qemu-system") && line.contains(mark)).collect()
}

struct Seen {
    output: Output,
    cells: BTreeMap<String, BTreeMap<String, String>>,
    results: Vec<BTreeMap<String, String>>,
    temporary: Vec<PathBuf>,
    left_running: Vec<String>,
}

impl Seen {
    /// What a call answered natively on a host.
    fn answer(&self, host: &str, check: &str) -> &str {
        let asked =
            |row: &&BTreeMap<String, String>| row["host"] == host && row["engine"] == "native" && row["check"] == check;
        let found = self.results.iter().find(asked);
        &found.unwrap_or_else(|| panic!("{host} has no {check}"))["value"]
    }

    fn said(&self) -> String {
        String::from_utf8_lossy(&self.output.stderr).into_owned()
    }
}

fn run() -> Seen {
    let directory = tempfile::tempdir().unwrap();
    let (reports, temporary) = (directory.path().join("reports"), directory.path().join("tmp"));
    fs::create_dir(&temporary).unwrap();
    fs::write(directory.path().join("matrix.toml"), MATRIX).unwrap();
    fs::write(directory.path().join("vmlinuz"), b"this is no kernel").unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_abicus"))
        .current_dir(directory.path())
        .args(["run", "--no-controls", "--reports"])
        .arg(&reports)
        .env("TMPDIR", &temporary)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let run = fs::read_dir(&reports).unwrap_or_else(|e| panic!("{e}: {said}")).next().unwrap().unwrap().path();
    let cells = rows(&run.join("cells.csv")).into_iter().map(|row| (row["cell"].clone(), row)).collect();
    let left = fs::read_dir(&temporary).unwrap().map(|entry| entry.unwrap().path()).collect();
    let left_running = guests(directory.path().to_str().unwrap());
    Seen { output, cells, results: rows(&run.join("results.csv")), temporary: left, left_running }
}

#[test]
#[ignore = "virtual fleet: ci/fleet"]
fn two_kernels_differ_as_they_must_and_two_broken_guests_cost_their_own_cells() {
    let seen = run();
    // 1 where the old kernel lacks something that programs must have, 3 because cells of broken guests could not run.
    assert!(matches!(seen.output.status.code(), Some(1 | 3)), "{}", seen.said());
    let names: BTreeSet<&str> = seen.cells.keys().map(String::as_str).collect();
    assert_eq!(names.len(), 8, "{names:?}");
    for (host, release) in [("old", "5.10."), ("new", "6.1.")] {
        for cell in [format!("{host}:native:-"), format!("{host}:built-in:scratch")] {
            let row = &seen.cells[&cell];
            assert!(row["host.kernel.release"].starts_with(release), "{cell}: {row:?}");
            assert_eq!(row["error"], "0", "{cell}: {row:?}");
            assert!(row["pass"].parse::<u32>().unwrap() > 1000, "{cell}: {row:?}");
        }
    }
    for (host, reason) in [("none", "qemu: "), ("panics", "the kernel panicked: VFS: Unable to mount root fs")] {
        for cell in [format!("{host}:native:-"), format!("{host}:built-in:scratch")] {
            let row = &seen.cells[&cell];
            assert_eq!(row["verdict"], "error", "{row:?}");
            assert!(row["fault"].contains(reason), "{row:?}");
            assert!(!row["fault"].contains("No such file"), "the file that is no kernel was found: {row:?}");
        }
    }
    // Newer than 5.10 and not than 6.1; newer than both; in both. Kernel versions: syscalls(2).
    for (call, old, new) in [
        ("futex_waitv", false, true),
        ("landlock_create_ruleset", false, true),
        ("mseal", false, false),
        ("cachestat", false, false),
        ("clone3", true, true),
    ] {
        for (host, there) in [("old", old), ("new", new)] {
            let answer = seen.answer(host, &format!("syscall.{call}"));
            assert_eq!(answer != "ENOSYS", there, "{call} on {host}: {answer}");
        }
    }
    assert!(seen.temporary.is_empty(), "left behind: {:?}", seen.temporary);
    assert!(seen.left_running.is_empty(), "{:?}", seen.left_running);
}

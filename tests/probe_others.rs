//! What the probes say of a cell, beside what programs say that nobody here wrote: the loader's own diagnostics, the kernel's
//! status file, strace's counts. (capsh, lscpu, prlimit and sysctl are in `probe_surroundings.rs`, /proc/cpuinfo in
//! `probe_hardware.rs`, the kernel's symbols and strace's answers in `probe_kernel.rs`.)
//!
//! Needs strace, busybox-static and a running dockerd. What is absent fails.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![cfg(target_arch = "x86_64")]

mod probe_support;

use std::collections::BTreeMap;
use std::process::Command;

use probe_support::{Action, EPERM, Seen, filter, free, jail, kernel, rule};

/// `ld.so --list-diagnostics` prints the auxiliary vector and the levels of the processor that its search paths use.
#[test]
fn the_loader_was_given_the_same_by_the_kernel() {
    let output = Command::new("/lib64/ld-linux-x86-64.so.2").arg("--list-diagnostics").output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let number = |text: &str| u64::from_str_radix(text.trim_start_matches("0x"), 16).unwrap();
    let lines: BTreeMap<&str, &str> = said.lines().filter_map(|line| line.split_once('=')).collect();
    let auxv = |kind: u64| {
        let types = lines.iter().filter(|(key, value)| key.ends_with(".a_type") && number(value) == kind);
        let key = types.map(|(key, _)| key.replace(".a_type", ".a_val")).next().unwrap();
        number(lines[key.as_str()])
    };
    let seen = free(&["--only", "cpu."]);
    assert_eq!(seen.saw("cpu.hwcap"), format!("{:#x}", auxv(16)));
    assert_eq!(seen.saw("cpu.hwcap2"), format!("{:#x}", auxv(26)));
    assert_eq!(seen.saw("cpu.minsigstksz"), auxv(51).to_string());
    assert_eq!(seen.saw("cpu.page.size"), auxv(6).to_string());
    // A bit for each of x86-64-v2 to v4, the lowest for the highest it knows.
    let active = number(lines["dl_hwcaps_subdirs_active"]).count_ones() + 1;
    assert_eq!(seen.saw("cpu.level"), active.to_string());
}

/// The status that the kernel shows a program is the one it shows the probe that takes its place, whatever the engine was told.
#[test]
fn the_kernels_own_status_says_the_same_in_a_container() {
    let image = format!("abicus-test-others-{}", std::process::id());
    let import = format!("tar c --files-from /dev/null | docker import - {image}");
    assert!(Command::new("/bin/sh").args(["-c", &import]).output().unwrap().status.success());
    let script = "/busybox cat /proc/self/status; exec /probes/surroundings --only cap. --only lsm. --only limit.oom";
    let mount = format!("{}:/probes:ro", kernel().parent().unwrap().display());
    let ask = |options: &[&str]| {
        let mut command = Command::new("docker");
        command.args(["run", "--rm", "--volume", "/bin/busybox:/busybox:ro", "--volume", &mount]).args(options);
        Seen::of(command.args([&image, "/busybox", "sh", "-c", script]))
    };
    let cells: Vec<Seen> = [
        &[][..],
        &["--cap-drop=ALL", "--user=1000:1001"],
        &["--security-opt=seccomp=unconfined", "--security-opt=no-new-privileges", "--cap-add=SYS_PTRACE"],
    ]
    .map(ask)
    .into();
    assert!(Command::new("docker").args(["rmi", "--force", &image]).output().unwrap().status.success());
    for seen in cells {
        let status = |key: &str| {
            let line = seen.raw.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_else(|| panic!("{key}"));
            line.split_whitespace().next().unwrap().to_owned()
        };
        for (id, key) in [
            ("cap.set.inheritable", "CapInh:"),
            ("cap.set.permitted", "CapPrm:"),
            ("cap.set.effective", "CapEff:"),
            ("cap.set.bounding", "CapBnd:"),
            ("cap.set.ambient", "CapAmb:"),
            ("cap.no_new_privs", "NoNewPrivs:"),
            ("cap.user", "Uid:"),
            ("cap.group", "Gid:"),
            ("lsm.seccomp.mode", "Seccomp:"),
            ("lsm.seccomp.filters", "Seccomp_filters:"),
        ] {
            assert_eq!(seen.saw(id), status(key), "{id}");
        }
    }
}

/// strace counts calls and errors: what a filter refuses failed each time, what it allows did not.
#[test]
fn strace_counts_the_errors_that_the_probe_tells() {
    const REFUSED: [(&str, u32, &str); 3] = [
        ("add_key", 248, "kernel.add_key.user"),
        ("statx", 332, "kernel.statx.root"),
        ("mbind", 237, "kernel.mempolicy.mbind"),
    ];
    const ALLOWED: [(&str, &str); 2] = [("memfd_create", "kernel.memfd.create"), ("eventfd2", "kernel.eventfd.count")];
    let file = tempfile::NamedTempFile::new().unwrap();
    let rules: Vec<_> = REFUSED.iter().map(|(_, call, _)| rule(*call, Action::Errno(EPERM))).collect();
    std::fs::write(file.path(), filter(&rules, Action::Allow)).unwrap();
    let (log, ids) =
        (tempfile::NamedTempFile::new().unwrap(), REFUSED.iter().map(|row| row.2).chain(ALLOWED.map(|row| row.1)));
    let calls: Vec<_> = REFUSED.iter().map(|row| row.0).chain(ALLOWED.map(|row| row.0)).collect();
    let mut command = Command::new("strace");
    command.args(["-c", "-f", "-e", &format!("trace={}", calls.join(",")), "-o"]).arg(log.path());
    command.arg(jail()).arg(file.path()).arg(kernel()).args(ids.flat_map(|id| ["--only", id]));
    let seen = Seen::of(&mut command);
    // % time, seconds, usecs/call, calls, errors (or nothing), syscall
    let table = std::fs::read_to_string(log.path()).unwrap();
    let counts = |call: &str| -> (u32, u32) {
        let words: Vec<&str> = table
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>())
            .find(|w| w.last() == Some(&call))
            .unwrap();
        (words[3].parse().unwrap(), if words.len() == 6 { words[4].parse().unwrap() } else { 0 })
    };
    for (call, _, id) in REFUSED {
        let (calls, errors) = counts(call);
        assert_eq!((seen.saw(id), calls > 0, errors), ("errno 1".to_owned(), true, calls), "{id}: {table}");
    }
    for (call, id) in ALLOWED {
        let (calls, errors) = counts(call);
        assert_eq!((seen.saw(id), calls > 0, errors), ("ok".to_owned(), true, 0), "{id}: {table}");
    }
}

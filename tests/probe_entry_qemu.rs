//! Ways into the kernel that only a command line opens or closes: the vsyscall page in each mode, the vDSO, x32, a clock that
//! programs cannot read. In guests of QEMU.
//!
//! Needs QEMU, busybox-static, and two kernels that apt downloads once. What is absent fails.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![cfg(target_arch = "x86_64")]

#[path = "probe_support/guest.rs"]
mod guest;
mod probe_support;
#[path = "probe_support/ways.rs"]
mod ways;

use abicus::catalog::Catalogue;
use guest::{CLOUD, Guest};
use probe_support::{Action, Seen, foreign, free, jailed};
use ways::Ways;

/// The probe under each command line, two guests at a time: there are not many more processors.
fn each<const N: usize>(package: &str, cmdlines: [&str; N]) -> [Seen; N] {
    let mut seen = Vec::new();
    for two in cmdlines.chunks(2) {
        seen.extend(std::thread::scope(|scope| {
            let guests: Vec<_> = two
                .iter()
                .map(|cmdline| {
                    let script = "/kernel --only entry. --only cpu.clocksource";
                    scope.spawn(move || Guest { cmdline, ..Guest::of(package, script) }.boot())
                })
                .collect();
            guests.into_iter().map(|guest| guest.join().unwrap()).collect::<Vec<_>>()
        }));
    }
    seen.try_into().unwrap_or_else(|_| panic!("one for each"))
}

const CALLS: [&str; 3] = ["entry.vsyscall.gettimeofday", "entry.vsyscall.time", "entry.vsyscall.getcpu"];

/// The page can be read and executed, executed only, or is not there: a program of glibc 2.13 lives with the first two.
#[test]
fn each_mode_of_the_vsyscall_page_is_seen() {
    let modes = ["none", "xonly", "emulate"];
    let seen = each(
        CLOUD,
        modes.map(|mode| match mode {
            "none" => "vsyscall=none",
            "xonly" => "vsyscall=xonly",
            _ => "vsyscall=emulate",
        }),
    );
    for (mode, seen) in modes.iter().zip(&seen) {
        assert_eq!(seen.saw("entry.vsyscall.mode"), *mode);
        for id in CALLS {
            assert_eq!(seen.saw(id), if *mode == "none" { "signal 11" } else { "ok" }, "{mode} {id}");
        }
        // It is a page of its own: the vDSO does not care.
        assert_eq!(seen.saw("entry.vdso.present"), "ok", "{mode}");
    }
}

#[test]
fn a_clock_that_programs_cannot_read_and_a_missing_vdso_are_seen() {
    let clocks = ["entry.vdso.monotonic", "entry.vdso.realtime"];
    let [without, tsc, slow] = each(CLOUD, ["vdso=0", "tsc=reliable", "notsc clocksource=acpi_pm"]);
    assert_eq!(without.saw("entry.vdso.present"), "none");
    assert_eq!((tsc.saw("entry.vdso.present"), tsc.saw("cpu.clocksource")), ("ok".into(), "tsc".into()));
    assert_eq!((slow.saw("entry.vdso.present"), slow.saw("cpu.clocksource")), ("ok".into(), "acpi_pm".into()));
    for id in clocks {
        assert_eq!(without.saw(id), "none", "{id}");
        assert_eq!(tsc.saw(id), "ok", "{id}");
        assert_eq!(slow.saw(id), "needs a system call", "{id}");
    }
}

/// Debian's kernel for real machines has it, and does not let anybody in unless told to.
#[test]
fn x32_is_there_where_the_kernel_is_told_so() {
    let [closed, open] = each("linux-image-amd64", ["", "syscall.x32=y"]);
    assert_eq!(closed.saw("entry.x32"), "errno 38");
    assert_eq!(open.saw("entry.x32"), "ok");
}

/// Each row of the group, here and in guests whose command lines open and close what they can. The i386 entry is closed by a filter
/// that allows no other architecture.
#[test]
fn every_row_was_seen_to_answer_both_ways_or_says_that_it_cannot() {
    let rows = || Catalogue::built_in().rows().filter(|row| row.id.as_str().starts_with("entry."));
    let mut ways = Ways::default();
    ways.add("natively", &free(&["--only", "entry."]), rows());
    ways.add("a filter on i386", &jailed(&foreign(Action::KillProcess), &["--only", "entry."]), rows());
    let cmdlines = ["vsyscall=none vdso=0", "vsyscall=emulate tsc=reliable syscall.x32=y"];
    for (cmdline, seen) in cmdlines.iter().zip(each("linux-image-amd64", cmdlines)) {
        ways.add(cmdline, &seen, rows());
    }
    let wrong = ways.wrong("entry", rows());
    assert!(wrong.is_empty(), "{} rows:\n{}", wrong.len(), wrong.join("\n"));
}

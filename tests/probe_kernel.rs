//! The kernel probe against situations that are made here: filters, deadlines, children left behind.
//!
//! Needs strace, util-linux, QEMU, busybox-static and a kernel that apt downloads once. What is absent fails.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![cfg(target_arch = "x86_64")]

#[path = "probe_support/guest.rs"]
mod guest;
mod probe_support;
#[path = "probe_support/ways.rs"]
mod ways;

use std::collections::{BTreeMap, HashSet};
use std::process::Command;
use std::time::{Duration, Instant};

use abicus::catalog::Catalogue;
use guest::Guest;
use probe_support::{
    Action, ENOSYS, EPERM, Rule, Seen, both, filter, foreign, free, hung, jailed, kernel, rule, surroundings,
};
use ways::Ways;

const KEYCTL: u32 = 250;
const CLONE3: u32 = 435;
const OPENAT2: u32 = 437;
const PERSONALITY: u32 = 135;
const SOCKET: u32 = 41;

#[test]
fn every_planned_check_is_reported_once_and_twenty_runs_say_the_same() {
    let observations = |seen: &Seen| -> Vec<String> {
        let lines = seen.raw.lines().filter(|line| line.starts_with("{\"check\"") && !line.contains("\"samples\""));
        lines.map(str::to_owned).collect()
    };
    let all = || free(&both(&[]));
    let first = all();
    let sum = |key: &str| first.lines.iter().filter_map(|line| line[key].as_u64()).sum::<u64>();
    assert_eq!(first.checks().len() as u64, sum("planned"));
    assert_eq!(sum("reported"), sum("planned"));
    assert!(first.raw.lines().all(|line| line.len() < 4096));
    let first = observations(&first);
    for _ in 1..20 {
        let again = observations(&all());
        let differ: Vec<_> = first.iter().zip(&again).filter(|(one, other)| one != other).collect();
        assert!(differ.is_empty() && again.len() == first.len(), "{differ:#?}");
    }
}

/// The kernel's own list of its functions is something nobody here wrote. A call is there when it has a function of its own (`T`): one that
/// is configured out is a weak name (`W`) of the function that answers ENOSYS.
#[test]
fn presence_agrees_with_the_symbols_of_the_kernel() {
    let symbols = std::fs::read_to_string("/proc/kallsyms").unwrap();
    let functions: HashSet<&str> =
        symbols.lines().filter_map(|line| line.split_once(" T __x64_sys_")).map(|s| s.1).collect();
    assert!(functions.contains("read"), "this kernel does not show its symbols");
    // What the table of x86-64 calls otherwise.
    let function = |name: &str| match name {
        "umount2" => "umount".to_owned(),
        "stat" | "fstat" | "lstat" | "uname" => format!("new{name}"),
        "sendfile" => "sendfile64".to_owned(),
        other => other.to_owned(),
    };
    // Functions that say ENOSYS themselves: by configuration, and where only 32-bit programs may call them.
    let special = ["iopl", "ioperm", "set_thread_area", "get_thread_area", "sync"];
    let mut wrong = Vec::new();
    for (id, line) in free(&["--only", "syscall."]).checks() {
        let name = id.trim_start_matches("syscall.");
        let there = functions.contains(function(name).as_str());
        let present = line["saw"] != "errno" || line["errno"] != 38;
        if there != present && !special.contains(&name) {
            wrong.push(format!("{line}, but symbol: {there}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The kernel's headers are something nobody here wrote either: each call they number is a row of the table, by this number. Of
/// several that are installed the newest, which has the highest number, counts.
#[test]
fn the_table_has_every_number_of_the_newest_headers_installed() {
    let found =
        Command::new("find").args(["/usr/include", "/usr/local", "/opt", "-name", "unistd_64.h"]).output().unwrap();
    let read = |path: &str| -> BTreeMap<u32, String> {
        let text = std::fs::read_to_string(path).unwrap();
        let calls = text.lines().filter_map(|line| line.strip_prefix("#define __NR_")?.split_once(' '));
        calls.map(|(name, number)| (number.trim().parse().unwrap(), name.to_owned())).collect()
    };
    let headers: Vec<_> = String::from_utf8(found.stdout).unwrap().lines().map(read).collect();
    let newest = headers.into_iter().filter(|header| header.get(&59).is_some_and(|name| name == "execve"));
    let newest = newest.max_by_key(|header| header.keys().last().copied()).expect("the package linux-libc-dev");
    assert!(newest.len() > 350, "{newest:?}");
    let numbers = include_str!("../probes/rt/nr_x86_64.rs");
    let ours: BTreeMap<u32, String> = numbers
        .lines()
        .filter_map(|line| line.strip_prefix("pub const ")?.trim_end_matches(';').split_once(": usize = "))
        .map(|(name, number)| (number.parse().unwrap(), name.to_lowercase()))
        .collect();
    let wrong: Vec<_> = newest.iter().filter(|(number, name)| ours.get(number) != Some(*name)).collect();
    assert!(wrong.is_empty(), "not in the table, or by another name: {wrong:?}");
    // The other way round: what they do not have is newer than they are, or was given a number below the last.
    let last = *newest.keys().last().unwrap();
    let more: Vec<_> =
        ours.range(..=last).filter(|(number, _)| !newest.contains_key(number)).map(|row| row.1).collect();
    assert!(more.iter().all(|name| ["uretprobe", "uprobe"].contains(&name.as_str())), "{more:?} in no header");
    // Each is asked, whatever its number.
    let asked = free(&["--only", "syscall."]).checks();
    let silent: Vec<_> = ours.values().filter(|name| !asked.contains_key(&format!("syscall.{name}"))).collect();
    assert!(silent.is_empty(), "numbered and not asked: {silent:?}");
}

#[test]
fn without_a_filter_everything_is_allowed() {
    let seen = free(&["--only", "syscall.", "--only", "filter."]);
    for (id, line) in seen.checks() {
        let allowed = line["filter"] == "allow" || line["value"] == "allow";
        assert!(allowed, "{id}: {line}");
    }
}

#[test]
fn a_refusal_is_seen_and_given_to_the_filter() {
    for (errno, said) in [(EPERM, "errno 1"), (ENOSYS, "errno 38"), (13, "errno 13")] {
        let seen = jailed(&filter(&[rule(CLONE3, Action::Errno(errno))], Action::Allow), &["--only", "syscall.clone"]);
        assert_eq!((seen.saw("syscall.clone3"), seen.filter("syscall.clone3")), (said.to_owned(), said.to_owned()));
        assert_eq!((seen.saw("syscall.clone"), seen.filter("syscall.clone")), ("ok".to_owned(), "allow".to_owned()));
    }
}

/// Refuses every call with errno 13, each by what only the sweep passes: -1 where the probe itself needs the call for its work.
fn refusals() -> Vec<Rule> {
    let table = include_str!("../probes/rt/nr_x86_64.rs");
    let numbers = table.lines().filter_map(|line| line.strip_prefix("pub const ")?.split_once(": usize = "));
    let needed = |name: &str, number| {
        let (index, value) = match name {
            "CLONE" => (5, u32::MAX),
            "EXIT_GROUP" => (0, 0x7ab1_c0c8),
            "KILL" => (0, 0x7fff_fff0),
            "READ" | "WRITE" | "OPENAT" | "CLOSE" | "WAIT4" | "RT_SIGACTION" | "RT_SIGPROCMASK" | "RT_SIGTIMEDWAIT"
            | "MMAP" | "MUNMAP" | "EXECVE" | "PRCTL" | "SECCOMP" | "CLOCK_GETTIME" | "PRLIMIT64" | "PPOLL"
            | "IOCTL" | "NANOSLEEP" => (0, u32::MAX),
            _ => return rule(number, Action::Errno(13)),
        };
        Rule { call: number, argument: Some((index, value)), action: Action::Errno(13) }
    };
    numbers.map(|(name, n)| needed(name, n.trim_end_matches(';').parse().unwrap())).collect()
}

#[test]
fn every_row_can_be_seen_refused() {
    let rules = refusals();
    let seen = jailed(&filter(&rules, Action::Allow), &["--only", "syscall."]);
    // User probes pass filters since 6.14; sync is never made.
    let exempt = ["syscall.uretprobe", "syscall.uprobe", "syscall.sync"];
    let checks = seen.checks();
    assert!(checks.len() > 380);
    for (id, line) in checks.iter().filter(|(id, _)| !exempt.contains(&id.as_str()) && !id.contains("unassigned")) {
        assert_eq!((&line["errno"], &line["filter"]), (&13.into(), &"errno 13".into()), "{id}: {line}");
    }
}

/// The same of what is asked by arguments.
fn refusals_of_variants() -> Vec<Rule> {
    const CLONES: [u32; 5] = [0x3d_0f00, 0x1000_0011, 0x2_0011, 0x2000_0011, 0x4000_0011];
    const PRCTLS: [u32; 11] = [35, 22, 15, 0x5356_4d41, 38, 4, 36, 24, 47, 53, 65];
    let argument = |call, index, values: &[u32]| -> Vec<Rule> {
        let rule = |value: &u32| Rule { call, argument: Some((index, *value)), action: Action::Errno(13) };
        values.iter().map(rule).collect()
    };
    let mut rules = refusals();
    rules.extend(argument(56, 0, &CLONES));
    rules.extend(argument(157, 0, &PRCTLS));
    rules.extend(argument(317, 1, &[u32::MAX, 8]));
    rules.extend(argument(16, 1, &[0x5412, 0x541c, 0x4004_9409]));
    rules.extend(argument(9, 2, &[7]));
    rules.extend(argument(302, 1, &[7]));
    // x32, and an i386 call whose number nobody has here.
    rules.extend([0x4000_0027, 403].map(|call| rule(call, Action::Errno(13))));
    rules
}

#[test]
fn every_variant_can_be_seen_refused() {
    let seen = jailed(&filter(&refusals_of_variants(), Action::Allow), &["--only", "filter."]);
    let allowed: Vec<_> = seen.checks().into_values().filter(|line| line["value"] != "errno 13").collect();
    assert!(allowed.is_empty() && seen.checks().len() > 80, "{allowed:#?}");
}

/// A call is reached somewhere and refused somewhere. A distribution's kernel has what this machine's need not have.
#[test]
fn every_row_was_seen_to_answer_both_ways_or_says_that_it_cannot() {
    const ONLY: [&str; 4] = ["--only", "syscall.", "--only", "filter."];
    let rows =
        || Catalogue::built_in().rows().filter(|row| ONLY.iter().any(|group| row.id.as_str().starts_with(group)));
    let mut ways = Ways::default();
    ways.add("natively", &free(&ONLY), rows());
    ways.add("everything refused", &jailed(&filter(&refusals_of_variants(), Action::Allow), &ONLY), rows());
    let unknown = [380, 423, 500, 600, 4000].map(|call| rule(call, Action::Errno(EPERM)));
    ways.add("what nobody knows refused", &jailed(&filter(&unknown, Action::Allow), &ONLY), rows());
    let script = format!("/kernel {}", ONLY.join(" "));
    ways.add("a distribution's kernel", &Guest::of("linux-image-amd64", &script).boot(), rows());
    let wrong = ways.wrong("kernel", rows());
    assert!(wrong.is_empty(), "{} rows:\n{}", wrong.len(), wrong.join("\n"));
}

/// Rows without a check, checks without a row: in the groups that are complete.
#[test]
fn every_row_is_asked_and_every_answer_has_a_row() {
    let groups = [
        "syscall.", "filter.", "entry.", "proc.", "sys.", "dev.", "cgroup.", "cap.", "lsm.", "ns.", "limit.",
        "sysctl.", "module.",
    ];
    let ours = |id: &str| groups.iter().any(|group| id.starts_with(group));
    let rows = Catalogue::built_in().rows();
    let rows: Vec<String> = rows.map(|row| row.id.to_string()).filter(|id| ours(id)).collect();
    let asked: Vec<String> = free(&both(&[])).checks().into_keys().filter(|id| ours(id)).collect();
    assert_eq!(rows, asked);
}

#[test]
fn a_call_the_kernel_lacks_is_not_blamed_on_the_filter() {
    let seen = jailed(&filter(&[rule(CLONE3, Action::Errno(EPERM))], Action::Allow), &["--only", "syscall.unassigned"]);
    assert_eq!(seen.saw("syscall.unassigned.500"), "errno 38");
    assert_eq!(seen.filter("syscall.unassigned.500"), "allow");
}

#[test]
fn trap_and_kill_cost_only_the_call_they_hit() {
    for (action, said) in [(Action::Trap, "trap"), (Action::KillProcess, "kill"), (Action::KillThread, "kill")] {
        let seen = jailed(&filter(&[rule(KEYCTL, action)], Action::Allow), &["--only", "syscall."]);
        assert_eq!(
            (seen.saw("syscall.keyctl"), seen.filter("syscall.keyctl")),
            ("signal 31".to_owned(), said.to_owned())
        );
        let without: Vec<_> = seen.checks().into_iter().filter(|(id, _)| id != "syscall.keyctl").collect();
        let free: Vec<_> =
            free(&["--only", "syscall."]).checks().into_iter().filter(|(id, _)| id != "syscall.keyctl").collect();
        assert_eq!(without, free);
    }
}

#[test]
fn a_call_that_hangs_costs_its_deadline_and_no_other_call() {
    let seen = hung(&filter(&[rule(KEYCTL, Action::Notify)], Action::Allow), &["--only", "syscall."]);
    assert_eq!((seen.saw("syscall.keyctl"), seen.filter("syscall.keyctl")), ("timeout".into(), "notify".into()));
    assert_eq!((seen.saw("syscall.openat"), seen.filter("syscall.openat")), ("errno 14".into(), "allow".into()));
    assert_eq!(seen.lines.last().unwrap()["reported"], seen.lines[0]["planned"]);
}

/// strace knows the calls by itself and prints what the kernel answered.
#[test]
fn answers_agree_with_strace() {
    // A file for each process: one for all has calls in two parts, where others come between.
    let logs = tempfile::tempdir().unwrap();
    let mut command = Command::new("strace");
    command.args(["-ff", "-qq", "-o"]).arg(logs.path().join("of")).arg(kernel()).args(["--only", "syscall."]);
    let seen = Seen::of(&mut command);
    let mut traced: HashSet<(String, i64)> = HashSet::new();
    let logs = std::fs::read_dir(logs.path()).unwrap();
    let lines: Vec<_> = logs.map(|log| std::fs::read_to_string(log.unwrap().path()).unwrap()).collect();
    for line in lines.iter().flat_map(|log| log.lines()) {
        let call = line.split_once('(').map(|call| call.0);
        let errno = line.rsplit_once(" = -1 ").and_then(|end| end.1.split_whitespace().next());
        if let (Some(call), Some(errno)) = (call, errno.and_then(abicus::judge::errno_number)) {
            traced.insert((call.to_owned(), errno.into()));
        }
    }
    let (mut agreed, mut wrong) = (0, Vec::new());
    for (id, line) in seen.checks() {
        let name = id.trim_start_matches("syscall.").to_owned();
        // An ENOSYS proves nothing, our own filter makes one of every call. An old strace knows no name of a new call, and shows an
        // interrupted pause before the kernel has made an EINTR of it.
        let Some(errno) = line["errno"].as_i64().filter(|errno| *errno != 38 && name != "pause") else { continue };
        if traced.contains(&(name.clone(), errno)) {
            agreed += 1;
        } else if traced.iter().any(|(call, _)| *call == name) {
            wrong.push(line.to_string());
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(agreed > 250, "only {agreed}");
}

/// What runc made of profiles older than the kernel: ENOSYS above the highest number they list, EPERM in the holes below.
#[test]
fn a_hole_below_a_listed_number_and_the_end_of_the_list_are_told_apart() {
    // 436 and below, then 439: the hole holds openat2 and pidfd_getfd.
    let mut rules: Vec<Rule> = (0..=436).map(|call| rule(call, Action::Allow)).collect();
    rules.push(rule(439, Action::Allow));
    rules.extend((440..=500).map(|call| rule(call, Action::Errno(ENOSYS))));
    let seen = jailed(&filter(&rules, Action::Errno(EPERM)), &["--only", "syscall."]);
    assert_eq!((seen.saw("syscall.openat2"), seen.filter("syscall.openat2")), ("errno 1".into(), "errno 1".into()));
    assert_eq!(
        (seen.saw("syscall.futex_waitv"), seen.filter("syscall.futex_waitv")),
        ("errno 38".into(), "errno 38".into())
    );
    assert_eq!(seen.filter("syscall.faccessat2"), "allow");
    assert_eq!(seen.saw("syscall.unassigned.4000"), "errno 1");
}

#[test]
fn what_depends_on_arguments_is_asked_by_arguments() {
    let rules = [
        Rule { call: PERSONALITY, argument: Some((0, 0x40000)), action: Action::Errno(EPERM) },
        Rule { call: SOCKET, argument: Some((0, 40)), action: Action::Errno(97) },
        Rule { call: SOCKET, argument: Some((0, 38)), action: Action::Errno(ENOSYS) },
        Rule { call: 16, argument: Some((1, 0x5412)), action: Action::KillProcess },
    ];
    let seen = jailed(&filter(&rules, Action::Allow), &["--only", "filter.", "--only", "syscall.personality"]);
    assert_eq!(seen.saw("filter.personality.no-randomize"), "errno 1");
    assert_eq!(seen.saw("filter.personality.query"), "allow");
    assert_eq!(seen.filter("syscall.personality"), "allow");
    assert_eq!(seen.saw("filter.socket.vsock"), "errno 97");
    assert_eq!(seen.saw("filter.socket.alg"), "errno 38");
    assert_eq!(seen.saw("filter.socket.inet"), "allow");
    assert_eq!(seen.saw("filter.ioctl.tiocsti"), "kill");
    assert_eq!(seen.saw("filter.ioctl.ficlone"), "allow");
}

/// A filter that lets nobody install another one leaves presence, and says nothing about itself.
#[test]
fn a_filter_that_cannot_be_asked_is_unknown() {
    let rules =
        [rule(317, Action::Errno(EPERM)), Rule { call: 157, argument: Some((0, 22)), action: Action::Errno(EPERM) }];
    let seen = jailed(&filter(&rules, Action::Allow), &["--only", "syscall.", "--only", "filter."]);
    assert_eq!((seen.saw("syscall.seccomp"), seen.filter("syscall.seccomp")), ("errno 1".into(), "unknown".into()));
    assert_eq!(seen.saw("syscall.clone3"), "ok");
    assert_eq!(seen.saw("filter.clone3"), "not-asked");
}

#[test]
fn other_entries_can_be_refused_too() {
    let seen = jailed(&foreign(Action::KillProcess), &["--only", "entry.", "--only", "filter.i386"]);
    assert_eq!(seen.saw("entry.int80"), "signal 31");
    assert_eq!(seen.saw("entry.int80.time64"), "signal 31");
    // The vsyscall page is emulated by calls that a filter sees.
    let calls = [96, 201, 309].map(|call| rule(call, Action::KillProcess));
    let (refused, open) = (jailed(&filter(&calls, Action::Allow), &["--only", "entry."]), free(&["--only", "entry."]));
    for id in ["entry.vsyscall.gettimeofday", "entry.vsyscall.time", "entry.vsyscall.getcpu"] {
        assert_ne!(refused.saw(id), open.saw(id), "{id}");
    }
    assert_eq!(seen.saw("filter.i386"), "kill");
    assert_eq!(seen.saw("entry.vdso.present"), "ok");
}

#[test]
fn return_from_a_handler_and_exit_can_be_refused() {
    let refused = [rule(15, Action::Errno(EPERM)), rule(60, Action::Errno(13)), rule(OPENAT2, Action::Errno(ENOSYS))];
    let seen = jailed(&filter(&refused, Action::Allow), &["--only", "syscall."]);
    assert_eq!(
        (seen.saw("syscall.rt_sigreturn"), seen.filter("syscall.rt_sigreturn")),
        ("errno 1".into(), "errno 1".into())
    );
    assert_eq!((seen.saw("syscall.exit"), seen.filter("syscall.exit")), ("errno 13".into(), "errno 13".into()));
    assert_eq!(seen.saw("syscall.exit_group"), "ok");
    assert_eq!((seen.saw("syscall.openat2"), seen.filter("syscall.openat2")), ("errno 38".into(), "errno 38".into()));
}

#[test]
fn arguments_that_are_wrong_are_refused_with_a_reason() {
    for (arguments, reason) in
        [(vec!["--onyl", "x"], "--onyl"), (vec!["--deadline", "soon"], "soon"), (vec!["--only"], "--only needs")]
    {
        let output = Command::new(kernel()).args(&arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        assert!(String::from_utf8_lossy(&output.stderr).contains(reason), "{arguments:?}");
    }
}

/// Exit lines in order.
fn exits(seen: &Seen) -> Vec<String> {
    seen.lines.iter().filter(|line| line["exit"].is_number()).map(|line| line.to_string()).collect()
}

#[test]
fn the_supervisor_runs_programs_in_turn_and_says_how_each_ended() {
    let seen = Seen::of(Command::new(kernel()).args([
        "run",
        "--deadline",
        "400",
        "--only",
        "entry.vdso.present",
        "--",
        "/bin/sh",
        "-c",
        "exit 7",
        "--",
        "/nonexistent",
        "x",
        "--",
        "/bin/sleep",
        "5",
        "--",
        "/bin/sh",
        "-c",
        "kill -9 $$",
    ]));
    assert_eq!(seen.status, Some(0));
    assert_eq!(seen.saw("entry.vdso.present"), "ok");
    let expected = [
        r#"{"exit":0,"status":0}"#,
        r#"{"exit":1,"status":7}"#,
        r#"{"exit":2,"errno":2}"#,
        r#"{"exit":3,"timeout":400}"#,
        r#"{"exit":4,"signal":9}"#,
    ];
    assert_eq!(exits(&seen), expected);
}

/// A policy kills the kernel probe's checks in the middle, and the surroundings probe is damaged: each costs only itself.
#[test]
fn a_probe_that_dies_costs_no_other_probe() {
    let dir = tempfile::tempdir().unwrap();
    let damaged = dir.path().join("surroundings");
    // Nothing but ud2 behind the headers.
    let mut bytes = std::fs::read(surroundings()).unwrap();
    for pair in bytes[512..].chunks_mut(2) {
        pair.copy_from_slice(&[0x0f, 0x0b][..pair.len()]);
    }
    std::fs::write(&damaged, bytes).unwrap();
    std::fs::set_permissions(&damaged, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let loader = "/lib64/ld-linux-x86-64.so.2";
    let libc = probe_support::libc();
    let arguments = |surroundings: &std::path::Path| {
        let only = ["--only", "syscall.", "--only", "limit.", "--only", "libc.version"];
        let programs = [vec![surroundings.to_str().unwrap()], vec![loader, libc.to_str().unwrap()]];
        let mut all = ["run"].iter().chain(&only).map(|text| (*text).to_owned()).collect::<Vec<_>>();
        for program in programs {
            all.extend(["--"].into_iter().chain(program).chain(only).map(str::to_owned));
        }
        all
    };
    // SECCOMP_IOCTL_NOTIF_RECV, which only the probe itself makes.
    let deadly = Rule { call: 16, argument: Some((1, 0xc050_2100)), action: Action::KillProcess };
    let seen = jailed(&filter(&[deadly], Action::Allow), &arguments(&surroundings()));
    assert_eq!((seen.saw("limit.nofile.soft").is_empty(), seen.saw("libc.version").is_empty()), (false, false));
    assert_eq!(exits(&seen)[0], r#"{"exit":0,"signal":31}"#);
    let seen = free(&arguments(&damaged));
    assert_eq!((seen.saw("syscall.clone3"), seen.saw("libc.version").is_empty()), ("ok".to_owned(), false));
    assert_eq!(exits(&seen)[1], r#"{"exit":1,"signal":4}"#);
    let report = abicus::collect::parse(seen.raw.as_bytes());
    assert_eq!(report.faults.len(), 1, "{:?}", report.faults);
}

/// A program that makes a daemon in a session of its own, which would write a file after a while.
#[test]
fn nothing_a_program_started_outlives_it() {
    let dir = tempfile::tempdir().unwrap();
    let (late, later) = (dir.path().join("late"), dir.path().join("later"));
    let daemon = |file: &std::path::Path, then: &str| {
        format!("setsid sh -c '(sleep 1; touch {}) & sleep 2' & {then}", file.display())
    };
    let start = Instant::now();
    let seen = Seen::of(Command::new(kernel()).args(["run", "--deadline", "300", "--only", "none"]).args([
        "--",
        "/bin/sh",
        "-c",
        &daemon(&late, "sleep 0.1"),
        "--",
        "/bin/sh",
        "-c",
        &daemon(&later, "sleep 9"),
    ]));
    assert_eq!(exits(&seen)[1..], [r#"{"exit":1,"status":0}"#, r#"{"exit":2,"timeout":300}"#]);
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    std::thread::sleep(Duration::from_millis(1500).saturating_sub(start.elapsed()));
    assert!(!late.exists() && !later.exists());
}

#[test]
fn as_pid_1_it_works_the_same() {
    let seen =
        Seen::of(Command::new("unshare").args(["--user", "--map-root-user", "--pid", "--fork"]).arg(kernel()).args([
            "run",
            "--deadline",
            "300",
            "--only",
            "entry.vdso",
            "--",
            "/bin/sh",
            "-c",
            "setsid sleep 9 & exit 3",
            "--",
            "/bin/sleep",
            "9",
        ]));
    assert_eq!(seen.status, Some(0), "{}", seen.raw);
    assert_eq!(exits(&seen), [r#"{"exit":0,"status":0}"#, r#"{"exit":1,"status":3}"#, r#"{"exit":2,"timeout":300}"#]);
}

/// Ignored signals, the signal mask, limits and the rest of the status reach a program as they reached the supervisor.
#[test]
fn programs_inherit_what_the_supervisor_was_given() {
    // grep reads what it was given itself; a shell in its place would put its mask right.
    let given = |program: &str, files: &str| {
        let script = format!(
            "umask 027; ulimit -n 77; exec env --ignore-signal=CHLD,USR1 --block-signal=USR2 {program} {files}"
        );
        let output = Command::new("/bin/sh").args(["-c", &script]).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let grep = "grep -hE '^(Sig[BIC]|Umask|NoNewPrivs|Seccomp|Cap|Max)'";
    let plain = given(grep, "/proc/self/status /proc/self/limits");
    let run = given(
        &format!("{} run --only syscall. -- /bin/{grep}", kernel().display()),
        "/proc/self/status /proc/self/limits",
    );
    let run: Vec<&str> = run.lines().filter(|line| !line.starts_with('{')).collect();
    assert_eq!(run, plain.lines().collect::<Vec<_>>());
    assert!(plain.contains("SigBlk:\t0000000000000800") && run.len() > 15, "{plain}");
}

//! A run changes nothing, natively and as root: the state of the machine before and after, and the kernel's log.
//!
//! In namespaces and a machine of its own, where nobody else changes anything meanwhile. Needs root, util-linux, iproute2, perl,
//! QEMU, busybox-static and a kernel that apt downloads once. What is absent fails.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![cfg(target_arch = "x86_64")]

#[path = "probe_support/guest.rs"]
mod guest;
mod probe_support;

use std::process::Command;

use abicus::catalog::Catalogue;
use guest::{CLOUD, Guest};
use probe_support::{kernel, libc, surroundings};

/// What could be left: files, queues, mounts, sockets (with a name, without one, abstract), processes, addresses, modules, the
/// host's name, settings of the kernel, keys.
const STATE: &str = r#"
    state() {
        ls -A /tmp /var/tmp /dev/shm /run/queues; ls -A / | grep abicus
        cat /proc/sysvipc/shm /proc/sysvipc/sem /proc/sysvipc/msg
        cut -d' ' -f3-6 /proc/self/mountinfo
        # Not what only waits for late packets (06).
        for file in unix tcp tcp6 udp udp6 raw packet; do echo $file; awk '$4 != "06"' /proc/net/$file | wc -l; done
        for process in /proc/[0-9]*; do read -r name <$process/comm && echo "$name"; done
        ip -o address; hostname; cut -d' ' -f1 /proc/modules
        cat /proc/sys/kernel/core_pattern /proc/sys/vm/max_map_count /proc/sys/vm/nr_hugepages
        ulimit -a; umask; date +%Y
        # The kernel collects dead keys a moment later.
        n=0; while [ $n -lt 100 ] && grep -q abicus /proc/keys; do sleep 0.1; n=$((n + 1)); done
        grep abicus /proc/keys
    } 2>/dev/null
    # A script may cover the directory that the programs lie in.
    mount --bind "$P" /srv
    for dir in /run /tmp /var/tmp /dev/shm; do mount -t tmpfs none $dir; done
    mkdir /run/queues; mount -t mqueue none /run/queues
    ip link set lo up; sleep 0.2
    changed() { state >/run/after-$$; diff /run/before-$$ /run/after-$$ | grep '^[<>]' | sed "s/^/$1: /"; }
"#;

/// The script in namespaces of its own, and what it prints.
fn apart(script: &str) -> String {
    let script = format!("{STATE}\nstate >/run/before-$$\n{script}");
    let output = Command::new("unshare")
        .args([
            "--mount",
            "--ipc",
            "--net",
            "--uts",
            "--pid",
            "--fork",
            "--mount-proc",
            "--",
            "/bin/bash",
            "-c",
            &script,
        ])
        .env("P", kernel().parent().unwrap())
        .output()
        .unwrap();
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_native_run_as_root_leaves_everything_as_it_was() {
    let run = r#"
        loader=/lib64/ld-linux-x86-64.so.2
        /srv/kernel run --bench -- /srv/surroundings -- $loader /srv/libc >/run/lines || echo "status $?"
        [ "$(grep -c '^{"end"' /run/lines)" = 3 ] || echo "not three probes"
        changed probes"#;
    assert_eq!(apart(run), "");
}

/// What is left is seen, as what it is.
#[test]
fn whatever_would_be_left_changes_the_state() {
    // KEYCTL_JOIN_SESSION_KEYRING: a keyring lives as long as a process is in it.
    let keyring = r#"perl -e 'my $name = "abicus-left"; syscall 250, 1, $name; exec "sleep", "100"' & sleep 0.2"#;
    for (leave, what) in [
        ("touch /tmp/left", "> left"),
        ("touch /run/queues/left", "> left"),
        ("ipcmk -Q >/dev/null", "644"),
        ("mount -t tmpfs none /mnt", "/mnt"),
        ("sleep 100 & sleep 0.1", "> sleep"),
        ("hostname abicus-left", "> abicus-left"),
        ("ip address add 192.0.2.1/32 dev lo", "192.0.2.1"),
        (keyring, "keyring   abicus-left"),
    ] {
        let changed = apart(&format!("{leave}\nchanged left"));
        assert!(changed.contains(what), "{leave}: {changed}");
    }
}

/// What the catalogue says that a run may leave in the kernel's log.
fn documented(line: &str) -> bool {
    let documented = [
        "umip",
        "overflowed sigaltstack",
        "deprecated remap_file_pages()",
        "UDP-Lite is deprecated",
        "__vm_enough_memory",
        "vsyscall attempted with vsyscall=none",
    ];
    for what in documented {
        let said = |effect: &str| effect.contains("the kernel's log") && effect.contains(what);
        let mut rows = Catalogue::built_in().rows();
        assert!(rows.any(|row| row.effect.as_deref().is_some_and(said)), "{what} is in no row");
    }
    documented.iter().any(|what| line.contains(what))
}

/// The log of this machine is everybody's, so the probes run under names of their own, by which the kernel calls them.
#[test]
fn the_log_says_no_more_than_the_catalogue() {
    let dir = tempfile::tempdir().unwrap();
    let log = || String::from_utf8(Command::new("dmesg").output().unwrap().stdout).unwrap();
    let before = log();
    let libc = libc();
    let programs = [
        ("abicus-quiet-k", kernel(), None),
        ("abicus-quiet-s", surroundings(), None),
        ("abicus-quiet-l", "/lib64/ld-linux-x86-64.so.2".into(), Some(&libc)),
    ];
    for (name, program, argument) in &programs {
        std::fs::copy(program, dir.path().join(name)).unwrap();
        let mut command = Command::new(dir.path().join(name));
        let status =
            command.args(argument).stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).status();
        assert!(status.unwrap().success());
    }
    let log = log();
    let before: std::collections::HashSet<&str> = before.lines().collect();
    let ours = |line: &&str| !before.contains(line) && programs.iter().any(|(name, ..)| line.contains(name));
    let more: Vec<_> = log.lines().filter(ours).filter(|line| !documented(line)).collect();
    assert!(more.is_empty(), "{more:#?}");
}

/// In a machine of its own every line is ours, whomever it names, but for what an emulated one says when it gets no time.
#[test]
fn the_log_of_a_machine_of_its_own_says_no_more_than_the_catalogue() {
    let script = "ip link set lo up; dmesg -c >/dev/null\n\
                  /kernel run --deadline 80000 -- /surroundings -- /lib64/ld-linux-x86-64.so.2 /libc\ndmesg | sed 's/^/log: /'";
    let seen = Guest { cmdline: "vsyscall=none", ..Guest::of(CLOUD, script) }.boot();
    assert_eq!(seen.lines.iter().filter(|line| line["end"].is_string()).count(), 3, "{}", seen.raw);
    let log: Vec<_> = seen.raw.lines().filter_map(|line| line.strip_prefix("log: ")).collect();
    let late = ["clocksource", "tsc: ", "hrtimer", "sched", "rcu", "workqueue", "random: "];
    let late = |line: &str| line.split_once("] ").is_some_and(|(_, text)| late.iter().any(|who| text.starts_with(who)));
    let more: Vec<_> = log.iter().filter(|line| !documented(line) && !late(line)).collect();
    assert!(!log.is_empty() && more.is_empty(), "{more:#?} of {log:#?}");
}

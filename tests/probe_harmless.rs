//! A run changes nothing, natively and as root: the state of the machine before and after, and the kernel's log.
//!
//! Needs root and util-linux. In namespaces of its own, where nobody else changes anything meanwhile.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![cfg(target_arch = "x86_64")]

mod probe_support;

use std::process::Command;

use abicus::catalog::Catalogue;
use probe_support::{kernel, surroundings};

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

/// What is left is seen.
#[test]
fn whatever_would_be_left_changes_the_state() {
    for leave in [
        "touch /tmp/left",
        "touch /run/queues/left",
        "ipcmk -Q >/dev/null",
        "mount -t tmpfs none /mnt",
        "sleep 100 & sleep 0.1",
        "hostname abicus-left",
        "ip address add 192.0.2.1/32 dev lo",
    ] {
        assert_ne!(apart(&format!("{leave}\nchanged left")), "", "{leave}");
    }
}

/// The kernel's log is the machine's, so the probes run under names of their own, by which it calls them.
#[test]
fn the_log_says_no_more_than_the_catalogue() {
    let dir = tempfile::tempdir().unwrap();
    let names = ["abicus-quiet-k", "abicus-quiet-s"];
    for (name, program) in names.iter().zip([kernel(), surroundings()]) {
        std::fs::copy(program, dir.path().join(name)).unwrap();
        let status = Command::new(dir.path().join(name)).stdout(std::process::Stdio::null()).status().unwrap();
        assert!(status.success());
    }
    let log = String::from_utf8(Command::new("dmesg").output().unwrap().stdout).unwrap();
    let effects: Vec<_> = Catalogue::built_in().rows().filter_map(|row| row.effect.clone()).collect();
    let documented = ["umip", "overflowed sigaltstack"];
    for what in documented {
        assert!(effects.iter().any(|effect| effect.contains(what)), "{what} is in no row");
    }
    let ours = log.lines().filter(|line| names.iter().any(|name| line.contains(name)));
    let more: Vec<_> = ours.filter(|line| !documented.iter().any(|what| line.contains(what))).collect();
    assert!(more.is_empty(), "{more:#?}");
}

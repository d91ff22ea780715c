//! Asking loads no module: on a kernel that can load some, in a guest whose modprobe writes down what it was asked for.
//!
//! Needs QEMU, busybox-static, and a kernel that apt downloads once. What is absent fails.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![cfg(target_arch = "x86_64")]

#[path = "probe_support/guest.rs"]
mod guest;
mod probe_support;

use guest::{CLOUD, Guest};
use probe_support::Seen;

/// A modprobe that loads nothing and writes down its name for what was asked, and a network with a loopback.
const SCRIPT: &str = r#"
    printf '#!/bin/sh\necho "asked for $*" >>/asked\n' >/bin/load; chmod 755 /bin/load
    echo /bin/load >/proc/sys/kernel/modprobe
    ip link set lo up
    : >/asked
"#;

const PROBES: &str = "/kernel run -- /surroundings -- /lib64/ld-linux-x86-64.so.2 /libc\n";

fn boot(script: &str) -> Seen {
    Guest::of(CLOUD, &format!("{SCRIPT}{script}cat /asked")).boot()
}

fn asked(seen: &Seen) -> Vec<&str> {
    seen.raw.lines().filter(|line| line.starts_with("asked for")).collect()
}

/// What is asked for only where it is there already, and what each says of itself elsewhere.
const GUARDED: [(&str, &str); 9] = [
    ("net.family.vsock", "vsock"),
    ("net.family.alg", "af_alg"),
    ("net.family.bluetooth", "bluetooth"),
    ("net.family.can", "can"),
    ("net.protocol.sctp", "sctp"),
    ("net.alg.hash", "af_alg"),
    ("net.nftables.tables", "nf_tables"),
    ("net.iptables.legacy", "iptable_nat"),
    ("kernel.mount.overlay", "overlay"),
];

#[test]
fn a_run_as_root_makes_the_kernel_load_nothing() {
    let seen = boot(PROBES);
    assert_eq!(asked(&seen), Vec::<&str>::new());
    assert_eq!(seen.lines.iter().filter(|line| line["end"].is_string()).count(), 3, "{}", seen.raw);
    for (id, what) in GUARDED {
        let line = &seen.checks()[id];
        assert!(line["why"].as_str().unwrap_or("").contains(what), "{line}");
    }
    // What is built in is asked for all the same.
    for id in ["net.family.packet", "net.family.inet6", "net.loopback.tcp6", "net.protocol.mptcp", "net.family.xdp"] {
        assert_eq!(seen.saw(id), "ok", "{id}");
    }
}

/// The same guest sees what asking does, and a kernel that can load nothing is asked everything.
#[test]
fn what_would_be_loaded_is_seen_and_asked_where_it_cannot_be() {
    let seen = boot(
        "mount -t btrfs none /tmp 2>/dev/null\necho >/proc/sys/kernel/modprobe\n/kernel run -- /surroundings --only net. --only kernel.mount.\n",
    );
    assert_eq!(asked(&seen), ["asked for -q -- fs-btrfs"]);
    assert_eq!(seen.saw("net.family.vsock"), "errno 97");
    assert_eq!(seen.saw("net.protocol.sctp"), "errno 93");
    assert_eq!(seen.saw("kernel.mount.overlay"), "errno 19");
}

//! What surrounds a program, asked in surroundings that are made here: an empty root, a root of crafted files, docker with its
//! options, masks, limits, capabilities taken away.
//!
//! These tests need root, a running dockerd, util-linux, libcap's capsh, QEMU, busybox-static and a kernel that apt downloads once. What is absent fails them; nothing is skipped.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![cfg(target_arch = "x86_64")]

#[path = "probe_support/guest.rs"]
mod guest;
mod probe_support;
#[path = "probe_support/ways.rs"]
mod ways;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use abicus::catalog::{Catalogue, Requirement};
use abicus::judge::judge_cell;
use abicus::judge::roster::Rosters;
use guest::Guest;
use probe_support::{Seen, surroundings};
use tempfile::TempDir;
use ways::Ways;

const GROUPS: [&str; 10] = ["proc.", "sys.", "dev.", "cgroup.", "cap.", "lsm.", "ns.", "limit.", "sysctl.", "module."];

fn ours(id: &str) -> bool {
    GROUPS.iter().any(|group| id.starts_with(group))
}

/// The probe's arguments for these groups.
fn only() -> Vec<&'static str> {
    GROUPS.iter().flat_map(|group| ["--only", *group]).collect()
}

/// Natively, as it is.
fn here() -> Seen {
    Seen::of(Command::new(surroundings()).args(only()))
}

/// `program arguments… PROBE --only …`
fn under(program: &str, arguments: &[&str]) -> Seen {
    Seen::of(Command::new(program).args(arguments).arg(surroundings()).args(only()))
}

/// An image with nothing but the probe, removed when it is no longer needed.
struct Image(String);

impl Image {
    fn new(label: &str) -> Image {
        let name = format!("abicus-test-surroundings-{label}-{}", std::process::id());
        let probe = surroundings();
        let mut tar = Command::new("tar")
            .args(["-c", "-C"])
            .arg(probe.parent().unwrap())
            .arg("surroundings")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let import =
            Command::new("docker").args(["import", "-", &name]).stdin(tar.stdout.take().unwrap()).output().unwrap();
        assert!(tar.wait().unwrap().success());
        assert!(import.status.success(), "{}", String::from_utf8_lossy(&import.stderr));
        Image(name)
    }

    fn run(&self, options: &[&str]) -> Seen {
        Seen::of(
            Command::new("docker").args(["run", "--rm"]).args(options).args([&self.0, "/surroundings"]).args(only()),
        )
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        let _ = Command::new("docker").args(["rmi", "-f", &self.0]).output();
    }
}

/// A directory with the probe and these files in it.
fn root(files: &[(&str, &str)]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::copy(surroundings(), dir.path().join("surroundings")).unwrap();
    for (path, text) in files {
        let path = dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    dir
}

fn inside(root: &Path) -> Seen {
    Seen::of(Command::new("chroot").arg(root).arg("/surroundings").args(only()))
}

/// Files this machine may lack, and lists of the kernel with everything registered.
fn crafted() -> TempDir {
    let mut files: Vec<(&str, &str)> = vec![
        ("proc/self/attr/current", "a_u:a_r:a_t:s0:c1,c2\n"),
        ("proc/self/status", "Speculation_Store_Bypass:\tthread force mitigated\n"),
        ("proc/self/uid_map", "0 1000 1\n1 100000 65535\n"),
        (
            "proc/filesystems",
            "nodev\tproc\nnodev\t9p\n\tautofs\n\tbinfmt_misc\n\tbpf\n\tbtrfs\n\tceph\n\tcifs\n\terofs\n\text4\n\tfuse\n\tiso9660\n\tnfs\n\tnfsd\n\
             \toverlay\n\tsquashfs\n\tvfat\n\tvirtiofs\n\txfs\n\tzfs\n",
        ),
        (
            "proc/net/protocols",
            "protocol  size\nALG 1\nMPTCP 1\nPACKET 1\nPPPOE 1\nRDS 1\nSCTP 1\nTIPC 1\nAF_VSOCK 1\nXDP 1\n",
        ),
        ("proc/misc", " 58 device-mapper\n232 kvm\n237 loop-control\n200 tun\n238 vhost-net\n"),
        ("proc/net/netlink", "sk Eth Pid\n0 9 0\n0 4 0\n0 6 0\n0 12 0\n"),
        ("proc/net/dev", "lo:\n"),
        ("proc/modules", "nf_tables 1 0\nbridge 1 0\n"),
        // Settings of the host that no test may change.
        ("proc/sys/fs/aio-max-nr", "16\n"),
        ("proc/sys/fs/inotify/max_user_instances", "1\n"),
        ("proc/sys/fs/inotify/max_user_watches", "1\n"),
        ("proc/sys/fs/nr_open", "64\n"),
        ("proc/sys/kernel/io_uring_disabled", "2\n"),
        ("proc/sys/kernel/keys/maxkeys", "1\n"),
        ("proc/sys/net/ipv6/bindv6only", "1\n"),
        ("proc/sys/user/max_user_namespaces", "0\n"),
        ("proc/sys/vm/max_map_count", "262144\n"),
        ("proc/sys/vm/memfd_noexec", "2\n"),
    ];
    files.extend(
        [
            "proc/asound/cards",
            "proc/driver/nvidia/version",
            "proc/kcore",
            "proc/latency_stats",
            "proc/net/bonding",
            "proc/net/can",
            "proc/net/ip6_tables_names",
            "proc/net/ip_tables_names",
            "proc/net/ip_vs",
            "proc/net/pfkey",
            "proc/net/tls_stat",
            "proc/net/vlan",
            "proc/sched_debug",
            "proc/scsi/scsi",
            "proc/sysrq-trigger",
            "proc/sys/crypto/fips_enabled",
            "proc/sys/fs/binfmt_misc/status",
            "proc/sys/kernel/apparmor_restrict_unprivileged_userns",
            "proc/sys/kernel/kexec_load_disabled",
            "proc/sys/kernel/modules_disabled",
            "proc/sys/kernel/sysrq",
            "proc/sys/kernel/unprivileged_userns_clone",
            "proc/sys/kernel/yama/ptrace_scope",
            "proc/sys/net/bridge/bridge-nf-call-iptables",
            "proc/sys/net/ipv6/any",
            "proc/sys/net/netfilter/nf_conntrack_max",
            "proc/timer_stats",
            "sys/class/dmi/id/product_name",
            "sys/class/drm/card0",
            "sys/class/hwmon/hwmon0",
            "sys/class/infiniband/mlx5_0",
            "sys/class/zram-control/any",
            "sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq",
            "sys/devices/system/cpu/cpu0/thermal_throttle/count",
            "sys/devices/virtual/powercap/any",
            "sys/firmware/efi/any",
            "sys/fs/cgroup/cgroup.freeze",
            "sys/fs/cgroup/cgroup.kill",
            "sys/fs/cgroup/cgroup.procs",
            "sys/fs/cgroup/hugetlb.2MB.max",
            "sys/fs/selinux/enforce",
            "sys/hypervisor/type",
            "sys/kernel/mm/lru_gen/enabled",
            "sys/kernel/security/lockdown",
            "sys/kernel/uevent_helper",
            "sys/module/apparmor/parameters/enabled",
            "dev/bus/usb/001",
            "dev/cpu/0/msr",
            "dev/cuse",
            "dev/dma_heap/system",
            "dev/dri/card0",
            "dev/fb0",
            "dev/hugepages/any",
            "dev/infiniband/any",
            "dev/input/any",
            "dev/kfd",
            "dev/log",
            "dev/mapper/control",
            "dev/mem",
            "dev/nvidiactl",
            "dev/ppp",
            "dev/rtc0",
            "dev/snd/any",
            "dev/tpmrm0",
            "dev/udmabuf",
            "dev/uinput",
            "dev/vfio/vfio",
            "dev/vhost-net",
            "dev/vhost-vsock",
            "dev/video0",
        ]
        .map(|path| (path, "1\n")),
    );
    let root = root(&files);
    std::os::unix::fs::symlink("/proc/kcore", root.path().join("dev/core")).unwrap();
    root
}

/// Limits as no cell has them, where root may lower them.
const LIMITS: [&str; 15] = [
    "--cpu=1000:2000",
    "--fsize=1000000:2000000",
    "--data=900000000:1900000000",
    "--stack=500000:2000000",
    "--core=1:2",
    "--rss=1:2",
    "--nproc=20000:20001",
    "--nofile=64:128",
    "--memlock=0:4096",
    "--as=900000000:1900000000",
    "--locks=1:2",
    "--sigpending=10:20",
    "--msgqueue=1:2",
    "--rttime=1000000:2000000",
    "--",
];

fn limited() -> Seen {
    under("prlimit", &LIMITS)
}

/// Must and should of these groups that do not pass, as `id: what was seen`.
fn failures(seen: &Seen, least: Requirement) -> Vec<String> {
    let report = abicus::collect::parse(seen.raw.as_bytes());
    let unreported = Rosters::default().unreported(&report.probes, &report.observations);
    let judged = judge_cell(Catalogue::built_in(), &report.observations, &unreported, &report.faults);
    let failed = judged.checks.iter().filter(|one| {
        ours(one.check.as_str())
            && one.outcome.word() == "fail"
            && Catalogue::built_in().row(one.check).unwrap().requirement >= least
    });
    failed.map(|one| format!("{}: {}", one.check, seen.saw(one.check.as_str()))).collect()
}

#[test]
fn natively_nothing_that_ordinary_programs_need_is_missing() {
    assert_eq!(failures(&here(), Requirement::Must), Vec::<String>::new());
}

/// In any surroundings: where nothing can be asked, too, each check that was planned is reported, once.
#[test]
fn every_planned_check_is_reported_wherever_it_is() {
    let whole = |seen: &Seen| {
        let lines = seen.lines.iter().filter(|line| line["check"].is_string()).count();
        assert_eq!(seen.lines.last().unwrap()["reported"], seen.lines[0]["planned"], "{}", seen.raw);
        assert_eq!(seen.lines[0]["planned"], lines);
        assert_eq!(seen.checks().len(), lines, "some twice");
        lines
    };
    let (empty, image) = (root(&[]), Image::new("planned"));
    let all = Seen::of(&mut Command::new(surroundings()));
    let rows = Catalogue::built_in().rows().filter(|row| {
        ours(row.id.as_str()) || ["fs.", "shm.", "net."].iter().any(|group| row.id.as_str().starts_with(group))
    });
    assert_eq!(whole(&all), rows.count(), "a row that nobody asks, or an answer without one");
    let planned = whole(&here());
    for seen in
        [inside(empty.path()), image.run(&["--cap-drop=ALL", "--user=1000:1001", "--pids-limit=15", "--read-only"])]
    {
        assert_eq!(whole(&seen), planned);
    }
}

#[test]
fn docker_gives_what_ordinary_programs_need() {
    let seen = Image::new("default").run(&[]);
    assert_eq!(failures(&seen, Requirement::Should), Vec::<String>::new());
    assert_eq!((seen.saw("proc.sys.readonly"), seen.saw("sys.firmware")), ("read-only".into(), "masked".into()));
    assert_eq!((seen.saw("lsm.seccomp.mode"), seen.saw("cap.set.effective")), ("2".into(), "00000000a80425fb".into()));
    assert_eq!((seen.saw("ns.pid"), seen.saw("ns.user")), ("its own".into(), "the host's".into()));
    // The first one of a kernel has a number of its own since 6.18: linux/proc_ns.h.
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let numbers = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse().unwrap_or(0));
    assert_eq!(seen.saw("ns.mnt"), if numbers.ge([6_u32, 18]) { "its own" } else { "not-asked" });
}

#[test]
fn an_empty_root_lacks_all_of_it() {
    let dir = root(&[]);
    let seen = inside(dir.path());
    let failed: BTreeSet<String> =
        failures(&seen, Requirement::Must).iter().map(|line| line.split(':').next().unwrap().to_owned()).collect();
    let files = Catalogue::built_in().rows().filter(|row| {
        row.requirement == Requirement::Must
            && ["proc.", "sys.", "dev."].iter().any(|group| row.id.to_string().starts_with(group))
    });
    let missing: Vec<String> = files.map(|row| row.id.to_string()).filter(|id| !failed.contains(id)).collect();
    assert_eq!(missing, Vec::<String>::new());
}

#[test]
fn what_the_kernel_lists_is_registered() {
    let dir = crafted();
    let seen = inside(dir.path());
    // Asked by netlink, which does not care for files.
    let families = ["module.macsec", "module.nbd", "module.nl80211", "module.openvswitch", "module.wireguard"];
    for (id, line) in seen.checks() {
        if id.starts_with("module.") && !families.contains(&id.as_str()) {
            assert_eq!(line["saw"], "ok", "{line}");
        }
    }
    assert_eq!(seen.saw("lsm.label"), "a_u:a_r:a_t:s0");
    assert_eq!(seen.saw("lsm.mitigation.store_bypass"), "thread force mitigated");
    assert_eq!(seen.saw("ns.user.uids"), "65536");
    assert_eq!(seen.saw("dev.ppp"), "no character device");
}

#[test]
fn a_mask_of_each_kind_is_seen() {
    let masks = "mount --bind /dev/null /proc/uptime; mount -t tmpfs none /proc/bus; mount --bind /dev/null /proc/self/status; \
                 mount -o remount,bind,ro /proc/bus; mount -t tmpfs none /dev/pts; mount --bind /dev/null /proc/keys; \
                 mount -t tmpfs none /dev/shm -o noexec; exec \"$@\"";
    let seen = under("unshare", &["--mount", "sh", "-ec", masks, "sh"]);
    for (id, saw) in [
        ("proc.uptime", "empty"),
        ("proc.bus", "masked"),
        ("proc.bus.readonly", "read-only"),
        ("proc.keys", "masked"),
        ("dev.pts.mounted", "type 0x1021994"),
        ("dev.shm.execute", "errno 1"),
    ] {
        assert_eq!(seen.saw(id), saw, "{id}");
    }
}

#[test]
fn limits_of_the_engine_are_seen() {
    let image = Image::new("limits");
    let seen = image.run(&[
        "--ulimit=nofile=64:1024",
        "--ulimit=core=0",
        "--pids-limit=15",
        "--memory=64m",
        "--cpus=0.5",
        "--cpu-shares=512",
        "--cpuset-cpus=0",
        "--oom-score-adj=500",
        "--security-opt=no-new-privileges",
        "--sysctl=net.ipv4.ip_unprivileged_port_start=1024",
        "--shm-size=1m",
    ]);
    for (id, saw) in [
        ("limit.nofile.soft", "64"),
        ("limit.nofile.hard", "1024"),
        ("limit.reach.files", "errno 24"),
        ("limit.reach.threads", "errno 11"),
        ("limit.core.soft", "0"),
        ("cgroup.pids.max", "15"),
        ("cgroup.memory.max", "67108864"),
        ("cgroup.cpuset.cpus", "0"),
        ("limit.affinity.cpus", "1"),
        ("limit.oom.score_adj", "500"),
        ("cap.no_new_privs", "1"),
        ("sysctl.net.ipv4.ip_unprivileged_port_start", "1024"),
    ] {
        assert_eq!(seen.saw(id), saw, "{id}");
    }
    assert!(["50000", "50000 100000"].contains(&seen.saw("cgroup.cpu.max").as_str()), "{}", seen.saw("cgroup.cpu.max"));
}

#[test]
fn what_the_engine_opens_is_seen() {
    let image = Image::new("open");
    let seen = image.run(&[
        "--security-opt=systempaths=unconfined",
        "--security-opt=seccomp=unconfined",
        "--device=/dev/fuse",
        "--device=/dev/net/tun",
        "--cap-add=NET_ADMIN",
        "--pid=host",
        "--read-only",
    ]);
    for (id, saw) in [
        ("proc.sys.readonly", "writable"),
        ("sys.firmware", "readable"),
        ("lsm.seccomp.mode", "0"),
        ("dev.fuse", "ok"),
        ("dev.tun", "ok"),
        ("cap.net_admin", "ok"),
        ("ns.pid", "the host's"),
        ("dev.node.make", "errno 30"),
    ] {
        assert_eq!(seen.saw(id), saw, "{id}");
    }
}

#[test]
fn a_cell_without_capabilities_says_which_it_lacks() {
    let image = Image::new("caps");
    let none = image.run(&["--cap-drop=ALL"]).checks();
    for row in Catalogue::built_in().rows().filter(|row| row.title.ends_with("is effective")) {
        assert_eq!(none[row.id.as_str()]["value"], "dropped", "{}", row.id);
    }
    let user = image.run(&["--user=1000:1001"]);
    assert_eq!((user.saw("cap.user"), user.saw("cap.group")), ("1000".into(), "1001".into()));
    assert_eq!((user.saw("cap.chown"), user.saw("cap.set.effective")), ("not-asked".into(), "0000000000000000".into()));
}

#[test]
fn a_user_namespace_without_ids_is_seen() {
    let seen = under("unshare", &["--user"]);
    for (id, saw) in [
        ("ns.user", "its own"),
        ("ns.user.uids", "0"),
        ("ns.user.own_id", "not mapped"),
        ("ns.user.root_owner", "nobody"),
        ("ns.user.uid_map", "empty"),
    ] {
        assert_eq!(seen.saw(id), saw, "{id}");
    }
    let single = under("unshare", &["--user", "--map-root-user"]);
    assert_eq!((single.saw("ns.user.uids"), single.saw("ns.user.setgroups")), ("1".into(), "deny".into()));
}

/// capsh reads the sets by libcap and knows the names by itself; lscpu, prlimit and sysctl ask the kernel their own way.
#[test]
fn answers_agree_with_capsh_lscpu_prlimit_and_sysctl() {
    let said = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output().unwrap();
        assert!(output.status.success(), "{program} {arguments:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let seen = here();
    let decoded = said("capsh", &[&format!("--decode={}", seen.saw("cap.set.effective"))]);
    let names: BTreeSet<String> =
        decoded.trim().split_once('=').unwrap().1.split(',').map(|name| name.replace("cap_", "cap.")).collect();
    let held: BTreeSet<String> = Catalogue::built_in()
        .rows()
        .filter(|row| row.title.ends_with("is effective") && seen.saw(row.id.as_str()) == "ok")
        .map(|row| row.id.to_string())
        .collect();
    assert_eq!(held, names);
    let cpus = said("lscpu", &["--parse=CPU"]).lines().filter(|line| !line.starts_with('#')).count();
    assert_eq!(seen.saw("limit.affinity.cpus"), cpus.to_string());
    for (id, resource) in [("nofile", "--nofile"), ("stack", "--stack"), ("memlock", "--memlock"), ("nproc", "--nproc")]
    {
        let soft = said("prlimit", &[resource, "--output=SOFT", "--noheadings"]);
        assert_eq!(seen.saw(&format!("limit.{id}.soft")), soft.trim(), "{id}");
    }
    for id in ["vm.max_map_count", "kernel.sem", "fs.nr_open", "kernel.core_pattern", "net.core.somaxconn"] {
        let known = said("sysctl", &["-n", id]);
        let known: Vec<&str> = known.split_whitespace().collect();
        assert_eq!(seen.saw(&format!("sysctl.{id}")), known.join(" "), "{id}");
    }
}

/// Root of a machine of its own may raise limits, which root of a test machine need not; its kernel has modules that this one need
/// not have.
fn guest() -> Seen {
    let only: Vec<String> = GROUPS.iter().map(|group| format!("--only {group}")).collect();
    let script = format!("ulimit -e 30 -r 40\n/surroundings {}", only.join(" "));
    let modules = [
        "wireguard",
        "macsec",
        "nbd",
        "openvswitch",
        "cfg80211",
        "cuse",
        "dm_mod",
        "ppp_generic",
        "uinput",
        "vhost_net",
        "vhost_vsock",
    ];
    Guest { modules: &modules, ..Guest::of("linux-image-amd64", &script) }.boot()
}

/// With a terminal as its input and output.
fn on_a_terminal() -> Seen {
    let command = format!("{} --only dev.tty", surroundings().display());
    let mut seen = Seen::of(Command::new("script").args(["--quiet", "--command", &command, "/dev/null"]));
    seen.raw = seen.raw.replace('\r', "");
    seen
}

/// Each check in all of these places: whoever says the same everywhere has a row that says why.
#[test]
fn every_check_is_seen_answering_both_ways() {
    let image = Image::new("ways");
    let (empty, full) = (root(&[]), crafted());
    let places = [
        ("natively", here()),
        ("an empty root", inside(empty.path())),
        ("a full root", inside(full.path())),
        ("limits", limited()),
        // In a user namespace the capability to lock any amount does not count.
        ("nothing locked", under("prlimit", &["--memlock=0:0", "--", "unshare", "--user"])),
        (
            "capabilities passed on",
            under("setpriv", &["--inh-caps=+chown", "--ambient-caps=+chown", "--securebits=+noroot_locked"]),
        ),
        ("nice", under("nice", &["-n", "5"])),
        ("nobody", image.run(&["--cap-drop=ALL", "--security-opt=no-new-privileges", "--user=1000:1001"])),
        (
            "small limits",
            image.run(&["--cap-drop=ALL", "--pids-limit=15", "--cpuset-cpus=0", "--ulimit=nofile=64:128"]),
        ),
        ("a machine of its own", guest()),
        ("a terminal", on_a_terminal()),
    ];
    let mut ways = Ways::default();
    let rows = || Catalogue::built_in().rows().filter(|row| ours(row.id.as_str()));
    for (name, seen) in &places {
        ways.add(name, seen, rows());
    }
    let wrong = ways.wrong("surroundings", rows());
    assert!(wrong.is_empty(), "{} rows:\n{}", wrong.len(), wrong.join("\n"));
}

//! Situations made for the checks of what system calls, file systems and the network do: filters, namespaces, mounts, containers,
//! guests. Each with what the static probes saw in it.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use crate::guest::{CLOUD, Guest};
use crate::probe_support::{Action, EPERM, Rule, Seen, both, both_in, filter, free, jailed, kernel, rule};

/// The probes' arguments for these groups.
pub const ONLY: [&str; 8] = ["--only", "kernel.", "--only", "fs.", "--only", "shm.", "--only", "net."];

fn numbers() -> BTreeMap<&'static str, u32> {
    let table = include_str!("../../probes/rt/nr_x86_64.rs");
    let constants = table.lines().filter_map(|line| line.strip_prefix("pub const ")?.split_once(": usize = "));
    constants.map(|(name, n)| (name, n.trim_end_matches(';').parse().unwrap())).collect()
}

/// What the probe itself cannot work without: children, lines, memory, deadlines. What these do is shown by other means.
pub const NEEDED: [&str; 21] = [
    "READ",
    "WRITE",
    "CLOSE",
    "MMAP",
    "MUNMAP",
    "CLONE",
    "EXIT",
    "EXIT_GROUP",
    "EXECVE",
    "WAIT4",
    "KILL",
    "GETPID",
    "RT_SIGACTION",
    "RT_SIGPROCMASK",
    "RT_SIGTIMEDWAIT",
    "RT_SIGRETURN",
    "CLOCK_GETTIME",
    "NANOSLEEP",
    "PRLIMIT64",
    "PRCTL",
    "OPENAT",
];

/// What files are made and removed with, needed to ask the rest of a file system's questions.
pub const PLACE: [&str; 6] = ["MKDIRAT", "UNLINKAT", "NEWFSTATAT", "GETPPID", "GETEUID", "READLINKAT"];

pub fn refusing(but: &[&str], action: Action) -> Vec<u8> {
    let numbers = numbers();
    let rules: Vec<Rule> =
        numbers.iter().filter(|(name, _)| !but.contains(name)).map(|(_, n)| rule(*n, action)).collect();
    filter(&rules, Action::Allow)
}

/// One call, or only some values of one argument of it.
pub fn only(calls: &[(&str, Option<(u8, u32)>)], action: Action) -> Seen {
    let rules: Vec<Rule> =
        calls.iter().map(|(name, argument)| Rule { call: numbers()[name], argument: *argument, action }).collect();
    jailed(&filter(&rules, Action::Allow), &both(&ONLY))
}

/// A shell script in a mount namespace of its own and others, which ends in `exec $ALL`.
fn scripted(namespaces: &[&str], script: &str) -> Seen {
    Seen::of(&mut unshared(namespaces, script))
}

/// The same, not yet run. The programs appear in /srv, because a script may cover the directory they lie in.
pub fn unshared(namespaces: &[&str], script: &str) -> Command {
    let script = format!("set -e; mount --bind \"$P\" /srv; {script}");
    let mut command = Command::new("unshare");
    command.arg("--mount").args(namespaces).args(["--", "/bin/sh", "-c", &script]);
    let all = format!("/srv/kernel {}", both_in(Path::new("/srv"), &ONLY).join(" "));
    command.env("P", kernel().parent().unwrap()).env("ALL", all);
    command
}

/// The root is an overlay of a directory with a few files, in a pid namespace of its own.
fn overlay(option: &str) -> Seen {
    overlay_by("true", option, "/kernel")
}

/// `before` may change what it is made of, and another program may start the probe.
fn overlay_by(before: &str, option: &str, program: &str) -> Seen {
    let script = format!(
        "mount -t tmpfs none /mnt; cd /mnt; mkdir -p low up; {before}; \
         mkdir -p low/srv low/proc low/tmp low/usr low/etc low/dev up work all; \
         for file in motd issue passwd shells profile group; do echo x >low/etc/$file; done; cp /srv/kernel /srv/surroundings low/; \
         mount -t overlay -o lowerdir=low,upperdir=up,workdir=work,{option} none all; mount -t proc proc all/proc; \
         exec chroot all {program} {}",
        both_in(Path::new("/"), &ONLY).join(" ")
    );
    scripted(&["--pid", "--fork"], &script)
}

/// The same under a filter.
fn overlay_jailed(filter: &[u8]) -> Seen {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), filter).unwrap();
    let before = format!("cp /srv/jail low/jail; cp {} low/filter", file.path().display());
    overlay_by(&before, "redirect_dir=off", "/jail /filter /kernel")
}

/// The root and /tmp of a guest lie on an ext4 that takes `a` and `A` for one name, as folders shared by other systems do.
fn without_case() -> Seen {
    let disk = tempfile::NamedTempFile::new().unwrap();
    disk.as_file().set_len(16 << 20).unwrap();
    // EXT4_CASEFOLD_FL and EXT4_EXTENTS_FL, of the root directory: what is made in it inherits the first.
    let make = "mkfs.ext4 -q -O casefold -E encoding=utf8 \"$1\"; debugfs -w -R 'rmdir lost+found' \"$1\"; \
                debugfs -w -R 'set_inode_field <2> flags 0x40080000' \"$1\"";
    let made = Command::new("sh").args(["-ec", make, "sh"]).arg(disk.path()).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let script = "mkdir /mnt; mount -t ext4 -o loop /file /mnt; mkdir /mnt/tmp /mnt/usr; cp /surroundings /mnt\n\
                  chroot /mnt /surroundings --only fs.root.name --only fs.tmp.name --only fs.root.type";
    Guest { modules: &["loop"], file: Some(disk.path()), ..Guest::of(CLOUD, script) }.boot()
}

/// A distribution's kernel, with modules that this machine's kernel need not have.
fn distribution() -> Seen {
    // An emulated machine that has to share its processor takes longer than a cell may.
    let only = ONLY.join(" ");
    let script = format!("ip link set lo up\n/kernel run --deadline 200000 {only} -- /surroundings {only}");
    let modules = ["algif_hash", "sha256_generic", "bluetooth", "can_raw", "sctp", "tls"];
    Guest { modules: &modules, ..Guest::of("linux-image-amd64", &script) }.boot()
}

/// A docker container of an empty image that holds one directory, removed with the image afterwards.
fn docker(options: &[&str]) -> Seen {
    static IMAGE: OnceLock<String> = OnceLock::new();
    let image = IMAGE.get_or_init(|| {
        let name = format!("abicus-test-semantics-{}", std::process::id());
        let dir = tempfile::tempdir().unwrap();
        for made in ["usr", "tmp", "srv"] {
            std::fs::create_dir(dir.path().join(made)).unwrap();
        }
        let tar = dir.path().with_extension("tar");
        assert!(
            Command::new("tar").arg("-cf").arg(&tar).arg("-C").arg(dir.path()).arg(".").status().unwrap().success()
        );
        let imported = Command::new("docker").arg("import").arg(&tar).arg(&name).output().unwrap();
        std::fs::remove_file(&tar).unwrap();
        assert!(imported.status.success(), "{}", String::from_utf8_lossy(&imported.stderr));
        name
    });
    let mount = format!("{}:/probes:ro", kernel().parent().unwrap().display());
    let mut command = Command::new("docker");
    command.args(["run", "--rm", "--volume", &mount]).args(options).args([image, "/probes/kernel"]);
    command.args(both_in(Path::new("/probes"), &ONLY));
    Seen::of(&mut command)
}

/// Removes the image, also where a situation could not be made.
struct Image;

impl Drop for Image {
    fn drop(&mut self) {
        remove_image();
    }
}

fn remove_image() {
    let name = format!("abicus-test-semantics-{}", std::process::id());
    let removed = Command::new("docker").args(["rmi", "--force", &name]).output();
    assert!(std::thread::panicking() || removed.unwrap().status.success());
}

/// All situations, each with what was seen in it.
pub fn situations() -> &'static [(&'static str, Seen)] {
    static ALL: OnceLock<Vec<(&'static str, Seen)>> = OnceLock::new();
    ALL.get_or_init(|| {
        let files: Vec<&str> = NEEDED.iter().chain(&PLACE).copied().collect();
        // What a filter can only tell from the probe's own use by an argument. The third is the numbers of prctl.
        let arguments = |name, index, values: &[u32]| -> Vec<(&'static str, Option<(u8, u32)>)> {
            values.iter().map(|value| (name, Some((index, *value)))).collect()
        };
        let prctls: Vec<u32> = vec![3, 4, 7, 8, 15, 16, 23, 24, 29, 30, 36, 38, 39, 41, 42, 47, 52, 65, 2, 0x5356_4d41, 0x5961_6d61];
        let _image = Image;
        vec![
            ("natively", free(&both(&ONLY))),
            ("everything refused, EPERM", jailed(&refusing(&NEEDED, Action::Errno(EPERM)), &both(&ONLY))),
            ("everything refused but files, EPERM", jailed(&refusing(&files, Action::Errno(EPERM)), &both(&ONLY))),
            ("everything refused but files, EPROTO", jailed(&refusing(&files, Action::Errno(71)), &both(&ONLY))),
            ("everything killed but files", jailed(&refusing(&files, Action::KillProcess), &both(&ONLY))),
            ("operations of prctl refused", only(&arguments("PRCTL", 0, &prctls), Action::Errno(EPERM))),
            (
                "kinds of memory refused",
                // PROT_WRITE | PROT_EXEC and more; flags of what is asked for
                only(
                    &[
                        ("MMAP", Some((2, 7))),
                        ("MMAP", Some((2, 5))),
                        ("MMAP", Some((3, 0x62))),
                        ("MMAP", Some((3, 0x10_0022))),
                        ("MMAP", Some((2, 1))),
                        ("MMAP", Some((4, 3))),
                        ("MMAP", Some((4, 4))),
                        ("MMAP", Some((4, 5))),
                        ("MMAP", Some((4, 6))),
                    ],
                    Action::Errno(EPERM),
                ),
            ),
            (
                "limits and clocks refused",
                only(
                    &[
                        ("PRLIMIT64", Some((1, 7))),
                        ("PRLIMIT64", Some((1, 1))),
                        ("CLOCK_GETTIME", Some((0, 0))),
                        ("CLOCK_GETTIME", Some((0, 2))),
                        ("CLOCK_GETTIME", Some((0, 6))),
                        ("CLOCK_GETTIME", Some((0, 7))),
                        ("CLOCK_GETTIME", Some((0, 11))),
                        ("RT_SIGTIMEDWAIT", Some((3, 9))),
                        ("KILL", Some((1, 10))),
                        ("KILL", Some((1, 15))),
                    ],
                    Action::Errno(EPERM),
                ),
            ),
            (
                "threads, namespaces and vfork refused",
                only(
                    &arguments("CLONE", 0, &[0x3d_0f00 & !0x8_0000, 0x4111, 0x100, 0x2802_0011, 0x411]),
                    Action::Errno(EPERM),
                ),
            ),
            ("waiting refused", only(&[("WAIT4", Some((2, 0)))], Action::Errno(EPERM))),
            (
                "no monotonic clock",
                // The probe has no other for its deadlines, so it is asked for little.
                jailed(
                    &filter(
                        &[Rule { call: 228, argument: Some((0, 1)), action: Action::Errno(EPERM) }],
                        Action::Allow,
                    ),
                    &["--only", "kernel.clock"],
                ),
            ),
            ("an overlay as the root", overlay("redirect_dir=off")),
            ("an overlay that redirects", overlay("redirect_dir=on")),
            (
                "an overlay, a file of two names",
                overlay_by("mkdir low/etc; echo x >low/etc/shells; ln low/etc/shells low/etc/of-two-names", "redirect_dir=off", "/kernel"),
            ),
            (
                "an overlay, changes refused",
                overlay_jailed(&filter(
                    &[rule(numbers()["FLOCK"], Action::Errno(EPERM)), rule(numbers()["FCHMODAT"], Action::Errno(EPERM)), rule(numbers()["LINKAT"], Action::Errno(EPERM)),
                      rule(numbers()["RENAMEAT"], Action::Errno(EPERM)), rule(numbers()["PWRITE64"], Action::Errno(EPERM))],
                    Action::Allow,
                )),
            ),
            ("a file system that ignores case", without_case()),
            ("a distribution's kernel", distribution()),
            ("reads refused", only(&[("READ", None), ("WAIT4", Some((3, 1)))], Action::Errno(EPERM))),
            ("writes of six bytes refused", only(&[("WRITE", Some((2, 6)))], Action::Errno(EPERM))),
            ("writes of a page refused", only(&[("WRITE", Some((2, 4096)))], Action::Errno(EPERM))),
            ("writes of a byte refused", only(&[("WRITE", Some((2, 1)))], Action::Errno(EPERM))),
            ("writes of eight bytes refused", only(&[("WRITE", Some((2, 8)))], Action::Errno(EPERM))),
            ("opening refused", only(&[("OPENAT", None)], Action::Errno(EPERM))),
            ("sleep refused", only(&[("NANOSLEEP", None)], Action::Errno(EPERM))),
            ("signals refused", only(&[("KILL", None), ("RT_SIGRETURN", None)], Action::Errno(EPERM))),
            ("nobody", Seen::of(Command::new("setpriv").args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(kernel()).args(both(&ONLY)))),
            ("no capability", Seen::of(Command::new("setpriv").args(["--bounding-set=-all", "--inh-caps=-all"]).arg(kernel()).args(both(&ONLY)))),
            (
                "a read-only root",
                scripted(&[], "mount --bind / /mnt; mount --bind \"$P\" /mnt/srv; mount -o remount,bind,ro /mnt; exec chroot /mnt $ALL"),
            ),
            (
                "no /tmp",
                Seen::of(
                    Command::new("bwrap")
                        .args(["--dir", "/usr", "--dev", "/dev", "--proc", "/proc", "--ro-bind"])
                        .arg(kernel().parent().unwrap())
                        .args(["/probes", "/probes/kernel"])
                        .args(both_in(Path::new("/probes"), &ONLY)),
                ),
            ),
            (
                "a /dev/shm that is full",
                scripted(
                    &[],
                    "mount -t tmpfs -o size=64k none /dev/shm; head -c 65536 /dev/zero >/dev/shm/full; exec $ALL",
                ),
            ),
            ("a /dev/shm that is no tmpfs", scripted(&[], "mount -t proc none /dev/shm; exec $ALL")),
            (
                "a /tmp without execution, devices, setuid",
                scripted(&[], "mount -t tmpfs -o noexec,nodev,nosuid none /tmp; exec $ALL"),
            ),
            (
                "a /tmp of another kind",
                scripted(&[], "mount -t ramfs none /tmp; exec $ALL"),
            ),
            ("no /proc", scripted(&[], "mount -t tmpfs none /proc; exec $ALL")),
            ("a network of its own, the loopback down", scripted(&["--net"], "exec $ALL")),
            (
                "a network without IPv6, low ports for all",
                scripted(
                    &["--net", "--mount"],
                    "ip link set lo up; cd /proc/sys/net; echo 1 >ipv6/conf/all/disable_ipv6; \
                     echo 0 >ipv4/ip_unprivileged_port_start; echo 0 65535 >ipv4/ping_group_range; exec $ALL",
                ),
            ),
            (
                "a small limit of locked memory",
                Seen::of(
                    Command::new("setpriv")
                        .args(["--reuid=65534", "--regid=65534", "--clear-groups", "prlimit", "--memlock=0"])
                        .arg(kernel())
                        .args(both(&ONLY)),
                ),
            ),
            ("docker", docker(&[])),
            ("docker, nothing confined", docker(&["--security-opt", "seccomp=unconfined", "--cap-add=SYS_ADMIN", "--cap-add=NET_ADMIN"])),
            ("docker, no capability, read-only", docker(&["--cap-drop=ALL", "--read-only", "--shm-size=128m"])),
        ]
    })
}

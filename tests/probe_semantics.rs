//! The checks of what system calls, file systems and the network do: each is seen to answer both ways, by making the bad
//! situation real. What no situation here can show is said in the catalogue (`one_sided`), and only that.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![cfg(target_arch = "x86_64")]

mod probe_support;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use abicus::catalog::{Catalogue, Check, Contract, Requirement};
use abicus::collect::parse;
use abicus::judge::judge;
use probe_support::{Action, ENOSYS, EPERM, Rule, Seen, both, both_in, filter, free, jailed, kernel, rule};

const GROUPS: [&str; 4] = ["kernel.", "fs.", "shm.", "net."];
const ONLY: [&str; 8] = ["--only", "kernel.", "--only", "fs.", "--only", "shm.", "--only", "net."];

/// Rows of the files this test is for; other files may have rows of the same groups.
fn rows() -> Vec<&'static Check> {
    let files = [
        include_str!("../probes/catalog/kernel.toml"),
        include_str!("../probes/catalog/fs.toml"),
        include_str!("../probes/catalog/tmp.toml"),
        include_str!("../probes/catalog/shm.toml"),
        include_str!("../probes/catalog/net.toml"),
    ];
    let ids: Vec<String> = files
        .iter()
        .flat_map(|file| file.lines())
        .filter_map(|line| line.strip_prefix("id = \"")?.strip_suffix('"'))
        .map(str::to_owned)
        .collect();
    assert!(ids.len() > 300);
    ids.iter().map(|id| Catalogue::built_in().row(&id.parse().unwrap()).unwrap()).collect()
}

fn numbers() -> BTreeMap<&'static str, u32> {
    let table = include_str!("../probes/rt/nr_x86_64.rs");
    let constants = table.lines().filter_map(|line| line.strip_prefix("pub const ")?.split_once(": usize = "));
    constants.map(|(name, n)| (name, n.trim_end_matches(';').parse().unwrap())).collect()
}

/// What the probe itself cannot work without: children, lines, memory, deadlines. What these do is shown by other means.
const NEEDED: [&str; 21] = [
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
const PLACE: [&str; 6] = ["MKDIRAT", "UNLINKAT", "NEWFSTATAT", "GETPPID", "GETEUID", "READLINKAT"];

fn refusing(but: &[&str], action: Action) -> Vec<u8> {
    let numbers = numbers();
    let rules: Vec<Rule> =
        numbers.iter().filter(|(name, _)| !but.contains(name)).map(|(_, n)| rule(*n, action)).collect();
    filter(&rules, Action::Allow)
}

/// One call, or only some values of one argument of it.
fn only(calls: &[(&str, Option<(u8, u32)>)], action: Action) -> Seen {
    let rules: Vec<Rule> =
        calls.iter().map(|(name, argument)| Rule { call: numbers()[name], argument: *argument, action }).collect();
    jailed(&filter(&rules, Action::Allow), &both(&ONLY))
}

/// A shell script in a mount namespace of its own and others, which ends in `exec $ALL`.
fn scripted(namespaces: &[&str], script: &str) -> Seen {
    Seen::of(&mut unshared(namespaces, script))
}

/// The same, not yet run. The programs appear in /srv, because a script may cover the directory they lie in.
fn unshared(namespaces: &[&str], script: &str) -> Command {
    let script = format!("set -e; mount --bind \"$P\" /srv; {script}");
    let mut command = Command::new("unshare");
    command.arg("--mount").args(namespaces).args(["--", "/bin/sh", "-c", &script]);
    let all = format!("/srv/kernel {}", both_in(Path::new("/srv"), &ONLY).join(" "));
    command.env("P", kernel().parent().unwrap()).env("ALL", all);
    command
}

/// The root is an overlay of a directory with a few files, in a pid namespace of its own.
fn overlay(option: &str) -> Seen {
    let script = format!(
        "mount -t tmpfs none /mnt; cd /mnt; mkdir -p low/srv low/proc low/tmp low/usr low/etc low/dev up work all; \
         echo x >low/etc/motd; echo x >low/etc/passwd; cp /srv/kernel /srv/surroundings low/; \
         mount -t overlay -o lowerdir=low,upperdir=up,workdir=work,{option} none all; mount -t proc proc all/proc; \
         exec chroot all /kernel {}",
        both_in(Path::new("/"), &ONLY).join(" ")
    );
    scripted(&["--pid", "--fork"], &script)
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
fn situations() -> &'static [(&'static str, Seen)] {
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

/// The outcome of a row in each situation, and the observation.
fn seen_of(row: &Check) -> Vec<(&'static str, &'static str, String)> {
    static PARSED: OnceLock<Vec<(&'static str, abicus::collect::Report)>> = OnceLock::new();
    let parsed =
        PARSED.get_or_init(|| situations().iter().map(|(name, seen)| (*name, parse(seen.raw.as_bytes()))).collect());
    parsed
        .iter()
        .filter_map(|(name, report)| {
            let observation = report.observations.get(&row.id)?;
            Some((*name, judge(row, observation).word(), format!("{:?}", observation.saw)))
        })
        .collect()
}

/// The table: a row passes somewhere and fails somewhere; a record, which cannot fail, has two answers.
#[test]
fn every_row_was_seen_to_answer_both_ways_or_says_that_it_cannot() {
    let mut wrong = Vec::new();
    let mut table = String::new();
    for row in rows() {
        let seen = seen_of(row);
        let asked: Vec<_> = seen.iter().filter(|(_, word, _)| *word != "skip").collect();
        let good = asked.iter().find(|(_, word, _)| *word == "pass").map(|(name, ..)| *name);
        let bad = match row.contract {
            Contract::Record => {
                let first = asked.first().map(|(_, _, saw)| saw.clone());
                asked.iter().find(|(_, _, saw)| Some(saw) != first.as_ref()).map(|(name, ..)| *name)
            }
            _ => asked.iter().find(|(_, word, _)| *word == "fail").map(|(name, ..)| *name),
        };
        table += &format!("{:44} {:40} {}\n", row.id.to_string(), good.unwrap_or("-"), bad.unwrap_or("-"));
        match (good.is_some() && bad.is_some(), &row.one_sided) {
            (false, None) => wrong.push(format!("{}: good {good:?}, bad {bad:?}, nothing says why: {seen:?}", row.id)),
            (true, Some(why)) if !why.contains("both answers") => {
                wrong.push(format!("{}: seen in {good:?} and {bad:?}, but one_sided says {why}", row.id));
            }
            _ => {}
        }
    }
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("probe_semantics.txt");
    std::fs::write(file, table).unwrap();
    assert!(wrong.is_empty(), "{} rows:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn every_row_is_asked_and_every_answer_has_a_row() {
    let rows: BTreeSet<String> = rows().iter().map(|row| row.id.to_string()).collect();
    let asked: BTreeSet<String> = free(&both(&ONLY)).checks().into_keys().collect();
    let missing: Vec<_> = rows.difference(&asked).collect();
    assert!(missing.is_empty(), "rows that nobody asks: {missing:?}");
    let unknown = |id: &&String| Catalogue::built_in().row(&id.parse().unwrap()).is_none();
    let unknown: Vec<_> = asked.iter().filter(unknown).collect();
    assert!(unknown.is_empty(), "answers without a row: {unknown:?}");
    assert!(asked.iter().all(|id| GROUPS.iter().any(|group| id.starts_with(group))));
}

/// Native is the oracle.
#[test]
fn every_must_passes_natively() {
    let failed: Vec<_> = rows()
        .into_iter()
        .filter(|row| row.requirement != Requirement::May)
        .filter(|row| seen_of(row).iter().any(|(name, word, _)| *name == "natively" && *word == "fail"))
        .map(|row| (row.id.to_string(), seen_of(row)))
        .collect();
    assert!(failed.is_empty(), "{failed:#?}");
}

#[test]
fn a_missing_tmp_is_a_fault_of_images_with_programs_only() {
    let without_tmp = |more: &[&str]| {
        let mut command = Command::new("bwrap");
        command.args(more).args(["--dev", "/dev", "--proc", "/proc", "--ro-bind"]).arg(kernel().parent().unwrap());
        Seen::of(command.args(["/probes", "/probes/surroundings", "--only", "fs.tmp."]))
    };
    let row = Catalogue::built_in().row(&"fs.tmp.write".parse().unwrap()).unwrap();
    assert_eq!(row.requirement, Requirement::Must);
    for (more, word) in
        [(vec![], "skip"), (vec!["--dir", "/usr"], "fail"), (vec!["--dir", "/bin", "--dir", "/tmp"], "pass")]
    {
        let seen = parse(without_tmp(&more).raw.as_bytes());
        assert_eq!(judge(row, &seen.observations[&row.id]).word(), word, "{more:?}");
        let rest = seen.observations.iter().filter(|(id, _)| id.as_str() == "fs.tmp.directory");
        for (id, observation) in rest {
            let row = Catalogue::built_in().row(id).unwrap();
            assert_ne!(judge(row, observation).word(), "fail", "{more:?} {id}");
        }
    }
}

/// What an engine refuses by design is no fault of a cell.
#[test]
fn a_default_container_fails_nothing_that_matters() {
    for row in rows().into_iter().filter(|row| row.requirement != Requirement::May) {
        let seen = seen_of(row);
        let docker = seen.iter().find(|(name, ..)| *name == "docker").unwrap();
        assert_ne!(docker.1, "fail", "{}: {docker:?}", row.id);
    }
}

/// ENOSYS is the one refusal callers fall back on.
#[test]
fn every_fallback_passes_where_the_call_is_honestly_absent() {
    let files: Vec<&str> = NEEDED.iter().chain(&PLACE).copied().collect();
    let seen = parse(jailed(&refusing(&files, Action::Errno(ENOSYS)), &both(&ONLY)).raw.as_bytes());
    for row in rows().into_iter().filter(|row| row.contract == Contract::Fallback) {
        let outcome = judge(row, &seen.observations[&row.id]);
        assert!(matches!(outcome.word(), "pass" | "skip"), "{}: {:?}", row.id, seen.observations[&row.id]);
    }
}

/// The breakages that are known by name, each made here and seen by the check that is there for it.
#[test]
fn known_breakages_are_seen() {
    let holes = [
        "CLONE3",
        "FACCESSAT2",
        "STATX",
        "OPENAT2",
        "FCHMODAT2",
        "IO_URING_SETUP",
        "FUTEX_WAITV",
        "KEYCTL",
        "ADD_KEY",
        "GET_MEMPOLICY",
        "MBIND",
        "PROCESS_VM_READV",
        "LANDLOCK_CREATE_RULESET",
        "MSEAL",
        "UNSHARE",
        "COPY_FILE_RANGE",
        "PKEY_ALLOC",
    ];
    let calls: Vec<_> = holes.iter().map(|name| (*name, None)).collect();
    let seen = only(&calls, Action::Errno(EPERM));
    for id in [
        "kernel.clone3.thread",
        "kernel.faccessat2.root",
        "kernel.statx.root",
        "kernel.openat2.beneath",
        "kernel.fchmodat2.file",
        "kernel.io_uring.nop",
        "kernel.futex.waitv",
        "kernel.keyctl.process_keyring",
        "kernel.add_key.user",
        "kernel.mempolicy.get",
        "kernel.mempolicy.mbind",
        "kernel.process_vm.read",
        "kernel.landlock.abi",
        "kernel.mseal.seal",
        "kernel.unshare.nothing",
        "kernel.unshare.user",
        "fs.root.copy_range",
        "kernel.pkey.protect",
    ] {
        assert_eq!(seen.saw(id), "errno 1", "{id}");
    }
    // A kernel without the call is another matter, and the seccomp trap of an old sandbox a third.
    let seen = only(&[("CLONE3", None)], Action::Errno(ENOSYS));
    assert_eq!(seen.saw("kernel.clone3.thread"), "errno 38");
    assert_eq!(seen.saw("kernel.clone.thread"), "ok");
    let seen = only(&[("STATX", None)], Action::Trap);
    assert_eq!(seen.saw("kernel.statx.root"), "signal 31");
    assert_eq!(seen.saw("kernel.openat2.beneath"), "ok");
    // Arguments decide.
    let seen = only(&[("PERSONALITY", Some((0, 0x40000))), ("SOCKET", Some((0, 40)))], Action::Errno(EPERM));
    assert_eq!(seen.saw("kernel.personality.no_randomize"), "errno 1");
    assert_eq!(seen.saw("kernel.personality.linux32"), "ok");
    assert_eq!((seen.saw("net.family.vsock"), seen.saw("net.family.unix")), ("errno 1".into(), "ok".into()));
}

/// A seccomp profile as docker takes it, with a hole below a listed number: clone3 of docker before 20.10.10.
#[test]
fn a_profile_with_a_hole_breaks_clone3_in_a_real_container() {
    let profile = tempfile::NamedTempFile::new().unwrap();
    let text = r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[
        {"names":["clone3","statx","faccessat2"],"action":"SCMP_ACT_ERRNO","errnoRet":1},
        {"names":["openat2"],"action":"SCMP_ACT_ERRNO","errnoRet":38},
        {"names":["keyctl"],"action":"SCMP_ACT_KILL_PROCESS"}]}"#;
    std::fs::write(profile.path(), text).unwrap();
    let name = format!("abicus-test-profile-{}", std::process::id());
    let import = format!("tar c --files-from /dev/null | docker import - {name}");
    assert!(Command::new("/bin/sh").args(["-c", &import]).output().unwrap().status.success());
    let mount = format!("{}:/probes:ro", kernel().parent().unwrap().display());
    let option = format!("seccomp={}", profile.path().display());
    let mut command = Command::new("docker");
    command.args(["run", "--rm", "--volume", &mount, "--security-opt", &option, &name, "/probes/kernel"]);
    command.args(both_in(Path::new("/probes"), &ONLY));
    let seen = Seen::of(&mut command);
    let removed = Command::new("docker").args(["rmi", "--force", &name]).output().unwrap();
    assert!(removed.status.success());
    let saw = |id: &str| seen.saw(id);
    assert_eq!([saw("kernel.clone3.thread"), saw("kernel.statx.root")], ["errno 1", "errno 1"]);
    assert_eq!([saw("kernel.faccessat2.root"), saw("kernel.openat2.beneath")], ["errno 1", "errno 38"]);
    assert_eq!(saw("kernel.keyctl.process_keyring"), "signal 31");
    assert_eq!([saw("kernel.clone.thread"), saw("kernel.fchmodat2.file")], ["ok", "ok"]);
}

/// Nothing is left: not a file, not a key, not a queue, not a mount. In directories and an IPC namespace of its own, where
/// nobody else leaves anything, and also where checks are killed in the middle.
#[test]
fn a_run_leaves_nothing_behind() {
    let files: Vec<&str> = NEEDED.iter().chain(&PLACE).copied().collect();
    let killing = kernel().with_file_name(format!("killing-{}", std::process::id()));
    std::fs::write(&killing, refusing(&files, Action::KillProcess)).unwrap();
    let script = r#"
        for dir in /tmp /var/tmp /dev/shm; do mount -t tmpfs none $dir; done
        left() { ls -A / /tmp /var/tmp /dev/shm | grep -- "abicus-[0-9]*-[0-9]" || true
                 tail -qn +2 /proc/sysvipc/shm /proc/sysvipc/sem /proc/sysvipc/msg
                 grep "^abicus " /proc/self/mounts || true
                 # The kernel collects dead keys a moment later.
                 n=0; while [ $n -lt 100 ] && grep -q abicus /proc/keys; do sleep 0.1; n=$((n + 1)); done
                 grep abicus /proc/keys || true; }
        $ALL >/dev/null; left
        /srv/jail "$F" $ALL >/dev/null; left
        touch /dev/shm/abicus-1-2; left"#;
    let killing_there = Path::new("/srv").join(killing.file_name().unwrap());
    let output = unshared(&["--ipc"], script).env("F", killing_there).output().unwrap();
    std::fs::remove_file(&killing).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // The last one shows that something left would be seen.
    assert_eq!(String::from_utf8_lossy(&output.stdout), "abicus-1-2\n");
}

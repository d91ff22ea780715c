//! The checks of what system calls, file systems and the network do: each is seen to answer both ways, by making the bad
//! situation real. What no situation here can show is said in the catalogue (`one_sided`), and only that.
//!
//! Needs docker, bubblewrap, util-linux, QEMU, busybox-static, e2fsprogs and a kernel that apt downloads once. What is absent fails.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![cfg(target_arch = "x86_64")]

#[path = "probe_support/guest.rs"]
mod guest;
mod probe_support;
#[path = "probe_semantics/situations.rs"]
mod situations;
#[path = "probe_support/ways.rs"]
mod ways;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use abicus::catalog::{Catalogue, Check, Contract, Requirement};
use abicus::collect::parse;
use abicus::judge::judge;
use probe_support::{Action, ENOSYS, EPERM, Seen, both, both_in, free, jailed, kernel};
use situations::{NEEDED, ONLY, PLACE, only, refusing, situations, unshared};
use ways::Ways;

const GROUPS: [&str; 4] = ["kernel.", "fs.", "shm.", "net."];

fn rows() -> impl Iterator<Item = &'static Check> {
    Catalogue::built_in().rows().filter(|row| GROUPS.iter().any(|group| row.id.as_str().starts_with(group)))
}

/// What each row answered in each situation.
fn ways() -> &'static Ways {
    static WAYS: OnceLock<Ways> = OnceLock::new();
    WAYS.get_or_init(|| {
        let mut ways = Ways::default();
        for (name, seen) in situations() {
            ways.add(name, seen, rows());
        }
        ways
    })
}

#[test]
fn every_row_was_seen_to_answer_both_ways_or_says_that_it_cannot() {
    let wrong = ways().wrong("semantics", rows());
    assert!(wrong.is_empty(), "{} rows:\n{}", wrong.len(), wrong.join("\n"));
}

/// What is done to a file of a lower layer, on a real overlay, as it is and under a filter.
#[test]
fn files_of_a_lower_layer_answer_as_their_overlay_does() {
    let of = |name: &str| &situations().iter().find(|(known, _)| *known == name).unwrap().1;
    let lower = |id: &str| format!("fs.root.lower.{id}");
    for (place, answers) in [
        ("an overlay as the root", ["same", "stale", "ok", "ok", "ok"]),
        // Of two names the overlay copies up one, which is another file from then on.
        ("an overlay, a file of two names", ["another inode", "stale", "ok", "ok", "ok"]),
        ("an overlay, changes refused", ["errno 1", "errno 1", "errno 1", "errno 1", "errno 1"]),
    ] {
        for (id, answer) in ["inode", "stale_mapping", "lock", "hard_link", "whiteout"].into_iter().zip(answers) {
            assert_eq!(of(place).saw(&lower(id)), answer, "{place}: {id}");
        }
    }
}

#[test]
fn every_row_is_asked_and_every_answer_has_a_row() {
    let rows: BTreeSet<String> = rows().map(|row| row.id.to_string()).collect();
    let asked: BTreeSet<String> = free(&both(&ONLY)).checks().into_keys().collect();
    let missing: Vec<_> = rows.difference(&asked).collect();
    assert!(missing.is_empty(), "rows that nobody asks: {missing:?}");
    let unknown = |id: &&String| Catalogue::built_in().row(&id.parse().unwrap()).is_none();
    let unknown: Vec<_> = asked.iter().filter(unknown).collect();
    assert!(unknown.is_empty(), "answers without a row: {unknown:?}");
    assert!(rows.len() > 300 && asked.iter().all(|id| GROUPS.iter().any(|group| id.starts_with(group))));
}

/// Native is the oracle.
#[test]
fn every_must_passes_natively() {
    let failed = ways().failed("natively", rows().filter(|row| row.requirement != Requirement::May));
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
    let failed = ways().failed("docker", rows().filter(|row| row.requirement != Requirement::May));
    assert!(failed.is_empty(), "{failed:#?}");
}

/// ENOSYS is the one refusal callers fall back on.
#[test]
fn every_fallback_passes_where_the_call_is_honestly_absent() {
    let files: Vec<&str> = NEEDED.iter().chain(&PLACE).copied().collect();
    let seen = parse(jailed(&refusing(&files, Action::Errno(ENOSYS)), &both(&ONLY)).raw.as_bytes());
    for row in rows().filter(|row| row.contract == Contract::Fallback) {
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

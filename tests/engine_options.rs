//! Every option, seen from inside a cell: docker and rootful podman, for real.
//!
//! Root, dockerd, podman with crun and busybox-static are needed; what is absent fails the test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod engine_support;

use std::path::Path;

use abicus::engine::container::{ContainerEngine, Kind};
use abicus::engine::{Ended, Engine};
use engine_support::{Bench, Daemon, engine, options, says};

/// Option, what to ask inside, what the answer must contain, what it must not.
const SEEN: [(&str, &str, &str, &str); 14] = [
    ("", "$B grep Seccomp: /proc/self/status", "\t2", "\t0"),
    ("seccomp = 'unconfined'", "$B grep Seccomp: /proc/self/status", "\t0", "\t2"),
    ("capabilities = { drop = ['ALL'] }", "$B grep CapEff /proc/self/status", "0000000000000000", "1"),
    ("capabilities = { add = ['CAP_SYS_PTRACE'] }", "$B grep CapEff /proc/self/status", "8", "zzz"),
    ("network = 'host'", "$B cat /proc/net/route", "\n", "zzz"),
    ("read_only = true", "echo x > /x; $B touch /y; true", "", "x"),
    ("tmpfs = ['/t:size=1m']", "$B grep ' /t ' /proc/mounts", "size=1024k", "zzz"),
    ("shm_size = '8MiB'", "$B grep ' /dev/shm ' /proc/mounts", "size=8192k", "zzz"),
    ("ulimits = { nofile = { soft = 77, hard = 99 } }", "ulimit -Sn; ulimit -Hn", "77\n99\n", "zzz"),
    ("devices = ['/dev/null:/dev/special:rw']", "$B stat -c %F /dev/special", "character special file", "zzz"),
    ("pids_limit = 50", "$B cat /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/pids.max", "50\n", "max\n"),
    (
        "memory = '64MiB'",
        "$B cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max",
        "67108864\n",
        "max\n",
    ),
    ("cpus = 0.5", "$B cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us /sys/fs/cgroup/cpu.max", "50000", "-1"),
    ("user = '1234:5678'", "$B id -u; $B id -g", "1234\n5678\n", "zzz"),
];

async fn honours(make: impl Fn(&str) -> ContainerEngine, bench: &Bench) {
    let mut image = None;
    for (option, script, wanted, unwanted) in SEEN {
        let engine = make(option);
        let image = match &image {
            Some(image) => image,
            None => image.insert(engine.prepare(&bench.tree()).await.unwrap()),
        };
        let job = bench.sh(&format!("B=/.abicus/busybox; {script}"));
        let attempt = engine.run(&job, image).await;
        let said = String::from_utf8_lossy(&attempt.stdout).into_owned();
        assert!(matches!(attempt.ended, Ok(Ended::Exit(_))), "`{option}`: {}", engine_support::show(&attempt));
        assert!(said.contains(wanted) && !said.contains(unwanted), "`{option}`: {}", engine_support::show(&attempt));
    }

    privileged(&make("privileged = true"), bench).await;

    let profile = bench.dir().join("profile.json");
    let json =
        r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO"}]}"#;
    std::fs::write(&profile, json).unwrap();
    let engine = make(&format!("seccomp = '{}'", profile.display()));
    let image = engine.prepare(&bench.tree()).await.unwrap();
    let said = says(&engine, bench, &image, "B=/.abicus/busybox; $B mkdir /d 2>&1; $B touch /f && echo made").await;
    assert!(
        said.contains("not permitted") && said.contains("made"),
        "only what the profile forbids is forbidden: {said}"
    );

    let engine = make("apparmor = 'unconfined'\nselinux = 'disable'");
    let attempt = engine.run(&bench.sh("true"), &image).await;
    let security = engine.fingerprint().await.unwrap().get("engine.security").cloned().unwrap_or_default();
    for name in ["apparmor", "selinux"] {
        let noted = attempt.notes.iter().any(|n| n.contains(&format!("`{name}` has no effect")));
        assert_ne!(noted, security.contains(name), "{name} on a host with `{security}`: {:?}", attempt.notes);
    }
    assert_eq!(engine.sweep(Some(&bench.run)).await.unwrap(), Vec::<String>::new());
}

/// An engine gives what it has: where root itself lacks a capability, runc refuses and crun gives the rest.
async fn privileged(engine: &ContainerEngine, bench: &Bench) {
    let image = engine.prepare(&bench.tree()).await.unwrap();
    let script = "B=/.abicus/busybox; $B mkdir -p /mnt; $B mount -t tmpfs none /mnt && echo mounted";
    let attempt = engine.run(&bench.sh(script), &image).await;
    match &attempt.ended {
        Ok(ended) => {
            assert_eq!(*ended, Ended::Exit(0), "{}", engine_support::show(&attempt));
            assert_eq!(attempt.stdout, b"mounted\n");
        }
        Err(fault) => {
            let status = std::fs::read_to_string("/proc/self/status").unwrap();
            let bounding = status.lines().find_map(|l| l.strip_prefix("CapBnd:\t")).unwrap();
            assert!(!bounding.ends_with("1ffffffffff"), "root has everything here: {fault:?}");
            assert!(fault.hint.as_deref().is_some_and(|h| h.contains("capabilities")), "{fault:?}");
        }
    }
}

#[tokio::test]
async fn docker_honours_every_option() {
    let bench = Bench::new();
    let make = |text: &str| engine(Kind::Docker, Path::new("/var/run/docker.sock"), options(text));
    honours(make, &bench).await;
}

#[tokio::test]
async fn podman_honours_every_option() {
    let bench = Bench::new();
    let service = Daemon::podman(&bench.dir().join("podman"), &["--runtime", "crun"]);
    honours(|text| engine(Kind::Podman, &service.socket, options(text)), &bench).await;
}

#[tokio::test]
async fn hostile_output_is_kept_byte_for_byte_and_means_nothing_to_the_driver() {
    let bench = Bench::new();
    let engine = engine(Kind::Docker, Path::new("/var/run/docker.sock"), options(""));
    let image = engine.prepare(&bench.scratch()).await.unwrap();
    // Bytes that look like the stream's own frames, an HTTP answer, terminal escapes, broken UTF-8, and no last newline.
    let frames = r"\001\000\000\000\000\000\000\005hello\377\376\000HTTP/1.1 500\r\n\r\n\033[2J{";
    let attempt = engine.run(&bench.job(&["/.abicus/busybox", "printf", frames]), &image).await;
    assert_eq!(attempt.ended, Ok(Ended::Exit(0)));
    let expected = b"\x01\0\0\0\0\0\0\x05hello\xff\xfe\0HTTP/1.1 500\r\n\r\n\x1b[2J{";
    assert_eq!(attempt.stdout, expected);
}

//! Every option, seen from inside a cell: docker and rootful podman, for real.
//!
//! Root, dockerd, podman with crun and busybox-static are needed; what is absent fails the test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod engine_support;

use std::path::Path;
use std::process::Command;

use abicus::engine::container::{ContainerEngine, Kind};
use abicus::engine::{Ended, Engine};
use abicus::image::Content;
use engine_support::{Bench, Daemon, engine, image, options, says};

/// Capabilities of a container that asks for nothing: <https://docs.docker.com/engine/security/#linux-kernel-capabilities>.
const DOCKERS: u64 = 0xa804_25fb;
/// The same of containers-common: without `AUDIT_WRITE`, `MKNOD` and `NET_RAW`; see containers.conf(5), `default_capabilities`.
const PODMANS: u64 = 0x8004_05fb;

/// Option, what to ask inside, what the answer must contain, what it must not.
const SEEN: [(&str, &str, &str, &str); 11] = [
    ("", "$B grep Seccomp: /proc/self/status", "\t2", "\t0"),
    ("seccomp = 'unconfined'", "$B grep Seccomp: /proc/self/status", "\t0", "\t2"),
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

/// `own` is the mask of the capabilities that the engine gives unasked.
async fn honours(make: impl Fn(&str) -> ContainerEngine, bench: &Bench, socket: &Path, own: u64) {
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

    capabilities(&make, bench, own).await;
    network(&make, bench).await;
    platform(&make, bench, socket).await;
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

    for (name, answer) in [("docker", "refused"), ("podman", "allowed")] {
        let engine = make(&format!("seccomp = '{name}'"));
        let script = "B=/.abicus/busybox; $B unshare -U $B true 2>/dev/null && echo allowed || echo refused";
        assert_eq!(says(&engine, bench, &image, script).await.trim(), answer, "the profile of {name}");
    }

    let engine = make("apparmor = 'unconfined'\nselinux = 'disable'");
    let attempt = engine.run(&bench.sh("true"), &image).await;
    let security = engine.fingerprint().await.unwrap().get("engine.security").cloned().unwrap_or_default();
    for name in ["apparmor", "selinux"] {
        let noted = attempt.notes.iter().any(|n| n.contains(&format!("`{name}` has no effect")));
        assert_ne!(noted, security.contains(name), "{name} on a host with `{security}`: {:?}", attempt.notes);
    }
    assert_eq!(engine.sweep(Some(&bench.run)).await.unwrap(), Vec::<String>::new());
}

async fn capabilities(make: impl Fn(&str) -> ContainerEngine, bench: &Bench, own: u64) {
    let (chown, kill, sys_ptrace) = (1, 1 << 5, 1 << 19);
    assert!(own & chown != 0 && own & sys_ptrace == 0, "else adding and dropping them proves nothing");
    for (options, mask) in [
        ("", own),
        ("capabilities = { add = ['CAP_SYS_PTRACE'] }", own | sys_ptrace),
        ("capabilities = { drop = ['chown'] }", own & !chown),
        ("capabilities = { drop = ['ALL'] }", 0),
        ("capabilities = { drop = ['ALL'], add = ['KILL'] }", kill),
    ] {
        let engine = make(options);
        let image = engine.prepare(&bench.tree()).await.unwrap();
        let said = says(&engine, bench, &image, "/.abicus/busybox grep -E 'Cap(Eff|Bnd)' /proc/self/status").await;
        assert_eq!(said, format!("CapEff:\t{mask:016x}\nCapBnd:\t{mask:016x}\n"), "`{options}`");
    }
}

/// The namespace itself, because any cell has some network.
async fn network(make: impl Fn(&str) -> ContainerEngine, bench: &Bench) {
    let ours = std::fs::read_link("/proc/self/ns/net").unwrap().display().to_string();
    for (options, shared) in [("", false), ("network = 'none'", false), ("network = 'host'", true)] {
        let engine = make(options);
        let image = engine.prepare(&bench.tree()).await.unwrap();
        let said = says(&engine, bench, &image, "/.abicus/busybox readlink /proc/self/ns/net").await;
        assert!(said.starts_with("net:["), "{said}");
        assert_eq!(said.trim() == ours, shared, "`{options}`: {said} in a cell, {ours} here");
    }
}

/// An image the engine has for one platform is used for that one; for another it is asked of its registry, which is none.
async fn platform(make: impl Fn(&str) -> ContainerEngine, bench: &Bench, socket: &Path) {
    let cached = make("").prepare(&bench.tree()).await.unwrap().0;
    let name = format!("127.0.0.1:1/abicus-test/{}:1", bench.run.as_str().to_lowercase());
    let docker = |arguments: &[&str]| {
        let output =
            Command::new("docker").arg("-H").arg(format!("unix://{}", socket.display())).args(arguments).output();
        let output = output.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    docker(&["tag", &cached, &name]);
    let by_name = image("by-name", "", Content::Reference(name.clone()));
    let asked = make("platform = 'linux/amd64'");
    let prepared = asked.prepare(&by_name).await.unwrap();
    let said = says(&asked, bench, &prepared, "/.abicus/busybox cat /etc/os-release").await;
    assert!(said.contains("ID=abicus-test"), "{said}");
    let other = make("platform = 'linux/386'").prepare(&by_name).await;
    docker(&["rmi", &name]);
    let fault = other.expect_err("an image for linux/amd64 was taken for one for linux/386");
    assert!(fault.cause.contains("127.0.0.1:1"), "{fault:?}");
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
    let socket = Path::new("/var/run/docker.sock");
    let make = |text: &str| engine(Kind::Docker, socket, options(text));
    honours(make, &bench, socket, DOCKERS).await;
    let facts = make("").fingerprint().await.unwrap();
    assert!(facts["engine.libseccomp"].starts_with("2."), "as `runc --version` says: {facts:#?}");
}

#[tokio::test]
async fn podman_honours_every_option() {
    let bench = Bench::new();
    let service = Daemon::podman(&bench.dir().join("podman"), &["--runtime", "crun"]);
    honours(|text| engine(Kind::Podman, &service.socket, options(text)), &bench, &service.socket, PODMANS).await;
}

async fn uid_map(engine: &ContainerEngine, bench: &Bench) -> String {
    let image = engine.prepare(&bench.tree()).await.unwrap();
    let said = says(engine, bench, &image, "/.abicus/busybox cat /proc/self/uid_map; /.abicus/busybox id -u").await;
    said.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[tokio::test]
async fn docker_honours_the_user_namespace() {
    let bench = Bench::new();
    let dir = bench.dir().join("docker");
    let first = "echo nobody:300000:65536 >/tmp/sub-$$; mount --bind /tmp/sub-$$ /etc/subuid; \
         mount --bind /tmp/sub-$$ /etc/subgid; rm /tmp/sub-$$;";
    let daemon = Daemon::docker(&dir, first, &["--userns-remap=nobody:nogroup", "--storage-driver vfs"]);
    let make = |text: &str| engine(Kind::Docker, &daemon.socket, options(text));
    assert_eq!(uid_map(&make(""), &bench).await, "0 300000 65536 0");
    assert_eq!(uid_map(&make("userns = 'host'"), &bench).await, "0 0 4294967295 0");
}

#[tokio::test]
async fn podman_honours_the_user_namespace() {
    let bench = Bench::new();
    let service = Daemon::rootless(&bench.dir().join("podman"), "runc");
    let make = |text: &str| engine(Kind::Podman, &service.socket, options(text));
    let facts = make("").fingerprint().await.unwrap();
    assert!(facts["engine.libseccomp"].starts_with("2."), "as `runc --version` says: {facts:#?}");
    assert_eq!(uid_map(&make(""), &bench).await, "0 12345 1 1 300000 65536 0");
    let kept = uid_map(&make("userns = 'keep-id'"), &bench).await;
    assert!(kept.ends_with(" 12345"), "the user is itself inside: {kept}");
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

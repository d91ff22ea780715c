//! The built-in engine and a bare runc against docker: what the probes see must be the same, for both claim docker's policy.
//!
//! Needs root, runc, a running dockerd of the 20.10 series (the profile's), and Debian's busybox-static.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod builtin_support;
mod engine_support;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use abicus::engine::command::{Command, Kind as CommandKind};
use abicus::engine::container::Kind;
use abicus::engine::{Attempt, Ended, Engine, Job};
use abicus::image::{Content, Image};
use builtin_support::{Bench, image};

/// What differs, and why: the engine's documented losses, and what docker does because of this host.
const KNOWN: &[(&str, &str)] = &[
    (
        "cgroup.io.weight",
        "docker makes a control group for each container, the built-in engine only where a limit is asked for",
    ),
    ("cgroup.path", "as above"),
    ("cgroup.pids.max", "as above"),
    ("ns.cgroup", "docker shares the host's cgroup namespace on a host with cgroup v1"),
    ("dev.node.make", "the built-in engine has no device control group"),
];

/// The same for runc with a bundle of ours.
const KNOWN_OF_RUNC: &[(&str, &str)] =
    &[("dev.node.make", "the root of docker's container can forbid devices, by its storage driver")];

async fn in_runc(bench: &Bench, job: &Job, options: &str, image: &Image) -> Attempt {
    let engine = Command::new(CommandKind::Oci, Some("runc"), &engine_support::options(options), bench.here()).unwrap();
    let prepared = engine.prepare(image).await.unwrap();
    engine.run(job, &prepared).await
}

async fn in_docker(job: &Job, options: &str, image: &Image) -> Attempt {
    let socket = Path::new("/var/run/docker.sock");
    let engine = engine_support::engine(Kind::Docker, socket, engine_support::options(options));
    let prepared = engine.prepare(image).await.unwrap();
    engine.run(job, &prepared).await
}

async fn built_in(bench: &Bench, job: &Job, options: &str, image: &Image) -> Attempt {
    let engine = bench.engine(options);
    let prepared = engine.prepare(image).await.unwrap();
    engine.run(job, &prepared).await
}

/// Observations by check, without the samples of benchmarks.
fn observations(attempt: &Attempt) -> BTreeMap<String, String> {
    let text = String::from_utf8_lossy(&attempt.stdout);
    assert_eq!(attempt.ended, Ok(Ended::Exit(0)), "{text}\n{}", String::from_utf8_lossy(&attempt.stderr));
    let parsed = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let all = parsed.filter_map(|line| Some((line.get("check")?.as_str()?.to_owned(), line.to_string())));
    // What the root file system can do is the storage driver's doing (overlayfs, fuse-overlayfs, btrfs…), not the policy's.
    all.filter(|(check, _)| !check.starts_with("fs.root.") && check != "kernel.name_to_handle.root").collect()
}

async fn assert_same(options: &str) {
    let bench = Bench::new();
    let job = Job {
        argv: ["/.abicus/kernel", "run", "--", "/.abicus/surroundings"].map(str::to_owned).to_vec(),
        ..bench.job.clone()
    };
    let scratch = image(Content::Empty);
    let theirs = observations(&in_docker(&job, options, &scratch).await);
    assert!(theirs.len() > 1000, "{} observations", theirs.len());
    let ours = observations(&built_in(&bench, &job, options, &scratch).await);
    assert_equal(options, "built-in", &theirs, &ours, KNOWN);
    let ours = observations(&in_runc(&bench, &job, options, &scratch).await);
    assert_equal(options, "runc", &theirs, &ours, KNOWN_OF_RUNC);
}

fn assert_equal(
    options: &str,
    engine: &str,
    theirs: &BTreeMap<String, String>,
    ours: &BTreeMap<String, String>,
    known: &[(&str, &str)],
) {
    let different: Vec<_> = theirs
        .keys()
        .chain(ours.keys())
        .filter(|check| known.iter().all(|(known, _)| known != check))
        .filter(|check| theirs.get(*check) != ours.get(*check))
        .map(|check| format!("docker {:?}\n{engine} {:?}\n", theirs.get(check), ours.get(check)))
        .collect();
    assert!(different.is_empty(), "with options `{options}`:\n{}", different.concat());
}

#[tokio::test]
async fn the_probes_see_no_difference_under_the_default_policy() {
    assert_same("").await;
}

#[tokio::test]
async fn the_probes_see_no_difference_without_seccomp() {
    assert_same("seccomp = 'unconfined'").await;
}

#[tokio::test]
async fn the_probes_see_no_difference_without_capabilities() {
    assert_same("capabilities = { drop = ['ALL'] }").await;
}

#[tokio::test]
async fn the_probes_see_no_difference_with_other_capabilities() {
    assert_same("capabilities = { add = ['SYS_ADMIN', 'SYS_PTRACE'], drop = ['CHOWN'] }").await;
}

#[tokio::test]
async fn the_probes_see_no_difference_as_another_user() {
    assert_same("user = '1234:1235'").await;
}

/// A static i386 program that writes `i386` and exits 42.
fn i386_program() -> Vec<u8> {
    const BASE: u32 = 0x0804_8000;
    const CODE: u32 = 52 + 32;
    let text = BASE + CODE + 34;
    let mut code = vec![0xb8, 4, 0, 0, 0, 0xbb, 1, 0, 0, 0, 0xb9];
    code.extend(text.to_le_bytes());
    code.extend([0xba, 5, 0, 0, 0, 0xcd, 0x80, 0xb8, 1, 0, 0, 0, 0xbb, 42, 0, 0, 0, 0xcd, 0x80]);
    assert_eq!(code.len(), 34);
    code.extend(b"i386\n");
    let size = CODE + code.len() as u32;
    let mut elf = b"\x7fELF\x01\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x03\0".to_vec();
    for word in [1, BASE + CODE, 52, 0, 0] {
        elf.extend(u32::to_le_bytes(word));
    }
    for half in [52u16, 32, 1, 0, 0, 0] {
        elf.extend(half.to_le_bytes());
    }
    for word in [1, 0, BASE, BASE, size, size, 5, 0x1000] {
        elf.extend(u32::to_le_bytes(word));
    }
    elf.extend(code);
    elf
}

#[tokio::test]
async fn an_i386_program_survives_the_filter() {
    let bench = Bench::new();
    let program = bench.path("payload/i386");
    fs::write(&program, i386_program()).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let job = Job { argv: vec!["/.abicus/i386".to_owned()], ..bench.job.clone() };
    let scratch = image(Content::Empty);
    for attempt in [built_in(&bench, &job, "", &scratch).await, in_docker(&job, "", &scratch).await] {
        assert_eq!((attempt.ended, attempt.stdout), (Ok(Ended::Exit(42)), b"i386\n".to_vec()));
    }
    // And does not survive one that leaves its architecture out.
    let profile = bench.path("profile.json");
    fs::write(&profile, r#"{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86_64"],"syscalls":[]}"#)
        .unwrap();
    let attempt = built_in(&bench, &job, &format!("seccomp = '{}'", profile.display()), &scratch).await;
    assert_eq!(attempt.ended, Ok(Ended::Signal(31)));
}

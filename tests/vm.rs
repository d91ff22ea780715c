//! Virtual machines: a real kernel answers, and one that does not costs its own cells and leaves nothing behind.
//!
//! Asked for, they need QEMU, mmdebstrap and e2fsprogs, and fail without: `ci/setup test` brings them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![cfg(target_arch = "x86_64")]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use abicus::host::{self, Reach};
use abicus::spec::{World, resolve};

/// Opens the host that `vm` declares, with a cache of its own so that other processes are none of our business.
fn machine(vm: &str, cache: &Path) -> Arc<dyn Reach> {
    let text = format!("engine = [{{ name = 'native', kind = 'native' }}]\n[[host]]\nname = 'v'\nvm = {{ {vm} }}\n");
    let matrix = resolve(&text, "m.toml", &World { base: "/".into(), exists: &|path| path.exists() }).unwrap();
    host::open(&matrix.hosts[0], cache)
}

/// Command lines of processes that name this directory.
fn working_in(directory: &Path) -> Vec<String> {
    let lines = std::fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| {
        let line = std::fs::read(entry.path().join("cmdline")).ok()?;
        Some(String::from_utf8_lossy(&line).replace('\0', " "))
    });
    lines.filter(|line| line.contains(directory.to_str().unwrap())).collect()
}

/// Machines whose kernels are in this directory.
fn guests_of(cache: &Path) -> usize {
    working_in(cache).iter().filter(|line| line.starts_with("qemu-system")).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kernel_of_a_package_answers_and_one_that_panics_says_why() {
    let cache = tempfile::tempdir().unwrap();
    let good = machine("kernel = { suite = 'bookworm' }, cpu = 'Nehalem'", cache.path());
    let site = good.site().await.unwrap();
    assert!(site.kernel_release.starts_with("6.1."), "{site:?}");
    let symbols = String::from_utf8(good.read("/proc/kallsyms", 64 << 20).await.unwrap()).unwrap();
    let has = |name: &str| symbols.lines().any(|line| line.ends_with(&format!(" __x64_sys_{name}")));
    assert!(has("clone3") && has("landlock_create_ruleset"), "6.1 has both");
    assert!(!has("mseal") && !has("fchmodat2"), "6.1 has neither: 6.10, 6.6");
    let filesystems = good.read("/proc/filesystems", 1 << 16).await.unwrap();
    assert!(String::from_utf8_lossy(&filesystems).contains("overlay"), "the module was loaded");
    assert_eq!(guests_of(cache.path()), 1);
    let emulated = good.facts()["vm.accelerator"].starts_with("tcg");
    let console = good.leave().await.unwrap();
    assert!(console.len() < 1 << 20);
    assert_eq!(guests_of(cache.path()), 0, "it is gone");

    for cpus in [1, 2] {
        let text = format!("kernel = {{ suite = 'bookworm' }}, cmdline = 'rdinit=/none', cpus = {cpus}");
        let fault = machine(&text, cache.path()).site().await.unwrap_err();
        assert!(fault.cause.contains("the kernel panicked: VFS: Unable to mount root fs"), "{fault}");
        assert_eq!(fault.hint.is_some_and(|hint| hint.contains("cpus = 1")), emulated && cpus == 2);
    }
    let late = machine("kernel = { suite = 'bookworm' }, deadline = '300ms'", cache.path());
    let fault = late.site().await.unwrap_err();
    assert!(fault.cause.contains("did not answer within"), "{fault}");
    drop(late);
    for _ in 0..100 {
        if guests_of(cache.path()) == 0 {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    panic!("a guest is left behind");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_no_kernel_and_a_processor_that_is_none_are_faults_that_say_so() {
    let cache = tempfile::tempdir().unwrap();
    let file = cache.path().join("vmlinuz");
    std::fs::write(&file, b"this is no kernel").unwrap();
    let kernel = format!("kernel = '{}', deadline = '20s'", file.display());
    let fault = machine(&kernel, cache.path()).site().await.unwrap_err();
    assert!(!fault.cause.is_empty() && !fault.transient, "{fault}");
    let fault = machine(&format!("{kernel}, cpu = 'Nehalmm'"), cache.path()).site().await.unwrap_err();
    assert!(fault.cause.contains("Nehalmm"), "{fault}");
}

#[test]
fn making_a_kernel_that_is_interrupted_ends_what_makes_it() {
    let directory = tempfile::tempdir().unwrap();
    let temporary = directory.path().join("tmp");
    std::fs::create_dir(&temporary).unwrap();
    let mut build = Command::new(env!("CARGO_BIN_EXE_abicus"))
        .args(["vm", "build", "--kernel", "bookworm"])
        .env("ABICUS_CACHE", directory.path().join("cache"))
        .env("TMPDIR", &temporary)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(build.stderr.take().unwrap()).lines();
    assert!(said.by_ref().any(|line| line.unwrap().contains("apt-get update")), "it never began");
    rustix::process::kill_process(rustix::process::Pid::from_child(&build), rustix::process::Signal::INT).unwrap();
    let rest: Vec<String> = said.map(Result::unwrap).collect();
    assert_eq!(build.wait().unwrap().code(), Some(130), "{rest:#?}");
    assert!(rest.last().unwrap().starts_with("interrupted"), "{rest:#?}");
    assert_eq!(working_in(directory.path()), Vec::<String>::new());
    let left: Vec<_> = std::fs::read_dir(&temporary).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(left.is_empty(), "{left:?}");
}

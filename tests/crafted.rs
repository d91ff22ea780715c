//! The crafted images do what `tests/crafted/README.md` says, seen by `chroot` and no engine: each is stopped by the one
//! thing it was made for, and by nothing else.
//!
//! Wants the root file systems of `ci/fixtures`, whose loaders the dynamic programs are given.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::LazyLock;

use abicus::image::{ImageStore, Source, quiet};

/// Where the images are, made once for all tests here.
static IMAGES: LazyLock<PathBuf> = LazyLock::new(|| {
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join("crafted");
    let build = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/crafted/build");
    let output = Command::new(build).arg(&out).output().unwrap();
    assert!(
        output.status.success(),
        "tests/crafted/build failed; it wants what ci/setup test and ci/fixtures make:\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    out
});

/// `COMMAND…` with this image as its root: by chroot for root, in a user namespace for anyone else.
fn inside(image: &str, before: &[&str]) -> Command {
    let root = IMAGES.join(image);
    assert!(root.is_dir(), "no image {image}");
    let mut words: Vec<&str> = before.to_vec();
    if rustix::process::geteuid().is_root() {
        words.push("chroot");
    } else {
        words.extend(["unshare", "--user", "--map-root-user", "chroot"]);
    }
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).arg(root).arg("/bin/subject").stdin(Stdio::null());
    command
}

fn run(image: &str) -> Output {
    inside(image, &[]).output().unwrap()
}

#[track_caller]
fn assert_ok(image: &str, output: &Output) {
    assert_eq!(String::from_utf8_lossy(&output.stdout), "ok\n", "{image}: {output:?}");
    assert!(output.status.success(), "{image}: {output:?}");
}

#[track_caller]
fn assert_says(image: &str, output: &Output, code: i32, text: &str) {
    let said = [&output.stdout[..], &output.stderr].concat();
    assert!(String::from_utf8_lossy(&said).contains(text), "{image}: {output:?}");
    assert_eq!(output.status.code(), Some(code), "{image}: {output:?}");
}

/// Whether this machine's CPU has all of these, in the kernel's words.
fn cpu_has(features: &[&str]) -> bool {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap();
    let flags = info.lines().find(|line| line.starts_with("flags")).unwrap();
    features.iter().all(|feature| flags.split_whitespace().any(|flag| flag == *feature))
}

#[test]
fn the_control_has_nothing_in_its_way() {
    assert_ok("good", &run("good"));
}

#[test]
fn the_vsyscall_page_is_used_where_the_kernel_has_one_and_kills_where_it_has_none() {
    let has_page = std::fs::read_to_string("/proc/self/maps").unwrap().contains("[vsyscall]");
    for image in ["vsyscall-static", "vsyscall-dynamic"] {
        let output = run(image);
        if has_page {
            assert_ok(image, &output);
        } else {
            assert_eq!(output.status.signal(), Some(11), "{image}: {output:?}");
        }
    }
}

#[test]
fn the_old_loader_does_not_find_a_library_that_needs_a_newer_kernel() {
    assert_says("abi-note", &run("abi-note"), 127, "libsubject.so: cannot open shared object file");
}

#[test]
fn a_library_marked_for_a_cpu_level_loads_only_on_it() {
    let v3 = cpu_has(&["avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe", "xsave"]);
    let v4 = v3 && cpu_has(&["avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"]);
    for (image, can) in [("isa-v3", v3), ("isa-v4", v4)] {
        let output = run(image);
        if can {
            assert_ok(image, &output);
        } else {
            assert_says(image, &output, 127, "CPU ISA level is lower than required");
        }
    }
}

#[test]
fn an_executable_stack_is_granted_at_start_and_refused_at_run_time_by_a_new_libc() {
    assert_ok("exec-stack", &run("exec-stack"));
    assert_says("exec-stack-dlopen", &run("exec-stack-dlopen"), 1, "cannot enable executable stack");
}

#[test]
fn a_32_bit_program_runs_where_the_kernel_runs_32_bit_programs() {
    let subject = std::fs::read(IMAGES.join("i386/bin/subject")).unwrap();
    assert_eq!((&subject[..5], &subject[18..20]), (&b"\x7fELF\x01"[..], &b"\x03\0"[..]), "not a 32-bit program");
    let output = run("i386");
    // Without CONFIG_IA32_EMULATION chroot cannot execute it, and says so with 126 or, trying a shell, with 127.
    if !matches!(output.status.code(), Some(126 | 127)) {
        assert_ok("i386", &output);
    }
}

#[test]
fn a_file_cannot_be_made_where_there_is_no_directory_or_no_right_to_write() {
    assert_says("no-tmp", &run("no-tmp"), 1, "open /tmp/subject: errno 2");

    let written = IMAGES.join("read-only/root/subject");
    if rustix::process::geteuid().is_root() {
        // Root may override modes unless that right is dropped.
        let before = ["setpriv", "--inh-caps=-all", "--bounding-set=-dac_override,-dac_read_search"];
        let output = inside("read-only", &before).output().unwrap();
        assert_says("read-only", &output, 1, "open /root/subject: errno 13");
    }
    assert!(!written.exists());
}

#[test]
fn a_program_for_another_machine_is_not_executed() {
    // A machine with an emulator registered runs it, which is not ours to judge.
    if Path::new("/proc/sys/fs/binfmt_misc/qemu-aarch64").exists() {
        eprintln!("aarch64 programs are emulated here: only the image's header is checked");
        assert_eq!(std::fs::read(IMAGES.join("wrong-arch/bin/subject")).unwrap()[18], 0xb7);
        return;
    }
    let error = Command::new(IMAGES.join("wrong-arch/bin/subject")).output().unwrap_err();
    assert_eq!(error.raw_os_error(), Some(8), "{error}");
}

#[test]
fn a_program_without_its_loader_is_not_executed() {
    let output = run("no-loader");
    assert_says("no-loader", &output, 127, "No such file or directory");
    assert!(IMAGES.join("no-loader/bin/subject").exists(), "the program itself is there");
}

#[test]
fn a_hanging_program_outlives_every_polite_signal() {
    let mut child = inside("hang", &[]).stdout(Stdio::piped()).spawn().unwrap();
    let mut said = [0; 8];
    child.stdout.take().unwrap().read_exact(&mut said).unwrap();
    assert_eq!(&said, b"hanging\n");
    let pid = rustix::process::Pid::from_child(&child);
    for signal in [rustix::process::Signal::TERM, rustix::process::Signal::INT, rustix::process::Signal::HUP] {
        rustix::process::kill_process(pid, signal).unwrap();
    }
    std::thread::sleep(std::time::Duration::from_millis(200));
    assert!(child.try_wait().unwrap().is_none(), "it ended");
    child.kill().unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(9));
}

#[test]
fn a_hungry_program_meets_the_limit_that_is_set() {
    let output = inside("out-of-memory", &["prlimit", "--as=67108864"]).output().unwrap();
    assert_says("out-of-memory", &output, 1, "mmap: errno 12");
}

#[test]
fn a_flood_goes_on_until_nobody_reads() {
    let mut child = inside("flood", &[]).stdout(Stdio::piped()).spawn().unwrap();
    let mut read = vec![0; 8 << 20];
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_exact(&mut read).unwrap();
    assert!(read.chunks(64).all(|line| line[63] == b'\n' && line[..63].iter().all(|byte| *byte == b'f')));
    drop(stdout);
    let status = child.wait().unwrap();
    assert!(status.signal() == Some(13) || status.code() == Some(9), "{status:?}");
}

#[test]
fn hostile_text_has_everything_that_breaks_readers() {
    let output = run("hostile-text");
    assert!(output.status.success(), "{:?}", output.status);
    let text = &output.stdout;
    for part in [&b"<script>"[..], b"\x1b[2J", b"\0", b"\xff\xfe", b"\xe2\x80\xae", b"{{ x }}", b"../../etc/passwd"] {
        assert!(text.windows(part.len()).any(|window| window == part), "{part:?} is missing");
    }
    assert!(std::str::from_utf8(text).is_err());
    assert!(text.split(|byte| *byte == b'\n').any(|line| line.len() == 1 << 20), "no huge line");
    assert!(text.ends_with(b"\"sa"), "it ends in the middle of a line");
}

/// Nothing of an image is run to learn this.
#[test]
fn what_is_in_the_way_is_a_fact_of_the_image_before_it_runs() {
    let place = tempfile::tempdir().unwrap();
    let store = ImageStore::at(place.path()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let facts = |name: &str| {
        let (id, source) = (name.parse().unwrap(), Source::Rootfs(IMAGES.join(name)));
        let opened = store.open(&id, &source, place.path(), "amd64", quiet());
        runtime.block_on(opened).unwrap().facts
    };
    for (image, fact, value) in [
        ("abi-note", "abi.min_kernel", "99.0.0"),
        ("abi-note", "abi.min_kernel.of", "libsubject.so"),
        ("isa-v3", "isa.needed", "x86-64-v3"),
        ("isa-v4", "isa.needed", "x86-64-v4"),
        ("isa-v4", "isa.needed.of", "libsubject.so"),
        ("exec-stack", "stack.executable", "libsubject.so"),
        ("exec-stack-dlopen", "stack.executable", "libsubject.so"),
        ("i386", "arch", "386"),
        ("wrong-arch", "arch", "arm64"),
        ("no-loader", "loader.missing", "yes"),
    ] {
        let (facts, good) = (facts(image), facts("good"));
        assert_eq!(facts.get(fact).map(String::as_str), Some(value), "{image}: {facts:#?}");
        assert_ne!(facts.get(fact), good.get(fact), "{fact}: the control has it too");
    }
}

#[test]
fn every_image_has_a_tar_file_of_the_same() {
    for entry in std::fs::read_dir(&*IMAGES).unwrap() {
        let path = entry.unwrap().path();
        if !path.is_dir() {
            continue;
        }
        let tar = path.with_extension("tar");
        let mut archive = tar::Archive::new(std::fs::File::open(&tar).unwrap());
        let subject = archive
            .entries()
            .unwrap()
            .find(|entry| entry.as_ref().unwrap().path().unwrap().as_ref() == Path::new("./bin/subject"));
        let mut bytes = Vec::new();
        subject
            .unwrap_or_else(|| panic!("no bin/subject in {}", tar.display()))
            .unwrap()
            .read_to_end(&mut bytes)
            .unwrap();
        assert_eq!(bytes, std::fs::read(path.join("bin/subject")).unwrap(), "{}", tar.display());
    }
}

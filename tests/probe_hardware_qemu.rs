//! The kernel probe on processors that this machine does not have, emulated by QEMU.
//!
//! Needs QEMU, busybox-static, and a kernel that apt downloads once. What is absent fails.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![cfg(target_arch = "x86_64")]

#[path = "probe_support/cpuinfo.rs"]
mod cpuinfo;
mod probe_support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use probe_support::{Seen, kernel};

fn shell(dir: &Path, script: &str, arguments: &[&str]) {
    let output = Command::new("sh").args(["-euc", script, "sh"]).args(arguments).current_dir(dir).output().unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Debian's kernel for virtual machines, downloaded once into cargo's directory.
fn image() -> PathBuf {
    // Two tests must not download into one directory at a time.
    static IMAGE: OnceLock<PathBuf> = OnceLock::new();
    IMAGE
        .get_or_init(|| {
            let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("kernel-image");
            let image = dir.join("vmlinuz");
            if !image.exists() {
                fs::create_dir_all(&dir).unwrap();
                let find = "name=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/ *Depends: //p' | head -n 1); \
                        apt-get download \"$name\"; dpkg-deb -x linux-image-*.deb .; mv boot/vmlinuz-* vmlinuz; \
                        rm -r boot lib usr linux-image-*.deb";
                shell(&dir, find, &[]);
            }
            image
        })
        .clone()
}

/// The probe in a guest, after /proc/cpuinfo, which is in `raw`.
fn guest(cpu: &str, cmdline: &str) -> Seen {
    const INIT: &str =
        "#!/busybox sh\n/busybox mount -t proc proc /proc\n/busybox cat /proc/cpuinfo\nexec /kernel --only cpu.\n";
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    fs::create_dir_all(root.join("proc")).unwrap();
    fs::write(root.join("init"), INIT).unwrap();
    let pack = "cp \"$1\" kernel; cp /bin/busybox busybox; chmod 755 init; \
                printf '%s\\n' init kernel busybox proc | /bin/busybox cpio -o -H newc >../initramfs";
    shell(&root, pack, &[kernel().to_str().unwrap()]);
    let output = Command::new("timeout")
        .args(["180", "qemu-system-x86_64", "-accel", "tcg", "-cpu", cpu, "-m", "256", "-nographic", "-no-reboot"])
        .arg("-kernel")
        .arg(image())
        .arg("-initrd")
        .arg(dir.path().join("initramfs"))
        .arg("-append")
        .arg(format!("console=ttyS0 quiet panic=-1 {cmdline}"))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let raw = String::from_utf8_lossy(&output.stdout).replace('\r', "");
    let lines: Vec<_> = raw.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let seen = Seen { lines, status: output.status.code(), raw };
    assert!(seen.lines.iter().any(|line| line["end"] == "kernel"), "{cpu} {cmdline}: {}", seen.raw);
    seen
}

#[test]
fn processors_that_lack_a_feature_say_so() {
    // What the first that has it runs, the one before it does not.
    let models = [("qemu64", "1"), ("Nehalem", "2"), ("Haswell", "3"), ("max", "3")];
    let first =
        [("popcnt", 1), ("sse4_2", 1), ("avx", 2), ("avx2", 2), ("fma", 2), ("bmi1", 2), ("lzcnt", 2), ("xsave", 2)];
    image();
    let guests = std::thread::scope(|scope| {
        let guests = models.map(|(model, _)| scope.spawn(move || guest(model, "")));
        guests.map(|guest| guest.join().unwrap())
    });
    for (i, ((model, level), seen)) in models.into_iter().zip(guests).enumerate() {
        let wrong = cpuinfo::disagreements(&seen.raw, &seen);
        assert!(wrong.is_empty(), "{model}: {}", wrong.join("\n"));
        assert_eq!(seen.saw("cpu.level"), level, "{model}");
        for (name, from) in first {
            let expected = if i >= from { "works" } else { "not-asked" };
            assert_eq!(seen.saw(&format!("cpu.{name}.execute")), expected, "{model} {name}");
        }
        assert_eq!(seen.saw("cpu.avx512f.execute"), "not-asked", "{model}");
        // QEMU runs it and does not list it: neither alone is to be believed.
        assert_eq!(seen.saw("cpu.waitpkg.execute"), "works, not advertised", "{model}");
        assert_eq!(seen.saw("cpu.umip"), if model == "max" { "hidden" } else { "readable" }, "{model}");
        assert_eq!(seen.saw("cpu.pku.execute"), if model == "max" { "works" } else { "not-asked" }, "{model}");
        let small = seen.saw("cpu.minsigstksz").parse::<u32>().unwrap() <= 2048;
        assert_eq!(seen.saw("cpu.sigaltstack.2048"), if small { "ok" } else { "signal 11" }, "{model}");
        assert_eq!(seen.saw("cpu.vector.signal"), "ok", "{model}");
    }
}

#[test]
fn registers_that_the_kernel_does_not_enable_are_not_used() {
    let seen = guest("Haswell", "clearcpuid=avx");
    assert_eq!(seen.saw("cpu.level"), "2");
    assert_eq!(seen.saw("cpu.xcr0"), "0x3");
    assert_eq!(seen.saw("cpu.xcr0.complete"), "not enabled: avx f16c fma avx2");
    assert_eq!(
        seen.checks()["cpu.avx2.execute"]["why"],
        "the processor lists it, but XCR0 does not enable its registers"
    );
    assert_eq!(seen.saw("cpu.vector.signal"), "ok");
}

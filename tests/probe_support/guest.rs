//! The probes in a virtual machine of QEMU's, on a distribution's kernel: what only another kernel or processor shows.
//!
//! Needs QEMU, busybox-static, and kernels that apt downloads once. What is absent fails.
#![allow(dead_code)] // each test file uses its own part

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;

use crate::probe_support::{Seen, kernel, libc, surroundings};

/// Debian's kernel for virtual machines.
pub const CLOUD: &str = "linux-image-cloud-amd64";

fn shell(dir: &Path, script: &str, arguments: &[&str]) {
    let output = Command::new("sh").args(["-euc", script, "sh"]).args(arguments).current_dir(dir).output().unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Modules that tests load, where the package has them.
const MODULES: &str = "wireguard macsec nbd openvswitch cfg80211 loop ext4 algif_hash sha256_generic bluetooth can_raw sctp tls \
                       cuse dm_mod ppp_generic uinput vhost_net vhost_vsock";

/// The kernel of a package that depends on the current one, downloaded once into cargo's directory, and those modules of it, each
/// with a list of what it needs before.
pub fn image(package: &str) -> PathBuf {
    // Two tests of one program must not both download it.
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock();
    let version = abicus::probes::digest(MODULES.as_bytes());
    let parent = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let dir = parent.join(format!("kernel-{package}-{}", &version[..8]));
    if !dir.join("modules").exists() {
        let new = tempfile::tempdir_in(parent).unwrap();
        let find = "name=$(apt-cache depends \"$1\" | sed -n 's/ *Depends: //p' | head -n 1); \
                    apt-get download \"$name\"; dpkg-deb -x linux-image-*.deb .; mv boot/vmlinuz-* vmlinuz; \
                    release=$(ls lib/modules); depmod -b . \"$release\"; mkdir new; for module in $2; do \
                    modprobe -d . -S \"$release\" --show-depends \"$module\" >list 2>/dev/null || continue; \
                    while read -r word path rest; do [ \"$word\" != insmod ] || cp \"$path\" new/; done <list; \
                    sed -n 's|^insmod .*/\\([^/]*\\.ko\\).*|\\1|p' list >\"new/$module\"; done; \
                    rm -r boot lib usr linux-image-*.deb list; mv new modules";
        shell(new.path(), find, &[package, MODULES]);
        // Another test program may be at it too: whoever is first wins.
        if fs::rename(new.path(), &dir).is_ok() {
            let _ = new.keep();
        }
    }
    dir.join("vmlinuz")
}

/// What a guest is.
pub struct Guest<'a> {
    pub package: &'a str,
    pub cpu: &'a str,
    pub cmdline: &'a str,
    /// Run by busybox's shell as the first program, /proc and /sys mounted, with every program of busybox in the path, the
    /// probes in the root and this machine's glibc. The machine ends with it.
    pub script: &'a str,
    /// Loaded before.
    pub modules: &'a [&'a str],
    /// A file of this machine that lies in the root as `file`.
    pub file: Option<&'a Path>,
}

impl<'a> Guest<'a> {
    /// With the best processor that QEMU emulates.
    pub fn of(package: &'a str, script: &'a str) -> Guest<'a> {
        Guest { package, cpu: "max", cmdline: "", script, modules: &[], file: None }
    }

    /// Boots it, and returns what it wrote on its console.
    pub fn boot(&self) -> Seen {
        self.boot_with(&kernel())
    }

    /// With another program in the place of the kernel probe.
    pub fn boot_with(&self, kernel: &Path) -> Seen {
        let image = image(self.package);
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        fs::create_dir_all(root.join("bin")).unwrap();
        for name in ["proc", "sys", "dev", "tmp"] {
            fs::create_dir(root.join(name)).unwrap();
        }
        let mut loads = String::new();
        for module in self.modules {
            let from = image.with_file_name("modules");
            let list = fs::read_to_string(from.join(module)).unwrap_or_else(|e| panic!("{module}: {e}"));
            for file in list.lines() {
                fs::copy(from.join(file), root.join(file)).unwrap();
                // One that another module needed as well is there already.
                loads += &format!("insmod /{file} 2>/dev/null\n");
            }
        }
        if let Some(file) = self.file {
            fs::copy(file, root.join("file")).unwrap();
        }
        // The shell stays, so that nothing says that the first program has ended before all lines are out.
        let init = format!(
            "#!/bin/busybox sh\n/bin/busybox --install -s /bin\nexport PATH=/bin\nmount -t proc proc /proc\n\
             mount -t sysfs sysfs /sys\n[ -e /dev/null ] || mount -t devtmpfs devtmpfs /dev\n\
             # The firmware left its last line open.\necho\n{loads}{}\npoweroff -f\n",
            self.script
        );
        fs::write(root.join("init"), init).unwrap();
        let pack = "cp \"$1\" kernel; cp \"$2\" surroundings; cp \"$3\" libc; cp /bin/busybox bin/busybox; chmod 755 init; \
                    mkdir -p lib64 lib/x86_64-linux-gnu; cp /lib64/ld-linux-x86-64.so.2 lib64; \
                    cp /lib/x86_64-linux-gnu/libc.so.6 lib/x86_64-linux-gnu; find . | /bin/busybox cpio -o -H newc >../initramfs";
        shell(&root, pack, &[kernel.to_str().unwrap(), surroundings().to_str().unwrap(), libc().to_str().unwrap()]);
        let output = Command::new("timeout")
            .args(["300", "qemu-system-x86_64", "-accel", "tcg", "-cpu", self.cpu, "-m", "256", "-nographic"])
            .args(["-no-reboot", "-kernel"])
            .arg(image)
            .arg("-initrd")
            .arg(dir.path().join("initramfs"))
            .arg("-append")
            // On a busy machine an emulated timer is late, and the kernel takes it for one that is not connected.
            .arg(format!("console=ttyS0 quiet panic=-1 no_timer_check {}", self.cmdline))
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let raw = String::from_utf8_lossy(&output.stdout).replace('\r', "");
        let lines: Vec<_> = raw.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let seen = Seen { lines, status: output.status.code(), raw };
        assert!(
            seen.lines.iter().any(|line| line["end"].is_string()),
            "{} {} {}: {}",
            self.package,
            self.cpu,
            self.cmdline,
            seen.raw
        );
        seen
    }
}

//! Kernels: of a distribution's package, or a file.
//!
//! In: a [`KernelPackage`] or a path. Out: a [`Boot`]: the file to boot, and the modules a guest loads first. Packages are
//! downloaded and looked into; nothing of them is installed or executed.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::ext4::{self, Owner, Room};
use super::shelf::{Kept, Recipe, Shelf};
use crate::engine::Facts;
use crate::fault::{Fault, Phase};
use crate::image::error::ImageError;
use crate::image::{Cancel, mmdebstrap};
use crate::spec::{Kernel, KernelPackage};

/// Modules a guest loads first, in this order, where the kernel has them not built in: the way to the driver, and what
/// engines and programs use.
const WANTED: [&str; 9] = [
    "virtio_ring",
    "virtio",
    "virtio_pci_legacy_dev",
    "virtio_pci_modern_dev",
    "virtio_pci",
    "virtio_console",
    "overlay",
    "fuse",
    "tun",
];
/// Drivers of hardware that no virtual machine has.
const UNWANTED: [&str; 12] = [
    "drivers/gpu/",
    "drivers/hwmon/",
    "drivers/iio/",
    "drivers/infiniband/",
    "drivers/media/",
    "drivers/net/ethernet/",
    "drivers/net/wireless/",
    "drivers/scsi/",
    "drivers/staging/",
    "drivers/usb/",
    "drivers/video/",
    "sound/",
];
/// Fixed text, for mmdebstrap's shell: the packages of a kernel that have files in them.
const DOWNLOAD: &str = r#"set -eu
    mkdir "$1/packages"; cd "$1/packages"; export APT_CONFIG="$MMDEBSTRAP_APT_CONFIG"
    names=$(apt-cache depends --recurse --no-recommends --no-suggests --no-conflicts --no-breaks --no-replaces \
        --no-enhances "$ABICUS_PACKAGE" | grep -E "^linux-(image|binary|modules|base)-[^ ]*[0-9]" | sort -u)
    [ -n "$names" ] || { echo "E: no kernel comes with $ABICUS_PACKAGE" >&2; exit 1; }
    apt-get --yes -o APT::Sandbox::User=root download $names"#;

/// A kernel that can be booted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Boot {
    /// What a boot loader would load.
    pub kernel: PathBuf,
    /// Modules to load, in order.
    pub modules: Vec<PathBuf>,
    /// The package's files, where it is a package.
    pub package: Option<Kept>,
    /// Where it comes from.
    pub facts: Facts,
}

/// Is told what is being done, from any thread.
pub type Say<'a> = &'a dyn Fn(&str);

/// The kernel, made ready where it is a package that was not used before.
pub fn boot(shelf: &Shelf, kernel: &Kernel, cancel: &Cancel, say: Say) -> Result<Boot, Fault> {
    match kernel {
        Kernel::File { path, modules } => {
            let fault = |e: std::io::Error| Fault::new(Phase::Host, format!("{}: {e}", path.display()));
            drop(File::open(path).map_err(fault)?);
            let modules = modules.as_deref().map(wanted_below).unwrap_or_default();
            let facts = Facts::from([("vm.kernel".to_owned(), file_name(path))]);
            // QEMU works in a directory of its own.
            Ok(Boot { kernel: std::path::absolute(path).map_err(fault)?, modules, package: None, facts })
        }
        Kernel::Package(package) => {
            let kept = packaged(shelf, package, cancel, say)?;
            Ok(Boot {
                kernel: kept.dir.join("vmlinuz"),
                modules: wanted_below(&kept.dir.join("first")),
                facts: kept.label.facts.clone(),
                package: Some(kept),
            })
        }
    }
}

fn file_name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// What a package's kernel is called on the shelf.
pub fn name(package: &KernelPackage) -> String {
    if *package == KernelPackage::of(&package.suite) {
        return format!("kernel {}", package.suite);
    }
    format!("kernel {} {}", package.suite, package.package)
}

/// The kernel of a package, from the shelf or made.
pub fn packaged(shelf: &Shelf, package: &KernelPackage, cancel: &Cancel, say: Say) -> Result<Kept, Fault> {
    let tool = mmdebstrap::version().map_err(host_fault)?;
    let recipe = Recipe {
        kind: "kernel",
        name: name(package),
        text: format!("kernel 2\n{}\n{}\n{tool}", package.suite, package.package),
    };
    let say = |what: &str| say(&format!("{}: {what}", recipe.name));
    shelf.make(&recipe, &|| say("waiting for another process that makes it"), |dir| {
        let packages = dir.join("packages");
        if !packages.is_dir() {
            download(package, dir, cancel, &say)?;
        }
        say("unpacking");
        let mut facts = unpack(&packages, dir)?;
        fs::remove_dir_all(&packages).map_err(|e| Fault::new(Phase::Host, format!("{}: {e}", packages.display())))?;
        facts.insert("vm.kernel.suite".to_owned(), package.suite.clone());
        Ok(facts)
    })
}

/// All modules of a packaged kernel as a disk to mount on `/lib/modules`: engines ask for modules while they run.
pub fn modules(shelf: &Shelf, kernel: &Kept) -> Result<Kept, Fault> {
    let release = kernel.label.facts.get("vm.kernel.release").cloned().unwrap_or_default();
    let recipe = Recipe {
        kind: "modules",
        name: kernel.label.name.replacen("kernel", "modules", 1),
        text: format!("modules 1\n{}\n{:?}", kernel.dir.display(), kernel.label.made),
    };
    shelf.make(&recipe, &|| {}, |dir| {
        let tree = dir.join("tree");
        super::shelf::remove(&tree)?;
        let fault = |e: std::io::Error| Fault::new(Phase::Host, format!("{}: {e}", tree.display()));
        fs::create_dir_all(tree.join("lib")).map_err(fault)?;
        let tar = File::open(kernel.dir.join("modules.tar")).map_err(fault)?;
        tar::Archive::new(tar).unpack(tree.join("lib")).map_err(fault)?;
        let depmod = Command::new("/sbin/depmod").arg("-b").arg(&tree).arg(&release).stdin(Stdio::null()).output();
        let ran = depmod.map_err(|e| {
            Fault::new(Phase::Host, format!("depmod cannot be run: {e}")).hint("install the package kmod")
        })?;
        if !ran.status.success() {
            let said = String::from_utf8_lossy(&ran.stderr).into_owned();
            return Err(Fault::new(Phase::Host, format!("depmod ended with {}: {said}", ran.status)));
        }
        ext4::make(&tree.join("lib/modules"), &dir.join("disk"), Owner::Ours, Room::Tight)?;
        super::shelf::remove(&tree)?;
        Ok(Facts::from([("vm.kernel.release".to_owned(), release.clone())]))
    })
}

/// A fault of making a virtual machine, as whoever waits for the host sees it.
pub(super) fn host_fault(error: ImageError) -> Fault {
    Fault { phase: Phase::Host, ..error.into() }
}

/// The packages into `dir/packages`, all or none.
fn download(package: &KernelPackage, dir: &Path, cancel: &Cancel, say: Say) -> Result<(), Fault> {
    let fault = |path: &Path, e: std::io::Error| Fault::new(Phase::Host, format!("{}: {e}", path.display()));
    let arriving = dir.join("arriving");
    let fetch = |extra: Option<&str>| {
        drop(fs::remove_dir_all(&arriving));
        fs::create_dir(&arriving).map_err(ImageError::io("could not make", &arriving))?;
        let mut command = mmdebstrap::command(rustix::process::geteuid().is_root());
        command.args(["--variant=custom", "--format=null"]).args(extra);
        command.arg(format!("--customize-hook={DOWNLOAD}")).arg("--customize-hook=copy-out /packages .");
        // The place outside is relative to where the program was started, so that no path goes through its quoting.
        command.env("ABICUS_PACKAGE", &package.package).current_dir(&arriving);
        command.arg(&package.suite).arg("/dev/null");
        mmdebstrap::run(command, &package.suite, cancel, say)
    };
    mmdebstrap::twice(fetch, say).map_err(host_fault)?;
    let packages = dir.join("packages");
    fs::rename(arriving.join("packages"), &packages).map_err(|e| fault(&packages, e))?;
    fs::remove_dir_all(&arriving).map_err(|e| fault(&arriving, e))
}

/// Takes from the packages what booting needs: the kernel, its configuration, its modules.
fn unpack(packages: &Path, into: &Path) -> Result<Facts, Fault> {
    let fault = |path: &Path, e: std::io::Error| Fault::new(Phase::Host, format!("{}: {e}", path.display()));
    let first = into.join("first");
    drop(fs::remove_dir_all(&first));
    fs::create_dir(&first).map_err(|e| fault(&first, e))?;
    let tar = into.join("modules.tar");
    let mut unpacked = Unpacked {
        into: into.to_owned(),
        modules: tar::Builder::new(File::create(&tar).map_err(|e| fault(&tar, e))?),
        release: None,
    };
    let mut facts = Facts::new();
    let mut names: Vec<PathBuf> =
        fs::read_dir(packages).map_err(|e| fault(packages, e))?.flatten().map(|entry| entry.path()).collect();
    names.sort();
    for deb in &names {
        unpacked.package(deb).map_err(|e| fault(deb, e))?;
        if let Some((name, version)) = described(deb).filter(|(name, _)| name.starts_with("linux-image-")) {
            facts.insert("vm.kernel.package".to_owned(), format!("{name} {version}"));
        }
    }
    unpacked.modules.into_inner().and_then(|file| file.sync_all()).map_err(|e| fault(&tar, e))?;
    for name in ["vmlinuz", "config"] {
        if !into.join(name).is_file() {
            let found: Vec<String> = names.iter().map(|path| file_name(path)).collect();
            return Err(Fault::new(Phase::Host, format!("no {name} in {}", found.join(", "))));
        }
    }
    facts.insert("vm.kernel.release".to_owned(), unpacked.release.unwrap_or_default());
    Ok(facts)
}

/// Name and version of a package.
fn described(deb: &Path) -> Option<(String, String)> {
    let output =
        Command::new("dpkg-deb").args(["--show", "--showformat=${Package} ${Version}"]).arg(deb).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let (name, version) = text.trim().split_once(' ')?;
    Some((name.to_owned(), version.to_owned()))
}

struct Unpacked {
    into: PathBuf,
    modules: tar::Builder<File>,
    release: Option<String>,
}

impl Unpacked {
    /// Looks through one package. The names in it decide nothing but what is left out.
    fn package(&mut self, deb: &Path) -> std::io::Result<()> {
        /// No kernel, configuration or module is larger.
        const MOST: u64 = 512 << 20;
        let mut child = Command::new("dpkg-deb")
            .arg("--fsys-tarfile")
            .arg(deb)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        if let Some(stdout) = child.stdout.take() {
            let mut archive = tar::Archive::new(stdout);
            for entry in archive.entries()? {
                let entry = entry?;
                if !entry.header().entry_type().is_file() || entry.size() > MOST {
                    continue;
                }
                let path = entry.path()?.to_string_lossy().into_owned();
                self.file(path.trim_start_matches("./").trim_start_matches("usr/"), entry)?;
            }
        }
        match child.wait()? {
            status if status.success() => Ok(()),
            status => Err(std::io::Error::other(format!("dpkg-deb ended with {status}"))),
        }
    }

    fn file(&mut self, path: &str, mut entry: impl Read) -> std::io::Result<()> {
        let keep =
            |name: &str, entry: &mut dyn Read| std::io::copy(entry, &mut File::create(self.into.join(name))?).map(drop);
        if let Some(name) = path.strip_prefix("boot/") {
            return match name.split_once('-') {
                Some(("vmlinuz", _)) => keep("vmlinuz", &mut entry),
                Some(("config", _)) => keep("config", &mut entry),
                _ => Ok(()),
            };
        }
        let Some((release, below)) = path.strip_prefix("lib/modules/").and_then(|rest| rest.split_once('/')) else {
            return Ok(());
        };
        let plain = |text: &str| !text.split('/').any(|part| matches!(part, "" | "." | ".."));
        if !plain(release) || !plain(below) {
            return Ok(());
        }
        if let "vmlinuz" | "config" = below {
            return keep(below, &mut entry);
        }
        if UNWANTED.iter().any(|dir| below.strip_prefix("kernel/").is_some_and(|path| path.starts_with(dir))) {
            return Ok(());
        }
        let mut bytes = vec![];
        entry.read_to_end(&mut bytes)?;
        if module_of(below).is_some() {
            fs::write(self.into.join("first").join(below.rsplit('/').next().unwrap_or(below)), &bytes)?;
        }
        self.release = Some(release.to_owned());
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        self.modules.append_data(&mut header, format!("modules/{release}/{below}"), bytes.as_slice())
    }
}

/// Which of the modules that guests are given a path is, if any.
fn module_of(path: &str) -> Option<usize> {
    let file = path.rsplit('/').next()?;
    let (name, ending) = file.split_once('.')?;
    let known = matches!(ending, "ko" | "ko.xz" | "ko.zst" | "ko.gz");
    WANTED.iter().position(|wanted| known && *wanted == name)
}

/// The modules that guests are given, of a directory of modules, in the order in which they need each other.
fn wanted_below(dir: &Path) -> Vec<PathBuf> {
    let mut found = vec![];
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let Ok(kind) = entry.file_type() else { continue };
            let name = entry.file_name();
            if kind.is_dir() {
                dirs.push(entry.path());
            } else if let Some(at) = name.to_str().and_then(module_of) {
                found.push((at, entry.path()));
            }
        }
    }
    found.sort();
    found.dedup_by_key(|(at, _)| *at);
    found.into_iter().map(|(_, path)| path).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_that_guests_are_given_are_found_wherever_they_lie_and_in_order() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["overlayfs/overlay.ko.xz", "ext4/ext4.ko", "extra/tun.ko", "overlay.txt", "z/virtio.ko"] {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        let names: Vec<String> = wanted_below(dir.path()).iter().map(|path| file_name(path)).collect();
        assert_eq!(names, ["virtio.ko", "overlay.ko.xz", "tun.ko"]);
    }
}

//! Whether KVM really works: tried with a kernel, because a device node that can be opened proves nothing.
//!
//! In: a kernel. Out: yes, or why not. The answer is kept until the machine boots again, but a no that may be the kernel's.

use std::fs;
use std::path::Path;
use std::time::Duration;

use rustix::fs::{Access, access};
use serde::{Deserialize, Serialize};
use tokio::process::Command;

use super::qemu::{Guest, Machine, Stream, program};
use crate::engine::Facts;
use crate::fault::{Fault, Phase};
use crate::host::Reach;
use crate::spec::Storage;

const DEVICE: &str = "/dev/kvm";
/// With KVM a kernel gets as far as looking for its root file system in a second or two.
const PATIENCE: Duration = Duration::from_secs(15);

/// How guests are executed here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accelerator {
    /// Whether by KVM.
    pub kvm: bool,
    /// Why not, or the empty text.
    pub why: String,
    /// Of QEMU.
    pub version: String,
}

impl Accelerator {
    /// For reports.
    pub fn facts(&self) -> Facts {
        let how = if self.kvm { "kvm".to_owned() } else { format!("tcg (no kvm: {})", self.why) };
        Facts::from([("vm.accelerator".to_owned(), how), ("vm.qemu".to_owned(), self.version.clone())])
    }
}

/// What is remembered.
#[derive(Serialize, Deserialize)]
struct Remembered {
    boot: String,
    accelerator: Accelerator,
}

/// One trial at a time: two that starve each other would both say no.
static TRIAL: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// Finds out, or remembers. `cache` is abicus' own directory. That `kernel` does not come up with KVM says something of KVM
/// only where it is `good`.
pub async fn find(here: &dyn Reach, cache: &Path, kernel: &Path, good: bool) -> Result<Accelerator, Fault> {
    let _trial = TRIAL.lock().await;
    let version = version().await?;
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let path = cache.join("vm/accelerator.json");
    let known = fs::read(&path).ok().and_then(|text| serde_json::from_slice::<Remembered>(&text).ok());
    if let Some(known) = known.filter(|known| known.boot == boot && known.accelerator.version == version) {
        return Ok(known.accelerator);
    }
    let works = try_out(here, kernel).await;
    let accelerator = Accelerator { kvm: works.is_ok(), why: works.err().unwrap_or_default(), version };
    if !accelerator.kvm && !good {
        return Ok(accelerator);
    }
    let text = serde_json::to_vec(&Remembered { boot, accelerator: accelerator.clone() }).unwrap_or_default();
    // Not to remember only means to try again.
    drop(tempfile::NamedTempFile::new_in(cache.join("vm")).and_then(|file| {
        fs::write(file.path(), text)?;
        file.persist(&path).map_err(|e| e.error)
    }));
    Ok(accelerator)
}

async fn version() -> Result<String, Fault> {
    let output = Command::new(program()).arg("--version").output().await.map_err(|e| {
        Fault::new(Phase::Host, format!("{} cannot be run: {e}", program()))
            .hint("install QEMU (Debian, Ubuntu: apt-get install qemu-system-x86)")
    })?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let first = text.lines().next().unwrap_or_default();
    Ok(first.trim_start_matches("QEMU emulator version ").to_owned())
}

/// A kernel without anything to run, which has to say that it found nothing.
async fn try_out(here: &dyn Reach, kernel: &Path) -> Result<(), String> {
    access(DEVICE, Access::READ_OK | Access::WRITE_OK).map_err(|e| format!("{DEVICE}: {}", std::io::Error::from(e)))?;
    let machine = Machine {
        kvm: true,
        cpu: "host".into(),
        cpus: 1,
        memory: 256 << 20,
        kernel: kernel.to_owned(),
        initramfs: None,
        cmdline: "console=ttyS0 quiet panic=-1".into(),
        storage: Storage::Nvme,
        disks: vec![],
        stream: Stream::Serial,
    };
    let (guest, _stream) = match Guest::start(&machine, here).await {
        Ok(started) => started,
        Err(fault) => return Err(format!("a guest does not start: {}", fault.cause)),
    };
    let in_time = tokio::time::timeout(PATIENCE, guest.ended()).await.is_ok();
    let panicked = guest.console().panic().is_some_and(|why| why.contains("root"));
    match (panicked, in_time) {
        (true, _) => Ok(()),
        (false, true) => Err("a guest ends before its kernel is up".to_owned()),
        (false, false) => Err(format!("a guest hangs for {} s", PATIENCE.as_secs())),
    }
}

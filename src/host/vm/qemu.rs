//! One QEMU: its command line, its process, its console.
//!
//! In: what to boot and on what. Out: a [`Guest`] with a byte stream to whoever is on its other end. Dropping the
//! guest ends it, and so does the end of this process, however it ends: QEMU is a child of the launcher, which kills it
//! when its lifeline is let go. Must not know: agents, engines, images.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::sync::watch;

use super::console::Console;
use crate::engine::builtin::list::{List, stage};
use crate::fault::{Fault, Phase};
use crate::host::{Launched, Reach};
use crate::spec::Storage;

/// The program, by the name it has in `PATH`.
pub(super) fn program() -> &'static str {
    match std::env::consts::ARCH {
        "aarch64" => "qemu-system-aarch64",
        _ => "qemu-system-x86_64",
    }
}

/// A disk, which the guest finds by its serial number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// A file system.
    pub file: PathBuf,
    /// At most 20 letters and digits.
    pub serial: String,
    /// What is written goes to a file that nobody else sees and that is gone with the guest; without, nothing is written.
    pub scratch: bool,
}

/// A machine to start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// Whether to use KVM.
    pub kvm: bool,
    /// QEMU's name of the processor model.
    pub cpu: String,
    /// Virtual processors.
    pub cpus: u32,
    /// Bytes.
    pub memory: u64,
    /// The kernel.
    pub kernel: PathBuf,
    /// The initramfs, where there is one.
    pub initramfs: Option<Vec<u8>>,
    /// The kernel's command line.
    pub cmdline: String,
    /// By which kind of device disks appear.
    pub storage: Storage,
    /// In no order that the guest could rely on.
    pub disks: Vec<Disk>,
    /// Which device leads to the driver.
    pub stream: Stream,
}

/// The device in the guest that leads to the driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// The second serial port, which every kernel knows: a hundred kilobytes a second without KVM.
    Serial,
    /// A port of virtio, for kernels that have its driver or are given it: a hundred times as fast.
    Virtio,
}

impl Stream {
    /// Its name in the guest.
    pub fn device(self) -> &'static str {
        match self {
            Self::Serial => "/dev/ttyS1",
            Self::Virtio => "/dev/vport0p1",
        }
    }
}

/// What else a machine needs to be started.
struct Place<'a> {
    stream: &'a Path,
    initramfs: Option<&'a Path>,
}

impl Machine {
    fn arguments(&self, place: &Place) -> Vec<String> {
        let mut arguments: Vec<String> = Vec::new();
        let mut add = |words: &[&str]| arguments.extend(words.iter().map(|word| (*word).to_owned()));
        add(&[program(), "-nodefaults", "-no-user-config", "-display", "none", "-monitor", "none", "-no-reboot"]);
        let accelerator = if self.kvm { "kvm" } else { "tcg,thread=multi" };
        add(&["-accel", accelerator, "-machine", "q35,smm=off,vmport=off,hpet=off"]);
        add(&["-cpu", &self.cpu, "-smp", &self.cpus.to_string()]);
        add(&["-m", &format!("{}M", self.memory.div_ceil(1 << 20))]);
        add(&["-serial", "stdio"]);
        add(&["-chardev", &format!("socket,id=stream,path={},server=on,wait=off", escaped(place.stream))]);
        match self.stream {
            Stream::Serial => add(&["-serial", "chardev:stream"]),
            Stream::Virtio => {
                add(&["-device", "virtio-serial-pci", "-device", "virtserialport,chardev=stream,name=abicus"]);
            }
        }
        add(&["-kernel", &self.kernel.to_string_lossy(), "-append", &self.cmdline]);
        if let Some(initramfs) = place.initramfs {
            add(&["-initrd", &initramfs.to_string_lossy()]);
        }
        for (at, disk) in self.disks.iter().enumerate() {
            let mode = if disk.scratch { "snapshot=on" } else { "readonly=on" };
            let file = escaped(&disk.file);
            // Where this machine has no more room the guest is told, and not stopped until somebody makes some.
            let drive = format!("if=none,id=disk{at},format=raw,cache=unsafe,werror=report,{mode},file={file}");
            add(&["-drive", &drive]);
            let device = match self.storage {
                Storage::Nvme => "nvme",
                Storage::Virtio => "virtio-blk-pci",
            };
            add(&["-device", &format!("{device},drive=disk{at},serial={}", disk.serial)]);
        }
        arguments
    }
}

/// QEMU's options end at a comma, unless it is doubled.
fn escaped(path: &Path) -> String {
    path.to_string_lossy().replace(',', ",,")
}

/// What the directory of a machine begins with.
const PREFIX: &str = "abicus-vm-";
/// Names in it.
const STREAM: &str = "stream";
const INITRAMFS: &str = "initramfs";

/// A machine that runs.
pub struct Guest {
    console: Arc<Mutex<Console>>,
    /// What QEMU itself complained of.
    said: Arc<Mutex<Vec<u8>>>,
    ended: watch::Receiver<bool>,
    // Dropped, the launcher kills QEMU.
    lifeline: Mutex<Option<crate::host::Writer>>,
    dir: tempfile::TempDir,
    /// Whether it has several processors and QEMU emulates them.
    several_emulated: bool,
}

impl Guest {
    /// Starts a machine under the launcher of this machine, and connects to the device that leads to the driver.
    pub async fn start(machine: &Machine, here: &dyn Reach) -> Result<(Self, UnixStream), Fault> {
        let fault = |what: &str, e: std::io::Error| Fault::new(Phase::Host, format!("{what}: {e}"));
        let dir = tempfile::Builder::new()
            .prefix(PREFIX)
            .permissions(fs::Permissions::from_mode(0o700))
            .tempdir()
            .map_err(|e| fault("a directory for a virtual machine", e))?;
        let stream = dir.path().join(STREAM);
        let initramfs = machine.initramfs.as_ref().map(|bytes| (dir.path().join(INITRAMFS), bytes));
        if let Some((path, bytes)) = &initramfs {
            fs::write(path, bytes).map_err(|e| fault("an initramfs", e))?;
        }
        let place = Place { stream: &stream, initramfs: initramfs.as_ref().map(|(path, _)| path.as_path()) };
        let list = list(machine, &place, dir.path());
        let bytes = list.finish().map_err(|e| Fault::new(Phase::Host, e))?;
        let launched = here.launch(&bytes).await?;
        let guest = Self::watch(launched, dir, !machine.kvm && machine.cpus > 1);
        let connected = guest.connect(&stream).await;
        let stream = connected?;
        Ok((guest, stream))
    }

    fn watch(launched: Launched, dir: tempfile::TempDir, several_emulated: bool) -> Self {
        let console = Arc::new(Mutex::new(Console::default()));
        let said = Arc::new(Mutex::new(Vec::new()));
        let (end, ended) = watch::channel(false);
        let Launched { mut stdout, mut stderr, mut told, lifeline, mut process } = launched;
        let (writes, says) = (console.clone(), said.clone());
        tokio::spawn(async move {
            let listen = async {
                let mut room = vec![0; 16 * 1024];
                while let Ok(n @ 1..) = stdout.read(&mut room).await {
                    lock(&writes).push(&room[..n]);
                }
            };
            let complaints = async {
                let mut room = vec![0; 4096];
                while let Ok(n @ 1..) = stderr.read(&mut room).await {
                    let mut said = lock(&says);
                    let free = 4096_usize.saturating_sub(said.len());
                    said.extend_from_slice(&room[..n.min(free)]);
                }
            };
            let lines = async {
                let mut room = [0; 256];
                while let Ok(1..) = told.read(&mut room).await {}
            };
            tokio::join!(listen, complaints, lines);
            process.gone().await;
            let _ = end.send(true);
        });
        Self { console, said, ended, lifeline: Mutex::new(Some(lifeline)), dir, several_emulated }
    }

    /// It is up and has read what it was given: where this process is killed from now on, an empty directory is all that the
    /// launcher has to remove.
    pub fn settled(&self) {
        for name in [STREAM, INITRAMFS] {
            drop(fs::remove_file(self.dir.path().join(name)));
        }
    }

    /// QEMU makes the socket a moment after it was started.
    async fn connect(&self, stream: &Path) -> Result<UnixStream, Fault> {
        for _ in 0..1000 {
            match UnixStream::connect(stream).await {
                Ok(stream) => return Ok(stream),
                Err(_) if !*self.ended.borrow() => tokio::time::sleep(Duration::from_millis(20)).await,
                Err(_) => break,
            }
        }
        Err(self.fault("it did not start"))
    }

    /// Waits until it has ended.
    pub async fn ended(&self) {
        let mut ended = self.ended.clone();
        // The sender goes only after it has said so.
        let _ = ended.wait_for(|ended| *ended).await;
    }

    /// Lets the launcher end it.
    pub fn stop(&self) {
        lock(&self.lifeline).take();
    }

    /// Whether it has ended.
    pub fn has_ended(&self) -> bool {
        *self.ended.borrow()
    }

    /// What its kernel wrote so far.
    pub fn console(&self) -> MutexGuard<'_, Console> {
        lock(&self.console)
    }

    /// A fault that tells how it is with the guest: its panic, or its last lines, or what QEMU complained of.
    pub fn fault(&self, what: &str) -> Fault {
        let console = self.console();
        let tail = console.tail();
        if let Some(why) = console.panic() {
            let fault = Fault::new(Phase::Host, format!("the kernel panicked: {why}; the console ends with: {tail}"));
            // Seen of Linux 7.2 under QEMU 7.2: "Oops: int3" in code whose patching another processor had not finished.
            return match self.several_emulated {
                true => fault.hint("where QEMU emulates several processors that may be its doing: try `cpus = 1`"),
                false => fault,
            };
        }
        if !tail.is_empty() {
            return Fault::new(Phase::Host, format!("{what}; its console ends with: {tail}"));
        }
        let said = String::from_utf8_lossy(&lock(&self.said)).into_owned();
        if said.contains("unable to find CPU model") {
            return Fault::new(Phase::Host, said).hint(format!("`{} -cpu help` lists what `cpu` can be", program()));
        }
        if !said.trim().is_empty() {
            return Fault::new(Phase::Host, format!("{what}: {said}"));
        }
        Fault::new(Phase::Host, format!("{what}; its console is empty"))
            .hint("a kernel that says nothing may lack the driver of the serial port (CONFIG_SERIAL_8250_CONSOLE)")
    }
}

/// Removes directories in `temporary` of machines whose driver and launcher were both killed, and returns them. One that
/// QEMU listens in is left alone, and so is one of the last minute, in which QEMU may not have begun to.
pub fn sweep(temporary: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(temporary).into_iter().flatten().flatten();
    let stale = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(PREFIX)).filter(|entry| {
        let old = entry.metadata().and_then(|about| about.modified()).ok().and_then(|made| made.elapsed().ok());
        old.is_some_and(|age| age > Duration::from_secs(60))
            && std::os::unix::net::UnixStream::connect(entry.path().join(STREAM)).is_err()
    });
    stale.map(|entry| entry.path()).filter(|dir| fs::remove_dir_all(dir).is_ok()).collect()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the launcher does: QEMU, and the directory removed when QEMU is gone, whoever else still lives.
fn list(machine: &Machine, place: &Place, dir: &Path) -> List {
    let arguments = machine.arguments(place);
    let search = std::env::var("PATH").unwrap_or_else(|_| "/usr/bin:/bin".to_owned());
    let paths: Vec<String> = search.split(':').map(|dir| format!("{dir}/{}", program())).collect();
    let mut environment = vec![format!("PATH={search}")];
    environment.extend(std::env::var("TMPDIR").ok().map(|dir| format!("TMPDIR={dir}")));
    let mut list = List::new();
    list.stage(stage::BEFORE).adopt().stage(stage::INSIDE).setsid().chdir("/").stdin("/dev/null");
    list.exec(&paths, &arguments, &environment);
    list.stage(stage::AFTER).may_be_absent().rmdir(&dir.to_string_lossy());
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine() -> Machine {
        Machine {
            kvm: false,
            cpu: "Haswell,-avx2".into(),
            cpus: 2,
            memory: 512 << 20,
            kernel: "/k".into(),
            initramfs: None,
            cmdline: "quiet vsyscall=none".into(),
            storage: Storage::Nvme,
            disks: vec![
                Disk { file: "/a,b".into(), serial: "root".into(), scratch: true },
                Disk { file: "/c".into(), serial: "image1".into(), scratch: false },
            ],
            stream: Stream::Serial,
        }
    }

    #[test]
    fn directories_of_dead_machines_are_swept_and_those_of_live_ones_are_not() {
        let temporary = tempfile::tempdir().unwrap();
        let make = |name: &str, age: u64| {
            let dir = temporary.path().join(name);
            fs::create_dir(&dir).unwrap();
            fs::write(dir.join(INITRAMFS), "x").unwrap();
            let live =
                (name == "abicus-vm-live").then(|| std::os::unix::net::UnixListener::bind(dir.join(STREAM)).unwrap());
            let made = std::time::SystemTime::now() - Duration::from_secs(age);
            fs::File::open(&dir).unwrap().set_modified(made).unwrap();
            live
        };
        let live = make("abicus-vm-live", 3600);
        let others = [make("abicus-vm-dead", 3600), make("abicus-vm-young", 5), make("other", 3600)];
        assert_eq!(sweep(temporary.path()), [temporary.path().join("abicus-vm-dead")]);
        drop((live, others));
        assert!(["abicus-vm-live", "abicus-vm-young", "other"].iter().all(|name| temporary.path().join(name).exists()));
    }

    #[test]
    fn a_machine_is_what_its_arguments_say() {
        let place = Place { stream: Path::new("/s"), initramfs: None };
        let text = machine().arguments(&place).join(" ");
        for part in [
            "-accel tcg,thread=multi",
            "-cpu Haswell,-avx2 -smp 2 -m 512M",
            "-append quiet vsyscall=none",
            "snapshot=on,file=/a,,b -device nvme,drive=disk0,serial=root",
            "readonly=on,file=/c -device nvme,drive=disk1,serial=image1",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(!text.contains("initrd"));
        let other = Machine { stream: Stream::Virtio, storage: Storage::Virtio, kvm: true, ..machine() };
        let text = other.arguments(&place).join(" ");
        assert!(text.contains("virtserialport") && text.contains("virtio-blk-pci") && text.contains("-accel kvm"));
    }
}

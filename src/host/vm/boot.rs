//! From a declaration to a machine that answers.
//!
//! In: a [`VmSpec`], trees. Out: a [`Running`] machine with every tree mounted, or a fault that ends with what its console
//! said. The steps: kernel and disks from the shelf, room on this machine, QEMU, the agent, mounts.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::sync::OnceCell;

use super::accel::{self, Accelerator};
use super::capacity::{self, Slot};
use super::cpio::Cpio;
use super::daemon::{Daemon, NoDaemon, PATH};
use super::kernel::{self, Boot};
use super::qemu::{Disk, Guest, Machine, Stream};
use super::shelf::Shelf;
use super::{disk, ext4};
use crate::engine::Ended;
use crate::engine::Facts;
use crate::engine::builtin::launch::{Launch, launch};
use crate::engine::builtin::list::{List, stage};
use crate::fault::{Fault, Phase};
use crate::host::agent::{Agent, LastWords};
use crate::host::{Local, Reach, Tree};
use crate::probes;
use crate::spec::{Cgroup, VmSpec};

/// Where trees are mounted in the guest.
const TREES: &str = "/trees";
const MS_RDONLY: u64 = 1;

/// A machine that answers.
pub(super) struct Running {
    pub(super) agent: Agent,
    /// Where which tree is, by digest.
    pub(super) mounted: BTreeMap<String, String>,
    pub(super) facts: Facts,
    guest: Arc<Guest>,
    /// On a disk with engines, from when somebody looked for it.
    docker: Option<OnceCell<Result<Daemon, NoDaemon>>>,
    slot: std::sync::Mutex<Option<Slot>>,
}

impl Running {
    /// Why it is gone, if it is. A kernel that panicked ends QEMU a moment later.
    pub(super) async fn lost(&self) -> Option<Fault> {
        let going = self.guest.console().panic().is_some() || self.guest.has_ended();
        let ended = going || tokio::time::timeout(Duration::from_millis(300), self.guest.ended()).await.is_ok();
        ended.then(|| self.guest.fault("the virtual machine ended"))
    }

    /// Ends it and makes room for the next.
    pub(super) async fn stop(&self) {
        self.guest.stop();
        let _ = tokio::time::timeout(Duration::from_secs(10), self.guest.ended()).await;
        self.slot.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
    }

    /// Has dockerd answer, where there is one.
    pub(super) async fn docker(&self) -> Result<(), Fault> {
        let Some(docker) = &self.docker else { return Ok(()) };
        let started = docker.get_or_init(|| Daemon::start(&self.agent)).await;
        started.as_ref().map(drop).map_err(|none| none.fault.clone())
    }

    /// What its kernel wrote, and what the daemon in it.
    pub(super) fn console(&self) -> Vec<u8> {
        let mut said = self.guest.console().kept();
        if let Some(docker) = self.docker.as_ref().and_then(OnceCell::get) {
            said.extend(b"\n--- dockerd ---\n");
            said.extend(docker.as_ref().map_or_else(|none| none.log.clone(), Daemon::log));
        }
        said
    }
}

/// What is booted, all of it files.
struct Parts {
    boot: Boot,
    disks: Vec<Disk>,
    /// What is to be mounted where, by serial number.
    mounts: Vec<(String, String)>,
    mounted: BTreeMap<String, String>,
    facts: Facts,
    /// Whether one of the disks is the root.
    root: bool,
}

/// Why a machine did not come up, and what its console said, where it had one by then.
pub(super) struct Failed {
    pub(super) fault: Fault,
    pub(super) console: Option<Vec<u8>>,
}

impl From<Fault> for Failed {
    fn from(fault: Fault) -> Self {
        Self { fault, console: None }
    }
}

/// Boots it.
pub(super) async fn up(spec: &VmSpec, cache: &Path, trees: Vec<Tree>) -> Result<Running, Failed> {
    let parts = {
        let (spec, cache) = (spec.clone(), cache.to_owned());
        let made = tokio::task::spawn_blocking(move || parts(&spec, &cache, &trees)).await;
        made.map_err(|e| Fault::new(Phase::Host, format!("making a virtual machine was lost: {e}")))?
    }?;
    let here = Local::at(cache.join("work"));
    let accelerator = accel::find(&here, cache, &parts.boot.kernel, parts.boot.package.is_some()).await?;
    let slot = capacity::room(spec.cpus, spec.memory).await;
    let machine = machine(spec, &parts, &accelerator)?;
    let (guest, stream) = Guest::start(&machine, &here).await?;
    let guest = Arc::new(guest);
    let ready = ready(spec, &guest, stream, &parts).await;
    let (agent, mounted) = ready.map_err(|fault| Failed { fault, console: Some(guest.console().kept()) })?;
    let mut facts = parts.facts;
    facts.extend(accelerator.facts());
    facts.extend(declared(spec));
    let docker = parts.root.then(OnceCell::new);
    Ok(Running { agent, mounted, facts, guest, docker, slot: std::sync::Mutex::new(slot) })
}

/// Of the declaration, what tells two machines apart.
fn declared(spec: &VmSpec) -> Facts {
    let known = [("vm.cpu", &spec.cpu), ("vm.cmdline", &spec.cmdline)];
    known.into_iter().filter(|(_, text)| !text.is_empty()).map(|(name, text)| (name.to_owned(), text.clone())).collect()
}

/// The agent of a guest that was started, and where which tree is.
async fn ready(
    spec: &VmSpec,
    guest: &Arc<Guest>,
    stream: UnixStream,
    parts: &Parts,
) -> Result<(Agent, BTreeMap<String, String>), Fault> {
    let agent = answered(spec, guest, stream).await?;
    guest.settled();
    let mounted = mount(&agent, parts).await.map_err(|fault| match guest.console().panic() {
        Some(_) => guest.fault("the virtual machine ended"),
        None => fault,
    })?;
    Ok((agent, mounted))
}

fn parts(spec: &VmSpec, cache: &Path, trees: &[Tree]) -> Result<Parts, Fault> {
    let shelf = Shelf::at(cache)?;
    let cancel = Arc::new(AtomicBool::new(false));
    let boot = kernel::boot(&shelf, &spec.kernel, &cancel, &|_| {})?;
    let mut facts = boot.facts.clone();
    if let Some(package) = &boot.package {
        // Debian's kernels do not tell their configuration themselves.
        let config = fs::read_to_string(package.dir.join("config")).unwrap_or_default();
        facts.extend(crate::host::facts::options(&config));
    }
    let (mut disks, mut mounts) = (vec![], vec![]);
    if let Some(recipe) = &spec.disk {
        let kept = disk::with_engines(&shelf, recipe, &cancel, &|_| {})?;
        facts.extend(kept.label.facts);
        disks.push(Disk { file: kept.dir.join("disk"), serial: ROOT.to_owned(), scratch: true });
        if let Some(package) = &boot.package {
            let kept = kernel::modules(&shelf, package)?;
            disks.push(Disk { file: kept.dir.join("disk"), serial: "modules".to_owned(), scratch: false });
            mounts.push(("modules".to_owned(), "/lib/modules".to_owned()));
        }
    }
    let mut mounted = BTreeMap::new();
    for tree in trees {
        let kept = ext4::of_tree(&shelf, &tree.path, &tree.digest)?;
        // As long as the number of an NVMe device can be, and as unlike others as it can be.
        let serial = blake3::hash(tree.digest.as_bytes()).to_hex()[..20].to_owned();
        if disks.iter().any(|disk| disk.serial == serial) {
            continue;
        }
        let place = format!("{TREES}/{serial}");
        disks.push(Disk { file: kept.dir.join("disk"), serial: serial.clone(), scratch: false });
        mounts.push((serial, place.clone()));
        mounted.insert(tree.digest.clone(), place);
    }
    Ok(Parts { boot, disks, mounts, mounted, facts, root: spec.disk.is_some() })
}

/// The serial number of the disk that becomes the root.
const ROOT: &str = "root";

fn machine(spec: &VmSpec, parts: &Parts, accelerator: &Accelerator) -> Result<Machine, Fault> {
    // A kernel that is not a package's may lack every driver but the oldest.
    let stream = if parts.boot.package.is_some() { Stream::Virtio } else { Stream::Serial };
    let cgroup = match spec.cgroup {
        Cgroup::V1 => "v1",
        Cgroup::V2 => "v2",
        Cgroup::Hybrid => "hybrid",
    };
    let root = if spec.disk.is_some() { format!(" abicus.root={ROOT}") } else { String::new() };
    // A guest without KVM on a busy machine misses ticks of the timer the kernel tests at boot, which then gives up: "IO-APIC +
    // timer doesn't work". KVM guests skip that test themselves: arch/x86/kernel/apic/io_apic.c.
    let timer = if std::env::consts::ARCH == "x86_64" { "no_timer_check " } else { "" };
    // What the user wrote comes last, and so wins.
    let cmdline = format!(
        "console=ttyS0 panic=-1 {timer}abicus.device={} abicus.cgroup={cgroup}{root} {}",
        stream.device(),
        spec.cmdline
    );
    Ok(Machine {
        kvm: accelerator.kvm,
        cpu: spec.cpu.clone(),
        cpus: spec.cpus,
        memory: spec.memory,
        kernel: parts.boot.kernel.clone(),
        initramfs: Some(initramfs(&parts.boot.modules)?),
        cmdline: cmdline.trim().to_owned(),
        storage: spec.storage,
        disks: parts.disks.clone(),
        stream,
    })
}

/// The agent as the first program, and the modules it loads.
fn initramfs(modules: &[PathBuf]) -> Result<Vec<u8>, Fault> {
    let mut archive = Cpio::default();
    archive.dir("dev", 0o755).node("dev/console", 0o600, (5, 1)).file("init", 0o755, probes::LAUNCH);
    let mut seed = [0; 256];
    if fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut seed)).is_ok() {
        archive.file("seed", 0o600, &seed);
    }
    let mut order = String::new();
    for path in modules {
        let bytes = fs::read(path).map_err(|e| Fault::new(Phase::Host, format!("{}: {e}", path.display())))?;
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        if order.is_empty() {
            archive.dir("modules", 0o755);
        }
        archive.file(&format!("modules/{name}"), 0o644, &bytes);
        order += &format!("{name}\n");
    }
    if !order.is_empty() {
        archive.file("modules/order", 0o644, order.as_bytes());
    }
    Ok(archive.finish())
}

/// Waits for the agent's first word, or for a sign that there will be none.
async fn answered(spec: &VmSpec, guest: &Arc<Guest>, stream: UnixStream) -> Result<Agent, Fault> {
    let words = guest.clone();
    let last_words: LastWords = Arc::new(move || Some(words.fault("the virtual machine does not answer").cause));
    let patience = spec.deadline;
    let greeting = async {
        stream.readable().await.map_err(|e| e.to_string())?;
        let (reader, writer) = stream.into_split();
        let agent = Agent::connect("the virtual machine", Box::new(reader), Box::new(writer), last_words).await;
        agent.map_err(|fault| fault.cause)
    };
    let why = tokio::select! {
        answer = greeting => match answer {
            Ok(agent) => return Ok(agent),
            // A stream that breaks tells less than the console, which may have more to say.
            Err(why) => {
                let _ = tokio::time::timeout(Duration::from_secs(2), guest.ended()).await;
                return Err(match guest.has_ended() {
                    true => guest.fault("the virtual machine ended before it answered"),
                    false => Fault::new(Phase::Host, why),
                });
            }
        },
        () = guest.ended() => "the virtual machine ended before it answered".to_owned(),
        () = tokio::time::sleep(patience) => {
            format!("the virtual machine did not answer within {} s", patience.as_secs())
        }
    };
    Err(guest.fault(&why))
}

/// Mounts every disk where it belongs, and says where which tree is. Devices come in any order, and not all at once. A kernel
/// without a driver for them has its trees sent over the stream.
async fn mount(agent: &Agent, parts: &Parts) -> Result<BTreeMap<String, String>, Fault> {
    let known = crate::host::text(agent, "/proc/filesystems").await;
    let ext4 = known.lines().any(|line| line.trim() == "ext4");
    let mut devices = BTreeMap::new();
    for tries in 0..100 {
        devices = serials(agent).await;
        let all = parts.mounts.iter().all(|(serial, _)| devices.contains_key(serial));
        if all || !ext4 || (tries >= 20 && devices.is_empty()) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let mut list = List::new();
    list.stage(stage::BEFORE).mkdirs(TREES);
    let mut mounted = parts.mounted.clone();
    for (serial, place) in &parts.mounts {
        match devices.get(serial).filter(|_| ext4) {
            Some(device) => {
                list.mkdirs(place).mount(&format!("/dev/{device}"), place, "ext4", MS_RDONLY, "noload");
            }
            None if parts.root => {
                return Err(Fault::new(Phase::Host, format!("the kernel shows no disk with the serial number {serial}"))
                    .hint("it needs drivers for NVMe and for ext4 (CONFIG_BLK_DEV_NVME, CONFIG_EXT4_FS), or `storage = \"virtio\"` and CONFIG_VIRTIO_BLK"));
            }
            None => mounted.retain(|_, there| there != place),
        }
    }
    list.stage(stage::INSIDE).stdin("/dev/null");
    let fine = match parts.root {
        false => {
            let launcher = agent.site().await?.launcher;
            // A list executes something: the launcher itself says how it is used and ends with 2.
            list.exec(std::slice::from_ref(&launcher), std::slice::from_ref(&launcher), &[]);
            2
        }
        true => {
            let argv = ["busybox", "sh", "-c", PREPARE].map(str::to_owned);
            list.exec(&["/bin/busybox", "/usr/bin/busybox"].map(str::to_owned), &argv, &[PATH.to_owned()]);
            0
        }
    };
    let job = Launch { reach: agent, list: &list, deadline: Duration::from_secs(60), cap: 4096 };
    let attempt = launch(&job).await.0;
    match attempt.ended {
        Ok(Ended::Exit(status)) if status == fine => Ok(mounted),
        Ok(other) => {
            let said = String::from_utf8_lossy(&attempt.stderr).into_owned();
            Err(Fault::new(Phase::Host, format!("making the guest ready ended with {other:?}: {said}")))
        }
        Err(fault) => Err(Fault { phase: Phase::Host, ..fault }),
    }
}

/// What an init would do on a disk with engines.
const PREPARE: &str = "set -e
    busybox mount -t tmpfs -o mode=755,nosuid,nodev tmpfs /run
    mkdir -p /run/lock /etc /root
    printf '127.0.0.1 localhost\\n::1 localhost\\n' >/etc/hosts
    echo abicus >/etc/hostname; busybox hostname abicus
    mkdir -p /etc/containerd
    printf 'version = 2\\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\\n' >/etc/containerd/config.toml
    busybox mount --make-rshared /";

/// Block devices by serial number: NVMe says it of its controller, virtio of its disk.
async fn serials(agent: &Agent) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for (name, _) in agent.list("/sys/block").await.unwrap_or_default() {
        for path in [format!("/sys/block/{name}/device/serial"), format!("/sys/block/{name}/serial")] {
            if let Ok(text) = agent.read(&path, 64).await {
                found.insert(String::from_utf8_lossy(&text).trim().to_owned(), name.clone());
            }
        }
    }
    found
}

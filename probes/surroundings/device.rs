//! Device nodes, open and usable.
//!
//! Goes in: nothing. Comes out: answers. Must not know: which answers are good.

use core::ffi::CStr;

use super::look::*;
use super::proc::reopened;
use super::said::*;
use crate::asking::{Fd, Map, ask, stat};
use crate::rt::consts::*;
use crate::rt::nr;
use crate::rt::sys;
use crate::rt::text::number;

asked![
    Batch "dev.null.discard" => null,
    Batch "dev.null.node" => null_node,
    Batch "dev.zero.read" => zero,
    Batch "dev.zero.map" => zero_map,
    Batch "dev.full.full" => full,
    Batch "dev.random.read" => || random(c"/dev/random"),
    Batch "dev.urandom.read" => || random(c"/dev/urandom"),
    Batch "dev.tty.open" => tty,
    Batch "dev.ptmx.pair" => pty_by_name,
    Batch "dev.ptmx.peer" => pty_by_peer,
    Batch "dev.shm.file" => shm,
    Batch "dev.shm.execute" => shm_execute,
    Batch "dev.fd.reopen" => || reopened(b"/dev/fd/"),
    Batch "dev.stdout.open" => stdout,
    Batch "dev.node.make" => make_node,
    Batch "dev.kvm" => kvm,
];

/// Rows of `table.rs`.
pub const ROWS: &str = r"
dev.console kind /dev/console
dev.pts.mounted mounted /dev/pts 1cd1
dev.shm.mounted mounted /dev/shm 1021994
dev.mqueue.mounted mounted /dev/mqueue 19800202
dev.hugepages.mounted mounted /dev/hugepages 958458f6
dev.stdin.link leads /dev/stdin /proc/self/fd/0
dev.stdout.link leads /dev/stdout /proc/self/fd/1
dev.stderr.link leads /dev/stderr /proc/self/fd/2
dev.core.link leads /dev/core /proc/kcore
dev.log kind /dev/log
dev.autofs kind /dev/autofs
dev.bus_usb kind /dev/bus/usb
dev.cpu_msr kind /dev/cpu/0/msr
dev.cuse device /dev/cuse
dev.dma_heap kind /dev/dma_heap
dev.dri kind /dev/dri
dev.fb0 kind /dev/fb0
dev.fuse device /dev/fuse
dev.hwrng device /dev/hwrng
dev.infiniband kind /dev/infiniband
dev.input kind /dev/input
dev.kfd kind /dev/kfd
dev.kmsg device /dev/kmsg
dev.loop_control device /dev/loop-control
dev.loop0 kind /dev/loop0
dev.mapper device /dev/mapper/control
dev.mem kind /dev/mem
dev.nvidia kind /dev/nvidiactl
dev.ppp device /dev/ppp
dev.rtc kind /dev/rtc0
dev.serial kind /dev/ttyS0
dev.snd kind /dev/snd
dev.tpm kind /dev/tpmrm0
dev.tun device /dev/net/tun
dev.udmabuf device /dev/udmabuf
dev.uinput device /dev/uinput
dev.userfaultfd device /dev/userfaultfd
dev.vfio kind /dev/vfio/vfio
dev.vhost_net device /dev/vhost-net
dev.vhost_vsock device /dev/vhost-vsock
dev.video0 kind /dev/video0
dev.vsock device /dev/vsock
";

#[inline(never)]
fn open(path: &CStr, flags: i32) -> Result<Fd, i32> {
    sys::open(path, flags | O_NOCTTY, 0).map(Fd)
}

/// null(4): takes everything, gives nothing.
fn null() -> Does {
    let fd = open(c"/dev/null", O_RDWR)?;
    let (written, read) = (sys::write(fd.0, b"abicus"), sys::read(fd.0, &mut [0; 8]));
    same("bytes written", written.at("write")?, 6)?;
    same("bytes read", read.at("read")?, 0)
}

/// A character device that everybody may write to, and not a file somebody put in its place.
fn null_node() -> Does {
    let mode = stat(AT_FDCWD, c"/dev/null")?.mode;
    if mode == 0o020666 { Ok(()) } else { Err(value(format_args!("mode {mode:o}"))) }
}

fn zero() -> Does {
    let (fd, mut room) = (open(c"/dev/zero", O_RDONLY)?, [1u8; 64]);
    same("bytes read", sys::read(fd.0, &mut room).at("read")?, 64)?;
    holds("not zero", room == [0; 64])
}

/// Private memory of old: a private mapping of /dev/zero.
fn zero_map() -> Does {
    let fd = open(c"/dev/zero", O_RDWR)?;
    let page = Map::file(fd.0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE)?;
    same("byte", usize::from(page.get(7)), 0)?;
    page.set(7, 42);
    same("byte written", usize::from(page.get(7)), 42)
}

/// full(4): a disk without room.
fn full() -> Does {
    let fd = open(c"/dev/full", O_RDWR)?;
    match sys::write(fd.0, b"abicus") {
        Err(ENOSPC) => Ok(()),
        Err(errno) => Err(errno).at("write"),
        Ok(_) => Err(word("not refused")),
    }
}

#[inline(never)]
fn random(path: &CStr) -> Does {
    let (fd, mut one, mut other) = (open(path, O_RDONLY | O_NONBLOCK)?, [0u8; 16], [0u8; 16]);
    same("bytes read", sys::read(fd.0, &mut one).at("read")?, 16)?;
    same("bytes read again", sys::read(fd.0, &mut other).at("read again")?, 16)?;
    holds("the same twice", one != other)
}

fn tty() -> Does {
    open(c"/dev/tty", O_RDWR | O_NONBLOCK)?;
    Ok(())
}

const TIOCSPTLCK: usize = 0x4004_5431;
const TIOCGPTN: usize = 0x8004_5430;
const TIOCGPTPEER: usize = 0x5441;

/// A line written at one end of a terminal and read at the other.
fn line_passes(master: &Fd, slave: &Fd) -> Does {
    sys::write(master.0, b"abicus\n").at("write")?;
    let mut room = [0; 16];
    let n = sys::read(slave.0, &mut room).at("read")?;
    holds("another line arrived", &room[..n.min(16)] == b"abicus\n")
}

fn master() -> Result<Fd, No> {
    let (master, unlock) = (open(c"/dev/ptmx", O_RDWR | O_NONBLOCK)?, [0i32]);
    ask!(nr::IOCTL, master.0, TIOCSPTLCK, &unlock).at("unlockpt")?;
    Ok(master)
}

/// As openpty(3): by the name that ptsname(3) makes up.
fn pty_by_name() -> Does {
    let (master, mut number) = (master()?, [0i32]);
    ask!(nr::IOCTL, master.0, TIOCGPTN, &mut number).at("ptsname")?;
    let name = Words::format(format_args!("/dev/pts/{}", number[0]));
    let slave = open(Path::of(&[name.bytes()]).c(), O_RDWR | O_NONBLOCK).at("open by name")?;
    line_passes(&master, &slave)
}

/// As openpty(3) since glibc 2.28 tries first, and as programs that run where /dev/pts is another one's.
fn pty_by_peer() -> Does {
    let master = master()?;
    let slave = Fd::of(ask!(nr::IOCTL, master.0, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_NONBLOCK)).at("TIOCGPTPEER")?;
    line_passes(&master, &slave)
}

/// A file in `dir` that nobody else has, and that has no name any more.
fn unnamed(dir: &[u8]) -> Result<Fd, No> {
    let path = Path::of(&[dir, b"/.abicus-", super::proc::pid().bytes()]);
    let _ = sys::unlink(path.c());
    let fd = Fd(sys::open(path.c(), O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW, 0o600)?);
    sys::unlink(path.c()).at("unlink")?;
    ask!(nr::FTRUNCATE, fd.0, 4096).at("ftruncate")?;
    Ok(fd)
}

/// As shm_open(3): a file that two mappings share.
fn shm() -> Does {
    let fd = unnamed(b"/dev/shm")?;
    let one = Map::file(fd.0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED)?;
    let other = Map::file(fd.0, 4096, PROT_READ, MAP_SHARED)?;
    one.set(5, 42);
    same("byte in the other mapping", usize::from(other.get(5)), 42)
}

fn shm_execute() -> Does {
    let fd = unnamed(b"/dev/shm")?;
    ask!(nr::MMAP, 0, 4096, PROT_READ | PROT_EXEC, MAP_SHARED, fd.0, 0)
        .map(|at| Map { at: at as *mut u8, len: 4096 })?;
    Ok(())
}

/// Standard output opened once more by name, as images do whose server logs to a file that is a link to it.
fn stdout() -> Does {
    if stat(1, c"").is_err() {
        return Err(not_asked("standard output is closed"));
    }
    open(c"/dev/stdout", O_WRONLY | O_APPEND | O_NONBLOCK)?;
    Ok(())
}

/// mknod(2) of a null device, as bootstrapping a distribution does. Gone at once. A scratch image has no /tmp.
fn make_node() -> Does {
    let dir: &[u8] = if followed(c"/tmp").is_ok() { b"/tmp" } else { b"" };
    let path = Path::of(&[dir, b"/.abicus-", super::proc::pid().bytes()]);
    let made = ask!(nr::MKNODAT, AT_FDCWD, sys::path(path.c()), 0o020600, 0x103);
    let opened = open(path.c(), O_RDWR);
    let _ = sys::unlink(path.c());
    made?;
    opened.at("open")?;
    Ok(())
}

/// What is there, without opening it: opening may load a module, claim the device or start it.
#[inline(never)]
pub fn kind(path: &CStr) -> Does {
    Err(word(match followed(path)?.mode & 0o170000 {
        0o020000 => "character device",
        0o060000 => "block device",
        0o040000 => "directory",
        0o140000 => "socket",
        0o010000 => "pipe",
        _ => "file",
    }))
}

/// The device number of what is there; its driver is registered, so that opening it loads no module.
#[inline(never)]
fn registered(path: &CStr) -> Result<(), No> {
    let mut s = [0u64; 18];
    ask!(nr::NEWFSTATAT, AT_FDCWD, sys::path(path), &mut s, 0)?;
    let (mode, device) = if cfg!(target_arch = "x86_64") { (s[3] as u32, s[5]) } else { (s[2] as u32, s[4]) };
    holds("no character device", mode & 0o170000 == 0o020000)?;
    let (major, minor) = (device >> 8 & 0xfff, device & 0xff | device >> 12 & 0xfff00);
    let name = Words::format(format_args!("/sys/dev/char/{major}:{minor}"));
    // Major 1 is the memory devices, which are always there.
    if major == 1 || sys::open(Path::of(&[name.bytes()]).c(), O_PATH, 0).map(Fd).is_ok() {
        return Ok(());
    }
    let mut found = false;
    let _ = lines(c"/proc/misc", &mut |line| {
        found = major == 10 && number(line, 10) == Some(minor);
        !found
    });
    holds("no driver loaded", found)
}

#[inline(never)]
fn opened(path: &CStr) -> Result<Fd, No> {
    registered(path)?;
    Ok(open(path, O_RDWR | O_NONBLOCK).or_else(|errno| match errno {
        EACCES | EPERM | EROFS | EINVAL => open(path, O_RDONLY | O_NONBLOCK).map_err(|_| errno),
        _ => Err(errno),
    })?)
}

/// It opens. Nothing is done with it.
#[inline(never)]
pub fn device(path: &CStr) -> Does {
    opened(path)?;
    Ok(())
}

/// KVM_GET_API_VERSION has answered 12 since 2007.
fn kvm() -> Does {
    let fd = opened(c"/dev/kvm")?;
    same("KVM_GET_API_VERSION", ask!(nr::IOCTL, fd.0, 0xae00, 0).at("ioctl")?, 12)
}

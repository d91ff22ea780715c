//! The agent as the first process of a virtual machine, whose only file is this program.
//!
//! Goes in: an initramfs, and words of the kernel's command line. Comes out: a machine with proc, sys, dev and control
//! groups, whose root is a tmpfs (the initramfs itself cannot be left by `pivot_root`), and the agent on a device; the power
//! goes off when the agent ends.
//!
//! | word | what it does |
//! |---|---|
//! | `abicus.device=/dev/vport0p1` | where the driver is; a device that is not there yet is waited for |
//! | `abicus.cgroup=v1`, `v2`, `hybrid`, `none` | which control groups are mounted; `v2` where it is not said |
//! | `abicus.root=SERIAL` | the root is the ext4 disk with this serial number, instead of a tmpfs |
//!
//! What is in `/seed` counts as randomness. Modules named in `/modules/order`, one file name below `/modules` a line, are loaded first.

use core::ffi::CStr;

use super::channel::{text, there};
use crate::rt::consts::*;
use crate::rt::nr;
use crate::rt::sys::{self, Answer, call, path};
use crate::rt::text::Text;

const DIR: &CStr = c"/abicus";
const NEW: &CStr = c"/new";
const MS_MOVE: u64 = 8192;
const MS_QUIET: u64 = 2 | 4 | 8; // nosuid, nodev, noexec

/// Never returns: a first process that ends is a kernel panic.
pub fn main() -> ! {
    boot();
    let mut line = [0; 4096];
    let line = sys::read_file(c"/proc/cmdline", &mut line).unwrap_or(&[]);
    control_groups(word(line, b"abicus.cgroup=").unwrap_or(b"v2"));
    let mut room = [0; 4096];
    let device = word(line, b"abicus.device=").and_then(|name| text(name, &mut room).ok());
    match device {
        Some(device) => {
            for _ in 0..1000 {
                if there(device) {
                    break;
                }
                sys::sleep_ms(10);
            }
            let _ = super::run(DIR, Some(device));
        }
        None => say("abicus: no abicus.device= on the kernel's command line\n"),
    }
    power_off()
}

fn say(line: &str) {
    let _ = sys::write(2, line.as_bytes());
}

fn power_off() -> ! {
    const MAGIC: [usize; 2] = [0xfee1_dead, 672_274_793];
    const POWER_OFF: usize = 0x4321_fedc;
    const RESTART: usize = 0x0123_4567;
    // SAFETY: take no address.
    unsafe {
        let _ = call!(nr::SYNC);
        let _ = call!(nr::REBOOT, MAGIC[0], MAGIC[1], POWER_OFF, 0);
        // A machine without a way to switch itself off.
        let _ = call!(nr::REBOOT, MAGIC[0], MAGIC[1], RESTART, 0);
    }
    loop {
        sys::sleep_ms(1000);
    }
}

fn mount(source: &CStr, target: &CStr, kind: &CStr, flags: u64, data: &CStr) -> Answer<()> {
    let _ = sys::mkdir(target, 0o755);
    // SAFETY: C strings that outlive the call.
    unsafe { call!(nr::MOUNT, path(source), path(target), path(kind), flags, path(data)) }.map(drop)
}

fn boot() {
    let _ = mount(c"proc", c"/proc", c"proc", MS_QUIET, c"");
    let _ = mount(c"sysfs", c"/sys", c"sysfs", MS_QUIET, c"");
    let _ = mount(c"devtmpfs", c"/dev", c"devtmpfs", 2, c"mode=755");
    devices();
    standard_descriptors();
    seed();
    load_modules();
    let mut line = [0; 4096];
    let line = sys::read_file(c"/proc/cmdline", &mut line).unwrap_or(&[]);
    let mounted = match word(line, b"abicus.root=") {
        Some(serial) => root_disk(serial),
        None => mount(c"tmpfs", NEW, c"tmpfs", 0, c"mode=755"),
    };
    if mounted.is_err() {
        return say("abicus: the root could not be mounted\n");
    }
    // Where engines see it they want to load a profile: without the program that does, no container would start.
    if super::channel::there(c"/new/sbin/apparmor_parser") {
        let _ = mount(c"securityfs", c"/sys/kernel/security", c"securityfs", MS_QUIET, c"");
    }
    let _ = sys::mkdir(c"/new/tmp", 0o777);
    // SAFETY: a C string that outlives the call. A umask took the sticky bit's neighbours away.
    let _ = unsafe { call!(nr::FCHMODAT, AT_FDCWD, path(c"/new/tmp"), 0o1777) };
    let _ = sys::mkdir(c"/new/abicus", 0o700);
    // Before proc has moved, which says where this program is.
    if let Ok(dir) = sys::open(c"/new/abicus", O_RDONLY | O_DIRECTORY, 0) {
        let _ = copy_self(dir, c"launch");
        let _ = sys::close(dir);
    }
    for (from, to) in [(c"/proc", c"/new/proc"), (c"/sys", c"/new/sys"), (c"/dev", c"/new/dev")] {
        if mount(from, to, c"", MS_MOVE, c"").is_err() {
            say("abicus: could not move a mount\n");
        }
    }
    let _ = super::tree::remove(AT_FDCWD, c"/modules");
    // SAFETY: C strings that outlive the calls.
    unsafe {
        let _ = call!(nr::CHDIR, path(NEW));
        let _ = call!(nr::MOUNT, path(c"."), path(c"/"), 0, MS_MOVE, 0);
        let _ = call!(nr::CHROOT, path(c"."));
        let _ = call!(nr::CHDIR, path(c"/"));
    }
}

/// The disk with a serial number, which NVMe says of its controller and virtio of its disk. Disks appear in any order, and
/// not all at once.
fn root_disk(serial: &[u8]) -> Answer<()> {
    const PLACES: [(&str, &str, &str); 2] = [("nvme", "n1", "/device/serial"), ("vd", "", "/serial")];
    for _ in 0..1000 {
        for (kind, end, file) in PLACES {
            for number in 0..26u8 {
                let mut name = Text::<16>::of(kind.as_bytes());
                match kind {
                    "vd" => name.add(&[b'a' + number]),
                    _ => name.add(crate::rt::text::decimal(i64::from(number), &mut [0; 20])),
                };
                name.add(end.as_bytes());
                let mut about = Text::<64>::of(b"/sys/block/");
                about.add(name.bytes()).add(file.as_bytes()).add(b"\0");
                let mut device = Text::<64>::of(b"/dev/");
                device.add(name.bytes()).add(b"\0");
                let (Ok(about), Ok(device)) =
                    (CStr::from_bytes_with_nul(about.bytes()), CStr::from_bytes_with_nul(device.bytes()))
                else {
                    continue;
                };
                let mut room = [0; 64];
                if sys::read_file(about, &mut room).is_ok_and(|text| text.trim_ascii() == serial) {
                    return mount(device, NEW, c"ext4", 0, c"noinit_itable");
                }
            }
        }
        sys::sleep_ms(10);
    }
    Err(ENOENT)
}

/// What udev and systemd make on other machines.
fn devices() {
    let _ = mount(c"devpts", c"/dev/pts", c"devpts", 2 | 8, c"gid=5,mode=620,ptmxmode=666");
    let _ = mount(c"tmpfs", c"/dev/shm", c"tmpfs", 2 | 4, c"mode=1777");
    let _ = mount(c"mqueue", c"/dev/mqueue", c"mqueue", MS_QUIET, c"");
    for (text, name) in [
        (c"/proc/self/fd", c"/dev/fd"),
        (c"/proc/self/fd/0", c"/dev/stdin"),
        (c"/proc/self/fd/1", c"/dev/stdout"),
        (c"/proc/self/fd/2", c"/dev/stderr"),
    ] {
        // SAFETY: C strings that outlive the call.
        let _ = unsafe { call!(nr::SYMLINKAT, path(text), AT_FDCWD, path(name)) };
    }
    let _ = crate::cell::loopback();
}

/// A machine that has just been made has no randomness of its own, and old kernels wait for some: the driver's will do.
fn seed() {
    #[repr(C)]
    struct Entropy {
        bits: i32,
        size: i32,
        bytes: [u8; 256],
    }
    const RNDADDENTROPY: usize = 0x4008_5203;
    let mut entropy = Entropy { bits: 0, size: 0, bytes: [0; 256] };
    let Ok(bytes) = sys::read_file(c"/seed", &mut entropy.bytes).map(|bytes| bytes.len() as i32) else { return };
    (entropy.bits, entropy.size) = (bytes * 8, bytes);
    if let Ok(fd) = sys::open(c"/dev/random", O_WRONLY, 0) {
        // SAFETY: a struct rand_pool_info with its buffer, read only.
        let _ = unsafe { call!(nr::IOCTL, fd, RNDADDENTROPY, &entropy) };
        let _ = sys::close(fd);
    }
}

/// No descriptor of a channel may be 0, 1 or 2; the kernel opens them where the initramfs has a console.
fn standard_descriptors() {
    while let Ok(fd) = sys::open(c"/dev/console", O_RDWR | O_NOCTTY, 0) {
        if fd > 2 {
            let _ = sys::close(fd);
            return;
        }
        // SAFETY: takes no address: a cell's output may be this one's.
        let _ = unsafe { call!(nr::FCNTL, fd, 2, 0) };
    }
}

fn load_modules() {
    let mut room = [0; 16384];
    let Ok(order) = sys::read_file(c"/modules/order", &mut room) else { return };
    for name in order.split(|b| *b == b'\n').filter(|name| !name.is_empty()) {
        let mut full = Text::<300>::of(b"/modules/");
        full.add(name).add(b"\0");
        let Ok(name) = CStr::from_bytes_with_nul(full.bytes()) else { continue };
        let loaded = sys::open(name, O_RDONLY, 0).and_then(|fd| {
            // Linux 5.17 unpacks modules itself where it was built to, if it is told to.
            const COMPRESSED: usize = 4;
            let flags = if name.to_bytes().ends_with(b".ko") { 0 } else { COMPRESSED };
            // SAFETY: C strings that outlive the call.
            let loaded = unsafe { call!(nr::FINIT_MODULE, fd, path(c""), flags) };
            let _ = sys::close(fd);
            loaded
        });
        if !matches!(loaded, Ok(_) | Err(EEXIST)) {
            crate::tell::bytes(2, b"abicus: could not load ");
            crate::tell::bytes(2, name.to_bytes());
            crate::tell::line(2, format_args!(": errno {}\n", loaded.err().unwrap_or(0)));
        }
    }
}

/// The value of the last word of this name.
fn word<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    line.split(|b| b.is_ascii_whitespace()).rev().find_map(|word| word.strip_prefix(name))
}

fn control_groups(version: &[u8]) {
    match version {
        b"none" => {}
        b"v1" | b"hybrid" => {
            let _ = mount(c"tmpfs", c"/sys/fs/cgroup", c"tmpfs", MS_QUIET, c"mode=755");
            for (name, at) in [
                (c"memory", c"/sys/fs/cgroup/memory"),
                (c"pids", c"/sys/fs/cgroup/pids"),
                (c"cpu,cpuacct", c"/sys/fs/cgroup/cpu,cpuacct"),
                (c"cpuset", c"/sys/fs/cgroup/cpuset"),
                (c"devices", c"/sys/fs/cgroup/devices"),
                (c"freezer", c"/sys/fs/cgroup/freezer"),
                (c"blkio", c"/sys/fs/cgroup/blkio"),
            ] {
                let _ = mount(c"cgroup", at, c"cgroup", MS_QUIET, name);
            }
            if version == b"hybrid" {
                let _ = mount(c"cgroup2", c"/sys/fs/cgroup/unified", c"cgroup2", MS_QUIET, c"");
            }
        }
        _ => {
            let _ = mount(c"cgroup2", c"/sys/fs/cgroup", c"cgroup2", MS_QUIET, c"");
        }
    }
}

/// A device, raw where it is a terminal, which a serial port is.
pub fn open_device(name: &CStr) -> Answer<i32> {
    #[repr(C)]
    struct Termios {
        input: u32,
        output: u32,
        control: u32,
        local: u32,
        line: u8,
        characters: [u8; 19],
    }
    const TCGETS: usize = 0x5401;
    const TCSETS: usize = 0x5402;
    const CS8_CREAD_CLOCAL: u32 = 0o60 | 0o200 | 0o4000;
    const VTIME: usize = 5;
    const VMIN: usize = 6;
    let fd = sys::open(name, O_RDWR | O_NOCTTY, 0)?;
    let mut state = Termios { input: 0, output: 0, control: 0, local: 0, line: 0, characters: [0; 19] };
    // SAFETY: a struct termios of the kernel's layout, written and then read.
    unsafe {
        if call!(nr::IOCTL, fd, TCGETS, &mut state).is_ok() {
            (state.input, state.output, state.local) = (0, 0, 0);
            state.control |= CS8_CREAD_CLOCAL;
            (state.characters[VMIN], state.characters[VTIME]) = (1, 0);
            call!(nr::IOCTL, fd, TCSETS, &state)?;
        }
    }
    Ok(fd)
}

/// This program as a file of a directory, where it is not one already.
pub fn copy_self(dir: i32, name: &CStr) -> Answer<()> {
    let to = match sys::open_at(dir, name, O_WRONLY | O_CREAT | O_EXCL, 0o755) {
        Err(EEXIST) => return Ok(()),
        other => other?,
    };
    let from = sys::open(c"/proc/self/exe", O_RDONLY, 0);
    let mut room = [0; 16384];
    let copied = loop {
        let Ok(from) = from else { break from.map(drop) };
        match sys::read(from, &mut room) {
            Ok(0) => break Ok(()),
            Ok(n) if sys::write(to, &room[..n]) == Ok(n) => {}
            Ok(_) => break Err(ENOSPC),
            Err(errno) => break Err(errno),
        }
    };
    let _ = from.map(sys::close);
    let _ = sys::close(to);
    copied
}

//! /proc as images expect it: there, of this pid namespace, readable, true; and what engines mask of it.
//!
//! Goes in: nothing. Comes out: answers. Must not know: which answers are good.

use super::look::*;
use super::said::*;
use crate::asking::{Fd, Map, ask, memfd};
use crate::rt::consts::*;
use crate::rt::nr;
use crate::rt::sys;
use crate::rt::text::number;

asked![
    Batch "proc.pids.listed" => || lists(c"/proc", pid().bytes()),
    Batch "proc.pid1.root" => || link(c"/proc/1/root").map(|_| ()).map_err(No::from),
    Batch "proc.self.link" => || holds("the pid of another namespace", link(c"/proc/self")?.bytes() == pid().bytes()),
    Batch "proc.self.auxv" => auxv,
    Own "proc.self.comm" => comm,
    Batch "proc.self.fd.list" => fd_list,
    Batch "proc.self.fd.reopen" => || reopened(b"/proc/self/fd/"),
    Batch "proc.self.mem" => mem,
    Batch "proc.self.mountinfo" => || has(c"/proc/self/mountinfo", "mount of /", &mut |line| fields(line, 4) == b"/"),
    Batch "proc.self.mounts" => || has(c"/proc/mounts", "mount of /", &mut |line| fields(line, 1) == b"/"),
    Batch "proc.self.pagemap" => pagemap,
    Batch "proc.self.stat" => stat_of_self,
    Batch "proc.self.statm" => statm,
    Batch "proc.self.task" => || lists(c"/proc/self/task", pid().bytes()),
    Batch "proc.cpuinfo.count" => cpu_count,
    Batch "proc.loadavg" => loadavg,
    Batch "proc.meminfo.total" => memory_total,
    Batch "proc.random.boot_id" => boot_id,
    Batch "proc.random.uuid" => uuid,
    Batch "proc.uptime" => uptime,
    Batch "proc.version" => version,
    Batch "proc.kallsyms" => kallsyms,
];

/// Rows of `table.rs`.
pub const ROWS: &str = r"
proc.mounted mounted /proc 9fa0
proc.pid1.visible starts /proc/1/stat 1 (
proc.self.cmdline reads /proc/self/cmdline
proc.self.coredump_filter says /proc/self/coredump_filter
proc.self.cwd link /proc/self/cwd
proc.self.environ opens /proc/self/environ
proc.self.exe link /proc/self/exe
proc.self.fdinfo starts /proc/self/fdinfo/1 flags:
proc.self.io starts /proc/self/io rchar:
proc.self.loginuid says /proc/self/loginuid
proc.self.maps has /proc/self/maps [stack]
proc.self.numa_maps has /proc/self/numa_maps stack
proc.self.personality says /proc/self/personality
proc.self.root link /proc/self/root
proc.self.schedstat reads /proc/self/schedstat
proc.self.smaps starts /proc/self/smaps Pss:
proc.self.smaps_rollup starts /proc/self/smaps_rollup Pss:
proc.self.status starts /proc/self/status VmRSS:
proc.self.timerslack says /proc/self/timerslack_ns
proc.self.wchan opens /proc/self/wchan
proc.thread_self reads /proc/thread-self/stat
proc.buddyinfo reads /proc/buddyinfo
proc.cgroups has /proc/cgroups subsys_name
proc.cmdline opens /proc/cmdline
proc.config reads /proc/config.gz
proc.cpuinfo.present starts /proc/cpuinfo processor
proc.crypto starts /proc/crypto name
proc.devices starts /proc/devices Character devices:
proc.diskstats opens /proc/diskstats
proc.filesystems has /proc/filesystems proc
proc.meminfo.available starts /proc/meminfo MemAvailable:
proc.misc opens /proc/misc
proc.net.dev has /proc/net/dev lo:
proc.net.if_inet6 opens /proc/net/if_inet6
proc.net.route starts /proc/net/route Iface
proc.net.snmp starts /proc/net/snmp Tcp:
proc.net.tcp has /proc/net/tcp local_address
proc.net.unix starts /proc/net/unix Num
proc.partitions opens /proc/partitions
proc.pressure starts /proc/pressure/memory some avg10=
proc.random.entropy says /proc/sys/kernel/random/entropy_avail
proc.slabinfo starts /proc/slabinfo slabinfo
proc.softirqs has /proc/softirqs TIMER:
proc.stat starts /proc/stat cpu 
proc.stat.btime starts /proc/stat btime 
proc.swaps starts /proc/swaps Filename
proc.sysvipc has /proc/sysvipc/shm shmid
proc.vmstat starts /proc/vmstat pgfault 
proc.zoneinfo starts /proc/zoneinfo Node
proc.acpi masked /proc/acpi
proc.asound masked /proc/asound
proc.bus masked /proc/bus
proc.interrupts masked /proc/interrupts
proc.iomem masked /proc/iomem
proc.kcore masked /proc/kcore
proc.keys masked /proc/keys
proc.key_users masked /proc/key-users
proc.kmsg hidden /proc/kmsg
proc.kpagecount hidden /proc/kpagecount
proc.latency_stats masked /proc/latency_stats
proc.modules masked /proc/modules
proc.sched_debug masked /proc/sched_debug
proc.scsi masked /proc/scsi
proc.timer_list masked /proc/timer_list
proc.timer_stats masked /proc/timer_stats
proc.tty masked /proc/tty
proc.bus.readonly written /proc/bus
proc.fs.readonly written /proc/fs
proc.irq.readonly written /proc/irq
proc.sys.readonly written /proc/sys/kernel/domainname
proc.sys.net.readonly written /proc/sys/net/ipv4/ip_forward
proc.sysrq.readonly written /proc/sysrq-trigger
";

/// Our pid as this pid namespace counts.
pub fn pid() -> Words {
    Words::format(format_args!("{}", sys::getpid()))
}

/// A field of a line, counted from 0, separated by single blanks.
pub fn fields(line: &[u8], at: usize) -> &[u8] {
    line.split(|b| *b == b' ').nth(at).unwrap_or(b"")
}

/// A link of the kernel's own making: it shows a path, and leads to something.
#[inline(never)]
pub fn slash(path: &core::ffi::CStr) -> Does {
    holds("not a path", link(path)?.bytes().starts_with(b"/"))?;
    followed(path).at("follow")?;
    Ok(())
}

/// AT_PAGESZ and its value are among the pairs.
fn auxv() -> Does {
    let mut room = [0u8; 1024];
    let bytes = sys::read_file(c"/proc/self/auxv", &mut room)?;
    holds("no AT_PAGESZ", bytes.chunks_exact(16).any(|pair| pair[0] == 6 && pair[1..8] == [0; 7]))
}

/// The name of a thread, changed from outside as pthread_setname_np(3) does it for another thread.
fn comm() -> Does {
    let path = Path::of(&[b"/proc/self/task/", pid().bytes(), b"/comm"]);
    let fd = Fd(sys::open(path.c(), O_WRONLY, 0)?);
    sys::write(fd.0, b"abicus-renamed").at("write")?;
    has(c"/proc/self/comm", "new name", &mut |line| line == b"abicus-renamed")
}

fn fd_list() -> Does {
    let fd = memfd()?;
    lists(c"/proc/self/fd", Words::format(format_args!("{}", fd.0)).bytes())
}

/// A descriptor opened once more by its name under `dir`.
#[inline(never)]
pub fn reopened(dir: &[u8]) -> Does {
    let fd = memfd()?;
    sys::write(fd.0, b"abicus").at("write")?;
    let path = Path::of(&[dir, Words::format(format_args!("{}", fd.0)).bytes()]);
    let (again, mut room) = (Fd(sys::open(path.c(), O_RDWR, 0)?), [0; 8]);
    same("bytes read from the start", sys::read(again.0, &mut room).at("read")?, 6)
}

/// Our own memory by file, as debuggers and some language runtimes write it, also where it is read-only.
fn mem() -> Does {
    let page = Map::private(4096)?;
    let fd = Fd(sys::open(c"/proc/self/mem", O_RDWR, 0)?);
    let wrote = ask!(nr::PWRITE64, fd.0, b"\x2a".as_ptr(), 1, page.at as usize).at("pwrite")?;
    same("bytes written", wrote, 1)?;
    same("byte", usize::from(page.get(0)), 42)
}

/// A page that was written to is marked as present.
fn pagemap() -> Does {
    let page = Map::private(4096)?;
    page.set(0, 1);
    let fd = Fd(sys::open(c"/proc/self/pagemap", O_RDONLY, 0)?);
    let size = crate::rt::process::aux(AT_PAGESZ).unwrap_or(4096).max(4096);
    let mut entry = 0u64;
    ask!(nr::PREAD64, fd.0, &mut entry, 8, page.at as usize / size * 8).at("pread")?;
    holds("a page in memory is not marked present", entry >> 63 == 1)
}

fn stat_of_self() -> Does {
    let mut room = [0; 64];
    let bytes = sys::read_file(c"/proc/self/stat", &mut room)?;
    let pid = number(bytes, 10).ok_or_else(|| word("empty"))?;
    holds("the pid of another namespace", pid == sys::getpid() as u64)
}

fn statm() -> Does {
    match read_number(c"/proc/self/statm") {
        Some(pages) => holds("no pages", pages > 0),
        None => reads(c"/proc/self/statm"),
    }
}

/// As many processors as /sys says are online: programs count them here or there.
fn cpu_count() -> Does {
    let (mut shown, mut room) = (0usize, [0; 256]);
    lines(c"/proc/cpuinfo", &mut |line| {
        shown += usize::from(line.starts_with(b"processor"));
        true
    })?;
    let online = sys::read_file(c"/sys/devices/system/cpu/online", &mut room).at("open online")?;
    let mut count = 0;
    for range in online.split(|b| *b == b',') {
        let mut ends = range.split(|b| *b == b'-').filter_map(|end| number(end, 10));
        let first = ends.next().unwrap_or(0);
        count += (ends.next().unwrap_or(first) + 1).saturating_sub(first) as usize;
    }
    if shown == count { Ok(()) } else { Err(value(format_args!("{shown} in /proc/cpuinfo, {count} in /sys"))) }
}

/// Three averages, running/all, the last pid.
fn loadavg() -> Does {
    has(c"/proc/loadavg", "five fields", &mut |line| line.split(|b| *b == b' ').count() == 5 && line.contains(&b'/'))
}

/// The same as sysinfo(2) says. Where a file system of the engine shows the limit of the cell here, it is not.
fn memory_total() -> Does {
    let total = field(c"/proc/meminfo", b"MemTotal:")?;
    let mut info = [0u64; 14];
    ask!(nr::SYSINFO, &mut info).at("sysinfo")?;
    let known = info[4].saturating_mul(info[13] & 0xffff_ffff) / 1024;
    holds("not what sysinfo says", number(total.bytes(), 10) == Some(known))
}

fn is_uuid(text: &[u8]) -> bool {
    text.len() == 36
        && text.iter().enumerate().all(|(i, b)| match i {
            8 | 13 | 18 | 23 => *b == b'-',
            _ => b.is_ascii_hexdigit(),
        })
}

/// The first line of a file.
fn first(path: &core::ffi::CStr) -> Result<Words, No> {
    let mut text = Words::new();
    lines(path, &mut |line| {
        text.add(line);
        false
    })?;
    Ok(text)
}

fn uuid() -> Does {
    let path = c"/proc/sys/kernel/random/uuid";
    let (one, other) = (first(path)?, first(path)?);
    holds("not a uuid", is_uuid(one.bytes()) && is_uuid(other.bytes()))?;
    holds("the same twice", one.bytes() != other.bytes())
}

fn boot_id() -> Does {
    let path = c"/proc/sys/kernel/random/boot_id";
    let (one, other) = (first(path)?, first(path)?);
    holds("not a uuid", is_uuid(one.bytes()))?;
    holds("changes", one.bytes() == other.bytes())
}

/// As CLOCK_BOOTTIME says. Where an engine shows the age of the cell here, it is not.
fn uptime() -> Does {
    let seconds = number(first(c"/proc/uptime")?.bytes(), 10).ok_or_else(|| word("empty"))?;
    let mut now = sys::Timespec::default();
    ask!(nr::CLOCK_GETTIME, 7, &mut now).at("clock_gettime")?;
    holds("not what CLOCK_BOOTTIME says", seconds.abs_diff(now.sec as u64) < 3)
}

/// `Linux version`, and the release that uname(2) says.
fn version() -> Does {
    let text = first(c"/proc/version")?;
    holds("no Linux version", text.bytes().starts_with(b"Linux version "))?;
    let mut name = [0u8; 6 * 65];
    ask!(nr::UNAME, &mut name).at("uname")?;
    let release = name[130..195].split(|b| *b == 0).next().unwrap_or(b"");
    holds("not the release of uname", within(text.bytes(), release))
}

/// Some symbols are at 0 on every kernel, so a few of them are looked at.
fn kallsyms() -> Does {
    let (mut seen, mut shown) = (0, false);
    lines(c"/proc/kallsyms", &mut |line| {
        seen += 1;
        shown = number(line, 16).is_some_and(|at| at > 0xffff_ffff);
        !shown && seen < 200
    })?;
    Err(word(match (seen, shown) {
        (0, _) => "empty",
        (_, true) => "addresses shown",
        _ => "addresses hidden",
    }))
}

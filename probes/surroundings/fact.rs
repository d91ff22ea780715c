//! Facts of the surroundings: what changes from run to run, or is too long to compare.
//!
//! Goes in: nothing. Comes out: facts. Must not know: who reads them.

use core::ffi::CStr;

use super::look::*;
use crate::asking::{ask, stat};
use crate::check::Facts;
use crate::rt::nr;
use crate::rt::sys;
use crate::rt::text::number;

pub static FACTS: &[fn(&mut Facts)] = &[kernel, memory, process, groups];

/// A file as a fact, where it can be read.
#[inline(never)]
fn file(f: &mut Facts, name: &str, path: &CStr) {
    let mut room = [0; 512];
    if let Ok(bytes) = sys::read_file(path, &mut room) {
        let text = tidy(bytes);
        match number(text.bytes(), 10) {
            Some(n) if text.bytes().iter().all(u8::is_ascii_digit) => f.number(name, n as i64),
            _ => f.text(name, text.bytes()),
        }
    }
}

fn kernel(f: &mut Facts) {
    file(f, "kernel.tainted", c"/proc/sys/kernel/tainted");
    file(f, "kernel.cmdline", c"/proc/cmdline");
    file(f, "kernel.banner", c"/proc/version");
    file(f, "kernel.core_pattern", c"/proc/sys/kernel/core_pattern");
    file(f, "kernel.boot_id", c"/proc/sys/kernel/random/boot_id");
    file(f, "kernel.loadavg", c"/proc/loadavg");
    file(f, "kernel.file_nr", c"/proc/sys/fs/file-nr");
    file(f, "machine.product", c"/sys/class/dmi/id/product_name");
    file(f, "machine.hypervisor", c"/sys/hypervisor/type");
    let mut count = 0;
    let _ = lines(c"/proc/stat", &mut |line| {
        if let Some(rest) = line.strip_prefix(b"btime ") {
            count = number(rest, 10).unwrap_or(0);
        }
        count == 0
    });
    f.number("kernel.boot_time", count as i64);
    if let Ok(count) = lines(c"/proc/modules", &mut |_| true) {
        f.number("kernel.modules", count as i64);
    }
    // Too long and packed: its size tells at least whether two kernels can have the same.
    let found = stat(crate::rt::consts::AT_FDCWD, c"/proc/config.gz");
    if let Ok(stat) = found {
        f.number("kernel.config_bytes", stat.size as i64);
    }
}

fn memory(f: &mut Facts) {
    for (name, key) in [
        ("memory.total_kb", c"MemTotal:"),
        ("memory.available_kb", c"MemAvailable:"),
        ("memory.swap_kb", c"SwapTotal:"),
        ("memory.swap_free_kb", c"SwapFree:"),
        ("memory.hugepages_free", c"HugePages_Free:"),
        ("memory.commit_limit_kb", c"CommitLimit:"),
        ("memory.committed_kb", c"Committed_AS:"),
    ] {
        if let Ok(text) = field(c"/proc/meminfo", key.to_bytes()) {
            f.number(name, number(text.bytes(), 10).unwrap_or(0) as i64);
        }
    }
}

fn process(f: &mut Facts) {
    f.number("process.pid", i64::from(sys::getpid()));
    file(f, "process.cgroup", c"/proc/self/cgroup");
    file(f, "process.label", c"/proc/self/attr/current");
    file(f, "process.uid_map", c"/proc/self/uid_map");
    if let Ok(exe) = link(c"/proc/self/exe") {
        f.text("process.exe", exe.bytes());
    }
    for (name, path) in [
        ("namespace.cgroup", c"/proc/self/ns/cgroup"),
        ("namespace.ipc", c"/proc/self/ns/ipc"),
        ("namespace.mnt", c"/proc/self/ns/mnt"),
        ("namespace.net", c"/proc/self/ns/net"),
        ("namespace.pid", c"/proc/self/ns/pid"),
        ("namespace.user", c"/proc/self/ns/user"),
        ("namespace.uts", c"/proc/self/ns/uts"),
    ] {
        if let Ok(to) = link(path) {
            f.text(name, to.bytes());
        }
    }
    let mut name = [0u8; 6 * 65];
    if ask!(nr::UNAME, &mut name).is_ok() {
        f.text("cell.hostname", name[65..130].split(|b| *b == 0).next().unwrap_or(b""));
    }
    if let Ok((kind, _)) = file_system(c"/") {
        f.number("cell.root_type", kind as i64);
    }
    mount_options(f);
}

/// How /proc, /sys and /dev are mounted: options of hidepid and the like.
fn mount_options(f: &mut Facts) {
    let _ = lines(c"/proc/self/mountinfo", &mut |line| {
        let name = match super::proc::fields(line, 4) {
            b"/" => "mount.root",
            b"/proc" => "mount.proc",
            b"/sys" => "mount.sys",
            b"/dev" => "mount.dev",
            b"/dev/shm" => "mount.shm",
            b"/tmp" => "mount.tmp",
            _ => return true,
        };
        let from = line.iter().enumerate().filter(|(_, b)| **b == b' ').nth(4).map_or(0, |at| at.0 + 1);
        f.text(name, &line[from..]);
        true
    });
}

fn groups(f: &mut Facts) {
    for (name, path) in [
        ("cgroup.memory_current", c"/sys/fs/cgroup/memory.current"),
        ("cgroup.memory_events", c"/sys/fs/cgroup/memory.events"),
        ("cgroup.cpu_stat", c"/sys/fs/cgroup/cpu.stat"),
        ("cgroup.pids_current", c"/sys/fs/cgroup/pids.current"),
        ("cgroup.memory_current", c"/sys/fs/cgroup/memory/memory.usage_in_bytes"),
        ("cgroup.cpu_stat", c"/sys/fs/cgroup/cpu/cpu.stat"),
        ("cgroup.pids_current", c"/sys/fs/cgroup/pids/pids.current"),
    ] {
        file(f, name, path);
    }
}

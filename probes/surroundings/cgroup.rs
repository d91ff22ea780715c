//! Control groups: version, controllers and limits as the cell sees them.
//!
//! Goes in: nothing. Comes out: answers. Must not know: which answers are good.

use core::ffi::CStr;

use super::look::*;
use super::said::*;
use crate::asking::Fd;
use crate::rt::consts::*;
use crate::rt::sys;

asked![
    Batch "cgroup.version" => version,
    Batch "cgroup.path" => path,
    Batch "cgroup.writable" => || writing(own(b"memory", b"").c()),
    Batch "cgroup.controllers" => controllers,
    Batch "cgroup.systemd" => systemd,
    Batch "cgroup.kill" => || writing(own(b"", b"/cgroup.kill").c()),
    Batch "cgroup.freeze" => || writing(own(b"", b"/cgroup.freeze").c()),
    Batch "cgroup.pressure" => || starts(own(b"", b"/memory.pressure").c(), "some"),
    Batch "cgroup.delegated" => || writing(own(b"", b"/cgroup.subtree_control").c()),
];

/// Rows of `table.rs`.
pub const ROWS: &str = r"
cgroup.controller.cpu controller cpu
cgroup.controller.cpuset controller cpuset
cgroup.controller.memory controller memory
cgroup.controller.io controller io
cgroup.controller.pids controller pids
cgroup.controller.hugetlb controller hugetlb
cgroup.controller.rdma controller rdma
cgroup.controller.misc controller misc
cgroup.controller.perf_event controller perf_event
cgroup.controller.freezer controller freezer
cgroup.controller.devices controller devices
cgroup.memory.max group memory memory.max memory.limit_in_bytes
cgroup.memory.high group memory memory.high memory.soft_limit_in_bytes
cgroup.memory.swap.max group memory memory.swap.max memory.memsw.limit_in_bytes
cgroup.memory.oom_group group memory memory.oom.group memory.use_hierarchy
cgroup.memory.kernel group memory memory.kmem memory.kmem.limit_in_bytes
cgroup.memory.current group-reads memory memory.current memory.usage_in_bytes
cgroup.memory.stat group-reads memory memory.stat memory.stat
cgroup.cpu.max group cpu cpu.max cpu.cfs_quota_us
cgroup.cpu.weight group cpu cpu.weight cpu.shares
cgroup.cpu.stat group-reads cpu cpu.stat cpu.stat
cgroup.cpuset.cpus group cpuset cpuset.cpus.effective cpuset.effective_cpus
cgroup.cpuset.mems group cpuset cpuset.mems.effective cpuset.effective_mems
cgroup.pids.max group pids pids.max pids.max
cgroup.hugetlb.max group hugetlb hugetlb.2MB.max hugetlb.2MB.limit_in_bytes
cgroup.io.weight group blkio io.weight blkio.bfq.weight
";

const CGROUP2: u64 = 0x6367_7270;
const ROOT: &[u8] = b"/sys/fs/cgroup";

/// 2 where the unified hierarchy is the only one; `hybrid` where it stands beside those of version 1.
fn version() -> Does {
    match file_system(c"/sys/fs/cgroup")?.0 {
        CGROUP2 => Err(number(2)),
        TMPFS if file_system(c"/sys/fs/cgroup/unified").is_ok_and(|found| found.0 == CGROUP2) => Err(word("hybrid")),
        TMPFS if names(c"/sys/fs/cgroup", &mut |_| false) == Ok(0) => Err(word("none")),
        TMPFS => Err(number(1)),
        _ => Err(word("none")),
    }
}

/// The part of a line of /proc/self/cgroup that is the path, if it is the line of this controller. No controller: version 2.
fn path_of<'a>(line: &'a [u8], controller: &[u8]) -> Option<&'a [u8]> {
    let mut parts = line.splitn(3, |b| *b == b':');
    let (_, names, path) = (parts.next()?, parts.next()?, parts.next()?);
    names.split(|b| *b == b',').any(|name| name == controller).then_some(path)
}

/// The directory of our group in the hierarchy of this controller, version 1 first, plus `file`. Where a cell has no cgroup
/// namespace its path is one of the host, and what is mounted is the group itself.
#[inline(never)]
fn own(controller: &[u8], file: &[u8]) -> Path {
    let (mut path, mut unified) = (Words::new(), Words::new());
    let _ = lines(c"/proc/self/cgroup", &mut |line| {
        if let Some(found) = path_of(line, b"") {
            unified = Words::of(found);
        } else if let Some(found) = path_of(line, controller) {
            path = Words::of(found);
        }
        true
    });
    let root = |found: &Words| if found.bytes() == b"/" { Words::new() } else { *found };
    let (path, unified) = (root(&path), root(&unified));
    let places: [[&[u8]; 3]; 6] = [
        [b"/", controller, path.bytes()],
        [b"/", controller, b""],
        [b"", b"", unified.bytes()],
        [b"/unified", b"", unified.bytes()],
        [b"/unified", b"", b""],
        [b"", b"", b""],
    ];
    for [a, b, c] in places {
        if a == b"/" && b.is_empty() {
            continue;
        }
        let dir = Path::of(&[ROOT, a, b, c, b"/cgroup.procs"]);
        if sys::open(dir.c(), O_PATH, 0).map(Fd).is_ok() {
            return Path::of(&[ROOT, a, b, c, file]);
        }
    }
    Path::of(&[ROOT, file])
}

/// A file of that directory by its name in version 2, else in version 1.
#[inline(never)]
pub fn own_file(controller: &[u8], two: &[u8], one: &[u8]) -> Path {
    let place = |name| {
        let dir = own(controller, b"/");
        Path::of(&[dir.c().to_bytes(), name])
    };
    let path = place(two);
    if sys::open(path.c(), O_PATH, 0).map(Fd).is_ok() { path } else { place(one) }
}

/// Whether that group is the root of version 2, which cannot be limited and has fewer files: no cgroup.events, for one.
pub fn at_root(controller: &[u8]) -> bool {
    let there = |file| sys::open(own(controller, file).c(), O_PATH, 0).map(Fd).is_ok();
    there(b"/cgroup.controllers") && !there(b"/cgroup.events")
}

/// What it says. Without a limit version 1 says -1 or the largest number of pages: `max`, as version 2.
#[inline(never)]
pub fn limit(path: &CStr) -> Does {
    match read_number(path) {
        Some(n) if n >= 0x7fff_ffff_ffff_0000 => Err(word("max")),
        _ => {
            let mut room = [0; 256];
            let text = tidy(sys::read_file(path, &mut room)?);
            Err(match text.bytes() {
                b"" => word("empty"),
                b"-1" => word("max"),
                text => answer(text),
            })
        }
    }
}

/// `/`: a cgroup namespace of its own, or the root. `below`: the host's path shows.
fn path() -> Does {
    let (mut below, mut outside) = (false, false);
    let count = lines(c"/proc/self/cgroup", &mut |line| {
        let path = line.splitn(3, |b| *b == b':').nth(2).unwrap_or(b"/");
        outside |= path.starts_with(b"/..");
        below |= path != b"/";
        true
    })?;
    Err(word(match (count, outside, below) {
        (0, ..) => "none",
        (_, true, _) => "outside",
        (_, _, true) => "below",
        _ => "/",
    }))
}

/// Of version 2 as the group offers them, and of version 1 as they are mounted.
fn controllers() -> Does {
    let mut room = [0; 256];
    let mut text = match sys::read_file(own(b"", b"/cgroup.controllers").c(), &mut room) {
        Ok(bytes) => tidy(bytes),
        Err(_) => Words::new(),
    };
    lines(c"/proc/self/cgroup", &mut |line| {
        let name = line.split(|b| *b == b':').nth(1).unwrap_or(b"");
        if !name.is_empty() {
            text.add(if text.is_empty() { b"" } else { b" " }).add(b"1:").add(name);
        }
        true
    })?;
    Err(if text.is_empty() { word("none") } else { answer(text.bytes()) })
}

/// By which version the cell is controlled: `v2`, `v1`, or `no`. The io controller is called blkio in version 1; version 2 has
/// the freezer and the devices without a controller.
#[inline(never)]
pub fn controller(name: &[u8]) -> Does {
    let (mut one, mut two) = (false, false);
    let old: &[u8] = if name == b"io" { b"blkio" } else { name };
    lines(c"/proc/self/cgroup", &mut |line| {
        one |= path_of(line, old).is_some();
        true
    })?;
    let _ = lines(own(b"", b"/cgroup.controllers").c(), &mut |line| {
        two = line.split(|b| *b == b' ').any(|offered| offered == name);
        false
    });
    Err(word(if two {
        "v2"
    } else if one {
        "v1"
    } else {
        "no"
    }))
}

/// Where systemd of version 1 hosts keeps its groups: images of CentOS 7 need it.
fn systemd() -> Does {
    let path: &CStr = c"/sys/fs/cgroup/systemd";
    holds("no control group", file_system(path)?.0 == 0x0027_e0eb)
}

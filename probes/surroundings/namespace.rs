//! Namespaces: which there are, whether they are the host's, and how ids are mapped.
//!
//! Goes in: nothing. Comes out: answers. Must not know: which answers are good.

use core::ffi::CStr;

use super::look::*;
use super::said::*;
use crate::asking::ask;
use crate::rt::nr;
use crate::rt::text::number;

asked![
    Batch "ns.pid.children" => children,
    Batch "ns.user.root_owner" => root_owner,
    Batch "ns.user.own_id" => own_id,
];

/// Rows of `table.rs`.
pub const ROWS: &str = r"
ns.cgroup whose /proc/self/ns/cgroup
ns.ipc whose /proc/self/ns/ipc
ns.mnt whose /proc/self/ns/mnt
ns.net whose /proc/self/ns/net
ns.pid whose /proc/self/ns/pid
ns.time whose /proc/self/ns/time
ns.user whose /proc/self/ns/user
ns.uts whose /proc/self/ns/uts
ns.time.offsets says /proc/self/timens_offsets
ns.user.uid_map says /proc/self/uid_map
ns.user.gid_map says /proc/self/gid_map
ns.user.uids mapped /proc/self/uid_map
ns.user.gids mapped /proc/self/gid_map
ns.user.setgroups says /proc/self/setgroups
";

/// The first namespaces of a kernel have the numbers 0xeffffff8 (mount) to 0xefffffff (ipc), linux/proc_ns.h; the mount and the
/// network namespace have them since 6.18 only.
#[inline(never)]
pub fn whose(path: &CStr) -> Does {
    if (0xefff_fff0..=0xefff_ffff).contains(&followed(path)?.ino) {
        return Err(word("the host's"));
    }
    if (path == c"/proc/self/ns/mnt" || path == c"/proc/self/ns/net") && release() < [6, 18] {
        return Err(not_asked("only since Linux 6.18 its number tells"));
    }
    Err(word("its own"))
}

/// The first two numbers of uname(2)'s release; zeros where it is refused, of which nothing is known.
fn release() -> [u64; 2] {
    let mut name = [0u8; 6 * 65];
    let _ = ask!(nr::UNAME, &mut name);
    let mut numbers = name[130..195].split(|b| *b == b'.').map(|digits| number(digits, 10).unwrap_or(0));
    [0; 2].map(|_| numbers.next().unwrap_or(0))
}

/// Children are made in our own pid namespace.
fn children() -> Does {
    let (own, next) = (followed(c"/proc/self/ns/pid")?, followed(c"/proc/self/ns/pid_for_children")?);
    holds("another pid namespace", own.ino == next.ino)
}

/// How many ids exist here.
#[inline(never)]
pub fn mapped(path: &CStr) -> Does {
    let mut count = 0;
    lines(path, &mut |line| {
        let size = tidy(line);
        count += size.bytes().split(|b| *b == b' ').nth(2).and_then(|size| number(size, 10)).unwrap_or(0);
        true
    })?;
    Err(super::said::number(count))
}

/// Whether files of the host's root can appear as root's: its id is mapped. A file of /proc/sys belongs to the first root.
fn root_owner() -> Does {
    let owner = followed(c"/proc/sys/kernel/ostype")?.uid;
    Err(word(if owner == 0 { "root" } else { "nobody" }))
}

/// Whoever has no id here is shown as the overflow uid.
fn own_id() -> Does {
    let overflow = read_number(c"/proc/sys/kernel/overflowuid").unwrap_or(65534);
    holds("not mapped", ask!(nr::GETUID)? as u64 != overflow)
}

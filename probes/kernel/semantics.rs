//! What programs rely on system calls to do: each check really does it and verifies the result.
//!
//! Goes in: nothing. Comes out: facts and answers. Must not know: which answers are good. `check.rs` says how to add one;
//! `asking.rs` has what they share. Where a check needs a file it is a memfd; where it needs a child, the child dies with it.

#![allow(unreachable_code)] // what follows the making of a `No` is never reached

pub mod control;
pub mod events;
pub mod files;
pub mod memory;
pub mod mounts;
pub mod namespaces;
pub mod process;
pub mod security;
pub mod signals;
pub mod time;

use super::asking::ask;
use super::check::Facts;
use super::rt::nr;

pub static FACTS: &[fn(&mut Facts)] = &[kernel, limits];

/// uname(2): six fields of 65 bytes.
fn kernel(f: &mut Facts) {
    let mut name = [0u8; 6 * 65];
    if ask!(nr::UNAME, &mut name).is_ok() {
        for (i, fact) in [(2, "kernel.release"), (3, "kernel.version"), (4, "kernel.machine")] {
            let field = &name[i * 65..(i + 1) * 65];
            f.text(fact, field.split(|b| *b == 0).next().unwrap_or(field));
        }
    }
}

/// Counts that decide how much of something a cell may have; the limits themselves are asked in `surroundings.rs`.
fn limits(f: &mut Facts) {
    let mut info = [0u64; 14];
    if ask!(nr::SYSINFO, &mut info).is_ok() {
        f.number("sysinfo.total_ram_kb", (info[4].saturating_mul(info[13] & 0xffff_ffff) / 1024) as i64);
        f.number("sysinfo.processes", (info[10] & 0xffff) as i64);
    }
}

//! What memory costs: the first touch of a page, copying.
//!
//! Goes in: sizes. Comes out: samples. Must not know: what is fast.

use super::measure;
use crate::asking::Map;
use crate::check::{Asked, Saw};
use crate::rt::consts::*;
use crate::rt::nr;
use crate::rt::sys::{self, call};

fn private(len: usize) -> Result<Map, Saw> {
    Ok(Map { at: sys::map(len, PROT_READ | PROT_WRITE, MAP_PRIVATE)?, len })
}

/// 64 pages that are new each time: per page, with a 64th of the call that gives them back.
pub fn fault() -> Asked {
    let (pages, mut next) = (private(64 * 4096)?, 0);
    // SAFETY: MADV_NOHUGEPAGE (15) of our own memory; where there are no huge pages it is not needed.
    let _ = unsafe { call!(nr::MADVISE, pages.at, pages.len, 15) };
    measure(&mut || {
        if next == 64 {
            next = 0;
            // SAFETY: MADV_DONTNEED (4) of our own memory, which holds nothing.
            unsafe { call!(nr::MADVISE, pages.at, pages.len, 4) }?;
        }
        pages.set(next * 4096, 1);
        next += 1;
        Ok(())
    })
}

/// By the processor's own loop, so that no library is measured.
pub fn copy(len: usize) -> Asked {
    let (from, to) = (private(len)?, private(len)?);
    for i in (0..len).step_by(4096) {
        from.set(i, 7);
        to.set(i, 1);
    }
    let asked = measure(&mut || {
        // SAFETY: both have `len` bytes and do not overlap.
        unsafe { copied(to.at, from.at, len) };
        Ok(())
    })?;
    if to.get(len - 4096) == 7 { Ok(asked) } else { super::super::check::wrong(format_args!("not copied")) }
}

#[cfg(target_arch = "x86_64")]
unsafe fn copied(to: *mut u8, from: *const u8, len: usize) {
    // SAFETY: the caller answers for the memory; the direction flag is clear by the ABI.
    unsafe {
        core::arch::asm!("rep movsb", inout("rdi") to => _, inout("rsi") from => _, inout("rcx") len => _,
            options(nostack, preserves_flags));
    }
}

#[cfg(target_arch = "aarch64")]
unsafe fn copied(to: *mut u8, from: *const u8, len: usize) {
    // SAFETY: the caller answers for the memory, whose length is a multiple of 32.
    unsafe {
        core::arch::asm!("2:", "ldp q0, q1, [{from}], #32", "stp q0, q1, [{to}], #32", "subs {len}, {len}, #32", "b.ne 2b",
            to = inout(reg) to => _, from = inout(reg) from => _, len = inout(reg) len => _, out("v0") _, out("v1") _,
            options(nostack));
    }
}

//! The processor.
//!
//! Goes in: nothing. Comes out: facts and answers. Must not know: which answers are good. `check.rs` says how to add one.

#[cfg(target_arch = "x86_64")]
mod feature;
#[cfg(target_arch = "x86_64")]
pub mod level;
#[cfg(target_arch = "x86_64")]
pub mod scalar;
pub mod stack;
#[cfg(target_arch = "x86_64")]
pub mod tile;
pub mod told;
#[cfg(target_arch = "x86_64")]
pub mod vector;

use super::check::{Asked, Check, Facts, How, Saw, Value, value};
use super::rt::consts::*;
use super::rt::process;

pub static FACTS: &[fn(&mut Facts)] = &[
    vector_of_the_kernel,
    #[cfg(target_arch = "x86_64")]
    level::leaves,
];

pub static CHECKS: &[Check] = &[
    Check { id: "cpu.page.size", how: How::Batch, run: || number_of(AT_PAGESZ) },
    Check { id: "cpu.hwcap", how: How::Batch, run: || bits_of(AT_HWCAP) },
    Check { id: "cpu.hwcap2", how: How::Batch, run: || bits_of(AT_HWCAP2) },
    Check { id: "cpu.platform", how: How::Batch, run: platform },
    Check { id: "cpu.minsigstksz", how: How::Batch, run: || number_of(AT_MINSIGSTKSZ) },
];

/// getauxval(3).
fn entry(kind: usize) -> Result<usize, Saw> {
    process::aux(kind).ok_or(Saw::NotAsked("the auxiliary vector has no such entry"))
}

fn number_of(kind: usize) -> Asked {
    Ok(Saw::Number(entry(kind)? as i64))
}

fn bits_of(kind: usize) -> Asked {
    value(format_args!("{:#x}", entry(kind)?))
}

/// AT_PLATFORM: the loader looks for libraries in a directory of this name.
fn platform() -> Asked {
    let at = entry(15)? as *const core::ffi::c_char;
    if at.is_null() {
        return Err(Saw::NotAsked("the kernel names none"));
    }
    // SAFETY: the kernel points to a C string that it put on the stack.
    Ok(Saw::Value(Value::of(unsafe { core::ffi::CStr::from_ptr(at) }.to_bytes())))
}

/// The entries of the auxiliary vector that are no address and no id.
fn vector_of_the_kernel(f: &mut Facts) {
    for (name, kind) in [("cpu.hwcap3", 29), ("cpu.hwcap4", 30), ("cpu.clktck", 17), ("cpu.rseq.size", 27)] {
        if let Some(number) = process::aux(kind) {
            f.number(name, number as i64);
        }
    }
}

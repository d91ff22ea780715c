//! AMX: tiles, which a process must ask the kernel for.
//!
//! Goes in: nothing. Comes out: rows. Must not know: which answers are good.

use super::feature::{Feature, features};
use crate::check::{Asked, Check, How};
use crate::rt::nr;
use crate::rt::sys::call;

features! {
    // (1, 2, 3, 4) · (1, 1, 1, 1)
    amx "" 0 (7, 0, 3, 24) 0x60000 => 10;
        "mov byte ptr [rdi], 1", "mov word ptr [rdi + 16], 4", "mov word ptr [rdi + 18], 4", "mov word ptr [rdi + 20], 4",
        "mov byte ptr [rdi + 48], 1", "mov byte ptr [rdi + 49], 1", "mov byte ptr [rdi + 50], 1",
        "mov dword ptr [rdi + 64], 0x04030201", "mov dword ptr [rdi + 128], 0x01010101", "mov ecx, 4", "ldtilecfg [rdi]",
        "tilezero tmm0", "tileloadd tmm1, [rdi + rcx + 64]", "tileloadd tmm2, [rdi + rcx + 128]",
        "tdpbssd tmm0, tmm1, tmm2", "tilestored [rdi + rcx + 192], tmm0", "tilerelease", "mov eax, [rdi + 192]";
}

/// Instead of the table's row: in a process of its own, for the permission lasts and makes signal frames larger.
pub static PERMITTED: &[Check] = &[Check { id: "cpu.amx.execute", how: How::Own, run: permitted }];

fn permitted() -> Asked {
    // SAFETY: ARCH_REQ_XCOMP_PERM of tile data takes no address. Where it is refused, the instructions fault.
    let _ = unsafe { call!(nr::ARCH_PRCTL, 0x1023, 18) };
    amx::FEATURE.ask()
}

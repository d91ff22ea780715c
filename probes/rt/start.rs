//! The entry of a static program.
//!
//! Goes in: the stack as the kernel left it. Comes out: `crate::main()`, and its result as exit status. Must not know:
//! what the program does. A static-pie would need its own relocations applied first, so these programs are not one.

use super::rt::{process, sys};

#[cfg(target_arch = "x86_64")]
#[unsafe(no_mangle)]
#[unsafe(naked)]
unsafe extern "C" fn _start() -> ! {
    core::arch::naked_asm!(
        "mov rdi, rsp",
        "xor ebp, ebp",
        "and rsp, -16",
        "call {f}",
        "ud2",
        f = sym start
    )
}

#[cfg(target_arch = "aarch64")]
#[unsafe(no_mangle)]
#[unsafe(naked)]
unsafe extern "C" fn _start() -> ! {
    core::arch::naked_asm!(
        "mov x0, sp",
        "mov x29, #0",
        "mov x30, #0",
        "bl {f}",
        "brk #1",
        f = sym start
    )
}

unsafe extern "C" fn start(stack: *const usize) -> ! {
    // SAFETY: `_start` passes the untouched initial stack pointer.
    unsafe { process::begin(stack) };
    sys::exit(crate::main())
}

//! Signals against the registers of this processor: the frame must fit the stack, and the registers must come back.
//!
//! Goes in: nothing. Comes out: answers. Must not know: which answers are good.

use crate::asking::*;
use crate::rt::consts::*;
use crate::rt::nr;
use crate::rt::process;
use crate::rt::sys::{self, Siginfo};

checks![
    // The smallest stack that the kernel says will do.
    Own "cpu.sigaltstack.minimum" => || handled(smallest()),
    // MINSIGSTKSZ and SIGSTKSZ as C libraries had them built in, and programs with them.
    Own "cpu.sigaltstack.2048" => || handled(2048),
    Own "cpu.sigaltstack.8192" => || handled(8192),
    #[cfg(target_arch = "x86_64")]
    Own "cpu.sigaltstack.amx" => with_tiles,
    #[cfg(target_arch = "x86_64")]
    Own "cpu.vector.signal" => registers::come_back,
];

static ON: core::sync::atomic::AtomicUsize = core::sync::atomic::AtomicUsize::new(0);

#[inline(never)]
extern "C" fn handler(_: i32, info: *mut Siginfo, _: *mut core::ffi::c_void) {
    // What the kernel passes lies in the frame.
    ON.store(info as usize, core::sync::atomic::Ordering::Relaxed);
}

/// What the kernel names may be less than its old constant, and sigaltstack(2) takes no less than that.
fn smallest() -> usize {
    process::aux(AT_MINSIGSTKSZ).unwrap_or(0).max(2048)
}

/// A handler runs on a stack of `size` bytes with nothing below it, and a frame that does not fit is not written.
fn handled(size: usize) -> Does {
    let pages = size.div_ceil(4096) * 4096;
    let stack = Map::private(pages + 4096)?;
    must!("mprotect"; nr::MPROTECT, stack.at, 4096, PROT_NONE);
    let low = stack.top() - size;
    must!("sigaltstack"; nr::SIGALTSTACK, &[low, 0, size], 0);
    sys::handle(SIGUSR1, handler, SA_ONSTACK).at("rt_sigaction")?;
    sys::kill(sys::getpid(), SIGUSR1).at("kill")?;
    let at = ON.load(core::sync::atomic::Ordering::Relaxed);
    holds("the handler did not run", at != 0)?;
    holds("the handler ran elsewhere", (low..stack.top()).contains(&at))?;
    // Kernels before 5.14 write below the stack.
    holds("the frame begins below the stack", (pages + 4096 - size == 4096) || stack.get(pages + 4096 - size - 1) == 0)
}

/// After the permission to use AMX a frame may have 11 KB: the old constant is then refused.
#[cfg(target_arch = "x86_64")]
fn with_tiles() -> Does {
    if ask!(nr::ARCH_PRCTL, 0x1023, 18).is_err() {
        not_asked("no permission for AMX here");
    }
    handled(smallest())
}

#[cfg(target_arch = "x86_64")]
mod registers {
    use super::*;
    use crate::cpu::level;

    extern "C" fn clobber(_: i32, _: *mut Siginfo, _: *mut core::ffi::c_void) {
        let xcr0 = level::enabled_state();
        // SAFETY: only registers that are enabled are touched, and the kernel restores them on return.
        unsafe {
            if xcr0 & 0xe6 == 0xe6 {
                core::arch::asm!("vpxorq zmm16, zmm16, zmm16", "vpxorq zmm0, zmm0, zmm0", "kxorw k1, k1, k1");
            } else if xcr0 & 6 == 6 {
                core::arch::asm!("vpxor xmm0, xmm0, xmm0");
            } else {
                core::arch::asm!("pxor xmm0, xmm0");
            }
        }
        ON.store(1, core::sync::atomic::Ordering::Relaxed);
    }

    /// The widest vector register that is enabled, before and after a signal whose handler clears it.
    pub fn come_back() -> Does {
        let xcr0 = level::enabled_state();
        sys::handle(SIGUSR1, clobber, 0).at("rt_sigaction")?;
        let (pid, mut room) = (sys::getpid() as usize, [0u64; 17]);
        let wide = if xcr0 & 0xe6 == 0xe6 {
            // SAFETY: AVX-512 is enabled; `room` has space for two registers and a mask.
            unsafe {
                core::arch::asm!(
                    "vpternlogq zmm16, zmm16, zmm16, 0xff", "vmovdqa64 zmm0, zmm16", "kxnorw k1, k1, k1", "syscall",
                    "vmovdqu64 [r8], zmm0", "vmovdqu64 [r8 + 64], zmm16", "kmovw r9d, k1", "mov [r8 + 128], r9",
                    in("rax") nr::KILL, in("rdi") pid, in("rsi") SIGUSR1, in("r8") &mut room, out("r9") _,
                    lateout("rax") _, out("rcx") _, out("r11") _, out("xmm0") _,
                );
            }
            room[16] |= !0xffff;
            17
        } else if xcr0 & 6 == 6 {
            // SAFETY: AVX is enabled; `room` has space for a register.
            unsafe {
                core::arch::asm!(
                    "vxorps ymm0, ymm0, ymm0", "vcmpps ymm0, ymm0, ymm0, 0", "syscall", "vmovups [r8], ymm0",
                    "vzeroupper",
                    in("rax") nr::KILL, in("rdi") pid, in("rsi") SIGUSR1, in("r8") &mut room,
                    lateout("rax") _, out("rcx") _, out("r11") _, out("xmm0") _,
                );
            }
            4
        } else {
            // SAFETY: every x86-64 has SSE2; `room` has space for a register.
            unsafe {
                core::arch::asm!(
                    "pcmpeqd xmm0, xmm0", "syscall", "movups [r8], xmm0",
                    in("rax") nr::KILL, in("rdi") pid, in("rsi") SIGUSR1, in("r8") &mut room,
                    lateout("rax") _, out("rcx") _, out("r11") _, out("xmm0") _,
                );
            }
            2
        };
        holds("the handler did not run", ON.load(core::sync::atomic::Ordering::Relaxed) == 1)?;
        holds("a register did not come back", room[..wide].iter().all(|word| *word == u64::MAX))
    }
}

//! A feature of the processor: where CPUID says it is there, one piece of code that uses it, and what that code must answer.
//!
//! Goes in: a row. Comes out: what is said and what happens, side by side. Must not know: any feature in particular.

use core::arch::x86_64::{__cpuid, __cpuid_count, _xgetbv, CpuidResult};
use core::sync::atomic::AtomicUsize;

use crate::check::{Asked, Saw, value};
use crate::rt::consts::*;
use crate::rt::process;
use crate::rt::sys::{self, Siginfo};

/// Code that answers in rax. It gets 4 KiB of zeroes in rdi, aligned to 64 bytes, and may use all registers but the stack's.
pub type Code = unsafe extern "C" fn();

pub struct Feature {
    /// Its name in /proc/cpuinfo; empty where only new kernels have one.
    pub flag: &'static str,
    /// The microarchitecture level of the x86-64 ABI that demands it, 2 to 4; else 0.
    pub level: u8,
    /// Register (0 to 3: eax to edx) and bit.
    pub register: u8,
    pub bit: u8,
    pub subleaf: u8,
    /// Of CPUID; `HWCAP2` where the kernel decides.
    pub leaf: u32,
    /// Components that XCR0 must enable: a kernel or a hypervisor may not save the registers.
    pub state: u32,
    pub code: Code,
    pub right: u64,
}

/// Instead of a leaf: AT_HWCAP2 says it.
pub const HWCAP2: u32 = u32::MAX;

/// One leaf, zeroes where the processor has no such leaf: Intel's answer with the last one it has.
pub fn cpuid(leaf: u32, subleaf: u32) -> [u32; 4] {
    if __cpuid(leaf & 0x8000_0000).eax < leaf {
        return [0; 4];
    }
    let CpuidResult { eax, ebx, ecx, edx } = __cpuid_count(leaf, subleaf);
    [eax, ebx, ecx, edx]
}

/// 0 where the kernel did not turn XSAVE on.
pub fn xcr0() -> u64 {
    #[target_feature(enable = "xsave")]
    unsafe fn read() -> u64 {
        // SAFETY: the caller knows that OSXSAVE is set.
        unsafe { _xgetbv(0) }
    }
    // SAFETY: OSXSAVE.
    if cpuid(1, 0)[2] >> 27 & 1 == 1 { unsafe { read() } } else { 0 }
}

impl Feature {
    /// Whether CPUID lists it.
    pub fn listed(&self) -> bool {
        let word = match self.leaf {
            HWCAP2 => process::aux(AT_HWCAP2).unwrap_or(0) as u32,
            leaf => cpuid(leaf, self.subleaf.into())[usize::from(self.register & 3)],
        };
        word >> (self.bit & 31) & 1 == 1
    }

    /// Whether a program may use it: a program that looks at CPUID alone does not know.
    pub fn enabled(&self) -> bool {
        xcr0() & u64::from(self.state) == u64::from(self.state)
    }

    /// Does what it says. Where it is not offered it is executed all the same: to fault is honest, and some emulators run
    /// what they do not list. Some old processors run it as another instruction (lzcnt as bsr), hence the result.
    pub fn ask(&self) -> Asked {
        let (listed, enabled) = (self.listed(), self.enabled());
        let (answer, signal) = execute(self.code);
        match (listed && enabled, signal) {
            (true, 0) if answer == self.right => value(format_args!("works")),
            (true, 0) => value(format_args!("advertised, answers {answer:#x}")),
            (true, signal) => value(format_args!("advertised, faults (signal {signal})")),
            (false, 0) if answer == self.right => value(format_args!("works, not advertised")),
            _ if listed => Err(Saw::NotAsked("the processor lists it, but XCR0 does not enable its registers")),
            _ => Err(Saw::NotAsked("the processor does not offer it")),
        }
    }
}

#[repr(C, align(64))]
struct Scratch([u64; 512]);

/// The stack pointer to return to after a fault.
static STACK: AtomicUsize = AtomicUsize::new(0);

#[repr(C)]
struct Outcome {
    answer: u64,
    signal: u64,
}

#[unsafe(naked)]
unsafe extern "C" fn guarded(code: Code, scratch: *mut Scratch) -> Outcome {
    core::arch::naked_asm!(
        "push rbx",
        "push rbp",
        "push r12",
        "push r13",
        "push r14",
        "push r15",
        "sub rsp, 8",
        "mov [rip + {stack}], rsp",
        "mov rax, rdi",
        "mov rdi, rsi",
        "call rax",
        "xor edx, edx",
        "jmp {landed}",
        stack = sym STACK,
        landed = sym landed,
    )
}

/// The rest of `guarded`, to which the handler returns too: rdx is the signal.
#[unsafe(naked)]
unsafe extern "C" fn landed() {
    core::arch::naked_asm!(
        "mov rsp, [rip + {stack}]",
        "add rsp, 8",
        "pop r15",
        "pop r14",
        "pop r13",
        "pop r12",
        "pop rbp",
        "pop rbx",
        "ret",
        stack = sym STACK,
    )
}

extern "C" fn caught(signal: i32, _: *mut Siginfo, context: *mut core::ffi::c_void) {
    // SAFETY: a ucontext: 40 bytes, then the registers, of which the 13th is rdx and the 17th rip.
    unsafe {
        let registers = context.cast::<usize>().add(5);
        registers.add(12).write(signal as usize);
        registers.add(16).write(landed as *const () as usize);
    }
}

/// What the code answers, and the signal that it raised or 0.
pub fn execute(code: Code) -> (u64, u64) {
    const FAULTS: [i32; 4] = [SIGILL, SIGBUS, SIGFPE, SIGSEGV];
    let action = sys::Sigaction { handler: caught as *const () as usize, flags: SA_SIGINFO, restorer: 0, mask: 0 };
    let before = FAULTS.map(|signal| sys::set_action(signal, &action));
    let mut scratch = Scratch([0; 512]);
    // SAFETY: a row's code keeps to the rules of `Code`; a fault in it ends in `landed`.
    let outcome = unsafe { guarded(code, &mut scratch) };
    for (signal, before) in FAULTS.iter().zip(before) {
        if let Ok(before) = before {
            let _ = sys::set_action(*signal, &before);
        }
    }
    (outcome.answer, outcome.signal)
}

/// Rows: `popcnt "popcnt" 2 (1, 0, 2, 23) 0 => 16; "mov eax, 0xff00ff", "popcnt rax, rax";` is name, flag, level, (leaf,
/// subleaf, register, bit), XCR0, the right answer, the code.
macro_rules! features {
    ($($name:ident $flag:literal $level:literal ($leaf:expr, $subleaf:literal, $register:literal, $bit:literal) $state:expr
        => $right:literal; $($line:literal),+ ;)*) => {
        $(mod $name {
            #[unsafe(naked)]
            unsafe extern "C" fn code() {
                core::arch::naked_asm!($($line,)+ "ret")
            }
            pub static FEATURE: super::Feature = super::Feature {
                flag: $flag, level: $level, register: $register, bit: $bit, subleaf: $subleaf, leaf: $leaf, state: $state,
                code, right: $right,
            };
        })*
        pub static FEATURES: &[&Feature] = &[$(&$name::FEATURE),*];
        #[allow(dead_code)] // tiles are asked with a permission
        pub static CHECKS: &[Check] = &[$(Check {
            id: concat!("cpu.", stringify!($name), ".execute"), how: How::Batch, run: || $name::FEATURE.ask(),
        }),*];
    };
}
pub(super) use features;

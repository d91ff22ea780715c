//! Children and threads of checks. What is started ends, at the latest, when its check does.
//!
//! Goes in: jobs. Comes out: how they ended. Must not know: what they do.

use core::sync::atomic::Ordering::SeqCst;

use super::{At, Map, No, ask, at, no};
use crate::check::Saw;
use crate::rt::consts::*;
use crate::rt::nr;
use crate::rt::sys;

/// What a child does that waits to be killed. It goes by itself as well: a death signal is lost where the parent ends before
/// the child has asked for one.
pub fn linger() -> ! {
    sys::sleep_ms(500);
    sys::exit(0)
}

/// A child that is killed and waited for when it is no longer needed.
pub struct Twin(pub i32);

impl Twin {
    /// Runs `job` in a child by fork; its number is the exit status.
    pub fn start(job: &mut dyn FnMut() -> i32) -> Result<Twin, No> {
        match sys::fork() {
            Ok(0) => sys::exit(job()),
            Ok(pid) => Ok(Twin(pid)),
            Err(errno) => Err(at("fork", errno)),
        }
    }
    /// Waits for it. The status as wait(2) tells it.
    #[inline(never)]
    pub fn wait(mut self) -> Result<i32, No> {
        let pid = core::mem::replace(&mut self.0, 0);
        sys::wait(pid, 0).map(|(_, status)| status).at("wait")
    }
}

impl Drop for Twin {
    #[inline(never)]
    fn drop(&mut self) {
        if self.0 > 0 {
            let _ = sys::kill(self.0, SIGKILL);
            let _ = sys::wait(self.0, 0);
        }
    }
}

/// Runs `job` in a child; the exit status it must have is 0. What it wants to say otherwise is an errno.
pub fn in_twin(step: &'static str, job: &mut dyn FnMut() -> i32) -> Result<(), No> {
    match Twin::start(job)?.wait()? {
        0 => Ok(()),
        status if status & 0x7f != 0 => Err(no(Saw::Signal(status & 0x7f))),
        status => Err(at(step, status >> 8 & 0xff)),
    }
}

/// What ended a child that was expected to crash: the signal, or 0. The handlers stay and raise it again: one that nobody
/// handles is a line in the kernel's log.
pub fn signal_of(job: &mut dyn FnMut()) -> Result<i32, No> {
    let status = Twin::start(&mut || {
        job();
        0
    })?
    .wait()?;
    Ok(status & 0x7f)
}

/// What a thread runs; it ends when this returns.
pub type Entry = extern "C" fn(usize);

/// clone(2) with a stack of its own: the child runs `entry(argument)` and ends with exit(2), never exit_group(2).
///
/// # Safety
/// `stack` is the 16-byte aligned end of memory that lives as long as the child, and what the child touches does so too.
#[cfg(target_arch = "x86_64")]
#[unsafe(naked)]
pub unsafe extern "C" fn clone_on(
    _flags: usize,
    _stack: usize,
    _tid: usize,
    _id: usize,
    _entry: Entry,
    _a: usize,
) -> isize {
    // rdi flags, rsi stack, rdx parent tid, rcx child tid, r8 entry, r9 argument
    core::arch::naked_asm!(
        "sub rsi, 16",
        "mov [rsi], r8",
        "mov [rsi + 8], r9",
        "mov r10, rcx",
        "xor r8d, r8d",
        "mov eax, 56",
        "syscall",
        "test rax, rax",
        "jnz 2f",
        "xor ebp, ebp",
        "pop rax",
        "pop rdi",
        "call rax",
        "xor edi, edi",
        "mov eax, 60",
        "syscall",
        "ud2",
        "2: ret",
    )
}
#[cfg(target_arch = "aarch64")]
#[unsafe(naked)]
pub unsafe extern "C" fn clone_on(
    _flags: usize,
    _stack: usize,
    _tid: usize,
    _id: usize,
    _entry: Entry,
    _a: usize,
) -> isize {
    // x0 flags, x1 stack, x2 parent tid, x3 child tid, x4 entry, x5 argument; the call wants tls before child tid
    core::arch::naked_asm!(
        "stp x4, x5, [x1, #-16]!",
        "mov x4, x3",
        "mov x3, xzr",
        "mov x8, #220",
        "svc #0",
        "cbnz x0, 2f",
        "mov x29, xzr",
        "ldp x9, x0, [sp], #16",
        "blr x9",
        "mov x0, xzr",
        "mov x8, #93",
        "svc #0",
        "brk #1",
        "2: ret",
    )
}

/// clone3(2) with a stack of its own, otherwise as `clone_on`.
///
/// # Safety
/// As `clone_on`; `arguments` is a struct clone_args of `size` bytes.
#[cfg(target_arch = "x86_64")]
#[unsafe(naked)]
pub unsafe extern "C" fn clone3_on(_arguments: &[u64; 8], _size: usize, _entry: Entry, _a: usize) -> isize {
    core::arch::naked_asm!(
        "mov r8, rcx",
        "mov eax, 435",
        "syscall",
        "test rax, rax",
        "jnz 2f",
        "xor ebp, ebp",
        "mov rdi, r8",
        "call rdx",
        "xor edi, edi",
        "mov eax, 60",
        "syscall",
        "ud2",
        "2: ret",
    )
}
#[cfg(target_arch = "aarch64")]
#[unsafe(naked)]
pub unsafe extern "C" fn clone3_on(_arguments: &[u64; 8], _size: usize, _entry: Entry, _a: usize) -> isize {
    core::arch::naked_asm!(
        "mov x8, #435",
        "svc #0",
        "cbnz x0, 2f",
        "mov x29, xzr",
        "mov x0, x3",
        "blr x2",
        "mov x0, xzr",
        "mov x8, #93",
        "svc #0",
        "brk #1",
        "2: ret",
    )
}

/// What every thread library asks clone for: VM, FS, FILES, SIGHAND, THREAD, SYSVSEM, PARENT_SETTID, CHILD_CLEARTID.
pub const THREAD: usize = CLONE_VM
    | CLONE_FS
    | CLONE_FILES
    | CLONE_SIGHAND
    | CLONE_THREAD
    | CLONE_SYSVSEM
    | CLONE_PARENT_SETTID
    | CLONE_CHILD_CLEARTID;

/// A thread of ours: its stack and, in the first word of it, its id, which the kernel clears when it has ended.
pub struct Thread(Map);

impl Thread {
    /// Runs `entry(argument)`, by clone(2).
    #[inline(never)]
    pub fn start(entry: Entry, argument: usize) -> Result<Thread, No> {
        let stack = Map::private(32 * 1024)?;
        let id = core::ptr::from_ref(stack.word(0)) as usize;
        // SAFETY: the stack lives in the Thread, which waits for its end before it is unmapped.
        let answer = unsafe { clone_on(THREAD, stack.top(), id, id, entry, argument) };
        match sys::answer(answer) {
            Ok(_) => Ok(Thread(stack)),
            Err(errno) => Err(at("clone", errno)),
        }
    }
    /// The same by clone3(2).
    pub fn start3(entry: Entry, argument: usize) -> Result<Thread, No> {
        let stack = Map::private(32 * 1024)?;
        let id = core::ptr::from_ref(stack.word(0)) as u64;
        let arguments = [THREAD as u64, 0, id, id, 0, stack.at as u64, stack.len as u64, 0];
        // SAFETY: as above; clone_args version 0 has 64 bytes.
        match sys::answer(unsafe { clone3_on(&arguments, 64, entry, argument) }) {
            Ok(_) => Ok(Thread(stack)),
            Err(errno) => Err(errno.into()),
        }
    }
    pub fn id(&self) -> u32 {
        self.0.word(0).load(SeqCst)
    }
    /// Until it has ended.
    pub fn join(self) {}
}

impl Drop for Thread {
    #[inline(never)]
    fn drop(&mut self) {
        loop {
            match self.id() {
                0 => break,
                // FUTEX_WAIT, not private: that is how the kernel wakes. A time-out, should the filter refuse futex.
                id => {
                    let time = sys::Timespec::from_ms(5);
                    if let Err(EPERM | ENOSYS) = ask!(nr::FUTEX, self.0.word(0), 0, id, &time) {
                        sys::sleep_ms(1);
                    }
                }
            }
        }
    }
}

//! System calls: the bare one, `call!`, and safe wrappers of those that every check needs.
//!
//! Goes in: numbers and addresses. Comes out: `Ok(result)` or `Err(errno)`. Must not know: what is being asked and why.

use core::ffi::CStr;

use super::consts::*;
use super::nr;

/// What a system call answers.
pub type Answer<T = usize> = Result<T, i32>;

/// # Safety
/// As the system call: addresses among the arguments must be good for what the kernel does with them.
#[cfg(target_arch = "x86_64")]
#[inline]
pub unsafe fn raw(number: usize, a: [usize; 6]) -> isize {
    let answer: isize;
    // SAFETY: the caller answers for the arguments; rcx and r11 are the only registers the instruction clobbers.
    unsafe {
        core::arch::asm!(
            "syscall",
            inlateout("rax") number => answer,
            in("rdi") a[0], in("rsi") a[1], in("rdx") a[2], in("r10") a[3], in("r8") a[4], in("r9") a[5],
            out("rcx") _, out("r11") _, options(nostack)
        );
    }
    answer
}

/// # Safety
/// As the system call: addresses among the arguments must be good for what the kernel does with them.
#[cfg(target_arch = "aarch64")]
#[inline]
pub unsafe fn raw(number: usize, a: [usize; 6]) -> isize {
    let answer: isize;
    // SAFETY: the caller answers for the arguments.
    unsafe {
        core::arch::asm!(
            "svc #0",
            in("x8") number, inlateout("x0") a[0] => answer,
            in("x1") a[1], in("x2") a[2], in("x3") a[3], in("x4") a[4], in("x5") a[5],
            options(nostack)
        );
    }
    answer
}

/// The kernel's way of saying errno, as a result.
pub fn answer(raw: isize) -> Answer {
    if (-4095..0).contains(&raw) { Err(-raw as i32) } else { Ok(raw as usize) }
}

/// What may stand among the arguments of `call!`: integers (sign extended), pointers, C strings.
pub trait Argument {
    fn argument(self) -> usize;
}
macro_rules! arguments {
    ($($t:ty),*) => { $(impl Argument for $t { fn argument(self) -> usize { self as usize } })* };
}
arguments!(usize, isize, i32, u32, i64, u64, u8, u16, bool);
impl<T> Argument for *const T {
    fn argument(self) -> usize {
        self as usize
    }
}
impl<T> Argument for *mut T {
    fn argument(self) -> usize {
        self as usize
    }
}
impl<T> Argument for &T {
    fn argument(self) -> usize {
        core::ptr::from_ref(self) as usize
    }
}
impl<T> Argument for &mut T {
    fn argument(self) -> usize {
        core::ptr::from_mut(self) as usize
    }
}
/// A C string, spelled out because a reference to it is wider than an address.
pub fn path(text: &CStr) -> usize {
    text.as_ptr() as usize
}

/// `unsafe { call!(nr::READ, fd, buffer.as_mut_ptr(), 5) }` is an `Answer`. Arguments that are not given are 0.
macro_rules! call {
    ($number:expr $(, $argument:expr)* $(,)?) => {{
        let given: &[usize] = &[$( $crate::rt::sys::Argument::argument($argument) ),*];
        let all = core::array::from_fn(|i| if i < given.len() { given[i] } else { 0 });
        $crate::rt::sys::answer($crate::rt::sys::raw($number, all))
    }};
}
pub(crate) use call;

pub fn exit(status: i32) -> ! {
    loop {
        // SAFETY: takes no address and does not return; the loop is for a filter that refuses it.
        let _ = unsafe { call!(nr::EXIT_GROUP, status) };
        // SAFETY: as above.
        let _ = unsafe { call!(nr::EXIT, status) };
    }
}

pub fn read(fd: i32, room: &mut [u8]) -> Answer {
    // SAFETY: the buffer is `room`.
    unsafe { call!(nr::READ, fd, room.as_mut_ptr(), room.len()) }
}

pub fn write(fd: i32, bytes: &[u8]) -> Answer {
    // SAFETY: the buffer is `bytes`.
    unsafe { call!(nr::WRITE, fd, bytes.as_ptr(), bytes.len()) }
}

pub fn open(name: &CStr, flags: i32, mode: u32) -> Answer<i32> {
    open_at(AT_FDCWD, name, flags, mode)
}

/// Always with O_CLOEXEC.
pub fn open_at(dir: i32, name: &CStr, flags: i32, mode: u32) -> Answer<i32> {
    // SAFETY: a C string that outlives the call.
    unsafe { call!(nr::OPENAT, dir, path(name), flags | O_CLOEXEC, mode) }.map(|fd| fd as i32)
}

pub fn close(fd: i32) -> Answer {
    // SAFETY: takes no address.
    unsafe { call!(nr::CLOSE, fd) }
}

/// The start of a file, as much as fits. Ends at end of file, not at a short read.
pub fn read_file<'a>(name: &CStr, room: &'a mut [u8]) -> Answer<&'a [u8]> {
    let fd = open(name, O_RDONLY | O_NONBLOCK | O_NOCTTY, 0)?;
    let mut have = 0;
    let failed = loop {
        if have == room.len() {
            break None;
        }
        match read(fd, &mut room[have..]) {
            Ok(0) => break None,
            Ok(n) => have += n,
            Err(EINTR) => {}
            Err(e) => break Some(e),
        }
    };
    let _ = close(fd);
    match failed {
        Some(e) if have == 0 => Err(e),
        _ => Ok(&room[..have]),
    }
}

pub fn unlink(name: &CStr) -> Answer {
    // SAFETY: a C string that outlives the call.
    unsafe { call!(nr::UNLINKAT, AT_FDCWD, path(name), 0) }
}

pub fn rmdir(name: &CStr) -> Answer {
    // SAFETY: a C string that outlives the call.
    unsafe { call!(nr::UNLINKAT, AT_FDCWD, path(name), AT_REMOVEDIR) }
}

pub fn mkdir(name: &CStr, mode: u32) -> Answer {
    // SAFETY: a C string that outlives the call.
    unsafe { call!(nr::MKDIRAT, AT_FDCWD, path(name), mode) }
}

/// Both ends with O_CLOEXEC: what is read, what is written.
pub fn pipe() -> Answer<[i32; 2]> {
    let mut ends = [-1; 2];
    // SAFETY: room for two descriptors.
    unsafe { call!(nr::PIPE2, &mut ends, O_CLOEXEC) }.map(|_| ends)
}

/// Where a filter refuses to tell, the id of nobody: 0 or -1 would make `kill` reach whole groups.
pub fn getpid() -> i32 {
    // SAFETY: takes no argument.
    unsafe { call!(nr::GETPID) }.map_or(0x7fff_fff0, |pid| pid as i32)
}

pub fn kill(pid: i32, signal: i32) -> Answer {
    // SAFETY: takes no address.
    unsafe { call!(nr::KILL, pid, signal) }
}

/// A child as by fork: Ok(0) in the child. It dies with its parent, so that a killed probe leaves nobody behind, and a crash of
/// it is not taken for one of its parent (a child made by a bare clone exits with status 99 where it should die of a signal).
pub fn fork() -> Answer<i32> {
    // SAFETY: no new stack, so both return here, each with memory of its own.
    let pid = unsafe { call!(nr::CLONE, SIGCHLD) }? as i32;
    if pid == 0 {
        super::child::disown();
        // SAFETY: takes no address.
        let _ = unsafe { call!(nr::PRCTL, PR_SET_PDEATHSIG, SIGKILL) };
    }
    Ok(pid)
}

/// wait4: the pid that changed state (0 with WNOHANG and nothing to tell) and its status.
pub fn wait(pid: i32, flags: usize) -> Answer<(i32, i32)> {
    let mut status = 0i32;
    loop {
        // SAFETY: room for the status, no rusage.
        match unsafe { call!(nr::WAIT4, pid, &mut status, flags) } {
            Err(EINTR) => {}
            other => return other.map(|pid| (pid as i32, status)),
        }
    }
}

/// Seconds and nanoseconds, as the kernel's timespec on 64 bit.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct Timespec {
    pub sec: i64,
    pub nsec: i64,
}

impl Timespec {
    pub fn from_ms(ms: u64) -> Self {
        Timespec { sec: (ms / 1000) as i64, nsec: (ms % 1000 * 1_000_000) as i64 }
    }
}

/// Milliseconds of CLOCK_MONOTONIC, by the raw call.
pub fn now_ms() -> u64 {
    let mut now = Timespec::default();
    // SAFETY: room for a timespec.
    let _ = unsafe { call!(nr::CLOCK_GETTIME, CLOCK_MONOTONIC, &mut now) };
    now.sec as u64 * 1000 + now.nsec as u64 / 1_000_000
}

pub fn sleep_ms(ms: u64) {
    let time = Timespec::from_ms(ms);
    // SAFETY: a timespec to read and none to write.
    let _ = unsafe { call!(nr::NANOSLEEP, &time, 0) };
}

/// Zeroed memory; shared with children where `MAP_SHARED` is asked for.
pub fn map(size: usize, protection: usize, kind: usize) -> Answer<*mut u8> {
    // SAFETY: a new anonymous mapping, never MAP_FIXED.
    unsafe { call!(nr::MMAP, 0, size, protection, (kind & !MAP_FIXED) | MAP_ANONYMOUS, -1, 0) }.map(|at| at as *mut u8)
}

/// The kernel's struct sigaction on 64 bit.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct Sigaction {
    pub handler: usize,
    pub flags: usize,
    pub restorer: usize,
    pub mask: u64,
}

/// The head of siginfo_t. `at` is si_addr of a fault; of SIGSYS it is si_call_addr, and si_syscall is in `more`.
#[repr(C)]
pub struct Siginfo {
    pub signal: i32,
    pub errno: i32,
    pub code: i32,
    pad: i32,
    pub at: usize,
    pub more: [i32; 26],
}

pub type Handler = extern "C" fn(i32, *mut Siginfo, *mut core::ffi::c_void);

pub const SIG_DFL: usize = 0;
pub const SIG_IGN: usize = 1;

/// Installs a handler with SA_SIGINFO and `flags`.
pub fn handle(signal: i32, handler: Handler, flags: usize) -> Answer {
    set_action(signal, &Sigaction { handler: handler as usize, flags: flags | SA_SIGINFO, restorer: 0, mask: 0 })
        .map(|_| 0)
}

/// Sets what a signal does, and returns what it did. x86-64 insists on a restorer, which is filled in.
pub fn set_action(signal: i32, action: &Sigaction) -> Answer<Sigaction> {
    #[allow(unused_mut)] // aarch64 returns through the vDSO
    let mut new = *action;
    #[cfg(target_arch = "x86_64")]
    if new.handler > SIG_IGN && new.flags & SA_RESTORER == 0 {
        new.flags |= SA_RESTORER;
        new.restorer = restore as *const () as usize;
    }
    let mut old = Sigaction::default();
    // SAFETY: two structures of the kernel's layout; a signal set has 8 bytes.
    unsafe { call!(nr::RT_SIGACTION, signal, &new, &mut old, 8) }.map(|_| old)
}

/// rt_sigreturn. Where a filter refuses it there is no way back: the process ends with the errno as its status.
#[cfg(target_arch = "x86_64")]
#[unsafe(naked)]
unsafe extern "C" fn restore() {
    core::arch::naked_asm!("mov eax, 15", "syscall", "mov edi, eax", "neg edi", "mov eax, 231", "syscall", "ud2")
}

/// Sets the signal mask (bit n-1 is signal n) and returns the one before.
pub fn set_mask(mask: u64) -> u64 {
    let mut old = 0u64;
    // SAFETY: 2 is SIG_SETMASK; both sets have 8 bytes.
    let _ = unsafe { call!(nr::RT_SIGPROCMASK, 2, &mask, &mut old, 8) };
    old
}

pub const fn bit(signal: i32) -> u64 {
    1 << (signal - 1)
}

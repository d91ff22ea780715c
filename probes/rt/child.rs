//! Work done in a child, because it may crash, hang or change what it touches.
//!
//! Goes in: a job and a deadline. Comes out: how the child ended, and by which signal. Must not know: what a check is.
//!
//! The child has handlers for the six signals of a crash. They write into a shared `Slot` and exit, which keeps "traps:"
//! lines out of the kernel's log and tells a seccomp trap (caught) from a seccomp kill (not). Its soft RLIMIT_CORE is 1:
//! 0 would still run a core pattern that is a pipe, core(5). Memory written by the child is lost unless it is shared.

use core::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicUsize, Ordering::Relaxed};

use super::consts::*;
use super::nr;
use super::sys::{self, Answer, Siginfo, Timespec, call};

/// Shared between a parent and the child that works for it.
#[repr(C)]
pub struct Slot {
    /// Which job of a batch runs.
    pub at: AtomicUsize,
    /// How many jobs are finished; a change of it is progress.
    pub done: AtomicUsize,
    pub signal: AtomicI32,
    /// si_code, e.g. 1 SYS_SECCOMP of SIGSYS.
    pub code: AtomicI32,
    /// si_addr.
    pub address: AtomicUsize,
    /// si_syscall of SIGSYS.
    pub call: AtomicI32,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// Exited with this status.
    Exit(i32),
    /// A signal ended it; `caught` when our handler saw it first.
    Signal { signal: i32, caught: bool },
    /// Killed because it was not done after so many milliseconds.
    Timeout(u32),
    /// There was no child: the errno of clone.
    NoChild(i32),
}

pub const CRASHES: [i32; 6] = [SIGILL, SIGTRAP, SIGBUS, SIGFPE, SIGSEGV, SIGSYS];

/// The status a handler exits with; together with `Slot::signal` it means "caught".
const CAUGHT: i32 = 99;

static SLOT: AtomicPtr<Slot> = AtomicPtr::new(core::ptr::null_mut());

/// `T`, zeroed, in memory that children share. Never freed.
///
/// # Safety
/// All zeroes must be a valid `T`.
pub unsafe fn shared<T>() -> Answer<&'static mut T> {
    let at = sys::map(size_of::<T>(), PROT_READ | PROT_WRITE, MAP_SHARED)?;
    // SAFETY: page aligned, large enough, zeroed, and nobody else knows it.
    Ok(unsafe { &mut *at.cast::<T>() })
}

pub fn slot() -> Answer<&'static Slot> {
    // SAFETY: zeroes are a Slot.
    unsafe { shared::<Slot>() }.map(|slot| &*slot)
}

/// To be called once by a process that makes children: SIGCHLD is blocked (so that it can be waited for with a deadline)
/// and not ignored (so that a child can be waited for at all). Returns what was, for who must put it back before an exec.
pub fn prepare() -> (u64, sys::Sigaction) {
    let ignored = sys::set_action(SIGCHLD, &sys::Sigaction::default()).unwrap_or_default();
    let mask = sys::set_mask(0);
    sys::set_mask(mask | sys::bit(SIGCHLD));
    (mask, ignored)
}

/// Makes no call but exit: a filter may be what brought us here.
extern "C" fn crashed(signal: i32, info: *mut Siginfo, _: *mut core::ffi::c_void) {
    // SAFETY: SLOT is null or shared memory that is never unmapped; the kernel gave us `info`.
    let (slot, info) = unsafe { (SLOT.load(Relaxed).as_ref(), &*info) };
    if let Some(slot) = slot {
        slot.signal.store(signal, Relaxed);
        slot.code.store(info.code, Relaxed);
        slot.address.store(info.at, Relaxed);
        slot.call.store(info.more[0], Relaxed);
        sys::exit(CAUGHT);
    }
    // A child of the child: whoever made it is to see the signal itself.
    let _ = sys::set_action(signal, &sys::Sigaction::default());
    let _ = sys::kill(sys::getpid(), signal);
}

/// For a child of the child, which is to die of its signals visibly.
pub fn disown() {
    SLOT.store(core::ptr::null_mut(), Relaxed);
}

/// Handlers, core limit and an open signal mask, in a child that works for `slot`.
fn settle(slot: &Slot) {
    SLOT.store(core::ptr::from_ref(slot).cast_mut(), Relaxed);
    for signal in CRASHES {
        let _ = sys::handle(signal, crashed, SA_NODEFER);
    }
    let mut limit = [0usize; 2];
    // SAFETY: a struct rlimit to write, then the same one to read.
    unsafe {
        if call!(nr::PRLIMIT64, 0, RLIMIT_CORE, 0, &mut limit).is_ok() {
            limit[0] = limit[1].min(1);
            let _ = call!(nr::PRLIMIT64, 0, RLIMIT_CORE, &limit, 0);
        }
    }
    sys::set_mask(0);
}

/// Runs `job` in a child of its own and waits until it exits or `deadline` (ms) is over. The job's number is the status.
pub fn run(slot: &Slot, deadline: u32, job: &mut dyn FnMut() -> i32) -> End {
    slot.signal.store(0, Relaxed);
    match sys::fork() {
        Err(errno) => End::NoChild(errno),
        Ok(0) => {
            settle(slot);
            sys::exit(job())
        }
        Ok(pid) => wait(slot, pid, deadline),
    }
}

/// A parent that waits in `aside` is to look again: set in its child.
static WAITED_FOR: AtomicBool = AtomicBool::new(false);

/// Runs `job` in a child and waits until `said` or the child's end. Where it has said all, the child is left to end by itself,
/// which may take the kernel long: `reap` waits for it.
pub fn aside(slot: &Slot, deadline: u32, job: &mut dyn FnMut(), said: &dyn Fn() -> bool) -> End {
    slot.signal.store(0, Relaxed);
    let pid = match sys::fork() {
        Err(errno) => return End::NoChild(errno),
        Ok(0) => {
            settle(slot);
            WAITED_FOR.store(true, Relaxed);
            job();
            sys::exit(0)
        }
        Ok(pid) => pid,
    };
    let until = sys::now_ms() + u64::from(deadline);
    loop {
        match sys::wait(pid, WNOHANG) {
            Ok((0, _)) if said() => return End::Exit(0),
            Ok((0, _)) => {}
            Ok((_, status)) => return ended(slot, status),
            Err(errno) => return End::NoChild(errno),
        }
        let now = sys::now_ms();
        if now >= until {
            give_up(pid);
            return End::Timeout(deadline);
        }
        sleep_until_child(until - now);
    }
}

/// In a child: there is something to see for the parent, where it waits for that.
pub fn progress() {
    if WAITED_FOR.swap(false, Relaxed) {
        // SAFETY: takes no argument.
        if let Ok(parent) = unsafe { call!(nr::GETPPID) } {
            let _ = sys::kill(parent as i32, SIGCHLD);
        }
    }
}

/// Waits for children that were left to end by themselves, at most so long (ms).
pub fn reap(deadline: u32) {
    let until = sys::now_ms() + u64::from(deadline);
    loop {
        let now = sys::now_ms();
        match sys::wait(-1, WNOHANG) {
            Ok((0, _)) if now < until => sleep_until_child(until - now),
            Ok((pid, _)) if pid > 0 => {}
            _ => return,
        }
    }
}

/// Runs `job(i)` for each `i` below `count` in one child. Where one crashes or is not done after `deadline` (ms), `ended(i, how)`
/// is called and a new child goes on with the next one: a crash in job n costs job n only. Where many hang, somebody holds them up
/// on purpose, and 60 ms are enough.
pub fn batch(slot: &Slot, count: usize, deadline: u32, job: &mut dyn FnMut(usize), ended: &mut dyn FnMut(usize, End)) {
    let (mut next, mut hung) = (0, 0);
    while next < count {
        let deadline = if hung < 5 { deadline } else { deadline.min(60) };
        slot.done.store(next, Relaxed);
        slot.at.store(next, Relaxed);
        let end = run(slot, deadline, &mut || {
            for i in next..count {
                slot.at.store(i, Relaxed);
                job(i);
                slot.done.store(i + 1, Relaxed);
            }
            0
        });
        let done = slot.done.load(Relaxed).min(count);
        if done < count {
            hung += i32::from(matches!(end, End::Timeout(_)));
            ended(done, end);
        }
        next = done + 1;
    }
}

/// Waits for `pid`; every finished job of a batch gives the next one the whole deadline.
fn wait(slot: &Slot, pid: i32, deadline: u32) -> End {
    let mut done = slot.done.load(Relaxed);
    let mut until = sys::now_ms() + u64::from(deadline);
    loop {
        match sys::wait(pid, WNOHANG) {
            Ok((0, _)) => {}
            Ok((_, status)) => return ended(slot, status),
            Err(errno) => return End::NoChild(errno),
        }
        let now = sys::now_ms();
        if slot.done.load(Relaxed) != done {
            done = slot.done.load(Relaxed);
            until = now + u64::from(deadline);
        }
        if now >= until {
            give_up(pid);
            return End::Timeout(deadline);
        }
        sleep_until_child(until - now);
    }
}

/// Where a filter refuses to kill, waiting would be for ever: the child then dies with us.
fn give_up(pid: i32) {
    if sys::kill(pid, SIGKILL).is_ok() {
        let _ = sys::wait(pid, 0);
    }
}

/// Until SIGCHLD arrives (it is blocked, see `prepare`) or the time is over.
pub fn sleep_until_child(ms: u64) {
    let (set, time) = (sys::bit(SIGCHLD), Timespec::from_ms(ms));
    // SAFETY: a set of 8 bytes, no siginfo wanted, a timespec.
    match unsafe { call!(nr::RT_SIGTIMEDWAIT, &set, 0, &time, 8) } {
        Ok(_) | Err(EAGAIN | EINTR) => {}
        // A filter that refuses it must not make us spin.
        Err(_) => sys::sleep_ms(ms.min(2)),
    }
}

fn ended(slot: &Slot, status: i32) -> End {
    let (signal, exit) = (status & 0x7f, status >> 8 & 0xff);
    let caught = slot.signal.load(Relaxed);
    if signal != 0 {
        End::Signal { signal, caught: false }
    } else if exit == CAUGHT && caught != 0 {
        End::Signal { signal: caught, caught: true }
    } else {
        End::Exit(exit)
    }
}

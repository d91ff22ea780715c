//! What the seccomp filter of this cell answers, asked without executing anything.
//!
//! Goes in: calls with their arguments. Comes out: a verdict for each. Must not know: what the calls are.
//!
//! A child installs a filter of its own that answers SECCOMP_RET_TRACE to everything. Nobody traces it, so whatever the existing
//! filters allow answers ENOSYS; their errno, trap or kill takes precedence and shows through, seccomp(2). Nothing is
//! executed, so any argument can be asked about. What remains is a filter that answers ENOSYS itself: a second
//! child answers SECCOMP_RET_USER_NOTIF instead, and its parent tells the kernel to answer an errno that does not exist.
//! Who then still gets ENOSYS got it from the existing filter. Where a kernel or a sandbox lacks the second, ENOSYS is ambiguous
//! and the verdict is `unknown`. A filter that answers TRACE, LOG or
//! nothing at all reads as `allow`; one that notifies a process that answers, as what that answers.

use core::sync::atomic::{AtomicBool, AtomicI32, Ordering::Relaxed};

use super::arguments;
use super::rt::child::{self, End, Slot};
use super::rt::consts::*;
use super::rt::nr;
use super::rt::sys::{self, Answer, call};
use super::rt::text::Text;

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Allow,
    Errno(i32),
    Trap,
    Kill,
    /// A process outside is notified and did not answer.
    Notify,
    /// ENOSYS from whoever: see above.
    Unknown,
}

impl Verdict {
    pub fn text(self) -> Text<16> {
        let mut text = Text::new();
        match self {
            Verdict::Allow => text.add(b"allow"),
            Verdict::Errno(errno) => text.add(b"errno ").add_number(i64::from(errno)),
            Verdict::Trap => text.add(b"trap"),
            Verdict::Kill => text.add(b"kill"),
            Verdict::Notify => text.add(b"notify"),
            Verdict::Unknown => text.add(b"unknown"),
        };
        text
    }
}

/// Which way into the kernel.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    Native,
    #[cfg(target_arch = "x86_64")]
    Int80,
}

#[derive(Clone, Copy)]
pub struct Query {
    pub number: usize,
    pub arguments: [usize; 6],
    pub entry: Entry,
    /// Whether an ENOSYS could be the filter's: not when the call was made and answered anything else.
    pub doubtful: bool,
    pub verdict: Verdict,
}

impl Query {
    pub const NONE: Query =
        Query { number: 0, arguments: [0; 6], entry: Entry::Native, doubtful: true, verdict: Verdict::Unknown };

    pub fn of(number: usize, doubtful: bool) -> Query {
        Query { number, arguments: arguments::seen_by_filter(number), doubtful, ..Query::NONE }
    }

    /// # Safety
    /// Our filter is installed, so that nothing is executed.
    unsafe fn ask(&self) -> isize {
        let mut arguments = self.arguments;
        if self.entry == Entry::Native && (self.number == nr::EXIT_GROUP || self.number == nr::RT_SIGRETURN) {
            arguments[0] = MAGIC as usize;
        }
        match self.entry {
            // SAFETY: not executed.
            Entry::Native => unsafe { sys::raw(self.number, arguments) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: not executed.
            Entry::Int80 => unsafe { super::entries::int80(self.number, arguments[0], arguments[1]) },
        }
    }
}

/// exit_group and rt_sigreturn with this as first argument are asked about; with any other they are made. As an exit status it is
/// 200, more than any errno.
pub const MAGIC: u32 = 0x7ab1_c0c8;

/// An errno that no filter of this world answers.
const OURS: i32 = 4000;

const RET_ALLOW: u32 = 0x7fff_0000;
pub const RET_TRACE: u32 = 0x7ff0_0000;
const RET_NOTIFY: u32 = 0x7fc0_0000;

const MOST: usize = 512;

struct Board {
    answers: [isize; MOST],
    answered: [bool; MOST],
    /// The errno with which our filter was refused, or -1 when it had no effect.
    refused: AtomicI32,
    /// The listener's descriptor + 1.
    listener: AtomicI32,
    finished: AtomicBool,
}

/// In the child that installed it, and not in its parent.
static INSTALLED: AtomicBool = AtomicBool::new(false);

/// How the asking went, for a fact.
#[derive(Clone, Copy, Default)]
pub struct Map {
    /// None when the first filter could be installed.
    pub trace: Option<i32>,
    pub notify: Option<i32>,
}

impl Map {
    /// `trace and notify`, or what was refused.
    pub fn text(self) -> Text<48> {
        let mut text = Text::new();
        match (self.trace, self.notify) {
            (None, None) => text.add(b"trace and notify"),
            (None, Some(errno)) => text.add(b"trace, notify refused with errno ").add_number(i64::from(errno)),
            (Some(-1), _) => text.add(b"a filter of our own has no effect"),
            (Some(errno), _) => text.add(b"refused with errno ").add_number(i64::from(errno)),
        };
        text
    }
}

/// Fills in the verdicts of at most 512 queries.
pub fn ask(slot: &Slot, queries: &mut [Query]) -> Map {
    let mut map = Map { trace: Some(ENOMEM), notify: Some(ENOMEM) };
    // SAFETY: zeroes are a Board.
    let Ok(board) = (unsafe { child::shared::<Board>() }) else { return map };
    let (answers, answered) = (board.answers.as_mut_ptr(), board.answered.as_mut_ptr());
    let asked: &[Query] = queries;
    let mut ends = [None; MOST];
    child::batch(
        slot,
        asked.len().min(MOST),
        1000,
        &mut |i| {
            if !INSTALLED.swap(true, Relaxed) {
                board.refused.store(traced().err().unwrap_or(0), Relaxed);
            }
            if board.refused.load(Relaxed) == 0 {
                // SAFETY: within the arrays; only this child writes now; our filter is installed.
                unsafe {
                    answers.add(i).write(asked[i].ask());
                    answered.add(i).write(true);
                }
            }
        },
        &mut |i, end| ends[i] = Some(end),
    );
    let refused = board.refused.load(Relaxed);
    map.trace = (refused != 0).then_some(refused);
    for (i, query) in queries.iter_mut().enumerate().take(MOST) {
        query.verdict = match (ends[i], board.answered[i]) {
            (Some(End::Signal { signal: SIGSYS, caught }), _) => {
                if caught {
                    Verdict::Trap
                } else {
                    Verdict::Kill
                }
            }
            (Some(End::Timeout(_)), _) => Verdict::Notify,
            (end, _) if exempt(query.number, end, board.answers[i]) => Verdict::Allow,
            (None, true) => match -board.answers[i] as i32 {
                ENOSYS if query.doubtful => Verdict::Unknown,
                ENOSYS => Verdict::Allow,
                errno => Verdict::Errno(errno),
            },
            _ => Verdict::Unknown,
        };
        // What is settled needs no second asking; what was not asked at all cannot be.
        query.doubtful = query.verdict == Verdict::Unknown && board.answered[i];
    }
    map.notify = if map.trace.is_none() { notified(board, queries).err() } else { map.trace };
    map
}

/// Since 6.14 the two calls of user probes pass every filter, so ours does not stop them: their own answers show. Elsewhere
/// than on the kernel's trampoline one answers ENXIO, in newer kernels EPROTO (arch/x86/kernel/uprobes.c).
#[cfg(target_arch = "x86_64")]
fn exempt(number: usize, end: Option<End>, answer: isize) -> bool {
    match (number, end) {
        (nr::URETPROBE, Some(End::Signal { signal, .. })) => signal == SIGILL,
        (nr::UPROBE, None) => answer == -(ENXIO as isize) || answer == -(EPROTO as isize),
        _ => false,
    }
}
#[cfg(target_arch = "aarch64")]
fn exempt(_: usize, _: Option<End>, _: isize) -> bool {
    false
}

/// Asks the doubtful ones a second time.
fn notified(board: &'static mut Board, queries: &mut [Query]) -> Answer {
    let board: &Board = board;
    let answers = board.answers.as_ptr().cast_mut();
    let asked: &[Query] = queries;
    board.listener.store(0, Relaxed);
    board.refused.store(0, Relaxed);
    // SAFETY: a process of its own memory that shares our descriptors, so that we can use the listener it gets.
    let pid = unsafe { call!(nr::CLONE, CLONE_FILES | SIGCHLD as usize) }? as i32;
    if pid == 0 {
        // SAFETY: takes no address.
        let _ = unsafe { call!(nr::PRCTL, PR_SET_PDEATHSIG, SIGKILL) };
        match install(RET_NOTIFY, 8) {
            Ok(fd) => board.listener.store(fd as i32 + 1, Relaxed),
            Err(errno) => {
                board.refused.store(errno, Relaxed);
                sys::exit(1);
            }
        }
        for (i, query) in asked.iter().enumerate().filter(|(_, query)| query.doubtful) {
            // SAFETY: within the array; our filter is installed.
            unsafe { answers.add(i).write(query.ask()) };
        }
        board.finished.store(true, Relaxed);
        sys::exit(0);
    }
    let result = serve(board);
    // Once it has finished it does not matter whether it still came to exit by itself.
    let _ = sys::kill(pid, SIGKILL);
    let _ = sys::wait(pid, 0);
    let done = result.is_ok() && board.finished.load(Relaxed);
    let listener = board.listener.load(Relaxed);
    if listener > 0 {
        let _ = sys::close(listener - 1);
    }
    if !done {
        return Err(match board.refused.load(Relaxed) {
            0 => result.err().unwrap_or(ETIMEDOUT),
            errno => errno,
        });
    }
    for (i, query) in queries.iter_mut().enumerate().filter(|(_, query)| query.doubtful) {
        query.verdict = match -board.answers[i] as i32 {
            OURS => Verdict::Allow,
            errno => Verdict::Errno(errno),
        };
    }
    Ok(0)
}

/// Answers every notification with our errno until the child is done.
fn serve(board: &Board) -> Answer {
    let until = sys::now_ms() + 1000;
    let listener = loop {
        let (listener, refused) = (board.listener.load(Relaxed), board.refused.load(Relaxed));
        if listener > 0 {
            break listener - 1;
        }
        if refused != 0 {
            return Err(refused);
        }
        if sys::now_ms() > until {
            return Err(ETIMEDOUT);
        }
        let pause = sys::Timespec { sec: 0, nsec: 50_000 };
        // SAFETY: a timespec to read.
        let _ = unsafe { call!(nr::NANOSLEEP, &pause, 0) };
    };
    // Before 5.9 a listener does not hang up when the last process of its filter is gone, hence the short wait.
    let short = sys::Timespec::from_ms(5);
    while !board.finished.load(Relaxed) {
        if sys::now_ms() > until {
            return Err(ETIMEDOUT);
        }
        // struct pollfd: descriptor, POLLIN.
        let mut poll = [listener, 1];
        let mut time = short;
        // SAFETY: one pollfd, a timespec, no mask.
        if unsafe { call!(nr::PPOLL, &mut poll, 1, &mut time, 0, 8) }? == 0 || poll[1] >> 16 & 1 == 0 {
            continue;
        }
        // struct seccomp_notif, zeroed as the kernel demands; its first word is the id of the notification.
        let mut notification = [0u64; 10];
        // SECCOMP_IOCTL_NOTIF_RECV. ENOENT: who asked is gone.
        // SAFETY: room for the structure.
        match unsafe { call!(nr::IOCTL, listener, 0xc050_2100u32, &mut notification) } {
            Err(ENOENT | EINTR) => continue,
            other => other?,
        };
        // struct seccomp_notif_resp: id, value, error and flags.
        let response = [notification[0], 0, u64::from(-OURS as u32)];
        // SECCOMP_IOCTL_NOTIF_SEND
        // SAFETY: the structure.
        let _ = unsafe { call!(nr::IOCTL, listener, 0xc018_2101u32, &response) };
    }
    Ok(0)
}

/// Installs the tracing filter and makes sure that it has an effect: one that has none would let us execute what we ask about.
fn traced() -> Answer {
    install(RET_TRACE, 0)?;
    // SAFETY: takes no argument; harmless if it is made.
    match unsafe { call!(nr::SCHED_YIELD) } {
        Ok(_) => Err(-1),
        Err(_) => Ok(0),
    }
}

/// A filter that answers `action` to everything but the end of the process and the return from a handler.
pub fn install(action: u32, flags: usize) -> Answer {
    const LOAD: u16 = 0x20;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    // struct sock_filter: code, jump if true, jump if false, operand. The call's number is at 0, its first argument at 16.
    let program: [(u16, u8, u8, u32); 8] = [
        (LOAD, 0, 0, 0),
        (JUMP_IF_EQUAL, 2, 0, nr::EXIT_GROUP as u32),
        (JUMP_IF_EQUAL, 1, 0, nr::RT_SIGRETURN as u32),
        (RETURN, 0, 0, action),
        (LOAD, 0, 0, 16),
        (JUMP_IF_EQUAL, 0, 1, MAGIC),
        (RETURN, 0, 0, action),
        (RETURN, 0, 0, RET_ALLOW),
    ];
    let code = program
        .map(|(code, yes, no, k)| u64::from(code) | u64::from(yes) << 16 | u64::from(no) << 24 | u64::from(k) << 32);
    // struct sock_fprog: length, padding, address.
    let head: [usize; 2] = [code.len(), code.as_ptr() as usize];
    // SAFETY: takes no address.
    let _ = unsafe { call!(nr::PRCTL, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    // SAFETY: the program lives until the call returns; 1 is SECCOMP_SET_MODE_FILTER.
    match unsafe { call!(nr::SECCOMP, 1, flags, &head) } {
        // Before 3.17, or where a filter knows only the older way: PR_SET_SECCOMP, SECCOMP_MODE_FILTER.
        // SAFETY: as above.
        Err(first) if flags == 0 => unsafe { call!(nr::PRCTL, 22, 2, &head) }.map_err(|_| first),
        other => other,
    }
}

//! Checks and programs in children: a deadline, the signal that ended them, what they wrote.
//!
//! Goes in: a check, or a program with arguments and input. Comes out: what was seen, never a crash of the probe itself.
//! Must not know: what is asked. Children are made with the libc's own fork, because its locks, its thread list and its
//! handlers are part of what a program depends on.

use core::ffi::{CStr, c_char};

use crate::cell::{Cell, absent, contains};
use crate::rt::consts::*;
use crate::rt::sys::call;
use crate::rt::{self, nr, sys};
use crate::saw::{self, Saw};
use crate::{Check, value};

/// Asks in a child; one that ends without an answer is itself the observation.
pub fn ask(cell: &Cell, check: &Check) -> Saw {
    saw::forget();
    let pid = match fork(cell) {
        Ok(pid) => pid,
        Err(saw) => return saw,
    };
    if pid == 0 {
        saw::finish((check.ask)(cell, check.argument));
    }
    match wait(pid, check.deadline) {
        End::Timeout => Saw::Timeout(check.deadline),
        End::Signal(signal) => Saw::Signal(signal),
        End::Exit(status) => match saw::seen() {
            Some(Ok(saw) | Err(saw)) => saw,
            None => value!("ended with status {status} in the middle of the check"),
        },
    }
}

/// How a child ended.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum End {
    Exit(i32),
    Signal(i32),
    Timeout,
}

/// The libc's fork. The child is the first of a process group of its own and has the default signal mask.
pub fn fork(cell: &Cell) -> Result<i32, Saw> {
    let old = sys::set_mask(sys::bit(SIGCHLD));
    let Some(fork) = cell.symbol(c"fork") else { return Err(absent(c"fork", true)) };
    // SAFETY: takes nothing.
    let pid = cell.check(unsafe { core::mem::transmute::<usize, extern "C" fn() -> i32>(fork)() }, "fork");
    if pid.as_ref().is_ok_and(|pid| *pid == 0) {
        sys::set_mask(old & !sys::bit(SIGCHLD));
        // SAFETY: neither takes an address.
        unsafe {
            let _ = call!(nr::SETPGID, 0, 0);
            let _ = call!(nr::PRCTL, PR_SET_PDEATHSIG, SIGKILL);
        }
        // 1 and not 0: a core pattern that is a pipe runs for 0 too, core(5).
        let mut limit = [0usize; 2];
        // SAFETY: a struct rlimit to write, then the same one to read.
        unsafe {
            if call!(nr::PRLIMIT64, 0, RLIMIT_CORE, 0, &mut limit).is_ok() {
                limit[0] = limit[1].min(1);
                let _ = call!(nr::PRLIMIT64, 0, RLIMIT_CORE, &limit, 0);
            }
        }
    }
    pid
}

/// Waits until the child ends or the deadline is over; then the child and its group are killed. SIGCHLD must be blocked.
pub fn wait(pid: i32, deadline: u64) -> End {
    let start = sys::now_ms();
    loop {
        match sys::wait(pid, WNOHANG) {
            Ok((0, _)) => {}
            Ok((_, status)) => return end(status),
            Err(_) => return End::Exit(-1),
        }
        let passed = sys::now_ms().saturating_sub(start);
        if passed >= deadline {
            let _ = sys::kill(-pid, SIGKILL);
            let _ = sys::kill(pid, SIGKILL);
            let _ = sys::wait(pid, 0);
            return End::Timeout;
        }
        rt::child::sleep_until_child(deadline - passed);
    }
}

pub fn end(status: i32) -> End {
    if status & 0x7f == 0 { End::Exit(status >> 8 & 0xff) } else { End::Signal(status & 0x7f) }
}

/// A program to run.
pub struct Program<'a> {
    pub path: &'a CStr,
    /// With the program's own name first and a null pointer last.
    pub arguments: &'a [*const c_char],
    pub environment: *const *const c_char,
    pub input: &'a [u8],
    /// What it says when the rest is not wanted any more; it is killed then. Empty: never.
    pub until: &'a [u8],
    pub deadline: u64,
}

/// What a program wrote, as much as fitted, and how it ended.
pub struct Ran {
    pub end: End,
    pub out: usize,
    pub err: usize,
    /// Why it could not be executed.
    pub refused: Option<i32>,
}

/// Runs a program with `input` as its standard input; at most a pipe full (64 KiB) of it is offered.
pub fn run(cell: &Cell, program: &Program, out: &mut [u8], err: &mut [u8]) -> Result<Ran, Saw> {
    let pipe = || sys::pipe().map_err(|errno| Saw::Errno(errno, "pipe"));
    let (to, from, errors, refusal) = (pipe()?, pipe()?, pipe()?, pipe()?);
    let pid = fork(cell)?;
    if pid == 0 {
        for (end, at) in [(to[0], 0), (from[1], 1), (errors[1], 2)] {
            // SAFETY: takes no address; the pipes' own descriptors close on exec.
            let _ = unsafe { call!(nr::DUP3, end, at, 0) };
        }
        // SAFETY: a terminated path and two arrays that end in null.
        let refused =
            unsafe { call!(nr::EXECVE, sys::path(program.path), program.arguments.as_ptr(), program.environment) };
        let errno = refused.err().unwrap_or(0);
        let _ = sys::write(refusal[1], &errno.to_ne_bytes());
        sys::exit(127);
    }
    for fd in [to[0], from[1], errors[1], refusal[1]] {
        let _ = sys::close(fd);
    }
    // A program that ends without reading its input must not end us.
    let ignore = sys::Sigaction { handler: sys::SIG_IGN, ..sys::Sigaction::default() };
    let before = sys::set_action(SIGPIPE, &ignore);
    let _ = sys::write(to[1], program.input);
    let _ = sys::close(to[1]);
    if let Ok(before) = before {
        let _ = sys::set_action(SIGPIPE, &before);
    }
    let start = sys::now_ms();
    let (out, err, late) = drain(from[0], errors[0], out, err, program, start + program.deadline);
    let passed = sys::now_ms().saturating_sub(start);
    let end = if late { wait(pid, 0) } else { wait(pid, program.deadline.saturating_sub(passed).max(1)) };
    // What the program left behind in its group goes with it.
    let _ = sys::kill(-pid, SIGKILL);
    let mut errno = [0; 4];
    let refused = (sys::read(refusal[0], &mut errno) == Ok(4)).then(|| i32::from_ne_bytes(errno));
    for fd in [from[0], errors[0], refusal[0]] {
        let _ = sys::close(fd);
    }
    Ok(Ran { end, out, err, refused })
}

#[repr(C)]
struct PollFd {
    fd: i32,
    asked: i16,
    got: i16,
}

/// Reads both pipes until both are closed, or there is enough, or it is late; what does not fit is read and dropped.
fn drain(
    from: i32,
    errors: i32,
    out: &mut [u8],
    err: &mut [u8],
    program: &Program,
    until: u64,
) -> (usize, usize, bool) {
    let mut fds = [PollFd { fd: from, asked: 1, got: 0 }, PollFd { fd: errors, asked: 1, got: 0 }];
    let mut have = [0, 0];
    while fds.iter().any(|entry| entry.fd >= 0) {
        let now = sys::now_ms();
        if now >= until {
            return (have[0], have[1], true);
        }
        let rest = sys::Timespec::from_ms(until - now);
        // SAFETY: two entries, a timespec, no signal mask.
        let _ = unsafe { call!(nr::PPOLL, fds.as_mut_ptr(), 2, &rest, 0, 8) };
        for (at, room) in [&mut *out, &mut *err].into_iter().enumerate() {
            if fds[at].fd < 0 || fds[at].got == 0 {
                continue;
            }
            let mut spill = [0; 512];
            let rest = &mut room[have[at]..];
            let full = rest.is_empty();
            match sys::read(fds[at].fd, if full { &mut spill } else { rest }) {
                Ok(0) => fds[at].fd = -1,
                Ok(size) => {
                    let seen = have[at].saturating_sub(program.until.len());
                    have[at] += if full { 0 } else { size };
                    if !program.until.is_empty() && contains(&room[seen..have[at]], program.until) {
                        return (have[0], have[1], true);
                    }
                }
                Err(EINTR | EAGAIN) => {}
                Err(_) => fds[at].fd = -1,
            }
        }
    }
    (have[0], have[1], false)
}

//! `kernel run`: the first program of a cell, which runs the others.
//!
//! Goes in: the probe's checks and a list of programs. Comes out: what they write, and after each a line that says how it
//! ended. Must not know: what the programs are.

use core::sync::atomic::{AtomicI32, Ordering::Relaxed};

use super::asking::options::Options;
use super::rt::child;
use super::rt::consts::*;
use super::rt::line::Line;
use super::rt::process::{self, Strings};
use super::rt::sys::{self, Answer, call};
use super::rt::{nr, out};

enum Ended {
    Status(i32),
    Signal(i32),
    Timeout(u32),
    Errno(i32),
}

/// Runs everything; 0 when the last line could be written.
pub fn run(options: &Options) -> i32 {
    // Not inherited by children, so programs do not see it. Where we are PID 1 of the cell the kernel does it anyway.
    // SAFETY: takes no address.
    let _ = unsafe { call!(nr::PRCTL, PR_SET_CHILD_SUBREAPER, 1) };
    let before = child::prepare();
    // SAFETY: zero is such a number.
    let Ok(failed) = (unsafe { child::shared::<AtomicI32>() }) else { return 1 };
    let _ = watch(options.deadline, &mut small_pipe);
    let mut written = tell(0, watch(options.deadline, &mut || super::probe(options)));
    let mut rest = options.programs;
    let mut n = 0;
    while let Some(program) = next(&mut rest) {
        n += 1;
        written = tell(n, start(options.deadline, program, before, failed));
    }
    if written { 0 } else { 1 }
}

/// Makes the pipe at standard output one page (fcntl(2); anything but a pipe says no), so that nobody reads more at a time:
/// podman 3.0 loses the last byte where its monitor reads 8,192. In a child, since a filter may kill for the call.
fn small_pipe() -> i32 {
    const F_SETPIPE_SZ: usize = 1031;
    // SAFETY: takes no address.
    i32::from(unsafe { call!(nr::FCNTL, 1, F_SETPIPE_SZ, 4096) }.is_err())
}

/// The arguments up to the next `--`, as an argv; `rest` moves behind it.
fn next(rest: &mut Option<Strings>) -> Option<Strings> {
    let program = (*rest)?;
    let mut at = program;
    loop {
        let here = at.pointer();
        match at.next() {
            None => {
                *rest = None;
                break;
            }
            Some(text) if text.to_bytes() == b"--" => {
                // argv is ours to write: the NULL ends this program's arguments.
                // SAFETY: `here` is an element of argv, which lies on our own stack.
                unsafe { here.cast_mut().write(core::ptr::null()) };
                *rest = Some(at);
                break;
            }
            Some(_) => {}
        }
    }
    let mut first = program;
    first.next().map(|_| program).or_else(|| if rest.is_some() { next(rest) } else { None })
}

/// Executes a program with signals as we found them and waits for it. Shared memory, which exec leaves behind, tells a program
/// that could not be executed from one that exits.
fn start(deadline: u32, program: Strings, before: (u64, sys::Sigaction), failed: &AtomicI32) -> Ended {
    failed.store(0, Relaxed);
    let ended = watch(deadline, &mut || {
        let _ = sys::set_action(SIGCHLD, &before.1);
        sys::set_mask(before.0);
        let name = program.pointer();
        // SAFETY: argv and envp end in NULL; argv has a first element.
        let answer = unsafe { call!(nr::EXECVE, *name, name, process::env().pointer()) };
        failed.store(answer.err().unwrap_or(0), Relaxed);
        127
    });
    match failed.load(Relaxed) {
        0 => ended,
        errno => Ended::Errno(errno),
    }
}

/// Runs `job` in a child; when it has ended, or its time is over, nothing it started is left.
fn watch(deadline: u32, job: &mut dyn FnMut() -> i32) -> Ended {
    // Not `sys::fork`: a death signal would be inherited by the program.
    // SAFETY: no new stack, memory of its own.
    let pid = match unsafe { call!(nr::CLONE, SIGCHLD) } {
        Ok(0) => sys::exit(job()),
        Ok(pid) => pid as i32,
        Err(errno) => return Ended::Errno(errno),
    };
    let until = sys::now_ms() + u64::from(deadline);
    let ended = loop {
        match sys::wait(-1, WNOHANG) {
            Ok((who, status)) if who == pid => {
                break match status & 0x7f {
                    0 => Ended::Status(status >> 8 & 0xff),
                    signal => Ended::Signal(signal),
                };
            }
            Ok((0, _)) => {}
            // An orphan that came to us.
            Ok(_) => continue,
            Err(errno) => break Ended::Errno(errno),
        }
        let now = sys::now_ms();
        if now >= until {
            break Ended::Timeout(deadline);
        }
        child::sleep_until_child(until - now);
    };
    if matches!(ended, Ended::Timeout(_)) {
        let _ = sys::kill(pid, SIGKILL);
    }
    clear();
    ended
}

/// Kills what a program left, and whatever that hands to us, until nobody is left. An orphan becomes ours because we are
/// PID 1 or a subreaper. Bounded, because a fork bomb may be faster.
fn clear() {
    let until = sys::now_ms() + 2000;
    while sys::now_ms() < until {
        match sys::wait(-1, WNOHANG) {
            Err(_) => return,
            Ok((0, _)) => {
                if kill_children().is_err() && sys::getpid() == 1 {
                    // Without /proc, and nobody here but us and ours.
                    let _ = sys::kill(-1, SIGKILL);
                }
                child::sleep_until_child(5);
            }
            Ok(_) => {}
        }
    }
}

/// Sends SIGKILL to our children, as /proc lists them. Not to -1, even as PID 1: a process that an engine put into the cell
/// by itself (exec) is nobody's child here and none of our business.
fn kill_children() -> Answer {
    let mut room = [0; 4096];
    let list = sys::read_file(c"/proc/thread-self/children", &mut room)?;
    for word in list.split(|b| *b == b' ') {
        if let Some(pid) = super::rt::text::number(word, 10).filter(|pid| *pid > 1) {
            let _ = sys::kill(pid as i32, SIGKILL);
        }
    }
    Ok(0)
}

fn tell(n: i64, ended: Ended) -> bool {
    let mut line = Line::new();
    line.number("exit", n);
    match ended {
        Ended::Status(status) => line.number("status", i64::from(status)),
        Ended::Signal(signal) => line.number("signal", i64::from(signal)),
        Ended::Timeout(ms) => line.number("timeout", i64::from(ms)),
        Ended::Errno(errno) => line.number("errno", i64::from(errno)),
    };
    out::send(&mut line)
}

//! The launcher: reads a list of operations, performs them, executes a program in what they made, and tells how it ended.
//!
//! `launch OPS STATUS LIFELINE`, each the number of a descriptor; OPS may be a path, LIFELINE may be `-`. One socket can be
//! all three. Goes in: the list (see `format.rs`). Comes out, on STATUS, one line each: `child PID`, `note INDEX errno N`,
//! `setup INDEX errno N`, `started`, `exit N` or `signal N`, `usage USER_US SYSTEM_US MAXRSS_KB`, `report KEY LENGTH` and
//! that many bytes, `malformed`, `done`. When LIFELINE reaches its end, everything the launcher started is killed.
//!
//! `launch agent DIR [DEVICE]` serves a driver on another machine: see `agent/mod.rs`. As the first process of a machine it
//! is that agent, see `agent/init.rs`.
//!
//! It knows no policy: which mounts, which capabilities, which filter, and why, is the driver's business. So the driver
//! needs no unsafe code, and the same launcher serves where nothing else of abicus runs.
#![no_std]
#![no_main]

#[path = "../rt/mod.rs"]
mod rt;
#[path = "../rt/start.rs"]
mod start;

mod act;
mod agent;
mod cell;
mod execute;
mod format;
mod limit;
mod supervise;
mod tell;

use core::ffi::CStr;

use format::{HEADER, MAX_LIST, announced};
use rt::consts::*;
use rt::sys::{self, call};
use rt::{nr, process, text};

/// Where the list is kept: too large for the stack, and needed until the last operation.
struct Room(core::cell::UnsafeCell<[u8; MAX_LIST]>);
// SAFETY: the launcher has one thread.
unsafe impl Sync for Room {}
static ROOM: Room = Room(core::cell::UnsafeCell::new([0; MAX_LIST]));

fn main() -> i32 {
    // The kernel's own name for it: the first process of a cell may be this program too.
    if sys::getpid() == 1 && process::args().next() == Some(c"/init") {
        agent::init::main();
    }
    let mut arguments = process::args().skip(1);
    match (arguments.next(), arguments.next(), arguments.next(), arguments.next()) {
        (Some(agent), Some(dir), device, None) if agent == c"agent" => agent::run(dir, device),
        (Some(ops), Some(status), Some(lifeline), None) => {
            let ops = number(ops).map_or(From::File(ops), From::Descriptor);
            number(status).map_or(2, |status| launch(ops, status, number(lifeline)))
        }
        _ => {
            let _ = sys::write(2, b"usage: launch OPS STATUS LIFELINE\n       launch agent DIR [DEVICE]\n");
            2
        }
    }
}

/// Where the list is.
enum From<'a> {
    Descriptor(i32),
    File(&'a CStr),
}

fn launch(ops: From, status: i32, lifeline: Option<i32>) -> i32 {
    // SAFETY: the only place that refers to ROOM.
    let room = unsafe { &mut *ROOM.0.get() };
    // Before anything else: until it has sent the list, the driver may change the limits of this process.
    let list = match ops {
        From::Descriptor(fd) => read_list(fd, room),
        From::File(name) => sys::open(name, O_RDONLY, 0).ok().and_then(|fd| read_list(fd, room)),
    };
    limit::raise();
    let (status, lifeline) = match (out_of_the_way(status), lifeline.map(out_of_the_way).transpose()) {
        (Ok(status), Ok(lifeline)) => (status, lifeline),
        (Err(errno), _) | (_, Err(errno)) => {
            tell::line(status, format_args!("setup {} errno {errno}\n", u32::MAX));
            return 2;
        }
    };
    close_others(status, lifeline.unwrap_or(status));
    let Some(list) = list else {
        tell::line(status, format_args!("malformed\n"));
        return 2;
    };
    supervise::run(list, status, lifeline)
}

fn number(argument: &CStr) -> Option<i32> {
    let bytes = argument.to_bytes();
    if !bytes.iter().all(u8::is_ascii_digit) {
        return None;
    }
    text::number(bytes, 10).and_then(|n| i32::try_from(n).ok())
}

/// Out of the way of slots and of what the cell gets as 0, 1 and 2, and never inherited by it.
fn out_of_the_way(fd: i32) -> sys::Answer<i32> {
    const F_DUPFD_CLOEXEC: i32 = 1030;
    // SAFETY: takes no address. Beyond the limit the number is an invalid argument (fcntl(2)).
    unsafe { call!(nr::FCNTL, fd, F_DUPFD_CLOEXEC, 200) }.map(|fd| fd as i32).map_err(|_| EMFILE)
}

/// Reads as many bytes as the list announces, and not one more: what follows on a socket is the lifeline's.
fn read_list(fd: i32, room: &mut [u8]) -> Option<&[u8]> {
    read_exactly(fd, &mut room[..HEADER])?;
    let length = announced(room).ok()?;
    read_exactly(fd, &mut room[HEADER..length])?;
    Some(&room[..length])
}

fn read_exactly(fd: i32, room: &mut [u8]) -> Option<()> {
    let mut have = 0;
    while have < room.len() {
        match sys::read(fd, &mut room[have..]) {
            Ok(n) if n > 0 => have += n,
            Err(EINTR) => {}
            _ => return None,
        }
    }
    Some(())
}

/// Closes what was inherited by accident: a descriptor of whoever started the driver must not show up in a cell.
fn close_others(a: i32, b: i32) {
    let (low, high) = (a.min(b) as u32, a.max(b) as u32);
    for (from, to) in [(3, low - 1), (low + 1, high.saturating_sub(1)), (high + 1, u32::MAX)] {
        // SAFETY: takes no address. Linux 5.9 has it; before, the table is walked as far as limits usually reach.
        if from <= to && unsafe { call!(nr::CLOSE_RANGE, from, to, 0) }.is_err() {
            for fd in from..=to.min(4096) {
                let _ = sys::close(fd as i32);
            }
        }
    }
}

//! Takes what a limit should refuse: memory, processes, time of CPUs. For the driver's canaries, no part of the checks.
//!
//! ```text
//! surroundings hold MIB       maps and touches as much memory
//! surroundings crowd NUMBER   has so many children at once
//! surroundings burn NUMBER    has so many children count for a while: thousandths of a CPU they had together
//! ```
//! Goes in: the arguments. Comes out: `held N`, how many were had. Under a limit that works by killing, nothing.

use core::ffi::CStr;

use crate::rt::consts::SIGKILL;
use crate::rt::nr;
use crate::rt::process;
use crate::rt::sys::{self, call};
use crate::rt::text::{Text, number};

/// Runs what the arguments ask for; None: they ask for no such thing.
pub fn asked() -> Option<i32> {
    let mut arguments = process::args().skip(1);
    let what = arguments.next()?.to_bytes();
    let most =
        |mut rest: core::iter::Skip<process::Strings>| rest.next().map(CStr::to_bytes).and_then(|n| number(n, 10));
    let held = match what {
        b"hold" => memory(most(arguments)?),
        b"crowd" => processes(most(arguments)?),
        b"burn" => time(most(arguments)?),
        _ => return None,
    };
    let said = Text::<40>::format(format_args!("held {held}\n"));
    Some(i32::from(sys::write(1, said.bytes()).is_err()))
}

/// A MiB at a time, each page written to: memory that is only mapped is not used.
fn memory(most: u64) -> u64 {
    const MIB: usize = 1 << 20;
    const PAGE: usize = 4096;
    const READ_WRITE: usize = 3;
    const PRIVATE_ANONYMOUS: usize = 0x22;
    for have in 0..most {
        let Ok(at) = sys::map(MIB, READ_WRITE, PRIVATE_ANONYMOUS) else { return have };
        for offset in (0..MIB).step_by(PAGE) {
            // SAFETY: inside the mapping made above, which nobody else knows.
            unsafe { at.add(offset).write_volatile(1) };
        }
    }
    most
}

/// Long enough for several periods of the scheduler's bandwidth control, of 100 ms each.
fn time(children: u64) -> u64 {
    const WALL_MS: u64 = 700;
    const RUSAGE_CHILDREN: i32 = -1;
    let until = sys::now_ms() + WALL_MS;
    for _ in 0..children.min(64) {
        if sys::fork() == Ok(0) {
            while sys::now_ms() < until {}
            sys::exit(0);
        }
    }
    while sys::wait(-1, 0).is_ok() {}
    let mut usage = [0i64; 36];
    // SAFETY: room for a struct rusage, which has 18 words on 64 bit.
    let _ = unsafe { call!(nr::GETRUSAGE, RUSAGE_CHILDREN, &mut usage) };
    let used_us = (usage[0] + usage[2]) * 1_000_000 + usage[1] + usage[3];
    used_us.unsigned_abs() / WALL_MS
}

/// They do nothing but be there until they are killed.
fn processes(most: u64) -> u64 {
    let mut children = [0i32; 4096];
    let mut have = 0;
    for child in children.iter_mut().take(most as usize) {
        match sys::fork() {
            Ok(0) => loop {
                sys::sleep_ms(1000);
            },
            Ok(pid) => {
                *child = pid;
                have += 1;
            }
            Err(_) => break,
        }
    }
    for pid in children.iter().take(have) {
        let _ = sys::kill(*pid, SIGKILL);
    }
    while sys::wait(-1, 0).is_ok() {}
    have as u64
}

//! The network.
//!
//! Goes in: nothing. Comes out: facts and answers. Must not know: which answers are good. `check.rs` says how to add one.

use super::check::{Asked, Check, Facts, How, Saw};
use super::rt::consts::*;
use super::rt::nr;
use super::rt::sys::{self, call};

pub static FACTS: &[fn(&mut Facts)] = &[];

pub static CHECKS: &[Check] = &[Check { id: "net.family.unix", how: How::Batch, run: unix }];

/// socket(2) of family AF_UNIX.
fn unix() -> Asked {
    // SAFETY: takes no address.
    let fd = unsafe { call!(nr::SOCKET, 1, 1 | O_CLOEXEC, 0) }?;
    let _ = sys::close(fd as i32);
    Ok(Saw::Ok)
}

//! /proc, /sys, /dev, limits, capabilities.
//!
//! Goes in: nothing. Comes out: facts and answers. Must not know: which answers are good. `check.rs` says how to add one.

use super::check::{Asked, At, Check, Facts, How, Saw, wrong};
use super::rt::consts::*;
use super::rt::sys;

pub static FACTS: &[fn(&mut Facts)] = &[];

pub static CHECKS: &[Check] = &[Check { id: "dev.null.discard", how: How::Batch, run: null }];

/// null(4): takes everything, gives nothing.
fn null() -> Asked {
    let fd = sys::open(c"/dev/null", O_RDWR, 0)?;
    let (written, read) = (sys::write(fd, b"abicus"), sys::read(fd, &mut [0; 8]));
    let _ = sys::close(fd);
    match (written.at("write")?, read.at("read")?) {
        (6, 0) => Ok(Saw::Ok),
        (written, read) => wrong(format_args!("wrote {written} of 6, read {read} of 0")),
    }
}

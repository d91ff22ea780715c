//! File systems.
//!
//! Goes in: nothing. Comes out: facts and answers. Must not know: which answers are good. `check.rs` says how to add one.

use super::check::{Asked, Check, Facts, How, Saw};
use super::rt::consts::*;
use super::rt::sys;

pub static FACTS: &[fn(&mut Facts)] = &[];

pub static CHECKS: &[Check] = &[Check { id: "fs.root.open", how: How::Batch, run: root_open }];

/// open(2) of the cell's root directory.
fn root_open() -> Asked {
    let fd = sys::open(c"/", O_RDONLY | O_DIRECTORY, 0)?;
    let _ = sys::close(fd);
    Ok(Saw::Ok)
}

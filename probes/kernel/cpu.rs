//! The processor.
//!
//! Goes in: nothing. Comes out: facts and answers. Must not know: which answers are good. `check.rs` says how to add one.

use super::check::{Asked, Check, Facts, How, Saw};
use super::rt::consts::AT_PAGESZ;
use super::rt::process;

pub static FACTS: &[fn(&mut Facts)] = &[];

pub static CHECKS: &[Check] = &[Check { id: "cpu.page.size", how: How::Batch, run: page_size }];

/// getauxval(3), AT_PAGESZ in bytes.
fn page_size() -> Asked {
    process::aux(AT_PAGESZ).map(|size| Saw::Number(size as i64)).ok_or(Saw::NotAsked("no AT_PAGESZ"))
}

//! Micro-benchmarks, only with --bench.
//!
//! Goes in: nothing. Comes out: facts and answers. Must not know: which answers are good. `check.rs` says how to add one.

use super::check::{Asked, Check, Facts, How, Samples, Saw};
use super::rt::consts::CLOCK_MONOTONIC;
use super::rt::nr;
use super::rt::sys::{Timespec, call};

pub static FACTS: &[fn(&mut Facts)] = &[];

pub static CHECKS: &[Check] = &[Check { id: "bench.getppid", how: How::Within(2000), run: getppid }];

/// Nanoseconds of the cheapest system call: 32 batches of 1,000.
fn getppid() -> Asked {
    let mut samples = Samples { unit: "ns", count: 0, tenths: [0; 64] };
    while samples.count < 32 {
        let (mut from, mut to) = (Timespec::default(), Timespec::default());
        // SAFETY: room for two times; getppid takes nothing.
        unsafe {
            call!(nr::CLOCK_GETTIME, CLOCK_MONOTONIC, &mut from)?;
            for _ in 0..1000 {
                let _ = call!(nr::GETPPID);
            }
            call!(nr::CLOCK_GETTIME, CLOCK_MONOTONIC, &mut to)?;
        }
        let ns = (to.sec - from.sec) * 1_000_000_000 + to.nsec - from.nsec;
        samples.tenths[samples.count] = (ns / 100) as u32;
        samples.count += 1;
    }
    Ok(Saw::Samples(samples))
}

//! Micro-benchmarks, only with --bench.
//!
//! Goes in: nothing. Comes out: the nanoseconds that one thing takes in each of many short batches, all of them: the smallest
//! repeats within a few per cent, the mean follows the neighbours. Must not know: what is fast.

mod memory;
mod process;

use super::check::{Asked, Check, Facts, How, Samples, Saw};
use super::entries;
use super::rt::consts::*;
use super::rt::nr;
use super::rt::sys::{self, Timespec, call};

pub static FACTS: &[fn(&mut Facts)] = &[];

/// No answer takes longer: the slowest sandbox is stopped by it.
const LONGEST: How = How::Within(2000);

macro_rules! benchmarks {
    ($($id:literal => $run:expr),* $(,)?) => {
        pub static CHECKS: &[Check] = &[$(Check { id: $id, how: LONGEST, run: || $run }),*];
    };
}

benchmarks![
    "bench.getppid" => measure(&mut || one(nr::GETPPID)),
    "bench.clock.raw" => measure(&mut || now(None).map(|_| ())),
    "bench.clock.vdso" => {
        let clock = Some(entries::find_clock()?);
        measure(&mut || now(clock).map(|_| ()))
    },
    "bench.spin" => measure(&mut || { spin(); Ok(()) }),
    "bench.open" => measure(&mut || sys::close(sys::open(c"/", O_RDONLY, 0)?).map(|_| ())),
    "bench.stat" => measure(&mut || {
        let mut stat = [0u64; 18];
        // SAFETY: a C string and room for struct stat.
        unsafe { call!(nr::NEWFSTATAT, AT_FDCWD, sys::path(c"/"), &mut stat, 0) }.map(|_| ())
    }),
    "bench.fault" => memory::fault(),
    "bench.copy.small" => memory::copy(4096),
    "bench.copy.large" => memory::copy(1 << 20),
    "bench.copy.memory" => memory::copy(32 << 20),
    "bench.pipe" => process::pipe(),
    "bench.switch" => process::switch(),
    "bench.fork" => process::fork(),
    "bench.spawn" => process::spawn(),
];

/// A system call without arguments.
fn one(number: usize) -> Result<(), i32> {
    // SAFETY: takes no address.
    unsafe { call!(number) }.map(|_| ())
}

/// CLOCK_MONOTONIC in nanoseconds, through the vDSO where one is given: in some sandboxes a call costs more than what is to be
/// measured.
fn now(clock: Option<entries::Clock>) -> Result<i64, i32> {
    let mut now = Timespec::default();
    match clock {
        Some(read) => sys::answer(read(CLOCK_MONOTONIC, &mut now) as isize)?,
        // SAFETY: room for a time.
        None => unsafe { call!(nr::CLOCK_GETTIME, CLOCK_MONOTONIC, &mut now) }?,
    };
    Ok(now.sec * 1_000_000_000 + now.nsec)
}

/// A hundred additions that depend on each other: the speed of the processor, by which the rest can be compared.
#[inline(never)]
fn spin() {
    let mut sum = 0u64;
    for i in 0..100u64 {
        sum = core::hint::black_box(sum + i);
    }
}

/// How often each batch is repeated, and how long all of them may take, ns.
const BATCHES: usize = 48;
const BUDGET: i64 = 60_000_000;

/// Batches of as many runs as make each last a hundred times as long as a look at the clock, and at least 50 µs.
fn measure(run: &mut dyn FnMut() -> Result<(), i32>) -> Asked {
    let clock = entries::find_clock().ok();
    let mut look = i64::MAX;
    for _ in 0..16 {
        let from = now(clock)?;
        look = look.min(now(clock)? - from);
    }
    let (long, started) = ((100 * look).max(50_000), now(clock)?);
    let mut samples = Samples { unit: "ns", count: 0, tenths: [0; 64] };
    let mut times = 1i64;
    loop {
        let from = now(clock)?;
        for _ in 0..times {
            run()?;
        }
        let took = (now(clock)? - from).max(1);
        if samples.count == 0 && took < long && times < 1 << 20 {
            times *= if took * 8 < long { 8 } else { 2 };
            continue;
        }
        samples.tenths[samples.count] = (took * 10 / times).clamp(0, u32::MAX.into()) as u32;
        samples.count += 1;
        // Five batches are the least that says something.
        let late = now(clock)? - started > BUDGET;
        if samples.count == BATCHES || (late && samples.count >= 5) {
            return Ok(Saw::Samples(samples));
        }
    }
}

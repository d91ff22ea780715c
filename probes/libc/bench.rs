//! How fast the chosen string functions are, against the fastest this CPU could run.
//!
//! Goes in: the study of `variant`, and our own plain functions. Comes out: raw samples of the chosen function, and of the
//! best of all that were tried, taken in turns in one process on the same memory. Must not know: what is fast enough.

use core::sync::atomic::{AtomicPtr, Ordering::Relaxed};

use crate::Check;
use crate::cell::{Cell, absent, fact};
use crate::own;
use crate::rt::consts::{MAP_PRIVATE, MAP_SHARED, PROT_READ, PROT_WRITE};
use crate::rt::sys;
use crate::saw::{Answer, SAMPLES, Saw, Seen};
use crate::variant::{self, FUNCTIONS};

/// Takes up to three arguments and returns a word, as all seven functions do.
type Function = unsafe extern "C" fn(usize, usize, usize) -> usize;

/// What is measured: a function, and bytes for each call.
#[rustfmt::skip]
const CASES: [(usize, usize); 17] = [
    (0, 64), (0, 4096), (0, 1 << 20),
    (1, 64), (1, 4096), (1, 1 << 20),
    (2, 64), (2, 4096), (2, 1 << 20),
    (3, 64), (3, 4096), (4, 64), (4, 4096), (5, 64), (5, 4096), (6, 64), (6, 4096),
];

/// Two checks for each case: the chosen function, the best one.
#[rustfmt::skip]
const IDS: &[&str] = &[
    "libc.bench.memcpy.64", "libc.bench.memcpy.64.best",
    "libc.bench.memcpy.4k", "libc.bench.memcpy.4k.best",
    "libc.bench.memcpy.1m", "libc.bench.memcpy.1m.best",
    "libc.bench.memmove.64", "libc.bench.memmove.64.best",
    "libc.bench.memmove.4k", "libc.bench.memmove.4k.best",
    "libc.bench.memmove.1m", "libc.bench.memmove.1m.best",
    "libc.bench.memset.64", "libc.bench.memset.64.best",
    "libc.bench.memset.4k", "libc.bench.memset.4k.best",
    "libc.bench.memset.1m", "libc.bench.memset.1m.best",
    "libc.bench.strlen.64", "libc.bench.strlen.64.best",
    "libc.bench.strlen.4k", "libc.bench.strlen.4k.best",
    "libc.bench.strcmp.64", "libc.bench.strcmp.64.best",
    "libc.bench.strcmp.4k", "libc.bench.strcmp.4k.best",
    "libc.bench.strcpy.64", "libc.bench.strcpy.64.best",
    "libc.bench.strcpy.4k", "libc.bench.strcpy.4k.best",
    "libc.bench.memchr.64", "libc.bench.memchr.64.best",
    "libc.bench.memchr.4k", "libc.bench.memchr.4k.best",
];

pub const CHECKS: &[Check] = &{
    let mut checks = [Check::new("", ask); IDS.len()];
    let mut at = 0;
    while at < IDS.len() {
        checks[at] = Check { argument: at, bench: true, ..Check::new(IDS[at], ask) };
        at += 1;
    }
    checks
};

/// Nanoseconds a batch takes: a hundred times what reading the clock costs, and short enough to fit between interrupts.
const BATCH: u64 = 20_000;
const CANDIDATES: usize = 20;

/// The result of the last case, shared, because one child measures for two checks.
#[repr(C)]
struct Last {
    /// The case, from 1; 0 is none.
    case: usize,
    chosen: [u32; SAMPLES],
    best: [u32; SAMPLES],
}

static LAST: AtomicPtr<Last> = AtomicPtr::new(core::ptr::null_mut());

/// Makes room for it, before any child measures.
pub fn prepare() {
    if let Ok(at) = sys::map(size_of::<Last>(), PROT_READ | PROT_WRITE, MAP_SHARED) {
        LAST.store(at.cast(), Relaxed);
    }
}

fn ask(cell: &Cell, at: usize) -> Seen {
    let last = LAST.load(Relaxed);
    if last.is_null() {
        return Err(Saw::Value(b"no memory for measurements"));
    }
    // SAFETY: the mapping is as large as the type and never unmapped; only one child runs at a time.
    let last = unsafe { &mut *last };
    let case = at / 2;
    if last.case != case + 1 {
        measure(cell, case, last)?;
        last.case = case + 1;
    }
    Ok(Saw::Samples(crate::saw::keep_samples(if at.is_multiple_of(2) { &last.chosen } else { &last.best })))
}

/// A function that was tried.
#[derive(Clone, Copy)]
struct Candidate {
    call: Function,
    /// Offset in the libc, or none of our own.
    offset: u64,
    own: &'static str,
    samples: [u32; SAMPLES],
}

/// A call takes arguments by the function's meaning: blocks and texts lie at fixed places of the memory.
fn arguments(function: usize, memory: usize, size: usize) -> (usize, usize, usize) {
    let (to, from) = (memory + 64, memory + (2 << 20) + 64);
    match function {
        0 | 1 => (to, from, size),
        2 => (to, b'a' as usize, size),
        3 => (from, 0, 0),
        4 => (from, memory + (4 << 20) + 64, 0),
        5 => (to, from, 0),
        _ => (from, b'z' as usize, size + 1),
    }
}

fn measure(cell: &Cell, case: usize, last: &mut Last) -> Result<(), Saw> {
    let (function, size) = CASES[case];
    let name = FUNCTIONS[function];
    let Some(found) = cell.objects.find(name) else { return Err(absent(name, true)) };
    let study = variant::study(cell)?;
    let memory = sys::map(6 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE).map_err(|errno| Saw::Errno(errno, "mmap"))?;
    // SAFETY: within the mapping. Two equal texts of `size` letters, the last of them z; everything is touched once.
    unsafe {
        core::ptr::write_bytes(memory, 0, 6 << 20);
        for text in [2 << 20, 4 << 20] {
            core::ptr::write_bytes(memory.add(text + 64), b'b', size);
            *memory.add(text + 64 + size - 1) = b'z';
        }
    }
    let mut list = [const { None::<Candidate> }; CANDIDATES];
    let mut count = 0;
    let mut add = |call: Function, offset: u64, own: &'static str| {
        if count < list.len() {
            list[count] = Some(Candidate { call, offset, own, samples: [0; SAMPLES] });
            count += 1;
        }
    };
    let (offsets, reached) = variant::reachable(study, function);
    for offset in &offsets[..reached] {
        // SAFETY: an address where the libc has an implementation of this function for this CPU.
        add(unsafe { core::mem::transmute::<usize, Function>(found.base + *offset as usize) }, *offset, "");
    }
    own_functions(function, &mut add);
    let set = arguments(function, memory as usize, size);
    let calls = calibrate(cell, list[0].as_ref().map(|first| first.call), set);
    for sample in 0..SAMPLES {
        for candidate in list.iter_mut().flatten() {
            candidate.samples[sample] = time(cell, candidate.call, set, calls);
        }
    }
    let fastest = |candidate: &&Candidate| candidate.samples.iter().copied().min();
    let Some(best) = list.iter().flatten().min_by_key(fastest) else { return Err(Saw::Value(b"nothing to measure")) };
    let Some(chosen) = list[0] else { return Err(Saw::Value(b"nothing to measure")) };
    (last.chosen, last.best) = (chosen.samples, best.samples);
    let mut id = Answer::of(IDS[case * 2 + 1].as_bytes());
    id.add(b".function");
    let mut text = Answer::new();
    if best.own.is_empty() {
        variant::name(found.base, best.offset, function, &mut text);
    } else {
        text.add(b"own ").add(best.own.as_bytes());
    }
    fact(core::str::from_utf8(id.bytes()).unwrap_or("libc.bench"), text.bytes());
    Ok(())
}

fn own_functions(function: usize, add: &mut impl FnMut(Function, u64, &'static str)) {
    match function {
        0 | 1 => add(own::copy_rep, 0, "rep movsb"),
        2 => add(own::set_rep, 0, "rep stosb"),
        _ => {}
    }
    if own::has_avx2() {
        match function {
            0 | 1 => add(own::copy_avx2, 0, "avx2"),
            2 => add(own::set_avx2, 0, "avx2"),
            3 => add(own::length_avx2, 0, "avx2"),
            4 => add(own::compare_avx2, 0, "avx2"),
            5 => add(own::copy_text_avx2, 0, "avx2"),
            _ => add(own::find_avx2, 0, "avx2"),
        }
    }
    if own::has_avx512() {
        match function {
            0 | 1 => add(own::copy_avx512, 0, "avx512"),
            2 => add(own::set_avx512, 0, "avx512"),
            _ => {}
        }
    }
}

fn now(cell: &Cell) -> u64 {
    let mut time = [0; 2];
    // SAFETY: room for a timespec. The libc's function, because it reads the clock without a system call.
    unsafe { cell.clock_gettime(1, &mut time) };
    time[0] as u64 * 1_000_000_000 + time[1] as u64
}

#[inline(never)]
fn repeat(call: Function, (a, b, c): (usize, usize, usize), calls: u64) {
    for _ in 0..calls {
        // SAFETY: the arguments are what the function takes, see `arguments`.
        unsafe { core::hint::black_box(call(a, b, c)) };
    }
}

/// How many calls make a batch.
fn calibrate(cell: &Cell, call: Option<Function>, set: (usize, usize, usize)) -> u64 {
    let Some(call) = call else { return 1 };
    let mut calls = 1;
    loop {
        let start = now(cell);
        repeat(call, set, calls);
        let took = now(cell) - start;
        if took >= BATCH || calls >= 1 << 20 {
            return calls.max(1);
        }
        calls *= 2;
    }
}

/// Tenths of a nanosecond for one call.
fn time(cell: &Cell, call: Function, set: (usize, usize, usize), calls: u64) -> u32 {
    let start = now(cell);
    repeat(call, set, calls);
    ((now(cell) - start) * 10 / calls) as u32
}

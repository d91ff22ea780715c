//! Which implementation of each string function the libc chose on this CPU, and how that is known.
//!
//! Goes in: the functions' machine code, and the same libc started again with CPU features masked by its own tunables.
//! Comes out: a name per function in glibc's manner (`avx512_unaligned_erms`), the evidence as facts, and the addresses of
//! the other implementations this CPU could run. Must not know: how fast they are.
//!
//! Two methods, because each alone misleads: the code says what is used but not why, and a mask that moves the choice says
//! why but not to what. Found on glibc 2.31 to 2.43 against the symbols of the debug packages.

use core::ffi::{CStr, c_char};
use core::sync::atomic::{AtomicPtr, Ordering::Relaxed};

use crate::cell::{Cell, Kind, fact, resolve};
use crate::child::{Program, run};
use crate::decode::{Class, Vectors, WINDOW, classify};
use crate::rt::consts::{MAP_SHARED, PROT_READ, PROT_WRITE};
use crate::rt::{process, sys};
use crate::saw::{Answer, Saw, Seen};
use crate::{Check, value};

/// The functions, in the order of everything here.
pub const FUNCTIONS: [&CStr; 7] = [c"memcpy", c"memmove", c"memset", c"strlen", c"strcmp", c"strcpy", c"memchr"];
pub const COUNT: usize = FUNCTIONS.len();

const fn check(id: &'static str, argument: usize) -> Check {
    Check { argument, ..Check::new(id, variant) }
}

pub const CHECKS: &[Check] = &[
    check("libc.variant.memcpy", 0),
    check("libc.variant.memmove", 1),
    check("libc.variant.memset", 2),
    check("libc.variant.strlen", 3),
    check("libc.variant.strcmp", 4),
    check("libc.variant.strcpy", 5),
    check("libc.variant.memchr", 6),
];

/// What each run of the study turns off. The first word is the feature's name for the evidence; `_Usable` is how
/// glibc before 2.33 calls it. The last ones turn off whole generations, to reach every implementation in the file.
const MASKS: [&CStr; 16] = [
    c"GLIBC_TUNABLES=glibc.cpu.hwcaps=-AVX512F,-AVX512F_Usable",
    c"GLIBC_TUNABLES=glibc.cpu.hwcaps=-AVX512VL,-AVX512VL_Usable",
    c"GLIBC_TUNABLES=glibc.cpu.hwcaps=-AVX512BW,-AVX512BW_Usable",
    c"GLIBC_TUNABLES=glibc.cpu.hwcaps=-AVX2,-AVX2_Usable",
    c"GLIBC_TUNABLES=glibc.cpu.hwcaps=-AVX_Fast_Unaligned_Load",
    c"GLIBC_TUNABLES=glibc.cpu.hwcaps=-ERMS",
    c"GLIBC_TUNABLES=glibc.cpu.hwcaps=-BMI2,-BMI2_Usable",
    c"GLIBC_TUNABLES=glibc.cpu.hwcaps=-LZCNT,-LZCNT_Usable",
    c"GLIBC_TUNABLES=glibc.cpu.hwcaps=-RTM,-RTM_Usable",
    c"GLIBC_TUNABLES=glibc.cpu.hwcaps=-SSE4_2",
    c"GLIBC_TUNABLES=glibc.cpu.hwcaps=-Fast_Unaligned_Copy",
    // From here on: generations.
    c"GLIBC_TUNABLES=glibc.cpu.hwcaps=-AVX512F,-AVX512VL,-AVX512BW,-AVX512F_Usable,-AVX512VL_Usable,-AVX512BW_Usable",
    c"GLIBC_TUNABLES=glibc.cpu.hwcaps=-AVX512F,-AVX512VL,-AVX512BW,-AVX512F_Usable,-AVX512VL_Usable,-AVX512BW_Usable,-ERMS",
    c"GLIBC_TUNABLES=glibc.cpu.hwcaps=-AVX512F,-AVX512VL,-AVX512BW,-AVX2,-AVX,-AVX_Fast_Unaligned_Load,-AVX512F_Usable,-AVX512VL_Usable,-AVX512BW_Usable,-AVX2_Usable,-AVX_Usable",
    c"GLIBC_TUNABLES=glibc.cpu.hwcaps=-AVX512F,-AVX512VL,-AVX512BW,-AVX2,-AVX,-AVX_Fast_Unaligned_Load,-AVX512F_Usable,-AVX512VL_Usable,-AVX512BW_Usable,-AVX2_Usable,-AVX_Usable,-SSE4_2,-Fast_Unaligned_Copy",
    c"GLIBC_TUNABLES=glibc.cpu.hwcaps=-AVX512F,-AVX512VL,-AVX512BW,-AVX2,-AVX,-AVX_Fast_Unaligned_Load,-AVX512F_Usable,-AVX512VL_Usable,-AVX512BW_Usable,-AVX2_Usable,-AVX_Usable,-SSE4_2,-SSSE3,-Fast_Unaligned_Copy,-Fast_Unaligned_Load,-ERMS",
];
/// How many of them turn off one feature.
const SINGLE: usize = 11;

/// Addresses from the start of the object that defines the function; 0 where there is none.
type Offsets = [u64; COUNT];

/// What was found out, shared with all children, so that the second check need not ask again.
#[repr(C)]
pub struct Study {
    done: u32,
    chosen: Offsets,
    masked: [Offsets; MASKS.len()],
}

static STUDY: AtomicPtr<Study> = AtomicPtr::new(core::ptr::null_mut());

/// Makes room for the study, before any child asks for it.
pub fn prepare() {
    if let Ok(at) = sys::map(size_of::<Study>(), PROT_READ | PROT_WRITE, MAP_SHARED) {
        STUDY.store(at.cast(), Relaxed);
    }
}

fn offsets(cell: &Cell) -> Offsets {
    FUNCTIONS.map(|name| cell.objects.find(name).map_or(0, |found| (resolve(found) - found.base) as u64))
}

/// `LOADER libc --offsets`: what this process would use, for the process that started it.
pub fn print_offsets(cell: &Cell) -> i32 {
    let offsets = offsets(cell);
    // SAFETY: numbers as bytes.
    let bytes = unsafe { core::slice::from_raw_parts(offsets.as_ptr().cast(), size_of::<Offsets>()) };
    i32::from(sys::write(1, bytes) != Ok(bytes.len()))
}

/// This environment with one variable more; without a tunable that is set already.
fn environment(extra: &'static CStr) -> [*const c_char; 128] {
    let mut list = [core::ptr::null(); 128];
    let rest = process::env().filter(|entry| !entry.to_bytes().starts_with(b"GLIBC_TUNABLES="));
    for (slot, entry) in list.iter_mut().zip(core::iter::once(extra).chain(rest.take(126))) {
        *slot = entry.as_ptr();
    }
    list
}

/// Starts this program again under a mask and reads what it would use.
fn ask_again(cell: &Cell, mask: &'static CStr) -> Result<Offsets, Saw> {
    let mut bytes = [0; size_of::<Offsets>()];
    let environment = environment(mask);
    let program = Program {
        path: cell.loader,
        arguments: &[cell.loader.as_ptr(), cell.program.as_ptr(), c"--offsets".as_ptr(), core::ptr::null()],
        environment: environment.as_ptr(),
        input: b"",
        until: b"",
        deadline: 1000,
    };
    let ran = run(cell, &program, &mut bytes, &mut [])?;
    match ran.refused {
        Some(errno) => Err(Saw::Errno(errno, "start the libc again")),
        None if ran.out < bytes.len() => Err(value!("the libc did not start again under a mask")),
        // SAFETY: any bytes are numbers.
        None => Ok(unsafe { bytes.as_ptr().cast::<Offsets>().read_unaligned() }),
    }
}

/// The study, made by the first who asks.
pub fn study(cell: &Cell) -> Result<&'static Study, Saw> {
    let at = STUDY.load(Relaxed);
    if at.is_null() {
        return Err(value!("no memory for the study"));
    }
    // SAFETY: the mapping is as large as the type and never unmapped; only one child runs at a time.
    let study = unsafe { &mut *at };
    if study.done == 0 {
        study.chosen = offsets(cell);
        // The user's own tunables apply to the choice and would hide what a mask does.
        if cell.kind == Kind::Glibc && cell.env(b"GLIBC_TUNABLES").is_none() {
            for (masked, mask) in study.masked.iter_mut().zip(MASKS) {
                *masked = ask_again(cell, mask)?;
            }
        }
        study.done = 1;
    }
    Ok(study)
}

/// The feature a single mask turns off, as the tunable calls it.
fn feature(mask: &CStr) -> &[u8] {
    let text = mask.to_bytes();
    let from = text.iter().position(|byte| *byte == b'-').map_or(0, |at| at + 1);
    text[from..].split(|byte| *byte == b',').next().unwrap_or(b"")
}

/// The code of a function at an offset of the libc, as far as it is looked at.
fn class_at(base: usize, offset: u64) -> Class {
    // SAFETY: text of a mapped libc. The functions lie in front of others and of read-only data; were one of them the last
    // thing mapped, this child would die and the signal would be seen.
    classify(unsafe { core::slice::from_raw_parts((base + offset as usize) as *const u8, WINDOW) })
}

/// A name in the manner of glibc's own.
pub fn name(base: usize, offset: u64, function: usize, text: &mut Answer) {
    let class = class_at(base, offset);
    let block = function < 3;
    text.add(match class.vectors {
        Vectors::None => b"scalar",
        Vectors::Rep => b"rep",
        Vectors::Sse2 => b"sse2",
        Vectors::Ssse3 => b"ssse3",
        Vectors::Sse42 => b"sse42",
        Vectors::Avx if function < 2 => b"avx",
        Vectors::Avx => b"avx2",
        Vectors::Evex => b"evex",
        Vectors::Avx512 if block => b"avx512",
        Vectors::Avx512 => b"evex512",
    });
    if class.vectors == Vectors::Avx512 && class.floats {
        text.add(b"_no_vzeroupper");
    } else if block && class.vectors >= Vectors::Sse2 && class.vectors != Vectors::Ssse3 {
        text.add(if class.erms { b"_unaligned_erms" } else { b"_unaligned" });
    }
    if class.rtm {
        text.add(b"_rtm");
    }
}

/// Offsets of all implementations that the masks reached, the chosen one first.
pub fn reachable(study: &Study, function: usize) -> ([u64; MASKS.len() + 1], usize) {
    let mut list = [0; MASKS.len() + 1];
    let mut count = 0;
    for offset in core::iter::once(&study.chosen).chain(&study.masked).map(|offsets| offsets[function]) {
        if offset != 0 && !list[..count].contains(&offset) {
            list[count] = offset;
            count += 1;
        }
    }
    (list, count)
}

fn variant(cell: &Cell, function: usize) -> Seen {
    let symbol = FUNCTIONS[function];
    let Some(found) = cell.objects.find(symbol) else {
        return Err(crate::cell::absent(symbol, true));
    };
    let study = study(cell)?;
    let chosen = study.chosen[function];
    let mut text = Answer::new();
    name(found.base, chosen, function, &mut text);
    evidence(cell, study, found.base, function);
    Ok(Saw::value(text.bytes()))
}

/// Facts: which masks move the choice, what else the file has for this CPU, and where, for whoever has debug symbols.
fn evidence(cell: &Cell, study: &Study, base: usize, function: usize) {
    let fact_of = |what: &str, text: &Answer| {
        let id = Answer::format(format_args!("libc.variant.{}.{what}", FUNCTIONS[function].to_str().unwrap_or("?")));
        fact(core::str::from_utf8(id.bytes()).unwrap_or("?"), text.bytes());
    };
    if cell.kind != Kind::Glibc || cell.env(b"GLIBC_TUNABLES").is_some() {
        let mut text = Answer::of(b"0x");
        text.add_hex(study.chosen[function], 0);
        fact_of("offset", &text);
        return;
    }
    let mut moved = Answer::new();
    for (mask, offsets) in MASKS.iter().zip(&study.masked).take(SINGLE) {
        if offsets[function] != study.chosen[function] {
            moved.add(if moved.is_empty() { b"" } else { b" " }).add(feature(mask));
        }
    }
    fact_of("moved-by", &moved);
    let (list, count) = reachable(study, function);
    let mut others = Answer::new();
    for offset in &list[..count] {
        others.add(if others.is_empty() { b"" } else { b" " });
        name(base, *offset, function, &mut others);
        others.add(b"@0x").add_hex(*offset, 0);
    }
    fact_of("reachable", &others);
}

//! Classic BPF for seccomp: binary search over ranges of system call numbers. Pure.
//!
//! A linear filter of docker's profile costs the kernel some milliseconds a cell, because it runs the filter once for every
//! system call number when it is loaded; a search tree of the same profile does not.

use super::numbers::Architecture;
use super::profile::{Argument, ProfileError, Test};
use super::{Table, Verdict};

/// `struct sock_filter`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Instruction {
    pub(super) code: u16,
    pub(super) yes: u8,
    pub(super) no: u8,
    pub(super) k: u32,
}

pub(super) const LOAD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
pub(super) const AND: u16 = 0x54; // BPF_ALU | BPF_AND | BPF_K
pub(super) const JUMP: u16 = 0x05; // BPF_JMP | BPF_JA
pub(super) const IF_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
pub(super) const IF_GREATER: u16 = 0x25;
pub(super) const IF_AT_LEAST: u16 = 0x35;
pub(super) const RETURN: u16 = 0x06;

// Offsets in struct seccomp_data.
pub(super) const NUMBER: u32 = 0;
pub(super) const ARCH: u32 = 4;
pub(super) const ARGUMENTS: u32 = 16;

pub(super) const AUDIT_X86_64: u32 = 0xc000_003e;
pub(super) const AUDIT_I386: u32 = 0x4000_0003;
const KILL_THREAD: u32 = 0;
const MOST: usize = 4096;

type Code = Vec<Instruction>;

fn plain(code: u16, k: u32) -> Instruction {
    Instruction { code, yes: 0, no: 0, k }
}

/// `if test(k) { yes } else { no }`, where neither falls through.
fn branch(code: u16, k: u32, yes: Code, no: Code) -> Code {
    let mut all = match u8::try_from(no.len()) {
        Ok(skip) => vec![Instruction { code, yes: skip, no: 0, k }],
        // Conditional jumps reach 255 instructions; an unconditional one reaches any.
        Err(_) => vec![Instruction { code, yes: 0, no: 1, k }, plain(JUMP, no.len() as u32)],
    };
    all.extend(no);
    all.extend(yes);
    all
}

/// The program for the tables, as bytes. What calls as an architecture without one is killed, as libseccomp does.
pub(super) fn program(tables: &[(Architecture, Table)]) -> Result<Vec<u8>, ProfileError> {
    let of = |arch: Architecture| tables.iter().find(|(a, _)| *a == arch).map(|(_, table)| table);
    let mut own: Vec<(u32, Verdict)> = of(Architecture::X86_64).map(|t| t.ranges.clone()).unwrap_or_default();
    let x32 = match of(Architecture::X32) {
        Some(table) => table.ranges.iter().map(|(from, v)| ((*from).max(1 << 30), v.clone())).collect(),
        None => vec![(1 << 30, Verdict { when: vec![], otherwise: KILL_THREAD })],
    };
    // The first of the two ranges that start at bit 30 is the default below the first rule of x32; the last one counts.
    for (from, verdict) in x32 {
        if own.last().is_some_and(|(start, _)| *start == from) {
            own.pop();
        }
        own.push((from, verdict));
    }
    let mut code = vec![plain(LOAD, ARCH)];
    let killed = vec![plain(RETURN, KILL_THREAD)];
    let others = match of(Architecture::I386) {
        Some(table) => branch(IF_EQUAL, AUDIT_I386, search(&table.ranges, true), killed),
        None => killed,
    };
    code.extend(branch(IF_EQUAL, AUDIT_X86_64, search(&own, false), others));
    if code.len() > MOST {
        return Err(ProfileError::TooLong(code.len()));
    }
    Ok(code.iter().flat_map(bytes).collect())
}

fn bytes(i: &Instruction) -> [u8; 8] {
    let ([a, b], [w, x, y, z]) = (i.code.to_ne_bytes(), i.k.to_ne_bytes());
    [a, b, i.yes, i.no, w, x, y, z]
}

fn search(ranges: &[(u32, Verdict)], narrow: bool) -> Code {
    let mut code = vec![plain(LOAD, NUMBER)];
    code.extend(halve(ranges, narrow));
    code
}

fn halve(ranges: &[(u32, Verdict)], narrow: bool) -> Code {
    match ranges {
        [] => vec![plain(RETURN, KILL_THREAD)],
        [(_, verdict)] => answer(verdict, narrow),
        _ => {
            let (low, high) = ranges.split_at(ranges.len() / 2);
            branch(IF_AT_LEAST, high[0].0, halve(high, narrow), halve(low, narrow))
        }
    }
}

/// Where a condition that does not hold goes: past the block it stands in, filled in when that is complete.
const NEXT: u32 = u32::MAX;

fn answer(verdict: &Verdict, narrow: bool) -> Code {
    let mut code = vec![];
    for (arguments, value) in &verdict.when {
        let hit = vec![plain(RETURN, *value)];
        let mut block = arguments.iter().rev().fold(hit, |hit, a| condition(a, narrow, hit, vec![plain(JUMP, NEXT)]));
        let end = block.len();
        for (at, i) in block.iter_mut().enumerate().filter(|(_, i)| i.code == JUMP && i.k == NEXT) {
            i.k = (end - at - 1) as u32;
        }
        code.extend(block);
    }
    code.push(plain(RETURN, verdict.otherwise));
    code
}

/// 64-bit comparisons by halves; `narrow` for an architecture whose registers have 32 bits.
fn condition(argument: &Argument, narrow: bool, yes: Code, no: Code) -> Code {
    let at = ARGUMENTS + 8 * argument.index;
    let (low_at, high_at) = if cfg!(target_endian = "little") { (at, at + 4) } else { (at + 4, at) };
    let low = |k: u64| k as u32;
    let high = |k: u64| (k >> 32) as u32;
    let load = |offset: u32, rest: Code| [vec![plain(LOAD, offset)], rest].concat();
    let masked = |offset: u32, mask: u32, rest: Code| [vec![plain(LOAD, offset), plain(AND, mask)], rest].concat();
    let equal = |k: u64, yes: Code, no: Code| {
        let by_low = load(low_at, branch(IF_EQUAL, low(k), yes, no.clone()));
        if narrow { by_low } else { load(high_at, branch(IF_EQUAL, high(k), by_low, no)) }
    };
    // `test` on the low half decides where the high halves are equal.
    let ordered = |k: u64, test: u16, yes: Code, no: Code| {
        let by_low = load(low_at, branch(test, low(k), yes.clone(), no.clone()));
        if narrow {
            return by_low;
        }
        load(high_at, branch(IF_GREATER, high(k), yes, branch(IF_EQUAL, high(k), by_low, no)))
    };
    match argument.test {
        Test::Equal(k) => equal(k, yes, no),
        Test::NotEqual(k) => equal(k, no, yes),
        Test::Greater(k) => ordered(k, IF_GREATER, yes, no),
        Test::GreaterOrEqual(k) => ordered(k, IF_AT_LEAST, yes, no),
        Test::LessOrEqual(k) => ordered(k, IF_GREATER, no, yes),
        Test::Less(k) => ordered(k, IF_AT_LEAST, no, yes),
        Test::Masked(mask, k) => {
            let by_low = masked(low_at, low(mask), branch(IF_EQUAL, low(k), yes, no.clone()));
            if narrow {
                return by_low;
            }
            masked(high_at, high(mask), branch(IF_EQUAL, high(k), by_low, no))
        }
    }
}

//! What the processor says it is: CPUID, XCR0, the microarchitecture level, and what the kernel tells of it.
//!
//! Goes in: nothing. Comes out: facts and answers. Must not know: which answers are good.

use super::feature::{Feature, cpuid, execute, xcr0};
use super::{scalar, tile, vector};
use crate::check::{Asked, Check, Facts, How, Saw, Value, value};
use crate::rt::consts::ENOENT;
use crate::rt::sys;
use crate::rt::text::Text;

pub static CHECKS: &[Check] = &[
    Check { id: "cpu.level", how: How::Batch, run: level },
    Check { id: "cpu.level.v2", how: How::Batch, run: || complete(2) },
    Check { id: "cpu.level.v3", how: How::Batch, run: || complete(3) },
    Check { id: "cpu.level.v4", how: How::Batch, run: || complete(4) },
    Check { id: "cpu.xcr0", how: How::Batch, run: || value(format_args!("{:#x}", xcr0())) },
    Check { id: "cpu.xcr0.complete", how: How::Batch, run: enabled },
    Check { id: "cpu.cpuinfo.flags", how: How::Batch, run: cpuinfo },
    Check { id: "cpu.tsc.invariant", how: How::Batch, run: invariant },
    Check { id: "cpu.umip", how: How::Batch, run: umip },
];

/// XCR0, for those who touch registers themselves.
pub fn enabled_state() -> u64 {
    xcr0()
}

/// Leaves that are the same on each processor of a machine. Those of topology and of time are left out.
const LEAVES: [(u32, u32); 18] = [
    (0, 0),
    (1, 0),
    (6, 0),
    (7, 0),
    (7, 1),
    (7, 2),
    (0xd, 0),
    (0xd, 1),
    (0x14, 0),
    (0x19, 0),
    (0x1d, 1),
    (0x1e, 0),
    (0x24, 0),
    (0x8000_0001, 0),
    (0x8000_0007, 0),
    (0x8000_0008, 0),
    (0x8000_000a, 0),
    (0x8000_0021, 0),
];

/// CPUID as it is: `cpu.cpuid.7.0` is eax, ebx, ecx, edx.
pub fn leaves(f: &mut Facts) {
    for (leaf, subleaf) in LEAVES {
        let mut words = cpuid(leaf, subleaf);
        if leaf == 1 {
            words[1] &= 0x00ff_ffff; // the number of the processor that ran this
        }
        if words != [0; 4] {
            let mut text = Text::<40>::new();
            for (i, word) in words.iter().enumerate() {
                text.add(if i == 0 { b"" } else { b" " }).add_hex((*word).into(), 8);
            }
            f.text(name(&Text::<32>::format(format_args!("cpu.cpuid.{leaf:x}.{subleaf:x}"))), text.bytes());
        }
    }
    let [_, b, c, d] = cpuid(0, 0);
    f.text("cpu.vendor", &letters([b, d, c]));
    if cpuid(1, 0)[2] >> 31 == 1 {
        let [_, b, c, d] = core_leaf(0x4000_0000);
        f.text("cpu.hypervisor", trimmed(&letters([b, c, d])));
    }
    let mut brand = Text::<48>::new();
    for leaf in 0x8000_0002..=0x8000_0004 {
        let [a, b, c, d] = cpuid(leaf, 0);
        brand.add(&letters([a, b, c])).add(&d.to_le_bytes());
    }
    f.text("cpu.model", trimmed(brand.bytes()));
}

/// A leaf of the hypervisor, outside the ranges whose end the processor tells.
fn core_leaf(leaf: u32) -> [u32; 4] {
    let r = core::arch::x86_64::__cpuid(leaf);
    [r.eax, r.ebx, r.ecx, r.edx]
}

fn name<const N: usize>(text: &Text<N>) -> &str {
    core::str::from_utf8(text.bytes()).unwrap_or("cpu.cpuid")
}

fn letters(words: [u32; 3]) -> [u8; 12] {
    let mut all = [0; 12];
    for (i, word) in words.iter().enumerate() {
        all[i * 4..][..4].copy_from_slice(&word.to_le_bytes());
    }
    all
}

fn trimmed(text: &[u8]) -> &[u8] {
    let end = text.iter().rposition(|b| !matches!(b, 0 | b' ')).map_or(0, |i| i + 1);
    &text[..end]
}

fn features() -> impl Iterator<Item = &'static Feature> {
    [scalar::FEATURES, vector::FEATURES, tile::FEATURES].into_iter().flatten().copied()
}

/// The features of this level that are listed and enabled are not all: their names.
fn lacking(level: u8) -> Value {
    names(features().filter(|f| f.level == level && !(f.listed() && f.enabled())))
}

fn names(which: impl Iterator<Item = &'static Feature>) -> Value {
    let mut text = Value::new();
    for feature in which {
        // OSXSAVE has no flag.
        let flag = if feature.flag.is_empty() { "osxsave" } else { feature.flag };
        text.add(if text.is_empty() { b"" } else { b" " }).add(flag.as_bytes());
    }
    text
}

fn level() -> Asked {
    Ok(Saw::Number((2..=4u8).take_while(|level| lacking(*level).is_empty()).count() as i64 + 1))
}

/// One level without those below it.
fn complete(level: u8) -> Asked {
    let lacking = lacking(level);
    if lacking.is_empty() {
        return value(format_args!("complete"));
    }
    Ok(Saw::Value(*Value::of(b"lacks ").add(lacking.bytes())))
}

/// Programs that look at CPUID alone die where the kernel did not enable the registers (noxsave, clearcpuid=xsave).
fn enabled() -> Asked {
    let dead = names(features().filter(|f| f.state != 0 && f.listed() && !f.enabled()));
    if dead.is_empty() {
        return value(format_args!("complete"));
    }
    Ok(Saw::Value(*Value::of(b"not enabled: ").add(dead.bytes())))
}

/// Programs and installers that read /proc/cpuinfo decide by another list than those that ask CPUID.
fn cpuinfo() -> Asked {
    let mut room = [0; 8192];
    let text = match sys::read_file(c"/proc/cpuinfo", &mut room) {
        Err(ENOENT) => return Err(Saw::NotAsked("no /proc/cpuinfo")),
        answer => answer?,
    };
    let Some(line) = text.split(|b| *b == b'\n').find(|line| line.starts_with(b"flags")) else {
        return value(format_args!("no line of flags"));
    };
    let has = |flag: &str| line.split(|b| *b == b' ').any(|word| word == flag.as_bytes());
    // Levels only: kernels learn the names of the others with time.
    let hidden = names(features().filter(|f| f.level != 0 && !f.flag.is_empty() && f.listed() && !has(f.flag)));
    let invented = names(features().filter(|f| f.level != 0 && !f.flag.is_empty() && !f.listed() && has(f.flag)));
    let mut said = Value::new();
    for (what, names) in [("lacks ", hidden), ("invents ", invented)] {
        if !names.is_empty() {
            said.add(if said.is_empty() { b"" } else { b"; " }).add(what.as_bytes()).add(names.bytes());
        }
    }
    if said.is_empty() { value(format_args!("agrees")) } else { Ok(Saw::Value(said)) }
}

/// The time stamp counter runs at one speed in every state: without it the kernel takes a slower clock.
fn invariant() -> Asked {
    value(format_args!("{}", if cpuid(0x8000_0007, 0)[3] >> 8 & 1 == 1 { "invariant" } else { "may change" }))
}

/// Whether a program can find out where the kernel's tables lie: `hidden` when the processor or the kernel answers a dummy
/// or faults (UMIP).
fn umip() -> Asked {
    #[unsafe(naked)]
    unsafe extern "C" fn sgdt() {
        core::arch::naked_asm!("sgdt [rdi]", "mov rax, [rdi + 2]", "ret")
    }
    let (base, signal) = execute(sgdt);
    // The dummy of arch/x86/kernel/umip.c.
    value(format_args!("{}", if signal != 0 || base == 0xffff_ffff_fffe_0000 { "hidden" } else { "readable" }))
}

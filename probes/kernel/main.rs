//! The kernel probe: what system calls, the filter and the processor answer and do, asked without any library. Also the
//! supervisor, which runs the other probes of a cell.
//!
//! Goes in: arguments, see `options.rs`. Comes out: the line protocol on standard output. Must not know: which answers are
//! good. `check.rs` says how to add a check; the tables of checks are in the files listed in `GROUPS`.
#![no_std]
#![no_main]
// There is no heap to box an answer into.
#![allow(clippy::result_large_err, clippy::large_enum_variant)]

#[path = "../asking/mod.rs"]
mod asking;
#[path = "../rt/mod.rs"]
mod rt;
#[path = "../rt/start.rs"]
mod start;

mod arguments;
mod bench;
mod cpu;
mod entries;
mod filter;
mod semantics;
mod supervisor;
mod sweep;
#[cfg(target_arch = "aarch64")]
mod syscalls_aarch64;
#[cfg(target_arch = "x86_64")]
mod syscalls_x86_64;
mod variants;

use asking::check::{self, Group};
use asking::options::Options;
use rt::child;

static GROUPS: &[Group] = &[
    Group { facts: entries::FACTS, checks: entries::CHECKS, bench: false },
    Group { facts: cpu::FACTS, checks: cpu::CHECKS, bench: false },
    #[cfg(target_arch = "x86_64")]
    Group { facts: &[], checks: cpu::level::CHECKS, bench: false },
    #[cfg(target_arch = "x86_64")]
    Group { facts: &[], checks: cpu::scalar::CHECKS, bench: false },
    #[cfg(target_arch = "x86_64")]
    Group { facts: &[], checks: cpu::vector::CHECKS, bench: false },
    #[cfg(target_arch = "x86_64")]
    Group { facts: &[], checks: cpu::tile::PERMITTED, bench: false },
    Group { facts: &[], checks: cpu::stack::CHECKS, bench: false },
    Group { facts: &[], checks: cpu::told::CHECKS, bench: false },
    Group { facts: semantics::FACTS, checks: semantics::process::CHECKS, bench: false },
    Group { facts: &[], checks: semantics::control::CHECKS, bench: false },
    Group { facts: &[], checks: semantics::memory::CHECKS, bench: false },
    Group { facts: &[], checks: semantics::files::CHECKS, bench: false },
    Group { facts: &[], checks: semantics::events::CHECKS, bench: false },
    Group { facts: &[], checks: semantics::signals::CHECKS, bench: false },
    Group { facts: &[], checks: semantics::security::CHECKS, bench: false },
    Group { facts: &[], checks: semantics::namespaces::CHECKS, bench: false },
    Group { facts: &[], checks: semantics::mounts::CHECKS, bench: false },
    Group { facts: &[], checks: semantics::time::CHECKS, bench: false },
    Group { facts: bench::FACTS, checks: bench::CHECKS, bench: true },
];

fn main() -> i32 {
    let options = match Options::read(true) {
        Ok(options) => options,
        Err(said) => {
            let _ = rt::sys::write(2, said.bytes());
            return 2;
        }
    };
    if options.run { supervisor::run(&options) } else { probe(&options) }
}

/// Nothing is made here that does not go with its process.
fn leave() {}

/// The probe's own checks, from the header to the end line. 1 when a line could not be written.
fn probe(options: &Options) -> i32 {
    child::prepare();
    let Ok(slot) = child::slot() else { return 1 };
    let wanted = |id: &[u8]| options.wanted(id);
    let checks = check::count(GROUPS, options.bench, &wanted);
    if !check::begin("kernel", sweep::count(&wanted) + variants::count(&wanted) + checks) {
        return 1;
    }
    check::tell_facts(slot, GROUPS, options.bench);
    let swept = sweep::run(slot, &wanted);
    let mapped = variants::run(slot, &wanted);
    check::end("kernel", swept + mapped + check::ask(slot, GROUPS, options.bench, &wanted))
}

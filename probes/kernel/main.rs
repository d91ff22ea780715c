//! The kernel probe: everything an image can ask of a kernel, asked without any library.
//!
//! Goes in: arguments, see `options.rs`. Comes out: the line protocol on standard output. Must not know: which answers are
//! good. `check.rs` says how to add a check; the tables of checks are in the files listed in `GROUPS`.
#![no_std]
#![no_main]
// There is no heap to box an answer into.
#![allow(clippy::result_large_err, clippy::large_enum_variant)]

#[path = "../rt/mod.rs"]
mod rt;
#[path = "../rt/start.rs"]
mod start;

mod arguments;
mod asking;
mod bench;
mod check;
mod cpu;
mod entries;
mod filter;
mod fs;
mod net;
mod options;
mod semantics;
mod supervisor;
mod surroundings;
mod sweep;
#[cfg(target_arch = "aarch64")]
mod syscalls_aarch64;
#[cfg(target_arch = "x86_64")]
mod syscalls_x86_64;
mod variants;

use check::Group;
use options::Options;
use rt::line::Line;
use rt::{child, out};

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
    Group { facts: surroundings::fact::FACTS, checks: surroundings::proc::CHECKS, bench: false },
    Group { facts: &[], checks: surroundings::sys_files::CHECKS, bench: false },
    Group { facts: &[], checks: surroundings::device::CHECKS, bench: false },
    Group { facts: &[], checks: surroundings::cgroup::CHECKS, bench: false },
    Group { facts: &[], checks: surroundings::capability::CHECKS, bench: false },
    Group { facts: &[], checks: surroundings::security::CHECKS, bench: false },
    Group { facts: &[], checks: surroundings::namespace::CHECKS, bench: false },
    Group { facts: &[], checks: surroundings::limit::CHECKS, bench: false },
    Group { facts: &[], checks: surroundings::module::CHECKS, bench: false },
    Group { facts: fs::FACTS, checks: fs::place::CHECKS, bench: false },
    Group { facts: &[], checks: fs::overlay::CHECKS, bench: false },
    Group { facts: &[], checks: fs::shm::CHECKS, bench: false },
    Group { facts: net::FACTS, checks: net::family::CHECKS, bench: false },
    Group { facts: &[], checks: net::traffic::CHECKS, bench: false },
    Group { facts: &[], checks: net::host::CHECKS, bench: false },
    Group { facts: bench::FACTS, checks: bench::CHECKS, bench: true },
];

const VERSION: &str = match option_env!("ABICUS_VERSION") {
    Some(version) => version,
    None => "0.0.0",
};

fn main() -> i32 {
    let options = match Options::read() {
        Ok(options) => options,
        Err(said) => {
            let _ = rt::sys::write(2, said.bytes());
            return 2;
        }
    };
    if options.run { supervisor::run(&options) } else { probe(&options) }
}

/// The probe's own checks, from the header to the end line. 1 when a line could not be written.
fn probe(options: &Options) -> i32 {
    child::prepare();
    let Ok(slot) = child::slot() else { return 1 };
    let wanted = |id: &[u8]| options.wanted(id);
    let table = &[Group { facts: &[], checks: surroundings::table::checks(), bench: false }];
    let checks: usize = [GROUPS, table].iter().map(|groups| check::count(groups, options.bench, &wanted)).sum();
    let planned = sweep::count(&wanted) + variants::count(&wanted) + checks;
    let mut header = Line::new();
    header.number("abicus", 1).text("probe", b"kernel").text("version", VERSION.as_bytes());
    header.text("arch", if cfg!(target_arch = "x86_64") { b"x86_64" } else { b"aarch64" });
    if !out::send(header.number("planned", planned as i64)) {
        return 1;
    }
    check::tell_facts(slot, GROUPS, options.bench);
    let swept = sweep::run(slot, &wanted);
    let mapped = variants::run(slot, &wanted);
    let asked: usize = [GROUPS, table].iter().map(|groups| check::ask(slot, groups, options.bench, &wanted)).sum();
    let reported = swept + mapped + asked;
    child::run(slot, 300, &mut || {
        fs::sweep();
        0
    });
    if out::send(Line::new().text("end", b"kernel").number("reported", reported as i64)) { 0 } else { 1 }
}

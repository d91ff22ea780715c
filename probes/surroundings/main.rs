//! The surroundings probe: /proc, /sys and /dev, control groups, capabilities, security modules, namespaces, limits, settings
//! of the kernel and what its modules enable; the cell's file systems; its network.
//!
//! Goes in: arguments, see `options.rs`. Comes out: the line protocol on standard output. Must not know: which answers are
//! good. `check.rs` says how to add a check; the tables of checks are in the files listed in `GROUPS`.
//!
//! Nothing here opens what would load a module, reads what can be read once only, or writes outside the process that asks; a
//! file it makes in /dev/shm or /tmp is gone when its check ends.
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

mod capability;
mod cgroup;
mod device;
mod fact;
mod fs;
mod hold;
mod limit;
mod look;
mod module;
mod namespace;
mod net;
mod proc;
mod said;
mod security;
mod setting;
mod sys_files;
mod table;

use asking::check::{self, Group};
use asking::options::Options;
use fs::leave;
use rt::child;

static GROUPS: &[Group] = &[
    Group { facts: fact::FACTS, checks: proc::CHECKS, bench: false },
    Group { facts: &[], checks: sys_files::CHECKS, bench: false },
    Group { facts: &[], checks: device::CHECKS, bench: false },
    Group { facts: &[], checks: cgroup::CHECKS, bench: false },
    Group { facts: &[], checks: capability::CHECKS, bench: false },
    Group { facts: &[], checks: security::CHECKS, bench: false },
    Group { facts: &[], checks: namespace::CHECKS, bench: false },
    Group { facts: &[], checks: limit::CHECKS, bench: false },
    Group { facts: &[], checks: module::CHECKS, bench: false },
    Group { facts: fs::FACTS, checks: fs::place::CHECKS, bench: false },
    Group { facts: &[], checks: fs::overlay::CHECKS, bench: false },
    Group { facts: &[], checks: fs::shm::CHECKS, bench: false },
    Group { facts: net::FACTS, checks: net::family::CHECKS, bench: false },
    Group { facts: &[], checks: net::traffic::CHECKS, bench: false },
    Group { facts: &[], checks: net::host::CHECKS, bench: false },
];

fn main() -> i32 {
    if let Some(status) = hold::asked() {
        return status;
    }
    match Options::read(false) {
        Ok(options) => probe(&options),
        Err(said) => {
            let _ = rt::sys::write(2, said.bytes());
            2
        }
    }
}

/// The probe's checks, from the header to the end line. 1 when a line could not be written.
fn probe(options: &Options) -> i32 {
    child::prepare();
    let Ok(slot) = child::slot() else { return 1 };
    let wanted = |id: &[u8]| options.wanted(id);
    let table = &[Group { facts: &[], checks: table::checks(), bench: false }];
    let all = [GROUPS, table];
    if !check::begin("surroundings", all.iter().map(|groups| check::count(groups, false, &wanted)).sum()) {
        return 1;
    }
    check::tell_facts(slot, GROUPS, false);
    let asked = all.iter().map(|groups| check::ask(slot, groups, false, &wanted)).sum();
    child::run(slot, 300, &mut || {
        fs::sweep();
        0
    });
    check::end("surroundings", asked)
}

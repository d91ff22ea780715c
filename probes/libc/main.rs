//! The libc probe: what a program that is linked against the image's own libc can do in this cell.
//!
//! Goes in: `LOADER libc [--bench] [--only PREFIX]…`. Comes out: the line protocol of `probes/README.md` on standard
//! output. Must not know: what passing means.
//!
//! It asks the loader for `libc.so.6` but for no symbol at all. Every function is looked up in the loader's own list of
//! objects when a check needs it, so the same file runs in any glibc and musl, and a function that is missing is something
//! seen and not a program that does not start.
#![no_std]
#![no_main]
#![allow(clippy::too_many_arguments)] // functions of the libc have as many as they have

#[path = "../rt/mod.rs"]
mod rt;

mod api;
mod bench;
mod cell;
mod child;
mod craft;
mod decode;
mod file;
mod identity;
mod load;
mod name;
mod note;
mod objects;
mod own;
mod process;
mod saw;
mod signal;
mod symbol;
mod sync;
mod text;
mod thread;
mod time;
mod tool;
mod variant;

use cell::{Cell, fact};
use core::ffi::{CStr, c_char};
use rt::line::Line;
use rt::{out, sys};
use saw::Seen;

/// A question.
#[derive(Clone, Copy)]
pub struct Check {
    pub id: &'static str,
    pub ask: fn(&Cell, usize) -> Seen,
    /// Which of several like it, where one function asks many.
    pub argument: usize,
    /// Milliseconds it may take.
    pub deadline: u64,
    /// Only with `--bench`.
    pub bench: bool,
}

/// What a check may take unless it says otherwise; far more than any needs, so that a busy host is no timeout.
const DEADLINE: u64 = 3000;

impl Check {
    pub const fn new(id: &'static str, ask: fn(&Cell, usize) -> Seen) -> Check {
        Check { id, ask, argument: 0, deadline: DEADLINE, bench: false }
    }
}

/// Set by the driver's build; a linter does not set it.
const VERSION: &str = match option_env!("ABICUS_VERSION") {
    Some(version) => version,
    None => "0",
};

/// All checks, in the order they are asked.
const CHECKS: &[&[Check]] = &[
    identity::CHECKS,
    note::CHECKS,
    thread::CHECKS,
    sync::CHECKS,
    process::CHECKS,
    signal::CHECKS,
    name::CHECKS,
    text::CHECKS,
    time::CHECKS,
    file::CHECKS,
    load::CHECKS,
    variant::CHECKS,
    symbol::CHECKS,
    tool::CHECKS,
    bench::CHECKS,
];

/// Entry: the loader passes what is to run at exit in rdx, the stack is as the kernel made it.
#[unsafe(no_mangle)]
#[unsafe(naked)]
unsafe extern "C" fn _start() -> ! {
    core::arch::naked_asm!(
        ".hidden _DYNAMIC",
        "mov rdi, rsp",
        "mov rsi, rdx",
        "lea rdx, [rip + _DYNAMIC]",
        "xor ebp, ebp",
        "and rsp, -16",
        "call {start}",
        "ud2",
        start = sym start
    )
}

type Main = extern "C" fn(i32, *const *const c_char, *const *const c_char) -> i32;
type StartMain = extern "C" fn(Main, usize, *const usize, usize, usize, usize, *const usize) -> i32;

static mut DYNAMIC: *const objects::Dyn = core::ptr::null();

unsafe extern "C" fn start(stack: *const usize, at_exit: usize, dynamic: *const objects::Dyn) -> ! {
    // SAFETY: `_start` passes the initial stack and our dynamic section; there is one thread.
    unsafe {
        rt::process::begin(stack);
        DYNAMIC = dynamic;
        let vdso = rt::process::aux(rt::consts::AT_SYSINFO_EHDR).unwrap_or(0);
        let begin = objects::Objects::new(dynamic, vdso).and_then(|objects| objects.find(c"__libc_start_main"));
        if let Some(begin) = begin {
            // Its type is the same in glibc and musl; musl does not look past the third argument.
            let begin = core::mem::transmute::<usize, StartMain>(begin.address);
            begin(main, *stack, stack.add(1), 0, 0, at_exit, stack);
        }
        sys::exit(main(0, core::ptr::null(), core::ptr::null()))
    }
}

extern "C" fn main(_: i32, _: *const *const c_char, _: *const *const c_char) -> i32 {
    // SAFETY: `start` filled in both.
    let Some(mut cell) = (unsafe { Cell::new(DYNAMIC) }) else {
        let _ = sys::write(2, b"libc: the loader left no list of objects; run me as LOADER libc\n");
        return 2;
    };
    let mut arguments = rt::process::args().skip(1);
    let mut only = [c""; 16];
    let mut count = 0;
    while let Some(argument) = arguments.next() {
        match argument.to_bytes() {
            b"--bench" => cell.bench = true,
            b"--only" if count < only.len() => match arguments.next() {
                Some(prefix) => {
                    only[count] = prefix;
                    count += 1;
                }
                None => return usage(argument),
            },
            // What exec, posix_spawn and the like start: this program again.
            b"--exit" => return arguments.next().and_then(|n| rt::text::number(n.to_bytes(), 10)).unwrap_or(0) as i32,
            // What LD_PRELOAD is tried on: whether a library was loaded that defines this.
            b"--has" => return i32::from(arguments.next().is_none_or(|name| cell.objects.find(name).is_none())),
            b"--offsets" => return variant::print_offsets(&cell),
            _ => return usage(argument),
        }
    }
    run(&mut cell, &only[..count])
}

fn usage(argument: &CStr) -> i32 {
    let _ = sys::write(2, b"libc: unexpected argument ");
    let _ = sys::write(2, argument.to_bytes());
    let _ = sys::write(2, b"\nusage: LOADER libc [--bench] [--only PREFIX]...\n");
    2
}

fn run(cell: &mut Cell, only: &[&CStr]) -> i32 {
    rt::child::prepare();
    let asked = |check: &&Check| {
        (cell.bench || !check.bench)
            && (only.is_empty() || only.iter().any(|prefix| check.id.as_bytes().starts_with(prefix.to_bytes())))
    };
    let planned = CHECKS.iter().copied().flatten().filter(asked).count();
    out::send(
        Line::new()
            .number("abicus", 1)
            .text("probe", b"libc")
            .text("version", VERSION.as_bytes())
            .text("arch", b"x86_64")
            .number("planned", planned as i64),
    );
    fact("libc.loader", cell.loader.to_bytes());
    load_threads(cell);
    variant::prepare();
    bench::prepare();
    let mut reported = 0;
    if saw::make_room().is_err() {
        return 1;
    }
    for check in CHECKS.iter().copied().flatten().filter(asked) {
        let saw = child::ask(cell, check);
        let mut line = Line::new();
        line.text("check", check.id.as_bytes());
        saw.write(&mut line);
        reported += i64::from(out::send(&mut line));
    }
    out::send(Line::new().text("end", b"libc").number("reported", reported));
    0
}

/// Before glibc 2.34 threads, dlopen and timers are libraries of their own. A program that needs them names them; this
/// probe names none, so that it starts where they are gone.
fn load_threads(cell: &Cell) {
    if cell.symbol(c"pthread_create").is_some() {
        return;
    }
    let Some(open) = cell.symbol(c"__libc_dlopen_mode") else { return };
    for name in [c"libpthread.so.0", c"libdl.so.2", c"librt.so.1"] {
        // SAFETY: glibc's own entry for its own libraries; RTLD_NOW with the flag its callers must set.
        unsafe {
            core::mem::transmute::<usize, extern "C" fn(*const c_char, i32) -> usize>(open)(name.as_ptr(), 2 | 1 << 31);
        }
    }
}

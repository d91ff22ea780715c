//! What the three probe programs share. No dependency, no heap, no libc.
//!
//! Include it with `#[path = "../rt/mod.rs"] mod rt;`. A static program also includes the entry,
//! `#[path = "../rt/start.rs"] mod start;`, and offers `fn main() -> i32`; a program with an entry of its own (the libc
//! probe) calls `rt::process::begin(sp)` first and leaves `start.rs` out. What a program does not use, the linker drops.
//!
//! | module | what it offers |
//! |---|---|
//! | `nr` | system call numbers of the architecture |
//! | `sys` | `call!(nr::DUP, fd)`, and safe wrappers of the calls every check needs |
//! | `consts` | numbers of errno, signals, open flags, limits |
//! | `process` | arguments, environment, auxiliary vector |
//! | `text` | `Text<N>`: a string of bounded size that can be written to with `write!` |
//! | `line` | one JSON line of the protocol; pure |
//! | `out` | writes such lines |
//! | `child` | children with a deadline and a record of the signal that ended them |
//! | `mem`, `panic` | what the compiler expects of a libc |
#![allow(dead_code)] // each of the three programs uses its own part

pub mod child;
pub mod consts;
pub mod line;
pub mod mem;
#[cfg(target_arch = "aarch64")]
#[path = "nr_aarch64.rs"]
pub mod nr;
#[cfg(target_arch = "x86_64")]
#[path = "nr_x86_64.rs"]
pub mod nr;
pub mod out;
pub mod panic;
pub mod process;
pub mod sys;
pub mod text;

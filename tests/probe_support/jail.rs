//! A test's way to make a bad situation real: installs the seccomp filter in a file, then executes a program.
//!
//! `jail [--listen] FILTER PROGRAM ARG…`, where FILTER is an array of `struct sock_filter`. With `--listen` it stays as the listener of
//! the filter's notifications and answers none. Built by `probe_support/mod.rs`. Status 125 and the
//! errno on standard error when it cannot.
#![no_std]
#![no_main]

#[path = "../../probes/rt/mod.rs"]
mod rt;
#[path = "../../probes/rt/start.rs"]
mod start;

use core::fmt::Write;

use rt::consts::PR_SET_NO_NEW_PRIVS;
use rt::sys::{self, call};
use rt::text::Text;
use rt::{nr, process};

fn main() -> i32 {
    let errno = jail().err().unwrap_or(0);
    let mut text = Text::<64>::new();
    let _ = writeln!(text, "jail: errno {errno}");
    let _ = sys::write(2, text.bytes());
    125
}

fn jail() -> sys::Answer {
    let mut arguments = process::args();
    arguments.next();
    let mut file = arguments.next().ok_or(rt::consts::EINVAL)?;
    let listen = file == c"--listen";
    if listen {
        file = arguments.next().ok_or(rt::consts::EINVAL)?;
    }
    let mut room = [0; 32768];
    let code = sys::read_file(file, &mut room)?;
    let program: [usize; 2] = [code.len() / 8, code.as_ptr() as usize];
    let argv = arguments.pointer();
    // SAFETY: a struct sock_fprog; argv and envp as the kernel made them; a missing program is a null path, EFAULT.
    unsafe {
        call!(nr::PRCTL, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)?;
        if listen {
            // SECCOMP_FILTER_FLAG_NEW_LISTENER; the descriptor stays open here and closes in the program.
            call!(nr::SECCOMP, 1, 8, &program)?;
            let pid = sys::fork()?;
            if pid != 0 {
                sys::exit(sys::wait(pid, 0)?.1 >> 8);
            }
        } else {
            call!(nr::PRCTL, 22, 2, &program)?;
        }
        call!(nr::EXECVE, *argv, argv, process::env().pointer())
    }
}

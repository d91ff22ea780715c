//! What processes cost: bytes through a pipe, a change from one to the other, a new one.
//!
//! Goes in: nothing. Comes out: samples. Must not know: what is fast.

use super::measure;
use crate::check::Asked;
use crate::rt::consts::*;
use crate::rt::nr;
use crate::rt::process;
use crate::rt::sys::{self, call};

/// A byte into a pipe and out of it again, without another process.
pub fn pipe() -> Asked {
    let [from, to] = sys::pipe()?;
    measure(&mut || {
        sys::write(to, &[7])?;
        sys::read(from, &mut [0]).map(|_| ())
    })
}

/// There and back between two processes on one processor: two changes. Where they cannot be kept on one, on two.
pub fn switch() -> Asked {
    let (there, back) = (sys::pipe()?, sys::pipe()?);
    let mut mask = [0u64; 16];
    // SAFETY: room for a set of processors; then a set of the first of them.
    unsafe {
        if call!(nr::SCHED_GETAFFINITY, 0, size_of_val(&mask), &mut mask).is_ok()
            && let Some(i) = mask.iter().position(|word| *word != 0)
        {
            let mut first = [0u64; 16];
            first[i] = mask[i] & mask[i].wrapping_neg();
            let _ = call!(nr::SCHED_SETAFFINITY, 0, size_of_val(&first), &first);
        }
    }
    let child = sys::fork()?;
    if child == 0 {
        let _ = sys::close(there[1]);
        let mut byte = [0];
        while sys::read(there[0], &mut byte) == Ok(1) && sys::write(back[1], &byte).is_ok() {}
        sys::exit(0);
    }
    let asked = measure(&mut || {
        sys::write(there[1], &[7])?;
        sys::read(back[0], &mut [0]).map(|_| ())
    });
    let _ = sys::close(there[1]);
    let _ = sys::wait(child, 0);
    asked
}

/// A child that ends at once, until it is waited for.
pub fn fork() -> Asked {
    measure(&mut || {
        let child = sys::fork()?;
        if child == 0 {
            sys::exit(0);
        }
        sys::wait(child, 0).map(|_| ())
    })
}

/// A child that executes this program, which does nothing but refuse its argument.
pub fn spawn() -> Asked {
    let null = sys::open(c"/dev/null", O_RDWR, 0);
    let arguments = [c"kernel".as_ptr(), c"--nothing".as_ptr(), core::ptr::null()];
    measure(&mut || {
        let child = sys::fork()?;
        if child == 0 {
            // SAFETY: descriptors; then a path and two arrays of C strings that end in NULL.
            unsafe {
                match null {
                    Ok(fd) => drop(call!(nr::DUP3, fd, 2, 0)),
                    Err(_) => drop(sys::close(2)),
                }
                let _ = call!(nr::EXECVE, sys::path(c"/proc/self/exe"), arguments.as_ptr(), process::env().pointer());
            }
            sys::exit(77);
        }
        // 2: what the program says to such an argument.
        match sys::wait(child, 0)?.1 >> 8 & 0xff {
            2 => Ok(()),
            77 => Err(ENOEXEC),
            _ => Err(ECHILD),
        }
    })
}

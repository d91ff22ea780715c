//! Executing programs: the cell's own, and helpers such as newuidmap.
//!
//! Goes in: the fields of `EXEC` and `HELPER`. Comes out: errno; success has no return. Must not know: what the program is.

use core::ffi::{CStr, c_char};
use core::ptr::null;

use crate::act::{Done, Errno};
use crate::format::Fields;
use crate::limit;
use crate::rt::consts::*;
use crate::rt::nr;
use crate::rt::sys::{self, Sigaction, call, path};
use crate::rt::text::Text;

/// Most arguments, and most variables, a program gets.
const MOST: usize = 1024;

type Vector = [*const c_char; MOST + 1];

pub fn program(mut f: Fields) -> Done {
    let (paths, arguments) = (f.number()?, f.number()?);
    let mut candidates = f;
    for _ in 0..paths {
        f.text()?;
    }
    let (mut argv, mut envp): (Vector, Vector) = ([null(); MOST + 1], [null(); MOST + 1]);
    for at in 0..usize::try_from(arguments).unwrap_or(usize::MAX) {
        *argv[..MOST].get_mut(at).ok_or(Errno(E2BIG))? = f.text()?.as_ptr();
    }
    for at in 0..f.count as usize {
        *envp[..MOST].get_mut(at).ok_or(Errno(E2BIG))? = f.text()?.as_ptr();
    }
    reset_signals();
    limit::give_back();
    let mut refused = ENOENT;
    for _ in 0..paths {
        match execve(candidates.text()?, &argv, &envp) {
            // As execvp(3): go on where it is not there, and remember that something was there and not permitted.
            ENOENT | ENOTDIR => {}
            EACCES => refused = EACCES,
            other => return Err(Errno(other)),
        }
    }
    Err(Errno(refused))
}

fn execve(program: &CStr, argv: &Vector, envp: &Vector) -> i32 {
    // SAFETY: both vectors end in NULL and point at C strings that live in the list.
    match unsafe { call!(nr::EXECVE, path(program), argv.as_ptr(), envp.as_ptr()) } {
        Err(errno) => errno,
        Ok(_) => EINVAL,
    }
}

/// A cell does not inherit what somebody up the tree ignores (nohup, Python and its SIGPIPE).
fn reset_signals() {
    for signal in 1..=64 {
        let _ = sys::set_action(signal, &Sigaction { handler: sys::SIG_DFL, ..Sigaction::default() });
    }
    sys::set_mask(0);
}

/// `program CHILD arguments…`; anything but exit 0 counts as EPERM, and the program itself says more on standard error.
pub fn helper(mut f: Fields, child: i32) -> Done {
    let file = f.text()?;
    let number = Text::<24>::format(format_args!("{child}\0"));
    let (mut argv, mut envp): (Vector, Vector) = ([null(); MOST + 1], [null(); MOST + 1]);
    argv[0] = file.as_ptr();
    argv[1] = number.bytes().as_ptr().cast();
    for at in 0..f.count as usize {
        *argv[..MOST].get_mut(at + 2).ok_or(Errno(E2BIG))? = f.text()?.as_ptr();
    }
    envp[0] = c"PATH=/usr/sbin:/usr/bin:/sbin:/bin".as_ptr();
    let pid = sys::fork()?;
    if pid == 0 {
        reset_signals();
        let errno = execve(file, &argv, &envp);
        sys::exit(if errno == ENOENT { 127 } else { 126 });
    }
    match sys::wait(pid, 0)? {
        (_, 0) => Ok(()),
        (_, status) if status >> 8 == 127 => Err(Errno(ENOENT)),
        _ => Err(Errno(EPERM)),
    }
}

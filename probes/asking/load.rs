//! Whether asking the kernel for something would make it load a module: who looks at a machine must not change it.
//!
//! Goes in: nothing. Comes out: what the kernel says it has, in /proc and /sys. Must not know: what is being asked.

use core::ffi::CStr;

use super::{Fd, not_asked, stat};
use crate::rt::consts::*;
use crate::rt::sys::{self, Answer};

/// Whether the kernel can load a module when it is asked for what it does not have: request_module() starts the program that
/// /proc/sys/kernel/modprobe names. Where /proc does not tell, it may.
#[inline(never)]
pub fn can_load() -> bool {
    let mut room = [0; 256];
    if sys::read_file(c"/proc/sys/kernel/modules_disabled", &mut room).is_ok_and(|text| text.starts_with(b"1")) {
        return false;
    }
    match sys::read_file(c"/proc/sys/kernel/modprobe", &mut room) {
        Ok(path) => path.iter().any(|byte| *byte > b' '),
        // A kernel that knows no modules has neither file; /proc/version tells that there is a /proc.
        Err(_) => stat(AT_FDCWD, c"/proc/modules") != Err(ENOENT) || stat(AT_FDCWD, c"/proc/version").is_err(),
    }
}

/// A module that is loaded, or built in and has a parameter.
#[inline(never)]
pub fn module(path: &CStr) -> bool {
    stat(AT_FDCWD, path).is_ok()
}

/// Whether a list in /proc has this word.
#[inline(never)]
pub fn listed(path: &CStr, word: &[u8]) -> bool {
    let mut found = false;
    let _ = lines(path, &mut |line| {
        found = line.split(|byte| matches!(byte, b' ' | b'\t')).any(|one| one == word);
        !found
    });
    found
}

/// Ends the check unless the kernel has it already or can load nothing; `why` says what asking would load.
#[inline(never)]
pub fn unless_loads(has: bool, why: &'static str) -> super::Does {
    if has || !can_load() { Ok(()) } else { Err(not_asked(why)) }
}

/// Calls `each` with the lines of a file, without their newline and cut after 1,024 bytes, until it returns false.
/// Returns how many there were.
#[inline(never)]
pub fn lines(path: &CStr, each: &mut dyn FnMut(&[u8]) -> bool) -> Answer {
    let fd = Fd(sys::open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY, 0)?);
    let (mut room, mut line, mut have, mut count) = ([0u8; 4096], [0u8; 1024], 0, 0);
    loop {
        let n = match sys::read(fd.0, &mut room) {
            Err(EINTR) => continue,
            Ok(n) if n > 0 => n.min(room.len()),
            Err(errno) if count == 0 => return Err(errno),
            _ => break,
        };
        for byte in &room[..n] {
            if *byte == b'\n' {
                count += 1;
                if !each(&line[..have]) {
                    return Ok(count);
                }
                have = 0;
            } else if have < line.len() {
                line[have] = *byte;
                have += 1;
            }
        }
    }
    if have > 0 {
        count += 1;
        each(&line[..have]);
    }
    Ok(count)
}

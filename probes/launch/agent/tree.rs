//! Removes trees of our own.
//!
//! Goes in: a directory and a name in it. Comes out: an errno. Never follows a symbolic link and never enters another file
//! system: what somebody mounted there is not ours.

use core::ffi::CStr;

use super::files::{each, stat};
use crate::rt::consts::*;
use crate::rt::nr;
use crate::rt::sys::{self, Answer, call, path};

/// Deeper trees than any image has are left.
const DEEPEST: u32 = 200;

pub fn remove(dir: i32, name: &CStr) -> Answer<()> {
    let about = stat(dir, name, AT_SYMLINK_NOFOLLOW)?;
    if about.is_dir() { remove_dir(dir, name, about.filesystem, DEEPEST) } else { unlink(dir, name, 0) }
}

fn unlink(dir: i32, name: &CStr, flags: i32) -> Answer<()> {
    // SAFETY: a C string that outlives the call.
    unsafe { call!(nr::UNLINKAT, dir, path(name), flags) }.map(drop)
}

fn remove_dir(dir: i32, name: &CStr, filesystem: u64, depth: u32) -> Answer<()> {
    if depth == 0 {
        return Err(ELOOP);
    }
    // Of an image, and perhaps without the permissions we need to empty it.
    // SAFETY: a C string that outlives the call.
    let _ = unsafe { call!(nr::FCHMODAT, dir, path(name), 0o700) };
    let fd = sys::open_at(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0)?;
    // Names move while others are removed: again until there is none that can be.
    loop {
        let mut removed = 0u32;
        let listed = each(fd, &mut |name| {
            let gone = match stat(fd, name, AT_SYMLINK_NOFOLLOW) {
                Ok(about) if about.is_dir() && about.filesystem == filesystem => {
                    remove_dir(fd, name, filesystem, depth - 1)
                }
                Ok(about) if about.is_dir() => Err(EXDEV),
                Ok(_) => unlink(fd, name, 0),
                Err(errno) => Err(errno),
            };
            removed += u32::from(gone.is_ok());
            true
        });
        if listed.is_err() || removed == 0 {
            break;
        }
        // SAFETY: takes no address: back to the start of the directory.
        let _ = unsafe { call!(nr::LSEEK, fd, 0, 0) };
    }
    let _ = sys::close(fd);
    unlink(dir, name, AT_REMOVEDIR)
}

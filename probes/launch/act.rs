//! Performs one operation: dispatch, files and directories. Mounts and the process's own state are in `cell`.
//!
//! Goes in: an operation. Comes out: done, or errno. Must not know: why the operation is in the list.

use core::ffi::CStr;

use crate::cell;
use crate::execute;
use crate::format::{Malformed, Op, code, flag};
use crate::rt::consts::*;
use crate::rt::nr;
use crate::rt::sys::{self, Answer, call, path};
use crate::rt::text::decimal;
use crate::tell;

/// What operations of the launcher itself refer to.
#[derive(Default)]
pub struct Scene {
    pub status: i32,
    /// 0 in the child and before there is one.
    pub child: i32,
}

/// What an operation that is not understood counts as.
impl From<Malformed> for Errno {
    fn from(_: Malformed) -> Self {
        Errno(EINVAL)
    }
}
impl From<i32> for Errno {
    fn from(errno: i32) -> Self {
        Errno(errno)
    }
}
pub struct Errno(pub i32);
pub type Done = Result<(), Errno>;

/// Performs an operation, its flags considered: Err only where the rest must not follow.
pub fn perform(op: &Op, scene: &Scene) -> Result<(), i32> {
    match dispatch(op, scene) {
        Ok(()) => Ok(()),
        Err(Errno(ENOENT | ENOTDIR)) if op.flags & flag::MAY_BE_ABSENT != 0 => Ok(()),
        Err(Errno(errno)) if op.flags & flag::MAY_FAIL != 0 => {
            tell::line(scene.status, format_args!("note {} errno {errno}\n", op.index));
            Ok(())
        }
        Err(Errno(errno)) => Err(errno),
    }
}

fn dispatch(op: &Op, scene: &Scene) -> Done {
    let mut f = op.fields;
    match op.code {
        code::MKDIR => there_is_fine(sys::mkdir(f.text()?, f.number()? as u32)),
        code::MKDIRS => make_all(f.text()?, f.number()? as u32),
        code::WRITE => write_file(f.text()?, O_WRONLY, 0, f.bytes()?),
        code::FILE => {
            let (name, mode) = (f.text()?, f.number()?);
            write_file(name, O_WRONLY | O_CREAT | O_EXCL, mode as u32, f.bytes()?)
        }
        code::TOUCH => touch(f.text()?),
        code::RMDIR => remove_dir(f.text()?),
        code::WRITE_PID => {
            let name = f.text()?;
            write_file(name, O_WRONLY, 0, decimal(i64::from(scene.child), &mut [0; 20]))
        }
        code::WRITE_PROC => write_proc(scene.child, f.bytes()?, f.bytes()?),
        code::HELPER => execute::helper(f, scene.child),
        code::REPORT => report(scene.status, f.bytes()?, f.text()?),
        code::SYMLINK => {
            let (text, name) = (f.text()?, f.text()?);
            // SAFETY: C strings that outlive the call.
            done(unsafe { call!(nr::SYMLINKAT, path(text), AT_FDCWD, path(name)) })
        }
        code::MKNOD => {
            let (name, mode, device) = (f.text()?, f.number()?, f.number()?);
            // SAFETY: a C string that outlives the call.
            done(unsafe { call!(nr::MKNODAT, AT_FDCWD, path(name), mode, device) })
        }
        code::CHOWN => {
            let (name, uid, gid) = (f.text()?, f.number()?, f.number()?);
            // SAFETY: a C string that outlives the call.
            done(unsafe { call!(nr::FCHOWNAT, AT_FDCWD, path(name), uid, gid, 0) })
        }
        code::EXEC => execute::program(f),
        _ => cell::perform(op.code, f),
    }
}

pub fn done(answer: Answer) -> Done {
    answer.map(|_| ()).map_err(Errno)
}

fn there_is_fine(answer: Answer) -> Done {
    match answer {
        Err(EEXIST) => Ok(()),
        other => done(other),
    }
}

/// As `mkdir -p`. Only the last failure counts: a parent may be there and on a file system we may not write to.
fn make_all(name: &CStr, mode: u32) -> Done {
    const LONGEST: usize = 4096;
    let bytes = name.to_bytes();
    let mut room = [0u8; LONGEST];
    for (at, byte) in bytes.iter().enumerate() {
        if at + 1 >= LONGEST {
            return Err(Errno(ENAMETOOLONG));
        }
        if *byte == b'/' && at > 0 {
            room[at] = 0;
            let parent = CStr::from_bytes_until_nul(&room).map_err(|_| Errno(EINVAL))?;
            let _ = sys::mkdir(parent, mode);
        }
        room[at] = *byte;
    }
    there_is_fine(sys::mkdir(name, mode))
}

/// A control group stays busy for a moment after its last process was reaped.
fn remove_dir(name: &CStr) -> Done {
    for _ in 0..100 {
        match sys::rmdir(name) {
            Err(EBUSY) => sys::sleep_ms(1),
            other => return done(other),
        }
    }
    Err(Errno(EBUSY))
}

fn write_file(name: &CStr, flags: i32, mode: u32, bytes: &[u8]) -> Done {
    write_and_close(sys::open(name, flags | O_NOCTTY, mode)?, bytes)
}

/// One write: what files of proc and cgroup expect. A regular file that takes less is a full disk.
fn write_and_close(fd: i32, bytes: &[u8]) -> Done {
    let written = sys::write(fd, bytes);
    let _ = sys::close(fd);
    match written? {
        n if n == bytes.len() => Ok(()),
        _ => Err(Errno(ENOSPC)),
    }
}

fn write_proc(child: i32, name: &[u8], bytes: &[u8]) -> Done {
    let file = crate::rt::text::Text::<64>::format(format_args!(
        "/proc/{child}/{}\0",
        core::str::from_utf8(name).map_err(|_| Errno(EINVAL))?
    ));
    write_file(CStr::from_bytes_with_nul(file.bytes()).map_err(|_| Errno(EINVAL))?, O_WRONLY, 0, bytes)
}

fn touch(name: &CStr) -> Done {
    // SAFETY: a C string that outlives the call. F_OK is 0, and symlinks are followed: what they lead to is mounted on.
    if unsafe { call!(nr::FACCESSAT, AT_FDCWD, path(name), 0) }.is_ok() {
        return Ok(());
    }
    let create = || sys::open(name, O_WRONLY | O_CREAT | O_EXCL | O_NOCTTY, 0o644);
    let fd = match create() {
        Err(EEXIST) => {
            sys::unlink(name)?;
            create()?
        }
        other => other?,
    };
    done(sys::close(fd))
}

fn report(status: i32, key: &[u8], name: &CStr) -> Done {
    let mut room = [0u8; 4096];
    let found = sys::read_file(name, &mut room)?;
    let key = core::str::from_utf8(key).map_err(|_| Errno(EINVAL))?;
    tell::line(status, format_args!("report {key} {}\n", found.len()));
    tell::bytes(status, found);
    Ok(())
}

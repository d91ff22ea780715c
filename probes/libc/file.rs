//! Files, streams, directories and terminals through the libc.
//!
//! Goes in: /tmp, /dev and the root directory of the cell. Comes out: whether reading, writing and asking work. What is
//! made in /tmp is removed again, or has no name to begin with.

use core::ffi::{CStr, c_char, c_int};

use crate::api::{Any, Room, open, zero};
use crate::cell::Cell;
use crate::rt::consts::*;
use crate::rt::sys;
use crate::saw::{Saw, Seen, expect};
use crate::thread::any;
use crate::{Check, not_asked, value};

pub const CHECKS: &[Check] = &[
    Check::new("libc.stdio.full", full),
    Check::new("libc.stdio.null", null),
    Check::new("libc.stdio.tmpfile", tmpfile),
    Check::new("libc.stdio.large", large),
    Check::new("libc.stdio.memstream", memstream),
    Check::new("libc.file.mkstemp", mkstemp),
    Check::new("libc.file.mkdtemp", mkdtemp),
    Check::new("libc.file.access", access),
    Check::new("libc.file.chmod-nofollow", chmod_nofollow),
    Check::new("libc.file.stat", stat),
    Check::new("libc.file.statx", statx),
    Check::new("libc.file.statvfs", statvfs),
    Check::new("libc.file.realpath", realpath),
    Check::new("libc.file.getcwd", getcwd),
    Check::new("libc.file.readdir", readdir),
    Check::new("libc.file.walk", walk),
    Check::new("libc.file.glob", glob),
    Check::new("libc.file.fallocate", fallocate),
    Check::new("libc.file.copy-range", copy_range),
    Check::new("libc.file.time-2040", time_2040),
    Check::new("libc.file.memfd", memfd),
    Check::new("libc.tty.name", tty_name),
    Check::new("libc.tty.pty", pty),
];

fn fopen(cell: &Cell, path: &CStr, mode: &CStr) -> Result<Any, Saw> {
    // SAFETY: terminated texts.
    cell.some(unsafe { cell.fopen(path.as_ptr(), mode.as_ptr()) }, "fopen")
}

/// A full disk must reach the program as an error of the stream.
fn full(cell: &Cell, _: usize) -> Seen {
    let stream = fopen(cell, c"/dev/full", c"w")?;
    // SAFETY: an open stream.
    unsafe {
        cell.fputs(c"abicus".as_ptr(), stream);
        let flushed = cell.fflush(stream);
        let errno = cell.errno();
        expect(flushed == -1 && cell.ferror(stream) != 0, b"no error on a full device")?;
        if errno == ENOSPC { Ok(Saw::Ok) } else { Err(Saw::Errno(errno, "fflush")) }
    }
}

fn null(cell: &Cell, _: usize) -> Seen {
    let stream = fopen(cell, c"/dev/null", c"r+")?;
    let mut room = [0 as c_char; 8];
    // SAFETY: an open stream, room for a short line.
    unsafe {
        expect(cell.fputs(c"abicus".as_ptr(), stream) >= 0 && cell.fflush(stream) == 0, b"does not take text")?;
        expect(cell.fgets(room.as_mut_ptr(), 8, stream).is_null(), b"gives text")?;
    }
    Ok(Saw::Ok)
}

fn tmpfile(cell: &Cell, _: usize) -> Seen {
    let (mut line, mut size): (Room, usize) = (core::ptr::null_mut(), 0);
    // SAFETY: an open stream; the libc allocates the line.
    unsafe {
        let stream = cell.some(cell.tmpfile(), "tmpfile")?;
        expect(cell.fputs(c"one\ntwo\n".as_ptr(), stream) >= 0, b"does not take text")?;
        cell.check(cell.fseeko(stream, 4, 0), "fseeko")?;
        let length = cell.getline(&mut line, &mut size, stream);
        expect(length == 4 && CStr::from_ptr(line) == c"two\n", b"another text came back")?;
        cell.check(cell.fclose(stream), "fclose")?;
    }
    Ok(Saw::Ok)
}

/// Offsets beyond 4 GiB, in a file of holes.
fn large(cell: &Cell, _: usize) -> Seen {
    const FAR: i64 = 5 << 30;
    // SAFETY: an open stream and a byte.
    unsafe {
        let stream = cell.some(cell.tmpfile(), "tmpfile")?;
        cell.check(cell.fseeko(stream, FAR, 0), "fseeko")?;
        expect(cell.fwrite(c"x".as_ptr().cast_mut().cast(), 1, 1, stream) == 1, b"does not take a byte")?;
        cell.check(cell.fflush(stream), "fflush")?;
        expect(cell.ftello(stream) == FAR + 1, b"another offset")?;
    }
    Ok(Saw::Ok)
}

fn memstream(cell: &Cell, _: usize) -> Seen {
    let (mut text, mut size): (Room, usize) = (core::ptr::null_mut(), 0);
    // SAFETY: the libc allocates the text and keeps it until it is freed.
    unsafe {
        let stream = cell.some(cell.open_memstream(&mut text, &mut size), "open_memstream")?;
        cell.fputs(c"abicus".as_ptr(), stream);
        cell.fclose(stream);
        expect(size == 6 && CStr::from_ptr(text) == c"abicus", b"another text")?;
        cell.free(text.cast());
    }
    Ok(Saw::Ok)
}

/// The directory for temporary files, which most images have and programs take for granted.
fn tmp() -> Result<(), Saw> {
    match sys::open(c"/tmp", O_PATH, 0) {
        Ok(fd) => {
            let _ = sys::close(fd);
            Ok(())
        }
        Err(errno) => Err(Saw::Errno(errno, "open /tmp")),
    }
}

/// A file in /tmp whose name is gone already.
fn scratch(cell: &Cell) -> Result<c_int, Saw> {
    tmp()?;
    let mut name = *b"/tmp/abicus-XXXXXX\0";
    // SAFETY: a terminated template, which the function fills in.
    unsafe {
        let fd = cell.check(cell.mkstemp(name.as_mut_ptr().cast()), "mkstemp")?;
        cell.check(cell.unlink(name.as_ptr().cast()), "unlink")?;
        Ok(fd)
    }
}

fn mkstemp(cell: &Cell, _: usize) -> Seen {
    scratch(cell)?;
    Ok(Saw::Ok)
}

fn mkdtemp(cell: &Cell, _: usize) -> Seen {
    tmp()?;
    let mut name = *b"/tmp/abicus-XXXXXX\0";
    // SAFETY: a terminated template, which the function fills in.
    unsafe {
        cell.some(cell.mkdtemp(name.as_mut_ptr().cast()), "mkdtemp")?;
        cell.check(cell.rmdir(name.as_ptr().cast()), "rmdir")?;
    }
    Ok(Saw::Ok)
}

/// What `test -x` of a shell asks, by effective ids: faccessat2 where there is one, else a fallback.
fn access(cell: &Cell, _: usize) -> Seen {
    // SAFETY: constant texts.
    unsafe {
        cell.check(cell.access(c"/".as_ptr(), 5), "access")?;
        cell.check(cell.faccessat(AT_FDCWD, c"/".as_ptr(), 5, AT_EACCESS), "faccessat AT_EACCESS")?;
        let absent = cell.faccessat(AT_FDCWD, c"/abicus-absent".as_ptr(), 0, AT_EACCESS);
        let errno = cell.errno();
        match (absent, errno) {
            (-1, ENOENT) => Ok(Saw::Ok),
            (-1, errno) => Err(Saw::Errno(errno, "faccessat of what is not there")),
            _ => Err(value!("what is not there is accessible")),
        }
    }
}

/// What tar and install do to every file: fchmodat2 where there is one, else /proc/self/fd.
fn chmod_nofollow(cell: &Cell, _: usize) -> Seen {
    tmp()?;
    let mut name = *b"/tmp/abicus-XXXXXX\0";
    // SAFETY: a terminated template, which the function fills in.
    unsafe {
        let fd = cell.check(cell.mkstemp(name.as_mut_ptr().cast()), "mkstemp")?;
        let result = cell.fchmodat(AT_FDCWD, name.as_ptr().cast(), 0o640, AT_SYMLINK_NOFOLLOW);
        let errno = cell.errno();
        let _ = cell.unlink(name.as_ptr().cast());
        if result != 0 {
            return Err(Saw::Errno(errno, "fchmodat AT_SYMLINK_NOFOLLOW"));
        }
        let mut stat = [0u32; 36];
        cell.check(fstat(cell, fd, &mut stat), "fstat")?;
        expect(stat[6] & 0o777 == 0o640, b"another mode")?;
    }
    Ok(Saw::Ok)
}

/// `fstat`, which before glibc 2.33 is a macro around `__fxstat`.
fn fstat(cell: &Cell, fd: c_int, stat: &mut [u32; 36]) -> c_int {
    // SAFETY: room for a struct stat of 144 bytes; 1 is the version of the structure on x86-64.
    unsafe {
        match cell.symbol(c"fstat") {
            Some(_) => cell.fstat(fd, any(stat)),
            None => cell.__fxstat(1, fd, any(stat)),
        }
    }
}

fn stat(cell: &Cell, _: usize) -> Seen {
    let mut stat = [0u32; 36];
    // SAFETY: room for a struct stat of 144 bytes; 1 is the version of the structure on x86-64.
    unsafe {
        let result = match cell.symbol(c"stat") {
            Some(_) => cell.stat(c"/".as_ptr(), any(&mut stat)),
            None => cell.__xstat(1, c"/".as_ptr(), any(&mut stat)),
        };
        cell.check(result, "stat")?;
    }
    expect(stat[6] & 0o170_000 == 0o040_000, b"the root is no directory")?;
    Ok(Saw::Ok)
}

fn statx(cell: &Cell, _: usize) -> Seen {
    let mut room = [0u16; 128];
    // SAFETY: room for a struct statx of 256 bytes. 0x7ff asks for what struct stat has.
    unsafe { cell.check(cell.statx(AT_FDCWD, c"/".as_ptr(), 0, 0x7ff, any(&mut room)), "statx")? };
    expect(room[14] & 0o170_000 == 0o040_000, b"the root is no directory")?;
    Ok(Saw::Ok)
}

fn statvfs(cell: &Cell, _: usize) -> Seen {
    let mut room = [0u64; 14];
    // SAFETY: room for a struct statvfs of 112 bytes.
    unsafe { cell.check(cell.statvfs(c"/".as_ptr(), any(&mut room)), "statvfs")? };
    expect(room[0] > 0, b"no block size")?;
    Ok(Saw::Ok)
}

fn realpath(cell: &Cell, _: usize) -> Seen {
    let mut room = [0 as c_char; 4096];
    // SAFETY: room for PATH_MAX.
    let path = unsafe {
        let path = c"/dev/.././dev/null".as_ptr();
        CStr::from_ptr(cell.some(cell.realpath(path, room.as_mut_ptr()), "realpath")?)
    };
    if path == c"/dev/null" { Ok(Saw::Ok) } else { Err(Saw::value(path.to_bytes())) }
}

fn getcwd(cell: &Cell, _: usize) -> Seen {
    let mut room = [0 as c_char; 4096];
    // SAFETY: room for PATH_MAX.
    let path = unsafe {
        cell.check(cell.chdir(c"/dev".as_ptr()), "chdir")?;
        CStr::from_ptr(cell.some(cell.getcwd(room.as_mut_ptr(), room.len()), "getcwd")?)
    };
    if path == c"/dev" { Ok(Saw::Ok) } else { Err(Saw::value(path.to_bytes())) }
}

fn readdir(cell: &Cell, _: usize) -> Seen {
    let (mut typed, mut count) = (0, 0);
    // SAFETY: an open directory; an entry is valid until the next is read.
    unsafe {
        let dir = cell.some(cell.opendir(c"/".as_ptr()), "opendir")?;
        loop {
            let entry = cell.readdir(dir);
            if entry.is_null() {
                break;
            }
            // Whether a directory lists itself and its parent is up to the file system: fuse-overlayfs has no ".." in a root.
            if (*entry).name[0] != b'.' {
                count += 1;
                typed += i32::from((*entry).kind != 0);
            }
        }
        cell.check(cell.closedir(dir), "closedir")?;
    }
    expect(count > 0, b"no entries")?;
    // Programs that walk trees ask for each file where the file system does not tell.
    expect(typed == count, b"entries without a type")?;
    Ok(Saw::Ok)
}

fn walk(cell: &Cell, _: usize) -> Seen {
    extern "C" fn visit(_: *const c_char, _: Any, _: c_int, _: Any) -> c_int {
        // Enough of the tree.
        7
    }
    // SAFETY: the function takes what nftw hands over.
    match unsafe { cell.nftw(c"/dev".as_ptr(), visit, 8, 1) } {
        7 => Ok(Saw::Ok),
        -1 => Err(cell.failed("nftw")),
        other => Err(value!("nftw returned {other}")),
    }
}

fn glob(cell: &Cell, _: usize) -> Seen {
    let mut found = [0usize; 16];
    // SAFETY: room for a glob_t, which begins with the count.
    unsafe {
        let result = cell.glob(c"/dev/nul[a-l]".as_ptr(), 0, 0, any(&mut found));
        if result != 0 {
            return Err(value!("glob returned {result}"));
        }
    }
    let count = found[0];
    // SAFETY: the structure glob filled in. musl forgets the count here.
    unsafe { cell.globfree(any(&mut found)) };
    if count == 1 { Ok(Saw::Ok) } else { Err(value!("{count} matches")) }
}

fn fallocate(cell: &Cell, _: usize) -> Seen {
    let fd = scratch(cell)?;
    let mut stat = [0u32; 36];
    // SAFETY: takes no address.
    zero(unsafe { cell.posix_fallocate(fd, 0, 65536) }, "posix_fallocate")?;
    cell.check(fstat(cell, fd, &mut stat), "fstat")?;
    expect(stat[12] == 65536, b"another size")?;
    Ok(Saw::Ok)
}

fn copy_range(cell: &Cell, _: usize) -> Seen {
    let (from, to) = (scratch(cell)?, scratch(cell)?);
    let mut room = [0u8; 8];
    let _ = sys::write(from, b"abicus");
    // SAFETY: an offset and none; room for the copy.
    unsafe {
        let mut at = 0;
        let size = cell.copy_file_range(from, &mut at, to, core::ptr::null_mut(), 6, 0);
        cell.check(size, "copy_file_range")?;
        expect(size == 6, b"copied less")?;
        expect(sys::call!(crate::rt::nr::PREAD64, to, room.as_mut_ptr(), 8, 0) == Ok(6), b"another size")?;
    }
    expect(&room[..6] == b"abicus", b"another content")?;
    Ok(Saw::Ok)
}

/// A file system that keeps 32-bit times loses this one.
fn time_2040(cell: &Cell, _: usize) -> Seen {
    const LATER: i64 = 2_208_988_800;
    tmp()?;
    let mut name = *b"/tmp/abicus-XXXXXX\0";
    let mut stat = [0u32; 36];
    // SAFETY: a terminated template, which the function fills in; two times of two words.
    unsafe {
        let fd = cell.check(cell.mkstemp(name.as_mut_ptr().cast()), "mkstemp")?;
        let result = cell.utimensat(AT_FDCWD, name.as_ptr().cast(), &[LATER, 0, LATER, 0], 0);
        let errno = cell.errno();
        let _ = cell.unlink(name.as_ptr().cast());
        if result != 0 {
            return Err(Saw::Errno(errno, "utimensat"));
        }
        cell.check(fstat(cell, fd, &mut stat), "fstat")?;
    }
    let kept = i64::from(stat[22]) | i64::from(stat[23]) << 32;
    if kept == LATER { Ok(Saw::Ok) } else { Err(value!("kept as {kept}")) }
}

fn memfd(cell: &Cell, _: usize) -> Seen {
    // SAFETY: a constant name; the descriptor is open.
    unsafe {
        let fd = cell.check(cell.memfd_create(c"abicus".as_ptr(), 1), "memfd_create")?;
        cell.check(cell.ftruncate(fd, 4096), "ftruncate")?;
        cell.check(cell.close(fd), "close")?;
    }
    Ok(Saw::Ok)
}

fn tty_name(cell: &Cell, _: usize) -> Seen {
    let mut room = [0 as c_char; 256];
    for fd in 0..3 {
        // SAFETY: room for a name.
        unsafe {
            if cell.isatty(fd) == 1 {
                zero(cell.ttyname_r(fd, room.as_mut_ptr(), room.len()), "ttyname_r")?;
                return Ok(Saw::Ok);
            }
        }
    }
    Err(not_asked!("no terminal in the cell"))
}

/// A terminal of one's own: ssh, script, expect, tmux and every "exec -t".
fn pty(cell: &Cell, _: usize) -> Seen {
    let mut name = [0 as c_char; 64];
    let mut room = [0u8; 16];
    let open = open(cell);
    // SAFETY: room for a name; open descriptors; constant texts.
    unsafe {
        let outer = cell.check(cell.posix_openpt(O_RDWR | O_NOCTTY), "posix_openpt")?;
        cell.check(cell.grantpt(outer), "grantpt")?;
        cell.check(cell.unlockpt(outer), "unlockpt")?;
        zero(cell.ptsname_r(outer, name.as_mut_ptr(), name.len()), "ptsname_r")?;
        let inner = cell.check(open(name.as_ptr(), O_RDWR | O_NOCTTY), "open of the terminal")?;
        expect(cell.isatty(inner) == 1, b"not a terminal")?;
        cell.check(cell.write(outer, c"hello\n".as_ptr().cast_mut().cast(), 6), "write")?;
        let size = cell.check(cell.read(inner, any(&mut room), 16), "read")?;
        expect(size == 6 && &room[..6] == b"hello\n", b"another text came through")?;
    }
    Ok(Saw::Ok)
}

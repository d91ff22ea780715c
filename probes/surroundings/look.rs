//! How files of /proc, /sys and /dev are looked at: lines and fields of them, and whether somebody masked them.
//!
//! Goes in: paths. Comes out: answers in words that repeat. Must not know: which path means what.

use core::ffi::CStr;

use super::said::*;
pub use crate::asking::lines;
use crate::asking::{Fd, Stat, ask, stat};
use crate::check::Saw;
use crate::rt::consts::*;
use crate::rt::nr;
use crate::rt::sys::{self, Answer};
use crate::rt::text::{Text, number};

/// A path or a line: what is longer is cut.
pub type Words = Text<512>;

/// Whether `line` has `part` in it.
pub fn within(line: &[u8], part: &[u8]) -> bool {
    line.windows(part.len()).any(|window| window == part)
}

/// A line for which `is` holds; where there is none, the answer names what was missed.
#[inline(never)]
pub fn has(path: &CStr, what: &'static str, is: &mut dyn FnMut(&[u8]) -> bool) -> Does {
    let mut found = false;
    let count = lines(path, &mut |line| {
        found = is(line);
        !found
    })?;
    match (found, count) {
        (true, _) => Ok(()),
        (_, 0) => Err(word("empty")),
        _ => Err(value(format_args!("no {what}"))),
    }
}

/// A line that starts with this.
#[inline(never)]
pub fn starts(path: &CStr, with: &'static str) -> Does {
    has(path, with, &mut |line| line.starts_with(with.as_bytes()))
}

/// There is something to read.
#[inline(never)]
pub fn reads(path: &CStr) -> Does {
    let mut room = [0; 64];
    match sys::read_file(path, &mut room)?.len() {
        0 => Err(word("empty")),
        _ => Ok(()),
    }
}

/// It can be read to its end, be there something or not.
#[inline(never)]
pub fn opens(path: &CStr) -> Does {
    sys::read_file(path, &mut [0; 64])?;
    Ok(())
}

/// The rest of the line that starts with `key`, without blanks around it.
#[inline(never)]
pub fn field(path: &CStr, key: &[u8]) -> Result<Words, No> {
    let mut rest = None;
    let count = lines(path, &mut |line| {
        rest = line.strip_prefix(key).map(tidy);
        rest.is_none()
    })?;
    rest.ok_or_else(|| if count == 0 { word("empty") } else { word("no such line") })
}

/// Runs of blanks as one blank, none at the ends; lines joined by `; `.
#[inline(never)]
pub fn tidy(bytes: &[u8]) -> Words {
    let mut text = Words::new();
    let mut gap: &[u8] = b"";
    for byte in bytes {
        match byte {
            b'\n' => gap = b"; ",
            b' ' | b'\t' | 0 => gap = if gap.is_empty() { b" " } else { gap },
            _ => {
                if !text.is_empty() {
                    text.add(gap);
                }
                text.add(core::slice::from_ref(byte));
                gap = b"";
            }
        }
    }
    text
}

/// A number as a number, everything else as text.
#[inline(never)]
pub fn answer(text: &[u8]) -> No {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    if !digits.is_empty() && digits.len() < 19 && digits.iter().all(u8::is_ascii_digit) {
        let size = number(digits, 10).unwrap_or(0) as i64;
        return no(Saw::Number(if digits.len() < text.len() { -size } else { size }));
    }
    no(Saw::Value(Words::of(text)))
}

/// The content of a small file as an answer: a number, or its lines tidied up.
#[inline(never)]
pub fn content(path: &CStr) -> Does {
    let mut room = [0; 1024];
    let text = tidy(sys::read_file(path, &mut room)?);
    Err(if text.is_empty() { word("empty") } else { answer(text.bytes()) })
}

/// The number at the start of a file.
pub fn read_number(path: &CStr) -> Option<u64> {
    let mut room = [0; 64];
    number(sys::read_file(path, &mut room).ok()?, 10)
}

/// statfs(2): type and flags.
#[inline(never)]
pub fn file_system(path: &CStr) -> Answer<(u64, u64)> {
    let mut s = [0u64; 15];
    ask!(nr::STATFS, sys::path(path), &mut s)?;
    Ok((s[0] & 0xffff_ffff, s[10]))
}

pub const TMPFS: u64 = 0x0102_1994;

/// A file system of this type is mounted there, or the type that is.
#[inline(never)]
pub fn mounted(path: &CStr, wanted: u64) -> Does {
    match file_system(path)?.0 {
        found if found == wanted => Ok(()),
        found => Err(value(format_args!("type {found:#x}"))),
    }
}

/// What the last link of a path leads to: its stat(2).
#[inline(never)]
pub fn followed(path: &CStr) -> Answer<Stat> {
    stat(Fd(sys::open(path, O_PATH, 0)?).0, c"")
}

/// Where a symbolic link leads.
#[inline(never)]
pub fn link(path: &CStr) -> Answer<Words> {
    let mut room = [0u8; 512];
    let n = ask!(nr::READLINKAT, AT_FDCWD, sys::path(path), &mut room, room.len())?;
    Ok(Words::of(&room[..n.min(room.len())]))
}

/// Calls `each` with the names in a directory, without `.` and `..`, until it returns false. Returns how many there were.
#[inline(never)]
pub fn names(path: &CStr, each: &mut dyn FnMut(&[u8]) -> bool) -> Answer {
    let fd = Fd(sys::open(path, O_RDONLY | O_DIRECTORY, 0)?);
    let (mut room, mut count) = ([0u64; 512], 0);
    loop {
        let n = ask!(nr::GETDENTS64, fd.0, &mut room, size_of_val(&room))?;
        if n == 0 {
            return Ok(count);
        }
        // SAFETY: the kernel wrote so many bytes there, and any byte is a number.
        let bytes = unsafe { core::slice::from_raw_parts(room.as_ptr().cast::<u8>(), n.min(size_of_val(&room))) };
        let mut at = 0;
        // struct linux_dirent64: inode, offset, length of the record, type, name
        while at + 19 < bytes.len() {
            let length = usize::from(u16::from_le_bytes([bytes[at + 16], bytes[at + 17]])).max(20);
            let name = &bytes[at + 19..(at + length).min(bytes.len())];
            let name = name.split(|b| *b == 0).next().unwrap_or(name);
            if name != b"." && name != b".." {
                count += 1;
                if !each(name) {
                    return Ok(count);
                }
            }
            at += length;
        }
    }
}

/// This name is in the directory.
#[inline(never)]
pub fn lists(path: &CStr, wanted: &[u8]) -> Does {
    let mut found = false;
    names(path, &mut |name| {
        found = name == wanted;
        !found
    })?;
    holds("not listed", found)
}

/// What engines hide: `readable`, `empty`, or `masked` by a device or an empty file system in its place.
#[inline(never)]
pub fn masking(path: &CStr) -> Does {
    seen_through(path, true)
}

/// The same of what must not be read: reading takes it away from others, or it is too much.
pub fn masking_unread(path: &CStr) -> Does {
    seen_through(path, false)
}

#[inline(never)]
fn seen_through(path: &CStr, read: bool) -> Does {
    let kind = followed(path)?.mode & 0o170000;
    let full = match kind {
        0o020000 => return Err(word("masked")),
        0o040000 if file_system(path).is_ok_and(|(kind, _)| kind == TMPFS) => return Err(word("masked")),
        0o040000 => names(path, &mut |_| false).at("list")? > 0,
        _ => {
            let fd = Fd(sys::open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY, 0).at("open")?);
            !read || sys::read(fd.0, &mut [0; 64]).at("read")? > 0
        }
    };
    Err(word(if full { "readable" } else { "empty" }))
}

/// Whether the file system lets itself be written to there, asked without opening: `writable` or `read-only`.
#[inline(never)]
pub fn writing(path: &CStr) -> Does {
    match ask!(nr::FACCESSAT, AT_FDCWD, sys::path(path), 2) {
        Ok(_) => Err(word("writable")),
        Err(EROFS) => Err(word("read-only")),
        Err(errno) => Err(errno.into()),
    }
}

/// A path put together from pieces. What is too long names nothing.
pub struct Path([u8; 256]);

impl Path {
    #[inline(never)]
    pub fn of(pieces: &[&[u8]]) -> Path {
        let (mut room, mut at) = ([0u8; 256], 0);
        for piece in pieces {
            if at + piece.len() >= room.len() {
                return Path([0; 256]);
            }
            room[at..at + piece.len()].copy_from_slice(piece);
            at += piece.len();
        }
        Path(room)
    }
    pub fn c(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.0).unwrap_or(c"")
    }
}

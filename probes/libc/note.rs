//! What the image's libraries ask of the kernel: the lowest release, in their ABI notes.
//!
//! Goes in: the files beside the libc and in the usual directories. Comes out: the notes. Must not know: the loader.

use core::ffi::CStr;

use crate::cell::{Cell, fact_number};
use crate::rt::consts::*;
use crate::rt::sys::call;
use crate::rt::text::number;
use crate::rt::{nr, sys};
use crate::saw::{Answer, Saw, Seen};
use crate::{Check, not_asked, value};

pub const CHECKS: &[Check] =
    &[Check::new("libc.kernel.minimum", minimum), Check::new("ld.abi-note.libraries", libraries)];

/// How many files are looked at; a usual image has a few hundred.
const FILES: usize = 4000;
const DIRECTORIES: [&CStr; 5] =
    [c"/usr/lib", c"/usr/lib64", c"/usr/lib/x86_64-linux-gnu", c"/lib64", c"/lib/x86_64-linux-gnu"];

fn read_u32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn read_usize(bytes: &[u8], at: usize) -> Option<usize> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?) as usize)
}

/// The release in the NT_GNU_ABI_TAG of an ELF file. The note may lie anywhere in it.
fn tag_of(fd: i32) -> Option<[u32; 3]> {
    const PT_NOTE: u32 = 4;
    let mut head = [0; 1024];
    let size = sys::read(fd, &mut head).ok()?;
    let head = &head[..size];
    if !head.starts_with(b"\x7fELF\x02") {
        return None;
    }
    let (table, size) = (read_usize(head, 32)?, usize::from(*head.get(54)?));
    for index in 0..usize::from(*head.get(56)?) {
        let at = table.checked_add(index * size)?;
        if read_u32(head, at)? == PT_NOTE {
            let (offset, length) = (read_usize(head, at + 8)?, read_usize(head, at + 32)?);
            let mut notes = [0; 512];
            // SAFETY: the room's own size.
            let got = unsafe { call!(nr::PREAD64, fd, notes.as_mut_ptr(), length.min(notes.len()), offset) };
            if let Some(tag) = abi_tag(&notes[..got.unwrap_or(0)]) {
                return Some(tag);
            }
        }
    }
    None
}

/// Finds the tag in the content of a note segment: sizes of name and content, type, then both, padded to four bytes.
fn abi_tag(notes: &[u8]) -> Option<[u32; 3]> {
    let mut at = 0;
    loop {
        let (name, content, kind) = (read_u32(notes, at)?, read_u32(notes, at + 4)?, read_u32(notes, at + 8)?);
        let from = at + 12;
        if name == 4 && kind == 1 && content >= 16 && notes.get(from..from + 4) == Some(b"GNU\0") {
            let word = |n: usize| read_u32(notes, from + 4 + 4 * n);
            // The first word is the system: 0 is Linux.
            return if word(0)? == 0 { Some([word(1)?, word(2)?, word(3)?]) } else { None };
        }
        at = from + (name as usize).next_multiple_of(4) + (content as usize).next_multiple_of(4);
    }
}

fn release(tag: [u32; 3], text: &mut Answer) {
    for (at, part) in tag.into_iter().enumerate() {
        text.add(if at == 0 { b"" } else { b"." }).add_number(i64::from(part));
    }
}

fn minimum(cell: &Cell, _: usize) -> Seen {
    let Some(libc) = cell.libc() else { return Err(value!("no libc in the list of objects")) };
    let fd = sys::open(libc.path(), O_RDONLY, 0).map_err(|errno| Saw::Errno(errno, "open the libc"))?;
    let Some(tag) = tag_of(fd) else {
        return Err(not_asked!("this libc has no ABI note"));
    };
    let mut text = Answer::new();
    release(tag, &mut text);
    Ok(Saw::value(text.bytes()))
}

/// The kernel's release as numbers: `6.1.0-18-amd64` is 6.1.0.
fn running() -> Option<[u32; 3]> {
    let mut names = [0u8; 6 * 65];
    // SAFETY: room for a struct utsname.
    unsafe { call!(nr::UNAME, names.as_mut_ptr()) }.ok()?;
    let mut parts = names[130..195].split(|byte| !byte.is_ascii_digit());
    let mut part = || number(parts.next().unwrap_or(b"0"), 10).unwrap_or(0) as u32;
    Some([part(), part(), part()])
}

fn libraries(_: &Cell, _: usize) -> Seen {
    let Some(kernel) = running() else { return Err(not_asked!("uname does not work")) };
    let mut search = Search { left: FILES, tagged: 0, newest: [0; 3], name: Answer::new() };
    for (at, directory) in DIRECTORIES.into_iter().enumerate() {
        if !DIRECTORIES[..at].iter().any(|earlier| same(earlier, directory)) {
            search.directory(directory);
        }
    }
    fact_number("ld.abi-note.files", search.tagged);
    if search.newest > kernel {
        let mut text = search.name;
        text.add(b" asks for linux ");
        release(search.newest, &mut text);
        return Err(Saw::value(text.bytes()));
    }
    if search.tagged == 0 {
        return Err(not_asked!("no library with an ABI note in the image"));
    }
    Ok(Saw::Ok)
}

/// Whether two paths are one directory, as /lib and /usr/lib are in most images.
fn same(a: &CStr, b: &CStr) -> bool {
    let identity = |path: &CStr| {
        let mut stat = [0u64; 18];
        // SAFETY: room for a struct stat of 144 bytes.
        unsafe { call!(nr::NEWFSTATAT, AT_FDCWD, sys::path(path), stat.as_mut_ptr(), 0) }.ok()?;
        Some((stat[0], stat[1]))
    };
    identity(a).is_some() && identity(a) == identity(b)
}

struct Search {
    left: usize,
    tagged: i64,
    newest: [u32; 3],
    name: Answer,
}

impl Search {
    fn directory(&mut self, path: &CStr) {
        let Ok(fd) = sys::open(path, O_RDONLY | O_DIRECTORY, 0) else { return };
        let mut room = [0u8; 8192];
        // SAFETY: the room's own size.
        while let Ok(size @ 1..) = unsafe { call!(nr::GETDENTS64, fd, room.as_mut_ptr(), room.len()) } {
            let mut at = 0;
            while at + 19 < size && self.left > 0 {
                // struct linux_dirent64: inode, offset, record length, type, name.
                let length = usize::from(u16::from_le_bytes([room[at + 16], room[at + 17]]));
                let (kind, name) = (room[at + 18], CStr::from_bytes_until_nul(&room[at + 19..]).unwrap_or(c""));
                const LINK: u8 = 10;
                const DIRECTORY: u8 = 4;
                if kind != LINK && kind != DIRECTORY && name.to_bytes().windows(3).any(|part| part == b".so") {
                    self.file(fd, name);
                }
                at += length.max(1);
            }
        }
        let _ = sys::close(fd);
    }

    fn file(&mut self, directory: i32, name: &CStr) {
        self.left -= 1;
        let Ok(fd) = sys::open_at(directory, name, O_RDONLY | O_NONBLOCK | O_NOCTTY, 0) else { return };
        let tag = tag_of(fd);
        let _ = sys::close(fd);
        if let Some(tag) = tag {
            self.tagged += 1;
            if (tag, name.to_bytes()) > (self.newest, self.name.bytes()) {
                self.newest = tag;
                self.name = Answer::of(name.to_bytes());
            }
        }
    }
}

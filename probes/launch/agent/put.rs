//! Puts a tree below the agent's directory, entry by entry.
//!
//! Goes in: entries, bytes, attributes. Comes out: the errno of the first entry that could not be made. What only root may
//! do (owners, devices, trusted attributes) is left out where we are not root, as it would be in a tree unpacked here.
//!
//! No component of a path leads through a symbolic link: an image's own links point where its owner likes.

use core::ffi::CStr;

use super::channel::text;
use super::frame::{entry, u32_at, u64_at};
use crate::rt::consts::*;
use crate::rt::nr;
use crate::rt::sys::{self, Answer, Timespec, call, path};
use crate::rt::text::Text;

/// All zeroes are one that has not begun.
pub struct Put {
    /// The tree, and the file that is being written.
    root: i32,
    file: i32,
    pub failed: i32,
    /// What failed.
    pub path: Text<1024>,
    /// Of the last entry, for its attributes.
    last: Text<4096>,
    /// Of the file, for when it is written.
    time: Timespec,
}

struct Entry<'a> {
    kind: u8,
    mode: u32,
    owner: [u32; 2],
    device: u64,
    time: Timespec,
    path: &'a [u8],
    target: &'a [u8],
}

impl<'a> Entry<'a> {
    fn read(bytes: &'a [u8]) -> Option<Self> {
        let length = usize::from(u16::from_le_bytes([*bytes.get(33)?, *bytes.get(34)?]));
        let rest = &bytes[entry::HEAD..];
        Some(Entry {
            kind: bytes[0],
            mode: u32_at(bytes, 1)?,
            owner: [u32_at(bytes, 5)?, u32_at(bytes, 9)?],
            device: u64_at(bytes, 13)?,
            time: Timespec { sec: u64_at(bytes, 21)? as i64, nsec: i64::from(u32_at(bytes, 29)?) },
            path: rest.get(..length)?,
            target: &rest[length..],
        })
    }
}

/// What an ordinary user is refused is left out.
fn if_allowed(answer: Answer) -> Answer<()> {
    match answer {
        Err(EPERM | EACCES | EOPNOTSUPP | EINVAL) | Ok(_) => Ok(()),
        Err(errno) => Err(errno),
    }
}

impl Put {
    /// A new tree with this name in `dir`.
    pub fn begin(&mut self, dir: i32, name: &CStr) -> Answer<()> {
        (self.failed, self.path, self.last) = (0, Text::new(), Text::new());
        // SAFETY: a C string that outlives the call.
        unsafe { call!(nr::MKDIRAT, dir, path(name), 0o700) }?;
        self.root = sys::open_at(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0)?;
        Ok(())
    }

    pub fn forget(&mut self) {
        self.finish_file();
        if self.root > 0 {
            let _ = sys::close(core::mem::take(&mut self.root));
        }
    }

    fn finish_file(&mut self) {
        if self.file > 0 {
            let times = [self.time, self.time];
            // SAFETY: two timespecs. A time that cannot be kept is no reason to fail.
            let _ = unsafe { call!(nr::UTIMENSAT, self.file, 0, &times, 0) };
            let _ = sys::close(core::mem::take(&mut self.file));
        }
    }

    fn note(&mut self, answer: Answer<()>) {
        if let (Err(errno), 0) = (answer, self.failed) {
            (self.failed, self.path) = (errno, Text::of(self.last.bytes()));
        }
    }

    pub fn entry(&mut self, bytes: &[u8]) {
        self.finish_file();
        if self.failed != 0 {
            return;
        }
        let Some(entry) = Entry::read(bytes) else { return self.note(Err(EINVAL)) };
        self.last = Text::of(entry.path);
        let made = self.make(&entry);
        self.note(made);
    }

    fn make(&mut self, e: &Entry) -> Answer<()> {
        let (mut a, mut b) = ([0; 4096], [0; 4096]);
        let (name, target) = (inside(e.path, &mut a)?, text(e.target, &mut b)?);
        let root = self.root;
        match e.kind {
            entry::DIRECTORY if e.path.is_empty() => return Ok(()),
            entry::DIRECTORY => {
                // SAFETY: a C string that outlives the call.
                return unsafe { call!(nr::MKDIRAT, root, path(name), 0o700 | (e.mode & 0o777)) }.map(drop);
            }
            entry::FINISHED => {}
            entry::FILE => {
                let flags = O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_NOCTTY;
                (self.file, self.time) = (sys::open_at(root, name, flags, 0o600)?, e.time);
            }
            entry::SYMLINK => {
                // SAFETY: C strings that outlive the call.
                unsafe { call!(nr::SYMLINKAT, path(target), root, path(name)) }?;
            }
            entry::HARD_LINK => {
                let target = inside(e.target, &mut b)?;
                // SAFETY: C strings that outlive the call.
                return unsafe { call!(nr::LINKAT, root, path(target), root, path(name), 0) }.map(drop);
            }
            entry::NODE => {
                // SAFETY: C strings that outlive the call.
                match unsafe { call!(nr::MKNODAT, root, path(name), e.mode, e.device) } {
                    Err(EPERM) => return Ok(()),
                    other => other?,
                };
            }
            _ => return Err(EINVAL),
        }
        let [uid, gid] = e.owner;
        // SAFETY: C strings that outlive the call.
        if_allowed(unsafe { call!(nr::FCHOWNAT, root, path(name), uid, gid, AT_SYMLINK_NOFOLLOW) })?;
        if e.kind != entry::SYMLINK {
            // SAFETY: C strings that outlive the call. Changing the owner took set-uid bits away.
            unsafe { call!(nr::FCHMODAT, root, path(name), e.mode & 0o7777) }?;
        }
        if e.kind != entry::FILE {
            let times = [e.time, e.time];
            // SAFETY: two timespecs. A time that cannot be kept is no reason to fail.
            let _ = unsafe { call!(nr::UTIMENSAT, root, path(name), &times, AT_SYMLINK_NOFOLLOW) };
        }
        Ok(())
    }

    pub fn bytes(&mut self, mut rest: &[u8]) {
        while !rest.is_empty() && self.failed == 0 && self.file > 0 {
            match sys::write(self.file, rest) {
                Ok(n) if n > 0 => rest = &rest[n.min(rest.len())..],
                Err(EINTR) => {}
                Err(errno) => self.note(Err(errno)),
                Ok(_) => self.note(Err(ENOSPC)),
            }
        }
    }

    pub fn attribute(&mut self, bytes: &[u8]) {
        let set = self.set_attribute(bytes);
        self.note(set);
    }

    fn set_attribute(&self, bytes: &[u8]) -> Answer<()> {
        let length = usize::from(u16::from_le_bytes([*bytes.first().ok_or(EINVAL)?, *bytes.get(1).ok_or(EINVAL)?]));
        let (mut a, mut b) = ([0; 4096], [0; 4096]);
        let name = text(bytes.get(2..2 + length).ok_or(EINVAL)?, &mut a)?;
        let value = &bytes[2 + length..];
        // lsetxattr(2) knows no directory to start from; the descriptor in proc is one.
        let mut full = Text::<4200>::format(format_args!("/proc/self/fd/{}/", self.root));
        full.add(self.last.bytes());
        let file = text(full.bytes(), &mut b)?;
        // SAFETY: C strings and `value`.
        if_allowed(unsafe { call!(nr::LSETXATTR, path(file), path(name), value.as_ptr(), value.len(), 0) })
    }
}

/// A path that stays inside: relative, without `..`; `.` for the tree itself.
fn inside<'a>(bytes: &[u8], room: &'a mut [u8; 4096]) -> Answer<&'a CStr> {
    if bytes.is_empty() {
        return text(b".", room);
    }
    if bytes.split(|b| *b == b'/').any(|part| matches!(part, b"" | b"." | b"..")) {
        return Err(EINVAL);
    }
    text(bytes, room)
}

//! The list of operations the launcher works off, version 1: numbers shared with the driver, and the reader.
//!
//! Goes in: bytes. Comes out: operations with their fields. Pure; must not know what an operation does. The driver
//! includes this file to write what the launcher reads.
//!
//! ```text
//! list  = "abl1"  u32 length of the whole list  u32 number of operations  operation…
//! op    = u8 code  u8 stage  u8 flags  u8 0  u32 number of fields  field…
//! field = u32 length  bytes  NUL (not counted, so that a text can be used where it lies)
//! ```
//! Everything is little-endian; a number is a field of 8 bytes.

use core::ffi::CStr;

pub const MAGIC: [u8; 4] = *b"abl1";
pub const HEADER: usize = 12;
/// Longest list accepted, in bytes.
pub const MAX_LIST: usize = 1 << 20;

/// Descriptor number of slot 0 of `OPEN`; `/proc/self/fd/300` is how a mount names it.
pub const FIRST_SLOT: i32 = 300;
pub const SLOTS: u64 = 64;

/// What the cell's first process exits with when an operation before exec failed. The status pipe says which.
pub const SETUP_FAILED: i32 = 125;

macro_rules! bytes {
    ($($(#[$doc:meta])* $name:ident = $value:expr),* $(,)?) => { $($(#[$doc])* pub const $name: u8 = $value;)* };
}

/// Who performs an operation, and when.
pub mod stage {
    bytes! {
        /// The launcher, before there is a child.
        BEFORE = 0,
        /// The launcher, while the child waits.
        BESIDE = 1,
        /// The child, ending in `EXEC`.
        INSIDE = 2,
        /// The launcher, when the child and all its descendants are gone. Failures are only told.
        AFTER = 3,
    }
}

pub mod flag {
    bytes! {
        /// A failure is told (`note`), and the next operation follows.
        MAY_FAIL = 1,
        /// What does not exist (`ENOENT`, `ENOTDIR`) is passed over in silence.
        MAY_BE_ABSENT = 2,
    }
}

/// Operations and their fields: t a text, n a number, b bytes.
pub mod code {
    bytes! {
        /// n flags of clone(2): which namespaces the child gets. Stage BEFORE.
        CLONE = 1,
        /// Adopt orphans of the child, and kill them when it has ended. Stage BEFORE.
        ADOPT = 2,
        /// t path, n mode: one directory; there already is fine.
        MKDIR = 3,
        /// t path, n mode: with its parents.
        MKDIRS = 4,
        /// t path, b bytes: into a file that exists, by one write.
        WRITE = 5,
        /// t path, n mode, b bytes: a new file.
        FILE = 6,
        /// t path: an empty file to mount on, unless something is there. A dangling symlink is replaced.
        TOUCH = 7,
        /// t path.
        RMDIR = 8,
        /// t path: the child's pid into a file. Stage BESIDE.
        WRITE_PID = 9,
        /// t name, b bytes: into `/proc/CHILD/name`. Stage BESIDE.
        WRITE_PROC = 10,
        /// t program, t arguments…: runs `program CHILD arguments…`, which must exit 0. Stage BESIDE.
        HELPER = 11,
        /// t key, t path: sends the first 4,096 bytes of a file to the driver.
        REPORT = 12,
        /// n slot, t path, n flags of open(2).
        OPEN = 13,
        /// t source, t target, t type, n flags, t data, as mount(2); empty texts are NULL.
        MOUNT = 14,
        /// t target, n flags: changes the flags of a mount, keeping those it has.
        REMOUNT = 15,
        /// t target, n flags.
        UNMOUNT = 16,
        /// t path, t source of an empty file: hides a file behind it, a directory behind an empty one.
        MASK = 17,
        /// t path.
        READ_ONLY = 18,
        /// t text, t path: a symlink.
        SYMLINK = 19,
        /// t path, n mode, n device.
        MKNOD = 20,
        /// t path.
        CHDIR = 21,
        /// n slot.
        FCHDIR = 22,
        /// pivot_root(".", "."): the old root lies over the new one until it is unmounted.
        PIVOT = 23,
        /// t name.
        HOSTNAME = 24,
        /// t name.
        DOMAINNAME = 25,
        /// Loopback interface up.
        LOOPBACK = 26,
        /// n resource, n soft, n hard.
        RLIMIT = 27,
        /// n set: what stays in the bounding set.
        BOUND = 28,
        /// n effective, n permitted, n inheritable.
        CAPS = 29,
        /// n set: raised in the ambient set, which is cleared first.
        AMBIENT = 30,
        /// b u32…: supplementary groups.
        GROUPS = 31,
        /// n uid, n gid, n 1 to keep the capabilities until exec.
        IDS = 32,
        /// no_new_privs.
        NO_NEW_PRIVS = 33,
        /// b a BPF program.
        SECCOMP = 34,
        /// n flags of unshare(2).
        UNSHARE = 35,
        /// A session of its own.
        SETSID = 36,
        /// n mask.
        UMASK = 37,
        /// t path: opened as standard input.
        STDIN = 38,
        /// n number of paths, n number of arguments, t path…, t argument…, t environment…: the first path that is a
        /// program, as execvp(3) chooses.
        EXEC = 39,
        /// n persona.
        PERSONALITY = 40,
        /// t path, n uid, n gid; symlinks are followed, so that it can be a descriptor in proc.
        CHOWN = 41,
        /// n slot: the program inherits it.
        KEEP = 42,
    }
}

/// The list is not what this version understands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

/// The length a list announces, from its first `HEADER` bytes.
pub fn announced(head: &[u8]) -> Result<usize, Malformed> {
    let length = u32_at(head, 4)? as usize;
    (head[..4] == MAGIC && (HEADER..=MAX_LIST).contains(&length)).then_some(length).ok_or(Malformed)
}

/// One operation; `index` is its place in the list, by which failures are told.
#[derive(Clone, Copy)]
pub struct Op<'a> {
    pub index: u32,
    pub code: u8,
    pub stage: u8,
    pub flags: u8,
    pub fields: Fields<'a>,
}

#[derive(Clone, Copy)]
pub struct Fields<'a> {
    pub count: u32,
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    /// The next field with its NUL.
    fn take(&mut self) -> Result<&'a [u8], Malformed> {
        self.count = self.count.checked_sub(1).ok_or(Malformed)?;
        let length = u32_at(self.rest, 0)? as usize;
        let end = length.checked_add(5).ok_or(Malformed)?;
        let field = self.rest.get(4..end).ok_or(Malformed)?;
        if field.last() != Some(&0) {
            return Err(Malformed);
        }
        self.rest = &self.rest[end..];
        Ok(field)
    }

    pub fn bytes(&mut self) -> Result<&'a [u8], Malformed> {
        self.take().map(|field| &field[..field.len() - 1])
    }

    pub fn text(&mut self) -> Result<&'a CStr, Malformed> {
        CStr::from_bytes_with_nul(self.take()?).map_err(|_| Malformed)
    }

    pub fn number(&mut self) -> Result<u64, Malformed> {
        self.bytes()?.try_into().map(u64::from_le_bytes).map_err(|_| Malformed)
    }
}

/// The operations of a list, in order. Ends after the first that is malformed.
pub struct Ops<'a> {
    index: u32,
    count: u32,
    rest: &'a [u8],
}

impl<'a> Ops<'a> {
    pub fn new(list: &'a [u8]) -> Result<Self, Malformed> {
        if list.len() < HEADER || announced(list)? != list.len() {
            return Err(Malformed);
        }
        Ok(Ops { index: 0, count: u32_at(list, 8)?, rest: &list[HEADER..] })
    }

    fn read(&mut self) -> Result<Op<'a>, Malformed> {
        let count = u32_at(self.rest, 4)?;
        let head = &self.rest[..4];
        let mut fields = Fields { count, rest: &self.rest[8..] };
        let op = Op { index: self.index, code: head[0], stage: head[1], flags: head[2], fields };
        for _ in 0..count {
            fields.take()?;
        }
        self.rest = fields.rest;
        self.index += 1;
        Ok(op)
    }
}

impl<'a> Iterator for Ops<'a> {
    type Item = Result<Op<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.index == self.count {
            // Bytes that no operation claims are a list of another making.
            return if self.rest.is_empty() {
                None
            } else {
                self.rest = &[];
                Some(Err(Malformed))
            };
        }
        let op = self.read();
        if op.is_err() {
            (self.index, self.count, self.rest) = (0, 0, &[]);
        }
        Some(op)
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Result<u32, Malformed> {
    let four = bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).ok_or(Malformed)?;
    Ok(u32::from_le_bytes(four))
}

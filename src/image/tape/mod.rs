//! The tar format, as far as images need it: ustar with pax and GNU extensions.
//!
//! In: bytes, entries. Out: entries, bytes. It knows nothing of file systems; what a path may do is decided elsewhere.
//! Written here because a reader of hostile archives must bound what every extension header may cost, and must be the
//! only one who interprets them: whatever checks a path has to see the path that is used.

pub mod read;
pub mod write;

/// Size of a header and unit of padding.
pub const BLOCK: usize = 512;

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A regular file; its bytes follow.
    File,
    /// A directory.
    Directory,
    /// A symbolic link to this text.
    Symlink(Vec<u8>),
    /// Another name of the entry with this path.
    Link(Vec<u8>),
    /// A character device.
    Character(u32, u32),
    /// A block device.
    Block(u32, u32),
    /// A named pipe.
    Fifo,
}

/// Seconds and nanoseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Time {
    /// Seconds, may be negative.
    pub seconds: i64,
    /// 0 to 999,999,999.
    pub nanos: u32,
}

/// One member of an archive, extension headers already applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The path as it is written in the archive: not cleaned, not trusted.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// Permission bits with set-id and sticky bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Time of last modification.
    pub mtime: Time,
    /// Size of the file once it is written out.
    pub size: u64,
    /// Extended attributes, in the order of the archive.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Where the bytes that follow belong, if the file has holes: offset and length, ascending.
    pub sparse: Option<Vec<(u64, u64)>>,
}

//! What goes over the one stream between the driver and the agent, version 1: numbers shared with the driver.
//!
//! Pure. The driver includes this file.
//!
//! ```text
//! the agent first says MAGIC and one HELLO frame; whatever the way there wrote before it (banners) is not ours
//! frame  = u32 channel  u8 kind  u32 length  bytes
//! ```
//! Everything is little-endian. The driver chooses channel numbers and does not use one again; 0 belongs to none. A channel
//! carries one question, one tree that is put, or one stream: a launcher or a socket. What a stream says comes as `TOLD`,
//! `OUT` and `ERR`, each ended by an empty frame, and no more than the receiver gave credit for; the same holds for `DATA`.

pub const VERSION: u32 = 1;
pub const MAGIC: [u8; 16] = *b"\0abicus\0agent\x01\xff\0";
pub const HEADER: usize = 9;
/// Longest payload of a frame.
pub const MAX_FRAME: usize = 32 << 10;
/// Bytes of one direction of one stream that may be on their way when it opens.
pub const WINDOW: usize = 64 << 10;
/// Streams and puts at a time.
pub const CHANNELS: usize = 256;
/// Seconds without a word from the driver after which the agent takes it for gone.
pub const PATIENCE: u64 = 150;

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $value:expr),* $(,)?) => { $($(#[$doc])* pub const $name: u8 = $value;)* };
}

#[allow(dead_code)] // OUT and ERR are TOLD and so many
pub mod kind {
    kinds! {
        /// Agent: u32 VERSION, then lines `key value`.
        HELLO = 1,
        /// Driver: are you there? Agent: yes.
        PING = 2,
        /// Driver: u32 most, path. Agent: `REPLY` frames with the file's first bytes, then `END`.
        READ = 3,
        /// Driver: path. Agent: u32 mode, u64 device, then `END`.
        STAT = 4,
        /// Driver: path. Agent: for every name u32 mode, u64 device, u16 length, name; then `END`.
        LIST = 5,
        /// Agent: a part of an answer.
        REPLY = 6,
        /// Agent: u32 errno. The channel is over, save that a stream's end is only told by this when it never opened.
        END = 7,
        /// Driver: a launcher, whose list follows as `DATA`; `CLOSE` lets go of its lifeline.
        LAUNCH = 8,
        /// Driver: path of a socket to connect to. Agent: an empty `REPLY` when it is connected.
        CONNECT = 9,
        /// Driver: bytes for the stream.
        DATA = 10,
        /// Driver: there is no more `DATA`.
        CLOSE = 11,
        /// Driver: kills the launcher itself.
        KILL = 12,
        /// Driver: forgets the channel, with everything of it.
        DROP = 13,
        /// Agent: what the launcher tells, or the socket says.
        TOLD = 14,
        /// Agent: standard output.
        OUT = 15,
        /// Agent: standard error.
        ERR = 16,
        /// Either: u8 kind, u32 more bytes that may be sent of it.
        CREDIT = 17,
        /// Driver: name of a tree below the agent's directory, which must not exist; `ENTRY`, `BYTES` and `XATTR` follow.
        PUT = 18,
        /// Driver: see [`super::ENTRY`].
        ENTRY = 19,
        /// Driver: appends to the file of the last entry.
        BYTES = 20,
        /// Driver: u16 length, name, value: of the last entry.
        XATTR = 21,
        /// Driver: the tree is whole. Agent: `REPLY` with the path that failed, where one did; `END`.
        DONE = 22,
        /// Driver: name of a tree to remove. Agent: `END`.
        REMOVE = 23,
    }
}

/// An entry of a tree: u8 type, u32 mode, u32 uid, u32 gid, u64 device, i64 seconds, u32 nanoseconds, u16 length of the
/// path, path, target. Paths are relative to the tree; the tree itself is the empty one.
pub mod entry {
    kinds! {
        /// A directory, writable for now.
        DIRECTORY = b'd',
        /// Owner, mode and times of a directory whose entries are all there.
        FINISHED = b'D',
        FILE = b'f',
        SYMLINK = b'l',
        /// The target is a path of the tree.
        HARD_LINK = b'h',
        /// Device node, FIFO or socket; where it may not be made, it is left out.
        NODE = b'n',
    }
    /// Bytes before the path.
    pub const HEAD: usize = 35;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    pub channel: u32,
    pub kind: u8,
    pub length: usize,
}

impl Head {
    /// Of the first `HEADER` bytes; None while there are fewer.
    pub fn read(bytes: &[u8]) -> Option<Head> {
        Some(Head { channel: u32_at(bytes, 0)?, kind: *bytes.get(4)?, length: u32_at(bytes, 5)? as usize })
    }

    pub fn bytes(self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[..4].copy_from_slice(&self.channel.to_le_bytes());
        bytes[4] = self.kind;
        bytes[5..].copy_from_slice(&(self.length as u32).to_le_bytes());
        bytes
    }
}

pub fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map(u32::from_le_bytes)
}

pub fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..at + 8).and_then(|b| b.try_into().ok()).map(u64::from_le_bytes)
}

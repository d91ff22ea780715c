//! How the driver gets at a host: reads small files there, has trees of files there, starts the launcher there, and
//! talks to sockets there.
//!
//! In: paths of the host, lists of operations. Out: bytes, and the streams of a started launcher. Must not know: engines,
//! images, what a list is for. Every path that goes in or comes out is the host's, save for the tree given to
//! [`Reach::put`], which is the driver's.
//!
//! [`Local`](super::Local) is the identity. Where one byte stream leads to the host (SSH, a virtual machine's serial port),
//! [`Agent`](crate::host::agent::Agent) does all of this over that stream, and whoever opens the stream needs to implement
//! nothing else: connect, hand both ends to the agent, keep the process behind it alive.
//!
//! An implementation connects when it is first used, not when it is made; when the connection fails or breaks, every
//! method says so at once, and none waits for ever.

use std::io;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::engine::Facts;
use crate::engine::container::Endpoint;
use crate::fault::Fault;

/// What every host says of itself before anything is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Site {
    /// `uname -r`.
    pub kernel_release: String,
    /// `uname -v`.
    pub kernel_version: String,
    /// `uname -m`.
    pub machine: String,
    /// Bytes.
    pub page_size: u64,
    /// That this process may run on.
    pub cpus: u64,
    /// Effective user of cells without a user namespace.
    pub uid: u32,
    /// Effective group.
    pub gid: u32,
    /// A directory of abicus' own, on a file system that allows execution. On a host that is not this machine it is gone
    /// when the connection is.
    pub dir: String,
    /// The launcher, an executable file below `dir`; without arguments it says how it is used and exits with 2.
    pub launcher: String,
    /// An empty directory below `dir`, to mount on in mount namespaces of their own.
    pub mount_point: String,
}

/// What a path leads to, symlinks followed by [`Reach::stat`] and not followed by [`Reach::list`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// Type and permissions, as `st_mode`.
    pub mode: u32,
    /// Device number of a device node, as `st_rdev`.
    pub device: u64,
}

impl Stat {
    const TYPE: u32 = 0o170_000;

    /// Whether it is a directory.
    pub fn is_dir(self) -> bool {
        self.mode & Self::TYPE == 0o040_000
    }

    /// Whether it is a character or block device.
    pub fn is_device(self) -> bool {
        matches!(self.mode & Self::TYPE, 0o020_000 | 0o060_000)
    }

    /// Whether it is a socket.
    pub fn is_socket(self) -> bool {
        self.mode & Self::TYPE == 0o140_000
    }
}

/// One end of a stream.
pub type Reader = Box<dyn AsyncRead + Send + Unpin>;
/// The other.
pub type Writer = Box<dyn AsyncWrite + Send + Unpin>;

/// The launcher as a process on the host.
#[async_trait]
pub trait Process: Send {
    /// Waits until it is gone.
    async fn gone(&mut self);
    /// Kills it where letting go of the lifeline was not enough.
    fn kill(&mut self);
    /// Why the way to it broke, where it did: its streams then end before everything has come.
    fn lost(&self) -> Option<Fault> {
        None
    }
}

/// A launcher that works off a list.
pub struct Launched {
    /// Standard output of what it executes.
    pub stdout: Reader,
    /// Standard error.
    pub stderr: Reader,
    /// The launcher's own lines: `probes/launch/main.rs`.
    pub told: Reader,
    /// Dropping it makes the launcher kill everything it started and clean up behind it.
    pub lifeline: Writer,
    /// The launcher itself. Dropping it does nothing to it.
    pub process: Box<dyn Process>,
}

/// A tree of this machine that a host will be asked to have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree {
    /// Where it is on this machine.
    pub path: PathBuf,
    /// What names its content.
    pub digest: String,
}

/// How the driver gets at a host; see the module.
#[async_trait]
pub trait Reach: Send + Sync {
    /// What the host says of itself. The first call connects; later ones are answered from memory, or say that the
    /// connection broke meanwhile, or connect anew: then [`Site::dir`] is another, and what was put is there no more.
    async fn site(&self) -> Result<Site, Fault>;

    /// The first `most` bytes of a file, which may be one of proc or sys.
    async fn read(&self, path: &str, most: usize) -> io::Result<Vec<u8>>;

    /// What a path leads to.
    async fn stat(&self, path: &str) -> io::Result<Stat>;

    /// Names in a directory, sorted, without `.` and `..`; a directory too large to be sane is cut off.
    async fn list(&self, dir: &str) -> io::Result<Vec<(String, Stat)>>;

    /// Has a tree of this machine on the host, with owners, modes, links, devices and attributes as far as the user there
    /// may set them, and says where. `digest` names its content: what is there already is not sent again. Nobody may
    /// write to what comes back.
    async fn put(&self, tree: &Path, digest: &str) -> Result<String, Fault>;

    /// Starts the launcher and hands it a list of operations, as its bytes.
    async fn launch(&self, list: &[u8]) -> Result<Launched, Fault>;

    /// Connects to a stream socket in the host's file system.
    async fn connect(&self, socket: &str) -> io::Result<(Reader, Writer)>;

    /// Names trees that will be [`put`](Reach::put): a host that has to have them when it starts is told before it is first
    /// used. Others need not be told.
    async fn expect(&self, _: &[Tree]) {}

    /// What whoever started the host knows of it.
    fn facts(&self) -> Facts {
        Facts::new()
    }

    /// Why the host is gone, where it is: a better reason for what failed on it than that the stream ended.
    async fn lost(&self) -> Option<Fault> {
        None
    }

    /// Nothing more will be asked of this host: what was started for it is stopped. Returns what it said of itself all the
    /// while, as evidence.
    async fn leave(&self) -> Option<Vec<u8>> {
        None
    }

    /// Where engines are, on a host of which nothing else can be reached.
    fn endpoint(&self) -> Option<&Endpoint> {
        None
    }

    /// How many times as long as on an ordinary host an engine there may take to answer.
    fn patience(&self) -> u32 {
        1
    }

    /// Whether the host's file system is this machine's too, so that paths and sockets need no detour.
    fn is_here(&self) -> bool {
        false
    }
}

/// The start of a text file; empty where there is none or it may not be read.
pub(crate) async fn text(reach: &dyn Reach, path: &str) -> String {
    const MOST: usize = 1 << 20;
    let bytes = reach.read(path, MOST).await.unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

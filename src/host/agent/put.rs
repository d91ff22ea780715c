//! Sends a tree of files to the agent.
//!
//! In: a directory of this machine. Out: frames. Symbolic links are sent as they are and never followed; a file with several
//! names is sent once. Reading happens on a thread of its own, a few frames ahead of the wire.

use std::collections::HashMap;
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::mpsc;

use super::frame::{MAX_FRAME, entry, kind};
use super::wire::Wire;
use crate::fault::{Fault, Phase};

/// Longest path of a tree that is there afterwards: names what failed.
const MAX_PATH: usize = 4096;
/// Frames read ahead.
const AHEAD: usize = 8;

/// A frame of a tree.
type Piece = (u8, Vec<u8>);

/// Puts a tree below the agent's directory, under a name that is not there yet, nor after it failed.
pub(super) async fn tree(wire: &Arc<Wire>, tree: &Path, name: &str) -> Result<(), Fault> {
    let fault = |e: io::Error| Fault::new(Phase::Prepare, format!("put {} on the host: {e}", tree.display()));
    let question = wire.question(MAX_PATH).map_err(fault)?;
    let id = question.id;
    wire.send(id, kind::PUT, name.as_bytes());
    let sent = send(wire, id, tree).await;
    let put = match sent {
        Ok(()) => question.answer().await.map(drop),
        Err(error) => Err(error),
    };
    if put.is_err() {
        wire.send(id, kind::DROP, &[]);
        let _ = wire.ask(kind::REMOVE, name.as_bytes(), 0).await;
    }
    put.map_err(fault)
}

async fn send(wire: &Arc<Wire>, id: u32, tree: &Path) -> io::Result<()> {
    let (send, mut pieces) = mpsc::channel::<Piece>(AHEAD);
    let root = tree.to_owned();
    let walk = tokio::task::spawn_blocking(move || Walk { root, send, names: HashMap::new() }.walk());
    while let Some((what, payload)) = pieces.recv().await {
        wire.send_bulk(id, what, &payload).await?;
    }
    walk.await.map_err(io::Error::other)??;
    wire.send_bulk(id, kind::DONE, &[]).await
}

struct Walk {
    root: PathBuf,
    send: mpsc::Sender<Piece>,
    /// Files with several names, by file system and number.
    names: HashMap<(u64, u64), PathBuf>,
}

impl Walk {
    fn walk(mut self) -> io::Result<()> {
        let root = self.root.clone();
        self.dir(&root, Path::new(""))
    }

    fn piece(&self, what: u8, payload: Vec<u8>) -> io::Result<()> {
        self.send.blocking_send((what, payload)).map_err(|_| io::ErrorKind::ConnectionAborted.into())
    }

    fn dir(&mut self, dir: &Path, path: &Path) -> io::Result<()> {
        let about = fs::symlink_metadata(dir)?;
        self.entry(entry::DIRECTORY, &about, path, b"")?;
        let mut names = fs::read_dir(dir)?.map(|e| Ok(e?.file_name())).collect::<io::Result<Vec<_>>>()?;
        names.sort();
        for name in names {
            self.one(&dir.join(&name), &path.join(&name))?;
        }
        self.entry(entry::FINISHED, &about, path, b"")?;
        self.attributes(dir)
    }

    fn one(&mut self, file: &Path, path: &Path) -> io::Result<()> {
        let about = fs::symlink_metadata(file)?;
        let kind = about.file_type();
        if kind.is_dir() {
            return self.dir(file, path);
        }
        if kind.is_symlink() {
            return self.entry(entry::SYMLINK, &about, path, fs::read_link(file)?.as_os_str().as_bytes());
        }
        if about.nlink() > 1 {
            if let Some(first) = self.names.get(&(about.dev(), about.ino())).cloned() {
                return self.entry(entry::HARD_LINK, &about, path, first.as_os_str().as_bytes());
            }
            self.names.insert((about.dev(), about.ino()), path.to_owned());
        }
        if !kind.is_file() {
            return self.entry(entry::NODE, &about, path, b"");
        }
        self.entry(entry::FILE, &about, path, b"")?;
        self.content(File::open(file)?)?;
        self.attributes(file)
    }

    fn entry(&self, what: u8, about: &Metadata, path: &Path, target: &[u8]) -> io::Result<()> {
        let path = path.as_os_str().as_bytes();
        let length = u16::try_from(path.len()).map_err(|_| io::Error::other("a path is too long"))?;
        let mut bytes = vec![what];
        for number in [about.mode(), about.uid(), about.gid()] {
            bytes.extend(number.to_le_bytes());
        }
        bytes.extend(about.rdev().to_le_bytes());
        bytes.extend(about.mtime().to_le_bytes());
        bytes.extend((about.mtime_nsec() as u32).to_le_bytes());
        bytes.extend(length.to_le_bytes());
        bytes.extend(path);
        bytes.extend(target);
        self.piece(kind::ENTRY, bytes)
    }

    fn content(&self, mut file: File) -> io::Result<()> {
        loop {
            let mut room = vec![0; MAX_FRAME];
            let n = file.read(&mut room)?;
            if n == 0 {
                return Ok(());
            }
            room.truncate(n);
            self.piece(kind::BYTES, room)?;
        }
    }

    fn attributes(&self, file: &Path) -> io::Result<()> {
        // A file system without attributes has none to send.
        for name in xattr::list(file).into_iter().flatten() {
            let Ok(Some(value)) = xattr::get(file, &name) else { continue };
            let name = name.as_bytes();
            let (Ok(length), true) = (u16::try_from(name.len()), name.len() + value.len() + 2 <= MAX_FRAME) else {
                continue;
            };
            self.piece(kind::XATTR, [&length.to_le_bytes()[..], name, &value].concat())?;
        }
        Ok(())
    }
}

//! A tree → its canonical tar: names sorted, everything kept (owner, mode, times to the nanosecond, devices, extended
//! attributes, hard links), nothing that differs between two readings of the same tree.
//!
//! In: a directory. Out: a stream of bytes, made as it is read. Its SHA-256 is the digest of the tree.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::error::ImageError;
use super::root::{self, MAX_DEPTH, Root};
use super::tape::{Entry, Kind, Time, write};
use crate::fault::Fault;

/// The canonical tar of a tree, as `docker import` takes it. Sockets are left out: tar has none.
pub fn tree_tar(tree: &Path) -> Result<TreeTar, Fault> {
    Ok(TreeTar::new(tree)?)
}

/// See [`tree_tar`].
#[derive(Debug)]
pub struct TreeTar {
    root: Root,
    stack: Vec<Level>,
    /// Where a file with several names was written first.
    links: HashMap<(u64, u64), Vec<u8>>,
    /// The file that is being written, how much is missing, and its padding.
    file: Option<(File, u64, usize)>,
    ready: Vec<u8>,
    at: usize,
    state: State,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    Fresh,
    Walking,
    Done,
}

#[derive(Debug)]
struct Level {
    fd: OwnedFd,
    path: Vec<u8>,
    /// In reverse order.
    names: Vec<Vec<u8>>,
}

impl Read for TreeTar {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if buffer.is_empty() {
                return Ok(0);
            }
            if self.at < self.ready.len() {
                let n = buffer.len().min(self.ready.len() - self.at);
                buffer[..n].copy_from_slice(&self.ready[self.at..self.at + n]);
                self.at += n;
                return Ok(n);
            }
            if let Some((file, missing, pad)) = &mut self.file {
                if *missing == 0 {
                    self.ready = vec![0; *pad];
                    self.at = 0;
                    self.file = None;
                    continue;
                }
                let most = buffer.len().min(usize::try_from(*missing).unwrap_or(usize::MAX));
                let n = file.read(&mut buffer[..most])?;
                if n == 0 {
                    return Err(io::Error::new(
                        io::ErrorKind::UnexpectedEof,
                        "a file became shorter while it was read",
                    ));
                }
                *missing -= n as u64;
                return Ok(n);
            }
            match self.state {
                State::Fresh => self.start()?,
                State::Walking => self.step()?,
                State::Done => return Ok(0),
            }
        }
    }
}

impl TreeTar {
    /// Nothing read yet.
    pub fn new(tree: &Path) -> Result<Self, ImageError> {
        let root = Root::open(tree)?;
        Ok(Self { root, stack: vec![], links: HashMap::new(), file: None, ready: vec![], at: 0, state: State::Fresh })
    }

    fn start(&mut self) -> io::Result<()> {
        let stat = rustix::fs::fstat(self.root.fd())?;
        let fd = open_directory(self.root.fd(), b".")?;
        self.put(&entry(b"./".to_vec(), Kind::Directory, &stat, xattrs(&fd)?));
        self.push(fd, Vec::new())?;
        self.state = State::Walking;
        Ok(())
    }

    fn push(&mut self, fd: OwnedFd, path: Vec<u8>) -> io::Result<()> {
        if self.stack.len() > MAX_DEPTH {
            return Err(io::Error::other(format!("directories nest deeper than {MAX_DEPTH} levels")));
        }
        let mut names = root::names(&fd)?;
        names.reverse();
        self.stack.push(Level { fd, path, names });
        Ok(())
    }

    /// Writes the next entry.
    fn step(&mut self) -> io::Result<()> {
        let Some(level) = self.stack.last_mut() else {
            self.ready = write::END.to_vec();
            self.at = 0;
            self.state = State::Done;
            return Ok(());
        };
        let Some(name) = level.names.pop() else {
            self.stack.pop();
            return Ok(());
        };
        let mut path = level.path.clone();
        path.extend_from_slice(&name);
        let stat = root::stat_at(&level.fd, &name).map_err(|e| about(&path, e))?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        match kind {
            FileType::Socket | FileType::Unknown => return Ok(()),
            FileType::Directory => {
                let fd = open_directory(&level.fd, &name).map_err(|e| about(&path, e))?;
                path.push(b'/');
                self.put(&entry(path.clone(), Kind::Directory, &stat, xattrs(&fd)?));
                return self.push(fd, path);
            }
            _ => {}
        }
        if stat.st_nlink > 1 {
            let key = (stat.st_dev, stat.st_ino);
            if let Some(first) = self.links.get(&key) {
                let link = entry(path, Kind::Link(first.clone()), &stat, vec![]);
                self.put(&link);
                return Ok(());
            }
            self.links.insert(key, path.clone());
        }
        if kind == FileType::RegularFile {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let fd = rustix::fs::openat(&level.fd, name.as_slice(), flags, Mode::empty());
            let fd = fd.map_err(|e| about(&path, e))?;
            let mut file = entry(path, Kind::File, &stat, xattrs(&fd)?);
            file.size = u64::try_from(stat.st_size).unwrap_or(0);
            self.put(&file);
            self.file = Some((File::from(fd), file.size, write::padding(file.size)));
            return Ok(());
        }
        let device = || (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
        let kind = match kind {
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(&level.fd, name.as_slice(), Vec::new());
                Kind::Symlink(target.map_err(|e| about(&path, e))?.into_bytes())
            }
            FileType::CharacterDevice => Kind::Character(device().0, device().1),
            FileType::BlockDevice => Kind::Block(device().0, device().1),
            _ => Kind::Fifo,
        };
        let attributes = special_xattrs(&level.fd, &name)?;
        self.put(&entry(path, kind, &stat, attributes));
        Ok(())
    }

    fn put(&mut self, entry: &Entry) {
        self.ready = write::header(entry);
        self.at = 0;
    }
}

fn open_directory(parent: &OwnedFd, name: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, name, flags, Mode::empty())
}

fn entry(path: Vec<u8>, kind: Kind, stat: &Stat, xattrs: Vec<(Vec<u8>, Vec<u8>)>) -> Entry {
    Entry {
        path,
        kind,
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        mtime: Time { seconds: stat.st_mtime, nanos: u32::try_from(stat.st_mtime_nsec).unwrap_or(0) },
        size: 0,
        xattrs,
        sparse: None,
    }
}

fn about(path: &[u8], errno: Errno) -> io::Error {
    let error = io::Error::from(errno);
    io::Error::new(error.kind(), format!("`{}`: {error}", String::from_utf8_lossy(path)))
}

/// Whether an extended attribute belongs to the image. Labels of the machine (SELinux, IMA) do not, and overlayfs's own
/// would change what a mount of the tree shows.
pub fn is_portable_xattr(name: &[u8]) -> bool {
    let overlay = [b"user.overlay.".as_slice(), b"trusted.overlay."].iter().any(|p| name.starts_with(p));
    let known = [b"user.".as_slice(), b"trusted.", b"system.posix_acl_"].iter().any(|p| name.starts_with(p));
    (known && !overlay) || name == b"security.capability"
}

const MAX_XATTR: usize = 64 * 1024;

/// The attributes of an open file.
fn xattrs(fd: impl AsFd) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let fd = fd.as_fd();
    let mut list = vec![0; MAX_XATTR];
    let size = match rustix::fs::flistxattr(fd, list.as_mut_slice()) {
        Ok(size) => size,
        Err(Errno::OPNOTSUPP | Errno::PERM | Errno::ACCESS) => return Ok(vec![]),
        Err(errno) => return Err(errno.into()),
    };
    collect_xattrs(&list[..size], |name, value| rustix::fs::fgetxattr(fd, name, value))
}

/// The attributes of what cannot be opened: a link, a device, a pipe.
fn special_xattrs(dir: &OwnedFd, name: &[u8]) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let path = [format!("/proc/self/fd/{}/", dir.as_raw_fd()).as_bytes(), name].concat();
    let mut list = vec![0; MAX_XATTR];
    let size = match rustix::fs::llistxattr(path.as_slice(), list.as_mut_slice()) {
        Ok(size) => size,
        Err(Errno::OPNOTSUPP | Errno::PERM | Errno::ACCESS | Errno::NOENT) => return Ok(vec![]),
        Err(errno) => return Err(errno.into()),
    };
    collect_xattrs(&list[..size], |name, value| rustix::fs::lgetxattr(path.as_slice(), name, value))
}

fn collect_xattrs(
    list: &[u8],
    read: impl Fn(&[u8], &mut [u8]) -> Result<usize, Errno>,
) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut found = Vec::new();
    for name in list.split(|b| *b == 0).filter(|name| is_portable_xattr(name)) {
        let mut value = vec![0; MAX_XATTR];
        match read(name, &mut value) {
            Ok(size) => found.push((name.to_vec(), value[..size].to_vec())),
            Err(Errno::NODATA | Errno::PERM | Errno::ACCESS) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(found)
}

//! Layers → one tree. No path of an archive can leave the tree, whatever it says.
//!
//! In: tar archives nobody trusts. Out: a directory. Every entry is made by name in an open parent directory that was
//! reached from the root one component at a time ([`Root::directory`]), what was there before is removed first and never
//! written through, and modes and times of directories are set last, so that the order of entries does not matter.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use super::blob::Limits;
use super::error::ImageError;
use super::export::is_portable_xattr;
use super::root::{self, MAX_DEPTH, Missing, Root, components};
use super::tape::read::{Reader, reading};
use super::tape::{Entry, Kind, Time};

/// Whether names that start with `.wh.` delete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deletions {
    /// A layer: `.wh.NAME` deletes `NAME` of the layers below, `.wh..wh..opq` everything below in its directory.
    Whiteouts,
    /// A plain root file system: they are names like others.
    Literal,
}

/// What was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// Bytes in regular files, each counted once.
    pub size: u64,
    /// What the system did not let us keep: `attributes`, `devices`, `ownership`.
    pub dropped: BTreeSet<&'static str>,
}

/// Makes a tree out of layers, lowest first.
pub struct Applier {
    root: Root,
    limits: Limits,
    entries: u64,
    bytes: u64,
    /// Every directory made, by its inode number, with what it gets at the end.
    directories: HashMap<u64, (u32, Time)>,
    /// What the current layer made, by inode number of the parent and name: its own deletions do not touch it.
    layer: HashSet<(u64, Vec<u8>)>,
    dropped: BTreeSet<&'static str>,
    superuser: bool,
}

impl Applier {
    /// Starts in an empty directory.
    pub fn new(tree: &Path, limits: Limits) -> Result<Self, ImageError> {
        let root = Root::open(tree)?;
        let inode =
            rustix::fs::fstat(root.fd()).map_err(|e| ImageError::io("could not look at", tree)(e.into()))?.st_ino;
        Ok(Self {
            root,
            limits,
            entries: 0,
            bytes: 0,
            directories: HashMap::from([(inode, (0o755, Time::default()))]),
            layer: HashSet::new(),
            dropped: BTreeSet::new(),
            superuser: rustix::process::geteuid().is_root(),
        })
    }

    /// Applies one layer.
    pub fn layer<R: Read>(&mut self, archive: &mut Reader<R>, deletions: Deletions) -> Result<(), ImageError> {
        self.layer.clear();
        while let Some(entry) = archive.next()? {
            self.entries += 1;
            self.bytes = self.bytes.saturating_add(entry.size);
            if self.entries > self.limits.entries {
                return Err(ImageError::TooLarge(format!("more than {} entries", self.limits.entries)));
            }
            if self.bytes > self.limits.bytes {
                return Err(ImageError::TooLarge(format!("more than {} bytes of files", self.limits.bytes)));
            }
            self.entry(&entry, archive, deletions)?;
        }
        Ok(())
    }

    fn entry<R: Read>(&mut self, entry: &Entry, data: &mut R, deletions: Deletions) -> Result<(), ImageError> {
        let mut path = inside(&entry.path, &entry.path)?;
        let Some(name) = path.pop() else {
            return match entry.kind {
                Kind::Directory => {
                    let fd = open_directory(self.root.fd(), b".").map_err(|e| failed(entry, e))?;
                    self.keep_directory(&fd, entry)
                }
                _ => Err(ImageError::Hostile("an entry that would replace the root itself".to_owned())),
            };
        };
        let parent = path.join(&b'/');
        let whiteout = deletions == Deletions::Whiteouts;
        if whiteout && let Some(victim) = name.strip_prefix(b".wh.") {
            return self.delete(entry, &parent, victim);
        }
        if entry.kind == Kind::Character(0, 0) {
            // To overlayfs this device is a deletion, and any mount of the tree would take it for one.
            return if whiteout { self.delete(entry, &parent, &name) } else { Ok(()) };
        }
        let directories = &mut self.directories;
        let dir = self.root.directory(&parent, Missing::Make, &mut |made| {
            if let Ok(stat) = rustix::fs::fstat(made) {
                directories.insert(stat.st_ino, (0o755, Time::default()));
            }
        });
        let dir = dir.map_err(|e| failed(entry, e))?;
        let key = (rustix::fs::fstat(&dir).map_err(|e| failed(entry, e))?.st_ino, name.clone());
        let target = match &entry.kind {
            Kind::Link(target) => Some(self.link_target(entry, target)?),
            _ => None,
        };
        let present = match root::stat_at(&dir, &name) {
            Ok(stat) => Some(FileType::from_raw_mode(stat.st_mode)),
            Err(Errno::NOENT) => None,
            Err(errno) => return Err(failed(entry, errno)),
        };
        let merged = present == Some(FileType::Directory) && entry.kind == Kind::Directory;
        if present.is_some() && !merged {
            self.layer.remove(&key);
            self.erase(&dir, &name, false).map_err(|e| failed(entry, e))?;
        }
        self.layer.insert(key);
        match &entry.kind {
            Kind::Directory => {
                if !merged {
                    rustix::fs::mkdirat(&dir, name.as_slice(), Mode::RWXU).map_err(|e| failed(entry, e))?;
                }
                let fd = open_directory(&dir, &name).map_err(|e| failed(entry, e))?;
                self.keep_directory(&fd, entry)
            }
            Kind::File => self.file(&dir, &name, entry, data),
            Kind::Link(_) => {
                let Some((from, original)) = target else { return Ok(()) };
                rustix::fs::linkat(&from, original.as_slice(), &dir, name.as_slice(), AtFlags::empty())
                    .map_err(|e| failed(entry, e))
            }
            Kind::Symlink(text) => {
                rustix::fs::symlinkat(text.as_slice(), &dir, name.as_slice()).map_err(|e| failed(entry, e))?;
                self.special(&dir, &name, entry)
            }
            Kind::Fifo | Kind::Character(..) | Kind::Block(..) => {
                let (kind, device) = match entry.kind {
                    Kind::Character(major, minor) => (FileType::CharacterDevice, rustix::fs::makedev(major, minor)),
                    Kind::Block(major, minor) => (FileType::BlockDevice, rustix::fs::makedev(major, minor)),
                    _ => (FileType::Fifo, 0),
                };
                match rustix::fs::mknodat(&dir, name.as_slice(), kind, Mode::RUSR | Mode::WUSR, device) {
                    Ok(()) => self.special(&dir, &name, entry),
                    Err(Errno::PERM) => {
                        self.dropped.insert("devices");
                        Ok(())
                    }
                    Err(errno) => Err(failed(entry, errno)),
                }
            }
        }
    }

    /// Where the original of a hard link is: in the tree, and not a directory.
    fn link_target(&self, entry: &Entry, target: &[u8]) -> Result<(OwnedFd, Vec<u8>), ImageError> {
        let mut path = inside(target, &entry.path)?;
        let missing = || {
            ImageError::Malformed(format!(
                "{} is a hard link to {}, which is not there",
                show(&entry.path),
                show(target)
            ))
        };
        let name = path.pop().ok_or_else(missing)?;
        let dir = self.root.directory(&path.join(&b'/'), Missing::Refuse, &mut |_| {}).map_err(|_| missing())?;
        let stat = root::stat_at(&dir, &name).map_err(|_| missing())?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            return Err(ImageError::Hostile(format!("{} is a hard link to a directory", show(&entry.path))));
        }
        Ok((dir, name))
    }

    fn file<R: Read>(&mut self, dir: &OwnedFd, name: &[u8], entry: &Entry, data: &mut R) -> Result<(), ImageError> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(dir, name, flags, Mode::RUSR | Mode::WUSR).map_err(|e| failed(entry, e))?;
        let mut file = File::from(fd);
        let writing = |source| ImageError::Io { doing: format!("could not write {}", show(&entry.path)), source };
        match &entry.sparse {
            None => copy(data, &mut file, entry.size, writing)?,
            Some(map) => {
                for (offset, length) in map {
                    file.seek(SeekFrom::Start(*offset)).map_err(writing)?;
                    copy(data, &mut file, *length, writing)?;
                }
                file.set_len(entry.size).map_err(writing)?;
            }
        }
        let owner = rustix::fs::fchown(&file, Some(Uid::from_raw(entry.uid)), Some(Gid::from_raw(entry.gid)));
        self.allow(owner, "ownership", entry)?;
        // Without privileges the tree must at least stay readable for the user who made it.
        let mode = if self.superuser { entry.mode } else { entry.mode | 0o400 };
        rustix::fs::fchmod(&file, Mode::from_raw_mode(mode)).map_err(|e| failed(entry, e))?;
        for (name, value) in entry.xattrs.iter().filter(|(name, _)| is_portable_xattr(name)) {
            self.allow(rustix::fs::fsetxattr(&file, name.as_slice(), value, XattrFlags::empty()), "attributes", entry)?;
        }
        rustix::fs::futimens(&file, &times(entry.mtime)).map_err(|e| failed(entry, e))
    }

    /// Owner, mode, attributes and time of a link, a device or a pipe.
    fn special(&mut self, dir: &OwnedFd, name: &[u8], entry: &Entry) -> Result<(), ImageError> {
        let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
        let owner = rustix::fs::chownat(dir, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW);
        self.allow(owner, "ownership", entry)?;
        if !matches!(entry.kind, Kind::Symlink(_)) {
            let mode = Mode::from_raw_mode(entry.mode);
            rustix::fs::chmodat(dir, name, mode, AtFlags::empty()).map_err(|e| failed(entry, e))?;
        }
        let path = [format!("/proc/self/fd/{}/", dir.as_raw_fd()).as_bytes(), name].concat();
        for (attribute, value) in entry.xattrs.iter().filter(|(name, _)| is_portable_xattr(name)) {
            let set = rustix::fs::lsetxattr(path.as_slice(), attribute.as_slice(), value, XattrFlags::empty());
            self.allow(set, "attributes", entry)?;
        }
        rustix::fs::utimensat(dir, name, &times(entry.mtime), AtFlags::SYMLINK_NOFOLLOW).map_err(|e| failed(entry, e))
    }

    fn keep_directory(&mut self, fd: &OwnedFd, entry: &Entry) -> Result<(), ImageError> {
        let owner = rustix::fs::fchown(fd, Some(Uid::from_raw(entry.uid)), Some(Gid::from_raw(entry.gid)));
        self.allow(owner, "ownership", entry)?;
        for (name, value) in entry.xattrs.iter().filter(|(name, _)| is_portable_xattr(name)) {
            self.allow(rustix::fs::fsetxattr(fd, name.as_slice(), value, XattrFlags::empty()), "attributes", entry)?;
        }
        let inode = rustix::fs::fstat(fd).map_err(|e| failed(entry, e))?.st_ino;
        self.directories.insert(inode, (entry.mode, entry.mtime));
        Ok(())
    }

    /// Notes what the system does not allow this user or this file system, and goes on.
    fn allow(&mut self, done: Result<(), Errno>, what: &'static str, entry: &Entry) -> Result<(), ImageError> {
        match done {
            Ok(()) => Ok(()),
            // INVAL: an owner that has no place in this user namespace.
            Err(Errno::PERM | Errno::INVAL | Errno::OPNOTSUPP | Errno::ACCESS) => {
                self.dropped.insert(what);
                Ok(())
            }
            Err(errno) => Err(failed(entry, errno)),
        }
    }

    /// A white-out: deletes what lower layers have, never what this layer made.
    fn delete(&mut self, entry: &Entry, parent: &[u8], victim: &[u8]) -> Result<(), ImageError> {
        if victim.is_empty() || victim == b"." || victim == b".." {
            return Err(ImageError::Hostile(format!("{} would delete a directory from inside it", show(&entry.path))));
        }
        let dir = match self.root.directory(parent, Missing::Refuse, &mut |_| {}) {
            Ok(dir) => dir,
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(()),
            Err(errno) => return Err(failed(entry, errno)),
        };
        if victim == b".wh..opq" {
            for name in root::names(&dir).map_err(|e| failed(entry, e))? {
                self.erase(&dir, &name, true).map_err(|e| failed(entry, e))?;
            }
            return Ok(());
        }
        if victim.starts_with(b".wh.") {
            // aufs's own bookkeeping (`.wh..wh.plnk`): nothing of the image.
            return Ok(());
        }
        self.erase(&dir, victim, true).map(drop).map_err(|e| failed(entry, e))
    }

    /// Removes `name` and what is below; with `spare`, what the current layer made stays. Says whether it is gone.
    fn erase(&mut self, dir: &OwnedFd, name: &[u8], spare: bool) -> Result<bool, Errno> {
        let stat = match root::stat_at(dir, name) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Ok(true),
            Err(errno) => return Err(errno),
        };
        let mut gone = !(spare && self.layer.contains(&(rustix::fs::fstat(dir)?.st_ino, name.to_vec())));
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            let fd = open_directory(dir, name)?;
            for child in root::names(&fd)? {
                gone &= self.erase(&fd, &child, spare)?;
            }
            if gone {
                rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR)?;
                self.directories.remove(&stat.st_ino);
            }
        } else if gone {
            rustix::fs::unlinkat(dir, name, AtFlags::empty())?;
        }
        Ok(gone)
    }

    /// Gives every directory its mode and time.
    pub fn finish(mut self) -> Result<Applied, ImageError> {
        let failed =
            |errno: Errno| ImageError::Io { doing: "could not finish the tree".to_owned(), source: errno.into() };
        let fd = open_directory(self.root.fd(), b".").map_err(failed)?;
        let mut several_names = HashSet::new();
        let size = self.settle(&fd, &mut several_names).map_err(failed)?;
        Ok(Applied { size, dropped: std::mem::take(&mut self.dropped) })
    }

    fn settle(&self, dir: &OwnedFd, several_names: &mut HashSet<u64>) -> Result<u64, Errno> {
        let mut size = 0;
        for name in root::names(dir)? {
            let stat = root::stat_at(dir, &name)?;
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => size += self.settle(&open_directory(dir, &name)?, several_names)?,
                FileType::RegularFile if stat.st_nlink == 1 || several_names.insert(stat.st_ino) => {
                    size += u64::try_from(stat.st_size).unwrap_or(0);
                }
                _ => {}
            }
        }
        if let Some((mode, mtime)) = self.directories.get(&rustix::fs::fstat(dir)?.st_ino) {
            let mode = if self.superuser { *mode } else { *mode | 0o500 };
            rustix::fs::fchmod(dir, Mode::from_raw_mode(mode))?;
            rustix::fs::futimens(dir, &times(*mtime))?;
        }
        Ok(size)
    }
}

/// The components of a path that stays inside by its own words.
fn inside(path: &[u8], entry: &[u8]) -> Result<Vec<Vec<u8>>, ImageError> {
    let path = components(path);
    if path.iter().any(|name| name == b"..") {
        return Err(ImageError::Hostile(format!("{} has a path that climbs out of the root", show(entry))));
    }
    Ok(path)
}

fn copy<R: Read>(
    data: &mut R,
    file: &mut File,
    size: u64,
    writing: impl Fn(std::io::Error) -> ImageError,
) -> Result<(), ImageError> {
    let mut buffer = vec![0; 64 * 1024];
    let mut missing = size;
    while missing > 0 {
        let most = buffer.len().min(usize::try_from(missing).unwrap_or(usize::MAX));
        let n = data.read(&mut buffer[..most]).map_err(reading)?;
        if n == 0 {
            return Err(ImageError::Malformed("the archive is cut off inside a file".to_owned()));
        }
        file.write_all(&buffer[..n]).map_err(&writing)?;
        missing -= n as u64;
    }
    Ok(())
}

fn times(mtime: Time) -> Timestamps {
    let time = Timespec { tv_sec: mtime.seconds, tv_nsec: mtime.nanos.into() };
    Timestamps { last_access: time, last_modification: time }
}

fn open_directory(parent: &OwnedFd, name: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, name, flags, Mode::empty())
}

fn failed(entry: &Entry, errno: Errno) -> ImageError {
    let path = show(&entry.path);
    match errno {
        Errno::LOOP => ImageError::Hostile(format!("{path} goes through symbolic links in a circle")),
        Errno::NAMETOOLONG => {
            ImageError::TooLarge(format!("{path} is nested deeper than {MAX_DEPTH} levels or too long"))
        }
        Errno::NOTDIR => ImageError::Malformed(format!("{path} is inside something that is not a directory")),
        Errno::EXIST | Errno::NOENT => ImageError::Malformed(format!("{path} is inside a link that leads nowhere")),
        errno => ImageError::Io { doing: format!("could not make {path}"), source: errno.into() },
    }
}

/// A path of the archive, fit for a message.
fn show(path: &[u8]) -> String {
    let text: String = String::from_utf8_lossy(path).chars().take(200).collect();
    format!("`{}`", text.escape_debug())
}

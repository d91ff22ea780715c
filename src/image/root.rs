//! A directory as the root of a file system that nobody trusts: every path is followed as it would be after `chroot`.
//!
//! In: paths of an image. Out: file descriptors and bytes from inside the root. Symbolic links are followed by hand, one
//! component at a time with `O_NOFOLLOW`, absolute ones and `..` end at the root; so no kernel newer than 2.6.39 is needed
//! (`openat2` came with 5.6 and is denied under some seccomp filters). Nothing is opened before it is known to be a
//! regular file or a directory: opening a pipe would block, opening a device could do anything.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::error::ImageError;

/// Deepest directory in an image; each level costs a file descriptor while it is walked.
pub const MAX_DEPTH: usize = 256;
/// As many symbolic links as the kernel would follow.
const MAX_LINKS: usize = 40;
/// Components of one path, those of the links on the way included.
const MAX_STEPS: usize = 4096;

/// A directory that stands for `/`.
#[derive(Debug)]
pub struct Root {
    fd: OwnedFd,
}

/// What becomes of a missing directory on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// It is an error.
    Refuse,
    /// It is made, for the user alone; who asked for it gives it its final mode.
    Make,
}

impl Root {
    /// This directory as a root.
    pub fn open(path: &Path) -> Result<Self, ImageError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match rustix::fs::open(path, flags, Mode::empty()) {
            Ok(fd) => Ok(Self { fd }),
            Err(errno) => Err(ImageError::io("could not open directory", path)(errno.into())),
        }
    }

    /// The root directory itself.
    pub fn fd(&self) -> &OwnedFd {
        &self.fd
    }

    /// The directory that `path` means inside the root. `made` is told of each directory that had to be made.
    pub fn directory(&self, path: &[u8], missing: Missing, made: &mut dyn FnMut(&OwnedFd)) -> Result<OwnedFd, Errno> {
        let mut stack: Vec<OwnedFd> = vec![self.fd.try_clone().map_err(errno)?];
        let mut todo: Vec<Vec<u8>> = components(path);
        todo.reverse();
        let (mut links, mut steps) = (0, 0);
        while let Some(name) = todo.pop() {
            steps += 1;
            if steps > MAX_STEPS || stack.len() > MAX_DEPTH {
                return Err(Errno::NAMETOOLONG);
            }
            let top = stack.last().unwrap_or(&self.fd);
            if name == b".." {
                if stack.len() > 1 {
                    stack.pop();
                }
                continue;
            }
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let next = match rustix::fs::openat(top, name.as_slice(), flags, Mode::empty()) {
                Err(Errno::NOENT) if missing == Missing::Make => {
                    rustix::fs::mkdirat(top, name.as_slice(), Mode::RWXU)?;
                    let fd = rustix::fs::openat(top, name.as_slice(), flags, Mode::empty())?;
                    made(&fd);
                    fd
                }
                other => other?,
            };
            match FileType::from_raw_mode(rustix::fs::fstat(&next)?.st_mode) {
                FileType::Directory => stack.push(next),
                FileType::Symlink => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(Errno::LOOP);
                    }
                    let target = rustix::fs::readlinkat(&next, "", Vec::new())?.into_bytes();
                    if target.starts_with(b"/") {
                        stack.truncate(1);
                    }
                    todo.extend(components(&target).into_iter().rev());
                }
                _ => return Err(Errno::NOTDIR),
            }
        }
        Ok(stack.pop().unwrap_or(self.fd.try_clone().map_err(errno)?))
    }

    /// What `path` is, its last component followed too.
    pub fn stat(&self, path: &str) -> Option<Stat> {
        self.find(path).map(|(_, stat)| stat)
    }

    /// Opens a regular file for reading.
    pub fn file(&self, path: &str) -> Option<(File, u64)> {
        let (handle, stat) = self.find(path)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return None;
        }
        // The handle is known to be a regular file; opening it by its number opens that very file.
        let again = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&handle));
        Some((File::open(again).ok()?, u64::try_from(stat.st_size).unwrap_or(0)))
    }

    /// At most `cap` bytes of a regular file, from its start.
    pub fn read(&self, path: &str, cap: u64) -> Option<Vec<u8>> {
        let (file, _) = self.file(path)?;
        let mut bytes = Vec::new();
        file.take(cap).read_to_end(&mut bytes).ok()?;
        Some(bytes)
    }

    /// The names in a directory, sorted; none if it is not there.
    pub fn names(&self, path: &str) -> Vec<Vec<u8>> {
        let Ok(fd) = self.directory(path.as_bytes(), Missing::Refuse, &mut |_| {}) else { return vec![] };
        names(&fd).unwrap_or_default()
    }

    fn find(&self, path: &str) -> Option<(OwnedFd, Stat)> {
        let mut path = path.as_bytes().to_vec();
        for _ in 0..=MAX_LINKS {
            let (parent, name) = split(&path)?;
            let dir = self.directory(&parent, Missing::Refuse, &mut |_| {}).ok()?;
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let handle = rustix::fs::openat(&dir, name.as_slice(), flags, Mode::empty()).ok()?;
            let stat = rustix::fs::fstat(&handle).ok()?;
            if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
                return Some((handle, stat));
            }
            let target = rustix::fs::readlinkat(&handle, "", Vec::new()).ok()?.into_bytes();
            path = if target.starts_with(b"/") { target } else { [parent.as_slice(), b"/", &target].concat() };
            if path.len() > 2 * MAX_STEPS {
                return None;
            }
        }
        None
    }
}

/// The components of a path, without empty ones and `.`.
pub fn components(path: &[u8]) -> Vec<Vec<u8>> {
    path.split(|b| *b == b'/').filter(|c| !c.is_empty() && *c != b".").map(<[u8]>::to_vec).collect()
}

/// A path as parent and last component; nothing for `/` and for what ends in `..`.
pub fn split(path: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let mut all = components(path);
    let last = all.pop().filter(|name| name != b"..")?;
    Some((all.join(&b'/'), last))
}

/// The names in an open directory, sorted, without `.` and `..`.
pub fn names(dir: &OwnedFd) -> Result<Vec<Vec<u8>>, Errno> {
    let mut names = Vec::new();
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    for entry in rustix::fs::Dir::new(rustix::fs::openat(dir, ".", flags, Mode::empty())?)? {
        let name = entry?.file_name().to_bytes().to_vec();
        if name != b"." && name != b".." {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// What `name` in `dir` is, not followed.
pub fn stat_at(dir: impl AsFd, name: &[u8]) -> Result<Stat, Errno> {
    rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)
}

fn errno(error: std::io::Error) -> Errno {
    Errno::from_io_error(&error).unwrap_or(Errno::IO)
}

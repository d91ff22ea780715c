//! The engine's few files on the host: the launcher, an empty directory to mount on; and careful reading of others.
//!
//! In: a directory. Out: paths. Nothing here is made per cell.

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, open, openat};

use crate::fault::{Fault, Phase};
use crate::probes;

/// Where the engine keeps what it needs on the host.
#[derive(Debug, Clone)]
pub(in crate::engine) struct Place {
    pub(in crate::engine) work: PathBuf,
    /// An executable file.
    pub(in crate::engine) launcher: PathBuf,
    /// An empty directory.
    pub(in crate::engine) mount_point: PathBuf,
}

impl Place {
    /// Makes what is missing. Engines and processes may share a place.
    pub(in crate::engine) fn make(work: &Path) -> Result<Self, Fault> {
        let fault = |path: &Path, e: io::Error| Fault::new(Phase::Engine, format!("{}: {e}", path.display()));
        if probes::LAUNCH.is_empty() {
            return Err(Fault::new(Phase::Engine, "this build of abicus has no launcher"));
        }
        let mount_point = work.join("mnt");
        fs::create_dir_all(&mount_point).map_err(|e| fault(&mount_point, e))?;
        let work = fs::canonicalize(work).map_err(|e| fault(work, e))?;
        let digest = probes::digest(probes::LAUNCH);
        let launcher = work.join(format!("launch-{}", digest.get(..16).unwrap_or(&digest)));
        if fs::read(&launcher).ok().as_deref() != Some(probes::LAUNCH) {
            write_program(&launcher, &work).map_err(|e| fault(&launcher, e))?;
        }
        Ok(Self { mount_point: work.join("mnt"), launcher, work })
    }
}

/// Under another name first, so that nobody executes half a program.
fn write_program(path: &Path, dir: &Path) -> io::Result<()> {
    let mut file = tempfile::NamedTempFile::new_in(dir)?;
    file.write_all(probes::LAUNCH)?;
    file.as_file().set_permissions(fs::Permissions::from_mode(0o755))?;
    file.persist(path).map(drop).map_err(|e| e.error)
}

/// A text of bounded length.
pub(super) fn read_text(path: &Path, most: u64) -> io::Result<String> {
    bounded(fs::File::open(path)?, most)
}

/// A file two levels down in an image. Neither level may be a symlink: the image's owner chose where it leads.
pub(super) fn read_inside(tree: &Path, dir: &str, name: &str, most: u64) -> io::Result<String> {
    let flags = OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let tree = open(tree, OFlags::CLOEXEC | OFlags::DIRECTORY | OFlags::PATH, Mode::empty())?;
    let dir = openat(&tree, dir, flags | OFlags::DIRECTORY | OFlags::PATH, Mode::empty())?;
    bounded(fs::File::from(openat(&dir, name, flags | OFlags::RDONLY, Mode::empty())?), most)
}

fn bounded(file: fs::File, most: u64) -> io::Result<String> {
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    let mut text = String::new();
    file.take(most + 1).read_to_string(&mut text)?;
    if text.len() as u64 > most {
        return Err(io::Error::other(format!("longer than {most} bytes")));
    }
    Ok(text)
}

/// Device nodes under a directory: path, mode with type, number. Terminals and shared memory have mounts of their own.
pub(super) fn device_nodes(dir: &Path) -> Vec<(String, u64, u64)> {
    const OURS: [&str; 11] =
        ["pts", "shm", "mqueue", "console", "ptmx", "null", "zero", "full", "random", "urandom", "tty"];
    /// Nobody has more, and a list of operations is limited.
    const MOST: usize = 1000;
    let mut found = vec![];
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            let Ok(about) = entry.metadata() else { continue };
            let name = entry.file_name();
            let (Some(path), Some(name)) = (entry.path().to_str().map(str::to_owned), name.to_str()) else { continue };
            let kind = about.file_type();
            if OURS.contains(&name) || found.len() == MOST {
                continue;
            }
            if kind.is_dir() {
                dirs.push(entry.path());
            } else if kind.is_char_device() || kind.is_block_device() {
                found.push((path, u64::from(about.mode()), about.rdev()));
            }
        }
    }
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_symlink_in_an_image_does_not_lead_to_the_hosts_files() {
        let tree = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/etc", tree.path().join("etc")).unwrap();
        assert!(read_inside(tree.path(), "etc", "passwd", 1 << 20).is_err());
        fs::remove_file(tree.path().join("etc")).unwrap();
        fs::create_dir(tree.path().join("etc")).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", tree.path().join("etc/passwd")).unwrap();
        assert!(read_inside(tree.path(), "etc", "passwd", 1 << 20).is_err());
        fs::remove_file(tree.path().join("etc/passwd")).unwrap();
        fs::write(tree.path().join("etc/passwd"), "a:x:1:2:::").unwrap();
        assert_eq!(read_inside(tree.path(), "etc", "passwd", 1 << 20).unwrap(), "a:x:1:2:::");
        assert!(read_inside(tree.path(), "etc", "passwd", 3).is_err(), "longer than asked for");
    }

    #[test]
    fn the_launcher_is_put_in_place_once_and_repaired_when_damaged() {
        let work = tempfile::tempdir().unwrap();
        let place = Place::make(work.path()).unwrap();
        assert_eq!(fs::read(&place.launcher).unwrap(), probes::LAUNCH);
        fs::write(&place.launcher, b"damaged").unwrap();
        assert_eq!(fs::read(Place::make(work.path()).unwrap().launcher).unwrap(), probes::LAUNCH);
    }
}

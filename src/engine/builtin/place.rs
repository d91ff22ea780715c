//! Careful reading of files that others wrote: the user's profiles, an image's passwd, the host's devices.
//!
//! In: paths. Out: texts of bounded length, device nodes. Must not know: what is done with them.

use std::fs;
use std::io::{self, Read};
use std::path::Path;

use rustix::fs::{Mode, OFlags, open, openat};

use crate::host::Reach;

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

/// Device nodes under a directory of the host: path, mode with type, number. Terminals and shared memory have mounts of
/// their own.
pub(super) async fn device_nodes(reach: &dyn Reach, dir: &str) -> Vec<(String, u64, u64)> {
    const OURS: [&str; 11] =
        ["pts", "shm", "mqueue", "console", "ptmx", "null", "zero", "full", "random", "urandom", "tty"];
    /// Nobody has more, and a list of operations is limited.
    const MOST: usize = 1000;
    let mut found = vec![];
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for (name, about) in reach.list(&dir).await.unwrap_or_default() {
            if OURS.contains(&name.as_str()) || found.len() == MOST || dirs.len() == MOST {
                continue;
            }
            let path = format!("{dir}/{name}");
            if about.is_dir() {
                dirs.push(path);
            } else if about.is_device() {
                found.push((path, u64::from(about.mode), about.device));
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
}

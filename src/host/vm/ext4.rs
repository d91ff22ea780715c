//! A tree as a disk: ext4, made by `mke2fs`, which needs neither root nor a mount.
//!
//! In: a directory. Out: a file that a guest mounts. Every kernel abicus boots has ext4 built in.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};

use super::shelf::{Kept, Recipe, Shelf};
use crate::engine::Facts;
use crate::fault::{Fault, Phase};
use crate::image::mmdebstrap;

/// Whose files a tree has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// As this process sees them.
    Ours,
    /// As mmdebstrap's root of an ordinary user sees them.
    ItsRoot,
}

/// How large the file system becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// As the tree needs it: for disks that are only read.
    Tight,
    /// This many bytes, most of them holes.
    Bytes(u64),
}

const BLOCK: u64 = 4096;

/// Makes the disk `file` of the tree.
pub fn make(tree: &Path, file: &Path, owner: Owner, room: Room) -> Result<(), Fault> {
    let fault = |why: String| Fault::new(Phase::Host, format!("a disk of {}: {why}", tree.display()));
    let needs = Needs::of(tree).map_err(|e| fault(e.to_string()))?;
    let bytes = match room {
        Room::Tight => needs.bytes(),
        Room::Bytes(bytes) => bytes.max(needs.bytes()),
    };
    // It makes the file itself: one that is there might belong to somebody else.
    drop(fs::remove_file(file));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut search = path;
    // Where Debian puts what only root used to run.
    search.push(":/usr/sbin:/sbin");
    let mut command = match owner {
        Owner::Ours => Command::new("mke2fs"),
        Owner::ItsRoot => mmdebstrap::as_its_root(&["mke2fs"]),
    };
    command.args(["-q", "-F", "-t", "ext4", "-b", "4096", "-m", "0", "-O", "^has_journal,^resize_inode"]);
    command.args(["-E", "lazy_itable_init=1,nodiscard", "-L", "abicus", "-d"]).arg(tree);
    if room == Room::Tight {
        command.arg("-N").arg((needs.entries + 64).to_string());
    }
    command.arg(file).arg(format!("{}k", bytes.div_ceil(1024)));
    command.env("PATH", search).stdin(Stdio::null());
    let output = command.output().map_err(|e| {
        let fault = fault(format!("mke2fs cannot be run: {e}"));
        if e.kind() == std::io::ErrorKind::NotFound { fault.hint("install the package e2fsprogs") } else { fault }
    })?;
    if output.status.success() {
        return Ok(());
    }
    drop(fs::remove_file(file));
    let said = String::from_utf8_lossy(&output.stderr);
    Err(fault(format!("mke2fs ended with {}: {said}", output.status)))
}

/// What a tree takes on a disk.
#[derive(Debug, Default, Clone, Copy)]
struct Needs {
    blocks: u64,
    entries: u64,
}

impl Needs {
    fn of(tree: &Path) -> std::io::Result<Self> {
        let mut needs = Self::default();
        let mut linked = BTreeSet::new();
        let mut dirs = vec![tree.to_owned()];
        while let Some(dir) = dirs.pop() {
            needs.blocks += 1;
            for entry in fs::read_dir(&dir)? {
                let entry = entry?;
                let about = entry.metadata()?;
                needs.entries += 1;
                if about.is_dir() {
                    dirs.push(entry.path());
                } else if about.nlink() == 1 || linked.insert(about.ino()) {
                    // A block for attributes, which capabilities of programs and the like may need.
                    needs.blocks += about.len().div_ceil(BLOCK) + u64::from(about.nlink() > 1);
                }
            }
        }
        Ok(needs)
    }

    /// With inodes of 256 bytes, directories that grow, the map of free blocks, and some air.
    fn bytes(&self) -> u64 {
        (self.blocks * BLOCK + self.entries * 384) * 21 / 20 + (8 << 20)
    }
}

/// A tree as a disk that is only read, kept by the digest of its content.
pub fn of_tree(shelf: &Shelf, tree: &Path, digest: &str) -> Result<Kept, Fault> {
    let short = digest.trim_start_matches("sha256:");
    let recipe = Recipe {
        kind: "tree",
        name: format!("tree {}", short.get(..12).unwrap_or(short)),
        text: format!("tree 1\n{digest}"),
    };
    shelf.make(&recipe, &|| {}, |dir| {
        make(tree, &dir.join("disk"), Owner::Ours, Room::Tight)?;
        Ok(Facts::from([("tree.digest".to_owned(), digest.to_owned())]))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_fits_on_its_own_disk_with_links_and_modes() {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree");
        fs::create_dir_all(tree.join("a/b")).unwrap();
        for at in 0..300 {
            fs::write(tree.join(format!("a/file-{at}")), vec![b'x'; at * 97]).unwrap();
        }
        fs::write(tree.join("big"), vec![1; 5 << 20]).unwrap();
        fs::hard_link(tree.join("big"), tree.join("a/b/big")).unwrap();
        std::os::unix::fs::symlink("/big", tree.join("link")).unwrap();
        let disk = dir.path().join("disk");
        make(&tree, &disk, Owner::Ours, Room::Tight).unwrap();
        assert!(fs::metadata(&disk).unwrap().len() < 32 << 20);
        let listed = Command::new("/usr/sbin/debugfs").args(["-R", "ls -p /a/b"]).arg(&disk).output().unwrap();
        let text = String::from_utf8_lossy(&listed.stdout).into_owned();
        assert!(text.contains("/big/"), "{text}");
        let missing = make(&dir.path().join("gone"), &disk, Owner::Ours, Room::Tight).unwrap_err();
        assert!(missing.cause.contains("gone"), "{missing}");
    }
}

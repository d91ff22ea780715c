//! What is peculiar to files that come from the image: lower layers, copying up, whiteouts.
//!
//! Goes in: nothing. Comes out: answers. Must not know: which answers are good.
//!
//! Files of the image are changed and put back only where the root is an overlay and the cell has a pid namespace of its
//! own: natively, on a machine that runs from an overlay, these questions are not asked.

use super::{Place, Where, kind, namespace, statfs};
use crate::asking::*;
use crate::rt::consts::*;
use crate::rt::nr;
use crate::rt::sys::path;

checks![
    Batch "fs.root.lower.copy_range" => copy_range,
    Batch "fs.root.lower.rename_directory" => rename_directory,
    Batch "fs.root.lower.stale_descriptor" => stale_descriptor,
    Batch "fs.root.lower.stale_mapping" => stale_mapping,
    Batch "fs.root.lower.inode" => inode,
    Batch "fs.root.lower.lock" => lock,
    Batch "fs.root.lower.hard_link" => hard_link,
    Batch "fs.root.lower.whiteout" => whiteout,
];

/// The number of the first pid namespace, include/linux/proc_ns.h.
const FIRST: u64 = 0xefff_fffc;

fn ephemeral() -> Does {
    if !matches!(kind(statfs(c"/")?[0]), "overlay" | "fuse") {
        return Err(not_asked("the root is no overlay"));
    }
    match namespace() {
        0 | FIRST => Err(not_asked("the cell shares the host's processes, so it may be the host itself")),
        _ => Ok(()),
    }
}

/// A file of the image, of at least a byte, on the root's file system.
fn from_image(write: bool, skip: usize) -> Result<(Fd, &'static core::ffi::CStr), No> {
    let readable = [c"/etc/passwd", c"/etc/os-release", c"/usr/lib/os-release", c"/bin/sh", c"/bin/busybox"];
    // What nothing depends on.
    let writable = [c"/etc/issue.net", c"/etc/motd", c"/etc/issue", c"/usr/share/doc/copyright", c"/.dockerenv"];
    first_of(&if write { writable } else { readable }, write, skip)
}

/// A file of the image that has not been asked by another check: `which` names one for each. What is done to it leaves what is in it
/// as it is.
fn untouched(which: usize) -> Result<(Fd, &'static core::ffi::CStr), No> {
    let mut names = [c"/etc/shells", c"/etc/profile", c"/etc/group", c"/etc/passwd", c"/.dockerenv"];
    names[..4].rotate_left(which);
    first_of(&names, true, 0)
}

/// The first of these that there are, after so many.
fn first_of(
    names: &[&'static core::ffi::CStr],
    empty: bool,
    mut skip: usize,
) -> Result<(Fd, &'static core::ffi::CStr), No> {
    let root = stat(AT_FDCWD, c"/").at("stat /")?.dev;
    for name in names {
        let Ok(file) = Fd::at(AT_FDCWD, name, O_RDONLY | O_NONBLOCK, 0) else { continue };
        let is = stat(file.0, c"").at("fstat")?;
        // On an overlay files may have another device than the directory, but a mount of its own has another type.
        if is.mode & 0o170_000 == 0o100_000 && (is.size > 0 || empty) && (is.dev == root || same_type(&file)) {
            if skip == 0 {
                return Ok((file, name));
            }
            skip -= 1;
        }
    }
    Err(not_asked("the image has no file to try it with"))
}

fn same_type(file: &Fd) -> bool {
    let mut info = [0u64; 15];
    ask!(nr::FSTATFS, file.0, &mut info).is_ok() && statfs(c"/").is_ok_and(|root| root[0] == info[0])
}

/// From a file of the image into a new one. Kernels of 5.6 to 5.10 are known to copy nothing and call it done.
fn copy_range() -> Does {
    let (from, _) = from_image(false, 0)?;
    let Ok(place) = Place::find(Where::Root) else { return Err(not_asked("nothing can be written there")) };
    let wanted = stat(from.0, c"").at("fstat")?.size.min(64) as usize;
    let to = place.file(c"a", b"")?;
    same("bytes copied", must!(nr::COPY_FILE_RANGE, from.0, 0, to.0, 0, wanted, 0), wanted)?;
    same("size", stat(to.0, c"").at("fstat")?.size as usize, wanted)
}

/// Renames a directory of the image, and back where it worked. An overlay without redirect_dir says EXDEV.
fn rename_directory() -> Does {
    ephemeral()?;
    let other = c"/.abicus-renamed";
    for name in [c"/srv", c"/media", c"/mnt", c"/opt", c"/home"] {
        if stat(AT_FDCWD, name).is_ok_and(|s| s.mode & 0o170_000 == 0o040_000) {
            must!(nr::RENAMEAT, AT_FDCWD, path(name), AT_FDCWD, path(other));
            must!("rename back"; nr::RENAMEAT, AT_FDCWD, path(other), AT_FDCWD, path(name));
            return Ok(());
        }
    }
    Err(not_asked("the image has no directory to try it with"))
}

/// A byte is appended through a second descriptor and taken away again: does the first one see it?
fn stale_descriptor() -> Does {
    ephemeral()?;
    let (old, name) = from_image(true, 0)?;
    let size = stat(old.0, c"").at("fstat")?.size;
    let new = Fd::at(AT_FDCWD, name, O_WRONLY, 0).at("open for writing")?;
    let written = ask!(nr::PWRITE64, new.0, b"\n", 1, size);
    let mut room = [0u8; 1];
    let seen = ask!(nr::PREAD64, old.0, &mut room, 1, size);
    must!("ftruncate back"; nr::FTRUNCATE, new.0, size);
    written.at("write")?;
    Err(word(if seen.at("read")? == 1 { "current" } else { "stale" }))
}

/// The same, seen through a mapping of the first descriptor. Of another file: one that was written to is no longer the image's.
fn stale_mapping() -> Does {
    ephemeral()?;
    let (old, name) = from_image(true, 1)?;
    let size = stat(old.0, c"").at("fstat")?.size as usize;
    if !(1..4000).contains(&size) {
        return Err(not_asked("the image has no file of less than a page to try it with"));
    }
    let page = Map::file(old.0, 4096, PROT_READ, MAP_SHARED)?;
    let before = page.get(size);
    let new = Fd::at(AT_FDCWD, name, O_WRONLY, 0).at("open for writing")?;
    let written = ask!(nr::PWRITE64, new.0, b"\n", 1, size);
    let after = page.get(size);
    must!("ftruncate back"; nr::FTRUNCATE, new.0, size);
    written.at("write")?;
    Err(word(if after == before { "stale" } else { "current" }))
}

/// Gives a file the mode that it has: enough for an overlay to copy it up.
fn copy_up(name: &core::ffi::CStr) -> Does {
    let mode = stat(AT_FDCWD, name).at("stat")?.mode & 0o7777;
    must!("chmod"; nr::FCHMODAT, AT_FDCWD, path(name), mode);
    Ok(())
}

/// Whether a file is the same file afterwards, for whoever compares device and inode: tar, find, git, backups.
fn inode() -> Does {
    ephemeral()?;
    let (_, name) = untouched(0)?;
    let before = stat(AT_FDCWD, name).at("stat")?;
    copy_up(name)?;
    let after = stat(AT_FDCWD, name).at("stat again")?;
    Err(word(match (before.dev == after.dev, before.ino == after.ino) {
        (true, true) => "same",
        (false, true) => "another device",
        _ => "another inode",
    }))
}

/// A lock taken before keeps out who opens the file afterwards.
fn lock() -> Does {
    ephemeral()?;
    let (old, name) = untouched(1)?;
    // LOCK_EX | LOCK_NB
    must!(nr::FLOCK, old.0, 6);
    copy_up(name)?;
    let new = Fd::at(AT_FDCWD, name, O_RDONLY, 0).at("open again")?;
    refused("a second lock", ask!(nr::FLOCK, new.0, 6), EAGAIN)
}

/// A second name for a file of the image: both are one file.
fn hard_link() -> Does {
    ephemeral()?;
    let (_, name) = untouched(2)?;
    let other = c"/.abicus-link";
    must!(nr::LINKAT, AT_FDCWD, path(name), AT_FDCWD, path(other), 0);
    let both = (stat(AT_FDCWD, name), stat(AT_FDCWD, other));
    must!("unlink"; nr::UNLINKAT, AT_FDCWD, path(other), 0);
    let (one, two) = (both.0.at("stat")?, both.1.at("stat of the link")?);
    same("names", two.links as usize, 2)?;
    holds("another file", one.ino == two.ino && one.dev == two.dev)
}

/// A file of the image is moved away: its old name is gone, and back again.
fn whiteout() -> Does {
    ephemeral()?;
    let (_, name) = from_image(true, 0)?;
    let other = c"/.abicus-moved";
    must!(nr::RENAMEAT, AT_FDCWD, path(name), AT_FDCWD, path(other));
    let gone = stat(AT_FDCWD, name);
    must!("rename back"; nr::RENAMEAT, AT_FDCWD, path(other), AT_FDCWD, path(name));
    refused("the old name", gone, ENOENT)?;
    stat(AT_FDCWD, name).at("stat")?;
    Ok(())
}

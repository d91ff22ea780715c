//! /dev/shm: shared memory by name, how much of it, and what happens when it is full.
//!
//! Goes in: nothing. Comes out: answers. Must not know: which answers are good. /dev/shm itself is never filled: a small
//! file system of a mount namespace of our own is.

use super::statfs;
use crate::asking::*;
use crate::rt::consts::*;
use crate::rt::nr;
use crate::rt::sys::{self, path};

checks![
    Batch "shm.size" => size,
    Batch "shm.write" => || write_in(c"/dev/shm"),
    Batch "shm.map" => || map_in(c"/dev/shm"),
    Batch "shm.share" => share,
    Batch "shm.reserve_too_much" => reserve_too_much,
    Own "shm.full.write" => full_write,
    Own "shm.full.map" => full_map,
];

/// A file without a name in a directory; it needs O_TMPFILE, which every tmpfs has.
fn file_in(name: &core::ffi::CStr) -> Result<Fd, No> {
    Ok(Fd::at(AT_FDCWD, name, O_TMPFILE | O_RDWR, 0o600)?)
}

/// In MiB: engines give 64 unless told otherwise.
fn size() -> Does {
    let info = statfs(c"/dev/shm")?;
    Err(number(info[2].saturating_mul(info[1]) >> 20))
}

fn write_in(name: &core::ffi::CStr) -> Does {
    same("bytes", sys::write(file_in(name)?.0, &[7; 4096]).at("write")?, 4096)
}

/// Memory that the file system owes us comes when it is touched; a full one sends SIGBUS instead.
fn map_in(name: &core::ffi::CStr) -> Does {
    let file = file_in(name)?;
    must!("ftruncate"; nr::FTRUNCATE, file.0, 4096);
    let map = Map::file(file.0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED)?;
    match signal_of(&mut || map.set(0, 42))? {
        0 => same("byte", usize::from(map.get(0)), 42),
        signal => Err(no(crate::check::Saw::Signal(signal))),
    }
}

/// By a name, as shm_open(3): what a child writes is seen here.
fn share() -> Does {
    let parent = must!(nr::GETPPID);
    let name = crate::rt::text::Text::<64>::format(format_args!("/dev/shm/abicus-{parent}-{}\0", super::namespace()));
    let name = name.bytes().as_ptr();
    let _ = ask!(nr::UNLINKAT, AT_FDCWD, name, 0);
    let flags = O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC | O_NOFOLLOW;
    let file = Fd(must!(nr::OPENAT, AT_FDCWD, name, flags, 0o600) as i32);
    let again = Fd::of(ask!(nr::OPENAT, AT_FDCWD, name, O_RDWR | O_CLOEXEC | O_NOFOLLOW, 0));
    must!("unlink"; nr::UNLINKAT, AT_FDCWD, name, 0);
    let again = again.at("open again")?;
    must!("ftruncate"; nr::FTRUNCATE, file.0, 4096);
    let map = Map::file(file.0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED)?;
    in_twin("mmap in a child", &mut || match Map::file(again.0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED) {
        Ok(map) => {
            map.set(0, 42);
            0
        }
        Err(_) => 255,
    })?;
    same("byte", usize::from(map.get(0)), 42)
}

/// posix_fallocate(3) of more than the whole: refused at once, nothing is taken.
fn reserve_too_much() -> Does {
    let (file, info) = (file_in(c"/dev/shm")?, statfs(c"/dev/shm")?);
    if info[2] == 0 {
        return Err(not_asked("it has no limit"));
    }
    refused("fallocate", ask!(nr::FALLOCATE, file.0, 0, 0, (info[2] + 1).saturating_mul(info[1])), ENOSPC)
}

/// A tmpfs of 64 KiB in a mount namespace of our own, filled; it holds what the descriptor holds.
fn full() -> Result<Fd, No> {
    if ask!(nr::UNSHARE, CLONE_NEWNS).is_err() {
        return Err(not_asked("no file system of our own can be mounted"));
    }
    let _ = ask!(nr::MOUNT, 0, path(c"/"), 0, 0x4000 | 1 << 18, 0);
    let mounted = ask!(nr::MOUNT, path(c"abicus"), path(c"/dev/shm"), path(c"tmpfs"), 0, path(c"size=64k"));
    if mounted.is_err() {
        return Err(not_asked("no file system of our own can be mounted"));
    }
    let file = file_in(c"/dev/shm")?;
    must!("fill it"; nr::FALLOCATE, file.0, 0, 0, 65536);
    Ok(file)
}

fn full_write() -> Does {
    let _held = full()?;
    let file = file_in(c"/dev/shm")?;
    refused("write", sys::write(file.0, &[7; 4096]), ENOSPC)
}

fn full_map() -> Does {
    let _held = full()?;
    let file = file_in(c"/dev/shm")?;
    must!("ftruncate"; nr::FTRUNCATE, file.0, 4096);
    let map = Map::file(file.0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED)?;
    same("signal", signal_of(&mut || map.set(0, 42))? as usize, SIGBUS as usize)
}

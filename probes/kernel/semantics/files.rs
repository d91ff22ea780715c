//! Calls about files, on files without a name: reading, writing, copying, holes, locks, descriptors, notifications.
//!
//! Goes in: nothing. Comes out: answers. Must not know: which answers are good. What depends on the file system of the cell's
//! root or of /tmp is asked in `fs.rs`.

use crate::asking::*;
use crate::rt::consts::*;
use crate::rt::nr;
use crate::rt::sys;

checks![
    Batch "kernel.faccessat2.root" => faccessat2,
    Batch "kernel.statx.root" => statx,
    Batch "kernel.openat2.beneath" => openat2,
    Batch "kernel.fchmodat2.file" => fchmodat2,
    Own "kernel.close_range.close" => close_range,
    Own "kernel.close_range.cloexec" => close_range_cloexec,
    Batch "kernel.copy_file_range.copy" => copy_file_range,
    Batch "kernel.sendfile.copy" => sendfile,
    Batch "kernel.splice.move" => splice,
    Batch "kernel.tee.copy" => tee,
    Batch "kernel.vmsplice.gift" => vmsplice,
    Batch "kernel.readv.vector" => readv,
    Batch "kernel.preadv2.offset" => preadv2,
    Batch "kernel.preadv2.nowait" => preadv2_nowait,
    Batch "kernel.pwritev2.append" => pwritev2,
    Batch "kernel.fallocate.allocate" => fallocate,
    Batch "kernel.fallocate.punch" => punch,
    Batch "kernel.lseek.hole" => hole,
    Batch "kernel.truncate.grow" => truncate,
    Batch "kernel.fsync.memory" => fsync,
    Batch "kernel.sync_file_range.memory" => sync_file_range,
    Batch "kernel.fadvise.sequential" => fadvise,
    Batch "kernel.cachestat.cached" => cachestat,
    Batch "kernel.lock.flock" => flock,
    Batch "kernel.lock.record" => record_lock,
    Batch "kernel.lock.ofd" => ofd_lock,
    Batch "kernel.fcntl.pipe_size" => pipe_size,
    Batch "kernel.fcntl.dup_cloexec" => dup_cloexec,
    Batch "kernel.dup3.replace" => dup3,
    Batch "kernel.pipe.packets" => packets,
    Batch "kernel.getcwd.path" => getcwd,
    Batch "kernel.getdents64.root" => getdents,
    Batch "kernel.readlinkat.self" => readlinkat,
    Batch "kernel.statfs.root" => statfs,
    Batch "kernel.name_to_handle.root" => name_to_handle,
    Batch "kernel.xattrat.call" => xattrat,
    Batch "kernel.file_attr.read" => file_attr,
];

/// A memfd that holds `bytes`, its position at the start.
fn holding(bytes: &[u8]) -> Result<Fd, No> {
    let file = memfd()?;
    let n = must!("pwrite64"; nr::PWRITE64, file.0, bytes.as_ptr(), bytes.len(), 0);
    same("bytes written", n, bytes.len())?;
    Ok(file)
}

/// Whether the file holds exactly `bytes` at `from`.
fn check(file: &Fd, from: usize, bytes: &[u8]) -> Does {
    let mut room = [0u8; 64];
    let wanted = bytes.len().min(64);
    let n = must!("read back"; nr::PREAD64, file.0, &mut room, wanted, from);
    same("bytes read back", n, wanted)?;
    holds("other bytes came back", room[..wanted] == bytes[..wanted])
}

/// A byte at the start of each of two pages.
fn two_pages() -> Result<Fd, No> {
    let file = holding(&[7])?;
    must!("pwrite64"; nr::PWRITE64, file.0, &[7u8], 1, 4096);
    Ok(file)
}

fn faccessat2() -> Does {
    // X_OK by effective ids, as bash and coreutils test do.
    must!(nr::FACCESSAT2, AT_FDCWD, sys::path(c"/"), 1, AT_EACCESS);
    refused("a name that is not there", ask!(nr::FACCESSAT2, AT_FDCWD, sys::path(c"/.abicus/not there"), 0, 0), ENOENT)
}

fn statx() -> Does {
    let (mut one, other) = ([0u64; 32], stat(AT_FDCWD, c"/").at("newfstatat")?);
    must!(nr::STATX, AT_FDCWD, sys::path(c"/"), 0, 0x7ff, &mut one);
    // stx_mode has 16 bits behind stx_nlink, stx_uid, stx_gid; stx_ino follows.
    same("mode", (one[3] >> 32) as usize & 0xffff, other.mode as usize)?;
    holds("another inode than stat says", one[4] == other.ino)
}

fn openat2() -> Does {
    let root = Fd::at(AT_FDCWD, c"/", O_PATH | O_DIRECTORY, 0).at("open /")?;
    // struct open_how: flags, mode, resolve; RESOLVE_BENEATH
    let how = [(O_PATH | O_CLOEXEC) as u64, 0, 8];
    Fd(must!(nr::OPENAT2, root.0, sys::path(c"."), &how, 24) as i32);
    refused("a path that leaves the directory", ask!(nr::OPENAT2, root.0, sys::path(c"../"), &how, 24), EXDEV)
}

fn fchmodat2() -> Does {
    let file = memfd()?;
    must!(nr::FCHMODAT2, file.0, sys::path(c""), 0o640, AT_EMPTY_PATH);
    same("mode", (stat(file.0, c"").at("fstat")?.mode & 0o777) as usize, 0o640)
}

fn two_copies() -> Result<(usize, usize), No> {
    let (from, to) = pipe()?;
    let low = must!("F_DUPFD"; nr::FCNTL, from.0, 0, 50);
    let high = must!("F_DUPFD"; nr::FCNTL, to.0, 0, 51);
    Ok((low, high))
}

fn close_range() -> Does {
    let (low, high) = two_copies()?;
    must!(nr::CLOSE_RANGE, low, low, 0);
    refused("the one in the range", ask!(nr::FCNTL, low, 1), EBADF)?;
    must!("the one beyond it"; nr::FCNTL, high, 1);
    Ok(())
}

/// CLOSE_RANGE_CLOEXEC
fn close_range_cloexec() -> Does {
    let (low, high) = two_copies()?;
    must!(nr::CLOSE_RANGE, low, high, 4);
    same("flags", must!("F_GETFD"; nr::FCNTL, high, 1), 1)
}

/// Really copies: kernels and overlays are known that say 0 and copy nothing.
fn copy_file_range() -> Does {
    let (from, to) = (memfd()?, memfd()?);
    must!("pwrite64"; nr::PWRITE64, from.0, &[0x5au8], 1, 4999);
    same("bytes copied", must!(nr::COPY_FILE_RANGE, from.0, 0, to.0, 0, 5000, 0), 5000)?;
    check(&to, 4999, &[0x5a])
}

fn sendfile() -> Does {
    let (file, (from, to)) = (holding(b"abicus")?, pipe()?);
    same("bytes", must!(nr::SENDFILE, to.0, file.0, 0, 6), 6)?;
    let mut room = [0; 8];
    let n = sys::read(from.0, &mut room).at("read")?;
    holds("other bytes came", &room[..n] == b"abicus")
}

fn splice() -> Does {
    let (file, (from, to), out) = (holding(b"abicus")?, pipe()?, memfd()?);
    same("bytes in", must!(nr::SPLICE, file.0, 0, to.0, 0, 6, 0), 6)?;
    same("bytes out", must!(nr::SPLICE, from.0, 0, out.0, 0, 6, 0), 6)?;
    check(&out, 0, b"abicus")
}

fn tee() -> Does {
    let ((a, b), (c, d)) = (pipe()?, pipe()?);
    sys::write(b.0, b"abicus").at("write")?;
    same("bytes", must!(nr::TEE, a.0, d.0, 6, 0), 6)?;
    let mut room = [0; 16];
    same("bytes in the copy", sys::read(c.0, &mut room[..8]).at("read")?, 6)?;
    same("bytes in the source", sys::read(a.0, &mut room[8..]).at("read")?, 6)?;
    holds("other bytes came", room[..6] == *b"abicus" && room[8..14] == *b"abicus")
}

fn vmsplice() -> Does {
    let (from, to) = pipe()?;
    let text = b"abicus";
    same("bytes", must!(nr::VMSPLICE, to.0, &[text.as_ptr() as usize, 6], 1, 0), 6)?;
    let mut room = [0; 8];
    let n = sys::read(from.0, &mut room).at("read")?;
    holds("other bytes came", &room[..n] == text)
}

fn readv() -> Does {
    let file = holding(b"abicus")?;
    let mut room = [0u8; 6];
    let at = room.as_mut_ptr() as usize;
    // The second piece first.
    same("bytes", must!(nr::READV, file.0, &[at + 3, 3, at, 3], 2), 6)?;
    holds("other bytes came", room == *b"cusabi")
}

fn preadv2() -> Does {
    let file = holding(b"abicus")?;
    let mut room = [0u8; 6];
    same("bytes", must!(nr::PREADV2, file.0, &[room.as_mut_ptr() as usize, 6], 1, 3, 0, 0), 3)?;
    holds("other bytes came", room.starts_with(b"cus"))
}

/// RWF_NOWAIT of what is in memory anyway: the program that runs.
fn preadv2_nowait() -> Does {
    let file = Fd::at(AT_FDCWD, c"/proc/self/exe", O_RDONLY, 0).at("open /proc/self/exe")?;
    let mut room = [0u8; 4];
    same("bytes", must!(nr::PREADV2, file.0, &[room.as_mut_ptr() as usize, 4], 1, 0, 0, 8), 4)?;
    holds("not a program", room == *b"\x7fELF")
}

/// RWF_APPEND
fn pwritev2() -> Does {
    let file = holding(b"abi")?;
    same("bytes", must!(nr::PWRITEV2, file.0, &[b"cus".as_ptr() as usize, 3], 1, 0, 0, 16), 3)?;
    check(&file, 0, b"abicus")
}

fn fallocate() -> Does {
    let file = memfd()?;
    must!(nr::FALLOCATE, file.0, 0, 0, 8192);
    same("size", stat(file.0, c"").at("fstat")?.size as usize, 8192)
}

/// FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE
fn punch() -> Does {
    let file = two_pages()?;
    must!(nr::FALLOCATE, file.0, 3, 0, 4096);
    check(&file, 0, &[0])?;
    check(&file, 4096, &[7])?;
    same("size", stat(file.0, c"").at("fstat")?.size as usize, 4097)
}

/// A hole of a megabyte between two pages of data.
fn hole() -> Does {
    let file = holding(b"x")?;
    must!("pwrite64"; nr::PWRITE64, file.0, &[1u8], 1, 1 << 20);
    same("SEEK_HOLE", must!(nr::LSEEK, file.0, 0, 4), 4096)?;
    same("SEEK_DATA", must!(nr::LSEEK, file.0, 4096, 3), 1 << 20)
}

fn truncate() -> Does {
    let file = holding(b"abicus")?;
    must!(nr::FTRUNCATE, file.0, 3);
    must!(nr::FTRUNCATE, file.0, 6);
    check(&file, 0, b"abi\0\0\0")
}

fn fsync() -> Does {
    let file = holding(b"abicus")?;
    must!(nr::FSYNC, file.0);
    must!("fdatasync"; nr::FDATASYNC, file.0);
    Ok(())
}

fn sync_file_range() -> Does {
    let file = holding(b"abicus")?;
    must!(nr::SYNC_FILE_RANGE, file.0, 0, 6, 2);
    Ok(())
}

fn fadvise() -> Does {
    let file = holding(b"abicus")?;
    must!(nr::FADVISE64, file.0, 0, 0, 2);
    Ok(())
}

fn cachestat() -> Does {
    let (file, range, mut counts) = (two_pages()?, [0u64, 8192], [0u64; 5]);
    must!(nr::CACHESTAT, file.0, &range, &mut counts, 0);
    same("pages cached", counts[0] as usize, 2)
}

/// The same file opened a second time, which a memfd allows through /proc only.
fn opened_again(file: &Fd) -> Result<Fd, No> {
    let name = name_of(file, "");
    Ok(Fd(must!("open again"; nr::OPENAT, AT_FDCWD, name.bytes().as_ptr(), O_RDWR | O_CLOEXEC, 0) as i32))
}

fn flock() -> Does {
    let file = memfd()?;
    let again = opened_again(&file)?;
    // LOCK_EX | LOCK_NB
    must!(nr::FLOCK, file.0, 6);
    refused("a second lock", ask!(nr::FLOCK, again.0, 6), EAGAIN)?;
    must!("LOCK_UN"; nr::FLOCK, file.0, 8);
    must!("a second lock, later"; nr::FLOCK, again.0, 6);
    Ok(())
}

/// struct flock of the first byte: type, whence, start, length, pid.
const LOCK: [u64; 4] = [1, 0, 1, 0];

/// F_SETLK: a child meets our lock.
fn record_lock() -> Does {
    let file = memfd()?;
    must!(nr::FCNTL, file.0, 6, &LOCK);
    in_twin("a second lock", &mut || match ask!(nr::FCNTL, file.0, 6, &LOCK) {
        Err(EAGAIN | EACCES) => 0,
        Err(errno) => errno,
        Ok(_) => 255,
    })
}

/// F_OFD_SETLK: the lock belongs to the open file.
fn ofd_lock() -> Does {
    let file = memfd()?;
    let again = opened_again(&file)?;
    must!(nr::FCNTL, file.0, 37, &LOCK);
    refused("a second lock", ask!(nr::FCNTL, again.0, 37, &LOCK), EAGAIN)
}

/// F_SETPIPE_SZ
fn pipe_size() -> Does {
    let (from, to) = pipe()?;
    let before = must!("F_GETPIPE_SZ"; nr::FCNTL, to.0, 1032);
    let wanted = if before > 8192 { 8192 } else { 4096 };
    must!(nr::FCNTL, to.0, 1031, wanted);
    same("size", must!("F_GETPIPE_SZ"; nr::FCNTL, from.0, 1032), wanted)
}

/// F_DUPFD_CLOEXEC
fn dup_cloexec() -> Does {
    let (from, _to) = pipe()?;
    let copy = Fd(must!(nr::FCNTL, from.0, 1030, 100) as i32);
    same("flags", must!("F_GETFD"; nr::FCNTL, copy.0, 1), 1)
}

fn dup3() -> Does {
    let ((from, to), (other, _end)) = (pipe()?, pipe()?);
    must!(nr::DUP3, from.0, other.0, O_CLOEXEC);
    sys::write(to.0, b"abicus").at("write")?;
    let mut room = [0; 8];
    same("bytes read through the copy", sys::read(other.0, &mut room).at("read")?, 6)
}

/// A pipe by O_DIRECT keeps what was written apart.
fn packets() -> Does {
    let mut ends = [-1i32; 2];
    must!(nr::PIPE2, &mut ends, O_DIRECT | O_CLOEXEC);
    let (from, to) = (Fd(ends[0]), Fd(ends[1]));
    sys::write(to.0, b"abc").at("write")?;
    sys::write(to.0, b"de").at("write")?;
    let mut room = [0; 8];
    same("bytes of the first", sys::read(from.0, &mut room).at("read")?, 3)
}

fn getcwd() -> Does {
    let mut room = [0u8; 4096];
    let n = must!(nr::GETCWD, &mut room, room.len());
    holds("no absolute path", n > 1 && (room[0] == b'/' || room.starts_with(b"(unreachable)")))
}

/// "." and ".." of the root, wherever in it they are; a directory of no entries at all is a mistake of the file system.
fn getdents() -> Does {
    let root = Fd::at(AT_FDCWD, c"/", O_RDONLY | O_DIRECTORY, 0).at("open /")?;
    let (mut room, mut entries) = ([0u64; 256], 0);
    loop {
        let n = must!(nr::GETDENTS64, root.0, &mut room, size_of_val(&room));
        if n == 0 {
            break;
        }
        let mut at = 0;
        while at < n {
            entries += 1;
            // d_reclen follows d_ino and d_off.
            at += (room[at / 8 + 2] & 0xffff).max(8) as usize;
        }
    }
    holds("not even . and ..", entries >= 2)
}

fn readlinkat() -> Does {
    let mut room = [0u8; 16];
    let n = must!(nr::READLINKAT, AT_FDCWD, sys::path(c"/proc/self"), &mut room, room.len());
    let pid = crate::rt::text::number(&room[..n.min(16)], 10).unwrap_or(0);
    holds("not our process", pid == sys::getpid() as u64)
}

fn statfs() -> Does {
    let mut info = [0u64; 15];
    must!(nr::STATFS, sys::path(c"/"), &mut info);
    holds("no block size", info[1] > 0)
}

/// name_to_handle_at(2); opening by handle needs a privilege nobody should have in a cell.
fn name_to_handle() -> Does {
    let (mut handle, mut mount) = ([0u32; 34], 0i32);
    handle[0] = 128;
    must!(nr::NAME_TO_HANDLE_AT, AT_FDCWD, sys::path(c"/"), &mut handle, &mut mount, 0);
    holds("an empty handle", handle[0] > 0)
}

/// getxattrat(2) of an attribute that is not there.
fn xattrat() -> Does {
    let file = memfd()?;
    let arguments = [0u64, 0];
    let (empty, name) = (sys::path(c""), sys::path(c"trusted.abicus"));
    let answer = ask!(nr::GETXATTRAT, file.0, empty, AT_EMPTY_PATH, name, &arguments, 16);
    match answer {
        Err(ENODATA | EOPNOTSUPP) => Ok(()),
        Err(errno) => Err(errno.into()),
        Ok(_) => Err(word("an attribute nobody made")),
    }
}

/// file_getattr(2) of the root directory: any answer of its file system will do, that it has none too.
fn file_attr() -> Does {
    let mut attributes = [0u64; 4];
    match ask!(nr::FILE_GETATTR, AT_FDCWD, sys::path(c"/"), &mut attributes, 24, 0) {
        Ok(_) | Err(EOPNOTSUPP | ENOTTY) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

//! What a file system must do, asked of the root's and of /tmp's.
//!
//! Goes in: which of the two. Comes out: answers. Must not know: which answers are good.

use super::{Place, Where, kind, statfs};
use crate::asking::*;
use crate::rt::consts::*;
use crate::rt::nr;
use crate::rt::sys::{self, path};

/// Each question for both; watching is slow to close.
macro_rules! both {
    ($($root:literal $tmp:literal => $run:ident),*; $($watched:literal $watched_tmp:literal => $watch:ident),* $(,)?) => {
        checks![
            Batch "fs.root.open" => root_open,
            Batch "fs.root.type" => || kind_of(c"/"),
            Batch "fs.root.write" => || write(Where::Root),
            Batch "fs.tmp.type" => || kind_of(c"/tmp"),
            Batch "fs.tmp.write" => || write(Where::Tmp),
            $(Batch $root => || asked(Where::Root, $run), Batch $tmp => || asked(Where::Tmp, $run),)*
            $(Aside $watched => || asked(Where::Root, $watch), Aside $watched_tmp => || asked(Where::Tmp, $watch),)*
        ];
    };
}

both![
    "fs.root.directory" "fs.tmp.directory" => directory,
    "fs.root.entry_type" "fs.tmp.entry_type" => entry_type,
    "fs.root.tmpfile" "fs.tmp.tmpfile" => tmpfile,
    "fs.root.hard_link" "fs.tmp.hard_link" => hard_link,
    "fs.root.symlink" "fs.tmp.symlink" => symlink,
    "fs.root.rename" "fs.tmp.rename" => rename,
    "fs.root.rename.directory" "fs.tmp.rename.directory" => rename_directory,
    "fs.root.rename.noreplace" "fs.tmp.rename.noreplace" => rename_noreplace,
    "fs.root.rename.exchange" "fs.tmp.rename.exchange" => rename_exchange,
    "fs.root.rename.whiteout" "fs.tmp.rename.whiteout" => rename_whiteout,
    "fs.root.unlinked" "fs.tmp.unlinked" => unlinked,
    "fs.root.xattr.user" "fs.tmp.xattr.user" => xattr_user,
    "fs.root.xattr.capability" "fs.tmp.xattr.capability" => xattr_capability,
    "fs.root.xattr.acl" "fs.tmp.xattr.acl" => xattr_acl,
    "fs.root.xattr.trusted" "fs.tmp.xattr.trusted" => xattr_trusted,
    "fs.root.lock.flock" "fs.tmp.lock.flock" => flock,
    "fs.root.lock.record" "fs.tmp.lock.record" => record_lock,
    "fs.root.mmap" "fs.tmp.mmap" => mmap,
    "fs.root.fallocate" "fs.tmp.fallocate" => fallocate,
    "fs.root.punch" "fs.tmp.punch" => punch,
    "fs.root.sparse" "fs.tmp.sparse" => sparse,
    "fs.root.copy_range" "fs.tmp.copy_range" => copy_range,
    "fs.root.reflink" "fs.tmp.reflink" => reflink,
    "fs.root.direct" "fs.tmp.direct" => direct,
    "fs.root.time.y2038" "fs.tmp.time.y2038" => year_2038,
    "fs.root.time.nanoseconds" "fs.tmp.time.nanoseconds" => nanoseconds,
    "fs.root.birth_time" "fs.tmp.birth_time" => birth_time,
    "fs.root.name.long" "fs.tmp.name.long" => long_name,
    "fs.root.name.case" "fs.tmp.name.case" => case,
    "fs.root.mode.setuid" "fs.tmp.mode.setuid" => setuid_bit,
    "fs.root.chown" "fs.tmp.chown" => chown,
    "fs.root.fifo" "fs.tmp.fifo" => fifo,
    "fs.root.device" "fs.tmp.device" => device,
    "fs.root.socket" "fs.tmp.socket" => socket,
    "fs.root.execute" "fs.tmp.execute" => execute;
    "fs.root.inotify" "fs.tmp.inotify" => inotify,
    "fs.root.fanotify" "fs.tmp.fanotify" => fanotify,
];

fn root_open() -> Does {
    Fd::at(AT_FDCWD, c"/", O_RDONLY | O_DIRECTORY, 0)?;
    Ok(())
}

fn kind_of(name: &core::ffi::CStr) -> Does {
    Err(word(kind(statfs(name)?[0])))
}

/// Whether files can be made and hold what was written: the one check that says why not.
fn write(at: Where) -> Does {
    let missing = |name: &core::ffi::CStr| stat(AT_FDCWD, name).is_err();
    if at == Where::Tmp && [c"/tmp", c"/bin", c"/usr", c"/lib", c"/sbin"].iter().all(|name| missing(name)) {
        return Err(not_asked("the image is empty: nothing in it needs /tmp"));
    }
    let place = Place::find(at)?;
    place.file(c"a", b"abicus")?;
    let mut room = [0; 8];
    let n = sys::read(place.open(c"a", O_RDONLY)?.0, &mut room).at("read back")?;
    holds("other bytes came back", &room[..n] == b"abicus")?;
    must!("unlink"; nr::UNLINKAT, place.dir.0, path(c"a"), 0);
    refused("open what was removed", sys::open_at(place.dir.0, c"a", O_RDONLY, 0), ENOENT)
}

#[inline(never)]
fn asked(at: Where, question: fn(&Place) -> Does) -> Does {
    let place = Place::find(at).map_err(|_| {
        not_asked(match at {
            Where::Root => "nothing can be written there: see fs.root.write",
            Where::Tmp => "nothing can be written there: see fs.tmp.write",
        })
    })?;
    question(&place)
}

fn directory(p: &Place) -> Does {
    must!(nr::MKDIRAT, p.dir.0, path(c"d"), 0o700);
    drop(p.file(c"d/e", b"x")?);
    refused("remove while not empty", ask!(nr::UNLINKAT, p.dir.0, path(c"d"), AT_REMOVEDIR), ENOTEMPTY)?;
    must!("unlink"; nr::UNLINKAT, p.dir.0, path(c"d/e"), 0);
    must!("rmdir"; nr::UNLINKAT, p.dir.0, path(c"d"), AT_REMOVEDIR);
    Ok(())
}

/// d_type of getdents64(2): overlays on file systems without it lose files.
fn entry_type(p: &Place) -> Does {
    drop(p.file(c"a", b"")?);
    let mut room = [0u8; 512];
    let n = must!(nr::GETDENTS64, p.dir.0, &mut room, room.len());
    let mut at = 0;
    while at + 20 <= n.min(room.len()) {
        if room[at + 19] == b'a' && room[at + 20] == 0 {
            return same("DT_REG", usize::from(room[at + 18]), 8);
        }
        at += usize::from(u16::from_ne_bytes([room[at + 16], room[at + 17]])).max(20);
    }
    Err(word("the new file is not listed"))
}

/// O_TMPFILE, then a name for it by way of /proc, as open(2) says.
fn tmpfile(p: &Place) -> Does {
    let file = Fd::at(p.dir.0, c".", O_TMPFILE | O_RDWR, 0o600)?;
    sys::write(file.0, b"abicus").at("write")?;
    let name = name_of(&file, "");
    must!("linkat"; nr::LINKAT, AT_FDCWD, name.bytes().as_ptr(), p.dir.0, path(c"a"), AT_SYMLINK_FOLLOW);
    same("size", p.stat(c"a")?.size as usize, 6)
}

fn hard_link(p: &Place) -> Does {
    let file = p.file(c"a", b"one")?;
    must!(nr::LINKAT, p.dir.0, path(c"a"), p.dir.0, path(c"b"), 0);
    sys::write(file.0, b"two").at("write")?;
    let other = p.stat(c"b")?;
    same("links", other.links as usize, 2)?;
    same("size by the other name", other.size as usize, 6)
}

fn symlink(p: &Place) -> Does {
    drop(p.file(c"a", b"x")?);
    must!(nr::SYMLINKAT, path(c"a"), p.dir.0, path(c"b"));
    p.open(c"b", O_RDONLY)?;
    let flags = O_RDONLY | O_NOFOLLOW;
    refused("open without following", sys::open_at(p.dir.0, c"b", flags, 0), ELOOP)
}

fn renamed(p: &Place, flags: usize) -> Result<usize, i32> {
    ask!(nr::RENAMEAT2, p.dir.0, path(c"a"), p.dir.0, path(c"b"), flags)
}

fn rename(p: &Place) -> Does {
    let ino = stat(p.file(c"a", b"new")?.0, c"").at("fstat")?.ino;
    drop(p.file(c"b", b"")?);
    must!(nr::RENAMEAT, p.dir.0, path(c"a"), p.dir.0, path(c"b"));
    same("size", p.stat(c"b")?.size as usize, 3)?;
    holds("another inode than before", p.stat(c"b")?.ino == ino)
}

fn rename_directory(p: &Place) -> Does {
    must!("mkdir"; nr::MKDIRAT, p.dir.0, path(c"a"), 0o700);
    must!(nr::RENAMEAT, p.dir.0, path(c"a"), p.dir.0, path(c"b"));
    p.stat(c"b").map(|_| ())
}

fn rename_noreplace(p: &Place) -> Does {
    drop((p.file(c"a", b"new")?, p.file(c"b", b"")?));
    refused("over another", renamed(p, 1), EEXIST)
}

fn rename_exchange(p: &Place) -> Does {
    drop((p.file(c"a", b"new")?, p.file(c"b", b"")?));
    renamed(p, 2)?;
    same("size of one", p.stat(c"a")?.size as usize, 0)?;
    same("size of the other", p.stat(c"b")?.size as usize, 3)
}

fn rename_whiteout(p: &Place) -> Does {
    drop(p.file(c"a", b"new")?);
    renamed(p, 4)?;
    same("S_IFCHR", p.stat(c"a")?.mode as usize & 0o170_000, 0o020_000)
}

/// A file lives until its last descriptor is closed.
fn unlinked(p: &Place) -> Does {
    let file = p.file(c"a", b"abicus")?;
    must!(nr::UNLINKAT, p.dir.0, path(c"a"), 0);
    let mut room = [0u8; 8];
    // Not its links: fuse-overlayfs keeps counting one.
    same("bytes", must!("read"; nr::PREAD64, file.0, &mut room, 8, 0), 6)
}

/// Sets an attribute and reads it back.
fn xattr(p: &Place, name: &core::ffi::CStr, value: &[u8]) -> Does {
    let file = p.file(c"a", b"")?;
    must!(nr::FSETXATTR, file.0, path(name), value.as_ptr(), value.len(), 0);
    let mut room = [0u8; 64];
    let n = must!("fgetxattr"; nr::FGETXATTR, file.0, path(name), &mut room, room.len());
    holds("another value came back", &room[..n.min(64)] == value)
}

fn xattr_user(p: &Place) -> Does {
    xattr(p, c"user.abicus", b"42")
}

fn xattr_trusted(p: &Place) -> Does {
    xattr(p, c"trusted.abicus", b"42")
}

/// cap_net_raw=ep, version 2, as setcap(8) and package managers set it.
fn xattr_capability(p: &Place) -> Does {
    xattr(p, c"security.capability", &[1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
}

/// rw-rw---- with an entry for another user.
fn xattr_acl(p: &Place) -> Does {
    const ACL: [u8; 44] = [
        2, 0, 0, 0, 1, 0, 6, 0, 255, 255, 255, 255, 2, 0, 6, 0, 0, 0, 0, 0, 4, 0, 0, 0, 255, 255, 255, 255, 16, 0, 6,
        0, 255, 255, 255, 255, 32, 0, 0, 0, 255, 255, 255, 255,
    ];
    xattr(p, c"system.posix_acl_access", &ACL)
}

fn flock(p: &Place) -> Does {
    let (one, two) = (p.file(c"a", b"")?, p.open(c"a", O_RDWR)?);
    must!(nr::FLOCK, one.0, 6);
    refused("a second lock", ask!(nr::FLOCK, two.0, 6), EAGAIN)
}

/// F_OFD_SETLK of the first byte, by two openings.
fn record_lock(p: &Place) -> Does {
    let (one, two) = (p.file(c"a", b"")?, p.open(c"a", O_RDWR)?);
    let lock = [1u64, 0, 1, 0];
    must!(nr::FCNTL, one.0, 37, &lock);
    refused("a second lock", ask!(nr::FCNTL, two.0, 37, &lock), EAGAIN)
}

fn mmap(p: &Place) -> Does {
    let file = p.file(c"a", &[1; 16])?;
    let map = Map::file(file.0, 16, PROT_READ | PROT_WRITE, MAP_SHARED)?;
    map.set(3, 42);
    let mut room = [0u8; 1];
    must!("read"; nr::PREAD64, p.open(c"a", O_RDONLY)?.0, &mut room, 1, 3);
    same("byte", usize::from(room[0]), 42)
}

fn fallocate(p: &Place) -> Does {
    let file = p.file(c"a", b"")?;
    must!(nr::FALLOCATE, file.0, 0, 0, 8192);
    same("size", p.stat(c"a")?.size as usize, 8192)
}

fn punch(p: &Place) -> Does {
    let file = p.file(c"a", &[7; 16])?;
    must!(nr::FALLOCATE, file.0, 3, 0, 8);
    let mut room = [9u8; 16];
    same("bytes", must!("read"; nr::PREAD64, file.0, &mut room, 16, 0), 16)?;
    holds("not zeroes in the hole and sevens behind it", room[..8] == [0; 8] && room[8..] == [7; 8])
}

/// A file of 5 GiB that takes no room: large files at all, and holes.
fn sparse(p: &Place) -> Does {
    let file = p.file(c"a", b"")?;
    must!(nr::FTRUNCATE, file.0, 5usize << 30);
    same("size in MiB", p.stat(c"a")?.size as usize >> 20, 5120)?;
    must!("ftruncate to nothing"; nr::FTRUNCATE, file.0, 0);
    Ok(())
}

fn copy_range(p: &Place) -> Does {
    let (from, to) = (p.file(c"a", &[7; 512])?, p.file(c"b", b"")?);
    must!("lseek"; nr::LSEEK, from.0, 0, 0);
    same("bytes copied", must!(nr::COPY_FILE_RANGE, from.0, 0, to.0, 0, 512, 0), 512)?;
    same("size", p.stat(c"b")?.size as usize, 512)
}

/// FICLONE
fn reflink(p: &Place) -> Does {
    let (from, to) = (p.file(c"a", &[7; 512])?, p.file(c"b", b"")?);
    must!(nr::IOCTL, to.0, 0x4004_9409, from.0);
    same("size", p.stat(c"b")?.size as usize, 512)
}

fn direct(p: &Place) -> Does {
    drop(p.file(c"a", b"")?);
    let (file, page) = (p.open(c"a", O_RDWR | O_DIRECT)?, Map::private(4096)?);
    page.set(0, 7);
    same("bytes written", must!(nr::PWRITE64, file.0, page.at, 4096, 0), 4096)?;
    page.set(0, 0);
    same("bytes read", must!("read"; nr::PREAD64, file.0, page.at, 4096, 0), 4096)?;
    same("byte", usize::from(page.get(0)), 7)
}

/// Sets the time of a file, of access and of change, and tells it.
fn timed(p: &Place, sec: u64, nsec: u64) -> Result<[u64; 32], No> {
    drop(p.file(c"a", b"")?);
    must!(nr::UTIMENSAT, p.dir.0, path(c"a"), &[sec, nsec, sec, nsec], 0);
    let mut info = [0u64; 32];
    must!("statx"; nr::STATX, p.dir.0, path(c"a"), 0, 0xfff, &mut info);
    Ok(info)
}

fn year_2038(p: &Place) -> Does {
    same("seconds", timed(p, 4_102_444_800, 0)?[14] as usize, 4_102_444_800)
}

fn nanoseconds(p: &Place) -> Does {
    same("nanoseconds", timed(p, 1_000_000_000, 123_456_789)?[15] as u32 as usize, 123_456_789)
}

/// stx_btime
fn birth_time(p: &Place) -> Does {
    holds("no birth time", timed(p, 1_000_000_000, 0)?[0] >> 11 & 1 == 1)
}

/// 255 bytes, and nothing longer.
fn long_name(p: &Place) -> Does {
    let mut name = [b'n'; 257];
    (name[255], name[256]) = (0, 0);
    let create = |name: &[u8; 257]| {
        let answer = ask!(nr::OPENAT, p.dir.0, name.as_ptr(), O_CREAT | O_WRONLY | O_CLOEXEC, 0o600);
        let _ = ask!(nr::UNLINKAT, p.dir.0, name.as_ptr(), 0);
        Fd::of(answer)
    };
    create(&name)?;
    name[255] = b'n';
    refused("256 bytes", create(&name), ENAMETOOLONG)
}

fn case(p: &Place) -> Does {
    drop(p.file(c"a", b"")?);
    refused("the name in upper case", stat(p.dir.0, c"A"), ENOENT)
}

fn setuid_bit(p: &Place) -> Does {
    drop(p.file(c"a", b"")?);
    must!(nr::FCHMODAT, p.dir.0, path(c"a"), 0o4755);
    same("mode", (p.stat(c"a")?.mode & 0o7777) as usize, 0o4755)
}

fn chown(p: &Place) -> Does {
    if must!(nr::GETEUID) != 0 {
        return Err(not_asked("the cell does not run as root"));
    }
    drop(p.file(c"a", b"")?);
    must!(nr::FCHOWNAT, p.dir.0, path(c"a"), 1000, 1000, 0);
    same("owner", p.stat(c"a")?.uid as usize, 1000)
}

fn fifo(p: &Place) -> Does {
    must!(nr::MKNODAT, p.dir.0, path(c"a"), 0o010_600, 0);
    let (from, to) = (p.open(c"a", O_RDONLY | O_NONBLOCK)?, p.open(c"a", O_WRONLY)?);
    sys::write(to.0, b"abicus").at("write")?;
    same("bytes", sys::read(from.0, &mut [0; 8]).at("read")?, 6)
}

/// The null device, usable.
fn device(p: &Place) -> Does {
    must!(nr::MKNODAT, p.dir.0, path(c"a"), 0o020_600, 1 << 8 | 3);
    same("bytes", sys::write(p.open(c"a", O_WRONLY)?.0, b"x").at("write")?, 1)
}

/// A socket with a name in the file system: connect finds who listens.
fn socket(p: &Place) -> Does {
    let mut address = [0u8; 110];
    address[0] = 1;
    // A path of at most 108 bytes, by way of the descriptor.
    let name = name_of(&p.dir, "/a");
    address[2..2 + name.bytes().len()].copy_from_slice(name.bytes());
    let new = || Fd(must!("socket"; nr::SOCKET, 1, 1 | O_CLOEXEC, 0) as i32);
    let (server, client) = (new(), new());
    must!(nr::BIND, server.0, &address, 110);
    must!("listen"; nr::LISTEN, server.0, 1);
    must!("connect"; nr::CONNECT, client.0, &address, 110);
    Ok(())
}

/// The tiny program, as a file: a mount with noexec refuses.
fn execute(p: &Place) -> Does {
    drop(p.file(c"a", &tiny_program())?);
    must!("chmod"; nr::FCHMODAT, p.dir.0, path(c"a"), 0o700);
    executes("execveat", &mut || ask!(nr::EXECVEAT, p.dir.0, path(c"a"), &[path(c"a"), 0], &[0usize], 0))
}

fn own_path(p: &Place) -> crate::rt::text::Text<64> {
    name_of(&p.dir, "/.")
}

/// IN_CREATE in the directory.
fn inotify(p: &Place) -> Does {
    let watcher = Fd(must!(nr::INOTIFY_INIT1, O_CLOEXEC | O_NONBLOCK) as i32);
    must!("inotify_add_watch"; nr::INOTIFY_ADD_WATCH, watcher.0, own_path(p).bytes().as_ptr(), 0x100);
    drop(p.file(c"a", b"")?);
    let mut event = [0u32; 64];
    must!("read"; nr::READ, watcher.0, &mut event, size_of_val(&event));
    same("IN_CREATE", event[1] as usize, 0x100)?;
    Err(well())
}

/// As who has no privilege may since 5.13: FAN_REPORT_FID, watching one directory for FAN_CREATE.
fn fanotify(p: &Place) -> Does {
    let watcher = Fd(must!(nr::FANOTIFY_INIT, 0x200 | 1 | 2, 0) as i32);
    must!("fanotify_mark"; nr::FANOTIFY_MARK, watcher.0, 1, 0x100, AT_FDCWD, own_path(p).bytes().as_ptr());
    drop(p.file(c"a", b"")?);
    let mut event = [0u64; 64];
    must!("read"; nr::READ, watcher.0, &mut event, size_of_val(&event));
    same("FAN_CREATE", event[1] as usize & 0xfff, 0x100)?;
    Err(well())
}

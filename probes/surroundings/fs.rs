//! File systems: of the cell's root, of /tmp, of /dev/shm.
//!
//! Goes in: nothing. Comes out: facts and answers. Must not know: which answers are good. `check.rs` says how to add one.
//! Whatever is made is made in a directory of its own, whose name nobody else has, and is removed with it.

#![allow(unreachable_code)] // what follows the making of a `No` is never reached

pub mod overlay;
pub mod place;
pub mod shm;

use core::sync::atomic::{AtomicI32, Ordering::Relaxed};

use super::asking::*;
use super::check::Facts;
use super::rt::consts::*;
use super::rt::nr;
use super::rt::sys;
use super::rt::text::Text;

pub static FACTS: &[fn(&mut Facts)] = &[sizes];

/// How large they are and how much is free.
fn sizes(f: &mut Facts) {
    for (name, size, free) in [
        (c"/", "fs.root.size_kb", "fs.root.free_kb"),
        (c"/tmp", "fs.tmp.size_kb", "fs.tmp.free_kb"),
        (c"/dev/shm", "fs.shm.size_kb", "fs.shm.free_kb"),
    ] {
        if let Ok(info) = statfs(name) {
            f.number(size, (info[2].saturating_mul(info[1]) / 1024) as i64);
            f.number(free, (info[4].saturating_mul(info[1]) / 1024) as i64);
        }
    }
}

/// struct statfs: type, block size, blocks, free, available.
fn statfs(name: &core::ffi::CStr) -> Result<[u64; 15], i32> {
    let mut info = [0u64; 15];
    must!(nr::STATFS, sys::path(name), &mut info);
    Ok(info)
}

/// The name of a type of file system, by its magic number.
fn kind(magic: u64) -> &'static str {
    const NAMES: [(u32, &str); 19] = [
        (0xef53, "ext4"),
        (0x794c_7630, "overlay"),
        (0x0102_1994, "tmpfs"),
        (0x5846_5342, "xfs"),
        (0x9123_683e, "btrfs"),
        (0x2fc1_2fc1, "zfs"),
        (0x6573_5546, "fuse"),
        (0x8584_58f6, "ramfs"),
        (0x6969, "nfs"),
        (0x0102_1997, "9p"),
        (0xf2f5_2010, "f2fs"),
        (0x7371_7368, "squashfs"),
        (0xe0f5_e1e2, "erofs"),
        (0xca45_1a4e, "bcachefs"),
        (0xfe53_4d42, "cifs"),
        (0x0bd0_0bd0, "lustre"),
        (0x4d44, "vfat"),
        (0x5265_4973, "reiserfs"),
        (0x6a65_6a63, "virtiofs"),
    ];
    NAMES.iter().find(|row| u64::from(row.0) == magic & 0xffff_ffff).map_or("other", |row| row.1)
}

/// What is to be removed when a check ends its child in the middle: where it is, and its own descriptor.
static OPEN: [AtomicI32; 2] = [AtomicI32::new(-1), AtomicI32::new(-1)];

/// Removes what a check that ends here has made in its place.
pub fn leave() {
    let [above, dir] = [OPEN[0].swap(-1, Relaxed), OPEN[1].swap(-1, Relaxed)];
    if above >= 0 {
        drop(Place { dir: Fd(dir), above: Fd(above), name: own_name() });
    }
}

/// Removes what the last check that was killed has left. For a child of the probe, as the checks are.
pub fn sweep() {
    let name = own_name();
    for above in [c"/tmp", c"/var/tmp", c"/"] {
        let Ok(above) = Fd::at(AT_FDCWD, above, O_PATH | O_DIRECTORY, 0) else { continue };
        let flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
        if let Ok(dir) = Fd::of(ask!(nr::OPENAT, above.0, name.bytes().as_ptr(), flags, 0)) {
            drop(Place { dir, above, name });
        }
    }
}

/// Whoever asks has the same parent, in its pid namespace, so that what a killed one left is found by the next.
fn own_name() -> Text<64> {
    Text::format(format_args!(".abicus-{}-{}\0", ask!(nr::GETPPID).unwrap_or(0), namespace()))
}

/// A directory of our own below one of a list of directories.
pub struct Place {
    pub dir: Fd,
    above: Fd,
    name: Text<64>,
}

/// Names that checks use in it, and in a directory `d` of it.
const IN: [&core::ffi::CStr; 3] = [c"a", c"b", c"d"];
const IN_D: [&core::ffi::CStr; 2] = [c"d/e", c"d/f"];

/// Where the files of a check go.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Where {
    Root,
    Tmp,
}

impl Place {
    /// The file system of the root: where it reaches to /tmp or /var/tmp there, else in the root directory itself.
    pub fn find(at: Where) -> Result<Place, i32> {
        if at == Where::Tmp {
            return Place::make(c"/tmp");
        }
        let root = stat(AT_FDCWD, c"/")?.dev;
        for name in [c"/tmp", c"/var/tmp"] {
            if stat(AT_FDCWD, name).is_ok_and(|s| s.dev == root)
                && let Ok(place) = Place::make(name)
            {
                return Ok(place);
            }
        }
        Place::make(c"/")
    }

    fn make(above: &core::ffi::CStr) -> Result<Place, i32> {
        let above = Fd::at(AT_FDCWD, above, O_PATH | O_DIRECTORY, 0)?;
        let name = own_name();
        let made = match ask!(nr::MKDIRAT, above.0, name.bytes().as_ptr(), 0o700) {
            Err(EEXIST) => false,
            answer => answer.map(|_| true)?,
        };
        let flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
        let dir = Fd::of(ask!(nr::OPENAT, above.0, name.bytes().as_ptr(), flags, 0))?;
        let place = Place { dir, above, name };
        // In a directory that all may write somebody else may have been there first.
        if stat(place.dir.0, c"")?.uid as usize != ask!(nr::GETEUID)? {
            return Err(EEXIST);
        }
        OPEN[0].store(place.above.0, Relaxed);
        OPEN[1].store(place.dir.0, Relaxed);
        if !made {
            place.clear(&|| false);
        }
        Ok(place)
    }

    /// Removes what is in it, until `done`: most checks make one file, and each name in vain costs as much as a check.
    fn clear(&self, done: &dyn Fn() -> bool) {
        for name in IN {
            if done() {
                return;
            }
            let remove = |name, flags| ask!(nr::UNLINKAT, self.dir.0, sys::path(name), flags);
            if let Err(EISDIR | EPERM) = remove(name, 0) {
                for name in IN_D {
                    let _ = remove(name, 0);
                }
                let _ = remove(name, AT_REMOVEDIR);
            }
        }
        done();
    }

    pub fn open(&self, name: &core::ffi::CStr, flags: i32) -> Result<Fd, No> {
        Fd::at(self.dir.0, name, flags, 0o600).at("open")
    }

    /// A new file that holds `bytes`.
    pub fn file(&self, name: &core::ffi::CStr, bytes: &[u8]) -> Result<Fd, No> {
        let file = Fd::at(self.dir.0, name, O_CREAT | O_EXCL | O_RDWR, 0o600).at("create")?;
        same("bytes written", sys::write(file.0, bytes).at("write")?, bytes.len())?;
        Ok(file)
    }

    pub fn stat(&self, name: &core::ffi::CStr) -> Result<Stat, No> {
        stat(self.dir.0, name).at("stat")
    }
}

impl Drop for Place {
    #[inline(never)]
    fn drop(&mut self) {
        OPEN[0].store(-1, Relaxed);
        self.clear(&|| ask!(nr::UNLINKAT, self.above.0, self.name.bytes().as_ptr(), AT_REMOVEDIR).is_ok());
    }
}

/// The pid namespace, as /proc names it; 0 where there is no /proc.
pub fn namespace() -> u64 {
    let mut room = [0u8; 40];
    match ask!(nr::READLINKAT, AT_FDCWD, sys::path(c"/proc/self/ns/pid"), &mut room, room.len()) {
        // pid:[4026531836]
        Ok(n) if n > 5 => super::rt::text::number(&room[5..], 10).unwrap_or(0),
        _ => 0,
    }
}

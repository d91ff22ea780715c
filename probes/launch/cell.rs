//! Operations on what a process sees and may do: mounts, names, limits, capabilities, the filter.
//!
//! Goes in: an operation's code and fields. Comes out: done, or errno. Must not know: files' contents, other processes.

use core::ffi::CStr;

use crate::act::{Done, Errno, done};
use crate::format::{FIRST_SLOT, Fields, SLOTS, code};
use crate::limit;
use crate::rt::consts::*;
use crate::rt::nr;
use crate::rt::sys::{self, call, path};

pub fn perform(op: u8, mut f: Fields) -> Done {
    match op {
        code::OPEN => open_slot(f.number()?, f.text()?, f.number()?),
        code::MOUNT => {
            let (source, target, kind, flags, data) = (f.text()?, f.text()?, f.text()?, f.number()?, f.text()?);
            mount(source, target, kind, flags, data)
        }
        code::REMOUNT => remount(f.text()?, f.number()?),
        code::UNMOUNT => {
            let (target, flags) = (f.text()?, f.number()?);
            // SAFETY: a C string that outlives the call.
            done(unsafe { call!(nr::UMOUNT2, path(target), flags) })
        }
        code::MASK => mask(f.text()?, f.text()?),
        code::READ_ONLY => {
            let target = f.text()?;
            mount(target, target, c"", MS_BIND | MS_REC, c"")?;
            remount(target, MS_RDONLY)
        }
        code::CHDIR => {
            let name = f.text()?;
            // SAFETY: a C string that outlives the call.
            done(unsafe { call!(nr::CHDIR, path(name)) })
        }
        // SAFETY: takes no address.
        code::KEEP => done(unsafe { call!(nr::FCNTL, slot(f.number()?)?, F_SETFD, 0) }),
        // SAFETY: takes no address.
        code::FCHDIR => done(unsafe { call!(nr::FCHDIR, slot(f.number()?)?) }),
        // SAFETY: C strings that outlive the call.
        code::PIVOT => done(unsafe { call!(nr::PIVOT_ROOT, path(c"."), path(c".")) }),
        code::HOSTNAME => {
            let name = f.bytes()?;
            // SAFETY: the buffer is `name`.
            done(unsafe { call!(nr::SETHOSTNAME, name.as_ptr(), name.len()) })
        }
        code::DOMAINNAME => {
            let name = f.bytes()?;
            // SAFETY: the buffer is `name`.
            done(unsafe { call!(nr::SETDOMAINNAME, name.as_ptr(), name.len()) })
        }
        code::LOOPBACK => loopback(),
        code::RLIMIT => {
            let (resource, limits) = (f.number()?, [f.number()?, f.number()?]);
            if resource == RLIMIT_NOFILE as u64 {
                limit::forget();
            }
            // SAFETY: two u64 are a struct rlimit64; nothing is read back.
            done(unsafe { call!(nr::PRLIMIT64, 0, resource, &limits, 0) })
        }
        code::BOUND => bound(f.number()?),
        code::CAPS => set_caps(f.number()?, f.number()?, f.number()?),
        code::AMBIENT => ambient(f.number()?),
        code::GROUPS => groups(f.bytes()?),
        code::IDS => ids(f.number()?, f.number()?, f.number()?),
        code::NO_NEW_PRIVS => prctl(PR_SET_NO_NEW_PRIVS, [1, 0, 0, 0]),
        code::SECCOMP => seccomp(f.bytes()?),
        // SAFETY: takes no address.
        code::UNSHARE => done(unsafe { call!(nr::UNSHARE, f.number()?) }),
        // SAFETY: takes no address.
        code::SETSID => done(unsafe { call!(nr::SETSID) }),
        // SAFETY: takes no address.
        code::UMASK => done(unsafe { call!(nr::UMASK, f.number()?) }),
        // SAFETY: takes no address.
        code::PERSONALITY => done(unsafe { call!(nr::PERSONALITY, f.number()?) }),
        code::STDIN => {
            let fd = sys::open(f.text()?, O_RDONLY | O_NOCTTY, 0)?;
            move_to(fd, 0, 0)
        }
        _ => Err(Errno(EINVAL)),
    }
}

const F_SETFD: i32 = 2;
const MS_RDONLY: u64 = 1;
const MS_REMOUNT: u64 = 32;
const MS_BIND: u64 = 4096;
const MS_REC: u64 = 16384;
const MS_RELATIME: u64 = 1 << 21;
const MS_STRICTATIME: u64 = 1 << 24;

fn prctl(what: usize, rest: [u64; 4]) -> Done {
    // SAFETY: none of the calls made here passes an address.
    done(unsafe { call!(nr::PRCTL, what, rest[0], rest[1], rest[2], rest[3]) })
}

fn slot(number: u64) -> Result<i32, Errno> {
    (number < SLOTS).then_some(FIRST_SLOT + number as i32).ok_or(Errno(EINVAL))
}

fn open_slot(number: u64, name: &CStr, flags: u64) -> Done {
    let to = slot(number)?;
    let fd = sys::open(name, flags as i32 | O_NOCTTY, 0)?;
    move_to(fd, to, O_CLOEXEC)
}

fn move_to(fd: i32, to: i32, flags: i32) -> Done {
    // SAFETY: takes no address.
    let moved = unsafe { call!(nr::DUP3, fd, to, flags) };
    let _ = sys::close(fd);
    done(moved)
}

fn mount(source: &CStr, target: &CStr, kind: &CStr, flags: u64, data: &CStr) -> Done {
    let or_null = |text: &CStr| if text.is_empty() { 0 } else { path(text) };
    // SAFETY: C strings that outlive the call, or NULL.
    done(unsafe { call!(nr::MOUNT, or_null(source), path(target), or_null(kind), flags, or_null(data)) })
}

/// In a user namespace the flags a mount came with are locked: leaving one out is EPERM.
fn remount(target: &CStr, flags: u64) -> Done {
    const ST_FLAGS: usize = 10; // in words, of struct statfs on 64 bit
    let mut about = [0u64; 32];
    // SAFETY: a struct statfs has 15 words.
    unsafe { call!(nr::STATFS, path(target), about.as_mut_ptr()) }?;
    let has = about[ST_FLAGS];
    // nosuid, nodev, noexec, noatime, nodiratime have the same numbers on both sides; relatime has not.
    let same = has & (2 | 4 | 8 | 1024 | 2048);
    let times = match (has & 4096 != 0, has & 1024 != 0) {
        (true, _) => MS_RELATIME,
        (false, true) => 0,
        (false, false) => MS_STRICTATIME,
    };
    mount(c"", target, c"", MS_REMOUNT | MS_BIND | flags | same | times | (has & MS_RDONLY), c"")
}

fn mask(target: &CStr, with: &CStr) -> Done {
    match mount(with, target, c"", MS_BIND, c"") {
        Err(Errno(ENOTDIR)) => mount(c"tmpfs", target, c"tmpfs", MS_RDONLY, c""),
        other => other,
    }
}

pub fn loopback() -> Done {
    const AF_INET: i32 = 2;
    const SOCK_DGRAM: i32 = 2;
    const SIOCGIFFLAGS: i32 = 0x8913;
    const SIOCSIFFLAGS: i32 = 0x8914;
    const IFF_UP: i16 = 1;
    #[repr(C)]
    struct Request {
        name: [u8; 16],
        flags: i16,
        rest: [u8; 22],
    }
    let mut request = Request { name: *b"lo\0\0\0\0\0\0\0\0\0\0\0\0\0\0", flags: 0, rest: [0; 22] };
    // SAFETY: takes no address.
    let fd = unsafe { call!(nr::SOCKET, AF_INET, SOCK_DGRAM | O_CLOEXEC, 0) }?;
    // SAFETY: a struct ifreq of the kernel's size, read and written.
    let set = unsafe { call!(nr::IOCTL, fd, SIOCGIFFLAGS, &mut request) }.and_then(|_| {
        request.flags |= IFF_UP;
        // SAFETY: as above.
        unsafe { call!(nr::IOCTL, fd, SIOCSIFFLAGS, &mut request) }
    });
    let _ = sys::close(fd as i32);
    done(set)
}

/// capabilities(7): the kernel says where its capabilities end, by EINVAL.
fn bound(keep: u64) -> Done {
    const PR_CAPBSET_READ: usize = 23;
    const PR_CAPBSET_DROP: usize = 24;
    for capability in 0..64 {
        // SAFETY: takes no address.
        match unsafe { call!(nr::PRCTL, PR_CAPBSET_READ, capability) } {
            Err(EINVAL) => break,
            Ok(1) if keep & (1 << capability) == 0 => prctl(PR_CAPBSET_DROP, [capability, 0, 0, 0])?,
            _ => {}
        }
    }
    Ok(())
}

fn set_caps(effective: u64, permitted: u64, inheritable: u64) -> Done {
    const VERSION_3: u32 = 0x2008_0522;
    let head = [VERSION_3, 0];
    let half = |shift: u32| [(effective >> shift) as u32, (permitted >> shift) as u32, (inheritable >> shift) as u32];
    let sets = [half(0), half(32)];
    // SAFETY: a header and two data structures of version 3.
    done(unsafe { call!(nr::CAPSET, &head, &sets) })
}

fn ambient(set: u64) -> Done {
    const PR_CAP_AMBIENT: usize = 47;
    const RAISE: u64 = 2;
    const CLEAR_ALL: u64 = 4;
    prctl(PR_CAP_AMBIENT, [CLEAR_ALL, 0, 0, 0])?;
    for capability in (0..64).filter(|c| set & (1 << c) != 0) {
        prctl(PR_CAP_AMBIENT, [RAISE, capability, 0, 0])?;
    }
    Ok(())
}

fn groups(list: &[u8]) -> Done {
    // SAFETY: the kernel copies; `list` has four bytes a group.
    done(unsafe { call!(nr::SETGROUPS, list.len() / 4, list.as_ptr()) })
}

fn ids(uid: u64, gid: u64, keep: u64) -> Done {
    const PR_SET_KEEPCAPS: usize = 8;
    prctl(PR_SET_KEEPCAPS, [u64::from(keep != 0), 0, 0, 0])?;
    // SAFETY: take no address.
    unsafe {
        call!(nr::SETRESGID, gid, gid, gid)?;
        call!(nr::SETRESUID, uid, uid, uid)?;
    }
    Ok(())
}

fn seccomp(program: &[u8]) -> Done {
    const PR_SET_SECCOMP: usize = 22;
    const FILTER: usize = 2;
    #[repr(C)]
    struct Program {
        length: u16,
        instructions: *const u8,
    }
    let length = u16::try_from(program.len() / 8).map_err(|_| Errno(E2BIG))?;
    let program = Program { length, instructions: program.as_ptr() };
    // SAFETY: a struct sock_fprog whose instructions, 8 bytes each, the kernel copies and checks.
    done(unsafe { call!(nr::PRCTL, PR_SET_SECCOMP, FILTER, &program) })
}

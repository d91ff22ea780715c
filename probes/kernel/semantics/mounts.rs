//! Mounts, in a mount namespace of their own that goes with the child that asks.
//!
//! Goes in: nothing. Comes out: answers. Must not know: which answers are good.

use core::ffi::CStr;

use crate::asking::*;
use crate::rt::consts::*;
use crate::rt::nr;
use crate::rt::sys::{self, path};

checks![
    Own "kernel.mount.tmpfs" => mount_tmpfs,
    Own "kernel.mount.bind" => mount_bind,
    Own "kernel.mount.proc" => mount_proc,
    Own "kernel.mount.overlay" => mount_overlay,
    Own "kernel.mount.fsopen" => mount_fsopen,
    Own "kernel.mount.setattr" => mount_setattr,
    Own "kernel.open_tree.clone" => open_tree,
    Own "kernel.pivot_root.pivot" => pivot_root,
    Batch "kernel.statmount.root" => statmount,
    Batch "kernel.listmount.root" => listmount,
];

const TMPFS: usize = 0x0102_1994;

/// A directory that every cell has, over which to mount.
fn place() -> &'static CStr {
    let is_there = |name: &&&CStr| stat(AT_FDCWD, name).is_ok_and(|s| s.mode & 0o170_000 == 0o040_000);
    [c"/tmp", c"/proc", c"/dev", c"/sys"].iter().find(is_there).unwrap_or(&c"/")
}

/// A mount namespace of our own from which nothing goes back.
fn apart() -> Does {
    must!("unshare"; nr::UNSHARE, CLONE_NEWNS);
    // MS_REC | MS_PRIVATE
    must!("make private"; nr::MOUNT, 0, path(c"/"), 0, 0x4000 | 1 << 18, 0);
    Ok(())
}

/// A small tmpfs over `place`, in whatever namespace we are.
pub fn tmpfs() -> Result<usize, i32> {
    ask!(nr::MOUNT, path(c"abicus"), path(place()), path(c"tmpfs"), 0, path(c"size=64k"))
}

fn kind_of(name: &CStr) -> Result<usize, No> {
    let mut info = [0u64; 15];
    must!("statfs"; nr::STATFS, path(name), &mut info);
    Ok(info[0] as usize)
}

fn mount_tmpfs() -> Does {
    apart()?;
    tmpfs()?;
    same("type", kind_of(place())?, TMPFS)?;
    must!("umount2"; nr::UMOUNT2, path(place()), 2);
    Ok(())
}

fn mount_bind() -> Does {
    apart()?;
    tmpfs().at("mount tmpfs")?;
    // MS_BIND of the root over it, then read-only.
    must!(nr::MOUNT, path(c"/"), path(place()), 0, 4096, 0);
    holds("the root did not appear", kind_of(place())? == kind_of(c"/")?)?;
    must!("remount read-only"; nr::MOUNT, 0, path(place()), 0, 4096 | 32 | 1, 0);
    Ok(())
}

/// proc(5) of a pid namespace of our own: the kernel wants an unmasked /proc for it in a user namespace.
fn mount_proc() -> Does {
    apart()?;
    must!("unshare pid"; nr::UNSHARE, CLONE_NEWPID);
    in_twin("mount", &mut || ask!(nr::MOUNT, path(c"proc"), path(place()), path(c"proc"), 0, 0).err().unwrap_or(0))
}

/// An overlay of two directories of a tmpfs: what is below is seen, what is written goes above.
fn mount_overlay() -> Does {
    unless_loads(listed(c"/proc/filesystems", b"overlay"), "asking would load the module overlay")?;
    apart()?;
    tmpfs().at("mount tmpfs")?;
    must!("chdir"; nr::CHDIR, path(place()));
    for name in [c"low", c"up", c"work", c"all"] {
        sys::mkdir(name, 0o700).at("mkdir")?;
    }
    Fd::at(AT_FDCWD, c"low/file", O_CREAT | O_WRONLY, 0o600).at("create below")?;
    let options = c"lowerdir=low,upperdir=up,workdir=work";
    must!(nr::MOUNT, path(c"abicus"), path(c"all"), path(c"overlay"), 0, path(options));
    let file = Fd::at(AT_FDCWD, c"all/file", O_WRONLY, 0).at("open what is below")?;
    sys::write(file.0, b"x").at("write")?;
    same("size above", stat(AT_FDCWD, c"up/file").at("stat above")?.size as usize, 1)?;
    same("size below", stat(AT_FDCWD, c"low/file").at("stat below")?.size as usize, 0)
}

/// A tmpfs by fsopen(2), fsconfig(2) and fsmount(2), attached nowhere.
fn detached() -> Result<Fd, No> {
    let context = Fd(must!("fsopen"; nr::FSOPEN, path(c"tmpfs"), 1) as i32);
    // FSCONFIG_SET_STRING, FSCONFIG_CMD_CREATE
    must!("fsconfig"; nr::FSCONFIG, context.0, 1, path(c"size"), path(c"64k"), 0);
    must!("fsconfig create"; nr::FSCONFIG, context.0, 6, 0, 0, 0);
    Ok(Fd(must!("fsmount"; nr::FSMOUNT, context.0, 1, 0) as i32))
}

fn mount_fsopen() -> Does {
    let mount = detached()?;
    Fd::at(mount.0, c"file", O_CREAT | O_WRONLY, 0o600).at("create in it")?;
    apart()?;
    // MOVE_MOUNT_F_EMPTY_PATH
    must!("move_mount"; nr::MOVE_MOUNT, mount.0, path(c""), AT_FDCWD, path(place()), 4);
    same("type", kind_of(place())?, TMPFS)
}

fn mount_setattr() -> Does {
    let mount = detached()?;
    // struct mount_attr: set MOUNT_ATTR_RDONLY
    must!(nr::MOUNT_SETATTR, mount.0, path(c""), AT_EMPTY_PATH, &[1u64, 0, 0, 0], 32);
    refused("create in it", Fd::at(mount.0, c"file", O_CREAT | O_WRONLY, 0o600), EROFS)
}

/// OPEN_TREE_CLONE of the root.
fn open_tree() -> Does {
    let tree = Fd(must!(nr::OPEN_TREE, AT_FDCWD, path(c"/"), 1 | O_CLOEXEC) as i32);
    holds("another root", stat(tree.0, c"").at("fstat")?.ino == stat(AT_FDCWD, c"/").at("stat")?.ino)
}

/// Into a tmpfs, the old root on top of the new one and then away, as runtimes do it.
fn pivot_root() -> Does {
    apart()?;
    tmpfs().at("mount tmpfs")?;
    must!("chdir"; nr::CHDIR, path(place()));
    must!(nr::PIVOT_ROOT, path(c"."), path(c"."));
    must!("umount2"; nr::UMOUNT2, path(c"."), 2);
    same("type of the root", kind_of(c"/")?, TMPFS)
}

/// STATMOUNT_MNT_BASIC of the root, by the unique number that statx(2) tells.
fn statmount() -> Does {
    let mut info = [0u64; 32];
    // STATX_MNT_ID_UNIQUE; stx_mnt_id
    must!("statx"; nr::STATX, AT_FDCWD, path(c"/"), 0, 0x4000, &mut info);
    let (request, mut room) = ([24, info[18], 2], [0u64; 64]);
    must!(nr::STATMOUNT, &request, &mut room, 512, 0);
    holds("another mount", room[5] == info[18])
}

/// LSMT_ROOT
fn listmount() -> Does {
    let (request, mut room) = ([24u64, u64::MAX, 0], [0u64; 64]);
    holds("no mount at all", must!(nr::LISTMOUNT, &request, &mut room, 64, 0) > 0)
}

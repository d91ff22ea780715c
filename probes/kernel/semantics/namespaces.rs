//! Namespaces: which can be made, with privilege and without, and which can be entered.
//!
//! Goes in: nothing. Comes out: answers. Must not know: which answers are good. Each is made by a child of its own and goes
//! with it.

use crate::asking::*;
use crate::rt::consts::*;
use crate::rt::nr;
use crate::rt::sys;

checks![
    Own "kernel.unshare.nothing" => nothing,
    Own "kernel.unshare.mount" => || made(0),
    Own "kernel.unshare.uts" => || made(1),
    Own "kernel.unshare.ipc" => || made(2),
    Own "kernel.unshare.net" => || made(3),
    Own "kernel.unshare.pid" => || made(4),
    Own "kernel.unshare.cgroup" => || made(5),
    Own "kernel.unshare.time" => || made(6),
    Own "kernel.unshare.user" => || made(7),
    Own "kernel.unshare.mount.uncapable" => || uncapable(0),
    Own "kernel.unshare.uts.uncapable" => || uncapable(1),
    Own "kernel.unshare.ipc.uncapable" => || uncapable(2),
    Own "kernel.unshare.net.uncapable" => || uncapable(3),
    Own "kernel.unshare.pid.uncapable" => || uncapable(4),
    Own "kernel.unshare.cgroup.uncapable" => || uncapable(5),
    Own "kernel.unshare.time.uncapable" => || uncapable(6),
    Own "kernel.unshare.user.uncapable" => || uncapable(7),
    Own "kernel.unshare.all_in_user" => all_in_user,
    Own "kernel.setns.mount" => || entered(0),
    Own "kernel.setns.uts" => || entered(1),
    Own "kernel.setns.ipc" => || entered(2),
    Own "kernel.setns.net" => || entered(3),
    Own "kernel.setns.pid" => || entered(4),
    Own "kernel.setns.cgroup" => || entered(5),
    Own "kernel.setns.user" => || entered(7),
    Own "kernel.setns.pidfd" => entered_by_pidfd,
    Own "kernel.clone.namespaces" => cloned,
];

/// The flag, and the link in /proc/self/ns that shows it.
static KINDS: [(usize, &core::ffi::CStr); 8] = [
    (CLONE_NEWNS, c"/proc/self/ns/mnt"),
    (CLONE_NEWUTS, c"/proc/self/ns/uts"),
    (CLONE_NEWIPC, c"/proc/self/ns/ipc"),
    (CLONE_NEWNET, c"/proc/self/ns/net"),
    (CLONE_NEWPID, c"/proc/self/ns/pid_for_children"),
    (CLONE_NEWCGROUP, c"/proc/self/ns/cgroup"),
    (CLONE_NEWTIME, c"/proc/self/ns/time_for_children"),
    (CLONE_NEWUSER, c"/proc/self/ns/user"),
];

/// What the link says, or nothing. A pid namespace without a process in it has no link to show.
fn link(name: &core::ffi::CStr) -> [u8; 40] {
    let mut room = [0u8; 40];
    let _ = ask!(nr::READLINKAT, AT_FDCWD, sys::path(name), &mut room, room.len());
    room
}

/// 0 is no flag at all: whoever refuses that refuses the call, not the namespace.
fn nothing() -> Does {
    must!(nr::UNSHARE, 0);
    Ok(())
}

fn made(kind: usize) -> Does {
    let (flag, name) = KINDS[kind];
    let before = link(name);
    must!(nr::UNSHARE, flag);
    holds("still in the same one", before[0] == 0 || link(name) != before)
}

/// Without any capability: the kernel refuses all but the user namespace.
fn uncapable(kind: usize) -> Does {
    drop_capabilities().at("capset")?;
    must!(nr::UNSHARE, KINDS[kind].0);
    Ok(())
}

/// As bubblewrap, Chrome's sandbox and rootless engines start: a user namespace without capability, ids mapped, then all
/// others within it, and a mount.
fn all_in_user() -> Does {
    // Who maps uid 0 of the outside needs a capability since 5.12, so root becomes nobody, and dumpable again.
    let _ = ask!(nr::SETRESUID, 65534, 65534, 65534);
    let _ = ask!(nr::PRCTL, PR_SET_DUMPABLE, 1);
    let uid = must!(nr::GETUID);
    drop_capabilities().at("capset")?;
    must!("unshare user"; nr::UNSHARE, CLONE_NEWUSER);
    let map = crate::rt::text::Text::<32>::format(format_args!("0 {uid} 1"));
    let file = Fd::at(AT_FDCWD, c"/proc/self/uid_map", O_WRONLY, 0).at("open uid_map")?;
    sys::write(file.0, map.bytes()).at("write uid_map")?;
    same("uid", must!(nr::GETUID), 0)?;
    let rest = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS;
    must!("unshare the rest"; nr::UNSHARE, rest);
    super::mounts::tmpfs().at("mount")?;
    Ok(())
}

/// Leaves by unshare(2) and comes back by setns(2). A user namespace has no way back: another's is entered.
fn entered(kind: usize) -> Does {
    let (flag, name) = KINDS[kind];
    let name = if flag == CLONE_NEWPID { c"/proc/self/ns/pid" } else { name };
    let mut home = Fd::at(AT_FDCWD, name, O_RDONLY, 0).at("open in /proc/self/ns")?;
    let mut other = None;
    if flag == CLONE_NEWUSER {
        let (from, to) = pipe()?;
        let child = Twin::start(&mut || {
            let done = ask!(nr::UNSHARE, CLONE_NEWUSER);
            let _ = sys::write(to.0, &[done.err().unwrap_or(0) as u8]);
            linger()
        })?;
        let mut said = [0];
        sys::read(from.0, &mut said).at("read")?;
        if said[0] != 0 {
            return Err(not_asked("no user namespace can be made"));
        }
        let path = crate::rt::text::Text::<32>::format(format_args!("/proc/{}/ns/user\0", child.0));
        let there = ask!(nr::OPENAT, AT_FDCWD, path.bytes().as_ptr(), O_RDONLY | O_CLOEXEC, 0);
        home = Fd::of(there).at("open in /proc/PID/ns")?;
        other = Some(child);
    } else if flag != CLONE_NEWPID && ask!(nr::UNSHARE, flag).is_err() {
        return Err(not_asked("no such namespace can be made"));
    }
    let before = link(name);
    must!(nr::SETNS, home.0, flag);
    drop(other);
    holds("still in the same one", flag == CLONE_NEWPID || before[0] == 0 || link(name) != before)
}

/// setns(2) with a pidfd: the parent's UTS namespace.
fn entered_by_pidfd() -> Does {
    let parent = must!(nr::GETPPID);
    let parent = Fd(must!("pidfd_open"; nr::PIDFD_OPEN, parent, 0) as i32);
    if ask!(nr::UNSHARE, CLONE_NEWUTS).is_err() {
        return Err(not_asked("no UTS namespace can be made"));
    }
    let before = link(KINDS[1].1);
    must!(nr::SETNS, parent.0, CLONE_NEWUTS);
    holds("still in the same one", before[0] == 0 || link(KINDS[1].1) != before)
}

/// clone(2) of a first process in pid, mount and IPC namespaces: it has number 1.
fn cloned() -> Does {
    match must!(nr::CLONE, CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWIPC | SIGCHLD as usize) {
        0 => sys::exit(i32::from(sys::getpid() != 1)),
        pid => same("status of a child that is not process 1", Twin(pid as i32).wait()? as usize, 0),
    }
}

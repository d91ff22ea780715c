//! Child processes: by fork and exec, by posix_spawn, through the shell.
//!
//! Goes in: the loader and this probe, which is what is executed (so that an image without a shell can be asked), and
//! the image's shell where there is one. Comes out: whether the child ran and its status came back.

use core::ffi::{CStr, c_char, c_int};

use crate::api::{Any, Opaque};
use crate::cell::Cell;
use crate::rt::consts::*;
use crate::rt::{process, sys};
use crate::saw::{Saw, Seen, expect};
use crate::thread::any;
use crate::{Check, not_asked, value};

pub const CHECKS: &[Check] = &[
    Check::new("libc.process.fork", fork),
    Check::new("libc.process.exec", exec),
    Check::new("libc.process.posix-spawn", spawn),
    Check::new("libc.process.posix-spawn.absent", spawn_absent),
    Check::new("libc.process.posix-spawn.actions", spawn_actions),
    Check::new("libc.process.posix-spawnp", spawn_path),
    Check::new("libc.process.pidfd-spawn", spawn_pidfd),
    Check::new("libc.process.system", system),
    Check::new("libc.process.popen", popen),
    Check::new("libc.process.abort", abort),
    Check::new("libc.process.many", many),
];

const NULL: Any = core::ptr::null_mut();
const SHELL: &CStr = c"/bin/sh";

/// `LOADER libc --exit 7`.
fn again(cell: &Cell) -> [*const c_char; 5] {
    [cell.loader.as_ptr(), cell.program.as_ptr(), c"--exit".as_ptr(), c"7".as_ptr(), core::ptr::null()]
}

/// Waits for a child and compares its exit status.
fn expect_exit(cell: &Cell, pid: c_int, expected: i32) -> Result<(), Saw> {
    let mut status = 0;
    // SAFETY: room for the status.
    unsafe { cell.check(cell.waitpid(pid, &mut status, 0), "waitpid")? };
    expect_status(status, expected)
}

fn expect_status(status: c_int, expected: i32) -> Result<(), Saw> {
    match (status & 0x7f, status >> 8 & 0xff) {
        (0, exit) if exit == expected => Ok(()),
        (0, exit) => Err(value!("exit status {exit}")),
        (signal, _) => Err(value!("killed by signal {signal}")),
    }
}

pub fn shell() -> Result<(), Saw> {
    match sys::open(SHELL, O_PATH, 0) {
        Ok(fd) => {
            let _ = sys::close(fd);
            Ok(())
        }
        Err(ENOENT) => Err(not_asked!("no /bin/sh in the image")),
        Err(errno) => Err(Saw::Errno(errno, "open /bin/sh")),
    }
}

fn fork(cell: &Cell, _: usize) -> Seen {
    // SAFETY: the child only exits; both functions take no address.
    unsafe {
        let pid = cell.check(cell.fork(), "fork")?;
        if pid == 0 {
            // A libc that remembers its process id must not remember the parent's.
            let same = cell.getpid() == sys::getpid();
            cell._exit(if same { 33 } else { 34 });
            sys::exit(35);
        }
        expect_exit(cell, pid, 33)?;
    }
    Ok(Saw::Ok)
}

fn exec(cell: &Cell, _: usize) -> Seen {
    let arguments = again(cell);
    // SAFETY: arrays that end in null.
    unsafe {
        let pid = cell.check(cell.fork(), "fork")?;
        if pid == 0 {
            let _ = cell.execve(cell.loader.as_ptr(), arguments.as_ptr(), process::env().pointer());
            sys::exit(99);
        }
        expect_exit(cell, pid, 7)?;
    }
    Ok(Saw::Ok)
}

fn spawn(cell: &Cell, _: usize) -> Seen {
    let mut pid = 0;
    // SAFETY: arrays that end in null.
    let errno = unsafe {
        cell.posix_spawn(&mut pid, cell.loader.as_ptr(), NULL, NULL, again(cell).as_ptr(), process::env().pointer())
    };
    crate::api::zero(errno, "posix_spawn")?;
    expect_exit(cell, pid, 7)?;
    Ok(Saw::Ok)
}

/// A program that is not there must be reported to the caller and not only by the child's status.
fn spawn_absent(cell: &Cell, _: usize) -> Seen {
    let mut pid = 0;
    let path = c"/abicus/no such program";
    // SAFETY: arrays that end in null.
    let errno = unsafe {
        cell.posix_spawn(&mut pid, path.as_ptr(), NULL, NULL, again(cell).as_ptr(), process::env().pointer())
    };
    match errno {
        ENOENT => Ok(Saw::Ok),
        0 => Err(value!("no error for a program that is not there")),
        errno => Err(Saw::Errno(errno, "posix_spawn")),
    }
}

fn spawn_actions(cell: &Cell, _: usize) -> Seen {
    let mut actions: Opaque<64> = [0; 64];
    let mut pid = 0;
    // SAFETY: room for file actions, initialised before use; arrays that end in null.
    unsafe {
        let actions = any(&mut actions);
        crate::api::zero(cell.posix_spawn_file_actions_init(actions), "posix_spawn_file_actions_init")?;
        let opened = cell.posix_spawn_file_actions_addopen(actions, 5, cell.program.as_ptr(), O_RDONLY, 0);
        crate::api::zero(opened, "posix_spawn_file_actions_addopen")?;
        let moved = cell.posix_spawn_file_actions_adddup2(actions, 5, 0);
        crate::api::zero(moved, "posix_spawn_file_actions_adddup2")?;
        let arguments = again(cell);
        let environment = process::env().pointer();
        let errno = cell.posix_spawn(&mut pid, cell.loader.as_ptr(), actions, NULL, arguments.as_ptr(), environment);
        crate::api::zero(errno, "posix_spawn")?;
        expect_exit(cell, pid, 7)?;
        cell.posix_spawn_file_actions_destroy(actions);
    }
    Ok(Saw::Ok)
}

fn spawn_path(cell: &Cell, _: usize) -> Seen {
    shell()?;
    let arguments = [c"sh".as_ptr(), c"-c".as_ptr(), c"exit 9".as_ptr(), core::ptr::null()];
    let mut pid = 0;
    // SAFETY: arrays that end in null.
    let errno = unsafe {
        cell.posix_spawnp(&mut pid, c"sh".as_ptr(), NULL, NULL, arguments.as_ptr(), process::env().pointer())
    };
    crate::api::zero(errno, "posix_spawnp")?;
    expect_exit(cell, pid, 9)?;
    Ok(Saw::Ok)
}

fn spawn_pidfd(cell: &Cell, _: usize) -> Seen {
    let mut pidfd = -1;
    // SAFETY: arrays that end in null.
    let errno = unsafe {
        cell.pidfd_spawn(&mut pidfd, cell.loader.as_ptr(), NULL, NULL, again(cell).as_ptr(), process::env().pointer())
    };
    crate::api::zero(errno, "pidfd_spawn")?;
    let mut status = 0;
    // SAFETY: the only child there is.
    unsafe { cell.check(cell.waitpid(-1, &mut status, 0), "waitpid")? };
    expect_status(status, 7)?;
    Ok(Saw::Ok)
}

fn system(cell: &Cell, _: usize) -> Seen {
    shell()?;
    // SAFETY: a constant text.
    let status = unsafe { cell.check(cell.system(c"exit 7".as_ptr()), "system")? };
    expect_status(status, 7)?;
    Ok(Saw::Ok)
}

fn popen(cell: &Cell, _: usize) -> Seen {
    shell()?;
    let mut room: [c_char; 64] = [0; 64];
    // SAFETY: constant texts, room for a line.
    unsafe {
        let stream = cell.some(cell.popen(c"echo abicus".as_ptr(), c"r".as_ptr()), "popen")?;
        let line = cell.fgets(room.as_mut_ptr(), room.len() as c_int, stream);
        let status = cell.check(cell.pclose(stream), "pclose")?;
        expect_status(status, 0)?;
        expect(!line.is_null() && CStr::from_ptr(line) == c"abicus\n", b"the shell's output did not arrive")?;
    }
    Ok(Saw::Ok)
}

fn abort(cell: &Cell, _: usize) -> Seen {
    // SAFETY: the child ends in abort.
    unsafe {
        let pid = cell.check(cell.fork(), "fork")?;
        if pid == 0 {
            cell.abort();
            sys::exit(0);
        }
        let mut status = 0;
        cell.check(cell.waitpid(pid, &mut status, 0), "waitpid")?;
        match status & 0x7f {
            SIGABRT => Ok(Saw::Ok),
            0 => Err(value!("exit status {}", status >> 8 & 0xff)),
            signal => Err(value!("killed by signal {signal}")),
        }
    }
}

/// As many children at once as a parallel build has.
fn many(cell: &Cell, _: usize) -> Seen {
    const MANY: usize = 32;
    let mut pids = [0; MANY];
    let mut failed = None;
    for (at, slot) in pids.iter_mut().enumerate() {
        // SAFETY: the child only sleeps until it is killed.
        unsafe {
            match cell.fork() {
                -1 => {
                    failed = Some(value!("errno {} after {at} children", cell.errno()));
                    break;
                }
                0 => {
                    sys::sleep_ms(10_000);
                    sys::exit(0);
                }
                pid => *slot = pid,
            }
        }
    }
    for pid in pids.into_iter().filter(|pid| *pid > 0) {
        let _ = sys::kill(pid, SIGKILL);
        let _ = sys::wait(pid, 0);
    }
    failed.map_or(Ok(Saw::Ok), Err)
}

//! Answers to questions about files.
//!
//! Goes in: a path. Comes out: `REPLY` frames and an errno, 0 where all went well. Must not know: who asks.

use core::ffi::CStr;

use super::frame::{MAX_FRAME, kind};
use super::wire::Output;
use crate::rt::consts::*;
use crate::rt::nr;
use crate::rt::sys::{self, Answer, call, path};

/// The fields of struct stat that are needed.
#[derive(Clone, Copy)]
pub struct Stat {
    pub filesystem: u64,
    pub mode: u32,
    pub device: u64,
}

impl Stat {
    pub fn is_dir(self) -> bool {
        self.mode & 0o170_000 == 0o040_000
    }

    fn bytes(self) -> [u8; 12] {
        let mut bytes = [0; 12];
        bytes[..4].copy_from_slice(&self.mode.to_le_bytes());
        bytes[4..].copy_from_slice(&self.device.to_le_bytes());
        bytes
    }
}

/// newfstatat(2) relative to a directory.
pub fn stat(dir: i32, name: &CStr, flags: i32) -> Answer<Stat> {
    let mut s = [0u64; 18];
    // SAFETY: a struct stat has 18 words.
    unsafe { call!(nr::NEWFSTATAT, dir, path(name), &mut s, flags) }?;
    Ok(if cfg!(target_arch = "x86_64") {
        Stat { filesystem: s[0], mode: s[3] as u32, device: s[5] }
    } else {
        Stat { filesystem: s[0], mode: s[2] as u32, device: s[4] }
    })
}

pub fn read(output: &mut Output, channel: u32, name: &CStr, most: usize) -> Answer<()> {
    let fd = sys::open(name, O_RDONLY | O_NONBLOCK | O_NOCTTY, 0)?;
    let mut rest = most;
    let mut failed = Ok(());
    while rest > 0 && !output.broken {
        let piece = rest.min(MAX_FRAME);
        match sys::read(fd, &mut output.payload()[..piece]) {
            Ok(0) => break,
            Ok(n) => {
                output.send(channel, kind::REPLY, n);
                rest -= n;
            }
            Err(EINTR) => {}
            Err(errno) => {
                failed = Err(errno);
                break;
            }
        }
    }
    let _ = sys::close(fd);
    failed
}

pub fn about(output: &mut Output, channel: u32, name: &CStr) -> Answer<()> {
    let stat = stat(AT_FDCWD, name, 0)?;
    output.say(channel, kind::REPLY, &stat.bytes());
    Ok(())
}

/// More names than any directory that is asked about has.
const MOST_NAMES: usize = 4096;

pub fn list(output: &mut Output, channel: u32, name: &CStr) -> Answer<()> {
    let fd = sys::open(name, O_RDONLY | O_DIRECTORY, 0)?;
    let mut told = 0;
    let listed = each(fd, &mut |name| {
        let Ok(stat) = stat(fd, name, AT_SYMLINK_NOFOLLOW) else { return true };
        let bytes = name.to_bytes();
        let room = output.payload();
        room[..12].copy_from_slice(&stat.bytes());
        room[12..14].copy_from_slice(&(bytes.len() as u16).to_le_bytes());
        room[14..14 + bytes.len()].copy_from_slice(bytes);
        output.send(channel, kind::REPLY, 14 + bytes.len());
        told += 1;
        told < MOST_NAMES && !output.broken
    });
    let _ = sys::close(fd);
    listed
}

/// Calls `f` for each name but `.` and `..` until it says false.
pub fn each(dir: i32, f: &mut dyn FnMut(&CStr) -> bool) -> Answer<()> {
    const NAME: usize = 19;
    let mut room = [0u64; 512];
    loop {
        // SAFETY: the buffer is `room`.
        let n = unsafe { call!(nr::GETDENTS64, dir, room.as_mut_ptr(), size_of_val(&room)) }?;
        if n == 0 {
            return Ok(());
        }
        // SAFETY: `room` has at least `n` bytes, which the kernel wrote.
        let mut rest = unsafe { core::slice::from_raw_parts(room.as_ptr().cast::<u8>(), n) };
        while rest.len() > NAME {
            let length = usize::from(u16::from_le_bytes([rest[16], rest[17]])).clamp(NAME + 1, rest.len());
            let name = CStr::from_bytes_until_nul(&rest[NAME..length]).map_err(|_| EIO)?;
            if !matches!(name.to_bytes(), b"." | b"..") && !f(name) {
                return Ok(());
            }
            rest = &rest[length..];
        }
    }
}

//! A stream: a launcher with its socket and two pipes, or a socket somebody else listens on.
//!
//! Goes in: what came for the channel, and which descriptors are ready. Comes out: frames. No more is read than the driver
//! gave credit for, and no more taken from it than was given.

use core::ffi::CStr;

use super::frame::{MAX_FRAME, WINDOW, kind};
use super::put::Put;
use super::wire::Output;
use crate::rt::consts::*;
use crate::rt::nr;
use crate::rt::sys::{self, Answer, call, path};

#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    Free = 0,
    Stream = 1,
    Put = 2,
}

/// All zeroes are a free one: no descriptor of a channel is 0.
pub struct Channel {
    pub id: u32,
    pub kind: Kind,
    /// Of the launcher, while it lives.
    pub pid: i32,
    /// Of `TOLD`, `OUT`, `ERR`.
    fds: [i32; 3],
    credit: [u32; 3],
    /// The socket has said everything, and is kept for what is still to be written to it.
    told: bool,
    /// No more `DATA` will come.
    closing: bool,
    /// Nobody reads what is written to the socket.
    deaf: bool,
    ring: Ring,
    pub put: Put,
}

/// Bytes on their way to the socket.
struct Ring {
    room: *mut u8,
    start: usize,
    length: usize,
}

impl Ring {
    fn room(&mut self) -> Option<&mut [u8]> {
        if self.room.is_null() {
            self.room = sys::map(WINDOW, PROT_READ | PROT_WRITE, MAP_PRIVATE).ok()?;
        }
        // SAFETY: WINDOW bytes that were mapped for this ring alone and are never unmapped.
        Some(unsafe { core::slice::from_raw_parts_mut(self.room, WINDOW) })
    }

    /// False: more than fits, which is more than there was credit for.
    fn add(&mut self, bytes: &[u8]) -> bool {
        let (start, length) = (self.start, self.length);
        let Some(room) = self.room().filter(|_| length + bytes.len() <= WINDOW) else { return false };
        for (at, byte) in bytes.iter().enumerate() {
            room[(start + length + at) % WINDOW] = *byte;
        }
        self.length += bytes.len();
        true
    }
}

const STREAM_SOCKETS: usize = 1;
const AF_UNIX: usize = 1;
const MSG: usize = 0x40 | 0x4000; // MSG_DONTWAIT | MSG_NOSIGNAL

impl Channel {
    /// A stream on these descriptors, 0 where there is none.
    pub fn open(&mut self, id: u32, fds: [i32; 3], pid: i32) {
        (self.id, self.kind, self.pid, self.fds) = (id, Kind::Stream, pid, fds);
        self.credit = [WINDOW as u32; 3];
        (self.told, self.closing, self.deaf) = (false, false, false);
        (self.ring.start, self.ring.length) = (0, 0);
    }

    /// What to wait for on the descriptor of `TOLD + which`: whether it may be read, whether there is something to write.
    pub fn wants(&self, which: usize) -> Option<(i32, bool, bool)> {
        let fd = self.fds[which];
        let read = self.credit[which] > 0 && !(which == 0 && self.told);
        let write = which == 0 && self.ring.length > 0 && !self.deaf;
        (self.kind == Kind::Stream && fd > 0 && (read || write)).then_some((fd, read, write))
    }

    /// Reads once and says it.
    pub fn read(&mut self, which: usize, output: &mut Output) {
        let what = kind::TOLD + which as u8;
        let most = (self.credit[which] as usize).min(MAX_FRAME);
        match sys::read(self.fds[which], &mut output.payload()[..most]) {
            Ok(n) if n > 0 => {
                self.credit[which] -= n as u32;
                output.send(self.id, what, n);
            }
            Err(EINTR | EAGAIN) => {}
            _ => {
                output.send(self.id, what, 0);
                if which == 0 {
                    self.told = true;
                } else {
                    let _ = sys::close(core::mem::take(&mut self.fds[which]));
                }
            }
        }
    }

    /// False: the driver sent more than it had credit for.
    pub fn data(&mut self, bytes: &[u8], output: &mut Output) -> bool {
        if self.closing {
            return true;
        }
        let fits = self.ring.add(bytes);
        self.write(output);
        fits
    }

    /// Writes what the socket takes, and gives credit for it.
    pub fn write(&mut self, output: &mut Output) {
        let mut taken = 0;
        while self.ring.length > 0 {
            let (fd, start) = (self.fds[0], self.ring.start);
            let end = WINDOW.min(start + self.ring.length);
            let Some(room) = self.ring.room() else { break };
            let piece = &room[start..end];
            // SAFETY: the buffer is `piece`; no address.
            let sent = match unsafe { call!(nr::SENDTO, fd, piece.as_ptr(), piece.len(), MSG, 0, 0) } {
                Ok(n) if n > 0 => n,
                Err(EINTR) => continue,
                Err(EAGAIN) => break,
                // Nobody reads it: it is dropped, and what the other side said still arrives.
                _ => {
                    self.deaf = true;
                    piece.len()
                }
            };
            self.ring.start = (start + sent) % WINDOW;
            self.ring.length -= sent;
            taken += sent;
        }
        if taken > 0 {
            give(output, self.id, kind::DATA, taken as u32);
        }
        if self.closing && self.ring.length == 0 {
            self.shut();
        }
    }

    pub fn close(&mut self) {
        self.closing = true;
        if self.ring.length == 0 {
            self.shut();
        }
    }

    fn shut(&self) {
        const SHUT_WR: usize = 1;
        // SAFETY: takes no address.
        let _ = unsafe { call!(nr::SHUTDOWN, self.fds[0], SHUT_WR) };
    }

    pub fn credit(&mut self, what: u8, more: u32) {
        if let Some(credit) = self.credit.get_mut(usize::from(what.wrapping_sub(kind::TOLD))) {
            *credit = credit.saturating_add(more).min(WINDOW as u32);
        }
    }

    pub fn kill(&self) {
        if self.pid > 0 {
            let _ = sys::kill(self.pid, SIGKILL);
        }
    }

    /// Lets go of everything. A launcher notices, and kills what it started.
    pub fn free(&mut self) {
        for fd in &mut self.fds {
            if *fd > 0 {
                let _ = sys::close(core::mem::take(fd));
            }
        }
        self.put.forget();
        (self.kind, self.id) = (Kind::Free, 0);
    }
}

pub fn give(output: &mut Output, id: u32, what: u8, more: u32) {
    let mut payload = [what, 0, 0, 0, 0];
    payload[1..].copy_from_slice(&more.to_le_bytes());
    output.say(id, kind::CREDIT, &payload);
}

/// A launcher on a socket and two pipes: our ends of these, and its pid.
pub fn launch() -> Answer<([i32; 3], i32)> {
    let mut socket = [0i32; 2];
    // SAFETY: room for two descriptors.
    unsafe { call!(nr::SOCKETPAIR, AF_UNIX, STREAM_SOCKETS | O_CLOEXEC as usize, 0, &mut socket) }?;
    let pipes = sys::pipe().and_then(|out| match sys::pipe() {
        Ok(err) => Ok((out, err)),
        Err(errno) => {
            close_all(&out);
            Err(errno)
        }
    });
    let (out, err) = pipes.inspect_err(|_| close_all(&socket))?;
    // SAFETY: no new stack, so both return here, each with memory of its own.
    let pid = match unsafe { call!(nr::CLONE, SIGCHLD) } {
        Ok(0) => become_launcher([socket[1], out[1], err[1]]),
        Ok(pid) => pid as i32,
        Err(errno) => {
            close_all(&[socket[0], socket[1], out[0], out[1], err[0], err[1]]);
            return Err(errno);
        }
    };
    close_all(&[socket[1], out[1], err[1]]);
    Ok(([socket[0], out[0], err[0]], pid))
}

fn become_launcher(fds: [i32; 3]) -> ! {
    for (to, fd) in fds.into_iter().enumerate() {
        // SAFETY: takes no address. The agent's own descriptors below 3 are not needed here.
        let _ = unsafe { call!(nr::DUP3, fd, to, 0) };
    }
    // SAFETY: takes no address. A signal to the agent's group is not meant for its cells.
    let _ = unsafe { call!(nr::SETPGID, 0, 0) };
    sys::exit(crate::launch(crate::From::Descriptor(0), 0, Some(0)))
}

fn close_all(fds: &[i32]) {
    for fd in fds {
        let _ = sys::close(*fd);
    }
}

/// Connects to a socket in the file system.
pub fn connect(name: &CStr) -> Answer<i32> {
    #[repr(C)]
    struct Address {
        family: u16,
        path: [u8; 108],
    }
    let mut address = Address { family: AF_UNIX as u16, path: [0; 108] };
    let bytes = name.to_bytes();
    address.path[..107].get_mut(..bytes.len()).ok_or(ENAMETOOLONG)?.copy_from_slice(bytes);
    // SAFETY: takes no address.
    let fd = unsafe { call!(nr::SOCKET, AF_UNIX, STREAM_SOCKETS | O_CLOEXEC as usize, 0) }?;
    // SAFETY: a struct sockaddr_un of that size. A listener whose queue is full makes everyone wait, but not for long.
    match unsafe { call!(nr::CONNECT, fd, &address, size_of::<Address>()) } {
        Ok(_) => Ok(fd as i32),
        Err(errno) => {
            let _ = sys::close(fd as i32);
            Err(errno)
        }
    }
}

/// The path of a frame as a C string in `room`.
pub fn text<'a>(bytes: &[u8], room: &'a mut [u8; 4096]) -> Answer<&'a CStr> {
    room.get_mut(..bytes.len() + 1).ok_or(ENAMETOOLONG)?[..bytes.len()].copy_from_slice(bytes);
    room[bytes.len()] = 0;
    CStr::from_bytes_with_nul(&room[..=bytes.len()]).map_err(|_| EINVAL)
}

/// Whether something is at a path, as `access(2)`.
pub fn there(name: &CStr) -> bool {
    // SAFETY: a C string that outlives the call. F_OK is 0.
    unsafe { call!(nr::FACCESSAT, AT_FDCWD, path(name), 0) }.is_ok()
}

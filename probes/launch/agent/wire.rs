//! The two ends of the stream.
//!
//! Goes in: bytes, payloads. Comes out: whole frames, one at a time; frames written. Must not know: what they mean.

use super::frame::{HEADER, Head, MAX_FRAME};
use crate::rt::consts::{EAGAIN, EINTR};
use crate::rt::sys;

pub struct Input {
    pub fd: i32,
    have: usize,
    room: [u8; HEADER + MAX_FRAME],
}

/// What the stream has for us.
pub enum Next<'a> {
    Frame(Head, &'a [u8]),
    More,
    /// Longer than any frame: whoever is there does not speak our language.
    Nonsense,
}

impl Input {
    /// One read, which waits where there is nothing; false at the end.
    pub fn fill(&mut self) -> bool {
        match sys::read(self.fd, &mut self.room[self.have..]) {
            Ok(n) if n > 0 => {
                self.have += n;
                true
            }
            Err(EINTR | EAGAIN) => true,
            _ => false,
        }
    }

    pub fn next(&self) -> Next<'_> {
        let Some(head) = Head::read(&self.room[..self.have]) else { return Next::More };
        if head.length > MAX_FRAME {
            return Next::Nonsense;
        }
        match self.room[..self.have].get(HEADER..HEADER + head.length) {
            Some(payload) => Next::Frame(head, payload),
            None => Next::More,
        }
    }

    /// Forgets the frame that `next` showed.
    pub fn take(&mut self, head: Head) {
        let end = HEADER + head.length;
        self.room.copy_within(end..self.have, 0);
        self.have -= end;
    }
}

pub struct Output {
    pub fd: i32,
    /// A write failed: nobody listens any more.
    pub broken: bool,
    room: [u8; HEADER + MAX_FRAME],
}

impl Output {
    /// Where the payload of the next frame may be written; [`Output::send`] sends so much of it.
    pub fn payload(&mut self) -> &mut [u8] {
        &mut self.room[HEADER..]
    }

    /// Waits until it is written: whoever reads at the other end never stops reading.
    pub fn send(&mut self, channel: u32, kind: u8, length: usize) {
        let length = length.min(MAX_FRAME);
        self.room[..HEADER].copy_from_slice(&Head { channel, kind, length }.bytes());
        let mut rest = &self.room[..HEADER + length];
        while !rest.is_empty() && !self.broken {
            match sys::write(self.fd, rest) {
                Ok(n) if n > 0 => rest = &rest[n.min(rest.len())..],
                Err(EINTR) => {}
                Err(EAGAIN) => sys::sleep_ms(1),
                _ => self.broken = true,
            }
        }
    }

    pub fn say(&mut self, channel: u32, kind: u8, bytes: &[u8]) {
        let length = bytes.len().min(MAX_FRAME);
        self.payload()[..length].copy_from_slice(&bytes[..length]);
        self.send(channel, kind, length);
    }
}

//! Lines of the status pipe.
//!
//! Goes in: format arguments. Comes out: one write. A driver that went away is noticed by the lifeline, not here.

use core::fmt::Arguments;

use crate::rt::consts::{EAGAIN, EINTR};
use crate::rt::sys;
use crate::rt::text::Text;

pub fn line(fd: i32, arguments: Arguments) {
    bytes(fd, Text::<128>::format(arguments).bytes());
}

pub fn bytes(fd: i32, mut rest: &[u8]) {
    while !rest.is_empty() {
        match sys::write(fd, rest) {
            Ok(n) if n > 0 => rest = &rest[n.min(rest.len())..],
            Err(EINTR) => {}
            Err(EAGAIN) => sys::sleep_ms(1),
            _ => return,
        }
    }
}

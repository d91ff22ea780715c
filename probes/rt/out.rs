//! Writes lines of the protocol to standard output, one write each.
//!
//! Must not know: what the lines mean.

use super::consts::{EAGAIN, EINTR};
use super::line::Line;
use super::sys;

/// Writes the line. A reader that went away is no reason to stop: the next write says so again, and the exit status too.
pub fn send(line: &mut Line) -> bool {
    let bytes = line.finish();
    let mut rest = bytes;
    while !rest.is_empty() {
        match sys::write(1, rest) {
            Ok(n) if n > 0 => rest = &rest[n.min(rest.len())..],
            Err(EINTR) => {}
            Err(EAGAIN) => sys::sleep_ms(1),
            _ => return false,
        }
    }
    true
}

//! What a guest's kernel writes to its console: kept within bounds, and read for what it says of the guest's end.
//!
//! In: bytes as they come, hostile as everything a guest writes. Out: the first and the last of them, the panic if there
//! was one, the last lines for people. Pure.

/// Bytes kept from the beginning of a boot, which names hardware and command line.
const HEAD: usize = 128 * 1024;
/// Bytes kept from the end, which names the reason.
const TAIL: usize = 128 * 1024;
/// What the kernel says when it stops; panic(9) has no other words.
const PANIC: &str = "Kernel panic - not syncing: ";
/// Lines of a tail that a person is shown.
const SHOWN: usize = 6;

/// The console of one guest.
#[derive(Debug, Default)]
pub struct Console {
    head: Vec<u8>,
    tail: Vec<u8>,
    dropped: u64,
    panic: Option<String>,
    line: Vec<u8>,
}

impl Console {
    /// Takes what came.
    pub fn push(&mut self, bytes: &[u8]) {
        self.look_for_panic(bytes);
        let room = (HEAD - self.head.len()).min(bytes.len());
        self.head.extend(&bytes[..room]);
        self.tail.extend(&bytes[room..]);
        // In steps, so that a flood is not copied byte by byte.
        if self.tail.len() > 2 * TAIL {
            let excess = self.tail.len() - TAIL;
            self.tail.drain(..excess);
            self.dropped += excess as u64;
        }
    }

    fn look_for_panic(&mut self, bytes: &[u8]) {
        const LONGEST: usize = 1024;
        if self.panic.is_some() {
            return;
        }
        for byte in bytes {
            if *byte != b'\n' {
                if self.line.len() < LONGEST {
                    self.line.push(*byte);
                }
                continue;
            }
            let text = printable(&self.line);
            if let Some((_, why)) = text.split_once(PANIC) {
                self.panic = Some(why.trim().to_owned());
                return;
            }
            self.line.clear();
        }
    }

    /// Why the kernel stopped, in its own words, if it did.
    pub fn panic(&self) -> Option<&str> {
        self.panic.as_deref()
    }

    /// Everything that was kept, with a line that tells how much was not.
    pub fn kept(&self) -> Vec<u8> {
        let mut all = self.head.clone();
        if self.dropped > 0 {
            all.extend(format!("\n… {} bytes left out …\n", self.dropped).into_bytes());
        }
        all.extend(&self.tail);
        all
    }

    /// The last lines, for people.
    pub fn tail(&self) -> String {
        let end = [self.head.as_slice(), self.tail.as_slice()].concat();
        let from = end.len().saturating_sub(16 * 1024);
        let lines: Vec<String> =
            end[from..].split(|b| *b == b'\n').map(printable).filter(|line| !line.is_empty()).collect();
        lines[lines.len().saturating_sub(SHOWN)..].join(" | ")
    }
}

/// A line without carriage returns, the terminal's escapes, or the kernel's time stamp.
fn printable(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let mut clean = String::new();
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        if c == '\u{1b}' {
            // ESC [ … letter, and two-character ones.
            if rest.next_if_eq(&'[').is_some() {
                while rest.next().is_some_and(|c| !c.is_ascii_alphabetic()) {}
            } else {
                rest.next();
            }
        } else if !c.is_control() {
            clean.push(c);
        }
    }
    let stamped = clean.strip_prefix('[').and_then(|rest| rest.split_once("] "));
    match stamped {
        Some((time, rest)) if time.trim().chars().all(|c| c.is_ascii_digit() || c == '.') => rest.trim().to_owned(),
        _ => clean.trim().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_named_however_its_bytes_arrive() {
        let text = b"[    1.5] VFS: no root\r\n\x1b[31m[    1.6] Kernel panic - not syncing: No working init found.\r\n[ 2] x\n";
        let mut console = Console::default();
        for byte in text {
            console.push(&[*byte]);
        }
        assert_eq!(console.panic(), Some("No working init found."));
        assert_eq!(console.tail(), "VFS: no root | Kernel panic - not syncing: No working init found. | x");
    }

    #[test]
    fn a_flood_keeps_its_beginning_and_its_end_and_nothing_more() {
        let mut console = Console::default();
        console.push(b"first\n");
        for _ in 0..200 {
            console.push(&[b'x'; 8192]);
        }
        console.push(b"\nlast\n");
        let kept = console.kept();
        assert!(kept.starts_with(b"first\n") && kept.ends_with(b"\nlast\n"));
        assert!(kept.len() <= HEAD + 2 * TAIL + 100, "{}", kept.len());
        assert!(String::from_utf8(kept).unwrap().contains("bytes left out"));
        assert_eq!(console.panic(), None);
    }
}

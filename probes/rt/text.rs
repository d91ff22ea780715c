//! Text of bounded size, for a program without a heap.
//!
//! Goes in: bytes, numbers, `write!`. Comes out: what fitted, never half a character. Pure.

use core::fmt;

/// At most `N` bytes of text. What does not fit is dropped, and `cut` says so.
#[derive(Clone, Copy)]
pub struct Text<const N: usize> {
    len: u16,
    cut: bool,
    data: [u8; N],
}

impl<const N: usize> Text<N> {
    pub const fn new() -> Self {
        Text { len: 0, cut: false, data: [0; N] }
    }

    /// A copy of `bytes`, which need not be UTF-8.
    pub fn of(bytes: &[u8]) -> Self {
        let mut text = Self::new();
        text.add(bytes);
        text
    }

    /// What `format_args!` makes.
    pub fn format(arguments: fmt::Arguments) -> Self {
        let mut text = Self::new();
        let _ = fmt::Write::write_fmt(&mut text, arguments);
        text
    }

    pub fn bytes(&self) -> &[u8] {
        &self.data[..self.len as usize]
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub fn was_cut(&self) -> bool {
        self.cut
    }

    /// Appends `bytes`; where they do not fit, as many whole characters as do.
    pub fn add(&mut self, bytes: &[u8]) -> &mut Self {
        let at = self.len as usize;
        let mut room = N - at;
        if bytes.len() > room {
            self.cut = true;
            while room > 0 && bytes[room] & 0xc0 == 0x80 {
                room -= 1;
            }
        }
        let n = bytes.len().min(room);
        self.data[at..at + n].copy_from_slice(&bytes[..n]);
        self.len = (at + n) as u16;
        self
    }

    pub fn add_number(&mut self, number: i64) -> &mut Self {
        let mut digits = [0; 20];
        self.add(decimal(number, &mut digits))
    }

    /// Lower case, at least `width` digits, no prefix.
    pub fn add_hex(&mut self, number: u64, width: u32) -> &mut Self {
        let digits = (16 - number.leading_zeros() / 4).max(width).clamp(1, 16);
        for i in (0..digits).rev() {
            self.add(&[b"0123456789abcdef"[(number >> (i * 4)) as usize & 15]]);
        }
        self
    }
}

impl<const N: usize> fmt::Write for Text<N> {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        self.add(s.as_bytes());
        Ok(())
    }
}

/// `number` in decimal, written to the end of `room`.
pub fn decimal(number: i64, room: &mut [u8; 20]) -> &[u8] {
    let mut rest = number.unsigned_abs();
    let mut at = room.len();
    loop {
        at -= 1;
        room[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if number < 0 {
        at -= 1;
        room[at] = b'-';
    }
    &room[at..]
}

/// The number at the start of `bytes` in the given base, after blanks. None where there is none or it is too large.
pub fn number(bytes: &[u8], base: u32) -> Option<u64> {
    let from = bytes.iter().position(|b| !matches!(b, b' ' | b'\t' | b'\n'))?;
    let mut found = None;
    for b in &bytes[from..] {
        let Some(digit) = (*b as char).to_digit(base) else { break };
        found = Some(found.unwrap_or(0u64).checked_mul(base as u64)?.checked_add(digit as u64)?);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_that_does_not_fit_is_cut_between_characters() {
        let text = Text::<4>::of("abcé".as_bytes());
        assert_eq!((text.bytes(), text.was_cut()), (&b"abc"[..], true));
        let text = Text::<5>::of("abcé".as_bytes());
        assert_eq!((text.bytes(), text.was_cut()), ("abcé".as_bytes(), false));
    }

    #[test]
    fn numbers_are_written_in_decimal_and_hex() {
        let mut text = Text::<99>::new();
        text.add_number(i64::MIN).add(b" ").add_number(0).add(b" ").add_hex(0xbeef, 8).add(b" ").add_hex(0, 0);
        assert_eq!(text.bytes(), b"-9223372036854775808 0 0000beef 0");
    }

    #[test]
    fn numbers_are_read_from_the_start_of_a_text() {
        assert_eq!(number(b"\t 0042 rest", 10), Some(42));
        assert_eq!(number(b"1f:", 16), Some(31));
        assert_eq!(number(b"max", 10), None);
        assert_eq!(number(b"", 10), None);
        assert_eq!(number(b"99999999999999999999", 10), None);
    }
}

//! One line of the protocol: a JSON object of at most 4,096 bytes, whatever is put into it.
//!
//! Goes in: keys (plain ASCII, ours) and values (hostile). Comes out: valid UTF-8 and valid JSON. Pure; `out` writes it.

use super::text::decimal;

/// PIPE_BUF: a write of at most this many bytes to a pipe is atomic.
pub const LIMIT: usize = 4096;

/// Kept free for keys that follow a long text, and for the end of the line.
const RESERVE: usize = 256;

pub struct Line {
    len: usize,
    data: [u8; LIMIT],
}

impl Line {
    pub fn new() -> Self {
        Line { len: 0, data: [0; LIMIT] }
    }

    fn put(&mut self, bytes: &[u8]) {
        let n = bytes.len().min(LIMIT - self.len);
        self.data[self.len..self.len + n].copy_from_slice(&bytes[..n]);
        self.len += n;
    }

    fn key(&mut self, key: &str) {
        self.put(if self.len == 0 { b"{\"" } else { b",\"" });
        self.put(key.as_bytes());
        self.put(b"\":");
    }

    /// A text. What is not UTF-8 appears as `\x9f`, and a backslash doubled; what does not fit ends in `…`.
    pub fn text(&mut self, key: &str, value: &[u8]) -> &mut Self {
        self.key(key);
        self.put(b"\"");
        'all: for chunk in value.utf8_chunks() {
            for c in chunk.valid().chars() {
                if self.full(8) {
                    break 'all;
                }
                self.character(c);
            }
            for b in chunk.invalid() {
                if self.full(8) {
                    break 'all;
                }
                self.put(b"\\\\x");
                self.nibbles(*b);
            }
        }
        self.put(b"\"");
        self
    }

    fn character(&mut self, c: char) {
        match c {
            '"' => self.put(b"\\\""),
            '\\' => self.put(b"\\\\"),
            '\n' => self.put(b"\\n"),
            '\t' => self.put(b"\\t"),
            c if (c as u32) < 0x20 || c as u32 == 0x7f => {
                self.put(b"\\u00");
                self.nibbles(c as u8);
            }
            c => {
                let mut room = [0; 4];
                let encoded = c.encode_utf8(&mut room);
                self.put(encoded.as_bytes());
            }
        }
    }

    fn nibbles(&mut self, byte: u8) {
        for n in [byte >> 4, byte & 15] {
            self.put(&[b"0123456789abcdef"[n as usize]]);
        }
    }

    /// Whether `more` bytes would eat the reserve; marks the text as cut when they would.
    fn full(&mut self, more: usize) -> bool {
        let full = self.len + more + RESERVE > LIMIT;
        if full {
            self.put("…".as_bytes());
        }
        full
    }

    pub fn number(&mut self, key: &str, value: i64) -> &mut Self {
        self.key(key);
        self.put(decimal(value, &mut [0; 20]));
        self
    }

    /// Numbers with one decimal place, given in tenths. Those that do not fit are left out.
    pub fn tenths(&mut self, key: &str, values: &[u32]) -> &mut Self {
        self.key(key);
        self.put(b"[");
        for (i, value) in values.iter().enumerate() {
            if self.len + 16 + RESERVE > LIMIT {
                break;
            }
            if i > 0 {
                self.put(b",");
            }
            self.put(decimal(i64::from(value / 10), &mut [0; 20]));
            self.put(&[b'.', b'0' + (value % 10) as u8]);
        }
        self.put(b"]");
        self
    }

    /// The finished line, with its newline.
    pub fn finish(&mut self) -> &[u8] {
        self.len = self.len.min(LIMIT - 2);
        self.put(b"}\n");
        &self.data[..self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(value: &[u8]) -> String {
        String::from_utf8(Line::new().text("v", value).number("n", -3).finish().to_vec()).unwrap()
    }

    #[test]
    fn hostile_text_is_escaped() {
        assert_eq!(
            line(b"a\"b\\c\n\x00\x1b\x7f\xff\xc3 \xf0\x9f\xa6\x80</script>"),
            "{\"v\":\"a\\\"b\\\\c\\n\\u0000\\u001b\\u007f\\\\xff\\\\xc3 🦀</script>\",\"n\":-3}\n"
        );
    }

    #[test]
    fn no_text_makes_a_line_longer_than_the_limit_or_cuts_a_character() {
        for fill in ["a", "é", "🦀", "\"", "\u{1}"] {
            let long = line(fill.repeat(5000).as_bytes());
            assert!(long.len() <= LIMIT, "{fill}: {}", long.len());
            assert!(long.ends_with("…\",\"n\":-3}\n"), "{fill}: {long}");
        }
        let long = line(&[0xff; 5000]);
        assert!(long.len() <= LIMIT && long.ends_with("…\",\"n\":-3}\n"), "{long}");
    }

    #[test]
    fn samples_have_one_decimal_place_and_stay_within_the_limit() {
        assert_eq!(Line::new().tenths("s", &[1317, 5, 0]).finish(), b"{\"s\":[131.7,0.5,0.0]}\n");
        let mut many = Line::new();
        let many = many.tenths("s", &[u32::MAX; 2000]).finish();
        assert!(many.len() <= LIMIT && many.ends_with(b"]}\n"));
    }
}

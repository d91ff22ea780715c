//! Entries → bytes: ustar headers, with a pax header before them where ustar is too small.
//!
//! The same entry always gives the same bytes, so the tar of a tree is also its canonical listing.

use super::{BLOCK, Entry, Kind};

/// What stands at the end of an archive.
pub const END: [u8; 2 * BLOCK] = [0; 2 * BLOCK];

/// The header of an entry, with the pax header it needs. The bytes of a file and [`padding`] follow.
pub fn header(entry: &Entry) -> Vec<u8> {
    let mut pax = Vec::new();
    let link: &[u8] = match &entry.kind {
        Kind::Symlink(target) | Kind::Link(target) => target,
        _ => b"",
    };
    if entry.path.len() > 100 {
        record(&mut pax, b"path", &entry.path);
    }
    if link.len() > 100 {
        record(&mut pax, b"linkpath", link);
    }
    if entry.size > MAX_OCTAL_12 {
        record(&mut pax, b"size", entry.size.to_string().as_bytes());
    }
    if u64::from(entry.uid) > MAX_OCTAL_8 {
        record(&mut pax, b"uid", entry.uid.to_string().as_bytes());
    }
    if u64::from(entry.gid) > MAX_OCTAL_8 {
        record(&mut pax, b"gid", entry.gid.to_string().as_bytes());
    }
    let seconds = u64::try_from(entry.mtime.seconds).ok().filter(|s| *s <= MAX_OCTAL_12);
    if seconds.is_none() || entry.mtime.nanos != 0 {
        record(&mut pax, b"mtime", decimal(entry.mtime.seconds, entry.mtime.nanos).as_bytes());
    }
    let mut xattrs: Vec<_> = entry.xattrs.iter().collect();
    xattrs.sort();
    for (name, value) in xattrs {
        record(&mut pax, &[b"SCHILY.xattr.", name.as_slice()].concat(), value);
    }

    let mut bytes = Vec::with_capacity(BLOCK);
    if !pax.is_empty() {
        let mut extension = Fields::new(b"PaxHeaders/entry", b'x');
        extension.number(124..136, pax.len() as u64);
        bytes.extend_from_slice(&extension.sealed());
        let pad = padding(pax.len() as u64);
        bytes.append(&mut pax);
        bytes.resize(bytes.len() + pad, 0);
    }
    let (flag, device) = match entry.kind {
        Kind::File => (b'0', None),
        Kind::Link(_) => (b'1', None),
        Kind::Symlink(_) => (b'2', None),
        Kind::Character(major, minor) => (b'3', Some((major, minor))),
        Kind::Block(major, minor) => (b'4', Some((major, minor))),
        Kind::Directory => (b'5', None),
        Kind::Fifo => (b'6', None),
    };
    let mut fields = Fields::new(&entry.path, flag);
    fields.number(100..108, u64::from(entry.mode & 0o7777));
    fields.number(108..116, u64::from(entry.uid));
    fields.number(116..124, u64::from(entry.gid));
    fields.number(124..136, if entry.kind == Kind::File { entry.size } else { 0 });
    fields.number(136..148, seconds.unwrap_or(0));
    fields.text(157..257, link);
    if let Some((major, minor)) = device {
        fields.number(329..337, u64::from(major));
        fields.number(337..345, u64::from(minor));
    }
    bytes.extend_from_slice(&fields.sealed());
    bytes
}

/// How many zero bytes follow so many bytes of content.
pub fn padding(size: u64) -> usize {
    let over = (size % BLOCK as u64) as usize;
    if over == 0 { 0 } else { BLOCK - over }
}

const MAX_OCTAL_8: u64 = 0o777_7777;
const MAX_OCTAL_12: u64 = 0o777_7777_7777;

struct Fields([u8; BLOCK]);

impl Fields {
    fn new(path: &[u8], flag: u8) -> Self {
        let mut fields = Self([0; BLOCK]);
        fields.text(0..100, path);
        for field in [100..108, 108..116, 116..124, 329..337, 337..345] {
            fields.number(field, 0);
        }
        fields.number(124..136, 0);
        fields.number(136..148, 0);
        fields.0[156] = flag;
        fields.0[257..265].copy_from_slice(b"ustar\x0000");
        fields
    }

    fn text(&mut self, field: std::ops::Range<usize>, text: &[u8]) {
        let fits = text.len().min(field.len());
        self.0[field.start..field.start + fits].copy_from_slice(&text[..fits]);
    }

    /// Octal with a final zero byte; a number that does not fit is in the pax header, and 0 here.
    fn number(&mut self, field: std::ops::Range<usize>, value: u64) {
        let digits = field.len() - 1;
        let value = if value >> (3 * digits) == 0 { value } else { 0 };
        self.text(field, format!("{value:0digits$o}").as_bytes());
    }

    fn sealed(mut self) -> [u8; BLOCK] {
        let sum = checksum(&self.0);
        self.text(148..156, format!("{sum:06o}\0 ").as_bytes());
        self.0
    }
}

/// The sum of all bytes, those of the sum itself taken as spaces.
pub fn checksum(header: &[u8; BLOCK]) -> u32 {
    header.iter().enumerate().map(|(at, byte)| u32::from(if (148..156).contains(&at) { b' ' } else { *byte })).sum()
}

/// `LENGTH KEY=VALUE\n`, where the length counts itself.
fn record(pax: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + digits(length) {
        length = rest + digits(length);
    }
    pax.extend_from_slice(format!("{length} ").as_bytes());
    pax.extend_from_slice(key);
    pax.push(b'=');
    pax.extend_from_slice(value);
    pax.push(b'\n');
}

fn digits(number: usize) -> usize {
    number.to_string().len()
}

/// A time as pax writes it: -0.25 s is `-0.25`, which the system knows as second -1 and 750,000,000 ns.
fn decimal(seconds: i64, nanos: u32) -> String {
    let (sign, whole, part) = match (seconds < 0, nanos) {
        (true, 0) => ("-", seconds.unsigned_abs(), 0),
        (true, nanos) => ("-", seconds.unsigned_abs() - 1, 1_000_000_000 - nanos),
        (false, nanos) => ("", seconds.unsigned_abs(), nanos),
    };
    if part == 0 { format!("{sign}{whole}") } else { format!("{sign}{whole}.{part:09}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_of_a_record_counts_its_own_digits() {
        for size in [0, 1, 89, 90, 91, 92, 93, 989, 990, 991, 9_990] {
            let mut pax = Vec::new();
            record(&mut pax, b"path", &vec![b'x'; size]);
            let text = String::from_utf8(pax).unwrap();
            let length: usize = text.split(' ').next().unwrap().parse().unwrap();
            assert_eq!(length, text.len(), "a path of {size} bytes");
        }
    }

    #[test]
    fn times_before_1970_are_written_as_decimal_fractions() {
        assert_eq!(decimal(-1, 750_000_000), "-0.250000000");
        assert_eq!(decimal(-5, 0), "-5");
        assert_eq!(decimal(7, 5), "7.000000005");
    }
}

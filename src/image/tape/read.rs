//! Bytes → entries. Everything an archive says is bounded before it is believed.

use std::io::{self, Read};

use super::write::{checksum, padding};
use super::{BLOCK, Entry, Kind, Time};
use crate::image::error::ImageError;

/// Largest extension header (pax records, GNU long names, maps of sparse files) that is read.
const MAX_EXTENSION: u64 = 1 << 20;
/// Most pieces of one sparse file.
const MAX_PIECES: usize = 50_000;
/// Longest path or link, in bytes: the kernel's own limit.
pub const MAX_PATH: usize = 4095;

/// Reads an archive entry by entry; between two entries it reads as the bytes of the entry.
#[derive(Debug)]
pub struct Reader<R> {
    inner: R,
    missing: u64,
    pad: usize,
    /// Bytes of the archive consumed.
    at: u64,
    ended: bool,
}

/// What extension headers said about the next entry.
#[derive(Debug, Default)]
struct Extension {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
    mtime: Option<Time>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    sparse_major: bool,
    sparse_path: Option<Vec<u8>>,
    sparse_size: Option<u64>,
    sparse_map: Option<Vec<(u64, u64)>>,
}

impl<R: Read> Reader<R> {
    /// A reader at the start of an archive.
    pub fn new(inner: R) -> Self {
        Self { inner, missing: 0, pad: 0, at: 0, ended: false }
    }

    /// The next entry; none at the end of the archive.
    pub fn next(&mut self) -> Result<Option<Entry>, ImageError> {
        let mut extension = Extension::default();
        loop {
            self.skip(self.missing + self.pad as u64)?;
            (self.missing, self.pad) = (0, 0);
            let Some(header) = self.header()? else { return Ok(None) };
            let size = number(&header[124..136]).ok_or_else(|| self.broken("a size that is no number"))?;
            match header[156] {
                b'x' => pax(&self.extension(size)?, &mut extension).map_err(|why| self.broken(why))?,
                // Go's reader, and so docker, gives global headers no effect; one rule for all readers is safest.
                b'g' => drop(self.extension(size)?),
                b'L' => extension.path = Some(text(&self.extension(size)?)),
                b'K' => extension.link = Some(text(&self.extension(size)?)),
                _ => return self.entry(&header, size, extension).map(Some),
            }
        }
    }

    /// Reads what follows the end mark, so that a digest over the stream is complete. Says whether there was a mark.
    pub fn drain(mut self) -> Result<bool, ImageError> {
        self.skip(self.missing + self.pad as u64)?;
        let marked = self.ended;
        io::copy(&mut self.inner, &mut io::sink()).map_err(reading)?;
        Ok(marked)
    }

    /// Where in the archive the bytes of the current entry are, and how many.
    pub fn position(&self) -> (u64, u64) {
        (self.at, self.missing)
    }

    /// The bytes below, for whoever can jump over those of an entry.
    pub fn inner(&mut self) -> &mut R {
        &mut self.inner
    }

    /// The bytes of the current entry were jumped over.
    pub fn jumped(&mut self) {
        self.at += self.missing;
        self.missing = 0;
    }

    fn entry(&mut self, header: &[u8; BLOCK], size: u64, x: Extension) -> Result<Entry, ImageError> {
        let flag = header[156];
        let field = |range: std::ops::Range<usize>| number(&header[range]);
        let mut path = x.sparse_path.or(x.path).unwrap_or_else(|| ustar_path(header));
        let link = x.link.unwrap_or_else(|| text(&header[157..257]));
        if path.is_empty() || path.len() > MAX_PATH || link.len() > MAX_PATH {
            return Err(self.broken("a path that is empty or longer than the kernel allows"));
        }
        if path.contains(&0) || link.contains(&0) {
            return Err(self.broken("a path with a zero byte"));
        }
        // Old archives mark a directory only by the slash at its end.
        let is_directory = flag == b'5' || (matches!(flag, 0 | b'0') && path.ends_with(b"/"));
        let device = || (field(329..337).unwrap_or(0) as u32, field(337..345).unwrap_or(0) as u32);
        let kind = match flag {
            _ if is_directory => Kind::Directory,
            0 | b'0' | b'7' | b'S' => Kind::File,
            b'1' => Kind::Link(link),
            b'2' => Kind::Symlink(link),
            b'3' => Kind::Character(device().0, device().1),
            b'4' => Kind::Block(device().0, device().1),
            b'6' => Kind::Fifo,
            other => return Err(self.broken(&format!("an entry of unknown type {:?}", char::from(other)))),
        };
        while path.len() > 1 && path.ends_with(b"/") {
            path.pop();
        }
        let stored = x.size.unwrap_or(size);
        // Only files have bytes: some writers store the size of the target with a hard link, and no bytes.
        let stored = if kind == Kind::File { stored } else { 0 };
        if stored > i64::MAX as u64 {
            return Err(self.broken("a size that no file can have"));
        }
        self.missing = stored;
        self.pad = padding(stored);
        let (mut real, mut sparse) = (stored, x.sparse_map);
        if flag == b'S' {
            real = field(483..495).ok_or_else(|| self.broken("a sparse file without a size"))?;
            sparse = Some(self.gnu_map(header)?);
        } else if x.sparse_major {
            real = x.sparse_size.ok_or_else(|| self.broken("a sparse file without a size"))?;
            sparse = Some(self.pax_map()?);
        } else if sparse.is_some() {
            real = x.sparse_size.ok_or_else(|| self.broken("a sparse file without a size"))?;
        }
        if let Some(map) = &sparse {
            self.check_map(map, real)?;
        }
        let owner = |over: Option<u64>, range| {
            let id = over.or_else(|| number(&header[range])).unwrap_or(0);
            u32::try_from(id).ok().filter(|id| *id != u32::MAX)
        };
        let (Some(uid), Some(gid)) = (owner(x.uid, 108..116), owner(x.gid, 116..124)) else {
            return Err(self.broken("an owner that no file can have"));
        };
        let seconds = signed(&header[136..148]).unwrap_or(0);
        Ok(Entry {
            path,
            kind,
            mode: (field(100..108).unwrap_or(0) & 0o7777) as u32,
            uid,
            gid,
            mtime: x.mtime.unwrap_or(Time { seconds, nanos: 0 }),
            size: real,
            xattrs: x.xattrs,
            sparse,
        })
    }

    /// The pieces of a sparse file in GNU's old format: four in the header, 21 in each block that follows.
    fn gnu_map(&mut self, header: &[u8; BLOCK]) -> Result<Vec<(u64, u64)>, ImageError> {
        let mut map = Vec::new();
        let mut take = |fields: &[u8]| {
            for field in fields.chunks_exact(24) {
                match (number(&field[..12]), number(&field[12..])) {
                    (Some(offset), Some(length)) if field[0] != 0 => map.push((offset, length)),
                    _ => {}
                }
            }
            map.len()
        };
        take(&header[386..482]);
        let mut more = header[482] != 0;
        while more {
            let mut block = [0; BLOCK];
            self.exactly(&mut block)?;
            more = block[504] != 0;
            if take(&block[..504]) > MAX_PIECES {
                return Err(self.broken("a sparse file in too many pieces"));
            }
        }
        Ok(map)
    }

    /// The pieces of a sparse file in pax format 1.0: decimal lines before the data, padded to a block.
    fn pax_map(&mut self) -> Result<Vec<(u64, u64)>, ImageError> {
        let (mut numbers, mut current, mut wanted) = (Vec::new(), 0u64, None::<usize>);
        while wanted.is_none_or(|n| numbers.len() < n) {
            let mut block = [0; BLOCK];
            if self.missing < BLOCK as u64 {
                return Err(self.broken("a sparse file whose map is cut off"));
            }
            self.exactly(&mut block)?;
            self.missing -= BLOCK as u64;
            for byte in block {
                match byte {
                    b'0'..=b'9' => {
                        let digit = u64::from(byte - b'0');
                        let next = current.checked_mul(10).and_then(|c| c.checked_add(digit));
                        current = next.ok_or_else(|| self.broken("a sparse file with an impossible map"))?;
                    }
                    b'\n' if wanted.is_none() => {
                        let pieces = usize::try_from(current).ok().filter(|n| *n <= MAX_PIECES);
                        wanted = Some(2 * pieces.ok_or_else(|| self.broken("a sparse file in too many pieces"))?);
                        current = 0;
                    }
                    b'\n' => numbers.push(std::mem::take(&mut current)),
                    _ => break,
                }
            }
        }
        Ok(pairs(&numbers))
    }

    fn check_map(&self, map: &[(u64, u64)], real: u64) -> Result<(), ImageError> {
        let (mut end, mut sum) = (0u64, 0u64);
        for (offset, length) in map {
            if *offset < end {
                return Err(self.broken("a sparse file whose pieces overlap"));
            }
            end = offset
                .checked_add(*length)
                .filter(|end| *end <= real)
                .ok_or_else(|| self.broken("a sparse file with a piece beyond its end"))?;
            sum += length;
        }
        if sum == self.missing { Ok(()) } else { Err(self.broken("a sparse file whose map does not match its bytes")) }
    }

    fn extension(&mut self, size: u64) -> Result<Vec<u8>, ImageError> {
        if size > MAX_EXTENSION {
            return Err(ImageError::TooLarge(format!("an extension header of {size} bytes at byte {}", self.at)));
        }
        let mut bytes = vec![0; size as usize];
        self.exactly(&mut bytes)?;
        self.skip(padding(size) as u64)?;
        Ok(bytes)
    }

    /// The next header; none at the end mark, and where the archive just stops.
    fn header(&mut self) -> Result<Option<[u8; BLOCK]>, ImageError> {
        if self.ended {
            return Ok(None);
        }
        let mut header = [0; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            match self.inner.read(&mut header[filled..]).map_err(reading)? {
                0 if filled == 0 => return Ok(None),
                0 => return Err(self.broken("a header that is cut off")),
                n => filled += n,
            }
        }
        self.at += BLOCK as u64;
        if header.iter().all(|byte| *byte == 0) {
            self.ended = true;
            return Ok(None);
        }
        if number(&header[148..156]) != Some(u64::from(checksum(&header))) {
            return Err(self.broken("a header with a wrong checksum"));
        }
        Ok(Some(header))
    }

    fn exactly(&mut self, bytes: &mut [u8]) -> Result<(), ImageError> {
        self.inner.read_exact(bytes).map_err(reading)?;
        self.at += bytes.len() as u64;
        Ok(())
    }

    fn skip(&mut self, count: u64) -> Result<(), ImageError> {
        let skipped = io::copy(&mut (&mut self.inner).take(count), &mut io::sink()).map_err(reading)?;
        self.at += skipped;
        if skipped == count { Ok(()) } else { Err(self.broken("an entry that is cut off")) }
    }

    fn broken(&self, what: &str) -> ImageError {
        ImageError::Malformed(format!("the tar archive has {what} at byte {}", self.at))
    }
}

impl<R: Read> Read for Reader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = buffer.len().min(usize::try_from(self.missing).unwrap_or(usize::MAX));
        if most == 0 {
            return Ok(0);
        }
        let n = self.inner.read(&mut buffer[..most])?;
        if n == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the tar archive is cut off inside a file"));
        }
        self.missing -= n as u64;
        self.at += n as u64;
        Ok(n)
    }
}

/// What went wrong below the archive: errors of ours travel through `io::Error` unharmed.
pub fn reading(error: io::Error) -> ImageError {
    if error.get_ref().is_some_and(|inner| inner.is::<ImageError>()) {
        return match error.into_inner().map(|inner| inner.downcast::<ImageError>()) {
            Some(Ok(inner)) => *inner,
            _ => ImageError::Malformed("the archive could not be read".to_owned()),
        };
    }
    match error.kind() {
        io::ErrorKind::UnexpectedEof => ImageError::Malformed("the archive is cut off".to_owned()),
        io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => {
            ImageError::Malformed(format!("the compressed data is damaged: {error}"))
        }
        _ => ImageError::Io { doing: "could not read the archive".to_owned(), source: error },
    }
}

fn ustar_path(header: &[u8; BLOCK]) -> Vec<u8> {
    let (name, prefix) = (text(&header[..100]), text(&header[345..500]));
    // GNU's own format keeps other things where ustar keeps the prefix.
    if prefix.is_empty() || &header[257..263] != b"ustar\0" { name } else { [prefix, name].join(&b'/') }
}

fn text(field: &[u8]) -> Vec<u8> {
    field.split(|byte| *byte == 0).next().unwrap_or_default().to_vec()
}

/// Octal digits among spaces and zero bytes, or GNU's base 256 (first bit set).
fn number(field: &[u8]) -> Option<u64> {
    signed(field).and_then(|number| u64::try_from(number).ok())
}

fn signed(field: &[u8]) -> Option<i64> {
    let first = *field.first()?;
    if first & 0x80 != 0 {
        let start = if first & 0x40 != 0 { -1i128 } else { 0 };
        let mut value = start;
        for (at, byte) in field.iter().enumerate() {
            let byte = if at == 0 && start == 0 { byte & 0x7f } else { *byte };
            value = (value << 8) | i128::from(byte);
            if value > i128::from(i64::MAX) || value < i128::from(i64::MIN) {
                return None;
            }
        }
        return i64::try_from(value).ok();
    }
    let digits: Vec<u8> =
        field.iter().copied().skip_while(|b| *b == b' ').take_while(|b| !b" \0".contains(b)).collect();
    if digits.is_empty() {
        return Some(0);
    }
    i64::from_str_radix(std::str::from_utf8(&digits).ok()?, 8).ok()
}

fn pax(mut records: &[u8], x: &mut Extension) -> Result<(), &'static str> {
    while !records.is_empty() {
        let space = records.iter().position(|b| *b == b' ').ok_or("a pax record without a length")?;
        let length = std::str::from_utf8(&records[..space]).ok().and_then(|n| n.parse::<usize>().ok());
        let length =
            length.filter(|n| *n > space + 1 && *n <= records.len()).ok_or("a pax record of a wrong length")?;
        let (record, rest) = records.split_at(length);
        records = rest;
        let record = record[space + 1..].strip_suffix(b"\n").ok_or("a pax record without an end")?;
        let equals = record.iter().position(|b| *b == b'=').ok_or("a pax record without a value")?;
        let (key, value) = (&record[..equals], &record[equals + 1..]);
        let count = || {
            let value = std::str::from_utf8(value).ok().filter(|v| v.bytes().all(|b| b.is_ascii_digit()));
            value.and_then(|v| v.parse::<u64>().ok()).ok_or("a pax record with an impossible number")
        };
        match key {
            b"path" => x.path = Some(value.to_vec()),
            b"linkpath" => x.link = Some(value.to_vec()),
            b"size" => x.size = Some(count()?),
            b"uid" => x.uid = Some(count()?),
            b"gid" => x.gid = Some(count()?),
            b"mtime" => x.mtime = Some(time(value).ok_or("a pax record with an impossible time")?),
            b"GNU.sparse.major" => x.sparse_major = value == b"1",
            b"GNU.sparse.name" => x.sparse_path = Some(value.to_vec()),
            b"GNU.sparse.size" | b"GNU.sparse.realsize" => x.sparse_size = Some(count()?),
            b"GNU.sparse.map" => x.sparse_map = Some(inline_map(value).ok_or("a sparse file with an impossible map")?),
            b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => {
                return Err("a sparse file in the withdrawn pax format 0.0");
            }
            _ => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    x.xattrs.push((name.to_vec(), value.to_vec()));
                }
            }
        }
    }
    Ok(())
}

/// `OFFSET,LENGTH,OFFSET,LENGTH…`: pax format 0.1.
fn inline_map(value: &[u8]) -> Option<Vec<(u64, u64)>> {
    let numbers: Option<Vec<u64>> =
        std::str::from_utf8(value).ok()?.split(',').take(2 * MAX_PIECES + 1).map(|n| n.parse().ok()).collect();
    numbers.filter(|n| n.len() % 2 == 0 && n.len() <= 2 * MAX_PIECES).map(|n| pairs(&n))
}

fn pairs(numbers: &[u64]) -> Vec<(u64, u64)> {
    // A last piece of no length only marks the end of the file.
    numbers.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect()
}

fn time(value: &[u8]) -> Option<Time> {
    let value = std::str::from_utf8(value).ok()?;
    let (negative, value) = value.strip_prefix('-').map_or((false, value), |rest| (true, rest));
    let (whole, part) = value.split_once('.').unwrap_or((value, ""));
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(part) || whole.len() > 18 {
        return None;
    }
    let seconds: i64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let nanos: u32 = format!("{part:0<9.9}").parse().ok()?;
    Some(match (negative, nanos) {
        (false, nanos) => Time { seconds, nanos },
        (true, 0) => Time { seconds: -seconds, nanos: 0 },
        (true, nanos) => Time { seconds: -seconds - 1, nanos: 1_000_000_000 - nanos },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::tape::write::{END, header};

    fn sample() -> Entry {
        Entry {
            path: b"a".to_vec(),
            kind: Kind::File,
            mode: 0o4755,
            uid: 1,
            gid: 2,
            mtime: Time { seconds: 3, nanos: 0 },
            size: 0,
            xattrs: vec![],
            sparse: None,
        }
    }

    fn first(bytes: &[u8]) -> Result<Option<Entry>, ImageError> {
        Reader::new(bytes).next()
    }

    #[test]
    fn what_was_written_is_read_back() {
        let odd = [
            sample(),
            Entry { path: vec![b'p'; 4000], mtime: Time { seconds: -1, nanos: 750_000_000 }, ..sample() },
            Entry { kind: Kind::Link(vec![b'l'; 101]), uid: 3_000_000, gid: 0o777_7777, ..sample() },
            Entry { kind: Kind::Block(259, 70_000), xattrs: vec![(b"user.a".to_vec(), b"\0=\n".to_vec())], ..sample() },
            Entry { kind: Kind::Directory, mtime: Time { seconds: 9_000_000_000, nanos: 1 }, ..sample() },
        ];
        for entry in odd {
            let bytes = [header(&entry), END.to_vec()].concat();
            assert_eq!(first(&bytes).unwrap(), Some(entry));
        }
    }

    #[test]
    fn numbers_in_base_256_are_understood_and_bounded() {
        assert_eq!(signed(&[0x80, 0, 0, 0, 0, 0, 1, 0]), Some(256));
        assert_eq!(signed(&[0xff; 12]), Some(-1));
        assert_eq!(number(&[0xff; 12]), None);
        assert_eq!(signed(&[0x8f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]), None);
        assert_eq!(number(b"0000644\0"), Some(0o644));
        assert_eq!(number(b"  644 \0\0"), Some(0o644));
        assert_eq!(number(b"0000648\0"), None);
    }

    #[test]
    fn a_flipped_bit_in_a_header_is_noticed() {
        let mut bytes = header(&sample());
        bytes[3] ^= 1;
        assert!(first(&bytes).unwrap_err().to_string().contains("wrong checksum"));
    }

    #[test]
    fn pax_records_that_lie_about_their_length_are_refused() {
        for records in [b"5 a=".as_slice(), b"99 path=x\n", b"x path=x\n", b"3 \n", b"9 pathxx\n\n", b"10 size=-1\n"] {
            assert!(pax(records, &mut Extension::default()).is_err(), "{}", String::from_utf8_lossy(records));
        }
        let mut x = Extension::default();
        pax(b"8 path=x\n9 path=yz\n", &mut x).unwrap_err();
        pax(b"9 path=x\n11 path=yz\n", &mut x).unwrap();
        assert_eq!(x.path.as_deref(), Some(b"yz".as_slice()), "the last record counts");
    }

    #[test]
    fn times_of_pax_go_both_ways() {
        for (text, seconds, nanos) in [("1", 1, 0), ("-0.25", -1, 750_000_000), ("-5", -5, 0), ("1.5", 1, 500_000_000)]
        {
            assert_eq!(time(text.as_bytes()), Some(Time { seconds, nanos }), "{text}");
        }
        for bad in ["x", "1.x", "99999999999999999999", "--1", "1e5"] {
            assert_eq!(time(bad.as_bytes()), None, "{bad}");
        }
    }
}

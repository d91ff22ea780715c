//! Streams of image content: decompressed, counted, hashed, bounded.
//!
//! In: a stream, what it should be, how large it may be. Out: the same bytes uncompressed, and their digest at the end.

use std::io::{self, BufRead, BufReader, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use flate2::bufread::MultiGzDecoder;
use sha2::{Digest as _, Sha256};

use super::error::ImageError;

/// What an image may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of content of the whole image, uncompressed; holes count.
    pub bytes: u64,
    /// Entries in all layers.
    pub entries: u64,
    /// How many times its own size a compressed layer may become, once it is past `ratio_from` bytes.
    pub ratio: u64,
    /// Size up to which any ratio is fine.
    pub ratio_from: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { bytes: 64 << 30, entries: 4_000_000, ratio: 200, ratio_from: 1 << 30 }
    }
}

/// `sha256:` and 64 hexadecimal digits.
pub fn sha256(bytes: &[u8]) -> String {
    text(Sha256::digest(bytes).as_slice())
}

fn text(hash: &[u8]) -> String {
    hash.iter().fold("sha256:".to_owned(), |text, byte| text + &format!("{byte:02x}"))
}

/// The 64 digits of a digest, if it is a SHA-256 in its one canonical spelling: safe as a file name.
pub fn hex(digest: &str) -> Result<&str, ImageError> {
    let hex = digest.strip_prefix("sha256:").unwrap_or_default();
    if hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
        Ok(hex)
    } else {
        Err(ImageError::Malformed(format!("`{digest:.100}` is not a SHA-256 digest")))
    }
}

/// Set to stop all work on an image.
pub type Cancel = Arc<AtomicBool>;

/// Counts and hashes what is read through it, and stops when the caller has lost interest.
pub struct Counted<R> {
    inner: R,
    hash: Sha256,
    /// Bytes read so far.
    pub count: u64,
    cancel: Cancel,
}

impl<R: Read> Counted<R> {
    /// Nothing read yet.
    pub fn new(inner: R, cancel: Cancel) -> Self {
        Self { inner, hash: Sha256::new(), count: 0, cancel }
    }

    /// Reads the rest and gives the digest of everything.
    pub fn digest(mut self) -> io::Result<String> {
        io::copy(&mut self, &mut io::sink())?;
        Ok(text(self.hash.finalize().as_slice()))
    }
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.cancel.load(Ordering::Relaxed) {
            return Err(io::Error::other(ImageError::Interrupted));
        }
        let n = self.inner.read(buffer)?;
        self.hash.update(&buffer[..n]);
        self.count += n as u64;
        Ok(n)
    }
}

/// A layer or archive as stored → the tar inside: gzip, zstd or nothing, told by its first bytes and not by its name.
pub enum Uncompressed<R: Read> {
    /// It was not compressed.
    Plain(BufReader<R>),
    /// One or more gzip members.
    Gzip(Box<MultiGzDecoder<BufReader<R>>>),
    /// One or more zstd frames.
    Zstd(Box<zstd::Decoder<'static, BufReader<R>>>),
}

impl<R: Read> Uncompressed<R> {
    /// Looks at the first bytes.
    pub fn new(inner: R) -> Result<Self, ImageError> {
        let mut reader = BufReader::with_capacity(256 * 1024, inner);
        let start = reader.fill_buf().map_err(super::tape::read::reading)?;
        Ok(match start {
            [0x1f, 0x8b, ..] => Self::Gzip(Box::new(MultiGzDecoder::new(reader))),
            // A frame, or a skippable frame before the first one.
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => {
                Self::Zstd(Box::new(zstd::Decoder::with_buffer(reader).map_err(super::tape::read::reading)?))
            }
            [b'B', b'Z', b'h', ..] | [0xfd, b'7', b'z', b'X', b'Z', ..] => {
                return Err(ImageError::Malformed(
                    "compressed with bzip2 or xz; only plain, gzip and zstd archives are understood".to_owned(),
                ));
            }
            _ => Self::Plain(reader),
        })
    }

    /// What is below.
    fn below(&self) -> &R {
        match self {
            Self::Plain(reader) => reader.get_ref(),
            Self::Gzip(decoder) => decoder.get_ref().get_ref(),
            Self::Zstd(decoder) => decoder.get_ref().get_ref(),
        }
    }

    /// What is below, to be read on.
    fn into_below(self) -> R {
        match self {
            Self::Plain(reader) => reader.into_inner(),
            Self::Gzip(decoder) => decoder.into_inner().into_inner(),
            Self::Zstd(decoder) => decoder.finish().into_inner(),
        }
    }
}

impl<R: Read> Read for Uncompressed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(reader) => reader.read(buffer),
            Self::Gzip(decoder) => decoder.read(buffer),
            Self::Zstd(decoder) => decoder.read(buffer),
        }
    }
}

/// A stored stream, decompressed, with both its digests: of what is stored and of what is inside.
pub struct Layer<R: Read> {
    inside: Uncompressed<Counted<R>>,
    hash: Sha256,
    count: u64,
    limits: Limits,
}

/// The two digests of a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Digests {
    /// Of the bytes as stored.
    pub stored: String,
    /// Of the bytes uncompressed: OCI's diff-id.
    pub inside: String,
    /// Bytes as stored.
    pub stored_size: u64,
}

impl<R: Read> Layer<R> {
    /// Starts reading.
    pub fn new(stored: R, limits: Limits, cancel: Cancel) -> Result<Self, ImageError> {
        let inside = Uncompressed::new(Counted::new(stored, cancel))?;
        Ok(Self { inside, hash: Sha256::new(), count: 0, limits })
    }

    /// Whether what is stored is compressed.
    pub fn is_compressed(&self) -> bool {
        !matches!(self.inside, Uncompressed::Plain(_))
    }

    /// Bytes read of what is stored.
    pub fn stored(&self) -> u64 {
        self.inside.below().count
    }

    /// Reads the rest, what follows the compressed data too.
    pub fn finish(mut self) -> Result<Digests, ImageError> {
        io::copy(&mut self, &mut io::sink()).map_err(super::tape::read::reading)?;
        let mut below = self.inside.into_below();
        io::copy(&mut below, &mut io::sink()).map_err(super::tape::read::reading)?;
        let stored_size = below.count;
        let stored = below.digest().map_err(super::tape::read::reading)?;
        Ok(Digests { stored, inside: text(self.hash.finalize().as_slice()), stored_size })
    }
}

impl<R: Read> Read for Layer<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inside.read(buffer)?;
        self.hash.update(&buffer[..n]);
        self.count += n as u64;
        let stored = self.stored().max(1);
        if self.count > self.limits.ratio_from && self.count / stored > self.limits.ratio {
            return Err(io::Error::other(ImageError::TooLarge(format!(
                "{stored} compressed bytes became more than {} bytes, over {} times their size",
                self.count, self.limits.ratio
            ))));
        }
        // The archive itself may be larger than what is in it, by headers and padding.
        if self.count > self.limits.bytes.saturating_mul(2) {
            return Err(io::Error::other(ImageError::TooLarge(format!("more than {} bytes in one layer", self.count))));
        }
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(stored: &[u8], limits: Limits) -> Result<(Vec<u8>, Digests), ImageError> {
        let mut layer = Layer::new(stored, limits, Cancel::default())?;
        let mut bytes = Vec::new();
        layer.read_to_end(&mut bytes).map_err(super::super::tape::read::reading)?;
        Ok((bytes, layer.finish()?))
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        io::Write::write_all(&mut encoder, bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn all_three_forms_of_a_layer_have_the_same_inner_digest() {
        let plain = b"some layer".repeat(1000);
        let forms = [plain.clone(), gzip(&plain), zstd::encode_all(plain.as_slice(), 3).unwrap()];
        for form in forms {
            let (bytes, digests) = layer(&form, Limits::default()).unwrap();
            assert_eq!(bytes, plain);
            assert_eq!(digests.inside, sha256(&plain));
            assert_eq!(digests.stored, sha256(&form));
        }
    }

    #[test]
    fn members_and_frames_that_follow_each_other_are_one_stream() {
        let two = [gzip(b"one "), gzip(b"two")].concat();
        assert_eq!(layer(&two, Limits::default()).unwrap().0, b"one two");
        let frame = |bytes: &[u8]| zstd::encode_all(bytes, 3).unwrap();
        let two = [b"\x50\x2a\x4d\x18\x02\0\0\0xx".to_vec(), frame(b"one "), frame(b"two")].concat();
        assert_eq!(layer(&two, Limits::default()).unwrap().0, b"one two");
    }

    #[test]
    fn a_bomb_is_stopped_by_its_ratio_and_not_by_the_disk() {
        let limits = Limits { ratio_from: 1 << 20, ..Limits::default() };
        let error = layer(&gzip(&vec![0; 8 << 20]), limits).unwrap_err();
        assert!(matches!(&error, ImageError::TooLarge(why) if why.contains("over 200 times")), "{error}");
    }

    #[test]
    fn cut_off_compressed_data_is_an_error() {
        let whole = gzip(&b"some layer".repeat(1000));
        assert!(layer(&whole[..whole.len() - 9], Limits::default()).is_err());
        let whole = zstd::encode_all(b"some layer".repeat(1000).as_slice(), 3).unwrap();
        assert!(layer(&whole[..whole.len() - 3], Limits::default()).is_err());
    }

    #[test]
    fn only_canonical_digests_become_file_names() {
        let good = sha256(b"");
        assert_eq!(hex(&good).unwrap().len(), 64);
        for bad in ["", "sha256:", "sha256:../../../etc/passwd", &good.to_uppercase(), &good[7..], "sha512:00"] {
            assert!(hex(bad).is_err(), "{bad}");
        }
    }
}

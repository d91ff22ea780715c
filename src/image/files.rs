//! The files of an image as it is stored: in a directory (OCI layout) or in a tar archive (`docker save`, OCI archive).
//!
//! In: a path. Out: files by name, bounded and never outside. Nothing is unpacked: an archive is indexed once and read
//! in place.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use super::blob::sha256;
use super::error::ImageError;
use super::root::{Root, components};
use super::tape::Kind;
use super::tape::read::Reader;

/// Largest manifest, index or configuration: what registries accept.
const MAX_JSON: u64 = 4 << 20;
/// Most entries of an archive of layers; a layer is one or three.
const MAX_MEMBERS: usize = 20_000;

/// Files by name.
#[derive(Debug)]
pub enum Files {
    /// In a directory.
    Directory(PathBuf, Root),
    /// In an archive: where each file's bytes are, and what is only another name.
    Archive(PathBuf, BTreeMap<String, Member>),
}

/// What an archive has under a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Member {
    /// Bytes at this offset, so many.
    Bytes(u64, u64),
    /// What this other name has. Old `docker save` writes links for layers that several images share.
    Alias(String),
}

/// An open file of an image.
#[derive(Debug)]
pub struct Part {
    file: File,
    at: u64,
    end: u64,
}

impl Part {
    /// Bytes in all.
    pub fn size(&self) -> u64 {
        self.end - self.at
    }
}

impl Read for Part {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let most = buffer.len().min(usize::try_from(self.end - self.at).unwrap_or(usize::MAX));
        let n = self.file.read_at(&mut buffer[..most], self.at)?;
        if n == 0 && most > 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        self.at += n as u64;
        Ok(n)
    }
}

impl Files {
    /// The files of a directory.
    pub fn directory(path: &Path) -> Result<Self, ImageError> {
        Ok(Self::Directory(path.to_path_buf(), Root::open(path)?))
    }

    /// The files of an uncompressed tar archive.
    pub fn archive(path: &Path) -> Result<Self, ImageError> {
        let file = File::open(path).map_err(ImageError::io("could not open", path))?;
        let mut reader = Reader::new(file);
        let mut members = BTreeMap::new();
        while let Some(entry) = reader.next()? {
            let name = clean(&entry.path);
            let member = match entry.kind {
                Kind::File if entry.sparse.is_none() => {
                    let (at, size) = reader.position();
                    reader.inner().seek(SeekFrom::Start(at + size)).map_err(ImageError::io("could not read", path))?;
                    reader.jumped();
                    Member::Bytes(at, size)
                }
                Kind::Symlink(target) => {
                    let directory = name.rsplit_once('/').map_or("", |(directory, _)| directory);
                    Member::Alias(climb(directory, &target))
                }
                Kind::Link(target) => Member::Alias(clean(&target)),
                _ => continue,
            };
            members.insert(name, member);
            if members.len() > MAX_MEMBERS {
                return Err(ImageError::TooLarge(format!("`{}` has over {MAX_MEMBERS} members", path.display())));
            }
        }
        let length = std::fs::metadata(path).map_err(ImageError::io("could not look at", path))?.len();
        if members.values().any(|member| matches!(member, Member::Bytes(at, size) if at + size > length)) {
            return Err(ImageError::Malformed(format!("`{}` is cut off", path.display())));
        }
        Ok(Self::Archive(path.to_path_buf(), members))
    }

    /// What the files are in, for messages.
    pub fn path(&self) -> &Path {
        match self {
            Self::Directory(path, _) | Self::Archive(path, _) => path,
        }
    }

    /// Whether there is such a file.
    pub fn has(&self, name: &str) -> bool {
        self.open(name).is_ok()
    }

    /// Opens a file.
    pub fn open(&self, name: &str) -> Result<Part, ImageError> {
        let missing = || ImageError::Missing {
            what: format!("`{}` has no file `{name:.200}`", self.path().display()),
            hint: "save or copy the image again, whole".to_owned(),
        };
        match self {
            Self::Directory(_, root) => {
                let (file, size) = root.file(name).ok_or_else(missing)?;
                Ok(Part { file, at: 0, end: size })
            }
            Self::Archive(path, members) => {
                let mut name = clean(name.as_bytes());
                for _ in 0..8 {
                    match members.get(&name) {
                        Some(Member::Bytes(at, size)) => {
                            let file = File::open(path).map_err(ImageError::io("could not open", path))?;
                            return Ok(Part { file, at: *at, end: at + size });
                        }
                        Some(Member::Alias(other)) => name = other.clone(),
                        None => break,
                    }
                }
                Err(missing())
            }
        }
    }

    /// A small file, with its digest.
    pub fn bytes(&self, name: &str) -> Result<(Vec<u8>, String), ImageError> {
        let part = self.open(name)?;
        let size = part.size();
        if size > MAX_JSON {
            return Err(ImageError::TooLarge(format!("`{name:.200}` of {size} bytes in `{}`", self.path().display())));
        }
        let mut bytes = Vec::new();
        part.take(MAX_JSON).read_to_end(&mut bytes).map_err(ImageError::io("could not read", self.path()))?;
        let digest = sha256(&bytes);
        Ok((bytes, digest))
    }

    /// A small file as JSON; with `digest`, only if it has that digest.
    pub fn json<T: DeserializeOwned>(&self, name: &str, digest: Option<&str>) -> Result<T, ImageError> {
        let (bytes, got) = self.bytes(name)?;
        if let Some(wanted) = digest
            && wanted != got
        {
            return Err(ImageError::Digest { what: format!("`{name:.200}`"), wanted: wanted.to_owned(), got });
        }
        serde_json::from_slice(&bytes).map_err(|e| {
            ImageError::Malformed(format!("`{name:.200}` in `{}` is not understood: {e}", self.path().display()))
        })
    }
}

fn clean(path: &[u8]) -> String {
    String::from_utf8_lossy(&components(path).join(&b'/')).into_owned()
}

/// Where a link in `directory` leads, by its words; names are only looked up, so climbing too far finds nothing.
fn climb(directory: &str, target: &[u8]) -> String {
    let mut path: Vec<Vec<u8>> = if target.starts_with(b"/") { vec![] } else { components(directory.as_bytes()) };
    for name in components(target) {
        if name == b".." {
            path.pop();
        } else {
            path.push(name);
        }
    }
    String::from_utf8_lossy(&path.join(&b'/')).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_between_members_are_followed_by_their_words() {
        assert_eq!(climb("abc", b"../def/layer.tar"), "def/layer.tar");
        assert_eq!(climb("abc", b"../../../etc/passwd"), "etc/passwd");
        assert_eq!(climb("abc", b"/x"), "x");
    }
}

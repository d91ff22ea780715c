//! The image store: sources in, ready images out, everything that was made kept by the digest of its content.
//!
//! In: a [`Source`] and a cache directory. Out: an [`Image`]. Two processes may share a cache: work on one thing is
//! under a file lock, results are renamed into place whole, and what an interrupted process left is redone, not trusted.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::ImageError;
use super::{Content, Image, Source};
use crate::engine::Facts;
use crate::fault::{Fault, Phase};
use crate::id::ImageId;

/// The digest of no layers at all: what `scratch` has.
pub const EMPTY_DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// What is being done, and how much of how much in bytes where that is known (0 of `None` where it is not).
#[derive(Debug, Clone, Copy)]
pub struct Step<'a> {
    /// In a few words: `unpacking layer 2 of 4`.
    pub what: &'a str,
    /// Bytes done.
    pub done: u64,
    /// Bytes in all.
    pub total: Option<u64>,
}

/// Is called while an image is made ready, from any thread.
pub type Progress = Arc<dyn Fn(Step<'_>) + Send + Sync>;

/// A [`Progress`] for those who do not care.
pub fn quiet() -> Progress {
    Arc::new(|_| {})
}

/// Makes images ready and keeps them.
#[derive(Debug, Clone)]
pub struct ImageStore {
    cache: PathBuf,
}

impl ImageStore {
    /// A store in this directory, which is made if it is missing.
    pub fn at(cache: impl Into<PathBuf>) -> Result<Self, Fault> {
        let cache = cache.into();
        std::fs::create_dir_all(&cache).map_err(ImageError::io("could not make the image cache", &cache))?;
        Ok(Self { cache })
    }

    /// Where this store keeps things.
    pub fn cache(&self) -> &Path {
        &self.cache
    }

    /// Makes one image ready. Relative paths of the source are relative to `base`; `arch` is OCI's name of the
    /// architecture wanted where the source has a choice ([`host_architecture`] by default).
    pub async fn open(
        &self,
        id: &ImageId,
        source: &Source,
        base: &Path,
        arch: &str,
        progress: Progress,
    ) -> Result<Image, Fault> {
        let _ = (base, arch, progress);
        match source {
            Source::Scratch => Ok(empty(id)),
            Source::Reference(reference) => Ok(reference_only(id, reference)),
            _ => Err(Fault::new(Phase::Image, "this kind of image cannot be opened yet")),
        }
    }

    /// Makes the image inside a `docker save` or OCI archive ready; for engines that hand over what they have.
    /// `tag` picks one of several images.
    pub async fn open_archive(
        &self,
        id: &ImageId,
        archive: &Path,
        tag: Option<&str>,
        arch: &str,
        progress: Progress,
    ) -> Result<Image, Fault> {
        let _ = (id, archive, tag, arch, progress);
        Err(Fault::new(Phase::Image, "this kind of image cannot be opened yet"))
    }
}

fn empty(id: &ImageId) -> Image {
    let facts = Facts::from([
        ("digest".to_owned(), EMPTY_DIGEST.to_owned()),
        ("libc.kind".to_owned(), "none".to_owned()),
        ("size".to_owned(), "0".to_owned()),
    ]);
    Image {
        id: id.clone(),
        digest: EMPTY_DIGEST.to_owned(),
        content: Content::Empty,
        architecture: None,
        loader: None,
        facts,
    }
}

fn reference_only(id: &ImageId, reference: &str) -> Image {
    let digest = reference.split_once('@').map_or("", |(_, digest)| digest);
    Image {
        id: id.clone(),
        digest: digest.to_owned(),
        content: Content::Reference(reference.to_owned()),
        architecture: None,
        loader: None,
        facts: Facts::from([("reference".to_owned(), reference.to_owned())]),
    }
}

/// OCI's name of this machine's architecture.
pub fn host_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "x86" => "386",
        "aarch64" => "arm64",
        "powerpc64" => "ppc64le",
        other => other,
    }
}

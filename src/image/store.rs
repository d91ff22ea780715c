//! The image store: sources in, ready images out, everything that was made kept by the digest of its content.
//!
//! In: a [`Source`] and a cache directory. Out: an [`Image`]. Two processes may share a cache: work on one thing is
//! under a file lock, results are renamed into place whole, and what an interrupted process left is redone, not trusted.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::RwLock;

use super::blob::{Cancel, Limits};
use super::cache::Cache;
use super::error::ImageError;
use super::registry::{self, Access, Reference};
use super::task::{Ready, Task};
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
    cache: Cache,
    limits: Limits,
    /// Held by work beside other work; all of it by work that found no room and is done again.
    room: Arc<RwLock<()>>,
}

impl ImageStore {
    /// A store in this directory, which is made if it is missing.
    pub fn at(cache: impl Into<PathBuf>) -> Result<Self, Fault> {
        Ok(Self { cache: Cache::at(cache.into())?, limits: Limits::default(), room: Arc::default() })
    }

    /// The same store with other limits.
    pub fn limits(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    /// Where this store keeps things.
    pub fn cache(&self) -> &Path {
        self.cache.root()
    }

    /// Makes one image ready. Relative paths of the source are relative to `base`; `arch` is OCI's name of the
    /// architecture wanted where the source has a choice ([`host_architecture`] by default). Work stops soon after the
    /// future is dropped.
    pub async fn open(
        &self,
        id: &ImageId,
        source: &Source,
        base: &Path,
        arch: &str,
        progress: Progress,
    ) -> Result<Image, Fault> {
        let (source, base, arch) = (source.clone(), base.to_path_buf(), arch.to_owned());
        match source {
            Source::Scratch => Ok(empty(id)),
            Source::Reference { reference, architecture, .. } => {
                Ok(Image { architecture, ..reference_only(id, &reference) })
            }
            Source::Rootfs(path) => {
                let work = move |task: &Task| task.rootfs(&base.join(&path));
                self.work(id, progress, work).await
            }
            Source::Archive { path, tag } => {
                let work = move |task: &Task| task.archive(&base.join(&path), tag.as_deref(), &arch);
                self.work(id, progress, work).await
            }
            Source::Layout { path, tag } => {
                let work = move |task: &Task| task.layout(&base.join(&path), tag.as_deref(), &arch);
                self.work(id, progress, work).await
            }
            Source::Bootstrap(wanted) => self.work(id, progress, move |task| task.bootstrap(&wanted, &arch)).await,
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
        let (archive, tag, arch) = (archive.to_path_buf(), tag.map(str::to_owned), arch.to_owned());
        self.work(id, progress, move |task| task.archive(&archive, tag.as_deref(), &arch)).await
    }

    /// Fetches an image from its registry, once, and makes it ready; for engines that cannot pull for themselves.
    pub async fn pull(
        &self,
        id: &ImageId,
        reference: &str,
        arch: &str,
        access: &Access,
        progress: Progress,
    ) -> Result<Image, Fault> {
        let (reference, arch, access) = (reference.to_owned(), arch.to_owned(), access.clone());
        self.work(id, progress, move |task| task.registry(&reference, &arch, &access)).await
    }

    /// What a registry says of a reference, without fetching the image: the digest of its manifest or index.
    pub async fn ask(&self, reference: &str, access: &Access) -> Result<String, Fault> {
        let (reference, access) = (reference.to_owned(), access.clone());
        let asked = tokio::task::spawn_blocking(move || registry::ask(&Reference::parse(&reference)?, &access)).await;
        Ok(asked.map_err(|e| Fault::new(Phase::Image, e))??)
    }

    /// Runs work on a thread that may block, until it is done or nobody waits for it any more. Where the disk was full it is
    /// done once more when nobody else is at work: another image may have taken the room, and given it back.
    async fn work(
        &self,
        id: &ImageId,
        progress: Progress,
        work: impl Fn(&Task) -> Result<Ready, ImageError> + Send + Sync + 'static,
    ) -> Result<Image, Fault> {
        let work = Arc::new(work);
        let once = async || {
            let stop = StopOnDrop(Cancel::default());
            let (cancel, progress) = (stop.0.clone(), progress.clone());
            let task = Task { cache: self.cache.clone(), limits: self.limits, cancel, progress };
            let work = work.clone();
            let done = tokio::task::spawn_blocking(move || work(&task)).await;
            done.map_err(|e| Fault::new(Phase::Image, format!("work on image `{id}` was lost: {e}")))
        };
        let beside = self.room.read().await;
        let ready = once().await?;
        drop(beside);
        let ready = match ready {
            Err(full) if full.is_full() && self.room.try_write().is_err() => {
                let _alone = self.room.write().await;
                once().await?
            }
            ready => ready,
        };
        Ok(ready?.image(id))
    }
}

struct StopOnDrop(Cancel);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The empty image under this name.
pub(crate) fn empty(id: &ImageId) -> Image {
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

//! Images: what a program in a cell is made of.
//!
//! In: a [`Source`] as the matrix declares it. Out: an [`Image`]: a flattened read-only tree in the cache, known by the
//! digest of its content, and facts learned by looking at it without running it. This room knows no engine and no cell.

mod apply;
mod blob;
mod bootstrap;
mod cache;
mod deb;
mod dnf;
mod elf;
pub mod error;
mod export;
mod files;
mod inspect;
mod manifest;
pub(crate) mod mmdebstrap;

pub mod registry;
mod root;
mod store;

mod tape;
mod task;
mod tool;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::engine::Facts;
use crate::id::ImageId;

pub use blob::{Cancel, Limits};
pub(crate) use bootstrap::tool as bootstrap_tool;
pub(crate) use dnf::is_repository;
pub use export::{TreeTar, tree_tar};
pub(crate) use store::empty;
pub use store::{EMPTY_DIGEST, ImageStore, Progress, Step, host_architecture, quiet};

/// Where an image comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// The empty image.
    Scratch,
    /// A directory that holds a root file system, or a tar file of one (plain, gzip or zstd).
    Rootfs(PathBuf),
    /// A `docker save` or OCI archive (a tar file); `tag` picks one of several images.
    Archive {
        /// The file.
        path: PathBuf,
        /// A name it was saved under.
        tag: Option<String>,
    },
    /// An OCI image layout directory; `tag` picks one of several images.
    Layout {
        /// The directory.
        path: PathBuf,
        /// `org.opencontainers.image.ref.name` of the image wanted.
        tag: Option<String>,
    },
    /// An image of a registry.
    Reference {
        /// `docker.io/library/debian:12`.
        reference: String,
        /// OCI's name of the architecture wanted, where it is not the host's.
        architecture: Option<String>,
        /// Who fetches it.
        pull: Pull,
    },
    /// A root file system made from a distribution's packages.
    Bootstrap(Bootstrap),
}

/// Who fetches an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pull {
    /// abicus, once, for every engine: from an engine that has it, else from its registry, else by way of an engine.
    #[default]
    Driver,
    /// Each engine for itself: what it makes of manifests and layers is part of the question.
    Engine,
}

/// A root file system made from a distribution's packages.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Bootstrap {
    /// Of Debian, Ubuntu and their like, by mmdebstrap, from its default mirror.
    Deb(Deb),
    /// Of Fedora, Rocky, openSUSE and their like, by dnf.
    Rpm(Rpm),
}

/// What mmdebstrap is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Deb {
    /// The suite: `bookworm`.
    pub suite: String,
    /// Debian's name of the architecture (`amd64`, `i386`); default: the host's.
    pub arch: Option<String>,
    /// mmdebstrap's variant; default `minbase`; see `mmdebstrap(1)`.
    pub variant: Option<String>,
    /// Packages to add.
    pub include: Vec<String>,
}

/// What dnf is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Rpm {
    /// The release, as repositories have it in their addresses: `41`, `9`.
    pub releasever: String,
    /// Addresses of repositories, with `$releasever` and `$basearch`; none: those this machine is configured with.
    pub repos: Vec<String>,
    /// Files of the keys that packages have to be signed with; none: signatures are not looked at.
    pub keys: Vec<PathBuf>,
    /// RPM's name of the architecture (`x86_64`, `i686`); default: the host's.
    pub arch: Option<String>,
    /// Packages to install; none: `bash` and `coreutils`.
    pub include: Vec<String>,
}

/// What the engine is given to run from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// Nothing at all.
    Empty,
    /// A flattened root file system, read-only, in the cache.
    Tree(PathBuf),
    /// Only engines that know the reference have it; no tree could be made.
    Reference(String),
}

/// An image that is ready to be handed to engines.
#[derive(Debug, Clone)]
pub struct Image {
    /// Its name in the matrix.
    pub id: ImageId,
    /// `sha256:…` of the content: the diff-id chain of its layers (a tree counts as one layer, its canonical tar).
    /// Empty when the image is only a reference and no tree was made.
    pub digest: String,
    /// The root file system.
    pub content: Content,
    /// OCI's name of the architecture (`amd64`, `386`, `arm64`), where known.
    pub architecture: Option<String>,
    /// The loader inside the image that runs dynamic programs (`/lib64/ld-linux-x86-64.so.2`), where there is one.
    pub loader: Option<String>,
    /// `digest`, `libc.kind`, `libc.version`, `os.id`, `os.version`, `arch`, `created`, `size`, … for comparison and rules.
    pub facts: Facts,
}

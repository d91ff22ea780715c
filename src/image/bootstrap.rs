//! A distribution's packages → a root file system, made by the distribution's own tool: by [`deb`](super::deb) or
//! [`dnf`](super::dnf). What both have in common.

use std::path::{Path, PathBuf};

use super::Bootstrap;
use super::blob::Cancel;
use super::error::ImageError;
use super::store::Progress;
use super::{deb, dnf};
use crate::engine::Facts;

/// What was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made {
    /// The root file system, as tar.
    pub archive: PathBuf,
    /// What is known about where it came from.
    pub facts: Facts,
    /// How old the packages are, as their source says.
    pub created: String,
}

/// What makes two bootstraps the same.
pub fn key(wanted: &Bootstrap, architecture: &str) -> String {
    match wanted {
        Bootstrap::Deb(wanted) => deb::key(wanted, architecture),
        Bootstrap::Rpm(wanted) => dnf::key(wanted, architecture),
    }
}

/// Makes the root file system in `work`, which nobody else uses.
pub fn make(
    wanted: &Bootstrap,
    architecture: &str,
    work: &Path,
    cancel: &Cancel,
    progress: &Progress,
) -> Result<Made, ImageError> {
    match wanted {
        Bootstrap::Deb(wanted) => deb::make(wanted, architecture, work, cancel, progress),
        Bootstrap::Rpm(wanted) => dnf::make(wanted, architecture, work, cancel, progress),
    }
}

/// The version of the tool that makes it, or how to get the tool.
pub(crate) fn tool(wanted: &Bootstrap) -> Result<String, ImageError> {
    match wanted {
        Bootstrap::Deb(_) => super::mmdebstrap::version(),
        Bootstrap::Rpm(_) => dnf::version(),
    }
}

/// The name of a suite, a release, an architecture or a package, that can be no option, no path and no pattern.
pub fn plain(name: &str, also: &str) -> bool {
    name.len() <= 100
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || also.contains(c))
}

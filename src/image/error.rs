//! Ways an image can be unusable, and what the user is told.

use std::io;
use std::path::Path;

use crate::fault::{Fault, Phase};

/// Why an image could not be made ready.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The operating system refused something.
    #[error("{doing}: {source}")]
    Io {
        /// What was being done, with the path.
        doing: String,
        /// What the system said.
        source: io::Error,
    },
    /// What the matrix names is not there.
    #[error("{what}")]
    Missing {
        /// What is missing, with its path.
        what: String,
        /// What the user can do.
        hint: String,
    },
    /// The content is cut off, contradicts itself or is of a format that is not understood.
    #[error("{0}")]
    Malformed(String),
    /// The content tries something that no honest image does.
    #[error("refused: {0}")]
    Hostile(String),
    /// The content is larger than the limits allow.
    #[error("refused: {0}")]
    TooLarge(String),
    /// The bytes are not the ones that were promised.
    #[error("{what} has digest {got}, but {wanted} was promised")]
    Digest {
        /// Which blob.
        what: String,
        /// What it should be.
        wanted: String,
        /// What it is.
        got: String,
    },
    /// A tool or a server that is needed failed.
    #[error("{what}")]
    Failed {
        /// What failed and how.
        what: String,
        /// What the user can do.
        hint: String,
        /// Whether another attempt could help.
        transient: bool,
    },
    /// The caller lost interest.
    #[error("interrupted")]
    Interrupted,
}

impl ImageError {
    /// An error of the operating system about a path.
    pub fn io(doing: &str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let doing = format!("{doing} `{}`", path.display());
        move |source| Self::Io { doing, source }
    }

    /// There was no room for it.
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Io { source, .. }
            if matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded))
    }
}

impl From<ImageError> for Fault {
    fn from(error: ImageError) -> Self {
        let fault = Self::new(Phase::Image, &error);
        if error.is_full() {
            return fault.hint("make room on the file system of the image cache, or point the cache elsewhere");
        }
        match error {
            ImageError::Io { source, .. } => match source.kind() {
                io::ErrorKind::PermissionDenied => fault.hint("make the file readable for this user, or run as root"),
                io::ErrorKind::Interrupted | io::ErrorKind::TimedOut => fault.transient(),
                _ => fault,
            },
            ImageError::Missing { hint, .. } => fault.hint(hint),
            ImageError::Failed { hint, transient, .. } => {
                let fault = if hint.is_empty() { fault } else { fault.hint(hint) };
                if transient { fault.transient() } else { fault }
            }
            ImageError::Digest { .. } => {
                fault.hint("the copy there is damaged: save the image again, or push it to the registry again")
            }
            ImageError::Malformed(_) => fault.hint("save the image again; the copy may be cut off"),
            ImageError::Hostile(_) => fault.hint("do not use this image before you know who made it"),
            ImageError::TooLarge(_) | ImageError::Interrupted => fault,
        }
    }
}

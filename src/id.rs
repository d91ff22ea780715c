//! Names of things. A name is short, printable and safe as a path segment, so the same string serves as storage key,
//! filter syntax and path.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Longest name accepted, in bytes.
const MAX_NAME: usize = 64;

/// A name that broke the rule, and the rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} `{name}` is not a valid name: {why}")]
pub struct InvalidName {
    /// What was being named (`image`, `host`…).
    pub what: &'static str,
    /// The name as it was given, cut to a printable length.
    pub name: String,
    /// Which rule it broke.
    pub why: &'static str,
}

fn valid(what: &'static str, name: &str) -> Result<(), InvalidName> {
    let why = if name.is_empty() {
        "it is empty"
    } else if name.len() > MAX_NAME {
        "it is longer than 64 bytes"
    } else if !name.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        "it must start with a letter or a digit"
    } else if !name.chars().all(|c| c.is_ascii_alphanumeric() || "._-+".contains(c)) {
        "only letters, digits, `.`, `_`, `-` and `+` are allowed"
    } else {
        return Ok(());
    };
    Err(InvalidName { what, name: name.chars().take(MAX_NAME).collect(), why })
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $what:literal $(, also $also:literal)?) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type(String);

        impl $type {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $type {
            type Err = InvalidName;
            fn from_str(name: &str) -> Result<Self, InvalidName> {
                $(if name == $also { return Ok(Self(name.to_owned())); })?
                valid($what, name)?;
                Ok(Self(name.to_owned()))
            }
        }

        impl TryFrom<String> for $type {
            type Error = InvalidName;
            fn try_from(name: String) -> Result<Self, InvalidName> {
                name.parse()
            }
        }

        impl From<$type> for String {
            fn from(id: $type) -> String {
                id.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
    };
}

name!(
    /// A host of the matrix.
    HostId, "host");
name!(
    /// An engine of the matrix, with its options: two sets of options are two engines.
    EngineId, "engine");
name!(
    /// An image of the matrix; `-` where the engine has none (native).
    ImageId, "image", also "-");
name!(
    /// A check of the catalogue, or of the user's own probe: `syscall.clone3`.
    CheckId, "check");
name!(
    /// A run: a ULID, so that names sort by start time.
    RunId, "run");
name!(
    /// A probe: `kernel`, `libc`, or the user's own.
    ProbeId, "probe");

impl ImageId {
    /// A name abicus gives to an image of its own; the caller knows that it is valid.
    pub(crate) fn reserved(name: &str) -> Self {
        Self(name.to_owned())
    }

    /// The image of a cell whose engine has none.
    pub fn none() -> Self {
        Self("-".to_owned())
    }

    /// Whether this is the image of an engine that has none.
    pub fn is_none(&self) -> bool {
        self.0 == "-"
    }
}

impl RunId {
    /// A new run, now.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        Self(ulid::Ulid::generate().to_string())
    }
}

impl HostId {
    /// A name abicus gives to a host of its own; the caller knows that it is valid.
    pub(crate) fn reserved(name: &str) -> Self {
        Self(name.to_owned())
    }
}

impl EngineId {
    /// A name abicus gives to an engine of its own; the caller knows that it is valid.
    pub(crate) fn reserved(name: &str) -> Self {
        Self(name.to_owned())
    }
}

impl CheckId {
    /// The first segment: `syscall` of `syscall.clone3`.
    pub fn group(&self) -> &str {
        self.0.split('.').next().unwrap_or(&self.0)
    }
}

/// One combination, printed `host:engine:image`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CellId {
    /// Whose kernel and hardware.
    pub host: HostId,
    /// What puts the process there.
    pub engine: EngineId,
    /// What the program is made of.
    pub image: ImageId,
}

impl fmt::Display for CellId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}:{}:{}", self.host, self.engine, self.image))
    }
}

impl FromStr for CellId {
    type Err = InvalidName;
    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let mut parts = text.split(':');
        let (Some(host), Some(engine), Some(image), None) = (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(InvalidName {
                what: "cell",
                name: text.chars().take(3 * MAX_NAME).collect(),
                why: "a cell is written host:engine:image",
            });
        };
        Ok(Self { host: host.parse()?, engine: engine.parse()?, image: image.parse()? })
    }
}

impl TryFrom<String> for CellId {
    type Error = InvalidName;
    fn try_from(text: String) -> Result<Self, InvalidName> {
        text.parse()
    }
}

impl From<CellId> for String {
    fn from(cell: CellId) -> String {
        cell.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_prints_as_it_is_parsed() {
        let cell: CellId = "local:docker:debian-12".parse().unwrap();
        assert_eq!(cell.to_string(), "local:docker:debian-12");
        assert_eq!(cell.engine.as_str(), "docker");
    }

    #[test]
    fn a_native_cell_has_no_image() {
        let cell: CellId = "local:native:-".parse().unwrap();
        assert!(cell.image.is_none());
    }

    #[test]
    fn names_that_could_leave_a_directory_are_refused() {
        for bad in ["", ".", "..", "../x", "a/b", "a b", "a:b", "-", "\u{1b}[31m"] {
            assert!(bad.parse::<HostId>().is_err(), "{bad:?} was accepted");
        }
        assert!("x".repeat(65).parse::<HostId>().is_err());
    }
}

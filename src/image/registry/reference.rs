//! `HOST/REPOSITORY:TAG@DIGEST` → its parts, each fit for a URL.

use std::fmt;

use super::super::blob::hex;
use super::super::error::ImageError;

/// The registry that is meant when a reference names none.
pub const DEFAULT_HOST: &str = "docker.io";

/// An image in a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// `registry.example.org:5000`.
    pub host: String,
    /// `library/debian`.
    pub repository: String,
    /// A tag, or a digest where one is given: that wins.
    pub version: String,
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = if self.is_pinned() { '@' } else { ':' };
        write!(f, "{}/{}{mark}{}", self.host, self.repository, self.version)
    }
}

impl Reference {
    /// Takes a reference apart.
    pub fn parse(text: &str) -> Result<Self, ImageError> {
        let wrong = |why: &str| ImageError::Missing {
            what: format!("`{text:.200}` is not a reference to an image: {why}"),
            hint: "write it as HOST/REPOSITORY:TAG, for instance registry.example.org/team/app:1.4".to_owned(),
        };
        let (name, digest) = text.split_once('@').map_or((text, None), |(name, digest)| (name, Some(digest)));
        let (name, tag) = match name.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (name, None),
        };
        let (host, path) = match name.split_once('/') {
            Some((host, path)) if host.contains(['.', ':']) || host == "localhost" => (host, path.to_owned()),
            Some(_) => (DEFAULT_HOST, name.to_owned()),
            None => (DEFAULT_HOST, format!("library/{name}")),
        };
        let (bare, port) = host.split_once(':').map_or((host, None), |(bare, port)| (bare, Some(port)));
        if bare.is_empty() || !bare.bytes().all(|b| b.is_ascii_alphanumeric() || b".-".contains(&b)) {
            return Err(wrong("the host has characters that no host name has"));
        }
        if port.is_some_and(|port| port.parse::<u16>().is_err()) {
            return Err(wrong("the port is no number"));
        }
        let good_part = |part: &str| {
            part.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
                && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b))
        };
        if path.len() > 255 || !path.split('/').all(good_part) {
            return Err(wrong("a repository has lower-case letters, digits, `.`, `_` and `-`"));
        }
        let tag = tag.unwrap_or("latest");
        let start = tag.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_');
        if !start || tag.len() > 128 || !tag.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)) {
            return Err(wrong("a tag has letters, digits, `.`, `_` and `-`"));
        }
        if let Some(digest) = digest {
            hex(digest).map_err(|_| wrong("what follows `@` is no SHA-256 digest"))?;
        }
        Ok(Self { host: host.to_owned(), repository: path, version: digest.unwrap_or(tag).to_owned() })
    }

    /// Whether it names its content and not just where to look.
    pub fn is_pinned(&self) -> bool {
        self.version.starts_with("sha256:")
    }

    /// Whether the host is this machine.
    pub fn is_loopback(&self) -> bool {
        let bare = self.host.split(':').next().unwrap_or_default();
        bare == "localhost" || bare.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_taken_apart_as_docker_does() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let pinned = format!("localhost:5000/a/b:c@{digest}");
        let cases = [
            ("debian", "docker.io", "library/debian", "latest"),
            ("team/app:1.4", "docker.io", "team/app", "1.4"),
            ("registry.example.org/app", "registry.example.org", "app", "latest"),
            ("127.0.0.1:5000/a/b:c", "127.0.0.1:5000", "a/b", "c"),
            (pinned.as_str(), "localhost:5000", "a/b", digest.as_str()),
        ];
        for (text, host, repository, version) in cases {
            let parsed = Reference::parse(text).unwrap();
            assert_eq!(
                (parsed.host.as_str(), parsed.repository.as_str(), parsed.version.as_str()),
                (host, repository, version)
            );
        }
    }

    #[test]
    fn what_could_be_another_url_is_refused() {
        for bad in [
            "",
            "a b",
            "A",
            "example.org/",
            "example.org/../x",
            "example.org/a:b c",
            "example.org/a?x",
            "example.org/a#x",
            "user@example.org/a",
            "exa%mple.org/a",
            "example.org:x/a",
            "example.org/a@sha256:00",
            "example.org/a:",
        ] {
            assert!(Reference::parse(bad).is_err(), "{bad:?}");
        }
    }
}

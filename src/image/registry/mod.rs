//! Images from registries, for engines that cannot pull for themselves.
//!
//! In: a reference, what the user's configuration says about registries. Out: blobs in the cache, each known by its digest.
//! A small blocking client of our own: what a pull needs is four kinds of request, and blobs that are gone on with where
//! they broke off.

mod credentials;
mod http;
mod reference;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::blob::{Cancel, hex, sha256};
use super::error::ImageError;
use super::manifest::{self, Next};
use super::store::{Progress, Step};
use http::Endpoint;
use reference::DEFAULT_HOST;
pub use reference::Reference;

/// How registries are reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// Files with credentials, in docker's format; the first that has any for a host counts.
    pub auth_files: Vec<PathBuf>,
    /// Registries to ask before the one that is named: host → base URLs, in order.
    pub mirrors: BTreeMap<String, Vec<String>>,
    /// Hosts that may be talked to without TLS; this machine always may.
    pub insecure: Vec<String>,
    /// How often a request that may pass is tried.
    pub attempts: u32,
}

impl Default for Access {
    fn default() -> Self {
        Self { auth_files: vec![], mirrors: BTreeMap::new(), insecure: vec![], attempts: 5 }
    }
}

impl Access {
    /// With the credentials that docker and podman would find for this user.
    pub fn of_user() -> Self {
        let variable = |name: &str| std::env::var_os(name).map(PathBuf::from);
        let docker = variable("DOCKER_CONFIG").or_else(|| Some(variable("HOME")?.join(".docker")));
        let files = [
            variable("REGISTRY_AUTH_FILE"),
            docker.map(|directory| directory.join("config.json")),
            variable("XDG_RUNTIME_DIR").map(|directory| directory.join("containers/auth.json")),
        ];
        Self { auth_files: files.into_iter().flatten().collect(), ..Self::default() }
    }

    /// The same, with what the matrix says of registries: host, base URLs of mirrors, whether it may do without TLS.
    pub fn with<'a>(mut self, registries: impl IntoIterator<Item = (&'a str, &'a [String], bool)>) -> Self {
        for (host, mirrors, insecure) in registries {
            self.mirrors.insert(host.to_owned(), mirrors.to_vec());
            if insecure {
                self.insecure.push(host.to_owned());
            }
        }
        self
    }

    /// Where to ask, in order, and whether that is the registry itself and not a mirror.
    fn bases(&self, reference: &Reference) -> Vec<(String, bool)> {
        let host = &reference.host;
        let mirrors = self.mirrors.get(host).into_iter().flatten();
        let mut bases: Vec<(String, bool)> =
            mirrors.map(|base| (base.trim_end_matches('/').to_owned(), false)).collect();
        // The default registry answers under another name than the one in references.
        let address = if host == DEFAULT_HOST { format!("registry-1.{host}") } else { host.clone() };
        let plain = (reference.is_loopback() || self.insecure.contains(host)) && http::speaks_plainly(&address);
        bases.push((format!("http{}://{address}", if plain { "" } else { "s" }), true));
        bases
    }
}

/// An image whose blobs are all there.
pub struct Fetched {
    /// Digest of its manifest.
    pub manifest: String,
    /// Size of its manifest.
    pub size: u64,
}

/// The digest of what a reference leads to: a manifest, or an index of them.
pub fn ask(reference: &Reference, access: &Access) -> Result<String, ImageError> {
    let asked = at_each(reference, access, &Cancel::default(), |endpoint| endpoint.manifest(&reference.version));
    asked.map(|(bytes, _)| sha256(&bytes))
}

/// Tries every way to a registry, the mirrors first.
fn at_each<T>(
    reference: &Reference,
    access: &Access,
    cancel: &Cancel,
    ask: impl Fn(&Endpoint<'_>) -> Result<T, ImageError>,
) -> Result<T, ImageError> {
    let credentials = credentials::find(&reference.host, &reference.repository, &access.auth_files)?;
    let mut last = None;
    for (base, own) in access.bases(reference) {
        // A mirror gets no credentials: they are for the registry.
        let credentials = credentials.clone().filter(|_| own);
        let endpoint = Endpoint::new(base, reference, credentials, access.attempts.max(1), cancel.clone());
        match ask(&endpoint) {
            Err(ImageError::Interrupted) => return Err(ImageError::Interrupted),
            Err(error) => last = Some(error),
            answered => return answered,
        }
    }
    Err(last.unwrap_or_else(|| ImageError::Malformed(format!("there is no way to reach `{}`", reference.host))))
}

/// Fetches an image into `place`, which is laid out like an OCI image layout. Once manifest and configuration are there,
/// `known` may say that the layers are not needed.
pub fn fetch(
    reference: &Reference,
    architecture: &str,
    access: &Access,
    place: &Path,
    cancel: &Cancel,
    progress: &Progress,
    known: &dyn Fn(&Fetched) -> bool,
) -> Result<Fetched, ImageError> {
    at_each(reference, access, cancel, |endpoint| fetch_from(endpoint, reference, architecture, place, progress, known))
}

fn fetch_from(
    endpoint: &Endpoint<'_>,
    reference: &Reference,
    architecture: &str,
    place: &Path,
    progress: &Progress,
    known: &dyn Fn(&Fetched) -> bool,
) -> Result<Fetched, ImageError> {
    let blobs = place.join("blobs/sha256");
    fs::create_dir_all(&blobs).map_err(ImageError::io("could not make", &blobs))?;
    let name = format!("{}/{}", reference.host, reference.repository);
    progress(Step { what: &format!("asking for the manifest of {name}"), done: 0, total: None });
    let mut version = reference.version.clone();
    for _ in 0..4 {
        let (bytes, promised) = endpoint.manifest(&version)?;
        let got = sha256(&bytes);
        let wanted = if version.starts_with("sha256:") { Some(version.clone()) } else { promised };
        if let Some(wanted) = wanted.filter(|wanted| *wanted != got) {
            return Err(ImageError::Digest { what: format!("the manifest of `{name}`"), wanted, got });
        }
        write(&blobs.join(hex(&got)?), &bytes)?;
        match manifest::next(&bytes, &name, architecture)? {
            Next::Manifest(digest) => version = digest,
            Next::Blobs(needed) => {
                let fetched = Fetched { manifest: got, size: bytes.len() as u64 };
                let total: u64 = needed.iter().map(|(_, size)| size).sum();
                let mut before = 0;
                for (at, (digest, size)) in needed.into_iter().enumerate() {
                    // The configuration comes first, and says what the layers make.
                    if at == 1 && known(&fetched) {
                        break;
                    }
                    let what = format!("fetching {name}");
                    let told = |have: u64| progress(Step { what: &what, done: before + have, total: Some(total) });
                    let done = blobs.join(hex(&digest)?);
                    if !done.exists() {
                        let part = blobs.join(format!("{}.part", hex(&digest)?));
                        endpoint.blob(&digest, size, &part, &told)?;
                        fs::rename(&part, &done).map_err(ImageError::io("could not move into place", &done))?;
                    }
                    before += size;
                }
                return Ok(fetched);
            }
        }
    }
    Err(ImageError::Hostile(format!("`{name}` has indexes in indexes without end")))
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), ImageError> {
    let part = path.with_extension("new");
    fs::write(&part, bytes).map_err(ImageError::io("could not write", &part))?;
    fs::rename(&part, path).map_err(ImageError::io("could not move into place", path))
}

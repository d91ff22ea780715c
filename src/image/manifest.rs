//! Which layers make up an image: OCI indexes and manifests, and `docker save`'s own list.
//!
//! In: [`Files`], which image of several is wanted, for which architecture. Out: [`Layers`]. Nothing is believed that a
//! digest can prove: indexes, manifests and configurations are read only if they are the promised ones.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::blob::{hex, sha256};
use super::error::ImageError;
use super::files::Files;

/// Most layers of an image; docker stops at 127.
const MAX_LAYERS: usize = 1024;
/// Indexes inside indexes.
const MAX_NESTING: usize = 4;

/// The layers of one image, lowest first, and what its configuration says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layers {
    /// The layers.
    pub layers: Vec<LayerFile>,
    /// Digest of the manifest, where there is one.
    pub manifest: Option<String>,
    /// OCI's name of the architecture, as the configuration has it.
    pub architecture: Option<String>,
    /// When the image was made, as the configuration has it.
    pub created: Option<String>,
}

/// One layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerFile {
    /// Its file.
    pub name: String,
    /// Digest and size of the file, where promised.
    pub stored: Option<(String, u64)>,
    /// Digest of the tar inside.
    pub inside: String,
}

impl Layers {
    /// The digest of the tree the layers make: OCI's chain id.
    pub fn chain(&self) -> String {
        let mut chain: Option<String> = None;
        for layer in &self.layers {
            chain = Some(match chain {
                None => layer.inside.clone(),
                Some(below) => sha256(format!("{below} {}", layer.inside).as_bytes()),
            });
        }
        chain.unwrap_or_else(|| sha256(b""))
    }
}

/// Finds an image. `tag` picks one of several.
pub fn find(files: &Files, tag: Option<&str>, architecture: &str) -> Result<Layers, ImageError> {
    // docker 25 and later write both; the list is what older engines read, and it names exactly the saved images.
    if files.has("manifest.json") {
        docker(files, tag)
    } else if files.has("index.json") {
        let index: Index = files.json("index.json", None)?;
        oci(files, index, tag, architecture, 0)
    } else {
        Err(ImageError::Missing {
            what: format!("`{}` is no image: neither manifest.json nor index.json is in it", files.path().display()),
            hint: "a root file system belongs under `rootfs`, not `archive` or `layout`".to_owned(),
        })
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

#[derive(Deserialize)]
struct Config {
    architecture: Option<String>,
    os: Option<String>,
    created: Option<String>,
    rootfs: Option<RootFs>,
}

#[derive(Deserialize)]
struct RootFs {
    #[serde(default)]
    diff_ids: Vec<String>,
}

/// `index.json`, or any index blob.
#[derive(Deserialize)]
struct Index {
    #[serde(default)]
    manifests: Vec<Descriptor>,
}

#[derive(Deserialize, Clone)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    #[serde(default)]
    media_type: String,
    digest: String,
    size: u64,
    platform: Option<Platform>,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize, Clone)]
struct Platform {
    architecture: String,
    os: String,
    #[serde(default)]
    variant: Option<String>,
}

impl Platform {
    /// `wanted` is `arm`, or with a variant `arm/v7`.
    fn is(&self, wanted: &str) -> bool {
        let (architecture, variant) = wanted.split_once('/').map_or((wanted, None), |(a, v)| (a, Some(v)));
        self.os == "linux"
            && self.architecture == architecture
            && variant.is_none_or(|wanted| self.variant.as_deref() == Some(wanted))
    }
}

impl std::fmt::Display for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.iter().filter(|variant| !variant.is_empty()).try_for_each(|variant| write!(f, "/{variant}"))
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    manifests: Option<Vec<Descriptor>>,
    fs_layers: Option<serde::de::IgnoredAny>,
}

fn docker(files: &Files, tag: Option<&str>) -> Result<Layers, ImageError> {
    let mut saved: Vec<Saved> = files.json("manifest.json", None)?;
    let tags: BTreeSet<String> = saved.iter().flat_map(|image| image.repo_tags.clone().unwrap_or_default()).collect();
    if let Some(tag) = tag {
        saved.retain(|image| image.repo_tags.iter().flatten().any(|name| same_tag(name, tag)));
    }
    let image = one(saved, &files.path().display().to_string(), tag, &tags)?;
    // The name of the configuration is its digest.
    let stem = image.config.rsplit('/').next().unwrap_or_default().trim_end_matches(".json");
    let promised = format!("sha256:{stem}");
    let promised = hex(&promised).is_ok().then_some(promised.as_str());
    let config: Config = files.json(&image.config, promised)?;
    let layers = image.layers.into_iter().map(|name| (name, None)).collect();
    layers_of(config, layers, None)
}

/// `debian:12` is `docker.io/library/debian:12` in other words; anything else must match exactly.
fn same_tag(name: &str, wanted: &str) -> bool {
    let short = |text: &str| {
        let text = text.strip_prefix("docker.io/").unwrap_or(text);
        let text = text.strip_prefix("library/").unwrap_or(text).to_owned();
        if text.rsplit('/').next().is_some_and(|last| last.contains(':')) { text } else { text + ":latest" }
    };
    name == wanted || short(name) == short(wanted)
}

fn one<T>(mut found: Vec<T>, path: &str, tag: Option<&str>, tags: &BTreeSet<String>) -> Result<T, ImageError> {
    let names = tags.iter().map(String::as_str).take(20).collect::<Vec<_>>().join(", ");
    match (found.len(), tag) {
        (1, _) => found.pop().ok_or_else(|| ImageError::Malformed(format!("`{path}` holds no image"))),
        (0, Some(tag)) => Err(ImageError::Missing {
            what: format!("`{path}` holds no image with tag `{tag}`"),
            hint: if names.is_empty() { "it has no tags".to_owned() } else { format!("its tags are: {names}") },
        }),
        (0, None) => Err(ImageError::Malformed(format!("`{path}` holds no image"))),
        (count, _) => Err(ImageError::Missing {
            what: format!("`{path}` holds {count} images and it is not said which one is meant"),
            hint: format!("name one by its tag, or save only one; its tags are: {names}"),
        }),
    }
}

/// The one image of an index that is wanted. `place` is what the index is in, for messages.
fn choose(index: Index, place: &str, tag: Option<&str>, architecture: &str) -> Result<Descriptor, ImageError> {
    const TAG: &str = "org.opencontainers.image.ref.name";
    let annotation = |d: &Descriptor, key: &str| d.annotations.as_ref().and_then(|all| all.get(key).cloned());
    let tags: BTreeSet<String> = index.manifests.iter().filter_map(|d| annotation(d, TAG)).collect();
    let mut found = index.manifests;
    // Build attestations are listed like images, for a platform that does not exist.
    found.retain(|d| annotation(d, "vnd.docker.reference.type").is_none());
    found.retain(|d| d.platform.as_ref().is_none_or(|p| p.os != "unknown"));
    if let Some(tag) = tag {
        found.retain(|d| {
            annotation(d, TAG).is_some_and(|name| name == tag || same_tag(&name, tag))
                || annotation(d, "io.containerd.image.name").is_some_and(|name| same_tag(&name, tag))
        });
    }
    if found.len() > 1 {
        let offered: BTreeSet<String> =
            found.iter().filter_map(|d| d.platform.as_ref()).map(ToString::to_string).collect();
        let fits = |d: &Descriptor| d.platform.as_ref().is_none_or(|platform| platform.is(architecture));
        if !offered.is_empty() && !found.iter().any(fits) {
            return Err(ImageError::Missing {
                what: format!("`{place}` has no image for linux/{architecture}"),
                hint: format!("it has: {}", offered.into_iter().collect::<Vec<_>>().join(", ")),
            });
        }
        found.retain(fits);
        found.dedup_by(|a, b| a.digest == b.digest);
    }
    one(found, place, tag, &tags)
}

/// What has to be fetched after a manifest or an index.
pub enum Next {
    /// The manifest with this digest.
    Manifest(String),
    /// These blobs, each with its size: then the image is whole.
    Blobs(Vec<(String, u64)>),
}

/// Reads a manifest or an index that a registry served as `place`.
pub fn next(bytes: &[u8], place: &str, architecture: &str) -> Result<Next, ImageError> {
    let manifest: Manifest = serde_json::from_slice(bytes)
        .map_err(|e| ImageError::Malformed(format!("the manifest of `{place}` is not understood: {e}")))?;
    if let Some(manifests) = manifest.manifests {
        return Ok(Next::Manifest(choose(Index { manifests }, place, None, architecture)?.digest));
    }
    let (config, layers) = parts(manifest, place)?;
    Ok(Next::Blobs(std::iter::once(config).chain(layers).map(|d| (d.digest, d.size)).collect()))
}

/// Finds the image with this manifest among files that are laid out like an OCI layout.
pub fn by_digest(files: &Files, digest: String, size: u64, architecture: &str) -> Result<Layers, ImageError> {
    let manifest = Descriptor { media_type: String::new(), digest, size, platform: None, annotations: None };
    oci(files, Index { manifests: vec![manifest] }, None, architecture, 0)
}

/// Configuration and layers of a manifest that is one of an image.
fn parts(manifest: Manifest, place: &str) -> Result<(Descriptor, Vec<Descriptor>), ImageError> {
    if manifest.fs_layers.is_some() {
        return Err(ImageError::Malformed(format!(
            "`{place}` has an image manifest of schema 1, which was withdrawn in 2019"
        )));
    }
    let (Some(config), Some(layers)) = (manifest.config, manifest.layers) else {
        return Err(ImageError::Malformed(format!("the manifest of `{place}` has no configuration or no layers")));
    };
    let known = ["application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json"];
    if !known.contains(&config.media_type.as_str()) {
        return Err(ImageError::Malformed(format!(
            "`{place}` is an artifact of type `{:.100}` and not an image",
            config.media_type
        )));
    }
    if let Some(layer) = layers.iter().find(|layer| layer.media_type.contains("encrypted")) {
        return Err(ImageError::Malformed(format!("layer `{}` is encrypted", layer.digest)));
    }
    if layers.len() > MAX_LAYERS {
        return Err(ImageError::TooLarge(format!("`{place}` has {} layers", layers.len())));
    }
    Ok((config, layers))
}

fn oci(
    files: &Files,
    index: Index,
    tag: Option<&str>,
    architecture: &str,
    nesting: usize,
) -> Result<Layers, ImageError> {
    let path = files.path().display().to_string();
    let chosen = choose(index, &path, tag, architecture)?;
    let mut manifest: Manifest = blob(files, &chosen)?;
    if let Some(manifests) = manifest.manifests.take() {
        if nesting >= MAX_NESTING {
            return Err(ImageError::Hostile(format!("`{path}` has indexes in indexes without end")));
        }
        return oci(files, Index { manifests }, None, architecture, nesting + 1);
    }
    let (config, layers) = parts(manifest, &path)?;
    let config: Config = blob(files, &config)?;
    let layers = layers.iter().map(|d| Ok((place(&d.digest)?, Some((d.digest.clone(), d.size)))));
    layers_of(config, layers.collect::<Result<_, ImageError>>()?, Some(chosen.digest))
}

fn place(digest: &str) -> Result<String, ImageError> {
    Ok(format!("blobs/sha256/{}", hex(digest)?))
}

fn blob<T: serde::de::DeserializeOwned>(files: &Files, descriptor: &Descriptor) -> Result<T, ImageError> {
    files.json(&place(&descriptor.digest)?, Some(&descriptor.digest))
}

type Stored = (String, Option<(String, u64)>);

fn layers_of(config: Config, layers: Vec<Stored>, manifest: Option<String>) -> Result<Layers, ImageError> {
    let inside = config.rootfs.map(|rootfs| rootfs.diff_ids).unwrap_or_default();
    if inside.len() != layers.len() || layers.len() > MAX_LAYERS {
        return Err(ImageError::Malformed(format!(
            "the image has {} layers and {} digests of layers",
            layers.len(),
            inside.len()
        )));
    }
    if let Some(os) = config.os.filter(|os| os != "linux" && !os.is_empty()) {
        return Err(ImageError::Malformed(format!("the image is for operating system `{os:.40}` and not for linux")));
    }
    let layers = layers.into_iter().zip(inside).map(|((name, stored), inside)| {
        hex(&inside)?;
        Ok(LayerFile { name, stored, inside })
    });
    let short = |text: Option<String>| text.filter(|text| !text.is_empty() && text.len() < 100);
    Ok(Layers {
        layers: layers.collect::<Result<_, ImageError>>()?,
        manifest,
        architecture: short(config.architecture),
        created: short(config.created),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variant_is_told_apart_where_one_is_asked_for() {
        let index = r#"{"manifests":[
            {"digest":"sha256:a","size":1,"platform":{"os":"linux","architecture":"arm","variant":"v6"}},
            {"digest":"sha256:b","size":1,"platform":{"os":"linux","architecture":"arm","variant":"v7"}},
            {"digest":"sha256:c","size":1,"platform":{"os":"linux","architecture":"arm64","variant":"v8"}}]}"#;
        let chosen = |wanted| match next(index.as_bytes(), "x", wanted) {
            Ok(Next::Manifest(digest)) => digest,
            Ok(Next::Blobs(_)) => panic!("blobs"),
            Err(error) => error.to_string(),
        };
        assert_eq!(
            (chosen("arm/v6"), chosen("arm/v7"), chosen("arm64")),
            ("sha256:a".into(), "sha256:b".into(), "sha256:c".into())
        );
        assert!(chosen("arm/v5").contains("no image for linux/arm/v5"), "{}", chosen("arm/v5"));
    }

    #[test]
    fn the_chain_of_two_layers_is_the_one_of_the_specification() {
        let layer = |inside: &str| LayerFile { name: String::new(), stored: None, inside: inside.to_owned() };
        let image = |layers| Layers { layers, manifest: None, architecture: None, created: None };
        assert_eq!(image(vec![]).chain(), super::super::EMPTY_DIGEST);
        assert_eq!(image(vec![layer("sha256:aa")]).chain(), "sha256:aa");
        assert_eq!(image(vec![layer("sha256:aa"), layer("sha256:bb")]).chain(), sha256(b"sha256:aa sha256:bb"));
    }

    #[test]
    fn a_tag_may_be_written_long_or_short() {
        assert!(same_tag("debian:12", "docker.io/library/debian:12"));
        assert!(same_tag("debian", "debian:latest"));
        assert!(same_tag("localhost:5000/a", "localhost:5000/a:latest"));
        assert!(!same_tag("debian:12", "debian:11"));
        assert!(!same_tag("example/debian:12", "debian:12"));
    }
}

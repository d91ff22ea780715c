//! Giving an image to an engine, and getting one out of it.
//!
//! In: an [`Image`]. Out: the name the engine knows it by. A tree is imported once per content and kept under
//! `abicus-cache/<image>:<digest>`, labelled so that it can be found and removed; a reference is used where the engine has
//! it and pulled by the engine where it has not.

use std::collections::HashMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex};

use bollard::body_try_stream;
use bollard::models::CreateImageInfo;
use bollard::query_parameters::{CreateImageOptionsBuilder, TagImageOptionsBuilder};
use bytes::Bytes;
use serde_json::Value;
use tokio::io::AsyncWriteExt;

use crate::fault::{Fault, Phase};
use crate::image::{Content, Image, tree_tar};

use super::api::{Api, CallError};
use super::transport::Address;

/// The repository of images that abicus gives to an engine.
const CACHE: &str = "abicus-cache";

/// The label (key) of images abicus imported; its value is the digest of the content.
pub(super) const CACHE_LABEL: &str = "abicus.cache";
/// Bytes read from a tree at a time.
const CHUNK: usize = 256 << 10;

/// Imports of the same image into the same daemon wait for each other: two engines of the matrix can be one daemon.
static IMPORTS: LazyLock<Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>> = LazyLock::new(Mutex::default);

/// Makes the image available and names it.
pub(super) async fn prepare(api: &Api, arch: &str, image: &Image, platform: Option<&str>) -> Result<String, Fault> {
    runs_here(arch, image, emulated(api, arch, image.architecture.as_deref()).await)?;
    match &image.content {
        Content::Reference(reference) => {
            let own = image.architecture.as_ref().map(|architecture| format!("linux/{architecture}"));
            fetch(api, arch, reference, platform.or(own.as_deref())).await
        }
        Content::Tree(tree) => import(api, image, Some(tree)).await,
        Content::Empty => import(api, image, None).await,
    }
}

/// Refuses an image whose programs this host cannot execute, before the kernel does so less clearly.
fn runs_here(arch: &str, image: &Image, emulated: bool) -> Result<(), Fault> {
    match image.architecture.as_deref() {
        Some(wanted) if !executes(arch, wanted) && !emulated => {
            let cause = format!("image `{}` is for {wanted}, the engine's host is {arch}", image.id);
            Err(Fault::new(Phase::Prepare, cause).hint(
                "use a host of that architecture, or register an emulator there (binfmt_misc) and name the `platform`",
            ))
        }
        _ => Ok(()),
    }
}

/// Whether a kernel of one architecture executes programs of another by itself; a variant (`arm/v7`) is the processor's.
fn executes(host: &str, wanted: &str) -> bool {
    let wanted = wanted.split('/').next().unwrap_or_default();
    host == wanted || matches!((host, wanted), ("amd64", "386") | ("arm64", "arm"))
}

/// Whether the engine's host has an emulator registered. Over TCP nobody can be asked, and the cell says it when it starts.
async fn emulated(api: &Api, host: &str, wanted: Option<&str>) -> bool {
    let Some(wanted) = wanted.filter(|wanted| !executes(host, wanted)) else { return false };
    let emulator = match wanted.split('/').next().unwrap_or_default() {
        "386" => "qemu-i386",
        "amd64" => "qemu-x86_64",
        "arm64" => "qemu-aarch64",
        other => &format!("qemu-{other}"),
    };
    let registered = Path::new("/proc/sys/fs/binfmt_misc").join(emulator);
    match api.address() {
        Address::Unix(_) => registered.exists(),
        Address::There { reach, .. } => reach.stat(&registered.display().to_string()).await.is_ok(),
        Address::Tcp(_) | Address::Tls { .. } => true,
    }
}

/// The name of an imported image. Repositories are lower case; the digest tells apart what that makes equal.
fn cache_name(image: &Image) -> String {
    name_of(image.id.as_str(), &image.digest)
}

/// The same of an image by its name in the matrix and its digest.
pub(super) fn name_of(id: &str, digest: &str) -> String {
    let repository: String = id
        .to_ascii_lowercase()
        .split(|c: char| !c.is_ascii_alphanumeric())
        .filter(|part| !part.is_empty())
        .collect::<Vec<_>>()
        .join("-");
    let hex: String = digest.rsplit(':').next().unwrap_or_default().chars().take(12).collect();
    format!("{CACHE}/{repository}:{hex}")
}

async fn import(api: &Api, image: &Image, tree: Option<&PathBuf>) -> Result<String, Fault> {
    let name = cache_name(image);
    let key = format!("{} {name}", api.address());
    let lock = IMPORTS.lock().unwrap_or_else(std::sync::PoisonError::into_inner).entry(key).or_default().clone();
    let _one_at_a_time = lock.lock().await;

    let fault = |e: &CallError| e.fault(Phase::Prepare, &format!("import image `{}`", image.id));
    if let Some(known) = inspect(api, &name).await.map_err(|e| fault(&e))?
        && known["Config"]["Labels"][CACHE_LABEL].as_str() == Some(&image.digest)
    {
        return Ok(name);
    }
    let platform = image.architecture.as_ref().map(|a| format!("linux/{a}")).unwrap_or_default();
    let options = CreateImageOptionsBuilder::default()
        .from_src("-")
        // The tag with it: podman 4.3 ignores `tag` when it imports.
        .repo(&name)
        .platform(&platform)
        .changes([format!("LABEL {CACHE_LABEL}={}", image.digest)].to_vec())
        .build();
    let body = match tree {
        Some(tree) => body_try_stream(chunks(tree_tar(tree)?)),
        // Two blocks of zeros end a tar file; this one has nothing before them.
        None => http_body_util::Either::Left(http_body_util::Full::new(Bytes::from_static(&[0; 1024]))),
    };
    let mut id = None;
    let said = |said: CreateImageInfo| {
        id = said.id.or(id.take());
        Ok(())
    };
    api.drain(api.docker.create_image(Some(options), Some(body), None), said).await.map_err(|e| fault(&e))?;
    let mut known = inspect(api, &name).await.map_err(|e| fault(&e))?;
    // Podman 3.0 knows no `repo` either, and says which image it has made:
    // <https://github.com/containers/podman/issues/10060>.
    if let (None, Some(id)) = (&known, id.filter(|id| id.chars().all(|c| c.is_ascii_hexdigit()))) {
        tag(api, &id, &name).await.map_err(|e| fault(&e))?;
        known = inspect(api, &name).await.map_err(|e| fault(&e))?;
    }
    match known {
        Some(_) => Ok(name),
        None => {
            Err(Fault::new(Phase::Prepare, format!("import image `{}`: the engine has no {name} afterwards", image.id)))
        }
    }
}

async fn tag(api: &Api, id: &str, name: &str) -> Result<(), CallError> {
    let (repository, tag) = name.rsplit_once(':').unwrap_or((name, "latest"));
    let options = TagImageOptionsBuilder::default().repo(repository).tag(tag).build();
    Ok(api.docker.tag_image(id, Some(options)).await?)
}

/// A blocking reader as a stream: a thread reads a little ahead of the connection and ends when nobody listens.
fn chunks(mut from: impl Read + Send + 'static) -> impl futures_util::Stream<Item = std::io::Result<Bytes>> + Send {
    let (send, receive) = tokio::sync::mpsc::channel(4);
    tokio::task::spawn_blocking(move || {
        loop {
            let mut buffer = vec![0; CHUNK];
            let next = match from.read(&mut buffer) {
                Ok(0) => return,
                Ok(n) => {
                    buffer.truncate(n);
                    Ok(Bytes::from(buffer))
                }
                Err(error) => Err(error),
            };
            let last = next.is_err();
            if send.blocking_send(next).is_err() || last {
                return;
            }
        }
    });
    futures_util::stream::unfold(receive, |mut receive| async { receive.recv().await.map(|item| (item, receive)) })
}

/// Whether the engine has an image of this reference, and for this platform where one is asked for.
pub(super) async fn has(api: &Api, reference: &str, platform: Option<&str>) -> Result<bool, Fault> {
    let reference = well_formed(reference)?;
    let known = inspect(api, reference).await.map_err(|e| e.fault(Phase::Image, reference))?;
    Ok(known.is_some_and(|known| platform.is_none_or(|platform| same_platform(&known, platform))))
}

/// Images somebody else gave the engine, by name.
pub(super) async fn references(api: &Api) -> Result<Vec<String>, Fault> {
    let images = api.get("/images/json").await.map_err(|e| e.fault(Phase::Image, "list the images"))?;
    let names = images.as_array().into_iter().flatten().flat_map(|image| image["RepoTags"].as_array());
    let names = names.flatten().filter_map(Value::as_str);
    let foreign = names.filter(|name| !name.contains(CACHE) && !name.contains("<none>"));
    Ok(foreign.filter_map(|name| well_formed(name).ok()).map(str::to_owned).collect())
}

async fn fetch(api: &Api, arch: &str, reference: &str, platform: Option<&str>) -> Result<String, Fault> {
    let reference = well_formed(reference)?;
    let fault = |e: CallError| e.fault(Phase::Image, reference);
    let known = match inspect(api, reference).await.map_err(fault)? {
        Some(known) if platform.is_none_or(|p| same_platform(&known, p)) => known,
        _ => {
            pull(api, reference, platform).await?;
            let seen = inspect(api, reference).await.map_err(fault)?;
            seen.ok_or_else(|| {
                Fault::new(Phase::Image, format!("{reference}: pulled, but the engine does not have it"))
            })?
        }
    };
    let wanted = known["Architecture"].as_str().unwrap_or(arch);
    if !executes(arch, wanted) && !emulated(api, arch, Some(wanted)).await {
        let cause = format!("{reference} is for {wanted}, the engine's host is {arch}");
        return Err(
            Fault::new(Phase::Prepare, cause).hint("name another `platform`, or use a host of that architecture")
        );
    }
    Ok(reference.to_owned())
}

fn same_platform(known: &Value, platform: &str) -> bool {
    let mut parts = platform.split('/');
    let same = parts.next() == known["Os"].as_str() && parts.next() == known["Architecture"].as_str();
    // An engine that names no variant has the only one there is.
    let variant = known["Variant"].as_str().filter(|variant| !variant.is_empty());
    same && parts.next().is_none_or(|wanted| variant.is_none_or(|variant| variant == wanted))
}

async fn pull(api: &Api, reference: &str, platform: Option<&str>) -> Result<(), Fault> {
    // Without a tag the engines pull every tag there is.
    let tagged = reference.rsplit('/').next().is_some_and(|last| last.contains([':', '@']));
    let from = if tagged { reference.to_owned() } else { format!("{reference}:latest") };
    let options = CreateImageOptionsBuilder::default().from_image(&from).platform(platform.unwrap_or_default()).build();
    // Docker answers 404 or 500, podman 200 and an error in the stream.
    api.drain(api.docker.create_image(Some(options), None, None), |_| Ok(())).await.map_err(|e| {
        let fault = e.fault(Phase::Image, &format!("pull {reference}"));
        let text = e.to_string().to_lowercase();
        if ["unauthorized", "denied", "authentication"].iter().any(|w| text.contains(w)) {
            fault.hint("the registry wants credentials, or there is no such repository")
        } else if ["not found", "unknown", "no such"].iter().any(|w| text.contains(w)) {
            fault.hint("there is no such image or tag; check the reference")
        } else if ["dial", "lookup", "timeout", "refused", "i/o", "eof"].iter().any(|w| text.contains(w)) {
            fault.hint("the engine cannot reach the registry; check its network, proxy and mirrors").transient()
        } else {
            fault
        }
    })
}

/// What the engine knows about an image; `None` where it has none of that name.
async fn inspect(api: &Api, name: &str) -> Result<Option<Value>, CallError> {
    match api.get(&format!("/images/{name}/json")).await {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.status() == Some(404) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Refuses what is no reference: it becomes part of a path of the API.
fn well_formed(reference: &str) -> Result<&str, Fault> {
    let ok = !reference.is_empty()
        && reference.len() <= 512
        && reference.starts_with(|c: char| c.is_ascii_alphanumeric())
        && reference.chars().all(|c| c.is_ascii_alphanumeric() || "._-/:@".contains(c))
        && reference.split('/').all(|part| !part.is_empty() && part != "." && part != "..");
    if ok {
        return Ok(reference);
    }
    Err(Fault::new(Phase::Image, format!("`{}` is not an image reference", reference.escape_default()))
        .hint("a reference looks like docker.io/library/debian:12"))
}

/// Writes an image the engine has (or pulls) to a file as `docker save` does, so that other engines can be given it.
pub(super) async fn export(
    api: &Api,
    arch: &str,
    reference: &str,
    platform: Option<&str>,
    to: &Path,
) -> Result<(), Fault> {
    let name = fetch(api, arch, reference, platform).await?;
    let wrong = |why: String| Fault::new(Phase::Image, format!("save {reference} to {}: {why}", to.display()));
    let mut file = tokio::fs::File::create(to).await.map_err(|e| wrong(e.to_string()))?;
    let mut stream = std::pin::pin!(api.docker.export_image(&name));
    loop {
        let next = futures_util::StreamExt::next(&mut stream);
        match tokio::time::timeout(super::api::SILENCE, next).await {
            Err(_) => return Err(wrong(CallError::Silent(super::api::SILENCE).to_string()).transient()),
            Ok(None) => break,
            Ok(Some(Err(error))) => {
                return Err(CallError::from(error).fault(Phase::Image, &format!("save {reference}")));
            }
            Ok(Some(Ok(bytes))) => file.write_all(&bytes).await.map_err(|e| wrong(e.to_string()))?,
        }
    }
    file.flush().await.map_err(|e| wrong(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Facts;

    fn image(id: &str, architecture: Option<&str>) -> Image {
        Image {
            id: id.parse().unwrap(),
            digest: "sha256:0123456789abcdef0123".to_owned(),
            content: Content::Empty,
            architecture: architecture.map(str::to_owned),
            loader: None,
            facts: Facts::new(),
        }
    }

    #[test]
    fn a_cached_image_has_a_name_that_engines_accept() {
        assert_eq!(cache_name(&image("debian-12", None)), "abicus-cache/debian-12:0123456789ab");
        assert_eq!(cache_name(&image("My_Image+x..y", None)), "abicus-cache/my-image-x-y:0123456789ab");
    }

    #[test]
    fn a_variant_asked_for_is_not_another() {
        let known = serde_json::json!({"Os": "linux", "Architecture": "arm", "Variant": "v6"});
        assert!(same_platform(&known, "linux/arm") && same_platform(&known, "linux/arm/v6"));
        assert!(!same_platform(&known, "linux/arm/v7") && !same_platform(&known, "linux/arm64"));
    }

    #[test]
    fn what_is_no_reference_never_becomes_part_of_a_path() {
        for good in
            ["debian", "debian:12", "docker.io/library/debian@sha256:00", "127.0.0.1:5000/x/y:z", "abicus-cache/a:0"]
        {
            assert!(well_formed(good).is_ok(), "{good}");
        }
        for bad in ["", "/x", "../../containers/json?", "a/../b", "a//b", "a b", "a?b", "a#b", "a%2fb", "-x", "é"] {
            assert!(well_formed(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_image_of_another_architecture_is_refused_by_name() {
        assert!(runs_here("amd64", &image("a", Some("amd64")), false).is_ok());
        assert!(runs_here("amd64", &image("a", Some("386")), false).is_ok());
        assert!(runs_here("amd64", &image("a", None), false).is_ok());
        assert!(runs_here("arm64", &image("a", Some("arm/v7")), false).is_ok());
        assert!(runs_here("amd64", &image("a", Some("s390x")), true).is_ok(), "by an emulator");
        let fault = runs_here("amd64", &image("strange", Some("s390y")), false).unwrap_err();
        assert!(fault.cause.contains("`strange` is for s390y, the engine's host is amd64"), "{fault}");
    }
}

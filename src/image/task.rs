//! One image being made ready: what happens between a source and a tree in the cache, on a thread that may block.
//!
//! In: a source, the cache. Out: [`Ready`]. Locks are taken by the name of the source first and by the digest second.

use std::fs::{File, Metadata};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::apply::{Applier, Deletions};
use super::blob::{Cancel, Counted, Digests, Layer, Limits};
use super::cache::{Cache, Lock, Tree, Work};
use super::error::ImageError;
use super::export::TreeTar;
use super::files::Files;
use super::inspect::{inspect, printable};
use super::manifest::{self, LayerFile, Layers};
use super::registry::{self, Access, Fetched, Reference};
use super::root::Root;
use super::store::{EMPTY_DIGEST, Progress, Step};
use super::tape::read::{Reader, reading};
use super::{Bootstrap, Content, Image, bootstrap};
use crate::engine::Facts;
use crate::id::ImageId;

/// A tree and what its source says about it.
pub struct Ready {
    tree: Tree,
    origin: Origin,
}

/// What a source says about the tree it became; kept so that it need not be read again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Origin {
    digest: String,
    manifest: Option<String>,
    architecture: Option<String>,
    created: Option<String>,
    #[serde(default)]
    facts: Facts,
}

impl Ready {
    /// As the engines want it.
    pub fn image(self, id: &ImageId) -> Image {
        let Self { tree, origin } = self;
        let mut facts = tree.facts;
        facts.extend(origin.facts);
        facts.insert("digest".to_owned(), tree.digest.clone());
        let mut say = |name: &str, value: &Option<String>| {
            if let Some(value) = value {
                facts.insert(name.to_owned(), printable(value));
            }
        };
        say("manifest.digest", &origin.manifest);
        say("created", &origin.created);
        let architecture = tree.architecture.or_else(|| origin.architecture.clone());
        say("arch", &architecture);
        if origin.architecture.is_some() && origin.architecture != architecture {
            say("arch.declared", &origin.architecture);
        }
        let nothing = tree.digest == EMPTY_DIGEST;
        Image {
            id: id.clone(),
            digest: tree.digest,
            content: if nothing { Content::Empty } else { Content::Tree(tree.root) },
            architecture,
            loader: tree.loader,
            facts,
        }
    }
}

/// One image being made ready.
pub struct Task {
    /// Where things are kept.
    pub cache: Cache,
    /// What the image may cost.
    pub limits: Limits,
    /// Set when nobody waits for it any more.
    pub cancel: Cancel,
    /// Is told what is being done.
    pub progress: Progress,
}

impl Task {
    fn say(&self, what: &str) {
        (self.progress)(Step { what, done: 0, total: None });
    }

    fn lock(&self, key: &str) -> Result<Lock, ImageError> {
        self.cache.lock(key, &self.cancel, &|| self.say("waiting for another abicus that works on the same image"))
    }

    /// What was found the last time, if the tree is still there.
    fn known(&self, key: &str) -> Option<Ready> {
        let origin: Origin = serde_json::from_str(&self.cache.source(key)?).ok()?;
        Some(Ready { tree: self.cache.tree(&origin.digest)?, origin })
    }

    fn remember(&self, key: &str, origin: &Origin) -> Result<(), ImageError> {
        self.cache.keep_source(key, &serde_json::to_string(origin).unwrap_or_default())
    }

    /// A directory or a tar of a root file system.
    pub fn rootfs(&self, path: &Path) -> Result<Ready, ImageError> {
        let metadata = look(path, "a root file system")?;
        if metadata.is_dir() {
            return self.directory(path);
        }
        let key = file_key("rootfs", path, &metadata);
        let _lock = self.lock(&key)?;
        if let Some(ready) = self.known(&key) {
            return Ok(ready);
        }
        let file = File::open(path).map_err(ImageError::io("could not open", path))?;
        let tree = self.single(file, metadata.len(), &format!("unpacking `{}`", path.display()))?;
        let origin = Origin { digest: tree.digest.clone(), ..Origin::default() };
        self.remember(&key, &origin)?;
        Ok(Ready { tree, origin })
    }

    /// A directory becomes the layer that is its canonical tar.
    fn directory(&self, path: &Path) -> Result<Ready, ImageError> {
        self.say(&format!("reading `{}`", path.display()));
        let reading = |e: std::io::Error| ImageError::io("could not read", path)(e);
        let tar = TreeTar::new(path)?;
        let digest = Counted::new(tar, self.cancel.clone()).digest().map_err(reading)?;
        let tree = match self.cache.tree(&digest) {
            Some(tree) => tree,
            None => self.single(TreeTar::new(path)?, 0, &format!("copying `{}`", path.display()))?,
        };
        let origin = Origin { digest: tree.digest.clone(), ..Origin::default() };
        Ok(Ready { tree, origin })
    }

    /// A tree from one tar archive without deletions.
    fn single<R: Read>(&self, archive: R, size: u64, what: &str) -> Result<Tree, ImageError> {
        let work = self.cache.work()?;
        let root = make_root(&work)?;
        let mut applier = Applier::new(&root, self.limits)?;
        let metered = Metered { inner: archive, what, done: 0, told: 0, total: size, progress: &self.progress };
        let mut layer = Layer::new(metered, self.limits, self.cancel.clone())?;
        let mut reader = Reader::new(&mut layer);
        applier.layer(&mut reader, Deletions::Literal)?;
        if !reader.drain()? {
            return Err(ImageError::Malformed(
                "the tar archive has no end mark: it is cut off or no tar at all".to_owned(),
            ));
        }
        let digests = layer.finish()?;
        if ["manifest.json", "index.json"].iter().any(|name| root.join(name).is_file()) && !root.join("etc").is_dir() {
            return Err(ImageError::Missing {
                what: "this is an archive of layers and not a root file system".to_owned(),
                hint: "write `archive = …` instead of `rootfs = …`".to_owned(),
            });
        }
        self.keep(&work, &root, applier, digests.inside)
    }

    fn keep(&self, work: &Work, root: &Path, applier: Applier, digest: String) -> Result<Tree, ImageError> {
        let applied = applier.finish()?;
        self.say("looking at it");
        let mut inspection = inspect(&Root::open(root)?);
        inspection.facts.insert("size".to_owned(), applied.size.to_string());
        if !applied.dropped.is_empty() {
            let dropped = applied.dropped.into_iter().collect::<Vec<_>>().join(" ");
            inspection.facts.insert("tree.dropped".to_owned(), dropped);
        }
        let tree = Tree::new(digest, inspection.architecture, inspection.loader, inspection.facts);
        self.cache.keep(work, &tree)
    }

    /// A `docker save` or OCI archive.
    pub fn archive(&self, path: &Path, tag: Option<&str>, arch: &str) -> Result<Ready, ImageError> {
        let metadata = look(path, "an image archive")?;
        if metadata.is_dir() {
            return self.layout(path, tag, arch);
        }
        let key = file_key(&format!("archive {tag:?} {arch}"), path, &metadata);
        let _lock = self.lock(&key)?;
        if let Some(ready) = self.known(&key) {
            return Ok(ready);
        }
        let file = File::open(path).map_err(ImageError::io("could not open", path))?;
        let what = format!("uncompressing `{}`", path.display());
        let metered =
            Metered { inner: file, what: &what, done: 0, told: 0, total: metadata.len(), progress: &self.progress };
        let mut inside = Layer::new(metered, self.limits, self.cancel.clone())?;
        let work = self.cache.work()?;
        let files = if inside.is_compressed() {
            // Layers are read in any order, so the archive has to lie there uncompressed while it is read.
            let plain = work.path().join("archive.tar");
            let mut out = File::create(&plain).map_err(ImageError::io("could not make", &plain))?;
            std::io::copy(&mut inside, &mut out).map_err(reading)?;
            Files::archive(&plain)?
        } else {
            Files::archive(path)?
        };
        let ready = self.layers(&files, manifest::find(&files, tag, arch)?)?;
        self.remember(&key, &ready.origin)?;
        Ok(ready)
    }

    /// An OCI image layout.
    pub fn layout(&self, path: &Path, tag: Option<&str>, arch: &str) -> Result<Ready, ImageError> {
        if !look(path, "an OCI image layout")?.is_dir() {
            return self.archive(path, tag, arch);
        }
        let files = Files::directory(path)?;
        self.layers(&files, manifest::find(&files, tag, arch)?)
    }

    /// An image in a registry. The tag is looked up each time; what it names is fetched and unpacked once.
    pub fn registry(&self, reference: &str, arch: &str, access: &Access) -> Result<Ready, ImageError> {
        let reference = Reference::parse(reference)?;
        let key = format!("registry {reference:?} {arch}");
        let _lock = self.lock(&key)?;
        if reference.is_pinned()
            && let Some(ready) = self.known(&key)
        {
            return Ok(ready);
        }
        // Each reference has a place of its own, so that two that share blobs do not write one file.
        let place = self.cache.fetched(&key)?;
        let files = Files::directory(&place)?;
        let layers = |fetched: &Fetched| manifest::by_digest(&files, fetched.manifest.clone(), fetched.size, arch);
        let known = |fetched: &Fetched| layers(fetched).is_ok_and(|found| self.cache.tree(&found.chain()).is_some());
        let fetched = registry::fetch(&reference, arch, access, &place, &self.cancel, &self.progress, &known);
        let ready = fetched.and_then(|fetched| self.layers(&files, layers(&fetched)?));
        // What is kept to be gone on with takes the room of other images.
        let mut ready = ready.inspect_err(|error| {
            if error.is_full() {
                self.cache.forget_fetched(&place)
            }
        })?;
        ready.origin.facts.insert("reference".to_owned(), reference.to_string());
        self.remember(&key, &ready.origin)?;
        // The tree is what counts from here on.
        self.cache.forget_fetched(&place);
        Ok(ready)
    }

    fn layers(&self, files: &Files, found: Layers) -> Result<Ready, ImageError> {
        let digest = found.chain();
        let origin = Origin {
            digest: digest.clone(),
            manifest: found.manifest.clone(),
            architecture: found.architecture.clone(),
            created: found.created.clone(),
            facts: Facts::new(),
        };
        let _lock = self.lock(&digest)?;
        if let Some(tree) = self.cache.tree(&digest) {
            return Ok(Ready { tree, origin });
        }
        let work = self.cache.work()?;
        let root = make_root(&work)?;
        let mut applier = Applier::new(&root, self.limits)?;
        for (at, layer) in found.layers.iter().enumerate() {
            let what = format!("unpacking layer {} of {}", at + 1, found.layers.len());
            self.layer(files, layer, &what, &mut applier)?;
        }
        let tree = self.keep(&work, &root, applier, digest)?;
        Ok(Ready { tree, origin })
    }

    fn layer(&self, files: &Files, layer: &LayerFile, what: &str, applier: &mut Applier) -> Result<(), ImageError> {
        let part = files.open(&layer.name)?;
        let total = part.size();
        let metered = Metered { inner: part, what, done: 0, told: 0, total, progress: &self.progress };
        let mut inside = Layer::new(metered, self.limits, self.cancel.clone())?;
        let mut reader = Reader::new(&mut inside);
        let applied = applier.layer(&mut reader, Deletions::Whiteouts).and_then(|()| reader.drain());
        // A damaged layer breaks somewhere in the middle; that it is damaged says more than how it broke.
        let digests = match (inside.finish(), applied) {
            (Ok(digests), applied) => {
                check(&layer.name, layer.stored.as_ref(), &layer.inside, &digests)?;
                applied?;
                digests
            }
            (Err(error), Ok(_)) => return Err(error),
            (Err(_), Err(error)) => return Err(error),
        };
        drop(digests);
        Ok(())
    }

    /// Made of a distribution's packages.
    pub fn bootstrap(&self, wanted: &Bootstrap, arch: &str) -> Result<Ready, ImageError> {
        let key = bootstrap::key(wanted, arch);
        let _lock = self.lock(&key)?;
        if let Some(ready) = self.known(&key) {
            return Ok(ready);
        }
        let work = self.cache.work()?;
        let made = bootstrap::make(wanted, arch, work.path(), &self.cancel, &self.progress)?;
        let size = look(&made.archive, "what was made of packages")?.len();
        let file = File::open(&made.archive).map_err(ImageError::io("could not open", &made.archive))?;
        let tree = self.single(file, size, "unpacking what was made of packages")?;
        let origin =
            Origin { digest: tree.digest.clone(), created: Some(made.created), facts: made.facts, ..Origin::default() };
        self.remember(&key, &origin)?;
        Ok(Ready { tree, origin })
    }
}

fn check(name: &str, stored: Option<&(String, u64)>, inside: &str, got: &Digests) -> Result<(), ImageError> {
    let wrong = |what: &str, wanted: &str, got: &str| {
        Err(ImageError::Digest {
            what: format!("{what} `{name:.200}`"),
            wanted: wanted.to_owned(),
            got: got.to_owned(),
        })
    };
    match stored {
        Some((digest, _)) if *digest != got.stored => wrong("layer", digest, &got.stored),
        Some((_, size)) if *size != got.stored_size => Err(ImageError::Malformed(format!(
            "layer `{name:.200}` has {} bytes and should have {size}",
            got.stored_size
        ))),
        _ if inside != got.inside => wrong("the content of layer", inside, &got.inside),
        _ => Ok(()),
    }
}

fn look(path: &Path, what: &str) -> Result<Metadata, ImageError> {
    match std::fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() || metadata.is_file() => Ok(metadata),
        Ok(_) => Err(ImageError::Malformed(format!("`{}` is neither a file nor a directory", path.display()))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(ImageError::Missing {
            what: format!("`{}` is not there; it should be {what}", path.display()),
            hint: "paths in matrix.toml are relative to the file itself".to_owned(),
        }),
        Err(error) => Err(ImageError::io("could not look at", path)(error)),
    }
}

/// Names a file as it is now: a change of its content changes at least its change time.
fn file_key(what: &str, path: &Path, metadata: &Metadata) -> String {
    let (m, path) = (metadata, path.display());
    let changed = (m.mtime(), m.mtime_nsec(), m.ctime(), m.ctime_nsec());
    format!("{what} {path} {} {} {} {changed:?}", m.dev(), m.ino(), m.len())
}

fn make_root(work: &Work) -> Result<PathBuf, ImageError> {
    let root = work.path().join("root");
    std::fs::create_dir(&root).map_err(ImageError::io("could not make", &root))?;
    Ok(root)
}

/// Tells how far reading has come, every few megabytes.
struct Metered<'a, R> {
    inner: R,
    what: &'a str,
    done: u64,
    told: u64,
    total: u64,
    progress: &'a Progress,
}

impl<R: Read> Read for Metered<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.done += n as u64;
        if self.told == 0 || self.done >= self.told + (4 << 20) || n == 0 {
            self.told = self.done.max(1);
            (self.progress)(Step {
                what: self.what,
                done: self.done,
                total: Some(self.total).filter(|total| *total > 0),
            });
        }
        Ok(n)
    }
}

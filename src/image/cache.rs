//! What the store keeps on disk.
//!
//! ```text
//! CACHE/trees/HEX/root/         the tree whose digest is sha256:HEX
//! CACHE/trees/HEX/facts.json    what was learned by looking at it
//! CACHE/sources/HEX             the digest of what a source (a file as it was at that time, a bootstrap) was found to be
//! CACHE/fetched/HEX/            blobs of an image that is being fetched from a registry
//! CACHE/locks/HEX               held while somebody works on it
//! CACHE/work                    work in progress; whoever finds one that nobody holds removes it
//! ```
//! A name under `trees` or `sources` appears by one rename of something complete and flushed, so what is there is whole.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

use super::blob::{Cancel, hex, sha256};
use super::error::ImageError;
use crate::engine::Facts;

/// Changes when trees of older versions can no longer be used.
const FORMAT: u32 = 1;

/// The directory.
#[derive(Debug, Clone)]
pub struct Cache {
    root: PathBuf,
}

/// A finished tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tree {
    format: u32,
    /// Its digest.
    pub digest: String,
    /// OCI's name of the architecture of its programs.
    pub architecture: Option<String>,
    /// The loader of its programs.
    pub loader: Option<String>,
    /// What was learned by looking at it.
    pub facts: Facts,
    /// Where it is.
    #[serde(skip)]
    pub root: PathBuf,
}

impl Tree {
    /// What is to be kept about a tree.
    pub fn new(digest: String, architecture: Option<String>, loader: Option<String>, facts: Facts) -> Self {
        Self { format: FORMAT, digest, architecture, loader, facts, root: PathBuf::new() }
    }
}

/// Released when it is dropped, and by the kernel when the process ends in whatever way.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// A private directory that goes away when it is dropped.
#[derive(Debug)]
pub struct Work {
    path: PathBuf,
    _held: File,
}

impl Work {
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        remove(&self.path);
    }
}

impl Cache {
    /// Makes what is missing and removes what interrupted processes left.
    pub fn at(root: PathBuf) -> Result<Self, ImageError> {
        let cache = Self { root };
        let make = |path: &Path| {
            let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
            made.map_err(ImageError::io("could not make the image cache", path))
        };
        make(&cache.root)?;
        // Trees hold set-user-id programs of any age: nobody else may reach them.
        for directory in ["trees", "sources", "locks", "work"] {
            let path = cache.root.join(directory);
            make(&path)?;
            let private = fs::set_permissions(&path, fs::Permissions::from_mode(0o700));
            private.map_err(ImageError::io("could not make private the directory", &path))?;
        }
        cache.sweep();
        Ok(cache)
    }

    /// The directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Waits until nobody else works on `key`.
    pub fn lock(&self, key: &str, cancel: &Cancel, waiting: &dyn Fn()) -> Result<Lock, ImageError> {
        let path = self.root.join("locks").join(name(key));
        let open = File::options().create(true).truncate(false).write(true).open(&path);
        let file = open.map_err(ImageError::io("could not open the lock", &path))?;
        let mut told = false;
        loop {
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Lock { _file: file }),
                Err(rustix::io::Errno::WOULDBLOCK | rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(ImageError::io("could not lock", &path)(errno.into())),
            }
            if cancel.load(Ordering::Relaxed) {
                return Err(ImageError::Interrupted);
            }
            if !told {
                waiting();
                told = true;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// A new private directory on the file system of the cache.
    pub fn work(&self) -> Result<Work, ImageError> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = self.root.join("work").join(format!("{}-{count}", ulid::Ulid::generate()));
        let make = fs::DirBuilder::new().mode(0o700).create(&path);
        make.map_err(ImageError::io("could not make", &path))?;
        let held = File::open(&path).map_err(ImageError::io("could not open", &path))?;
        rustix::fs::flock(&held, FlockOperation::NonBlockingLockExclusive)
            .map_err(|errno| ImageError::io("could not lock", &path)(errno.into()))?;
        Ok(Work { path, _held: held })
    }

    /// The tree with this digest, if it is there.
    pub fn tree(&self, digest: &str) -> Option<Tree> {
        let place = self.place(digest).ok()?;
        let mut tree: Tree = serde_json::from_slice(&fs::read(place.join("facts.json")).ok()?).ok()?;
        tree.root = place.join("root");
        (tree.format == FORMAT && tree.digest == digest && tree.root.is_dir()).then_some(tree)
    }

    /// Keeps a tree that was made in the `root` of a work directory. If it is there already, the older one stays.
    pub fn keep(&self, work: &Work, tree: &Tree) -> Result<Tree, ImageError> {
        let place = self.place(&tree.digest)?;
        let facts = serde_json::to_vec_pretty(tree).unwrap_or_default();
        let path = work.path().join("facts.json");
        fs::write(&path, facts).map_err(ImageError::io("could not write", &path))?;
        flush(work.path())?;
        // The whole directory moves; what held its lock goes on holding it until `work` is dropped.
        if self.tree(&tree.digest).is_none() {
            remove(&place);
            match fs::rename(work.path(), &place) {
                Ok(()) => {}
                Err(_) if self.tree(&tree.digest).is_some() => {}
                Err(error) => return Err(ImageError::io("could not move into place", &place)(error)),
            }
        }
        self.tree(&tree.digest)
            .ok_or_else(|| ImageError::Malformed(format!("the cache entry `{}` cannot be read back", place.display())))
    }

    /// What a source was found to be.
    pub fn source(&self, key: &str) -> Option<String> {
        fs::read_to_string(self.root.join("sources").join(name(key))).ok()
    }

    /// Remembers what a source was found to be.
    pub fn keep_source(&self, key: &str, what: &str) -> Result<(), ImageError> {
        let place = self.root.join("sources").join(name(key));
        let path = self.root.join("work").join(format!("{}.source", ulid::Ulid::generate()));
        let write = || -> std::io::Result<()> {
            let mut file = File::create(&path)?;
            file.write_all(what.as_bytes())?;
            file.sync_all()?;
            fs::rename(&path, &place)
        };
        write().map_err(ImageError::io("could not remember a source in", &place))
    }

    /// Where what is fetched for `key` lies until it is whole; what an interrupted fetch left is gone on with.
    pub fn fetched(&self, key: &str) -> Result<PathBuf, ImageError> {
        let place = self.root.join("fetched").join(name(key));
        let make = fs::DirBuilder::new().recursive(true).mode(0o700).create(&place);
        make.map_err(ImageError::io("could not make", &place))?;
        Ok(place)
    }

    /// It is unpacked and no longer needed.
    pub fn forget_fetched(&self, place: &Path) {
        remove(place);
    }

    fn place(&self, digest: &str) -> Result<PathBuf, ImageError> {
        Ok(self.root.join("trees").join(hex(digest)?))
    }

    /// Removes work that nobody holds.
    fn sweep(&self) {
        for entry in fs::read_dir(self.root.join("work")).into_iter().flatten().flatten() {
            let Ok(held) = File::open(entry.path()) else { continue };
            let young = entry.metadata().and_then(|m| m.modified()).ok().and_then(|t| t.elapsed().ok());
            // Between making a directory and locking it there is a moment.
            let young = young.is_none_or(|age| age < Duration::from_secs(60));
            if rustix::fs::flock(&held, FlockOperation::NonBlockingLockExclusive).is_ok() && !young {
                remove(&entry.path());
            }
        }
    }
}

/// A file name for any key.
fn name(key: &str) -> String {
    sha256(key.as_bytes()).split_off("sha256:".len())
}

/// Everything below reaches the disk before it gets its final name.
fn flush(path: &Path) -> Result<(), ImageError> {
    let file = File::open(path).map_err(ImageError::io("could not open", path))?;
    rustix::fs::syncfs(&file).map_err(|errno| ImageError::io("could not flush", path)(errno.into()))
}

/// Removes a file or a directory, also one whose directories deny their owner. What cannot be removed stays for the next
/// sweep.
fn remove(path: &Path) {
    let Ok(metadata) = fs::symlink_metadata(path) else { return };
    if !metadata.is_dir() {
        drop(fs::remove_file(path));
        return;
    }
    if fs::remove_dir_all(path).is_ok() {
        return;
    }
    open_up(path, 0);
    drop(fs::remove_dir_all(path));
}

fn open_up(path: &Path, depth: usize) {
    drop(fs::set_permissions(path, fs::Permissions::from_mode(0o700)));
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        if depth <= super::root::MAX_DEPTH && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            open_up(&entry.path(), depth + 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache() -> (tempfile::TempDir, Cache) {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::at(dir.path().join("cache")).unwrap();
        (dir, cache)
    }

    fn keep(cache: &Cache, digest: &str, content: &str) -> Tree {
        let work = cache.work().unwrap();
        fs::create_dir(work.path().join("root")).unwrap();
        fs::write(work.path().join("root/file"), content).unwrap();
        cache.keep(&work, &Tree::new(digest.to_owned(), None, None, Facts::new())).unwrap()
    }

    #[test]
    fn a_kept_tree_is_found_by_its_digest_and_the_first_one_stays() {
        let (_dir, cache) = cache();
        let digest = sha256(b"tree");
        assert_eq!(cache.tree(&digest), None);
        let first = keep(&cache, &digest, "first");
        let second = keep(&cache, &digest, "second");
        assert_eq!(first, second);
        assert_eq!(fs::read_to_string(second.root.join("file")).unwrap(), "first");
        assert_eq!(fs::read_dir(cache.root().join("work")).unwrap().count(), 0, "work is gone");
    }

    #[test]
    fn a_tree_without_readable_facts_is_not_trusted() {
        let (_dir, cache) = cache();
        let digest = sha256(b"tree");
        let tree = keep(&cache, &digest, "old");
        fs::write(tree.root.parent().unwrap().join("facts.json"), "{\"format\":1").unwrap();
        assert_eq!(cache.tree(&digest), None);
        assert_eq!(fs::read_to_string(keep(&cache, &digest, "new").root.join("file")).unwrap(), "new");
    }

    #[test]
    fn a_lock_keeps_others_out_until_it_is_dropped() {
        let (_dir, cache) = cache();
        let never = Cancel::default();
        let held = cache.lock("key", &never, &|| {}).unwrap();
        let cancel = Cancel::default();
        let stop = || cancel.store(true, Ordering::Relaxed);
        assert!(matches!(cache.lock("key", &cancel, &stop), Err(ImageError::Interrupted)));
        cache.lock("other", &never, &|| panic!("another key is free")).unwrap();
        drop(held);
        cache.lock("key", &never, &|| panic!("the key is free")).unwrap();
    }

    #[test]
    fn work_of_a_dead_process_is_removed_and_work_of_a_live_one_is_not() {
        let (_dir, cache) = cache();
        let live = cache.work().unwrap();
        let dead = cache.root().join("work/dead");
        fs::create_dir_all(dead.join("deep")).unwrap();
        fs::set_permissions(dead.join("deep"), fs::Permissions::from_mode(0o0)).unwrap();
        let old = std::time::SystemTime::now() - Duration::from_secs(3600);
        for path in [&dead, live.path()] {
            File::open(path).unwrap().set_modified(old).unwrap();
        }
        Cache::at(cache.root().to_path_buf()).unwrap();
        assert!(!dead.exists());
        assert!(live.path().exists());
    }
}

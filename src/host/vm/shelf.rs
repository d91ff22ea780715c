//! Where kernels and disks are kept.
//!
//! ```text
//! CACHE/vm/KIND-KEY/            a finished thing; KEY is the digest of its recipe
//! CACHE/vm/KIND-KEY/label.json  what it is, and the digest of every other file: written last
//! CACHE/vm/KIND-KEY.part/       one in the making; what was finished of it is gone on with
//! CACHE/vm/KIND-KEY.lock        held while somebody makes it
//! ```
//! In: a recipe, and a way to make the thing in a directory. Out: the thing, with every file as it was made. A name without
//! `.part` appears by one rename of something labelled and flushed.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom as From};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use rustix::fs::{FlockOperation, SeekFrom, flock};
use serde::{Deserialize, Serialize};

use crate::engine::Facts;
use crate::fault::{Fault, Phase};

/// Changes when things made by older versions can no longer be used.
const FORMAT: u32 = 1;
const LABEL: &str = "label.json";

/// What a thing is, and what its files were when it was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Label {
    format: u32,
    /// For people: `kernel bookworm`.
    pub name: String,
    /// What it was made from.
    pub facts: Facts,
    /// When.
    pub made: Timestamp,
    /// Length and digest of every file, by its path.
    files: BTreeMap<String, (u64, String)>,
}

/// A thing that is there and whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Its files.
    pub dir: PathBuf,
    /// What it is.
    pub label: Label,
}

/// What lies on the shelf under one name.
#[derive(Debug, Clone)]
pub struct Listed {
    /// The directory's name, which is unique.
    pub id: String,
    /// What it is, or why it cannot be used.
    pub label: Result<Label, String>,
    /// Bytes on disk.
    pub bytes: u64,
}

/// What is to be made.
pub struct Recipe<'a> {
    /// `kernel`, `disk`, `image`.
    pub kind: &'a str,
    /// For people.
    pub name: String,
    /// Equal texts make equal things.
    pub text: String,
}

impl Recipe<'_> {
    fn id(&self) -> String {
        format!("{}-{}", self.kind, &blake3::hash(self.text.as_bytes()).to_hex()[..24])
    }
}

/// The directory; see the module.
#[derive(Debug, Clone)]
pub struct Shelf {
    root: PathBuf,
}

fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Fault {
    let path = path.display().to_string();
    move |error| {
        let full = matches!(error.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded);
        let fault = Fault::new(Phase::Host, format!("{path}: {error}"));
        if full {
            fault.hint("make room: `abicus vm list` shows what is kept, `abicus vm rm` removes it")
        } else {
            fault
        }
    }
}

impl Shelf {
    /// The shelf below abicus' own directory, made where it is missing.
    pub fn at(cache: &Path) -> Result<Self, Fault> {
        let root = cache.join("vm");
        fs::DirBuilder::new().recursive(true).mode(0o755).create(&root).map_err(io(&root))?;
        Ok(Self { root })
    }

    /// The thing of this recipe, made by `make` in a directory where it is not there. What an interrupted `make` left in
    /// its directory is there when it is called again.
    pub fn make(
        &self,
        recipe: &Recipe,
        waiting: &dyn Fn(),
        make: impl FnOnce(&Path) -> Result<Facts, Fault>,
    ) -> Result<Kept, Fault> {
        let id = recipe.id();
        let _lock = self.lock(&id, waiting)?;
        let place = self.root.join(&id);
        match self.look(&place) {
            Ok(label) => return Ok(Kept { dir: place, label }),
            Err(_) if !place.exists() => {}
            Err(_) => remove(&place)?,
        }
        let part = self.root.join(format!("{id}.part"));
        // In a user namespace mmdebstrap's root is somebody else, who has to get at the directory.
        fs::DirBuilder::new().recursive(true).mode(0o755).create(&part).map_err(io(&part))?;
        let facts = make(&part)?;
        let label =
            Label { format: FORMAT, name: recipe.name.clone(), facts, made: Timestamp::now(), files: seal(&part)? };
        let path = part.join(LABEL);
        fs::write(&path, serde_json::to_vec_pretty(&label).unwrap_or_default()).map_err(io(&path))?;
        let flushed = File::open(&part).map_err(io(&part))?;
        rustix::fs::syncfs(&flushed).map_err(|e| io(&part)(e.into()))?;
        fs::rename(&part, &place).map_err(io(&place))?;
        Ok(Kept { dir: place, label })
    }

    fn lock(&self, id: &str, waiting: &dyn Fn()) -> Result<File, Fault> {
        let path = self.root.join(format!("{id}.lock"));
        let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(io(&path))?;
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
            return Ok(file);
        }
        waiting();
        loop {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(file),
                Err(rustix::io::Errno::WOULDBLOCK | rustix::io::Errno::INTR) => {
                    std::thread::sleep(Duration::from_millis(100));
                }
                Err(errno) => return Err(io(&path)(errno.into())),
            }
        }
    }

    /// The label of what lies there, if every file is what it was when it was made.
    fn look(&self, place: &Path) -> Result<Label, String> {
        let text = fs::read(place.join(LABEL)).map_err(|e| format!("no label: {e}"))?;
        let label: Label = serde_json::from_slice(&text).map_err(|e| format!("its label cannot be read: {e}"))?;
        if label.format != FORMAT {
            return Err("made by another version of abicus".to_owned());
        }
        let files = seal(place).map_err(|fault| fault.cause)?;
        match label.files.iter().find(|(name, was)| files.get(*name) != Some(was)) {
            Some((name, _)) => Err(format!("`{name}` is not what it was when it was made")),
            None => Ok(label),
        }
    }

    /// Everything on the shelf, finished or not, in order of name.
    pub fn list(&self) -> Result<Vec<Listed>, Fault> {
        let mut found = vec![];
        for entry in fs::read_dir(&self.root).map_err(io(&self.root))? {
            let path = entry.map_err(io(&self.root))?.path();
            let Some(id) = path.file_name().and_then(|name| name.to_str()).map(str::to_owned) else { continue };
            if !path.is_dir() || !id.contains('-') {
                continue;
            }
            let label = if id.ends_with(".part") { Err("unfinished".to_owned()) } else { self.look(&path) };
            found.push(Listed { id, label, bytes: size(&path) });
        }
        found.sort_by_key(|listed| (listed.label.as_ref().map(|l| l.name.clone()).ok(), listed.id.clone()));
        Ok(found)
    }

    /// Removes one thing, unless somebody is making it.
    pub fn remove(&self, id: &str) -> Result<(), Fault> {
        let name = id.strip_suffix(".part").unwrap_or(id);
        let path = self.root.join(format!("{name}.lock"));
        let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(io(&path))?;
        flock(&file, FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| Fault::new(Phase::Host, format!("`{id}` is being made by another process")))?;
        remove(&self.root.join(id))?;
        fs::remove_file(&path).map_err(io(&path))
    }
}

/// Removes a directory, also one that belongs to the root of an ordinary user's mmdebstrap.
pub(super) fn remove(path: &Path) -> Result<(), Fault> {
    match fs::remove_dir_all(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied && !rustix::process::geteuid().is_root() => {
            let removed = crate::image::mmdebstrap::as_its_root(&["rm", "-rf"]).arg(path).status();
            if removed.is_ok_and(|status| status.success()) { Ok(()) } else { Err(io(path)(error)) }
        }
        Err(error) => Err(io(path)(error)),
    }
}

/// Length and digest of every file below a directory but the label.
fn seal(dir: &Path) -> Result<BTreeMap<String, (u64, String)>, Fault> {
    let mut files = BTreeMap::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(at) = dirs.pop() {
        for entry in fs::read_dir(&at).map_err(io(&at))? {
            let entry = entry.map_err(io(&at))?;
            let (path, kind) = (entry.path(), entry.file_type().map_err(io(&at))?);
            if kind.is_dir() {
                dirs.push(path);
            } else if kind.is_file()
                && let Some(name) = path.strip_prefix(dir).ok().and_then(Path::to_str).filter(|name| *name != LABEL)
            {
                files.insert(name.to_owned(), digest(&path).map_err(io(&path))?);
            }
        }
    }
    Ok(files)
}

/// Length, and a digest over the data with its places: reading the holes of a sparse disk would take most of the time.
fn digest(path: &Path) -> std::io::Result<(u64, String)> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    let mut hasher = blake3::Hasher::new();
    let mut at = 0;
    while at < length {
        let data = match rustix::fs::seek(&file, SeekFrom::Data(at)) {
            Ok(data) => data,
            // Nothing but a hole follows.
            Err(rustix::io::Errno::NXIO) => break,
            Err(errno) => return Err(errno.into()),
        };
        let hole = rustix::fs::seek(&file, SeekFrom::Hole(data))?;
        hasher.update(&data.to_le_bytes()).update(&hole.to_le_bytes());
        file.seek(From::Start(data))?;
        hasher.update_reader((&file).take(hole - data))?;
        at = hole;
    }
    Ok((length, hasher.finalize().to_hex()[..32].to_owned()))
}

/// Bytes that a directory's files take on disk.
fn size(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(about) if about.is_dir() => size(&entry.path()),
            Ok(about) => about.blocks() * 512,
            Err(_) => 0,
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recipe(text: &str) -> Recipe<'static> {
        Recipe { kind: "kernel", name: format!("kernel {text}"), text: text.to_owned() }
    }

    fn write(text: &'static str) -> impl Fn(&Path) -> Result<Facts, Fault> {
        move |dir| {
            fs::write(dir.join("vmlinuz"), text).map_err(io(dir))?;
            Ok(Facts::from([("text".to_owned(), text.to_owned())]))
        }
    }

    #[test]
    fn a_thing_is_made_once_and_again_when_it_was_damaged() {
        let cache = tempfile::tempdir().unwrap();
        let shelf = Shelf::at(cache.path()).unwrap();
        let made = shelf.make(&recipe("a"), &|| {}, write("one")).unwrap();
        let again = shelf.make(&recipe("a"), &|| {}, |_| panic!("it is there")).unwrap();
        assert_eq!(made, again);
        fs::write(made.dir.join("vmlinuz"), "eno").unwrap();
        assert!(shelf.list().unwrap()[0].label.as_ref().unwrap_err().contains("`vmlinuz` is not what it was"));
        let mended = shelf.make(&recipe("a"), &|| {}, write("one")).unwrap();
        assert_eq!(fs::read_to_string(mended.dir.join("vmlinuz")).unwrap(), "one");
    }

    #[test]
    fn what_an_interrupted_maker_finished_is_there_the_next_time() {
        let cache = tempfile::tempdir().unwrap();
        let shelf = Shelf::at(cache.path()).unwrap();
        let broken = shelf.make(&recipe("a"), &|| {}, |dir| {
            fs::write(dir.join("fetched"), "packages").map_err(io(dir))?;
            Err(Fault::new(Phase::Host, "the line is cut"))
        });
        assert_eq!(broken.unwrap_err().cause, "the line is cut");
        assert_eq!(shelf.list().unwrap()[0].label.clone().unwrap_err(), "unfinished");
        let made = shelf.make(&recipe("a"), &|| {}, |dir| {
            assert_eq!(fs::read_to_string(dir.join("fetched")).unwrap(), "packages");
            Ok(Facts::new())
        });
        shelf.remove(made.unwrap().dir.file_name().unwrap().to_str().unwrap()).unwrap();
        assert_eq!(fs::read_dir(cache.path().join("vm")).unwrap().count(), 0, "lock and all are gone");
    }

    #[test]
    fn a_digest_tells_where_the_data_of_a_sparse_file_is() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str, place: u64| {
            let path = dir.path().join(name);
            let mut file = File::create(&path).unwrap();
            file.set_len(8 << 20).unwrap();
            file.seek(From::Start(place)).unwrap();
            std::io::Write::write_all(&mut file, b"data").unwrap();
            digest(&path).unwrap()
        };
        assert_eq!(at("a", 1 << 20), at("b", 1 << 20));
        assert_ne!(at("c", 1 << 20), at("d", 2 << 20));
    }
}

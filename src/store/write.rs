//! Writing a run while it goes on.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::Serialize;

use super::{Entry, Run, RunInfo, StoreError};
use crate::collect::Observations;
use crate::id::{CellId, HostId, RunId};

/// Appends to a run directory. The kernel has every entry when the call returns, so a driver that dies loses none. The
/// journal is locked while it lives: two drivers never write to one run.
pub struct RunWriter {
    dir: PathBuf,
    info: RunInfo,
    journal: File,
    vectors: File,
    known: HashSet<String>,
    /// Kept: making one costs more than what a cell says.
    packer: zstd::bulk::Compressor<'static>,
    /// Directories of evidence that are there.
    made: HashSet<PathBuf>,
}

impl RunWriter {
    /// Makes `<reports>/<run id>/`, which must not exist.
    pub fn create(reports: &Path, info: RunInfo) -> Result<Self, StoreError> {
        let dir = reports.join(info.id.as_str());
        fs::create_dir_all(reports).map_err(io(reports))?;
        fs::create_dir(&dir).map_err(io(&dir))?;
        Self::open(dir, info, HashSet::new())
    }

    /// Goes on with a run that died.
    pub fn resume(dir: &Path, run: &Run) -> Result<Self, StoreError> {
        let info = RunInfo { finished: None, interrupted: false, ..run.info.clone() };
        Self::open(dir.to_owned(), info, run.vectors.keys().cloned().collect())
    }

    fn open(dir: PathBuf, info: RunInfo, known: HashSet<String>) -> Result<Self, StoreError> {
        let append = |name: &str| {
            let path = dir.join(name);
            OpenOptions::new().create(true).append(true).open(&path).map_err(io(&path))
        };
        let (mut journal, mut vectors) = (append("journal.jsonl")?, append("vectors.jsonl")?);
        lock(&journal, &dir)?;
        for (file, name) in [(&mut journal, "journal.jsonl"), (&mut vectors, "vectors.jsonl")] {
            // A process that died in mid-line leaves half a line; what follows must not be glued to it.
            let path = dir.join(name);
            if file.metadata().map_err(io(&path))?.len() > 0 && !ends_with_newline(&path)? {
                file.write_all(b"\n").map_err(io(&path))?;
            }
        }
        let packer = zstd::bulk::Compressor::new(LEVEL).map_err(io(&dir))?;
        let writer = Self { dir, info, journal, vectors, known, packer, made: HashSet::new() };
        writer.save_info()?;
        Ok(writer)
    }

    /// The run.
    pub fn run(&self) -> &RunId {
        &self.info.id
    }

    /// What was to be done.
    pub fn info(&self) -> &RunInfo {
        &self.info
    }

    /// The run directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Appends one entry.
    pub fn entry(&mut self, entry: &Entry) -> Result<(), StoreError> {
        append_line(&mut self.journal, &self.dir.join("journal.jsonl"), entry)
    }

    /// Stores observations and returns their digest.
    pub fn vector(&mut self, observations: &Observations) -> Result<String, StoreError> {
        #[derive(Serialize)]
        struct Line<'a> {
            vector: &'a str,
            observations: &'a Observations,
        }
        let path = self.dir.join("vectors.jsonl");
        let bytes = serde_json::to_vec(observations).map_err(|error| io(&path)(error.into()))?;
        let digest = blake3::hash(&bytes).to_hex()[..32].to_owned();
        if self.known.insert(digest.clone()) {
            append_line(&mut self.vectors, &path, &Line { vector: &digest, observations })?;
        }
        Ok(digest)
    }

    /// Stores what one attempt wrote; returns the name to record.
    pub fn evidence(
        &mut self,
        cell: &CellId,
        attempt: u32,
        stdout: &[u8],
        stderr: &[u8],
    ) -> Result<String, StoreError> {
        let name = format!("{}/{}/{}.{attempt}", cell.host, cell.engine, cell.image);
        for (ending, bytes) in [("stdout", stdout), ("stderr", stderr)] {
            if !bytes.is_empty() {
                self.pack(&format!("{name}.{ending}.zst"), bytes)?;
            }
        }
        Ok(name)
    }

    /// Stores what a host said of itself while it ran: the console of a virtual machine.
    pub fn host_evidence(&mut self, host: &HostId, bytes: &[u8]) -> Result<(), StoreError> {
        self.pack(&format!("{host}/console.zst"), bytes)
    }

    /// Writes a compressed file below `evidence/`.
    fn pack(&mut self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        let path = self.dir.join("evidence").join(name);
        if let Some(parent) = path.parent().filter(|parent| !self.made.contains(*parent)) {
            fs::create_dir_all(parent).map_err(io(parent))?;
            self.made.insert(parent.to_owned());
        }
        let packed = self.packer.compress(bytes).map_err(io(&path))?;
        fs::write(&path, packed).map_err(io(&path))
    }

    /// Marks the end of the run.
    pub fn finish(mut self, finished: Timestamp, interrupted: bool) -> Result<PathBuf, StoreError> {
        self.info.finished = (!interrupted).then_some(finished);
        self.info.interrupted = interrupted;
        self.save_info()?;
        Ok(self.dir)
    }

    /// Replaces `run.json` in one step, so that a crash leaves the old one or the new one.
    fn save_info(&self) -> Result<(), StoreError> {
        let path = self.dir.join("run.json");
        let mut bytes = serde_json::to_vec_pretty(&self.info).map_err(|error| io(&path)(error.into()))?;
        bytes.push(b'\n');
        let new = self.dir.join("run.json.new");
        fs::write(&new, bytes).map_err(io(&new))?;
        fs::rename(&new, &path).map_err(io(&path))
    }
}

/// zstd's own default.
const LEVEL: i32 = 3;

/// Until the file is closed; the kernel lets go of it where a driver dies.
fn lock(journal: &File, dir: &Path) -> Result<(), StoreError> {
    rustix::fs::flock(journal, rustix::fs::FlockOperation::NonBlockingLockExclusive).map_err(|errno| {
        let path = dir.display().to_string();
        match errno {
            rustix::io::Errno::WOULDBLOCK => StoreError::Busy { path },
            errno => StoreError::Io { path, source: errno.into() },
        }
    })
}

fn append_line(file: &mut File, path: &Path, line: &impl Serialize) -> Result<(), StoreError> {
    let mut bytes = serde_json::to_vec(line).map_err(|error| io(path)(error.into()))?;
    bytes.push(b'\n');
    file.write_all(&bytes).map_err(io(path))
}

fn ends_with_newline(path: &Path) -> Result<bool, StoreError> {
    use std::io::{Read, Seek, SeekFrom};
    let mut file = File::open(path).map_err(io(path))?;
    file.seek(SeekFrom::End(-1)).map_err(io(path))?;
    let mut last = [0];
    file.read_exact(&mut last).map_err(io(path))?;
    Ok(last == *b"\n")
}

pub(super) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> StoreError + '_ {
    move |source| StoreError::Io { path: path.display().to_string(), source }
}

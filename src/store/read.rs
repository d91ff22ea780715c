//! Reading a run back: finished, interrupted, or dead in mid-line.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::write::io;
use super::{Entry, FORMAT, Known, Run, RunInfo, StoreError};
use crate::collect::Observations;

/// Reads a run directory.
pub fn load(dir: &Path) -> Result<Run, StoreError> {
    let info = info(dir)?;
    let mut run = Run {
        info,
        hosts: BTreeMap::new(),
        engines: BTreeMap::new(),
        images: BTreeMap::new(),
        cells: BTreeMap::new(),
        vectors: BTreeMap::new(),
    };
    #[derive(Deserialize)]
    struct Line {
        vector: String,
        observations: Observations,
    }
    lines(&dir.join("vectors.jsonl"), |line: Line| {
        run.vectors.insert(line.vector, Arc::new(line.observations));
    })?;
    // Later entries replace earlier ones: a resumed run does again what had not come to an end.
    lines(&dir.join("journal.jsonl"), |entry: Entry| match entry {
        Entry::Host { host, facts, fault } => {
            run.hosts.insert(host, Known { facts, fault });
        }
        Entry::Engine { host, engine, facts, fault } => {
            run.engines.insert((host, engine), Known { facts, fault });
        }
        Entry::Image { image, facts, fault } => {
            run.images.insert(image, Known { facts, fault });
        }
        Entry::Cell(record) => {
            run.cells.insert(record.cell.clone(), Arc::unwrap_or_clone(record));
        }
    })?;
    Ok(run)
}

fn info(dir: &Path) -> Result<RunInfo, StoreError> {
    #[derive(Deserialize)]
    struct Version {
        format: u32,
    }
    let path = dir.join("run.json");
    let text = fs::read_to_string(&path).map_err(io(&path))?;
    let corrupt = |error: serde_json::Error| StoreError::Corrupt {
        path: path.display().to_string(),
        line: error.line(),
        message: error.to_string(),
    };
    let version: Version = serde_json::from_str(&text).map_err(corrupt)?;
    if version.format > FORMAT {
        return Err(StoreError::Newer { path: path.display().to_string(), found: version.format });
    }
    serde_json::from_str(&text).map_err(corrupt)
}

/// Reads JSON lines. Half a line is what a dying process leaves and does not count; any other bad line is corruption.
fn lines<T: DeserializeOwned>(path: &Path, mut each: impl FnMut(T)) -> Result<(), StoreError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(io(path)(error)),
    };
    for (index, line) in BufReader::new(file).split(b'\n').enumerate() {
        let line = line.map_err(io(path))?;
        if line.is_empty() {
            continue;
        }
        match serde_json::from_slice(&line) {
            Ok(value) => each(value),
            Err(error) if error.is_eof() => {}
            Err(error) => {
                let path = path.display().to_string();
                return Err(StoreError::Corrupt { path, line: index + 1, message: error.to_string() });
            }
        }
    }
    Ok(())
}

/// A run directory that is kept.
#[derive(Debug)]
pub struct Kept {
    /// Where it is.
    pub dir: PathBuf,
    /// What is known of it, or why it cannot be read.
    pub info: Result<RunInfo, StoreError>,
}

/// The runs under a reports directory, oldest first; run ids sort by time.
pub fn list(reports: &Path) -> Result<Vec<Kept>, StoreError> {
    let entries = match fs::read_dir(reports) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(vec![]),
        Err(error) => return Err(io(reports)(error)),
    };
    let mut runs = vec![];
    for entry in entries {
        let dir = entry.map_err(io(reports))?.path();
        if dir.join("run.json").exists() {
            let info = info(&dir);
            runs.push(Kept { dir, info });
        }
    }
    runs.sort_by(|a, b| a.dir.cmp(&b.dir));
    Ok(runs)
}

//! The run directory: everything a run learned, as files with a version.
//!
//! In: events of a run, one at a time, each flushed before the next cell counts as done. Out: the same run, read back.
//! Facts, observations and attempts only; outcomes are judged again whenever they are wanted.
//!
//! ```text
//! reports/<run-id>/
//!   run.json        format version, matrix verbatim, plan, tool and probe digests, times
//!   journal.jsonl   one line per host, engine, image and finished cell, in the order they happened
//!   vectors.jsonl   observations by digest: cells that saw the same share one line
//!   evidence/       <host>/<engine>/<image>.<attempt>.{stdout,stderr}.zst, capped
//! ```

mod read;
mod write;

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use read::{Kept, list, load};
pub use write::RunWriter;

use crate::collect::{Observations, ProbeReport};
use crate::engine::{Ended, Facts, Timing};
use crate::fault::Fault;
use crate::id::{CellId, EngineId, HostId, ImageId, RunId};
use crate::plan::{ControlNames, Role};

/// The format this abicus writes. It reads this one and every older one.
pub const FORMAT: u32 = 1;

/// Why a run directory could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file system refused.
    #[error("{path}: {source}")]
    Io {
        /// Where.
        path: String,
        /// What it said.
        source: std::io::Error,
    },
    /// A file is not what it should be.
    #[error("{path}:{line}: {message}")]
    Corrupt {
        /// Which file.
        path: String,
        /// Which line, from 1.
        line: usize,
        /// What is wrong.
        message: String,
    },
    /// Another abicus writes to it.
    #[error("{path}: this run is still going on in another process")]
    Busy {
        /// Which run.
        path: String,
    },
    /// A newer abicus wrote it.
    #[error("{path}: format {found}, this abicus reads formats up to {FORMAT}: use a newer abicus")]
    Newer {
        /// Which run.
        path: String,
        /// Its format.
        found: u32,
    },
}

/// `run.json`: what was to be done, with what, when.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunInfo {
    /// Format version of the directory.
    pub format: u32,
    /// The run.
    pub id: RunId,
    /// The matrix' name.
    pub name: String,
    /// Version of abicus.
    pub abicus: String,
    /// Digest of the probes used.
    pub payload: String,
    /// When it began.
    pub started: Timestamp,
    /// When it ended; absent while it goes on or when it died.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished: Option<Timestamp>,
    /// Whether it was interrupted.
    #[serde(default)]
    pub interrupted: bool,
    /// The matrix file; relative paths of the matrix start from its directory.
    pub matrix_file: String,
    /// The matrix, verbatim.
    pub matrix: String,
    /// Whether speed was asked for beyond what the matrix says.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub bench: bool,
    /// Cells at a time on one host, where that was asked for beyond what the matrix says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parallel: Option<u32>,
    /// Every cell planned, with its role.
    pub cells: Vec<(CellId, Role)>,
    /// Which of them are controls of which, where there are controls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub controls: Option<ControlNames>,
    /// Whether only a selection of the matrix was planned.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub selected: bool,
    /// Every cell left out by the plan, with the reason.
    pub skips: Vec<(CellId, String)>,
}

impl RunInfo {
    /// `finished`, `interrupted`, or `unfinished`: still going on, or died.
    pub fn state(&self) -> &'static str {
        match (self.finished, self.interrupted) {
            (Some(_), _) => "finished",
            (None, true) => "interrupted",
            (None, false) => "unfinished",
        }
    }
}

/// A line of `journal.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "entry", rename_all = "kebab-case")]
pub enum Entry {
    /// What a host is.
    Host {
        /// Which.
        host: HostId,
        /// Its facts.
        facts: Facts,
        /// Why it cannot be used.
        fault: Option<Fault>,
    },
    /// What an engine on a host is.
    Engine {
        /// On which host.
        host: HostId,
        /// Which.
        engine: EngineId,
        /// Its facts.
        facts: Facts,
        /// Why it cannot be used.
        fault: Option<Fault>,
    },
    /// What an image is.
    Image {
        /// Which.
        image: ImageId,
        /// Its facts.
        facts: Facts,
        /// Why it cannot be used.
        fault: Option<Fault>,
    },
    /// What a cell came to.
    Cell(Arc<CellRecord>),
}

/// How a cell went.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CellRecord {
    /// Which.
    pub cell: CellId,
    /// Why it was run.
    pub role: Role,
    /// What happened.
    #[serde(flatten)]
    pub state: State,
    /// Every attempt, the last one counts.
    #[serde(default)]
    pub attempts: Vec<AttemptRecord>,
}

/// What happened to a cell.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum State {
    /// It was left out, and why.
    Skipped {
        /// Why.
        reason: String,
    },
    /// It could not run.
    Broken {
        /// What broke.
        fault: Fault,
    },
    /// It ran and delivered something.
    Ran {
        /// Digest of its observations.
        vector: String,
        /// The probes that spoke.
        probes: Vec<ProbeReport>,
        /// What the probes read that is not an observation.
        facts: Facts,
        /// What broke while it delivered.
        faults: Vec<Fault>,
    },
}

/// One attempt at a cell.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AttemptRecord {
    /// From 1.
    pub attempt: u32,
    /// How the program ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Ended>,
    /// What broke.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<Fault>,
    /// How long it took.
    pub timing: Timing,
    /// What the engine said.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// Directory entries under `evidence/`, without the ending.
    pub evidence: String,
}

/// What is known of a host, an engine or an image.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Known {
    /// Its facts.
    pub facts: Facts,
    /// Why it cannot be used.
    pub fault: Option<Fault>,
}

/// A run, read back.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    /// What was to be done.
    pub info: RunInfo,
    /// Hosts.
    pub hosts: BTreeMap<HostId, Known>,
    /// Engines on hosts.
    pub engines: BTreeMap<(HostId, EngineId), Known>,
    /// Images.
    pub images: BTreeMap<ImageId, Known>,
    /// Cells that came to something; what is planned and not here is a miss.
    pub cells: BTreeMap<CellId, CellRecord>,
    /// Observations by digest.
    pub vectors: BTreeMap<String, Arc<Observations>>,
}

impl Run {
    /// What a cell saw, where it ran.
    pub fn observations(&self, cell: &CellId) -> Option<&Arc<Observations>> {
        match &self.cells.get(cell)?.state {
            State::Ran { vector, .. } => self.vectors.get(vector),
            State::Skipped { .. } | State::Broken { .. } => None,
        }
    }
}

//! Engines: what puts a process from an image onto a host's kernel.
//!
//! In: a [`Job`] (a program of the payload, an image the engine was given, a deadline). Out: an [`Attempt`] (bytes and
//! how the program ended) or a [`Fault`]. An engine never sees the matrix, never reads what a probe wrote, never judges.
//! Create, start, wait and remove stay inside it, so nobody can forget one.

pub mod builtin;
pub mod command;
pub mod container;
pub mod native;
mod open;
pub mod options;
mod scripted;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::fault::{Fault, Phase};
use crate::id::{CellId, RunId};
use crate::image::Image;

pub use open::open;
pub use options::EngineOptions;

/// Facts about a thing: dotted lower-case name → text. Nothing volatile: equal facts mean equal things.
pub type Facts = std::collections::BTreeMap<String, String>;

/// Version of the library that makes filters, in what a runtime answers to `--version` (runc, youki).
fn libseccomp(said: &str) -> Option<String> {
    let version = said.lines().find_map(|line| line.trim().strip_prefix("libseccomp:"))?.trim();
    let good = !version.is_empty() && version.len() < 40 && version.chars().all(|c| c.is_ascii_graphic());
    good.then(|| version.to_owned())
}

/// The directory inside a cell where the payload appears, read-only.
pub const PAYLOAD_DIR: &str = "/.abicus";

/// The label (key) every object of a run carries in the engine; its value is the run id.
pub const RUN_LABEL: &str = "abicus.run";
/// The label (key) that says which cell an object belongs to.
pub const CELL_LABEL: &str = "abicus.cell";

/// The programs handed into a cell: a read-only directory on this machine whose files are all executable.
#[derive(Debug, Clone)]
pub struct Payload {
    /// Where the files are. Nobody writes here while a run goes on.
    pub dir: PathBuf,
    /// Names and digests of the files, as one digest: equal digests are equal payloads.
    pub digest: String,
}

/// One program to run in one cell.
#[derive(Debug, Clone)]
pub struct Job {
    /// The run this belongs to, for labels.
    pub run: RunId,
    /// The cell this belongs to, for labels and names.
    pub cell: CellId,
    /// Which attempt, from 1.
    pub attempt: u32,
    /// The program and its arguments. Paths are the cell's: `/.abicus/kernel`. Native cells have them rewritten.
    pub argv: Vec<String>,
    /// What appears in [`PAYLOAD_DIR`].
    pub payload: Arc<Payload>,
    /// After this the program is killed.
    pub deadline: Duration,
    /// Bytes kept of each of standard output and standard error; a program that writes more is killed.
    pub output_cap: usize,
}

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ended {
    /// It exited with this status.
    Exit(i32),
    /// This signal killed it (where the engine cannot tell, 128+n is reported as `Exit`).
    Signal(i32),
    /// The kernel's out-of-memory killer ended it, as the engine says.
    OutOfMemory,
    /// It was killed at its deadline.
    Deadline,
    /// It was killed because it wrote more than the cap.
    OutputCap,
}

/// Wall time of the stages of one job.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timing {
    /// Create and inject, milliseconds.
    pub create_ms: u64,
    /// Start to end of the program, milliseconds.
    pub run_ms: u64,
    /// Remove, milliseconds.
    pub remove_ms: u64,
}

/// What one job left: partial output is kept also when the rig broke.
#[derive(Debug, Clone)]
pub struct Attempt {
    /// How the program ended, or what broke.
    pub ended: Result<Ended, Fault>,
    /// Standard output, at most `output_cap` bytes.
    pub stdout: Vec<u8>,
    /// Standard error, at most `output_cap` bytes.
    pub stderr: Vec<u8>,
    /// How long the stages took.
    pub timing: Timing,
    /// What the engine said that a person might need: warnings, ignored options.
    pub notes: Vec<String>,
}

impl Attempt {
    /// An attempt that broke before the program could write anything.
    pub fn broken(fault: Fault) -> Self {
        Self { ended: Err(fault), stdout: vec![], stderr: vec![], timing: Timing::default(), notes: vec![] }
    }
}

/// An image as one engine knows it: a container image name, a directory… Only the engine that made it reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prepared(pub String);

/// What puts a process from an image onto a host's kernel.
#[async_trait]
pub trait Engine: Send + Sync {
    /// Versions, components and capabilities, or why the engine cannot be used.
    async fn fingerprint(&self) -> Result<Facts, Fault>;

    /// Makes the image available to this engine; called once per engine and image, may take long.
    async fn prepare(&self, image: &Image) -> Result<Prepared, Fault>;

    /// Whether it has an image of this reference, so that nobody need fetch it.
    async fn has(&self, _reference: &str) -> Result<bool, Fault> {
        Ok(false)
    }

    /// The references of the images it has, those left out that abicus put there.
    async fn references(&self) -> Result<Vec<String>, Fault> {
        Ok(vec![])
    }

    /// Writes an image this engine has, or can pull, to a file as `docker save` does, so that every engine can be given it.
    async fn export(&self, reference: &str, to: &Path) -> Result<(), Fault> {
        let cause =
            format!("this engine has no images by reference, and cannot write `{reference}` to {}", to.display());
        Err(Fault::new(Phase::Image, cause))
    }

    /// Runs one job to its end and removes what it made, whatever happens.
    async fn run(&self, job: &Job, image: &Prepared) -> Attempt;

    /// Removes what a run left behind (`None`: any run of abicus) and names what was removed.
    async fn sweep(&self, run: Option<&RunId>) -> Result<Vec<String>, Fault>;

    /// Removes the images it keeps for later runs, and names what was removed. Most engines keep none of their own.
    async fn sweep_cache(&self) -> Result<Vec<String>, Fault> {
        Ok(vec![])
    }
}

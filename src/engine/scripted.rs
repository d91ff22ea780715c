//! An engine that plays back captures and faults, for tests: what real engines do not do on demand.
//!
//! In: a script in TOML. Out: attempts as the script has them. It starts nothing.
//!
//! ```toml
//! [fingerprint]
//! facts = { "engine.version" = "1.0" }     # or: fault = "not there"
//!
//! [[play]]                                 # the first that fits is played
//! image = "debian-*"                       # glob, default `*`
//! attempt = 1                              # default: any
//! stdout = "captures/good.jsonl"           # relative to the script
//! delay_ms = 100                           # how long it takes
//! exit = 0                                 # or: signal = 9, deadline, hang, flood, panic = true
//! fault = { phase = "transport", cause = "connection reset", transient = true }
//! ```

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use globset::Glob;
use serde::Deserialize;

use super::{Attempt, Ended, Engine, Facts, Job, Prepared, Timing};
use crate::fault::{Fault, Phase};
use crate::id::RunId;
use crate::image::Image;

/// Plays back a script.
#[derive(Debug)]
pub struct Scripted {
    dir: PathBuf,
    script: Script,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Script {
    #[serde(default)]
    fingerprint: Fingerprint,
    #[serde(default)]
    play: Vec<Play>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fingerprint {
    #[serde(default)]
    facts: Facts,
    fault: Option<Fault>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Play {
    image: Option<Glob>,
    attempt: Option<u32>,
    stdout: Option<PathBuf>,
    exit: Option<i32>,
    signal: Option<i32>,
    deadline: bool,
    hang: bool,
    delay_ms: u64,
    flood: bool,
    panic: bool,
    fault: Option<Fault>,
}

impl Scripted {
    /// Reads a script.
    pub fn open(path: &Path) -> Result<Self, Fault> {
        let fault = |cause: String| Fault::new(Phase::Engine, format!("script {}: {cause}", path.display()));
        let text = std::fs::read_to_string(path).map_err(|error| fault(error.to_string()))?;
        let script = toml::from_str(&text).map_err(|error| fault(error.to_string()))?;
        Ok(Self { dir: path.parent().unwrap_or(Path::new(".")).to_owned(), script })
    }

    fn attempt(&self, play: &Play, job: &Job) -> Result<Attempt, Fault> {
        let stdout = match &play.stdout {
            Some(path) => {
                let path = self.dir.join(path);
                std::fs::read(&path).map_err(|e| Fault::new(Phase::Engine, format!("{}: {e}", path.display())))?
            }
            None if play.flood => vec![b'x'; job.output_cap],
            None => vec![],
        };
        let ended = match play {
            Play { fault: Some(fault), .. } => Err(fault.clone()),
            Play { deadline: true, .. } => Ok(Ended::Deadline),
            Play { flood: true, .. } => Ok(Ended::OutputCap),
            Play { signal: Some(signal), .. } => Ok(Ended::Signal(*signal)),
            Play { exit, .. } => Ok(Ended::Exit(exit.unwrap_or(0))),
        };
        Ok(Attempt { ended, stdout, stderr: vec![], timing: Timing::default(), notes: vec![] })
    }
}

#[async_trait]
impl Engine for Scripted {
    async fn fingerprint(&self) -> Result<Facts, Fault> {
        match &self.script.fingerprint.fault {
            Some(fault) => Err(fault.clone()),
            None => Ok(self.script.fingerprint.facts.clone()),
        }
    }

    async fn prepare(&self, image: &Image) -> Result<Prepared, Fault> {
        Ok(Prepared(image.id.to_string()))
    }

    async fn run(&self, job: &Job, _: &Prepared) -> Attempt {
        let image = job.cell.image.as_str();
        let fits = |play: &&Play| {
            play.image.as_ref().is_none_or(|glob| glob.compile_matcher().is_match(image))
                && play.attempt.is_none_or(|attempt| attempt == job.attempt)
        };
        let Some(play) = self.script.play.iter().find(fits) else {
            return Attempt::broken(Fault::new(Phase::Engine, format!("the script has nothing for {}", job.cell)));
        };
        tokio::time::sleep(std::time::Duration::from_millis(play.delay_ms)).await;
        if play.panic {
            std::panic::resume_unwind(Box::new("as the script says"));
        }
        if play.hang {
            std::future::pending::<()>().await;
        }
        self.attempt(play, job).unwrap_or_else(Attempt::broken)
    }

    async fn sweep(&self, _: Option<&RunId>) -> Result<Vec<String>, Fault> {
        Ok(vec![])
    }
}

//! Probe output → observations. In: the bytes a job wrote. Out: a [`Report`]: what was seen, per check, and what is
//! missing. Pure; the bytes are hostile; nothing here decides whether what was seen is good.

mod parse;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::engine::Facts;
use crate::fault::Fault;
use crate::id::{CheckId, ProbeId};

pub use parse::parse;

/// What a probe saw when it asked a check's question.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "saw", rename_all = "kebab-case")]
pub enum Saw {
    /// It works, and the result was verified.
    Ok,
    /// A system call refused.
    Errno {
        /// The number, as `errno(3)` has it.
        errno: i32,
    },
    /// A signal killed the child that asked.
    Signal {
        /// The number, as `signal(7)` has it.
        signal: i32,
    },
    /// The child did not end in time.
    Timeout {
        /// After how many milliseconds it was killed.
        ms: u64,
    },
    /// An answer to be compared or judged.
    Value {
        /// Text or number.
        value: Value,
    },
    /// A measurement, raw.
    Samples {
        /// The unit of every sample.
        unit: String,
        /// The samples, in the order they were taken.
        samples: Vec<f64>,
    },
    /// The question makes no sense here.
    NotAsked {
        /// Why.
        why: String,
    },
}

impl std::fmt::Display for Saw {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Ok => f.write_str("ok"),
            Self::Errno { errno } => write!(f, "errno {errno}"),
            Self::Signal { signal } => write!(f, "signal {signal}"),
            Self::Timeout { ms } => write!(f, "timeout after {ms} ms"),
            Self::Value { value } => write!(f, "{value}"),
            Self::Samples { unit, samples } => {
                let min = samples.iter().copied().fold(f64::INFINITY, f64::min);
                write!(f, "{min} {unit} at best of {}", samples.len())
            }
            Self::NotAsked { why } => write!(f, "not asked: {why}"),
        }
    }
}

/// A value a probe read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Value {
    /// A whole number.
    Integer(i64),
    /// Any other number.
    Number(f64),
    /// Text.
    Text(String),
}

impl std::fmt::Display for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Integer(n) => write!(f, "{n}"),
            Self::Number(x) => write!(f, "{x}"),
            Self::Text(text) => f.write_str(text),
        }
    }
}

impl Value {
    /// The value as a number, also when it is written as text.
    pub fn number(&self) -> Option<f64> {
        match self {
            Self::Integer(n) => Some(*n as f64),
            Self::Number(x) => Some(*x),
            Self::Text(text) => text.trim().parse().ok(),
        }
    }
}

/// An observation: what was seen, and the circumstances that help to say who did it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Observation {
    /// What was seen.
    #[serde(flatten)]
    pub saw: Saw,
    /// Which step of several failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// What the seccomp filter answers to this call, asked without executing it: `allow`, `errno 1`, `kill`…
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<String>,
}

/// Observations by check.
pub type Observations = BTreeMap<CheckId, Observation>;

/// What one probe delivered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProbeReport {
    /// Which probe.
    pub probe: ProbeId,
    /// Its version, as it says.
    pub version: String,
    /// How many checks it said it would report.
    pub planned: usize,
    /// How many it reported.
    pub reported: usize,
    /// Whether its last line arrived.
    pub complete: bool,
}

/// What one cell delivered, all probes together.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The probes that spoke, in order.
    pub probes: Vec<ProbeReport>,
    /// What they saw.
    pub observations: Observations,
    /// Volatile and identifying values they read.
    pub facts: Facts,
    /// What was wrong with the output.
    pub faults: Vec<Fault>,
}

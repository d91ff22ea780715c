//! Observation vectors → judged vectors over small numbers. Every distinct vector is judged once, however many cells saw
//! it; what was seen and what it came to is a dictionary, because a few hundred different answers make millions of results.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use rayon::prelude::*;

use crate::catalog::{Catalogue, Requirement};
use crate::collect::{Observation, Observations, Saw};
use crate::fault::Fault;
use crate::id::CheckId;
use crate::judge::roster::Unreported;
use crate::judge::{Counts, JudgedCell, Outcome, Verdict, errno_name, judge_cell, signal_name};

use super::text::printable;

/// Longest text of an answer kept, in characters.
const MAX_TEXT: usize = 400;
/// Vectors judged at a time: bounds what is held in its long form.
const CHUNK: usize = 256;

/// One answer: what was seen and what it came to. Texts are printable.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Seen {
    /// `pass`, `fail`, `skip`, `error`, `miss`.
    pub outcome: &'static str,
    /// `refused`, `absent`, `killed`, `hung`, `wrong` of a failure.
    pub how: Option<&'static str>,
    /// The failure, or why it was skipped, in words.
    pub reason: String,
    /// What was seen: `ok`, `errno`, `signal`, `timeout`, `value`, `samples`, `not-asked`.
    pub saw: &'static str,
    /// Errno or signal number.
    pub number: Option<i32>,
    /// Its name, the value, the milliseconds, the median of the samples.
    pub value: String,
    /// Which step failed.
    pub step: Option<String>,
    /// What the seccomp filter answers.
    pub filter: Option<String>,
}

/// A judged vector.
#[derive(Debug, Clone)]
pub struct Vector {
    /// What it comes to.
    pub verdict: Verdict,
    /// How many checks came to what.
    pub counts: Counts,
    /// Check and answer, both as indexes, in order of check.
    pub results: Vec<(u32, u32)>,
}

/// Judged vectors with their dictionaries.
#[derive(Debug, Default)]
pub struct Judged {
    /// Checks seen anywhere, in order of id.
    pub checks: Vec<CheckId>,
    /// The dictionary.
    pub seen: Vec<Seen>,
    /// In the order they were given.
    pub vectors: Vec<Vector>,
}

/// What a vector is judged from: faults of the rig can make a good vector an error, and what is missing a miss.
#[derive(Debug)]
pub struct Source<'a> {
    /// What was seen.
    pub observations: &'a Arc<Observations>,
    /// What was not reported.
    pub unreported: Unreported,
    /// What broke.
    pub faults: &'a [Fault],
}

/// Judges every source.
pub fn judge_all(catalogue: &Catalogue, sources: &[Source<'_>]) -> Judged {
    let mut checks: Vec<&CheckId> = sources
        .par_iter()
        .fold(HashSet::new, |mut all, source| {
            all.extend(source.observations.keys().chain(source.unreported.outcomes.keys()));
            all
        })
        .reduce(HashSet::new, |mut all, more| {
            all.extend(more);
            all
        })
        .into_iter()
        .collect();
    checks.sort_unstable();
    let index: HashMap<&CheckId, u32> = checks.iter().zip(0..).map(|(&check, index)| (check, index)).collect();
    let mut dictionary = Dictionary::default();
    let mut vectors = Vec::with_capacity(sources.len());
    for chunk in sources.chunks(CHUNK) {
        let judged: Vec<(JudgedCell<'_>, Vec<u32>)> = chunk
            .par_iter()
            .map(|source| {
                let judged = judge_cell(catalogue, source.observations, &source.unreported, source.faults);
                let numbers = judged.checks.iter().map(|one| index[one.check]).collect();
                (judged, numbers)
            })
            .collect();
        for (judged, numbers) in judged {
            let answers = judged.checks.iter().map(|one| dictionary.index(&one.outcome, one.seen));
            let results = numbers.into_iter().zip(answers).collect();
            vectors.push(Vector { verdict: judged.verdict, counts: judged.counts, results });
        }
    }
    let checks = checks.into_iter().cloned().collect();
    Judged { checks, seen: dictionary.seen, vectors }
}

#[derive(Default)]
struct Dictionary {
    seen: Vec<Seen>,
    index: HashMap<Seen, u32>,
    /// `ok` and `pass`, without and with a filter that allows: nearly every result is one of them.
    plain: [Option<u32>; 2],
}

impl Dictionary {
    fn index(&mut self, outcome: &Outcome, observation: Option<&Observation>) -> u32 {
        let plain = match (outcome, observation) {
            (Outcome::Pass, Some(Observation { saw: Saw::Ok, step: None, filter })) => match filter.as_deref() {
                None => Some(0),
                Some("allow") => Some(1),
                Some(_) => None,
            },
            _ => None,
        };
        if let Some(index) = plain.and_then(|plain| self.plain[plain]) {
            return index;
        }
        let seen = Seen::new(outcome, observation);
        let next = u32::try_from(self.seen.len()).unwrap_or(u32::MAX);
        let index = *self.index.entry(seen).or_insert_with_key(|seen| {
            self.seen.push(seen.clone());
            next
        });
        if let Some(plain) = plain {
            self.plain[plain] = Some(index);
        }
        index
    }
}

impl Seen {
    fn new(outcome: &Outcome, observation: Option<&Observation>) -> Self {
        use crate::judge::Failure;
        let (how, reason) = match outcome {
            Outcome::Pass | Outcome::Miss => (None, String::new()),
            Outcome::Skip { why } => (None, printable(why, MAX_TEXT)),
            Outcome::Error { fault } => (None, printable(&fault.to_string(), MAX_TEXT)),
            Outcome::Fail { failure } => {
                let how = match failure {
                    Failure::Refused { .. } => "refused",
                    Failure::Absent { .. } => "absent",
                    Failure::Killed { .. } => "killed",
                    Failure::Hung { .. } => "hung",
                    Failure::Wrong { .. } => "wrong",
                };
                (Some(how), printable(&failure.to_string(), MAX_TEXT))
            }
        };
        let (saw, number, value) = match observation.map(|observation| &observation.saw) {
            None => ("nothing", None, String::new()),
            Some(Saw::Ok) => ("ok", None, String::new()),
            Some(Saw::Errno { errno }) => ("errno", Some(*errno), errno_name(*errno)),
            Some(Saw::Signal { signal }) => ("signal", Some(*signal), signal_name(*signal)),
            Some(Saw::Timeout { ms }) => ("timeout", None, format!("{ms} ms")),
            Some(Saw::Value { value }) => ("value", None, printable(&value.to_string(), MAX_TEXT)),
            Some(Saw::Samples { unit, samples }) => ("samples", None, printable(&median(samples, unit), MAX_TEXT)),
            Some(Saw::NotAsked { .. }) => ("not-asked", None, String::new()),
        };
        let short = |text: &Option<String>| text.as_ref().map(|text| printable(text, MAX_TEXT));
        let (step, filter) =
            observation.map_or((None, None), |observation| (short(&observation.step), short(&observation.filter)));
        Self { outcome: outcome.word(), how, reason, saw, number, value, step, filter }
    }

    /// Whether it fails, where it passes or fails at all.
    pub fn verdict(&self) -> Option<bool> {
        match self.outcome {
            "fail" => Some(true),
            "pass" => Some(false),
            _ => None,
        }
    }

    /// Whether it is a failure.
    pub fn is_fail(&self) -> bool {
        self.outcome == "fail"
    }
}

fn median(samples: &[f64], unit: &str) -> String {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.get(sorted.len() / 2) {
        Some(median) => format!("median {median} {unit} of {}", samples.len()),
        None => "no samples".to_owned(),
    }
}

/// The word for it.
pub fn requirement_word(requirement: Requirement) -> &'static str {
    match requirement {
        Requirement::Must => "must",
        Requirement::Should => "should",
        Requirement::May => "may",
    }
}

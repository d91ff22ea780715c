//! All observations of one cell → outcomes, counts and a verdict.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Outcome, judge};
use crate::catalog::{Catalogue, Check, Contract, Requirement};
use crate::collect::Observations;
use crate::fault::Fault;
use crate::id::CheckId;

/// What a cell comes to: the worst of its `must` and `should` outcomes. Ordered from good to bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// It was not run, on purpose.
    Skip,
    /// Every `must` and `should` check passes.
    Pass,
    /// Every `must` check passes, some `should` check fails.
    Degraded,
    /// It was planned and never ran.
    Miss,
    /// The rig broke: nothing, or not everything, is known.
    Error,
    /// Some `must` check fails.
    Fail,
}

impl Verdict {
    /// Every verdict, from good to bad.
    pub const ALL: [Self; 6] = [Self::Skip, Self::Pass, Self::Degraded, Self::Miss, Self::Error, Self::Fail];

    /// The one word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Skip => "skip",
            Self::Pass => "pass",
            Self::Degraded => "degraded",
            Self::Miss => "miss",
            Self::Error => "error",
            Self::Fail => "fail",
        }
    }
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.word())
    }
}

/// How many checks came to what.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Passed.
    pub pass: usize,
    /// Failed and required as `must`.
    pub fail_must: usize,
    /// Failed and required as `should`.
    pub fail_should: usize,
    /// Failed and required as `may`.
    pub fail_may: usize,
    /// Not asked.
    pub skip: usize,
    /// The rig broke.
    pub error: usize,
    /// Planned and never reported.
    pub miss: usize,
}

/// The outcomes of one cell.
#[derive(Debug, Clone, PartialEq)]
pub struct JudgedCell {
    /// What it comes to.
    pub verdict: Verdict,
    /// How many checks came to what.
    pub counts: Counts,
    /// Outcome by check.
    pub outcomes: BTreeMap<CheckId, Outcome>,
}

/// Judges a cell that delivered something. `faults` are what broke while it did.
pub fn judge_cell(catalogue: &Catalogue, observations: &Observations, faults: &[Fault]) -> JudgedCell {
    let mut outcomes = BTreeMap::new();
    let mut counts = Counts::default();
    for (id, observation) in observations {
        let users_own;
        let check = match catalogue.row(id) {
            Some(check) => check,
            None => {
                users_own = foreign(id);
                &users_own
            }
        };
        let outcome = judge(check, observation);
        match (&outcome, check.requirement) {
            (Outcome::Pass, _) => counts.pass += 1,
            (Outcome::Fail { .. }, Requirement::Must) => counts.fail_must += 1,
            (Outcome::Fail { .. }, Requirement::Should) => counts.fail_should += 1,
            (Outcome::Fail { .. }, Requirement::May) => counts.fail_may += 1,
            (Outcome::Skip { .. }, _) => counts.skip += 1,
            (Outcome::Error { .. }, _) => counts.error += 1,
            (Outcome::Miss, _) => counts.miss += 1,
        }
        outcomes.insert(id.clone(), outcome);
    }
    let verdict = if counts.fail_must > 0 {
        Verdict::Fail
    } else if !faults.is_empty() || counts.error > 0 {
        Verdict::Error
    } else if counts.miss > 0 || outcomes.is_empty() {
        Verdict::Miss
    } else if counts.fail_should > 0 {
        Verdict::Degraded
    } else {
        Verdict::Pass
    };
    JudgedCell { verdict, counts, outcomes }
}

/// A check the catalogue does not know comes from a user's probe: it has to work.
fn foreign(id: &CheckId) -> Check {
    Check {
        id: id.clone(),
        title: id.to_string(),
        contract: Contract::Works,
        requirement: Requirement::Must,
        allow: vec![],
        expect: vec![],
        min: None,
        max: None,
        since: None,
        arch: vec![],
        reference: String::new(),
        breaks: String::new(),
        remedy: None,
        effect: None,
        one_sided: None,
        native: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::{Observation, Saw};
    use crate::fault::Phase;

    const ROWS: &str = r#"
        check = [
            { id = "t.must", title = "", contract = "works", requirement = "must", reference = "", breaks = "" },
            { id = "t.should", title = "", contract = "works", requirement = "should", reference = "", breaks = "" },
            { id = "t.may", title = "", contract = "works", requirement = "may", reference = "", breaks = "" },
        ]
    "#;

    fn verdict(must: Saw, should: Saw, may: Saw, faults: &[Fault]) -> Verdict {
        let catalogue = Catalogue::parse([("t.toml", ROWS)]).unwrap();
        let observations = [("t.must", must), ("t.should", should), ("t.may", may)]
            .map(|(id, saw)| (id.parse().unwrap(), Observation { saw, step: None, filter: None }))
            .into();
        judge_cell(&catalogue, &observations, faults).verdict
    }

    #[test]
    fn a_verdict_is_the_worst_of_must_and_should() {
        let ok = || Saw::Ok;
        let bad = || Saw::Errno { errno: 1 };
        let broken = [Fault::new(Phase::Protocol, "cut off")];
        assert_eq!(verdict(ok(), ok(), ok(), &[]), Verdict::Pass);
        assert_eq!(verdict(ok(), ok(), bad(), &[]), Verdict::Pass);
        assert_eq!(verdict(ok(), bad(), bad(), &[]), Verdict::Degraded);
        assert_eq!(verdict(bad(), ok(), ok(), &[]), Verdict::Fail);
        assert_eq!(verdict(ok(), ok(), ok(), &broken), Verdict::Error);
        assert_eq!(verdict(bad(), ok(), ok(), &broken), Verdict::Fail);
    }

    #[test]
    fn nothing_reported_is_never_a_pass() {
        let judged = judge_cell(&Catalogue::default(), &Observations::new(), &[]);
        assert_eq!(judged.verdict, Verdict::Miss);
    }
}

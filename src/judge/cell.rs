//! All observations of one cell → outcomes, counts and a verdict.

use serde::{Deserialize, Serialize};

use super::roster::Unreported;
use super::{Outcome, judge};
use crate::catalog::{Catalogue, Check, Requirement};
use crate::collect::{Observation, Observations};
use crate::fault::Fault;
use crate::id::CheckId;

/// Why a check is not judged that the catalogue does not have.
pub const UNKNOWN_CHECK: &str = "this abicus does not know the check; a newer one judges it";

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
    /// Failed as a waiver expects; in none of the other counts.
    #[serde(default)]
    pub waived: usize,
}

/// One check of a cell.
#[derive(Debug, Clone, PartialEq)]
pub struct JudgedCheck<'a> {
    /// Which.
    pub check: &'a CheckId,
    /// What was seen, where it was reported.
    pub seen: Option<&'a Observation>,
    /// What it comes to.
    pub outcome: Outcome,
}

/// The outcomes of one cell.
#[derive(Debug, Clone, PartialEq)]
pub struct JudgedCell<'a> {
    /// What it comes to.
    pub verdict: Verdict,
    /// How many checks came to what.
    pub counts: Counts,
    /// In order of id.
    pub checks: Vec<JudgedCheck<'a>>,
}

/// Judges a cell that delivered something: what it saw, what it did not report, and what broke while it did.
pub fn judge_cell<'a>(
    catalogue: &Catalogue,
    observations: &'a Observations,
    unreported: &'a Unreported,
    faults: &[Fault],
) -> JudgedCell<'a> {
    let mut counts = Counts { miss: unreported.unnamed, ..Counts::default() };
    let mut count = |outcome: &Outcome, row: Option<&Check>| {
        counts.add(outcome, row.map_or(Requirement::May, |row| row.requirement));
    };
    let seen = observations.iter().map(|(check, seen)| (check, Some(seen)));
    let mut checks: Vec<JudgedCheck<'a>> = seen
        .chain(unreported.outcomes.keys().map(|check| (check, None)))
        .map(|(check, seen)| {
            let row = catalogue.row(check);
            let outcome = match (row, seen) {
                (Some(row), Some(seen)) => judge(row, seen),
                // A newer abicus asked it: what passing means is not known here, so nothing is claimed.
                (None, Some(_)) => Outcome::Skip { why: UNKNOWN_CHECK.to_owned() },
                (_, None) => unreported.outcomes[check].clone(),
            };
            count(&outcome, row);
            JudgedCheck { check, seen, outcome }
        })
        .collect();
    checks.sort_by(|a, b| a.check.cmp(b.check));
    JudgedCell { verdict: counts.verdict(faults), counts, checks }
}

impl Counts {
    /// Counts one outcome more.
    pub fn add(&mut self, outcome: &Outcome, requirement: Requirement) {
        match (outcome, requirement) {
            (Outcome::Pass, _) => self.pass += 1,
            (Outcome::Fail { .. }, Requirement::Must) => self.fail_must += 1,
            (Outcome::Fail { .. }, Requirement::Should) => self.fail_should += 1,
            (Outcome::Fail { .. }, Requirement::May) => self.fail_may += 1,
            (Outcome::Skip { .. }, _) => self.skip += 1,
            (Outcome::Error { .. }, _) => self.error += 1,
            (Outcome::Miss, _) => self.miss += 1,
        }
    }

    /// What a cell with these counts comes to. A failure that was seen is one whatever broke beside it.
    pub fn verdict(&self, faults: &[Fault]) -> Verdict {
        if self.fail_must > 0 {
            Verdict::Fail
        } else if !faults.is_empty() || self.error > 0 {
            Verdict::Error
        // A cell that answered nothing that could be judged is not a pass.
        } else if self.miss > 0 || self.pass + self.fail_should + self.fail_may + self.waived == 0 {
            Verdict::Miss
        } else if self.fail_should > 0 {
            Verdict::Degraded
        } else {
            Verdict::Pass
        }
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
        judge_cell(&catalogue, &observations, &Unreported::default(), faults).verdict
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
        let (seen, unreported) = (Observations::new(), Unreported::default());
        assert_eq!(judge_cell(&Catalogue::default(), &seen, &unreported, &[]).verdict, Verdict::Miss);
    }

    #[test]
    fn a_check_of_a_newer_catalogue_is_not_judged_and_says_so() {
        let catalogue = Catalogue::parse([("t.toml", ROWS)]).unwrap();
        let seen = |saw| Observation { saw, step: None, filter: None };
        let mut observations: Observations =
            [("t.must".parse().unwrap(), seen(Saw::Ok)), ("new.check".parse().unwrap(), seen(Saw::Errno { errno: 1 }))]
                .into();
        let none = Unreported::default();
        let judged = judge_cell(&catalogue, &observations, &none, &[]);
        assert_eq!(judged.verdict, Verdict::Pass);
        assert_eq!((judged.counts.pass, judged.counts.skip), (1, 1));
        let why = Outcome::Skip { why: UNKNOWN_CHECK.to_owned() };
        let outcomes: Vec<_> = judged.checks.iter().map(|one| (one.check.as_str(), &one.outcome)).collect();
        assert_eq!(outcomes, [("new.check", &why), ("t.must", &Outcome::Pass)]);
        observations.remove(&"t.must".parse().unwrap());
        let judged = judge_cell(&catalogue, &observations, &none, &[]);
        assert_eq!(judged.verdict, Verdict::Miss, "nothing that could be judged is not a pass");
    }

    /// Every way a cell can be: what of must, should and may fails, what is not known, what broke.
    #[test]
    fn the_truth_table_of_verdicts() {
        use Verdict::{Degraded, Error, Fail, Miss, Pass};
        let broken = [Fault::new(Phase::Wait, "x")];
        for bits in 0..128u32 {
            let is = |bit: u32| usize::from(bits >> bit & 1 == 1);
            let counts = Counts {
                pass: is(0),
                fail_must: is(1),
                fail_should: is(2),
                fail_may: is(3),
                error: is(4),
                miss: is(5),
                ..Counts::default()
            };
            let faults: &[Fault] = if is(6) == 1 { &broken } else { &[] };
            let expected = match (is(1), is(4) + is(6), is(5), is(2), is(0) + is(3)) {
                (1, 0..=2, 0..=1, 0..=1, 0..=2) => Fail,
                (0, 1..=2, 0..=1, 0..=1, 0..=2) => Error,
                (0, 0, 1, 0..=1, 0..=2) => Miss,
                (0, 0, 0, 1, 0..=2) => Degraded,
                (0, 0, 0, 0, 1..=2) => Pass,
                (0, 0, 0, 0, 0) => Miss,
                (must, broke, miss, should, rest) => unreachable!("{must} {broke} {miss} {should} {rest}"),
            };
            assert_eq!(counts.verdict(faults), expected, "{counts:?} {faults:?}");
        }
    }
}

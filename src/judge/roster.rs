//! What a cell should have reported and did not. A probe says how many checks it will report, not which; cells of the same
//! run in which the same probes came to their end know which.
//!
//! In: what the probes of each cell said, and what was seen. Out: per cell, an outcome for each check that is missing. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::Outcome;
use crate::collect::{Observations, ProbeReport};
use crate::fault::{Fault, Phase};
use crate::id::CheckId;

/// What was planned and not reported.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Unreported {
    /// By check: `error` where the probe was cut off, `miss` where it came to its end without it.
    pub outcomes: BTreeMap<CheckId, Outcome>,
    /// How many more are missing of which no cell of the run knows the name.
    pub unnamed: usize,
}

/// What tells one set of planned checks from another: probe, version, number planned.
type Plan<'a> = Vec<(&'a str, &'a str, usize)>;

/// Which checks the probes of a run plan.
#[derive(Debug, Default)]
pub struct Rosters<'a>(HashMap<Plan<'a>, BTreeSet<&'a CheckId>>);

fn plan(probes: &[ProbeReport]) -> Plan<'_> {
    probes.iter().map(|probe| (probe.probe.as_str(), probe.version.as_str(), probe.planned)).collect()
}

fn whole(probe: &ProbeReport) -> bool {
    probe.complete && probe.reported >= probe.planned
}

impl<'a> Rosters<'a> {
    /// Learns from the cells whose probes came to their end.
    pub fn new(cells: impl Iterator<Item = (&'a [ProbeReport], &'a Observations)>) -> Self {
        let mut rosters = Self::default();
        for (probes, observations) in cells {
            if !probes.is_empty() && probes.iter().all(whole) {
                rosters.0.entry(plan(probes)).or_insert_with(|| observations.keys().collect());
            }
        }
        rosters
    }

    /// What is missing in a cell.
    pub fn unreported(&self, probes: &[ProbeReport], observations: &Observations) -> Unreported {
        if probes.iter().all(whole) {
            return Unreported::default();
        }
        let missing: usize = probes.iter().map(|probe| probe.planned.saturating_sub(probe.reported)).sum();
        let cut = probes.iter().find(|probe| !probe.complete);
        let outcome = match cut {
            Some(probe) => {
                let cause = format!("truncated: probe `{}` ended before it reported this", probe.probe);
                Outcome::Error { fault: Fault::new(Phase::Protocol, cause) }
            }
            None => Outcome::Miss,
        };
        let known = self.0.get(&plan(probes));
        let outcomes: BTreeMap<CheckId, Outcome> = known
            .into_iter()
            .flatten()
            .filter(|id| !observations.contains_key(**id))
            .map(|id| ((*id).clone(), outcome.clone()))
            .collect();
        let unnamed = missing.saturating_sub(outcomes.len());
        Unreported { outcomes, unnamed }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::{Observation, Saw};

    fn report(planned: usize, reported: usize, complete: bool) -> ProbeReport {
        ProbeReport { probe: "kernel".parse().unwrap(), version: "1".into(), planned, reported, complete }
    }

    fn seen(ids: &[&str]) -> Observations {
        let ok = || Observation { saw: Saw::Ok, step: None, filter: None };
        ids.iter().map(|id| (id.parse().unwrap(), ok())).collect()
    }

    #[test]
    fn what_a_probe_did_not_report_is_named_by_the_cells_in_which_it_did() {
        let (whole, all) = (vec![report(3, 3, true)], seen(&["a.one", "a.two", "a.three"]));
        let rosters = Rosters::new([(whole.as_slice(), &all)].into_iter());
        assert_eq!(rosters.unreported(&whole, &all), Unreported::default());

        let cut = rosters.unreported(&[report(3, 1, false)], &seen(&["a.one"]));
        let words: Vec<_> = cut.outcomes.iter().map(|(id, outcome)| (id.as_str(), outcome.word())).collect();
        assert_eq!(words, [("a.three", "error"), ("a.two", "error")]);
        assert_eq!(cut.unnamed, 0);

        let ended = rosters.unreported(&[report(3, 2, true)], &seen(&["a.one", "a.two"]));
        let words: Vec<_> = ended.outcomes.iter().map(|(id, outcome)| (id.as_str(), outcome.word())).collect();
        assert_eq!(words, [("a.three", "miss")]);
    }

    #[test]
    fn what_no_cell_can_name_is_counted() {
        let rosters = Rosters::new(std::iter::empty());
        let cut = rosters.unreported(&[report(1200, 700, false)], &seen(&["a.one"]));
        assert_eq!((cut.outcomes.len(), cut.unnamed), (0, 500));
        let other = vec![report(3, 3, true)];
        let all = seen(&["a.one", "a.two", "a.three"]);
        let rosters = Rosters::new([(other.as_slice(), &all)].into_iter());
        let cut = rosters.unreported(&[report(4, 1, false)], &seen(&["a.one"]));
        assert_eq!((cut.outcomes.len(), cut.unnamed), (0, 3), "another plan names nothing");
    }
}

//! Waivers applied to a view: a result that one covers no longer counts against its cell. What was seen stays as it was.

use jiff::civil::Date;
use serde::Serialize;

use super::view::{Cell, View};
use crate::catalog::Requirement;
use crate::judge::waive::{Fate, Tally, fate};
use crate::spec::Waiver;

/// A waiver and how it fares.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct WaiverUse {
    /// Which, in words.
    pub waiver: String,
    /// Why it is there; the user's words.
    pub reason: String,
    /// Who looks after it; the user's words.
    pub owner: Option<String>,
    /// Where it is discussed; the user's words.
    pub link: Option<String>,
    /// The last day on which it holds.
    pub until: Date,
    /// Whether it is still good.
    pub fate: Fate,
    /// What it covers.
    pub tally: Tally,
}

/// Counts every asked cell again without the failures that waivers expect, and says how the waivers fare.
pub fn apply(view: &mut View<'_>, today: Date) -> Vec<WaiverUse> {
    let waivers = std::mem::take(&mut view.terms.waivers);
    let matching = |waiver: &Waiver| {
        let mut covered = vec![false; view.checks.len()];
        for (covered, check) in covered.iter_mut().zip(&view.checks) {
            *covered = waiver.checks.iter().any(|glob| glob.matches(check));
        }
        covered
    };
    let covered: Vec<Vec<bool>> = waivers.iter().map(matching).collect();
    let mut tallies = vec![Tally::default(); waivers.len()];
    let mut cells = std::mem::take(&mut view.cells);
    for cell in cells.iter_mut().filter(|cell| !cell.role.is_control()) {
        let mine: Vec<usize> = (0..waivers.len()).filter(|&at| waivers[at].cells.matches(cell.id)).collect();
        for &at in &mine {
            tallies[at].cells += 1;
            tallies[at].ran += usize::from(cell.vector.is_some());
        }
        if !mine.is_empty() {
            let holds = |at: usize| waivers[at].until >= today;
            waive(view, cell, &mine, &covered, &mut tallies, holds);
        }
    }
    view.cells = cells;
    let selected = view.run.info.selected;
    let uses = waivers.iter().zip(tallies).map(|(waiver, tally)| WaiverUse {
        waiver: waiver.to_string(),
        reason: waiver.reason.clone(),
        owner: waiver.owner.clone(),
        link: waiver.link.clone(),
        until: waiver.until,
        fate: fate(waiver.until, today, tally, selected),
        tally,
    });
    let uses = uses.collect();
    view.terms.waivers = waivers;
    uses
}

/// Counts one cell again. `mine` are the waivers for it, `covered` the checks of each waiver.
fn waive(
    view: &View<'_>,
    cell: &mut Cell<'_>,
    mine: &[usize],
    covered: &[Vec<bool>],
    tallies: &mut [Tally],
    holds: impl Fn(usize) -> bool,
) {
    let Some(vector) = cell.vector.and_then(|vector| view.vectors.get(vector)) else { return };
    for &(check, seen) in &vector.results {
        let outcome = view.seen[seen as usize].outcome;
        let mut waived = false;
        for &at in mine.iter().filter(|&&at| covered[at][check as usize]) {
            tallies[at].failing += usize::from(outcome == "fail");
            tallies[at].passing += usize::from(outcome == "pass");
            waived |= outcome == "fail" && holds(at);
        }
        if waived {
            let counts = &mut cell.counts;
            counts.waived += 1;
            match view.requirement(&view.checks[check as usize]) {
                Requirement::Must => counts.fail_must -= 1,
                Requirement::Should => counts.fail_should -= 1,
                Requirement::May => counts.fail_may -= 1,
            }
        }
    }
    cell.verdict = cell.counts.verdict(cell.faults);
}

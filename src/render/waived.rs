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
    /// Its patterns over checks of which nothing fails and something passes.
    pub idle: Vec<String>,
}

impl WaiverUse {
    /// How it fares, in words.
    pub fn words(&self) -> String {
        match self.fate {
            Fate::Partly => format!("{} ({})", self.fate.words(), self.idle.join(", ")),
            fate => fate.words().to_owned(),
        }
    }
}

/// How often what one pattern of a waiver covers fails and passes.
#[derive(Debug, Clone, Copy, Default)]
struct Answers {
    failing: usize,
    passing: usize,
}

/// Counts every asked cell again without the failures that waivers expect, and says how the waivers fare.
pub fn apply(view: &mut View<'_>, today: Date) -> Vec<WaiverUse> {
    let waivers = std::mem::take(&mut view.terms.waivers);
    // By check: which patterns of the waiver cover it.
    let matching = |waiver: &Waiver| -> Vec<Vec<usize>> {
        let globs = |check| (0..waiver.checks.len()).filter(|&glob| waiver.checks[glob].matches(check)).collect();
        view.checks.iter().map(globs).collect()
    };
    let covered: Vec<Vec<Vec<usize>>> = waivers.iter().map(matching).collect();
    let mut tallies = vec![Tally::default(); waivers.len()];
    let mut answers: Vec<Vec<Answers>> = waivers.iter().map(|w| vec![Answers::default(); w.checks.len()]).collect();
    let mut cells = std::mem::take(&mut view.cells);
    for cell in cells.iter_mut().filter(|cell| !cell.role.is_control()) {
        let mine: Vec<usize> = (0..waivers.len()).filter(|&at| waivers[at].cells.matches(cell.id)).collect();
        for &at in &mine {
            tallies[at].cells += 1;
            tallies[at].ran += usize::from(cell.vector.is_some());
        }
        if !mine.is_empty() {
            let holds = |at: usize| waivers[at].until >= today;
            waive(view, cell, &mine, &covered, (&mut tallies, &mut answers), holds);
        }
    }
    view.cells = cells;
    let selected = view.run.info.selected;
    let uses = waivers.iter().zip(tallies).zip(answers).map(|((waiver, tally), answers)| {
        let passes = |answers: &Answers| answers.failing == 0 && answers.passing > 0;
        let idle = waiver.checks.iter().zip(&answers).filter(|(_, answers)| passes(answers));
        let idle: Vec<String> = idle.map(|(glob, _)| glob.as_str().to_owned()).collect();
        let tally = Tally { idle: idle.len(), ..tally };
        WaiverUse {
            waiver: waiver.to_string(),
            reason: waiver.reason.clone(),
            owner: waiver.owner.clone(),
            link: waiver.link.clone(),
            until: waiver.until,
            fate: fate(waiver.until, today, tally, selected),
            tally,
            idle,
        }
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
    covered: &[Vec<Vec<usize>>],
    (tallies, answers): (&mut [Tally], &mut [Vec<Answers>]),
    holds: impl Fn(usize) -> bool,
) {
    let Some(vector) = cell.vector.and_then(|vector| view.vectors.get(vector)) else { return };
    for &(check, seen) in &vector.results {
        let outcome = view.seen[seen as usize].outcome;
        let mut waived = false;
        for &at in mine.iter().filter(|&&at| !covered[at][check as usize].is_empty()) {
            for &glob in &covered[at][check as usize] {
                answers[at][glob].failing += usize::from(outcome == "fail");
                answers[at][glob].passing += usize::from(outcome == "pass");
            }
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

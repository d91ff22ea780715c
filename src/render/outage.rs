//! Cells that did not run, or not to their end: an outage of the rig is one thing to fix however many cells it costs.

use std::collections::BTreeMap;

use super::view::{Cell, View};
use crate::judge::Verdict;
use crate::judge::known::{self, Match};

/// Cells that did not run, or not to their end, for one reason.
#[derive(Debug)]
pub struct NotRun<'v, 'a> {
    /// Skip, miss or error.
    pub verdict: Verdict,
    /// Why; hostile text.
    pub reason: String,
    /// What to do; hostile text.
    pub hint: Option<&'v str>,
    /// Which.
    pub cells: Vec<&'v Cell<'a>>,
}

impl NotRun<'_, '_> {
    /// Whether the rig is to blame, and not the user's own wish.
    pub fn is_outage(&self) -> bool {
        match self.verdict {
            Verdict::Error | Verdict::Miss => true,
            Verdict::Skip | Verdict::Pass | Verdict::Degraded | Verdict::Fail => false,
        }
    }

    /// The same in every run with the same trouble.
    pub fn id(&self) -> String {
        format!("o-{}", &blake3::hash(without_numbers(&self.reason).as_bytes()).to_hex()[..8])
    }

    /// Documented incompatibilities that show like this.
    pub fn known(&self) -> Vec<Match> {
        known::matching_fault(&self.reason)
    }
}

/// By reason, what concerns most cells first.
pub fn not_run<'v, 'a>(view: &'v View<'a>) -> Vec<NotRun<'v, 'a>> {
    let mut reasons: BTreeMap<(Verdict, String, Option<&str>), NotRun<'v, 'a>> = BTreeMap::new();
    let mut put = |verdict: Verdict, reason: String, hint: Option<&'v str>, cell: &'v Cell<'a>| {
        // What tells one container from another is no reason of its own.
        let not_run = reasons.entry((verdict, without_numbers(&reason), hint)).or_insert_with(|| NotRun {
            verdict,
            reason,
            hint,
            cells: vec![],
        });
        if not_run.cells.last().is_none_or(|last| last.id != cell.id) {
            not_run.cells.push(cell);
        }
    };
    for cell in &view.cells {
        if let Some(reason) = cell.skipped {
            put(Verdict::Skip, reason.to_owned(), None, cell);
        } else if cell.verdict == Verdict::Miss && cell.faults.is_empty() {
            let reason = match cell.vector {
                Some(_) if cell.counts.miss > 0 => "it ended without reporting checks that it planned",
                Some(_) => "it ran and reported nothing that could be judged",
                None => "it was planned and nothing is recorded of it",
            };
            put(Verdict::Miss, reason.to_owned(), None, cell);
        }
        for fault in cell.faults {
            put(Verdict::Error, fault.to_string(), fault.hint.as_deref(), cell);
        }
    }
    let mut all: Vec<_> = reasons.into_values().collect();
    all.sort_by_key(|not_run| std::cmp::Reverse((not_run.verdict, not_run.cells.len())));
    all
}

/// A reason without the long numbers in it: names of containers, processes, times.
fn without_numbers(text: &str) -> String {
    let plain = |word: &str| word.len() < 12 || !word.chars().all(|c| c.is_ascii_hexdigit());
    let words = text.split_inclusive(|c: char| !c.is_ascii_alphanumeric());
    words
        .map(|word| {
            let end = word.trim_end_matches(|c: char| !c.is_ascii_alphanumeric()).len();
            if plain(&word[..end]) { word.to_owned() } else { format!("…{}", &word[end..]) }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_containers_make_no_reasons_of_their_own() {
        let told = |id: &str| without_numbers(&format!("preparing container {id} for attach: crun: cgroups"));
        assert_eq!(told("213009b62daa4d3ab78778969210c1a0"), told("89f35dcc8d3b71030c3e1b95756b74f4"));
        assert_eq!(told("213009b62daa4d3ab78778969210c1a0"), "preparing container … for attach: crun: cgroups");
        assert_eq!(without_numbers("no space left: /dev/sda1, 12 of 34"), "no space left: /dev/sda1, 12 of 34");
    }
}

//! One cell explained: what was seen, in which control, in the baseline and next to it; which layer, what inside it; what
//! breaks and what to do. In: a view, a cell, checks. Out: data for `abicus explain`, and the same as text. Pure.

use std::fmt::Write;

use serde::Serialize;

use super::inquiry::Inquiry;
use super::text::printable;
use super::vectors::requirement_word;
use super::view::View;
use crate::catalog::Requirement;
use crate::id::{CellId, CheckId};
use crate::judge::blame::{Answer, Controls, Layer};
use crate::judge::known::{self, Match};
use crate::judge::mechanism::Mechanism;

/// Neighbouring cells told about.
const MAX_NEIGHBOURS: usize = 8;

/// A cell, and checks of it.
#[derive(Debug, Serialize)]
pub struct Explanation {
    /// Which cell.
    pub cell: String,
    /// What it comes to.
    pub verdict: &'static str,
    /// Why it did not run, or not to its end.
    pub trouble: Vec<String>,
    /// Documented incompatibilities that show like that.
    pub known: Vec<Match>,
    /// Its failing checks, or the one that was asked about.
    pub checks: Vec<CheckExplained>,
    /// How many more of requirement `may` fail, where only one check was not asked about.
    pub more: usize,
    /// The words of a command line that asks the same by hand, where there is one.
    pub by_hand: Vec<String>,
    /// Why there is none.
    pub by_hand_trouble: Option<String>,
}

/// What was seen somewhere.
#[derive(Debug, Serialize)]
pub struct Elsewhere {
    /// `native`, `empty image`, `no policy`, `baseline`, or the cell's name.
    pub place: String,
    /// Which cell that is.
    pub cell: Option<String>,
    /// What it comes to there, and what was seen.
    pub says: String,
}

/// One check of the cell.
#[derive(Debug, Serialize)]
pub struct CheckExplained {
    /// Which.
    pub check: CheckId,
    /// What it asks.
    pub title: String,
    /// How much it matters here.
    pub requirement: &'static str,
    /// What it comes to, and what was seen.
    pub says: String,
    /// The waiver that covers it.
    pub waiver: Option<String>,
    /// What the controls say.
    pub controls: Vec<Elsewhere>,
    /// What the baseline says.
    pub baseline: Option<Elsewhere>,
    /// What cells next to it say.
    pub neighbours: Vec<Elsewhere>,
    /// The layers that are left; one is a proof. Empty where it does not fail.
    pub layers: Vec<Layer>,
    /// Why these layers.
    pub because: Option<&'static str>,
    /// Controls that would make the claim firmer, by name.
    pub missing: Vec<&'static str>,
    /// The same, each with why it says nothing.
    pub unanswered: Vec<String>,
    /// What inside the layer is at fault.
    pub mechanism: Option<Mechanism>,
    /// Documented incompatibilities with this signature.
    pub known: Vec<Match>,
    /// The finding it belongs to.
    pub finding: Option<String>,
    /// What breaks.
    pub breaks: String,
    /// What to do.
    pub remedy: Option<String>,
}

/// Explains a cell. Without a check: its failing ones that count, or all failing ones where none counts.
pub fn explain(
    view: &View<'_>,
    cell: &CellId,
    check: Option<&CheckId>,
    baseline: Option<&View<'_>>,
) -> Option<Explanation> {
    let at = view.cells.iter().position(|known| known.id == cell)?;
    let inquiry = Inquiry::new(view);
    let known = &view.cells[at];
    let failing: Vec<usize> = match (check, known.vector) {
        (Some(check), _) => view.checks.iter().position(|id| id == check).into_iter().collect(),
        (None, Some(vector)) => {
            let results = view.vectors[vector].results.iter();
            results.filter(|(_, seen)| view.seen[*seen as usize].is_fail()).map(|(check, _)| *check as usize).collect()
        }
        (None, None) => vec![],
    };
    let weighty = |&check: &usize| view.requirement(&view.checks[check]) > Requirement::May;
    let (mut told, rest): (Vec<usize>, Vec<usize>) = match check {
        Some(_) => (failing, vec![]),
        None => failing.into_iter().partition(weighty),
    };
    let more = if told.is_empty() { 0 } else { rest.len() };
    if told.is_empty() {
        told = rest;
    }
    let trouble: Vec<String> = known
        .skipped
        .map(|reason| printable(reason, 700))
        .into_iter()
        .chain(known.faults.iter().map(|fault| printable(&fault.to_string(), 700)))
        .collect();
    Some(Explanation {
        cell: cell.to_string(),
        verdict: known.verdict.word(),
        known: trouble
            .iter()
            .flat_map(|text| known::matching_fault(text))
            .chain(check.is_none().then(|| inquiry.recorded(at)).into_iter().flatten())
            .collect(),
        trouble,
        checks: told.into_iter().map(|check| explained(view, &inquiry, at, check, baseline)).collect(),
        more,
        by_hand: vec![],
        by_hand_trouble: None,
    })
}

fn explained(
    view: &View<'_>,
    inquiry: &Inquiry<'_, '_>,
    at: usize,
    check: usize,
    baseline: Option<&View<'_>>,
) -> CheckExplained {
    let (cell, id) = (&view.cells[at], &view.checks[check]);
    let fails = inquiry.fails(check);
    let failing = fails[at] == Some(true);
    let blame = failing.then(|| inquiry.blame(at, &fails));
    let places = inquiry.causes.places(at);
    let elsewhere = |place: &str, other: usize| {
        let there = view.cells[other].id;
        let mut says = says(view, other, check)?;
        // One control serves all hosts of a class.
        if there.host != cell.id.host {
            says += &format!(" (on {})", there.host);
        }
        Some(Elsewhere { place: place.to_owned(), cell: Some(there.to_string()), says })
    };
    let controls = [("native", places.native), ("empty image", places.scratch), ("no policy", places.no_policy)];
    let shown: Vec<usize> = controls.iter().filter_map(|(_, place)| *place).chain([at]).collect();
    let alike = |other: &&usize| {
        let near = &view.cells[**other];
        near.host == cell.host && (near.image == cell.image || near.engine == cell.engine)
    };
    let mut near: Vec<usize> = (0..view.cells.len()).filter(|other| !shown.contains(other)).collect();
    near = near.iter().filter(alike).copied().collect();
    // What differs tells most.
    near.sort_by_key(|&other| (fails[other].is_none(), fails[other] == fails[at], other));
    let row = view.catalogue.row(id);
    CheckExplained {
        check: id.clone(),
        title: row.map(|row| row.title.clone()).unwrap_or_default(),
        requirement: requirement_word(view.requirement(id)),
        says: says(view, at, check).unwrap_or_else(|| "not asked here".to_owned()),
        waiver: view.waiver(cell.id, id).filter(|_| failing).map(|waiver| format!("{waiver}: {}", waiver.reason)),
        controls: controls.into_iter().filter_map(|(place, at)| elsewhere(place, at?)).collect(),
        baseline: baseline.and_then(|baseline| {
            let at = baseline.cells.iter().position(|known| known.id == cell.id)?;
            let check = baseline.checks.iter().position(|known| known == id)?;
            let place = format!("baseline {}", baseline.run.info.id);
            Some(Elsewhere { place, cell: Some(cell.id.to_string()), says: says(baseline, at, check)? })
        }),
        neighbours: near
            .into_iter()
            .filter_map(|other| elsewhere(&view.cells[other].id.to_string(), other))
            .take(MAX_NEIGHBOURS)
            .collect(),
        because: blame.as_ref().map(|blame| because(blame.controls, &blame.layers)),
        mechanism: blame.as_ref().and_then(|blame| inquiry.mechanism(at, id, blame, &fails)),
        known: blame.as_ref().map(|blame| inquiry.known(at, std::iter::once(id), blame)).unwrap_or_default(),
        finding: view.findings.iter().find(|f| failing && f.checks.contains(&check)).map(|f| f.id.clone()),
        breaks: row.map(|row| row.breaks.clone()).unwrap_or_default(),
        remedy: row.and_then(|row| row.remedy.clone()),
        unanswered: blame.as_ref().map(|blame| inquiry.unanswered(at, check, blame)).unwrap_or_default(),
        missing: blame.as_ref().map(|blame| blame.missing.clone()).unwrap_or_default(),
        layers: blame.map(|blame| blame.layers).unwrap_or_default(),
    }
}

/// `fail: refused with EPERM by the seccomp filter`, `pass: ok`.
fn says(view: &View<'_>, cell: usize, check: usize) -> Option<String> {
    let seen = view.answer(view.cells[cell].vector?, check)?;
    let what = match (seen.reason.as_str(), seen.value.as_str()) {
        ("", "") => seen.saw.to_owned(),
        ("", value) => format!("{} {value}", seen.saw),
        (reason, _) => reason.to_owned(),
    };
    Some(format!("{}: {what}", seen.outcome))
}

/// Why these layers are left, in a sentence.
fn because(controls: Controls, layers: &[Layer]) -> &'static str {
    use Answer::{Fails as F, Passes as P, Unknown as U};
    if layers == [Layer::HostImage] {
        return "this image passes on a host of another kind, and another image passes on this one";
    }
    if layers == [Layer::HostEngine] {
        return "this engine passes on a host of another kind, and this host passes without it";
    }
    if layers == [Layer::Host] && controls.native == U {
        return "it passes on a host of another kind, and on this one in no image and under no engine";
    }
    if layers.iter().any(|layer| matches!(layer, Layer::HostImage | Layer::HostEngine)) {
        return "it passes on a host of another kind";
    }
    match (controls.native, controls.scratch, controls.no_policy) {
        (U, U, U) if layers.len() == 1 => "other images pass under this engine, and this image under another",
        (U, U, U) => "no control answered",
        (F | P | U, F | P | U, F) if layers.iter().all(|layer| matches!(layer, Layer::Engine | Layer::EngineImage)) => {
            "this image passes on this host under another engine"
        }
        (F, F | U, F | U) if layers == [Layer::Image] => {
            "another image passes on this host, and natively the host's own libc answers"
        }
        (F, U, F | U) if layers.contains(&Layer::Image) => {
            "it fails natively too, where the host's own libc answers, and no other image says which of both it is"
        }
        (F, F | U, F | U) => "it fails without engine and image too",
        (F | P | U, F, P) => "it fails with the empty image, and passes without the engine's policy",
        (P, F, U) => "it fails with the empty image, and passes without engine and image",
        (P, F, F) => "it fails with the empty image and without policy, and passes without engine",
        (U, F, F) => "it fails with the empty image and without policy",
        (U, F, U) => "it fails with the empty image",
        (F | P | U, P, F) => "it fails with this image and no policy, and passes with the empty image",
        (F | P | U, P, P) => {
            "it passes with the empty image, and with this image without policy: only both together fail"
        }
        (F | P | U, P, U) => "it passes with the empty image",
        (F | P | U, U, P) if layers == [Layer::Engine] => {
            "it passes without policy, and every image fails under this engine"
        }
        (F | P | U, U, P) if layers == [Layer::EngineImage] => {
            "it passes without policy, and other images pass under this engine"
        }
        (F | P | U, U, P) => "it passes with this image without policy",
        (P, U, F) => "it fails with this image without policy too, and passes natively",
        (U, U, F) => "it fails with this image without policy too",
        (P, U, U) => "it passes without engine and image",
    }
}

impl Explanation {
    /// For a terminal.
    pub fn text(&self) -> String {
        let mut out = format!("{}: {}\n", self.cell, self.verdict);
        for trouble in &self.trouble {
            let _ = writeln!(out, "  {trouble}");
        }
        known_as(&mut out, &self.known);
        for check in &self.checks {
            check.write(&mut out);
        }
        if self.checks.is_empty() && self.trouble.is_empty() {
            out += "  nothing fails here\n";
        }
        if self.more > 0 {
            let _ = writeln!(out, "\nand {} of requirement may; name one to have it explained", self.more);
        }
        if !self.by_hand.is_empty() {
            let words: Vec<String> = self.by_hand.iter().map(|word| shell_word(word)).collect();
            let _ = writeln!(out, "\nby hand:\n  {}", words.join(" "));
        }
        if let Some(trouble) = &self.by_hand_trouble {
            let _ = writeln!(out, "\nby hand: {trouble}");
        }
        out
    }
}

impl CheckExplained {
    fn write(&self, out: &mut String) {
        let _ = writeln!(out, "\n{} ({}): {}", self.check, self.requirement, self.title);
        let mut line = |name: &str, text: &str| {
            if !text.is_empty() {
                let _ = writeln!(out, "  {name:<13}{text}");
            }
        };
        line("here", &self.says);
        for seen in &self.controls {
            line(&seen.place, &seen.says);
        }
        if let Some(seen) = &self.baseline {
            line("baseline", &seen.says);
        }
        for seen in &self.neighbours {
            line("next to it", &format!("{}: {}", seen.place, seen.says));
        }
        let layers: Vec<&str> = self.layers.iter().map(|layer| layer.words()).collect();
        let because = self.because.map(|because| format!(", because {because}")).unwrap_or_default();
        line("layer", &if layers.is_empty() { String::new() } else { format!("{}{because}", layers.join(" or ")) });
        self.unanswered.iter().for_each(|why| line("not narrower", why));
        if let Some(found) = &self.mechanism {
            let likely = if found.sure { "" } else { "likely " };
            line("at fault", &format!("{likely}{}: {}", found.id, found.what));
            found.evidence.iter().for_each(|evidence| line("evidence", evidence));
        }
        line("breaks", &self.breaks);
        line("remedy", self.remedy.as_deref().unwrap_or_default());
        line("waived", self.waiver.as_deref().unwrap_or_default());
        line("finding", self.finding.as_deref().unwrap_or_default());
        known_as(out, &self.known);
    }
}

fn known_as(out: &mut String, known: &[Match]) {
    for known in known {
        let _ = writeln!(out, "  known as     {}: {}", known.id, known.title);
        let _ = writeln!(out, "               fix: {}", known.fix);
        if !known.workaround.is_empty() {
            let _ = writeln!(out, "               until then: {}", known.workaround);
        }
        for link in &known.links {
            let _ = writeln!(out, "               {link}");
        }
    }
}

/// A word as a shell reads it back.
fn shell_word(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:=@,%".contains(c);
    match !word.is_empty() && word.chars().all(plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_for_a_shell_are_quoted_where_they_have_to_be() {
        assert_eq!(shell_word("--security-opt"), "--security-opt");
        assert_eq!(shell_word("a b"), "'a b'");
        assert_eq!(shell_word("it's"), r"'it'\''s'");
        assert_eq!(shell_word(""), "''");
    }
}

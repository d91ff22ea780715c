//! `junit.xml` for every CI system: a suite per host and engine, a case per cell. Large runs get a suite per engine and a
//! case per image, because readers of this format refuse files with very many objects.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::text::{count, printable, thousands};
use super::view::{Cell, View};
use crate::judge::Verdict;
use crate::plan::Role;

/// Most cells that are cases of their own.
const MAX_CASES: usize = 10_000;
/// Failing checks listed per case.
const MAX_CHECKS: usize = 50;

/// Renders the document. Control cells are no tests and are left out.
pub fn junit(view: &View<'_>) -> String {
    let cells: Vec<&Cell<'_>> = view.asked().collect();
    let suites = if cells.len() <= MAX_CASES { per_cell(view, &cells) } else { per_image(view, &cells) };
    let total = |pick: fn(&Case) -> bool| suites.values().flatten().filter(|case| pick(case)).count();
    let mut xml = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    let _ = writeln!(
        xml,
        "<testsuites name=\"{}\" tests=\"{}\" failures=\"{}\" errors=\"{}\" skipped=\"{}\" timestamp=\"{}\">",
        escape(&view.run.info.name),
        total(|_| true),
        total(Case::failed),
        total(Case::broke),
        total(Case::skipped),
        view.run.info.started.strftime("%Y-%m-%dT%H:%M:%S"),
    );
    for (name, cases) in &suites {
        let of = |pick: fn(&Case) -> bool| cases.iter().filter(|case| pick(case)).count();
        let _ = writeln!(
            xml,
            "  <testsuite name=\"{}\" tests=\"{}\" failures=\"{}\" errors=\"{}\" skipped=\"{}\" time=\"{}\">",
            escape(name),
            cases.len(),
            of(Case::failed),
            of(Case::broke),
            of(Case::skipped),
            seconds(cases.iter().map(|case| case.ms).sum()),
        );
        for case in cases {
            case.write(&mut xml, name);
        }
        xml.push_str("  </testsuite>\n");
    }
    xml.push_str("</testsuites>\n");
    xml
}

struct Case {
    name: String,
    verdict: Verdict,
    message: String,
    text: String,
    ms: u64,
}

impl Case {
    fn failed(&self) -> bool {
        self.verdict == Verdict::Fail
    }

    fn broke(&self) -> bool {
        matches!(self.verdict, Verdict::Error | Verdict::Miss)
    }

    fn skipped(&self) -> bool {
        self.verdict == Verdict::Skip
    }

    fn write(&self, xml: &mut String, suite: &str) {
        let (name, class, time) = (escape(&self.name), escape(suite), seconds(self.ms));
        let _ = write!(xml, "    <testcase name=\"{name}\" classname=\"{class}\" time=\"{time}\"");
        let (message, text) = (escape(&self.message), escape_lines(&self.text));
        let element = match self.verdict {
            Verdict::Pass => None,
            // Degraded passes: what fails is told, and does not turn a build red.
            Verdict::Degraded => {
                let _ = writeln!(xml, ">\n      <system-out>{text}</system-out>\n    </testcase>");
                return;
            }
            Verdict::Fail => Some("failure"),
            Verdict::Error | Verdict::Miss => Some("error"),
            Verdict::Skip => Some("skipped"),
        };
        let _ = match element {
            None => writeln!(xml, "/>"),
            Some("skipped") => writeln!(xml, ">\n      <skipped message=\"{message}\"/>\n    </testcase>"),
            Some(element) => {
                writeln!(xml, ">\n      <{element} message=\"{message}\">{text}</{element}>\n    </testcase>")
            }
        };
    }
}

fn per_cell(view: &View<'_>, cells: &[&Cell<'_>]) -> BTreeMap<String, Vec<Case>> {
    let mut suites: BTreeMap<String, Vec<Case>> = BTreeMap::new();
    for cell in cells.iter().filter(|cell| cell.role == Role::Cell) {
        let (message, text) = why(view, cell);
        let ms = cell.attempts.iter().map(|a| a.timing.create_ms + a.timing.run_ms + a.timing.remove_ms).sum();
        let case = Case { name: cell.id.image.to_string(), verdict: cell.verdict, message, text, ms };
        suites.entry(format!("{}:{}", cell.id.host, cell.id.engine)).or_default().push(case);
    }
    suites
}

fn per_image(view: &View<'_>, cells: &[&Cell<'_>]) -> BTreeMap<String, Vec<Case>> {
    let mut cases: BTreeMap<(usize, usize), Vec<&Cell<'_>>> = BTreeMap::new();
    for cell in cells {
        cases.entry((cell.engine, cell.image)).or_default().push(cell);
    }
    let mut suites: BTreeMap<String, Vec<Case>> = BTreeMap::new();
    for ((engine, image), cells) in cases {
        let Some(worst) = cells.iter().max_by_key(|cell| cell.verdict) else { continue };
        let alike = cells.iter().filter(|cell| cell.verdict == worst.verdict).count();
        let (_, text) = why(view, worst);
        let case = Case {
            name: view.images[image].to_string(),
            verdict: worst.verdict,
            message: format!("{} on {} of {}", worst.verdict, thousands(alike), count(cells.len(), "host")),
            text: format!("for instance {}\n{text}", worst.id),
            ms: 0,
        };
        suites.entry(view.engines[engine].to_string()).or_default().push(case);
    }
    suites
}

/// Why a cell is what it is: in one line, and in full.
fn why(view: &View<'_>, cell: &Cell<'_>) -> (String, String) {
    if let Some(reason) = cell.skipped {
        return (reason.to_owned(), String::new());
    }
    let faults: Vec<String> = cell.faults.iter().map(|fault| printable(&fault.to_string(), 700)).collect();
    let mut lines = faults.clone();
    let mut failing = vec![];
    if let Some(vector) = cell.vector.and_then(|vector| view.vectors.get(vector)) {
        for &(check, seen) in &vector.results {
            let seen = &view.seen[seen as usize];
            if seen.is_fail() {
                let id = &view.checks[check as usize];
                failing.push((std::cmp::Reverse(view.requirement(id)), id, seen));
            }
        }
    }
    failing.sort_by_key(|(requirement, id, _)| (*requirement, *id));
    for (requirement, id, seen) in failing.iter().take(MAX_CHECKS) {
        let word = super::vectors::requirement_word(requirement.0);
        lines.push(format!("{id} ({word}): {}", seen.reason));
    }
    if failing.len() > MAX_CHECKS {
        lines.push(format!("and {} more", failing.len() - MAX_CHECKS));
    }
    let message = match (faults.first(), cell.verdict) {
        (Some(fault), Verdict::Error | Verdict::Miss) => fault.clone(),
        (None, Verdict::Miss) => "planned, and nothing is known of it".to_owned(),
        _ => {
            let must = failing.iter().filter(|(r, ..)| r.0 == crate::catalog::Requirement::Must).count();
            format!("{} of requirement must fail", count(must, "check"))
        }
    };
    (message, lines.join("\n"))
}

fn seconds(ms: u64) -> String {
    format!("{}.{:03}", ms / 1000, ms % 1000)
}

fn escape(text: &str) -> String {
    printable(text, 1_000).chars().fold(String::new(), |mut out, c| {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&apos;"),
            // Not characters of XML 1.0.
            '\u{fffe}' | '\u{ffff}' => out.push('\u{fffd}'),
            c => out.push(c),
        }
        out
    })
}

fn escape_lines(text: &str) -> String {
    text.lines().map(escape).collect::<Vec<_>>().join("\n")
}

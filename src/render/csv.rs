//! Three sheets. `cells.csv`: a row per cell. `results.csv`: a row per cell and check. `matrix.csv`: a row per cell, a column
//! per check. `reports/README.md` says what every column means; a test compares it with the constants here.
//!
//! Above [`FULL_RESULTS`] results the last two have a row per distinct vector instead of a row per cell, and `results.csv`
//! leaves out what passes: `cells` says how many cells a row stands for and `vector` joins it with `cells.csv`.

use std::borrow::Cow;
use std::collections::BTreeSet;

use super::RenderError;
use super::text::printable;
use super::vectors::requirement_word;
use super::view::{Cell, View, fact};
use crate::engine::Ended;
use crate::judge::signal_name;

/// Most results that are written one row each.
const FULL_RESULTS: usize = 2_000_000;
/// Longest text in a field, in characters.
const MAX_FIELD: usize = 600;

/// Facts that have a column in `cells.csv`: where they are found, the column, and the names the fact may have.
pub const FACT_COLUMNS: [(Subject, &str, &[&str]); 16] = [
    (Subject::Host, "host.kernel.release", &["kernel.release"]),
    (Subject::Host, "host.arch", &["arch", "kernel.machine"]),
    (Subject::Host, "host.os.id", &["os.id"]),
    (Subject::Host, "host.os.version", &["os.version"]),
    (Subject::Host, "host.cpu.model", &["cpu.model"]),
    (Subject::Engine, "engine.kind", &["kind", "engine.kind"]),
    (Subject::Engine, "engine.version", &["version", "engine.version"]),
    (Subject::Engine, "engine.runtime", &["runtime", "engine.runtime", "runtime.name"]),
    (Subject::Engine, "engine.runtime.version", &["runtime.version", "engine.runtime.version"]),
    (Subject::Image, "image.digest", &["digest"]),
    (Subject::Image, "image.arch", &["arch"]),
    (Subject::Image, "image.libc.kind", &["libc.kind"]),
    (Subject::Image, "image.libc.version", &["libc.version"]),
    (Subject::Image, "image.os.id", &["os.id"]),
    (Subject::Image, "image.os.version", &["os.version"]),
    (Subject::Image, "image.created", &["created"]),
];

/// What a fact is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// The host.
    Host,
    /// The engine on that host.
    Engine,
    /// The image.
    Image,
}

/// Columns of `cells.csv` before those of [`FACT_COLUMNS`].
pub const CELL_COLUMNS: [&str; 24] = [
    "cell",
    "host",
    "engine",
    "image",
    "role",
    "verdict",
    "pass",
    "fail_must",
    "fail_should",
    "fail_may",
    "skip",
    "error",
    "miss",
    "waived",
    "vector",
    "reason",
    "fault_phase",
    "fault",
    "hint",
    "attempts",
    "ended",
    "create_ms",
    "run_ms",
    "remove_ms",
];

/// Columns of `results.csv`.
pub const RESULT_COLUMNS: [&str; 16] = [
    "host",
    "engine",
    "image",
    "role",
    "vector",
    "cells",
    "check",
    "requirement",
    "outcome",
    "how",
    "reason",
    "saw",
    "number",
    "value",
    "step",
    "filter",
];

/// Columns of `matrix.csv` before the checks.
pub const MATRIX_COLUMNS: [&str; 7] = ["host", "engine", "image", "role", "vector", "cells", "verdict"];

/// `cells.csv`.
pub fn cells(view: &View<'_>) -> Result<Vec<u8>, RenderError> {
    let mut sheet = Sheet::new();
    let labels: BTreeSet<&str> = view
        .run
        .hosts
        .values()
        .flat_map(|host| host.facts.keys())
        .filter_map(|name| name.strip_prefix("label."))
        .collect();
    let labels: Vec<String> = labels.into_iter().map(|key| format!("label.{key}")).collect();
    let columns = CELL_COLUMNS.iter().chain(FACT_COLUMNS.iter().map(|(_, column, _)| column));
    let columns = columns.map(|column| (*column).to_owned()).chain(labels.iter().map(|label| format!("host.{label}")));
    let columns: Vec<String> = columns.collect();
    sheet.row(columns.iter().map(String::as_str))?;
    for cell in &view.cells {
        let counts = cell.vector.map(|_| cell.counts);
        let counted = |pick: fn(&crate::judge::Counts) -> usize| counts.as_ref().map(|counts| pick(counts).to_string());
        let fault = cell.faults.first();
        let last = cell.attempts.last();
        let timing = |pick: fn(&crate::engine::Timing) -> u64| last.map(|last| pick(&last.timing).to_string());
        let own = [
            Some(cell.id.to_string()),
            Some(cell.id.host.to_string()),
            Some(cell.id.engine.to_string()),
            Some(cell.id.image.to_string()),
            Some(role_word(cell).to_owned()),
            Some(cell.verdict.to_string()),
            counted(|counts| counts.pass),
            counted(|counts| counts.fail_must),
            counted(|counts| counts.fail_should),
            counted(|counts| counts.fail_may),
            counted(|counts| counts.skip),
            counted(|counts| counts.error),
            counted(|counts| counts.miss),
            counted(|counts| counts.waived),
            cell.digest.map(str::to_owned),
            cell.skipped.map(str::to_owned),
            fault.map(|fault| fault.phase.to_string()),
            fault.map(|fault| fault.cause.clone()),
            fault.and_then(|fault| fault.hint.clone()),
            Some(cell.attempts.len().to_string()),
            last.and_then(|last| last.ended).map(ended_words),
            timing(|timing| timing.create_ms),
            timing(|timing| timing.run_ms),
            timing(|timing| timing.remove_ms),
        ];
        let (host, engine, image) =
            (view.host(&cell.id.host), view.engine(&cell.id.host, &cell.id.engine), view.image(&cell.id.image));
        let facts = FACT_COLUMNS.iter().map(|(subject, _, names)| match subject {
            Subject::Host => fact(host, names),
            Subject::Engine => fact(engine, names),
            Subject::Image => fact(image, names),
        });
        let labels = labels.iter().map(|label| fact(host, &[label]));
        sheet.row(own.iter().map(|field| field.as_deref().unwrap_or_default()).chain(facts).chain(labels))?;
    }
    sheet.finish()
}

/// `results.csv`.
pub fn results(view: &View<'_>) -> Result<Vec<u8>, RenderError> {
    let rows = Rows::of(view);
    let requirements: Vec<&str> = view.checks.iter().map(|check| requirement_word(view.requirement(check))).collect();
    let mut sheet = Sheet::new();
    sheet.row(RESULT_COLUMNS)?;
    for (cell, stands_for) in &rows.cells {
        let Some(vector) = cell.vector.and_then(|vector| view.vectors.get(vector)) else { continue };
        for &(check, seen) in &vector.results {
            let (seen, check) = (&view.seen[seen as usize], check as usize);
            if rows.per_vector && seen.outcome == "pass" {
                continue;
            }
            sheet.row([
                cell.id.host.as_str(),
                cell.id.engine.as_str(),
                cell.id.image.as_str(),
                role_word(cell),
                cell.digest.unwrap_or_default(),
                stands_for,
                view.checks[check].as_str(),
                requirements[check],
                seen.outcome,
                seen.how.unwrap_or_default(),
                &seen.reason,
                seen.saw,
                &seen.number.map(|number| number.to_string()).unwrap_or_default(),
                &seen.value,
                seen.step.as_deref().unwrap_or_default(),
                seen.filter.as_deref().unwrap_or_default(),
            ])?;
        }
    }
    sheet.finish()
}

/// `matrix.csv`.
pub fn matrix(view: &View<'_>) -> Result<Vec<u8>, RenderError> {
    let mut sheet = Sheet::new();
    sheet.row(MATRIX_COLUMNS.into_iter().chain(view.checks.iter().map(|check| check.as_str())))?;
    let mut outcomes: Vec<&str> = vec![];
    for (cell, stands_for) in &Rows::of(view).cells {
        outcomes.clear();
        outcomes.resize(view.checks.len(), "");
        for &(check, seen) in cell.vector.and_then(|v| view.vectors.get(v)).map_or(&[][..], |v| &v.results) {
            outcomes[check as usize] = view.seen[seen as usize].outcome;
        }
        let own = [
            cell.id.host.as_str(),
            cell.id.engine.as_str(),
            cell.id.image.as_str(),
            role_word(cell),
            cell.digest.unwrap_or_default(),
            stands_for,
            cell.verdict.word(),
        ];
        sheet.row(own.into_iter().chain(outcomes.iter().copied()))?;
    }
    sheet.finish()
}

/// Which cells have rows of their own, and how many cells each stands for.
struct Rows<'v, 'a> {
    per_vector: bool,
    cells: Vec<(&'v Cell<'a>, String)>,
}

impl<'v, 'a> Rows<'v, 'a> {
    fn of(view: &'v View<'a>) -> Self {
        let results = |cell: &Cell<'a>| Some(view.vectors.get(cell.vector?)?.results.len());
        let per_vector = view.cells.iter().filter_map(results).sum::<usize>() > FULL_RESULTS;
        if !per_vector {
            return Self { per_vector, cells: view.cells.iter().map(|cell| (cell, "1".to_owned())).collect() };
        }
        let mut first: Vec<Option<(&Cell<'a>, usize)>> = vec![None; view.vectors.len()];
        for cell in &view.cells {
            if let Some(vector) = cell.vector {
                first[vector].get_or_insert((cell, 0)).1 += 1;
            }
        }
        let cells = first.into_iter().flatten().map(|(cell, cells)| (cell, cells.to_string())).collect();
        Self { per_vector, cells }
    }
}

/// Why a cell was run, as one word.
pub fn role_word(cell: &Cell<'_>) -> &'static str {
    use crate::plan::Role;
    match cell.role {
        Role::Cell => "cell",
        Role::ControlNative => "control-native",
        Role::ControlScratch => "control-scratch",
        Role::ControlNoPolicy => "control-no-policy",
    }
}

/// How a program ended.
pub fn ended_words(ended: Ended) -> String {
    match ended {
        Ended::Exit(status) => format!("exit {status}"),
        Ended::Signal(signal) => signal_name(signal),
        Ended::OutOfMemory => "out of memory".to_owned(),
        Ended::Deadline => "deadline".to_owned(),
        Ended::OutputCap => "output cap".to_owned(),
    }
}

struct Sheet(::csv::Writer<Vec<u8>>);

impl Sheet {
    fn new() -> Self {
        // The writer's own quoting knows only commas; see `field`.
        let mut builder = ::csv::WriterBuilder::new();
        Self(
            builder.quote_style(::csv::QuoteStyle::Never).terminator(::csv::Terminator::Any(b'\n')).from_writer(vec![]),
        )
    }

    fn row<'f>(&mut self, fields: impl IntoIterator<Item = &'f str>) -> Result<(), RenderError> {
        for text in fields {
            self.0.write_field(field(text).as_bytes())?;
        }
        Ok(self.0.write_record(None::<&[u8]>)?)
    }

    fn finish(self) -> Result<Vec<u8>, RenderError> {
        self.0.into_inner().map_err(|error| RenderError::Csv(error.into_error().into()))
    }
}

/// Hostile text as a field that no spreadsheet takes for a formula, in any of the separators spreadsheets guess.
fn field(text: &str) -> Cow<'_, str> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._:/ ".contains(c);
    if text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.len() <= MAX_FIELD && text.chars().all(plain) {
        return Cow::Borrowed(text);
    }
    let mut text = printable(text, MAX_FIELD);
    // A dash alone is the image of a native cell, and a negative number is a number.
    let harmless = text.is_empty() || text == "-" || text.parse::<f64>().is_ok_and(f64::is_finite);
    if !harmless && text.trim_start().starts_with(['=', '+', '-', '@', '＝', '＋', '－', '＠', '\t', '\r']) {
        text.insert(0, '\'');
    }
    if text.contains(['"', ',', ';', '|', '\t', '\r', '\n', '\'']) || text.starts_with(' ') || text.ends_with(' ') {
        text = format!("\"{}\"", text.replace('"', "\"\""));
    }
    Cow::Owned(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_field_is_a_formula() {
        let cases = [
            ("plain text", "plain text"),
            ("=1+1", "\"'=1+1\""),
            ("+1 (555)", "\"'+1 (555)\""),
            ("-2+3", "\"'-2+3\""),
            ("@SUM(A1)", "\"'@SUM(A1)\""),
            ("\t=1", "\\t=1"),
            ("\r=1", "\\r=1"),
            ("  =1", "\"'  =1\""),
            ("＝1", "\"'＝1\""),
            ("a;=1", "\"a;=1\""),
            ("a\"b", "\"a\"\"b\""),
            ("a\nb\u{1b}c", "a\\nb\\u{1b}c"),
            ("-", "-"),
            ("-1.5", "-1.5"),
            ("", ""),
        ];
        for (text, expected) in cases {
            assert_eq!(field(text), expected, "{text:?}");
        }
    }
}

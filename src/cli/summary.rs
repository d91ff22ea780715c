//! What a terminal shows when a run is over: causes first, then the matrix, then what could not run.

use std::fmt::Write;

use anstyle::{AnsiColor, Style};

use super::table;
use crate::catalog::Requirement;
use crate::judge::Verdict;
use crate::render::{NotRun, View, not_run, printable};

/// More findings than this scroll the matrix away; the report has all.
const MAX_FINDINGS: usize = 8;
/// More reasons why cells did not run than this are for the report.
const MAX_OUTAGES: usize = 5;
/// Longer reasons are for the report.
const MAX_REASON: usize = 300;
/// A wider matrix than this is for the report.
const MAX_COLUMNS: usize = 12;

/// The summary of a judged run, with colours; whoever prints it strips them where they are not wanted.
pub(super) fn summary(view: &View<'_>) -> String {
    let mut out = String::new();
    for note in &view.notes {
        let _ = writeln!(out, "note: {note}");
    }
    findings(view, &mut out);
    outages(view, &mut out);
    for waiver in view.waivers.iter().filter(|waiver| waiver.fate.is_trouble()) {
        let fail = style(Verdict::Fail);
        let _ = writeln!(out, "{fail}{}{fail:#} {} {}", glyph(Verdict::Fail), waiver.waiver, waiver.words());
    }
    matrix(view, &mut out);
    let counts: Vec<String> = view
        .verdicts()
        .iter()
        .map(|(verdict, cells)| format!("{cells} {}{verdict}{:#}", style(*verdict), style(*verdict)))
        .collect();
    let waived = view.asked().filter(|cell| cell.counts.waived > 0).count();
    let waived = if waived > 0 { format!(", {} with waived failures", cells(waived)) } else { String::new() };
    let _ = writeln!(out, "{}: {}{waived}", cells(view.asked().count()), counts.join(", "));
    out
}

fn findings(view: &View<'_>, out: &mut String) {
    let weighty: Vec<_> = view.findings.iter().filter(|f| f.requirement > Requirement::May && !f.is_waived()).collect();
    for finding in weighty.iter().take(MAX_FINDINGS) {
        let verdict = match finding.requirement {
            Requirement::Must => Verdict::Fail,
            Requirement::Should | Requirement::May => Verdict::Degraded,
        };
        let style = style(verdict);
        let layer = finding.layer.as_ref().map(|layer| format!(", {layer}")).unwrap_or_default();
        let (glyph, told, cells) = (glyph(verdict), &finding.title, cells(finding.cells));
        let _ = writeln!(out, "{style}{glyph}{style:#} {told} ({cells}{layer}) {}", finding.id);
        if let Some(condition) = finding.condition.as_ref().filter(|condition| *condition != "always") {
            let _ = writeln!(out, "  when {condition}");
        }
        if let Some(mechanism) = &finding.mechanism {
            let _ = writeln!(out, "  {}: {}", mechanism.id, mechanism.what);
        }
        for known in &finding.known {
            let _ = writeln!(out, "  known as {}: {}", known.id, known.fix);
        }
    }
    if weighty.len() > MAX_FINDINGS {
        let _ = writeln!(out, "  and {} more in the report", weighty.len() - MAX_FINDINGS);
    }
    if !weighty.is_empty() {
        out.push('\n');
    }
}

/// What could not run, by reason: a dead switch is one thing to mend however many hosts are behind it.
fn outages(view: &View<'_>, out: &mut String) {
    let outages: Vec<_> = not_run(view).into_iter().filter(NotRun::is_outage).collect();
    for outage in outages.iter().take(MAX_OUTAGES) {
        let (style, glyph) = (style(outage.verdict), glyph(outage.verdict));
        let reason = printable(&outage.reason, MAX_REASON);
        let _ = writeln!(out, "{style}{glyph}{style:#} {reason} ({})", cells(outage.cells.len()));
        if let Some(hint) = &outage.hint {
            let _ = writeln!(out, "  help: {}", printable(hint, MAX_REASON));
        }
        for known in outage.known() {
            let _ = writeln!(out, "  known as {}: {}", known.id, known.fix);
        }
    }
    if outages.len() > MAX_OUTAGES {
        let _ = writeln!(out, "  and {} more reasons in the report", outages.len() - MAX_OUTAGES);
    }
    if !outages.is_empty() {
        out.push('\n');
    }
}

fn matrix(view: &View<'_>, out: &mut String) {
    let mut columns: Vec<(usize, usize)> = view.asked().map(|cell| (cell.host, cell.engine)).collect();
    columns.sort_unstable();
    columns.dedup();
    if columns.is_empty() || columns.len() > MAX_COLUMNS {
        return;
    }
    let one_host = columns.iter().all(|(host, _)| *host == columns[0].0);
    let header: Vec<String> = std::iter::once(String::new())
        .chain(columns.iter().map(|&(host, engine)| match one_host {
            true => view.engines[engine].to_string(),
            false => format!("{} {}", view.hosts[host], view.engines[engine]),
        }))
        .collect();
    let mut rows = table(&header.iter().map(String::as_str).collect::<Vec<_>>());
    for (image, name) in view.images.iter().enumerate() {
        let cells: Vec<_> = view.asked().filter(|cell| cell.image == image).collect();
        if cells.is_empty() {
            continue;
        }
        let name = if name.is_none() { "(no image)".to_owned() } else { name.to_string() };
        rows.add_row(std::iter::once(name).chain(columns.iter().map(|&(host, engine)| {
            match cells.iter().find(|cell| cell.host == host && cell.engine == engine) {
                Some(cell) => format!("{} {}", glyph(cell.verdict), cell.verdict),
                None => String::new(),
            }
        })));
    }
    let _ = writeln!(out, "{rows}\n");
}

fn cells(count: usize) -> String {
    match count {
        1 => "1 cell".to_owned(),
        count => format!("{count} cells"),
    }
}

/// One character per verdict, so that nothing depends on colour.
fn glyph(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Pass => "●",
        Verdict::Degraded => "◐",
        Verdict::Fail => "✗",
        Verdict::Error => "!",
        Verdict::Miss => "?",
        Verdict::Skip => "–",
    }
}

fn style(verdict: Verdict) -> Style {
    let colour = match verdict {
        Verdict::Pass => AnsiColor::Green,
        Verdict::Degraded => AnsiColor::Yellow,
        Verdict::Fail => AnsiColor::Red,
        Verdict::Error | Verdict::Miss => AnsiColor::Magenta,
        Verdict::Skip => AnsiColor::BrightBlack,
    };
    Style::new().fg_color(Some(colour.into()))
}

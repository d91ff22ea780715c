//! `summary.md` for the summary of a CI job: causes first, then what could not run, then the matrix; always below
//! [`MAX_BYTES`]. Hostile text stands in code spans, where nothing is a link, a mention or markup.

use std::fmt::Write;

use super::findings::Finding;
use super::html::{headline, mechanism, spread};
use super::table;
use super::text::{count, names, printable, thousands};
use super::vectors::requirement_word;
use super::view::View;
use crate::catalog::Requirement;

/// Most bytes of a summary.
pub const MAX_BYTES: usize = 60_000;
/// Bytes of the matrix; when it has more, counts take its place.
const MAX_MATRIX: usize = 30_000;
/// Findings written.
const MAX_FINDINGS: usize = 20;

/// Renders the summary.
pub fn markdown(view: &View<'_>) -> String {
    let asked = view.asked().count();
    let mut out = format!("## {}\n\n{}\n\n", code(&view.run.info.name, 100), headline(asked, &view.verdicts()));
    let verdicts: Vec<String> = view
        .verdicts()
        .iter()
        .map(|(verdict, cells)| format!("{} {verdict} {}", table::glyph(*verdict), thousands(*cells)))
        .collect();
    let _ = writeln!(out, "{}\n", verdicts.join(" · "));
    for note in &view.notes {
        let _ = writeln!(out, "> {}\n", code(note, 600));
    }
    waivers(view, &mut out);
    findings(view, &mut out);
    not_run(view, &mut out);
    let matrix = matrix(view);
    out += &match matrix.len() <= MAX_MATRIX {
        true => matrix,
        false => totals(view),
    };
    let _ = writeln!(out, "\nRun {}, started {}.", view.run.info.id, super::html::instant(view.run.info.started));
    cut(out)
}

fn findings(view: &View<'_>, out: &mut String) {
    let weighty: Vec<&Finding> = view.findings.iter().filter(|f| f.requirement > Requirement::May).collect();
    if weighty.is_empty() {
        return;
    }
    out.push_str("### What fails together\n\n");
    for finding in weighty.iter().take(MAX_FINDINGS) {
        let of: usize = finding.hosts.iter().map(|axis| axis.of).sum();
        let _ = write!(
            out,
            "- **{}** {}: {} of {}",
            requirement_word(finding.requirement),
            code(&finding.title, 200),
            thousands(finding.cells),
            count(of, "cell")
        );
        if let Some(layer) = &finding.layer {
            let _ = write!(out, ", to be fixed in {}", code(layer, 80));
        }
        if finding.waived > 0 {
            let _ = write!(out, ", waived in {}", count(finding.waived, "cell"));
        }
        if let Some(condition) = &finding.condition {
            let _ = write!(out, ", when {}", code(condition, 200));
        }
        let where_: Vec<String> =
            spread(finding).into_iter().map(|(word, text)| format!("{word}: {}", printable(&text, 200))).collect();
        let _ = writeln!(out, " ({}) `{}`", where_.join("; "), finding.id);
        if finding.checks.len() > 1 {
            let checks = names(finding.checks.iter().map(|&check| view.checks[check].as_str()), 8);
            let _ = writeln!(out, "  checks: {checks}");
        }
        for why in &finding.unanswered {
            let _ = writeln!(out, "  not narrower: {}", code(why, 300));
        }
        if let Some(mechanism) = mechanism(finding) {
            let _ = writeln!(out, "  at fault: {}", code(&mechanism, 300));
        }
        for known in &finding.known {
            let links = known.links.join(" ");
            let _ = writeln!(out, "  known as **{}**: {}; {}", known.id, text(known.fix), links);
        }
        let row = finding.checks.iter().find_map(|&check| view.catalogue.row(&view.checks[check]));
        if let Some(row) = row {
            let _ = writeln!(out, "  breaks: {}", text(&row.breaks));
            if let Some(remedy) = &row.remedy {
                let _ = writeln!(out, "  fix: {}", text(remedy));
            }
        }
    }
    if weighty.len() > MAX_FINDINGS {
        let _ = writeln!(out, "- and {} more, in index.html", thousands(weighty.len() - MAX_FINDINGS));
    }
    out.push('\n');
}

/// Waivers that make the run red, and how many hold.
fn waivers(view: &View<'_>, out: &mut String) {
    let (trouble, fine): (Vec<_>, Vec<_>) = view.waivers.iter().partition(|waiver| waiver.fate.is_trouble());
    for waiver in trouble.iter().take(20) {
        let _ = writeln!(out, "- {} {}", code(&waiver.waiver, 200), waiver.words());
    }
    if !fine.is_empty() {
        let waived = view.asked().filter(|cell| cell.counts.waived > 0).count();
        let _ = writeln!(out, "- {} for failures in {}", count(fine.len(), "waiver"), count(waived, "cell"));
    }
    if !view.changes.is_empty() {
        let (name, changes) = (code(&view.terms.profile.name, 60), count(view.changes.len(), "requirement"));
        let _ = writeln!(out, "- profile {name} changes {changes}");
    }
    if !view.waivers.is_empty() || !view.changes.is_empty() {
        out.push('\n');
    }
}

fn not_run(view: &View<'_>, out: &mut String) {
    let reasons = super::outage::not_run(view);
    if reasons.is_empty() {
        return;
    }
    out.push_str("### What could not run\n\n");
    for not_run in reasons.iter().take(20) {
        let cells: Vec<String> = not_run.cells.iter().map(|cell| cell.id.to_string()).collect();
        let _ = writeln!(
            out,
            "- {} {}: {} ({})",
            not_run.verdict,
            count(cells.len(), "cell"),
            code(&not_run.reason, 300),
            names(cells.iter().map(String::as_str), 4)
        );
    }
    if reasons.len() > 20 {
        let _ = writeln!(out, "- and {} more reasons, in index.html", thousands(reasons.len() - 20));
    }
    out.push('\n');
}

fn matrix(view: &View<'_>) -> String {
    let mut out = String::new();
    let native: Vec<String> = view
        .asked()
        .filter(|cell| cell.id.image.is_none())
        .take(50)
        .map(|cell| table::tile(cell))
        .map(|tile| format!("{} {} {}{}", tile.cell, tile.glyph, tile.verdict, space(&tile.count)))
        .collect();
    if !native.is_empty() {
        let _ = writeln!(out, "Native: {}\n", native.join(" · "));
    }
    let Some(table) = table::table(view, |cell| !cell.role.is_control()) else {
        return out + &totals(view);
    };
    let many = table.bands.len() > 1;
    let columns = table.bands.iter().flat_map(|band| {
        band.engines.iter().map(move |engine| if many { format!("{}:{engine}", band.host) } else { engine.clone() })
    });
    let _ = writeln!(out, "| image | {} |", columns.collect::<Vec<_>>().join(" | "));
    let _ = writeln!(out, "|---|{}", "---|".repeat(table.columns));
    for row in &table.rows {
        let tiles: Vec<String> = row
            .tiles
            .iter()
            .map(|tile| {
                tile.as_ref().map_or_else(String::new, |t| format!("{} {}{}", t.glyph, t.verdict, space(&t.count)))
            })
            .collect();
        let _ = writeln!(out, "| {} {}| {} |", row.image, note(&row.note), tiles.join(" | "));
    }
    out
}

fn totals(view: &View<'_>) -> String {
    let totals = table::totals(view);
    let mut out = format!("| image | {} |\n|---|{}\n", totals.engines.join(" | "), "---|".repeat(totals.engines.len()));
    for (image, what, counts) in totals.rows {
        let _ = writeln!(out, "| {image} {}| {} |", note(&what), counts.join(" | "));
    }
    out
}

fn space(count: &str) -> String {
    if count.is_empty() { String::new() } else { format!(" {count}") }
}

fn note(note: &str) -> String {
    if note.is_empty() { String::new() } else { format!("{} ", code(note, 60)) }
}

/// Hostile text as a code span.
fn code(text: &str, max: usize) -> String {
    let text = printable(text, max).replace('`', "'").replace('|', "¦");
    let text = text.trim();
    if text.is_empty() { String::new() } else { format!("`{text}`") }
}

/// Text of the catalogue: ours, but `<` and `|` in it must not become markup.
fn text(text: &str) -> String {
    printable(text, 400).replace('&', "&amp;").replace('<', "&lt;").replace('|', "\\|").replace('*', "\\*")
}

/// Cuts at a line, so that a table or a list stays one.
fn cut(mut out: String) -> String {
    const END: &str = "\n(cut: the rest is in index.html)\n";
    if out.len() > MAX_BYTES {
        let mut end = MAX_BYTES - END.len();
        while !out.is_char_boundary(end) {
            end -= 1;
        }
        out.truncate(out[..end].rfind('\n').unwrap_or(end));
        out += END;
    }
    out
}

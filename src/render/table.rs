//! The matrix as text: rows are images, columns are engines under their hosts. For runs too large for that, a row per
//! image and a column per engine with counts over hosts.

use std::collections::BTreeMap;

use serde::Serialize;

use super::view::{Cell, View, fact};
use crate::judge::Verdict;

/// Most cells that are written as a table of one link each.
pub const TABLE_CELLS: usize = 2_000;

/// A verdict for readers.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Tile {
    /// `local:docker:debian-12`.
    pub cell: String,
    /// `local`.
    pub host: String,
    /// `fail`.
    pub verdict: &'static str,
    /// A shape, so that colour is not needed.
    pub glyph: &'static str,
    /// How many checks make it so; empty where none does.
    pub count: String,
    /// The tile in words.
    pub words: String,
}

/// Columns of one host.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Band {
    /// The host.
    pub host: String,
    /// What tells it from others: its kernel.
    pub note: String,
    /// Its engines.
    pub engines: Vec<String>,
}

/// One image.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// The image.
    pub image: String,
    /// What tells it from others: its libc.
    pub note: String,
    /// By column; none where there is no such cell.
    pub tiles: Vec<Option<Tile>>,
}

/// Cells in rows and columns.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Table {
    /// Columns in groups.
    pub bands: Vec<Band>,
    /// How many columns.
    pub columns: usize,
    /// Rows.
    pub rows: Vec<Row>,
}

/// Cells per image and engine, all hosts together.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Totals {
    /// Columns.
    pub engines: Vec<String>,
    /// Image, what tells it from others, and per engine the counts in words.
    pub rows: Vec<(String, String, Vec<String>)>,
}

/// A shape for each verdict.
pub fn glyph(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Skip => "–",
        Verdict::Pass => "✓",
        Verdict::Degraded => "▲",
        Verdict::Miss => "?",
        Verdict::Error => "!",
        Verdict::Fail => "✕",
    }
}

/// A cell for readers.
pub fn tile(cell: &Cell<'_>) -> Tile {
    let counts = cell.counts;
    let (count, what) = match cell.verdict {
        Verdict::Fail => (counts.fail_must, "must"),
        Verdict::Degraded => (counts.fail_should, "should"),
        Verdict::Skip | Verdict::Pass | Verdict::Miss | Verdict::Error => (0, ""),
    };
    let mut words = format!("{}: {}", cell.id, cell.verdict);
    if count > 0 {
        words += &format!(", {} of requirement {what} fail", super::text::count(count, "check"));
    }
    if counts.waived > 0 {
        words += &format!(", {} waived", super::text::count(counts.waived, "failure"));
    }
    Tile {
        cell: cell.id.to_string(),
        host: cell.id.host.to_string(),
        verdict: cell.verdict.word(),
        glyph: glyph(cell.verdict),
        count: if count > 0 { count.to_string() } else { String::new() },
        words,
    }
}

/// `Linux 6.1.0-18`, where known.
pub fn host_note(view: &View<'_>, host: &crate::id::HostId) -> String {
    let release = fact(view.host(host), &["kernel.release"]);
    if release.is_empty() { String::new() } else { super::text::printable(&format!("Linux {release}"), 60) }
}

/// `glibc 2.36`, where known.
pub fn image_note(view: &View<'_>, image: &crate::id::ImageId) -> String {
    let known = view.image(image);
    let text = format!("{} {}", fact(known, &["libc.kind"]), fact(known, &["libc.version"]));
    super::text::printable(text.trim(), 60)
}

/// The cells that fit, as a table. Native cells have no image and no place in it.
pub fn table(view: &View<'_>, fits: impl Fn(&Cell<'_>) -> bool) -> Option<Table> {
    let cells: Vec<&Cell<'_>> = view.cells.iter().filter(|cell| !cell.id.image.is_none() && fits(cell)).collect();
    if cells.is_empty() || cells.len() > TABLE_CELLS {
        return None;
    }
    let mut columns: Vec<(usize, usize)> = cells.iter().map(|cell| (cell.host, cell.engine)).collect();
    columns.sort_unstable();
    columns.dedup();
    let mut bands: Vec<(usize, Band)> = vec![];
    for (host, engine) in &columns {
        let engine = view.engines[*engine].to_string();
        match bands.last_mut() {
            Some((last, band)) if last == host => band.engines.push(engine),
            _ => {
                let id = view.hosts[*host];
                let band = Band { host: id.to_string(), note: host_note(view, id), engines: vec![engine] };
                bands.push((*host, band));
            }
        }
    }
    let mut rows: BTreeMap<usize, Vec<Option<Tile>>> = BTreeMap::new();
    for cell in cells {
        if let Ok(column) = columns.binary_search(&(cell.host, cell.engine)) {
            rows.entry(cell.image).or_insert_with(|| vec![None; columns.len()])[column] = Some(tile(cell));
        }
    }
    let rows = rows
        .into_iter()
        .map(|(image, tiles)| {
            let id = view.images[image];
            Row { image: id.to_string(), note: image_note(view, id), tiles }
        })
        .collect();
    Some(Table { bands: bands.into_iter().map(|(_, band)| band).collect(), columns: columns.len(), rows })
}

/// All asked cells with an image, counted.
pub fn totals(view: &View<'_>) -> Totals {
    let mut counts: BTreeMap<(usize, usize), BTreeMap<std::cmp::Reverse<Verdict>, usize>> = BTreeMap::new();
    for cell in view.asked().filter(|cell| !cell.id.image.is_none()) {
        let at = counts.entry((cell.image, cell.engine)).or_default();
        *at.entry(std::cmp::Reverse(cell.verdict)).or_default() += 1;
    }
    let mut engines: Vec<usize> = counts.keys().map(|(_, engine)| *engine).collect();
    engines.sort_unstable();
    engines.dedup();
    let mut images: Vec<usize> = counts.keys().map(|(image, _)| *image).collect();
    images.dedup();
    let words = |image, engine: &usize| {
        counts.get(&(image, *engine)).map_or_else(String::new, |counts| {
            let parts: Vec<String> = counts
                .iter()
                .map(|(verdict, number)| format!("{} {}", super::text::thousands(*number), verdict.0))
                .collect();
            parts.join(", ")
        })
    };
    let rows = images
        .into_iter()
        .map(|image| {
            let id = view.images[image];
            (id.to_string(), image_note(view, id), engines.iter().map(|engine| words(image, engine)).collect())
        })
        .collect();
    Totals { engines: engines.into_iter().map(|engine| view.engines[engine].to_string()).collect(), rows }
}

//! `abicus explain`: why a cell is what it is.

use std::path::{Path, PathBuf};

use clap::Args;
use jiff::Timestamp;

use super::{Error, Exit, Format, ReportsArgument, by_hand, print, print_json, report};
use crate::catalog::Catalogue;
use crate::id::{CellId, CheckId};
use crate::render::{Explanation, View, explain};
use crate::store::{self, Run};

/// Say what was seen in a cell, why that layer is at fault, what to do, and how to see it by hand
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  abicus explain local:docker:debian-12
  abicus explain local:docker:debian-12 libc.thread.create
  abicus explain local:docker:debian-12 --baseline 01JD…
  abicus explain local:docker:debian-12 syscall.clone3 --format json | jq .by_hand")]
pub(super) struct Arguments {
    /// The cell, host:engine:image
    cell: String,
    /// The check; without it the failing ones that count
    check: Option<String>,
    /// The run: an id, a directory, or `last`
    #[arg(long, default_value = "last")]
    run: String,
    /// The run it is compared with [default: the matrix's `baseline`, where there is such a run]
    #[arg(long, value_name = "RUN")]
    baseline: Option<String>,
    #[command(flatten)]
    reports: ReportsArgument,
    /// Take profile and waivers from this matrix, not from the one the run kept
    #[arg(long, value_name = "FILE")]
    matrix: Option<PathBuf>,
    /// How to print it
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
}

pub(super) fn run(arguments: Arguments) -> Result<Exit, Error> {
    let reports = &arguments.reports.reports;
    let run = store::load(&report::find(reports, &arguments.run)?)?;
    let view = report::view(&run, arguments.matrix.as_deref())?;
    let cell = cell(&view, &arguments.cell)?;
    let check = arguments.check.as_deref().map(|check| self::check(&view, check)).transpose()?;
    let baseline = baseline(&arguments, &run, reports)?;
    let baseline = baseline.as_ref().map(|run| View::new(run, Catalogue::built_in(), Timestamp::now()));
    let mut told: Explanation = explain(&view, &cell, check.as_ref(), baseline.as_ref())
        .ok_or_else(|| Error::usage(format!("no cell `{cell}` in run {}", run.info.id), "`abicus plan` lists cells"))?;
    let about = check.or_else(|| told.checks.first().map(|check| check.check.clone()));
    match by_hand::by_hand(&run, &cell, about.as_ref()) {
        Ok(words) => told.by_hand = words,
        Err(error) => told.by_hand_trouble = Some(error.to_string()),
    }
    match arguments.format {
        Format::Json => print_json(&told)?,
        Format::Table => print(&told.text())?,
    }
    Ok(Exit::Expected)
}

/// The cell of that name, or what would have been right.
pub(super) fn cell(view: &View<'_>, name: &str) -> Result<CellId, Error> {
    if let Some(cell) = view.cells.iter().find(|cell| cell.id.to_string() == name) {
        return Ok(cell.id.clone());
    }
    let near = nearest(name, view.cells.iter().map(|cell| cell.id.to_string()));
    Err(Error::usage(format!("no cell `{name}` in run {}", view.run.info.id), near))
}

fn check(view: &View<'_>, name: &str) -> Result<CheckId, Error> {
    if let Some(check) = view.checks.iter().find(|check| check.as_str() == name) {
        return Ok(check.clone());
    }
    let near = nearest(name, view.checks.iter().map(CheckId::to_string));
    Err(Error::usage(format!("check `{name}` was asked in no cell of run {}", view.run.info.id), near))
}

fn nearest(wrong: &str, right: impl Iterator<Item = String>) -> String {
    let near = right.map(|name| (strsim::jaro_winkler(wrong, &name), name)).max_by(|a, b| a.0.total_cmp(&b.0));
    near.map_or_else(|| "the run has none".to_owned(), |(_, name)| format!("did you mean `{name}`?"))
}

/// The run asked for, or the one the matrix names, where it is kept.
fn baseline(arguments: &Arguments, run: &Run, reports: &Path) -> Result<Option<Run>, Error> {
    if let Some(which) = &arguments.baseline {
        return Ok(Some(store::load(&report::find(reports, which)?)?));
    }
    #[derive(serde::Deserialize)]
    struct File {
        matrix: Option<Named>,
    }
    #[derive(serde::Deserialize)]
    struct Named {
        baseline: Option<String>,
    }
    let named = toml::from_str::<File>(&run.info.matrix).ok().and_then(|file| file.matrix?.baseline);
    match named.map(|which| report::find(reports, &which)) {
        Some(Ok(dir)) => Ok(Some(store::load(&dir)?)),
        Some(Err(_)) | None => Ok(None),
    }
}

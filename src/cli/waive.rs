//! `abicus waive`: writes a waiver for failures of a run.

use std::path::PathBuf;

use clap::Args;
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::Offset;

use super::{Error, Exit, ReportsArgument, explain, print, report};
use crate::catalog::Requirement;
use crate::render::{Axis, Finding, View};
use crate::spec::{NewWaiver, add_waiver};
use crate::store;

/// Write a waiver for the failures of a cell or of a finding into the matrix
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  abicus waive local:docker:centos-6 --reason 'vsyscall=none on this fleet' --until 2027-06-30
  abicus waive local:docker:centos-6 'tool.*' --reason … --until 2027-06-30 --owner platform
  abicus waive f-389ff062 --reason … --until 2027-06-30 --link https://…
  abicus report --matrix matrix.toml     what the last run comes to with it")]
pub(super) struct Arguments {
    /// A cell, host:engine:image (globs are allowed), or the id of a finding
    #[arg(value_name = "CELL|FINDING")]
    what: String,
    /// Globs over checks [default: those of requirement must and should that fail there]
    checks: Vec<String>,
    /// Why this failure is accepted
    #[arg(long)]
    reason: String,
    /// The last day on which it is, as in 2027-06-30
    #[arg(long, value_name = "DAY")]
    until: Date,
    /// Where it is discussed
    #[arg(long, value_name = "URL")]
    link: Option<String>,
    /// Who looks after it
    #[arg(long)]
    owner: Option<String>,
    /// The matrix to write into
    #[arg(long, short, default_value = "matrix.toml", value_name = "FILE")]
    matrix: PathBuf,
    /// The run with the failures: an id, a directory, or `last`
    #[arg(long, default_value = "last")]
    run: String,
    #[command(flatten)]
    reports: ReportsArgument,
    /// Print the new matrix and write nothing
    #[arg(long)]
    dry_run: bool,
}

pub(super) fn run(arguments: Arguments) -> Result<Exit, Error> {
    if arguments.until < Offset::UTC.to_datetime(Timestamp::now()).date() {
        return Err(Error::usage(format!("{} is over", arguments.until), "a waiver ends on a day to come"));
    }
    if arguments.reason.trim().is_empty() {
        return Err(Error::usage("the reason says nothing", "say why, for whoever reads it in a year"));
    }
    let path = &arguments.matrix;
    let mut text = std::fs::read_to_string(path).map_err(Error::io(path))?;
    let (cells, checks) = covers(&arguments)?;
    for cells in &cells {
        let waiver = NewWaiver {
            cells: cells.clone(),
            checks: checks.clone(),
            reason: arguments.reason.clone(),
            link: arguments.link.clone(),
            owner: arguments.owner.clone(),
            until: arguments.until,
        };
        text = add_waiver(&text, &waiver)
            .map_err(|error| Error::usage(format!("{}: {error}", path.display()), "`abicus plan` names the place"))?;
    }
    // Whatever the globs say has to be a matrix afterwards.
    crate::spec::terms(&text, &path.display().to_string())?;
    if arguments.dry_run {
        print(&text)?;
        return Ok(Exit::Expected);
    }
    std::fs::write(path, text).map_err(Error::io(path))?;
    print(&format!(
        "{}: {} waived in {} until {}\n",
        path.display(),
        checks.join(", "),
        cells.join(" and "),
        arguments.until
    ))?;
    Ok(Exit::Expected)
}

/// Globs over cells, each for a waiver of its own, and globs over checks.
fn covers(arguments: &Arguments) -> Result<(Vec<String>, Vec<String>), Error> {
    let what = &arguments.what;
    // Globs with their checks need no run.
    if what.matches(':').count() == 2 && !arguments.checks.is_empty() {
        what.parse::<crate::spec::CellGlob>()?;
        return Ok((vec![what.clone()], arguments.checks.clone()));
    }
    let run = store::load(&report::find(&arguments.reports.reports, &arguments.run)?)?;
    let view = report::view(&run, None)?;
    if what.contains(':') {
        let cell = explain::cell(&view, what)?;
        let failing = failing(&view, &cell);
        if failing.is_empty() {
            let help = "name checks to waive others: abicus waive CELL CHECK…";
            return Err(Error::usage(format!("no check of requirement must or should fails in {cell}"), help));
        }
        return Ok((vec![cell.to_string()], failing));
    }
    let finding = view.findings.iter().find(|finding| finding.id == *what).ok_or_else(|| {
        let known: Vec<&str> = view.findings.iter().take(6).map(|finding| finding.id.as_str()).collect();
        let help = format!("findings of run {} are {}", run.info.id, known.join(", "));
        Error::usage(format!("`{what}` is neither a cell nor a finding"), help)
    })?;
    let checks = match arguments.checks.is_empty() {
        true => finding.checks.iter().map(|&check| view.checks[check].to_string()).collect(),
        false => arguments.checks.clone(),
    };
    Ok((cells(&view, finding), checks))
}

/// Checks of a cell that fail and count.
fn failing(view: &View<'_>, cell: &crate::id::CellId) -> Vec<String> {
    let Some(vector) = view.cells.iter().find(|known| known.id == cell).and_then(|cell| cell.vector) else {
        return vec![];
    };
    let results = view.vectors[vector].results.iter().filter(|(_, seen)| view.seen[*seen as usize].is_fail());
    let failing = results.map(|(check, _)| &view.checks[*check as usize]);
    failing.filter(|check| view.requirement(check) > Requirement::May).map(ToString::to_string).collect()
}

/// The cells of a finding as globs: one, where they are exactly the product of some hosts, engines and images; else one for
/// each host and engine.
fn cells(view: &View<'_>, finding: &Finding) -> Vec<String> {
    let any = |names: Vec<&str>| match names.as_slice() {
        [one] => (*one).to_owned(),
        many => format!("{{{}}}", many.join(",")),
    };
    let failing = |axis: &[Axis]| -> String {
        let named = axis.iter().filter(|value| value.failing > 0);
        any(named.map(|value| if value.name == "no image" { "-" } else { value.name.as_str() }).collect())
    };
    if let Some([host, engine, image]) = finding.exact {
        let part = |used: bool, axis: &[Axis]| if used { failing(axis) } else { "*".to_owned() };
        let (hosts, engines) = (part(host, &finding.hosts), part(engine, &finding.engines));
        return vec![format!("{hosts}:{engines}:{}", part(image, &finding.images))];
    }
    let check = finding.checks.first().copied().unwrap_or_default();
    let fails = |cell: &&crate::render::Cell<'_>| {
        let answer = cell.vector.and_then(|vector| view.answer(vector, check));
        answer.is_some_and(crate::render::Seen::is_fail)
    };
    let mut pairs: std::collections::BTreeMap<String, Vec<&str>> = Default::default();
    for cell in view.asked().filter(fails) {
        pairs.entry(format!("{}:{}", cell.id.host, cell.id.engine)).or_default().push(cell.id.image.as_str());
    }
    pairs.into_iter().map(|(pair, images)| format!("{pair}:{}", any(images))).collect()
}

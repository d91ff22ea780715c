//! `abicus probe`: the probes here, natively, without configuration.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use clap::Args;

use super::{Error, Exit, cache_dir, print, rig, table};
use crate::catalog::Catalogue;
use crate::collect;
use crate::execute::{command, materialize};
use crate::host::{self, Local};
use crate::judge::roster::Rosters;
use crate::judge::{JudgedCheck, Outcome, Verdict, judge_cell};

/// How long all probes together may take.
const TIME: Duration = Duration::from_secs(180);

/// Run the probes here, natively, without a matrix
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  abicus probe                        what fails on this machine
  abicus probe --all --only cpu.
  abicus probe --raw > here.jsonl     the probes' own lines")]
pub(super) struct Arguments {
    /// Print the probes' lines as they are
    #[arg(long)]
    raw: bool,
    /// Print every check, not only those that do not pass
    #[arg(long, conflicts_with = "raw")]
    all: bool,
    /// Only checks whose id starts with this (repeatable)
    #[arg(long, value_name = "PREFIX")]
    only: Vec<String>,
    /// Measure speed too
    #[arg(long)]
    bench: bool,
}

pub(super) fn run(arguments: Arguments) -> Result<Exit, Error> {
    let payload = materialize(&cache_dir())?;
    let mut options = vec![];
    if arguments.bench {
        options.push("--bench".to_owned());
    }
    for prefix in &arguments.only {
        options.extend(["--only".to_owned(), prefix.clone()]);
    }
    let dir = payload.dir.to_str().ok_or_else(|| {
        Error::usage(format!("{}: not UTF-8", payload.dir.display()), "name another directory in ABICUS_CACHE")
    })?;
    let loader = rig::runtime()?.block_on(host::loader(&Local::at(cache_dir().join("work"))));
    let argv = command(dir, loader, TIME, &options);
    let output = Command::new(&argv[0]).args(&argv[1..]).output().map_err(Error::io(Path::new(&argv[0])))?;
    if arguments.raw {
        print(&String::from_utf8_lossy(&output.stdout))?;
    }
    if !output.status.success() {
        let how = match (output.status.code(), output.status.signal()) {
            (Some(code), _) => format!("exited with status {code}"),
            (_, Some(signal)) => format!("was killed by {}", crate::judge::signal_name(signal)),
            _ => "ended in an unknown way".to_owned(),
        };
        return Err(Error::Usage { message: format!("the probe {how}"), help: None });
    }
    let report = collect::parse(&output.stdout);
    let unreported = Rosters::default().unreported(&report.probes, &report.observations);
    let judged = judge_cell(Catalogue::built_in(), &report.observations, &unreported, &report.faults);
    if !arguments.raw {
        print_outcomes(&arguments, &report, &judged)?;
    }
    Ok(match judged.verdict {
        Verdict::Pass | Verdict::Degraded | Verdict::Skip => Exit::Expected,
        Verdict::Fail => Exit::Failures,
        Verdict::Error | Verdict::Miss => Exit::Inconclusive,
    })
}

fn print_outcomes(
    arguments: &Arguments,
    report: &collect::Report,
    judged: &crate::judge::JudgedCell<'_>,
) -> Result<(), Error> {
    let mut rows = table(&["check", "outcome", "seen", "what it asks"]);
    for JudgedCheck { check: id, seen, outcome } in &judged.checks {
        let what = match outcome {
            Outcome::Fail { failure } => failure.to_string(),
            Outcome::Skip { why } => why.clone(),
            Outcome::Error { fault } => fault.to_string(),
            Outcome::Pass | Outcome::Miss => seen.map(|seen| seen.saw.to_string()).unwrap_or_default(),
        };
        if arguments.all || matches!(outcome, Outcome::Fail { .. } | Outcome::Error { .. }) {
            let title = Catalogue::built_in().row(id).map(|check| check.title.clone()).unwrap_or_default();
            rows.add_row([id.to_string(), outcome.word().to_owned(), what, title]);
        }
    }
    if !rows.is_empty() {
        print(&format!("{rows}\n"))?;
    }
    for fault in &report.faults {
        anstream::eprintln!("warning: {fault}");
    }
    let counts = judged.counts;
    print(&format!(
        "{}: {} pass, {} must fail, {} should fail, {} may fail, {} not asked\n",
        judged.verdict, counts.pass, counts.fail_must, counts.fail_should, counts.fail_may, counts.skip
    ))
}

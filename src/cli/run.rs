//! `abicus run`: the main job.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use jiff::Timestamp;
use tokio::sync::{mpsc, watch};

use super::{Error, Exit, MatrixArgument, ReportsArgument, SelectionArguments, cache_dir, print, report, rig};
use crate::catalog::Catalogue;
use crate::execute::{self, Done, materialize};
use crate::id::RunId;
use crate::plan::Plan;
use crate::progress::{self, Manner};
use crate::spec::{Matrix, World};
use crate::store::{self, FORMAT, RunInfo, RunWriter};

/// Run the matrix and leave a report
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  abicus run
  abicus run --cells 'local:docker*:debian-*' --cells 'local:native:*'
  abicus run --engine built-in --quiet
  abicus run --resume                 go on with the last run that was cut off
  abicus run --json | jq -c 'select(.event == \"cell-done\")'

Exit codes: 0 as expected, 1 a must check failed, 2 could not run, 3 some cells are inconclusive,
130 interrupted; what is done is kept and --resume goes on.")]
pub(super) struct Arguments {
    #[command(flatten)]
    matrix: MatrixArgument,
    #[command(flatten)]
    selection: SelectionArguments,
    #[command(flatten)]
    reports: ReportsArgument,
    /// Measure speed too
    #[arg(long)]
    bench: bool,
    /// Cells at a time on one host [default: its number of CPUs]
    #[arg(long, short = 'j', value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    parallel: Option<u32>,
    /// Go on with a run that was cut off: the last one, or this
    #[arg(long, value_name = "RUN", num_args = 0..=1, default_missing_value = "last", conflicts_with_all = ["cells", "host", "label", "engine", "image", "no_controls"])]
    resume: Option<String>,
    /// Say only what is wrong
    #[arg(long, short, conflicts_with = "json")]
    quiet: bool,
    /// Print every event as a line of JSON on standard output
    #[arg(long)]
    json: bool,
    /// Exit with 1 also when only `should` checks fail
    #[arg(long)]
    strict: bool,
}

pub(super) fn run(arguments: Arguments) -> Result<Exit, Error> {
    let manner = match (arguments.quiet, arguments.json) {
        (true, _) => Manner::Quiet,
        (_, true) => Manner::Json,
        _ => Manner::Auto,
    };
    let Begun { mut matrix, plan, writer, done } = match &arguments.resume {
        Some(which) => resume(&arguments, which)?,
        None => begin(&arguments)?,
    };
    let info = writer.info();
    matrix.defaults.bench |= info.bench;
    if let Some(parallel) = info.parallel {
        matrix.defaults.parallel = Some(parallel as usize);
        matrix.hosts.iter_mut().for_each(|host| host.parallel = None);
    }
    let base = super::base(Path::new(&info.matrix_file));
    let dir = writer.dir().to_owned();
    if manner == Manner::Auto {
        anstream::eprintln!("run {}: {}", writer.run(), progress::greeting(&plan, Catalogue::built_in()));
        anstream::eprintln!("if it is killed, `abicus sweep --run {}` removes what it leaves", writer.run());
    }
    let interrupted = drive(&matrix, plan, writer, &done, manner, &base)?;
    let (summary, exit) = report::render_into(&dir, &dir, None, arguments.strict)?;
    if manner != Manner::Json {
        print(&summary)?;
    }
    if interrupted {
        let run = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let elsewhere = match arguments.reports.is_default() {
            true => String::new(),
            false => format!(" --reports {}", arguments.reports.reports.display()),
        };
        anstream::eprintln!("interrupted; `abicus run --resume {run}{elsewhere}` goes on");
        return Ok(Exit::Interrupted);
    }
    Ok(exit)
}

struct Begun {
    matrix: Matrix,
    plan: Plan,
    writer: RunWriter,
    done: Done,
}

fn begin(arguments: &Arguments) -> Result<Begun, Error> {
    let (matrix, text) = arguments.matrix.read()?;
    let plan = arguments.selection.plan(&matrix)?;
    let file = &arguments.matrix.matrix;
    let info = RunInfo {
        format: FORMAT,
        id: RunId::new(),
        name: matrix.name.clone(),
        abicus: env!("CARGO_PKG_VERSION").to_owned(),
        payload: materialize(&cache_dir())?.digest,
        started: Timestamp::now(),
        finished: None,
        interrupted: false,
        matrix_file: std::path::absolute(file).map_err(Error::io(file))?.display().to_string(),
        matrix: text,
        bench: arguments.bench,
        parallel: arguments.parallel,
        cells: plan.cells.iter().map(|planned| (planned.cell.clone(), planned.role)).collect(),
        controls: plan.controls.clone(),
        selected: arguments.selection.is_some(),
        skips: plan.skips.iter().map(|skipped| (skipped.cell.clone(), skipped.reason.clone())).collect(),
    };
    let writer = RunWriter::create(&arguments.reports.reports, info)?;
    Ok(Begun { matrix, plan, writer, done: Done::default() })
}

/// The matrix of a resumed run is the one it kept, and so is where its relative paths start; cells that ran or were skipped
/// are not done again.
fn resume(arguments: &Arguments, which: &str) -> Result<Begun, Error> {
    let dir = find_unfinished(&arguments.reports.reports, which)?;
    let run = store::load(&dir)?;
    let world = World { base: super::base(Path::new(&run.info.matrix_file)), exists: &|path| path.exists() };
    let matrix = crate::spec::resolve(&run.info.matrix, &run.info.matrix_file, &world)?;
    let mut plan = crate::plan::plan(&matrix, &Default::default(), true);
    plan.cells.retain(|planned| run.info.cells.iter().any(|(cell, _)| *cell == planned.cell));
    let payload = materialize(&cache_dir())?.digest;
    if arguments.bench || arguments.parallel.is_some() {
        return Err(Error::usage("`--bench` and `--parallel` are the resumed run's own", "leave them out"));
    }
    if payload != run.info.payload {
        return Err(Error::usage(
            format!("run {} was made with other probes", run.info.id),
            "results of two versions of the probes do not belong in one run: start a new run",
        ));
    }
    let writer = RunWriter::resume(&dir, &run)?;
    Ok(Begun { matrix, plan, writer, done: Done::of(&run) })
}

fn find_unfinished(reports: &Path, which: &str) -> Result<PathBuf, Error> {
    let runs = store::list(reports)?;
    let unfinished: Vec<_> = runs
        .iter()
        .filter_map(|kept| Some((kept.dir.clone(), kept.info.as_ref().ok()?)))
        .filter(|(_, info)| info.finished.is_none())
        .collect();
    let found = unfinished.iter().rev().find(|(_, info)| which == "last" || info.id.as_str() == which);
    match found {
        Some((dir, _)) => Ok(dir.clone()),
        None if which == "last" => {
            Err(Error::usage(format!("no run under {} was cut off", reports.display()), "`abicus list` shows all runs"))
        }
        None => {
            let names: Vec<&str> = unfinished.iter().map(|(_, info)| info.id.as_str()).collect();
            let help = match names.is_empty() {
                true => "no run was cut off; `abicus list` shows all runs".to_owned(),
                false => format!("runs that were cut off: {}", names.join(", ")),
            };
            Err(Error::usage(format!("no run `{which}` that was cut off"), help))
        }
    }
}

/// Executes the plan; returns whether it was interrupted.
fn drive(
    matrix: &Matrix,
    plan: Plan,
    writer: RunWriter,
    done: &Done,
    manner: Manner,
    base: &Path,
) -> Result<bool, Error> {
    let runtime = rig::runtime()?;
    let plan = Arc::new(plan);
    let result = runtime.block_on(async {
        let rig = Arc::new(rig::open(matrix, &plan, base)?);
        let (events, received) = mpsc::unbounded_channel();
        let (stop, stopped) = watch::channel(false);
        let signals = tokio::spawn(super::on_signal(move || {
            let _ = stop.send(true);
        }));
        let shown = {
            let (plan, done) = (plan.clone(), done.clone());
            tokio::spawn(async move { progress::show(&plan, &done, manner, received).await })
        };
        let (writer, interrupted) = execute::execute(plan.clone(), rig, writer, done, events, stopped).await?;
        // The channel is closed now; what is left to show is shown before anything else is printed.
        let _ = shown.await;
        signals.abort();
        writer.finish(Timestamp::now(), interrupted)?;
        Ok(interrupted)
    });
    // Clean-up tasks of cancelled cells get a moment; a hung engine does not hold us.
    runtime.shutdown_timeout(std::time::Duration::from_secs(10));
    result
}

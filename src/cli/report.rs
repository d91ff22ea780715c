//! `abicus report`: render a kept run again.

use std::path::{Path, PathBuf};

use clap::Args;
use jiff::Timestamp;

use super::{Error, Exit, ReportsArgument, print, summary};
use crate::catalog::Catalogue;
use crate::render;
use crate::store;

/// Render the report of a run again, from what was kept
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  abicus report                                the last run, into its own directory
  abicus report 01JD… --output /srv/www/abicus
  abicus report --matrix matrix.toml           with the waivers it has now
  abicus report --format json | jq '.cells[] | select(.verdict == \"fail\") | .cell'")]
pub(super) struct Arguments {
    /// The run: an id, a directory, or `last`
    #[arg(default_value = "last")]
    run: String,
    #[command(flatten)]
    reports: ReportsArgument,
    /// Write the files here instead
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// What to do
    #[arg(long, value_enum, default_value = "files")]
    format: ReportFormat,
    /// Take profile and waivers from this matrix, not from the one the run kept
    #[arg(long, value_name = "FILE")]
    matrix: Option<PathBuf>,
    /// Exit with 1 also when only `should` checks fail
    #[arg(long)]
    strict: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum ReportFormat {
    /// index.html, cells.csv, results.csv, junit.xml, summary.md in the run's directory
    Files,
    /// Everything judged, as JSON on standard output
    Json,
}

pub(super) fn run(arguments: Arguments) -> Result<Exit, Error> {
    let dir = find(&arguments.reports.reports, &arguments.run)?;
    if arguments.format == ReportFormat::Json {
        let run = store::load(&dir)?;
        let view = view(&run, arguments.matrix.as_deref())?;
        let json = render::json(&view).map_err(|error| Error::Render(error.to_string()))?;
        print(&String::from_utf8_lossy(&json))?;
        return Ok(exit(&view, arguments.strict));
    }
    let output = arguments.output.unwrap_or_else(|| dir.clone());
    let (summary, exit) = render_into(&dir, &output, arguments.matrix.as_deref(), arguments.strict)?;
    print(&summary)?;
    Ok(exit)
}

/// Renders the run in `dir` into `output`; returns what to tell the user, and what the run means.
pub(super) fn render_into(
    dir: &Path,
    output: &Path,
    matrix: Option<&Path>,
    strict: bool,
) -> Result<(String, Exit), Error> {
    let run = store::load(dir)?;
    let view = view(&run, matrix)?;
    let files = render::render_view(&view).map_err(|error| Error::Render(error.to_string()))?;
    std::fs::create_dir_all(output).map_err(Error::io(output))?;
    for (name, bytes) in files {
        let path = output.join(name);
        std::fs::write(&path, bytes).map_err(Error::io(&path))?;
    }
    let summary = format!("{}\nreport: {}\n", summary::summary(&view), output.join("index.html").display());
    Ok((summary, exit(&view, strict)))
}

/// A run judged now, by its own profile and waivers or those of another matrix.
pub(super) fn view<'a>(run: &'a store::Run, matrix: Option<&Path>) -> Result<render::View<'a>, Error> {
    let (catalogue, now) = (Catalogue::built_in(), Timestamp::now());
    let Some(path) = matrix else { return Ok(render::View::new(run, catalogue, now)) };
    let text = std::fs::read_to_string(path).map_err(Error::io(path))?;
    let terms = crate::spec::terms(&text, &path.display().to_string())?;
    Ok(render::View::with_terms(run, catalogue, terms, now))
}

/// What the cells the user asked for mean, as an exit code. Controls explain; they do not decide.
fn exit(view: &render::View<'_>, strict: bool) -> Exit {
    use crate::judge::Verdict;
    let any = |verdict: Verdict| view.verdicts().iter().any(|(found, _)| *found == verdict);
    let waivers = view.waivers.iter().any(|waiver| waiver.fate.is_trouble());
    if waivers || any(Verdict::Fail) || strict && any(Verdict::Degraded) {
        Exit::Failures
    } else if any(Verdict::Error) || any(Verdict::Miss) || view.verdicts().iter().all(|(v, _)| *v == Verdict::Skip) {
        // A run in which nothing was judged is not green.
        Exit::Inconclusive
    } else {
        Exit::Expected
    }
}

/// The directory of a run: a path, an id under `reports`, or the last one.
pub(super) fn find(reports: &Path, which: &str) -> Result<PathBuf, Error> {
    let path = Path::new(which);
    if path.join("run.json").exists() {
        return Ok(path.to_owned());
    }
    let runs = store::list(reports)?;
    let named = |dir: &Path| dir.file_name().is_some_and(|name| name.to_string_lossy() == which);
    let found = match which {
        "last" => runs.iter().rfind(|kept| kept.info.is_ok()),
        _ => runs.iter().find(|kept| named(&kept.dir)),
    };
    found.map(|kept| kept.dir.clone()).ok_or_else(|| {
        let names: Vec<_> = runs.iter().rev().take(5).filter_map(|kept| kept.dir.file_name()).collect();
        let names: Vec<_> = names.iter().map(|name| name.to_string_lossy()).collect();
        let help = match names.is_empty() {
            true => "`abicus run` makes one".to_owned(),
            false => format!("the newest are {}; `abicus list` shows all", names.join(", ")),
        };
        Error::usage(format!("no run `{which}` under {}", reports.display()), help)
    })
}

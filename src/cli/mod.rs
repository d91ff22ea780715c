//! The command line: arguments in, library calls, an exit code out. One file per command.

mod by_hand;
mod checks;
mod completions;
mod doctor;
mod explain;
mod init;
mod list;
mod plan;
mod probe;
mod report;
mod rig;
mod run;
mod summary;
mod sweep;
mod vm;
mod waive;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};

use crate::plan::Plan;
use crate::spec::{CellGlobError, Files, Matrix, Selection, SpecErrors, World};
use crate::store::StoreError;

/// How a command ended, as an exit code tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Everything as expected: 0.
    Expected,
    /// Unexpected failures or regressions: 1.
    Failures,
    /// Could not run (usage, configuration): 2.
    CouldNotRun,
    /// Finished, but some cells are inconclusive (error, miss): 3.
    Inconclusive,
    /// Interrupted; the run can be resumed: 130.
    Interrupted,
}

impl Exit {
    fn code(self) -> u8 {
        match self {
            Self::Expected => 0,
            Self::Failures => 1,
            Self::CouldNotRun => 2,
            Self::Inconclusive => 3,
            Self::Interrupted => 130,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// What makes a command impossible.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The matrix is wrong.
    #[error(transparent)]
    Spec(#[from] SpecErrors),
    /// A glob over cells is wrong.
    #[error(transparent)]
    Glob(#[from] CellGlobError),
    /// A run directory could not be written or read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Rendering failed.
    #[error("could not render the report: {0}")]
    Render(String),
    /// A file could not be read or written.
    #[error("{path}: {source}")]
    Io {
        /// Which.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// Anything else, in words.
    #[error("{message}")]
    Usage {
        /// What is wrong.
        message: String,
        /// What would be right.
        help: Option<String>,
    },
}

impl Error {
    fn usage(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self::Usage { message: message.into(), help: Some(help.into()) }
    }

    fn io(path: impl AsRef<std::path::Path>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.as_ref().display().to_string();
        move |source| Self::Io { path, source }
    }
}

impl From<crate::fault::Fault> for Error {
    fn from(fault: crate::fault::Fault) -> Self {
        Self::Usage { message: fault.cause, help: fault.hint }
    }
}

/// Which container image works on which host under which engine, and who has to fix it.
#[derive(Debug, Parser)]
#[command(
    name = "abicus",
    version,
    max_term_width = 100,
    after_help = "\
Exit codes: 0 as expected, 1 unexpected failures, 2 could not run, 3 inconclusive cells, 130 interrupted.

Examples:
  abicus init                        write a matrix.toml for this machine
  abicus run                         run it and leave reports/<run>/index.html
  abicus run --cells 'local:docker*:debian-*'
  abicus report                      render the last run again"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Init(init::Arguments),
    Doctor(doctor::Arguments),
    Plan(plan::Arguments),
    Run(run::Arguments),
    Report(report::Arguments),
    Explain(explain::Arguments),
    List(list::Arguments),
    Checks(checks::Arguments),
    Probe(probe::Arguments),
    Sweep(sweep::Arguments),
    Waive(waive::Arguments),
    Vm(vm::Arguments),
    Completions(completions::Completions),
    Man(completions::Man),
}

/// Runs the command the arguments name. Prints errors; a panic is a defect of abicus, and said to be one.
pub fn main() -> ExitCode {
    std::panic::set_hook(Box::new(|panic| {
        anstream::eprintln!("abicus has a defect ({panic}): please report it, with the command and the matrix");
    }));
    std::panic::catch_unwind(command).unwrap_or(Exit::CouldNotRun.into())
}

fn command() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Asking for help is not an error; everything else is "could not run".
            let exit = if error.use_stderr() { Exit::CouldNotRun } else { Exit::Expected };
            let _ = error.print();
            return exit.into();
        }
    };
    let result = match cli.command {
        Command::Init(arguments) => init::run(arguments),
        Command::Doctor(arguments) => doctor::run(arguments),
        Command::Plan(arguments) => plan::run(arguments),
        Command::Run(arguments) => run::run(arguments),
        Command::Report(arguments) => report::run(arguments),
        Command::Explain(arguments) => explain::run(arguments),
        Command::List(arguments) => list::run(arguments),
        Command::Checks(arguments) => checks::run(arguments),
        Command::Probe(arguments) => probe::run(arguments),
        Command::Waive(arguments) => waive::run(arguments),
        Command::Sweep(arguments) => sweep::run(arguments),
        Command::Vm(arguments) => vm::run(arguments),
        Command::Completions(arguments) => completions::completions(arguments, Cli::command()),
        Command::Man(arguments) => completions::man(arguments, Cli::command()),
    };
    match result {
        Ok(exit) => exit.into(),
        Err(error) => {
            let red = anstyle::Style::new().bold().fg_color(Some(anstyle::AnsiColor::Red.into()));
            anstream::eprintln!("{red}error{red:#}: {error}");
            if let Error::Usage { help: Some(help), .. } = &error {
                anstream::eprintln!("  help: {help}");
            }
            Exit::CouldNotRun.into()
        }
    }
}

/// How to print a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people.
    Table,
    /// For programs.
    Json,
}

/// Where the matrix is.
#[derive(Debug, Args)]
struct MatrixArgument {
    /// The matrix
    #[arg(long, short, default_value = "matrix.toml", value_name = "FILE")]
    matrix: PathBuf,
}

impl MatrixArgument {
    /// Reads the matrix and the lists of hosts it names; returns the text with those hosts too, which a run keeps.
    fn read(&self) -> Result<(Matrix, String), Error> {
        let name = self.matrix.display().to_string();
        let text = std::fs::read_to_string(&self.matrix).map_err(|source| match source.kind() {
            std::io::ErrorKind::NotFound => Error::usage(
                format!("{name} does not exist"),
                "`abicus init` writes one for this machine, or name another with --matrix",
            ),
            _ => Error::Io { path: name.clone(), source },
        })?;
        let world = World { base: self.base(), exists: &|path| path.exists() };
        let files = Files {
            base: self.base(),
            home: std::env::var_os("HOME").filter(|home| !home.is_empty()).map(PathBuf::from),
            read: &|path| std::fs::read_to_string(path),
            list: &|dir| {
                let names = std::fs::read_dir(dir)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
                names.collect()
            },
        };
        let expanded = crate::spec::expand(&text, &name, &files)?;
        Ok((expanded.resolve(&name, &world)?, expanded.text))
    }

    /// The directory relative paths of the matrix start from.
    fn base(&self) -> PathBuf {
        base(&self.matrix)
    }
}

/// The directory relative paths of a matrix start from.
fn base(matrix: &std::path::Path) -> PathBuf {
    match matrix.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// Which cells.
#[derive(Debug, Args)]
struct SelectionArguments {
    /// Only cells that match host:engine:image, each a glob (repeatable)
    #[arg(long, value_name = "GLOB")]
    cells: Vec<String>,
    /// Only hosts whose name matches (repeatable)
    #[arg(long, value_name = "GLOB")]
    host: Vec<String>,
    /// Only hosts with this label, `key` or `key=glob` (repeatable)
    #[arg(long, value_name = "LABEL")]
    label: Vec<String>,
    /// Only engines whose name matches (repeatable)
    #[arg(long, value_name = "GLOB")]
    engine: Vec<String>,
    /// Only images whose name matches (repeatable)
    #[arg(long, value_name = "GLOB")]
    image: Vec<String>,
    /// Leave out the control cells, which say who is at fault
    #[arg(long)]
    no_controls: bool,
}

impl SelectionArguments {
    /// Whether cells of the matrix are left out.
    fn is_some(&self) -> bool {
        ![&self.cells, &self.host, &self.label, &self.engine, &self.image].into_iter().all(Vec::is_empty)
    }

    fn plan(&self, matrix: &Matrix) -> Result<Plan, Error> {
        let selection = Selection::new(&self.cells, &self.host, &self.engine, &self.image)?.labelled(&self.label)?;
        let plan = crate::plan::plan(matrix, &selection, !self.no_controls);
        if plan.cells.iter().all(|planned| planned.role.is_control()) {
            let axis = |names: Vec<&str>| names.join(", ");
            return Err(Error::usage(
                "no cell is selected",
                format!(
                    "hosts are {}; engines are {}; images are {}; `abicus plan` lists the cells",
                    axis(matrix.hosts.iter().map(|host| host.id.as_str()).collect()),
                    axis(matrix.engines.iter().map(|engine| engine.id.as_str()).collect()),
                    axis(matrix.images.iter().map(|image| image.id.as_str()).collect()),
                ),
            ));
        }
        Ok(plan)
    }
}

/// Where runs land.
#[derive(Debug, Args)]
struct ReportsArgument {
    /// Where runs land
    #[arg(long, default_value = Self::DEFAULT, value_name = "DIR", env = "ABICUS_REPORTS")]
    reports: PathBuf,
}

impl ReportsArgument {
    const DEFAULT: &str = "reports";

    /// Whether nobody said anything else.
    fn is_default(&self) -> bool {
        self.reports.as_os_str() == Self::DEFAULT
    }
}

/// Where images and probes are kept between runs.
fn cache_dir() -> PathBuf {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("ABICUS_CACHE")
        .or_else(|| Some(set("XDG_CACHE_HOME")?.join("abicus")))
        .or_else(|| Some(set("HOME")?.join(".cache/abicus")))
        .unwrap_or_else(|| std::env::temp_dir().join("abicus-cache"))
}

/// The first signal stops what is done in order, the second at once.
async fn on_signal(stop: impl Fn() + Send) {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut int), Ok(mut term)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate())) else {
        return;
    };
    for first in [true, false] {
        tokio::select! {
            _ = int.recv() => {}
            _ = term.recv() => {}
        }
        if !first {
            anstream::eprintln!("stopped at once; `abicus sweep` removes what was left");
            std::process::exit(Exit::Interrupted.code().into());
        }
        stop();
    }
}

/// Whether standard output went away; printing to a closed pipe is not an error.
fn print(text: &str) -> Result<(), Error> {
    use std::io::Write;
    match anstream::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        result => result.map_err(Error::io("standard output")),
    }
}

fn print_json(value: &impl serde::Serialize) -> Result<(), Error> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|error| Error::Usage { message: format!("could not write JSON: {error}"), help: None })?;
    print(&format!("{text}\n"))
}

/// A table with few lines, as wide as the terminal.
fn table(header: &[&str]) -> comfy_table::Table {
    let mut table = comfy_table::Table::new();
    let line = comfy_table::LineStyle::none().fill('─').junction('─');
    let style = comfy_table::TableStyle::new().top_border(line).header_separator(line).bottom_border(line);
    table.load_style(style);
    table.set_content_arrangement(comfy_table::ContentArrangement::Dynamic);
    table.set_header(header);
    table
}

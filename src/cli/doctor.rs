//! `abicus doctor`: is everything the matrix names reachable, and how to get what is not.

use std::path::Path;

use clap::Args;
use futures_util::future::join_all;
use serde::Serialize;

use super::{Error, Exit, Format, MatrixArgument, cache_dir, print, print_json, rig, table};
use crate::engine::{self, Facts};
use crate::fault::Fault;
use crate::host;
use crate::image::Source;
use crate::spec::{HostSpec, Matrix};

/// Say what is missing on the way to each host, engine and image, and how to get it
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  abicus doctor\n  abicus doctor --format json | jq '.[] | select(.ok | not)'")]
pub(super) struct Arguments {
    #[command(flatten)]
    matrix: MatrixArgument,
    /// How to print it
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
}

#[derive(Serialize)]
struct Finding {
    what: String,
    ok: bool,
    optional: bool,
    says: String,
    help: Option<String>,
    facts: Facts,
}

impl Finding {
    fn new(what: String, optional: bool, result: Result<Facts, Fault>, brief: &[&str]) -> Self {
        match result {
            Ok(facts) => {
                let says: Vec<&str> = brief.iter().filter_map(|name| facts.get(*name)).map(String::as_str).collect();
                Self { what, ok: true, optional, says: says.join(", "), help: None, facts }
            }
            Err(fault) => Self { what, ok: false, optional, says: fault.cause, help: fault.hint, facts: Facts::new() },
        }
    }
}

/// A host and the engines on it.
async fn look_at(spec: &HostSpec, matrix: &Matrix, cache: &Path) -> Vec<Finding> {
    let reach = host::open(spec, cache);
    let facts = host::facts(&*reach).await;
    let reached = facts.is_ok();
    let mut findings =
        vec![Finding::new(format!("host {}", spec.id), false, facts, &["kernel.release", "arch", "os.name"])];
    for engine in matrix.engines.iter().filter(|_| reached) {
        let result = match engine::open(engine, &reach, cache) {
            Ok(engine) => engine.fingerprint().await,
            Err(fault) => Err(fault),
        };
        let what = match matrix.hosts.len() {
            1 => format!("engine {}", engine.id),
            _ => format!("engine {}:{}", spec.id, engine.id),
        };
        let brief = ["engine.version", "engine.runtime", "engine.runtime.version", "engine.lacks"];
        findings.push(Finding::new(what, engine.optional, result, &brief));
    }
    findings
}

pub(super) fn run(arguments: Arguments) -> Result<Exit, Error> {
    let (matrix, _) = arguments.matrix.read()?;
    let cache = cache_dir();
    // All hosts at once: a dead one delays nobody.
    let looks = matrix.hosts.iter().map(|spec| look_at(spec, &matrix, &cache));
    let mut findings: Vec<Finding> = rig::runtime()?.block_on(join_all(looks)).into_iter().flatten().collect();
    for spec in &matrix.images {
        let result = match &spec.source {
            Source::Bootstrap(_) => super::mmdebstrap(),
            _ => Ok(Facts::new()),
        };
        findings.push(Finding::new(format!("image {}", spec.id), spec.optional, result, &["tool"]));
    }
    let missing = findings.iter().any(|finding| !finding.ok && !finding.optional);
    if arguments.format == Format::Json {
        print_json(&findings)?;
    } else {
        let mut rows = table(&["what", "state", "says"]);
        for finding in &findings {
            let state = match (finding.ok, finding.optional) {
                (true, _) => "ok",
                (false, true) => "absent (optional)",
                (false, false) => "missing",
            };
            let help = finding.help.as_ref().map(|help| format!("\nhelp: {help}")).unwrap_or_default();
            rows.add_row([finding.what.clone(), state.to_owned(), format!("{}{help}", finding.says)]);
        }
        print(&format!("{rows}\n"))?;
    }
    Ok(if missing { Exit::CouldNotRun } else { Exit::Expected })
}

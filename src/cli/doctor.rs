//! `abicus doctor`: is everything the matrix names reachable, and how to get what is not.

use std::path::Path;
use std::sync::Arc;

use clap::Args;
use futures_util::future::join_all;
use serde::Serialize;

use super::{Error, Exit, Format, MatrixArgument, cache_dir, print, print_json, rig, table};
use crate::engine::{self, Engine, Facts};
use crate::execute;
use crate::fault::Fault;
use crate::host;
use crate::id::{HostId, RunId};
use crate::image::registry::Access;
use crate::image::{ImageStore, Pull, Source, bootstrap_tool};
use crate::spec::{EngineSpec, HostKind, HostSpec, Matrix};

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
                let says = format!("{}{}", says.join(", "), abilities(&facts));
                Self { what, ok: true, optional, says, help: None, facts }
            }
            Err(fault) => Self { what, ok: false, optional, says: fault.cause, help: fault.hint, facts: Facts::new() },
        }
    }
}

/// What an engine found out that it can do, cannot do, and takes without doing it: a line each.
fn abilities(facts: &Facts) -> String {
    let of =
        |prefix: &'static str| facts.iter().filter_map(move |(name, says)| Some((name.strip_prefix(prefix)?, says)));
    let (can, cannot): (Vec<_>, Vec<_>) = of("engine.can.").partition(|(_, says)| *says == "yes");
    let mut text = String::new();
    if !can.is_empty() {
        let names: Vec<&str> = can.into_iter().map(|(name, _)| name).collect();
        text += &format!("\ncan: {}", names.join(", "));
    }
    for (name, says) in cannot {
        text += &format!("\ncannot: {name}: {}", says.trim_start_matches("no: "));
    }
    for (name, says) in of("engine.proved.") {
        text += &format!("\nproved: {name}: {says}");
    }
    for (name, says) in of("engine.ignored.") {
        text += &format!("\nignores `{name}`: {says}");
    }
    text
}

/// Whether somebody can come up with an image by reference: its registry, or an engine that has it.
async fn find(matrix: &Matrix, reference: &str, cache: &Path) -> Result<Facts, Fault> {
    let registries = Access { attempts: 1, ..rig::registries(matrix) };
    let fault = match ImageStore::at(cache.join("images"))?.ask(reference, &registries).await {
        Ok(digest) => return Ok(Facts::from([("digest".to_owned(), digest)])),
        Err(fault) => fault,
    };
    // As a run does it: engines of other hosts are not asked.
    for host in matrix.hosts.iter().filter(|host| host.kind == HostKind::Local) {
        let reach = host::open(host, cache);
        let engines = matrix.engines.iter().filter(|engine| engine.kind.has_references());
        let opened = engines.filter_map(|spec| Some((spec, engine::open(spec, &host.id, &reach).ok()?)));
        let asked =
            opened.map(|(spec, engine)| async move { (engine.has(reference).await == Ok(true)).then_some(spec) });
        if let Some(spec) = join_all(asked).await.into_iter().flatten().next() {
            return Ok(Facts::from([("from".to_owned(), format!("engine {} has it", spec.id))]));
        }
    }
    Err(fault)
}

/// What an engine says of itself, and what its canaries prove.
pub(super) async fn look_into(
    engine: &dyn Engine,
    spec: &EngineSpec,
    host: &HostId,
    cache: &Path,
) -> Result<Facts, Fault> {
    let mut facts = engine.fingerprint().await?;
    let payload = Arc::new(execute::materialize(cache)?);
    facts.extend(execute::prove(engine, spec, host, &payload, &RunId::new()).await?);
    Ok(facts)
}

/// A host and the engines on it.
async fn look_at(spec: &HostSpec, matrix: &Matrix, cache: &Path) -> Vec<Finding> {
    let reach = host::open(spec, cache);
    let facts = host::facts(&*reach).await;
    let reached = facts.is_ok();
    let mut findings =
        vec![Finding::new(format!("host {}", spec.id), false, facts, &["kernel.release", "arch", "os.name"])];
    for engine in matrix.engines.iter().filter(|engine| reached && spec.kind.lacks(engine.kind).is_none()) {
        let result = match engine::open(engine, &spec.id, &reach) {
            Ok(opened) => look_into(&*opened, engine, &spec.id, cache).await,
            Err(fault) => Err(fault),
        };
        let what = match matrix.hosts.len() {
            1 => format!("engine {}", engine.id),
            _ => format!("engine {}:{}", spec.id, engine.id),
        };
        let brief = ["engine.version", "engine.runtime", "engine.runtime.version"];
        findings.push(Finding::new(what, engine.optional, result, &brief));
    }
    findings
}

pub(super) fn run(arguments: Arguments) -> Result<Exit, Error> {
    let (matrix, _) = arguments.matrix.read()?;
    let cache = cache_dir();
    // All hosts at once: a dead one delays nobody.
    let looks = matrix.hosts.iter().map(|spec| look_at(spec, &matrix, &cache));
    let runtime = rig::runtime()?;
    let mut findings: Vec<Finding> = runtime.block_on(join_all(looks)).into_iter().flatten().collect();
    for spec in &matrix.images {
        let result = match &spec.source {
            Source::Bootstrap(wanted) => {
                bootstrap_tool(wanted).map(|tool| Facts::from([("tool".to_owned(), tool)])).map_err(Fault::from)
            }
            Source::Reference { reference, pull: Pull::Driver, .. } => {
                runtime.block_on(find(&matrix, reference, &cache))
            }
            _ => Ok(Facts::new()),
        };
        findings.push(Finding::new(format!("image {}", spec.id), spec.optional, result, &["tool", "digest", "from"]));
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

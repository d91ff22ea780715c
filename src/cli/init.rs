//! `abicus init`: a first matrix.toml for this machine.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;

use super::doctor::look_into;
use super::{Error, Exit, cache_dir, print, rig};
use crate::engine;
use crate::host::{Local, Reach};
use crate::image::mmdebstrap;
use crate::plan::bare_engine;
use crate::spec::{EngineKind, EngineSpec, HostSpec};

/// Find engines and images here and write a matrix.toml
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  abicus init\n  abicus init --output ci/matrix.toml && abicus plan --matrix ci/matrix.toml"
)]
pub(super) struct Arguments {
    /// The file to write
    #[arg(long, short, default_value = "matrix.toml", value_name = "FILE")]
    output: PathBuf,
    /// Replace the file if it exists
    #[arg(long)]
    force: bool,
}

/// Suites offered where mmdebstrap is installed: five years of Debian.
const SUITES: [(&str, &str); 4] =
    [("debian-11", "bullseye"), ("debian-12", "bookworm"), ("debian-13", "trixie"), ("debian-14", "forky")];
/// More images of an engine than this make a first run long; the user adds what is wanted.
const MAX_REFERENCES: usize = 6;

/// OCI runtimes that are looked for.
const RUNTIMES: [&str; 4] = ["runc", "crun", "youki", "runsc"];

/// Every engine that could be here, under the name it would have.
fn candidates() -> Vec<EngineSpec> {
    let mut candidates = vec![];
    for &(name, kind) in EngineKind::NAMES {
        match kind {
            EngineKind::Scripted => {}
            EngineKind::Oci => candidates.extend(
                RUNTIMES.map(|runtime| EngineSpec { runtime: Some(runtime.to_owned()), ..bare_engine(runtime, kind) }),
            ),
            _ => candidates.push(bare_engine(name, kind)),
        }
    }
    candidates
}

pub(super) fn run(arguments: Arguments) -> Result<Exit, Error> {
    if arguments.output.exists() && !arguments.force {
        let message = format!("{} exists already", arguments.output.display());
        return Err(Error::usage(message, "--force replaces it, --output names another"));
    }
    let mut text = String::from(
        "# What runs where under what: images × hosts × engines. `abicus plan` prints the cells, `abicus run` runs them.\n\n",
    );
    text += "[matrix]\nname = \"first\"\n\n[[host]]\nname = \"local\"\n\n";
    let cache = cache_dir();
    let here: Arc<dyn Reach> = Arc::new(Local::at(cache.join("work")));
    let host = HostSpec::local().id;
    let mut found = vec![];
    let mut references = std::collections::BTreeSet::new();
    rig::runtime()?.block_on(async {
        for spec in candidates() {
            let name = spec.id.as_str();
            let usable = match engine::open(&spec, &host, &here) {
                // What answers and cannot run a cell is of no use.
                Ok(engine) => look_into(&*engine, &spec, &host, &cache).await.map(|_| engine),
                Err(fault) => Err(fault),
            };
            match usable {
                Ok(engine) => {
                    references.extend(engine.references().await.unwrap_or_default());
                    let runtime =
                        spec.runtime.as_ref().map(|name| format!("runtime = \"{name}\"\n")).unwrap_or_default();
                    text += &format!("[[engine]]\nname = \"{name}\"\nkind = \"{}\"\n{runtime}\n", spec.kind);
                    found.push(name.to_owned());
                }
                Err(fault) => {
                    let help = fault.hint.map(|hint| format!("\n# help: {hint}")).unwrap_or_default();
                    text += &format!("# {name}: {}{help}\n\n", fault.cause);
                }
            }
        }
    });
    text += "[[image]]\nname = \"scratch\"\nscratch = true\n\n";
    for (number, reference) in references.iter().take(MAX_REFERENCES).enumerate() {
        // A JSON string is a TOML one, too.
        let reference = serde_json::Value::from(reference.as_str());
        text += &format!("[[image]]\nname = \"found-{}\"\nreference = {reference}\n\n", number + 1);
    }
    match mmdebstrap::version() {
        Ok(_) => {
            for (name, suite) in SUITES {
                text += &format!("[[image]]\nname = \"{name}\"\nbootstrap = {{ suite = \"{suite}\" }}\n\n");
            }
        }
        Err(error) => text += &format!("# no bootstrapped images: {error}\n"),
    }
    std::fs::write(&arguments.output, text.trim_end().to_owned() + "\n").map_err(Error::io(&arguments.output))?;
    print(&format!(
        "wrote {}: engines {}; {} of {} images that engines have\nnext: abicus plan, then abicus run\n",
        arguments.output.display(),
        found.join(", "),
        references.len().min(MAX_REFERENCES),
        references.len(),
    ))?;
    Ok(Exit::Expected)
}

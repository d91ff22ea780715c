//! `abicus sweep`: remove what runs that died left behind.

use std::time::Duration;

use clap::Args;

use super::{Error, Exit, MatrixArgument, cache_dir, print, rig};
use crate::engine;
use crate::id::RunId;
use crate::spec::{EngineKind, EngineSpec};

/// Remove containers and other leftovers of runs that died
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  abicus sweep                        leftovers of every run, in every engine of matrix.toml
  abicus sweep --run 01JD…            of one run
  abicus sweep --cache                the images imported into docker and podman too")]
pub(super) struct Arguments {
    #[command(flatten)]
    matrix: MatrixArgument,
    /// Only of this run
    #[arg(long)]
    run: Option<RunId>,
    /// Also the images kept in engines for later runs
    #[arg(long)]
    cache: bool,
}

pub(super) fn run(arguments: Arguments) -> Result<Exit, Error> {
    let engines = engines(&arguments)?;
    let cache = cache_dir();
    let mut failed = false;
    let mut removed = 0;
    rig::runtime()?.block_on(async {
        for spec in &engines {
            let engine = match engine::open(spec, &cache) {
                Ok(engine) => engine,
                // An engine that is not here holds nothing of ours.
                Err(_) => continue,
            };
            if engine.fingerprint().await.is_err() {
                continue;
            }
            let sweep = async {
                let mut names = engine.sweep(arguments.run.as_ref()).await?;
                if arguments.cache {
                    names.extend(engine.sweep_cache().await?);
                }
                Ok::<_, crate::fault::Fault>(names)
            };
            let swept = tokio::time::timeout(Duration::from_secs(120), sweep).await;
            match swept {
                Ok(Ok(names)) => {
                    removed += names.len();
                    for name in names {
                        print(&format!("{}: removed {name}\n", spec.id))?;
                    }
                }
                Ok(Err(fault)) => {
                    failed = true;
                    anstream::eprintln!("{}: could not sweep: {fault}", spec.id);
                }
                Err(_) => {
                    failed = true;
                    anstream::eprintln!("{}: could not sweep: no answer in 120 s", spec.id);
                }
            }
        }
        Ok::<(), Error>(())
    })?;
    print(&format!("{removed} leftovers removed\n"))?;
    Ok(if failed { Exit::Inconclusive } else { Exit::Expected })
}

/// The engines of the matrix, or where there is none, the local ones.
fn engines(arguments: &Arguments) -> Result<Vec<EngineSpec>, Error> {
    let built_in = || crate::plan::bare_engine("built-in", EngineKind::BuiltIn);
    if arguments.matrix.matrix.exists() {
        let (matrix, _) = arguments.matrix.read()?;
        let mut engines = matrix.engines;
        if !engines.iter().any(|engine| engine.kind == EngineKind::BuiltIn) {
            engines.push(built_in());
        }
        return Ok(engines);
    }
    Ok(vec![
        built_in(),
        crate::plan::bare_engine("docker", EngineKind::Docker),
        crate::plan::bare_engine("podman", EngineKind::Podman),
    ])
}

//! `abicus sweep`: remove what runs that died left behind.

use std::time::Duration;

use clap::Args;
use futures_util::future::join_all;

use super::{Error, Exit, MatrixArgument, cache_dir, print, rig};
use crate::engine::{self, Engine};
use crate::host;
use crate::id::RunId;
use crate::spec::{EngineKind, EngineSpec, HostKind, HostSpec};

/// Remove containers and other leftovers of runs that died
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  abicus sweep                        leftovers of every run, in every engine of matrix.toml
  abicus sweep --run 01JD…            of one run
  abicus sweep --cache                also images kept in docker, in podman and here: the next run makes them anew")]
pub(super) struct Arguments {
    #[command(flatten)]
    matrix: MatrixArgument,
    /// Only of this run
    #[arg(long)]
    run: Option<RunId>,
    /// Also the images kept for later runs, in engines and on this machine
    #[arg(long)]
    cache: bool,
}

pub(super) fn run(arguments: Arguments) -> Result<Exit, Error> {
    let (hosts, engines) = subjects(&arguments)?;
    let cache = cache_dir();
    // All hosts at once: a dead one delays nobody.
    let swept = rig::runtime()?.block_on(join_all(hosts.iter().map(|spec| async {
        let reach = host::open(spec, &cache);
        let mut swept = vec![];
        for engine in &engines {
            let Ok(handle) = engine::open(engine, &spec.id, &reach) else { continue };
            // An engine that is not there holds nothing of ours.
            if handle.fingerprint().await.is_ok() {
                swept.push((what(hosts.len(), spec, engine), sweep(&*handle, &arguments).await));
            }
        }
        swept
    })));
    let mut failed = false;
    let mut removed = 0;
    for (what, result) in swept.into_iter().flatten() {
        match result {
            Ok(names) => {
                removed += names.len();
                for name in names {
                    print(&format!("{what}: removed {name}\n"))?;
                }
            }
            Err(why) => {
                failed = true;
                anstream::eprintln!("{what}: could not sweep: {why}");
            }
        }
    }
    // They carry no name of a run.
    if arguments.run.is_none() {
        for dir in host::vm::sweep(&std::env::temp_dir()) {
            print(&format!("virtual machines: removed {}\n", dir.display()))?;
            removed += 1;
        }
    }
    let images = cache.join("images");
    if arguments.cache && images.exists() {
        std::fs::remove_dir_all(&images).map_err(Error::io(&images))?;
        print(&format!("images: removed {}\n", images.display()))?;
        removed += 1;
    }
    print(&format!("{removed} leftovers removed\n"))?;
    Ok(if failed { Exit::Inconclusive } else { Exit::Expected })
}

fn what(hosts: usize, host: &HostSpec, engine: &EngineSpec) -> String {
    if hosts == 1 { engine.id.to_string() } else { format!("{}:{}", host.id, engine.id) }
}

async fn sweep(engine: &dyn Engine, arguments: &Arguments) -> Result<Vec<String>, String> {
    let sweep = async {
        let mut names = engine.sweep(arguments.run.as_ref()).await?;
        if arguments.cache {
            names.extend(engine.sweep_cache().await?);
        }
        Ok::<_, crate::fault::Fault>(names)
    };
    match tokio::time::timeout(Duration::from_secs(120), sweep).await {
        Ok(result) => result.map_err(|fault| fault.to_string()),
        Err(_) => Err("no answer in 120 s".to_owned()),
    }
}

/// The hosts and engines of the matrix, or where there is none, this machine and its own.
fn subjects(arguments: &Arguments) -> Result<(Vec<HostSpec>, Vec<EngineSpec>), Error> {
    let built_in = || crate::plan::bare_engine("built-in", EngineKind::BuiltIn);
    if arguments.matrix.matrix.exists() {
        let (matrix, _) = arguments.matrix.read()?;
        let mut engines = matrix.engines;
        if !engines.iter().any(|engine| engine.kind == EngineKind::BuiltIn) {
            engines.push(built_in());
        }
        // A virtual machine keeps nothing: what was in it is gone with it.
        let hosts = matrix.hosts.into_iter().filter(|host| !matches!(host.kind, HostKind::Vm(_)));
        return Ok((hosts.collect(), engines));
    }
    let engines = vec![
        built_in(),
        crate::plan::bare_engine("docker", EngineKind::Docker),
        crate::plan::bare_engine("podman", EngineKind::Podman),
    ];
    Ok((vec![HostSpec::local()], engines))
}

//! The command line that asks a cell's question by hand, with the engine's own tool.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::{Error, cache_dir, rig};
use crate::engine::builtin::BuiltIn;
use crate::engine::container::{self, Kind};
use crate::engine::{Engine, Facts, Job, PAYLOAD_DIR, Payload};
use crate::execute::{command, materialize};
use crate::host::Local;
use crate::id::{CellId, CheckId};
use crate::image::{ImageStore, host_architecture};
use crate::plan::Plan;
use crate::spec::{EngineKind, EngineSpec, HostKind, Matrix, World};
use crate::store::Run;

/// Long enough for a look by hand.
const TIME: Duration = Duration::from_secs(60);

/// The words of the command line.
pub(super) fn by_hand(run: &Run, cell: &CellId, check: Option<&CheckId>) -> Result<Vec<String>, Error> {
    let none = Facts::new();
    let facts = |known: Option<&crate::store::Known>| known.map_or_else(|| none.clone(), |known| known.facts.clone());
    let (host, image) = (facts(run.hosts.get(&cell.host)), facts(run.images.get(&cell.image)));
    let (matrix, plan, base) = declared(run)?;
    let engine = plan.engine(&cell.engine).ok_or_else(|| lacks("the matrix of the run does not have this engine"))?;
    if let Some(host) = matrix.hosts.iter().find(|host| host.id == cell.host)
        && host.kind != HostKind::Local
    {
        return Err(lacks("the cell is on another machine: run abicus there, or log in and start the probe by hand"));
    }
    let payload = materialize(&cache_dir())?;
    let only: Vec<String> = check.iter().flat_map(|check| ["--only".to_owned(), check.to_string()]).collect();
    let dir = payload.dir.display().to_string();
    let loader = |facts: &Facts, name: &str| facts.get(name).cloned();
    match engine.kind {
        EngineKind::Native => Ok(command(&dir, loader(&host, "os.loader").as_deref(), TIME, &only)),
        EngineKind::Docker | EngineKind::Podman => {
            let kind = if engine.kind == EngineKind::Docker { Kind::Docker } else { Kind::Podman };
            let argv = command(PAYLOAD_DIR, loader(&image, "loader").as_deref(), TIME, &only);
            let about = (&cell.image, &image);
            Ok(container::by_hand(kind, engine.runtime.as_deref(), &engine.options, about, &dir, &argv))
        }
        EngineKind::BuiltIn => {
            let argv = command(PAYLOAD_DIR, loader(&image, "loader").as_deref(), TIME, &only);
            built_in(&plan, engine, &base, cell, argv, payload)
        }
        EngineKind::Oci | EngineKind::Bubblewrap | EngineKind::Nspawn | EngineKind::Apptainer => Err(lacks(
            "cells of this engine need a bundle and mounts of their own: `abicus run --cells` runs one alone",
        )),
        EngineKind::Scripted => Err(lacks("this engine plays what was recorded")),
    }
}

fn lacks(why: &str) -> Error {
    Error::Usage { message: why.to_owned(), help: None }
}

/// The matrix a run kept, planned again, and where its paths start.
fn declared(run: &Run) -> Result<(Matrix, Plan, PathBuf), Error> {
    let base = match Path::new(&run.info.matrix_file).parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    };
    let world = World { base: base.clone(), exists: &|_| true };
    let matrix = crate::spec::resolve(&run.info.matrix, &run.info.matrix_file, &world)?;
    let plan = crate::plan::plan(&matrix, &Default::default(), true);
    Ok((matrix, plan, base))
}

/// Writes what the launcher is handed for such a cell, and starts it with that.
fn built_in(
    plan: &Plan,
    engine: &EngineSpec,
    base: &Path,
    cell: &CellId,
    argv: Vec<String>,
    payload: Payload,
) -> Result<Vec<String>, Error> {
    let cache = cache_dir();
    let spec = plan.image(&cell.image).ok_or_else(|| lacks("the matrix of the run does not have this image"))?;
    let built_in = BuiltIn::new(&engine.options, Arc::new(Local::at(cache.join("work"))))?;
    let (launcher, list) = rig::runtime()?.block_on(async {
        let images = ImageStore::at(cache.join("images"))?;
        let image = images.open(&spec.id, &spec.source, base, host_architecture(), Arc::new(|_| ())).await?;
        let job = Job {
            run: crate::id::RunId::new(),
            cell: cell.clone(),
            attempt: 1,
            argv,
            payload: Arc::new(payload),
            deadline: TIME,
            output_cap: 4 << 20,
        };
        let prepared = built_in.prepare(&image).await?;
        built_in.operations(&job, &prepared).await
    })?;
    let dir = cache.join("by-hand");
    std::fs::create_dir_all(&dir).map_err(Error::io(&dir))?;
    let file = dir.join(format!("{}.{}.{}.list", cell.host, cell.engine, cell.image));
    std::fs::write(&file, list).map_err(Error::io(&file))?;
    Ok([launcher.as_path(), &file]
        .map(|path| path.display().to_string())
        .into_iter()
        .chain(["2".into(), "-".into()])
        .collect())
}

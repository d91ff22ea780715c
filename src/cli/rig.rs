//! A plan's engines, hosts and images made real.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;

use super::{Error, cache_dir};
use crate::engine;
use crate::execute::{Rig, materialize};
use crate::host;
use crate::image::ImageStore;
use crate::image::registry::Access;
use crate::plan::Plan;
use crate::spec::Matrix;

/// Opens everything a plan names. What cannot be opened is a fault of its cells, not of the command.
pub(super) fn open(matrix: &Matrix, plan: &Plan, base: &Path) -> Result<Rig, Error> {
    let cache = cache_dir();
    let images = ImageStore::at(cache.join("images"))?;
    let payload = Arc::new(materialize(&cache)?);
    let mut hosts = BTreeMap::new();
    let mut engines = HashMap::new();
    for spec in &matrix.hosts {
        let reach = host::open(spec, &cache);
        for engine in &plan.engines {
            engines.insert((spec.id.clone(), engine.id.clone()), engine::open(engine, &spec.id, &reach));
        }
        hosts.insert(spec.id.clone(), (spec.clone(), reach));
    }
    let (base, defaults) = (base.to_owned(), matrix.defaults.clone());
    Ok(Rig { hosts, engines, images, registries: registries(matrix), payload, base, defaults })
}

/// How the registries of a matrix are reached: as this user reaches them, and as the matrix says.
pub(super) fn registries(matrix: &Matrix) -> Access {
    Access::of_user().with(matrix.registries.iter().map(|spec| (spec.host.as_str(), &spec.mirrors[..], spec.insecure)))
}

/// The runtime that commands which talk to engines run on.
pub(super) fn runtime() -> Result<tokio::runtime::Runtime, Error> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(Error::io("the async runtime"))
}

//! From a declaration to a way to reach the host.

use std::path::Path;
use std::sync::Arc;

use super::vm::Vm;
use super::{AtEndpoint, Local, Reach, Ssh, limits};
use crate::spec::{HostKind, HostSpec};

/// Opens a host; `cache` is abicus' own directory on this machine. Nothing is contacted yet: [`Reach::site`] does that.
pub fn open(spec: &HostSpec, cache: &Path) -> Arc<dyn Reach> {
    limits::raise();
    match &spec.kind {
        HostKind::Local => Arc::new(Local::at(cache.join("work"))),
        HostKind::Ssh(spec) => Arc::new(Ssh::to(spec.clone())),
        HostKind::Endpoint(endpoint) => Arc::new(AtEndpoint::new(endpoint.clone())),
        HostKind::Vm(spec) => Arc::new(Vm::new((**spec).clone(), cache)),
    }
}

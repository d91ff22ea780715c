//! From a declaration to a way to reach the host.

use std::path::Path;
use std::sync::Arc;

use super::vm::Vm;
use super::{Local, Reach, Ssh};
use crate::spec::{HostKind, HostSpec};

/// Opens a host; `cache` is abicus' own directory on this machine. Nothing is contacted yet: [`Reach::site`] does that.
pub fn open(spec: &HostSpec, cache: &Path) -> Arc<dyn Reach> {
    match &spec.kind {
        HostKind::Local => Arc::new(Local::at(cache.join("work"))),
        HostKind::Ssh(spec) => Arc::new(Ssh::to(spec.clone())),
        HostKind::Vm(spec) => Arc::new(Vm::new((**spec).clone(), cache)),
    }
}

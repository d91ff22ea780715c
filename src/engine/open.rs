//! From a declaration to an engine.

use std::sync::Arc;

use super::builtin::BuiltIn;
use super::command::{Command, Kind as CommandKind};
use super::container::{ContainerEngine, Endpoint, Environment, Kind, There};
use super::native::Native;
use super::scripted::Scripted;
use crate::execute::EngineHandle;
use crate::fault::{Fault, Phase};
use crate::host::Reach;
use crate::id::HostId;
use crate::spec::{EngineKind, EngineSpec};

/// Opens an engine of `host`. Nothing is contacted yet: [`super::Engine::fingerprint`] does that.
pub fn open(spec: &EngineSpec, host: &HostId, reach: &Arc<dyn Reach>) -> EngineHandle {
    let container = |kind| -> EngineHandle {
        let (runtime, options) = (spec.runtime.clone(), spec.options.clone());
        let endpoint = match reach.endpoint() {
            Some(endpoint) => endpoint.clone(),
            None if reach.is_here() => Endpoint::Default,
            None => Endpoint::There(There { host: host.clone(), reach: reach.clone() }),
        };
        Ok(Arc::new(ContainerEngine::new(kind, endpoint, runtime, options, Environment::of_process())?))
    };
    let command = |kind| -> EngineHandle {
        Ok(Arc::new(Command::new(kind, spec.runtime.as_deref(), &spec.options, reach.clone())?))
    };
    match spec.kind {
        EngineKind::Native => Ok(Arc::new(Native::new(reach.clone()))),
        EngineKind::BuiltIn => Ok(Arc::new(BuiltIn::new(&spec.options, reach.clone())?)),
        EngineKind::Oci => command(CommandKind::Oci),
        EngineKind::Bubblewrap => command(CommandKind::Bubblewrap),
        EngineKind::Nspawn => command(CommandKind::Nspawn),
        EngineKind::Apptainer => command(CommandKind::Apptainer),
        EngineKind::Docker => container(Kind::Docker),
        EngineKind::Podman => container(Kind::Podman),
        EngineKind::Scripted => match &spec.script {
            Some(script) => Ok(Arc::new(Scripted::open(script)?)),
            None => Err(Fault::new(Phase::Engine, "a scripted engine needs a `script`")),
        },
    }
}

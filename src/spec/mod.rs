//! `matrix.toml` → [`Matrix`], every name resolved. In: the text, the file's name, and a way to ask whether a path
//! exists. Out: the matrix, or every error at once, each with file, line, column and the names that would have been
//! right. Pure.

mod cells;
mod edit;
mod endpoint;
mod error;
mod host;
mod lists;
mod resolve;
mod terms;
mod toml_shape;
mod vm;

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use cells::{CellGlob, CellGlobError, Selection};
pub use edit::{NewWaiver, add_waiver};
pub use error::{SpecError, SpecErrors};
pub use lists::{Expanded, Files, expand};
pub(crate) use resolve::all_cells;
pub use resolve::resolve;
pub use terms::{CheckGlob, Profile, ProfileRule, Terms, Waiver, terms};
pub use vm::{Cgroup, DiskRecipe, Kernel, KernelPackage, Storage, VmSpec};

use crate::engine::EngineOptions;
use crate::engine::container::Endpoint;
use crate::id::{EngineId, HostId, ImageId};
use crate::image::Source;

/// A matrix with every name resolved.
#[derive(Debug, Clone, PartialEq)]
pub struct Matrix {
    /// What reports call it.
    pub name: String,
    /// What a run is compared with unless told otherwise.
    pub baseline: Option<String>,
    /// How long, how often, how many.
    pub defaults: Defaults,
    /// In the order of the file.
    pub images: Vec<ImageSpec>,
    /// In the order of the file; never empty.
    pub hosts: Vec<HostSpec>,
    /// In the order of the file; never empty.
    pub engines: Vec<EngineSpec>,
    /// Registries that are reached in a way of their own.
    pub registries: Vec<RegistrySpec>,
    /// Combinations that are not wanted.
    pub excludes: Vec<Exclude>,
    /// What changes the catalogue's judgement.
    pub terms: Terms,
}

/// What holds for every cell.
#[derive(Debug, Clone, PartialEq)]
pub struct Defaults {
    /// Deadline of one attempt at a cell.
    pub timeout: Duration,
    /// Further attempts after a fault of the rig; never after a failure of the subject.
    pub retries: u32,
    /// Bytes of standard output and of standard error kept per attempt.
    pub output_cap: usize,
    /// Cells at a time on one host; default: its number of CPUs.
    pub parallel: Option<usize>,
    /// Whether the probes measure speed too.
    pub bench: bool,
}

impl Default for Defaults {
    fn default() -> Self {
        Self { timeout: Duration::from_secs(60), retries: 1, output_cap: 4 << 20, parallel: None, bench: false }
    }
}

/// An image as declared.
#[derive(Debug, Clone, PartialEq)]
pub struct ImageSpec {
    /// Its name.
    pub id: ImageId,
    /// Where it comes from; paths are absolute or relative to the working directory.
    pub source: Source,
    /// Whether its absence is a skip and not an error.
    pub optional: bool,
}

/// A registry as declared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistrySpec {
    /// As references name it: `docker.io`, `registry.example.org:5000`.
    pub host: String,
    /// Base URLs that are asked first, in order.
    pub mirrors: Vec<String>,
    /// Whether it may be talked to without TLS.
    pub insecure: bool,
}

/// A host as declared.
#[derive(Debug, Clone, PartialEq)]
pub struct HostSpec {
    /// Its name.
    pub id: HostId,
    /// How it is reached.
    pub kind: HostKind,
    /// Free key-value pairs for selection and rules.
    pub labels: std::collections::BTreeMap<String, String>,
    /// Cells at a time, where it differs from the defaults.
    pub parallel: Option<usize>,
}

impl HostSpec {
    /// This machine, as one declares it with a name only.
    pub(crate) fn local() -> Self {
        Self { id: HostId::reserved("local"), kind: HostKind::Local, labels: Default::default(), parallel: None }
    }
}

/// How a host is reached.
#[derive(Debug, Clone, PartialEq)]
pub enum HostKind {
    /// This machine.
    Local,
    /// By the user's own `ssh`.
    Ssh(SshSpec),
    /// By an engine there, and nothing else.
    Endpoint(Endpoint),
    /// A virtual machine that abicus starts itself.
    Vm(Box<VmSpec>),
}

/// A host over SSH.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SshSpec {
    /// `user@host`, an alias of the user's configuration, or `ssh://user@host:port`: what `ssh` takes.
    pub destination: String,
    /// A configuration to use instead of the user's.
    pub config: Option<PathBuf>,
}

impl HostKind {
    /// Why cells of such an engine cannot be on such a host, if they cannot.
    pub fn lacks(&self, engine: EngineKind) -> Option<&'static str> {
        match (self, engine) {
            (Self::Endpoint(_), EngineKind::Docker | EngineKind::Podman | EngineKind::Scripted) => None,
            (Self::Endpoint(_), _) => Some("an endpoint reaches docker or podman only, not the host they are on"),
            (Self::Local | Self::Ssh(_), _) | (_, EngineKind::Native | EngineKind::BuiltIn | EngineKind::Scripted) => {
                None
            }
            (Self::Vm(vm), _) if vm.disk.is_some() => None,
            (Self::Vm(_), _) => Some("this virtual machine is a kernel only: it has no disk with engines"),
        }
    }
}

/// An engine as declared.
#[derive(Debug, Clone, PartialEq)]
pub struct EngineSpec {
    /// Its name.
    pub id: EngineId,
    /// Which one.
    pub kind: EngineKind,
    /// The OCI runtime under it, where that can be chosen.
    pub runtime: Option<String>,
    /// What a scripted engine plays.
    pub script: Option<PathBuf>,
    /// Options in force for every cell of it.
    pub options: EngineOptions,
    /// Whether its absence is a skip and not an error.
    pub optional: bool,
    /// Cells at a time on one host, where it differs from the host's.
    pub parallel: Option<usize>,
}

/// The engines abicus drives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EngineKind {
    /// None: the probe runs straight on the host, one cell per host.
    Native,
    /// abicus' own, needs nothing installed.
    BuiltIn,
    /// Docker Engine, through its API.
    Docker,
    /// Podman, through its API.
    Podman,
    /// An OCI runtime by its command line, without a daemon.
    Oci,
    /// bubblewrap.
    Bubblewrap,
    /// systemd-nspawn.
    Nspawn,
    /// apptainer.
    Apptainer,
    /// Plays back captures and faults; for tests.
    Scripted,
}

impl EngineKind {
    /// Every kind, as written in `matrix.toml`.
    pub const NAMES: &[(&'static str, Self)] = &[
        ("native", Self::Native),
        ("built-in", Self::BuiltIn),
        ("docker", Self::Docker),
        ("podman", Self::Podman),
        ("oci", Self::Oci),
        ("bubblewrap", Self::Bubblewrap),
        ("nspawn", Self::Nspawn),
        ("apptainer", Self::Apptainer),
        ("scripted", Self::Scripted),
    ];

    /// Whether cells of this engine have an image.
    pub fn has_image(self) -> bool {
        match self {
            Self::Native => false,
            Self::BuiltIn | Self::Docker | Self::Podman | Self::Scripted => true,
            Self::Oci | Self::Bubblewrap | Self::Nspawn | Self::Apptainer => true,
        }
    }

    /// Whether it keeps images by reference, and pulls them.
    pub fn has_references(self) -> bool {
        match self {
            Self::Docker | Self::Podman => true,
            Self::Native | Self::BuiltIn | Self::Scripted => false,
            Self::Oci | Self::Bubblewrap | Self::Nspawn | Self::Apptainer => false,
        }
    }

    /// Whether an OCI runtime can be chosen under it.
    pub fn has_runtime(self) -> bool {
        match self {
            Self::Native | Self::BuiltIn | Self::Scripted => false,
            Self::Bubblewrap | Self::Nspawn | Self::Apptainer => false,
            Self::Docker | Self::Podman | Self::Oci => true,
        }
    }
}

impl std::fmt::Display for EngineKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = Self::NAMES.iter().find(|(_, kind)| kind == self).map_or("?", |(name, _)| name);
        f.pad(name)
    }
}

/// Combinations that are not wanted, and why.
#[derive(Debug, Clone, PartialEq)]
pub struct Exclude {
    /// Which.
    pub cells: CellGlob,
    /// Why, in the user's words.
    pub reason: String,
}

/// Where relative paths of a matrix start, and whether a path exists: the only two things about the world the resolver
/// asks.
pub struct World<'a> {
    /// The directory of `matrix.toml`.
    pub base: PathBuf,
    /// Whether this path exists.
    pub exists: &'a dyn Fn(&std::path::Path) -> bool,
}

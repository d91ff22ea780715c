//! The kinds of command: what each lacks, what it does unasked, and the argument line of a cell under it.
//!
//! In: a cell. Out: files and directories to make in the frame, the arguments. Pure. How they differ stands here and in
//! the file of each, with the version it was seen in.

use crate::engine::EngineOptions;
use crate::engine::builtin::abilities::{Identity, Maps};
use crate::engine::builtin::capabilities::Capabilities;
use crate::engine::builtin::policy::{HOSTNAME, PATH, Root};
use crate::engine::builtin::settings::{Manner, Settings, refused};
use crate::engine::options::Seccomp;
use crate::fault::Fault;

use super::quirks::Flavour;
use super::{apptainer, bubblewrap, nspawn, oci};

/// Which command line is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `runc`, `crun`, `youki`, `runsc` and others of their command line.
    Oci,
    /// `bwrap`: what flatpak runs programs with.
    Bubblewrap,
    /// `systemd-nspawn`.
    Nspawn,
    /// `apptainer`, once singularity: what high-performance clusters run images with.
    Apptainer,
}

/// All that one argument line is made from.
pub(super) struct Cell<'a> {
    pub(super) kind: Kind,
    pub(super) flavour: Flavour,
    pub(super) programs: &'a [String],
    pub(super) options: &'a EngineOptions,
    pub(super) settings: &'a Settings,
    pub(super) identity: &'a Identity,
    /// What the settings ask for and the host can give.
    pub(super) capabilities: Capabilities,
    /// The compiled seccomp profile.
    pub(super) filter: Option<&'a [u8]>,
    pub(super) root: &'a Root,
    /// Uid and gid of the program.
    pub(super) user: (u32, u32),
    /// Our directory on the host.
    pub(super) work: &'a str,
    /// Where the frame's tmpfs is; `root` in it is the cell's.
    pub(super) mount_point: &'a str,
    pub(super) payload: &'a str,
    /// Of this cell alone on this machine.
    pub(super) name: &'a str,
    pub(super) argv: &'a [String],
    /// Device nodes of the host that a privileged cell gets: path, mode with type, number.
    pub(super) host_devices: &'a [(String, u64, u64)],
    /// The options' devices in the same form, by their path in the cell.
    pub(super) devices: &'a [(String, u64, u64)],
    /// The host's resolv.conf, for cells with the host's network.
    pub(super) resolv_conf: &'a [u8],
}

/// What the command is started with.
#[derive(Debug, Default)]
pub(super) struct Line<'a> {
    /// Made in the frame's directory, in order.
    pub(super) dirs: Vec<String>,
    pub(super) files: Vec<(String, Vec<u8>)>,
    /// The first is the program's name.
    pub(super) argv: Vec<String>,
    pub(super) environment: Vec<String>,
    /// Whether the command loads a filter program from a descriptor.
    pub(super) filter: bool,
    /// Set before the command starts, which passes them on: number, soft, hard.
    pub(super) rlimits: &'a [(u64, u64, u64)],
}

pub(super) fn line<'a>(cell: &Cell<'a>) -> Result<Line<'a>, Fault> {
    match cell.kind {
        Kind::Oci => oci::line(cell),
        Kind::Bubblewrap => Ok(bubblewrap::line(cell)),
        Kind::Nspawn => Ok(nspawn::line(cell)),
        Kind::Apptainer => apptainer::line(cell),
    }
}

/// What the command itself may know.
pub(super) fn environment() -> Vec<String> {
    vec![format!("PATH={PATH}"), "LC_ALL=C.UTF-8".to_owned()]
}

impl Cell<'_> {
    pub(super) fn program(&self) -> String {
        self.programs.first().cloned().unwrap_or_default()
    }

    /// What the program in the cell finds, as docker gives it.
    pub(super) fn cell_environment(&self) -> [(&'static str, String); 3] {
        let home = if self.user.0 == 0 { "/root" } else { "/" };
        [("PATH", PATH.to_owned()), ("HOSTNAME", HOSTNAME.to_owned()), ("HOME", home.to_owned())]
    }

    /// Whether user ids are those of the host.
    pub(super) fn is_rooted(&self) -> bool {
        self.identity.maps == Maps::None
    }
}

const NO_CAPABILITIES: fn() -> Capabilities = || Capabilities(0);

impl Kind {
    /// In an error.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Oci => "an OCI runtime",
            Self::Bubblewrap => "bubblewrap",
            Self::Nspawn => "systemd-nspawn",
            Self::Apptainer => "apptainer",
        }
    }

    /// What is executed where the matrix does not say.
    pub(super) fn program(self) -> &'static str {
        match self {
            Self::Oci => "runc",
            Self::Bubblewrap => "bwrap",
            Self::Nspawn => "systemd-nspawn",
            Self::Apptainer => "apptainer",
        }
    }

    /// What it lacks, and what its cells have unasked.
    pub(in crate::engine) fn manner(self) -> Manner {
        let (lacks, capabilities, filters): (&'static [&'static str], fn() -> Capabilities, bool) = match self {
            Self::Oci => (&["platform"], Capabilities::docker, true),
            // bwrap(1): no capabilities unless they are added; no filter of its own.
            Self::Bubblewrap => (&["apparmor", "selinux", "platform"], NO_CAPABILITIES, false),
            // `--user` asks the image's own getent, which an image need not have.
            Self::Nspawn => (&["apparmor", "platform", "shm_size", "user"], nspawn::capabilities, false),
            Self::Apptainer => (&["apparmor", "selinux", "platform", "shm_size", "tmpfs"], NO_CAPABILITIES, false),
        };
        Manner { engine: self.name(), lacks, capabilities, filters }
    }

    /// Refuses what depends on more than an option's name.
    pub(in crate::engine) fn check(self, options: &EngineOptions) -> Result<(), Fault> {
        let lacks = |option: &str, why: &str, help: &str| {
            Err(refused(format!("option `{option}`: {} {why}", self.name())).hint(help))
        };
        match self {
            Self::Nspawn if matches!(options.seccomp, Some(Seccomp::Docker | Seccomp::Podman | Seccomp::File(_))) => {
                let why = "takes no profile: `default` is its own filter, `unconfined` is none";
                lacks("seccomp", why, "write one of these, or use docker, podman, an OCI runtime or bubblewrap")
            }
            Self::Oci | Self::Nspawn if options.selinux_label().is_some_and(is_part_of_a_label) => lacks(
                "selinux",
                "takes a whole label (`system_u:system_r:container_t:s0`) or `disable`, not a part of one",
                "write the whole label, or use docker or podman",
            ),
            Self::Apptainer if !options.devices.is_empty() => lacks(
                "devices",
                "binds all devices or none",
                "leave the option out, or use docker, podman or an OCI runtime",
            ),
            _ => Ok(()),
        }
    }

    /// Refuses what this host has no means for.
    pub(super) fn check_host(self, options: &EngineOptions, identity: &Identity) -> Result<(), Fault> {
        if self == Self::Nspawn && identity.maps != Maps::None {
            return Err(refused("systemd-nspawn needs root").hint("run abicus as root, or use bubblewrap or podman"));
        }
        let limited = [
            (options.memory.is_some(), "memory"),
            (options.pids_limit.is_some_and(|n| n >= 0), "pids_limit"),
            (options.cpus.is_some(), "cpus"),
        ];
        match (self.limits(identity), limited.iter().find(|(set, _)| *set)) {
            (Err(why), Some((_, name))) => {
                Err(refused(format!("option `{name}`: {why}")).hint("run abicus as root, or use podman"))
            }
            _ => Ok(()),
        }
    }

    /// Whether cells can have limits on memory, processes and CPU time, or why not.
    pub(super) fn limits(self, identity: &Identity) -> Result<(), &'static str> {
        // A runtime sets its limits itself, and may not where the control groups are another user's.
        if self.makes_groups() && identity.maps != Maps::None {
            return Err("an OCI runtime without root cannot set limits");
        }
        Ok(())
    }

    /// Whether the command makes the cell's control group itself; else the launcher does, around it.
    pub(super) fn makes_groups(self) -> bool {
        self == Self::Oci
    }

    /// How to get it.
    pub(super) fn install(self, name: &str) -> String {
        match self {
            Self::Oci => {
                format!(
                    "install it (Debian: runc, crun, runsc), or give the path of another as `runtime`, not `{name}`"
                )
            }
            Self::Bubblewrap => "install bubblewrap".to_owned(),
            Self::Nspawn => "install systemd-container".to_owned(),
            Self::Apptainer => "install apptainer (Debian has it in sid; else https://apptainer.org)".to_owned(),
        }
    }

    /// What to do where a first cell does not start.
    pub(super) fn advice(self) -> &'static str {
        match self {
            Self::Oci => "try `runc run` by hand with the same runtime, run abicus as root, or use docker or podman",
            Self::Bubblewrap | Self::Apptainer => "run abicus as root, or use docker or podman",
            Self::Nspawn => "systemd-nspawn wants a host with systemd's control groups: use an OCI runtime instead",
        }
    }
}

/// Docker's and podman's words, which change a part of a label that only they make.
fn is_part_of_a_label(label: &str) -> bool {
    let key = label.split(':').next().unwrap_or_default();
    ["type", "level", "role", "user", "filetype"].contains(&key)
}

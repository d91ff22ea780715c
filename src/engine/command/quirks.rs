//! Where commands differ from their own specification or from one another. One place, each with the version it was seen in
//! and a source; how each words its errors is in [`said`](super::said).

use serde_json::Value;

use crate::engine::EngineOptions;
use crate::engine::options::Seccomp;

use super::line::Kind;

/// How OCI runtimes differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flavour {
    Crun,
    Runsc,
    Youki,
    /// runc, and whoever does as it does.
    Plain,
}

impl Flavour {
    pub(super) fn of(name: &str) -> Self {
        match name {
            "crun" => Self::Crun,
            "runsc" => Self::Runsc,
            "youki" => Self::Youki,
            _ => Self::Plain,
        }
    }

    /// What it is started with besides. youki 0.7 logs everything it does unless told otherwise, and the launcher reports
    /// the beginning of a log only: <https://github.com/youki-dev/youki>.
    pub(super) fn quietly(self) -> &'static [&'static str] {
        if self == Self::Youki { &["--log-level", "error"] } else { &[] }
    }

    /// Whether it brings a network stack of its own up, for which it wants an interface, unless it is told which network
    /// there is (runsc 2022, <https://gvisor.dev/docs/user_guide/networking/>). It also takes CAP_NET_RAW from every cell
    /// unless it is told not to (`--net-raw`: <https://github.com/google/gvisor/blob/master/runsc/config/flags.go>).
    pub(super) fn has_a_network_of_its_own(self) -> bool {
        self == Self::Runsc
    }

    /// Whether a deadline may be its own doing: youki 0.7 waits for ever for a program that ends before it has begun to
    /// wait: <https://github.com/youki-dev/youki>.
    pub(super) fn may_wait_for_ever(self) -> bool {
        self == Self::Youki
    }
}

/// What that looks like, for people.
pub(super) const WAITS_FOR_EVER: &str = "youki 0.7 waits for ever for a program that ends before it has begun to wait";

impl Kind {
    /// A directory of the host that the command must not see.
    pub(super) fn hides(self, flavour: Flavour) -> Option<&'static str> {
        match (self, flavour) {
            // crun 1.8 refuses a host with both hierarchies where version 2 has any controller:
            // https://github.com/containers/crun/blob/1.8.1/src/libcrun/cgroup.c (`libcrun_cgroup_enter`).
            (Self::Oci, Flavour::Crun) => Some("/sys/fs/cgroup/unified"),
            // systemd-nspawn 252 makes a directory there for every cell, and removes it from a tmpfs only:
            // https://github.com/systemd/systemd/blob/v252/src/nspawn/nspawn.c (`/run/systemd/nspawn`).
            (Self::Nspawn, _) => Some("/run/systemd"),
            _ => None,
        }
    }

    /// What of the options is accepted and comes to nothing, for people. gVisor has a kernel of its own, and looks at the
    /// profile of a bundle only with `--oci-seccomp`, which it is given where the matrix names a profile:
    /// <https://gvisor.dev/docs/user_guide/faq/>.
    pub(super) fn ignores(self, flavour: Flavour, options: &EngineOptions) -> Vec<String> {
        if (self, flavour) == (Self::Oci, Flavour::Runsc) && options.seccomp.is_none() {
            return vec!["gVisor applies no seccomp profile unless the option `seccomp` names one".to_owned()];
        }
        let named = matches!(options.seccomp, Some(Seccomp::Docker | Seccomp::Podman | Seccomp::File(_)));
        if self == Self::Apptainer && named {
            return vec!["apptainer answers EPERM where the seccomp profile names another error".to_owned()];
        }
        vec![]
    }

    /// A seccomp profile as the command takes it. apptainer 1.4 does not look at the errors that rules name, and refuses a
    /// rule whose action is the default then: what it is for is refused by the default too.
    /// <https://github.com/apptainer/apptainer/blob/v1.4.5/internal/pkg/security/seccomp/seccomp_supported.go>
    pub(super) fn adapt(self, profile: &mut Value) {
        let default = profile["defaultAction"].clone();
        if let (Self::Apptainer, Some(rules)) = (self, profile["syscalls"].as_array_mut()) {
            rules.retain(|rule| rule["action"] != default);
        }
    }

    /// What it exits with when its program was killed by SIGKILL. systemd-nspawn 252 exits with 255 then, which its manual
    /// does not say: <https://github.com/systemd/systemd/blob/v252/src/nspawn/nspawn.c>; the others do as shells do.
    pub(super) fn killed(self) -> i32 {
        match self {
            Self::Nspawn => 255,
            Self::Oci | Self::Bubblewrap | Self::Apptainer => 128 + 9,
        }
    }
}

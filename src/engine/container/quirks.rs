//! Where docker's and podman's APIs differ, or an engine does not do what its API says. One place, each with the version it
//! was seen in and a source.

use std::path::Path;

use bollard::models::HealthConfig;
use serde_json::Value;

/// Which of the two engines answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The Docker Engine.
    Docker,
    /// Podman's Docker-compatible API.
    Podman,
}

impl Kind {
    /// The engine's name, as the matrix writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Podman => "podman",
        }
    }

    /// Whether `/wait` can be used. Podman 4.3's polls by itself, takes 220–420 ms and 335–560 ms of CPU where inspecting
    /// until the state settles takes 2 ms: <https://github.com/containers/podman/blob/v4.3.1/pkg/api/handlers/utils/containers.go>.
    pub(super) fn waits(self) -> bool {
        self == Self::Docker
    }

    /// Whether the runtime can be chosen per container. Podman accepts `HostConfig.Runtime`, even one that does not exist,
    /// and uses its service's: <https://github.com/containers/podman/blob/v4.3.1/pkg/api/handlers/compat/containers_create.go>.
    pub(super) fn runtime_per_container(self) -> bool {
        self == Self::Docker
    }

    /// Whether a container without network is asked for by `NetworkDisabled`. On docker 20.10 that leaves out
    /// `libnetwork-setkey`, a re-execution of dockerd that is 45 % of the CPU of a cell:
    /// <https://github.com/moby/moby/blob/v20.10.24/daemon/oci_linux.go> (`WithLibnetwork`). The container still has a
    /// network namespace with its loopback up, but docker leaves `/etc/hosts` empty then, so abicus brings one. Podman
    /// writes `/etc/hosts` itself.
    pub(super) fn disables_network(self) -> bool {
        self == Self::Docker
    }

    /// Whether a service of root must be told limits it can set itself. Podman's default is `nofile=1048576`, whatever the
    /// service may: <https://github.com/containers/common/blob/v0.49.1/pkg/config/default.go>. Docker asks for none.
    pub(super) fn asks_for_limits(self) -> bool {
        self == Self::Podman
    }

    /// Whether the `seccomp=` security option takes a profile itself. The docker daemon takes the JSON (its command line reads
    /// the file): <https://docs.docker.com/engine/security/seccomp/>. Podman's service opens a path on its own machine:
    /// <https://github.com/containers/podman/blob/v4.3.1/pkg/specgen/generate/config_linux_seccomp.go>.
    pub(super) fn takes_profiles(self) -> bool {
        self == Self::Docker
    }

    /// Whether the out-of-memory flag can be believed when it is not set: podman 4.3 on cgroup v1 says 137 and `false`.
    pub(super) fn reports_out_of_memory(self) -> bool {
        self == Self::Docker
    }

    /// States in which the program has ended and the exit code is final. Podman says `stopped` between the end of the
    /// program and its own clean-up, a word docker's API does not have:
    /// <https://github.com/containers/podman/blob/v4.3.1/libpod/define/containerstate.go>.
    pub(super) fn has_ended(self, status: &str) -> bool {
        matches!((self, status), (_, "exited" | "dead") | (Self::Podman, "stopped"))
    }
}

/// Flags a runtime needs under podman. runsc refuses a container without network in the network namespace podman made for it
/// ("network enabled in root network namespace"): <https://gvisor.dev/docs/user_guide/networking/>.
pub(super) fn runtime_flags(runtime: &str, isolated: bool) -> &'static [&'static str] {
    let name = Path::new(runtime).file_name().unwrap_or_default();
    if name == "runsc" && isolated { &["network=none"] } else { &[] }
}

/// What makes a container have no health check, by the version of podman's own API. Podman 3 reads it as if it stood on its
/// command line, where `NONE` is a command and a number that is left out is too small:
/// <https://github.com/containers/podman/blob/v3.0.1/cmd/podman/common/create_opts.go>.
pub(super) fn no_health_check(libpod: Option<&str>) -> HealthConfig {
    let test = |word: &str| Some(vec![word.to_owned()]);
    if libpod.is_some_and(|version| version.starts_with("3.")) {
        const SECOND: i64 = 1_000_000_000;
        HealthConfig { test: test("none"), retries: Some(1), timeout: Some(SECOND), ..HealthConfig::default() }
    } else {
        HealthConfig { test: test("NONE"), ..HealthConfig::default() }
    }
}

/// The version of podman's own API, where the answer to `/version` is podman's. Its paths need one; docker's do not:
/// <https://docs.podman.io/en/v4.3/_static/api.html>.
pub(super) fn libpod_version(version: &Value) -> Option<&str> {
    let parts = version["Components"].as_array()?;
    let podman = parts.iter().find(|p| p["Name"].as_str().is_some_and(|n| n.contains("Podman")))?;
    let text = podman["Details"]["APIVersion"].as_str()?;
    text.chars().all(|c| c.is_ascii_digit() || c == '.').then_some(text)
}

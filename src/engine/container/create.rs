//! The container a cell asks for.
//!
//! In: a job, the engine's options, how the payload gets in. Out: the body of `POST /containers/create`. Pure but for the
//! types of the API: what differs between the engines is asked of [`Kind`].

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use bollard::models::{
    ContainerCreateBody, DeviceMapping, HealthConfig, HostConfig, HostConfigLogConfig, Mount, MountType,
    ResourcesUlimits,
};

use crate::engine::builtin::seccomp::{DOCKER_DEFAULT, PODMAN_DEFAULT};
use crate::engine::options::{EngineOptions, Seccomp};
use crate::engine::{CELL_LABEL, Job, PAYLOAD_DIR, RUN_LABEL};
use crate::fault::{Fault, Phase};

use super::quirks::{Kind, no_health_check};

/// Names of the loopback, as docker writes them for a container without a network.
pub(super) const HOSTS: &str = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n";

/// Largest seccomp profile read.
const MAX_PROFILE: u64 = 4 << 20;

/// How the payload gets into a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Delivery {
    /// The engine sees this machine's files: read-only bind mounts of the payload and of a hosts file.
    Bind { hosts: PathBuf },
    /// The engine does not: a tar file is unpacked into the container's own layer.
    Upload,
}

/// What every container of one engine has in common.
#[derive(Debug, Clone)]
pub(super) struct Template {
    pub(super) kind: Kind,
    pub(super) runtime: Option<String>,
    pub(super) options: EngineOptions,
    /// Limits the engine must be told because it cannot raise its own: see `service`.
    pub(super) ulimits: Vec<(String, i64, i64)>,
    /// Value of the `seccomp=` security option, where there is one.
    pub(super) seccomp: Option<String>,
    /// A profile in JSON that the engine wants as a file where it is.
    pub(super) profile: Option<String>,
    /// The image's own health check would run beside the probe.
    pub(super) no_health_check: HealthConfig,
}

impl Template {
    /// Reads what the options refer to.
    pub(super) fn new(kind: Kind, runtime: Option<String>, options: EngineOptions) -> Result<Self, Fault> {
        let (mut seccomp, mut profile) = (None, None);
        let json = match &options.seccomp {
            None | Some(Seccomp::Default) => None,
            Some(Seccomp::Unconfined) => {
                seccomp = Some("unconfined".to_owned());
                None
            }
            Some(Seccomp::Docker) => Some(DOCKER_DEFAULT.to_owned()),
            Some(Seccomp::Podman) => Some(PODMAN_DEFAULT.to_owned()),
            Some(Seccomp::File(path)) => Some(read_profile(path)?),
        };
        if let Some(json) = json {
            *(if kind.takes_profiles() { &mut seccomp } else { &mut profile }) = Some(json);
        }
        let no_health_check = no_health_check(None);
        Ok(Self { kind, runtime, options, ulimits: vec![], seccomp, profile, no_health_check })
    }

    /// Whether containers have a loopback and nothing else.
    pub(super) fn isolated(&self) -> bool {
        self.options.network.as_deref().is_none_or(|n| n == "none")
    }

    /// Whether docker is asked for no network at all; then its `/etc/hosts` is empty and abicus brings one. A read-only
    /// root cannot be written to, so there docker is left to make its own.
    pub(super) fn brings_hosts(&self, delivery: &Delivery) -> bool {
        self.kind.disables_network()
            && self.isolated()
            && (matches!(delivery, Delivery::Bind { .. }) || !self.options.read_only)
    }

    /// The container of one job.
    pub(super) fn body(&self, job: &Job, image: &str, delivery: &Delivery) -> ContainerCreateBody {
        let mut body = self.bare(image, &job.argv);
        body.labels = Some(HashMap::from([
            (RUN_LABEL.to_owned(), job.run.to_string()),
            (CELL_LABEL.to_owned(), job.cell.to_string()),
        ]));
        body.network_disabled = self.brings_hosts(delivery).then_some(true);
        if let Some(host) = &mut body.host_config {
            host.mounts = Some(self.mounts(&job.payload.dir, delivery));
        }
        body
    }

    /// Mounts that bring the payload, and what it needs.
    pub(super) fn mounts(&self, payload: &Path, delivery: &Delivery) -> Vec<Mount> {
        match delivery {
            Delivery::Bind { hosts } => {
                let mut mounts = vec![bind(payload, PAYLOAD_DIR)];
                if self.brings_hosts(delivery) {
                    mounts.push(bind(hosts, "/etc/hosts"));
                }
                mounts
            }
            // A read-only root refuses an upload, a volume in it does not; the volume goes when the container does.
            Delivery::Upload if self.options.read_only => {
                vec![Mount { target: Some(PAYLOAD_DIR.to_owned()), typ: Some(MountType::VOLUME), ..Mount::default() }]
            }
            Delivery::Upload => vec![],
        }
    }

    /// A container with the options but neither labels nor mounts.
    pub(super) fn bare(&self, image: &str, argv: &[String]) -> ContainerCreateBody {
        let (program, arguments) = argv.split_at(argv.len().min(1));
        ContainerCreateBody {
            image: Some(image.to_owned()),
            entrypoint: Some(program.to_vec()),
            cmd: Some(arguments.to_vec()),
            user: self.options.user.clone(),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            healthcheck: Some(self.no_health_check.clone()),
            host_config: Some(self.host_config()),
            ..ContainerCreateBody::default()
        }
    }

    fn host_config(&self) -> HostConfig {
        let options = &self.options;
        let some = |list: Vec<String>| if list.is_empty() { None } else { Some(list) };
        let memory = options.memory.map(|m| i64::try_from(m.0).unwrap_or(i64::MAX));
        HostConfig {
            network_mode: Some(options.network.clone().unwrap_or_else(|| "none".to_owned())),
            runtime: self.runtime.clone().filter(|_| self.kind.runtime_per_container()),
            // The attached stream is all that is read: a log on the engine's disk would only fill it.
            log_config: Some(HostConfigLogConfig { typ: Some("none".to_owned()), config: None }),
            privileged: options.privileged.then_some(true),
            cap_add: some(options.capabilities.add.iter().map(|c| capability(c)).collect()),
            cap_drop: some(options.capabilities.drop.iter().map(|c| capability(c)).collect()),
            security_opt: some(self.security_options()),
            userns_mode: options.userns.clone(),
            readonly_rootfs: options.read_only.then_some(true),
            tmpfs: (!options.tmpfs.is_empty()).then(|| options.tmpfs.iter().map(|t| tmpfs(t)).collect()),
            shm_size: options.shm_size.map(|s| i64::try_from(s.0).unwrap_or(i64::MAX)),
            ulimits: self.ulimit_list(),
            devices: (!options.devices.is_empty()).then(|| options.devices.iter().map(|d| device(d)).collect()),
            pids_limit: options.pids_limit,
            memory,
            // Without this docker and podman add as much swap again.
            memory_swap: memory,
            nano_cpus: options.cpus.map(|c| i64::try_from(c.nano).unwrap_or(i64::MAX)),
            ..HostConfig::default()
        }
    }

    fn security_options(&self) -> Vec<String> {
        let mut list = vec![];
        list.extend(self.seccomp.as_ref().map(|s| format!("seccomp={s}")));
        list.extend(self.options.apparmor.as_ref().map(|a| format!("apparmor={a}")));
        list.extend(self.options.selinux.as_ref().map(|s| format!("label={s}")));
        list
    }

    fn ulimit_list(&self) -> Option<Vec<ResourcesUlimits>> {
        let asked = self.options.ulimits.iter().map(|(name, l)| (name.clone(), l.soft, l.hard));
        let forced = self.ulimits.iter().filter(|(name, ..)| !self.options.ulimits.contains_key(name)).cloned();
        let list: Vec<_> = asked
            .chain(forced)
            .map(|(name, soft, hard)| ResourcesUlimits { name: Some(name), soft: Some(soft), hard: Some(hard) })
            .collect();
        (!list.is_empty()).then_some(list)
    }
}

fn bind(source: &Path, target: &str) -> Mount {
    // Not `Binds`: the daemon creates a missing source of those, on whichever machine it runs.
    Mount {
        typ: Some(MountType::BIND),
        source: Some(source.to_string_lossy().into_owned()),
        target: Some(target.to_owned()),
        read_only: Some(true),
        ..Mount::default()
    }
}

fn read_profile(path: &Path) -> Result<String, Fault> {
    let wrong = |why: String| Fault::new(Phase::Engine, format!("seccomp profile {}: {why}", path.display()));
    let size = std::fs::metadata(path).map_err(|e| wrong(e.to_string()))?.len();
    if size > MAX_PROFILE {
        return Err(wrong(format!("{size} bytes are more than a profile has")));
    }
    let json = std::fs::read_to_string(path).map_err(|e| wrong(e.to_string()))?;
    let value: serde_json::Value = serde_json::from_str(&json).map_err(|e| wrong(format!("not JSON: {e}")))?;
    if value.get("defaultAction").is_none() {
        return Err(wrong("has no `defaultAction`, so it is no seccomp profile".to_owned()));
    }
    Ok(json)
}

fn capability(name: &str) -> String {
    let upper = name.to_ascii_uppercase();
    upper.strip_prefix("CAP_").unwrap_or(&upper).to_owned()
}

fn tmpfs(text: &str) -> (String, String) {
    let (path, options) = text.split_once(':').unwrap_or((text, ""));
    (path.to_owned(), options.to_owned())
}

fn device(text: &str) -> DeviceMapping {
    let mut parts = text.splitn(3, ':');
    let host = parts.next().unwrap_or_default().to_owned();
    let second = parts.next();
    let third = parts.next();
    // As docker's command line reads it: `/dev/x:rw` gives permissions, `/dev/x:/dev/y` a path.
    let is_path = second.is_some_and(|s| s.starts_with('/'));
    let (inside, permissions) = if is_path { (second, third) } else { (None, second) };
    DeviceMapping {
        path_in_container: Some(inside.map_or_else(|| host.clone(), str::to_owned)),
        cgroup_permissions: Some(permissions.unwrap_or("rwm").to_owned()),
        path_on_host: Some(host),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::options::{Capabilities, Cpus, Size, Ulimit};

    fn template(kind: Kind, options: EngineOptions) -> Template {
        Template::new(kind, Some("crun".to_owned()), options).unwrap()
    }

    fn host_config(template: &Template) -> HostConfig {
        template.bare("image", &["/.abicus/kernel".to_owned(), "run".to_owned()]).host_config.unwrap()
    }

    #[test]
    fn nothing_asked_for_means_no_network_no_log_and_the_engines_own_defaults() {
        let host = host_config(&template(Kind::Docker, EngineOptions::default()));
        assert_eq!(host.network_mode.as_deref(), Some("none"));
        assert_eq!(host.log_config.unwrap().typ.as_deref(), Some("none"));
        assert_eq!((host.security_opt, host.privileged, host.memory, host.auto_remove), (None, None, None, None));
    }

    #[test]
    fn every_option_reaches_the_engine() {
        let host = host_config(&template(
            Kind::Docker,
            EngineOptions {
                seccomp: Some(Seccomp::Unconfined),
                privileged: true,
                capabilities: Capabilities { add: vec!["cap_sys_admin".into()], drop: vec!["ALL".into()] },
                apparmor: Some("mine".into()),
                selinux: Some("disable".into()),
                userns: Some("host".into()),
                network: Some("bridge".into()),
                read_only: true,
                tmpfs: vec!["/tmp:size=1m".into(), "/run".into()],
                shm_size: Some(Size(1024)),
                ulimits: [("nofile".to_owned(), Ulimit { soft: 1, hard: 2 })].into(),
                devices: vec!["/dev/fuse".into(), "/dev/a:/dev/b:r".into(), "/dev/c:rw".into()],
                pids_limit: Some(7),
                memory: Some(Size(2048)),
                cpus: Some(Cpus { nano: 5 }),
                platform: None,
                user: None,
            },
        ));
        assert_eq!(host.security_opt.unwrap(), ["seccomp=unconfined", "apparmor=mine", "label=disable"]);
        assert_eq!((host.cap_add.unwrap(), host.cap_drop.unwrap()), (vec!["SYS_ADMIN".into()], vec!["ALL".into()]));
        assert_eq!((host.privileged, host.readonly_rootfs), (Some(true), Some(true)));
        assert_eq!((host.userns_mode.as_deref(), host.network_mode.as_deref()), (Some("host"), Some("bridge")));
        let tmpfs = host.tmpfs.unwrap();
        assert_eq!((tmpfs["/tmp"].as_str(), tmpfs["/run"].as_str()), ("size=1m", ""));
        assert_eq!((host.shm_size, host.pids_limit), (Some(1024), Some(7)));
        assert_eq!((host.memory, host.memory_swap, host.nano_cpus), (Some(2048), Some(2048), Some(5)));
        assert_eq!(host.ulimits.unwrap()[0].hard, Some(2));
        let devices: Vec<_> = host
            .devices
            .unwrap()
            .into_iter()
            .map(|d| (d.path_on_host.unwrap(), d.path_in_container.unwrap(), d.cgroup_permissions.unwrap()))
            .collect();
        let expected = [("/dev/fuse", "/dev/fuse", "rwm"), ("/dev/a", "/dev/b", "r"), ("/dev/c", "/dev/c", "rw")];
        assert_eq!(devices, expected.map(|(a, b, c)| (a.to_owned(), b.to_owned(), c.to_owned())));
    }

    #[test]
    fn the_runtime_is_asked_of_docker_only_because_podman_ignores_it() {
        assert_eq!(host_config(&template(Kind::Docker, EngineOptions::default())).runtime.as_deref(), Some("crun"));
        assert_eq!(host_config(&template(Kind::Podman, EngineOptions::default())).runtime, None);
    }

    #[test]
    fn the_limits_the_engine_cannot_raise_give_way_to_those_asked_for() {
        let asked = [("nofile".to_owned(), Ulimit { soft: 9, hard: 9 })];
        let mut template = template(Kind::Podman, EngineOptions { ulimits: asked.into(), ..Default::default() });
        template.ulimits = vec![("nofile".into(), 1, 1), ("nproc".into(), 2, 2)];
        let mut limits: Vec<_> =
            host_config(&template).ulimits.unwrap().into_iter().map(|l| (l.name, l.soft)).collect();
        limits.sort();
        assert_eq!(limits, [(Some("nofile".into()), Some(9)), (Some("nproc".into()), Some(2))]);
    }

    #[test]
    fn a_seccomp_profile_that_is_none_is_refused_with_its_path() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("profile.json");
        let attempt = |text: Option<&str>| {
            if let Some(text) = text {
                std::fs::write(&path, text).unwrap();
            }
            let options = EngineOptions { seccomp: Some(Seccomp::File(path.clone())), ..Default::default() };
            Template::new(Kind::Docker, None, options)
        };
        for (text, why) in [(None, "No such file"), (Some("{"), "not JSON"), (Some("{}"), "defaultAction")] {
            let cause = attempt(text).unwrap_err().cause;
            assert!(cause.contains("profile.json") && cause.contains(why), "{cause}");
        }
        let json = r#"{"defaultAction":"SCMP_ACT_ALLOW"}"#;
        let security = host_config(&attempt(Some(json)).unwrap()).security_opt.unwrap();
        assert_eq!(security, [format!("seccomp={json}")]);
    }
}

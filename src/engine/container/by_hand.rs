//! The command line a person would type for a cell of docker or podman.
//!
//! In: what the matrix says of the engine, the image, the payload. Out: words for a shell. Pure but for the limits of this
//! process, which podman has to be told where it cannot raise them.

use crate::engine::options::{EngineOptions, Seccomp};
use crate::engine::{Facts, PAYLOAD_DIR};
use crate::id::ImageId;

use super::quirks::Kind;
use super::{prepare, service};

/// Podman 4.3 as a command, unlike its service, starts its runtime with fewer processes allowed than it was started with
/// itself; a runtime that may not raise limits dies of more than that.
const MOST_PROCESSES: i64 = 30_000;

/// `docker run … IMAGE …`. `image` are the image's facts as a run has them, `payload` the directory with the probes.
pub fn by_hand(
    kind: Kind,
    runtime: Option<&str>,
    options: &EngineOptions,
    image: (&ImageId, &Facts),
    payload: &str,
    argv: &[String],
) -> Vec<String> {
    let mut words: Vec<String> = vec![kind.name().to_owned()];
    if let Some(runtime) = runtime.filter(|_| !kind.runtime_per_container()) {
        words.extend(["--runtime".to_owned(), runtime.to_owned()]);
    }
    words.extend(["run".to_owned(), "--rm".to_owned()]);
    if let Some(runtime) = runtime.filter(|_| kind.runtime_per_container()) {
        words.extend(["--runtime".to_owned(), runtime.to_owned()]);
    }
    words.extend(flags(kind, options));
    words.extend(["-v".to_owned(), format!("{payload}:{PAYLOAD_DIR}:ro")]);
    let (program, arguments) = argv.split_at(argv.len().min(1));
    words.push("--entrypoint".to_owned());
    words.extend_from_slice(program);
    let (id, facts) = image;
    let imported = facts.get("digest").filter(|_| facts.get("pull").is_none_or(|by| by != "engine"));
    words.push(match imported {
        Some(digest) => prepare::name_of(id.as_str(), digest),
        None => facts.get("reference").cloned().unwrap_or_else(|| id.to_string()),
    });
    words.extend_from_slice(arguments);
    words
}

/// The options of an engine as its command line spells them.
fn flags(kind: Kind, options: &EngineOptions) -> Vec<String> {
    let mut words = vec![];
    let mut flag = |name: &str, value: String| words.extend([format!("--{name}"), value]);
    flag("network", options.network.clone().unwrap_or_else(|| "none".to_owned()));
    match &options.seccomp {
        None | Some(Seccomp::Default) => {}
        Some(Seccomp::Docker) if kind == Kind::Docker => {}
        // Where containers-common has it, and the name that moby has for its own.
        Some(Seccomp::Podman) => flag("security-opt", "seccomp=/usr/share/containers/seccomp.json".to_owned()),
        Some(Seccomp::Docker) => flag("security-opt", "seccomp=profiles/seccomp/default.json".to_owned()),
        Some(seccomp) => flag("security-opt", format!("seccomp={}", String::from(seccomp.clone()))),
    }
    for (option, value) in [("apparmor", &options.apparmor), ("label", &options.selinux)] {
        if let Some(value) = value {
            flag("security-opt", format!("{option}={value}"));
        }
    }
    options.capabilities.add.iter().for_each(|name| flag("cap-add", name.clone()));
    options.capabilities.drop.iter().for_each(|name| flag("cap-drop", name.clone()));
    options.tmpfs.iter().for_each(|mount| flag("tmpfs", mount.clone()));
    options.devices.iter().for_each(|device| flag("device", device.clone()));
    let mut limits: Vec<(String, i64, i64)> =
        options.ulimits.iter().map(|(name, limit)| (name.clone(), limit.soft, limit.hard)).collect();
    if kind == Kind::Podman {
        let own = service::own_limits().into_iter().filter(|(name, ..)| !options.ulimits.contains_key(name));
        limits.extend(own.map(|(name, soft, hard)| match name.as_str() {
            "nproc" => (name, soft.min(MOST_PROCESSES), hard.min(MOST_PROCESSES)),
            _ => (name, soft, hard),
        }));
    }
    limits.into_iter().for_each(|(name, soft, hard)| flag("ulimit", format!("{name}={soft}:{hard}")));
    let texts = [("userns", &options.userns), ("platform", &options.platform), ("user", &options.user)];
    for (name, value) in texts {
        if let Some(value) = value {
            flag(name, value.clone());
        }
    }
    if let Some(size) = options.shm_size {
        flag("shm-size", size.0.to_string());
    }
    if let Some(memory) = options.memory {
        flag("memory", memory.0.to_string());
        flag("memory-swap", memory.0.to_string());
    }
    if let Some(pids) = options.pids_limit {
        flag("pids-limit", pids.to_string());
    }
    if let Some(cpus) = options.cpus {
        flag("cpus", format!("{:.2}", cpus.nano as f64 / 1e9));
    }
    for (on, name) in [(options.privileged, "--privileged"), (options.read_only, "--read-only")] {
        if on {
            words.push(name.to_owned());
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_option_is_a_flag() {
        let text = r#"
            seccomp = "hole.json"
            privileged = true
            capabilities = { add = ["NET_ADMIN"], drop = ["CHOWN"] }
            apparmor = "mine"
            selinux = "disable"
            userns = "host"
            network = "host"
            read_only = true
            tmpfs = ["/tmp:size=1m"]
            shm_size = "1MiB"
            ulimits = { nofile = { soft = 64, hard = 128 } }
            devices = ["/dev/fuse"]
            pids_limit = 20
            memory = "64MiB"
            cpus = 0.5
            platform = "linux/amd64"
            user = "1000"
        "#;
        let options: EngineOptions = toml::from_str(text).unwrap();
        let facts = Facts::from([("digest".to_owned(), format!("sha256:{}", "ab".repeat(32)))]);
        let image = "debian-12".parse().unwrap();
        let argv = ["/.abicus/kernel".to_owned(), "run".to_owned()];
        let words = by_hand(Kind::Docker, Some("crun"), &options, (&image, &facts), "/payload", &argv).join(" ");
        assert_eq!(
            words,
            "docker run --rm --runtime crun --network host --security-opt seccomp=hole.json --security-opt apparmor=mine \
             --security-opt label=disable --cap-add NET_ADMIN --cap-drop CHOWN --tmpfs /tmp:size=1m --device /dev/fuse \
             --ulimit nofile=64:128 --userns host --platform linux/amd64 --user 1000 --shm-size 1048576 \
             --memory 67108864 --memory-swap 67108864 --pids-limit 20 --cpus 0.50 --privileged --read-only \
             -v /payload:/.abicus:ro --entrypoint /.abicus/kernel abicus-cache/debian-12:abababababab run"
        );
        assert_eq!(options.set().len(), 17, "an option was added: give it a flag");
        let pulled = [("reference", "debian:12"), ("pull", "engine"), ("digest", "sha256:ab")];
        let pulled = Facts::from(pulled.map(|(name, value)| (name.to_owned(), value.to_owned())));
        let words = by_hand(Kind::Docker, None, &options, (&image, &pulled), "/payload", &argv);
        assert!(words.contains(&"debian:12".to_owned()), "{words:?}");
    }
}

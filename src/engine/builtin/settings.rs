//! The options of the matrix in the built-in engine's terms: checked once, when the engine is made.
//!
//! In: [`EngineOptions`]. Out: [`Settings`], or what is wrong and what would be right. What this engine cannot do is
//! refused here and never ignored. Pure, but for the text of a profile, which it is given.

use super::capabilities::Capabilities;
use super::cgroup::Limits;
use super::seccomp::{Profile, docker_default, podman_default};
use crate::engine::options::{EngineOptions, Seccomp, Ulimit};
use crate::fault::{Fault, Phase};

/// How a cell is made.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) privileged: bool,
    /// None: no filter.
    pub(crate) seccomp: Option<Profile>,
    /// The same in words, for the fingerprint.
    pub(crate) seccomp_name: String,
    pub(crate) capabilities: Capabilities,
    pub(crate) userns: Userns,
    pub(crate) host_network: bool,
    pub(crate) read_only: bool,
    pub(crate) tmpfs: Vec<Tmpfs>,
    pub(crate) shm_size: u64,
    /// Number, soft, hard.
    pub(crate) ulimits: Vec<(u64, u64, u64)>,
    /// On the host, in the cell.
    pub(crate) devices: Vec<(String, String)>,
    pub(crate) limits: Limits,
    pub(crate) user: User,
}

/// Whether a cell has a user namespace of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Userns {
    /// Where there is no other way, which is for everyone but root.
    AsNeeded,
    Host,
    Private,
}

/// Who the program runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum User {
    Ids(u32, u32),
    /// To be looked up in the image.
    Named(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tmpfs {
    pub(crate) path: String,
    pub(crate) flags: u64,
    pub(crate) data: String,
}

const DEFAULT_SHM: u64 = 64 << 20;

/// How engines that take these options differ: in what they lack, and in what they do unasked.
pub(crate) struct Manner {
    /// In an error: `the built-in engine`.
    pub(crate) engine: &'static str,
    /// Options it has no means for.
    pub(crate) lacks: &'static [&'static str],
    /// What a cell gets that asks for nothing.
    pub(crate) capabilities: fn() -> Capabilities,
    /// Whether its default seccomp profile is docker's; else it is none of ours.
    pub(crate) filters: bool,
}

/// Docker's policy, without the parts that need a daemon.
pub(crate) const BUILT_IN: Manner = Manner {
    engine: "the built-in engine",
    lacks: &["apparmor", "selinux", "platform"],
    capabilities: Capabilities::docker,
    filters: true,
};

impl Settings {
    /// `profile` is the text of the profile file, where the options name one.
    pub(crate) fn new(options: &EngineOptions, profile: Option<&str>, manner: &Manner) -> Result<Self, Fault> {
        if let Some(name) = options.set().into_iter().find(|name| manner.lacks.contains(name)) {
            return Err(refused(format!("option `{name}`: {} cannot do that", manner.engine))
                .hint("leave the option out, or use an engine that has it (docker, podman)"));
        }
        let default = if options.privileged { Capabilities::ALL } else { (manner.capabilities)() };
        let capabilities = default.change(&options.capabilities.add, &options.capabilities.drop);
        let seccomp = profile_for(options, profile, manner)?;
        let seccomp_name = match (&options.seccomp, &seccomp) {
            (_, None) => "none".to_owned(),
            (Some(Seccomp::File(_)), Some(_)) => format!("profile {}", digest(profile.unwrap_or_default())),
            (Some(Seccomp::Podman), Some(_)) => "containers-common 0.50 default".to_owned(),
            (_, Some(_)) => "docker 20.10 default".to_owned(),
        };
        Ok(Self {
            privileged: options.privileged,
            seccomp,
            seccomp_name,
            capabilities: capabilities.map_err(|e| refused(format!("option `capabilities`: {e}")))?,
            userns: userns(options.userns.as_deref(), manner.engine)?,
            host_network: host_network(options.network.as_deref(), manner.engine)?,
            read_only: options.read_only,
            tmpfs: options.tmpfs.iter().map(|text| tmpfs(text)).collect::<Result<_, _>>()?,
            shm_size: options.shm_size.map_or(DEFAULT_SHM, |size| size.0),
            ulimits: options.ulimits.iter().map(|(name, limit)| ulimit(name, *limit)).collect::<Result<_, _>>()?,
            devices: options.devices.iter().map(|text| device(text)).collect::<Result<_, _>>()?,
            limits: Limits {
                memory: options.memory.map(|size| size.0),
                pids: options.pids_limit.and_then(|n| u64::try_from(n).ok()),
                nano_cpus: options.cpus.map(|cpus| cpus.nano),
            },
            user: user(options.user.as_deref())?,
        })
    }
}

/// Two profiles are the same when this is.
fn digest(profile: &str) -> String {
    blake3::hash(profile.as_bytes()).to_hex().chars().take(16).collect()
}

pub(crate) fn refused(cause: impl std::fmt::Display) -> Fault {
    Fault::new(Phase::Engine, cause)
}

fn profile_for(options: &EngineOptions, text: Option<&str>, manner: &Manner) -> Result<Option<Profile>, Fault> {
    let wrong = |e| refused(format!("option `seccomp`: {e}"));
    match (&options.seccomp, text) {
        (Some(Seccomp::Unconfined), _) => Ok(None),
        (Some(Seccomp::Docker), _) => docker_default().map(Some).map_err(wrong),
        (Some(Seccomp::Podman), _) => podman_default().map(Some).map_err(wrong),
        (None, _) if options.privileged => Ok(None),
        (None | Some(Seccomp::Default), _) if !manner.filters => Ok(None),
        (Some(Seccomp::File(path)), Some(text)) => {
            Profile::parse(text).map(Some).map_err(|e| refused(format!("option `seccomp`: {}: {e}", path.display())))
        }
        (Some(Seccomp::File(path)), None) => Err(refused(format!("option `seccomp`: {} was not read", path.display()))),
        (None | Some(Seccomp::Default), _) => docker_default().map(Some).map_err(wrong),
    }
}

fn userns(text: Option<&str>, engine: &str) -> Result<Userns, Fault> {
    match text {
        None => Ok(Userns::AsNeeded),
        Some("host") => Ok(Userns::Host),
        Some("private") => Ok(Userns::Private),
        Some(other) => Err(refused(format!("option `userns`: `{other}`: {engine} knows `host` and `private`"))),
    }
}

fn host_network(text: Option<&str>, engine: &str) -> Result<bool, Fault> {
    match text {
        None | Some("none") => Ok(false),
        Some("host") => Ok(true),
        Some(other) => Err(refused(format!("option `network`: `{other}`: {engine} knows `none` and `host`"))),
    }
}

/// A path inside the cell, which the launcher resolves inside the cell's root.
fn inside(option: &str, path: &str) -> Result<String, Fault> {
    let clean = path.starts_with('/') && path.len() > 1 && path.len() < 4000 && !path.contains('\0');
    if !clean || path.split('/').any(|part| part == "..") {
        return Err(refused(format!("option `{option}`: `{path}` is not an absolute path inside the cell")));
    }
    Ok(path.to_owned())
}

pub(crate) const MS_RDONLY: u64 = 1;
pub(crate) const MS_NOSUID: u64 = 2;
pub(crate) const MS_NODEV: u64 = 4;
pub(crate) const MS_NOEXEC: u64 = 8;

fn tmpfs(text: &str) -> Result<Tmpfs, Fault> {
    let (path, options) = text.split_once(':').unwrap_or((text, ""));
    let mut tmpfs =
        Tmpfs { path: inside("tmpfs", path)?, flags: MS_NOSUID | MS_NODEV | MS_NOEXEC, data: String::new() };
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option {
            "rw" => tmpfs.flags &= !MS_RDONLY,
            "ro" => tmpfs.flags |= MS_RDONLY,
            "suid" => tmpfs.flags &= !MS_NOSUID,
            "nosuid" => tmpfs.flags |= MS_NOSUID,
            "dev" => tmpfs.flags &= !MS_NODEV,
            "nodev" => tmpfs.flags |= MS_NODEV,
            "exec" => tmpfs.flags &= !MS_NOEXEC,
            "noexec" => tmpfs.flags |= MS_NOEXEC,
            data if ["size=", "mode=", "uid=", "gid=", "nr_inodes="].iter().any(|key| data.starts_with(key)) => {
                if !tmpfs.data.is_empty() {
                    tmpfs.data.push(',');
                }
                tmpfs.data.push_str(data);
            }
            other => {
                return Err(refused(format!("option `tmpfs`: `{other}` in `{text}` is not a mount option of tmpfs")));
            }
        }
    }
    Ok(tmpfs)
}

/// Names of resource limits in the order of their numbers.
pub(crate) const RLIMITS: [&str; 16] = [
    "cpu",
    "fsize",
    "data",
    "stack",
    "core",
    "rss",
    "nproc",
    "nofile",
    "memlock",
    "as",
    "locks",
    "sigpending",
    "msgqueue",
    "nice",
    "rtprio",
    "rttime",
];

fn ulimit(name: &str, limit: Ulimit) -> Result<(u64, u64, u64), Fault> {
    let Some(number) = RLIMITS.iter().position(|known| *known == name) else {
        return Err(refused(format!("option `ulimits`: `{name}` is none of {}", RLIMITS.join(", "))));
    };
    // RLIM_INFINITY is all ones, as is -1.
    Ok((number as u64, limit.soft as u64, limit.hard as u64))
}

fn device(text: &str) -> Result<(String, String), Fault> {
    let mut parts = text.split(':');
    let host = parts.next().unwrap_or_default();
    let cell = parts.next().unwrap_or(host);
    // Docker's third part is for the device cgroup, which this engine has not.
    if parts.any(|rights| !rights.chars().all(|c| "rwm".contains(c))) {
        return Err(refused(format!("option `devices`: `{text}` is not HOST[:CELL[:rwm]]")));
    }
    Ok((inside("devices", host)?, inside("devices", cell)?))
}

fn user(text: Option<&str>) -> Result<User, Fault> {
    let Some(text) = text else { return Ok(User::Ids(0, 0)) };
    let (user, group) = text.split_once(':').map_or((text, None), |(user, group)| (user, Some(group)));
    match (user.parse(), group.map(str::parse)) {
        (Ok(uid), Some(Ok(gid))) => Ok(User::Ids(uid, gid)),
        (Ok(uid), None) => Ok(User::Ids(uid, 0)),
        (Err(_), None) if !text.is_empty() && text.len() <= 64 => Ok(User::Named(text.to_owned())),
        _ => Err(refused(format!("option `user`: `{text}` is neither UID, UID:GID nor a name"))),
    }
}

/// Uid and gid of a name in the text of an image's `/etc/passwd`.
pub(crate) fn look_up(passwd: &str, name: &str) -> Option<(u32, u32)> {
    passwd.lines().find_map(|line| {
        let words: Vec<&str> = line.split(':').collect();
        let [found, _, uid, gid, ..] = words.as_slice() else { return None };
        (*found == name).then(|| Some((uid.parse().ok()?, gid.parse().ok()?))).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(toml: &str) -> Result<Settings, String> {
        let options: EngineOptions = toml::from_str(toml).unwrap();
        Settings::new(&options, None, &BUILT_IN).map_err(|fault| fault.cause)
    }

    #[test]
    fn no_options_mean_dockers_default_policy() {
        let s = settings("").unwrap();
        assert_eq!(s.capabilities, Capabilities::docker());
        assert!(s.seccomp.is_some() && !s.privileged && !s.host_network && !s.read_only);
        assert_eq!((s.shm_size, s.user), (64 << 20, User::Ids(0, 0)));
    }

    #[test]
    fn privileged_means_no_policy_unless_one_is_named() {
        let s = settings("privileged = true").unwrap();
        assert!(s.seccomp.is_none() && s.capabilities == Capabilities::ALL);
        assert!(settings("privileged = true\nseccomp = 'default'").unwrap().seccomp.is_some());
    }

    #[test]
    fn what_this_engine_cannot_do_is_refused_by_name() {
        for (toml, word) in [
            ("apparmor = 'x'", "apparmor"),
            ("selinux = 'disable'", "selinux"),
            ("platform = 'linux/arm64'", "platform"),
            ("network = 'bridge'", "bridge"),
            ("userns = 'keep-id'", "keep-id"),
            ("capabilities = { add = ['FLY'] }", "FLY"),
            ("ulimits = { wings = 2 }", "wings"),
            ("tmpfs = ['/../etc']", "/../etc"),
            ("tmpfs = ['/tmp:size=1m,lowerdir=/etc']", "lowerdir=/etc"),
            ("tmpfs = ['tmp']", "tmp"),
            ("devices = ['/dev/fuse:/dev/fuse:x']", "/dev/fuse:x"),
            ("user = '1:users'", "1:users"),
        ] {
            let error = settings(toml).unwrap_err();
            assert!(error.contains(word), "{toml}: {error}");
        }
    }

    #[test]
    fn tmpfs_options_are_dockers() {
        let s = settings("tmpfs = ['/tmp:size=64m,exec', '/run']").unwrap();
        assert_eq!(s.tmpfs[0], Tmpfs { path: "/tmp".into(), flags: MS_NOSUID | MS_NODEV, data: "size=64m".into() });
        assert_eq!(s.tmpfs[1].flags, MS_NOSUID | MS_NODEV | MS_NOEXEC);
    }

    #[test]
    fn limits_are_the_kernels_numbers() {
        let s = settings("ulimits = { nofile = { soft = 10, hard = -1 } }\nmemory = '32m'\npids_limit = -1").unwrap();
        assert_eq!(s.ulimits, [(7, 10, u64::MAX)]);
        assert_eq!((s.limits.memory, s.limits.pids), (Some(32 << 20), None));
    }

    #[test]
    fn names_are_looked_up_in_the_image() {
        let passwd = "root:x:0:0::/root:/bin/sh\nbroken\nnobody:x:65534:65533:::\nodd:x:a:b:::\n";
        assert_eq!(look_up(passwd, "nobody"), Some((65534, 65533)));
        assert_eq!(look_up(passwd, "odd"), None);
        assert_eq!(look_up(passwd, "nobod"), None);
        assert_eq!(settings("user = 'nobody'").unwrap().user, User::Named("nobody".into()));
    }
}

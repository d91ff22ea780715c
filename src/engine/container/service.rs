//! A podman service of abicus' own: on a private socket, with the runtime asked for, gone when the engine is.
//!
//! In: the runtime. Out: a socket. Podman has no daemon, and a service that is already there cannot be told which runtime to
//! use, so each runtime gets a service. Also here: which limits a service on this machine cannot raise.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};

use crate::fault::{Fault, Phase};

use super::api::Api;
use super::quirks;

/// How long a service may take to listen: the first one of a user sets up its storage.
const START: Duration = Duration::from_secs(30);
/// Idle seconds after which a service whose abicus was killed ends by itself.
const IDLE: &str = "300";
/// How often a service is asked something so that it is not idle.
const PULSE: Duration = Duration::from_secs(100);

/// Is there where systemd is the first process (sd_booted(3)).
pub(super) const SYSTEMD: &str = "/run/systemd/system";

/// What podman is told, up to where it listens; `idle` in seconds, 0 for ever.
pub(super) fn arguments(runtime: Option<&str>, isolated: bool, systemd: bool, idle: &str, socket: &str) -> Vec<String> {
    let mut words: Vec<&str> = vec![];
    if let Some(runtime) = runtime {
        words.extend(["--runtime", runtime]);
        words.extend(quirks::runtime_flags(runtime, isolated).iter().flat_map(|flag| ["--runtime-flag", flag]));
    }
    // Podman 3.0 asks systemd for a control group whether it is there or not: "cannot open sd-bus".
    if !systemd {
        words.push("--cgroup-manager=cgroupfs");
    }
    words.extend(["system", "service", "--time", idle]);
    words.into_iter().map(str::to_owned).chain([format!("unix://{socket}")]).collect()
}

/// A running service; dropping it ends it.
#[derive(Debug)]
pub(super) struct Service {
    child: Child,
    pulse: Option<tokio::task::AbortHandle>,
    dir: tempfile::TempDir,
}

impl Service {
    /// Starts podman's service and waits until it listens.
    pub(super) async fn start(runtime: Option<&str>, isolated: bool) -> Result<Self, Fault> {
        let wrong = |e: &dyn std::fmt::Display| Fault::new(Phase::Engine, format!("start a podman service: {e}"));
        let dir = tempfile::Builder::new().prefix("abicus-podman-").tempdir().map_err(|e| wrong(&e))?;
        let log = File::create(dir.path().join("log")).map_err(|e| wrong(&e))?;
        let socket = dir.path().join("podman.sock").display().to_string();
        let mut command = Command::new("podman");
        command.args(arguments(runtime, isolated, Path::new(SYSTEMD).exists(), IDLE, &socket));
        // In a process group of its own, so that Ctrl-C reaches abicus first and it can still clean up.
        command.process_group(0).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let child = command.spawn().map_err(|e| match e.kind() {
            ErrorKind::NotFound => Fault::new(Phase::Engine, "podman is not installed")
                .hint("install it (Debian: podman), or mark the engine `optional = true`"),
            _ => wrong(&e),
        })?;
        let mut service = Self { child, pulse: None, dir };
        service.listening().await?;
        Ok(service)
    }

    /// Where it listens.
    pub(super) fn socket(&self) -> PathBuf {
        self.dir.path().join("podman.sock")
    }

    /// Keeps it from ending while the engine is in use.
    pub(super) fn keep_alive(&mut self, api: Api) {
        let task = tokio::spawn(async move {
            loop {
                sleep(PULSE).await;
                let _ = api.get("/version").await;
            }
        });
        self.pulse = Some(task.abort_handle());
    }

    async fn listening(&mut self) -> Result<(), Fault> {
        let deadline = Instant::now() + START;
        loop {
            if UnixStream::connect(self.socket()).await.is_ok() {
                return Ok(());
            }
            let ended = self.child.try_wait().ok().flatten();
            if ended.is_some() || Instant::now() > deadline {
                let log = std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
                let how = ended.map_or_else(|| "it does not listen".to_owned(), |status| status.to_string());
                return Err(Fault::new(Phase::Engine, format!("podman system service: {how}: {log}"))
                    .hint("try `podman info`; as an ordinary user it needs ranges in /etc/subuid and /etc/subgid"));
            }
            sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if let Some(pulse) = &self.pulse {
            pulse.abort();
        }
        // Not killed: it removes its socket and what it holds.
        if let Some(pid) = self.child.id().and_then(|id| rustix::process::Pid::from_raw(id.cast_signed())) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
    }
}

/// CAP_SYS_RESOURCE, from `linux/capability.h`.
const SYS_RESOURCE: u32 = 24;

/// The limits a service of root cannot raise: podman asks for a million open files, and without CAP_SYS_RESOURCE (root in a
/// container or a hardened machine) its runtime dies in setrlimit. Empty where nothing stands in the way or nothing can be
/// learned: the other end may be another machine.
pub(super) fn fixed_limits(socket: &Path) -> Vec<(String, i64, i64)> {
    peer(socket).and_then(|pid| limits(&Path::new("/proc").join(pid.to_string()))).unwrap_or_default()
}

/// The same for what this process would start itself.
pub(super) fn own_limits() -> Vec<(String, i64, i64)> {
    limits(Path::new("/proc/self")).unwrap_or_default()
}

fn peer(socket: &Path) -> io::Result<i32> {
    let stream = std::os::unix::net::UnixStream::connect(socket)?;
    Ok(rustix::net::sockopt::socket_peercred(&stream)?.pid.as_raw_nonzero().get())
}

fn limits(process: &Path) -> io::Result<Vec<(String, i64, i64)>> {
    let read = |name: &str| std::fs::read_to_string(process.join(name));
    Ok(limits_of(&read("status")?, &read("limits")?))
}

/// The same from the text of a process' `status` and `limits`.
pub(super) fn limits_of(status: &str, limits: &str) -> Vec<(String, i64, i64)> {
    let field = |name: &str| status.lines().find_map(|l| l.strip_prefix(name)).unwrap_or_default().trim().to_owned();
    let capable = u64::from_str_radix(&field("CapEff:"), 16).is_ok_and(|set| set >> SYS_RESOURCE & 1 == 1);
    let root = field("Uid:").split_whitespace().nth(1) == Some("0");
    // Rootless podman knows that it may not, and asks for no more than it has.
    if capable || !root {
        return vec![];
    }
    let hard = |line: &str| -> Option<i64> {
        let fields: Vec<_> = limits.lines().find_map(|l| l.strip_prefix(line))?.split_whitespace().collect();
        let hard = fields.get(1)?;
        if *hard == "unlimited" { Some(-1) } else { hard.parse().ok() }
    };
    [("nofile", "Max open files"), ("nproc", "Max processes")]
        .into_iter()
        .filter_map(|(name, line)| hard(line).map(|limit| (name.to_owned(), limit, limit)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(uid: &str, capabilities: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let status = format!("Name:\tpodman\nUid:\t0\t{uid}\t0\t0\nCapEff:\t{capabilities}\n");
        std::fs::write(dir.path().join("status"), status).unwrap();
        let limits = "Limit                     Soft Limit           Hard Limit           Units     \n\
                      Max processes             96365                unlimited            processes \n\
                      Max open files            1024                 20000                files     \n";
        std::fs::write(dir.path().join("limits"), limits).unwrap();
        dir
    }

    #[test]
    fn root_without_the_capability_to_raise_limits_is_given_those_it_has() {
        let found = limits(process("0", "000001fffeffffff").path()).unwrap();
        assert_eq!(found, [("nofile".to_owned(), 20000, 20000), ("nproc".to_owned(), -1, -1)]);
    }

    #[test]
    fn a_service_that_can_raise_its_limits_or_knows_that_it_cannot_is_left_alone() {
        assert!(limits(process("0", "000001ffffffffff").path()).unwrap().is_empty());
        assert!(limits(process("1000", "0000000000000000").path()).unwrap().is_empty());
    }
}

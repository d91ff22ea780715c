//! dockerd and its containerd in a guest: started when somebody looks for its socket, waited for until it answers.
//!
//! In: an agent on a disk with engines. Out: a daemon that answers, or what it said last. It costs a guest without KVM half
//! a minute of its processors, which cells of other engines need not wait for. Podman needs no daemon of ours.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

use crate::engine::builtin::list::{List, stage};
use crate::fault::{Fault, Phase};
use crate::host::{Launched, Reach, Writer};

/// Where docker's own command line looks for it.
pub(super) const SOCKET: &str = "/var/run/docker.sock";
/// Where Debian's packages put programs.
pub(super) const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// A busy machine without KVM takes a minute; three are a daemon that hangs.
const PATIENCE: Duration = Duration::from_secs(180);
/// Bytes of its log kept.
const MAX_LOG: usize = 64 * 1024;

/// Where containerd listens by default.
const CONTAINERD: &str = "/run/containerd/containerd.sock";

type Log = Arc<Mutex<Vec<u8>>>;

/// Daemons that run until this is dropped.
pub(super) struct Daemon {
    log: Log,
    _services: [Service; 2],
}

/// Why there is none, and the end of what it said.
pub(super) struct NoDaemon {
    pub(super) fault: Fault,
    pub(super) log: Vec<u8>,
}

impl Daemon {
    /// Starts it and waits until it answers. dockerd gives a containerd of its own 15 s to start, which is not enough here,
    /// and waits a minute for one that is there.
    pub(super) async fn start(reach: &dyn Reach) -> Result<Self, NoDaemon> {
        let log = Log::default();
        let started = async {
            let mut containerd = Service::start(reach, &["containerd"], &log).await?;
            containerd.until(|| async { reach.connect(CONTAINERD).await.is_ok() }).await?;
            let mut dockerd = Service::start(reach, &DOCKERD, &log).await?;
            dockerd.until(|| answers(reach)).await?;
            Ok([containerd, dockerd])
        };
        match started.await {
            Ok(services) => Ok(Self { log, _services: services }),
            Err(fault) => Err(NoDaemon { fault, log: kept(&log) }),
        }
    }

    /// The end of what it said.
    pub(super) fn log(&self) -> Vec<u8> {
        kept(&self.log)
    }
}

fn kept(log: &Log) -> Vec<u8> {
    log.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// One program that does not end by itself.
struct Service {
    name: String,
    log: Log,
    /// Who reads what it says: nobody is left when it is gone.
    listeners: JoinSet<()>,
    _lifeline: Mutex<Writer>,
}

impl Service {
    async fn start(reach: &dyn Reach, argv: &[&str], log: &Log) -> Result<Self, Fault> {
        let argv: Vec<String> = argv.iter().map(|&word| word.to_owned()).collect();
        let name = argv.first().cloned().unwrap_or_default();
        let paths = ["/usr/sbin", "/usr/bin"].map(|dir| format!("{dir}/{name}"));
        let mut list = List::new();
        list.stage(stage::BEFORE).adopt().stage(stage::INSIDE).setsid().chdir("/").stdin("/dev/null");
        list.exec(&paths, &argv, &[PATH.to_owned(), "HOME=/root".to_owned()]);
        let list = list.finish().map_err(|e| Fault::new(Phase::Engine, e))?;
        let Launched { stdout, stderr, told, lifeline, .. } = reach.launch(&list).await?;
        let mut listeners = JoinSet::new();
        // Of what the launcher tells, only what went wrong before there was a program is worth keeping.
        for (mut stream, only) in [(stdout, &b""[..]), (stderr, b""), (told, b"setup")] {
            let log = log.clone();
            listeners.spawn(async move {
                let mut room = [0; 4096];
                while let Ok(n @ 1..) = stream.read(&mut room).await {
                    if !room.starts_with(only) {
                        continue;
                    }
                    let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
                    log.extend_from_slice(&room[..n]);
                    let over = log.len().saturating_sub(MAX_LOG);
                    log.drain(..over);
                }
            });
        }
        Ok(Self { name, log: log.clone(), listeners, _lifeline: Mutex::new(lifeline) })
    }

    /// Waits until it is ready, or gone, or hangs.
    async fn until<F: Future<Output = bool>>(&mut self, ready: impl Fn() -> F) -> Result<(), Fault> {
        let until = Instant::now() + PATIENCE;
        while !ready().await {
            if Instant::now() > until {
                return Err(self.fault(&format!("did not answer within {} s", PATIENCE.as_secs())));
            }
            let gone = async { while self.listeners.join_next().await.is_some() {} };
            if tokio::time::timeout(Duration::from_millis(250), gone).await.is_ok() {
                return Err(self.fault("ended"));
            }
        }
        Ok(())
    }

    fn fault(&self, what: &str) -> Fault {
        let log = String::from_utf8_lossy(&kept(&self.log)).into_owned();
        let lines: Vec<&str> = log.lines().collect();
        let end = lines[lines.len().saturating_sub(3)..].join(" | ");
        Fault::new(Phase::Engine, format!("{} {what}: {end}", self.name))
    }
}

/// Whether the API says more than that there is a socket.
async fn answers(reach: &dyn Reach) -> bool {
    let ask = async {
        let (mut reader, mut writer) = reach.connect(SOCKET).await.ok()?;
        writer.write_all(b"GET /_ping HTTP/1.0\r\n\r\n").await.ok()?;
        let mut start = [0; 12];
        reader.read_exact(&mut start).await.ok()?;
        start.ends_with(b" 200").then_some(())
    };
    tokio::time::timeout(Duration::from_secs(20), ask).await.is_ok_and(|answer| answer.is_some())
}

const DOCKERD: [&str; 8] = [
    "dockerd",
    "--containerd=/run/containerd/containerd.sock",
    // Nobody there speaks for control groups.
    "--exec-opt=native.cgroupdriver=cgroupfs",
    "--add-runtime=crun=/usr/bin/crun",
    "--storage-driver=overlay2",
    // Cells have no network unless the matrix asks for one, and making one takes half of the start.
    "--bridge=none",
    "--iptables=false",
    "--ip6tables=false",
];

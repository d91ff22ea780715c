//! dockerd in a guest: started when somebody looks for its socket, waited for until it answers.
//!
//! In: an agent on a disk with engines. Out: a daemon that answers, or what it said last. It costs a guest without KVM half
//! a minute of its processors, which cells of other engines need not wait for. Podman needs no daemon of ours.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

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

/// A daemon that runs until this is dropped.
pub(super) struct Daemon {
    log: Arc<Mutex<Vec<u8>>>,
    _lifeline: Mutex<Writer>,
}

impl Daemon {
    /// Starts it and waits until it answers.
    pub(super) async fn start(reach: &dyn Reach) -> Result<Self, Fault> {
        let list = list().finish().map_err(|e| Fault::new(Phase::Engine, e))?;
        let Launched { stdout, stderr, told, lifeline, .. } = reach.launch(&list).await?;
        let log = Arc::new(Mutex::new(vec![]));
        let mut listeners = tokio::task::JoinSet::new();
        for mut stream in [stdout, stderr, told] {
            let log = log.clone();
            listeners.spawn(async move {
                let mut room = [0; 4096];
                while let Ok(n @ 1..) = stream.read(&mut room).await {
                    let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
                    log.extend_from_slice(&room[..n]);
                    let over = log.len().saturating_sub(MAX_LOG);
                    log.drain(..over);
                }
            });
        }
        let daemon = Self { log, _lifeline: Mutex::new(lifeline) };
        let until = Instant::now() + PATIENCE;
        while !answers(reach).await {
            if Instant::now() > until {
                return Err(daemon.fault(&format!("dockerd did not answer within {} s", PATIENCE.as_secs())));
            }
            // Its last stream closes when it is gone.
            if tokio::time::timeout(Duration::from_millis(250), async {
                while listeners.join_next().await.is_some() {}
            })
            .await
            .is_ok()
            {
                return Err(daemon.fault("dockerd ended"));
            }
        }
        listeners.detach_all();
        Ok(daemon)
    }

    fn fault(&self, what: &str) -> Fault {
        let log = String::from_utf8_lossy(&self.log()).into_owned();
        let lines: Vec<&str> = log.lines().collect();
        Fault::new(Phase::Engine, format!("{what}: {}", lines[lines.len().saturating_sub(3)..].join(" | ")))
    }

    /// The end of what it said.
    pub(super) fn log(&self) -> Vec<u8> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
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

fn list() -> List {
    let argv = [
        "dockerd",
        // Nobody there speaks for control groups.
        "--exec-opt=native.cgroupdriver=cgroupfs",
        "--add-runtime=crun=/usr/bin/crun",
        "--storage-driver=overlay2",
    ];
    let paths = ["/usr/sbin/dockerd", "/usr/bin/dockerd"].map(str::to_owned);
    let mut list = List::new();
    list.stage(stage::BEFORE).adopt().stage(stage::INSIDE).setsid().chdir("/").stdin("/dev/null");
    list.exec(&paths, &argv.map(str::to_owned), &[PATH.to_owned(), "HOME=/root".to_owned()]);
    list
}

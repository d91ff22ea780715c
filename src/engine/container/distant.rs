//! A podman service of abicus' own on another host: started by the launcher there, gone when its lifeline is.
//!
//! In: how to reach the host, the runtime. Out: a socket on that host. As [`service`](super::service) on this machine, and
//! for the same reasons.

use std::time::{Duration, Instant};

use tokio::io::AsyncReadExt;
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};

use super::service::{SYSTEMD, arguments, limits_of};
use crate::engine::builtin::list::{List, stage};
use crate::fault::{Fault, Phase};
use crate::host::{Launched, Reach, text};

/// How long a service may take to listen: the first one of a user sets up its storage.
const START: Duration = Duration::from_secs(30);
/// Where podman is looked for, and what it looks for its helpers in.
const DIRS: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Bytes of its errors kept.
const MAX_SAID: usize = 4096;

/// A running service; dropping it ends it.
pub(super) struct Distant {
    pub(super) socket: String,
    /// On its host.
    pid: Option<u32>,
    task: AbortHandle,
}

impl Distant {
    pub(super) async fn start(
        reach: &std::sync::Arc<dyn Reach>,
        runtime: Option<&str>,
        isolated: bool,
    ) -> Result<Self, Fault> {
        let site = reach.site().await?;
        let socket = format!("{}/podman-{}.sock", site.dir, ulid::Ulid::generate());
        let systemd = reach.stat(SYSTEMD).await.is_ok();
        // It has no end of its own: the lifeline is one.
        let list = list(arguments(runtime, isolated, systemd, "0", &socket), &environment(&**reach).await)?;
        let mut launched = reach.launch(&list).await?;
        let pid = child(&mut launched).await;
        // The task holds the lifeline; reading what the service says keeps it from waiting for a reader.
        let said = tokio::spawn(listen(launched));
        let task = said.abort_handle();
        let service = Self { socket, pid, task };
        let deadline = Instant::now() + START * reach.patience();
        while reach.connect(&service.socket).await.is_err() {
            if said.is_finished() || Instant::now() > deadline {
                service.task.abort();
                let said = said.await.unwrap_or_else(|_| "it does not listen".to_owned());
                let cause = format!("podman system service on the host: {said}");
                return Err(Fault::new(Phase::Engine, cause)
                    .hint("is podman installed there, and does `podman info` work? else mark it `optional = true`"));
            }
            sleep(Duration::from_millis(50)).await;
        }
        Ok(service)
    }
}

impl Distant {
    /// The limits it cannot raise. They are not those of the agent: podman gives itself as many processes as there are pids.
    pub(super) async fn fixed_limits(&self, reach: &dyn Reach) -> Vec<(String, i64, i64)> {
        let Some(pid) = self.pid else { return vec![] };
        limits_of(
            &text(reach, &format!("/proc/{pid}/status")).await,
            &text(reach, &format!("/proc/{pid}/limits")).await,
        )
    }
}

impl Drop for Distant {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn list(arguments: Vec<String>, environment: &[String]) -> Result<Vec<u8>, Fault> {
    let argv: Vec<String> = ["podman".to_owned()].into_iter().chain(arguments).collect();
    let paths: Vec<String> = DIRS.split(':').map(|dir| format!("{dir}/podman")).collect();
    let mut list = List::new();
    list.stage(stage::BEFORE).adopt().stage(stage::INSIDE).setsid().chdir("/").stdin("/dev/null");
    list.exec(&paths, &argv, environment);
    list.finish().map_err(|e| Fault::new(Phase::Engine, e))
}

/// Rootless podman finds its storage by these.
async fn environment(reach: &dyn Reach) -> Vec<String> {
    const KEPT: [&str; 6] = ["HOME", "USER", "LOGNAME", "XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS", "TMPDIR"];
    let mine = text(reach, "/proc/self/environ").await;
    let kept = mine.split('\0').filter(|word| word.split_once('=').is_some_and(|(key, _)| KEPT.contains(&key)));
    kept.map(str::to_owned).chain([format!("PATH={DIRS}")]).collect()
}

/// Reads until the service is gone; the last line of what it said.
async fn listen(launched: Launched) -> String {
    let Launched { mut stdout, mut stderr, mut told, lifeline, process } = launched;
    let mut said = vec![];
    let mut rooms = ([0; 1024], [0; 1024], [0; 1024]);
    let mut open = [true; 3];
    while open[2] {
        tokio::select! {
            n = stdout.read(&mut rooms.0), if open[0] => open[0] = matches!(n, Ok(1..)),
            n = stderr.read(&mut rooms.1), if open[1] => {
                let n = n.unwrap_or(0);
                open[1] = n > 0;
                said.extend_from_slice(&rooms.1[..n]);
                let over = said.len().saturating_sub(MAX_SAID);
                said.drain(..over);
            }
            n = told.read(&mut rooms.2) => {
                let n = n.unwrap_or(0);
                open[2] = n > 0;
                if rooms.2[..n].starts_with(b"setup") {
                    said.extend_from_slice(b"it could not be executed");
                }
            }
        }
    }
    drop((lifeline, process));
    let text = String::from_utf8_lossy(&said).into_owned();
    text.lines().last().unwrap_or("it ended without a word").to_owned()
}

/// The pid of the service, which is the first thing the launcher tells.
async fn child(launched: &mut Launched) -> Option<u32> {
    const MOST: usize = 32;
    let mut line = vec![];
    while line.len() < MOST {
        match timeout(START, launched.told.read_u8()).await {
            Ok(Ok(b'\n')) => break,
            Ok(Ok(byte)) => line.push(byte),
            _ => return None,
        }
    }
    std::str::from_utf8(&line).ok()?.strip_prefix("child ")?.parse().ok()
}

//! A host over SSH: the user's own `ssh` with the user's own configuration, keys, agent, known hosts and jump hosts.
//!
//! In: a destination as `ssh` takes it. Out: a [`Reach`]. One `ssh` process and one session per host carry everything: a
//! line of shell puts the agent into a directory of its own, and from then on the agent speaks. Nothing has to be installed
//! there beyond sshd and a shell, and when the stream ends, however that happens, the agent removes what it brought.

mod bootstrap;
mod refused;

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{ChildStderr, Command};
use tokio::sync::{Mutex as AsyncMutex, Semaphore};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::agent::Agent;
use super::reach::{Launched, Reach, Reader, Site, Stat, Writer};
use crate::fault::{Fault, Phase};
use crate::probes;
use crate::spec::SshSpec;

/// Connections under way at a time: sshd's `MaxStartups` begins to drop them at random beyond ten, and hundreds of hosts may
/// be behind one jump host.
static HANDSHAKES: Semaphore = Semaphore::const_new(8);
/// How long a connection under way keeps others waiting: a dead host is not to delay the living.
const TURN: Duration = Duration::from_secs(2);
/// How often a connection that sshd dropped at the door is tried again.
const TRIES: u32 = 6;
/// How often a connection that broke is made anew: a host that breaks it every time is given up.
const RENEWALS: u32 = 3;
/// How long ssh may take to end when the host is left.
const PARTING: Duration = Duration::from_secs(5);
/// Bytes kept of what ssh says.
const MAX_SAID: usize = 4096;

/// A host over SSH; see the module.
pub struct Ssh {
    spec: SshSpec,
    state: AsyncMutex<State>,
    /// Connections so far that broke.
    broke: AtomicU32,
}

enum State {
    Off,
    Up(Arc<Link>),
    /// It cannot be reached, or nobody needs it any more.
    Over(Fault),
}

/// A connection.
struct Link {
    agent: Agent,
    /// Ends with ssh, which is reaped then.
    ssh: JoinHandle<()>,
}

/// The last of what ssh said on standard error.
type Said = Arc<Mutex<VecDeque<u8>>>;

impl Ssh {
    /// Nothing is connected yet.
    pub fn to(spec: SshSpec) -> Self {
        Self { spec, state: AsyncMutex::new(State::Off), broke: AtomicU32::new(0) }
    }

    /// The connection, made where there is none, and anew where it broke.
    async fn link(&self) -> Result<Arc<Link>, Fault> {
        let mut state = self.state.lock().await;
        let lost = match &*state {
            State::Over(fault) => return Err(fault.clone()),
            State::Off => None,
            State::Up(link) => match link.agent.lost().await {
                Some(lost) => Some(lost),
                None => return Ok(link.clone()),
            },
        };
        let made = match lost {
            None => self.reach_out().await,
            Some(lost) => self.renew(lost).await,
        };
        let made = made.map(Arc::new);
        *state = made.clone().map_or_else(State::Over, State::Up);
        made
    }

    async fn renew(&self, lost: Fault) -> Result<Link, Fault> {
        if self.broke.fetch_add(1, Ordering::Relaxed) == RENEWALS {
            return Err(Fault { transient: false, ..lost }
                .hint("it broke again and again: is the host, or the way to it, sound?"));
        }
        let again = self.reach_out().await;
        again.map_err(|fault| Fault { cause: format!("{}, and then {}", lost.cause, fault.cause), ..fault })
    }

    async fn try_link(&self) -> io::Result<Arc<Link>> {
        self.link().await.map_err(|fault| io::Error::new(io::ErrorKind::NotConnected, fault.cause))
    }

    async fn reach_out(&self) -> Result<Link, Fault> {
        let mut pause = Duration::from_millis(400);
        for _ in 1..TRIES {
            match self.try_once().await {
                Err(fault) if fault.transient => {}
                other => return other,
            }
            // Not all at the same moment again.
            let spread = u64::from(std::process::id()) ^ (std::ptr::from_ref(self) as usize as u64 >> 4);
            sleep(pause + Duration::from_millis(spread % 400)).await;
            pause *= 2;
        }
        self.try_once().await
    }

    /// One connection; what it fails with is transient only where sshd may have been too busy.
    async fn try_once(&self) -> Result<Link, Fault> {
        let permit = HANDSHAKES.acquire().await.map_err(|e| Fault::new(Phase::Host, e))?;
        let turn = tokio::spawn(async move {
            sleep(TURN).await;
            drop(permit);
        });
        let connected = self.start().await;
        turn.abort();
        connected
    }

    async fn start(&self) -> Result<Link, Fault> {
        let name = &self.spec.destination;
        let mut command = Command::new("ssh");
        command.args(["-T", "-o", "BatchMode=yes", "-o", "ConnectTimeout=15"]);
        command.args(["-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=4"]);
        // What the user's configuration sets for people at terminals.
        for option in ["ClearAllForwardings=yes", "ForwardAgent=no", "ForwardX11=no", "RequestTTY=no", "LogLevel=ERROR"]
        {
            command.args(["-o", option]);
        }
        command.args(["-o", "RemoteCommand=none", "-o", "PermitLocalCommand=no", "-e", "none"]);
        if let Some(config) = &self.spec.config {
            command.arg("-F").arg(config);
        }
        command.arg("--").arg(name).arg(bootstrap::command(probes::LAUNCH.len()));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // `BatchMode` is not handed on to the `ssh` of a jump host, which would ask at the terminal and wait for ever.
        command.env("SSH_ASKPASS_REQUIRE", "force").env("SSH_ASKPASS", "false");
        // Ctrl-C at a terminal goes to the driver, which ends its cells in order.
        command.process_group(0);
        let mut child = command.spawn().map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => Fault::new(Phase::Host, format!("{name}: there is no `ssh` here"))
                .hint("install it (Debian: openssh-client)"),
            _ => Fault::new(Phase::Host, format!("{name}: start ssh: {e}")),
        })?;
        let (Some(mut writer), Some(reader), Some(errors)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(Fault::new(Phase::Host, format!("{name}: ssh has no standard streams")));
        };
        let said = Said::default();
        let listening = tokio::spawn(listen(errors, said.clone()));
        // Reaped when it ends, which is when the stream does; dropping it would not end it.
        let ssh = tokio::spawn(async move { drop(child.wait().await) });
        let upload = async {
            // A far side that does not take it says why on standard error.
            let _ = writer.write_all(probes::LAUNCH).await;
            let _ = writer.flush().await;
        };
        let last_words = said.clone();
        let last_words = Arc::new(move || last_line(&last_words));
        let upload = timeout(Duration::from_secs(60), upload).await;
        let agent = match upload {
            Ok(()) => Agent::connect(name, Box::new(reader), Box::new(writer), last_words).await,
            Err(_) => Err(Fault::new(Phase::Host, format!("{name}: does not take the agent, nor say why"))),
        };
        match agent {
            Ok(agent) => Ok(Link { agent, ssh }),
            Err(fault) => {
                let _ = timeout(Duration::from_secs(2), listening).await;
                Err(refused::fault(&self.spec, &text(&said), &fault))
            }
        }
    }
}

fn text(said: &Said) -> String {
    let said = said.lock().unwrap_or_else(PoisonError::into_inner);
    String::from_utf8_lossy(&said.iter().copied().collect::<Vec<u8>>()).into_owned()
}

fn last_line(said: &Said) -> Option<String> {
    text(said).lines().rev().map(str::trim).find(|line| !line.is_empty()).map(str::to_owned)
}

async fn listen(mut errors: ChildStderr, said: Said) {
    let mut room = [0; 1024];
    while let Ok(n @ 1..) = errors.read(&mut room).await {
        let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
        said.extend(&room[..n]);
        let over = said.len().saturating_sub(MAX_SAID);
        said.drain(..over);
    }
}

#[async_trait]
impl Reach for Ssh {
    async fn site(&self) -> Result<Site, Fault> {
        self.link().await?.agent.site().await
    }
    async fn read(&self, path: &str, most: usize) -> io::Result<Vec<u8>> {
        self.try_link().await?.agent.read(path, most).await
    }
    async fn stat(&self, path: &str) -> io::Result<Stat> {
        self.try_link().await?.agent.stat(path).await
    }
    async fn list(&self, dir: &str) -> io::Result<Vec<(String, Stat)>> {
        self.try_link().await?.agent.list(dir).await
    }
    async fn put(&self, tree: &Path, digest: &str) -> Result<String, Fault> {
        self.link().await?.agent.put(tree, digest).await
    }
    async fn launch(&self, list: &[u8]) -> Result<Launched, Fault> {
        self.link().await?.agent.launch(list).await
    }
    async fn connect(&self, socket: &str) -> io::Result<(Reader, Writer)> {
        self.try_link().await?.agent.connect(socket).await
    }

    async fn lost(&self) -> Option<Fault> {
        match &*self.state.lock().await {
            State::Up(link) => link.agent.lost().await,
            State::Over(fault) => Some(fault.clone()),
            State::Off => None,
        }
    }

    /// When the last stream is let go of, the agent there cleans up and ssh ends.
    async fn leave(&self) -> Option<Vec<u8>> {
        let over =
            State::Over(Fault::new(Phase::Host, format!("{}: nobody needed it any more", self.spec.destination)));
        let left = std::mem::replace(&mut *self.state.lock().await, over);
        if let State::Up(link) = left
            && let Some(Link { agent, ssh }) = Arc::into_inner(link)
        {
            drop(agent);
            let _ = timeout(PARTING, ssh).await;
        }
        None
    }
}

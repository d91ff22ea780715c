//! A host at the far end of one byte stream: the agent there (`probes/launch/agent`) does what the driver asks.
//!
//! In: both ends of the stream, however it was made (SSH, a virtual machine's port). Out: a [`Reach`]. Must not know: how
//! the stream was made. What the far side says is hostile: frames, answers and streams have caps, and whoever breaks the
//! protocol loses the connection, which costs this host's cells and nothing else.

/// What goes over the stream, shared with the agent.
#[path = "../../../probes/launch/agent/frame.rs"]
#[allow(dead_code, missing_docs, clippy::missing_docs_in_private_items, unused_macros)]
mod frame;
mod hello;
mod put;
mod stream;
mod wire;

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::io::AsyncWriteExt;
use tokio::sync::{Mutex, OnceCell};

use super::reach::{Launched, Process, Reach, Reader, Site, Stat, Writer};
use crate::fault::{Fault, Phase};
use frame::{kind, u32_at, u64_at};
use stream::{Channel, Streams};
use wire::Wire;

/// How long the agent may take to say its first word: hundreds of them may begin on one busy machine. Where nobody is, ssh and
/// the console of a machine say so much sooner.
const GREETING: Duration = Duration::from_secs(180);
/// How long a small answer may take: a host under load takes seconds.
const ANSWER: Duration = Duration::from_secs(60);
/// Largest listing read.
const MAX_LIST: usize = 1 << 20;

/// A connected agent; dropping it ends the stream, and with it everything the agent started.
pub struct Agent {
    site: Site,
    wire: Arc<Wire>,
    /// By digest: what is there, or on its way.
    trees: Mutex<HashMap<String, Arc<OnceCell<String>>>>,
}

/// What the process behind the stream said last: the tail of ssh's errors, of a console.
pub type LastWords = Arc<dyn Fn() -> Option<String> + Send + Sync>;

impl Agent {
    /// Waits for the agent's greeting; what the way there says before it is skipped. `name` is what errors call the host,
    /// and `last_words` what they add when the stream ends.
    pub async fn connect(name: &str, mut reader: Reader, writer: Writer, last_words: LastWords) -> Result<Self, Fault> {
        let wrong = |why: String| {
            let said = last_words().map(|said| format!(": {said}")).unwrap_or_default();
            Fault::new(Phase::Host, format!("{name}: {why}{said}")).transient()
        };
        let site = match tokio::time::timeout(GREETING, hello::read(&mut reader)).await {
            Ok(site) => site.map_err(wrong)?,
            Err(_) => return Err(wrong(format!("no word from the agent within {} s", GREETING.as_secs()))),
        };
        Ok(Self { site, wire: Wire::start(name, reader, writer, last_words), trees: Mutex::default() })
    }

    async fn ask(&self, what: u8, payload: &[u8], most: usize) -> io::Result<Vec<u8>> {
        let asked = self.wire.ask(what, payload, most);
        match tokio::time::timeout(ANSWER, asked).await {
            Ok(answer) => answer,
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, format!("no answer in {} s", ANSWER.as_secs()))),
        }
    }
}

#[async_trait]
impl Reach for Agent {
    async fn site(&self) -> Result<Site, Fault> {
        match self.wire.broken() {
            Some(fault) => Err(fault),
            None => Ok(self.site.clone()),
        }
    }

    async fn read(&self, path: &str, most: usize) -> io::Result<Vec<u8>> {
        let cap = u32::try_from(most).unwrap_or(u32::MAX);
        self.ask(kind::READ, &[&cap.to_le_bytes(), path.as_bytes()].concat(), most).await
    }

    async fn stat(&self, path: &str) -> io::Result<Stat> {
        let answer = self.ask(kind::STAT, path.as_bytes(), 64).await?;
        stat(&answer).ok_or_else(|| io::Error::other("the agent's answer makes no sense"))
    }

    async fn list(&self, dir: &str) -> io::Result<Vec<(String, Stat)>> {
        let answer = self.ask(kind::LIST, dir.as_bytes(), MAX_LIST).await?;
        Ok(names(&answer))
    }

    async fn put(&self, tree: &Path, digest: &str) -> Result<String, Fault> {
        let name = format!("tree-{}", tree_name(tree, digest));
        let cell = self.trees.lock().await.entry(name.clone()).or_default().clone();
        let there = cell.get_or_try_init(|| async {
            put::tree(&self.wire, tree, &name).await?;
            Ok(format!("{}/{name}", self.site.dir))
        });
        there.await.cloned().map_err(|fault: Fault| self.wire.broken().unwrap_or(fault))
    }

    async fn launch(&self, list: &[u8]) -> Result<Launched, Fault> {
        if let Some(fault) = self.wire.broken() {
            return Err(fault);
        }
        let Streams { readers: [told, stdout, stderr], mut writer, channel, .. } = self.wire.open(kind::LAUNCH, &[]);
        // A launcher that died early shows up as the end of what it tells.
        let _ = writer.write_all(list).await;
        let process = Box::new(Remote(channel));
        Ok(Launched { stdout, stderr, told, lifeline: Box::new(writer), process })
    }

    async fn lost(&self) -> Option<Fault> {
        self.wire.broken()
    }

    async fn connect(&self, socket: &str) -> io::Result<(Reader, Writer)> {
        let Streams { readers: [told, ..], writer, opened, .. } = self.wire.open(kind::CONNECT, socket.as_bytes());
        match tokio::time::timeout(ANSWER, opened).await {
            Ok(Ok(opened)) => opened?,
            Ok(Err(_)) => return Err(self.wire.error()),
            Err(_) => return Err(io::ErrorKind::TimedOut.into()),
        }
        Ok((told, Box::new(writer)))
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.wire.end();
    }
}

/// A launcher at the far end.
struct Remote(Arc<Channel>);

#[async_trait]
impl Process for Remote {
    /// What it told has ended by now, and that is the last it does.
    async fn gone(&mut self) {}

    fn kill(&mut self) {
        self.0.send(kind::KILL, &[]);
    }

    fn lost(&self) -> Option<Fault> {
        self.0.wire.broken()
    }
}

/// A name for a tree that says nothing to a shell and nothing to a file system.
fn tree_name(tree: &Path, digest: &str) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(digest.as_bytes()).update(b"\0").update(tree.as_os_str().as_encoded_bytes());
    hasher.finalize().to_hex()[..24].to_owned()
}

fn stat(bytes: &[u8]) -> Option<Stat> {
    Some(Stat { mode: u32_at(bytes, 0)?, device: u64_at(bytes, 4)? })
}

/// The entries of a listing; what is cut off or no name is left out.
fn names(mut bytes: &[u8]) -> Vec<(String, Stat)> {
    const HEAD: usize = 14;
    let mut found = vec![];
    while let (Some(about), Some(length)) = (stat(bytes), bytes.get(12..HEAD)) {
        let end = HEAD + usize::from(u16::from_le_bytes([length[0], length[1]]));
        let Some(name) = bytes.get(HEAD..end) else { break };
        bytes = &bytes[end..];
        match std::str::from_utf8(name) {
            Ok(name) if !name.is_empty() && !name.contains(['/', '\0']) && !matches!(name, "." | "..") => {
                found.push((name.to_owned(), about));
            }
            _ => {}
        }
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    found
}

#[cfg(test)]
mod tests;

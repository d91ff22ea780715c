//! Virtual machines that abicus starts itself, by QEMU.
//!
//! In: a [`VmSpec`], and the trees that cells on it will need. Out: a way to reach the kernel in it. The machine is booted
//! when it is first asked something, and stopped when nobody will ask it any more, or nobody is left to ask. Its first
//! process is the agent; every tree is a disk that is only read. Kernels and disks are made from a distribution's packages
//! and kept in the cache.

mod accel;
mod boot;
mod capacity;
mod console;
mod cpio;
mod daemon;
pub mod disk;
pub mod ext4;
pub mod kernel;
mod qemu;
pub mod shelf;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;

use super::reach::{Launched, Reach, Reader, Site, Stat, Tree, Writer};
use crate::engine::Facts;
use crate::fault::{Fault, Phase};
use crate::spec::VmSpec;

use boot::{Failed, Running};
pub use qemu::sweep;

/// A virtual machine as a host; see the module.
pub struct Vm {
    spec: VmSpec,
    cache: PathBuf,
    /// Known before it boots, because a disk has to be there from the start.
    trees: Mutex<Vec<Tree>>,
    state: tokio::sync::Mutex<State>,
    /// The latest, for those who may not wait.
    facts: Mutex<Facts>,
}

enum State {
    Off,
    On(Arc<Running>),
    /// It did not come up, or it is stopped; with what its console said, which nobody took yet.
    Over(Fault, Option<Vec<u8>>),
}

impl Vm {
    /// A machine that is started when it is first asked something. `cache` is abicus' own directory.
    pub fn new(spec: VmSpec, cache: &Path) -> Self {
        let (trees, facts) = (Mutex::default(), Mutex::default());
        Self { spec, cache: cache.to_owned(), trees, state: tokio::sync::Mutex::new(State::Off), facts }
    }

    /// The machine, booted where nobody did it before. One that did not come up is not tried again.
    async fn running(&self) -> Result<Arc<Running>, Fault> {
        let mut state = self.state.lock().await;
        match &*state {
            State::On(running) => return Ok(running.clone()),
            State::Over(fault, _) => return Err(fault.clone()),
            State::Off => {}
        }
        let trees = self.trees.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match boot::up(&self.spec, &self.cache, trees).await {
            Ok(running) => {
                self.facts.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&running.facts);
                let running = Arc::new(running);
                *state = State::On(running.clone());
                Ok(running)
            }
            Err(Failed { fault, console }) => {
                *state = State::Over(fault.clone(), console);
                Err(fault)
            }
        }
    }

    async fn asked(&self) -> io::Result<Arc<Running>> {
        self.running().await.map_err(|fault| io::Error::new(io::ErrorKind::NotConnected, fault.cause))
    }
}

#[async_trait]
impl Reach for Vm {
    async fn expect(&self, trees: &[Tree]) {
        self.trees.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(trees);
    }

    async fn site(&self) -> Result<Site, Fault> {
        self.running().await?.agent.site().await
    }

    async fn read(&self, path: &str, most: usize) -> io::Result<Vec<u8>> {
        self.asked().await?.agent.read(path, most).await
    }

    async fn stat(&self, path: &str) -> io::Result<Stat> {
        let running = self.asked().await?;
        if path == daemon::SOCKET {
            running.docker().await.map_err(|fault| io::Error::other(fault.cause))?;
        }
        running.agent.stat(path).await
    }

    async fn list(&self, dir: &str) -> io::Result<Vec<(String, Stat)>> {
        self.asked().await?.agent.list(dir).await
    }

    async fn put(&self, tree: &Path, digest: &str) -> Result<String, Fault> {
        let running = self.running().await?;
        match running.mounted.get(digest) {
            Some(place) => Ok(place.clone()),
            None => running.agent.put(tree, digest).await,
        }
    }

    async fn launch(&self, list: &[u8]) -> Result<Launched, Fault> {
        self.running().await?.agent.launch(list).await
    }

    async fn connect(&self, socket: &str) -> io::Result<(Reader, Writer)> {
        self.asked().await?.agent.connect(socket).await
    }

    fn facts(&self) -> Facts {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Without KVM a guest takes ten times as long as this machine, and another guest may be beside it.
    fn patience(&self) -> u32 {
        8
    }

    async fn lost(&self) -> Option<Fault> {
        match &*self.state.lock().await {
            State::On(running) => running.lost().await,
            State::Over(fault, _) => Some(fault.clone()),
            State::Off => None,
        }
    }

    async fn leave(&self) -> Option<Vec<u8>> {
        let mut state = self.state.lock().await;
        let gone = State::Over(Fault::new(Phase::Host, "the virtual machine was stopped"), None);
        match std::mem::replace(&mut *state, gone) {
            State::On(running) => {
                running.stop().await;
                Some(running.console())
            }
            State::Over(fault, console) => {
                *state = State::Over(fault, None);
                console
            }
            State::Off => None,
        }
    }
}

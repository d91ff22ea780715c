//! A host of which nothing is known but the address of an engine: a socket, a port with TLS, a context of docker's command
//! line.
//!
//! In: the address. Out: a [`Reach`] that says of the host what the engine says of it, and refuses everything else: an API
//! of containers reads no file of its host and starts no program there. What only the host itself could say is no fact.

use std::io;
use std::path::Path;

use async_trait::async_trait;
use serde_json::Value;
use tokio::sync::OnceCell;

use super::facts::gib;
use super::reach::{Launched, Reach, Reader, Site, Stat, Writer};
use crate::engine::Facts;
use crate::engine::container::{self, Endpoint, Environment};
use crate::fault::{Fault, Phase};
use crate::image::host_architecture;

/// A host behind an endpoint; see the module.
pub struct AtEndpoint {
    endpoint: Endpoint,
    said: OnceCell<(Site, Facts)>,
}

impl AtEndpoint {
    /// Nothing is connected yet.
    pub fn new(endpoint: Endpoint) -> Self {
        Self { endpoint, said: OnceCell::new() }
    }

    async fn look(&self) -> Result<(Site, Facts), Fault> {
        let (version, info) = container::about(&self.endpoint, &Environment::of_process()).await?;
        let theirs = version["Arch"].as_str().unwrap_or_default();
        let ours = host_architecture();
        if theirs != ours {
            let cause = format!("the engine's host is {theirs}, the probes of this abicus are for {ours}");
            return Err(Fault::new(Phase::Host, cause).hint(format!("run an abicus that was built for {theirs}")));
        }
        Ok((site(&version, &info), facts(&info)))
    }

    fn refused() -> Fault {
        Fault::new(Phase::Host, "an endpoint reaches engines only, not the host they are on")
            .hint("declare the host with `ssh = …` for cells without docker or podman")
    }

    fn error() -> io::Error {
        io::Error::new(io::ErrorKind::Unsupported, Self::refused().cause)
    }
}

fn site(version: &Value, info: &Value) -> Site {
    let release = version["KernelVersion"].as_str().or_else(|| info["KernelVersion"].as_str());
    Site {
        kernel_release: release.unwrap_or_default().to_owned(),
        kernel_version: String::new(),
        machine: std::env::consts::ARCH.to_owned(),
        page_size: 0,
        cpus: info["NCPU"].as_u64().unwrap_or(1).max(1),
        uid: 0,
        gid: 0,
        dir: String::new(),
        launcher: String::new(),
        mount_point: String::new(),
    }
}

/// What the engine says of its host besides.
fn facts(info: &Value) -> Facts {
    let text = |key: &str| info[key].as_str().map(str::trim).filter(|text| !text.is_empty()).map(str::to_owned);
    // A hybrid hierarchy is version 1 to the engines, and they do not tell it apart.
    let cgroup = text("CgroupVersion").map(|version| format!("v{version}"));
    let memory = info["MemTotal"].as_u64().map(|bytes| gib(bytes >> 10));
    let known = [
        ("os.name", text("OperatingSystem")),
        ("os.version", text("OSVersion")),
        ("cgroup", cgroup),
        ("memory.gib", memory),
    ];
    known.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
}

#[async_trait]
impl Reach for AtEndpoint {
    async fn site(&self) -> Result<Site, Fault> {
        Ok(self.said.get_or_try_init(|| self.look()).await?.0.clone())
    }
    async fn read(&self, _: &str, _: usize) -> io::Result<Vec<u8>> {
        Err(Self::error())
    }
    async fn stat(&self, _: &str) -> io::Result<Stat> {
        Err(Self::error())
    }
    async fn list(&self, _: &str) -> io::Result<Vec<(String, Stat)>> {
        Err(Self::error())
    }
    async fn put(&self, _: &Path, _: &str) -> Result<String, Fault> {
        Err(Self::refused())
    }
    async fn launch(&self, _: &[u8]) -> Result<Launched, Fault> {
        Err(Self::refused())
    }
    async fn connect(&self, _: &str) -> io::Result<(Reader, Writer)> {
        Err(Self::error())
    }
    fn facts(&self) -> Facts {
        self.said.get().map(|(_, facts)| facts.clone()).unwrap_or_default()
    }
    fn endpoint(&self) -> Option<&Endpoint> {
        Some(&self.endpoint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[tokio::test]
    async fn what_the_host_is_comes_from_the_engine_and_nothing_is_made_up() {
        let version = json!({"KernelVersion": "5.10.0-9-amd64", "Arch": host_architecture()});
        let info = json!({"NCPU": 96, "MemTotal": 135_000_000_000_u64, "OperatingSystem": "Debian GNU/Linux 11", "OSVersion": "11",
            "CgroupVersion": "2"});
        let host = AtEndpoint {
            endpoint: Endpoint::Context("rack".to_owned()),
            said: OnceCell::new_with(Some((site(&version, &info), facts(&info)))),
        };
        let facts = crate::host::facts(&host).await.unwrap();
        let facts: Vec<_> = facts.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let arch = format!("arch={}", std::env::consts::ARCH);
        let known = [
            arch.as_str(),
            "cgroup=v2",
            "cpu.count=96",
            "kernel.release=5.10.0-9-amd64",
            "memory.gib=126",
            "os.name=Debian GNU/Linux 11",
            "os.version=11",
        ];
        assert_eq!(facts, known);
        let fault = host.launch(&[]).await.err().unwrap();
        assert!(fault.cause.contains("an endpoint reaches engines only"), "{fault}");
    }
}

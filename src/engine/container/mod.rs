//! Docker and podman, through their API.
//!
//! In: where the engine is, a runtime, options; then images and jobs. Out: facts, prepared images, attempts. The API is
//! bollard's over a transport of ours; [`api`] puts a deadline round every call, [`quirks`] is the one place that knows how
//! the two engines differ, [`cell`] is the life of one container. This room never sees the matrix.

mod api;
mod by_hand;
mod cell;
mod create;
mod diagnose;
mod distant;
mod endpoint;
mod fingerprint;
mod output;
mod payload;
mod prepare;
mod quirks;
mod service;
mod sweep;
mod transport;

use std::collections::HashMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bollard::query_parameters::{CreateContainerOptionsBuilder, DownloadFromContainerOptionsBuilder};
use bytes::Bytes;
use serde_json::Value;
use tokio::sync::{Mutex, Notify, OnceCell};

use crate::fault::{Fault, Phase};
use crate::host::PerSite;
use crate::id::RunId;
use crate::image::Image;

use super::{Attempt, Engine, EngineOptions, Facts, Job, PAYLOAD_DIR, Payload, Prepared, RUN_LABEL};

use api::{ANSWER, Api, CALL};
pub use by_hand::by_hand;
use cell::Cell;
use create::{Delivery, HOSTS, Template};
use distant::Distant;
pub use endpoint::{Endpoint, Environment, There, Tls};
pub use quirks::Kind;
use service::Service;
use transport::Address;

/// How long a sweep waits for cells that were given up to remove their own containers.
const SETTLE: Duration = Duration::from_secs(20);
/// Most bytes read back to prove that the engine sees the payload.
const MAX_PROOF: usize = 64 << 20;

/// Docker or podman at one endpoint with one set of options.
pub struct ContainerEngine {
    kind: Kind,
    endpoint: Endpoint,
    environment: Environment,
    inner: Arc<Inner>,
}

/// What tasks that outlive a cancelled cell hold on to.
struct Inner {
    template: Template,
    connected: PerSite<Connected>,
    /// By payload directory: a proof holds for the files it was made with.
    deliveries: Mutex<HashMap<PathBuf, Delivery>>,
    uploads: Mutex<HashMap<(String, bool), Bytes>>,
    /// Where the hosts file is; removed with the engine.
    scratch: OnceCell<tempfile::TempDir>,
    /// Cells that were given up and are still removing their containers.
    leaving: Arc<Leaving>,
}

/// A connection, and what the engine said of itself when it was made.
struct Connected {
    api: Api,
    /// The engine's template, with what this connection needs besides.
    template: Template,
    version: Value,
    info: Value,
    libpod: Value,
    /// Ends with the connection.
    _service: Option<Service>,
    /// As above, on another host.
    _distant: Option<Distant>,
}

impl Connected {
    fn arch(&self) -> &str {
        self.version["Arch"].as_str().unwrap_or_default()
    }
}

#[derive(Default)]
struct Leaving {
    count: AtomicU64,
    done: Notify,
}

/// What whatever engine is at an endpoint says of itself: `/version` and `/info`.
pub async fn about(endpoint: &Endpoint, environment: &Environment) -> Result<(Value, Value), Fault> {
    let on_the_way = |fault| Fault { phase: Phase::Host, ..fault };
    let address = endpoint.resolve(Kind::Docker, environment).await.map_err(on_the_way)?;
    let address = address.ok_or_else(|| Fault::new(Phase::Host, "there is no such endpoint"))?;
    let fault = |e: api::CallError| on_the_way(diagnose::unreachable(None, &address, &e));
    let (api, version) = Api::connect(address.clone()).await.map_err(fault)?;
    let info = tokio::time::timeout(ANSWER, api.get("/info")).await;
    Ok((version, info.unwrap_or(Err(api::CallError::Silent(ANSWER))).map_err(fault)?))
}

impl ContainerEngine {
    /// An engine; nothing is connected yet. Fails when an option refers to a file that cannot be used.
    pub fn new(
        kind: Kind,
        endpoint: Endpoint,
        runtime: Option<String>,
        options: EngineOptions,
        environment: Environment,
    ) -> Result<Self, Fault> {
        let inner = Inner {
            template: Template::new(kind, runtime, options)?,
            connected: PerSite::new(),
            deliveries: Mutex::default(),
            uploads: Mutex::default(),
            scratch: OnceCell::new(),
            leaving: Arc::default(),
        };
        Ok(Self { kind, endpoint, environment, inner: Arc::new(inner) })
    }

    async fn connected(&self) -> Result<Arc<Connected>, Fault> {
        // On another host a service of ours and what was put there go with the connection to it.
        let dir = match &self.endpoint {
            Endpoint::There(there) => there.reach.site().await?.dir,
            _ => String::new(),
        };
        self.inner.connected.get(&dir, || self.connect()).await
    }

    async fn connect(&self) -> Result<Connected, Fault> {
        let found = self.endpoint.resolve(self.kind, &self.environment).await?;
        // A runtime can only be had from a service of our own, unless the user said which service to use.
        let own = self.endpoint == Endpoint::Default && self.environment.container_host.is_none();
        let template = &self.inner.template;
        if self.kind == Kind::Podman && own {
            let usable = match &found {
                Some(Address::Unix(path)) if template.runtime.is_none() => {
                    tokio::net::UnixStream::connect(path).await.is_ok()
                }
                _ => false,
            };
            if !usable {
                let service = Service::start(template.runtime.as_deref(), template.isolated()).await?;
                return self.connect_to(Address::Unix(service.socket()), Some(service)).await;
            }
        }
        match (found, &self.endpoint) {
            (Some(address), _) if !(self.kind == Kind::Podman && template.runtime.is_some()) => {
                self.connect_to(address, None).await
            }
            (_, Endpoint::There(there)) if self.kind == Kind::Podman => {
                let service = Distant::start(&there.reach, template.runtime.as_deref(), template.isolated()).await?;
                let address = there.address(service.socket.clone());
                let connected = self.connect_to(address, None).await?;
                let mut template = connected.template;
                template.ulimits = service.fixed_limits(&*there.reach).await;
                Ok(Connected { template, _distant: Some(service), ..connected })
            }
            (Some(address), _) => self.connect_to(address, None).await,
            (None, _) => Err(Fault::new(Phase::Engine, format!("{} has no socket here", self.kind.name()))
                .hint("install and start it, or mark the engine `optional = true`")),
        }
    }

    async fn connect_to(&self, address: Address, service: Option<Service>) -> Result<Connected, Fault> {
        let fault = |e: &api::CallError| diagnose::unreachable(Some(self.kind), &address, e);
        let (api, version) = Api::connect(address.clone()).await.map_err(|e| fault(&e))?;
        let libpod = match (self.kind, quirks::libpod_version(&version)) {
            (Kind::Podman, Some(libpod)) => api.get(&format!("/v{libpod}/libpod/info")).await.map_err(|e| fault(&e))?,
            (Kind::Docker, None) => Value::Null,
            (Kind::Podman, None) => {
                return Err(Fault::new(Phase::Engine, format!("{address} answers, but it is not podman"))
                    .hint("declare it with kind = \"docker\", or exclude its cells there"));
            }
            (Kind::Docker, Some(_)) => {
                return Err(Fault::new(Phase::Engine, format!("{address} is podman, not docker"))
                    .hint("declare it with kind = \"podman\", or exclude its cells there"));
            }
        };
        let info = api.get_within("/info", ANSWER).await.map_err(|e| fault(&e))?;
        let mut template = self.inner.template.clone();
        template.no_health_check = quirks::no_health_check(quirks::libpod_version(&version));
        if let Some(json) = &template.profile {
            template.seccomp = Some(self.inner.hand_over(json, &address).await?);
        }
        diagnose::runtime(self.kind, template.runtime.as_deref(), &info, &libpod)?;
        if let (true, Address::Unix(path)) = (self.kind.asks_for_limits(), &address) {
            template.ulimits = service::fixed_limits(path);
        }
        let mut service = service;
        if let Some(service) = &mut service {
            service.keep_alive(api.clone());
        }
        Ok(Connected { api, template, version, info, libpod, _service: service, _distant: None })
    }
}

impl Inner {
    /// A profile as a file where the engine is.
    async fn hand_over(&self, json: &str, address: &Address) -> Result<String, Fault> {
        let wrong = |e: std::io::Error| Fault::new(Phase::Inject, format!("seccomp profile: {e}"));
        let dir = self.scratch().await.map_err(wrong)?.join("seccomp");
        std::fs::create_dir_all(&dir).map_err(wrong)?;
        let file = dir.join("seccomp.json");
        std::fs::write(&file, json).map_err(wrong)?;
        for (path, mode) in [(&dir, 0o755), (&file, 0o644)] {
            std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).map_err(wrong)?;
        }
        match address {
            Address::Unix(_) => Ok(file.display().to_string()),
            Address::There { reach, .. } => {
                let there = reach.put(&dir, &format!("seccomp-{}", blake3::hash(json.as_bytes()).to_hex())).await?;
                Ok(format!("{there}/seccomp.json"))
            }
            Address::Tcp(_) | Address::Tls { .. } => Err(Fault::new(
                Phase::Engine,
                format!("option `seccomp`: podman at {address} reads profiles of its own machine"),
            )
            .hint("reach that host by `ssh`, or leave the option out")),
        }
    }

    /// A directory of this engine, which other users may look into whatever our umask is.
    async fn scratch(&self) -> std::io::Result<&Path> {
        let make = || async {
            let dir = tempfile::Builder::new().prefix("abicus-").tempdir()?;
            std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755))?;
            Ok(dir)
        };
        self.scratch.get_or_try_init(make).await.map(tempfile::TempDir::path)
    }

    async fn hosts(&self) -> Result<PathBuf, Fault> {
        let wrong = |e: std::io::Error| Fault::new(Phase::Inject, format!("hosts file: {e}"));
        let file = self.scratch().await.map_err(wrong)?.join("hosts");
        if !file.exists() {
            std::fs::write(&file, HOSTS).map_err(wrong)?;
            // A user namespace or another user inside has to read it whatever our umask is.
            std::fs::set_permissions(&file, PermissionsExt::from_mode(0o644)).map_err(wrong)?;
        }
        Ok(file)
    }

    /// How this payload gets into containers of this engine; tried out once.
    async fn delivery(
        &self,
        connected: &Connected,
        run: &RunId,
        payload: &Payload,
        image: &str,
    ) -> Result<Delivery, Fault> {
        let mut known = self.deliveries.lock().await;
        if let Some(delivery) = known.get(&payload.dir) {
            return Ok(delivery.clone());
        }
        let bind = Delivery::Bind { hosts: self.hosts().await? };
        let wrong = |e: std::io::Error| Fault::new(Phase::Inject, format!("payload {}: {e}", payload.dir.display()));
        let labelled = fingerprint::selinux(&connected.info, &connected.libpod)
            && connected.template.options.selinux.as_deref() != Some("disable");
        let delivery = if !labelled
            && payload::open_to_all(&payload.dir).map_err(wrong)?
            && self.sees(connected, run, &payload.dir, image, &bind).await?
        {
            bind
        } else {
            Delivery::Upload
        };
        known.insert(payload.dir.clone(), delivery.clone());
        Ok(delivery)
    }

    /// The canary: lets the engine read the payload back through the very mounts a cell would get.
    async fn sees(
        &self,
        connected: &Connected,
        run: &RunId,
        dir: &Path,
        image: &str,
        bind: &Delivery,
    ) -> Result<bool, Fault> {
        let (api, name) = (&connected.api, container_name());
        let mut body = connected.template.bare(image, &["/canary".to_owned()]);
        body.labels = Some(HashMap::from([(RUN_LABEL.to_owned(), run.to_string())]));
        if let Some(host) = &mut body.host_config {
            host.mounts = Some(connected.template.mounts(dir, bind));
        }
        let options = CreateContainerOptionsBuilder::default().name(&name).build();
        let proof = async {
            match api.call(CALL, api.docker.create_container(Some(options), body)).await {
                Ok(_) => {}
                // The source of the mount does not exist where the engine is.
                Err(error) if matches!(error.status(), Some(400 | 404 | 500)) => return Ok(false),
                Err(error) => return Err(error.fault(Phase::Create, "create the canary")),
            }
            let options = DownloadFromContainerOptionsBuilder::default().path(PAYLOAD_DIR).build();
            let mut archive = vec![];
            let stream = api.docker.download_from_container(&name, Some(options));
            let read = api.drain(stream, |chunk| {
                archive.extend_from_slice(&chunk);
                let fits = archive.len() <= MAX_PROOF;
                fits.then_some(()).ok_or_else(|| api::CallError::Broken("the canary grew too large".to_owned()))
            });
            match read.await {
                Ok(()) => {}
                Err(error) if !error.is_outage() => return Ok(false),
                Err(error) => return Err(error.fault(Phase::Inject, "read the canary")),
            }
            let files = payload::read_files(dir).map_err(|e| Fault::new(Phase::Inject, e))?;
            Ok(payload::holds(&archive, &files))
        };
        let proof = proof.await;
        let _ = cell::remove(api, &name, CALL).await;
        proof
    }

    async fn upload(
        &self,
        template: &Template,
        payload: &Payload,
        delivery: &Delivery,
    ) -> Result<Option<Bytes>, Fault> {
        if *delivery != Delivery::Upload {
            return Ok(None);
        }
        let at_root = !template.options.read_only;
        let mut known = self.uploads.lock().await;
        if let Some(tar) = known.get(&(payload.digest.clone(), at_root)) {
            return Ok(Some(tar.clone()));
        }
        let hosts = template.brings_hosts(delivery).then_some(HOSTS);
        let tar = payload::tar(&payload.dir, hosts, at_root)
            .map_err(|e| Fault::new(Phase::Inject, format!("payload {}: {e}", payload.dir.display())))?;
        known.insert((payload.digest.clone(), at_root), tar.clone());
        Ok(Some(tar))
    }

    async fn live(
        &self,
        connected: &Connected,
        job: &Job,
        image: &str,
        cancelled: impl Future<Output = ()>,
    ) -> Attempt {
        let ready = async {
            let delivery = self.delivery(connected, &job.run, &job.payload, image).await?;
            let upload = self.upload(&connected.template, &job.payload, &delivery).await?;
            Ok::<_, Fault>((delivery, upload))
        };
        match ready.await {
            Err(fault) => Attempt::broken(fault),
            Ok((delivery, upload)) => {
                let (api, template, name) = (&connected.api, &connected.template, container_name());
                let cell = Cell { api, template, job, image, delivery: &delivery, upload, name };
                let mut attempt = cell.live(cancelled).await;
                attempt.notes.extend(diagnose::ignored(template, &connected.info, &connected.libpod));
                attempt
            }
        }
    }
}

/// A name no other container has, on whatever daemon and from whatever machine.
fn container_name() -> String {
    format!("abicus-{}", ulid::Ulid::generate().to_string().to_lowercase())
}

/// Counts a cell that was given up until its task has ended.
struct Left(Arc<Leaving>);

impl Drop for Left {
    fn drop(&mut self) {
        self.0.count.fetch_sub(1, Ordering::AcqRel);
        self.0.done.notify_waiters();
    }
}

#[async_trait]
impl Engine for ContainerEngine {
    async fn fingerprint(&self) -> Result<Facts, Fault> {
        let c = self.connected().await?;
        let asked = c.template.runtime.as_deref();
        let mut facts = fingerprint::facts(self.kind, asked, &c.version, &c.info, &c.libpod);
        // Docker's API has no word for it; its runtime has, where that is on this machine.
        if let (Kind::Docker, Address::Unix(_)) = (self.kind, c.api.address())
            && let Some(said) = fingerprint::ask_runtime(&facts, &c.info).await
        {
            facts.extend(said);
        }
        Ok(facts)
    }

    async fn prepare(&self, image: &Image) -> Result<Prepared, Fault> {
        let c = self.connected().await?;
        let platform = self.inner.template.options.platform.as_deref();
        prepare::prepare(&c.api, c.arch(), image, platform).await.map(Prepared)
    }

    async fn has(&self, reference: &str) -> Result<bool, Fault> {
        let platform = self.inner.template.options.platform.as_deref();
        prepare::has(&self.connected().await?.api, reference, platform).await
    }

    async fn references(&self) -> Result<Vec<String>, Fault> {
        prepare::references(&self.connected().await?.api).await
    }

    async fn export(&self, reference: &str, to: &Path) -> Result<(), Fault> {
        let connected = self.connected().await?;
        let platform = self.inner.template.options.platform.as_deref();
        prepare::export(&connected.api, connected.arch(), reference, platform, to).await
    }

    async fn run(&self, job: &Job, image: &Prepared) -> Attempt {
        let connected = match self.connected().await {
            Ok(connected) => connected,
            Err(fault) => return Attempt::broken(fault),
        };
        let (inner, job, image) = (self.inner.clone(), job.clone(), image.0.clone());
        // A task of its own: when this future is dropped the sender goes with it, the task sees that and cleans up.
        let (alive, gone) = tokio::sync::oneshot::channel::<()>();
        self.inner.leaving.count.fetch_add(1, Ordering::AcqRel);
        let left = Left(self.inner.leaving.clone());
        let task = tokio::spawn(async move {
            let _left = left;
            inner
                .live(&connected, &job, &image, async {
                    let _ = gone.await;
                })
                .await
        });
        let attempt = task.await;
        drop(alive);
        attempt.unwrap_or_else(|e| Attempt::broken(Fault::new(Phase::Wait, format!("the cell's task ended: {e}"))))
    }

    async fn sweep(&self, run: Option<&RunId>) -> Result<Vec<String>, Fault> {
        // Cells that are being given up remove their own containers; sweeping under them would race with their creation.
        let settled = async {
            loop {
                let done = self.inner.leaving.done.notified();
                if self.inner.leaving.count.load(Ordering::Acquire) == 0 {
                    return;
                }
                done.await;
            }
        };
        let _ = tokio::time::timeout(SETTLE, settled).await;
        sweep::containers(&self.connected().await?.api, run).await
    }

    async fn sweep_cache(&self) -> Result<Vec<String>, Fault> {
        sweep::images(&self.connected().await?.api).await
    }
}

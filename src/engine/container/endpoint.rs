//! Where an engine is: the default socket, a path, an address with TLS, or a context of the docker command line.
//!
//! In: what the matrix says, and the user's environment and configuration. Out: an [`Address`]. Nothing is connected here.

use std::io::ErrorKind::{NotADirectory, NotFound, PermissionDenied};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::fault::{Fault, Phase};
use crate::host::Reach;
use crate::id::HostId;

use super::quirks::Kind;
use super::transport::Address;

/// Where to find an engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// Where the engine's own command line would look.
    Default,
    /// A socket on this machine; it may be forwarded from another.
    Unix(PathBuf),
    /// `host:port`.
    Tcp {
        /// `host:port`.
        address: String,
        /// The certificates, or none for an endpoint in the clear.
        tls: Option<Tls>,
    },
    /// A context of the docker command line.
    Context(String),
    /// Where the engine's own command line would look on another host.
    There(There),
}

/// Another host as a place where engines are.
#[derive(Clone)]
pub struct There {
    /// What the matrix calls it.
    pub host: HostId,
    /// How to get there.
    pub reach: Arc<dyn Reach>,
}

impl std::fmt::Debug for There {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "There({})", self.host)
    }
}

impl PartialEq for There {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.reach, &other.reach)
    }
}

impl Eq for There {}

impl There {
    /// A socket of that host.
    pub(super) fn address(&self, path: String) -> Address {
        Address::There { host: self.host.clone(), reach: self.reach.clone(), path }
    }

    /// The engine's socket on that host, the first that is there; none says that there is none.
    pub(super) async fn socket(&self, kind: Kind) -> Result<Option<Address>, Fault> {
        let site = self.reach.site().await?;
        let own = format!("/run/user/{}", site.uid);
        let known = match (kind, site.uid) {
            (Kind::Docker, _) => vec!["/var/run/docker.sock".to_owned(), format!("{own}/docker.sock")],
            (Kind::Podman, 0) => vec!["/run/podman/podman.sock".to_owned()],
            (Kind::Podman, _) => vec![format!("{own}/podman/podman.sock")],
        };
        for path in known {
            match self.reach.stat(&path).await {
                Ok(about) if about.is_socket() => return Ok(Some(self.address(path))),
                // Not there, or not for us to see.
                Ok(_) => {}
                Err(error) if matches!(error.kind(), NotFound | NotADirectory | PermissionDenied) => {}
                Err(error) => return Err(Fault::new(Phase::Engine, error)),
            }
        }
        Ok(None)
    }
}

/// Files of a TLS client, PEM, named as docker names them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// `ca.pem`: who may sign the engine's certificate.
    pub ca: PathBuf,
    /// `cert.pem`: our certificate.
    pub cert: PathBuf,
    /// `key.pem`: our key.
    pub key: PathBuf,
}

impl Tls {
    /// `ca.pem`, `cert.pem` and `key.pem` of a directory.
    pub fn in_dir(dir: &Path) -> Self {
        Self { ca: dir.join("ca.pem"), cert: dir.join("cert.pem"), key: dir.join("key.pem") }
    }
}

/// What of the user's environment decides where engines are.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    /// `DOCKER_HOST`.
    pub docker_host: Option<String>,
    /// `DOCKER_CONTEXT`.
    pub docker_context: Option<String>,
    /// `DOCKER_CERT_PATH`.
    pub docker_cert_path: Option<PathBuf>,
    /// Whether `DOCKER_TLS_VERIFY` says anything: what it says does not matter to docker.
    pub docker_tls_verify: bool,
    /// `DOCKER_CONFIG`, or `~/.docker`.
    pub docker_config: Option<PathBuf>,
    /// `CONTAINER_HOST`.
    pub container_host: Option<String>,
    /// `XDG_RUNTIME_DIR`.
    pub runtime_dir: Option<PathBuf>,
    /// The effective user.
    pub uid: u32,
}

impl Environment {
    /// Of this process.
    pub fn of_process() -> Self {
        let var = |name| std::env::var(name).ok().filter(|v| !v.is_empty());
        let home = var("HOME").map(|h| Path::new(&h).join(".docker"));
        Self {
            docker_host: var("DOCKER_HOST"),
            docker_context: var("DOCKER_CONTEXT"),
            docker_cert_path: var("DOCKER_CERT_PATH").map(PathBuf::from),
            docker_tls_verify: var("DOCKER_TLS_VERIFY").is_some(),
            docker_config: var("DOCKER_CONFIG").map(PathBuf::from).or(home),
            container_host: var("CONTAINER_HOST"),
            runtime_dir: var("XDG_RUNTIME_DIR").map(PathBuf::from),
            uid: rustix::process::geteuid().as_raw(),
        }
    }
}

impl Endpoint {
    /// The address; `None` where podman has no socket listed and abicus has to start a service.
    pub(super) async fn resolve(&self, kind: Kind, env: &Environment) -> Result<Option<Address>, Fault> {
        match self {
            Self::There(there) => there.socket(kind).await,
            Self::Unix(path) => Ok(Some(Address::Unix(path.clone()))),
            Self::Tcp { address, tls } => tcp(address, tls.as_ref()).map(Some),
            Self::Context(name) => context(name, env).map(Some),
            Self::Default => match kind {
                Kind::Docker => docker_default(env).map(Some),
                Kind::Podman => podman_default(env),
            },
        }
    }
}

/// As docker's command line: `DOCKER_HOST`, then `DOCKER_CONTEXT`, then the current context of its configuration, then the
/// system's socket.
fn docker_default(env: &Environment) -> Result<Address, Fault> {
    if let Some(url) = &env.docker_host {
        let certificates = env.docker_cert_path.as_deref();
        let wanted = env.docker_config.as_deref().filter(|_| env.docker_tls_verify);
        return from_url(url, certificates.or(wanted), env);
    }
    let current = || {
        let path = env.docker_config.as_ref()?.join("config.json");
        let config: Value = serde_json::from_str(&std::fs::read_to_string(path).ok()?).ok()?;
        config["currentContext"].as_str().map(str::to_owned)
    };
    match env.docker_context.clone().or_else(current) {
        Some(name) if name != "default" => context(&name, env),
        _ => {
            let system = PathBuf::from("/var/run/docker.sock");
            // A rootless daemon listens here; its installer asks the user to set DOCKER_HOST, and not everybody does.
            let own = env.runtime_dir.as_ref().map(|dir| dir.join("docker.sock")).filter(|s| s.exists());
            Ok(Address::Unix(if system.exists() { system } else { own.unwrap_or(system) }))
        }
    }
}

fn podman_default(env: &Environment) -> Result<Option<Address>, Fault> {
    if let Some(url) = &env.container_host {
        return from_url(url, None, env).map(Some);
    }
    let socket = match (env.uid, &env.runtime_dir) {
        (0, _) => PathBuf::from("/run/podman/podman.sock"),
        (_, Some(dir)) => dir.join("podman/podman.sock"),
        (uid, None) => PathBuf::from(format!("/run/user/{uid}/podman/podman.sock")),
    };
    Ok(socket.exists().then_some(Address::Unix(socket)))
}

/// A context is a directory named by the digest of its name:
/// <https://github.com/docker/cli/blob/v20.10.24/cli/context/store/store.go>.
fn context(name: &str, env: &Environment) -> Result<Address, Fault> {
    if name == "default" {
        return Ok(Address::Unix("/var/run/docker.sock".into()));
    }
    let wrong = |why: String| Fault::new(Phase::Engine, format!("docker context `{name}`: {why}"));
    let Some(config) = &env.docker_config else { return Err(wrong("no home directory to look for it in".to_owned())) };
    let id: String = Sha256::digest(name.as_bytes()).iter().map(|b| format!("{b:02x}")).collect();
    let path = config.join("contexts/meta").join(&id).join("meta.json");
    let text = std::fs::read_to_string(&path).map_err(|e| {
        wrong(format!("{}: {e}", path.display())).hint(format!("known contexts: {}", known_contexts(config)))
    })?;
    let meta: Value = serde_json::from_str(&text).map_err(|e| wrong(format!("{}: {e}", path.display())))?;
    let url = meta["Endpoints"]["docker"]["Host"].as_str();
    let url = url.ok_or_else(|| wrong(format!("{} names no docker endpoint", path.display())))?;
    let certificates = config.join("contexts/tls").join(&id).join("docker");
    from_url(url, certificates.is_dir().then_some(certificates.as_path()), env)
        .map_err(|fault| Fault { cause: wrong(fault.cause.clone()).cause, ..fault })
}

fn known_contexts(config: &Path) -> String {
    let mut names = vec!["default".to_owned()];
    for entry in std::fs::read_dir(config.join("contexts/meta")).into_iter().flatten().flatten().take(100) {
        let meta = std::fs::read_to_string(entry.path().join("meta.json")).unwrap_or_default();
        let meta: Value = serde_json::from_str(&meta).unwrap_or_default();
        names.extend(meta["Name"].as_str().map(str::to_owned));
    }
    names.join(", ")
}

/// `certificates` is where they are, if TLS is wanted: docker looks into its configuration's directory unless told otherwise.
fn from_url(url: &str, certificates: Option<&Path>, env: &Environment) -> Result<Address, Fault> {
    match url.split_once("://") {
        Some(("unix", path)) => Ok(Address::Unix(path.into())),
        Some((scheme @ ("tcp" | "http" | "https"), address)) => {
            let certificates = match scheme {
                "https" => Some(certificates.or(env.docker_config.as_deref()).ok_or_else(|| {
                    Fault::new(
                        Phase::Engine,
                        format!("{url} wants TLS, and there is no home directory with certificates"),
                    )
                    .hint("set DOCKER_CERT_PATH to where ca.pem, cert.pem and key.pem are")
                })?),
                _ => certificates,
            };
            tcp(address.trim_end_matches('/'), certificates.map(Tls::in_dir).as_ref())
        }
        Some(("ssh", _)) => Err(Fault::new(Phase::Engine, format!("{url} is reached over SSH"))
            .hint("declare the machine as a host with `ssh = …`; abicus forwards the engine's socket")),
        _ => Err(Fault::new(Phase::Engine, format!("`{url}` is not an address: expected unix://, tcp:// or ssh://"))),
    }
}

fn tcp(address: &str, tls: Option<&Tls>) -> Result<Address, Fault> {
    let Some((host, _)) = address.rsplit_once(':').filter(|(_, port)| port.parse::<u16>().is_ok()) else {
        let wrong = format!("`{address}` has no port: expected host:port");
        return Err(Fault::new(Phase::Engine, wrong).hint("docker uses 2376 with TLS and 2375 without"));
    };
    let Some(tls) = tls else { return Ok(Address::Tcp(address.to_owned())) };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let name = ServerName::try_from(host.to_owned())
        .map_err(|e| Fault::new(Phase::Engine, format!("`{host}` cannot stand in a certificate: {e}")))?;
    Ok(Address::Tls { address: address.to_owned(), name, connector: connector(tls)? })
}

fn connector(tls: &Tls) -> Result<TlsConnector, Fault> {
    let wrong = |path: &Path, why: String| Fault::new(Phase::Engine, format!("{}: {why}", path.display()));
    let certificates = |path: &Path| -> Result<Vec<CertificateDer<'static>>, Fault> {
        let list = CertificateDer::pem_file_iter(path)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|e| wrong(path, e.to_string()))?;
        if list.is_empty() { Err(wrong(path, "holds no certificate".to_owned())) } else { Ok(list) }
    };
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&tls.ca)? {
        roots.add(certificate).map_err(|e| wrong(&tls.ca, e.to_string()))?;
    }
    let key = PrivateKeyDer::from_pem_file(&tls.key).map_err(|e| wrong(&tls.key, e.to_string()))?;
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|e| Fault::new(Phase::Engine, e))?
        .with_root_certificates(roots)
        .with_client_auth_cert(certificates(&tls.cert)?, key)
        .map_err(|e| wrong(&tls.cert, e.to_string()))?;
    Ok(TlsConnector::from(Arc::new(config)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Unreachable;

    #[test]
    fn sockets_of_two_hosts_are_two_addresses() {
        let socket = |host: &str| {
            let reach = Arc::new(Unreachable(Fault::new(Phase::Host, "no")));
            There { host: host.parse().unwrap(), reach }.address("/run/docker.sock".to_owned()).to_string()
        };
        // What imports into one engine wait for each other by, and what errors say.
        assert_eq!(socket("rack7"), "unix:///run/docker.sock of host rack7");
        assert_ne!(socket("rack7"), socket("rack8"));
    }
}

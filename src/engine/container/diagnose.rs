//! What to tell the user: why an engine cannot be used and what to do, and which options it does not honour.

use std::io::ErrorKind;

use serde_json::Value;
use tokio_rustls::rustls::{CertificateError, Error as TlsError};

use crate::fault::{Fault, Phase};

use super::api::CallError;
use super::create::Template;
use super::fingerprint::{apparmor, rootless, selinux};
use super::quirks::Kind;
use super::transport::{Address, tls_error};

/// An engine that cannot be talked to, and what the user can do about it.
pub(super) fn unreachable(kind: Option<Kind>, address: &Address, error: &CallError) -> Fault {
    let name = kind.map_or("the engine", Kind::name);
    let fault = error.fault(Phase::Engine, &format!("{name} at {address}"));
    let CallError::Unreachable(io) = error else {
        return match error {
            CallError::Silent(_) => {
                fault.hint("the engine accepts connections and does not answer; is it stopped or overloaded?")
            }
            CallError::Broken(text) if text.contains("fatal alert") => {
                Fault { transient: false, ..fault.hint(REFUSED) }
            }
            CallError::Refused { status: 400, message } if message.contains("HTTPS") => {
                fault.hint(
                    "the engine wants TLS: give the host `tls = \"DIR\"`, where ca.pem, cert.pem and key.pem are, or set DOCKER_TLS_VERIFY",
                )
            }
            _ => fault,
        };
    };
    // Only a daemon that is about to listen is worth waiting for.
    let fault = Fault { transient: !matches!(io.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied), ..fault };
    match (address, io.kind()) {
        (Address::Unix(_) | Address::There { .. }, ErrorKind::NotFound) => fault.hint(match kind {
            None => "is the path right, and is the engine running?",
            Some(Kind::Docker) => {
                "docker is not installed or not running: install it (Debian: docker.io), or start its service"
            }
            Some(Kind::Podman) => "podman is not installed (Debian: podman), or its socket is not enabled",
        }),
        (Address::Unix(_) | Address::There { .. }, ErrorKind::PermissionDenied) => fault.hint(match kind {
            None => "the socket is there, permission denied: join the group it belongs to, or use sudo",
            Some(Kind::Docker) => "the socket is there, permission denied: add yourself to group docker or use sudo",
            Some(Kind::Podman) => {
                "the socket is there, permission denied: it is another user's; use your own podman or sudo"
            }
        }),
        (Address::Unix(_) | Address::There { .. }, ErrorKind::ConnectionRefused) => {
            fault.hint("the socket is there and nobody listens: start the engine's service")
        }
        (_, ErrorKind::ConnectionRefused) => fault.hint("nothing listens on that port"),
        _ => match tls_error(io) {
            // A wrong certificate does not become right by trying again.
            Some(error) => Fault { transient: false, ..fault.hint(certificate(error)) },
            None => fault,
        },
    }
}

fn certificate(error: &TlsError) -> &'static str {
    use CertificateError as C;
    match error {
        TlsError::InvalidCertificate(C::UnknownIssuer | C::BadSignature) => {
            "the engine's certificate is signed by another authority than `ca`"
        }
        TlsError::InvalidCertificate(C::Expired | C::ExpiredContext { .. }) => {
            "the engine's certificate has expired, or a clock is wrong"
        }
        TlsError::InvalidCertificate(C::NotValidForName | C::NotValidForNameContext { .. }) => {
            "the engine's certificate is for another name"
        }
        TlsError::AlertReceived(_) => REFUSED,
        _ => "is this a TLS port, and does the certificate fit?",
    }
}

/// Under TLS 1.3 this is known only when the first answer is read.
const REFUSED: &str = "the engine refused our certificate: it expired, or another authority signed it";

/// Refuses a runtime the engine says it does not have.
pub(super) fn runtime(kind: Kind, asked: Option<&str>, info: &Value, libpod: &Value) -> Result<(), Fault> {
    let Some(asked) = asked else { return Ok(()) };
    if kind.runtime_per_container() {
        let Some(known) = info["Runtimes"].as_object() else { return Ok(()) };
        // A name with dots is a containerd shim, which no list has.
        if known.contains_key(asked) || asked.contains('.') {
            return Ok(());
        }
        let names: Vec<_> = known.keys().map(String::as_str).collect();
        let cause = format!("{} has no runtime `{asked}`; it has {}", kind.name(), names.join(", "));
        return Err(Fault::new(Phase::Engine, cause).hint("add it to `runtimes` in the daemon's configuration"));
    }
    match libpod["host"]["ociRuntime"]["name"].as_str() {
        Some(has) if has != asked => {
            let cause =
                format!("this podman service uses runtime `{has}`, not `{asked}`, and cannot be told otherwise");
            Err(Fault::new(Phase::Engine, cause)
                .hint("on a host without `endpoint` or `context` abicus starts a service with that runtime"))
        }
        _ => Ok(()),
    }
}

/// Options that were asked for and that the engine accepts without honouring them.
pub(super) fn ignored(template: &Template, info: &Value, libpod: &Value) -> Vec<String> {
    let options = &template.options;
    let mut notes = vec![];
    if options.apparmor.is_some() && !apparmor(info, libpod) {
        notes.push("option `apparmor` has no effect: the engine's host has no AppArmor".to_owned());
    }
    if options.selinux.is_some() && !selinux(info, libpod) {
        notes.push("option `selinux` has no effect: the engine's host has no SELinux".to_owned());
    }
    // Podman accepts limits that it cannot set and says so only in the service's log.
    let powerless = rootless(info, libpod) && info["CgroupVersion"].as_str() == Some("1");
    for (asked, name, supported) in [
        (options.memory.is_some(), "memory", "MemoryLimit"),
        (options.pids_limit.is_some(), "pids_limit", "PidsLimit"),
        (options.cpus.is_some(), "cpus", "CpuCfsQuota"),
    ] {
        if asked && powerless {
            notes.push(format!("option `{name}` has no effect: a rootless engine cannot set limits on cgroup v1"));
        } else if asked && info[supported].as_bool() == Some(false) {
            notes.push(format!("option `{name}` has no effect: the engine says its host does not support it"));
        }
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::EngineOptions;
    use crate::engine::options::Size;
    use serde_json::json;

    #[test]
    fn a_runtime_the_engine_lacks_is_refused_with_the_names_it_has() {
        let info = json!({"Runtimes": {"runc": {}, "crun": {}}});
        assert!(runtime(Kind::Docker, None, &info, &Value::Null).is_ok());
        assert!(runtime(Kind::Docker, Some("crun"), &info, &Value::Null).is_ok());
        assert!(runtime(Kind::Docker, Some("io.containerd.kata.v2"), &info, &Value::Null).is_ok());
        let fault = runtime(Kind::Docker, Some("bogus"), &info, &Value::Null).unwrap_err();
        assert_eq!(fault.cause, "docker has no runtime `bogus`; it has runc, crun");
    }

    #[test]
    fn podman_is_not_believed_to_use_another_runtime_than_its_services() {
        let libpod = json!({"host": {"ociRuntime": {"name": "crun"}}});
        assert!(runtime(Kind::Podman, Some("crun"), &Value::Null, &libpod).is_ok());
        assert!(runtime(Kind::Podman, Some("runc"), &Value::Null, &libpod).is_err());
    }

    #[test]
    fn limits_that_a_rootless_engine_ignores_are_named() {
        let options = EngineOptions { memory: Some(Size(1)), pids_limit: Some(3), ..Default::default() };
        let template = Template::new(Kind::Podman, None, options).unwrap();
        let info = json!({"CgroupVersion": "1", "MemoryLimit": true});
        let rootless = json!({"host": {"security": {"rootless": true}}});
        let notes = ignored(&template, &info, &rootless);
        assert!(notes.len() == 2 && notes[0].contains("`memory`") && notes[1].contains("`pids_limit`"), "{notes:?}");
        assert!(ignored(&template, &info, &Value::Null).is_empty());
    }
}

//! User name and password for a registry, from where `docker login` and `podman login` put them.
//!
//! In: a host, the user's configuration files. Out: credentials, or none. Helpers are run as docker runs them: no shell,
//! the host on standard input, JSON on standard output. What is found is never printed.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::super::error::ImageError;

/// A user name and a password.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    user: String,
    password: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credentials({}, …)", self.user)
    }
}

impl Credentials {
    /// The value of an `Authorization` header.
    pub fn basic(&self) -> String {
        format!("Basic {}", STANDARD.encode(format!("{}:{}", self.user, self.password)))
    }
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Config {
    auths: BTreeMap<String, Auth>,
    cred_helpers: BTreeMap<String, String>,
    creds_store: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Auth {
    auth: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Helped {
    username: String,
    secret: String,
}

/// Finds the credentials for a host; a file that is not there is no error, one that is not understood is.
pub fn find(host: &str, files: &[PathBuf]) -> Result<Option<Credentials>, ImageError> {
    for file in files {
        let Ok(text) = std::fs::read(file) else { continue };
        let wrong = |why: String| ImageError::Failed {
            what: format!("credentials in `{}` cannot be used: {why}", file.display()),
            hint: format!("run `docker login {host}` again"),
            transient: false,
        };
        let config: Config = serde_json::from_slice(&text).map_err(|e| wrong(format!("line {}", e.line())))?;
        let helper = config.cred_helpers.get(host).or(config.creds_store.as_ref());
        if let Some(helper) = helper
            && let Some(found) = helped(helper, host).map_err(wrong)?
        {
            return Ok(Some(found));
        }
        let auth = config.auths.iter().find(|(key, _)| names(key, host)).and_then(|(_, auth)| auth.auth.clone());
        if let Some(auth) = auth.filter(|auth| !auth.is_empty()) {
            let plain = STANDARD.decode(auth.trim()).ok().and_then(|plain| String::from_utf8(plain).ok());
            let plain = plain.ok_or_else(|| wrong(format!("the entry for `{host}` is not base64")))?;
            let (user, password) =
                plain.split_once(':').ok_or_else(|| wrong(format!("the entry for `{host}` has no password")))?;
            return Ok(Some(Credentials {
                user: user.to_owned(),
                password: password.trim_end_matches('\0').to_owned(),
            }));
        }
    }
    Ok(None)
}

/// docker writes hosts bare, and older versions of it as URLs: `https://index.docker.io/v1/` is the default one.
fn names(key: &str, host: &str) -> bool {
    let bare = key.trim_start_matches("https://").trim_start_matches("http://").split('/').next().unwrap_or_default();
    let default = |name: &str| name == super::reference::DEFAULT_HOST || name == "index.docker.io";
    bare == host || (default(bare) && default(host))
}

/// Runs `docker-credential-HELPER get`.
fn helped(helper: &str, host: &str) -> Result<Option<Credentials>, String> {
    if helper.is_empty() || !helper.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)) {
        return Err(format!("`{helper:.50}` is no name of a credential helper"));
    }
    let program = format!("docker-credential-{helper}");
    let child =
        Command::new(&program).arg("get").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
    let mut child = child.map_err(|e| format!("`{program}` could not be started: {e}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        drop(stdin.write_all(host.as_bytes()));
    }
    let started = Instant::now();
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if started.elapsed() < Duration::from_secs(30) => std::thread::sleep(Duration::from_millis(20)),
            _ => {
                drop(child.kill());
                drop(child.wait());
                return Err(format!("`{program}` did not answer within 30 seconds"));
            }
        }
    };
    let mut answer = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        stdout.take(64 * 1024).read_to_end(&mut answer).map_err(|e| format!("`{program}`: {e}"))?;
    }
    let answer = String::from_utf8_lossy(&answer);
    if !status.success() {
        // This is how a helper says that it has none.
        let none = answer.contains("credentials not found");
        return if none { Ok(None) } else { Err(format!("`{program}` failed: {status}")) };
    }
    let found: Helped =
        serde_json::from_str(&answer).map_err(|_| format!("the answer of `{program}` is not understood"))?;
    if found.username == "<token>" {
        return Err(format!("`{program}` has an identity token for `{host}`, which needs an engine to pull"));
    }
    Ok(Some(Credentials { user: found.username, password: found.secret }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(config: &str, host: &str) -> Result<Option<Credentials>, ImageError> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config.json");
        std::fs::write(&file, config).unwrap();
        find(host, &[dir.path().join("missing"), file])
    }

    #[test]
    fn an_entry_is_found_by_its_host_and_never_printed() {
        let config = r#"{"auths":{"other":{},"example.org:5000":{"auth":"dXNlcjpwYTpzcw=="}}}"#;
        let credentials = found(config, "example.org:5000").unwrap().unwrap();
        assert_eq!((credentials.user.as_str(), credentials.password.as_str()), ("user", "pa:ss"));
        assert_eq!(format!("{credentials:?}"), "Credentials(user, …)");
        assert_eq!(credentials.basic(), "Basic dXNlcjpwYTpzcw==");
        assert_eq!(found(config, "example.org").unwrap(), None);
        let old = r#"{"auths":{"https://index.docker.io/v1/":{"auth":"dTpw"}}}"#;
        assert!(found(old, "docker.io").unwrap().is_some());
    }

    #[test]
    fn broken_entries_are_named_without_their_content() {
        for config in [
            "{",
            r#"{"auths":{"h":{"auth":"???"}}}"#,
            r#"{"auths":{"h":{"auth":"c2VjcmV0"}}}"#,
            r#"{"credHelpers":{"h":"../x"}}"#,
        ] {
            let error = found(config, "h").unwrap_err().to_string();
            assert!(error.contains("config.json") && !error.contains("secret"), "{error}");
        }
    }
}

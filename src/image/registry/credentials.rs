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
use super::reference::DEFAULT_HOST;

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

/// Finds the credentials for a repository of a host; a file that is not there is no error, one that is not understood is.
pub fn find(host: &str, repository: &str, files: &[PathBuf]) -> Result<Option<Credentials>, ImageError> {
    find_with(host, repository, files, &helped)
}

type Help<'a> = &'a dyn Fn(&str, &str) -> Result<Option<Credentials>, String>;

fn find_with(host: &str, repository: &str, files: &[PathBuf], help: Help) -> Result<Option<Credentials>, ImageError> {
    for file in files {
        let Ok(text) = std::fs::read(file) else { continue };
        let wrong = |why: String| ImageError::Failed {
            what: format!("credentials in `{}` cannot be used: {why}", file.display()),
            hint: format!("run `docker login {host}` again"),
            transient: false,
        };
        let config: Config = serde_json::from_slice(&text).map_err(|e| wrong(format!("line {}", e.line())))?;
        for name in logins(&host) {
            let helper = config.cred_helpers.get(*name).or(config.creds_store.as_ref());
            if let Some(helper) = helper
                && let Some(found) = help(helper, name).map_err(wrong)?
            {
                return Ok(Some(found));
            }
        }
        if let Some(auth) = entry(&config, host, repository) {
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

/// Under which names logins of a host are kept. `docker login` keeps those of the default registry under the address of
/// its first protocol, helpers too; `podman login` under the host:
/// <https://docs.docker.com/reference/cli/docker/login/#credential-stores>.
fn logins<'a>(host: &'a &'a str) -> &'a [&'a str] {
    if *host == DEFAULT_HOST { &DEFAULT_LOGINS } else { std::slice::from_ref(host) }
}

const DEFAULT_LOGINS: [&str; 2] = ["https://index.docker.io/v1/", DEFAULT_HOST];

/// The entry that counts: podman keeps logins of a part of a registry (`host/team`), and the longest that fits counts, see
/// containers-auth.json(5).
fn entry(config: &Config, host: &str, repository: &str) -> Option<String> {
    let parts: Vec<&str> = repository.split('/').collect();
    let scopes = (0..=parts.len()).rev().map(|n| [&[host], &parts[..n]].concat().join("/"));
    let entries = || config.auths.iter().filter_map(|(key, auth)| Some((scope(key), auth.auth.clone()?)));
    scopes
        .filter_map(|scope| entries().find(|(key, auth)| *key == scope && !auth.is_empty()))
        .map(|(_, auth)| auth)
        .next()
}

/// docker writes hosts bare, and older versions of it as URLs, whose path means nothing.
fn scope(key: &str) -> &str {
    if DEFAULT_LOGINS.contains(&key) || key == "index.docker.io" {
        return DEFAULT_HOST;
    }
    match key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")) {
        Some(rest) => rest.split('/').next().unwrap_or_default(),
        None => key.trim_end_matches('/'),
    }
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
        find(host, "team/app", &[dir.path().join("missing"), file])
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
    fn of_entries_for_parts_of_a_registry_the_longest_that_fits_counts() {
        // base64 of a:p, b:p, c:p.
        let config = r#"{"auths":{"h":{"auth":"YTpw"},"h/team":{"auth":"Yjpw"},"h/team/app":{"auth":"Yzpw"},
            "h/tea":{"auth":"ZDpw"},"https://old.example.org/v2/":{"auth":"ZTpw"},"only/other":{"auth":"Zjpw"}}}"#;
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config.json");
        std::fs::write(&file, config).unwrap();
        for (host, repository, user) in [
            ("h", "team/app", Some("c")),
            ("h", "team/app/deep", Some("c")),
            ("h", "team/tool", Some("b")),
            ("h", "teams", Some("a")),
            ("old.example.org", "x/y", Some("e")),
            ("only", "team/app", None),
        ] {
            let found = find(host, repository, std::slice::from_ref(&file)).unwrap();
            assert_eq!(found.map(|found| found.user).as_deref(), user, "{host} {repository}");
        }
    }

    #[test]
    fn a_login_to_the_default_registry_is_asked_of_helpers_under_the_name_docker_gave_it() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config.json");
        let asked = std::cell::RefCell::new(vec![]);
        let find = |config: &str, host: &str, known: &str| {
            std::fs::write(&file, config).unwrap();
            asked.borrow_mut().clear();
            let help = |helper: &str, name: &str| {
                asked.borrow_mut().push(format!("{helper} {name}"));
                let user = || Credentials { user: helper.to_owned(), password: "p".to_owned() };
                Ok((name == known).then(user))
            };
            find_with(host, "library/debian", std::slice::from_ref(&file), &help).unwrap().map(|found| found.user)
        };
        let hub = "https://index.docker.io/v1/";
        let store = r#"{"credsStore":"store"}"#;
        assert_eq!(find(store, "docker.io", hub).as_deref(), Some("store"));
        assert_eq!(find(store, "docker.io", "docker.io").as_deref(), Some("store"));
        assert_eq!(find(store, "docker.io", "other"), None);
        assert_eq!(*asked.borrow(), [format!("store {hub}"), "store docker.io".to_owned()]);
        let helpers = format!(r#"{{"credHelpers":{{"{hub}":"own"}},"credsStore":"store"}}"#);
        assert_eq!(find(&helpers, "docker.io", hub).as_deref(), Some("own"));
        assert_eq!(find(store, "example.org", "example.org").as_deref(), Some("store"));
        assert_eq!(*asked.borrow(), ["store example.org"]);
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

//! Requests to one registry: authentication, retries, downloads that go on where they broke off.
//!
//! In: paths below `/v2/`. Out: small bodies, and blobs in files whose digest was checked. Every read has a deadline, every
//! body a bound. Credentials go to the registry and to the token server it names, over TLS or to this machine itself only;
//! they do not follow a redirect to another place.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde::Deserialize;
use ureq::http::Response;
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::{Agent, Body};

use super::super::blob::{Cancel, Counted};
use super::super::error::ImageError;
use super::super::inspect::printable;
use super::credentials::Credentials;
use super::reference::Reference;

/// Largest manifest or token.
const MAX_SMALL: u64 = 4 << 20;

/// One way to reach a registry.
pub struct Endpoint<'a> {
    agent: Agent,
    /// `https://registry.example.org`.
    pub base: String,
    reference: &'a Reference,
    credentials: Option<Credentials>,
    authorization: Mutex<Option<String>>,
    attempts: u32,
    cancel: Cancel,
}

/// What a request came to, if it did not come to an answer.
enum Broken {
    /// Worth another attempt.
    Passing(String),
    /// Not.
    Final(ImageError),
}

impl<'a> Endpoint<'a> {
    /// Nothing sent yet.
    pub fn new(
        base: String,
        reference: &'a Reference,
        credentials: Option<Credentials>,
        attempts: u32,
        cancel: Cancel,
    ) -> Self {
        let second = Duration::from_secs(1);
        let secure = base.starts_with("https:");
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            .https_only(secure)
            .max_redirects(5)
            .timeout_connect(Some(10 * second))
            .timeout_recv_response(Some(60 * second))
            .timeout_per_read(Some(30 * second))
            .user_agent(concat!("abicus/", env!("CARGO_PKG_VERSION")));
        if secure {
            let system = rustls_native_certs::load_native_certs().certs;
            let roots = system.iter().map(|der| Certificate::from_der(der.as_ref()).to_owned()).collect::<Vec<_>>();
            config = config.tls_config(TlsConfig::builder().root_certs(RootCerts::from(roots)).build());
        }
        let agent = Agent::new_with_config(config.build());
        Self { agent, base, reference, credentials, authorization: Mutex::default(), attempts, cancel }
    }

    /// A manifest or index, with the digest the registry says it has.
    pub fn manifest(&self, version: &str) -> Result<(Vec<u8>, Option<String>), ImageError> {
        const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
            application/vnd.docker.distribution.manifest.list.v2+json, \
            application/vnd.docker.distribution.manifest.v2+json";
        let path = format!("manifests/{version}");
        self.persist(|| {
            let response = self.ask(&path, &[("Accept", ACCEPT)])?;
            let digest = response.headers().get("docker-content-digest").and_then(|value| value.to_str().ok());
            let digest = digest.map(str::to_owned);
            Ok((small(response)?, digest))
        })
    }

    /// Downloads a blob to `file`, going on with what is there. Says how much there is at every step.
    pub fn blob(&self, digest: &str, size: u64, file: &Path, told: &dyn Fn(u64)) -> Result<(), ImageError> {
        let mut fresh = !file.exists();
        loop {
            let mut before = length(file);
            loop {
                let round = self.persist_while(
                    || self.part(digest, size, file, told),
                    || {
                        // An attempt that brought something does not count: slow lines break often.
                        let now = length(file);
                        std::mem::replace(&mut before, now) < now
                    },
                );
                round?;
                if length(file) >= size {
                    break;
                }
            }
            let open = File::open(file).map_err(ImageError::io("could not open", file))?;
            let got = Counted::new(open, self.cancel.clone()).digest().map_err(super::super::tape::read::reading)?;
            if got == digest {
                return Ok(());
            }
            fs::remove_file(file).map_err(ImageError::io("could not remove", file))?;
            // What an earlier run left may have been damaged since; what came just now was not.
            if fresh {
                let what = format!("what the registry `{}` serves", self.reference.host);
                return Err(ImageError::Digest { what, wanted: digest.to_owned(), got });
            }
            fresh = true;
        }
    }

    fn part(&self, digest: &str, size: u64, path: &Path, told: &dyn Fn(u64)) -> Result<(), Broken> {
        let local = |e: std::io::Error| Broken::Final(ImageError::io("could not write", path)(e));
        let mut file = File::options().create(true).truncate(false).write(true).open(path).map_err(local)?;
        let mut have = file.metadata().map_err(local)?.len();
        if have >= size && size > 0 {
            return Ok(());
        }
        let range = format!("bytes={have}-");
        let headers = [("Range", range.as_str())];
        let response = self.ask(&format!("blobs/{digest}"), if have > 0 { &headers } else { &[] })?;
        if response.status() != 206 {
            have = 0;
            file.set_len(0).map_err(local)?;
        }
        file.seek(SeekFrom::Start(have)).map_err(local)?;
        let mut body = response.into_body().into_reader();
        let mut buffer = vec![0; 128 * 1024];
        loop {
            if self.cancel.load(Ordering::Relaxed) {
                return Err(Broken::Final(ImageError::Interrupted));
            }
            let n = body.read(&mut buffer).map_err(|e| Broken::Passing(e.to_string()))?;
            if n == 0 {
                break;
            }
            have += n as u64;
            if have > size {
                let what =
                    format!("the registry `{}` sends more than the {size} bytes of `{digest}`", self.reference.host);
                return Err(Broken::Final(ImageError::TooLarge(what)));
            }
            file.write_all(&buffer[..n]).map_err(local)?;
            told(have);
        }
        if have < size {
            Err(Broken::Passing(format!("the connection ended after {have} of {size} bytes")))
        } else {
            Ok(())
        }
    }

    fn persist<T>(&self, attempt: impl FnMut() -> Result<T, Broken>) -> Result<T, ImageError> {
        self.persist_while(attempt, || false)
    }

    /// Tries again, after growing pauses, while what went wrong may pass.
    fn persist_while<T>(
        &self,
        mut attempt: impl FnMut() -> Result<T, Broken>,
        mut moved: impl FnMut() -> bool,
    ) -> Result<T, ImageError> {
        let mut failures = 0;
        loop {
            let why = match attempt() {
                Ok(done) => return Ok(done),
                Err(Broken::Final(error)) => return Err(error),
                Err(Broken::Passing(why)) => why,
            };
            failures = if moved() { 1 } else { failures + 1 };
            if failures >= self.attempts {
                return Err(ImageError::Failed {
                    what: format!(
                        "registry `{}` failed {failures} times, the last time: {}",
                        self.reference.host,
                        printable(&why)
                    ),
                    hint: "see whether it is up and reachable from here".to_owned(),
                    transient: true,
                });
            }
            for _ in 0..(5 << failures.min(5)) {
                if self.cancel.load(Ordering::Relaxed) {
                    return Err(ImageError::Interrupted);
                }
                std::thread::sleep(Duration::from_millis(50));
            }
        }
    }

    /// One request, authenticated if the registry wants that.
    fn ask(&self, path: &str, headers: &[(&str, &str)]) -> Result<Response<Body>, Broken> {
        let url = format!("{}/v2/{}/{path}", self.base, self.reference.repository);
        let response = self.send(&url, headers, self.authorization())?;
        let response = if response.status() == 401 {
            let challenges: Vec<String> = response
                .headers()
                .get_all("www-authenticate")
                .iter()
                .filter_map(|value| value.to_str().ok().map(str::to_owned))
                .collect();
            let authorization = self.answer(&challenges)?;
            if let Ok(mut kept) = self.authorization.lock() {
                *kept = Some(authorization.clone());
            }
            self.send(&url, headers, Some(authorization))?
        } else {
            response
        };
        let status = response.status().as_u16();
        match status {
            200 | 206 => Ok(response),
            416 => Err(Broken::Passing("the part of a blob that is wanted is not there".to_owned())),
            408 | 429 | 500.. => Err(Broken::Passing(format!("{status} {}", said(response)))),
            401 | 403 => Err(Broken::Final(self.refused(&said(response)))),
            404 => Err(Broken::Final(ImageError::Missing {
                what: format!(
                    "registry `{}` has no `{}` in `{}`: {}",
                    self.reference.host,
                    short(path),
                    self.reference.repository,
                    said(response)
                ),
                hint: "check the name and the tag; some registries say this too when they want a login".to_owned(),
            })),
            _ => Err(Broken::Final(ImageError::Failed {
                what: format!("registry `{}` answers {status}: {}", self.reference.host, said(response)),
                hint: String::new(),
                transient: false,
            })),
        }
    }

    fn authorization(&self) -> Option<String> {
        self.authorization.lock().ok().and_then(|kept| kept.clone())
    }

    fn send(
        &self,
        url: &str,
        headers: &[(&str, &str)],
        authorization: Option<String>,
    ) -> Result<Response<Body>, Broken> {
        let mut request = self.agent.get(url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(authorization) = authorization {
            request = request.header("Authorization", authorization);
        }
        request.call().map_err(|error| self.broken(&error))
    }

    fn broken(&self, error: &ureq::Error) -> Broken {
        match error {
            ureq::Error::Io(_) | ureq::Error::Timeout(_) | ureq::Error::ConnectionFailed => {
                Broken::Passing(error.to_string())
            }
            ureq::Error::HostNotFound => Broken::Final(ImageError::Failed {
                what: format!("registry `{}` is not known by that name here", self.reference.host),
                hint: "check the name, and the name service of this machine".to_owned(),
                transient: true,
            }),
            other => Broken::Final(ImageError::Failed {
                what: format!("registry `{}` cannot be talked to: {other}", self.reference.host),
                hint:
                    "a registry without TLS has to be listed as insecure; one with a certificate of its own needs that \
                       certificate among the system's"
                        .to_owned(),
                transient: false,
            }),
        }
    }

    fn refused(&self, why: &str) -> ImageError {
        let host = &self.reference.host;
        let (what, hint) = match &self.credentials {
            Some(_) => (format!("registry `{host}` refuses the credentials: {why}"), "log in again"),
            None => {
                (format!("registry `{host}` wants a login for `{}`: {why}", self.reference.repository), "log in first")
            }
        };
        ImageError::Failed {
            what,
            hint: format!("{hint}: `docker login {host}` or `podman login {host}`"),
            transient: false,
        }
    }

    /// The answer to a challenge: the password itself, or a token from the server that is named.
    fn answer(&self, challenges: &[String]) -> Result<String, Broken> {
        #[derive(Deserialize)]
        struct Token {
            token: Option<String>,
            access_token: Option<String>,
        }
        let bearer = challenges.iter().find_map(|challenge| parameters(challenge, "bearer"));
        let Some(parameters) = bearer else {
            return match &self.credentials {
                Some(credentials) => Ok(credentials.basic()),
                None => Err(Broken::Final(self.refused("no user name and password are known"))),
            };
        };
        let of = |name: &str| parameters.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
        let realm = of("realm").unwrap_or_default();
        let scope = format!("repository:{}:pull", self.reference.repository);
        let mut url = format!("{realm}{}scope={}", if realm.contains('?') { '&' } else { '?' }, escape(&scope));
        if let Some(service) = of("service") {
            url = format!("{url}&service={}", escape(service));
        }
        let response = self.send(&url, &[], self.credentials.as_ref().map(Credentials::basic))?;
        match response.status().as_u16() {
            200 => {}
            status @ (408 | 429 | 500..) => return Err(Broken::Passing(format!("the token server answers {status}"))),
            status => return Err(Broken::Final(self.refused(&format!("the token server answers {status}")))),
        }
        let token: Token = serde_json::from_slice(&small(response)?)
            .map_err(|_| Broken::Final(self.refused("the token server's answer is not understood")))?;
        let token = token.token.or(token.access_token).filter(|token| token.bytes().all(|b| b.is_ascii_graphic()));
        let token = token.ok_or_else(|| Broken::Final(self.refused("the token server gave no token")))?;
        Ok(format!("Bearer {token}"))
    }
}

/// Whether a registry answers without TLS. One that wants TLS says "bad request" to this, or nothing.
pub fn speaks_plainly(address: &str) -> bool {
    let config = Agent::config_builder().http_status_as_error(false).timeout_global(Some(Duration::from_secs(5)));
    match Agent::new_with_config(config.build()).get(format!("http://{address}/v2/")).call() {
        Ok(response) => response.status() != 400,
        // If it cannot be reached at all, either way will say so.
        Err(error) => matches!(error, ureq::Error::Io(_) | ureq::Error::ConnectionFailed),
    }
}

fn length(file: &Path) -> u64 {
    fs::metadata(file).map_or(0, |metadata| metadata.len())
}

fn small(response: Response<Body>) -> Result<Vec<u8>, Broken> {
    let mut bytes = Vec::new();
    let read = response.into_body().into_reader().take(MAX_SMALL + 1).read_to_end(&mut bytes);
    read.map_err(|e| Broken::Passing(e.to_string()))?;
    if bytes.len() as u64 > MAX_SMALL {
        return Err(Broken::Final(ImageError::TooLarge(format!(
            "an answer of the registry of over {MAX_SMALL} bytes"
        ))));
    }
    Ok(bytes)
}

/// What the registry says in words: the first error of its JSON, or nothing.
fn said(response: Response<Body>) -> String {
    let body = small(response).unwrap_or_default();
    let json: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
    let first = &json["errors"][0];
    let text = |key: &str| first[key].as_str().map(printable).unwrap_or_default();
    format!("{} {}", text("code"), text("message")).trim().to_owned()
}

fn short(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// `Bearer realm="…",service="…"` → its parameters, if the scheme is that one.
fn parameters(challenge: &str, scheme: &str) -> Option<Vec<(String, String)>> {
    let (name, mut rest) = challenge.trim().split_once(' ')?;
    if !name.eq_ignore_ascii_case(scheme) {
        return None;
    }
    let mut found = Vec::new();
    while let Some((key, after)) = rest.split_once('=') {
        let key = key.trim_matches([' ', ',']).to_ascii_lowercase();
        let (value, more) = match after.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"')?,
            None => after.split_once(',').unwrap_or((after, "")),
        };
        found.push((key, value.to_owned()));
        rest = more;
    }
    Some(found)
}

fn escape(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_challenge_is_taken_apart_with_commas_inside_quotes() {
        let challenge =
            r#"Bearer realm="https://auth.example.org/token?a=b",service="reg",scope="repository:x:pull,push""#;
        let found = parameters(challenge, "bearer").unwrap();
        assert_eq!(found[0], ("realm".to_owned(), "https://auth.example.org/token?a=b".to_owned()));
        assert_eq!(found[2].1, "repository:x:pull,push");
        assert_eq!(parameters("Basic realm=\"x\"", "bearer"), None);
    }

    #[test]
    fn parameters_of_a_url_are_escaped() {
        assert_eq!(escape("repository:a/b:pull&x=é"), "repository%3Aa%2Fb%3Apull%26x%3D%C3%A9");
    }
}

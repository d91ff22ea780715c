//! The thin layer over bollard: a deadline round every call, bodies of bounded size, JSON read tolerantly, and errors that
//! keep what matters (could not connect, no answer in time, refused with a status, broke).
//!
//! Bollard's own timeout ends with the response's headers, and its models are strict enums that an engine's newer or other
//! word turns into an error, so what abicus reads by name it reads as plain JSON. This room knows no cell.

use std::fmt;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bollard::errors::Error;
use bollard::{BollardRequest, ClientVersion, Docker};
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use http_body_util::{BodyExt, Either, Full, Limited};
use hyper::Method;
use serde_json::Value;

use crate::fault::{Fault, Phase};

use super::transport::{Address, NotConnected};

/// How long an ordinary call may take: an engine under load takes seconds, a stalled one forever.
pub(super) const CALL: Duration = Duration::from_secs(60);
/// How long an answer about the engine itself may take.
pub(super) const ANSWER: Duration = Duration::from_secs(15);
/// How long a stream that carries an image may be silent.
pub(super) const SILENCE: Duration = Duration::from_secs(300);
/// Largest JSON body read.
const MAX_JSON: usize = 8 << 20;

/// Why a call failed.
#[derive(Debug)]
pub(super) enum CallError {
    /// No connection: nothing was asked.
    Unreachable(io::Error),
    /// No complete answer in this time.
    Silent(Duration),
    /// The engine refused.
    Refused { status: u16, message: String },
    /// The connection broke, or the answer makes no sense.
    Broken(String),
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(error) => write!(f, "cannot connect: {error}"),
            Self::Silent(limit) => write!(f, "no answer within {} s", limit.as_secs_f32()),
            Self::Refused { status, message } => write!(f, "refused ({status}): {}", message.trim()),
            Self::Broken(why) => f.write_str(why),
        }
    }
}

impl CallError {
    /// Whether the engine itself is at fault or away, rather than the request.
    pub(super) fn is_outage(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::Silent(_) | Self::Broken(_) => true,
            Self::Refused { .. } => false,
        }
    }

    /// The status of a refusal.
    pub(super) fn status(&self) -> Option<u16> {
        match self {
            Self::Refused { status, .. } => Some(*status),
            _ => None,
        }
    }

    /// A fault of this phase; an outage is worth another attempt and belongs to the connection once a cell is under way.
    pub(super) fn fault(&self, phase: Phase, what: &str) -> Fault {
        let fault = Fault::new(phase, format!("{what}: {self}"));
        let fault = match self.remedy() {
            Some(remedy) => fault.hint(remedy),
            None => fault,
        };
        if self.is_outage() { fault.transient() } else { fault }
    }

    /// What to do where the engine's storage takes nothing any more: strerror(3) of ENOSPC, EDQUOT and EIO.
    fn remedy(&self) -> Option<&'static str> {
        let Self::Refused { message, .. } = self else { return None };
        let said = message.to_lowercase();
        if said.contains("no space left on device") || said.contains("disk quota exceeded") {
            return Some("the engine's storage is full: remove images that nobody needs there, or give it more room");
        }
        said.contains("input/output error").then_some(
            "the disk under the engine's storage does not take what is written: that of a virtual machine grows in TMPDIR \
             of the machine that runs it, which may be full; any other may be broken (see dmesg)",
        )
    }
}

impl From<Error> for CallError {
    fn from(error: Error) -> Self {
        match error {
            Error::DockerResponseServerError { status_code, message } => Self::Refused { status: status_code, message },
            Error::DockerStreamError { error } => Self::Refused { status: 500, message: error },
            Error::IOError { err } if err.get_ref().is_some_and(|e| e.is::<NotConnected>()) => Self::Unreachable(err),
            other => Self::Broken(chain(&other)),
        }
    }
}

/// An error and its sources in one line: hyper says `connection error` and only its source says why.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let next = error.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        source = error.source();
    }
    text
}

/// A connection to an engine's API.
#[derive(Clone)]
pub(super) struct Api {
    /// For the calls whose answers bollard's models read well.
    pub(super) docker: Docker,
    address: Arc<Address>,
}

impl Api {
    /// A client for an address; asks the engine which version of the API it speaks.
    pub(super) async fn connect(address: Address) -> Result<(Self, Value), CallError> {
        let address = Arc::new(address);
        let version = get(&address, "/version", ANSWER).await?;
        let spoken = version["ApiVersion"].as_str().and_then(parse_version);
        let Some(spoken) = spoken else {
            return Err(CallError::Broken(format!("{address} answers, but not as a container engine does")));
        };
        let ours = bollard::API_DEFAULT_VERSION;
        let negotiated = if spoken < *ours { spoken } else { *ours };
        let wire = address.clone();
        let docker = Docker::connect_with_custom_transport(
            move |request: BollardRequest| wire.clone().send(request),
            Some("http://engine"),
            // Deadlines are ours, and longer than bollard's default for long jobs.
            u64::from(u32::MAX),
            &negotiated,
        )?;
        Ok((Self { docker, address }, version))
    }

    /// Where this talks to.
    pub(super) fn address(&self) -> &Address {
        &self.address
    }

    /// One answer as plain JSON.
    pub(super) async fn get(&self, path: &str) -> Result<Value, CallError> {
        self.get_within(path, CALL).await
    }

    /// The same within a time.
    pub(super) async fn get_within(&self, path: &str, limit: Duration) -> Result<Value, CallError> {
        get(&self.address, path, limit).await
    }

    /// One call of bollard's, whole, within a time.
    pub(super) async fn call<T>(
        &self,
        limit: Duration,
        call: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, CallError> {
        within(self.address.stretched(limit), call).await
    }

    /// Reads a stream of bollard's to its end, giving up when it is silent for too long.
    pub(super) async fn drain<T>(
        &self,
        stream: impl Stream<Item = Result<T, Error>>,
        mut each: impl FnMut(T) -> Result<(), CallError>,
    ) -> Result<(), CallError> {
        let mut stream = std::pin::pin!(stream);
        let limit = self.address.stretched(SILENCE);
        loop {
            match tokio::time::timeout(limit, stream.next()).await {
                Err(_) => return Err(CallError::Silent(limit)),
                Ok(None) => return Ok(()),
                Ok(Some(item)) => each(item?)?,
            }
        }
    }
}

async fn within<T>(limit: Duration, call: impl Future<Output = Result<T, Error>>) -> Result<T, CallError> {
    match tokio::time::timeout(limit, call).await {
        Ok(result) => result.map_err(CallError::from),
        Err(_) => Err(CallError::Silent(limit)),
    }
}

async fn get(address: &Arc<Address>, path: &str, limit: Duration) -> Result<Value, CallError> {
    let limit = address.stretched(limit);
    let request = hyper::Request::builder()
        .method(Method::GET)
        .uri(format!("http://engine{path}"))
        .body(Either::Left(Full::new(Bytes::new())))
        .map_err(Error::from)?;
    let exchange = async {
        let response = address.clone().send(request).await.map_err(CallError::from)?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_JSON).collect().await;
        let body = body.map_err(|e| CallError::Broken(format!("{path}: {}", chain(&*e))))?.to_bytes();
        if !status.is_success() {
            let message = serde_json::from_slice::<Value>(&body)
                .ok()
                .and_then(|v| v["message"].as_str().map(str::to_owned))
                .unwrap_or_else(|| String::from_utf8_lossy(&body).into_owned());
            return Err(CallError::Refused { status: status.as_u16(), message });
        }
        serde_json::from_slice(&body).map_err(|e| CallError::Broken(format!("{path} is not JSON: {e}")))
    };
    tokio::time::timeout(limit, exchange).await.unwrap_or(Err(CallError::Silent(limit)))
}

fn parse_version(text: &str) -> Option<ClientVersion> {
    let (major, minor) = text.split_once('.')?;
    Some(ClientVersion { major_version: major.parse().ok()?, minor_version: minor.parse().ok()? })
}

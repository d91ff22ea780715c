//! What abicus adds to docker or podman: its whole cell beside the fewest calls that run a container, on the same daemon,
//! with the same image and program, at the same parallelism, in turn.
//!
//!     cargo bench --bench container_floor -- docker [CELLS [PARALLEL…]]
//!
//! Prints the figures of `ci/bench`: name, value, unit, limit. Only the ratio has one: times are this machine's and hour's.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use abicus::engine::container::{ContainerEngine, Endpoint, Environment, Kind};
use abicus::engine::{Ended, Engine, EngineOptions, Facts, Job, Payload, Prepared};
use abicus::image::{Content, Image};
use futures_util::StreamExt;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

/// At most this much of the floor's time (a cell's own program apart, which exits at once).
const LIMIT: f64 = 1.05;

/// The fewest calls, by hand: no retry, no deadline, no clean-up after a failure.
struct Floor {
    socket: PathBuf,
    kind: Kind,
    image: String,
    payload: PathBuf,
    hosts: PathBuf,
}

impl Floor {
    async fn call(&self, method: &str, path: &str, headers: &str, body: &str) -> (u16, Vec<u8>) {
        let mut stream = UnixStream::connect(&self.socket).await.unwrap();
        let length = body.len();
        let request = format!(
            "{method} /v1.41{path} HTTP/1.0\r\nHost: engine\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = vec![];
        stream.read_to_end(&mut answer).await.unwrap();
        let head = answer.windows(4).position(|w| w == b"\r\n\r\n").expect("an answer") + 4;
        let status = String::from_utf8_lossy(&answer[9..12]).parse().unwrap();
        (status, answer.split_off(head))
    }

    async fn json(&self, method: &str, path: &str, body: &str) -> Value {
        let (status, body) = self.call(method, path, "", body).await;
        assert!((200..300).contains(&status), "{method} {path}: {status} {}", String::from_utf8_lossy(&body));
        serde_json::from_slice(&body).unwrap_or(Value::Null)
    }

    async fn cell(&self) {
        let mut mounts = vec![json!({"Type": "bind", "Source": self.payload, "Target": "/.abicus", "ReadOnly": true})];
        if self.kind == Kind::Docker {
            mounts.push(json!({"Type": "bind", "Source": self.hosts, "Target": "/etc/hosts", "ReadOnly": true}));
        }
        let body = json!({
            "Image": self.image, "Entrypoint": ["/.abicus/busybox"], "Cmd": ["true"],
            "AttachStdout": true, "AttachStderr": true, "NetworkDisabled": self.kind == Kind::Docker,
            "HostConfig": {"NetworkMode": "none", "LogConfig": {"Type": "none"}, "Mounts": mounts, "Ulimits": self.ulimits()},
        });
        let made = self.json("POST", "/containers/create", &body.to_string()).await;
        let id = made["Id"].as_str().unwrap();
        // Attached before the start, read to its end.
        let mut attached = UnixStream::connect(&self.socket).await.unwrap();
        let request = format!(
            "POST /v1.41/containers/{id}/attach?stream=1&stdout=1&stderr=1 HTTP/1.1\r\nHost: engine\r\n\
             Connection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 0\r\n\r\n"
        );
        attached.write_all(request.as_bytes()).await.unwrap();
        let mut head = vec![0; 1024];
        let n = attached.read(&mut head).await.unwrap();
        assert!(head[..n].starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&head[..n]));
        self.json("POST", &format!("/containers/{id}/start"), "").await;
        attached.read_to_end(&mut vec![]).await.unwrap();
        match self.kind {
            Kind::Docker => {
                self.json("POST", &format!("/containers/{id}/wait?condition=not-running"), "").await;
            }
            Kind::Podman => loop {
                let seen = self.json("GET", &format!("/containers/{id}/json"), "").await;
                if matches!(seen["State"]["Status"].as_str(), Some("exited" | "stopped")) {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            },
        }
        let seen = self.json("GET", &format!("/containers/{id}/json"), "").await;
        assert_eq!(seen["State"]["ExitCode"], 0);
        self.json("DELETE", &format!("/containers/{id}?force=1&v=1"), "").await;
    }

    fn ulimits(&self) -> Value {
        match self.kind {
            Kind::Docker => json!([]),
            Kind::Podman => {
                json!([{"Name": "nofile", "Soft": 4096, "Hard": 4096}, {"Name": "nproc", "Soft": 4096, "Hard": 4096}])
            }
        }
    }
}

async fn timed<F: Future<Output = ()>>(cells: usize, parallel: usize, cell: impl Fn() -> F) -> Duration {
    let began = Instant::now();
    futures_util::stream::iter(0..cells).for_each_concurrent(parallel, |_| cell()).await;
    began.elapsed()
}

#[tokio::main]
async fn main() {
    // `cargo bench` adds an argument of its own.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    let (kind, socket) = match arguments.first().map(String::as_str) {
        Some("docker") => (Kind::Docker, PathBuf::from("/var/run/docker.sock")),
        Some("podman") => (Kind::Podman, PathBuf::from("/run/podman/podman.sock")),
        // `cargo test --benches` comes without arguments.
        _ => return println!("usage: container_floor docker|podman [CELLS [PARALLEL…]]"),
    };
    let socket = std::env::var_os("ABICUS_BENCH_SOCKET").map_or(socket, PathBuf::from);
    let numbers: Vec<usize> = arguments[1..].iter().map(|a| a.parse().expect("a number")).collect();
    let cells = numbers.first().copied().unwrap_or(24);
    let parallel = if numbers.len() > 1 { numbers[1..].to_vec() } else { vec![1, 2, 4] };

    let dir = tempfile::tempdir().unwrap();
    let payload = dir.path().join("payload");
    std::fs::create_dir(&payload).unwrap();
    std::fs::copy("/bin/busybox", payload.join("busybox")).expect("busybox-static is installed");
    for path in [dir.path(), &payload] {
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
    }
    let hosts = dir.path().join("hosts");
    std::fs::write(&hosts, "127.0.0.1\tlocalhost\n").unwrap();

    let endpoint = Endpoint::Unix(socket.clone());
    let engine =
        ContainerEngine::new(kind, endpoint, None, EngineOptions::default(), Environment::of_process()).unwrap();
    let image = engine.prepare(&scratch()).await.unwrap();
    let job = Job {
        run: "bench".parse().unwrap(),
        cell: "local:bench:scratch".parse().unwrap(),
        attempt: 1,
        argv: vec!["/.abicus/busybox".to_owned(), "true".to_owned()],
        payload: Arc::new(Payload { dir: payload.clone(), digest: "busybox".to_owned() }),
        deadline: Duration::from_secs(60),
        output_cap: 1 << 20,
    };
    let floor = Floor { socket, kind, image: image.0.clone(), payload, hosts };
    let ours = || cell(&engine, &job, &image);

    // Both once, for the caches and the canary.
    ours().await;
    floor.cell().await;
    for width in parallel {
        // Rounds in turn, and the median of their ratios: the machine's other work falls on both.
        let mut rounds: Vec<(Duration, Duration)> = vec![];
        for round in 0..5 {
            let pair = if round % 2 == 0 {
                let ours = timed(cells, width, ours).await;
                (ours, timed(cells, width, || floor.cell()).await)
            } else {
                let floor = timed(cells, width, || floor.cell()).await;
                (timed(cells, width, ours).await, floor)
            };
            rounds.push(pair);
        }
        rounds.sort_by(|a, b| ratio(a).total_cmp(&ratio(b)));
        let middle = rounds[rounds.len() / 2];
        let per_cell = |time: Duration| time.as_secs_f64() * 1000.0 / cells as f64;
        let name = kind.name();
        println!("{name} x{width}: abicus\t{:.1}\tms", per_cell(middle.0));
        println!("{name} x{width}: floor\t{:.1}\tms", per_cell(middle.1));
        println!("{name} x{width}: ratio\t{:.3}\tx\t{LIMIT}", ratio(&middle));
    }
    engine.sweep(Some(&job.run)).await.unwrap();
}

fn ratio((ours, floor): &(Duration, Duration)) -> f64 {
    ours.as_secs_f64() / floor.as_secs_f64()
}

async fn cell(engine: &ContainerEngine, job: &Job, image: &Prepared) {
    let attempt = engine.run(job, image).await;
    assert_eq!(attempt.ended, Ok(Ended::Exit(0)), "{:?}", attempt.notes);
}

fn scratch() -> Image {
    Image {
        id: "scratch".parse().unwrap(),
        digest: "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855".to_owned(),
        content: Content::Empty,
        architecture: None,
        loader: None,
        facts: Facts::new(),
    }
}

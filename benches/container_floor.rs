//! What abicus adds to docker or podman: its whole cell beside the fewest calls that run a container, on the same daemon,
//! with the same image and program, at the same parallelism, in turn.
//!
//!     cargo bench --bench container_floor -- docker [CELLS [PARALLEL…]]
//!
//! Prints the figures of `ci/bench`: name, value, unit, limit. Only the ratio has one: times are this machine's and hour's.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod floor;

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use abicus::engine::container::{ContainerEngine, Endpoint, Environment, Kind};
use abicus::engine::{Ended, Engine, EngineOptions, Facts, Job, Payload, Prepared};
use abicus::image::{Content, Image};
use floor::Floor;
use futures_util::StreamExt;

/// At most this much of the floor's time (a cell's own program apart, which exits at once).
const LIMIT: f64 = 1.05;
/// Many and short: a busy second falls on few of them.
const ROUNDS: usize = 21;

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
    let cells = numbers.first().copied().unwrap_or(8);
    let parallel = if numbers.len() > 1 { numbers[1..].to_vec() } else { vec![1, 2, 4, 8] };

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
    let argv = job.argv.clone();
    let floor = Floor { socket, kind, image: image.0.clone(), payload, hosts, argv };
    let ours = || cell(&engine, &job, &image);

    // Both once, for the caches and the canary.
    ours().await;
    floor.cell().await;
    for width in parallel {
        // Rounds in turn, and the median of their ratios: the machine's other work falls on both.
        let mut rounds: Vec<(Duration, Duration)> = vec![];
        for round in 0..ROUNDS {
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
    // Kept for a next run, which there is none of.
    let mut remove = std::process::Command::new(kind.name());
    let removed = remove.args(["rmi", "--force", &image.0]).output().expect("the engine's command is installed");
    assert!(removed.status.success(), "{}", String::from_utf8_lossy(&removed.stderr));
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
        id: "bench".parse().unwrap(),
        digest: "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855".to_owned(),
        content: Content::Empty,
        architecture: None,
        loader: None,
        facts: Facts::new(),
    }
}

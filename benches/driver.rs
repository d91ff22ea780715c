//! What the whole driver costs a cell beyond its engine: `execute` with slots, retries, journal, evidence and the collected
//! vector, beside the engine's fewest calls with the same image and program, at the same parallelism, in turn.
//!
//!     cargo bench --bench driver [-- docker|built-in…]
//!
//! The program says what a probe of one check says and ends at once, so what probes cost is not in it. A run's time is from
//! its first cell's start to its last cell's end: what a run does once (looking at the host, proving the engine, making
//! images ready) has a line of its own. Needs root, a C compiler and the engines. Prints figures for `ci/bench`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod floor;
mod launcher;

use std::collections::HashMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use abicus::engine::builtin::BuiltIn;
use abicus::engine::container::Kind;
use abicus::engine::{EngineOptions, Job, Payload, Prepared};
use abicus::execute::{Event, Rig, execute};
use abicus::host::{self, Local};
use abicus::image::ImageStore;
use abicus::image::registry::Access;
use abicus::plan::Plan;
use abicus::spec::{Matrix, World};
use abicus::store::{FORMAT, RunInfo, RunWriter, State};
use floor::Floor;
use futures_util::StreamExt;
use tokio::sync::{mpsc, watch};

/// At most this much of the floor's time.
const LIMITS: [(&str, f64); 2] = [("docker", 1.10), ("built-in", 1.15)];

/// A probe of one check that ends at once.
const PROBE: &str = r#"
#include <unistd.h>
static const char said[] =
    "{\"abicus\":1,\"probe\":\"kernel\",\"version\":\"0\",\"arch\":\"x86_64\",\"planned\":1}\n"
    "{\"check\":\"dev.null.discard\",\"saw\":\"ok\"}\n"
    "{\"end\":\"kernel\",\"reported\":1}\n";
int main(void) { return write(1, said, sizeof said - 1) != sizeof said - 1; }
"#;

/// The beginning of the digest of nothing, by which the empty image is tagged.
const EMPTY: &str = "e3b0c44298fc";

fn main() {
    let names: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let dir = tempfile::Builder::new().prefix("abicus-bench-").tempdir_in("/var/tmp").unwrap();
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let payload = dir.path().join("payload");
    std::fs::create_dir(&payload).unwrap();
    std::fs::write(dir.path().join("probe.c"), PROBE).unwrap();
    let compiled = Command::new("cc")
        .args(["-O1", "-static", "-o"])
        .args([payload.join("kernel"), dir.path().join("probe.c")])
        .status();
    assert!(compiled.expect("a C compiler is installed").success());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    for (name, limit) in LIMITS.into_iter().filter(|(name, _)| names.is_empty() || names.iter().any(|n| n == name)) {
        // A light engine's cells are over before the machine has shown how busy it is.
        let (cells, rounds) = if name == "docker" { (24, 5) } else { (64, 15) };
        for width in [1, 2, 4, 8] {
            Bench { name, cells, width, dir: dir.path(), runtime: &runtime }.run(rounds, limit);
        }
        if name == "docker" {
            // Kept for a next run, which there is none of.
            let images = (0..cells).map(|n| format!("abicus-cache/bench-{n}:{EMPTY}"));
            let removed = Command::new("docker").args(["rmi", "--force"]).args(images).output();
            assert!(removed.expect("docker's client is installed").status.success());
        }
    }
}

struct Bench<'a> {
    name: &'static str,
    cells: usize,
    width: usize,
    dir: &'a Path,
    runtime: &'a tokio::runtime::Runtime,
}

impl Bench<'_> {
    fn run(&self, rounds: usize, limit: f64) {
        // Both once, for the caches.
        self.driver();
        let floor = self.floor();
        floor(self.width);
        let (mut ours, mut befores, mut floors) = (vec![], vec![], vec![]);
        for round in 0..rounds {
            if round % 2 == 0 {
                floors.push(floor(self.cells));
            }
            let (before, our) = self.driver();
            befores.push(before);
            ours.push(our);
            if round % 2 == 1 {
                floors.push(floor(self.cells));
            }
        }
        let name = format!("driver, {} x{}", self.name, self.width);
        let per_cell = |times: &[Duration]| median(times.iter().map(|t| t.as_secs_f64() * 1000.0 / self.cells as f64));
        println!("{name}: before the first cell\t{:.1}\tms", median(befores.iter().map(|t| t.as_secs_f64() * 1000.0)));
        println!("{name}: a cell\t{:.2}\tms", per_cell(&ours));
        println!("{name}: a cell of the floor\t{:.2}\tms", per_cell(&floors));
        // Of rounds in pairs: the machine's other work falls on both.
        let ratio = median(ours.iter().zip(&floors).map(|(ours, floor)| ours.div_duration_f64(*floor)));
        println!("{name}: over the floor\t{ratio:.3}\tx\t{limit:.2}");
    }

    fn matrix(&self) -> Matrix {
        let name = self.name;
        let mut text = format!(
            "[defaults]\nparallel = {}\n[[host]]\nname = \"local\"\n[[engine]]\nname = \"{name}\"\nkind = \"{name}\"\n",
            self.width
        );
        (0..self.cells).for_each(|n| text += &format!("[[image]]\nname = \"bench-{n}\"\nscratch = true\n"));
        let world = World { base: self.dir.to_owned(), exists: &|_| true };
        abicus::spec::resolve(&text, "matrix.toml", &world).unwrap_or_else(|error| panic!("{error}"))
    }

    fn payload(&self) -> Arc<Payload> {
        Arc::new(Payload { dir: self.dir.join("payload"), digest: "one-check".to_owned() })
    }

    /// A run of the driver: until its first cell starts, and from there to the end of the last.
    fn driver(&self) -> (Duration, Duration) {
        let matrix = self.matrix();
        let plan = Arc::new(abicus::plan::plan(&matrix, &Default::default(), false));
        let reports = tempfile::tempdir_in(self.dir).unwrap();
        let writer = RunWriter::create(reports.path(), self.info(&plan)).unwrap();
        let rig = Arc::new(self.rig(&matrix));
        let (events, mut told) = mpsc::unbounded_channel();
        let (_stop, stopped) = watch::channel(false);
        let began = Instant::now();
        self.runtime.block_on(async {
            let watched = tokio::spawn(async move {
                let (mut first, mut last, mut ran) = (None, began, 0);
                while let Some(event) = told.recv().await {
                    match event {
                        Event::CellStarted { .. } => drop(first.get_or_insert_with(Instant::now)),
                        Event::CellDone { record } => {
                            assert!(
                                matches!(&record.state, State::Ran { faults, .. } if faults.is_empty()),
                                "{record:?}"
                            );
                            (last, ran) = (Instant::now(), ran + 1);
                        }
                        _ => {}
                    }
                }
                (first.unwrap(), last, ran)
            });
            execute(plan, rig, writer, &Default::default(), events, stopped).await.unwrap();
            let (first, last, ran) = watched.await.unwrap();
            assert_eq!(ran, self.cells);
            (first - began, last - first)
        })
    }

    fn rig(&self, matrix: &Matrix) -> Rig {
        let spec = matrix.hosts[0].clone();
        let reach = host::open(&spec, &self.dir.join("cache"));
        let engine = &matrix.engines[0];
        let opened = abicus::engine::open(engine, &spec.id, &reach);
        Rig {
            engines: HashMap::from([((spec.id.clone(), engine.id.clone()), opened)]),
            hosts: [(spec.id.clone(), (spec, reach))].into(),
            images: ImageStore::at(self.dir.join("cache/images")).unwrap(),
            registries: Access::of_user(),
            payload: self.payload(),
            base: self.dir.to_owned(),
            defaults: matrix.defaults.clone(),
        }
    }

    fn info(&self, plan: &Plan) -> RunInfo {
        RunInfo {
            format: FORMAT,
            id: abicus::id::RunId::new(),
            name: "bench".to_owned(),
            abicus: String::new(),
            payload: String::new(),
            started: jiff::Timestamp::now(),
            finished: None,
            interrupted: false,
            matrix_file: String::new(),
            matrix: String::new(),
            bench: false,
            parallel: None,
            cells: plan.cells.iter().map(|planned| (planned.cell.clone(), planned.role)).collect(),
            controls: None,
            selected: false,
            skips: vec![],
        }
    }

    /// The engine's fewest calls, so many times.
    fn floor(&self) -> Box<dyn Fn(usize) -> Duration + '_> {
        let argv = vec!["/.abicus/kernel".to_owned()];
        if self.name == "docker" {
            let hosts = self.dir.join("hosts");
            std::fs::write(&hosts, "127.0.0.1\tlocalhost\n").unwrap();
            let (socket, payload) = (PathBuf::from("/var/run/docker.sock"), self.dir.join("payload"));
            let image = format!("abicus-cache/bench-0:{EMPTY}");
            let floor = Floor { socket, kind: Kind::Docker, image, payload, hosts, argv };
            return Box::new(move |cells| {
                let began = Instant::now();
                let all = futures_util::stream::iter(0..cells).for_each_concurrent(self.width, |_| floor.cell());
                self.runtime.block_on(all);
                began.elapsed()
            });
        }
        let here = Arc::new(Local::at(self.dir.join("work")));
        let engine = BuiltIn::new(&EngineOptions::default(), here).unwrap();
        let job = Job {
            run: "bench".parse().unwrap(),
            cell: "local:built-in:scratch".parse().unwrap(),
            attempt: 1,
            argv,
            payload: self.payload(),
            deadline: Duration::from_secs(60),
            output_cap: 1 << 20,
        };
        let (launcher, list) = self.runtime.block_on(engine.operations(&job, &Prepared("empty".to_owned()))).unwrap();
        Box::new(move |cells| {
            let began = Instant::now();
            std::thread::scope(|scope| {
                for worker in 0..self.width {
                    let (launcher, list) = (&launcher, &list);
                    let mine = (worker..cells).step_by(self.width);
                    scope.spawn(move || mine.for_each(|_| launcher::bare_cell(launcher, list, "exit 0")));
                }
            });
            began.elapsed()
        })
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

//! Cells per second under each engine, beside a loop of the engine's own command, at several parallelisms; and what the
//! driver adds to an OCI runtime beyond the launcher with the same list. All in turn within one run, because a machine is
//! not as fast now as it was a minute ago.
//!
//!     cargo bench --bench engines [-- ENGINE…]
//!
//! The loop does what a person's script has to do for the same: a container of the same image with the same payload, no
//! network, removed afterwards; for a bare runtime a bundle with a root that can be written and an image that stays as it
//! is. Needs root and the engines. Prints figures for `ci/bench`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod launcher;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command as Program, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use abicus::engine::command::{Command, Kind as CommandKind};
use abicus::engine::container::{ContainerEngine, Endpoint, Environment, Kind};
use abicus::engine::{Ended, Engine, EngineOptions, Facts, Job, Payload, Prepared};
use abicus::host::{Local, Reach};
use abicus::image::{Content, Image};

const PARALLEL: [usize; 4] = [1, 2, 4, 8];
/// At least as fast as the engine's own command.
const COMMAND_LIMIT: f64 = 1.0;
/// What the driver may add to the launcher's list.
const FLOOR_LIMIT: f64 = 1.10;
const ALL: [&str; 8] = ["docker", "podman", "runc", "crun", "youki", "runsc", "bwrap", "systemd-nspawn"];

struct Bench {
    name: &'static str,
    engine: Arc<dyn Engine>,
    /// The same, where it is a command.
    command: Option<Arc<Command>>,
    image: Prepared,
    job: Arc<Job>,
    dir: PathBuf,
    runtime: tokio::runtime::Runtime,
}

fn main() {
    let names: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let dir = tempfile::Builder::new().prefix("abicus-bench-").tempdir_in("/var/tmp").unwrap();
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let payload = dir.path().join("payload");
    std::fs::create_dir(&payload).unwrap();
    std::fs::copy("/bin/busybox", payload.join("busybox")).expect("busybox-static is installed");
    for name in ALL.into_iter().filter(|name| names.is_empty() || names.iter().any(|wanted| wanted == name)) {
        Bench::new(name, dir.path()).run();
    }
}

impl Bench {
    fn new(name: &'static str, dir: &Path) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        let options = EngineOptions::default();
        let here: Arc<dyn Reach> = Arc::new(Local::at(dir.join("work")));
        let container = |kind, runtime: Option<&str>| -> Arc<dyn Engine> {
            let runtime = runtime.map(str::to_owned);
            let environment = Environment::of_process();
            Arc::new(ContainerEngine::new(kind, Endpoint::Default, runtime, options.clone(), environment).unwrap())
        };
        let command = |kind| Arc::new(Command::new(kind, Some(name), &options, here.clone()).unwrap());
        let (engine, command): (Arc<dyn Engine>, _) = match name {
            "docker" => (container(Kind::Docker, None), None),
            "podman" => (container(Kind::Podman, Some("runc")), None),
            "bwrap" => (command(CommandKind::Bubblewrap), None),
            "systemd-nspawn" => (command(CommandKind::Nspawn), None),
            _ => {
                let command = command(CommandKind::Oci);
                (command.clone(), Some(command))
            }
        };
        let job = Job {
            run: "bench".parse().unwrap(),
            cell: "local:bench:scratch".parse().unwrap(),
            attempt: 1,
            argv: program(name).iter().map(|word| (*word).to_owned()).collect(),
            payload: Arc::new(Payload { dir: dir.join("payload"), digest: "busybox".to_owned() }),
            deadline: Duration::from_secs(60),
            output_cap: 1 << 20,
        };
        let image = runtime.block_on(async {
            engine.fingerprint().await.unwrap();
            engine.prepare(&scratch()).await.unwrap()
        });
        Self { name, engine, command, image, job: Arc::new(job), dir: dir.to_owned(), runtime }
    }

    fn run(&self) {
        // Cells a round, and rounds: a light engine's are over before the machine has shown how busy it is.
        let (cells, rounds) = if matches!(self.name, "docker" | "podman" | "runsc") { (8, 11) } else { (16, 9) };
        let script = self.script();
        self.cells(2, 1);
        self.loops(&script, 2, 1);
        for width in PARALLEL {
            let (mut ours, mut loops, mut floors) = (vec![], vec![], vec![]);
            for round in 0..rounds {
                if round % 2 == 0 {
                    ours.push(self.cells(cells, width));
                    loops.push(self.loops(&script, cells, width));
                    floors.extend(self.floor(cells, width));
                } else {
                    floors.extend(self.floor(cells, width));
                    loops.push(self.loops(&script, cells, width));
                    ours.push(self.cells(cells, width));
                }
            }
            let name = format!("{} x{width}", self.name);
            let per_second = |times: &[Duration]| cells as f64 / median(times.iter().map(Duration::as_secs_f64));
            println!("{name}: abicus\t{:.1}\tcells/s", per_second(&ours));
            println!("{name}: its own command\t{:.1}\tcells/s", per_second(&loops));
            println!("{name}: time over its own command\t{:.3}\tx\t{COMMAND_LIMIT}", ratio(&ours, &loops));
            if !floors.is_empty() {
                // The floor is abicus' own launcher with the same list; what a person would write is the loop above.
                println!("{name}: time over the bare launcher\t{:.3}\tx\t{FLOOR_LIMIT}", ratio(&ours, &floors));
            }
        }
        self.runtime.block_on(self.engine.sweep(Some(&self.job.run))).unwrap();
        if matches!(self.name, "docker" | "podman") {
            // Kept for a next run, which there is none of.
            let removed = Program::new(self.name).args(["rmi", "--force", &self.image.0]).output().unwrap();
            assert!(removed.status.success(), "{}", String::from_utf8_lossy(&removed.stderr));
        }
    }

    fn cells(&self, cells: usize, width: usize) -> Duration {
        let began = Instant::now();
        self.runtime.block_on(async {
            let workers: Vec<_> = (0..width)
                .map(|worker| {
                    let (engine, job, image) = (self.engine.clone(), self.job.clone(), self.image.clone());
                    tokio::spawn(async move {
                        for _ in (worker..cells).step_by(width) {
                            let attempt = engine.run(&job, &image).await;
                            assert_eq!(attempt.ended, Ok(Ended::Exit(0)), "{:?}", attempt.notes);
                        }
                    })
                })
                .collect();
            for worker in workers {
                worker.await.unwrap();
            }
        });
        began.elapsed()
    }

    /// The launcher with lists made beforehand: each has a name of its own in it.
    fn floor(&self, cells: usize, width: usize) -> Option<Duration> {
        let command = self.command.as_ref()?;
        let make = || self.runtime.block_on(command.operations(&self.job, &self.image)).unwrap();
        let lists: Vec<(PathBuf, Vec<u8>)> = (0..cells).map(|_| make()).collect();
        let began = Instant::now();
        std::thread::scope(|scope| {
            for worker in 0..width {
                let lists = &lists;
                scope.spawn(move || {
                    for (program, list) in lists.iter().skip(worker).step_by(width) {
                        launcher::bare_cell(program, list, "exit 0");
                    }
                });
            }
        });
        Some(began.elapsed())
    }

    /// As many shells as cells at a time, each a loop of the engine's command.
    fn loops(&self, script: &str, cells: usize, width: usize) -> Duration {
        let began = Instant::now();
        let shells: Vec<_> = (0..width.min(cells))
            .map(|shell| {
                let count = (shell..cells).step_by(width).count();
                let text = format!(
                    "set -e; n=0; while [ $n -lt {count} ]; do n=$((n+1)); id=bench-{shell}-$n; {script}; done"
                );
                Program::new("unshare")
                    .args(["-m", "--propagation", "private", "sh", "-c", &text])
                    .current_dir(&self.dir)
                    .stdin(Stdio::null())
                    .stdout(Stdio::null())
                    .spawn()
                    .unwrap()
            })
            .collect();
        for mut shell in shells {
            assert!(shell.wait().unwrap().success(), "{script}");
        }
        began.elapsed()
    }

    /// One container, in shell.
    fn script(&self) -> String {
        let payload = self.dir.join("payload").display().to_string();
        let image = &self.image.0;
        let program = program(self.name).join(" ");
        let run = format!("--network none --log-driver none -v {payload}:/.abicus:ro {image} {program}");
        match self.name {
            "docker" => format!("docker run --rm {run}"),
            "podman" => {
                // What abicus' own service works around is in the way here too.
                let limits = "--ulimit nofile=4096:4096 --ulimit nproc=4096:4096";
                format!("podman --runtime runc run --rm {limits} {}", run.replace("--log-driver none ", ""))
            }
            "bwrap" => format!(
                "mkdir -p $id/root && bwrap --unshare-ipc --unshare-pid --unshare-uts --unshare-net --bind $id/root / \
                 --proc /proc --dev /dev --ro-bind {payload} /.abicus --cap-drop ALL {program}; rm -r $id"
            ),
            "systemd-nspawn" => format!(
                "mkdir -p $id/usr && systemd-nspawn --quiet --register=no --keep-unit --as-pid2 --console=pipe --resolv-conf=off \
                 --timezone=off --link-journal=no --private-network --directory=$id --bind-ro={payload}:/.abicus {program}; \
                 rm -r $id"
            ),
            runtime => {
                let options = if runtime == "runsc" { "--network=none" } else { "" };
                // The bundle abicus would write, with a root of the same kind.
                let bundle = self.bundle();
                let hide = if runtime == "crun" { "umount /sys/fs/cgroup/unified 2>/dev/null || true;" } else { "" };
                format!(
                    "{hide} mkdir $id; mount -t tmpfs tmpfs $id; \
                     mkdir $id/lower $id/upper $id/work $id/root; sed \"s/CELL/$id/\" {bundle} >$id/config.json; \
                     mount -t overlay -o lowerdir=$id/lower,upperdir=$id/upper,workdir=$id/work overlay $id/root; \
                     {runtime} --root $id/state {options} run --bundle $id $id; umount $id/root; umount $id; rmdir $id"
                )
            }
        }
    }

    /// `config.json` of a cell, without the three files that abicus binds from its own directory.
    fn bundle(&self) -> String {
        let command = self.command.as_ref().unwrap();
        let (_, list) = self.runtime.block_on(command.operations(&self.job, &self.image)).unwrap();
        let from = list.windows(14).position(|bytes| bytes == b"{\"ociVersion\":").unwrap();
        let mut stream = serde_json::Deserializer::from_slice(&list[from..]).into_iter::<serde_json::Value>();
        let mut config = stream.next().unwrap().unwrap();
        config["mounts"]
            .as_array_mut()
            .unwrap()
            .retain(|mount| !mount["destination"].as_str().unwrap_or_default().starts_with("/etc/"));
        config["linux"]["cgroupsPath"] = "/abicus/bench.CELL".into();
        let path = self.dir.join(format!("{}.json", self.name));
        std::fs::write(&path, config.to_string()).unwrap();
        path.display().to_string()
    }
}

/// What a cell runs. youki 0.7 waits for ever for a program that ends before it has begun to wait, in a loop by hand too.
fn program(name: &str) -> &'static [&'static str] {
    if name == "youki" { &["/.abicus/busybox", "usleep", "30000"] } else { &["/.abicus/busybox", "true"] }
}

/// Of rounds in pairs: the machine's other work falls on both.
fn ratio(ours: &[Duration], theirs: &[Duration]) -> f64 {
    median(ours.iter().zip(theirs).map(|(a, b)| a.div_duration_f64(*b)))
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
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

//! What the driver adds to a cell of the built-in engine.
//!
//! The floor is the minimal call sequence of the same engine: the same launcher with the same list of operations and a
//! program that ends at once, started and awaited by a thread that does nothing else. Both are measured in turn within one
//! run, because a machine is not as fast now as it was a minute ago. Prints figures for `ci/bench`.

mod launcher;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use abicus::engine::builtin::BuiltIn;
use abicus::engine::{Ended, Engine, EngineOptions, Job, Payload, Prepared};
use abicus::host::Local;
use abicus::probes;

/// Cells a round, and rounds of each kind.
const CELLS: usize = 8;
const ROUNDS: usize = 151;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::Builder::new().prefix("abicus-bench-").tempdir_in("/var/tmp")?;
    let payload = dir.path().join("payload");
    std::fs::create_dir(&payload)?;
    // The launcher without arguments says how it is used and exits 2: a static program that ends at once.
    std::fs::write(payload.join("end"), probes::LAUNCH)?;
    std::fs::set_permissions(payload.join("end"), PermissionsExt::from_mode(0o755))?;
    let engine = Arc::new(BuiltIn::new(&EngineOptions::default(), Arc::new(Local::at(dir.path().join("work"))))?);
    let job = Arc::new(Job {
        run: "bench".parse()?,
        cell: "local:built-in:scratch".parse()?,
        attempt: 1,
        argv: vec!["/.abicus/end".to_owned()],
        payload: Arc::new(Payload { dir: payload, digest: String::new() }),
        deadline: Duration::from_secs(60),
        output_cap: 1 << 20,
    });
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let (launcher, list) = runtime.block_on(engine.operations(&job, &Prepared("empty".to_owned())))?;
    runtime.block_on(engine.fingerprint())?;
    for parallel in [1, 2, 4, 8] {
        let (mut floors, mut ours, mut ratios) = (vec![], vec![], vec![]);
        for round in 0..ROUNDS {
            // In turn, and in either order: neither kind always follows the other's clean-up.
            let (floor, our) = if round % 2 == 0 {
                let floor = floor(&launcher, &list, parallel);
                (floor, cells(&runtime, &engine, &job, parallel))
            } else {
                let our = cells(&runtime, &engine, &job, parallel);
                (floor(&launcher, &list, parallel), our)
            };
            floors.push(floor);
            ours.push(our);
            ratios.push(our.div_duration_f64(floor));
        }
        let cell = |rounds: Vec<Duration>| median(rounds).as_secs_f64() * 1000.0 / CELLS as f64;
        ratios.sort_by(f64::total_cmp);
        println!("built-in floor, {parallel} at a time\t{:.2}\tms/cell", cell(floors));
        println!("built-in, {parallel} at a time\t{:.2}\tms/cell", cell(ours));
        println!("built-in over its floor, {parallel} at a time\t{:.3}\tx\t1.10", ratios[ROUNDS / 2]);
    }
    Ok(())
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

fn floor(launcher: &Path, list: &[u8], parallel: usize) -> Duration {
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..parallel {
            scope.spawn(|| (0..CELLS / parallel).for_each(|_| launcher::bare_cell(launcher, list, "exit 2")));
        }
    });
    begun.elapsed()
}

fn cells(runtime: &tokio::runtime::Runtime, engine: &Arc<BuiltIn>, job: &Arc<Job>, parallel: usize) -> Duration {
    let begun = Instant::now();
    runtime.block_on(async {
        let workers: Vec<_> = (0..parallel)
            .map(|_| {
                let (engine, job) = (engine.clone(), job.clone());
                tokio::spawn(async move {
                    for _ in 0..CELLS / parallel {
                        let attempt = engine.run(&job, &Prepared("empty".to_owned())).await;
                        assert_eq!(attempt.ended, Ok(Ended::Exit(2)));
                    }
                })
            })
            .collect();
        for worker in workers {
            assert!(worker.await.is_ok(), "a cell failed");
        }
    });
    begun.elapsed()
}

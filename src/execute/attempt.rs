//! Attempts at one cell, until one counts.

use std::time::Duration;

use super::prepare::Ready;
use super::{Event, Shared};
use crate::collect;
use crate::engine::{Attempt, Ended, Job, PAYLOAD_DIR};
use crate::fault::{Fault, Phase};
use crate::id::CellId;
use crate::image::Image;
use crate::plan::Planned;
use crate::store::{AttemptRecord, State};

/// Pause before another attempt: long enough for a busy daemon to breathe.
const PAUSE: Duration = Duration::from_millis(200);

/// Tries a cell until an attempt delivers or the retries are used up. Only faults of the rig are tried again.
pub(super) async fn until_it_counts(shared: &Shared, planned: &Planned, ready: &Ready) -> (State, Vec<AttemptRecord>) {
    let mut records = vec![];
    let mut attempt = 1;
    loop {
        let (state, record) = once(shared, planned, ready, attempt).await;
        records.push(record);
        let again = match &state {
            State::Broken { fault } => fault.transient,
            State::Ran { .. } | State::Skipped { .. } => false,
        };
        if !again || attempt > shared.rig.defaults.retries {
            return (state, records);
        }
        attempt += 1;
        tokio::time::sleep(PAUSE).await;
    }
}

async fn once(shared: &Shared, planned: &Planned, ready: &Ready, number: u32) -> (State, AttemptRecord) {
    let cell = &planned.cell;
    let run = shared.write(|writer| Ok(writer.run().clone()));
    let attempt = match (run, slots(shared, planned).await) {
        (Some(run), Some(_slots)) => {
            shared.note(Event::CellStarted { cell: cell.clone(), attempt: number });
            let job = Job {
                run,
                cell: cell.clone(),
                attempt: number,
                argv: argv(ready, shared.rig.defaults.timeout, shared.rig.defaults.bench),
                payload: shared.rig.payload.clone(),
                deadline: shared.rig.defaults.timeout,
                output_cap: shared.rig.defaults.output_cap,
            };
            explained(shared, cell, ready.engine.run(&job, &ready.prepared).await).await
        }
        _ => Attempt::broken(Fault::new(Phase::Host, "the run is shutting down")),
    };
    let evidence =
        shared.write(|writer| writer.evidence(cell, number, &attempt.stdout, &attempt.stderr)).unwrap_or_default();
    let record = AttemptRecord {
        attempt: number,
        ended: attempt.ended.as_ref().ok().copied(),
        fault: attempt.ended.as_ref().err().cloned(),
        timing: attempt.timing,
        notes: attempt.notes.clone(),
        evidence,
    };
    (state(shared, &attempt), record)
}

/// Where the host is gone, that is why, whatever the engine saw of it.
async fn explained(shared: &Shared, cell: &CellId, mut attempt: Attempt) -> Attempt {
    if let (Err(seen), Some((_, reach))) = (&attempt.ended, shared.rig.hosts.get(&cell.host))
        && let Some(lost) = reach.lost().await
    {
        attempt.notes.push(seen.to_string());
        attempt.ended = Err(lost);
    }
    attempt
}

type Slots = (tokio::sync::OwnedSemaphorePermit, Option<tokio::sync::OwnedSemaphorePermit>);

/// Waits for the cell's turn: first the engine's, then the host's, in this order everywhere.
async fn slots(shared: &Shared, planned: &Planned) -> Option<Slots> {
    let cell = &planned.cell;
    let engine = match shared.engine_slots.get(&(cell.host.clone(), cell.engine.clone())) {
        Some(slots) => Some(slots.clone().acquire_owned().await.ok()?),
        None => None,
    };
    let host = shared.hosts.get(&cell.host)?.look.get()?.as_ref().ok()?.slots.clone().acquire_owned().await.ok()?;
    Some((host, engine))
}

fn argv(ready: &Ready, timeout: Duration, bench: bool) -> Vec<String> {
    let loader = match &ready.image {
        Some(image) => image.loader.as_deref().filter(|_| speaks_our_abi(image)),
        None => ready.host.get("os.loader").map(String::as_str),
    };
    // The supervisor's deadlines end before the engine's, so that what was seen until then still arrives.
    let time = timeout.saturating_sub(Duration::from_secs(1)).max(Duration::from_millis(500));
    let options = bench.then(|| "--bench".to_owned());
    super::command(PAYLOAD_DIR, loader, time, options.as_slice())
}

/// The libc probe is one program for one architecture: an i386 image on amd64 has a libc it cannot load.
fn speaks_our_abi(image: &Image) -> bool {
    image.architecture.as_deref().is_none_or(|theirs| theirs == crate::image::host_architecture())
}

/// What the attempt comes to: something was delivered, or something broke.
fn state(shared: &Shared, attempt: &Attempt) -> State {
    let report = collect::parse(&attempt.stdout);
    let mut faults = report.faults;
    match &attempt.ended {
        Ok(Ended::Exit(0)) => {}
        Ok(Ended::Exit(status)) => {
            faults.push(Fault::new(Phase::Wait, format!("the probe exited with status {status}")))
        }
        Ok(Ended::Signal(signal)) => {
            faults.push(Fault::new(Phase::Wait, format!("the probe was killed by signal {signal}")));
        }
        Ok(Ended::OutOfMemory) => faults.push(
            Fault::new(Phase::Wait, "the kernel killed the probe: out of memory")
                .hint("raise the engine's `memory` option"),
        ),
        Ok(Ended::Deadline) => faults.push(
            Fault::new(Phase::Wait, "the probe was killed at the deadline").hint("raise `timeout` under [defaults]"),
        ),
        Ok(Ended::OutputCap) => faults.push(
            Fault::new(Phase::Protocol, "the probe wrote more than the cap and was killed")
                .hint("raise `output_cap` under [defaults]"),
        ),
        Err(fault) => faults.insert(0, fault.clone()),
    }
    if report.observations.is_empty() {
        let nothing = || Fault::new(Phase::Protocol, "the probe said nothing at all");
        return State::Broken { fault: faults.into_iter().next().unwrap_or_else(nothing) };
    }
    match shared.write(|writer| writer.vector(&report.observations)) {
        Some(vector) => State::Ran { vector, probes: report.probes, facts: report.facts, faults },
        None => State::Broken { fault: Fault::new(Phase::Host, "what it saw could not be stored") },
    }
}

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
pub(super) const PAUSE: Duration = Duration::from_millis(200);

/// Tries a cell until an attempt is not broken by the rig or the retries are used up. The last attempt counts, unless it
/// delivered nothing and an earlier one did.
pub(super) async fn until_it_counts(shared: &Shared, planned: &Planned, ready: &Ready) -> (State, Vec<AttemptRecord>) {
    let mut records = vec![];
    let mut counts: Option<State> = None;
    for attempt in 1.. {
        let (state, record) = once(shared, planned, ready, attempt).await;
        let again = match (&record.fault, &state) {
            // What broke the attempt, also where something had arrived by then.
            (Some(fault), _) | (None, State::Broken { fault }) => fault.transient,
            (None, State::Ran { .. } | State::Skipped { .. }) => false,
        };
        records.push(record);
        counts = match (counts, state) {
            (Some(ran @ State::Ran { .. }), State::Broken { .. }) => Some(ran),
            (_, state) => Some(state),
        };
        if !again || attempt > shared.rig.defaults.retries {
            break;
        }
        tokio::time::sleep(PAUSE).await;
    }
    let nothing = || State::Broken { fault: Fault::new(Phase::Host, "no attempt was made") };
    (counts.unwrap_or_else(nothing), records)
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
            let before = site(shared, cell).await;
            let mut attempt = ready.engine.run(&job, &ready.prepared).await;
            if let Err(seen) = attempt.ended {
                let why = explained(shared, cell, before, seen.clone()).await;
                if why != seen {
                    attempt.notes.push(seen.to_string());
                }
                attempt.ended = Err(why);
            }
            attempt
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

/// Which connection to the host of a cell there is: the directory it has there.
pub(super) async fn site(shared: &Shared, cell: &CellId) -> Option<String> {
    Some(shared.rig.hosts.get(&cell.host)?.1.site().await.ok()?.dir)
}

/// Where the host is gone, that is why, whatever the engine saw of it; and where it was gone meanwhile too: what was `before`
/// is there no more, and whatever that brought about is worth another try.
pub(super) async fn explained(shared: &Shared, cell: &CellId, before: Option<String>, seen: Fault) -> Fault {
    let Some((_, reach)) = shared.rig.hosts.get(&cell.host) else { return seen };
    if let Some(lost) = reach.lost().await {
        return lost;
    }
    if before.is_some() && before != site(shared, cell).await {
        return Fault::new(Phase::Host, format!("the connection to {} broke and was made anew", cell.host)).transient();
    }
    seen
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
    // Why the program ended explains what is wrong with its output, so it comes first.
    let faults: Vec<Fault> = unexpected_end(&attempt.ended).into_iter().chain(report.faults).collect();
    if report.observations.is_empty() {
        let nothing = || Fault::new(Phase::Protocol, "the probe said nothing at all");
        return State::Broken { fault: faults.into_iter().next().unwrap_or_else(nothing) };
    }
    match shared.write(|writer| writer.vector(&report.observations)) {
        Some(vector) => State::Ran { vector, probes: report.probes, facts: report.facts, faults },
        None => State::Broken { fault: Fault::new(Phase::Host, "what it saw could not be stored") },
    }
}

/// What was wrong with how the program ended, if anything was.
fn unexpected_end(ended: &Result<Ended, Fault>) -> Option<Fault> {
    let wait = |cause: String, hint: &str| Some(Fault::new(Phase::Wait, cause).hint(hint));
    match ended {
        Ok(Ended::Exit(0)) => None,
        Ok(Ended::Exit(status)) => wait(
            format!("the probe exited with status {status}"),
            "its last lines are in the evidence of the cell, below `evidence/`",
        ),
        Ok(Ended::Signal(signal)) => wait(
            format!("the probe was killed by signal {signal}"),
            "something outside abicus killed it: look at the host's kernel log and at limits of the engine",
        ),
        Ok(Ended::OutOfMemory) => wait(
            "the kernel killed the probe: out of memory".to_owned(),
            "raise the engine's `memory` option, or free memory on the host",
        ),
        Ok(Ended::Deadline) => {
            wait("the probe was killed at the deadline".to_owned(), "raise `timeout` under [defaults]")
        }
        Ok(Ended::OutputCap) => {
            let cause = "the probe wrote more than the cap and was killed";
            Some(Fault::new(Phase::Protocol, cause).hint("raise `output_cap` under [defaults]"))
        }
        Err(fault) => Some(fault.clone()),
    }
}

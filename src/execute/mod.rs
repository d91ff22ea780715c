//! Plan → events: runs every cell, at most so many at a time per host and per engine, each with a deadline, again only
//! after a fault of the rig, and writes down each attempt before the cell counts as done.
//!
//! In: a [`Plan`], the engines behind it, the image store, a writer. Out: the run directory grows, [`Event`]s tell how.
//! Nothing that goes wrong in a cell stops the run; nothing here judges.

mod attempt;
mod canary;
mod class;
mod event;
mod payload;
mod prepare;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::{OnceCell, Semaphore, watch};
use tokio::task::{Id, JoinError, JoinSet};

pub use canary::prove;
pub use event::Event;
pub use payload::{command, materialize};

use crate::engine::{Engine, Facts, Payload, Prepared};
use crate::fault::{Fault, Phase};
use crate::host::Reach;
use crate::id::{CellId, EngineId, HostId, ImageId};
use crate::image::registry::Access;
use crate::image::{Image, ImageStore};
use crate::plan::{Plan, Planned, Role};
use crate::spec::{Defaults, HostSpec};
use crate::store::{AttemptRecord, CellRecord, Entry, Run, RunWriter, State, StoreError};

/// An engine on a host, ready to be asked; or why there is none.
pub type EngineHandle = Result<Arc<dyn Engine>, Fault>;

/// Everything real that a run needs.
pub struct Rig {
    /// Hosts of the matrix, and how to reach them.
    pub hosts: BTreeMap<HostId, (HostSpec, Arc<dyn Reach>)>,
    /// Engines by host.
    pub engines: HashMap<(HostId, EngineId), EngineHandle>,
    /// Where images come from.
    pub images: ImageStore,
    /// How registries are reached.
    pub registries: Access,
    /// What is put into cells.
    pub payload: Arc<Payload>,
    /// The directory relative paths of the matrix start from.
    pub base: PathBuf,
    /// Deadlines and limits.
    pub defaults: Defaults,
}

/// What a resumed run need not do again.
#[derive(Debug, Clone, Default)]
pub struct Done {
    /// Cells that ran or were skipped.
    pub cells: BTreeSet<CellId>,
    /// Those among them that hosts of a class share, with the facts they are shared by: of the host, of the engine.
    shared: Vec<(CellId, Facts, Facts)>,
}

impl Done {
    /// What a run has done so far: what broke, or was cut off by something that may be gone, is done again.
    pub fn of(run: &Run) -> Self {
        let settled = |state: &State| match state {
            State::Ran { faults, .. } => !faults.iter().any(|fault| fault.transient),
            State::Skipped { .. } => true,
            State::Broken { .. } => false,
        };
        let done = || run.cells.values().filter(|record| settled(&record.state));
        let shared = done().filter(|record| record.role == Role::ControlNoPolicy).filter_map(|record| {
            let State::Ran { .. } = record.state else { return None };
            let CellId { host, engine, .. } = record.cell.clone();
            let (host, engine) = (run.hosts.get(&host)?, run.engines.get(&(host, engine))?);
            Some((record.cell.clone(), host.facts.clone(), engine.facts.clone()))
        });
        Self { cells: done().map(|record| record.cell.clone()).collect(), shared: shared.collect() }
    }
}

/// Runs the plan. `stop` turning true ends it early: running cells are cancelled and cleaned up, the rest is left.
pub async fn execute(
    plan: Arc<Plan>,
    rig: Arc<Rig>,
    writer: RunWriter,
    done: &Done,
    events: tokio::sync::mpsc::UnboundedSender<Event>,
    stop: watch::Receiver<bool>,
) -> Result<(RunWriter, bool), StoreError> {
    let shared = Arc::new(Shared::new(plan, rig, writer, events, stop, done));
    shared.note(Event::Planned { cells: shared.plan.cells.len(), done: done.cells.len() });
    let interrupted = {
        let work = run_all(&shared, done);
        tokio::select! {
            result = work => { result?; false }
            () = stopped(shared.stop.clone()) => true,
        }
    };
    if interrupted {
        sweep_engines(&shared).await;
        join_all(shared.hosts.keys().map(|host| leave(&shared, host))).await;
    }
    let mut shared = shared;
    // Cancelled tasks drop their share when they are next polled; give them that moment.
    let owned = loop {
        match Arc::try_unwrap(shared) {
            Ok(owned) => break owned,
            Err(still) => {
                shared = still;
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    };
    owned.note(Event::Finished { interrupted });
    let writer = owned.writer.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok((writer, interrupted))
}

async fn stopped(mut stop: watch::Receiver<bool>) {
    // A closed channel means nobody can stop us any more.
    if stop.wait_for(|stop| *stop).await.is_err() {
        std::future::pending().await
    }
}

/// What is known of a host once it was looked at.
struct HostLook {
    facts: Arc<Facts>,
    /// Cells at a time.
    slots: Arc<Semaphore>,
}

/// A host in the course of a run.
#[derive(Default)]
struct HostState {
    look: OnceCell<Result<HostLook, Fault>>,
    /// Cells that have not come to anything yet.
    left: AtomicUsize,
}

/// What the tasks of a run share.
struct Shared {
    plan: Arc<Plan>,
    rig: Arc<Rig>,
    writer: Mutex<RunWriter>,
    events: tokio::sync::mpsc::UnboundedSender<Event>,
    stop: watch::Receiver<bool>,
    /// Each is looked at when its first cell wants it: a dead one holds up nobody else's cells.
    hosts: HashMap<HostId, HostState>,
    /// Cells at a time per engine and host, where it is less.
    engine_slots: HashMap<(HostId, EngineId), Arc<Semaphore>>,
    /// Images made ready at a time: each keeps a CPU busy.
    image_slots: Semaphore,
    engines: HashMap<(HostId, EngineId), OnceCell<Result<Facts, Fault>>>,
    images: HashMap<ImageId, OnceCell<Result<Arc<Image>, Fault>>>,
    prepared: HashMap<(HostId, EngineId, ImageId), OnceCell<Result<Prepared, Fault>>>,
    /// Controls that hosts of a class share.
    turns: class::Turns,
    failed_writes: Mutex<Option<StoreError>>,
}

impl Shared {
    fn new(
        plan: Arc<Plan>,
        rig: Arc<Rig>,
        writer: RunWriter,
        events: tokio::sync::mpsc::UnboundedSender<Event>,
        stop: watch::Receiver<bool>,
        done: &Done,
    ) -> Self {
        let cpus = std::thread::available_parallelism().map_or(1, |n| n.get());
        let hosts = rig.hosts.keys().map(|id| (id.clone(), HostState::default())).collect();
        let engine_slots = rig
            .engines
            .keys()
            .filter_map(|key| {
                let limit = plan.engine(&key.1)?.parallel?;
                Some((key.clone(), Arc::new(Semaphore::new(limit))))
            })
            .collect();
        let engines = rig.engines.keys().map(|key| (key.clone(), OnceCell::new())).collect();
        let images = plan.images.iter().map(|image| (image.id.clone(), OnceCell::new())).collect();
        let prepared = plan
            .cells
            .iter()
            .map(|p| ((p.cell.host.clone(), p.cell.engine.clone(), p.cell.image.clone()), OnceCell::new()))
            .collect();
        Self {
            plan,
            rig,
            writer: Mutex::new(writer),
            events,
            stop,
            hosts,
            engine_slots,
            image_slots: Semaphore::new(cpus),
            engines,
            images,
            prepared,
            turns: class::Turns::after(&done.shared),
            failed_writes: Mutex::new(None),
        }
    }

    /// Tells whoever listens; nobody listening is fine.
    fn note(&self, event: Event) {
        let _ = self.events.send(event);
    }

    fn write<T>(&self, write: impl FnOnce(&mut RunWriter) -> Result<T, StoreError>) -> Option<T> {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        match write(&mut writer) {
            Ok(value) => Some(value),
            Err(error) => {
                let mut failed = self.failed_writes.lock().unwrap_or_else(PoisonError::into_inner);
                failed.get_or_insert(error);
                None
            }
        }
    }

    fn entry(&self, entry: &Entry) {
        self.write(|writer| writer.entry(entry));
    }

    /// The first failure to write: a run whose results are not kept is stopped.
    fn take_failed_write(&self) -> Option<StoreError> {
        self.failed_writes.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

async fn run_all(shared: &Arc<Shared>, done: &Done) -> Result<(), StoreError> {
    let mut tasks = JoinSet::new();
    let to_do: Vec<&Planned> = shared.plan.cells.iter().filter(|planned| !done.cells.contains(&planned.cell)).collect();
    for planned in &to_do {
        if let Some(host) = shared.hosts.get(&planned.cell.host) {
            host.left.fetch_add(1, Ordering::Relaxed);
        }
    }
    let mut running: HashMap<Id, Planned> = HashMap::new();
    for planned in to_do {
        running.insert(tasks.spawn(run_cell(shared.clone(), planned.clone())).id(), planned.clone());
    }
    while let Some(result) = tasks.join_next_with_id().await {
        // A defect of abicus costs the cell in which it showed, and no other.
        if let Err(error) = result
            && let Some(planned) = running.remove(&error.id())
        {
            let broke = Fault::new(Phase::Wait, format!("abicus itself broke in this cell: {}", words(error)))
                .hint("that is a defect of abicus: please report it, with what it wrote on standard error");
            done_with(shared, planned, State::Broken { fault: broke }, vec![]).await;
        }
        if let Some(error) = shared.take_failed_write() {
            return Err(error);
        }
    }
    Ok(())
}

async fn run_cell(shared: Arc<Shared>, planned: Planned) {
    let (state, attempts) = match prepare::cell(&shared, &planned).await {
        Err(state) => (state, vec![]),
        Ok(ready) => {
            let (state, attempts) = attempt::until_it_counts(&shared, &planned, &ready).await;
            if let Some(turn) = ready.turn {
                turn.end(&planned.cell.host, &state);
            }
            (state, attempts)
        }
    };
    done_with(&shared, planned, state, attempts).await;
}

/// What a task panicked with.
fn words(error: JoinError) -> String {
    match error.try_into_panic() {
        Ok(panic) => match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
            (Some(words), _) => (*words).to_owned(),
            (None, Some(words)) => words.clone(),
            (None, None) => "it does not say how".to_owned(),
        },
        Err(cancelled) => cancelled.to_string(),
    }
}

async fn done_with(shared: &Shared, planned: Planned, state: State, attempts: Vec<AttemptRecord>) {
    let host = planned.cell.host.clone();
    let record = Arc::new(CellRecord { cell: planned.cell, role: planned.role, state, attempts });
    shared.entry(&Entry::Cell(record.clone()));
    shared.note(Event::CellDone { record });
    if shared.hosts.get(&host).is_some_and(|state| state.left.fetch_sub(1, Ordering::AcqRel) == 1) {
        leave(shared, &host).await;
    }
}

/// After the last cell of a host: what was started for it is stopped, so that the next finds room.
async fn leave(shared: &Shared, host: &HostId) {
    let Some((_, reach)) = shared.rig.hosts.get(host) else { return };
    if let Some(said) = reach.leave().await {
        shared.write(|writer| writer.host_evidence(host, &said));
    }
}

/// After an interruption: cancelled cells cleaned up behind themselves, this catches what they could not.
async fn sweep_engines(shared: &Shared) {
    let run = {
        let writer = shared.writer.lock().unwrap_or_else(PoisonError::into_inner);
        writer.run().clone()
    };
    // What was never looked at holds nothing of ours, and all are asked at once: a dead host delays nobody.
    let used = shared
        .rig
        .engines
        .iter()
        .filter(|(key, _)| shared.engines.get(*key).and_then(OnceCell::get).is_some_and(Result::is_ok));
    let run = &run;
    join_all(used.map(|((host, id), engine)| async move {
        let Ok(engine) = engine else { return };
        let swept = tokio::time::timeout(Duration::from_secs(20), engine.sweep(Some(run))).await;
        let failed = match swept {
            Ok(Ok(_)) => return,
            Ok(Err(fault)) => fault.cause,
            Err(_) => "it did not answer in 20 s".to_owned(),
        };
        shared.note(Event::Warning { text: format!("could not sweep {host}:{id}: {failed}; run `abicus sweep`") });
    }))
    .await;
}

/// A cell that cannot run because a part of it is not there: a skip where the matrix says so, else an error. A host that
/// was lost is no part that somebody could have left out.
fn absent(optional: bool, fault: &Fault) -> State {
    if optional && fault.phase != Phase::Host {
        let hint = fault.hint.as_ref().map(|hint| format!(" ({hint})")).unwrap_or_default();
        return State::Skipped { reason: format!("{}{hint}", fault.cause) };
    }
    State::Broken { fault: fault.clone() }
}

/// A cell whose engine has no rig entry: the plan and the rig disagree, which only a defect of abicus can bring about.
fn unknown(cell: &CellId) -> State {
    State::Broken { fault: Fault::new(Phase::Engine, format!("no engine was set up for {cell}")) }
}

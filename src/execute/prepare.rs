//! What a cell needs before it can run: its engine looked at, its image made ready, the image given to the engine. Each
//! is done once however many cells wait for it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use futures_util::future::join_all;
use tokio::sync::Semaphore;

use super::class::{Turn, turn};
use super::{Event, HostLook, Shared, absent, attempt, canary, unknown};
use crate::engine::{Engine, Facts, Prepared};
use crate::fault::{Fault, Phase};
use crate::host::{self, Tree};
use crate::id::{CellId, HostId, ImageId};
use crate::image::{Content, Image, Progress, Pull, Source, host_architecture};
use crate::plan::Planned;
use crate::spec::HostKind;
use crate::store::{Entry, State};

/// A cell that can run.
pub(super) struct Ready {
    /// What is known of its host.
    pub host: Arc<Facts>,
    pub engine: Arc<dyn Engine>,
    pub image: Option<Arc<Image>>,
    pub prepared: Prepared,
    /// Where it runs for other hosts too.
    pub turn: Option<Turn>,
}

/// Gets everything ready, or says what the cell comes to without it.
pub(super) async fn cell(shared: &Arc<Shared>, planned: &Planned) -> Result<Ready, State> {
    let cell = &planned.cell;
    let host = shared.hosts.get(&cell.host).ok_or_else(|| unknown(cell))?;
    let (host, slots) = match host.look.get_or_init(|| look_at(shared, cell)).await {
        Ok(host) => (host.facts.clone(), &host.slots),
        Err(fault) => return Err(State::Broken { fault: fault.clone() }),
    };
    let spec = shared.plan.engine(&cell.engine).ok_or_else(|| unknown(cell))?;
    let key = (cell.host.clone(), cell.engine.clone());
    let engine = match shared.rig.engines.get(&key) {
        Some(Ok(engine)) => engine.clone(),
        Some(Err(fault)) => return Err(absent(spec.optional, fault)),
        None => return Err(unknown(cell)),
    };
    let looked_at = shared.engines.get(&key).ok_or_else(|| unknown(cell))?;
    let known = match looked_at.get_or_init(|| fingerprint(shared, cell, slots, &engine)).await {
        Ok(facts) => facts,
        Err(fault) => return Err(absent(spec.optional, fault)),
    };
    if cell.image.is_none() {
        return Ok(Ready { host, engine, image: None, prepared: Prepared(String::new()), turn: None });
    }
    let turn = turn(shared, planned, &host, known).await?;
    let slot = shared.images.get(&cell.image).ok_or_else(|| unknown(cell))?;
    let optional = shared.plan.image(&cell.image).is_some_and(|image| image.optional);
    let image = match slot.get_or_init(|| open(shared, &cell.image)).await {
        Ok(image) => image.clone(),
        Err(fault) => return Err(absent(optional, fault)),
    };
    if let Err(fault) = foreign(shared, cell, &image).await {
        return Err(absent(optional, &fault));
    }
    let key = (cell.host.clone(), cell.engine.clone(), cell.image.clone());
    let prepared = shared.prepared.get(&key).ok_or_else(|| unknown(cell))?;
    let give = || async {
        let _slot = slots.acquire().await.map_err(|_| shutting_down())?;
        shared.note(Event::Giving { cell: cell.clone() });
        let began = Instant::now();
        let given = again(shared, cell, || engine.prepare(&image)).await;
        let ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        shared.note(Event::Given { cell: cell.clone(), ms });
        given
    };
    match prepared.get_or_init(give).await {
        Ok(prepared) => Ok(Ready { host, engine, image: Some(image), prepared: prepared.clone(), turn }),
        Err(fault) => Err(State::Broken { fault: fault.clone() }),
    }
}

/// Asks once more after a fault that may be gone by then. Where the host is lost, that is why, whatever the engine saw of it.
async fn again<T, F>(shared: &Shared, cell: &CellId, ask: impl Fn() -> F) -> Result<T, Fault>
where
    F: Future<Output = Result<T, Fault>>,
{
    let mut left = shared.rig.defaults.retries;
    loop {
        let before = attempt::site(shared, cell).await;
        let fault = match ask().await {
            Ok(answer) => return Ok(answer),
            Err(seen) => attempt::explained(shared, cell, before, seen).await,
        };
        if !fault.transient || left == 0 {
            return Err(fault);
        }
        left -= 1;
        tokio::time::sleep(attempt::PAUSE).await;
    }
}

fn shutting_down() -> Fault {
    Fault::new(Phase::Host, "the run is shutting down")
}

async fn look_at(shared: &Arc<Shared>, cell: &CellId) -> Result<HostLook, Fault> {
    let Some((spec, reach)) = shared.rig.hosts.get(&cell.host) else {
        return Err(Fault::new(Phase::Host, format!("no host was set up for {cell}")));
    };
    if let HostKind::Vm(_) = spec.kind {
        reach.expect(&trees(shared, &cell.host).await).await;
    }
    let result = host::facts(&**reach).await;
    let mut facts = result.clone().unwrap_or_default();
    facts.extend(spec.labels.iter().map(|(key, value)| (format!("label.{key}"), value.clone())));
    let fault = result.err();
    shared.entry(&Entry::Host { host: cell.host.clone(), facts: facts.clone(), fault: fault.clone() });
    if let Some(fault) = fault {
        return Err(fault);
    }
    let cpus = facts.get("cpu.count").and_then(|n| n.parse().ok()).unwrap_or(1);
    let wide = spec.parallel.or(shared.rig.defaults.parallel).unwrap_or(cpus);
    Ok(HostLook { facts: Arc::new(facts), slots: Arc::new(Semaphore::new(wide)) })
}

/// Every tree that cells on a host will need, those that cannot be had left out: their cells will say so.
async fn trees(shared: &Arc<Shared>, host: &HostId) -> Vec<Tree> {
    let payload = &shared.rig.payload;
    let mut trees = vec![Tree { path: payload.dir.clone(), digest: payload.digest.clone() }];
    let cells = shared.plan.cells.iter().filter(|planned| planned.cell.host == *host && !planned.cell.image.is_none());
    let ids: BTreeSet<&ImageId> = cells.map(|planned| &planned.cell.image).collect();
    let images = ids.into_iter().map(|id| async move {
        let image = shared.images.get(id)?.get_or_init(|| open(shared, id)).await.as_ref().ok()?;
        match &image.content {
            Content::Tree(path) => Some(Tree { path: path.clone(), digest: image.digest.clone() }),
            Content::Empty | Content::Reference(_) => None,
        }
    });
    trees.extend(join_all(images).await.into_iter().flatten());
    trees
}

/// Costs a host as much as a cell does, and so takes one of its slots.
async fn fingerprint(
    shared: &Shared,
    cell: &CellId,
    slots: &Semaphore,
    engine: &Arc<dyn Engine>,
) -> Result<Facts, Fault> {
    let _slot = slots.acquire().await.map_err(|_| shutting_down())?;
    let mut result = again(shared, cell, || engine.fingerprint()).await.map(|facts| declared(shared, cell, facts));
    if let (Ok(facts), Some(spec)) = (&mut result, shared.plan.engine(&cell.engine))
        && let Some(run) = shared.write(|writer| Ok(writer.run().clone()))
    {
        // What keeps a canary from running keeps the cells too, and they say it.
        let proved = canary::prove(&**engine, spec, &cell.host, &shared.rig.payload, &run).await.unwrap_or_default();
        for text in canary::warnings(&cell.engine, &proved) {
            shared.note(Event::Warning { text });
        }
        facts.extend(proved);
    }
    let (host, engine) = (cell.host.clone(), cell.engine.clone());
    let fault = result.as_ref().err().cloned();
    let facts = result.clone().unwrap_or_default();
    shared.entry(&Entry::Engine { host: host.clone(), engine: engine.clone(), facts, fault: fault.clone() });
    shared.note(Event::Engine { host, engine, fault });
    result
}

/// What the engine says of itself, and what the matrix says of it: two engines that differ in an option differ in a fact.
fn declared(shared: &Shared, cell: &CellId, mut facts: Facts) -> Facts {
    let Some(spec) = shared.plan.engine(&cell.engine) else { return facts };
    facts.insert("engine.kind".into(), spec.kind.to_string());
    if let Ok(serde_json::Value::Object(options)) = serde_json::to_value(&spec.options) {
        for (name, value) in options {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            facts.insert(format!("engine.option.{name}"), value);
        }
    }
    facts
}

async fn open(shared: &Arc<Shared>, id: &ImageId) -> Result<Arc<Image>, Fault> {
    let Some(spec) = shared.plan.image(id) else {
        return Err(Fault::new(Phase::Image, format!("image `{id}` is not in the plan")));
    };
    let _slot = shared.image_slots.acquire().await;
    let progress: Progress = {
        let (events, id) = (shared.events.clone(), id.clone());
        Arc::new(move |step| {
            let what = step.what.to_owned();
            let _ = events.send(Event::ImageStep { image: id.clone(), what, done: step.done, total: step.total });
        })
    };
    let images = &shared.rig.images;
    let result = match &spec.source {
        Source::Reference { reference, architecture, pull: Pull::Driver } => {
            let architecture = architecture.as_deref().unwrap_or(host_architecture());
            referenced(shared, id, reference, architecture, progress).await
        }
        Source::Reference { reference, architecture, pull: Pull::Engine } => {
            let wanted = architecture.as_deref().unwrap_or(host_architecture());
            let named = images.open(id, &spec.source, &shared.rig.base, host_architecture(), progress.clone()).await;
            match named {
                Ok(named) => Ok(looked_into(shared, named, reference, wanted, progress).await),
                broken => broken,
            }
        }
        source => images.open(id, source, &shared.rig.base, host_architecture(), progress).await,
    };
    let result = result.map(Arc::new);
    let facts = result.as_ref().map(|image| image.facts.clone()).unwrap_or_default();
    let fault = result.as_ref().err().cloned();
    shared.entry(&Entry::Image { image: id.clone(), facts, fault: fault.clone() });
    shared.note(Event::Image { image: id.clone(), fault });
    result
}

/// An image by reference, fetched once for every engine: from one that has it, else from its registry, else by way of an
/// engine, which may know credentials and mirrors that this user does not.
async fn referenced(
    shared: &Shared,
    id: &ImageId,
    reference: &str,
    architecture: &str,
    progress: Progress,
) -> Result<Image, Fault> {
    let engines = engines_here(shared);
    let has = join_all(engines.iter().map(|engine| engine.has(reference))).await;
    for (engine, _) in engines.iter().zip(has).filter(|(_, has)| *has == Ok(true)) {
        if let Ok(image) = handed_over(shared, id, engine, reference, architecture, progress.clone()).await {
            return Ok(image);
        }
    }
    let rig = &shared.rig;
    let pulled = rig.images.pull(id, reference, architecture, &rig.registries, progress.clone()).await;
    let Err(fault) = pulled else { return pulled };
    for engine in &engines {
        if let Ok(image) = handed_over(shared, id, engine, reference, architecture, progress.clone()).await {
            return Ok(image);
        }
    }
    // What the registry says is more than what an engine makes of it.
    Err(fault)
}

/// Engines of this machine that keep images by reference, where the run has cells on it. Those of other hosts are not
/// asked: one that is dead or still to be booted would hold up every cell that waits for the image.
fn engines_here(shared: &Shared) -> Vec<&Arc<dyn Engine>> {
    let used: BTreeSet<&HostId> = shared.plan.cells.iter().map(|planned| &planned.cell.host).collect();
    let here = used.into_iter().filter(|host| shared.rig.hosts.get(*host).is_some_and(|(_, reach)| reach.is_here()));
    let here: Vec<&HostId> = here.collect();
    let specs = shared.plan.engines.iter().filter(|engine| engine.kind.has_references());
    let keys = specs.flat_map(|spec| here.iter().map(|host| ((*host).clone(), spec.id.clone())));
    keys.filter_map(|key| shared.rig.engines.get(&key)?.as_ref().ok()).collect()
}

/// What is in an image that engines pull for themselves, from the first that hands it over: cells run from each engine's own.
async fn looked_into(shared: &Shared, named: Image, reference: &str, architecture: &str, progress: Progress) -> Image {
    for engine in engines_here(shared) {
        if let Ok(mut found) = handed_over(shared, &named.id, engine, reference, architecture, progress.clone()).await {
            found.facts.insert("pull".into(), "engine".into());
            let architecture = named.architecture.or(found.architecture.take());
            return Image { content: named.content, architecture, ..found };
        }
    }
    // Why it cannot be had is each cell's to say.
    named
}

/// An image out of an engine, which pulls it where it has not got it; one for another architecture is none.
async fn handed_over(
    shared: &Shared,
    id: &ImageId,
    engine: &Arc<dyn Engine>,
    reference: &str,
    architecture: &str,
    progress: Progress,
) -> Result<Image, Fault> {
    let images = &shared.rig.images;
    let file = tempfile::Builder::new()
        .prefix("export-")
        .tempfile_in(images.cache())
        .map_err(|error| Fault::new(Phase::Image, format!("{}: {error}", images.cache().display())))?;
    engine.export(reference, file.path()).await?;
    let mut image = images.open_archive(id, file.path(), None, architecture, progress).await?;
    if let Some(found) = image.architecture.as_deref().filter(|found| *found != architecture) {
        let cause = format!("{reference}: the engine has it for {found}, not for {architecture}");
        return Err(Fault::new(Phase::Image, cause));
    }
    image.facts.insert("reference".into(), reference.to_owned());
    Ok(image)
}

/// Refuses programs for a CPU that this kernel cannot run; by an emulator they run, and the report says so.
async fn foreign(shared: &Shared, cell: &CellId, image: &Image) -> Result<(), Fault> {
    let (Some(theirs), ours) = (image.architecture.as_deref(), host_architecture()) else { return Ok(()) };
    let runs = theirs == ours || matches!((ours, theirs), ("amd64", "386"));
    if runs || matches!(image.content, Content::Reference(_)) {
        return Ok(());
    }
    let emulator = emulator_of(theirs);
    let registered = match shared.rig.hosts.get(&cell.host) {
        Some((_, reach)) => host::text(&**reach, &format!("/proc/sys/fs/binfmt_misc/{emulator}")).await,
        None => String::new(),
    };
    let cause = format!("image `{}` is made for {theirs}, this host runs {ours}", image.id);
    match registration(&registered) {
        Registration::Everywhere => {
            let text = format!("{cause}: its own programs run under {emulator} on {}, the probes do not", cell.host);
            shared.note(Event::Warning { text });
            Ok(())
        }
        Registration::OutsideOnly => Err(Fault::new(Phase::Image, format!("{cause}; {emulator} is registered without `F`"))
            .hint("register the emulator with the flag F, or no root but the host's has it (Debian: qemu-user-static)")),
        Registration::None => Err(Fault::new(Phase::Image, cause).hint(format!(
            "use an image for {ours}, a host that runs {theirs}, or register {emulator} there (Debian: qemu-user-static)"
        ))),
    }
}

/// The name under which distributions register an emulator with binfmt_misc.
fn emulator_of(architecture: &str) -> String {
    let name = match architecture {
        "386" => "i386",
        "amd64" => "x86_64",
        "arm64" => "aarch64",
        other => other,
    };
    format!("qemu-{name}")
}

/// What binfmt_misc says of an emulator.
#[derive(Debug, PartialEq, Eq)]
enum Registration {
    /// The kernel holds it open, so that it serves every root.
    Everywhere,
    /// It is looked for in the root of the program.
    OutsideOnly,
    None,
}

/// Reads a file of binfmt_misc; see Documentation/admin-guide/binfmt-misc.rst of Linux.
fn registration(text: &str) -> Registration {
    if text.lines().next() != Some("enabled") {
        return Registration::None;
    }
    let flags = text.lines().find_map(|line| line.strip_prefix("flags:")).unwrap_or_default();
    if flags.contains('F') { Registration::Everywhere } else { Registration::OutsideOnly }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_emulator_serves_images_where_the_kernel_holds_it_open() {
        let says = |state: &str, flags: &str| {
            registration(&format!("{state}\ninterpreter /usr/bin/qemu\nflags: {flags}\noffset 0\nmagic 7f\n"))
        };
        assert_eq!(says("enabled", "OCF"), Registration::Everywhere);
        assert_eq!(says("enabled", ""), Registration::OutsideOnly);
        assert_eq!(says("disabled", "F"), Registration::None);
        assert_eq!(registration(""), Registration::None);
        assert_eq!((emulator_of("arm64"), emulator_of("riscv64")), ("qemu-aarch64".into(), "qemu-riscv64".into()));
    }
}

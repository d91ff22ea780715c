//! A run as every renderer sees it: axes in a meaningful order, every cell with its verdict, failures in groups.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap, HashSet};

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::Offset;

use super::findings::{self, Finding};
use super::order::natural;
use super::text::{count, names};
use super::vectors::{Judged, Source, Vector, judge_all};
use super::waived::{self, WaiverUse};
use crate::catalog::{Catalogue, Requirement};
use crate::collect::ProbeReport;
use crate::engine::Facts;
use crate::fault::Fault;
use crate::id::{CellId, CheckId, EngineId, HostId, ImageId};
use crate::image::EMPTY_DIGEST;
use crate::judge::profile::{self, Change};
use crate::judge::roster::Rosters;
use crate::judge::{Counts, Verdict};
use crate::plan::Role;
use crate::spec::{Terms, Waiver, terms};
use crate::store::{AttemptRecord, Known, Run, State};

/// One cell of a view. Axes are indexes into the view's.
#[derive(Debug, Clone)]
pub struct Cell<'a> {
    /// Which.
    pub id: &'a CellId,
    /// Index into [`View::hosts`].
    pub host: usize,
    /// Index into [`View::engines`].
    pub engine: usize,
    /// Index into [`View::images`].
    pub image: usize,
    /// Why it was run.
    pub role: Role,
    /// What it comes to, waivers considered.
    pub verdict: Verdict,
    /// How many checks came to what, waivers considered.
    pub counts: Counts,
    /// Index into [`View::vectors`], where it delivered something.
    pub vector: Option<usize>,
    /// Digest of its observations, where it delivered something.
    pub digest: Option<&'a str>,
    /// Why it was skipped.
    pub skipped: Option<&'a str>,
    /// What broke.
    pub faults: &'a [Fault],
    /// Facts read in the cell.
    pub facts: Option<&'a Facts>,
    /// Every attempt.
    pub attempts: &'a [AttemptRecord],
}

/// A run as every renderer sees it.
#[derive(Debug)]
pub struct View<'a> {
    /// The run.
    pub run: &'a Run,
    /// What the checks mean, with the requirements of the profile.
    pub catalogue: Cow<'a, Catalogue>,
    /// Profile and waivers in force.
    pub terms: Terms,
    /// What the profile changed.
    pub changes: Vec<Change>,
    /// How the waivers fare.
    pub waivers: Vec<WaiverUse>,
    /// What a reader has to know before believing anything else; some of it hostile text.
    pub notes: Vec<String>,
    /// When this was rendered.
    pub rendered_at: Timestamp,
    /// By kernel release, then name.
    pub hosts: Vec<&'a HostId>,
    /// Native first, then by name.
    pub engines: Vec<&'a EngineId>,
    /// By libc and its version, then name.
    pub images: Vec<&'a ImageId>,
    /// Which of the images are the empty one.
    pub scratch: Vec<bool>,
    /// Checks seen anywhere, in order of id.
    pub checks: Vec<CheckId>,
    /// Different answers.
    pub seen: Vec<super::Seen>,
    /// Different results of a whole cell.
    pub vectors: Vec<Vector>,
    /// Cells by image, host, engine in the order of the axes.
    pub cells: Vec<Cell<'a>>,
    /// What explains the failures, most important first.
    pub findings: Vec<Finding>,
}

impl<'a> View<'a> {
    /// Judges every cell of a run by the profile and the waivers its own matrix has.
    pub fn new(run: &'a Run, catalogue: &'a Catalogue, rendered_at: Timestamp) -> Self {
        match terms(&run.info.matrix, &run.info.matrix_file) {
            Ok(terms) => Self::with_terms(run, catalogue, terms, rendered_at),
            Err(errors) => {
                let mut view = Self::with_terms(run, catalogue, Terms::default(), rendered_at);
                view.notes.push(format!("no profile and no waiver is applied: {errors}"));
                view
            }
        }
    }

    /// The same by another profile and other waivers. The day is taken from `rendered_at`.
    pub fn with_terms(run: &'a Run, catalogue: &'a Catalogue, terms: Terms, rendered_at: Timestamp) -> Self {
        let (catalogue, changes) = match terms.profile.rules.is_empty() {
            true => (Cow::Borrowed(catalogue), vec![]),
            false => {
                let (changed, changes) = profile::apply(catalogue, &terms.profile);
                (Cow::Owned(changed), changes)
            }
        };
        let drafts = drafts(run);
        let delivered = drafts.values().filter_map(|draft| Some((draft.probes, run.vectors.get(draft.digest?)?)));
        let rosters = Rosters::new(delivered.map(|(probes, observations)| (probes, &**observations)));
        let mut sources: Vec<Source<'a>> = vec![];
        let mut known: HashMap<Key<'_>, usize> = HashMap::new();
        for draft in drafts.values() {
            if let Some(key) = draft.key()
                && let Some(observations) = run.vectors.get(key.digest)
            {
                known.entry(key).or_insert_with(|| {
                    let unreported = rosters.unreported(draft.probes, observations);
                    sources.push(Source { observations, unreported, faults: draft.faults });
                    sources.len() - 1
                });
            }
        }
        let Judged { checks, seen, vectors } = judge_all(&catalogue, &sources);

        let mut hosts: Vec<&HostId> =
            drafts.keys().map(|cell| &cell.host).collect::<HashSet<_>>().into_iter().collect();
        let mut engines: Vec<&EngineId> =
            drafts.keys().map(|cell| &cell.engine).collect::<HashSet<_>>().into_iter().collect();
        let mut images: Vec<&ImageId> =
            drafts.keys().map(|cell| &cell.image).collect::<HashSet<_>>().into_iter().collect();
        let with_image: HashSet<&EngineId> =
            drafts.keys().filter(|cell| !cell.image.is_none()).map(|cell| &cell.engine).collect();
        hosts.sort_by(|a, b| host_order(run, a, b));
        engines.sort_by_key(|&engine| (with_image.contains(engine), engine));
        images.sort_by(|a, b| image_order(run, a, b));
        let host_index: HashMap<&HostId, usize> = hosts.iter().copied().zip(0..).collect();
        let engine_index: HashMap<&EngineId, usize> = engines.iter().copied().zip(0..).collect();
        let image_index: HashMap<&ImageId, usize> = images.iter().copied().zip(0..).collect();

        let mut cells: Vec<Cell<'a>> = drafts
            .into_iter()
            .filter_map(|(id, draft)| {
                let vector = draft.key().and_then(|key| known.get(&key).copied());
                Some(Cell {
                    id,
                    host: *host_index.get(&id.host)?,
                    engine: *engine_index.get(&id.engine)?,
                    image: *image_index.get(&id.image)?,
                    role: draft.role,
                    verdict: vector
                        .and_then(|vector| vectors.get(vector))
                        .map_or(draft.verdict, |v: &Vector| v.verdict),
                    counts: vector.and_then(|vector| vectors.get(vector)).map(|v| v.counts).unwrap_or_default(),
                    vector,
                    digest: draft.digest,
                    skipped: draft.skipped,
                    faults: draft.faults,
                    facts: draft.facts,
                    attempts: draft.attempts,
                })
            })
            .collect();
        cells.sort_by_key(|cell| (cell.image, cell.host, cell.engine));
        let scratch = images.iter().map(|image| is_scratch(run, image)).collect();
        let mut view = Self {
            run,
            catalogue,
            terms,
            changes,
            waivers: vec![],
            notes: vec![],
            rendered_at,
            hosts,
            engines,
            images,
            scratch,
            checks,
            seen,
            vectors,
            cells,
            findings: vec![],
        };
        view.notes.extend(unknown_checks(&view.catalogue, &view.checks));
        view.notes.extend(ignored(run));
        view.waivers = waived::apply(&mut view, today(rendered_at));
        view.findings = findings::group(&view);
        view
    }

    /// The waiver that covers a failure of this cell and still holds.
    pub fn waiver(&self, cell: &CellId, check: &CheckId) -> Option<&Waiver> {
        let today = today(self.rendered_at);
        self.terms.waivers.iter().find(|waiver| waiver.until >= today && waiver.covers(cell, check))
    }

    /// Facts of a host.
    pub fn host(&self, id: &HostId) -> Option<&'a Known> {
        self.run.hosts.get(id)
    }

    /// Facts of an engine on a host.
    pub fn engine(&self, host: &HostId, engine: &EngineId) -> Option<&'a Known> {
        self.run.engines.get(&(host.clone(), engine.clone()))
    }

    /// Facts of an image.
    pub fn image(&self, id: &ImageId) -> Option<&'a Known> {
        self.run.images.get(id)
    }

    /// What a vector answers to a check.
    pub fn answer(&self, vector: usize, check: usize) -> Option<&super::Seen> {
        let results = &self.vectors.get(vector)?.results;
        let at = results.binary_search_by_key(&check, |&(check, _)| check as usize).ok()?;
        self.seen.get(results[at].1 as usize)
    }

    /// How much a check matters.
    pub fn requirement(&self, check: &CheckId) -> Requirement {
        self.catalogue.requirement(check)
    }

    /// The cells the user asked for.
    pub fn asked(&self) -> impl Iterator<Item = &Cell<'a>> {
        self.cells.iter().filter(|cell| !cell.role.is_control())
    }

    /// The cells run for attribution only.
    pub fn controls(&self) -> impl Iterator<Item = &Cell<'a>> {
        self.cells.iter().filter(|cell| cell.role.is_control())
    }

    /// How many asked cells came to what, from bad to good; verdicts nothing came to are left out.
    pub fn verdicts(&self) -> Vec<(Verdict, usize)> {
        let mut counts: BTreeMap<Verdict, usize> = BTreeMap::new();
        for cell in self.asked() {
            *counts.entry(cell.verdict).or_default() += 1;
        }
        counts.into_iter().rev().collect()
    }
}

/// The day of an instant, as waivers count days.
fn today(now: Timestamp) -> Date {
    Offset::UTC.to_datetime(now).date()
}

/// What engines took and did not do, as their canaries found: by engine and option, however many hosts say so.
fn ignored(run: &Run) -> Vec<String> {
    let mut hosts: BTreeMap<(&EngineId, &str, &str), Vec<&str>> = BTreeMap::new();
    for ((host, engine), known) in &run.engines {
        for (name, says) in &known.facts {
            if let Some(option) = name.strip_prefix("engine.ignored.") {
                hosts.entry((engine, option, says)).or_default().push(host.as_str());
            }
        }
    }
    let place = |hosts: &[&str]| match hosts {
        [one] => format!("on {one}"),
        many => format!("on {} hosts", many.len()),
    };
    let told = hosts.iter().map(|((engine, option, says), hosts)| {
        format!("engine `{engine}` ignores `{option}` {}: {says}", place(hosts))
    });
    told.collect()
}

/// Checks that only a newer abicus knows are not judged, and that has to be said.
fn unknown_checks(catalogue: &Catalogue, checks: &[CheckId]) -> Option<String> {
    let unknown: Vec<&str> = checks.iter().filter(|id| catalogue.row(id).is_none()).map(CheckId::as_str).collect();
    (!unknown.is_empty()).then(|| {
        let (number, list) = (count(unknown.len(), "check"), names(unknown.iter().copied(), 4));
        format!("{number} not judged, because this abicus does not know them ({list}): a newer one does")
    })
}

/// Whether an image is the empty one: by its digest, or because abicus made it up to be that.
fn is_scratch(run: &Run, image: &ImageId) -> bool {
    let digest = run.images.get(image).and_then(|known| known.facts.get("digest"));
    image.as_str() == "control.scratch" || digest.is_some_and(|digest| digest == EMPTY_DIGEST)
}

/// What a cell's outcomes depend on: what was seen, what broke, and how much was missing.
#[derive(PartialEq, Eq, Hash)]
struct Key<'a> {
    digest: &'a str,
    faults: Vec<String>,
    reported: Vec<(usize, usize, bool)>,
}

impl<'a> Draft<'a> {
    fn key(&self) -> Option<Key<'a>> {
        Some(Key {
            digest: self.digest?,
            faults: self.faults.iter().map(Fault::to_string).collect(),
            reported: self.probes.iter().map(|p| (p.planned, p.reported, p.complete)).collect(),
        })
    }
}

struct Draft<'a> {
    role: Role,
    probes: &'a [ProbeReport],
    verdict: Verdict,
    digest: Option<&'a str>,
    skipped: Option<&'a str>,
    faults: &'a [Fault],
    facts: Option<&'a Facts>,
    attempts: &'a [AttemptRecord],
}

/// Planned, skipped and recorded cells; what was recorded counts most.
fn drafts(run: &Run) -> BTreeMap<&CellId, Draft<'_>> {
    let empty = |role, verdict, skipped| Draft {
        role,
        verdict,
        probes: &[],
        digest: None,
        skipped,
        faults: &[],
        facts: None,
        attempts: &[],
    };
    let mut drafts = BTreeMap::new();
    for (cell, reason) in &run.info.skips {
        drafts.insert(cell, empty(Role::Cell, Verdict::Skip, Some(reason.as_str())));
    }
    for (cell, role) in &run.info.cells {
        drafts.insert(cell, empty(*role, Verdict::Miss, None));
    }
    for (cell, record) in &run.cells {
        let draft = match &record.state {
            State::Skipped { reason } => empty(record.role, Verdict::Skip, Some(reason.as_str())),
            State::Broken { fault } => {
                Draft { faults: std::slice::from_ref(fault), ..empty(record.role, Verdict::Error, None) }
            }
            State::Ran { vector, facts, faults, probes } => Draft {
                probes,
                digest: Some(vector.as_str()),
                faults,
                facts: Some(facts),
                ..empty(record.role, Verdict::Miss, None)
            },
        };
        drafts.insert(cell, Draft { attempts: &record.attempts, ..draft });
    }
    drafts
}

/// A fact by the first of several names that is there.
pub fn fact<'a>(known: Option<&'a Known>, names: &[&str]) -> &'a str {
    known.and_then(|known| names.iter().find_map(|name| known.facts.get(*name))).map_or("", String::as_str)
}

fn host_order(run: &Run, a: &HostId, b: &HostId) -> Ordering {
    let kernel = |id| fact(run.hosts.get(id), &["kernel.release"]);
    natural(kernel(a), kernel(b)).then_with(|| natural(a.as_str(), b.as_str()))
}

/// No image, no libc, then each libc from old to new.
fn image_order(run: &Run, a: &ImageId, b: &ImageId) -> Ordering {
    let key = |id: &ImageId| (!id.is_none(), fact(run.images.get(id), &["libc.kind"]));
    let version = |id| fact(run.images.get(id), &["libc.version"]);
    key(a).cmp(&key(b)).then_with(|| natural(version(a), version(b))).then_with(|| natural(a.as_str(), b.as_str()))
}

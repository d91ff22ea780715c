//! A run as every renderer sees it: axes in a meaningful order, every cell with its verdict, failures in groups.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use jiff::Timestamp;

use super::findings::{self, Finding};
use super::order::natural;
use super::vectors::{Judged, Source, Vector, judge_all, requirement};
use crate::catalog::{Catalogue, Requirement};
use crate::engine::Facts;
use crate::fault::Fault;
use crate::id::{CellId, CheckId, EngineId, HostId, ImageId};
use crate::image::EMPTY_DIGEST;
use crate::judge::Verdict;
use crate::plan::Role;
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
    /// What it comes to.
    pub verdict: Verdict,
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
    /// What the checks mean.
    pub catalogue: &'a Catalogue,
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
    /// Judges every cell of a run.
    pub fn new(run: &'a Run, catalogue: &'a Catalogue, rendered_at: Timestamp) -> Self {
        let drafts = drafts(run);
        let mut sources: Vec<Source<'a>> = vec![];
        // Faults of the rig change what a vector comes to, so they are part of the key.
        let faulty = |faults: &[Fault]| faults.iter().map(Fault::to_string).collect::<Vec<_>>();
        let mut known: HashMap<(&str, Vec<String>), usize> = HashMap::new();
        for draft in drafts.values() {
            if let Some(digest) = draft.digest
                && let Some(observations) = run.vectors.get(digest)
            {
                known.entry((digest, faulty(draft.faults))).or_insert_with(|| {
                    sources.push((observations, draft.faults));
                    sources.len() - 1
                });
            }
        }
        let Judged { checks, seen, vectors } = judge_all(catalogue, &sources);

        let mut hosts: Vec<&HostId> =
            drafts.keys().map(|cell| &cell.host).collect::<BTreeSet<_>>().into_iter().collect();
        let mut engines: Vec<&EngineId> =
            drafts.keys().map(|cell| &cell.engine).collect::<BTreeSet<_>>().into_iter().collect();
        let mut images: Vec<&ImageId> =
            drafts.keys().map(|cell| &cell.image).collect::<BTreeSet<_>>().into_iter().collect();
        let with_image: BTreeSet<&EngineId> =
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
                let vector = draft.digest.and_then(|digest| known.get(&(digest, faulty(draft.faults))).copied());
                Some(Cell {
                    id,
                    host: *host_index.get(&id.host)?,
                    engine: *engine_index.get(&id.engine)?,
                    image: *image_index.get(&id.image)?,
                    role: draft.role,
                    verdict: vector
                        .and_then(|vector| vectors.get(vector))
                        .map_or(draft.verdict, |v: &Vector| v.verdict),
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
        view.findings = findings::group(&view);
        view
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

    /// How much a check matters.
    pub fn requirement(&self, check: &CheckId) -> Requirement {
        requirement(self.catalogue, check)
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

    /// Cells that did not run or not to their end, by reason: reason, what to do, cells.
    pub fn not_run(&self) -> Vec<NotRun<'_, 'a>> {
        let mut reasons: BTreeMap<(Verdict, String, Option<&str>), Vec<&Cell<'a>>> = BTreeMap::new();
        for cell in &self.cells {
            if let Some(reason) = cell.skipped {
                reasons.entry((Verdict::Skip, reason.to_owned(), None)).or_default().push(cell);
            } else if cell.verdict == Verdict::Miss && cell.faults.is_empty() {
                let reason = match cell.vector {
                    Some(_) => "it ran and reported nothing",
                    None => "it was planned and nothing is recorded of it",
                };
                reasons.entry((Verdict::Miss, reason.to_owned(), None)).or_default().push(cell);
            }
            for fault in cell.faults {
                let key = (Verdict::Error, fault.to_string(), fault.hint.as_deref());
                let cells = reasons.entry(key).or_default();
                if cells.last().is_none_or(|last| last.id != cell.id) {
                    cells.push(cell);
                }
            }
        }
        let mut all: Vec<_> = reasons
            .into_iter()
            .map(|((verdict, reason, hint), cells)| NotRun { verdict, reason, hint, cells })
            .collect();
        all.sort_by_key(|not_run| std::cmp::Reverse((not_run.verdict, not_run.cells.len())));
        all
    }
}

/// Cells that did not run, or not to their end, for one reason.
#[derive(Debug)]
pub struct NotRun<'v, 'a> {
    /// Skip, miss or error.
    pub verdict: Verdict,
    /// Why; hostile text.
    pub reason: String,
    /// What to do; hostile text.
    pub hint: Option<&'v str>,
    /// Which.
    pub cells: Vec<&'v Cell<'a>>,
}

/// Whether an image is the empty one: by its digest, or because abicus made it up to be that.
fn is_scratch(run: &Run, image: &ImageId) -> bool {
    let digest = run.images.get(image).and_then(|known| known.facts.get("digest"));
    image.as_str() == "control.scratch" || digest.is_some_and(|digest| digest == EMPTY_DIGEST)
}

struct Draft<'a> {
    role: Role,
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
            State::Ran { vector, facts, faults, probes: _ } => Draft {
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

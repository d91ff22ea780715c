//! From "fails here, passes there" to "this layer, when that holds": control cells earn the blame, attributes name the
//! condition.
//!
//! In: the cells of a run with what is known of their host, engine and image; then, failure by failure, in which of them a
//! check fails. Out: a [`Cause`]. Pure; made once per run and asked for every failure.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::{Deserialize, Serialize};

use super::attributes::table;
use super::bits::Bits;
use super::blame::{Answer, Around, Controls, Layer, Others, layers, missing, narrowed};
use super::kin::{Kin, Passing, number};
use super::learn::{Learned, Literal, Table};
use crate::engine::Facts;
use crate::id::{CellId, EngineId, HostId, ImageId};
use crate::plan::{ControlNames, Role};

/// Groups of checks, and what they are about: of properties that say the same of the cells at hand, such a one is named.
const ABOUT: [(&str, &str); 2] = [("fs", "engine.storage"), ("fs", "host.root.type")];

/// A cell with what is known of its parts.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// Which.
    pub cell: &'a CellId,
    /// Why it was run.
    pub role: Role,
    /// Whether it delivered something.
    pub ran: bool,
    /// Facts of its host.
    pub host: Option<&'a Facts>,
    /// Facts of its engine.
    pub engine: Option<&'a Facts>,
    /// Facts of its image.
    pub image: Option<&'a Facts>,
}

/// Who has to fix a failure, and when it happens.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cause {
    /// The layers that the controls leave; one is a proof. Empty: the cells disagree.
    pub layers: Vec<Layer>,
    /// Controls that would make the claim firmer and did not run or could not be asked.
    pub missing: Vec<String>,
    /// The smallest rule over attributes that covers the failing cells: alternatives joined by ` or `.
    pub condition: Option<String>,
    /// Others that say the same of these cells.
    pub ties: Vec<String>,
    /// What was seen on both sides of a threshold: `host.kernel.release: 5.10 fails, 5.14 passes`.
    pub thresholds: Vec<String>,
    /// Failing groups of like cells that no rule covers.
    pub unexplained: usize,
    /// Passing groups of like cells that a rule covers.
    pub exceptions: usize,
}

/// Who has to fix one failure of one cell, by its controls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blame {
    /// The layers that are left; one is a proof.
    pub layers: Vec<Layer>,
    /// Controls that would make the claim firmer.
    pub missing: Vec<&'static str>,
    /// What the controls answered.
    pub controls: Controls,
}

/// Where the controls of a cell are, among the subjects.
#[derive(Debug, Clone, Copy, Default)]
pub struct Places {
    /// No engine, no image.
    pub native: Option<usize>,
    /// This engine, the empty image.
    pub scratch: Option<usize>,
    /// This image, no policy.
    pub no_policy: Option<usize>,
}

/// What was counted for one failure.
#[derive(Default)]
struct Memory {
    passing: Passing,
    /// By number of the host.
    images: HashMap<usize, ImagesOfHost>,
}

/// Whether a check fails in each image of a host, by number of the image, and how many it fails in.
#[derive(Default)]
struct ImagesOfHost {
    fails: HashMap<usize, bool>,
    failing: usize,
}

/// Numbers of hosts, engines and images: what is compared for each of a hundred thousand cells is not compared as text.
#[derive(Debug, Default)]
struct Numbers<'a> {
    hosts: HashMap<&'a HostId, usize>,
    engines: HashMap<&'a EngineId, usize>,
    images: HashMap<&'a ImageId, usize>,
}

/// The numbers of one cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Parts {
    host: usize,
    engine: usize,
    image: usize,
}

impl<'a> Numbers<'a> {
    fn of(&mut self, cell: &'a CellId) -> Parts {
        Parts {
            host: number(&mut self.hosts, &cell.host),
            engine: number(&mut self.engines, &cell.engine),
            image: number(&mut self.images, &cell.image),
        }
    }
}

/// The cells of a run, ready to be asked about.
#[derive(Debug)]
pub struct Causes<'a> {
    subjects: Vec<Subject<'a>>,
    places: Vec<Places>,
    controls: bool,
    /// The empty image of the controls, which may be one that was asked for.
    scratch: Option<&'a ImageId>,
    /// Positions of the cells the user asked for.
    asked: Vec<usize>,
    /// For each cell, its parts.
    parts: Vec<Parts>,
    /// Asked cells by host and engine, and by host and image.
    under: HashMap<(usize, usize), Vec<usize>>,
    with: HashMap<(usize, usize), Vec<usize>>,
    /// All cells by host, controls too.
    on: Vec<Vec<usize>>,
    /// For each asked cell, the group of cells that no attribute tells apart: a thousand equal hosts are one.
    group_of: Vec<usize>,
    table: Table,
    /// Cells that differ in their host only.
    kin: Kin,
}

impl<'a> Causes<'a> {
    /// Learns what the cells have in common.
    pub fn new(subjects: Vec<Subject<'a>>, controls: Option<&'a ControlNames>) -> Self {
        let asked: Vec<usize> = (0..subjects.len()).filter(|&at| !subjects[at].role.is_control()).collect();
        let (group_of, table) = table(&asked.iter().map(|&at| &subjects[at]).collect::<Vec<_>>());
        let mut numbers = Numbers::default();
        let parts: Vec<Parts> = subjects.iter().map(|subject| numbers.of(subject.cell)).collect();
        let (mut under, mut with): (HashMap<_, Vec<usize>>, HashMap<_, Vec<usize>>) = Default::default();
        for &at in &asked {
            let Parts { host, engine, image } = parts[at];
            under.entry((host, engine)).or_default().push(at);
            with.entry((host, image)).or_default().push(at);
        }
        let mut on = vec![vec![]; numbers.hosts.len()];
        for (at, parts) in parts.iter().enumerate() {
            on[parts.host].push(at);
        }
        let kin = Kin::new(&subjects);
        let places = places(&subjects, &parts, &numbers, controls, &kin);
        let scratch = controls.map(|names| &names.scratch);
        let controls = controls.is_some();
        Self { places, controls, scratch, subjects, asked, parts, under, with, on, group_of, table, kin }
    }

    /// Positions of the asked cells among the subjects, and the group of each.
    pub fn groups(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        self.asked.iter().copied().zip(self.group_of.iter().copied())
    }

    /// How many groups there are.
    pub fn group_count(&self) -> usize {
        self.table.groups()
    }

    /// Where the controls of a cell are.
    pub fn places(&self, at: usize) -> Places {
        self.places[at]
    }

    /// The cause of one failure. `fails` says for every subject, in the order given, whether the check fails there;
    /// `None` where it was not asked.
    pub fn of(&self, fails: &[Option<bool>]) -> Cause {
        let mut counts = vec![(0u32, 0u32); self.table.groups()];
        for (at, group) in self.groups() {
            match fails[at] {
                Some(true) => counts[group].0 += 1,
                Some(false) => counts[group].1 += 1,
                None => {}
            }
        }
        let (failing, passing) = labels(&counts);
        self.blamed(fails, self.condition(&self.learn(&failing, &passing), ""))
    }

    /// A condition that is known, with the layers the controls leave.
    pub fn blamed(&self, fails: &[Option<bool>], condition: Cause) -> Cause {
        let (layers, missing) = self.vote(self.speakers(fails), fails);
        let missing = if layers.len() > 1 { missing.into_iter().map(str::to_owned).collect() } else { vec![] };
        Cause { layers, missing, ..condition }
    }

    /// The layers by one failing cell of each of some groups of like cells: enough to tell two failures apart.
    pub fn layers(&self, fails: &[Option<bool>]) -> Vec<Layer> {
        const ENOUGH: usize = 16;
        let speakers = self.speakers(fails);
        let step = speakers.len().div_ceil(ENOUGH).max(1);
        self.vote(speakers.into_iter().step_by(step).map(|(at, _)| (at, 1)), fails).0
    }

    /// One failing cell of each group of like cells, and how many it speaks for.
    fn speakers(&self, fails: &[Option<bool>]) -> Vec<(usize, usize)> {
        let mut groups = vec![None; self.table.groups()];
        for (at, group) in self.groups().filter(|&(at, _)| fails[at] == Some(true)) {
            groups[group].get_or_insert((at, 0)).1 += 1;
        }
        groups.into_iter().flatten().collect()
    }

    /// One layer, or one set of layers that are left, for (nearly) all of the cells, or no claim. Each comes with its weight.
    fn vote(
        &self,
        cells: impl IntoIterator<Item = (usize, usize)>,
        fails: &[Option<bool>],
    ) -> (Vec<Layer>, BTreeSet<&'static str>) {
        let mut votes: BTreeMap<Vec<Layer>, (usize, BTreeSet<&'static str>)> = BTreeMap::new();
        let mut memory = Memory::default();
        for (at, weight) in cells {
            let blame = self.blame_with(at, fails, &mut memory);
            let vote = votes.entry(blame.layers).or_default();
            vote.0 += weight;
            vote.1.extend(blame.missing);
        }
        let failing: usize = votes.values().map(|(count, _)| count).sum();
        let winner = votes.into_iter().max_by_key(|(_, (count, _))| *count);
        match winner {
            Some((layers, (count, missing))) if count * 10 >= failing * 8 => (layers, missing),
            Some(_) | None => (vec![], BTreeSet::new()),
        }
    }

    /// Who has to fix the failure of the cell at a position.
    pub fn blame(&self, at: usize, fails: &[Option<bool>]) -> Blame {
        self.blame_with(at, fails, &mut Memory::default())
    }

    /// The same for one of many cells: what is counted for one is remembered for the next.
    fn blame_with(&self, at: usize, fails: &[Option<bool>], memory: &mut Memory) -> Blame {
        let subject = &self.subjects[at];
        let answer = |at: Option<usize>| match at.and_then(|at| fails[at]) {
            Some(true) => Answer::Fails,
            Some(false) => Answer::Passes,
            None => Answer::Unknown,
        };
        let places = self.places[at];
        let controls = Controls {
            native: answer(places.native),
            // The empty image fails: there is nothing in it that could be at fault.
            scratch: if self.scratch == Some(&subject.cell.image) { Answer::Fails } else { answer(places.scratch) },
            no_policy: answer(places.no_policy),
        };
        let proof = |layer| Blame { layers: vec![layer], missing: vec![], controls };
        if subject.cell.image.is_none() {
            return proof(Layer::Host);
        }
        if !self.controls {
            let layers = vec![Layer::Host, Layer::Engine, Layer::Image, Layer::EngineImage];
            return Blame { layers, missing: vec!["all of them"], controls };
        }
        let left = layers(controls);
        // What no cell around can change needs none: most failures are one of these, and they are many.
        if let [Layer::Host | Layer::EngineImage] = left {
            return Blame { layers: left.to_vec(), missing: vec![], controls };
        }
        let scratch_is_silent = controls.scratch == Answer::Unknown;
        let engine_passes = self.elsewhere(at, fails);
        let images =
            if scratch_is_silent || engine_passes { several(self.siblings(at, fails)) } else { Others::Silent };
        let images_here = if scratch_is_silent { self.images_here(at, fails, memory) } else { Others::Silent };
        let host_passes = self.on_another_host(at, fails, &mut memory.passing);
        let around = Around { images, images_here, engine_passes, host_passes };
        let layers = narrowed(controls, around);
        let missing = if layers.len() > 1 { missing(controls) } else { vec![] };
        Blame { layers, missing, controls }
    }

    /// A cell the check passes in that differs from this one in the fewest things: same host and image, or same host and
    /// engine.
    pub fn neighbour(&self, at: usize, fails: &[Option<bool>]) -> Option<usize> {
        let Parts { host, engine, image } = self.parts[at];
        let with = self.with.get(&(host, image)).into_iter().flatten();
        let under = self.under.get(&(host, engine)).into_iter().flatten();
        with.chain(under).copied().find(|&other| fails[other] == Some(false))
    }

    /// Whether the check passes in the same image under another engine that was asked for.
    fn elsewhere(&self, at: usize, fails: &[Option<bool>]) -> bool {
        let Parts { host, image, .. } = self.parts[at];
        let others = self.with.get(&(host, image)).into_iter().flatten();
        others.into_iter().any(|&other| other != at && fails[other] == Some(false))
    }

    /// Whether the check passes in this image under this engine on a host of another class, or, where it fails without policy
    /// too, in this image without policy there.
    fn on_another_host(&self, at: usize, fails: &[Option<bool>], passing: &mut Passing) -> bool {
        let failing = |at: &usize| fails[*at] == Some(true);
        let alike = [Some(at), self.places[at].no_policy.filter(failing)];
        alike.into_iter().flatten().any(|at| self.kin.passes_on_another(at, fails, passing))
    }

    /// What other images on the same host say; one that passes under any engine passes. Natively the host's own C library
    /// answers: it counts where it fails.
    fn images_here(&self, at: usize, fails: &[Option<bool>], memory: &mut Memory) -> Others {
        let Parts { host, image, .. } = self.parts[at];
        let images = memory.images.entry(host).or_insert_with(|| {
            let mut images = ImagesOfHost::default();
            for &other in &self.on[host] {
                let none = self.subjects[other].cell.image.is_none();
                if let Some(fails) = fails[other].filter(|fails| *fails || !none) {
                    *images.fails.entry(self.parts[other].image).or_insert(true) &= fails;
                }
            }
            images.failing = images.fails.values().filter(|fails| **fails).count();
            images
        });
        let own = images.fails.get(&image).copied();
        let failing = images.failing - usize::from(own == Some(true));
        let all = images.fails.len() - usize::from(own.is_some());
        spoken(failing, all)
    }

    /// Whether the check fails in the other images under one engine on one host.
    fn siblings(&self, at: usize, fails: &[Option<bool>]) -> Vec<bool> {
        let Parts { host, engine, .. } = self.parts[at];
        let others = self.under.get(&(host, engine)).into_iter().flatten();
        others.into_iter().filter(|&&other| other != at).filter_map(|&other| fails[other]).collect()
    }

    /// The smallest rules that tell the failing groups from the passing ones.
    pub fn learn(&self, failing: &Bits, passing: &Bits) -> Learned {
        match failing.is_empty() {
            true => Learned { rules: vec![], unexplained: failing.clone(), exceptions: failing.clone() },
            false => self.table.learn(failing, passing),
        }
    }

    /// What was learned, in words, for checks of one group; the layers are left open.
    pub fn condition(&self, learned: &Learned, group: &str) -> Cause {
        let Learned { rules, unexplained, exceptions } = learned;
        let mut ties = vec![];
        let mut thresholds = vec![];
        let mut texts = vec![];
        for rule in rules {
            let mut literals = vec![];
            // A tie says the same beside the other conditions as they were learned, so only one is exchanged.
            let mut exchanged = false;
            for (mut literal, same) in rule.literals.iter().zip(&rule.ties) {
                let mut same: Vec<&Literal> = same.iter().collect();
                if !exchanged && let Some(at) = self.nearer(literal, &same, group) {
                    same.swap(0, at);
                    std::mem::swap(&mut literal, &mut same[0]);
                    exchanged = true;
                }
                let text = self.table.print(literal);
                let same: Vec<String> = same.into_iter().take(4).map(|tie| self.table.print(tie)).collect();
                if !same.is_empty() {
                    ties.push(format!("{text} ≡ {}", same.join(" ≡ ")));
                }
                if let Some((below, above)) = self.table.threshold(literal) {
                    let name = &self.table.attributes()[literal.attribute].name;
                    let fails_below = matches!(literal.test, super::learn::Test::Below);
                    let (fails, passes) = if fails_below { (below, above) } else { (above, below) };
                    thresholds.push(format!("{name}: {fails} fails, {passes} passes"));
                }
                literals.push(text);
            }
            texts.push(if literals.is_empty() { "always".to_owned() } else { literals.join(" & ") });
        }
        let condition = (!texts.is_empty()).then(|| texts.join(" or "));
        let (unexplained, exceptions) = (unexplained.count(), exceptions.count());
        Cause { condition, ties, thresholds, unexplained, exceptions, ..Cause::default() }
    }

    /// Of conditions that say the same as another, the one that is about checks of this group where the other is not.
    fn nearer(&self, other: &Literal, ties: &[&Literal], group: &str) -> Option<usize> {
        let about = |literal: &Literal| {
            let name = &self.table.attributes()[literal.attribute].name;
            ABOUT.iter().any(|(known, property)| *known == group && name.starts_with(property))
        };
        ties.iter().position(|tie| about(tie)).filter(|_| !about(other))
    }
}

/// What other images say: one that fails proves nothing.
fn several(fail: Vec<bool>) -> Others {
    spoken(fail.iter().filter(|fails| **fails).count(), fail.len())
}

fn spoken(failing: usize, all: usize) -> Others {
    match (failing < all, all) {
        (true, _) => Others::Pass,
        (false, 0 | 1) => Others::Silent,
        (false, 2..) => Others::AllFail,
    }
}

/// Which groups fail and which pass, from how many of their cells do: the majority speaks for a group, because what single
/// cells of it do is noise and not a condition.
pub fn labels(counts: &[(u32, u32)]) -> (Bits, Bits) {
    let (mut failing, mut passing) = (Bits::new(counts.len()), Bits::new(counts.len()));
    for (group, &(fails, passes)) in counts.iter().enumerate() {
        match fails.cmp(&passes) {
            Ordering::Greater => failing.insert(group),
            Ordering::Less => passing.insert(group),
            Ordering::Equal if fails > 0 => failing.insert(group),
            Ordering::Equal => {}
        }
    }
    (failing, passing)
}

/// Where the controls of each cell are. A cell is no control of itself. A control without policy that ran on another host of the
/// same class serves all of them.
fn places(
    subjects: &[Subject<'_>],
    parts: &[Parts],
    numbers: &Numbers<'_>,
    controls: Option<&ControlNames>,
    kin: &Kin,
) -> Vec<Places> {
    let Some(names) = controls else { return vec![Places::default(); subjects.len()] };
    let by_parts: HashMap<Parts, usize> = parts.iter().copied().zip(0..).collect();
    let (native, no_policy) = (numbers.engines.get(&names.native), numbers.engines.get(&names.no_policy));
    let (none, scratch) = (numbers.images.get(&ImageId::none()), numbers.images.get(&names.scratch));
    let mut shared: HashMap<(usize, usize), usize> = HashMap::new();
    for (at, subject) in subjects.iter().enumerate() {
        if subject.ran
            && Some(&parts[at].engine) == no_policy
            && let Some(kind) = kin.kind(at)
        {
            shared.entry(kind).or_insert(at);
        }
    }
    let ran = |own: usize| match subjects[own].ran {
        true => own,
        false => kin.kind(own).and_then(|kind| shared.get(&kind).copied()).unwrap_or(own),
    };
    let place = |(at, &Parts { host, engine, image }): (usize, &Parts)| {
        let find = |engine: Option<&usize>, image: Option<&usize>| {
            by_parts.get(&Parts { host, engine: *engine?, image: *image? }).copied()
        };
        let other = |found: Option<usize>| found.filter(|&found| found != at);
        Places {
            native: other(find(native, none)),
            scratch: other(find(Some(&engine), scratch)),
            // A cell without policy has none to be cleared of.
            no_policy: find(no_policy, Some(&image)).map(ran),
        }
    };
    parts.iter().enumerate().map(place).collect()
}

#[cfg(test)]
mod tests;

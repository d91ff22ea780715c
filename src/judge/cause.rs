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
use super::blame::{Answer, Controls, Layer, layers, missing};
use super::learn::{Learned, Table};
use crate::engine::Facts;
use crate::id::{CellId, EngineId, HostId, ImageId};
use crate::plan::{ControlNames, Role};

/// A cell with what is known of its parts.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// Which.
    pub cell: &'a CellId,
    /// Why it was run.
    pub role: Role,
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

/// The cells of a run, ready to be asked about.
#[derive(Debug)]
pub struct Causes<'a> {
    subjects: Vec<Subject<'a>>,
    places: Vec<Places>,
    controls: bool,
    /// Positions of the cells the user asked for.
    asked: Vec<usize>,
    /// The same by host and engine, and by host and image.
    under: HashMap<(&'a HostId, &'a EngineId), Vec<usize>>,
    with: HashMap<(&'a HostId, &'a ImageId), Vec<usize>>,
    /// All cells by host, controls too.
    on: HashMap<&'a HostId, Vec<usize>>,
    /// For each asked cell, the group of cells that no attribute tells apart: a thousand equal hosts are one.
    group_of: Vec<usize>,
    table: Table,
}

impl<'a> Causes<'a> {
    /// Learns what the cells have in common.
    pub fn new(subjects: Vec<Subject<'a>>, controls: Option<&'a ControlNames>) -> Self {
        let asked: Vec<usize> = (0..subjects.len()).filter(|&at| !subjects[at].role.is_control()).collect();
        let (group_of, table) = table(&asked.iter().map(|&at| &subjects[at]).collect::<Vec<_>>());
        let mut under: HashMap<_, Vec<usize>> = HashMap::new();
        let mut with: HashMap<_, Vec<usize>> = HashMap::new();
        for &at in &asked {
            let cell = subjects[at].cell;
            under.entry((&cell.host, &cell.engine)).or_default().push(at);
            with.entry((&cell.host, &cell.image)).or_default().push(at);
        }
        let mut on: HashMap<_, Vec<usize>> = HashMap::new();
        for (at, subject) in subjects.iter().enumerate() {
            on.entry(&subject.cell.host).or_default().push(at);
        }
        let places = places(&subjects, controls);
        Self { places, controls: controls.is_some(), subjects, asked, under, with, on, group_of, table }
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
        self.blamed(fails, self.condition(&failing, &passing))
    }

    /// A condition that is known, with the layers the controls leave.
    pub fn blamed(&self, fails: &[Option<bool>], condition: Cause) -> Cause {
        let mut votes: BTreeMap<Vec<Layer>, (usize, BTreeSet<&'static str>)> = BTreeMap::new();
        for &at in self.asked.iter().filter(|&&at| fails[at] == Some(true)) {
            let blame = self.blame(at, fails);
            let vote = votes.entry(blame.layers).or_default();
            vote.0 += 1;
            vote.1.extend(blame.missing);
        }
        let failing: usize = votes.values().map(|(count, _)| count).sum();
        // One layer for (nearly) all of them, or no claim.
        let winner = votes.into_iter().max_by_key(|(_, (count, _))| *count);
        let (layers, missing) = match winner {
            Some((layers, (count, missing))) if count * 10 >= failing * 8 => (layers, missing),
            _ => (vec![], BTreeSet::new()),
        };
        let missing = if layers.len() > 1 { missing.into_iter().map(str::to_owned).collect() } else { vec![] };
        Cause { layers, missing, ..condition }
    }

    /// Who has to fix the failure of the cell at a position.
    pub fn blame(&self, at: usize, fails: &[Option<bool>]) -> Blame {
        let subject = &self.subjects[at];
        let answer = |at: Option<usize>| match at.and_then(|at| fails[at]) {
            Some(true) => Answer::Fails,
            Some(false) => Answer::Passes,
            None => Answer::Unknown,
        };
        let places = self.places[at];
        let controls = Controls {
            native: answer(places.native),
            scratch: answer(places.scratch),
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
        // The empty image has no libc to ask. Other images under the same engine stand in for it: some pass, so the engine
        // alone is not at fault; several, and all fail, so the image is not.
        if left == [Layer::Engine, Layer::EngineImage] {
            let siblings = self.siblings(at, fails);
            if siblings.contains(&false) {
                return proof(Layer::EngineImage);
            } else if siblings.len() > 1 {
                return proof(Layer::Engine);
            }
        }
        // Natively the host's own libc and programs answer: they are another image, and prove the host at fault only where no
        // image does better there.
        if left == [Layer::Host] && controls.scratch == Answer::Unknown && self.better_image(at, fails) {
            return proof(Layer::Image);
        }
        // The same image passes under another engine on the same host: it is not at fault by itself, nor is being contained.
        // (The control without policy is the built-in engine, so it cannot tell that engine's own doings from the image's.)
        if matches!(left, [Layer::Image | Layer::Sandboxing]) && self.elsewhere(at, fails) {
            let siblings = self.siblings(at, fails);
            let all = siblings.len() > 1 && siblings.iter().all(|fails| *fails);
            return proof(if all || left == [Layer::Sandboxing] { Layer::Engine } else { Layer::EngineImage });
        }
        Blame { layers: left.to_vec(), missing: missing(controls), controls }
    }

    /// A cell the check passes in that differs from this one in the fewest things: same host and image, or same host and
    /// engine.
    pub fn neighbour(&self, at: usize, fails: &[Option<bool>]) -> Option<usize> {
        let cell = self.subjects[at].cell;
        let with = self.with.get(&(&cell.host, &cell.image)).into_iter().flatten();
        let under = self.under.get(&(&cell.host, &cell.engine)).into_iter().flatten();
        with.chain(under).copied().find(|&other| fails[other] == Some(false))
    }

    /// Whether the check passes in the same image under another engine that was asked for.
    fn elsewhere(&self, at: usize, fails: &[Option<bool>]) -> bool {
        let cell = self.subjects[at].cell;
        let others = self.with.get(&(&cell.host, &cell.image)).into_iter().flatten();
        others.into_iter().any(|&other| other != at && fails[other] == Some(false))
    }

    /// Whether the check passes in another image on the same host.
    fn better_image(&self, at: usize, fails: &[Option<bool>]) -> bool {
        let cell = self.subjects[at].cell;
        let others = self.on.get(&cell.host).into_iter().flatten();
        others.into_iter().any(|&other| self.subjects[other].cell.image != cell.image && fails[other] == Some(false))
    }

    /// Whether the check fails in the other images under one engine on one host.
    fn siblings(&self, at: usize, fails: &[Option<bool>]) -> Vec<bool> {
        let cell = self.subjects[at].cell;
        let others = self.under.get(&(&cell.host, &cell.engine)).into_iter().flatten();
        others.into_iter().filter(|&&other| other != at).filter_map(|&other| fails[other]).collect()
    }

    /// The smallest rule that tells the failing groups from the passing ones; the layers are left open.
    pub fn condition(&self, failing: &Bits, passing: &Bits) -> Cause {
        if failing.is_empty() {
            return Cause::default();
        }
        let Learned { rules, unexplained, exceptions } = self.table.learn(failing, passing);
        let mut ties = vec![];
        let mut thresholds = vec![];
        let mut texts = vec![];
        for rule in &rules {
            let literals: Vec<String> = rule.literals.iter().map(|literal| self.table.print(literal)).collect();
            for ((literal, text), same) in rule.literals.iter().zip(&literals).zip(&rule.ties) {
                let same: Vec<String> = same.iter().take(4).map(|tie| self.table.print(tie)).collect();
                if !same.is_empty() {
                    ties.push(format!("{text} ≡ {}", same.join(" ≡ ")));
                }
                if let Some((below, above)) = self.table.threshold(literal) {
                    let name = &self.table.attributes()[literal.attribute].name;
                    let fails_below = matches!(literal.test, super::learn::Test::Below);
                    let (fails, passes) = if fails_below { (below, above) } else { (above, below) };
                    thresholds.push(format!("{name}: {fails} fails, {passes} passes"));
                }
            }
            texts.push(if literals.is_empty() { "always".to_owned() } else { literals.join(" & ") });
        }
        let condition = (!texts.is_empty()).then(|| texts.join(" or "));
        let (unexplained, exceptions) = (unexplained.count(), exceptions.count());
        Cause { condition, ties, thresholds, unexplained, exceptions, ..Cause::default() }
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

/// Where the controls of each cell are. A cell is no control of itself.
fn places(subjects: &[Subject<'_>], controls: Option<&ControlNames>) -> Vec<Places> {
    let Some(names) = controls else { return vec![Places::default(); subjects.len()] };
    let none = ImageId::none();
    let by_name: HashMap<(&HostId, &EngineId, &ImageId), usize> = subjects
        .iter()
        .enumerate()
        .map(|(at, subject)| ((&subject.cell.host, &subject.cell.engine, &subject.cell.image), at))
        .collect();
    let place = |(at, subject): (usize, &Subject<'_>)| {
        let (host, engine, image) = (&subject.cell.host, &subject.cell.engine, &subject.cell.image);
        let find = |engine: &EngineId, image: &ImageId| by_name.get(&(host, engine, image)).copied();
        let other = |found: Option<usize>| found.filter(|&found| found != at);
        Places {
            native: other(find(&names.native, &none)),
            scratch: other(find(engine, &names.scratch)),
            // A cell without policy has none to be cleared of.
            no_policy: find(&names.no_policy, image),
        }
    };
    subjects.iter().enumerate().map(place).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two engines, three images, every control, on one host: the clone3 story.
    struct Story {
        cells: Vec<(CellId, Role)>,
        engines: BTreeMap<&'static str, Facts>,
        images: BTreeMap<&'static str, Facts>,
        names: ControlNames,
    }

    fn facts(pairs: &[(&str, &str)]) -> Facts {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn story() -> Story {
        let mut cells: Vec<(CellId, Role)> = vec![("h:native:-".parse().unwrap(), Role::ControlNative)];
        for engine in ["docker", "podman", "bare"] {
            for image in ["old", "new", "empty"] {
                let role = match (engine, image) {
                    ("bare", _) => Role::ControlNoPolicy,
                    (_, "empty") => Role::ControlScratch,
                    _ => Role::Cell,
                };
                cells.push((format!("h:{engine}:{image}").parse().unwrap(), role));
            }
        }
        Story {
            cells,
            engines: [
                ("docker", facts(&[("engine.kind", "docker"), ("engine.version", "20.10.5")])),
                ("podman", facts(&[("engine.kind", "podman"), ("engine.version", "4.3.1")])),
            ]
            .into(),
            images: [
                ("old", facts(&[("libc.kind", "glibc"), ("libc.version", "2.31")])),
                ("new", facts(&[("libc.kind", "glibc"), ("libc.version", "2.41")])),
            ]
            .into(),
            names: ControlNames {
                native: "native".parse().unwrap(),
                no_policy: "bare".parse().unwrap(),
                scratch: "empty".parse().unwrap(),
            },
        }
    }

    fn cause(fails: impl Fn(&str) -> Option<bool>) -> Cause {
        let story = story();
        let subjects = story.cells.iter().map(|(cell, role)| Subject {
            cell,
            role: *role,
            host: None,
            engine: story.engines.get(cell.engine.as_str()),
            image: story.images.get(cell.image.as_str()),
        });
        let causes = Causes::new(subjects.collect(), Some(&story.names));
        let fails: Vec<Option<bool>> = story.cells.iter().map(|(cell, _)| fails(&cell.to_string())).collect();
        causes.of(&fails)
    }

    #[test]
    fn a_new_libc_under_an_old_profile_is_an_interaction() {
        let cause = cause(|cell| Some(cell == "h:docker:new"));
        assert_eq!(cause.layers, [Layer::EngineImage]);
        let condition = cause.condition.unwrap();
        assert_eq!(condition.split(" & ").count(), 2, "{condition}");
        assert!(condition.contains("docker") || condition.contains("engine.version"), "{condition}");
    }

    #[test]
    fn what_the_empty_image_shows_too_is_the_engines() {
        let cause = cause(|cell| Some(cell.starts_with("h:docker:")));
        assert_eq!(cause.layers, [Layer::Engine]);
        assert_eq!(cause.condition.as_deref(), Some("engine.kind=docker"));
    }

    #[test]
    fn what_fails_natively_and_everywhere_is_the_hosts() {
        let cause = cause(|_| Some(true));
        assert_eq!(cause.layers, [Layer::Host]);
        assert_eq!(cause.condition.as_deref(), Some("always"));
    }

    #[test]
    fn what_fails_without_policy_too_is_the_images() {
        let cause = cause(|cell| Some(cell.ends_with(":new")));
        assert_eq!(cause.layers, [Layer::Image]);
    }

    #[test]
    fn what_the_empty_image_cannot_be_asked_is_decided_by_other_images() {
        let asked = |cell: &str| !cell.ends_with(":empty");
        let both = cause(|cell| asked(cell).then(|| cell.starts_with("h:docker:")));
        assert_eq!(both.layers, [Layer::Engine, Layer::EngineImage], "one other image proves nothing");
        let one = cause(|cell| asked(cell).then_some(cell == "h:docker:new"));
        assert_eq!(one.layers, [Layer::EngineImage]);
    }

    #[test]
    fn an_image_that_passes_under_another_engine_is_not_blamed_by_itself() {
        let cause =
            cause(|cell| Some(cell.starts_with("h:docker:") && !cell.ends_with(":empty") || cell == "h:bare:new"));
        assert_eq!(cause.layers, [Layer::EngineImage]);
    }

    #[test]
    fn without_controls_the_claim_is_weaker_and_says_what_is_missing() {
        let cause = cause(|cell| match cell {
            "h:docker:new" => Some(true),
            "h:docker:old" | "h:podman:new" | "h:podman:old" => Some(false),
            _ => None,
        });
        assert!(cause.layers.len() > 1);
        assert!(cause.missing.contains(&"native".to_owned()), "{cause:?}");
    }
}

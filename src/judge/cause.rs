//! From "fails here, passes there" to "this layer, when that holds": control cells earn the blame, attributes name the
//! condition.
//!
//! In: the cells of a run with what is known of their host, engine and image; then, failure by failure, in which of them a
//! check fails. Out: a [`Cause`]. Pure; made once per run and asked for every failure.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::{Deserialize, Serialize};

use super::bits::Bits;
use super::blame::{Answer, Controls, Layer, layers, missing};
use super::learn::{Attribute, Learned, Table, version_order};
use crate::engine::Facts;
use crate::id::{CellId, EngineId, HostId, ImageId};
use crate::plan::{ControlNames, Role};

/// More values than this tell single things apart, not kinds of things.
const MAX_VALUES: usize = 200;
/// A name says only where, not why, so a property is preferred to it.
const NAME_COST: f64 = 1.6;

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

/// The cells of a run, ready to be asked about.
#[derive(Debug)]
pub struct Causes<'a> {
    subjects: Vec<Subject<'a>>,
    index: HashMap<&'a CellId, usize>,
    controls: Option<&'a ControlNames>,
    /// Positions of the cells the user asked for.
    asked: Vec<usize>,
    /// For each of them, the group of cells that no attribute tells apart: a thousand equal hosts are one.
    group_of: Vec<usize>,
    table: Table,
}

impl<'a> Causes<'a> {
    /// Learns what the cells have in common.
    pub fn new(subjects: Vec<Subject<'a>>, controls: Option<&'a ControlNames>) -> Self {
        let index = subjects.iter().enumerate().map(|(at, subject)| (subject.cell, at)).collect();
        let asked: Vec<usize> = (0..subjects.len()).filter(|&at| !subjects[at].role.is_control()).collect();
        let (group_of, table) = table(&asked.iter().map(|&at| &subjects[at]).collect::<Vec<_>>());
        Self { subjects, index, controls, asked, group_of, table }
    }

    /// The cause of one failure. `fails` says for every subject, in the order given, whether the check fails there;
    /// `None` where it was not asked.
    pub fn of(&self, fails: &[Option<bool>]) -> Cause {
        let mut votes: BTreeMap<Vec<Layer>, (usize, BTreeSet<&'static str>)> = BTreeMap::new();
        for &at in self.asked.iter().filter(|&&at| fails[at] == Some(true)) {
            let (layers, missing) = self.blame(at, fails);
            let vote = votes.entry(layers).or_default();
            vote.0 += 1;
            vote.1.extend(missing);
        }
        let failing: usize = votes.values().map(|(count, _)| count).sum();
        // One layer for (nearly) all of them, or no claim.
        let winner = votes.into_iter().max_by_key(|(_, (count, _))| *count);
        let (layers, missing) = match winner {
            Some((layers, (count, missing))) if count * 10 >= failing * 8 => (layers, missing),
            _ => (vec![], BTreeSet::new()),
        };
        let missing = if layers.len() > 1 { missing.into_iter().map(str::to_owned).collect() } else { vec![] };
        Cause { layers, missing, ..self.condition(fails) }
    }

    fn blame(&self, at: usize, fails: &[Option<bool>]) -> (Vec<Layer>, Vec<&'static str>) {
        let cell = self.subjects[at].cell;
        if cell.image.is_none() {
            return (vec![Layer::Host], vec![]);
        }
        let Some(names) = self.controls else {
            return (vec![Layer::Host, Layer::Engine, Layer::Image, Layer::EngineImage], vec!["all of them"]);
        };
        let answer = |engine: &EngineId, image: &ImageId| {
            let control = CellId { host: cell.host.clone(), engine: engine.clone(), image: image.clone() };
            match self.index.get(&control).and_then(|&at| fails[at]) {
                Some(true) => Answer::Fails,
                Some(false) => Answer::Passes,
                None => Answer::Unknown,
            }
        };
        let controls = Controls {
            native: answer(&names.native, &ImageId::none()),
            // The empty image is no control of itself.
            scratch: if cell.image == names.scratch { Answer::Unknown } else { answer(&cell.engine, &names.scratch) },
            no_policy: answer(&names.no_policy, &cell.image),
        };
        let left = layers(controls);
        // The empty image has no libc to ask. Other images under the same engine stand in for it: some pass, so the engine
        // alone is not at fault; several, and all fail, so the image is not.
        if left == [Layer::Engine, Layer::EngineImage] {
            let siblings = self.siblings(&cell.host, &cell.engine, at, fails);
            if siblings.contains(&false) {
                return (vec![Layer::EngineImage], vec![]);
            } else if siblings.len() > 1 {
                return (vec![Layer::Engine], vec![]);
            }
        }
        // The same image passes under another engine on the same host: it is not at fault by itself, nor is being contained.
        // (The control without policy is the built-in engine, so it cannot tell that engine's own doings from the image's.)
        if matches!(left, [Layer::Image | Layer::Sandboxing]) && self.elsewhere(cell, fails) {
            let siblings = self.siblings(&cell.host, &cell.engine, at, fails);
            let all = siblings.len() > 1 && siblings.iter().all(|fails| *fails);
            return (vec![if all || left == [Layer::Sandboxing] { Layer::Engine } else { Layer::EngineImage }], vec![]);
        }
        (left.to_vec(), missing(controls))
    }

    /// Whether the check passes in the same image under another engine that was asked for.
    fn elsewhere(&self, cell: &CellId, fails: &[Option<bool>]) -> bool {
        self.asked.iter().any(|&other| {
            let subject = self.subjects[other].cell;
            let alike = subject.host == cell.host && subject.image == cell.image && subject.engine != cell.engine;
            alike && fails[other] == Some(false)
        })
    }

    /// Whether the check fails in the other images under one engine on one host.
    fn siblings(&self, host: &HostId, engine: &EngineId, at: usize, fails: &[Option<bool>]) -> Vec<bool> {
        self.asked
            .iter()
            .filter(|&&other| {
                let cell = self.subjects[other].cell;
                other != at && cell.host == *host && cell.engine == *engine
            })
            .filter_map(|&other| fails[other])
            .collect()
    }

    fn condition(&self, fails: &[Option<bool>]) -> Cause {
        let groups = self.table.groups();
        let mut counts = vec![(0usize, 0usize); groups];
        for (&at, &group) in self.asked.iter().zip(&self.group_of) {
            match fails[at] {
                Some(true) => counts[group].0 += 1,
                Some(false) => counts[group].1 += 1,
                None => {}
            }
        }
        // The majority speaks for a group: what single cells of it do is noise, not a condition.
        let (mut failing, mut passing) = (Bits::new(groups), Bits::new(groups));
        for (group, &(fails, passes)) in counts.iter().enumerate() {
            match fails.cmp(&passes) {
                Ordering::Greater => failing.insert(group),
                Ordering::Less => passing.insert(group),
                Ordering::Equal if fails > 0 => failing.insert(group),
                Ordering::Equal => {}
            }
        }
        if failing.is_empty() {
            return Cause::default();
        }
        let Learned { rules, unexplained, exceptions } = self.table.learn(&failing, &passing);
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

/// Facts that can matter, by axis. Digests, sizes and dates tell images apart without saying why.
const HOST_FACTS: [&str; 12] = [
    "kernel.release",
    "arch",
    "cpu.vendor",
    "cpu.model",
    "cpu.level",
    "cgroup",
    "kernel.lsm",
    "clocksource",
    "hypervisor",
    "os.id",
    "os.version",
    "page.size",
];
const IMAGE_FACTS: [&str; 8] =
    ["libc.kind", "libc.version", "os.id", "os.version", "arch", "isa.needed", "abi.min_kernel", "loader"];

/// The attributes of the cells, and which cells are alike in all of them.
fn table(subjects: &[&Subject<'_>]) -> (Vec<usize>, Table) {
    let mut columns: BTreeMap<String, (Vec<Option<String>>, f64)> = BTreeMap::new();
    let mut set = |at: usize, name: String, value: &str, cost: f64| {
        let column = columns.entry(name).or_insert_with(|| (vec![None; subjects.len()], cost));
        column.0[at] = Some(value.to_owned());
    };
    for (at, subject) in subjects.iter().enumerate() {
        let cell = subject.cell;
        set(at, "host".into(), cell.host.as_str(), NAME_COST);
        set(at, "engine".into(), cell.engine.as_str(), NAME_COST);
        set(at, "image".into(), cell.image.as_str(), NAME_COST);
        for (name, value) in subject.host.into_iter().flatten() {
            if HOST_FACTS.contains(&name.as_str()) || name.starts_with("sysctl.") {
                set(at, format!("host.{name}"), value, 1.0);
            }
        }
        let kind = subject.engine.and_then(|facts| facts.get("engine.kind")).map_or("", String::as_str);
        for (name, value) in subject.engine.into_iter().flatten() {
            match name.as_str() {
                "engine.kind" | "engine.runtime" | "engine.seccomp" => set(at, name.clone(), value, 1.0),
                // Versions of different programs are not on one scale.
                "engine.version" => set(at, format!("engine.version[{kind}]"), value, 1.1),
                "engine.runtime.version" => set(at, format!("engine.runtime.version[{kind}]"), value, 1.1),
                _ if name.starts_with("engine.option.") => set(at, name.clone(), value, 1.0),
                _ => {}
            }
        }
        let libc = subject.image.and_then(|facts| facts.get("libc.kind")).map_or("", String::as_str);
        let os = subject.image.and_then(|facts| facts.get("os.id")).map_or("", String::as_str);
        for (name, value) in subject.image.into_iter().flatten() {
            match name.as_str() {
                "libc.version" => set(at, format!("image.libc.version[{libc}]"), value, 1.0),
                "os.version" => set(at, format!("image.os.version[{os}]"), value, 1.1),
                _ if IMAGE_FACTS.contains(&name.as_str()) => set(at, format!("image.{name}"), value, 1.0),
                _ => {}
            }
        }
    }
    let attributes: Vec<Attribute> = columns
        .into_iter()
        .filter_map(|(name, (values, cost))| {
            let ordered = name.contains("version") || name.ends_with(".release") || name.ends_with("min_kernel");
            let mut names: Vec<String> =
                values.iter().flatten().cloned().collect::<BTreeSet<_>>().into_iter().collect();
            if ordered {
                names.sort_by(|a, b| version_order(a, b));
            }
            if names.len() > MAX_VALUES {
                return None;
            }
            let number: HashMap<&str, u32> = names.iter().map(String::as_str).zip(0..).collect();
            let values =
                values.iter().map(|value| value.as_deref().and_then(|value| number.get(value).copied())).collect();
            Some(Attribute { name, values, names: names.clone(), ordered, cost })
        })
        .collect();
    let mut groups: HashMap<Vec<Option<u32>>, usize> = HashMap::new();
    let mut first: Vec<usize> = vec![];
    let group_of = (0..subjects.len())
        .map(|at| {
            let row = attributes.iter().map(|attribute| attribute.values[at]).collect();
            *groups.entry(row).or_insert_with(|| {
                first.push(at);
                first.len() - 1
            })
        })
        .collect();
    let attributes = attributes
        .into_iter()
        .map(|attribute| Attribute { values: first.iter().map(|&at| attribute.values[at]).collect(), ..attribute });
    (group_of, Table::new(first.len(), attributes.collect()))
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

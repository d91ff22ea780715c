//! Cells that differ in their host only: the same image under the same engine, on hosts of different classes. In: the cells of a
//! run. Out: whether a check that fails in one passes in another. Pure.

use std::collections::HashMap;
use std::hash::Hash;

use super::cause::Subject;
use crate::engine::Facts;
use crate::host::class;
use crate::id::{EngineId, ImageId};

/// Facts by which engines of one name are the same program with the same settings. How the host's control groups or security
/// modules are is the host's doing and told by engines too, so that is not among them.
const OF_ENGINE: [&str; 8] = [
    "engine.kind",
    "engine.version",
    "engine.runtime",
    "engine.runtime.version",
    "engine.libseccomp",
    "engine.seccomp",
    "engine.storage",
    "engine.rootless",
];

/// The cells of a run by what they are made of.
#[derive(Debug)]
pub struct Kin {
    /// For each cell, its set of kin and the class of its host; none where its host or its engine is not known.
    of: Vec<Option<(usize, usize)>>,
    /// Sets of kin.
    sets: Vec<Vec<usize>>,
}

/// By set of kin, the first class of hosts on which one check passes, and whether there are more; counted when asked for.
#[derive(Debug, Default)]
pub struct Passing(HashMap<usize, (Option<usize>, bool)>);

impl Kin {
    /// Finds them.
    pub fn new(subjects: &[Subject<'_>]) -> Self {
        // Cells share facts of their parts, so each is looked at once.
        let mut classes: HashMap<*const Facts, usize> = HashMap::new();
        let mut engines: HashMap<(*const Facts, &EngineId), Option<usize>> = HashMap::new();
        let (mut class_numbers, mut engine_numbers) = (HashMap::new(), HashMap::new());
        let mut numbers: HashMap<(usize, &ImageId), usize> = HashMap::new();
        let mut sets: Vec<Vec<usize>> = vec![];
        let mut of = vec![None; subjects.len()];
        for (at, subject) in subjects.iter().enumerate() {
            let (Some(host), Some(engine)) = (subject.host, subject.engine) else { continue };
            let name = &subject.cell.engine;
            let known = engines.entry((std::ptr::from_ref(engine), name));
            let Some(engine) = *known.or_insert_with(|| Some(number(&mut engine_numbers, (name, program(engine)?))))
            else {
                continue;
            };
            let known = classes.entry(std::ptr::from_ref(host));
            let class = *known.or_insert_with(|| number(&mut class_numbers, class(host)));
            let set = *numbers.entry((engine, &subject.cell.image)).or_insert_with(|| {
                sets.push(vec![]);
                sets.len() - 1
            });
            sets[set].push(at);
            of[at] = Some((set, class));
        }
        Self { of, sets }
    }

    /// The set of kin of a cell and the class of its host: what is equal in both answers alike.
    pub fn kind(&self, at: usize) -> Option<(usize, usize)> {
        self.of[at]
    }

    /// Whether a check passes in most cells of this one's kin on hosts of some other class.
    pub fn passes_on_another(&self, at: usize, fails: &[Option<bool>], passing: &mut Passing) -> bool {
        let Some((set, class)) = self.of[at] else { return false };
        let (first, more) = *passing.0.entry(set).or_insert_with(|| {
            let mut classes: HashMap<usize, (usize, usize)> = HashMap::new();
            for &kin in &self.sets[set] {
                if let (Some((_, class)), Some(fails)) = (self.of[kin], fails[kin]) {
                    let count = classes.entry(class).or_default();
                    *(if fails { &mut count.0 } else { &mut count.1 }) += 1;
                }
            }
            let mut passes = classes.iter().filter(|(_, (fails, passes))| passes > fails).map(|(class, _)| *class);
            (passes.next(), passes.next().is_some())
        });
        more || first.is_some_and(|first| first != class)
    }
}

/// Of what is equal, the same number.
pub(super) fn number<T: Eq + Hash>(numbers: &mut HashMap<T, usize>, of: T) -> usize {
    let next = numbers.len();
    *numbers.entry(of).or_insert(next)
}

/// What an engine is, where that is known.
fn program(facts: &Facts) -> Option<String> {
    facts.get("engine.version")?;
    let own = |name: &str| OF_ENGINE.contains(&name) || name.starts_with("engine.option.");
    let own = facts.iter().filter(|(name, _)| own(name.as_str()));
    Some(own.map(|(name, value)| format!("{name}={value}\n")).collect())
}

//! Made-up grids with a hidden rule: host classes × engines × images with attributes, of which some fail by a rule nobody
//! tells. Deterministic: a seed gives a grid and a rule.

use abicus::judge::bits::Bits;
use abicus::judge::learn::{Attribute, Table};

/// Numbers that look random, the same everywhere: xorshift64*.
struct Dice(u64);

impl Dice {
    fn new(seed: u64) -> Self {
        let mut dice = Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        for _ in 0..8 {
            dice.roll(2);
        }
        dice
    }

    /// Below `sides`.
    fn roll(&mut self, sides: u32) -> u32 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let high = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32;
        (high % u64::from(sides)) as u32
    }

    fn chance(&mut self, share: f64) -> bool {
        f64::from(self.roll(1_000_000)) < share * 1_000_000.0
    }
}

/// Name, number of values, whether they are ordered; by whose it is.
const HOST: [(&str, u32, bool); 4] =
    [("host.kernel.release", 8, true), ("host.cpu.model", 4, false), ("host.lsm", 3, false), ("host.cgroup", 2, false)];
const ENGINE: [(&str, u32, bool); 1] = [("engine", 3, false)];
const IMAGE: [(&str, u32, bool); 3] =
    [("image.libc.version", 8, true), ("image.os.id", 5, false), ("image.isa.needed", 3, false)];

const HOSTS: usize = 40;
const ENGINES: usize = 3;
const IMAGES: usize = 30;

type Rows = Vec<Vec<u32>>;

fn rows(dice: &mut Dice, attributes: &[(&str, u32, bool)], count: usize) -> Rows {
    (0..count).map(|_| attributes.iter().map(|(_, values, _)| dice.roll(*values)).collect()).collect()
}

/// Every group with the values of all attributes.
fn groups(dice: &mut Dice) -> Rows {
    let (hosts, images) = (rows(dice, &HOST, HOSTS), rows(dice, &IMAGE, IMAGES));
    let mut groups = vec![];
    for host in &hosts {
        for engine in 0..ENGINES as u32 {
            groups.extend(images.iter().map(|image| [host.as_slice(), &[engine], image].concat()));
        }
    }
    groups
}

/// One condition: attribute, comparison, value.
#[derive(Clone, Copy)]
enum Condition {
    Is(usize, u32),
    Below(usize, u32),
    AtLeast(usize, u32),
}

impl Condition {
    fn holds(self, group: &[u32]) -> bool {
        match self {
            Self::Is(attribute, value) => group[attribute] == value,
            Self::Below(attribute, value) => group[attribute] < value,
            Self::AtLeast(attribute, value) => group[attribute] >= value,
        }
    }
}

/// One or two alternatives of one to three conditions over different attributes.
fn hidden(dice: &mut Dice, attributes: &[(&str, u32, bool)]) -> Vec<Vec<Condition>> {
    (0..1 + dice.roll(2))
        .map(|_| {
            let mut used: Vec<usize> = vec![];
            for _ in 0..1 + dice.roll(3) {
                let attribute = dice.roll(attributes.len() as u32) as usize;
                if !used.contains(&attribute) {
                    used.push(attribute);
                }
            }
            let mut condition = |attribute: usize| {
                let (_, values, ordered) = attributes[attribute];
                match (ordered, dice.roll(2)) {
                    (false, _) => Condition::Is(attribute, dice.roll(values)),
                    (true, 0) => Condition::Below(attribute, 1 + dice.roll(values - 1)),
                    (true, _) => Condition::AtLeast(attribute, 1 + dice.roll(values - 1)),
                }
            };
            used.into_iter().map(&mut condition).collect()
        })
        .collect()
}

/// Whether the rule learned from a grid covers exactly the groups that the hidden rule does, with this share of the labels
/// flipped.
pub fn recovered(seed: u64, flipped: f64) -> bool {
    let mut dice = Dice::new(seed);
    let attributes: Vec<(&str, u32, bool)> = [&HOST[..], &ENGINE, &IMAGE].concat();
    let groups = groups(&mut dice);
    // A rule that nearly nothing or nearly everything obeys is none to be found.
    let rule = loop {
        let rule = hidden(&mut dice, &attributes);
        let failing = groups.iter().filter(|group| obeys(&rule, group)).count();
        if failing * 100 >= groups.len() && failing * 10 <= groups.len() * 9 {
            break rule;
        }
    };
    let columns = attributes.iter().enumerate().map(|(at, (name, values, ordered))| Attribute {
        name: (*name).to_owned(),
        values: groups.iter().map(|group| Some(group[at])).collect(),
        names: (0..*values).map(|value| value.to_string()).collect(),
        ordered: *ordered,
        cost: 1.0,
    });
    let table = Table::new(groups.len(), columns.collect());
    let (mut planted, mut fails, mut passes) =
        (Bits::new(groups.len()), Bits::new(groups.len()), Bits::new(groups.len()));
    for (at, group) in groups.iter().enumerate() {
        let truth = obeys(&rule, group);
        if truth {
            planted.insert(at);
        }
        if truth != dice.chance(flipped) { fails.insert(at) } else { passes.insert(at) }
    }
    let learned = table.learn(&fails, &passes);
    learned.rules.iter().fold(Bits::new(groups.len()), |all, rule| all.or(&rule.covers)) == planted
}

fn obeys(rule: &[Vec<Condition>], group: &[u32]) -> bool {
    rule.iter().any(|all| all.iter().all(|condition| condition.holds(group)))
}

//! The smallest rule that explains which groups of cells fail: greedy set cover by beam search over attributes.
//!
//! In: groups of cells with attributes, the set that fails and the set that passes (what was not asked is in neither).
//! Out: rules, each a conjunction of literals (`engine.version<20.10.10 & image.libc.version>=2.34`), their ties, and
//! what they leave unexplained. Naming only: blame is earned by control cells, not here. Pure.

use std::cmp::Ordering;
use std::collections::HashSet;

use super::bits::Bits;

/// Rules tried before the rest is called unexplained.
const MAX_RULES: usize = 4;
/// Literals of one rule.
const MAX_DEPTH: usize = 4;
/// Partial rules kept at each depth.
const BEAM: usize = 60;
/// Share of failing groups among those a rule covers. The second is for noisy labels, tried when nothing meets the first.
const PURITY: [f64; 2] = [0.98, 0.9];
/// Fewer passing than this share of the failing groups: it fails always.
const ALWAYS: f64 = 0.02;
/// Among so many groups some fail by chance, and four conditions tell a few of them from all others.
const MANY: usize = 200;
/// Fewer groups than this are then no reason for another rule.
const HANDFUL: usize = 8;
/// What one literal costs, as a share of the coverage it has to bring.
const LITERAL_COST: f64 = 0.04;
/// A threshold says a little less than an equality of two values.
const THRESHOLD_COST: f64 = 1.1;

/// What says the same and costs more is no more than a coincidence, and not told.
pub const TIE_COST: f64 = 1.7;

/// A property of cells that a rule may mention.
#[derive(Debug, Clone)]
pub struct Attribute {
    /// `host.kernel.release`, `engine.version`, `image.libc.version`…
    pub name: String,
    /// Value of each group, an index into `names`; absent where the attribute means nothing (scoped attributes).
    pub values: Vec<Option<u32>>,
    /// The values, sorted where `ordered`.
    pub names: Vec<String>,
    /// Whether thresholds make sense.
    pub ordered: bool,
    /// What mentioning it costs: names of single things cost more than what they have in common.
    pub cost: f64,
}

/// How a literal compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Test {
    /// Equal.
    Is,
    /// Less than.
    Below,
    /// Not less than.
    AtLeast,
}

/// One condition of a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Literal {
    /// Index of the attribute.
    pub attribute: usize,
    /// How it compares.
    pub test: Test,
    /// With which value.
    pub value: u32,
}

/// A conjunction of literals; empty: always.
#[derive(Debug, Clone)]
pub struct Rule {
    /// All have to hold.
    pub literals: Vec<Literal>,
    /// Per literal, others that say the same of the groups at hand, the likeliest first.
    pub ties: Vec<Vec<Literal>>,
    /// The groups it covers.
    pub covers: Bits,
}

/// What was learned.
#[derive(Debug, Clone)]
pub struct Learned {
    /// One of these has to hold.
    pub rules: Vec<Rule>,
    /// Failing groups no rule covers.
    pub unexplained: Bits,
    /// Passing groups some rule covers.
    pub exceptions: Bits,
}

/// Groups of cells with their attributes, and the literals over them. Made once, used for many failures.
#[derive(Debug)]
pub struct Table {
    groups: usize,
    attributes: Vec<Attribute>,
    literals: Vec<(Literal, Bits, f64)>,
}

impl Table {
    /// Builds every literal that tells some groups from others.
    pub fn new(groups: usize, attributes: Vec<Attribute>) -> Self {
        let mut literals = vec![];
        for (attribute, column) in attributes.iter().enumerate() {
            if column.names.len() < 2 && column.values.iter().all(Option::is_some) {
                continue;
            }
            let mut add = |test: Test, value: u32, cost: f64| {
                let mut bits = Bits::new(groups);
                for (group, found) in column.values.iter().enumerate() {
                    if found.is_some_and(|found| test.holds(found, value)) {
                        bits.insert(group);
                    }
                }
                let count = bits.count();
                if count > 0 && count < groups {
                    literals.push((Literal { attribute, test, value }, bits, cost));
                }
            };
            let values = column.names.len() as u32;
            for value in 0..values {
                add(Test::Is, value, column.cost);
                // With two values a threshold says what equality says.
                if column.ordered && value > 0 && values > 2 {
                    add(Test::Below, value, column.cost * THRESHOLD_COST);
                    add(Test::AtLeast, value, column.cost * THRESHOLD_COST);
                }
            }
        }
        Self { groups, attributes, literals }
    }

    /// The attributes.
    pub fn attributes(&self) -> &[Attribute] {
        &self.attributes
    }

    /// How many groups there are.
    pub fn groups(&self) -> usize {
        self.groups
    }

    /// Learns what tells the failing groups from the passing ones.
    pub fn learn(&self, fails: &Bits, passes: &Bits) -> Learned {
        let (failing, passing) = (fails.count(), passes.count());
        if passing as f64 <= ALWAYS * failing as f64 {
            let rule = Rule { literals: vec![], ties: vec![], covers: Bits::full(self.groups) };
            return Learned { rules: vec![rule], unexplained: Bits::new(self.groups), exceptions: passes.clone() };
        }
        // Noisy labels make a part of the true rule purer than the whole; of what each purity allows, the rules that get the
        // fewest groups wrong are the truth.
        let mut learned = self.cover(fails, passes, PURITY[0]);
        for purity in PURITY.into_iter().skip(1) {
            let wrong = |learned: &Learned| learned.unexplained.count() + learned.exceptions.count();
            if wrong(&learned) == 0 {
                break;
            }
            let other = self.cover(fails, passes, purity);
            if wrong(&other) < wrong(&learned) {
                learned = other;
            }
        }
        learned
    }

    /// Rules, each at least this pure, until they cover what fails.
    fn cover(&self, fails: &Bits, passes: &Bits, purity: f64) -> Learned {
        let (failing, all) = (fails.count(), fails.count() + passes.count());
        let mut left = fails.clone();
        let mut rules: Vec<Rule> = vec![];
        while !left.is_empty() && rules.len() < MAX_RULES {
            let Some(rule) = self.best(&left, fails, passes, purity) else { break };
            // A rule for a handful of stragglers explains noise.
            let gained = rule.covers.count_and(&left);
            let few = gained * 50 < failing || gained < HANDFUL && all >= MANY;
            if !rules.is_empty() && few {
                break;
            }
            left = left.minus(&rule.covers);
            rules.push(rule);
        }
        let covered = rules.iter().fold(Bits::new(self.groups), |all, rule| all.or(&rule.covers));
        let exceptions = covered.and(passes);
        Learned { rules, unexplained: left, exceptions }
    }

    fn best(&self, left: &Bits, fails: &Bits, passes: &Bits, purity: f64) -> Option<Rule> {
        let wanted = left.count() as f64;
        let mut beam = vec![Partial { literals: vec![], covers: Bits::full(self.groups), cost: 0.0 }];
        let mut best: Option<(Partial, f64)> = None;
        for _ in 0..MAX_DEPTH {
            let mut steps: Vec<Step> = vec![];
            for (from, partial) in beam.iter().enumerate() {
                for (index, (literal, bits, cost)) in self.literals.iter().enumerate() {
                    if partial.mentions(literal, self) {
                        continue;
                    }
                    let gained = partial.covers.count_and_both(bits, left) as f64;
                    let cost = partial.cost + cost;
                    let limit = gained / wanted - LITERAL_COST * cost;
                    // A literal that covers nothing is no step, nor one after which the best can no more be reached.
                    if gained == 0.0 || best.as_ref().is_some_and(|(_, best)| limit <= *best) {
                        continue;
                    }
                    let failing = partial.covers.count_and_both(bits, fails) as f64;
                    let passing = partial.covers.count_and_both(bits, passes) as f64;
                    let pure = failing / (failing + passing);
                    let score = limit - 2.0 * (1.0 - pure);
                    if pure >= purity && best.as_ref().is_none_or(|(_, best)| score > *best) {
                        best = Some((partial.and(index, bits, cost), score));
                    }
                    steps.push(Step { from, index, cost, score });
                }
            }
            steps.sort_by(|a, b| {
                let literals = |step: &Step| (&beam[step.from].literals, step.index);
                b.score.total_cmp(&a.score).then_with(|| literals(a).cmp(&literals(b)))
            });
            let mut seen: HashSet<Bits> = HashSet::new();
            beam = steps
                .iter()
                .map(|step| beam[step.from].and(step.index, &self.literals[step.index].1, step.cost))
                .filter(|partial| seen.insert(partial.covers.clone()))
                .take(BEAM)
                .collect();
        }
        let domain = fails.or(passes);
        best.map(|(best, _)| self.rule(best, &domain))
    }

    /// Finds, for each literal, what could stand in its place without a difference in the groups at hand.
    fn rule(&self, found: Partial, domain: &Bits) -> Rule {
        let covered = found.covers.and(domain);
        let ties = found
            .literals
            .iter()
            .map(|replaced| {
                let rest = found
                    .literals
                    .iter()
                    .filter(|index| *index != replaced)
                    .fold(domain.clone(), |bits, index| bits.and(&self.literals[*index].1));
                let mut ties: Vec<(Literal, f64)> = self
                    .literals
                    .iter()
                    .enumerate()
                    .filter(|(index, (_, _, cost))| !found.literals.contains(index) && *cost <= TIE_COST)
                    .filter(|(_, (_, bits, _))| rest.and(bits) == covered)
                    .map(|(_, (literal, _, cost))| (*literal, *cost))
                    .collect();
                ties.sort_by(|a, b| a.1.total_cmp(&b.1));
                ties.into_iter().map(|(literal, _)| literal).collect()
            })
            .collect();
        let literals = found.literals.iter().map(|index| self.literals[*index].0).collect();
        Rule { literals, ties, covers: found.covers }
    }

    /// A literal as text: `engine.version<20.10.10`.
    pub fn print(&self, literal: &Literal) -> String {
        let column = &self.attributes[literal.attribute];
        let value = column.names.get(literal.value as usize).map_or("?", String::as_str);
        match literal.test {
            Test::Is => format!("{}={value}", column.name),
            Test::Below => format!("{}<{value}", column.name),
            Test::AtLeast => format!("{}>={value}", column.name),
        }
    }

    /// The observed values on both sides of a threshold: the last below it and the first at or above it.
    pub fn threshold(&self, literal: &Literal) -> Option<(&str, &str)> {
        let column = &self.attributes[literal.attribute];
        match literal.test {
            Test::Is => None,
            Test::Below | Test::AtLeast => {
                let above = literal.value as usize;
                Some((column.names.get(above.checked_sub(1)?)?, column.names.get(above)?))
            }
        }
    }
}

impl Test {
    fn holds(self, found: u32, value: u32) -> bool {
        match self {
            Self::Is => found == value,
            Self::Below => found < value,
            Self::AtLeast => found >= value,
        }
    }
}

/// A conjunction on its way to a rule.
struct Partial {
    literals: Vec<usize>,
    covers: Bits,
    cost: f64,
}

/// A literal more for one of the beam, not yet made.
struct Step {
    from: usize,
    index: usize,
    cost: f64,
    score: f64,
}

impl Partial {
    /// With one literal more.
    fn and(&self, index: usize, bits: &Bits, cost: f64) -> Self {
        let literals = self.literals.iter().copied().chain([index]).collect();
        Self { literals, covers: self.covers.and(bits), cost }
    }

    /// One literal per attribute and direction.
    fn mentions(&self, literal: &Literal, table: &Table) -> bool {
        self.literals.iter().any(|index| {
            let mine = &table.literals[*index].0;
            mine.attribute == literal.attribute
                && (mine.test == literal.test || Test::Is == mine.test || Test::Is == literal.test)
        })
    }
}

/// Compares versions as people do: runs of digits as numbers, the rest as text; `6.1` < `6.12`, `2.34` > `2.4`.
pub fn version_order(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (pieces(a), pieces(b));
    loop {
        match (a.next(), b.next()) {
            (None, None) => return Ordering::Equal,
            (None, Some(piece)) => return if before_release(piece) { Ordering::Greater } else { Ordering::Less },
            (Some(piece), None) => return if before_release(piece) { Ordering::Less } else { Ordering::Greater },
            (Some(a), Some(b)) => match a.cmp(&b) {
                Ordering::Equal => {}
                other => return other,
            },
        }
    }
}

/// `1.0.0-rc93` comes before `1.0.0`.
fn before_release((_, _, text): (bool, usize, &str)) -> bool {
    ["rc", "alpha", "beta", "pre", "dev"].contains(&text)
}

/// Text sorts before numbers, so that `1.0-rc93` < `1.0.1`; leading zeros do not count.
fn pieces(text: &str) -> impl Iterator<Item = (bool, usize, &str)> {
    let mut rest = text;
    std::iter::from_fn(move || {
        rest = rest.trim_start_matches(['.', '-', '_', '+', '~', ' ']);
        let first = rest.chars().next()?;
        let digits = first.is_ascii_digit();
        let end = rest.find(|c: char| c.is_ascii_digit() != digits || ".-_+~ ".contains(c)).unwrap_or(rest.len());
        let piece = &rest[..end];
        rest = &rest[end..];
        let piece = if digits { piece.trim_start_matches('0') } else { piece };
        Some((digits, if digits { piece.len() } else { 0 }, piece))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(name: &str, values: &[u32], names: &[&str], ordered: bool) -> Attribute {
        Attribute {
            name: name.into(),
            values: values.iter().copied().map(Some).collect(),
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            ordered,
            cost: 1.0,
        }
    }

    /// 3 engines × 4 libc versions × 5 kernels.
    fn grid() -> Table {
        let groups: Vec<(u32, u32, u32)> =
            (0..3).flat_map(|e| (0..4).flat_map(move |l| (0..5).map(move |k| (e, l, k)))).collect();
        let pick = |f: fn(&(u32, u32, u32)) -> u32| groups.iter().map(f).collect::<Vec<_>>();
        Table::new(
            groups.len(),
            vec![
                column("engine", &pick(|g| g.0), &["docker", "podman", "built-in"], false),
                column("image.libc", &pick(|g| g.1), &["2.31", "2.34", "2.36", "2.41"], true),
                column("host.kernel", &pick(|g| g.2), &["5.4", "5.10", "5.15", "6.1", "6.12"], true),
            ],
        )
    }

    fn split(table: &Table, fails: impl Fn(u32, u32, u32) -> bool) -> (Bits, Bits) {
        let (mut failing, mut passing) = (Bits::new(table.groups()), Bits::new(table.groups()));
        for group in 0..table.groups() {
            let value = |attribute: usize| table.attributes()[attribute].values[group].unwrap_or(99);
            if fails(value(0), value(1), value(2)) { failing.insert(group) } else { passing.insert(group) }
        }
        (failing, passing)
    }

    fn text(table: &Table, learned: &Learned) -> String {
        let rule = |rule: &Rule| {
            let mut parts: Vec<String> = rule.literals.iter().map(|literal| table.print(literal)).collect();
            parts.sort();
            parts.join(" & ")
        };
        learned.rules.iter().map(rule).collect::<Vec<_>>().join(" | ")
    }

    #[test]
    fn an_interaction_of_engine_and_image_is_named() {
        let table = grid();
        let (fails, passes) = split(&table, |engine, libc, _| engine == 0 && libc >= 1);
        let learned = table.learn(&fails, &passes);
        assert_eq!(text(&table, &learned), "engine=docker & image.libc>=2.34");
        assert!(learned.unexplained.is_empty() && learned.exceptions.is_empty());
        let threshold = learned.rules[0].literals.iter().find_map(|literal| table.threshold(literal));
        assert_eq!(threshold, Some(("2.31", "2.34")));
    }

    #[test]
    fn two_causes_are_two_rules() {
        let table = grid();
        let (fails, passes) = split(&table, |engine, _, kernel| engine == 1 || kernel < 1);
        let mut rules: Vec<_> = text(&table, &table.learn(&fails, &passes)).split(" | ").map(str::to_owned).collect();
        rules.sort();
        assert_eq!(rules, ["engine=podman", "host.kernel=5.4"]);
    }

    #[test]
    fn what_fails_everywhere_fails_always() {
        let table = grid();
        let (fails, passes) = split(&table, |_, _, _| true);
        let learned = table.learn(&fails, &passes);
        assert!(learned.rules.len() == 1 && learned.rules[0].literals.is_empty());
    }

    #[test]
    fn equal_explanations_are_ties() {
        let mut attributes = grid().attributes().to_vec();
        let same = attributes[2].clone();
        attributes.push(Attribute { name: "host.distro".into(), ordered: false, cost: 1.6, ..same });
        let table = Table::new(60, attributes);
        let (fails, passes) = split(&table, |_, _, kernel| kernel == 1);
        let learned = table.learn(&fails, &passes);
        assert_eq!(text(&table, &learned), "host.kernel=5.10");
        let ties: Vec<_> = learned.rules[0].ties[0].iter().map(|literal| table.print(literal)).collect();
        assert_eq!(ties, ["host.distro=5.10"]);
    }

    #[test]
    fn versions_are_compared_as_people_do() {
        let mut versions = vec!["6.12.1", "6.1.0", "20.10.24", "5.10.223-4", "5.4", "1.0.0", "1.0.0-rc93", "6.1"];
        versions.sort_by(|a, b| version_order(a, b));
        assert_eq!(versions, ["1.0.0-rc93", "1.0.0", "5.4", "5.10.223-4", "6.1", "6.1.0", "6.12.1", "20.10.24"]);
    }
}

//! What rules may mention: facts of host, engine and image as columns of a table whose rows are groups of cells that no column
//! tells apart. In: cells with their facts. Out: each cell's group, and the table. Pure.
//!
//! A host has some two hundred properties and a run a hundred thousand cells, so nothing here is kept per cell but which host,
//! engine and image it has: properties are looked at once for each of these, and columns are made for groups.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::cause::Subject;
use super::learn::{Attribute, TIE_COST, Table, version_order};
use crate::engine::Facts;
use crate::host::words_that_matter;

/// More values than this tell single things apart, not kinds of things.
const MAX_VALUES: usize = 200;
/// So many properties that say the same of all kinds are enough to name one and its ties.
const MAX_SAME: usize = 5;
// Of two properties that explain the same, the one that somebody can act on costs less: the kernel, the engine, the image
// before what comes along with them.
/// Versions of different programs are not on one scale.
const VERSION_COST: f64 = 1.1;
/// A word of the command line is somebody's decision…
const WORD_COST: f64 = 1.1;
/// …an option of the configuration comes with the kernel…
const BUILD_COST: f64 = 1.2;
/// …a setting, or what else a machine is, may be like this by chance…
const SETTING_COST: f64 = 1.25;
/// …and a flag comes with the processor, like a hundred others.
const FLAG_COST: f64 = 1.3;
/// A name says only where, not why, so a property is preferred to it.
const NAME_COST: f64 = 1.6;
/// What differs from boot to boot: said where nothing else says it, and never beside anything else.
const CHANCE_COST: f64 = TIE_COST * 1.1;

/// Facts that can matter, by axis, with their cost. Digests, sizes and dates tell images apart without saying why.
const HOST_FACTS: [(&str, f64); 14] = [
    ("kernel.release", 1.0),
    ("arch", 1.0),
    ("cgroup", BUILD_COST),
    ("cpu.level", 1.0),
    ("cpu.vendor", SETTING_COST),
    ("cpu.model", SETTING_COST),
    ("kernel.lsm", SETTING_COST),
    ("hypervisor", SETTING_COST),
    ("memory.gib", SETTING_COST),
    ("os.id", SETTING_COST),
    ("os.version", SETTING_COST),
    ("page.size", SETTING_COST),
    ("root.type", BUILD_COST),
    ("clocksource", CHANCE_COST),
];
const IMAGE_FACTS: [(&str, f64); 6] = [
    ("libc.kind", 1.0),
    ("arch", 1.0),
    ("isa.needed", 1.0),
    ("abi.min_kernel", VERSION_COST),
    ("os.id", SETTING_COST),
    ("loader", SETTING_COST),
];
const ENGINE_FACTS: [&str; 6] =
    ["engine.kind", "engine.runtime", "engine.seccomp", "engine.rootless", "engine.storage", "engine.storage.backing"];

/// What a set lacks that has others.
const ABSENT: &str = "absent";
/// What a word has that has no value.
const THERE: &str = "yes";

/// Which set of words a property is of, where it is of one: what lacks the word while it has the set says `absent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Set {
    Cmdline,
    Flags,
    Security,
}

/// What is known of a property beside its values.
#[derive(Debug, Clone, Copy)]
struct Meta {
    cost: f64,
    set: Option<Set>,
    /// One of hundreds: dropped where it tells nothing apart, or nothing that enough others do not.
    many: bool,
}

/// The properties of one host, engine or image.
#[derive(Debug, Default)]
struct Entry<'a> {
    values: HashMap<u32, &'a str>,
    sets: BTreeSet<Set>,
}

/// The hosts, the engines on hosts, or the images of a run.
#[derive(Debug, Default)]
struct Axis<'a> {
    /// Which facts they are, by where they are: equal ones in two places are looked at twice, and that is all.
    index: HashMap<(Option<*const Facts>, &'a str), usize>,
    entries: Vec<Entry<'a>>,
    /// For each cell, its entry.
    of: Vec<usize>,
    names: HashMap<String, u32>,
    metas: Vec<Meta>,
}

impl<'a> Axis<'a> {
    /// The next cell has these facts under this name; `properties` tells them where they are new.
    fn add(&mut self, facts: Option<&'a Facts>, name: &'a str, properties: impl FnOnce(&mut Self, &mut Entry<'a>)) {
        let key = (facts.map(std::ptr::from_ref), name);
        let at = match self.index.get(&key) {
            Some(at) => *at,
            None => {
                let mut entry = Entry::default();
                properties(self, &mut entry);
                self.entries.push(entry);
                self.index.insert(key, self.entries.len() - 1);
                self.entries.len() - 1
            }
        };
        self.of.push(at);
    }

    fn set(&mut self, entry: &mut Entry<'a>, name: &str, value: &'a str, meta: Meta) {
        let number = match self.names.get(name) {
            Some(number) => *number,
            None => {
                let next = u32::try_from(self.metas.len()).unwrap_or(u32::MAX);
                self.names.insert(name.to_owned(), next);
                self.metas.push(meta);
                next
            }
        };
        entry.values.insert(number, value);
    }

    fn one(&mut self, entry: &mut Entry<'a>, name: &str, value: &'a str, cost: f64) {
        self.set(entry, name, value, Meta { cost, set: None, many: false });
    }

    fn words(
        &mut self,
        entry: &mut Entry<'a>,
        set: Set,
        prefix: &str,
        words: impl Iterator<Item = &'a str>,
        cost: f64,
    ) {
        entry.sets.insert(set);
        for word in words {
            let (name, value) = word.split_once('=').unwrap_or((word, THERE));
            self.set(entry, &format!("{prefix}.{name}"), value, Meta { cost, set: Some(set), many: true });
        }
    }

    /// The columns that tell entries apart, each with a value by entry; and for each entry, its kind.
    fn kinds(self) -> Kinds {
        let mut same: HashMap<Vec<Option<u32>>, usize> = HashMap::new();
        let sorted: BTreeMap<&String, u32> = self.names.iter().map(|(name, number)| (name, *number)).collect();
        let mut columns: Vec<Attribute> = vec![];
        for (name, number) in sorted {
            let meta = self.metas[number as usize];
            let absent = |entry: &Entry<'a>| meta.set.filter(|set| entry.sets.contains(set)).map(|_| ABSENT);
            let value = |entry: &Entry<'a>| entry.values.get(&number).copied().or_else(|| absent(entry));
            let distinct: BTreeSet<&str> = self.entries.iter().filter_map(value).collect();
            let everywhere = self.entries.iter().all(|entry| value(entry).is_some());
            if distinct.len() > MAX_VALUES || meta.many && distinct.len() == 1 && everywhere {
                continue;
            }
            let ordered = !meta.many
                && (name.contains("version")
                    || [".release", "min_kernel", ".gib"].iter().any(|end| name.ends_with(end)));
            let mut names: Vec<String> = distinct.into_iter().map(str::to_owned).collect();
            if ordered {
                names.sort_by(|a, b| version_order(a, b));
            }
            let numbers: HashMap<&str, u32> = names.iter().map(String::as_str).zip(0..).collect();
            let values: Vec<Option<u32>> =
                self.entries.iter().map(|entry| value(entry).and_then(|value| numbers.get(value).copied())).collect();
            if meta.many {
                let count = same.entry(partition(&values)).or_default();
                *count += 1;
                if *count > MAX_SAME {
                    continue;
                }
            }
            columns.push(Attribute { name: name.clone(), values, names: names.clone(), ordered, cost: meta.cost });
        }
        let mut kinds: HashMap<Vec<Option<u32>>, usize> = HashMap::new();
        let mut first: Vec<usize> = vec![];
        let kind_of: Vec<usize> = (0..self.entries.len())
            .map(|at| {
                let row = columns.iter().map(|column| column.values[at]).collect();
                *kinds.entry(row).or_insert_with(|| {
                    first.push(at);
                    first.len() - 1
                })
            })
            .collect();
        for column in &mut columns {
            column.values = first.iter().map(|&at| column.values[at]).collect();
        }
        Kinds { columns, of: self.of.into_iter().map(|entry| kind_of[entry]).collect() }
    }
}

/// Which values are equal, whatever they are called.
fn partition(values: &[Option<u32>]) -> Vec<Option<u32>> {
    let mut seen: HashMap<u32, u32> = HashMap::new();
    let mut number = |value: u32| {
        let next = u32::try_from(seen.len()).unwrap_or(u32::MAX);
        *seen.entry(value).or_insert(next)
    };
    values.iter().map(|value| value.map(&mut number)).collect()
}

/// Hosts, engines or images that columns tell apart.
struct Kinds {
    /// With a value for each kind.
    columns: Vec<Attribute>,
    /// For each cell, its kind.
    of: Vec<usize>,
}

fn of_host<'a>(axis: &mut Axis<'a>, entry: &mut Entry<'a>, facts: &'a Facts) {
    for (name, value) in facts {
        let name = name.as_str();
        match name {
            "kernel.cmdline" => {
                axis.words(entry, Set::Cmdline, "host.cmdline", words_that_matter(value).into_iter(), WORD_COST);
            }
            "cpu.flags" => axis.words(entry, Set::Flags, "host.cpu.flag", value.split_whitespace(), FLAG_COST),
            _ if name.starts_with("config.") || name.starts_with("module.") => {
                let meta = Meta { cost: BUILD_COST, set: None, many: true };
                axis.set(entry, &format!("host.{name}"), value, meta);
            }
            // Follows the memory of the machine, unless somebody wants none: user_namespaces(7).
            "sysctl.user.max_user_namespaces" if value != "0" => {
                axis.one(entry, &format!("host.{name}"), THERE, SETTING_COST);
            }
            _ if name.starts_with("sysctl.") => axis.one(entry, &format!("host.{name}"), value, SETTING_COST),
            _ if name.starts_with("label.") => axis.one(entry, &format!("host.{name}"), value, NAME_COST),
            name => {
                if let Some((_, cost)) = HOST_FACTS.iter().find(|(fact, _)| *fact == name) {
                    axis.one(entry, &format!("host.{name}"), value, *cost);
                }
            }
        }
    }
}

fn of_engine<'a>(axis: &mut Axis<'a>, entry: &mut Entry<'a>, facts: &'a Facts) {
    let kind = facts.get("engine.kind").map_or("", String::as_str);
    for (name, value) in facts {
        let name = name.as_str();
        match name {
            "engine.version" | "engine.runtime.version" => {
                axis.one(entry, &format!("{name}[{kind}]"), value, VERSION_COST);
            }
            "engine.security" => {
                axis.words(entry, Set::Security, "engine.security", value.split_whitespace(), WORD_COST);
            }
            _ if ENGINE_FACTS.contains(&name) || name.starts_with("engine.option.") => {
                axis.one(entry, name, value, 1.0);
            }
            _ => {}
        }
    }
}

fn of_image<'a>(axis: &mut Axis<'a>, entry: &mut Entry<'a>, facts: &'a Facts) {
    let fact = |name: &str| facts.get(name).map_or("", String::as_str);
    let (libc, os) = (fact("libc.kind"), fact("os.id"));
    for (name, value) in facts {
        match name.as_str() {
            "libc.version" => axis.one(entry, &format!("image.libc.version[{libc}]"), value, 1.0),
            "os.version" => axis.one(entry, &format!("image.os.version[{os}]"), value, VERSION_COST),
            name => {
                if let Some((_, cost)) = IMAGE_FACTS.iter().find(|(fact, _)| *fact == name) {
                    axis.one(entry, &format!("image.{name}"), value, *cost);
                }
            }
        }
    }
}

/// The attributes of the cells, and which cells are alike in all of them.
pub(super) fn table(subjects: &[&Subject<'_>]) -> (Vec<usize>, Table) {
    let (mut hosts, mut engines, mut images) = (Axis::default(), Axis::default(), Axis::default());
    for subject in subjects {
        let (host, engine, image) =
            (subject.cell.host.as_str(), subject.cell.engine.as_str(), subject.cell.image.as_str());
        hosts.add(subject.host, host, |axis, entry| {
            axis.one(entry, "host", host, NAME_COST);
            subject.host.into_iter().for_each(|facts| of_host(axis, entry, facts));
        });
        engines.add(subject.engine, engine, |axis, entry| {
            axis.one(entry, "engine", engine, NAME_COST);
            subject.engine.into_iter().for_each(|facts| of_engine(axis, entry, facts));
        });
        images.add(subject.image, image, |axis, entry| {
            axis.one(entry, "image", image, NAME_COST);
            axis.one(entry, "contained", if subject.cell.image.is_none() { "no" } else { "yes" }, 1.0);
            subject.image.into_iter().for_each(|facts| of_image(axis, entry, facts));
        });
    }
    let kinds = [hosts.kinds(), engines.kinds(), images.kinds()];
    let mut groups: HashMap<[usize; 3], usize> = HashMap::new();
    let mut rows: Vec<[usize; 3]> = vec![];
    let group_of = (0..subjects.len())
        .map(|at| {
            let row = [0, 1, 2].map(|axis: usize| kinds[axis].of[at]);
            *groups.entry(row).or_insert_with(|| {
                rows.push(row);
                rows.len() - 1
            })
        })
        .collect();
    let mut attributes: Vec<Attribute> = vec![];
    for (axis, kinds) in kinds.into_iter().enumerate() {
        attributes.extend(
            kinds.columns.into_iter().map(|column| Attribute {
                values: rows.iter().map(|row| column.values[row[axis]]).collect(),
                ..column
            }),
        );
    }
    attributes.sort_by(|a, b| a.name.cmp(&b.name));
    (group_of, Table::new(rows.len(), attributes))
}

#[cfg(test)]
mod tests {
    use super::super::bits::Bits;
    use super::*;
    use crate::id::CellId;
    use crate::plan::Role;

    /// The table of a run of one engine and one image on these hosts.
    fn of_hosts(hosts: &[&[(&str, &str)]]) -> (Vec<usize>, Table) {
        let facts: Vec<Facts> = hosts
            .iter()
            .map(|pairs| pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
            .collect();
        let cells: Vec<CellId> = (0..hosts.len()).map(|at| format!("h{at}:e:i").parse().unwrap()).collect();
        let subject =
            |(cell, host)| Subject { cell, role: Role::Cell, ran: true, host: Some(host), engine: None, image: None };
        let subjects: Vec<Subject<'_>> = cells.iter().zip(&facts).map(subject).collect();
        table(&subjects.iter().collect::<Vec<_>>())
    }

    /// Its columns, with the number of groups.
    fn columns(hosts: &[&[(&str, &str)]]) -> (Vec<(String, Vec<String>)>, usize) {
        let (_, table) = of_hosts(hosts);
        let told = |column: &Attribute| {
            let value = |value: &Option<u32>| value.map_or("-".to_owned(), |at| column.names[at as usize].clone());
            (column.name.clone(), column.values.iter().map(value).collect())
        };
        let own = |(name, _): &(String, Vec<String>)| name.starts_with("host.");
        (table.attributes().iter().map(told).filter(own).collect(), table.groups())
    }

    #[test]
    fn words_of_a_command_line_options_of_a_kernel_and_flags_are_columns_where_they_differ() {
        let (told, _) = columns(&[
            &[("kernel.cmdline", "root=/dev/a quiet vsyscall=none"), ("config.USER_NS", "y"), ("cpu.flags", "avx sse")],
            &[("kernel.cmdline", "root=/dev/b nosmap"), ("config.USER_NS", "n"), ("cpu.flags", "sse")],
            &[("config.USER_NS", "n"), ("config.AIO", "y")],
        ]);
        let expected = [
            ("host.cmdline.nosmap", ["absent", "yes", "-"]),
            ("host.cmdline.vsyscall", ["none", "absent", "-"]),
            ("host.config.AIO", ["-", "-", "y"]),
            ("host.config.USER_NS", ["y", "n", "n"]),
            ("host.cpu.flag.avx", ["yes", "absent", "-"]),
            ("host.cpu.flag.sse", ["yes", "yes", "-"]),
        ];
        let told: Vec<(&str, Vec<&str>)> =
            told.iter().map(|(name, values)| (name.as_str(), values.iter().map(String::as_str).collect())).collect();
        assert_eq!(told, expected.map(|(name, values)| (name, values.to_vec())));
    }

    #[test]
    fn what_is_equal_on_all_hosts_is_no_column_and_of_what_says_the_same_some_are() {
        let flags: Vec<String> = (0..40).map(|number| format!("f{number:02}")).collect();
        let (many, few) = (format!("sse {}", flags.join(" ")), "sse".to_owned());
        let (told, _) = columns(&[&[("cpu.flags", &many)], &[("cpu.flags", &few)]]);
        let names: Vec<&str> = told.iter().map(|(name, _)| name.rsplit('.').next().unwrap()).collect();
        assert_eq!(names, ["f00", "f01", "f02", "f03", "f04"]);
    }

    /// What is learned of the hosts of which these fail, with its ties.
    fn learned(hosts: &[(bool, &[(&str, &str)])]) -> (String, Vec<String>) {
        let (group_of, table) = of_hosts(&hosts.iter().map(|(_, facts)| *facts).collect::<Vec<_>>());
        let (mut fails, mut passes) = (Bits::new(table.groups()), Bits::new(table.groups()));
        for ((fail, _), group) in hosts.iter().zip(group_of) {
            if *fail { fails.insert(group) } else { passes.insert(group) }
        }
        let learned = table.learn(&fails, &passes);
        let [rule] = learned.rules.as_slice() else { panic!("{} rules", learned.rules.len()) };
        let [literal] = rule.literals.as_slice() else { panic!("{} literals", rule.literals.len()) };
        (table.print(literal), rule.ties[0].iter().map(|tie| table.print(tie)).collect())
    }

    #[test]
    fn what_somebody_can_act_on_is_named_and_what_comes_along_by_chance_is_not() {
        let old: &[(&str, &str)] = &[
            ("clocksource", "kvm-clock"),
            ("cpu.model", "a"),
            ("kernel.release", "5.10"),
            ("os.version", "11"),
            ("sysctl.kernel.pid_max", "32768"),
            ("config.TMPFS_XATTR", "n"),
        ];
        let with = |changes: &[(&'static str, &'static str)]| -> Vec<(&'static str, &'static str)> {
            old.iter().map(|pair| *changes.iter().find(|change| change.0 == pair.0).unwrap_or(pair)).collect()
        };
        let new = with(&[
            ("clocksource", "tsc"),
            ("cpu.model", "b"),
            ("kernel.release", "7.2"),
            ("os.version", "14"),
            ("sysctl.kernel.pid_max", "4194304"),
            ("config.TMPFS_XATTR", "y"),
        ]);
        let middle = with(&[("kernel.release", "6.1")]);
        let (rule, ties) = learned(&[(false, old), (false, &middle), (true, &new), (true, &new)]);
        assert_eq!(rule, "host.kernel.release=7.2");
        let expected = ["host.kernel.release>=7.2", "host.config.TMPFS_XATTR=y", "host.cpu.model=b"];
        assert_eq!(ties[..3], expected, "{ties:?}");
        assert!(!ties.iter().any(|tie| tie.contains("clocksource")), "{ties:?}");

        // It takes two releases to say that of a kernel: a threshold is still said before a coincidence.
        let newer = with(&[("clocksource", "tsc"), ("kernel.release", "7.3")]);
        let new = with(&[("clocksource", "tsc"), ("kernel.release", "7.2")]);
        assert_eq!(
            learned(&[(false, old), (false, &middle), (true, &new), (true, &newer)]).0,
            "host.kernel.release>=7.2"
        );

        // Where nothing else tells them apart, it is said.
        let chance = with(&[("clocksource", "acpi_pm")]);
        let (rule, _) = learned(&[(false, old), (false, old), (true, &chance), (true, &chance)]);
        assert_eq!(rule, "host.clocksource=acpi_pm");
    }

    #[test]
    fn memory_is_compared_as_a_number() {
        let host = |gib: &'static str| [("kernel.release", "6.1"), ("memory.gib", gib)];
        let (two, four, sixteen) = (host("2"), host("4"), host("16"));
        let (rule, _) = learned(&[(true, &two), (true, &four), (false, &sixteen), (false, &host("32"))]);
        assert_eq!(rule, "host.memory.gib<16");
    }

    #[test]
    fn a_thousand_hosts_that_are_alike_are_one_group() {
        let host: &[(&str, &str)] = &[("kernel.release", "6.1"), ("cpu.flags", "sse avx"), ("kernel.cmdline", "quiet")];
        let other: &[(&str, &str)] = &[("kernel.release", "6.1"), ("cpu.flags", "sse"), ("kernel.cmdline", "quiet")];
        let mut hosts = vec![host; 1000];
        assert_eq!(columns(&hosts).1, 1);
        hosts.push(other);
        assert_eq!(columns(&hosts).1, 2);
    }
}

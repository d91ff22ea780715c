//! What rules may mention: facts of host, engine and image as columns of a table whose rows are groups of cells that no column
//! tells apart. In: cells with their facts. Out: each cell's group, and the table. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::cause::Subject;
use super::learn::{Attribute, Table, version_order};
use crate::engine::Facts;

/// More values than this tell single things apart, not kinds of things.
const MAX_VALUES: usize = 200;
/// A name says only where, not why, so a property is preferred to it.
const NAME_COST: f64 = 1.6;

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

/// Whose facts they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Axis {
    Host,
    Engine,
    Image,
}

/// A property of a cell: its name, its value, what mentioning it costs.
type Property<'a> = (String, &'a str, f64);

fn of_host<'a>(facts: &'a Facts) -> Vec<Property<'a>> {
    let matters = |name: &str| HOST_FACTS.contains(&name) || name.starts_with("sysctl.");
    let matter = facts.iter().filter(|(name, _)| matters(name));
    matter.map(|(name, value)| (format!("host.{name}"), value.as_str(), 1.0)).collect()
}

fn of_engine<'a>(facts: &'a Facts) -> Vec<Property<'a>> {
    let kind = facts.get("engine.kind").map_or("", String::as_str);
    let property = |(name, value): (&'a String, &'a String)| {
        let (name, cost) = match name.as_str() {
            "engine.kind" | "engine.runtime" | "engine.seccomp" => (name.clone(), 1.0),
            // Versions of different programs are not on one scale.
            "engine.version" | "engine.runtime.version" => (format!("{name}[{kind}]"), 1.1),
            _ if name.starts_with("engine.option.") => (name.clone(), 1.0),
            _ => return None,
        };
        Some((name, value.as_str(), cost))
    };
    facts.iter().filter_map(property).collect()
}

fn of_image<'a>(facts: &'a Facts) -> Vec<Property<'a>> {
    let fact = |name: &str| facts.get(name).map_or("", String::as_str);
    let (libc, os) = (fact("libc.kind"), fact("os.id"));
    let property = |(name, value): (&'a String, &'a String)| {
        let (name, cost) = match name.as_str() {
            "libc.version" => (format!("image.libc.version[{libc}]"), 1.0),
            "os.version" => (format!("image.os.version[{os}]"), 1.1),
            _ if IMAGE_FACTS.contains(&name.as_str()) => (format!("image.{name}"), 1.0),
            _ => return None,
        };
        Some((name, value.as_str(), cost))
    };
    facts.iter().filter_map(property).collect()
}

/// A column while it is filled: a value per cell, and what mentioning it costs.
type Column<'a> = (Vec<Option<&'a str>>, f64);

/// What is known of the cells. Cells share the facts of their host, engine and image, so those are looked at once.
fn columns<'a>(subjects: &[&Subject<'a>]) -> BTreeMap<String, Column<'a>> {
    let mut columns: BTreeMap<String, Column<'a>> = BTreeMap::new();
    let mut set = |name: String, value: &'a str, cost: f64, cells: &[usize]| {
        let column = columns.entry(name).or_insert_with(|| (vec![None; subjects.len()], cost));
        cells.iter().for_each(|&at| column.0[at] = Some(value));
    };
    let mut named: HashMap<(&str, &'a str), Vec<usize>> = HashMap::new();
    // Which facts they are, by where they are: equal ones in two places are looked at twice, and that is all.
    let mut shared: HashMap<(Axis, *const Facts), (&'a Facts, Vec<usize>)> = HashMap::new();
    for (at, subject) in subjects.iter().enumerate() {
        let cell = subject.cell;
        let contained = if cell.image.is_none() { "no" } else { "yes" };
        let (host, engine, image) = (cell.host.as_str(), cell.engine.as_str(), cell.image.as_str());
        for name in [("host", host), ("engine", engine), ("image", image), ("contained", contained)] {
            named.entry(name).or_default().push(at);
        }
        for (axis, facts) in [(Axis::Host, subject.host), (Axis::Engine, subject.engine), (Axis::Image, subject.image)]
        {
            if let Some(facts) = facts {
                shared.entry((axis, std::ptr::from_ref(facts))).or_insert((facts, vec![])).1.push(at);
            }
        }
    }
    for ((name, value), cells) in named {
        set(name.to_owned(), value, if name == "contained" { 1.0 } else { NAME_COST }, &cells);
    }
    for ((axis, _), (facts, cells)) in shared {
        let properties = match axis {
            Axis::Host => of_host(facts),
            Axis::Engine => of_engine(facts),
            Axis::Image => of_image(facts),
        };
        for (name, value, cost) in properties {
            set(name, value, cost, &cells);
        }
    }
    columns
}

/// The attributes of the cells, and which cells are alike in all of them.
pub(super) fn table(subjects: &[&Subject<'_>]) -> (Vec<usize>, Table) {
    let columns = columns(subjects);
    let attributes: Vec<Attribute> = columns
        .into_iter()
        .filter_map(|(name, (values, cost))| {
            let ordered = name.contains("version") || name.ends_with(".release") || name.ends_with("min_kernel");
            let mut names: Vec<String> =
                values.iter().flatten().copied().collect::<BTreeSet<_>>().into_iter().map(str::to_owned).collect();
            if ordered {
                names.sort_by(|a, b| version_order(a, b));
            }
            if names.len() > MAX_VALUES {
                return None;
            }
            let number: HashMap<&str, u32> = names.iter().map(String::as_str).zip(0..).collect();
            let values = values.iter().map(|value| value.and_then(|value| number.get(value).copied())).collect();
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

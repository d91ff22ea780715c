//! What rules may mention: facts of host, engine and image as columns of a table whose rows are groups of cells that no column
//! tells apart. In: cells with their facts. Out: each cell's group, and the table. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::cause::Subject;
use super::learn::{Attribute, Table, version_order};

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

/// The attributes of the cells, and which cells are alike in all of them.
pub(super) fn table(subjects: &[&Subject<'_>]) -> (Vec<usize>, Table) {
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
        set(at, "contained".into(), if cell.image.is_none() { "no" } else { "yes" }, 1.0);
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

//! Every documented incompatibility (`src/judge/known/`) against a cell that has it and one that nearly has it
//! (`tests/known.toml`).
#![allow(clippy::unwrap_used, clippy::panic, reason = "a broken fixture has to stop the test")]

#[path = "support/words.rs"]
mod words;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use abicus::catalog::Catalogue;
use abicus::collect::Observations;
use abicus::engine::Facts;
use abicus::id::CheckId;
use abicus::judge::blame::Layer;
use abicus::judge::known::{all, matching, matching_fault, recorded};
use abicus::judge::scene::Scene;
use abicus::judge::{Outcome, judge};
use globset::{Glob, GlobMatcher};
use serde::Deserialize;
use words::observation;

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Cell {
    check: Option<CheckId>,
    saw: BTreeMap<CheckId, String>,
    facts: BTreeMap<String, String>,
    layers: Vec<Layer>,
    fault: Option<String>,
    why: Option<String>,
    near: Vec<Cell>,
}

impl Cell {
    /// This cell with what `near` changes.
    fn nearly(&self, near: Cell) -> Cell {
        let merged = |mut base: BTreeMap<String, String>, change: BTreeMap<String, String>| {
            base.extend(change);
            base.retain(|_, value| value != "absent");
            base
        };
        let mut saw = self.saw.clone();
        saw.extend(near.saw);
        Cell {
            check: near.check.or(self.check.clone()),
            saw,
            facts: merged(self.facts.clone(), near.facts),
            layers: near.layers,
            fault: near.fault,
            why: near.why,
            near: vec![],
        }
    }

    /// Which entries it has: where its check fails those that explain the failure, where it passes those that are recorded.
    fn matches(&self) -> Vec<&'static str> {
        let observations: Observations = self.saw.iter().map(|(id, text)| (id.clone(), observation(text))).collect();
        let facts = |whose: &str| -> Facts {
            let own = |(name, value): (&String, &String)| Some((name.strip_prefix(whose)?.to_owned(), value.clone()));
            self.facts.iter().filter_map(own).collect()
        };
        let (host, image, cell) = (facts("host."), facts("image."), facts("cell."));
        let engine: Facts =
            facts("engine.").into_iter().map(|(name, value)| (format!("engine.{name}"), value)).collect();
        let scene = Scene {
            observations: Some(&observations),
            host: Some(&host),
            engine: Some(&engine),
            image: Some(&image),
            cell: Some(&cell),
        };
        let outcome = self.check.as_ref().map(|check| {
            let row = Catalogue::built_in().row(check).unwrap_or_else(|| panic!("no check `{check}`"));
            let seen = observations.get(check).unwrap_or_else(|| panic!("the cell does not say what {check} saw"));
            judge(row, seen)
        });
        let of_cell = match outcome {
            None | Some(Outcome::Skip { .. } | Outcome::Error { .. } | Outcome::Miss) => vec![],
            Some(Outcome::Pass) => recorded(&scene, self.check.iter()),
            Some(Outcome::Fail { .. }) => matching(&scene, self.check.iter(), &self.layers),
        };
        let of_fault = self.fault.iter().flat_map(|fault| matching_fault(fault));
        of_cell.into_iter().chain(of_fault).map(|found| found.id).collect()
    }
}

#[test]
fn every_entry_matches_its_cell_and_not_the_one_that_nearly_has_it() {
    let cells: BTreeMap<String, Cell> = toml::from_str(include_str!("known.toml")).unwrap();
    let entries: Vec<&str> = all().iter().map(|known| known.id.as_str()).collect();
    for name in cells.keys() {
        assert!(entries.contains(&name.as_str()), "no entry `{name}`");
    }
    for entry in &entries {
        let cell = cells.get(*entry).unwrap_or_else(|| panic!("`{entry}` has no cell in tests/known.toml"));
        assert!(cell.matches().contains(entry), "`{entry}` does not match its cell: {:?}", cell.matches());
        assert!(!cell.near.is_empty(), "`{entry}` has no cell that nearly has it");
        for near in cell.near.clone() {
            let near = cell.nearly(near);
            assert!(!near.matches().contains(entry), "`{entry}` matches although {}", near.why.as_deref().unwrap());
        }
    }
    assert!(entries.len() >= 55, "only {} entries", entries.len());
}

/// Words of the kernel or a C library that a probe hands on, names it puts together, and how `collect` says how one ended.
const OTHERS: [&str; 11] = [
    "thread force mitigated",
    "Symbol not found: abicus_ifunc",
    "libm.so.6: CPU ISA level is lower than required",
    "libm.so.6: cannot open shared object file: No such file or directory",
    "acpi_pm",
    "deny",
    "the library: cannot enable executable stack as shared object requires: Invalid argument",
    "sse2_unaligned_erms",
    "avx_unaligned_erms",
    "status 1",
    "status 127",
];

/// Every text a probe can answer with: the literals of its source with a star for what is filled in, and what rows expect.
fn answers() -> Vec<GlobMatcher> {
    let mut texts = BTreeSet::new();
    let mut dirs = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("probes")];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let source = std::fs::read_to_string(path).unwrap();
                let code = source.lines().filter(|line| !line.trim_start().starts_with("//"));
                texts.extend(code.flat_map(|line| line.split('"').skip(1).step_by(2)).map(str::to_owned));
            }
        }
    }
    texts.extend(Catalogue::built_in().rows().flat_map(|row| row.expect.iter().cloned()));
    let glob = |text: String| {
        let mut out = String::new();
        let mut inside = false;
        for c in text.chars() {
            match c {
                '{' => out.push('*'),
                '*' => out.push('*'),
                '?' | '[' | ']' | '\\' => out.push('?'),
                c if !inside && c != '}' => out.push(c),
                _ => {}
            }
            inside = c == '{' || inside && c != '}';
        }
        // Pieces are put together: `lacks ` and what is lacking.
        if out.ends_with(' ') {
            out.push('*');
        }
        if out.starts_with(' ') {
            out.insert(0, '*');
        }
        let words = out.chars().filter(char::is_ascii_alphabetic).count() > 2;
        words.then(|| Glob::new(&out).ok().map(|glob| glob.compile_matcher())).flatten()
    };
    texts.into_iter().filter_map(glob).collect()
}

/// Every `value …` in a table, wherever it stands.
fn values(table: &toml::Value) -> Vec<String> {
    match table {
        toml::Value::String(text) => text.strip_prefix("value ").map(str::to_owned).into_iter().collect(),
        toml::Value::Array(all) => all.iter().flat_map(values).collect(),
        toml::Value::Table(all) => all.values().flat_map(values).collect(),
        _ => vec![],
    }
}

#[test]
fn every_value_that_entries_and_cells_name_is_one_a_probe_can_answer_with() {
    let answers = answers();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = vec![root.join("tests/known.toml"), root.join("tests/mechanism.toml")];
    files.extend(std::fs::read_dir(root.join("src/judge/known")).unwrap().map(|entry| entry.unwrap().path()));
    let (mut invented, mut count) = (vec![], 0);
    for file in files {
        let table: toml::Value = toml::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
        for value in values(&table) {
            let is_number = value.trim_matches('*').chars().all(|c| c.is_ascii_digit()) || value == "[0-9]*";
            // A pattern stands for the shortest text that fits it.
            let example = value.replace('*', "");
            let said = |answer: &GlobMatcher| answer.is_match(&value) || answer.is_match(&example);
            if !is_number && !OTHERS.contains(&value.as_str()) && !answers.iter().any(said) {
                invented.push(format!("{}: value {value}", file.file_name().unwrap().display()));
            }
            count += 1;
        }
    }
    assert!(count > 60, "only {count} values were found");
    assert!(invented.is_empty(), "no probe says so:\n{}", invented.join("\n"));
}

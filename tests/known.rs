//! Every documented incompatibility (`src/judge/known/`) against a cell that has it and one that nearly has it
//! (`tests/known.toml`).
#![allow(clippy::unwrap_used, clippy::panic, reason = "a broken fixture has to stop the test")]

use std::collections::BTreeMap;

use abicus::collect::{Observation, Observations, Saw, Value};
use abicus::engine::Facts;
use abicus::id::CheckId;
use abicus::judge::blame::Layer;
use abicus::judge::known::{all, matching, matching_fault};
use abicus::judge::scene::{Scene, words};
use abicus::judge::{errno_number, signal_name};
use serde::Deserialize;

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Cell {
    check: Option<CheckId>,
    saw: BTreeMap<CheckId, String>,
    facts: BTreeMap<String, String>,
    layers: Vec<Layer>,
    fault: Option<String>,
    why: Option<String>,
    near: Option<Box<Cell>>,
}

impl Cell {
    /// This cell with what `near` changes.
    fn nearly(&self) -> Cell {
        let near = *self.near.clone().unwrap();
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
            near: None,
        }
    }

    /// Which entries it has.
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
        let of_cell = matching(&scene, self.check.iter(), &self.layers);
        let of_fault = self.fault.iter().flat_map(|fault| matching_fault(fault));
        of_cell.into_iter().chain(of_fault).map(|found| found.id).collect()
    }
}

/// Words → the observation they are the words of.
fn observation(text: &str) -> Observation {
    let (rest, filter) = match (text.strip_suffix(" by filter"), text.strip_suffix(" by kernel")) {
        (Some(rest), _) => (rest, Some("errno 1".to_owned())),
        (_, Some(rest)) => (rest, Some("allow".to_owned())),
        _ => (text, None),
    };
    let saw = match rest.split_once(' ') {
        Some(("errno", name)) => Saw::Errno { errno: errno_number(name).unwrap() },
        Some(("signal", name)) => Saw::Signal { signal: (1..32).find(|n| signal_name(*n) == name).unwrap() },
        Some(("value", value)) => Saw::Value { value: Value::Text(value.to_owned()) },
        _ if rest == "ok" => Saw::Ok,
        _ => panic!("`{text}` is not what a cell can show"),
    };
    let observation = Observation { saw, step: None, filter };
    assert_eq!(words(&observation), text);
    observation
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
        let near = cell.nearly();
        assert!(!near.matches().contains(entry), "`{entry}` matches although {}", near.why.as_deref().unwrap());
    }
    assert!(entries.len() >= 55, "only {} entries", entries.len());
}

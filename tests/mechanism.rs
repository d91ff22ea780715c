//! What is at fault inside a layer (`src/judge/mechanism.toml`), for a cell that has it and one that nearly has it
//! (`tests/mechanism.toml`).
#![allow(clippy::unwrap_used, clippy::panic, reason = "a broken fixture has to stop the test")]

#[path = "support/words.rs"]
mod words;

use std::collections::{BTreeMap, BTreeSet};

use abicus::catalog::Catalogue;
use abicus::collect::Observations;
use abicus::engine::Facts;
use abicus::id::CheckId;
use abicus::judge::blame::{Answer, Controls, Layer};
use abicus::judge::mechanism::{Case, mechanism};
use abicus::judge::scene::Scene;
use serde::Deserialize;
use words::observation;

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Cell {
    id: String,
    check: CheckId,
    layers: Vec<Layer>,
    saw: BTreeMap<CheckId, String>,
    /// What the bare host saw, where the check passes there.
    #[serde(default)]
    native: BTreeMap<CheckId, String>,
    #[serde(default)]
    facts: BTreeMap<String, String>,
    near: Vec<Near>,
}

/// What changes the cell so that something else is at fault.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Near {
    why: String,
    /// What is at fault then; none: nothing that can be named.
    id: Option<String>,
    layers: Option<Vec<Layer>>,
    #[serde(default)]
    saw: BTreeMap<CheckId, String>,
    #[serde(default)]
    facts: BTreeMap<String, String>,
}

fn named(cell: &Cell) -> Option<String> {
    let seen = |words: &BTreeMap<CheckId, String>| -> Observations {
        words.iter().map(|(id, text)| (id.clone(), observation(text))).collect()
    };
    let (here, native) = (seen(&cell.saw), seen(&cell.native));
    let facts = |whose: &str| -> Facts {
        let own = |(name, value): (&String, &String)| Some((name.strip_prefix(whose)?.to_owned(), value.clone()));
        cell.facts.iter().filter_map(own).collect()
    };
    let (host, image) = (facts("host."), facts("image."));
    let engine: Facts = facts("engine.").into_iter().map(|(name, value)| (format!("engine.{name}"), value)).collect();
    let scene =
        Scene { observations: Some(&here), host: Some(&host), engine: Some(&engine), image: Some(&image), cell: None };
    let passes = !native.is_empty();
    let found = mechanism(&Case {
        catalogue: Catalogue::built_in(),
        check: &cell.check,
        here: scene,
        controls: Controls {
            native: if passes { Answer::Passes } else { Answer::Unknown },
            scratch: Answer::Unknown,
            no_policy: Answer::Unknown,
        },
        native: passes.then_some(Scene { observations: Some(&native), ..scene }),
        scratch: None,
        no_policy: None,
        other: None,
        layers: &cell.layers,
    })?;
    assert!(!found.evidence.is_empty(), "{}: nothing shows it", found.id);
    Some(found.id)
}

#[test]
fn each_is_named_for_its_cell_and_not_for_the_one_that_nearly_has_it() {
    #[derive(Deserialize)]
    struct Cells {
        cell: Vec<Cell>,
    }
    let Cells { cell: cells } = toml::from_str(include_str!("mechanism.toml")).unwrap();
    let mut wrong: Vec<String> = vec![];
    for cell in &cells {
        let found = named(cell);
        if found.as_ref() != Some(&cell.id) {
            wrong.push(format!("`{}` of {}: {found:?}", cell.id, cell.check));
        }
        assert!(!cell.near.is_empty(), "`{}` has no cell that nearly has it", cell.id);
        for near in &cell.near {
            let mut other = cell.clone();
            other.layers = near.layers.clone().unwrap_or(other.layers);
            other.saw.extend(near.saw.clone());
            other.facts.extend(near.facts.clone());
            assert_ne!(near.id.as_ref(), Some(&cell.id));
            let found = named(&other);
            if found != near.id {
                wrong.push(format!("`{}`, but {}: {found:?}, not {:?}", cell.id, near.why, near.id));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let table: toml::Value = toml::from_str(include_str!("../src/judge/mechanism.toml")).unwrap();
    let sure: BTreeSet<&str> =
        table["sure"].as_array().unwrap().iter().map(|row| row["id"].as_str().unwrap()).collect();
    let tested: BTreeSet<&str> = cells.iter().map(|cell| cell.id.as_str()).collect();
    assert_eq!(sure.difference(&tested).collect::<Vec<_>>(), Vec::<&&str>::new(), "these have no cell");
}

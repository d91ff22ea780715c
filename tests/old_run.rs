//! A run directory as an older abicus wrote it (format 1, made up, no machine's facts) is judged as it was judged then. Only a
//! change of the catalogue may change `judged.json`: `ABICUS_ACCEPT=1 cargo test --test old_run`.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a broken fixture has to stop the test")]

mod support;

use std::collections::BTreeSet;
use std::path::Path;

use abicus::catalog::Catalogue;
use abicus::render::{View, json};
use abicus::store::Run;
use serde_json::Value;
use support::synthetic::{self, Size};

fn at() -> jiff::Timestamp {
    "2026-11-21T00:00:00Z".parse().unwrap()
}

#[test]
fn an_old_run_is_judged_as_it_was() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/runs/format-1");
    let run = abicus::store::load(&dir).unwrap();
    let judged = || {
        let view = View::new(&run, Catalogue::built_in(), at());
        let mut told: Value = serde_json::from_slice(&json(&view).unwrap()).unwrap();
        // What the catalogue says in words may be said better.
        let findings = told["findings"].as_array_mut().unwrap();
        findings.iter_mut().for_each(|finding| drop(finding["known"].take()));
        told
    };
    let told = judged();
    assert_eq!(told, judged(), "a second judgement differs");
    let path = dir.join("judged.json");
    let text = format!("{told:#}\n");
    if std::env::var_os("ABICUS_ACCEPT").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(expected == text, "{} differs; look, then accept it:\n{text}", path.display());
}

#[test]
fn a_finding_has_the_same_name_in_another_run() {
    let catalogue = synthetic::catalogue(Size::SMALL);
    let names = |run: &Run| -> BTreeSet<String> {
        View::new(run, &catalogue, at()).findings.into_iter().map(|finding| finding.id).collect()
    };
    let first = synthetic::run(Size::SMALL);
    let mut second = synthetic::run(Size::SMALL);
    second.info.id = "01JE0000000000000000000000".parse().unwrap();
    second.info.started = "2027-01-01T00:00:00Z".parse().unwrap();
    // One host less, of which there are others alike in what fails.
    second.info.cells.retain(|(cell, _)| cell.host.as_str() != "rack2");
    second.cells.retain(|cell, _| cell.host.as_str() != "rack2");
    second.hosts.retain(|host, _| host.as_str() != "rack2");
    let (first, second) = (names(&first), names(&second));
    assert!(!first.is_empty());
    assert_eq!(first, second);
}

//! What is one finding and what is two, and that a finding has one name in every run. Made-up runs with checks planted in them.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a broken fixture has to stop the test")]

#[path = "support/synthetic.rs"]
#[allow(dead_code, reason = "this test uses its own part")]
mod synthetic;

use std::sync::Arc;

use abicus::catalog::Catalogue;
use abicus::collect::{Observation, Saw};
use abicus::id::CellId;
use abicus::plan::Role;
use abicus::render::{Finding, View};
use abicus::store::{Run, State};
use synthetic::Size;

const TWINS: &str = r#"
    check = [
        { id = "twin.one", title = "", contract = "works", requirement = "must", reference = "", breaks = "" },
        { id = "twin.other", title = "", contract = "works", requirement = "must", reference = "", breaks = "" },
    ]
"#;

fn catalogue() -> Catalogue {
    Catalogue::parse([("synthetic.toml", synthetic::ROWS), ("twins.toml", TWINS)]).unwrap()
}

/// Asks every cell that ran one check more.
fn plant(run: &mut Run, check: &str, fails: impl Fn(&CellId) -> bool) {
    plant_errno(run, check, 5, fails);
}

fn plant_errno(run: &mut Run, check: &str, errno: i32, fails: impl Fn(&CellId) -> bool) {
    for record in run.cells.values_mut() {
        let State::Ran { vector, .. } = &mut record.state else { continue };
        let fails = fails(&record.cell);
        let saw = if fails { Saw::Errno { errno } } else { Saw::Ok };
        let mut observations = (*run.vectors[vector]).clone();
        observations.insert(check.parse().unwrap(), Observation { saw, step: None, filter: None });
        *vector = format!("{vector}-{check}-{errno}-{fails}");
        run.vectors.insert(vector.clone(), Arc::new(observations));
    }
}

/// The findings in which one of the twins is.
fn twins(run: &Run) -> Vec<Finding> {
    let catalogue = catalogue();
    let view = View::new(run, &catalogue, "2026-11-23T03:00:00Z".parse().unwrap());
    let of = |finding: &&Finding| finding.checks.iter().any(|&check| view.checks[check].group() == "twin");
    view.findings.iter().filter(of).cloned().collect()
}

fn under_docker(cell: &CellId) -> bool {
    cell.engine.as_str() == "docker"
}

fn under_docker_and_natively(cell: &CellId) -> bool {
    under_docker(cell) || cell.engine.as_str() == "native" || cell.engine.as_str() == "control.no-policy"
}

/// A run whose native cells nobody asked for.
fn run() -> Run {
    let mut run = synthetic::run(Size::TINY);
    for record in run.cells.values_mut().filter(|record| record.cell.engine.as_str() == "native") {
        record.role = Role::ControlNative;
    }
    for (cell, role) in run.info.cells.iter_mut().filter(|(cell, _)| cell.engine.as_str() == "native") {
        assert!(cell.image.is_none());
        *role = Role::ControlNative;
    }
    run
}

#[test]
fn what_fails_in_the_same_cells_for_another_layer_is_another_finding() {
    let mut alike = run();
    plant(&mut alike, "twin.one", under_docker);
    plant(&mut alike, "twin.other", under_docker);
    let found = twins(&alike);
    assert_eq!(found.len(), 1, "{found:#?}");
    assert_eq!((found[0].checks.len(), found[0].layer.as_deref()), (2, Some("engine")));

    // The asked cells fail alike; only a control tells the two apart.
    let mut apart = run();
    plant(&mut apart, "twin.one", under_docker);
    plant(&mut apart, "twin.other", under_docker_and_natively);
    let found = twins(&apart);
    let mut layers: Vec<_> = found.iter().map(|finding| (finding.cells, finding.layer.as_deref().unwrap())).collect();
    layers.sort_unstable();
    assert_eq!(layers, [(found[0].cells, "engine"), (found[0].cells, "host")]);
}

#[test]
fn a_title_says_of_no_check_what_was_seen_of_another() {
    let title = |other: i32| {
        let mut run = run();
        plant_errno(&mut run, "twin.one", 5, under_docker);
        plant_errno(&mut run, "twin.other", other, under_docker);
        twins(&run)[0].title.clone()
    };
    assert_eq!(title(5), "twin.one, twin.other: refused with EIO");
    assert_eq!(title(22), "twin.one: refused with EIO; 1 other check in the same cells");
}

#[test]
fn what_fails_in_the_same_cells_by_something_else_is_another_finding() {
    let mut run = run();
    plant_errno(&mut run, "twin.one", 5, under_docker);
    // No memory is a limit that was met; the runtime is what is left for the other.
    plant_errno(&mut run, "twin.other", 12, under_docker);
    let found = twins(&run);
    let told = |finding: &Finding| {
        let mechanism = finding.mechanism.as_ref().unwrap();
        (finding.checks.len(), finding.layer.clone().unwrap(), mechanism.id.clone(), finding.mechanisms.len())
    };
    let mut told: Vec<_> = found.iter().map(told).collect();
    told.sort();
    let engine = || "engine".to_owned();
    assert_eq!(told, [(1, engine(), "limit".to_owned(), 0), (1, engine(), "runtime".to_owned(), 0)]);
}

#[test]
fn a_finding_has_one_name_in_runs_of_other_cells() {
    let id = |size: Size, checks: &[&str]| {
        let mut run = synthetic::run(size);
        checks.iter().for_each(|check| plant(&mut run, check, under_docker));
        let found = twins(&run);
        assert_eq!(found.len(), 1, "{found:#?}");
        (found[0].id.clone(), found[0].cells)
    };
    let (both, few) = (["twin.one", "twin.other"], Size::TINY);
    let (small, of_few) = id(few, &both);
    let (large, of_many) = id(Size { hosts: 3, engines: 4, images: 8, ..few }, &both);
    assert!(of_many > of_few, "the second run has more cells that fail");
    assert_eq!(small, large);
    assert_eq!(small, id(few, &["twin.other", "twin.one"]).0);
    assert_ne!(small, id(few, &["twin.one"]).0, "other checks are another finding");
}

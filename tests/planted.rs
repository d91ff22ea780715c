//! Causes planted one at a time and in pairs, with real engines: the layer has to be right always, what inside it is at fault
//! nearly always, and nothing may be blamed that was not planted. `tests/planted/TABLE.md` holds what was planted and what
//! was named; `ABICUS_ACCEPT=1 cargo test --test planted` writes it anew.
//!
//! Needs root, docker, util-linux, a C compiler and the fixtures.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a broken fixture has to stop the test")]

#[path = "planted/plants.rs"]
mod plants;
#[path = "planted/trees.rs"]
mod trees;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use abicus::catalog::{Catalogue, Requirement};
use abicus::judge::Verdict;
use abicus::render::{Inquiry, View};
use plants::{ENGINES, Expected, HOSTS, IMAGES, PAIRS, Plant};

/// Where images stay between runs of this test: copying them is most of its time.
fn cache() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("planted")
}

fn at() -> jiff::Timestamp {
    "2026-11-24T00:00:00Z".parse().unwrap()
}

/// Runs a matrix, inside another command where one is given, and returns the directory of the run.
fn run(dir: &Path, matrix: &str, inside: &[&str]) -> PathBuf {
    std::fs::write(dir.join("matrix.toml"), matrix).unwrap();
    let reports = dir.join("reports");
    let abicus = [env!("CARGO_BIN_EXE_abicus"), "run", "--quiet", "--reports", reports.to_str().unwrap()];
    let words: Vec<&str> = inside.iter().copied().chain(abicus).collect();
    let output = Command::new(words[0])
        .args(&words[1..])
        .current_dir(dir)
        .env("ABICUS_CACHE", cache())
        .output()
        .unwrap_or_else(|error| panic!("{words:?}: {error}"));
    let code = output.status.code().unwrap_or(-1);
    let said = || format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!([0, 1, 3].contains(&code), "{words:?} exits with {code}:\n{}", said());
    let made = std::fs::read_dir(&reports).unwrap_or_else(|error| panic!("no run: {error}:\n{}", said()));
    made.map(|entry| entry.unwrap().path()).max().unwrap()
}

/// What the small image itself lacks: a cache of the loader, conversions, a locale.
const TINY: [&str; 4] = ["ld.cache", "libc.iconv.latin1", "libc.iconv.utf16", "libc.locale.c-utf8"];

/// What was planted beside what was named.
#[derive(Debug, Default)]
struct Table {
    rows: Vec<String>,
    layers_wrong: Vec<String>,
    mechanisms_wrong: Vec<String>,
    named: usize,
}

impl Table {
    fn check(&mut self, what: &str, view: &View<'_>, cell: &str, expected: &Expected) {
        let Expected { check, layer, mechanism } = expected;
        let inquiry = Inquiry::new(view);
        let at = view.cells.iter().position(|known| known.id.to_string() == cell);
        let id = view.checks.iter().position(|known| known.as_str() == *check);
        let (Some(at), Some(id)) = (at, id) else { panic!("{what}: {check} was not asked in {cell}") };
        let fails = inquiry.fails(id);
        let (layers, named) = match fails[at] {
            Some(true) => {
                let blame = inquiry.blame(at, &fails);
                let named = inquiry.mechanism(at, &view.checks[id], &blame, &fails);
                let layers: Vec<&str> = blame.layers.iter().map(|layer| layer.words()).collect();
                (layers.join(" or "), named.map_or_else(|| "nothing".to_owned(), |named| named.id))
            }
            Some(false) => ("passes".to_owned(), "nothing".to_owned()),
            None => (format!("not asked {:?}", view.cells[at].faults), "nothing".to_owned()),
        };
        self.named += 1;
        let row = format!("| {what} | `{cell}` | `{check}` | {layer} | {layers} | {mechanism} | {named} |");
        if layers != *layer {
            self.layers_wrong.push(row.clone());
        }
        if named != *mechanism {
            self.mechanisms_wrong.push(row.clone());
        }
        self.rows.push(row);
    }

    /// Checks that were planted somewhere fail nowhere else, and what nothing was planted in is green.
    fn unplanted(&mut self, view: &View<'_>, planted: &BTreeMap<String, Vec<&Plant>>, healthy: impl Fn(&str) -> bool) {
        let inquiry = Inquiry::new(view);
        let known: Vec<&str> = planted.values().flatten().flat_map(|plant| plant.checks()).collect();
        for (index, id) in view.checks.iter().enumerate().filter(|(_, id)| known.contains(&id.as_str())) {
            let fails = inquiry.fails(index);
            for (cell, fails) in view.cells.iter().zip(fails).filter(|(cell, _)| !cell.role.is_control()) {
                let name = cell.id.to_string();
                let mine =
                    planted.iter().filter(|(part, _)| name.contains(part.as_str())).flat_map(|(_, plants)| plants);
                let expected = mine.into_iter().any(|plant| plant.touches(id.as_str()));
                if fails == Some(true) && !expected {
                    self.layers_wrong.push(format!("{id} fails in {name}, where it was not planted"));
                }
            }
        }
        for cell in view.cells.iter().filter(|cell| healthy(&cell.id.to_string())) {
            let bad = match cell.verdict {
                Verdict::Fail | Verdict::Degraded | Verdict::Error | Verdict::Miss => true,
                Verdict::Pass | Verdict::Skip => false,
            };
            if bad {
                let Some(vector) = cell.vector else {
                    self.layers_wrong.push(format!("{} did not run: {:?}", cell.id, cell.faults));
                    continue;
                };
                let results = view.vectors[vector].results.iter();
                let failing = results.filter(|(_, seen)| view.seen[*seen as usize].is_fail());
                let failing: Vec<&str> = failing
                    .map(|(check, _)| &view.checks[*check as usize])
                    .filter(|check| view.requirement(check) > Requirement::May)
                    .map(|check| check.as_str())
                    .collect();
                // What so small an image lacks whoever runs it.
                let odd = failing.iter().any(|check| !TINY.contains(check));
                if odd || !cell.faults.is_empty() {
                    self.layers_wrong.push(format!("{} is {}: {failing:?} {:?}", cell.id, cell.verdict, cell.faults));
                }
            }
        }
    }

    fn text(&self) -> String {
        let mut out = String::from(
            "# Planted causes\n\nWritten by `ABICUS_ACCEPT=1 cargo test --test planted`: what was planted, one at a time and in \
             pairs, and what abicus named.\n\n| planted | cell | check | layer | named | at fault | named |\n|---|---|---|---|---|---|---|\n",
        );
        for row in &self.rows {
            let _ = writeln!(out, "{row}");
        }
        out
    }
}

/// Docker was given the trees of this test; nobody else has these.
fn remove_from_docker(run: &abicus::store::Run) {
    for image in ["bookworm", "bullseye"] {
        let digest = run.images[&image.parse().unwrap()].facts["digest"].rsplit(':').next().unwrap().to_owned();
        let name = format!("abicus-cache/{image}:{}", &digest[..12]);
        let output = Command::new("docker").args(["rmi", &name]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn what_was_planted_is_named_and_nothing_else_is_blamed() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let trees = trees::make(&cache().join("trees"));
    let mut table = Table::default();

    let (text, planted) = plants::engine_matrix(dir, &trees);
    let kept = abicus::store::load(&run(dir, &text, &[])).unwrap();
    let view = View::new(&kept, Catalogue::built_in(), at());
    for plant in ENGINES.iter().chain(PAIRS) {
        for engine in plant.engines {
            for (image, expected) in plant.expected {
                table.check(plant.name, &view, &format!("local:{engine}-{}:{image}", plant.name), expected);
            }
        }
    }
    table.unplanted(&view, &planted, |cell| cell.starts_with("local:built-in:") || cell.starts_with("local:docker:"));

    remove_from_docker(&kept);

    let images = tempfile::tempdir().unwrap();
    let (text, planted) = plants::image_matrix(&trees);
    let kept = abicus::store::load(&run(images.path(), &text, &[])).unwrap();
    let view = View::new(&kept, Catalogue::built_in(), at());
    for plant in IMAGES {
        for (image, expected) in plant.expected {
            table.check(plant.name, &view, &format!("local:built-in:{image}"), expected);
        }
    }
    table.unplanted(&view, &planted, |cell| cell == "local:built-in:tiny");
    let foreign = view.cells.iter().find(|cell| cell.id.image.as_str() == "wrong-arch").unwrap();
    assert_eq!(foreign.verdict, Verdict::Error, "an image for another processor cannot run");

    for plant in HOSTS {
        let dir = tempfile::tempdir().unwrap();
        let kept = abicus::store::load(&run(dir.path(), plants::HOST_MATRIX, plant.inside)).unwrap();
        let view = View::new(&kept, Catalogue::built_in(), at());
        for (cell, expected) in plant.expected {
            table.check(plant.name, &view, cell, expected);
        }
    }

    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/planted/TABLE.md");
    if std::env::var_os("ABICUS_ACCEPT").is_some() {
        std::fs::write(&path, table.text()).unwrap();
    }
    assert!(table.layers_wrong.is_empty(), "layers:\n{}\n\n{}", table.layers_wrong.join("\n"), table.text());
    let right = table.named - table.mechanisms_wrong.len();
    assert!(right * 100 >= table.named * 95, "mechanisms:\n{}", table.mechanisms_wrong.join("\n"));
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        expected == table.text(),
        "tests/planted/TABLE.md differs: ABICUS_ACCEPT=1 cargo test --test planted\n{}",
        table.text()
    );
}

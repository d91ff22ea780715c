//! Causes planted one at a time and in pairs, with real engines: the layer has to be right always, what inside it is at fault
//! nearly always, and nothing may be blamed that was not planted. `tests/planted/TABLE.md` holds what was planted and what
//! was named; `ABICUS_ACCEPT=1 cargo test --test planted` writes it anew. `GUEST.md` is the same for virtual machines, one with
//! an old processor and one with AppArmor, a test of the virtual fleet.
//!
//! Needs root, docker, podman, runc, crun, sshd, util-linux, a C compiler and the fixtures; the guest needs what `ci/setup fleet`
//! installs.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a broken fixture has to stop the test")]

#[path = "planted/cross.rs"]
mod cross;
mod host_support;
#[path = "planted/matrices.rs"]
mod matrices;
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
use cross::{ENGINE_AND_IMAGE, GUEST, GUEST_TWINS, HOST_AND_ENGINE, HOST_AND_ENGINE_TWINS, HOST_AND_MORE};
use host_support::Lab;
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
        let (Some(at), Some(id)) = (at, id) else {
            let faults: Vec<String> = view.cells.iter().map(|cell| format!("{}: {:?}", cell.id, cell.faults)).collect();
            panic!("{what}: {check} was not asked in {cell}\n{}", faults.join("\n"))
        };
        let fails = inquiry.fails(id);
        let nothing = || "nothing".to_owned();
        let (layers, named, known) = match fails[at] {
            Some(true) => {
                let blame = inquiry.blame(at, &fails);
                let named = inquiry.mechanism(at, &view.checks[id], &blame, &fails);
                let layers: Vec<&str> = blame.layers.iter().map(|layer| layer.words()).collect();
                let known = inquiry.known(at, std::iter::once(&view.checks[id]), &blame);
                let known: Vec<&str> = known.iter().map(|known| known.id).collect();
                (layers.join(" or "), named.map_or_else(nothing, |named| named.id), known.join(", "))
            }
            Some(false) => ("passes".to_owned(), nothing(), String::new()),
            None => (format!("not asked {:?}", view.cells[at].faults), nothing(), String::new()),
        };
        self.named += 1;
        let row = format!("| {what} | `{cell}` | `{check}` | {layer} | {layers} | {mechanism} | {named} | {known} |");
        if layers != *layer {
            self.layers_wrong.push(row.clone());
        }
        if named != *mechanism {
            self.mechanisms_wrong.push(row.clone());
        }
        self.rows.push(row);
    }

    /// What has only one of two causes is not blamed for the other.
    fn twin(&mut self, view: &View<'_>, cell: &str, check: &str) {
        let at = view.cells.iter().position(|known| known.id.to_string() == cell);
        let id = view.checks.iter().position(|known| known.as_str() == check);
        let (Some(at), Some(id)) = (at, id) else { panic!("{check} was not asked in {cell}") };
        if Inquiry::new(view).fails(id)[at] != Some(false) {
            self.layers_wrong.push(format!("{check} does not pass in {cell}, which has nothing to do with it"));
        }
    }

    /// An image that cannot even start: the engine is not to blame, and the words say why.
    fn could_not_run(&mut self, what: &str, view: &View<'_>, cell: &str, words: &str) {
        let known = view.cells.iter().find(|known| known.id.to_string() == cell).unwrap();
        let fault = known.faults.first().unwrap_or_else(|| panic!("{cell} is {}", known.verdict));
        let (layer, named) = (fault.phase.to_string(), if fault.cause.contains(words) { words } else { "nothing" });
        self.named += 1;
        let row = format!("| {what} | `{cell}` | does not start | image | {layer} | {words} | {named} | |");
        if layer != "image" || known.verdict != Verdict::Error {
            self.layers_wrong.push(row.clone());
        }
        if named != words {
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

    /// Every layer has to be right, nearly every mechanism, and all of it as it is written down.
    fn compare(&self, file: &str, arguments: &str) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/planted").join(file);
        if std::env::var_os("ABICUS_ACCEPT").is_some() {
            std::fs::write(&path, self.text(arguments)).unwrap();
        }
        assert!(self.layers_wrong.is_empty(), "layers:\n{}\n\n{}", self.layers_wrong.join("\n"), self.text(arguments));
        let right = self.named - self.mechanisms_wrong.len();
        assert!(right * 100 >= self.named * 95, "mechanisms:\n{}", self.mechanisms_wrong.join("\n"));
        let expected = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            expected == self.text(arguments),
            "tests/planted/{file} differs: ABICUS_ACCEPT=1 cargo test --test planted{arguments}\n{}",
            self.text(arguments)
        );
    }

    fn text(&self, arguments: &str) -> String {
        let mut out = format!(
            "# Planted causes\n\nWritten by `ABICUS_ACCEPT=1 cargo test --test planted{arguments}`: what was planted, one at a time and in \
             pairs, and what abicus named.\n\n| planted | cell | check | layer | named | at fault | named | known |\n|---|---|---|---|---|---|---|---|\n",
        );
        for row in &self.rows {
            let _ = writeln!(out, "{row}");
        }
        out
    }
}

/// Engines were given the trees of this test; nobody else has these.
fn remove_from_engines(run: &abicus::store::Run) {
    for (engine, image) in ["docker", "podman"].into_iter().flat_map(|e| ["bookworm", "bullseye"].map(|i| (e, i))) {
        let digest = run.images[&image.parse().unwrap()].facts["digest"].rsplit(':').next().unwrap().to_owned();
        let name = format!("abicus-cache/{image}:{}", &digest[..12]);
        let output = Command::new(engine).args(["rmi", &name]).output().unwrap();
        assert!(output.status.success(), "{engine}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

/// A kernel for the guest is made once for all tests, where `abicus vm build` keeps it.
fn share_kernels() {
    let shared = PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache/abicus/vm");
    std::fs::create_dir_all(&shared).unwrap();
    let here = cache().join("vm");
    if std::fs::symlink_metadata(&here).is_err() {
        std::os::unix::fs::symlink(&shared, &here).unwrap();
    }
}

#[test]
#[ignore = "plants some fifty causes, one after the other: two minutes"]
fn what_was_planted_is_named_and_nothing_else_is_blamed() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let trees = trees::make(&cache().join("trees"));
    let mut table = Table::default();

    let (text, planted) = matrices::engine_matrix(dir, &trees);
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

    remove_from_engines(&kept);

    let images = tempfile::tempdir().unwrap();
    let (text, planted) = matrices::image_matrix(images.path(), &trees);
    let kept = abicus::store::load(&run(images.path(), &text, &[])).unwrap();
    let view = View::new(&kept, Catalogue::built_in(), at());
    for plant in IMAGES {
        for (image, expected) in plant.expected {
            table.check(plant.name, &view, &format!("local:built-in:{image}"), expected);
        }
    }
    for plant in ENGINE_AND_IMAGE {
        for (image, expected) in plant.expected {
            table.check(plant.name, &view, &format!("local:{}:{image}", plant.name), expected);
            // The engine with a whole image, and the image under a whole engine.
            let twin = match expected.layer {
                "image" => format!("local:{}:tiny", plant.name),
                _ => format!("local:built-in:{image}"),
            };
            table.twin(&view, &twin, expected.check);
        }
    }
    table.unplanted(&view, &planted, |cell| cell == "local:built-in:tiny");
    table.could_not_run("wrong-arch", &view, "local:built-in:wrong-arch", "is made for");

    for plant in HOSTS.iter().chain(HOST_AND_MORE) {
        let dir = tempfile::tempdir().unwrap();
        let kept = abicus::store::load(&run(dir.path(), &matrices::host_matrix(plant, &trees), plant.inside)).unwrap();
        let view = View::new(&kept, Catalogue::built_in(), at());
        for (cell, expected) in plant.expected {
            table.check(plant.name, &view, cell, expected);
            match expected.layer {
                "engine" => table.twin(&view, "local:built-in:scratch", expected.check),
                "image" => table.twin(&view, "local:built-in:tiny", expected.check),
                _ => {}
            }
        }
    }

    let (dir, lab) = (tempfile::tempdir().unwrap(), Lab::new());
    let text = matrices::host_and_engine_matrix(dir.path(), &HOST_AND_ENGINE, &lab.path("config"));
    let kept = abicus::store::load(&run(dir.path(), &text, HOST_AND_ENGINE.inside)).unwrap();
    let view = View::new(&kept, Catalogue::built_in(), at());
    for (cell, expected) in HOST_AND_ENGINE.expected {
        table.check(HOST_AND_ENGINE.name, &view, cell, expected);
        HOST_AND_ENGINE_TWINS.iter().for_each(|twin| table.twin(&view, twin, expected.check));
    }

    table.compare("TABLE.md", "");
}

#[test]
#[ignore = "virtual fleet: ci/fleet"]
fn what_this_machine_cannot_be_is_planted_in_guests() {
    let trees = trees::make(&cache().join("guest-trees"));
    let mut table = Table::default();
    share_kernels();
    let mut plant = |name: &str, matrix: &str, planted: &[(&str, Expected)], twins: &[&str]| {
        let guest = tempfile::tempdir().unwrap();
        let kept = abicus::store::load(&run(guest.path(), matrix, &[])).unwrap();
        let view = View::new(&kept, Catalogue::built_in(), at());
        for (cell, expected) in planted {
            table.check(name, &view, cell, expected);
            twins.iter().for_each(|twin| table.twin(&view, twin, expected.check));
        }
    };
    plant("old-processor", &cross::guest_matrix(&trees), GUEST, &GUEST_TWINS);
    plant("apparmor-denies", cross::APPARMOR_MATRIX, &[cross::APPARMOR], &cross::APPARMOR_TWINS);
    table.compare("GUEST.md", " -- --ignored");
}

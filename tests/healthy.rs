//! What the README says a healthy machine shows is what the committed matrix shows on one: nothing red, and no finding that is
//! not in its table. Its images are the test root file systems of the same suites.
//!
//! Needs root, docker and the fixtures: `ci/test --test healthy -- --ignored`, as `.ci/run` does.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a broken fixture has to stop the test")]

use std::path::Path;
use std::process::Command;

use abicus::catalog::{Catalogue, Requirement};
use abicus::judge::Verdict;
use abicus::render::View;
use globset::{Glob, GlobSet, GlobSetBuilder};

/// Images of `matrix.toml`, their recipes, and the trees that stand for them.
const IMAGES: [(&str, &str, &str); 5] = [
    ("debian-11", r#"bootstrap = { suite = "bullseye", variant = "apt" }"#, "bullseye"),
    ("debian-12", r#"bootstrap = { suite = "bookworm", variant = "apt" }"#, "bookworm"),
    ("debian-13", r#"bootstrap = { suite = "trixie", variant = "apt" }"#, "trixie"),
    ("debian-14", r#"bootstrap = { suite = "forky", variant = "apt" }"#, "forky"),
    (
        "musl",
        r#"bootstrap = { suite = "bookworm", variant = "extract", include = ["musl", "busybox-static"] }"#,
        "musl",
    ),
];

/// A row of the README's table: patterns over checks, whose they are, and whether only some machines show it.
struct Row {
    text: String,
    checks: GlobSet,
    layer: String,
    sometimes: bool,
}

fn rows() -> Vec<Row> {
    let readme = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let section = readme.split("\n## ").find(|section| section.starts_with("What a healthy machine shows")).unwrap();
    let table = section.lines().filter(|line| line.starts_with("| `"));
    let row = |line: &str| {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let mut checks = GlobSetBuilder::new();
        for glob in cells[0].split('`').skip(1).step_by(2) {
            checks.add(Glob::new(glob).unwrap());
        }
        Row {
            text: line.to_owned(),
            checks: checks.build().unwrap(),
            layer: cells[1].to_owned(),
            sometimes: cells[0].contains('('),
        }
    };
    table.map(row).collect()
}

#[test]
#[ignore = "copies five images and hands them to docker: two minutes"]
fn the_committed_matrix_shows_what_the_readme_says_and_nothing_red() {
    let fixtures =
        std::env::var("ABICUS_FIXTURES").expect("ABICUS_FIXTURES names the test root file systems: run ci/test");
    let mut matrix = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("matrix.toml")).unwrap();
    for (_, recipe, tree) in IMAGES {
        assert_eq!(matrix.matches(recipe).count(), 1, "{recipe}");
        matrix = matrix.replace(recipe, &format!("rootfs = \"{fixtures}/{tree}\""));
    }
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("matrix.toml"), matrix).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_abicus"));
    command.args(["run", "--quiet", "--strict"]).current_dir(dir.path()).env("ABICUS_CACHE", dir.path().join("cache"));
    let output = command.output().unwrap();
    let place = std::fs::read_dir(dir.path().join("reports")).unwrap().next().unwrap().unwrap().path();
    let run = abicus::store::load(&place).unwrap();
    remove_from_docker(&run);
    let view = View::new(&run, Catalogue::built_in(), "2026-11-24T00:00:00Z".parse().unwrap());

    let (rows, mut used, mut wrong) = (rows(), std::collections::BTreeSet::new(), vec![]);
    assert!(rows.len() > 5, "the README's table was not found");
    for cell in view.asked().filter(|cell| cell.verdict != Verdict::Pass) {
        wrong.push(format!("{} is {}: {:?} {:?}", cell.id, cell.verdict, cell.skipped, cell.faults));
    }
    for finding in &view.findings {
        for check in finding.checks.iter().map(|&check| &view.checks[check]) {
            let layer = finding.layer.as_deref().unwrap_or("not known");
            let own = |row: &&Row| {
                row.checks.is_match(check.as_str())
                    && (row.layer == layer || row.layer.split(" or ").any(|own| own == layer))
            };
            match rows.iter().find(own) {
                Some(row) if finding.requirement == Requirement::May => _ = used.insert(&row.text),
                Some(_) | None => wrong.push(format!("{check} ({layer}) is not in the README: {}", finding.title)),
            }
        }
    }
    let unused = rows.iter().filter(|row| !row.sometimes && !used.contains(&row.text));
    wrong.extend(unused.map(|row| format!("in the README and not seen: {}", row.text)));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(wrong.is_empty() && output.status.success(), "{}\n{said}\n{}", output.status, wrong.join("\n"));
}

/// docker was given the trees under the names of this matrix; nobody else has these.
fn remove_from_docker(run: &abicus::store::Run) {
    for (image, ..) in IMAGES {
        let digest = run.images[&image.parse().unwrap()].facts["digest"].rsplit(':').next().unwrap();
        let name = format!("abicus-cache/{image}:{}", &digest[..12]);
        let removed = Command::new("docker").args(["rmi", &name]).output().unwrap();
        assert!(removed.status.success(), "{}", String::from_utf8_lossy(&removed.stderr));
    }
}

//! Reports of a made-up run: what is in the files, and that hostile text stays text.

#![allow(clippy::unwrap_used, reason = "a broken fixture has to stop the test")]

mod support;

use abicus::render::render_all;
use support::synthetic::{self, Size};

fn at() -> jiff::Timestamp {
    "2026-11-23T03:00:00Z".parse().unwrap()
}

#[test]
fn every_file_of_a_run_is_rendered() {
    let run = synthetic::run(Size::SMALL);
    let files = render_all(&run, &synthetic::catalogue(Size::SMALL), at()).unwrap();
    let names: Vec<_> = files.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, ["index.html", "cells.csv", "results.csv", "matrix.csv", "junit.xml", "summary.md"]);
    if let Ok(dir) = std::env::var("ABICUS_TEST_OUT") {
        for (name, bytes) in files {
            std::fs::write(std::path::Path::new(&dir).join(name), bytes).unwrap();
        }
    }
}

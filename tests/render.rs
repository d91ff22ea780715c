//! Reports of a made-up run: what is in the files, that hostile text stays text, and that size does not matter.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a broken fixture has to stop the test")]

mod support;

use std::path::{Path, PathBuf};

use abicus::render::{Files, View, csv_columns, json, page_data, render_all};
use support::synthetic::{self, HOSTILE, Size};

fn at() -> jiff::Timestamp {
    "2026-11-23T03:00:00Z".parse().unwrap()
}

fn rendered(size: Size, change: impl FnOnce(&mut abicus::store::Run)) -> Files {
    let mut run = synthetic::run(size);
    change(&mut run);
    render_all(&run, &synthetic::catalogue(size), at()).unwrap()
}

fn file(files: &Files, name: &str) -> String {
    let (_, bytes) = files.iter().find(|(known, _)| *known == name).unwrap();
    String::from_utf8(bytes.clone()).unwrap()
}

/// Compares with a committed file; `ABICUS_ACCEPT=1` replaces it.
fn golden(name: &str, text: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/expected/render").join(name);
    if std::env::var_os("ABICUS_ACCEPT").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    if expected != text {
        let line = expected.lines().zip(text.lines()).position(|(a, b)| a != b).unwrap_or_default();
        let there = |text: &str| text.lines().nth(line).unwrap_or("(nothing)").chars().take(300).collect::<String>();
        panic!(
            "{} differs from line {}:\n  expected {}\n  found    {}\nlook at the change, then accept it: ABICUS_ACCEPT=1 cargo test --test render",
            path.display(),
            line + 1,
            there(&expected),
            there(text)
        );
    }
}

#[test]
fn a_small_run_renders_to_what_was_accepted() {
    let run = synthetic::run(Size::TINY);
    let catalogue = synthetic::catalogue(Size::TINY);
    let view = View::new(&run, &catalogue, at());
    golden("page.json", &format!("{:#}\n", page_data(&view).unwrap()));
    let files = rendered(Size::TINY, |_| ());
    for name in ["cells.csv", "results.csv", "matrix.csv", "junit.xml", "summary.md"] {
        golden(name, &file(&files, name));
    }
    let document: serde_json::Value = serde_json::from_slice(&json(&view).unwrap()).unwrap();
    golden("run.json", &format!("{document:#}\n"));
}

#[test]
fn every_file_of_a_run_is_rendered_and_rendered_alike_twice() {
    let files = rendered(Size::SMALL, |_| ());
    let names: Vec<_> = files.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, ["index.html", "cells.csv", "results.csv", "matrix.csv", "junit.xml", "summary.md"]);
    assert!(files == rendered(Size::SMALL, |_| ()), "a second rendering differs");
    if let Some(dir) = std::env::var_os("ABICUS_TEST_OUT") {
        for (name, bytes) in files {
            std::fs::write(Path::new(&dir).join(name), bytes).unwrap();
        }
    }
}

#[test]
fn causes_are_described_by_the_fewest_axes() {
    let run = synthetic::run(Size::SMALL);
    let catalogue = synthetic::catalogue(Size::SMALL);
    let view = View::new(&run, &catalogue, at());
    let finding = |check: &str| {
        let of = |finding: &&abicus::render::Finding| {
            finding.checks.iter().any(|&index| view.checks[index].as_str() == check)
        };
        view.findings.iter().find(of).unwrap_or_else(|| panic!("no finding has {check}"))
    };
    // hosts, engines, images
    assert_eq!(finding("syscall.clone3").exact, Some([false, true, false]));
    assert_eq!(finding("libc.iconv.utf16").exact, Some([false, false, true]));
    assert_eq!(finding("libc.thread.create").exact, Some([false, true, true]));
    let threads = finding("libc.thread.create");
    assert_eq!((threads.cells, threads.checks.len()), (5, 2));
    let native = threads.controls.iter().find(|axis| axis.name == "native").unwrap();
    assert_eq!((native.failing, native.of), (0, 3));
    let order: Vec<_> = view.findings.iter().map(|finding| finding.requirement).collect();
    assert!(order.is_sorted_by(|a, b| a >= b), "{order:?}");
}

#[test]
fn a_run_without_cells_and_a_run_in_which_nothing_ran_have_reports() {
    let files = rendered(Size::TINY, |run| {
        run.cells.clear();
        run.vectors.clear();
        run.hosts.clear();
        run.engines.clear();
        run.images.clear();
        run.info.finished = None;
    });
    assert!(file(&files, "index.html").contains("Nothing is known of 22 cells: none of them ran."));
    assert!(file(&files, "index.html").contains("This run is not finished"));
    assert!(file(&files, "summary.md").contains("planned and nothing is recorded of it"));
    let files = rendered(Size::TINY, |run| {
        run.cells.clear();
        run.info.cells.clear();
        run.info.skips.clear();
    });
    assert!(file(&files, "index.html").contains("No cell was asked for."));
}

#[test]
fn every_column_is_documented_and_every_documented_column_exists() {
    let readme = include_str!("../reports/README.md");
    for (sheet, columns) in csv_columns() {
        let section = readme.split("\n### ").find(|section| section.starts_with(&format!("`{sheet}`"))).unwrap();
        let rows = section.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` |"));
        let documented: Vec<&str> = rows.map(|(column, _)| column).collect();
        assert_eq!(documented, columns, "{sheet}");
        let text = file(&rendered(Size::TINY, |_| ()), sheet);
        let header: Vec<&str> = text.lines().next().unwrap().split(',').take(columns.len()).collect();
        assert_eq!(header, columns, "{sheet}");
    }
}

#[test]
fn no_sheet_has_a_formula_or_a_control_character_whatever_separator_is_guessed() {
    let files = rendered(Size::SMALL, synthetic::poison);
    for sheet in ["cells.csv", "results.csv", "matrix.csv"] {
        let text = file(&files, sheet);
        assert!(sheet == "matrix.csv" || text.contains("'=cmd|"), "{sheet} has no hostile text in it");
        assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{sheet} has a control character");
        for delimiter in [b',', b';', b'\t', b'|'] {
            let mut reader = csv::ReaderBuilder::new()
                .delimiter(delimiter)
                .flexible(true)
                .has_headers(false)
                .from_reader(text.as_bytes());
            for record in reader.records() {
                for field in record.unwrap().iter() {
                    let number = field == "-" || field.parse::<f64>().is_ok();
                    assert!(number || !field.trim_start().starts_with(['=', '+', '-', '@']), "{sheet}: {field:?}");
                }
            }
        }
        let mut reader = csv::Reader::from_reader(text.as_bytes());
        assert!(reader.records().all(|record| record.is_ok()), "{sheet} has rows of different length");
    }
}

#[test]
fn hostile_text_is_neither_markup_nor_the_end_of_what_surrounds_it() {
    let files = rendered(Size::SMALL, synthetic::poison);
    let html = file(&files, "index.html");
    assert!(html.contains("&lt;img src=x onerror"), "the page has no hostile text in it");
    for forbidden in ["<img", "<b data-x", "\u{1b}", "\u{202e}"] {
        assert!(!html.contains(forbidden), "the page has {forbidden:?}");
    }
    // Ours: the data and the program.
    assert_eq!(html.matches("<script").count(), 2);
    assert_eq!(html.matches("</script").count(), 2);
    let xml = file(&files, "junit.xml");
    assert!(xml.contains("&lt;/script&gt;"), "the XML has no hostile text in it");
    assert!(!xml.contains("<img") && !xml.contains("]]>") && !xml.chars().any(|c| c.is_control() && c != '\n'));
    let markdown = file(&files, "summary.md");
    assert!(markdown.contains("onerror"), "the summary has no hostile text in it");
    // What is not in a code span has no hostile text.
    let outside: String = markdown.split('`').step_by(2).collect();
    for forbidden in ["onerror", "<", "{{", "=cmd"] {
        assert!(!outside.contains(forbidden), "the summary has {forbidden:?} outside of code:\n{outside}");
    }
    assert!(!markdown.chars().any(|c| c.is_control() && c != '\n'));
}

#[test]
fn small_data_is_embedded_as_json_that_cannot_end_its_element() {
    let size = Size { hosts: 1, engines: 1, images: 1, fillers: 0, noise: 0 };
    let files = rendered(size, synthetic::poison);
    let html = file(&files, "index.html");
    let data =
        html.split("<script type=\"application/json\" id=\"data\">").nth(1).unwrap().split("</script>").next().unwrap();
    assert!(!data.contains('<'));
    let data: serde_json::Value = serde_json::from_str(data).unwrap();
    let value = data["hosts"][0]["facts"].to_string();
    assert!(value.contains("onerror"), "{value}");
    assert!(HOSTILE.contains("onerror"));
}

#[test]
fn a_night_of_hundreds_of_hosts_fits_into_one_page() {
    let size = Size { hosts: 300, fillers: 60, ..Size::LARGE };
    let run = synthetic::run(size);
    let catalogue = synthetic::catalogue(size);
    let view = View::new(&run, &catalogue, at());
    assert_eq!(view.cells.len(), 27_300);
    let files = abicus::render::render_view(&view).unwrap();
    let html = file(&files, "index.html");
    assert!(html.len() < 2_000_000, "{} bytes", html.len());
    assert!(html.matches("<td").count() < 5_000, "a table cell per result");
    assert!(file(&files, "summary.md").len() <= 60_000);
    assert!(file(&files, "junit.xml").matches('<').count() < 10_000);
    // A row per vector, and the sum of the cells they stand for is every cell that delivered something.
    let matrix = file(&files, "matrix.csv");
    let mut reader = csv::Reader::from_reader(matrix.as_bytes());
    let stands_for: Vec<usize> = reader.records().map(|record| record.unwrap()[5].parse().unwrap()).collect();
    assert!(stands_for.len() * 5 < 27_300, "{} rows", stands_for.len());
    assert_eq!(stands_for.iter().sum::<usize>(), 27_300);
    assert_eq!(file(&files, "cells.csv").lines().count(), 27_301);
}

/// A matrix may leave out most of what it could have; that makes no very large run of it, whose sheets leave out what passes.
#[test]
fn cells_that_are_left_out_do_not_cost_the_others_what_passes() {
    use abicus::store::{CellRecord, State};
    let size = Size { fillers: 1000, ..Size::TINY };
    let files = rendered(size, |run| {
        for n in 0..2000 {
            let cell: abicus::id::CellId = format!("left-out-{n}:docker:debian-12").parse().unwrap();
            run.info.cells.push((cell.clone(), abicus::plan::Role::Cell));
            let state = State::Skipped { reason: "excluded: seen elsewhere".to_owned() };
            run.cells
                .insert(cell.clone(), CellRecord { cell, role: abicus::plan::Role::Cell, state, attempts: vec![] });
        }
    });
    assert!(file(&files, "results.csv").lines().any(|line| line.contains(",pass,")));
}

/// A dead switch is one thing to mend, however many hosts are behind it and whatever each is called.
#[test]
fn three_hundred_hosts_out_of_reach_are_one_outage() {
    use abicus::fault::{Fault, Phase};
    use abicus::store::{CellRecord, State};
    let mut run = synthetic::run(Size::SMALL);
    for n in 0..300 {
        let cell: abicus::id::CellId = format!("row{}-{n}:docker:debian-12", n % 7).parse().unwrap();
        let reached = match n % 3 {
            0 => format!("row{}-{n}", n % 7),
            1 => format!("probe@node{n}.example.org"),
            _ => format!("node{n}"),
        };
        let cause = format!("connect to host 10.1.{}.1 port 22: No route to host", n % 250);
        let hint = format!("is {reached} switched on, and is the network in between?");
        let fault = Fault::new(Phase::Host, format!("{reached}: ssh: {cause}")).hint(hint);
        run.info.cells.push((cell.clone(), abicus::plan::Role::Cell));
        let record = CellRecord {
            cell: cell.clone(),
            role: abicus::plan::Role::Cell,
            state: State::Broken { fault },
            attempts: vec![],
        };
        run.cells.insert(cell, record);
    }
    let catalogue = synthetic::catalogue(Size::SMALL);
    let view = View::new(&run, &catalogue, at());
    let mine: Vec<_> = abicus::render::not_run(&view).into_iter().filter(|o| o.reason.contains("No route")).collect();
    assert_eq!(mine.len(), 1, "{:#?}", mine.iter().map(|outage| &outage.reason).collect::<Vec<_>>());
    assert_eq!(mine[0].cells.len(), 300);
    assert_eq!(mine[0].reason, "host: …: ssh: connect to host ….….….… port …: No route to host");
    assert_eq!(mine[0].hint.as_deref(), Some("is … switched on, and is the network in between?"));
    // Another trouble of one of them is another outage.
    let refused = Fault::new(Phase::Host, "node2: nothing listens there: connection refused");
    let cell: abicus::id::CellId = "row2-2:docker:debian-12".parse().unwrap();
    run.cells.get_mut(&cell).unwrap().state = State::Broken { fault: refused };
    let view = View::new(&run, &catalogue, at());
    let hosts = abicus::render::not_run(&view).into_iter().filter(|outage| outage.reason.starts_with("host: ")).count();
    assert_eq!(hosts, 2);
}

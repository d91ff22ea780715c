//! Controls of real cells: hosts that are alike share the one without policy, and one that did not run is named with its reason.
//! Needs root and the fixtures.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a broken fixture has to stop the test")]

use std::path::Path;
use std::process::Command;

use abicus::plan::Role;
use abicus::store::{self, Run, State};
use serde_json::Value;

fn matrix() -> String {
    let fixtures =
        std::env::var("ABICUS_FIXTURES").expect("ABICUS_FIXTURES names the test root file systems: run ci/test");
    format!(
        r#"
        host = [{{ name = "one" }}, {{ name = "other" }}]
        image = [{{ name = "small", rootfs = "{fixtures}/musl" }}]
        engine = [{{ name = "strict", kind = "built-in", options = {{ capabilities = {{ drop = ["CHOWN"] }} }} }}]
        "#
    )
}

fn abicus(dir: &Path, arguments: &[&str]) -> Vec<u8> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_abicus"));
    let output = command.current_dir(dir).env("ABICUS_CACHE", dir.join("cache")).args(arguments).output().unwrap();
    assert!(matches!(output.status.code(), Some(0 | 1)), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// Hosts on which the control of an image ran, and the reasons of those on which it did not.
fn ran(run: &Run, image: &str) -> (Vec<String>, Vec<String>) {
    let controls = run.cells.values().filter(|record| record.role == Role::ControlNoPolicy);
    let (mut hosts, mut reasons) = (vec![], vec![]);
    for record in controls.filter(|record| record.cell.image.as_str() == image) {
        match &record.state {
            State::Ran { .. } => hosts.push(record.cell.host.to_string()),
            State::Skipped { reason } => reasons.push(reason.clone()),
            State::Broken { fault } => panic!("{}: {fault}", record.cell),
        }
    }
    (hosts, reasons)
}

/// Leaves a run as a driver does that died before it wrote down the cells of which the journal says this.
fn cut_off_before(run: &Path, says: &str) {
    let journal = run.join("journal.jsonl");
    let lines = std::fs::read_to_string(&journal).unwrap();
    let (gone, kept): (Vec<&str>, Vec<&str>) = lines.lines().partition(|line| line.contains(says));
    assert_eq!(gone.len(), 2, "{lines}");
    std::fs::write(&journal, kept.join("\n") + "\n").unwrap();
    let info = run.join("run.json");
    let mut told: Value = serde_json::from_slice(&std::fs::read(&info).unwrap()).unwrap();
    told.as_object_mut().unwrap().remove("finished");
    std::fs::write(&info, told.to_string()).unwrap();
}

#[test]
fn a_control_of_one_host_explains_cells_of_all_that_are_like_it() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    std::fs::write(dir.join("matrix.toml"), matrix()).unwrap();
    abicus(dir, &["run", "--quiet"]);
    let place = std::fs::read_dir(dir.join("reports")).unwrap().next().unwrap().unwrap().path();
    let shared = || -> Vec<String> {
        let run = store::load(&place).unwrap();
        for image in ["small", "control.scratch"] {
            let (hosts, reasons) = ran(&run, image);
            assert_eq!((hosts.len(), reasons.len()), (1, 1), "{image}: {hosts:?} {reasons:?}");
            assert!(reasons[0].ends_with(&format!("ran on {}", hosts[0])), "{reasons:?}");
        }
        ran(&run, "small").0
    };
    let hosts = shared();
    cut_off_before(&place, "hosts of a class share this control");
    abicus(dir, &["run", "--quiet", "--resume"]);
    assert_eq!(shared(), hosts, "a resumed run knows where the control ran");
    for host in ["one", "other"] {
        let told = abicus(dir, &["explain", &format!("{host}:strict:small"), "cap.chown", "--format", "json"]);
        let told: Value = serde_json::from_slice(&told).unwrap();
        let check = &told["checks"][0];
        assert_eq!(check["layers"], serde_json::json!(["engine"]), "{told:#}");
        let control = check["controls"].as_array().unwrap().iter().find(|control| control["place"] == "no policy");
        let control = control.unwrap_or_else(|| panic!("no control without policy for {host}: {told:#}"));
        assert_eq!(control["cell"], format!("{}:control.no-policy:small", hosts[0]));
        let named = control["says"].as_str().unwrap().contains(&format!("(on {})", hosts[0]));
        assert_eq!(named, host != hosts[0], "{control:#}");
    }
}

#[test]
fn a_control_that_did_not_run_is_named_with_its_reason() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let left_out = r#"
        [[image]]
        name = "nothing"
        scratch = true
        [[exclude]]
        cells = "*:strict:nothing"
        reason = "we have no time"
    "#;
    let fixtures = std::env::var("ABICUS_FIXTURES").unwrap();
    let text = format!(
        r#"
        [[host]]
        name = "one"
        [[engine]]
        name = "strict"
        kind = "built-in"
        options = {{ capabilities = {{ drop = ["CHOWN"] }} }}
        [[image]]
        name = "small"
        rootfs = "{fixtures}/musl"
        {left_out}"#
    );
    std::fs::write(dir.join("matrix.toml"), text).unwrap();
    abicus(dir, &["run", "--quiet"]);
    let told = abicus(dir, &["explain", "one:strict:small", "cap.chown", "--format", "json"]);
    let told: Value = serde_json::from_slice(&told).unwrap();
    let check = &told["checks"][0];
    assert_eq!(check["layers"], serde_json::json!(["engine", "engine-image"]), "{told:#}");
    let why = "control scratch image (one:strict:nothing) did not run: excluded: we have no time";
    assert_eq!(check["unanswered"], serde_json::json!([why]));
    let words = String::from_utf8(abicus(dir, &["explain", "one:strict:small", "cap.chown"])).unwrap();
    assert!(words.contains(&format!("not narrower {why}")), "{words}");
    // The report says it of the finding, too.
    let report: Value = serde_json::from_slice(&abicus(dir, &["report", "--format", "json"])).unwrap();
    let findings = report["findings"].as_array().unwrap();
    let of = |finding: &&Value| finding["checks"].as_array().unwrap().contains(&"cap.chown".into());
    let finding = findings.iter().find(of).unwrap_or_else(|| panic!("{findings:#?}"));
    assert_eq!(finding["layer"], "engine or engine × image");
    assert_eq!(finding["unanswered"], serde_json::json!([why]));
}

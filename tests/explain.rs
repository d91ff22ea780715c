//! `abicus explain` and `abicus waive` over a run with a planted cause, under every engine whose command line can be given:
//! the line is run and has to show what the run saw. Needs root, docker, podman with runc, and the musl fixture.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a broken fixture has to stop the test")]

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

const CHECK: &str = "syscall.mbind";

/// One call refused, all else allowed.
const PROFILE: &str = r#"{"defaultAction": "SCMP_ACT_ALLOW",
    "syscalls": [{"names": ["mbind"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1}]}"#;

fn fixtures() -> String {
    std::env::var("ABICUS_FIXTURES").expect("ABICUS_FIXTURES names the test root file systems: run ci/test")
}

fn matrix() -> String {
    let mut text = format!(
        "# kept\n[matrix]\nname = \"explain\"\n\n[[host]]\nname = \"local\"\n\n[[image]]\nname = \"explained\"\nrootfs = \"{}/musl\"\n",
        fixtures()
    );
    text += "\n[[engine]]\nname = \"native\"\nkind = \"native\"\n";
    for (name, more) in [("built-in", ""), ("docker", ""), ("podman", "runtime = \"runc\"\n")] {
        text += &format!(
            "\n[[engine]]\nname = \"{name}\"\nkind = \"{name}\"\n{more}options = {{ seccomp = \"refuses.json\" }}\n"
        );
    }
    text
}

fn abicus(dir: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_abicus"));
    command.current_dir(dir).env("ABICUS_CACHE", dir.join("cache")).args(arguments).output().unwrap()
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn explained(dir: &Path, cell: &str) -> Value {
    let output = abicus(dir, &["explain", cell, CHECK, "--format", "json"]);
    assert!(output.status.success(), "{}", text(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// What the probe's own line says of the check when the words are run.
fn by_hand(dir: &Path, words: &Value) -> Value {
    let words: Vec<&str> = words.as_array().unwrap().iter().map(|word| word.as_str().unwrap()).collect();
    let output = Command::new(words[0]).current_dir(dir).args(&words[1..]).output().unwrap();
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = out.lines().find(|line| line.contains(&format!("\"check\":\"{CHECK}\"")));
    let line = line.unwrap_or_else(|| panic!("{words:?}: no line of {CHECK}: {}", text(&output)));
    serde_json::from_str(line).unwrap()
}

/// The id of the run that `last` is.
fn said_run(dir: &Path) -> String {
    let runs = std::fs::read_dir(dir.join("reports")).unwrap().map(|entry| entry.unwrap().file_name());
    runs.map(|name| name.into_string().unwrap()).max().unwrap()
}

/// A second run in which the filter lets the call through, and controls are left out: the first is its baseline.
fn compared(dir: &Path, first: &str) {
    let cell = "local:docker:explained";
    std::fs::write(dir.join("refuses.json"), PROFILE.replace("mbind", "move_pages")).unwrap();
    let run = abicus(dir, &["run", "--quiet", "--no-controls", "--cells", cell]);
    assert!(run.status.success(), "{}", text(&run));
    let told = abicus(dir, &["explain", cell, CHECK, "--baseline", first, "--format", "json"]);
    let told: Value = serde_json::from_slice(&told.stdout).unwrap_or_else(|_| panic!("{}", text(&told)));
    let check = &told["checks"][0];
    assert!(check["says"].as_str().unwrap().starts_with("pass: "), "{told:#}");
    let baseline = &check["baseline"];
    assert_eq!(baseline["place"], format!("baseline {first}"));
    assert_eq!(baseline["cell"], cell);
    assert!(baseline["says"].as_str().unwrap().contains("EPERM by the seccomp filter"), "{baseline:#}");
    // What fails here has no control that could tell whose it is, and that is said.
    let moved = abicus(dir, &["explain", cell, "syscall.move_pages", "--format", "json"]);
    let moved: Value = serde_json::from_slice(&moved.stdout).unwrap();
    assert_eq!(moved["checks"][0]["unanswered"], serde_json::json!(["the run had no control cells"]), "{moved:#}");
    // The first run is the last again.
    let second = said_run(dir);
    assert_ne!(second, first);
    std::fs::remove_dir_all(dir.join("reports").join(second)).unwrap();
    std::fs::write(dir.join("refuses.json"), PROFILE).unwrap();
}

#[test]
fn a_failure_is_explained_can_be_seen_by_hand_and_waived() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    std::fs::write(dir.join("matrix.toml"), matrix()).unwrap();
    std::fs::write(dir.join("refuses.json"), PROFILE).unwrap();
    let run = abicus(dir, &["run", "--quiet"]);
    assert!(run.status.success(), "mbind is of requirement may: {}", text(&run));

    for engine in ["built-in", "docker", "podman"] {
        let told = explained(dir, &format!("local:{engine}:explained"));
        let check = &told["checks"][0];
        assert_eq!(check["layers"], serde_json::json!(["engine"]), "{told:#}");
        assert_eq!(check["mechanism"]["id"], "seccomp-rule", "{told:#}");
        assert!(check["known"].to_string().contains("numa-mempolicy"), "{told:#}");
        assert_eq!(check["controls"].as_array().unwrap().len(), 3, "{told:#}");
        let seen = by_hand(dir, &told["by_hand"]);
        assert_eq!((&seen["saw"], &seen["errno"], &seen["filter"]), (&"errno".into(), &1.into(), &"errno 1".into()));
    }
    let native = explained(dir, "local:native:-");
    assert_eq!(native["checks"][0]["layers"], serde_json::json!([]));
    assert_eq!(by_hand(dir, &native["by_hand"])["filter"], "allow");

    // What differs from it in one thing only, and passes.
    let told = explained(dir, "local:docker:explained");
    let near = told["checks"][0]["neighbours"].as_array().unwrap();
    let places: Vec<&str> = near.iter().map(|cell| cell["place"].as_str().unwrap()).collect();
    assert!(places.contains(&"local:built-in:explained") && places.contains(&"local:podman:explained"), "{places:?}");
    assert!(near.iter().all(|cell| cell["says"].as_str().unwrap().starts_with("fail: ")), "{near:?}");
    assert_eq!(told["checks"][0]["unanswered"], serde_json::json!([]), "every control answered: {told:#}");

    let said = text(&abicus(dir, &["explain", "local:docker:explained", CHECK]));
    for words in
        ["layer        engine, because", "seccomp-rule: the seccomp filter answers EPERM to mbind", "docker run --rm"]
    {
        assert!(said.contains(words), "no {words:?} in\n{said}");
    }
    let wrong = abicus(dir, &["explain", "local:docker:explainde"]);
    assert!(text(&wrong).contains("did you mean `local:docker:explained`?"), "{}", text(&wrong));

    let first = said_run(dir);
    compared(dir, &first);

    let waive = |what: &[&str]| {
        let arguments = [&["waive"], what, &["--reason", "known", "--until", "2999-12-31"]].concat();
        abicus(dir, &arguments)
    };
    let finding = explained(dir, "local:docker:explained")["checks"][0]["finding"].as_str().unwrap().to_owned();
    let waived = waive(&[&finding, CHECK]);
    assert!(waived.status.success(), "{}", text(&waived));
    let now = std::fs::read_to_string(dir.join("matrix.toml")).unwrap();
    assert!(now.starts_with("# kept\n") && now.contains("until = 2999-12-31"), "{now}");
    let report = abicus(dir, &["report", "--matrix", "matrix.toml", "--format", "json"]);
    let report: Value = serde_json::from_slice(&report.stdout).unwrap();
    assert_eq!(report["waivers"][0]["fate"], "used", "{:#}", report["waivers"]);
    let waived: u64 = report["cells"].as_array().unwrap().iter().map(|cell| cell["waived"].as_u64().unwrap()).sum();
    assert_eq!(waived, 3);
    assert!(text(&waive(&["f-00000000"])).contains("neither a cell nor a finding"));
    assert!(text(&waive(&["local:native:-"])).contains("no check of requirement must or should fails"));

    // What the run imported into engines of this machine goes again, and nothing that others use.
    for engine in ["docker", "podman"] {
        let words = explained(dir, &format!("local:{engine}:explained"))["by_hand"].clone();
        let is_ours = |word: &&Value| word.as_str().unwrap().starts_with("abicus-cache/explained:");
        let name = words.as_array().unwrap().iter().find(is_ours).unwrap().as_str().unwrap().to_owned();
        let removed = Command::new(engine).args(["rmi", &name]).output().unwrap();
        assert!(removed.status.success(), "{}", text(&removed));
    }
}

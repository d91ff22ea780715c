//! What each command does, through the binary, on a scripted matrix: what it prints for people and for programs, what it
//! writes, and how it ends.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

const MATRIX: &str = r#"
[matrix]
name = "small"
[[host]]
name = "local"
[[engine]]
name = "played"
kind = "scripted"
script = "script.toml"
[[engine]]
name = "other"
kind = "scripted"
script = "script.toml"
[[image]]
name = "one"
scratch = true
[[image]]
name = "two"
scratch = true
[[exclude]]
cells = "*:other:two"
reason = "not in production"
"#;

const GOOD: &str = concat!(
    r#"{"abicus":1,"probe":"kernel","version":"0","arch":"x86_64","planned":1}"#,
    "\n",
    r#"{"check":"dev.null.discard","saw":"ok"}"#,
    "\n",
    r#"{"end":"kernel","reported":1}"#,
    "\n"
);

/// A directory with a matrix, its script and a capture.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        place.write("matrix.toml", MATRIX);
        place.write("good.jsonl", GOOD);
        place.play("[[play]]\nstdout = \"good.jsonl\"\n");
        place
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path().join(name), text).unwrap();
    }

    fn play(&self, script: &str) {
        self.write("script.toml", script);
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_abicus"));
        command.args(arguments).current_dir(self.path()).env("ABICUS_CACHE", self.path().join("cache"));
        command
    }

    fn abicus(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// What it prints; it has to end with this status.
    fn says(&self, status: i32, arguments: &[&str]) -> String {
        let output = self.abicus(arguments);
        assert_eq!(output.status.code(), Some(status), "{arguments:?}: {}", text(&output.stderr));
        text(&output.stdout)
    }

    fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.says(0, arguments)).unwrap()
    }

    fn only_run(&self) -> PathBuf {
        let mut runs = std::fs::read_dir(self.path().join("reports")).unwrap();
        let run = runs.next().unwrap().unwrap().path();
        assert!(runs.next().is_none(), "more than one run");
        run
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The cells of `plan --format json`, those of one kind.
fn planned(plan: &Value, controls: bool) -> Vec<String> {
    let cells = plan["cells"].as_array().unwrap().iter();
    let wanted = cells.filter(|cell| (cell["role"] != "cell") == controls);
    wanted.map(|cell| cell["cell"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn plan_lists_cells_controls_and_why_others_are_left_out() {
    let place = Place::new();
    let plan = place.json(&["plan", "--format", "json"]);
    assert_eq!(planned(&plan, false), ["local:played:one", "local:played:two", "local:other:one"]);
    assert_eq!(
        planned(&plan, true),
        ["local:control.native:-", "local:control.no-policy:one", "local:control.no-policy:two"]
    );
    assert_eq!(plan["skips"][0]["cell"], "local:other:two");
    assert_eq!(plan["skips"][0]["reason"], "excluded: not in production");
    let table = place.says(0, &["plan"]);
    for words in ["local:other:two", "excluded: not in production", "control: no engine policy", "3 cells, 3 control"] {
        assert!(table.contains(words), "no `{words}` in\n{table}");
    }
    assert!(!place.path().join("reports").exists(), "plan ran something");
}

#[test]
fn cells_are_selected_by_glob_and_by_each_axis() {
    let place = Place::new();
    let cases: [(&[&str], &[&str]); 5] = [
        (&["--cells", "local:play*:t*"], &["local:played:two"]),
        (&["--cells", "*:played:one", "--cells", "*:other:*"], &["local:played:one", "local:other:one"]),
        (&["--engine", "other"], &["local:other:one"]),
        (&["--image", "one"], &["local:played:one", "local:other:one"]),
        (&["--host", "loc*", "--image", "two"], &["local:played:two"]),
    ];
    for (selection, cells) in cases {
        let arguments = [&["plan", "--format", "json", "--no-controls"], selection].concat();
        assert_eq!(planned(&place.json(&arguments), false), *cells, "{selection:?}");
        let run = [&["run", "--no-controls", "--quiet"], selection].concat();
        place.says(0, &run);
        let kept = std::fs::read_to_string(place.only_run().join("cells.csv")).unwrap();
        assert!(cells.iter().all(|cell| kept.contains(cell)), "{selection:?}: {kept}");
        assert_eq!(kept.matches(",cell,pass,").count(), cells.len(), "{selection:?}: {kept}");
        std::fs::remove_dir_all(place.path().join("reports")).unwrap();
    }
}

#[test]
fn a_run_is_listed_and_rendered_again_elsewhere() {
    let place = Place::new();
    assert_eq!(place.json(&["list", "--format", "json"]), Value::Array(vec![]));
    place.says(0, &["run", "--no-controls", "--quiet"]);
    let run = place.only_run();
    let listed = place.json(&["list", "--format", "json"]);
    assert_eq!(
        (&listed[0]["state"], &listed[0]["name"], &listed[0]["cells"]),
        (&"finished".into(), &"small".into(), &3.into())
    );
    assert!(place.says(0, &["list"]).contains(run.file_name().unwrap().to_str().unwrap()));
    place.says(0, &["report", "--output", "again"]);
    // The page says when it was made.
    let read = |path: &Path| {
        let text = std::fs::read_to_string(path).unwrap();
        text.lines().filter(|line| !line.contains("Rendered ")).collect::<Vec<_>>().join("\n")
    };
    for file in ["index.html", "cells.csv", "results.csv", "matrix.csv", "junit.xml", "summary.md"] {
        let (first, again) = (read(&run.join(file)), read(&place.path().join("again").join(file)));
        assert!(!first.is_empty() && first == again, "{file} differs when rendered again");
    }
}

#[test]
fn quiet_says_what_matters_and_json_is_one_object_a_line() {
    let place = Place::new();
    let quiet = place.abicus(&["run", "--no-controls", "--quiet"]);
    assert_eq!(text(&quiet.stderr), "", "nothing was wrong");
    let events = place.says(0, &["run", "--no-controls", "--json"]);
    let events: Vec<Value> = events.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let kinds: Vec<&str> = events.iter().map(|event| event["event"].as_str().unwrap()).collect();
    assert_eq!((kinds[0], *kinds.last().unwrap()), ("planned", "finished"));
    assert_eq!(kinds.iter().filter(|kind| **kind == "cell-done").count(), 3);
}

#[test]
fn cells_run_at_the_same_time_up_to_the_limit() {
    let place = Place::new();
    place.play("[[play]]\nstdout = \"good.jsonl\"\ndelay_ms = 200\n");
    let most = |arguments: &[&str]| {
        let output = place.says(0, &[&["run", "--no-controls", "--json"], arguments].concat());
        let (mut running, mut most) = (0_i32, 0);
        for line in output.lines() {
            let event: Value = serde_json::from_str(line).unwrap();
            match event["event"].as_str().unwrap() {
                "cell-started" => running += 1,
                "cell-done" if event["state"] == "ran" || event["record"]["state"] == "ran" => running -= 1,
                _ => {}
            }
            most = most.max(running);
        }
        most
    };
    assert_eq!(most(&["-j", "1"]), 1);
    assert_eq!(most(&["-j", "2"]), 2);
    assert_eq!(most(&["-j", "3"]), 3);
    place.write("matrix.toml", &MATRIX.replace("name = \"local\"", "name = \"local\"\nparallel = 3"));
    assert_eq!(most(&["-j", "1"]), 1, "the command line is asked before the matrix");
    place.write("matrix.toml", &MATRIX.replace("name = \"played\"", "name = \"played\"\nparallel = 1"));
    assert_eq!(most(&["-j", "3"]), 2, "one of the engine that has a limit, one of the other");
}

/// Starts a run that hangs in its second cell and waits until the first is done.
fn hanging(place: &Place, arguments: &[&str]) -> std::process::Child {
    place.play("[[play]]\nimage = \"one\"\nstdout = \"good.jsonl\"\n[[play]]\nhang = true\n");
    let mut child = place.command(arguments).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.as_mut().unwrap()));
    assert!(lines.any(|line| line.unwrap().contains("\"cell-done\"")));
    child
}

#[test]
fn a_run_whose_driver_was_killed_goes_on_from_another_directory_with_what_it_was_asked() {
    let place = Place::new();
    std::fs::create_dir(place.path().join("sub")).unwrap();
    for file in ["matrix.toml", "good.jsonl", "script.toml"] {
        std::fs::rename(place.path().join(file), place.path().join("sub").join(file)).unwrap();
    }
    place.write("good.jsonl", "");
    let sub = Place(tempfile::tempdir_in(place.path()).unwrap());
    let script = |text: &str| std::fs::write(place.path().join("sub/script.toml"), text).unwrap();
    script("[[play]]\nimage = \"one\"\nstdout = \"good.jsonl\"\n[[play]]\nhang = true\n");
    let mut child = place
        .command(&["run", "--matrix", "sub/matrix.toml", "--no-controls", "--json", "-j", "2"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.as_mut().unwrap()));
    assert!(lines.any(|line| line.unwrap().contains("\"cell-done\"")));
    let reports = place.path().join("reports");
    let reports = reports.to_str().unwrap();

    let busy = sub.abicus(&["run", "--resume", "--reports", reports]);
    assert_eq!(busy.status.code(), Some(2), "two drivers wrote to one run");
    assert!(text(&busy.stderr).contains("still going on"), "{}", text(&busy.stderr));

    child.kill().unwrap();
    child.wait().unwrap();
    let journal = place.only_run().join("journal.jsonl");
    // As a driver leaves it that dies while it writes.
    std::fs::write(&journal, text(&std::fs::read(&journal).unwrap()) + "{\"entry\":\"ce").unwrap();
    script("[[play]]\nstdout = \"good.jsonl\"\n");
    let resumed = sub.abicus(&["run", "--resume", "--reports", reports]);
    assert_eq!(resumed.status.code(), Some(0), "{}", text(&resumed.stderr));
    let cells = std::fs::read_to_string(place.only_run().join("cells.csv")).unwrap();
    assert_eq!(cells.matches(",cell,pass,").count(), 3, "{cells}");
    let info: Value = serde_json::from_slice(&std::fs::read(place.only_run().join("run.json")).unwrap()).unwrap();
    assert_eq!((&info["parallel"], info["finished"].is_string()), (&2.into(), true));
}

#[test]
fn a_run_of_a_newer_abicus_and_a_broken_line_are_refused_by_name() {
    let place = Place::new();
    place.says(0, &["run", "--no-controls", "--quiet"]);
    let path = place.only_run().join("run.json");
    let info = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, info.replace("\"format\": 1", "\"format\": 99")).unwrap();
    let output = place.abicus(&["report", place.only_run().to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        text(&output.stderr).contains("format 99") && text(&output.stderr).contains("newer abicus"),
        "{}",
        text(&output.stderr)
    );
    std::fs::write(&path, info).unwrap();
    let journal = place.only_run().join("journal.jsonl");
    std::fs::write(&journal, "{\"entry\":\"cell\"}\n".to_owned() + &std::fs::read_to_string(&journal).unwrap())
        .unwrap();
    let output = place.abicus(&["report", place.only_run().to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("journal.jsonl:1:"), "{}", text(&output.stderr));
}

#[test]
fn an_interrupted_run_says_how_to_go_on_where_its_reports_are() {
    let place = Place::new();
    let child = hanging(&place, &["run", "--no-controls", "--json", "--reports", "elsewhere"]);
    Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    assert_eq!(child.wait_with_output().unwrap().status.code(), Some(130));
    place.play("[[play]]\nstdout = \"good.jsonl\"\n");
    place.says(0, &["run", "--resume", "--reports", "elsewhere"]);
}

#[test]
fn init_writes_a_matrix_that_plans_and_says_what_it_left_out() {
    let place = Place::new();
    let said = place.says(0, &["init", "--output", "new.toml"]);
    assert!(said.contains("native, built-in"), "{said}");
    let plan = place.json(&["plan", "--matrix", "new.toml", "--format", "json"]);
    let cells = planned(&plan, false);
    assert!(cells.contains(&"local:native:-".to_owned()) && cells.contains(&"local:built-in:scratch".to_owned()));
}

#[test]
fn probe_asks_here_what_it_is_asked_to() {
    let place = Place::new();
    let raw = place.says(0, &["probe", "--raw", "--only", "dev.null."]);
    let lines: Vec<Value> = raw.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let checks: Vec<&str> = lines.iter().filter_map(|line| line["check"].as_str()).collect();
    assert!(!checks.is_empty() && checks.iter().all(|check| check.starts_with("dev.null.")), "{checks:?}");
    assert!(place.says(0, &["probe", "--all", "--only", "dev.null."]).contains("dev.null.discard"));
}

#[test]
fn completions_and_the_man_page_name_every_command() {
    let place = Place::new();
    let commands = ["plan", "run", "report", "list", "probe", "doctor", "sweep", "init", "explain", "waive", "vm"];
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = place.says(0, &["completions", shell]);
        for command in commands {
            assert!(script.contains(command), "{shell} does not complete {command}");
        }
    }
    let man = place.says(0, &["man"]);
    for command in commands {
        assert!(man.contains(&format!("abicus\\-{command}")), "the man page does not name {command}");
    }
}

/// The bars on a real terminal: how far it is, which cell runs, how long it takes; and nothing of them stays behind.
#[test]
fn a_terminal_shows_bars_while_it_runs_and_a_summary_afterwards() {
    let place = Place::new();
    place.play("[[play]]\nstdout = \"good.jsonl\"\ndelay_ms = 1500\n");
    let socket = place.path().join("tmux");
    let tmux = |arguments: &[&str]| {
        let output = Command::new("tmux").arg("-S").arg(&socket).args(arguments).output().unwrap();
        assert!(output.status.success(), "tmux {arguments:?}: {}", text(&output.stderr));
        text(&output.stdout)
    };
    let shell = format!(
        "cd {}; ABICUS_CACHE=cache {} run --no-controls -j 1; echo status $?; sleep 30",
        place.path().display(),
        env!("CARGO_BIN_EXE_abicus")
    );
    tmux(&["-f", "/dev/null", "new-session", "-d", "-x", "120", "-y", "40", "sh", "-c", &shell]);
    let until = |wanted: &dyn Fn(&str) -> bool| {
        for _ in 0..200 {
            let screen = tmux(&["capture-pane", "-p"]);
            if wanted(&screen) {
                return screen;
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        panic!("never seen on the screen:\n{}", tmux(&["capture-pane", "-p"]));
    };
    let bars = until(&|screen| screen.contains(" s left") && screen.contains(" local:"));
    assert!(bars.contains("cells") && bars.contains('━') && bars.contains("/3"), "{bars}");
    let after = until(&|screen| screen.contains("status "));
    tmux(&["kill-server"]);
    assert!(after.contains("status 0") && after.contains("report: ") && after.contains("● pass"), "{after}");
    assert!(!after.contains(" s left") && !after.contains('━'), "bars stayed behind:\n{after}");
}

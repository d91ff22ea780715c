//! Hosts that are not typed in: what a run keeps of a list, and labels as selection, column and word of rules.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod host_support;

use std::fs;

use host_support::Desk;

const MATRIX: &str = "include = 'hosts.d/*.toml'\n[[engine]]\nname = 'native'\nkind = 'native'\n\
    [[hosts]]\nansible = 'inventory.ini'\npattern = 'web'\nlabels = { site = 'lab' }\n";

fn desk() -> Desk {
    let desk = Desk::new();
    desk.write("matrix.toml", MATRIX);
    desk.write("hosts.d/one.toml", "[[host]]\nname = 'typed'\nlabels = { site = 'office' }\n");
    desk.write("inventory.ini", "[web]\nweb[1:2] ansible_connection=local\n[db]\ndb1 ansible_connection=local\n");
    desk
}

#[test]
fn a_run_keeps_the_hosts_it_found_and_their_labels() {
    let desk = desk();
    let (output, cells) = desk.run(&["--label", "site=lab", "--quiet"]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(cells.keys().collect::<Vec<_>>(), ["web1:native:-", "web2:native:-"]);
    let row = &cells["web1:native:-"];
    assert_eq!((row["host.label.site"].as_str(), row["host.label.group.web"].as_str()), ("lab", "yes"));
    // What the lists say now is not what they said then.
    fs::remove_file(desk.path("inventory.ini")).unwrap();
    fs::remove_dir_all(desk.path("hosts.d")).unwrap();
    for arguments in [&["report"][..], &["explain", "web1:native:-", "syscall.getpid"]] {
        let output = desk.command(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    assert_eq!(desk.cells(), cells);
    let output = desk.command(&["run"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(2) && said.contains("inventory.ini"), "{said}");
}

#[test]
fn a_run_that_was_cut_off_goes_on_with_the_hosts_it_began_with() {
    let desk = desk();
    let (output, _) = desk.run(&["--quiet"]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    // As a run looks whose driver was killed.
    let run = fs::read_dir(desk.path("reports")).unwrap().map(|entry| entry.unwrap().path());
    let run = run.filter(|path| path.is_dir()).max().unwrap();
    let mut info: serde_json::Value = serde_json::from_str(&fs::read_to_string(run.join("run.json")).unwrap()).unwrap();
    info["finished"] = serde_json::Value::Null;
    fs::write(run.join("run.json"), info.to_string()).unwrap();
    let journal = fs::read_to_string(run.join("journal.jsonl")).unwrap();
    let kept = journal.lines().filter(|line| !line.contains("\"web2:native:-\"")).map(|line| format!("{line}\n"));
    fs::write(run.join("journal.jsonl"), kept.collect::<String>()).unwrap();
    desk.write("inventory.ini", "[web]\nother ansible_connection=local\n");
    let output = desk.command(&["run", "--resume", "--quiet"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let cells = desk.cells();
    assert_eq!(cells.keys().collect::<Vec<_>>(), ["typed:native:-", "web1:native:-", "web2:native:-"]);
    assert!(cells.values().all(|cell| cell["verdict"] == "pass"), "{cells:?}");
}

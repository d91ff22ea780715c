//! What `ci/fleet` refuses: a run whose cells did not all run, and one that does not show what it has to.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::process::Command;

const CELLS: &str = "cell,role,verdict,reason,fault\n";
const RESULTS: &str = "host,engine,image,role,check,outcome,saw,value\n";
const GOOD: &str = "old:native:-,cell,degraded,,\nnew:native:-,cell,pass,,\nnew:runc:a,cell,skip,excluded: \"x, y\",\n";

/// Runs ci/fleet.awk; whether it is content, and all it said.
fn judged(cells: &str, results: &str) -> (bool, String) {
    let dir = tempfile::tempdir().unwrap();
    let files = [
        ("since", "syscall.mseal\tlinux 6.10\n".to_owned()),
        ("findings", "cpu.level.v2\thost\t|old|\t|native|\t|no image|\n".to_owned()),
        ("pairs", "# a comment\nOnly the kernel\told:native:-\tnew:native:-\n".to_owned()),
        (
            "expected",
            "old:native:-\tcpu\\.level\\.v2\tfail .*\thost\nnew:.*\tsyscall\\.mseal\tpass ok\nno:.*\tx\ty\n".to_owned(),
        ),
        ("cells", format!("{CELLS}{cells}")),
        ("results", format!("{RESULTS}{results}")),
    ];
    let mut command = Command::new("awk");
    command.current_dir(env!("CARGO_MANIFEST_DIR")).args(["-f", "ci/csv.awk", "-f", "ci/fleet.awk"]);
    for (name, text) in files {
        fs::write(dir.path().join(name), text).unwrap();
        command.arg(dir.path().join(name));
    }
    let output = command.output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(said).unwrap())
}

fn results() -> String {
    [
        "old,native,-,cell,cpu.level.v2,fail,value,\"lacks a, b\"",
        "old,native,-,cell,syscall.mseal,pass,errno,ENOSYS",
        "new,native,-,cell,cpu.level.v2,pass,value,yes",
        "new,native,-,cell,syscall.mseal,pass,ok,",
        "",
    ]
    .join("\n")
}

#[test]
fn a_fleet_that_ran_and_shows_what_it_has_to_is_told_as_a_table() {
    let (fine, said) = judged(GOOD, &results());
    assert!(fine, "{said}");
    assert!(said.contains("## Only the kernel"), "{said}");
    assert!(said.contains("| `syscall.mseal` (linux 6.10) | `ENOSYS` | `ok` |"), "{said}");
    assert!(said.contains("| `cpu.level.v2` | `lacks a, b` | `yes` |"), "{said}");
}

#[test]
fn a_cell_that_was_planned_and_did_not_run_is_refused_whatever_it_is_called() {
    for (row, why) in [
        ("new:docker:a,cell,skip,dockerd ended,", "new:docker:a did not run: skip dockerd ended"),
        ("new:docker:a,cell,error,,\"gone, it is\"", "new:docker:a did not run: error gone, it is"),
        ("new:docker:a,cell,miss,,", "new:docker:a did not run: miss"),
        ("new:docker:a,cell,fail,,the probe was killed", "new:docker:a did not run: fail the probe was killed"),
    ] {
        let (fine, said) = judged(&format!("{GOOD}{row}\n"), &results());
        assert!(!fine && said.contains(why), "{row}: {said}");
    }
    let control = format!("{GOOD}new:native:-,control-native,error,,gone\n");
    assert!(judged(&control, &results()).0, "a control that cannot run narrows what is said, no more");
    assert!(judged("", "").1.contains("no cells"));
}

#[test]
fn a_report_that_does_not_show_what_it_has_to_is_refused() {
    for (from, to, why) in [
        ("pass,ok,", "pass,errno,ENOSYS", "new:native:- syscall.mseal is `pass ENOSYS` and not `pass ok`"),
        ("syscall.mseal", "syscall.other", "nothing is known of syscall"),
        ("fail,value", "pass,value", "old:native:- cpu.level.v2 is `pass lacks a, b`"),
    ] {
        let (fine, said) = judged(GOOD, &results().replace(from, to));
        assert!(!fine && said.contains(why), "{to}: {said}");
    }
    let elsewhere =
        results().replace("new,native,-,cell,cpu.level.v2,pass,value,yes", "old,runc,-,cell,cpu.level.v2,fail,value,x");
    let (_, said) = judged(GOOD, &elsewhere.replace("old,native,-,cell,cpu", "old,native,-,cell,gpu"));
    assert!(said.contains("nothing is known of cpu"), "{said}");
}

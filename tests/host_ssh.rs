//! Hosts over SSH: a real sshd on loopback with keys of its own, reached by the user's own ssh. Needs root, since sshd lets
//! only its own user in otherwise; and docker.
#![allow(clippy::unwrap_used, clippy::panic)]

mod host_support;

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use host_support::{Lab, key};

const NATIVE: &str = "[[engine]]\nname = 'native'\nkind = 'native'\n";
const THREE: &str = "[[host]]\nname = 'local'\n\
    [[engine]]\nname = 'native'\nkind = 'native'\n\
    [[engine]]\nname = 'built-in'\nkind = 'built-in'\n\
    [[engine]]\nname = 'docker'\nkind = 'docker'\n";

#[test]
fn cells_over_ssh_are_the_cells_of_here_and_a_dead_host_costs_only_its_own() {
    let lab = Lab::new();
    let before = lab.left();
    lab.matrix(&["box", "dead"], THREE);
    let (output, cells) = lab.run(&["--no-controls"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{said}");
    for engine in ["built-in", "docker"] {
        let (here, there) = (&cells[&format!("local:{engine}:empty")], &cells[&format!("box:{engine}:empty")]);
        assert_eq!((here["verdict"].as_str(), there["verdict"].as_str()), ("pass", "pass"), "{engine}: {said}");
        assert!(!here["vector"].is_empty() && here["vector"] == there["vector"], "{engine} answers differently there");
        let dead = &cells[&format!("dead:{engine}:empty")];
        assert_eq!((dead["verdict"].as_str(), dead["fault_phase"].as_str()), ("error", "host"));
        assert!(dead["fault"].contains("nothing listens there"), "{}", dead["fault"]);
    }
    // Environment and limits of a login are not those of whoever runs the tests.
    assert_eq!(cells["box:native:-"]["verdict"], "pass", "{said}");
    assert_eq!(cells["box:native:-"]["host.kernel.release"], cells["local:native:-"]["host.kernel.release"]);
    lab.assert_nothing_is_left(&before);
}

#[test]
fn a_host_key_that_is_unknown_or_changed_is_refused_and_says_what_to_do() {
    let lab = Lab::new();
    lab.matrix(&["box"], NATIVE);
    for (known, whose, cause, hint) in [
        ("box", "stranger", "its host key is not the one that is known", "ssh-keygen -R"),
        ("other", "host", "its host key is not known", "compare the fingerprint"),
    ] {
        lab.knows(known, whose);
        let (output, cells) = lab.run(&[]);
        let cell = &cells["box:native:-"];
        assert_eq!(output.status.code(), Some(3));
        assert!(cell["fault"].contains(cause) && cell["hint"].contains(hint), "{}: {}", cell["fault"], cell["hint"]);
    }
    lab.knows("box", "host");
    key(&lab.path("other"));
    fs::rename(lab.path("other"), lab.path("user")).unwrap();
    let (_, cells) = lab.run(&[]);
    let cell = &cells["box:native:-"];
    assert!(cell["fault"].contains("lets nobody in") && cell["hint"].contains("ssh-add"), "{}", cell["fault"]);
}

/// Runs the matrix, and ends the connection to its host by force when the cell has begun; the exit code.
fn run_and_cut(lab: &Lab, cell: &str, arguments: &[&str]) -> Option<i32> {
    let mut run = lab.command(&[&["run", "--no-controls", "--json"], arguments].concat());
    let mut child = run.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut events = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
    let begun = events.find(|line| {
        let line = line.as_ref().unwrap();
        line.contains(&format!("\"{cell}\"")) && line.contains("cell-started")
    });
    assert!(begun.is_some(), "no event says that {cell} began");
    // The session of the host is a child of our sshd.
    let sessions = format!("/proc/{}/task/{}/children", lab.sshd.id(), lab.sshd.id());
    let sessions = fs::read_to_string(sessions).unwrap();
    assert!(!sessions.trim().is_empty());
    assert!(Command::new("kill").arg("-9").args(sessions.split_whitespace()).status().unwrap().success());
    events.for_each(drop);
    child.wait().unwrap().code()
}

#[test]
fn a_connection_that_ends_in_the_middle_costs_the_cells_of_its_host() {
    let lab = Lab::new();
    let before = lab.left();
    let engine =
        "[defaults]\nretries = 0\n[[host]]\nname = 'local'\n[[engine]]\nname = 'built-in'\nkind = 'built-in'\n";
    lab.matrix(&["box"], engine);
    assert_eq!(run_and_cut(&lab, "box:built-in:empty", &["--bench"]), Some(3));
    let cells = lab.cells();
    assert_eq!(cells["local:built-in:empty"]["verdict"], "pass");
    let lost = &cells["box:built-in:empty"];
    assert_eq!((lost["verdict"].as_str(), lost["attempts"].as_str()), ("error", "1"), "{lost:?}");
    assert!(lost["fault"].contains("the connection to box is lost"), "{lost:?}");
    lab.assert_nothing_is_left(&before);
}

#[test]
fn a_connection_that_ended_is_made_anew_for_the_next_attempt_and_both_are_kept() {
    let lab = Lab::new();
    let before = lab.left();
    // A tree that is put there goes with the connection.
    fs::create_dir_all(lab.path("tree/bin")).unwrap();
    fs::copy("/bin/busybox", lab.path("tree/bin/busybox")).unwrap();
    let runc = "runtime = 'runc'";
    let engines = [("built-in", ""), ("oci", runc), ("bubblewrap", ""), ("docker", ""), ("podman", runc)];
    let table = |(kind, more): &(&str, &str)| format!("[[engine]]\nname = '{kind}'\nkind = '{kind}'\n{more}\n");
    let tables: String = engines.iter().map(table).collect();
    lab.matrix(&["box"], &format!("{NATIVE}{tables}[[image]]\nname = 'tree'\nrootfs = 'tree'\n"));
    for (engine, image) in [("native", "-")].into_iter().chain(engines.iter().map(|(kind, _)| (*kind, "tree"))) {
        let name = format!("box:{engine}:{image}");
        let code = run_and_cut(&lab, &name, &["--engine", engine, "--image", image]);
        let cells = lab.cells();
        let cell = &cells[&name];
        assert!(matches!(code, Some(0 | 1)), "{engine}: {code:?} {cell:?}");
        assert_eq!((cell["error"].as_str(), cell["attempts"].as_str()), ("0", "2"), "{engine}: {cell:?}");
        let journal = fs::read_to_string(lab.newest_run().join("journal.jsonl")).unwrap();
        let kept =
            journal.lines().find(|line| line.contains("\"attempts\"") && line.contains("the connection to box "));
        assert!(kept.is_some(), "{engine}: {journal}");
        fs::remove_dir_all(lab.path("reports")).unwrap();
    }
    lab.assert_nothing_is_left(&before);
}

/// Lines of JSON of a run, with when they came; the run's exit code.
fn events(lab: &Lab, arguments: &[&str]) -> (Vec<(Duration, serde_json::Value)>, Option<i32>) {
    let began = Instant::now();
    let mut run = lab.command(&[&["run", "--json"], arguments].concat());
    let mut child = run.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
    let events = lines.map(|line| (began.elapsed(), serde_json::from_str(&line.unwrap()).unwrap())).collect();
    (events, child.wait().unwrap().code())
}

/// An image that docker has and no registry.
struct InDocker(&'static str);

impl InDocker {
    fn new(name: &'static str) -> Self {
        let script = format!("tar -c -C /bin busybox | docker import --platform linux/amd64 - {name}");
        assert!(Command::new("sh").args(["-c", &script]).stdout(Stdio::null()).status().unwrap().success());
        Self(name)
    }
}

impl Drop for InDocker {
    fn drop(&mut self) {
        let _ = Command::new("docker").args(["rmi", "--force", self.0]).output();
    }
}

#[test]
fn a_silent_host_is_not_asked_for_an_image_and_one_for_another_architecture_is_not_taken() {
    let lab = Lab::new();
    let name = "127.0.0.1:1/abicus-test/here:1";
    let _image = InDocker::new(name);
    let image = |id: &str, more: &str| format!("[[image]]\nname = '{id}'\nreference = '{name}'\n{more}\n");
    let engines = "[[host]]\nname = 'local'\n[[engine]]\nname = 'built-in'\nkind = 'built-in'\n\
         [[engine]]\nname = 'docker'\nkind = 'docker'\n";
    lab.matrix(&["hole"], &format!("{engines}{}{}", image("here", ""), image("other", "platform = 'linux/386'")));
    let (events, code) = events(&lab, &["--no-controls", "--engine", "built-in"]);
    assert_eq!(code, Some(3));
    let done = |cell: &str| {
        let mut ends = events.iter().filter(|(_, event)| event["event"] == "cell-done");
        ends.find(|(_, event)| event["record"]["cell"] == cell).unwrap_or_else(|| panic!("{cell}: {events:#?}")).0
    };
    let (here, hole) = (done("local:built-in:here"), done("hole:built-in:here"));
    assert!(here + Duration::from_secs(5) < hole, "{here:?}, the silent host {hole:?}");
    let cells = lab.cells();
    assert_eq!(cells["local:built-in:here"]["verdict"], "pass", "{:?}", cells["local:built-in:here"]);
    let other = &cells["local:built-in:other"];
    assert!(other["verdict"] == "error" && other["fault"].contains("127.0.0.1:1"), "{other:?}");
}

//! Ways to a host over SSH: by way of another host, with a key that only an agent has, as a user without privileges; and
//! every kind of engine at the far end. Needs root, docker, podman, runc and bubblewrap.
#![allow(clippy::unwrap_used, clippy::panic)]

mod host_support;

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use host_support::{Cells, Lab, STRANGER_ID};

const ENGINES: &str = "[[engine]]\nname = 'native'\nkind = 'native'\n\
    [[engine]]\nname = 'built-in'\nkind = 'built-in'\n\
    [[engine]]\nname = 'docker'\nkind = 'docker'\n\
    [[engine]]\nname = 'podman'\nkind = 'podman'\nruntime = 'runc'\n\
    [[engine]]\nname = 'runc'\nkind = 'oci'\nruntime = 'runc'\n\
    [[engine]]\nname = 'bubblewrap'\nkind = 'bubblewrap'\n";

/// What ran, for the engines that did.
fn ran(cells: &Cells, host: &str) -> Vec<String> {
    let ran = cells.values().filter(|cell| cell["host"] == host && cell["error"] == "0");
    ran.map(|cell| cell["engine"].clone()).collect()
}

/// An ssh-agent that has the lab's key.
struct KeyAgent {
    process: Child,
    socket: PathBuf,
}

impl KeyAgent {
    fn with_key_of(lab: &Lab) -> Self {
        let socket = lab.path("agent.sock");
        let mut command = Command::new("ssh-agent");
        let process = command.arg("-D").arg("-a").arg(&socket).stdout(Stdio::null()).spawn().unwrap();
        let agent = Self { process, socket };
        let add = || {
            let mut add = Command::new("ssh-add");
            add.arg("-q").arg(lab.path("user")).env("SSH_AUTH_SOCK", &agent.socket).stderr(Stdio::null());
            add.status().unwrap().success()
        };
        assert!((0..200).any(|_| add() || {
            std::thread::sleep(std::time::Duration::from_millis(20));
            false
        }));
        agent
    }
}

impl Drop for KeyAgent {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn a_jump_host_and_an_agents_key_lead_to_every_kind_of_engine() {
    let lab = Lab::new();
    let before = lab.left();
    lab.matrix(&["box", "far", "keyless"], ENGINES);
    let agent = KeyAgent::with_key_of(&lab);
    let output = lab.command(&["run", "--no-controls"]).env("SSH_AUTH_SOCK", &agent.socket).output().unwrap();
    let (said, cells) = (String::from_utf8_lossy(&output.stderr), lab.cells());
    for host in ["box", "far", "keyless"] {
        assert_eq!(
            ran(&cells, host),
            ["bubblewrap", "built-in", "docker", "native", "podman", "runc"],
            "{host}: {said}"
        );
        for engine in ["bubblewrap", "built-in", "docker", "podman", "runc"] {
            let [cell, near] = [host, "box"].map(|host| &cells[&format!("{host}:{engine}:empty")]["vector"]);
            assert_eq!(cell, near, "{host}:{engine} answers differently");
        }
    }
    // One login for each host, and one at the jump host on the way to the far one.
    let log = fs::read_to_string(lab.path("log")).unwrap();
    assert_eq!(log.matches("Accepted publickey").count(), 4, "{log}");
    drop(agent);
    let (_, cells) = lab.run(&["--no-controls", "--host", "keyless", "--engine", "native"]);
    let cell = &cells["keyless:native:-"];
    assert!(cell["fault"].contains("lets nobody in") && cell["hint"].contains("ssh-add"), "{cell:?}");
    lab.assert_nothing_is_left(&before);
}

/// Where rootless podman keeps what it needs for a user who never logged in at a terminal.
struct Rootless;

impl Drop for Rootless {
    fn drop(&mut self) {
        for dir in ["containers-user", "podman-run"] {
            let _ = fs::remove_dir_all(format!("/tmp/{dir}-{STRANGER_ID}"));
        }
    }
}

#[test]
fn a_user_without_privileges_runs_what_needs_none_and_is_told_what_the_rest_needs() {
    let lab = Lab::with_stranger();
    let _rootless = Rootless;
    let before = lab.left();
    let limited = "[[engine]]\nname = 'limited'\nkind = 'built-in'\noptions = { memory = '64m' }\n\
        [[engine]]\nname = 'of-the-host'\nkind = 'built-in'\noptions = { userns = 'host' }\n";
    lab.matrix(&["stranger"], &format!("{ENGINES}{limited}"));
    let (output, cells) = lab.run(&["--no-controls"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(ran(&cells, "stranger"), ["bubblewrap", "built-in", "native", "podman", "runc"], "{said}");
    for engine in ["built-in", "podman", "runc"] {
        let cell = &cells[&format!("stranger:{engine}:empty")];
        assert_eq!(cell["fail_must"], "0", "{engine}: {said}");
    }
    for (engine, cause, hint) in [
        ("docker", "Permission denied", "add yourself to group docker"),
        ("limited", "memory", "need root, or a control group to write to"),
        ("of-the-host", "needs root", "leave the option out"),
    ] {
        let cell = &cells[&format!("stranger:{engine}:empty")];
        assert!(cell["fault"].contains(cause) && cell["hint"].contains(hint), "{engine}: {cell:?}");
    }
    let journal = fs::read_to_string(lab.newest_run().join("journal.jsonl")).unwrap();
    let about = |what: &str| {
        journal.lines().filter(|line| line.contains("\"entry\":\"engine\"") && line.contains(what)).count()
    };
    assert!(about("\"engine.identity\":\"user namespace, one id\"") >= 2, "{journal}");
    lab.assert_nothing_is_left(&before);
}

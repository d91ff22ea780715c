//! Hosts over SSH: a real sshd on loopback with keys of its own, reached by the user's own ssh. Needs root, since sshd lets
//! only its own user in otherwise; and docker.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// An sshd, a key that it lets in, and a configuration that knows both.
struct Lab {
    dir: tempfile::TempDir,
    sshd: Child,
    port: u16,
}

impl Lab {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        // Where sshd of Debian separates its privileges; on a machine that never ran it as a service it is missing.
        fs::create_dir_all("/run/sshd").unwrap();
        for name in ["host", "stranger", "user"] {
            key(&dir.path().join(name));
        }
        // Free a moment ago, and sshd says so where it no longer is.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let at = dir.path().display();
        let config = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {at}/host\nAuthorizedKeysFile {at}/user.pub\nStrictModes no\n\
             PidFile none\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nUsePAM no\nPermitRootLogin yes\n\
             Banner {at}/banner\n"
        );
        fs::write(dir.path().join("sshd_config"), config).unwrap();
        fs::write(dir.path().join("banner"), "Authorised use only.\n").unwrap();
        let log = fs::File::create(dir.path().join("log")).unwrap();
        let mut command = Command::new("/usr/sbin/sshd");
        command.args(["-D", "-e", "-f"]).arg(dir.path().join("sshd_config")).stdin(Stdio::null()).stderr(log);
        let sshd = command.spawn().unwrap();
        let lab = Self { dir, sshd, port };
        lab.knows("box", "host");
        let until = Instant::now() + Duration::from_secs(10);
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < until, "{}", fs::read_to_string(lab.path("log")).unwrap());
            std::thread::sleep(Duration::from_millis(20));
        }
        lab
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Hosts `box`, `box1`… and `dead`, where nobody listens; the key known for `name` is that of `whose`.
    fn knows(&self, name: &str, whose: &str) {
        let public = fs::read_to_string(self.path(&format!("{whose}.pub"))).unwrap();
        fs::write(self.path("known"), format!("{name} {public}")).unwrap();
        let (at, port) = (self.dir.path().display(), self.port);
        let config = format!(
            "Host box*\n  HostName 127.0.0.1\n  Port {port}\n  User root\n  IdentityFile {at}/user\n  IdentitiesOnly yes\n  \
             UserKnownHostsFile {at}/known\n  GlobalKnownHostsFile none\n  StrictHostKeyChecking yes\n  HostKeyAlias box\n\
             Host dead\n  HostName 127.0.0.1\n  Port 1\n"
        );
        fs::write(self.path("config"), config).unwrap();
    }

    fn matrix(&self, hosts: &[&str], rest: &str) {
        let ssh = |name: &&str| format!("[[host]]\nname = '{name}'\nssh = '{name}'\nssh_config = 'config'\n");
        let hosts: String = hosts.iter().map(ssh).collect();
        fs::write(self.path("matrix.toml"), format!("{hosts}{rest}\n[[image]]\nname = 'empty'\nscratch = true\n"))
            .unwrap();
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_abicus"));
        command.current_dir(self.dir.path()).env("ABICUS_CACHE", self.path("cache")).args(arguments);
        // Nothing that is in the environment of whoever runs the tests is to open the door.
        command.env_remove("SSH_AUTH_SOCK").env("TMPDIR", self.dir.path());
        command
    }

    /// Runs the matrix: what was said, and the rows of cells.csv by cell.
    fn run(&self, arguments: &[&str]) -> (Output, BTreeMap<String, BTreeMap<String, String>>) {
        let output = self.command(&[&["run"], arguments].concat()).output().unwrap();
        (output, self.cells())
    }

    fn cells(&self) -> BTreeMap<String, BTreeMap<String, String>> {
        let runs: Vec<_> = fs::read_dir(self.path("reports")).unwrap().map(|e| e.unwrap().path()).collect();
        let newest = runs.iter().max().unwrap();
        let mut reader = csv::Reader::from_path(newest.join("cells.csv")).unwrap();
        let header = reader.headers().unwrap().clone();
        let row = |row: csv::StringRecord| -> BTreeMap<String, String> {
            header.iter().zip(row.iter()).map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
        };
        reader.records().map(|r| row(r.unwrap())).map(|row| (row["cell"].clone(), row)).collect()
    }

    /// Directories that agents made, and the agents themselves.
    fn left(&self) -> Vec<String> {
        let mut left: Vec<String> = ["/tmp", "/var/tmp", "/dev/shm"]
            .iter()
            .flat_map(|dir| fs::read_dir(dir).unwrap())
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.join("launch").exists())
            .map(|path| path.display().to_string())
            .collect();
        let children =
            fs::read_dir("/proc").unwrap().filter_map(|entry| fs::read(entry.unwrap().path().join("cmdline")).ok());
        let ours = format!("{}/config", self.dir.path().display());
        left.extend(
            children
                .map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
                .filter(|line| line.starts_with("ssh ") && line.contains(&ours)),
        );
        left
    }

    fn assert_nothing_is_left(&self, before: &[String]) {
        let until = Instant::now() + Duration::from_secs(10);
        loop {
            let left: Vec<_> = self.left().into_iter().filter(|name| !before.contains(name)).collect();
            if left.is_empty() {
                return;
            }
            assert!(Instant::now() < until, "left behind: {left:?}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _ = self.sshd.kill();
        let _ = self.sshd.wait();
    }
}

fn key(path: &Path) {
    let mut command = Command::new("ssh-keygen");
    let made = command.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(path).status().unwrap();
    assert!(made.success());
}

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

#[test]
fn a_connection_that_ends_in_the_middle_costs_the_cells_of_its_host() {
    let lab = Lab::new();
    let before = lab.left();
    let engine = "[[host]]\nname = 'local'\n[[engine]]\nname = 'built-in'\nkind = 'built-in'\n";
    lab.matrix(&["box"], engine);
    let child = lab
        .command(&["run", "--no-controls", "--bench", "--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let mut child = child.unwrap();
    // The session of the host is a child of our sshd; it is ended when the cell there has begun.
    let mut events = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
    let begun = events.find(|line| {
        let line = line.as_ref().unwrap();
        line.contains("\"box:built-in:empty\"") && line.contains("cell-started")
    });
    assert!(begun.is_some(), "no event says that the cell began");
    let sessions = format!("/proc/{}/task/{}/children", lab.sshd.id(), lab.sshd.id());
    let sessions = fs::read_to_string(sessions).unwrap();
    assert!(!sessions.trim().is_empty());
    assert!(Command::new("kill").arg("-9").args(sessions.split_whitespace()).status().unwrap().success());
    events.for_each(drop);
    assert_eq!(child.wait().unwrap().code(), Some(3));
    let cells = lab.cells();
    assert_eq!(cells["local:built-in:empty"]["verdict"], "pass");
    assert_eq!(cells["box:built-in:empty"]["verdict"], "error", "{:?}", cells["box:built-in:empty"]);
    lab.assert_nothing_is_left(&before);
}

#[test]
fn many_hosts_are_reached_in_one_run() {
    let lab = Lab::new();
    let before = lab.left();
    let names: Vec<String> = (0..20).map(|n| format!("box{n}")).collect();
    lab.matrix(&names.iter().map(String::as_str).collect::<Vec<_>>(), NATIVE);
    let (output, cells) = lab.run(&[]);
    let passed = cells.values().filter(|cell| cell["verdict"] == "pass").count();
    assert_eq!(passed, names.len(), "{}", String::from_utf8_lossy(&output.stderr));
    lab.assert_nothing_is_left(&before);
}

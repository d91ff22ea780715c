//! What the tests of hosts share: a directory where the program is run, and an sshd on loopback. Needs root, since sshd lets
//! only its own user in otherwise.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// A directory where the program is run.
pub struct Desk {
    pub dir: tempfile::TempDir,
}

/// Somebody without privileges, whom only a sshd of these tests knows.
pub const STRANGER: &str = "abicus-stranger";
/// Their uid and gid.
pub const STRANGER_ID: u32 = 54321;

/// Rows of cells.csv by cell.
pub type Cells = BTreeMap<String, BTreeMap<String, String>>;

impl Desk {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        Self { dir }
    }

    pub fn write(&self, name: &str, text: &str) {
        fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        fs::write(self.path(name), text).unwrap();
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_abicus"));
        command.current_dir(self.dir.path()).env("ABICUS_CACHE", self.path("cache")).args(arguments);
        // Nothing that is in the environment of whoever runs the tests is to open the door.
        for name in [
            "SSH_AUTH_SOCK",
            "DOCKER_HOST",
            "DOCKER_CONTEXT",
            "DOCKER_CERT_PATH",
            "DOCKER_TLS_VERIFY",
            "CONTAINER_HOST",
        ] {
            command.env_remove(name);
        }
        command.env("TMPDIR", self.dir.path()).env("DOCKER_CONFIG", self.path("docker-config"));
        command
    }

    /// Runs the matrix: what was said, and the rows of cells.csv by cell.
    pub fn run(&self, arguments: &[&str]) -> (Output, Cells) {
        let output = self.command(&[&["run"], arguments].concat()).output().unwrap();
        (output, self.cells())
    }

    /// The directory of the newest run.
    pub fn newest_run(&self) -> PathBuf {
        fs::read_dir(self.path("reports")).unwrap().map(|e| e.unwrap().path()).max().unwrap()
    }

    pub fn cells(&self) -> Cells {
        let mut reader = csv::Reader::from_path(self.newest_run().join("cells.csv")).unwrap();
        let header = reader.headers().unwrap().clone();
        let row = |row: csv::StringRecord| -> BTreeMap<String, String> {
            header.iter().zip(row.iter()).map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
        };
        reader.records().map(|r| row(r.unwrap())).map(|row| (row["cell"].clone(), row)).collect()
    }
}

/// An sshd, a key that it lets in, and a configuration that knows both.
pub struct Lab {
    pub desk: Desk,
    pub sshd: Child,
    pub port: u16,
    /// Takes connections and never speaks.
    pub hole: TcpListener,
}

impl std::ops::Deref for Lab {
    type Target = Desk;
    fn deref(&self) -> &Desk {
        &self.desk
    }
}

impl Lab {
    pub fn new() -> Self {
        Self::with("")
    }

    /// `more` are lines of sshd's configuration.
    pub fn with(more: &str) -> Self {
        Self::start(Desk::new(), more, Command::new("/usr/sbin/sshd"))
    }

    /// A user without privileges can log in too: as `STRANGER@box`. Only this sshd knows of them.
    pub fn with_stranger() -> Self {
        let desk = Desk::new();
        let home = desk.path("home");
        fs::create_dir(&home).unwrap();
        std::os::unix::fs::chown(&home, Some(STRANGER_ID), Some(STRANGER_ID)).unwrap();
        let known = fs::read_to_string("/etc/passwd").unwrap();
        let home = home.display();
        let passwd = format!("{known}{STRANGER}:*:{STRANGER_ID}:{STRANGER_ID}::{home}:/bin/sh\n");
        fs::write(desk.path("passwd"), passwd).unwrap();
        Self::seeing(desk, &[("passwd", "/etc/passwd")])
    }

    /// For whoever comes by this sshd, a file of the desk is in the place of one of the machine's.
    pub fn seeing(desk: Desk, instead: &[(&str, &str)]) -> Self {
        let bind = |(ours, theirs): &(&str, &str)| format!("mount --bind {} {theirs} && ", desk.path(ours).display());
        let script: String = instead.iter().map(bind).chain(["exec /usr/sbin/sshd \"$@\"".to_owned()]).collect();
        let mut sshd = Command::new("unshare");
        sshd.args(["--mount", "--propagation", "private", "sh", "-c", &script, "sshd"]);
        Self::start(desk, "", sshd)
    }

    fn start(desk: Desk, more: &str, mut command: Command) -> Self {
        let dir = &desk.dir;
        // Where sshd of Debian separates its privileges; on a machine that never ran it as a service it is missing.
        fs::create_dir_all("/run/sshd").unwrap();
        for name in ["host", "stranger", "user"] {
            key(&dir.path().join(name));
        }
        // Free a moment ago, and sshd says so where it no longer is.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let at = dir.path().display();
        let config = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {at}/host\nAuthorizedKeysFile {at}/user.pub\nStrictModes no\n\
             PidFile none\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nUsePAM no\nPermitRootLogin yes\n\
             Banner {at}/banner\n{more}\n"
        );
        fs::write(dir.path().join("sshd_config"), config).unwrap();
        fs::write(dir.path().join("banner"), "Authorised use only.\n").unwrap();
        let log = fs::File::create(dir.path().join("log")).unwrap();
        command.args(["-D", "-e", "-f"]).arg(dir.path().join("sshd_config")).stdin(Stdio::null()).stderr(log);
        let sshd = command.spawn().unwrap();
        let lab = Self { desk, sshd, port, hole: TcpListener::bind("127.0.0.1:0").unwrap() };
        lab.knows("box", "host");
        let until = Instant::now() + Duration::from_secs(10);
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < until, "{}", fs::read_to_string(lab.path("log")).unwrap());
            std::thread::sleep(Duration::from_millis(20));
        }
        lab
    }

    /// Hosts `box`, `box1`…, `stranger` for [`STRANGER`], `far` by way of `box`, `keyless`, for whom an agent has to have the
    /// key, `dead`, where nobody listens, and `hole`, where nobody speaks; the key known for `name` is that of `whose`.
    pub fn knows(&self, name: &str, whose: &str) {
        let public = fs::read_to_string(self.path(&format!("{whose}.pub"))).unwrap();
        fs::write(self.path("known"), format!("{name} {public}")).unwrap();
        let (at, port, hole) = (self.dir.path().display(), self.port, self.hole.local_addr().unwrap().port());
        let config = format!(
            "Host stranger\n  User {STRANGER}\nHost far\n  ProxyJump box\n\
             Host box* stranger far\n  IdentityFile {at}/user\n  IdentitiesOnly yes\n\
             Host box* stranger far keyless\n  HostName 127.0.0.1\n  Port {port}\n  User root\n  \
             UserKnownHostsFile {at}/known\n  GlobalKnownHostsFile none\n  StrictHostKeyChecking yes\n  HostKeyAlias box\n\
             Host dead\n  HostName 127.0.0.1\n  Port 1\nHost hole\n  HostName 127.0.0.1\n  Port {hole}\n"
        );
        fs::write(self.path("config"), config).unwrap();
    }

    pub fn matrix(&self, hosts: &[&str], rest: &str) {
        let ssh = |name: &&str| format!("[[host]]\nname = '{name}'\nssh = '{name}'\nssh_config = 'config'\n");
        let hosts: String = hosts.iter().map(ssh).collect();
        fs::write(self.path("matrix.toml"), format!("{hosts}{rest}\n[[image]]\nname = 'empty'\nscratch = true\n"))
            .unwrap();
    }

    /// Directories that agents made, and the agents themselves.
    pub fn left(&self) -> Vec<String> {
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

    pub fn assert_nothing_is_left(&self, before: &[String]) {
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

pub fn key(path: &Path) {
    let mut command = Command::new("ssh-keygen");
    let made = command.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(path).status().unwrap();
    assert!(made.success());
}

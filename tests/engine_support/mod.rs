//! What the tests of real container engines share: a payload (busybox, statically linked), images, jobs, a private dockerd.
#![allow(dead_code, reason = "each test binary uses its part")]

pub mod remote;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use abicus::engine::container::{ContainerEngine, Endpoint, Environment, Kind};
use abicus::engine::{Attempt, Ended, Engine, EngineOptions, Facts, Job, Payload, Prepared};
use abicus::id::RunId;
use abicus::image::{Content, Image};

/// A line of shell that looks up localhost and talks to itself through it; not ping, which podman's capabilities forbid.
pub const LOOPBACK: &str = "B=/.abicus/busybox; $B cat /etc/hosts; echo pong | $B nc -l -p 5555 & $B sleep 1; \
     $B nc -w 3 localhost 5555 </dev/null";

/// The program the tests run; Debian's busybox-static.
pub const BUSYBOX: &str = "/bin/busybox";

/// A payload with busybox in it.
pub struct Bench {
    pub payload: Arc<Payload>,
    pub run: RunId,
    dir: tempfile::TempDir,
}

impl Bench {
    pub fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("abicus-test-").tempdir().unwrap();
        let payload = dir.path().join("payload");
        std::fs::create_dir(&payload).unwrap();
        std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
        std::fs::set_permissions(&payload, PermissionsExt::from_mode(0o755)).unwrap();
        std::fs::copy(BUSYBOX, payload.join("busybox")).expect("busybox-static is installed");
        let run =
            format!("test-{}", dir.path().file_name().unwrap().to_str().unwrap().trim_start_matches("abicus-test-."));
        let payload = Arc::new(Payload { dir: payload, digest: "busybox".to_owned() });
        Self { payload, run: run.parse().unwrap(), dir }
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A job that runs a line of shell.
    pub fn sh(&self, script: &str) -> Job {
        self.job(&["/.abicus/busybox", "sh", "-c", script])
    }

    pub fn job(&self, argv: &[&str]) -> Job {
        Job {
            run: self.run.clone(),
            cell: "local:engine:image".parse().unwrap(),
            attempt: 1,
            argv: argv.iter().map(|a| (*a).to_owned()).collect(),
            payload: self.payload.clone(),
            deadline: Duration::from_secs(60),
            output_cap: 1 << 20,
        }
    }

    /// A root file system with a file, a hard link and a symlink.
    pub fn tree(&self) -> Image {
        let tree = self.dir.path().join("tree");
        if !tree.exists() {
            std::fs::create_dir_all(tree.join("etc")).unwrap();
            std::fs::write(tree.join("etc/os-release"), format!("ID=abicus-test\nRUN={}\n", self.run)).unwrap();
            std::fs::hard_link(tree.join("etc/os-release"), tree.join("etc/linked")).unwrap();
            std::os::unix::fs::symlink("os-release", tree.join("etc/pointer")).unwrap();
        }
        image("test-tree", &self.digest("tree"), Content::Tree(tree))
    }

    /// The empty image.
    pub fn scratch(&self) -> Image {
        image("test-scratch", &self.digest("scratch"), Content::Empty)
    }

    /// Of this test alone, so that tests can remove what they imported without harming each other.
    fn digest(&self, what: &str) -> String {
        format!("sha256:{}", blake3_hex(&format!("{} {what}", self.run)))
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let names = ["tree", "scratch"]
            .map(|what| format!("abicus-cache/test-{what}:{:.12}", self.digest(what).trim_start_matches("sha256:")));
        // Most tests used one of them at most, some none.
        let _ = Command::new("docker").args(["rmi", "--force"]).args(names).output();
    }
}

fn blake3_hex(text: &str) -> String {
    blake3::hash(text.as_bytes()).to_hex().to_string()
}

pub fn image(id: &str, digest: &str, content: Content) -> Image {
    Image {
        id: id.parse().unwrap(),
        digest: digest.to_owned(),
        content,
        architecture: None,
        loader: None,
        facts: Facts::new(),
    }
}

/// An engine at a socket.
pub fn engine(kind: Kind, socket: &Path, options: EngineOptions) -> ContainerEngine {
    with_runtime(kind, Endpoint::Unix(socket.to_owned()), None, options)
}

pub fn with_runtime(kind: Kind, endpoint: Endpoint, runtime: Option<&str>, options: EngineOptions) -> ContainerEngine {
    let environment = Environment::of_process();
    ContainerEngine::new(kind, endpoint, runtime.map(str::to_owned), options, environment).unwrap()
}

/// Options as the matrix would write them.
pub fn options(text: &str) -> EngineOptions {
    toml::from_str(text).unwrap()
}

/// Runs a line of shell in scratch and returns what it wrote; it must exit with 0.
pub async fn says(engine: &ContainerEngine, bench: &Bench, image: &Prepared, script: &str) -> String {
    let attempt = engine.run(&bench.sh(script), image).await;
    assert_eq!(attempt.ended, Ok(Ended::Exit(0)), "{}", show(&attempt));
    String::from_utf8(attempt.stdout).unwrap()
}

pub fn show(attempt: &Attempt) -> String {
    format!(
        "{:?}\nstdout: {}\nstderr: {}\nnotes: {:?}",
        attempt.ended,
        String::from_utf8_lossy(&attempt.stdout[..attempt.stdout.len().min(2000)]),
        String::from_utf8_lossy(&attempt.stderr[..attempt.stderr.len().min(2000)]),
        attempt.notes
    )
}

/// A daemon or service of the test's own, killed with it.
pub struct Daemon {
    pub child: Child,
    pub socket: PathBuf,
    dir: PathBuf,
}

impl Daemon {
    /// A dockerd in mount and network namespaces of its own, where `first` is run before it; so that it neither touches this machine's bridge nor sees its
    /// later mounts.
    pub fn docker(dir: &Path, first: &str, extra: &[&str]) -> Self {
        let dir = dir.to_owned();
        std::fs::create_dir_all(&dir).unwrap();
        let socket = dir.join("docker.sock");
        // This machine's configuration is not the test's.
        std::fs::write(dir.join("daemon.json"), "{}").unwrap();
        let d = dir.display();
        // A private mount of /run keeps its containerd away from this machine's; crun needs a plain cgroup v1 hierarchy.
        let script = format!(
            "umount /sys/fs/cgroup/unified 2>/dev/null; {first} exec dockerd --config-file {d}/daemon.json --data-root {d}/root --exec-root {d}/exec \
             --pidfile {d}/pid -H unix://{s} --bridge=none --iptables=false --ip-masq=false --ip-forward=false \
             --containerd-namespace abicus-{p} --containerd-plugins-namespace abicus-{p}-plugins {x} >{d}/log 2>&1",
            s = socket.display(),
            p = std::process::id(),
            x = extra.join(" "),
        );
        let child = Command::new("unshare")
            .args(["-m", "-n", "--propagation", "private", "sh", "-c", &script])
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let mut daemon = Self { child, socket, dir };
        daemon.await_socket();
        daemon
    }

    pub fn await_socket(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while std::os::unix::net::UnixStream::connect(&self.socket).is_err() {
            let log = std::fs::read_to_string(self.dir.join("log")).unwrap_or_default();
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none() && Instant::now() < deadline, "the daemon does not listen ({ended:?}): {log}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    pub fn signal(&self, signal: &str) {
        signal_to(self.child.id(), signal);
    }
}

pub fn signal_to(pid: u32, signal: &str) {
    let sent = Command::new("kill").args([&format!("-{signal}"), &pid.to_string()]).status().unwrap();
    assert!(sent.success(), "kill -{signal} {pid}");
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let pid = self.child.id().to_string();
        for signal in ["-CONT", "-TERM"] {
            let _ = Command::new("kill").args([signal, &pid]).stderr(Stdio::null()).status();
        }
        let deadline = Instant::now() + Duration::from_secs(20);
        while self.child.try_wait().is_ok_and(|s| s.is_none()) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(50));
        }
        self.end_pause();
        // A daemon that was killed leaves the containerd it had started, and rootless podman itself in its namespace.
        let ours = format!("{}/", self.dir.display());
        for process in std::fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path()) {
            let line = std::fs::read(process.join("cmdline")).unwrap_or_default();
            if String::from_utf8_lossy(&line).contains(&ours) {
                let pid = process.file_name().unwrap();
                let _ = Command::new("kill").arg("-KILL").arg(pid).stderr(Stdio::null()).status();
            }
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Daemon {
    /// A podman service of root in a mount namespace without the unified cgroup hierarchy, which crun refuses beside v1.
    pub fn podman(dir: &Path, extra: &[&str]) -> Self {
        std::fs::create_dir_all(dir).unwrap();
        let socket = dir.join("podman.sock");
        let script = format!(
            "umount /sys/fs/cgroup/unified 2>/dev/null; exec podman --root {d}/root --runroot {d}/run {x} system service \
             --time 0 unix://{s} >{d}/log 2>&1",
            d = dir.display(),
            s = socket.display(),
            x = extra.join(" "),
        );
        Self::in_namespace(dir, socket, &script)
    }

    /// A podman service of an ordinary user with ranges of its own; the user exists in this mount namespace only.
    pub fn rootless(dir: &Path, runtime: &str) -> Self {
        const USER: &str = "12345";
        for sub in ["home", "run"] {
            std::fs::create_dir_all(dir.join(sub)).unwrap();
            std::os::unix::fs::chown(dir.join(sub), Some(12345), Some(12345)).unwrap();
        }
        std::fs::set_permissions(dir, PermissionsExt::from_mode(0o755)).unwrap();
        std::fs::set_permissions(dir.join("run"), PermissionsExt::from_mode(0o700)).unwrap();
        let d = dir.display();
        let passwd = std::fs::read_to_string("/etc/passwd").unwrap();
        std::fs::write(dir.join("passwd"), format!("{passwd}abicus-test:x:{USER}:{USER}::{d}/home:/bin/sh\n")).unwrap();
        let group = std::fs::read_to_string("/etc/group").unwrap();
        std::fs::write(dir.join("group"), format!("{group}abicus-test:x:{USER}:\n")).unwrap();
        std::fs::write(dir.join("sub"), "abicus-test:300000:65536\n").unwrap();
        let socket = dir.join("run/podman.sock");
        let script = format!(
            "umount /sys/fs/cgroup/unified 2>/dev/null; mount --bind {d}/passwd /etc/passwd; mount --bind {d}/group /etc/group; \
             mount --bind {d}/sub /etc/subuid; \
             mount --bind {d}/sub /etc/subgid; cd /; exec env -i PATH=\"$PATH\" HOME={d}/home XDG_RUNTIME_DIR={d}/run \
             setpriv --reuid {USER} --regid {USER} --clear-groups podman --runtime {runtime} --storage-driver overlay --cgroup-manager cgroupfs \
             system service --time 0 unix://{s} >{d}/log 2>&1",
            s = socket.display(),
        );
        Self::in_namespace(dir, socket, &script)
    }

    fn in_namespace(dir: &Path, socket: PathBuf, script: &str) -> Self {
        let child = Command::new("unshare")
            .args(["-m", "--propagation", "private", "sh", "-c", script])
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let mut daemon = Self { child, socket, dir: dir.to_owned() };
        daemon.await_socket();
        daemon
    }

    /// Rootless podman keeps a process that holds its namespaces, and does not say of whom it is.
    fn end_pause(&self) {
        let pid = std::fs::read_to_string(self.dir.join("run/libpod/tmp/pause.pid")).unwrap_or_default();
        if !pid.is_empty() {
            let _ = Command::new("kill").arg(pid.trim()).stderr(Stdio::null()).status();
        }
    }
}

//! What the tests of the built-in engine and of native share: a payload (busybox, statically linked), jobs, images.
//!
//! Cells are scratch with busybox in the payload, so that what is seen is the engine's work and no image's. The tests need
//! root (`ci/test` has it) and the Debian packages busybox-static and util-linux; what is absent fails them.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use abicus::engine::builtin::BuiltIn;
use abicus::engine::{Attempt, Ended, Engine, EngineOptions, Job, Payload};
use abicus::host::{Local, Reach};
use abicus::id::RunId;
use abicus::image::{Content, Image};
use abicus::probes;

/// Set in a copy of this test program that runs as an ordinary user.
pub const AS_USER: &str = "ABICUS_TEST_AS_USER";

pub struct Bench {
    pub dir: tempfile::TempDir,
    pub job: Job,
}

impl Bench {
    pub fn new() -> Self {
        assert!(is_root() || std::env::var_os(AS_USER).is_some(), "these tests make cells as root: run them as root");
        Self::within(Path::new("/var/tmp"))
    }

    /// For a test program that is killed: whoever made the directory removes it.
    pub fn within(parent: &Path) -> Self {
        let dir = tempfile::Builder::new().prefix("abicus-test-").tempdir_in(parent).unwrap();
        let payload = dir.path().join("payload");
        fs::create_dir(&payload).unwrap();
        let static_probes = [("kernel", probes::KERNEL), ("surroundings", probes::SURROUNDINGS)];
        let programs = static_probes.map(|(name, bytes)| (name, bytes.to_vec()));
        for (name, bytes) in programs.into_iter().chain([("busybox", busybox())]) {
            fs::write(payload.join(name), bytes).unwrap();
            fs::set_permissions(payload.join(name), fs::Permissions::from_mode(0o755)).unwrap();
        }
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let job = Job {
            // A run of its own: what sweeping finds is what this test left.
            run: RunId::new(),
            cell: "local:built-in:scratch".parse().unwrap(),
            attempt: 1,
            argv: vec![],
            payload: Arc::new(Payload { dir: payload, digest: "none".to_owned() }),
            deadline: Duration::from_secs(20),
            output_cap: 1 << 20,
        };
        Self { dir, job }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// This machine.
    pub fn here(&self) -> Arc<dyn Reach> {
        Arc::new(Local::at(self.path("work")))
    }

    pub fn engine(&self, options: &str) -> BuiltIn {
        BuiltIn::new(&toml::from_str::<EngineOptions>(options).unwrap(), self.here()).unwrap()
    }

    pub fn run(&self, options: &str, content: Content, argv: &[&str]) -> Attempt {
        let job = Job { argv: argv.iter().map(|s| (*s).to_owned()).collect(), ..self.job.clone() };
        run(&self.engine(options), &job, content)
    }

    /// A shell in a scratch cell.
    pub fn sh(&self, options: &str, script: &str) -> Attempt {
        self.run(options, Content::Empty, &["/.abicus/busybox", "sh", "-c", &format!("{TOOLS}{script}")])
    }

    /// What a shell in a scratch cell says, which must succeed.
    pub fn says(&self, options: &str, script: &str) -> String {
        said(&self.sh(options, script))
    }
}

/// Every command is busybox's.
pub const TOOLS: &str = "b() { /.abicus/busybox \"$@\"; }\n";

pub fn said(attempt: &Attempt) -> String {
    let text = String::from_utf8(attempt.stdout.clone()).unwrap();
    assert_eq!(attempt.ended, Ok(Ended::Exit(0)), "{text}\n{}", String::from_utf8_lossy(&attempt.stderr));
    text
}

pub fn image(content: Content) -> Image {
    Image {
        id: "test".parse().unwrap(),
        digest: "none".to_owned(),
        content,
        architecture: None,
        loader: None,
        facts: Default::default(),
    }
}

pub fn run(engine: &dyn Engine, job: &Job, content: Content) -> Attempt {
    runtime().block_on(async {
        let prepared = engine.prepare(&image(content)).await.unwrap();
        engine.run(job, &prepared).await
    })
}

pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

pub fn busybox() -> Vec<u8> {
    fs::read("/bin/busybox").expect("/bin/busybox: install busybox-static")
}

pub fn is_root() -> bool {
    rustix_uid() == 0
}

pub fn rustix_uid() -> u32 {
    use std::os::unix::fs::MetadataExt;
    fs::metadata("/proc/self").unwrap().uid()
}

/// Copies in a process of its own: what another thread of this one starts at the same moment would inherit the open file, and
/// a program that is open for writing is not executed (ETXTBSY).
pub fn copy_program(from: &Path, to: &Path) {
    assert!(std::process::Command::new("cp").arg(from).arg(to).status().unwrap().success());
}

/// Runs one of the `user_` tests below in a copy of this program, as a user without a name and without subordinate ids.
pub fn as_user(test: &str) {
    let program = std::env::current_exe().unwrap();
    // The build directory may be in a home only root may enter.
    let dir = tempfile::Builder::new().prefix("abicus-test-").tempdir_in("/var/tmp").unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let copy = dir.path().join("tests");
    copy_program(&program, &copy);
    let output = std::process::Command::new("setpriv")
        .args(["--reuid=12345", "--regid=12345", "--clear-groups", "--inh-caps=-all"])
        .arg(&copy)
        .args(["--exact", test, "--ignored", "--nocapture"])
        .env(AS_USER, "1")
        .output()
        .expect("setpriv: install util-linux");
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

pub fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(10), "{what} still does not hold after 10 s");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// How long a program sleeps that is going to be killed: in seconds, and a mark by which only this test knows it.
pub fn nap(test: u32) -> String {
    format!("{test}.{:08}", std::process::id())
}

/// Processes of this machine whose command line has `mark` in it.
pub fn processes(mark: &str) -> Vec<u32> {
    let mut found = vec![];
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse() else { continue };
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        if pid != std::process::id() && String::from_utf8_lossy(&line).contains(mark) {
            found.push(pid);
        }
    }
    found
}

/// A tree with a shell and nothing else.
pub fn tree(bench: &Bench, name: &str) -> PathBuf {
    let tree = bench.path(name);
    fs::create_dir_all(tree.join("bin")).unwrap();
    fs::write(tree.join("bin/busybox"), busybox()).unwrap();
    fs::set_permissions(tree.join("bin/busybox"), fs::Permissions::from_mode(0o755)).unwrap();
    tree
}

pub fn listing(tree: &Path) -> String {
    let output =
        std::process::Command::new("find").arg(tree).args(["-printf", "%P %y %m %s %T@ %l\\n"]).output().unwrap();
    let mut lines: Vec<_> = String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect();
    lines.sort();
    lines.join("\n")
}

pub fn image_stays_untouched(bench: &Bench) {
    let tree = tree(bench, "tree");
    fs::write(tree.join("old"), "old").unwrap();
    let before = listing(&tree);
    let script = "b() { /bin/busybox \"$@\"; }; echo new >/new && echo changed >/old && b rm /bin/busybox";
    let attempt = bench.run("", Content::Tree(tree.clone()), &["/bin/busybox", "sh", "-c", script]);
    assert_eq!(said(&attempt), "");
    assert_eq!(listing(&tree), before);
}

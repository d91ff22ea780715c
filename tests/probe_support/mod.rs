//! Runs the static probes for tests, also under seccomp filters made here.
#![allow(dead_code)] // each test file uses its own part

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use serde_json::Value;

pub const EPERM: u32 = 1;
pub const ENOSYS: u32 = 38;

/// What a filter answers, seccomp(2).
#[derive(Clone, Copy)]
pub enum Action {
    Allow,
    Errno(u32),
    Trap,
    KillThread,
    KillProcess,
    Notify,
}

impl Action {
    fn code(self) -> u32 {
        match self {
            Action::Allow => 0x7fff_0000,
            Action::Errno(errno) => 0x0005_0000 | errno,
            Action::Trap => 0x0003_0000,
            Action::Notify => 0x7fc0_0000,
            Action::KillThread => 0,
            Action::KillProcess => 0x8000_0000,
        }
    }
}

/// What to do with the call of this number, or only where its argument of this index has this value.
pub struct Rule {
    pub call: u32,
    pub argument: Option<(u8, u32)>,
    pub action: Action,
}

pub fn rule(call: u32, action: Action) -> Rule {
    Rule { call, argument: None, action }
}

/// A filter program: the rules in order, then `otherwise`.
pub fn filter(rules: &[Rule], otherwise: Action) -> Vec<u8> {
    let mut code = Vec::new();
    let mut put = |code_: u16, yes: u8, no: u8, k: u32| {
        code.extend(code_.to_le_bytes());
        code.extend([yes, no]);
        code.extend(k.to_le_bytes());
    };
    for rule in rules {
        put(0x20, 0, 0, 0);
        match rule.argument {
            None => put(0x15, 0, 1, rule.call),
            Some((index, value)) => {
                put(0x15, 0, 3, rule.call);
                put(0x20, 0, 0, 16 + 8 * u32::from(index));
                put(0x15, 0, 1, value);
            }
        }
        put(0x06, 0, 0, rule.action.code());
    }
    put(0x06, 0, 0, otherwise.code());
    code
}

/// A directory that holds the programs, in cargo's temporary directory: made once for each version of them.
fn programs() -> &'static Path {
    static AT: OnceLock<PathBuf> = OnceLock::new();
    AT.get_or_init(|| {
        use abicus::probes::{KERNEL, LIBC, SURROUNDINGS, digest};
        let parent = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let version = digest(&[KERNEL, SURROUNDINGS, LIBC, include_bytes!("jail.rs")].concat());
        let at = parent.join(format!("probes-{}", &version[..16]));
        if at.is_dir() {
            return at;
        }
        // Another test binary may be at it too: whoever is first wins.
        let new = tempfile::tempdir_in(parent).unwrap();
        fs::set_permissions(new.path(), fs::Permissions::from_mode(0o755)).unwrap();
        for (name, bytes) in [("kernel", KERNEL), ("surroundings", SURROUNDINGS), ("libc", LIBC)] {
            write_program(&new.path().join(name), bytes);
        }
        let built = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .args(["--edition", "2024", "-Cpanic=abort", "-Copt-level=s", "-Clto=fat", "-Crelocation-model=static"])
            .args(["-Clink-arg=-nostartfiles", "-Clink-arg=-nostdlib", "-Clink-arg=-static", "-Clink-arg=-no-pie"])
            .args(["-Cforce-unwind-tables=no", "tests/probe_support/jail.rs", "-o"])
            .arg(new.path().join("jail"))
            .output()
            .unwrap();
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        if fs::rename(new.path(), &at).is_ok() {
            let _ = new.keep();
        }
        at
    })
}

/// A filter that treats calls by the i386 entry so and allows all others.
pub fn foreign(action: Action) -> Vec<u8> {
    // The architecture is at offset 4; 0x40000003 is i386.
    let code = [
        (0x20u16, 0u8, 0u8, 4u32),
        (0x15, 0, 1, 0x4000_0003),
        (6, 0, 0, action.code()),
        (6, 0, 0, Action::Allow.code()),
    ];
    code.iter().flat_map(|(op, yes, no, k)| [&op.to_le_bytes()[..], &[*yes, *no], &k.to_le_bytes()].concat()).collect()
}

fn write_program(at: &Path, bytes: &[u8]) {
    fs::write(at, bytes).unwrap();
    fs::set_permissions(at, fs::Permissions::from_mode(0o755)).unwrap();
}

/// The path of the kernel probe.
pub fn kernel() -> PathBuf {
    programs().join("kernel")
}

/// The path of the surroundings probe.
pub fn surroundings() -> PathBuf {
    programs().join("surroundings")
}

/// Arguments of the kernel probe that make it run the surroundings probe too, found in `dir`, both with these arguments.
pub fn both_in(dir: &Path, arguments: &[&str]) -> Vec<String> {
    let mut all = vec!["run".to_owned()];
    all.extend(arguments.iter().map(|argument| (*argument).to_owned()));
    all.extend(["--".to_owned(), dir.join("surroundings").to_str().unwrap().to_owned()]);
    all.extend(arguments.iter().map(|argument| (*argument).to_owned()));
    all
}

/// The same, where the programs of this test are.
pub fn both(arguments: &[&str]) -> Vec<String> {
    both_in(programs(), arguments)
}

/// The path of the libc probe, for a loader.
pub fn libc() -> PathBuf {
    programs().join("libc")
}

/// The program that installs the filter in the file its first argument names, and executes the rest.
pub fn jail() -> PathBuf {
    programs().join("jail")
}

/// `kernel ARGUMENTS` with this filter.
pub fn jailed<A: AsRef<OsStr>>(filter: &[u8], arguments: &[A]) -> Seen {
    jailed_with(&[], filter, arguments)
}

/// The same with a filter whose notifications nobody answers: what it notifies of hangs.
pub fn hung<A: AsRef<OsStr>>(filter: &[u8], arguments: &[A]) -> Seen {
    jailed_with(&["--listen"], filter, arguments)
}

fn jailed_with<A: AsRef<OsStr>>(options: &[&str], filter: &[u8], arguments: &[A]) -> Seen {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), filter).unwrap();
    let mut command = Command::new(programs().join("jail"));
    command.args(options).arg(file.path()).arg(kernel()).args(arguments);
    Seen::of(&mut command)
}

pub fn free<A: AsRef<OsStr>>(arguments: &[A]) -> Seen {
    Seen::of(Command::new(kernel()).args(arguments))
}

/// The lines of a run.
pub struct Seen {
    pub lines: Vec<Value>,
    /// What follows the exit lines of the supervisor is in `lines` as well.
    pub status: Option<i32>,
    pub raw: String,
}

impl Seen {
    pub fn of(command: &mut Command) -> Seen {
        let output = command.stdin(Stdio::null()).output().unwrap();
        let raw = String::from_utf8(output.stdout).unwrap();
        assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
        let lines = raw.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        Seen { lines, status: output.status.code(), raw }
    }

    /// Observations by id. Panics where one is there twice.
    pub fn checks(&self) -> BTreeMap<String, Value> {
        let mut checks = BTreeMap::new();
        for line in self.lines.iter().filter(|line| line["check"].is_string()) {
            let id = line["check"].as_str().unwrap().to_owned();
            assert!(checks.insert(id, line.clone()).is_none(), "twice: {line}");
        }
        checks
    }

    /// The observation of one check as `saw errno …` in a compact form: `errno 38`, `signal 31`, `ok`, a value.
    pub fn saw(&self, id: &str) -> String {
        let checks = self.checks();
        let line = checks.get(id).unwrap_or_else(|| panic!("no {id} in {}", self.raw));
        let text = |key: &str| line[key].as_str().map(str::to_owned).unwrap_or_else(|| line[key].to_string());
        match line["saw"].as_str().unwrap() {
            "errno" => format!("errno {}", line["errno"]),
            "signal" => format!("signal {}", line["signal"]),
            "value" => text("value"),
            other => other.to_owned(),
        }
    }

    pub fn filter(&self, id: &str) -> String {
        self.checks()[id]["filter"].as_str().unwrap_or("").to_owned()
    }
}

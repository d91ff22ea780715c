//! Runs through the real binary on two real kernels: what differs between them is what must, and a guest that is no
//! kernel, panics, hangs or dies in the middle costs its own cells and nothing else; nor does a driver that is killed leave
//! anything.
//!
//! Needs what `ci/setup fleet` installs, and fails without. Kernels are those that `abicus vm build` keeps, or makes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![cfg(target_arch = "x86_64")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use abicus::id::HostId;
use abicus::spec::{World, resolve};
use abicus::store::{Run, load};

/// Host `none` boots a file that is no kernel; host `panics` has no first program; host `hangs` listens on the wrong device.
const MATRIX: &str = r#"
[defaults]
timeout = "60s"
[[host]]
name = "old"
vm = { kernel = { suite = "bullseye" } }
[[host]]
name = "new"
vm = { kernel = { suite = "bookworm" } }
[[host]]
name = "none"
vm = { kernel = "vmlinuz", deadline = "20s" }
[[host]]
name = "panics"
vm = { kernel = { suite = "bookworm" }, cmdline = "rdinit=/none" }
[[host]]
name = "hangs"
vm = { kernel = { suite = "bookworm" }, cmdline = "abicus.device=/dev/console", deadline = "25s" }
[[engine]]
name = "native"
kind = "native"
[[engine]]
name = "built-in"
kind = "built-in"
[[image]]
name = "scratch"
scratch = true
"#;

/// Rows of a CSV file, each by column name.
fn rows(path: &Path) -> Vec<BTreeMap<String, String>> {
    csv::Reader::from_path(path).unwrap().deserialize().map(Result::unwrap).collect()
}

/// Processes whose command line begins with QEMU's name and holds `mark`, by their numbers.
fn guests(mark: &str) -> BTreeMap<String, String> {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let lines = processes.filter_map(|entry| {
        let line = fs::read(entry.path().join("cmdline")).ok()?;
        Some((entry.file_name().into_string().ok()?, String::from_utf8_lossy(&line).replace('\0', " ")))
    });
    lines.filter(|(_, line)| line.starts_with("qemu-system") && line.contains(mark)).collect()
}

struct Seen {
    output: Output,
    cells: BTreeMap<String, BTreeMap<String, String>>,
    results: Vec<BTreeMap<String, String>>,
    run: Run,
    temporary: Vec<PathBuf>,
    left_running: BTreeMap<String, String>,
    consoles: BTreeMap<String, String>,
}

impl Seen {
    /// What a call answered natively on a host.
    fn answer(&self, host: &str, check: &str) -> &str {
        let asked =
            |row: &&BTreeMap<String, String>| row["host"] == host && row["engine"] == "native" && row["check"] == check;
        let found = self.results.iter().find(asked);
        &found.unwrap_or_else(|| panic!("{host} has no {check}"))["value"]
    }

    /// System calls whose presence the kernel's own table of symbols contradicts. A call that was not configured is a weak
    /// symbol (kernel/sys_ni.c), one that the kernel does not know is none.
    fn against_symbols(&self, host: &str, symbols: &BTreeMap<String, char>) -> Vec<String> {
        let asked = |row: &&BTreeMap<String, String>| row["host"] == host && row["engine"] == "native";
        let calls = self.results.iter().filter(asked).filter_map(|row| {
            let name = row["check"].strip_prefix("syscall.")?;
            (!name.contains('.')).then_some((name, row))
        });
        let mut compared = 0;
        let wrong = calls.filter_map(|(name, row)| {
            let called = ALIASES.iter().find(|(call, _)| *call == name).map_or(name, |(_, symbol)| symbol);
            let there = symbols.get(called).is_some_and(|letter| letter.eq_ignore_ascii_case(&'t'));
            let seen = row["value"] != "ENOSYS";
            compared += 1;
            (there != seen)
                .then(|| format!("{name}: {} {}, symbol {:?}", row["saw"], row["value"], symbols.get(called)))
        });
        let wrong = wrong.collect();
        assert!(compared > 300, "{compared}");
        wrong
    }

    /// Answers that what the kernel was built with contradicts: an option that is `y` or `m` brings the call.
    fn against_options(&self, host: &str) -> Vec<String> {
        let facts = &self.run.hosts[&host.parse::<HostId>().unwrap()].facts;
        let built = |option: &str| facts[&format!("config.{option}")] != "n";
        let brought = BROUGHT.iter().filter(|(option, ..)| facts.contains_key(&format!("config.{option}")));
        let wrong = brought.filter(|(option, check, since)| {
            let absent = if check.starts_with("ns.") { "ENOENT" } else { "ENOSYS" };
            let there = self.answer(host, check) != absent;
            let old = facts["kernel.release"].split('.').map(|n| n.parse().unwrap_or(0)).lt(since.iter().copied());
            there != (built(option) && !old)
        });
        wrong.map(|(option, check, _)| format!("{option}: {check} {}", self.answer(host, check))).collect()
    }

    fn said(&self) -> String {
        String::from_utf8_lossy(&self.output.stderr).into_owned()
    }
}

/// Entries of system calls in `/proc/kallsyms` of a kernel, with their letter: see nm(1).
fn symbols(suite: &str) -> BTreeMap<String, char> {
    let text = format!("[[host]]\nname = 'v'\nvm = {{ kernel = {{ suite = '{suite}' }} }}\n");
    let matrix = resolve(&text, "m.toml", &World { base: "/".into(), exists: &|_| true }).unwrap();
    let cache = std::env::var_os("HOME").map(PathBuf::from).unwrap().join(".cache/abicus");
    let guest = abicus::host::open(&matrix.hosts[0], &cache);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let text = runtime.block_on(async {
        let text = guest.read("/proc/kallsyms", 64 << 20).await.unwrap();
        guest.leave().await;
        String::from_utf8(text).unwrap()
    });
    let entries = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace().skip(1);
        let letter = words.next()?.chars().next()?;
        Some((words.next()?.strip_prefix("__x64_sys_")?.to_owned(), letter))
    });
    entries.collect()
}

/// Calls whose entry has another name, or that are for 32-bit programs only: arch/x86/entry/syscalls/syscall_64.tbl. And
/// one that answers ENOSYS until `secretmem.enable` is on, as it is by default since 6.5: memfd_secret(2).
const ALIASES: [(&str, &str); 5] =
    [("umount2", "umount"), ("get_thread_area", "-"), ("set_thread_area", "-"), ("uselib", "-"), ("memfd_secret", "-")];

/// Options of the kernel, what each brings, and since when where the kernels differ: `Kconfig` files, syscalls(2).
const BROUGHT: [(&str, &str, &[u32]); 24] = [
    ("AIO", "syscall.io_setup", &[]),
    ("BPF_SYSCALL", "syscall.bpf", &[]),
    ("CROSS_MEMORY_ATTACH", "syscall.process_vm_readv", &[]),
    ("FANOTIFY", "syscall.fanotify_init", &[]),
    ("FHANDLE", "syscall.name_to_handle_at", &[]),
    ("IA32_EMULATION", "entry.int80", &[]),
    ("IO_URING", "syscall.io_uring_setup", &[]),
    ("IPC_NS", "ns.ipc", &[]),
    ("KEYS", "syscall.keyctl", &[]),
    ("MEMBARRIER", "syscall.membarrier", &[]),
    ("MODIFY_LDT_SYSCALL", "syscall.modify_ldt", &[]),
    ("NET_NS", "ns.net", &[]),
    ("NUMA", "syscall.mbind", &[]),
    ("PID_NS", "ns.pid", &[]),
    ("POSIX_MQUEUE", "syscall.mq_open", &[]),
    ("RSEQ", "syscall.rseq", &[]),
    ("SECCOMP_FILTER", "syscall.seccomp", &[]),
    ("SECURITY_LANDLOCK", "syscall.landlock_create_ruleset", &[5, 13]),
    ("SYSVIPC", "syscall.semget", &[]),
    ("TIME_NS", "ns.time", &[]),
    ("USERFAULTFD", "syscall.userfaultfd", &[]),
    ("USER_NS", "ns.user", &[]),
    ("UTS_NS", "ns.uts", &[]),
    ("X86_IOPL_IOPERM", "syscall.ioperm", &[]),
];

/// What guests wrote to their consoles, by host.
fn consoles(run: &Path) -> BTreeMap<String, String> {
    let hosts = fs::read_dir(run.join("evidence")).unwrap().flatten();
    let read = |path: &Path| zstd::decode_all(fs::File::open(path.join("console.zst")).ok()?).ok();
    hosts
        .filter_map(|host| {
            let said = String::from_utf8_lossy(&read(&host.path())?).into_owned();
            Some((host.file_name().into_string().unwrap(), said))
        })
        .collect()
}

fn run() -> Seen {
    let directory = tempfile::tempdir().unwrap();
    let (reports, temporary) = (directory.path().join("reports"), directory.path().join("tmp"));
    fs::create_dir(&temporary).unwrap();
    fs::write(directory.path().join("matrix.toml"), MATRIX).unwrap();
    fs::write(directory.path().join("vmlinuz"), b"this is no kernel").unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_abicus"))
        .current_dir(directory.path())
        .args(["run", "--no-controls", "--reports"])
        .arg(&reports)
        .env("TMPDIR", &temporary)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let run = fs::read_dir(&reports).unwrap_or_else(|e| panic!("{e}: {said}")).next().unwrap().unwrap().path();
    let cells = rows(&run.join("cells.csv")).into_iter().map(|row| (row["cell"].clone(), row)).collect();
    let left = fs::read_dir(&temporary).unwrap().map(|entry| entry.unwrap().path()).collect();
    let left_running = guests(directory.path().to_str().unwrap());
    let (consoles, results) = (consoles(&run), rows(&run.join("results.csv")));
    let run = load(&run).unwrap();
    Seen { output, cells, results, run, temporary: left, left_running, consoles }
}

#[test]
#[ignore = "virtual fleet: ci/fleet"]
fn two_kernels_differ_as_they_must_and_three_broken_guests_cost_their_own_cells() {
    let seen = run();
    // 1 where the old kernel lacks something that programs must have, 3 because cells of broken guests could not run.
    assert!(matches!(seen.output.status.code(), Some(1 | 3)), "{}", seen.said());
    let names: BTreeSet<&str> = seen.cells.keys().map(String::as_str).collect();
    assert_eq!(names.len(), 10, "{names:?}");
    for (host, release) in [("old", "5.10."), ("new", "6.1.")] {
        for cell in [format!("{host}:native:-"), format!("{host}:built-in:scratch")] {
            let row = &seen.cells[&cell];
            assert!(row["host.kernel.release"].starts_with(release), "{cell}: {row:?}");
            assert_eq!(row["error"], "0", "{cell}: {row:?}");
            assert!(row["pass"].parse::<u32>().unwrap() > 1000, "{cell}: {row:?}");
        }
    }
    for (host, reason) in [
        ("none", "qemu: "),
        ("panics", "the kernel panicked: VFS: Unable to mount root fs"),
        ("hangs", "did not answer within 25 s; its console ends with: "),
    ] {
        for cell in [format!("{host}:native:-"), format!("{host}:built-in:scratch")] {
            let row = &seen.cells[&cell];
            assert_eq!(row["verdict"], "error", "{row:?}");
            assert!(row["fault"].contains(reason), "{row:?}");
            assert!(!row["fault"].contains("No such file"), "the file that is no kernel was found: {row:?}");
        }
    }
    for (host, said) in [("old", "Linux version 5.10."), ("panics", "Kernel panic"), ("hangs", "Run /init")] {
        assert!(seen.consoles[host].contains(said), "{host}: {:?}", seen.consoles[host]);
    }
    // It warns of a program that was started without a name, once per boot, so no other test sees it twice.
    assert!(!seen.consoles["new"].contains("NULL argv"), "{}", seen.consoles["new"]);
    // Newer than 5.10 and not than 6.1; newer than both; in both. Kernel versions: syscalls(2).
    for (call, old, new) in [
        ("futex_waitv", false, true),
        ("landlock_create_ruleset", false, true),
        ("mseal", false, false),
        ("cachestat", false, false),
        ("clone3", true, true),
    ] {
        for (host, there) in [("old", old), ("new", new)] {
            let answer = seen.answer(host, &format!("syscall.{call}"));
            assert_eq!(answer != "ENOSYS", there, "{call} on {host}: {answer}");
        }
    }
    for (host, suite) in [("old", "bullseye"), ("new", "bookworm")] {
        assert_eq!(seen.against_symbols(host, &symbols(suite)), Vec::<String>::new(), "{host}");
        assert_eq!(seen.against_options(host), Vec::<String>::new(), "{host}");
        assert_eq!(seen.answer(host, "ns.mnt"), "", "its number tells nothing before 6.18, so it is not asked");
    }
    assert!(seen.temporary.is_empty(), "left behind: {:?}", seen.temporary);
    assert!(seen.left_running.is_empty(), "{:?}", seen.left_running);
}

/// Two machines with so many cells, one after the other, that both are in the middle when one of them has ended.
const LONG: &str = r#"
[defaults]
timeout = "60s"
retries = 0
[[host]]
name = "victim"
vm = { kernel = { suite = "bookworm" }, cmdline = "abicus.test=victim" }
parallel = 1
[[host]]
name = "other"
vm = { kernel = { suite = "bookworm" }, cmdline = "abicus.test=other" }
parallel = 1
[[engine]]
name = "built-in"
kind = "built-in"
[[image]]
name = "a"
scratch = true
[[image]]
name = "b"
scratch = true
[[image]]
name = "c"
scratch = true
"#;

/// A run of which the first cell of `victim` has ended.
struct Begun {
    driver: Child,
    said: std::io::Lines<BufReader<std::process::ChildStderr>>,
    directory: tempfile::TempDir,
}

impl Begun {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("tmp")).unwrap();
        fs::write(directory.path().join("matrix.toml"), LONG).unwrap();
        let mut driver = Command::new(env!("CARGO_BIN_EXE_abicus"))
            .current_dir(directory.path())
            .args(["run", "--no-controls"])
            .env("TMPDIR", directory.path().join("tmp"))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let said = BufReader::new(driver.stderr.take().unwrap()).lines();
        let mut begun = Self { driver, said, directory };
        let in_the_middle = begun.said.by_ref().any(|line| line.unwrap().contains("] victim:"));
        assert!(in_the_middle, "it ended without a cell of the victim");
        begun
    }

    fn guests(&self) -> BTreeMap<String, String> {
        guests(self.directory.path().to_str().unwrap())
    }

    /// Waits until no machine and no directory of one is left.
    fn leaves_nothing(&self) {
        let left = || {
            let places = fs::read_dir(self.directory.path().join("tmp")).unwrap().map(|entry| entry.unwrap().path());
            (self.guests(), places.collect::<Vec<_>>())
        };
        for _ in 0..100 {
            let (guests, places) = left();
            if guests.is_empty() && places.is_empty() {
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        panic!("left behind: {:?}", left());
    }
}

fn kill(process: &str) {
    assert!(Command::new("kill").args(["-9", process]).status().unwrap().success());
}

#[test]
#[ignore = "virtual fleet: ci/fleet"]
fn a_guest_that_dies_in_mid_run_costs_its_own_cells() {
    let mut run = Begun::new();
    let guests = run.guests();
    let victim = guests.iter().find(|(_, line)| line.contains("abicus.test=victim")).map(|(process, _)| process);
    kill(victim.unwrap_or_else(|| panic!("{guests:?}")));
    let said: Vec<String> = run.said.by_ref().map(Result::unwrap).collect();
    assert_eq!(run.driver.wait().unwrap().code(), Some(3), "{said:#?}");
    let made = fs::read_dir(run.directory.path().join("reports")).unwrap().next().unwrap().unwrap().path();
    let cells = rows(&made.join("cells.csv"));
    assert_eq!(cells.len(), 6);
    let (broken, fine): (Vec<_>, Vec<_>) = cells.iter().partition(|row| row["verdict"] == "error");
    assert!(matches!(broken.len(), 1 | 2), "one had ended before: {cells:?}");
    for row in broken {
        assert_eq!(row["host"], "victim", "{row:?}");
        assert!(row["fault"].contains("the virtual machine ended; its console ends with: "), "{row:?}");
    }
    assert!(fine.iter().all(|row| row["error"] == "0" && row["miss"] == "0"), "{fine:?}");
    assert!(consoles(&made)["victim"].contains("Linux version"));
    run.leaves_nothing();
}

#[test]
#[ignore = "virtual fleet: ci/fleet"]
fn a_driver_that_is_killed_takes_its_machines_along_and_its_run_goes_on() {
    let mut run = Begun::new();
    assert_eq!(run.guests().len(), 2);
    kill(&run.driver.id().to_string());
    assert!(!run.driver.wait().unwrap().success());
    run.leaves_nothing();
    let again = Command::new(env!("CARGO_BIN_EXE_abicus"))
        .current_dir(run.directory.path())
        .args(["run", "--resume", "last"])
        .env("TMPDIR", run.directory.path().join("tmp"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&again.stderr);
    let made = fs::read_dir(run.directory.path().join("reports")).unwrap().next().unwrap().unwrap().path();
    let cells = rows(&made.join("cells.csv"));
    assert!(
        cells.len() == 6 && cells.iter().all(|row| row["error"] == "0" && !row["pass"].is_empty()),
        "{said}\n{cells:?}"
    );
    run.leaves_nothing();
}

/// Machine `full` has less room behind its disk than the engine in it needs for an image.
const FULL: &str = r#"
[defaults]
timeout = "120s"
[[host]]
name = "full"
vm = { disk = { suite = "bookworm" } }
[[host]]
name = "other"
vm = { kernel = { suite = "bookworm" } }
[[engine]]
name = "native"
kind = "native"
[[engine]]
name = "docker"
kind = "docker"
"#;

#[test]
#[ignore = "virtual fleet: ci/fleet --full"]
fn a_guest_whose_disk_is_full_in_mid_run_costs_its_own_cells() {
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir(directory.path().join("tmp")).unwrap();
    let fixtures = std::env::var("ABICUS_FIXTURES").expect("ABICUS_FIXTURES: run ci/fixtures first");
    let image = format!("[[image]]\nname = 'debian'\nrootfs = '{fixtures}/bookworm'\n");
    fs::write(directory.path().join("matrix.toml"), format!("{FULL}{image}")).unwrap();
    // The mount is the driver's alone, and ends with it.
    let small = "mount -t tmpfs -o size=48m tmpfs tmp && exec \"$@\"";
    let output = Command::new("unshare")
        .current_dir(directory.path())
        .args(["--mount", "--propagation", "private", "sh", "-c", small, "sh", env!("CARGO_BIN_EXE_abicus")])
        .args(["run", "--no-controls"])
        .env("TMPDIR", directory.path().join("tmp"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    // 1 where what could still be written was not enough for a check that must pass.
    assert!(matches!(output.status.code(), Some(1 | 3)), "{said}");
    let made = fs::read_dir(directory.path().join("reports")).unwrap().next().unwrap().unwrap().path();
    let cells: BTreeMap<_, _> =
        rows(&made.join("cells.csv")).into_iter().map(|row| (row["cell"].clone(), row)).collect();
    let broken = &cells["full:docker:debian"];
    assert_eq!(broken["verdict"], "error", "{broken:?}");
    assert!(broken["fault"].contains("import image `debian`") && broken["hint"].contains("TMPDIR"), "{broken:?}");
    let fine = &cells["other:native:-"];
    assert_eq!([&*fine["error"], &*fine["miss"]], ["0", "0"], "{fine:?}");
    assert_eq!(guests(directory.path().to_str().unwrap()), BTreeMap::new());
}

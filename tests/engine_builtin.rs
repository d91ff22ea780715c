//! The built-in engine, as root and as an ordinary user, against the kernel of this machine.
//!
//! Cells are scratch with a static busybox in the payload, so that what is seen is the engine's work and no image's. The
//! tests need root (`ci/test` has it) and the Debian packages busybox-static and util-linux.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use abicus::engine::builtin::BuiltIn;
use abicus::engine::{Attempt, Ended, Engine, EngineOptions, Job, Payload, Prepared};
use abicus::fault::Phase;
use abicus::image::{Content, Image};
use abicus::probes;

/// Set in a copy of this test program that runs as an ordinary user.
const AS_USER: &str = "ABICUS_TEST_AS_USER";

struct Bench {
    dir: tempfile::TempDir,
    job: Job,
}

impl Bench {
    fn new() -> Self {
        assert!(is_root() || std::env::var_os(AS_USER).is_some(), "these tests make cells as root: run them as root");
        let dir = tempfile::Builder::new().prefix("abicus-test-").tempdir_in("/var/tmp").unwrap();
        let payload = dir.path().join("payload");
        fs::create_dir(&payload).unwrap();
        for (name, bytes) in [("kernel", probes::KERNEL.to_vec()), ("busybox", busybox())] {
            fs::write(payload.join(name), bytes).unwrap();
            fs::set_permissions(payload.join(name), fs::Permissions::from_mode(0o755)).unwrap();
        }
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let job = Job {
            run: "01TEST".parse().unwrap(),
            cell: "local:built-in:scratch".parse().unwrap(),
            attempt: 1,
            argv: vec![],
            payload: Arc::new(Payload { dir: payload, digest: "none".to_owned() }),
            deadline: Duration::from_secs(20),
            output_cap: 1 << 20,
        };
        Self { dir, job }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn engine(&self, options: &str) -> BuiltIn {
        BuiltIn::new(&toml::from_str::<EngineOptions>(options).unwrap(), &self.path("work")).unwrap()
    }

    fn run(&self, options: &str, content: Content, argv: &[&str]) -> Attempt {
        let job = Job { argv: argv.iter().map(|s| (*s).to_owned()).collect(), ..self.job.clone() };
        run(&self.engine(options), &job, content)
    }

    /// A shell in a scratch cell.
    fn sh(&self, options: &str, script: &str) -> Attempt {
        self.run(options, Content::Empty, &["/.abicus/busybox", "sh", "-c", &format!("{TOOLS}{script}")])
    }

    /// What a shell in a scratch cell says, which must succeed.
    fn says(&self, options: &str, script: &str) -> String {
        said(&self.sh(options, script))
    }
}

/// Every command is busybox's.
const TOOLS: &str = "b() { /.abicus/busybox \"$@\"; }\n";

fn said(attempt: &Attempt) -> String {
    let text = String::from_utf8(attempt.stdout.clone()).unwrap();
    assert_eq!(attempt.ended, Ok(Ended::Exit(0)), "{text}\n{}", String::from_utf8_lossy(&attempt.stderr));
    text
}

fn image(content: Content) -> Image {
    Image {
        id: "test".parse().unwrap(),
        digest: "none".to_owned(),
        content,
        architecture: None,
        loader: None,
        facts: Default::default(),
    }
}

fn run(engine: &BuiltIn, job: &Job, content: Content) -> Attempt {
    runtime().block_on(async {
        let prepared = engine.prepare(&image(content)).await.unwrap();
        engine.run(job, &prepared).await
    })
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

fn busybox() -> Vec<u8> {
    fs::read("/bin/busybox").expect("/bin/busybox: install busybox-static")
}

fn is_root() -> bool {
    rustix_uid() == 0
}

fn rustix_uid() -> u32 {
    use std::os::unix::fs::MetadataExt;
    fs::metadata("/proc/self").unwrap().uid()
}

/// Runs one of the `user_` tests below in a copy of this program, as a user without a name and without subordinate ids.
fn as_user(test: &str) {
    let program = std::env::current_exe().unwrap();
    // The build directory may be in a home only root may enter.
    let dir = tempfile::Builder::new().prefix("abicus-test-").tempdir_in("/var/tmp").unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let copy = dir.path().join("tests");
    fs::copy(program, &copy).unwrap();
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

fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(10), "{what} still does not hold after 10 s");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Processes of this machine whose command line has `mark` in it.
fn processes(mark: &str) -> Vec<u32> {
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

// What a cell is

#[test]
fn a_cell_is_a_machine_of_its_own() {
    let bench = Bench::new();
    let text =
        bench.says("", "echo $$; b hostname; b id; b cat /proc/1/comm; b ls /; b ip -o addr | b grep -c 127.0.0.1");
    assert_eq!(text, "1\nabicus\nuid=0 gid=0 groups=0\nbusybox\ndev\netc\nproc\nsys\n1\n");
}

#[test]
fn a_cell_has_dockers_devices_and_names() {
    let bench = Bench::new();
    let script = "for d in null zero full random urandom tty; do [ -c /dev/$d ] || echo no $d; done
        for l in fd stdin stdout stderr ptmx core; do [ -L /dev/$l ] || echo no $l; done
        echo gone >/dev/null; b head -c 3 /dev/zero | b wc -c
        b grep -c localhost /etc/hosts; b cat /etc/hostname; b cat <&0 | b wc -c
        echo x >/dev/shm/x && b stat -c '%a %t' /dev/shm /dev/pts";
    assert_eq!(bench.says("", script), "3\n2\nabicus\n0\n1777 0\n755 0\n");
}

#[test]
fn mounts_are_dockers_and_the_host_is_out_of_sight() {
    let bench = Bench::new();
    let mounts = bench.says("", "b cat /proc/mounts");
    let of = |at: &str| {
        mounts.lines().find(|line| line.split(' ').nth(1) == Some(at)).unwrap_or_else(|| panic!("{at}\n{mounts}"))
    };
    for at in ["/", "/proc", "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue", "/sys", "/etc/hosts", "/.abicus"] {
        of(at);
    }
    assert!(of("/sys").contains("ro,nosuid,nodev,noexec"), "{mounts}");
    assert!(of("/.abicus").contains("ro,nosuid,nodev"), "{mounts}");
    assert!(of("/proc/sys").contains("ro,nosuid,nodev,noexec"), "{mounts}");
    assert!(
        of("/proc/timer_list").starts_with("tmpfs /proc/timer_list"),
        "masked by a node of the cell's own /dev: {mounts}"
    );
    assert!(!mounts.contains("abicus-test"), "a path of the host shows:\n{mounts}");
    let refused =
        bench.says("", "b touch /.abicus/x 2>&1; echo x 2>&1 >/proc/sys/kernel/hostname; b wc -c </proc/timer_list");
    assert!(refused.contains("Read-only file system") && refused.ends_with("\n0\n"), "{refused}");
}

#[test]
fn descriptors_of_the_driver_do_not_reach_a_cell() {
    let bench = Bench::new();
    assert_eq!(bench.says("", "b ls /proc/self/fd | b tr '\\n' ' '"), "0 1 2 3 ", "3 is the directory ls reads");
}

#[test]
fn the_policy_is_dockers_unless_the_options_change_it() {
    let bench = Bench::new();
    let status = |options: &str| {
        let text = bench.says(options, "b grep -E '^(Cap|Seccomp:|NoNewPrivs)' /proc/self/status");
        text.replace('\t', "").lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let default = status("");
    assert_eq!(default[0], "CapInh:0000000000000000");
    for set in ["CapPrm", "CapEff", "CapBnd"] {
        assert!(default.contains(&format!("{set}:00000000a80425fb")), "{default:?}");
    }
    assert!(default.contains(&"Seccomp:2".to_owned()) && default.contains(&"NoNewPrivs:0".to_owned()));
    assert!(status("seccomp = 'unconfined'").contains(&"Seccomp:0".to_owned()));
    let dropped = status("capabilities = { drop = ['ALL'], add = ['CHOWN'] }");
    assert!(dropped.contains(&"CapBnd:0000000000000001".to_owned()), "{dropped:?}");
    let privileged = bench.says(
        "privileged = true",
        "b mount -t tmpfs x /etc && echo mounted; b grep -c /proc/timer_list /proc/mounts; true",
    );
    assert_eq!(privileged, "mounted\n0\n");
}

#[test]
fn options_reach_the_cell() {
    let bench = Bench::new();
    let says = |options: &str, script: &str| bench.says(options, script);
    assert_eq!(
        says("user = '1000:1001'", "b id -u; b id -g; b grep CapEff /proc/self/status"),
        "1000\n1001\nCapEff:\t0000000000000000\n"
    );
    assert!(says("read_only = true", "echo x 2>&1 >/etc/x; echo y >/dev/shm/y").contains("Read-only"));
    assert_eq!(
        says("tmpfs = ['/t:size=64k,mode=700']", "b df -k /t | b tail -1 | b awk '{print $2}'; b stat -c %a /t"),
        "64\n700\n"
    );
    assert_eq!(says("ulimits = { nofile = { soft = 17, hard = 18 } }", "ulimit -n; ulimit -Hn"), "17\n18\n");
    assert_eq!(says("shm_size = '1m'", "b df -k /dev/shm | b tail -1 | b awk '{print $2}'"), "1024\n");
    assert_eq!(
        says("userns = 'private'", "b awk '{print $1, $2, $3}' /proc/self/uid_map; b id -u"),
        "0 0 4294967295\n0\n"
    );
    let host = fs::read_link("/proc/self/ns/net").unwrap().to_string_lossy().into_owned();
    assert_eq!(says("network = 'host'", "b readlink /proc/self/ns/net").trim(), host);
    assert_ne!(says("", "b readlink /proc/self/ns/net").trim(), host);
}

#[test]
fn a_profile_file_is_in_force_and_a_bad_one_is_refused() {
    let bench = Bench::new();
    let profile = bench.path("profile.json");
    let text = r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir"],"action":"SCMP_ACT_ERRNO","errnoRet":95}]}"#;
    fs::write(&profile, text).unwrap();
    let options = format!("seccomp = '{}'", profile.display());
    let attempt = bench.sh(&options, "b mkdir /x 2>&1; b touch /y && echo made");
    assert_eq!(said(&attempt), "mkdir: can't create directory '/x': Operation not supported\nmade\n");
    fs::write(&profile, "{}").unwrap();
    let refused = BuiltIn::new(&toml::from_str(&options).unwrap(), &bench.path("work")).err().unwrap();
    assert!(refused.cause.contains("profile.json") && refused.cause.contains("defaultAction"), "{refused}");
}

// Images

/// A tree with a shell and nothing else.
fn tree(bench: &Bench, name: &str) -> PathBuf {
    let tree = bench.path(name);
    fs::create_dir_all(tree.join("bin")).unwrap();
    fs::write(tree.join("bin/busybox"), busybox()).unwrap();
    fs::set_permissions(tree.join("bin/busybox"), fs::Permissions::from_mode(0o755)).unwrap();
    tree
}

fn listing(tree: &Path) -> String {
    let output =
        std::process::Command::new("find").arg(tree).args(["-printf", "%P %y %m %s %T@ %l\\n"]).output().unwrap();
    let mut lines: Vec<_> = String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect();
    lines.sort();
    lines.join("\n")
}

fn image_stays_untouched(bench: &Bench) {
    let tree = tree(bench, "tree");
    fs::write(tree.join("old"), "old").unwrap();
    let before = listing(&tree);
    let script = "b() { /bin/busybox \"$@\"; }; echo new >/new && echo changed >/old && b rm /bin/busybox";
    let attempt = bench.run("", Content::Tree(tree.clone()), &["/bin/busybox", "sh", "-c", script]);
    assert_eq!(said(&attempt), "");
    assert_eq!(listing(&tree), before);
}

#[test]
fn an_image_stays_untouched() {
    image_stays_untouched(&Bench::new());
}

#[test]
fn links_in_an_image_do_not_lead_to_the_host() {
    let bench = Bench::new();
    let tree = tree(&bench, "tree");
    let outside = bench.path("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("hosts"), "precious").unwrap();
    for (at, to) in
        [("etc", outside.as_path()), ("dev", &outside), ("sys", Path::new("../../../..")), (".abicus", &outside)]
    {
        std::os::unix::fs::symlink(to, tree.join(at)).unwrap();
    }
    // Inside the cell the links dangle: the directories they name are not there.
    let attempt = bench.run("", Content::Tree(tree.clone()), &["/bin/busybox", "true"]);
    assert_eq!(attempt.ended.unwrap_err().phase, Phase::Create);
    assert_eq!(fs::read_to_string(outside.join("hosts")).unwrap(), "precious");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
    // A link whose target exists inside is followed inside.
    for at in ["etc", "dev", "sys", ".abicus"] {
        fs::remove_file(tree.join(at)).unwrap();
    }
    fs::create_dir_all(tree.join("usr/etc")).unwrap();
    std::os::unix::fs::symlink("usr/etc", tree.join("etc")).unwrap();
    std::os::unix::fs::symlink("/nowhere/at/all", tree.join("usr/etc/resolv.conf")).unwrap();
    let attempt = bench.run("", Content::Tree(tree), &["/bin/busybox", "cat", "/usr/etc/hostname", "/etc/resolv.conf"]);
    assert_eq!(said(&attempt), "abicus\n# this cell has no network\n");
}

#[test]
fn a_user_is_looked_up_in_the_image() {
    let bench = Bench::new();
    let tree = tree(&bench, "tree");
    fs::create_dir(tree.join("etc")).unwrap();
    fs::write(tree.join("etc/passwd"), "root:x:0:0:::\nann:x:7:8:::\n").unwrap();
    let attempt = bench.run("user = 'ann'", Content::Tree(tree.clone()), &["/bin/busybox", "id"]);
    assert_eq!(said(&attempt), "uid=7(ann) gid=8 groups=8\n");
    let attempt = bench.run("user = 'bob'", Content::Tree(tree), &["/bin/busybox", "id"]);
    assert!(attempt.ended.unwrap_err().cause.contains("`bob`"));
}

// How programs end

#[test]
fn how_a_program_ended_is_told_exactly() {
    let bench = Bench::new();
    assert_eq!(bench.sh("", "exit 7").ended, Ok(Ended::Exit(7)));
    assert_eq!(bench.sh("", "exit 127").ended, Ok(Ended::Exit(127)));
    assert_eq!(bench.sh("", "exit 125").ended, Ok(Ended::Exit(125)));
    // The first process of a pid namespace ignores what it has no handler for, so a fault has to be a real one.
    let profile = bench.path("kill.json");
    fs::write(
        &profile,
        r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir"],"action":"SCMP_ACT_KILL_PROCESS"}]}"#,
    )
    .unwrap();
    let attempt =
        bench.run(&format!("seccomp = '{}'", profile.display()), Content::Empty, &["/.abicus/busybox", "mkdir", "/x"]);
    assert_eq!(attempt.ended, Ok(Ended::Signal(31)));
}

#[test]
fn a_program_that_is_not_there_is_a_fault_and_no_exit_status() {
    let bench = Bench::new();
    for argv in ["/no/such/program", "no-such-program", "/etc"] {
        let attempt = bench.run("", Content::Empty, &[argv]);
        let fault = attempt.ended.unwrap_err();
        assert_eq!(fault.phase, Phase::Start, "{fault}");
        assert!(fault.cause.contains(argv), "{fault}");
        assert!(!fault.transient);
    }
}

#[test]
fn a_program_past_its_deadline_is_killed_with_its_children_and_its_output_kept() {
    let mut bench = Bench::new();
    bench.job.deadline = Duration::from_millis(400);
    let begun = Instant::now();
    let attempt = bench.sh("", "echo before; b sh -c 'trap \"\" TERM; b sleep 4711.5' & trap '' TERM; b sleep 4711.5");
    assert_eq!(attempt.ended, Ok(Ended::Deadline));
    assert_eq!(attempt.stdout, b"before\n");
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert!(processes("4711.5").is_empty());
}

#[test]
fn a_flood_of_output_ends_at_the_cap() {
    let mut bench = Bench::new();
    bench.job.output_cap = 100_000;
    for (script, cap) in [("b yes", Ended::OutputCap), ("b yes >&2", Ended::OutputCap)] {
        let attempt = bench.sh("", script);
        assert_eq!(attempt.ended, Ok(cap));
        assert_eq!(attempt.stdout.len() + attempt.stderr.len(), 100_000);
    }
    let exact = bench.sh("", "b head -c 100000 /dev/zero");
    assert_eq!((exact.ended, exact.stdout.len()), (Ok(Ended::Exit(0)), 100_000));
}

#[test]
fn a_memory_limit_is_in_force_and_its_victim_is_told_from_others() {
    let bench = Bench::new();
    let grow = "b tail /dev/zero";
    let attempt = bench.run("memory = '32m'", Content::Empty, &["/.abicus/busybox", "tail", "/dev/zero"]);
    assert_eq!(attempt.ended, Ok(Ended::OutOfMemory), "{:?}", attempt.notes);
    // In a child the shell survives: the cell ended as its first process did.
    assert_eq!(bench.sh("memory = '32m'", &format!("{grow}; echo $?")).stdout, b"Killed\n137\n".split_off_killed());
    let left = bench.engine("memory = '32m'");
    assert_eq!(runtime().block_on(left.sweep(Some(&bench.job.run))).unwrap(), Vec::<String>::new());
}

/// busybox says `Killed` on standard error.
trait SplitOffKilled {
    fn split_off_killed(&self) -> Vec<u8>;
}
impl SplitOffKilled for [u8; 11] {
    fn split_off_killed(&self) -> Vec<u8> {
        self[7..].to_vec()
    }
}

#[test]
fn a_process_limit_is_in_force() {
    let bench = Bench::new();
    let attempt = bench.sh("pids_limit = 5", "for i in 1 2 3 4 5 6 7 8; do b sleep 1 & done 2>&1; echo");
    let text = String::from_utf8_lossy(&attempt.stdout).into_owned() + &String::from_utf8_lossy(&attempt.stderr);
    assert!(text.contains("can't fork"), "{text}");
}

// Nothing is left

#[test]
fn killing_the_driver_ends_the_cell_and_leaves_nothing() {
    let bench = Bench::new();
    let driver = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_driver_to_be_killed", "--ignored", "--nocapture"])
        .env("ABICUS_TEST_DIR", bench.dir.path())
        .spawn()
        .unwrap();
    let mark = format!("4712.{}", std::process::id());
    let _ = &mark;
    wait_until("the cell runs", || !processes("4712.5").is_empty());
    let mounts = || fs::read_to_string("/proc/self/mounts").unwrap();
    let before = mounts();
    let mut driver = driver;
    driver.kill().unwrap();
    driver.wait().unwrap();
    wait_until("the cell is gone", || {
        processes("4712.5").is_empty()
            && processes("/work/launch-").iter().all(|pid| {
                // Other tests' launchers live in other directories.
                let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                !String::from_utf8_lossy(&line).contains(&*bench.dir.path().to_string_lossy())
            })
    });
    assert!(!before.contains(&*bench.dir.path().to_string_lossy()), "a cell's mounts show on the host:\n{before}");
    let groups = bench.engine("memory = '64m'");
    wait_until("no control group is left", || {
        runtime().block_on(groups.sweep(Some(&"01KILLED".parse().unwrap()))).unwrap().is_empty()
    });
}

/// Not a test: the driver of the test above.
#[test]
#[ignore = "started by another test"]
fn a_driver_to_be_killed() {
    let Some(dir) = std::env::var_os("ABICUS_TEST_DIR") else { return };
    let mut bench = Bench::new();
    bench.job.run = "01KILLED".parse().unwrap();
    let options = toml::from_str::<EngineOptions>("memory = '64m'").unwrap();
    let engine = BuiltIn::new(&options, &Path::new(&dir).join("work")).unwrap();
    let script = "/.abicus/busybox sleep 4712.5 & /.abicus/busybox sleep 4712.5";
    let job = Job { argv: ["/.abicus/busybox", "sh", "-c", script].map(str::to_owned).to_vec(), ..bench.job.clone() };
    run(&engine, &job, Content::Empty);
}

#[test]
fn a_job_that_is_given_up_ends_its_cell() {
    let bench = Bench::new();
    let engine = bench.engine("");
    let job = Job { argv: ["/.abicus/busybox", "sleep", "4713.5"].map(str::to_owned).to_vec(), ..bench.job.clone() };
    runtime().block_on(async {
        let prepared = Prepared("empty".to_owned());
        let run = engine.run(&job, &prepared);
        assert!(tokio::time::timeout(Duration::from_millis(500), run).await.is_err());
    });
    wait_until("the cell is gone", || processes("4713.5").is_empty());
}

#[test]
fn many_cells_at_once_leave_no_process_and_no_descriptor() {
    let bench = Bench::new();
    let engine = Arc::new(bench.engine(""));
    let job = Job { argv: ["/.abicus/busybox", "echo", "here"].map(str::to_owned).to_vec(), ..bench.job.clone() };
    let descriptors = || fs::read_dir("/proc/self/fd").unwrap().count();
    let runtime = runtime();
    let cells = |n: usize| {
        runtime.block_on(async {
            let tasks: Vec<_> = (0..n)
                .map(|_| {
                    let (engine, job) = (engine.clone(), job.clone());
                    tokio::spawn(async move { engine.run(&job, &Prepared("empty".to_owned())).await })
                })
                .collect();
            for task in tasks {
                assert_eq!(said(&task.await.unwrap()), "here\n");
            }
        });
    };
    cells(4);
    let before = descriptors();
    cells(40);
    // Other tests of this program open files meanwhile: only a leak grows with the number of cells.
    assert!(descriptors() < before + 40, "{before} descriptors became {}", descriptors());
}

// An ordinary user

#[test]
fn an_ordinary_user_gets_cells_too() {
    as_user("user_a_cell");
}

#[test]
#[ignore = "started as an ordinary user by another test"]
fn user_a_cell() {
    let bench = Bench::new();
    let text = bench.says(
        "",
        "echo $$; b id -u; b hostname; b awk '{print $1, $2, $3}' /proc/self/uid_map; b ip -o addr | b grep -c 127",
    );
    assert_eq!(text, "1\n0\nabicus\n0 12345 1\n1\n");
    let status = bench.says("", "b grep -E '^(CapBnd|Seccomp:)' /proc/self/status");
    assert_eq!(status, "CapBnd:\t00000000a80425fb\nSeccomp:\t2\n");
    let script = "echo gone >/dev/null; b head -c 3 /dev/zero | b wc -c; echo x 2>&1 >/proc/sys/kernel/hostname; b wc -c </proc/timer_list";
    let text = bench.says("", script);
    assert!(text.starts_with("3\n") && text.contains("Read-only") && text.ends_with("\n0\n"), "{text}");
    assert_eq!(bench.says("network = 'host'", "b ls /sys/class/net | b grep -c lo"), "1\n");
    assert_eq!(bench.sh("", "exit 9").ended, Ok(Ended::Exit(9)));
    assert_eq!(bench.run("", Content::Empty, &["/none"]).ended.unwrap_err().phase, Phase::Start);
    image_stays_untouched(&bench);
}

#[test]
fn an_ordinary_user_is_told_what_is_lacking() {
    as_user("user_lacks");
}

#[test]
#[ignore = "started as an ordinary user by another test"]
fn user_lacks() {
    let bench = Bench::new();
    let fault = bench.sh("memory = '32m'", "true").ended.unwrap_err();
    assert!(fault.cause.contains("no memory limit") && fault.hint.is_some(), "{fault}");
    let fault = bench.sh("user = '5'", "true").ended.unwrap_err();
    assert!(fault.cause.contains("only one user"), "{fault}");
    let facts = runtime().block_on(bench.engine("").fingerprint()).unwrap();
    assert_eq!(facts["engine.identity"], "user namespace, one id");
    assert!(facts["engine.can.memory-limit"].starts_with("no: "), "{facts:?}");
    assert_eq!(facts["engine.can.user-namespaces"], "yes");
    let refused = BuiltIn::new(&toml::from_str("userns = 'host'").unwrap(), &bench.path("work")).err().unwrap();
    assert!(refused.cause.contains("needs root"), "{refused}");
}

#[test]
fn a_host_that_forbids_user_namespaces_is_reported_with_the_switch_that_does() {
    // In a user namespace of its own the limit can be set to 0 without harm to anybody else.
    let dir = tempfile::Builder::new().prefix("abicus-test-").tempdir_in("/var/tmp").unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let copy = dir.path().join("tests");
    fs::copy(std::env::current_exe().unwrap(), &copy).unwrap();
    let mut holder = std::process::Command::new("unshare")
        .args(["--user", "sleep", "60"])
        .spawn()
        .expect("unshare: install util-linux");
    let own = fs::read_link("/proc/self/ns/user").unwrap();
    let of_holder = format!("/proc/{}", holder.id());
    wait_until("unshare has unshared", || fs::read_link(format!("{of_holder}/ns/user")).is_ok_and(|ns| ns != own));
    for map in ["uid_map", "gid_map"] {
        fs::write(format!("{of_holder}/{map}"), "0 0 65536\n").unwrap();
    }
    let script = "echo 0 >/proc/sys/user/max_user_namespaces && exec setpriv --reuid=12345 --regid=12345 \
                  --clear-groups \"$1\" --exact user_forbidden --ignored --nocapture";
    let output = std::process::Command::new("nsenter")
        .args(["--user", "--target", &holder.id().to_string(), "--setuid=0", "--setgid=0", "sh", "-c", script, "sh"])
        .arg(&copy)
        .env(AS_USER, "1")
        .output()
        .unwrap();
    holder.kill().unwrap();
    holder.wait().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

#[test]
#[ignore = "started as an ordinary user by another test"]
fn user_forbidden() {
    let bench = Bench::new();
    let fault = runtime().block_on(bench.engine("").fingerprint()).unwrap_err();
    assert!(fault.cause.starts_with("user namespaces: "), "{fault}");
    assert!(fault.hint.as_deref().unwrap().contains("sysctl user.max_user_namespaces"), "{fault:?}");
    assert_eq!(bench.sh("", "true").ended.unwrap_err(), fault);
}

// Native

fn native(bench: &Bench, argv: &[&str]) -> Attempt {
    let engine = abicus::engine::native::Native::new(&bench.path("work")).unwrap();
    let job = Job { argv: argv.iter().map(|s| (*s).to_owned()).collect(), ..bench.job.clone() };
    runtime().block_on(engine.run(&job, &Prepared("host".to_owned())))
}

fn native_sh(bench: &Bench, script: &str) -> Attempt {
    native(
        bench,
        &[
            "/.abicus/busybox",
            "sh",
            "-c",
            &format!("b() {{ {}/busybox \"$@\"; }}\n{script}", bench.path("payload").display()),
        ],
    )
}

#[test]
fn a_native_program_runs_in_the_hosts_own_namespaces() {
    let bench = Bench::new();
    let own = |name: &str| fs::read_link(format!("/proc/self/ns/{name}")).unwrap().to_string_lossy().into_owned();
    let text =
        said(&native_sh(&bench, "for n in mnt net pid user uts; do b readlink /proc/self/ns/$n; done; pwd; b wc -c"));
    let expected: Vec<_> = ["mnt", "net", "pid", "user", "uts"].iter().map(|n| own(n)).collect();
    assert_eq!(text, format!("{}\n/\n0\n", expected.join("\n")));
}

#[test]
fn a_native_program_ends_as_it_ended() {
    let mut bench = Bench::new();
    assert_eq!(native_sh(&bench, "exit 127").ended, Ok(Ended::Exit(127)));
    assert_eq!(native_sh(&bench, "kill -SEGV $$").ended, Ok(Ended::Signal(11)));
    assert_eq!(native(&bench, &["/no/such"]).ended.unwrap_err().phase, Phase::Start);
    assert_eq!(said(&native(&bench, &["true"])), "", "found by PATH");
    bench.job.output_cap = 1000;
    let flood = native_sh(&bench, "b yes");
    assert_eq!((flood.ended, flood.stdout.len()), (Ok(Ended::OutputCap), 1000));
}

#[test]
fn nothing_a_native_program_started_outlives_it() {
    let mut bench = Bench::new();
    // Its own session, its own group, an orphan: only the launcher's adoption finds it.
    let escape = "b setsid b sh -c 'b() { \"$0\" \"$@\"; }; trap \"\" TERM HUP; (exec \"$0\" sleep 4714.5)' \"$B\" & b usleep 200000";
    let escape = format!("B={}/busybox; {escape}", bench.path("payload").display());
    let begun = Instant::now();
    assert_eq!(native_sh(&bench, &format!("{escape}; exit 3")).ended, Ok(Ended::Exit(3)));
    assert!(processes("4714.5").is_empty());
    bench.job.deadline = Duration::from_millis(600);
    let attempt = native_sh(&bench, &format!("{escape}; b sleep 4714.5"));
    assert_eq!(attempt.ended, Ok(Ended::Deadline));
    assert!(processes("4714.5").is_empty());
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
}

//! The built-in engine on this machine's kernel: what a cell is, what options do, how programs end, what is left.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod builtin_support;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use abicus::engine::builtin::BuiltIn;
use abicus::engine::{Ended, Engine, EngineOptions, Job, Prepared};
use abicus::fault::Phase;
use abicus::host::Local;
use abicus::image::Content;
use builtin_support::*;

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
        for l in fd stdin stdout stderr ptmx; do [ -L /dev/$l ] || echo no $l; done
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
    let refused = BuiltIn::new(&toml::from_str(&options).unwrap(), bench.here()).err().unwrap();
    assert!(refused.cause.contains("profile.json") && refused.cause.contains("defaultAction"), "{refused}");
}

// Images

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
    let nap = nap(4711);
    let script = format!("echo before; b sh -c 'trap \"\" TERM; b sleep {nap}' & trap '' TERM; b sleep {nap}");
    let attempt = bench.sh("", &script);
    assert_eq!(attempt.ended, Ok(Ended::Deadline));
    assert_eq!(attempt.stdout, b"before\n");
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert!(processes(&nap).is_empty());
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
    let (nap, run) = (nap(4712), format!("01KILLED{:08}", std::process::id()));
    let mut driver = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_driver_to_be_killed", "--ignored", "--nocapture"])
        .env("ABICUS_TEST_DIR", bench.dir.path())
        .env("ABICUS_TEST_NAP", &nap)
        .env("ABICUS_TEST_RUN", &run)
        .spawn()
        .unwrap();
    wait_until("the cell runs", || !processes(&nap).is_empty());
    assert_eq!(control_groups(&run).len(), 1);
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let ours = bench.dir.path().to_string_lossy().into_owned();
    assert!(!mounts.contains(&ours), "a cell's mounts show on the host:\n{mounts}");
    driver.kill().unwrap();
    driver.wait().unwrap();
    wait_until("the cell is gone", || processes(&nap).is_empty());
    wait_until("the launcher is gone", || processes(&ours).is_empty());
    assert_eq!(control_groups(&run), Vec::<PathBuf>::new());
}

/// Control groups whose names begin so.
fn control_groups(prefix: &str) -> Vec<PathBuf> {
    let list = |dir: &Path| fs::read_dir(dir).into_iter().flatten().flatten().map(|e| e.path()).collect::<Vec<_>>();
    let root = Path::new("/sys/fs/cgroup");
    let parents = list(root).into_iter().chain([root.to_owned()]).map(|dir| dir.join("abicus"));
    let groups = parents.flat_map(|dir| list(&dir));
    groups.filter(|dir| dir.file_name().unwrap().to_string_lossy().starts_with(prefix)).collect()
}

#[test]
fn a_sweep_removes_the_empty_groups_of_one_run_and_names_them() {
    let bench = Bench::new();
    let engine = bench.engine("memory = '64m'");
    // As when launcher and driver are killed in one breath.
    let parent = Path::new("/sys/fs/cgroup/memory");
    let parent = if parent.exists() { parent } else { Path::new("/sys/fs/cgroup") }.join("abicus");
    let run = format!("01LEFT{:08}", std::process::id());
    let (left, other) = (parent.join(format!("{run}.1.0")), parent.join(format!("{run}X.1.0")));
    for dir in [&left, &other] {
        fs::create_dir_all(dir).unwrap();
    }
    let swept = runtime().block_on(engine.sweep(Some(&run.parse().unwrap()))).unwrap();
    assert_eq!(swept, [format!("control group {}", left.display())]);
    assert!(!left.exists() && other.exists());
    fs::remove_dir(other).unwrap();
}

/// Not a test: the driver of the test above.
#[test]
#[ignore = "started by another test"]
fn a_driver_to_be_killed() {
    let Some(dir) = std::env::var_os("ABICUS_TEST_DIR") else { return };
    let mut bench = Bench::within(Path::new(&dir));
    bench.job.run = std::env::var("ABICUS_TEST_RUN").unwrap().parse().unwrap();
    let options = toml::from_str::<EngineOptions>("memory = '64m'").unwrap();
    let engine = BuiltIn::new(&options, Arc::new(Local::at(Path::new(&dir).join("work")))).unwrap();
    let nap = std::env::var("ABICUS_TEST_NAP").unwrap();
    let script = format!("/.abicus/busybox sleep {nap} & /.abicus/busybox sleep {nap}");
    let job = Job { argv: ["/.abicus/busybox", "sh", "-c", &script].map(str::to_owned).to_vec(), ..bench.job.clone() };
    run(&engine, &job, Content::Empty);
}

#[test]
fn a_job_that_is_given_up_ends_its_cell() {
    let bench = Bench::new();
    let engine = bench.engine("");
    let nap = nap(4713);
    let job = Job { argv: ["/.abicus/busybox", "sleep", &nap].map(str::to_owned).to_vec(), ..bench.job.clone() };
    runtime().block_on(async {
        let prepared = Prepared("empty".to_owned());
        let run = engine.run(&job, &prepared);
        assert!(tokio::time::timeout(Duration::from_millis(500), run).await.is_err());
    });
    wait_until("the cell is gone", || processes(&nap).is_empty());
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

//! Engines that are a command, on this machine: runc, crun, youki and runsc without a daemon, bubblewrap, systemd-nspawn; as root
//! and as an ordinary user. What each does with a cell is seen from inside by busybox.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod builtin_support;

use std::fs;
use std::time::{Duration, Instant};

use abicus::engine::command::{Command, Kind};
use abicus::engine::{Attempt, Ended, Engine, EngineOptions, Job};
use abicus::fault::{Fault, Phase};
use abicus::image::Content;
use builtin_support::{Bench, TOOLS, as_user, listing, nap, processes, run, runtime, said, tree, wait_until};

/// One of each command that runs as root.
const ALL: [(Kind, &str); 6] = [RUNC, CRUN, RUNSC, YOUKI, BWRAP, NSPAWN];

const RUNC: (Kind, &str) = (Kind::Oci, "runc");
const CRUN: (Kind, &str) = (Kind::Oci, "crun");
const RUNSC: (Kind, &str) = (Kind::Oci, "runsc");
const YOUKI: (Kind, &str) = (Kind::Oci, "youki");
const BWRAP: (Kind, &str) = (Kind::Bubblewrap, "bwrap");
const NSPAWN: (Kind, &str) = (Kind::Nspawn, "systemd-nspawn");

/// Those of them that are asked for: youki is built from source for minutes, and `.ci/run` asks for it.
fn asked<const N: usize>(engines: [(Kind, &'static str); N]) -> impl Iterator<Item = (Kind, &'static str)> {
    let youki = std::env::var_os("ABICUS_TEST_YOUKI").is_some();
    engines.into_iter().filter(move |engine| youki || *engine != YOUKI)
}

fn open(bench: &Bench, kind: Kind, program: &str, options: &str) -> Result<Command, Fault> {
    let options: EngineOptions = toml::from_str(options).unwrap();
    Command::new(kind, Some(program), &options, bench.here())
}

fn job(bench: &Bench, script: &str) -> Job {
    let argv = ["/.abicus/busybox", "sh", "-c", &format!("{TOOLS}{script}")].map(str::to_owned);
    Job { argv: argv.to_vec(), ..bench.job.clone() }
}

fn sh(bench: &Bench, engine: (Kind, &str), options: &str, script: &str) -> Attempt {
    // youki 0.7 waits for ever for a program that ends before it has begun to wait (`commands/run.rs`).
    let script = if engine == YOUKI { format!("trap 'b usleep 300000' EXIT; {script}") } else { script.to_owned() };
    run(&open(bench, engine.0, engine.1, options).unwrap(), &job(bench, &script), Content::Empty)
}

fn says(bench: &Bench, engine: (Kind, &str), options: &str, script: &str) -> String {
    let attempt = sh(bench, engine, options, script);
    assert_eq!(attempt.ended, Ok(Ended::Exit(0)), "{engine:?} {options}: {}", show(&attempt));
    said(&attempt)
}

fn show(attempt: &Attempt) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    format!("{:?}\n{}\n{}\n{:?}", attempt.ended, text(&attempt.stdout), text(&attempt.stderr), attempt.notes)
}

#[test]
fn a_first_cell_runs_and_its_command_says_its_version() {
    let bench = Bench::new();
    for (kind, program) in asked(ALL) {
        let engine = open(&bench, kind, program, "").unwrap();
        let facts = runtime().block_on(engine.fingerprint()).unwrap_or_else(|fault| panic!("{program}: {fault:?}"));
        let version = &facts["engine.version"];
        assert!(version.contains(|c: char| c.is_ascii_digit()), "{program}: {version}");
        if kind == Kind::Oci {
            assert_eq!(facts["engine.runtime"], program);
            assert!(["1", "2"].contains(&facts["engine.cgroup.version"].as_str()), "{facts:#?}");
            let libseccomp = facts.get("engine.libseccomp").is_some_and(|version| version.starts_with("2."));
            assert_eq!(libseccomp, ["runc", "youki"].contains(&program), "{facts:#?}");
        }
        assert_eq!(facts["engine.can.memory-limit"], "yes", "{program}: {facts:#?}");
    }
}

#[test]
fn how_a_program_ends_and_what_it_writes_come_through() {
    let bench = Bench::new();
    for engine in asked(ALL) {
        let attempt = sh(&bench, engine, "", "echo out; echo err >&2; exit 7");
        assert_eq!(attempt.ended, Ok(Ended::Exit(7)), "{engine:?}: {}", show(&attempt));
        assert_eq!((&attempt.stdout[..], &attempt.stderr[..]), (&b"out\n"[..], &b"err\n"[..]), "{engine:?}");
    }
}

#[test]
fn a_program_that_is_not_there_is_the_rigs_fault_and_not_the_programs() {
    let bench = Bench::new();
    for (kind, program) in asked(ALL) {
        let job = Job { argv: vec!["/no/such/program".to_owned()], ..bench.job.clone() };
        let attempt = run(&open(&bench, kind, program, "").unwrap(), &job, Content::Empty);
        let fault = attempt.ended.clone().expect_err(&show(&attempt));
        assert_eq!(fault.phase, Phase::Start, "{program}: {fault:?}");
        let said = fault.cause.to_lowercase();
        // youki looks before it tries.
        assert!(said.contains("no such file") || said.contains("not found in $path"), "{program}: {fault:?}");
    }
}

#[test]
fn the_image_is_never_written_to() {
    let bench = Bench::new();
    let tree = tree(&bench, "tree");
    fs::create_dir(tree.join("usr")).unwrap();
    fs::write(tree.join("old"), "old").unwrap();
    let before = listing(&tree);
    for (kind, program) in asked(ALL) {
        let script =
            "b() { /bin/busybox \"$@\"; }; echo new >/new && echo changed >/old && b cat /old && b rm /bin/busybox";
        let argv = ["/bin/busybox", "sh", "-c", script].map(str::to_owned).to_vec();
        let engine = open(&bench, kind, program, "").unwrap();
        let attempt = run(&engine, &Job { argv, ..bench.job.clone() }, Content::Tree(tree.clone()));
        assert_eq!(said(&attempt), "changed\n", "{program}");
        assert_eq!(listing(&tree), before, "{program}");
    }
}

#[test]
fn the_payload_cannot_be_written_and_a_read_only_root_neither() {
    let bench = Bench::new();
    for engine in asked(ALL) {
        let script =
            "(echo x >/.abicus/busybox) 2>/dev/null && echo payload; (echo x >/x) 2>/dev/null && echo root; true";
        assert_eq!(says(&bench, engine, "", script), "root\n", "{engine:?}");
        assert_eq!(says(&bench, engine, "read_only = true", script), "", "{engine:?}");
    }
}

#[test]
fn gvisor_is_seen_from_inside_and_the_others_show_this_kernel() {
    let bench = Bench::new();
    let ours = fs::read_to_string("/proc/version").unwrap();
    for engine in asked(ALL) {
        let version = says(&bench, engine, "", "b cat /proc/version");
        assert_eq!(version == ours, engine.1 != "runsc", "{engine:?}: {version}");
    }
}

#[test]
fn the_seccomp_profile_is_dockers_unless_another_is_asked_for() {
    let bench = Bench::new();
    let mode = "b grep Seccomp: /proc/self/status | b tr -dc 0-9";
    for engine in asked([RUNC, CRUN, YOUKI]) {
        assert_eq!(says(&bench, engine, "", mode), "2", "{engine:?}");
        assert_eq!(says(&bench, engine, "seccomp = 'unconfined'", mode), "0", "{engine:?}");
        assert_eq!(says(&bench, engine, "privileged = true", mode), "0", "{engine:?}");
    }
    let profile = bench.path("profile.json");
    let rule = r#"{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO","errnoRet":28}"#;
    fs::write(&profile, format!(r#"{{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{rule}]}}"#)).unwrap();
    let options = format!("seccomp = '{}'", profile.display());
    for engine in asked([RUNC, CRUN, RUNSC, YOUKI, BWRAP]) {
        let attempt = sh(&bench, engine, &options, "b mkdir /x");
        let error = String::from_utf8_lossy(&attempt.stderr).into_owned();
        // runsc 2022 does not read errnoRet.
        let word = if engine.1 == "runsc" { "not permitted" } else { "No space left" };
        assert!(error.contains(word), "{engine:?}: {}", show(&attempt));
    }
}

#[test]
fn the_default_profile_of_another_engine_can_be_named() {
    let bench = Bench::new();
    // Docker's refuses a user namespace, podman's does not.
    let script = "b unshare -U /.abicus/busybox true 2>/dev/null && echo allowed || echo refused";
    for engine in asked([RUNC, CRUN, YOUKI, BWRAP]) {
        assert_eq!(says(&bench, engine, "seccomp = 'docker'", script), "refused\n", "{engine:?}");
        assert_eq!(says(&bench, engine, "seccomp = 'podman'", script), "allowed\n", "{engine:?}");
    }
    assert_eq!(bench.says("seccomp = 'docker'", script), "refused\n");
    assert_eq!(bench.says("seccomp = 'podman'", script), "allowed\n");
    let name = |options| runtime().block_on(open(&bench, Kind::Oci, "runc", options).unwrap().fingerprint()).unwrap();
    assert_eq!(name("seccomp = 'podman'")["engine.seccomp"], "containers-common 0.50 default");
}

#[test]
fn capabilities_are_dockers_changed_as_asked_for() {
    let bench = Bench::new();
    let script = "b grep CapBnd /proc/self/status | b tr -d '\\n'; b grep CapEff /proc/self/status";
    for engine in asked([RUNC, CRUN, RUNSC, YOUKI]) {
        let ours = |options| says(&bench, engine, options, script);
        // gVisor takes NET_RAW away unless it is asked for by name.
        let net_raw = if engine == RUNSC { '0' } else { '2' };
        let docker = format!("CapBnd:\t00000000a804{net_raw}5fbCapEff:\t00000000a804{net_raw}5fb\n");
        assert_eq!(ours(""), docker, "{engine:?}");
        assert!(ours("capabilities = { add = ['NET_RAW'] }").contains("a80425fb"), "{engine:?}");
        let options = "capabilities = { drop = ['ALL'], add = ['KILL'] }";
        assert_eq!(ours(options), "CapBnd:\t0000000000000020CapEff:\t0000000000000020\n", "{engine:?}");
        let user = ours("user = '1000:1000'");
        assert!(user.ends_with("CapEff:\t0000000000000000\n"), "{engine:?}: {user}");
    }
    let bare = says(&bench, BWRAP, "", "b grep CapEff /proc/self/status");
    assert_eq!(bare, "CapEff:\t0000000000000000\n", "bubblewrap gives none");
    let options = "capabilities = { add = ['KILL'] }";
    assert_eq!(says(&bench, BWRAP, options, "b grep CapEff /proc/self/status"), "CapEff:\t0000000000000020\n");
}

#[test]
fn options_are_in_force_inside() {
    let bench = Bench::new();
    for engine in asked(ALL) {
        if engine.0 != Kind::Nspawn {
            let user = says(&bench, engine, "user = '1000'", "b id -u");
            assert_eq!(user.trim(), "1000", "{engine:?}");
        }
        let limit = says(&bench, engine, "ulimits = { nofile = { soft = 77, hard = 88 } }", "ulimit -n; ulimit -Hn");
        assert_eq!(limit, "77\n88\n", "{engine:?}");
        let mounted = says(&bench, engine, "tmpfs = ['/t:size=64k']", "b df -k /t | b tail -n 1");
        assert!(mounted.split_whitespace().nth(1) == Some("64"), "{engine:?}: {mounted}");
        assert_eq!(says(&bench, engine, "", "b cat /proc/net/dev | b grep -c :"), "1\n", "{engine:?}: loopback only");
    }
}

#[test]
fn the_network_is_the_hosts_where_that_was_asked_for() {
    let bench = Bench::new();
    let link = fs::read_link("/proc/self/ns/net").unwrap().display().to_string();
    for engine in asked(ALL).filter(|engine| *engine != RUNSC) {
        let inside = |options| says(&bench, engine, options, "b readlink /proc/self/ns/net");
        let own = inside("");
        assert!(own.starts_with("net:[") && !own.starts_with(&link), "{engine:?}: {own}");
        assert_eq!(inside("network = 'host'"), format!("{link}\n"), "{engine:?}");
    }
    // Its namespaces are its own kernel's; it copies the host's interfaces into it. Containers of others come and go
    // with interfaces of theirs: what counts is a look between which and the next none did.
    let names = |text: &str| text.matches(':').count();
    let here = || names(&fs::read_to_string("/proc/net/dev").unwrap());
    let inside = |options| names(&says(&bench, RUNSC, options, "b cat /proc/net/dev"));
    assert_eq!(inside(""), 1, "a loopback");
    let seen = (0..20).find_map(|_| {
        let (before, inside, after) = (here(), inside("network = 'host'"), here());
        (before == after).then_some((inside, after))
    });
    let (inside, here) = seen.expect("a second in which no interface comes or goes");
    assert_eq!(inside, here);
}

#[test]
fn shared_memory_has_the_size_asked_for() {
    let bench = Bench::new();
    for engine in asked(ALL).filter(|engine| *engine != NSPAWN) {
        let size = |options| {
            let said = says(&bench, engine, options, "b df -k /dev/shm | b tail -n 1");
            said.split_whitespace().nth(1).unwrap_or_default().to_owned()
        };
        assert_eq!((size(""), size("shm_size = '8MiB'")), ("65536".to_owned(), "8192".to_owned()), "{engine:?}");
    }
}

#[test]
fn a_device_is_there_and_works_where_it_was_asked_for() {
    let bench = Bench::new();
    let script = "[ -c /dev/special ] && b head -c 3 /dev/special | b od -An -tx1 || echo none";
    for engine in asked(ALL) {
        assert_eq!(says(&bench, engine, "", script), "none\n", "{engine:?}");
        let said = says(&bench, engine, "devices = ['/dev/zero:/dev/special']", script);
        // gVisor 2022 knows few devices, and this one is not passed on to it.
        let expected = if engine == RUNSC { "none" } else { "00 00 00" };
        assert_eq!(said.trim(), expected, "{engine:?}");
    }
}

#[test]
fn a_user_namespace_is_the_cells_own_where_that_was_asked_for() {
    let bench = Bench::new();
    let script = "b readlink /proc/self/ns/user; b id -u";
    let link = fs::read_link("/proc/self/ns/user").unwrap().display().to_string();
    for engine in asked([RUNC, CRUN, YOUKI, BWRAP]) {
        let host = says(&bench, engine, "userns = 'host'", script);
        assert_eq!(host, format!("{link}\n0\n"), "{engine:?}");
        let own = says(&bench, engine, "userns = 'private'", script);
        assert!(own.starts_with("user:[") && !own.starts_with(&link) && own.ends_with("\n0\n"), "{engine:?}: {own}");
    }
}

#[test]
fn a_privileged_cell_has_all_capabilities_and_may_mount() {
    let bench = Bench::new();
    let ours = fs::read_to_string("/proc/self/status").unwrap();
    let ours = ours.lines().find_map(|line| line.strip_prefix("CapBnd:\t")).unwrap().to_owned();
    let script = "b mkdir -p /m; (b mount -t tmpfs none /m 2>/dev/null && echo mounted) || echo refused; \
        b grep CapEff /proc/self/status";
    for engine in asked(ALL) {
        if engine == RUNSC {
            // runsc 2022 starts no sandbox with the host's devices in it, which is the rig's fault and said as that.
            let attempt = sh(&bench, engine, "privileged = true", script);
            assert_eq!(attempt.ended.clone().unwrap_err().phase, Phase::Create, "{}", show(&attempt));
            continue;
        }
        let (own, all) = (says(&bench, engine, "", script), says(&bench, engine, "privileged = true", script));
        let may = if engine == NSPAWN { "mounted" } else { "refused" };
        assert!(own.starts_with(may) && !own.contains(&ours), "{engine:?}: {own}");
        assert_eq!(all, format!("mounted\nCapEff:\t{ours}\n"), "{engine:?}");
    }
}

#[test]
fn limits_are_in_force_inside() {
    let bench = Bench::new();
    let options = "tmpfs = ['/t:size=200m']\nmemory = '64m'\npids_limit = 200\ncpus = 0.5";
    let hold = "b dd if=/dev/zero of=/t/x bs=1M count=100 && echo held";
    for engine in asked(ALL) {
        let attempt = sh(&bench, engine, options, hold);
        let died = attempt.ended != Ok(Ended::Exit(0)) || !String::from_utf8_lossy(&attempt.stdout).contains("held");
        assert!(died, "{engine:?}: {}", show(&attempt));
        if matches!(engine.0, Kind::Bubblewrap | Kind::Nspawn) {
            let hog = "exec /.abicus/surroundings hold 96";
            let ended = sh(&bench, engine, options, hog).ended;
            assert_eq!(ended, Ok(Ended::OutOfMemory), "{engine:?}");
        }
        let attempt = sh(&bench, engine, "tmpfs = ['/t:size=200m']", hold);
        assert_eq!(attempt.ended, Ok(Ended::Exit(0)), "{engine:?}: without a limit: {}", show(&attempt));
    }
}

#[test]
fn a_cell_that_hangs_is_gone_at_its_deadline_with_all_it_started() {
    let bench = Bench::new();
    for (at, engine) in asked(ALL).enumerate() {
        let nap = nap(9100 + at as u32);
        let job = Job {
            run: HANGING.parse().unwrap(),
            deadline: Duration::from_secs(3),
            ..job(&bench, &format!("echo up; b sleep {nap} & b sleep {nap}"))
        };
        let begun = Instant::now();
        let attempt = run(&open(&bench, engine.0, engine.1, "").unwrap(), &job, Content::Empty);
        assert_eq!(attempt.ended, Ok(Ended::Deadline), "{engine:?}: {}", show(&attempt));
        assert_eq!(attempt.stdout, b"up\n", "{engine:?}");
        assert!(begun.elapsed() < Duration::from_secs(8), "{engine:?}");
        wait_until("the cell is gone", || processes(&nap).is_empty());
    }
    assert_eq!(left_behind(), Vec::<String>::new());
}

/// A run of its own: the cells of other tests come and go meanwhile.
const HANGING: &str = "01HANG";

/// Control groups of that run, and mounts of these tests.
fn left_behind() -> Vec<String> {
    let groups = fs::read_dir("/sys/fs/cgroup").unwrap().flatten().flat_map(|hierarchy| {
        fs::read_dir(hierarchy.path().join("abicus")).into_iter().flatten().flatten().map(|entry| entry.path())
    });
    let ours = format!("{HANGING}.{}.", std::process::id());
    let groups = groups.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with(&ours));
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let mounts = mounts.lines().filter(|line| line.contains("abicus-test-")).map(str::to_owned).collect::<Vec<_>>();
    groups.map(|path| path.display().to_string()).chain(mounts).collect()
}

#[test]
fn a_flood_is_cut_at_the_cap() {
    let bench = Bench::new();
    for (kind, program) in asked(ALL) {
        let job = Job { output_cap: 100_000, ..job(&bench, "b yes") };
        let attempt = run(&open(&bench, kind, program, "").unwrap(), &job, Content::Empty);
        assert_eq!((attempt.ended, attempt.stdout.len()), (Ok(Ended::OutputCap), 100_000), "{program}");
    }
}

#[test]
fn what_a_command_cannot_do_is_refused_by_name() {
    let bench = Bench::new();
    for (kind, options, option, engine) in [
        (Kind::Oci, "platform = 'linux/arm64'", "platform", "an OCI runtime"),
        (Kind::Oci, "network = 'bridge'", "network", "an OCI runtime"),
        (Kind::Bubblewrap, "apparmor = 'x'", "apparmor", "bubblewrap"),
        (Kind::Oci, "selinux = 'type:container_t'", "selinux", "an OCI runtime"),
        (Kind::Nspawn, "selinux = 'level:s0'", "selinux", "systemd-nspawn"),
        (Kind::Nspawn, "seccomp = 'podman'", "seccomp", "systemd-nspawn"),
        (Kind::Nspawn, "shm_size = 5", "shm_size", "systemd-nspawn"),
        (Kind::Nspawn, "user = '5'", "user", "systemd-nspawn"),
        (Kind::Apptainer, "tmpfs = ['/t']", "tmpfs", "apptainer"),
        (Kind::Apptainer, "devices = ['/dev/null']", "devices", "apptainer"),
    ] {
        let options: EngineOptions = toml::from_str(options).unwrap();
        let Err(fault) = Command::new(kind, None, &options, bench.here()) else { panic!("{option} was taken") };
        assert!(fault.cause.contains(&format!("`{option}`")) && fault.cause.contains(engine), "{fault:?}");
    }
}

#[test]
fn a_security_module_is_done_without_or_has_to_be_there() {
    let bench = Bench::new();
    for engine in asked([RUNC, CRUN, YOUKI, NSPAWN]) {
        assert_eq!(says(&bench, engine, "selinux = 'disable'", "echo ran"), "ran\n", "{engine:?}");
    }
    assert_eq!(says(&bench, RUNC, "apparmor = 'unconfined'", "echo ran"), "ran\n");
    for (options, option, sign) in [
        ("selinux = 'system_u:system_r:container_t:s0'", "selinux", "/sys/fs/selinux/enforce"),
        ("apparmor = 'docker-default'", "apparmor", "/sys/module/apparmor/parameters/enabled"),
    ] {
        let answer = runtime().block_on(open(&bench, RUNC.0, RUNC.1, options).unwrap().fingerprint());
        let refused = answer.is_err_and(|fault| fault.cause.contains(&format!("option `{option}`: this host has no")));
        assert_eq!(refused, !std::path::Path::new(sign).exists(), "{options}");
    }
}

#[test]
fn a_command_that_is_not_installed_is_named_with_advice() {
    let bench = Bench::new();
    let fault = runtime().block_on(open(&bench, Kind::Oci, "no-such-runtime", "").unwrap().fingerprint()).unwrap_err();
    assert!(fault.cause.contains("no program `no-such-runtime`"), "{fault:?}");
    assert!(fault.hint.unwrap().contains("Debian: runc"));
    let script = bench.path("broken");
    fs::write(&script, "#!/bin/sh\necho I am broken >&2; exit 3\n").unwrap();
    fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let program = script.to_str().unwrap();
    let fault = runtime().block_on(open(&bench, Kind::Oci, program, "").unwrap().fingerprint()).unwrap_err();
    assert!(fault.cause.contains("I am broken"), "{fault:?}");
}

#[test]
fn apptainer_is_given_its_argument_line() {
    let bench = Bench::new();
    let stand_in = bench.path("apptainer");
    fs::write(
        &stand_in,
        "#!/bin/sh\n[ \"$1\" = --version ] && { echo apptainer version 1.3.0; exit; }\n\
         for word; do case $word in seccomp:*) grep -o SCMP_ACT_LOG \"${word#*:}\";; esac; done\nprintf '%s\\n' \"$@\"\n",
    )
    .unwrap();
    fs::set_permissions(&stand_in, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let engine = open(&bench, Kind::Apptainer, stand_in.to_str().unwrap(), "read_only = true").unwrap();
    let attempt = run(&engine, &Job { argv: vec!["/.abicus/x".to_owned()], ..bench.job.clone() }, Content::Empty);
    let line = said(&attempt);
    let words: Vec<&str> = line.lines().collect();
    assert_eq!(words[..3], ["--silent", "exec", "--containall"]);
    assert_eq!(words[words.len() - 1], "/.abicus/x");
    assert!(words[words.len() - 2].ends_with("/mnt/root") && words.contains(&"none"), "{line}");
    assert!(words.iter().any(|word| word.ends_with("payload:/.abicus:ro")) && !words.contains(&"--writable"), "{line}");
    // A profile is read where the cell is, whichever machine the matrix is on.
    let profile = bench.path("profile.json");
    fs::write(&profile, r#"{"defaultAction":"SCMP_ACT_LOG"}"#).unwrap();
    let options = format!("seccomp = '{}'", profile.display());
    let engine = open(&bench, Kind::Apptainer, stand_in.to_str().unwrap(), &options).unwrap();
    let attempt = run(&engine, &Job { argv: vec!["/.abicus/x".to_owned()], ..bench.job.clone() }, Content::Empty);
    let line = said(&attempt);
    assert!(line.starts_with("SCMP_ACT_LOG\n") && line.contains("/mnt/seccomp.json"), "{line}");
}

#[test]
fn an_ordinary_user_has_cells_too() {
    as_user("user_has_cells");
}

#[test]
#[ignore = "run by an_ordinary_user_has_cells_too"]
fn user_has_cells() {
    let bench = Bench::new();
    // Not youki: 0.7 wants a control group of its own, and with version 1 an ordinary user has none to give.
    for (kind, program) in [RUNC, CRUN, RUNSC, BWRAP] {
        let engine = open(&bench, kind, program, "").unwrap();
        let facts = runtime().block_on(engine.fingerprint()).unwrap_or_else(|fault| panic!("{program}: {fault:?}"));
        assert_eq!(facts["engine.identity"], "user namespace, one id");
        let attempt = run(&engine, &job(&bench, "b id -u; echo x >/x && exit 3"), Content::Empty);
        assert_eq!(attempt.ended, Ok(Ended::Exit(3)), "{program}: {}", show(&attempt));
        assert_eq!(attempt.stdout, b"0\n");
        if kind == Kind::Oci {
            let limited = open(&bench, kind, program, "memory = '64m'").unwrap();
            let fault = runtime().block_on(limited.fingerprint()).unwrap_err();
            assert!(fault.cause.contains("option `memory`"), "{fault:?}");
        }
    }
    let nspawn = open(&bench, Kind::Nspawn, "systemd-nspawn", "").unwrap();
    let fault = runtime().block_on(nspawn.fingerprint()).unwrap_err();
    assert!(fault.cause.contains("needs root"), "{fault:?}");
}

#[test]
fn a_program_for_another_processor_or_without_its_loader_is_no_failure_of_the_program() {
    let bench = Bench::new();
    // The heads of two programs: for aarch64, and for this machine with a loader that no image has.
    let mut foreign = fs::read("/bin/busybox").unwrap();
    foreign[18] = 183;
    fs::write(bench.path("payload/foreign"), foreign).unwrap();
    fs::copy("/bin/true", bench.path("payload/dynamic")).unwrap();
    for name in ["foreign", "dynamic"] {
        fs::set_permissions(bench.path("payload").join(name), std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .unwrap();
    }
    for (kind, program) in asked(ALL) {
        for name in ["foreign", "dynamic"] {
            let job = Job { argv: vec![format!("/.abicus/{name}")], ..bench.job.clone() };
            let attempt = run(&open(&bench, kind, program, "").unwrap(), &job, Content::Empty);
            let fault = attempt.ended.clone().expect_err(&show(&attempt));
            // Where libc tries a shell for what is no program (bwrap, nspawn), that shell is what is not there.
            let said = fault.cause.to_lowercase();
            let words = if name == "foreign" { ["exec format error", "no such file"] } else { ["no such file"; 2] };
            assert!(words.iter().any(|word| said.contains(word)), "{program} {name}: {fault:?}");
            assert_eq!(fault.phase, Phase::Start, "{program} {name}");
        }
    }
}

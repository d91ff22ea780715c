//! The libc probe against situations that are made here: filters, roots without this or that, masked processors, programs
//! that fail.
//!
//! Needs bubblewrap, Debian's musl, util-linux, QEMU, busybox-static, a kernel that apt downloads once and the root file systems of
//! `ci/fixtures`. What is absent fails; nothing is skipped.
#![cfg(target_arch = "x86_64")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "probe_support/broken.rs"]
mod broken;
#[path = "../probes/libc/craft.rs"]
mod craft;
#[path = "probe_support/guest.rs"]
mod guest;
mod probe_support;
#[path = "probe_support/ways.rs"]
mod ways;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use abicus::catalog::{Catalogue, Check, Contract, Requirement};
use broken::{BROKEN, broken, broken_program, installed, made_for};
use guest::{CLOUD, Guest};
use probe_support::{Action, ENOSYS, EPERM, Rule, Seen, filter, jail, libc, rule};
use serde_json::Value;
use ways::Ways;

const LOADER: &str = "/lib64/ld-linux-x86-64.so.2";
const MUSL: &str = "/lib/ld-musl-x86_64.so.1";
const SUITES: [&str; 4] = ["bullseye", "bookworm", "trixie", "forky"];
const EAGAIN: u32 = 11;

/// As `Seen::of`, for children that may complain before they die.
fn seen(command: &mut Command) -> Seen {
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output().unwrap();
    let raw = String::from_utf8(output.stdout).unwrap();
    let lines = raw.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect();
    Seen { lines, status: output.status.code(), raw }
}

fn free(arguments: &[&str]) -> Seen {
    seen(Command::new(LOADER).arg(libc()).args(arguments))
}

/// Under a filter that answers `action` to these calls.
fn refused(calls: &[u32], action: Action, arguments: &[&str]) -> Seen {
    let rules: Vec<_> = calls.iter().map(|call| rule(*call, action)).collect();
    jailed(&rules, arguments)
}

fn jailed(rules: &[Rule], arguments: &[&str]) -> Seen {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), filter(rules, Action::Allow)).unwrap();
    seen(Command::new(jail()).arg(file.path()).arg(LOADER).arg(libc()).args(arguments))
}

/// `bwrap OPTIONS LOADER libc ARGUMENTS`, with /proc and /dev and the probe in /dev. No network but a loopback.
fn boxed(options: &[&str], loader: &str, arguments: &[&str]) -> Seen {
    let mut command = Command::new("bwrap");
    command.args(["--unshare-all", "--die-with-parent"]).args(options);
    command.arg("--ro-bind").arg(libc()).arg("/dev/abicus");
    seen(command.arg(loader).arg("/dev/abicus").args(arguments))
}

/// A root with the host's loader and libc and nothing else.
fn bare(options: &[&str], arguments: &[&str]) -> Seen {
    let libc_path = "/lib/x86_64-linux-gnu/libc.so.6";
    let mut all = vec!["--tmpfs", "/", "--ro-bind", LOADER, LOADER, "--ro-bind", libc_path, libc_path];
    all.extend(["--proc", "/proc", "--dev", "/dev"]);
    all.extend(options);
    boxed(&all, LOADER, arguments)
}

fn fixture(name: &str) -> PathBuf {
    let home = std::env::var("HOME").unwrap_or_default();
    let at = std::env::var_os("ABICUS_FIXTURES")
        .map_or_else(|| Path::new(&home).join(".cache/abicus/fixtures"), PathBuf::from)
        .join(name);
    assert!(at.is_dir(), "{} is not there: run ci/fixtures", at.display());
    at
}

/// In a root file system of `ci/fixtures`, with hosts as an engine gives them.
fn in_suite(name: &str, loader: &str, arguments: &[&str]) -> Seen {
    let root = fixture(name);
    let hosts = tempfile::NamedTempFile::new().unwrap();
    fs::write(hosts.path(), "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost\n").unwrap();
    let mut options: Vec<String> = Vec::new();
    for entry in fs::read_dir(&root).unwrap() {
        let entry = entry.unwrap();
        let (path, name) = (entry.path(), entry.file_name().into_string().unwrap());
        if ["proc", "dev", "sys", "tmp", "run", "etc"].contains(&name.as_str()) {
            continue;
        }
        let inside = format!("/{name}");
        match fs::read_link(&path) {
            Ok(target) => options.extend(["--symlink".into(), target.display().to_string(), inside]),
            Err(_) => options.extend(["--ro-bind".into(), path.display().to_string(), inside]),
        }
    }
    let etc = root.join("etc");
    if etc.is_dir() {
        for entry in fs::read_dir(etc).unwrap() {
            let path = entry.unwrap().path();
            let inside = format!("/etc/{}", path.file_name().unwrap().to_str().unwrap());
            if path.is_symlink() || !path.exists() || inside == "/etc/hosts" {
                continue;
            }
            options.extend(["--ro-bind".into(), path.display().to_string(), inside]);
        }
    }
    options.extend(["--ro-bind".into(), hosts.path().display().to_string(), "/etc/hosts".into()]);
    let mut all = vec!["--tmpfs", "/"];
    all.extend(options.iter().map(String::as_str));
    all.extend(["--tmpfs", "/tmp", "--proc", "/proc", "--dev", "/dev"]);
    boxed(&all, loader, arguments)
}

fn rows() -> impl Iterator<Item = &'static Check> {
    Catalogue::built_in().rows().filter(|check| {
        let id = check.id.as_str();
        ["libc.", "ld.", "tool."].iter().any(|group| id.starts_with(group))
    })
}

fn observations(seen: &Seen) -> Vec<&str> {
    seen.raw.lines().filter(|line| line.starts_with("{\"check\"") && !line.contains("\"samples\"")).collect()
}

#[test]
fn every_row_is_asked_and_every_asked_check_has_a_row() {
    let asked: BTreeSet<String> = free(&["--bench"]).checks().into_keys().collect();
    let rows: BTreeSet<String> = rows().map(|check| check.id.as_str().to_owned()).collect();
    assert_eq!(asked.difference(&rows).collect::<Vec<_>>(), Vec::<&String>::new(), "asked and in no row");
    assert_eq!(rows.difference(&asked).collect::<Vec<_>>(), Vec::<&String>::new(), "in a row and not asked");
}

#[test]
fn every_planned_check_is_reported_once_and_twenty_runs_say_the_same() {
    let run = || in_suite("bookworm", LOADER, &[]);
    let first = run();
    let planned = first.lines[0]["planned"].as_u64();
    assert_eq!(planned, Some(first.checks().len() as u64));
    assert_eq!(first.lines.last().unwrap()["reported"].as_u64(), planned);
    assert!(first.raw.lines().all(|line| line.len() < 4096));
    for _ in 1..20 {
        assert_eq!(observations(&run()), observations(&first));
    }
}

#[test]
fn the_probe_needs_no_symbol_and_fits() {
    use object::{Object, ObjectSymbol};
    let probe = abicus::probes::LIBC;
    assert!(probe.len() <= 160 * 1024, "{} bytes", probe.len());
    let file = object::File::parse(probe).unwrap();
    let names: Vec<_> = file.dynamic_symbols().filter_map(|symbol| symbol.name().ok()).collect();
    assert_eq!(names.iter().filter(|name| !name.is_empty()).count(), 0, "{names:?}");
}

#[test]
fn what_must_work_works_on_a_healthy_host() {
    let checks = free(&[]).checks();
    for row in rows().filter(|row| row.requirement == Requirement::Must && row.contract == Contract::Works) {
        let line = &checks[row.id.as_str()];
        assert!(line["saw"] == "ok" || line["saw"] == "not-asked" || row.native.is_some(), "{line}");
    }
}

/// The version in the file's package database is something this probe never reads.
#[test]
fn the_libc_of_each_suite_is_what_its_package_database_says() {
    for suite in SUITES {
        let status = fs::read_to_string(fixture(suite).join("var/lib/dpkg/status")).unwrap();
        let package = status.split("\n\n").find(|part| part.starts_with("Package: libc6\n")).unwrap();
        let version = package.lines().find_map(|line| line.strip_prefix("Version: ")).unwrap();
        let checks = in_suite(suite, LOADER, &[]);
        let libc = checks.saw("libc.version");
        assert!(version.starts_with(&format!("{libc}-")), "{suite}: {libc}, but the package is {version}");
        assert_eq!(checks.saw("libc.symbols.newest"), libc, "{suite}");
        for id in ["libc.thread.create", "libc.process.posix-spawn", "libc.name.localhost.v4", "tool.dpkg-query"] {
            assert_eq!(checks.saw(id), "ok", "{suite}: {id}");
        }
    }
}

#[test]
fn a_musl_root_answers_by_its_own_loader() {
    let said = Command::new(MUSL).output().expect("Debian's musl package").stderr;
    let said = String::from_utf8(said).unwrap();
    let version = said.split_whitespace().skip_while(|word| *word != "Version").nth(1).unwrap().to_owned();
    let seen = in_suite("musl", MUSL, &[]);
    assert_eq!((seen.saw("libc.kind"), seen.saw("libc.version")), ("musl".to_owned(), version));
    for id in ["libc.thread.create", "libc.process.fork", "libc.name.localhost.v4", "ld.dlopen.made"] {
        assert_eq!(seen.saw(id), "ok", "{id}");
    }
    assert_eq!(seen.saw("libc.variant.memcpy"), "rep");
    assert_eq!(seen.saw("libc.symbol.__memcpy_chk"), "absent");
}

#[test]
fn an_old_profile_breaks_the_threads_of_a_new_libc_and_says_so() {
    const CLONE3: u32 = 435;
    let seen = refused(&[CLONE3], Action::Errno(EPERM), &[]);
    assert_eq!(seen.saw("libc.thread.create"), "errno 1");
    assert_eq!(seen.saw("libc.name.localhost.thread"), "errno 1");
    assert_eq!(refused(&[CLONE3], Action::Errno(ENOSYS), &[]).saw("libc.thread.create"), "ok");
    assert_eq!(refused(&[CLONE3], Action::KillProcess, &[]).saw("libc.thread.create"), "signal 31");
    assert_eq!(seen.lines.last().unwrap()["reported"], seen.lines[0]["planned"], "the rest is still asked");
}

/// A processor, or a host, that hides features: the libc chooses accordingly, and both methods agree about it.
#[test]
fn a_masked_processor_moves_the_choice_of_string_functions() {
    let masked = |mask: &str| {
        let tunable = format!("glibc.cpu.hwcaps={mask}");
        seen(Command::new(LOADER).arg(libc()).args(["--only", "libc.variant."]).env("GLIBC_TUNABLES", tunable))
    };
    let old = masked("-AVX512F,-AVX512VL,-AVX512BW,-AVX2,-AVX,-AVX_Fast_Unaligned_Load,-SSSE3,-SSE4_2,-ERMS");
    assert_eq!(old.saw("libc.variant.memcpy"), "sse2_unaligned");
    assert_eq!(old.saw("libc.variant.strlen"), "sse2");
    let free = free(&["--only", "libc.variant."]);
    let facts: BTreeMap<&str, &Value> =
        free.lines.iter().filter_map(|line| Some((line["fact"].as_str()?, &line["value"]))).collect();
    for function in ["memcpy", "strlen", "strcmp"] {
        let reachable = facts[format!("libc.variant.{function}.reachable").as_str()].as_str().unwrap();
        let first = reachable.split('@').next().unwrap();
        assert_eq!(free.saw(&format!("libc.variant.{function}")), first, "the chosen one comes first");
        assert!(reachable.split(' ').any(|name| name.starts_with("sse2") || name.starts_with("scalar")), "{reachable}");
    }
}

/// The loader prints its tunables for whoever asks; the probe must have read the same.
#[test]
fn thresholds_are_those_the_loader_prints() {
    let output = Command::new(LOADER).arg("--list-tunables").output().unwrap().stdout;
    let text = String::from_utf8(output).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("glibc.cpu.x86_rep_movsb_threshold: 0x")).unwrap();
    let threshold = i64::from_str_radix(line.split(' ').next().unwrap(), 16).unwrap();
    assert_eq!(free(&["--only", "ld.tunable"]).saw("ld.tunable.rep-movsb-threshold"), threshold.to_string());
}

/// A PATH in which programs are what `what` makes of their names, where it makes something.
fn programs(what: impl Fn(&str) -> Option<Vec<u8>>) -> tempfile::TempDir {
    let at = tempfile::tempdir().unwrap();
    for name in fs::read_to_string("probes/libc/tool.rs").unwrap().split("tool(\"tool.").skip(1) {
        let program = name.split("c\"").nth(1).unwrap().split('"').next().unwrap();
        let Some(bytes) = what(program) else { continue };
        fs::write(at.path().join(program), bytes).unwrap();
        fs::set_permissions(at.path().join(program), fs::Permissions::from_mode(0o755)).unwrap();
    }
    at
}

fn with_programs(script: &str, arguments: &[&str]) -> Seen {
    among(&programs(|_| Some(script.into())), arguments)
}

fn with_some_programs(what: impl Fn(&str) -> Option<Vec<u8>>) -> Seen {
    among(&programs(what), &["--only", "tool."])
}

fn among(at: &tempfile::TempDir, arguments: &[&str]) -> Seen {
    seen(Command::new(LOADER).arg(libc()).args(arguments).env("PATH", format!("{}:/usr/bin:/bin", at.path().display())))
}

#[test]
fn a_program_that_fails_crashes_or_cannot_start_is_told_apart() {
    let only = ["--only", "tool.perl"];
    assert_eq!(with_programs("#!/bin/sh\nexit 3\n", &only).saw("tool.perl"), "exit status 3");
    assert_eq!(with_programs("#!/bin/sh\nkill -ILL $$\n", &only).saw("tool.perl"), "signal 4");
    assert_eq!(with_programs("#!/abicus/no such interpreter\n", &only).saw("tool.perl"), "errno 2");
    assert_eq!(with_programs("not a program\n", &only).saw("tool.perl"), "errno 8");
    assert_eq!(with_programs("#!/bin/sh\necho 41\n", &only).saw("tool.perl"), "another output");
    assert_eq!(with_programs("#!/bin/sh\necho 42\n", &only).saw("tool.perl"), "ok");
    assert_eq!(with_some_programs(broken_program).saw("tool.perl"), "signal 4");
    // One that does not read its input.
    for _ in 0..10 {
        assert_eq!(with_programs("#!/bin/sh\nexit 42\n", &["--only", "tool.tar"]).saw("tool.tar"), "exit status 42");
    }
    // Half a megabyte of output and a child left behind end like any other.
    let flood = "#!/bin/sh\nsleep 60 >/dev/null 2>&1 &\nhead -c 500000 /dev/zero\n";
    assert_eq!(with_programs(flood, &only).saw("tool.perl"), "another output");
    assert_eq!(bare(&[], &["--only", "tool."]).saw("tool.perl"), "not-asked");
}

#[test]
fn a_hung_program_costs_its_deadline_and_no_more() {
    let started = std::time::Instant::now();
    let seen = with_programs("#!/bin/sh\nsleep 60\n", &["--only", "tool.uname"]);
    assert_eq!(seen.saw("tool.uname"), "timeout");
    assert!(started.elapsed().as_secs() < 30);
}

type Situation = (&'static str, Box<dyn Fn() -> Seen + Send + Sync>);

/// Situations that turn checks over, one way or the other.
fn situations() -> Vec<Situation> {
    let mut list: Vec<Situation> = Vec::new();
    let mut add = |name, ask: Box<dyn Fn() -> Seen + Send + Sync>| list.push((name, ask));
    for (name, calls) in REFUSALS {
        add(name, Box::new(|| refused(calls, Action::Errno(EPERM), &["--only", "libc.", "--only", "ld."])));
    }
    add("no children", Box::new(|| refused(&[56, 57, 58], Action::Errno(EAGAIN), &["--only", "libc.process"])));
    let sync = ["--only", "libc.sync", "--only", "libc.thread"];
    add("no futex", Box::new(move || refused(&[202], Action::Errno(ENOSYS), &sync)));
    // The loader asks about descriptors; only programs ask about the working directory's files.
    add("no queries by name", Box::new(|| jailed(&[at_cwd(262)], &["--only", "libc.file"])));
    add("nothing but the libc", Box::new(|| bare(&[], &[])));
    add("no /dev, no /proc", Box::new(boxed_without_dev));
    add("not enough memory", Box::new(|| limited("ulimit -v 400000")));
    add("small files", Box::new(|| limited("ulimit -f 1")));
    add("one open file more", Box::new(|| limited("ulimit -n 7")));
    for suite in ["bullseye", "bookworm", "trixie"] {
        add(suite, Box::new(move || in_suite(suite, LOADER, &[])));
    }
    add("musl", Box::new(|| in_suite("musl", MUSL, &[])));
    add("the host itself", Box::new(|| free(&[])));
    for locale in ["xx_XX.UTF-8", "C.UTF-8"] {
        add(locale, Box::new(move || seen(Command::new(LOADER).arg(libc()).env("LC_ALL", locale))));
    }
    add("programs that are broken", Box::new(|| with_some_programs(broken_program)));
    let stand_in = |name: &str| installed(name).is_none().then(|| SAYS.as_bytes().to_vec());
    add("programs that this machine lacks", Box::new(move || with_some_programs(stand_in)));
    for (name, hosts) in HOSTS {
        add(name, Box::new(move || changed(&[("/etc/hosts", hosts.into())], &[])));
    }
    let strangers = [
        ("/etc/passwd", b"toor:x:0:0::/:/bin/sh\n".to_vec()),
        ("/etc/group", b"wheel:x:0:\n".to_vec()),
        // Without nss-systemd, which makes root up where it is not.
        ("/etc/nsswitch.conf", b"passwd: files\ngroup: files\nhosts: files\n".to_vec()),
        ("/etc/services", b"http 81/tcp\n".to_vec()),
        ("/etc/protocols", b"icmp 1 ICMP\n".to_vec()),
        ("/usr/share/zoneinfo/Europe/Berlin", fs::read("/usr/share/zoneinfo/UTC").unwrap()),
        ("/usr/lib/x86_64-linux-gnu/libgcc_s.so.1", b"not a library".to_vec()),
        ("/usr/lib/x86_64-linux-gnu/libstdc++.so.6", b"not a library".to_vec()),
    ];
    add("strangers' files", Box::new(move || changed(&strangers, &["--ro-bind", "/usr", "/dev/shm"])));
    add("a user without a name", Box::new(|| changed(&[], &["--uid", "54321", "--gid", "54321"])));
    add("a library for a newer kernel", Box::new(library_for_a_newer_kernel));
    for (id, functions, does) in BROKEN {
        add(id, Box::new(move || with_libc(&broken(functions, *does), &["--only", id])));
    }
    add("a libc for old kernels", Box::new(|| with_libc(&made_for([2, 6, 32]), &["--only", "libc.kernel"])));
    let levels = ["--dir", "/lib/x86_64-linux-gnu/glibc-hwcaps/x86-64-v3"];
    add("libraries for a level", Box::new(move || bare(&levels, &["--only", "ld.hwcaps"])));
    let zone = ["--only", "libc.time.zone"];
    add("Tokyo", Box::new(move || seen(Command::new(LOADER).arg(libc()).args(zone).env("TZ", "JST-9"))));
    add("a terminal", Box::new(|| on_a_terminal("")));
    add("a terminal from elsewhere", Box::new(|| on_a_terminal("bwrap --ro-bind / / --dev /dev --proc /proc")));
    let script = "/lib64/ld-linux-x86-64.so.2 /libc --only libc.signal.altstack";
    add("an old processor", Box::new(move || Guest { cpu: "qemu64", ..Guest::of(CLOUD, script) }.boot()));
    list
}

/// What an engine might refuse, by number.
const REFUSALS: &[(&str, &[u32])] = &[
    ("clone3 refused", &[435]),
    ("no robust lists", &[273]),
    ("no timers or sleeps", &[35, 230, 38, 222]),
    ("no signals", &[13, 62, 129, 200, 234, 297]),
    ("no signal waits or stacks", &[128, 131]),
    ("no random numbers", &[318]),
    ("no affinity, no thread names", &[203, 204, 157]),
    ("no sockets", &[41, 53]),
    ("no ioctl", &[16]),
    ("no statx", &[332]),
    ("no statfs", &[137, 138]),
    ("no access, mode, time", &[21, 269, 439, 90, 91, 268, 452, 280, 285]),
    ("no memory files, copies, directories", &[319, 326, 79, 217, 89, 267]),
    ("no queues", &[240]),
    ("no uname, no sysinfo, no limits", &[63, 99, 302]),
];

const HOSTS: [(&str, &str); 3] = [
    ("localhost elsewhere", "192.0.2.1 localhost\n2001:db8::1 localhost\n127.0.0.1 abicus-cell\n"),
    ("localhost as usual", "127.0.0.1 localhost abicus-cell\n::1 localhost\n"),
    ("no localhost", "127.0.0.1 other\n"),
];

/// A stand-in that says what any program is expected to say, for those a test machine may not have.
const SAYS: &str = "#!/bin/sh
case ${0##*/} in
curl) exit 7 ;;
wget) exit 4 ;;
git) echo d81cc0710eb6cf9efd5b920a8453e1e07157b6cd ;;
openssl) echo 084c799cd551dd1d8d5c5f9a5d593b2e931f5e36122ee5c793c1d08a19839cc0 ;;
ssh) echo hostname localhost ;;
*) echo 42 got 42 yes x86_64 amd64 zypper pacman go version systemd postgres Linux root: lo ;;
esac
";

/// A rule for a call whose first argument is AT_FDCWD.
fn at_cwd(call: u32) -> Rule {
    Rule { call, argument: Some((0, (-100i32).cast_unsigned())), action: Action::Errno(EPERM) }
}

/// The host's files with some of them replaced, in a cell of its own with a host name that may stand in /etc/hosts.
fn changed(files: &[(&str, Vec<u8>)], more: &[&str]) -> Seen {
    let at = tempfile::tempdir().unwrap();
    let mut options: Vec<String> =
        ["--ro-bind", "/", "/", "--tmpfs", "/tmp", "--proc", "/proc", "--dev", "/dev", "--hostname", "abicus-cell"]
            .map(str::to_owned)
            .to_vec();
    for (number, (path, content)) in files.iter().enumerate() {
        let file = at.path().join(number.to_string());
        fs::write(&file, content).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        options.extend(["--ro-bind".to_owned(), file.display().to_string(), (*path).to_owned()]);
    }
    options.extend(more.iter().map(|option| (*option).to_owned()));
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    boxed(&options, LOADER, &["--only", "libc.", "--only", "ld."])
}

fn library_for_a_newer_kernel() -> Seen {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), craft::library(craft::Wish { kernel: Some([99, 0, 0]), ..craft::Wish::default() })).unwrap();
    let path = file.path().display().to_string();
    bare(&["--ro-bind", &path, "/usr/lib/libnew.so"], &["--only", "ld.abi-note"])
}

fn boxed_without_dev() -> Seen {
    let libc_path = "/lib/x86_64-linux-gnu/libc.so.6";
    let mut command = Command::new("bwrap");
    command.args(["--unshare-all", "--die-with-parent", "--tmpfs", "/", "--ro-bind", LOADER, LOADER]);
    command.args(["--ro-bind", libc_path, libc_path, "--ro-bind"]).arg(libc()).arg("/abicus");
    seen(command.args([LOADER, "/abicus"]))
}

fn limited(limit: &str) -> Seen {
    seen(Command::new("sh").arg("-c").arg(format!("{limit}; exec {LOADER} {}", libc().display())))
}

/// All situations, four at a time: most of them wait for deadlines.
fn ask_all(situations: &[Situation]) -> Vec<(&'static str, Seen)> {
    let next = AtomicUsize::new(0);
    let answers = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while let Some((name, ask)) = situations.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let seen = ask();
                    answers.lock().unwrap().push((*name, seen));
                }
            });
        }
    });
    answers.into_inner().unwrap()
}

/// The host with another libc in its place.
fn with_libc(bytes: &[u8], arguments: &[&str]) -> Seen {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), bytes).unwrap();
    fs::set_permissions(file.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let path = file.path().display().to_string();
    let options = ["--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--tmpfs", "/tmp", "--ro-bind", &path];
    boxed(&[&options[..], &["/usr/lib/x86_64-linux-gnu/libc.so.6"]].concat(), LOADER, arguments)
}

/// With a terminal as its output: this machine's, or one of a /dev/pts that the cell has not.
fn on_a_terminal(before: &str) -> Seen {
    let command = format!("{before} {LOADER} {} --only libc.tty", libc().display());
    seen(Command::new("script").args(["--quiet", "--command", &command, "/dev/null"]))
}

#[test]
fn every_check_has_been_seen_to_answer_both_ways() {
    let mut ways = Ways::default();
    for (name, seen) in ask_all(&situations()) {
        // Without children nothing can be asked: that turns over only the checks that are about children.
        let dead = |id: &str| seen.lines.iter().any(|line| line["check"] == id && line["step"] == "fork");
        ways.add(
            name,
            &seen,
            rows().filter(|row| row.id.as_str().starts_with("libc.process.") || !dead(row.id.as_str())),
        );
    }
    // Two measurements are never the same.
    let wrong = ways.wrong("libc", rows().filter(|row| !row.id.as_str().starts_with("libc.bench.")));
    assert!(wrong.is_empty(), "{} rows:\n{}", wrong.len(), wrong.join("\n"));
}

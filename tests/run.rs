//! The main job on real engines: native, built-in and docker on this machine, an empty image, the real probes.
//! An engine that is absent makes these tests fail: they are about the engines.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const MATRIX: &str = r#"
[[host]]
name = "local"
[[engine]]
name = "native"
kind = "native"
[[engine]]
name = "built-in"
kind = "built-in"
[[engine]]
name = "docker"
kind = "docker"
[[image]]
name = "empty"
scratch = true
"#;

struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new(matrix: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("matrix.toml"), matrix).unwrap();
        Self { dir }
    }

    fn abicus(&self, arguments: &[&str]) -> Output {
        let mut command = self.command();
        command.args(arguments).output().unwrap()
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_abicus"));
        command.current_dir(self.dir.path()).env("ABICUS_CACHE", self.dir.path().join("cache"));
        command
    }

    fn only_run(&self) -> PathBuf {
        let runs: Vec<_> = std::fs::read_dir(self.dir.path().join("reports")).unwrap().collect();
        assert_eq!(runs.len(), 1);
        runs.into_iter().next().unwrap().unwrap().path()
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Column by name of a CSV row.
fn rows(path: &Path) -> Vec<BTreeMap<String, String>> {
    let mut reader = csv::Reader::from_path(path).unwrap();
    reader.deserialize().map(|row| row.unwrap()).collect()
}

#[test]
fn one_image_gives_each_engine_its_own_correct_answers() {
    let place = Place::new(MATRIX);
    let output = place.abicus(&["run"]);
    assert!(matches!(output.status.code(), Some(0 | 1)), "{}", text(&output.stderr));
    let run = place.only_run();
    for file in ["run.json", "journal.jsonl", "cells.csv", "results.csv", "index.html", "junit.xml", "summary.md"] {
        assert!(run.join(file).metadata().unwrap().len() > 100, "{file}");
    }
    // Cells that saw the same share their rows of results.csv.
    let (cells, results) = (rows(&run.join("cells.csv")), rows(&run.join("results.csv")));
    let answer = |engine: &str, check: &str| -> (String, String) {
        let cell = cells.iter().find(|row| row["engine"] == engine && row["role"] == "cell").unwrap();
        let row = results
            .iter()
            .find(|row| row["vector"] == cell["vector"] && row["check"] == check)
            .unwrap_or_else(|| panic!("{engine} has no {check}"));
        let errno = if row["saw"] == "errno" { row["number"].clone() } else { String::new() };
        (errno, row["filter"].clone())
    };
    // What strace sees of the same probe, outside and inside a docker container, is the truth.
    let kernel = std::fs::read_dir(place.dir.path().join("cache/payload"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path()
        .join("kernel");
    let (outside, inside) = (strace_natively(&kernel), strace_in_docker(&kernel));
    for call in ["mount", "keyctl", "clone3", "unshare", "setns", "bpf", "add_key"] {
        let check = format!("syscall.{call}");
        for (engine, traced) in [("native", &outside), ("docker", &inside), ("built-in", &inside)] {
            let truth = traced.get(call).unwrap_or_else(|| panic!("strace saw no {call} under {engine}: {traced:?}"));
            assert_eq!(errno_number(truth), answer(engine, &check).0, "{call} under {engine}");
        }
    }
    for engine in ["docker", "built-in"] {
        assert_eq!(answer(engine, "syscall.mount").1, "errno 1", "{engine}");
        assert_eq!(answer(engine, "syscall.keyctl").1, "errno 1", "{engine}");
        assert_eq!(answer(engine, "syscall.clone3").1, "errno 38", "{engine}");
    }
    for call in ["mount", "keyctl", "clone3"] {
        assert_eq!(answer("native", &format!("syscall.{call}")).1, "allow");
    }
}

/// The errno of each call of the sweep, by name; empty where it succeeded. The sweep comes before the filter map, which
/// makes the same calls without letting them through.
fn traced(stderr: &str) -> BTreeMap<String, String> {
    let mut seen = BTreeMap::new();
    for line in stderr.lines() {
        let line =
            line.strip_prefix("[pid").and_then(|rest| rest.split_once(']')).map_or(line, |(_, rest)| rest).trim();
        // A call that made a process ends on a line of its own: `<... clone3 resumed>) = 7438`.
        let call = match line.strip_prefix("<... ") {
            Some(resumed) => resumed.split(' ').next(),
            None => line.split_once('(').map(|(call, _)| call),
        };
        if let (Some(call), Some((_, result))) = (call, line.rsplit_once(" = ")) {
            let errno = if result.starts_with("-1 ") { result.split(' ').nth(1).unwrap_or_default() } else { "" };
            seen.entry(call.to_owned()).or_insert_with(|| errno.to_owned());
        }
    }
    seen
}

fn errno_number(name: &str) -> String {
    abicus::judge::errno_number(name).map_or_else(String::new, |number| number.to_string())
}

const CALLS: &str = "trace=mount,keyctl,clone3,unshare,setns,bpf,add_key";

fn strace_natively(kernel: &Path) -> BTreeMap<String, String> {
    let output = Command::new("strace")
        .args(["-qq", "-f", "-e", CALLS])
        .arg(kernel)
        .args(["--only", "syscall."])
        .output()
        .unwrap();
    traced(&text(&output.stderr))
}

fn strace_in_docker(kernel: &Path) -> BTreeMap<String, String> {
    let image = "abicus-test-strace:run";
    let import = "tar -c --files-from /dev/null | docker import - abicus-test-strace:run";
    assert!(Command::new("sh").args(["-c", import]).output().unwrap().status.success(), "docker import");
    let output = Command::new("docker")
        .args(["run", "--rm", "--network=none", "-v", "/:/host:ro", image, "/host/bin/busybox", "chroot", "/host"])
        .args(["strace", "-qq", "-f", "-e", CALLS])
        .arg(kernel)
        .args(["--only", "syscall."])
        .output()
        .unwrap();
    let _ = Command::new("docker").args(["rmi", "-f", image]).output();
    traced(&text(&output.stderr))
}

#[test]
fn a_run_that_is_interrupted_keeps_what_is_done_and_goes_on() {
    let matrix = r#"
        host = [{ name = "local" }]
        engine = [{ name = "quick", kind = "scripted", script = "quick.toml" }, { name = "slow", kind = "scripted", script = "slow.toml" }]
        image = [{ name = "empty", scratch = true }]
    "#;
    let place = Place::new(matrix);
    let good = concat!(
        r#"{"abicus":1,"probe":"kernel","version":"0","arch":"x86_64","planned":1}"#,
        "\n",
        r#"{"check":"dev.null.discard","saw":"ok"}"#,
        "\n",
        r#"{"end":"kernel","reported":1}"#,
        "\n"
    );
    let script = |name: &str, play: &str| std::fs::write(place.dir.path().join(name), play).unwrap();
    script("good.jsonl", good);
    script("quick.toml", "[[play]]\nstdout = \"good.jsonl\"\n");
    script("slow.toml", "[[play]]\nhang = true\n");
    let mut child = place
        .command()
        .args(["run", "--no-controls", "--json"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut events = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
    assert!(events.any(|line| line.unwrap().contains("\"cell-done\"")));
    let kill = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(kill.success());
    let rest: Vec<String> = events.map(|line| line.unwrap()).collect();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{rest:?} {}", text(&output.stderr));
    assert!(text(&output.stderr).contains("--resume"), "{}", text(&output.stderr));

    script("slow.toml", "[[play]]\nstdout = \"good.jsonl\"\n");
    let resumed = place.abicus(&["run", "--resume"]);
    assert_eq!(resumed.status.code(), Some(0), "{}", text(&resumed.stderr));
    assert!(!text(&resumed.stderr).contains("local:quick:empty"), "a cell that was done was done again");
    let cells = rows(&place.only_run().join("cells.csv"));
    assert_eq!(cells.iter().filter(|row| row["verdict"] == "pass").count(), 2);
    let nothing_left = place.abicus(&["run", "--resume"]);
    assert_eq!(nothing_left.status.code(), Some(2));
}

#[test]
fn an_optional_engine_that_is_absent_costs_its_own_cells_only_and_each_says_why() {
    let place = Place::new(&MATRIX.replace("kind = \"docker\"", "kind = \"docker\"\noptional = true"));
    let mut command = place.command();
    let output = command.env("DOCKER_HOST", "unix:///nowhere/docker.sock").args(["run"]).output().unwrap();
    assert!(matches!(output.status.code(), Some(0 | 1)), "{}", text(&output.stderr));
    let asked = |row: &&BTreeMap<String, String>| row["role"] == "cell";
    for row in rows(&place.only_run().join("cells.csv")).iter().filter(asked) {
        match row["engine"].as_str() {
            "docker" => {
                assert_eq!(row["verdict"], "skip", "{row:?}");
                assert!(row["reason"].contains("/nowhere/docker.sock"), "{row:?}");
            }
            _ => assert!(["pass", "degraded"].contains(&row["verdict"].as_str()), "{row:?}"),
        }
    }
    let page = std::fs::read_to_string(place.only_run().join("index.html")).unwrap();
    assert!(page.contains("docker.sock: cannot connect"), "the report does not say why");
}

#[test]
fn sweep_removes_what_a_dead_run_left_in_docker() {
    let place = Place::new(MATRIX);
    let run = "01ARZ3NDEKTSV4RRFFQ69G5FAV";
    let import = "tar -c --files-from /dev/null | docker import - abicus-test-sweep:run";
    assert!(Command::new("sh").args(["-c", import]).output().unwrap().status.success(), "docker import");
    let label = format!("abicus.run={run}");
    let create = Command::new("docker")
        .args([
            "create",
            "--label",
            &label,
            "--label",
            "abicus.cell=local:docker:empty",
            "abicus-test-sweep:run",
            "/nothing",
        ])
        .output()
        .unwrap();
    assert!(create.status.success(), "{}", text(&create.stderr));
    let swept = place.abicus(&["sweep", "--run", run]);
    let left = Command::new("docker").args(["ps", "-aq", "--filter", &format!("label={label}")]).output().unwrap();
    let _ = Command::new("docker").args(["rmi", "-f", "abicus-test-sweep:run"]).output();
    assert_eq!(swept.status.code(), Some(0), "{}", text(&swept.stderr));
    assert!(text(&swept.stdout).contains("removed"), "{}", text(&swept.stdout));
    assert_eq!(text(&left.stdout), "");
}

#[test]
fn every_command_has_help_with_an_example() {
    let place = Place::new(MATRIX);
    for command in [
        "init",
        "doctor",
        "plan",
        "run",
        "report",
        "explain",
        "list",
        "checks",
        "probe",
        "sweep",
        "waive",
        "vm",
        "completions",
        "man",
    ] {
        let output = place.abicus(&[command, "--help"]);
        assert_eq!(output.status.code(), Some(0));
        assert!(text(&output.stdout).contains("Example"), "{command} --help has no example");
    }
    assert!(text(&place.abicus(&["completions", "bash"]).stdout).contains("abicus"));
    assert!(text(&place.abicus(&["man"]).stdout).contains(".TH"));
}

#[test]
fn what_makes_a_command_impossible_is_said_with_what_would_be_right() {
    let place = Place::new(MATRIX);
    let cases: [(&[&str], &str); 8] = [
        (&["run", "--matrix", "gone.toml"], "abicus init"),
        (&["run", "--cells", "local:docker"], "host:engine:image"),
        (&["run", "--image", "debian"], "images are empty"),
        (&["report", "01ARZ"], "abicus run"),
        (&["run", "--resume"], "was cut off"),
        (&["run", "--parallel", "0"], "--parallel"),
        (&["init"], "--force"),
        (&["checks", "syscall.clone33"], "did you mean `syscall.clone3`"),
    ];
    for (arguments, help) in cases {
        let output = place.abicus(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(text(&output.stderr).contains(help), "{arguments:?} said {}", text(&output.stderr));
    }
}

#[test]
fn an_image_by_reference_is_handed_from_docker_to_every_engine() {
    let tag = "abicus-test-reference:run";
    let import = format!("tar -C / -c bin/busybox | docker import - {tag}");
    assert!(Command::new("sh").args(["-c", &import]).output().unwrap().status.success(), "docker import");
    let matrix = format!("{MATRIX}\n[[image]]\nname = \"by-reference\"\nreference = \"{tag}\"\n");
    let place = Place::new(&matrix);
    let output = place.abicus(&["run", "--no-controls", "--image", "by-reference"]);
    let gone = place.abicus(&["run", "--no-controls", "--image", "by-reference", "--engine", "built-in"]);
    let _ = Command::new("docker").args(["rmi", "-f", tag]).output();
    assert!(matches!(output.status.code(), Some(0 | 1)), "{}", text(&output.stderr));
    let said = text(&output.stderr);
    for engine in ["built-in", "docker"] {
        assert!(said.contains(&format!("local:{engine}:by-reference")) && !said.contains("could not run"), "{said}");
    }
    // Docker is in the matrix, so it can be asked although only the built-in engine was selected.
    assert!(matches!(gone.status.code(), Some(0 | 1)), "{}", text(&gone.stderr));
}

#[test]
fn what_an_engine_ignores_is_told_while_it_runs_and_in_the_report() {
    let place = Place::new(
        "[[host]]\nname = \"local\"\n[[image]]\nname = \"empty\"\nscratch = true\n\
         [[engine]]\nname = \"gvisor\"\nkind = \"oci\"\nruntime = \"runsc\"\n",
    );
    let output = place.abicus(&["run", "--no-controls"]);
    let said = "ignores `seccomp`";
    assert!(text(&output.stderr).contains(&format!("engine `gvisor` {said}")), "{}", text(&output.stderr));
    let summary = std::fs::read_to_string(place.only_run().join("summary.md")).unwrap();
    assert!(summary.contains("gvisor") && summary.contains("no filter is in force in a cell"), "{summary}");
}

/// A matrix with an image that has one program, for aarch64.
#[test]
fn a_defect_of_abicus_costs_the_cell_in_which_it_shows() {
    let image = |name: &str| format!("[[image]]\nname = '{name}'\nscratch = true\n");
    let engine = "[[host]]\nname = 'local'\n[[engine]]\nname = 'replay'\nkind = 'scripted'\nscript = 'script.toml'\n";
    let place = Place::new(&format!("{engine}{}{}", image("bad"), image("good")));
    let capture = "captures/good.jsonl";
    let script = format!("[[play]]\nimage = 'bad'\npanic = true\n[[play]]\nstdout = '{capture}'\n");
    std::fs::write(place.dir.path().join("script.toml"), script).unwrap();
    std::fs::create_dir(place.dir.path().join("captures")).unwrap();
    let good = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases/good").join(capture);
    std::fs::copy(good, place.dir.path().join(capture)).unwrap();
    let output = place.abicus(&["run", "--no-controls"]);
    assert_eq!(output.status.code(), Some(3), "{}", text(&output.stderr));
    let cells = rows(&place.only_run().join("cells.csv"));
    let verdict = |image: &str| {
        let cell = cells.iter().find(|row| row["image"] == image).unwrap();
        (cell["verdict"].clone(), cell["fault"].clone())
    };
    assert_eq!(verdict("good"), ("pass".to_owned(), String::new()));
    let (bad, fault) = verdict("bad");
    assert!(bad == "error" && fault.contains("as the script says"), "{bad}: {fault}");
}

fn foreign() -> Place {
    let place = Place::new("");
    let root = place.dir.path().join("foreign/bin");
    std::fs::create_dir_all(&root).unwrap();
    // The head of an ELF program for aarch64 is enough to know what it is for.
    let mut elf = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    elf.extend([2, 0, 183, 0, 1, 0, 0, 0]);
    elf.resize(52, 0);
    elf.extend([64, 0, 56, 0, 0, 0, 64, 0, 0, 0, 0, 0]);
    std::fs::write(root.join("sh"), elf).unwrap();
    std::fs::set_permissions(root.join("sh"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let matrix = format!("{MATRIX}\n[[image]]\nname = \"foreign\"\nrootfs = \"foreign\"\n");
    std::fs::write(place.dir.path().join("matrix.toml"), matrix).unwrap();
    place
}

const FOREIGN: [&str; 6] = ["run", "--no-controls", "--image", "foreign", "--engine", "built-in"];

#[test]
fn an_image_of_another_architecture_is_an_error_that_says_what_to_do() {
    let output = foreign().abicus(&FOREIGN);
    assert_eq!(output.status.code(), Some(3), "{}", text(&output.stderr));
    let said = text(&output.stderr);
    assert!(said.contains("made for arm64") && said.contains("help: use an image for"), "{said}");
}

#[test]
fn an_image_of_another_architecture_runs_where_an_emulator_is_registered_and_that_is_said() {
    let place = foreign();
    // Since Linux 6.7 a user namespace has registrations of its own; on an older kernel a real one would change the machine,
    // so there the driver reads what the kernel would have written.
    let register = "reg=/proc/sys/fs/binfmt_misc; mount -t binfmt_misc none $reg && \
        printf ':qemu-aarch64:M::\\x7fELF\\x02\\x01\\x01\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x02\\x00\\xb7\\x00::/bin/busybox:F' \
        >$reg/register || { mount -t tmpfs none /proc/sys/fs && mkdir -p $reg && \
        printf 'enabled\\ninterpreter /bin/busybox\\nflags: F\\noffset 0\\nmagic 7f454c46\\n' >$reg/qemu-aarch64; } || exit 77; \
        exec \"$@\"";
    let output = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "sh", "-c", register, "sh", env!("CARGO_BIN_EXE_abicus")])
        .args(FOREIGN)
        .current_dir(place.dir.path())
        .env("ABICUS_CACHE", place.dir.path().join("cache"))
        .output()
        .unwrap();
    assert_ne!(output.status.code(), Some(77), "no way to register an emulator: {}", text(&output.stderr));
    let said = text(&output.stderr);
    assert!(said.contains("its own programs run under qemu-aarch64 on local, the probes do not"), "{said}");
    assert!(!said.contains("help: use an image for"), "{said}");
}

//! A run leaves the host's mounts as they were, also where mounts are shared between namespaces, as systemd makes them:
//! there, whatever is mounted or unmounted in a new namespace that was not made private first happens to the host too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;
use std::process::Command;

/// In namespaces of its own whose mounts are shared as a host's are; its second argument is the directory to work in.
const SCRIPT: &str = r#"
cut -d' ' -f5- /proc/self/mountinfo >"$2/before" || exit 90
"$1" run --matrix "$2/matrix.toml" --reports "$2/reports" >"$2/said" 2>&1
status=$?
cut -d' ' -f5- /proc/self/mountinfo >"$2/after" || exit 91
exit "$status"
"#;

const MATRIX: &str = r#"
[[image]]
name = "scratch"
scratch = true
[[host]]
name = "local"
[[engine]]
name = "native"
kind = "native"
[[engine]]
name = "built-in"
kind = "built-in"
"#;

#[test]
fn a_run_leaves_shared_mounts_of_the_host_alone() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    std::fs::write(at("matrix.toml"), MATRIX).unwrap();
    let mut command = Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command.args(["--mount", "--propagation", "shared", "sh", "-c", SCRIPT, "sh", env!("CARGO_BIN_EXE_abicus")]);
    let output = command.arg(directory.path()).env("ABICUS_CACHE", at("cache")).output().unwrap();
    let read = |path: &Path| std::fs::read_to_string(path).unwrap_or_else(|error| error.to_string());

    assert!(!matches!(output.status.code(), Some(90 | 91)), "/proc is gone: {output:?}");
    // 1: cells failed checks, which is not the question here.
    assert!(matches!(output.status.code(), Some(0 | 1)), "{output:?}\n{}", read(&at("said")));
    assert_eq!(read(&at("after")), read(&at("before")), "mounts before and after a run");
}

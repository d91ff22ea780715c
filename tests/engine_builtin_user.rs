//! The built-in engine as an ordinary user: in a user namespace, and where the host forbids those.
//!
//! A test starts a copy of this program under setpriv, which then runs one of the `user_` tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod builtin_support;

use std::fs;
use std::os::unix::fs::PermissionsExt;

use abicus::engine::{Ended, Engine};
use abicus::fault::Phase;
use abicus::image::Content;
use builtin_support::*;

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
    let refused = runtime().block_on(bench.engine("userns = 'host'").fingerprint()).unwrap_err();
    assert!(refused.cause.contains("needs root"), "{refused}");
}

#[test]
fn a_host_that_forbids_user_namespaces_is_reported_with_the_switch_that_does() {
    // In a user namespace of its own the limit can be set to 0 without harm to anybody else.
    let dir = tempfile::Builder::new().prefix("abicus-test-").tempdir_in("/var/tmp").unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let copy = dir.path().join("tests");
    copy_program(&std::env::current_exe().unwrap(), &copy);
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

//! Whatever the probes make while they ask has a name that says whose it is, by strace's account: files, directories, nodes,
//! queues, keys, sockets, memory files.
//!
//! Needs strace. What is absent fails.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![cfg(target_arch = "x86_64")]

mod probe_support;

use std::process::Command;

use probe_support::{jail, kernel};

/// Calls that make something others can see.
const MAKING: &str = "openat,open,creat,mkdir,mkdirat,mknod,mknodat,symlink,symlinkat,link,linkat,rename,renameat,renameat2,\
                      mq_open,msgget,semget,shmget,add_key,keyctl,memfd_create,bind,mount";

/// A call that made something, as strace prints it with the paths of descriptors.
fn made(line: &str) -> bool {
    let (Some((before, after)), Some((call, _))) = (line.rsplit_once(" = "), line.split_once('(')) else {
        return false;
    };
    !after.starts_with('-')
        && match call {
            // What strace is too old to know is traced in any case.
            call if call.starts_with("syscall_0x") => false,
            // It is there already.
            "openat" if before.contains("\"/dev/full\"") => false,
            // Of a file that there is, or one without a name.
            "openat" | "open" => before.contains("O_CREAT"),
            "keyctl" => before.contains("KEYCTL_JOIN_SESSION_KEYRING"),
            // A new one; one of a system without a name is a new mount, and what binds mounts makes nothing.
            "mount" => before.contains("\"tmpfs\"") || before.contains("\"overlay\""),
            "bind" => before.contains("AF_UNIX"),
            _ => true,
        }
}

/// `0x6162…`: "ab", as far as a number goes. A socket in a directory that is named goes by the number of its descriptor;
/// glibc makes a semaphore by a name of its own, links it to the wanted one and removes the first.
fn named(line: &str) -> bool {
    ["abicus", "get(0x6162", "sun_path=\"/proc/self/fd/", "\"/dev/shm/sem."].iter().any(|name| line.contains(name))
}

/// In a tmpfs of their own over a directory of the cell, in a mount namespace that ends with its check.
fn inside_a_mount(line: &str) -> bool {
    ["\"low", "\"up", "\"work", "\"all", "\"file\""].iter().any(|name| line.contains(name))
}

#[test]
fn whatever_is_made_says_whose_it_is() {
    // A file for each process: one for all has calls in two parts, where others come between.
    let logs = tempfile::tempdir().unwrap();
    let dir = jail().parent().unwrap().to_owned();
    let output = Command::new("strace")
        .args(["-ff", "-y", "-s", "200", "-e", &format!("trace={MAKING}"), "-e", "signal=none", "-o"])
        .arg(logs.path().join("of"))
        .arg(kernel())
        .args(["run", "--deadline", "300000", "--"])
        .arg(dir.join("surroundings"))
        .args(["--", "/lib64/ld-linux-x86-64.so.2"])
        .arg(dir.join("libc"))
        .args(["--only", "libc.", "--only", "ld."])
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(said.lines().filter(|line| line.starts_with("{\"end\"")).count(), 3);
    let logs = std::fs::read_dir(logs.path()).unwrap().map(|log| std::fs::read(log.unwrap().path()).unwrap());
    let log = String::from_utf8_lossy(&logs.collect::<Vec<_>>().concat()).into_owned();
    let made: Vec<&str> = log.lines().filter(|line| made(line)).collect();
    // A look at the log that finds little has looked wrongly.
    for call in
        ["openat(", "mkdirat(", "mknodat(", "mq_open(", "msgget(", "semget(", "shmget(", "add_key(", "bind(", "mount("]
    {
        assert!(made.iter().any(|line| line.contains(call)), "nothing by {call}");
    }
    let nameless: Vec<_> = made.iter().filter(|line| !named(line) && !inside_a_mount(line)).collect();
    assert!(nameless.is_empty(), "{nameless:#?}");
}

//! What the tests of images share: trees that hold one of everything, and a full description of a tree.
#![allow(dead_code, clippy::unwrap_used, missing_docs)]

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

pub fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

pub fn awkward_tree(tree: &Path) {
    fs::create_dir_all(tree.join("etc/deep")).unwrap();
    fs::write(tree.join("etc/passwd"), "root:x:0:0::/:/bin/sh\n").unwrap();
    fs::set_permissions(tree.join("etc/passwd"), fs::Permissions::from_mode(0o640)).unwrap();
    fs::hard_link(tree.join("etc/passwd"), tree.join("etc/passwd-")).unwrap();
    fs::write(tree.join("etc/exact"), [7u8; 1024]).unwrap();
    fs::write(tree.join("etc/empty"), "").unwrap();
    fs::write(tree.join(format!("etc/deep/{}", "n".repeat(200))), "long name").unwrap();
    symlink("../../../outside", tree.join("etc/link")).unwrap();
    symlink("/".to_owned() + &"t".repeat(300), tree.join("etc/long-link")).unwrap();
    run("mkfifo", &[tree.join("etc/pipe").to_str().unwrap()]);
    run("touch", &["-d", "2001-02-03T04:05:06.789123456Z", tree.join("etc/exact").to_str().unwrap()]);
    run("touch", &["-d", "1969-12-31T23:59:58.25Z", tree.join("etc/empty").to_str().unwrap()]);
    rustix::fs::setxattr(tree.join("etc/exact"), "user.note", b"kept\0\n", rustix::fs::XattrFlags::empty()).unwrap();
    if is_root() {
        run("mknod", &[tree.join("etc/null").to_str().unwrap(), "c", "1", "3"]);
        run("mknod", &[tree.join("etc/disk").to_str().unwrap(), "b", "259", "70000"]);
        run("chown", &["12345:3000000", tree.join("etc/empty").to_str().unwrap()]);
        fs::write(tree.join("etc/suid"), "x").unwrap();
        fs::set_permissions(tree.join("etc/suid"), fs::Permissions::from_mode(0o4755)).unwrap();
        run("setcap", &["cap_net_raw=ep", tree.join("etc/suid").to_str().unwrap()]);
    }
    run("touch", &["-d", "2002-01-01T00:00:00.5Z", tree.join("etc").to_str().unwrap()]);
}

/// Everything that can be told about every path: type, mode, owner, time, link count, link, device.
pub fn listing(tree: &Path) -> String {
    let format = "%P %y %m %U %G %T@ %n %l %s\n";
    let found = run("find", &[tree.to_str().unwrap(), "-printf", format]);
    let mut lines: Vec<String> = found
        .lines()
        // The size of a directory is the file system's own business.
        .map(|line| if line.contains(" d ") { line.rsplit_once(' ').unwrap().0.to_owned() } else { line.to_owned() })
        .collect();
    lines.sort();
    let devices = run(
        "sh",
        &[
            "-c",
            "cd \"$1\" && find . -type b -o -type c | sort | xargs -r stat -c '%n %t %T'",
            "sh",
            tree.to_str().unwrap(),
        ],
    );
    let attributes: Vec<String> = run("find", &[tree.to_str().unwrap()]).lines().flat_map(attributes).collect();
    let attributes = attributes.join("\n").replace(tree.to_str().unwrap(), "");
    format!("{}\n{devices}{attributes}", lines.join("\n"))
}

fn attributes(path: &str) -> Vec<String> {
    let mut list = vec![0; 65536];
    let size = rustix::fs::llistxattr(path, list.as_mut_slice()).unwrap_or(0);
    let names = list[..size].split(|b| *b == 0).filter(|name| !name.is_empty());
    names
        .map(|name| {
            let mut value = vec![0; 65536];
            let size = rustix::fs::lgetxattr(path, name, value.as_mut_slice()).unwrap();
            format!("{path} {} {:?}", String::from_utf8_lossy(name), &value[..size])
        })
        .collect()
}

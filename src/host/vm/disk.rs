//! Disks with engines: a distribution's base system with docker, podman, crun and runc, and nothing that starts by itself.
//!
//! In: a [`DiskRecipe`]. Out: a file system of ext4, from the shelf or made by mmdebstrap. How the engines are started is
//! the guest's business, so the disk has no script of abicus on it and need not be made again with a new version.

use std::fs;
use std::path::Path;

use super::ext4::{self, Owner, Room};
use super::kernel::{Say, host_fault};
use super::shelf::{Kept, Recipe, Shelf, remove};
use crate::engine::Facts;
use crate::fault::{Fault, Phase};
use crate::image::{Cancel, mmdebstrap};
use crate::spec::DiskRecipe;

/// What every disk has: engines, and what they call.
const PACKAGES: &str =
    "busybox-static,kmod,ca-certificates,docker.io,podman,crun,runc,iptables,nftables,uidmap,fuse-overlayfs";
/// What engines of a suite need beside it, to have a network. Suites that are not named are newer.
const NETWORK: [(&str, &str); 3] = [
    ("bullseye", "containernetworking-plugins,slirp4netns"),
    ("bookworm", "netavark,slirp4netns"),
    ("", "docker-cli,netavark,passt,systemd-standalone-sysusers"),
];
/// Bytes, most of them never written: room for images and containers.
const SIZE: u64 = 6 << 30;
/// Files that nobody reads in a guest.
const WITHOUT: [&str; 5] =
    ["/usr/share/man/*", "/usr/share/doc/*", "/usr/share/locale/*", "/usr/share/info/*", "/usr/share/lintian/*"];
/// Fixed text, for mmdebstrap's shell: installing a service must not start it, neither here nor in the guest.
const REFUSE: &str = r#"mkdir -p "$1/usr/sbin"; printf '#!/bin/sh\nexit 101\n' >"$1/usr/sbin/policy-rc.d"
    chmod 755 "$1/usr/sbin/policy-rc.d""#;
/// Fixed text, for mmdebstrap's shell: places to mount on, and no traces of this machine.
const FINISH: &str = r#"rm -f "$1/etc/hostname" "$1/etc/resolv.conf"; rm -rf "$1/var/log/"*
    mkdir -p "$1/lib/modules" "$1/run" "$1/tmp" "$1/var/log""#;

/// What a disk is called on the shelf.
pub fn name(disk: &DiskRecipe) -> String {
    format!("disk {}", [std::slice::from_ref(&disk.suite), &disk.include].concat().join(" "))
}

/// The disk of a recipe.
pub fn with_engines(shelf: &Shelf, disk: &DiskRecipe, cancel: &Cancel, say: Say) -> Result<Kept, Fault> {
    let tool = mmdebstrap::version().map_err(host_fault)?;
    let include = packages(disk);
    let recipe =
        Recipe { kind: "disk", name: name(disk), text: format!("disk 1\n{}\n{include}\n{SIZE}\n{tool}", disk.suite) };
    let say = |what: &str| say(&format!("{}: {what}", recipe.name));
    shelf.make(&recipe, &|| say("waiting for another process that makes it"), |dir| {
        let tree = dir.join("tree");
        if !tree.is_dir() {
            bootstrap(disk, &include, dir, cancel, &say)?;
        }
        say("making the file system");
        let facts = facts(disk, &tree);
        let owner = if rustix::process::geteuid().is_root() { Owner::Ours } else { Owner::ItsRoot };
        ext4::make(&tree, &dir.join("disk"), owner, Room::Bytes(SIZE))?;
        remove(&tree)?;
        Ok(facts)
    })
}

fn packages(disk: &DiskRecipe) -> String {
    let network = NETWORK.iter().find(|(suite, _)| *suite == disk.suite || suite.is_empty());
    let network = network.map_or("", |(_, packages)| *packages);
    let mut all = vec![PACKAGES, network];
    all.extend(disk.include.iter().map(String::as_str));
    all.join(",")
}

/// The system into `dir/tree`, whole or not at all.
fn bootstrap(disk: &DiskRecipe, include: &str, dir: &Path, cancel: &Cancel, say: Say) -> Result<(), Fault> {
    let arriving = dir.join("arriving");
    let install = |extra: Option<&str>| {
        remove(&arriving).map_err(|fault| crate::image::error::ImageError::Malformed(fault.cause))?;
        let mut command = mmdebstrap::command(rustix::process::geteuid().is_root());
        command.args(["--variant=essential", "--format=directory"]).arg(format!("--include={include}")).args(extra);
        for path in WITHOUT {
            command.arg(format!("--dpkgopt=path-exclude={path}"));
        }
        command.arg(format!("--essential-hook={REFUSE}")).arg(format!("--customize-hook={FINISH}"));
        command.arg(&disk.suite).arg(&arriving);
        mmdebstrap::run(command, &disk.suite, cancel, say)
    };
    mmdebstrap::twice(install, say).map_err(host_fault)?;
    let tree = dir.join("tree");
    fs::rename(&arriving, &tree).map_err(|e| Fault::new(Phase::Host, format!("{}: {e}", tree.display())))
}

/// Which engines it has, by the distribution's own records.
fn facts(disk: &DiskRecipe, tree: &Path) -> Facts {
    let mut facts = Facts::from([("vm.disk.suite".to_owned(), disk.suite.clone())]);
    let status = fs::read_to_string(tree.join("var/lib/dpkg/status")).unwrap_or_default();
    for paragraph in status.split("\n\n") {
        let field = |name: &str| paragraph.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        if let (Some(package @ ("docker.io" | "podman" | "crun" | "runc" | "containerd" | "libc6")), Some(version)) =
            (field("Package"), field("Version"))
        {
            facts.insert(format!("vm.disk.{package}"), version.to_owned());
        }
    }
    facts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suite_gets_what_its_engines_need_for_a_network() {
        let of = |suite: &str| packages(&DiskRecipe { suite: suite.into(), include: vec!["strace".into()] });
        assert!(of("bullseye").contains("containernetworking-plugins") && !of("bullseye").contains("docker-cli"));
        assert!(of("bookworm").contains("netavark") && !of("bookworm").contains("passt"));
        assert!(of("forky").contains("passt") && of("forky").ends_with(",strace"));
    }
}

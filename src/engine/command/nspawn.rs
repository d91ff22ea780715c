//! systemd-nspawn: the argument line. Pure; see systemd-nspawn(1).
//!
//! It wants root and a root file system with a `/usr` in it, which the frame adds where an image has none. It does not
//! register with machined and stays in the control group it is started in, so that it needs no systemd on the host.

use crate::engine::PAYLOAD_DIR;
use crate::engine::builtin::capabilities::Capabilities;
use crate::engine::builtin::policy::HOSTNAME;
use crate::engine::options::Seccomp;

use super::line::{Cell, Line, environment};

/// systemd-nspawn(1), `--capability=`: its default set, without those it gives only with a network of its own.
pub(super) fn capabilities() -> Capabilities {
    const OWN: [&str; 25] = [
        "AUDIT_CONTROL",
        "AUDIT_WRITE",
        "CHOWN",
        "DAC_OVERRIDE",
        "DAC_READ_SEARCH",
        "FOWNER",
        "FSETID",
        "IPC_OWNER",
        "KILL",
        "LEASE",
        "LINUX_IMMUTABLE",
        "MKNOD",
        "NET_BIND_SERVICE",
        "NET_BROADCAST",
        "NET_RAW",
        "SETFCAP",
        "SETGID",
        "SETPCAP",
        "SETUID",
        "SYS_ADMIN",
        "SYS_BOOT",
        "SYS_CHROOT",
        "SYS_NICE",
        "SYS_PTRACE",
        "SYS_TTY_CONFIG",
    ];
    let names: Vec<String> = OWN.iter().map(|name| (*name).to_owned()).collect();
    Capabilities(0).change(&names, &[]).unwrap_or(Capabilities(0))
}

pub(super) fn line<'a>(cell: &Cell<'a>) -> Line<'a> {
    let settings = cell.settings;
    let mut words = vec![
        cell.program(),
        "--quiet".to_owned(),
        "--register=no".to_owned(),
        "--keep-unit".to_owned(),
        "--as-pid2".to_owned(),
        "--console=pipe".to_owned(),
        "--resolv-conf=off".to_owned(),
        "--timezone=off".to_owned(),
        "--link-journal=no".to_owned(),
        format!("--hostname={HOSTNAME}"),
        format!("--directory={}/root", cell.mount_point),
        format!("--bind-ro={}:{PAYLOAD_DIR}", escaped(cell.payload)),
    ];
    if !settings.host_network {
        words.push("--private-network".to_owned());
    }
    if settings.read_only {
        words.push("--read-only".to_owned());
    }
    let (own, wanted) = (capabilities(), cell.capabilities);
    let list = |set: u64| Capabilities(set).names().map(|name| format!("CAP_{name}")).collect::<Vec<_>>().join(",");
    for (option, set) in [("--capability", wanted.0 & !own.0), ("--drop-capability", own.0 & !wanted.0)] {
        if set != 0 {
            words.push(format!("{option}={}", list(set)));
        }
    }
    for tmpfs in &settings.tmpfs {
        let data = if tmpfs.data.is_empty() { String::new() } else { format!(":{}", tmpfs.data) };
        words.push(format!("--tmpfs={}{data}", escaped(&tmpfs.path)));
    }
    for (host, inside) in &settings.devices {
        words.push(format!("--bind={}:{}", escaped(host), escaped(inside)));
    }
    if let Some(label) = cell.options.selinux_label() {
        words.push(format!("--selinux-context={label}"));
    }
    for (number, soft, hard) in &settings.ulimits {
        let name = crate::engine::builtin::settings::RLIMITS.get(*number as usize).copied().unwrap_or_default();
        let text = |limit: u64| if limit == u64::MAX { "infinity".to_owned() } else { limit.to_string() };
        words.push(format!("--rlimit={}={}:{}", name.to_ascii_uppercase(), text(*soft), text(*hard)));
    }
    for (name, value) in cell.cell_environment().into_iter().filter(|(name, _)| *name != "HOSTNAME") {
        words.push(format!("--setenv={name}={value}"));
    }
    words.push("--".to_owned());
    words.extend(cell.argv.iter().cloned());
    let mut environment = environment();
    if settings.privileged || cell.options.seccomp == Some(Seccomp::Unconfined) {
        // docs/ENVIRONMENT.md of systemd: no filter of its own.
        environment.push("SYSTEMD_SECCOMP=0".to_owned());
    }
    // What it would make itself, were the root not read-only, and /usr, by which it knows a root.
    let dirs = ["usr", "dev", "proc", "sys", "run", "tmp", ".abicus"].map(|name| format!("root/{name}"));
    Line { dirs: dirs.to_vec(), argv: words, environment, ..Line::default() }
}

/// Its path lists are separated by colons.
fn escaped(path: &str) -> String {
    path.replace('\\', "\\\\").replace(':', "\\:")
}

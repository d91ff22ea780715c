//! bubblewrap 0.8: the argument line. Pure; see bwrap(1).
//!
//! It has no filter, no capabilities and no limits of its own; limits are the launcher's, around it.

use crate::engine::PAYLOAD_DIR;
use crate::engine::builtin::list::List;
use crate::engine::builtin::policy::HOSTNAME;

use super::frame::{FILTER, FILTER_FILE};
use super::line::{Cell, Line, environment};

pub(super) fn line<'a>(cell: &Cell<'a>) -> Line<'a> {
    let settings = cell.settings;
    let mut words: Vec<String> = vec![cell.program()];
    let mut say = |list: &[&str]| words.extend(list.iter().map(|word| (*word).to_owned()));
    say(&["--unshare-ipc", "--unshare-pid", "--unshare-uts", "--unshare-cgroup-try", "--hostname", HOSTNAME]);
    if !settings.host_network {
        say(&["--unshare-net"]);
    }
    let root = format!("{}/root", cell.mount_point);
    say(&["--bind", &root, "/", "--proc", "/proc"]);
    if settings.privileged {
        say(&["--dev-bind", "/dev", "/dev", "--bind", "/sys", "/sys"]);
    } else {
        say(&["--dev", "/dev", "--ro-bind", "/sys", "/sys"]);
    }
    say(&["--perms", "1777", "--size", &settings.shm_size.to_string(), "--tmpfs", "/dev/shm"]);
    for tmpfs in &settings.tmpfs {
        let value = |key: &str| tmpfs.data.split(',').find_map(|word| word.strip_prefix(key)).map(str::to_owned);
        if let Some(mode) = value("mode=") {
            say(&["--perms", &mode]);
        }
        if let Some(bytes) = value("size=").and_then(|size| size.parse::<crate::engine::options::Size>().ok()) {
            say(&["--size", &bytes.to_string()]);
        }
        say(&["--tmpfs", &tmpfs.path]);
    }
    for (host, inside) in &settings.devices {
        say(&["--dev-bind", host, inside]);
    }
    say(&["--ro-bind", cell.payload, PAYLOAD_DIR]);
    if settings.read_only {
        say(&["--remount-ro", "/"]);
    }
    let (uid, gid) = cell.user;
    if (uid, gid) != (0, 0) {
        say(&["--unshare-user", "--uid", &uid.to_string(), "--gid", &gid.to_string()]);
    }
    say(&["--cap-drop", "ALL"]);
    for name in cell.capabilities.names() {
        say(&["--cap-add", &format!("CAP_{name}")]);
    }
    say(&["--clearenv"]);
    for (name, value) in cell.cell_environment() {
        say(&["--setenv", name, &value]);
    }
    let mut files = vec![];
    if let Some(filter) = cell.filter {
        let slot = List::slot(FILTER);
        say(&["--seccomp", slot.rsplit('/').next().unwrap_or_default()]);
        files.push((FILTER_FILE.to_owned(), filter.to_vec()));
    }
    say(&["--chdir", "/", "--die-with-parent", "--"]);
    words.extend(cell.argv.iter().cloned());
    Line {
        filter: !files.is_empty(),
        files,
        argv: words,
        environment: environment(),
        rlimits: &settings.ulimits,
        ..Line::default()
    }
}

//! What every command finds around it: namespaces, a /proc of its own, an empty tmpfs with the cell's root in it.
//!
//! In: a cell. Out: the list for the launcher, up to its limits. Pure. The command is the first process of a process
//! namespace, so the kernel ends with it whatever it left running (runsc 2022 leaves its sandbox behind when it fails).

use crate::engine::builtin::list::{List, stage};
use crate::engine::builtin::policy::{
    CLONE_NEWNS, CLONE_NEWPID, MS_PRIVATE, MS_REC, O_DIRECTORY, O_PATH, Root, UPPER_SIZE, become_root, identity_maps,
    overlay_data,
};
use crate::fault::Fault;

use super::line::{Cell, line};

/// Slots of the launcher.
const TREE: u64 = 0;
pub(super) const LOG: u64 = 1;
pub(super) const FILTER: u64 = 2;

/// Under which name the launcher reports what the command wrote into its log.
pub(super) const LOG_KEY: &str = "log";

/// Open for reading and writing without a name.
const O_TMPFILE_RDWR: u64 = 0o20000000 | O_DIRECTORY | 0o2;

const MS_QUIET: u64 = 2 | 4 | 8;

pub(super) fn list(cell: &Cell) -> Result<List, Fault> {
    let line = line(cell)?;
    let mut list = List::new();
    identity_maps(&mut list, cell.identity, CLONE_NEWNS | CLONE_NEWPID);
    // The log has no name, so that nothing is left of it; the launcher reads it when everything else is gone.
    list.stage(stage::BEFORE).open(LOG, cell.work, O_TMPFILE_RDWR);
    list.stage(stage::AFTER).report(LOG_KEY, &List::slot(LOG));
    list.stage(stage::INSIDE).setsid().umask(0o022);
    become_root(&mut list, cell.identity);
    list.mount("", "/", "", MS_REC | MS_PRIVATE, "");
    list.mount("proc", "/proc", "proc", MS_QUIET, "");
    if let Some(hidden) = cell.kind.hides(cell.flavour) {
        list.may_be_absent().mount("tmpfs", hidden, "tmpfs", MS_QUIET, "mode=755");
    }
    if let Root::Tree(tree) = cell.root {
        list.open(TREE, tree, O_PATH | O_DIRECTORY);
    }
    list.mount("tmpfs", cell.mount_point, "tmpfs", 0, &format!("mode=755,{UPPER_SIZE}")).chdir(cell.mount_point);
    for dir in ["root", "lower", "upper", "work"] {
        list.mkdir(dir, 0o755);
    }
    let lower = if *cell.root == Root::Empty { "lower".to_owned() } else { List::slot(TREE) };
    list.mount("overlay", "root", "overlay", 0, &overlay_data(cell.identity, &lower));
    for dir in &line.dirs {
        list.mkdirs(dir);
    }
    for (name, bytes) in &line.files {
        list.file(name, bytes);
    }
    list.keep(LOG);
    if line.filter {
        list.open(FILTER, FILTER_FILE, 0).keep(FILTER);
    }
    for (resource, soft, hard) in line.rlimits {
        list.rlimit(*resource, *soft, *hard);
    }
    list.stdin("/dev/null").exec(cell.programs, &line.argv, &line.environment);
    Ok(list)
}

/// Where a filter program is written for commands that load one from a descriptor.
pub(super) const FILTER_FILE: &str = "filter";

//! apptainer 1.x: the argument line. Pure; see `apptainer help exec`.
//!
//! Its cells see nothing of the user's home, environment and mounts; its own configuration file has the last word, as on
//! the cluster whose it is.

use crate::engine::PAYLOAD_DIR;
use crate::engine::builtin::policy::HOSTNAME;
use crate::engine::options::Seccomp;

use super::line::{Cell, Line, environment};

pub(super) fn line<'a>(cell: &Cell<'a>) -> Line<'a> {
    let settings = cell.settings;
    let mut words: Vec<String> = vec![cell.program()];
    let mut say = |list: &[&str]| words.extend(list.iter().map(|word| (*word).to_owned()));
    say(&["--silent", "exec", "--containall", "--cleanenv", "--no-home", "--no-umask", "--hostname", HOSTNAME]);
    say(&["--pwd", "/", "--bind", &format!("{}:{PAYLOAD_DIR}:ro", cell.payload)]);
    if !settings.read_only {
        // The root is a directory of the frame's: what is written there is gone with it.
        say(&["--writable"]);
    }
    if !settings.host_network {
        say(&["--net", "--network", "none"]);
    }
    if settings.privileged {
        say(&["--add-caps", "all", "--bind", "/dev"]);
    } else if cell.capabilities.0 == 0 {
        say(&["--no-privs"]);
    } else {
        let names: Vec<String> = cell.capabilities.names().map(|name| format!("CAP_{name}")).collect();
        say(&["--add-caps", &names.join(",")]);
    }
    if let Some(Seccomp::File(path)) = &cell.options.seccomp {
        say(&["--security", &format!("seccomp:{}", path.display())]);
    }
    let (uid, gid) = cell.user;
    if (uid, gid) != (0, 0) {
        say(&["--security", &format!("uid:{uid}"), "--security", &format!("gid:{gid}")]);
    }
    for (name, value) in cell.cell_environment().into_iter().filter(|(name, _)| *name != "HOME") {
        say(&["--env", &format!("{name}={value}")]);
    }
    say(&[&format!("{}/root", cell.mount_point)]);
    words.extend(cell.argv.iter().cloned());
    Line { argv: words, environment: environment(), rlimits: &settings.ulimits, ..Line::default() }
}

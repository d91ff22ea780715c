//! apptainer 1.x: the argument line. Pure; see `apptainer help exec`.
//!
//! Its cells see nothing of the user's home, environment and mounts; its own configuration file has the last word, as on
//! the cluster whose it is.

use crate::engine::PAYLOAD_DIR;
use crate::engine::builtin::policy::HOSTNAME;
use crate::engine::builtin::seccomp::Surroundings;
use crate::engine::builtin::settings::refused;
use crate::fault::Fault;

use super::line::{Cell, Line, environment};

const PROFILE: &str = "seccomp.json";

pub(super) fn line<'a>(cell: &Cell<'a>) -> Result<Line<'a>, Fault> {
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
    // Root has all capabilities there otherwise (`root default capabilities` of apptainer.conf), and to those are added.
    say(&["--no-privs"]);
    if cell.capabilities.0 != 0 {
        let names: Vec<String> = cell.capabilities.names().map(|name| format!("CAP_{name}")).collect();
        say(&["--add-caps", &names.join(",")]);
    }
    if settings.privileged {
        say(&["--bind", "/dev"]);
    }
    let mut files = vec![];
    if let Some(profile) = &settings.seccomp {
        // A file of the frame: the matrix's own may be on another machine.
        let around = Surroundings { capabilities: cell.capabilities, kernel: cell.identity.kernel };
        let mut json = profile.oci(&around).map_err(|e| refused(format!("option `seccomp`: {e}")))?;
        cell.kind.adapt(&mut json);
        files.push((PROFILE.to_owned(), json.to_string().into_bytes()));
        say(&["--security", &format!("seccomp:{}/{PROFILE}", cell.mount_point)]);
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
    // It makes no directory in a root that can be written to, and in another only where it may use overlays.
    let dirs = ["dev", "proc", "sys", "tmp", "var/tmp", ".abicus"].map(|name| format!("root/{name}")).to_vec();
    Ok(Line { dirs, files, argv: words, environment: environment(), rlimits: &settings.ulimits, ..Line::default() })
}

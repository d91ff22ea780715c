//! mmdebstrap: makes things of a distribution's packages, from its default mirror.
//!
//! In: a command with options added by the caller, who checked every name in it. Out: success, or what it said went wrong.
//! Nothing of the matrix reaches a shell: hooks are fixed text.

use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use super::blob::Cancel;
use super::error::ImageError;
use super::inspect::printable;
use super::tool::{self, Farewell};

const TOOL: &str = "mmdebstrap";
/// Takes the archive of security updates off apt's list: fixed text, for mmdebstrap's shell.
const WITHOUT_SECURITY: &str = r#"--setup-hook=find "$1/etc/apt" -name "*.list" -exec sed -i "/security/d" {} +"#;

/// A command that works for this user, says what it does on standard error, and is a process group.
pub(crate) fn command(superuser: bool) -> Command {
    let mut command = Command::new(TOOL);
    command.arg(if superuser { "--mode=root" } else { "--mode=unshare" });
    // The release files of suites that get no more updates have expired; they are still signed.
    command.arg(r#"--aptopt=Acquire::Check-Valid-Until "false""#);
    command.env("LC_ALL", "C.UTF-8").env_remove("SOURCE_DATE_EPOCH");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).process_group(0);
    command
}

/// A command as the root that mmdebstrap has for an ordinary user: who its files belong to, and who alone can remove them.
pub(crate) fn as_its_root(arguments: &[&str]) -> Command {
    let mut command = Command::new(TOOL);
    command.arg("--unshare-helper").args(arguments).stdin(Stdio::null());
    command
}

/// Installs, and where only the archive of security updates is in the way, again without it. Returns what was left out.
///
/// Suites that get no more security updates lose the packages of those before they lose their index.
pub(crate) fn twice(
    mut install: impl FnMut(Option<&str>) -> Result<(), ImageError>,
    say: &dyn Fn(&str),
) -> Result<&'static str, ImageError> {
    match install(None) {
        Err(ImageError::Failed { what, .. }) if what.contains("Err:") && what.contains("security") => {
            say("again, without the archive of security updates");
            install(Some(WITHOUT_SECURITY)).map(|()| "security")
        }
        done => done.map(|()| ""),
    }
}

/// The tool's version, or how to get the tool.
pub(crate) fn version() -> Result<String, ImageError> {
    let missing = |why: String| ImageError::Missing {
        what: format!("{TOOL} cannot be run: {why}"),
        hint: format!("install the package {TOOL} (Debian, Ubuntu), or use another kind of image"),
    };
    let output =
        Command::new(TOOL).arg("--version").stdin(Stdio::null()).output().map_err(|e| missing(e.to_string()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    match text.lines().next() {
        Some(line) if output.status.success() => Ok(printable(line)),
        _ => Err(missing(output.status.to_string())),
    }
}

/// Runs mmdebstrap to its end, or to the end of the caller's interest.
pub(crate) fn run(command: Command, suite: &str, cancel: &Cancel, say: &dyn Fn(&str)) -> Result<(), ImageError> {
    let hint = format!("run `{TOOL} {suite} /tmp/try.tar` by hand to see all it says");
    let mut errors = Vec::new();
    let mut hear = |line: &str| {
        let line = printable(line);
        if let Some(doing) = line.strip_prefix("I: ") {
            say(doing);
        } else if line.starts_with("E: ") || line.starts_with("Err:") || line.starts_with("W: Failed") {
            errors.push(line);
        }
    };
    let status = tool::run(command, Farewell::CleansUp, &hint, cancel, &mut hear)?;
    if status.success() {
        return Ok(());
    }
    errors.truncate(4);
    let said = if errors.is_empty() { status.to_string() } else { errors.join("; ") };
    if !rustix::process::geteuid().is_root()
        && (said.contains("newuidmap") || said.contains("unshare") || said.contains("subuid"))
    {
        return Err(ImageError::Failed {
            what: format!("{TOOL} cannot work for this user: {said}"),
            hint: "it needs the package uidmap, a range for this user in /etc/subuid and /etc/subgid, and user namespaces \
                   for ordinary users; or run as root"
                .to_owned(),
            transient: false,
        });
    }
    let what = format!("{TOOL} could not make suite `{suite}`: {said}");
    Err(ImageError::Failed { what, hint, transient: true })
}

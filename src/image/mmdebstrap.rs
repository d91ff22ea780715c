//! mmdebstrap: makes things of a distribution's packages, from its default mirror.
//!
//! In: a command with options added by the caller, who checked every name in it. Out: success, or what it said went wrong.
//! Nothing of the matrix reaches a shell: hooks are fixed text.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

use super::blob::Cancel;
use super::error::ImageError;
use super::inspect::printable;

const TOOL: &str = "mmdebstrap";
/// A bootstrap over a slow line takes minutes; one that takes longer than this hangs.
const DEADLINE: Duration = Duration::from_secs(45 * 60);
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
pub(crate) fn run(mut command: Command, suite: &str, cancel: &Cancel, say: &dyn Fn(&str)) -> Result<(), ImageError> {
    let failed = |what: String| ImageError::Failed {
        what,
        hint: format!("run `{TOOL} {} /tmp/try.tar` by hand to see all it says", suite),
        transient: true,
    };
    let mut child = command.spawn().map_err(|e| failed(format!("{TOOL} could not be started: {e}")))?;
    let (send, lines) = mpsc::sync_channel::<String>(1024);
    if let Some(stderr) = child.stderr.take() {
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).split(b'\n').map_while(Result::ok) {
                // A full channel only means that nobody reads any more.
                drop(send.try_send(String::from_utf8_lossy(&line).into_owned()));
            }
        });
    }
    let started = Instant::now();
    let mut errors = Vec::new();
    let mut hear = |line: String| {
        let line = printable(&line);
        if let Some(doing) = line.strip_prefix("I: ") {
            say(doing);
        } else if line.starts_with("E: ") || line.starts_with("Err:") || line.starts_with("W: Failed") {
            errors.push(line);
        }
    };
    let status = loop {
        match lines.recv_timeout(Duration::from_millis(100)) {
            Ok(line) => hear(line),
            Err(mpsc::RecvTimeoutError::Timeout) => {}
            Err(mpsc::RecvTimeoutError::Disconnected) => std::thread::sleep(Duration::from_millis(20)),
        }
        if let Some(status) = child.try_wait().map_err(|e| failed(format!("{TOOL} was lost: {e}")))? {
            break status;
        }
        let cancelled = cancel.load(Ordering::Relaxed);
        if cancelled || started.elapsed() > DEADLINE {
            stop(&mut child);
            let late = failed(format!("{TOOL} did not finish within {} minutes", DEADLINE.as_secs() / 60));
            return Err(if cancelled { ImageError::Interrupted } else { late });
        }
    };
    while let Ok(line) = lines.recv_timeout(Duration::from_millis(200)) {
        hear(line);
    }
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
    Err(failed(format!("{TOOL} could not make suite `{}`: {said}", suite)))
}

/// Lets it clean up after itself, and ends it if it does not.
fn stop(child: &mut std::process::Child) {
    let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) else { return };
    for signal in [Signal::TERM, Signal::KILL] {
        let _ = rustix::process::kill_process_group(pid, signal);
        for _ in 0..100 {
            if matches!(child.try_wait(), Ok(Some(_)) | Err(_)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

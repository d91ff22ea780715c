//! A program of the machine's that makes images of packages: run to its end, heard line by line.
//!
//! In: a command, in a process group of its own and with a standard error to read. Out: how it ended, or why nobody knows.

use std::io::{BufRead, BufReader};
use std::process::{Command, ExitStatus};
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

use super::blob::Cancel;
use super::error::ImageError;

/// A bootstrap over a slow line takes minutes; one that takes longer than this hangs.
const DEADLINE: Duration = Duration::from_secs(45 * 60);

/// What a tool is asked to end by when nobody wants it any more, before it is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Farewell {
    /// It has mounts and directories of its own to remove.
    CleansUp,
    /// Whatever it has goes with its namespaces.
    Killed,
}

/// Runs a tool to its end, or to the end of the caller's interest. `hint` is what helps where it cannot be run.
pub(crate) fn run(
    mut command: Command,
    farewell: Farewell,
    hint: &str,
    cancel: &Cancel,
    hear: &mut dyn FnMut(&str),
) -> Result<ExitStatus, ImageError> {
    let name = command.get_program().to_string_lossy().into_owned();
    let failed = |what: String| ImageError::Failed { what, hint: hint.to_owned(), transient: true };
    let mut child = command.spawn().map_err(|e| failed(format!("{name} could not be started: {e}")))?;
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
    let status = loop {
        match lines.recv_timeout(Duration::from_millis(100)) {
            Ok(line) => hear(&line),
            Err(mpsc::RecvTimeoutError::Timeout) => {}
            Err(mpsc::RecvTimeoutError::Disconnected) => std::thread::sleep(Duration::from_millis(20)),
        }
        if let Some(status) = child.try_wait().map_err(|e| failed(format!("{name} was lost: {e}")))? {
            break status;
        }
        let cancelled = cancel.load(Ordering::Relaxed);
        if cancelled || started.elapsed() > DEADLINE {
            stop(&mut child, farewell);
            let late = failed(format!("{name} did not finish within {} minutes", DEADLINE.as_secs() / 60));
            return Err(if cancelled { ImageError::Interrupted } else { late });
        }
    };
    while let Ok(line) = lines.recv_timeout(Duration::from_millis(200)) {
        hear(&line);
    }
    Ok(status)
}

/// Ends it with all that it started.
fn stop(child: &mut std::process::Child, farewell: Farewell) {
    let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) else { return };
    let signals: &[Signal] = match farewell {
        Farewell::CleansUp => &[Signal::TERM, Signal::KILL],
        Farewell::Killed => &[Signal::KILL],
    };
    for signal in signals {
        let _ = rustix::process::kill_process_group(pid, *signal);
        for _ in 0..100 {
            if matches!(child.try_wait(), Ok(Some(_)) | Err(_)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

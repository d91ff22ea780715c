//! What commands say: their version, and why a cell did not come to be.
//!
//! In: output. Out: a version; how a cell ended. Pure; output is cut and never trusted.

use serde_json::Value;

use crate::engine::{Ended, libseccomp};
use crate::fault::{Fault, Phase};

use super::line::Kind;
use super::quirks::Flavour;

/// What `--version` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Version {
    /// `runc`.
    pub(super) name: String,
    /// `1.1.5+ds1`.
    pub(super) number: String,
    /// `2.5.4`, of the library that makes its filters; crun and gVisor say none.
    pub(super) libseccomp: Option<String>,
}

impl Version {
    pub(super) fn flavour(&self) -> Flavour {
        Flavour::of(&self.name)
    }
}

/// `runc version 1.1.5`, `crun version 1.8.1`, `runsc version release-20221219.0`, `youki version: 0.5`, `bubblewrap 0.8.0`,
/// `systemd 252 (252.39-1~deb12u2)`, `apptainer version 1.3`: the first word, and the first with a digit in front.
pub(super) fn version(said: &str) -> Version {
    let line = said.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
    let mut words = line.split_whitespace().map(|word| word.chars().filter(|c| !c.is_control()).take(60).collect());
    let name: String = words.next().unwrap_or_default();
    let words: Vec<String> = words.collect();
    let number = words
        .iter()
        .find(|word| word.starts_with(|c: char| c.is_ascii_digit()))
        .or_else(|| words.iter().find(|word| word.contains(|c: char| c.is_ascii_digit())));
    Version { name, number: number.cloned().unwrap_or_else(|| "unknown".to_owned()), libseccomp: libseccomp(said) }
}

/// The last thing said on standard error, for an error.
pub(super) fn last_line(stderr: &[u8]) -> String {
    let end = &stderr[stderr.len().saturating_sub(2000)..];
    let text = uncoloured(&String::from_utf8_lossy(end));
    text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("nothing was said").trim().to_owned()
}

/// Without what colours a terminal: a part of apptainer does so whatever it is told.
fn uncoloured(text: &str) -> String {
    let mut parts = text.split("\u{1b}[");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| text + part.split_once('m').map_or(part, |(_, rest)| rest))
}

/// A command that fails exits as a program may: what it wrote into its log, or as its own last words, tells them apart.
pub(super) fn verdict(
    kind: Kind,
    ended: Result<Ended, Fault>,
    log: &[u8],
    stderr: &[u8],
    program: &str,
) -> Result<Ended, Fault> {
    let status = match ended {
        Ok(Ended::Exit(status)) if status != 0 => status,
        // youki 0.7 may wait for ever for what never began.
        Ok(Ended::Deadline) if kind == Kind::Oci && execvp(log).is_some() => 1,
        _ => return ended,
    };
    let said = match kind {
        Kind::Oci => execvp(log)
            .or_else(|| logged(log))
            .or_else(|| executing(stderr, program))
            // runsc 2022 where its sandbox does not start: no word of that is in its log.
            .or_else(|| (status == 128).then(|| own_words(stderr, "running container: ")).flatten()),
        Kind::Bubblewrap => own_words(stderr, "bwrap: "),
        Kind::Nspawn => (status == 1).then(|| nspawn(stderr)).flatten(),
        Kind::Apptainer => match status {
            255 => own_words(stderr, "FATAL:"),
            // Of the part that makes the namespaces.
            1 => own_words(stderr, "ERROR  :"),
            // It makes threads under the filter of the cell, whose EPERM for clone3 a new libc does not forgive.
            139 => own_words(stderr, "runtime/cgo: ").map(|said| format!("apptainer itself, under the filter: {said}")),
            _ => None,
        },
    };
    let Some(said) = said else { return ended };
    let lower = said.to_ascii_lowercase();
    let executing = ["exec", "no such file or directory", "failed to load"].iter().any(|word| lower.contains(word));
    Err(Fault::new(if executing { Phase::Start } else { Phase::Create }, said))
}

/// The last error of a log in JSON lines, as containerd reads it.
fn logged(log: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(log);
    text.lines().rev().find_map(|line| {
        let entry: Value = serde_json::from_str(line).ok()?;
        // youki writes `ERROR` and `message`.
        let level = entry["level"].as_str()?.to_ascii_lowercase();
        let message = entry["msg"].as_str().or_else(|| entry["message"].as_str())?;
        // youki's has the stack below it.
        let message = message.trim().lines().next().unwrap_or_default();
        ["error", "fatal", "panic"].contains(&level.as_str()).then(|| message.to_owned())
    })
}

/// youki 0.7 says the cause first, and last that it could not say it to itself.
fn execvp(log: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(log);
    let entries = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let failed = entries.filter(|entry| entry["message"] == "failed to execvp").find_map(|entry| {
        Some((entry["filename"].as_str()?.trim_matches('"').to_owned(), entry["err"].as_str()?.to_owned()))
    });
    failed.map(|(program, error)| match error.as_str() {
        "ENOENT" => format!("exec {program}: no such file or directory"),
        "ENOEXEC" => format!("exec {program}: exec format error"),
        other => format!("exec {program}: {other}"),
    })
}

/// What failed in the last step, when the log is out of reach: runc 1.1 writes `exec PROGRAM: exec format error`, crun 1.8 a
/// line of its log on standard error.
fn executing(stderr: &[u8], program: &str) -> Option<String> {
    let line = last_line(stderr);
    if line.starts_with(&format!("exec {program}: ")) {
        return Some(line);
    }
    logged(line.as_bytes()).filter(|message| message.starts_with("exec container process"))
}

/// A command without a log of its own begins its lines with its name; a program in the cell that writes the same only
/// deceives itself.
fn own_words(stderr: &[u8], name: &str) -> Option<String> {
    let line = last_line(stderr);
    line.strip_prefix(name).map(|rest| rest.trim().to_owned())
}

fn nspawn(stderr: &[u8]) -> Option<String> {
    let line = last_line(stderr);
    let own = ["Failed to ", "execv(", "Directory ", "Refusing "].iter().any(|start| line.starts_with(start));
    own.then_some(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_says_its_version_in_its_own_way() {
        for (said, name, number) in [
            ("runc version 1.1.5+ds1\ncommit: 1.1.5\nlibseccomp: 2.5.4\n", "runc", "1.1.5+ds1"),
            ("crun version 1.8.1\ncommit: f8a0\n", "crun", "1.8.1"),
            ("runsc version release-20221219.0\nspec: 1.0.2\n", "runsc", "release-20221219.0"),
            ("youki version: 0.5.0\n", "youki", "0.5.0"),
            ("bubblewrap 0.8.0\n", "bubblewrap", "0.8.0"),
            ("systemd 252 (252.39-1~deb12u2)\n+PAM\n", "systemd", "252"),
            ("apptainer version 1.3.4\n", "apptainer", "1.3.4"),
            ("", "", "unknown"),
        ] {
            let libseccomp = (name == "runc").then(|| "2.5.4".to_owned());
            let expected = Version { name: name.to_owned(), number: number.to_owned(), libseccomp };
            assert_eq!(version(said), expected);
        }
    }

    #[test]
    fn a_programs_own_failure_is_told_from_its_runtimes() {
        let exit = || Ok(Ended::Exit(1));
        assert_eq!(verdict(Kind::Oci, exit(), b"", b"level=error says the program", "/p"), exit());
        let log = b"{\"level\":\"warning\",\"msg\":\"x\"}\n{\"level\":\"error\",\"msg\":\"exec: \\\"/x\\\": not found\"}\nhalf";
        let fault = verdict(Kind::Oci, exit(), log, b"", "/p").unwrap_err();
        assert_eq!((fault.phase, fault.cause.as_str()), (Phase::Start, "exec: \"/x\": not found"));
        let runc = verdict(Kind::Oci, exit(), b"", b"exec /p: exec format error\n", "/p");
        assert_eq!(runc.unwrap_err().phase, Phase::Start);
        assert_eq!(verdict(Kind::Oci, exit(), b"", b"exec /q: exec format error\n", "/p"), exit());
        let crun = b"{\"msg\":\"exec container process `/p`: Exec format error\",\"level\":\"error\"}\n";
        assert!(verdict(Kind::Oci, exit(), b"", crun, "/p").is_err());
        let youki = b"{\"level\":\"ERROR\",\"message\":\"failed to exec\"}\n";
        assert_eq!(verdict(Kind::Oci, exit(), youki, b"", "/p").unwrap_err().cause, "failed to exec");
        let youki =
            b"{\"level\":\"ERROR\",\"message\":\"failed to execvp\",\"err\":\"ENOEXEC\",\"filename\":\"\\\"/p\\\"\"}\n\
            {\"level\":\"ERROR\",\"message\":\"failed sending error to main sender\"}\n";
        for ended in [exit(), Ok(Ended::Deadline)] {
            let fault = verdict(Kind::Oci, ended, youki, b"", "/p").unwrap_err();
            assert_eq!((fault.phase, fault.cause.as_str()), (Phase::Start, "exec /p: exec format error"));
        }
        assert_eq!(verdict(Kind::Oci, Ok(Ended::Deadline), log, b"", "/p"), Ok(Ended::Deadline));
        let sandbox = b"running container: creating container: cannot create sandbox: EOF\n";
        let fault = verdict(Kind::Oci, Ok(Ended::Exit(128)), b"", sandbox, "/p").unwrap_err();
        assert_eq!(fault.phase, Phase::Create);
        let log = b"{\"level\":\"error\",\"msg\":\"cgroup: permission denied\"}\n";
        assert_eq!(verdict(Kind::Oci, exit(), log, b"", "/p").unwrap_err().phase, Phase::Create);
        assert_eq!(verdict(Kind::Oci, Ok(Ended::Exit(0)), log, b"", "/p"), Ok(Ended::Exit(0)));
        let fault = verdict(Kind::Bubblewrap, exit(), b"", b"a\nbwrap: Can't mkdir /x: Read-only\n", "/p").unwrap_err();
        assert_eq!(fault.cause, "Can't mkdir /x: Read-only");
        assert_eq!(verdict(Kind::Bubblewrap, exit(), b"", b"bwrap: x\nmine\n", "/p"), exit());
        let apptainer = b"\x1b[91mERROR  : Requesting capability set 0x1 while permitted is 0x0\n\x1b[0m";
        let fault = verdict(Kind::Apptainer, exit(), b"", apptainer, "/p").unwrap_err();
        assert!(fault.phase == Phase::Create && fault.cause.starts_with("Requesting"), "{fault:?}");
        let cgo = b"runtime/cgo: pthread_create failed: Operation not permitted\n";
        let fault = verdict(Kind::Apptainer, Ok(Ended::Exit(139)), b"", cgo, "/p").unwrap_err();
        assert!(fault.phase == Phase::Create && fault.cause.contains("pthread_create"), "{fault:?}");
        let fatal = b"FATAL:   stat /p: no such file or directory\n";
        assert_eq!(verdict(Kind::Apptainer, Ok(Ended::Exit(255)), b"", fatal, "/p").unwrap_err().phase, Phase::Start);
    }
}

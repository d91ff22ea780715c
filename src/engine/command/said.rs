//! What commands say: their version, and why a cell did not come to be.
//!
//! In: output. Out: a version; how a cell ended. Pure; output is cut and never trusted.

use serde_json::Value;

use crate::engine::Ended;
use crate::fault::{Fault, Phase};

use super::line::{Flavour, Kind};

/// What `--version` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Version {
    /// `runc`.
    pub(super) name: String,
    /// `1.1.5+ds1`.
    pub(super) number: String,
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
    Version { name, number: number.cloned().unwrap_or_else(|| "unknown".to_owned()) }
}

/// The last thing said on standard error, for an error.
pub(super) fn last_line(stderr: &[u8]) -> String {
    let end = &stderr[stderr.len().saturating_sub(2000)..];
    let text = String::from_utf8_lossy(end).into_owned();
    text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("nothing was said").trim().to_owned()
}

/// A command that fails exits as a program may: what it wrote into its log, or as its own last words, tells them apart.
pub(super) fn verdict(
    kind: Kind,
    ended: Result<Ended, Fault>,
    log: &[u8],
    stderr: &[u8],
    program: &str,
) -> Result<Ended, Fault> {
    let Ok(Ended::Exit(status)) = ended else { return ended };
    if status == 0 {
        return ended;
    }
    let said = match kind {
        Kind::Oci => logged(log).or_else(|| executing(stderr, program)),
        Kind::Bubblewrap => own_words(stderr, "bwrap: "),
        Kind::Nspawn => (status == 1).then(|| nspawn(stderr)).flatten(),
        Kind::Apptainer => (status == 255).then(|| own_words(stderr, "FATAL:")).flatten(),
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
        ["error", "fatal", "panic"].contains(&level.as_str()).then(|| message.trim().to_owned())
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
            ("runc version 1.1.5+ds1\ncommit: 1.1.5\n", "runc", "1.1.5+ds1"),
            ("crun version 1.8.1\ncommit: f8a0\n", "crun", "1.8.1"),
            ("runsc version release-20221219.0\nspec: 1.0.2\n", "runsc", "release-20221219.0"),
            ("youki version: 0.5.0\n", "youki", "0.5.0"),
            ("bubblewrap 0.8.0\n", "bubblewrap", "0.8.0"),
            ("systemd 252 (252.39-1~deb12u2)\n+PAM\n", "systemd", "252"),
            ("apptainer version 1.3.4\n", "apptainer", "1.3.4"),
            ("", "", "unknown"),
        ] {
            let expected = Version { name: name.to_owned(), number: number.to_owned() };
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
        let log = b"{\"level\":\"error\",\"msg\":\"cgroup: permission denied\"}\n";
        assert_eq!(verdict(Kind::Oci, exit(), log, b"", "/p").unwrap_err().phase, Phase::Create);
        assert_eq!(verdict(Kind::Oci, Ok(Ended::Exit(0)), log, b"", "/p"), Ok(Ended::Exit(0)));
        let fault = verdict(Kind::Bubblewrap, exit(), b"", b"a\nbwrap: Can't mkdir /x: Read-only\n", "/p").unwrap_err();
        assert_eq!(fault.cause, "Can't mkdir /x: Read-only");
        assert_eq!(verdict(Kind::Bubblewrap, exit(), b"", b"bwrap: x\nmine\n", "/p"), exit());
    }
}

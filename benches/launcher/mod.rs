//! The floor of engines that make their cells by the launcher: the same launcher with the same list of operations, started
//! and awaited by a thread that does nothing else.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};

/// Runs a list to its end; `told` is what the launcher says of how the program ended.
pub fn bare_cell(launcher: &Path, list: &[u8], told: &str) {
    let run = || -> std::io::Result<Vec<u8>> {
        let (mut ours, theirs) = UnixStream::pair()?;
        let mut child = Command::new(launcher)
            .args(["0", "0", "0"])
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        ours.write_all(list)?;
        let mut said = vec![];
        ours.read_to_end(&mut said)?;
        child.wait()?;
        Ok(said)
    };
    let said = String::from_utf8_lossy(&run().unwrap_or_default()).into_owned();
    assert!(said.lines().any(|line| line == told), "{said}");
}

//! `abicus completions` and `abicus man`: for packagers and shells.

use clap::Args;
use clap_complete::Shell;

use super::{Error, Exit, print};

/// Print shell completions
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  abicus completions bash > /etc/bash_completion.d/abicus")]
pub(super) struct Completions {
    /// For this shell
    shell: Shell,
}

/// Print the man page
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  abicus man | man -l -")]
pub(super) struct Man {}

pub(super) fn completions(arguments: Completions, mut command: clap::Command) -> Result<Exit, Error> {
    let mut out = vec![];
    clap_complete::generate(arguments.shell, &mut command, "abicus", &mut out);
    print(&String::from_utf8_lossy(&out))?;
    Ok(Exit::Expected)
}

pub(super) fn man(_: Man, command: clap::Command) -> Result<Exit, Error> {
    let mut out = vec![];
    clap_mangen::Man::new(command).render(&mut out).map_err(Error::io("standard output"))?;
    print(&String::from_utf8_lossy(&out))?;
    Ok(Exit::Expected)
}

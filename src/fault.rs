//! What went wrong with the rig, as data: a fault makes a cell's outcome `error`, never `fail`, and never stops the run.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Where in the life of a cell the rig broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// The host could not be reached.
    Host,
    /// The engine is absent, unreachable or refuses us.
    Engine,
    /// The image could not be found, fetched, unpacked or made.
    Image,
    /// The engine could not be given the image.
    Prepare,
    /// The container could not be created.
    Create,
    /// The probe could not be put into the container.
    Inject,
    /// The container could not be started.
    Start,
    /// The connection to the engine or host broke while the probe ran.
    Transport,
    /// How the container ended could not be learned, or something outside ended it.
    Wait,
    /// The probe's output breaks the protocol or was cut off.
    Protocol,
    /// What was made could not be removed.
    Cleanup,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Host => "host",
            Self::Engine => "engine",
            Self::Image => "image",
            Self::Prepare => "prepare",
            Self::Create => "create",
            Self::Inject => "inject",
            Self::Start => "start",
            Self::Transport => "transport",
            Self::Wait => "wait",
            Self::Protocol => "protocol",
            Self::Cleanup => "cleanup",
        })
    }
}

/// A failure of the rig: where, why, and what the user can do about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{phase}: {cause}")]
pub struct Fault {
    /// Where it broke.
    pub phase: Phase,
    /// What was seen, in one line, without a full stop.
    pub cause: String,
    /// What the user can do, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Whether trying again could help.
    #[serde(default)]
    pub transient: bool,
}

impl Fault {
    /// A fault that trying again will not cure.
    pub fn new(phase: Phase, cause: impl fmt::Display) -> Self {
        Self { phase, cause: one_line(&cause.to_string()), hint: None, transient: false }
    }

    /// The same fault, worth another attempt.
    pub fn transient(mut self) -> Self {
        self.transient = true;
        self
    }

    /// The same fault with advice.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// Longest cause kept, in characters: engines put whole logs into their errors.
const MAX_CAUSE: usize = 600;

fn one_line(text: &str) -> String {
    let mut line = String::new();
    for word in text.split_whitespace() {
        if !line.is_empty() {
            line.push(' ');
        }
        line.extend(word.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }));
    }
    match line.char_indices().nth(MAX_CAUSE) {
        Some((cut, _)) => format!("{}…", &line[..cut]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_one_printable_line_of_bounded_length() {
        let fault = Fault::new(Phase::Create, format!("first\nsecond \u{1b}[31mred {}", "x".repeat(5000)));
        assert!(fault.cause.starts_with("first second \u{fffd}[31mred x"));
        assert!(fault.cause.chars().count() <= MAX_CAUSE + 1);
    }
}

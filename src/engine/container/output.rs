//! What a program wrote, kept up to a cap.
//!
//! In: chunks of the attached stream. Out: the first `cap` bytes of each of standard output and standard error, and whether
//! either wanted more. The order between the two is not kept: the engines do not keep it.

use bollard::container::LogOutput;

/// Standard output and standard error of one program.
#[derive(Debug, Default)]
pub(super) struct Output {
    pub(super) stdout: Vec<u8>,
    pub(super) stderr: Vec<u8>,
    cap: usize,
    /// Whether the program wrote more than is kept.
    pub(super) flooded: bool,
}

impl Output {
    pub(super) fn new(cap: usize) -> Self {
        Self { cap, ..Self::default() }
    }

    /// Keeps what fits of one chunk.
    pub(super) fn push(&mut self, chunk: LogOutput) {
        let (kept, bytes) = match &chunk {
            LogOutput::StdErr { message } => (&mut self.stderr, message),
            LogOutput::StdOut { message } | LogOutput::Console { message } => (&mut self.stdout, message),
            LogOutput::StdIn { .. } => return,
        };
        let room = self.cap - kept.len();
        kept.extend_from_slice(&bytes[..bytes.len().min(room)]);
        self.flooded |= bytes.len() > room;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn out(text: &'static [u8]) -> LogOutput {
        LogOutput::StdOut { message: text.into() }
    }

    #[test]
    fn the_two_streams_are_kept_apart_and_capped_each() {
        let mut output = Output::new(4);
        output.push(out(b"ab"));
        output.push(LogOutput::StdErr { message: "wxyz".into() });
        output.push(out(b"cd"));
        assert!(!output.flooded, "exactly the cap is not a flood");
        output.push(out(b"e"));
        assert!(output.flooded);
        assert_eq!((output.stdout.as_slice(), output.stderr.as_slice()), (&b"abcd"[..], &b"wxyz"[..]));
    }
}

//! What a check comes to.
//!
//! Goes in: what a check saw. Comes out: one line of the protocol. Must not know: which checks there are.

use crate::rt::line::Line;
use crate::rt::text::Text;

/// Room for an answer; longer ones are cut.
pub type Answer = Text<1024>;

/// How many measurements one line carries.
pub const SAMPLES: usize = 24;

#[derive(Clone, Copy)]
pub enum Saw {
    Ok,
    /// An errno, and which step of several it was.
    Errno(i32, &'static str),
    Value(Answer),
    Number(i64),
    NotAsked(Answer),
    /// Tenths of a nanosecond for one call.
    Samples([u32; SAMPLES]),
    Signal(i32),
    /// Milliseconds after which the child was killed.
    Timeout(u64),
}

/// A check ends early with `?`; both sides say what was seen.
pub type Seen = Result<Saw, Saw>;

impl Saw {
    pub fn value(text: &[u8]) -> Saw {
        Saw::Value(Text::of(text))
    }

    pub fn not_asked(why: &[u8]) -> Saw {
        Saw::NotAsked(Text::of(why))
    }

    pub fn is_ok(&self) -> bool {
        matches!(self, Saw::Ok)
    }

    /// The keys of an observation, after the check's id.
    pub fn write(&self, line: &mut Line) {
        match self {
            Saw::Ok => {
                line.text("saw", b"ok");
            }
            Saw::Errno(errno, step) => {
                line.text("saw", b"errno").number("errno", i64::from(*errno));
                if !step.is_empty() {
                    line.text("step", step.as_bytes());
                }
            }
            Saw::Value(text) => {
                line.text("saw", b"value").text("value", text.bytes());
            }
            Saw::Number(number) => {
                line.text("saw", b"value").number("value", *number);
            }
            Saw::NotAsked(why) => {
                line.text("saw", b"not-asked").text("why", why.bytes());
            }
            Saw::Samples(samples) => {
                line.text("saw", b"samples").text("unit", b"ns").tenths("samples", samples);
            }
            Saw::Signal(signal) => {
                line.text("saw", b"signal").number("signal", i64::from(*signal));
            }
            Saw::Timeout(ms) => {
                line.text("saw", b"timeout").number("ms", *ms as i64);
            }
        }
    }
}

/// Says what was seen unless `good`.
pub fn expect(good: bool, otherwise: &[u8]) -> Result<(), Saw> {
    if good { Ok(()) } else { Err(Saw::value(otherwise)) }
}

/// A value put together with `write!`.
#[macro_export]
macro_rules! value {
    ($($piece:tt)*) => { $crate::saw::Saw::Value($crate::saw::Answer::format(format_args!($($piece)*))) };
}

/// A reason put together with `write!`.
#[macro_export]
macro_rules! not_asked {
    ($($piece:tt)*) => { $crate::saw::Saw::NotAsked($crate::saw::Answer::format(format_args!($($piece)*))) };
}

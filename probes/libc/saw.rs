//! What a check comes to.
//!
//! Goes in: what a check saw. Comes out: one line of the protocol. Must not know: which checks there are.

use core::sync::atomic::{AtomicPtr, AtomicUsize, Ordering::Relaxed};

use crate::rt::consts::{MAP_SHARED, PROT_READ, PROT_WRITE};
use crate::rt::line::Line;
use crate::rt::sys;
use crate::rt::text::Text;

/// Room for an answer while it is put together; longer ones are cut.
pub type Answer = Text<1024>;

/// How many measurements one line carries.
pub const SAMPLES: usize = 24;

/// Texts are kept where parent and child both see them, or are constants; a child has its parent's addresses.
#[derive(Clone, Copy)]
pub enum Saw {
    Ok,
    /// An errno, and which step of several it was.
    Errno(i32, &'static str),
    Value(&'static [u8]),
    Number(i64),
    NotAsked(&'static [u8]),
    /// Tenths of a nanosecond for one call.
    Samples(&'static [u32]),
    Signal(i32),
    /// Milliseconds after which the child was killed.
    Timeout(u64),
}

/// A check ends early with `?`; both sides say what was seen.
pub type Seen = Result<Saw, Saw>;

const ROOM: usize = 16 * 1024;
static KEPT: AtomicPtr<u8> = AtomicPtr::new(core::ptr::null_mut());
static USED: AtomicUsize = AtomicUsize::new(0);

/// Where a child leaves what it saw.
static SEEN: AtomicPtr<Option<Seen>> = AtomicPtr::new(core::ptr::null_mut());

/// Makes room for what one check says, which its child fills and its parent reads.
pub fn make_room() -> Result<(), i32> {
    KEPT.store(sys::map(ROOM, PROT_READ | PROT_WRITE, MAP_SHARED)?, Relaxed);
    SEEN.store(sys::map(size_of::<Option<Seen>>(), PROT_READ | PROT_WRITE, MAP_SHARED)?.cast(), Relaxed);
    Ok(())
}

/// Before a child is made: it has seen nothing yet.
pub fn forget() {
    // SAFETY: the mapping is as large as the type, and there is no child that writes.
    unsafe { SEEN.load(Relaxed).write_volatile(None) };
}

/// What the last child saw, once it has ended; none where it ended in the middle.
pub fn seen() -> Option<Seen> {
    // SAFETY: as above; the child wrote all of it or left `None`.
    unsafe { SEEN.load(Relaxed).read_volatile() }
}

/// Ends a check and its process.
pub fn finish(seen: Seen) -> ! {
    // SAFETY: as above; the parent only reads after this process ended.
    unsafe { SEEN.load(Relaxed).write_volatile(Some(seen)) };
    sys::exit(0)
}

/// Copies to where the parent sees it too. What does not fit is cut.
#[inline(never)]
pub fn keep(bytes: &[u8]) -> &'static [u8] {
    let used = USED.load(Relaxed);
    let size = bytes.len().min(ROOM - used);
    let base = KEPT.load(Relaxed);
    if base.is_null() {
        return b"";
    }
    USED.store((used + size).next_multiple_of(8).min(ROOM), Relaxed);
    // SAFETY: within the mapping, which is never unmapped; nobody else writes this part of it.
    unsafe {
        core::ptr::copy_nonoverlapping(bytes.as_ptr(), base.add(used), size);
        core::slice::from_raw_parts(base.add(used), size)
    }
}

/// As `keep`, for what the macros below put together.
#[inline(never)]
pub fn compose(arguments: core::fmt::Arguments) -> &'static [u8] {
    keep(Answer::format(arguments).bytes())
}

/// As `keep`, for measurements.
pub fn keep_samples(samples: &[u32]) -> &'static [u32] {
    // SAFETY: any number is four bytes; `keep` aligns to eight.
    unsafe {
        let bytes = keep(core::slice::from_raw_parts(samples.as_ptr().cast(), samples.len() * 4));
        core::slice::from_raw_parts(bytes.as_ptr().cast(), bytes.len() / 4)
    }
}

impl Saw {
    pub fn value(text: &[u8]) -> Saw {
        Saw::Value(keep(text))
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
                line.text("saw", b"value").text("value", text);
            }
            Saw::Number(number) => {
                line.text("saw", b"value").number("value", *number);
            }
            Saw::NotAsked(why) => {
                line.text("saw", b"not-asked").text("why", why);
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
pub fn expect(good: bool, otherwise: &'static [u8]) -> Result<(), Saw> {
    if good { Ok(()) } else { Err(Saw::Value(otherwise)) }
}

/// A value put together with `write!`.
#[macro_export]
macro_rules! value {
    ($($piece:tt)*) => { $crate::saw::Saw::Value($crate::saw::compose(format_args!($($piece)*))) };
}

/// A reason put together with `write!`.
#[macro_export]
macro_rules! not_asked {
    ($($piece:tt)*) => { $crate::saw::Saw::NotAsked($crate::saw::compose(format_args!($($piece)*))) };
}

//! What these checks say. Most of them have something to say, not only the failed ones: they pass it on and go on with the next
//! check in the same child, where `asking.rs` ends the child and would cost a fork for each.
//!
//! Goes in: errnos, words, numbers. Comes out: answers. Must not know: what is being asked.

use core::cell::UnsafeCell;

use crate::asking;
use crate::check::{Asked, Saw, Value};
use crate::rt::sys::Answer;

/// A check has something to say; what it is stands in `SAID`: passed on at every step it would double the code.
pub struct No(());

/// What a check of these files returns: `Ok` when everything it did was verified.
pub type Does = Result<(), No>;

struct Said(UnsafeCell<Saw>);

// SAFETY: only the first thread of a process touches it; threads that checks start do not fail.
unsafe impl Sync for Said {}

static SAID: Said = Said(UnsafeCell::new(Saw::Ok));

#[inline(never)]
pub fn no(saw: Saw) -> No {
    // SAFETY: see `Said`; nobody holds a reference.
    unsafe { *SAID.0.get() = saw };
    No(())
}

/// What a check did, as the table wants it.
#[inline(never)]
pub fn told(does: Does) -> Asked {
    match does {
        Ok(()) => Ok(Saw::Ok),
        // SAFETY: see `Said`.
        Err(No(())) => Ok(unsafe { core::ptr::replace(SAID.0.get(), Saw::Ok) }),
    }
}

/// Rows of a table: `asked![Batch "dev.full.full" => full, …]`.
macro_rules! asked {
    ($($how:ident $id:literal => $run:expr),* $(,)?) => {
        pub static CHECKS: &[$crate::check::Check] = &[$(
            $crate::check::Check {
                id: $id,
                how: $crate::check::How::$how,
                run: || $crate::surroundings::said::told($run()),
            },
        )*];
    };
}
pub(crate) use asked;

impl From<i32> for No {
    #[inline(never)]
    fn from(errno: i32) -> No {
        no(Saw::Errno(errno))
    }
}

impl From<asking::No> for No {
    fn from(never: asking::No) -> No {
        match never {}
    }
}

/// Names the step whose errno ends a check.
pub trait At<T> {
    fn at(self, step: &'static str) -> Result<T, No>;
}

impl<T> At<T> for Answer<T> {
    fn at(self, step: &'static str) -> Result<T, No> {
        self.map_err(|errno| no(Saw::At(step, errno)))
    }
}

/// The question makes no sense here, and why.
#[inline(never)]
pub fn not_asked(why: &'static str) -> No {
    no(Saw::NotAsked(why))
}

/// An answer in words, good or bad.
#[inline(never)]
pub fn value(what: core::fmt::Arguments) -> No {
    no(Saw::Value(Value::format(what)))
}

#[inline(never)]
pub fn word(what: &str) -> No {
    no(Saw::Value(Value::of(what.as_bytes())))
}

#[inline(never)]
pub fn number(what: u64) -> No {
    no(Saw::Number(what as i64))
}

/// A wrong result of one step, as a value: `bytes read: 3, not 4`.
#[inline(never)]
pub fn same(what: &'static str, got: usize, wanted: usize) -> Does {
    if got == wanted { Ok(()) } else { Err(value(format_args!("{what}: {got}, not {wanted}"))) }
}

/// What a step should have been and was not.
#[inline(never)]
pub fn holds(what: &'static str, it_does: bool) -> Does {
    if it_does { Ok(()) } else { Err(word(what)) }
}

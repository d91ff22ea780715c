//! What these checks say. Most of them have something to say, not only the failed ones: they pass it on and go on with the next
//! check in the same child, where `asking.rs` ends the child and would cost a fork for each.
//!
//! Goes in: errnos, words, numbers. Comes out: answers. Must not know: what is being asked.

use core::cell::UnsafeCell;

use crate::asking::{self, words};
use crate::check::{Asked, Saw};

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
                run: || $crate::said::told($run()),
            },
        )*];
    };
}
pub(crate) use asked;

words!();

impl From<asking::No> for No {
    fn from(never: asking::No) -> No {
        match never {}
    }
}

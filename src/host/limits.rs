//! How many files this process may have open: a connection takes some, and most systems begin with 1,024.
//!
//! In: nothing. Out: a soft limit as high as is of use, and a way to give a child the one it would have had: what a program
//! finds on this machine is not to depend on how many hosts the matrix has.

use std::sync::OnceLock;

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit, setrlimit};

/// Enough for thousands of hosts. Some programs do something for each file they may have open (rpm before 4.14.2 closes
/// them all), and containers often allow a billion.
const MOST: u64 = 1 << 16;

/// What this process was started with, where it was raised.
static GIVEN: OnceLock<Option<Rlimit>> = OnceLock::new();

/// Raises the soft limit, once.
pub(super) fn raise() {
    GIVEN.get_or_init(|| {
        let given = getrlimit(Resource::Nofile);
        let raised = Rlimit { current: Some(given.maximum.unwrap_or(MOST).min(MOST)), ..given };
        // No limit is `None`, and less than it.
        let less = given.current.is_some_and(|now| Some(now) < raised.current);
        (less && setrlimit(Resource::Nofile, raised).is_ok()).then_some(given)
    });
}

/// Gives a child of this process the limit that this process was started with.
pub(super) fn as_given(child: Option<u32>) {
    let Some(Some(given)) = GIVEN.get() else { return };
    let Some(pid) = child.and_then(|id| Pid::from_raw(id.cast_signed())) else { return };
    // One that is gone already needs none.
    let _ = prlimit(Some(pid), Resource::Nofile, *given);
}

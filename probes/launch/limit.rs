//! How many files the launcher may have open: its own descriptors have high numbers, and a program is to find the limit
//! that the launcher was given.
//!
//! Goes in: nothing. Comes out: the soft limit raised, later as it was. Must not know: what the descriptors are.

use core::sync::atomic::{AtomicU64, Ordering};

use crate::format::{FIRST_SLOT, SLOTS};
use crate::rt::consts::RLIMIT_NOFILE;
use crate::rt::nr;
use crate::rt::sys::call;

const NEEDED: u64 = FIRST_SLOT as u64 + SLOTS;
/// 0: nothing has to be given back.
static GIVEN: AtomicU64 = AtomicU64::new(0);

/// Raises the soft limit to what the slots need, or as far as it goes (getrlimit(2)).
pub fn raise() {
    exchange(|soft, hard| {
        let raised = NEEDED.min(hard);
        (soft < raised).then(|| {
            GIVEN.store(soft, Ordering::Relaxed);
            raised
        })
    });
}

/// For a program that is executed next. Descriptors above the limit stay open.
pub fn give_back() {
    exchange(|_, _| Some(GIVEN.swap(0, Ordering::Relaxed)).filter(|soft| *soft > 0));
}

/// The list says which limit the program has.
pub fn forget() {
    GIVEN.store(0, Ordering::Relaxed);
}

/// Sets what `choose` makes of the soft and the hard limit. What the kernel refuses stays as it was.
fn exchange(choose: impl FnOnce(u64, u64) -> Option<u64>) {
    let mut limits = [0u64; 2];
    // SAFETY: two u64 are a struct rlimit64: first written, then read.
    unsafe {
        if call!(nr::PRLIMIT64, 0, RLIMIT_NOFILE, 0, &mut limits).is_ok()
            && let Some(soft) = choose(limits[0], limits[1])
        {
            limits[0] = soft;
            let _ = call!(nr::PRLIMIT64, 0, RLIMIT_NOFILE, &limits, 0);
        }
    }
}

//! What the kernel put on the stack at exec: arguments, environment, auxiliary vector.
//!
//! Goes in: the stack pointer, once. Comes out: texts that live as long as the program.

use core::ffi::CStr;
use core::sync::atomic::{AtomicPtr, Ordering};

static STACK: AtomicPtr<usize> = AtomicPtr::new(core::ptr::null_mut());

/// # Safety
/// `stack` is the stack pointer at the program's entry: argc, argv, NULL, envp, NULL, auxv.
pub unsafe fn begin(stack: *const usize) {
    STACK.store(stack.cast_mut(), Ordering::Relaxed);
}

#[derive(Clone, Copy)]
pub struct Strings(*const *const core::ffi::c_char);

impl Strings {
    /// The array itself, for execve.
    pub fn pointer(self) -> *const *const core::ffi::c_char {
        self.0
    }
}

impl Iterator for Strings {
    type Item = &'static CStr;
    fn next(&mut self) -> Option<&'static CStr> {
        // SAFETY: points into argv or envp, which end in NULL and are never freed; None stops before walking past it.
        unsafe {
            let text = *self.0;
            if text.is_null() {
                return None;
            }
            self.0 = self.0.add(1);
            Some(CStr::from_ptr(text))
        }
    }
}

pub fn args() -> Strings {
    // SAFETY: argv follows argc; `begin` was called with the initial stack.
    Strings(unsafe { STACK.load(Ordering::Relaxed).add(1) }.cast())
}

pub fn env() -> Strings {
    let stack = STACK.load(Ordering::Relaxed);
    // SAFETY: envp follows argv's NULL.
    Strings(unsafe { stack.add(*stack + 2) }.cast())
}

/// All entries of the auxiliary vector in the kernel's order, without AT_NULL.
pub fn auxv() -> impl Iterator<Item = (usize, usize)> {
    let mut rest = env();
    for _ in rest.by_ref() {}
    let mut at: *const usize = rest.0.cast();
    core::iter::from_fn(move || {
        // SAFETY: the vector follows envp's NULL and ends in AT_NULL, which is where `at` stops.
        unsafe {
            let (kind, value) = (*at.add(1), *at.add(2));
            if kind == 0 {
                return None;
            }
            at = at.add(2);
            Some((kind, value))
        }
    })
}

/// The first entry of this kind, e.g. 33 for AT_SYSINFO_EHDR.
pub fn aux(kind: usize) -> Option<usize> {
    auxv().find(|entry| entry.0 == kind).map(|entry| entry.1)
}

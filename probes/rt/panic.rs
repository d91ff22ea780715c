//! What happens when a probe itself is wrong: say where on standard error and die by SIGABRT, so that the parent reports a
//! signal for the check that did it. Must not know: which program it is part of.

use core::fmt::Write;
use core::panic::PanicInfo;

use super::consts::SIGABRT;
use super::sys;
use super::text::Text;

#[panic_handler]
fn panicked(info: &PanicInfo) -> ! {
    let mut text = Text::<256>::new();
    let _ = writeln!(text, "abicus probe: {}", info.message());
    if let Some(at) = info.location() {
        let _ = writeln!(text, "  at {}:{}", at.file(), at.line());
    }
    let _ = sys::write(2, text.bytes());
    let _ = sys::kill(sys::getpid(), SIGABRT);
    sys::exit(134)
}

/// The precompiled core refers to it even when nothing unwinds.
#[cfg(not(any(test, clippy)))]
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}

//! What the kernel tells of its clock and of the processor's faults.
//!
//! Goes in: nothing. Comes out: answers. Must not know: which answers are good.

use core::ffi::CStr;

#[cfg(target_arch = "x86_64")]
use crate::check::value;
use crate::check::{Asked, Check, How, Saw, Value};
use crate::rt::consts::ENOENT;
use crate::rt::sys;
#[cfg(target_arch = "x86_64")]
use crate::rt::text::Text;

pub static CHECKS: &[Check] = &[
    Check { id: "cpu.clocksource", how: How::Batch, run: clocksource },
    #[cfg(target_arch = "x86_64")]
    Check { id: "cpu.vulnerable", how: How::Batch, run: vulnerable },
];

/// The one line of a file of /sys; what masks /sys is asked elsewhere.
fn line(name: &CStr) -> Result<Value, Saw> {
    let mut room = [0; 512];
    match sys::read_file(name, &mut room) {
        Err(ENOENT) | Ok([]) => Err(Saw::NotAsked("no such file in this /sys")),
        Err(errno) => Err(Saw::Errno(errno)),
        Ok(text) => Ok(Value::of(text.strip_suffix(b"\n").unwrap_or(text))),
    }
}

fn clocksource() -> Asked {
    line(c"/sys/devices/system/clocksource/clocksource0/current_clocksource").map(Saw::Value)
}

/// The faults against which nothing is done, in order of name.
#[cfg(target_arch = "x86_64")]
fn vulnerable() -> Asked {
    const NAMES: &str = "gather_data_sampling indirect_target_selection itlb_multihit l1tf mds meltdown mmio_stale_data \
                         reg_file_data_sampling retbleed spec_rstack_overflow spec_store_bypass spectre_v1 spectre_v2 \
                         srbds tsa tsx_async_abort vmscape";
    let (mut found, mut known) = (Value::new(), false);
    for name in NAMES.split(' ') {
        let path = Text::<96>::format(format_args!("/sys/devices/system/cpu/vulnerabilities/{name}\0"));
        let Ok(path) = CStr::from_bytes_with_nul(path.bytes()) else { continue };
        if let Ok(text) = line(path) {
            known = true;
            if text.bytes().starts_with(b"Vulnerable") {
                found.add(if found.is_empty() { b"" } else { b" " }).add(name.as_bytes());
            }
        }
    }
    match (known, found.is_empty()) {
        (false, _) => Err(Saw::NotAsked("this /sys does not tell")),
        (true, true) => value(format_args!("none")),
        (true, false) => Ok(Saw::Value(found)),
    }
}

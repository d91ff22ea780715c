//! Which libc this is, and what it asks of the kernel.
//!
//! Goes in: the objects in memory, the loader. Comes out: kind, version, offered symbols. Must not know: whether any of
//! it is good.

use core::ffi::CStr;

use crate::cell::{Cell, Kind, fact};
use crate::child::{Program, run};
use crate::rt::process;
use crate::saw::{Answer, Saw, Seen};
use crate::{Check, not_asked};

pub const CHECKS: &[Check] = &[
    Check::new("libc.start", start),
    Check::new("libc.kind", kind),
    Check::new("libc.version", version),
    Check::new("libc.symbols.newest", newest),
];

fn start(_: &Cell, _: usize) -> Seen {
    Ok(Saw::Ok)
}

fn kind(cell: &Cell, _: usize) -> Seen {
    for object in cell.objects.iter() {
        if !object.name().is_empty() {
            fact("libc.object", object.name());
        }
    }
    Ok(Saw::value(match cell.kind {
        Kind::Glibc => b"glibc",
        Kind::Musl => b"musl",
        Kind::Other => b"other",
    }))
}

fn version(cell: &Cell, _: usize) -> Seen {
    if cell.kind == Kind::Glibc {
        // SAFETY: returns a constant text.
        let text = unsafe { CStr::from_ptr(cell.gnu_get_libc_version()) };
        return Ok(Saw::value(text.to_bytes()));
    }
    // musl has no function for it; its loader prints it when it is given nothing to load.
    let mut room = [0; 512];
    let program = Program {
        path: cell.loader,
        arguments: &[cell.loader.as_ptr(), core::ptr::null()],
        environment: process::env().pointer(),
        input: b"",
        until: b"",
        deadline: 1000,
    };
    let ran = run(cell, &program, &mut [], &mut room)?;
    let text = &room[..ran.err];
    let mark = b"Version ";
    let Some(at) = text.windows(mark.len()).position(|window| window == mark) else {
        return Err(not_asked!("the loader does not say its version"));
    };
    let rest = &text[at + mark.len()..];
    Ok(Saw::value(rest.split(|byte| byte.is_ascii_whitespace()).next().unwrap_or(b"")))
}

fn newest(cell: &Cell, _: usize) -> Seen {
    // Before 2.34 the newest version may be in libpthread alone, so take all of libc's own libraries.
    let newest = cell.objects.iter().filter_map(|object| object.newest_version()).max();
    let Some([major, minor, patch]) = newest else {
        return Err(not_asked!("this libc has no symbol versions"));
    };
    let mut text = Answer::new();
    text.add_number(i64::from(major)).add(b".").add_number(i64::from(minor));
    if patch > 0 {
        text.add(b".").add_number(i64::from(patch));
    }
    Ok(Saw::value(text.bytes()))
}

//! What every check may ask about: the loader, the program, the objects, the environment.
//!
//! Goes in: the initial stack and `_DYNAMIC`. Comes out: `Cell`, which checks get. Must not know: any check.

use core::ffi::{CStr, c_char};

use crate::objects::{Found, Object, Objects};
use crate::rt::line::Line;
use crate::rt::{out, process};
use crate::saw::{Saw, finish};
use crate::{not_asked, value};

const AT_EXECFN: usize = 31;
const AT_SYSINFO_EHDR: usize = 33;

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Glibc,
    Musl,
    Other,
}

/// One cell, as a check sees it.
pub struct Cell {
    pub objects: Objects,
    pub kind: Kind,
    /// The path the loader was started by.
    pub loader: &'static CStr,
    /// The path of this probe.
    pub program: &'static CStr,
    /// Whether `--bench` was given.
    pub bench: bool,
}

impl Cell {
    /// # Safety
    /// `dynamic` is this program's dynamic section; `process::begin` was called.
    pub unsafe fn new(dynamic: *const crate::objects::Dyn) -> Option<Self> {
        // SAFETY: passed on.
        let objects = unsafe { Objects::new(dynamic, process::aux(AT_SYSINFO_EHDR).unwrap_or(0)) }?;
        // glibc's loader rewrites AT_EXECFN to the program's path, so its own entry in the list comes first.
        let listed = objects.iter().find_map(|object| {
            let name = object.path();
            let file = name.to_bytes().rsplit(|byte| *byte == b'/').next()?;
            file.starts_with(b"ld-").then_some(name)
        });
        let loader = match (listed, process::aux(AT_EXECFN)) {
            (Some(path), _) => path,
            // SAFETY: the kernel put a terminated path there.
            (None, Some(at)) if at != 0 => unsafe { CStr::from_ptr(at as *const c_char) },
            _ => c"/proc/self/exe",
        };
        let kind = if objects.find(c"gnu_get_libc_version").is_some() {
            Kind::Glibc
        } else if objects.iter().any(|object| contains(object.name(), b"musl")) || contains(loader.to_bytes(), b"musl")
        {
            Kind::Musl
        } else {
            Kind::Other
        };
        let program = process::args().next().unwrap_or(c"");
        Some(Self { objects, kind, loader, program, bench: false })
    }

    /// The address a new program would call. Of a function with several implementations, the one the libc chose.
    #[inline(never)]
    pub fn symbol(&self, name: &CStr) -> Option<usize> {
        self.objects.find(name).map(resolve)
    }

    /// As `symbol`, for a check that cannot go on without it: its process ends here.
    #[inline(never)]
    pub fn function(&self, name: &CStr, everywhere: bool) -> usize {
        match self.symbol(name) {
            Some(address) => address,
            None => finish(Err(absent(name, everywhere))),
        }
    }

    /// The object that is the C library.
    pub fn libc(&self) -> Option<Object> {
        let main = self.objects.find(c"__libc_start_main")?;
        self.objects.iter().find(|object| object.base == main.base)
    }

    /// The value of an environment variable.
    pub fn env(&self, name: &[u8]) -> Option<&'static CStr> {
        process::env().find_map(|entry| {
            let rest = entry.to_bytes().strip_prefix(name)?.strip_prefix(b"=")?;
            // SAFETY: the rest of a terminated text is one.
            Some(unsafe { CStr::from_ptr(rest.as_ptr().cast()) })
        })
    }
}

/// Calls the resolver where the symbol is one. On x86-64 glibc's take no argument and read what the loader found out.
pub fn resolve(found: Found) -> usize {
    if !found.ifunc {
        return found.address;
    }
    // SAFETY: an STT_GNU_IFUNC symbol is a function that returns the address of the implementation.
    unsafe { core::mem::transmute::<usize, extern "C" fn() -> usize>(found.address)() }
}

/// A function that every libc has is absent: an observation. One that not all have: nothing to ask.
#[inline(never)]
pub fn absent(name: &CStr, everywhere: bool) -> Saw {
    let name = name.to_str().unwrap_or("?");
    if everywhere { value!("no function {name}") } else { not_asked!("this libc has no function {name}") }
}

pub fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

/// Writes a fact of the cell.
pub fn fact(name: &str, value: &[u8]) {
    out::send(Line::new().text("fact", name.as_bytes()).text("value", value));
}

pub fn fact_number(name: &str, value: i64) {
    out::send(Line::new().text("fact", name.as_bytes()).number("value", value));
}

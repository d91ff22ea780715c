//! The dynamic loader: libraries opened at run time, what they may ask for, what the image's libraries ask of the kernel.
//!
//! Goes in: the image's own libraries and libraries made on the spot. Comes out: whether the loader takes them, and its
//! words where it does not. Must not know: what a library is for.

use core::ffi::{CStr, c_char};

use crate::api::Any;
use crate::cell::{Cell, Kind, contains, fact};
use crate::child::{Program, run};
use crate::craft::{self, Wish};
use crate::rt::consts::*;
use crate::rt::sys::call;
use crate::rt::{nr, process, sys, text};
use crate::saw::{Answer, Saw, Seen, expect};
use crate::{Check, not_asked, value};

pub const CHECKS: &[Check] = &[
    Check::new("ld.dlopen.self", open_self),
    Check::new("ld.dlopen.libm", open_libm),
    Check::new("ld.dlopen.libgcc", open_libgcc),
    Check::new("ld.dlopen.libstdcxx", open_libstdcxx),
    Check::new("ld.dlopen.absent", open_absent),
    Check::new("ld.dlopen.made", open_made),
    Check::new("ld.dlopen.exec-stack", open_exec_stack),
    Check::new("ld.dlopen.static-tls", open_static_tls),
    Check::new("ld.relr", relr),
    Check::new("ld.ifunc", ifunc),
    Check::new("ld.abi-note.enforced", abi_note),
    Check::new("ld.preload", preload),
    Check::new("ld.cache", cache),
    Check::new("ld.hwcaps.searched", hwcaps_searched),
    Check::new("ld.hwcaps.present", hwcaps_present),
    Check::new("ld.tunable.rep-movsb-threshold", rep_movsb),
    Check::new("ld.tunable.non-temporal-threshold", non_temporal),
    Check::new("ld.diagnostics", diagnostics),
];

const RTLD_NOW: i32 = 2;
/// What is in no text of the loader.
const NO_PATH: &CStr = c"\n\n";

/// What dlerror says, without the path that only this run has.
fn complaint(cell: &Cell, path: &CStr) -> Result<Saw, Saw> {
    // SAFETY: a text of the loader, or null.
    let text = unsafe {
        let text = cell.dlerror();
        if text.is_null() {
            return Ok(value!("refused without a word"));
        }
        CStr::from_ptr(text).to_bytes()
    };
    let (path, mut words, mut rest) = (path.to_bytes(), Answer::new(), text);
    while let Some(at) = rest.windows(path.len().max(1)).position(|part| part == path) {
        words.add(&rest[..at]).add(b"the library");
        rest = &rest[at + path.len()..];
    }
    Ok(Saw::value(words.add(rest).bytes()))
}

fn dlopen(cell: &Cell, path: &CStr) -> Result<Any, Saw> {
    // SAFETY: a terminated path.
    let handle = unsafe { cell.dlopen(path.as_ptr(), RTLD_NOW) };
    if handle.is_null() {
        Err(complaint(cell, if path.to_bytes().starts_with(b"/") { path } else { NO_PATH })?)
    } else {
        Ok(handle)
    }
}

/// A function without arguments that returns a number.
fn answer(cell: &Cell, handle: Any, name: &CStr) -> Result<usize, Saw> {
    // SAFETY: a library's handle, a terminated name; the function takes nothing.
    unsafe {
        let address = cell.dlsym(handle, name.as_ptr());
        if address == 0 {
            return Err(complaint(cell, NO_PATH)?);
        }
        Ok(core::mem::transmute::<usize, extern "C" fn() -> usize>(address)())
    }
}

fn open_self(cell: &Cell, _: usize) -> Seen {
    // SAFETY: null is the program itself.
    let handle = unsafe { cell.dlopen(core::ptr::null(), RTLD_NOW) };
    if handle.is_null() {
        return Err(complaint(cell, NO_PATH)?);
    }
    let pid = answer(cell, handle, c"getpid")?;
    expect(pid as i32 == sys::getpid(), b"another function was found")?;
    Ok(Saw::Ok)
}

fn open_libm(cell: &Cell, _: usize) -> Seen {
    let handle = dlopen(cell, c"libm.so.6")?;
    // SAFETY: `double cos(double)`.
    let one = unsafe {
        let address = cell.dlsym(handle, c"cos".as_ptr());
        if address == 0 {
            return Err(complaint(cell, NO_PATH)?);
        }
        core::mem::transmute::<usize, extern "C" fn(f64) -> f64>(address)(0.5)
    };
    expect((one - 0.877_582_561_890_372_8).abs() < 1e-15, b"another cosine")?;
    Ok(Saw::Ok)
}

/// A library that images may do without.
fn optional(cell: &Cell, name: &CStr, why: &'static [u8]) -> Seen {
    match dlopen(cell, name) {
        Ok(_) => Ok(Saw::Ok),
        Err(Saw::Value(words)) if contains(words, b"No such file") || contains(words, b"Error loading") => {
            Err(Saw::NotAsked(why))
        }
        Err(saw) => Err(saw),
    }
}

fn open_libgcc(cell: &Cell, _: usize) -> Seen {
    optional(cell, c"libgcc_s.so.1", b"no libgcc_s in the image")
}

fn open_libstdcxx(cell: &Cell, _: usize) -> Seen {
    optional(cell, c"libstdc++.so.6", b"no libstdc++ in the image")
}

fn open_absent(cell: &Cell, _: usize) -> Seen {
    match dlopen(cell, c"libabicus-absent.so.1") {
        Ok(_) => Err(value!("a library was found that is not there")),
        Err(Saw::Value(words)) if contains(words, b"libabicus-absent.so.1") => Ok(Saw::Ok),
        Err(saw) => Err(saw),
    }
}

/// Where a library made on the spot lies: in memory where /proc shows it, else in a file of /tmp that is removed again.
fn open_wish(cell: &Cell, wish: Wish) -> Result<Any, Saw> {
    let bytes = craft::library(wish);
    let mut path = Answer::new();
    let flags = 1usize;
    // SAFETY: a terminated name.
    let memory = unsafe { call!(nr::MEMFD_CREATE, sys::path(c"abicus"), flags) };
    let mut file = None;
    if let Ok(fd) = memory
        && sys::open(c"/proc/self/fd", O_PATH, 0).is_ok()
    {
        let _ = sys::write(fd as i32, &bytes);
        path.add(b"/proc/self/fd/").add_number(fd as i64);
    } else {
        path.add(b"/tmp/abicus-").add_number(i64::from(sys::getpid())).add(b".so\0");
        let name = CStr::from_bytes_until_nul(path.bytes()).unwrap_or(c"");
        let Ok(fd) = sys::open(name, O_CREAT | O_EXCL | O_WRONLY, 0o700) else {
            return Err(not_asked!("nowhere to put a library: no memfd under /proc and no writable /tmp"));
        };
        let _ = sys::write(fd, &bytes);
        let _ = sys::close(fd);
        file = Some(name);
    }
    let mut terminated = path;
    terminated.add(b"\0");
    let handle = dlopen(cell, CStr::from_bytes_until_nul(terminated.bytes()).unwrap_or(c""));
    if let Some(name) = file {
        let _ = sys::unlink(name);
    }
    handle
}

fn open_and_ask(cell: &Cell, wish: Wish) -> Seen {
    let handle = open_wish(cell, wish)?;
    expect(answer(cell, handle, c"abicus_answer")? as u32 == 42, b"its function does not answer")?;
    Ok(Saw::Ok)
}

fn open_made(cell: &Cell, _: usize) -> Seen {
    open_and_ask(cell, Wish::default())
}

fn open_exec_stack(cell: &Cell, _: usize) -> Seen {
    open_and_ask(cell, Wish { exec_stack: true, ..Wish::default() })
}

fn open_static_tls(cell: &Cell, _: usize) -> Seen {
    open_and_ask(cell, Wish { static_tls: 256, ..Wish::default() })
}

fn relr(cell: &Cell, _: usize) -> Seen {
    let handle = open_wish(cell, Wish { relr: true, ..Wish::default() })?;
    // SAFETY: both are addresses in the library, the second of a word.
    let (code, pointer) = unsafe {
        let code = cell.dlsym(handle, c"abicus_answer".as_ptr());
        let at = cell.dlsym(handle, c"abicus_pointer".as_ptr());
        expect(code != 0 && at != 0, b"its symbols were not found")?;
        (code, *(at as *const usize))
    };
    expect(code == pointer, b"not relocated")?;
    Ok(Saw::Ok)
}

fn ifunc(cell: &Cell, _: usize) -> Seen {
    let handle = open_wish(cell, Wish::default())?;
    let seen = answer(cell, handle, c"abicus_ifunc")?;
    expect(seen as u32 == 42, b"the resolver was taken for the function")?;
    Ok(Saw::Ok)
}

/// glibc before 2.36 leaves a library out whose note asks for a newer kernel, and says that there is no such file.
fn abi_note(cell: &Cell, _: usize) -> Seen {
    match open_wish(cell, Wish { kernel: Some([99, 0, 0]), ..Wish::default() }) {
        Ok(_) => Ok(Saw::Value(b"no")),
        Err(Saw::Value(_)) => Ok(Saw::Value(b"yes")),
        Err(saw) => Err(saw),
    }
}

/// Starts this program with a library in LD_PRELOAD: jemalloc, faketime and the like are put in so.
fn preload(cell: &Cell, _: usize) -> Seen {
    let bytes = craft::library(Wish::default());
    let mut name = Answer::of(b"LD_PRELOAD=/tmp/abicus-preload-");
    name.add_number(i64::from(sys::getpid())).add(b".so\0");
    let path = CStr::from_bytes_until_nul(&name.bytes()[11..]).unwrap_or(c"");
    let Ok(fd) = sys::open(path, O_CREAT | O_EXCL | O_WRONLY, 0o700) else {
        return Err(not_asked!("no writable /tmp"));
    };
    let _ = sys::write(fd, &bytes);
    let _ = sys::close(fd);
    let mut out = [0; 64];
    let environment = [name.bytes().as_ptr().cast(), core::ptr::null()];
    let arguments =
        [cell.loader.as_ptr(), cell.program.as_ptr(), c"--has".as_ptr(), c"abicus_answer".as_ptr(), core::ptr::null()];
    let program = Program {
        path: cell.loader,
        arguments: &arguments,
        environment: environment.as_ptr(),
        input: b"",
        until: b"",
        deadline: 1000,
    };
    let mut err = [0; 256];
    let ran = run(cell, &program, &mut out, &mut err);
    let _ = sys::unlink(path);
    let ran = ran?;
    match ran.end {
        crate::child::End::Exit(0) => Ok(Saw::Ok),
        _ if contains(&err[..ran.err], b"failed to map segment") => Err(value!("/tmp is mounted noexec")),
        _ => Err(value!("the library was not loaded")),
    }
}

fn cache(cell: &Cell, _: usize) -> Seen {
    if cell.kind != Kind::Glibc {
        return Err(not_asked!("this loader has no cache"));
    }
    let mut room = [0; 48];
    match sys::read_file(c"/etc/ld.so.cache", &mut room) {
        Ok(head) if head.starts_with(b"glibc-ld.so.cache1.1") || head.starts_with(b"ld.so-1.7.0") => Ok(Saw::Ok),
        Ok(_) => Err(value!("not a cache")),
        Err(errno) => Err(Saw::Errno(errno, "read /etc/ld.so.cache")),
    }
}

/// What the loader prints for an option, or that it knows no such option.
fn loader_says<'a>(cell: &Cell, option: &CStr, room: &'a mut [u8]) -> Result<&'a [u8], Saw> {
    if cell.kind != Kind::Glibc {
        return Err(not_asked!("this loader has no such option"));
    }
    let program = Program {
        path: cell.loader,
        arguments: &[cell.loader.as_ptr(), option.as_ptr(), core::ptr::null::<c_char>()],
        environment: process::env().pointer(),
        input: b"",
        // What follows is read from each CPU in turn and takes a second in a virtual machine.
        until: b"x86.cpuid",
        deadline: 1000,
    };
    let ran = run(cell, &program, room, &mut [])?;
    if ran.out == 0 {
        return Err(not_asked!("this loader has no such option"));
    }
    Ok(&room[..ran.out])
}

fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|byte| *byte == b'\n')
}

fn hwcaps_searched(cell: &Cell, _: usize) -> Seen {
    let mut room = [0; 8192];
    let help = loader_says(cell, c"--help", &mut room)?;
    let mut found = Answer::new();
    for line in lines(help) {
        if let (Some(name), true) = (line.trim_ascii().split(|byte| *byte == b' ').next(), contains(line, b"searched"))
            && name.starts_with(b"x86-64-v")
        {
            found.add(if found.is_empty() { b"" } else { b" " }).add(name);
        }
    }
    Ok(Saw::value(if found.is_empty() { b"none" } else { found.bytes() }))
}

/// The directories with libraries for newer CPUs that the image brings.
fn hwcaps_present(cell: &Cell, _: usize) -> Seen {
    if cell.kind != Kind::Glibc {
        return Err(not_asked!("this loader has no such directories"));
    }
    let Some(libc) = cell.libc() else { return Err(value!("no libc in the list of objects")) };
    let end = libc.name().iter().rposition(|byte| *byte == b'/').unwrap_or(0);
    let mut found = Answer::new();
    for level in [&b"x86-64-v2"[..], b"x86-64-v3", b"x86-64-v4"] {
        let mut path = Answer::of(&libc.name()[..end]);
        path.add(b"/glibc-hwcaps/").add(level).add(b"\0");
        if let Ok(fd) = sys::open(CStr::from_bytes_until_nul(path.bytes()).unwrap_or(c""), O_PATH, 0) {
            let _ = sys::close(fd);
            found.add(if found.is_empty() { b"" } else { b" " }).add(level);
        }
    }
    Ok(Saw::value(if found.is_empty() { b"none" } else { found.bytes() }))
}

/// The value of a tunable as `--list-tunables` prints it: `glibc.cpu.x86_rep_movsb_threshold: 0x840 (min: …)`.
fn tunable(cell: &Cell, name: &[u8]) -> Seen {
    let mut room = [0; 16384];
    let list = loader_says(cell, c"--list-tunables", &mut room)?;
    for line in lines(list) {
        if let Some(rest) = line.strip_prefix(name)
            && let Some(rest) = rest.strip_prefix(b": 0x")
            && let Some(number) = text::number(rest, 16)
        {
            return Ok(Saw::Number(number as i64));
        }
    }
    Err(not_asked!("this libc has no such tunable"))
}

fn rep_movsb(cell: &Cell, _: usize) -> Seen {
    tunable(cell, b"glibc.cpu.x86_rep_movsb_threshold")
}

fn non_temporal(cell: &Cell, _: usize) -> Seen {
    tunable(cell, b"glibc.cpu.x86_non_temporal_threshold")
}

/// The inputs of the libc's choices as facts; whether they are offered at all is the observation.
fn diagnostics(cell: &Cell, _: usize) -> Seen {
    let mut room = [0; 16384];
    for line in lines(loader_says(cell, c"--list-tunables", &mut room)?) {
        if let Some(at) = line.iter().position(|byte| *byte == b':')
            && line.starts_with(b"glibc.cpu.x86_")
        {
            let value = line[at + 1..].trim_ascii();
            note(&line[..at], value.split(|byte| *byte == b' ').next().unwrap_or(b""));
        }
    }
    let mut room = [0; 32768];
    let said = match loader_says(cell, c"--list-diagnostics", &mut room) {
        Ok(said) => said,
        Err(_) => return Err(not_asked!("this loader has no --list-diagnostics")),
    };
    const WANTED: [&[u8]; 6] = [
        b"dl_minsigstacksize",
        b"x86.cpu_features.xsave_state_size",
        b"x86.cpu_features.isa_1",
        b"x86.cpu_features.preferred",
        b"path.system_dirs",
        b"version.version",
    ];
    for line in lines(said) {
        if let Some(at) = line.iter().position(|byte| *byte == b'=')
            && WANTED.iter().any(|wanted| line.starts_with(wanted))
        {
            note(&line[..at], &line[at + 1..]);
        }
    }
    Ok(Saw::Ok)
}

fn note(name: &[u8], value: &[u8]) {
    if value.is_empty() {
        return;
    }
    let mut id = Answer::of(b"ld.");
    id.add(name);
    fact(core::str::from_utf8(id.bytes()).unwrap_or("ld.?"), value);
}

//! A glibc and programs in which something is broken: what a healthy machine does not show.

use std::fs;
use std::path::{Path, PathBuf};

use object::{Object, ObjectSection, ObjectSegment, ObjectSymbol};

/// What a function does instead of what it should.
#[derive(Clone, Copy)]
pub enum Does {
    /// Returns 0.
    Nothing,
    /// Returns -1.
    Fail,
    /// It is not there.
    Miss,
}

use Does::{Fail, Miss, Nothing};

/// The host's glibc, in which these functions do that.
pub fn broken(functions: &[&str], does: Does) -> Vec<u8> {
    let mut bytes = fs::read("/lib/x86_64-linux-gnu/libc.so.6").unwrap();
    let file = object::File::parse(bytes.as_slice()).unwrap();
    let symbols = file.section_by_name(".dynsym").unwrap().file_range().unwrap().0;
    let mut places = Vec::new();
    for function in functions {
        // A function may be there in several versions.
        let is = |symbol: &object::Symbol| symbol.name() == Ok(function) && symbol.is_definition();
        let found: Vec<_> = file.dynamic_symbols().filter(is).collect();
        assert!(!found.is_empty(), "no {function}");
        for symbol in found {
            let at = symbol.address();
            let segment = file.segments().find(|s| (s.address()..s.address() + s.size()).contains(&at)).unwrap();
            let code = segment.file_range().0 + at - segment.address();
            places.push(match does {
                // xor eax, eax; ret
                Nothing => (code, &[0x31, 0xc0, 0xc3][..]),
                // or eax, -1; ret
                Fail => (code, &[0x83, 0xc8, 0xff, 0xc3][..]),
                // st_shndx of 24 bytes: undefined
                Miss => (symbols + 24 * symbol.index().0 as u64 + 6, &[0, 0][..]),
            });
        }
    }
    for (at, code) in places {
        bytes[at as usize..][..code.len()].copy_from_slice(code);
    }
    bytes
}

/// The program of this name on this machine, if it has one.
pub fn installed(name: &str) -> Option<PathBuf> {
    let places = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];
    places.map(|place| Path::new(place).join(name)).into_iter().find(|path| path.exists())
}

/// This machine's own program, which dies at its first instruction; of one that is a script, or that it lacks, a script that fails.
pub fn broken_program(name: &str) -> Option<Vec<u8>> {
    let real = installed(name).map(|path| fs::read(path).unwrap());
    Some(match real {
        Some(mut program) if program.starts_with(b"\x7fELF") => {
            first_instruction(&mut program);
            program
        }
        _ => b"#!/bin/sh\nexit 42\n".to_vec(),
    })
}

/// Makes the first instruction of a program one that no processor has.
fn first_instruction(program: &mut [u8]) {
    let file = object::File::parse(&*program).unwrap();
    let at = file.entry();
    let segment = file.segments().find(|s| (s.address()..s.address() + s.size()).contains(&at)).unwrap();
    let at = (segment.file_range().0 + at - segment.address()) as usize;
    // ud2
    program[at..at + 2].copy_from_slice(&[0x0f, 0x0b]);
}

/// The host's glibc, which says that it needs no newer kernel than this.
pub fn made_for(kernel: [u32; 3]) -> Vec<u8> {
    let mut bytes = fs::read("/lib/x86_64-linux-gnu/libc.so.6").unwrap();
    let file = object::File::parse(bytes.as_slice()).unwrap();
    // Three sizes, "GNU", the system, and then the version.
    let at = file.section_by_name(".note.ABI-tag").unwrap().file_range().unwrap().0 as usize + 20;
    for (i, number) in kernel.into_iter().enumerate() {
        bytes[at + 4 * i..][..4].copy_from_slice(&number.to_le_bytes());
    }
    bytes
}

/// A check, and functions without which it cannot say that all is well.
pub const BROKEN: &[(&str, &[&str], Does)] = &[
    ("libc.name.numeric.v4", &["getaddrinfo"], Nothing),
    ("libc.name.numeric.v6", &["getaddrinfo"], Nothing),
    ("libc.name.passive", &["getaddrinfo"], Nothing),
    ("libc.name.getnameinfo", &["getnameinfo"], Nothing),
    ("libc.text.snprintf", &["snprintf"], Nothing),
    ("libc.text.scan", &["sscanf"], Nothing),
    ("libc.text.strtod", &["strtod"], Nothing),
    ("libc.text.qsort", &["qsort"], Nothing),
    ("libc.text.regex", &["regexec"], Nothing),
    ("libc.text.fnmatch", &["fnmatch"], Nothing),
    ("libc.text.strerror", &["strerror"], Nothing),
    ("libc.time.clock", &["clock_gettime"], Nothing),
    ("libc.time.mktime", &["mktime", "timegm"], Nothing),
    ("libc.time.year-2038", &["gmtime_r", "localtime_r"], Nothing),
    ("libc.time.format", &["strftime"], Nothing),
    ("libc.time.zone.rule", &["localtime_r"], Nothing),
    ("libc.system.cpus", &["sysconf"], Nothing),
    ("libc.system.auxv", &["getauxval"], Nothing),
    ("libc.system.getcpu", &["sched_getcpu"], Fail),
    ("libc.stdio.memstream", &["open_memstream"], Nothing),
    ("libc.file.readdir", &["readdir"], Nothing),
    ("libc.file.time-2040", &["utimensat"], Nothing),
    ("libc.sync.rwlock", &["pthread_rwlock_trywrlock"], Nothing),
    ("libc.signal.minimum-stack", &["sysconf"], Nothing),
    ("libc.memory.malloc", &["realloc"], Nothing),
    ("libc.memory.aligned", &["aligned_alloc"], Nothing),
    ("libc.memory.trim", &["malloc_usable_size"], Nothing),
    ("libc.random.arc4random", &["arc4random"], Nothing),
    ("libc.system.page-size", &["sysconf"], Nothing),
    ("libc.system.path", &["confstr"], Nothing),
    (
        "libc.symbol.",
        &[
            "copy_file_range",
            "fts_open",
            "getentropy",
            "getrandom",
            "gettid",
            "memfd_create",
            "open64",
            "qsort_r",
            "reallocarray",
            "strverscmp",
        ],
        Miss,
    ),
    ("ld.dlopen.self", &["dlsym"], Nothing),
    ("ld.dlopen.absent", &["dlerror"], Nothing),
];

//! A tree → facts about it, without running anything of it.
//!
//! In: the root of a tree nobody trusts. Out: facts with dotted names, the architecture of its programs, their loader.
//! Files are found as a program inside would find them, and never more than a bounded part of one is read.

use std::collections::{BTreeMap, HashSet};

use rustix::fs::FileType;

use super::blob::sha256;
use super::elf::{self, Elf};
use super::root::Root;
use crate::engine::Facts;

/// What looking at a tree tells.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Inspection {
    /// Facts with dotted names.
    pub facts: Facts,
    /// OCI's name of the architecture of the programs inside.
    pub architecture: Option<String>,
    /// The loader its programs ask for; fact `loader.missing` where it is not there.
    pub loader: Option<String>,
}

const MAX_TEXT: u64 = 64 * 1024;
const MAX_LIST: u64 = 32 << 20;
const MAX_LIBC: u64 = 16 << 20;
const MAX_LIBRARIES: usize = 4000;

/// Programs that most images have, the likeliest to be the image's own kind first.
const PROGRAMS: [&str; 12] = [
    "/bin/sh",
    "/bin/busybox",
    "/usr/bin/env",
    "/bin/ls",
    "/usr/bin/sh",
    "/bin/bash",
    "/usr/bin/bash",
    "/sbin/init",
    "/usr/bin/python3",
    "/usr/local/bin/node",
    "/usr/bin/perl",
    "/sbin/ldconfig",
];
/// Where else a program may be, in images made of one.
const PLACES: [&str; 8] = ["/", "/bin", "/usr/bin", "/usr/local/bin", "/sbin", "/usr/sbin", "/app", "/opt"];
/// Loaders by architecture, where no program tells.
const LOADERS: [&str; 13] = [
    "/lib64/ld-linux-x86-64.so.2",
    "/lib/ld-linux-aarch64.so.1",
    "/lib/ld-linux.so.2",
    "/lib/ld-linux-armhf.so.3",
    "/lib/ld-linux-riscv64-lp64d.so.1",
    "/lib64/ld64.so.2",
    "/lib/ld64.so.1",
    "/lib64/ld-linux-loongarch-lp64d.so.1",
    "/lib/ld-musl-x86_64.so.1",
    "/lib/ld-musl-aarch64.so.1",
    "/lib/ld-musl-i386.so.1",
    "/lib/ld-musl-armhf.so.1",
    "/lib/ld-musl-riscv64.so.1",
];
/// What scripts in an image may be run by.
const INTERPRETERS: [&str; 16] = [
    "ash", "awk", "bash", "busybox", "dash", "guile", "java", "lua", "node", "perl", "php", "python", "python3",
    "ruby", "sh", "tclsh",
];

/// Looks at a tree.
pub fn inspect(root: &Root) -> Inspection {
    let mut facts = Facts::new();
    let mut say = |name: &str, value: Option<String>| {
        if let Some(value) = value.map(|value| printable(&value)).filter(|value| !value.is_empty()) {
            facts.insert(name.to_owned(), value);
        }
    };
    let release = os_release(root);
    say("os.id", release.get("ID").cloned());
    say("os.version", release.get("VERSION_ID").cloned());
    say("os.codename", release.get("VERSION_CODENAME").cloned());
    say("os.name", release.get("PRETTY_NAME").cloned());

    let program = program(root);
    let asked = program.as_ref().and_then(|program| program.interpreter.clone());
    let there = asked.clone().into_iter().chain(LOADERS.map(str::to_owned)).find(|path| {
        look(root, path).is_some_and(|l| program.as_ref().is_none_or(|p| p.architecture == l.architecture))
    });
    // A program that asks for a loader which is not there cannot start, and that has to be seen in the cell.
    say("loader.missing", (there.is_none() && asked.is_some()).then(|| "yes".to_owned()));
    let loader = there.or(asked);
    let architecture = program
        .map(|program| program.architecture)
        .or_else(|| loader.as_deref().and_then(|path| look(root, path)).map(|elf| elf.architecture));
    let kind = libc_kind(loader.as_deref());
    say("arch", architecture.clone());
    say("loader", loader.clone());
    say("libc.kind", Some(kind.to_owned()));
    let directories = library_directories(root);
    let version = match kind {
        "glibc" => glibc(root, &directories, architecture.as_deref()),
        "musl" => loader.as_deref().and_then(|path| musl_version(&root.read(path, MAX_LIBC)?)),
        _ => None,
    };
    say("libc.version", version);

    let interpreters = INTERPRETERS.into_iter().filter(|name| {
        ["/bin/", "/usr/bin/", "/usr/local/bin/"].iter().any(|place| is_program(root, &format!("{place}{name}")))
    });
    say("interpreters", Some(interpreters.collect::<Vec<_>>().join(" ")));
    libraries(root, &directories, architecture.as_deref(), &mut say);
    let packages = packages(root);
    if !packages.is_empty() {
        say("packages", Some(sha256(packages.join("\n").as_bytes())));
        say("packages.count", Some(packages.len().to_string()));
    }
    Inspection { facts, architecture, loader }
}

/// Text from an image, fit for a fact: one line, printable, bounded.
pub fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(200).collect::<String>().trim().to_owned()
}

fn os_release(root: &Root) -> BTreeMap<String, String> {
    let read = |path| root.read(path, MAX_TEXT);
    let text = read("/etc/os-release").or_else(|| read("/usr/lib/os-release")).unwrap_or_default();
    let text = String::from_utf8_lossy(&text).into_owned();
    if text.trim().is_empty() {
        return red_hat_release(&String::from_utf8_lossy(&read("/etc/redhat-release").unwrap_or_default()));
    }
    let pairs = text.lines().filter_map(|line| line.trim().split_once('='));
    pairs.map(|(key, value)| (key.to_owned(), value.trim_matches(['"', '\'']).to_owned())).collect()
}

/// What there was before os-release(5), in its words: `CentOS release 6.10 (Final)`.
fn red_hat_release(text: &str) -> BTreeMap<String, String> {
    let line = text.lines().next().unwrap_or_default().trim();
    let Some((name, rest)) = line.split_once(" release ") else { return BTreeMap::new() };
    let first = name.split_whitespace().next().unwrap_or_default().to_ascii_lowercase();
    let id = if name.starts_with("Red Hat Enterprise") { "rhel".to_owned() } else { first };
    let version = rest.split_whitespace().next().unwrap_or_default();
    let pairs = [("ID", id.as_str()), ("VERSION_ID", version), ("PRETTY_NAME", line)];
    pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).into()
}

/// Installed packages with their versions, from dpkg's or apk's own list, sorted.
fn packages(root: &Root) -> Vec<String> {
    let read = |path| root.read(path, MAX_LIST).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let (text, keys) = match (read("/var/lib/dpkg/status"), read("/lib/apk/db/installed")) {
        (Some(text), _) => (text, ["Package: ", "Architecture: ", "Version: "]),
        (None, Some(text)) => (text, ["P:", "A:", "V:"]),
        (None, None) => return vec![],
    };
    let mut found: Vec<String> = text
        .split("\n\n")
        .filter(|stanza| !stanza.lines().any(|line| line.starts_with("Status: ") && !line.ends_with(" installed")))
        .map(|stanza| {
            let value = |key| stanza.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default();
            keys.map(value).join(" ")
        })
        .filter(|package| !package.trim().is_empty())
        .collect();
    found.sort();
    found
}

fn look(root: &Root, path: &str) -> Option<Elf> {
    elf::look(&root.read(path, elf::PREFIX)?)
}

fn is_program(root: &Root, path: &str) -> bool {
    root.stat(path)
        .is_some_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile && stat.st_mode & 0o111 != 0)
}

fn program(root: &Root) -> Option<Elf> {
    let anywhere = PLACES.iter().flat_map(|place| {
        let names = root.names(place).into_iter().take(100);
        names.map(move |name| format!("{place}/{}", String::from_utf8_lossy(&name)))
    });
    let known = PROGRAMS.iter().map(|path| (*path).to_owned());
    known.chain(anywhere).filter(|path| is_program(root, path)).find_map(|path| look(root, &path))
}

fn libc_kind(loader: Option<&str>) -> &'static str {
    let name = loader.and_then(|path| path.rsplit('/').next()).unwrap_or_default();
    match name {
        "" => "none",
        name if name.starts_with("ld-musl") => "musl",
        name if name.starts_with("ld-uClibc") => "uclibc",
        name if name.starts_with("linker") => "bionic",
        name if name.starts_with("ld-linux") || name.starts_with("ld64") || name.starts_with("ld.so") => "glibc",
        _ => "unknown",
    }
}

fn library_directories(root: &Root) -> Vec<String> {
    let mut directories = Vec::new();
    for base in ["/lib", "/lib64", "/lib32", "/usr/lib", "/usr/lib64", "/usr/lib32", "/usr/local/lib"] {
        directories.push(base.to_owned());
        let triplets = root.names(base).into_iter().map(|name| String::from_utf8_lossy(&name).into_owned());
        directories.extend(triplets.filter(|name| name.contains("-linux-")).map(|name| format!("{base}/{name}")));
    }
    directories
}

fn glibc(root: &Root, directories: &[String], architecture: Option<&str>) -> Option<String> {
    directories.iter().find_map(|directory| {
        let bytes = root.read(&format!("{directory}/libc.so.6"), MAX_LIBC)?;
        let prefix = &bytes[..bytes.len().min(elf::PREFIX as usize)];
        let same = elf::look(prefix).is_some_and(|elf| architecture.is_none_or(|a| a == elf.architecture));
        if same { glibc_version(&bytes) } else { None }
    })
}

/// From the text that running the library would print: `GNU C Library (Debian GLIBC 2.36-9) stable release version 2.36.`,
/// and before 2.13 mostly `GNU C Library stable release version 2.12, by …`.
fn glibc_version(bytes: &[u8]) -> Option<String> {
    const NAME: &[u8] = b"GNU C Library ";
    let start = find(bytes, NAME)?;
    let text = &bytes[start..bytes.len().min(start + 300)];
    let Some(at) = find(text, b"release version ") else { return glibc_version(&bytes[start + NAME.len()..]) };
    let at = at + b"release version ".len();
    let version: String =
        text[at..].iter().map(|b| char::from(*b)).take_while(|c| c.is_ascii_digit() || *c == '.').collect();
    Some(version.trim_matches('.').to_owned()).filter(|version| version.contains('.'))
}

/// From the text that the loader prints when run without a program: `musl libc (x86_64)`, `Version %s`; the version is a
/// string of its own.
fn musl_version(bytes: &[u8]) -> Option<String> {
    find(bytes, b"musl libc (")?;
    let strings = bytes.split(|byte| *byte == 0).filter_map(|string| std::str::from_utf8(string).ok());
    strings.map(str::to_owned).find(|string| {
        let version = string.split("-git-").next().unwrap_or_default();
        let parts: Vec<&str> = version.split('.').collect();
        parts.len() == 3 && parts.iter().all(|p| (1..=3).contains(&p.len()) && p.bytes().all(|b| b.is_ascii_digit()))
    })
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    let first = *wanted.first()?;
    let mut from = 0;
    while let Some(at) = bytes.get(from..)?.iter().position(|byte| *byte == first) {
        if bytes[from + at..].starts_with(wanted) {
            return Some(from + at);
        }
        from += at + 1;
    }
    None
}

/// The most that any library of the usual directories asks for: one is enough to keep a program from starting.
fn libraries(
    root: &Root,
    directories: &[String],
    architecture: Option<&str>,
    say: &mut dyn FnMut(&str, Option<String>),
) {
    let (mut kernel, mut level, mut stacks) = (None, None, Vec::new());
    let mut seen = HashSet::new();
    let paths = directories.iter().flat_map(|directory| {
        root.names(directory).into_iter().map(move |name| format!("{directory}/{}", String::from_utf8_lossy(&name)))
    });
    for path in paths.filter(|path| path.contains(".so")).take(MAX_LIBRARIES) {
        let Some(stat) = root.stat(&path) else { continue };
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile || !seen.insert(stat.st_ino) {
            continue;
        }
        let Some(library) = look(root, &path) else { continue };
        if architecture.is_some_and(|a| a != library.architecture) {
            continue;
        }
        let name = path.rsplit('/').next().unwrap_or_default().to_owned();
        // Of equals the first by name is told, whatever the order of directories.
        let more = |old: &Option<((u32, u32, u32), String)>, new: (u32, u32, u32)| match old {
            Some((best, of)) => new > *best || (new == *best && name < *of),
            None => true,
        };
        if let Some(needed) = library.min_kernel.filter(|needed| more(&kernel, *needed)) {
            kernel = Some((needed, name.clone()));
        }
        if let Some(needed) = library.isa_level.filter(|needed| more(&level, (*needed, 0, 0))) {
            level = Some(((needed, 0, 0), name.clone()));
        }
        if library.executable_stack {
            stacks.push(name);
        }
    }
    say("abi.min_kernel", kernel.as_ref().map(|((a, b, c), _)| format!("{a}.{b}.{c}")));
    say("abi.min_kernel.of", kernel.map(|(_, of)| of));
    say(
        "isa.needed",
        level.as_ref().map(|((level, ..), _)| match level {
            1 => "x86-64".to_owned(),
            level => format!("x86-64-v{level}"),
        }),
    );
    say("isa.needed.of", level.map(|(_, of)| of));
    stacks.sort();
    stacks.dedup();
    say("stack.executable", Some(stacks.join(" ")));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_found_in_the_texts_of_the_libraries() {
        let glibc = b"\0GNU C Library (Ubuntu GLIBC 2.35-0ubuntu3.8) stable release version 2.35.\nCopyright";
        assert_eq!(glibc_version(glibc).as_deref(), Some("2.35"));
        let old = b"GNU C Library stable release version 2.12, by Roland McGrath et al.";
        assert_eq!(glibc_version(old).as_deref(), Some("2.12"), "CentOS 6: no brackets");
        let twice = [&b"see the GNU C Library manual\0"[..], &[b' '; 400], old].concat();
        assert_eq!(glibc_version(&twice).as_deref(), Some("2.12"));
        assert_eq!(glibc_version(b"GNU C Library without a number"), None);
        let musl = b"\0musl libc (x86_64)\nVersion %s\n\x001.2.3\x00127.0.0.1\0";
        assert_eq!(musl_version(musl).as_deref(), Some("1.2.3"));
        assert_eq!(musl_version(b"\x001.2.3\0"), None, "not musl at all");
    }

    #[test]
    fn what_came_before_os_release_is_read_too() {
        let says = |text| red_hat_release(text).into_values().collect::<Vec<_>>();
        assert_eq!(says("CentOS release 6.10 (Final)\n"), ["centos", "CentOS release 6.10 (Final)", "6.10"]);
        let old = "Red Hat Enterprise Linux Server release 5.11 (Tikanga)";
        assert_eq!(says(old), ["rhel", old, "5.11"]);
        assert!(says("").is_empty() && says("nonsense").is_empty());
    }

    #[test]
    fn text_from_an_image_is_one_printable_line() {
        assert_eq!(printable(" a\u{1b}[31m\nb\0 "), "a[31mb");
        assert_eq!(printable(&"x".repeat(500)).len(), 200);
    }
}

//! Root file systems that lack one thing each, made of what a program of Debian needs and nothing more.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

pub struct Trees {
    pub bookworm: PathBuf,
    pub bullseye: PathBuf,
    /// By name of the image.
    pub images: BTreeMap<&'static str, PathBuf>,
    /// Those that need a level of x86-64 for one library.
    pub levels: BTreeMap<&'static str, PathBuf>,
}

const LIBRARIES: &str = "lib/x86_64-linux-gnu";
const LOADER: &str = "lib64/ld-linux-x86-64.so.2";

/// What a small image brings, by path in the fixture.
const FILES: [&str; 12] = [
    "bin/dash",
    "etc/passwd",
    "etc/group",
    "etc/nsswitch.conf",
    "etc/os-release",
    "lib/x86_64-linux-gnu/libc.so.6",
    "lib/x86_64-linux-gnu/libm.so.6",
    "lib/x86_64-linux-gnu/libgcc_s.so.1",
    "lib/x86_64-linux-gnu/libpthread.so.0",
    "lib/x86_64-linux-gnu/libdl.so.2",
    "lib/x86_64-linux-gnu/libnss_files.so.2",
    "lib/x86_64-linux-gnu/librt.so.1",
];

fn fixtures() -> PathBuf {
    std::env::var_os("ABICUS_FIXTURES").expect("ABICUS_FIXTURES names the test root file systems: run ci/test").into()
}

/// Makes all of them anew below `dir`.
pub fn make(dir: &Path) -> Trees {
    if dir.exists() {
        std::fs::remove_dir_all(dir).unwrap();
    }
    let crafted = dir.join("crafted");
    let build = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/crafted/build");
    let output = Command::new(build).arg(&crafted).arg(fixtures()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let mut images = BTreeMap::new();
    let mut add = |name: &'static str, suite: &str, change: &dyn Fn(&Path)| {
        let tree = dir.join(name);
        tiny(suite, &tree);
        change(&tree);
        images.insert(name, tree);
    };
    let remove = |path: &'static str| move |tree: &Path| std::fs::remove_file(tree.join(path)).unwrap();
    add("tiny", "bookworm", &|_| ());
    add("no-loader", "bookworm", &remove(LOADER));
    add("abi-note", "bullseye", &|tree| {
        let library = crafted.join("abi-note").join(LIBRARIES).join("libsubject.so");
        std::fs::copy(library, tree.join(LIBRARIES).join("libsubject.so")).unwrap();
    });
    add("isa-note", "bookworm", &|tree| need(&tree.join(LIBRARIES).join("libm.so.6"), MORE_THAN_ANY));
    add("exec-stack", "trixie", &|_| ());
    add("exec-stack-library", "trixie", &|tree| want_executable_stack(&tree.join(LIBRARIES).join("libm.so.6")));
    add("no-libm", "bookworm", &remove("lib/x86_64-linux-gnu/libm.so.6"));
    let nobody = |path: &'static str| {
        move |tree: &Path| std::fs::write(tree.join(path), "nobody:x:65534:65534::/:/bin/sh\n").unwrap()
    };
    add("no-root-user", "bookworm", &nobody("etc/passwd"));
    add("no-root-group", "bookworm", &nobody("etc/group"));
    images.insert("wrong-arch", crafted.join("wrong-arch"));

    let mut levels = BTreeMap::new();
    for (name, bit) in [("x86-64-v3", 1 << 2), ("x86-64-v4", 1 << 3)] {
        let tree = dir.join(name);
        tiny("bookworm", &tree);
        need(&tree.join(LIBRARIES).join("libm.so.6"), bit);
        levels.insert(name, tree);
    }

    let (bookworm, bullseye) = (dir.join("bookworm"), dir.join("bullseye"));
    tiny("bookworm", &bookworm);
    tiny("bullseye", &bullseye);
    Trees { bookworm, bullseye, images, levels }
}

fn tiny(suite: &str, tree: &Path) {
    let fixture = fixtures().join(suite);
    for directory in ["bin", "dev", "etc", "proc", "root", "sys", "tmp", "lib64", LIBRARIES] {
        std::fs::create_dir_all(tree.join(directory)).unwrap();
    }
    std::fs::set_permissions(tree.join("tmp"), PermissionsExt::from_mode(0o1777)).unwrap();
    for file in FILES {
        let from = fixture.join(file);
        // An older libc has what a newer one took in, the other way round not everything is a file of its own.
        if from.exists() {
            std::fs::copy(from, tree.join(file)).unwrap();
        }
    }
    std::os::unix::fs::symlink("dash", tree.join("bin/sh")).unwrap();
    // The fixture's is a link that leads out of the tree.
    let loader = fixture.join(LIBRARIES).join("ld-linux-x86-64.so.2");
    let loader =
        if loader.exists() { loader } else { fixture.join("usr").join(LIBRARIES).join("ld-linux-x86-64.so.2") };
    std::fs::copy(loader, tree.join(LOADER)).unwrap();
}

/// A bit of a level that does not exist.
const MORE_THAN_ANY: u8 = 1 << 7;

/// Marks a library for a level of x86-64: GNU_PROPERTY_X86_ISA_1_NEEDED, x86-64 psABI, section 4.1.3.
fn need(library: &Path, bit: u8) {
    let mut bytes = std::fs::read(library).unwrap();
    let property = [0x02, 0x80, 0x00, 0xc0, 4, 0, 0, 0];
    let at = bytes.windows(8).position(|window| window == property).expect("the library has no ISA property");
    bytes[at + 8] |= bit;
    std::fs::write(library, bytes).unwrap();
}

/// Marks a library as one that puts code on the stack: PT_GNU_STACK with PF_X, elf(5).
fn want_executable_stack(library: &Path) {
    let mut bytes = std::fs::read(library).unwrap();
    let number = |at: usize, length: usize| {
        bytes[at..at + length].iter().rev().fold(0usize, |number, byte| number << 8 | usize::from(*byte))
    };
    let (table, size, count) = (number(32, 8), number(54, 2), number(56, 2));
    let stack = 0x6474_e551;
    let header = (0..count).map(|entry| table + entry * size).find(|at| number(*at, 4) == stack);
    let header = header.expect("the library has no PT_GNU_STACK");
    bytes[header + 4] |= 1;
    std::fs::write(library, bytes).unwrap();
}

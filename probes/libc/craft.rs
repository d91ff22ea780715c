//! Shared libraries made on the spot, each asking the loader for one thing.
//!
//! Goes in: what the library is to ask for. Comes out: its bytes, an ELF object of two pages that exports
//! `abicus_answer`. Must not know: where it is loaded. Pure. System V ABI, chapter 4 and 5; AMD64 supplement.

pub const SIZE: usize = 0x1200;
const PAGE: u64 = 0x1000;

/// Offsets within the object, which are its addresses too.
const SYMBOLS: usize = 0x280;
const STRINGS: usize = 0x300;
const HASH: usize = 0x380;
const RELOCATIONS: usize = 0x3c0;
const RELATIVE: usize = 0x3e0;
const NOTE: usize = 0x400;
const CODE: usize = 0x480;
const RESOLVER: usize = 0x490;
const DYNAMIC: usize = 0x1000;
/// A word that a thread-local offset is written to.
const OFFSET: usize = 0x1180;
/// A word that holds its own library's `CODE` once it is relocated.
pub const POINTER: usize = 0x1188;

const TEXTS: &[u8] = b"\0abicus_answer\0abicus_ifunc\0abicus_pointer\0abicus.so\0";

#[derive(Clone, Copy, Default)]
pub struct Wish {
    /// An executable stack: PT_GNU_STACK with PF_X.
    pub exec_stack: bool,
    /// So many bytes of thread storage at a fixed distance from the thread pointer.
    pub static_tls: u64,
    /// Relative relocations in the packed form, DT_RELR.
    pub relr: bool,
    /// The kernel release its NT_GNU_ABI_TAG asks for.
    pub kernel: Option<[u32; 3]>,
}

/// The library. `library[..SIZE]` is the file.
pub fn library(wish: Wish) -> [u8; SIZE] {
    let mut file = File([0; SIZE]);
    let headers = program_headers(&mut file, wish);
    file.bytes(0, b"\x7fELF\x02\x01\x01");
    // GNU is the ABI of objects with STT_GNU_IFUNC; musl does not look at it.
    file.bytes(7, &[3]);
    for (at, half) in [(16, 3u16), (18, 62), (52, 64), (54, 56), (56, headers), (58, 64)] {
        file.bytes(at, &half.to_le_bytes());
    }
    file.word(20, 1);
    file.long(32, 64);

    file.bytes(STRINGS, TEXTS);
    symbol(&mut file, 1, 1, 0x12, CODE);
    symbol(&mut file, 2, 15, 0x1a, RESOLVER);
    symbol(&mut file, 3, 28, 0x11, POINTER);
    hash_table(&mut file);
    // mov eax, 42; ret
    file.bytes(CODE, &[0xb8, 42, 0, 0, 0, 0xc3]);
    // lea rax, [rip - (distance to CODE)]; ret
    let distance = (CODE as i32) - (RESOLVER as i32 + 7);
    file.bytes(RESOLVER, &[0x48, 0x8d, 0x05]);
    file.bytes(RESOLVER + 3, &distance.to_le_bytes());
    file.bytes(RESOLVER + 7, &[0xc3]);
    file.long(POINTER, CODE as u64);
    if let Some([a, b, c]) = wish.kernel {
        file.bytes(NOTE, b"\x04\0\0\0\x10\0\0\0\x01\0\0\0GNU\0\0\0\0\0");
        for (at, number) in [a, b, c].into_iter().enumerate() {
            file.word(NOTE + 20 + at * 4, number);
        }
    }
    dynamic(&mut file, wish);
    file.0
}

struct File([u8; SIZE]);

impl File {
    fn bytes(&mut self, at: usize, bytes: &[u8]) {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
    }
    fn word(&mut self, at: usize, word: u32) {
        self.bytes(at, &word.to_le_bytes());
    }
    fn long(&mut self, at: usize, long: u64) {
        self.bytes(at, &long.to_le_bytes());
    }
}

fn program_headers(file: &mut File, wish: Wish) -> u16 {
    let mut count = 0;
    let mut header = |kind: u32, flags: u32, at: usize, in_file: u64, in_memory: u64, align: u64| {
        let place = 64 + 56 * count;
        file.word(place, kind);
        file.word(place + 4, flags);
        for (field, value) in [at as u64, at as u64, at as u64, in_file, in_memory, align].into_iter().enumerate() {
            file.long(place + 8 + 8 * field, value);
        }
        count += 1;
    };
    header(1, 5, 0, PAGE, PAGE, PAGE);
    header(1, 6, DYNAMIC, 0x200, 0x200, PAGE);
    header(2, 6, DYNAMIC, 0x180, 0x180, 8);
    header(0x6474_e551, if wish.exec_stack { 7 } else { 6 }, 0, 0, 0, 16);
    if wish.static_tls > 0 {
        header(7, 4, OFFSET, 0, wish.static_tls, 16);
    }
    if wish.kernel.is_some() {
        header(4, 4, NOTE, 32, 32, 4);
    }
    count as u16
}

fn symbol(file: &mut File, index: usize, name: u32, info: u8, value: usize) {
    let at = SYMBOLS + index * 24;
    file.word(at, name);
    // The section only has to be a defined one.
    file.bytes(at + 4, &[info, 0, 1, 0]);
    file.long(at + 8, value as u64);
    file.long(at + 16, 8);
}

/// DT_HASH with one bucket, which both libcs still read: a chain of all symbols.
fn hash_table(file: &mut File) {
    for (at, word) in [1, 4, 1, 0, 2, 3, 0].into_iter().enumerate() {
        file.word(HASH + at * 4, word);
    }
}

fn dynamic(file: &mut File, wish: Wish) {
    let mut at = DYNAMIC;
    let mut entry = |tag: u64, value: usize| {
        file.long(at, tag);
        file.long(at + 8, value as u64);
        at += 16;
    };
    entry(14, TEXTS.len() - 11);
    entry(4, HASH);
    entry(5, STRINGS);
    entry(6, SYMBOLS);
    entry(10, TEXTS.len());
    entry(11, 24);
    if wish.static_tls > 0 {
        entry(30, 0x10);
    }
    entry(7, RELOCATIONS);
    entry(8, 24);
    entry(9, 24);
    if wish.relr {
        entry(36, RELATIVE);
        entry(35, 8);
        entry(37, 8);
    }
    // The one relocation: the offset of thread storage (R_X86_64_TPOFF64), or the pointer (R_X86_64_RELATIVE) where it is
    // not in the packed table; with neither, nothing (R_X86_64_NONE).
    let (place, kind, addend) = match wish {
        Wish { static_tls: 1.., .. } => (OFFSET, 18, 0),
        Wish { relr: true, .. } => (OFFSET, 0, 0),
        _ => (POINTER, 8, CODE),
    };
    file.long(RELOCATIONS, place as u64);
    file.long(RELOCATIONS + 8, kind);
    file.long(RELOCATIONS + 16, addend as u64);
    file.long(RELATIVE, POINTER as u64);
}

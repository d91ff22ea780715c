//! The objects the loader has mapped, and what they define.
//!
//! Goes in: the address of `_DYNAMIC`, which the loader filled in. Comes out: symbols by name, the newest symbol version an
//! object offers. Must not know: what any symbol is good for. Nothing here is resolved by the loader, because a symbol that
//! is missing must be an observation and not a program that does not start.

use core::ffi::CStr;

const DT_HASH: usize = 4;
const DT_STRTAB: usize = 5;
const DT_SYMTAB: usize = 6;
const DT_DEBUG: usize = 21;
const DT_GNU_HASH: usize = 0x6fff_fef5;
const DT_VERSYM: usize = 0x6fff_fff0;
const DT_VERDEF: usize = 0x6fff_fffc;
const DT_VERDEFNUM: usize = 0x6fff_fffd;

const STT_GNU_IFUNC: u8 = 10;
/// Versions marked so belong to old binaries only; a new program is never bound to them.
const VERSYM_HIDDEN: u16 = 0x8000;

/// An entry of a dynamic section.
#[repr(C)]
pub struct Dyn {
    tag: usize,
    value: usize,
}

#[repr(C)]
struct Debug {
    version: i32,
    map: *const LinkMap,
}

/// The part of `struct link_map` that glibc and musl agree on, see `<link.h>`.
#[repr(C)]
struct LinkMap {
    base: usize,
    name: *const u8,
    dynamic: *const Dyn,
    next: *const LinkMap,
}

#[repr(C)]
struct Symbol {
    name: u32,
    info: u8,
    other: u8,
    section: u16,
    value: usize,
    size: usize,
}

#[repr(C)]
struct Verdef {
    version: u16,
    flags: u16,
    index: u16,
    count: u16,
    hash: u32,
    aux: u32,
    next: u32,
}

/// All objects of this process, read anew at every question because dlopen adds to them.
#[derive(Clone, Copy)]
pub struct Objects {
    debug: *const Debug,
    vdso: usize,
}

/// One mapped object.
#[derive(Clone, Copy)]
pub struct Object {
    pub base: usize,
    name: *const u8,
    symbols: *const Symbol,
    strings: *const u8,
    gnu_hash: *const u32,
    hash: *const u32,
    versions: *const u16,
    verdef: *const Verdef,
    verdef_count: usize,
}

/// A symbol that was found.
#[derive(Clone, Copy)]
pub struct Found {
    pub address: usize,
    pub base: usize,
    pub size: usize,
    pub ifunc: bool,
}

impl Objects {
    /// # Safety
    /// `dynamic` is this program's dynamic section, filled in by a loader; `vdso` is AT_SYSINFO_EHDR or 0.
    pub unsafe fn new(dynamic: *const Dyn, vdso: usize) -> Option<Self> {
        let mut entry = dynamic;
        // SAFETY: a dynamic section ends with a null tag.
        unsafe {
            while (*entry).tag != 0 {
                if (*entry).tag == DT_DEBUG && (*entry).value != 0 {
                    return Some(Self { debug: (*entry).value as *const Debug, vdso });
                }
                entry = entry.add(1);
            }
        }
        None
    }

    /// Every object in the order in which symbols are looked up.
    pub fn iter(&self) -> impl Iterator<Item = Object> {
        // SAFETY: the loader keeps r_debug and its list valid for the life of the process; nothing unloads while we walk.
        let mut next = unsafe { (*self.debug).map };
        let vdso = self.vdso;
        core::iter::from_fn(move || {
            while !next.is_null() {
                // SAFETY: as above, and the list ends with a null pointer.
                let map = unsafe { &*next };
                next = map.next;
                // gVisor's vDSO has tables that are not mapped where they say.
                if vdso != 0 && (map.base == vdso || (map.dynamic as usize).wrapping_sub(vdso) < 0x10000) {
                    continue;
                }
                // SAFETY: the map belongs to a loaded object.
                if let Some(object) = unsafe { Object::read(map) } {
                    return Some(object);
                }
            }
            None
        })
    }

    /// The definition a new program would be bound to.
    pub fn find(&self, name: &CStr) -> Option<Found> {
        self.iter().find_map(|object| object.find(name.to_bytes()))
    }
}

impl Object {
    /// # Safety
    /// `map` is an entry of the loader's list.
    unsafe fn read(map: &LinkMap) -> Option<Self> {
        let mut object = Self {
            base: map.base,
            name: map.name,
            symbols: core::ptr::null(),
            strings: core::ptr::null(),
            gnu_hash: core::ptr::null(),
            hash: core::ptr::null(),
            versions: core::ptr::null(),
            verdef: core::ptr::null(),
            verdef_count: 0,
        };
        // glibc relocates the addresses in place, musl leaves offsets.
        let at = |value: usize| if value < map.base { value + map.base } else { value };
        let mut entry = map.dynamic;
        // SAFETY: a dynamic section ends with a null tag.
        unsafe {
            while !entry.is_null() && (*entry).tag != 0 {
                let value = (*entry).value;
                match (*entry).tag {
                    DT_SYMTAB => object.symbols = at(value) as *const Symbol,
                    DT_STRTAB => object.strings = at(value) as *const u8,
                    DT_GNU_HASH => object.gnu_hash = at(value) as *const u32,
                    DT_HASH => object.hash = at(value) as *const u32,
                    DT_VERSYM => object.versions = at(value) as *const u16,
                    DT_VERDEF => object.verdef = at(value) as *const Verdef,
                    DT_VERDEFNUM => object.verdef_count = value,
                    _ => {}
                }
                entry = entry.add(1);
            }
        }
        (!object.symbols.is_null() && !object.strings.is_null()).then_some(object)
    }

    /// The path the loader knows it by; empty for the program itself.
    pub fn path(&self) -> &'static CStr {
        if self.name.is_null() {
            return c"";
        }
        // SAFETY: the loader's names are terminated and live as long as the object.
        unsafe { CStr::from_ptr(self.name.cast()) }
    }

    pub fn name(&self) -> &'static [u8] {
        self.path().to_bytes()
    }

    /// The default version of a defined symbol.
    pub fn find(&self, name: &[u8]) -> Option<Found> {
        // SAFETY: the tables belong to a mapped object and are walked by their own counts.
        unsafe {
            if !self.gnu_hash.is_null() {
                return self.find_gnu(name);
            }
            if self.hash.is_null() {
                return None;
            }
            let (buckets, table) = (*self.hash as usize, self.hash.add(2));
            let mut index = *table.add(sysv_hash(name) as usize % buckets) as usize;
            while index != 0 {
                if let Some(found) = self.matches(index, name) {
                    return Some(found);
                }
                index = *table.add(buckets + index) as usize;
            }
            None
        }
    }

    unsafe fn find_gnu(&self, name: &[u8]) -> Option<Found> {
        // SAFETY: the layout of DT_GNU_HASH: four words, the Bloom filter, the buckets, the chains.
        unsafe {
            let (buckets, first, bloom) =
                (*self.gnu_hash as usize, *self.gnu_hash.add(1) as usize, *self.gnu_hash.add(2) as usize);
            if buckets == 0 {
                return None;
            }
            let table = self.gnu_hash.add(4 + bloom * 2);
            let hash = gnu_hash(name);
            let mut index = *table.add(hash as usize % buckets) as usize;
            if index < first {
                return None;
            }
            loop {
                let link = *table.add(buckets + index - first);
                if link | 1 == hash | 1
                    && let Some(found) = self.matches(index, name)
                {
                    return Some(found);
                }
                if link & 1 == 1 {
                    return None;
                }
                index += 1;
            }
        }
    }

    unsafe fn matches(&self, index: usize, name: &[u8]) -> Option<Found> {
        // SAFETY: `index` comes from the object's own hash table.
        unsafe {
            let symbol = &*self.symbols.add(index);
            if symbol.section == 0 || symbol.value == 0 {
                return None;
            }
            if !self.versions.is_null() && *self.versions.add(index) & VERSYM_HIDDEN != 0 {
                return None;
            }
            if CStr::from_ptr(self.strings.add(symbol.name as usize).cast()).to_bytes() != name {
                return None;
            }
            Some(Found {
                address: self.base + symbol.value,
                base: self.base,
                size: symbol.size,
                ifunc: symbol.info & 15 == STT_GNU_IFUNC,
            })
        }
    }

    /// The greatest `GLIBC_x.y[.z]` this object defines, as numbers.
    pub fn newest_version(&self) -> Option<[u32; 3]> {
        let mut newest = None;
        let mut entry = self.verdef;
        for _ in 0..if entry.is_null() { 0 } else { self.verdef_count } {
            // SAFETY: the version definitions are walked by their own offsets and count; the first aux entry is the name.
            let (name, step) = unsafe {
                let definition = &*entry;
                let aux = *entry.cast::<u8>().add(definition.aux as usize).cast::<u32>();
                (CStr::from_ptr(self.strings.add(aux as usize).cast()).to_bytes(), definition.next as usize)
            };
            if let Some(version) = parse_version(name) {
                newest = newest.max(Some(version));
            }
            // SAFETY: as above.
            entry = unsafe { entry.cast::<u8>().add(step).cast() };
            if step == 0 {
                break;
            }
        }
        newest
    }
}

/// `GLIBC_2.36` as `[2, 36, 0]`; anything else (`GLIBC_PRIVATE`, `GLIBC_ABI_DT_RELR`) is not a version.
pub fn parse_version(name: &[u8]) -> Option<[u32; 3]> {
    let mut numbers = [0; 3];
    let mut count = 0;
    for part in name.strip_prefix(b"GLIBC_")?.split(|&byte| byte == b'.') {
        if part.is_empty() || part.len() > 6 || !part.iter().all(u8::is_ascii_digit) {
            return None;
        }
        *numbers.get_mut(count)? = part.iter().fold(0, |sum, digit| sum * 10 + u32::from(digit - b'0'));
        count += 1;
    }
    (count >= 2).then_some(numbers)
}

fn gnu_hash(name: &[u8]) -> u32 {
    name.iter().fold(5381u32, |hash, &byte| hash.wrapping_mul(33).wrapping_add(u32::from(byte)))
}

pub fn sysv_hash(name: &[u8]) -> u32 {
    let mut hash = 0u32;
    for &byte in name {
        hash = (hash << 4).wrapping_add(u32::from(byte));
        let high = hash & 0xf000_0000;
        hash = (hash ^ (high >> 24)) & !high;
    }
    hash
}

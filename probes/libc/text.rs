//! Locales, character sets, and what programs do with text and numbers.
//!
//! Goes in: the libc's functions and the image's locale and gconv files. Comes out: whether they give the right text.

use core::ffi::{CStr, c_char, c_int};

use crate::api::{Any, Opaque, Text, snprintf, sscanf};
use crate::cell::{Cell, Kind};
use crate::saw::{Saw, Seen, expect};
use crate::thread::any;
use crate::{Check, not_asked, value};

const fn iconv_check(id: &'static str, argument: usize) -> Check {
    Check { argument, ..Check::new(id, iconv) }
}

pub const CHECKS: &[Check] = &[
    Check::new("libc.locale.c-utf8", c_utf8),
    Check::new("libc.locale.en-us-utf8", en_us),
    Check::new("libc.locale.environment", environment),
    iconv_check("libc.iconv.latin1", 0),
    iconv_check("libc.iconv.utf16", 1),
    iconv_check("libc.iconv.cp1252", 2),
    iconv_check("libc.iconv.shift-jis", 3),
    iconv_check("libc.iconv.gb18030", 4),
    Check::new("libc.text.snprintf", format),
    Check::new("libc.text.scan", scan),
    Check::new("libc.text.strtod", number),
    Check::new("libc.text.qsort", sort),
    Check::new("libc.text.regex", regex),
    Check::new("libc.text.fnmatch", fnmatch),
    Check::new("libc.text.strerror", strerror),
];

const LC_ALL: c_int = 6;
const CODESET: c_int = 14;

/// Sets a locale and checks that text is UTF-8 in it.
fn utf8(cell: &Cell, name: &CStr) -> Result<(), Saw> {
    let mut wide = [0; 8];
    // SAFETY: constant texts; room for eight characters.
    unsafe {
        if cell.setlocale(LC_ALL, name.as_ptr()).is_null() {
            return Err(value!("no such locale"));
        }
        let codeset = CStr::from_ptr(cell.nl_langinfo(CODESET));
        if codeset != c"UTF-8" {
            return Err(value!("its character set is {}", codeset.to_str().unwrap_or("?")));
        }
        let count = cell.mbstowcs(wide.as_mut_ptr(), c"\u{e9}\u{20ac}\u{1f980}".as_ptr(), 8);
        expect(count == 3 && wide[..3] == [0xe9, 0x20ac, 0x1f980], b"characters are not decoded")?;
        expect(cell.iswalpha(0xe9) != 0 && cell.towupper(0xe9) == 0xc9, b"letters are not known")?;
    }
    Ok(())
}

fn c_utf8(cell: &Cell, _: usize) -> Seen {
    utf8(cell, c"C.UTF-8")?;
    Ok(Saw::Ok)
}

fn en_us(cell: &Cell, _: usize) -> Seen {
    utf8(cell, c"en_US.UTF-8")?;
    // SAFETY: constant texts.
    expect(unsafe { cell.strcoll(c"a".as_ptr(), c"b".as_ptr()) } < 0, b"letters are not in order")?;
    Ok(Saw::Ok)
}

/// The locale the image's environment asks for. bash and perl warn on every start where it is not there.
fn environment(cell: &Cell, _: usize) -> Seen {
    let asked = [&b"LC_ALL"[..], b"LC_CTYPE", b"LANG"].into_iter().find_map(|name| {
        let value = cell.env(name)?;
        (!value.to_bytes().is_empty()).then_some(value)
    });
    let Some(asked) = asked else {
        return Err(not_asked!("the environment asks for no locale"));
    };
    // SAFETY: a constant text.
    if unsafe { cell.setlocale(LC_ALL, c"".as_ptr()) }.is_null() {
        return Err(value!("no locale {}", asked.to_str().unwrap_or("?")));
    }
    Ok(Saw::Ok)
}

/// A character set, a text in UTF-8, and the same text in that set.
const SETS: [(&CStr, &[u8], &[u8]); 5] = [
    (c"ISO-8859-1", "Gr\u{fc}\u{df}e".as_bytes(), b"Gr\xfc\xdfe"),
    (c"UTF-16LE", "a\u{20ac}\u{1f980}".as_bytes(), b"a\0\xac\x20\x3e\xd8\x80\xdd"),
    (c"CP1252", "\u{20ac}\u{201c}".as_bytes(), b"\x80\x93"),
    (c"SHIFT_JIS", "\u{65e5}\u{672c}".as_bytes(), b"\x93\xfa\x96\x7b"),
    (c"GB18030", "\u{4e2d}\u{6587}".as_bytes(), b"\xd6\xd0\xce\xc4"),
];

fn iconv(cell: &Cell, set: usize) -> Seen {
    let (name, utf8, encoded) = SETS[set];
    let (to, back): (&[u8], &[u8]) = (encoded, utf8);
    convert(cell, name, c"UTF-8", utf8, to)?;
    convert(cell, c"UTF-8", name, encoded, back)?;
    Ok(Saw::Ok)
}

fn convert(cell: &Cell, to: &CStr, from: &CStr, input: &[u8], expected: &[u8]) -> Result<(), Saw> {
    let mut room = [0u8; 64];
    // SAFETY: pointers and sizes of two buffers that outlive the call.
    unsafe {
        let handle = cell.iconv_open(to.as_ptr(), from.as_ptr());
        if handle as isize == -1 {
            let from = from.to_str().unwrap_or("?");
            return Err(value!("no conversion from {from} to {}", to.to_str().unwrap_or("?")));
        }
        let (mut at, mut left) = (input.as_ptr().cast::<c_char>(), input.len());
        let (mut out, mut rest) = (room.as_mut_ptr().cast::<c_char>(), room.len());
        let result = cell.iconv(handle, &mut at, &mut left, &mut out, &mut rest);
        let errno = cell.errno();
        cell.iconv_close(handle);
        if result == usize::MAX {
            return Err(Saw::Errno(errno, "iconv"));
        }
        let size = room.len() - rest;
        expect(left == 0 && &room[..size] == expected, b"another text came out")
    }
}

fn format(cell: &Cell, _: usize) -> Seen {
    let snprintf = snprintf(cell);
    let mut room = [0 as c_char; 128];
    let (written, text) = {
        // SAFETY: the arguments are what the format says; the text is terminated.
        unsafe {
            let written = snprintf(
                room.as_mut_ptr(),
                room.len(),
                c"%d %5.2f %s %#x %lld %.17g %c %zu %e".as_ptr(),
                -42 as c_int,
                2.71f64,
                c"text".as_ptr(),
                0xbeefu32,
                i64::MIN,
                0.1f64,
                c_int::from(b'z'),
                usize::MAX,
                1e300f64,
            );
            (written, CStr::from_ptr(room.as_ptr()))
        }
    };
    let expected =
        c"-42  2.71 text 0xbeef -9223372036854775808 0.10000000000000001 z 18446744073709551615 1.000000e+300";
    if text != expected || written as usize != expected.count_bytes() {
        return Err(Saw::value(text.to_bytes()));
    }
    Ok(Saw::Ok)
}

fn scan(cell: &Cell, _: usize) -> Seen {
    let sscanf = sscanf(cell);
    let (mut number, mut real, mut word) = (0 as c_int, 0f64, [0 as c_char; 16]);
    // SAFETY: room for each conversion of the format; the word is bounded.
    let count = unsafe {
        let format = c"%d,%lf %15s".as_ptr();
        sscanf(c"17,2.5 word".as_ptr(), format, &raw mut number, &raw mut real, word.as_mut_ptr())
    };
    // SAFETY: terminated by the function, or still zero.
    let word = unsafe { CStr::from_ptr(word.as_ptr()) };
    expect(count == 3 && number == 17 && real == 2.5 && word == c"word", b"other values came out")?;
    Ok(Saw::Ok)
}

fn number(cell: &Cell, _: usize) -> Seen {
    // SAFETY: constant texts, no end wanted.
    unsafe {
        let end = core::ptr::null_mut();
        expect(cell.strtod(c"0.1".as_ptr(), end) == 0.1, b"0.1 is another number")?;
        expect(cell.strtod(c"2.2250738585072011e-308".as_ptr(), end) == 2.225_073_858_507_201e-308, b"rounding")?;
        expect(cell.strtoll(c"-9223372036854775808".as_ptr(), end, 10) == i64::MIN, b"the smallest number")?;
    }
    Ok(Saw::Ok)
}

fn sort(cell: &Cell, _: usize) -> Seen {
    extern "C" fn compare(a: Any, b: Any) -> c_int {
        // SAFETY: both point into the array below.
        unsafe { (*a.cast::<u32>()).cmp(&*b.cast::<u32>()) as c_int }
    }
    let mut numbers = [0u32; 500];
    let mut seed = 7u32;
    for number in &mut numbers {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        *number = seed >> 8;
    }
    let mut wanted = numbers[123];
    // SAFETY: the array's own size.
    let found = unsafe {
        cell.qsort(any(&mut numbers), numbers.len(), 4, compare);
        cell.bsearch(any(&mut wanted), any(&mut numbers), numbers.len(), 4, compare)
    };
    expect(numbers.is_sorted(), b"not sorted")?;
    expect(!found.is_null(), b"not found")?;
    Ok(Saw::Ok)
}

fn regex(cell: &Cell, _: usize) -> Seen {
    const EXTENDED: c_int = 1;
    let mut compiled: Opaque<32> = [0; 32];
    // Three pairs of offsets: of 32 bits in glibc, of 64 in musl.
    let mut matches = [-1i64; 6];
    // SAFETY: room for a compiled expression and for as many matches as are asked for.
    unsafe {
        let pattern = c"([a-z]+)-([0-9]{2,4})$".as_ptr();
        let error = cell.regcomp(any(&mut compiled), pattern, EXTENDED);
        if error != 0 {
            return Err(value!("regcomp: error {error}"));
        }
        let found = cell.regexec(any(&mut compiled), c"/debian-2026".as_ptr(), 3, any(&mut matches), 0);
        cell.regfree(any(&mut compiled));
        let expected: [i64; 6] = match cell.kind {
            Kind::Musl => [1, 12, 1, 7, 8, 12],
            _ => [1 | 12 << 32, 1 | 7 << 32, 8 | 12 << 32, -1, -1, -1],
        };
        expect(found == 0 && matches == expected, b"another match")?;
    }
    Ok(Saw::Ok)
}

fn fnmatch(cell: &Cell, _: usize) -> Seen {
    // SAFETY: constant texts.
    let yes = |pattern: &CStr, text: &CStr| unsafe { cell.fnmatch(pattern.as_ptr(), text.as_ptr(), 0) };
    let good = yes(c"lib*.so.[0-9]", c"libc.so.6") == 0 && yes(c"*.a", c"libc.so.6") != 0;
    expect(good, b"another match")?;
    Ok(Saw::Ok)
}

fn strerror(cell: &Cell, _: usize) -> Seen {
    // SAFETY: returns a text of the libc.
    let text: Text = unsafe { cell.strerror(2) };
    expect(!text.is_null(), b"no text")?;
    // SAFETY: terminated by the libc.
    let text = unsafe { CStr::from_ptr(text) };
    if text == c"No such file or directory" { Ok(Saw::Ok) } else { Err(Saw::value(text.to_bytes())) }
}

//! Which instructions a string function is made of, read from its machine code.
//!
//! Goes in: the first bytes of a function. Comes out: the widest vectors it uses and whether it switches to `rep movsb` or
//! `rep stosb` for long blocks. Must not know: which libc it is from. Pure. Instructions are decoded one by one, because a
//! search for byte patterns finds them inside addresses and constants too.

/// How much of a function is looked at.
pub const WINDOW: usize = 0x600;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Vectors {
    None,
    /// A string instruction, `rep movsq` and the like, and no vectors at all: musl.
    Rep,
    Sse2,
    Ssse3,
    Sse42,
    Avx,
    Evex,
    Avx512,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Class {
    pub vectors: Vectors,
    /// Enhanced rep movsb or stosb above a threshold.
    pub erms: bool,
    /// Checks for a transaction before vzeroupper, which would abort it.
    pub rtm: bool,
    /// Moves blocks as floating point numbers: the AVX-512 variant for CPUs on which integer moves slow down the clock.
    pub floats: bool,
}

/// One instruction.
#[derive(Clone, Copy)]
struct Instruction {
    length: usize,
    vectors: Vectors,
    xtest: bool,
    /// A 512-bit move of integers, or of floating point numbers.
    integers: bool,
    floats: bool,
    /// Where `ja` jumps to, from the end of the instruction.
    above: Option<i32>,
    returns: bool,
}

pub fn classify(code: &[u8]) -> Class {
    let mut class = Class { vectors: Vectors::None, erms: false, rtm: false, floats: false };
    let mut integers = false;
    let mut at = 0;
    let mut branch = None;
    let mut count = 0;
    let mut returned = false;
    while let Some(instruction) = code.get(at..).and_then(decode) {
        at += instruction.length;
        count += 1;
        class.vectors = class.vectors.max(instruction.vectors);
        class.rtm |= instruction.xtest;
        class.floats |= instruction.floats;
        integers |= instruction.integers;
        if let (None, Some(above)) = (branch, instruction.above)
            && count < 24
        {
            branch = Some(at as i64 + i64::from(above));
        }
        // Scalar functions are short: what follows their return is another function.
        returned |= instruction.returns;
        if returned && class.vectors <= Vectors::Rep {
            break;
        }
    }
    // Only the AVX variants have a twin for transactions; elsewhere it is another function's instruction.
    class.rtm &= class.vectors == Vectors::Avx;
    class.floats &= !integers;
    class.erms = branch.and_then(|at| usize::try_from(at).ok()).is_some_and(|at| compares_threshold(code, at));
    class
}

/// In every erms variant the branch for long blocks begins by comparing the size with the threshold: a variable since
/// glibc 2.32, a constant of at least 2,048 before. The other variants compare with a few vectors' length.
fn compares_threshold(code: &[u8], at: usize) -> bool {
    match code.get(at..at + 7) {
        Some([0x48, 0x3b, 0x15, ..]) => true,
        Some([0x48, 0x81, 0xfa, a, b, c, d]) => u32::from_le_bytes([*a, *b, *c, *d]) >= 2048,
        _ => false,
    }
}

/// x86-64 instruction format, Intel SDM volume 2 chapter 2. None at the end of the code or at what no compiler writes.
fn decode(code: &[u8]) -> Option<Instruction> {
    let mut at = 0;
    let (mut narrow, mut wide, mut rep) = (false, false, false);
    loop {
        match *code.get(at)? {
            0x66 => narrow = true,
            0xf2 | 0xf3 => rep = true,
            0x26 | 0x2e | 0x36 | 0x3e | 0x64 | 0x65 | 0xf0 => {}
            _ => break,
        }
        at += 1;
    }
    if *code.get(at)? & 0xf0 == 0x40 {
        wide = code[at] & 8 != 0;
        at += 1;
    }
    let opcode = *code.get(at)?;
    at += 1;
    let mut found = Instruction {
        length: 0,
        vectors: Vectors::None,
        xtest: false,
        integers: false,
        floats: false,
        above: None,
        returns: false,
    };
    let immediate = if narrow { 2 } else { 4 };
    found.length = match opcode {
        0x62 => {
            let (map, length) = (*code.get(at)? & 7, *code.get(at + 2)? >> 5 & 3);
            found.vectors = if length == 2 { Vectors::Avx512 } else { Vectors::Evex };
            let opcode = *code.get(at + 3)?;
            found.integers = length == 2 && map == 1 && matches!(opcode, 0x6f | 0x7f);
            found.floats = length == 2 && map == 1 && matches!(opcode, 0x10 | 0x11);
            modrm(code, at + 4)? + usize::from(map == 3 || imm8_in_map1(opcode, map))
        }
        0xc5 => {
            if code.get(at)? & 4 != 0 {
                found.vectors = Vectors::Avx;
            }
            vex(code, at + 1, 1)?
        }
        0xc4 => {
            // A 256-bit vector; BMI instructions have the bit clear.
            if code.get(at + 1)? & 4 != 0 {
                found.vectors = Vectors::Avx;
            }
            vex(code, at + 2, code.get(at)? & 31)?
        }
        0x0f => {
            let second = *code.get(at)?;
            at += 1;
            match second {
                0x38 => {
                    let third = *code.get(at)?;
                    if narrow && third <= 0x0b {
                        found.vectors = Vectors::Ssse3;
                    }
                    modrm(code, at + 1)?
                }
                0x3a => {
                    let third = *code.get(at)?;
                    found.vectors = match third {
                        0x60..=0x63 => Vectors::Sse42,
                        0x0f => Vectors::Ssse3,
                        _ => Vectors::None,
                    };
                    modrm(code, at + 1)? + 1
                }
                0x01 => {
                    found.xtest = code.get(at) == Some(&0xd6);
                    modrm(code, at)?
                }
                0x80..=0x8f => {
                    if second == 0x87 {
                        found.above = Some(i32::from_le_bytes(code.get(at..at + 4)?.try_into().ok()?));
                    }
                    at + 4
                }
                0x05 | 0x0b | 0x31 | 0x77 | 0xa2 | 0xc8..=0xcf => at,
                _ => {
                    let moves = matches!(second, 0x10 | 0x11 | 0x28 | 0x29);
                    let integers = narrow && matches!(second, 0x60..=0x76 | 0x7f | 0xd0..=0xfe);
                    if moves || integers || (rep && matches!(second, 0x6f | 0x7f)) {
                        found.vectors = Vectors::Sse2;
                    }
                    let trailing = matches!(second, 0x70..=0x73 | 0xa4 | 0xac | 0xba | 0xc2 | 0xc4..=0xc6);
                    modrm(code, at)? + usize::from(trailing)
                }
            }
        }
        0x70..=0x7f => {
            if opcode == 0x77 {
                found.above = Some(i32::from(*code.get(at)? as i8));
            }
            at + 1
        }
        0xa4 | 0xa5 | 0xaa | 0xab => {
            if rep {
                found.vectors = Vectors::Rep;
            }
            at
        }
        0xc2 | 0xc3 => {
            found.returns = true;
            at + if opcode == 0xc2 { 2 } else { 0 }
        }
        0x00..=0x3f => match opcode & 7 {
            0..=3 => modrm(code, at)?,
            4 => at + 1,
            5 => at + immediate,
            _ => return None,
        },
        0x50..=0x5f
        | 0x90..=0x99
        | 0x9b..=0x9f
        | 0xa6
        | 0xa7
        | 0xac..=0xaf
        | 0xc9
        | 0xcc
        | 0xf4
        | 0xf5
        | 0xf8..=0xfd => at,
        0x63 | 0x84..=0x8f | 0xd0..=0xd3 | 0xfe | 0xff => modrm(code, at)?,
        0x68 | 0xa9 => at + immediate,
        0x6a | 0xa8 | 0xb0..=0xb7 | 0xe0..=0xe3 | 0xeb => at + 1,
        0x69 | 0x81 | 0xc7 => modrm(code, at)? + immediate,
        0x6b | 0x80 | 0x83 | 0xc0 | 0xc1 | 0xc6 => modrm(code, at)? + 1,
        0xb8..=0xbf => at + if wide { 8 } else { immediate },
        0xe8 | 0xe9 => at + 4,
        // test has an immediate, its neighbours in the group have none
        0xf6 => modrm(code, at)? + usize::from(code.get(at)? & 0x38 == 0),
        0xf7 => modrm(code, at)? + if code.get(at)? & 0x38 == 0 { immediate } else { 0 },
        _ => return None,
    };
    (found.length <= code.len()).then_some(found)
}

fn vex(code: &[u8], at: usize, map: u8) -> Option<usize> {
    let opcode = *code.get(at)?;
    if map == 1 && opcode == 0x77 {
        return Some(at + 1);
    }
    Some(modrm(code, at + 1)? + usize::from(map == 3 || imm8_in_map1(opcode, map)))
}

fn imm8_in_map1(opcode: u8, map: u8) -> bool {
    map == 1 && matches!(opcode, 0x70..=0x73 | 0xc2 | 0xc4..=0xc6)
}

/// Where a ModRM byte with its SIB and displacement ends.
fn modrm(code: &[u8], at: usize) -> Option<usize> {
    let byte = *code.get(at)?;
    let (mode, rm) = (byte >> 6, byte & 7);
    let mut end = at + 1;
    if mode == 3 {
        return Some(end);
    }
    let mut base = rm;
    if rm == 4 {
        base = code.get(end)? & 7;
        end += 1;
    }
    Some(
        end + match mode {
            0 if base == 5 => 4,
            0 => 0,
            1 => 1,
            _ => 4,
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vectors(code: &[u8]) -> Vectors {
        classify(code).vectors
    }

    #[test]
    fn the_widest_vectors_decide() {
        // mov rax, rdi; movups xmm0, [rsi]; ret
        assert_eq!(vectors(&[0x48, 0x89, 0xf8, 0x0f, 0x10, 0x06, 0xc3]), Vectors::Sse2);
        // vmovdqu ymm0, [rsi]; vzeroupper; ret
        assert_eq!(vectors(&[0xc5, 0xfe, 0x6f, 0x06, 0xc5, 0xf8, 0x77, 0xc3]), Vectors::Avx);
        // vmovdqu64 ymm16, [rsi]; vmovdqu64 zmm16, [rsi]
        assert_eq!(vectors(&[0x62, 0xe1, 0xfe, 0x28, 0x6f, 0x06]), Vectors::Evex);
        assert_eq!(vectors(&[0x62, 0xe1, 0xfe, 0x48, 0x6f, 0x06]), Vectors::Avx512);
        // pcmpistri xmm0, [rdi], 0x1a
        assert_eq!(vectors(&[0x66, 0x0f, 0x3a, 0x63, 0x07, 0x1a, 0xc3]), Vectors::Sse42);
        // rep movsq; ret
        assert_eq!(vectors(&[0xf3, 0x48, 0xa5, 0xc3]), Vectors::Rep);
        assert_eq!(vectors(&[0x31, 0xc0, 0xc3]), Vectors::None);
    }

    #[test]
    fn bytes_that_look_like_vectors_inside_a_constant_do_not_count() {
        // mov eax, 0x6f7ffec5; ret
        assert_eq!(vectors(&[0xb8, 0xc5, 0xfe, 0x7f, 0x6f, 0xc3]), Vectors::None);
        // mov rax, [rip + 0x62f16248]; ret
        assert_eq!(vectors(&[0x48, 0x8b, 0x05, 0x48, 0x62, 0xf1, 0x62, 0xc3]), Vectors::None);
    }

    #[test]
    fn bmi_instructions_are_no_vectors() {
        // bzhi eax, eax, edx (VEX.LZ.0F38 F5)
        assert_eq!(vectors(&[0xc4, 0xe2, 0x68, 0xf5, 0xc0, 0xc3]), Vectors::None);
    }

    #[test]
    fn what_follows_a_scalar_function_is_not_part_of_it() {
        assert_eq!(vectors(&[0x31, 0xc0, 0xc3, 0xc5, 0xfe, 0x6f, 0x06]), Vectors::None);
    }

    #[test]
    fn erms_is_the_comparison_with_a_threshold_where_the_first_ja_leads() {
        let mut code = vec![0x77, 0x02, 0xc3, 0x90];
        code.extend([0x48, 0x3b, 0x15, 1, 2, 3, 4]);
        assert!(classify(&code).erms);
        code[4..].copy_from_slice(&[0x48, 0x81, 0xfa, 0, 16, 0, 0]);
        assert!(classify(&code).erms, "4096, glibc 2.31");
        code[4..].copy_from_slice(&[0x48, 0x81, 0xfa, 0, 1, 0, 0]);
        assert!(!classify(&code).erms, "eight vectors of 32 bytes");
        assert!(!classify(&[0x77, 0x7f, 0xc3]).erms, "a branch that leaves the window");
    }

    #[test]
    fn no_bytes_make_it_panic_or_loop() {
        let mut seed = 1u32;
        for _ in 0..20_000 {
            let code: Vec<u8> = (0..40)
                .map(|_| {
                    seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    (seed >> 24) as u8
                })
                .collect();
            classify(&code);
        }
    }
}

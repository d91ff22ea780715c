//! What the first bytes of a program or library say about where it can run.
//!
//! In: bytes nobody trusts. Out: facts, or nothing. The `object` crate does the parsing, on a bounded prefix of the file.

use object::elf::{self, FileHeader32, FileHeader64};
use object::read::elf::{FileHeader, ProgramHeader};
use object::{Endianness, FileKind};

/// As much of a file as is looked at: program headers and notes come first in every linker's output.
pub const PREFIX: u64 = 64 * 1024;

/// A program or library.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Elf {
    /// OCI's name of the architecture.
    pub architecture: String,
    /// The loader it asks for.
    pub interpreter: Option<String>,
    /// The oldest kernel it accepts (`NT_GNU_ABI_TAG`), read by glibc's loader until 2.37.
    pub min_kernel: Option<(u32, u32, u32)>,
    /// The x86-64 level it needs, 1 to 4 (`GNU_PROPERTY_X86_ISA_1_NEEDED`), enforced by glibc's loader since 2.33.
    pub isa_level: Option<u32>,
    /// Whether it asks for an executable stack, which newer loaders and some LSMs refuse.
    pub executable_stack: bool,
}

/// Looks at the first bytes of a file.
pub fn look(bytes: &[u8]) -> Option<Elf> {
    match FileKind::parse(bytes).ok()? {
        FileKind::Elf64 => parse::<FileHeader64<Endianness>>(bytes, true),
        FileKind::Elf32 => parse::<FileHeader32<Endianness>>(bytes, false),
        _ => None,
    }
}

/// As many notes of one file as are looked at.
const MAX_NOTES: usize = 64;

fn parse<H: FileHeader<Endian = Endianness>>(bytes: &[u8], wide: bool) -> Option<Elf> {
    let header = H::parse(bytes).ok()?;
    let endian = header.endian().ok()?;
    let little = endian == Endianness::Little;
    let mut found = Elf { architecture: architecture(header.e_machine(endian), wide, little), ..Elf::default() };
    let mut stack = None;
    for segment in header.program_headers(endian, bytes).ok()? {
        match segment.p_type(endian) {
            elf::PT_INTERP => {
                let path = segment.interpreter(endian, bytes).ok().flatten().unwrap_or_default();
                let path = std::str::from_utf8(path).unwrap_or_default();
                if path.starts_with('/') && path.len() < 256 && !path.contains(|c: char| c.is_control()) {
                    found.interpreter = Some(path.to_owned());
                }
            }
            elf::PT_GNU_STACK => stack = Some(segment.p_flags(endian)),
            elf::PT_NOTE => {
                let Ok(Some(mut notes)) = segment.notes(endian, bytes) else { continue };
                for _ in 0..MAX_NOTES {
                    let Ok(Some(note)) = notes.next() else { break };
                    if note.name() != elf::ELF_NOTE_GNU {
                        continue;
                    }
                    if note.n_type(endian) == elf::NT_GNU_ABI_TAG {
                        found.min_kernel = abi_tag(note.desc(), little).or(found.min_kernel);
                    }
                    let Some(mut properties) = note.gnu_properties(endian) else { continue };
                    for _ in 0..MAX_NOTES {
                        let Ok(Some(property)) = properties.next() else { break };
                        if property.pr_type() == elf::GNU_PROPERTY_X86_ISA_1_NEEDED {
                            let bits = property.data_u32(endian).unwrap_or(0) & 0xf;
                            found.isa_level = (bits != 0).then(|| u32::BITS - bits.leading_zeros());
                        }
                    }
                }
            }
            _ => {}
        }
    }
    // Without the header the ABI's default counts, and on x86 that is executable.
    let x86 = matches!(found.architecture.as_str(), "amd64" | "386");
    found.executable_stack = stack.map_or(x86 && found.interpreter.is_some(), |flags| flags.0 & elf::PF_X.0 != 0);
    Some(found)
}

/// Four words: 0 for Linux, then the version.
fn abi_tag(words: &[u8], little: bool) -> Option<(u32, u32, u32)> {
    let word = |at: usize| {
        let bytes: [u8; 4] = words.get(4 * at..4 * at + 4)?.try_into().ok()?;
        Some(if little { u32::from_le_bytes(bytes) } else { u32::from_be_bytes(bytes) })
    };
    (word(0)? == 0).then_some((word(1)?, word(2)?, word(3)?))
}

fn architecture(machine: elf::Machine, wide: bool, little: bool) -> String {
    let name = match (machine, wide, little) {
        (elf::EM_X86_64, true, _) => "amd64",
        (elf::EM_X86_64, false, _) => "x32",
        (elf::EM_386, ..) => "386",
        (elf::EM_AARCH64, _, true) => "arm64",
        (elf::EM_ARM, ..) => "arm",
        (elf::EM_PPC64, _, true) => "ppc64le",
        (elf::EM_PPC64, _, false) => "ppc64",
        (elf::EM_S390, true, _) => "s390x",
        (elf::EM_RISCV, true, _) => "riscv64",
        (elf::EM_LOONGARCH, true, _) => "loong64",
        (elf::EM_MIPS, true, true) => "mips64le",
        (elf::EM_MIPS, true, false) => "mips64",
        (elf::EM_MIPS, false, true) => "mipsle",
        (elf::EM_MIPS, false, false) => "mips",
        _ => return format!("elf-machine-{}", machine.0),
    };
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An ELF file for x86-64 with these program headers: type, flags, content.
    fn program(segments: &[(elf::ProgramType, u32, &[u8])]) -> Vec<u8> {
        let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
        file.extend([3u16, 62].iter().flat_map(|n| n.to_le_bytes()));
        file.extend(1u32.to_le_bytes());
        file.extend([0u64, 64, 0].iter().flat_map(|n| n.to_le_bytes()));
        file.extend(0u32.to_le_bytes());
        file.extend([64u16, 56, segments.len() as u16, 64, 0, 0].iter().flat_map(|n| n.to_le_bytes()));
        let mut at = 64 + 56 * segments.len() as u64;
        for (kind, flags, content) in segments {
            file.extend([kind.0, *flags].iter().flat_map(|n| n.to_le_bytes()));
            let size = content.len() as u64;
            file.extend([at, at, at, size, size, 8].iter().flat_map(|n| n.to_le_bytes()));
            at += size;
        }
        segments.iter().for_each(|(_, _, content)| file.extend(*content));
        file
    }

    fn note(kind: u32, content: &[u8]) -> Vec<u8> {
        let mut note: Vec<u8> = [4u32, content.len() as u32, kind].iter().flat_map(|n| n.to_le_bytes()).collect();
        note.extend(b"GNU\0");
        note.extend(content);
        note
    }

    #[test]
    fn the_loader_the_kernel_and_the_level_are_read_from_the_headers() {
        let abi: Vec<u8> = [0u32, 4, 11, 0].iter().flat_map(|n| n.to_le_bytes()).collect();
        let isa: Vec<u8> = [0xc000_8002u32, 4, 0b110, 0].iter().flat_map(|n| n.to_le_bytes()).collect();
        let (abi, isa) = (note(1, &abi), note(5, &isa));
        let file = program(&[
            (elf::PT_INTERP, 4, b"/lib64/ld-linux-x86-64.so.2\0\0\0\0\0"),
            (elf::PT_NOTE, 4, &abi),
            (elf::PT_NOTE, 4, &isa),
            (elf::PT_GNU_STACK, 7, b""),
        ]);
        let found = look(&file).unwrap();
        assert_eq!(found.architecture, "amd64");
        assert_eq!(found.interpreter.as_deref(), Some("/lib64/ld-linux-x86-64.so.2"));
        assert_eq!(found.min_kernel, Some((4, 11, 0)));
        assert_eq!(found.isa_level, Some(3));
        assert!(found.executable_stack);
        assert!(!look(&program(&[(elf::PT_GNU_STACK, 6, b"")])).unwrap().executable_stack);
    }

    #[test]
    fn any_cut_or_flipped_byte_is_survived() {
        let abi = note(1, &[0; 16]);
        let file = program(&[(elf::PT_INTERP, 4, b"/lib/ld.so\0"), (elf::PT_NOTE, 4, &abi)]);
        for at in 0..file.len() {
            drop(look(&file[..at]));
            for value in [0, 0x7f, 0x80, 0xff] {
                let mut broken = file.clone();
                broken[at] = value;
                drop(look(&broken));
            }
        }
    }

    #[test]
    fn a_loader_that_is_no_absolute_path_is_not_believed() {
        let file = program(&[(elf::PT_INTERP, 4, b"../../bin/sh\0")]);
        assert_eq!(look(&file).unwrap().interpreter, None);
    }
}

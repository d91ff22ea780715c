//! A program small enough to be made on the spot, and whether something executes it.
//!
//! Goes in: how to execute it. Comes out: whether it ran. Must not know: which system call is asked.

use super::{Does, Twin, at, no, value};
use crate::check::Saw;

/// The smallest program: an ELF file of one page that exits with status 7.
#[cfg(target_arch = "x86_64")]
const MACHINE: (u8, [u8; 12]) = (62, [0xbf, 7, 0, 0, 0, 0xb8, 60, 0, 0, 0, 0x0f, 5]); // mov edi,7; mov eax,60; syscall
#[cfg(target_arch = "aarch64")]
const MACHINE: (u8, [u8; 12]) = (183, [0xe0, 0, 0x80, 0xd2, 0xa8, 0x0b, 0x80, 0xd2, 1, 0, 0, 0xd4]); // mov x0,7; mov x8,93; svc

/// That program, as elf(5) lays it out: header, one program header, twelve bytes of code.
pub fn tiny_program() -> [u8; 132] {
    let mut elf = [0; 132];
    let mut put = |at: usize, bytes: &[u8]| elf[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"\x7fELF\x02\x01\x01");
    put(16, &[2, 0, MACHINE.0, 0, 1]);
    put(24, &0x40_0078u64.to_le_bytes());
    put(32, &[64]);
    put(52, &[64, 0, 56, 0, 1]);
    put(64, &[1, 0, 0, 0, 5]);
    put(80, &0x40_0000u64.to_le_bytes());
    put(96, &[132]);
    put(104, &[132]);
    put(112, &0x1_0000u64.to_le_bytes());
    put(120, &MACHINE.1);
    elf
}

/// Whether what `start` executes in a child exits with status 7. `start` returns the errno of its execve.
pub fn executes(step: &'static str, start: &mut dyn FnMut() -> Result<usize, i32>) -> Does {
    let status = Twin::start(&mut || 100 + start().err().unwrap_or(0).min(140))?.wait()?;
    match (status & 0x7f, status >> 8 & 0xff) {
        (0, 7) => Ok(()),
        (0, errno @ 101..) => Err(at(step, errno - 100)),
        (0, other) => Err(value(format_args!("exited with {other}, not 7"))),
        (signal, _) => Err(no(Saw::Signal(signal))),
    }
}

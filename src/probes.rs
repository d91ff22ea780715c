//! The probes as bytes, as `build.rs` made them.
//!
//! Goes in: nothing. Comes out: four programs and their digests. Must not know: who runs them, or where.

/// The kernel probe and supervisor: static, runs in any cell of this architecture.
pub const KERNEL: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/kernel"));

/// The surroundings probe: static, started by the kernel probe.
pub const SURROUNDINGS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/surroundings"));

/// The libc probe, to be run by the image's own loader. Empty where this architecture has none yet.
pub const LIBC: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/libc"));

/// The launcher of the built-in engine: static.
pub const LAUNCH: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/launch"));

/// The digest under which a run records the probe it used.
pub fn digest(probe: &[u8]) -> String {
    blake3::hash(probe).to_hex().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_probes_are_elf_programs_of_modest_size() {
        for (name, probe) in [("kernel", KERNEL), ("surroundings", SURROUNDINGS), ("libc", LIBC), ("launch", LAUNCH)] {
            let none_yet = name == "libc" && cfg!(not(target_arch = "x86_64"));
            assert!(probe.starts_with(b"\x7fELF") || none_yet, "{name}");
            assert!(probe.len() <= 160 * 1024, "{name} has {} bytes", probe.len());
        }
    }

    #[test]
    fn each_probe_has_a_digest_of_its_own() {
        assert_ne!(digest(KERNEL), digest(b""));
        assert_eq!(digest(KERNEL).len(), 64);
    }
}

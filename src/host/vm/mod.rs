//! Virtual machines that abicus starts itself, by QEMU.
//!
//! In: a [`VmSpec`](crate::spec::VmSpec). Out: a kernel to run cells on. Kernels and disks are made from a distribution's
//! packages and kept in the cache.

pub mod disk;
pub mod ext4;
pub mod kernel;
pub mod shelf;

use crate::fault::{Fault, Phase};

/// What hosts of this kind come to before they can be booted.
pub(crate) fn not_yet() -> Fault {
    Fault::new(Phase::Host, "this version of abicus builds virtual machines, and does not boot them yet")
}

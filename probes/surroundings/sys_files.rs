//! /sys as images expect it, and what engines mask of it.
//!
//! Goes in: nothing. Comes out: answers. Must not know: which answers are good.

use super::look::*;
use super::said::*;

asked![
    Batch "sys.root.readonly" => || read_only(c"/sys"),
];

/// Rows of `table.rs`.
pub const ROWS: &str = r"
sys.mounted mounted /sys 62656572
sys.readonly written /sys/kernel/uevent_helper
sys.block masked /sys/block
sys.bus.pci masked /sys/bus/pci/devices
sys.class.block masked /sys/class/block
sys.class.dmi masked /sys/class/dmi/id/product_name
sys.class.drm masked /sys/class/drm
sys.class.hwmon masked /sys/class/hwmon
sys.class.infiniband masked /sys/class/infiniband
sys.class.net lists /sys/class/net lo
sys.class.net.mtu says /sys/class/net/lo/mtu
sys.class.power_supply masked /sys/class/power_supply
sys.class.thermal masked /sys/class/thermal
sys.class.tty masked /sys/class/tty
sys.cpu.cache reads /sys/devices/system/cpu/cpu0/cache/index0/size
sys.cpu.frequency masked /sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq
sys.cpu.isolated says /sys/devices/system/cpu/isolated
sys.cpu.online says /sys/devices/system/cpu/online
sys.cpu.possible says /sys/devices/system/cpu/possible
sys.cpu.present says /sys/devices/system/cpu/present
sys.cpu.topology reads /sys/devices/system/cpu/cpu0/topology/core_id
sys.cpu.vulnerabilities masked /sys/devices/system/cpu/vulnerabilities
sys.dev.char masked /sys/dev/char
sys.devices.pci masked /sys/devices/pci0000:00
sys.firmware masked /sys/firmware
sys.firmware.efi masked /sys/firmware/efi
sys.fs.bpf masked /sys/fs/bpf
sys.fs.fuse masked /sys/fs/fuse/connections
sys.fs.selinux masked /sys/fs/selinux
sys.hypervisor masked /sys/hypervisor
sys.kernel.btf reads /sys/kernel/btf/vmlinux
sys.kernel.debug masked /sys/kernel/debug
sys.kernel.hugepages masked /sys/kernel/mm/hugepages
sys.kernel.ksm says /sys/kernel/mm/ksm/run
sys.kernel.lru_gen says /sys/kernel/mm/lru_gen/enabled
sys.kernel.security masked /sys/kernel/security
sys.kernel.slab masked /sys/kernel/slab
sys.kernel.thp.defrag says /sys/kernel/mm/transparent_hugepage/defrag
sys.kernel.thp.enabled says /sys/kernel/mm/transparent_hugepage/enabled
sys.kernel.thp.size says /sys/kernel/mm/transparent_hugepage/hpage_pmd_size
sys.kernel.thp.shmem says /sys/kernel/mm/transparent_hugepage/shmem_enabled
sys.kernel.tracing masked /sys/kernel/tracing
sys.kernel.vmcoreinfo masked /sys/kernel/vmcoreinfo
sys.module masked /sys/module
sys.node starts /sys/devices/system/node/node0/meminfo Node 0 MemTotal:
sys.node.online says /sys/devices/system/node/online
sys.power masked /sys/power
sys.powercap masked /sys/devices/virtual/powercap
sys.thermal_throttle masked /sys/devices/system/cpu/cpu0/thermal_throttle
";

/// How the file system is mounted, by statfs(2).
fn read_only(path: &core::ffi::CStr) -> Does {
    let (_, flags) = file_system(path)?;
    Err(word(if flags & 1 == 1 { "read-only" } else { "writable" }))
}

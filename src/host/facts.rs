//! What a host's kernel and hardware are: its fingerprint, the same facts however the host is reached.
//!
//! In: a way to reach the host. Out: facts, nothing volatile among them; what this user may not read is left out. Must not
//! know: which engines run there.

use std::collections::BTreeSet;
use std::io::Read;

use futures_util::future::join_all;

use super::reach::{Reach, Site, text};
use crate::engine::Facts;
use crate::fault::Fault;

/// The fingerprint of a host. Connects where that has not happened.
pub async fn facts(reach: &dyn Reach) -> Result<Facts, Fault> {
    let site = reach.site().await?;
    let mut facts = Facts::new();
    facts.insert("kernel.release".into(), site.kernel_release.clone());
    facts.insert("kernel.version".into(), site.kernel_version.clone());
    facts.insert("arch".into(), site.machine.clone());
    facts.insert("cpu.count".into(), site.cpus.to_string());
    if site.page_size > 0 {
        facts.insert("page.size".into(), site.page_size.to_string());
    }
    let files = files(reach, FILES).await;
    let mounts = text(reach, "/proc/self/mounts").await;
    let said = [cpu(&text(reach, "/proc/cpuinfo").await), os(reach).await, mitigations(reach).await];
    facts.extend(files.into_iter().chain(said.into_iter().flatten()));
    if let Some(source) = facts.get_mut("clocksource") {
        *source = settled(source).to_owned();
    }
    if !mounts.is_empty() {
        facts.insert("cgroup".into(), cgroup(&mounts).to_owned());
        facts.insert("root.type".into(), mounted(&mounts, "/").unwrap_or_default().to_owned());
    }
    if let Some(total) = meminfo_total(&text(reach, "/proc/meminfo").await) {
        facts.insert("memory.gib".into(), total);
    }
    if let Some(loader) = loader(reach).await {
        facts.insert("os.loader".into(), loader.to_owned());
    }
    if facts.get("hypervisor").is_some_and(|is| is == "yes")
        && let Some(name) = hypervisor(reach).await
    {
        facts.insert("hypervisor".into(), name);
    }
    facts.extend(config(reach, &site).await);
    facts.extend(modules(reach, &site).await);
    // A connection that broke on the way left facts out without a word.
    reach.site().await?;
    facts.extend(reach.facts());
    facts.retain(|_, value| !value.is_empty());
    Ok(facts)
}

/// Facts that are the text of one file: sysctls that decide whether programs work, and what the kernel says of itself.
const FILES: &[(&str, &str)] = &[
    ("kernel.cmdline", "/proc/cmdline"),
    ("kernel.tainted", "/proc/sys/kernel/tainted"),
    ("kernel.lsm", "/sys/kernel/security/lsm"),
    ("kernel.lockdown", "/sys/kernel/security/lockdown"),
    ("kernel.thp", "/sys/kernel/mm/transparent_hugepage/enabled"),
    ("selinux.enforce", "/sys/fs/selinux/enforce"),
    ("apparmor", "/sys/module/apparmor/parameters/enabled"),
    ("clocksource", "/sys/devices/system/clocksource/clocksource0/current_clocksource"),
    ("cpu.smt", "/sys/devices/system/cpu/smt/control"),
    ("sysctl.kernel.unprivileged_userns_clone", "/proc/sys/kernel/unprivileged_userns_clone"),
    ("sysctl.kernel.apparmor_restrict_unprivileged_userns", "/proc/sys/kernel/apparmor_restrict_unprivileged_userns"),
    ("sysctl.kernel.io_uring_disabled", "/proc/sys/kernel/io_uring_disabled"),
    ("sysctl.kernel.unprivileged_bpf_disabled", "/proc/sys/kernel/unprivileged_bpf_disabled"),
    ("sysctl.kernel.perf_event_paranoid", "/proc/sys/kernel/perf_event_paranoid"),
    ("sysctl.kernel.yama.ptrace_scope", "/proc/sys/kernel/yama/ptrace_scope"),
    ("sysctl.kernel.randomize_va_space", "/proc/sys/kernel/randomize_va_space"),
    ("sysctl.kernel.core_pattern", "/proc/sys/kernel/core_pattern"),
    ("sysctl.kernel.pid_max", "/proc/sys/kernel/pid_max"),
    ("sysctl.kernel.keys.maxkeys", "/proc/sys/kernel/keys/maxkeys"),
    ("sysctl.fs.protected_regular", "/proc/sys/fs/protected_regular"),
    ("sysctl.fs.inotify.max_user_instances", "/proc/sys/fs/inotify/max_user_instances"),
    ("sysctl.fs.nr_open", "/proc/sys/fs/nr_open"),
    ("sysctl.vm.max_map_count", "/proc/sys/vm/max_map_count"),
    ("sysctl.vm.mmap_min_addr", "/proc/sys/vm/mmap_min_addr"),
    ("sysctl.vm.overcommit_memory", "/proc/sys/vm/overcommit_memory"),
    ("sysctl.vm.unprivileged_userfaultfd", "/proc/sys/vm/unprivileged_userfaultfd"),
    ("sysctl.user.max_user_namespaces", "/proc/sys/user/max_user_namespaces"),
    ("sysctl.net.ipv6.conf.all.disable_ipv6", "/proc/sys/net/ipv6/conf/all/disable_ipv6"),
    ("sysctl.net.ipv4.ip_unprivileged_port_start", "/proc/sys/net/ipv4/ip_unprivileged_port_start"),
];

async fn files(reach: &dyn Reach, files: &[(&str, &str)]) -> Vec<(String, String)> {
    let read = files.iter().map(|(name, path)| async move {
        let text = text(reach, path).await;
        ((*name).to_owned(), text.trim().to_owned())
    });
    join_all(read).await
}

/// The kernel calls the TSC `tsc-early` until it has measured it against another clock, up to a second after it booted
/// (arch/x86/kernel/tsc.c): how long ago that was is no property of a host.
fn settled(clocksource: &str) -> &str {
    clocksource.strip_suffix("-early").unwrap_or(clocksource)
}

fn cpu(cpuinfo: &str) -> Vec<(String, String)> {
    let field = |name: &str| {
        let line = cpuinfo.lines().find(|line| line.split(':').next().is_some_and(|key| key.trim() == name))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let flags = field("flags").or_else(|| field("Features")).unwrap_or_default();
    let mut sorted: Vec<&str> = flags.split_whitespace().collect();
    sorted.sort_unstable();
    let virtual_machine = if sorted.contains(&"hypervisor") { "yes" } else { "no" };
    [
        ("cpu.vendor", field("vendor_id").or_else(|| field("CPU implementer"))),
        ("cpu.model", field("model name").or_else(|| field("CPU part"))),
        ("cpu.microcode", field("microcode")),
        ("cpu.flags", Some(sorted.join(" "))),
        ("hypervisor", (!cpuinfo.is_empty()).then(|| virtual_machine.to_owned())),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name.to_owned(), value?)))
    .collect()
}

/// What the firmware calls the machine, where that is the name of a hypervisor.
async fn hypervisor(reach: &dyn Reach) -> Option<String> {
    const KNOWN: [(&str, &str); 11] = [
        ("qemu", "qemu"),
        ("kvm", "kvm"),
        ("vmware", "vmware"),
        ("virtualbox", "virtualbox"),
        ("innotek", "virtualbox"),
        ("microsoft", "hyper-v"),
        ("xen", "xen"),
        ("amazon ec2", "aws"),
        ("google", "google"),
        ("parallels", "parallels"),
        ("bochs", "bochs"),
    ];
    let mut said = text(reach, "/sys/hypervisor/type").await;
    for name in ["sys_vendor", "product_name", "bios_vendor"] {
        said += &text(reach, &format!("/sys/class/dmi/id/{name}")).await.to_lowercase();
    }
    KNOWN.iter().find(|(word, _)| said.contains(word)).map(|(_, name)| (*name).to_owned())
}

async fn os(reach: &dyn Reach) -> Vec<(String, String)> {
    let mut release = text(reach, "/etc/os-release").await;
    if release.is_empty() {
        release = text(reach, "/usr/lib/os-release").await;
    }
    let field = |key: &str| {
        let line = release.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='))?;
        Some(line.trim_matches(['"', '\'']).to_owned())
    };
    [("os.id", "ID"), ("os.version", "VERSION_ID"), ("os.name", "PRETTY_NAME")]
        .into_iter()
        .filter_map(|(name, key)| Some((name.to_owned(), field(key)?)))
        .collect()
}

/// What the kernel does about the CPU's known weaknesses: it costs speed, and some of it takes features away.
async fn mitigations(reach: &dyn Reach) -> Vec<(String, String)> {
    const DIR: &str = "/sys/devices/system/cpu/vulnerabilities";
    const MOST: usize = 100;
    let names = reach.list(DIR).await.unwrap_or_default();
    let paths: Vec<(String, String)> =
        names.into_iter().take(MOST).map(|(name, _)| (format!("mitigation.{name}"), format!("{DIR}/{name}"))).collect();
    let pairs: Vec<(&str, &str)> = paths.iter().map(|(name, path)| (name.as_str(), path.as_str())).collect();
    files(reach, &pairs).await
}

/// The type of the file system that is mounted there: proc_pid_mounts(5).
fn mounted<'a>(mounts: &'a str, path: &str) -> Option<&'a str> {
    mounts.lines().rev().find_map(|line| {
        let mut fields = line.split(' ').skip(1);
        (fields.next()? == path).then(|| fields.next().unwrap_or_default())
    })
}

/// `v1`, `v2` or `hybrid`, as systemd tells them apart: cgroups(7).
fn cgroup(mounts: &str) -> &'static str {
    let at = |path: &str| mounted(mounts, path);
    match at("/sys/fs/cgroup") {
        Some("cgroup2") => "v2",
        Some(_) if at("/sys/fs/cgroup/unified") == Some("cgroup2") => "hybrid",
        Some(_) => "v1",
        None => "none",
    }
}

/// Total memory rounded to GiB: what is left after the kernel took its share differs from boot to boot.
fn meminfo_total(text: &str) -> Option<String> {
    let line = text.lines().find(|line| line.starts_with("MemTotal:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(gib(kib))
}

pub(super) fn gib(kib: u64) -> String {
    (kib.saturating_add(1 << 19) >> 20).to_string()
}

/// The loader that runs the host's own dynamic programs, for the libc probe without an image.
pub async fn loader(reach: &dyn Reach) -> Option<&'static str> {
    let known: [&str; 4] = match std::env::consts::ARCH {
        "x86_64" => [
            "/lib64/ld-linux-x86-64.so.2",
            "/lib/ld-musl-x86_64.so.1",
            "/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2",
            "/lib/ld-linux-x86-64.so.2",
        ],
        _ => [
            "/lib/ld-linux-aarch64.so.1",
            "/lib/ld-musl-aarch64.so.1",
            "/lib64/ld-linux-aarch64.so.1",
            "/lib/aarch64-linux-gnu/ld-linux-aarch64.so.1",
        ],
    };
    for path in known {
        if reach.stat(path).await.is_ok() {
            return Some(path);
        }
    }
    None
}

/// Options of the kernel's configuration that decide what programs and containers can do.
const CONFIG: &[&str] = &[
    "AIO",
    "BINFMT_MISC",
    "BPF_SYSCALL",
    "BPF_UNPRIV_DEFAULT_OFF",
    "CFS_BANDWIDTH",
    "CGROUPS",
    "CGROUP_DEVICE",
    "CGROUP_PIDS",
    "CHECKPOINT_RESTORE",
    "COMPAT",
    "COMPAT_32BIT_TIME",
    "CROSS_MEMORY_ATTACH",
    "DEVTMPFS",
    "FANOTIFY",
    "FHANDLE",
    "FUSE_FS",
    "HZ",
    "IA32_EMULATION",
    "IA32_EMULATION_DEFAULT_DISABLED",
    "INET_DIAG",
    "IO_URING",
    "IPC_NS",
    "IPV6",
    "KCMP",
    "KEYS",
    "LEGACY_VSYSCALL_EMULATE",
    "LEGACY_VSYSCALL_NONE",
    "LEGACY_VSYSCALL_XONLY",
    "LSM",
    "MEMBARRIER",
    "MEMCG",
    "MODIFY_LDT_SYSCALL",
    "NET_NS",
    "NUMA",
    "OVERLAY_FS",
    "PID_NS",
    "POSIX_MQUEUE",
    "PREEMPT_RT",
    "PROC_CHILDREN",
    "PROC_KCORE",
    "RSEQ",
    "SECCOMP_FILTER",
    "SECRETMEM",
    "SECURITY_LANDLOCK",
    "SQUASHFS",
    "STRICT_DEVMEM",
    "SYSVIPC",
    "SYSVIPC_COMPAT",
    "TIME_NS",
    "TMPFS_XATTR",
    "TRANSPARENT_HUGEPAGE",
    "UNIX",
    "USERFAULTFD",
    "USER_NS",
    "UTS_NS",
    "X86_16BIT",
    "X86_IOPL_IOPERM",
    "X86_KERNEL_IBT",
    "X86_USER_SHADOW_STACK",
    "X86_VSYSCALL_EMULATION",
    "X86_X32",
    "X86_X32_ABI",
];

/// The kernel's configuration, where it or its distribution tells it. An option that is not set is `n`.
async fn config(reach: &dyn Reach, site: &Site) -> Vec<(String, String)> {
    /// Distributions' have a quarter of a megabyte.
    const MOST: u64 = 1 << 20;
    let packed = reach.read("/proc/config.gz", MOST as usize).await.unwrap_or_default();
    let mut text_of = String::new();
    let unpacked = flate2::read::GzDecoder::new(&packed[..]).take(MOST).read_to_string(&mut text_of);
    if unpacked.is_err() || text_of.is_empty() {
        text_of = text(reach, &format!("/boot/config-{}", site.kernel_release)).await;
    }
    if text_of.is_empty() {
        text_of = text(reach, &format!("/lib/modules/{}/config", site.kernel_release)).await;
    }
    options(&text_of)
}

pub(super) fn options(config: &str) -> Vec<(String, String)> {
    if !config.contains("CONFIG_") {
        return vec![];
    }
    let set: std::collections::BTreeMap<&str, &str> =
        config.lines().filter_map(|line| line.strip_prefix("CONFIG_")?.split_once('=')).collect();
    let value = |name: &&str| set.get(*name).map_or("n", |value| value.trim_matches('"')).to_owned();
    CONFIG.iter().map(|name| (format!("config.{name}"), value(name))).collect()
}

/// Modules that containers ask for, and where a kernel tree keeps them. Whether one is loaded right now is volatile; whether
/// it can be is not.
const MODULES: [(&str, &str); 8] = [
    ("overlay", "fs/overlayfs"),
    ("fuse", "fs/fuse"),
    ("squashfs", "fs/squashfs"),
    ("br_netfilter", "net/bridge"),
    ("nf_tables", "net/netfilter"),
    ("ip_tables", "net/ipv4/netfilter"),
    ("tun", "drivers/net"),
    ("kvm", "arch/x86/kvm"),
];

async fn modules(reach: &dyn Reach, site: &Site) -> Vec<(String, String)> {
    let dir = format!("/lib/modules/{}", site.kernel_release);
    let built_in = text(reach, &format!("{dir}/modules.builtin")).await;
    if built_in.is_empty() {
        return vec![];
    }
    let built_in: BTreeSet<&str> =
        built_in.lines().filter_map(|line| line.rsplit('/').next()?.strip_suffix(".ko")).collect();
    let mut found = vec![];
    for (name, place) in MODULES {
        let state = if built_in.contains(name) {
            "built-in"
        } else {
            let paths = ["", ".xz", ".zst", ".gz"].map(|end| format!("{dir}/kernel/{place}/{name}.ko{end}"));
            let there = join_all(paths.iter().map(|path| reach.stat(path))).await;
            if there.iter().any(Result::is_ok) { "module" } else { "absent" }
        };
        found.push((format!("module.{name}"), state.to_owned()));
    }
    found
}

/// The class of a host: equal for hosts whose facts are equal in everything that can matter to a program. Where a kernel was
/// loaded from, which disk is the root and how a console is called cannot.
pub fn class(facts: &Facts) -> String {
    let mut hasher = blake3::Hasher::new();
    // What people call a host does not matter to a program, and one warning in the log taints a kernel.
    let matter = |name: &str| !name.starts_with("label.") && name != "kernel.tainted";
    for (name, value) in facts.iter().filter(|(name, _)| matter(name)) {
        let value = if name == "kernel.cmdline" { words_that_matter(value).join(" ") } else { value.clone() };
        for part in [name.as_str(), value.as_str()] {
            hasher.update(&(part.len() as u64).to_le_bytes()).update(part.as_bytes());
        }
    }
    hasher.finalize().to_hex()[..16].to_owned()
}

/// The words of a kernel's command line that can matter to a program.
pub fn words_that_matter(cmdline: &str) -> Vec<&str> {
    const OF_THE_MACHINE: [&str; 14] = [
        "BOOT_IMAGE",
        "root",
        "rootflags",
        "rootfstype",
        "initrd",
        "resume",
        "resume_offset",
        "console",
        "ip",
        "ro",
        "rw",
        "quiet",
        "splash",
        "crashkernel",
    ];
    let key = |word: &str| word.split('=').next().unwrap_or_default().to_owned();
    // What abicus tells its own machines, they are told as facts.
    let matters = |word: &&str| !OF_THE_MACHINE.contains(&key(word).as_str()) && !word.starts_with("abicus.");
    cmdline.split_whitespace().filter(matters).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Local;

    #[tokio::test]
    async fn the_facts_of_this_machine_do_not_change_between_two_looks() {
        let work = tempfile::tempdir().unwrap();
        let local = Local::at(work.path());
        let first = facts(&local).await.unwrap();
        assert_eq!(first, facts(&local).await.unwrap());
        for name in ["kernel.release", "arch", "cgroup", "page.size", "cpu.count", "os.loader"] {
            assert!(first.contains_key(name), "no {name}");
        }
        assert!(first.values().all(|value| !value.is_empty()), "{first:?}");
    }

    #[test]
    fn a_clock_that_is_not_measured_yet_is_the_same_clock() {
        assert_eq!(settled("tsc-early"), "tsc");
        assert_eq!(settled("acpi_pm"), "acpi_pm");
    }

    #[test]
    fn memory_is_rounded_to_gib() {
        assert_eq!(meminfo_total("MemTotal:       24683452 kB\n"), Some("24".to_owned()));
    }

    #[test]
    fn an_option_that_is_not_set_is_n_and_a_configuration_that_cannot_be_read_says_nothing() {
        let facts = options("# a comment\nCONFIG_USER_NS=y\n# CONFIG_X86_X32_ABI is not set\nCONFIG_LSM=\"a,b\"\n");
        let value = |name: &str| facts.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
        assert_eq!(value("config.USER_NS"), Some("y"));
        assert_eq!(value("config.X86_X32_ABI"), Some("n"));
        assert_eq!(value("config.LSM"), Some("a,b"));
        assert!(options("").is_empty() && options("\u{fffd}PNG").is_empty());
    }

    #[test]
    fn two_machines_with_other_disks_are_of_one_class_and_with_another_vsyscall_they_are_not() {
        let host = |cmdline: &str| Facts::from([("kernel.cmdline".to_owned(), cmdline.to_owned())]);
        let class = |cmdline: &str| class(&host(cmdline));
        assert_eq!(
            class("BOOT_IMAGE=/a root=UUID=1 ro console=ttyS0"),
            class("BOOT_IMAGE=/b root=/dev/sda1 abicus.root=1")
        );
        assert_ne!(class("root=/dev/sda1"), class("root=/dev/sda1 vsyscall=none"));
        // A label is a word of people's, and a warning in the log is an accident.
        let plain = host("root=/dev/sda1");
        for (name, value) in [("label.site", "lab"), ("kernel.tainted", "512")] {
            let other = Facts::from([(name.to_owned(), value.to_owned())]);
            assert_eq!(self::class(&plain), self::class(&plain.clone().into_iter().chain(other).collect()), "{name}");
        }
    }

    #[test]
    fn cgroup_modes_are_told_apart_by_what_is_mounted() {
        assert_eq!(cgroup("cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n"), "v2");
        let v1 = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\n";
        assert_eq!(cgroup(v1), "v1");
        assert_eq!(cgroup(&format!("{v1}cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n")), "hybrid");
        assert_eq!(cgroup(""), "none");
        assert_eq!(mounted("rootfs / rootfs rw 0 0\n/dev/vda / ext4 rw 0 0\n", "/"), Some("ext4"));
    }
}

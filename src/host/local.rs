//! This machine.

use std::fs;

use crate::engine::Facts;

/// What this machine's kernel and hardware are, as far as this user may read. What cannot be read is left out.
pub fn facts() -> Facts {
    let mut facts = Facts::new();
    let mut add = |name: &str, value: Option<String>| {
        if let Some(value) = value.map(|value| value.trim().to_owned()).filter(|value| !value.is_empty()) {
            facts.insert(name.to_owned(), value);
        }
    };
    let uname = rustix::system::uname();
    let text = |part: &std::ffi::CStr| Some(part.to_string_lossy().into_owned());
    add("kernel.release", text(uname.release()));
    add("kernel.version", text(uname.version()));
    add("arch", text(uname.machine()));
    add("kernel.cmdline", read("/proc/cmdline"));
    add("kernel.tainted", read("/proc/sys/kernel/tainted"));
    add("kernel.lsm", read("/sys/kernel/security/lsm"));
    add("clocksource", read("/sys/devices/system/clocksource/clocksource0/current_clocksource"));
    add("cgroup", Some(cgroup().to_owned()));
    add("page.size", Some(rustix::param::page_size().to_string()));
    add("cpu.count", std::thread::available_parallelism().ok().map(|n| n.to_string()));
    add("os.id", os_release("ID"));
    add("os.version", os_release("VERSION_ID"));
    add("os.name", os_release("PRETTY_NAME"));
    if let Some(cpuinfo) = read("/proc/cpuinfo") {
        let field = |name: &str| {
            let line = cpuinfo.lines().find(|line| line.split(':').next().is_some_and(|key| key.trim() == name))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        };
        add("cpu.vendor", field("vendor_id").or_else(|| field("CPU implementer")));
        add("cpu.model", field("model name").or_else(|| field("CPU part")));
        add("cpu.microcode", field("microcode"));
        add("cpu.flags", field("flags").or_else(|| field("Features")).map(|flags| sorted(&flags)));
        let hypervisor = field("flags").is_some_and(|flags| flags.split(' ').any(|flag| flag == "hypervisor"));
        add("hypervisor", Some(if hypervisor { "yes" } else { "no" }.to_owned()));
    }
    if let Some(total) = read("/proc/meminfo").and_then(|text| meminfo_total(&text)) {
        add("memory.gib", Some(total));
    }
    for (name, path) in SYSCTLS {
        add(name, read(path));
    }
    facts
}

/// Sysctls that decide whether programs work.
const SYSCTLS: [(&str, &str); 13] = [
    ("sysctl.kernel.unprivileged_userns_clone", "/proc/sys/kernel/unprivileged_userns_clone"),
    ("sysctl.kernel.apparmor_restrict_unprivileged_userns", "/proc/sys/kernel/apparmor_restrict_unprivileged_userns"),
    ("sysctl.kernel.io_uring_disabled", "/proc/sys/kernel/io_uring_disabled"),
    ("sysctl.kernel.unprivileged_bpf_disabled", "/proc/sys/kernel/unprivileged_bpf_disabled"),
    ("sysctl.kernel.perf_event_paranoid", "/proc/sys/kernel/perf_event_paranoid"),
    ("sysctl.kernel.yama.ptrace_scope", "/proc/sys/kernel/yama/ptrace_scope"),
    ("sysctl.kernel.randomize_va_space", "/proc/sys/kernel/randomize_va_space"),
    ("sysctl.vm.max_map_count", "/proc/sys/vm/max_map_count"),
    ("sysctl.vm.overcommit_memory", "/proc/sys/vm/overcommit_memory"),
    ("sysctl.vm.unprivileged_userfaultfd", "/proc/sys/vm/unprivileged_userfaultfd"),
    ("sysctl.user.max_user_namespaces", "/proc/sys/user/max_user_namespaces"),
    ("sysctl.net.ipv6.conf.all.disable_ipv6", "/proc/sys/net/ipv6/conf/all/disable_ipv6"),
    ("sysctl.net.ipv4.ip_unprivileged_port_start", "/proc/sys/net/ipv4/ip_unprivileged_port_start"),
];

fn read(path: &str) -> Option<String> {
    fs::read_to_string(path).ok()
}

fn sorted(flags: &str) -> String {
    let mut flags: Vec<&str> = flags.split_whitespace().collect();
    flags.sort_unstable();
    flags.join(" ")
}

/// `v1`, `v2` or `hybrid`, as systemd tells them apart: cgroups(7).
fn cgroup() -> &'static str {
    let mounts = read("/proc/self/mounts").unwrap_or_default();
    let at = |path: &str| {
        mounts.lines().rev().find_map(|line| {
            let mut fields = line.split(' ').skip(1);
            (fields.next()? == path).then(|| fields.next().unwrap_or_default().to_owned())
        })
    };
    match at("/sys/fs/cgroup").as_deref() {
        Some("cgroup2") => "v2",
        Some(_) if at("/sys/fs/cgroup/unified").as_deref() == Some("cgroup2") => "hybrid",
        Some(_) => "v1",
        None => "none",
    }
}

/// Total memory rounded to GiB: what is left after the kernel took its share differs from boot to boot.
fn meminfo_total(text: &str) -> Option<String> {
    let line = text.lines().find(|line| line.starts_with("MemTotal:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(((kib + (1 << 19)) >> 20).to_string())
}

fn os_release(key: &str) -> Option<String> {
    let text = read("/etc/os-release").or_else(|| read("/usr/lib/os-release"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='))?;
    Some(line.trim_matches(['"', '\'']).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_facts_of_this_machine_do_not_change_between_two_looks() {
        let first = facts();
        assert_eq!(first, facts());
        for name in ["kernel.release", "arch", "cgroup", "page.size", "cpu.count"] {
            assert!(first.contains_key(name), "no {name}");
        }
    }

    #[test]
    fn memory_is_rounded_to_gib() {
        assert_eq!(meminfo_total("MemTotal:       24683452 kB\n"), Some("24".to_owned()));
    }
}

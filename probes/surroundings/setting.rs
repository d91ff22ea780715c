//! Settings of the kernel, sysctl(8), that programs read.
//!
//! Goes in: an id. Comes out: what the setting says. Must not know: which answers are good.

use super::look::*;
use super::said::*;

/// Rows of `table.rs`.
pub const ROWS: &str = r"
sysctl.crypto.fips_enabled sysctl
sysctl.debug.exception-trace sysctl
sysctl.dev.tty.legacy_tiocsti sysctl
sysctl.fs.aio-max-nr sysctl
sysctl.fs.binfmt_misc.status sysctl
sysctl.fs.epoll.max_user_watches sysctl
sysctl.fs.file-max sysctl
sysctl.fs.inotify.max_queued_events sysctl
sysctl.fs.inotify.max_user_instances sysctl
sysctl.fs.inotify.max_user_watches sysctl
sysctl.fs.lease-break-time sysctl
sysctl.fs.leases-enable sysctl
sysctl.fs.mount-max sysctl
sysctl.fs.mqueue.msg_max sysctl
sysctl.fs.mqueue.msgsize_max sysctl
sysctl.fs.mqueue.queues_max sysctl
sysctl.fs.nr_open sysctl
sysctl.fs.overflowuid sysctl
sysctl.fs.pipe-max-size sysctl
sysctl.fs.pipe-user-pages-soft sysctl
sysctl.fs.protected_fifos sysctl
sysctl.fs.protected_hardlinks sysctl
sysctl.fs.protected_regular sysctl
sysctl.fs.protected_symlinks sysctl
sysctl.fs.suid_dumpable sysctl
sysctl.kernel.apparmor_restrict_unprivileged_userns sysctl
sysctl.kernel.cap_last_cap sysctl
sysctl.kernel.core_pattern sysctl
sysctl.kernel.dmesg_restrict sysctl
sysctl.kernel.io_uring_disabled sysctl
sysctl.kernel.kexec_load_disabled sysctl
sysctl.kernel.keys.maxbytes sysctl
sysctl.kernel.keys.maxkeys sysctl
sysctl.kernel.kptr_restrict sysctl
sysctl.kernel.modules_disabled sysctl
sysctl.kernel.msgmax sysctl
sysctl.kernel.msgmnb sysctl
sysctl.kernel.msgmni sysctl
sysctl.kernel.ngroups_max sysctl
sysctl.kernel.numa_balancing sysctl
sysctl.kernel.ostype sysctl
sysctl.kernel.overflowuid sysctl
sysctl.kernel.panic sysctl
sysctl.kernel.perf_event_max_sample_rate sysctl
sysctl.kernel.perf_event_mlock_kb sysctl
sysctl.kernel.perf_event_paranoid sysctl
sysctl.kernel.pid_max sysctl
sysctl.kernel.printk sysctl
sysctl.kernel.randomize_va_space sysctl
sysctl.kernel.sched_autogroup_enabled sysctl
sysctl.kernel.sched_rt_runtime_us sysctl
sysctl.kernel.seccomp.actions_avail sysctl
sysctl.kernel.sem sysctl
sysctl.kernel.shm_rmid_forced sysctl
sysctl.kernel.shmall sysctl
sysctl.kernel.shmmax sysctl
sysctl.kernel.shmmni sysctl
sysctl.kernel.split_lock_mitigate sysctl
sysctl.kernel.sysrq sysctl
sysctl.kernel.threads-max sysctl
sysctl.kernel.unprivileged_bpf_disabled sysctl
sysctl.kernel.unprivileged_userns_clone sysctl
sysctl.kernel.yama.ptrace_scope sysctl
sysctl.net.bridge.bridge-nf-call-iptables sysctl
sysctl.net.core.bpf_jit_enable sysctl
sysctl.net.core.default_qdisc sysctl
sysctl.net.core.rmem_max sysctl
sysctl.net.core.somaxconn sysctl
sysctl.net.core.wmem_max sysctl
sysctl.net.ipv4.conf.all.forwarding sysctl
sysctl.net.ipv4.conf.all.rp_filter sysctl
sysctl.net.ipv4.ip_default_ttl sysctl
sysctl.net.ipv4.ip_forward sysctl
sysctl.net.ipv4.ip_local_port_range sysctl
sysctl.net.ipv4.ip_nonlocal_bind sysctl
sysctl.net.ipv4.ip_unprivileged_port_start sysctl
sysctl.net.ipv4.ping_group_range sysctl
sysctl.net.ipv4.tcp_available_congestion_control sysctl
sysctl.net.ipv4.tcp_congestion_control sysctl
sysctl.net.ipv4.tcp_fastopen sysctl
sysctl.net.ipv4.tcp_fin_timeout sysctl
sysctl.net.ipv4.tcp_keepalive_time sysctl
sysctl.net.ipv4.tcp_max_syn_backlog sysctl
sysctl.net.ipv4.tcp_rmem sysctl
sysctl.net.ipv4.tcp_syncookies sysctl
sysctl.net.ipv4.tcp_tw_reuse sysctl
sysctl.net.ipv4.tcp_wmem sysctl
sysctl.net.ipv6.bindv6only sysctl
sysctl.net.ipv6.conf.all.disable_ipv6 sysctl
sysctl.net.ipv6.conf.all.forwarding sysctl
sysctl.net.ipv6.conf.lo.disable_ipv6 sysctl
sysctl.net.netfilter.nf_conntrack_max sysctl
sysctl.net.unix.max_dgram_qlen sysctl
sysctl.user.max_mnt_namespaces sysctl
sysctl.user.max_net_namespaces sysctl
sysctl.user.max_pid_namespaces sysctl
sysctl.user.max_user_namespaces sysctl
sysctl.vm.compaction_proactiveness sysctl
sysctl.vm.legacy_va_layout sysctl
sysctl.vm.max_map_count sysctl
sysctl.vm.memfd_noexec sysctl
sysctl.vm.mmap_min_addr sysctl
sysctl.vm.mmap_rnd_bits sysctl
sysctl.vm.nr_hugepages sysctl
sysctl.vm.overcommit_memory sysctl
sysctl.vm.overcommit_ratio sysctl
sysctl.vm.swappiness sysctl
sysctl.vm.unprivileged_userfaultfd sysctl
sysctl.vm.zone_reclaim_mode sysctl
";

/// The path is the id: `sysctl.vm.swappiness` is /proc/sys/vm/swappiness.
#[inline(never)]
pub fn setting(id: &[u8]) -> Does {
    let mut name = [0u8; 128];
    let id = id.get(7..).unwrap_or_default();
    for (to, from) in name.iter_mut().zip(id) {
        *to = if *from == b'.' { b'/' } else { *from };
    }
    content(Path::of(&[b"/proc/sys/", &name[..id.len().min(name.len())]]).c())
}

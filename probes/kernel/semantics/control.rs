//! What a process says about itself: prctl and arch_prctl, personality, limits, scheduling, credentials.
//!
//! Goes in: nothing. Comes out: answers. Must not know: which answers are good.

use core::sync::atomic::Ordering::SeqCst;

use crate::asking::*;
use crate::rt::consts::*;
use crate::rt::nr;
use crate::rt::sys;

checks![
    Own "kernel.umask.set" => umask,
    Own "kernel.prctl.name" => prctl_name,
    Own "kernel.prctl.dumpable" => prctl_dumpable,
    Own "kernel.prctl.no_new_privs" => prctl_no_new_privs,
    Own "kernel.prctl.subreaper" => prctl_subreaper,
    Batch "kernel.prctl.death_signal" => prctl_death_signal,
    Own "kernel.prctl.timer_slack" => prctl_timer_slack,
    Own "kernel.prctl.keep_capabilities" => prctl_keep_capabilities,
    Own "kernel.prctl.ambient" => prctl_ambient,
    Own "kernel.prctl.bounding_drop" => prctl_bounding_drop,
    Batch "kernel.prctl.memory_name" => prctl_memory_name,
    Own "kernel.prctl.thp_disable" => prctl_thp_disable,
    Own "kernel.prctl.no_write_execute" => prctl_no_write_execute,
    Own "kernel.prctl.ptracer" => prctl_ptracer,
    #[cfg(target_arch = "x86_64")]
    Batch "kernel.arch_prctl.fs" => x86::fs,
    #[cfg(target_arch = "x86_64")]
    Own "kernel.arch_prctl.cpuid" => x86::cpuid_fault,
    #[cfg(target_arch = "x86_64")]
    Own "kernel.arch_prctl.amx" => x86::amx,
    #[cfg(target_arch = "x86_64")]
    Batch "kernel.arch_prctl.shadow_stack" => x86::shadow_stack,
    #[cfg(target_arch = "x86_64")]
    Own "kernel.modify_ldt.write" => x86::modify_ldt,
    #[cfg(target_arch = "x86_64")]
    Own "kernel.ioperm.port" => x86::ioperm,
    Batch "kernel.personality.query" => personality_query,
    Own "kernel.personality.no_randomize" => personality_no_randomize,
    Own "kernel.personality.linux32" => personality_linux32,
    Own "kernel.rlimit.nofile" => rlimit_nofile,
    Own "kernel.rlimit.fsize" => rlimit_fsize,
    Batch "kernel.rlimit.other" => rlimit_other,
    Own "kernel.sched.affinity" => sched_affinity,
    Own "kernel.sched.nice" => sched_nice,
    Own "kernel.sched.batch" => sched_batch,
    Own "kernel.sched.realtime" => sched_realtime,
    Own "kernel.sched.attributes" => sched_attributes,
    Own "kernel.ioprio.set" => ioprio,
    Batch "kernel.getcpu.number" => getcpu,
    Own "kernel.credentials.drop" => credentials_drop,
    Own "kernel.credentials.setgroups" => setgroups,
    Own "kernel.credentials.capset" => capset,
    Own "kernel.credentials.chroot" => chroot,
    Own "kernel.membarrier.private" => membarrier,
    Batch "kernel.getrandom.default" => || getrandom(0),
    Batch "kernel.getrandom.nonblock" => || getrandom(1),
    Batch "kernel.getrandom.random" => || getrandom(3),
    Batch "kernel.getrandom.insecure" => || getrandom(4),
    Batch "kernel.sysinfo.memory" => sysinfo,
    Batch "kernel.getrusage.time" => getrusage,
    Own "kernel.utsname.set" => sethostname,
    Batch "kernel.utsname.release" => release,
];

/// prctl(2) with up to four further arguments.
fn prctl(a: [usize; 5]) -> Result<usize, i32> {
    ask!(nr::PRCTL, a[0], a[1], a[2], a[3], a[4])
}

/// umask(2) returns the one before. On its own, because it changes its process.
fn umask() -> Does {
    must!(nr::UMASK, 0o27);
    same("mask before", must!(nr::UMASK, 0o22), 0o27)
}

fn prctl_name() -> Does {
    let mut room = [0u8; 16];
    must!(nr::PRCTL, 15, sys::path(c"abicus-name"));
    must!("PR_GET_NAME"; nr::PRCTL, 16, &mut room);
    holds("another name came back", room.starts_with(b"abicus-name\0"))
}

fn prctl_dumpable() -> Does {
    prctl([4, 0, 0, 0, 0])?;
    same("PR_GET_DUMPABLE", prctl([3, 0, 0, 0, 0]).at("PR_GET_DUMPABLE")?, 0)
}

fn prctl_no_new_privs() -> Does {
    prctl([PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0])?;
    same("PR_GET_NO_NEW_PRIVS", prctl([PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0]).at("PR_GET_NO_NEW_PRIVS")?, 1)
}

/// An orphan comes to the nearest subreaper, as init systems and shims in a container need.
fn prctl_subreaper() -> Does {
    prctl([PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0])?;
    let told = Map::shared(4096)?;
    in_twin("fork", &mut || {
        match sys::fork() {
            Ok(0) => {
                // Not to die with its parent: that is the question.
                let _ = ask!(nr::PRCTL, PR_SET_PDEATHSIG, 0);
                sys::sleep_ms(2);
                sys::exit(7)
            }
            Ok(pid) => told.word(0).store(pid as u32, SeqCst),
            Err(errno) => return errno,
        }
        0
    })?;
    // The orphan may have seen the death of its parent before it said that it does not mind.
    let (_, status) = sys::wait(told.word(0).load(SeqCst) as i32, 0).at("wait for the orphan")?;
    holds("the orphan did not end as it should", matches!(status, 0x700 | 9))
}

fn prctl_death_signal() -> Does {
    prctl([PR_SET_PDEATHSIG, SIGKILL as usize, 0, 0, 0])?;
    let mut signal = 0i32;
    must!("PR_GET_PDEATHSIG"; nr::PRCTL, 2, &mut signal);
    same("PR_GET_PDEATHSIG", signal as usize, SIGKILL as usize)?;
    // The write end of a pipe that only the grandchild has: end of file when it has died with its parent.
    let (from, to) = pipe()?;
    in_twin("fork", &mut || match sys::fork() {
        Ok(0) => {
            let _ = sys::write(to.0, b"x");
            linger()
        }
        // It has set its death signal before it writes.
        Ok(_) => i32::from(ready(&from, 1, 1000) != Ok(1)) * 255,
        Err(errno) => errno,
    })?;
    drop(to);
    let mut room = [0; 2];
    same("bytes written", sys::read(from.0, &mut room).at("read")?, 1)?;
    same("the grandchild's end closed", ready(&from, 1, 200).at("ppoll")?, 1)
}

fn prctl_timer_slack() -> Does {
    prctl([29, 123_456, 0, 0, 0])?;
    same("PR_GET_TIMERSLACK", prctl([30, 0, 0, 0, 0]).at("PR_GET_TIMERSLACK")?, 123_456)
}

fn prctl_keep_capabilities() -> Does {
    prctl([8, 1, 0, 0, 0])?;
    same("PR_GET_KEEPCAPS", prctl([7, 0, 0, 0, 0]).at("PR_GET_KEEPCAPS")?, 1)
}

/// Makes CAP_NET_BIND_SERVICE ambient, as service managers do for daemons that are not root.
fn prctl_ambient() -> Does {
    const BIND: u32 = 10;
    let (header, mut data) = ([0x2008_0522u32, 0], [0u32; 6]);
    must!("capget"; nr::CAPGET, &header, &mut data);
    if data[1] >> BIND & 1 == 0 {
        return Err(not_asked("CAP_NET_BIND_SERVICE is not permitted here"));
    }
    data[2] |= 1 << BIND;
    must!("capset"; nr::CAPSET, &header, &data);
    prctl([47, 2, BIND as usize, 0, 0])?;
    same("PR_CAP_AMBIENT_IS_SET", prctl([47, 1, BIND as usize, 0, 0]).at("PR_CAP_AMBIENT_IS_SET")?, 1)
}

fn prctl_bounding_drop() -> Does {
    if !capable(8) {
        return Err(not_asked("no CAP_SETPCAP here"));
    }
    prctl([24, 5, 0, 0, 0])?;
    same("PR_CAPBSET_READ", prctl([23, 5, 0, 0, 0]).at("PR_CAPBSET_READ")?, 0)
}

fn prctl_memory_name() -> Does {
    let page = Map::private(4096)?;
    must!(nr::PRCTL, 0x5356_4d41, 0, page.at, page.len, sys::path(c"abicus"));
    Ok(())
}

fn prctl_thp_disable() -> Does {
    prctl([41, 1, 0, 0, 0])?;
    same("PR_GET_THP_DISABLE", prctl([42, 0, 0, 0, 0]).at("PR_GET_THP_DISABLE")?, 1)
}

/// PR_SET_MDWE: what was never executable cannot become so.
fn prctl_no_write_execute() -> Does {
    let page = Map::private(4096)?;
    prctl([65, 1, 0, 0, 0])?;
    refused("mprotect", ask!(nr::MPROTECT, page.at, page.len, PROT_READ | PROT_EXEC), EACCES)
}

/// PR_SET_PTRACER, which only Yama has: crash handlers use it.
fn prctl_ptracer() -> Does {
    prctl([0x5961_6d61, usize::MAX, 0, 0, 0])?;
    Ok(())
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::*;

    /// Thread local storage of every x86-64 libc: the base of the FS segment. We have none of our own.
    pub fn fs() -> Does {
        let words = [0x5eed_usize; 2];
        let mut before = 0usize;
        must!("ARCH_GET_FS"; nr::ARCH_PRCTL, 0x1003, &mut before);
        must!("ARCH_SET_FS"; nr::ARCH_PRCTL, 0x1002, &words);
        let seen: usize;
        // SAFETY: FS points to `words` now.
        unsafe { core::arch::asm!("mov {}, fs:[8]", out(reg) seen, options(nostack, readonly)) };
        must!("ARCH_SET_FS back"; nr::ARCH_PRCTL, 0x1002, before);
        same("word at fs:8", seen, 0x5eed)
    }

    /// ARCH_SET_CPUID 0 makes CPUID fault (rr needs it). ENODEV: the processor cannot.
    pub fn cpuid_fault() -> Does {
        same("ARCH_GET_CPUID", must!("ARCH_GET_CPUID"; nr::ARCH_PRCTL, 0x1011), 1)?;
        must!("ARCH_SET_CPUID"; nr::ARCH_PRCTL, 0x1012, 0);
        Ok(())
    }

    /// ARCH_REQ_XCOMP_PERM of tile data, without which AMX instructions fault.
    pub fn amx() -> Does {
        let has = core::arch::x86_64::__cpuid(0).eax >= 7 && core::arch::x86_64::__cpuid_count(7, 0).edx >> 24 & 1 == 1;
        match ask!(nr::ARCH_PRCTL, 0x1023, 18) {
            Ok(_) => Err(value(format_args!("permitted"))),
            Err(EINVAL | EOPNOTSUPP) if !has => Err(value(format_args!("the processor has no AMX"))),
            Err(errno) => Err(errno.into()),
        }
    }

    /// ARCH_SHSTK_STATUS: which parts of CET are enabled for this thread.
    pub fn shadow_stack() -> Does {
        let mut features = 0usize;
        must!(nr::ARCH_PRCTL, 0x5005, &mut features);
        Err(value(format_args!("features {features:#x}")))
    }

    /// A data segment of our own in the local descriptor table, as wine and old thread libraries make.
    pub fn modify_ldt() -> Does {
        // struct user_desc: entry, base, limit, seg_32bit | useable
        let entry = [0u32, 0x1000, 0xfff, 1 | 1 << 6];
        must!(nr::MODIFY_LDT, 1, &entry, 16);
        let mut table = [0u8; 64];
        let n = must!("read back"; nr::MODIFY_LDT, 0, &mut table, 64) as u32 as usize;
        same("bytes of table", n.min(8), 8)?;
        same("limit", usize::from(u16::from_le_bytes([table[0], table[1]])), 0xfff)
    }

    /// Permission for one port, which is then not used.
    pub fn ioperm() -> Does {
        must!(nr::IOPERM, 0x80, 1, 1);
        must!("give back"; nr::IOPERM, 0x80, 1, 0);
        Ok(())
    }
}

fn personality_query() -> Does {
    let first = must!(nr::PERSONALITY, 0xffff_ffffu32);
    same("asked again", must!(nr::PERSONALITY, 0xffff_ffffu32), first)
}

/// ADDR_NO_RANDOMIZE, as debuggers and setarch -R set it.
fn personality_no_randomize() -> Does {
    must!(nr::PERSONALITY, 0x004_0000);
    same("persona", must!("read back"; nr::PERSONALITY, 0xffff_ffffu32) & 0x4_0000, 0x4_0000)
}

/// PER_LINUX32: uname(2) speaks of a 32-bit machine, as builds in 32-bit images expect.
fn personality_linux32() -> Does {
    must!(nr::PERSONALITY, 8);
    let mut name = [0u8; 6 * 65];
    must!("uname"; nr::UNAME, &mut name);
    let machine = &name[4 * 65..];
    holds("uname still names a 64-bit machine", machine.starts_with(b"i686\0") || machine.starts_with(b"armv8l\0"))
}

fn rlimit_nofile() -> Does {
    let mut limit = [0u64; 2];
    must!(nr::PRLIMIT64, 0, RLIMIT_NOFILE, 0, &mut limit);
    limit[0] = 20.min(limit[1]);
    must!("set"; nr::PRLIMIT64, 0, RLIMIT_NOFILE, &limit, 0);
    // F_DUPFD at the limit is EINVAL; below it there is room, and one more than fits is EMFILE.
    let ends = |fd| ask!(nr::FCNTL, fd, 0, 19);
    let first = ends(1).at("F_DUPFD below the limit")?;
    same("descriptor", first, 19)?;
    refused("F_DUPFD beyond the limit", ends(1), EMFILE)
}

fn rlimit_fsize() -> Does {
    let file = memfd()?;
    let mut limit = [0u64; 2];
    must!(nr::PRLIMIT64, 0, 1, 0, &mut limit);
    limit[0] = 100.min(limit[1]);
    must!("set"; nr::PRLIMIT64, 0, 1, &limit, 0);
    let _ = sys::set_action(SIGXFSZ, &sys::Sigaction { handler: sys::SIG_IGN, ..Default::default() });
    same("bytes up to the limit", sys::write(file.0, &[7; 128]).at("write")?, 100)?;
    refused("write beyond the limit", sys::write(file.0, b"x"), EFBIG)
}

/// prlimit(2) of another process, as service managers do.
fn rlimit_other() -> Does {
    let child = Twin::start(&mut || linger())?;
    let (mut limit, mut back) = ([0u64; 2], [0u64; 2]);
    must!(nr::PRLIMIT64, child.0, RLIMIT_NOFILE, 0, &mut limit);
    limit[0] = 17.min(limit[1]);
    must!("set"; nr::PRLIMIT64, child.0, RLIMIT_NOFILE, &limit, 0);
    must!("read back"; nr::PRLIMIT64, child.0, RLIMIT_NOFILE, 0, &mut back);
    same("soft limit", back[0] as usize, limit[0] as usize)
}

/// Pins to the last processor that is allowed and looks where it runs.
fn sched_affinity() -> Does {
    let mut set = [0u64; 128];
    let n = must!(nr::SCHED_GETAFFINITY, 0, size_of_val(&set), &mut set) / 8;
    let Some(word) = (0..n).rev().find(|i| set[*i] != 0) else {
        return Err(value(format_args!("no processor is allowed")));
    };
    let cpu = word * 64 + 63 - set[word].leading_zeros() as usize;
    let mut one = [0u64; 128];
    one[word] = 1 << (cpu % 64);
    must!("sched_setaffinity"; nr::SCHED_SETAFFINITY, 0, size_of_val(&one), &one);
    let mut now = 0u32;
    must!("getcpu"; nr::GETCPU, &mut now, 0, 0);
    same("runs on the processor it is pinned to", usize::from(now as usize == cpu), 1)
}

fn sched_nice() -> Does {
    let before = must!(nr::GETPRIORITY, 0, 0);
    // The call says 20 - nice, and nobody may have a nice value above 19.
    let wanted = before.saturating_sub(3).max(1);
    must!("setpriority"; nr::SETPRIORITY, 0, 0, 20 - wanted as isize);
    same("20 - nice", must!("read back"; nr::GETPRIORITY, 0, 0), wanted)
}

fn sched_batch() -> Does {
    must!(nr::SCHED_SETSCHEDULER, 0, 3, &0u32);
    same("policy", must!("read back"; nr::SCHED_GETSCHEDULER, 0), 3)
}

fn sched_realtime() -> Does {
    must!(nr::SCHED_SETSCHEDULER, 0, 1, &1u32);
    same("policy", must!("read back"; nr::SCHED_GETSCHEDULER, 0), 1)
}

/// Reads struct sched_attr and sets the same again with another policy.
fn sched_attributes() -> Does {
    let mut attributes = [0u32; 14];
    must!(nr::SCHED_GETATTR, 0, &mut attributes, 56, 0);
    attributes[1] = 3;
    attributes[0] = 48;
    must!("sched_setattr"; nr::SCHED_SETATTR, 0, &attributes, 0);
    same("policy", must!("read back"; nr::SCHED_GETSCHEDULER, 0), 3)
}

fn ioprio() -> Does {
    // Class best effort, level 7.
    let wanted = 2 << 13 | 7usize;
    must!(nr::IOPRIO_SET, 1, 0, wanted);
    same("priority", must!("ioprio_get"; nr::IOPRIO_GET, 1, 0), wanted)
}

fn getcpu() -> Does {
    let (mut cpu, mut node) = (u32::MAX, u32::MAX);
    must!(nr::GETCPU, &mut cpu, &mut node, 0);
    holds("no such processor or node", cpu < 65536 && node < 65536)
}

/// root gives itself up for good, as every daemon does that starts as root.
fn credentials_drop() -> Does {
    if must!(nr::GETEUID) != 0 {
        return Err(not_asked("the cell does not run as root"));
    }
    const NOBODY: usize = 65534;
    must!("setresgid"; nr::SETRESGID, NOBODY, NOBODY, NOBODY);
    must!("setresuid"; nr::SETRESUID, NOBODY, NOBODY, NOBODY);
    same("uid", must!(nr::GETUID), NOBODY)?;
    refused("setuid back to root", ask!(nr::SETUID, 0), EPERM)
}

fn setgroups() -> Does {
    if must!(nr::GETEUID) != 0 {
        return Err(not_asked("the cell does not run as root"));
    }
    let groups = [65534u32, 0];
    must!(nr::SETGROUPS, 2, &groups);
    same("groups", must!("getgroups"; nr::GETGROUPS, 0, 0), 2)
}

fn capset() -> Does {
    drop_capabilities()?;
    let (header, mut data) = ([0x2008_0522u32, 0], [9u32; 6]);
    must!("capget"; nr::CAPGET, &header, &mut data);
    same("permitted that are left", (data[0] | data[1] | data[3] | data[4]) as usize, 0)
}

/// Into the root itself: changes nothing but needs all that chroot(2) needs.
fn chroot() -> Does {
    if must!(nr::GETEUID) != 0 {
        return Err(not_asked("the cell does not run as root"));
    }
    must!(nr::CHROOT, sys::path(c"/"));
    Ok(())
}

fn membarrier() -> Does {
    let commands = must!(nr::MEMBARRIER, 0, 0);
    holds("MEMBARRIER_CMD_PRIVATE_EXPEDITED is not offered", commands >> 3 & 3 == 3)?;
    must!("register"; nr::MEMBARRIER, 16, 0);
    must!("MEMBARRIER_CMD_PRIVATE_EXPEDITED"; nr::MEMBARRIER, 8, 0);
    Ok(())
}

fn getrandom(flags: usize) -> Does {
    let mut room = [0u8; 32];
    same("bytes", must!(nr::GETRANDOM, &mut room, 32, flags), 32)?;
    // Once in 2^256.
    holds("32 bytes of zeroes", room.iter().any(|b| *b != 0))
}

fn sysinfo() -> Does {
    let mut info = [0u64; 14];
    must!(nr::SYSINFO, &mut info);
    holds("no memory at all", info[4] > 0 && info[13] & 0xffff_ffff > 0)
}

fn getrusage() -> Does {
    let mut usage = [-1i64; 18];
    must!(nr::GETRUSAGE, 0, &mut usage);
    holds("no page fault was counted", usage[8] > 0)
}

/// The first two numbers of uname(2)'s release, at which programs look to know what they may use.
fn release() -> Does {
    let mut name = [0u8; 6 * 65];
    must!(nr::UNAME, &mut name);
    let release = &name[130..195];
    let end = release.iter().enumerate().filter(|(_, b)| !b.is_ascii_digit()).nth(1).map_or(0, |at| at.0);
    Err(word(core::str::from_utf8(&release[..end]).unwrap_or("not text")))
}

/// sethostname(2) in a UTS namespace of our own, so that nobody else is renamed.
fn sethostname() -> Does {
    if ask!(nr::UNSHARE, CLONE_NEWUTS).is_err() {
        return Err(not_asked("no UTS namespace of our own to be had"));
    }
    must!(nr::SETHOSTNAME, sys::path(c"abicus"), 6);
    let mut name = [0u8; 6 * 65];
    must!("uname"; nr::UNAME, &mut name);
    holds("uname has another name", name[65..].starts_with(b"abicus\0"))
}

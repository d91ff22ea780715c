//! What the filter answers to calls it may treat by their arguments, without executing them: `filter.NAME`.
//!
//! Goes in: the table below. Comes out: a value for each, `allow`, `errno N`, `trap`, `kill`. Must not know: which policy is
//! right. Arguments are senseless all the same, because a supervisor outside the cell may execute what it is notified of.

#[cfg(target_arch = "x86_64")]
use super::filter::Entry;
use super::filter::{self, Query, Verdict};
use super::rt::child::Slot;
use super::rt::consts::*;
use super::rt::line::Line;
use super::rt::nr::*;
use super::rt::out;

const N: usize = usize::MAX;
const CHILD: usize = SIGCHLD as usize;

/// glibc's flags of a new thread.
const THREAD: usize = CLONE_VM
    | CLONE_FS
    | CLONE_FILES
    | CLONE_SIGHAND
    | CLONE_THREAD
    | CLONE_SYSVSEM
    | CLONE_SETTLS
    | CLONE_PARENT_SETTID
    | CLONE_CHILD_CLEARTID;

/// A check's id, the call, and the arguments that matter; the rest is -1.
#[rustfmt::skip]
static TABLE: &[(&str, usize, &[usize])] = &[
    ("filter.clone.thread", CLONE, &[THREAD, 0, 0, 0, 0]),
    ("filter.clone.newuser", CLONE, &[CLONE_NEWUSER | CHILD, 0, 0, 0, 0]),
    ("filter.clone.newns", CLONE, &[CLONE_NEWNS | CHILD, 0, 0, 0, 0]),
    ("filter.clone.newpid", CLONE, &[CLONE_NEWPID | CHILD, 0, 0, 0, 0]),
    ("filter.clone.newnet", CLONE, &[CLONE_NEWNET | CHILD, 0, 0, 0, 0]),
    ("filter.clone3", CLONE3, &[0, 0]),
    ("filter.unshare.nothing", UNSHARE, &[0]),
    ("filter.unshare.newuser", UNSHARE, &[CLONE_NEWUSER]),
    ("filter.unshare.newns", UNSHARE, &[CLONE_NEWNS]),
    ("filter.unshare.newpid", UNSHARE, &[CLONE_NEWPID]),
    ("filter.unshare.newnet", UNSHARE, &[CLONE_NEWNET]),
    ("filter.unshare.newipc", UNSHARE, &[CLONE_NEWIPC]),
    ("filter.unshare.newuts", UNSHARE, &[CLONE_NEWUTS]),
    ("filter.unshare.newcgroup", UNSHARE, &[CLONE_NEWCGROUP]),
    ("filter.unshare.newtime", UNSHARE, &[CLONE_NEWTIME]),
    ("filter.unshare.files", UNSHARE, &[CLONE_FILES]),
    ("filter.setns.any", SETNS, &[N, 0]),
    ("filter.setns.newuser", SETNS, &[N, CLONE_NEWUSER]),
    ("filter.personality.query", PERSONALITY, &[0xffff_ffff]),
    ("filter.personality.linux32", PERSONALITY, &[8]),
    ("filter.personality.uname26", PERSONALITY, &[0x20000]),
    ("filter.personality.no-randomize", PERSONALITY, &[0x40000]),
    ("filter.personality.read-implies-exec", PERSONALITY, &[0x400000]),
    ("filter.socket.unix", SOCKET, &[1, 1, 0]),
    ("filter.socket.inet", SOCKET, &[2, 1, 0]),
    ("filter.socket.inet6", SOCKET, &[10, 1, 0]),
    ("filter.socket.netlink-route", SOCKET, &[16, 3, 0]),
    ("filter.socket.netlink-audit", SOCKET, &[16, 3, 9]),
    ("filter.socket.packet", SOCKET, &[17, 3, 0]),
    ("filter.socket.raw", SOCKET, &[2, 3, 1]),
    ("filter.socket.bluetooth", SOCKET, &[31, 3, 0]),
    ("filter.socket.can", SOCKET, &[29, 3, 0]),
    ("filter.socket.alg", SOCKET, &[38, 5, 0]),
    ("filter.socket.vsock", SOCKET, &[40, 1, 0]),
    ("filter.socket.xdp", SOCKET, &[44, 3, 0]),
    ("filter.ioctl.tiocsti", IOCTL, &[N, 0x5412]),
    ("filter.ioctl.tioclinux", IOCTL, &[N, 0x541c]),
    ("filter.ioctl.ficlone", IOCTL, &[N, 0x4004_9409]),
    ("filter.prctl.set-mm", PRCTL, &[35]),
    ("filter.prctl.set-seccomp", PRCTL, &[22, N]),
    ("filter.prctl.set-name", PRCTL, &[15, N]),
    ("filter.prctl.set-vma-name", PRCTL, &[0x5356_4d41, N]),
    ("filter.prctl.no-new-privs", PRCTL, &[38, 1, 0, 0, 0]),
    ("filter.prctl.dumpable", PRCTL, &[4, N]),
    ("filter.prctl.subreaper", PRCTL, &[36, 1]),
    ("filter.prctl.capbset-drop", PRCTL, &[24, N]),
    ("filter.prctl.cap-ambient", PRCTL, &[47, N]),
    ("filter.prctl.speculation", PRCTL, &[53, N]),
    ("filter.prctl.mdwe", PRCTL, &[65, N]),
    ("filter.seccomp.strict", SECCOMP, &[0, N]),
    ("filter.seccomp.filter", SECCOMP, &[1, N]),
    ("filter.seccomp.notify", SECCOMP, &[1, 8, N]),
    ("filter.keyctl.get-id", KEYCTL, &[0, N]),
    ("filter.keyctl.join-session", KEYCTL, &[1, N]),
    ("filter.ptrace.traceme", PTRACE, &[0, N]),
    ("filter.ptrace.attach", PTRACE, &[16, N]),
    ("filter.ptrace.seize", PTRACE, &[0x4206, N]),
    ("filter.bpf.map-create", BPF, &[0, N, N]),
    ("filter.bpf.prog-load", BPF, &[5, N, N]),
    ("filter.mount.bind", MOUNT, &[N, N, N, 4096, N]),
    ("filter.mount.new", MOUNT, &[N, N, N, 0, N]),
    ("filter.umount.detach", UMOUNT2, &[N, 2]),
    ("filter.mknodat.char", MKNODAT, &[N, N, 0o020600, N]),
    ("filter.mknodat.block", MKNODAT, &[N, N, 0o060600, N]),
    ("filter.fchmodat.setuid", FCHMODAT, &[N, N, 0o4755]),
    ("filter.mmap.write-exec", MMAP, &[0, 0, 7, 0x22, N, 0]),
    ("filter.mprotect.write-exec", MPROTECT, &[1, 0, 7]),
    ("filter.futex.lock-pi", FUTEX, &[N, 6]),
    ("filter.madvise.populate", MADVISE, &[1, 0, 23]),
    ("filter.sched_setscheduler.fifo", SCHED_SETSCHEDULER, &[N, 1, N]),
    ("filter.sched_setscheduler.batch", SCHED_SETSCHEDULER, &[N, 3, N]),
    ("filter.prlimit64.set", PRLIMIT64, &[N, 7, N, 0]),
    ("filter.clock_settime.realtime", CLOCK_SETTIME, &[0, N]),
    ("filter.open_by_handle_at", OPEN_BY_HANDLE_AT, &[N, N, N]),
    ("filter.sethostname", SETHOSTNAME, &[N, N]),
    #[cfg(target_arch = "x86_64")] ("filter.arch_prctl.set-fs", ARCH_PRCTL, &[0x1002, N]),
    #[cfg(target_arch = "x86_64")] ("filter.arch_prctl.amx", ARCH_PRCTL, &[0x1023, N]),
    #[cfg(target_arch = "x86_64")] ("filter.arch_prctl.shadow-stack", ARCH_PRCTL, &[0x5001, N]),
    #[cfg(target_arch = "x86_64")] ("filter.modify_ldt.write", MODIFY_LDT, &[1, N, N]),
    #[cfg(target_arch = "x86_64")] ("filter.iopl.3", IOPL, &[3]),
    #[cfg(target_arch = "x86_64")] ("filter.x32", 0x4000_0000 + GETPID, &[]),
    // 20 is getpid there, and writev to a bad descriptor where the entry is taken for the 64-bit one.
    #[cfg(target_arch = "x86_64")] ("filter.i386", INT80 + 20, &[]),
    #[cfg(target_arch = "x86_64")] ("filter.i386.socketcall", INT80 + 102, &[]),
    #[cfg(target_arch = "x86_64")] ("filter.i386.clock-gettime64", INT80 + 403, &[]),
];

/// Added to the number of a call that is to be made by `int 0x80`.
#[cfg(target_arch = "x86_64")]
const INT80: usize = 1 << 32;

const MOST: usize = 128;
const _: () = assert!(TABLE.len() <= MOST);

fn selected(wanted: &dyn Fn(&[u8]) -> bool) -> impl Iterator<Item = &'static (&'static str, usize, &'static [usize])> {
    TABLE.iter().filter(move |row| wanted(row.0.as_bytes()))
}

pub fn count(wanted: &dyn Fn(&[u8]) -> bool) -> usize {
    selected(wanted).count()
}

/// Asks about all wanted variants and writes an observation for each. Returns how many were written.
pub fn run(slot: &Slot, wanted: &dyn Fn(&[u8]) -> bool) -> usize {
    let mut queries = [Query::NONE; MOST];
    let mut count = 0;
    for (_, number, given) in selected(wanted) {
        let query = &mut queries[count];
        query.number = *number;
        #[cfg(target_arch = "x86_64")]
        if *number >= INT80 {
            (query.number, query.entry) = (*number - INT80, Entry::Int80);
        }
        query.arguments = core::array::from_fn(|i| given.get(i).copied().unwrap_or(N));
        count += 1;
    }
    let map = filter::ask(slot, &mut queries[..count]);
    for (row, query) in selected(wanted).zip(&queries) {
        let mut line = Line::new();
        line.text("check", row.0.as_bytes());
        match (query.verdict, map.trace) {
            (Verdict::Unknown, Some(_)) => {
                line.text("saw", b"not-asked").text("why", b"no filter of our own can be installed here")
            }
            (Verdict::Unknown, None) => {
                line.text("saw", b"not-asked").text("why", b"ENOSYS, and no notification to tell whose")
            }
            (verdict, _) => line.text("saw", b"value").text("value", verdict.text().bytes()),
        };
        out::send(&mut line);
    }
    count
}

//! Arguments with which a system call does nothing, yet shows whether it is there.
//!
//! Goes in: a number. Comes out: six arguments, or how else to ask. Must not know: what the answers mean.
//!
//! The rule is all six = -1: a bad descriptor, a bad address, a bad flag, refused before anything happens. All zeroes
//! would be dangerous: seccomp(0) is strict mode, kexec_load of 0 segments unloads, acct(NULL) stops accounting, close(0).
//! Residue that is left: remap_file_pages writes one line to the kernel's log, once per boot.

use super::rt::consts::*;
use super::rt::nr::*;

#[cfg_attr(target_arch = "aarch64", allow(dead_code))] // two are for calls that it never had
pub enum Recipe {
    Call([usize; 6]),
    /// The child ends at once, in the same instructions that made it.
    Fork([usize; 2]),
    /// In a child, which must end with our status.
    Exit,
    /// By returning from a signal handler.
    Sigreturn,
    /// With a timer that interrupts it.
    Pause,
    /// After becoming the leader of a session without a terminal.
    Vhangup,
    /// SIGILL is its answer to who is not a return probe.
    Uretprobe,
    /// Not at all, and why. The filter is asked all the same.
    Never(&'static str),
}

const N: usize = usize::MAX;

/// An identifier of a System V object that nobody uses: with the usual -1 the flags would contain IPC_CREAT.
const KEY: usize = 0x7ffa_bcde;

/// A process that cannot exist: larger than any pid_max.
const NOBODY: usize = 0x7fff_fff0;

/// A word for calls that need an address: never written to by the calls that get it.
static WORD: u32 = 0;

/// `struct clone_args` of 64 bytes: only exit_signal is set.
static CLONE_ARGS: [u64; 8] = [0, 0, 0, 0, SIGCHLD as u64, 0, 0, 0];

pub fn recipe(number: usize) -> Recipe {
    #[cfg(target_arch = "x86_64")]
    if let Some(recipe) = only_here(number) {
        return recipe;
    }
    let word = core::ptr::from_ref(&WORD) as usize;
    Recipe::Call(match number {
        // An unknown operation answers ENOSYS, as if the call were absent: wake one waiter of a word nobody waits for.
        FUTEX => [word, 1, 1, 0, 0, 0],
        PERSONALITY => [0xffff_ffff, N, N, N, N, N],
        MSGGET => [KEY, 0, N, N, N, N],
        SEMGET | SHMGET => [KEY, 0, 0, N, N, N],
        KILL | TKILL => [NOBODY, 0, N, N, N, N],
        // A bad magic number.
        REBOOT => [0; 6],
        // A length of -1 makes the kernel warn about an allocation.
        INIT_MODULE => [N, 1, N, N, N, N],
        // LOCK_UN: -1 contains LOCK_MAND, about which the kernel warns.
        FLOCK => [N, 8, N, N, N, N],
        BRK | GETTIMEOFDAY | GETCPU | SET_TID_ADDRESS => [0; 6],
        UMASK => [0o22, N, N, N, N, N],
        // With -1 a filter sees the bits of new namespaces, and refuses those.
        CLONE => return Recipe::Fork([SIGCHLD as usize, 0]),
        CLONE3 => return Recipe::Fork([CLONE_ARGS.as_ptr() as usize, size_of_val(&CLONE_ARGS)]),
        EXIT | EXIT_GROUP => return Recipe::Exit,
        RT_SIGRETURN => return Recipe::Sigreturn,
        VHANGUP => return Recipe::Vhangup,
        SYNC => return Recipe::Never("it would flush every file system of the host"),
        _ => [N; 6],
    })
}

#[cfg(target_arch = "x86_64")]
fn only_here(number: usize) -> Option<Recipe> {
    static ENTRY: [u64; 2] = [0; 2];
    Some(match number {
        // A bad function answers ENOSYS; this one reads the table, of which there is none.
        MODIFY_LDT => Recipe::Call([0, ENTRY.as_ptr() as usize, 0, N, N, N]),
        TIME | ALARM => Recipe::Call([0; 6]),
        FORK | VFORK => Recipe::Fork([0; 2]),
        PAUSE => Recipe::Pause,
        URETPROBE => Recipe::Uretprobe,
        _ => return None,
    })
}

/// The arguments a filter sees of this call when the sweep makes it.
pub fn seen_by_filter(number: usize) -> [usize; 6] {
    match recipe(number) {
        Recipe::Call(arguments) => arguments,
        // The sixth means nothing to these calls; it lets a filter tell them from the probe's own children.
        Recipe::Fork([a, b]) => [a, b, 0, 0, 0, N],
        _ => [0; 6],
    }
}

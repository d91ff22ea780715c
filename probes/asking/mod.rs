//! What the static probes share: checks and how they are asked, arguments; calls, and descriptors, memory, children and threads that
//! clean up after themselves.
//!
//! Goes in: numbers, addresses, jobs. Comes out: answers and steps that failed. Must not know: what is being asked.

#![allow(unreachable_code)] // what follows the making of a `No` is never reached
#![allow(dead_code, unused_imports)] // each probe uses its own part

pub mod check;
mod child;
mod load;
pub mod options;
mod program;

pub use child::*;
pub use load::*;
pub use program::*;

use crate::rt::consts::*;
use crate::rt::nr;
use crate::rt::sys::{self, Answer};
use crate::rt::text::Text;
use check::{Asked, Saw};

/// What a check can say instead of `Ok`, for the `No` of the file that this stands in: `no(saw)` makes one.
macro_rules! words {
    () => {
        impl From<i32> for No {
            #[inline(never)]
            #[cold]
            fn from(errno: i32) -> No {
                no($crate::asking::check::Saw::Errno(errno))
            }
        }

        #[inline(never)]
        #[cold]
        pub fn at(step: &'static str, errno: i32) -> No {
            no($crate::asking::check::Saw::At(step, errno))
        }

        /// Names the step whose errno ends a check.
        pub trait At<T> {
            fn at(self, step: &'static str) -> Result<T, No>;
        }

        impl<T> At<T> for $crate::rt::sys::Answer<T> {
            fn at(self, step: &'static str) -> Result<T, No> {
                self.map_err(|errno| at(step, errno))
            }
        }

        /// The question makes no sense here, and why.
        #[inline(never)]
        pub fn not_asked(why: &'static str) -> No {
            no($crate::asking::check::Saw::NotAsked(why))
        }

        /// An answer in words, good or bad.
        #[inline(never)]
        pub fn value(what: core::fmt::Arguments) -> No {
            no($crate::asking::check::Saw::Value($crate::asking::check::Value::format(what)))
        }

        #[inline(never)]
        pub fn word(what: &str) -> No {
            no($crate::asking::check::Saw::Value($crate::asking::check::Value::of(what.as_bytes())))
        }

        #[inline(never)]
        pub fn number(what: u64) -> No {
            no($crate::asking::check::Saw::Number(what as i64))
        }

        /// A wrong result of one step, as a value: `bytes read: 3, not 4`.
        #[inline(never)]
        pub fn same(what: &'static str, got: usize, wanted: usize) -> Result<(), No> {
            if got == wanted { Ok(()) } else { Err(value(format_args!("{what}: {got}, not {wanted}"))) }
        }

        /// What a step should have been and was not.
        #[inline(never)]
        pub fn holds(what: &'static str, it_does: bool) -> Result<(), No> {
            if it_does { Ok(()) } else { Err(word(what)) }
        }
    };
}
pub(crate) use words;

/// There is no such thing: a check that failed, or has something to say, says it and ends its child (`check::finish`). So `?`
/// costs nothing, and several hundred checks have half the size they would have with an answer passed on at every step.
/// Descriptors, memory, children and namespaces end with the child; `Place` has a way of its own.
pub enum No {}

/// What a check of these files returns: `Ok` when everything it did was verified.
pub type Does = Result<(), No>;

#[inline(never)]
#[cold]
pub fn no(saw: Saw) -> No {
    crate::leave();
    check::finish(saw)
}

/// The end of a check that is done `Aside`: what it holds is closed with its child, while others are asked.
pub fn well() -> No {
    no(Saw::Ok)
}

/// What a check did, as the table wants it.
pub fn told(does: Does) -> Asked {
    match does {
        Ok(()) => Ok(Saw::Ok),
    }
}

/// Rows of a table: `checks![Batch "kernel.brk.grow" => brk_grow, …]`.
macro_rules! checks {
    ($($(#[$attribute:meta])* $how:ident $id:literal => $run:expr),* $(,)?) => {
        pub static CHECKS: &[$crate::asking::check::Check] = &[$(
            $(#[$attribute])*
            $crate::asking::check::Check { id: $id, how: $crate::asking::check::How::$how, run: || $crate::asking::told($run()) },
        )*];
    };
}
pub(crate) use checks;

words!();

/// `ask!(nr::DUP, fd)`: an `Answer`, and the only place where the checks make a system call.
///
/// Whoever writes one answers for its addresses: each points to an object that lives until the call returns and has the
/// size and the layout that the call's man page says. A call that keeps an address beyond its return (a robust list, an
/// rseq area) is undone, or its process ended, before the object dies.
macro_rules! ask {
    ($number:expr $(, $argument:expr)* $(,)?) => {
        $crate::asking::ask!(@ $number $(, $crate::rt::sys::Argument::argument($argument))*)
    };
    // One function for some counts of arguments: a call is not inlined, and few registers are set for nothing.
    (@ $n:expr) => { $crate::asking::ask!(=> call3 $n, 0, 0, 0) };
    (@ $n:expr, $a:expr) => { $crate::asking::ask!(=> call3 $n, $a, 0, 0) };
    (@ $n:expr, $a:expr, $b:expr) => { $crate::asking::ask!(=> call3 $n, $a, $b, 0) };
    (@ $n:expr, $a:expr, $b:expr, $c:expr) => { $crate::asking::ask!(=> call3 $n, $a, $b, $c) };
    (@ $n:expr, $a:expr, $b:expr, $c:expr, $d:expr) => { $crate::asking::ask!(=> call5 $n, $a, $b, $c, $d, 0) };
    (@ $n:expr, $a:expr, $b:expr, $c:expr, $d:expr, $e:expr) => { $crate::asking::ask!(=> call5 $n, $a, $b, $c, $d, $e) };
    (@ $n:expr, $a:expr, $b:expr, $c:expr, $d:expr, $e:expr, $f:expr) => {
        $crate::asking::ask!(=> call6 $n, $a, $b, $c, $d, $e, $f)
    };
    (=> $call:ident $($argument:expr),*) => {{
        // SAFETY: the rule above.
        let answer = unsafe { $crate::asking::$call($($argument),*) };
        $crate::rt::sys::answer(answer)
    }};
}
pub(crate) use ask;

/// `must!("step"; nr::DUP, fd)`: the result, or the end of the check that this step made fail. Without a step the errno is all
/// there is to say. The same rule.
macro_rules! must {
    (=> $step:expr, $n:expr $(, $a:expr)*) => {
        $crate::asking::must!(=>> $step, $n, [$($crate::rt::sys::Argument::argument($a)),*])
    };
    (=>> $step:expr, $n:expr, []) => { $crate::asking::must!(=>>> must3 $step, $n, 0, 0, 0) };
    (=>> $step:expr, $n:expr, [$a:expr]) => { $crate::asking::must!(=>>> must3 $step, $n, $a, 0, 0) };
    (=>> $step:expr, $n:expr, [$a:expr, $b:expr]) => { $crate::asking::must!(=>>> must3 $step, $n, $a, $b, 0) };
    (=>> $step:expr, $n:expr, [$a:expr, $b:expr, $c:expr]) => {
        $crate::asking::must!(=>>> must3 $step, $n, $a, $b, $c)
    };
    (=>> $step:expr, $n:expr, [$a:expr, $b:expr, $c:expr, $d:expr]) => {
        $crate::asking::must!(=>>> must4 $step, $n, $a, $b, $c, $d)
    };
    (=>> $step:expr, $n:expr, [$a:expr, $b:expr, $c:expr, $d:expr, $e:expr]) => {
        $crate::asking::must!(=>>> must6 $step, $n, $a, $b, $c, $d, $e, 0)
    };
    (=>> $step:expr, $n:expr, [$a:expr, $b:expr, $c:expr, $d:expr, $e:expr, $f:expr]) => {
        $crate::asking::must!(=>>> must6 $step, $n, $a, $b, $c, $d, $e, $f)
    };
    (=>>> $must:ident $step:expr, $n:expr $(, $argument:expr)*) => {{
        // SAFETY: the rule above.
        unsafe { $crate::asking::$must(concat!($step, "\0").as_ptr(), $n $(, $argument)*) }
    }};
    ($step:literal; $n:expr $(, $argument:expr)* $(,)?) => { $crate::asking::must!(=> $step, $n $(, $argument)*) };
    ($n:expr $(, $argument:expr)* $(,)?) => { $crate::asking::must!(=> "", $n $(, $argument)*) };
}
pub(crate) use must;

/// # Safety
/// As the system call; `step` is a C string, empty for none.
#[inline(never)]
pub unsafe fn must3(step: *const u8, n: usize, a: usize, b: usize, c: usize) -> usize {
    // SAFETY: the caller answers for it.
    unsafe { done(step, sys::raw(n, [a, b, c, 0, 0, 0])) }
}

/// # Safety
/// As `must3`.
#[inline(never)]
pub unsafe fn must4(step: *const u8, n: usize, a: usize, b: usize, c: usize, d: usize) -> usize {
    // SAFETY: the caller answers for it.
    unsafe { done(step, sys::raw(n, [a, b, c, d, 0, 0])) }
}

/// # Safety
/// As `must3`.
#[inline(never)]
#[allow(clippy::too_many_arguments)] // a system call has six
pub unsafe fn must6(step: *const u8, n: usize, a: usize, b: usize, c: usize, d: usize, e: usize, f: usize) -> usize {
    // SAFETY: the caller answers for it.
    unsafe { done(step, sys::raw(n, [a, b, c, d, e, f])) }
}

/// # Safety
/// `step` is a C string that is never freed.
unsafe fn done(step: *const u8, answer: isize) -> usize {
    match sys::answer(answer) {
        Ok(result) => result,
        Err(errno) => {
            // SAFETY: the caller answers for it.
            let step = unsafe { core::ffi::CStr::from_ptr(step.cast()) };
            match step.to_str() {
                Ok(step) if !step.is_empty() => match at(step, errno) {},
                _ => match No::from(errno) {},
            }
        }
    }
}

/// # Safety
/// As the system call.
#[inline(never)]
pub unsafe fn call3(n: usize, a: usize, b: usize, c: usize) -> isize {
    // SAFETY: the caller answers for it.
    unsafe { sys::raw(n, [a, b, c, 0, 0, 0]) }
}

/// # Safety
/// As the system call.
#[inline(never)]
pub unsafe fn call5(n: usize, a: usize, b: usize, c: usize, d: usize, e: usize) -> isize {
    // SAFETY: the caller answers for it.
    unsafe { sys::raw(n, [a, b, c, d, e, 0]) }
}

/// # Safety
/// As the system call.
#[inline(never)]
pub unsafe fn call6(n: usize, a: usize, b: usize, c: usize, d: usize, e: usize, f: usize) -> isize {
    // SAFETY: the caller answers for it.
    unsafe { sys::raw(n, [a, b, c, d, e, f]) }
}

/// A descriptor that is closed when it is no longer needed.
pub struct Fd(pub i32);

impl Fd {
    #[inline(never)]
    pub fn of(answer: Answer) -> Answer<Fd> {
        answer.map(|fd| Fd(fd as i32))
    }
    pub fn at(dir: i32, name: &core::ffi::CStr, flags: i32, mode: u32) -> Answer<Fd> {
        sys::open_at(dir, name, flags, mode).map(Fd)
    }
}

impl Drop for Fd {
    #[inline(never)]
    fn drop(&mut self) {
        let _ = sys::close(self.0);
    }
}

/// ppoll(2) of one descriptor: how many are ready.
pub fn ready(fd: &Fd, events: i16, ms: u64) -> Result<usize, i32> {
    let (wanted, time) = ([fd.0, i32::from(events)], sys::Timespec::from_ms(ms));
    ask!(nr::PPOLL, &wanted, 1, &time, 0, 0)
}

/// The path of a descriptor, and something behind it; ends in NUL.
#[inline(never)]
pub fn name_of(fd: &Fd, tail: &str) -> Text<64> {
    Text::format(format_args!("/proc/self/fd/{}{tail}\0", fd.0))
}

/// An empty file without a name, in memory.
#[inline(never)]
pub fn memfd() -> Result<Fd, No> {
    // 3: close on exec, seals allowed
    Fd::of(ask!(nr::MEMFD_CREATE, sys::path(c"abicus"), 3)).at("memfd_create")
}

/// Two ends of a pipe: read, write.
#[inline(never)]
pub fn pipe() -> Result<(Fd, Fd), No> {
    let [from, to] = sys::pipe().at("pipe")?;
    Ok((Fd(from), Fd(to)))
}

/// A step that should be refused with this errno.
#[inline(never)]
pub fn refused<T>(what: &'static str, answer: Answer<T>, wanted: i32) -> Result<(), No> {
    match answer {
        Err(errno) if errno == wanted => Ok(()),
        Err(errno) => Err(at(what, errno)),
        Ok(_) => Err(value(format_args!("{what}: not refused"))),
    }
}

/// Memory that is unmapped when it is no longer needed.
pub struct Map {
    pub at: *mut u8,
    pub len: usize,
}

impl Map {
    /// Zeroed; `kind` is MAP_PRIVATE or MAP_SHARED.
    #[inline(never)]
    pub fn new(len: usize, protection: usize, kind: usize) -> Result<Map, No> {
        sys::map(len, protection, kind).map(|at| Map { at, len }).at("mmap")
    }
    pub fn private(len: usize) -> Result<Map, No> {
        Map::new(len, PROT_READ | PROT_WRITE, MAP_PRIVATE)
    }
    pub fn shared(len: usize) -> Result<Map, No> {
        Map::new(len, PROT_READ | PROT_WRITE, MAP_SHARED)
    }
    /// The start of a file.
    #[inline(never)]
    pub fn file(fd: i32, len: usize, protection: usize, kind: usize) -> Result<Map, No> {
        let at = ask!(nr::MMAP, 0, len, protection, kind, fd, 0).at("mmap")?;
        Ok(Map { at: at as *mut u8, len })
    }
    /// Volatile, because children, threads and the kernel write it too.
    pub fn get(&self, i: usize) -> u8 {
        // SAFETY: within the mapping, which is readable unless the check wants the fault.
        unsafe { self.at.add(i.min(self.len - 1)).read_volatile() }
    }
    pub fn set(&self, i: usize, byte: u8) {
        // SAFETY: within the mapping, which is writable unless the check wants the fault.
        unsafe { self.at.add(i.min(self.len - 1)).write_volatile(byte) }
    }
    /// A word for futex(2) and counting, in units of four bytes.
    pub fn word(&self, i: usize) -> &core::sync::atomic::AtomicU32 {
        // SAFETY: within the mapping and aligned; any bits are a number.
        unsafe { &*self.at.cast::<core::sync::atomic::AtomicU32>().add(i.min(self.len / 4 - 1)) }
    }
    /// The end of a stack in this memory.
    pub fn top(&self) -> usize {
        self.at as usize + self.len
    }
}

impl Drop for Map {
    #[inline(never)]
    fn drop(&mut self) {
        let _ = ask!(nr::MUNMAP, self.at, self.len);
    }
}

/// What stat(2) says, of the fields checks need.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    pub dev: u64,
    pub ino: u64,
    pub mode: u32,
    pub links: u64,
    pub uid: u32,
    pub gid: u32,
    pub size: u64,
    pub mtime: i64,
}

/// newfstatat(2); an empty name asks for `dir` itself. Does not follow a symbolic link.
#[inline(never)]
pub fn stat(dir: i32, name: &core::ffi::CStr) -> Answer<Stat> {
    let mut s = [0u64; 18];
    ask!(nr::NEWFSTATAT, dir, sys::path(name), &mut s, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW)?;
    let (low, high) = (|n: u64| n as u32, |n: u64| (n >> 32) as u32);
    let (mode, links, uid, gid) = if cfg!(target_arch = "x86_64") {
        (low(s[3]), s[2], high(s[3]), low(s[4]))
    } else {
        (low(s[2]), u64::from(high(s[2])), low(s[3]), high(s[3]))
    };
    Ok(Stat { dev: s[0], ino: s[1], mode, links, uid, gid, size: s[6], mtime: s[11] as i64 })
}

/// Gives up all capabilities, and root's privilege to get them back by a change of uid. For a child of its own.
pub fn drop_capabilities() -> Answer {
    let header = [0x2008_0522u32, 0];
    ask!(nr::CAPSET, &header, &[0u32; 6])
}

/// Whether this capability is effective.
#[inline(never)]
pub fn capable(capability: u32) -> bool {
    let (header, mut data) = ([0x2008_0522u32, 0], [0u32; 6]);
    ask!(nr::CAPGET, &header, &mut data).is_ok() && data[(capability / 32 * 3) as usize] >> (capability % 32) & 1 == 1
}

pub const CAP_SETGID: u32 = 6;
pub const CAP_SETUID: u32 = 7;
pub const CAP_NET_ADMIN: u32 = 12;
pub const CAP_SYS_ADMIN: u32 = 21;

//! The whole system call table: is each call there, and what would the filter say.
//!
//! Goes in: the table of the architecture. Comes out: an observation `syscall.NAME` for each, with what the seccomp filter answers. Must
//! not know: whether an absence matters. Presence is asked in one child that goes on after a crash (`child::batch`); the
//! filter in others (`filter.rs`), without executing anything.

use super::arguments::{Recipe, recipe};
use super::check;
use super::filter::{self, Query, Verdict};
use super::rt::child::{self, End, Slot};
use super::rt::consts::*;
use super::rt::line::Line;
use super::rt::sys::{self, call};
use super::rt::text::Text;
use super::rt::{nr, out};
#[cfg(target_arch = "aarch64")]
use super::syscalls_aarch64::TABLE;
#[cfg(target_arch = "x86_64")]
use super::syscalls_x86_64::TABLE;

/// Numbers nobody has been given, on either architecture: what they answer is the policy for the unknown.
static UNASSIGNED: [usize; 5] = [380, 423, 500, 600, 4000];

const MOST: usize = 512;

/// What a call answered, as the child wrote it.
#[derive(Clone, Copy)]
#[repr(C)]
struct Seen {
    asked: bool,
    answer: isize,
}

/// The status of a child that could exit; no errno is that large.
const LEFT: i32 = (filter::MAGIC & 0xff) as i32;

pub type Id = Text<48>;

fn id(i: usize) -> Id {
    let mut id = Id::of(b"syscall.");
    match TABLE.get(i) {
        Some((name, _)) => id.add(name.as_bytes()),
        None => id.add(b"unassigned.").add_number(UNASSIGNED[i - TABLE.len()] as i64),
    };
    id
}

fn number(i: usize) -> usize {
    TABLE.get(i).map_or_else(|| UNASSIGNED[i - TABLE.len()], |row| row.1)
}

fn selected(wanted: &dyn Fn(&[u8]) -> bool) -> impl Iterator<Item = usize> {
    (0..TABLE.len() + UNASSIGNED.len()).filter(move |i| wanted(id(*i).bytes())).take(MOST)
}

pub fn count(wanted: &dyn Fn(&[u8]) -> bool) -> usize {
    selected(wanted).count()
}

/// Asks for all wanted calls and writes what was seen. Returns how many observations were written.
pub fn run(slot: &Slot, wanted: &dyn Fn(&[u8]) -> bool) -> usize {
    // SAFETY: zeroes are such records.
    let Ok(seen) = (unsafe { child::shared::<[Seen; MOST]>() }) else { return 0 };
    let mut calls = [0u16; MOST];
    let mut count = 0;
    for i in selected(wanted) {
        calls[count] = i as u16;
        count += 1;
    }
    let mut ends = [None; MOST];
    let shared = seen.as_mut_ptr();
    child::batch(
        slot,
        count,
        1000,
        &mut |i| {
            let answer = ask(number(calls[i] as usize));
            // SAFETY: within the array; only this child writes now.
            unsafe { shared.add(i).write(Seen { asked: answer.is_some(), answer: answer.unwrap_or(0) }) };
        },
        &mut |i, end| ends[i] = Some(end),
    );
    let mut queries = [Query::NONE; MOST];
    for i in 0..count {
        queries[i] = Query::of(number(calls[i] as usize), seen[i].asked && seen[i].answer == -(ENOSYS as isize));
    }
    let map = filter::ask(slot, &mut queries[..count]);
    out::send(Line::new().text("fact", b"kernel.filter.map").text("value", map.text().bytes()));
    for i in 0..count {
        tell(calls[i] as usize, seen[i], ends[i], queries[i].verdict);
    }
    count
}

fn tell(i: usize, seen: Seen, end: Option<End>, verdict: Verdict) {
    let mut line = Line::new();
    line.text("check", id(i).bytes());
    let recipe = recipe(number(i));
    match (end, recipe) {
        (None, Recipe::Never(why)) => {
            line.text("saw", b"not-asked").text("why", why.as_bytes());
        }
        // The number tells who is not a return probe that it is there.
        (Some(End::Signal { signal: SIGILL, .. }), Recipe::Uretprobe) => {
            line.text("saw", b"ok");
        }
        // Whose restorer went on: see `sys::restore`.
        (Some(End::Exit(errno)), Recipe::Sigreturn) => {
            line.text("saw", b"errno").number("errno", i64::from(errno));
        }
        (Some(end), _) => check::ended(&mut line, end),
        (None, _) if !seen.asked => check::ended(&mut line, End::Exit(0)),
        (None, _) if seen.answer < 0 => {
            line.text("saw", b"errno").number("errno", -seen.answer as i64);
        }
        (None, _) => {
            line.text("saw", b"ok");
        }
    }
    line.text("filter", verdict.text().bytes());
    out::send(&mut line);
}

/// Makes the call. None where it is never made.
fn ask(number: usize) -> Option<isize> {
    // SAFETY: `arguments.rs` says why each of these does nothing.
    unsafe {
        Some(match recipe(number) {
            Recipe::Call(arguments) => sys::raw(number, arguments),
            Recipe::Uretprobe => sys::raw(number, [usize::MAX; 6]),
            Recipe::Fork(arguments) => fork(number, arguments),
            Recipe::Exit => leave(number),
            Recipe::Sigreturn => sigreturn(),
            Recipe::Pause => pause(number),
            Recipe::Vhangup => {
                let _ = call!(nr::SETSID);
                sys::raw(number, [usize::MAX; 6])
            }
            Recipe::Never(_) => return None,
        })
    }
}

/// Raises a signal without a system call and comes back from its handler. Where that is refused, `sys::restore` ends the child.
fn sigreturn() -> isize {
    #[cfg(target_arch = "x86_64")]
    {
        let action = sys::Sigaction { handler: nothing as *const () as usize, flags: SA_SIGINFO, ..Default::default() };
        let before = sys::set_action(SIGTRAP, &action);
        // SAFETY: a trap with a handler, which goes on behind it.
        unsafe { core::arch::asm!("int3") };
        if let Ok(before) = before {
            let _ = sys::set_action(SIGTRAP, &before);
        }
    }
    // A breakpoint there goes on where it was.
    #[cfg(target_arch = "aarch64")]
    {
        let _ = sys::handle(SIGUSR1, nothing, 0);
        let _ = sys::kill(sys::getpid(), SIGUSR1);
    }
    0
}

extern "C" fn nothing(_: i32, _: *mut sys::Siginfo, _: *mut core::ffi::c_void) {}

/// # Safety
/// `number` is pause, which ends when the timer's signal comes.
unsafe fn pause(number: usize) -> isize {
    let _ = sys::handle(SIGALRM, nothing, 0);
    // 0 is ITIMER_REAL. Repeats, because one that fires before the pause would leave it waiting for ever.
    let every: [u64; 4] = [0, 2000, 0, 2000];
    let never = [0u64; 4];
    // SAFETY: two struct itimerval to read.
    unsafe {
        let _ = call!(nr::SETITIMER, 0, &every, 0);
        let answer = sys::raw(number, [0; 6]);
        let _ = call!(nr::SETITIMER, 0, &never, 0);
        answer
    }
}

/// exit and exit_group, by a child. 0 when it ended by it.
///
/// # Safety
/// `number` is one of the two.
unsafe fn leave(number: usize) -> isize {
    match sys::fork() {
        Ok(0) => {
            // SAFETY: takes no address.
            let errno = -unsafe { sys::raw(number, [filter::MAGIC as usize, 0, 0, 0, 0, 0]) };
            sys::exit(errno as i32)
        }
        Ok(pid) => match sys::wait(pid, 0) {
            Ok((_, status)) if status & 0x7f == 0 && status >> 8 == LEFT => 0,
            Ok((_, status)) if status & 0x7f == 0 => -((status >> 8) as isize),
            // Killed for it, as whoever calls it will be: so is this child.
            Ok((_, status)) => {
                let _ = sys::set_action(status & 0x7f, &sys::Sigaction::default());
                let _ = sys::kill(sys::getpid(), status & 0x7f);
                0
            }
            Err(errno) => -(errno as isize),
        },
        Err(errno) => -(errno as isize),
    }
}

/// The process calls. A child ends within the same instructions: after vfork it may not touch the stack it shares.
///
/// # Safety
/// The call makes a process with this one's stack, or fails.
unsafe fn fork(number: usize, arguments: [usize; 2]) -> isize {
    let answer: isize;
    // SAFETY: the child's part takes no memory; the parent sees an ordinary system call.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        core::arch::asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor edi, edi",
            "mov eax, 231",
            "syscall",
            "mov eax, 60",
            "syscall",
            "ud2",
            "2:",
            inlateout("rax") number => answer,
            inlateout("rdi") arguments[0] => _, in("rsi") arguments[1], in("rdx") 0, in("r10") 0, in("r8") 0, in("r9") usize::MAX,
            out("rcx") _, out("r11") _,
        );
    }
    // SAFETY: as above.
    #[cfg(target_arch = "aarch64")]
    unsafe {
        core::arch::asm!(
            "svc #0",
            "cbnz x0, 2f",
            "mov x8, #94",
            "svc #0",
            "mov x8, #93",
            "svc #0",
            "brk #1",
            "2:",
            inlateout("x8") number => _,
            inlateout("x0") arguments[0] => answer,
            in("x1") arguments[1], in("x2") 0, in("x3") 0, in("x4") 0, in("x5") usize::MAX,
        );
    }
    if answer > 0 {
        let _ = sys::wait(answer as i32, 0);
        return 0;
    }
    answer
}

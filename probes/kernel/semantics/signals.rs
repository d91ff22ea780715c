//! Signals: delivery, queues, alternate stacks, waiting for them.
//!
//! Goes in: nothing. Comes out: answers. Must not know: which answers are good. Handlers stay within their own child.

use core::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use crate::asking::*;
use crate::rt::consts::*;
use crate::rt::nr;
use crate::rt::sys::{self, Siginfo, Timespec};

checks![
    Own "kernel.signal.handler" => handler,
    Own "kernel.signal.altstack" => altstack,
    Own "kernel.signal.restart" => restart,
    Batch "kernel.signal.queue" => queue,
    Own "kernel.signal.thread" => thread,
    Own "kernel.signal.suspend" => suspend,
];

/// The last signal, and the address of a variable of its handler.
static GOT: [AtomicUsize; 2] = [AtomicUsize::new(0), AtomicUsize::new(0)];

extern "C" fn note(signal: i32, _: *mut Siginfo, _: *mut core::ffi::c_void) {
    let here = 0u8;
    GOT[0].store(signal as usize, SeqCst);
    GOT[1].store(&raw const here as usize, SeqCst);
}

fn handler() -> Does {
    sys::handle(SIGUSR1, note, 0).at("rt_sigaction")?;
    sys::kill(sys::getpid(), SIGUSR1)?;
    same("signal", GOT[0].load(SeqCst), SIGUSR1 as usize)
}

fn altstack() -> Does {
    let stack = Map::private(64 * 1024)?;
    // ss_sp, ss_flags, ss_size
    must!(nr::SIGALTSTACK, &[stack.at as usize, 0, stack.len], 0);
    sys::handle(SIGUSR1, note, SA_ONSTACK).at("rt_sigaction")?;
    sys::kill(sys::getpid(), SIGUSR1).at("kill")?;
    let at = GOT[1].load(SeqCst);
    // Turned off before the stack goes: SS_DISABLE.
    must!("SS_DISABLE"; nr::SIGALTSTACK, &[0usize, 2, 0], 0);
    holds("the handler ran on another stack", (stack.at as usize..stack.top()).contains(&at))
}

/// A read that a signal interrupts goes on with SA_RESTART.
fn restart() -> Does {
    sys::handle(SIGALRM, note, 0x1000_0000).at("rt_sigaction")?;
    let (from, to) = pipe()?;
    // ITIMER_REAL after a millisecond; then somebody writes.
    must!("setitimer"; nr::SETITIMER, 0, &[0usize, 0, 0, 1000], 0);
    let writer = Twin::start(&mut || {
        sys::sleep_ms(4);
        i32::from(sys::write(to.0, b"x").is_err())
    })?;
    let mut room = [0; 2];
    same("bytes", sys::read(from.0, &mut room)?, 1)?;
    writer.wait()?;
    same("signal", GOT[0].load(SeqCst), SIGALRM as usize)
}

/// A blocked signal with a value, taken by rt_sigtimedwait(2).
fn queue() -> Does {
    let set = sys::bit(SIGUSR2);
    let before = sys::set_mask(set);
    // SI_QUEUE; si_value follows pid and uid.
    let info = [SIGUSR2, 0, -1, 0, 0, 0, 42, 0];
    let mut room = [0i32; 32];
    let mut full = [0i32; 32];
    full[..8].copy_from_slice(&info);
    let sent = ask!(nr::RT_SIGQUEUEINFO, sys::getpid(), SIGUSR2, &full);
    let taken = ask!(nr::RT_SIGTIMEDWAIT, &set, &mut room, &Timespec::from_ms(100), 8);
    sys::set_mask(before);
    sent.at("rt_sigqueueinfo")?;
    same("signal", taken.at("rt_sigtimedwait")?, SIGUSR2 as usize)?;
    same("value", room[6] as usize, 42)
}

fn thread() -> Does {
    sys::handle(SIGUSR1, note, 0).at("rt_sigaction")?;
    let me = must!("gettid"; nr::GETTID);
    must!(nr::TGKILL, sys::getpid(), me, SIGUSR1);
    same("signal", GOT[0].load(SeqCst), SIGUSR1 as usize)
}

/// rt_sigsuspend(2) opens the mask for the signal that is pending.
fn suspend() -> Does {
    sys::handle(SIGUSR1, note, 0).at("rt_sigaction")?;
    sys::set_mask(sys::bit(SIGUSR1));
    sys::kill(sys::getpid(), SIGUSR1).at("kill")?;
    same("signal before", GOT[0].load(SeqCst), 0)?;
    refused("rt_sigsuspend", ask!(nr::RT_SIGSUSPEND, &0u64, 8), EINTR)?;
    same("signal", GOT[0].load(SeqCst), SIGUSR1 as usize)
}

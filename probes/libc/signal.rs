//! Signals, alternate stacks, timers and limits of memory.
//!
//! Goes in: the libc's functions and AT_MINSIGSTKSZ. Comes out: whether handlers run and where. Must not know: which CPU
//! features make a signal frame large; only that old programs reserve 2,048 bytes for it.

use core::ffi::c_int;
use core::sync::atomic::{AtomicI32, AtomicUsize, Ordering::SeqCst};

use crate::api::{Any, Opaque, SigAction};
use crate::cell::Cell;
use crate::rt::consts::*;
use crate::rt::sys::Siginfo;
use crate::rt::{process, sys};
use crate::saw::{Saw, Seen, expect};
use crate::thread::{any, join, spawn};
use crate::{Check, not_asked, value};

pub const CHECKS: &[Check] = &[
    Check::new("libc.signal.handler", handler),
    Check::new("libc.signal.queue", queue),
    Check::new("libc.signal.wait", wait),
    Check::new("libc.signal.fault", fault),
    Check::new("libc.signal.mask-of-threads", mask_of_threads),
    Check::new("libc.signal.altstack", altstack),
    Check::new("libc.signal.altstack.2048", altstack_constant),
    Check::new("libc.signal.altstack.8192", altstack_usual),
    Check::new("libc.signal.minimum-stack", minimum_stack),
    Check::new("libc.signal.alarm", alarm),
    Check::new("libc.time.timer", timer),
    Check::new("libc.memory.malloc", malloc),
    Check::new("libc.memory.aligned", aligned),
    Check::new("libc.memory.huge", huge),
    Check::new("libc.memory.limit", limit),
    Check::new("libc.memory.trim", trim),
    Check::new("libc.random.getrandom", getrandom),
    Check::new("libc.random.getentropy", getentropy),
    Check::new("libc.random.arc4random", arc4random),
];

const NULL: Any = core::ptr::null_mut();
const SIGINFO: c_int = SA_SIGINFO as c_int;
const ONSTACK: c_int = SA_ONSTACK as c_int;

static HIT: AtomicI32 = AtomicI32::new(0);
static WHERE: AtomicUsize = AtomicUsize::new(0);

type Handler = extern "C" fn(c_int, *mut Siginfo, Any);

fn install(cell: &Cell, signal: c_int, handler: Handler, flags: c_int) -> Result<(), Saw> {
    let action = SigAction { handler: handler as usize, mask: [0; 16], flags: flags | SIGINFO, restorer: 0 };
    // SAFETY: a structure of the libc's layout.
    unsafe { cell.check(cell.sigaction(signal, &action, core::ptr::null_mut()), "sigaction")? };
    Ok(())
}

extern "C" fn note(signal: c_int, info: *mut Siginfo, _: Any) {
    let here = 0u8;
    HIT.store(signal, SeqCst);
    // SAFETY: the kernel hands over a siginfo. The value of a queued signal follows pid and uid.
    WHERE.store(if signal == SIGUSR2 { unsafe { (*info).more[0] as usize } } else { &raw const here as usize }, SeqCst);
}

fn handler(cell: &Cell, _: usize) -> Seen {
    install(cell, SIGUSR1, note, 0)?;
    // SAFETY: takes no address.
    unsafe { cell.check(cell.raise(SIGUSR1), "raise")? };
    expect(HIT.load(SeqCst) == SIGUSR1, b"the handler did not run")?;
    Ok(Saw::Ok)
}

fn queue(cell: &Cell, _: usize) -> Seen {
    install(cell, SIGUSR2, note, 0)?;
    // SAFETY: takes no address.
    unsafe { cell.check(cell.sigqueue(cell.getpid(), SIGUSR2, 4711), "sigqueue")? };
    expect(HIT.load(SeqCst) == SIGUSR2 && WHERE.load(SeqCst) == 4711, b"the value did not arrive")?;
    Ok(Saw::Ok)
}

fn set_of(cell: &Cell, signal: c_int) -> Result<Opaque<16>, Saw> {
    let mut set = [0; 16];
    // SAFETY: room for a signal set.
    unsafe {
        cell.sigemptyset(&mut set);
        cell.sigaddset(&mut set, signal);
    }
    Ok(set)
}

fn wait(cell: &Cell, _: usize) -> Seen {
    let set = set_of(cell, SIGUSR1)?;
    // SAFETY: signal sets, no information wanted, a time.
    unsafe {
        cell.check(cell.sigprocmask(0, &set, core::ptr::null_mut()), "sigprocmask")?;
        cell.check(cell.raise(SIGUSR1), "raise")?;
        let signal = cell.check(cell.sigtimedwait(&set, NULL, &[1, 0]), "sigtimedwait")?;
        expect(signal == SIGUSR1, b"another signal")?;
    }
    Ok(Saw::Ok)
}

/// A read of an unmapped page must come with its address: garbage collectors and virtual machines live by it.
fn fault(cell: &Cell, _: usize) -> Seen {
    static PAGE: AtomicUsize = AtomicUsize::new(0);
    extern "C" fn repair(_: c_int, info: *mut Siginfo, _: Any) {
        // SAFETY: the kernel hands over a siginfo; the page is ours, and readable from here on.
        unsafe {
            WHERE.store((*info).at, SeqCst);
            let _ = sys::call!(crate::rt::nr::MPROTECT, PAGE.load(SeqCst), 4096, PROT_READ);
        }
    }
    install(cell, SIGSEGV, repair, 0)?;
    let page = sys::map(4096, PROT_NONE, MAP_PRIVATE).map_err(|errno| Saw::Errno(errno, "mmap"))?;
    PAGE.store(page as usize, SeqCst);
    // SAFETY: the page is mapped, and the handler makes it readable.
    let byte = unsafe { page.add(8).read_volatile() };
    expect(byte == 0 && WHERE.load(SeqCst) == page as usize + 8, b"another address")?;
    Ok(Saw::Ok)
}

/// A signal for the process goes to the thread that does not block it.
fn mask_of_threads(cell: &Cell, _: usize) -> Seen {
    extern "C" fn idle(_: Any) -> Any {
        while HIT.load(SeqCst) == 0 {
            sys::sleep_ms(1);
        }
        NULL
    }
    install(cell, SIGUSR1, note, 0)?;
    let set = set_of(cell, SIGUSR1)?;
    // SAFETY: a signal set; a thread that runs until the signal was handled.
    unsafe {
        let thread = spawn(cell, idle, NULL)?;
        crate::api::zero(cell.pthread_sigmask(0, &set, core::ptr::null_mut()), "pthread_sigmask")?;
        cell.check(cell.kill(cell.getpid(), SIGUSR1), "kill")?;
        join(cell, thread)?;
    }
    Ok(Saw::Ok)
}

/// Takes a signal on an alternate stack of this size, at the end of a mapping whose other part must stay untouched.
fn on_stack(cell: &Cell, size: usize) -> Seen {
    const ROOM: usize = 256 * 1024;
    let size = size.min(ROOM);
    let room = sys::map(ROOM, PROT_READ | PROT_WRITE, MAP_PRIVATE).map_err(|errno| Saw::Errno(errno, "mmap"))?;
    let base = room as usize + ROOM - size;
    // SAFETY: three words as struct stack_t has: address, flags, size.
    unsafe { cell.check(cell.sigaltstack(&[base, 0, size], core::ptr::null_mut()), "sigaltstack")? };
    install(cell, SIGUSR1, note, ONSTACK)?;
    // SAFETY: takes no address.
    unsafe { cell.check(cell.raise(SIGUSR1), "raise")? };
    let at = WHERE.load(SeqCst);
    expect((base..base + size).contains(&at), b"the handler ran on another stack")?;
    Ok(Saw::Ok)
}

fn minimum(cell: &Cell) -> Result<usize, Saw> {
    match process::aux(AT_MINSIGSTKSZ) {
        Some(size) => Ok(size),
        None => {
            let _ = cell;
            Err(not_asked!("this kernel does not say AT_MINSIGSTKSZ (since linux 5.14)"))
        }
    }
}

/// As large as the kernel says, and room for a handler.
fn altstack(cell: &Cell, _: usize) -> Seen {
    on_stack(cell, process::aux(AT_MINSIGSTKSZ).unwrap_or(2048) + 16 * 1024)
}

fn altstack_constant(cell: &Cell, _: usize) -> Seen {
    on_stack(cell, 2048)
}

fn altstack_usual(cell: &Cell, _: usize) -> Seen {
    on_stack(cell, 8192)
}

fn minimum_stack(cell: &Cell, _: usize) -> Seen {
    const SC_MINSIGSTKSZ: c_int = 249;
    let kernel = minimum(cell)?;
    // SAFETY: takes no address.
    let libc = unsafe { cell.sysconf(SC_MINSIGSTKSZ) };
    match libc {
        -1 => Err(not_asked!("this libc does not know _SC_MINSIGSTKSZ (since glibc 2.34)")),
        // glibc computes it from CPUID and may round; a smaller one would overflow.
        size if size as usize + 512 >= kernel => Ok(Saw::Ok),
        size => Err(value!("the libc says {size}, the kernel {kernel}")),
    }
}

fn alarm(cell: &Cell, _: usize) -> Seen {
    install(cell, SIGALRM, note, 0)?;
    // On a busy machine the first signal may come before the sleep has begun: more of them follow.
    // SAFETY: a timer of a millisecond; a time of two seconds, which the signal interrupts.
    unsafe {
        cell.check(cell.setitimer(0, &[0, 50_000, 0, 1000], core::ptr::null_mut()), "setitimer")?;
        let slept = cell.nanosleep(&[2, 0], core::ptr::null_mut());
        expect(slept == -1 && cell.errno() == EINTR, b"the sleep was not interrupted")?;
    }
    expect(HIT.load(SeqCst) == SIGALRM, b"the handler did not run")?;
    Ok(Saw::Ok)
}

fn timer(cell: &Cell, _: usize) -> Seen {
    install(cell, SIGUSR1, note, 0)?;
    // struct sigevent: value, signal and SIGEV_SIGNAL (0), padding.
    let mut event: Opaque<8> = [0; 8];
    event[1] = SIGUSR1 as u64;
    let mut timer = NULL;
    // More than one signal, as above.
    // SAFETY: a sigevent, room for the timer, times.
    unsafe {
        cell.check(cell.timer_create(1, any(&mut event), &mut timer), "timer_create")?;
        let set = cell.timer_settime(timer, 0, &[0, 50_000_000, 0, 1_000_000], core::ptr::null_mut());
        cell.check(set, "timer_settime")?;
        let slept = cell.nanosleep(&[2, 0], core::ptr::null_mut());
        expect(slept == -1, b"the sleep was not interrupted")?;
    }
    expect(HIT.load(SeqCst) == SIGUSR1, b"the handler did not run")?;
    Ok(Saw::Ok)
}

fn malloc(cell: &Cell, _: usize) -> Seen {
    // SAFETY: writes within the blocks and frees them once.
    unsafe {
        for size in [1usize, 24, 4096, 100_000, 20 << 20] {
            let block = cell.some(cell.malloc(size).cast::<u8>(), "malloc")?;
            block.write_volatile(1);
            block.add(size - 1).write_volatile(2);
            let larger = cell.some(cell.realloc(block.cast(), size * 2).cast::<u8>(), "realloc")?;
            expect(larger.read() == 1 || size == 1, b"realloc lost the content")?;
            larger.add(size * 2 - 1).write_volatile(3);
            cell.free(larger.cast());
        }
        let zeroed = cell.some(cell.calloc(1000, 100).cast::<u8>(), "calloc")?;
        expect((0..100_000).all(|at| zeroed.add(at).read() == 0), b"calloc is not zero")?;
        expect(cell.calloc(usize::MAX / 2, 4).is_null(), b"calloc overflows")?;
    }
    Ok(Saw::Ok)
}

fn aligned(cell: &Cell, _: usize) -> Seen {
    let mut block = NULL;
    // SAFETY: room for the address.
    unsafe {
        crate::api::zero(cell.posix_memalign(&mut block, 1 << 16, 1000), "posix_memalign")?;
        expect(!block.is_null() && (block as usize).is_multiple_of(1 << 16), b"not aligned")?;
        let page = cell.some(cell.aligned_alloc(4096, 8192), "aligned_alloc")?;
        expect((page as usize).is_multiple_of(4096), b"not aligned")?;
    }
    Ok(Saw::Ok)
}

/// Memory that is reserved and not touched: Java, Go, ASAN and databases take more than there is.
fn huge(cell: &Cell, _: usize) -> Seen {
    // SAFETY: the block is not touched.
    unsafe { cell.some(cell.malloc(8 << 30), "malloc of 8 GiB")? };
    Ok(Saw::Ok)
}

/// Out of memory must be a null pointer and not a crash, and what was there must still work.
fn limit(cell: &Cell, _: usize) -> Seen {
    const RLIMIT_AS: c_int = 9;
    let bytes = 256u64 << 20;
    // SAFETY: a limit to read and one to set, for this child only; blocks are written within.
    unsafe {
        let mut now = [0; 2];
        cell.check(cell.getrlimit(RLIMIT_AS, &mut now), "getrlimit")?;
        cell.check(cell.setrlimit(RLIMIT_AS, &[bytes.min(now[1]), now[1]]), "setrlimit")?;
        let block = cell.malloc(1 << 30);
        let errno = cell.errno();
        expect(block.is_null(), b"the limit did not hold")?;
        if errno != ENOMEM {
            return Err(Saw::Errno(errno, "malloc beyond the limit"));
        }
        let small = cell.some(cell.malloc(1 << 20).cast::<u8>(), "malloc below the limit")?;
        small.add((1 << 20) - 1).write_volatile(1);
    }
    Ok(Saw::Ok)
}

fn trim(cell: &Cell, _: usize) -> Seen {
    // SAFETY: frees what it allocated.
    unsafe {
        let block = cell.some(cell.malloc(100_000), "malloc")?;
        expect(cell.malloc_usable_size(block) >= 100_000, b"the block is too small")?;
        cell.free(block);
        cell.malloc_trim(0);
    }
    Ok(Saw::Ok)
}

fn varied(bytes: &[u8]) -> Result<(), Saw> {
    expect(bytes.iter().any(|byte| *byte != bytes[0]), b"all bytes are the same")
}

fn getrandom(cell: &Cell, _: usize) -> Seen {
    let mut room = [0u8; 64];
    // SAFETY: the room's own size. 1 is GRND_NONBLOCK.
    let size = unsafe { cell.check(cell.getrandom(any(&mut room), 64, 1), "getrandom")? };
    expect(size == 64, b"fewer bytes")?;
    varied(&room)?;
    Ok(Saw::Ok)
}

fn getentropy(cell: &Cell, _: usize) -> Seen {
    let mut room = [0u8; 64];
    // SAFETY: the room's own size.
    unsafe { cell.check(cell.getentropy(any(&mut room), 64), "getentropy")? };
    varied(&room)?;
    Ok(Saw::Ok)
}

fn arc4random(cell: &Cell, _: usize) -> Seen {
    let mut numbers = [0u32; 8];
    for number in &mut numbers {
        // SAFETY: takes nothing.
        *number = unsafe { cell.arc4random() };
    }
    expect(numbers.iter().any(|number| *number != numbers[0]), b"all numbers are the same")?;
    Ok(Saw::Ok)
}

//! Waiting for things: poll, epoll, eventfd, timerfd, signalfd, futexes, asynchronous input and output.
//!
//! Goes in: nothing. Comes out: answers. Must not know: which answers are good.

use core::sync::atomic::{AtomicU32, Ordering::SeqCst};

use crate::asking::*;
use crate::rt::consts::*;
use crate::rt::nr;
use crate::rt::sys::{self, Timespec};

checks![
    Batch "kernel.poll.timeout" => poll_timeout,
    Batch "kernel.poll.ready" => poll_ready,
    Batch "kernel.select.ready" => select_ready,
    Batch "kernel.epoll.wait" => epoll_wait,
    Batch "kernel.epoll.edge" => epoll_edge,
    Batch "kernel.epoll.nested" => epoll_nested,
    Batch "kernel.epoll.pwait2" => epoll_pwait2,
    Batch "kernel.eventfd.count" => eventfd_count,
    Batch "kernel.eventfd.semaphore" => eventfd_semaphore,
    Batch "kernel.timerfd.expire" => timerfd_expire,
    Batch "kernel.signalfd.read" => signalfd_read,
    Batch "kernel.futex.wake" => futex_wake,
    Batch "kernel.futex.timeout" => futex_timeout,
    Batch "kernel.futex.realtime" => futex_realtime,
    Batch "kernel.futex.requeue" => futex_requeue,
    Batch "kernel.futex.priority" => futex_priority,
    Batch "kernel.futex.waitv" => futex_waitv,
    Batch "kernel.futex.wait2" => futex_wait2,
    Own "kernel.io_uring.nop" => io_uring_nop,
    Own "kernel.io_uring.read" => io_uring_read,
    Batch "kernel.io_uring.operations" => io_uring_operations,
    Aside "kernel.aio.read" => aio_read,
];

fn poll_timeout() -> Does {
    let (from, _to) = pipe()?;
    let start = sys::now_ms();
    same("ready", ready(&from, 1, 2)?, 0)?;
    holds("did not wait", sys::now_ms() > start)
}

fn poll_ready() -> Does {
    let (from, to) = pipe()?;
    sys::write(to.0, b"x").at("write")?;
    same("ready", ready(&from, 1, 200)?, 1)?;
    drop(from);
    // POLLERR comes unasked.
    same("ready for an error", ready(&to, 0, 200)?, 1)
}

fn select_ready() -> Does {
    let (from, to) = pipe()?;
    sys::write(to.0, b"x").at("write")?;
    let mut set = [0u64; 16];
    let Some(word) = set.get_mut(from.0 as usize / 64) else { return Err(word("a descriptor above 1023")) };
    *word = 1 << (from.0 % 64);
    same("ready", must!(nr::PSELECT6, from.0 + 1, &mut set, 0, 0, &Timespec::from_ms(200), 0), 1)
}

/// struct epoll_event, which is packed on x86-64 only.
#[cfg_attr(target_arch = "x86_64", repr(C, packed))]
#[cfg_attr(not(target_arch = "x86_64"), repr(C))]
#[derive(Clone, Copy)]
struct Event {
    events: u32,
    data: u64,
}

fn epoll() -> Result<Fd, No> {
    Ok(Fd(must!("epoll_create1"; nr::EPOLL_CREATE1, O_CLOEXEC) as i32))
}

fn add(to: &Fd, fd: i32, events: u32) -> Does {
    let event = Event { events, data: 42 };
    must!("EPOLL_CTL_ADD"; nr::EPOLL_CTL, to.0, 1, fd, &event);
    Ok(())
}

/// How many events are there, after waiting at most `ms`.
fn events(of: &Fd, ms: i32) -> Result<usize, i32> {
    let mut room = [Event { events: 0, data: 0 }; 4];
    let n = ask!(nr::EPOLL_PWAIT, of.0, &mut room, 4, ms, 0, 8)?;
    Ok(if n > 0 && room[0].data != 42 { 99 } else { n })
}

fn eventfd(flags: i32) -> Result<Fd, No> {
    Ok(Fd(must!("eventfd2"; nr::EVENTFD2, 0, O_CLOEXEC | O_NONBLOCK | flags) as i32))
}

fn epoll_wait() -> Does {
    let (poll, event) = (epoll()?, eventfd(0)?);
    add(&poll, event.0, 1)?;
    same("events before", events(&poll, 0).at("epoll_pwait")?, 0)?;
    sys::write(event.0, &1u64.to_ne_bytes()).at("write")?;
    same("events", events(&poll, 200)?, 1)?;
    same("events again", events(&poll, 0)?, 1)
}

/// EPOLLIN | EPOLLET
fn epoll_edge() -> Does {
    let (poll, event) = (epoll()?, eventfd(0)?);
    add(&poll, event.0, 1 | 1 << 31)?;
    sys::write(event.0, &1u64.to_ne_bytes()).at("write")?;
    same("events", events(&poll, 200).at("epoll_pwait")?, 1)?;
    same("events again", events(&poll, 0).at("epoll_pwait")?, 0)
}

fn epoll_nested() -> Does {
    let (outer, inner, event) = (epoll()?, epoll()?, eventfd(0)?);
    add(&outer, inner.0, 1)?;
    add(&inner, event.0, 1)?;
    sys::write(event.0, &1u64.to_ne_bytes()).at("write")?;
    same("events", events(&outer, 200).at("epoll_pwait")?, 1)
}

fn epoll_pwait2() -> Does {
    let (poll, event) = (epoll()?, eventfd(0)?);
    add(&poll, event.0, 1)?;
    let mut room = [Event { events: 0, data: 0 }; 4];
    let short = Timespec { sec: 0, nsec: 50_000 };
    same("events before", must!(nr::EPOLL_PWAIT2, poll.0, &mut room, 4, &short, 0, 8), 0)?;
    sys::write(event.0, &1u64.to_ne_bytes()).at("write")?;
    same("events", must!(nr::EPOLL_PWAIT2, poll.0, &mut room, 4, &short, 0, 8), 1)
}

/// The number in an eventfd.
fn count(of: &Fd) -> Result<usize, No> {
    let mut room = [0; 8];
    sys::read(of.0, &mut room).at("read")?;
    Ok(u64::from_ne_bytes(room) as usize)
}

fn eventfd_count() -> Does {
    let event = eventfd(0)?;
    for n in [2u64, 3] {
        sys::write(event.0, &n.to_ne_bytes()).at("write")?;
    }
    same("count", count(&event)?, 5)?;
    refused("read of none", sys::read(event.0, &mut [0; 8]), EAGAIN)
}

fn eventfd_semaphore() -> Does {
    let event = eventfd(1)?;
    sys::write(event.0, &2u64.to_ne_bytes()).at("write")?;
    same("count", count(&event)?, 1)?;
    same("count again", count(&event)?, 1)
}

fn timerfd_expire() -> Does {
    let timer = Fd(must!(nr::TIMERFD_CREATE, CLOCK_MONOTONIC, O_CLOEXEC) as i32);
    // interval, then first
    let times = [Timespec::default(), Timespec { sec: 0, nsec: 100_000 }];
    must!("timerfd_settime"; nr::TIMERFD_SETTIME, timer.0, 0, &times, 0);
    same("ready", ready(&timer, 1, 200).at("ppoll")?, 1)?;
    same("times expired", count(&timer)?, 1)
}

fn signalfd_read() -> Does {
    let set = sys::bit(SIGUSR1);
    let before = sys::set_mask(set);
    let asked = || {
        let fd = Fd(must!(nr::SIGNALFD4, -1, &set, 8, O_CLOEXEC | O_NONBLOCK) as i32);
        sys::kill(sys::getpid(), SIGUSR1).at("kill")?;
        let mut info = [0u32; 32];
        same("bytes", must!("read"; nr::READ, fd.0, &mut info, 128), 128)?;
        same("signal", info[0] as usize, SIGUSR1 as usize)
    };
    let done = asked();
    // Whatever became of it, nobody else shall get it.
    let _ = ask!(nr::RT_SIGTIMEDWAIT, &set, 0, &Timespec::default(), 8);
    sys::set_mask(before);
    done
}

/// FUTEX_WAIT is 0, FUTEX_WAKE 1, FUTEX_CMP_REQUEUE 4, FUTEX_LOCK_PI 6, FUTEX_WAIT_BITSET 9; 128 is private.
fn futex(word: &AtomicU32, what: usize, value: u32, more: usize, other: usize, last: usize) -> Result<usize, i32> {
    ask!(nr::FUTEX, word, what, value, more, other, last)
}

/// Sets the first word and wakes whoever waits for it.
extern "C" fn waker(word: usize) {
    // SAFETY: the maker waits for this thread before the word goes away.
    let word = unsafe { &*(word as *const AtomicU32) };
    sys::sleep_ms(1);
    word.store(1, SeqCst);
    let _ = ask!(nr::FUTEX, word, 129, 1);
}

fn address(word: &AtomicU32) -> usize {
    core::ptr::from_ref(word) as usize
}

fn futex_wake() -> Does {
    let word = AtomicU32::new(0);
    let time = Timespec::from_ms(200);
    let thread = Thread::start(waker, address(&word))?;
    let mut answer = Ok(0);
    while word.load(SeqCst) == 0 && !matches!(answer, Err(errno) if errno != EINTR && errno != EAGAIN) {
        answer = futex(&word, 128, 0, &raw const time as usize, 0, 0);
    }
    thread.join();
    match answer {
        Err(errno) if errno != EAGAIN => Err(errno.into()),
        _ => same("word", word.load(SeqCst) as usize, 1),
    }
}

fn futex_timeout() -> Does {
    let (word, time) = (AtomicU32::new(0), Timespec { sec: 0, nsec: 100_000 });
    refused("wait", futex(&word, 128, 0, &raw const time as usize, 0, 0), ETIMEDOUT)?;
    refused("wait for another value", futex(&word, 128, 7, &raw const time as usize, 0, 0), EAGAIN)
}

/// FUTEX_WAIT_BITSET | FUTEX_CLOCK_REALTIME, as pthread_cond_timedwait(3) waits, until a time that is over.
fn futex_realtime() -> Does {
    let (word, time) = (AtomicU32::new(0), Timespec { sec: 1, nsec: 0 });
    let all = u32::MAX as usize;
    refused("wait", futex(&word, 128 | 256 | 9, 0, &raw const time as usize, 0, all), ETIMEDOUT)
}

/// Nobody waits: none is woken, none is moved.
fn futex_requeue() -> Does {
    let words = [AtomicU32::new(5), AtomicU32::new(0)];
    same("moved", futex(&words[0], 132, 1, 1, address(&words[1]), 5)?, 0)?;
    refused("with another value", futex(&words[0], 132, 1, 1, address(&words[1]), 6), EAGAIN)
}

/// FUTEX_LOCK_PI writes the owner's id.
fn futex_priority() -> Does {
    let word = AtomicU32::new(0);
    futex(&word, 134, 0, 0, 0, 0)?;
    same("owner", word.load(SeqCst) as usize, must!("gettid"; nr::GETTID))?;
    futex(&word, 135, 0, 0, 0, 0).at("FUTEX_UNLOCK_PI")?;
    same("owner after", word.load(SeqCst) as usize, 0)
}

/// Waits for two words of which one has another value already, then for two that have theirs.
fn futex_waitv() -> Does {
    let words = [AtomicU32::new(0), AtomicU32::new(0)];
    // struct futex_waitv: value, address, flags (32 bits, private)
    let mut wait = [0, address(&words[0]) as u64, 2 | 128, 7, address(&words[1]) as u64, 2 | 128];
    refused("a value that is not there", ask!(nr::FUTEX_WAITV, &wait, 2, 0, 0, CLOCK_MONOTONIC), EAGAIN)?;
    wait[3] = 0;
    let past = Timespec { sec: 0, nsec: 1 };
    refused("a time that is over", ask!(nr::FUTEX_WAITV, &wait, 2, 0, &past, CLOCK_MONOTONIC), ETIMEDOUT)
}

/// futex_wait(2) and futex_wake(2) of 6.7.
fn futex_wait2() -> Does {
    let (word, past) = (AtomicU32::new(0), Timespec { sec: 0, nsec: 1 });
    let all = u32::MAX as usize;
    refused("wait", ask!(nr::FUTEX_WAIT, &word, 0, all, 2 | 128, &past, CLOCK_MONOTONIC), ETIMEDOUT)?;
    same("woken", must!("futex_wake"; nr::FUTEX_WAKE, &word, all, 1, 2 | 128), 0)
}

/// A ring of four entries: its descriptor, its two rings in one mapping, its entries.
struct Ring {
    fd: Fd,
    rings: Map,
    entries: Map,
    params: [u32; 30],
}

impl Ring {
    fn new() -> Result<Ring, No> {
        let mut params = [0u32; 30];
        let fd = Fd(must!(nr::IO_URING_SETUP, 4, &mut params) as i32);
        // sq_off.array and cq_off.cqes are the last parts of their rings; before 5.4 they were two mappings.
        if params[5] & 1 == 0 {
            return Err(not_asked("a kernel before 5.4 maps its rings apart"));
        }
        let len = (params[20 + 5] as usize + 16 * params[1] as usize).max(params[10 + 6] as usize + 4 * 4);
        let all = PROT_READ | PROT_WRITE;
        let rings = Map::file(fd.0, len, all, MAP_SHARED | 0x8000)?;
        let at = must!("mmap of entries"; nr::MMAP, 0, 4 * 64, all, MAP_SHARED | 0x8000, fd.0, 0x1000_0000);
        Ok(Ring { fd, rings, entries: Map { at: at as *mut u8, len: 4 * 64 }, params })
    }

    /// Submits one entry and waits for it; the result of its completion.
    fn run(&self, entry: [u64; 8]) -> Result<i32, No> {
        // SAFETY: the mapping has room for four entries of 64 bytes.
        unsafe { self.entries.at.cast::<[u64; 8]>().write_volatile(entry) };
        let tail = self.rings.word(self.params[11] as usize / 4);
        self.rings.word(self.params[16] as usize / 4).store(0, SeqCst);
        tail.fetch_add(1, SeqCst);
        // IORING_ENTER_GETEVENTS
        same("submitted", must!("io_uring_enter"; nr::IO_URING_ENTER, self.fd.0, 1, 1, 1, 0, 0), 1)?;
        let completion = self.params[25] as usize / 4;
        same("tag", self.rings.word(completion).load(SeqCst) as usize, 42)?;
        Ok(self.rings.word(completion + 2).load(SeqCst) as i32)
    }
}

fn io_uring_nop() -> Does {
    let ring = Ring::new()?;
    same("result", ring.run([0, 0, 0, 0, 42, 0, 0, 0])? as usize, 0)
}

/// IORING_OP_READ, since 5.6; 5.4 and 5.5 say EINVAL.
fn io_uring_read() -> Does {
    let (ring, file) = (Ring::new()?, memfd()?);
    sys::write(file.0, b"abicus").at("write")?;
    let room = Map::private(4096)?;
    match ring.run([22 | (file.0 as u64) << 32, 0, room.at as u64, 6, 42, 0, 0, 0])? {
        6 => same("first byte", usize::from(room.get(0)), usize::from(b'a')),
        n if n < 0 => Err(at("completion", -n)),
        n => same("bytes", n as usize, 6),
    }
}

/// IORING_REGISTER_PROBE: how many operations the kernel has, a measure of its age.
fn io_uring_operations() -> Does {
    let mut params = [0u32; 30];
    let ring = Fd(must!(nr::IO_URING_SETUP, 1, &mut params) as i32);
    let mut probe = [0u8; 16 + 8 * 128];
    must!("io_uring_register"; nr::IO_URING_REGISTER, ring.0, 8, &mut probe, 128);
    Err(number(u64::from(probe[0]) + 1))
}

/// The asynchronous reads of io_submit(2), which databases use.
fn aio_read() -> Does {
    let mut context = 0usize;
    must!(nr::IO_SETUP, 4, &mut context);
    let file = memfd()?;
    sys::write(file.0, b"abicus").at("write")?;
    let mut room = [0u8; 8];
    // struct iocb: data, key, opcode (0 is IOCB_CMD_PREAD) and descriptor, buffer, bytes, offset
    let control = [42, 0, (file.0 as u64) << 32, room.as_mut_ptr() as u64, 6, 0, 0, 0];
    same("submitted", must!("io_submit"; nr::IO_SUBMIT, context, 1, &[&raw const control as usize]), 1)?;
    let (mut event, time) = ([0u64; 4], Timespec::from_ms(200));
    same("events", must!("io_getevents"; nr::IO_GETEVENTS, context, 1, 1, &mut event, &time), 1)?;
    same("bytes", event[2] as usize, 6)?;
    Err(well())
}

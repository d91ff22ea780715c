//! Threads: creation, storage of their own, cancellation, many of them.
//!
//! Goes in: the libc's pthread functions. Comes out: whether they do what they say. Must not know: which system calls
//! they are made of.

use core::ffi::c_int;
use core::sync::atomic::{AtomicI32, AtomicU32, Ordering::SeqCst};

use crate::api::{Any, Opaque, Thread, zero};
use crate::cell::Cell;
use crate::rt::consts::*;
use crate::rt::sys;
use crate::saw::{Saw, Seen, expect};
use crate::{Check, value};

pub const CHECKS: &[Check] = &[
    Check::new("libc.thread.create", create),
    Check::new("libc.thread.many", many),
    Check::new("libc.thread.stack-size", stack_size),
    Check::new("libc.thread.detach", detach),
    Check::new("libc.thread.errno", own_errno),
    Check::new("libc.thread.tls", tls),
    Check::new("libc.thread.specific", specific),
    Check::new("libc.thread.cancel", cancel),
    Check::new("libc.thread.kill", kill),
    Check::new("libc.thread.once", once),
    Check::new("libc.thread.name", name),
    Check::new("libc.thread.affinity", affinity),
    Check::new("libc.thread.fork", fork),
    Check::new("libc.thread.malloc", malloc),
];

/// How many threads an ordinary server starts at once.
const MANY: usize = 64;

const NULL: Any = core::ptr::null_mut();

/// Starts a thread.
///
/// # Safety
/// `argument` is what `start` takes it for, for as long as the thread runs.
pub unsafe fn spawn(cell: &Cell, start: extern "C" fn(Any) -> Any, argument: Any) -> Result<Thread, Saw> {
    let mut thread = 0;
    // SAFETY: passed on; no attributes.
    zero(unsafe { cell.pthread_create(&mut thread, NULL, start, argument) }, "pthread_create")?;
    Ok(thread)
}

/// Waits for a thread and returns what it returned.
pub fn join(cell: &Cell, thread: Thread) -> Result<usize, Saw> {
    let mut result = NULL;
    // SAFETY: a thread that was not joined before.
    zero(unsafe { cell.pthread_join(thread, &mut result) }, "pthread_join")?;
    Ok(result as usize)
}

/// The address of what a thread only reads and is joined before it goes.
pub fn shared<T>(value: &T) -> Any {
    core::ptr::from_ref(value).cast_mut().cast()
}

/// The address of what a function of the libc writes.
pub fn any<T>(value: &mut T) -> Any {
    core::ptr::from_mut(value).cast()
}

extern "C" fn double(argument: Any) -> Any {
    (argument as usize * 2) as Any
}

fn create(cell: &Cell, _: usize) -> Seen {
    // SAFETY: `double` takes a number.
    let result = join(cell, unsafe { spawn(cell, double, 21 as Any)? })?;
    expect(result == 42, b"the thread's result did not come back")?;
    Ok(Saw::Ok)
}

fn many(cell: &Cell, _: usize) -> Seen {
    static ALIVE: AtomicU32 = AtomicU32::new(0);
    /// Readable when they may end: so many that look now and then are too much for a slow processor.
    static GO: AtomicI32 = AtomicI32::new(-1);
    extern "C" fn wait(argument: Any) -> Any {
        ALIVE.fetch_add(1, SeqCst);
        let _ = sys::read(GO.load(SeqCst), &mut [0]);
        argument
    }
    let [go, writer] = sys::pipe().map_err(|errno| Saw::Errno(errno, "pipe2"))?;
    GO.store(go, SeqCst);
    let mut threads = [0; MANY];
    for (at, thread) in threads.iter_mut().enumerate() {
        // SAFETY: `wait` takes a number.
        match unsafe { spawn(cell, wait, at as Any) } {
            Ok(new) => *thread = new,
            Err(Saw::Errno(errno, _)) => return Err(value!("errno {errno} after {at} threads")),
            Err(saw) => return Err(saw),
        }
    }
    while (ALIVE.load(SeqCst) as usize) < MANY {
        sys::sleep_ms(1);
    }
    let _ = sys::close(writer);
    for (at, thread) in threads.into_iter().enumerate() {
        expect(join(cell, thread)? == at, b"a thread's result did not come back")?;
    }
    let _ = sys::close(go);
    Ok(Saw::Ok)
}

fn stack_size(cell: &Cell, _: usize) -> Seen {
    /// Touches most of a stack of 256 KiB.
    extern "C" fn deep(_: Any) -> Any {
        let mut page = [0u8; 192 * 1024];
        for at in (0..page.len()).step_by(1024) {
            // SAFETY: within the array; volatile, or it would be optimised away.
            unsafe { core::ptr::from_mut(&mut page[at]).write_volatile(1) };
        }
        page[4096] as usize as Any
    }
    let mut attributes: Opaque<16> = [0; 16];
    let mut thread = 0;
    // SAFETY: room for attributes, which are initialised first.
    unsafe {
        zero(cell.pthread_attr_init(any(&mut attributes)), "pthread_attr_init")?;
        zero(cell.pthread_attr_setstacksize(any(&mut attributes), 256 * 1024), "pthread_attr_setstacksize")?;
        zero(cell.pthread_create(&mut thread, any(&mut attributes), deep, NULL), "pthread_create")?;
        join(cell, thread)?;
        zero(cell.pthread_attr_destroy(any(&mut attributes)), "pthread_attr_destroy")?;
    }
    Ok(Saw::Ok)
}

fn detach(cell: &Cell, _: usize) -> Seen {
    static DONE: AtomicU32 = AtomicU32::new(0);
    extern "C" fn done(_: Any) -> Any {
        DONE.store(1, SeqCst);
        NULL
    }
    // SAFETY: `done` takes nothing.
    zero(unsafe { cell.pthread_detach(spawn(cell, done, NULL)?) }, "pthread_detach")?;
    while DONE.load(SeqCst) == 0 {
        sys::sleep_ms(1);
    }
    Ok(Saw::Ok)
}

/// Where each thread's errno lies, because creating a thread may change its value: the glibc of Debian forky (2.42) guards
/// the stack by madvise(MADV_GUARD_INSTALL), which kernels before 6.13 refuse.
fn own_errno(cell: &Cell, _: usize) -> Seen {
    extern "C" fn set(cell: Any) -> Any {
        // SAFETY: the argument is the cell, which outlives the thread.
        let cell = unsafe { &*cell.cast::<Cell>() };
        // SAFETY: writes this thread's errno.
        let mine = unsafe {
            let mine = cell.__errno_location();
            *mine = ENOTTY;
            mine
        };
        if cell.errno() == ENOTTY { mine as Any } else { core::ptr::null_mut() }
    }
    // SAFETY: the cell outlives the thread.
    let (mine, theirs) = unsafe { (cell.__errno_location() as usize, join(cell, spawn(cell, set, shared(cell))?)?) };
    expect(theirs != 0, b"a thread's errno is not what it set")?;
    expect(theirs != mine, b"threads share one errno")?;
    Ok(Saw::Ok)
}

// Storage of each thread by the loader and not by a function: needs a TLS segment in the program.
core::arch::global_asm!(
    ".section .tdata.abicus,\"awT\",@progbits",
    ".hidden abicus_tls",
    ".globl abicus_tls",
    ".balign 16",
    "abicus_tls:",
    ".quad 0x616269637573",
    ".previous",
);

/// This thread's copy of the variable above.
fn thread_local() -> *mut u64 {
    let at: usize;
    // SAFETY: the first word at fs is the thread pointer itself; the offset is known when the program is linked.
    unsafe {
        core::arch::asm!("mov {0}, fs:[0]", "lea {0}, [{0} + abicus_tls@tpoff]", out(reg) at, options(nostack, readonly));
    }
    at as *mut u64
}

fn tls(cell: &Cell, _: usize) -> Seen {
    const INITIAL: u64 = 0x6162_6963_7573;
    extern "C" fn look(_: Any) -> Any {
        // SAFETY: this thread's own variable.
        unsafe {
            let seen = thread_local().read_volatile();
            thread_local().write_volatile(7);
            seen as usize as Any
        }
    }
    // SAFETY: this thread's own variable; `look` takes nothing.
    unsafe {
        let here = thread_local().read_volatile();
        expect(here == INITIAL, b"the first thread's storage is not initialised")?;
        thread_local().write_volatile(5);
        let there = join(cell, spawn(cell, look, NULL)?)?;
        expect(there as u64 == INITIAL, b"a new thread's storage is not initialised")?;
        expect(thread_local().read_volatile() == 5, b"threads share their storage")?;
    }
    Ok(Saw::Ok)
}

fn specific(cell: &Cell, _: usize) -> Seen {
    static DESTROYED: AtomicU32 = AtomicU32::new(0);
    static KEY: AtomicU32 = AtomicU32::new(0);
    extern "C" fn destroy(value: Any) {
        DESTROYED.store(value as u32, SeqCst);
    }
    extern "C" fn set(cell: Any) -> Any {
        // SAFETY: the argument is the cell, which outlives the thread.
        let cell = unsafe { &*cell.cast::<Cell>() };
        // SAFETY: a key that was created.
        let result = unsafe { cell.pthread_setspecific(KEY.load(SeqCst), 77 as Any) };
        result as usize as Any
    }
    let mut key = 0;
    // SAFETY: room for the key; the cell outlives the thread.
    unsafe {
        zero(cell.pthread_key_create(&mut key, destroy), "pthread_key_create")?;
        KEY.store(key, SeqCst);
        zero(join(cell, spawn(cell, set, shared(cell))?)? as c_int, "pthread_setspecific")?;
        expect(cell.pthread_getspecific(key).is_null(), b"threads share a key's value")?;
    }
    expect(DESTROYED.load(SeqCst) == 77, b"the destructor did not run")?;
    Ok(Saw::Ok)
}

/// A thread that sleeps until it is cancelled. glibc loads libgcc_s for it and aborts where there is none.
fn cancel(cell: &Cell, _: usize) -> Seen {
    extern "C" fn sleep(cell: Any) -> Any {
        // SAFETY: the argument is the cell, which outlives the thread.
        let cell = unsafe { &*cell.cast::<Cell>() };
        // SAFETY: a time of ten seconds.
        let _ = unsafe { cell.nanosleep(&[10, 0], core::ptr::null_mut()) };
        NULL
    }
    // SAFETY: the cell outlives the thread.
    unsafe {
        let thread = spawn(cell, sleep, shared(cell))?;
        zero(cell.pthread_cancel(thread), "pthread_cancel")?;
        expect(join(cell, thread)? == usize::MAX, b"the thread was not cancelled")?;
    }
    Ok(Saw::Ok)
}

fn kill(cell: &Cell, _: usize) -> Seen {
    static HIT: AtomicU32 = AtomicU32::new(0);
    extern "C" fn hit(_: i32, _: *mut sys::Siginfo, _: Any) {
        HIT.store(1, SeqCst);
    }
    extern "C" fn wait(_: Any) -> Any {
        while HIT.load(SeqCst) == 0 {
            sys::sleep_ms(1);
        }
        NULL
    }
    sys::handle(SIGUSR1, hit, 0).map_err(|errno| Saw::Errno(errno, "sigaction"))?;
    // SAFETY: a thread that runs until the signal was handled.
    unsafe {
        let thread = spawn(cell, wait, NULL)?;
        zero(cell.pthread_kill(thread, SIGUSR1), "pthread_kill")?;
        join(cell, thread)?;
    }
    Ok(Saw::Ok)
}

fn once(cell: &Cell, _: usize) -> Seen {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    static mut CONTROL: Opaque<2> = [0; 2];
    extern "C" fn count() {
        COUNT.fetch_add(1, SeqCst);
    }
    extern "C" fn call(cell: Any) -> Any {
        // SAFETY: the argument is the cell, which outlives the thread; the control is zero, as PTHREAD_ONCE_INIT.
        unsafe {
            let _ = (*cell.cast::<Cell>()).pthread_once((&raw mut CONTROL).cast(), count);
        }
        NULL
    }
    // SAFETY: the cell outlives the threads.
    unsafe {
        let threads =
            [spawn(cell, call, shared(cell))?, spawn(cell, call, shared(cell))?, spawn(cell, call, shared(cell))?];
        for thread in threads {
            join(cell, thread)?;
        }
    }
    expect(COUNT.load(SeqCst) == 1, b"the routine did not run exactly once")?;
    Ok(Saw::Ok)
}

fn name(cell: &Cell, _: usize) -> Seen {
    // SAFETY: a short text.
    zero(unsafe { cell.pthread_setname_np(cell.pthread_self(), c"abicus-name".as_ptr()) }, "pthread_setname_np")?;
    let mut room = [0; 32];
    let comm =
        sys::read_file(c"/proc/self/comm", &mut room).map_err(|errno| Saw::Errno(errno, "read /proc/self/comm"))?;
    expect(comm == b"abicus-name\n", b"the kernel has another name")?;
    Ok(Saw::Ok)
}

fn affinity(cell: &Cell, _: usize) -> Seen {
    let mut set: Opaque<128> = [0; 128];
    // SAFETY: room for 8,192 CPUs.
    unsafe {
        cell.check(cell.sched_getaffinity(0, 1024, any(&mut set)), "sched_getaffinity")?;
        let Some(first) = set.iter().position(|word| *word != 0) else {
            return Err(value!("no CPU at all"));
        };
        let lowest = set[first] & set[first].wrapping_neg();
        set = [0; 128];
        set[first] = lowest;
        cell.check(cell.sched_setaffinity(0, 1024, any(&mut set)), "sched_setaffinity")?;
    }
    Ok(Saw::Ok)
}

/// A fork while other threads run, with handlers: what every threaded daemon that starts programs does.
fn fork(cell: &Cell, _: usize) -> Seen {
    static CALLED: AtomicU32 = AtomicU32::new(0);
    static STOP: AtomicU32 = AtomicU32::new(0);
    extern "C" fn prepare() {
        CALLED.fetch_add(1, SeqCst);
    }
    extern "C" fn parent() {
        CALLED.fetch_add(10, SeqCst);
    }
    extern "C" fn child() {
        CALLED.fetch_add(100, SeqCst);
    }
    extern "C" fn allocate(cell: Any) -> Any {
        // SAFETY: the argument is the cell, which outlives the thread.
        let cell = unsafe { &*cell.cast::<Cell>() };
        while STOP.load(SeqCst) == 0 {
            // SAFETY: frees what it allocated.
            unsafe {
                cell.free(cell.malloc(1000));
            }
        }
        NULL
    }
    // SAFETY: the cell outlives the thread; the child only allocates and exits.
    unsafe {
        // glibc links pthread_atfork statically into the program; it calls the other one.
        let registered = match cell.symbol(c"pthread_atfork") {
            None => cell.__register_atfork(prepare, parent, child, NULL),
            Some(_) => cell.pthread_atfork(prepare, parent, child),
        };
        zero(registered, "pthread_atfork")?;
        let thread = spawn(cell, allocate, shared(cell))?;
        let pid = cell.check(cell.fork(), "fork")?;
        if pid == 0 {
            let block = cell.malloc(1000);
            let good = CALLED.load(SeqCst) == 101 && !block.is_null();
            sys::exit(if good { 0 } else { 1 });
        }
        let mut status = 0;
        cell.check(cell.waitpid(pid, &mut status, 0), "waitpid")?;
        STOP.store(1, SeqCst);
        join(cell, thread)?;
        expect(status == 0, b"the child's handlers or allocator do not work")?;
        expect(CALLED.load(SeqCst) == 11, b"the parent's handlers did not run")?;
    }
    Ok(Saw::Ok)
}

/// Threads that allocate at the same time, each from an arena of its own.
fn malloc(cell: &Cell, _: usize) -> Seen {
    extern "C" fn churn(cell: Any) -> Any {
        // SAFETY: the argument is the cell, which outlives the thread.
        let cell = unsafe { &*cell.cast::<Cell>() };
        let mut blocks = [NULL; 32];
        for round in 0..200usize {
            let at = round % blocks.len();
            // SAFETY: frees what it allocated, writes within the block.
            unsafe {
                cell.free(blocks[at]);
                blocks[at] = cell.malloc(16 + round * 37);
                if blocks[at].is_null() {
                    return 1 as Any;
                }
                blocks[at].cast::<u8>().add(15 + round * 37).write_volatile(1);
            }
        }
        for block in blocks {
            // SAFETY: frees what it allocated.
            unsafe { cell.free(block) };
        }
        NULL
    }
    let mut threads = [0; 8];
    for thread in &mut threads {
        // SAFETY: the cell outlives the threads.
        *thread = unsafe { spawn(cell, churn, shared(cell))? };
    }
    for thread in threads {
        expect(join(cell, thread)? == 0, b"a thread got no memory")?;
    }
    Ok(Saw::Ok)
}

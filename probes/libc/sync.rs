//! Locks, conditions, semaphores and shared memory, within a process and between processes.
//!
//! Goes in: the libc's functions. Comes out: whether they do what POSIX says. Must not know: futexes.

use core::ffi::c_int;

use crate::api::{Any, Opaque, mq_open, sem_open, zero};
use crate::cell::Cell;
use crate::rt::consts::*;
use crate::rt::sys;
use crate::saw::{Saw, Seen, expect};
use crate::thread::{any, join, shared, spawn};
use crate::{Check, not_asked, value};

pub const CHECKS: &[Check] = &[
    Check::new("libc.sync.condition", condition),
    Check::new("libc.sync.condition.monotonic", condition_monotonic),
    Check::new("libc.sync.mutex.timed", mutex_timed),
    Check::new("libc.sync.mutex.robust", mutex_robust),
    Check::new("libc.sync.mutex.inherit", mutex_inherit),
    Check::new("libc.sync.rwlock", rwlock),
    Check::new("libc.sync.barrier", barrier),
    Check::new("libc.sync.semaphore", semaphore),
    Check::new("libc.sync.semaphore.named", semaphore_named),
    Check::new("libc.sync.shared-memory", shared_memory),
    Check::new("libc.sync.message-queue", message_queue),
];

const NULL: Any = core::ptr::null_mut();
/// Names in namespaces that all processes of a cell share; removed as soon as they are open.
const NAME: &core::ffi::CStr = c"/abicus-probe";

/// The time of a clock, `ms` from now.
fn from_now(cell: &Cell, clock: c_int, ms: i64) -> Result<[i64; 2], Saw> {
    let mut now = [0; 2];
    // SAFETY: room for a timespec.
    unsafe { cell.check(cell.clock_gettime(clock, &mut now), "clock_gettime")? };
    let nanoseconds = now[1] + ms * 1_000_000;
    Ok([now[0] + nanoseconds / 1_000_000_000, nanoseconds % 1_000_000_000])
}

/// What two threads play ping-pong with.
struct Table<'a> {
    cell: &'a Cell,
    mutex: Opaque<8>,
    condition: Opaque<8>,
    turn: u32,
}

const ROUNDS: u32 = 100;

/// Waits for its turn and gives it to the other, `ROUNDS` times.
fn play(table: *mut Table, even: bool) -> Result<(), Saw> {
    // SAFETY: the table outlives both players; the mutex guards `turn`.
    unsafe {
        let cell = (*table).cell;
        let (mutex, condition) = ((&raw mut (*table).mutex).cast(), (&raw mut (*table).condition).cast());
        zero(cell.pthread_mutex_lock(mutex), "pthread_mutex_lock")?;
        let turn = &raw mut (*table).turn;
        while turn.read_volatile() < ROUNDS {
            if turn.read_volatile().is_multiple_of(2) == even {
                turn.write_volatile(turn.read_volatile() + 1);
                zero(cell.pthread_cond_signal(condition), "pthread_cond_signal")?;
            } else {
                zero(cell.pthread_cond_wait(condition, mutex), "pthread_cond_wait")?;
            }
        }
        zero(cell.pthread_mutex_unlock(mutex), "pthread_mutex_unlock")
    }
}

fn condition(cell: &Cell, _: usize) -> Seen {
    extern "C" fn other(table: Any) -> Any {
        play(table.cast(), false).is_ok() as usize as Any
    }
    let mut table = Table { cell, mutex: [0; 8], condition: [0; 8], turn: 0 };
    let table = &raw mut table;
    // SAFETY: room for both, initialised before use; the thread is joined before the table goes.
    unsafe {
        zero(cell.pthread_mutex_init((&raw mut (*table).mutex).cast(), NULL), "pthread_mutex_init")?;
        zero(cell.pthread_cond_init((&raw mut (*table).condition).cast(), NULL), "pthread_cond_init")?;
        let thread = spawn(cell, other, table.cast())?;
        play(table, true)?;
        expect(join(cell, thread)? == 1, b"the other thread failed")?;
    }
    Ok(Saw::Ok)
}

fn condition_monotonic(cell: &Cell, _: usize) -> Seen {
    const MONOTONIC: c_int = 1;
    let (mut mutex, mut condition, mut attributes): (Opaque<8>, Opaque<8>, Opaque<4>) = ([0; 8], [0; 8], [0; 4]);
    // SAFETY: room for each, initialised before use.
    unsafe {
        zero(cell.pthread_condattr_init(any(&mut attributes)), "pthread_condattr_init")?;
        zero(cell.pthread_condattr_setclock(any(&mut attributes), MONOTONIC), "pthread_condattr_setclock")?;
        zero(cell.pthread_mutex_init(any(&mut mutex), NULL), "pthread_mutex_init")?;
        zero(cell.pthread_cond_init(any(&mut condition), any(&mut attributes)), "pthread_cond_init")?;
        zero(cell.pthread_mutex_lock(any(&mut mutex)), "pthread_mutex_lock")?;
        let until = from_now(cell, MONOTONIC, 2)?;
        match cell.pthread_cond_timedwait(any(&mut condition), any(&mut mutex), &until) {
            ETIMEDOUT => Ok(Saw::Ok),
            errno => Err(Saw::Errno(errno, "pthread_cond_timedwait")),
        }
    }
}

fn mutex_timed(cell: &Cell, _: usize) -> Seen {
    let mut mutex: Opaque<8> = [0; 8];
    // SAFETY: room for a mutex, initialised before use. A lock that is held already is waited for until the time is over.
    unsafe {
        zero(cell.pthread_mutex_init(any(&mut mutex), NULL), "pthread_mutex_init")?;
        zero(cell.pthread_mutex_lock(any(&mut mutex)), "pthread_mutex_lock")?;
        let until = from_now(cell, 0, 2)?;
        match cell.pthread_mutex_timedlock(any(&mut mutex), &until) {
            ETIMEDOUT => Ok(Saw::Ok),
            errno => Err(Saw::Errno(errno, "pthread_mutex_timedlock")),
        }
    }
}

/// A process dies with the lock: the next one is told so and can repair. Databases on shared memory live by it.
fn mutex_robust(cell: &Cell, _: usize) -> Seen {
    let mut attributes: Opaque<4> = [0; 4];
    let page = sys::map(4096, PROT_READ | PROT_WRITE, MAP_SHARED).map_err(|errno| Saw::Errno(errno, "mmap"))?;
    let mutex: Any = page.cast();
    // SAFETY: a shared page is room for a mutex, which is initialised before use; the child only locks and exits.
    unsafe {
        zero(cell.pthread_mutexattr_init(any(&mut attributes)), "pthread_mutexattr_init")?;
        zero(cell.pthread_mutexattr_setpshared(any(&mut attributes), 1), "pthread_mutexattr_setpshared")?;
        zero(cell.pthread_mutexattr_setrobust(any(&mut attributes), 1), "pthread_mutexattr_setrobust")?;
        zero(cell.pthread_mutex_init(mutex, any(&mut attributes)), "pthread_mutex_init")?;
        let pid = cell.check(cell.fork(), "fork")?;
        if pid == 0 {
            let locked = cell.pthread_mutex_lock(mutex);
            sys::exit(if locked == 0 { 0 } else { 1 });
        }
        let mut status = 0;
        cell.check(cell.waitpid(pid, &mut status, 0), "waitpid")?;
        expect(status == 0, b"the child could not lock")?;
        const EOWNERDEAD: i32 = 130;
        match cell.pthread_mutex_lock(mutex) {
            EOWNERDEAD => {}
            0 => return Err(value!("nobody noticed that the owner died")),
            errno => return Err(Saw::Errno(errno, "pthread_mutex_lock")),
        }
        zero(cell.pthread_mutex_consistent(mutex), "pthread_mutex_consistent")?;
        zero(cell.pthread_mutex_unlock(mutex), "pthread_mutex_unlock")?;
    }
    Ok(Saw::Ok)
}

fn mutex_inherit(cell: &Cell, _: usize) -> Seen {
    let (mut mutex, mut attributes): (Opaque<8>, Opaque<4>) = ([0; 8], [0; 4]);
    // SAFETY: room for each, initialised before use.
    unsafe {
        zero(cell.pthread_mutexattr_init(any(&mut attributes)), "pthread_mutexattr_init")?;
        zero(cell.pthread_mutexattr_setprotocol(any(&mut attributes), 1), "pthread_mutexattr_setprotocol")?;
        zero(cell.pthread_mutex_init(any(&mut mutex), any(&mut attributes)), "pthread_mutex_init")?;
        zero(cell.pthread_mutex_lock(any(&mut mutex)), "pthread_mutex_lock")?;
        zero(cell.pthread_mutex_unlock(any(&mut mutex)), "pthread_mutex_unlock")?;
    }
    Ok(Saw::Ok)
}

fn rwlock(cell: &Cell, _: usize) -> Seen {
    let mut lock: Opaque<8> = [0; 8];
    let lock = any(&mut lock);
    // SAFETY: room for a lock, initialised before use.
    unsafe {
        zero(cell.pthread_rwlock_init(lock, NULL), "pthread_rwlock_init")?;
        zero(cell.pthread_rwlock_rdlock(lock), "pthread_rwlock_rdlock")?;
        zero(cell.pthread_rwlock_tryrdlock(lock), "pthread_rwlock_tryrdlock")?;
        expect(cell.pthread_rwlock_trywrlock(lock) == EBUSY, b"a writer got in among readers")?;
        zero(cell.pthread_rwlock_unlock(lock), "pthread_rwlock_unlock")?;
        zero(cell.pthread_rwlock_unlock(lock), "pthread_rwlock_unlock")?;
        zero(cell.pthread_rwlock_wrlock(lock), "pthread_rwlock_wrlock")?;
        zero(cell.pthread_rwlock_unlock(lock), "pthread_rwlock_unlock")?;
    }
    Ok(Saw::Ok)
}

fn barrier(cell: &Cell, _: usize) -> Seen {
    struct Gate<'a>(&'a Cell, Opaque<8>);
    extern "C" fn arrive(gate: Any) -> Any {
        let gate: *mut Gate = gate.cast();
        // SAFETY: the gate outlives all who arrive.
        unsafe {
            let cell = (*gate).0;
            cell.pthread_barrier_wait((&raw mut (*gate).1).cast()) as isize as Any
        }
    }
    let mut gate = Gate(cell, [0; 8]);
    let gate = &raw mut gate;
    // SAFETY: room for a barrier, initialised before use; the threads are joined before it goes.
    unsafe {
        zero(cell.pthread_barrier_init((&raw mut (*gate).1).cast(), NULL, 3), "pthread_barrier_init")?;
        let threads = [spawn(cell, arrive, gate.cast())?, spawn(cell, arrive, gate.cast())?];
        let mut serial = arrive(gate.cast()) as isize;
        for thread in threads {
            serial += join(cell, thread)? as isize;
        }
        expect(serial == -1, b"not exactly one thread was told to go first")?;
    }
    Ok(Saw::Ok)
}

fn semaphore(cell: &Cell, _: usize) -> Seen {
    struct Post<'a>(&'a Cell, Opaque<8>);
    extern "C" fn post(post: Any) -> Any {
        let post: *mut Post = post.cast();
        // SAFETY: the semaphore outlives the thread.
        unsafe {
            let cell = (*post).0;
            cell.sem_post((&raw mut (*post).1).cast()) as isize as Any
        }
    }
    let mut shared = Post(cell, [0; 8]);
    let shared = &raw mut shared;
    // SAFETY: room for a semaphore, initialised before use; the thread is joined before it goes.
    unsafe {
        let at: Any = (&raw mut (*shared).1).cast();
        cell.check(cell.sem_init(at, 0, 0), "sem_init")?;
        let thread = spawn(cell, post, shared.cast())?;
        cell.check(cell.sem_wait(at), "sem_wait")?;
        join(cell, thread)?;
        let until = from_now(cell, 0, 2)?;
        let again = cell.sem_timedwait(at, &until);
        expect(again == -1 && cell.errno() == ETIMEDOUT, b"a semaphore at zero did not make us wait")?;
    }
    Ok(Saw::Ok)
}

/// Ends the check where the directory is missing in which the libc keeps these objects: that has a check of its own.
fn dev_shm() -> Result<(), Saw> {
    match sys::open(c"/dev/shm", O_PATH, 0) {
        Ok(fd) => {
            let _ = sys::close(fd);
            Ok(())
        }
        Err(ENOENT) => Err(not_asked!("no /dev/shm in the cell")),
        Err(errno) => Err(Saw::Errno(errno, "open /dev/shm")),
    }
}

fn semaphore_named(cell: &Cell, _: usize) -> Seen {
    dev_shm()?;
    let open = sem_open(cell);
    // SAFETY: a constant name; mode and value are the variable arguments.
    unsafe {
        let _ = cell.sem_unlink(NAME.as_ptr());
        let at = open(NAME.as_ptr(), O_CREAT | O_EXCL, 0o600u32, 1u32);
        let opened = cell.errno();
        if at.is_null() {
            return Err(Saw::Errno(opened, "sem_open"));
        }
        cell.check(cell.sem_unlink(NAME.as_ptr()), "sem_unlink")?;
        cell.check(cell.sem_wait(at), "sem_wait")?;
        cell.check(cell.sem_close(at), "sem_close")?;
    }
    Ok(Saw::Ok)
}

fn shared_memory(cell: &Cell, _: usize) -> Seen {
    // SAFETY: a constant name; the mapping is as large as the object and only its first word is touched.
    unsafe {
        let _ = cell.shm_unlink(NAME.as_ptr());
        let fd = cell.check(cell.shm_open(NAME.as_ptr(), O_CREAT | O_EXCL | O_RDWR, 0o600), "shm_open")?;
        cell.check(cell.shm_unlink(NAME.as_ptr()), "shm_unlink")?;
        cell.check(cell.ftruncate(fd, 4096), "ftruncate")?;
        let both = (PROT_READ | PROT_WRITE) as c_int;
        let at = cell.mmap(NULL, 4096, both, MAP_SHARED as c_int, fd, 0);
        if at as isize == -1 {
            return Err(cell.failed("mmap"));
        }
        let word: *mut u64 = at.cast();
        let pid = cell.check(cell.fork(), "fork")?;
        if pid == 0 {
            word.write_volatile(42);
            sys::exit(0);
        }
        let mut status = 0;
        cell.check(cell.waitpid(pid, &mut status, 0), "waitpid")?;
        expect(word.read_volatile() == 42, b"what the child wrote is not shared")?;
    }
    Ok(Saw::Ok)
}

fn message_queue(cell: &Cell, _: usize) -> Seen {
    let open = mq_open(cell);
    let attributes: [i64; 8] = [0, 4, 64, 0, 0, 0, 0, 0];
    let mut room = [0; 64];
    // SAFETY: a constant name; mode and attributes are the variable arguments.
    unsafe {
        let _ = cell.mq_unlink(NAME.as_ptr());
        let queue = open(NAME.as_ptr(), O_CREAT | O_EXCL | O_RDWR, 0o600u32, shared(&attributes));
        cell.check(queue, "mq_open")?;
        cell.check(cell.mq_unlink(NAME.as_ptr()), "mq_unlink")?;
        cell.check(cell.mq_send(queue, c"abicus".as_ptr(), 6, 1), "mq_send")?;
        let mut priority = 0;
        let size = cell.check(cell.mq_receive(queue, room.as_mut_ptr(), 64, &mut priority), "mq_receive")?;
        cell.check(cell.mq_close(queue), "mq_close")?;
        expect(size == 6 && priority == 1, b"another message came back")?;
    }
    Ok(Saw::Ok)
}

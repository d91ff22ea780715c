//! Processes and threads: making them, executing programs, waiting, handles on them, looking into them.
//!
//! Goes in: nothing. Comes out: answers. Must not know: which answers are good.

use core::sync::atomic::{AtomicU32, Ordering::SeqCst};

use crate::asking::*;
use crate::rt::consts::*;
use crate::rt::nr;
use crate::rt::sys;

checks![
    Batch "kernel.clone.process" => clone_process,
    Batch "kernel.clone.thread" => clone_thread,
    Batch "kernel.clone.vfork" => clone_vfork,
    Batch "kernel.clone3.thread" => clone3_thread,
    Batch "kernel.clone3.spawn" => clone3_spawn,
    Batch "kernel.clone3.pidfd" => clone3_pidfd,
    Batch "kernel.execve.path" => execve_path,
    Batch "kernel.execveat.memfd" => execveat_memfd,
    Batch "kernel.execve.script" => execve_script,
    Batch "kernel.waitid.nowait" => waitid_nowait,
    Batch "kernel.waitid.pidfd" => waitid_pidfd,
    Batch "kernel.wait.rusage" => wait_rusage,
    Batch "kernel.pidfd.open" => pidfd_open,
    Batch "kernel.pidfd.signal" => pidfd_signal,
    Batch "kernel.pidfd.getfd" => pidfd_getfd,
    Batch "kernel.process_vm.read" => process_vm_read,
    Batch "kernel.process_vm.write" => process_vm_write,
    Batch "kernel.ptrace.traceme" => ptrace_traceme,
    Batch "kernel.ptrace.seize" => ptrace_seize,
    Batch "kernel.ptrace.rseq" => ptrace_rseq,
    Batch "kernel.kcmp.file" => kcmp_file,
    Batch "kernel.session.setsid" => setsid,
    Batch "kernel.session.setpgid" => setpgid,
    Own "kernel.rseq.register" => rseq,
    Batch "kernel.robust_list.owner_died" => robust_list,
    Batch "kernel.tid_address.clear" => tid_address,
];

fn clone_process() -> Does {
    let status = Twin::start(&mut || 7)?.wait()?;
    same("status", status as usize, 7 << 8)
}

extern "C" fn count_up(word: usize) {
    // SAFETY: the maker of the thread passes a word that lives until it is joined.
    unsafe { &*(word as *const AtomicU32) }.fetch_add(41, SeqCst);
}

fn address(word: &AtomicU32) -> usize {
    core::ptr::from_ref(word) as usize
}

/// With exactly the flags of pthread_create(3) but TLS, and a join by futex as it does.
fn clone_thread() -> Does {
    let word = AtomicU32::new(1);
    Thread::start(count_up, address(&word))?.join();
    same("counted", word.load(SeqCst) as usize, 42)
}

fn clone3_thread() -> Does {
    let word = AtomicU32::new(1);
    Thread::start3(count_up, address(&word))?.join();
    same("counted", word.load(SeqCst) as usize, 42)
}

/// vfork(2) as posix_spawn(3) does it: shared memory, the parent waits until the child is gone.
fn clone_vfork() -> Does {
    let (word, stack) = (AtomicU32::new(1), Map::private(32 * 1024)?);
    let flags = CLONE_VM | CLONE_VFORK | SIGCHLD as usize;
    // SAFETY: the parent goes on when the child has ended, so all of it lives as long as the child.
    let pid = sys::answer(unsafe { clone_on(flags, stack.top(), 0, 0, count_up, address(&word)) })?;
    let counted = word.load(SeqCst);
    Twin(pid as i32).wait()?;
    same("counted before the parent went on", counted as usize, 42)
}

/// As posix_spawn(3) of glibc since 2.38: with CLONE_CLEAR_SIGHAND.
fn clone3_spawn() -> Does {
    let (word, stack) = (AtomicU32::new(1), Map::private(32 * 1024)?);
    let flags = (CLONE_VM | CLONE_VFORK) as u64 | 0x1_0000_0000;
    let arguments = [flags, 0, 0, 0, SIGCHLD as u64, stack.at as u64, stack.len as u64, 0];
    // SAFETY: as above.
    let pid = sys::answer(unsafe { clone3_on(&arguments, 64, count_up, address(&word)) })?;
    let counted = word.load(SeqCst);
    Twin(pid as i32).wait()?;
    same("counted before the parent went on", counted as usize, 42)
}

fn clone3_pidfd() -> Does {
    let mut fd = -1i32;
    let arguments = [CLONE_PIDFD as u64, &raw mut fd as u64, 0, 0, SIGCHLD as u64, 0, 0, 0];
    match must!(nr::CLONE3, &arguments, 64) {
        0 => sys::exit(0),
        pid => {
            let (child, fd) = (Twin(pid as i32), Fd(fd));
            let waited = ready(&fd, 1, 1000);
            child.wait()?;
            same("pidfd readable when the child has ended", waited.at("ppoll")?, 1)
        }
    }
}

/// A memfd that can be executed: nothing has it open for writing.
fn program(text: &[u8]) -> Result<Fd, No> {
    let fd = Fd(must!("memfd_create"; nr::MEMFD_CREATE, sys::path(c"abicus"), 1) as i32);
    sys::write(fd.0, text).at("write")?;
    Ok(fd)
}

/// execveat(2) of a descriptor, which is fexecve(3).
fn execveat_memfd() -> Does {
    // With a name: the kernel's log has a line of a program that is started without.
    let (file, arguments) = (program(&tiny_program())?, [sys::path(c"tiny"), 0]);
    executes("execveat", &mut || ask!(nr::EXECVEAT, file.0, sys::path(c""), &arguments, &[0usize], AT_EMPTY_PATH))
}

/// execve(2) of our own program, by the path the kernel knows. Not through a memfd: a policy may forbid those.
fn execve_path() -> Does {
    // The child asks the probe for nothing it knows: it says so and exits with status 2.
    let arguments = [sys::path(c"kernel"), sys::path(c"--deadline"), 0];
    let status = Twin::start(&mut || {
        let _ = sys::close(2);
        100 + ask!(nr::EXECVE, sys::path(c"/proc/self/exe"), &arguments, &[0usize]).err().unwrap_or(0)
    })?
    .wait()?;
    match status >> 8 {
        2 if status & 0x7f == 0 => Ok(()),
        errno @ 101.. => Err(at("execve", errno - 100)),
        _ => Err(value(format_args!("ended with status {status:#x}, not exit 2"))),
    }
}

/// A script whose interpreter is the tiny program, both without a name in any directory.
fn execve_script() -> Does {
    let binary = program(&tiny_program())?;
    // The interpreter must be open where the script starts: no close on exec.
    let plain = Fd(must!("dup"; nr::DUP, binary.0) as i32);
    let text = crate::rt::text::Text::<64>::format(format_args!("#!/proc/self/fd/{}\n", plain.0));
    let script = Fd(must!("dup"; nr::DUP, program(text.bytes())?.0) as i32);
    let arguments = [sys::path(c"script"), 0];
    executes("execveat", &mut || ask!(nr::EXECVEAT, script.0, sys::path(c""), &arguments, &[0usize], AT_EMPTY_PATH))
}

/// waitid(2) that leaves the child to be waited for again.
fn waitid_nowait() -> Does {
    let child = Twin::start(&mut || 7)?;
    let mut info = [0i32; 32];
    // P_PID; WEXITED | WNOWAIT
    must!(nr::WAITID, 1, child.0, &mut info, 4 | 0x0100_0000, 0);
    same("status", info[6] as usize, 7)?;
    let status = child.wait()?;
    same("status again", status as usize, 7 << 8)
}

fn waitid_pidfd() -> Does {
    let child = Twin::start(&mut || 7)?;
    let fd = Fd(must!("pidfd_open"; nr::PIDFD_OPEN, child.0, 0) as i32);
    let mut info = [0i32; 32];
    // P_PIDFD; WEXITED | WNOWAIT
    must!("waitid"; nr::WAITID, 3, fd.0, &mut info, 4 | 0x0100_0000, 0);
    same("status", info[6] as usize, 7)
}

fn wait_rusage() -> Does {
    let child = Twin::start(&mut || 0)?;
    let (mut usage, mut status) = ([-1i64; 18], -1i32);
    must!(nr::WAIT4, child.0, &mut status, 0, &mut usage);
    core::mem::forget(child);
    same("status", status as usize, 0)?;
    // ru_minflt: whoever forked has written to its stack.
    holds("no page fault was counted", usage[8] > 0)
}

fn pidfd_open() -> Does {
    let child = Twin::start(&mut || linger())?;
    let fd = Fd(must!(nr::PIDFD_OPEN, child.0, 0) as i32);
    same("readable while the child lives", ready(&fd, 1, 0).at("ppoll")?, 0)?;
    let _ = sys::kill(child.0, SIGKILL);
    same("readable when it has ended", ready(&fd, 1, 1000).at("ppoll")?, 1)
}

fn pidfd_signal() -> Does {
    let child = Twin::start(&mut || linger())?;
    let fd = Fd(must!("pidfd_open"; nr::PIDFD_OPEN, child.0, 0) as i32);
    must!(nr::PIDFD_SEND_SIGNAL, fd.0, SIGTERM, 0, 0);
    same("signal that ended it", child.wait()? as usize, SIGTERM as usize)
}

/// A child with a descriptor its parent has not got.
fn pidfd_getfd() -> Does {
    let told = Map::shared(4096)?;
    let child = Twin::start(&mut || {
        let Ok([from, to]) = sys::pipe() else { return 1 };
        let _ = sys::write(to, b"from within");
        told.word(0).store(from as u32, SeqCst);
        linger()
    })?;
    for _ in 0..100 {
        if told.word(0).load(SeqCst) != 0 {
            break;
        }
        sys::sleep_ms(1);
    }
    let fd = Fd(must!("pidfd_open"; nr::PIDFD_OPEN, child.0, 0) as i32);
    let taken = Fd(must!(nr::PIDFD_GETFD, fd.0, told.word(0).load(SeqCst), 0) as i32);
    let mut room = [0; 16];
    let n = sys::read(taken.0, &mut room).at("read")?;
    same("bytes read from the child's pipe", n, 11)
}

/// Our page and the same one in a child, where it says something else. The child sleeps.
fn looking_in() -> Result<(Map, Twin), No> {
    let (page, go) = (Map::private(4096)?, Map::shared(4096)?);
    let child = Twin::start(&mut || {
        page.set(0, 42);
        go.word(0).store(1, SeqCst);
        for _ in 0..300 {
            if page.get(1) != 0 {
                break;
            }
            sys::sleep_ms(1);
        }
        i32::from(page.get(1))
    })?;
    while go.word(0).load(SeqCst) == 0 {
        sys::sleep_ms(1);
    }
    Ok((page, child))
}

fn process_vm_read() -> Does {
    let (page, child) = looking_in()?;
    let mut room = [0u8; 1];
    let (here, there) = ([room.as_mut_ptr() as usize, 1], [page.at as usize, 1]);
    same("bytes", must!(nr::PROCESS_VM_READV, child.0, &here, 1, &there, 1, 0), 1)?;
    // SAFETY: lives; read again because the kernel wrote it behind the compiler's back.
    same("byte", usize::from(unsafe { (&raw const room[0]).read_volatile() }), 42)
}

fn process_vm_write() -> Does {
    let (page, child) = looking_in()?;
    let byte = [9u8];
    let (here, there) = ([byte.as_ptr() as usize, 1], [page.at as usize + 1, 1]);
    same("bytes", must!(nr::PROCESS_VM_WRITEV, child.0, &here, 1, &there, 1, 0), 1)?;
    same("status of a child that saw it", child.wait()? as usize, 9 << 8)
}

/// As a debugger starts a program: trace, stop, look into memory and registers, change memory, go on.
fn ptrace_traceme() -> Does {
    let page = Map::private(4096)?;
    page.set(0, 1);
    let child = Twin::start(&mut || {
        if let Err(errno) = ask!(nr::PTRACE, 0) {
            return errno;
        }
        page.set(0, 42);
        let _ = sys::kill(sys::getpid(), SIGSTOP);
        100 + i32::from(page.get(1))
    })?;
    // WUNTRACED, so that a child that is not traced is seen to stop as well.
    let (_, status) = sys::wait(child.0, 2).at("wait for the stop")?;
    if status & 0xff != 0x7f {
        core::mem::forget(child);
        return Err(at("PTRACE_TRACEME", status >> 8));
    }
    let mut word = 0usize;
    must!("PTRACE_PEEKTEXT"; nr::PTRACE, 1, child.0, page.at, &mut word);
    same("byte seen", word & 0xff, 42)?;
    let mut registers = [0usize; 64];
    let room = [registers.as_mut_ptr() as usize, size_of_val(&registers)];
    must!("PTRACE_GETREGSET"; nr::PTRACE, 0x4204, child.0, 1, &room);
    must!("PTRACE_POKETEXT"; nr::PTRACE, 4, child.0, page.at, 0x0900usize | word & 0xff);
    must!("PTRACE_CONT"; nr::PTRACE, 7, child.0, 0, 0);
    same("status of a child that was changed", child.wait()? as usize, 109 << 8)
}

/// A child that is attached to and stopped, as by strace -p.
fn seized() -> Result<Twin, No> {
    let child = Twin::start(&mut || linger())?;
    must!("PTRACE_SEIZE"; nr::PTRACE, 0x4206, child.0, 0, 0);
    must!("PTRACE_INTERRUPT"; nr::PTRACE, 0x4207, child.0, 0, 0);
    let (_, status) = sys::wait(child.0, 0).at("wait for the stop")?;
    // PTRACE_EVENT_STOP
    same("how it stopped", status as usize >> 16, 128)?;
    Ok(child)
}

fn ptrace_seize() -> Does {
    let child = seized()?;
    must!("PTRACE_DETACH"; nr::PTRACE, 17, child.0, 0, 0);
    Ok(())
}

/// PTRACE_GET_RSEQ_CONFIGURATION, which CRIU needs to dump a program of glibc 2.35: an address, four numbers.
fn ptrace_rseq() -> Does {
    let (child, mut area) = (seized()?, [0u64; 3]);
    let size = ask!(nr::PTRACE, 0x420f, child.0, 24, &mut area);
    // Not only when it was told: a child that is stopped ends for no one who may not kill it.
    must!("PTRACE_DETACH"; nr::PTRACE, 17, child.0, 0, 0);
    same("bytes", size?, 24)
}

fn kcmp_file() -> Does {
    let (one, other) = pipe()?;
    let copy = Fd(must!("dup"; nr::DUP, one.0) as i32);
    let me = sys::getpid();
    same("of a copy", must!(nr::KCMP, me, me, 0, one.0, copy.0), 0)?;
    holds("two pipe ends compare equal", must!(nr::KCMP, me, me, 0, one.0, other.0) != 0)
}

fn setsid() -> Does {
    in_twin("setsid", &mut || match ask!(nr::SETSID) {
        Err(errno) => errno,
        Ok(session) => i32::from(ask!(nr::GETSID, 0) != Ok(session) || session as i32 != sys::getpid()) * 255,
    })?;
    Ok(())
}

fn setpgid() -> Does {
    in_twin("setpgid", &mut || match ask!(nr::SETPGID, 0, 0) {
        Err(errno) => errno,
        Ok(_) => i32::from(ask!(nr::GETPGID, 0) != Ok(sys::getpid() as usize)) * 255,
    })?;
    Ok(())
}

#[repr(C, align(32))]
struct RseqArea([u32; 8]);

/// The kernel writes the processor's number into the area. Nothing here has registered one before, being without a libc.
fn rseq() -> Does {
    const SIGNATURE: usize = 0x5305_3053;
    // cpu_id_start, cpu_id (-1: not registered)
    let mut area = RseqArea([0, u32::MAX, 0, 0, 0, 0, 0, 0]);
    let at = &raw mut area as usize;
    must!(nr::RSEQ, at, 32, 0, SIGNATURE);
    let _ = ask!(nr::SCHED_YIELD);
    // SAFETY: lives; the kernel writes it whenever we are scheduled.
    let cpu = unsafe { (&raw const area.0[1]).read_volatile() };
    must!("unregister"; nr::RSEQ, at, 32, 1, SIGNATURE);
    holds("no processor number was written", cpu < 65536)
}

/// set_robust_list(2): the kernel marks the lock of an owner who died.
fn robust_list() -> Does {
    let lock = Map::shared(4096)?;
    in_twin("set_robust_list", &mut || {
        // struct robust_list_head { next, futex_offset, pending } and one element in front of the lock
        let element = lock.at as usize + 64;
        let head = [element, 64usize, 0];
        lock.word(32).store(ask!(nr::GETTID).unwrap_or(0) as u32, SeqCst);
        // SAFETY: within the shared page, aligned.
        unsafe { (element as *mut usize).write_volatile(head.as_ptr() as usize) };
        let answer = ask!(nr::SET_ROBUST_LIST, &head, 24);
        // Leaves by itself, because the list must live until then.
        sys::exit(answer.err().unwrap_or(0))
    })?;
    same("FUTEX_OWNER_DIED", (lock.word(32).load(SeqCst) >> 30 & 1) as usize, 1)
}

/// set_tid_address(2): the word is cleared when its thread ends.
fn tid_address() -> Does {
    let (page, stack) = (Map::shared(4096)?, Map::private(8192)?);
    page.word(0).store(7, SeqCst);
    in_twin("set_tid_address", &mut || {
        // The word is only cleared where somebody shares the memory, exit(2): a second process that does.
        let answer = ask!(nr::SET_TID_ADDRESS, page.word(0));
        extern "C" fn until_cleared(word: usize) {
            // SAFETY: the address of the word, which nobody unmaps.
            let word = unsafe { &*(word as *const AtomicU32) };
            // It is gone at most a second after the one that it waits for.
            for _ in 0..1000 {
                if word.load(SeqCst) == 0 {
                    return;
                }
                sys::sleep_ms(1);
            }
        }
        let word = address(page.word(0));
        // SAFETY: this process never unmaps the stack: it leaves it to its end.
        let _ = unsafe { clone_on(CLONE_VM, stack.top(), 0, 0, until_cleared, word) };
        i32::from(answer.ok() != ask!(nr::GETTID).ok()) * answer.err().unwrap_or(255)
    })?;
    same("word after the end", page.word(0).load(SeqCst) as usize, 0)
}

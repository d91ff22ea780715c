//! Memory: mappings, protection, advice, locking, NUMA, keys, faults handled in user space, System V and POSIX objects.
//!
//! Goes in: nothing. Comes out: answers. Must not know: which answers are good. What has a name outside the process
//! (System V memory, message queues) is removed as soon as it is made.

use crate::asking::*;
use crate::rt::consts::*;
use crate::rt::nr;
use crate::rt::sys;

checks![
    Batch "kernel.mmap.shared_file" => shared_file,
    Batch "kernel.mmap.fixed_noreplace" => fixed_noreplace,
    Batch "kernel.mmap.write_execute" => write_execute,
    #[cfg(target_arch = "x86_64")]
    Batch "kernel.mmap.low_32bit" => low_32bit,
    Batch "kernel.mmap.address_bits" => address_bits,
    Batch "kernel.mprotect.execute" => protect_execute,
    Batch "kernel.mprotect.refuse" => protect_refuse,
    Batch "kernel.mremap.move" => mremap_move,
    Batch "kernel.mremap.keep" => mremap_keep,
    Own "kernel.brk.grow" => brk_grow,
    Batch "kernel.mincore.resident" => mincore,
    Batch "kernel.memfd.create" => memfd_create,
    Batch "kernel.memfd.seal" => memfd_seal,
    Batch "kernel.memfd.exec_flag" => memfd_exec_flag,
    Batch "kernel.memfd.hugetlb" => memfd_hugetlb,
    Batch "kernel.memfd_secret.use" => memfd_secret,
    Batch "kernel.madvise.dontneed" => madvise_dontneed,
    Batch "kernel.madvise.free" => || advise(8),
    Batch "kernel.madvise.hugepage" => || advise(14),
    Own "kernel.madvise.mergeable" => || advise(12),
    Batch "kernel.madvise.dontdump" => || advise(16),
    Batch "kernel.madvise.cold" => || advise(20),
    Batch "kernel.madvise.collapse" => madvise_collapse,
    Batch "kernel.madvise.populate" => madvise_populate,
    Batch "kernel.madvise.wipe_on_fork" => madvise_wipe,
    Batch "kernel.madvise.dont_fork" => madvise_dont_fork,
    Batch "kernel.madvise.guard" => madvise_guard,
    Batch "kernel.process_madvise.self" => process_madvise,
    Batch "kernel.mlock.page" => mlock_page,
    Batch "kernel.mlock.on_fault" => mlock_on_fault,
    Own "kernel.mlock.all" => mlock_all,
    Batch "kernel.mempolicy.get" => mempolicy_get,
    Own "kernel.mempolicy.set" => mempolicy_set,
    Batch "kernel.mempolicy.mbind" => mempolicy_mbind,
    Batch "kernel.mempolicy.home_node" => mempolicy_home_node,
    Batch "kernel.mempolicy.move_pages" => mempolicy_move_pages,
    Batch "kernel.pkey.protect" => pkey_protect,
    Batch "kernel.userfaultfd.copy" => userfaultfd,
    Own "kernel.mseal.seal" => mseal,
    #[cfg(target_arch = "x86_64")]
    Batch "kernel.map_shadow_stack.map" => map_shadow_stack,
    Batch "kernel.sysv.memory" => sysv_memory,
    Batch "kernel.sysv.semaphore" => sysv_semaphore,
    Batch "kernel.sysv.message" => sysv_message,
    Batch "kernel.mqueue.message" => mqueue,
];

const PAGE: usize = 4096;

fn shared_file() -> Does {
    let file = memfd()?;
    must!("ftruncate"; nr::FTRUNCATE, file.0, PAGE);
    let map = Map::file(file.0, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED)?;
    map.set(5, 42);
    let mut room = [0u8; 1];
    must!("pread64"; nr::PREAD64, file.0, &mut room, 1, 5);
    same("byte read from the file", usize::from(room[0]), 42)?;
    must!("pwrite64"; nr::PWRITE64, file.0, &[43u8], 1, 5);
    same("byte seen in memory", usize::from(map.get(5)), 43)?;
    must!("msync"; nr::MSYNC, map.at, PAGE, 4);
    Ok(())
}

/// MAP_FIXED_NOREPLACE: a kernel that does not know it treats the address as a hint.
fn fixed_noreplace() -> Does {
    let page = Map::private(PAGE)?;
    page.set(0, 42);
    let second = ask!(nr::MMAP, page.at, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | 0x10_0000, -1, 0);
    if let Ok(at) = second {
        drop(Map { at: at as *mut u8, len: PAGE });
    }
    refused("mmap over a mapping", second, EEXIST)?;
    same("byte", usize::from(page.get(0)), 42)
}

/// Code that returns 42.
#[cfg(target_arch = "x86_64")]
const CODE: [u8; 6] = [0xb8, 42, 0, 0, 0, 0xc3];
#[cfg(target_arch = "aarch64")]
const CODE: [u8; 8] = [0x40, 5, 0x80, 0x52, 0xc0, 3, 0x5f, 0xd6];

fn run_code(page: &Map) -> Result<(), No> {
    #[cfg(target_arch = "aarch64")]
    // SAFETY: cache maintenance of our own page, which is readable.
    unsafe {
        core::arch::asm!("dc cvau, {0}", "dsb ish", "ic ivau, {0}", "dsb ish", "isb", in(reg) page.at)
    };
    // SAFETY: the page holds CODE and is executable: a function of that type.
    let code = unsafe { core::mem::transmute::<*mut u8, extern "C" fn() -> u32>(page.at) };
    same("what the code returned", code() as usize, 42)
}

fn write_execute() -> Does {
    let page = Map::new(PAGE, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE)?;
    for (i, byte) in CODE.iter().enumerate() {
        page.set(i, *byte);
    }
    run_code(&page)
}

fn protect_execute() -> Does {
    let page = Map::private(PAGE)?;
    for (i, byte) in CODE.iter().enumerate() {
        page.set(i, *byte);
    }
    must!(nr::MPROTECT, page.at, PAGE, PROT_READ | PROT_EXEC);
    run_code(&page)
}

fn protect_refuse() -> Does {
    let page = Map::private(PAGE)?;
    page.set(0, 1);
    must!(nr::MPROTECT, page.at, PAGE, PROT_READ);
    same("signal of a write", signal_of(&mut || page.set(0, 2))? as usize, SIGSEGV as usize)
}

#[cfg(target_arch = "x86_64")]
fn low_32bit() -> Does {
    let page = Map::new(PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | 0x40)?;
    holds("above 2 GiB", page.top() <= 1 << 31)?;
    page.set(0, 1);
    Ok(())
}

/// How wide addresses may be. Programs that keep bits in pointers break where it is more than 47.
fn address_bits() -> Does {
    // A hint at the top of 52 or 56 bits: the kernel only goes beyond 47 or 48 when asked so.
    let hint = if cfg!(target_arch = "x86_64") { (1usize << 56) - (PAGE << 8) } else { (1usize << 52) - (PAGE << 8) };
    let at = must!(nr::MMAP, hint, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    drop(Map { at: at as *mut u8, len: PAGE });
    Err(value(format_args!("{}", if at >> 48 != 0 { "more than 48" } else { "at most 48" })))
}

fn mremap_move() -> Does {
    let page = Map::private(PAGE)?;
    page.set(7, 42);
    // MREMAP_MAYMOVE, and a neighbour that may be in the way.
    let at = must!(nr::MREMAP, page.at, PAGE, 16 * PAGE, 1);
    core::mem::forget(page);
    let more = Map { at: at as *mut u8, len: 16 * PAGE };
    same("byte after the move", usize::from(more.get(7)), 42)?;
    more.set(15 * PAGE, 1);
    Ok(())
}

/// MREMAP_DONTUNMAP: the pages go, the mapping stays and is empty.
fn mremap_keep() -> Does {
    let page = Map::private(PAGE)?;
    page.set(7, 42);
    let at = must!(nr::MREMAP, page.at, PAGE, PAGE, 1 | 4, 0);
    let moved = Map { at: at as *mut u8, len: PAGE };
    same("byte that moved", usize::from(moved.get(7)), 42)?;
    same("byte that stayed", usize::from(page.get(7)), 0)
}

fn brk_grow() -> Does {
    let now = must!(nr::BRK, 0);
    let then = must!(nr::BRK, now + 16 * PAGE);
    same("bytes more", then.wrapping_sub(now), 16 * PAGE)?;
    // SAFETY: the heap ends 16 pages later now, and nobody else uses it.
    let byte = unsafe {
        let last = (then - 1) as *mut u8;
        last.write_volatile(42);
        last.read_volatile()
    };
    same("byte", usize::from(byte), 42)
}

fn mincore() -> Does {
    let two = Map::private(2 * PAGE)?;
    two.set(0, 1);
    let mut resident = [9u8; 2];
    must!(nr::MINCORE, two.at, two.len, &mut resident);
    same("page that was touched", usize::from(resident[0] & 1), 1)
}

/// memfd_create(2): a file without a name that keeps what is written into it.
fn memfd_create() -> Does {
    let fd = Fd(must!(nr::MEMFD_CREATE, sys::path(c"abicus"), 1) as i32);
    sys::write(fd.0, b"abicus").at("write")?;
    let mut back = [0u8; 8];
    let n = must!("read back"; nr::PREAD64, fd.0, &mut back, back.len(), 0);
    holds("not what was written", &back[..n.min(8)] == b"abicus")
}

fn memfd_seal() -> Does {
    let file = memfd()?;
    sys::write(file.0, b"x").at("write")?;
    // F_ADD_SEALS: SHRINK | GROW | WRITE
    must!("F_ADD_SEALS"; nr::FCNTL, file.0, 1033, 2 | 4 | 8);
    refused("write", sys::write(file.0, b"y"), EPERM)?;
    refused("ftruncate", ask!(nr::FTRUNCATE, file.0, 0), EPERM)?;
    same("F_GET_SEALS", must!("F_GET_SEALS"; nr::FCNTL, file.0, 1034), 14)
}

/// MFD_NOEXEC_SEAL, which runtimes pass first and leave out when a kernel does not know it.
fn memfd_exec_flag() -> Does {
    let file = Fd(must!(nr::MEMFD_CREATE, sys::path(c"abicus"), 1 | 8) as i32);
    same("executable bits", (stat(file.0, c"").at("fstat")?.mode & 0o111) as usize, 0)
}

/// Reserves nothing: only touching would.
fn memfd_hugetlb() -> Does {
    Fd(must!(nr::MEMFD_CREATE, sys::path(c"abicus"), 1 | 4) as i32);
    Ok(())
}

/// Memory that even the kernel does not map: read(2) and write(2) on it fail, our own loads do not.
fn memfd_secret() -> Does {
    let file = Fd(must!(nr::MEMFD_SECRET, O_CLOEXEC) as i32);
    must!("ftruncate"; nr::FTRUNCATE, file.0, PAGE);
    let page = Map::file(file.0, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED)?;
    page.set(0, 42);
    same("byte", usize::from(page.get(0)), 42)?;
    let mut room = [0u8; 1];
    let (here, there) = ([room.as_mut_ptr() as usize, 1], [page.at as usize, 1]);
    let looked = ask!(nr::PROCESS_VM_READV, sys::getpid(), &here, 1, &there, 1, 0);
    holds("process_vm_readv can read it", looked != Ok(1))
}

fn madvise_dontneed() -> Does {
    let page = Map::private(PAGE)?;
    page.set(0, 42);
    must!(nr::MADVISE, page.at, PAGE, 4);
    same("byte", usize::from(page.get(0)), 0)
}

/// Advice after which memory must be as usable as before.
fn advise(advice: usize) -> Does {
    let page = Map::private(PAGE)?;
    page.set(0, 42);
    must!(nr::MADVISE, page.at, PAGE, advice);
    page.set(1, 43);
    same("byte", usize::from(page.get(1)), 43)
}

fn madvise_collapse() -> Does {
    let huge = 2 << 20;
    let area = Map::private(2 * huge)?;
    let at = (area.at as usize + huge - 1) & !(huge - 1);
    area.set(at - area.at as usize, 42);
    must!(nr::MADVISE, at, huge, 25);
    same("byte", usize::from(area.get(at - area.at as usize)), 42)
}

/// MADV_POPULATE_WRITE
fn madvise_populate() -> Does {
    let page = Map::private(PAGE)?;
    must!(nr::MADVISE, page.at, PAGE, 23);
    let mut resident = [0u8; 1];
    must!("mincore"; nr::MINCORE, page.at, PAGE, &mut resident);
    same("resident", usize::from(resident[0] & 1), 1)
}

fn madvise_wipe() -> Does {
    let page = Map::private(PAGE)?;
    page.set(0, 42);
    must!(nr::MADVISE, page.at, PAGE, 18);
    let status = Twin::start(&mut || i32::from(page.get(0)))?.wait()?;
    same("byte in a child", status as usize >> 8, 0)?;
    same("byte here", usize::from(page.get(0)), 42)
}

fn madvise_dont_fork() -> Does {
    let page = Map::private(PAGE)?;
    page.set(0, 42);
    must!(nr::MADVISE, page.at, PAGE, 10);
    let signal = signal_of(&mut || {
        let _ = page.get(0);
    })?;
    same("signal of a child that reads it", signal as usize, SIGSEGV as usize)
}

fn madvise_guard() -> Does {
    let page = Map::private(PAGE)?;
    page.set(0, 42);
    must!(nr::MADVISE, page.at, PAGE, 102);
    let signal = signal_of(&mut || {
        let _ = page.get(0);
    })?;
    same("signal of who reads a guarded page", signal as usize, SIGSEGV as usize)?;
    must!("MADV_GUARD_REMOVE"; nr::MADVISE, page.at, PAGE, 103);
    same("byte after", usize::from(page.get(0)), 0)
}

fn process_madvise() -> Does {
    let page = Map::private(PAGE)?;
    let me = Fd(must!("pidfd_open"; nr::PIDFD_OPEN, sys::getpid(), 0) as i32);
    let vector = [page.at as usize, PAGE];
    // MADV_WILLNEED
    same("bytes", must!(nr::PROCESS_MADVISE, me.0, &vector, 1, 3, 0), PAGE)
}

fn mlock_page() -> Does {
    let page = Map::private(PAGE)?;
    must!(nr::MLOCK, page.at, PAGE);
    let mut resident = [0u8; 1];
    must!("mincore"; nr::MINCORE, page.at, PAGE, &mut resident);
    same("resident", usize::from(resident[0] & 1), 1)?;
    // MS_INVALIDATE of locked memory is refused: that it is locked, not only resident.
    refused("msync MS_INVALIDATE", ask!(nr::MSYNC, page.at, PAGE, 2), EBUSY)?;
    must!("munlock"; nr::MUNLOCK, page.at, PAGE);
    Ok(())
}

fn mlock_on_fault() -> Does {
    let page = Map::private(PAGE)?;
    must!(nr::MLOCK2, page.at, PAGE, 1);
    page.set(0, 1);
    refused("msync MS_INVALIDATE", ask!(nr::MSYNC, page.at, PAGE, 2), EBUSY)
}

/// What exists is a few pages; MCL_ONFAULT, so that nothing is read in for it.
fn mlock_all() -> Does {
    must!(nr::MLOCKALL, 1 | 4);
    must!("munlockall"; nr::MUNLOCKALL);
    Ok(())
}

fn mempolicy_get() -> Does {
    let (mut mode, mut nodes) = (-1i32, [0u64; 16]);
    // MPOL_F_MEMS_ALLOWED
    must!("nodes allowed"; nr::GET_MEMPOLICY, 0, &mut nodes, 1024, 0, 4);
    must!(nr::GET_MEMPOLICY, &mut mode, 0, 0, 0, 0);
    holds("no node is allowed", nodes.iter().any(|word| *word != 0))
}

/// MPOL_PREFERRED without a node: local.
fn mempolicy_set() -> Does {
    must!(nr::SET_MEMPOLICY, 1, 0, 0);
    Ok(())
}

fn mempolicy_mbind() -> Does {
    let page = Map::private(PAGE)?;
    must!(nr::MBIND, page.at, PAGE, 1, 0, 0, 0);
    page.set(0, 1);
    Ok(())
}

/// A home node needs a policy that has nodes, bound first.
fn mempolicy_home_node() -> Does {
    let page = Map::private(PAGE)?;
    let mut nodes = [0u64; 16];
    must!("nodes allowed"; nr::GET_MEMPOLICY, 0, &mut nodes, 1024, 0, 4);
    let node = nodes.iter().position(|word| *word != 0).map_or(0, |i| i * 64 + nodes[i].trailing_zeros() as usize);
    must!("mbind"; nr::MBIND, page.at, PAGE, 2, &nodes, 1024, 0);
    must!(nr::SET_MEMPOLICY_HOME_NODE, page.at, PAGE, node, 0);
    Ok(())
}

/// Without nodes it only asks where a page is.
fn mempolicy_move_pages() -> Does {
    let page = Map::private(PAGE)?;
    page.set(0, 1);
    let (pages, mut node) = ([page.at as usize], -1i32);
    must!(nr::MOVE_PAGES, 0, 1, &pages, 0, &mut node, 0);
    holds("the page is on no node", node >= 0)
}

/// A page without access by its key; the key's rights are those of the thread, so a child reads it.
fn pkey_protect() -> Does {
    // PKEY_DISABLE_ACCESS
    let key = must!(nr::PKEY_ALLOC, 0, 1);
    let page = Map::private(PAGE)?;
    page.set(0, 42);
    let protected = ask!(nr::PKEY_MPROTECT, page.at, PAGE, PROT_READ | PROT_WRITE, key);
    let signal = signal_of(&mut || {
        let _ = page.get(0);
    });
    let freed = ask!(nr::PKEY_FREE, key);
    protected.at("pkey_mprotect")?;
    same("signal of who reads without the key", signal? as usize, SIGSEGV as usize)?;
    freed.at("pkey_free")?;
    Ok(())
}

extern "C" fn touch(page: usize) {
    // SAFETY: the mapping lives until the thread is joined.
    let byte = unsafe { (page as *const u8).read_volatile() };
    // SAFETY: the next page of the same mapping, a word for the answer.
    unsafe { (page as *mut u8).add(PAGE).write_volatile(byte) };
}

/// A thread touches a page that is not there; we see the fault and supply the page.
fn userfaultfd() -> Does {
    // UFFD_USER_MODE_ONLY
    let fd = Fd(must!(nr::USERFAULTFD, O_CLOEXEC | O_NONBLOCK | 1) as i32);
    let api = [0xaau64, 0, 0];
    must!("UFFDIO_API"; nr::IOCTL, fd.0, 0xc018_aa3fusize, &api);
    let (area, source) = (Map::private(2 * PAGE)?, Map::private(PAGE)?);
    area.set(PAGE, 0);
    source.set(0, 42);
    let register = [area.at as u64, PAGE as u64, 1, 0];
    must!("UFFDIO_REGISTER"; nr::IOCTL, fd.0, 0xc020_aa00usize, &register);
    let thread = Thread::start(touch, area.at as usize)?;
    let mut event = [0u64; 4];
    let mut answer = ready(&fd, 1, 200);
    if answer == Ok(1) {
        answer = ask!(nr::READ, fd.0, &mut event, 32);
    }
    // Whatever was seen, the thread needs its page.
    let copy = [area.at as u64, source.at as u64, PAGE as u64, 0, 0];
    let copied = ask!(nr::IOCTL, fd.0, 0xc028_aa03usize, &copy);
    thread.join();
    same("bytes of event", answer.at("read")?, 32)?;
    same("UFFD_EVENT_PAGEFAULT", event[0] as usize & 0xff, 0x12)?;
    copied.at("UFFDIO_COPY")?;
    same("byte the thread found", usize::from(area.get(PAGE)), 42)
}

/// On its own: what is sealed stays for the life of the process.
fn mseal() -> Does {
    let page = Map::private(PAGE)?;
    must!(nr::MSEAL, page.at, PAGE, 0);
    refused("munmap", ask!(nr::MUNMAP, page.at, PAGE), EPERM)?;
    refused("mprotect", ask!(nr::MPROTECT, page.at, PAGE, PROT_READ), EPERM)
}

#[cfg(target_arch = "x86_64")]
fn map_shadow_stack() -> Does {
    let at = must!(nr::MAP_SHADOW_STACK, 0, PAGE, 0);
    drop(Map { at: at as *mut u8, len: PAGE });
    Ok(())
}

/// A new System V object. Its key starts with "ab", so that whoever finds one knows whose it was.
fn sysv(make: &dyn Fn(usize, usize) -> Result<usize, i32>) -> Result<usize, No> {
    // IPC_CREAT | IPC_EXCL; IPC_PRIVATE where another pid namespace has this number too.
    Ok(match make(0x6162_0000 | sys::getpid() as usize & 0xffff, 0o3600) {
        Err(EEXIST) => make(0, 0o600)?,
        made => made?,
    })
}

/// Marked for removal as soon as it is attached.
fn sysv_memory() -> Does {
    let id = sysv(&|key, flags| ask!(nr::SHMGET, key, PAGE, flags))?;
    let at = ask!(nr::SHMAT, id, 0, 0);
    let removed = ask!(nr::SHMCTL, id, 0, 0);
    let map = core::mem::ManuallyDrop::new(Map { at: at.at("shmat")? as *mut u8, len: PAGE });
    let status = Twin::start(&mut || {
        map.set(0, 42);
        0
    });
    let byte = map.get(0);
    let status = status?.wait().map(|_| map.get(0)).unwrap_or(byte);
    must!("shmdt"; nr::SHMDT, map.at);
    removed.at("IPC_RMID")?;
    same("byte a child wrote", usize::from(status), 42)
}

fn sysv_semaphore() -> Does {
    let id = sysv(&|key, flags| ask!(nr::SEMGET, key, 1, flags))?;
    // struct sembuf { number, operation, flags }: up by 3, then down by 2.
    let steps = [[0i16, 3, 0], [0, -2, 0x800]];
    let done = ask!(nr::SEMTIMEDOP, id, &steps, 2, 0);
    // GETVAL, then IPC_RMID
    let left = ask!(nr::SEMCTL, id, 0, 12, 0);
    must!("IPC_RMID"; nr::SEMCTL, id, 0, 0, 0);
    done.at("semtimedop")?;
    same("value", left.at("GETVAL")?, 1)
}

fn sysv_message() -> Does {
    let id = sysv(&|key, flags| ask!(nr::MSGGET, key, flags))?;
    let (message, mut room) = ([7usize, 42], [0usize; 2]);
    let sent = ask!(nr::MSGSND, id, &message, 8, 0o4000);
    let taken = ask!(nr::MSGRCV, id, &mut room, 8, 7, 0o4000);
    must!("IPC_RMID"; nr::MSGCTL, id, 0, 0);
    sent.at("msgsnd")?;
    same("bytes", taken.at("msgrcv")?, 8)?;
    same("text", room[1], 42)
}

fn mqueue() -> Does {
    let name = crate::rt::text::Text::<32>::format(format_args!("abicus-{}\0", sys::getpid()));
    let limits = [0usize, 1, 16, 0, 0, 0, 0, 0];
    let queue =
        ask!(nr::MQ_OPEN, name.bytes().as_ptr(), O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC | O_NONBLOCK, 0o600, &limits);
    let queue = Fd::of(queue)?;
    must!("mq_unlink"; nr::MQ_UNLINK, name.bytes().as_ptr());
    must!("mq_timedsend"; nr::MQ_TIMEDSEND, queue.0, sys::path(c"hello"), 5, 1, 0);
    let mut room = [0u8; 16];
    let n = must!("mq_timedreceive"; nr::MQ_TIMEDRECEIVE, queue.0, &mut room, 16, 0, 0);
    holds("another message came", &room[..n.min(16)] == b"hello")
}

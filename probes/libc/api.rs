//! The functions of the libc that checks call, by name.
//!
//! Goes in: a table of declarations. Comes out: a method of `Cell` for each, which looks the function up when it is called.
//! A check has a process of its own, so where there is no such function the call ends it, with that as what was seen. Must not know: what the functions are called for.
//! Structures of the libc are passed as bytes or words: their layouts stand where they are read.

use core::ffi::{c_char, c_int, c_long, c_void};

use crate::cell::Cell;
use crate::saw::Saw;

pub type Text = *const c_char;
pub type Room = *mut c_char;
pub type Any = *mut c_void;
/// Room for a structure of the libc whose content is not looked at.
pub type Opaque<const N: usize> = [u64; N];

macro_rules! api {
    ($everywhere:literal $($name:ident($($argument:ident: $kind:ty),*) $(-> $result:ty)?;)*) => {
        impl Cell {
            $(
                /// # Safety
                /// As the function of the same name, see its manual page.
                pub unsafe fn $name(&self, $($argument: $kind),*) $(-> $result)? {
                    let address = self.function(cstr(concat!(stringify!($name), "\0")), $everywhere);
                    // SAFETY: the symbol is the function of this name and has the type its manual page says.
                    unsafe {
                        core::mem::transmute::<usize, unsafe extern "C" fn($($kind),*) $(-> $result)?>(address)($($argument),*)
                    }
                }
            )*
        }
    };
}

const fn cstr(text: &'static str) -> &'static core::ffi::CStr {
    match core::ffi::CStr::from_bytes_with_nul(text.as_bytes()) {
        Ok(text) => text,
        Err(_) => c"",
    }
}

pub type Thread = usize;
pub type Start = extern "C" fn(Any) -> Any;
pub type Compare = extern "C" fn(Any, Any) -> c_int;

// Functions that POSIX or the two libcs' common core promise: their absence is something seen.
api! { true
    __errno_location() -> *mut c_int;
    _exit(status: c_int);
    abort();
    access(path: Text, mode: c_int) -> c_int;
    aligned_alloc(alignment: usize, size: usize) -> Any;
    bsearch(key: Any, base: Any, count: usize, size: usize, compare: Compare) -> Any;
    calloc(count: usize, size: usize) -> Any;
    chdir(path: Text) -> c_int;
    clock_gettime(clock: c_int, time: *mut [i64; 2]) -> c_int;
    clock_nanosleep(clock: c_int, flags: c_int, time: *const [i64; 2], rest: *mut [i64; 2]) -> c_int;
    close(fd: c_int) -> c_int;
    closedir(dir: Any) -> c_int;
    confstr(name: c_int, room: Room, size: usize) -> usize;
    dlerror() -> Text;
    dlopen(path: Text, flags: c_int) -> Any;
    dlsym(handle: Any, name: Text) -> usize;
    execve(path: Text, arguments: *const Text, environment: *const Text) -> c_int;
    faccessat(dir: c_int, path: Text, mode: c_int, flags: c_int) -> c_int;
    fchmodat(dir: c_int, path: Text, mode: u32, flags: c_int) -> c_int;
    fclose(stream: Any) -> c_int;
    ferror(stream: Any) -> c_int;
    fflush(stream: Any) -> c_int;
    fgets(room: Room, size: c_int, stream: Any) -> Room;
    fnmatch(pattern: Text, text: Text, flags: c_int) -> c_int;
    fopen(path: Text, mode: Text) -> Any;
    fork() -> c_int;
    fputs(text: Text, stream: Any) -> c_int;
    free(block: Any);
    freeaddrinfo(list: *mut AddrInfo);
    freeifaddrs(list: *mut IfAddrs);
    fseeko(stream: Any, offset: i64, whence: c_int) -> c_int;
    fstat(fd: c_int, stat: Any) -> c_int;
    ftello(stream: Any) -> i64;
    ftruncate(fd: c_int, size: i64) -> c_int;
    fwrite(data: Any, size: usize, count: usize, stream: Any) -> usize;
    getaddrinfo(name: Text, service: Text, hints: *const AddrInfo, list: *mut *mut AddrInfo) -> c_int;
    getcwd(room: Room, size: usize) -> Room;
    getentropy(room: Any, size: usize) -> c_int;
    getgrgid_r(id: u32, group: Any, room: Room, size: usize, found: *mut Any) -> c_int;
    getgrnam_r(name: Text, group: Any, room: Room, size: usize, found: *mut Any) -> c_int;
    gethostbyname(name: Text) -> *const HostEnt;
    gethostname(room: Room, size: usize) -> c_int;
    getifaddrs(list: *mut *mut IfAddrs) -> c_int;
    getline(line: *mut Room, size: *mut usize, stream: Any) -> isize;
    getloadavg(loads: *mut f64, count: c_int) -> c_int;
    getnameinfo(address: Any, size: u32, host: Room, host_size: u32, service: Room, service_size: u32, flags: c_int) -> c_int;
    getpid() -> c_int;
    getprotobyname(name: Text) -> Any;
    getpwnam_r(name: Text, user: Any, room: Room, size: usize, found: *mut Any) -> c_int;
    getpwuid_r(id: u32, user: Any, room: Room, size: usize, found: *mut Any) -> c_int;
    getrlimit(resource: c_int, limit: *mut [u64; 2]) -> c_int;
    getuid() -> u32;
    glob(pattern: Text, flags: c_int, error: usize, found: Any) -> c_int;
    globfree(found: Any);
    gmtime_r(time: *const i64, parts: *mut Tm) -> *mut Tm;
    grantpt(fd: c_int) -> c_int;
    iconv(handle: Any, from: *mut Text, from_size: *mut usize, to: *mut Room, to_size: *mut usize) -> usize;
    iconv_close(handle: Any) -> c_int;
    iconv_open(to: Text, from: Text) -> Any;
    if_nametoindex(name: Text) -> u32;
    isatty(fd: c_int) -> c_int;
    iswalpha(c: u32) -> c_int;
    kill(pid: c_int, signal: c_int) -> c_int;
    localtime_r(time: *const i64, parts: *mut Tm) -> *mut Tm;
    malloc(size: usize) -> Any;
    mbstowcs(to: *mut u32, from: Text, count: usize) -> usize;
    mkdtemp(template: Room) -> Room;
    mkstemp(template: Room) -> c_int;
    mktime(parts: *mut Tm) -> i64;
    mmap(address: Any, size: usize, protection: c_int, flags: c_int, fd: c_int, offset: i64) -> Any;
    mq_close(queue: c_int) -> c_int;
    mq_receive(queue: c_int, room: Room, size: usize, priority: *mut u32) -> isize;
    mq_send(queue: c_int, text: Text, size: usize, priority: u32) -> c_int;
    mq_unlink(name: Text) -> c_int;
    nanosleep(time: *const [i64; 2], rest: *mut [i64; 2]) -> c_int;
    nftw(path: Text, visit: extern "C" fn(Text, Any, c_int, Any) -> c_int, fds: c_int, flags: c_int) -> c_int;
    nl_langinfo(item: c_int) -> Text;
    open_memstream(room: *mut Room, size: *mut usize) -> Any;
    opendir(path: Text) -> Any;
    pclose(stream: Any) -> c_int;
    pipe(ends: *mut [c_int; 2]) -> c_int;
    popen(command: Text, mode: Text) -> Any;
    posix_fallocate(fd: c_int, offset: i64, size: i64) -> c_int;
    posix_memalign(block: *mut Any, alignment: usize, size: usize) -> c_int;
    posix_openpt(flags: c_int) -> c_int;
    posix_spawn(pid: *mut c_int, path: Text, actions: Any, attributes: Any, arguments: *const Text, environment: *const Text) -> c_int;
    posix_spawn_file_actions_adddup2(actions: Any, from: c_int, to: c_int) -> c_int;
    posix_spawn_file_actions_addopen(actions: Any, fd: c_int, path: Text, flags: c_int, mode: u32) -> c_int;
    posix_spawn_file_actions_destroy(actions: Any) -> c_int;
    posix_spawn_file_actions_init(actions: Any) -> c_int;
    posix_spawnp(pid: *mut c_int, name: Text, actions: Any, attributes: Any, arguments: *const Text, environment: *const Text) -> c_int;
    pthread_attr_destroy(attributes: Any) -> c_int;
    pthread_attr_init(attributes: Any) -> c_int;
    pthread_attr_setstacksize(attributes: Any, size: usize) -> c_int;
    pthread_barrier_init(barrier: Any, attributes: Any, count: u32) -> c_int;
    pthread_barrier_wait(barrier: Any) -> c_int;
    pthread_cancel(thread: Thread) -> c_int;
    pthread_cond_init(condition: Any, attributes: Any) -> c_int;
    pthread_cond_signal(condition: Any) -> c_int;
    pthread_cond_timedwait(condition: Any, mutex: Any, until: *const [i64; 2]) -> c_int;
    pthread_cond_wait(condition: Any, mutex: Any) -> c_int;
    pthread_condattr_init(attributes: Any) -> c_int;
    pthread_condattr_setclock(attributes: Any, clock: c_int) -> c_int;
    pthread_create(thread: *mut Thread, attributes: Any, start: Start, argument: Any) -> c_int;
    pthread_detach(thread: Thread) -> c_int;
    pthread_getspecific(key: u32) -> Any;
    pthread_join(thread: Thread, result: *mut Any) -> c_int;
    pthread_key_create(key: *mut u32, destroy: extern "C" fn(Any)) -> c_int;
    pthread_kill(thread: Thread, signal: c_int) -> c_int;
    pthread_mutex_consistent(mutex: Any) -> c_int;
    pthread_mutex_init(mutex: Any, attributes: Any) -> c_int;
    pthread_mutex_lock(mutex: Any) -> c_int;
    pthread_mutex_timedlock(mutex: Any, until: *const [i64; 2]) -> c_int;
    pthread_mutex_unlock(mutex: Any) -> c_int;
    pthread_mutexattr_init(attributes: Any) -> c_int;
    pthread_mutexattr_setprotocol(attributes: Any, protocol: c_int) -> c_int;
    pthread_mutexattr_setpshared(attributes: Any, shared: c_int) -> c_int;
    pthread_mutexattr_setrobust(attributes: Any, robust: c_int) -> c_int;
    pthread_once(once: Any, routine: extern "C" fn()) -> c_int;
    pthread_rwlock_init(lock: Any, attributes: Any) -> c_int;
    pthread_rwlock_rdlock(lock: Any) -> c_int;
    pthread_rwlock_tryrdlock(lock: Any) -> c_int;
    pthread_rwlock_trywrlock(lock: Any) -> c_int;
    pthread_rwlock_unlock(lock: Any) -> c_int;
    pthread_rwlock_wrlock(lock: Any) -> c_int;
    pthread_self() -> Thread;
    pthread_setname_np(thread: Thread, name: Text) -> c_int;
    pthread_setspecific(key: u32, value: Any) -> c_int;
    pthread_sigmask(how: c_int, set: *const Opaque<16>, old: *mut Opaque<16>) -> c_int;
    ptsname_r(fd: c_int, room: Room, size: usize) -> c_int;
    qsort(base: Any, count: usize, size: usize, compare: Compare);
    raise(signal: c_int) -> c_int;
    readdir(dir: Any) -> *const DirEnt;
    realloc(block: Any, size: usize) -> Any;
    realpath(path: Text, room: Room) -> Room;
    regcomp(regex: Any, pattern: Text, flags: c_int) -> c_int;
    regexec(regex: Any, text: Text, count: usize, matches: Any, flags: c_int) -> c_int;
    regfree(regex: Any);
    rmdir(path: Text) -> c_int;
    sched_getaffinity(pid: c_int, size: usize, set: Any) -> c_int;
    sched_setaffinity(pid: c_int, size: usize, set: Any) -> c_int;
    sem_close(semaphore: Any) -> c_int;
    sem_init(semaphore: Any, shared: c_int, value: u32) -> c_int;
    sem_post(semaphore: Any) -> c_int;
    sem_timedwait(semaphore: Any, until: *const [i64; 2]) -> c_int;
    sem_unlink(name: Text) -> c_int;
    sem_wait(semaphore: Any) -> c_int;
    setenv(name: Text, value: Text, overwrite: c_int) -> c_int;
    setitimer(which: c_int, new: *const [i64; 4], old: *mut [i64; 4]) -> c_int;
    setlocale(category: c_int, name: Text) -> Text;
    setrlimit(resource: c_int, limit: *const [u64; 2]) -> c_int;
    shm_open(name: Text, flags: c_int, mode: u32) -> c_int;
    shm_unlink(name: Text) -> c_int;
    sigaction(signal: c_int, action: *const SigAction, old: *mut SigAction) -> c_int;
    sigaddset(set: *mut Opaque<16>, signal: c_int) -> c_int;
    sigaltstack(stack: *const [usize; 3], old: *mut [usize; 3]) -> c_int;
    sigemptyset(set: *mut Opaque<16>) -> c_int;
    sigprocmask(how: c_int, set: *const Opaque<16>, old: *mut Opaque<16>) -> c_int;
    sigqueue(pid: c_int, signal: c_int, value: usize) -> c_int;
    sigtimedwait(set: *const Opaque<16>, info: Any, time: *const [i64; 2]) -> c_int;
    socketpair(family: c_int, kind: c_int, protocol: c_int, ends: *mut [c_int; 2]) -> c_int;
    stat(path: Text, stat: Any) -> c_int;
    statvfs(path: Text, stat: Any) -> c_int;
    strcoll(a: Text, b: Text) -> c_int;
    strerror(errno: c_int) -> Text;
    strftime(room: Room, size: usize, format: Text, parts: *const Tm) -> usize;
    strptime(text: Text, format: Text, parts: *mut Tm) -> Room;
    strtod(text: Text, end: *mut Room) -> f64;
    strtoll(text: Text, end: *mut Room, base: c_int) -> i64;
    sysconf(name: c_int) -> c_long;
    system(command: Text) -> c_int;
    timegm(parts: *mut Tm) -> i64;
    timer_create(clock: c_int, event: Any, timer: *mut Any) -> c_int;
    timer_settime(timer: Any, flags: c_int, new: *const [i64; 4], old: *mut [i64; 4]) -> c_int;
    tmpfile() -> Any;
    towupper(c: u32) -> u32;
    ttyname_r(fd: c_int, room: Room, size: usize) -> c_int;
    tzset();
    uname(room: Any) -> c_int;
    unlink(path: Text) -> c_int;
    unlockpt(fd: c_int) -> c_int;
    utimensat(dir: c_int, path: Text, times: *const [i64; 4], flags: c_int) -> c_int;
    waitpid(pid: c_int, status: *mut c_int, flags: c_int) -> c_int;
    write(fd: c_int, data: Any, size: usize) -> isize;
    read(fd: c_int, data: Any, size: usize) -> isize;
}

// Functions that only some libcs, or only newer ones, have.
api! { false
    __fxstat(version: c_int, fd: c_int, stat: Any) -> c_int;
    __xstat(version: c_int, path: Text, stat: Any) -> c_int;
    __register_atfork(prepare: extern "C" fn(), parent: extern "C" fn(), child: extern "C" fn(), object: Any) -> c_int;
    pthread_atfork(prepare: extern "C" fn(), parent: extern "C" fn(), child: extern "C" fn()) -> c_int;
    arc4random() -> u32;
    copy_file_range(from: c_int, from_at: *mut i64, to: c_int, to_at: *mut i64, size: usize, flags: u32) -> isize;
    getauxval(kind: usize) -> usize;
    getrandom(room: Any, size: usize, flags: u32) -> isize;
    gnu_get_libc_version() -> Text;
    malloc_trim(keep: usize) -> c_int;
    malloc_usable_size(block: Any) -> usize;
    memfd_create(name: Text, flags: u32) -> c_int;
    pidfd_spawn(pidfd: *mut c_int, path: Text, actions: Any, attributes: Any, arguments: *const Text, environment: *const Text) -> c_int;
    sched_getcpu() -> c_int;
    statx(dir: c_int, path: Text, flags: c_int, mask: u32, room: Any) -> c_int;
}

// Functions with a variable number of arguments: the caller says in al how many vector registers it uses.
macro_rules! variadic {
    ($($name:ident($($argument:ident: $kind:ty),*) -> $result:ty;)*) => { $(
        /// The function itself, to be called with its variable arguments.
        pub fn $name(cell: &Cell) -> unsafe extern "C" fn($($kind),*, ...) -> $result {
            let address = cell.function(cstr(concat!(stringify!($name), "\0")), true);
            // SAFETY: the symbol is the function of this name and has the type its manual page says.
            unsafe { core::mem::transmute::<usize, unsafe extern "C" fn($($kind),*, ...) -> $result>(address) }
        }
    )* };
}
variadic! {
    open(path: Text, flags: c_int) -> c_int;
    snprintf(room: Room, size: usize, format: Text) -> c_int;
    sscanf(text: Text, format: Text) -> c_int;
    sem_open(name: Text, flags: c_int) -> Any;
    mq_open(name: Text, flags: c_int) -> c_int;
}

impl Cell {
    /// What `errno` says in this thread.
    pub fn errno(&self) -> i32 {
        let Some(location) = self.symbol(c"__errno_location") else { return 0 };
        // SAFETY: takes nothing and returns the address of this thread's errno.
        unsafe { *core::mem::transmute::<usize, extern "C" fn() -> *const i32>(location)() }
    }

    /// The errno of a call that failed, as an observation.
    pub fn failed(&self, step: &'static str) -> Saw {
        Saw::Errno(self.errno(), step)
    }

    /// For functions that return -1 and set errno.
    pub fn check<T: PartialEq + From<i8>>(&self, result: T, step: &'static str) -> Result<T, Saw> {
        if result == T::from(-1) { Err(self.failed(step)) } else { Ok(result) }
    }

    /// For functions that return null and set errno.
    pub fn some<T>(&self, pointer: *mut T, step: &'static str) -> Result<*mut T, Saw> {
        if pointer.is_null() { Err(self.failed(step)) } else { Ok(pointer) }
    }
}

/// For functions that return an error number.
pub fn zero(result: c_int, step: &'static str) -> Result<(), Saw> {
    if result == 0 { Ok(()) } else { Err(Saw::Errno(result, step)) }
}

/// `struct addrinfo`, the same in glibc and musl.
#[repr(C)]
pub struct AddrInfo {
    pub flags: c_int,
    pub family: c_int,
    pub kind: c_int,
    pub protocol: c_int,
    pub size: u32,
    pub address: *const u8,
    pub canonical: Text,
    pub next: *mut AddrInfo,
}

/// `struct hostent`.
#[repr(C)]
pub struct HostEnt {
    pub name: Text,
    pub aliases: *const Text,
    pub family: c_int,
    pub size: c_int,
    pub addresses: *const *const u8,
}

/// The head of `struct ifaddrs`.
#[repr(C)]
pub struct IfAddrs {
    pub next: *mut IfAddrs,
    pub name: Text,
    pub flags: u32,
    pub address: *const u8,
}

/// `struct dirent` with 64-bit offsets.
#[repr(C)]
pub struct DirEnt {
    pub inode: u64,
    pub offset: i64,
    pub size: u16,
    pub kind: u8,
    pub name: [u8; 256],
}

/// `struct tm`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct Tm {
    pub sec: c_int,
    pub min: c_int,
    pub hour: c_int,
    pub mday: c_int,
    pub mon: c_int,
    pub year: c_int,
    pub wday: c_int,
    pub yday: c_int,
    pub isdst: c_int,
    pub offset: c_long,
    pub zone: usize,
}

/// `struct sigaction` of the libc, which is not the kernel's.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct SigAction {
    pub handler: usize,
    pub mask: Opaque<16>,
    pub flags: c_int,
    pub restorer: usize,
}

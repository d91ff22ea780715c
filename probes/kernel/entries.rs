//! Other ways into the kernel: the i386 and x32 entries, the vsyscall page, the vDSO. And what describes the filter.
//!
//! Goes in: nothing. Comes out: facts and answers. Must not know: which answers are good.

use super::check::{Asked, Check, Facts, How, Saw, wrong};
use super::filter;
use super::rt::consts::*;
#[cfg(target_arch = "x86_64")]
use super::rt::sys;
use super::rt::sys::{Timespec, call};
use super::rt::{nr, process};

pub static FACTS: &[fn(&mut Facts)] = &[seccomp];

pub static CHECKS: &[Check] = &[
    #[cfg(target_arch = "x86_64")]
    Check { id: "entry.int80", how: How::Batch, run: i386::getpid },
    #[cfg(target_arch = "x86_64")]
    Check { id: "entry.int80.time64", how: How::Batch, run: i386::time64 },
    #[cfg(target_arch = "x86_64")]
    Check { id: "entry.x32", how: How::Batch, run: x32 },
    #[cfg(target_arch = "x86_64")]
    Check { id: "entry.vsyscall.mode", how: How::Batch, run: vsyscall::mode },
    #[cfg(target_arch = "x86_64")]
    Check { id: "entry.vsyscall.gettimeofday", how: How::Batch, run: vsyscall::gettimeofday },
    #[cfg(target_arch = "x86_64")]
    Check { id: "entry.vsyscall.time", how: How::Batch, run: vsyscall::time },
    #[cfg(target_arch = "x86_64")]
    Check { id: "entry.vsyscall.getcpu", how: How::Batch, run: vsyscall::getcpu },
    Check { id: "entry.vdso.present", how: How::Batch, run: vdso_present },
    Check { id: "entry.vdso.monotonic", how: How::Own, run: || vdso_clock(CLOCK_MONOTONIC) },
    Check { id: "entry.vdso.realtime", how: How::Own, run: || vdso_clock(CLOCK_REALTIME) },
];

/// prctl(2), PR_GET_SECCOMP and PR_GET_NO_NEW_PRIVS: 0 off, 2 a filter.
fn seccomp(f: &mut Facts) {
    for (name, operation) in [("kernel.seccomp", PR_GET_SECCOMP), ("kernel.no_new_privs", PR_GET_NO_NEW_PRIVS)] {
        // SAFETY: takes no address.
        match unsafe { call!(nr::PRCTL, operation, 0, 0, 0, 0) } {
            Ok(mode) => f.number(name, mode as i64),
            Err(errno) => f.number(name, -i64::from(errno)),
        }
    }
}

/// A call by the i386 entry. Registers r8 to r11 are lost on the way.
///
/// # Safety
/// Harmless both as the i386 call of this number and as the 64-bit one: a sandbox may mistake it.
#[cfg(target_arch = "x86_64")]
pub unsafe fn int80(number: usize, a: usize, b: usize) -> isize {
    let answer: i32;
    // SAFETY: rbx may not be named as an operand, hence the exchange; the caller answers for the call.
    unsafe {
        core::arch::asm!(
            "xchg {a}, rbx",
            "int 0x80",
            "xchg {a}, rbx",
            a = inout(reg) a => _,
            inlateout("eax") number as u32 => answer,
            in("ecx") b as u32, in("edx") u32::MAX, in("esi") u32::MAX, in("edi") u32::MAX,
            out("r8") _, out("r9") _, out("r10") _, out("r11") _,
        );
    }
    answer as isize
}

#[cfg(target_arch = "x86_64")]
mod i386 {
    use super::*;

    /// 20 is getpid there and writev here; with a bad descriptor that does nothing.
    pub fn getpid() -> Asked {
        // SAFETY: harmless as either.
        match unsafe { int80(20, usize::MAX, usize::MAX) } as i32 {
            pid if pid == sys::getpid() => Ok(Saw::Ok),
            // gVisor takes the entry for the 64-bit one.
            answer if -answer == EBADF => wrong(format_args!("taken for the 64-bit call of the same number")),
            answer if answer < 0 => Err(Saw::Errno(-answer)),
            _ => wrong(format_args!("not the pid")),
        }
    }

    /// clock_gettime64 (403, Linux 5.1): time after 2038 for 32-bit programs. Unassigned as a 64-bit number.
    pub fn time64() -> Asked {
        // In our own data, because the stack is above what 32 bits can say.
        static mut NOW: Timespec = Timespec { sec: 0, nsec: 0 };
        let now = &raw mut NOW;
        if now as usize >> 32 != 0 {
            return Err(Saw::NotAsked("the probe lies above 4 GiB"));
        }
        let mut native = Timespec::default();
        // SAFETY: room for a time in both; single threaded, so nobody else looks at NOW.
        let (answer, seen) = unsafe {
            call!(nr::CLOCK_GETTIME, CLOCK_MONOTONIC, &mut native)?;
            (int80(403, CLOCK_MONOTONIC, now as usize) as i32, core::ptr::read_volatile(now))
        };
        if answer != 0 {
            return Err(Saw::Errno(-answer));
        }
        if (seen.sec - native.sec).abs() > 1 {
            return wrong(format_args!("another time than the 64-bit call"));
        }
        Ok(Saw::Ok)
    }
}

/// getpid with bit 30: the entry of x32 programs, absent unless CONFIG_X86_X32_ABI.
#[cfg(target_arch = "x86_64")]
fn x32() -> Asked {
    // SAFETY: takes no argument.
    let pid = unsafe { call!(0x4000_0000 + nr::GETPID) }?;
    if pid as i32 == sys::getpid() { Ok(Saw::Ok) } else { wrong(format_args!("not the pid")) }
}

/// The page at a fixed address by which glibc before 2.14 and every static program of that age ask for the time.
#[cfg(target_arch = "x86_64")]
mod vsyscall {
    use super::*;

    const PAGE: usize = 0xffff_ffff_ff60_0000;

    /// How /proc/self/maps shows it: `none`, `xonly` (execute only), or `emulate` (readable too; `native` looks the same).
    pub fn mode() -> Asked {
        let mut room = [0; 16384];
        let maps = sys::read_file(c"/proc/self/maps", &mut room)?;
        let line = maps.split(|b| *b == b'\n').find(|line| line.ends_with(b"[vsyscall]"));
        let mode = line.map(|line| line.iter().skip_while(|b| **b != b' ').nth(1) == Some(&b'r'));
        super::super::check::value(format_args!(
            "{}",
            match mode {
                None => "none",
                Some(false) => "xonly",
                Some(true) => "emulate",
            }
        ))
    }

    pub fn gettimeofday() -> Asked {
        let mut now = [0i64; 2];
        // SAFETY: the ABI of the page; where it is not there, the fault is the answer.
        let answer = unsafe {
            let f: extern "C" fn(*mut i64, usize) -> isize = core::mem::transmute(PAGE);
            f(now.as_mut_ptr(), 0)
        };
        verify(answer, now[0])
    }

    pub fn time() -> Asked {
        // SAFETY: as above.
        let now = unsafe {
            let f: extern "C" fn(usize) -> isize = core::mem::transmute(PAGE + 1024);
            f(0)
        };
        verify(now.min(0), now as i64)
    }

    pub fn getcpu() -> Asked {
        let mut cpu = [u32::MAX; 2];
        // SAFETY: as above.
        let answer = unsafe {
            let f: extern "C" fn(*mut u32, *mut u32, usize) -> isize = core::mem::transmute(PAGE + 2048);
            f(&mut cpu[0], &mut cpu[1], 0)
        };
        sys::answer(answer)?;
        if cpu[0] == u32::MAX { wrong(format_args!("no processor number")) } else { Ok(Saw::Ok) }
    }

    fn verify(answer: isize, seconds: i64) -> Asked {
        sys::answer(answer)?;
        let mut native = Timespec::default();
        // SAFETY: room for a time.
        unsafe { call!(nr::CLOCK_GETTIME, CLOCK_REALTIME, &mut native) }?;
        if (native.sec - seconds).abs() > 1 {
            return wrong(format_args!("another time than the system call"));
        }
        Ok(Saw::Ok)
    }
}

pub type Clock = extern "C" fn(usize, *mut Timespec) -> i32;

/// The kernel's own function for clock_gettime, vdso(7).
#[cfg(target_arch = "x86_64")]
const CLOCK: &[u8] = b"__vdso_clock_gettime";
#[cfg(target_arch = "aarch64")]
const CLOCK: &[u8] = b"__kernel_clock_gettime";

fn vdso_present() -> Asked {
    find_clock().map(|_| Saw::Ok)
}

/// Reads the clock through the vDSO under a filter that refuses every system call: it must not need one. Where the
/// clock source cannot be read without the kernel it does, and every look at the clock costs many times as much.
fn vdso_clock(clock: usize) -> Asked {
    let read = find_clock()?;
    let (mut native, mut seen) = (Timespec::default(), Timespec::default());
    // SAFETY: room for a time.
    unsafe { call!(nr::CLOCK_GETTIME, clock, &mut native) }?;
    if read(clock, &mut seen) != 0 || (seen.sec - native.sec).abs() > 1 {
        return wrong(format_args!("another time than the system call"));
    }
    if filter::install(filter::RET_TRACE, 0).is_err() {
        return Err(Saw::NotAsked("no filter of our own can be installed here"));
    }
    if read(clock, &mut seen) != 0 { wrong(format_args!("needs a system call")) } else { Ok(Saw::Ok) }
}

/// Walks the vDSO's ELF image: program headers, dynamic section, symbol table.
pub fn find_clock() -> Result<Clock, Saw> {
    let Some(base) = process::aux(AT_SYSINFO_EHDR).filter(|base| *base != 0) else {
        return Err(Saw::Value(super::check::Value::of(b"none")));
    };
    // SAFETY: the kernel maps a whole ELF image there; offsets are its own. Reads are unaligned to trust no layout.
    unsafe {
        let word = |at: usize| (at as *const usize).read_unaligned();
        let half = |at: usize| (at as *const u16).read_unaligned() as usize;
        let (headers, size, count) = (base + word(base + 32), half(base + 54), half(base + 56));
        let (mut slide, mut dynamic) = (None, None);
        for header in (0..count).map(|i| headers + i * size) {
            match (header as *const u32).read_unaligned() {
                // PT_LOAD, PT_DYNAMIC: offset at 8, address at 16.
                1 if slide.is_none() => {
                    slide = Some(base.wrapping_add(word(header + 8)).wrapping_sub(word(header + 16)))
                }
                2 => dynamic = Some(base + word(header + 8)),
                _ => {}
            }
        }
        let (Some(slide), Some(mut at)) = (slide, dynamic) else { return Err(not_elf()) };
        let (mut strings, mut symbols, mut hash, mut gnu) = (0, 0, 0, 0);
        while word(at) != 0 {
            let value = word(at + 8).wrapping_add(slide);
            match word(at) {
                4 => hash = value,
                5 => strings = value,
                6 => symbols = value,
                0x6fff_fef5 => gnu = value,
                _ => {}
            }
            at += 16;
        }
        if strings == 0 || symbols == 0 {
            return Err(not_elf());
        }
        // DT_HASH says how many symbols there are. An image with DT_GNU_HASH alone (since 6.11) has a handful.
        let count = if hash != 0 { (hash as *const u32).add(1).read_unaligned() as usize } else { gnu_count(gnu) };
        for symbol in (0..count.min(256)).map(|i| symbols + i * 24) {
            let name = strings + (symbol as *const u32).read_unaligned() as usize;
            let text = core::ffi::CStr::from_ptr(name as *const core::ffi::c_char);
            if text.to_bytes() == CLOCK && half(symbol + 6) != 0 {
                return Ok(core::mem::transmute::<usize, Clock>(word(symbol + 8).wrapping_add(slide)));
            }
        }
    }
    Err(Saw::Value(super::check::Value::of(b"without a clock")))
}

fn not_elf() -> Saw {
    Saw::Value(super::check::Value::of(b"not an image that can be read"))
}

/// The number of symbols by DT_GNU_HASH: the end of the chain of the highest bucket.
///
/// # Safety
/// `at` is 0 or the address of such a table.
unsafe fn gnu_count(at: usize) -> usize {
    if at == 0 {
        return 0;
    }
    // SAFETY: buckets, first symbol, bloom words (8 bytes each), shift; then the filter, the buckets, the chains.
    unsafe {
        let word = |i: usize| (at as *const u32).add(i).read_unaligned() as usize;
        let (buckets, first, bloom) = (word(0), word(1), word(2));
        let start = 4 + bloom * 2;
        let mut last = (0..buckets).map(|i| word(start + i)).max().unwrap_or(0);
        if last < first {
            return first;
        }
        while word(start + buckets + last - first) & 1 == 0 {
            last += 1;
        }
        last + 1
    }
}

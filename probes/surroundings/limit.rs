//! Limits of a process, setrlimit(2), and of what may kill it; and whether an ordinary amount can really be had.
//!
//! Goes in: nothing. Comes out: answers. Must not know: which answers are good.

use super::look::*;
use super::said::*;
use crate::asking::{Fd, Map, Thread, ask, memfd};
use crate::check::Saw;
use crate::rt::consts::*;
use crate::rt::nr;
use crate::rt::sys;
use crate::rt::text::number;

asked![
    // The soft limit of core files is the probe's own here, so that a crash leaves none: /proc knows what the cell was given.
    Batch "limit.core.soft" => core_soft,
    Batch "limit.shown" => shown,
    Batch "limit.reach.files" => files,
    Batch "limit.reach.threads" => threads,
    Batch "limit.reach.reserve" => reserve,
    Batch "limit.reach.lock" => lock,
    Own "limit.oom.raise" => || oom(c"/proc/self/oom_score_adj", b"1000"),
    Own "limit.oom.lower" => || oom(c"/proc/self/oom_score_adj", b"-1000"),
    Batch "limit.nice.value" => || Err(no(Saw::Number(20 - ask!(nr::GETPRIORITY, 0, 0)? as i64))),
    Batch "limit.affinity.cpus" => affinity,
];

/// Rows of `table.rs`.
pub const ROWS: &str = r"
limit.oom.score_adj says /proc/self/oom_score_adj
limit.cpu.soft limit 0 0
limit.cpu.hard limit 0 1
limit.fsize.soft limit 1 0
limit.fsize.hard limit 1 1
limit.data.soft limit 2 0
limit.data.hard limit 2 1
limit.stack.soft limit 3 0
limit.stack.hard limit 3 1
limit.core.hard limit 4 1
limit.rss.soft limit 5 0
limit.rss.hard limit 5 1
limit.nproc.soft limit 6 0
limit.nproc.hard limit 6 1
limit.nofile.soft limit 7 0
limit.nofile.hard limit 7 1
limit.memlock.soft limit 8 0
limit.memlock.hard limit 8 1
limit.as.soft limit 9 0
limit.as.hard limit 9 1
limit.locks.soft limit 10 0
limit.locks.hard limit 10 1
limit.sigpending.soft limit 11 0
limit.sigpending.hard limit 11 1
limit.msgqueue.soft limit 12 0
limit.msgqueue.hard limit 12 1
limit.nice.soft limit 13 0
limit.nice.hard limit 13 1
limit.rtprio.soft limit 14 0
limit.rtprio.hard limit 14 1
limit.rttime.soft limit 15 0
limit.rttime.hard limit 15 1
";

#[inline(never)]
fn asked(kind: usize) -> Result<[u64; 2], i32> {
    let mut both = [0u64; 2];
    ask!(nr::PRLIMIT64, 0, kind, 0, &mut both)?;
    Ok(both)
}

/// Numbers are the same on x86-64 and aarch64.
#[inline(never)]
pub fn limit(kind: usize, hard: usize) -> Does {
    Err(match asked(kind)?[hard] {
        u64::MAX => word("unlimited"),
        limit => no(Saw::Number(limit as i64)),
    })
}

/// Of our parent, which is the probe itself.
fn core_soft() -> Does {
    let parent = Words::format(format_args!("/proc/{}/limits", ask!(nr::GETPPID)?));
    let line = field(Path::of(&[parent.bytes()]).c(), b"Max core file size")?;
    Err(answer(fields_of(line.bytes(), 0)))
}

fn fields_of(line: &[u8], at: usize) -> &[u8] {
    line.split(|b| *b == b' ').nth(at).unwrap_or(b"")
}

/// /proc/self/limits and prlimit(2) say the same of open files.
fn shown() -> Does {
    let line = field(c"/proc/self/limits", b"Max open files")?;
    let both = asked(RLIMIT_NOFILE)?;
    for (at, limit) in both.into_iter().enumerate() {
        let text = fields_of(line.bytes(), at);
        let wanted = number(text, 10).unwrap_or(u64::MAX);
        holds("/proc/self/limits says otherwise", wanted == limit)?;
    }
    Ok(())
}

/// 200 descriptors at once.
fn files() -> Does {
    let first = memfd()?;
    let mut last = first.0;
    let mut failed = None;
    for _ in 0..200 {
        match ask!(nr::FCNTL, first.0, 1030, 0) {
            Ok(fd) => last = fd as i32,
            Err(errno) => {
                failed = Some(errno);
                break;
            }
        }
    }
    for fd in first.0 + 1..=last {
        let _ = sys::close(fd);
    }
    failed.map_or(Ok(()), |errno| Err(errno.into()))
}

extern "C" fn wait_until(word: usize) {
    // SAFETY: the maker of the thread passes a word that lives until it is joined.
    let word = unsafe { &*(word as *const core::sync::atomic::AtomicU32) };
    while word.load(core::sync::atomic::Ordering::SeqCst) == 0 {
        let _ = ask!(nr::FUTEX, word, 0, 0, &sys::Timespec::from_ms(20));
    }
}

/// Twenty threads at once, as many as the runtime of a language starts before it does anything.
fn threads() -> Does {
    let go = Map::private(4096)?;
    let mut all = [const { None }; 20];
    for slot in &mut all {
        // Where one cannot be started, that is said and the child ends with all of them.
        *slot = Some(Thread::start(wait_until, go.at as usize)?);
    }
    go.word(0).store(1, core::sync::atomic::Ordering::SeqCst);
    let _ = ask!(nr::FUTEX, go.word(0), 1, i32::MAX);
    for thread in all.into_iter().flatten() {
        thread.join();
    }
    Ok(())
}

/// 64 GiB of addresses without memory, as garbage collectors and sandboxes reserve them.
fn reserve() -> Does {
    // MAP_NORESERVE
    Map::new(64 << 30, PROT_NONE, MAP_PRIVATE | 0x4000)?;
    Ok(())
}

/// 32 KiB that stay in memory, as password stores and GnuPG lock them.
fn lock() -> Does {
    let memory = Map::private(32 << 10)?;
    ask!(nr::MLOCK, memory.at, memory.len)?;
    Ok(())
}

/// A score of our own, in a child that ends with it.
fn oom(path: &core::ffi::CStr, score: &'static [u8]) -> Does {
    let fd = Fd(sys::open(path, O_WRONLY, 0)?);
    sys::write(fd.0, score).at("write")?;
    has(path, "such score", &mut |line| line == score)
}

/// How many processors the cell may use. More than 1,024 are not counted.
fn affinity() -> Does {
    let mut set = [0u64; 16];
    ask!(nr::SCHED_GETAFFINITY, 0, size_of_val(&set), &mut set)?;
    Err(super::said::number(set.iter().map(|word| u64::from(word.count_ones())).sum()))
}

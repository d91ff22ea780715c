//! Checks: what one is, how its answer is recorded, how they are run.
//!
//! Goes in: tables of checks. Comes out: fact and observation lines. Must not know: what any check asks, or whether an
//! answer is good.
//!
//! # How to add a check
//!
//! Write a function and a row, in the file of its group (`kernel/` has `cpu.rs`, `semantics.rs`, `bench.rs`; `surroundings/` the
//! rest); add a row with the same id to the catalogue. That is all: counting, `--only`, children and lines are done here.
//!
//! ```ignore
//! pub static CHECKS: &[Check] = &[
//!     Check { id: "kernel.memfd.seal", how: How::Batch, run: memfd_seal },
//!     Check { id: "kernel.unshare.user", how: How::Own, run: unshare_user },
//! ];
//! fn memfd_seal() -> Asked {
//!     // SAFETY: a C string.
//!     let fd = unsafe { call!(nr::MEMFD_CREATE, sys::path(c"abicus"), 2) }?;            // Err(errno) ends the check: saw errno
//!     unsafe { call!(nr::FCNTL, fd, 1033, 8) }.at("add seals")?;                        // the same, and says at which step
//!     let read = sys::read(fd as i32, &mut room).at("read back")?;
//!     if read != 4 { return wrong(format_args!("read {read} of 4")); }                  // saw value: a wrong result
//!     Ok(Saw::Ok)                                                                       // verified
//! }
//! ```
//!
//! `How::Batch` checks of all files run one after the other in one child; a new child goes on after one that crashed, so a
//! crash costs the check that crashed. They must leave the process as they found it: close what they opened. A check that
//! changes its process (unshare, setuid, prctl, limits, seccomp, closing descriptors it does not know) is `How::Own`, or
//! `How::Within(ms)` where the usual second may not do. One that uses what takes the kernel long to close (a grace period of
//! RCU) is `How::Aside`: as `Own`, but nobody waits for its child once it has ended by `Err(well())`. Each child has handlers for SIGILL, SIGTRAP, SIGBUS, SIGFPE, SIGSEGV and SIGSYS
//! that end it: the signal is the observation. Its soft RLIMIT_CORE is 1, and SIGCHLD is not blocked.
//! `child::run(slot, ms, job)` serves a check that needs a child of its own in turn; `child::slot()` makes the slot.
//!
//! Observations repeat: no pid, time, address, free space or host name in a `Value`. Volatile things are facts:
//! ```ignore
//! pub static FACTS: &[fn(&mut Facts)] = &[|f| { f.number("memory.free_kb", 5); f.text("kernel.release", b"6.1"); }];
//! ```
//! Each such function runs in a batch child too and may write as many facts as it likes.

use core::sync::atomic::{AtomicPtr, Ordering::Relaxed, Ordering::SeqCst};

use crate::rt::child::{self, End, Slot};
use crate::rt::line::Line;
use crate::rt::out;
use crate::rt::sys::{self, Answer};
use crate::rt::text::Text;

/// A text to be compared or judged.
pub type Value = Text<512>;

/// What a check saw.
pub enum Saw {
    /// What it asks for works, and the result was verified.
    Ok,
    Errno(i32),
    /// As `Errno`, and which of several steps it was.
    At(&'static str, i32),
    /// Something the check started was killed by this signal.
    Signal(i32),
    Value(Value),
    Number(i64),
    Samples(Samples),
    /// The question makes no sense here, and why.
    NotAsked(&'static str),
}

/// Raw measurements, in tenths of the unit.
pub struct Samples {
    pub unit: &'static str,
    pub count: usize,
    pub tenths: [u32; 64],
}

/// Ok or Err, it is what was seen; Err so that `?` can end a check.
pub type Asked = Result<Saw, Saw>;

impl From<i32> for Saw {
    fn from(errno: i32) -> Saw {
        Saw::Errno(errno)
    }
}

/// Names the step whose errno ends a check.
pub trait At<T> {
    fn at(self, step: &'static str) -> Result<T, Saw>;
}

impl<T> At<T> for Answer<T> {
    fn at(self, step: &'static str) -> Result<T, Saw> {
        self.map_err(|errno| Saw::At(step, errno))
    }
}

/// An answer in words, good or bad.
pub fn value(what: core::fmt::Arguments) -> Asked {
    Ok(Saw::Value(Value::format(what)))
}

/// The same, to end a check early: `return wrong(format_args!("copied {n} of 4096"))`.
pub fn wrong(what: core::fmt::Arguments) -> Asked {
    Err(Saw::Value(Value::format(what)))
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum How {
    Batch,
    Own,
    Within(u32),
    Aside,
}

pub struct Check {
    pub id: &'static str,
    pub how: How,
    pub run: fn() -> Asked,
}

/// What a file offers.
pub struct Group {
    pub facts: &'static [fn(&mut Facts)],
    pub checks: &'static [Check],
    /// Only asked with `--bench`.
    pub bench: bool,
}

/// Writes facts, a line each.
pub struct Facts(());

impl Facts {
    pub fn text(&mut self, name: &str, value: &[u8]) {
        out::send(Line::new().text("fact", name.as_bytes()).text("value", value));
    }
    pub fn number(&mut self, name: &str, value: i64) {
        out::send(Line::new().text("fact", name.as_bytes()).number("value", value));
    }
}

static ASKED: AtomicPtr<Check> = AtomicPtr::new(core::ptr::null_mut());

/// The id of the check that is being asked, for a function that serves several.
pub fn asked() -> &'static str {
    // SAFETY: null, or a check of a table; tables live as long as the process.
    unsafe { ASKED.load(Relaxed).as_ref() }.map_or("", |check| check.id)
}

/// How long a check may take that does not say otherwise, ms. Natively the slowest takes 30; an emulated processor on a busy
/// machine is twenty times as slow.
const DEADLINE: u32 = 1000;

/// More than all files together will ever hold.
const MOST: usize = 1024;

/// Written by the child in shared memory, read by the parent. References to text are good in both: a child by fork has
/// the same statics at the same place.
struct Record {
    reported: bool,
    saw: Saw,
}

/// The first line of a probe. False when it could not be written.
pub fn begin(probe: &str, planned: usize) -> bool {
    const VERSION: &str = match option_env!("ABICUS_VERSION") {
        Some(version) => version,
        None => "0.0.0",
    };
    let mut header = Line::new();
    header.number("abicus", 1).text("probe", probe.as_bytes()).text("version", VERSION.as_bytes());
    header.text("arch", if cfg!(target_arch = "x86_64") { b"x86_64" } else { b"aarch64" });
    out::send(header.number("planned", planned as i64))
}

/// The last line of a probe, and its exit status.
pub fn end(probe: &str, reported: usize) -> i32 {
    let mut line = Line::new();
    if out::send(line.text("end", probe.as_bytes()).number("reported", reported as i64)) { 0 } else { 1 }
}

/// Runs all facts of the groups; they write their lines themselves.
pub fn tell_facts(slot: &Slot, groups: &[Group], bench: bool) {
    for group in groups.iter().filter(|group| bench || !group.bench) {
        let facts = group.facts;
        child::batch(slot, facts.len(), DEADLINE, &mut |i| facts[i](&mut Facts(())), &mut |_, _| {});
    }
}

/// The checks to ask, in the order of the tables.
fn selected<'a>(
    groups: &'a [Group],
    bench: bool,
    wanted: &'a dyn Fn(&[u8]) -> bool,
) -> impl Iterator<Item = &'a Check> {
    let groups = groups.iter().filter(move |group| bench || !group.bench);
    groups.flat_map(|group| group.checks).filter(move |check| wanted(check.id.as_bytes())).take(MOST)
}

pub fn count(groups: &[Group], bench: bool, wanted: &dyn Fn(&[u8]) -> bool) -> usize {
    selected(groups, bench, wanted).count()
}

/// Asks all wanted checks and writes an observation for each. Returns how many were written.
pub fn ask(slot: &Slot, groups: &[Group], bench: bool, wanted: &dyn Fn(&[u8]) -> bool) -> usize {
    // SAFETY: zeroes are such records: `reported` is false, and `saw` is only read when it is true.
    let records = match unsafe { child::shared::<[Record; MOST]>() } {
        Ok(records) => records,
        Err(_) => return 0,
    };
    let mut batch: [Option<&Check>; MOST] = [None; MOST];
    let mut batched = 0;
    for check in selected(groups, bench, wanted).filter(|check| check.how == How::Batch) {
        batch[batched] = Some(check);
        batched += 1;
    }
    let shared = records.as_mut_ptr();
    let mut left = 0;
    for check in selected(groups, bench, wanted).filter(|check| check.how == How::Aside) {
        // SAFETY: within the array, where the batch writes later; the child reads nothing there once it has reported.
        let record = unsafe { &mut *shared.add(MOST - 1) };
        record.reported = false;
        let said = &raw const record.reported;
        let end = child::aside(slot, DEADLINE, &mut || record.set(check), &|| {
            // SAFETY: shared memory that is never unmapped.
            unsafe { said.read_volatile() }
        });
        // SAFETY: shared memory, and the child that wrote it has said all it will.
        tell(Some(check), unsafe { &*shared.add(MOST - 1) }, Some(end));
        left += 1;
    }
    let mut told = 0;
    let mut tell_until = |to: usize, end: Option<End>| {
        while told < to {
            // SAFETY: within the array; the child that wrote it is gone.
            tell(batch[told], unsafe { &*shared.add(told) }, end);
            told += 1;
        }
    };
    child::batch(
        slot,
        batched,
        DEADLINE,
        &mut |i| {
            if let Some(check) = batch[i] {
                // SAFETY: within the array; only this child writes now.
                unsafe { &mut *shared.add(i) }.set(check);
            }
        },
        &mut |i, end| tell_until(i + 1, Some(end)),
    );
    tell_until(batched, None);
    let mut written = batched + left;
    for check in selected(groups, bench, wanted).filter(|check| matches!(check.how, How::Own | How::Within(_))) {
        let deadline = if let How::Within(ms) = check.how { ms } else { DEADLINE };
        // SAFETY: the first one is free again, its line is written.
        let record = unsafe { &mut *shared };
        record.reported = false;
        let end = child::run(slot, deadline, &mut || {
            record.set(check);
            0
        });
        // SAFETY: shared memory, and the child that wrote it is gone.
        tell(Some(check), unsafe { &*shared }, Some(end));
        written += 1;
    }
    child::reap(DEADLINE);
    written
}

/// The record of the check that runs.
static CURRENT: AtomicPtr<Record> = AtomicPtr::new(core::ptr::null_mut());

/// Says what the running check saw and ends its child: a new one goes on with the next check. For whoever has nothing to
/// tidy up that does not end with the process.
pub fn finish(saw: Saw) -> ! {
    // SAFETY: null, or shared memory that is never unmapped and that only this child writes now.
    if let Some(record) = unsafe { CURRENT.load(Relaxed).as_mut() } {
        record.report(saw);
    }
    sys::exit(0)
}

impl Record {
    fn set(&mut self, check: &Check) {
        CURRENT.store(self, Relaxed);
        ASKED.store(core::ptr::from_ref(check).cast_mut(), Relaxed);
        let saw = match (check.run)() {
            Ok(saw) | Err(saw) => saw,
        };
        self.report(saw);
    }
    fn report(&mut self, saw: Saw) {
        // SAFETY: what was there before is not a valid `Saw` and must not be dropped.
        unsafe { core::ptr::write(&mut self.saw, saw) };
        core::sync::atomic::fence(SeqCst);
        // SAFETY: a place in shared memory, which the parent may be waiting for.
        unsafe { (&raw mut self.reported).write_volatile(true) };
        child::progress();
    }
}

/// One observation: what the check said, else how its child ended.
fn tell(check: Option<&Check>, record: &Record, end: Option<End>) {
    let Some(check) = check else { return };
    let mut line = Line::new();
    line.text("check", check.id.as_bytes());
    if record.reported {
        saw(&mut line, &record.saw);
    } else {
        ended(&mut line, end.unwrap_or(End::Exit(0)));
    }
    out::send(&mut line);
}

fn saw(line: &mut Line, saw: &Saw) {
    match saw {
        Saw::Ok => line.text("saw", b"ok"),
        Saw::Errno(errno) => line.text("saw", b"errno").number("errno", i64::from(*errno)),
        Saw::At(step, errno) => {
            line.text("saw", b"errno").number("errno", i64::from(*errno)).text("step", step.as_bytes())
        }
        Saw::Signal(signal) => line.text("saw", b"signal").number("signal", i64::from(*signal)),
        Saw::Value(text) => line.text("saw", b"value").text("value", text.bytes()),
        Saw::Number(number) => line.text("saw", b"value").number("value", *number),
        Saw::Samples(s) => {
            let tenths = &s.tenths[..s.count.min(s.tenths.len())];
            line.text("saw", b"samples").text("unit", s.unit.as_bytes()).tenths("samples", tenths)
        }
        Saw::NotAsked(why) => line.text("saw", b"not-asked").text("why", why.as_bytes()),
    };
}

/// How a child ended that did not say what it saw.
pub fn ended(line: &mut Line, end: End) {
    match end {
        End::Signal { signal, .. } => line.text("saw", b"signal").number("signal", i64::from(signal)),
        End::Timeout(ms) => line.text("saw", b"timeout").number("ms", i64::from(ms)),
        End::NoChild(errno) => line.text("saw", b"errno").number("errno", i64::from(errno)).text("step", b"clone"),
        End::Exit(status) => {
            let text = Value::format(format_args!("exited with status {status} without an answer"));
            line.text("saw", b"value").text("value", text.bytes())
        }
    };
}

//! Clocks and timers.
//!
//! Goes in: nothing. Comes out: answers. Must not know: which answers are good. No clock is set. The vDSO and the 64-bit
//! time of 32-bit programs are asked in `entries.rs`.

use crate::asking::*;
use crate::rt::consts::*;
use crate::rt::nr;
use crate::rt::sys::{self, Timespec};

checks![
    Batch "kernel.clock.realtime" => realtime,
    Batch "kernel.clock.monotonic" => || advances(1),
    Batch "kernel.clock.process" => || advances(2),
    Batch "kernel.clock.coarse" => || reads(6),
    Batch "kernel.clock.boottime" => || reads(7),
    Batch "kernel.clock.tai" => || reads(11),
    Batch "kernel.clock.resolution" => resolution,
    Batch "kernel.clock.sleep_until" => sleep_until,
    Batch "kernel.clock.adjustment" => adjustment,
    Batch "kernel.timer.signal" => timer_signal,
    Batch "kernel.timer.interval" => timer_interval,
];

fn read(clock: usize) -> Result<u64, i32> {
    let mut now = Timespec::default();
    ask!(nr::CLOCK_GETTIME, clock, &mut now)?;
    Ok(now.sec as u64 * 1_000_000_000 + now.nsec as u64)
}

/// Later than the year 2020, and gettimeofday(2) agrees within ten seconds.
fn realtime() -> Does {
    let (now, mut other) = (read(0)? / 1_000_000_000, [0u64; 2]);
    holds("before 2020", now > 1_577_836_800)?;
    must!("gettimeofday"; nr::GETTIMEOFDAY, &mut other, 0);
    holds("gettimeofday says something else", now.abs_diff(other[0]) < 10)
}

/// Never backwards, and after some work later than before.
fn advances(clock: usize) -> Does {
    let first = read(clock)?;
    let mut last = first;
    for _ in 0..100_000 {
        let now = read(clock)?;
        holds("went backwards", now >= last)?;
        last = now;
        if now > first {
            return Ok(());
        }
    }
    Err(word("stands still"))
}

fn reads(clock: usize) -> Does {
    holds("zero", read(clock)? > 0)
}

/// 1 ns where there are high resolution timers.
fn resolution() -> Does {
    let mut step = Timespec::default();
    must!(nr::CLOCK_GETRES, CLOCK_MONOTONIC, &mut step);
    Err(number(step.nsec as u64))
}

/// clock_nanosleep(2) with TIMER_ABSTIME.
fn sleep_until() -> Does {
    let then = read(1).at("clock_gettime")? + 1_000_000;
    let until = Timespec { sec: (then / 1_000_000_000) as i64, nsec: (then % 1_000_000_000) as i64 };
    must!(nr::CLOCK_NANOSLEEP, CLOCK_MONOTONIC, 1, &until, 0);
    holds("woke too early", read(1).at("clock_gettime")? >= then)
}

/// adjtimex(2) that only reads: modes 0.
fn adjustment() -> Does {
    let state = [0u64; 26];
    let answer = must!(nr::ADJTIMEX, &state);
    holds("no such state of the clock", answer <= 5)
}

/// timer_create(2) with a signal and a value.
fn timer_signal() -> Does {
    let set = sys::bit(SIGUSR1);
    let before = sys::set_mask(set);
    let asked = || {
        // struct sigevent: value, signal, SIGEV_SIGNAL
        let (mut event, mut timer) = ([0u32; 16], 0i32);
        (event[0], event[2]) = (42, SIGUSR1 as u32);
        must!(nr::TIMER_CREATE, CLOCK_MONOTONIC, &event, &mut timer);
        let times = [Timespec::default(), Timespec { sec: 0, nsec: 100_000 }];
        must!("timer_settime"; nr::TIMER_SETTIME, timer, 0, &times, 0);
        let mut info = [0i32; 32];
        let taken = ask!(nr::RT_SIGTIMEDWAIT, &set, &mut info, &Timespec::from_ms(200), 8);
        must!("timer_delete"; nr::TIMER_DELETE, timer);
        same("signal", taken.at("rt_sigtimedwait")?, SIGUSR1 as usize)?;
        same("value", info[6] as usize, 42)
    };
    let done = asked();
    sys::set_mask(before);
    done
}

/// setitimer(2), twice.
fn timer_interval() -> Does {
    let set = sys::bit(SIGALRM);
    let before = sys::set_mask(set);
    let started = ask!(nr::SETITIMER, 0, &[0usize, 500, 0, 500], 0);
    let mut taken = Ok(0);
    for _ in 0..2 {
        taken = taken.and_then(|_| ask!(nr::RT_SIGTIMEDWAIT, &set, 0, &Timespec::from_ms(100), 8));
    }
    let _ = ask!(nr::SETITIMER, 0, &[0usize; 4], 0);
    let _ = ask!(nr::RT_SIGTIMEDWAIT, &set, 0, &Timespec::default(), 8);
    sys::set_mask(before);
    started?;
    same("signal", taken.at("rt_sigtimedwait")?, SIGALRM as usize)
}

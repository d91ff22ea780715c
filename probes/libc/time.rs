//! Clocks, calendars, time zones; what the system says of itself.
//!
//! Goes in: the libc's functions and the image's zone files. Comes out: whether dates are right, beyond 2038 too.

use core::ffi::{CStr, c_char, c_int};

use crate::api::{IfAddrs, Tm};
use crate::cell::{Cell, fact_number};
use crate::rt::consts::*;
use crate::rt::sys;
use crate::saw::{Saw, Seen, expect};
use crate::thread::any;
use crate::{Check, not_asked, value};

pub const CHECKS: &[Check] = &[
    Check::new("libc.time.clock", clock),
    Check::new("libc.time.sleep", sleep),
    Check::new("libc.time.mktime", mktime),
    Check::new("libc.time.year-2038", year_2038),
    Check::new("libc.time.format", format),
    Check::new("libc.time.zone.rule", zone_rule),
    Check::new("libc.time.zone.file", zone_file),
    Check::new("libc.time.zone.local", zone_local),
    Check::new("libc.system.cpus", cpus),
    Check::new("libc.system.page-size", page_size),
    Check::new("libc.system.memory", memory),
    Check::new("libc.system.open-max", open_max),
    Check::new("libc.system.uname", uname),
    Check::new("libc.system.auxv", auxv),
    Check::new("libc.system.path", path),
    Check::new("libc.system.getcpu", getcpu),
    Check::new("libc.system.loadavg", loadavg),
    Check::new("libc.net.interfaces", interfaces),
    Check::new("libc.net.loopback-index", loopback_index),
    Check::new("libc.net.socketpair", socketpair),
];

/// Seconds of 2026-07-01 12:00 UTC and of 2040-01-01 00:00 UTC.
const SUMMER_2026: i64 = 1_782_907_200;
const NEW_YEAR_2040: i64 = 2_208_988_800;

fn clock(cell: &Cell, _: usize) -> Seen {
    let (mut real, mut first, mut second) = ([0; 2], [0; 2], [0; 2]);
    // SAFETY: room for each time.
    unsafe {
        cell.check(cell.clock_gettime(0, &mut real), "clock_gettime CLOCK_REALTIME")?;
        cell.check(cell.clock_gettime(1, &mut first), "clock_gettime CLOCK_MONOTONIC")?;
        cell.check(cell.clock_gettime(1, &mut second), "clock_gettime CLOCK_MONOTONIC")?;
    }
    expect(second >= first, b"the monotonic clock went back")?;
    // 2024: no certificate is valid before, and no package archive of today.
    expect(real[0] > 1_704_067_200, b"the clock is years behind")?;
    Ok(Saw::Ok)
}

fn sleep(cell: &Cell, _: usize) -> Seen {
    // SAFETY: a time, no rest wanted.
    let result = unsafe { cell.clock_nanosleep(1, 0, &[0, 1_000_000], core::ptr::null_mut()) };
    crate::api::zero(result, "clock_nanosleep")?;
    Ok(Saw::Ok)
}

fn zone(cell: &Cell, name: &CStr) -> Result<(), Saw> {
    // SAFETY: constant texts.
    unsafe {
        cell.check(cell.setenv(c"TZ".as_ptr(), name.as_ptr(), 1), "setenv")?;
        cell.tzset();
    }
    Ok(())
}

fn local(cell: &Cell, time: i64) -> Result<Tm, Saw> {
    let mut parts = Tm::default();
    // SAFETY: room for the parts.
    unsafe { cell.some(cell.localtime_r(&time, &mut parts), "localtime_r")? };
    Ok(parts)
}

fn mktime(cell: &Cell, _: usize) -> Seen {
    zone(cell, c"UTC0")?;
    let mut parts = Tm { year: 126, mon: 6, mday: 1, hour: 12, ..Tm::default() };
    // SAFETY: parts of a date.
    let time = unsafe { cell.mktime(&mut parts) };
    if time == SUMMER_2026 { Ok(Saw::Ok) } else { Err(value!("{time}")) }
}

fn year_2038(cell: &Cell, _: usize) -> Seen {
    let mut parts = Tm::default();
    // SAFETY: room for the parts.
    let back = unsafe {
        cell.some(cell.gmtime_r(&NEW_YEAR_2040, &mut parts), "gmtime_r")?;
        cell.timegm(&mut parts)
    };
    let right = (parts.year, parts.mon, parts.mday, parts.hour) == (140, 0, 1, 0) && back == NEW_YEAR_2040;
    if right { Ok(Saw::Ok) } else { Err(value!("year {} and back to {back}", 1900 + i64::from(parts.year))) }
}

fn format(cell: &Cell, _: usize) -> Seen {
    let (mut parts, mut read) = (Tm::default(), Tm::default());
    let mut room = [0 as c_char; 64];
    // SAFETY: room for the parts and for a short text.
    unsafe {
        cell.some(cell.gmtime_r(&SUMMER_2026, &mut parts), "gmtime_r")?;
        let pattern = c"%Y-%m-%d %H:%M:%S".as_ptr();
        cell.strftime(room.as_mut_ptr(), room.len(), pattern, &parts);
        let text = CStr::from_ptr(room.as_ptr());
        if text != c"2026-07-01 12:00:00" {
            return Err(Saw::value(text.to_bytes()));
        }
        expect(!cell.strptime(room.as_ptr(), pattern, &mut read).is_null(), b"does not read its own text")?;
    }
    expect((read.year, read.mon, read.mday, read.hour) == (126, 6, 1, 12), b"reads another date")?;
    Ok(Saw::Ok)
}

/// A zone that stands in TZ itself needs no file. In summer it is two hours ahead, in 2040 too.
fn zone_rule(cell: &Cell, _: usize) -> Seen {
    zone(cell, c"CET-1CEST,M3.5.0,M10.5.0/3")?;
    expect_berlin(cell)
}

fn expect_berlin(cell: &Cell) -> Seen {
    let (summer, winter) = (local(cell, SUMMER_2026)?, local(cell, NEW_YEAR_2040)?);
    match (summer.hour, summer.isdst, winter.hour, winter.isdst) {
        (14, 1, 1, 0) => Ok(Saw::Ok),
        (summer, _, winter, _) => Err(value!("summer at {summer}, winter at {winter}")),
    }
}

fn zone_file(cell: &Cell, _: usize) -> Seen {
    match sys::open(c"/usr/share/zoneinfo/Europe/Berlin", O_PATH, 0) {
        Ok(fd) => {
            let _ = sys::close(fd);
        }
        Err(ENOENT) => return Err(not_asked!("no zone files in the image")),
        Err(errno) => return Err(Saw::Errno(errno, "open /usr/share/zoneinfo")),
    }
    zone(cell, c"Europe/Berlin")?;
    expect_berlin(cell)
}

/// How far local time is from UTC, in seconds.
fn zone_local(cell: &Cell, _: usize) -> Seen {
    // SAFETY: takes nothing.
    unsafe { cell.tzset() };
    Ok(Saw::Number(local(cell, SUMMER_2026)?.offset))
}

fn positive(cell: &Cell, name: c_int, step: &'static str) -> Result<i64, Saw> {
    // SAFETY: takes no address.
    let number = unsafe { cell.sysconf(name) };
    if number > 0 { Ok(number) } else { Err(value!("{step} is {number}")) }
}

/// How many CPUs programs believe they have, against how many they may run on.
fn cpus(cell: &Cell, _: usize) -> Seen {
    let mut set = [0u64; 128];
    let online = positive(cell, 84, "the number of CPUs online")?;
    let configured = positive(cell, 83, "the number of CPUs configured")?;
    // SAFETY: room for 8,192 CPUs.
    unsafe { cell.check(cell.sched_getaffinity(0, 1024, any(&mut set)), "sched_getaffinity")? };
    let allowed: u32 = set.iter().map(|word| word.count_ones()).sum();
    fact_number("libc.system.cpus.online", online);
    fact_number("libc.system.cpus.configured", configured);
    fact_number("libc.system.cpus.allowed", i64::from(allowed));
    expect(online <= configured, b"more CPUs online than configured")?;
    Ok(Saw::Ok)
}

fn page_size(cell: &Cell, _: usize) -> Seen {
    Ok(Saw::Number(positive(cell, 30, "the page size")?))
}

fn memory(cell: &Cell, _: usize) -> Seen {
    let (all, free) = (positive(cell, 85, "the number of pages")?, positive(cell, 86, "the number of free pages")?);
    fact_number("libc.system.pages", all);
    expect(free <= all, b"more pages free than there are")?;
    Ok(Saw::Ok)
}

/// The limit of open files as programs ask for it; those that close all of them one by one suffer where it is huge.
fn open_max(cell: &Cell, _: usize) -> Seen {
    Ok(Saw::Number(positive(cell, 4, "the limit of open files")?))
}

fn uname(cell: &Cell, _: usize) -> Seen {
    let mut names = [0u8; 6 * 65];
    // SAFETY: room for a struct utsname.
    unsafe { cell.check(cell.uname(any(&mut names)), "uname")? };
    let machine = names[260..325].split(|byte| *byte == 0).next().unwrap_or(b"");
    if names.starts_with(b"Linux\0") && machine == b"x86_64" { Ok(Saw::Ok) } else { Err(Saw::value(machine)) }
}

fn auxv(cell: &Cell, _: usize) -> Seen {
    // SAFETY: takes a number.
    let page = unsafe { cell.getauxval(AT_PAGESZ) };
    expect(page == 4096, b"another page size")?;
    Ok(Saw::Ok)
}

fn path(cell: &Cell, _: usize) -> Seen {
    let mut room = [0 as c_char; 256];
    // SAFETY: room for the text.
    let size = unsafe { cell.confstr(0, room.as_mut_ptr(), room.len()) };
    expect(size > 1 && size <= room.len(), b"no default path")?;
    // SAFETY: terminated, because it fitted.
    Ok(Saw::value(unsafe { CStr::from_ptr(room.as_ptr()) }.to_bytes()))
}

fn getcpu(cell: &Cell, _: usize) -> Seen {
    // SAFETY: takes nothing.
    let cpu = unsafe { cell.check(cell.sched_getcpu(), "sched_getcpu")? };
    expect(cpu >= 0, b"a negative number")?;
    Ok(Saw::Ok)
}

fn loadavg(cell: &Cell, _: usize) -> Seen {
    let mut loads = [-1.0; 3];
    // SAFETY: room for three numbers.
    let count = unsafe { cell.getloadavg(loads.as_mut_ptr(), 3) };
    expect(count == 3 && loads.iter().all(|load| *load >= 0.0), b"no load average")?;
    Ok(Saw::Ok)
}

fn interfaces(cell: &Cell, _: usize) -> Seen {
    let mut list = core::ptr::null_mut();
    let mut loopback = false;
    // SAFETY: the list is walked before it is freed; names are terminated.
    unsafe {
        cell.check(cell.getifaddrs(&mut list), "getifaddrs")?;
        let mut entry: *const IfAddrs = list;
        while !entry.is_null() {
            loopback |= CStr::from_ptr((*entry).name) == c"lo";
            entry = (*entry).next;
        }
        cell.freeifaddrs(list);
    }
    expect(loopback, b"no interface lo")?;
    Ok(Saw::Ok)
}

fn loopback_index(cell: &Cell, _: usize) -> Seen {
    // SAFETY: a constant text.
    let index = unsafe { cell.if_nametoindex(c"lo".as_ptr()) };
    if index == 0 { Err(cell.failed("if_nametoindex")) } else { Ok(Saw::Ok) }
}

fn socketpair(cell: &Cell, _: usize) -> Seen {
    let mut ends = [-1; 2];
    // SAFETY: room for two descriptors.
    unsafe { cell.check(cell.socketpair(1, 1, 0, &mut ends), "socketpair")? };
    let mut room = [0; 8];
    let passed = sys::write(ends[0], b"abicus") == Ok(6) && sys::read(ends[1], &mut room) == Ok(6);
    expect(passed && &room[..6] == b"abicus", b"another text came through")?;
    Ok(Saw::Ok)
}

//! What the agent says of itself and its host before it is asked.
//!
//! Goes in: the agent's directory. Comes out: `MAGIC` and a `HELLO` frame.

use core::ffi::CStr;

use super::frame::{MAGIC, VERSION, kind};
use super::wire::Output;
use crate::rt::nr;
use crate::rt::process;
use crate::rt::sys::call;
use crate::rt::text::Text;
use crate::tell;

pub fn say(output: &mut Output, dir: &CStr) {
    const AT_PAGESZ: usize = 6;
    // struct utsname: six texts of 65 bytes.
    let mut names = [[0u8; 65]; 6];
    // SAFETY: room for a struct utsname.
    let _ = unsafe { call!(nr::UNAME, &mut names) };
    // SAFETY: take no address.
    let ids = unsafe { [call!(nr::GETEUID), call!(nr::GETEGID)] }.map(|id| id.unwrap_or(0) as i64);
    let mut text = Text::<4000>::new();
    text.add(&VERSION.to_le_bytes());
    let mut line = |key: &str, value: &[u8]| {
        text.add(key.as_bytes()).add(b" ").add(value).add(b"\n");
    };
    for (key, name) in [("release", &names[2]), ("version", &names[3]), ("machine", &names[4])] {
        line(key, CStr::from_bytes_until_nul(name).unwrap_or(c"").to_bytes());
    }
    line("dir", dir.to_bytes());
    for (key, number) in
        [("page", process::aux(AT_PAGESZ).unwrap_or(4096) as i64), ("cpus", cpus()), ("uid", ids[0]), ("gid", ids[1])]
    {
        line(key, crate::rt::text::decimal(number, &mut [0; 20]));
    }
    tell::bytes(output.fd, &MAGIC);
    output.say(0, kind::HELLO, text.bytes());
}

/// How many this process may run on.
fn cpus() -> i64 {
    let mut set = [0u64; 128];
    // SAFETY: the buffer is `set`.
    let _ = unsafe { call!(nr::SCHED_GETAFFINITY, 0, size_of_val(&set), &mut set) };
    set.iter().map(|word| i64::from(word.count_ones())).sum::<i64>().max(1)
}

//! Functions that separate one libc from another: which of them this one offers.
//!
//! Goes in: a table of names. Comes out: `present` or `absent`. Must not know: what they do. Programs built on a newer
//! libc, or on the other one, fail to start where one is absent.

use core::ffi::CStr;

use crate::Check;
use crate::cell::Cell;
use crate::saw::{Saw, Seen};

const NAMES: &[(&str, &CStr)] = &[
    ("libc.symbol.__libc_single_threaded", c"__libc_single_threaded"),
    ("libc.symbol.__isoc23_strtol", c"__isoc23_strtol"),
    ("libc.symbol.__memcpy_chk", c"__memcpy_chk"),
    ("libc.symbol.__register_atfork", c"__register_atfork"),
    ("libc.symbol.__res_init", c"__res_init"),
    ("libc.symbol._dl_find_object", c"_dl_find_object"),
    ("libc.symbol.arc4random", c"arc4random"),
    ("libc.symbol.backtrace", c"backtrace"),
    ("libc.symbol.close_range", c"close_range"),
    ("libc.symbol.closefrom", c"closefrom"),
    ("libc.symbol.copy_file_range", c"copy_file_range"),
    ("libc.symbol.dlmopen", c"dlmopen"),
    ("libc.symbol.epoll_pwait2", c"epoll_pwait2"),
    ("libc.symbol.error", c"error"),
    ("libc.symbol.fts_open", c"fts_open"),
    ("libc.symbol.getentropy", c"getentropy"),
    ("libc.symbol.getrandom", c"getrandom"),
    ("libc.symbol.gettid", c"gettid"),
    ("libc.symbol.mallinfo2", c"mallinfo2"),
    ("libc.symbol.malloc_trim", c"malloc_trim"),
    ("libc.symbol.memfd_create", c"memfd_create"),
    ("libc.symbol.open64", c"open64"),
    ("libc.symbol.pidfd_open", c"pidfd_open"),
    ("libc.symbol.pidfd_spawn", c"pidfd_spawn"),
    ("libc.symbol.posix_spawn_file_actions_addclosefrom_np", c"posix_spawn_file_actions_addclosefrom_np"),
    ("libc.symbol.pthread_cond_clockwait", c"pthread_cond_clockwait"),
    ("libc.symbol.qsort_r", c"qsort_r"),
    ("libc.symbol.reallocarray", c"reallocarray"),
    ("libc.symbol.renameat2", c"renameat2"),
    ("libc.symbol.statx", c"statx"),
    ("libc.symbol.strlcpy", c"strlcpy"),
    ("libc.symbol.strverscmp", c"strverscmp"),
];

pub const CHECKS: &[Check] = &{
    let mut checks = [Check::new("", ask); NAMES.len()];
    let mut at = 0;
    while at < NAMES.len() {
        checks[at] = Check { argument: at, ..Check::new(NAMES[at].0, ask) };
        at += 1;
    }
    checks
};

fn ask(cell: &Cell, at: usize) -> Seen {
    Ok(Saw::Value(if cell.objects.find(NAMES[at].1).is_some() { b"present" } else { b"absent" }))
}

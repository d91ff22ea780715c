//! Security modules, seccomp and mitigations, as the cell sees them.
//!
//! Goes in: nothing. Comes out: answers. Must not know: which answers are good.

use super::look::*;
use super::said::*;
use crate::asking::ask;
use crate::check::{Saw, Value};
use crate::rt::consts::*;
use crate::rt::nr;

asked![
    Batch "lsm.active" => active,
    Batch "lsm.label" => label,
    Batch "lsm.seccomp.mode" => seccomp_mode,
];

/// Rows of `table.rs`.
pub const ROWS: &str = r"
lsm.apparmor says /sys/module/apparmor/parameters/enabled
lsm.selinux says /sys/fs/selinux/enforce
lsm.lockdown says /sys/kernel/security/lockdown
lsm.seccomp.filters status Seccomp_filters:
lsm.mitigation.store_bypass status Speculation_Store_Bypass:
lsm.mitigation.indirect_branch status SpeculationIndirectBranch:
lsm.thp_enabled status THP_enabled:
";

/// LSM_ID_* of linux/lsm.h, from 100.
const MODULES: [&str; 14] = [
    "capability",
    "selinux",
    "smack",
    "tomoyo",
    "apparmor",
    "yama",
    "loadpin",
    "safesetid",
    "lockdown",
    "bpf",
    "landlock",
    "ima",
    "evm",
    "ipe",
];

/// By lsm_list_modules(2), which needs no file system; else by securityfs.
fn active() -> Does {
    let (mut ids, mut size) = ([0u64; 32], [256u32]);
    match ask!(nr::LSM_LIST_MODULES, &mut ids, &mut size, 0) {
        Ok(count) => {
            let mut text = Value::new();
            for id in &ids[..count.min(ids.len())] {
                let name = MODULES.get(id.wrapping_sub(100) as usize).copied().unwrap_or("another");
                text.add(if text.is_empty() { b"" } else { b"," }).add(name.as_bytes());
            }
            Err(no(Saw::Value(text)))
        }
        Err(ENOSYS | EPERM) => content(c"/sys/kernel/security/lsm"),
        Err(errno) => Err(errno.into()),
    }
}

/// Without what differs from cell to cell: the categories of SELinux.
fn label() -> Does {
    let mut room = [0; 256];
    let text = tidy(crate::rt::sys::read_file(c"/proc/self/attr/current", &mut room)?);
    let end = text.bytes().iter().enumerate().filter(|(_, b)| **b == b':').nth(3).map_or(text.bytes().len(), |at| at.0);
    Err(answer(&text.bytes()[..end]))
}

/// prctl(2) is killed by strict mode, which nothing here could run in; 2 is a filter.
fn seccomp_mode() -> Does {
    Err(no(Saw::Number(ask!(nr::PRCTL, PR_GET_SECCOMP, 0, 0, 0, 0)? as i64)))
}

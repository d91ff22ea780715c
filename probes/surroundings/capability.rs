//! Capabilities: the five sets, and each one that may be effective.
//!
//! Goes in: nothing. Comes out: answers. Must not know: which answers are good.

use super::look::*;
use super::said::*;
use crate::asking::{ask, capable};
use crate::check::Saw;
use crate::rt::consts::*;
use crate::rt::nr;
use crate::rt::text::number;

asked![
    Batch "cap.set.permitted" => || set(1),
    Batch "cap.set.effective" => || set(0),
    Batch "cap.set.inheritable" => || set(2),
    Batch "cap.set.bounding" => || listed(|n| ask!(nr::PRCTL, PR_CAPBSET_READ, n, 0, 0, 0)),
    Batch "cap.set.ambient" => || listed(|n| ask!(nr::PRCTL, PR_CAP_AMBIENT, 1, n, 0, 0)),
    Batch "cap.set.agrees" => agrees,
    Batch "cap.securebits" => || Err(no(Saw::Number(ask!(nr::PRCTL, PR_GET_SECUREBITS, 0, 0, 0, 0)? as i64))),
    Batch "cap.no_new_privs" => || Err(no(Saw::Number(ask!(nr::PRCTL, PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0)? as i64))),
    Batch "cap.user" => || Err(no(Saw::Number(ask!(nr::GETEUID)? as i64))),
    Batch "cap.group" => || Err(no(Saw::Number(ask!(nr::GETEGID)? as i64))),
];

/// Rows of `table.rs`, by number, capabilities(7).
pub const ROWS: &str = r"
cap.chown cap 0
cap.dac_override cap 1
cap.dac_read_search cap 2
cap.fowner cap 3
cap.fsetid cap 4
cap.kill cap 5
cap.setgid cap 6
cap.setuid cap 7
cap.setpcap cap 8
cap.linux_immutable cap 9
cap.net_bind_service cap 10
cap.net_broadcast cap 11
cap.net_admin cap 12
cap.net_raw cap 13
cap.ipc_lock cap 14
cap.ipc_owner cap 15
cap.sys_module cap 16
cap.sys_rawio cap 17
cap.sys_chroot cap 18
cap.sys_ptrace cap 19
cap.sys_pacct cap 20
cap.sys_admin cap 21
cap.sys_boot cap 22
cap.sys_nice cap 23
cap.sys_resource cap 24
cap.sys_time cap 25
cap.sys_tty_config cap 26
cap.mknod cap 27
cap.lease cap 28
cap.audit_write cap 29
cap.audit_control cap 30
cap.setfcap cap 31
cap.mac_override cap 32
cap.mac_admin cap 33
cap.syslog cap 34
cap.wake_alarm cap 35
cap.block_suspend cap 36
cap.audit_read cap 37
cap.perfmon cap 38
cap.bpf cap 39
cap.checkpoint_restore cap 40
";

const PR_CAPBSET_READ: usize = 23;
const PR_GET_SECUREBITS: usize = 27;
const PR_CAP_AMBIENT: usize = 47;

/// One effective capability; where it is not, whether it can ever be again.
#[inline(never)]
pub fn effective(capability: u32) -> Does {
    let known = ask!(nr::PRCTL, PR_CAPBSET_READ, capability, 0, 0, 0);
    if known == Err(EINVAL) {
        return Err(not_asked("this kernel does not know it"));
    }
    if capable(capability) {
        return Ok(());
    }
    match ask!(nr::GETEUID) {
        Ok(0) => Err(word(if known == Ok(0) { "dropped" } else { "not effective" })),
        _ => Err(not_asked("the cell does not run as root")),
    }
}

/// capget(2): effective, permitted, inheritable, in two halves.
#[inline(never)]
fn bits(which: usize) -> Result<u64, i32> {
    let (header, mut data) = ([0x2008_0522u32, 0], [0u32; 6]);
    ask!(nr::CAPGET, &header, &mut data)?;
    Ok(u64::from(data[which + 3]) << 32 | u64::from(data[which]))
}

#[inline(never)]
fn hex(bits: u64) -> No {
    value(format_args!("{bits:016x}"))
}

fn set(which: usize) -> Does {
    Err(hex(bits(which)?))
}

/// A set that is asked for bit by bit, until the kernel knows no more.
#[inline(never)]
fn each(has: fn(usize) -> Result<usize, i32>) -> Result<u64, i32> {
    let mut bits = 0;
    for n in 0..64 {
        match has(n) {
            Ok(held) => bits |= (held as u64 & 1) << n,
            Err(EINVAL) if n > 0 => break,
            Err(errno) => return Err(errno),
        }
    }
    Ok(bits)
}

fn listed(has: fn(usize) -> Result<usize, i32>) -> Does {
    Err(hex(each(has)?))
}

/// What /proc says and what the calls say.
fn agrees() -> Does {
    let bounding = each(|n| ask!(nr::PRCTL, PR_CAPBSET_READ, n, 0, 0, 0))?;
    for (key, bits) in [(c"CapInh:", bits(2)?), (c"CapPrm:", bits(1)?), (c"CapEff:", bits(0)?), (c"CapBnd:", bounding)]
    {
        let shown = field(c"/proc/self/status", key.to_bytes())?;
        holds("/proc/self/status says otherwise", number(shown.bytes(), 16) == Some(bits))?;
    }
    Ok(())
}

//! What confines, and what is confined: seccomp, landlock, LSMs, keys, bpf, perf events, terminals.
//!
//! Goes in: nothing. Comes out: answers. Must not know: which answers are good. Keys live in the keyring of the process that
//! asks and go with it; programs and maps of bpf are descriptors.

use crate::asking::*;
use crate::rt::consts::*;
use crate::rt::nr;
use crate::rt::sys;

checks![
    Own "kernel.seccomp.filter" => seccomp_filter,
    Batch "kernel.seccomp.actions" => seccomp_actions,
    Own "kernel.seccomp.notify" => seccomp_notify,
    Batch "kernel.landlock.abi" => landlock_abi,
    Own "kernel.landlock.restrict" => landlock_restrict,
    Own "kernel.keyctl.process_keyring" => process_keyring,
    Own "kernel.add_key.user" => add_key,
    Batch "kernel.keyctl.session" => session_keyring,
    Own "kernel.keyctl.join_session" => join_session,
    Batch "kernel.bpf.map" => bpf_map,
    Batch "kernel.bpf.program" => bpf_program,
    Own "kernel.socket.filter" => socket_filter,
    Batch "kernel.perf.software" => || perf(1, 1),
    Batch "kernel.perf.hardware" => || perf(0, 1),
    Batch "kernel.syslog.read" => syslog,
    Own "kernel.tty.tiocsti" => tiocsti,
];

/// One instruction of a classic filter: code, jumps, constant.
const fn step(code: u16, yes: u8, no: u8, k: u32) -> u64 {
    code as u64 | (yes as u64) << 16 | (no as u64) << 24 | (k as u64) << 32
}

/// A filter that answers `action` to getppid and allows all else.
fn filter(action: u32) -> [u64; 4] {
    [step(0x20, 0, 0, 0), step(0x15, 0, 1, nr::GETPPID as u32), step(6, 0, 0, action), step(6, 0, 0, 0x7fff_0000)]
}

fn install(steps: &[u64; 4], flags: usize) -> Result<usize, i32> {
    must!(nr::PRCTL, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    let program = [4usize, steps.as_ptr() as usize];
    ask!(nr::SECCOMP, 1, flags, &program)
}

/// A sandbox within the sandbox.
fn seccomp_filter() -> Does {
    install(&filter(0x0005_0000 | 99), 0)?;
    refused("getppid", ask!(nr::GETPPID), 99)
}

/// SECCOMP_GET_ACTION_AVAIL
fn seccomp_actions() -> Does {
    let mut have = crate::check::Value::new();
    let actions = [
        ("kill-process", 0x8000_0000u32),
        (" kill", 0),
        (" trap", 0x3_0000),
        (" errno", 0x5_0000),
        (" notify", 0x7fc0_0000),
        (" trace", 0x7ff0_0000),
        (" log", 0x7ffc_0000),
        (" allow", 0x7fff_0000),
    ];
    for (name, action) in actions {
        match ask!(nr::SECCOMP, 2, 0, &action) {
            Ok(_) => {
                have.add(name.as_bytes());
            }
            Err(EOPNOTSUPP) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Err(no(crate::check::Saw::Value(have)))
}

/// A call of a child is answered by its parent, who shares its descriptors.
fn seccomp_notify() -> Does {
    let told = Map::shared(4096)?;
    // CLONE_FILES: the listener is the parent's as well.
    let child = match must!("clone"; nr::CLONE, CLONE_FILES | SIGCHLD as usize) {
        0 => {
            let _ = ask!(nr::PRCTL, PR_SET_PDEATHSIG, SIGKILL);
            let answer = match install(&filter(0x7fc0_0000), 8) {
                Ok(fd) => fd as u32,
                Err(errno) => 10_000 + errno as u32,
            };
            told.word(0).store(answer, core::sync::atomic::Ordering::SeqCst);
            sys::exit(i32::from(ask!(nr::GETPPID) != Err(99)))
        }
        pid => Twin(pid as i32),
    };
    let listener = loop {
        match told.word(0).load(core::sync::atomic::Ordering::SeqCst) {
            0 => sys::sleep_ms(1),
            errno @ 10_000.. => return Err((errno as i32 - 10_000).into()),
            fd => break Fd(fd as i32),
        }
    };
    let mut call = [0u64; 10];
    must!("SECCOMP_IOCTL_NOTIF_RECV"; nr::IOCTL, listener.0, 0xc050_2100usize, &mut call);
    // id, value, error, flags
    let answer = [call[0], 0, u64::from(-99i32 as u32)];
    must!("SECCOMP_IOCTL_NOTIF_SEND"; nr::IOCTL, listener.0, 0xc018_2101usize, &answer);
    same("status of the child", child.wait()? as usize, 0)
}

fn landlock_abi() -> Does {
    // LANDLOCK_CREATE_RULESET_VERSION
    Err(number(must!(nr::LANDLOCK_CREATE_RULESET, 0, 0, 1) as u64))
}

/// LANDLOCK_ACCESS_FS_READ_DIR without any rule: no directory can be listed.
fn landlock_restrict() -> Does {
    let rules = Fd(must!(nr::LANDLOCK_CREATE_RULESET, &(1u64 << 3), 8, 0) as i32);
    must!("no_new_privs"; nr::PRCTL, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    must!("landlock_restrict_self"; nr::LANDLOCK_RESTRICT_SELF, rules.0, 0);
    refused("open /", sys::open(c"/", O_RDONLY | O_DIRECTORY, 0), EACCES)
}

/// KEYCTL_GET_KEYRING_ID of the process keyring, made for it.
fn process_keyring() -> Does {
    let id = must!(nr::KEYCTL, 0, -2, 1);
    holds("no keyring", id > 0)
}

/// A key in the process keyring, read back.
fn add_key() -> Does {
    let key = must!(nr::ADD_KEY, sys::path(c"user"), sys::path(c"abicus"), sys::path(c"secret"), 6, -2);
    let mut room = [0u8; 8];
    same("bytes", must!("KEYCTL_READ"; nr::KEYCTL, 11, key, &mut room, 8), 6)?;
    holds("another payload", room.starts_with(b"secret"))
}

/// KEYCTL_GET_KEYRING_ID of the session keyring, not made for it.
fn session_keyring() -> Does {
    must!(nr::KEYCTL, 0, -3, 0);
    Ok(())
}

/// KEYCTL_JOIN_SESSION_KEYRING of one that is new unless another probe has it just now. It goes with the process.
fn join_session() -> Does {
    holds("no keyring", must!(nr::KEYCTL, 1, sys::path(c"abicus")) > 0)
}

/// BPF_MAP_CREATE of an array, update, lookup.
fn bpf_map() -> Does {
    let map = Fd(must!(nr::BPF, 0, &[2u32, 4, 4, 1, 0], 20) as i32);
    let (key, value, mut room) = (0u32, 42u32, 0u32);
    let pair = |value: usize| [map.0 as u64, &raw const key as u64, value as u64, 0];
    must!("update"; nr::BPF, 2, &pair(&raw const value as usize), 32);
    must!("lookup"; nr::BPF, 1, &pair(&raw mut room as usize), 32);
    same("value", room as usize, 42)
}

/// BPF_PROG_LOAD of a socket filter that returns 0.
fn bpf_program() -> Does {
    let steps = [0xb7u64, 0x95];
    let arguments = [1 | 2 << 32, steps.as_ptr() as u64, c"GPL".as_ptr() as u64, 0, 0, 0];
    Fd(must!(nr::BPF, 5, &arguments, 48) as i32);
    Ok(())
}

/// SO_ATTACH_FILTER: classic filters need no privilege. Nothing passes this one.
fn socket_filter() -> Does {
    let mut ends = [-1i32; 2];
    must!("socketpair"; nr::SOCKETPAIR, 1, 2 | O_NONBLOCK, 0, &mut ends);
    let drop_all = [step(6, 0, 0, 0)];
    must!(nr::SETSOCKOPT, ends[0], 1, 26, &[1usize, drop_all.as_ptr() as usize], 16);
    let _ = sys::write(ends[1], b"x");
    refused("read of what was filtered", sys::read(ends[0], &mut [0; 4]), EAGAIN)
}

/// A counter of our own thread: PERF_TYPE_HARDWARE cycles, PERF_TYPE_SOFTWARE task clock.
fn perf(kind: u64, config: u64) -> Does {
    let mut attributes = [0u64; 8];
    (attributes[0], attributes[1]) = (kind | 64 << 32, config);
    // exclude_kernel | exclude_hv
    attributes[5] = 1 << 5 | 1 << 6;
    let counter = Fd(must!(nr::PERF_EVENT_OPEN, &attributes, 0, -1, -1, 8) as i32);
    let mut count = 0u64;
    for _ in 0..1000 {
        must!("read"; nr::READ, counter.0, &mut count, 8);
        if count > 0 {
            return Ok(());
        }
    }
    Err(word("counts nothing"))
}

/// SYSLOG_ACTION_SIZE_BUFFER
fn syslog() -> Does {
    holds("no buffer", must!(nr::SYSLOG, 10, 0, 0) > 0)
}

/// A character pushed into a terminal of our own: kernels since 6.2 may refuse it.
fn tiocsti() -> Does {
    let master = match sys::open(c"/dev/ptmx", O_RDWR | O_NOCTTY, 0) {
        Ok(fd) => Fd(fd),
        Err(_) => return Err(not_asked("no terminal can be made: /dev/ptmx")),
    };
    must!("setsid"; nr::SETSID);
    let _ = sys::set_action(SIGHUP, &sys::Sigaction { handler: sys::SIG_IGN, ..Default::default() });
    must!("TIOCSPTLCK"; nr::IOCTL, master.0, 0x4004_5431, &0u32);
    let slave = Fd(must!("TIOCGPTPEER"; nr::IOCTL, master.0, 0x5441, O_RDWR) as i32);
    must!("TIOCSCTTY"; nr::IOCTL, slave.0, 0x540e, 0);
    must!(nr::IOCTL, slave.0, 0x5412, sys::path(c"x"));
    Ok(())
}

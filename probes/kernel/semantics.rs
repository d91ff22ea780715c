//! What programs rely on system calls to do.
//!
//! Goes in: nothing. Comes out: facts and answers. Must not know: which answers are good. `check.rs` says how to add one.

use super::check::{Asked, At, Check, Facts, How, Saw, wrong};
use super::rt::nr;
use super::rt::sys::{self, call};

pub static FACTS: &[fn(&mut Facts)] = &[kernel];

pub static CHECKS: &[Check] = &[
    Check { id: "kernel.memfd.create", how: How::Batch, run: memfd_create },
    Check { id: "kernel.umask.set", how: How::Own, run: umask },
];

/// uname(2): six fields of 65 bytes.
fn kernel(f: &mut Facts) {
    let mut name = [0u8; 6 * 65];
    // SAFETY: room for a struct utsname.
    if unsafe { call!(nr::UNAME, &mut name) }.is_ok() {
        for (i, fact) in [(2, "kernel.release"), (3, "kernel.version"), (4, "kernel.machine")] {
            let field = &name[i * 65..(i + 1) * 65];
            f.text(fact, field.split(|b| *b == 0).next().unwrap_or(field));
        }
    }
}

/// memfd_create(2): a file without a name that keeps what is written into it.
fn memfd_create() -> Asked {
    // SAFETY: a C string.
    let fd = unsafe { call!(nr::MEMFD_CREATE, sys::path(c"abicus"), 1) }? as i32;
    let mut back = [0; 8];
    let written = sys::write(fd, b"abicus");
    // SAFETY: room for what is read.
    let read = unsafe { call!(nr::PREAD64, fd, &mut back, back.len(), 0) };
    let _ = sys::close(fd);
    written.at("write")?;
    let n = read.at("read back")?;
    if &back[..n] != b"abicus" {
        return wrong(format_args!("read {n} bytes back, not what was written"));
    }
    Ok(Saw::Ok)
}

/// umask(2) returns the one before. On its own, because it changes its process.
fn umask() -> Asked {
    // SAFETY: takes no address.
    let set = |mask: usize| unsafe { call!(nr::UMASK, mask) };
    set(0o27)?;
    let before = set(0o22)?;
    if before == 0o27 { Ok(Saw::Ok) } else { wrong(format_args!("was 0o27, said {before:#o}")) }
}

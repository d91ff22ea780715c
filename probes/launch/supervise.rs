//! The launcher's life: stages in order, one child, and nothing left of it in the end.
//!
//! Goes in: the list, the status pipe, the lifeline. Comes out: lines of the status pipe, and the launcher's exit status.
//! Must not know: what operations do.

use crate::act::{self, Scene};
use crate::format::{Op, Ops, SETUP_FAILED, code, stage};
use crate::rt::consts::*;
use crate::rt::nr;
use crate::rt::sys::{self, Answer, Sigaction, bit, call};
use crate::rt::text;
use crate::tell;

/// What the list says about the child before there is one.
#[derive(Default)]
struct Plan {
    namespaces: u64,
    adopt: bool,
}

pub fn run(list: &[u8], status: i32, lifeline: Option<i32>) -> i32 {
    let Some(plan) = check(list) else {
        tell::line(status, format_args!("malformed\n"));
        return 2;
    };
    let _ = sys::set_action(SIGPIPE, &Sigaction { handler: sys::SIG_IGN, ..Sigaction::default() });
    let mut scene = Scene { status, child: 0 };
    let outcome = perform_stage(list, stage::BEFORE, &scene).and_then(|()| {
        let child = Child::make(list, &plan, &scene).map_err(|errno| tell_setup(status, u32::MAX, errno))?;
        scene.child = child.pid;
        tell::line(status, format_args!("child {}\n", child.pid));
        let beside = perform_stage(list, stage::BESIDE, &scene);
        if beside.is_ok() {
            child.release();
        }
        child.watch(status, lifeline, beside.is_err());
        if plan.adopt {
            end_adopted();
        }
        beside
    });
    for op in Ops::new(list).into_iter().flatten().flatten().filter(|op| op.stage == stage::AFTER) {
        if let Err(errno) = act::perform(&op, &scene) {
            tell::line(status, format_args!("note {} errno {errno}\n", op.index));
        }
    }
    tell::line(status, format_args!("done\n"));
    i32::from(outcome.is_err())
}

/// The whole list is read before anything of it is done.
fn check(list: &[u8]) -> Option<Plan> {
    let mut plan = Plan::default();
    let mut executes = false;
    for op in Ops::new(list).ok()? {
        let mut op = op.ok()?;
        match op.code {
            code::CLONE => plan.namespaces = op.fields.number().ok()?,
            code::ADOPT => plan.adopt = true,
            code::EXEC => executes |= op.stage == stage::INSIDE,
            _ => {}
        }
    }
    executes.then_some(plan)
}

fn tell_setup(status: i32, index: u32, errno: i32) {
    tell::line(status, format_args!("setup {index} errno {errno}\n"));
}

fn perform_stage(list: &[u8], which: u8, scene: &Scene) -> Result<(), ()> {
    let about_the_child = |op: &Op| matches!(op.code, code::CLONE | code::ADOPT);
    for op in Ops::new(list).map_err(|_| ())?.flatten().filter(|op| op.stage == which && !about_the_child(op)) {
        act::perform(&op, scene).map_err(|errno| tell_setup(scene.status, op.index, errno))?;
    }
    Ok(())
}

struct Child {
    pid: i32,
    /// Written once when the child may go on.
    gate: i32,
    /// Reaches its end when the child executes its program, or dies.
    started: i32,
    signals: i32,
}

impl Child {
    fn make(list: &[u8], plan: &Plan, scene: &Scene) -> Answer<Child> {
        const PR_SET_CHILD_SUBREAPER: usize = 36;
        if plan.adopt {
            // SAFETY: takes no address.
            unsafe { call!(nr::PRCTL, PR_SET_CHILD_SUBREAPER, 1) }?;
        }
        let mask = bit(SIGCHLD) | bit(SIGTERM) | bit(SIGINT) | bit(SIGHUP);
        sys::set_mask(mask);
        // SAFETY: a signal set of 8 bytes, read only.
        let signals = unsafe { call!(nr::SIGNALFD4, -1, &mask, 8, O_CLOEXEC | O_NONBLOCK) }? as i32;
        let [gate_out, gate] = sys::pipe()?;
        let [started, started_in] = sys::pipe()?;
        // SAFETY: no new stack, so both return here, each with memory of its own.
        let pid = unsafe { call!(nr::CLONE, plan.namespaces | SIGCHLD as u64) }? as i32;
        if pid == 0 {
            // SAFETY: takes no address. Should the launcher be killed, so is the cell.
            let _ = unsafe { call!(nr::PRCTL, PR_SET_PDEATHSIG, SIGKILL) };
            let _ = sys::close(gate);
            if sys::read(gate_out, &mut [0]) != Ok(1) {
                sys::exit(SETUP_FAILED);
            }
            let _ = perform_stage(list, stage::INSIDE, scene);
            sys::exit(SETUP_FAILED);
        }
        let _ = sys::close(gate_out);
        let _ = sys::close(started_in);
        Ok(Child { pid, gate, started, signals })
    }

    fn release(&self) {
        let _ = sys::write(self.gate, b"g");
    }

    /// Returns when the child is gone, having told how.
    fn watch(&self, status: i32, lifeline: Option<i32>, kill_now: bool) {
        #[repr(C)]
        #[derive(Clone, Copy)]
        struct Poll {
            fd: i32,
            events: i16,
            seen: i16,
        }
        const READABLE: i16 = 1;
        const REMOTE_CLOSED: i16 = 0x2000;
        if kill_now {
            self.kill();
        }
        let poll = |fd| Poll { fd, events: READABLE | REMOTE_CLOSED, seen: 0 };
        let mut fds = [poll(self.signals), poll(lifeline.unwrap_or(-1)), poll(self.started)];
        loop {
            // SAFETY: three structures, no timeout, no mask.
            let polled = unsafe { call!(nr::PPOLL, &mut fds, fds.len(), 0, 0, 8) };
            if !matches!(polled, Ok(_) | Err(EINTR)) {
                self.kill();
            }
            if fds[2].seen != 0 {
                tell::line(status, format_args!("started\n"));
                fds[2].fd = -1;
            }
            if fds[1].seen != 0 && at_end(fds[1].fd) {
                self.kill();
                fds[1].fd = -1;
            }
            if polled.is_err() || fds[0].seen != 0 {
                self.drain_signals();
                if self.reap(status) {
                    return;
                }
            }
        }
    }

    fn kill(&self) {
        // Its process group too: without a pid namespace its children outlive it.
        let _ = sys::kill(-self.pid, SIGKILL);
        let _ = sys::kill(self.pid, SIGKILL);
    }

    /// Any signal but SIGCHLD asks the launcher to end, which means the cell.
    fn drain_signals(&self) {
        let mut info = [0u8; 128];
        while sys::read(self.signals, &mut info) == Ok(128) {
            if i32::from(info[0]) != SIGCHLD {
                self.kill();
            }
        }
    }

    /// Whether the child itself is gone; orphans that came to us are reaped on the way.
    fn reap(&self, status: i32) -> bool {
        loop {
            let (mut state, mut usage) = (0i32, [0i64; 36]);
            // SAFETY: room for a status and a struct rusage, which has 18 words on 64 bit.
            let pid = unsafe { call!(nr::WAIT4, -1, &mut state, WNOHANG, &mut usage) };
            match pid {
                Ok(pid) if pid as i32 == self.pid => {
                    match state & 0x7f {
                        0 => tell::line(status, format_args!("exit {}\n", state >> 8 & 0xff)),
                        signal => tell::line(status, format_args!("signal {signal}\n")),
                    }
                    let [user, system] = [usage[0] * 1_000_000 + usage[1], usage[2] * 1_000_000 + usage[3]];
                    tell::line(status, format_args!("usage {user} {system} {}\n", usage[4]));
                    return true;
                }
                Ok(0) => return false,
                Err(ECHILD) => return true,
                Ok(_) | Err(_) => {}
            }
        }
    }
}

/// Whether nothing more can come from a descriptor. What does come is of no interest.
fn at_end(fd: i32) -> bool {
    !matches!(sys::read(fd, &mut [0; 64]), Ok(1..) | Err(EINTR | EAGAIN))
}

/// Kills whatever the child left behind, generation by generation, until there is nobody.
fn end_adopted() {
    let mut room = [0u8; 4096];
    loop {
        // Linux 3.5 and CONFIG_PROC_CHILDREN; without it the process group, which is dead by now, has to do.
        let Ok(children) = sys::read_file(c"/proc/thread-self/children", &mut room) else { return };
        for pid in children.split(|b| *b == b' ').filter_map(|word| text::number(word, 10)) {
            let _ = sys::kill(pid as i32, SIGKILL);
        }
        if sys::wait(-1, 0).is_err() {
            return;
        }
    }
}

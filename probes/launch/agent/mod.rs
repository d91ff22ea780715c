//! The agent: one stream from the driver carries all cells of a host. Started by whoever opened the stream, or as the
//! first process of a virtual machine.
//!
//! `launch agent DIR [DEVICE]`. Goes in: frames (see `frame.rs`) on standard input, or a device such as a serial port. Comes
//! out: frames on standard output, or the device. DIR is the agent's own: it is made where it is missing, everything put is
//! below it, and it is removed, with this program if that lies there, when the stream ends; before that everything started is
//! killed. Must not know: what a list is for.

mod channel;
mod files;
pub mod frame;
mod hello;
pub mod init;
mod put;
mod tree;
mod wire;

use core::ffi::CStr;

use channel::{Channel, Kind};
use frame::{CHANNELS, Head, PATIENCE, kind, u32_at};
use wire::{Input, Next, Output};

use crate::rt::child;
use crate::rt::consts::*;
use crate::rt::nr;
use crate::rt::sys::{self, Answer, Sigaction, Timespec, bit, call};

/// All of the agent's memory, zeroed when it is made.
struct Agent {
    input: Input,
    output: Output,
    channels: [Channel; CHANNELS],
    waiting: Waiting,
    /// Its own directory.
    dir: i32,
}

const MOST: usize = 2 + 3 * CHANNELS;

/// What is waited for, and for whom.
struct Waiting {
    polled: [Poll; MOST],
    /// Channel, and which of its descriptors.
    whose: [(u16, u16); MOST],
    count: usize,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Poll {
    fd: i32,
    events: i16,
    seen: i16,
}

const READABLE: i16 = 1;
const WRITABLE: i16 = 4;

impl Waiting {
    fn add(&mut self, fd: i32, events: i16, whose: (u16, u16)) {
        (self.polled[self.count], self.whose[self.count]) = (Poll { fd, events, seen: 0 }, whose);
        self.count += 1;
    }
}

/// Serves the driver until it is gone; the exit status.
pub fn run(dir: &CStr, device: Option<&CStr>) -> i32 {
    let ends = match device {
        Some(name) => init::open_device(name).map(|fd| [fd, fd]),
        None => Ok([0, 1]),
    };
    match ends.and_then(|ends| Agent::make(dir, ends)) {
        Ok((agent, signals)) => {
            hello::say(&mut agent.output, dir);
            agent.serve(signals);
            agent.end();
            let _ = tree::remove(AT_FDCWD, dir);
            0
        }
        Err(errno) => {
            crate::tell::line(2, format_args!("agent: errno {errno}\n"));
            1
        }
    }
}

impl Agent {
    fn make(dir: &CStr, [input, output]: [i32; 2]) -> Answer<(&'static mut Agent, i32)> {
        let _ = sys::set_action(SIGPIPE, &Sigaction { handler: sys::SIG_IGN, ..Sigaction::default() });
        let _ = sys::set_action(SIGCHLD, &Sigaction::default());
        let mask = bit(SIGCHLD) | bit(SIGTERM) | bit(SIGINT) | bit(SIGHUP);
        sys::set_mask(mask);
        // SAFETY: a signal set of 8 bytes, read only.
        let signals = unsafe { call!(nr::SIGNALFD4, -1, &mask, 8, O_CLOEXEC | O_NONBLOCK) }? as i32;
        // SAFETY: C strings; takes no address.
        unsafe {
            let _ = call!(nr::UMASK, 0o022);
            let _ = call!(nr::CHDIR, sys::path(c"/"));
        }
        let _ = sys::mkdir(dir, 0o700);
        // SAFETY: zeroes are an agent: integers, free channels, null pointers.
        let agent = unsafe { child::shared::<Agent>() }?;
        agent.dir = sys::open(dir, O_RDONLY | O_DIRECTORY, 0)?;
        // SAFETY: a C string that outlives the call. There already is fine.
        let _ = unsafe { call!(nr::MKDIRAT, agent.dir, sys::path(c"mnt"), 0o755) };
        (agent.input.fd, agent.output.fd) = (input, output);
        init::copy_self(agent.dir, c"launch")?;
        Ok((agent, signals))
    }

    fn serve(&mut self, signals: i32) {
        let mut heard = sys::now_ms();
        while !self.output.broken {
            self.wait_for(signals);
            let Waiting { polled, count, .. } = &mut self.waiting;
            let time = Timespec::from_ms(PATIENCE * 1000);
            // SAFETY: `count` structures of the array, a timespec, no mask.
            let ready = unsafe { call!(nr::PPOLL, polled.as_mut_ptr(), *count, &time, 0, 8) };
            if !matches!(ready, Ok(_) | Err(EINTR)) || sys::now_ms() - heard > PATIENCE * 1000 {
                return;
            }
            if matches!(ready, Err(_) | Ok(0)) {
                continue;
            }
            if self.waiting.polled[1].seen != 0 && self.asked_to_end(signals) {
                return;
            }
            for at in 2..self.waiting.count {
                self.ready(at);
            }
            if self.waiting.polled[0].seen != 0 {
                heard = sys::now_ms();
                if !self.input.fill() || !self.frames() {
                    return;
                }
            }
        }
    }

    fn wait_for(&mut self, signals: i32) {
        self.waiting.count = 0;
        self.waiting.add(self.input.fd, READABLE, (0, 0));
        self.waiting.add(signals, READABLE, (0, 0));
        for (at, channel) in self.channels.iter().enumerate() {
            for which in 0..3 {
                if let Some((fd, read, write)) = channel.wants(which) {
                    let events = if read { READABLE } else { 0 } | if write { WRITABLE } else { 0 };
                    self.waiting.add(fd, events, (at as u16, which as u16));
                }
            }
        }
    }

    fn ready(&mut self, at: usize) {
        let Poll { events, seen, .. } = self.waiting.polled[at];
        let (channel, which) = self.waiting.whose[at];
        let channel = &mut self.channels[usize::from(channel)];
        if seen != 0 && events & WRITABLE != 0 {
            channel.write(&mut self.output);
        }
        // What hung up is read to its end.
        if seen & !WRITABLE != 0 && events & READABLE != 0 {
            channel.read(usize::from(which), &mut self.output);
        }
    }

    /// Reaps; true where a signal asks the agent to end.
    fn asked_to_end(&mut self, signals: i32) -> bool {
        let mut info = [0u8; 128];
        let mut end = false;
        while sys::read(signals, &mut info) == Ok(128) {
            end |= i32::from(info[0]) != SIGCHLD;
        }
        self.reap();
        end
    }

    /// As the first process, also children of others.
    fn reap(&mut self) {
        while let Ok((pid @ 1.., _)) = sys::wait(-1, WNOHANG) {
            for channel in self.channels.iter_mut().filter(|channel| channel.pid == pid) {
                channel.pid = 0;
            }
        }
    }

    /// Works off what has arrived; false where it makes no sense.
    fn frames(&mut self) -> bool {
        loop {
            let Agent { input, output, channels, dir, .. } = self;
            let (head, sense) = match input.next() {
                Next::More => return true,
                Next::Nonsense => return false,
                Next::Frame(head, payload) => (head, frame_for(head, payload, channels, output, *dir)),
            };
            self.input.take(head);
            if !sense {
                return false;
            }
        }
    }

    /// Kills everything and waits for it: launchers clean up behind their cells.
    fn end(&mut self) {
        for channel in &mut self.channels {
            channel.free();
        }
        let limit = sys::now_ms() + 10_000;
        while sys::now_ms() < limit {
            match sys::wait(-1, WNOHANG) {
                Ok((0, _)) => sys::sleep_ms(2),
                Ok(_) => {}
                Err(_) => return,
            }
        }
        for channel in &self.channels {
            channel.kill();
        }
    }
}

/// One frame of the driver's. False: it makes no sense here.
fn frame_for(head: Head, payload: &[u8], channels: &mut [Channel], output: &mut Output, dir: i32) -> bool {
    let id = head.channel;
    if let Some(channel) = channels.iter_mut().find(|channel| channel.kind != Kind::Free && channel.id == id) {
        return known(head.kind, payload, channel, output);
    }
    let mut room = [0; 4096];
    let answer = match (head.kind, payload) {
        (kind::PING, _) => {
            output.say(id, kind::PING, &[]);
            return true;
        }
        (kind::READ, [a, b, c, d, name @ ..]) => channel::text(name, &mut room)
            .and_then(|name| files::read(output, id, name, u32::from_le_bytes([*a, *b, *c, *d]) as usize)),
        (kind::STAT, name) => channel::text(name, &mut room).and_then(|name| files::about(output, id, name)),
        (kind::LIST, name) => channel::text(name, &mut room).and_then(|name| files::list(output, id, name)),
        (kind::REMOVE, name) => own(name, &mut room).and_then(|name| tree::remove(dir, name)),
        (kind::LAUNCH | kind::CONNECT | kind::PUT, _) => match open(head, payload, channels, dir) {
            Ok(()) => {
                if head.kind == kind::CONNECT {
                    output.say(id, kind::REPLY, &[]);
                }
                return true;
            }
            Err(errno) => Err(errno),
        },
        // For a channel that is over already.
        (kind::DATA..=kind::DROP | kind::CREDIT | kind::ENTRY..=kind::DONE, _) => return true,
        _ => return false,
    };
    end(output, id, answer.err().unwrap_or(0));
    true
}

fn end(output: &mut Output, id: u32, errno: i32) {
    output.say(id, kind::END, &errno.to_le_bytes());
}

/// The name of a tree in the agent's directory.
fn own<'a>(name: &[u8], room: &'a mut [u8; 4096]) -> Answer<&'a CStr> {
    if !name.starts_with(b"tree-") || name.contains(&b'/') {
        return Err(EINVAL);
    }
    channel::text(name, room)
}

fn open(head: Head, payload: &[u8], channels: &mut [Channel], dir: i32) -> Answer<()> {
    let channel = channels.iter_mut().find(|channel| channel.kind == Kind::Free).ok_or(EMFILE)?;
    let mut room = [0; 4096];
    match head.kind {
        kind::LAUNCH => {
            let (fds, pid) = channel::launch()?;
            channel.open(head.channel, fds, pid);
        }
        kind::CONNECT => {
            let fd = channel::connect(channel::text(payload, &mut room)?)?;
            channel.open(head.channel, [fd, 0, 0], 0);
        }
        _ => {
            channel.put.begin(dir, own(payload, &mut room)?)?;
            (channel.id, channel.kind) = (head.channel, Kind::Put);
        }
    }
    Ok(())
}

fn known(what: u8, payload: &[u8], channel: &mut Channel, output: &mut Output) -> bool {
    match (channel.kind, what) {
        (_, kind::DROP) => channel.free(),
        (Kind::Stream, kind::DATA) => return channel.data(payload, output),
        (Kind::Stream, kind::CLOSE) => channel.close(),
        (Kind::Stream, kind::KILL) => channel.kill(),
        (Kind::Stream, kind::CREDIT) => match (payload.first(), u32_at(payload, 1)) {
            (Some(what), Some(more)) => channel.credit(*what, more),
            _ => return false,
        },
        (Kind::Put, kind::ENTRY) => channel.put.entry(payload),
        (Kind::Put, kind::BYTES) => channel.put.bytes(payload),
        (Kind::Put, kind::XATTR) => channel.put.attribute(payload),
        (Kind::Put, kind::DONE) => {
            let (id, failed) = (channel.id, channel.put.failed);
            output.say(id, kind::REPLY, channel.put.path.bytes());
            channel.free();
            end(output, id, failed);
        }
        _ => return false,
    }
    true
}

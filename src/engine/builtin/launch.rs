//! Runs the launcher: hands it a list, keeps what the program writes, enforces deadline and caps, learns how it ended.
//!
//! In: a list of operations, a deadline, a cap. Out: how the program ended or why it never began, its output, and what the
//! launcher told. Must not know: images, policies, probes.
//!
//! Whoever reaches the host starts the launcher; by holding its lifeline the driver says that it lives. When the driver
//! dies or lets go of it, the launcher kills the cell. So a cell needs no clean-up that a killed driver could owe.

use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::sleep_until;

use super::list::{List, format::SETUP_FAILED};
use crate::engine::{Attempt, Ended, Timing};
use crate::fault::{Fault, Phase};
use crate::host::{Launched, Reach, Writer};

/// How long a killed cell may take to be gone before the driver stops waiting for it.
const GRACE: Duration = Duration::from_secs(10);
/// How long nothing of the output may come, once everything that could write it is gone, before the driver stops waiting
/// for its end. What was written arrives: over SSH to a host under load, and in windows that each wait for an answer, that
/// takes seconds. Only a process that escaped the launcher keeps the output from ending.
const SILENCE: Duration = Duration::from_secs(30);
/// Most bytes of lines the launcher may tell. It tells a handful.
const MAX_TOLD: usize = 256 * 1024;

/// What to run, and within which bounds.
pub(crate) struct Launch<'a> {
    /// The host to run it on.
    pub(crate) reach: &'a dyn Reach,
    pub(crate) list: &'a List,
    pub(crate) deadline: Duration,
    /// Bytes kept of each of standard output and standard error.
    pub(crate) cap: usize,
}

/// What the launcher told.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Told {
    /// How the program, or the process that was to become it, ended.
    pub(crate) ended: Option<Ended>,
    /// The operation that failed before the program began, and its errno.
    pub(crate) setup: Option<(usize, i32)>,
    /// Operations that failed and were allowed to.
    pub(crate) notes: Vec<(usize, i32)>,
    /// Contents of files, by key.
    pub(crate) reports: Vec<(String, Vec<u8>)>,
    /// User and system time in microseconds, largest resident set in KiB.
    pub(crate) usage: Option<[u64; 3]>,
    pub(crate) started: bool,
    pub(crate) malformed: bool,
    pub(crate) done: bool,
}

impl Told {
    /// Reads the launcher's lines. What is cut off or unknown is left out.
    pub(crate) fn parse(mut bytes: &[u8]) -> Self {
        let mut told = Self::default();
        while let Some(end) = bytes.iter().position(|b| *b == b'\n') {
            let line = String::from_utf8_lossy(&bytes[..end]).into_owned();
            bytes = &bytes[end + 1..];
            let words: Vec<&str> = line.split(' ').collect();
            let number = |at: usize| words.get(at).and_then(|word| word.parse::<i64>().ok());
            match (words.as_slice(), number(1), number(3)) {
                (["exit", _], Some(n), _) => told.ended = Some(Ended::Exit(n as i32)),
                (["signal", _], Some(n), _) => told.ended = Some(Ended::Signal(n as i32)),
                // u32::MAX stands for what is no operation: making the first process.
                (["setup", _, "errno", _], Some(op), Some(errno)) => {
                    told.setup.get_or_insert((op as usize, errno as i32));
                }
                (["note", _, "errno", _], Some(op), Some(errno)) => told.notes.push((op as usize, errno as i32)),
                (["usage", ..], Some(user), Some(rss)) => {
                    told.usage = Some([user as u64, number(2).unwrap_or(0) as u64, rss as u64]);
                }
                (["report", key, length], ..) => {
                    let length = length.parse().unwrap_or(0).min(bytes.len());
                    told.reports.push(((*key).to_owned(), bytes[..length].to_vec()));
                    bytes = &bytes[length..];
                }
                (["started"], ..) => told.started = true,
                (["malformed"], ..) => told.malformed = true,
                (["done"], ..) => told.done = true,
                _ => {}
            }
        }
        told
    }
}

/// What was collected while the cell lived.
struct Collected {
    stdout: Kept,
    stderr: Kept,
    told: Vec<u8>,
    killed: Option<Ended>,
    /// Nobody read the output to its end.
    held: bool,
    /// The way to the host broke, and what was on it is lost.
    lost: Option<Fault>,
    /// Everything that could write is gone, and the launcher said its last line.
    complete: bool,
    started: Option<Instant>,
    ended: Option<Instant>,
}

/// Runs a list to its end. Partial output is kept whatever happens.
pub(crate) async fn launch(job: &Launch<'_>) -> (Attempt, Told) {
    let begun = Instant::now();
    let broken = |fault: Fault| (Attempt::broken(fault), Told::default());
    let list = match job.list.finish() {
        Ok(list) => list,
        Err(e) => return broken(Fault::new(Phase::Create, e)),
    };
    let launched = match job.reach.launch(&list).await {
        Ok(launched) => launched,
        Err(fault) => return broken(fault),
    };
    let collected = collect(job, launched, begun).await;
    let told = Told::parse(&collected.told);
    let ms = |from: Instant, to: Instant| u64::try_from((to - from).as_millis()).unwrap_or(u64::MAX);
    let now = Instant::now();
    let started = collected.started.unwrap_or(now);
    let ended = collected.ended.unwrap_or(now).max(started);
    let mut notes: Vec<String> = told.notes.iter().map(|(op, errno)| failed(job.list, *op, *errno)).collect();
    if collected.held {
        notes.push("a process that outlived the program holds its output open".to_owned());
    }
    let verdict = match &collected.lost {
        // How the program ended may be known, and whether its output is whole is not.
        Some(lost) => Err(lost.clone()),
        None => verdict(job.list, &told, &collected),
    };
    let attempt = Attempt {
        ended: verdict,
        stdout: collected.stdout.bytes,
        stderr: collected.stderr.bytes,
        timing: Timing { create_ms: ms(begun, started), run_ms: ms(started, ended), remove_ms: ms(ended, now) },
        notes,
    };
    (attempt, told)
}

fn verdict(list: &List, told: &Told, collected: &Collected) -> Result<Ended, Fault> {
    if let Some((op, errno)) = told.setup {
        let executing = list.says(op).1;
        let phase = if executing { Phase::Start } else { Phase::Create };
        let fault = Fault::new(phase, failed(list, op, errno));
        // Memory and processes come back; everything else will fail again.
        const EAGAIN_ENOMEM_ENOSPC: [i32; 3] = [11, 12, 28];
        return Err(if EAGAIN_ENOMEM_ENOSPC.contains(&errno) && !executing { fault.transient() } else { fault });
    }
    if told.malformed {
        return Err(Fault::new(Phase::Create, "the launcher does not understand its list of operations"));
    }
    match (collected.killed, told.ended) {
        (Some(why), Some(Ended::Signal(9)) | None) if collected.complete => Ok(why),
        // It ended by itself just then; what was beyond the cap is gone all the same.
        (Some(Ended::OutputCap), Some(_)) => Ok(Ended::OutputCap),
        (Some(_), None) => Err(Fault::new(Phase::Cleanup, "the cell was killed and is still there").transient()),
        (_, Some(Ended::Exit(SETUP_FAILED))) if !told.started => {
            Err(Fault::new(Phase::Create, "the launcher's child ended before the program began").transient())
        }
        (_, Some(ended)) => Ok(ended),
        (None, None) => Err(Fault::new(Phase::Wait, "the launcher ended without a word").transient()),
    }
}

/// `mounting overlay on root: Invalid argument (os error 22)`.
pub(crate) fn failed(list: &List, op: usize, errno: i32) -> String {
    format!("{}: {}", list.says(op).0, std::io::Error::from_raw_os_error(errno))
}

/// The first bytes of a stream, and whether there were more.
struct Kept {
    bytes: Vec<u8>,
    cap: usize,
}

impl Kept {
    /// One read: false at the end of the stream. What is beyond the cap is read and dropped.
    async fn read(&mut self, from: &mut Option<impl AsyncRead + Unpin>, room: &mut [u8]) -> Step {
        let Some(stream) = from else { return std::future::pending().await };
        match stream.read(room).await {
            Ok(n) if n > 0 => {
                let free = self.cap.saturating_sub(self.bytes.len());
                self.bytes.extend_from_slice(&room[..n.min(free)]);
                if n > free { Step::Overflow } else { Step::More }
            }
            _ => {
                *from = None;
                Step::End
            }
        }
    }
}

#[derive(PartialEq)]
enum Step {
    More,
    Overflow,
    End,
}

async fn collect(job: &Launch<'_>, launched: Launched, begun: Instant) -> Collected {
    let Launched { stdout, stderr, mut told, lifeline, mut process } = launched;
    let mut lifeline = Some(lifeline);
    let kept = || Kept { bytes: Vec::new(), cap: job.cap };
    let mut c = Collected {
        stdout: kept(),
        stderr: kept(),
        told: Vec::new(),
        killed: None,
        held: false,
        lost: None,
        complete: false,
        started: None,
        ended: None,
    };
    let (mut out, mut err) = (Some(stdout), Some(stderr));
    let (mut out_room, mut err_room, mut line_room) = (vec![0; 64 * 1024], vec![0; 16 * 1024], [0; 1024]);
    let mut telling = true;
    let mut limit = begun + job.deadline;
    // What escaped and goes on writing is not listened to for ever.
    let mut last = limit;
    while telling || out.is_some() || err.is_some() {
        tokio::select! {
            step = c.stdout.read(&mut out, &mut out_room) => {
                if step == Step::Overflow { kill(&mut c.killed, Ended::OutputCap, &mut lifeline, &mut limit); }
                if !telling { limit = last.min(Instant::now() + SILENCE); }
            }
            step = c.stderr.read(&mut err, &mut err_room) => {
                if step == Step::Overflow { kill(&mut c.killed, Ended::OutputCap, &mut lifeline, &mut limit); }
                if !telling { limit = last.min(Instant::now() + SILENCE); }
            }
            read = told.read(&mut line_room), if telling => {
                let n = read.unwrap_or(0);
                let from = c.told.len();
                if from < MAX_TOLD { c.told.extend_from_slice(&line_room[..n]); }
                let new = &c.told[from..];
                let says = |what: &[u8]| new.windows(what.len()).any(|w| w == what);
                if c.started.is_none() && says(b"started\n") { c.started = Some(Instant::now()); }
                if c.ended.is_none() && (says(b"exit ") || says(b"signal ")) { c.ended = Some(Instant::now()); }
                if n == 0 {
                    telling = false;
                    c.complete = c.told.ends_with(b"done\n");
                    limit = Instant::now() + SILENCE;
                    last = limit.max(begun + job.deadline + SILENCE);
                }
            }
            () = sleep_until(limit.into()) => {
                if !telling {
                    c.held = true;
                    break;
                }
                if c.killed.is_some() {
                    // The lifeline was not enough: the launcher itself is stuck or stopped.
                    process.kill();
                    break;
                }
                kill(&mut c.killed, Ended::Deadline, &mut lifeline, &mut limit);
            }
        }
    }
    if !telling {
        let _ = tokio::time::timeout(GRACE, process.gone()).await;
    }
    c.lost = process.lost();
    c
}

/// Lets the lifeline go; only the first reason counts.
fn kill(killed: &mut Option<Ended>, why: Ended, lifeline: &mut Option<Writer>, limit: &mut Instant) {
    if killed.is_none() {
        *killed = Some(why);
        *limit = Instant::now() + GRACE;
        lifeline.take();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_launchers_lines_are_understood_and_strange_ones_left_out() {
        let told = Told::parse(
            b"child 77\nnote 3 errno 22\nstarted\nreport oom 12\noom_kill 1\n\nwhat is this\nsignal 9\n\
              usage 10 20 30\ndone\n",
        );
        assert_eq!(told.ended, Some(Ended::Signal(9)));
        assert_eq!(told.notes, [(3, 22)]);
        assert_eq!(told.reports, [("oom".to_owned(), b"oom_kill 1\n\n".to_vec())]);
        assert_eq!(told.usage, Some([10, 20, 30]));
        assert!(told.started && told.done && told.setup.is_none());
    }

    #[test]
    fn lines_that_are_cut_off_or_hostile_do_no_harm() {
        assert_eq!(Told::parse(b"report x 99999999999\nabc").reports, [("x".to_owned(), b"abc".to_vec())]);
        assert_eq!(Told::parse(b"exit"), Told::default());
        assert_eq!(Told::parse(b"exit \xff\n\n\0\nsetup x errno y\n"), Told::default());
        assert_eq!(Told::parse(b"setup 4294967295 errno 1\nsetup 2 errno 2\n").setup, Some((4_294_967_295, 1)));
    }
}

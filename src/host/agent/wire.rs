//! The stream to the agent: frames out in turn, frames in to whom they are for.
//!
//! In: questions and streams by channel. Out: their answers. What arrives is checked against what was asked for: an answer
//! longer than wanted, a stream beyond its credit or a frame beyond its size ends the connection, and with it every channel.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::AbortHandle;

use super::LastWords;
use super::frame::{HEADER, Head, MAX_FRAME, WINDOW, kind, u32_at};
use super::stream::{Channel, Credit, Sink, Source, Streams};
use crate::fault::{Fault, Phase};
use crate::host::{Reader, Writer};

/// How often the agent is asked whether it is there.
const PULSE: Duration = Duration::from_secs(20);
/// How long it may be silent.
const PATIENCE: Duration = Duration::from_secs(120);
/// Frames of trees that may wait to be written, so that cells get their turn.
const BULK: usize = 8;

/// The connection; see the module.
pub(super) struct Wire {
    name: String,
    last_words: LastWords,
    channels: Mutex<HashMap<u32, Entry>>,
    next: AtomicU32,
    out: mpsc::UnboundedSender<(Vec<u8>, Option<OwnedSemaphorePermit>)>,
    bulk: Arc<Semaphore>,
    broken: OnceLock<Fault>,
    tasks: Mutex<Vec<AbortHandle>>,
}

/// Who waits for what on a channel.
enum Entry {
    Question { answer: Vec<u8>, most: usize, done: oneshot::Sender<io::Result<Vec<u8>>> },
    Stream(Stream),
}

struct Stream {
    queues: [Option<mpsc::UnboundedSender<Bytes>>; 3],
    /// What the far side may still send.
    granted: [usize; 3],
    credit: Arc<Credit>,
    opened: Option<oneshot::Sender<io::Result<()>>>,
}

impl Wire {
    pub(super) fn start(name: &str, reader: Reader, writer: Writer, last_words: LastWords) -> Arc<Self> {
        let (out, frames) = mpsc::unbounded_channel();
        let wire = Arc::new(Self {
            name: name.to_owned(),
            last_words,
            channels: Mutex::default(),
            next: AtomicU32::new(1),
            out,
            bulk: Arc::new(Semaphore::new(BULK)),
            broken: OnceLock::new(),
            tasks: Mutex::default(),
        });
        let tasks = [
            tokio::spawn(wire.clone().read(reader)).abort_handle(),
            tokio::spawn(wire.clone().write(writer, frames)).abort_handle(),
            tokio::spawn(wire.clone().pulse()).abort_handle(),
        ];
        wire.tasks.lock().unwrap_or_else(PoisonError::into_inner).extend(tasks);
        wire
    }

    /// Ends the stream: both ends are dropped with the tasks that hold them.
    pub(super) fn end(&self) {
        self.break_with("it was ended");
        for task in self.tasks.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            task.abort();
        }
    }

    /// Why nothing works any more.
    pub(super) fn broken(&self) -> Option<Fault> {
        self.broken.get().cloned()
    }

    pub(super) fn error(&self) -> io::Error {
        let why = self.broken().map_or_else(|| "no answer".to_owned(), |fault| fault.cause);
        io::Error::new(io::ErrorKind::ConnectionAborted, why)
    }

    fn break_with(&self, why: &str) {
        let said = (self.last_words)().map(|said| format!(": {said}")).unwrap_or_default();
        let fault =
            Fault::new(Phase::Host, format!("the connection to {} is lost: {why}{said}", self.name)).transient();
        if self.broken.set(fault).is_ok() {
            // Questions and streams end when their senders are dropped.
            let entries = std::mem::take(&mut *self.channels());
            drop(entries);
        }
    }

    fn channels(&self) -> MutexGuard<'_, HashMap<u32, Entry>> {
        self.channels.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn send(&self, channel: u32, what: u8, payload: &[u8]) {
        // Nobody listens once the writer is gone, which everybody learns by other ways.
        let _ = self.out.send((frame(channel, what, payload), None));
    }

    /// Sends a part of something large, when it is its turn.
    pub(super) async fn send_bulk(&self, channel: u32, what: u8, payload: &[u8]) -> io::Result<()> {
        let permit = self.bulk.clone().acquire_owned().await.map_err(io::Error::other)?;
        self.out.send((frame(channel, what, payload), Some(permit))).map_err(|_| self.error())
    }

    fn register(&self, entry: Entry) -> io::Result<u32> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let mut channels = self.channels();
        if self.broken.get().is_some() {
            return Err(self.error());
        }
        channels.insert(id, entry);
        Ok(id)
    }

    pub(super) fn forget(&self, id: u32) {
        let entry = self.channels().remove(&id);
        drop(entry);
    }

    /// A question that has begun; its answer comes when the agent says `END`.
    pub(super) fn question(self: &Arc<Self>, most: usize) -> io::Result<Question> {
        let (done, answer) = oneshot::channel();
        let id = self.register(Entry::Question { answer: vec![], most, done })?;
        Ok(Question { id, wire: self.clone(), answer })
    }

    /// Asks, and waits for the answer.
    pub(super) async fn ask(self: &Arc<Self>, what: u8, payload: &[u8], most: usize) -> io::Result<Vec<u8>> {
        if payload.len() > MAX_FRAME {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let question = self.question(most)?;
        self.send(question.id, what, payload);
        question.answer().await
    }

    /// Opens a stream. Where the connection is broken, it reads as ended.
    pub(super) fn open(self: &Arc<Self>, what: u8, payload: &[u8]) -> Streams {
        let queues = [(); 3].map(|()| mpsc::unbounded_channel());
        let (opened, opening) = oneshot::channel();
        let credit = Arc::new(Credit::new());
        let senders = [&queues[0].0, &queues[1].0, &queues[2].0].map(|sender| Some(sender.clone()));
        let stream = Stream { queues: senders, granted: [WINDOW; 3], credit: credit.clone(), opened: Some(opened) };
        let id = self.register(Entry::Stream(stream)).unwrap_or(0);
        let channel = Arc::new(Channel { id, wire: self.clone() });
        self.send(id, what, payload);
        let mut which = kind::TOLD;
        let readers = queues.map(|(_, queue)| {
            let source = Source { channel: channel.clone(), what: which, queue, current: Bytes::new(), read: 0 };
            which += 1;
            Box::new(source) as Reader
        });
        let writer = Sink { channel: channel.clone(), credit, closed: false };
        Streams { readers, writer, channel, opened: opening }
    }

    /// So much more may be sent to us.
    pub(super) fn credit(&self, id: u32, what: u8, more: usize) {
        if let Some(Entry::Stream(stream)) = self.channels().get_mut(&id) {
            stream.granted[usize::from(what - kind::TOLD)] += more;
        }
        let more = u32::try_from(more).unwrap_or(u32::MAX);
        self.send(id, kind::CREDIT, &[&[what][..], &more.to_le_bytes()].concat());
    }

    async fn write(
        self: Arc<Self>,
        mut writer: Writer,
        mut frames: mpsc::UnboundedReceiver<(Vec<u8>, Option<OwnedSemaphorePermit>)>,
    ) {
        while let Some((bytes, permit)) = frames.recv().await {
            let mut written = writer.write_all(&bytes).await;
            drop(permit);
            if written.is_ok() && frames.is_empty() {
                written = writer.flush().await;
            }
            if let Err(error) = written {
                return self.break_with(&error.to_string());
            }
        }
    }

    async fn pulse(self: Arc<Self>) {
        loop {
            tokio::time::sleep(PULSE).await;
            self.send(0, kind::PING, &[]);
        }
    }

    async fn read(self: Arc<Self>, mut reader: Reader) {
        let why = loop {
            let frame = tokio::time::timeout(PATIENCE, next(&mut reader)).await;
            let (head, payload) = match frame {
                Ok(Ok(frame)) => frame,
                Ok(Err(error)) => break error.to_string(),
                Err(_) => break format!("no sign of life in {} s", PATIENCE.as_secs()),
            };
            if let Err(why) = self.arrived(head, payload) {
                break why.to_owned();
            }
        };
        self.break_with(&why);
    }

    /// One frame of the agent's, or why it makes no sense.
    fn arrived(&self, head: Head, payload: Vec<u8>) -> Result<(), &'static str> {
        let id = head.channel;
        if id >= self.next.load(Ordering::Relaxed) {
            return Err("the agent answers what nobody asked");
        }
        let mut channels = self.channels();
        let Some(entry) = channels.get_mut(&id) else {
            // For somebody who gave up waiting, or the answer to a pulse.
            return Ok(());
        };
        match (entry, head.kind) {
            (Entry::Question { answer, most, .. }, kind::REPLY) => {
                if answer.len() + payload.len() > *most {
                    return Err("the agent answers more than it was asked for");
                }
                answer.extend_from_slice(&payload);
            }
            (Entry::Question { .. }, kind::END) => {
                if let Some(Entry::Question { answer, done, .. }) = channels.remove(&id) {
                    let errno = u32_at(&payload, 0).ok_or("an end without an errno")? as i32;
                    // What was said before something failed belongs to the failure: the path of a tree.
                    let result = match errno {
                        0 => Ok(answer),
                        errno => Err(failure(errno, &answer)),
                    };
                    let _ = done.send(result);
                }
            }
            (Entry::Stream(stream), what) => stream.arrived(what, payload)?,
            (Entry::Question { .. }, _) => return Err("the agent answers a question with something else"),
        }
        Ok(())
    }
}

/// An errno, with the path it is about where there is one.
fn failure(errno: i32, path: &[u8]) -> io::Error {
    let error = io::Error::from_raw_os_error(errno);
    match String::from_utf8_lossy(path).into_owned() {
        path if path.is_empty() => error,
        path => io::Error::new(error.kind(), format!("{path}: {error}")),
    }
}

impl Stream {
    fn arrived(&mut self, what: u8, payload: Vec<u8>) -> Result<(), &'static str> {
        match what {
            kind::TOLD..=kind::ERR => {
                let which = usize::from(what - kind::TOLD);
                if payload.is_empty() {
                    self.queues[which] = None;
                    return Ok(());
                }
                let granted = self.granted[which].checked_sub(payload.len());
                self.granted[which] = granted.ok_or("the agent sends more than it has credit for")?;
                if let Some(queue) = &self.queues[which] {
                    let _ = queue.send(payload.into());
                }
            }
            kind::CREDIT => self.credit.add(u32_at(&payload, 1).ok_or("a credit without a number")? as usize),
            kind::REPLY => {
                if let Some(opened) = self.opened.take() {
                    let _ = opened.send(Ok(()));
                }
            }
            // It never opened.
            kind::END => {
                let errno = u32_at(&payload, 0).ok_or("an end without an errno")? as i32;
                if let Some(opened) = self.opened.take() {
                    let _ = opened.send(Err(io::Error::from_raw_os_error(errno)));
                }
                if let Some(told) = &self.queues[0] {
                    // In the launcher's own words.
                    let _ = told.send(format!("setup {} errno {errno}\n", u32::MAX).into());
                }
                self.queues = [None, None, None];
            }
            _ => return Err("the agent says on a stream what does not belong there"),
        }
        Ok(())
    }
}

/// A question under way.
pub(super) struct Question {
    pub(super) id: u32,
    wire: Arc<Wire>,
    answer: oneshot::Receiver<io::Result<Vec<u8>>>,
}

impl Question {
    pub(super) async fn answer(mut self) -> io::Result<Vec<u8>> {
        match (&mut self.answer).await {
            Ok(result) => result,
            Err(_) => Err(self.wire.error()),
        }
    }
}

impl Drop for Question {
    fn drop(&mut self) {
        self.wire.forget(self.id);
    }
}

fn frame(channel: u32, kind: u8, payload: &[u8]) -> Vec<u8> {
    [&Head { channel, kind, length: payload.len() }.bytes()[..], payload].concat()
}

async fn next(reader: &mut Reader) -> io::Result<(Head, Vec<u8>)> {
    let mut head = [0; HEADER];
    reader.read_exact(&mut head).await.map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => io::Error::other("the stream ended"),
        _ => error,
    })?;
    let head = Head::read(&head).filter(|head| head.length <= MAX_FRAME);
    let head = head.ok_or_else(|| io::Error::other("what arrives is not what an agent says"))?;
    let mut payload = vec![0; head.length];
    reader.read_exact(&mut payload).await?;
    Ok((head, payload))
}

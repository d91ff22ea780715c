//! One channel of the wire as ordinary streams.
//!
//! In: what arrives for the channel. Out: readers that give credit as they are read, a writer that waits for it. Nothing is
//! kept beyond the window, however slow a reader is; when the last part of a channel is dropped, the agent forgets it.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{mpsc, oneshot};

use super::frame::{MAX_FRAME, WINDOW, kind};
use super::wire::Wire;
use crate::host::Reader;

/// A channel as its users see it.
pub(super) struct Streams {
    /// Of `TOLD`, `OUT`, `ERR`.
    pub(super) readers: [Reader; 3],
    pub(super) writer: Sink,
    pub(super) channel: Arc<Channel>,
    /// Whether a socket could be connected to.
    pub(super) opened: oneshot::Receiver<io::Result<()>>,
}

/// The channel's number, given back when nobody holds it any more.
pub(super) struct Channel {
    pub(super) id: u32,
    pub(super) wire: Arc<Wire>,
}

impl Channel {
    pub(super) fn send(&self, what: u8, payload: &[u8]) {
        self.wire.send(self.id, what, payload);
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        self.wire.forget(self.id);
        self.send(kind::DROP, &[]);
    }
}

/// What the far side says on one stream.
pub(super) struct Source {
    pub(super) channel: Arc<Channel>,
    pub(super) what: u8,
    pub(super) queue: mpsc::UnboundedReceiver<Bytes>,
    pub(super) current: Bytes,
    /// Read, and no credit given for it yet.
    pub(super) read: usize,
}

impl AsyncRead for Source {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, room: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        while self.current.is_empty() {
            match ready!(self.queue.poll_recv(cx)) {
                Some(bytes) => self.current = bytes,
                None => return Poll::Ready(Ok(())),
            }
        }
        let n = self.current.len().min(room.remaining());
        room.put_slice(&self.current[..n]);
        self.current.advance(n);
        self.read += n;
        if self.read >= WINDOW / 4 {
            let more = std::mem::take(&mut self.read);
            self.channel.wire.credit(self.channel.id, self.what, more);
        }
        Poll::Ready(Ok(()))
    }
}

/// How much may be written, and who waits for more.
pub(super) struct Credit(Mutex<(usize, Option<Waker>)>);

impl Credit {
    pub(super) fn new() -> Self {
        Self(Mutex::new((WINDOW, None)))
    }

    /// The far side took so much; more than the window is never owed.
    pub(super) fn add(&self, more: usize) {
        let mut credit = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        credit.0 = credit.0.saturating_add(more).min(WINDOW);
        if let Some(waker) = credit.1.take() {
            waker.wake();
        }
    }
}

/// Where bytes for the far side go; dropping it says that there are no more.
pub(super) struct Sink {
    pub(super) channel: Arc<Channel>,
    pub(super) credit: Arc<Credit>,
    pub(super) closed: bool,
}

impl Sink {
    fn close(&mut self) {
        if !self.closed {
            self.closed = true;
            self.channel.send(kind::CLOSE, &[]);
        }
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.close();
    }
}

impl AsyncWrite for Sink {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.closed || self.channel.wire.broken().is_some() {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let mut credit = self.credit.0.lock().unwrap_or_else(PoisonError::into_inner);
        let n = credit.0.min(bytes.len()).min(MAX_FRAME);
        if n == 0 && !bytes.is_empty() {
            credit.1 = Some(cx.waker().clone());
            return Poll::Pending;
        }
        credit.0 -= n;
        drop(credit);
        self.channel.send(kind::DATA, &bytes[..n]);
        Poll::Ready(Ok(n))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.close();
        Poll::Ready(Ok(()))
    }
}

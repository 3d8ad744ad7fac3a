//! One connection of HTTP/1.1.
//!
//! Owns [`Connection`]: hyper's state machine of one connection, run by whoever uses the connection and by nobody else. Separate
//! from the pool, which decides who that is. There is no task behind it: a request needs no switch to another task, and dropping
//! a request closes its connection there and then. While nobody uses it nobody reads from it, so whether it was closed meanwhile
//! is seen by [`Connection::is_usable`].
//!
//! Bounded by [`limits`]: the head of an answer, and how far reading runs ahead. On failure: hyper's error, and whether the request
//! was surely not sent.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;

use crate::dial::Connected;
use crate::limits;

/// A body in pieces, none of them copied. How long it is, is known.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pieces {
    pieces: VecDeque<Bytes>,
    bytes: u64,
}

impl Pieces {
    pub fn new(pieces: Vec<Bytes>) -> Pieces {
        let bytes = pieces.iter().map(|piece| piece.len() as u64).sum();
        // An empty piece would end the body early.
        Pieces { pieces: pieces.into_iter().filter(|piece| !piece.is_empty()).collect(), bytes }
    }
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let piece = self.pieces.pop_front();
        if let Some(piece) = &piece {
            self.bytes -= piece.len() as u64;
        }
        Poll::Ready(piece.map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.pieces.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.bytes)
    }
}

/// Why there is no answer.
pub(crate) struct Unanswered {
    pub error: hyper::Error,
    /// Whether the request surely was not sent.
    pub is_unsent: bool,
    /// Whether something of an answer came, though not a whole head.
    pub has_begun: bool,
}

pub(crate) struct Connection {
    sender: SendRequest<Pieces>,
    /// None once the connection has ended.
    driver: Option<http1::Connection<TokioIo<Connected>, Pieces>>,
    /// How many bytes came on it.
    read: Arc<AtomicU64>,
}

impl Connection {
    pub async fn new(connected: Connected) -> Result<Connection, hyper::Error> {
        let mut builder = http1::Builder::new();
        builder.max_buf_size(limits::READ_AHEAD_BYTES_MAX).max_headers(limits::ANSWER_HEADERS_MAX);
        let read = connected.read.clone();
        let (sender, driver) = builder.handshake(TokioIo::new(connected)).await?;
        Ok(Connection { sender, driver: Some(driver), read })
    }

    fn drive(&mut self, cx: &mut Context<'_>) {
        if let Some(driver) = &mut self.driver
            && Pin::new(driver).poll(cx).is_ready()
        {
            // Its error, if it had one, comes to the sender or the body as well.
            self.driver = None;
        }
    }

    /// Whether another request can be sent: it is open, and the answer before was read to its end.
    pub fn is_usable(&mut self) -> bool {
        let cx = &mut Context::from_waker(Waker::noop());
        self.drive(cx);
        self.driver.is_some() && matches!(self.sender.poll_ready(cx), Poll::Ready(Ok(())))
    }

    /// Send a request and wait for the head of its answer.
    pub async fn send(&mut self, request: Request<Pieces>) -> Result<Response<Incoming>, Unanswered> {
        // One that is new has to be looked at once before it takes a request.
        let ready = poll_fn(|cx| {
            self.drive(cx);
            self.sender.poll_ready(cx)
        });
        ready.await.map_err(|error| Unanswered { error, is_unsent: true, has_begun: false })?;
        let before = self.read.load(Relaxed);
        let mut answer = pin!(self.sender.try_send_request(request));
        let driver = &mut self.driver;
        poll_fn(|cx| {
            if let Some(running) = driver
                && Pin::new(running).poll(cx).is_ready()
            {
                *driver = None;
            }
            answer.as_mut().poll(cx)
        })
        .await
        .map_err(|mut failed| {
            let is_unsent = failed.take_message().is_some();
            let has_begun = self.read.load(Relaxed) != before;
            Unanswered { error: failed.into_error(), is_unsent, has_begun }
        })
    }

    /// The next piece of an answer's body; none at its end.
    pub async fn data(&mut self, body: &mut Incoming) -> Option<Result<Bytes, hyper::Error>> {
        loop {
            let frame = poll_fn(|cx| {
                // What is there already is taken first. Nobody has to be woken for what driving brings: it is looked for at once.
                let mut quiet = Context::from_waker(Waker::noop());
                if let Poll::Ready(frame) = Pin::new(&mut *body).poll_frame(&mut quiet) {
                    return Poll::Ready(frame);
                }
                self.drive(cx);
                Pin::new(&mut *body).poll_frame(cx)
            });
            match frame.await?.map(Frame::into_data) {
                Ok(Ok(data)) => return Some(Ok(data)),
                // Trailers say nothing in this protocol.
                Ok(Err(_)) => {}
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

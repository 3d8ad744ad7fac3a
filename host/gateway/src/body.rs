//! Bodies: what goes out, and reading what comes in within bounds.
//!
//! [`AnswerBody`] is the one type of outgoing body, so that no answer needs a chain of boxes. [`InboundBody`] reads a
//! client's body with a limit, the longest silence and a slowest rate: a client that sends a byte a minute is given up.
//! Neither holds more than one frame.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::Stream;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use mainstay_base::Error;
use tokio::time::Instant;

use crate::connection::ActiveRequest;
use crate::options::GatewayLimits;
use crate::problem::{self, Problem};

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type ByteStream = Pin<Box<dyn Stream<Item = Result<Bytes, Error>> + Send>>;

enum Payload {
    Full(Option<Bytes>),
    Stream { stream: ByteStream, held: Option<Bytes>, remaining_bytes: u64 },
    Axum(axum::body::Body),
}

/// A body of an answer. Holds the request's place until it was sent or given up.
pub(crate) struct AnswerBody {
    payload: Payload,
    _active: Option<ActiveRequest>,
}

impl AnswerBody {
    pub(crate) fn empty() -> AnswerBody {
        AnswerBody { payload: Payload::Full(None), _active: None }
    }

    pub(crate) fn full(bytes: Bytes) -> AnswerBody {
        AnswerBody { payload: Payload::Full(Some(bytes).filter(|bytes| !bytes.is_empty())), _active: None }
    }

    /// A stream that must give exactly `length_bytes`; with fewer, the client sees a connection cut and not a short body.
    pub(crate) fn stream(
        stream: impl Stream<Item = Result<Bytes, Error>> + Send + 'static,
        length_bytes: u64,
    ) -> AnswerBody {
        let payload = match length_bytes {
            0 => Payload::Full(None),
            remaining_bytes => Payload::Stream { stream: Box::pin(stream), held: None, remaining_bytes },
        };
        AnswerBody { payload, _active: None }
    }

    pub(crate) fn axum(body: axum::body::Body) -> AnswerBody {
        AnswerBody { payload: Payload::Axum(body), _active: None }
    }

    pub(crate) fn holding(mut self, active: ActiveRequest) -> AnswerBody {
        self._active = Some(active);
        self
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &mut self.get_mut().payload {
            Payload::Full(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Payload::Stream { stream, held, remaining_bytes } => poll_stream(stream, held, remaining_bytes, cx),
            Payload::Axum(body) => Pin::new(body).poll_frame(cx).map_err(Into::into),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.payload {
            Payload::Full(bytes) => bytes.is_none(),
            Payload::Stream { remaining_bytes, .. } => *remaining_bytes == 0,
            Payload::Axum(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.payload {
            Payload::Full(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Payload::Stream { remaining_bytes, .. } => SizeHint::with_exact(*remaining_bytes),
            Payload::Axum(body) => body.size_hint(),
        }
    }
}

/// The next piece of a stream. One piece is always held back: the stream's verdict on its digest comes after its last
/// byte, and a client that has all bytes would never hear of it.
fn poll_stream(
    stream: &mut ByteStream,
    held: &mut Option<Bytes>,
    remaining_bytes: &mut u64,
    cx: &mut Context<'_>,
) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
    loop {
        let next = match stream.as_mut().poll_next(cx) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(next) => next,
        };
        let piece = match next {
            None => held.take(),
            Some(Ok(bytes)) => match held.replace(bytes) {
                None => continue,
                piece => piece,
            },
            // Whoever made the stream has told the log.
            Some(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
        };
        let length = piece.as_ref().map_or(0, |piece| piece.len() as u64);
        *remaining_bytes = remaining_bytes.saturating_sub(length);
        return match piece {
            Some(piece) => Poll::Ready(Some(Ok(Frame::data(piece)))),
            None if *remaining_bytes == 0 => Poll::Ready(None),
            None => Poll::Ready(Some(Err("the stored bytes ended early".into()))),
        };
    }
}

/// Why a client's body could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BodyFault {
    TooLarge { limit_bytes: u64 },
    Slow,
    Broken,
}

impl BodyFault {
    pub(crate) fn problem(self) -> Problem {
        match self {
            BodyFault::TooLarge { limit_bytes } => Problem::new(
                &problem::TOO_LARGE,
                format!("the body is larger than {limit_bytes} bytes; send less at a time"),
            ),
            BodyFault::Slow => {
                Problem::new(&problem::SLOW_BODY, "the body stopped or arrived too slowly; send it again")
            }
            BodyFault::Broken => {
                Problem::new(&problem::BODY_DIFFERS, "the body ended before its announced length; send it again")
            }
        }
    }
}

/// A client's body, read within bounds.
pub(crate) struct InboundBody {
    body: Incoming,
    limit_bytes: u64,
    read_bytes: u64,
    idle_timeout: Duration,
    bytes_per_second_min: u64,
    began: Instant,
    state: InboundState,
}

/// Whether there is more to read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum InboundState {
    Open,
    Ended,
    /// Stopped or broken: waiting for more of it is useless.
    GivenUp,
}

impl InboundBody {
    pub(crate) fn new(body: Incoming, limit_bytes: u64, limits: &GatewayLimits) -> InboundBody {
        InboundBody {
            limit_bytes,
            read_bytes: 0,
            idle_timeout: limits.body_idle_timeout,
            bytes_per_second_min: limits.body_bytes_per_second_min,
            began: Instant::now(),
            state: if body.is_end_stream() { InboundState::Ended } else { InboundState::Open },
            body,
        }
    }

    /// Read no more than this from here on.
    pub(crate) fn limit(&mut self, more_bytes: u64) {
        self.limit_bytes = self.read_bytes.saturating_add(more_bytes);
    }

    /// The announced length of what is left, if it was announced.
    pub(crate) fn announced_bytes(&self) -> Option<u64> {
        self.body.size_hint().exact()
    }

    /// The next bytes, or none at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, BodyFault> {
        let next = self.next_frame().await;
        match next {
            Ok(None) => self.state = InboundState::Ended,
            Err(BodyFault::Slow | BodyFault::Broken) => self.state = InboundState::GivenUp,
            _ => {}
        }
        next
    }

    async fn next_frame(&mut self) -> Result<Option<Bytes>, BodyFault> {
        loop {
            let Ok(frame) = tokio::time::timeout(self.idle_timeout, self.body.frame()).await else {
                return Err(BodyFault::Slow);
            };
            let data = match frame {
                None => return Ok(None),
                Some(Err(_)) => return Err(BodyFault::Broken),
                Some(Ok(frame)) => frame.into_data().unwrap_or_default(),
            };
            self.read_bytes += data.len() as u64;
            if self.read_bytes > self.limit_bytes {
                return Err(BodyFault::TooLarge { limit_bytes: self.limit_bytes });
            }
            let elapsed = self.began.elapsed();
            if elapsed > self.idle_timeout && self.read_bytes / elapsed.as_secs().max(1) < self.bytes_per_second_min {
                return Err(BodyFault::Slow);
            }
            if !data.is_empty() {
                return Ok(Some(data));
            }
        }
    }

    /// All of it, in one piece. A body of one frame is not copied.
    pub(crate) async fn collect(&mut self, within: Duration) -> Result<Bytes, BodyFault> {
        let collected = tokio::time::timeout(within, self.collect_all()).await;
        collected.unwrap_or_else(|_| {
            self.state = InboundState::GivenUp;
            Err(BodyFault::Slow)
        })
    }

    async fn collect_all(&mut self) -> Result<Bytes, BodyFault> {
        let Some(first) = self.next().await? else { return Ok(Bytes::new()) };
        if self.body.is_end_stream() {
            return Ok(first);
        }
        let expected = (self.body.size_hint().exact().unwrap_or(0) as usize).saturating_add(first.len());
        let mut all = BytesMut::with_capacity(expected.min(self.limit_bytes as usize));
        all.extend_from_slice(&first);
        while let Some(more) = self.next().await? {
            all.extend_from_slice(&more);
        }
        Ok(all.freeze())
    }

    /// Read and drop what is left, within a bound: a client that is still sending would see a reset, not the answer.
    /// Says whether all of it was read.
    pub(crate) async fn discard(&mut self, limits: &GatewayLimits) -> bool {
        // What is announced as longer is not begun.
        if self.state == InboundState::GivenUp || self.body.size_hint().lower() > limits.discard_bytes_max {
            return false;
        }
        self.limit(limits.discard_bytes_max);
        let all = async { while let Ok(Some(_)) = self.next().await {} };
        let _ = tokio::time::timeout(limits.discard_timeout, all).await;
        self.is_end()
    }

    pub(crate) fn is_end(&self) -> bool {
        self.state == InboundState::Ended || self.body.is_end_stream()
    }
}

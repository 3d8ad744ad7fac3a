//! Answers in parts.
//!
//! Owns [`ServedStream`]. Separate from whole answers, because a stream holds its slot and its permit until it ends, and nobody
//! can stand in once the caller has seen a part. Until the first part, it is tried again and stood in for as any request.
//!
//! Bounded by the request's deadline. On failure: the stream ends with a [`Refused`]; one that is dropped drops the backend's,
//! gives slot and permit back, and is counted as cancelled.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::FutureExt;
use futures::stream::{Stream, StreamExt};
use mainstay_inference::{InferAnswer, InferRequest};
use tokio::time::{Instant, Sleep, sleep, sleep_until, timeout_at};

use crate::attempt::failed;
use crate::backend::{AnswerStream, Failure};
use crate::breaker::{Outcome, Permit};
use crate::bulkhead::Slot;
use crate::caller::Caller;
use crate::passage::{Passage, Stop};
use crate::served::{Labels, Refused, Why};
use crate::traffic::Traffic;
use crate::variant::Variant;

/// An answer in parts, and where it comes from.
pub struct ServedStream {
    /// Where it comes from.
    pub labels: Labels,
    /// The parts; the first is there already.
    pub parts: Pin<Box<dyn Stream<Item = Result<Arc<InferAnswer>, Refused>> + Send>>,
}

/// What streams out of a backend, with everything that must last as long.
struct Parts {
    first: Option<Arc<InferAnswer>>,
    rest: AnswerStream,
    until: Pin<Box<Sleep>>,
    began: Instant,
    variant: Arc<Variant>,
    permit: Option<Permit>,
    passage: Passage,
    slot: Option<Slot>,
    last: Option<Arc<InferAnswer>>,
    is_over: bool,
}

/// A stream whose first part has come.
struct Begun {
    first: Option<Arc<InferAnswer>>,
    rest: AnswerStream,
    permit: Permit,
    began: Instant,
}

impl Traffic {
    /// Ask an endpoint for an answer in parts.
    pub async fn infer_stream(
        &self,
        endpoint: &str,
        caller: Caller<'_>,
        request: InferRequest,
    ) -> Result<ServedStream, Refused> {
        let mut passage = self.begin(endpoint, &caller, request)?;
        let begun = async {
            let slot = passage.let_in(&caller).await?;
            let variant = passage.chosen()?;
            let begun = passage.begin_stream(&variant, &caller).await?;
            Ok((slot, variant, begun))
        };
        let stop = match begun.await {
            Ok((slot, variant, begun)) => return Ok(passage.into_stream(slot, variant, begun)),
            Err(stop) if !caller.may_fall_back => return Err(passage.refused(stop)),
            Err(stop) => stop,
        };
        match passage.stand_in(&stop).await {
            None => Err(passage.refused(stop)),
            Some((answer, fallback)) => {
                passage.answered(&answer, Some(fallback));
                let labels = std::mem::take(&mut passage.labels);
                Ok(ServedStream { labels, parts: futures::stream::iter([Ok(answer)]).boxed() })
            }
        }
    }
}

impl Passage {
    async fn begin_stream(&mut self, variant: &Arc<Variant>, caller: &Caller<'_>) -> Result<Begun, Stop> {
        let end = self.attempts_end();
        loop {
            let stop = match self.try_stream(variant, caller, end).await {
                Ok(begun) => return Ok(begun),
                Err(stop) => stop,
            };
            match self.may_retry(&stop, variant, end) {
                Some(delay) => sleep(delay).await,
                None => return Err(stop),
            }
            self.labels.retries += 1;
        }
    }

    /// Ask for the stream and wait for its first part.
    async fn try_stream(&mut self, variant: &Arc<Variant>, caller: &Caller<'_>, end: Instant) -> Result<Begun, Stop> {
        let live = self.live(variant)?;
        let permit = self.permit(variant, self.labels.retries > 0)?;
        let (began, end) = (Instant::now(), self.attempt_end(end));
        // The stream itself may go on until the request's own deadline.
        let ask = self.ask(self.deadline, self.labels.retries);
        let asked = timeout_at(end, async {
            self.inject(variant, Some(caller)).await?;
            let mut rest = live.backend.stream(&self.request, &ask).await?;
            let first = rest.next().await.transpose()?;
            Ok::<_, Failure>((first, rest))
        });
        let asked = asked.await;
        self.answered_by(&live.identity);
        let (outcome, stop) = match asked {
            Err(_) => self.timed_out::<()>(variant, began.elapsed()),
            Ok(Err(failure)) => failed(failure),
            // Not to be asked again after its end.
            Ok(Ok((None, _))) => {
                return Ok(Begun { first: None, rest: futures::stream::empty().boxed(), permit, began });
            }
            Ok(Ok((Some(first), rest))) => match self.judged(variant, first, began.elapsed()) {
                (_, Ok(first)) => {
                    self.first_part_us = Some(self.elapsed_us());
                    return Ok(Begun { first: Some(Arc::new(first)), rest, permit, began });
                }
                (outcome, Err(stop)) => (outcome, Err(stop)),
            },
        };
        self.settle(variant, permit, outcome);
        match stop {
            Err(stop) => Err(stop),
            Ok(()) => Err(Stop::new(Why::Failed, "the stream ended before it began")),
        }
    }

    fn into_stream(self, slot: Slot, variant: Arc<Variant>, begun: Begun) -> ServedStream {
        let labels = self.labels.clone();
        let parts = Parts {
            first: begun.first,
            rest: begun.rest,
            until: Box::pin(sleep_until(self.deadline)),
            began: begun.began,
            variant,
            permit: Some(begun.permit),
            passage: self,
            slot: Some(slot),
            last: None,
            is_over: false,
        };
        ServedStream { labels, parts: Box::pin(parts) }
    }
}

impl Stream for Parts {
    type Item = Result<Arc<InferAnswer>, Refused>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.is_over {
            return Poll::Ready(None);
        }
        if let Some(first) = self.first.take() {
            self.last = Some(first.clone());
            return Poll::Ready(Some(Ok(first)));
        }
        match self.rest.poll_next_unpin(context) {
            Poll::Ready(None) => {
                self.finish(Outcome::Good, None);
                Poll::Ready(None)
            }
            Poll::Ready(Some(part)) => Poll::Ready(Some(self.part(part))),
            Poll::Pending => match self.until.poll_unpin(context) {
                Poll::Pending => Poll::Pending,
                Poll::Ready(()) => {
                    let took = self.began.elapsed();
                    let (outcome, stop) = self.passage.timed_out::<()>(&self.variant, took);
                    let refused = self.finish(outcome, stop.err());
                    Poll::Ready(refused.map(Err))
                }
            },
        }
    }
}

impl Parts {
    fn part(&mut self, part: Result<InferAnswer, Failure>) -> Result<Arc<InferAnswer>, Refused> {
        let (outcome, judged) = match part {
            Err(failure) => failed(failure),
            // How long the whole takes says nothing about a part.
            Ok(part) => self.passage.judged(&self.variant, part, Duration::ZERO),
        };
        match judged {
            Ok(part) => {
                let part = Arc::new(part);
                self.last = Some(part.clone());
                Ok(part)
            }
            Err(stop) => Err(self
                .finish(outcome, Some(stop.clone()))
                .unwrap_or_else(|| Refused::new(stop.why, stop.error, self.passage.labels.clone()))),
        }
    }

    /// The end, once; with why, if it is a bad one. Gives back what it holds, however long its holder keeps it.
    fn finish(&mut self, outcome: Outcome, stop: Option<Stop>) -> Option<Refused> {
        self.is_over = true;
        self.rest = futures::stream::empty().boxed();
        self.slot = None;
        if let Some(permit) = self.permit.take() {
            self.passage.settle(&self.variant, permit, outcome);
        }
        match stop {
            Some(stop) => Some(self.passage.refused(stop)),
            None => {
                let last = self.last.take();
                self.passage.end(None, last.as_ref());
                None
            }
        }
    }
}

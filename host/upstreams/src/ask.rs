//! What travels with a request, in words that both protocols use.
//!
//! Owns the time that is left, the trace and the tenant as header values, and the wait until a deadline. Separate, so that both
//! protocols pass on and enforce the same. Bounded by the deadline. On failure: what cannot be a header is not sent.

use std::time::Duration;

use http::HeaderValue;
use mainstay_traffic::Ask;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::counts::FailureKind;
use crate::failure::Stop;
use crate::limits;

pub(crate) struct Sent<'a> {
    ask: &'a Ask,
    pub deadline: Instant,
}

impl Sent<'_> {
    /// What is passed on of this; none when the deadline has passed.
    pub fn new(ask: &Ask) -> Option<Sent<'_>> {
        let deadline = Instant::from_std(ask.deadline);
        (deadline > Instant::now()).then_some(Sent { ask, deadline })
    }

    pub fn trace(&self) -> Option<HeaderValue> {
        self.ask.trace.as_deref().and_then(|trace| HeaderValue::from_str(trace).ok())
    }

    pub fn tenant(&self) -> Option<HeaderValue> {
        self.ask.tenant.as_deref().and_then(|tenant| HeaderValue::from_str(tenant).ok())
    }
}

/// The time that is left now, a millisecond or more: none cannot be said.
pub(crate) fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1))
}

/// Wait for an upstream until the deadline, and a little longer: whoever set the deadline shall see it pass first.
///
/// An upstream that was told the deadline says "not now" just before it. That is no refusal but the deadline, and counts as such.
pub(crate) async fn bounded<T>(
    url: &str,
    deadline: Instant,
    work: impl Future<Output = Result<T, Stop>>,
) -> Result<T, Stop> {
    let end = deadline + Duration::from_millis(limits::DEADLINE_GRACE_MS);
    match timeout_at(end, work).await {
        Err(_) => Err(Stop::late(url)),
        Ok(Err(stop)) if is_of_deadline(&stop, deadline) => {
            sleep_until(end).await;
            Err(Stop::late(url))
        }
        Ok(result) => result,
    }
}

fn is_of_deadline(stop: &Stop, deadline: Instant) -> bool {
    let says_so = matches!(stop.kind, FailureKind::TurnedAway | FailureKind::Failed | FailureKind::Late);
    let is_now = Instant::now() + Duration::from_millis(limits::DEADLINE_MARGIN_MS) >= deadline;
    says_so && is_now && stop.failure.error.kind() == mainstay_base::ErrorKind::Unavailable
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::StatusCode;
    use mainstay_base::Error;

    async fn after<T>(ms: u64, result: T) -> T {
        tokio::time::sleep(Duration::from_millis(ms)).await;
        result
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_is_enforced_a_little_after_it_passed() {
        async fn check(took_ms: u64, result: Result<(), Stop>, expect: Option<FailureKind>, expect_ms: u64) {
            let began = Instant::now();
            let bounded = bounded("u", began + Duration::from_millis(100), after(took_ms, result)).await;
            assert_eq!(bounded.err().map(|stop| stop.kind), expect, "{took_ms}");
            assert_eq!(began.elapsed(), Duration::from_millis(expect_ms), "{took_ms}");
        }
        let not_now = || Err(Stop::of_http("u", StatusCode::SERVICE_UNAVAILABLE, ""));
        check(99, Ok(()), None, 99).await;
        check(110, Ok(()), None, 110).await;
        check(111, Ok(()), Some(FailureKind::Late), 110).await;
        check(94, not_now(), Some(FailureKind::TurnedAway), 94).await;
        check(95, not_now(), Some(FailureKind::Late), 110).await;
        check(95, Err(Stop::sender(Error::invalid(""))), Some(FailureKind::Sender), 95).await;
    }

    #[tokio::test(start_paused = true)]
    async fn the_time_that_is_left_is_passed_on_unless_there_is_none() {
        let ask = |ms: u64| Ask {
            deadline: (Instant::now() + Duration::from_millis(ms)).into_std(),
            trace: Some("00-1".into()),
            tenant: Some("a\nb".into()),
            attempt: 0,
        };
        let in_time = ask(250);
        let sent = Sent::new(&in_time).unwrap();
        assert_eq!(
            (left(sent.deadline).as_millis(), sent.trace().unwrap().as_bytes(), sent.tenant()),
            (250, &b"00-1"[..], None)
        );
        tokio::time::advance(Duration::from_micros(249_500)).await;
        assert_eq!(left(sent.deadline), Duration::from_millis(1));
        assert!(Sent::new(&ask(0)).is_none());
    }
}

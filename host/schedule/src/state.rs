//! A run's life as pure functions.
//!
//! Owns [`step`]: a run, what happened and when → the run as it is then, and what follows for others; and [`wake`], when a
//! run has to be looked at next. No clock, no store, no chance: all three come in as numbers. Separate so that every rule
//! about retries, leases, deadlines and cancellation can be tested as a table, and so that the store's side
//! ([`crate::batch`]) only ever has to turn the difference between two runs into writes.
//!
//! One owner: a claim gives an attempt a fencing token that is larger than all before it, and a lease. Signs of life and
//! results count only with the newest token; an owner that is silent until its lease is over has lost the attempt, which is
//! recorded as [`AttemptEndKind::Lost`]. A success that arrives with a good token counts even when the attempt was asked to
//! stop meanwhile: the work is done.
//!
//! Bounded: a step makes at most one attempt and at most two effects. On failure: what does not fit the state is a
//! `conflict` that says why, and changes nothing.

use mainstay_base::{Error, Result};
use serde_json::{Value, json};

use crate::definition::On;
use crate::limits::{REASON_BYTES_MAX, RESULT_BYTES_MAX};
use crate::run::{Attempt, AttemptEnd, AttemptEndKind, Run, RunEnd, RunState, Stop, StopKind};

/// What an attempt came to.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// It is done.
    Success {
        /// What came out.
        result: Value,
    },
    /// It is not done.
    Failure {
        /// Why.
        reason: String,
        /// Whether trying again may help.
        is_retryable: bool,
    },
    /// What it waits for is not there; the slot is free until the next look.
    NotYet {
        /// What is missing.
        reason: String,
        /// How long to wait, instead of the job's `poll-ms`.
        after_ms: Option<u64>,
    },
}

impl Outcome {
    /// A failure that may pass.
    pub fn failure(reason: impl Into<String>) -> Outcome {
        Outcome::Failure { reason: reason.into(), is_retryable: true }
    }
}

/// What happens to a run.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Event {
    /// Its job has room for it.
    Admit,
    /// Its job was paused before it began.
    Hold,
    /// Somebody takes it.
    Claim { owner: String, lease_ms: u64 },
    /// Its owner is alive.
    Beat { token: u64, lease_ms: u64 },
    /// Its owner is done.
    Finish { token: u64, outcome: Outcome },
    /// Time has passed.
    Tick,
    /// Somebody does not want it any more.
    Cancel { reason: String },
}

/// The present, and a number from 0 to 1 that chance chose.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    pub now_ms: i64,
    pub unit: f64,
}

/// What follows for others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Callbacks are due.
    Became(On),
    /// The owner of the attempt has to be told to stop.
    Stop { token: u64 },
}

/// What happened, applied.
pub(crate) fn step(run: &Run, event: Event, moment: Moment) -> Result<(Run, Vec<Effect>)> {
    let mut next = Step { run: run.clone(), effects: Vec::new(), moment };
    match event {
        Event::Admit => next.admit()?,
        Event::Hold => next.hold()?,
        Event::Claim { owner, lease_ms } => next.claim(owner, lease_ms)?,
        Event::Beat { token, lease_ms } => next.beat(token, lease_ms)?,
        Event::Finish { token, outcome } => next.finish(token, outcome)?,
        Event::Tick => next.tick(),
        Event::Cancel { reason } => next.cancel(&reason)?,
    }
    Ok((next.run, next.effects))
}

/// When a run has to be looked at, if nothing else happens; none: never.
pub(crate) fn wake(run: &Run) -> Option<i64> {
    let first = |times: [Option<i64>; 3]| times.into_iter().flatten().min();
    match &run.state {
        RunState::Scheduled { until_ms } | RunState::Delayed { until_ms } => {
            first([Some(*until_ms), run.deadline_ms, None])
        }
        RunState::Waiting { .. } | RunState::Ready { .. } => first([run.deadline_ms, begin_by(run), None]),
        RunState::Running { lease_ms, stop: Some(_), .. } => Some(*lease_ms),
        RunState::Running { lease_ms, started_ms, stop: None, .. } => {
            first([Some(*lease_ms), run.deadline_ms, attempt_end(run, *started_ms)])
        }
        RunState::Ended { .. } => None,
    }
}

/// Until when it must have begun; nothing once it has.
fn begin_by(run: &Run) -> Option<i64> {
    run.begin_by_ms.filter(|_| run.attempts.is_empty())
}

fn attempt_end(run: &Run, started_ms: i64) -> Option<i64> {
    run.plan.attempt_timeout_ms.map(|timeout| later(started_ms, timeout))
}

/// A moment this long behind another.
pub(crate) fn later(at_ms: i64, by_ms: u64) -> i64 {
    at_ms.saturating_add(by_ms.min(i64::MAX as u64) as i64)
}

struct Step {
    run: Run,
    effects: Vec<Effect>,
    moment: Moment,
}

impl Step {
    fn admit(&mut self) -> Result<()> {
        match self.run.state {
            RunState::Waiting { .. } => {
                self.run.state = RunState::Ready { since_ms: self.moment.now_ms };
                Ok(())
            }
            _ => Err(self.unfit("be admitted")),
        }
    }

    fn hold(&mut self) -> Result<()> {
        match self.run.state {
            RunState::Ready { since_ms } if self.run.attempts.is_empty() => {
                self.run.state = RunState::Waiting { since_ms };
                Ok(())
            }
            _ => Err(self.unfit("be held back")),
        }
    }

    fn claim(&mut self, owner: String, lease_ms: u64) -> Result<()> {
        let RunState::Ready { .. } = self.run.state else { return Err(self.unfit("be taken")) };
        let now_ms = self.moment.now_ms;
        // Of polls only the last is kept: a sensor may look for weeks.
        let is_poll = |attempt: &Attempt| matches!(&attempt.ended, Some(end) if end.kind == AttemptEndKind::NotYet);
        if self.run.attempts.last().is_some_and(is_poll) {
            self.run.attempts.pop();
        }
        self.run.token += 1;
        let token = self.run.token;
        self.run.attempts.push(Attempt { token, owner: owner.clone(), started_ms: now_ms, ended: None });
        let lease_ms = later(now_ms, lease_ms);
        self.run.state = RunState::Running { owner, started_ms: now_ms, lease_ms, stop: None };
        Ok(())
    }

    fn beat(&mut self, token: u64, lease: u64) -> Result<()> {
        self.check_owner(token)?;
        let now_ms = self.moment.now_ms;
        if let RunState::Running { lease_ms, .. } = &mut self.run.state {
            *lease_ms = later(now_ms, lease);
        }
        Ok(())
    }

    fn finish(&mut self, token: u64, outcome: Outcome) -> Result<()> {
        self.check_owner(token)?;
        let RunState::Running { stop, .. } = &self.run.state else { return Err(self.unfit("be finished")) };
        match (outcome, stop.clone()) {
            (Outcome::Success { result }, _) => {
                self.end_attempt(AttemptEndKind::Success, "done");
                self.end(RunEnd::Success, "done", bounded_result(result));
            }
            (Outcome::Failure { reason, .. } | Outcome::NotYet { reason, .. }, Some(stop)) => {
                self.stopped(stop, &reason);
            }
            (Outcome::Failure { reason, is_retryable }, None) => {
                self.end_attempt(AttemptEndKind::Failed, &reason);
                self.failed(&reason, is_retryable);
            }
            (Outcome::NotYet { reason, after_ms }, None) => {
                self.end_attempt(AttemptEndKind::NotYet, &reason);
                self.run.polls += 1;
                let wait_ms = after_ms.unwrap_or(self.run.plan.poll_ms).max(1);
                self.run.state = RunState::Delayed { until_ms: later(self.moment.now_ms, wait_ms) };
            }
        }
        Ok(())
    }

    fn tick(&mut self) {
        let now_ms = self.moment.now_ms;
        let is_over = self.run.deadline_ms.is_some_and(|deadline| deadline <= now_ms);
        match &self.run.state {
            RunState::Ended { .. } => {}
            RunState::Running { lease_ms, stop, .. } if *lease_ms <= now_ms => {
                let (stop, lease_ms) = (stop.clone(), *lease_ms);
                self.lost(stop, lease_ms);
            }
            RunState::Running { stop: Some(_), .. } => {}
            RunState::Running { started_ms, .. } => {
                let started_ms = *started_ms;
                if is_over {
                    self.ask_to_stop(StopKind::Deadline, "the run's deadline is over");
                } else if attempt_end(&self.run, started_ms).is_some_and(|end| end <= now_ms) {
                    let timeout = self.run.plan.attempt_timeout_ms.unwrap_or_default();
                    self.ask_to_stop(StopKind::Timeout, &format!("the attempt took longer than {timeout} ms"));
                }
            }
            _ if is_over => self.fail("the run's deadline is over"),
            RunState::Waiting { .. } | RunState::Ready { .. } => {
                if begin_by(&self.run).is_some_and(|by| by <= now_ms) {
                    self.end(RunEnd::Skipped, "it could not begin within the job's grace", Value::Null);
                }
            }
            RunState::Scheduled { until_ms } if *until_ms <= now_ms => {
                self.run.state = RunState::Waiting { since_ms: now_ms };
            }
            RunState::Delayed { until_ms } if *until_ms <= now_ms => {
                self.run.state = RunState::Ready { since_ms: now_ms };
            }
            RunState::Scheduled { .. } | RunState::Delayed { .. } => {}
        }
    }

    fn cancel(&mut self, reason: &str) -> Result<()> {
        match &self.run.state {
            RunState::Ended { .. } => Err(self.unfit("be cancelled")),
            RunState::Running { stop: Some(stop), .. } if stop.kind != StopKind::Timeout => Ok(()),
            RunState::Running { .. } => {
                self.ask_to_stop(StopKind::Cancel, reason);
                Ok(())
            }
            _ => {
                self.end(RunEnd::Cancelled, reason, Value::Null);
                Ok(())
            }
        }
    }

    fn check_owner(&self, token: u64) -> Result<()> {
        let id = &self.run.id;
        match &self.run.state {
            RunState::Running { .. } if token == self.run.token => Ok(()),
            _ if token > self.run.token || token == 0 => {
                Err(Error::invalid(format!("run `{id}` never had an attempt {token}")))
            }
            _ => Err(Error::conflict(format!(
                "attempt {token} of run `{id}` is no longer its owner's: it has ended or its lease was over; stop it, and \
                 drop what it made"
            ))),
        }
    }

    fn ask_to_stop(&mut self, kind: StopKind, why: &str) {
        if let RunState::Running { stop, .. } = &mut self.run.state {
            *stop = Some(Stop { kind, reason: cut(why) });
            self.effects.push(Effect::Stop { token: self.run.token });
        }
    }

    /// The owner is gone.
    fn lost(&mut self, stop: Option<Stop>, lease_ms: i64) {
        let owner = self.run.attempts.last().map_or("?", |attempt| &attempt.owner);
        let reason = format!("its owner `{owner}` gave no sign of life until its lease ended at {lease_ms}");
        self.end_attempt(AttemptEndKind::Lost, &reason);
        match stop {
            None => self.failed(&reason, true),
            Some(stop) => self.settle_stop(stop),
        }
    }

    /// The attempt stopped because it was asked to.
    fn stopped(&mut self, stop: Stop, last_words: &str) {
        let kind = match stop.kind {
            StopKind::Cancel => AttemptEndKind::Cancelled,
            StopKind::Timeout | StopKind::Deadline => AttemptEndKind::TimedOut,
        };
        self.end_attempt(kind, &format!("{}; it stopped with: {last_words}", stop.reason));
        self.settle_stop(stop);
    }

    fn settle_stop(&mut self, stop: Stop) {
        match stop.kind {
            StopKind::Timeout => self.failed(&stop.reason, true),
            StopKind::Deadline => self.fail(&stop.reason),
            StopKind::Cancel => self.end(RunEnd::Cancelled, &stop.reason, Value::Null),
        }
    }

    /// An attempt came to nothing: another one, or the end.
    fn failed(&mut self, reason: &str, is_retryable: bool) {
        self.run.failures += 1;
        let (retry, failures) = (&self.run.plan.retry, self.run.failures);
        if !is_retryable || failures >= retry.attempts {
            return self.fail(reason);
        }
        let until_ms = later(self.moment.now_ms, retry.backoff().delay_ms(failures, self.moment.unit));
        if self.run.deadline_ms.is_some_and(|deadline| deadline <= until_ms) {
            return self.fail(&format!("{reason}; the run's deadline leaves no time for another attempt"));
        }
        self.run.state = RunState::Delayed { until_ms };
        self.effects.push(Effect::Became(On::Retry));
    }

    fn fail(&mut self, reason: &str) {
        self.end(RunEnd::Failed, reason, Value::Null);
    }

    fn end_attempt(&mut self, kind: AttemptEndKind, reason: &str) {
        if let Some(attempt) = self.run.attempts.last_mut() {
            attempt.ended = Some(AttemptEnd { kind, reason: cut(reason), at_ms: self.moment.now_ms });
        }
    }

    fn end(&mut self, end: RunEnd, reason: &str, result: Value) {
        self.run.state = RunState::Ended { end, reason: cut(reason), at_ms: self.moment.now_ms, result };
        match end {
            RunEnd::Success => self.effects.push(Effect::Became(On::Success)),
            RunEnd::Failed => self.effects.push(Effect::Became(On::Failure)),
            RunEnd::Skipped => self.effects.push(Effect::Became(On::Skipped)),
            RunEnd::Cancelled => {}
        }
    }

    fn unfit(&self, what: &str) -> Error {
        let state = match self.run.state {
            RunState::Scheduled { .. } => "scheduled",
            RunState::Waiting { .. } => "waiting",
            RunState::Ready { .. } => "ready",
            RunState::Running { .. } => "running",
            RunState::Delayed { .. } => "delayed",
            RunState::Ended { .. } => "ended",
        };
        Error::conflict(format!("run `{}` is {state} and cannot {what}", self.run.id))
    }
}

/// Text within its bound, cut at a character.
pub(crate) fn cut(text: &str) -> String {
    if text.len() <= REASON_BYTES_MAX {
        return text.to_owned();
    }
    let end = (0..=REASON_BYTES_MAX).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    format!("{}…", &text[..end])
}

fn bounded_result(result: Value) -> Value {
    let bytes = serde_json::to_vec(&result).map_or(usize::MAX, |text| text.len());
    if bytes <= RESULT_BYTES_MAX {
        return result;
    }
    json!({"dropped": format!("the result has {bytes} bytes; at most {RESULT_BYTES_MAX} are kept")})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definition::{JobDefinition, RetryPolicy};
    use crate::run::{Cause, Plan};

    fn run(change: impl FnOnce(&mut Run)) -> Run {
        let mut job = JobDefinition::new("j", "k");
        job.retry = RetryPolicy { attempts: 2, base_ms: 100, factor: 2.0, cap_ms: 1_000, jitter: 0.0 };
        let mut run = Run {
            id: "r".into(),
            job: "j".into(),
            revision: 1,
            cause: Cause::Request,
            plan: Plan::of(&job),
            parameters: Default::default(),
            scheduled_ms: None,
            created_ms: 0,
            deadline_ms: None,
            begin_by_ms: None,
            idempotency_key: None,
            depth: 0,
            state: RunState::Waiting { since_ms: 0 },
            token: 0,
            failures: 0,
            polls: 0,
            attempts: Vec::new(),
            notes: Vec::new(),
        };
        change(&mut run);
        run
    }

    /// Play events, each at its time, and say where the run is and what followed.
    fn play(run: &Run, events: &[(i64, Event)]) -> (Run, Vec<Effect>) {
        let mut now = run.clone();
        let mut all = Vec::new();
        for (at, event) in events {
            let (next, effects) = step(&now, event.clone(), Moment { now_ms: *at, unit: 0.0 }).expect("it fits");
            now = next;
            all.extend(effects);
        }
        (now, all)
    }

    fn claim() -> Event {
        Event::Claim { owner: "a".into(), lease_ms: 1_000 }
    }

    fn fails(token: u64) -> Event {
        Event::Finish { token, outcome: Outcome::failure("no") }
    }

    fn succeeds(token: u64) -> Event {
        Event::Finish { token, outcome: Outcome::Success { result: json!(7) } }
    }

    fn check(run: &Run, events: &[(i64, Event)], state: &str, effects: &[Effect], wakes: Option<i64>) {
        let (now, followed) = play(run, events);
        let shown = serde_json::to_value(&now.state).unwrap();
        let end = shown.get("end").or(shown.get("kind")).unwrap().as_str().unwrap().to_owned();
        assert_eq!((end.as_str(), followed.as_slice(), wake(&now)), (state, effects, wakes), "{now:#?}");
    }

    #[test]
    fn a_run_lives_as_its_plan_says() {
        use Effect::{Became, Stop};
        let plain = run(|_| {});
        let begin = [(0, Event::Admit), (0, claim())];
        let with = |more: &[(i64, Event)]| [&begin[..], more].concat();
        check(&plain, &[], "waiting", &[], None);
        check(&plain, &begin, "running", &[], Some(1_000));
        check(&plain, &with(&[(5, succeeds(1))]), "success", &[Became(On::Success)], None);
        check(&plain, &with(&[(5, fails(1))]), "delayed", &[Became(On::Retry)], Some(105));
        check(&plain, &with(&[(5, fails(1)), (104, Event::Tick)]), "delayed", &[Became(On::Retry)], Some(105));
        let second = with(&[(5, fails(1)), (105, Event::Tick), (106, claim())]);
        check(&plain, &second, "running", &[Became(On::Retry)], Some(1_106));
        let both = [&second[..], &[(107, fails(2))]].concat();
        check(&plain, &both, "failed", &[Became(On::Retry), Became(On::Failure)], None);
        let last = Event::Finish { token: 1, outcome: Outcome::Failure { reason: "x".into(), is_retryable: false } };
        check(&plain, &with(&[(5, last)]), "failed", &[Became(On::Failure)], None);
        let not_yet = Event::Finish { token: 1, outcome: Outcome::NotYet { reason: "x".into(), after_ms: None } };
        check(&plain, &with(&[(5, not_yet)]), "delayed", &[], Some(60_005));
        let beat = Event::Beat { token: 1, lease_ms: 1_000 };
        check(&plain, &with(&[(500, beat)]), "running", &[], Some(1_500));
        check(&plain, &with(&[(1_000, Event::Tick)]), "delayed", &[Became(On::Retry)], Some(1_100));
        let cancel = Event::Cancel { reason: "enough".into() };
        check(&plain, &[(0, cancel.clone())], "cancelled", &[], None);
        check(&plain, &with(&[(5, cancel.clone())]), "running", &[Stop { token: 1 }], Some(1_000));
        check(&plain, &with(&[(5, cancel.clone()), (6, fails(1))]), "cancelled", &[Stop { token: 1 }], None);
        check(&plain, &with(&[(5, cancel.clone()), (1_000, Event::Tick)]), "cancelled", &[Stop { token: 1 }], None);
        let done = with(&[(5, cancel), (6, succeeds(1))]);
        check(&plain, &done, "success", &[Stop { token: 1 }, Became(On::Success)], None);
    }

    #[test]
    fn time_limits_end_attempts_and_runs() {
        use Effect::{Became, Stop};
        let limited = run(|run| {
            run.plan.attempt_timeout_ms = Some(50);
            run.deadline_ms = Some(120);
        });
        let begin = [(0, Event::Admit), (0, claim())];
        let with = |more: &[(i64, Event)]| [&begin[..], more].concat();
        check(&limited, &begin, "running", &[], Some(50));
        check(&limited, &with(&[(50, Event::Tick)]), "running", &[Stop { token: 1 }], Some(1_000));
        let timed_out = with(&[(10, fails(1)), (110, Event::Tick), (110, claim())]);
        check(&limited, &timed_out, "running", &[Became(On::Retry)], Some(120));
        let no_time = with(&[(50, Event::Tick), (51, fails(1))]);
        check(&limited, &no_time, "failed", &[Stop { token: 1 }, Became(On::Failure)], None);
        check(&limited, &[(120, Event::Tick)], "failed", &[Became(On::Failure)], None);
        let grace = run(|run| run.begin_by_ms = Some(60));
        check(&grace, &[(60, Event::Tick)], "skipped", &[Became(On::Skipped)], None);
        check(&grace, &[(59, Event::Admit), (59, claim()), (60, Event::Tick)], "running", &[], Some(1_059));
    }

    #[test]
    fn only_the_newest_token_counts() {
        let (lost, _) = play(&run(|_| {}), &[(0, Event::Admit), (0, claim()), (1_000, Event::Tick)]);
        let (again, _) = play(&lost, &[(1_100, Event::Tick), (1_100, claim())]);
        for late in [succeeds(1), fails(1), Event::Beat { token: 1, lease_ms: 9 }] {
            for at in [&lost, &again] {
                let error = step(at, late.clone(), Moment { now_ms: 1_200, unit: 0.0 }).unwrap_err();
                assert_eq!(error.kind(), mainstay_base::ErrorKind::Conflict, "{error}");
            }
        }
        step(&again, succeeds(3), Moment { now_ms: 1_200, unit: 0.0 }).unwrap_err();
        let (done, _) = play(&again, &[(1_200, succeeds(2))]);
        assert_eq!(done.end(), Some(RunEnd::Success));
        let ends: Vec<_> = done.attempts.iter().map(|attempt| attempt.ended.as_ref().unwrap().kind).collect();
        assert_eq!(ends, [AttemptEndKind::Lost, AttemptEndKind::Success]);
    }

    #[test]
    fn a_long_watch_keeps_one_poll() {
        let mut now = run(|_| {});
        (now, _) = play(&now, &[(0, Event::Admit)]);
        for poll in 1..=50 {
            let outcome = Outcome::NotYet { reason: "no file".into(), after_ms: Some(10) };
            let at = poll * 10;
            (now, _) = play(
                &now,
                &[(at, claim()), (at, Event::Finish { token: poll as u64, outcome }), (at + 10, Event::Tick)],
            );
        }
        assert_eq!((now.attempts.len(), now.polls, now.token, now.failures), (1, 50, 50, 0));
    }

    #[test]
    fn words_and_results_are_bounded() {
        assert_eq!(cut("é").len(), 2);
        let long = cut(&"é".repeat(REASON_BYTES_MAX));
        assert!(long.len() <= REASON_BYTES_MAX + 3 && long.ends_with('…'));
        assert_eq!(
            bounded_result(json!("x".repeat(RESULT_BYTES_MAX - 2))).as_str().unwrap().len(),
            RESULT_BYTES_MAX - 2
        );
        assert!(bounded_result(json!("x".repeat(RESULT_BYTES_MAX - 1))).get("dropped").is_some());
    }
}

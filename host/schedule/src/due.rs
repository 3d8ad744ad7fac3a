//! What to do with occurrences that have come or have passed.
//!
//! Owns catching up as a pure function: from the first occurrence that was not yet looked at, the present, and the job's
//! wishes to the occurrences that are run, those that are skipped, and the next one to wait for. Separate because its
//! counts can be held against a list of moments made by somebody else.
//!
//! Bounded: at most [`ENUMERATED_MAX`] moments are gone through one by one. When more have passed, the newest ones are
//! found by steps back from the present, and the skipped ones are counted only up to that.

use crate::definition::CatchUp;
use crate::limits::ENUMERATED_MAX;
use crate::trigger::Moments;

/// A row of occurrences that is not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SkippedSpan {
    pub first_ms: i64,
    pub last_ms: i64,
    /// At least one.
    pub count: u64,
    /// Whether there were more than `count`.
    pub is_more: bool,
}

/// What is due.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct DueOccurrences {
    /// Scheduled times that are run, oldest first, and whether each is late.
    pub run: Vec<(i64, bool)>,
    pub skipped: Option<SkippedSpan>,
    /// What to wait for next; not behind the present when `at_most` was reached.
    pub next_ms: Option<i64>,
}

/// What is due at `now_ms`, when everything before `cursor_ms` was looked at. At most `at_most` are run at once (at least
/// one); what then remains is due still.
pub(crate) fn due(
    moments: &Moments,
    cursor_ms: i64,
    now_ms: i64,
    grace_ms: u64,
    catch_up: CatchUp,
    at_most: usize,
) -> DueOccurrences {
    if cursor_ms > now_ms {
        return DueOccurrences { next_ms: Some(cursor_ms), ..DueOccurrences::default() };
    }
    let late_below = now_ms.saturating_sub(grace_ms.min(i64::MAX as u64) as i64);
    let passed = passed(moments, cursor_ms, now_ms);
    let late = passed.newest.partition_point(|at| *at < late_below);
    let kept_late = match catch_up {
        CatchUp::None => 0,
        CatchUp::Last if late == passed.newest.len() => 1,
        CatchUp::Last => 0,
        CatchUp::All { limit } => limit as usize,
    };
    let skipped_late = late.saturating_sub(kept_late);
    let mut run: Vec<(i64, bool)> = passed.newest[skipped_late..].iter().map(|at| (*at, *at < late_below)).collect();
    let mut next_ms = moments.next_after(now_ms);
    if run.len() > at_most.max(1) {
        next_ms = Some(run[at_most.max(1)].0);
        run.truncate(at_most.max(1));
    }
    let skipped = passed.skipped(cursor_ms, skipped_late);
    DueOccurrences { run, skipped, next_ms }
}

/// Occurrences from a cursor to the present.
struct Passed {
    /// The newest ones, oldest first; all of them unless `older` says otherwise.
    newest: Vec<i64>,
    /// How many older ones were counted, the last of them, and whether there may be more.
    older: Option<(u64, i64)>,
}

impl Passed {
    fn skipped(&self, cursor_ms: i64, skipped_late: usize) -> Option<SkippedSpan> {
        let (older, older_last) = self.older.unwrap_or((0, cursor_ms));
        let count = older + skipped_late as u64;
        let last_ms = skipped_late.checked_sub(1).map_or(older_last, |last| self.newest[last]);
        (count > 0).then_some(SkippedSpan { first_ms: cursor_ms, last_ms, count, is_more: self.older.is_some() })
    }
}

fn passed(moments: &Moments, cursor_ms: i64, now_ms: i64) -> Passed {
    let row = |from_ms: i64| {
        std::iter::successors(Some(from_ms), |at| moments.next_after(*at)).take_while(|at| *at <= now_ms)
    };
    let mut newest: Vec<i64> = row(cursor_ms).take(ENUMERATED_MAX + 1).collect();
    if newest.len() <= ENUMERATED_MAX {
        return Passed { newest, older: None };
    }
    // So many have passed that only the newest matter: look back from the present by as long as a row of the oldest
    // took, then twice as long, until there are enough.
    let reached = newest[ENUMERATED_MAX];
    let mut back_ms = ((reached - cursor_ms) / 8).max(1);
    loop {
        let from = now_ms.saturating_sub(back_ms).max(reached);
        newest = moments.next_after(from).map(|first| row(first).take(ENUMERATED_MAX).collect()).unwrap_or_default();
        if newest.len() >= ENUMERATED_MAX / 16 || from == reached {
            break;
        }
        back_ms = back_ms.saturating_mul(2);
    }
    Passed { newest, older: Some((ENUMERATED_MAX as u64, reached)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trigger::Trigger;

    fn hourly() -> Moments {
        Trigger::Interval { every_ms: 3_600_000, start_ms: Some(0) }.moments(0).unwrap().unwrap()
    }

    const HOUR: i64 = 3_600_000;

    #[test]
    fn missed_occurrences_are_caught_up_as_defined() {
        // Hours 1 to 10 have passed, and it is one minute past the tenth.
        fn check(grace_ms: u64, catch_up: CatchUp, run: &[(i64, bool)], skipped: u64) {
            let due = due(&hourly(), HOUR, 10 * HOUR + 60_000, grace_ms, catch_up, 100);
            let hours: Vec<(i64, bool)> = due.run.iter().map(|(at, late)| (at / HOUR, *late)).collect();
            assert_eq!(hours, run, "{grace_ms} {catch_up:?}");
            assert_eq!(due.skipped.map_or(0, |span| span.count), skipped, "{grace_ms} {catch_up:?}");
            assert_eq!(due.next_ms, Some(11 * HOUR));
        }
        check(120_000, CatchUp::None, &[(10, false)], 9);
        check(30_000, CatchUp::None, &[], 10);
        check(120_000, CatchUp::Last, &[(10, false)], 9);
        check(30_000, CatchUp::Last, &[(10, true)], 9);
        check(120_000, CatchUp::All { limit: 2 }, &[(8, true), (9, true), (10, false)], 7);
        check(30_000, CatchUp::All { limit: 2 }, &[(9, true), (10, true)], 8);
        check(30_000, CatchUp::All { limit: 50 }, &(1..=10).map(|hour| (hour, true)).collect::<Vec<_>>(), 0);
    }

    #[test]
    fn nothing_is_due_before_its_time() {
        let due = due(&hourly(), 5 * HOUR, 5 * HOUR - 1, 0, CatchUp::All { limit: 5 }, 100);
        assert_eq!(due, DueOccurrences { next_ms: Some(5 * HOUR), ..DueOccurrences::default() });
    }

    #[test]
    fn what_does_not_fit_stays_due() {
        let first = due(&hourly(), HOUR, 10 * HOUR, 0, CatchUp::All { limit: 6 }, 4);
        assert_eq!(first.run.iter().map(|(at, _)| at / HOUR).collect::<Vec<_>>(), [4, 5, 6, 7]);
        assert_eq!(first.skipped.unwrap().count, 3);
        let second = due(&hourly(), first.next_ms.unwrap(), 10 * HOUR, 0, CatchUp::All { limit: 6 }, 4);
        assert_eq!(second.run.iter().map(|(at, _)| at / HOUR).collect::<Vec<_>>(), [8, 9, 10]);
        assert_eq!(second.skipped, None);
    }

    #[test]
    fn a_long_absence_costs_little_and_finds_the_newest() {
        let secondly = Trigger::Interval { every_ms: 1_000, start_ms: Some(0) }.moments(0).unwrap().unwrap();
        let now = 40_000_000_000;
        let due = due(&secondly, 0, now, 0, CatchUp::All { limit: 3 }, 100);
        let newest: Vec<i64> = due.run.iter().map(|(at, _)| *at).collect();
        assert_eq!(newest, [now - 3_000, now - 2_000, now - 1_000, now], "three late ones, and one on time");
        let skipped = due.skipped.unwrap();
        assert!(skipped.is_more && skipped.count >= ENUMERATED_MAX as u64, "{skipped:?}");
        assert_eq!((skipped.first_ms, skipped.last_ms), (0, now - 4_000));
    }
}

//! What a batcher has seen, in numbers that can be exported.
//!
//! Owns the snapshot types. They are plain integers, counted under the lock that the queue holds anyway, and copied
//! when somebody asks. Bounded: a histogram has a fixed number of buckets.

use std::fmt;

/// Buckets for each doubling: a value is known to within an eighth.
const STEPS: u64 = 8;
const STEP_BITS: u32 = 3;
const BUCKETS: usize = ((64 - STEP_BITS as usize) + 1) * STEPS as usize;

/// How often values of each magnitude were seen: buckets that grow with the value (as in HdrHistogram), so that
/// quantiles are right to within 12.5 % from nanoseconds to years.
#[derive(Clone, PartialEq, Eq)]
pub struct Histogram {
    buckets: Box<[u64; BUCKETS]>,
    count: u64,
    sum: u64,
    max: u64,
}

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram { buckets: Box::new([0; BUCKETS]), count: 0, sum: 0, max: 0 }
    }
}

impl Histogram {
    /// Count one value.
    pub fn record(&mut self, value: u64) {
        self.buckets[bucket_of(value)] += 1;
        self.count += 1;
        self.sum = self.sum.saturating_add(value);
        self.max = self.max.max(value);
    }

    /// How many values were counted.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Sum of all values.
    pub fn sum(&self) -> u64 {
        self.sum
    }

    /// The largest value.
    pub fn max(&self) -> u64 {
        self.max
    }

    /// Mean of all values; 0 when there are none.
    pub fn mean(&self) -> f64 {
        if self.count == 0 { 0.0 } else { self.sum as f64 / self.count as f64 }
    }

    /// The smallest bucket's upper end that at least this share (0 to 1) of the values does not exceed; 0 when empty.
    pub fn quantile(&self, share: f64) -> u64 {
        let wanted = (share.clamp(0.0, 1.0) * self.count as f64).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (bucket, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= wanted && self.count > 0 {
                return upper_end(bucket).min(self.max);
            }
        }
        self.max
    }

    /// Upper end (inclusive) and count of each bucket that is not empty, growing.
    pub fn buckets(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        let filled = self.buckets.iter().enumerate().filter(|(_, count)| **count > 0);
        filled.map(|(bucket, count)| (upper_end(bucket), *count))
    }
}

impl fmt::Debug for Histogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (half, most) = (self.quantile(0.5), self.quantile(0.99));
        write!(f, "{} values, mean {:.1}, p50 {half}, p99 {most}, max {}", self.count, self.mean(), self.max)
    }
}

fn bucket_of(value: u64) -> usize {
    if value < STEPS {
        return value as usize;
    }
    let doubling = 63 - value.leading_zeros() - STEP_BITS;
    (u64::from(doubling + 1) * STEPS + (value >> doubling) - STEPS) as usize
}

fn upper_end(bucket: usize) -> u64 {
    let (doubling, step) = (bucket as u64 / STEPS, bucket as u64 % STEPS);
    if doubling == 0 {
        return step;
    }
    let end = u128::from(step + STEPS + 1) << (doubling - 1);
    (end - 1).min(u128::from(u64::MAX)) as u64
}

/// Why a batch was released when it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// A preferred size was reached, or passed because requests that fit in one launch are not cut.
    Preferred,
    /// No more would have fitted.
    Full,
    /// Its oldest request had been held for the maximum delay.
    Delay,
    /// Nothing else ran: there was nothing to wait for.
    Idle,
    /// The batcher is shutting down.
    Drain,
    /// Holding it longer would have missed a deadline.
    Deadline,
    /// It was held, but its turn came: another batch was about to start whose caller comes after its own, or it has the
    /// rest of a request of which parts were launched.
    Turn,
}

impl Reason {
    /// All, in the order of [`Stats::released`].
    pub const ALL: [Reason; 7] =
        [Reason::Preferred, Reason::Full, Reason::Delay, Reason::Idle, Reason::Drain, Reason::Deadline, Reason::Turn];

    /// Its name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Reason::Preferred => "preferred",
            Reason::Full => "full",
            Reason::Delay => "delay",
            Reason::Idle => "idle",
            Reason::Drain => "drain",
            Reason::Deadline => "deadline",
            Reason::Turn => "turn",
        }
    }
}

/// How calls ended. Every call that was submitted is in exactly one of the others, or still open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Calls made, refused ones included.
    pub submitted: u64,
    /// Answers given.
    pub answered: u64,
    /// Refused at submission: a bound was reached.
    pub exhausted: u64,
    /// Refused at submission: the queue was long and it was others' turn.
    pub shed: u64,
    /// Not answered by their deadline.
    pub expired: u64,
    /// Their caller went away, or cancelled them.
    pub cancelled: u64,
    /// Refused or ended by shutting down.
    pub closed: u64,
    /// Wrong, or their launch failed.
    pub failed: u64,
}

impl Counts {
    /// Calls that have ended, one way or another.
    pub fn ended(&self) -> u64 {
        self.answered + self.exhausted + self.shed + self.expired + self.cancelled + self.closed + self.failed
    }
}

/// One caller's part.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CallerStats {
    /// Its name.
    pub name: String,
    /// How its calls ended.
    pub counts: Counts,
    /// Its requests that wait now.
    pub waiting_requests: usize,
    /// Its rows that wait now.
    pub waiting_rows: u64,
    /// Rows launched for it.
    pub launched_rows: u64,
}

/// What a batcher has seen since it was made, as of one moment.
#[derive(Clone, Debug, Default)]
pub struct Stats {
    /// Requests that wait now (the depth).
    pub waiting_requests: usize,
    /// Rows that wait now.
    pub waiting_rows: u64,
    /// Launches that run now.
    pub running_launches: usize,
    /// How calls ended.
    pub counts: Counts,
    /// By request: nanoseconds from submission until all of it was launched.
    pub wait_ns: Histogram,
    /// By launch: rows.
    pub batch_rows: Histogram,
    /// By launch: requests, or parts of such, joined.
    pub batch_requests: Histogram,
    /// By launch: nanoseconds that it ran.
    pub launch_ns: Histogram,
    /// Launches by [`Reason`], in the order of [`Reason::ALL`]; see [`Stats::released_for`].
    pub released: [u64; Reason::ALL.len()],
    /// Nanoseconds during which at least one launch ran.
    pub busy_ns: u64,
    /// Nanoseconds since the batcher was made.
    pub observed_ns: u64,
    /// By caller, those that are registered now.
    pub callers: Vec<CallerStats>,
}

impl Stats {
    /// Launches released for this reason.
    pub fn released_for(&self, reason: Reason) -> u64 {
        self.released[reason as usize]
    }

    /// Share of the time, 0 to 1, during which at least one launch ran.
    pub fn busy_fraction(&self) -> f64 {
        if self.observed_ns == 0 { 0.0 } else { self.busy_ns as f64 / self.observed_ns as f64 }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_value_lies_within_an_eighth_of_its_bucket(value in any::<u64>(), shift in 0_u32..64) {
            let value = value >> shift;
            let bucket = bucket_of(value);
            prop_assert!(bucket < BUCKETS);
            let end = upper_end(bucket);
            prop_assert!(end >= value && (end - value) as f64 <= value as f64 / 8.0, "{} in {}", value, end);
            prop_assert!(bucket == 0 || upper_end(bucket - 1) < value);
        }
    }

    #[test]
    fn quantiles_come_from_buckets() {
        let mut histogram = Histogram::default();
        assert_eq!((histogram.quantile(0.5), histogram.mean()), (0, 0.0));
        (1..=1_000).for_each(|value| histogram.record(value));
        assert_eq!((histogram.count(), histogram.sum(), histogram.max()), (1_000, 500_500, 1_000));
        let half = histogram.quantile(0.5);
        assert!((500..=563).contains(&half), "{half}");
        assert_eq!(histogram.quantile(1.0), 1_000);
        assert_eq!(histogram.buckets().map(|(_, count)| count).sum::<u64>(), 1_000);
        assert!(format!("{histogram:?}").starts_with("1000 values, mean 500.5"));
    }
}

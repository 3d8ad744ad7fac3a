//! What is counted of an endpoint's requests, and for how long.
//!
//! Owns [`Board`]: for each variant (and once for the endpoint), for each segment and window, how many requests came, what
//! became of them, how long they took, which scores they got, and how often a mirror agreed. Separate from what is decided by
//! it, because strategies and checks read it as data.
//!
//! Bounded: a ring of windows for each series, [`SEGMENTS_MAX`] segments and one for all others, sketches and histograms of
//! fixed size. A window takes about 2 KiB, and exists only if something was counted in it. Does not fail.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use sketches_ddsketch::{Config, DDSketch};

use crate::limits::{SEGMENT_BYTES_MAX, SEGMENTS_MAX};
use crate::plan::{ScoreSettings, SignalSettings};
use crate::served::Why;

/// The relative error of quantiles of latency.
pub const LATENCY_ERROR: f64 = 0.02;
/// Counters of a sketch: with this error they span eight powers of ten.
const SKETCH_BINS: u32 = 512;
/// Bins of scores between the smallest and the largest.
pub const SCORE_BINS: usize = 32;
/// The segment of what is not counted apart.
pub const OTHER: &str = "other";

/// What was counted in one window of time.
#[derive(Clone, Debug)]
pub struct SignalWindow {
    /// When it began, in milliseconds since 1970 UTC.
    pub start_ms: i64,
    /// Requests.
    pub requests: u64,
    /// Requests that were not answered as planned, by why.
    pub failures: BTreeMap<Why, u64>,
    /// Requests whose caller went away.
    pub cancelled: u64,
    /// Requests that a fallback answered.
    pub fallbacks: u64,
    /// How often a backend was asked again.
    pub retries: u64,
    /// How long requests took, in microseconds; those that were not refused at once.
    pub latency_us: Latency,
    /// How long the first part of streamed answers took, in microseconds.
    pub first_part_us: Latency,
    /// The scores of answers.
    pub scores: Scores,
    /// How often mirrored answers agreed, by the variant whose answer the caller got.
    pub agreement: BTreeMap<Arc<str>, Agreement>,
}

/// A sketch of durations that merges: quantiles have a relative error of at most 2 %.
#[derive(Clone, Default)]
pub struct Latency {
    sketch: Option<Box<DDSketch>>,
}

/// A histogram of scores with their moments.
#[derive(Clone, Debug, PartialEq)]
pub struct Scores {
    /// Where the first bin begins.
    pub min: f64,
    /// Where the last bin ends.
    pub max: f64,
    /// Bins of equal width.
    pub bins: [u64; SCORE_BINS],
    /// Scores below the first bin.
    pub below: u64,
    /// Scores above the last bin.
    pub above: u64,
    /// Scores that are no number.
    pub not_a_number: u64,
    /// Their sum.
    pub sum: f64,
    /// The sum of their squares.
    pub sum_of_squares: f64,
}

/// How often two variants agreed about the same requests.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Agreement {
    /// Pairs of answers.
    pub compared: u64,
    /// Pairs that agreed.
    pub agreed: u64,
    /// The sum of each pair's largest absolute difference.
    pub difference_sum: f64,
    /// The largest absolute difference.
    pub difference_max: f64,
}

/// All windows of one variant and segment.
#[derive(Clone, Debug)]
pub struct Series {
    /// The variant; none: all requests of the endpoint.
    pub variant: Option<Arc<str>>,
    /// The segment; none: all.
    pub segment: Option<Arc<str>>,
    /// Whether these are copies of requests, whose answers nobody got.
    pub is_mirrored: bool,
    /// Oldest first.
    pub windows: Vec<SignalWindow>,
}

/// One request, as it is counted.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Observation {
    pub why: Option<Why>,
    pub is_cancelled: bool,
    pub is_fallback: bool,
    pub retries: u32,
    pub latency_us: Option<u64>,
    pub first_part_us: Option<u64>,
    pub score: Option<f64>,
}

/// Whose series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Of {
    Endpoint,
    Variant(usize),
    Mirror(usize),
}

/// See the module.
pub(crate) struct Board {
    pub settings: SignalSettings,
    pub variants: Vec<Arc<str>>,
    segments: RwLock<Vec<Arc<str>>>,
    /// The endpoint, then each variant, then each variant as a mirror.
    rows: Box<[Mutex<Row>]>,
}

/// All, then the segments, then the others.
type Row = Vec<Option<Ring>>;

struct Ring {
    windows: Vec<Option<Box<SignalWindow>>>,
    newest: i64,
}

impl Board {
    pub fn new(settings: &SignalSettings, variants: Vec<Arc<str>>) -> Board {
        let rows = (0..=2 * variants.len()).map(|_| Mutex::default()).collect();
        Board { settings: settings.clone(), variants, segments: RwLock::default(), rows }
    }

    /// The place of a segment; none of a request without one.
    pub fn segment(&self, text: Option<&[u8]>) -> Option<usize> {
        let text = text?;
        let place = |known: &[Arc<str>]| known.iter().position(|name| name.as_bytes() == text);
        if let Some(place) = place(&self.segments.read()) {
            return Some(place);
        }
        let name = std::str::from_utf8(text).ok().filter(|name| name.len() <= SEGMENT_BYTES_MAX && *name != OTHER);
        let Some(name) = name else { return Some(SEGMENTS_MAX) };
        let mut known = self.segments.write();
        if let Some(place) = place(&known) {
            return Some(place);
        }
        if known.len() >= SEGMENTS_MAX {
            return Some(SEGMENTS_MAX);
        }
        known.push(name.into());
        Some(known.len() - 1)
    }

    pub fn observe(&self, of: Of, segment: Option<usize>, now_ms: i64, seen: &Observation) {
        self.count(of, segment, now_ms, |window| window.observe(seen));
    }

    pub fn compared(&self, mirror: usize, with: usize, segment: Option<usize>, now_ms: i64, agrees: bool, by: f64) {
        let Some(primary) = self.variants.get(with) else { return };
        self.count(Of::Mirror(mirror), segment, now_ms, |window| {
            window.agreement.entry(primary.clone()).or_default().add(agrees, by);
        });
    }

    fn count(&self, of: Of, segment: Option<usize>, now_ms: i64, count: impl Fn(&mut SignalWindow)) {
        let Some(row) = self.rows.get(self.place(of)) else { return };
        let mut row = row.lock();
        for place in std::iter::once(0).chain(segment.map(|segment| segment + 1)) {
            if row.len() <= place {
                row.resize_with(place + 1, || None);
            }
            let ring = row[place].get_or_insert_with(|| Ring::new(self.settings.windows));
            count(ring.window(now_ms, &self.settings));
        }
    }

    fn place(&self, of: Of) -> usize {
        match of {
            Of::Endpoint => 0,
            Of::Variant(variant) => 1 + variant,
            Of::Mirror(variant) => 1 + self.variants.len() + variant,
        }
    }

    /// Everything that was counted in the windows that are kept as of now.
    pub fn read(&self, now_ms: i64) -> Vec<Series> {
        let segments = self.segments.read().clone();
        let endpoint = std::iter::once((Of::Endpoint, None));
        let variants = self.variants.iter().enumerate().map(|(n, name)| (Of::Variant(n), Some(name.clone())));
        let mirrors = self.variants.iter().enumerate().map(|(n, name)| (Of::Mirror(n), Some(name.clone())));
        let mut all = Vec::new();
        for (of, variant) in endpoint.chain(variants).chain(mirrors) {
            let row = self.rows[self.place(of)].lock();
            for (place, ring) in row.iter().enumerate() {
                let Some(ring) = ring else { continue };
                let segment = place.checked_sub(1);
                let segment = segment.map(|place| segments.get(place).cloned().unwrap_or_else(|| OTHER.into()));
                let windows = ring.read(now_ms, self.settings.window_ms);
                let is_mirrored = matches!(of, Of::Mirror(_));
                all.push(Series { variant: variant.clone(), segment, is_mirrored, windows });
            }
        }
        all
    }
}

impl Ring {
    fn new(windows: u32) -> Ring {
        let windows = (0..windows.max(1)).map(|_| None).collect();
        Ring { windows, newest: i64::MIN }
    }

    /// The window of now. A clock that goes back counts in the newest.
    fn window(&mut self, now_ms: i64, settings: &SignalSettings) -> &mut SignalWindow {
        let number = now_ms.div_euclid(settings.window_ms as i64).max(self.newest);
        self.newest = number;
        let start_ms = number * settings.window_ms as i64;
        let count = self.windows.len() as i64;
        let slot = &mut self.windows[number.rem_euclid(count) as usize];
        let window = slot.get_or_insert_with(|| Box::new(SignalWindow::new(start_ms, &settings.score)));
        if window.start_ms != start_ms {
            **window = SignalWindow::new(start_ms, &settings.score);
        }
        window
    }

    fn read(&self, now_ms: i64, window_ms: u64) -> Vec<SignalWindow> {
        let newest = now_ms.div_euclid(window_ms as i64).max(self.newest);
        let oldest_ms = (newest - self.windows.len() as i64 + 1) * window_ms as i64;
        let kept = self.windows.iter().flatten().filter(|window| window.start_ms >= oldest_ms);
        let mut windows: Vec<SignalWindow> = kept.map(|window| (**window).clone()).collect();
        windows.sort_by_key(|window| window.start_ms);
        windows
    }
}

impl SignalWindow {
    fn new(start_ms: i64, score: &ScoreSettings) -> SignalWindow {
        SignalWindow {
            start_ms,
            requests: 0,
            failures: BTreeMap::new(),
            cancelled: 0,
            fallbacks: 0,
            retries: 0,
            latency_us: Latency::default(),
            first_part_us: Latency::default(),
            scores: Scores::new(score.min, score.max),
            agreement: BTreeMap::new(),
        }
    }

    fn observe(&mut self, seen: &Observation) {
        self.requests += 1;
        if let Some(why) = seen.why {
            *self.failures.entry(why).or_default() += 1;
        }
        self.cancelled += u64::from(seen.is_cancelled);
        self.fallbacks += u64::from(seen.is_fallback);
        self.retries += u64::from(seen.retries);
        seen.latency_us.into_iter().for_each(|us| self.latency_us.add(us));
        seen.first_part_us.into_iter().for_each(|us| self.first_part_us.add(us));
        seen.score.into_iter().for_each(|score| self.scores.add(score));
    }

    /// Requests that were not answered as planned.
    pub fn failed(&self) -> u64 {
        self.failures.values().sum()
    }

    /// Add what another window counted. Scores are added where both have the same bins.
    pub fn merge(&mut self, other: &SignalWindow) {
        self.start_ms = self.start_ms.min(other.start_ms);
        self.requests += other.requests;
        for (why, count) in &other.failures {
            *self.failures.entry(*why).or_default() += count;
        }
        self.cancelled += other.cancelled;
        self.fallbacks += other.fallbacks;
        self.retries += other.retries;
        self.latency_us.merge(&other.latency_us);
        self.first_part_us.merge(&other.first_part_us);
        self.scores.merge(&other.scores);
        for (variant, agreement) in &other.agreement {
            self.agreement.entry(variant.clone()).or_default().merge(agreement);
        }
    }
}

impl std::fmt::Debug for Latency {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Latency").field("count", &self.count()).field("median", &self.quantile(0.5)).finish()
    }
}

impl Latency {
    fn add(&mut self, us: u64) {
        self.sketch.get_or_insert_with(|| Box::new(empty_sketch())).add(us as f64);
    }

    /// Add what another sketch counted.
    pub fn merge(&mut self, other: &Latency) {
        let Some(theirs) = &other.sketch else { return };
        let ours = self.sketch.get_or_insert_with(|| Box::new(empty_sketch()));
        // All have one configuration, which is the only thing that could be refused.
        let _ = ours.merge(theirs);
    }

    /// How many were counted.
    pub fn count(&self) -> u64 {
        self.sketch.as_ref().map_or(0, |sketch| sketch.count() as u64)
    }

    /// A quantile, in microseconds; none when nothing was counted or the level is not from 0 to 1.
    pub fn quantile(&self, level: f64) -> Option<f64> {
        self.sketch.as_ref()?.quantile(level).ok().flatten()
    }

    /// Their sum, in microseconds.
    pub fn sum(&self) -> f64 {
        self.sketch.as_ref().and_then(|sketch| sketch.sum()).unwrap_or(0.0)
    }
}

fn empty_sketch() -> DDSketch {
    DDSketch::new(Config::new(LATENCY_ERROR, SKETCH_BINS, 1e-3))
}

impl Scores {
    fn new(min: f64, max: f64) -> Scores {
        let bins = [0; SCORE_BINS];
        Scores { min, max, bins, below: 0, above: 0, not_a_number: 0, sum: 0.0, sum_of_squares: 0.0 }
    }

    fn add(&mut self, score: f64) {
        if score.is_nan() {
            self.not_a_number += 1;
            return;
        }
        self.sum += score;
        self.sum_of_squares += score * score;
        if score < self.min {
            self.below += 1;
        } else if score > self.max {
            self.above += 1;
        } else {
            let place = (score - self.min) / (self.max - self.min) * SCORE_BINS as f64;
            self.bins[(place as usize).min(SCORE_BINS - 1)] += 1;
        }
    }

    fn merge(&mut self, other: &Scores) {
        if (self.min, self.max) != (other.min, other.max) {
            return;
        }
        self.bins.iter_mut().zip(other.bins).for_each(|(ours, theirs)| *ours += theirs);
        self.below += other.below;
        self.above += other.above;
        self.not_a_number += other.not_a_number;
        self.sum += other.sum;
        self.sum_of_squares += other.sum_of_squares;
    }

    /// How many were counted that are numbers.
    pub fn count(&self) -> u64 {
        self.bins.iter().sum::<u64>() + self.below + self.above
    }
}

impl Agreement {
    fn add(&mut self, agrees: bool, difference: f64) {
        self.compared += 1;
        self.agreed += u64::from(agrees);
        self.difference_sum += difference;
        self.difference_max = self.difference_max.max(difference);
    }

    fn merge(&mut self, other: &Agreement) {
        self.compared += other.compared;
        self.agreed += other.agreed;
        self.difference_sum += other.difference_sum;
        self.difference_max = self.difference_max.max(other.difference_max);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn board(windows: u32) -> Board {
        let settings = SignalSettings { window_ms: 1_000, windows, ..SignalSettings::default() };
        Board::new(&settings, vec!["a".into(), "b".into()])
    }

    fn seen(latency_us: u64) -> Observation {
        Observation { latency_us: Some(latency_us), score: Some(0.25), ..Observation::default() }
    }

    fn series(board: &Board, now_ms: i64, variant: Option<&str>) -> Series {
        let all = board.read(now_ms);
        let is_it = |series: &Series| series.variant.as_deref() == variant && series.segment.is_none();
        all.into_iter().find(|series| is_it(series) && !series.is_mirrored).expect("it was counted")
    }

    #[test]
    fn windows_that_are_old_are_gone() {
        let board = board(3);
        for second in 0..5 {
            board.observe(Of::Variant(0), None, second * 1_000 + 10, &seen(100));
        }
        let starts = |now_ms| {
            let windows = series(&board, now_ms, Some("a")).windows;
            windows.iter().map(|window| window.start_ms).collect::<Vec<_>>()
        };
        assert_eq!(starts(4_999), [2_000, 3_000, 4_000]);
        assert_eq!(starts(5_000), [3_000, 4_000]);
        assert_eq!(starts(60_000), [0_i64; 0]);
    }

    #[test]
    fn segments_beyond_the_limit_are_counted_together() {
        let board = board(3);
        let place = |name: &str| board.segment(Some(name.as_bytes()));
        for number in 0..SEGMENTS_MAX {
            assert_eq!(place(&format!("s{number}")), Some(number));
        }
        assert_eq!(place("one more"), Some(SEGMENTS_MAX));
        assert_eq!(place("s0"), Some(0));
        assert_eq!(board.segment(None), None);
        board.observe(Of::Endpoint, place("one more"), 0, &seen(1));
        assert!(board.read(0).iter().any(|series| series.segment.as_deref() == Some(OTHER)));
    }

    #[test]
    fn a_segment_has_a_longest_name() {
        let board = board(3);
        assert_eq!(board.segment(Some(&[b'a'; SEGMENT_BYTES_MAX])), Some(0));
        assert_eq!(board.segment(Some(&[b'a'; SEGMENT_BYTES_MAX + 1])), Some(SEGMENTS_MAX));
        assert_eq!(board.segment(Some(b"\xff")), Some(SEGMENTS_MAX));
    }

    #[test]
    fn windows_merge_into_what_one_window_would_have_counted() {
        let (apart, together) = (board(10), board(1));
        for number in 0..1_000_u64 {
            let why = (number % 7 == 0).then_some(Why::Failed);
            let seen = Observation { why, ..seen(number * 37 % 1_000 + 1) };
            apart.observe(Of::Variant(0), None, (number % 10) as i64 * 1_000, &seen);
            together.observe(Of::Variant(0), None, 0, &seen);
        }
        let mut windows = series(&apart, 9_000, Some("a")).windows.into_iter();
        let mut merged = windows.next().unwrap();
        windows.for_each(|window| merged.merge(&window));
        let expect = &series(&together, 0, Some("a")).windows[0];
        assert_eq!((merged.requests, &merged.failures), (expect.requests, &expect.failures));
        assert_eq!(merged.scores, expect.scores);
        for level in [0.0, 0.5, 0.99, 1.0] {
            assert_eq!(merged.latency_us.quantile(level), expect.latency_us.quantile(level));
        }
    }

    /// The exact quantile of 1 to 1000 is known.
    #[test]
    fn quantiles_are_within_their_error() {
        let board = board(1);
        (1..=1_000).for_each(|us| board.observe(Of::Endpoint, None, 0, &seen(us)));
        let window = &series(&board, 0, None).windows[0];
        for level in [0.1, 0.5, 0.9, 0.99] {
            let (exact, found) = (level * 1_000.0, window.latency_us.quantile(level).unwrap());
            assert!((found - exact).abs() <= exact * 0.021 + 1.0, "{level}: {found}");
        }
    }

    #[test]
    fn scores_fall_into_their_bins() {
        let mut scores = Scores::new(0.0, 1.0);
        for score in [0.0, 0.031, 1.0, -0.1, 1.1, f64::NAN] {
            scores.add(score);
        }
        assert_eq!((scores.bins[0], scores.bins[SCORE_BINS - 1]), (2, 1));
        assert_eq!((scores.below, scores.above, scores.not_a_number, scores.count()), (1, 1, 1, 5));
    }

    #[test]
    fn pairs_are_counted_by_whose_answer_the_caller_got() {
        let board = board(3);
        board.compared(1, 0, None, 0, true, 0.0);
        board.compared(1, 0, None, 0, false, 0.5);
        let all = board.read(0);
        let mirror = all.iter().find(|series| series.is_mirrored).unwrap();
        let expect = Agreement { compared: 2, agreed: 1, difference_sum: 0.5, difference_max: 0.5 };
        assert_eq!(mirror.windows[0].agreement.get("a"), Some(&expect));
    }
}

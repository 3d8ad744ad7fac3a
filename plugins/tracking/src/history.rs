//! The history of metrics: how a batch is kept, and how one metric's values come back.
//!
//! Pure. A batch is one fragment, whatever metrics it holds, so that logging costs one append; inside, values are
//! grouped by metric with the group's length before it, so that reading one metric skips the others. Equal rows (same
//! metric, time, step and value) are one row: they are dropped when read, so that a request sent twice changes nothing.
//! A reader keeps at most a page and as much again in memory. A fragment that does not parse is a fault of storage and
//! is reported as one, never skipped.

use crate::errors::{Code, Failure, Outcome};

/// One value of a metric.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// Milliseconds since 1970.
    pub timestamp: i64,
    /// Step.
    pub step: i64,
    /// Value; never infinite.
    pub value: f64,
}

impl Point {
    /// Place in a history: time, then step, then value; NaN before every number, as its stored form (0) would blur.
    pub fn by_time(&self) -> (i64, i64, u64) {
        (self.timestamp, self.step, sortable(self.value))
    }

    /// Place in a chart: step, then time, then value.
    pub fn by_step(&self) -> (i64, i64, u64) {
        (self.step, self.timestamp, sortable(self.value))
    }
}

/// Doubles as integers in the same order, NaN first.
fn sortable(value: f64) -> u64 {
    if value.is_nan() {
        return 0;
    }
    // Negative zero equals zero.
    let bits = (value + 0.0).to_bits();
    if bits >> 63 == 0 { bits | (1 << 63) } else { !bits }
}

/// The value behind `sortable`.
fn unsortable(key: u64) -> f64 {
    match key {
        0 => f64::NAN,
        _ if key >> 63 == 1 => f64::from_bits(key & !(1 << 63)),
        _ => f64::from_bits(!key),
    }
}

const VERSION: u8 = 1;

/// Pack a batch. Metrics may repeat and come in any order.
pub fn fragment<'a>(metrics: impl IntoIterator<Item = (&'a str, Point)>) -> Vec<u8> {
    let mut rows: Vec<_> = metrics.into_iter().collect();
    rows.sort_by(|a, b| a.0.cmp(b.0));
    let mut out = Vec::with_capacity(16 + rows.len() * 24);
    out.push(VERSION);
    let base = rows.first().map_or(0, |(_, point)| point.timestamp);
    put_signed(&mut out, base);
    let mut group = Vec::new();
    for same in rows.chunk_by(|a, b| a.0 == b.0) {
        group.clear();
        let (mut timestamp, mut step) = (base, 0);
        for (_, point) in same {
            put_signed(&mut group, point.timestamp.wrapping_sub(timestamp));
            put_signed(&mut group, point.step.wrapping_sub(step));
            group.extend_from_slice(&point.value.to_le_bytes());
            (timestamp, step) = (point.timestamp, point.step);
        }
        put_unsigned(&mut out, same[0].0.len() as u64);
        out.extend_from_slice(same[0].0.as_bytes());
        put_unsigned(&mut out, group.len() as u64);
        out.extend_from_slice(&group);
    }
    out
}

/// Give every point of one metric in a fragment to `each`.
pub fn points(fragment: &[u8], metric: &str, mut each: impl FnMut(Point)) -> Outcome<()> {
    groups(fragment, |name, base, group| {
        if name != metric.as_bytes() {
            return Ok(());
        }
        read_group(base, group, &mut each)
    })
}

/// Give every point of every metric in a fragment to `each`.
pub fn all_points(fragment: &[u8], mut each: impl FnMut(&str, Point)) -> Outcome<()> {
    groups(fragment, |name, base, group| {
        let name = std::str::from_utf8(name).map_err(|_| damaged())?;
        read_group(base, group, &mut |point| each(name, point))
    })
}

fn groups(fragment: &[u8], mut each: impl FnMut(&[u8], i64, &[u8]) -> Outcome<()>) -> Outcome<()> {
    let mut reader = Reader(fragment);
    if reader.take(1)? != [VERSION] {
        return Err(damaged());
    }
    let base = reader.signed()?;
    while !reader.0.is_empty() {
        let length = reader.length()?;
        let name = reader.take(length)?;
        let length = reader.length()?;
        let group = reader.take(length)?;
        each(name, base, group)?;
    }
    Ok(())
}

fn read_group(base: i64, group: &[u8], each: &mut impl FnMut(Point)) -> Outcome<()> {
    let mut reader = Reader(group);
    let (mut timestamp, mut step) = (base, 0i64);
    while !reader.0.is_empty() {
        timestamp = timestamp.wrapping_add(reader.signed()?);
        step = step.wrapping_add(reader.signed()?);
        let value = f64::from_le_bytes(reader.take(8)?.try_into().map_err(|_| damaged())?);
        each(Point { timestamp, step, value });
    }
    Ok(())
}

fn put_unsigned(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn put_signed(out: &mut Vec<u8>, value: i64) {
    put_unsigned(out, ((value << 1) ^ (value >> 63)) as u64);
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Outcome<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or_else(damaged)?;
        self.0 = rest;
        Ok(taken)
    }

    fn unsigned(&mut self) -> Outcome<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(damaged())
    }

    fn length(&mut self) -> Outcome<usize> {
        usize::try_from(self.unsigned()?).map_err(|_| damaged())
    }

    fn signed(&mut self) -> Outcome<i64> {
        let value = self.unsigned()?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }
}

fn damaged() -> Failure {
    Failure::new(
        Code::InternalError,
        "a stored fragment of a metric's history is damaged; check the host's data folder",
    )
}

/// Collects the first rows of a history behind a place, in constant memory.
pub struct Page {
    rows: Vec<(i64, i64, u64)>,
    after: Option<(i64, i64, u64)>,
    limit: usize,
}

impl Page {
    /// A page of at most `limit` rows that come after `after`.
    pub fn new(limit: usize, after: Option<(i64, i64, u64)>) -> Self {
        Self { rows: Vec::new(), after, limit }
    }

    /// Take a point in.
    pub fn add(&mut self, point: Point) {
        let row = point.by_time();
        if self.after.is_some_and(|after| row <= after) {
            return;
        }
        self.rows.push(row);
        // One row more than the page tells whether there is another page.
        if self.rows.len() >= 2 * (self.limit + 1).max(1_024) {
            self.settle();
        }
    }

    fn settle(&mut self) {
        self.rows.sort_unstable();
        self.rows.dedup();
        self.rows.truncate(self.limit + 1);
    }

    /// The rows, and where the next page starts if there is one.
    pub fn finish(mut self) -> (Vec<Point>, Option<(i64, i64, u64)>) {
        self.settle();
        let more = self.rows.len() > self.limit;
        self.rows.truncate(self.limit);
        let next = more.then(|| self.rows.last().copied()).flatten();
        (
            self.rows
                .into_iter()
                .map(|(timestamp, step, key)| Point { timestamp, step, value: unsortable(key) })
                .collect(),
            next,
        )
    }
}

/// Sort by step and drop equal rows.
pub fn in_steps(mut points: Vec<Point>) -> Vec<Point> {
    points.sort_unstable_by_key(Point::by_step);
    points.dedup_by_key(|point| point.by_step());
    points
}

/// At most `limit` of these rows, spread evenly, the first and the last among them (the last alone for a limit of one).
/// The buckets are those of SQL's NTILE: the first `rows % limit` hold one row more.
pub fn sampled(points: &[Point], limit: usize) -> Vec<Point> {
    if points.len() <= limit {
        return points.to_vec();
    }
    let (small, larger) = (points.len() / limit, points.len() % limit);
    let mut out: Vec<_> = (0..limit).map(|bucket| points[bucket * small + bucket.min(larger)]).collect();
    if let (Some(kept), Some(last)) = (out.last_mut(), points.last()) {
        *kept = *last;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(timestamp: i64, step: i64, value: f64) -> Point {
        Point { timestamp, step, value }
    }

    #[test]
    fn fragments_come_back() {
        let rows = [
            ("b", point(5, -3, f64::NAN)),
            ("a", point(i64::MAX, i64::MIN, -0.0)),
            ("a", point(0, i64::MAX, 1e308)),
            ("", point(7, 0, -1.5)),
            ("größe/x", point(7, 1, 2.5)),
        ];
        let packed = fragment(rows);
        for (name, expect) in &rows {
            let mut found = false;
            points(&packed, name, |p| {
                found |=
                    (p.timestamp, p.step, p.value.to_bits()) == (expect.timestamp, expect.step, expect.value.to_bits());
            })
            .unwrap();
            assert!(found, "{name}");
        }
        let mut count = 0;
        all_points(&packed, |_, _| count += 1).unwrap();
        assert_eq!(count, rows.len());
        points(&packed, "none", |_| panic!("found")).unwrap();
    }

    #[test]
    fn damage_is_reported() {
        let packed = fragment([("loss", point(1, 2, 3.0)), ("acc", point(1, 2, 3.0))]);
        for cut in 0..packed.len() {
            let mut seen = 0;
            let outcome = all_points(&packed[..cut], |_, _| seen += 1);
            assert!(outcome.is_err() || seen < 2, "{cut}");
        }
        assert!(all_points(&[9, 0], |_, _| ()).is_err());
        assert!(all_points(&[1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], |_, _| ()).is_err());
    }

    #[test]
    fn pages_are_exact_whatever_order_arrives() {
        let all: Vec<_> = (0..5_000).map(|i| point(i / 3, i % 7, (i % 11) as f64)).collect();
        let mut expect: Vec<_> = all.iter().map(Point::by_time).collect();
        expect.sort_unstable();
        expect.dedup();
        for limit in [1, 2, 999, 4_999, 5_000, 6_000] {
            let (mut got, mut after) = (Vec::new(), None);
            loop {
                let mut page = Page::new(limit, after);
                all.iter().rev().chain(&all).for_each(|p| page.add(*p));
                let (rows, next) = page.finish();
                assert!(rows.len() <= limit);
                got.extend(rows.iter().map(Point::by_time));
                after = next;
                if after.is_none() || got.len() > 50 * limit {
                    break;
                }
            }
            assert_eq!(got, expect[..got.len()], "{limit}");
            assert!(after.is_some() || got.len() == expect.len());
        }
    }

    #[test]
    fn order_of_values() {
        #[track_caller]
        fn check(a: f64, b: f64) {
            assert!(sortable(a) < sortable(b), "{a} {b}");
            assert_eq!(unsortable(sortable(a)).to_bits(), a.to_bits());
        }
        check(f64::NAN, f64::MIN);
        check(-2.0, -1.0);
        check(-1.0, 0.0);
        check(0.0, f64::MIN_POSITIVE);
        check(1.0, f64::MAX);
        assert_eq!(sortable(0.0), sortable(-0.0));
    }

    #[test]
    fn samples_keep_both_ends() {
        #[track_caller]
        fn check(count: i64, limit: usize, expect: &[i64]) {
            let points: Vec<_> = (0..count).map(|i| point(0, i, 0.0)).collect();
            let steps: Vec<_> = sampled(&points, limit).iter().map(|p| p.step).collect();
            assert_eq!(steps, expect);
        }
        check(3, 5, &[0, 1, 2]);
        check(5, 5, &[0, 1, 2, 3, 4]);
        check(10, 1, &[9]);
        check(10, 2, &[0, 9]);
        check(10, 4, &[0, 3, 6, 9]);
        check(0, 4, &[]);
    }
}

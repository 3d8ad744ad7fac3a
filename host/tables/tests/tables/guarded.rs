//! Aggregates for those who may not read, and attempts to read through them.

use std::sync::Arc;
use std::time::Duration;

use arrow_array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use mainstay_base::{ErrorKind, Result, SimDisk, VirtualClock};
use mainstay_store::Store;
use mainstay_tables::limits::{CALLERS_MAX, GROUPS_MAX, REMEMBERED_WINDOWS_MAX};
use mainstay_tables::{
    Budget, ColumnSpec, Guard, GuardedAnswer, GuardedQuery, Key, Kind, Mark, Measure, Table, TableSpec, Tables,
    TablesOptions,
};

use crate::support::*;

/// Groups by size, in the order of time a row a second.
struct House {
    clock: Arc<VirtualClock>,
    tables: Tables,
    table: Table,
    guard: Guard,
    next: i64,
}

const NOW_MS: i64 = 10_000_000;

impl House {
    fn new(groups: &[(&str, usize)]) -> House {
        House::with_budget(groups, Budget::default())
    }

    fn with_budget(groups: &[(&str, usize)], budget: Budget) -> House {
        let disk = SimDisk::new();
        let clock = Arc::new(VirtualClock::new(NOW_MS));
        let options = TablesOptions { clock: clock.clone(), ..tables_options(&disk) };
        let tables = Tables::open(Store::open(store_options(&disk)).unwrap(), options).unwrap();
        let columns = vec![
            ColumnSpec::new("at", Kind::Timestamp),
            ColumnSpec::new("kind", Kind::Text).nullable(),
            ColumnSpec::new("x", Kind::F64).nullable(),
            ColumnSpec::new("rare", Kind::I64).nullable(),
            ColumnSpec::new("income", Kind::F64).nullable().marked(Mark::Restrict),
        ];
        let table = tables.create("t", &TableSpec::new("at", columns)).unwrap();
        let guard = Guard::new(&tables, budget);
        let mut house = House { clock, tables, table, guard, next: 0 };
        for (kind, count) in groups {
            house.append(kind, *count);
        }
        house.table.compact(0).unwrap();
        house
    }

    /// Rows a second apart, where `x` is the number of the row and `rare` is there in every tenth.
    fn append(&mut self, kind: &str, count: usize) {
        self.append_at(kind, (self.next..self.next + count as i64).map(|at| at * 1_000_000).collect());
        self.next += count as i64;
    }

    fn append_at(&self, kind: &str, times: Vec<i64>) {
        let numbers: Vec<i64> = times.iter().map(|time| time / 1_000_000).collect();
        let columns: [(&str, ArrayRef); 4] = [
            ("kind", Arc::new(StringArray::from(vec![kind; times.len()]))),
            ("x", Arc::new(numbers.iter().map(|at| Some(*at as f64)).collect::<Float64Array>())),
            ("rare", Arc::new(numbers.iter().map(|at| (at % 10 == 0).then_some(*at)).collect::<Int64Array>())),
            ("at", Arc::new(Int64Array::from(times))),
        ];
        let columns = columns.into_iter().map(|(name, array)| (name, array, true));
        self.table.append_blocking(&RecordBatch::try_from_iter_with_nullable(columns).unwrap(), None).unwrap();
    }

    fn ask(&self, window_s: (i64, i64), by: &[&str], measures: &[Measure]) -> Result<GuardedAnswer> {
        let query = GuardedQuery {
            table: "t".into(),
            from_ms: window_s.0 * 1_000,
            until_ms: window_s.1 * 1_000,
            by: by.iter().map(|name| (*name).to_owned()).collect(),
            measures: measures.to_vec(),
        };
        self.guard.ask_blocking("a caller", &query, Duration::from_secs(30))
    }

    /// Groups that something is said of.
    fn kinds(&self, window_s: (i64, i64)) -> Vec<String> {
        let answer = self.ask(window_s, &["kind"], &[Measure::Rows]).unwrap();
        let key = |key: &Key| if let Key::Text(text) = key { text.clone() } else { format!("{key:?}") };
        answer.groups.iter().map(|group| key(&group.key[0])).collect()
    }
}

fn mean(column: &str) -> Measure {
    Measure::Mean(column.into())
}

fn kind_of<T: std::fmt::Debug>(result: Result<T>) -> ErrorKind {
    result.unwrap_err().kind()
}

#[test]
fn groups_are_counted_and_measured() {
    let house = House::new(&[("a", 40), ("b", 25)]);
    let quantile = Measure::Quantile { column: "x".into(), percent: 50 };
    let measures = [Measure::Rows, mean("x"), Measure::Sum("x".into()), quantile];
    let answer = house.ask((0, 65), &["kind"], &measures).unwrap();
    assert!(!answer.has_hidden && answer.missing.is_empty());
    let values: Vec<Vec<f64>> =
        answer.groups.iter().map(|group| group.values.iter().map(|value| value.unwrap()).collect()).collect();
    // 0 … 39, and 40 … 64.
    assert_eq!(values, [vec![40.0, 19.5, 780.0, 19.5], vec![25.0, 52.0, 1_300.0, 52.0]]);
    let whole = house.ask((0, 65), &[], &[mean("x")]).unwrap();
    assert_eq!((whole.groups[0].key.len(), whole.groups[0].values[0]), (0, Some(32.0)));
}

#[test]
fn nothing_is_said_of_nineteen_rows() {
    let house = House::new(&[("a", 30), ("b", 19), ("c", 20), ("d", 40)]);
    // With the nineteen the smallest other is hidden, or all less the others would tell.
    assert_eq!(house.kinds((0, 109)), ["a", "d"]);
    assert!(house.ask((0, 109), &["kind"], &[mean("x")]).unwrap().has_hidden);
    let house = House::new(&[("a", 20), ("b", 19), ("c", 1)]);
    assert_eq!(house.kinds((0, 40)), ["a"]);
    let few = House::new(&[("a", 19)]).ask((0, 100), &[], &[mean("x")]).unwrap();
    assert!(few.groups.is_empty() && few.has_hidden);
    // Of 100 rows ten have a value.
    let house = House::new(&[("a", 100)]);
    let answer = house.ask((0, 100), &[], &[Measure::Rows, mean("rare")]).unwrap();
    assert_eq!(answer.groups[0].values, [Some(100.0), None]);
    let house = House::new(&[("a", 200)]);
    assert_eq!(house.ask((0, 200), &[], &[mean("rare")]).unwrap().groups[0].values, [Some(95.0)]);
}

#[test]
fn windows_that_differ_by_few_rows_say_nothing() {
    fn check(first: (i64, i64), second: (i64, i64), expect: usize) {
        let house = House::new(&[("a", 300)]);
        assert_eq!(house.ask(first, &[], &[mean("x")]).unwrap().groups.len(), 1);
        let found = house.ask(second, &[], &[mean("x")]).unwrap().groups.len();
        assert_eq!(found, expect, "{first:?} {second:?}");
        // Another caller has nothing to compare it with.
        let query = GuardedQuery {
            table: "t".into(),
            from_ms: second.0 * 1_000,
            until_ms: second.1 * 1_000,
            by: vec![],
            measures: vec![mean("x")],
        };
        let other = house.guard.ask_blocking("another", &query, Duration::from_secs(30)).unwrap();
        assert_eq!(other.groups.len(), 1);
    }
    check((0, 100), (0, 100), 1);
    check((0, 100), (0, 101), 0);
    check((0, 101), (0, 100), 0);
    check((0, 100), (1, 100), 0);
    check((0, 100), (0, 119), 0);
    check((0, 100), (0, 120), 1);
    check((0, 100), (20, 120), 1);
    check((0, 100), (19, 120), 0);
    // Where nothing lies between two ends they are the same.
    check((0, 300), (0, 900), 1);
    check((0, 100), (150, 300), 1);
    check((0, 100), (100, 300), 1);
}

#[test]
fn three_windows_say_no_more_than_two() {
    let house = House::new(&[("a", 300)]);
    // The third less the second and first would be one row.
    assert_eq!(house.ask((0, 100), &[], &[mean("x")]).unwrap().groups.len(), 1);
    assert_eq!(house.ask((0, 200), &[], &[mean("x")]).unwrap().groups.len(), 1);
    assert_eq!(house.ask((100, 201), &[], &[mean("x")]).unwrap().groups.len(), 0);
}

#[test]
fn a_group_that_few_rows_more_would_show_is_hidden() {
    let mut house = House::new(&[("a", 100), ("b", 100)]);
    assert_eq!(house.kinds((0, 200)), ["a", "b"]);
    house.append("a", 40);
    house.append("b", 1);
    // One row of `b` lies between the ends of the two windows.
    assert_eq!(house.kinds((0, 241)), ["a"]);
}

#[test]
fn rows_that_come_late_are_not_the_difference() {
    let house = House::new(&[("a", 100)]);
    let late = |count: i64| house.append_at("a", (0..count).map(|at| 50_000_000 + at).collect());
    assert_eq!(house.ask((0, 100), &[], &[mean("x")]).unwrap().groups.len(), 1);
    late(1);
    assert_eq!(kind_of(house.ask((0, 100), &[], &[mean("x")])), ErrorKind::Exhausted);
    assert_eq!(kind_of(house.ask((0, 150), &[], &[mean("x")])), ErrorKind::Exhausted);
    assert_eq!(kind_of(house.ask((0, 100), &["kind"], &[mean("x")])), ErrorKind::Exhausted);
    late(19);
    assert_eq!(house.ask((0, 100), &[], &[Measure::Rows]).unwrap().groups[0].values, [Some(120.0)]);
}

#[test]
fn single_values_are_never_said() {
    for name in ["min", "max", "first", "last"] {
        assert_eq!(kind_of(Measure::named(name, "x", 0)), ErrorKind::Denied, "{name}");
    }
    assert_eq!(kind_of(Measure::named("median", "x", 0)), ErrorKind::Invalid);
    let house = House::new(&[("a", 300)]);
    let quantile = |percent: u8| {
        let measure = Measure::named("quantile", "x", percent).unwrap();
        house.ask((0, 300), &[], &[measure]).map(|answer| answer.groups[0].values[0])
    };
    assert_eq!(quantile(5).unwrap(), Some(14.95));
    assert_eq!(quantile(95).unwrap(), Some(284.05));
    for percent in [0, 4, 96, 100, 255] {
        assert_eq!(kind_of(quantile(percent)), ErrorKind::Denied, "{percent}");
    }
    // 5 % of 40 rows would be the third.
    let house = House::new(&[("a", 40)]);
    let answer = house.ask((0, 40), &[], &[Measure::Quantile { column: "x".into(), percent: 5 }]).unwrap();
    assert_eq!(answer.groups[0].values, [None]);
}

#[test]
fn what_may_not_be_asked_is_refused_by_name() {
    let house = House::new(&[("a", 100)]);
    let check = |window: (i64, i64), by: &[&str], measures: &[Measure], expect: ErrorKind| {
        let error = house.ask(window, by, measures).unwrap_err();
        assert_eq!(error.kind(), expect, "{error}");
    };
    let rows = [Measure::Rows];
    check((0, 100), &[], &[mean("income")], ErrorKind::Denied);
    check((0, 100), &[], &[mean("nothing")], ErrorKind::NotFound);
    check((0, 100), &[], &[mean("kind")], ErrorKind::Invalid);
    check((0, 100), &[], &[mean("at")], ErrorKind::Invalid);
    check((0, 100), &["x"], &rows, ErrorKind::Invalid);
    check((0, 100), &["at"], &rows, ErrorKind::Invalid);
    check((0, 100), &["kind", "kind"], &rows, ErrorKind::Invalid);
    check((0, 100), &["kind", "rare", "kind"], &rows, ErrorKind::Invalid);
    check((0, 100), &[], &[], ErrorKind::Invalid);
    check((0, 100), &[], &vec![Measure::Rows; 17], ErrorKind::Invalid);
    house.ask((0, 100), &["kind", "rare"], &vec![Measure::Rows; 16]).unwrap();
    check((100, 100), &[], &rows, ErrorKind::Invalid);
    // What is still coming may not be asked about: each row that came would be the difference.
    check((0, NOW_MS / 1_000 + 1), &[], &rows, ErrorKind::Invalid);
    house.ask((0, NOW_MS / 1_000), &[], &rows).unwrap();
}

#[test]
fn a_budget_is_spent_and_fills_up() {
    let budget = Budget { measures: 10, refilled_in: Duration::from_secs(100) };
    let house = House::with_budget(&[("a", 100)], budget);
    for _ in 0..5 {
        house.ask((0, 100), &[], &[Measure::Rows, mean("x")]).unwrap();
    }
    let error = house.ask((0, 100), &[], &[Measure::Rows]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Exhausted);
    assert!(error.message().contains("ask again in 10 seconds"), "{error}");
    house.clock.advance_ms(10_000);
    house.ask((0, 100), &[], &[Measure::Rows]).unwrap();
    assert_eq!(kind_of(house.ask((0, 100), &[], &[Measure::Rows])), ErrorKind::Exhausted);
    // Asking again and again gives no more than asking once.
    house.clock.advance_ms(100_000_000);
    let many = vec![Measure::Rows; 11];
    assert_eq!(kind_of(house.ask((0, 100), &[], &many)), ErrorKind::Exhausted);
    house.ask((0, 100), &[], &many[..10]).unwrap();
    assert_eq!(house.tables.list().len(), 1);
}

#[test]
fn groups_callers_and_windows_are_bounded() {
    let groups = |count: usize| {
        let names: Vec<String> = (0..count).map(|at| format!("{at:03}")).collect();
        House::new(&names.iter().map(|name| (&**name, 20)).collect::<Vec<_>>())
    };
    let most = groups(GROUPS_MAX);
    assert_eq!(most.kinds((0, 9_000)).len(), GROUPS_MAX);
    let house = groups(GROUPS_MAX + 1);
    assert_eq!(kind_of(house.ask((0, 9_000), &["kind"], &[Measure::Rows])), ErrorKind::Exhausted);

    let query =
        GuardedQuery { table: "t".into(), from_ms: 0, until_ms: 1_000, by: vec![], measures: vec![Measure::Rows] };
    let small = House::new(&[("a", 20)]);
    let ask = |caller: usize| small.guard.ask_blocking(&caller.to_string(), &query, Duration::from_secs(30));
    (0..CALLERS_MAX).for_each(|caller| drop(ask(caller).unwrap()));
    assert_eq!(kind_of(ask(CALLERS_MAX)), ErrorKind::Exhausted);
    small.clock.advance_ms(24 * 3_600_000);
    ask(CALLERS_MAX).unwrap();

    // A window is compared with so many before it.
    let is_shown = |others: i64| {
        let house = House::new(&[("a", 3_000)]);
        house.ask((0, 100), &[], &[mean("x")]).unwrap();
        (1..=others).for_each(|at| drop(house.ask((at * 60 + 100, at * 60 + 150), &[], &[mean("x")]).unwrap()));
        !house.ask((0, 101), &[], &[mean("x")]).unwrap().groups.is_empty()
    };
    assert_eq!((is_shown(REMEMBERED_WINDOWS_MAX as i64 - 1), is_shown(REMEMBERED_WINDOWS_MAX as i64)), (false, true));
}

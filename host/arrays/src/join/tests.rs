//! The join against its definition, row by row, on all kinds of keys, times and rules.

use proptest::prelude::*;

use super::*;

/// One row: keys, time, and when it was recorded.
type Row = (Vec<Option<i64>>, i64, Option<i64>);

/// The definition: every row of the history is looked at.
fn expected(rows: &[Row], history: &[Row], rule: &Rule) -> Vec<Option<usize>> {
    let belongs = |row: &Row, past: &Row| {
        let is_same = row.0.iter().zip(&past.0).all(|(one, other)| one.is_some() && one == other);
        let age = i128::from(row.1) - i128::from(past.1);
        let is_past = if rule.is_time_included { age >= 0 } else { age > 0 };
        let is_young = rule.time_to_live.is_none_or(|most| {
            let most = i128::from(most);
            if rule.is_oldest_included { age <= most } else { age < most }
        });
        let is_recorded = !rule.must_be_recorded || past.2.is_none_or(|recorded| recorded <= row.1);
        is_same && is_past && is_young && is_recorded
    };
    let find = |row: &Row| {
        let all = history.iter().enumerate().filter(|(_, past)| belongs(row, past));
        all.max_by_key(|(at, past)| (past.1, past.2.unwrap_or(i64::MIN), *at)).map(|(at, _)| at)
    };
    rows.iter().map(find).collect()
}

fn whole(values: &[Option<i64>]) -> Column {
    let there: Vec<bool> = values.iter().map(Option::is_some).collect();
    let values: Vec<i64> = values.iter().map(|value| value.unwrap_or_default()).collect();
    Column::i64(&values, Some(&there))
}

fn text(values: &[Option<i64>]) -> Column {
    let texts: Vec<Option<String>> = values.iter().map(|value| value.map(|value| format!("key {value}"))).collect();
    Column::text(texts.iter().map(Option::as_deref))
}

/// The same values in two chunks.
fn cut(column: Column, at: usize) -> Column {
    let at = at.min(column.len());
    let parts = [column.slice(0, at).unwrap(), column.slice(at, column.len() - at).unwrap()];
    Column::concat(&parts).unwrap()
}

fn check(rows: &[Row], history: &[Row], rule: &Rule, is_text: bool) {
    let keys = |rows: &[Row]| -> Vec<Column> {
        let width = rows.first().map_or(1, |row| row.0.len());
        let of = |at: usize| rows.iter().map(|row| row.0[at]).collect::<Vec<_>>();
        // The last key may be text.
        (0..width)
            .map(|at| if is_text && at + 1 == width { text(&of(at)) } else { whole(&of(at)) })
            .map(|column| cut(column, rows.len() / 3))
            .collect()
    };
    let times =
        |rows: &[Row]| cut(Column::i64(&rows.iter().map(|row| row.1).collect::<Vec<_>>(), None), rows.len() / 2);
    let recorded = whole(&history.iter().map(|row| row.2).collect::<Vec<_>>());
    let is_recorded = rule.must_be_recorded || history.iter().any(|row| row.2.is_some());
    let (row_keys, past_keys, row_times, past_times) = (keys(rows), keys(history), times(rows), times(history));
    let matches = as_of(
        &Side { keys: &row_keys, times: &row_times },
        &Side { keys: &past_keys, times: &past_times },
        is_recorded.then_some(&recorded),
        rule,
    );
    let matches = matches.unwrap();
    let wanted = expected(rows, history, rule);
    assert_eq!(matches.iter().collect::<Vec<_>>(), wanted);
    assert_eq!(matches.found(), wanted.iter().flatten().count());
    let taken = matches.take(&past_times).unwrap();
    let mut values = Vec::new();
    taken.numbers().unwrap().for_each(|value| values.push(value));
    let times_wanted: Vec<Option<f64>> = wanted.iter().map(|row| row.map(|row| history[row].1 as f64)).collect();
    assert_eq!(values, times_wanted);
}

fn a_row(width: usize) -> impl Strategy<Value = Row> {
    let key = prop_oneof![4 => (0_i64..4).prop_map(Some), 1 => Just(None), 1 => prop_oneof![Just(i64::MIN), Just(i64::MAX)].prop_map(Some)];
    let time = prop_oneof![9 => -20_i64..20, 1 => prop_oneof![Just(i64::MIN), Just(i64::MAX)]];
    (proptest::collection::vec(key, width), time.clone(), proptest::option::of(time))
}

fn a_rule() -> impl Strategy<Value = Rule> {
    let time_to_live = proptest::option::of(prop_oneof![9 => 0_u64..15, 1 => Just(u64::MAX)]);
    let rule = (time_to_live, any::<bool>(), any::<bool>(), any::<bool>());
    rule.prop_map(|(time_to_live, is_time_included, is_oldest_included, must_be_recorded)| Rule {
        time_to_live,
        is_time_included,
        is_oldest_included,
        must_be_recorded,
    })
}

fn both_sides() -> impl Strategy<Value = (Vec<Row>, Vec<Row>)> {
    (1_usize..=3).prop_flat_map(|width| {
        let side = || proptest::collection::vec(a_row(width), 1..40);
        (side(), side())
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn every_row_finds_what_the_definition_says(
        (rows, history) in both_sides(), rule in a_rule(), is_text in any::<bool>()
    ) {
        check(&rows, &history, &rule, is_text);
    }

    /// As logs are: another way is taken then.
    #[test]
    fn rows_in_the_order_of_time_find_it_too(
        (mut rows, mut history) in both_sides(), rule in a_rule(), is_text in any::<bool>()
    ) {
        rows.sort_by_key(|row| row.1);
        history.sort_by_key(|row| row.1);
        history.iter_mut().for_each(|row| row.2 = None);
        check(&rows, &history, &Rule { must_be_recorded: false, ..rule }, is_text);
    }
}

#[test]
fn sides_that_are_empty_match_nothing() {
    let (none, one) = (Column::i64(&[], None), Column::i64(&[7], None));
    let join = |rows: &Column, past: &Column| {
        let side = |column| Side { keys: std::slice::from_ref(column), times: column };
        as_of(&side(rows), &side(past), None, &Rule::default()).unwrap()
    };
    assert_eq!(join(&none, &one).iter().count(), 0);
    let matches = join(&one, &none);
    assert_eq!(matches.iter().collect::<Vec<_>>(), [None]);
    assert_eq!(matches.take(&Column::f64(&[], None)).unwrap().missing(), 1);
    assert_eq!(matches.take(&Column::text([])).unwrap().missing(), 1);
    // Without keys every row is of one key.
    let all =
        as_of(&Side { keys: &[], times: &one }, &Side { keys: &[], times: &one }, None, &Rule::default()).unwrap();
    assert_eq!(all.iter().collect::<Vec<_>>(), [Some(0)]);
}

#[test]
fn what_does_not_fit_is_named() {
    let (whole, real, short) = (Column::i64(&[1, 2], None), Column::f64(&[1.0, 2.0], None), Column::i64(&[1], None));
    let gap = Column::i64(&[1, 2], Some(&[true, false]));
    let words = Column::text([Some("a"), Some("b")]);
    let check = |row_keys: &[Column], row_times: &Column, past_keys: &[Column], past_times: &Column, words: &[&str]| {
        let rows = Side { keys: row_keys, times: row_times };
        let error = as_of(&rows, &Side { keys: past_keys, times: past_times }, None, &Rule::default()).unwrap_err();
        words.iter().for_each(|word| assert!(error.to_string().contains(word), "{error}"));
    };
    let key = std::slice::from_ref(&whole);
    check(key, &gap, key, &whole, &["the rows", "row 1", "no time"]);
    check(key, &whole, key, &gap, &["the history", "row 1", "no time"]);
    check(key, &real, key, &whole, &["the times of the rows", "f64"]);
    check(key, &whole, &[words], &whole, &["key 0", "text"]);
    check(&[real], &whole, key, &whole, &["key 0", "f64"]);
    check(key, &whole, &[], &whole, &["1 keys", "0"]);
    check(&[short], &whole, key, &whole, &["the rows", "1 values in key 0"]);
    let side = Side { keys: key, times: &whole };
    let rule = Rule { must_be_recorded: true, ..Rule::default() };
    assert!(as_of(&side, &side, None, &rule).unwrap_err().to_string().contains("recorded"));
    assert!(as_of(&side, &side, Some(&Column::i64(&[1], None)), &rule).unwrap_err().to_string().contains("one each"));
    let matches = as_of(&side, &side, None, &Rule::default()).unwrap();
    assert!(matches.take(&Column::i64(&[1], None)).is_err());
}

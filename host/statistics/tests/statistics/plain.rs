//! Fast paths against loops that follow the definitions.

use mainstay_arrays::{Column, Numbers};
use mainstay_statistics::*;
use proptest::prelude::*;

fn few_levels(len: impl Into<prop::collection::SizeRange>) -> impl Strategy<Value = Vec<f64>> {
    prop::collection::vec((0..12i32).prop_map(f64::from), len)
}

fn numbers(values: &[f64]) -> Numbers<'_> {
    Numbers::of_f64(&[&values[..values.len() / 2], &values[values.len() / 2..]])
}

/// Label, prediction, two groups, whether the first is there.
type Row = (u8, u8, i64, u8, bool);

/// Mann and Whitney's count over all pairs.
fn pairs(labels: &[f64], scores: &[f64]) -> Option<f64> {
    let of = |class: f64| labels.iter().zip(scores).filter(move |(label, _)| **label == class).map(|(_, score)| *score);
    let count = of(1.0).count() * of(0.0).count();
    let wins = of(1.0)
        .flat_map(|one| of(0.0).map(move |zero| if one > zero { 1.0 } else { f64::from(u8::from(one == zero)) / 2.0 }));
    (count > 0).then(|| wins.sum::<f64>() / count as f64)
}

/// All orders of two samples, by the recurrence over lattice paths in integers.
fn paths(n1: usize, n2: usize, touches: impl Fn(i64, i64) -> bool) -> f64 {
    let (mut total, mut free) = (vec![vec![0f64; n2 + 1]; n1 + 1], vec![vec![0f64; n2 + 1]; n1 + 1]);
    for x in 0..=n1 {
        for y in 0..=n2 {
            let sum = |table: &[Vec<f64>]| {
                (if x > 0 { table[x - 1][y] } else { 0.0 }) + (if y > 0 { table[x][y - 1] } else { 0.0 })
            };
            total[x][y] = if x + y == 0 { 1.0 } else { sum(&total) };
            let reached = if x + y == 0 { 1.0 } else { sum(&free) };
            free[x][y] = if touches(x as i64, y as i64) { 0.0 } else { reached };
        }
    }
    1.0 - free[n1][n2] / total[n1][n2]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn area_is_the_share_of_pairs(rows in prop::collection::vec((0..2u8, 0..9i8), 2..300)) {
        let labels: Vec<f64> = rows.iter().map(|row| f64::from(row.0)).collect();
        let scores: Vec<f64> = rows.iter().map(|row| f64::from(row.1)).collect();
        let expect = pairs(&labels, &scores);
        match roc_auc(&numbers(&labels), &numbers(&scores), None, Missing::Refuse) {
            Ok(area) => prop_assert!((area - expect.unwrap()).abs() < 1e-12),
            Err(fault) => prop_assert!(fault.code() == "single_class" && expect.is_none()),
        }
    }

    #[test]
    fn distance_and_exact_probability(first in few_levels(1..25), second in few_levels(1..25)) {
        let share = |values: &[f64], at: f64| values.iter().filter(|value| **value <= at).count() as f64 / values.len() as f64;
        let gaps = || (0..12).map(|at| share(&first, f64::from(at)) - share(&second, f64::from(at)));
        let (up, down) = (gaps().fold(0.0, f64::max), gaps().map(|gap| -gap).fold(0.0, f64::max));
        let (n1, n2) = (first.len(), second.len());
        let ask = |alternative| {
            ks_two_sample(&numbers(&first), &numbers(&second), Method::Exact, alternative, Missing::Refuse).unwrap()
        };
        let gap = |x: i64, y: i64| x as f64 / n1 as f64 - y as f64 / n2 as f64;
        for (alternative, distance) in
            [(Alternative::Greater, up), (Alternative::Less, down), (Alternative::TwoSided, up.max(down))]
        {
            let found = ask(alternative);
            prop_assert!((found.statistic - distance).abs() < 1e-12);
            let expect = match alternative {
                Alternative::TwoSided => paths(n1, n2, |x, y| gap(x, y).abs() >= distance - 1e-9),
                Alternative::Greater => paths(n1, n2, |x, y| gap(x, y) >= distance - 1e-9),
                Alternative::Less => paths(n1, n2, |x, y| -gap(x, y) >= distance - 1e-9),
            };
            prop_assert!((found.p_value - expect).abs() < 1e-12, "{} is not {}", found.p_value, expect);
        }
    }

    #[test]
    fn a_resample_is_the_metric_of_its_rows(
        rows in prop::collection::vec((0..2u8, 0..9i8, 0..9i8), 4..120),
        seed: u64,
    ) {
        let labels: Vec<f64> = rows.iter().map(|row| f64::from(row.0)).collect();
        let scores: Vec<f64> = rows.iter().map(|row| f64::from(row.1)).collect();
        let others: Vec<f64> = rows.iter().map(|row| f64::from(row.2)).collect();
        prop_assume!(pairs(&labels, &scores).is_some());
        let (y, s, o) = (numbers(&labels), numbers(&scores), numbers(&others));
        let area = Metric::area(&y, &s, Missing::Refuse).unwrap();
        let other = Metric::area(&y, &o, Missing::Refuse).unwrap();
        let mean = Metric::mean(&s, Missing::Refuse).unwrap();
        let take = |number: u32, values: &[f64]| -> Vec<f64> {
            let stream = Stream::new(seed, number);
            (0..rows.len()).map(|draw| values[stream.below(draw as u64, rows.len() as u32) as usize]).collect()
        };
        let index: Vec<u32> = (0..5).flat_map(|_| 0..rows.len() as u32).collect();
        let plan = Plan { resamples: 5, level: 0.5, draws: Draws::Seed(seed) };
        let used = (0..5).filter_map(|number| pairs(&take(number, &labels), &take(number, &scores)));
        let used: Vec<f64> = used.collect();
        match bootstrap(&area, &plan) {
            Ok(found) => {
                prop_assert_eq!((found.used, found.skipped), (used.len(), 5 - used.len()));
                prop_assert!((found.mean - used.iter().sum::<f64>() / used.len() as f64).abs() < 1e-12);
            }
            Err(fault) => prop_assert!(used.is_empty() && fault.code() == "single_class"),
        }
        let found = bootstrap(&mean, &plan).unwrap();
        let means = (0..5).map(|number| take(number, &scores).iter().sum::<f64>() / rows.len() as f64);
        prop_assert!((found.mean - means.sum::<f64>() / 5.0).abs() < 1e-12);
        let differences: Vec<f64> = (0..5)
            .filter_map(|number| {
                let labels = take(number, &labels);
                Some(pairs(&labels, &take(number, &scores))? - pairs(&labels, &take(number, &others))?)
            })
            .collect();
        if let Ok(found) = bootstrap_difference(&area, &other, &plan) {
            prop_assert!((found.mean - differences.iter().sum::<f64>() / differences.len() as f64).abs() < 1e-12);
        }
        // Every row once, five times: the point itself.
        let given = bootstrap(&area, &Plan { draws: Draws::Given(&index), ..plan }).unwrap();
        prop_assert!((given.low - area.point()).abs() < 1e-12 && given.std < 1e-12 && given.used == 5);
    }

    #[test]
    fn rates_are_those_of_a_plain_loop(rows in prop::collection::vec((0..2u8, 0..2u8, 0..6i64, 0..4u8, any::<bool>()), 1..300)) {
        let column = |of: &dyn Fn(&Row) -> f64| rows.iter().map(of).collect::<Vec<f64>>();
        let (labels, guesses) = (column(&|row| f64::from(row.0)), column(&|row| f64::from(row.1)));
        let there: Vec<bool> = rows.iter().map(|row| row.4 || row.2 > 0).collect();
        let ages = Column::i64(&rows.iter().map(|row| row.2 * 5_000 - 3).collect::<Vec<i64>>(), Some(&there));
        let names: Vec<String> = rows.iter().map(|row| format!("n{}", row.3)).collect();
        let names = Column::text(names.iter().map(|name| Some(&name[..])));
        let (ages, names) = (ages.numbers().unwrap(), names.texts().unwrap());
        let keys = [Key::Texts(&names), Key::Numbers(&ages)];
        prop_assume!(there.iter().any(|there| *there));
        let found = rates_by_group(&numbers(&labels), &numbers(&guesses), &keys, None, Missing::Omit).unwrap();
        prop_assert!(found.groups.is_sorted_by(|a, b| a.key < b.key));
        let mut count = 0;
        for group in &found.groups {
            let of_group = |row: &Row, there: bool| {
                there && group.key == [KeyValue::Text(format!("n{}", row.3).into()), KeyValue::Integer(row.2 * 5_000 - 3)]
            };
            let own: Vec<_> = rows.iter().zip(&there).filter(|(row, there)| of_group(row, **there)).map(|pair| pair.0).collect();
            let share = |hits: usize, of: usize| if of == 0 { 0.0 } else { hits as f64 / of as f64 };
            let ones = own.iter().filter(|row| row.0 == 1).count();
            let hits = own.iter().filter(|row| row.0 == 1 && row.1 == 1).count();
            let chosen = own.iter().filter(|row| row.1 == 1).count();
            prop_assert_eq!(group.rates.count, own.len() as u64);
            prop_assert_eq!(group.rates.selection_rate, share(chosen, own.len()));
            prop_assert_eq!(group.rates.true_positive_rate, share(hits, ones));
            prop_assert_eq!(group.rates.false_positive_rate, share(chosen - hits, own.len() - ones));
            count += own.len();
        }
        prop_assert_eq!(count, there.iter().filter(|there| **there).count());
    }

    #[test]
    fn categories_of_texts_and_codes(first in prop::collection::vec(0..9u8, 1..100), second in prop::collection::vec(3..12u8, 1..100)) {
        let texts = |codes: &[u8]| {
            let named: Vec<String> = codes.iter().map(|code| format!("{code:02}")).collect();
            Column::text(named.iter().map(|name| Some(&name[..])))
        };
        let (a, b) = (texts(&first), texts(&second));
        let by_text = union_of_texts(&a.texts().unwrap(), &b.texts().unwrap(), Missing::Refuse).unwrap();
        let (a, b) = (Column::u8(&first, None), Column::u8(&second, None));
        let by_code = union_of_codes(&a.numbers().unwrap(), &b.numbers().unwrap(), Missing::Refuse).unwrap();
        prop_assert_eq!(&by_text.reference, &by_code.reference);
        prop_assert_eq!(&by_text.current, &by_code.current);
        let count = |codes: &[u8], code: f64| codes.iter().filter(|other| f64::from(**other) == code).count() as u64;
        for (at, code) in by_code.categories.iter().enumerate() {
            prop_assert_eq!((by_code.reference[at], by_code.current[at]), (count(&first, *code), count(&second, *code)));
        }
    }

    #[test]
    fn counts_and_sketches(values in prop::collection::vec(prop_oneof![Just(f64::NAN), -50.0..50.0f64, Just(7.0)], 1..500)) {
        let found = number_counts(&numbers(&values), Some((-10.0, 10.0)), Some(1_000)).unwrap();
        let count = |of: &dyn Fn(f64) -> bool| values.iter().filter(|value| of(**value)).count() as u64;
        prop_assert_eq!((found.nan, found.null), (count(&|value| value.is_nan()), 0));
        prop_assert_eq!((found.below, found.above), (count(&|value| value < -10.0), count(&|value| value > 10.0)));
        let mut there: Vec<f64> = values.iter().copied().filter(|value| !value.is_nan()).collect();
        there.sort_by(f64::total_cmp);
        let mut sketch = QuantileSketch::new(0.01).unwrap();
        sketch.add(&numbers(&values), Missing::Omit).unwrap();
        if !there.is_empty() {
            let rank = (there.len() - 1) / 3;
            let got = sketch.quantile(rank as f64 / (there.len() - 1).max(1) as f64).unwrap();
            let near = |at: usize| (got - there[at]).abs() <= 0.0101 * there[at].abs() + 1e-12;
            prop_assert!(near(rank) || near(rank.saturating_sub(1)), "{} is not {}", got, there[rank]);
        }
        there.dedup();
        prop_assert_eq!(found.distinct, Some(Distinct::Exactly(there.len() as u64)));
    }
}

#[test]
fn many_distinct_values_are_estimated() {
    let values = crate::uniform(300_000, 9);
    let found = number_counts(&numbers(&values), None, Some(1_000)).unwrap();
    let mut sorted = values;
    sorted.sort_by(f64::total_cmp);
    sorted.dedup();
    let Some(Distinct::About { estimate, low, high }) = found.distinct else { panic!("it is too many to count") };
    assert!((estimate / sorted.len() as f64 - 1.0).abs() < 0.02 && low <= estimate && estimate <= high, "{estimate}");
}

#[test]
fn parts_of_a_merge_meet() {
    // More than one part of every kernel that merges, with ties across their ends.
    let (labels, scores) = (crate::sample(900_000, 3, 2.0, 1.0, 0.0), crate::sample(900_000, 4, 50.0, 1.0, 0.0));
    let mut table = [[0u64; 2]; 50];
    labels.iter().zip(&scores).for_each(|(label, score)| table[*score as usize][*label as usize] += 1);
    let (mut below, mut halves) = (0, 0);
    for [zeros, ones] in table {
        halves += ones * (2 * below + zeros);
        below += zeros;
    }
    let ones = labels.len() as u64 - below;
    let expect = halves as f64 / 2.0 / ones as f64 / below as f64;
    let got = roc_auc(&numbers(&labels), &numbers(&scores), None, Missing::Refuse).unwrap();
    assert!((got - expect).abs() < 1e-14, "{got} is not {expect}");
    let ones: Vec<f64> = scores.iter().zip(&labels).filter(|pair| *pair.1 == 1.0).map(|pair| *pair.0).collect();
    let found = ks_two_sample(&numbers(&scores), &numbers(&ones), Method::Auto, Alternative::TwoSided, Missing::Refuse)
        .unwrap();
    let (mut all, mut own, mut expect) = (0, 0, 0.0f64);
    for [zeros, ones_here] in table {
        (all, own) = (all + zeros + ones_here, own + ones_here);
        expect = expect.max((all as f64 / scores.len() as f64 - own as f64 / ones.len() as f64).abs());
    }
    assert!((found.statistic - expect).abs() < 1e-14, "{} is not {expect}", found.statistic);
}

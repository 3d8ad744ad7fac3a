//! Does what a plugin should not, one way a path: what a careless author would write, through the SDK and the real compiler.
//!
//! Owns nothing but misbehaviour; `tests/hostile/` says what the host makes of each. Bounded by: the host, which is the point.

use mainstay_sdk::columns::{Column, Frame};
use mainstay_sdk::http::{Reply, Request};
use mainstay_sdk::outbound::Call;
use mainstay_sdk::stats::{self, Absent, Estimate, Resampling};
use mainstay_sdk::tables::{self, AsOf, Kind, Schema};
use mainstay_sdk::{Api, Error, Key, Result, clock, keys, log, random, transact};
use std::hint::black_box;

/// The plugin.
pub struct Hostile;

impl Api for Hostile {
    fn handle(request: &Request) -> Result<Reply> {
        match request.path().strip_prefix("/hostile/").unwrap_or_default() {
            "well" => Ok(Reply::text("well")),
            "loop" => spin(),
            "allocate" => allocate(),
            "panic" => panic!("on purpose"),
            "recurse" => Ok(Reply::text(recurse(1).to_string())),
            "call-flood" => flood_calls(),
            "log-flood" => Ok(flood_log()),
            "big-answer" => Ok(Reply::status(200).with_body(vec![b'x'; (1 << 20) + 1])),
            "fitting-answer" => Ok(Reply::status(200).with_body(vec![b'x'; 1 << 20])),
            "bad-header" => Ok(Reply::text("").header("x-split", "a\r\nset-cookie: b=c")),
            "bad-status" => Ok(Reply::status(99)),
            "bad-send" => Ok(Reply::send("../../etc/passwd")),
            "random-flood" => Ok(Reply::text(random::bytes(1 << 20).len().to_string())),
            "column-hoard" => hoard_columns(1),
            "value-hoard" => hoard_columns(64 << 10),
            "endless-resampling" => resample_endlessly(),
            "endless-discrepancy" => compare_endlessly(),
            "peek" => Ok(Reply::json(&Column::real64(&[1.0, 2.0])?.read_numbers(0, 2)?)?),
            "count" => count(),
            "fill" => fill_table(request.query().get("rows").and_then(|rows| rows.parse().ok()).unwrap_or(0)),
            "foreign-topic" => publish("../tracking/registry"),
            "endless-event" => publish(&"x".repeat(65)),
            "free-command" => start_job("anything"),
            "metadata" => {
                Ok(Reply::text(Call::new("GET", "http://169.254.169.254/latest/").send()?.status.to_string()))
            }
            "loopback" => Ok(Reply::text(Call::new("GET", "http://127.0.0.1:1/").send()?.status.to_string())),
            other if other.starts_with("window-") => look_at_rows(other),
            "unwrap-a-denial" => Ok(Reply::text(format!("{:?}", keys::get(Key::new().text("k")).unwrap()))),
            other => Err(Error::not_found(format!("no such misbehaviour: `{other}`"))),
        }
    }
}

fn spin() -> ! {
    let mut turns = 0_u64;
    loop {
        turns = black_box(turns.wrapping_add(1));
    }
}

fn allocate() -> Result<Reply> {
    let mut hoard = Vec::new();
    loop {
        hoard.push(black_box(vec![1_u8; 1 << 20]));
    }
}

#[allow(unconditional_recursion, reason = "on purpose")]
fn recurse(depth: u64) -> u64 {
    black_box(recurse(black_box(depth + 1))) + 1
}

fn flood_calls() -> Result<Reply> {
    loop {
        black_box(clock::now_ms());
    }
}

fn flood_log() -> Reply {
    let line = "x".repeat(1_024);
    for _ in 0..10_000 {
        log::write(log::Level::Info, &line, &[]);
    }
    Reply::text("logged")
}

fn hoard_columns(values: usize) -> Result<Reply> {
    let values = vec![1.0; values];
    let mut hoard = Vec::new();
    loop {
        hoard.push(Column::real64(&values)?);
    }
}

fn resample_endlessly() -> Result<Reply> {
    let column = Column::real64(&vec![0.0; 50_000])?;
    let how = Resampling { resamples: 100_000, level: 0.95, seed: 1 };
    stats::bootstrap(Estimate::Mean, &column, &[&column], None, &how).map(|_| Reply::text("resampled"))
}

fn compare_endlessly() -> Result<Reply> {
    let column = Column::real64(&(0..20_000).map(f64::from).collect::<Vec<_>>())?;
    let columns = vec![&column; 4_000];
    stats::mean_discrepancy(&columns, &columns, None, 20_000, 1).map(|_| Reply::text("compared"))
}

fn count() -> Result<Reply> {
    let (_, receipt) = transact(|tx, _| tx.add(Key::new().text("count"), 1))?;
    Reply::json(&receipt.counters[0])
}

/// Rows of its own, one a second.
fn fill_table(rows: usize) -> Result<Reply> {
    tables::create("people", &Schema::new("time").column("income", Kind::Real64).column("place", Kind::Text))?;
    let start_us = 1_767_000_000_000_000;
    let times: Vec<i64> = (0..rows as i64).map(|at| start_us + at * 1_000_000).collect();
    let incomes: Vec<f64> = (0..rows).map(|at| at as f64).collect();
    let frame = Frame::of([
        ("time", &Column::integer64(&times)?),
        ("income", &Column::real64(&incomes)?),
        ("place", &Column::text((0..rows).map(|at| Some(if at % 50 == 0 { "small" } else { "large" })))?),
    ])?;
    transact(|tx, _| tx.append_rows("people", &frame))?;
    Reply::json(&rows)
}

/// Takes all rows without the right to read them, and tries to find out about one.
fn look_at_rows(how: &str) -> Result<Reply> {
    let until_us = if how == "window-open" { i64::MAX } else { 1_767_100_000_000_000 };
    let rows = tables::window("hostile__people", &[], i64::MIN, until_us)?;
    let income = rows.column("income")?;
    let told = match how {
        "window-read" => format!("{:?}", income.read_numbers(0, 1)?),
        "window-copy" => format!("{:?}", income.affine(0.0, 1.0)?.read_numbers(0, 1)?),
        "window-slice" => format!("{}", income.slice(0, 1)?.len()),
        "window-threshold" => format!("{:?}", stats::summaries(&[&income.at_least(10.0)?], Absent::Omit)?.len()),
        "window-edges" => format!("{:?}", stats::histogram(&[&income], &[0.0, 0.5, 1.0], true)?),
        "window-extreme" => format!("{:?}", stats::quantiles(&[&income], &[1.0], Absent::Omit)?),
        "window-census" => format!("{:?}", stats::censuses(&[&income], 0.0, 1.0)?),
        "window-join" => {
            let times = Column::integer64(&[i64::MAX])?;
            let mine = Frame::of([("time", &times), ("place", &Column::text([Some("small")])?)])?;
            AsOf::new(["place"], "time", "time").join(&mine, &rows)?.rows().to_string()
        }
        "window-groups" => {
            let labels = Column::boolean(&vec![true; rows.rows() as usize])?;
            format!("{}", stats::rates_by_group(&labels, &labels, &[&rows.column("place")?], None)?.len())
        }
        "window-budget" => {
            let columns = vec![&income; 1_000];
            for _ in 0..3 {
                stats::summaries(&columns, Absent::Omit)?;
            }
            "judged".to_owned()
        }
        _ => {
            let summary = stats::summaries(&[&income], Absent::Omit)?.remove(0).map_err(|why| why.error)?;
            format!("{} {} {} {}", summary.count, summary.mean, summary.least, summary.greatest)
        }
    };
    Ok(Reply::text(told))
}

fn publish(topic: &str) -> Result<Reply> {
    transact(|tx, _| tx.publish(topic, "happened", None, &1)).map(|_| Reply::text("published"))
}

fn start_job(job: &str) -> Result<Reply> {
    transact(|tx, _| tx.start_job(job, &std::collections::BTreeMap::<String, String>::new()))
        .map(|_| Reply::text("started"))
}

mainstay_sdk::export_api!(Hostile);

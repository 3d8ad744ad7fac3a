//! Does what a plugin should not, one way a path: what a careless author would write, through the SDK and the real compiler.
//!
//! Owns nothing but misbehaviour; `tests/hostile/` says what the host makes of each. Bounded by: the host, which is the point.

use mainstay_sdk::columns::Column;
use mainstay_sdk::http::{Reply, Request};
use mainstay_sdk::stats::{self, Estimate, Resampling};
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

mainstay_sdk::export_api!(Hostile);

//! What keeping a prediction costs the request: thirty features and a score, offered behind the answer.
//!
//! Owns a measurement, printed as one JSON object: nanoseconds of the requests' threads for each prediction, from having the
//! answer to going on, while the log's own thread makes rows and writes them. Run it with
//! `cargo run -p mainstay-predictions --example offer_rate FOLDER [ROWS] [ROWS_PER_S]`; the folder must not exist.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mainstay_base::{Result, SystemClock};
use mainstay_predictions::{Field, FieldKind, LogSpec, Prediction, Predictions, Scalar};
use mainstay_store::{Store, StoreOptions};
use mainstay_tables::{Tables, TablesOptions};

const FEATURES: usize = 30;
const REQUESTS_AT_ONCE: usize = 100;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let folder = PathBuf::from(arguments.next().unwrap_or_else(|| panic!("a folder that does not exist")));
    let mut number = |otherwise: usize| arguments.next().map_or(otherwise, |text| text.parse().expect("a number"));
    let (rows, per_s) = (number(200_000), number(20_000));
    let tables =
        Tables::open(Store::open(StoreOptions::new(folder.join("store")))?, TablesOptions::new(folder.join("tables")))?;
    let _driver = tables.drive(Duration::from_secs(1))?;
    let logs = Predictions::new(tables, Arc::new(SystemClock::default()));
    let names: Arc<Vec<String>> = Arc::new((0..FEATURES).map(|at| format!("x{at}")).collect());
    let spec = LogSpec {
        features: names.iter().map(|name| Field::new(name, FieldKind::Real)).collect(),
        outputs: vec![Field::new("score", FieldKind::Real)],
        keep_days: None,
    };
    let log = logs.apply("measured", &spec)?;
    let (model, version): (Arc<str>, Arc<str>) = ("credit".into(), "3".into());
    // What a request holds when it is answered: its row, and the answer.
    let row: Arc<[f64]> = (0..FEATURES).map(|at| at as f64 * 0.5).collect();
    let (began, mut spent) = (Instant::now(), Duration::ZERO);
    for request in 0..rows {
        if request % REQUESTS_AT_ONCE == 0 {
            let due = Duration::from_secs_f64(request as f64 / per_s as f64);
            std::thread::sleep(due.saturating_sub(began.elapsed()));
        }
        let answered = Instant::now();
        let (names, row, model, version) = (names.clone(), row.clone(), model.clone(), version.clone());
        let score = request as f64 / rows as f64;
        log.offer(move || Prediction {
            id: format!("request-{request}"),
            time_us: None,
            model: Some(model),
            version: Some(version),
            variant: None,
            tenant: None,
            trace_id: None,
            features: names.iter().cloned().zip(row.iter().map(|value| Scalar::Real(*value))).collect(),
            outputs: [("score".to_owned(), Scalar::Real(score))].into(),
        });
        spent += answered.elapsed();
    }
    while log.written().waiting > 0 {
        std::thread::sleep(Duration::from_millis(20));
    }
    let written = log.written();
    println!(
        "{{\"what\": \"offer\", \"rows\": {rows}, \"rows_per_s\": {per_s}, \"ns\": {:.0}, \"kept\": {}, \"dropped\": {}}}",
        spent.as_nanos() as f64 / rows as f64,
        written.kept,
        written.dropped
    );
    logs.close();
    Ok(())
}

//! The door: logs are made, found, and written to.
//!
//! Owns [`Predictions`], the logs of one host, and [`Log`]. Separate from the writer behind it, which gathers what is offered.
//! Bounded by [`crate::limits`]. On failure: typed errors for what is posted; what is offered never fails, it is counted.

use std::collections::HashMap;
use std::sync::Arc;

use mainstay_base::{Clock, Error, ErrorKind, Result};
use mainstay_tables::{Appended, Table, Tables};
use parking_lot::{Mutex, RwLock};

use crate::limits::POST_ROWS_MAX;
use crate::rows::{self, Outcome, Prediction};
use crate::spec::{LogSpec, check_name};
use crate::writer::{Writer, Written};

/// The logs of predictions of one host. Clones are the same.
#[derive(Clone)]
pub struct Predictions {
    inner: Arc<Inner>,
}

struct Inner {
    tables: Tables,
    clock: Arc<dyn Clock>,
    /// Logs that were asked for; each has a thread that writes.
    open: RwLock<HashMap<String, Arc<Log>>>,
    /// Held while a log is made, so that two do not start two writers.
    making: Mutex<()>,
}

impl Predictions {
    /// The logs in these tables.
    pub fn new(tables: Tables, clock: Arc<dyn Clock>) -> Predictions {
        let inner = Inner { tables, clock, open: RwLock::default(), making: Mutex::default() };
        Predictions { inner: Arc::new(inner) }
    }

    /// Make a log, or give it the fields that it lacks. Durable when it returns; may wait for a disk. `conflict` when a field is
    /// there with another type or mark.
    pub fn apply(&self, name: &str, spec: &LogSpec) -> Result<Arc<Log>> {
        check_name(name)?;
        spec.check()?;
        let _making = self.inner.making.lock();
        let tables = &self.inner.tables;
        let (predictions, outcomes) = (spec.predictions(), spec.outcomes());
        for (table, wanted) in [(predictions_of(name), predictions), (outcomes_of(name), outcomes)] {
            match tables.table(&table) {
                Err(error) if error.kind() == ErrorKind::NotFound => drop(tables.create(&table, &wanted)?),
                Err(error) => return Err(error),
                Ok(known) => {
                    // Fields of earlier specifications stay, in their order.
                    let mut columns = known.spec().columns.clone();
                    let has =
                        |columns: &[mainstay_tables::ColumnSpec], name: &str| columns.iter().any(|c| c.name == name);
                    for column in &wanted.columns {
                        match has(&columns, &column.name) {
                            true => {
                                let kept = columns.iter().find(|kept| kept.name == column.name);
                                check_same(&table, kept, column)?;
                            }
                            false => columns.push(column.clone()),
                        }
                    }
                    known.grow(&columns)?;
                    if known.spec().retention != wanted.retention {
                        known.set_retention(wanted.retention)?;
                    }
                }
            }
        }
        // The next one to ask finds the log with its new fields.
        self.inner.open.write().remove(name);
        self.open(name)
    }

    /// A log; `not-found` when there is none of this name.
    pub fn log(&self, name: &str) -> Result<Arc<Log>> {
        if let Some(log) = self.inner.open.read().get(name) {
            return Ok(log.clone());
        }
        check_name(name)?;
        let _making = self.inner.making.lock();
        self.open(name)
    }

    fn open(&self, name: &str) -> Result<Arc<Log>> {
        if let Some(log) = self.inner.open.read().get(name) {
            return Ok(log.clone());
        }
        let missing = |error: Error| match error.kind() {
            ErrorKind::NotFound => Error::not_found(format!(
                "there is no log of predictions `{name}`; make it with `mainstay predictions apply`"
            )),
            _ => error,
        };
        let predictions = self.inner.tables.table(&predictions_of(name)).map_err(missing)?;
        let outcomes = self.inner.tables.table(&outcomes_of(name)).map_err(missing)?;
        let spec = Arc::new(LogSpec::of(&predictions.spec()));
        let writer = Writer::start(name, predictions.clone(), spec.clone(), self.inner.clock.clone())?;
        let log = Arc::new(Log { spec, predictions, outcomes, writer, clock: self.inner.clock.clone() });
        self.inner.open.write().insert(name.to_owned(), log.clone());
        Ok(log)
    }

    /// Names of all logs, sorted.
    pub fn list(&self) -> Vec<String> {
        let names = self.inner.tables.list();
        let logs = names.iter().filter_map(|name| name.strip_suffix("_predictions"));
        logs.filter(|name| names.iter().any(|other| **other == *outcomes_of(name))).map(str::to_owned).collect()
    }

    /// Write what was offered and waits, and stop.
    pub fn close(&self) {
        self.inner.open.write().clear();
    }
}

fn check_same(
    table: &str,
    kept: Option<&mainstay_tables::ColumnSpec>,
    wanted: &mainstay_tables::ColumnSpec,
) -> Result<()> {
    match kept {
        Some(kept) if kept.kind != wanted.kind || kept.mark != wanted.mark => Err(Error::conflict(format!(
            "`{}` of `{table}` is there as {} and cannot become {}; use another name",
            wanted.name,
            kept.kind.name(),
            wanted.kind.name()
        ))),
        _ => Ok(()),
    }
}

fn predictions_of(name: &str) -> String {
    format!("{name}_predictions")
}

fn outcomes_of(name: &str) -> String {
    format!("{name}_outcomes")
}

/// One log.
pub struct Log {
    spec: Arc<LogSpec>,
    pub(crate) predictions: Table,
    pub(crate) outcomes: Table,
    writer: Writer,
    clock: Arc<dyn Clock>,
}

impl Log {
    /// What its predictions have.
    pub fn spec(&self) -> &LogSpec {
        &self.spec
    }

    /// Whether a prediction of this id is among a share (0 to 1) of all. The same id is always among the same shares, so that a
    /// larger share holds what a smaller one held.
    pub fn is_sampled(id: &str, share: f64) -> bool {
        f64::from(crc32fast::hash(id.as_bytes())) < share * (f64::from(u32::MAX) + 1.0)
    }

    /// Keep a prediction if there is room, behind its answer: never waits, never fails. It is made on the log's own thread,
    /// so that the request pays for neither. Written within a moment; lost if the host dies before that.
    pub fn offer(&self, make: impl FnOnce() -> Prediction + Send + 'static) {
        self.writer.offer(make);
    }

    /// What became of everything that was offered.
    pub fn written(&self) -> Written {
        self.writer.written()
    }

    /// Keep these predictions. Durable when it returns. With an idempotency key, the same post again adds nothing.
    pub async fn post(&self, rows: &[Prediction], idempotency_key: Option<&str>) -> Result<Appended> {
        check_rows(rows.len())?;
        let rows = rows::predictions(&self.spec, rows, self.now_us())?;
        self.predictions.append(&rows, idempotency_key).await
    }

    /// Keep these outcomes. Durable when it returns. Predictions need not be there yet.
    pub async fn post_outcomes(&self, rows: &[Outcome], idempotency_key: Option<&str>) -> Result<Appended> {
        check_rows(rows.len())?;
        let rows = rows::outcomes(rows, self.now_us())?;
        self.outcomes.append(&rows, idempotency_key).await
    }

    fn now_us(&self) -> i64 {
        self.clock.now_ms().saturating_mul(1_000)
    }
}

fn check_rows(count: usize) -> Result<()> {
    if (1..=POST_ROWS_MAX).contains(&count) {
        return Ok(());
    }
    Err(Error::invalid(format!("{count} rows; a post has 1 to {POST_ROWS_MAX}, so make several")))
}

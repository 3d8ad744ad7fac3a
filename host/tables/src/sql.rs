//! Read-only SQL over the tables.
//!
//! Owns the engine (DataFusion, in process, on threads of its own) and the way between it and our scans. DataFusion is
//! built without its readers of files and gets no place to spill to: all it can reach are cursors over our tables, which
//! check, prune and quarantine as every scan does. A text is one statement, and is a query, `EXPLAIN`, `DESCRIBE` or `SHOW`;
//! the plan is checked again for anything that would change something.
//!
//! Comparisons of the time column with constants become the window of the scan, so whole files and row groups are passed.
//! Each table that a query names is read as of one moment; two tables may be of moments a little apart.
//!
//! Bounded by [`SqlLimits`], the length of a text, and the number of queries at a time. Dropping the answer's future stops
//! the query. On failure: `invalid` for a text that cannot be run, `denied` for one that would change something,
//! `exhausted` for memory and time.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::ScalarValue;
use datafusion::error::DataFusionError;
use datafusion::execution::context::SQLOptions;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::GreedyMemoryPool;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{BinaryExpr, Expr, Operator, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion::sql::parser::{DFParserBuilder, Statement};
use datafusion::sql::sqlparser::ast;
use futures::StreamExt;
use mainstay_base::{Error, Result};
use parking_lot::Mutex;
use tokio::runtime::Runtime;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use crate::damage::Missing;
use crate::limits::{SQL_BYTES_MAX, SQL_QUERIES_MAX, SQL_STACK_BYTES};
use crate::scan::{Cursor, Plan, ScanOptions, Unit, Window, visible};
use crate::table::{Table, Tables};

/// Rows of one batch inside the engine: what the nearest caches like.
const BATCH_ROWS: usize = 8_192;

/// What one query may take.
#[derive(Clone, Debug)]
pub struct SqlLimits {
    /// Rows of the answer; what is beyond is cut off.
    pub rows: usize,
    /// Bytes of the answer; what is beyond is cut off.
    pub bytes: usize,
    /// Time from start to end, waiting for its turn included.
    pub time: Duration,
    /// Memory for sorting, grouping and joining.
    pub memory_bytes: usize,
    /// Whether columns marked *restrict* may be seen.
    pub with_restricted: bool,
}

impl Default for SqlLimits {
    fn default() -> SqlLimits {
        SqlLimits {
            rows: 100_000,
            bytes: 64 << 20,
            time: Duration::from_secs(60),
            memory_bytes: 256 << 20,
            with_restricted: false,
        }
    }
}

/// What a query answered.
#[derive(Clone, Debug)]
pub struct SqlAnswer {
    /// Names and types of its columns.
    pub schema: SchemaRef,
    /// Its rows.
    pub batches: Vec<RecordBatch>,
    /// There were more rows than the limits allow.
    pub is_cut: bool,
    /// Rows that the answer misses because files are damaged.
    pub missing: Vec<Missing>,
}

/// The threads that run queries, from the first query on.
pub(crate) struct Engine {
    threads: usize,
    runtime: Mutex<Option<Runtime>>,
    turns: Arc<Semaphore>,
}

impl Engine {
    pub fn new(threads: usize) -> Engine {
        let turns = Arc::new(Semaphore::new(SQL_QUERIES_MAX));
        Engine { threads: threads.max(1), runtime: Mutex::default(), turns }
    }

    fn spawn<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> Result<Running<T>> {
        let mut runtime = self.runtime.lock();
        if runtime.is_none() {
            let built = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(self.threads)
                .thread_stack_size(SQL_STACK_BYTES)
                .thread_name("tables-sql")
                .enable_time()
                .build();
            *runtime = Some(built.map_err(|error| Error::unavailable("no threads for SQL").with_source(error))?);
        }
        let runtime = runtime.as_ref().expect("it was just made");
        Ok(Running(runtime.spawn(work)))
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // Waiting for its threads is not allowed on the threads of another executor.
        if let Some(runtime) = self.runtime.get_mut().take() {
            runtime.shutdown_background();
        }
    }
}

/// A query that stops when nobody waits for it any more.
struct Running<T>(JoinHandle<T>);

impl<T> Future for Running<T> {
    type Output = Result<T>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<T>> {
        let ended = |ended| Err(Error::internal("a query ended without an answer").with_source(ended));
        Pin::new(&mut self.0).poll(context).map(|joined| joined.or_else(ended))
    }
}

impl<T> Drop for Running<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Tables {
    /// Run one statement that reads. See the module for what is refused and what is bounded.
    pub async fn sql(&self, text: &str, limits: &SqlLimits) -> Result<SqlAnswer> {
        if text.len() > SQL_BYTES_MAX {
            return Err(Error::invalid(format!("a text of {} bytes; a query has at most {SQL_BYTES_MAX}", text.len())));
        }
        let (tables, text, limits) = (self.clone(), text.to_owned(), limits.clone());
        let turns = self.inner.engine.turns.clone();
        let threads = self.inner.engine.threads;
        let within = limits.time;
        let work = async move {
            let _turn = turns.acquire_owned().await;
            run(&tables, &text, &limits, threads).await
        };
        let timed = async move { tokio::time::timeout(within, work).await };
        self.inner.engine.spawn(timed)?.await?.map_err(|_| {
            Error::exhausted(format!(
                "the query took longer than {within:?}; ask for less, or for a smaller window of time"
            ))
        })?
    }

    /// The same, waiting on this thread; not to be called on a thread that runs an async executor.
    pub fn sql_blocking(&self, text: &str, limits: &SqlLimits) -> Result<SqlAnswer> {
        futures::executor::block_on(self.sql(text, limits))
    }
}

async fn run(tables: &Tables, text: &str, limits: &SqlLimits, threads: usize) -> Result<SqlAnswer> {
    let statement = parsed(text)?;
    let plans = Plans::default();
    let context = session(tables, limits, threads, &plans)?;
    let plan = context.state().statement_to_plan(statement).await.map_err(told)?;
    let read_only = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
    read_only.verify_plan(&plan).map_err(|error| refused(&error.strip_backtrace()))?;
    let frame = context.execute_logical_plan(plan).await.map_err(told)?;
    let mut stream = frame.execute_stream().await.map_err(told)?;
    let schema = stream.schema();
    let (mut batches, mut rows, mut bytes, mut is_cut) = (Vec::new(), 0, 0, false);
    while let Some(batch) = stream.next().await {
        let mut batch = batch.map_err(told)?;
        if rows + batch.num_rows() > limits.rows {
            batch = batch.slice(0, limits.rows - rows);
            is_cut = true;
        }
        bytes += batch.get_array_memory_size();
        if bytes > limits.bytes {
            is_cut = true;
            break;
        }
        rows += batch.num_rows();
        batches.push(batch);
        if is_cut {
            break;
        }
    }
    drop(stream);
    Ok(SqlAnswer { schema, batches, is_cut, missing: plans.missing() })
}

fn refused(why: &str) -> Error {
    Error::denied(format!("only queries, EXPLAIN, DESCRIBE and SHOW are run here: {why}"))
}

/// One statement that reads.
fn parsed(text: &str) -> Result<Statement> {
    let parsed = DFParserBuilder::new(text).build().and_then(|mut parser| parser.parse_statements());
    let mut statements = parsed.map_err(told)?;
    match statements.pop_back() {
        Some(statement) if statements.is_empty() => {
            check(&statement)?;
            Ok(statement)
        }
        Some(_) => Err(Error::invalid("several statements; run them one by one")),
        None => Err(Error::invalid("no statement; write a query, such as `SHOW TABLES`")),
    }
}

fn check(statement: &Statement) -> Result<()> {
    use ast::Statement as Sql;
    match statement {
        Statement::Explain(explain) => check(&explain.statement),
        Statement::Statement(inner) => match &**inner {
            Sql::Query(_) | Sql::ExplainTable { .. } => Ok(()),
            Sql::ShowTables { .. } | Sql::ShowColumns { .. } | Sql::ShowVariable { .. } => Ok(()),
            Sql::ShowFunctions { .. } => Ok(()),
            Sql::Explain { statement, .. } => check(&Statement::Statement(statement.clone())),
            other => Err(refused(&format!("not `{}`", first_words(&other.to_string())))),
        },
        other => Err(refused(&format!("not `{}`", first_words(&other.to_string())))),
    }
}

fn first_words(text: &str) -> String {
    text.split_whitespace().take(3).collect::<Vec<_>>().join(" ")
}

/// What went wrong, in the host's words.
fn told(error: DataFusionError) -> Error {
    let root = error.find_root();
    if let DataFusionError::External(source) = root
        && let Some(own) = source.downcast_ref::<Error>()
    {
        return own.clone();
    }
    let message = root.strip_backtrace();
    match root {
        DataFusionError::ResourcesExhausted(_) => {
            Error::exhausted(format!("the query needs more memory than it may have: {message}"))
        }
        DataFusionError::Internal(_) => Error::internal(format!("the query failed: {message}")),
        _ => Error::invalid(format!("the query cannot be run: {message}")),
    }
}

fn session(tables: &Tables, limits: &SqlLimits, threads: usize, plans: &Plans) -> Result<SessionContext> {
    let config = SessionConfig::new()
        .with_target_partitions(threads)
        .with_batch_size(BATCH_ROWS)
        .with_information_schema(true)
        .with_default_catalog_and_schema("mainstay", "public");
    let runtime = RuntimeEnvBuilder::new()
        .with_memory_pool(Arc::new(GreedyMemoryPool::new(limits.memory_bytes)))
        .with_disk_manager_builder(DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled))
        .build_arc()
        .map_err(told)?;
    let context = SessionContext::new_with_config_rt(config, runtime);
    for name in tables.list() {
        let table = tables.table(&name)?;
        let schema = visible(&table.spec(), limits.with_restricted);
        let with_restricted = limits.with_restricted;
        let source = Source { table, schema, with_restricted, threads, plans: plans.clone() };
        context.register_table(&*name, Arc::new(source)).map_err(told)?;
    }
    Ok(context)
}

/// The scans of one query, for what they miss.
#[derive(Clone, Default)]
struct Plans(Arc<Mutex<Vec<Arc<Plan>>>>);

impl Plans {
    fn missing(&self) -> Vec<Missing> {
        let mut missing: Vec<Missing> = self.0.lock().iter().flat_map(|plan| plan.missing()).collect();
        missing.sort_by(|one, other| (&one.table, &one.file).cmp(&(&other.table, &other.file)));
        missing.dedup_by(|one, other| (&one.table, &one.file) == (&other.table, &other.file));
        missing
    }
}

/// A table as the engine sees it.
struct Source {
    table: Table,
    schema: SchemaRef,
    with_restricted: bool,
    threads: usize,
    plans: Plans,
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Source({})", self.table.name())
    }
}

#[async_trait]
impl TableProvider for Source {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> datafusion::common::Result<Vec<TableProviderFilterPushDown>> {
        let time = &self.table.spec().time;
        let pushed = |filter: &&Expr| match narrowed(Window::default(), filter, time) {
            Some(_) => TableProviderFilterPushDown::Inexact,
            None => TableProviderFilterPushDown::Unsupported,
        };
        Ok(filters.iter().map(pushed).collect())
    }

    async fn scan(
        &self,
        _state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> datafusion::common::Result<Arc<dyn ExecutionPlan>> {
        let time = &self.table.spec().time;
        let window =
            filters.iter().fold(Window::default(), |window, filter| narrowed(window, filter, time).unwrap_or(window));
        let schema = match projection {
            Some(places) => Arc::new(self.schema.project(places)?),
            None => self.schema.clone(),
        };
        let columns = schema.fields().iter().map(|field| field.name().clone()).collect();
        let options = ScanOptions {
            window,
            columns: Some(columns),
            with_restricted: self.with_restricted,
            chunk_rows: BATCH_ROWS,
        };
        let external = |error: Error| DataFusionError::External(Box::new(error));
        let (plan, units) = Plan::new(&self.table, &options).map_err(external)?;
        self.plans.0.lock().push(plan.clone());
        let parts = shared(units, self.threads)
            .into_iter()
            .map(|units| Arc::new(Part { plan: plan.clone(), units }) as Arc<dyn PartitionStream>);
        let exec = StreamingTableExec::try_new(plan.schema.clone(), parts.collect(), None, [], false, limit)?;
        Ok(Arc::new(exec))
    }
}

/// The window, made smaller by a comparison of the time column with a constant; none when the filter is something else.
fn narrowed(window: Window, filter: &Expr, time: &str) -> Option<Window> {
    let Expr::BinaryExpr(BinaryExpr { left, op, right }) = filter else { return None };
    let (column, op, value) = match (&**left, &**right) {
        (Expr::Column(column), Expr::Literal(value, _)) => (column, *op, value),
        (Expr::Literal(value, _), Expr::Column(column)) => (column, op.swap()?, value),
        _ => return None,
    };
    let ScalarValue::TimestampMicrosecond(Some(value), _) = value else { return None };
    if column.name != time {
        return None;
    }
    let behind = value.saturating_add(1);
    let (from_us, until_us) = match op {
        Operator::Gt => (behind, i64::MAX),
        Operator::GtEq => (*value, i64::MAX),
        Operator::Lt => (i64::MIN, *value),
        Operator::LtEq => (i64::MIN, behind),
        Operator::Eq => (*value, behind),
        _ => return None,
    };
    Some(Window { from_us: window.from_us.max(from_us), until_us: window.until_us.min(until_us) })
}

/// The units of a scan for so many threads: row groups side by side, what is pending with the first of them.
fn shared(units: Vec<Unit>, threads: usize) -> Vec<Vec<Unit>> {
    let groups = |unit: &Unit| if let Unit::Groups(_, groups) = unit { groups.len() } else { 0 };
    let each = units.iter().map(groups).sum::<usize>().div_ceil(threads).max(1);
    let mut parts: Vec<Vec<Unit>> = vec![Vec::new()];
    let mut room = each;
    for unit in units {
        let Unit::Groups(file, mut left) = unit else {
            parts[0].push(unit);
            continue;
        };
        while !left.is_empty() {
            if room == 0 {
                parts.push(Vec::new());
                room = each;
            }
            let count = left.len().min(room);
            let next = left.start + count;
            parts.last_mut().expect("there is one").push(Unit::Groups(file.clone(), left.start..next));
            (left, room) = (next..left.end, room - count);
        }
    }
    parts
}

/// Some units of a scan, as one stream.
struct Part {
    plan: Arc<Plan>,
    units: Vec<Unit>,
}

impl fmt::Debug for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Part({} units)", self.units.len())
    }
}

impl PartitionStream for Part {
    fn schema(&self) -> &SchemaRef {
        &self.plan.schema
    }

    fn execute(&self, _context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let cursor = Cursor::new(self.plan.clone(), self.units.iter().cloned());
        let batches = cursor.map(|batch| batch.map_err(|error| DataFusionError::External(Box::new(error))));
        Box::pin(RecordBatchStreamAdapter::new(self.plan.schema.clone(), futures::stream::iter(batches)))
    }
}

#[cfg(test)]
mod tests {
    use mainstay_base::ErrorKind;

    use super::*;

    #[test]
    fn only_one_statement_that_reads_is_taken() {
        fn check(text: &str, expect: Option<ErrorKind>) {
            let kind = parsed(text).err().map(|error| error.kind());
            assert_eq!(kind, expect, "{text}");
        }
        for text in ["SELECT 1", "select 1;", "WITH a AS (SELECT 1) SELECT * FROM a", "VALUES (1)", "TABLE t"] {
            check(text, None);
        }
        for text in ["EXPLAIN SELECT 1", "EXPLAIN ANALYZE SELECT 1", "DESCRIBE t", "SHOW TABLES", "SHOW COLUMNS FROM t"]
        {
            check(text, None);
        }
        for text in [
            "INSERT INTO t VALUES (1)",
            "DELETE FROM t",
            "UPDATE t SET a = 1",
            "DROP TABLE t",
            "CREATE TABLE t AS SELECT 1",
            "CREATE VIEW v AS SELECT 1",
            "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '/etc/passwd'",
            "CREATE FUNCTION f(BIGINT) RETURNS BIGINT RETURN $1",
            "COPY t TO '/tmp/x.csv'",
            "COPY (SELECT 1) TO '/tmp/x'",
            "SET datafusion.execution.target_partitions = 1",
            "RESET datafusion.execution.target_partitions",
            "EXPLAIN INSERT INTO t VALUES (1)",
            "EXPLAIN COPY t TO '/tmp/x.csv'",
            "PREPARE p AS SELECT 1",
            "BEGIN",
        ] {
            check(text, Some(ErrorKind::Denied));
        }
        for text in ["", ";", "SELECT 1; SELECT 2", "SELECT 1; DROP TABLE t", "SELEKT", "SELECT '"] {
            check(text, Some(ErrorKind::Invalid));
        }
    }
}

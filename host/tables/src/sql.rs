//! Read-only SQL over the tables.
//!
//! Owns the engine (DataFusion, in process, on threads of its own) and the way between it and our scans. DataFusion is
//! built without its readers of files and gets no place to spill to: all it can reach are cursors over our tables, which
//! check, prune and quarantine as every scan does. A text is one statement, and is a query, `EXPLAIN`, `DESCRIBE` or `SHOW`;
//! the plan is checked again for anything that would change something.
//!
//! Which texts are run is [`crate::statement`]'s to say, before the engine sees them.
//!
//! Comparisons of the time column with constants become the window of the scan, those of other columns are held against what
//! a row group says of its values, so whole files and row groups are passed. All tables that a query names are read as of one
//! moment.
//!
//! Bounded by [`SqlLimits`] and the bounds of texts; functions that make long texts out of short ones are not there. What the
//! engine counts is sorting, grouping and joining; the row groups that are being read come on top, one a thread. Dropping the
//! answer's future stops the query. On failure: `invalid` for a text that cannot be run, `denied` for one that would change
//! something, `exhausted` for memory and time. A file that is found damaged while it is read is answered by asking again.

use std::fmt;
use std::sync::Arc;
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
use datafusion::logical_expr::expr::InList;
use datafusion::logical_expr::{BinaryExpr, Expr, Operator, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use datafusion::prelude::{SessionConfig, SessionContext};
use futures::StreamExt;
use mainstay_base::{Error, Result};
use parking_lot::Mutex;

use crate::damage::{Missing, Torn};
use crate::limits::DAMAGE_RETRIES;
use crate::prune::{Comparison, Condition, Constant};
use crate::scan::{Cursor, Plan, ScanOptions, Unit, Window, visible};
use crate::snapshot::Snapshot;
use crate::statement::{parsed, refused};
use crate::table::Tables;

/// Rows of one batch inside the engine: what the nearest caches like.
const BATCH_ROWS: usize = 8_192;
/// Functions that make texts of any length out of a number; the engine does not count their memory.
const NO_FUNCTIONS: [&str; 3] = ["repeat", "lpad", "rpad"];

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

impl Tables {
    /// Run one statement that reads. See the module for what is refused and what is bounded.
    pub async fn sql(&self, text: &str, limits: &SqlLimits) -> Result<SqlAnswer> {
        let (tables, text, limits) = (self.clone(), text.to_owned(), limits.clone());
        let within = limits.time;
        let work = async move {
            for _ in 1..DAMAGE_RETRIES {
                match run(&tables, &text, &limits).await {
                    Err(error) if Torn::is_cause_of(&error) => {}
                    answered => return answered,
                }
            }
            run(&tables, &text, &limits).await
        };
        self.inner.pool.run(within, work).await
    }

    /// The same, waiting on this thread; not to be called on a thread that runs an async executor.
    pub fn sql_blocking(&self, text: &str, limits: &SqlLimits) -> Result<SqlAnswer> {
        futures::executor::block_on(self.sql(text, limits))
    }
}

async fn run(tables: &Tables, text: &str, limits: &SqlLimits) -> Result<SqlAnswer> {
    let statement = parsed(text)?;
    let plans = Plans::default();
    let mut stream = {
        // Behind this block nothing holds the snapshot: its scans have what they need.
        let context = session(tables, limits, &plans)?;
        let state = context.state();
        let plan = state.statement_to_plan(statement).await.map_err(told)?;
        let read_only = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
        read_only.verify_plan(&plan).map_err(|error| refused(&error.strip_backtrace()))?;
        let physical = state.create_physical_plan(&plan).await.map_err(told)?;
        let task = context.task_ctx();
        execute_stream(physical, task).map_err(told)?
    };
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

/// What went wrong, in the host's words.
pub(crate) fn told(error: DataFusionError) -> Error {
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

fn session(tables: &Tables, limits: &SqlLimits, plans: &Plans) -> Result<SessionContext> {
    let threads = tables.inner.pool.threads;
    let mut config = SessionConfig::new()
        .with_target_partitions(threads)
        .with_batch_size(BATCH_ROWS)
        .with_information_schema(true)
        .with_default_catalog_and_schema("mainstay", "public");
    // What never ends would only end by its time.
    config.options_mut().execution.enable_recursive_ctes = false;
    let runtime = RuntimeEnvBuilder::new()
        .with_memory_pool(Arc::new(GreedyMemoryPool::new(limits.memory_bytes)))
        .with_disk_manager_builder(DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled))
        .build_arc()
        .map_err(told)?;
    let context = SessionContext::new_with_config_rt(config, runtime);
    NO_FUNCTIONS.iter().for_each(|name| context.deregister_udf(name));
    let snapshot = tables.snapshot();
    for name in snapshot.tables() {
        let spec = &snapshot.seen(name)?.spec;
        let (schema, time) = (visible(spec, limits.with_restricted), spec.time.clone());
        let source = Source {
            snapshot: snapshot.clone(),
            name: name.clone(),
            schema,
            time,
            with_restricted: limits.with_restricted,
            threads,
            plans: plans.clone(),
        };
        context.register_table(&**name, Arc::new(source)).map_err(told)?;
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
    snapshot: Snapshot,
    name: Arc<str>,
    schema: SchemaRef,
    /// The name of its time column.
    time: String,
    with_restricted: bool,
    threads: usize,
    plans: Plans,
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Source({})", self.name)
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
        let pushed = |filter: &&Expr| match compared(filter)[..] {
            [] => TableProviderFilterPushDown::Unsupported,
            _ => TableProviderFilterPushDown::Inexact,
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
        let (times, conditions): (Vec<Condition>, Vec<Condition>) =
            filters.iter().flat_map(compared).partition(|condition| condition.column == self.time);
        let window = times.iter().fold(Window::default(), narrowed);
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
        let (plan, units) = Plan::new(&self.snapshot, &self.name, &options, conditions).map_err(external)?;
        self.plans.0.lock().push(plan.clone());
        let parts = shared(units, self.threads)
            .into_iter()
            .map(|units| Arc::new(Part { plan: plan.clone(), units }) as Arc<dyn PartitionStream>);
        let exec = StreamingTableExec::try_new(plan.schema.clone(), parts.collect(), None, [], false, limit)?;
        Ok(Arc::new(exec))
    }
}

/// What a filter says of columns and constants: every row that passes it meets all of these. None when it says nothing.
fn compared(filter: &Expr) -> Vec<Condition> {
    let of = |column: &str, comparison, value: &ScalarValue| {
        constant(value).map(|value| Condition { column: column.to_owned(), comparison, value })
    };
    match filter {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::And, right }) => {
            let (mut both, right) = (compared(left), compared(right));
            both.extend(right);
            both
        }
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            let (column, op, value) = match (&**left, &**right) {
                (Expr::Column(column), Expr::Literal(value, _)) => (column, Some(*op), value),
                (Expr::Literal(value, _), Expr::Column(column)) => (column, op.swap(), value),
                _ => return Vec::new(),
            };
            let comparison = op.and_then(comparison);
            comparison.and_then(|comparison| of(&column.name, comparison, value)).into_iter().collect()
        }
        // Between the least and the greatest of the list; which is which shows in the row groups' answers.
        Expr::InList(InList { expr, list, negated: false }) if list.len() == 1 => match (&**expr, &list[0]) {
            (Expr::Column(column), Expr::Literal(value, _)) => {
                of(&column.name, Comparison::Equal, value).into_iter().collect()
            }
            _ => Vec::new(),
        },
        Expr::InList(InList { expr, list, negated: false }) => {
            let Expr::Column(column) = &**expr else { return Vec::new() };
            let whole = |value: &Expr| match value {
                Expr::Literal(value, _) => match constant(value) {
                    Some(Constant::Integer(value)) => Some(value),
                    _ => None,
                },
                _ => None,
            };
            let Some(values) = list.iter().map(whole).collect::<Option<Vec<i64>>>() else { return Vec::new() };
            let (Some(min), Some(max)) = (values.iter().min(), values.iter().max()) else { return Vec::new() };
            [(Comparison::GreaterOrEqual, *min), (Comparison::LessOrEqual, *max)]
                .map(|(comparison, value)| Condition {
                    column: column.name.clone(),
                    comparison,
                    value: Constant::Integer(value),
                })
                .into()
        }
        _ => Vec::new(),
    }
}

fn comparison(operator: Operator) -> Option<Comparison> {
    match operator {
        Operator::Lt => Some(Comparison::Less),
        Operator::LtEq => Some(Comparison::LessOrEqual),
        Operator::Eq => Some(Comparison::Equal),
        Operator::GtEq => Some(Comparison::GreaterOrEqual),
        Operator::Gt => Some(Comparison::Greater),
        _ => None,
    }
}

fn constant(value: &ScalarValue) -> Option<Constant> {
    match value {
        ScalarValue::Int64(Some(value)) | ScalarValue::TimestampMicrosecond(Some(value), _) => {
            Some(Constant::Integer(*value))
        }
        ScalarValue::Int32(Some(value)) => Some(Constant::Integer((*value).into())),
        ScalarValue::Float64(Some(value)) => Some(Constant::Real(*value)),
        ScalarValue::Float32(Some(value)) => Some(Constant::Real((*value).into())),
        ScalarValue::Utf8(Some(value)) | ScalarValue::LargeUtf8(Some(value)) | ScalarValue::Utf8View(Some(value)) => {
            Some(Constant::Text(value.clone()))
        }
        ScalarValue::Boolean(Some(value)) => Some(Constant::Boolean(*value)),
        _ => None,
    }
}

/// The window, made smaller by a comparison of the time column.
fn narrowed(window: Window, condition: &Condition) -> Window {
    let Constant::Integer(value) = condition.value else { return window };
    let behind = value.saturating_add(1);
    let (from_us, until_us) = match condition.comparison {
        Comparison::Greater => (behind, i64::MAX),
        Comparison::GreaterOrEqual => (value, i64::MAX),
        Comparison::Less => (i64::MIN, value),
        Comparison::LessOrEqual => (i64::MIN, behind),
        Comparison::Equal => (value, behind),
    };
    Window { from_us: window.from_us.max(from_us), until_us: window.until_us.min(until_us) }
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

//! Running a statement.
//!
//! Owns the engine's session (DataFusion, in process, on the tables' threads for questions) and what goes in and out of it.
//! Separate from which texts are run ([`crate::statement`]) and from what tables look like from inside ([`crate::source`]).
//!
//! Bounded by [`SqlLimits`]. What the engine counts is sorting, grouping and joining; the row groups that are being read come
//! on top, one a thread. On failure: `invalid`, `exhausted`; a file that is found damaged while it is read is answered by
//! asking again.

use std::sync::Arc;
use std::time::Duration;

use arrow_array::{RecordBatch, RecordBatchOptions};
use arrow_schema::{DataType, Field, FieldRef, Schema, SchemaRef};
use datafusion::error::DataFusionError;
use datafusion::execution::context::SQLOptions;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::GreedyMemoryPool;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::physical_plan::execute_stream;
use datafusion::prelude::{SessionConfig, SessionContext};
use futures::StreamExt;
use mainstay_base::{Error, Result};
use mainstay_tables::limits::DAMAGE_RETRIES;
use mainstay_tables::{Rows, Tables, is_torn};

use crate::source::{Scans, Source};
use crate::statement::{parsed, refused};

/// Rows of one batch inside the engine: what the nearest caches like.
pub(crate) const BATCH_ROWS: usize = 8_192;
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

/// Run one statement that reads. See the module for what is refused and what is bounded.
pub async fn query(tables: &Tables, text: &str, limits: &SqlLimits) -> Result<Rows> {
    let (own, text, limits) = (tables.clone(), text.to_owned(), limits.clone());
    let within = limits.time;
    let question = async move {
        for _ in 1..DAMAGE_RETRIES {
            match run(&own, &text, &limits).await {
                Err(error) if is_torn(&error) => {}
                answered => return answered,
            }
        }
        run(&own, &text, &limits).await
    };
    tables.work(within, question).await
}

/// The same, waiting on this thread; not to be called on a thread that runs an async executor.
pub fn query_blocking(tables: &Tables, text: &str, limits: &SqlLimits) -> Result<Rows> {
    futures::executor::block_on(query(tables, text, limits))
}

async fn run(tables: &Tables, text: &str, limits: &SqlLimits) -> Result<Rows> {
    let statement = parsed(text)?;
    let scans = Scans::default();
    let mut stream = {
        // Behind this block nothing holds the snapshot: its scans have what they need.
        let context = session(tables, limits, &scans)?;
        let state = context.state();
        let plan = state.statement_to_plan(statement).await.map_err(told)?;
        let read_only = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
        read_only.verify_plan(&plan).map_err(|error| refused(&error.strip_backtrace()))?;
        let physical = state.create_physical_plan(&plan).await.map_err(told)?;
        let task = context.task_ctx();
        execute_stream(physical, task).map_err(told)?
    };
    let schema = plain(&stream.schema());
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
        batches.push(with_plain_texts(&batch, &schema)?);
        if is_cut {
            break;
        }
    }
    drop(stream);
    Ok(Rows { schema, batches, is_cut, missing: scans.missing() })
}

/// The schema with texts as everybody reads them; inside the engine they are views.
fn plain(schema: &SchemaRef) -> SchemaRef {
    let field = |field: &FieldRef| match field.data_type() {
        DataType::Utf8View => Arc::new(Field::clone(field).with_data_type(DataType::Utf8)),
        _ => field.clone(),
    };
    Arc::new(Schema::new(schema.fields().iter().map(field).collect::<Vec<_>>()))
}

fn with_plain_texts(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    let columns = batch.columns().iter().zip(schema.fields()).map(|(column, field)| match column.data_type() {
        DataType::Utf8View => arrow_cast::cast(column, field.data_type()),
        _ => Ok(column.clone()),
    });
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    let columns = columns.collect::<std::result::Result<Vec<_>, _>>();
    columns
        .and_then(|columns| RecordBatch::try_new_with_options(schema.clone(), columns, &options))
        .map_err(|error| Error::internal("the answer's texts cannot be laid out").with_source(error))
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

fn session(tables: &Tables, limits: &SqlLimits, scans: &Scans) -> Result<SessionContext> {
    let threads = tables.query_threads();
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
        let source = Source::new(&snapshot, name, limits.with_restricted, threads, scans)?;
        context.register_table(&**name, Arc::new(source)).map_err(told)?;
    }
    Ok(context)
}

//! Tables as the engine sees them.
//!
//! Owns the two ends of the bridge: a table that can be planned over, and a node of a plan whose streams are cursors over our
//! files and pending rows. Separate from the engine's session, which knows tables only by name.
//!
//! Bounded by the query. On failure: the tables' own errors pass through the engine as they are.

use std::fmt;
use std::sync::Arc;

use arrow_schema::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::stats::Precision;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Result as EngineResult, Statistics};
use datafusion::error::DataFusionError;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_expr::{EquivalenceProperties, Partitioning, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType, ReplaceChildrenOptions};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};
use mainstay_base::{Error, Result};
use mainstay_tables::{Condition, Missing, Part, ScanOptions, SharedScan, Snapshot, TextForm, Window};
use parking_lot::Mutex;

use crate::engine::BATCH_ROWS;
use crate::filter::{compared, narrowed};

/// The scans of one query, for what they miss.
#[derive(Clone, Default)]
pub(crate) struct Scans(Arc<Mutex<Vec<SharedScan>>>);

impl Scans {
    pub fn missing(&self) -> Vec<Missing> {
        let mut missing: Vec<Missing> = self.0.lock().iter().flat_map(SharedScan::missing).collect();
        missing.sort_by(|one, other| (&one.table, &one.file).cmp(&(&other.table, &other.file)));
        missing.dedup_by(|one, other| (&one.table, &one.file) == (&other.table, &other.file));
        missing
    }
}

/// A table that can be planned over.
pub(crate) struct Source {
    snapshot: Snapshot,
    name: Arc<str>,
    schema: SchemaRef,
    /// The name of its time column.
    time: String,
    with_restricted: bool,
    threads: usize,
    scans: Scans,
}

impl Source {
    pub fn new(
        snapshot: &Snapshot,
        name: &Arc<str>,
        with_restricted: bool,
        threads: usize,
        scans: &Scans,
    ) -> Result<Source> {
        Ok(Source {
            snapshot: snapshot.clone(),
            name: name.clone(),
            schema: snapshot.schema(name, with_restricted, TextForm::Views)?,
            time: snapshot.time_column(name)?.to_owned(),
            with_restricted,
            threads,
            scans: scans.clone(),
        })
    }
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

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> EngineResult<Vec<TableProviderFilterPushDown>> {
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
        _limit: Option<usize>,
    ) -> EngineResult<Arc<dyn ExecutionPlan>> {
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
            text: TextForm::Views,
        };
        let external = |error: Error| DataFusionError::External(Box::new(error));
        let shared = self.snapshot.shared_scan(&self.name, &options, conditions, self.threads);
        let (scan, parts) = shared.map_err(external)?;
        self.scans.0.lock().push(scan.clone());
        Ok(Arc::new(Read::new(self.name.clone(), scan, parts)))
    }
}

/// A node of a plan that reads a table, a stream for each part.
struct Read {
    table: Arc<str>,
    scan: SharedScan,
    parts: Vec<Part>,
    properties: Arc<PlanProperties>,
}

impl Read {
    fn new(table: Arc<str>, scan: SharedScan, parts: Vec<Part>) -> Read {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(scan.schema().clone()),
            Partitioning::UnknownPartitioning(parts.len()),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        Read { table, scan, parts, properties: Arc::new(properties) }
    }
}

impl fmt::Debug for Read {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Read({})", self.table)
    }
}

impl DisplayAs for Read {
    fn fmt_as(&self, _form: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let groups: usize = self.parts.iter().map(Part::groups).sum();
        write!(f, "Read: table={}, row_groups={groups}, threads={}", self.table, self.parts.len())
    }
}

impl ExecutionPlan for Read {
    fn name(&self) -> &'static str {
        "Read"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn apply_expressions(
        &self,
        _visit: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> EngineResult<TreeNodeRecursion>,
    ) -> EngineResult<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        _children: Vec<Arc<dyn ExecutionPlan>>,
        _options: ReplaceChildrenOptions,
    ) -> EngineResult<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn with_new_children(
        self: Arc<Self>,
        _children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> EngineResult<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn execute(&self, partition: usize, _context: Arc<TaskContext>) -> EngineResult<SendableRecordBatchStream> {
        let part = self.parts.get(partition);
        let part = part.ok_or_else(|| DataFusionError::Internal(format!("no part {partition} of a scan")))?;
        let rows = part.rows().map(|batch| batch.map_err(|error| DataFusionError::External(Box::new(error))));
        Ok(Box::pin(RecordBatchStreamAdapter::new(part.schema().clone(), futures::stream::iter(rows))))
    }

    /// So that `count(*)` of a whole table reads nothing.
    fn partition_statistics(&self, partition: Option<usize>) -> EngineResult<Arc<Statistics>> {
        let mut known = Statistics::new_unknown(self.scan.schema());
        if let (None, Some(rows)) = (partition, self.scan.rows_known()) {
            known.num_rows = usize::try_from(rows).map_or(Precision::Absent, Precision::Exact);
        }
        Ok(Arc::new(known))
    }
}

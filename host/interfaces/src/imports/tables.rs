//! `mainstay:data/tables`: append-only tables, their windows as frames, joins as of a time.
//!
//! A plugin makes and fills tables under its own name and reads windows of any, by one of two rights: with `tables.read` it may
//! do with the rows what it likes, with `tables.aggregate` alone the call is guarded ([`crate::guard`]). Bounded by: [`SCHEMAS_MAX`]
//! and [`JOINS_MAX`] handles, the limits of the tables' room, and the plugin's budget of columns. On failure: a typed error to
//! the plugin.

use mainstay_arrays::join::{Rule, Side, as_of};
use mainstay_arrays::{Column, Frame as HeldFrame};
use mainstay_base::{Error, ErrorKind, Result as HostResult};
use mainstay_bindings::Failure;
use mainstay_bindings::mainstay::data::tables::{
    AsOf as AsOfHandle, ColumnInfo, Host, HostAsOf, HostSchema, Kind as WireKind, Mark as WireMark,
    Schema as SchemaHandle,
};
use mainstay_bindings::mainstay::host::keys::Transaction;
use mainstay_bindings::mainstay::numeric::arrays::Frame;
use mainstay_tables::{ColumnSpec, Kind, Mark, ScanOptions, TableSpec, Window, WindowLimits};
use wasmtime::component::Resource;

use crate::capabilities::{ARRAYS, TABLES_AGGREGATE, TABLES_APPEND, TABLES_READ};
use crate::state::State;

/// Schemas that a call may hold.
pub const SCHEMAS_MAX: usize = 16;
/// As-of joins that a call may hold.
pub const JOINS_MAX: usize = 16;
/// Columns by which rows are matched.
const JOIN_KEYS_MAX: usize = 16;
/// Rows of one append.
const APPEND_ROWS_MAX: usize = 65_536;
/// Length of a plugin's own name for a table.
const NAME_BYTES_MAX: usize = 31;
/// The longest time that rows may be kept by days, ten thousand years.
const KEEP_DAYS_MAX: u32 = 3_650_000;
const DAY_MS: i64 = 86_400_000;

type Answer<T> = Result<T, Failure>;

/// How an as-of join chooses, while it is put together.
#[derive(Clone, Debug, Default)]
pub(crate) struct JoinPlan {
    keys: Vec<String>,
    left_time: String,
    right_time: String,
    recorded: Option<String>,
    rule: Rule,
}

impl Host for State {
    async fn create(&mut self, table: String, schema: Resource<SchemaHandle>) -> Answer<()> {
        let _host = self.enter(TABLES_APPEND)?;
        let name = own_name(&self.plugin.name, &table)?;
        let spec = self.schemas.take(&schema)?;
        let tables = self.plugin.services.tables.clone();
        let made = tokio::task::spawn_blocking(move || match tables.table(&name) {
            Err(error) if error.kind() == ErrorKind::NotFound => tables.create(&name, &spec).map(|_| ()),
            Err(error) => Err(error),
            Ok(known) => {
                known.grow(&spec.columns)?;
                match known.spec().retention == spec.retention {
                    true => Ok(()),
                    false => known.set_retention(spec.retention),
                }
            }
        });
        made.await.map_err(|error| Error::internal(format!("making a table ended by itself: {error}")))??;
        Ok(())
    }

    fn describe(&mut self, table: String) -> Answer<Option<Vec<ColumnInfo>>> {
        let _host = self.enter_any(&[TABLES_APPEND, TABLES_READ, TABLES_AGGREGATE])?;
        let known = match self.plugin.services.tables.table(&table) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            found => found?,
        };
        let info = |column: &ColumnSpec| ColumnInfo {
            name: column.name.clone(),
            kind: wire_kind(column.kind),
            nullable: column.nullable,
            mark: wire_mark(column.mark),
        };
        Ok(Some(known.spec().columns.iter().map(info).collect()))
    }

    fn append(&mut self, tx: Resource<Transaction>, table: String, rows: Resource<Frame>) -> Answer<()> {
        let _host = self.enter(TABLES_APPEND)?;
        let table = self.plugin.services.tables.table(&own_name(&self.plugin.name, &table)?)?;
        let rows = self.frames.get(&rows)?;
        if rows.rows() > APPEND_ROWS_MAX {
            let count = rows.rows();
            return Err(Error::invalid(format!(
                "{count} rows at once, at most {APPEND_ROWS_MAX} are taken; append them in pieces"
            ))
            .into());
        }
        table.append_frame_in(self.transactions.get(&tx)?, rows, None)?;
        Ok(())
    }

    async fn window(
        &mut self,
        table: String,
        columns: Vec<String>,
        from_us: i64,
        to_us: i64,
    ) -> Answer<Resource<Frame>> {
        let _host = self.enter_any(&[TABLES_READ, TABLES_AGGREGATE])?;
        if !self.may(TABLES_READ) {
            self.guard_window(to_us)?;
        }
        let table = self.plugin.services.tables.table(&table)?;
        let options = ScanOptions {
            window: Window { from_us, until_us: to_us },
            columns: (!columns.is_empty()).then_some(columns),
            ..ScanOptions::default()
        };
        // What may be read is asked for before it is, and what was is charged behind it.
        let left = self.plugin.budget.limit_bytes().saturating_sub(self.plugin.budget.used_bytes());
        let limits = WindowLimits { bytes: left, ..WindowLimits::default() };
        let answer = table.window(&options, &limits).await?;
        if let Some(missing) = answer.missing.first() {
            let mainstay_tables::Missing { table, file, reason, rows, .. } = missing;
            return Err(Error::internal(format!(
                "{rows} rows of this window lie in the file `{file}` of table `{table}`, which is set aside: {reason}; ask the \
                 operator to restore it"
            ))
            .into());
        }
        let frame = self.charged(answer.frame)?;
        self.check_guarded_rows(frame.rows())?;
        Ok(self.frames.add(frame)?)
    }
}

impl State {
    /// A frame whose columns are charged to the plugin.
    fn charged(&self, frame: HeldFrame) -> HostResult<HeldFrame> {
        let columns = frame.columns().iter();
        let charged = columns.map(|(name, column)| Ok((name.clone(), column.clone().charged(&self.plugin.budget)?)));
        HeldFrame::new(charged.collect::<HostResult<_>>()?)
    }
}

/// The name by which others know a plugin's table.
fn own_name(plugin: &str, table: &str) -> HostResult<String> {
    let is_good = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_');
    if (1..=NAME_BYTES_MAX).contains(&table.len()) && table.bytes().all(is_good) && !table.contains("__") {
        return Ok(format!("{}__{table}", plugin.replace('-', "_")));
    }
    let shown: String = table.chars().take(64).collect();
    Err(Error::invalid(format!(
        "`{}` cannot name a table; it has 1 to {NAME_BYTES_MAX} of a-z, 0-9 and `_`, without `__`",
        shown.escape_debug()
    )))
}

impl HostSchema for State {
    fn new(&mut self, time_column: String) -> Answer<Resource<SchemaHandle>> {
        let _host = self.enter(TABLES_APPEND)?;
        let time = ColumnSpec::new(&time_column, Kind::Timestamp);
        Ok(self.schemas.add(TableSpec::new(time_column, vec![time]))?)
    }

    fn column(
        &mut self,
        schema: Resource<SchemaHandle>,
        name: String,
        kind: WireKind,
        nullable: bool,
        mark: WireMark,
    ) -> Answer<()> {
        let _host = self.enter(TABLES_APPEND)?;
        let schema = self.schemas.get(&schema)?;
        let most = mainstay_tables::limits::COLUMNS_MAX;
        if schema.columns.len() >= most {
            return Err(Error::invalid(format!("a table has at most {most} columns")).into());
        }
        let column = ColumnSpec::new(name, plain_kind(kind)).marked(plain_mark(mark));
        schema.columns.push(if nullable { column.nullable() } else { column });
        Ok(())
    }

    fn keep_days(&mut self, schema: Resource<SchemaHandle>, days: u32) -> Answer<()> {
        let _host = self.enter(TABLES_APPEND)?;
        if !(1..=KEEP_DAYS_MAX).contains(&days) {
            return Err(Error::invalid(format!("{days} days; it must be 1 to {KEEP_DAYS_MAX}")).into());
        }
        self.schemas.get(&schema)?.retention.age_ms = Some(i64::from(days) * DAY_MS);
        Ok(())
    }

    fn drop(&mut self, schema: Resource<SchemaHandle>) -> wasmtime::Result<()> {
        let _host = self.ambient()?;
        self.schemas.drop(&schema);
        Ok(())
    }
}

impl HostAsOf for State {
    fn new(&mut self, keys: Vec<String>) -> Answer<Resource<AsOfHandle>> {
        let _host = self.enter(ARRAYS)?;
        if keys.len() > JOIN_KEYS_MAX {
            let count = keys.len();
            return Err(Error::invalid(format!("{count} keys; a join has at most {JOIN_KEYS_MAX}")).into());
        }
        Ok(self.joins.add(JoinPlan { keys, ..JoinPlan::default() })?)
    }

    fn times(&mut self, join: Resource<AsOfHandle>, left: String, right: String) -> Answer<()> {
        let _host = self.enter(ARRAYS)?;
        let join = self.joins.get(&join)?;
        (join.left_time, join.right_time) = (left, right);
        Ok(())
    }

    fn max_age(&mut self, join: Resource<AsOfHandle>, age: u64) -> Answer<()> {
        let _host = self.enter(ARRAYS)?;
        self.joins.get(&join)?.rule.time_to_live = Some(age);
        Ok(())
    }

    fn bounds(&mut self, join: Resource<AsOfHandle>, takes_same_time: bool, takes_oldest: bool) -> Answer<()> {
        let _host = self.enter(ARRAYS)?;
        let rule = &mut self.joins.get(&join)?.rule;
        (rule.is_time_included, rule.is_oldest_included) = (takes_same_time, takes_oldest);
        Ok(())
    }

    fn recorded(&mut self, join: Resource<AsOfHandle>, column: String, by_then: bool) -> Answer<()> {
        let _host = self.enter(ARRAYS)?;
        let join = self.joins.get(&join)?;
        join.recorded = Some(column);
        join.rule.must_be_recorded = by_then;
        Ok(())
    }

    fn join(
        &mut self,
        join: Resource<AsOfHandle>,
        left: Resource<Frame>,
        right: Resource<Frame>,
    ) -> Answer<Resource<Frame>> {
        let _host = self.enter(ARRAYS)?;
        self.check_unguarded("join rows by keys and times of its own")?;
        let plan = self.joins.get(&join)?.clone();
        let (left, right) = (self.frames.get(&left)?.clone(), self.frames.get(&right)?.clone());
        let joined = plan.join(&left, &right)?;
        let frame = self.charged(joined)?;
        Ok(self.frames.add(frame)?)
    }

    fn drop(&mut self, join: Resource<AsOfHandle>) -> wasmtime::Result<()> {
        let _host = self.ambient()?;
        self.joins.drop(&join);
        Ok(())
    }
}

impl JoinPlan {
    fn join(&self, left: &HeldFrame, right: &HeldFrame) -> HostResult<HeldFrame> {
        if self.left_time.is_empty() || self.right_time.is_empty() {
            return Err(Error::invalid("the join has no times; name the columns of both sides with `times`"));
        }
        let of = |frame: &HeldFrame| -> HostResult<Vec<Column>> {
            self.keys.iter().map(|key| frame.column(key).cloned()).collect()
        };
        let (left_keys, right_keys) = (of(left)?, of(right)?);
        let rows = Side { keys: &left_keys, times: left.column(&self.left_time)? };
        let history = Side { keys: &right_keys, times: right.column(&self.right_time)? };
        let recorded = self.recorded.as_deref().map(|name| right.column(name)).transpose()?;
        let matches = as_of(&rows, &history, recorded, &self.rule)?;
        let mut columns = left.columns().to_vec();
        for (name, column) in right.columns() {
            if self.keys.iter().any(|key| **key == **name) || **name == *self.right_time {
                continue;
            }
            columns.push((name.clone(), matches.take(column)?));
        }
        HeldFrame::new(columns)
    }
}

fn plain_kind(kind: WireKind) -> Kind {
    match kind {
        WireKind::Real64 => Kind::F64,
        WireKind::Real32 => Kind::F32,
        WireKind::Integer64 => Kind::I64,
        WireKind::Integer32 => Kind::I32,
        WireKind::Boolean => Kind::Bool,
        WireKind::Text => Kind::Text,
        WireKind::Timestamp => Kind::Timestamp,
    }
}

fn wire_kind(kind: Kind) -> WireKind {
    match kind {
        Kind::F64 => WireKind::Real64,
        Kind::F32 => WireKind::Real32,
        Kind::I64 => WireKind::Integer64,
        Kind::I32 => WireKind::Integer32,
        Kind::Bool => WireKind::Boolean,
        Kind::Text => WireKind::Text,
        Kind::Timestamp => WireKind::Timestamp,
    }
}

fn plain_mark(mark: WireMark) -> Mark {
    match mark {
        WireMark::Plain => Mark::None,
        WireMark::Hash => Mark::Hash,
        WireMark::Drop => Mark::Drop,
        WireMark::Restrict => Mark::Restrict,
    }
}

fn wire_mark(mark: Mark) -> WireMark {
    match mark {
        Mark::None => WireMark::Plain,
        Mark::Hash => WireMark::Hash,
        Mark::Drop => WireMark::Drop,
        Mark::Restrict => WireMark::Restrict,
    }
}

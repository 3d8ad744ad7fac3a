//! The admin API's part about tables: what there is, read-only SQL, and their end.
//!
//! Owns the routes under `/-/tables` and `/-/sql`. Separate from the host's other routes because tables are a room of their own.
//! Reading needs the right `read`, dropping `admin`; columns that are marked `restrict` are shown to administrators only.
//! Bounded by the query's limits, which a request may only lower. On failure: a problem document; an answer that was cut or
//! misses rows says so in its headers and its body.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json, Router};
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use http::{HeaderMap, StatusCode};
use mainstay_base::Result;
use mainstay_sql::SqlLimits;
use mainstay_tables::{Rows, Tables};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::host_routes::{Answer, BodyReader};
use crate::options::GatewayLimits;
use crate::problem::ProblemDocument;
use crate::routes::Right;
use crate::tokens::Identity;

/// The longest time of one query.
const QUERY_TIME_MAX: Duration = Duration::from_secs(60);
/// Most rows of one answer.
const ROWS_MAX: usize = 100_000;
const ROWS_DEFAULT: usize = 1_000;
/// Whether rows were cut off, and how many are missing because files are damaged.
const CUT: HeaderName = HeaderName::from_static("x-mainstay-cut");
const MISSING: HeaderName = HeaderName::from_static("x-mainstay-missing-rows");

/// What the routes about tables need.
#[derive(Clone)]
pub struct TablesAdmin {
    /// The tables.
    pub tables: Tables,
    /// Memory of one query.
    pub query_bytes: usize,
}

/// What the handlers use.
pub(crate) struct TablesState {
    pub(crate) admin: TablesAdmin,
    pub(crate) limits: GatewayLimits,
}

type Api = State<Arc<TablesState>>;

/// The routes.
pub(crate) fn router(state: Arc<TablesState>) -> Router {
    use axum::routing::{get, post};
    Router::new()
        .route("/-/tables", get(list_tables))
        .route("/-/tables/{table}", get(table_info).delete(drop_table))
        .route("/-/sql", post(sql))
        .with_state(state)
}

/// Names of all tables.
#[utoipa::path(get, path = "/-/tables", tag = "tables",
    responses((status = 200, body = Vec<String>), (status = "default", description = "A problem", body = ProblemDocument, content_type = "application/problem+json")))]
pub(crate) async fn list_tables(State(state): Api) -> Json<Vec<String>> {
    Json(state.admin.tables.list().iter().map(ToString::to_string).collect())
}

/// A table: its columns, how long rows are kept, how much it holds.
#[utoipa::path(get, path = "/-/tables/{table}", tag = "tables", params(("table" = String, Path, description = "The table's name")),
    responses((status = 200, body = Object), (status = "default", description = "A problem", body = ProblemDocument, content_type = "application/problem+json")))]
pub(crate) async fn table_info(State(state): Api, Path(name): Path<String>) -> Answer<Json<Value>> {
    let table = state.admin.tables.table(&name)?;
    let stats = table.stats()?;
    Ok(Json(json!({"name": name, "spec": &*table.spec(), "stats": stats})))
}

/// Remove a table with all its rows.
#[utoipa::path(delete, path = "/-/tables/{table}", tag = "tables", params(("table" = String, Path, description = "The table's name")),
    responses((status = 204), (status = "default", description = "A problem", body = ProblemDocument, content_type = "application/problem+json")))]
pub(crate) async fn drop_table(State(state): Api, Path(name): Path<String>) -> Answer<StatusCode> {
    let tables = state.admin.tables.clone();
    let dropped = tokio::task::spawn_blocking(move || tables.drop_table(&name)).await;
    dropped.map_err(|error| mainstay_base::Error::internal(format!("dropping a table ended by itself: {error}")))??;
    Ok(StatusCode::NO_CONTENT)
}

/// A query.
#[derive(Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct SqlOrder {
    /// One statement that reads.
    pub query: String,
    /// Most rows, up to 100,000; 1,000 unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<usize>,
}

/// Run one statement that reads, and answer JSON, or CSV where the request accepts that.
///
/// The header `x-mainstay-cut` is `true` when there were more rows than asked for, `x-mainstay-missing-rows` says how many rows
/// could not be read because files are damaged.
#[utoipa::path(post, path = "/-/sql", tag = "tables", request_body = SqlOrder,
    responses((status = 200, description = "Rows, as a JSON array of objects or as CSV", body = Vec<Object>), (status = "default", description = "A problem", body = ProblemDocument, content_type = "application/problem+json")))]
pub(crate) async fn sql(
    State(state): Api,
    Extension(identity): Extension<Arc<Identity>>,
    headers: HeaderMap,
    body: BodyReader,
) -> Answer<Response> {
    let SqlOrder { query, rows } = body.json(&state.limits).await?;
    let limits = SqlLimits {
        rows: rows.unwrap_or(ROWS_DEFAULT).clamp(1, ROWS_MAX),
        time: QUERY_TIME_MAX,
        memory_bytes: state.admin.query_bytes,
        with_restricted: identity.right >= Right::Admin,
        ..SqlLimits::default()
    };
    let answer = mainstay_sql::query(&state.admin.tables, &query, &limits).await?;
    Ok(shown(&answer, wants_csv(&headers))?)
}

pub(crate) fn wants_csv(headers: &HeaderMap) -> bool {
    headers.get(http::header::ACCEPT).is_some_and(|accept| accept.as_bytes().starts_with(b"text/csv"))
}

pub(crate) fn shown(answer: &Rows, is_csv: bool) -> Result<Response> {
    let (body, content_type) = match is_csv {
        true => (answer.csv()?, "text/csv; charset=utf-8"),
        false => (answer.json()?, "application/json"),
    };
    let mut response = body.into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CUT, HeaderValue::from_static(if answer.is_cut { "true" } else { "false" }));
    headers.insert(MISSING, answer.missing.iter().map(|missing| missing.rows).sum::<u64>().into());
    Ok(response)
}

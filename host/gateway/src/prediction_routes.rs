//! The host's routes about logs of predictions: making them, posting, and predictions with what became true of them.
//!
//! Owns the routes under `/-/predictions` and `/-/outcomes`. Separate from those about tables because here rows have a meaning.
//! Making a log needs the right `admin`, posting `write`, reading `read`; columns that are marked `restrict` are shown to
//! administrators only. Bounded by the limits of logs and tables, and of JSON bodies. On failure: a problem document; a post is
//! kept as a whole or not at all.

use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::response::Response;
use axum::{Extension, Json, Router};
use http::HeaderMap;
use mainstay_base::{Error, Result};
use mainstay_predictions::{LabelledQuery, LogSpec, Outcome, Prediction, Predictions};
use mainstay_tables::{Appended, Window, WindowLimits};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::{IntoParams, ToSchema};

use crate::host_routes::{Answer, BodyReader};
use crate::options::GatewayLimits;
use crate::problem::ProblemDocument;
use crate::routes::Right;
use crate::table_routes::{shown, wants_csv};
use crate::tokens::Identity;

/// Rows of predictions with outcomes in one answer.
const LABELLED_ROWS_MAX: usize = 1_000_000;
/// Bytes of a post.
const POST_BYTES_MAX: u64 = 16 << 20;
/// The header by which a repeated post is recognized.
const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// What the handlers use.
pub(crate) struct PredictionsState {
    pub(crate) predictions: Predictions,
    pub(crate) limits: GatewayLimits,
}

type Api = State<Arc<PredictionsState>>;

/// The routes.
pub(crate) fn router(state: Arc<PredictionsState>) -> Router {
    use axum::routing::{get, post};
    Router::new()
        .route("/-/predictions", get(list_logs))
        .route("/-/predictions/{log}", get(log_info).put(apply_log).post(post_predictions))
        .route("/-/predictions/{log}/labelled", get(labelled))
        .route("/-/outcomes/{log}", post(post_outcomes))
        .with_state(state)
}

/// Names of all logs.
#[utoipa::path(get, path = "/-/predictions", tag = "predictions",
    responses((status = 200, body = Vec<String>), (status = "default", description = "A problem", body = ProblemDocument, content_type = "application/problem+json")))]
pub(crate) async fn list_logs(State(state): Api) -> Json<Vec<String>> {
    Json(state.predictions.list())
}

/// A log: its features and outputs, and what became of the predictions that traffic offered since the start.
#[utoipa::path(get, path = "/-/predictions/{log}", tag = "predictions", params(("log" = String, Path, description = "The log's name")),
    responses((status = 200, body = Object), (status = "default", description = "A problem", body = ProblemDocument, content_type = "application/problem+json")))]
pub(crate) async fn log_info(State(state): Api, Path(name): Path<String>) -> Answer<Json<Value>> {
    let log = state.predictions.log(&name)?;
    let written = log.written();
    let offered = json!({"kept": written.kept, "dropped": written.dropped, "waiting": written.waiting});
    Ok(Json(json!({"name": name, "spec": log.spec(), "offered": offered})))
}

/// Make a log, or give it the features and outputs that it lacks.
#[utoipa::path(put, path = "/-/predictions/{log}", tag = "predictions", params(("log" = String, Path, description = "The log's name")),
    request_body(content = Object, description = "`features` and `outputs`, each a list of `name`, `kind` (`real`, `integer`, `boolean`, `text`) and perhaps `mark` (`hash`, `drop`, `restrict`); `keep-days`"),
    responses((status = 200, body = Object), (status = "default", description = "A problem", body = ProblemDocument, content_type = "application/problem+json")))]
pub(crate) async fn apply_log(State(state): Api, Path(name): Path<String>, body: BodyReader) -> Answer<Json<Value>> {
    let spec: LogSpec = body.json(&state.limits).await?;
    let (predictions, log) = (state.predictions.clone(), name.clone());
    let applied = tokio::task::spawn_blocking(move || predictions.apply(&log, &spec)).await;
    let log = applied.map_err(|error| Error::internal(format!("making a log ended by itself: {error}")))??;
    Ok(Json(json!({"name": name, "spec": log.spec()})))
}

/// Rows to keep.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rows<T> {
    rows: Vec<T>,
}

/// What a post did.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Posted {
    /// Rows that were added.
    pub rows: usize,
    /// Whether the same post had been made before, so that nothing was added.
    pub is_repeated: bool,
}

impl From<Appended> for Posted {
    fn from(appended: Appended) -> Posted {
        Posted { rows: appended.rows, is_repeated: appended.is_repeated }
    }
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<&str>> {
    let Some(value) = headers.get(IDEMPOTENCY_KEY) else { return Ok(None) };
    let text = value.to_str().map_err(|_| Error::invalid("the header `idempotency-key` is no plain text"))?;
    Ok(Some(text))
}

/// Keep predictions, durably: `{"rows": [{"id": …, "model": …, "version": …, "features": {…}, "outputs": {…}}]}`.
///
/// With the header `idempotency-key` the same post again adds nothing, for seven days.
#[utoipa::path(post, path = "/-/predictions/{log}", tag = "predictions",
    params(("log" = String, Path, description = "The log's name"), ("idempotency-key" = Option<String>, Header, description = "Names this post")),
    request_body(content = Object, description = "`rows`, at most 65,536"),
    responses((status = 200, body = Posted), (status = "default", description = "A problem", body = ProblemDocument, content_type = "application/problem+json")))]
pub(crate) async fn post_predictions(
    State(state): Api,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: BodyReader,
) -> Answer<Json<Posted>> {
    let Rows { rows } = body.json_within::<Rows<Prediction>>(&state.limits, POST_BYTES_MAX).await?;
    let log = state.predictions.log(&name)?;
    Ok(Json(log.post(&rows, idempotency_key(&headers)?).await?.into()))
}

/// Keep what became true of predictions, durably: `{"rows": [{"id": …, "name": "label", "value": 1}]}`.
///
/// With the header `idempotency-key` the same post again adds nothing, for seven days; without it, too, a repeated outcome counts
/// once.
#[utoipa::path(post, path = "/-/outcomes/{log}", tag = "predictions",
    params(("log" = String, Path, description = "The log's name"), ("idempotency-key" = Option<String>, Header, description = "Names this post")),
    request_body(content = Object, description = "`rows`, at most 65,536"),
    responses((status = 200, body = Posted), (status = "default", description = "A problem", body = ProblemDocument, content_type = "application/problem+json")))]
pub(crate) async fn post_outcomes(
    State(state): Api,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: BodyReader,
) -> Answer<Json<Posted>> {
    let Rows { rows } = body.json_within::<Rows<Outcome>>(&state.limits, POST_BYTES_MAX).await?;
    let log = state.predictions.log(&name)?;
    Ok(Json(log.post_outcomes(&rows, idempotency_key(&headers)?).await?.into()))
}

/// Which predictions, and which outcome.
#[derive(Debug, Deserialize, IntoParams)]
pub(crate) struct LabelledParameters {
    /// The outcome's name.
    outcome: String,
    /// Predictions from this time on, in milliseconds since 1970-01-01 UTC.
    from_ms: Option<i64>,
    /// Predictions before this time.
    to_ms: Option<i64>,
    /// Outcomes that became true before this time.
    until_ms: Option<i64>,
}

/// Predictions with an outcome, as a JSON array of objects, or as CSV where the request accepts that: each prediction once, with
/// the latest outcome of that name.
#[utoipa::path(get, path = "/-/predictions/{log}/labelled", tag = "predictions", params(("log" = String, Path, description = "The log's name"), LabelledParameters),
    responses((status = 200, description = "Rows", body = Vec<Object>), (status = "default", description = "A problem", body = ProblemDocument, content_type = "application/problem+json")))]
pub(crate) async fn labelled(
    State(state): Api,
    Path(name): Path<String>,
    Query(asked): Query<LabelledParameters>,
    Extension(identity): Extension<Arc<Identity>>,
    headers: HeaderMap,
) -> Answer<Response> {
    let log = state.predictions.log(&name)?;
    let query = LabelledQuery {
        window: Window::of_ms(asked.from_ms.unwrap_or(i64::MIN), asked.to_ms.unwrap_or(i64::MAX)),
        outcome: asked.outcome,
        until_us: asked.until_ms.map(|until| until.saturating_mul(1_000)),
        with_restricted: identity.right >= Right::Admin,
    };
    let limits = WindowLimits { rows: LABELLED_ROWS_MAX, ..WindowLimits::default() };
    let found = log.labelled(&query, &limits).await?;
    let answer = mainstay_tables::Rows::of_frame(&found.frame, found.missing)?;
    Ok(shown(&answer, wants_csv(&headers))?)
}

//! The admin API's part about jobs: definitions, runs, logs, pools.
//!
//! Owns the routes under `/-/jobs`, `/-/runs` and `/-/pools`, and [`JobsAdmin`], what they need. Separate from the host's other
//! routes because jobs are a room of their own and their definitions are that room's types. Everything here needs the right
//! `admin`, reading too: definitions and logs name programs, folders and environments. Bounded by the scheduler's limits. On
//! failure: a problem document.

use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::{Json, Router};
use http::StatusCode;
use mainstay_base::{Error, Result};
use mainstay_schedule::{
    Backfill, Backfilled, JobDefinition, JobRecord, Parameters, Pool, Run, Scheduler, Start, Started,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::{IntoParams, ToSchema};

use crate::host_routes::{Answer, BodyReader};
use crate::options::GatewayLimits;
use crate::problem::ProblemDocument;

/// Names of jobs that the host makes for itself start so; operators cannot change those.
pub const OWN_JOB_PREFIXES: &[&str] = &["host/", "plugin/"];
/// Most rows of one answer.
const ROWS_MAX: u32 = 1_000;
const ROWS_DEFAULT: u32 = 100;

/// What the routes need of whoever carries jobs out.
#[async_trait::async_trait]
pub trait JobHost: Send + Sync + 'static {
    /// Whether a definition's action can be carried out here; asked before the definition is taken.
    fn check(&self, definition: &JobDefinition) -> Result<()>;
    /// A definition was taken or removed.
    async fn changed(&self) -> Result<()>;
}

/// What the routes about jobs need.
#[derive(Clone)]
pub struct JobsAdmin {
    /// Jobs and runs.
    pub scheduler: Scheduler,
    /// Who carries them out.
    pub host: Arc<dyn JobHost>,
}

/// What the handlers use.
pub(crate) struct JobsState {
    pub(crate) jobs: JobsAdmin,
    pub(crate) limits: GatewayLimits,
}

type Api = State<Arc<JobsState>>;

/// The routes.
pub(crate) fn router(state: Arc<JobsState>) -> Router {
    use axum::routing::{get, post};
    Router::new()
        .route("/-/jobs", get(list_jobs).post(apply_job))
        .route("/-/jobs/schema", get(job_schema))
        .route("/-/jobs/{job}", get(job_info).delete(remove_job))
        .route("/-/jobs/{job}/pause", post(pause_job))
        .route("/-/jobs/{job}/resume", post(resume_job))
        .route("/-/jobs/{job}/backfill", post(backfill_job))
        .route("/-/jobs/{job}/runs", get(list_runs).post(start_run))
        .route("/-/runs/{run}", get(run_info))
        .route("/-/runs/{run}/cancel", post(cancel_run))
        .route("/-/runs/{run}/log", get(run_log))
        .route("/-/pools", get(list_pools).post(set_pool))
        .with_state(state)
}

/// Which rows.
#[derive(Debug, Default, Deserialize, IntoParams)]
pub(crate) struct PageQuery {
    /// Go on behind this: `next` of the answer before.
    after: Option<String>,
    /// At most so many, 1 to 1,000; 100 unless given.
    limit: Option<u32>,
}

impl PageQuery {
    fn limit(&self) -> u32 {
        self.limit.unwrap_or(ROWS_DEFAULT).clamp(1, ROWS_MAX)
    }
}

/// Some jobs, by name.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct JobList {
    /// The jobs.
    #[schema(value_type = Vec<Object>)]
    pub jobs: Vec<JobRecord>,
    /// Give it as `after` to go on; none at the end.
    pub next: Option<String>,
}

/// Some runs of a job, newest first.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct RunList {
    /// The runs.
    #[schema(value_type = Vec<Object>)]
    pub runs: Vec<Run>,
    /// Give it as `after` to go on; none at the end.
    pub next: Option<String>,
}

/// Jobs by name, with what their triggers do next.
#[utoipa::path(get, path = "/-/jobs", tag = "jobs", params(PageQuery),
    responses((status = 200, body = JobList), (status = "default", description = "A problem", body = ProblemDocument, content_type = "application/problem+json")))]
pub(crate) async fn list_jobs(State(state): Api, Query(page): Query<PageQuery>) -> Answer<Json<JobList>> {
    let jobs = state.jobs.scheduler.jobs(page.after.as_deref(), page.limit())?;
    let next =
        (jobs.len() as u32 == page.limit()).then(|| jobs.last().map(|job| job.definition.name.clone())).flatten();
    Ok(Json(JobList { jobs, next }))
}

/// The JSON Schema of definitions.
#[utoipa::path(get, path = "/-/jobs/schema", tag = "jobs", responses((status = 200, body = Object)))]
pub(crate) async fn job_schema() -> Json<Value> {
    Json(JobDefinition::schema())
}

/// Make a job, or change it; runs that are there go on by the definition that they were started with.
#[utoipa::path(post, path = "/-/jobs", tag = "jobs", request_body(content = Object, description = "A definition; `/-/jobs/schema` describes it"),
    responses((status = 200, body = Object), (status = "default", description = "A problem", body = ProblemDocument, content_type = "application/problem+json")))]
pub(crate) async fn apply_job(State(state): Api, body: BodyReader) -> Answer<Json<JobRecord>> {
    let definition: JobDefinition = body.json(&state.limits).await?;
    not_own(&definition.name)?;
    definition.check()?;
    state.jobs.host.check(&definition)?;
    let record = state.jobs.scheduler.apply(definition).await?;
    state.jobs.host.changed().await?;
    Ok(Json(record))
}

fn not_own(job: &str) -> Result<()> {
    match OWN_JOB_PREFIXES.iter().find(|prefix| job.starts_with(**prefix)) {
        None => Ok(()),
        Some(prefix) => Err(Error::denied(format!(
            "`{job}`: jobs that start with `{prefix}` are the host's own; choose another name"
        ))),
    }
}

/// One job.
#[utoipa::path(get, path = "/-/jobs/{job}", tag = "jobs", params(("job" = String, Path, description = "The job's name, percent-encoded")),
    responses((status = 200, body = Object), (status = "default", description = "A problem", body = ProblemDocument, content_type = "application/problem+json")))]
pub(crate) async fn job_info(State(state): Api, Path(job): Path<String>) -> Answer<Json<JobRecord>> {
    let record = state.jobs.scheduler.job(&job)?;
    Ok(Json(record.ok_or_else(|| Error::not_found(format!("there is no job `{job}`")))?))
}

/// Remove a job; its runs that have begun go on, those that have not are dropped.
#[utoipa::path(delete, path = "/-/jobs/{job}", tag = "jobs", params(("job" = String, Path, description = "The job's name, percent-encoded")),
    responses((status = 204), (status = "default", description = "A problem", body = ProblemDocument, content_type = "application/problem+json")))]
pub(crate) async fn remove_job(State(state): Api, Path(job): Path<String>) -> Answer<StatusCode> {
    not_own(&job)?;
    state.jobs.scheduler.remove(&job).await?;
    state.jobs.host.changed().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Let no further run of a job begin.
#[utoipa::path(post, path = "/-/jobs/{job}/pause", tag = "jobs", params(("job" = String, Path, description = "The job's name, percent-encoded")),
    responses((status = 200, body = Object), (status = "default", description = "A problem", body = ProblemDocument, content_type = "application/problem+json")))]
pub(crate) async fn pause_job(State(state): Api, Path(job): Path<String>) -> Answer<Json<JobRecord>> {
    Ok(Json(state.jobs.scheduler.pause(&job).await?))
}

/// Let runs of a job begin again; what was missed is caught up as its definition says.
#[utoipa::path(post, path = "/-/jobs/{job}/resume", tag = "jobs", params(("job" = String, Path, description = "The job's name, percent-encoded")),
    responses((status = 200, body = Object), (status = "default", description = "A problem", body = ProblemDocument, content_type = "application/problem+json")))]
pub(crate) async fn resume_job(State(state): Api, Path(job): Path<String>) -> Answer<Json<JobRecord>> {
    Ok(Json(state.jobs.scheduler.resume(&job).await?))
}

/// Which of a job's past occurrences to run.
#[derive(Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct BackfillOrder {
    /// The first scheduled time, in milliseconds since 1970-01-01 UTC.
    pub from_ms: i64,
    /// The first scheduled time behind the range; not in the future.
    pub to_ms: i64,
    /// Most occurrences to look at, 1 to 1,000.
    pub limit: u32,
    /// Only say what would be started.
    #[serde(default)]
    pub dry_run: bool,
}

/// Run occurrences of the past that have no run yet.
#[utoipa::path(post, path = "/-/jobs/{job}/backfill", tag = "jobs", params(("job" = String, Path, description = "The job's name, percent-encoded")),
    request_body = BackfillOrder,
    responses((status = 200, body = Object), (status = "default", description = "A problem", body = ProblemDocument, content_type = "application/problem+json")))]
pub(crate) async fn backfill_job(
    State(state): Api,
    Path(job): Path<String>,
    body: BodyReader,
) -> Answer<Json<Backfilled>> {
    let BackfillOrder { from_ms, to_ms, limit, dry_run } = body.json(&state.limits).await?;
    let order = Backfill { job, from_ms, to_ms, limit, dry_run };
    Ok(Json(state.jobs.scheduler.backfill(&order).await?))
}

/// A job's runs, newest first.
#[utoipa::path(get, path = "/-/jobs/{job}/runs", tag = "jobs", params(("job" = String, Path, description = "The job's name, percent-encoded"), PageQuery),
    responses((status = 200, body = RunList), (status = "default", description = "A problem", body = ProblemDocument, content_type = "application/problem+json")))]
pub(crate) async fn list_runs(
    State(state): Api,
    Path(job): Path<String>,
    Query(page): Query<PageQuery>,
) -> Answer<Json<RunList>> {
    let wrong = |_| Error::invalid("`after` is not the `next` of an answer");
    let after = page.after.as_deref().map(hex::decode).transpose().map_err(wrong)?;
    let found = state.jobs.scheduler.runs(&job, after, page.limit())?;
    Ok(Json(RunList { runs: found.runs, next: found.next.map(hex::encode) }))
}

/// How to start a run.
#[derive(Default, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct RunOrder {
    /// Over the job's own.
    #[schema(value_type = Object)]
    pub parameters: Parameters,
    /// The same key starts a run once; later starts answer that run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<String>,
    /// How long to wait first, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delay_ms: Option<u64>,
    /// Instead of the job's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<i32>,
}

/// Which run a start came to.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct RunStarted {
    /// The run.
    pub run: String,
    /// Whether an earlier start with the same key had made it.
    pub existed: bool,
}

/// Start a run.
#[utoipa::path(post, path = "/-/jobs/{job}/runs", tag = "jobs", params(("job" = String, Path, description = "The job's name, percent-encoded")),
    request_body = RunOrder,
    responses((status = 201, body = RunStarted), (status = "default", description = "A problem", body = ProblemDocument, content_type = "application/problem+json")))]
pub(crate) async fn start_run(
    State(state): Api,
    Path(job): Path<String>,
    body: BodyReader,
) -> Answer<(StatusCode, Json<RunStarted>)> {
    let RunOrder { parameters, idempotency_key, delay_ms, priority } = body.json(&state.limits).await?;
    let Started { run, existed } =
        state.jobs.scheduler.start(Start { job, parameters, idempotency_key, delay_ms, priority }).await?;
    Ok((StatusCode::CREATED, Json(RunStarted { run, existed })))
}

/// One run, with its attempts.
#[utoipa::path(get, path = "/-/runs/{run}", tag = "jobs", params(("run" = String, Path, description = "The run's name")),
    responses((status = 200, body = Object), (status = "default", description = "A problem", body = ProblemDocument, content_type = "application/problem+json")))]
pub(crate) async fn run_info(State(state): Api, Path(run): Path<String>) -> Answer<Json<Run>> {
    Ok(Json(find(&state, &run)?))
}

fn find(state: &JobsState, run: &str) -> Result<Run> {
    let found = state.jobs.scheduler.run(run)?;
    found.ok_or_else(|| Error::not_found(format!("there is no run `{run}`; ended runs are removed after a while")))
}

/// Ask a run to end.
#[utoipa::path(post, path = "/-/runs/{run}/cancel", tag = "jobs", params(("run" = String, Path, description = "The run's name")),
    responses((status = 200, body = Object), (status = "default", description = "A problem", body = ProblemDocument, content_type = "application/problem+json")))]
pub(crate) async fn cancel_run(State(state): Api, Path(run): Path<String>) -> Answer<Json<Run>> {
    find(&state, &run)?;
    Ok(Json(state.jobs.scheduler.cancel(&run, "an operator cancelled it").await?))
}

/// Which part of a log.
#[derive(Debug, Default, Deserialize, IntoParams)]
pub(crate) struct LogQuery {
    /// The attempt, by its token; the newest unless given.
    token: Option<u64>,
    /// Go on behind this: `next` of the answer before.
    #[serde(default)]
    after: u32,
}

/// Some of what an attempt printed.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct LogText {
    /// The text; bytes that are no UTF-8 are replaced.
    pub text: String,
    /// Give it as `after` to go on; also at the end, to ask for what comes later.
    pub next: u32,
    /// Whether the run has ended, so that nothing more comes.
    pub has_ended: bool,
}

/// What an attempt at a run printed.
#[utoipa::path(get, path = "/-/runs/{run}/log", tag = "jobs", params(("run" = String, Path, description = "The run's name"), LogQuery),
    responses((status = 200, body = LogText), (status = "default", description = "A problem", body = ProblemDocument, content_type = "application/problem+json")))]
pub(crate) async fn run_log(
    State(state): Api,
    Path(run): Path<String>,
    Query(query): Query<LogQuery>,
) -> Answer<Json<LogText>> {
    // The run first: a log that is read behind its end is all of it.
    let found = find(&state, &run)?;
    let page = state.jobs.scheduler.log(&run, query.token.unwrap_or(found.token), query.after)?;
    let text = String::from_utf8_lossy(&page.bytes).into_owned();
    Ok(Json(LogText { text, next: page.next, has_ended: found.end().is_some() }))
}

/// Pools, and how full they are.
#[utoipa::path(get, path = "/-/pools", tag = "jobs",
    responses((status = 200, body = Vec<Object>), (status = "default", description = "A problem", body = ProblemDocument, content_type = "application/problem+json")))]
pub(crate) async fn list_pools(State(state): Api) -> Answer<Json<Vec<Value>>> {
    let pools = state.jobs.scheduler.pools()?;
    let row =
        |each: mainstay_schedule::PoolUse| json!({"name": each.pool.name, "slots": each.pool.slots, "used": each.used});
    Ok(Json(pools.into_iter().map(row).collect()))
}

/// Make a pool, or change its slots.
#[utoipa::path(post, path = "/-/pools", tag = "jobs", request_body(content = Object, description = "`name` and `slots`"),
    responses((status = 204), (status = "default", description = "A problem", body = ProblemDocument, content_type = "application/problem+json")))]
pub(crate) async fn set_pool(State(state): Api, body: BodyReader) -> Answer<StatusCode> {
    let pool: Pool = body.json(&state.limits).await?;
    state.jobs.scheduler.set_pool(pool).await?;
    Ok(StatusCode::NO_CONTENT)
}

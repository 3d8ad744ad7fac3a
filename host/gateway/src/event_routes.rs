//! The admin API's part about events: topics, who listens, how far they are, what failed.
//!
//! Owns the routes under `/-/events` and `/-/subscriptions`. Separate from the host's other routes because topics are a room of
//! their own. Everything here needs the right `admin`, reading too: events hold what plugins tell each other. Bounded by the
//! limits of the events' room. On failure: a problem document.

use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::{Json, Router};
use http::StatusCode;
use mainstay_base::{Error, Result};
use mainstay_events::{Event, Events, Lag, Offset, Start, SubscriptionRecord};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::{IntoParams, ToSchema};

use crate::host_routes::{Answer, BodyReader};
use crate::options::GatewayLimits;
use crate::problem::ProblemDocument;

/// Most rows of one answer.
const ROWS_MAX: u32 = 1_000;
const ROWS_DEFAULT: u32 = 100;
/// Dead letters that one request retries or drops.
const LETTERS_MAX: u32 = mainstay_events::limits::DEAD_LETTERS_AT_ONCE_MAX as u32;

/// What the handlers use.
pub(crate) struct EventsState {
    pub(crate) events: Events,
    pub(crate) limits: GatewayLimits,
}

type Api = State<Arc<EventsState>>;

/// The routes.
pub(crate) fn router(state: Arc<EventsState>) -> Router {
    use axum::routing::{get, post};
    Router::new()
        .route("/-/events", get(list_topics))
        .route("/-/events/{topic}", get(read_topic))
        .route("/-/subscriptions", get(list_subscriptions))
        .route("/-/subscriptions/{name}", get(subscription_info))
        .route("/-/subscriptions/{name}/pause", post(pause))
        .route("/-/subscriptions/{name}/resume", post(resume))
        .route("/-/subscriptions/{name}/seek", post(seek))
        .route("/-/subscriptions/{name}/dead-letters", get(dead_letters))
        .route("/-/subscriptions/{name}/retry", post(retry))
        .route("/-/subscriptions/{name}/drop", post(drop_letters))
        .with_state(state)
}

/// Topics that have events, by name.
#[utoipa::path(get, path = "/-/events", tag = "events",
    responses((status = 200, body = Vec<String>), (status = "default", description = "A problem", body = ProblemDocument, content_type = "application/problem+json")))]
pub(crate) async fn list_topics(State(state): Api) -> Answer<Json<Vec<String>>> {
    Ok(Json(state.events.topics()?))
}

/// Which events.
#[derive(Debug, Default, Deserialize, IntoParams)]
pub(crate) struct TopicQuery {
    /// Go on behind this event.
    after: Option<String>,
    /// Or begin with the first event that is as young as this, in milliseconds since 1970-01-01 UTC.
    from_ms: Option<i64>,
    /// At most so many, 1 to 1,000; 100 unless given.
    limit: Option<u32>,
}

/// An event, for people.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct EventRow {
    /// Its name and place.
    id: String,
    /// When it was published, in milliseconds since 1970-01-01 UTC.
    time_ms: i64,
    /// Who published it.
    publisher: String,
    /// What happened.
    kind: String,
    /// To what.
    key: Option<String>,
    /// What is told of it.
    #[schema(value_type = Object)]
    payload: Value,
    /// W3C trace context.
    traceparent: Option<String>,
}

impl From<Event> for EventRow {
    fn from(event: Event) -> EventRow {
        let text = || Value::String(String::from_utf8_lossy(&event.payload).into_owned());
        EventRow {
            id: event.offset.to_string(),
            time_ms: event.time_ms,
            payload: serde_json::from_slice(&event.payload).unwrap_or_else(|_| text()),
            publisher: event.publisher,
            kind: event.kind,
            key: event.key,
            traceparent: event.trace.map(|trace| trace.traceparent),
        }
    }
}

/// Events of a topic, oldest first.
#[utoipa::path(get, path = "/-/events/{topic}", tag = "events", params(("topic" = String, Path, description = "The topic's name, percent-encoded"), TopicQuery),
    responses((status = 200, body = Vec<EventRow>), (status = "default", description = "A problem", body = ProblemDocument, content_type = "application/problem+json")))]
pub(crate) async fn read_topic(
    State(state): Api,
    Path(topic): Path<String>,
    Query(query): Query<TopicQuery>,
) -> Answer<Json<Vec<EventRow>>> {
    let after = match (&query.after, query.from_ms) {
        (Some(after), _) => Some(after.parse::<Offset>()?),
        (None, Some(from_ms)) => Some(state.events.offset_at(&topic, from_ms)?),
        (None, None) => None,
    };
    let page = state.events.read(&topic, after, query.limit.unwrap_or(ROWS_DEFAULT).clamp(1, ROWS_MAX))?;
    Ok(Json(page.events.into_iter().map(EventRow::from).collect()))
}

/// A listener, and how far it is.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct SubscriptionRow {
    /// What it is, and whether it is paused.
    #[serde(flatten)]
    #[schema(value_type = Object)]
    record: SubscriptionRecord,
    /// How far it is in each topic.
    #[schema(value_type = Vec<Object>)]
    lag: Vec<Lag>,
    /// Events that it could not be told of.
    dead_letters: i64,
}

fn row(state: &EventsState, record: SubscriptionRecord) -> Result<SubscriptionRow> {
    let name = &record.subscription.name;
    let (lag, dead_letters) = (state.events.lag(name)?, state.events.dead_letter_count(name)?);
    Ok(SubscriptionRow { lag, dead_letters, record })
}

/// Who listens to which topics, and how far they are.
#[utoipa::path(get, path = "/-/subscriptions", tag = "events",
    responses((status = 200, body = Vec<SubscriptionRow>), (status = "default", description = "A problem", body = ProblemDocument, content_type = "application/problem+json")))]
pub(crate) async fn list_subscriptions(State(state): Api) -> Answer<Json<Vec<SubscriptionRow>>> {
    let records = state.events.subscriptions()?;
    Ok(Json(records.into_iter().map(|record| row(&state, record)).collect::<Result<_>>()?))
}

/// One listener.
#[utoipa::path(get, path = "/-/subscriptions/{name}", tag = "events", params(("name" = String, Path, description = "The subscription's name, percent-encoded")),
    responses((status = 200, body = SubscriptionRow), (status = "default", description = "A problem", body = ProblemDocument, content_type = "application/problem+json")))]
pub(crate) async fn subscription_info(State(state): Api, Path(name): Path<String>) -> Answer<Json<SubscriptionRow>> {
    let record = state.events.subscription(&name)?;
    let record = record.ok_or_else(|| Error::not_found(format!("there is no subscription `{name}`")))?;
    Ok(Json(row(&state, record)?))
}

/// Deliver nothing more to a listener.
#[utoipa::path(post, path = "/-/subscriptions/{name}/pause", tag = "events", params(("name" = String, Path, description = "The subscription's name, percent-encoded")),
    responses((status = 204), (status = "default", description = "A problem", body = ProblemDocument, content_type = "application/problem+json")))]
pub(crate) async fn pause(State(state): Api, Path(name): Path<String>) -> Answer<StatusCode> {
    state.events.pause(&name).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Go on delivering to a listener, from where it stopped.
#[utoipa::path(post, path = "/-/subscriptions/{name}/resume", tag = "events", params(("name" = String, Path, description = "The subscription's name, percent-encoded")),
    responses((status = 204), (status = "default", description = "A problem", body = ProblemDocument, content_type = "application/problem+json")))]
pub(crate) async fn resume(State(state): Api, Path(name): Path<String>) -> Answer<StatusCode> {
    state.events.resume(&name).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Where to move a listener.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct SeekOrder {
    /// In this topic; in all of them unless given.
    #[serde(default)]
    topic: Option<String>,
    /// To the first event that is as young as this, in milliseconds since 1970-01-01 UTC.
    time_ms: i64,
}

/// Deliver to a listener again from a time on, or skip what is older.
#[utoipa::path(post, path = "/-/subscriptions/{name}/seek", tag = "events", params(("name" = String, Path, description = "The subscription's name, percent-encoded")),
    request_body = SeekOrder,
    responses((status = 204), (status = "default", description = "A problem", body = ProblemDocument, content_type = "application/problem+json")))]
pub(crate) async fn seek(State(state): Api, Path(name): Path<String>, body: BodyReader) -> Answer<StatusCode> {
    let SeekOrder { topic, time_ms } = body.json(&state.limits).await?;
    state.events.seek(&name, topic.as_deref(), Start::Time { time_ms }).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// An event that a listener could not be told of.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct DeadLetterRow {
    /// Where it was published.
    topic: String,
    /// The event's name.
    id: String,
    /// Why the last delivery failed.
    reason: String,
    /// How many deliveries failed.
    failures: u32,
    /// When it was given up, in milliseconds since 1970-01-01 UTC.
    dead_ms: i64,
    /// When it is tried again, if somebody asked for that.
    retry_at_ms: Option<i64>,
}

/// Events that a listener could not be told of, oldest first; at most 1,000.
#[utoipa::path(get, path = "/-/subscriptions/{name}/dead-letters", tag = "events", params(("name" = String, Path, description = "The subscription's name, percent-encoded")),
    responses((status = 200, body = Vec<DeadLetterRow>), (status = "default", description = "A problem", body = ProblemDocument, content_type = "application/problem+json")))]
pub(crate) async fn dead_letters(State(state): Api, Path(name): Path<String>) -> Answer<Json<Vec<DeadLetterRow>>> {
    let page = state.events.dead_letters(&name, None, LETTERS_MAX)?;
    let row = |letter: mainstay_events::DeadLetter| DeadLetterRow {
        topic: letter.event.topic.clone(),
        id: letter.event.offset.to_string(),
        reason: letter.reason,
        failures: letter.failures,
        dead_ms: letter.dead_ms,
        retry_at_ms: letter.retry_at_ms,
    };
    Ok(Json(page.letters.into_iter().map(row).collect()))
}

/// Deliver a listener's dead letters again, up to 1,000 of them; answers how many.
#[utoipa::path(post, path = "/-/subscriptions/{name}/retry", tag = "events", params(("name" = String, Path, description = "The subscription's name, percent-encoded")),
    responses((status = 200, body = Object), (status = "default", description = "A problem", body = ProblemDocument, content_type = "application/problem+json")))]
pub(crate) async fn retry(State(state): Api, Path(name): Path<String>) -> Answer<Json<Value>> {
    let letters = names(&state, &name)?;
    state.events.retry_dead_letters(&name, &letters).await?;
    Ok(Json(json!({"retried": letters.len()})))
}

/// Forget a listener's dead letters, up to 1,000 of them; answers how many.
#[utoipa::path(post, path = "/-/subscriptions/{name}/drop", tag = "events", params(("name" = String, Path, description = "The subscription's name, percent-encoded")),
    responses((status = 200, body = Object), (status = "default", description = "A problem", body = ProblemDocument, content_type = "application/problem+json")))]
pub(crate) async fn drop_letters(State(state): Api, Path(name): Path<String>) -> Answer<Json<Value>> {
    let letters = names(&state, &name)?;
    state.events.drop_dead_letters(&name, &letters).await?;
    Ok(Json(json!({"dropped": letters.len()})))
}

fn names(state: &EventsState, subscription: &str) -> Result<Vec<(String, Offset)>> {
    let page = state.events.dead_letters(subscription, None, LETTERS_MAX)?;
    Ok(page.letters.into_iter().map(|letter| (letter.event.topic.clone(), letter.event.offset)).collect())
}

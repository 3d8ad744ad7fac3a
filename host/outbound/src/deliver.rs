//! Calls that are made sooner or later: durable, tried again, signed anew each time.
//!
//! Owns [`Delivery`], [`Outbound::add_delivery`] and [`Deliverer`], the executor that makes the call. A delivery is a start of
//! one built-in job of the scheduler ([`delivery_job`]), added to the transaction that causes it; so it is durable with it,
//! and attempts, delays, logs and the end of a run are the scheduler's. Separate from calls, which are made once and forgotten.
//!
//! A delivery's id is kept with it and is the same at every attempt, so a receiver can tell a repetition. Tried again is what
//! may pass: connections that fail, time that runs out, 408, 425, 429 and 5xx. A `Retry-After` of these is waited for without
//! counting a failure, up to [`RETRY_AFTER_MAX`] times. Everything else that is not 2xx ends the run. Redirects are not
//! followed, as the Standard Webhooks specification says: what was promised to one address is not carried to another.
//!
//! Grants are judged when a delivery is added and again at each attempt, so taking one away stops those that wait. Bounded: a
//! delivery with everything in it has at most [`DOCUMENT_BYTES_MAX`] bytes, as the scheduler's parameters do. On failure: a
//! failed run that says why, without anything of the body, the answer or a secret.

use std::time::Instant;

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use mainstay_base::{Error, ErrorKind, Result};
use mainstay_schedule::limits::DOCUMENT_BYTES_MAX;
use mainstay_schedule::{
    AttemptContext, Executor, JobDefinition, Outcome, Parameters, Pool, RetryPolicy, Run, RunId, Scheduler, Start,
};
use mainstay_store::Transaction;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use url::Url;

use crate::grant::place;
use crate::limits::{
    DELIVERY_ANSWER_BYTES, DELIVERY_ID_BYTES_MAX, RETRY_AFTER_MAX, RETRY_AFTER_MS_MAX, TIMEOUT_MS_DEFAULT,
    TIMEOUT_MS_MAX,
};
use crate::outbound::Outbound;
use crate::request::{Request, SecretHeader};
use crate::secrets::check_name;
use crate::sign::Signing;

/// The built-in job's name.
pub const DELIVERY_JOB: &str = "host/deliveries";
/// Its kind of action, and so the name under which a driver knows [`Deliverer`].
pub const DELIVERY_KIND: &str = "outbound";
/// Its pool, so that receivers that are slow hold up nothing else.
pub const DELIVERY_POOL: &str = "outbound";

/// A call that is to be made sooner or later.
#[derive(Clone, PartialEq, Eq)]
pub struct Delivery {
    /// Names it for the receiver; none: a new name is made.
    pub id: Option<String>,
    /// How.
    pub method: Method,
    /// Where.
    pub url: String,
    /// Headers of the caller.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
    /// Secrets of the caller that the host adds.
    pub secret_headers: Vec<SecretHeader>,
    /// How the host signs it.
    pub signing: Option<Signing>,
    /// The longest time of an attempt, in milliseconds.
    pub timeout_ms: u64,
}

impl Delivery {
    /// A POST of JSON to this address, without secrets.
    pub fn json(url: impl Into<String>, document: &Value) -> Delivery {
        let mut headers = HeaderMap::new();
        headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Delivery {
            id: None,
            method: Method::POST,
            url: url.into(),
            headers,
            body: document.to_string().into(),
            secret_headers: Vec::new(),
            signing: None,
            timeout_ms: TIMEOUT_MS_DEFAULT,
        }
    }

    fn request(&self, id: &str) -> Request {
        Request {
            headers: self.headers.clone(),
            body: self.body.clone(),
            secret_headers: self.secret_headers.clone(),
            signing: self.signing.clone().map(|signing| (signing, id.to_owned())),
            timeout_ms: self.timeout_ms,
            answer_bytes: DELIVERY_ANSWER_BYTES,
            cut_answer: true,
            redirects: 0,
            ..Request::new(self.method.clone(), self.url.clone())
        }
    }
}

impl std::fmt::Debug for Delivery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let request = self.request("");
        f.debug_struct("Delivery").field("id", &self.id).field("request", &request).finish_non_exhaustive()
    }
}

/// What a delivery became.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Queued {
    /// The name that the receiver sees.
    pub id: String,
    /// The run of [`DELIVERY_JOB`] that makes it.
    pub run: RunId,
}

/// A delivery as the scheduler keeps it.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Kept {
    caller: String,
    id: String,
    method: String,
    url: String,
    headers: Vec<(String, String)>,
    body: Body,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    secret_headers: Vec<SecretHeader>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    signing: Option<Signing>,
    timeout_ms: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Body {
    Text(String),
    Base64(String),
}

impl Kept {
    fn of(caller: &str, id: &str, delivery: Delivery) -> Result<Kept> {
        let Delivery { method, url, headers, body, secret_headers, signing, timeout_ms, .. } = delivery;
        let mut kept = Vec::with_capacity(headers.len());
        for (name, value) in &headers {
            let text = value.to_str().map_err(|_| {
                Error::invalid(format!(
                    "the header `{name}` of a delivery is not plain text; leave it out or encode it"
                ))
            })?;
            kept.push((name.to_string(), text.to_owned()));
        }
        let body = match std::str::from_utf8(&body) {
            Ok(text) => Body::Text(text.to_owned()),
            Err(_) => Body::Base64(STANDARD.encode(&body)),
        };
        let (caller, id, method) = (caller.to_owned(), id.to_owned(), method.to_string());
        Ok(Kept { caller, id, method, url, headers: kept, body, secret_headers, signing, timeout_ms })
    }

    fn delivery(self) -> Result<(String, String, Delivery)> {
        let damaged = || Error::invalid("the delivery's parameters do not make a call; it was not added as one");
        let mut headers = HeaderMap::new();
        for (name, value) in self.headers {
            let name: HeaderName = name.parse().map_err(|_| damaged())?;
            headers.append(name, value.parse().map_err(|_| damaged())?);
        }
        let body = match self.body {
            Body::Text(text) => Bytes::from(text),
            Body::Base64(text) => STANDARD.decode(text).map_err(|_| damaged())?.into(),
        };
        let delivery = Delivery {
            id: Some(self.id.clone()),
            method: self.method.parse().map_err(|_| damaged())?,
            url: self.url,
            headers,
            body,
            secret_headers: self.secret_headers,
            signing: self.signing,
            timeout_ms: self.timeout_ms,
        };
        Ok((self.caller, self.id, delivery))
    }
}

impl Outbound {
    /// Make a call sooner or later when this transaction commits, and not otherwise. Call [`Scheduler::wake`] behind the
    /// commit, or it is made at the driver's next look.
    pub fn add_delivery(
        &self,
        scheduler: &Scheduler,
        transaction: &mut Transaction,
        caller: &str,
        delivery: Delivery,
    ) -> Result<Queued> {
        check_name("caller", caller)?;
        let id = match &delivery.id {
            Some(id) => check_id(id)?,
            None => self.new_id(),
        };
        let url = delivery.request(&id).check()?;
        self.grants(caller)?.judge(&url)?;
        let kept = serde_json::to_value(Kept::of(caller, &id, delivery)?);
        let Ok(Value::Object(parameters)) = kept else {
            return Err(Error::internal("a delivery could not be written down; this is a fault of the host"));
        };
        check_size(&parameters)?;
        let run = scheduler.add_start(transaction, Start { parameters, ..Start::of(DELIVERY_JOB) })?;
        Ok(Queued { id, run })
    }

    fn new_id(&self) -> String {
        let mut bytes = [0; 16];
        self.inner.random.fill(&mut bytes);
        format!("msg_{}", hex::encode(bytes))
    }
}

fn check_id(id: &str) -> Result<String> {
    // No dots: they separate the parts of what is signed.
    let is_good = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
    if (1..=DELIVERY_ID_BYTES_MAX).contains(&id.len()) && id.chars().all(is_good) {
        return Ok(id.to_owned());
    }
    Err(Error::invalid(format!(
        "a delivery's id has 1 to {DELIVERY_ID_BYTES_MAX} of the characters a-z, A-Z, 0-9, `-` and `_`"
    )))
}

fn check_size(parameters: &Parameters) -> Result<()> {
    let bytes = serde_json::to_vec(parameters).map_or(usize::MAX, |written| written.len());
    if bytes <= DOCUMENT_BYTES_MAX {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "the delivery has {bytes} bytes with its headers and body written down; at most {DOCUMENT_BYTES_MAX} are allowed; \
         keep large things as blobs and send where they are"
    )))
}

/// Whose delivery a run makes; none when it makes none.
pub fn caller_of(run: &Run) -> Option<&str> {
    let caller = run.parameters.get("caller").filter(|_| run.job == DELIVERY_JOB);
    caller.and_then(Value::as_str)
}

/// The job of all deliveries. Twelve attempts in about a day and a half, then the run has failed.
pub fn delivery_job() -> JobDefinition {
    JobDefinition {
        description: "Calls out of the house that plugins and the host have asked for.".to_owned(),
        retry: RetryPolicy { attempts: 12, base_ms: 5_000, factor: 4.0, cap_ms: 6 * 3_600_000, jitter: 0.5 },
        // The call's own time ends first; this is for what hangs all the same.
        attempt_timeout_ms: Some(2 * TIMEOUT_MS_MAX),
        deadline_ms: Some(3 * 24 * 3_600_000),
        pool: DELIVERY_POOL.to_owned(),
        concurrency: None,
        ..JobDefinition::new(DELIVERY_JOB, DELIVERY_KIND)
    }
}

/// Make the pool and the job of deliveries; to be called at each start. An operator's own number of slots stays.
pub async fn install(scheduler: &Scheduler) -> Result<()> {
    if !scheduler.pools()?.iter().any(|used| used.pool.name == DELIVERY_POOL) {
        scheduler.set_pool(Pool { name: DELIVERY_POOL.to_owned(), slots: 32 }).await?;
    }
    scheduler.apply(delivery_job()).await.map(|_| ())
}

/// Makes the calls of deliveries.
pub struct Deliverer {
    outbound: Outbound,
}

impl Deliverer {
    /// The executor of [`DELIVERY_KIND`].
    pub fn new(outbound: Outbound) -> Deliverer {
        Deliverer { outbound }
    }

    async fn make(&self, attempt: &AttemptContext) -> Outcome {
        let kept = serde_json::from_value::<Kept>(Value::Object(attempt.run.parameters.clone()));
        // The parser's message could quote the parameters.
        let kept = kept.map_err(|_| Error::invalid("the run's parameters are none of a delivery"));
        let (caller, id, delivery) = match kept.and_then(Kept::delivery) {
            Ok(parts) => parts,
            Err(error) => return Outcome::Failure { reason: error.to_string(), is_retryable: false },
        };
        let place = Url::parse(&delivery.url).map_or_else(|_| "?".to_owned(), |url| place(&url));
        let begun = Instant::now();
        let answered = tokio::select! {
            answered = self.outbound.call(&caller, delivery.request(&id)) => answered,
            () = attempt.cancel.cancelled() => Err(Error::unavailable("it was told to stop")),
        };
        let took_ms = begun.elapsed().as_millis();
        match answered {
            Ok(answer) => {
                let status = answer.status;
                attempt.log.line(&format!("{} {place} as {id}: {status} in {took_ms} ms", delivery.method));
                let retry_after_ms = retry_after_ms(&answer.headers, self.outbound.inner.clock.now_ms());
                judge(&id, &place, status, retry_after_ms, attempt.run.polls)
            }
            Err(error) => {
                attempt.log.line(&format!("{} {place} as {id}: {error}; {took_ms} ms", delivery.method));
                Outcome::Failure { is_retryable: error.kind() == ErrorKind::Unavailable, reason: error.to_string() }
            }
        }
    }
}

#[async_trait]
impl Executor for Deliverer {
    fn check(&self, settings: &Value) -> Result<()> {
        if settings.is_null() {
            return Ok(());
        }
        Err(Error::invalid(format!("actions of the kind `{DELIVERY_KIND}` have no settings")))
    }

    async fn execute(&self, attempt: AttemptContext) -> Outcome {
        self.make(&attempt).await
    }
}

/// What an answer means for the delivery.
fn judge(id: &str, place: &str, status: StatusCode, retry_after_ms: Option<u64>, polls: u64) -> Outcome {
    if status.is_success() {
        return Outcome::Success { result: json!({"id": id, "status": status.as_u16()}) };
    }
    let may_pass = matches!(status.as_u16(), 408 | 425 | 429) || status.is_server_error();
    let reason = format!("`{place}` answered {status}");
    match retry_after_ms {
        Some(after_ms) if may_pass && polls < RETRY_AFTER_MAX => Outcome::NotYet { reason, after_ms: Some(after_ms) },
        _ => Outcome::Failure { reason, is_retryable: may_pass },
    }
}

/// Seconds, or a date (RFC 9110, 10.2.3); bounded, and at least a second.
fn retry_after_ms(headers: &HeaderMap, now_ms: i64) -> Option<u64> {
    let text = headers.get(http::header::RETRY_AFTER)?.to_str().ok()?.trim();
    let wait_ms = match text.parse::<u64>() {
        Ok(seconds) => seconds.saturating_mul(1_000),
        Err(_) => {
            let at_ms = jiff::fmt::rfc2822::parse(text).ok()?.timestamp().as_millisecond();
            u64::try_from(at_ms.saturating_sub(now_ms)).unwrap_or(0)
        }
    };
    Some(wait_ms.clamp(1_000, RETRY_AFTER_MS_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_pass_is_tried_again_and_nothing_else() {
        fn check(status: u16, retry_after_ms: Option<u64>, polls: u64, expect: &str) {
            let judged = judge("i", "p", StatusCode::from_u16(status).unwrap(), retry_after_ms, polls);
            let said = match judged {
                Outcome::Success { .. } => "done".to_owned(),
                Outcome::Failure { is_retryable, .. } => if is_retryable { "again" } else { "never" }.to_owned(),
                Outcome::NotYet { after_ms, .. } => format!("in {}", after_ms.unwrap()),
            };
            assert_eq!(said, expect, "{status} {retry_after_ms:?} {polls}");
        }
        for status in [200, 201, 202, 204] {
            check(status, Some(5), 0, "done");
        }
        for status in [408, 425, 429, 500, 501, 502, 503, 504, 599] {
            check(status, None, 0, "again");
            check(status, Some(2_000), RETRY_AFTER_MAX - 1, "in 2000");
            check(status, Some(2_000), RETRY_AFTER_MAX, "again");
        }
        for status in [301, 302, 304, 307, 400, 401, 403, 404, 405, 409, 410, 413, 422, 451] {
            check(status, None, 0, "never");
            check(status, Some(2_000), 0, "never");
        }
    }

    #[test]
    fn retry_after_is_seconds_or_a_date_and_bounded() {
        fn check(text: &str, expect: Option<u64>) {
            let mut headers = HeaderMap::new();
            headers.insert("retry-after", text.parse().unwrap());
            // Sun, 06 Nov 1994 08:49:37 GMT, the date of RFC 9110, is 784111777 seconds after 1970.
            assert_eq!(retry_after_ms(&headers, 784_111_777_000 - 60_000), expect, "{text}");
        }
        check("120", Some(120_000));
        check("0", Some(1_000));
        check("3600", Some(RETRY_AFTER_MS_MAX));
        check("3601", Some(RETRY_AFTER_MS_MAX));
        check("99999999999999999999", None);
        check("Sun, 06 Nov 1994 08:49:37 GMT", Some(60_000));
        check("Sun, 06 Nov 1994 08:40:37 GMT", Some(1_000));
        check("soon", None);
        check("-1", None);
    }
}

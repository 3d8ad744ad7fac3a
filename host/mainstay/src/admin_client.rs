//! The commands' way into a running server: its admin API on this machine.
//!
//! Owns the requests and the reading of problem documents. Separate from the commands so that they say what they want in one
//! line. The address comes from the data folder's lock, the token (where one is needed) from `secrets/local-token`, which only
//! the data folder's owner can read. Bounded by [`TIMEOUT`] (installing may compile). On failure: the server's own message.

use crate::data_folder::{DataFolder, Opened, Owner};
use crate::serve::LOCAL_TOKEN_FILE;
use mainstay_base::{Error, ErrorKind, Result};
use mainstay_gateway::{
    BackfillOrder, BlobSweep, EndpointChange, EndpointOrder, ImportedModel, JobList, LogText, NewToken, PlanOrder,
    PluginDetail, PluginSummary, Posted, Role, RunList, RunOrder, RunStarted, SqlOrder, TokenInfo,
};
use mainstay_schedule::{Backfilled, JobDefinition, JobRecord, Pool, Run};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::blocking::{Client, RequestBuilder, Response};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(600);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A query's answer as text.
pub struct SqlText {
    /// The rows.
    pub text: String,
    /// Whether there were more.
    pub is_cut: bool,
    /// Rows that could not be read because files are damaged.
    pub missing_rows: u64,
}

/// A running server.
pub struct AdminClient {
    client: Client,
    url: String,
    token: Option<String>,
}

impl AdminClient {
    /// The server that holds this data folder.
    pub fn new(data: &Path, owner: &Owner) -> Result<AdminClient> {
        let Some(url) = owner.http.clone() else {
            return Err(Error::unavailable(format!(
                "the data folder is in use by {owner}; try again when it has ended"
            )));
        };
        // The server is on this machine: a proxy in the environment is not for it.
        let client = Client::builder()
            .timeout(TIMEOUT)
            .connect_timeout(CONNECT_TIMEOUT)
            .no_proxy()
            .build()
            .map_err(|error| Error::internal(format!("cannot make an HTTP client: {error}")))?;
        let path = data.join(LOCAL_TOKEN_FILE);
        let token = match std::fs::read_to_string(&path) {
            Ok(token) => Some(token),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(Error::io("read", &path, error)),
        };
        Ok(AdminClient { client, url, token })
    }

    /// The server that runs on this data folder; `unavailable` when none does. `command` is what wants it.
    pub fn of_running(data: &Path, command: &str) -> Result<AdminClient> {
        match DataFolder::try_open(data, command, None)? {
            Opened::Held(owner) => AdminClient::new(data, &owner),
            Opened::Ours(_) => Err(Error::unavailable(format!(
                "no server runs on {}, and `mainstay {command}` asks one: start it with `mainstay serve`, then try again",
                data.display()
            ))),
        }
    }

    /// The installed plugins.
    pub fn plugins(&self) -> Result<Vec<PluginSummary>> {
        self.send(self.client.get(self.at("/-/plugins")))
    }

    /// One installed plugin.
    pub fn plugin(&self, name: &str) -> Result<PluginDetail> {
        self.send(self.client.get(self.at(&format!("/-/plugins/{name}"))))
    }

    /// Install a package with these grants.
    pub fn install(&self, package: Vec<u8>, grants: &[String], config: Option<&Value>) -> Result<PluginDetail> {
        let mut query = vec![("grant", grants.join(","))];
        if let Some(config) = config {
            query.push(("config", config.to_string()));
        }
        let request = self.client.post(self.at("/-/plugins")).header("content-type", "application/octet-stream");
        self.send(request.query(&query).body(package))
    }

    /// Remove a plugin.
    pub fn remove(&self, name: &str) -> Result<()> {
        self.send_only(self.client.delete(self.at(&format!("/-/plugins/{name}"))))
    }

    /// Make a token.
    pub fn create_token(&self, name: &str, role: Role) -> Result<NewToken> {
        self.send(self.client.post(self.at("/-/tokens")).json(&json!({"name": name, "role": role})))
    }

    /// All tokens.
    pub fn tokens(&self) -> Result<Vec<TokenInfo>> {
        self.send(self.client.get(self.at("/-/tokens")))
    }

    /// End a token.
    pub fn revoke_token(&self, name: &str) -> Result<()> {
        self.send_only(self.client.delete(self.at(&format!("/-/tokens/{name}"))))
    }

    /// Sweep blobs.
    pub fn collect_garbage(&self) -> Result<BlobSweep> {
        self.send(self.client.post(self.at("/-/blobs/gc")))
    }

    /// Ask the tables; the answer as it comes, and whether rows were cut off and how many are missing.
    pub fn sql(&self, order: &SqlOrder, is_csv: bool) -> Result<SqlText> {
        let accept = if is_csv { "text/csv" } else { "application/json" };
        let response = self.answer(self.client.post(self.at("/-/sql")).header("accept", accept).json(order))?;
        let header = |name: &str| response.headers().get(name)?.to_str().ok().map(str::to_owned);
        let is_cut = header("x-mainstay-cut").as_deref() == Some("true");
        let missing_rows = header("x-mainstay-missing-rows").and_then(|count| count.parse().ok()).unwrap_or(0);
        let text = response.text().map_err(|error| self.strange(&error.to_string()))?;
        Ok(SqlText { text, is_cut, missing_rows })
    }

    /// Names of logs of predictions.
    pub fn logs(&self) -> Result<Vec<String>> {
        self.send(self.client.get(self.at("/-/predictions")))
    }

    /// Make a log of predictions, or let it grow.
    pub fn apply_log(&self, log: &str, spec: &Value) -> Result<Value> {
        self.send(self.client.put(self.at(&format!("/-/predictions/{}", encoded(log)))).json(spec))
    }

    /// Add rows to a log: `what` is `predictions` or `outcomes`.
    pub fn post_rows(&self, what: &str, log: &str, rows: &[Value], key: &str) -> Result<Posted> {
        let request = self.client.post(self.at(&format!("/-/{what}/{}", encoded(log))));
        self.send(request.header("idempotency-key", key).json(&json!({"rows": rows})))
    }

    /// Predictions with an outcome, as CSV.
    pub fn labelled(&self, log: &str, query: &[(&str, String)]) -> Result<String> {
        let request = self.client.get(self.at(&format!("/-/predictions/{}/labelled", encoded(log))));
        self.body(request.header("accept", "text/csv").query(query))
    }

    /// Names of tables.
    pub fn tables(&self) -> Result<Vec<String>> {
        self.send(self.client.get(self.at("/-/tables")))
    }

    /// One table.
    pub fn table(&self, name: &str) -> Result<Value> {
        self.send(self.client.get(self.at(&format!("/-/tables/{}", encoded(name)))))
    }

    /// Remove a table.
    pub fn drop_table(&self, name: &str) -> Result<()> {
        self.send_only(self.client.delete(self.at(&format!("/-/tables/{}", encoded(name)))))
    }

    /// All endpoints, with how they are.
    pub fn endpoints(&self) -> Result<Vec<Value>> {
        self.send(self.client.get(self.at("/-/endpoints")))
    }

    /// One endpoint.
    pub fn endpoint(&self, endpoint: &str) -> Result<Value> {
        self.send(self.client.get(self.endpoint_at(endpoint, "")))
    }

    /// Make or change an endpoint, or say what would change.
    pub fn apply_endpoint(&self, order: &EndpointOrder) -> Result<EndpointChange> {
        self.send(self.client.post(self.at("/-/endpoints")).json(order))
    }

    /// Remove an endpoint.
    pub fn remove_endpoint(&self, endpoint: &str) -> Result<()> {
        self.send_only(self.client.delete(self.endpoint_at(endpoint, "")))
    }

    /// Make another plan active.
    pub fn set_plan(&self, endpoint: &str, order: &PlanOrder) -> Result<Value> {
        self.send(self.client.post(self.endpoint_at(endpoint, "/plan")).json(order))
    }

    /// Plans that were active.
    pub fn plans(&self, endpoint: &str) -> Result<Value> {
        self.send(self.client.get(self.endpoint_at(endpoint, "/plans")))
    }

    /// Register a version of a model out of a tar archive of its files.
    pub fn import_model(&self, model: &str, archive: Vec<u8>) -> Result<ImportedModel> {
        let request = self.client.post(self.at(&format!("/-/models/{}/versions", encoded(model))));
        self.send(request.header("content-type", "application/x-tar").body(archive))
    }

    fn endpoint_at(&self, endpoint: &str, rest: &str) -> String {
        self.at(&format!("/-/endpoints/{}{rest}", encoded(endpoint)))
    }

    /// Jobs, a page of them.
    pub fn jobs(&self, after: Option<&str>) -> Result<JobList> {
        let query: Vec<_> = after.map(|after| ("after", after)).into_iter().collect();
        self.send(self.client.get(self.at("/-/jobs")).query(&query))
    }

    /// One job.
    pub fn job(&self, job: &str) -> Result<JobRecord> {
        self.send(self.client.get(self.job_at(job, "")))
    }

    /// Make or change a job.
    pub fn apply_job(&self, definition: &JobDefinition) -> Result<JobRecord> {
        self.send(self.client.post(self.at("/-/jobs")).json(definition))
    }

    /// Make or change a pool.
    pub fn set_pool(&self, pool: &Pool) -> Result<()> {
        self.send_only(self.client.post(self.at("/-/pools")).json(pool))
    }

    /// Remove a job.
    pub fn remove_job(&self, job: &str) -> Result<()> {
        self.send_only(self.client.delete(self.job_at(job, "")))
    }

    /// Pause a job, or let it go on.
    pub fn hold_job(&self, job: &str, is_paused: bool) -> Result<JobRecord> {
        self.send(self.client.post(self.job_at(job, if is_paused { "/pause" } else { "/resume" })))
    }

    /// Run occurrences of the past.
    pub fn backfill(&self, job: &str, order: &BackfillOrder) -> Result<Backfilled> {
        self.send(self.client.post(self.job_at(job, "/backfill")).json(order))
    }

    /// Runs of a job, newest first, the first page of them.
    pub fn runs(&self, job: &str) -> Result<RunList> {
        self.send(self.client.get(self.job_at(job, "/runs")))
    }

    /// Start a run.
    pub fn start_run(&self, job: &str, order: &RunOrder) -> Result<RunStarted> {
        self.send(self.client.post(self.job_at(job, "/runs")).json(order))
    }

    /// One run.
    pub fn run(&self, run: &str) -> Result<Run> {
        self.send(self.client.get(self.at(&format!("/-/runs/{}", encoded(run)))))
    }

    /// Ask a run to end.
    pub fn cancel_run(&self, run: &str) -> Result<Run> {
        self.send(self.client.post(self.at(&format!("/-/runs/{}/cancel", encoded(run)))))
    }

    /// What an attempt printed behind `after`.
    pub fn log(&self, run: &str, token: u64, after: u32) -> Result<LogText> {
        let query = [("token", token), ("after", u64::from(after))];
        self.send(self.client.get(self.at(&format!("/-/runs/{}/log", encoded(run)))).query(&query))
    }

    fn job_at(&self, job: &str, rest: &str) -> String {
        self.at(&format!("/-/jobs/{}{rest}", encoded(job)))
    }

    fn at(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    fn send<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T> {
        let body = self.body(request)?;
        serde_json::from_str(&body).map_err(|error| self.strange(&error.to_string()))
    }

    fn send_only(&self, request: RequestBuilder) -> Result<()> {
        self.body(request).map(|_| ())
    }

    fn body(&self, request: RequestBuilder) -> Result<String> {
        let response = self.answer(request)?;
        response.text().map_err(|error| self.strange(&error.to_string()))
    }

    /// A good answer, or the server's own message.
    fn answer(&self, request: RequestBuilder) -> Result<Response> {
        let request = match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        };
        let response = request.send().map_err(|error| {
            Error::unavailable(format!("the server at {} does not answer: {error}; try again", self.url))
        })?;
        let status = response.status().as_u16();
        if (200..300).contains(&status) {
            return Ok(response);
        }
        let body = response.text().map_err(|error| self.strange(&error.to_string()))?;
        let problem: Value = serde_json::from_str(&body).unwrap_or_default();
        match problem["detail"].as_str().or_else(|| problem["title"].as_str()) {
            Some(detail) => Err(Error::new(kind(status), detail)),
            None => Err(self.strange(&format!("status {status}"))),
        }
    }

    fn strange(&self, what: &str) -> Error {
        Error::unavailable(format!("what answers at {} is not this version of Mainstay: {what}", self.url))
    }
}

/// One segment of a path: names of jobs may hold slashes.
fn encoded(name: &str) -> String {
    const KEPT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.');
    utf8_percent_encode(name, KEPT).to_string()
}

fn kind(status: u16) -> ErrorKind {
    match status {
        400 | 405 | 413 | 414 | 422 => ErrorKind::Invalid,
        401 | 403 => ErrorKind::Denied,
        404 => ErrorKind::NotFound,
        409 | 412 => ErrorKind::Conflict,
        507 => ErrorKind::Exhausted,
        500 => ErrorKind::Internal,
        _ => ErrorKind::Unavailable,
    }
}

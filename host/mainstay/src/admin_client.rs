//! The commands' way into a running server: its admin API on this machine.
//!
//! Owns the requests and the reading of problem documents. Separate from the commands so that they say what they want in one
//! line. The address comes from the data folder's lock, the token (where one is needed) from `secrets/local-token`, which only
//! the data folder's owner can read. Bounded by [`TIMEOUT`] (installing may compile). On failure: the server's own message.

use crate::data_folder::Owner;
use crate::serve::LOCAL_TOKEN_FILE;
use mainstay_base::{Error, ErrorKind, Result};
use mainstay_gateway::{BlobSweep, NewToken, PluginDetail, PluginSummary, Role, TokenInfo};
use reqwest::blocking::{Client, RequestBuilder};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(600);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

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
        let request = match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        };
        let response = request.send().map_err(|error| {
            Error::unavailable(format!("the server at {} does not answer: {error}; try again", self.url))
        })?;
        let status = response.status().as_u16();
        let body = response.text().map_err(|error| self.strange(&error.to_string()))?;
        if (200..300).contains(&status) {
            return Ok(body);
        }
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

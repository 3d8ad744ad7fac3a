//! Scoring over the HTTP interface of MLflow's model servers, so that who used one changes only the address.
//!
//! Owns the paths and the shape of answers and errors. What comes is read by [`payload`], made into tensors as the model's
//! signature wants them by [`columns`], and asked of an endpoint like any other request: with its plan, limits and fallbacks.
//! Bounded by: the routes' inline bodies, 4 MiB, and the contract's 4 MiB of tensors. On failure: the answers of MLflow's scoring
//! server, with its codes.

mod columns;
mod failure;
mod payload;

use failure::Failure;
use mainstay_sdk::http::{Reply, Request};
use mainstay_sdk::traffic::{self, Response};
use mainstay_sdk::{Api, Error, Result, config};
use serde::Deserialize;
use serde_json::{Map, Value as Json, json};

/// The plugin.
pub struct Invocations;

mainstay_sdk::export_api!(Invocations);

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Config {
    endpoint: Option<String>,
    #[serde(default)]
    headers: Vec<String>,
    #[serde(default = "emulated_version")]
    emulated_version: String,
}

fn emulated_version() -> String {
    "3.17.2".to_owned()
}

impl Api for Invocations {
    fn handle(request: &Request) -> Result<Reply> {
        let config: Config = config::get()?;
        answer(&config, request).or_else(|failure| failure.reply())
    }
}

fn answer(config: &Config, request: &Request) -> Result<Reply, Failure> {
    let path = request.path();
    let below = path.strip_prefix("/serve/").and_then(|rest| rest.rsplit_once('/'));
    let (endpoint, action) = match below {
        Some((endpoint, action)) => (Some(endpoint), action),
        None => (None, path.trim_start_matches('/')),
    };
    match (request.method(), action) {
        ("GET", "ping" | "health") => ping(config, endpoint),
        ("GET", "version") => Ok(plain(200, &config.emulated_version)),
        ("POST", "invocations") => invocations(config, endpoint, request),
        (method, _) => Err(Failure::not_found(format!(
            "{method} {path} is nothing that a model server answers; there are /invocations, /ping, /health and /version, \
             at the root or below /serve/NAME"
        ))),
    }
}

fn plain(status: u16, body: &str) -> Reply {
    Reply::status(status).header("content-type", "application/json").with_body(body)
}

/// The endpoint that the path or the configuration names, or the only one.
fn chosen(config: &Config, named: Option<&str>) -> Result<String, Failure> {
    if let Some(name) = named.map(str::to_owned).or_else(|| config.endpoint.clone()) {
        return Ok(name);
    }
    let mut all = traffic::endpoints(None, 2)?;
    match (all.pop(), all.is_empty()) {
        (Some(only), true) => Ok(only),
        (None, _) => Err(Failure::not_found("this host has no endpoint; an operator defines them")),
        (Some(_), false) => Err(Failure::not_found(
            "this host has several endpoints; ask /serve/NAME/invocations, or let the operator set `endpoint` of this plugin",
        )),
    }
}

fn ping(config: &Config, named: Option<&str>) -> Result<Reply, Failure> {
    let found = traffic::find(&chosen(config, named)?)?;
    let is_ready = found.is_some_and(|endpoint| endpoint.is_ready);
    Ok(plain(if is_ready { 200 } else { 404 }, "\n"))
}

fn invocations(config: &Config, named: Option<&str>, request: &Request) -> Result<Reply, Failure> {
    let name = chosen(config, named)?;
    let content_type = request.header("content-type");
    let sent = match payload::read(content_type.as_deref(), request.bytes()?)? {
        payload::Read::Refused(said) => {
            return Ok(Reply::status(415).header("content-type", "text/plain; charset=utf-8").with_body(said));
        }
        payload::Read::Payload(sent) => sent,
    };
    let endpoint = traffic::find(&name)?;
    let endpoint = endpoint.ok_or_else(|| Failure::not_found(format!("there is no endpoint `{name}`")))?;
    let headers = config.headers.iter().filter_map(|name| Some((name.clone(), request.header(name)?)));
    let asked = traffic::Request {
        inputs: columns::tensors(sent.data, &endpoint.inputs)?,
        parameters: sent.parameters,
        headers: headers.collect(),
        tenant: Some(request.caller().tenant.clone()),
        ..traffic::Request::new(name)
    };
    let answered = asked.send()?;
    let body = json!({ "predictions": predictions(&answered)? });
    let reply = Reply::json(&body)?;
    Ok(answered.headers.iter().fold(reply, |reply, (name, value)| reply.header(name, value)))
}

/// One output as it is, several by name.
fn predictions(answered: &Response) -> Result<Json> {
    match answered.outputs.as_slice() {
        [] => Err(Error::internal("the model answered without outputs")),
        [only] => only.json(),
        several => {
            let named = several.iter().map(|output| Ok((output.name.clone(), output.json()?)));
            named.collect::<Result<Map<String, Json>>>().map(Json::Object)
        }
    }
}

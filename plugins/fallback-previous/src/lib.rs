//! What another endpoint says, while a model cannot answer: usually the version before, kept loaded behind a name of its own.
//!
//! Owns which endpoint is asked instead of which. Separate from a plan's own tier of another variant, because this one needs no
//! variant in the same plan, and shares neither its limits nor its breakers. Bounded by: the time that the ask has. On failure: the
//! other endpoint's error, and the next tier is asked; the host refuses an answer that is itself a fallback's.

use mainstay_sdk::fallback::{Ask, Reply};
use mainstay_sdk::traffic::Request;
use mainstay_sdk::{Error, Fallback, Result, config};
use serde::Deserialize;
use std::collections::BTreeMap;

/// Time that is left to hand the answer on, in milliseconds.
const SPARE_MS: u32 = 1;

/// The plugin.
pub struct Previous;

mainstay_sdk::export_fallback!(Previous);

#[derive(Deserialize)]
struct Config {
    #[serde(default)]
    endpoints: BTreeMap<String, String>,
}

impl Fallback for Previous {
    fn answer(ask: &Ask) -> Result<Reply> {
        let config: Config = config::get()?;
        let endpoint = ask.endpoint();
        let other = config.endpoints.get(&endpoint).ok_or_else(|| {
            Error::not_found(format!("no other endpoint is configured for `{endpoint}`; add it to `endpoints`"))
        })?;
        let left_ms = ask.remaining_ms().saturating_sub(SPARE_MS);
        if left_ms == 0 {
            return Err(Error::unavailable(format!("no time is left to ask `{other}`; give this tier more")));
        }
        let request = Request {
            inputs: ask.inputs()?,
            parameters: ask.parameters(),
            outputs: ask.wanted(),
            tenant: Some(ask.tenant()),
            timeout_ms: Some(left_ms.min(600_000)),
            ..Request::new(other)
        };
        let answered = request.send()?;
        let mut reply = Reply::new("previous").with_outputs(answered.outputs);
        if !answered.model.is_empty() && !answered.version.is_empty() {
            reply = reply.model(answered.model, answered.version);
        }
        Ok(answered.parameters.into_iter().take(64).fold(reply, |reply, (name, value)| reply.parameter(name, value)))
    }
}

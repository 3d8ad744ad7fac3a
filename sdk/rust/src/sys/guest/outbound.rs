//! Calls to other hosts in a component.

use super::wit_outbound as wit;
use crate::Result;
use crate::outbound::{Answer, Call};

/// Headers of an answer that are taken along.
const ANSWER_HEADERS: [&str; 3] = ["content-type", "retry-after", "location"];

pub(super) fn wit_call(call: &Call) -> Result<wit::Call> {
    let made = wit::Call::new(&call.method, &call.url)?;
    for (name, value) in &call.headers {
        made.header(name, value)?;
    }
    for header in &call.secret_headers {
        made.secret_header(&header.name, &header.prefix, &header.secret)?;
    }
    if !call.body.is_empty() {
        made.body(&call.body)?;
    }
    if let Some(timeout_ms) = call.timeout_ms {
        made.timeout_ms(timeout_ms)?;
    }
    if let Some(sign) = &call.signature {
        made.sign(&sign.secret, &sign.template, &sign.header, &sign.prefix, sign.encoding)?;
    }
    if let Some(name) = &call.id_header {
        made.id_header(name)?;
    }
    if let Some(name) = &call.timestamp_header {
        made.timestamp_header(name)?;
    }
    Ok(made)
}

pub fn send(call: &Call) -> Result<Answer> {
    let answer = wit::send(wit_call(call)?)?;
    let header = |name: &str| Some((name.to_owned(), answer.header(name)?));
    Ok(Answer {
        status: answer.status(),
        headers: ANSWER_HEADERS.iter().filter_map(|name| header(name)).collect(),
        body: answer.body(),
    })
}

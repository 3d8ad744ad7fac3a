//! `mainstay:host/outbound`: calls over HTTP to hosts that the operator granted.
//!
//! A call is put together here and made by the outbound room, in the plugin's name: that room judges where it leads, adds the
//! secrets, and keeps deliveries. Bounded by: [`CALLS_MAX`] and [`ANSWERS_MAX`] handles, the contract's limits, and that
//! room's. On failure: a typed error to the plugin.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method};
use mainstay_base::{Error, Result as HostResult};
use mainstay_bindings::Failure;
use mainstay_bindings::mainstay::host::keys::Transaction;
use mainstay_bindings::mainstay::host::outbound::{
    Answer as AnswerHandle, Call as CallHandle, Encoding as WireEncoding, Host, HostAnswer, HostCall,
};
use mainstay_outbound::{Answer, Delivery, Encoding, Request, SecretForm, SecretHeader, Signing};
use wasmtime::component::Resource;

use crate::capabilities::OUTBOUND;
use crate::imports::arrays::ended;
use crate::state::State;

/// Calls that a call may hold.
pub const CALLS_MAX: usize = 4;
/// Answers that a call may hold.
pub const ANSWERS_MAX: usize = 16;
/// Bytes of a body that is sent, and of one that is delivered.
const BODY_BYTES_MAX: usize = 1 << 20;
const DELIVERED_BYTES_MAX: usize = 32 << 10;
/// The longest time of one attempt, in milliseconds: shortest, unless said, longest.
const TIMEOUT_MS: (u32, u32, u32) = (100, 10_000, 60_000);
const METHODS: [Method; 6] = [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];

type Reply<T> = Result<T, Failure>;

/// A call while it is put together.
#[derive(Clone)]
pub(crate) struct OutboundCall {
    request: Request,
    signing: Option<Signing>,
    id_header: Option<String>,
    timestamp_header: Option<String>,
}

impl OutboundCall {
    /// How it is signed, and which headers carry its id and the time; none where it has none of these.
    fn signing(&self) -> Option<Signing> {
        let (id_header, timestamp_header) = (self.id_header.clone(), self.timestamp_header.clone());
        match &self.signing {
            Some(signing) => Some(Signing { id_header, timestamp_header, ..signing.clone() }),
            None if id_header.is_none() && timestamp_header.is_none() => None,
            None => Some(Signing::unsigned(id_header, timestamp_header)),
        }
    }
}

impl Host for State {
    async fn send(&mut self, call: Resource<CallHandle>) -> Reply<Resource<AnswerHandle>> {
        let _host = self.enter(OUTBOUND)?;
        let call = self.calls.take(&call)?;
        let id = format!("{:032x}", u128::from(self.plugin.services.random.number()));
        let signing = call.signing().map(|signing| (signing, id));
        let outbound = self.plugin.services.outbound.clone();
        let answer = outbound.call(&self.plugin.name, Request { signing, ..call.request }).await?;
        Ok(self.answers.add(answer)?)
    }

    fn deliver(&mut self, tx: Resource<Transaction>, call: Resource<CallHandle>) -> Reply<String> {
        let _host = self.enter(OUTBOUND)?;
        let call = self.calls.take(&call)?;
        let signing = call.signing();
        let Request { method, url, headers, body, secret_headers, timeout_ms, .. } = call.request;
        if body.len() > DELIVERED_BYTES_MAX {
            let bytes = body.len();
            return Err(Error::invalid(format!(
                "a body of {bytes} bytes; what is delivered has at most {DELIVERED_BYTES_MAX}: name a large thing instead"
            ))
            .into());
        }
        let delivery = Delivery { id: None, method, url, headers, body, secret_headers, signing, timeout_ms };
        let services = &self.plugin.services;
        let (outbound, scheduler) = (services.outbound.clone(), services.scheduler.clone());
        let name = self.plugin.name.clone();
        let queued = outbound.add_delivery(&scheduler, self.transactions.get(&tx)?, &name, delivery)?;
        self.wakes.scheduler = true;
        Ok(queued.run)
    }

    fn put_secret(&mut self, tx: Resource<Transaction>, name: String, value: Vec<u8>) -> Reply<()> {
        let _host = self.enter(OUTBOUND)?;
        let outbound = self.plugin.services.outbound.clone();
        Ok(outbound.secrets().put_in(self.transactions.get(&tx)?, &self.plugin.name, &name, &value)?)
    }

    fn remove_secret(&mut self, tx: Resource<Transaction>, name: String) -> Reply<()> {
        let _host = self.enter(OUTBOUND)?;
        let outbound = self.plugin.services.outbound.clone();
        Ok(outbound.secrets().remove_in(self.transactions.get(&tx)?, &self.plugin.name, &name)?)
    }
}

impl HostCall for State {
    fn new(&mut self, method: String, url: String) -> Reply<Resource<CallHandle>> {
        let _host = self.enter(OUTBOUND)?;
        let known = METHODS.iter().find(|known| known.as_str() == method).cloned();
        let method = known.ok_or_else(|| {
            let names = METHODS.map(|known| known.to_string()).join(", ");
            Error::invalid(format!("`{}` is no method of a call; one of {names} is", method.escape_debug()))
        })?;
        let request = Request { timeout_ms: u64::from(TIMEOUT_MS.1), ..Request::new(method, url) };
        Ok(self.calls.add(OutboundCall { request, signing: None, id_header: None, timestamp_header: None })?)
    }

    fn header(&mut self, call: Resource<CallHandle>, name: String, value: String) -> Reply<()> {
        let _host = self.enter(OUTBOUND)?;
        let (name, value) = header(&name, &value)?;
        self.calls.get(&call)?.request.headers.append(name, value);
        Ok(())
    }

    fn secret_header(&mut self, call: Resource<CallHandle>, name: String, prefix: String, secret: String) -> Reply<()> {
        let _host = self.enter(OUTBOUND)?;
        header(&name, &prefix)?;
        self.calls.get(&call)?.request.secret_headers.push(SecretHeader { header: name, prefix, secret });
        Ok(())
    }

    fn body(&mut self, call: Resource<CallHandle>, bytes: Vec<u8>) -> Reply<()> {
        let _host = self.enter(OUTBOUND)?;
        if bytes.len() > BODY_BYTES_MAX {
            let count = bytes.len();
            return Err(Error::invalid(format!("a body of {count} bytes; at most {BODY_BYTES_MAX} are sent")).into());
        }
        self.calls.get(&call)?.request.body = Bytes::from(bytes);
        Ok(())
    }

    fn timeout_ms(&mut self, call: Resource<CallHandle>, timeout: u32) -> Reply<()> {
        let _host = self.enter(OUTBOUND)?;
        let (least, _, most) = TIMEOUT_MS;
        if !(least..=most).contains(&timeout) {
            return Err(Error::invalid(format!("a timeout of {timeout} ms; it must be {least} to {most}")).into());
        }
        self.calls.get(&call)?.request.timeout_ms = u64::from(timeout);
        Ok(())
    }

    fn sign(
        &mut self,
        call: Resource<CallHandle>,
        secret: String,
        template: String,
        header: String,
        prefix: String,
        encoding: WireEncoding,
    ) -> Reply<()> {
        let _host = self.enter(OUTBOUND)?;
        let encoding = match encoding {
            WireEncoding::Hex => Encoding::Hex,
            WireEncoding::Base64 => Encoding::Base64,
        };
        let secret_form = SecretForm::Raw;
        let (secrets, id_header, timestamp_header) = (vec![secret], None, None);
        let signing = Signing { secrets, secret_form, template, encoding, header, prefix, id_header, timestamp_header };
        signing.check()?;
        self.calls.get(&call)?.signing = Some(signing);
        Ok(())
    }

    fn id_header(&mut self, call: Resource<CallHandle>, name: String) -> Reply<()> {
        let _host = self.enter(OUTBOUND)?;
        header(&name, "")?;
        self.calls.get(&call)?.id_header = Some(name);
        Ok(())
    }

    fn timestamp_header(&mut self, call: Resource<CallHandle>, name: String) -> Reply<()> {
        let _host = self.enter(OUTBOUND)?;
        header(&name, "")?;
        self.calls.get(&call)?.timestamp_header = Some(name);
        Ok(())
    }

    fn drop(&mut self, call: Resource<CallHandle>) -> wasmtime::Result<()> {
        let _host = self.ambient()?;
        self.calls.drop(&call);
        Ok(())
    }
}

fn header(name: &str, value: &str) -> HostResult<(HeaderName, HeaderValue)> {
    let wrong = || Error::invalid(format!("`{}` and its value are no header of HTTP", name.escape_debug()));
    let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| wrong())?;
    Ok((name, HeaderValue::from_str(value).map_err(|_| wrong())?))
}

impl HostAnswer for State {
    fn status(&mut self, answer: Resource<AnswerHandle>) -> wasmtime::Result<u16> {
        let _host = self.ambient()?;
        Ok(self.answers.get(&answer).map_err(ended)?.status.as_u16())
    }

    fn header(&mut self, answer: Resource<AnswerHandle>, name: String) -> wasmtime::Result<Option<String>> {
        let _host = self.ambient()?;
        let Answer { headers, .. } = self.answers.get(&answer).map_err(ended)?;
        Ok(headers.get(&name).and_then(|value| value.to_str().ok()).map(str::to_owned))
    }

    fn body(&mut self, answer: Resource<AnswerHandle>) -> wasmtime::Result<Vec<u8>> {
        let _host = self.ambient()?;
        Ok(self.answers.get(&answer).map_err(ended)?.body.to_vec())
    }

    fn drop(&mut self, answer: Resource<AnswerHandle>) -> wasmtime::Result<()> {
        let _host = self.ambient()?;
        self.answers.drop(&answer);
        Ok(())
    }
}

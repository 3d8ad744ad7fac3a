//! `mainstay:api/http`: the request that a plugin reads and the reply that it builds.
//!
//! The request is the gateway's, shared; the reply is collected here and taken when the call ends. Bounded by the plugin's
//! output limit, [`HEADERS_MAX`] and [`HEADER_BYTES_MAX`]. On failure: a header that HTTP forbids is `invalid`; a body
//! beyond the output limit ends the call.

use std::sync::Arc;

use mainstay_base::{Error, Result as HostResult};
use mainstay_bindings::Failure;
use mainstay_bindings::mainstay::api::http::{
    Body, Caller, Host, HostReply, HostRequest, Reply as ReplyHandle, Request as RequestHandle,
};
use mainstay_runtime::{Capability, HostData};
use wasmtime::component::Resource;

use crate::capabilities::BLOBS;
use crate::message::{HttpReply, HttpRequest, RequestBody};
use crate::state::State;

/// Headers of one reply.
pub const HEADERS_MAX: usize = 100;
/// Bytes of all headers of one reply.
pub const HEADER_BYTES_MAX: usize = 32 << 10;

/// Never given to a plugin: who asks is in `caller`.
const SECRET_HEADERS: &[&str] = &["authorization", "cookie", "proxy-authorization"];
/// Headers of the connection, not of the answer; the host sets them.
const HOP_BY_HOP: &[&str] = &[
    "connection",
    "content-length",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// A reply while it is built.
pub(crate) struct Reply {
    kind: Kind,
    headers: Vec<(String, String)>,
    header_bytes: usize,
    body: Vec<u8>,
}

enum Kind {
    Respond { status: u16 },
    Receive { limit_bytes: u64, sha256: Option<String> },
    Send { sha256: String },
}

impl Reply {
    fn new(kind: Kind) -> Reply {
        Reply { kind, headers: Vec::new(), header_bytes: 0, body: Vec::new() }
    }

    /// What the gateway gets.
    pub(crate) fn finish(self) -> HttpReply {
        let headers = self.headers;
        match self.kind {
            Kind::Respond { status } => HttpReply::Respond { status, headers, body: self.body.into() },
            Kind::Receive { limit_bytes, sha256 } => HttpReply::Receive { limit_bytes, sha256 },
            Kind::Send { sha256 } => HttpReply::Send { sha256, headers },
        }
    }

    fn header(&mut self, name: String, value: String) -> HostResult<()> {
        check_header(&name, &value)?;
        let bytes = self.header_bytes + name.len() + value.len();
        if self.headers.len() >= HEADERS_MAX || bytes > HEADER_BYTES_MAX {
            return Err(Error::invalid(format!(
                "a reply has at most {HEADERS_MAX} headers of {HEADER_BYTES_MAX} bytes in all; `{name}` is one too many"
            )));
        }
        self.header_bytes = bytes;
        self.headers.push((name, value));
        Ok(())
    }
}

fn check_header(name: &str, value: &str) -> HostResult<()> {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if name.is_empty() || !name.bytes().all(is_token) {
        return Err(Error::invalid(format!(
            "`{}` cannot name a header; use letters, digits and `-`",
            name.escape_debug()
        )));
    }
    if HOP_BY_HOP.iter().any(|forbidden| name.eq_ignore_ascii_case(forbidden)) {
        return Err(Error::invalid(format!("the header `{name}` belongs to the connection; the host sets it")));
    }
    if value.chars().any(|character| character.is_control() && character != '\t') {
        return Err(Error::invalid(format!(
            "the value of the header `{name}` holds a line break or control character"
        )));
    }
    Ok(())
}

fn check_digest(sha256: &str) -> HostResult<()> {
    let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    if sha256.len() == 64 && sha256.bytes().all(is_digit) {
        return Ok(());
    }
    Err(Error::invalid(format!("`{}` is no SHA-256; give 64 lowercase hexadecimal digits", sha256.escape_debug())))
}

type Answer<T> = Result<T, Failure>;

impl Host for State {}

impl State {
    /// The request behind a handle; one of an earlier call ends this one, because its functions cannot say so otherwise.
    fn request(&mut self, request: &Resource<RequestHandle>) -> wasmtime::Result<Arc<HttpRequest>> {
        Ok(self.requests.get(request).map_err(|error| wasmtime::format_err!("{error}"))?.clone())
    }
}

impl HostRequest for State {
    fn method(&mut self, request: Resource<RequestHandle>) -> wasmtime::Result<String> {
        let _host = self.ambient()?;
        Ok(self.request(&request)?.method.clone())
    }

    fn path(&mut self, request: Resource<RequestHandle>) -> wasmtime::Result<String> {
        let _host = self.ambient()?;
        Ok(self.request(&request)?.path.clone())
    }

    fn query(&mut self, request: Resource<RequestHandle>) -> wasmtime::Result<Vec<(String, String)>> {
        let _host = self.ambient()?;
        Ok(self.request(&request)?.query.clone())
    }

    fn header(&mut self, request: Resource<RequestHandle>, name: String) -> wasmtime::Result<Option<String>> {
        let _host = self.ambient()?;
        if SECRET_HEADERS.iter().any(|secret| name.eq_ignore_ascii_case(secret)) {
            return Ok(None);
        }
        let request = self.request(&request)?;
        let found = request.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(&name));
        Ok(found.map(|(_, value)| value.clone()))
    }

    fn body(&mut self, request: Resource<RequestHandle>) -> wasmtime::Result<Body> {
        let _host = self.ambient()?;
        Ok(match &self.request(&request)?.body {
            RequestBody::Empty => Body::Empty,
            RequestBody::Bytes(bytes) => Body::Bytes(bytes.to_vec()),
            RequestBody::Waiting(length) => Body::Waiting(*length),
        })
    }

    fn caller(&mut self, request: Resource<RequestHandle>) -> wasmtime::Result<Caller> {
        let _host = self.ambient()?;
        let crate::message::Caller { principal, rights, tenant } = self.request(&request)?.caller.clone();
        Ok(Caller { principal, rights, tenant })
    }

    fn base_url(&mut self, request: Resource<RequestHandle>) -> wasmtime::Result<String> {
        let _host = self.ambient()?;
        Ok(self.request(&request)?.base_url.clone())
    }

    fn drop(&mut self, request: Resource<RequestHandle>) -> wasmtime::Result<()> {
        let _host = self.ambient()?;
        self.requests.drop(&request);
        Ok(())
    }
}

impl HostReply for State {
    fn respond(&mut self, status: u16) -> Answer<Resource<ReplyHandle>> {
        let _host = self.enter(Capability::AMBIENT)?;
        if !(200..=599).contains(&status) {
            return Err(Error::invalid(format!("{status} is no status of an answer; give 200 to 599")).into());
        }
        Ok(self.replies.add(Reply::new(Kind::Respond { status }))?)
    }

    fn receive(&mut self, limit_bytes: u64, sha256: Option<String>) -> Answer<Resource<ReplyHandle>> {
        let _host = self.enter(BLOBS)?;
        if let Some(sha256) = &sha256 {
            check_digest(sha256)?;
        }
        Ok(self.replies.add(Reply::new(Kind::Receive { limit_bytes, sha256 }))?)
    }

    fn send(&mut self, sha256: String) -> Answer<Resource<ReplyHandle>> {
        let _host = self.enter(BLOBS)?;
        check_digest(&sha256)?;
        if !self.plugin.services.blobs.readable_by(&self.plugin.space, &sha256)? {
            return Err(Error::not_found(format!(
                "no name of the plugin `{}` refers to the blob {sha256}; link it to a name first",
                self.plugin.name
            ))
            .into());
        }
        Ok(self.replies.add(Reply::new(Kind::Send { sha256 }))?)
    }

    fn header(&mut self, reply: Resource<ReplyHandle>, name: String, value: String) -> Answer<()> {
        let _host = self.enter(Capability::AMBIENT)?;
        Ok(self.replies.get(&reply)?.header(name, value)?)
    }

    fn write(&mut self, reply: Resource<ReplyHandle>, bytes: Vec<u8>) -> Answer<()> {
        let _host = self.enter(Capability::AMBIENT)?;
        // All replies of the call together, so that several half-built ones hold no more than one.
        self.output_bytes = self.output_bytes.saturating_add(bytes.len());
        if self.output_bytes > self.call_context().limits().output_bytes {
            return Err(Failure::Trap(self.call_context().output_too_large().into()));
        }
        let reply = self.replies.get(&reply)?;
        if !matches!(reply.kind, Kind::Respond { .. }) {
            return Err(Error::invalid("only a `respond` reply has a body; build one of those instead").into());
        }
        if reply.body.is_empty() {
            reply.body = bytes;
        } else {
            reply.body.extend_from_slice(&bytes);
        }
        Ok(())
    }

    fn drop(&mut self, reply: Resource<ReplyHandle>) -> wasmtime::Result<()> {
        let _host = self.ambient()?;
        self.replies.drop(&reply);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_that_http_forbids_are_named() {
        fn check(name: &str, value: &str, expect: Option<&str>) {
            let result = Reply::new(Kind::Respond { status: 200 }).header(name.to_owned(), value.to_owned());
            match expect {
                None => assert!(result.is_ok(), "{name}: {result:?}"),
                Some(words) => assert!(result.unwrap_err().message().contains(words), "{name}"),
            }
        }
        check("content-type", "application/json", None);
        check("x-tab", "a\tb", None);
        check("Transfer-Encoding", "chunked", Some("belongs to the connection"));
        check("Content-Length", "3", Some("belongs to the connection"));
        check("x", "a\r\nset-cookie: b", Some("line break"));
        check("x\r\ny", "a", Some("cannot name a header"));
        check("", "a", Some("cannot name a header"));
        check("naïve", "a", Some("cannot name a header"));
    }

    #[test]
    fn headers_are_bounded_at_n_and_n_plus_one() {
        let mut many = Reply::new(Kind::Respond { status: 200 });
        for _ in 0..HEADERS_MAX {
            many.header("x".to_owned(), String::new()).unwrap();
        }
        assert!(many.header("x".to_owned(), String::new()).is_err());
        let mut long = Reply::new(Kind::Respond { status: 200 });
        long.header("x".to_owned(), "v".repeat(HEADER_BYTES_MAX - 1)).unwrap();
        assert!(long.header("y".to_owned(), String::new()).is_err());
    }

    #[test]
    fn digests_are_checked() {
        fn check(digest: &str, good: bool) {
            assert_eq!(check_digest(digest).is_ok(), good, "{digest}");
        }
        check(&"a".repeat(64), true);
        check(&"a".repeat(63), false);
        check(&"A".repeat(64), false);
        check(&format!("{}\n", "a".repeat(63)), false);
    }
}

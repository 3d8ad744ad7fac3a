//! A call and its answer, as their caller sees them.
//!
//! Owns [`Request`], [`Answer`], and what of them a caller may say: no header that belongs to a single connection, none that
//! names the host, none that the host sets itself. Separate from making calls, because all of it is checked before anything
//! is resolved. Bounded by [`crate::limits`]. On failure: `invalid`, with the header or limit. `Debug` shows names of headers
//! and lengths, never values: a caller's own values may be secret as well.

use std::fmt;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use mainstay_base::{Error, Result};
use serde::{Deserialize, Serialize};
use url::Url;

use crate::grant::place;
use crate::limits::{
    ANSWER_BYTES_DEFAULT, ANSWER_BYTES_MAX, BODY_BYTES_MAX, HEADER_BYTES_MAX, HEADERS_MAX, REDIRECTS_DEFAULT,
    REDIRECTS_MAX, SECRET_HEADERS_MAX, TIMEOUT_MS_DEFAULT, TIMEOUT_MS_MAX, URL_BYTES_MAX,
};
use crate::secrets::check_name;
use crate::sign::{Signing, names};

/// Headers that are about one connection (RFC 9110, 7.6.1), or that the host sets.
const REFUSED: [&str; 14] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
];

/// A call.
#[derive(Clone, PartialEq, Eq)]
pub struct Request {
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
    /// How the host signs it, and the name it is signed under.
    pub signing: Option<(Signing, String)>,
    /// The longest time, redirects and body included, in milliseconds.
    pub timeout_ms: u64,
    /// Most bytes of the answer's body.
    pub answer_bytes: usize,
    /// Whether a longer one is cut, instead of being `exhausted`.
    pub cut_answer: bool,
    /// How many redirects are followed; 0: a redirect is the answer.
    pub redirects: u8,
}

/// A header with a secret in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct SecretHeader {
    /// Which header.
    pub header: String,
    /// What stands before the secret, for example `Bearer `.
    #[serde(default)]
    pub prefix: String,
    /// The secret's name.
    pub secret: String,
}

/// What came back.
#[derive(Clone, PartialEq, Eq)]
pub struct Answer {
    /// How it went.
    pub status: StatusCode,
    /// Headers, without those of the connection.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
    /// Whether the body was longer.
    pub is_cut: bool,
    /// Where it came from in the end.
    pub url: String,
}

impl Request {
    /// A call without headers and body.
    pub fn new(method: Method, url: impl Into<String>) -> Request {
        Request {
            method,
            url: url.into(),
            headers: HeaderMap::new(),
            body: Bytes::new(),
            secret_headers: Vec::new(),
            signing: None,
            timeout_ms: TIMEOUT_MS_DEFAULT,
            answer_bytes: ANSWER_BYTES_DEFAULT,
            cut_answer: false,
            redirects: REDIRECTS_DEFAULT,
        }
    }

    /// Everything that can be said of it without grants, secrets and network. Answers the address, read.
    pub(crate) fn check(&self) -> Result<Url> {
        let url = check_url(&self.url)?;
        if self.method == Method::CONNECT || self.method == Method::TRACE {
            return Err(Error::invalid(format!("calls with the method {} are not made", self.method)));
        }
        let mut header_bytes = 0;
        for (name, value) in &self.headers {
            check_header_name(name.as_str())?;
            header_bytes += name.as_str().len() + value.len();
        }
        for secret in &self.secret_headers {
            check_header_name(&secret.header)?;
            check_name("secret", &secret.secret)?;
            check_value("prefix of a secret", &secret.prefix)?;
        }
        if let Some((signing, id)) = &self.signing {
            signing.check()?;
            check_value("name of a signed call", id)?;
        }
        let headers = self.headers.len();
        for (what, is, max) in [
            ("headers", headers, HEADERS_MAX),
            ("bytes of headers", header_bytes, HEADER_BYTES_MAX),
            ("bytes of body", self.body.len(), BODY_BYTES_MAX),
            ("bytes of an answer", self.answer_bytes, ANSWER_BYTES_MAX),
            ("redirects", usize::from(self.redirects), usize::from(REDIRECTS_MAX)),
            ("secrets in headers", self.secret_headers.len(), SECRET_HEADERS_MAX),
        ] {
            if is > max {
                return Err(Error::invalid(format!("{is} {what}; at most {max} are allowed")));
            }
        }
        if !(1..=TIMEOUT_MS_MAX).contains(&self.timeout_ms) {
            let timeout_ms = self.timeout_ms;
            return Err(Error::invalid(format!("a timeout of {timeout_ms} ms; it must be 1 to {TIMEOUT_MS_MAX}")));
        }
        Ok(url)
    }

    /// Headers that may not follow a redirect to another host.
    pub(crate) fn is_credential(&self, name: &HeaderName) -> bool {
        let is_secret = self.secret_headers.iter().any(|secret| name.as_str().eq_ignore_ascii_case(&secret.header));
        let is_signature = self.signing.as_ref().is_some_and(|(signing, _)| names(signing).any(|other| other == name));
        is_secret || is_signature || *name == http::header::AUTHORIZATION || *name == http::header::COOKIE
    }
}

/// An address that a call may have.
pub(crate) fn check_url(text: &str) -> Result<Url> {
    let length = text.len();
    if length > URL_BYTES_MAX {
        return Err(Error::invalid(format!("an address of {length} bytes; at most {URL_BYTES_MAX} are allowed")));
    }
    let mut url = Url::parse(text).map_err(|error| Error::invalid(format!("the address of the call: {error}")))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none_or(str::is_empty) {
        return Err(Error::invalid("the address of the call is neither `https://…` nor `http://…`"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        let place = place(&url);
        return Err(Error::invalid(format!("the address at `{place}` has a user or password; put it as a secret")));
    }
    url.set_fragment(None);
    Ok(url)
}

pub(crate) fn check_header_name(name: &str) -> Result<HeaderName> {
    let read: HeaderName = name.parse().map_err(|_| {
        let shown: String = name.chars().take(64).collect();
        Error::invalid(format!("`{shown}` is no name of a header"))
    })?;
    if REFUSED.contains(&read.as_str()) {
        return Err(Error::invalid(format!("the header `{read}` is set by the host; leave it out")));
    }
    Ok(read)
}

fn check_value(what: &str, text: &str) -> Result<HeaderValue> {
    HeaderValue::from_str(text).map_err(|_| Error::invalid(format!("the {what} cannot stand in a header")))
}

/// Leave out what is about the connection.
pub(crate) fn without_hop_by_hop(mut headers: HeaderMap) -> HeaderMap {
    let listed: Vec<HeaderName> = headers
        .get_all(http::header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in REFUSED.iter().filter(|name| **name != "content-length" && **name != "via") {
        headers.remove(*name);
    }
    for name in listed {
        headers.remove(name);
    }
    headers
}

fn shown(headers: &HeaderMap) -> Vec<&str> {
    headers.keys().map(HeaderName::as_str).collect()
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = Url::parse(&self.url).map_or_else(|_| "?".to_owned(), |url| place(&url));
        let headers = shown(&self.headers);
        f.debug_struct("Request")
            .field("method", &self.method)
            .field("place", &place)
            .field("headers", &headers)
            .field("body_bytes", &self.body.len())
            .field("secret_headers", &self.secret_headers)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let headers = shown(&self.headers);
        f.debug_struct("Answer")
            .field("status", &self.status)
            .field("headers", &headers)
            .field("body_bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(change: impl FnOnce(&mut Request), expect: &str) {
        let mut request = Request::new(Method::POST, "https://example.com/a?b#c");
        change(&mut request);
        match request.check() {
            Ok(_) => assert_eq!(expect, "", "{request:?}"),
            Err(error) => assert!(!expect.is_empty() && error.message().contains(expect), "{error}"),
        }
    }

    fn headed(name: &'static str, value: &str) -> impl FnOnce(&mut Request) {
        let value = HeaderValue::from_str(value).unwrap();
        move |request| drop(request.headers.insert(name, value))
    }

    #[test]
    fn calls_are_checked_at_their_limits() {
        check(|_| {}, "");
        for url in ["", "example.com", "ftp://example.com/", "file:///etc/passwd", "https://", "data:,x"] {
            check(|request| request.url = url.into(), "address");
        }
        check(|request| request.url = "https://user:hunter2@example.com/".into(), "put it as a secret");
        let long = |length| format!("https://example.com/{}", "x".repeat(length - 20));
        check(|request| request.url = long(URL_BYTES_MAX), "");
        check(|request| request.url = long(URL_BYTES_MAX + 1), "8192");
        for name in REFUSED {
            check(headed(name, "x"), "set by the host");
        }
        check(headed("accept", "x"), "");
        check(headed("accept", &"x".repeat(HEADER_BYTES_MAX - 6)), "");
        check(headed("accept", &"x".repeat(HEADER_BYTES_MAX - 5)), "16384");
        let many = |count: usize| {
            move |request: &mut Request| {
                for _ in 0..count {
                    request.headers.append("accept", HeaderValue::from_static("x"));
                }
            }
        };
        check(many(HEADERS_MAX), "");
        check(many(HEADERS_MAX + 1), "64");
        check(|request| request.body = vec![0; BODY_BYTES_MAX].into(), "");
        check(|request| request.body = vec![0; BODY_BYTES_MAX + 1].into(), "8388608");
        check(|request| request.answer_bytes = ANSWER_BYTES_MAX + 1, "8388608");
        check(|request| request.timeout_ms = TIMEOUT_MS_MAX, "");
        check(|request| request.timeout_ms = TIMEOUT_MS_MAX + 1, "120000");
        check(|request| request.timeout_ms = 0, "1 to");
        check(|request| request.redirects = REDIRECTS_MAX, "");
        check(|request| request.redirects = REDIRECTS_MAX + 1, "10");
        check(|request| request.method = Method::CONNECT, "CONNECT");
        let secret = SecretHeader { header: "authorization".into(), prefix: "Bearer ".into(), secret: "token".into() };
        check(|request| request.secret_headers = vec![secret.clone(); SECRET_HEADERS_MAX], "");
        check(|request| request.secret_headers = vec![secret.clone(); SECRET_HEADERS_MAX + 1], "8");
        check(|request| request.secret_headers = vec![SecretHeader { header: "host".into(), ..secret }], "host");
    }

    #[test]
    fn nothing_of_a_call_that_may_be_secret_is_printed() {
        let mut request = Request::new(Method::GET, "https://example.com/hunter2?key=hunter2");
        headed("authorization", "hunter2")(&mut request);
        request.body = "hunter2".into();
        let shown = format!("{request:?}");
        assert!(shown.contains("authorization") && !shown.contains("hunter2"), "{shown}");
    }
}

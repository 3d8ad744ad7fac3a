//! Requests, replies and the router of world `api`.
//!
//! Owns [`Request`] (fetched from the host piece by piece, when asked for), [`Reply`] (plain data, handed over when the
//! handler returns) and [`Router`] (a table in the program's constants: building it costs nothing in a fresh instance).
//! Bounded by: the route's inline limit for bodies, the plugin's output limit for replies. On failure: a body that is not
//! what the handler expects is [`ErrorKind::Invalid`](crate::ErrorKind), with the place in the JSON.

use crate::{Error, Result, sys};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::cell::OnceCell;
use std::str::FromStr;

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Name of the token or user; "anonymous" where no authentication is required.
    pub principal: String,
    /// Any of "read", "write", "admin".
    pub rights: Vec<String>,
    /// "default" unless the operator runs several tenants.
    pub tenant: String,
}

impl Caller {
    /// Whether the caller has this right.
    pub fn may(&self, right: &str) -> bool {
        self.rights.iter().any(|have| have == right)
    }
}

/// What came with the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// There is none.
    Empty,
    /// All of it.
    Bytes(Vec<u8>),
    /// It has not been read: more than the route's inline limit, or of unknown length. Its announced length, if any. Answer
    /// with [`Reply::receive`] to have it stored.
    Waiting(Option<u64>),
}

/// Query parameters, decoded, in order, repeated keys kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueryString(Vec<(String, String)>);

impl QueryString {
    /// The first value of this name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Every value of this name.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> + use<'a> {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The first value of this name, parsed. A value that does not parse is an error naming the parameter.
    pub fn parse<T: FromStr>(&self, name: &str) -> Result<Option<T>> {
        self.get(name).map(|text| parse("query parameter", name, text)).transpose()
    }

    /// Names and values.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }
}

/// One request.
#[derive(Debug)]
pub struct Request {
    pub(crate) source: sys::Request,
    method: OnceCell<String>,
    path: OnceCell<String>,
    query: OnceCell<QueryString>,
    body: OnceCell<Body>,
    caller: OnceCell<Caller>,
}

impl Request {
    #[doc(hidden)]
    pub fn from_source(source: sys::Request) -> Request {
        Request {
            source,
            method: OnceCell::new(),
            path: OnceCell::new(),
            query: OnceCell::new(),
            body: OnceCell::new(),
            caller: OnceCell::new(),
        }
    }

    /// In capitals.
    pub fn method(&self) -> &str {
        self.method.get_or_init(|| self.source.method())
    }

    /// Percent-decoded once, starting with `/`, relative to the mount point when it came by it. Never holds `.` or `..`
    /// segments, empty segments in the middle, control characters or invalid UTF-8.
    pub fn path(&self) -> &str {
        self.path.get_or_init(|| self.source.path())
    }

    /// The query parameters.
    pub fn query(&self) -> &QueryString {
        self.query.get_or_init(|| QueryString(self.source.query()))
    }

    /// The first header of that name (any case), if it is text.
    pub fn header(&self, name: &str) -> Option<String> {
        self.source.header(name)
    }

    /// What came with the request.
    pub fn body(&self) -> &Body {
        self.body.get_or_init(|| self.source.body())
    }

    /// The body's bytes; none of them if there is no body. A body beyond the route's inline limit is an error.
    pub fn bytes(&self) -> Result<&[u8]> {
        match self.body() {
            Body::Empty => Ok(&[]),
            Body::Bytes(bytes) => Ok(bytes),
            Body::Waiting(_) => Err(Error::invalid(
                "the body is larger than this route takes, or its length is unknown; send less, with a content-length",
            )),
        }
    }

    /// The body, parsed from JSON. Nesting is bounded at 128.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_slice(self.bytes()?)
            .map_err(|error| Error::invalid(format!("the body is not the JSON expected: {error}")))
    }

    /// Who asks.
    pub fn caller(&self) -> &Caller {
        self.caller.get_or_init(|| self.source.caller())
    }

    /// Scheme and authority by which the client reached the host, for example "http://127.0.0.1:7600".
    pub fn base_url(&self) -> String {
        self.source.base_url()
    }
}

/// One answer.
///
/// ```
/// use mainstay_sdk::http::Reply;
/// let reply = Reply::status(201).header("location", "/guests/ada").with_json(&["ada"])?;
/// assert_eq!(reply.body(), br#"["ada"]"#);
/// # Ok::<(), mainstay_sdk::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    pub(crate) kind: Kind,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Respond { status: u16 },
    Receive { limit_bytes: u64, sha256: Option<String> },
    Send { sha256: String },
}

impl Reply {
    fn of(kind: Kind) -> Reply {
        Reply { kind, headers: Vec::new(), body: Vec::new() }
    }

    /// An answer of this status (200 to 599), without a body yet.
    pub fn status(status: u16) -> Reply {
        Reply::of(Kind::Respond { status })
    }

    /// 200 with this value as JSON.
    pub fn json(value: &(impl Serialize + ?Sized)) -> Result<Reply> {
        Reply::status(200).with_json(value)
    }

    /// 200 with this text.
    pub fn text(text: impl Into<String>) -> Reply {
        Reply::status(200).header("content-type", "text/plain; charset=utf-8").with_body(text.into())
    }

    /// Store the request's body (at most `limit_bytes`), check it against the digest if one is given (lowercase
    /// hexadecimal SHA-256), then call [`Api::received`](crate::Api::received).
    pub fn receive(limit_bytes: u64, sha256: Option<String>) -> Reply {
        Reply::of(Kind::Receive { limit_bytes, sha256 })
    }

    /// The bytes of a blob that one of this plugin's names refers to, streamed by the host, with length, ETag and ranges.
    pub fn send(sha256: impl Into<String>) -> Reply {
        Reply::of(Kind::Send { sha256: sha256.into() })
    }

    /// The answer that the host would give for this error: its status and `application/problem+json`.
    pub fn problem(error: &Error) -> Reply {
        let body = serde_json::json!({ "title": format!("{:?}", error.kind()), "status": error.status(), "detail": error.message() });
        Reply::status(error.status()).header("content-type", "application/problem+json").with_body(body.to_string())
    }

    /// Add a header.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Reply {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// With this body. Only an answer made by [`status`](Self::status) has one.
    pub fn with_body(mut self, body: impl Into<Vec<u8>>) -> Reply {
        self.body = body.into();
        self
    }

    /// With this value as JSON, and `content-type: application/json`.
    pub fn with_json(self, value: &(impl Serialize + ?Sized)) -> Result<Reply> {
        let json = serde_json::to_vec(value)
            .map_err(|error| Error::internal(format!("cannot write the answer as JSON: {error}")))?;
        Ok(self.header("content-type", "application/json").with_body(json))
    }

    /// The body.
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// The status, if it is known before the host has done its part.
    pub fn status_code(&self) -> Option<u16> {
        match self.kind {
            Kind::Respond { status } => Some(status),
            _ => None,
        }
    }
}

/// What a route calls.
pub type Handler<E> = fn(&Request, &Params<'_>) -> Result<Reply, E>;

/// One row of a [`Router`]'s table.
#[derive(Debug)]
pub struct Route<E: 'static = Error> {
    method: &'static str,
    pattern: &'static str,
    handler: Handler<E>,
}

macro_rules! methods {
    ($($(#[$doc:meta])* $name:ident => $method:literal),* $(,)?) => {
        impl<E: 'static> Route<E> {
            $($(#[$doc])* pub const fn $name(pattern: &'static str, handler: Handler<E>) -> Route<E> {
                Route::new($method, pattern, handler)
            })*
        }
    };
}

methods! {
    /// A route for GET, and for HEAD where no other route takes it.
    get => "GET",
    /// A route for POST.
    post => "POST",
    /// A route for PUT.
    put => "PUT",
    /// A route for PATCH.
    patch => "PATCH",
    /// A route for DELETE.
    delete => "DELETE",
    /// A route for HEAD.
    head => "HEAD",
}

impl<E: 'static> Route<E> {
    /// A route for any method.
    pub const fn new(method: &'static str, pattern: &'static str, handler: Handler<E>) -> Route<E> {
        Route { method, pattern, handler }
    }
}

/// Finds the handler of a request by method and path.
///
/// Patterns are paths whose segments are literal, `{name}` (one segment) or, at the end, `{*name}` (the rest, at least one
/// segment). A literal beats a name, a name beats the rest. Paths that match with another method only are answered 405
/// with `allow`, others [`ErrorKind::NotFound`](crate::ErrorKind).
///
/// ```
/// use mainstay_sdk::{Error, Result};
/// use mainstay_sdk::http::{Params, Reply, Request, Route, Router};
///
/// const ROUTES: Router = Router::new(&[Route::get("/guests/{name}", read), Route::get("/files/{*path}", file)]);
///
/// fn read(_: &Request, params: &Params) -> Result<Reply> {
///     Ok(Reply::text(format!("hello {}", &params["name"])))
/// }
///
/// fn file(_: &Request, params: &Params) -> Result<Reply> {
///     Ok(Reply::text(&params["path"]))
/// }
///
/// assert_eq!(ROUTES.handle(&Request::get("/guests/ada").build())?.body(), b"hello ada");
/// assert_eq!(ROUTES.handle(&Request::get("/files/a/b.txt").build())?.body(), b"a/b.txt");
/// assert_eq!(ROUTES.handle(&Request::post("/guests/ada").build())?.status_code(), Some(405));
/// assert!(ROUTES.handle(&Request::get("/guests").build()).is_err());
/// # Ok::<(), Error>(())
/// ```
#[derive(Debug)]
pub struct Router<E: 'static = Error>(&'static [Route<E>]);

/// What a router found; see [`Router::find`].
#[derive(Debug)]
pub enum Found<'a, E: 'static> {
    /// This handler, with the parameters of its pattern.
    Handler(Handler<E>, Params<'a>),
    /// The path is known with other methods only, these: "GET, PUT".
    MethodNotAllowed(String),
    /// No route has this path.
    NotFound,
}

impl<E: 'static> Router<E> {
    /// A router over this table.
    pub const fn new(routes: &'static [Route<E>]) -> Router<E> {
        Router(routes)
    }

    /// What answers a method and a path.
    pub fn find<'a>(&self, method: &str, path: &'a str) -> Found<'a, E> {
        let exact = self.best(|route| route.method == method, path);
        let best =
            exact.or_else(|| (method == "HEAD").then(|| self.best(|route| route.method == "GET", path)).flatten());
        if let Some((route, params)) = best {
            return Found::Handler(route.handler, params);
        }
        let mut allowed: Vec<&str> =
            self.0.iter().filter(|route| matches(route.pattern, path)).map(|route| route.method).collect();
        allowed.sort_unstable();
        allowed.dedup();
        match allowed.is_empty() {
            true => Found::NotFound,
            false => Found::MethodNotAllowed(allowed.join(", ")),
        }
    }

    /// The most specific of the routes that match.
    fn best<'a>(&self, takes: impl Fn(&Route<E>) -> bool, path: &'a str) -> Option<(&Route<E>, Params<'a>)> {
        let mut best: Option<&Route<E>> = None;
        for route in self.0.iter().filter(|route| takes(route) && matches(route.pattern, path)) {
            if best.is_none_or(|best| specificity(route.pattern).lt(specificity(best.pattern))) {
                best = Some(route);
            }
        }
        best.map(|route| (route, Params { pattern: route.pattern, path }))
    }
}

impl<E: From<Error> + 'static> Router<E> {
    /// Answer a request with the handler that it asks for.
    pub fn handle(&self, request: &Request) -> Result<Reply, E> {
        match self.find(request.method(), request.path()) {
            Found::Handler(handler, params) => handler(request, &params),
            Found::MethodNotAllowed(allowed) => {
                let text = format!("`{}` does not take {}; use {allowed}\n", request.path(), request.method());
                Ok(Reply::status(405).header("allow", allowed).header("content-type", "text/plain").with_body(text))
            }
            Found::NotFound => Err(Error::not_found(format!("nothing answers at `{}`", request.path())).into()),
        }
    }
}

enum Segment<'a> {
    Literal(&'a str),
    Name(&'a str),
    Rest(&'a str),
}

fn segments(pattern: &str) -> impl Iterator<Item = Segment<'_>> {
    pattern.split('/').skip(1).map(|segment| {
        match segment.strip_prefix('{').and_then(|inner| inner.strip_suffix('}')) {
            Some(inner) => inner.strip_prefix('*').map_or(Segment::Name(inner), Segment::Rest),
            None => Segment::Literal(segment),
        }
    })
}

/// Smaller is more specific, segment by segment.
fn specificity(pattern: &str) -> impl Iterator<Item = u8> {
    segments(pattern).map(|segment| match segment {
        Segment::Literal(_) => 0,
        Segment::Name(_) => 1,
        Segment::Rest(_) => 2,
    })
}

fn matches(pattern: &str, path: &str) -> bool {
    let mut parts = path.split('/').skip(1);
    for segment in segments(pattern) {
        match (segment, parts.next()) {
            (Segment::Literal(literal), Some(part)) if literal == part => {}
            (Segment::Name(_), Some(part)) if !part.is_empty() => {}
            (Segment::Rest(_), Some(part)) => return !part.is_empty(),
            _ => return false,
        }
    }
    parts.next().is_none()
}

/// What the names of a route's pattern stand for in the request's path.
#[derive(Clone, Copy, Debug)]
pub struct Params<'a> {
    pattern: &'static str,
    path: &'a str,
}

impl<'a> Params<'a> {
    /// What this name stands for; none if the pattern has no such name.
    pub fn get(&self, name: &str) -> Option<&'a str> {
        let mut rest = self.path.strip_prefix('/')?;
        for segment in segments(self.pattern) {
            let (part, behind) = rest.split_once('/').unwrap_or((rest, ""));
            match segment {
                Segment::Name(found) if found == name => return Some(part),
                Segment::Rest(found) if found == name => return Some(rest),
                _ => rest = behind,
            }
        }
        None
    }

    /// What this name stands for, parsed. Text that does not parse is an error naming the parameter.
    pub fn parse<T: FromStr>(&self, name: &str) -> Result<T> {
        parse("path parameter", name, &self[name])
    }
}

impl std::ops::Index<&str> for Params<'_> {
    type Output = str;

    /// What this name stands for. Panics if the pattern has no such name: a mistake in the program, not in the request.
    fn index(&self, name: &str) -> &str {
        self.get(name).unwrap_or_else(|| panic!("the pattern `{}` has no `{{{name}}}`", self.pattern))
    }
}

fn parse<T: FromStr>(what: &str, name: &str, text: &str) -> Result<T> {
    let shown: String = text.chars().take(100).collect();
    text.parse().map_err(|_| {
        let kind = std::any::type_name::<T>();
        Error::invalid(format!("the {what} `{name}` is `{shown}`, which is no {kind}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(_: &Request, _: &Params<'_>) -> Result<Reply> {
        Ok(Reply::status(201))
    }
    fn two(_: &Request, _: &Params<'_>) -> Result<Reply> {
        Ok(Reply::status(202))
    }
    fn three(_: &Request, _: &Params<'_>) -> Result<Reply> {
        Ok(Reply::status(203))
    }

    const ROUTER: Router = Router::new(&[
        Route::get("/a/{*rest}", three),
        Route::get("/a/{name}", two),
        Route::get("/a/b", one),
        Route::put("/a/{name}", two),
        Route::get("/", one),
        Route::delete("/a/{name}/x", one),
    ]);

    #[test]
    fn routes_are_found_by_specificity() {
        fn check(method: &str, path: &str, expect: &str) {
            let found = match ROUTER.find(method, path) {
                Found::Handler(handler, params) => {
                    let handlers: [(Handler<Error>, &str); 3] = [(one, "one"), (two, "two"), (three, "three")];
                    let name = handlers.iter().find(|(each, _)| std::ptr::fn_addr_eq(*each, handler)).unwrap().1;
                    format!("{name} {:?} {:?}", params.get("name"), params.get("rest"))
                }
                Found::MethodNotAllowed(allowed) => allowed,
                Found::NotFound => "404".to_owned(),
            };
            assert_eq!(found, expect, "{method} {path}");
        }
        check("GET", "/a/b", "one None None");
        check("HEAD", "/a/b", "one None None");
        check("GET", "/a/c", r#"two Some("c") None"#);
        check("GET", "/a/b/c", r#"three None Some("b/c")"#);
        check("GET", "/a/q/x", r#"three None Some("q/x")"#);
        check("DELETE", "/a/q/x", r#"one Some("q") None"#);
        check("POST", "/a/b", "GET, PUT");
        check("GET", "/", "one None None");
        check("GET", "/a", "404");
        check("GET", "/a/", "404");
        check("GET", "", "404");
        check("GET", "/b", "404");
    }
}

//! Who asks, and may they.
//!
//! Credentials come as a bearer token, or as HTTP basic authentication with the token as password and any user. Where none
//! are required, everyone on this machine is `anonymous` with all rights, but only by a name of this machine: a page of
//! another site that points its own name here, or posts here from a browser, is refused.
//!
//! Failed attempts are counted by client address in a table of at most `ADDRESSES_MAX`; beyond the limit they are answered
//! 429. A valid token always passes, so nobody is locked out by another client behind the same address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::header::{AUTHORIZATION, HOST, ORIGIN, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Method};
use mainstay_interfaces::Caller;
use parking_lot::Mutex;

use crate::metrics::Metrics;
use crate::problem::{self, Problem};
use crate::routes::Right;
use crate::tokens::{Identity, Role, Tokens};

const ADDRESSES_MAX: usize = 4_096;
const WINDOW: Duration = Duration::from_secs(60);

/// Answers who asks.
pub(crate) struct Auth {
    tokens: Tokens,
    required: bool,
    /// Everyone, where no credentials are required.
    owner: Arc<Identity>,
    /// Everyone without credentials, on routes that need none.
    nobody: Arc<Identity>,
    /// Names by which this host may be reached without credentials; none if that is not looked at.
    allowed_hosts: Option<Vec<String>>,
    failures_per_minute_max: u32,
    failures: Mutex<HashMap<IpAddr, (Instant, u32)>>,
    metrics: Metrics,
}

impl Auth {
    pub(crate) fn new(
        tokens: Tokens,
        required: bool,
        allowed_hosts: Option<Vec<String>>,
        failures_per_minute_max: u32,
        metrics: Metrics,
    ) -> Auth {
        let anonymous = |rights| Caller { rights, ..Caller::default() };
        Auth {
            tokens,
            required,
            owner: Arc::new(Identity::new(anonymous(Role::Admin.rights()), Right::Admin)),
            nobody: Arc::new(Identity::new(anonymous(Vec::new()), Right::None)),
            allowed_hosts,
            failures_per_minute_max,
            failures: Mutex::default(),
            metrics,
        }
    }

    /// Who asks, if they may.
    pub(crate) fn admit(
        &self,
        method: &Method,
        headers: &HeaderMap,
        peer: IpAddr,
        needs: Right,
    ) -> Result<Arc<Identity>, Problem> {
        let identity = match headers.get(AUTHORIZATION) {
            Some(value) if self.required || !self.tokens.is_empty() => match self.verify(value) {
                Some(identity) => identity,
                None if needs == Right::None => self.nobody.clone(),
                None => return Err(self.refuse("wrong", peer)),
            },
            _ if !self.required => {
                if needs > Right::None {
                    self.check_host(headers)?;
                }
                self.owner.clone()
            }
            _ if needs == Right::None => self.nobody.clone(),
            _ => return Err(self.refuse("missing", peer)),
        };
        check_origin(method, headers)?;
        check_right(identity, needs)
    }

    /// Who calls over gRPC, if they may. Browsers cannot call so, hence neither names nor origins are looked at.
    pub(crate) fn admit_call(&self, headers: &HeaderMap, peer: IpAddr, needs: Right) -> Result<Arc<Identity>, Problem> {
        let identity = match headers.get(AUTHORIZATION) {
            Some(value) if self.required || !self.tokens.is_empty() => {
                self.verify(value).ok_or_else(|| self.refuse("wrong", peer))?
            }
            _ if !self.required => self.owner.clone(),
            _ => return Err(self.refuse("missing", peer)),
        };
        check_right(identity, needs)
    }

    fn verify(&self, value: &HeaderValue) -> Option<Arc<Identity>> {
        let (scheme, rest) = value.to_str().ok()?.split_once(' ')?;
        let rest = rest.trim();
        if scheme.eq_ignore_ascii_case("bearer") {
            return self.tokens.verify(rest);
        }
        if !scheme.eq_ignore_ascii_case("basic") {
            return None;
        }
        let decoded = String::from_utf8(BASE64_STANDARD.decode(rest).ok()?).ok()?;
        self.tokens.verify(decoded.split_once(':')?.1)
    }

    fn refuse(&self, reason: &'static str, peer: IpAddr) -> Problem {
        self.metrics.auth_failed(reason);
        if let Some(wait) = (reason == "wrong").then(|| self.count_failure(peer)).flatten() {
            return Problem::new(
                &problem::AUTH_RATE,
                format!(
                    "more than {} failed attempts came from this address in a minute; correct the token, then try again in {} s",
                    self.failures_per_minute_max,
                    wait.as_secs() + 1
                ),
            )
            .retry_after(wait);
        }
        let detail = match reason {
            "missing" => {
                "this host needs a token; send `Authorization: Bearer TOKEN`, or the token as the password of basic authentication"
            }
            _ => "the token is not valid: mistyped, revoked or past its end; ask an administrator for another",
        };
        Problem::new(&problem::UNAUTHENTICATED, detail)
            .header(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"mainstay\""))
            .header(WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"mainstay\", charset=\"UTF-8\""))
    }

    /// Count a failure; how long to wait if there were too many.
    fn count_failure(&self, peer: IpAddr) -> Option<Duration> {
        let now = Instant::now();
        let mut failures = self.failures.lock();
        if failures.len() >= ADDRESSES_MAX && !failures.contains_key(&peer) {
            failures.retain(|_, (since, _)| now.duration_since(*since) < WINDOW);
            // A flood from more addresses than are remembered is not counted apart any more, and none is let in by it.
            if failures.len() >= ADDRESSES_MAX {
                return Some(WINDOW);
            }
        }
        let (since, count) = failures.entry(peer).or_insert((now, 0));
        if now.duration_since(*since) >= WINDOW {
            (*since, *count) = (now, 0);
        }
        *count += 1;
        (*count > self.failures_per_minute_max).then(|| WINDOW.saturating_sub(now.duration_since(*since)))
    }

    /// Without credentials, the name by which this host was reached is all that tells a browser's page from its user.
    fn check_host(&self, headers: &HeaderMap) -> Result<(), Problem> {
        let (Some(host), Some(allowed_hosts)) = (headers.get(HOST), &self.allowed_hosts) else { return Ok(()) };
        let name = host.to_str().map(host_name).unwrap_or_default();
        let known = name.eq_ignore_ascii_case("localhost")
            || name.to_ascii_lowercase().ends_with(".localhost")
            || name.parse::<IpAddr>().is_ok()
            || allowed_hosts.iter().any(|allowed| allowed.eq_ignore_ascii_case(name));
        if known {
            return Ok(());
        }
        Err(Problem::new(
            &problem::CROSS_SITE,
            format!(
                "this host is not known as `{name}`; use its address, add the name to `allowed-hosts`, or require tokens"
            ),
        ))
    }
}

/// The host of an authority, without port and brackets.
fn host_name(authority: &str) -> &str {
    match authority.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => authority.rsplit_once(':').map_or(authority, |(name, _)| name),
    }
}

fn check_right(identity: Arc<Identity>, needs: Right) -> Result<Arc<Identity>, Problem> {
    if identity.right >= needs {
        return Ok(identity);
    }
    Err(Problem::new(
        &problem::DENIED,
        format!(
            "`{}` has not the right `{}` that this needs; an administrator can make a token that has it",
            identity.caller.principal,
            needs.word()
        ),
    ))
}

/// Browsers say where a request comes from, and add credentials by themselves: changes must come from the host's own pages.
fn check_origin(method: &Method, headers: &HeaderMap) -> Result<(), Problem> {
    let reads = matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS);
    let Some(origin) = headers.get(ORIGIN).filter(|_| !reads) else { return Ok(()) };
    let bearer = headers
        .get(AUTHORIZATION)
        .is_some_and(|value| value.as_bytes().get(..7).is_some_and(|word| word.eq_ignore_ascii_case(b"bearer ")));
    let origin = origin.to_str().unwrap_or_default();
    let authority = origin.split_once("://").map_or("", |(_, authority)| authority);
    let same = headers.get(HOST).is_some_and(|host| host.as_bytes().eq_ignore_ascii_case(authority.as_bytes()));
    if same || bearer {
        return Ok(());
    }
    Err(Problem::new(&problem::CROSS_SITE, format!("a page of `{origin}` may not change anything here")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_names() {
        fn check(authority: &str, expect: &str) {
            assert_eq!(host_name(authority), expect, "{authority}");
        }
        check("localhost:7600", "localhost");
        check("localhost", "localhost");
        check("127.0.0.1:1", "127.0.0.1");
        check("[::1]:7600", "::1");
        check("[::1]", "::1");
        check("evil.example:80", "evil.example");
        check("", "");
    }
}

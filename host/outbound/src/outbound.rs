//! Making a call: from what a caller asks to what comes back.
//!
//! Owns [`Outbound`] and the order in which a call is judged: the request by itself, the grants, then the name is resolved
//! once, every address is judged ([`crate::address`]), and the connection goes to exactly one that was found good. Nothing
//! resolves again behind that, so an answer of a name server that changes in between changes nothing. A redirect is a new
//! call: judged from the grants on, and without what proves the caller's identity when it leads to another place.
//!
//! Separate from the network, which does what it is told. Bounded by [`crate::limits`]; the time counts over all redirects. On
//! failure: `denied` names the host or address that is refused and why; `unavailable` says that nothing, or nothing whole, came
//! back. No message contains a path, a query, a header's value or a secret.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use mainstay_base::{Clock, Error, Random, Result};
use tokio::time::timeout;
use url::{Host, Url};
use zeroize::Zeroizing;

use crate::address::{Reach, reach};
use crate::grant::{Grants, place};
use crate::limits::{ADDRESSES_TRIED, CONNECT_MS_MAX};
use crate::network::{Connection, Network, Target};
use crate::request::{Answer, Request, check_header_name, check_url, without_hop_by_hop};
use crate::secrets::{Secrets, check_name};

const AGENT: &str = concat!("mainstay/", env!("CARGO_PKG_VERSION"));

/// Calls out of the house. Clones are the same.
#[derive(Clone)]
pub struct Outbound {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    network: Arc<dyn Network>,
    secrets: Secrets,
    pub clock: Arc<dyn Clock>,
    pub random: Arc<dyn Random>,
    /// By caller.
    grants: RwLock<HashMap<String, Arc<Grants>>>,
}

/// One hop of a call: a request on its way to one place.
struct Hop {
    method: Method,
    url: Url,
    headers: HeaderMap,
    body: Bytes,
}

impl Outbound {
    /// Calls over this network, with these secrets. Nobody may call anything yet.
    pub fn new(
        network: Arc<dyn Network>,
        secrets: Secrets,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
    ) -> Outbound {
        Outbound { inner: Arc::new(Inner { network, secrets, clock, random, grants: RwLock::default() }) }
    }

    /// Secrets by owner; a caller is the owner of its own.
    pub fn secrets(&self) -> &Secrets {
        &self.inner.secrets
    }

    /// From now on the caller may call these hosts and no others; none: nothing. Holds for deliveries that wait, too.
    pub fn set_grants(&self, caller: &str, grants: Option<Grants>) -> Result<()> {
        check_name("caller", caller)?;
        let mut all = self.inner.grants.write().unwrap_or_else(|poisoned| poisoned.into_inner());
        match grants {
            Some(grants) => {
                grants.check()?;
                all.insert(caller.to_owned(), Arc::new(grants));
            }
            None => drop(all.remove(caller)),
        }
        Ok(())
    }

    pub(crate) fn grants(&self, caller: &str) -> Result<Arc<Grants>> {
        let all = self.inner.grants.read().unwrap_or_else(|poisoned| poisoned.into_inner());
        let known = all.get(caller).cloned();
        known.ok_or_else(|| Error::denied(format!("`{caller}` was granted no host; an operator can grant some")))
    }

    /// Make a call in the caller's name.
    pub async fn call(&self, caller: &str, request: Request) -> Result<Answer> {
        check_name("caller", caller)?;
        let url = request.check()?;
        let grants = self.grants(caller)?;
        grants.judge(&url)?;
        let headers = self.headers(caller, &request)?;
        let hop = Hop { method: request.method.clone(), url, headers, body: request.body.clone() };
        let (first, limit) = (place(&hop.url), Duration::from_millis(request.timeout_ms));
        timeout(limit, self.follow(&grants, &request, hop)).await.unwrap_or_else(|_| {
            let limit_ms = request.timeout_ms;
            Err(Error::unavailable(format!("the call to `{first}` took longer than {limit_ms} ms and was given up")))
        })
    }

    /// The caller's headers, and the host's.
    fn headers(&self, caller: &str, request: &Request) -> Result<HeaderMap> {
        let secrets = &self.inner.secrets;
        let mut headers = request.headers.clone();
        headers.entry(header::USER_AGENT).or_insert(HeaderValue::from_static(AGENT));
        for secret in &request.secret_headers {
            let opened = secrets.open(caller, &secret.secret)?;
            let whole = Zeroizing::new([secret.prefix.as_bytes(), &opened].concat());
            let mut value = HeaderValue::from_bytes(&whole).map_err(|_| {
                Error::invalid(format!(
                    "secret `{}` cannot stand in a header: it has control characters",
                    secret.secret
                ))
            })?;
            value.set_sensitive(true);
            headers.insert(check_header_name(&secret.header)?, value);
        }
        if let Some((signing, id)) = &request.signing {
            let opened: Vec<_> =
                signing.secrets.iter().map(|name| secrets.open(caller, name)).collect::<Result<_>>()?;
            let now_s = self.inner.clock.now_ms().div_euclid(1_000);
            headers.extend(signing.sign(&opened, id, now_s, &request.body)?);
        }
        Ok(headers)
    }

    /// Hop after hop, until something is no redirect.
    async fn follow(&self, grants: &Grants, request: &Request, mut hop: Hop) -> Result<Answer> {
        let mut left = request.redirects;
        loop {
            let (answer, is_more) = self.hop(grants, &hop, request.answer_bytes).await?;
            let next = if request.redirects == 0 { None } else { redirect(request, &hop, &answer)? };
            let Some(next) = next else {
                let (place, limit) = (place(&hop.url), request.answer_bytes);
                if is_more && !request.cut_answer {
                    return Err(Error::exhausted(format!("the answer of `{place}` has more than {limit} bytes")));
                }
                let (head, body) = answer.into_parts();
                let headers = without_hop_by_hop(head.headers);
                return Ok(Answer { status: head.status, headers, body, is_cut: is_more, url: hop.url.into() });
            };
            if left == 0 {
                let (count, place) = (request.redirects, place(&hop.url));
                return Err(Error::unavailable(format!("more than {count} redirects, the last one from `{place}`")));
            }
            left -= 1;
            hop = next;
        }
    }

    /// One place, judged, connected to, asked.
    async fn hop(&self, grants: &Grants, hop: &Hop, limit_bytes: usize) -> Result<(http::Response<Bytes>, bool)> {
        let may_be_private = grants.judge(&hop.url)?;
        let connection = self.connect(&hop.url, may_be_private).await?;
        let mut request = http::Request::new(hop.body.clone());
        *request.method_mut() = hop.method.clone();
        let path = &hop.url[url::Position::BeforePath..url::Position::AfterQuery];
        *request.uri_mut() = path.parse().map_err(|_| Error::invalid("the path of the call cannot be sent"))?;
        *request.headers_mut() = hop.headers.clone();
        let authority = &hop.url[url::Position::BeforeHost..url::Position::AfterPort];
        let host =
            HeaderValue::from_str(authority).map_err(|_| Error::invalid("the host of the call cannot be sent"))?;
        request.headers_mut().insert(header::HOST, host);
        connection.send(request, limit_bytes).await
    }

    async fn connect(&self, url: &Url, may_be_private: bool) -> Result<Box<dyn Connection>> {
        let (Some(host), Some(port)) = (url.host(), url.port_or_known_default()) else {
            return Err(Error::invalid("the address of the call has no host"));
        };
        let addresses = match &host {
            Host::Ipv4(address) => vec![IpAddr::from(*address)],
            Host::Ipv6(address) => vec![IpAddr::from(*address)],
            Host::Domain(name) => self.inner.network.resolve(name).await?,
        };
        let good = judge(url, &addresses, may_be_private)?;
        let mut last = None;
        for address in good.into_iter().take(ADDRESSES_TRIED) {
            let address = SocketAddr::new(address, port);
            let target = Target { address, host: host.to_string(), is_tls: url.scheme() == "https" };
            let connecting = self.inner.network.connect(&target);
            last = Some(match timeout(Duration::from_millis(CONNECT_MS_MAX), connecting).await {
                Ok(Ok(connection)) => return Ok(connection),
                Ok(Err(error)) => error,
                Err(_) => Error::unavailable(format!("`{host}` at {address} did not answer in {CONNECT_MS_MAX} ms")),
            });
        }
        Err(last.unwrap_or_else(|| Error::unavailable(format!("`{host}` has no address"))))
    }
}

/// The addresses that may be connected to. One that may not is skipped when there are others: it is never connected to.
fn judge(url: &Url, addresses: &[IpAddr], may_be_private: bool) -> Result<Vec<IpAddr>> {
    let mut refused = None;
    let mut good = Vec::new();
    for address in addresses {
        match reach(*address) {
            Reach::Public => good.push(*address),
            Reach::Private(_) if may_be_private => good.push(*address),
            Reach::Private(why) | Reach::Never(why) => refused = refused.or(Some((*address, why))),
        }
    }
    match refused {
        Some((address, why)) if good.is_empty() => {
            let place = place(url);
            Err(Error::denied(format!(
                "`{place}` leads to {address}, which is {why}; calls go only to public addresses"
            )))
        }
        _ => Ok(good),
    }
}

/// The next hop, when the answer is a redirect that says where.
fn redirect(request: &Request, hop: &Hop, answer: &http::Response<Bytes>) -> Result<Option<Hop>> {
    let status = answer.status();
    if !matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308) {
        return Ok(None);
    }
    let Some(location) = answer.headers().get(header::LOCATION) else { return Ok(None) };
    let from = place(&hop.url);
    let bad = || Error::unavailable(format!("`{from}` redirects to something that is no address"));
    let url = location.to_str().ok().and_then(|location| hop.url.join(location).ok()).ok_or_else(bad)?;
    let url = check_url(url.as_str()).map_err(|error| error.context(format!("a redirect of `{from}`")))?;
    let mut next = Hop { method: hop.method.clone(), url, headers: hop.headers.clone(), body: hop.body.clone() };
    // As browsers do (RFC 9110, 15.4): what is to be seen there is asked for, not sent again.
    let becomes_get = match status {
        StatusCode::SEE_OTHER => next.method != Method::GET && next.method != Method::HEAD,
        StatusCode::MOVED_PERMANENTLY | StatusCode::FOUND => next.method == Method::POST,
        _ => false,
    };
    if becomes_get {
        (next.method, next.body) = (Method::GET, Bytes::new());
        let about_body = |name: &header::HeaderName| name.as_str().starts_with("content-");
        next.headers = without(next.headers, about_body);
    }
    if next.url.origin() != hop.url.origin() {
        next.headers = without(next.headers, |name| request.is_credential(name));
    }
    Ok(Some(next))
}

fn without(headers: HeaderMap, refuse: impl Fn(&header::HeaderName) -> bool) -> HeaderMap {
    let names: Vec<_> = headers.keys().filter(|name| refuse(name)).cloned().collect();
    let mut headers = headers;
    for name in names {
        headers.remove(name);
    }
    headers
}

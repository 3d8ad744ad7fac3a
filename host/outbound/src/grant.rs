//! Which hosts a caller may call.
//!
//! Owns [`HostGrant`] and [`Grants`]: a list that is read from a manifest or an operator's configuration, and the one
//! question asked of it, at the first address and at every redirect. Separate because deciding needs no network. Denied is
//! what no grant names.
//!
//! Bounded by [`GRANTS_MAX`]. On failure: a grant that cannot be read is `invalid`; a call that none names is `denied` and
//! says which host, scheme and port.

use std::fmt;
use std::str::FromStr;

use mainstay_base::{Error, Result};
use serde::{Deserialize, Serialize};
use url::{Host, Url};

use crate::limits::GRANTS_MAX;

/// One host, or the hosts below one. As text `[http://]HOST[:PORT]`, where HOST is a name, an address, or `*.` and a name.
/// Without `http://` only HTTPS is allowed; without a port only the scheme's own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct HostGrant {
    is_http: bool,
    /// Whether hosts below it are meant, not itself.
    is_below: bool,
    host: String,
    port: u16,
}

/// What a caller may call.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Grants {
    /// The hosts.
    pub hosts: Vec<HostGrant>,
    /// Of these, the ones that may lie in a private network; an operator says so, never a manifest. Hosts below a name
    /// cannot be meant: whoever can add a name there could point it anywhere.
    pub allow_private: Vec<HostGrant>,
}

impl HostGrant {
    fn names(&self, url: &Url) -> bool {
        let Some(host) = url.host_str() else { return false };
        let scheme = if self.is_http { "http" } else { "https" };
        let is_host = match self.is_below {
            true => host.strip_suffix(&self.host).is_some_and(|below| below.len() > 1 && below.ends_with('.')),
            false => host == self.host,
        };
        is_host && url.scheme() == scheme && url.port_or_known_default() == Some(self.port)
    }
}

impl FromStr for HostGrant {
    type Err = Error;

    fn from_str(text: &str) -> Result<HostGrant> {
        read(text).ok_or_else(|| {
            let shown: String = text.chars().take(200).collect();
            Error::invalid(format!(
                "`{shown}` is no host that could be granted; one looks like `example.com`, `*.example.com:8443` or \
                 `http://10.0.0.1:8080`"
            ))
        })
    }
}

fn read(text: &str) -> Option<HostGrant> {
    let (is_http, rest) = match text.split_once("://") {
        None => (false, text),
        Some(("https", rest)) => (false, rest),
        Some(("http", rest)) => (true, rest),
        Some(_) => return None,
    };
    let (is_below, rest) = match rest.strip_prefix("*.") {
        Some(rest) => (true, rest),
        None => (false, rest),
    };
    let is_plain = !rest.is_empty() && !rest.contains(['/', '?', '#', '@', '*', '\\', ' ', '\t', '\n', '\r']);
    // Read as addresses of calls are, so that both are written the same way in the end.
    let scheme = if is_http { "http" } else { "https" };
    let url = is_plain.then(|| Url::parse(&format!("{scheme}://{rest}/")).ok())??;
    if is_below && !matches!(url.host()?, Host::Domain(name) if name.contains('.')) {
        return None;
    }
    Some(HostGrant { is_http, is_below, host: url.host_str()?.to_owned(), port: url.port_or_known_default()? })
}

impl fmt::Display for HostGrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, own_port) = if self.is_http { ("http://", 80) } else { ("", 443) };
        let below = if self.is_below { "*." } else { "" };
        write!(f, "{scheme}{below}{}", self.host)?;
        if self.port == own_port { Ok(()) } else { write!(f, ":{}", self.port) }
    }
}

impl From<HostGrant> for String {
    fn from(grant: HostGrant) -> String {
        grant.to_string()
    }
}

impl TryFrom<String> for HostGrant {
    type Error = Error;

    fn try_from(text: String) -> Result<HostGrant> {
        text.parse()
    }
}

impl Grants {
    /// Grants of these hosts, none of them private.
    pub fn of<'a>(hosts: impl IntoIterator<Item = &'a str>) -> Result<Grants> {
        let hosts = hosts.into_iter().map(str::parse).collect::<Result<_>>()?;
        Ok(Grants { hosts, allow_private: Vec::new() })
    }

    /// The same, and this host may be called, and may lie in a private network.
    pub fn with_private(mut self, host: &str) -> Result<Grants> {
        let grant: HostGrant = host.parse()?;
        self.hosts.push(grant.clone());
        self.allow_private.push(grant);
        Ok(self)
    }

    /// Whether the list makes sense.
    pub fn check(&self) -> Result<()> {
        let count = self.hosts.len() + self.allow_private.len();
        if count > GRANTS_MAX {
            return Err(Error::invalid(format!("{count} granted hosts; at most {GRANTS_MAX} are allowed")));
        }
        match self.allow_private.iter().find(|grant| grant.is_below) {
            Some(grant) => Err(Error::invalid(format!(
                "`{grant}` cannot be allowed to lie in a private network; name each host that may"
            ))),
            None => Ok(()),
        }
    }

    /// Whether the address may be called. Answers whether its host may lie in a private network.
    pub(crate) fn judge(&self, url: &Url) -> Result<bool> {
        if !self.hosts.iter().any(|grant| grant.names(url)) {
            let place = place(url);
            return Err(Error::denied(format!("`{place}` is not granted to this caller; an operator can grant it")));
        }
        Ok(self.allow_private.iter().any(|grant| !grant.is_below && grant.names(url)))
    }
}

/// Scheme, host and port; what comes behind may be secret, so no message has it.
pub(crate) fn place(url: &Url) -> String {
    let port = url.port().map_or_else(String::new, |port| format!(":{port}"));
    format!("{}://{}{port}", url.scheme(), url.host_str().unwrap_or("?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grants_are_read_and_written_back() {
        fn check(text: &str, expect: Option<&str>) {
            let read = text.parse::<HostGrant>().ok().map(|grant| grant.to_string());
            assert_eq!(read.as_deref(), expect, "{text}");
        }
        check("example.com", Some("example.com"));
        check("https://Example.COM:443", Some("example.com"));
        check("http://example.com", Some("http://example.com"));
        check("http://example.com:443", Some("http://example.com:443"));
        check("*.example.com:8443", Some("*.example.com:8443"));
        check("0x7f.1", Some("127.0.0.1"));
        check("[::1]:80", Some("[::1]:80"));
        check("bücher.example", Some("xn--bcher-kva.example"));
        for bad in [
            "",
            "*",
            "*.",
            "*.com",
            "*.10.0.0.1",
            "a.*.com",
            "ftp://a",
            "a/b",
            "a?b",
            "a b",
            "u@a",
            "a:99999",
            "*.*.a.b",
        ] {
            check(bad, None);
        }
    }

    #[test]
    fn only_what_is_named_may_be_called() {
        fn check(grant: &str, url: &str, expect: bool) {
            let judged = Grants::of([grant]).unwrap().judge(&Url::parse(url).unwrap());
            assert_eq!(judged.is_ok(), expect, "{grant} {url}: {judged:?}");
        }
        check("example.com", "https://example.com/a?b", true);
        check("example.com", "https://EXAMPLE.com:443/", true);
        check("example.com", "https://example.com:8443/", false);
        check("example.com", "http://example.com/", false);
        check("example.com", "https://a.example.com/", false);
        check("example.com", "https://example.com.evil.com/", false);
        check("example.com", "https://example.com@evil.com/", false);
        check("example.com", "https://example.com./", false);
        check("http://example.com", "https://example.com/", false);
        check("http://example.com:8080", "http://example.com:8080/", true);
        check("*.example.com", "https://a.example.com/", true);
        check("*.example.com", "https://a.b.example.com/", true);
        check("*.example.com", "https://example.com/", false);
        check("*.example.com", "https://.example.com/", false);
        check("*.example.com", "https://evilexample.com/", false);
        check("127.0.0.1", "https://2130706433/", true);
    }

    #[test]
    fn private_hosts_are_named_one_by_one() {
        let grants = Grants::of(["a.com"]).unwrap().with_private("http://inner:8080").unwrap();
        grants.check().unwrap();
        assert!(!grants.judge(&Url::parse("https://a.com/").unwrap()).unwrap());
        assert!(grants.judge(&Url::parse("http://inner:8080/").unwrap()).unwrap());
        assert!(Grants::default().with_private("*.inner.net").unwrap().check().is_err());
        let many = |count| Grants { hosts: vec!["a.com".parse().unwrap(); count], allow_private: vec![] };
        many(GRANTS_MAX).check().unwrap();
        many(GRANTS_MAX + 1).check().unwrap_err();
    }
}

//! Where an upstream is, and which of its models is meant.
//!
//! Owns the reading of addresses. Separate because it is pure. Private addresses are allowed: operators name upstreams themselves,
//! and most stand in the same network. Bounded by [`limits::URL_BYTES_MAX`]. On failure: `invalid`, with the forms that are
//! understood.

use std::fmt;
use std::sync::Arc;

use mainstay_base::{Error, Result};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use url::Url;

use crate::limits;

/// What a segment of a path may have as it is.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

const FORMS: &str = "`http(s)://HOST[:PORT]` or `grpc(s)://HOST[:PORT]`, alone or with `/v2/models/NAME` or \
                     `/v2/models/NAME/versions/VERSION` behind it";

/// What is spoken there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Protocol {
    Http,
    Grpc,
}

/// Which server, and what is spoken with it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Origin {
    pub protocol: Protocol,
    pub is_tls: bool,
    /// In lower case; an address of IPv6 in its brackets.
    pub host: String,
    pub port: u16,
}

impl Origin {
    /// `host:port`.
    pub fn authority(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// How requests name it: without the port where that is the usual one.
    pub fn host_header(&self) -> String {
        match (self.is_tls, self.port) {
            (false, 80) | (true, 443) => self.host.clone(),
            _ => self.authority(),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match (self.protocol, self.is_tls) {
            (Protocol::Http, false) => "http",
            (Protocol::Http, true) => "https",
            (Protocol::Grpc, false) => "grpc",
            (Protocol::Grpc, true) => "grpcs",
        };
        write!(f, "{scheme}://{}:{}", self.host, self.port)
    }
}

/// Where an upstream is, and which of its models is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    pub origin: Origin,
    /// What stands before `/v2` in its paths, as a gateway may want.
    pub prefix: String,
    /// The model; none where each request names its own.
    pub model: Option<Arc<str>>,
    /// The version; none for the upstream's choice.
    pub version: Option<Arc<str>>,
    /// As it was given.
    pub url: Arc<str>,
}

impl Address {
    pub fn parse(text: &str) -> Result<Address> {
        if text.len() > limits::URL_BYTES_MAX {
            return Err(Error::invalid(format!(
                "an upstream's address of {} bytes; at most {} are allowed",
                text.len(),
                limits::URL_BYTES_MAX
            )));
        }
        read(text).ok_or_else(|| Error::invalid(format!("`{text}` is no upstream's address; the forms are {FORMS}")))
    }

    /// The path of a model, escaped.
    pub fn model_path(&self, model: &str, version: Option<&str>) -> String {
        let mut path = format!("{}/v2/models/{}", self.prefix, utf8_percent_encode(model, SEGMENT));
        if let Some(version) = version {
            path.push_str("/versions/");
            path.extend(utf8_percent_encode(version, SEGMENT));
        }
        path
    }

    /// The model that is meant by a request for this one: the address's, if it names one.
    pub fn target<'a>(&'a self, model: &'a str, version: Option<&'a str>) -> (&'a str, Option<&'a str>) {
        match &self.model {
            Some(model) => (model, self.version.as_deref()),
            None => (model, version),
        }
    }
}

fn read(text: &str) -> Option<Address> {
    let (scheme, rest) = text.split_once("://")?;
    let (protocol, is_tls) = match scheme {
        "http" => (Protocol::Http, false),
        "https" => (Protocol::Http, true),
        "grpc" => (Protocol::Grpc, false),
        "grpcs" => (Protocol::Grpc, true),
        _ => return None,
    };
    // Read as one of the schemes that the parser knows hosts and ports of.
    let url = Url::parse(&format!("{}://{rest}", if is_tls { "https" } else { "http" })).ok()?;
    let is_plain = url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none()
        && !text.contains(|c: char| c.is_whitespace() || c.is_control() || c == '\\');
    if !is_plain {
        return None;
    }
    let origin = Origin { protocol, is_tls, host: url.host_str()?.to_owned(), port: url.port_or_known_default()? };
    let segments: Vec<&str> = url.path_segments()?.collect();
    let segments = segments.strip_suffix(&[""]).unwrap_or(&segments);
    let place = segments.iter().position(|segment| *segment == "v2").unwrap_or(segments.len());
    let (before, behind) = segments.split_at(place);
    let (model, version) = match behind {
        // Without `/v2` a path says nothing.
        [] if !before.is_empty() => return None,
        [] | ["v2"] => (None, None),
        ["v2", "models", model] => (Some(decode(model)?), None),
        ["v2", "models", model, "versions", version] => (Some(decode(model)?), Some(decode(version)?)),
        _ => return None,
    };
    if protocol == Protocol::Grpc && !before.is_empty() {
        return None;
    }
    let prefix = before.iter().map(|segment| format!("/{segment}")).collect();
    Some(Address { origin, prefix, model, version, url: text.into() })
}

fn decode(segment: &str) -> Option<Arc<str>> {
    let decoded = percent_decode_str(segment).decode_utf8().ok()?;
    (!decoded.is_empty()).then(|| decoded.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_names_a_server_and_perhaps_a_model_of_it() {
        fn check(text: &str, origin: &str, model: Option<&str>, version: Option<&str>, path: &str) {
            let address = Address::parse(text).unwrap();
            assert_eq!(address.origin.to_string(), origin, "{text}");
            assert_eq!((address.model.as_deref(), address.version.as_deref()), (model, version), "{text}");
            let (model, version) = address.target("asked", Some("7"));
            assert_eq!(address.model_path(model, version), path, "{text}");
        }
        check("http://a", "http://a:80", None, None, "/v2/models/asked/versions/7");
        check("https://A.example/", "https://a.example:443", None, None, "/v2/models/asked/versions/7");
        check("grpc://a:8001", "grpc://a:8001", None, None, "/v2/models/asked/versions/7");
        check("grpcs://a/v2/models/m", "grpcs://a:443", Some("m"), None, "/v2/models/m");
        check("http://10.0.0.1:8000/v2/models/m/", "http://10.0.0.1:8000", Some("m"), None, "/v2/models/m");
        check("http://[::1]:8000/v2", "http://[::1]:8000", None, None, "/v2/models/asked/versions/7");
        check("http://a/x/y/v2/models/m", "http://a:80", Some("m"), None, "/x/y/v2/models/m");
        check(
            "http://a/v2/models/odd%20name%20%25%3F%23/versions/3",
            "http://a:80",
            Some("odd name %?#"),
            Some("3"),
            "/v2/models/odd%20name%20%25%3F%23/versions/3",
        );
    }

    #[test]
    fn requests_name_the_port_unless_it_is_the_usual_one() {
        fn check(text: &str, expect: &str) {
            assert_eq!(Address::parse(text).unwrap().origin.host_header(), expect);
        }
        check("http://a:80", "a");
        check("https://a", "a");
        check("http://a:443", "a:443");
        check("grpcs://[::1]:443", "[::1]");
        check("grpc://a:8001", "a:8001");
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in [
            "",
            "a",
            "ftp://a",
            "http://",
            "http://a:99999",
            "http://user@a",
            "http://user:secret@a",
            "http://a?b=c",
            "http://a#b",
            "http://a b",
            "http://a\\b",
            "http://a/invocations",
            "http://a/v2/models",
            "http://a/v2/models/",
            "http://a/v2/models/m/infer",
            "http://a/v2/models/m/versions",
            "http://a/v2/models/%ff",
            "grpc://a/x/v2/models/m",
        ] {
            assert!(Address::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn an_address_may_have_as_many_bytes_as_the_limit_and_not_one_more() {
        let long = |bytes: usize| format!("{:a<bytes$}", "http://h/v2/models/");
        assert!(Address::parse(&long(limits::URL_BYTES_MAX)).is_ok());
        let error = Address::parse(&long(limits::URL_BYTES_MAX + 1)).unwrap_err();
        assert!(error.message().contains("1024"), "{error}");
    }
}

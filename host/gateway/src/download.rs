//! A blob as an answer: length, ETag, conditions, one range.
//!
//! What to send is decided by a pure function ([`decide`], RFC 9110 sections 13 and 14) before a byte is opened. A blob is
//! its digest, so the digest is a strong ETag. Several ranges in one request are answered with the whole, as the
//! specification allows. Blobs may hold pages made by anyone, so a browser gets them sandboxed unless the plugin says
//! otherwise.

use std::ops::Range;

use futures::TryStreamExt;
use http::header::{
    ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_MATCH, IF_NONE_MATCH,
    IF_RANGE, RANGE, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use mainstay_store::blobs::Blobs;
use mainstay_store::damage::DamagedBlob;

use crate::body::AnswerBody;
use crate::problem::{self, Problem};

/// What a client gets of a blob.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Decision {
    Whole,
    Part(Range<u64>),
    NotModified,
    PreconditionFailed,
    Unsatisfiable,
}

/// Answer with a blob. `headers` are the plugin's.
pub(crate) async fn send(
    blobs: &Blobs,
    method: &Method,
    asked: &HeaderMap,
    sha256: &str,
    headers: HeaderMap,
    trace_id: String,
) -> Result<Response<AnswerBody>, Problem> {
    let missing = || {
        let what = "it has a name, but nothing is known of its bytes".to_owned();
        DamagedBlob { sha256: sha256.to_owned(), what }.error()
    };
    let info = blobs.stat(sha256)?.ok_or_else(missing)?;
    let etag = format!("\"{sha256}\"");
    let decision = decide(method, asked, &etag, info.size_bytes);
    let mut response = Response::new(AnswerBody::empty());
    *response.headers_mut() = headers;
    complete(response.headers_mut(), &etag);
    let range = match decision {
        Decision::NotModified => {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            return Ok(response);
        }
        Decision::PreconditionFailed => {
            return Err(Problem::new(
                &problem::PRECONDITION,
                format!("this is the blob `{sha256}`, which `If-Match` does not name"),
            ));
        }
        Decision::Unsatisfiable => {
            let length = info.size_bytes;
            return Err(Problem::new(&problem::RANGE, format!("there are only {length} bytes"))
                .header(CONTENT_RANGE, text_value(&format!("bytes */{length}"))));
        }
        Decision::Whole => None,
        Decision::Part(range) => {
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
            let value = format!("bytes {}-{}/{}", range.start, range.end - 1, info.size_bytes);
            response.headers_mut().insert(CONTENT_RANGE, text_value(&value));
            Some(range)
        }
    };
    let length = range.as_ref().map_or(info.size_bytes, |range| range.end - range.start);
    response.headers_mut().insert(CONTENT_LENGTH, length.into());
    if *method != Method::HEAD && length > 0 {
        let (_, stream) = blobs.get(sha256, range).await?;
        let stream = stream.inspect_err(move |error| {
            tracing::error!(?error, trace_id, "sending a blob failed; the connection is cut");
        });
        *response.body_mut() = AnswerBody::stream(stream, length);
    }
    Ok(response)
}

/// What every answer with a blob says.
fn complete(headers: &mut HeaderMap, etag: &str) {
    headers.insert(ETAG, text_value(etag));
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.entry(CONTENT_TYPE).or_insert(HeaderValue::from_static("application/octet-stream"));
    headers.entry(X_CONTENT_TYPE_OPTIONS).or_insert(HeaderValue::from_static("nosniff"));
    headers.entry(CONTENT_SECURITY_POLICY).or_insert(HeaderValue::from_static("sandbox"));
}

/// Digests and numbers are plain ASCII.
fn text_value(text: &str) -> HeaderValue {
    HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static(""))
}

fn decide(method: &Method, asked: &HeaderMap, etag: &str, length: u64) -> Decision {
    if asked.contains_key(IF_MATCH) && !names(asked, IF_MATCH, etag, false) {
        return Decision::PreconditionFailed;
    }
    if asked.contains_key(IF_NONE_MATCH) && names(asked, IF_NONE_MATCH, etag, true) {
        return Decision::NotModified;
    }
    let Some(range) = asked.get(RANGE).filter(|_| *method == Method::GET).and_then(|value| value.to_str().ok()) else {
        return Decision::Whole;
    };
    // A range of something else (or of a date, which we do not keep) is not a range of this.
    if asked.get(IF_RANGE).is_some_and(|value| value.as_bytes() != etag.as_bytes()) {
        return Decision::Whole;
    }
    parse_range(range, length)
}

/// Whether a list of entity tags names this one; `*` names all.
fn names(asked: &HeaderMap, header: http::HeaderName, etag: &str, weak: bool) -> bool {
    let tags =
        asked.get_all(header).into_iter().filter_map(|value| value.to_str().ok()).flat_map(|text| text.split(','));
    tags.map(str::trim).any(|tag| {
        let tag = if weak { tag.strip_prefix("W/").unwrap_or(tag) } else { tag };
        tag == "*" || tag == etag
    })
}

/// A malformed range is ignored; one that lies beyond the end is not satisfiable.
fn parse_range(text: &str, length: u64) -> Decision {
    let Some(spec) = text.strip_prefix("bytes=") else { return Decision::Whole };
    let Some((first, last)) = spec.trim().split_once('-') else { return Decision::Whole };
    let number = |digits: &str| -> Option<u64> {
        let digits_only = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        digits_only.then(|| digits.parse().unwrap_or(u64::MAX))
    };
    let range = match (first, number(first), last, number(last)) {
        ("", _, _, Some(suffix)) => length.saturating_sub(suffix)..length,
        (_, Some(first), "", _) => first..length,
        (_, Some(first), _, Some(last)) if first <= last => first..last.saturating_add(1).min(length),
        _ => return Decision::Whole,
    };
    if range.start < range.end { Decision::Part(range) } else { Decision::Unsatisfiable }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_and_ranges() {
        #[track_caller]
        fn check(headers: &[(&str, &str)], expect: Decision) {
            let mut map = HeaderMap::new();
            for (name, value) in headers {
                map.append(http::HeaderName::try_from(*name).unwrap(), value.parse().unwrap());
            }
            assert_eq!(decide(&Method::GET, &map, "\"a\"", 10), expect, "{headers:?}");
        }
        check(&[], Decision::Whole);
        check(&[("range", "bytes=0-0")], Decision::Part(0..1));
        check(&[("range", "bytes=2-")], Decision::Part(2..10));
        check(&[("range", "bytes=-3")], Decision::Part(7..10));
        check(&[("range", "bytes=-30")], Decision::Part(0..10));
        check(&[("range", "bytes=8-99")], Decision::Part(8..10));
        check(&[("range", "bytes=0-99999999999999999999999")], Decision::Part(0..10));
        check(&[("range", "bytes=10-")], Decision::Unsatisfiable);
        check(&[("range", "bytes=10-12")], Decision::Unsatisfiable);
        check(&[("range", "bytes=-0")], Decision::Unsatisfiable);
        check(&[("range", "bytes=5-2")], Decision::Whole);
        check(&[("range", "bytes=0-1,3-4")], Decision::Whole);
        check(&[("range", "bytes=+1-2")], Decision::Whole);
        check(&[("range", "lines=1-2")], Decision::Whole);
        check(&[("range", "bytes=")], Decision::Whole);
        check(&[("range", "bytes=0-1"), ("if-range", "\"a\"")], Decision::Part(0..2));
        check(&[("range", "bytes=0-1"), ("if-range", "W/\"a\"")], Decision::Whole);
        check(&[("range", "bytes=0-1"), ("if-range", "\"b\"")], Decision::Whole);
        check(&[("if-none-match", "\"a\"")], Decision::NotModified);
        check(&[("if-none-match", "\"b\", W/\"a\"")], Decision::NotModified);
        check(&[("if-none-match", "\"b\""), ("if-none-match", "\"a\"")], Decision::NotModified);
        check(&[("if-none-match", "*")], Decision::NotModified);
        check(&[("if-none-match", "\"b\"")], Decision::Whole);
        check(&[("if-match", "\"a\"")], Decision::Whole);
        check(&[("if-match", "W/\"a\"")], Decision::PreconditionFailed);
        check(&[("if-match", "\"b\"")], Decision::PreconditionFailed);
    }

    #[test]
    fn only_get_has_ranges_and_empty_blobs_have_none() {
        let mut map = HeaderMap::new();
        map.insert(RANGE, HeaderValue::from_static("bytes=0-1"));
        assert_eq!(decide(&Method::HEAD, &map, "\"a\"", 10), Decision::Whole);
        assert_eq!(decide(&Method::GET, &map, "\"a\"", 0), Decision::Unsatisfiable);
    }
}

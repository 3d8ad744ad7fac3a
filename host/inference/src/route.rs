//! Which operation a path names.
//!
//! Owns the paths of the protocol over HTTP. Separate from the front, so that the table can be read and tested alone. Bounded by
//! the path. On failure: nothing is guessed; an unknown path is none.

use http::Method;

/// One operation, as its path names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    Live,
    Ready,
    Server,
    Model(String, Option<String>, Of),
    AllStatistics,
    Index,
    Load(String),
    Unload(String),
    /// What Triton has beside; named for the answer.
    Beside(&'static str),
}

/// What is asked of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Of {
    Metadata,
    Ready,
    Config,
    Infer,
    Statistics,
    Generate,
    GenerateStream,
}

impl Route {
    /// The operation of a path; none where there is no such one.
    pub(crate) fn of(path: &str) -> Option<Route> {
        let segments = path.strip_prefix('/')?.split('/').map(decode).collect::<Option<Vec<String>>>()?;
        let segments = segments.iter().map(String::as_str).collect::<Vec<_>>();
        let rest = segments.strip_prefix(&["v2"])?;
        let rest = rest.strip_suffix(&[""]).unwrap_or(rest);
        Some(match rest {
            [] => Route::Server,
            ["health", "live"] => Route::Live,
            ["health", "ready"] => Route::Ready,
            ["models", "stats"] => Route::AllStatistics,
            ["repository", "index"] | ["repository", _, "index"] => Route::Index,
            ["repository", "models", model, "load"] | ["repository", _, "models", model, "load"] => {
                Route::Load((*model).to_owned())
            }
            ["repository", "models", model, "unload"] | ["repository", _, "models", model, "unload"] => {
                Route::Unload((*model).to_owned())
            }
            ["trace", "setting"] | ["models", _, "trace", "setting"] => Route::Beside("tracing by this protocol"),
            ["logging"] => Route::Beside("changing the log by this protocol"),
            ["systemsharedmemory" | "cudasharedmemory", ..] => Route::Beside("shared memory"),
            ["models", model, "versions", version, rest @ ..] if !model.is_empty() && !version.is_empty() => {
                Route::Model((*model).to_owned(), Some((*version).to_owned()), Of::parse(rest)?)
            }
            ["models", model, rest @ ..] if !model.is_empty() => {
                Route::Model((*model).to_owned(), None, Of::parse(rest)?)
            }
            _ => return None,
        })
    }

    /// The methods it takes.
    pub(crate) fn methods(&self) -> &'static [Method] {
        match self {
            Route::Live | Route::Ready | Route::Server | Route::AllStatistics => &[Method::GET, Method::HEAD],
            Route::Model(_, _, Of::Infer | Of::Generate | Of::GenerateStream) => &[Method::POST],
            Route::Model(..) => &[Method::GET, Method::HEAD],
            Route::Index | Route::Load(_) | Route::Unload(_) => &[Method::POST],
            Route::Beside(_) => &[Method::GET, Method::HEAD, Method::POST],
        }
    }
}

impl Of {
    fn parse(rest: &[&str]) -> Option<Of> {
        Some(match rest {
            [] => Of::Metadata,
            ["ready"] => Of::Ready,
            ["config"] => Of::Config,
            ["infer"] => Of::Infer,
            ["stats"] => Of::Statistics,
            ["generate"] => Of::Generate,
            ["generate_stream"] => Of::GenerateStream,
            _ => return None,
        })
    }
}

/// A segment with its `%` escapes read; none where they are no text.
fn decode(segment: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(segment.len());
    let mut rest = segment.as_bytes();
    while let Some((byte, behind)) = rest.split_first() {
        rest = behind;
        if *byte != b'%' {
            bytes.push(*byte);
            continue;
        }
        let (digits, behind) = rest.split_first_chunk::<2>()?;
        let digit = |byte: u8| char::from(byte).to_digit(16);
        bytes.push((digit(digits[0])? * 16 + digit(digits[1])?) as u8);
        rest = behind;
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_of_the_protocol_names_its_operation() {
        fn check(path: &str, expect: Option<Route>) {
            assert_eq!(Route::of(path), expect, "{path}");
        }
        fn model(name: &str, version: Option<&str>, of: Of) -> Option<Route> {
            Some(Route::Model(name.to_owned(), version.map(str::to_owned), of))
        }
        check("/v2", Some(Route::Server));
        check("/v2/", Some(Route::Server));
        check("/v2/health/live", Some(Route::Live));
        check("/v2/health/ready", Some(Route::Ready));
        check("/v2/models/tree", model("tree", None, Of::Metadata));
        check("/v2/models/tree/ready", model("tree", None, Of::Ready));
        check("/v2/models/tree/versions/3/infer", model("tree", Some("3"), Of::Infer));
        check("/v2/models/a%20b%2Fc/config", model("a b/c", None, Of::Config));
        check("/v2/models/versions", model("versions", None, Of::Metadata));
        check("/v2/models/stats", Some(Route::AllStatistics));
        check("/v2/models/stats/stats", model("stats", None, Of::Statistics));
        check("/v2/models/m/generate_stream", model("m", None, Of::GenerateStream));
        check("/v2/repository/index", Some(Route::Index));
        check("/v2/repository/main/index", Some(Route::Index));
        check("/v2/repository/models/m/load", Some(Route::Load("m".to_owned())));
        check("/v2/repository/main/models/m/unload", Some(Route::Unload("m".to_owned())));
        check("/v2/logging", Some(Route::Beside("changing the log by this protocol")));
        check("/v2/cudasharedmemory/region/x/register", Some(Route::Beside("shared memory")));
        for unknown in [
            "/",
            "",
            "/v1",
            "/v2/nothing",
            "/v2/models",
            "/v2/models//infer",
            "/v2/models/m/nothing",
            "/v2/models/%zz",
            "/v2/models/%ff",
            "/v2/models/m/versions",
        ] {
            check(unknown, None);
        }
    }
}

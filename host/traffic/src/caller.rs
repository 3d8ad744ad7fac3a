//! Who asks, and what of a request decides where it goes.
//!
//! Owns [`Caller`] (what the gateway knows of who asks), and [`Reader`], which finds the text that a [`Source`] names.
//! Separate because routing, segments and faults all ask the same question, and none may allocate for the answer.
//!
//! Bounded by: texts longer than an inline buffer are borrowed, never copied. On failure: a text that is not there is none.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Instant;

use http::{HeaderMap, HeaderName, header};
use mainstay_base::{Error, Result};
use mainstay_inference::{Datatype, InferRequest, Parameter, Tensor};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use crate::limits::{check_count, check_text};

/// The header that names a request when the request itself does not.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub struct Caller<'a> {
    /// The headers of the request, or its gRPC metadata.
    pub headers: &'a HeaderMap,
    /// On whose account.
    pub tenant: Option<&'a Arc<str>>,
    /// When the caller stops waiting.
    pub deadline: Option<Instant>,
    /// The trace that the request belongs to, as `traceparent` has it.
    pub trace: Option<&'a str>,
    /// Whether headers of this request may inject faults; the gateway says so of callers that have the right.
    pub may_inject_faults: bool,
    /// Whether something may stand in when the variant does not answer. Not for whoever is asked because it stands in itself.
    pub may_fall_back: bool,
}

impl<'a> Caller<'a> {
    /// Somebody of whom only the headers are known.
    pub fn new(headers: &'a HeaderMap) -> Caller<'a> {
        Caller { headers, tenant: None, deadline: None, trace: None, may_inject_faults: false, may_fall_back: true }
    }
}

/// Where a text comes from: `{ header = "x-user" }`, `{ cookie = "uid" }`, `{ parameter = "user" }`, `{ field = "user_id" }`,
/// `"tenant"` or `"request-id"`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// A header of the request.
    Header(String),
    /// A cookie of the request.
    Cookie(String),
    /// A parameter of the inference request.
    Parameter(String),
    /// A parameter, or else the first element of an input tensor of this name.
    Field(String),
    /// On whose account the request is made.
    Tenant,
    /// The identifier of the request, or else its header `x-request-id`.
    RequestId,
}

/// One condition on a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Condition {
    /// Which text of the request.
    pub of: Source,
    /// What must be true of it.
    pub is: Test,
}

/// What must be true of a text: `{ exact = "yes" }`, `{ prefix = "beta-" }` or `"present"`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Test {
    /// It is this text.
    Exact(String),
    /// It starts with this text.
    Prefix(String),
    /// It is there.
    Present,
}

impl Source {
    pub(crate) fn check(&self, at: &str) -> Result<()> {
        Reader::new(self, at).map(|_| ())
    }
}

pub(crate) fn check_conditions(at: &str, conditions: &[Condition], max: usize) -> Result<()> {
    check_count(at, conditions.len(), max)?;
    for (number, condition) in conditions.iter().enumerate() {
        condition.of.check(&format!("{at}[{number}].of"))?;
        if let Test::Exact(text) | Test::Prefix(text) = &condition.is {
            check_text(&format!("{at}[{number}].is"), text)?;
        }
    }
    Ok(())
}

/// A text of a request: borrowed, or a number written out on the stack.
pub(crate) enum Text<'a> {
    Borrowed(&'a [u8]),
    Written(SmallVec<[u8; 32]>),
}

impl Text<'_> {
    pub fn bytes(&self) -> &[u8] {
        match self {
            Text::Borrowed(bytes) => bytes,
            Text::Written(bytes) => bytes,
        }
    }
}

/// A [`Source`] made ready to be read without allocation.
pub(crate) enum Reader {
    Header(HeaderName),
    Cookie(String),
    Parameter(String),
    Field(String),
    Tenant,
    RequestId,
}

impl Reader {
    pub fn new(source: &Source, at: &str) -> Result<Reader> {
        let named = |name: &String| check_text(at, name).map(|()| name.clone());
        Ok(match source {
            Source::Header(name) => {
                let header = HeaderName::from_bytes(named(name)?.as_bytes());
                Reader::Header(header.map_err(|_| Error::invalid(format!("`{at}` is `{name}`: no name of a header")))?)
            }
            Source::Cookie(name) => Reader::Cookie(named(name)?),
            Source::Parameter(name) => Reader::Parameter(named(name)?),
            Source::Field(name) => Reader::Field(named(name)?),
            Source::Tenant => Reader::Tenant,
            Source::RequestId => Reader::RequestId,
        })
    }

    pub fn read<'r>(&self, caller: &Caller<'r>, request: &'r InferRequest) -> Option<Text<'r>> {
        match self {
            Reader::Header(name) => caller.headers.get(name).map(|value| Text::Borrowed(value.as_bytes())),
            Reader::Cookie(name) => cookie(caller.headers, name).map(Text::Borrowed),
            Reader::Parameter(name) => parameter(request, name),
            Reader::Field(name) => parameter(request, name).or_else(|| input(request, name)),
            Reader::Tenant => caller.tenant.map(|tenant| Text::Borrowed(tenant.as_bytes())),
            Reader::RequestId => match &request.id {
                Some(id) => Some(Text::Borrowed(id.as_bytes())),
                None => caller.headers.get(REQUEST_ID).map(|value| Text::Borrowed(value.as_bytes())),
            },
        }
    }
}

/// A [`Condition`] made ready.
pub(crate) struct Matcher {
    reader: Reader,
    test: Test,
}

impl Matcher {
    pub fn all(conditions: &[Condition], at: &str) -> Result<Box<[Matcher]>> {
        let matcher =
            |condition: &Condition| Ok(Matcher { reader: Reader::new(&condition.of, at)?, test: condition.is.clone() });
        conditions.iter().map(matcher).collect()
    }

    pub fn matches(&self, caller: &Caller<'_>, request: &InferRequest) -> bool {
        let Some(text) = self.reader.read(caller, request) else { return false };
        match &self.test {
            Test::Exact(expected) => text.bytes() == expected.as_bytes(),
            Test::Prefix(prefix) => text.bytes().starts_with(prefix.as_bytes()),
            Test::Present => true,
        }
    }
}

fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a [u8]> {
    let lines = headers.get_all(header::COOKIE).iter();
    let mut pairs = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b';'));
    pairs.find_map(|pair| pair.trim_ascii().strip_prefix(name.as_bytes())?.strip_prefix(b"="))
}

fn parameter<'a>(request: &'a InferRequest, name: &str) -> Option<Text<'a>> {
    let (_, value) = request.parameters.iter().find(|(known, _)| known == name)?;
    Some(match value {
        Parameter::String(text) => Text::Borrowed(text.as_bytes()),
        Parameter::Bool(value) => Text::Borrowed(if *value { b"true" } else { b"false" }),
        Parameter::Int64(number) => written(number),
        Parameter::Uint64(number) => written(number),
        Parameter::Double(number) => written(number),
    })
}

/// The first element of an input: a text as it is, a whole number in decimal, so that 7 is the same user in any datatype.
fn input<'a>(request: &'a InferRequest, name: &str) -> Option<Text<'a>> {
    let tensor = request.inputs.iter().find(|tensor| tensor.name == name)?;
    first_element(tensor)
}

fn first_element(tensor: &Tensor) -> Option<Text<'_>> {
    let data = &tensor.data[..];
    macro_rules! number {
        ($type:ty) => {
            written(&<$type>::from_le_bytes(*data.first_chunk()?))
        };
    }
    Some(match tensor.datatype {
        Datatype::Bytes => {
            let length = u32::from_le_bytes(*data.first_chunk()?) as usize;
            Text::Borrowed(data.get(4..4_usize.checked_add(length)?)?)
        }
        Datatype::Bool | Datatype::Uint8 => number!(u8),
        Datatype::Uint16 => number!(u16),
        Datatype::Uint32 => number!(u32),
        Datatype::Uint64 => number!(u64),
        Datatype::Int8 => number!(i8),
        Datatype::Int16 => number!(i16),
        Datatype::Int32 => number!(i32),
        Datatype::Int64 => number!(i64),
        Datatype::Fp32 => number!(f32),
        Datatype::Fp64 => number!(f64),
        Datatype::Fp16 | Datatype::Bf16 => number!(u16),
    })
}

fn written(number: &impl std::fmt::Display) -> Text<'static> {
    let mut text = OnStack(SmallVec::new());
    // Writing into memory does not fail.
    let _ = write!(text, "{number}");
    Text::Written(text.0)
}

struct OnStack(SmallVec<[u8; 32]>);

impl Write for OnStack {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use smallvec::smallvec;

    fn tensor(datatype: Datatype, data: &[u8]) -> Tensor {
        Tensor { name: "user".into(), datatype, shape: smallvec![1], data: Bytes::copy_from_slice(data) }
    }

    fn read(source: Source, headers: &HeaderMap, request: &InferRequest) -> Option<String> {
        let tenant: Arc<str> = "acme".into();
        let caller = Caller { tenant: Some(&tenant), ..Caller::new(headers) };
        let reader = Reader::new(&source, "key").unwrap();
        reader.read(&caller, request).map(|text| String::from_utf8_lossy(text.bytes()).into_owned())
    }

    #[test]
    fn texts_are_found_where_their_source_says() {
        fn check(source: Source, expect: Option<&str>) {
            let mut headers = HeaderMap::new();
            headers.insert("x-user", "ada".parse().unwrap());
            headers.append("cookie", "a=1; uid=eve; b=".parse().unwrap());
            headers.append("cookie", "late=yes".parse().unwrap());
            let parameters = vec![("n".into(), Parameter::Int64(-7)), ("t".into(), Parameter::String("x".into()))];
            let request = InferRequest { id: Some("r1".into()), parameters, ..Default::default() };
            assert_eq!(read(source.clone(), &headers, &request).as_deref(), expect, "{source:?}");
        }
        check(Source::Header("X-User".into()), Some("ada"));
        check(Source::Header("x-other".into()), None);
        check(Source::Cookie("uid".into()), Some("eve"));
        check(Source::Cookie("b".into()), Some(""));
        check(Source::Cookie("late".into()), Some("yes"));
        check(Source::Cookie("ui".into()), None);
        check(Source::Parameter("n".into()), Some("-7"));
        check(Source::Field("t".into()), Some("x"));
        check(Source::Tenant, Some("acme"));
        check(Source::RequestId, Some("r1"));
    }

    #[test]
    fn the_same_user_reads_the_same_in_any_datatype() {
        fn check(datatype: Datatype, data: &[u8], expect: Option<&str>) {
            let request = InferRequest { inputs: vec![tensor(datatype, data)], ..Default::default() };
            let found = read(Source::Field("user".into()), &HeaderMap::new(), &request);
            assert_eq!(found.as_deref(), expect, "{datatype:?}");
        }
        check(Datatype::Int64, &7_i64.to_le_bytes(), Some("7"));
        check(Datatype::Uint16, &7_u16.to_le_bytes(), Some("7"));
        check(Datatype::Fp32, &7_f32.to_le_bytes(), Some("7"));
        check(Datatype::Bytes, b"\x01\0\0\x007", Some("7"));
        check(Datatype::Bytes, b"\xff\xff\xff\xff7", None);
        check(Datatype::Int64, b"7", None);
    }

    #[test]
    fn conditions_compare_exactly_by_prefix_or_by_presence() {
        fn check(test: Test, value: &str, expect: bool) {
            let mut headers = HeaderMap::new();
            headers.insert("x", value.parse().unwrap());
            let condition = Condition { of: Source::Header("x".into()), is: test };
            let matchers = Matcher::all(&[condition], "when").unwrap();
            let caller = Caller::new(&headers);
            assert_eq!(matchers[0].matches(&caller, &InferRequest::default()), expect, "{value}");
        }
        check(Test::Exact("yes".into()), "yes", true);
        check(Test::Exact("yes".into()), "yes!", false);
        check(Test::Prefix("ye".into()), "yes", true);
        check(Test::Prefix("es".into()), "yes", false);
        check(Test::Present, "", true);
    }

    #[test]
    fn sources_that_cannot_be_read_are_refused() {
        for source in [Source::Header("no header".into()), Source::Cookie(String::new())] {
            let error = source.check("plan.split.key").unwrap_err();
            assert!(error.message().contains("plan.split.key"), "{error}");
        }
    }
}

//! Tensors, requests and answers as JSON.
//!
//! Owns the JSON half of the HTTP form: elements nested or flat are read straight into their binary form, by the datatype that
//! stands before them; whole numbers exactly, also beyond 2^53. Separate from the binary half ([`crate::wire`]), which cuts
//! bodies.
//!
//! JSON has no words for what is not finite, and clients need them. Read are `NaN`, `Infinity` and `-Infinity`, bare (as Triton
//! and its clients write them) and as texts; written are the texts, which protobuf's JSON form also uses, because a bare `NaN`
//! makes a whole answer unreadable to most parsers.
//!
//! Bounded by the text that is read; how deep elements may be nested by [`limits`]. On failure: `invalid` with line and column.

use std::cell::Cell;
use std::fmt;

use mainstay_base::{Error, Result};
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use crate::limits;
use crate::request::{Parameter, RequestedOutput};
use crate::schema::not_finite;
use crate::tensor::{Datatype, Shape, Tensor, each, put_element};

/// What a request or an answer says in JSON.
#[derive(Default)]
pub(crate) struct Envelope {
    pub(crate) id: Option<String>,
    pub(crate) model: Option<String>,
    pub(crate) version: Option<String>,
    pub(crate) parameters: Parameters,
    pub(crate) tensors: Option<Vec<TensorJson>>,
    pub(crate) wanted: Vec<RequestedOutput>,
}

/// A tensor of an envelope, perhaps without its elements.
pub(crate) struct TensorJson {
    pub(crate) name: String,
    pub(crate) datatype: Datatype,
    pub(crate) shape: Shape,
    pub(crate) parameters: Parameters,
    pub(crate) elements: Option<Elements>,
}

/// Which side wrote an envelope: `outputs` of a request are names, of an answer tensors.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Request,
    Answer,
}

/// Reads an envelope.
pub(crate) fn read(text: &[u8], side: Side) -> Result<Envelope> {
    match read_strict(text, side) {
        Err(error) if error.is_syntax() => match quote_not_finite(text) {
            Some(quoted) => read_strict(&quoted, side).map_err(refused),
            None => Err(refused(error)),
        },
        read => read.map_err(refused),
    }
}

fn refused(error: serde_json::Error) -> Error {
    Error::invalid(format!("failed to parse the request JSON buffer: {error}"))
}

fn read_strict(text: &[u8], side: Side) -> serde_json::Result<Envelope> {
    let context = Context { side, datatypes: Vec::new(), late: Cell::new(false) };
    let read = read_with(text, &context);
    if !context.late.get() || read.is_err() {
        return read;
    }
    // Some tensor named its datatype after its elements: look for the datatypes first, then read again.
    let Datatypes { inputs, outputs } = serde_json::from_slice(text)?;
    let tensors = if side == Side::Request { inputs } else { outputs };
    let datatypes = tensors.into_iter().map(|tensor| tensor.datatype).collect();
    read_with(text, &Context { side, datatypes, late: Cell::new(false) })
}

fn read_with(text: &[u8], context: &Context) -> serde_json::Result<Envelope> {
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let envelope = EnvelopeSeed(context).deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(envelope)
}

/// Puts quotes around the bare words for what is not finite; none where there is no such word.
fn quote_not_finite(text: &[u8]) -> Option<Vec<u8>> {
    let mut quoted = Vec::new();
    let (mut copied, mut at, mut in_text) = (0, 0, false);
    while at < text.len() {
        match text[at] {
            b'"' => in_text = !in_text,
            b'\\' if in_text => at += 1,
            b'N' | b'I' | b'-' if !in_text => {
                let words = [&b"NaN"[..], b"Infinity", b"-Infinity", b"-NaN"];
                if let Some(word) = words.into_iter().find(|word| text[at..].starts_with(word)) {
                    quoted.extend_from_slice(&text[copied..at]);
                    quoted.push(b'"');
                    quoted.extend_from_slice(if word == b"-NaN" { b"NaN" } else { word });
                    quoted.push(b'"');
                    at += word.len();
                    copied = at;
                    continue;
                }
            }
            _ => {}
        }
        at += 1;
    }
    if copied == 0 {
        return None;
    }
    quoted.extend_from_slice(&text[copied..]);
    Some(quoted)
}

struct Context {
    side: Side,
    /// By place, where they had to be looked for.
    datatypes: Vec<Option<Datatype>>,
    /// Whether elements were skipped because their datatype was not known yet.
    late: Cell<bool>,
}

/// Only the datatypes of an envelope.
#[derive(Deserialize)]
struct Datatypes {
    #[serde(default)]
    inputs: Vec<OneDatatype>,
    #[serde(default)]
    outputs: Vec<OneDatatype>,
}

#[derive(Deserialize)]
struct OneDatatype {
    #[serde(default)]
    datatype: Option<Datatype>,
}

impl<'de> Deserialize<'de> for Datatype {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Datatype, D::Error> {
        struct Name;
        impl Visitor<'_> for Name {
            type Value = Datatype;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of a datatype")
            }
            fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<Datatype, E> {
                Datatype::parse(name).map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Name)
    }
}

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum EnvelopeKey {
    Id,
    ModelName,
    ModelVersion,
    Parameters,
    Inputs,
    Outputs,
    #[serde(other)]
    Other,
}

struct EnvelopeSeed<'c>(&'c Context);

impl<'de> DeserializeSeed<'de> for EnvelopeSeed<'_> {
    type Value = Envelope;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Envelope, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for EnvelopeSeed<'_> {
    type Value = Envelope;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Envelope, A::Error> {
        let mut envelope = Envelope::default();
        while let Some(key) = map.next_key()? {
            let tensors_here = matches!(
                (self.0.side, &key),
                (Side::Request, EnvelopeKey::Inputs) | (Side::Answer, EnvelopeKey::Outputs)
            );
            match key {
                _ if tensors_here && envelope.tensors.is_some() => {
                    return Err(A::Error::custom("two lists of tensors"));
                }
                _ if tensors_here => envelope.tensors = Some(map.next_value_seed(TensorsSeed(self.0))?),
                EnvelopeKey::Id => envelope.id = map.next_value()?,
                EnvelopeKey::ModelName => envelope.model = map.next_value()?,
                EnvelopeKey::ModelVersion => envelope.version = map.next_value()?,
                EnvelopeKey::Parameters => envelope.parameters = map.next_value()?,
                EnvelopeKey::Outputs => envelope.wanted = map.next_value::<Wanted>()?.0,
                EnvelopeKey::Inputs | EnvelopeKey::Other => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(envelope)
    }
}

struct TensorsSeed<'c>(&'c Context);

impl<'de> DeserializeSeed<'de> for TensorsSeed<'_> {
    type Value = Vec<TensorJson>;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for TensorsSeed<'_> {
    type Value = Vec<TensorJson>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of tensors")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut tensors = Vec::new();
        while let Some(tensor) = list.next_element_seed(TensorSeed(self.0, tensors.len()))? {
            tensors.push(tensor);
            at_most("tensors", tensors.len(), limits::TENSORS_MAX)?;
        }
        Ok(tensors)
    }
}

/// Refuses what is more than the most.
pub(crate) fn at_most<E: serde::de::Error>(what: &str, count: usize, max: usize) -> Result<(), E> {
    if count <= max { Ok(()) } else { Err(E::custom(format!("more than {max} {what}"))) }
}

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum TensorKey {
    Name,
    Shape,
    Datatype,
    Parameters,
    Data,
    #[serde(other)]
    Other,
}

/// One tensor, at a place of its list.
struct TensorSeed<'c>(&'c Context, usize);

impl<'de> DeserializeSeed<'de> for TensorSeed<'_> {
    type Value = TensorJson;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<TensorJson, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for TensorSeed<'_> {
    type Value = TensorJson;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a tensor with `name`, `shape`, `datatype` and `data`")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<TensorJson, A::Error> {
        let (mut name, mut shape, mut parameters, mut elements) = (None::<String>, None, Parameters::default(), None);
        let mut datatype = self.0.datatypes.get(self.1).copied().flatten();
        while let Some(key) = map.next_key()? {
            match key {
                TensorKey::Name => name = Some(map.next_value()?),
                TensorKey::Shape => shape = Some(map.next_value::<Extents>()?.0),
                TensorKey::Datatype => datatype = Some(map.next_value()?),
                TensorKey::Parameters => parameters = map.next_value()?,
                TensorKey::Data => match datatype {
                    Some(datatype) => {
                        let expected = shape.as_ref().map_or(0, expected_count);
                        elements = Some(map.next_value_seed(ElementsSeed { datatype, expected })?);
                    }
                    None => {
                        self.0.late.set(true);
                        map.next_value::<IgnoredAny>()?;
                    }
                },
                TensorKey::Other => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        let name = name.ok_or_else(|| A::Error::missing_field("name"))?;
        let missing = |field: &str| A::Error::custom(format!("tensor '{name}' has no `{field}`"));
        let shape = shape.ok_or_else(|| missing("shape"))?;
        let datatype = datatype.ok_or_else(|| missing("datatype"))?;
        Ok(TensorJson { name, datatype, shape, parameters, elements })
    }
}

/// How many elements a shape wants, as a hint.
fn expected_count(shape: &Shape) -> usize {
    shape.iter().fold(1_usize, |count, extent| count.saturating_mul(usize::try_from(*extent).unwrap_or(usize::MAX)))
}

/// A shape as it is written: whole numbers, none negative.
struct Extents(Shape);

impl<'de> Deserialize<'de> for Extents {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Extents, D::Error> {
        struct List;
        impl<'de> Visitor<'de> for List {
            type Value = Extents;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a shape: a list of whole numbers, none of them negative")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Extents, A::Error> {
                let mut shape = Shape::new();
                while let Some(extent) = list.next_element::<u64>()? {
                    shape.push(extent);
                    at_most("dimensions", shape.len(), limits::DIMENSIONS_MAX)?;
                }
                Ok(Extents(shape))
            }
        }
        deserializer.deserialize_seq(List)
    }
}

/// Parameters in the order they were written.
#[derive(Default)]
pub(crate) struct Parameters(pub(crate) Vec<(String, Parameter)>);

impl Parameters {
    /// Takes out the parameter of that name.
    pub(crate) fn take(&mut self, name: &str) -> Option<Parameter> {
        let place = self.0.iter().position(|(held, _)| held == name)?;
        Some(self.0.remove(place).1)
    }
}

impl<'de> Deserialize<'de> for Parameters {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Parameters, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = Parameters;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of parameters")
            }
            fn visit_unit<E: serde::de::Error>(self) -> Result<Parameters, E> {
                Ok(Parameters::default())
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Parameters, A::Error> {
                let mut pairs = Vec::new();
                while let Some((name, parameter)) = map.next_entry::<String, Option<Parameter>>()? {
                    pairs.extend(parameter.map(|parameter| (name, parameter)));
                    at_most("parameters", pairs.len(), limits::PARAMETERS_MAX)?;
                }
                Ok(Parameters(pairs))
            }
        }
        deserializer.deserialize_any(Pairs)
    }
}

impl<'de> Deserialize<'de> for Parameter {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Parameter, D::Error> {
        struct One;
        impl Visitor<'_> for One {
            type Value = Parameter;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a parameter: true or false, a number or a text")
            }
            fn visit_bool<E>(self, value: bool) -> Result<Parameter, E> {
                Ok(Parameter::Bool(value))
            }
            fn visit_i64<E>(self, value: i64) -> Result<Parameter, E> {
                Ok(Parameter::Int64(value))
            }
            fn visit_u64<E>(self, value: u64) -> Result<Parameter, E> {
                Ok(i64::try_from(value).map_or(Parameter::Uint64(value), Parameter::Int64))
            }
            fn visit_f64<E>(self, value: f64) -> Result<Parameter, E> {
                Ok(Parameter::Double(value))
            }
            fn visit_str<E>(self, value: &str) -> Result<Parameter, E> {
                Ok(Parameter::String(value.to_owned()))
            }
        }
        deserializer.deserialize_any(One)
    }
}

impl Serialize for Parameter {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Parameter::Bool(value) => serializer.serialize_bool(*value),
            Parameter::Int64(value) => serializer.serialize_i64(*value),
            Parameter::Uint64(value) => serializer.serialize_u64(*value),
            Parameter::Double(value) if value.is_finite() => serializer.serialize_f64(*value),
            Parameter::Double(value) => serializer.serialize_str(not_finite(*value)),
            Parameter::String(value) => serializer.serialize_str(value),
        }
    }
}

/// The outputs that a request wants.
struct Wanted(Vec<RequestedOutput>);

impl<'de> Deserialize<'de> for Wanted {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Wanted, D::Error> {
        #[derive(Deserialize)]
        struct One {
            name: String,
            #[serde(default)]
            parameters: Parameters,
        }
        struct List;
        impl<'de> Visitor<'de> for List {
            type Value = Wanted;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of outputs")
            }
            fn visit_unit<E: serde::de::Error>(self) -> Result<Wanted, E> {
                Ok(Wanted(Vec::new()))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Wanted, A::Error> {
                let mut wanted = Vec::new();
                while let Some(One { name, parameters }) = list.next_element()? {
                    wanted.push(RequestedOutput { name, parameters: parameters.0 });
                    at_most("outputs", wanted.len(), limits::TENSORS_MAX)?;
                }
                Ok(Wanted(wanted))
            }
        }
        deserializer.deserialize_any(List)
    }
}

/// Elements in their binary form, as they were found in JSON.
pub(crate) struct Elements {
    pub(crate) data: Vec<u8>,
    pub(crate) count: usize,
}

/// Reads elements of a known datatype, nested or flat.
pub(crate) struct ElementsSeed {
    pub(crate) datatype: Datatype,
    /// How many there should be: a hint that is trusted only for a little memory.
    pub(crate) expected: usize,
}

impl<'de> DeserializeSeed<'de> for ElementsSeed {
    type Value = Elements;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Elements, D::Error> {
        if !self.datatype.has_json_form() {
            return Err(D::Error::custom(format!(
                "receiving {} data via JSON is not supported. Please use the binary data format",
                self.datatype.name()
            )));
        }
        let data =
            Vec::with_capacity(self.expected.min(limits::COMPRESS_BYTES_MIN) * self.datatype.width().unwrap_or(8));
        let (datatype, lengths) = (self.datatype, SmallVec::new());
        let mut sink = Sink { datatype, data, count: 0, lengths, depth: None, ragged: false };
        Place { sink: &mut sink, depth: 0 }.deserialize(deserializer)?;
        if sink.ragged {
            return Err(D::Error::custom(
                "Shape does not match true shape of 'data' field: its lists differ in length",
            ));
        }
        Ok(Elements { data: sink.data, count: sink.count })
    }
}

struct Sink {
    datatype: Datatype,
    data: Vec<u8>,
    count: usize,
    /// How long lists are, by depth.
    lengths: SmallVec<[Option<usize>; 4]>,
    /// How deep elements lie.
    depth: Option<usize>,
    ragged: bool,
}

impl Sink {
    fn element(&mut self, depth: usize) {
        self.count += 1;
        self.ragged |= *self.depth.get_or_insert(depth) != depth;
    }

    fn list(&mut self, depth: usize, length: usize) {
        if self.lengths.len() <= depth {
            self.lengths.resize(depth + 1, None);
        }
        self.ragged |= *self.lengths[depth].get_or_insert(length) != length;
    }

    fn put_whole<E: serde::de::Error, N: TryInto<i128> + fmt::Display + Copy>(&mut self, number: N) -> Result<(), E> {
        let whole: i128 = number.try_into().map_err(|_| E::custom("a number beyond 128 bits"))?;
        macro_rules! put {
            ($type:ty) => {
                <$type>::try_from(whole).map(|fits| self.data.extend_from_slice(&fits.to_le_bytes())).is_ok()
            };
        }
        let fits = match self.datatype {
            Datatype::Int64 => put!(i64),
            Datatype::Int32 => put!(i32),
            Datatype::Int16 => put!(i16),
            Datatype::Int8 => put!(i8),
            Datatype::Uint64 => put!(u64),
            Datatype::Uint32 => put!(u32),
            Datatype::Uint16 => put!(u16),
            Datatype::Uint8 => put!(u8),
            Datatype::Fp32 | Datatype::Fp64 => return self.put_float(whole as f64),
            _ => return Err(self.unfit(number)),
        };
        if fits { Ok(()) } else { Err(self.unfit(number)) }
    }

    fn put_float<E: serde::de::Error>(&mut self, number: f64) -> Result<(), E> {
        match self.datatype {
            Datatype::Fp32 => {
                let single = number as f32;
                if single.is_infinite() && number.is_finite() {
                    return Err(self.unfit(number));
                }
                self.data.extend_from_slice(&single.to_le_bytes());
            }
            Datatype::Fp64 => self.data.extend_from_slice(&number.to_le_bytes()),
            _ => return Err(self.unfit(number)),
        }
        Ok(())
    }

    fn unfit<E: serde::de::Error>(&self, element: impl fmt::Display) -> E {
        E::custom(format!("Unable to parse 'data': {element} is no element of {}", self.datatype.name()))
    }
}

/// Where an element or a list stands.
struct Place<'s> {
    sink: &'s mut Sink,
    depth: usize,
}

impl<'de> DeserializeSeed<'de> for Place<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Place<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "elements of {} or lists of them", self.sink.datatype.name())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        at_most("levels of lists", self.depth + 1, limits::DIMENSIONS_MAX)?;
        let mut length = 0;
        while list.next_element_seed(Place { sink: &mut *self.sink, depth: self.depth + 1 })?.is_some() {
            length += 1;
        }
        self.sink.list(self.depth, length);
        Ok(())
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<(), E> {
        if self.sink.datatype != Datatype::Bool {
            return Err(self.sink.unfit(value));
        }
        self.sink.element(self.depth);
        self.sink.data.push(u8::from(value));
        Ok(())
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<(), E> {
        self.sink.element(self.depth);
        self.sink.put_whole(value)
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<(), E> {
        self.sink.element(self.depth);
        self.sink.put_whole(value)
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<(), E> {
        self.sink.element(self.depth);
        self.sink.put_float(value)
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<(), E> {
        self.sink.element(self.depth);
        match (self.sink.datatype, value) {
            (Datatype::Bytes, _) => put_element(&mut self.sink.data, value.as_bytes()).map_err(E::custom),
            (Datatype::Fp32 | Datatype::Fp64, "NaN") => self.sink.put_float(f64::NAN),
            (Datatype::Fp32 | Datatype::Fp64, "Infinity") => self.sink.put_float(f64::INFINITY),
            (Datatype::Fp32 | Datatype::Fp64, "-Infinity") => self.sink.put_float(f64::NEG_INFINITY),
            _ => Err(self.sink.unfit("a text")),
        }
    }
}

/// Writes a value's JSON form behind what is there.
pub(crate) fn put(out: &mut Vec<u8>, value: &(impl Serialize + ?Sized)) {
    serde_json::to_writer(out, value).expect("plain values have a JSON form and memory can be written to");
}

/// Writes `"name":value` and a comma behind what is there.
pub(crate) fn put_member(out: &mut Vec<u8>, name: &str, value: &(impl Serialize + ?Sized)) {
    put(out, name);
    out.push(b':');
    put(out, value);
    out.push(b',');
}

/// Writes an object of parameters.
pub(crate) fn put_parameters<'a>(out: &mut Vec<u8>, parameters: impl Iterator<Item = (&'a str, &'a Parameter)>) {
    out.push(b'{');
    parameters.for_each(|(name, parameter)| put_member(out, name, parameter));
    close(out, b'}');
}

/// Ends a list or an object: its last comma becomes the bracket.
pub(crate) fn close(out: &mut Vec<u8>, bracket: u8) {
    if out.last() == Some(&b',') {
        out.pop();
    }
    out.push(bracket);
}

/// Writes the elements of a tensor, flat, between `[` and `]`. `invalid` where they have no JSON form.
pub(crate) fn put_elements(out: &mut Vec<u8>, tensor: &Tensor) -> Result<()> {
    out.push(b'[');
    put_each(out, tensor)?;
    close(out, b']');
    Ok(())
}

/// Writes the elements of a tensor, each with a comma behind it.
pub(crate) fn put_each(out: &mut Vec<u8>, tensor: &Tensor) -> Result<()> {
    tensor.check()?;
    let data = &tensor.data[..];
    macro_rules! whole {
        ($type:ty) => {
            each(data, <$type>::from_le_bytes).into_iter().for_each(|number| {
                put(out, &number);
                out.push(b',');
            })
        };
    }
    match tensor.datatype {
        Datatype::Bool => {
            data.iter().for_each(|byte| out.extend_from_slice(if *byte == 0 { b"false," } else { b"true," }))
        }
        Datatype::Uint8 => whole!(u8),
        Datatype::Uint16 => whole!(u16),
        Datatype::Uint32 => whole!(u32),
        Datatype::Uint64 => whole!(u64),
        Datatype::Int8 => whole!(i8),
        Datatype::Int16 => whole!(i16),
        Datatype::Int32 => whole!(i32),
        Datatype::Int64 => whole!(i64),
        Datatype::Fp32 => each(data, f32::from_le_bytes).into_iter().for_each(|number| {
            if number.is_finite() {
                put(out, &number)
            } else {
                put(out, not_finite(number.into()))
            }
            out.push(b',');
        }),
        Datatype::Fp64 => each(data, f64::from_le_bytes).into_iter().for_each(|number| {
            if number.is_finite() {
                put(out, &number)
            } else {
                put(out, not_finite(number))
            }
            out.push(b',');
        }),
        Datatype::Bytes => {
            for element in tensor.frames() {
                let text = std::str::from_utf8(element).map_err(|_| {
                    Error::invalid(format!(
                        "output '{}' holds bytes that are no UTF-8 text. Please use the binary data format for it",
                        tensor.name
                    ))
                })?;
                put(out, text);
                out.push(b',');
            }
        }
        Datatype::Fp16 | Datatype::Bf16 => {
            return Err(Error::invalid(format!(
                "sending {} data via JSON is not supported. Please use the binary data format for output '{}'",
                tensor.datatype.name(),
                tensor.name
            )));
        }
    }
    Ok(())
}

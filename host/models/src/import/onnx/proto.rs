//! The messages of ONNX that models of ours use.
//!
//! Owns [`Model`], [`Node`], [`Attribute`] and constants, as far as importers read them (onnx.proto, IR versions 3 to 13).
//! Separate from their meaning. Texts and bytes are borrowed from the file; lists of numbers are read when they are asked for.
//!
//! Bounded by: [`Limits::operations`] nodes; each message is as large as its bytes. On failure: `invalid` names the message.

use mainstay_base::{Error, Result};

use super::wire::{Field, Fields};
use crate::import::limits::Limits;
use crate::pipeline::{Kind, Tensor};

/// Attributes that one node may have: TreeEnsemble's twenty and room.
const ATTRIBUTES_MAX: usize = 64;
/// Inputs or outputs that one node, or the graph, may have.
const NAMES_MAX: usize = 4_096;

/// A file.
#[derive(Default)]
pub(super) struct Model<'a> {
    pub producer: &'a str,
    /// Version of the operations of domain `ai.onnx`.
    pub opset: i64,
    pub nodes: Vec<Node<'a>>,
    pub constants: Vec<(&'a str, &'a [u8])>,
    pub inputs: Vec<Port<'a>>,
    pub outputs: Vec<Port<'a>>,
}

/// An operation.
#[derive(Default)]
pub(super) struct Node<'a> {
    pub name: &'a str,
    pub operation: &'a str,
    pub domain: &'a str,
    pub inputs: Vec<&'a str>,
    pub outputs: Vec<&'a str>,
    attributes: Vec<Attribute<'a>>,
}

/// A graph's input or output.
#[derive(Default)]
pub(super) struct Port<'a> {
    pub name: &'a str,
    /// ONNX's number of the element type; 0 when it is no tensor.
    pub element: i64,
    /// Sizes; none where they are open.
    pub shape: Vec<Option<i64>>,
}

struct Attribute<'a> {
    name: &'a str,
    body: &'a [u8],
}

/// The next of bounded many.
fn push<T>(list: &mut Vec<T>, item: T, what: &str, most: usize) -> Result<()> {
    Limits::check(what, list.len() + 1, most)?;
    list.push(item);
    Ok(())
}

impl<'a> Model<'a> {
    pub fn read(bytes: &'a [u8], limits: &Limits) -> Result<Model<'a>> {
        let mut model = Model::default();
        let mut has_graph = false;
        for field in Fields::new(bytes) {
            match field? {
                (2, field) => model.producer = field.text()?,
                (7, field) => {
                    has_graph = true;
                    model.read_graph(field.bytes()?, limits).map_err(|error| error.context("graph"))?;
                }
                (8, field) => model.read_opset(field.bytes()?)?,
                _ => {}
            }
        }
        if !has_graph {
            return Err(Error::invalid("the file has no graph; is this ONNX?"));
        }
        Ok(model)
    }

    fn read_opset(&mut self, bytes: &'a [u8]) -> Result<()> {
        let (mut domain, mut version) = ("", 0);
        for field in Fields::new(bytes) {
            match field? {
                (1, field) => domain = field.text()?,
                (2, field) => version = field.integer()?,
                _ => {}
            }
        }
        if domain.is_empty() || domain == "ai.onnx" {
            self.opset = version;
        }
        Ok(())
    }

    fn read_graph(&mut self, bytes: &'a [u8], limits: &Limits) -> Result<()> {
        for field in Fields::new(bytes) {
            match field? {
                (1, field) => push(&mut self.nodes, Node::read(field.bytes()?)?, "operations", limits.operations)?,
                (5, field) => {
                    let bytes = field.bytes()?;
                    push(&mut self.constants, (tensor_name(bytes)?, bytes), "constants", limits.operations * 8)?;
                }
                (11, field) => push(&mut self.inputs, Port::read(field.bytes()?)?, "inputs", NAMES_MAX)?,
                (12, field) => push(&mut self.outputs, Port::read(field.bytes()?)?, "outputs", NAMES_MAX)?,
                (15, _) => return Err(Error::invalid("sparse constants are not supported")),
                _ => {}
            }
        }
        Ok(())
    }
}

impl<'a> Node<'a> {
    fn read(bytes: &'a [u8]) -> Result<Node<'a>> {
        let mut node = Node::default();
        for field in Fields::new(bytes) {
            match field? {
                (1, field) => push(&mut node.inputs, field.text()?, "inputs of a node", NAMES_MAX)?,
                (2, field) => push(&mut node.outputs, field.text()?, "outputs of a node", NAMES_MAX)?,
                (3, field) => node.name = field.text()?,
                (4, field) => node.operation = field.text()?,
                (5, field) => {
                    let attribute = Attribute::read(field.bytes()?)?;
                    if node.attributes.iter().any(|known| known.name == attribute.name) {
                        return Err(Error::invalid(format!(
                            "the attribute `{}` is there twice",
                            shown(attribute.name)
                        )));
                    }
                    push(&mut node.attributes, attribute, "attributes of a node", ATTRIBUTES_MAX)?;
                }
                (7, field) => node.domain = field.text()?,
                _ => {}
            }
        }
        Ok(node)
    }

    /// The fields of one number in an attribute; nothing when it is not there.
    fn fields(&self, name: &str, number: u64) -> impl Iterator<Item = Result<Field<'a>>> + use<'a> {
        let attribute = self.attributes.iter().find(|attribute| attribute.name == name);
        let fields = Fields::new(attribute.map_or(&[][..], |attribute| attribute.body));
        fields.filter_map(move |field| match field {
            Ok((found, field)) if found == number => Some(Ok(field)),
            Ok(_) => None,
            Err(error) => Some(Err(error)),
        })
    }

    pub fn has(&self, name: &str) -> bool {
        self.attributes.iter().any(|attribute| attribute.name == name)
    }

    pub fn float(&self, name: &str) -> Result<Option<f64>> {
        self.fields(name, 2).last().map(|field| field?.float().map(f64::from)).transpose()
    }

    pub fn integer(&self, name: &str) -> Result<Option<i64>> {
        self.fields(name, 3).last().map(|field| field?.integer()).transpose()
    }

    pub fn text(&self, name: &str) -> Result<Option<&'a str>> {
        self.fields(name, 4).last().map(|field| field?.text()).transpose()
    }

    /// The tensor of this name, if the attribute is there.
    pub fn tensor(&self, name: &str) -> Result<Option<Tensor>> {
        self.fields(name, 5).last().map(|field| tensor(field?.bytes()?)).transpose()
    }

    pub fn floats(&self, name: &str) -> Result<Vec<f64>> {
        let mut values = Vec::new();
        self.fields(name, 7).try_for_each(|field| field?.floats(&mut values))?;
        Ok(values)
    }

    pub fn integers(&self, name: &str) -> Result<Vec<i64>> {
        let mut values = Vec::new();
        self.fields(name, 8).try_for_each(|field| field?.integers(&mut values))?;
        Ok(values)
    }

    pub fn texts(&self, name: &str) -> Result<Vec<&'a str>> {
        self.fields(name, 9).map(|field| field?.text()).collect()
    }

    /// Floats, or the doubles that stand in `<name>_as_tensor` instead; and whether they are doubles.
    pub fn reals(&self, name: &str) -> Result<(Vec<f64>, bool)> {
        match self.tensor(&format!("{name}_as_tensor"))? {
            Some(tensor) => Ok((tensor.values, tensor.kind == Kind::F64)),
            None => Ok((self.floats(name)?, false)),
        }
    }
}

impl<'a> Attribute<'a> {
    fn read(body: &'a [u8]) -> Result<Attribute<'a>> {
        let mut name = "";
        for field in Fields::new(body) {
            if let (1, field) = field? {
                name = field.text()?;
            }
        }
        Ok(Attribute { name, body })
    }
}

impl<'a> Port<'a> {
    fn read(bytes: &'a [u8]) -> Result<Port<'a>> {
        let mut port = Port::default();
        for field in Fields::new(bytes) {
            match field? {
                (1, field) => port.name = field.text()?,
                (2, field) => port.read_type(field.bytes()?)?,
                _ => {}
            }
        }
        Ok(port)
    }

    fn read_type(&mut self, bytes: &'a [u8]) -> Result<()> {
        for field in Fields::new(bytes) {
            // Only tensors; sequences and maps are left as element type 0.
            let (1, field) = field? else { continue };
            for field in Fields::new(field.bytes()?) {
                match field? {
                    (1, field) => self.element = field.integer()?,
                    (2, field) => self.read_shape(field.bytes()?)?,
                    _ => {}
                }
            }
        }
        Ok(())
    }

    fn read_shape(&mut self, bytes: &'a [u8]) -> Result<()> {
        for field in Fields::new(bytes) {
            let (1, field) = field? else { continue };
            let mut size = None;
            for field in Fields::new(field.bytes()?) {
                if let (1, field) = field? {
                    size = Some(field.integer()?);
                }
            }
            push(&mut self.shape, size.filter(|size| *size > 0), "dimensions", 8)?;
        }
        Ok(())
    }
}

fn tensor_name(bytes: &[u8]) -> Result<&str> {
    let mut name = "";
    for field in Fields::new(bytes) {
        if let (8, field) = field? {
            name = field.text()?;
        }
    }
    Ok(name)
}

/// The kind of ONNX's element types.
pub(super) fn kind_of(element: i64) -> Option<Kind> {
    match element {
        1 => Some(Kind::F32),
        11 => Some(Kind::F64),
        2..=7 | 12 | 13 => Some(Kind::Integer),
        8 => Some(Kind::Text),
        9 => Some(Kind::Boolean),
        _ => None,
    }
}

/// A constant with its values; `invalid` when they are not in the file, or not as many as its shape says.
pub(super) fn tensor(bytes: &[u8]) -> Result<Tensor> {
    let name = tensor_name(bytes)?;
    read_tensor(bytes).map_err(|error| error.context(format_args!("the constant `{}`", shown(name))))
}

fn read_tensor(bytes: &[u8]) -> Result<Tensor> {
    let (mut dimensions, mut element, mut raw) = (Vec::new(), 0, None);
    let (mut integers, mut values, mut texts) = (Vec::new(), Vec::new(), Vec::new());
    for field in Fields::new(bytes) {
        match field? {
            (1, field) => field.integers(&mut dimensions)?,
            (2, field) => element = field.integer()?,
            (4, field) => field.floats(&mut values)?,
            (5 | 7 | 11, field) => field.integers(&mut integers)?,
            (6, field) => texts.push(field.text()?.to_owned()),
            (9, field) => raw = Some(field.bytes()?),
            (10, field) => field.doubles(&mut values)?,
            (13 | 14, Field::Varint(0)) => {}
            (13 | 14, _) => return Err(Error::invalid("its values are in another file")),
            _ => {}
        }
    }
    let kind = kind_of(element).ok_or_else(|| Error::invalid(format!("element type {element} is not supported")))?;
    values.extend(integers.into_iter().map(|value| value as f64));
    if let Some(raw) = raw {
        values.extend(raw_values(raw, element)?);
    }
    if kind == Kind::Text {
        values.extend((0..texts.len()).map(|at| at as f64));
    }
    if dimensions.len() > 8 {
        return Err(Error::invalid("it has more than 8 dimensions"));
    }
    let sizes: Option<Vec<usize>> = dimensions.iter().map(|size| usize::try_from(*size).ok()).collect();
    let shape = sizes.ok_or_else(|| Error::invalid("a dimension is negative"))?;
    let count = shape.iter().try_fold(1_usize, |product, size| product.checked_mul(*size));
    if count != Some(values.len()) {
        return Err(Error::invalid(format!("its shape is {shape:?}, but it has {} values", values.len())));
    }
    Ok(Tensor { shape, kind, values, texts: texts.into() })
}

fn raw_values(raw: &[u8], element: i64) -> Result<Vec<f64>> {
    fn each<const N: usize>(raw: &[u8], value: impl Fn([u8; N]) -> f64) -> Result<Vec<f64>> {
        match raw.as_chunks::<N>() {
            (chunks, []) => Ok(chunks.iter().map(|chunk| value(*chunk)).collect()),
            _ => Err(Error::invalid("its bytes are not a whole number of values")),
        }
    }
    match element {
        1 => each(raw, |raw| f64::from(f32::from_le_bytes(raw))),
        2 | 9 => each(raw, |raw: [u8; 1]| f64::from(raw[0])),
        3 => each(raw, |raw: [u8; 1]| f64::from(raw[0] as i8)),
        4 => each(raw, |raw| f64::from(u16::from_le_bytes(raw))),
        5 => each(raw, |raw| f64::from(i16::from_le_bytes(raw))),
        6 => each(raw, |raw| f64::from(i32::from_le_bytes(raw))),
        7 => each(raw, |raw| i64::from_le_bytes(raw) as f64),
        11 => each(raw, f64::from_le_bytes),
        12 => each(raw, |raw| f64::from(u32::from_le_bytes(raw))),
        13 => each(raw, |raw| u64::from_le_bytes(raw) as f64),
        other => Err(Error::invalid(format!("raw values of element type {other}"))),
    }
}

/// The beginning of a foreign text, for messages.
pub(super) fn shown(text: &str) -> String {
    text.chars().take(80).collect()
}

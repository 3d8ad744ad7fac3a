//! Steps out of the ONNX file that skl2onnx writes for a fitted scikit-learn pipeline.
//!
//! Owns [`Steps::from_onnx`]: what each operation of such a graph does to columns. Separate from the steps, and behind the
//! feature `onnx`, because only plugins that take such files need it. Bounded by: [`ONNX_BYTES_MAX`], [`NODES_MAX`],
//! [`COLUMNS_MAX`] columns of one value, and the work that [`Chains`] allows. On failure: `invalid` names the operation, the
//! node and what to do.

mod chains;
mod proto;

use self::chains::{Chains, Id, Op};
use self::proto::{Kind, Node, Port, Tensor, kind_of};
use super::{Affine, Categories, Steps};
use crate::{Error, Result};
use std::collections::HashMap;
use std::fmt;
use std::rc::Rc;

/// Size of a file.
pub const ONNX_BYTES_MAX: usize = 1 << 20;
/// Operations that a graph may have.
const NODES_MAX: usize = 10_000;
/// Constants that a graph may have.
const CONSTANTS_MAX: usize = 4 * NODES_MAX;
/// Columns that one value of the graph may have.
const COLUMNS_MAX: usize = 8_192;
/// Length of a name, in bytes.
const NAME_BYTES_MAX: usize = 1_000;

impl Steps {
    /// Steps that prepare as a fitted scikit-learn pipeline does, out of the ONNX file that skl2onnx writes for it.
    ///
    /// Understood is what `ColumnTransformer` and `Pipeline` make of `SimpleImputer`, `StandardScaler`, `MinMaxScaler`,
    /// `RobustScaler`, `MaxAbsScaler`, `OneHotEncoder`, `OrdinalEncoder`, `KBinsDiscretizer`, `Binarizer`, `passthrough` and
    /// `drop`. Another operation is `invalid`, and its name is said: such a file can run as a model of the graph instead.
    ///
    /// Columns of the frame are found by the names of the file's inputs: `NAME` for one of `[None, 1]`, and `NAME[0]`,
    /// `NAME[1]`, … for the places of one of `[None, k]`. Others are left out. The table that comes out has the columns of
    /// the graph's output, in that order, named as the columns that they come from, or `COLUMN=CATEGORY`; the second of one
    /// name is `NAME#2`.
    ///
    /// The file decides where it differs from the pipeline: its numbers have 32 bits unless the inputs were
    /// `DoubleTensorType`, and a category that `OneHotEncoder(handle_unknown="error")` would refuse has all zeros. Missing
    /// text is what `SimpleImputer(missing_values="")` fills in, and the category `nan` where the pipeline has learnt that.
    pub fn from_onnx(file: &[u8]) -> Result<Steps> {
        read(file).map_err(|error| error.context("the ONNX file"))
    }
}

fn read(file: &[u8]) -> Result<Steps> {
    at_most("bytes", file.len(), ONNX_BYTES_MAX)?;
    let model: proto::Model = proto::message(file, "it")?;
    let graph = model.graph.ok_or_else(|| Error::invalid("it has no graph; is this ONNX?"))?;
    at_most("nodes", graph.nodes.len(), NODES_MAX)?;
    at_most("constants", graph.constants.len(), CONSTANTS_MAX)?;
    if !graph.sparse_constants.is_empty() {
        return Err(Error::invalid("it has sparse constants, which are not read"));
    }
    let mut reader = Reader::default();
    for bytes in &graph.constants {
        let (name, tensor) = proto::tensor(bytes)?;
        reader.define(&name, Value::Constant(Rc::new(tensor)))?;
    }
    for bytes in &graph.inputs {
        reader.input(&proto::message(bytes, "an input")?)?;
    }
    for bytes in &graph.nodes {
        reader.node(&proto::message(bytes, "a node")?)?;
    }
    let mut outputs = Vec::new();
    for bytes in &graph.outputs {
        let port: Port = proto::message(bytes, "an output")?;
        match reader.value(&port.name)? {
            Value::Columns { ids, .. } => outputs.extend_from_slice(ids),
            _ => return Err(Error::invalid(format!("its output `{}` is no table of columns", shown(&port.name)))),
        }
        at_most("columns", outputs.len(), COLUMNS_MAX)?;
    }
    if outputs.is_empty() {
        return Err(Error::invalid("it has no output"));
    }
    let steps = reader.chains.steps(&outputs)?;
    steps.check()?;
    Ok(steps)
}

fn at_most(what: &str, count: usize, most: usize) -> Result<()> {
    match count <= most {
        true => Ok(()),
        false => Err(Error::invalid(format!("{count} {what}; the most is {most}"))),
    }
}

/// The beginning of a foreign text, for messages.
fn shown(text: &str) -> String {
    text.chars().take(80).collect()
}

/// An error for what a sound file may have and steps cannot do.
fn unlike(what: impl fmt::Display) -> Error {
    Error::invalid(format!("{what} cannot be made into steps; run such a file as a model of the graph instead"))
}

/// What a name of the graph stands for.
#[derive(Clone)]
enum Value {
    Constant(Rc<Tensor>),
    Columns {
        ids: Rc<[Id]>,
        kind: Kind,
        /// Whether it has a dimension between rows and columns, as what one-hot encoding gives.
        deep: bool,
    },
    /// For each of these edges, which do not descend, whether a column is below it; then a 1, if so.
    Below {
        of: Id,
        kind: Kind,
        edges: Rc<[f64]>,
        then_one: bool,
    },
}

/// A graph while it is read.
#[derive(Default)]
struct Reader {
    chains: Chains,
    values: HashMap<String, Value>,
}

impl Reader {
    fn define(&mut self, name: &str, value: Value) -> Result<()> {
        at_most("bytes of a name", name.len(), NAME_BYTES_MAX)?;
        if let Value::Columns { ids, .. } = &value {
            at_most("columns", ids.len(), COLUMNS_MAX)?;
            self.chains.spend(16 * ids.len())?;
        }
        match self.values.insert(name.to_owned(), value) {
            None => Ok(()),
            Some(_) => Err(Error::invalid(format!("the value `{}` is made twice", shown(name)))),
        }
    }

    fn value(&self, name: &str) -> Result<&Value> {
        let value = self.values.get(name);
        value.ok_or_else(|| Error::invalid(format!("no earlier node makes the value `{}`", shown(name))))
    }

    fn input(&mut self, port: &Port) -> Result<()> {
        if matches!(self.values.get(&port.name), Some(Value::Constant(_))) {
            // Old files list constants as inputs, too.
            return Ok(());
        }
        let (Some(kind), Some(width)) = (port.kind(), port.width()) else {
            let name = shown(&port.name);
            return Err(unlike(format!("the input `{name}`, which is not rows of a known width of numbers or text,")));
        };
        at_most("columns", width, COLUMNS_MAX)?;
        at_most("bytes of a name", port.name.len(), NAME_BYTES_MAX)?;
        let name = |at: usize| if width == 1 { port.name.clone() } else { format!("{}[{at}]", port.name) };
        let ids = (0..width).map(|at| self.chains.input(&name(at))).collect::<Result<_>>()?;
        self.define(&port.name, Value::Columns { ids, kind, deep: false })
    }

    fn node(&mut self, node: &Node) -> Result<()> {
        let made = self.result(node).and_then(|value| {
            let value = value.ok_or_else(|| unlike("it"))?;
            let [output] = node.outputs.as_slice() else { return Err(unlike("an operation with several answers")) };
            self.define(output, value)
        });
        made.map_err(|error| {
            let (operation, name) = (shown(&node.operation), shown(&node.name));
            error.context(format_args!("the operation `{operation}` of node `{name}`"))
        })
    }

    /// What a node makes; none for an operation that is not ours.
    fn result(&mut self, node: &Node) -> Result<Option<Value>> {
        let value = match (node.domain.as_str(), node.operation.as_str()) {
            ("ai.onnx.ml", "Imputer") => self.imputer(node),
            ("ai.onnx.ml", "Scaler") => self.scaler(node),
            ("ai.onnx.ml", "Binarizer") => self.binarizer(node),
            ("ai.onnx.ml", "OneHotEncoder") => self.one_hot_encoder(node),
            ("ai.onnx.ml", "LabelEncoder") => self.label_encoder(node),
            ("ai.onnx.ml", "ArrayFeatureExtractor") => self.places(node, -1),
            ("" | "ai.onnx", operation) => match operation {
                "Identity" => self.argument(node, 0).cloned(),
                "Constant" => self.constant(node),
                "Cast" => self.cast(node),
                "Concat" => self.concat(node),
                "Gather" => self.places(node, node.integer("axis")?.unwrap_or(0)),
                "Reshape" => self.reshape(node),
                "Add" | "Sub" | "Mul" | "Div" => self.arithmetic(node),
                "Clip" => self.clip(node),
                "Less" => self.less(node),
                "ArgMax" => self.arg_max(node),
                "Where" => self.choice(node),
                _ => return Ok(None),
            },
            _ => return Ok(None),
        };
        value.map(Some)
    }

    // ---- arguments ----

    fn argument(&self, node: &Node, at: usize) -> Result<&Value> {
        let name = node.inputs.get(at).ok_or_else(|| Error::invalid(format!("it has no input {}", at + 1)))?;
        self.value(name)
    }

    /// Columns of a table of rows.
    fn columns(&self, node: &Node, at: usize) -> Result<(Rc<[Id]>, Kind)> {
        match self.argument(node, at)? {
            Value::Columns { ids, kind, deep: false } => Ok((ids.clone(), *kind)),
            Value::Columns { deep: true, .. } => Err(unlike("what reads one-hot columns that were not reshaped")),
            _ => Err(unlike("what does not read columns there")),
        }
    }

    fn one_column(&self, node: &Node, at: usize) -> Result<(Id, Kind)> {
        match self.columns(node, at)? {
            (ids, kind) if ids.len() == 1 => Ok((ids[0], kind)),
            (ids, _) => Err(unlike(format!("what reads {} columns where one is expected", ids.len()))),
        }
    }

    fn real_columns(&self, node: &Node, at: usize) -> Result<(Rc<[Id]>, Kind)> {
        match self.columns(node, at)? {
            (ids, kind @ (Kind::Real32 | Kind::Real64)) => Ok((ids, kind)),
            _ => Err(unlike("what computes with other than reals")),
        }
    }

    fn constant_argument(&self, node: &Node, at: usize) -> Result<Rc<Tensor>> {
        match self.argument(node, at)? {
            Value::Constant(tensor) => Ok(tensor.clone()),
            _ => Err(unlike("a parameter that is computed")),
        }
    }

    /// A number of a parameter that may be left out.
    fn number(&self, node: &Node, at: usize) -> Result<Option<f64>> {
        if node.inputs.get(at).is_none_or(String::is_empty) {
            return Ok(None);
        }
        match self.constant_argument(node, at)?.numbers.as_slice() {
            [only] => Ok(Some(*only)),
            _ => Err(unlike("a list where one number is expected")),
        }
    }

    /// A new column of each, by its place.
    fn each(&mut self, ids: &[Id], kind: Kind, mut op: impl FnMut(usize) -> Result<Op>) -> Result<Value> {
        let made = ids.iter().enumerate().map(|(at, id)| self.chains.add(*id, op(at)?)).collect::<Result<_>>()?;
        Ok(Value::Columns { ids: made, kind, deep: false })
    }

    // ---- numbers ----

    fn imputer(&mut self, node: &Node) -> Result<Value> {
        let (ids, kind) = self.real_columns(node, 0)?;
        if !node.float("replaced_value_float")?.is_some_and(f64::is_nan) {
            return Err(unlike("filling in for a value that is not NaN"));
        }
        let fills = Spread::new(node.floats("imputed_value_floats")?, ids.len(), None)?;
        // Each first and then each, so that columns share steps.
        let hold =
            |(at, id): (usize, &Id)| self.chains.holding(*id, if fills.at(at).is_nan() { 0.0 } else { fills.at(at) });
        let ids = ids.iter().enumerate().map(hold).collect::<Result<Vec<_>>>()?;
        let fill = |(at, id): (usize, &Id)| match fills.at(at) {
            nan if nan.is_nan() => Ok(*id),
            value => self.chains.add(*id, Op::Fill(value)),
        };
        let ids = ids.iter().enumerate().map(fill).collect::<Result<_>>()?;
        Ok(Value::Columns { ids, kind, deep: false })
    }

    fn scaler(&mut self, node: &Node) -> Result<Value> {
        let (ids, _) = self.columns(node, 0)?;
        let (offsets, scales) = (node.floats("offset")?, node.floats("scale")?);
        let offsets = Spread::new(offsets, ids.len(), Some(0.0))?;
        let scales = Spread::new(scales, ids.len(), Some(1.0))?;
        self.each(&ids, Kind::Real32, |at| affine(offsets.at(at), scales.at(at)))
    }

    fn arithmetic(&mut self, node: &Node) -> Result<Value> {
        let is_first = !matches!(self.argument(node, 0)?, Value::Constant(_));
        let (ids, kind) = self.real_columns(node, usize::from(!is_first))?;
        let constant = self.constant_argument(node, usize::from(is_first))?;
        let by = Spread::of(&constant, ids.len())?;
        self.each(&ids, kind, |at| match (node.operation.as_str(), by.at(at)) {
            ("Add", by) => affine(-by, 1.0),
            ("Mul", by) => affine(0.0, by),
            ("Sub", by) => affine(by, if is_first { 1.0 } else { -1.0 }),
            ("Div", by) if is_first => affine(0.0, 1.0 / by),
            _ => Err(unlike("division by a column")),
        })
    }

    fn clip(&mut self, node: &Node) -> Result<Value> {
        let (ids, kind) = self.real_columns(node, 0)?;
        let bound = |at, name| Ok::<_, Error>(self.number(node, at)?.or(node.float(name)?));
        let low = bound(1, "min")?.unwrap_or(f64::NEG_INFINITY);
        let high = bound(2, "max")?.unwrap_or(f64::INFINITY);
        if low.is_nan() || high.is_nan() || low > high {
            return Err(Error::invalid(format!("its bounds are {low:?} and {high:?}")));
        }
        let bounds = [low, high].map(|bound| if bound.is_finite() { bound } else { 0.0 });
        let hold = |id: &Id| {
            let id = self.chains.holding(*id, bounds[0])?;
            self.chains.holding(id, bounds[1])
        };
        let ids = ids.iter().map(hold).collect::<Result<Vec<_>>>()?;
        self.each(&ids, kind, |_| Ok(Op::Clip(low, high)))
    }

    /// 1 above the threshold, else 0, also for what is missing.
    fn binarizer(&mut self, node: &Node) -> Result<Value> {
        let (ids, kind) = self.real_columns(node, 0)?;
        let threshold = node.float("threshold")?.unwrap_or(0.0);
        if !threshold.is_finite() {
            return Err(Error::invalid(format!("its threshold is {threshold:?}")));
        }
        let edge = Rounding::of(kind).above(threshold);
        let above = |id: &Id| self.sides(*id, edge, [0.0, 1.0], 0.0);
        let ids = ids.iter().map(above).collect::<Result<_>>()?;
        Ok(Value::Columns { ids, kind, deep: false })
    }

    /// One number below an edge, another from there on.
    fn sides(&mut self, id: Id, edge: f64, values: [f64; 2], otherwise: f64) -> Result<Id> {
        let bucket = self.chains.add(id, Op::Bucket(vec![edge]))?;
        let categories = Categories::Numbers(vec![0.0, 1.0]);
        self.chains.add(bucket, Op::Lookup { categories, values: values.to_vec(), otherwise })
    }

    // ---- bins: the place of the first edge that a number is below ----

    fn less(&mut self, node: &Node) -> Result<Value> {
        let (ids, kind) = self.real_columns(node, 0)?;
        let [of] = ids[..] else { return Err(unlike("comparing several columns")) };
        let edges: Rc<[f64]> = self.constant_argument(node, 1)?.numbers.as_slice().into();
        if edges.is_empty() || edges.iter().any(|edge| edge.is_nan()) || !edges.is_sorted() {
            return Err(unlike("comparing with numbers that do not ascend"));
        }
        self.chains.spend(8 * edges.len())?;
        Ok(Value::Below { of, kind, edges, then_one: false })
    }

    fn arg_max(&mut self, node: &Node) -> Result<Value> {
        let Value::Below { of, kind, edges, then_one: true } = self.argument(node, 0)?.clone() else {
            return Err(unlike("the place of the greatest number, but where it finds bins,"));
        };
        let is_first = node.integer("select_last_index")?.unwrap_or(0) == 0;
        if !is_first || node.integer("axis")? != Some(1) || node.integer("keepdims")?.unwrap_or(1) != 1 {
            return Err(unlike("the place of the greatest number in another form"));
        }
        let rounding = Rounding::of(kind);
        let edges: Vec<f64> = edges.iter().map(|edge| rounding.from(*edge)).collect();
        if edges.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(unlike("bins without width"));
        }
        let id = self.chains.add(of, Op::Bucket(edges))?;
        Ok(Value::Columns { ids: [id].into(), kind: Kind::Integer, deep: false })
    }

    /// Whether a column is 1 for every number: something times 0, plus 1.
    fn is_one(&self, id: Id) -> bool {
        let is = |id: Id, affine: Affine| *self.chains.op(id) == Op::Affine(affine);
        let before = self.chains.from(id);
        is(id, Affine { subtract: -1.0, multiply: 1.0 }) && is(before, Affine { subtract: 0.0, multiply: 0.0 })
    }

    /// One of two constants by a comparison, or a text for one that stands for a missing one.
    fn choice(&mut self, node: &Node) -> Result<Value> {
        if let Value::Below { of, kind, edges, then_one: false } = self.argument(node, 0)?.clone() {
            let (Some(below), Some(from)) = (self.number(node, 1)?, self.number(node, 2)?) else {
                return Err(Error::invalid("it needs three inputs"));
            };
            let [edge] = edges[..] else { return Err(unlike("a choice by several edges")) };
            let id = self.sides(of, Rounding::of(kind).from(edge), [below, from], from)?;
            return Ok(Value::Columns { ids: [id].into(), kind: self.constant_argument(node, 1)?.kind, deep: false });
        }
        let (condition, condition_kind) = self.one_column(node, 0)?;
        let fill = self.constant_argument(node, 1)?;
        let (of, kind) = self.one_column(node, 2)?;
        let (Op::Lookup { categories: Categories::Texts(keys), values, otherwise: 0.0 }, [to]) =
            (self.chains.op(condition), fill.texts.as_slice())
        else {
            return Err(unlike("a choice between columns"));
        };
        if condition_kind != Kind::Boolean || kind != Kind::Text || self.chains.from(condition) != of {
            return Err(unlike("a choice between columns"));
        }
        let is_replaced = |(key, value): (&String, &f64)| (*value != 0.0).then(|| key.clone());
        let from = keys.iter().zip(values).filter_map(is_replaced).collect();
        let id = self.chains.add(of, Op::Replace { from, to: to.clone() })?;
        Ok(Value::Columns { ids: [id].into(), kind, deep: false })
    }

    // ---- categories ----

    fn one_hot_encoder(&mut self, node: &Node) -> Result<Value> {
        let (of, kind) = self.one_column(node, 0)?;
        let texts = node.texts("cats_strings")?;
        let keys = match texts.is_empty() {
            false => Categories::Texts(texts),
            true => {
                let numbers = node.integers("cats_int64s")?.into_iter().map(|category| category as f64);
                Categories::Numbers(numbers.collect())
            }
        };
        keys.check()?;
        let names = keys.names();
        let (of, categories) = match self.read(of, kind, keys)? {
            Read::Plain(of, categories) => (of, categories),
            // Several texts may be one category.
            Read::Joined(of, categories, places) => {
                let lookup = Op::Lookup { categories, values: places, otherwise: -1.0 };
                let numbers = (0..names.len()).map(|at| at as f64).collect();
                (self.chains.add(of, lookup)?, Categories::Numbers(numbers))
            }
        };
        let ids = self.chains.hot(of, categories, names)?.into();
        Ok(Value::Columns { ids, kind: Kind::Real32, deep: true })
    }

    fn label_encoder(&mut self, node: &Node) -> Result<Value> {
        let keys = side(node, "keys")?;
        let values = side(node, "values")?;
        let count = keys.numbers.len().max(keys.texts.len());
        if count == 0 || count != values.numbers.len().max(values.texts.len()) {
            return Err(Error::invalid("it needs one value for each of its keys"));
        }
        if let Value::Constant(only) = self.argument(node, 0)? {
            return looked_up(only, &keys, &values);
        }
        let otherwise = match values.kind {
            Kind::Integer => node.integer("default_int64")?.unwrap_or(-1) as f64,
            Kind::Real32 | Kind::Real64 => otherwise_real(node)?,
            _ => return Err(unlike("making texts")),
        };
        let categories =
            if keys.kind == Kind::Text { Categories::Texts(keys.texts) } else { Categories::Numbers(keys.numbers) };
        categories.check()?;
        let (ids, kind) = self.columns(node, 0)?;
        let encode = |id: &Id| {
            let (of, categories, values) = match self.read(*id, kind, categories.clone())? {
                Read::Plain(of, categories) => (of, categories, values.numbers.clone()),
                Read::Joined(of, categories, places) => {
                    let value = |place: &f64| values.numbers.get(*place as usize).copied().unwrap_or(otherwise);
                    let values = places.iter().map(|place| if *place < 0.0 { otherwise } else { value(place) });
                    (of, categories, values.collect())
                }
            };
            self.chains.add(of, Op::Lookup { categories, values, otherwise })
        };
        let ids = ids.iter().map(encode).collect::<Result<_>>()?;
        Ok(Value::Columns { ids, kind: values.kind, deep: false })
    }

    /// How to find these categories in a column.
    fn read(&mut self, of: Id, kind: Kind, keys: Categories) -> Result<Read> {
        match (keys, kind) {
            (Categories::Texts(keys), Kind::Text) => self.read_texts(of, keys),
            (Categories::Numbers(keys), Kind::Integer) => match *self.chains.op(of) {
                Op::Whole { rounds } => self.read_reals(self.chains.from(of), &keys, |key| Rounding(rounds).whole(key)),
                _ => Ok(Read::Plain(of, Categories::Numbers(keys))),
            },
            (Categories::Numbers(keys), Kind::Real32 | Kind::Real64) => {
                let rounding = Rounding::of(kind);
                self.read_reals(of, &keys, |key| (rounding.from(key), rounding.above(key)))
            }
            _ => Err(unlike("categories of another type than the column's")),
        }
    }

    /// By the edges of what counts as each key: from one number to just below another.
    fn read_reals(&mut self, of: Id, keys: &[f64], range: impl Fn(f64) -> (f64, f64)) -> Result<Read> {
        if keys.iter().any(|key| !key.is_finite()) {
            return Err(unlike("a category that is NaN or infinite"));
        }
        let ranges: Vec<(f64, f64)> = keys.iter().map(|key| range(*key)).collect();
        let mut edges: Vec<f64> = ranges.iter().flat_map(|(from, to)| [*from, *to]).collect();
        edges.sort_by(f64::total_cmp);
        edges.dedup();
        let bucket = |(from, _): &(f64, f64)| edges.partition_point(|edge| edge <= from) as f64;
        let categories = Categories::Numbers(ranges.iter().map(bucket).collect());
        let id = self.chains.add(of, Op::Bucket(edges))?;
        Ok(Read::Plain(id, categories))
    }

    /// Texts, as they are or as filled in on the way here.
    fn read_texts(&mut self, of: Id, keys: Vec<String>) -> Result<Read> {
        let (mut base, mut replaced) = (of, Vec::new());
        while let Op::Replace { from, to } = self.chains.op(base) {
            replaced.push((from.clone(), to.clone()));
            base = self.chains.from(base);
            self.chains.spend(64 + replaced.iter().map(|(from, _)| 32 * from.len()).sum::<usize>())?;
        }
        // What missing text counts as: the first thing that is filled in for, or how numpy writes NaN.
        let missing = match replaced.last() {
            Some((from, _)) => from.first().cloned(),
            None => keys.iter().find(|key| *key == "nan").cloned(),
        };
        if let Some(missing) = missing {
            base = self.chains.add(base, Op::FillText(missing.into()))?;
        }
        if replaced.is_empty() {
            return Ok(Read::Plain(base, Categories::Texts(keys)));
        }
        let places: HashMap<String, usize> = keys.iter().cloned().zip(0..).collect();
        let mut texts = keys;
        texts.extend(replaced.iter().flat_map(|(from, _)| from.clone()));
        texts.sort();
        texts.dedup();
        let last = |text: &String| {
            let filled =
                replaced.iter().rev().fold(text, |text, (from, to)| if from.contains(text) { to } else { text });
            places.get(filled).map_or(-1.0, |place| *place as f64)
        };
        let found = texts.iter().map(last).collect();
        Ok(Read::Joined(base, Categories::Texts(texts), found))
    }

    // ---- shape and type ----

    fn constant(&mut self, node: &Node) -> Result<Value> {
        let tensor = node.tensor("value")?.ok_or_else(|| unlike("a constant of another form"))?;
        Ok(Value::Constant(Rc::new(tensor)))
    }

    fn cast(&mut self, node: &Node) -> Result<Value> {
        let to = node.integer("to")?.and_then(kind_of).ok_or_else(|| unlike("a cast to this type"))?;
        let (ids, kind, deep) = match self.argument(node, 0)?.clone() {
            Value::Columns { ids, kind, deep } => (ids, kind, deep),
            below @ Value::Below { .. } if to != Kind::Text => return Ok(below),
            _ => return Err(unlike("a cast of this")),
        };
        match (kind, to) {
            (Kind::Text, Kind::Text) => {}
            (Kind::Text, _) | (_, Kind::Text) => return Err(unlike("a cast from text or to it")),
            (Kind::Real32 | Kind::Real64, Kind::Integer) => {
                let rounds = kind == Kind::Real32;
                return self.each(&ids, to, |_| Ok(Op::Whole { rounds }));
            }
            (Kind::Real32 | Kind::Real64, Kind::Boolean) => return Err(unlike("a cast of reals to booleans")),
            (Kind::Integer, Kind::Boolean) => {
                let is_one = |id: &Id| {
                    matches!(self.chains.op(*id), Op::Lookup { values, otherwise: 0.0, .. }
                    if values.iter().all(|value| *value == 0.0 || *value == 1.0))
                };
                if !ids.iter().all(is_one) {
                    return Err(unlike("a cast of integers to booleans"));
                }
            }
            // Whichever kind of number: values are computed in 64 bits, and rounded where they are compared.
            _ => {}
        }
        Ok(Value::Columns { ids, kind: to, deep })
    }

    fn concat(&mut self, node: &Node) -> Result<Value> {
        let axis = node.integer("axis")?;
        if axis != Some(1) && axis != Some(-1) {
            return Err(unlike("joining rows"));
        }
        if let Value::Below { of, kind, edges, then_one: false } = self.argument(node, 0)?.clone() {
            let (one, _) = self.one_column(node, 1)?;
            if node.inputs.len() != 2 || !self.is_one(one) {
                return Err(unlike("joining comparisons with other columns"));
            }
            return Ok(Value::Below { of, kind, edges, then_one: true });
        }
        let (mut joined, mut form) = (Vec::new(), None);
        for at in 0..node.inputs.len() {
            let Value::Columns { ids, kind, deep } = self.argument(node, at)? else {
                return Err(unlike("joining other than columns"));
            };
            if *form.get_or_insert((*kind, *deep)) != (*kind, *deep) || (*deep && axis != Some(-1)) {
                return Err(unlike("joining columns of different types or forms"));
            }
            joined.extend_from_slice(ids);
            at_most("columns", joined.len(), COLUMNS_MAX)?;
        }
        let (kind, deep) = form.ok_or_else(|| Error::invalid("it has no input"))?;
        Ok(Value::Columns { ids: joined.into(), kind, deep })
    }

    fn places(&mut self, node: &Node, axis: i64) -> Result<Value> {
        let Value::Columns { ids, kind, deep } = self.argument(node, 0)?.clone() else {
            return Err(unlike("picking from other than columns"));
        };
        if axis != -1 && (axis != 1 || deep) {
            return Err(unlike("picking rows"));
        }
        let places = self.constant_argument(node, 1)?;
        at_most("columns", places.numbers.len(), COLUMNS_MAX)?;
        let width = ids.len() as f64;
        let pick = |place: &f64| {
            let place = if *place < 0.0 { place + width } else { *place };
            let known = (place >= 0.0 && place < width).then(|| ids[place as usize]);
            known.ok_or_else(|| Error::invalid(format!("it picks column {place} of {width}")))
        };
        Ok(Value::Columns { ids: places.numbers.iter().map(pick).collect::<Result<_>>()?, kind, deep })
    }

    /// Rows of as many columns as there are.
    fn reshape(&mut self, node: &Node) -> Result<Value> {
        let Value::Columns { ids, kind, .. } = self.argument(node, 0)?.clone() else {
            return Err(unlike("what is no table"));
        };
        match self.constant_argument(node, 1)?.numbers.as_slice() {
            [-1.0, width] if *width == ids.len() as f64 => Ok(Value::Columns { ids, kind, deep: false }),
            shape => Err(unlike(format!("{} columns in the shape {shape:?}", ids.len()))),
        }
    }
}

/// How categories are found.
enum Read {
    /// These in this column, in the order of the keys.
    Plain(Id, Categories),
    /// These in this column, and the place among the keys for each, or -1.
    Joined(Id, Categories, Vec<f64>),
}

/// A number for each column: a list as long, or one for all.
struct Spread(Vec<f64>);

impl Spread {
    fn new(numbers: Vec<f64>, width: usize, otherwise: Option<f64>) -> Result<Spread> {
        match (numbers.len(), otherwise) {
            (0, Some(otherwise)) => Ok(Spread(vec![otherwise])),
            (1, _) => Ok(Spread(numbers)),
            (count, _) if count == width && count > 0 => Ok(Spread(numbers)),
            (count, _) => Err(Error::invalid(format!("{count} parameters for {width} columns"))),
        }
    }

    fn of(tensor: &Tensor, width: usize) -> Result<Spread> {
        let (last, before) = tensor.sizes.split_last().map_or((1, &[][..]), |(last, before)| (*last, before));
        if before.iter().any(|size| *size != 1) || (last > 1 && last != width) {
            return Err(unlike(format!("a parameter of shape {:?} for {width} columns", tensor.sizes)));
        }
        Spread::new(tensor.numbers.clone(), width, None)
    }

    fn at(&self, at: usize) -> f64 {
        self.0.get(at).copied().unwrap_or(self.0[0])
    }
}

fn affine(subtract: f64, multiply: f64) -> Result<Op> {
    match subtract.is_finite() && multiply.is_finite() {
        true => Ok(Op::Affine(Affine { subtract: subtract + 0.0, multiply })),
        false => Err(Error::invalid("a parameter is not finite, or divides by 0")),
    }
}

/// Whether the file compares a number as one of 32 bits, which the frame's may have to become first. So that nothing needs
/// to be cast (what is too large for 32 bits would fail everybody's batch), edges are moved to where the nearest number of
/// 32 bits changes.
#[derive(Clone, Copy)]
struct Rounding(bool);

impl Rounding {
    fn of(kind: Kind) -> Rounding {
        Rounding(kind == Kind::Real32)
    }

    /// The least number that counts as at least this one.
    fn from(self, edge: f64) -> f64 {
        if !self.0 || !edge.is_finite() {
            return edge;
        }
        let nearest = edge as f32;
        let edge = if f64::from(nearest) < edge { nearest.next_up() } else { nearest };
        if !edge.is_finite() {
            return f64::from(edge);
        }
        let before = f64::from(edge.next_down());
        let middle = if before.is_finite() { (before + f64::from(edge)) / 2.0 } else { f64::from(edge) };
        if f64::from(middle as f32) >= f64::from(edge) { middle } else { middle.next_up() }
    }

    /// The least number that counts as more than this one.
    fn above(self, edge: f64) -> f64 {
        match self.0 {
            true => self.from(f64::from((edge as f32).next_up())),
            false => edge.next_up(),
        }
    }

    /// From where to where the whole part of a number is this one.
    fn whole(self, key: f64) -> (f64, f64) {
        let (down, up) = (self.above(key - 1.0), self.from(key + 1.0));
        match key {
            0.0 => (down, up),
            _ if key > 0.0 => (self.from(key), up),
            _ => (down, self.above(key)),
        }
    }
}

/// The keys or values of a `LabelEncoder`.
fn side(node: &Node, prefix: &str) -> Result<Tensor> {
    if let Some(tensor) = node.tensor(&format!("{prefix}_tensor"))? {
        return Ok(tensor);
    }
    let integers = node.integers(&format!("{prefix}_int64s"))?;
    let floats = node.floats(&format!("{prefix}_floats"))?;
    let texts = node.texts(&format!("{prefix}_strings"))?;
    let (kind, numbers) = match (integers.is_empty(), floats.is_empty()) {
        (false, _) => (Kind::Integer, integers.into_iter().map(|value| value as f64).collect()),
        (_, false) => (Kind::Real32, floats),
        _ => (Kind::Text, Vec::new()),
    };
    Ok(Tensor { kind, sizes: Vec::new(), numbers, texts: if kind == Kind::Text { texts } else { Vec::new() } })
}

fn otherwise_real(node: &Node) -> Result<f64> {
    match node.tensor("default_tensor")? {
        Some(tensor) => tensor.numbers.first().copied().ok_or_else(|| Error::invalid("its default is empty")),
        None => Ok(node.float("default_float")?.unwrap_or(0.0)),
    }
}

/// skl2onnx writes a constant text as a constant integer that is looked up.
fn looked_up(only: &Tensor, keys: &Tensor, values: &Tensor) -> Result<Value> {
    let place = match (only.numbers.as_slice(), keys.kind) {
        ([number], Kind::Integer) => keys.numbers.iter().position(|key| key == number),
        _ => None,
    };
    let text = place.and_then(|place| values.texts.get(place).cloned());
    let text = text.ok_or_else(|| unlike("looking up other constants than one text"))?;
    Ok(Value::Constant(Rc::new(Tensor { kind: Kind::Text, sizes: vec![1], numbers: Vec::new(), texts: vec![text] })))
}

//! What a model of this host takes and gives, in the protocol's words.
//!
//! Owns the way from a model's features and outputs to a [`Signature`], and back from tensors to rows and from values to
//! tensors. Separate from the backends, because it is pure.
//!
//! ONNX files name their inputs and outputs, and those names are kept: an input of several columns is one tensor. Files of
//! XGBoost and LightGBM name none: rows are `input__0` and scores `output__0`, as Triton's own backend for trees calls them.
//!
//! Bounded by the request. On failure: `invalid` names the tensor.

use std::sync::Arc;

use mainstay_base::{Error, Result};
use mainstay_inference::{Datatype, InferAnswer, InferRequest, Signature, Tensor, TensorSpec};
use mainstay_kernels::HeldRows;
use mainstay_models::{FeatureKind, Format, Model, Output};

/// Rows of one request.
pub const ROWS_MAX: u64 = 1 << 20;

/// How tensors and a model's rows belong together.
#[derive(Clone, Debug)]
pub struct Mapping {
    /// What requests must fit.
    pub signature: Signature,
    inputs: Vec<Columns>,
    outputs: Vec<Given>,
    classes: Vec<String>,
}

/// One tensor of a request, and how many of the model's columns it has.
#[derive(Clone, Debug)]
struct Columns {
    name: String,
    width: usize,
}

/// One tensor of an answer.
#[derive(Clone, Debug)]
struct Given {
    name: String,
    output: Output,
    width: usize,
    datatype: Datatype,
}

impl Mapping {
    /// What this model takes and gives.
    pub fn of(model: &Model) -> Result<Mapping> {
        let inputs = columns(model);
        let tensor = |columns: &Columns| {
            let datatype = match model.format() {
                Format::Onnx => datatype(model, &columns.name),
                Format::Xgboost | Format::Lightgbm => Datatype::Fp32,
            };
            TensorSpec::new(&columns.name, datatype, &[columns.width as i64])
        };
        let outputs = outputs(model)?;
        let signature = Signature {
            inputs: inputs.iter().map(tensor).collect(),
            outputs: outputs.iter().map(|given| TensorSpec::new(&given.name, given.datatype, &given.dims())).collect(),
            max_batch: ROWS_MAX,
        };
        Ok(Mapping { signature, inputs, outputs, classes: model.classes().to_vec() })
    }

    /// The rows of a request that fits.
    pub fn rows(&self, request: &InferRequest) -> Result<HeldRows> {
        self.signature.check(request)?;
        let features: usize = self.inputs.iter().map(|columns| columns.width).sum();
        let tensor = |columns: &Columns| request.input(&columns.name).ok_or_else(|| missing(&columns.name));
        if let [only] = self.inputs.as_slice()
            && let tensor = tensor(only)?
            && tensor.datatype == Datatype::Fp32
        {
            return Ok(HeldRows::F32 { values: tensor.singles()?.into(), features });
        }
        let parts: Vec<(Vec<f64>, usize)> = self
            .inputs
            .iter()
            .map(|columns| Ok((tensor(columns)?.numbers()?, columns.width)))
            .collect::<Result<_>>()?;
        let count = usize::try_from(request.rows()).unwrap_or_default();
        let row = |at: usize| parts.iter().flat_map(move |(values, width)| &values[at * width..(at + 1) * width]);
        let values: Arc<[f64]> = (0..count).flat_map(row).copied().collect();
        Ok(HeldRows::F64 { values, features })
    }

    /// What the model must be asked for to answer this request.
    pub fn wanted(&self, request: &InferRequest) -> Vec<Output> {
        self.given(request).map(|given| given.output).collect()
    }

    /// The answer that these values are: for each output that was wanted, row after row.
    pub fn answer(&self, request: &InferRequest, values: &[Vec<f64>]) -> Result<InferAnswer> {
        let outputs = self.given(request).zip(values).map(|(given, values)| given.tensor(values, &self.classes));
        Ok(InferAnswer { outputs: outputs.collect::<Result<_>>()?, ..InferAnswer::default() })
    }

    /// The outputs that a request wants, in its order.
    fn given<'a>(&'a self, request: &'a InferRequest) -> Box<dyn Iterator<Item = &'a Given> + Send + 'a> {
        if request.outputs.is_empty() {
            return Box::new(self.outputs.iter());
        }
        Box::new(
            request.outputs.iter().filter_map(|wanted| self.outputs.iter().find(|given| given.name == wanted.name)),
        )
    }
}

fn missing(name: &str) -> Error {
    Error::invalid(format!("the request has no input `{name}`"))
}

/// The tensors that a model's rows come in.
fn columns(model: &Model) -> Vec<Columns> {
    if model.format() != Format::Onnx {
        return vec![Columns { name: "input__0".into(), width: model.features().len() }];
    }
    let mut inputs: Vec<Columns> = Vec::new();
    for feature in model.features() {
        // An input of several columns has them as `NAME[0]` and so on.
        let part = feature.name.strip_suffix(']').and_then(|name| name.rsplit_once('['));
        let part = part.and_then(|(name, at)| Some((name, at.parse::<usize>().ok()?)));
        match (part, inputs.last_mut()) {
            (Some((name, at)), Some(last)) if last.name == name && last.width == at => last.width += 1,
            (Some((name, 0)), _) => inputs.push(Columns { name: name.to_owned(), width: 1 }),
            _ => inputs.push(Columns { name: feature.name.clone(), width: 1 }),
        }
    }
    inputs
}

/// What the elements of an input are.
fn datatype(model: &Model, input: &str) -> Datatype {
    let is_of = |name: &str| name == input || name.strip_prefix(input).is_some_and(|rest| rest.starts_with('['));
    match model.features().iter().find(|feature| is_of(&feature.name)).map(|feature| feature.kind) {
        Some(FeatureKind::Integer) => Datatype::Int64,
        Some(FeatureKind::Indicator) => Datatype::Bool,
        _ => Datatype::Fp32,
    }
}

fn outputs(model: &Model) -> Result<Vec<Given>> {
    let named: Vec<(String, Output)> = model.named_outputs().map(|(name, output)| (name.to_owned(), output)).collect();
    let named = if named.is_empty() { vec![("output__0".to_owned(), Output::Score)] } else { named };
    named
        .into_iter()
        .map(|(name, output)| {
            let is_number = |class: &String| class.parse::<i64>().is_ok();
            let datatype = match output {
                Output::Label if model.classes().iter().all(is_number) => Datatype::Int64,
                Output::Label => Datatype::Bytes,
                _ => Datatype::Fp32,
            };
            Ok(Given { width: model.width(output)?, name, output, datatype })
        })
        .collect()
}

impl Given {
    /// Its extents without rows: a label is one value, a score as many as the model gives.
    fn dims(&self) -> Vec<i64> {
        if self.output == Output::Label { Vec::new() } else { vec![self.width as i64] }
    }

    fn tensor(&self, values: &[f64], classes: &[String]) -> Result<Tensor> {
        let rows = (values.len() / self.width.max(1)) as u64;
        // A label is a place among the classes, and the label itself where the file has none.
        let class = |value: &f64| classes.get(*value as usize);
        match self.datatype {
            Datatype::Int64 => {
                let labels: Vec<i64> = values
                    .iter()
                    .map(|value| class(value).and_then(|class| class.parse().ok()).unwrap_or(*value as i64))
                    .collect();
                Tensor::int64(&self.name, &[rows], &labels)
            }
            Datatype::Bytes => {
                let labels: Vec<String> =
                    values.iter().map(|value| class(value).cloned().unwrap_or_else(|| value.to_string())).collect();
                Tensor::bytes(&self.name, &[rows], &labels)
            }
            _ => {
                let scores: Vec<f32> = values.iter().map(|value| *value as f32).collect();
                Tensor::fp32(&self.name, &[rows, self.width as u64], &scores)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use mainstay_models::import::import;

    use super::*;

    fn model(name: &str) -> Model {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/tests/data").join(name);
        import(&std::fs::read(&path).unwrap()).unwrap()
    }

    /// The signature of a file of the importers' tests, as `input:TYPE[dims] -> output:TYPE[dims]`.
    fn check(name: &str, expect: &str) {
        let signature = Mapping::of(&model(name)).unwrap().signature;
        let shown = |specs: &[TensorSpec]| {
            let one = |spec: &TensorSpec| format!("{}:{}{:?}", spec.name, spec.datatype.name(), spec.dims);
            specs.iter().map(one).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(format!("{} -> {}", shown(&signature.inputs), shown(&signature.outputs)), expect, "{name}");
    }

    #[test]
    fn signatures_are_those_of_the_files() {
        check("lgb_binary.txt", "input__0:FP32[5] -> output__0:FP32[1]");
        check("xgb_binary_logistic.json", "input__0:FP32[5] -> output__0:FP32[1]");
    }

    #[test]
    fn labels_are_told_as_the_classes_that_they_are() {
        let given = |datatype| Given { name: "label".into(), output: Output::Label, width: 1, datatype };
        let classes: Vec<String> = ["10", "20"].map(String::from).into();
        let numbers = given(Datatype::Int64).tensor(&[1.0, 0.0], &classes).unwrap();
        assert_eq!(numbers, Tensor::int64("label", &[2], &[20, 10]).unwrap());
        let plain = given(Datatype::Int64).tensor(&[7.0], &[]).unwrap();
        assert_eq!(plain, Tensor::int64("label", &[1], &[7]).unwrap());
        let words: Vec<String> = ["no", "yes"].map(String::from).into();
        let texts = given(Datatype::Bytes).tensor(&[1.0], &words).unwrap();
        assert_eq!(texts, Tensor::bytes("label", &[1], ["yes"]).unwrap());
    }

    #[test]
    fn rows_of_a_request_are_those_of_its_tensor() {
        let mapping = Mapping::of(&model("lgb_binary.txt")).unwrap();
        let tensor = Tensor::fp32("input__0", &[2, 5], &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0]).unwrap();
        let request = InferRequest { model: "m".into(), inputs: vec![tensor], ..InferRequest::default() };
        let rows = mapping.rows(&request).unwrap();
        assert_eq!(rows.count(), 2);
        assert_eq!(mapping.wanted(&request), [Output::Score]);
        let narrow = Tensor::fp32("input__0", &[1, 2], &[0.0, 1.0]).unwrap();
        let request = InferRequest { inputs: vec![narrow], ..request };
        assert!(mapping.rows(&request).unwrap_err().message().contains("unexpected shape"));
    }
}

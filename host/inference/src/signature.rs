//! What a model takes and gives.
//!
//! Owns [`Signature`], and the judgement whether a request fits it, in Triton's words: clients' users search for them. Separate
//! from the readers, which know a request but no model. Bounded by the signature and the request. On failure: `invalid`.

use mainstay_base::{Error, Result};

use crate::models::{ModelMetadata, TensorMetadata};
use crate::proto::{DataType, ModelConfig};
use crate::request::InferRequest;
use crate::tensor::{Datatype, Tensor};

/// One input or output of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    /// Its name.
    pub name: String,
    /// What its elements are.
    pub datatype: Datatype,
    /// Its extents, -1 where any will do; without the batch, where the model has one.
    pub dims: Vec<i64>,
    /// Whether a request may leave it out.
    pub optional: bool,
}

impl TensorSpec {
    /// An input that must be there, or an output.
    pub fn new(name: impl Into<String>, datatype: Datatype, dims: &[i64]) -> TensorSpec {
        TensorSpec { name: name.into(), datatype, dims: dims.into(), optional: false }
    }
}

/// What a model takes and gives.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Signature {
    /// What it takes.
    pub inputs: Vec<TensorSpec>,
    /// What it gives.
    pub outputs: Vec<TensorSpec>,
    /// The most rows of a request, which are then a first dimension of every tensor; 0 where tensors have no such one.
    pub max_batch: u64,
}

impl Signature {
    /// The signature that a configuration declares.
    pub fn of_config(config: &ModelConfig) -> Result<Signature> {
        let datatype = |name: &str, number: i32| {
            let configured = DataType::try_from(number).ok().and_then(Datatype::of_configured);
            configured.ok_or_else(|| Error::invalid(format!("`{name}` of model '{}' has no data_type", config.name)))
        };
        let input = |input: &crate::proto::ModelInput| -> Result<TensorSpec> {
            let datatype = datatype(&input.name, input.data_type)?;
            Ok(TensorSpec { name: input.name.clone(), datatype, dims: input.dims.clone(), optional: input.optional })
        };
        let output = |output: &crate::proto::ModelOutput| -> Result<TensorSpec> {
            Ok(TensorSpec::new(&output.name, datatype(&output.name, output.data_type)?, &output.dims))
        };
        let max_batch = u64::try_from(config.max_batch_size);
        Ok(Signature {
            inputs: config.input.iter().map(input).collect::<Result<_>>()?,
            outputs: config.output.iter().map(output).collect::<Result<_>>()?,
            max_batch: max_batch
                .map_err(|_| Error::invalid(format!("max_batch_size of model '{}' is negative", config.name)))?,
        })
    }

    /// The signature that metadata tell of. They do not say which dimension is the batch, so none is.
    pub fn of_metadata(metadata: &ModelMetadata) -> Result<Signature> {
        let spec = |tensor: &TensorMetadata| {
            Ok(TensorSpec::new(&tensor.name, Datatype::parse(&tensor.datatype)?, &tensor.shape))
        };
        Ok(Signature {
            inputs: metadata.inputs.iter().map(spec).collect::<Result<_>>()?,
            outputs: metadata.outputs.iter().map(spec).collect::<Result<_>>()?,
            max_batch: 0,
        })
    }

    /// The metadata that tells of this signature: the batch is there, as -1.
    pub fn metadata(&self, name: &str, versions: Vec<String>, platform: &str) -> ModelMetadata {
        let tell = |spec: &TensorSpec| TensorMetadata {
            name: spec.name.clone(),
            datatype: spec.datatype.name().to_owned(),
            shape: self.full(spec),
        };
        ModelMetadata {
            name: name.to_owned(),
            versions,
            platform: platform.to_owned(),
            inputs: self.inputs.iter().map(tell).collect(),
            outputs: self.outputs.iter().map(tell).collect(),
        }
    }

    /// The extents of a tensor, batch included.
    fn full(&self, spec: &TensorSpec) -> Vec<i64> {
        (self.max_batch > 0).then_some(-1).into_iter().chain(spec.dims.iter().copied()).collect()
    }

    /// Whether this request fits; else `invalid`, saying what does not.
    pub fn check(&self, request: &InferRequest) -> Result<()> {
        request.check()?;
        let model = &request.model;
        for output in &request.outputs {
            if !self.outputs.iter().any(|spec| spec.name == output.name) {
                return Err(Error::invalid(format!(
                    "unexpected inference output '{}' for model '{model}'",
                    output.name
                )));
            }
        }
        self.check_names(request)?;
        let mut batch = None;
        for input in &request.inputs {
            let spec = self.input(input, model)?;
            self.check_input(input, spec, model)?;
            if self.max_batch > 0 && *batch.get_or_insert(input.rows()) != input.rows() {
                return Err(Error::invalid(format!(
                    "input '{}' batch size does not match other inputs for '{model}'",
                    input.name
                )));
            }
        }
        match batch {
            Some(batch) if batch > self.max_batch => {
                Err(Error::invalid(format!("inference request batch-size must be <= {} for '{model}'", self.max_batch)))
            }
            _ => Ok(()),
        }
    }

    fn input(&self, input: &Tensor, model: &str) -> Result<&TensorSpec> {
        let spec = self.inputs.iter().find(|spec| spec.name == input.name);
        spec.ok_or_else(|| Error::invalid(format!("unexpected inference input '{}' for model '{model}'", input.name)))
    }

    /// Whether the inputs are those that the model takes. Names come before numbers: a name that is wrong is the likelier mistake.
    fn check_names(&self, request: &InferRequest) -> Result<()> {
        request.inputs.iter().try_for_each(|input| self.input(input, &request.model).map(drop))?;
        let missing: Vec<_> =
            self.inputs.iter().filter(|spec| !spec.optional && request.input(&spec.name).is_none()).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let list = |names: Vec<&str>| format!("['{}']", names.join("','"));
        let got = match &request.inputs[..] {
            [] => "[]".to_owned(),
            inputs => list(inputs.iter().map(|input| input.name.as_str()).collect()),
        };
        let required = self.inputs.iter().filter(|spec| !spec.optional).count();
        let expected = if required == self.inputs.len() {
            format!("expected {required} inputs")
        } else {
            format!("expected number of inputs between {required} and {}", self.inputs.len())
        };
        Err(Error::invalid(format!(
            "{expected} but got {} inputs for model '{}'. Got input(s) {got}, but missing required \
             input(s) {}. Please provide all required input(s).",
            request.inputs.len(),
            request.model,
            list(missing.iter().map(|spec| spec.name.as_str()).collect())
        )))
    }

    fn check_input(&self, input: &Tensor, spec: &TensorSpec, model: &str) -> Result<()> {
        let name = &input.name;
        if self.max_batch > 0 && input.shape.is_empty() {
            return Err(Error::invalid(format!(
                "input '{name}' has no shape but model requires batch dimension for '{model}'"
            )));
        }
        if input.datatype != spec.datatype {
            return Err(Error::invalid(format!(
                "inference input '{name}' data-type is '{}', but model '{model}' expects '{}'",
                input.datatype.name(),
                spec.datatype.name()
            )));
        }
        let full = self.full(spec);
        let fits = |(expected, extent): (&i64, &u64)| *expected < 0 || u64::try_from(*expected) == Ok(*extent);
        if full.len() != input.shape.len() || !full.iter().zip(&input.shape).all(fits) {
            return Err(Error::invalid(format!(
                "unexpected shape for input '{name}' for model '{model}'. Expected {}, got {}",
                list_of(&full),
                list_of(&input.shape)
            )));
        }
        Ok(())
    }
}

/// Extents as Triton writes them: `[-1,30]`.
fn list_of<T: ToString>(extents: &[T]) -> String {
    format!("[{}]", extents.iter().map(T::to_string).collect::<Vec<_>>().join(","))
}

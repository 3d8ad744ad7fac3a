//! What is asked of a model and what it answers.
//!
//! Owns [`InferRequest`] and [`InferAnswer`], whichever way they came or go. Separate from the ways, which are HTTP and gRPC.
//!
//! Bounded by [`limits`]. On failure: `invalid`, naming what is too many or too long.

use mainstay_base::{Error, Result};

use crate::limits;
use crate::tensor::Tensor;

/// A value beside the tensors.
#[derive(Clone, Debug, PartialEq)]
pub enum Parameter {
    /// True or false.
    Bool(bool),
    /// A whole number.
    Int64(i64),
    /// A whole number without sign.
    Uint64(u64),
    /// A number.
    Double(f64),
    /// A text.
    String(String),
}

/// An output that the caller wants.
#[derive(Clone, Debug, PartialEq)]
pub struct RequestedOutput {
    /// As the model's signature names it.
    pub name: String,
    /// What was said of it.
    pub parameters: Vec<(String, Parameter)>,
}

/// One question to a model.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct InferRequest {
    /// Model, or the endpoint that stands in front of several.
    pub model: String,
    /// Which version, where the caller says so.
    pub version: Option<String>,
    /// The caller's own name of this request; returned as it came.
    pub id: Option<String>,
    /// What was said of the whole request.
    pub parameters: Vec<(String, Parameter)>,
    /// Its tensors.
    pub inputs: Vec<Tensor>,
    /// The outputs that are wanted, in this order; none for all.
    pub outputs: Vec<RequestedOutput>,
}

impl InferRequest {
    /// The parameter of that name.
    pub fn parameter(&self, name: &str) -> Option<&Parameter> {
        find(&self.parameters, name)
    }

    /// The input of that name.
    pub fn input(&self, name: &str) -> Option<&Tensor> {
        self.inputs.iter().find(|tensor| tensor.name == name)
    }

    /// Rows of the first input.
    pub fn rows(&self) -> u64 {
        self.inputs.first().map_or(0, Tensor::rows)
    }

    /// Whether it is within the limits and each tensor is what it says; inputs and outputs once each. What a model wants of it
    /// is its signature's to say.
    pub fn check(&self) -> Result<()> {
        most("inputs", self.inputs.len(), limits::TENSORS_MAX)?;
        most("outputs", self.outputs.len(), limits::TENSORS_MAX)?;
        check_parameters(&self.parameters)?;
        for (place, input) in self.inputs.iter().enumerate() {
            check_name(&input.name)?;
            most("dimensions", input.shape.len(), limits::DIMENSIONS_MAX)?;
            if self.inputs[..place].iter().any(|earlier| earlier.name == input.name) {
                return Err(Error::invalid(format!("input '{}' already exists in request", input.name)));
            }
            input.check()?;
        }
        for (place, output) in self.outputs.iter().enumerate() {
            check_name(&output.name)?;
            check_parameters(&output.parameters)?;
            if self.outputs[..place].iter().any(|earlier| earlier.name == output.name) {
                return Err(Error::invalid(format!("output '{}' already exists in request", output.name)));
            }
        }
        Ok(())
    }
}

/// The parameter of that name.
pub(crate) fn find<'a>(parameters: &'a [(String, Parameter)], name: &str) -> Option<&'a Parameter> {
    parameters.iter().find(|(held, _)| held == name).map(|(_, parameter)| parameter)
}

fn check_parameters(parameters: &[(String, Parameter)]) -> Result<()> {
    most("parameters", parameters.len(), limits::PARAMETERS_MAX)?;
    parameters.iter().try_for_each(|(name, _)| check_name(name))
}

fn check_name(name: &str) -> Result<()> {
    most("bytes in a name", name.len(), limits::NAME_BYTES_MAX)
}

pub(crate) fn most(what: &str, count: usize, max: usize) -> Result<()> {
    if count <= max { Ok(()) } else { Err(Error::invalid(format!("{count} {what}; {max} are the most"))) }
}

/// What a model answered.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct InferAnswer {
    /// The model that answered.
    pub model: String,
    /// Its version.
    pub version: String,
    /// What is said of the whole answer.
    pub parameters: Vec<(String, Parameter)>,
    /// Its tensors.
    pub outputs: Vec<Tensor>,
}

impl InferAnswer {
    /// The output of that name.
    pub fn output(&self, name: &str) -> Option<&Tensor> {
        self.outputs.iter().find(|tensor| tensor.name == name)
    }

    /// The parameter of that name.
    pub fn parameter(&self, name: &str) -> Option<&Parameter> {
        find(&self.parameters, name)
    }
}

//! What a general runtime does, whichever it is.
//!
//! Owns the trait and the tensors that pass through it. Separate so that [`crate::session`] is written once. Bounded by: the
//! caller. On failure: `invalid` with the runtime's own words.

use mainstay_base::{Error, Result};

/// Numbers of a tensor, row after row.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Values {
    Real(Vec<f32>),
    Integer(Vec<i64>),
}

/// A tensor.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Tensor {
    pub shape: Vec<usize>,
    pub values: Values,
}

/// An input of a graph.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Port {
    pub name: String,
    /// Else real numbers.
    pub is_integer: bool,
    /// Nothing where the size is the caller's choice.
    pub shape: Vec<Option<usize>>,
}

/// A graph, loaded.
pub(crate) trait Engine: Send {
    /// What graphs of this runtime are called by people.
    fn name(&self) -> &'static str;

    /// The graph's inputs.
    fn inputs(&self) -> Result<Vec<Port>>;

    /// Names and values of all outputs, in the graph's order. Inputs in the order of [`Engine::inputs`].
    fn run(&mut self, inputs: Vec<Tensor>) -> Result<Vec<(String, Tensor)>>;
}

/// The runtime's refusal.
pub(crate) fn refused(runtime: &str, why: impl std::fmt::Display) -> Error {
    Error::invalid(format!("{runtime}: {why}"))
}

/// An element type that cannot pass here.
pub(crate) fn foreign_type(runtime: &str, name: &str, kind: impl std::fmt::Debug) -> Error {
    refused(runtime, format!("`{name}` has elements of the type {kind:?}; numbers can be passed"))
}

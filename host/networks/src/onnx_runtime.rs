//! Graphs in ONNX Runtime, out of a shared library that the operator names: `libonnxruntime.so` of its release, or of the
//! Python package `onnxruntime`.
//!
//! Owns the translation. Bounded by: the process it runs in. On failure: `invalid` with its words; a library that cannot be
//! loaded is `unavailable` and names the file.

use std::path::Path;

use mainstay_base::{Error, Result};
use ort::session::{Session, SessionInputValue};
use ort::value::{DynValue, Tensor as Held, TensorElementType, ValueType};

use crate::engine::{Engine, Port, Tensor, Values, foreign_type, refused};

const NAME: &str = "ONNX Runtime";

pub(crate) struct OnnxRuntime {
    session: Session,
    inputs: Vec<(Port, TensorElementType)>,
}

impl OnnxRuntime {
    pub fn load(bytes: &[u8], library: &Path, threads: usize) -> Result<OnnxRuntime> {
        let cannot = |error: &dyn std::fmt::Display| {
            Error::unavailable(format!("cannot load ONNX Runtime from `{}`: {error}", library.display()))
        };
        let environment = ort::init_from(library).map_err(|error| cannot(&error))?;
        // Nothing is told to anybody.
        let environment = environment.with_telemetry(false).build().map_err(|error| cannot(&error))?;
        let load = || -> ort::Result<Session> {
            Session::builder(&environment)?.with_intra_threads(threads)?.commit_from_memory(bytes)
        };
        let session = load().map_err(|error| refused(NAME, error))?;
        let inputs = session.inputs().iter().map(|outlet| port(outlet.name(), outlet.dtype()));
        let inputs = inputs.collect::<Result<Vec<_>>>()?;
        Ok(OnnxRuntime { session, inputs })
    }
}

fn port(name: &str, kind: &ValueType) -> Result<(Port, TensorElementType)> {
    let ValueType::Tensor { ty, shape, .. } = kind else {
        return Err(foreign_type(NAME, name, kind));
    };
    let is_integer = match ty {
        TensorElementType::Float32 | TensorElementType::Float64 => false,
        TensorElementType::Int64 | TensorElementType::Int32 | TensorElementType::Bool => true,
        other => return Err(foreign_type(NAME, name, other)),
    };
    // What is not known is -1 there.
    let shape = shape.iter().map(|size| usize::try_from(*size).ok()).collect();
    Ok((Port { name: name.to_owned(), is_integer, shape }, *ty))
}

impl Engine for OnnxRuntime {
    fn name(&self) -> &'static str {
        NAME
    }

    fn inputs(&self) -> Result<Vec<Port>> {
        Ok(self.inputs.iter().map(|(port, _)| port.clone()).collect())
    }

    fn run(&mut self, inputs: Vec<Tensor>) -> Result<Vec<(String, Tensor)>> {
        let given = self.inputs.iter().zip(inputs).map(|((port, kind), input)| {
            let value = held(*kind, input).map_err(|error| refused(NAME, error))?;
            Ok((port.name.clone(), SessionInputValue::from(value)))
        });
        let given = given.collect::<Result<Vec<_>>>()?;
        let made = self.session.run(given).map_err(|error| refused(NAME, error))?;
        made.iter().map(|(name, value)| Ok((name.to_owned(), tensor(name, &value)?))).collect()
    }
}

fn held(kind: TensorElementType, tensor: Tensor) -> ort::Result<DynValue> {
    let shape: Vec<i64> = tensor.shape.iter().map(|size| *size as i64).collect();
    let value = match (kind, tensor.values) {
        (TensorElementType::Float64, Values::Real(values)) => {
            Held::from_array((shape, values.into_iter().map(f64::from).collect::<Vec<f64>>()))?.into_dyn()
        }
        (TensorElementType::Int32, Values::Integer(values)) => {
            Held::from_array((shape, values.into_iter().map(|value| value as i32).collect::<Vec<i32>>()))?.into_dyn()
        }
        (TensorElementType::Bool, Values::Integer(values)) => {
            Held::from_array((shape, values.into_iter().map(|value| value != 0).collect::<Vec<bool>>()))?.into_dyn()
        }
        (_, Values::Real(values)) => Held::from_array((shape, values))?.into_dyn(),
        (_, Values::Integer(values)) => Held::from_array((shape, values))?.into_dyn(),
    };
    Ok(value)
}

fn tensor(name: &str, value: &ort::value::ValueRef<'_>) -> Result<Tensor> {
    let ValueType::Tensor { ty, .. } = value.dtype() else {
        return Err(foreign_type(NAME, name, value.dtype()));
    };
    let wrong = |error: ort::Error| refused(NAME, error);
    macro_rules! taken {
        ($kind:ty, $variant:ident, $to:expr) => {{
            let (shape, values) = value.try_extract_tensor::<$kind>().map_err(wrong)?;
            let shape = shape.iter().map(|size| *size as usize).collect();
            Ok(Tensor { shape, values: Values::$variant(values.iter().map($to).collect()) })
        }};
    }
    match ty {
        TensorElementType::Float32 => taken!(f32, Real, |value| *value),
        TensorElementType::Float64 => taken!(f64, Real, |value| *value as f32),
        TensorElementType::Int64 => taken!(i64, Integer, |value| *value),
        TensorElementType::Int32 => taken!(i32, Integer, |value| i64::from(*value)),
        TensorElementType::Bool => taken!(bool, Integer, |value| i64::from(*value)),
        other => Err(foreign_type(NAME, name, other)),
    }
}

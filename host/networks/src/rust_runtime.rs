//! Graphs in `rten`: Rust, in this binary.
//!
//! Owns the translation. Knows most of ONNX's operations on `f32` and whole numbers; no `f64`. Bounded by: the process it
//! runs in. On failure: `invalid` with its words.

use std::sync::Arc;

use mainstay_base::Result;
use rten::{DataType, Dimension, Model, NodeId, RunOptions, ThreadPool, Value, ValueOrView, ValueType};
use rten_tensor::prelude::*;

use crate::engine::{Engine, Port, Tensor, Values, foreign_type, refused};

const NAME: &str = "rten";

pub(crate) struct RustRuntime {
    model: Model,
    pool: Arc<ThreadPool>,
}

impl RustRuntime {
    pub fn load(bytes: &[u8], threads: usize) -> Result<RustRuntime> {
        let model = Model::load(bytes.to_vec()).map_err(|error| refused(NAME, error))?;
        Ok(RustRuntime { model, pool: Arc::new(ThreadPool::with_num_threads(threads)) })
    }

    fn name_of(&self, node: NodeId) -> String {
        self.model.node_info(node).and_then(|info| info.name().map(str::to_owned)).unwrap_or_default()
    }
}

impl Engine for RustRuntime {
    fn name(&self) -> &'static str {
        NAME
    }

    fn inputs(&self) -> Result<Vec<Port>> {
        let ports = self.model.input_ids().iter().map(|id| {
            let name = self.name_of(*id);
            let info = self.model.node_info(*id);
            let is_integer = match info.as_ref().and_then(|info| info.dtype()) {
                Some(ValueType::Tensor(DataType::Float)) => false,
                Some(ValueType::Tensor(DataType::Int32)) => true,
                other => return Err(foreign_type(NAME, &name, other)),
            };
            let size = |dimension| match dimension {
                Dimension::Fixed(size) => Some(size),
                Dimension::Symbolic(_) => None,
            };
            let shape = info.and_then(|info| info.shape()).unwrap_or_default();
            Ok(Port { name, is_integer, shape: shape.into_iter().map(size).collect() })
        });
        ports.collect()
    }

    fn run(&mut self, inputs: Vec<Tensor>) -> Result<Vec<(String, Tensor)>> {
        let given = self.model.input_ids().iter().zip(inputs);
        let given =
            given.map(|(id, input)| Ok((*id, ValueOrView::Value(value(input)?)))).collect::<Result<Vec<_>>>()?;
        let outputs = self.model.output_ids();
        let mut options = RunOptions::default();
        options.thread_pool = Some(self.pool.clone());
        let made = self.model.run(given, outputs, Some(options)).map_err(|error| refused(NAME, error))?;
        let named = outputs.iter().zip(made).map(|(id, value)| {
            let name = self.name_of(*id);
            let tensor = tensor(&name, value)?;
            Ok((name, tensor))
        });
        named.collect()
    }
}

fn value(tensor: Tensor) -> Result<Value> {
    let Tensor { shape, values } = tensor;
    let wrong = |error: &dyn std::fmt::Display| refused(NAME, error);
    match values {
        Values::Real(values) => Value::from_shape(&shape, values).map_err(|error| wrong(&error)),
        Values::Integer(values) => {
            // Its whole numbers have 32 bits, as it says of itself; a larger one cannot be an index either.
            let narrow = |value: i64| value.clamp(i64::from(i32::MIN), i64::from(i32::MAX)) as i32;
            Value::from_shape(&shape, values.into_iter().map(narrow).collect::<Vec<i32>>())
                .map_err(|error| wrong(&error))
        }
    }
}

fn tensor(name: &str, value: Value) -> Result<Tensor> {
    match value {
        Value::FloatTensor(made) => Ok(Tensor { shape: made.shape().to_vec(), values: Values::Real(made.into_data()) }),
        Value::Int32Tensor(made) => {
            let shape = made.shape().to_vec();
            let values = made.into_data().into_iter().map(i64::from);
            Ok(Tensor { shape, values: Values::Integer(values.collect()) })
        }
        Value::Int8Tensor(made) => {
            let shape = made.shape().to_vec();
            Ok(Tensor { shape, values: Values::Integer(made.into_data().into_iter().map(i64::from).collect()) })
        }
        Value::UInt8Tensor(made) => {
            let shape = made.shape().to_vec();
            Ok(Tensor { shape, values: Values::Integer(made.into_data().into_iter().map(i64::from).collect()) })
        }
        other => Err(foreign_type(NAME, name, other.dtype())),
    }
}

//! Tensors of a request as a frame, and columns of an answer as tensors.
//!
//! Owns both ways. Separate from the graphs that use them, because they are pure. The protocol has no missing values: among
//! numbers NaN stands for one, among texts the empty one, both ways.
//!
//! Bounded by the request. On failure: `invalid` names the tensor.

use std::sync::Arc;

use mainstay_arrays::{Column, Frame, ValueType};
use mainstay_base::{Error, Result};
use mainstay_inference::{Datatype, InferRequest, Tensor};

/// A column for each tensor: rows of one value each.
pub fn frame(request: &InferRequest) -> Result<Frame> {
    let columns = request.inputs.iter().map(|tensor| Ok((Arc::from(tensor.name.as_str()), column(tensor)?)));
    Frame::new(columns.collect::<Result<_>>()?)
}

fn column(tensor: &Tensor) -> Result<Column> {
    if !matches!(tensor.shape.as_slice(), [_] | [_, 1]) {
        let (name, shape) = (&tensor.name, &tensor.shape);
        return Err(Error::invalid(format!(
            "input `{name}` has the shape {shape:?}; a column has one value for each row"
        )));
    }
    Ok(match tensor.datatype {
        Datatype::Bytes => {
            let texts = tensor.strings()?.into_iter().map(|text| {
                std::str::from_utf8(text)
                    .map_err(|_| Error::invalid(format!("input `{}` has a text that is not UTF-8", tensor.name)))
            });
            let texts = texts.collect::<Result<Vec<_>>>()?;
            Column::text(texts.into_iter().map(|text| (!text.is_empty()).then_some(text)))
        }
        Datatype::Fp32 | Datatype::Fp64 | Datatype::Fp16 | Datatype::Bf16 => {
            let values = tensor.numbers()?;
            let there: Vec<bool> = values.iter().map(|value| !value.is_nan()).collect();
            Column::f64(&values, there.contains(&false).then_some(&there))
        }
        Datatype::Bool => {
            let values: Vec<bool> = tensor.numbers()?.iter().map(|value| *value != 0.0).collect();
            Column::bool(&values, None)
        }
        _ => Column::i64(&tensor.integers()?, None),
    })
}

/// A column of an answer.
pub fn tensor(name: &str, column: &Column) -> Result<Tensor> {
    let shape = [column.len() as u64];
    match column.value_type() {
        ValueType::Text => {
            let texts = column.texts()?;
            Tensor::bytes(name, &shape, texts.iter().map(|text| text.unwrap_or_default()))
        }
        ValueType::Bool => {
            Tensor::bool(name, &shape, &numbers(column)?.iter().map(|value| *value == 1.0).collect::<Vec<_>>())
        }
        ValueType::I32 | ValueType::I64 | ValueType::U8 if column.missing() == 0 => {
            Tensor::int64(name, &shape, &numbers(column)?.iter().map(|value| *value as i64).collect::<Vec<_>>())
        }
        _ => Tensor::fp64(name, &shape, &numbers(column)?),
    }
}

fn numbers(column: &Column) -> Result<Vec<f64>> {
    let mut values = Vec::with_capacity(column.len());
    column.numbers()?.for_each(|value| values.push(value.unwrap_or(f64::NAN)));
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_values_go_both_ways() {
        let number = Tensor::fp64("age", &[3], &[1.5, f64::NAN, 3.0]).unwrap();
        let text = Tensor::bytes("city", &[3, 1], ["Bern", "", "Oslo"]).unwrap();
        let whole = Tensor::int64("count", &[3], &[1, 2, 3]).unwrap();
        let request = InferRequest { inputs: vec![number, text, whole], ..InferRequest::default() };
        let frame = frame(&request).unwrap();
        assert_eq!(
            (frame.rows(), frame.column("age").unwrap().missing(), frame.column("city").unwrap().missing()),
            (3, 1, 1)
        );
        let back = |name: &str| tensor(name, frame.column(name).unwrap()).unwrap();
        assert_eq!(back("city"), Tensor::bytes("city", &[3], ["Bern", "", "Oslo"]).unwrap());
        assert_eq!(back("count"), Tensor::int64("count", &[3], &[1, 2, 3]).unwrap());
        assert!(back("age").numbers().unwrap()[1].is_nan());
        let wide = Tensor::fp64("age", &[1, 2], &[1.0, 2.0]).unwrap();
        let request = InferRequest { inputs: vec![wide], ..InferRequest::default() };
        assert!(super::frame(&request).unwrap_err().message().contains("one value for each row"));
    }
}

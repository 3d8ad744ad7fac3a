//! What the lists of ONNX's encoders mean: Imputer, LabelEncoder, CategoryMapper.
//!
//! Separate from the list of operations because each version of them keeps its tables elsewhere. Bounded by lists as long as
//! the file has them. On failure: `invalid` names the list that is missing or does not fit.

use mainstay_base::{Error, Result};

use super::operations::{integer_vector, text_vector, vector};
use super::proto::Node;
use crate::pipeline::{Keys, Kind, Map, Op, Tensor};

pub(super) fn imputer(node: &Node<'_>) -> Result<Op> {
    let floats = node.floats("imputed_value_floats")?;
    let (replaced, by) = match floats.is_empty() {
        false => (node.float("replaced_value_float")?.unwrap_or(0.0), floats),
        true => {
            let by = node.integers("imputed_value_int64s")?.into_iter().map(|value| value as f64).collect();
            (node.integer("replaced_value_int64")?.unwrap_or(0) as f64, by)
        }
    };
    match by.is_empty() {
        true => Err(Error::invalid("it has no values to put in")),
        false => Ok(Op::Impute { replaced, by }),
    }
}

/// `keys_*` to `values_*`, and `default_*`.
pub(super) fn label_map(node: &Node<'_>) -> Result<Map> {
    let side = |prefix: &str| -> Result<Option<Tensor>> {
        if let Some(tensor) = node.tensor(&format!("{prefix}_tensor"))? {
            return Ok(Some(tensor));
        }
        let integers = node.integers(&format!("{prefix}_int64s"))?;
        if !integers.is_empty() {
            return Ok(Some(integer_vector(integers)));
        }
        let floats = node.floats(&format!("{prefix}_floats"))?;
        if !floats.is_empty() {
            return Ok(Some(vector(Kind::F32, floats)));
        }
        let texts = node.texts(&format!("{prefix}_strings"))?;
        Ok((!texts.is_empty()).then(|| text_vector(texts)))
    };
    let needed = |prefix: &str| side(prefix)?.ok_or_else(|| Error::invalid(format!("it has no `{prefix}_*`")));
    let (keys, values) = (needed("keys")?, needed("values")?);
    if keys.values.len() != values.values.len() {
        return Err(Error::invalid(format!("{} keys for {} values", keys.values.len(), values.values.len())));
    }
    let otherwise = match (node.tensor("default_tensor")?, values.kind) {
        (Some(tensor), _) if tensor.values.len() == 1 && tensor.kind == values.kind => tensor,
        (_, Kind::Text) => text_vector(vec![node.text("default_string")?.unwrap_or("_Unused")]),
        (_, Kind::Integer) => vector(Kind::Integer, vec![node.integer("default_int64")?.unwrap_or(-1) as f64]),
        (_, kind) => vector(kind, vec![node.float("default_float")?.unwrap_or(-0.0)]),
    };
    Ok(Map { keys: sorted_keys(&keys), values, otherwise })
}

/// Keys in the order in which they are looked for; of the same twice, which is taken is open.
fn sorted_keys(keys: &Tensor) -> Keys {
    match keys.kind {
        Kind::Text => {
            let mut texts: Vec<(String, usize)> = keys.texts.iter().cloned().zip(0..).collect();
            texts.sort();
            Keys::Texts(texts)
        }
        _ => {
            let nan = keys.values.iter().position(|key| key.is_nan());
            let numbers = keys.values.iter().map(|key| key + 0.0).zip(0..).filter(|(key, _)| !key.is_nan());
            let mut numbers: Vec<(f64, usize)> = numbers.collect();
            numbers.sort_by(|a, b| a.0.total_cmp(&b.0));
            Keys::Numbers(numbers, nan)
        }
    }
}

/// Between texts and integers, whichever the input is: CategoryMapper, and the first version of LabelEncoder, whose integers
/// are places.
pub(super) fn class_maps(node: &Node<'_>, texts: &str) -> Result<Op> {
    let texts = text_vector(node.texts(texts)?);
    let places = || (0..texts.values.len() as i64).collect();
    let numbers = if node.has("cats_int64s") { node.integers("cats_int64s")? } else { places() };
    let numbers = integer_vector(numbers);
    if numbers.values.len() != texts.values.len() {
        let (numbers, texts) = (numbers.values.len(), texts.values.len());
        return Err(Error::invalid(format!("{texts} texts for {numbers} integers")));
    }
    let text = text_vector(vec![node.text("default_string")?.unwrap_or("_Unused")]);
    let number = integer_vector(vec![node.integer("default_int64")?.unwrap_or(-1)]);
    Ok(Op::MapEither {
        to_texts: Map { keys: sorted_keys(&numbers), values: texts.clone(), otherwise: text },
        to_numbers: Map { keys: sorted_keys(&texts), values: numbers, otherwise: number },
    })
}

//! What makes two questions the same.
//!
//! Owns the digest of a question: of the named inputs and parameters, or of all inputs. Separate from keeping answers, because
//! learning and answering must agree on it bit for bit. Bounded by: one digest a row. On failure: a question that lacks a part
//! of its key has no digest.

use mainstay_sdk::Result;
use mainstay_sdk::fallback::Ask;
use mainstay_sdk::tensors::{Parameter, Tensor};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

/// SHA-256 of a question.
pub type Digest = [u8; 32];

/// One part of a key.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    /// An input of this name.
    Input(String),
    /// A parameter of this name.
    Parameter(String),
}

/// The inputs that the key is made of; large ones that it does not name are not read.
pub fn inputs(key: &[Part], ask: &Ask) -> Result<Vec<Tensor>> {
    if key.is_empty() {
        return ask.inputs();
    }
    let names = key.iter().filter_map(|part| match part {
        Part::Input(name) => Some(name),
        Part::Parameter(_) => None,
    });
    names.filter_map(|name| ask.input(name).transpose()).collect()
}

/// A digest for each row; none where the key's inputs have no rows in common, or there are none.
pub fn rows(key: &[Part], inputs: &[Tensor], parameters: &[(String, Parameter)]) -> Result<Option<Vec<Digest>>> {
    let Some(named) = select(key, inputs) else { return Ok(None) };
    let Some(first) = named.first() else { return Ok(None) };
    if named.iter().any(|tensor| tensor.shape.is_empty() || tensor.rows() != first.rows()) {
        return Ok(None);
    }
    let columns = named.iter().map(|tensor| tensor.split()).collect::<Result<Vec<_>>>();
    let Ok(columns) = columns else { return Ok(None) };
    let count = columns.first().map_or(0, Vec::len);
    if columns.iter().any(|column| column.len() != count) {
        return Ok(None);
    }
    let row = |at: usize| digest(key, columns.iter().map(|column| &column[at]), parameters);
    Ok((0..count).map(row).collect())
}

/// The digest of all rows together; none where a part of the key is missing.
pub fn whole(key: &[Part], inputs: &[Tensor], parameters: &[(String, Parameter)]) -> Option<Digest> {
    let named = select(key, inputs)?;
    digest(key, named.into_iter(), parameters)
}

/// The inputs of the key, in its order; none where one is missing.
fn select<'a>(key: &[Part], inputs: &'a [Tensor]) -> Option<Vec<&'a Tensor>> {
    if key.is_empty() {
        // The order in which a client names its inputs says nothing.
        let mut all: Vec<&Tensor> = inputs.iter().collect();
        all.sort_by(|one, other| one.name.cmp(&other.name));
        return Some(all);
    }
    let names = key.iter().filter_map(|part| match part {
        Part::Input(name) => Some(name),
        Part::Parameter(_) => None,
    });
    names.map(|name| inputs.iter().find(|input| input.name == *name)).collect()
}

fn digest<'a>(
    key: &[Part],
    inputs: impl Iterator<Item = &'a Tensor>,
    parameters: &[(String, Parameter)],
) -> Option<Digest> {
    let mut hash = Sha256::new();
    // Every text behind its length, so that no two questions run into each other.
    let mut add = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    };
    for input in inputs {
        add(input.name.as_bytes());
        add(input.datatype.name().as_bytes());
        input.shape.iter().for_each(|extent| add(&extent.to_le_bytes()));
        add(b"");
        add(&input.data);
    }
    for part in key {
        if let Part::Parameter(name) = part {
            let (_, value) = parameters.iter().find(|(known, _)| known == name)?;
            add(name.as_bytes());
            add(value.to_string().as_bytes());
        }
    }
    Some(hash.finalize().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(ids: &[i64]) -> Tensor {
        Tensor::int64("user", &[ids.len() as u64], ids).unwrap()
    }

    #[test]
    fn a_row_is_the_same_question_in_any_batch() {
        let key = [Part::Input("user".into())];
        let batch = rows(&key, &[user(&[1, 2, 3])], &[]).unwrap().unwrap();
        let alone = rows(&key, &[user(&[2])], &[]).unwrap().unwrap();
        assert_eq!(batch[1], alone[0]);
        assert_ne!(batch[0], batch[1]);
        assert_eq!(whole(&key, &[user(&[2])], &[]), Some(alone[0]));
    }

    #[test]
    fn only_what_the_key_names_counts_and_it_must_be_there() {
        let key = [Part::Input("user".into()), Part::Parameter("market".into())];
        let other = Tensor::fp32("age", &[1], &[40.0]).unwrap();
        let market = |name: &str| vec![("market".to_owned(), Parameter::Text(name.into()))];
        let asked = whole(&key, &[user(&[1])], &market("de"));
        assert!(asked.is_some());
        assert_eq!(asked, whole(&key, &[other, user(&[1])], &market("de")));
        assert_ne!(asked, whole(&key, &[user(&[1])], &market("fr")));
        assert_eq!(whole(&key, &[user(&[1])], &[]), None);
        assert_eq!(whole(&key, &[], &market("de")), None);
    }

    #[test]
    fn without_a_key_all_inputs_count_in_any_order() {
        let age = Tensor::fp32("age", &[1], &[40.0]).unwrap();
        let one = whole(&[], &[user(&[1]), age.clone()], &[]);
        assert_eq!(one, whole(&[], &[age.clone(), user(&[1])], &[]));
        assert_ne!(one, whole(&[], &[age, user(&[2])], &[]));
    }
}

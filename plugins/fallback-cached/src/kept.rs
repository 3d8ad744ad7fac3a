//! An answer as it is kept.
//!
//! Owns its form in the plugin's keys: JSON, with the tensors' bytes in base64. Bounded by: what a lesson has, 64 KiB. On failure: what
//! cannot be read is `internal` and names the key's content; learning the answer again replaces it.

use crate::question::Digest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mainstay_sdk::fallback::Lesson;
use mainstay_sdk::tensors::{Datatype, Tensor};
use mainstay_sdk::{Error, Result};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// One answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Kept {
    question: String,
    /// When it was given, in milliseconds since 1970-01-01 UTC.
    pub at_ms: i64,
    /// The model that gave it.
    pub model: String,
    /// Its version.
    pub version: String,
    outputs: Vec<KeptTensor>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct KeptTensor {
    name: String,
    datatype: Datatype,
    shape: Vec<u64>,
    data: String,
}

impl Kept {
    /// The answer of a lesson, or of a row of it, to the question of this digest.
    pub fn of(question: Digest, lesson: &Lesson, outputs: &[Tensor]) -> Kept {
        let kept = |tensor: &Tensor| KeptTensor {
            name: tensor.name.clone(),
            datatype: tensor.datatype,
            shape: tensor.shape.clone(),
            data: STANDARD.encode(&tensor.data),
        };
        Kept {
            question: STANDARD.encode(question),
            at_ms: lesson.answered_ms,
            model: lesson.model.clone(),
            version: lesson.version.clone(),
            outputs: outputs.iter().map(kept).collect(),
        }
    }

    /// Whether it answers this question, and not another one in the same place.
    pub fn is_of(&self, question: &Digest) -> bool {
        self.question == STANDARD.encode(question)
    }

    /// Names the answer, whatever it answers.
    pub fn content(&self) -> String {
        let mut hash = Sha256::new();
        for output in &self.outputs {
            hash.update(format!("{:?} {:?} {:?} {}\n", output.name, output.datatype, output.shape, output.data));
        }
        STANDARD.encode(hash.finalize())
    }

    /// Its tensors.
    pub fn outputs(&self) -> Result<Vec<Tensor>> {
        let tensor = |kept: &KeptTensor| {
            let data = STANDARD.decode(&kept.data).map_err(|_| unreadable("its bytes are no base64"))?;
            Tensor::new(&kept.name, kept.datatype, &kept.shape, data)
        };
        self.outputs.iter().map(tensor).collect()
    }
}

/// What was written with `put_json`.
pub fn read(value: &[u8]) -> Result<Kept> {
    serde_json::from_slice(value).map_err(|error| unreadable(&error.to_string()))
}

fn unreadable(why: &str) -> Error {
    Error::internal(format!("a kept answer cannot be read: {why}; it is replaced when the question is answered again"))
}

//! From foreign files to models.
//!
//! Owns the recognition of formats and what importers share: limits, the value that JSON-like files become, the way from a
//! file's nodes to a tree. One module a format. Files are hostile until read: what they claim about themselves is checked
//! against [`Limits`] and against what they contain before anything is allocated for it, indices before they are used, and
//! walks before they are walked. Nothing is decompressed.
//!
//! Bounded by: [`Limits`]. On failure: `invalid` names the format, the place in the file, what stands there and what was
//! expected.

mod assemble;
mod lightgbm;
mod limits;
mod onnx;
mod value;
mod xgboost_json;
mod xgboost_ubjson;

use mainstay_base::{Error, Result};

pub use limits::Limits;
pub use onnx::{OnnxUnsupported, is_unsupported_operation};

use crate::model::Model;

/// Read a model of any known format, within the default limits.
pub fn import(bytes: &[u8]) -> Result<Model> {
    import_within(bytes, &Limits::default())
}

/// Read a model of any known format: XGBoost's JSON and UBJSON, LightGBM's text, ONNX. The format is told by the bytes.
pub fn import_within(bytes: &[u8], limits: &Limits) -> Result<Model> {
    Limits::check("bytes in the file", bytes.len(), limits.file_bytes)?;
    // A mark of the byte order and space may stand before text.
    let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes).trim_ascii_start();
    match (bytes, text) {
        ([], _) => Err(Error::invalid("the file is empty; give a model file")),
        ([0x1f, 0x8b, ..] | [b'P', b'K', 3 | 5, ..] | [0x28, 0xb5, 0x2f, 0xfd, ..] | [b'B', b'Z', b'h', ..], _)
        | ([0xfd, b'7', b'z', b'X', ..], _) => {
            Err(Error::invalid("the file is compressed or an archive; decompress it and give the model file itself"))
        }
        ([0x80, 2..=5, ..], _) => Err(Error::invalid(
            "the file is a Python pickle, which cannot be read safely; save the model as ONNX or in its library's own format",
        )),
        (_, [b'{', rest @ ..]) if is_json(rest) => xgboost_json::read(&value::parse_json(text, limits)?, limits),
        ([b'{', ..], _) => xgboost_json::read(&xgboost_ubjson::parse(bytes, limits)?, limits),
        (_, [b't', b'r', b'e', b'e', b'\n' | b'\r', ..]) => {
            let text =
                std::str::from_utf8(text).map_err(|_| Error::invalid("LightGBM model: the file is not UTF-8"))?;
            lightgbm::read(text, limits)
        }
        ([b'b', b'i', b'n', b'f', ..], _) => {
            Err(Error::invalid("the file is XGBoost's old binary format; save the model again as JSON or UBJSON"))
        }
        // A message begins with a field of a low number.
        ([key, ..], _) if matches!(key & 7, 0 | 2) && (1..=25).contains(&(key >> 3)) => onnx::read(bytes, limits),
        _ => Err(Error::invalid(
            "the file is of no known format; XGBoost JSON or UBJSON, LightGBM text and ONNX can be read",
        )),
    }
}

/// Whether what follows the first brace is JSON: a key in quotes or nothing. In UBJSON a type and a length follow.
fn is_json(rest: &[u8]) -> bool {
    matches!(rest.trim_ascii_start(), [b'"' | b'}', ..] | [])
}

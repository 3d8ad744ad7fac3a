//! Compressed bodies.
//!
//! Owns `Content-Encoding` of requests and `Accept-Encoding` of answers, for gzip and deflate (which is zlib's format, as clients
//! of this protocol send it). Separate, because what is inflated can be a thousand times what was sent.
//!
//! Bounded by the limit that is given: inflating stops one byte beyond it. On failure: `invalid`.

use std::io::{Read, Write};

use bytes::Bytes;
use flate2::Compression;
use flate2::read::{MultiGzDecoder, ZlibDecoder};
use flate2::write::{GzEncoder, ZlibEncoder};
use mainstay_base::{Error, Result};

/// How a body is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Coding {
    Gzip,
    Deflate,
}

/// A body that is too large, before or after it was inflated.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooLarge;

impl Coding {
    /// What a request says of its body; none for a plain one.
    pub(crate) fn of_request(value: &str) -> Result<Option<Coding>> {
        match value.trim() {
            "" => Ok(None),
            value if value.eq_ignore_ascii_case("identity") => Ok(None),
            value if value.eq_ignore_ascii_case("gzip") || value.eq_ignore_ascii_case("x-gzip") => {
                Ok(Some(Coding::Gzip))
            }
            value if value.eq_ignore_ascii_case("deflate") => Ok(Some(Coding::Deflate)),
            value => {
                Err(Error::invalid(format!("content encoding `{value}` is not known; send gzip, deflate or identity")))
            }
        }
    }

    /// What an answer may be compressed with, by what its caller accepts; gzip where both are as welcome.
    pub(crate) fn of_answer(accepted: &str) -> Option<Coding> {
        let weight = |coding: &str| {
            let weights = accepted.split(',').filter_map(|part| {
                let mut words = part.split(';');
                let name = words.next()?.trim();
                if !name.eq_ignore_ascii_case(coding) && name != "*" {
                    return None;
                }
                let weight =
                    words.find_map(|word| word.trim().strip_prefix("q=")?.trim().parse::<f32>().ok()).unwrap_or(1.0);
                // What is named counts before what the star stands for.
                Some((name != "*", weight))
            });
            weights.max_by_key(|(named, _)| *named).map_or(0.0, |(_, weight)| weight)
        };
        let (gzip, deflate) = (weight("gzip"), weight("deflate"));
        match (gzip > 0.0, deflate > 0.0) {
            (false, false) => None,
            _ if gzip >= deflate => Some(Coding::Gzip),
            _ => Some(Coding::Deflate),
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Coding::Gzip => "gzip",
            Coding::Deflate => "deflate",
        }
    }

    /// The body as it was before it was compressed, if that is at most `limit_bytes` long.
    pub(crate) fn inflate(self, body: &[u8], limit_bytes: usize) -> Result<Result<Bytes, TooLarge>> {
        match self {
            Coding::Gzip => read_bounded(MultiGzDecoder::new(body), limit_bytes),
            Coding::Deflate => read_bounded(ZlibDecoder::new(body), limit_bytes),
        }
        .map_err(|error| Error::invalid(format!("the body is not {}: {error}", self.name())).with_source(error))
    }

    /// These pieces as one compressed body.
    pub(crate) fn deflate(self, pieces: &[Bytes]) -> Bytes {
        let all = || pieces.iter().map(|piece| &piece[..]);
        // Fast: models answer with numbers, which hardly get smaller with more effort.
        match self {
            Coding::Gzip => {
                let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
                all().try_for_each(|piece| encoder.write_all(piece)).and_then(|()| encoder.finish())
            }
            Coding::Deflate => {
                let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
                all().try_for_each(|piece| encoder.write_all(piece)).and_then(|()| encoder.finish())
            }
        }
        .expect("memory can be written to")
        .into()
    }
}

fn read_bounded(decoder: impl Read, limit_bytes: usize) -> std::io::Result<Result<Bytes, TooLarge>> {
    let mut inflated = Vec::new();
    decoder.take((limit_bytes as u64).saturating_add(1)).read_to_end(&mut inflated)?;
    Ok(if inflated.len() > limit_bytes { Err(TooLarge) } else { Ok(inflated.into()) })
}

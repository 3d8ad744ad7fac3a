//! Pages of search results.
//!
//! Owns how a question becomes an answer of bounded size: rows are taken from the index in parts, and a page ends early
//! once it is large, with a token for the rest. It is separate because five searches page alike. The host orders and
//! filters; the token names the last row's place, so that rows added meanwhile neither repeat nor hide others.

use crate::errors::Outcome;
use crate::search::order::Key;
use crate::search::plan::{self, Fingerprint};
use mainstay_sdk::index::{self, DocumentRef, Filter, Query, Selection, field};

/// A page ends after the part in which it reached this size.
const PAGE_BYTES_TARGET: usize = 8 << 20;
/// Most rows of a part: what the host gives at once is held in memory beside the answer.
const PART_ROWS_MAX: u32 = 10_000;
/// Rows of the first part.
const PART_ROWS: u32 = 1_000;

/// Only documents of the stages that a view type shows.
pub fn stage(view: i64) -> Filter {
    match view {
        2 => field("lifecycle_stage").equal("deleted"),
        3 => Filter::everything(),
        _ => field("lifecycle_stage").equal("active"),
    }
}

/// A question and the size of its pages.
pub struct Search {
    /// Which index.
    pub index: &'static str,
    /// Which documents.
    pub filter: Filter,
    /// In which order.
    pub order: Vec<Key>,
    /// Most rows of a page.
    pub rows: u32,
    /// What a token must belong to.
    pub fingerprint: Fingerprint,
}

impl Search {
    /// One page as `{"<name>":[…],"next_page_token":…}`, each row written by itself.
    pub fn answer(
        self,
        name: &str,
        token: Option<&str>,
        mut write: impl FnMut(&mut Vec<u8>, &DocumentRef<'_>),
    ) -> Outcome<Vec<u8>> {
        self.answer_in_parts(name, token, |out, part| {
            for (at, document) in part.iter().enumerate() {
                if at > 0 {
                    out.push(b',');
                }
                write(out, &document);
            }
            Ok(())
        })
    }

    /// The same where rows need something that is better fetched for a whole part. `write` puts commas between rows.
    pub fn answer_in_parts(
        self,
        name: &str,
        token: Option<&str>,
        mut write: impl FnMut(&mut Vec<u8>, &Selection) -> Outcome<()>,
    ) -> Outcome<Vec<u8>> {
        let mut after = plan::cursor(self.fingerprint, token)?;
        let mut query = plan::ordered(Query::new().filter(self.filter), &self.order);
        let mut out = b"{".to_vec();
        let mut left = self.rows;
        let mut part_rows = PART_ROWS;
        loop {
            query = query.after(after.take()).limit(left.min(part_rows));
            let part = index::select(self.index, &query)?;
            if !part.is_empty() {
                if out.len() == 1 {
                    out.extend_from_slice(format!("\"{name}\":[").as_bytes());
                } else {
                    out.push(b',');
                }
                let before = out.len();
                write(&mut out, &part)?;
                // The next part is as large as the room that is left, judged by the rows so far.
                let row_bytes = ((out.len() - before) / part.len()).max(64);
                part_rows = u32::try_from(PAGE_BYTES_TARGET.saturating_sub(out.len()) / row_bytes)
                    .unwrap_or(0)
                    .clamp(1, PART_ROWS_MAX);
            }
            left -= u32::try_from(part.len()).unwrap_or(left);
            after = part.next().map(<[u8]>::to_vec);
            if left == 0 || after.is_none() || out.len() >= PAGE_BYTES_TARGET {
                break;
            }
        }
        if out.len() > 1 {
            out.push(b']');
        }
        if let Some(cursor) = after {
            if out.len() > 1 {
                out.push(b',');
            }
            out.extend_from_slice(
                format!("\"next_page_token\":\"{}\"", plan::page_token(self.fingerprint, &cursor)).as_bytes(),
            );
        }
        out.push(b'}');
        Ok(out)
    }
}

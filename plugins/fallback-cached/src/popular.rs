//! Which answers are given most often.
//!
//! Owns a list of answers and counts: the "space saving" summary of Metwally, Agrawal and El Abbadi (2005), in which the rarest
//! answer makes room and its count is inherited, so that what is truly frequent is always in the list. Bounded by:
//! [`ANSWERS_MAX`]. On failure: nothing here fails.

use crate::kept::Kept;
use serde::{Deserialize, Serialize};

/// Answers in a list.
pub const ANSWERS_MAX: usize = 16;

/// Answers with how often they were given.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct List {
    answers: Vec<Counted>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Counted {
    content: String,
    count: u64,
    kept: Kept,
}

impl List {
    /// Counts these answers; those that nobody was given since `oldest_ms` go.
    pub fn count(&mut self, given: &[Kept], oldest_ms: i64) {
        self.answers.retain(|counted| counted.kept.at_ms >= oldest_ms);
        for kept in given {
            let content = kept.content();
            if let Some(known) = self.answers.iter_mut().find(|counted| counted.content == content) {
                known.count += 1;
                known.kept.at_ms = known.kept.at_ms.max(kept.at_ms);
                continue;
            }
            let rarest = self.answers.iter().enumerate().min_by_key(|(_, counted)| counted.count);
            let inherited = match rarest.map(|(place, counted)| (place, counted.count)) {
                Some((place, count)) if self.answers.len() >= ANSWERS_MAX => {
                    self.answers.swap_remove(place);
                    count
                }
                _ => 0,
            };
            self.answers.push(Counted { content, count: inherited + 1, kept: kept.clone() });
        }
    }

    /// The answer that was given most often, and not before `oldest_ms`; of several the newest.
    pub fn first(self, oldest_ms: i64) -> Option<Kept> {
        let young = self.answers.into_iter().filter(|counted| counted.kept.at_ms >= oldest_ms);
        young.max_by_key(|counted| (counted.count, counted.kept.at_ms)).map(|counted| counted.kept)
    }
}

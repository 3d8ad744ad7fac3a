//! Answering a query: filter, order, cut a page, pack it.
//!
//! Only the page is sorted: a partial selection finds its documents among all that match, so a page of a hundred out of a
//! hundred thousand costs about as much as looking at each once. Bounded by the query's limit and [`PAGE_BYTES_MAX`].

use mainstay_base::Result;

use super::Index;
use super::filter::Filter;
use super::order::{Candidate, Ranking};
use super::query::{PAGE_BYTES_MAX, Query, Selection};
use super::row::pack_document;

/// Check a query as [`select`] would, against an index that is not there.
pub(super) fn select_nothing(query: &Query) -> Result<Selection> {
    select(&Index::default(), query)
}

/// Answer a query.
pub(super) fn select(index: &Index, query: &Query) -> Result<Selection> {
    query.check()?;
    let filter = Filter::parse(&query.filter)?;
    let ranking = Ranking::new(index, &query.order);
    let place = query.after.as_deref().map(|cursor| ranking.parse_cursor(cursor)).transpose()?;

    let matching = filter.map(|filter| filter.evaluate(index, None));
    let matching = matching.as_ref().unwrap_or(index.live());
    let matched = matching.count();
    let mut candidates = Vec::with_capacity(matched);
    candidates.extend(matching.iter().map(|ordinal| ranking.candidate(ordinal)));
    if let Some(place) = place {
        candidates.retain(|candidate| ranking.is_behind(candidate, &place));
    }

    let limit = query.limit as usize;
    let has_more = candidates.len() > limit;
    cut(&mut candidates, limit, &ranking);
    let mut selection = pack(index, &candidates, query.fields.as_deref());
    selection.matched = matched as u64;
    if has_more || (selection.count as usize) < candidates.len() {
        let last = candidates[selection.count as usize - 1];
        selection.next = Some(ranking.cursor(last.ordinal));
    }
    Ok(selection)
}

/// Keep the first `limit` in order.
fn cut(candidates: &mut Vec<Candidate>, limit: usize, ranking: &Ranking<'_>) {
    if candidates.len() > limit {
        candidates.select_nth_unstable_by(limit - 1, |a, b| ranking.compare(a, b));
        candidates.truncate(limit);
    }
    candidates.sort_unstable_by(|a, b| ranking.compare(a, b));
}

/// Pack documents until the page is full; one is always packed.
fn pack(index: &Index, candidates: &[Candidate], fields: Option<&[String]>) -> Selection {
    let wanted = fields.map(|fields| index.wanted(fields));
    let mut selection = Selection::default();
    for candidate in candidates {
        pack_document(&mut selection.documents, index, candidate.ordinal, wanted.as_deref());
        selection.count += 1;
        if selection.count == 1 {
            let about = selection.documents.len().saturating_mul(candidates.len());
            selection.documents.reserve(about.min(PAGE_BYTES_MAX));
        }
        if selection.documents.len() >= PAGE_BYTES_MAX {
            break;
        }
    }
    selection
}

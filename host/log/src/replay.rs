//! Reads the log back in order.
//!
//! Separate from the writer: it reads by its own file handles, up to what was durable when it began, so it may run beside
//! appends. Every record is verified; a segment that ends before its follower starts is damage, never a silent gap. After
//! an error the iterator ends. A segment dropped meanwhile is an error too.

use std::sync::Arc;

use mainstay_base::{Error, Result};

use crate::reader::{Opening, Reader, Step};
use crate::recover::header_damaged;
use crate::segments::Segments;

/// Records in order, as [`Log::replay`](crate::Log::replay) gives them.
pub struct Replay {
    segments: Arc<Segments>,
    /// First sequences of the segments that are still to read, the next one last.
    left: Vec<u64>,
    reader: Option<Reader>,
    next: u64,
    from: u64,
    until: u64,
    refusal: Option<Error>,
}

impl Replay {
    pub(crate) fn new(segments: Arc<Segments>, from: u64, until: u64) -> Replay {
        let firsts = segments.firsts();
        let (oldest, from) = (firsts[0], from.max(1));
        let refusal = if from < oldest {
            Some(Error::not_found(format!(
                "the log in `{}` starts at record {oldest}, but was asked for {from}: what reads it is older than the log; \
                 restore both from the same backup",
                segments.folder.display()
            )))
        } else if from > until + 1 {
            Some(Error::internal(format!(
                "the log in `{}` ends at record {until}, but was asked for {from}: what reads it has seen records that the \
                 log has lost; restore both from the same backup",
                segments.folder.display()
            )))
        } else {
            None
        };
        let skip = firsts.partition_point(|first| *first <= from).saturating_sub(1);
        let left: Vec<u64> = firsts[skip..].iter().rev().copied().collect();
        let next = left.last().copied().unwrap_or(from);
        Replay { segments, left, reader: None, next, from, until, refusal }
    }

    fn read(&mut self) -> Result<Option<(u64, Vec<u8>)>> {
        if let Some(refusal) = self.refusal.take() {
            return Err(refusal);
        }
        while self.from <= self.until && self.next <= self.until {
            if let Some((sequence, payload)) = self.step()?
                && sequence >= self.from
            {
                return Ok(Some((sequence, payload)));
            }
        }
        Ok(None)
    }

    fn step(&mut self) -> Result<Option<(u64, Vec<u8>)>> {
        let Some(reader) = &mut self.reader else {
            let first = self.left.pop().ok_or_else(|| Error::internal("the log ends before its last record"))?;
            self.reader = Some(open(&self.segments, first)?);
            return Ok(None);
        };
        match reader.step(self.next)? {
            Step::Record { payload, .. } => {
                self.next += 1;
                Ok(Some((self.next - 1, payload)))
            }
            Step::Mark => Ok(None),
            Step::Stop(_) if self.left.last() == Some(&self.next) => {
                self.reader = None;
                Ok(None)
            }
            Step::Stop(reason) => Err(reader.corruption(self.next, reason)),
        }
    }
}

fn open(segments: &Segments, first: u64) -> Result<Reader> {
    match Reader::open(&*segments.disk, segments.path(first), first)? {
        Opening::Good(reader) => Ok(reader),
        Opening::Unfinished | Opening::Damaged => Err(header_damaged(segments, first)),
    }
}

impl Iterator for Replay {
    type Item = Result<(u64, Vec<u8>)>;

    fn next(&mut self) -> Option<Result<(u64, Vec<u8>)>> {
        let item = self.read().transpose();
        if matches!(item, Some(Err(_))) {
            self.until = 0;
        }
        item
    }
}

//! One question to a statistic, and the kernel that answers them in batches.
//!
//! Owns [`Question`], what a statistic must be to be batched, and [`Questions`], the kernel behind all of them. Questions of
//! one name are launched together, whoever asks; on a processor each is computed where its columns lie, one after the
//! other, and launches run on several threads. A device would take the whole launch. Not divisible: a statistic over one
//! column is one piece of work.
//!
//! Bounded by: [`ROWS_MAX`] rows a launch, so that one caller's flood delays another's question by no more than that. On
//! failure: the question's own error, and no other's.

use std::any::Any;

use mainstay_base::{Error, Result};

use crate::batcher::{Batch, Kernel};

/// Rows in one launch. A question over more counts as that many.
pub const ROWS_MAX: usize = 1 << 20;

/// A statistic, ready to be computed.
pub trait Question: Send + Sync + 'static {
    /// What it is answered.
    type Answer: Send + 'static;
    /// Name of the statistic, for metrics; questions of one name are launched together.
    const NAME: &'static str;
    /// How many values it looks at.
    fn rows(&self) -> usize;
    /// Compute. Pure: the same question has the same answer, bit for bit.
    fn answer(&self) -> Result<Self::Answer>;
}

/// A question whose type is known to who asked.
pub(crate) type Asked = Box<dyn Erased>;

/// See [`Question`].
pub(crate) trait Erased: Send + Sync {
    fn name(&self) -> &'static str;
    fn rows(&self) -> usize;
    fn answer(&self) -> Result<Box<dyn Any + Send>>;
}

impl<Q: Question> Erased for Q {
    fn name(&self) -> &'static str {
        Q::NAME
    }

    fn rows(&self) -> usize {
        Question::rows(self)
    }

    fn answer(&self) -> Result<Box<dyn Any + Send>> {
        Ok(Box::new(Question::answer(self)?))
    }
}

/// The kernel behind all questions.
pub(crate) struct Questions;

impl Kernel for Questions {
    type Shape = &'static str;
    type Request = Asked;
    type Answer = Box<dyn Any + Send>;

    fn name(&self) -> &str {
        "statistics"
    }

    fn shape(&self, request: &Asked) -> &'static str {
        request.name()
    }

    fn rows(&self, request: &Asked) -> usize {
        request.rows().clamp(1, ROWS_MAX)
    }

    fn is_divisible(&self) -> bool {
        false
    }

    fn launch(&self, batch: &Batch<'_, Self>, answers: &mut Vec<Result<Self::Answer>>) {
        answers.extend(batch.iter().map(|part| part.request.answer()));
    }
}

/// The typed answer out of the kernel's.
pub(crate) fn typed<Q: Question>(answer: Box<dyn Any + Send>) -> Result<Q::Answer> {
    match answer.downcast::<Q::Answer>() {
        Ok(answer) => Ok(*answer),
        Err(_) => Err(Error::internal(format!("the statistic `{}` answered another type", Q::NAME))),
    }
}

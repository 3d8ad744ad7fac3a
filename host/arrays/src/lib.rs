//! Columns and frames that the host owns and plugins hold by handle.
//!
//! Owns [`Column`]: values of one type in Arrow's layout, in one or several chunks, with validity bits; [`Frame`]: named
//! columns of one length; [`Numbers`] and [`Texts`]: what kernels read, borrowed where the values lie; and [`Budget`]: how
//! many bytes one plugin may hold. Separate because everything numeric reads columns and nothing numeric should care where
//! they came from: a plugin's list, a decoded file, a window of a table, the answer of a kernel. What is computed place by
//! place is here too ([`ops`]), as it needs nothing but a column, and so are joins in the order of time ([`join`]).
//!
//! Invariants: values never change once they are in a column; a view copies no value; what a column charged to a budget
//! is given back when the last handle to it is gone; buffers that are made here start at a multiple of [`ALIGN_BYTES`], as
//! device transfers and wide loads like it.
//!
//! Bounded by: the budget that a column is charged to, [`CHUNKS_MAX`], [`COLUMNS_MAX`]. On failure: `invalid` names the
//! column, its type and what was wanted; `exhausted` names the budget.
#![forbid(unsafe_code)]

mod budget;
mod column;
mod frame;
pub mod join;
pub mod ops;
mod types;
mod view;

pub use arrow_array::ArrayRef;
pub use arrow_buffer::{BooleanBuffer, NullBuffer};
pub use budget::{Budget, Charge};
pub use column::{ALIGN_BYTES, CHUNKS_MAX, Column};
pub use frame::{COLUMNS_MAX, Frame};
pub use types::ValueType;
pub use view::{Bits, Chunk, Number, Numbers, TextChunk, Texts};

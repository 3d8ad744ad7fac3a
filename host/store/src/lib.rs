//! Transactions, ordered keys, indexes and blobs over the commit log.

pub mod index;
pub mod value;

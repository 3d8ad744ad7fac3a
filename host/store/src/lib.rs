//! Transactions, ordered keys, indexes and blobs over the commit log.

//! The commit log: one durable, checksummed sequence of records with group commit.

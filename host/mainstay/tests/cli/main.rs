//! The real binary, from outside: what it prints, its exit codes, and what a server does.
//!
//! One test binary, because each would link the whole host. Text is compared with snapshots after what differs between
//! runs (paths, ports, digests, times) was replaced; see [`support`].

mod commands;
mod jobs;
mod plugins;
mod server;
mod support;

//! Upstreams, held from outside: servers that behave, servers that do not, and the real one.
//!
//! One binary, so that it links once.

mod behaved;
mod faults;
mod grpc;
mod http;
mod known;
mod limits;
mod streams;
mod support;
mod tls;

//! What traffic promises, held from outside: endpoints and plans that are kept, the way of a request with everything that can go
//! wrong on it, fallbacks, mirrors, tripwires, faults, streams, and hostile specifications.
//!
//! One binary, so that it links once. Time is tokio's, which stands still unless a test says otherwise.

mod crash;
mod endpoints;
mod fallbacks;
mod faults;
mod hostile;
mod mirrors;
mod path;
mod specification;
mod streams;
mod stress;
mod support;
mod tenants;
mod tripwires;
mod watching;

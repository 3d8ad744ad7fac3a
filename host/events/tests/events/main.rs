//! What topics promise, held from outside: the rules of events, subscriptions, dead letters and retention, drivers, and
//! simulations over many seeds.
//!
//! One binary, so that it links once.

mod delivering;
mod driver;
mod simulation;
mod support;
mod topics;

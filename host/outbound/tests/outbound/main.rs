//! Calls out of the house, held from outside: a network that lies, servers of this machine, and deliveries through the
//! scheduler.
//!
//! One binary, so that it links once.

mod calls;
mod deliveries;
mod internet;
mod support;

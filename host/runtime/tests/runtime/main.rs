//! The runtime with components in WebAssembly text, in one binary: linking the engine once is the cost of these tests.

mod calls;
mod compile;

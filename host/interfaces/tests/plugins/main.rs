//! Whole plugins in a whole host, in one binary: linking the engine once is the cost of these tests.

mod fallback;
mod guest;
mod host_functions;
mod hostile;

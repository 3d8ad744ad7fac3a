//! Write Mainstay plugins in Rust.

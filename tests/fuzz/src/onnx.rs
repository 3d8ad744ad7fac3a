//! Hostile bytes for the importer of this format: never a panic, never more memory than the bytes explain; what is taken in
//! predicts, explains and says what it is without one either.
#![no_main]

mod exercise;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| exercise::model(bytes));

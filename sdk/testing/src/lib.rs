//! Test a packed plugin in a real host, in process.

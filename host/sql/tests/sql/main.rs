//! SQL from outside: what it may see, what it may not do, and what it may take.

mod queries;
#[allow(dead_code, reason = "what the tables' own tests need, too")]
#[path = "../../../tables/tests/tables/support.rs"]
mod support;

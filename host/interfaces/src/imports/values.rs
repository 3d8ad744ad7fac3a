//! `mainstay:types/values`: the typed value, between the contract's form and the store's.

use mainstay_bindings::mainstay::types::values::{Host, Value as Wire};
use mainstay_store::Value;

use crate::state::State;

impl Host for State {}

/// The store's form.
pub(crate) fn to_store(value: Wire) -> Value {
    match value {
        Wire::Text(text) => Value::Text(text),
        Wire::Integer(integer) => Value::Integer(integer),
        Wire::Real(real) => Value::Real(real),
        Wire::Boolean(boolean) => Value::Boolean(boolean),
        Wire::Texts(texts) => Value::Texts(texts),
        Wire::Bytes(bytes) => Value::Bytes(bytes),
    }
}

//! Records ⇄ the text that the store keeps, in Patroni 4.1's formats
//! (patroni-compat 1.3–1.6), and a whole view from the records of a cluster.
//!
//! Reading accepts every legacy form, and whatever else anybody wrote: it never
//! fails and never panics. Writing is compact JSON with Patroni's field order.

mod member;
mod read;
mod write;

pub(crate) use member::member_text;
pub(crate) use read::{initialize, leader, view};
pub(crate) use write::{failover_text, failsafe_text, history_text, status_text, sync_text};

use serde_json::Value;

/// A whole number, or text that is one.
fn whole(value: &Value) -> Option<u64> {
    match value {
        Value::Number(number) => number.as_u64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}

/// Text that says something.
fn text(value: &Value) -> Option<String> {
    value.as_str().filter(|text| !text.is_empty()).map(str::to_owned)
}

/// `field` of an object, if it is there and not null.
fn field<'a>(object: &'a Value, field: &str) -> Option<&'a Value> {
    object.get(field).filter(|value| !value.is_null())
}

/// JSON that an earlier writer may have put into a string.
fn unwrapped(value: &Value) -> Value {
    match value {
        Value::String(inner) => serde_json::from_str(inner).unwrap_or(Value::Null),
        other => other.clone(),
    }
}

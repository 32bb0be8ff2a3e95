//! How `PATCH /config` changes the shared configuration, and when a document counts
//! as unchanged (patroni-compat 2.5). Pure.

use std::borrow::Cow;

use config::ClusterConfig;
use serde_json::Value;

/// Merges `change` into `document`: null deletes, objects merge, anything else replaces.
/// Tells whether something changed; values are the same if they read the same.
pub fn patch(document: &mut Value, change: &Value) -> bool {
    let (Value::Object(document), Value::Object(change)) = (document, change) else { return false };
    let mut changed = false;
    for (key, value) in change {
        changed |= match document.get_mut(key) {
            _ if value.is_null() => document.remove(key).is_some_and(|old| !old.is_null()),
            Some(old) if old.is_object() && value.is_object() => patch(old, value),
            Some(old) if !value.is_object() && text(old) == text(value) => false,
            _ => {
                document.insert(key.clone(), value.clone());
                true
            }
        };
    }
    changed
}

/// Whether two documents have the same keys with values that read the same.
pub fn same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Object(one), Value::Object(other)) => {
            one.len() == other.len()
                && one.iter().all(|(key, value)| other.get(key).is_some_and(|other| same(value, other)))
        }
        (Value::Object(_), _) | (_, Value::Object(_)) => false,
        _ => text(one) == text(other),
    }
}

/// What is wrong in `after` that was not wrong in `before`, in one sentence per setting:
/// a value that no node could act on must not get into the store.
pub fn new_problem(before: &Value, after: &Value) -> Option<String> {
    let errors = |document: &Value| -> Vec<String> {
        ClusterConfig::wrong_values(document).iter().map(ToString::to_string).collect()
    };
    let known = errors(before);
    let new: Vec<String> = errors(after).into_iter().filter(|problem| !known.contains(problem)).collect();
    (!new.is_empty()).then(|| format!("{}; nothing was changed", new.join("; ")))
}

/// Patroni's reading of a switch.
pub fn is_on(value: &Value) -> bool {
    ["on", "true", "yes", "1"].contains(&text(value).to_lowercase().as_str())
}

/// The text form in which Patroni compares values: `"30"` is 30, but `"true"` is not true.
fn text(value: &Value) -> Cow<'_, str> {
    match value {
        Value::String(text) => Cow::Borrowed(text),
        Value::Bool(true) => Cow::Borrowed("True"),
        Value::Bool(false) => Cow::Borrowed("False"),
        other => Cow::Owned(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn patched(mut document: Value, change: &Value) -> (Value, bool) {
        let changed = patch(&mut document, change);
        (document, changed)
    }

    /// P079.
    #[test]
    fn patches_merge_and_null_deletes() {
        let before = json!({"ttl": 30, "postgresql": {"use_slots": true, "parameters": {"a": 1, "b": 2}}});
        let change = json!({"ttl": null, "pause": true, "postgresql": {"parameters": {"a": 5, "b": null}}});
        let after = json!({"pause": true, "postgresql": {"use_slots": true, "parameters": {"a": 5}}});
        assert_eq!(patched(before, &change), (after, true));
        assert_eq!(patched(json!({"a": 1}), &json!({"a": {"b": 2}})), (json!({"a": {"b": 2}}), true));
        assert_eq!(patched(json!({"a": {"b": 2}}), &json!({"a": 1})), (json!({"a": 1}), true));
        assert_eq!(patched(json!({}), &json!({"a": {"b": 2}})), (json!({"a": {"b": 2}}), true));
    }

    /// P079.
    #[test]
    fn what_reads_the_same_is_no_change() {
        for change in [json!({"ttl": "30"}), json!({"ttl": 30}), json!({"nothing": null}), json!({"o": {}})] {
            assert!(!patched(json!({"ttl": 30, "o": {"x": 1}}), &change).1, "{change}");
        }
        assert!(patched(json!({"pause": true}), &json!({"pause": "true"})).1);
        assert!(same(&json!({"a": {"b": 1}}), &json!({"a": {"b": "1"}})));
        assert!(!same(&json!({"a": 1}), &json!({"a": 1, "b": 2})));
        assert!(!same(&json!({"a": {}}), &json!({"a": 1})));
    }

    #[test]
    fn only_new_errors_count() {
        let good = json!({"ttl": 30});
        assert_eq!(new_problem(&good, &json!({"ttl": 20, "unknown_key": 1})), None);
        let problem = new_problem(&good, &json!({"ttl": "soon"})).unwrap();
        assert!(problem.contains("ttl"), "{problem}");
        assert_eq!(new_problem(&json!({"ttl": "soon"}), &json!({"ttl": "soon", "pause": true})), None);
    }
}

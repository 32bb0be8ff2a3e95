//! The few words of the cluster's shared configuration that answers depend on,
//! read from the document as it stands in the store.

use config::SynchronousMode;
use dcs::ClusterView;
use serde_json::Value;

fn setting<'a>(view: &'a ClusterView, name: &str) -> Option<&'a Value> {
    view.config.as_ref().and_then(|config| config.value.get(name))
}

/// Patroni's reading of a switch: `true`, `on`, `yes`, `1`, as JSON or as text.
pub(crate) fn is_on(value: &Value) -> bool {
    match value {
        Value::Bool(on) => *on,
        Value::Number(number) => number.as_i64() == Some(1),
        Value::String(text) => ["on", "true", "yes", "1"].iter().any(|on| text.eq_ignore_ascii_case(on)),
        _ => false,
    }
}

/// Whether operators have taken over (`pause`).
#[must_use]
pub fn paused(view: &ClusterView) -> bool {
    setting(view, "pause").is_some_and(is_on)
}

/// Whether the cluster follows another one: `standby_cluster` names a host, a port or a restore command.
#[must_use]
pub fn standby_cluster(view: &ClusterView) -> bool {
    let named = |source: &Value, key: &str| source.get(key).is_some_and(|v| !v.is_null() && v != "");
    setting(view, "standby_cluster")
        .is_some_and(|source| ["host", "port", "restore_command"].iter().any(|key| named(source, key)))
}

/// Which commits wait for standbys; a standby cluster's never do.
#[must_use]
pub fn synchronous(view: &ClusterView) -> SynchronousMode {
    match setting(view, "synchronous_mode") {
        _ if standby_cluster(view) => SynchronousMode::Off,
        Some(Value::String(mode)) if mode.eq_ignore_ascii_case("quorum") => SynchronousMode::Quorum,
        Some(value) if is_on(value) => SynchronousMode::On,
        _ => SynchronousMode::Off,
    }
}

/// Whether the leader may outlive the store (`failsafe_mode`).
pub(crate) fn failsafe_mode(view: &ClusterView) -> bool {
    setting(view, "failsafe_mode").is_some_and(is_on)
}

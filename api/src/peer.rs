//! What one member says to another about itself: the part of `GET /patroni`
//! that elections read, whoever wrote it, Patroni or matriarch.

use std::collections::BTreeMap;

use dcs::{Lsn, Timeline};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A member's answer to `GET <api_url>`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct PeerAnswer {
    /// Patroni's role text.
    pub role: String,
    /// Patroni's state text.
    pub state: String,
    /// Whether it answers as a primary (`xlog.location`, or a primary's role).
    pub primary: bool,
    /// Its position: a primary's, or the larger of received and replayed.
    pub position: Option<Lsn>,
    /// Its timeline.
    pub timeline: Option<Timeline>,
    /// Its tags.
    pub tags: BTreeMap<String, Value>,
    /// It must not lead because its watchdog failed.
    pub watchdog_failed: bool,
    /// It runs matriarch.
    pub matriarch: bool,
    /// The highest timeline of which the store has told it, whatever its own is: matriarch says it.
    #[serde(default)]
    pub known: Option<Timeline>,
}

impl PeerAnswer {
    /// Reads the body of `GET /patroni`; a body of Patroni without `xlog` or `wal` says
    /// nothing about a position and counts as no answer (patroni-compat 1.10, rule 10).
    #[must_use]
    pub fn read(body: &Value) -> Option<Self> {
        let role = body.get("role").and_then(Value::as_str).unwrap_or_default();
        let ours = body.get("patroni").filter(|patroni| patroni.get("matriarch").is_some());
        let xlog = body.get("xlog").or_else(|| body.get("wal"));
        if xlog.is_none() && ours.is_none() {
            return None;
        }
        let timeline = |value: &Value| value.as_u64().and_then(|n| u32::try_from(n).ok()).map(Timeline);
        let lsn = |name: &str| xlog.and_then(|xlog| xlog.get(name)).and_then(Value::as_u64).map(Lsn);
        let location = lsn("location");
        Some(Self {
            role: role.to_owned(),
            state: body.get("state").and_then(Value::as_str).unwrap_or_default().to_owned(),
            primary: location.is_some() || (xlog.is_some() && (role == "primary" || role == "master")),
            position: location.or_else(|| lsn("received_location").max(lsn("replayed_location"))),
            timeline: body.get("timeline").and_then(timeline),
            tags: body
                .get("tags")
                .and_then(Value::as_object)
                .map(|tags| tags.iter().map(|(k, v)| (k.clone(), v.clone())).collect())
                .unwrap_or_default(),
            watchdog_failed: body.get("watchdog_failed").and_then(Value::as_bool).unwrap_or(false),
            matriarch: ours.is_some(),
            known: ours.and_then(|ours| ours.get("known_timeline")).and_then(timeline),
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_stopped_server_is_an_answer_if_its_daemon_says_what_it_is() {
        let patroni = json!({"role": "primary", "state": "stopped", "patroni": {"version": "4.1.5"}});
        assert_eq!(PeerAnswer::read(&patroni), None);
        let ours = json!({"role": "primary", "state": "stopped",
            "patroni": {"version": "4.1.5", "matriarch": "0.1.0", "known_timeline": 7}});
        let answer = PeerAnswer::read(&ours).unwrap();
        assert_eq!((answer.known, answer.position), (Some(Timeline(7)), None));
        assert!(!answer.primary, "it takes no writes, whatever its role is called");
    }
}

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
}

impl PeerAnswer {
    /// Reads the body of `GET /patroni`; a body without `xlog` or `wal` says
    /// nothing about a position and counts as no answer (patroni-compat 1.10, rule 10).
    #[must_use]
    pub fn read(body: &Value) -> Option<Self> {
        let role = body.get("role").and_then(Value::as_str).unwrap_or_default();
        let xlog = body.get("xlog").or_else(|| body.get("wal"))?;
        let lsn = |name: &str| xlog.get(name).and_then(Value::as_u64).map(Lsn);
        let location = lsn("location");
        Some(Self {
            role: role.to_owned(),
            state: body.get("state").and_then(Value::as_str).unwrap_or_default().to_owned(),
            primary: location.is_some() || role == "primary" || role == "master",
            position: location.or_else(|| lsn("received_location").max(lsn("replayed_location"))),
            timeline: body
                .get("timeline")
                .and_then(Value::as_u64)
                .and_then(|n| u32::try_from(n).ok())
                .map(Timeline),
            tags: body
                .get("tags")
                .and_then(Value::as_object)
                .map(|tags| tags.iter().map(|(k, v)| (k.clone(), v.clone())).collect())
                .unwrap_or_default(),
            watchdog_failed: body.get("watchdog_failed").and_then(Value::as_bool).unwrap_or(false),
            matriarch: body.get("patroni").and_then(|p| p.get("matriarch")).is_some(),
        })
    }
}

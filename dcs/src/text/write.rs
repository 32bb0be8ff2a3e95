//! Records → text: compact JSON, Patroni's fields in Patroni's order (patroni-compat 1.3, 1.6).

use std::collections::BTreeMap;

use config::NodeName;
use serde::Serialize;
use serde_json::{Value, json};

use crate::Lsn;
use crate::view::{Failover, HistoryRow, Status, SyncState};

/// Compact JSON. Our records have string keys and plain values, so this cannot fail;
/// should it ever, an empty object is what every reader takes for "nothing known".
pub(super) fn compact(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_else(|_| "{}".to_owned())
}

/// The text of `status`; what is unknown or empty is left out.
pub(crate) fn status_text(status: &Status) -> String {
    #[derive(Serialize)]
    struct Written<'a> {
        #[serde(skip_serializing_if = "Option::is_none")]
        optime: Option<Lsn>,
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        slots: &'a BTreeMap<String, Lsn>,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        retain_slots: Vec<&'a str>,
    }
    compact(&Written {
        optime: status.optime,
        slots: &status.slots,
        retain_slots: status.retain_slots.iter().map(String::as_str).collect(),
    })
}

/// The text of `history`: one array per row, as long as what is known of it.
pub(crate) fn history_text(rows: &[HistoryRow]) -> String {
    let row = |row: &HistoryRow| {
        let mut cells = vec![json!(row.timeline), json!(row.lsn), json!(row.reason)];
        if row.timestamp.is_some() || row.leader.is_some() {
            cells.push(json!(row.timestamp));
        }
        if let Some(leader) = &row.leader {
            cells.push(json!(leader));
        }
        Value::Array(cells)
    };
    compact(&rows.iter().map(row).collect::<Vec<_>>())
}

/// The text of `failover`; `{}` if nothing is asked for.
pub(crate) fn failover_text(failover: Option<&Failover>) -> String {
    #[derive(Serialize)]
    struct Written<'a> {
        #[serde(skip_serializing_if = "Option::is_none")]
        leader: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        member: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        scheduled_at: Option<&'a str>,
    }
    compact(&Written {
        leader: failover.and_then(|asked| asked.leader.as_deref()),
        member: failover.and_then(|asked| asked.candidate.as_deref()),
        scheduled_at: failover.and_then(|asked| asked.scheduled_at.as_deref()),
    })
}

/// The text of `sync`: standbys as a sorted comma list, or null.
pub(crate) fn sync_text(sync: &SyncState) -> String {
    #[derive(Serialize)]
    struct Written<'a> {
        leader: Option<&'a str>,
        quorum: u32,
        sync_standby: Option<String>,
    }
    let standbys = sync.standbys.iter().map(String::as_str).collect::<Vec<_>>().join(",");
    compact(&Written {
        leader: sync.leader.as_deref(),
        quorum: sync.quorum,
        sync_standby: (!standbys.is_empty()).then_some(standbys),
    })
}

/// The text of `failsafe`.
pub(crate) fn failsafe_text(members: &BTreeMap<NodeName, String>) -> String {
    compact(&members.iter().map(|(name, url)| (name.as_str(), url.as_str())).collect::<BTreeMap<_, _>>())
}

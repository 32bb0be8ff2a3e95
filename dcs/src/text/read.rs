//! Text → records, and a view from all the records of a cluster.
//! Every legacy form named in patroni-compat 1.4 and 1.6 is understood.

use std::collections::{BTreeMap, BTreeSet};

use config::NodeName;
use serde_json::Value;

use super::member::member;
use super::{field, text, unwrapped, whole};
use crate::home::generation;
use crate::keys::{Keys, Place};
use crate::passage::Stand;
use crate::store::Record;
use crate::view::{
    ClusterView, Epoch, Failover, HistoryRow, Initialize, Leader, Revision, Status, SyncState, Versioned,
};
use crate::{Lsn, SystemId, Timeline};

/// The number before the name; 0 if there is none.
fn claim(value: &str) -> Timeline {
    let number = value.split_whitespace().next().and_then(|number| number.parse().ok());
    Timeline(number.unwrap_or_default())
}

/// The view that `records` make at `revision`. Unknown keys are ignored (P035).
pub(crate) fn view<'a>(
    keys: &Keys,
    records: impl IntoIterator<Item = &'a Record>,
    revision: Revision,
) -> ClusterView {
    let mut view = ClusterView { revision, ..ClusterView::default() };
    let mut legacy_status = None;
    let mut has_status = false;
    for record in records {
        let value = record.value.as_str();
        match keys.place(&record.key) {
            None => {}
            Some(Place::Bootstrap) => view.founder = NodeName::new(value).ok(),
            Some(Place::Generation) => view.generation = generation(value),
            Some(Place::Reign) => view.reign = Some(Epoch(record.modified)),
            Some(Place::Claim) => (view.claim, view.claimed) = (claim(value), Revision(record.modified)),
            Some(Place::Leader) => {
                view.passage = Stand::read(value);
                view.leader = view.passage.is_none().then(|| leader(record));
            }
            Some(Place::Member(name)) => {
                view.members.insert(name, member(value, record.lease));
            }
            Some(Place::Initialize) => view.initialize = initialize(value),
            Some(Place::Config) => view.config = Some(versioned(config(value), record)),
            Some(Place::Status) => {
                has_status = true;
                view.status = status(value);
            }
            Some(Place::OptimeLeader) => legacy_status = Some(status(value)),
            Some(Place::History) => view.history = Some(history(value)),
            Some(Place::Failover) => view.failover = failover(value).map(|asked| versioned(asked, record)),
            Some(Place::Sync) => view.sync = Some(versioned(sync(value), record)),
            Some(Place::Failsafe) => {
                (view.failsafe, view.failsafe_at) = (failsafe(value), Revision(record.modified));
            }
        }
    }
    if let Some(legacy) = legacy_status.filter(|_| !has_status) {
        view.status = legacy;
    }
    view
}

fn versioned<T>(value: T, record: &Record) -> Versioned<T> {
    Versioned { value, revision: Revision(record.modified) }
}

/// Somebody else's garbage in `leader` is a foreign leader, never nobody (F79).
pub(crate) fn leader(record: &Record) -> Leader {
    let name = NodeName::new(&record.value).unwrap_or_else(|_| unreadable(&record.value));
    Leader { name, epoch: Epoch(record.created), revision: Revision(record.modified), lease: record.lease }
}

/// A name that no node has, showing the start of what was written.
fn unreadable(value: &str) -> NodeName {
    let shown: String =
        value.chars().take(40).map(|c| if c.is_control() || c == '/' { '\u{FFFD}' } else { c }).collect();
    let name = NodeName::new(&format!("(unreadable) {shown}"));
    name.unwrap_or_else(|_| unreadable(""))
}

/// Valid if all digits and at least 10 of them; anything else is a damaged key.
pub(crate) fn initialize(value: &str) -> Initialize {
    if value.is_empty() {
        return Initialize::Running;
    }
    let is_number = value.len() >= 10 && value.bytes().all(|byte| byte.is_ascii_digit());
    match value.parse() {
        Ok(id) if is_number => Initialize::Done(SystemId(id)),
        _ => Initialize::Invalid,
    }
}

/// Any JSON as it stands; null if it is none, so that the reader sees a key without an object (P024).
fn config(value: &str) -> Value {
    serde_json::from_str(value).unwrap_or(Value::Null)
}

fn status(value: &str) -> Status {
    let record: Value = serde_json::from_str(value).unwrap_or(Value::Null);
    if record.is_number() {
        return Status { optime: whole(&record).map(Lsn), ..Status::default() };
    }
    let slots = match field(&record, "slots").map(unwrapped) {
        Some(Value::Object(slots)) => {
            slots.into_iter().filter_map(|(name, lsn)| Some((name, Lsn(whole(&lsn)?)))).collect()
        }
        _ => BTreeMap::new(),
    };
    let retain_slots = match field(&record, "retain_slots").map(unwrapped) {
        Some(Value::Array(names)) => names.iter().filter_map(text).collect(),
        _ => BTreeSet::new(),
    };
    Status { optime: field(&record, "optime").and_then(whole).map(Lsn), slots, retain_slots }
}

fn history(value: &str) -> Vec<HistoryRow> {
    let Ok(Value::Array(rows)) = serde_json::from_str(value) else { return Vec::new() };
    let row = |row: &Value| {
        let cell = |index: usize| row.get(index);
        Some(HistoryRow {
            timeline: Timeline(u32::try_from(whole(cell(0)?)?).ok()?),
            lsn: Lsn(whole(cell(1)?)?),
            reason: cell(2).and_then(Value::as_str).unwrap_or_default().to_owned(),
            timestamp: cell(3).and_then(text),
            leader: cell(4).and_then(text),
        })
    };
    rows.iter().filter_map(row).collect()
}

/// `None` if nothing is asked for: `{}`, an empty value, or what says neither leader nor member.
fn failover(value: &str) -> Option<Failover> {
    let asked = match serde_json::from_str::<Value>(value) {
        Ok(record) => Failover {
            leader: field(&record, "leader").and_then(text),
            candidate: field(&record, "member").and_then(text),
            scheduled_at: field(&record, "scheduled_at").and_then(text),
        },
        Err(_) => {
            let mut parts =
                value.split(':').map(|part| Some(part.trim().to_owned()).filter(|part| !part.is_empty()));
            Failover { leader: parts.next().flatten(), candidate: parts.next().flatten(), scheduled_at: None }
        }
    };
    (asked.leader.is_some() || asked.candidate.is_some()).then_some(asked)
}

fn sync(value: &str) -> SyncState {
    let record: Value = serde_json::from_str(value).unwrap_or(Value::Null);
    let Some(leader) = field(&record, "leader").and_then(text) else { return SyncState::default() };
    let names = field(&record, "sync_standby").and_then(text).unwrap_or_default();
    SyncState {
        leader: Some(leader),
        quorum: field(&record, "quorum")
            .and_then(whole)
            .and_then(|n| u32::try_from(n).ok())
            .unwrap_or_default(),
        standbys: names
            .split(',')
            .map(str::trim)
            .filter(|name| !name.is_empty())
            .map(str::to_owned)
            .collect(),
    }
}

fn failsafe(value: &str) -> Option<BTreeMap<NodeName, String>> {
    let Ok(Value::Object(members)) = serde_json::from_str(value) else { return None };
    let member = |(name, url): (String, Value)| Some((NodeName::new(&name).ok()?, text(&url)?));
    Some(members.into_iter().filter_map(member).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::text::{failover_text, failsafe_text, history_text, status_text, sync_text};

    fn one(place: &Place, value: &str) -> ClusterView {
        let keys = Keys::new("service", "batman");
        let record =
            Record { key: keys.path(place), value: value.to_owned(), created: 3, modified: 5, lease: 9 };
        view(&keys, [&record], Revision(8))
    }

    #[test]
    fn captured_values_survive() {
        // P020, P025, P027, P032, P034: patroni-compat 1.3.
        let seen = one(&Place::Initialize, "7710145069470500063");
        assert_eq!(seen.initialize, Initialize::Done(SystemId(7_710_145_069_470_500_063)));
        let text = r#"{"optime":50331648,"slots":{"node1":50331648,"node2":50331640},"retain_slots":["node1","node2"]}"#;
        assert_eq!(status_text(&one(&Place::Status, text).status), text);
        let text = r#"[[1,50628640,"no recovery target specified","2026-11-20T07:04:18.485455+00:00","node2"],[2,83886352,"x"]]"#;
        let seen = one(&Place::History, text);
        assert_eq!(seen.timeline(), Timeline(3));
        assert_eq!(history_text(&seen.history.unwrap()), text);
        let text = r#"{"leader":"node2","quorum":0,"sync_standby":"node1"}"#;
        assert_eq!(sync_text(&one(&Place::Sync, text).sync.unwrap().value), text);
        let text = r#"{"leader":"node2","quorum":0,"sync_standby":null}"#;
        assert_eq!(sync_text(&one(&Place::Sync, text).sync.unwrap().value), text);
        let text = r#"{"node1":"http://127.0.0.1:30081/patroni","node2":"http://127.0.0.1:30082/patroni"}"#;
        assert_eq!(failsafe_text(&one(&Place::Failsafe, text).failsafe.unwrap()), text);
        let text = r#"{"leader":"node1","member":"node2","scheduled_at":"2026-11-20T09:04:00+00:00"}"#;
        assert_eq!(failover_text(Some(&one(&Place::Failover, text).failover.unwrap().value)), text);
    }

    #[test]
    fn legacy_status_is_read() {
        // P026, P048
        assert_eq!(one(&Place::Status, "123").status.optime, Some(Lsn(123)));
        assert_eq!(one(&Place::OptimeLeader, "123").status.optime, Some(Lsn(123)));
        let wrapped = r#"{"optime":5,"slots":"{\"a\":7}","retain_slots":"[\"a\"]"}"#;
        let status = one(&Place::Status, wrapped).status;
        assert_eq!(status.slots.get("a"), Some(&Lsn(7)));
        assert!(status.retain_slots.contains("a"));
    }

    #[test]
    fn colon_failover_is_read() {
        // P031, P030
        let asked = one(&Place::Failover, "node1:node2").failover.unwrap();
        assert_eq!(asked.value.leader.as_deref(), Some("node1"));
        assert_eq!(asked.value.candidate.as_deref(), Some("node2"));
        assert_eq!(asked.revision, Revision(5));
        for nothing in ["{}", "", "[]", ":", "null"] {
            assert_eq!(one(&Place::Failover, nothing).failover, None, "{nothing}");
        }
        assert_eq!(failover_text(None), "{}");
    }

    #[test]
    fn damage_is_seen_and_survived() {
        // P021, P024, F79, F90
        assert_eq!(one(&Place::Initialize, "x").initialize, Initialize::Invalid);
        assert_eq!(one(&Place::Initialize, "123").initialize, Initialize::Invalid);
        assert_eq!(one(&Place::Initialize, "").initialize, Initialize::Running);
        assert_eq!(one(&Place::Config, "[]").config.unwrap().value, json!([]));
        assert_eq!(one(&Place::Config, "{").config.unwrap().value, Value::Null);
        for garbage in ["", "a/b", "n1\n", &"x".repeat(5000)] {
            let leader = one(&Place::Leader, garbage).leader.unwrap();
            assert!(leader.name.as_str().starts_with("(unreadable)"), "{garbage}");
        }
        assert_eq!(one(&Place::History, "{").history, Some(Vec::new()));
        assert_eq!(one(&Place::Sync, "[]").sync.unwrap().value, SyncState::default());
    }

    #[test]
    fn the_leader_carries_its_revisions() {
        // P003
        let leader = one(&Place::Leader, "node1").leader.unwrap();
        assert_eq!((leader.epoch, leader.revision, leader.lease), (Epoch(3), Revision(5), 9));
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC*|[\\[{\":,0-9a-z}\\]]*", which in 0..10usize) {
            let node = NodeName::new("n").unwrap();
            let places = [
                Place::Leader, Place::Member(node), Place::Initialize, Place::Config, Place::Status,
                Place::History, Place::Failover, Place::Sync, Place::Failsafe, Place::OptimeLeader,
            ];
            let seen = one(&places[which], &text);
            prop_assert_eq!(seen.revision, Revision(8));
        }

        #[test]
        fn status_round_trips(optime in any::<Option<u64>>(), slots in proptest::collection::btree_map("[a-z_]{1,9}", any::<u64>(), 0..4)) {
            let status = Status {
                optime: optime.map(Lsn),
                retain_slots: slots.keys().cloned().collect(),
                slots: slots.into_iter().map(|(name, lsn)| (name, Lsn(lsn))).collect(),
            };
            prop_assert_eq!(one(&Place::Status, &status_text(&status)).status, status);
        }
    }
}

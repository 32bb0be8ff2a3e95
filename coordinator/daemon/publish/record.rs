//! What was seen, in the words of the store's records and of the node's status.
//!
//! Pure: it computes documents and writes none.

use std::collections::{BTreeMap, BTreeSet};

use api::status::{Position, Sender, Server};
use api::wall;
use config::NodeName;
use coordinator::slots::slot_name;
use dcs::{ClusterView, Lsn, Member, Moment, Status};

use crate::postgres::look::Look;

/// The leader's `status`: its position, its slots, and whose slots are kept.
pub fn leader_status(
    look: &Look,
    view: &ClusterView,
    me: &NodeName,
    members_seen: &BTreeMap<String, Moment>,
    now: Moment,
    keep: std::time::Duration,
) -> Status {
    let mut slots: BTreeMap<String, Lsn> = look
        .slots
        .iter()
        .filter_map(|slot| Some((slot.name.clone(), Lsn(slot.confirmed.or(slot.restart)?))))
        .collect();
    let mine = slot_name(me.as_str());
    slots.insert(mine.clone(), look.write);
    let mut retain: BTreeSet<String> = members_seen
        .iter()
        .filter(|(_, at)| now.since(**at) <= keep)
        .map(|(name, _)| name.clone())
        .chain(view.members.keys().map(|name| slot_name(name.as_str())))
        .collect();
    retain.insert(mine);
    Status { optime: Some(look.write), slots, retain_slots: retain }
}

/// A member record as far as it is worth writing at once.
pub fn without_positions(record: &Member) -> Member {
    Member { xlog_location: None, receive_lsn: None, replay_lsn: None, ..record.clone() }
}

/// What a look at Postgres says, in the words of the status.
pub fn server(look: &Look, recovery_conf: &BTreeMap<String, String>) -> Server {
    let replication_state = match &look.receiver {
        Some(receiver) if look.in_recovery && receiver.status == "streaming" => Some("streaming".to_owned()),
        _ if look.in_recovery && recovery_conf.contains_key("restore_command") => {
            Some("in archive recovery".to_owned())
        }
        _ => None,
    };
    let position = if look.in_recovery {
        Position::Standby {
            received: Some(look.received).filter(|at| at.0 > 0),
            replayed: Some(look.replayed).filter(|at| at.0 > 0),
            replayed_at: look.replayed_at.and_then(|at| Some((spaced(at)?, at))),
            paused: look.replay_paused,
            upstream: look.receiver.as_ref().and_then(|receiver| receiver.latest_end).map(Lsn),
        }
    } else {
        Position::Primary(look.write)
    };
    Server {
        started: spaced(look.postmaster_start).unwrap_or_default(),
        started_epoch: look.postmaster_start,
        version: look.version,
        timeline: Some(look.timeline).filter(|timeline| timeline.0 > 0),
        position,
        replication_state,
        senders: look
            .senders
            .iter()
            .map(|sender| Sender {
                usename: sender.usename.clone().unwrap_or_default(),
                application_name: sender.application_name.clone(),
                client_addr: sender.client_addr.clone(),
                state: sender.state.clone().unwrap_or_default(),
                sync_state: sender.sync_state.clone().unwrap_or_default(),
                sync_priority: sender.sync_priority.unwrap_or_default(),
            })
            .collect(),
    }
}

/// To the nearest microsecond, which is what Postgres counts in: cut off, some would come out one too early.
fn spaced(epoch: f64) -> Option<String> {
    let micros = std::time::Duration::try_from_secs_f64(epoch).ok()? + std::time::Duration::from_nanos(500);
    let time = jiff::Timestamp::from_microsecond(i64::try_from(micros.as_micros()).ok()?).ok()?;
    Some(wall::spaced(time))
}

/// The wall clock's reading at a moment of the past.
pub fn epoch_of(at: Moment, now: Moment) -> u64 {
    let seconds = wall::now().as_second() - i64::try_from(now.since(at).as_secs()).unwrap_or_default();
    u64::try_from(seconds).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_come_out_to_the_microsecond() {
        for micros in [286_119, 286_118, 1, 999_999] {
            let epoch: f64 = format!("1795173741.{micros:06}").parse().unwrap();
            assert_eq!(spaced(epoch).unwrap(), format!("2026-11-20 11:22:21.{micros:06}+00:00"));
        }
    }
}

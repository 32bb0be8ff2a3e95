//! What was seen, in the words of the store's records and of the node's status.
//!
//! Pure: it computes documents and writes none.

use std::collections::{BTreeMap, BTreeSet};

use api::status::{Position, Sender, Server};
use api::wall;
use config::{NodeName, SynchronousMode};
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
fn without_positions(record: &Member) -> Member {
    Member { xlog_location: None, receive_lsn: None, replay_lsn: None, ..record.clone() }
}

/// Which changes of positions are worth a write. Postgres moves its log a little now and then
/// without any data in it, and an idle cluster writes nothing to the store.
#[derive(Debug, Clone, Copy)]
pub struct Worth {
    /// The last write is younger than `loop_wait`: no position is worth another.
    pub soon: bool,
    /// A move of fewer bytes changes nothing that anybody decides by.
    pub trifle: u64,
    /// What the leader's position is known to be.
    pub leader: Option<Lsn>,
}

impl Worth {
    /// A thousandth of the lag that decides a failover.
    pub fn new(soon: bool, maximum_lag: u64, leader: Option<Lsn>) -> Self {
        Self { soon, trifle: maximum_lag / 1024, leader }
    }

    /// Whether a member record must be written in the place of `before`.
    pub fn member(self, before: &Member, now: &Member) -> bool {
        let positions = |record: &Member| [record.xlog_location, record.receive_lsn, record.replay_lsn];
        if before == now {
            return false;
        }
        if without_positions(before) != without_positions(now) {
            return true;
        }
        // Who has caught up says so, however little it was.
        let leader = self.leader;
        let caught_up = move |at: Option<Lsn>| at.is_none() || at >= leader;
        let small = positions(before)
            .into_iter()
            .zip(positions(now))
            .all(|(before, now)| before == now || (caught_up(before) && self.small(before, now)));
        !self.soon && !small
    }

    /// Whether a status must be written in the place of `before`.
    pub fn status(self, before: &Status, now: &Status) -> bool {
        let small = before.retain_slots == now.retain_slots
            && before.slots.len() == now.slots.len()
            && self.small(before.optime, now.optime)
            && before
                .slots
                .iter()
                .all(|(name, at)| now.slots.get(name).is_some_and(|now| self.small(Some(*at), Some(*now))));
        !self.soon && !small
    }

    fn small(self, before: Option<Lsn>, now: Option<Lsn>) -> bool {
        match (before, now) {
            (Some(before), Some(now)) => before.0.abs_diff(now.0) < self.trifle || before == now,
            (before, now) => before == now,
        }
    }
}

/// How a member acknowledges commits by the record in the store: off if it does not.
pub fn acknowledges(view: &ClusterView, me: &NodeName) -> SynchronousMode {
    let record = view.sync.as_ref().map(|sync| &sync.value).filter(|record| record.leader.is_some());
    let listed = record
        .is_some_and(|record| record.standbys.iter().any(|name| name.eq_ignore_ascii_case(me.as_str())));
    if listed { api::synchronous(view) } else { SynchronousMode::Off }
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
    fn a_small_move_of_the_log_is_not_written_but_catching_up_is() {
        let at = |lsn| Member { xlog_location: Some(Lsn(lsn)), ..Member::default() };
        let worth = Worth::new(false, 1 << 20, Some(Lsn(5000)));
        assert!(!worth.member(&at(5000), &at(5000)));
        assert!(!worth.member(&at(5000), &at(5096)), "a record of running transactions");
        assert!(worth.member(&at(5000), &at(6024)));
        assert!(worth.member(&at(4990), &at(5000)), "it shows a lag that is over");
        assert!(worth.member(&at(6024), &at(5000)), "back, after a rewind");
        assert!(worth.member(&at(5000), &Member { state: "stopped".into(), ..at(5000) }));
        assert!(!Worth { soon: true, ..worth }.member(&at(5000), &at(9000)));
        let strict = Worth::new(false, 0, None);
        assert!(strict.member(&at(5000), &at(5001)), "no lag is allowed at all");
        assert!(!strict.member(&at(5000), &at(5000)));
    }

    #[test]
    fn a_status_is_written_for_data_and_for_slots() {
        let at = |lsn, slot: &str| Status {
            optime: Some(Lsn(lsn)),
            slots: BTreeMap::from([(slot.to_owned(), Lsn(lsn))]),
            ..Status::default()
        };
        let worth = Worth::new(false, 1 << 20, None);
        assert!(!worth.status(&at(5000, "n1"), &at(5096, "n1")));
        assert!(worth.status(&at(5000, "n1"), &at(6024, "n1")));
        assert!(worth.status(&at(5000, "n1"), &at(5000, "n2")));
        assert!(!Worth { soon: true, ..worth }.status(&at(5000, "n1"), &at(9000, "n1")));
    }

    #[test]
    fn times_come_out_to_the_microsecond() {
        for micros in [286_119, 286_118, 1, 999_999] {
            let epoch: f64 = format!("1795173741.{micros:06}").parse().unwrap();
            assert_eq!(spaced(epoch).unwrap(), format!("2026-11-20 11:22:21.{micros:06}+00:00"));
        }
    }
}

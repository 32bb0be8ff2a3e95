//! What the raft thread tells of the store: who the members are, whether it is there, and who is missing.

use std::collections::BTreeSet;
use std::time::Duration;

use super::StoreMember;
use super::drive::Drive;
use super::members::REMOVED;
use super::ring::{LOST, Presence};
use crate::Moment;

/// How often to say that there is no quorum.
const SAY: Duration = Duration::from_secs(10);
/// How often to say that this member was removed.
const REMIND: Duration = Duration::from_secs(60);

impl Drive {
    /// Tells the connections who the members are.
    pub fn tell_members(&self) {
        self.wire.set_members(&self.machine.members, &self.machine.removed);
    }

    /// Tells watchers and the log whether there is a leader.
    pub fn tell_presence(&mut self, now: Moment) {
        if self.is_removed() {
            // Nobody tells it anything any more, not even that there is another leader.
            self.wire.ring.set_presence(Presence::Lost);
            if self.said.is_none_or(|said| now.since(said) >= REMIND) {
                self.said = Some(now);
                tracing::error!("{REMOVED}");
            }
            return;
        }
        if self.raw.raft.leader_id != raft::INVALID_ID {
            if self.said.take().is_some() {
                tracing::info!("the embedded store has a quorum again");
            }
            self.lost = None;
            self.wire.ring.set_presence(Presence::There);
            return;
        }
        let since = now.since(*self.lost.get_or_insert(now));
        if since < LOST {
            return;
        }
        self.wire.ring.set_presence(Presence::Lost);
        if self.said.is_none_or(|said| now.since(said) >= SAY) && !self.machine.members.is_empty() {
            self.said = Some(now);
            let name = |member: &u64| self.machine.members.get(member).cloned().unwrap_or_default();
            let voters = self.conf.voters.len();
            let faults = self.wire.faults();
            let gone: Vec<String> = faults.iter().map(|(id, why)| format!("{} ({why})", name(id))).collect();
            tracing::warn!(
                "the embedded store has had no quorum for {} s: {} of {voters} voters are needed; not connected: {}. Until then \
                 nothing can be written and nobody can take over",
                since.as_secs(),
                voters / 2 + 1,
                if gone.is_empty() { "nobody is missing".to_owned() } else { gone.join(", ") }
            );
        }
    }

    /// The members, as this one sees them.
    pub fn members(&self) -> Vec<StoreMember> {
        let (now, faults) = (Moment::now(), self.wire.faults());
        let voters: BTreeSet<u64> = self.conf.voters.iter().copied().collect();
        let row = |(id, address): (&u64, &String)| StoreMember {
            id: *id,
            address: address.clone(),
            votes: voters.contains(id),
            leads: *id == self.raw.raft.leader_id,
            reachable: if self.leads() { self.is_heard(*id, now) } else { !faults.contains_key(id) },
        };
        self.machine.members.iter().map(row).collect()
    }

    /// The longest that a follower waits for its leader.
    pub fn election(&self) -> Duration {
        self.timing.tick * u32::try_from(self.timing.election.1).unwrap_or(u32::MAX)
    }

    /// Whether a member was heard lately.
    pub fn is_heard(&self, member: u64, now: Moment) -> bool {
        self.is_heard_since(member, now - self.election())
    }

    /// Whether a member was heard since a moment.
    pub fn is_heard_since(&self, member: u64, since: Moment) -> bool {
        member == self.wire.member || self.heard.get(&member).is_some_and(|heard| *heard > since)
    }
}

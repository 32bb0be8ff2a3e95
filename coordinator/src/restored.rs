//! A store that has old records again, because somebody put back a backup: what it says of who led and for whom commits
//! wait is of then, and what this node remembers is of later (F74). Says whether that is so and who may lead all the
//! same; it decides nothing else (docs/src/decisions/0021-old-records.md).
//!
//! Revisions do not tell: a backup may be put back under later ones, or under its own. Timelines do: each is claimed in the
//! store before it is made, so a store that knows fewer than it told before has forgotten them. Whoever led last has
//! every commit that was acknowledged; of others nobody knows, as the last record of whom commits waited for is gone.
//! It is over when somebody leads anew, under a later claim, and has written that record.

use config::SynchronousMode;
use dcs::{ClusterView, Epoch, Revision, Timeline};
use serde::{Deserialize, Serialize};

use crate::claim;
use crate::eligible::Obstacle;
use crate::observation::{Asked, Observation};
use crate::past::Past;
use crate::sync::{leading, right};

/// What a node keeps of the store, over restarts of its daemon too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Known {
    /// The highest timeline that the store told to be made or claimed.
    pub timeline: Timeline,
    /// The highest that it told to be claimed: the history of a restored store may have been written since.
    pub claim: Timeline,
    /// The last reign; while the store's records are old, the last before.
    pub reign: Option<Epoch>,
    /// The last write of the record of synchronous standbys, likewise.
    pub sync: Revision,
    /// The last reign in which this node's server took writes.
    pub led: Option<Epoch>,
    /// What the store told when its records were first found to be old.
    pub old: Option<Old>,
}

/// What a restored store tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Old {
    /// The last reign.
    pub reign: Option<Epoch>,
    /// The last write of the record of synchronous standbys, if there is one.
    pub sync: Option<Revision>,
    /// The last request of an operator: it was for then.
    pub asked: Revision,
}

/// What old records mean for this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restored {
    /// What they tell.
    pub old: Old,
    /// They are of an earlier reign than the last that is known.
    pub earlier: bool,
    /// This node led in the last that is known.
    pub led_last: bool,
}

impl Known {
    /// Notes what is seen; `wrote`: a view older than that shows less than this node did itself.
    pub fn learn(&mut self, seen: &Observation, wrote: Revision) {
        self.hear(seen, wrote);
        let running = seen.postgres.running.as_ref().filter(|_| seen.is_primary() && seen.holds_lease());
        if let (Some(held), Some(running)) = (seen.lease, running) {
            self.led = Some(held.epoch);
            if self.old.is_none() {
                (self.reign, self.timeline) = (Some(held.epoch), self.timeline.max(running.timeline));
                // A key that was taken back may be Patroni's, which claims nothing.
                if held.revision.0 == held.epoch.0 {
                    self.claim = self.claim.max(running.timeline);
                }
            }
        }
    }

    /// Notes what the store tells.
    fn hear(&mut self, seen: &Observation, wrote: Revision) {
        let Some(view) = seen.store.view.as_ref().filter(|view| view.revision >= wrote) else { return };
        let sync = view.sync.as_ref().map(|sync| sync.revision);
        let told = claim::told(view, None);
        let rewritten = view.reign == self.reign && sync.is_some_and(|sync| sync < self.sync);
        let older = told < self.timeline || view.claim < self.claim || rewritten;
        let over = self.old.is_none_or(|old| {
            let anew = view.reign != old.reign || sync != old.sync;
            let waits = leading::mode(seen) != SynchronousMode::Off;
            anew && (!waits || sync.is_none() || sync != old.sync)
        });
        if !older && over {
            let sync = sync.unwrap_or(self.sync);
            let (claim, reign) = (view.claim, view.reign);
            *self = Self { timeline: told, claim, reign, sync, led: self.led, old: None };
        } else if older && (self.old.is_none_or(|old| view.reign < old.reign)) {
            let asked = view.failover.as_ref().map(|failover| failover.revision).unwrap_or_default();
            self.old = Some(Old { reign: view.reign, sync, asked });
        }
    }

    /// What the store's records mean now; nothing while they are not old.
    #[must_use]
    pub fn restored(&self) -> Option<Restored> {
        let old = self.old?;
        let led_last = self.led.is_some() && self.led == self.reign;
        Some(Restored { old, earlier: old.reign != self.reign, led_last })
    }
}

/// Whether the leader key is one of an earlier reign.
#[must_use]
pub fn by_old_key(seen: &Observation, view: &ClusterView) -> bool {
    is_old(seen, view, view.leader.as_ref().map(|leader| leader.epoch))
}

/// A leader of Patroni's, or a person, writes a key and no reign.
fn is_old(seen: &Observation, view: &ClusterView, key: Option<Epoch>) -> bool {
    let unchanged = |restored: Restored| restored.earlier && view.reign == restored.old.reign;
    key.is_some() && (key == view.reign || view.reign.is_none()) && seen.restored.is_some_and(unchanged)
}

/// Whether an old record could let somebody lead who lacks acknowledged commits, or beside a leader.
#[must_use]
pub fn guarded(seen: &Observation) -> bool {
    leading::mode(seen) != SynchronousMode::Off || seen.settings.failsafe_mode
}

/// What keeps this node from leading by old records, or by a leader key of this reign.
#[must_use]
pub fn obstacle(seen: &Observation, view: &ClusterView, key: Option<Epoch>) -> Option<Obstacle> {
    let restored = seen.restored?;
    let since = view.failover.as_ref().is_some_and(|failover| failover.revision > restored.old.asked);
    let named = since && right::loss_accepted(view, seen.me.name.as_str());
    let entitled = restored.led_last || named;
    (is_old(seen, view, key) || (guarded(seen) && !entitled)).then_some(Obstacle::OldRecords)
}

/// The member that knows of a later timeline than this store: it is older than the cluster, and so may be what it says of
/// this node, which was away and cannot tell by itself.
#[must_use]
pub fn unheard_of(seen: &Observation, past: &Past, view: &ClusterView) -> Option<Obstacle> {
    let told = claim::told(view, None).max(past.store.timeline);
    seen.peers.iter().find_map(|(name, peer)| match &peer.answer {
        Asked::Answered(_, answer) => {
            let timeline = answer.known.filter(|known| *known > told)?;
            Some(Obstacle::LaterTimeline { member: name.clone(), timeline })
        }
        _ => None,
    })
}

/// The same where it counts: who may lead is a question of the records, not of positions.
#[must_use]
pub fn outdated(seen: &Observation, past: &Past, view: &ClusterView) -> Option<Obstacle> {
    unheard_of(seen, past, view).filter(|_| guarded(seen))
}

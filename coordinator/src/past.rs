//! What a node remembers between turns, and nothing else: everything here is
//! made by one decision and read by the next.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use core::time::Duration;

use config::NodeName;
use dcs::{ClusterView, Epoch, Initialize, Lsn, Moment, Revision, SyncState, Timeline};
use serde::{Deserialize, Serialize};

use crate::decision::Task;
use crate::local::{Data, Process};
use crate::observation::{Observation, Outcome, Standing};
use crate::reason::Reason;
use crate::restored::Known;
use crate::sync::admission::Closed;
use crate::sync::leading::InForce;
use crate::{claim, slots};

/// The memory of the decisions.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Past {
    /// Why Postgres is being stopped, or has been.
    pub intent: Option<Intent>,
    /// How far this node is in creating the cluster.
    pub bootstrapping: bool,
    /// Since when the lease has been vacant.
    pub vacant_since: Option<Moment>,
    /// Up to where this standby has come, and when it last came further.
    pub flow: Option<(Lsn, Moment)>,
    /// Why the others' last answers kept this node from taking the vacant lease.
    pub verdict: Option<Reason>,
    /// The reign on whose timeline this leader has checkpointed.
    pub checkpointed: Option<Epoch>,
    /// The highest timeline that the store has ever told to be made or claimed, but for what this reign claimed: a store
    /// that lost its records has forgotten it.
    #[serde(default)]
    pub timelines: Timeline,
    /// Which timeline this leader last wrote into `history`, and when: a view that lags does not show it yet.
    #[serde(default)]
    pub chronicled: Option<(Timeline, Moment)>,
    /// The last failure, until what failed has succeeded.
    pub setback: Option<Setback>,
    /// When slots were last brought in line.
    pub slots_at: Option<Moment>,
    /// When each member was last seen, by slot name (`member_slots_ttl`).
    pub members_seen: BTreeMap<String, Moment>,
    /// The leader and reign with which a running standby's history was found to agree.
    pub compared: Option<(NodeName, Epoch)>,
    /// The leader and reign whose history a standby was found to have left, and where.
    pub diverged: Option<(NodeName, Epoch, Lsn)>,
    /// The leader and reign under which a standby was stopped because it did not become consistent: its history is
    /// compared before it starts again. Once, since one that only has much to replay must not be kept from it.
    #[serde(default)]
    pub doubted: Option<(NodeName, Epoch)>,
    /// Since when this standby has not been streaming although it should.
    pub idle_since: Option<Moment>,
    /// When a leader's lineage was last read, and the newest revision known then.
    pub read: Option<(Moment, Revision)>,
    /// The store has said to this daemon that the cluster exists.
    pub known: bool,
    /// When a claim on `initialize` by an earlier life of this node was last to be given back.
    #[serde(default)]
    pub claim_returned: Option<Moment>,
    /// The promises by which this leader last went on without the store: their reign, and when the oldest was asked for.
    #[serde(default)]
    pub went_on: Option<(Epoch, Moment)>,
    /// When the lease was last to be given back.
    pub released_at: Option<Moment>,
    /// The last reign that the store told of.
    #[serde(default)]
    pub reign: Option<Epoch>,
    /// The last revision at which this node wrote the leader key: an older view shows less than it knows.
    #[serde(default)]
    pub wrote: Revision,
    /// When this daemon took back a key of its name, until it has heard from the others or seen its server take writes.
    #[serde(default)]
    pub taken_back: Option<Moment>,
    /// By what old records of a store are known for old.
    #[serde(default)]
    pub store: Known,
    /// Since when the store has not answered, and the last revision before; until it has told a later one, if that was long.
    #[serde(default)]
    pub away: Option<(Moment, Revision)>,
    /// The members that the store listed before it was away for long, or lost its records.
    #[serde(default)]
    pub expected: BTreeSet<NodeName>,
    /// Since when the store has listed this node as a member.
    pub listed_since: Option<Moment>,
    /// Somebody led while the store listed this node: it knows the members, and they know it.
    pub settled: bool,
    /// The switchover that waits for a candidate to arrive on the leader's timeline, and since when.
    pub weighed: Option<(Revision, Moment)>,
    /// The switchover that was tried and given up, until its key is cleared.
    pub abandoned: Option<Revision>,
    /// The record of synchronous standbys that this leader replaced by one that names only it, until its server is promoted.
    #[serde(default)]
    pub superseded: Option<SyncState>,
    /// For whom commits wait, as this leader came to know it.
    pub in_force: Option<InForce>,
    /// What must be on the standbys before this leader lets clients in.
    #[serde(default)]
    pub closed: Option<Closed>,
    /// When a restart that would have opened the server failed.
    #[serde(default)]
    pub unopened: Option<Moment>,
    /// Since when each of these senders has served a stranger under a member's name.
    pub strangers: BTreeMap<i32, Moment>,
}

/// Why Postgres is stopped on purpose.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Intent {
    /// To hand leadership over.
    HandOver {
        /// The revision of the `failover` key that asked for it; absent on shutdown.
        revision: Option<Revision>,
        /// Who should take over.
        candidate: Option<String>,
        /// Since when.
        since: Moment,
    },
    /// To become a standby: the lease is lost or was handed over, or a new copy is being made.
    Demote,
    /// To let somebody else lead: the lease is released as soon as nothing of the instance is left.
    GiveUp(Reason),
    /// To run again in pause, as a replica: an operator asked for a restart of a stopped server.
    Revive {
        /// The request that asked for it.
        request: u64,
        /// Since when.
        since: Moment,
    },
    /// To be cloned anew.
    Reinitialize {
        /// The request that asked for it.
        request: u64,
        /// Clone from the leader only.
        from_leader: bool,
    },
}

/// A failure, and when to try again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Setback {
    /// What failed.
    pub task: Task,
    /// How, in one sentence.
    pub what: String,
    /// How often in a row.
    pub times: u32,
    /// Not before this moment.
    pub again: Moment,
}

/// The longest pause between two tries of the same task.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

impl Past {
    /// What stays true whatever is decided: vacancy, members seen, failures.
    #[must_use]
    pub fn remember(&self, seen: &Observation) -> Past {
        let mut past = self.clone();
        past.wrote = seen.lease.map_or(past.wrote, |held| past.wrote.max(held.revision));
        past.store.learn(seen, past.wrote);
        past.taken_back = past.taken_back.filter(|_| !(seen.is_primary() && seen.holds_lease()));
        past.vacant_since = match seen.standing_of_key() {
            Standing::Vacant => past.vacant_since.or(Some(seen.now)),
            _ => None,
        };
        past.flow = match (seen.standby(), past.flow) {
            (Some((running, _)), Some((at, when))) if running.position <= at => Some((at, when)),
            (Some((running, _)), Some(_)) => Some((running.position, seen.now)),
            // What it had when it was first seen did not flow just now.
            (Some((running, _)), None) => Some((running.position, Moment::default())),
            (None, _) => None,
        };
        if past.vacant_since.is_none() {
            past.verdict = None;
        }
        if let Some(view) = &seen.store.view {
            let listed = view.members.contains_key(&seen.me.name);
            let known = past.still_known(seen, view);
            past.listed_since = listed.then(|| past.listed_since.filter(|_| known).unwrap_or(seen.now));
            past.settled = listed && (known && past.settled || view.leader.is_some());
            if past.settled && past.away.is_none() {
                past.expected = view.members.keys().cloned().collect();
            }
            past.known |= matches!(view.initialize, Initialize::Done(_));
            past.timelines = past.timelines.max(claim::told(view, seen.lease.map(|held| held.epoch)));
            // Slots kept for members that an earlier leader saw last count from now.
            for slot in &view.status.retain_slots {
                past.members_seen.entry(slot.clone()).or_insert(seen.now);
            }
            for name in view.members.keys().filter(|name| **name != seen.me.name) {
                past.members_seen.insert(slots::slot_name(name.as_str()), seen.now);
            }
        }
        if let Some(ended) = &seen.ended {
            past.learn(ended, seen.lease.map(|held| held.epoch));
        } else if seen.job.is_none() && seen.data == Data::Empty {
            // The claim was refused, or what was begun is gone.
            past.bootstrapping = false;
        }
        if seen.postgres.process != Process::Postmaster {
            // The log of the next one may end elsewhere.
            past.closed = None;
        }
        if seen.is_primary() || !seen.holds_lease() {
            past.superseded = None;
        }
        // What was begun as leader ends with the reign.
        if !seen.holds_lease() {
            past.intent = match past.intent {
                // In pause, too, a server that was stopped to hand over comes back as a standby.
                Some(Intent::HandOver { .. }) => Some(Intent::Demote),
                Some(Intent::GiveUp(_)) => None,
                other => other,
            };
        }
        past
    }

    /// Whether the members that the store lists are those whom it listed before: not if it has lost its records, or has old
    /// ones again, and not if it was away for so long that each has to be listed anew.
    fn still_known(&mut self, seen: &Observation, view: &ClusterView) -> bool {
        let kept = self.reign <= view.reign;
        self.reign = view.reign;
        let Some((since, revision)) = self.away else {
            self.away = (!seen.store.reachable).then_some((seen.store.seen, view.revision));
            return kept;
        };
        let short = seen.now.since(since) < seen.settings.ttl;
        if seen.store.reachable && (short || view.revision > revision) {
            self.away = None;
            return kept && short;
        }
        kept
    }

    fn learn(&mut self, ended: &Outcome, epoch: Option<Epoch>) {
        match &ended.failure {
            Some(what) => {
                match ended.task {
                    Task::Initdb | Task::FirstStart { .. } => self.bootstrapping = false,
                    Task::Restart { standby: None, closed: false, .. } => self.unopened = Some(ended.at),
                    _ => {}
                }
                let times = match &self.setback {
                    Some(before) if same_kind(&before.task, &ended.task) => before.times.saturating_add(1),
                    _ => 1,
                };
                let pause = match ended.task {
                    // Until these are done nothing is safe.
                    Task::Stop(_) | Task::KillRemnants => {
                        (Duration::from_millis(250) * times).min(Duration::from_secs(2))
                    }
                    _ => Duration::from_secs(1u64 << times.min(4)).min(LONGEST_PAUSE),
                };
                let again = ended.at + pause;
                self.setback = Some(Setback { task: ended.task.clone(), what: what.clone(), times, again });
            }
            None => {
                let settles = |failed: &Task| {
                    same_kind(failed, &ended.task) || (is_start(failed) && is_start(&ended.task))
                };
                if self.setback.as_ref().is_some_and(|setback| settles(&setback.task)) {
                    self.setback = None;
                }
                match &ended.task {
                    Task::Checkpoint => self.checkpointed = epoch,
                    Task::Promote { .. } => self.superseded = None,
                    Task::FirstStart { .. } => {
                        self.bootstrapping = false;
                        self.checkpointed = epoch;
                    }
                    Task::Rewind { .. } | Task::Clone { .. } => {
                        (self.setback, self.diverged, self.compared) = (None, None, None);
                        // From now on the directory is a part of what that leader's store tells.
                        self.store = Known::default();
                    }
                    _ => {}
                }
            }
        }
    }

    /// Whether a directory with the mark of a bootstrap is one that this daemon is creating. If it has just ended in
    /// failure, what it left is a remnant like any other.
    #[must_use]
    pub fn creates(&self, ended: Option<&Outcome>) -> bool {
        let creation = |task: &Task| matches!(task, Task::Initdb | Task::FirstStart { .. });
        let failed = ended.is_some_and(|ended| ended.failure.is_some() && creation(&ended.task));
        self.bootstrapping && !failed
    }

    /// The failure of such a task, if trying again must wait.
    #[must_use]
    pub fn waits(&self, now: Moment, is: fn(&Task) -> bool) -> Option<&Setback> {
        self.setback.as_ref().filter(|setback| is(&setback.task) && now < setback.again)
    }

    /// The failure of the same task with the same source, if trying again must wait.
    #[must_use]
    pub fn waits_for(&self, now: Moment, task: &Task) -> Option<&Setback> {
        self.setback.as_ref().filter(|setback| setback.task == *task && now < setback.again)
    }

    /// The failure of such a task, whether or not it may be tried again.
    #[must_use]
    pub fn failed(&self, is: fn(&Task) -> bool) -> Option<&Setback> {
        self.setback.as_ref().filter(|setback| is(&setback.task))
    }
}

/// Whether the task makes a server run: any that did makes up for one that did not.
fn is_start(task: &Task) -> bool {
    matches!(
        task,
        Task::StartStandby { .. }
            | Task::RestartInPlace { .. }
            | Task::FirstStart { .. }
            | Task::Restart { .. }
    )
}

fn same_kind(one: &Task, other: &Task) -> bool {
    core::mem::discriminant(one) == core::mem::discriminant(other)
}

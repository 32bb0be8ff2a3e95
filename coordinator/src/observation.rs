//! One snapshot of the world as this node sees it. Every field is plain data;
//! what ages says when it was true. Nothing here decides.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;

use api::peer::PeerAnswer;
use config::{ClusterConfig, NodeName, Tags};
use dcs::{ClusterView, Epoch, Lsn, Moment, Passage, Revision, Stand, Timeline};
use serde::{Deserialize, Serialize};

use crate::failsafe::Failsafe;
use crate::local::{Data, Postgres, Process, Running, Standby};
use crate::restored::Restored;

/// Everything a decision may look at.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Observation {
    /// The moment of the snapshot.
    pub now: Moment,
    /// This node.
    pub me: Myself,
    /// The settings in force.
    pub settings: Arc<ClusterConfig>,
    /// The store.
    pub store: Store,
    /// What this node itself wrote into `sync`.
    pub sync: SyncWrites,
    /// What failsafe mode has asked of others and of this node.
    #[serde(default)]
    pub failsafe: Failsafe,
    /// The leader lease, as far as this node holds it.
    pub lease: Option<Held>,
    /// The last epoch that this node gave up itself.
    pub released: Option<Epoch>,
    /// Which store this node may open, if the cluster has moved to it and nobody leads there yet.
    pub arrival: Option<Arrival>,
    /// The local Postgres.
    pub postgres: Postgres,
    /// The data directory.
    pub data: Data,
    /// The job that runs now.
    pub job: Option<Job>,
    /// How the last job ended, until a decision has seen it.
    pub ended: Option<Outcome>,
    /// The history of the current leader's server, once it was read.
    pub leader_history: Option<LeaderHistory>,
    /// The past timelines of the local server: which, and where it left them, ascending; empty
    /// on the first timeline, or if it is not known.
    pub switches: Vec<(Timeline, Lsn)>,
    /// Answers of other members.
    pub peers: BTreeMap<NodeName, Peer>,
    /// A rewound or freshly repaired server must pass this position before it may lead or vote.
    pub floor: Option<Lsn>,
    /// Seconds until the scheduled switchover in the `failover` key; negative once it has passed.
    pub failover_due: Option<i64>,
    /// What people asked of this node.
    pub requests: Vec<Request>,
    /// The daemon was told to end.
    pub ending: Option<Wish>,
    /// The store's records are old ones, from a backup: `decide` knows that from what it remembers, and says it here.
    #[serde(default)]
    pub restored: Option<Restored>,
}

/// What this node is and may be.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Myself {
    /// Its name.
    pub name: NodeName,
    /// Its tags.
    pub tags: Tags,
    /// Safety settings that do not work yet: with any of them the node only follows.
    pub withheld: Vec<String>,
    /// Whether and how it may create a cluster.
    pub bootstrap: Bootstrap,
    /// Which repairs the configuration allows.
    pub repair: Repair,
}

/// Which repairs of a data directory the configuration allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Repair {
    /// `use_pg_rewind`.
    pub rewind: bool,
    /// `remove_data_directory_on_rewind_failure`: it may be moved aside and cloned anew.
    pub after_failed_rewind: bool,
    /// `remove_data_directory_on_diverged_timelines`: likewise.
    pub when_diverged: bool,
}

impl Myself {
    /// Whether this node may hold the leader lease.
    #[must_use]
    pub fn may_lead(&self) -> bool {
        self.tags.may_lead() && self.withheld.is_empty()
    }
}

/// Whether a node may create a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Bootstrap {
    /// It may run initdb.
    Initdb,
    /// The configuration has no `bootstrap` section.
    Never,
}

/// The store as seen from here.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Store {
    /// The newest view, however old.
    pub view: Option<Arc<ClusterView>>,
    /// Whether the store answers now.
    pub reachable: bool,
    /// The lease could not be renewed lately, whatever else of the store seems to be there.
    #[serde(default)]
    pub silent: bool,
    /// When it last answered.
    pub seen: Moment,
}

impl Store {
    /// Whether the lease can be renewed, as far as is known.
    #[must_use]
    pub fn answers(&self) -> bool {
        self.reachable && !self.silent
    }
}

/// This node's own writes of the record of synchronous standbys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SyncWrites {
    /// The revision of the last that succeeded in this reign: an older view does not show it.
    pub written: Option<Revision>,
    /// How the last one ended is not known: it may still arrive.
    pub doubtful: bool,
    /// The revision over which the last one was refused, 0 where there was no record: a view that still shows it is older
    /// than what was written since, by this node perhaps.
    #[serde(default)]
    pub refused: Option<Revision>,
}

/// A lease this node holds. Between `soft` and `hard` it steps down; at `hard`
/// every process of the instance is killed by the lease thread, whatever is decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// The reign.
    pub epoch: Epoch,
    /// The revision at which the leader key was last written by this node.
    pub revision: Revision,
    /// After this moment the node steps down.
    pub soft: Moment,
    /// After this moment nothing of the instance runs.
    pub hard: Moment,
}

/// The old store of a cluster that moves is seen closed: this node may lead in the new one, from a moment on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Arrival {
    /// Which move it is ([`Passage`]).
    pub passage: Passage,
    /// When the authority of the leader that closed the old store has certainly ended.
    pub from: Moment,
}

/// A job that runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// What it does.
    pub task: crate::Task,
    /// Since when.
    pub since: Moment,
}

/// How a job ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// What it did.
    pub task: crate::Task,
    /// When it ended.
    pub at: Moment,
    /// Its failure, in one sentence; absent if it was done.
    pub failure: Option<String>,
}

/// The lineage of the leader's server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaderHistory {
    /// Whose.
    pub member: NodeName,
    /// In which reign it was read.
    pub epoch: Epoch,
    /// Its current timeline.
    pub timeline: Timeline,
    /// Its past timelines: which, and where it left them. Ascending.
    pub switches: Vec<(Timeline, Lsn)>,
    /// It takes writes, and has checkpointed on its timeline.
    pub settled: bool,
}

/// What is known of another member.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Peer {
    /// When it was last asked.
    pub asked: Moment,
    /// How that ended.
    pub answer: Asked,
}

/// How a question to a peer ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Asked {
    /// It is still open.
    Waiting,
    /// It did not answer in time, or not sensibly.
    Nothing,
    /// It answered at that moment.
    Answered(Moment, PeerAnswer),
}

/// Something people asked of this node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// Its number, to answer by.
    pub id: u64,
    /// When.
    pub asked: Moment,
    /// What.
    pub wish: Wish,
}

/// What was asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Wish {
    /// Restart Postgres.
    Restart {
        /// Only in this role.
        role: Option<String>,
        /// Only if the server is older than this `server_version_num`.
        below_version: Option<u32>,
        /// Only if a restart is pending.
        if_pending: bool,
        /// Whether one is pending.
        pending: bool,
        /// How long the start may take before the request is answered without it.
        timeout: Option<Duration>,
    },
    /// Throw the local copy aside and clone anew.
    Reinitialize {
        /// Cancel a running job first.
        force: bool,
        /// Clone from the leader only.
        from_leader: bool,
        /// Whether the local copy may go.
        consent: Consent,
    },
    /// End the daemon and stop Postgres.
    Stop,
    /// End the daemon and leave Postgres running.
    LeaveRunning,
}

/// What custody says about moving the local copy aside, before whoever asked for it is told that it has begun.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Consent {
    /// It was not asked.
    #[default]
    Unasked,
    /// It gathers evidence.
    Asked,
    /// As far as can be told while Postgres runs, it may go.
    Given,
    /// It may not, for this reason.
    Refused(String),
}

/// Who leads, as far as this node can tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// The store cannot be reached.
    Unknown,
    /// People have taken over.
    Paused,
    /// This node holds the lease.
    Mine,
    /// The key names this node, under a lease of an earlier life.
    Orphaned,
    /// Somebody else holds it.
    Theirs(NodeName),
    /// Nobody holds it.
    Vacant,
    /// The cluster is between two stores: to the one that this section of the configuration names.
    Moving(String),
}

impl Observation {
    /// Who leads. A held lease counts until a view at least as new as it denies it.
    #[must_use]
    pub fn standing(&self) -> Standing {
        let mine = self.holds_lease();
        if !self.store.reachable && !mine {
            return Standing::Unknown;
        }
        if self.settings.pause {
            return Standing::Paused;
        }
        if mine { Standing::Mine } else { self.standing_of_key() }
    }

    /// Who leads by the leader key alone.
    #[must_use]
    pub fn standing_of_key(&self) -> Standing {
        let Some(view) = &self.store.view else { return Standing::Unknown };
        if let Some(stand) = &view.passage {
            return self.standing_between(stand);
        }
        match &view.leader {
            None => Standing::Vacant,
            Some(leader) if leader.name != self.me.name => Standing::Theirs(leader.name.clone()),
            // Our own release is on its way through the watch.
            Some(leader) if Some(leader.epoch) == self.released => Standing::Vacant,
            Some(_) => Standing::Orphaned,
        }
    }

    /// Between two stores nobody leads, until one may open the new one.
    fn standing_between(&self, stand: &Stand) -> Standing {
        let opens = |arrival: &Arrival| {
            matches!(stand, Stand::Arriving(passage) if *passage == arrival.passage)
                && self.now >= arrival.from
        };
        match self.arrival.as_ref().is_some_and(opens) {
            true => Standing::Vacant,
            false => Standing::Moving(stand.passage().to.clone()),
        }
    }

    /// Whether this node holds the lease, with time left before it must step down.
    #[must_use]
    pub fn holds_lease(&self) -> bool {
        let Some(held) = self.lease else { return false };
        if self.now >= held.soft {
            return false;
        }
        match &self.store.view {
            // It closed the old store itself: what it was granted there ends by itself, and nobody opens the new one sooner.
            Some(view)
                if view.passage.as_ref().is_some_and(|stand| stand.passage().leader == self.me.name) =>
            {
                true
            }
            Some(view) if self.store.reachable && view.revision >= held.revision => view
                .leader
                .as_ref()
                .is_some_and(|leader| leader.epoch == held.epoch && leader.name == self.me.name),
            _ => true,
        }
    }

    /// Whether the local server is known to take writes.
    #[must_use]
    pub fn is_primary(&self) -> bool {
        self.postgres.running.as_ref().is_some_and(|running| running.standby.is_none())
    }

    /// Whether the local server takes writes for all that is known: a server that does
    /// not answer counts as what its directory says it was started as (F113).
    #[must_use]
    pub fn may_write(&self) -> bool {
        match (&self.postgres.running, self.postgres.process, &self.data) {
            (Some(running), ..) => running.standby.is_none(),
            (None, Process::Postmaster, Data::Present(control)) => !control.standby_signal,
            _ => false,
        }
    }

    /// The standby's state, if the local server is one.
    #[must_use]
    pub fn standby(&self) -> Option<(&Running, &Standby)> {
        let running = self.postgres.running.as_ref()?;
        running.standby.as_ref().map(|standby| (running, standby))
    }

    /// The newest view, or an empty one.
    #[must_use]
    pub fn view(&self) -> Arc<ClusterView> {
        self.store.view.clone().unwrap_or_default()
    }
}

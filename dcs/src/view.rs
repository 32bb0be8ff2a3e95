//! What the store says about a cluster, at one revision: plain, typed records.
//! How they are written as JSON is the business of `keys`; what they mean for
//! this node is the business of the coordinator.

use std::collections::{BTreeMap, BTreeSet};

use config::NodeName;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::passage::Stand;
use crate::{Lsn, SystemId, Timeline};

/// A revision of the store. Every committed write has a higher one than the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Revision(pub i64);

/// One reign of one leader: the create revision of the leader key.
/// A later reign has a higher epoch, whoever leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Epoch(pub i64);

/// An immutable copy of a cluster's records at one revision.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct ClusterView {
    /// The store's revision at which all of this was true.
    pub revision: Revision,
    /// Whether and as what the cluster was initialised.
    pub initialize: Initialize,
    /// Who creates the cluster, as long as `initialize` is empty. Only this project's daemons say it.
    #[serde(default)]
    pub founder: Option<NodeName>,
    /// The dynamic configuration, with the revision that a guarded write must name. It may hold passwords, so what
    /// is serialized is an empty object in its place.
    #[serde(serialize_with = "whether")]
    pub config: Option<Versioned<Value>>,
    /// Who holds the leader lease.
    pub leader: Option<Leader>,
    /// What stands in the leader key instead of a name while the cluster moves between stores, and after it has left.
    pub passage: Option<Stand>,
    /// How many stores the cluster has lived in; 0 and 1 alike: never moved.
    pub generation: u64,
    /// The epoch of the last reign that this project's daemons began, whoever leads now.
    pub reign: Option<Epoch>,
    /// The last timeline that a leader has claimed; 0 if none has.
    #[serde(default)]
    pub claim: Timeline,
    /// The mod revision of that record; 0 if there is none.
    #[serde(default)]
    pub claimed: Revision,
    /// Everybody who published a member record.
    pub members: BTreeMap<NodeName, Member>,
    /// The leader's last published position and slots.
    pub status: Status,
    /// A requested switchover or failover.
    pub failover: Option<Versioned<Failover>>,
    /// Which commits wait for whom.
    pub sync: Option<Versioned<SyncState>>,
    /// Past promotions, oldest first.
    pub history: Option<Vec<HistoryRow>>,
    /// Name → api_url of every member the leader may outlive the store with.
    pub failsafe: Option<BTreeMap<NodeName, String>>,
    /// The mod revision of that record, whether or not it can be read; 0 if there is none.
    pub failsafe_at: Revision,
}

/// Only whether there is a usable one.
fn whether<S: serde::Serializer>(config: &Option<Versioned<Value>>, to: S) -> Result<S::Ok, S::Error> {
    let empty =
        |value: &Value| if value.is_object() { Value::Object(serde_json::Map::new()) } else { Value::Null };
    let hidden =
        config.as_ref().map(|config| Versioned { value: empty(&config.value), revision: config.revision });
    hidden.serialize(to)
}

impl ClusterView {
    /// The timeline that the history says is current: one past the last row's,
    /// 1 for an empty history, 0 if nothing is known (patroni-compat 1.6).
    #[must_use]
    pub fn timeline(&self) -> Timeline {
        match &self.history {
            None => Timeline(0),
            Some(rows) => Timeline(rows.last().map_or(1, |row| row.timeline.0.saturating_add(1))),
        }
    }

    /// Whether the cluster lives in the store of this view (see [`Abode`]).
    #[must_use]
    pub fn abode(&self) -> Abode {
        match &self.passage {
            Some(stand) => Abode::Moving(stand.clone()),
            None if self.leader.is_none()
                && self.initialize == Initialize::Absent
                && self.config.is_none()
                && self.members.is_empty() =>
            {
                Abode::Nowhere
            }
            None => Abode::Here(self.generation.max(1)),
        }
    }

    /// The highest epoch that this store knows of.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        let leader = self.leader.as_ref().map(|leader| leader.epoch);
        leader.max(self.reign).unwrap_or_default()
    }

    /// The leader's member record, if both are there.
    #[must_use]
    pub fn leader_member(&self) -> Option<&Member> {
        self.leader.as_ref().and_then(|leader| self.members.get(&leader.name))
    }
}

/// What one store says of where a cluster lives. Of all stores at most one says [`Abode::Here`]: a store is opened by
/// a transaction that follows the one that closed the store before.
#[derive(Debug, Clone, PartialEq)]
pub enum Abode {
    /// The store knows nothing of the cluster.
    Nowhere,
    /// It lives here, in this generation.
    Here(u64),
    /// It has left, or is about to arrive.
    Moving(Stand),
}

/// A value with the mod revision at which it was read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Versioned<T> {
    /// The value.
    pub value: T,
    /// Its mod revision: what a guarded write compares.
    pub revision: Revision,
}

/// The `initialize` key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Initialize {
    /// No key: nobody ever bootstrapped this cluster.
    #[default]
    Absent,
    /// The key is empty: somebody is bootstrapping now.
    Running,
    /// The cluster exists and has this identity.
    Done(SystemId),
    /// The key holds something that is no system identifier.
    Invalid,
}

impl Initialize {
    /// The identity, if there is one.
    #[must_use]
    pub fn system_id(&self) -> Option<SystemId> {
        match self {
            Self::Done(id) => Some(*id),
            Self::Absent | Self::Running | Self::Invalid => None,
        }
    }
}

/// The `leader` key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leader {
    /// The holder, as written; it may name nobody we know.
    pub name: NodeName,
    /// The create revision of the key.
    pub epoch: Epoch,
    /// The mod revision of the key.
    pub revision: Revision,
    /// The lease under which the key lives; 0 if somebody wrote it without one.
    pub lease: i64,
}

/// A `members/<name>` record (patroni-compat 1.4). Unparsable records read as
/// the default: the member exists, nothing is known of it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Member {
    /// `postgres://host:port/database`.
    pub conn_url: Option<String>,
    /// `http[s]://host:port/patroni`.
    pub api_url: Option<String>,
    /// `proxy_url`, if published.
    pub proxy_url: Option<String>,
    /// Patroni's state text, such as `running`.
    pub state: String,
    /// Patroni's role text, such as `replica`.
    pub role: String,
    /// The Patroni version that the member claims.
    pub version: Option<String>,
    /// matriarch's own version, if the member runs it.
    pub matriarch: Option<String>,
    /// The member has not yet checkpointed on its new timeline.
    pub checkpoint_pending: bool,
    /// Tags as published.
    pub tags: BTreeMap<String, Value>,
    /// Primary: current write position; standby: max(received, replayed).
    pub xlog_location: Option<Lsn>,
    /// Standby: received position.
    pub receive_lsn: Option<Lsn>,
    /// Standby: replayed position.
    pub replay_lsn: Option<Lsn>,
    /// `streaming`, `in archive recovery`, or absent.
    pub replication_state: Option<String>,
    /// The timeline the member is on.
    pub timeline: Option<Timeline>,
    /// Parameters that wait for a restart: name → (old, new). Left out where this is serialized.
    #[serde(skip)]
    pub pending_restart: BTreeMap<String, (String, String)>,
    /// Whether `pending_restart` was published at all.
    pub pending_restart_flag: bool,
    /// A scheduled restart, as published.
    pub scheduled_restart: Option<Value>,
    /// The member itself sees pause.
    pub pause: bool,
    /// The lease under which the record lives.
    pub lease: i64,
}

/// The `status` key.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Status {
    /// The leader's last published position.
    pub optime: Option<Lsn>,
    /// Slot name → position.
    pub slots: BTreeMap<String, Lsn>,
    /// Slots to keep for members seen lately.
    pub retain_slots: BTreeSet<String>,
}

/// The `failover` key when it asks for something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failover {
    /// Who must give up leadership; present: a switchover, absent: a failover.
    pub leader: Option<String>,
    /// Who shall take over.
    pub candidate: Option<String>,
    /// When, as written (ISO 8601 with offset).
    pub scheduled_at: Option<String>,
}

/// The `sync` key.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SyncState {
    /// Whose synchronous set this is.
    pub leader: Option<String>,
    /// How many other voters a candidate must compare with.
    pub quorum: u32,
    /// Synchronous standbys.
    pub standbys: BTreeSet<String>,
}

/// One row of `history`: a timeline that ended, and how.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryRow {
    /// The timeline that ended.
    pub timeline: Timeline,
    /// Where it ended.
    pub lsn: Lsn,
    /// Postgres's reason.
    pub reason: String,
    /// When, as ISO 8601 with offset.
    pub timestamp: Option<String>,
    /// Who promoted.
    pub leader: Option<String>,
}

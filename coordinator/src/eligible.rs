//! Who may lead, and what keeps each member from it (patroni-compat 5.3).

use alloc::collections::BTreeMap;
use alloc::string::String;
use core::fmt;

use api::peer::PeerAnswer;
use config::NodeName;
use dcs::{ClusterView, Lsn, Timeline};
use serde::{Deserialize, Serialize};

use crate::failsafe;
use crate::local::Data;
use crate::observation::{Asked, Observation};
use crate::slots::is_true;
use crate::sync::right;

/// An answer that was asked for longer ago than this says nothing about now.
const OUTDATED: core::time::Duration = core::time::Duration::from_secs(5);

/// What keeps a member from becoming leader.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Obstacle {
    /// Its tags forbid it.
    Nofailover,
    /// A safety setting of the cluster does not work on this node yet.
    Withheld(String),
    /// It does not answer.
    Unreachable,
    /// The record `failsafe` does not name it.
    OutsideFailsafe,
    /// It was not asked yet.
    NotAsked,
    /// Its server does not run.
    NotRunning(String),
    /// It lacks more than `maximum_lag_on_failover`.
    Lag {
        /// Missing bytes.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// Its timeline is older than the cluster's, and `check_timeline` is on.
    OldTimeline {
        /// Its own.
        own: Timeline,
        /// The cluster's.
        cluster: Timeline,
    },
    /// Another member has followed a later leader: its history goes further than this one's.
    LaterTimeline {
        /// Who.
        member: NodeName,
        /// Its timeline.
        timeline: Timeline,
    },
    /// Another member has more.
    Behind {
        /// Who.
        member: NodeName,
        /// How many bytes more.
        bytes: u64,
    },
    /// Another member has as much and a higher `failover_priority`.
    LowerPriority {
        /// Who.
        member: NodeName,
        /// Its priority.
        theirs: i64,
        /// This node's.
        own: i64,
    },
    /// Another member answers as a primary.
    PrimaryAlive(NodeName),
    /// Commits wait for standbys, and it was none of those.
    NotSynchronous {
        /// Whose standbys they are.
        leader: String,
    },
    /// The store has old records again, and this node did not lead last.
    OldRecords,
    /// Too few of the synchronous standbys have said that they have nothing more.
    TooFewVotes {
        /// How many have.
        votes: u32,
        /// How many must.
        quorum: u32,
    },
    /// A rewound server has not passed its old position yet.
    CatchingUp(Lsn),
    /// It has no usable data.
    NoData,
    /// Its watchdog is required and does not work.
    Watchdog,
    /// Its last promotion failed lately.
    PromotionFailed(String),
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nofailover => f.write_str("I am not allowed to promote (nofailover)"),
            Self::Withheld(why) => write!(f, "this node only follows: {why}"),
            Self::Unreachable => f.write_str("it does not answer"),
            Self::NotAsked => f.write_str("it was not asked yet"),
            Self::OutsideFailsafe => f.write_str(
                "the key failsafe does not name it, so a leader without the store may go on without its leave (failsafe_mode); once that one is stopped for certain, turn the mode off and name this member: matriarchctl failover",
            ),
            Self::NotRunning(state) => write!(f, "its Postgres is {state}"),
            Self::Lag { bytes, limit } => {
                write!(f, "it lacks {bytes} bytes of WAL, maximum_lag_on_failover is {limit}")
            }
            Self::OldTimeline { own, cluster } => {
                write!(f, "its timeline {own} is older than the cluster's {cluster} (check_timeline)")
            }
            Self::LaterTimeline { member, timeline } => {
                write!(f, "{member} is on the later timeline {timeline}")
            }
            Self::Behind { member, bytes } => {
                write!(f, "Wal position of {member} is ahead of my wal position ({bytes} bytes)")
            }
            Self::LowerPriority { member, theirs, own } => write!(
                f,
                "{member} has equally tolerable WAL position and priority {theirs}, while this node has priority {own}"
            ),
            Self::PrimaryAlive(member) => write!(f, "{member} answers as a primary"),
            Self::NotSynchronous { leader } => write!(
                f,
                "it is no synchronous standby of {leader} and may lack commits; to accept their loss, fail over to it by name (matriarchctl failover)"
            ),
            Self::OldRecords => f.write_str(
                "the store has old records again (a backup of it was put back), so nobody knows who has every commit but the member that led last: start that one, or name another and accept the loss (matriarchctl failover)",
            ),
            Self::TooFewVotes { votes, quorum } => write!(
                f,
                "only {votes} of the synchronous standbys say that they have nothing more, and {quorum} must (quorum)"
            ),
            Self::CatchingUp(to) => write!(f, "it was repaired and has not passed its old position {to} yet"),
            Self::NoData => f.write_str("it has no usable data directory"),
            Self::Watchdog => f.write_str("its watchdog is required and does not work"),
            Self::PromotionFailed(why) => write!(f, "its last promotion failed: {why}"),
        }
    }
}

/// What keeps this node from leading, whoever else there is. The lag is measured
/// against the leader's last published position unless an operator named a candidate.
pub fn own_obstacle(seen: &Observation, view: &ClusterView, ignore_lag: bool) -> Option<Obstacle> {
    if !seen.me.tags.may_lead() {
        return Some(Obstacle::Nofailover);
    }
    if let Some(why) = seen.me.withheld.first() {
        return Some(Obstacle::Withheld(why.clone()));
    }
    let excluded = || right::membership(seen, view, &seen.me.name);
    if let Some(obstacle) = failsafe::obstacle(seen, view, &seen.me.name).or_else(excluded) {
        return Some(obstacle);
    }
    if !matches!(seen.data, Data::Present(_)) {
        return Some(Obstacle::NoData);
    }
    let Some(running) = &seen.postgres.running else {
        return Some(Obstacle::NotRunning(String::from("not running")));
    };
    if let Some(floor) = seen.floor
        && running.position < floor
    {
        return Some(Obstacle::CatchingUp(floor));
    }
    position_obstacle(seen, view, Some(running.position), Some(running.timeline), ignore_lag)
}

fn position_obstacle(
    seen: &Observation,
    view: &ClusterView,
    position: Option<Lsn>,
    timeline: Option<Timeline>,
    ignore_lag: bool,
) -> Option<Obstacle> {
    let limit = seen.settings.maximum_lag_on_failover;
    let bytes = view.status.optime.unwrap_or_default().ahead_of(position.unwrap_or_default());
    if !ignore_lag && bytes > limit {
        return Some(Obstacle::Lag { bytes, limit });
    }
    let cluster = view.timeline();
    let own = timeline.unwrap_or_default();
    if seen.settings.check_timeline && own < cluster {
        return Some(Obstacle::OldTimeline { own, cluster });
    }
    None
}

/// What keeps another member from leading, by its published record and its own answer.
#[must_use]
pub fn obstacle_of_peer(
    seen: &Observation,
    view: &ClusterView,
    name: &NodeName,
    ignore_lag: bool,
) -> Option<Obstacle> {
    let Some(member) = view.members.get(name) else { return Some(Obstacle::Unreachable) };
    if forbids_leading(&member.tags) {
        return Some(Obstacle::Nofailover);
    }
    let excluded = || right::membership(seen, view, name);
    if let Some(obstacle) = failsafe::obstacle(seen, view, name).or_else(excluded) {
        return Some(obstacle);
    }
    match seen.peers.get(name).map(|peer| &peer.answer) {
        None | Some(Asked::Waiting) => Some(Obstacle::NotAsked),
        Some(Asked::Nothing) => Some(Obstacle::Unreachable),
        Some(Asked::Answered(_, answer)) => answered_obstacle(seen, view, answer, ignore_lag),
    }
}

fn answered_obstacle(
    seen: &Observation,
    view: &ClusterView,
    answer: &PeerAnswer,
    ignore_lag: bool,
) -> Option<Obstacle> {
    if forbids_leading(&answer.tags) {
        return Some(Obstacle::Nofailover);
    }
    if answer.watchdog_failed {
        return Some(Obstacle::Watchdog);
    }
    if answer.state != "running" {
        return Some(Obstacle::NotRunning(answer.state.clone()));
    }
    position_obstacle(seen, view, answer.position, answer.timeline, ignore_lag)
}

/// What keeps another member from leading, by what it last published of itself.
fn published_obstacle(seen: &Observation, view: &ClusterView, name: &NodeName) -> Option<Obstacle> {
    let member = view.members.get(name)?;
    if let Some(obstacle) = right::membership(seen, view, name) {
        return Some(obstacle);
    }
    if member.state != "running" {
        return Some(Obstacle::NotRunning(member.state.clone()));
    }
    position_obstacle(seen, view, member.xlog_location, member.timeline, false)
}

/// Whether published tags forbid leading: a written `nofailover` decides, else a priority of 0 and below.
#[must_use]
pub fn forbids_leading(tags: &BTreeMap<String, serde_json::Value>) -> bool {
    match tags.get("nofailover") {
        None | Some(serde_json::Value::Null) => written_priority(tags).is_some_and(|priority| priority <= 0),
        written => is_true(written),
    }
}

/// The published `failover_priority`, 1 by default, 0 for who must not lead.
#[must_use]
pub fn priority(tags: &BTreeMap<String, serde_json::Value>) -> i64 {
    if forbids_leading(tags) { 0 } else { written_priority(tags).unwrap_or(1).max(0) }
}

/// A number, or a text that is one: YAML files say both, and tags are published as they were written.
fn written_priority(tags: &BTreeMap<String, serde_json::Value>) -> Option<i64> {
    match tags.get("failover_priority")? {
        serde_json::Value::String(text) => text.trim().parse().ok(),
        other => other.as_i64(),
    }
}

/// For every member: what keeps it from leading now. The leader itself has none.
#[must_use]
pub fn obstacles(seen: &Observation) -> BTreeMap<NodeName, Option<Obstacle>> {
    let view = seen.view();
    let mut all: BTreeMap<_, _> = view
        .members
        .keys()
        .filter(|name| **name != seen.me.name)
        .map(|name| {
            // Nobody is asked while all is well: then its own record tells, and no answer of long ago.
            let asked = seen.peers.get(name).is_some_and(|peer| seen.now.since(peer.asked) < OUTDATED);
            match obstacle_of_peer(seen, &view, name, false) {
                Some(Obstacle::NotAsked) => (name.clone(), published_obstacle(seen, &view, name)),
                _ if !asked => (name.clone(), published_obstacle(seen, &view, name)),
                obstacle => (name.clone(), obstacle),
            }
        })
        .collect();
    let own = if seen.holds_lease() { None } else { own_obstacle(seen, &view, false) };
    all.insert(seen.me.name.clone(), own);
    if let Some(leader) = &view.leader {
        all.insert(leader.name.clone(), None);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::{forbids_leading, priority};

    #[test]
    fn tags_are_understood_as_they_were_written() {
        let of = |tags: serde_json::Value| {
            let tags = tags.as_object().unwrap().clone().into_iter().collect();
            (forbids_leading(&tags), priority(&tags))
        };
        assert_eq!(of(serde_json::json!({})), (false, 1));
        assert_eq!(of(serde_json::json!({"failover_priority": 3})), (false, 3));
        assert_eq!(of(serde_json::json!({"failover_priority": "3"})), (false, 3));
        assert_eq!(of(serde_json::json!({"failover_priority": "0"})), (true, 0));
        assert_eq!(of(serde_json::json!({"failover_priority": -1})), (true, 0));
        assert_eq!(of(serde_json::json!({"failover_priority": "high"})), (false, 1));
        assert_eq!(of(serde_json::json!({"nofailover": true, "failover_priority": 3})), (true, 0));
        assert_eq!(of(serde_json::json!({"nofailover": "True"})), (true, 0));
        // A written nofailover wins over the priority, which then only breaks ties.
        assert_eq!(of(serde_json::json!({"nofailover": false, "failover_priority": "0"})), (false, 0));
        assert_eq!(of(serde_json::json!({"nofailover": null, "failover_priority": 0})), (true, 0));
    }
}

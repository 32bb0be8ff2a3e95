//! The others' part: by the record of the last leader, who may lead after it.
//!
//! A candidate that breaks these rules may lack acknowledged commits (resolver.rs has the argument).

use config::{NodeName, SynchronousMode};
use dcs::{ClusterView, Failover, SyncState};

use super::leading;
use crate::decision::Step;
use crate::eligible::Obstacle;
use crate::local::{Data, Process};
use crate::observation::{Asked, Observation};
use crate::past::Past;
use crate::restored;
use crate::slots::is_true;

/// How old an answer may be by which a node that holds the lease already judges itself.
const FRESH: core::time::Duration = core::time::Duration::from_secs(2);

/// The record that restricts who may lead, if commits are to wait for standbys and a leader has written one. An old one
/// that is back restricts nobody beside whom led last.
#[must_use]
pub fn record<'a>(seen: &Observation, view: &'a ClusterView) -> Option<&'a SyncState> {
    let record = view.sync.as_ref().map(|sync| &sync.value);
    let led_last = seen.restored.is_some_and(|restored| restored.led_last);
    let counts = leading::mode(seen) != SynchronousMode::Off && !led_last;
    record.filter(|record| record.leader.is_some() && counts)
}

/// Whether the record has this member as its leader or as a standby.
#[must_use]
pub fn names(record: &SyncState, name: &str) -> bool {
    leads(record, name) || record.standbys.iter().any(|standby| standby.eq_ignore_ascii_case(name))
}

fn leads(record: &SyncState, name: &str) -> bool {
    record.leader.as_deref().is_some_and(|leader| leader.eq_ignore_ascii_case(name))
}

/// Whether an operator has asked for this very member and takes the loss: a failover, which names no leader to give up
/// (P092, P255). A switchover promises to lose nothing.
pub fn loss_accepted(view: &ClusterView, name: &str) -> bool {
    let asked =
        |failover: &Failover| failover.leader.is_none() && failover.candidate.as_deref() == Some(name);
    view.failover.as_ref().is_some_and(|failover| asked(&failover.value))
}

/// What the record keeps from leading, whoever answers.
#[must_use]
pub fn membership(seen: &Observation, view: &ClusterView, name: &NodeName) -> Option<Obstacle> {
    let record = record(seen, view)?;
    let may = names(record, name.as_str()) || loss_accepted(view, name.as_str());
    (!may).then(|| Obstacle::NotSynchronous { leader: record.leader.clone().unwrap_or_default() })
}

/// Whether a candidate compares itself with this member: in the record's set alone is what counts. Where every synchronous
/// standby has every commit, what its former leader has beyond it was never acknowledged (F141).
#[must_use]
pub fn compares(seen: &Observation, view: &ClusterView, name: &NodeName) -> bool {
    match record(seen, view) {
        Some(record) if record.quorum == 0 => names(record, name.as_str()) && !leads(record, name.as_str()),
        Some(record) => names(record, name.as_str()),
        None => true,
    }
}

/// Whether too few of the record's members have said that they have nothing more than this node.
#[must_use]
pub fn votes(seen: &Observation, view: &ClusterView) -> Option<Obstacle> {
    let record = record(seen, view)?;
    let me = seen.me.name.as_str();
    if record.quorum == 0 || leads(record, me) || loss_accepted(view, me) {
        return None;
    }
    let own = seen.postgres.running.as_ref()?;
    let gives = |name: &&NodeName| match seen.peers.get(*name).map(|peer| &peer.answer) {
        Some(Asked::Answered(_, answer)) => {
            let (at, on) = (answer.position.unwrap_or_default(), answer.timeline.unwrap_or_default());
            let nothing_more = on < own.timeline || (on == own.timeline && at <= own.position);
            // One that was rewound, or cloned, has not all that it once acknowledged.
            let whole = !is_true(answer.tags.get("nosync"));
            answer.position.is_some() && answer.timeline.is_some() && nothing_more && whole
        }
        _ => false,
    };
    let others = view.members.keys().filter(|name| name.as_str() != me && names(record, name.as_str()));
    let votes = u32::try_from(others.filter(gives).count()).unwrap_or(u32::MAX);
    (votes < record.quorum).then_some(Obstacle::TooFewVotes { votes, quorum: record.quorum })
}

/// What a node that holds the lease, with a standby for a server, has to do before it takes writes.
#[derive(Debug)]
pub enum Right {
    /// Nothing.
    Has,
    /// This: from then on only it may lead, since it is about to have commits that nobody else has.
    After(Step),
    /// The others must be asked again.
    Asks,
    /// The watch must tell first what this node wrote.
    Waits,
    /// It may lack commits: it must not.
    Refused(Obstacle),
}

/// Judges a promotion under the lease.
#[must_use]
pub fn to_promote(seen: &Observation, view: &ClusterView) -> Right {
    let guard = view.sync.as_ref().map(|sync| sync.revision);
    if let Some(obstacle) = restored::obstacle(seen, view, seen.lease.map(|held| held.epoch)) {
        return Right::Refused(obstacle);
    }
    let Some(record) = record(seen, view) else {
        let outdated = seen.restored.is_some() && leading::mode(seen) != SynchronousMode::Off;
        return match guard.filter(|_| outdated && !leading::behind(seen, view)) {
            Some(_) => Right::After(leading::alone(seen, guard)),
            None if outdated && guard.is_some() => Right::Waits,
            None => Right::Has,
        };
    };
    if leading::behind(seen, view) {
        return Right::Waits;
    }
    if let Some(obstacle) = membership(seen, view, &seen.me.name) {
        return Right::Refused(obstacle);
    }
    let nobody_else =
        leads(record, seen.me.name.as_str()) && record.standbys.is_empty() && record.quorum == 0;
    if nobody_else && !seen.sync.doubtful {
        return Right::Has;
    }
    match votes(seen, view) {
        Some(_) if stale(seen, view, record) => Right::Asks,
        Some(obstacle) => Right::Refused(obstacle),
        None if record.quorum > 0 && !leads(record, seen.me.name.as_str()) && stale(seen, view, record) => {
            Right::Asks
        }
        None => Right::After(leading::alone(seen, guard)),
    }
}

/// The record that this node replaced to lead alone, to be put back: its server was never promoted, so that nobody has
/// acknowledged anything since, and who could lead before still can.
#[must_use]
pub fn put_back(seen: &Observation, past: &Past) -> Option<Step> {
    let (before, view) = (past.superseded.as_ref()?, seen.view());
    // Postgres removes the signal before it takes its first write.
    let unpromoted = matches!(&seen.data, Data::Present(control) if control.standby_signal);
    if !unpromoted || seen.postgres.process != Process::Gone || leading::behind(seen, &view) {
        return None;
    }
    let alone = leading::mine(seen, &view)?;
    let differs = alone.value != *before;
    differs.then(|| Step::WriteSync { sync: before.clone(), guard: Some(alone.revision) })
}

/// Whether some member of the record has not been asked, or not answered, lately.
fn stale(seen: &Observation, view: &ClusterView, record: &SyncState) -> bool {
    let others = view.members.iter().filter(|(name, member)| {
        **name != seen.me.name && member.api_url.is_some() && names(record, name.as_str())
    });
    others.into_iter().any(|(name, _)| {
        seen.peers
            .get(name)
            .is_none_or(|peer| seen.now.since(peer.asked) > FRESH || peer.answer == Asked::Waiting)
    })
}

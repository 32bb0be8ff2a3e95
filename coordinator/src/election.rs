//! Nobody holds the lease: may this node take it?

use alloc::collections::BTreeSet;
use core::time::Duration;

use config::NodeName;
use dcs::{ClusterView, Failover, Initialize, Moment};

use crate::decision::{Decision, Step, Task};
use crate::eligible::{Obstacle, forbids_leading, obstacle_of_peer, own_obstacle, priority};
use crate::local::{Control, Data, Process, Unfinished};
use crate::observation::{Asked, Observation};
use crate::past::Past;
use crate::reason::Reason;
use crate::sync::right;
use crate::{claim, failsafe, fresh, restored};

/// How long a peer's answer is used before it is asked again.
pub const STALE: Duration = Duration::from_secs(1);
/// How long a peer that did not answer is left alone.
const SILENCE: Duration = Duration::from_secs(4);

/// Decides while the lease is vacant.
pub fn decide(seen: &Observation, past: Past) -> Decision {
    let view = seen.view();
    let control = match &seen.data {
        Data::Empty => return fresh::vacant(seen, past, &view),
        Data::Unfinished(Unfinished::Bootstrap) => return fresh::clean_up(seen, past),
        Data::Unfinished(Unfinished::Rewind) => {
            return Decision::wait(seen, past, Reason::ToxicData(Unfinished::Rewind));
        }
        Data::Unreadable(why) => return Decision::wait(seen, past, Reason::UnreadableData(why.clone())),
        Data::Present(control) => *control,
    };
    if let Some(decision) = identity(seen, &past, &view, control) {
        return decision;
    }
    match seen.postgres.process {
        Process::Gone => start(seen, past),
        _ if seen.is_primary() => still_primary(seen, past, &view),
        // It took writes and does not answer: nobody can tell what it does now.
        _ if seen.may_write() => crate::replica::step_down(seen, past, Reason::LeaseLost),
        _ if seen.postgres.running.is_none() => Decision::wait(seen, past, Reason::StartingHere),
        _ => race(seen, past, &view),
    }
}

/// The cluster's identity against the local one (patroni-compat 5.1, rows 11 and 12).
fn identity(seen: &Observation, past: &Past, view: &ClusterView, control: Control) -> Option<Decision> {
    match view.initialize {
        Initialize::Done(cluster) if cluster != control.system_id && past.bootstrapping => {
            Some(fresh::clean_up(seen, past.clone()))
        }
        Initialize::Done(cluster) if cluster != control.system_id => {
            let because = Reason::WrongCluster { here: control.system_id, cluster };
            Some(Decision::act(seen, past.clone(), because, [Step::Exit { code: 1 }]))
        }
        Initialize::Done(_) => None,
        // An earlier life of this node created the cluster, and did not come to say so: nobody else can.
        Initialize::Running if !past.bootstrapping && view.founder.as_ref() == Some(&seen.me.name) => {
            let steps = [Step::WriteInitialize(control.system_id), Step::RestoreConfig];
            Some(Decision::act(seen, past.clone(), Reason::FoundCluster, steps))
        }
        Initialize::Running if !past.bootstrapping => {
            Some(Decision::wait(seen, past.clone(), Reason::WaitForBootstrap))
        }
        // `initialize` stays empty until the new cluster serves: a failure gives it back.
        _ if past.bootstrapping => {
            let steps = [Step::RestoreConfig, claim::acquire(seen, past)];
            Some(Decision::act(seen, past.clone(), Reason::FoundCluster, steps))
        }
        _ if !was_standby(seen, control) => {
            let steps = [Step::WriteInitialize(control.system_id), Step::RestoreConfig];
            Some(Decision::act(seen, past.clone(), Reason::FoundCluster, steps))
        }
        // The store has lost its records: the primary writes them again, a replica never does (F73).
        _ if past.known => Some(Decision::wait(seen, past.clone(), Reason::RecordsLost)),
        _ => Some(Decision::act(seen, past.clone(), Reason::ReplicaWithoutCluster, [Step::Exit { code: 1 }])),
    }
}

fn was_standby(seen: &Observation, control: Control) -> bool {
    match &seen.postgres.running {
        Some(running) => running.standby.is_some(),
        None => control.standby_signal,
    }
}

/// Always as a standby: nothing becomes writable before the lease says so.
fn start(seen: &Observation, past: Past) -> Decision {
    if let Some(setback) = past.waits(seen.now, |task| matches!(task, Task::StartStandby { .. })) {
        let again = setback.again;
        let because = Reason::RejoinFailed(setback.what.clone());
        return Decision::wait(seen, past, because).wake_by(again);
    }
    Decision::act(seen, past, Reason::StartFirst, [Step::Begin(Task::StartStandby { upstream: None })])
}

/// A running primary takes the free lease again, unless the cluster went on without it.
fn still_primary(seen: &Observation, past: Past, view: &ClusterView) -> Decision {
    let timeline = seen.postgres.running.as_ref().map(|running| running.timeline).unwrap_or_default();
    let succeeded =
        right::record(seen, view).is_some_and(|record| !right::names(record, seen.me.name.as_str()));
    // A store that was emptied tells of nobody.
    let led_before = seen.restored.is_some_and(|restored| !restored.led_last && restored.old.reign.is_some());
    if timeline < view.timeline() || !seen.me.withheld.is_empty() || succeeded || led_before {
        return crate::replica::step_down(seen, past, Reason::LeaseLost);
    }
    // Somebody may have led meanwhile and left no other trace (F51): the others know.
    let open = unanswered(seen, view, past.vacant_since.unwrap_or(seen.now));
    if !open.is_empty() {
        return Decision::act(seen, past, Reason::AskOthers, ask(seen, open));
    }
    let overtaken = seen.peers.values().any(|peer| match &peer.answer {
        Asked::Answered(_, answer) => answer.timeline.is_some_and(|theirs| theirs > timeline),
        _ => false,
    });
    if overtaken {
        return crate::replica::step_down(seen, past, Reason::LeaseLost);
    }
    let steps = [claim::acquire(seen, &past)];
    Decision::act(seen, past, Reason::StillPrimary, steps)
}

/// A standby considers itself.
fn race(seen: &Observation, past: Past, view: &ClusterView) -> Decision {
    let failover = asked_for_now(seen, view);
    let named = failover.and_then(|failover| failover.candidate.as_deref());
    let for_me = named == Some(seen.me.name.as_str());
    let outdated = restored::obstacle(seen, view, None);
    if let Some(obstacle) = outdated.or_else(|| own_obstacle(seen, view, for_me)) {
        return Decision::wait(seen, past, Reason::NotEligible(obstacle));
    }
    if let Some(setback) = past.waits(seen.now, |task| matches!(task, Task::Promote { .. })) {
        let (again, obstacle) = (setback.again, Obstacle::PromotionFailed(setback.what.clone()));
        return Decision::wait(seen, past, Reason::NotEligible(obstacle)).wake_by(again);
    }
    if let Some(until) = newly_listed(seen, &past) {
        return Decision::wait(seen, past, Reason::WaitForMembers).wake_by(until);
    }
    if let Some(promise) = failsafe::bound(seen) {
        let (leader, until) = (promise.leader.clone(), promise.until);
        return Decision::wait(seen, past, Reason::Promised(leader)).wake_by(until);
    }
    if let Some((until, because)) = failsafe::leaves_alone(seen, &past, view, for_me) {
        return Decision::wait(seen, past, because).wake_by(until);
    }
    if for_me {
        return named_candidate(seen, past, view);
    }
    if let Some(until) = backs_off(seen, &past).filter(|_| failover.is_none()) {
        return Decision::wait(seen, past, Reason::PrimaryStillWrites).wake_by(until);
    }
    let open = unanswered(seen, view, past.vacant_since.unwrap_or(seen.now));
    if !open.is_empty() {
        // While the answers are renewed, what they said last is the reason to wait.
        let because = past.verdict.clone().unwrap_or(Reason::AskOthers);
        return Decision::act(seen, past, because, ask(seen, open));
    }
    // Whoever was named and has not come within a whole ttl will not come.
    let patient = past.vacant_since.is_some_and(|since| seen.now.since(since) < seen.settings.ttl);
    let verdict = manual(seen, view, failover)
        .filter(|_| patient)
        .or_else(|| restored::outdated(seen, &past, view).map(Reason::NotEligible))
        .or_else(|| better_placed(seen, view).map(Reason::NotEligible))
        .or_else(|| right::votes(seen, view).map(Reason::NotEligible));
    let past = Past { verdict: verdict.clone(), ..past };
    if let (None, Some((name, until))) = (&verdict, yields(seen, &past, view)) {
        return Decision::wait(seen, past, Reason::LeaveToOther(name)).wake_by(until);
    }
    match verdict {
        Some(because) => Decision::wait(seen, past, because).wake_by(seen.now + STALE),
        None => {
            let steps = [claim::acquire(seen, &past)];
            Decision::act(seen, past, Reason::BestCandidate, steps)
        }
    }
}

/// How long a member that gave the lease back leaves it to others, as long as Patroni does.
const YIELD: Duration = Duration::from_secs(2);

/// To whom this node, which has just given the lease back, leaves it, and until when.
fn yields(seen: &Observation, past: &Past, view: &ClusterView) -> Option<(NodeName, Moment)> {
    let until = past.released_at? + YIELD;
    let able =
        |name: &&NodeName| **name != seen.me.name && obstacle_of_peer(seen, view, name, false).is_none();
    (seen.now < until).then(|| view.members.keys().find(able)).flatten().map(|name| (name.clone(), until))
}

/// Until when an election waits for a primary that lost the lease and still sends WAL (`primary_race_backoff`): its
/// daemon may have died alone, and come back. What nobody streams does not flow; whether it does is seen
/// within a `loop_wait`.
fn backs_off(seen: &Observation, past: &Past) -> Option<Moment> {
    let (since, (_, standby)) = (past.vacant_since?, seen.standby()?);
    let flowed = past.flow.map_or(since, |(_, when)| when.max(since));
    let until = (flowed + seen.settings.loop_wait).min(since + seen.settings.primary_race_backoff);
    (standby.streaming && seen.now < until).then_some(until)
}

/// What an operator asks for now; a switchover for later means nothing to an election.
pub fn asked_for_now<'a>(seen: &Observation, view: &'a ClusterView) -> Option<&'a Failover> {
    let failover = view.failover.as_ref().map(|versioned| &versioned.value)?;
    (failover.scheduled_at.is_none() || seen.failover_due.is_some_and(|due| due <= 0)).then_some(failover)
}

/// An operator named this node: it need not compare itself with anybody, but whoever was a
/// primary a moment ago must not be one any more.
pub fn named_candidate(seen: &Observation, past: Past, view: &ClusterView) -> Decision {
    let mut open = unanswered(seen, view, past.vacant_since.unwrap_or(seen.now));
    let asks =
        |name: &NodeName| right::record(seen, view).is_some_and(|record| right::names(record, name.as_str()));
    open.retain(|name| asks(name) || view.members.get(name).is_some_and(takes_writes));
    if !open.is_empty() {
        return Decision::act(seen, past, Reason::AskOthers, ask(seen, open));
    }
    let alive = seen.peers.iter().find(|(_, peer)| {
        matches!(&peer.answer, Asked::Answered(at, answer) if answer.primary && *at >= seen.now - STALE)
    });
    match alive {
        Some((name, _)) => {
            let obstacle = Obstacle::PrimaryAlive(name.clone());
            Decision::wait(seen, past, Reason::NotEligible(obstacle)).wake_by(seen.now + STALE)
        }
        None => match right::votes(seen, view) {
            Some(obstacle) => {
                Decision::wait(seen, past, Reason::NotEligible(obstacle)).wake_by(seen.now + STALE)
            }
            None => {
                let own = seen.postgres.running.as_ref().map(|running| running.position).unwrap_or_default();
                let lacks = view.status.optime.unwrap_or_default().ahead_of(own);
                let steps = [claim::acquire(seen, &past)];
                Decision::act(seen, past, Reason::NamedCandidate { lacks }, steps)
            }
        },
    }
}

fn takes_writes(member: &dcs::Member) -> bool {
    matches!(member.role.as_str(), "primary" | "master")
}

/// Until when an election must wait because this node has only just been listed: so have the
/// others, or not yet. Whoever starts, or comes back to a store that lost its records, would
/// otherwise compare itself with nobody (patroni-compat 5.3 asks the last healthy view).
fn newly_listed(seen: &Observation, past: &Past) -> Option<Moment> {
    let back = |name: &NodeName| seen.view().members.contains_key(name);
    if past.settled || (!past.expected.is_empty() && past.expected.iter().all(back)) {
        return None;
    }
    let since = past.listed_since.unwrap_or(seen.now);
    let until = since + seen.settings.ttl / 10 + Duration::from_secs(1);
    (seen.now < until).then_some(until)
}

/// Members worth asking that were not asked since that moment, or whose answer is old.
/// Silence took its time to be noticed, so it counts for longer than an answer:
/// otherwise one dead host would be asked for ever.
pub fn unanswered(seen: &Observation, view: &ClusterView, since: Moment) -> BTreeSet<NodeName> {
    let fresh = |name: &NodeName| {
        seen.peers.get(name).is_some_and(|peer| {
            peer.asked >= since
                && match &peer.answer {
                    Asked::Waiting => false,
                    Asked::Nothing => peer.asked >= seen.now - SILENCE,
                    Asked::Answered(at, _) => *at >= seen.now - STALE,
                }
        })
    };
    view.members
        .iter()
        .filter(|(name, member)| **name != seen.me.name && member.api_url.is_some())
        .filter(|(name, _)| !fresh(name))
        .map(|(name, _)| name.clone())
        .collect()
}

/// A question to those of these members to whom none is open.
pub fn ask(seen: &Observation, mut names: BTreeSet<NodeName>) -> Option<Step> {
    let waiting = |name: &NodeName| seen.peers.get(name).is_some_and(|peer| peer.answer == Asked::Waiting);
    names.retain(|name| !waiting(name));
    (!names.is_empty()).then_some(Step::Ask(names))
}

/// An operator's request that is not for this node (patroni-compat 5.5, "no leader").
fn manual(seen: &Observation, view: &ClusterView, failover: Option<&Failover>) -> Option<Reason> {
    let failover = failover?;
    if let Some(candidate) = &failover.candidate {
        let name = NodeName::new(candidate).ok()?;
        return obstacle_of_peer(seen, view, &name, true)
            .is_none()
            .then(|| Reason::LeaveToCandidate(candidate.clone()));
    }
    let gives_up = failover.leader.as_deref() == Some(seen.me.name.as_str());
    let other = view
        .members
        .keys()
        .find(|name| **name != seen.me.name && obstacle_of_peer(seen, view, name, false).is_none())?;
    gives_up.then(|| Reason::LeaveToCandidate(other.as_str().into()))
}

/// The member that should lead rather than this one, and why.
fn better_placed(seen: &Observation, view: &ClusterView) -> Option<Obstacle> {
    let running = seen.postgres.running.as_ref();
    let own = running.map(|running| running.position).unwrap_or_default();
    let timeline = running.map(|running| running.timeline).unwrap_or_default();
    for (name, member) in view.members.iter().filter(|(name, _)| **name != seen.me.name) {
        let Some(Asked::Answered(_, answer)) = seen.peers.get(name).map(|peer| &peer.answer) else {
            continue;
        };
        if answer.primary {
            return Some(Obstacle::PrimaryAlive(name.clone()));
        }
        if !right::compares(seen, view, name) {
            continue;
        }
        if forbids_leading(&member.tags) || forbids_leading(&answer.tags) || answer.watchdog_failed {
            continue;
        }
        let theirs = answer.position.unwrap_or_default();
        // Positions compare on one timeline only: what a former leader wrote after it was
        // replaced is not more of the cluster's history, however long it is (F102).
        let later = answer.timeline.unwrap_or(timeline);
        if later < timeline {
            continue;
        }
        if later > timeline {
            if obstacle_of_peer(seen, view, name, false).is_none() {
                return Some(Obstacle::LaterTimeline { member: name.clone(), timeline: later });
            }
            continue;
        }
        if theirs > own {
            return Some(Obstacle::Behind { member: name.clone(), bytes: theirs.ahead_of(own) });
        }
        let (rank, mine) = (priority(&answer.tags), seen.me.tags.priority());
        if theirs == own && rank > mine {
            return Some(Obstacle::LowerPriority { member: name.clone(), theirs: rank, own: mine });
        }
    }
    None
}

//! Giving leadership away on purpose: a switchover, or a clean shutdown.
//!
//! The order is the point: choose who could lead, stop with everything flushed,
//! see that somebody has the last checkpoint, and only then let the lease go.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::time::Duration;

use config::NodeName;
use dcs::{Failover, Lsn, Moment, Revision, Timeline, Versioned};

use crate::decision::{Decision, Step, StopMode, Task};
use crate::election::{STALE, ask, unanswered};
use crate::eligible::{Obstacle, obstacle_of_peer};
use crate::leader;
use crate::local::{ControlState, Data, Process};
use crate::observation::{Asked, Observation};
use crate::past::{Intent, Past};
use crate::reason::Reason;
use crate::sync::admission;

/// How long a stopped leader waits for a candidate to confirm the last checkpoint.
const CONFIRM: Duration = Duration::from_secs(3);
/// How long a switchover waits for a candidate that is on its way to the leader's timeline.
const ARRIVE: Duration = Duration::from_secs(5);
/// How soon such a candidate is asked again.
const AGAIN: Duration = Duration::from_millis(100);
/// How soon the question for the last checkpoint is repeated.
const REPEAT: Duration = Duration::from_millis(20);

/// Judges the `failover` key on the leader (patroni-compat 5.5); nothing if it asks for nothing now.
pub fn consider(seen: &Observation, past: &Past, failover: &Versioned<Failover>) -> Option<Decision> {
    let request = &failover.value;
    let clear = |because: Reason| {
        let steps = [Step::ClearFailover { revision: failover.revision }];
        Some(Decision::act(seen, past.clone(), because, steps))
    };
    let me = seen.me.name.as_str();
    if request.leader.is_none() && request.candidate.is_none() {
        return None;
    }
    if let Some(leader) = request.leader.as_deref().filter(|leader| *leader != me) {
        let why = alloc::format!("{leader} has given up, and I lead now");
        return clear(Reason::StaleFailover(why));
    }
    if request.candidate.as_deref() == Some(me) {
        return clear(Reason::StaleFailover(String::from("I am the candidate, and I lead already")));
    }
    if request.candidate.is_none() && seen.settings.pause {
        let why = String::from("in a paused cluster a candidate must be named");
        return clear(Reason::StaleFailover(why));
    }
    if request.scheduled_at.is_some() {
        match seen.failover_due {
            Some(_) if seen.settings.pause => return None,
            Some(due) if due > 0 => return None,
            Some(due) if Duration::from_secs(due.unsigned_abs()) > seen.settings.loop_wait * 3 / 2 => {
                return clear(Reason::StaleFailover(String::from("its time has passed")));
            }
            Some(_) => {}
            None => return clear(Reason::StaleFailover(String::from("its time cannot be read"))),
        }
    }
    if past.abandoned == Some(failover.revision) {
        return clear(Reason::HandOverImpossible(String::from("it was tried and given up")));
    }
    let view = seen.view();
    // Who was silent, stopped or behind in the election before may be well by now: answers of
    // before this request do not count.
    let weighed = past.weighed.filter(|(revision, _)| *revision == failover.revision);
    let since = weighed.map_or(seen.now, |(_, since)| since);
    let past = Past { weighed: Some((failover.revision, since)), ..past.clone() };
    let open = unanswered(seen, &view, since);
    if !open.is_empty() {
        return Some(Decision::act(seen, past, Reason::AskCandidates, ask(seen, open)));
    }
    match impossible(seen, request) {
        Some(_) if seen.now.since(since) < ARRIVE && somebody_arrives(seen, request) => {
            let open = unanswered(seen, &view, seen.now - AGAIN);
            let decision = Decision::act(seen, past, Reason::AskCandidates, ask(seen, open));
            Some(decision.wake_by(seen.now + AGAIN))
        }
        Some(why) => clear(Reason::HandOverImpossible(why)),
        None => Some(begin(seen, &past, failover.revision, request.candidate.clone())),
    }
}

fn begin(seen: &Observation, past: &Past, revision: Revision, candidate: Option<String>) -> Decision {
    let because = Reason::HandOver { to: candidate.clone() };
    let intent = Intent::HandOver { revision: Some(revision), candidate, since: seen.now };
    let past = Past { intent: Some(intent), ..past.clone() };
    Decision::act(seen, past, because, [Step::Begin(Task::Stop(StopMode::Handover))])
}

/// Why nobody could take over; nothing if somebody could.
fn impossible(seen: &Observation, request: &Failover) -> Option<String> {
    let view = seen.view();
    let mut obstacles = Vec::new();
    for name in view.members.keys().filter(|name| **name != seen.me.name) {
        if request.candidate.as_deref().is_some_and(|candidate| candidate != name.as_str()) {
            continue;
        }
        match obstacle_of_peer(seen, &view, name, false).or_else(|| astray(seen, name)) {
            None => return None,
            Some(obstacle) => obstacles.push(alloc::format!("{name}: {obstacle}")),
        }
    }
    if obstacles.is_empty() {
        return Some(match &request.candidate {
            Some(candidate) => alloc::format!("there is no member {candidate}"),
            None => String::from("there is no other member"),
        });
    }
    Some(obstacles.join("; "))
}

/// Whether a candidate lacks nothing but the leader's timeline: right after a change of leader a
/// standby is still on its way there.
fn somebody_arrives(seen: &Observation, request: &Failover) -> bool {
    let view = seen.view();
    view.members
        .keys()
        .filter(|name| **name != seen.me.name)
        .filter(|name| request.candidate.as_deref().is_none_or(|candidate| candidate == name.as_str()))
        .any(|name| obstacle_of_peer(seen, &view, name, false).is_none() && astray(seen, name).is_some())
}

/// A member that is on another timeline does not have this leader's history.
fn astray(seen: &Observation, name: &NodeName) -> Option<Obstacle> {
    let cluster = seen.postgres.running.as_ref()?.timeline;
    let Asked::Answered(_, answer) = &seen.peers.get(name)?.answer else { return None };
    let own = answer.timeline?;
    (own != cluster).then_some(Obstacle::OldTimeline { own, cluster })
}

/// Why leadership is given away although nobody asked for it in the store.
fn without_request(seen: &Observation) -> Reason {
    match seen.me.withheld.first() {
        Some(why) if seen.ending.is_none() => Reason::Withheld(why.clone()),
        _ => Reason::Stopping,
    }
}

/// Goes on with handing over, turn by turn, until the lease is gone or the attempt is given up.
pub fn go_on(
    seen: &Observation,
    past: Past,
    revision: Option<Revision>,
    candidate: Option<&str>,
    since: Moment,
) -> Decision {
    let because = match revision {
        Some(_) => Reason::HandOver { to: candidate.map(ToString::to_string) },
        None => without_request(seen),
    };
    if seen.postgres.process != Process::Gone {
        if let Some(setback) = past.waits(seen.now, |task| matches!(task, Task::Stop(_))) {
            let again = setback.again;
            return Decision::wait(seen, past, because).wake_by(again);
        }
        let mode = if past.failed(|task| matches!(task, Task::Stop(_))).is_some() {
            StopMode::Fast
        } else {
            StopMode::Handover
        };
        return Decision::act(seen, past, because, [Step::Begin(Task::Stop(mode))]);
    }
    let Data::Present(control) = &seen.data else {
        return leader::release(seen, past, because, None);
    };
    if control.state != ControlState::ShutDown {
        return unclean(seen, past, revision, because);
    }
    let end = control.end.unwrap_or(Lsn(control.checkpoint.0.saturating_add(1)));
    let holders = holders(seen, control.timeline, end);
    let chosen = match candidate {
        Some(name) => holders.into_iter().find(|holder| holder.as_str() == name),
        None => holders.into_iter().next(),
    };
    if let Some(to) = chosen {
        return leader::release(seen, past, Reason::HandOverLease { to }, Some(control.checkpoint));
    }
    let stopped = seen.ended.as_ref().map_or(since, |ended| ended.at).max(since);
    if seen.now.since(stopped) >= CONFIRM || nobody_to_ask(seen) {
        return unconfirmed(seen, past, revision, control.checkpoint);
    }
    let past = match past.intent {
        // The time to confirm counts from the stop, not from the request.
        Some(Intent::HandOver { revision, candidate, .. }) if seen.ended.is_some() => {
            Past { intent: Some(Intent::HandOver { revision, candidate, since: stopped }), ..past }
        }
        _ => past,
    };
    let view = seen.view();
    let open = unanswered(seen, &view, seen.now - REPEAT);
    Decision::act(seen, past, Reason::WaitForCandidate, ask(seen, open)).wake_by(seen.now + REPEAT)
}

/// Postgres did not stop cleanly: a switchover is given up, a shutdown goes on.
fn unclean(seen: &Observation, past: Past, revision: Option<Revision>, because: Reason) -> Decision {
    match revision {
        None => leader::release(seen, past, because, None),
        Some(revision) => abandon(seen, past, revision, "Postgres did not shut down cleanly"),
    }
}

/// Nobody proved to have the last checkpoint: a switchover is given up; a
/// shutdown writes its position and lets go, so that nobody behind it may lead.
fn unconfirmed(seen: &Observation, past: Past, revision: Option<Revision>, checkpoint: Lsn) -> Decision {
    match revision {
        None => leader::release(seen, past, without_request(seen), Some(checkpoint)),
        Some(revision) => abandon(seen, past, revision, "no candidate has the last checkpoint"),
    }
}

/// Start again where it was; the next turn does it.
fn abandon(seen: &Observation, past: Past, revision: Revision, why: &str) -> Decision {
    let past = Past { intent: None, abandoned: Some(revision), ..past };
    let because = Reason::HandOverImpossible(String::from(why));
    let steps: Vec<Step> = match seen.lease {
        Some(held) => {
            alloc::vec![
                Step::Begin(Task::RestartInPlace { epoch: held.epoch, closed: admission::closes(seen) }),
                Step::ClearFailover { revision }
            ]
        }
        None => Vec::new(),
    };
    Decision::act(seen, past, because, steps)
}

/// Eligible members that have everything up to `end` of this timeline, the most preferred first.
fn holders(seen: &Observation, timeline: Timeline, end: Lsn) -> Vec<NodeName> {
    let view = seen.view();
    let mut found: Vec<(i64, NodeName)> = Vec::new();
    for name in view.members.keys().filter(|name| **name != seen.me.name) {
        let Some(Asked::Answered(_, answer)) = seen.peers.get(name).map(|peer| &peer.answer) else {
            continue;
        };
        let complete = answer.position.is_some_and(|position| position >= end);
        let same = answer.timeline.is_none_or(|theirs| theirs == timeline);
        if complete && same && obstacle_of_peer(seen, &view, name, true).is_none() {
            found.push((-crate::eligible::priority(&answer.tags), name.clone()));
        }
    }
    found.sort();
    found.into_iter().map(|(_, name)| name).collect()
}

/// When this server ended, if it did: what it had sent by then may have arrived since.
fn ended(seen: &Observation) -> Moment {
    seen.postgres.crashed.max(seen.postgres.down).unwrap_or_default()
}

fn lately(seen: &Observation, name: &NodeName) -> bool {
    match seen.peers.get(name).map(|peer| &peer.answer) {
        Some(Asked::Answered(at, _)) => *at >= (seen.now - STALE * 2).max(ended(seen)),
        _ => false,
    }
}

/// An eligible member that answered lately and has flushed all that this server had when it ended.
pub fn complete_candidate(seen: &Observation) -> Option<NodeName> {
    let Data::Present(control) = &seen.data else { return None };
    holders(seen, control.timeline, control.end?).into_iter().find(|name| lately(seen, name))
}

/// Whether some other member answered lately and nothing keeps it from leading.
pub fn somebody_could_lead(seen: &Observation) -> bool {
    let view = seen.view();
    view.members
        .keys()
        .filter(|name| **name != seen.me.name && lately(seen, name))
        .any(|name| obstacle_of_peer(seen, &view, name, false).is_none())
}

/// What keeps each of the others from leading, for people to read.
pub fn obstacles(seen: &Observation) -> String {
    let view = seen.view();
    let others = view.members.keys().filter(|name| **name != seen.me.name);
    let said: Vec<String> = others
        .map(|name| match obstacle_of_peer(seen, &view, name, false) {
            Some(obstacle) => alloc::format!("{name}: {obstacle}"),
            None => alloc::format!("{name}: its last answer is older than the end of this server"),
        })
        .collect();
    if said.is_empty() { String::from("there is no other member") } else { said.join("; ") }
}

/// Whether some other member answered lately that only its server's rest keeps it from leading.
pub fn somebody_waits(seen: &Observation) -> bool {
    let view = seen.view();
    view.members
        .keys()
        .filter(|name| **name != seen.me.name && lately(seen, name))
        .any(|name| matches!(obstacle_of_peer(seen, &view, name, false), Some(Obstacle::NotRunning(_))))
}

/// A question to everybody whose last answer is old, or older than the end of this server.
pub fn ask_everybody(seen: &Observation) -> Option<Step> {
    ask(seen, unanswered(seen, &seen.view(), ended(seen)))
}

/// A question to everybody whose last answer is older than this.
pub fn ask_again(seen: &Observation, age: Duration) -> Option<Step> {
    ask(seen, unanswered(seen, &seen.view(), seen.now - age))
}

/// Whether some member has not been asked lately, or has not answered yet.
pub fn anybody_unasked(seen: &Observation) -> bool {
    !unanswered(seen, &seen.view(), ended(seen)).is_empty()
}

fn nobody_to_ask(seen: &Observation) -> bool {
    seen.view().members.iter().all(|(name, member)| *name == seen.me.name || member.api_url.is_none())
}

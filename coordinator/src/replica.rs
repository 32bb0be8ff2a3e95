//! Somebody else leads: follow, or become able to.

use alloc::vec::Vec;
use core::time::Duration;

use config::NodeName;
use dcs::{ClusterView, Initialize, Timeline};

use crate::decision::{Decision, Grounds, Step, StopMode, Task};
use crate::local::{Data, Process, Running, Standby, Unfinished, Upstream};
use crate::observation::{Asked, Observation};
use crate::past::{Intent, Past};
use crate::reason::Reason;
use crate::rejoin::{self, Lineage};
use crate::slots::{is_true, slot_name};
use crate::{fresh, leader, restored};

/// Decides while `name` holds the lease.
pub fn decide(seen: &Observation, past: Past, name: &NodeName) -> Decision {
    let view = seen.view();
    if let Some(Intent::Reinitialize { .. }) = past.intent {
        return reinitialize(seen, past, name);
    }
    if let (Initialize::Done(cluster), Data::Present(control)) = (view.initialize, &seen.data)
        && cluster != control.system_id
    {
        let because = Reason::WrongCluster { here: control.system_id, cluster };
        return Decision::act(seen, past, because, [Step::Exit { code: 1 }]);
    }
    // Before anything else is judged: whoever takes writes without the lease stops.
    if seen.may_write() {
        return step_down(seen, past, Reason::StepDown(name.clone()));
    }
    match &seen.data {
        Data::Empty => return fresh::clone(seen, past, name),
        Data::Unreadable(why) => return Decision::wait(seen, past, Reason::UnreadableData(why.clone())),
        Data::Unfinished(Unfinished::Bootstrap) => return fresh::clean_up(seen, past),
        Data::Unfinished(Unfinished::Rewind) => return rejoin::again(seen, past, name),
        Data::Present(_) => {}
    }
    if seen.postgres.process == Process::Gone {
        return rejoin::start(seen, past, name);
    }
    match seen.standby() {
        None => starting(seen, past, name),
        Some((running, standby)) => follow(seen, past, name, running, standby),
    }
}

/// Decides while an old key that somebody has put back says that `name` leads: nobody follows it, and nothing is
/// repaired after it. Its lease runs out, or it is given back by who knows better. If that one really leads, because it
/// was away and knew no better, it is followed where acknowledged commits may be lost, and else by an operator's wish only.
pub fn hold(seen: &Observation, past: Past, name: NodeName) -> Decision {
    if seen.may_write() {
        return step_down(seen, past, Reason::StepDown(name));
    }
    let leads = matches!(seen.peers.get(&name).map(|peer| &peer.answer), Some(Asked::Answered(_, answer)) if answer.primary);
    let wished = matches!(past.intent, Some(Intent::Reinitialize { .. })) || seen.data == Data::Empty;
    if wished || (leads && !restored::guarded(seen)) {
        return decide(seen, past, &name);
    }
    let waits = past.waits(seen.now, |task| matches!(task, Task::StartStandby { .. })).is_some();
    if seen.postgres.process == Process::Gone && matches!(seen.data, Data::Present(_)) && !waits {
        let start = Step::Begin(Task::StartStandby { upstream: None });
        return Decision::act(seen, past, Reason::OldKey(name), [start]);
    }
    let lately =
        seen.peers.get(&name).is_some_and(|peer| seen.now.since(peer.asked) < seen.settings.loop_wait);
    let ask = (!lately).then(|| Step::Ask([name.clone()].into_iter().collect()));
    Decision::act(seen, past, Reason::OldKey(name), ask).wake_by(seen.now + seen.settings.loop_wait)
}

/// A server that takes writes without the lease stops at once.
pub fn step_down(seen: &Observation, past: Past, because: Reason) -> Decision {
    let past = Past { intent: Some(Intent::Demote), ..past };
    stop(seen, past, because, StopMode::Immediate)
}

/// Stops the server; a stop that failed is tried again after a moment, the hard way.
pub fn stop(seen: &Observation, past: Past, because: Reason, mode: StopMode) -> Decision {
    if let Some(setback) = past.waits(seen.now, |task| matches!(task, Task::Stop(_))) {
        let again = setback.again;
        return Decision::wait(seen, past, because).wake_by(again);
    }
    let failed = past.failed(|task| matches!(task, Task::Stop(_))).is_some();
    let mode = if failed { StopMode::Immediate } else { mode };
    Decision::act(seen, past, because, [Step::Begin(Task::Stop(mode))])
}

/// A server that does not answer yet. A standby may have to stream before it is consistent: it is told from whom.
fn starting(seen: &Observation, past: Past, name: &NodeName) -> Decision {
    let view = seen.view();
    let wanted = upstream(seen, &view, name);
    let standby = matches!(&seen.data, Data::Present(control) if control.standby_signal);
    if standby && wanted.is_some() && seen.postgres.upstream != wanted {
        return Decision::act(seen, past, Reason::Follow(name.clone()), [Step::Follow(wanted)]);
    }
    let reign = view.leader.as_ref().map(|key| (name.clone(), key.epoch));
    let doubtful = seen.postgres.silent_since.map(|since| since + DOUBTFUL);
    match doubtful.filter(|_| standby && past.doubted != reign && rejoin::leader_takes_writes(&view, name)) {
        Some(at) if seen.now >= at => {
            stop(seen, Past { doubted: reign, ..past }, Reason::StandbyInconsistent, StopMode::Fast)
        }
        Some(at) => Decision::wait(seen, past, Reason::StartingHere).wake_by(at),
        None => Decision::wait(seen, past, Reason::StartingHere),
    }
}

/// How long a standby may take to become consistent before it is asked whether it can at all: what it lacks may be in
/// nobody's history any more.
const DOUBTFUL: Duration = Duration::from_secs(60);

/// A running standby: the right upstream, the right history, its slots.
fn follow(seen: &Observation, past: Past, name: &NodeName, running: &Running, standby: &Standby) -> Decision {
    let view = seen.view();
    let mut past = Past { intent: None, ..past };
    if let Some(decision) = turn_to(seen, &past, name, &view, running) {
        return decision;
    }
    if let Some(decision) = compare(seen, &mut past, name, &view, running) {
        return decision;
    }
    if let Some(decision) = turn_to(seen, &past, name, &view, running) {
        return decision;
    }
    let mut steps: Vec<Step> = look_again(seen, &mut past, name, &view, standby).into_iter().collect();
    steps.extend(leader::keep_slots(seen, &mut past));
    Decision::act(seen, past, Reason::Following(name.clone()), steps)
}

/// Streams from another upstream, if it should.
fn turn_to(
    seen: &Observation,
    past: &Past,
    name: &NodeName,
    view: &ClusterView,
    running: &Running,
) -> Option<Decision> {
    let wanted = source(seen, past, view, name, running.timeline);
    if seen.postgres.upstream == wanted || wanted.is_none() && leader_without_address(view, name) {
        return None;
    }
    Some(Decision::act(seen, past.clone(), Reason::Follow(name.clone()), [Step::Follow(wanted)]))
}

/// How long a standby may be without a stream before its history is compared again: the
/// leader's may have been read before it was promoted, or this one has replayed more since.
const IDLE: Duration = Duration::from_secs(5);

/// A standby that does not stream although its leader takes writes has perhaps left its history.
fn look_again(
    seen: &Observation,
    past: &mut Past,
    name: &NodeName,
    view: &ClusterView,
    standby: &Standby,
) -> Option<Step> {
    if standby.streaming || seen.me.tags.nostream || !rejoin::leader_takes_writes(view, name) {
        past.idle_since = None;
        return None;
    }
    let since = *past.idle_since.get_or_insert(seen.now);
    if seen.now.since(since) < IDLE {
        return None;
    }
    past.idle_since = Some(seen.now);
    past.compared = None;
    Some(Step::ReadLineage(name.clone()))
}

fn leader_without_address(view: &ClusterView, name: &NodeName) -> bool {
    view.members.get(name).is_none_or(|member| member.conn_url.is_none())
}

/// Once per reign, when the leader takes writes: does this standby's history agree with the leader's?
fn compare(
    seen: &Observation,
    past: &mut Past,
    name: &NodeName,
    view: &ClusterView,
    running: &Running,
) -> Option<Decision> {
    let epoch = view.leader.as_ref()?.epoch;
    let key = Some((name.clone(), epoch));
    if past.compared == key || !rejoin::leader_takes_writes(view, name) {
        return None;
    }
    let Some(history) = rejoin::history_of(seen, view, name) else {
        return Some(rejoin::read_lineage(seen, past.clone(), name, Reason::Following(name.clone())));
    };
    let replayed = running.standby.as_ref().map_or(running.position, |standby| standby.replayed);
    match rejoin::lineage(running.timeline, replayed, false, &seen.switches, history) {
        Lineage::Agrees => {
            past.compared = key;
            None
        }
        Lineage::Diverged { .. } if unsure(seen, past, running, history.timeline) => {
            Some(Decision::wait(seen, past.clone(), Reason::Following(name.clone())).wake_by(seen.now + IDLE))
        }
        Lineage::Diverged { fork } => {
            // Remembered, since a stopped standby's directory tells less than a running one.
            past.diverged = Some((name.clone(), epoch, fork));
            let because = Reason::Diverged { fork, timeline: running.timeline };
            Some(stop(seen, past.clone(), because, StopMode::Fast))
        }
    }
}

/// A standby that was just started and does not stream yet tells the timeline of its last restart point, and
/// may have replayed into a later one: nothing is concluded from it before it had time to stream.
fn unsure(seen: &Observation, past: &mut Past, running: &Running, leaders: Timeline) -> bool {
    let streaming = running.standby.as_ref().is_some_and(|standby| standby.streaming);
    if streaming || running.timeline >= leaders {
        return false;
    }
    let since = *past.idle_since.get_or_insert(seen.now);
    seen.now.since(since) < IDLE
}

/// From whom a server on `timeline` may stream now. From nobody from whom it does not stream already, before the histories are
/// compared, if the cluster's records do not tell its timeline: another leader may have made one of the
/// same number since, and Postgres would replay the one after the other (F103).
pub fn source(
    seen: &Observation,
    past: &Past,
    view: &ClusterView,
    leader: &NodeName,
    timeline: Timeline,
) -> Option<Upstream> {
    let wanted = upstream(seen, view, leader);
    let reign = view.leader.as_ref().map(|key| (leader.clone(), key.epoch));
    let streams = seen.standby().is_some_and(|(_, standby)| standby.streaming);
    let may = (streams && seen.postgres.upstream == wanted)
        || past.compared == reign
        || rejoin::recorded(view, timeline, &seen.switches);
    wanted.filter(|_| may)
}

/// Whom this node follows while `leader` leads (patroni-compat 5.9).
#[must_use]
pub fn upstream(seen: &Observation, view: &ClusterView, leader: &NodeName) -> Option<Upstream> {
    if seen.me.tags.nostream {
        return None;
    }
    let chosen = seen
        .me
        .tags
        .replicatefrom
        .as_ref()
        .filter(|from| **from != seen.me.name)
        .filter(|from| {
            view.members.get(*from).is_some_and(|member| {
                member.conn_url.is_some()
                    && member.state == "running"
                    && !is_true(member.tags.get("nostream"))
            })
        })
        .unwrap_or(leader);
    let (host, port) = address(view.members.get(chosen)?.conn_url.as_deref()?)?;
    let slot = seen.settings.use_slots.then(|| slot_name(seen.me.name.as_str()));
    Some(Upstream { member: chosen.clone(), host, port, slot })
}

/// Host and port of `postgres://host:port/database`; brackets of IPv6 hosts are taken off.
#[must_use]
pub fn address(conn_url: &str) -> Option<(alloc::string::String, u16)> {
    let rest = conn_url.split_once("://")?.1;
    let authority = rest.split(['/', '?']).next()?;
    let authority = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok()?),
        _ => (authority, 5432),
    };
    Some((host.trim_start_matches('[').trim_end_matches(']').into(), port))
}

/// An operator wants a new copy: stop, move the old one aside, clone.
fn reinitialize(seen: &Observation, past: Past, name: &NodeName) -> Decision {
    let because = Reason::Reinitialize;
    match (&seen.data, seen.postgres.process) {
        // The wish for the leader as source ends with the first clone that begins; that the copy
        // is started, in pause too, does not.
        (Data::Empty, Process::Gone) => {
            let mut decision = fresh::clone(seen, past, name);
            if decision.steps.iter().any(|step| matches!(step, Step::Begin(_))) {
                decision.past.intent = Some(Intent::Demote);
            }
            decision
        }
        (_, Process::Postmaster | Process::Remnants) => stop(seen, past, because, StopMode::Immediate),
        (_, Process::Gone) => {
            if let Some(setback) = past.failed(|task| matches!(task, Task::Retire { .. })) {
                let because = Reason::CannotRejoin(setback.what.clone());
                return Decision::wait(seen, Past { intent: None, setback: None, ..past }, because);
            }
            let retire = Task::Retire { grounds: Grounds::Reinitialize, leader: Some(name.clone()) };
            Decision::act(seen, past, because, [Step::Begin(retire)])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::address;

    #[test]
    fn an_address_is_read_from_a_connection_url() {
        assert_eq!(address("postgres://10.0.0.1:5433/postgres"), Some(("10.0.0.1".into(), 5433)));
        assert_eq!(address("postgres://[::1]:5433/postgres"), Some(("::1".into(), 5433)));
        assert_eq!(address("postgres://db1/postgres"), Some(("db1".into(), 5432)));
        assert_eq!(address("nonsense"), None);
    }
}

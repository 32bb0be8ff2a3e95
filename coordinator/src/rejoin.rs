//! A stopped server and a leader: follow, rewind, or clone anew (patroni-compat 5.10).

use alloc::string::String;
use core::time::Duration;

use config::NodeName;
use dcs::{ClusterView, Lsn, Timeline};

use crate::decision::{Decision, Grounds, Step, Task};
use crate::local::{Control, ControlState, Data, Process};
use crate::observation::{LeaderHistory, Observation};
use crate::past::Past;
use crate::reason::Reason;
use crate::replica;

/// How a local history relates to the leader's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lineage {
    /// All that is here is part of the leader's history.
    Agrees,
    /// What is here left the leader's history at this position.
    Diverged {
        /// The last common position known.
        fork: Lsn,
    },
}

/// Compares the local end of history with the leader's (patroni-compat 5.10).
///
/// On the leader's own timeline a standby agrees, and a former primary does not: two
/// promotions have made the same number (F103). A timeline that the leader passed through
/// must have been left by it no earlier than where this server is. A server that was primary wrote a shutdown checkpoint
/// that must be exactly where the leader left, or everything after it is its own.
#[must_use]
pub fn lineage(
    timeline: Timeline,
    end: Lsn,
    was_primary: bool,
    own: &[(Timeline, Lsn)],
    leader: &LeaderHistory,
) -> Lineage {
    if let Some(fork) = parted(timeline, own, leader) {
        return Lineage::Diverged { fork };
    }
    if timeline == leader.timeline && !was_primary {
        return Lineage::Agrees;
    }
    let left = leader.switches.iter().find(|(passed, _)| *passed == timeline).map(|(_, at)| *at);
    match left {
        Some(at) if was_primary && end == at => Lineage::Agrees,
        Some(at) if !was_primary && end <= at => Lineage::Agrees,
        Some(at) => Lineage::Diverged { fork: at.min(end) },
        None => {
            let fork = leader.switches.iter().take_while(|(passed, _)| *passed < timeline).last();
            Lineage::Diverged { fork: fork.map(|(_, at)| *at).unwrap_or_default() }
        }
    }
}

/// Where two histories parted before their last timelines: the same number, left at different
/// positions, is not the same timeline (F103). Nothing if they did not, or if that is not known.
fn parted(timeline: Timeline, own: &[(Timeline, Lsn)], leader: &LeaderHistory) -> Option<Lsn> {
    let same = |(passed, _): &&(Timeline, Lsn)| *passed < timeline.min(leader.timeline);
    let (mine, theirs) = (own.iter().filter(same), leader.switches.iter().filter(same));
    let unlike = mine.zip(theirs).find(|(one, other)| one != other);
    if let Some(((_, one), (_, other))) = unlike {
        return Some(*one.min(other));
    }
    let shorter = !own.is_empty() && timeline == leader.timeline && own.len() != leader.switches.len();
    shorter.then(|| own.iter().chain(&leader.switches).map(|(_, at)| *at).min().unwrap_or_default())
}

/// Whether the cluster's records tell how `timeline` came about, and tell it as this server's history does.
#[must_use]
pub fn recorded(view: &ClusterView, timeline: Timeline, own: &[(Timeline, Lsn)]) -> bool {
    let rows = view.history.as_deref().unwrap_or_default();
    let told = |(past, at): &(Timeline, Lsn)| {
        rows.iter().find(|row| row.timeline == *past).map(|row| row.lsn == *at)
    };
    // The first comes from initdb, which the system identifier tells.
    timeline.0 <= 1
        || own.last().and_then(told) == Some(true) && own.iter().all(|switch| told(switch) != Some(false))
}

/// The leader's history, if it was read in this reign and reaches the leader's present timeline: a leader that took its
/// own key back has been promoted twice in one reign.
#[must_use]
pub fn history_of<'a>(
    seen: &'a Observation,
    view: &ClusterView,
    leader: &NodeName,
) -> Option<&'a LeaderHistory> {
    let epoch = view.leader.as_ref()?.epoch;
    let published = view.members.get(leader).and_then(|member| member.timeline);
    let current = |history: &&LeaderHistory| {
        history.epoch == epoch && published.is_none_or(|timeline| timeline <= history.timeline)
    };
    seen.leader_history.as_ref().filter(current)
}

/// Whether the leader's own record says that it takes writes.
#[must_use]
pub fn leader_takes_writes(view: &ClusterView, leader: &NodeName) -> bool {
    view.members.get(leader).is_some_and(|member| {
        matches!(member.role.as_str(), "primary" | "master") && member.state == "running"
    })
}

/// The shortest time between two readings of a lineage.
const READ_PAUSE: Duration = Duration::from_millis(200);
/// How long a lineage is not read again unless the store tells something new.
const READ_LATER: Duration = Duration::from_secs(2);

/// Reads the leader's lineage, and again when something may have changed: a reading that
/// fails, or a leader that has not checkpointed yet, must not be asked without a pause.
pub fn read_lineage(seen: &Observation, past: Past, leader: &NodeName, because: Reason) -> Decision {
    let revision = seen.view().revision;
    let pause = match past.read {
        Some((_, read)) if read == revision => READ_LATER,
        _ => READ_PAUSE,
    };
    let again = past.read.map_or(seen.now, |(at, _)| at + pause);
    if seen.now < again {
        return Decision::wait(seen, past, because).wake_by(again);
    }
    let past = Past { read: Some((seen.now, revision)), ..past };
    Decision::act(seen, past, because, [Step::ReadLineage(leader.clone())]).wake_by(seen.now + READ_LATER)
}

/// A stopped server: compare, repair if needed, start as a standby.
pub fn start(seen: &Observation, past: Past, leader: &NodeName) -> Decision {
    let Data::Present(control) = &seen.data else {
        return Decision::wait(seen, past, Reason::LeaderNotReady(leader.clone()));
    };
    let waits = past.waits(seen.now, |task| {
        matches!(task, Task::StartStandby { .. } | Task::RecoverCrash | Task::Retire { .. })
    });
    if let Some(setback) = waits {
        let (again, because) = (setback.again, Reason::RejoinFailed(setback.what.clone()));
        return Decision::wait(seen, past, because).wake_by(again);
    }
    let view = seen.view();
    let epoch = view.leader.as_ref().map(|leader| leader.epoch);
    let verdict = past.diverged.clone().filter(|(of, when, _)| of == leader && Some(*when) == epoch);
    if control.backup_label && verdict.is_none() {
        // Crash recovery on its own would begin at the wrong place (P231); as a standby it recovers from
        // where the backup began.
        let because = Reason::RestoredCopy(leader.clone());
        return Decision { because, ..start_standby(seen, past, &view, leader) };
    }
    let doubted = epoch.is_some() && past.doubted == epoch.map(|epoch| (leader.clone(), epoch));
    if ran_as_standby(control) && verdict.is_none() && !doubted {
        return start_standby(seen, past, &view, leader);
    }
    if !leader_takes_writes(&view, leader) {
        return Decision::wait(seen, past, Reason::LeaderNotReady(leader.clone()));
    }
    let known = history_of(seen, &view, leader);
    let Some(history) = known.filter(|history| history.settled || !checkpointed(&view, leader)) else {
        return read_lineage(seen, past, leader, Reason::ReadLineage(leader.clone()));
    };
    if let Some((.., fork)) = verdict {
        return diverged(seen, past, leader, control, history, fork);
    }
    if ran_as_standby(control) {
        return doubt(seen, past, leader, control, history);
    }
    let clean = control.state == ControlState::ShutDown;
    // On the leader's own timeline only its followers can be, and this was a primary (F103).
    let twin = control.timeline == history.timeline;
    let found = match control.end {
        // A clean stop wrote a checkpoint, which must be where the leader left. After a crash
        // nothing was written that a standby does not write: its log only must not go further.
        Some(end) => Some(lineage(control.timeline, end, clean || twin, &seen.switches, history)),
        None if clean || twin => {
            Some(lineage(control.timeline, control.checkpoint, true, &seen.switches, history))
        }
        None => None,
    };
    match found {
        Some(Lineage::Agrees) => {
            let compared = epoch.map(|epoch| (leader.clone(), epoch));
            start_standby(seen, Past { compared, ..past }, &view, leader)
        }
        Some(Lineage::Diverged { fork }) if clean || twin || !can_rewind(seen, control) => {
            diverged(seen, past, leader, control, history, fork)
        }
        _ if can_rewind(seen, control) => {
            Decision::act(seen, past, Reason::RecoverFirst, [Step::Begin(Task::RecoverCrash)])
        }
        _ => start_standby(seen, past, &view, leader),
    }
}

/// A standby that did not become consistent: what it has to replay, in its own words, may be past where the leader left.
fn doubt(
    seen: &Observation,
    past: Past,
    leader: &NodeName,
    control: &Control,
    history: &LeaderHistory,
) -> Decision {
    let (timeline, least) = control.minimum_recovery.unwrap_or((control.timeline, control.checkpoint));
    let own = if timeline == control.timeline { seen.switches.as_slice() } else { &[] };
    match lineage(timeline, least, false, own, history) {
        Lineage::Diverged { fork } => diverged(seen, past, leader, control, history, fork),
        Lineage::Agrees => start_standby(seen, past, &seen.view(), leader),
    }
}

/// What ran last was a standby: nothing here was ever acknowledged by it.
/// Whether it went too far is found out while it runs.
pub fn ran_as_standby(control: &Control) -> bool {
    control.standby_signal
        || matches!(control.state, ControlState::ShutDownInRecovery | ControlState::InArchiveRecovery)
}

fn start_standby(seen: &Observation, past: Past, view: &ClusterView, leader: &NodeName) -> Decision {
    let timeline = match &seen.data {
        Data::Present(control) => control.timeline,
        _ => Timeline::default(),
    };
    let upstream = replica::source(seen, &past, view, leader, timeline);
    // It may replay more than was compared.
    let past = Past { intent: None, compared: None, ..past };
    let steps = [Step::Begin(Task::StartStandby { upstream })];
    Decision::act(seen, past, Reason::Follow(leader.clone()), steps)
}

/// The leader has dropped its flag: a checkpoint on its timeline is done.
fn checkpointed(view: &ClusterView, leader: &NodeName) -> bool {
    view.members.get(leader).is_some_and(|member| !member.checkpoint_pending)
}

fn can_rewind(seen: &Observation, control: &Control) -> bool {
    seen.me.repair.rewind && control.rewindable
}

/// What is here is not part of the leader's history: rewind, or clone anew if that is allowed.
fn diverged(
    seen: &Observation,
    past: Past,
    leader: &NodeName,
    control: &Control,
    history: &LeaderHistory,
    fork: Lsn,
) -> Decision {
    let because = Reason::Diverged { fork, timeline: control.timeline };
    let retire = |grounds| Step::Begin(Task::Retire { grounds, leader: Some(leader.clone()) });
    if !history.settled {
        return read_lineage(seen, past, leader, Reason::WaitForSettled(leader.clone()));
    }
    // pg_rewind compares numbers: with the same one it does nothing and says that all is well.
    let twins = control.timeline == history.timeline;
    if can_rewind(seen, control) && !twins {
        let failed = past.failed(|task| matches!(task, Task::Rewind { .. })).cloned();
        match failed {
            Some(_) if seen.me.repair.after_failed_rewind => {
                return Decision::act(seen, past, because, [retire(Grounds::FailedRewind)]);
            }
            _ => {}
        }
        return rewind(seen, past, leader, because);
    }
    if seen.me.repair.when_diverged {
        return Decision::act(seen, past, because, [retire(Grounds::Diverged)]);
    }
    let why = if twins {
        "this node and the leader have each made a timeline of the same number, which pg_rewind cannot tell apart; reinitialize this node by name (matriarchctl reinit) to clone it anew"
    } else if seen.me.repair.rewind {
        "histories diverged, and pg_rewind needs wal_log_hints or data checksums; reinitialize this node by name (matriarchctl reinit) to clone it anew"
    } else {
        "histories diverged, and use_pg_rewind is off; switch it on, or reinitialize this node by name (matriarchctl reinit)"
    };
    Decision::wait(seen, past, Reason::CannotRejoin(String::from(why)))
}

/// A rewind was interrupted: run it again from the present leader, or clone anew if that is allowed.
pub fn again(seen: &Observation, past: Past, leader: &NodeName) -> Decision {
    let view = seen.view();
    if !leader_takes_writes(&view, leader) || !checkpointed(&view, leader) {
        return Decision::wait(seen, past, Reason::WaitForSettled(leader.clone()));
    }
    if seen.postgres.process != Process::Gone {
        // Whoever started it: it must not run.
        return replica::step_down(seen, past, Reason::ToxicData(crate::Unfinished::Rewind));
    }
    if let Some(setback) = past.waits(seen.now, |task| matches!(task, Task::Retire { .. })) {
        let (again, because) = (setback.again, Reason::RejoinFailed(setback.what.clone()));
        return Decision::wait(seen, past, because).wake_by(again);
    }
    let failed = past.failed(|task| matches!(task, Task::Rewind { .. })).cloned();
    if let Some(setback) = failed.filter(|setback| setback.times >= 2 && seen.me.repair.after_failed_rewind) {
        let retire = Task::Retire { grounds: Grounds::FailedRewind, leader: Some(leader.clone()) };
        let because = Reason::RejoinFailed(setback.what);
        return Decision::act(seen, past, because, [Step::Begin(retire)]);
    }
    rewind(seen, past, leader, Reason::ToxicData(crate::Unfinished::Rewind))
}

/// Rewinds, after a pause if it failed from this very leader lately.
fn rewind(seen: &Observation, past: Past, leader: &NodeName, because: Reason) -> Decision {
    let task = Task::Rewind { from: leader.clone() };
    if let Some(setback) = past.waits_for(seen.now, &task) {
        let (again, because) = (setback.again, Reason::RejoinFailed(setback.what.clone()));
        return Decision::wait(seen, past, because).wake_by(again);
    }
    Decision::act(seen, past, because, [Step::Begin(task)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use dcs::Epoch;

    fn leader(timeline: u32, switches: &[(u32, u64)]) -> LeaderHistory {
        LeaderHistory {
            member: NodeName::new("n2").expect("a good name"),
            epoch: Epoch(7),
            timeline: Timeline(timeline),
            switches: switches.iter().map(|(t, at)| (Timeline(*t), Lsn(*at))).collect(),
            settled: true,
        }
    }

    #[test]
    fn a_standby_within_the_leaders_history_agrees() {
        let leader = leader(2, &[(1, 500)]);
        assert_eq!(lineage(Timeline(1), Lsn(500), false, &[], &leader), Lineage::Agrees);
        assert_eq!(lineage(Timeline(1), Lsn(400), false, &[], &leader), Lineage::Agrees);
        assert_eq!(lineage(Timeline(2), Lsn(900), false, &[], &leader), Lineage::Agrees);
    }

    #[test]
    fn a_standby_past_the_switch_diverged() {
        let leader = leader(2, &[(1, 500)]);
        assert_eq!(lineage(Timeline(1), Lsn(501), false, &[], &leader), Lineage::Diverged { fork: Lsn(500) });
    }

    // The shutdown checkpoint of a former primary must end exactly where the leader left.
    #[test]
    fn a_former_primary_agrees_only_at_the_switch_itself() {
        let leader = leader(2, &[(1, 500)]);
        assert_eq!(lineage(Timeline(1), Lsn(500), true, &[], &leader), Lineage::Agrees);
        assert_eq!(lineage(Timeline(1), Lsn(499), true, &[], &leader), Lineage::Diverged { fork: Lsn(499) });
        assert_eq!(lineage(Timeline(1), Lsn(600), true, &[], &leader), Lineage::Diverged { fork: Lsn(500) });
    }

    // F103: both made timeline 2, at different positions.
    #[test]
    fn the_same_number_left_elsewhere_is_another_timeline() {
        let leader = leader(2, &[(1, 500)]);
        let own = [(Timeline(1), Lsn(480))];
        assert_eq!(
            lineage(Timeline(2), Lsn(600), false, &own, &leader),
            Lineage::Diverged { fork: Lsn(480) }
        );
        let same = [(Timeline(1), Lsn(500))];
        assert_eq!(lineage(Timeline(2), Lsn(600), false, &same, &leader), Lineage::Agrees);
    }

    // F103: both minted timeline 2; only the switches tell them apart.
    #[test]
    fn a_timeline_the_leader_never_had_diverged() {
        let leader = leader(3, &[(1, 500)]);
        assert_eq!(lineage(Timeline(2), Lsn(700), false, &[], &leader), Lineage::Diverged { fork: Lsn(500) });
        assert_eq!(lineage(Timeline(4), Lsn(700), false, &[], &leader), Lineage::Diverged { fork: Lsn(500) });
    }
}

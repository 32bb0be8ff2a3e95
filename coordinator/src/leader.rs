//! This node holds the lease: make its Postgres the primary, and keep it so.

use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use dcs::{ClusterView, Epoch, Initialize, Lsn};

use crate::decision::{Decision, Step, StopMode, Task};
use crate::eligible::Obstacle;
use crate::local::{Control, ControlState, Data, Process, Running};
use crate::observation::Observation;
use crate::past::{Intent, Past};
use crate::reason::Reason;
use crate::rejoin::ran_as_standby;
use crate::sync::admission::{self, Verdict};
use crate::sync::leading;
use crate::sync::right;
use crate::{election, failsafe, handover, promotion, restored, slots};

/// Decides while the lease is held.
pub fn decide(seen: &Observation, mut past: Past) -> Decision {
    let Some(epoch) = seen.lease.map(|held| held.epoch) else {
        return Decision::wait(seen, past, Reason::LeaseLost);
    };
    if let Some(Intent::HandOver { revision, candidate, since }) = past.intent.clone() {
        return handover::go_on(seen, past, revision, candidate.as_deref(), since);
    }
    if let Some(Intent::GiveUp(because)) = past.intent.clone() {
        return give_up(seen, past, because);
    }
    if !seen.me.withheld.is_empty() && seen.store.reachable {
        // A promise that cannot be kept was made meanwhile: whoever can keep it may lead, nobody else.
        let intent = Intent::HandOver { revision: None, candidate: None, since: seen.now };
        let past = Past { intent: Some(intent), ..past };
        return handover::go_on(seen, past, None, None, seen.now);
    }
    match &seen.data {
        Data::Empty => return without_data(seen, past, "the data directory is gone"),
        Data::Unreadable(why) => return without_data(seen, past, why),
        Data::Unfinished(_) => {
            let failed = past.failed(|task| matches!(task, Task::Initdb | Task::FirstStart { .. }));
            let why =
                String::from(failed.map_or("the data directory is not usable", |setback| &setback.what));
            return without_data(seen, past, &why);
        }
        Data::Present(_) if past.bootstrapping && seen.postgres.process == Process::Gone => {
            let steps = [Step::Begin(Task::FirstStart { epoch })];
            return Decision::act(seen, past, Reason::FoundCluster, steps);
        }
        Data::Present(_) => {}
    }
    let known = seen.postgres.process == Process::Gone || seen.postgres.running.is_some();
    if known
        && !seen.is_primary()
        && let Some(decision) = doubted(seen, &mut past)
    {
        return decision;
    }
    match (seen.postgres.process, &seen.postgres.running) {
        (Process::Gone, _) => ended(seen, past, epoch),
        (_, Some(running)) if running.standby.is_none() => serve(seen, past, epoch, running),
        (_, Some(_)) => promotion::promote(seen, past, epoch),
        (_, None) => silent(seen, past),
    }
}

/// The leader key names this node under a lease of an earlier life: take it back,
/// unless the local server cannot be the one that led.
pub fn adopt(seen: &Observation, past: Past) -> Decision {
    let view = seen.view();
    if let Some(why) = seen.me.withheld.first() {
        // The key runs out by itself.
        if seen.may_write() {
            return crate::replica::step_down(seen, past, Reason::LeaseLost);
        }
        let because = Reason::NotEligible(Obstacle::Withheld(why.clone()));
        return Decision::wait(seen, past, because);
    }
    let (Some(leader), Data::Present(control)) = (&view.leader, &seen.data) else {
        return Decision::wait(seen, past, Reason::NothingToOffer);
    };
    if let Initialize::Done(cluster) = view.initialize
        && cluster != control.system_id
    {
        let because = Reason::WrongCluster { here: control.system_id, cluster };
        return Decision::act(seen, past, because, [Step::Exit { code: 1 }]);
    }
    if let Some(obstacle) = overtaken(seen, &view, control) {
        // A key is not a fact: somebody wrote it by hand, or put back an old backup of the store.
        if seen.may_write() {
            return crate::replica::step_down(seen, past, Reason::LeaseLost);
        }
        let because = Reason::LeaseWithoutRight(obstacle);
        return Decision::act(seen, past, because, [Step::Adopt { revision: leader.revision }]);
    }
    // What an earlier life checkpointed in this reign need not be checkpointed again.
    let record = view.members.get(&seen.me.name).filter(|_| seen.is_primary());
    let settled = record.is_some_and(|record| {
        matches!(record.role.as_str(), "primary" | "master") && !record.checkpoint_pending
    });
    let checkpointed = if settled { Some(leader.epoch) } else { past.checkpointed };
    let past = Past { checkpointed, taken_back: Some(seen.now), ..past };
    Decision::act(seen, past, Reason::TakeBackOwnKey, [Step::Adopt { revision: leader.revision }])
}

/// Why the node that the key names is not the one that led last, by the cluster's own records: it has been promoted
/// elsewhere since, or its commits wait for others.
fn overtaken(seen: &Observation, view: &ClusterView, control: &Control) -> Option<Obstacle> {
    let own = seen.postgres.running.as_ref().map_or(control.timeline, |running| running.timeline);
    let cluster = view.timeline();
    let key = view.leader.as_ref().map(|leader| leader.epoch);
    if let Some(obstacle) = restored::obstacle(seen, view, key) {
        return Some(obstacle);
    }
    // One that was promoted a moment ago may not have checkpointed on its timeline yet.
    let last = view.history.as_ref().and_then(|rows| rows.last()?.leader.as_deref());
    let behind = !ran_as_standby(control) && own < cluster && last != Some(seen.me.name.as_str());
    behind
        .then_some(Obstacle::OldTimeline { own, cluster })
        .or_else(|| right::membership(seen, view, &seen.me.name))
}

/// Before anything becomes writable by a key that this daemon has only taken back: a backup of the store may name who led
/// long ago, and the others know what came after.
pub fn doubted(seen: &Observation, past: &mut Past) -> Option<Decision> {
    let since = past.taken_back?;
    let later = restored::unheard_of(seen, past, &seen.view()).map(Reason::LeaseWithoutRight);
    let open = election::unanswered(seen, &seen.view(), since);
    match (open.is_empty(), later) {
        (true, None) => {
            past.taken_back = None;
            None
        }
        (true, Some(because)) => Some(release(seen, past.clone(), because, None)),
        (false, later) => {
            let because = later.unwrap_or(Reason::TakeBackOwnKey);
            Some(Decision::act(seen, past.clone(), because, election::ask(seen, open)))
        }
    }
}

/// A leader without data stops what is left and lets somebody else lead (P242).
fn without_data(seen: &Observation, past: Past, why: &str) -> Decision {
    give_up(seen, past, Reason::CannotStart(String::from(why)))
}

/// Lets somebody else lead, but not before nothing of the instance is left: whoever
/// takes the lease may promote at once (design.md 6).
pub fn give_up(seen: &Observation, past: Past, because: Reason) -> Decision {
    // Remembered until the lease is gone: a release can fail.
    let past = Past { intent: Some(Intent::GiveUp(because.clone())), ..past };
    if seen.postgres.process == Process::Gone {
        let put_back = right::put_back(seen, &past);
        let mut decision = release(seen, past, because, None);
        if !decision.steps.is_empty() {
            decision.steps.splice(0..0, put_back);
        }
        return decision;
    }
    if let Some(setback) = past.waits(seen.now, |task| matches!(task, Task::Stop(_))) {
        let again = setback.again;
        return Decision::wait(seen, past, because).wake_by(again);
    }
    Decision::act(seen, past, because, [Step::Begin(Task::Stop(StopMode::Immediate))])
}

/// How soon a release that failed is tried again.
const RELEASE_AGAIN: Duration = Duration::from_secs(1);

/// Gives the lease back; a store that does not answer lets it run out.
pub fn release(seen: &Observation, past: Past, because: Reason, position: Option<Lsn>) -> Decision {
    let again = past.released_at.map_or(seen.now, |at| at + RELEASE_AGAIN);
    if !seen.store.reachable || seen.now < again {
        return Decision::wait(seen, past, because).wake_by(again.max(seen.now + Duration::from_millis(100)));
    }
    let past = Past { released_at: Some(seen.now), ..past };
    Decision::act(seen, past, because, [Step::Release { position }])
}

/// What a node that holds the lease says of a copy that somebody put in its place.
const RESTORED: &str = "there is a backup_label, so this is a copy that has not recovered yet";

/// Postgres ended while the lease was held: start it where it was if that is
/// quick enough, or let a candidate lead.
fn ended(seen: &Observation, past: Past, epoch: Epoch) -> Decision {
    let Data::Present(control) = &seen.data else {
        return without_data(seen, past, "the data directory is not usable");
    };
    if let Some(obstacle) = overtaken(seen, &seen.view(), control) {
        return give_up(seen, past, Reason::LeaseWithoutRight(obstacle));
    }
    let failed = past.failed(|task| {
        matches!(task, Task::RestartInPlace { .. } | Task::StartStandby { .. } | Task::FirstStart { .. })
    });
    if let Some(setback) = failed {
        if let Some(name) = handover::complete_candidate(seen) {
            return give_up(seen, past, Reason::CandidateReady(name));
        }
        let because = Reason::CannotStart(setback.what.clone());
        if handover::somebody_could_lead(seen) || setback.times >= 2 {
            return give_up(seen, past, because);
        }
        if handover::anybody_unasked(seen) {
            let asked = handover::ask_everybody(seen);
            return Decision::act(seen, past, because, asked).wake_by(seen.now + Duration::from_secs(1));
        }
        let again = setback.again;
        if seen.now < again {
            return Decision::wait(seen, past, because).wake_by(again);
        }
    }
    if control.backup_label && handover::anybody_unasked(seen) {
        let because = Reason::CannotStart(String::from(RESTORED));
        let asked = handover::ask_everybody(seen);
        return Decision::act(seen, past, because, asked).wake_by(seen.now + Duration::from_secs(1));
    }
    if control.backup_label && handover::somebody_could_lead(seen) {
        return give_up(seen, past, Reason::CannotStart(String::from(RESTORED)));
    }
    if control.standby_signal {
        return standby_ended(seen, past);
    }
    let asked = handover::ask_everybody(seen);
    if too_slow(seen, control) {
        if let Some(name) = handover::complete_candidate(seen) {
            return give_up(seen, past, Reason::CandidateReady(name));
        }
        let because =
            Reason::CannotStart(String::from("recovery would take longer than primary_start_timeout"));
        if handover::somebody_could_lead(seen) {
            return give_up(seen, past, because);
        }
        // Whether somebody could lead is known in a moment.
        if handover::anybody_unasked(seen) {
            return Decision::act(seen, past, because, asked);
        }
    }
    if !seen.store.reachable {
        // Nothing becomes writable without a proof of the lease.
        return Decision::wait(seen, past, Reason::StoreAwayLeaseHolds);
    }
    let because = match too_slow(seen, control) {
        true => Reason::NobodyInstead { obstacles: handover::obstacles(seen) },
        false => Reason::CrashRestart { to_recover: control.to_recover },
    };
    let start = match control.state {
        // A crash before the standby's recovery had ended: end it again, under the lease.
        ControlState::InArchiveRecovery | ControlState::ShutDownInRecovery => {
            Task::StartStandby { upstream: None }
        }
        _ => Task::RestartInPlace { epoch, closed: admission::closes(seen) },
    };
    let steps = [Step::Begin(start)].into_iter().chain(asked);
    Decision::act(seen, past, because, steps)
}

/// It ended before it was promoted: whoever could lead before still can.
fn standby_ended(seen: &Observation, past: Past) -> Decision {
    let start = Step::Begin(Task::StartStandby { upstream: None });
    let steps = right::put_back(seen, &past).into_iter().chain([start]);
    Decision::act(seen, past, Reason::StandbyEnded, steps)
}

/// How long a start where it was may take, by estimate or in fact, while somebody else has all of the
/// crashed server's WAL: longer than this a takeover is sooner done, and loses nothing either.
pub const TAKEOVER: Duration = Duration::from_secs(2);

/// How long recovery takes, by estimate: WAL since the last redo point over the replay rate.
pub fn recovery(control: &Control) -> Duration {
    Duration::from_millis(control.to_recover.saturating_mul(1000) / control.recovery_rate.max(1))
}

/// Estimated recovery against max(1 s, `primary_start_timeout`).
fn too_slow(seen: &Observation, control: &Control) -> bool {
    let budget = seen.settings.primary_start_timeout.max(Duration::from_secs(1));
    seen.settings.primary_start_timeout.is_zero() || recovery(control) > budget
}

/// How long a postmaster that a signal has stopped is waited for: whoever stopped it may let it go on.
const FROZEN: Duration = Duration::from_secs(1);

/// A postmaster runs and SQL does not answer. It is given `primary_start_timeout` or ttl, the
/// shorter, at least 1 s; one that a signal has stopped, 1 s.
fn silent(seen: &Observation, past: Past) -> Decision {
    let since = seen.postgres.silent_since.unwrap_or(seen.now);
    let frozen = seen.postgres.frozen;
    let budget = match frozen {
        true => FROZEN,
        false => seen.settings.primary_start_timeout.max(Duration::from_secs(1)).min(seen.settings.ttl),
    };
    let spent = seen.now.since(since) >= budget;
    if spent && handover::somebody_could_lead(seen) {
        return give_up(seen, past, if frozen { Reason::PostmasterFrozen } else { Reason::PrimarySilent });
    }
    // A standby that does not become consistent may need a primary to stream from, and members whose server is
    // stopped wait for this one: whoever is best is found among standbys, and without a lease.
    let standby = matches!(&seen.data, Data::Present(control) if control.standby_signal);
    if spent && standby && handover::somebody_waits(seen) {
        return give_up(seen, past, Reason::NeverConsistent);
    }
    if spent && frozen && !handover::anybody_unasked(seen) {
        // Alone it is no use either: killed, it is started where it was.
        return crate::replica::stop(seen, past, Reason::PostmasterFrozen, StopMode::Immediate);
    }
    let asked = handover::ask_everybody(seen);
    let because = Reason::Busy(String::from("waiting for Postgres to answer"));
    let again = if spent { seen.now + Duration::from_secs(1) } else { since + budget };
    Decision::act(seen, past, because, asked).wake_by(again.min(seen.now + Duration::from_secs(1)))
}

/// The everyday turn of a leader.
fn serve(seen: &Observation, past: Past, epoch: Epoch, running: &Running) -> Decision {
    let past = Past { intent: None, vacant_since: None, ..past };
    if let Some(decision) = failsafe::lead(seen, &past, epoch) {
        return decision;
    }
    if !seen.store.reachable {
        return Decision::wait(seen, past, Reason::StoreAwayLeaseHolds);
    }
    let view = seen.view();
    if let Some(failover) = &view.failover {
        let decision = handover::consider(seen, &past, failover);
        if let Some(decision) = decision {
            return decision;
        }
    }
    let mut past = past;
    let held_back = match admission::judge(seen, &mut past, &view, epoch, running) {
        Some(Verdict::Admit) => return admission::open(seen, past),
        Some(Verdict::Hold(because)) => Some(because),
        None => None,
    };
    let mut sync = leading::keep(seen, &mut past, &view, epoch, running);
    let mut steps = core::mem::take(&mut sync.steps);
    steps.extend(upkeep(seen, &mut past, epoch, &view, running));
    let decision = match (held_back, seen.failover_due) {
        (Some(because), _) => Decision::act(seen, past, because, steps),
        (None, Some(due)) if due > 0 => Decision::act(seen, past, Reason::HandOverScheduled, steps)
            .wake_by(seen.now + Duration::from_secs(due.unsigned_abs())),
        _ if sync.blocked => Decision::act(seen, past, Reason::NobodyAcknowledges, steps),
        _ => Decision::act(seen, past, Reason::Leading, steps),
    };
    match sync.wake {
        Some(wake) => decision.wake_by(wake),
        None => decision,
    }
}

/// How soon `history` is written again if the view does not show what was written.
const CHRONICLE_AGAIN: Duration = Duration::from_secs(2);

/// Repairs of shared records, slots, and the checkpoint that lets others rewind.
pub fn upkeep(
    seen: &Observation,
    past: &mut Past,
    epoch: Epoch,
    view: &ClusterView,
    running: &Running,
) -> Vec<Step> {
    let mut steps = Vec::new();
    if !matches!(view.initialize, Initialize::Done(_)) {
        steps.push(Step::WriteInitialize(running.system_id));
    }
    if !view.config.as_ref().is_some_and(|config| config.value.is_object()) {
        steps.push(Step::RestoreConfig);
    }
    // A first timeline has no history to write.
    let first = running.timeline.0 <= 1 && view.history.is_none();
    let lately = past
        .chronicled
        .is_some_and(|(timeline, at)| timeline == running.timeline && seen.now.since(at) < CHRONICLE_AGAIN);
    if view.timeline() != running.timeline && running.timeline.0 > 0 && !first && !lately {
        past.chronicled = Some((running.timeline, seen.now));
        steps.push(Step::WriteHistory);
    }
    let failed = past.waits(seen.now, |task| matches!(task, Task::Checkpoint)).is_some();
    if past.checkpointed != Some(epoch) && seen.job.is_none() && !failed {
        steps.push(Step::Begin(Task::Checkpoint));
    }
    // Last: a slot that cannot be made must not keep the rest from being done.
    steps.extend(keep_slots(seen, past));
    steps
}

/// Slots are brought in line once per `loop_wait`, and at once for a new member.
pub fn keep_slots(seen: &Observation, past: &mut Past) -> Option<Step> {
    let changes = slots::changes(seen, past);
    let due = past.slots_at.is_none_or(|at| seen.now.since(at) >= seen.settings.loop_wait);
    let lately = past.slots_at.is_some_and(|at| seen.now.since(at) < Duration::from_secs(1));
    let urgent = !lately && changes.iter().any(|change| matches!(change, slots::SlotChange::Create(_)));
    if changes.is_empty() || !(due || urgent) {
        return None;
    }
    past.slots_at = Some(seen.now);
    Some(Step::Slots(changes))
}

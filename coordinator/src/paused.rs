//! Operators have taken over: keep the records right, touch nothing else
//! (patroni-compat 5.11).

use crate::decision::{Decision, Step, Task};
use crate::local::Process;
use crate::observation::{Observation, Standing};
use crate::past::{Intent, Past};
use crate::reason::Reason;
use crate::sync::admission::{self, Verdict};
use crate::sync::{leading, right};
use crate::{claim, election, failsafe, handover, leader, promotion, replica};

/// Decides while the cluster is paused.
pub fn decide(seen: &Observation, past: Past) -> Decision {
    if seen.lease.is_some() && seen.holds_lease() {
        return leading(seen, past);
    }
    match seen.standing_of_key() {
        Standing::Orphaned if seen.is_primary() => leader::adopt(seen, past),
        Standing::Vacant => vacant(seen, past),
        Standing::Theirs(name) => following(seen, past, &name),
        _ => Decision::wait(seen, past, Reason::Paused),
    }
}

fn leading(seen: &Observation, past: Past) -> Decision {
    if let Some(Intent::HandOver { revision, candidate, since }) = past.intent.clone() {
        return handover::go_on(seen, past, revision, candidate.as_deref(), since);
    }
    let view = seen.view();
    if seen.postgres.running.is_none() && seen.may_write() {
        return Decision::wait(seen, past, Reason::StartingHere);
    }
    if !seen.is_primary() {
        let named = named_now(seen, &view);
        let epoch = seen.lease.map(|held| held.epoch);
        let failed = past.failed(|task| matches!(task, Task::Promote { .. })).is_some();
        return match (epoch, seen.standby()) {
            (Some(epoch), Some(_)) if !failed && named == Some(seen.me.name.as_str()) => {
                promotion::entitled(seen, past, epoch)
            }
            _ => leader::release(seen, past, Reason::PausedReleaseLease, None),
        };
    }
    if let Some(failover) = &view.failover
        && let Some(decision) = handover::consider(seen, &past, failover)
    {
        return decision;
    }
    let mut past = past;
    let (Some(held), Some(running), true) = (seen.lease, &seen.postgres.running, seen.store.reachable) else {
        return Decision::wait(seen, past, Reason::Paused);
    };
    let because = match admission::judge(seen, &mut past, &view, held.epoch, running) {
        // What a crash before the pause began ends within it: nobody is served meanwhile.
        Some(Verdict::Admit) => return admission::open(seen, past),
        Some(Verdict::Hold(because)) => because,
        None => Reason::Paused,
    };
    let mut sync = leading::keep(seen, &mut past, &view, held.epoch, running);
    let mut steps = core::mem::take(&mut sync.steps);
    steps.extend(leader::upkeep(seen, &mut past, held.epoch, &view, running));
    let decision = Decision::act(seen, past, because, steps);
    match sync.wake {
        Some(wake) => decision.wake_by(wake),
        None => decision,
    }
}

/// A running primary takes a free lease; a named candidate may take over.
fn vacant(seen: &Observation, past: Past) -> Decision {
    let view = seen.view();
    let named = named_now(seen, &view);
    let system_id = seen.postgres.running.as_ref().map(|running| running.system_id);
    let fits = match view.initialize {
        dcs::Initialize::Done(cluster) => Some(cluster) == system_id,
        _ => true,
    };
    // What kept a promotion from ending is for people to find.
    let failed = past.failed(|task| matches!(task, Task::Promote { .. })).is_some();
    if !fits || !seen.me.may_lead() || (failed && !seen.is_primary()) {
        return Decision::wait(seen, past, Reason::Paused);
    }
    let named_standby = named == Some(seen.me.name.as_str()) && seen.standby().is_some();
    let obstacle = failsafe::obstacle(seen, &view, &seen.me.name)
        .or_else(|| right::membership(seen, &view, &seen.me.name))
        .or_else(|| right::votes(seen, &view));
    if named_standby && let Some(obstacle) = obstacle {
        let again = core::time::Duration::from_secs(1);
        let asked = handover::ask_again(seen, again);
        return Decision::act(seen, past, Reason::NotEligible(obstacle), asked).wake_by(seen.now + again);
    }
    if named_standby {
        return election::named_candidate(seen, past, &view);
    }
    if seen.is_primary() && named.is_none() {
        let steps = [claim::acquire(seen, &past)];
        return Decision::act(seen, past, Reason::PausedTakeLease, steps);
    }
    Decision::wait(seen, past, Reason::Paused)
}

/// Whom an operator wants to lead now.
fn named_now<'a>(seen: &Observation, view: &'a dcs::ClusterView) -> Option<&'a str> {
    election::asked_for_now(seen, view).and_then(|failover| failover.candidate.as_deref())
}

/// A running standby is kept pointed at the leader; a stopped server stays stopped,
/// unless it was stopped here to hand over.
fn following(seen: &Observation, past: Past, name: &config::NodeName) -> Decision {
    let handed_over = matches!(past.intent, Some(Intent::Demote | Intent::Reinitialize { .. }));
    if handed_over && !seen.is_primary() {
        return replica::decide(seen, past, name);
    }
    match (seen.postgres.process, seen.standby()) {
        (Process::Postmaster, Some(_)) => {
            let wanted = replica::upstream(seen, &seen.view(), name);
            if seen.postgres.upstream != wanted && wanted.is_some() {
                return Decision::act(seen, past, Reason::Follow(name.clone()), [Step::Follow(wanted)]);
            }
            let mut past = past;
            let steps = leader::keep_slots(seen, &mut past);
            Decision::act(seen, past, Reason::Paused, steps)
        }
        _ => Decision::wait(seen, past, Reason::Paused),
    }
}

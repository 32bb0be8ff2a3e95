//! The heart: one snapshot in, one decision out. Total, deterministic, silent.

use crate::decision::{Decision, Step, Task};
use crate::local::Process;
use crate::observation::{Observation, Standing, Wish};
use crate::past::Past;
use crate::reason::Reason;
use crate::{busy, election, failsafe, leader, moving, offline, paused, replica, request, restored};

/// Decides what this node does next.
#[must_use]
pub fn decide(seen: &Observation, past: &Past) -> Decision {
    let past = past.remember(seen);
    let restored = past.store.restored();
    let told = restored.map(|_| Observation { restored, ..seen.clone() });
    let seen = told.as_ref().unwrap_or(seen);
    let decision = failsafe::honour(seen, judge(seen, past));
    let decision = match request::due(seen) {
        Some(due) => decision.wake_by(due),
        None => decision,
    };
    // Whatever is waited for, stepping down in time comes first.
    match seen.lease {
        Some(held) if seen.now < held.soft => decision.wake_by(held.soft),
        _ => decision,
    }
}

fn judge(seen: &Observation, past: Past) -> Decision {
    if let Some(decision) = busy::decide(seen, &past) {
        return decision;
    }
    if seen.postgres.process == Process::Remnants && !seen.settings.pause {
        if let Some(setback) = past.waits(seen.now, |task| matches!(task, Task::KillRemnants)) {
            let again = setback.again;
            return Decision::wait(seen, past, Reason::Remnants).wake_by(again);
        }
        return Decision::act(seen, past, Reason::Remnants, [Step::Begin(Task::KillRemnants)]);
    }
    // Nobody's wish comes before the stop of a server that takes writes without the lease.
    let suspect = seen.may_write() && !seen.holds_lease() && !seen.settings.pause;
    if (!suspect || seen.ending == Some(Wish::Stop))
        && let Some(decision) = request::decide(seen, &past)
    {
        return decision;
    }
    match seen.standing() {
        Standing::Unknown => offline::decide(seen, past),
        Standing::Paused => paused::decide(seen, past),
        Standing::Mine => leader::decide(seen, past),
        Standing::Orphaned => leader::adopt(seen, past),
        Standing::Theirs(name) if restored::by_old_key(seen, &seen.view()) => replica::hold(seen, past, name),
        Standing::Theirs(name) => replica::decide(seen, past, &name),
        Standing::Vacant => election::decide(seen, past),
        Standing::Moving(to) => moving::decide(seen, past, to),
    }
}

//! The store cannot be reached and no lease holds: nothing here takes writes.

use core::time::Duration;

use crate::decision::{Decision, Step, StopMode, Task};
use crate::local::{Data, Process};
use crate::observation::Observation;
use crate::past::{Intent, Past};
use crate::reason::Reason;

/// Decides without a store.
pub fn decide(seen: &Observation, past: Past) -> Decision {
    if seen.settings.pause {
        return Decision::wait(seen, past, Reason::Paused);
    }
    if seen.may_write() {
        return primary(seen, past);
    }
    if seen.store.view.is_none() {
        return Decision::wait(seen, past, Reason::StoreNeverSeen);
    }
    // A cluster in the making is not one yet: it waits for its lease.
    let usable = matches!(seen.data, Data::Present(_)) && !past.bootstrapping;
    let waits = past.waits(seen.now, |task| matches!(task, Task::StartStandby { .. }));
    if seen.postgres.process == Process::Gone && usable && waits.is_none() {
        let steps = [Step::Begin(Task::StartStandby { upstream: None })];
        return Decision::act(seen, past, Reason::StoreAwayReplica, steps);
    }
    let again = waits.map_or(seen.now + seen.settings.loop_wait, |setback| setback.again);
    Decision::wait(seen, past, Reason::StoreAwayReplica).wake_by(again)
}

/// How long a primary that was found running waits for the first word of the store.
const FIRST_WORD: Duration = Duration::from_secs(5);

/// A primary without a lease. One that was just found running, by a daemon that has
/// not reached the store yet, is given a moment: its lease may still be good, but
/// nobody here knows for how long.
fn primary(seen: &Observation, past: Past) -> Decision {
    let until = seen.store.seen + FIRST_WORD.min(seen.settings.ttl);
    if seen.store.view.is_none() && seen.now < until {
        return Decision::wait(seen, past, Reason::StoreNeverSeen).wake_by(until);
    }
    let past = Past { intent: Some(Intent::Demote), ..past };
    if let Some(setback) = past.waits(seen.now, |task| matches!(task, Task::Stop(_))) {
        let again = setback.again;
        return Decision::wait(seen, past, Reason::StoreAwayStepDown).wake_by(again);
    }
    let failed = past.failed(|task| matches!(task, Task::Stop(_))).is_some();
    let mode = if failed { StopMode::Immediate } else { StopMode::Fast };
    Decision::act(seen, past, Reason::StoreAwayStepDown, [Step::Begin(Task::Stop(mode))])
}

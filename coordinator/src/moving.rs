//! The cluster is between two stores and this node leads in neither: it waits until somebody does. Nothing here
//! becomes writable, and what is writable without a lease stops.

use alloc::string::String;

use crate::decision::{Decision, Step, StopMode, Task};
use crate::local::{Data, Process};
use crate::observation::Observation;
use crate::past::Past;
use crate::reason::Reason;
use crate::replica;

/// Decides while nobody may lead yet.
pub fn decide(seen: &Observation, past: Past, to: String) -> Decision {
    let because = Reason::Moving(to);
    if seen.may_write() {
        let view = seen.view();
        let ours = view.passage.as_ref().is_some_and(|stand| stand.passage().leader == seen.me.name);
        // A daemon that was just started where the cluster led: it may open the new store as soon as it has seen
        // the old one closed, and the lease thread gives a server without a lease a ttl.
        if ours && seen.lease.is_none() {
            return waiting(seen, past, because);
        }
        return replica::stop(seen, past, because, StopMode::Fast);
    }
    let waits = past.waits(seen.now, |task| matches!(task, Task::StartStandby { .. }));
    if seen.postgres.process == Process::Gone && matches!(seen.data, Data::Present(_)) && waits.is_none() {
        return Decision::act(seen, past, because, [Step::Begin(Task::StartStandby { upstream: None })]);
    }
    waiting(seen, past, because)
}

/// Waits, at most until this node may open the new store.
fn waiting(seen: &Observation, past: Past, because: Reason) -> Decision {
    let wait = Decision::wait(seen, past, because);
    match &seen.arrival {
        Some(arrival) if arrival.from > seen.now => wait.wake_by(arrival.from),
        _ => wait,
    }
}

//! A standby with the lease becomes the primary: by a proof of the lease, to a timeline of its own, and only if nobody else
//! may have acknowledged commits that it lacks.

use core::time::Duration;

use dcs::Epoch;

use crate::decision::{Decision, Task};
use crate::eligible::Obstacle;
use crate::observation::Observation;
use crate::past::Past;
use crate::reason::Reason;
use crate::sync::right::{self, Right};
use crate::{claim, failsafe, handover, leader};

/// A standby with the lease takes writes.
pub fn promote(seen: &Observation, past: Past, epoch: Epoch) -> Decision {
    if let Some(setback) = past.waits(seen.now, |task| matches!(task, Task::Promote { .. })) {
        // A promotion whose end was not seen may still come: only a stopped server lets go safely.
        let because = Reason::CannotStart(setback.what.clone());
        return leader::give_up(seen, past, because);
    }
    if !seen.store.reachable {
        // Nothing becomes writable without a proof of the lease.
        return Decision::wait(seen, past, Reason::StoreAwayLeaseHolds);
    }
    match failsafe::admitted(seen) {
        Some(true) => {}
        Some(false) => {
            return leader::release(seen, past, Reason::LeaseWithoutRight(Obstacle::OutsideFailsafe), None);
        }
        None => return Decision::wait(seen, past, Reason::PromoteWithLease),
    }
    entitled(seen, Past { checkpointed: None, intent: None, ..past }, epoch)
}

/// Promotes a standby under the lease, unless others may have acknowledged commits that it lacks.
pub fn entitled(seen: &Observation, past: Past, epoch: Epoch) -> Decision {
    let view = seen.view();
    let promote = claim::promotion(seen, &past, epoch);
    match right::to_promote(seen, &view) {
        Right::Has => Decision::act(seen, past, Reason::PromoteWithLease, promote),
        Right::After(step) => {
            let before = view.sync.as_ref().map(|sync| sync.value.clone());
            let past = Past { superseded: past.superseded.clone().or(before), ..past };
            let steps = [step].into_iter().chain(promote);
            Decision::act(seen, past, Reason::PromoteWithLease, steps)
        }
        Right::Waits => Decision::wait(seen, past, Reason::PromoteWithLease),
        Right::Asks => {
            let asked = handover::ask_again(seen, Duration::from_secs(1));
            Decision::act(seen, past, Reason::AskOthers, asked).wake_by(seen.now + Duration::from_millis(500))
        }
        Right::Refused(obstacle) => leader::release(seen, past, Reason::LeaseWithoutRight(obstacle), None),
    }
}

//! The timeline that a reign may make: above all that are known to be used, and claimed with the leader key, so that no
//! two reigns make the same number (docs/src/decisions/0019-claimed-timelines.md). It decides nothing about who leads.

use dcs::{Epoch, Timeline};

use crate::decision::{Step, Task};
use crate::observation::{Asked, Observation};

/// A promotion to a timeline that nobody has made (F05, F102): neither the store, nor any
/// member's record, nor any answer knows it, and no earlier reign has claimed it.
pub fn promotion(seen: &Observation, epoch: Epoch) -> Task {
    Task::Promote { epoch, above: used(seen, Some(epoch)) }
}

/// Taking the free lease, and with it a timeline: a leader that dies right after its promotion has told nobody.
pub fn acquire(seen: &Observation) -> Step {
    let own = seen.postgres.running.as_ref().map(|running| running.timeline).unwrap_or_default();
    let used = used(seen, None).max(own);
    Step::Acquire { claim: if seen.is_primary() { used } else { Timeline(used.0.saturating_add(1)) } }
}

/// The highest timeline that is known to be used or claimed, what `reign` claimed itself excepted.
fn used(seen: &Observation, reign: Option<Epoch>) -> Timeline {
    let view = seen.view();
    let records = view.members.values().filter_map(|member| member.timeline);
    let answers = seen.peers.values().filter_map(|peer| match &peer.answer {
        Asked::Answered(_, answer) => answer.timeline,
        _ => None,
    });
    let own = reign.is_some() && view.reign == reign;
    let claimed = if own { Timeline(view.claim.0.saturating_sub(1)) } else { view.claim };
    records.chain(answers).chain([claimed]).fold(view.timeline(), Timeline::max)
}

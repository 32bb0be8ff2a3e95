//! The timeline that a reign may make: above all that are known to be used, and claimed with the leader key, so that no
//! two reigns make the same number (docs/src/decisions/0019-claimed-timelines.md). It decides nothing about who leads.

use alloc::vec::Vec;

use dcs::{Claim, ClusterView, Epoch, Timeline};

use crate::decision::{Step, Task};
use crate::observation::{Asked, Observation};
use crate::past::Past;

/// A promotion to a timeline that nobody has made (F05, F102): neither the store, nor any member's record, nor any answer
/// knows it, and no earlier reign has claimed it. It is claimed before, if that was not done with the lease, or if this
/// reign has made that one already.
pub fn promotion(seen: &Observation, past: &Past, epoch: Epoch) -> Vec<Step> {
    let view = seen.view();
    let above = used(seen, past, Some(epoch));
    let next = Timeline(above.0.saturating_add(1));
    // An older view knows nothing yet of what was claimed a moment ago.
    let claimed = view.revision.0 < epoch.0 || (view.reign == Some(epoch) && view.claim >= next);
    let claim = Step::ClaimTimeline(Claim { after: view.claimed, timeline: next });
    let promote = Step::Begin(Task::Promote { epoch, above });
    (!claimed).then_some(claim).into_iter().chain([promote]).collect()
}

/// Taking the free lease, and with it a timeline: a leader that dies right after its promotion has told nobody.
pub fn acquire(seen: &Observation, past: &Past) -> Step {
    // Whoever knows of a later one must see that this reign comes after it.
    let used = used(seen, past, None).max(past.store.timeline);
    let timeline = if seen.is_primary() { used } else { Timeline(used.0.saturating_add(1)) };
    Step::Acquire(Claim { after: seen.view().claimed, timeline })
}

/// The highest timeline that is known to be used or claimed, what `reign` claimed itself excepted.
fn used(seen: &Observation, past: &Past, reign: Option<Epoch>) -> Timeline {
    let view = seen.view();
    let own = seen.postgres.running.as_ref().map(|running| running.timeline);
    let records = view.members.values().filter_map(|member| member.timeline);
    let answers = seen.peers.values().filter_map(|peer| match &peer.answer {
        Asked::Answered(_, answer) => answer.timeline,
        _ => None,
    });
    let known = [told(&view, reign), past.timelines];
    records.chain(answers).chain(own).chain(known).fold(Timeline(0), Timeline::max)
}

/// The highest timeline that a view tells to be made or claimed, what `reign` claimed itself excepted.
pub fn told(view: &ClusterView, reign: Option<Epoch>) -> Timeline {
    let ours = reign.is_some() && view.reign == reign;
    let claimed = if ours { Timeline(view.claim.0.saturating_sub(1)) } else { view.claim };
    claimed.max(view.timeline())
}

//! Failsafe mode: a leader that has lost the store goes on while every member of the record agrees, and whoever agreed
//! keeps its word. Judges what was asked and answered; it asks nobody, writes nothing down, and adds to no deadline.
//!
//! Why there is one writer all the same. Let L lead in the reign E, and R be the record `failsafe` as L knows it:
//!
//! 1. A member that agrees promises, for a span from when it heard the question of the reign E, neither to take the lead
//!    nor to make its server writable. It keeps that whatever its store says ([`honour`]), and after a restart too. A node
//!    that holds the lease, or takes writes, promises nothing.
//! 2. L counts each promise from before it *sent* the question, shortened as a renewal of the lease is (`dcs::authority`).
//!    Its own deadline is that of the member whose promise ends first ([`lead`]), so it ends before any of them does.
//! 3. Who is not named in R does not take the lead ([`outside`]), and loses one that a late request brought ([`admitted`]).
//!    Only the leader of a reign writes R, only while the key is of its reign, and only over what it has read. R as L asks by it
//!    is what L has read in its own reign, and everybody whom it has tried to add.
//!
//! So until L has stopped, everybody who could be elected is bound by 1 or excluded by 3. One member that is silent, or that is
//! Patroni, whose acknowledgement it forgets when it restarts, leaves L the deadline that it has.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use config::NodeName;
use dcs::{ClusterView, Epoch, Moment};
use serde::{Deserialize, Serialize};

use crate::decision::{Decision, Step, Task};
use crate::eligible::Obstacle;
use crate::leader;
use crate::observation::Observation;
use crate::past::Past;
use crate::reason::Reason;

/// What this node knows of failsafe mode besides the record in the store.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Failsafe {
    /// Whom a leader has tried to add to the record, until it has seen what became of that.
    pub added: BTreeSet<NodeName>,
    /// What each member said to this leader.
    pub leaves: BTreeMap<NodeName, Leave>,
    /// What this node has promised.
    pub promise: Option<Promise>,
}

/// What a member said when it was asked for its leave to go on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Leave {
    /// When it was last asked.
    pub asked: Moment,
    /// Whether that question is still open.
    pub open: bool,
    /// How the last question ended that is not open.
    pub said: Said,
    /// The last promise it made.
    pub given: Option<Given>,
}

/// How a question for leave ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Said {
    /// There was no answer.
    Nothing,
    /// It did not promise, for this reason.
    Refused(String),
    /// It promised.
    Promised,
}

/// A promise that another member made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Given {
    /// In which reign it was asked for.
    pub epoch: Epoch,
    /// Before the question was sent.
    pub sent: Moment,
    /// For how long, from when the question was heard.
    pub span: Duration,
}

/// A promise of this node: until then it does not take the lead from that leader.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Promise {
    /// To whom.
    pub leader: NodeName,
    /// Until when.
    pub until: Moment,
}

/// How often each member is asked: as often as a store that does not answer.
fn pace(seen: &Observation) -> Duration {
    (seen.settings.ttl / 10).clamp(Duration::from_millis(200), Duration::from_secs(2))
}

/// A primary whose store is silent asks everybody, and goes on for as long as all of them have promised. Nothing
/// if the mode is off, or the record is not known for certain: then its deadline is that of its lease.
pub fn lead(seen: &Observation, past: &Past, epoch: Epoch) -> Option<Decision> {
    let held = seen.lease?;
    let view = seen.store.view.as_ref()?;
    let record = view.failsafe.as_ref()?;
    let known = view.revision >= held.revision && record.contains_key(&seen.me.name);
    if seen.store.answers() || !seen.settings.failsafe_mode || !known {
        return None;
    }
    let circle: BTreeSet<&NodeName> =
        record.keys().chain(&seen.failsafe.added).filter(|name| **name != seen.me.name).collect();
    let leaves = &seen.failsafe.leaves;
    let given = |name: &&NodeName| leaves.get(*name)?.given.filter(|given| given.epoch == epoch);
    let promises: Vec<Given> = circle.iter().filter_map(given).collect();
    let alone = Given { epoch, sent: seen.now, span: seen.settings.ttl };
    let sent = promises.iter().map(|given| given.sent).min().unwrap_or(alone.sent);
    let span = promises.iter().map(|given| given.span).min().unwrap_or(alone.span);

    let due = |name: &&NodeName| match leaves.get(*name) {
        Some(leave) if leave.open => false,
        Some(leave) => seen.now.since(leave.asked) >= pace(seen),
        None => true,
    };
    let ask: BTreeSet<NodeName> = circle.iter().copied().filter(due).cloned().collect();
    let mut past = past.clone();
    let mut steps = Vec::new();
    let news = past.went_on.is_none_or(|(reign, at)| {
        reign != epoch || (sent > at && (!circle.is_empty() || sent.since(at) >= pace(seen)))
    });
    if promises.len() == circle.len() && news {
        past.went_on = Some((epoch, sent));
        // Whoever lives by the leave of others does not hold on for longer than a member is waited for.
        let until = sent + seen.settings.loop_wait + seen.settings.retry_timeout;
        steps.push(Step::GoOn { epoch, sent, span, until });
    }
    if !ask.is_empty() {
        steps.push(Step::SeekLeave(ask));
    }
    let open: Vec<String> =
        circle.iter().filter_map(|name| missing(name, leaves.get(*name), epoch)).collect();
    let because = match open.is_empty() {
        true => Reason::FailsafeLeads,
        false => Reason::FailsafeAsks(open.join("; ")),
    };
    Some(Decision::act(seen, past, because, steps).wake_by(seen.now + pace(seen)))
}

/// What is missing of a member's leave, in one clause.
fn missing(name: &NodeName, leave: Option<&Leave>, epoch: Epoch) -> Option<String> {
    let given = leave.is_some_and(|leave| leave.given.is_some_and(|given| given.epoch == epoch));
    match leave.map(|leave| &leave.said) {
        Some(Said::Refused(why)) => Some(alloc::format!("{name} does not ({why})")),
        Some(Said::Promised) if given => None,
        _ => Some(alloc::format!("{name} has not answered")),
    }
}

/// What binds this node now.
pub fn bound(seen: &Observation) -> Option<&Promise> {
    seen.failsafe.promise.as_ref().filter(|promise| seen.now < promise.until)
}

/// Whoever has promised keeps it: no step that could make a second writer passes, whatever was decided and why. A lease
/// that a request on its way has brought meanwhile is given back.
pub fn honour(seen: &Observation, decision: Decision) -> Decision {
    let Some(promise) = bound(seen) else { return decision };
    let breaks = |step: &Step| match step {
        Step::Acquire(_) | Step::Adopt { .. } => true,
        Step::Begin(task) => matches!(
            task,
            Task::Promote { .. }
                | Task::RestartInPlace { .. }
                | Task::FirstStart { .. }
                | Task::Restart { standby: None, .. }
        ),
        _ => false,
    };
    if !decision.steps.iter().any(breaks) {
        return decision;
    }
    let because = Reason::Promised(promise.leader.clone());
    let decision = match seen.holds_lease() {
        true => leader::release(seen, decision.past, because, None),
        false => Decision::wait(seen, decision.past, because),
    };
    decision.wake_by(promise.until)
}

/// Whether a member is missing in a record that names others: somebody may go on without having asked it.
pub fn outside(view: &ClusterView, name: &NodeName) -> bool {
    view.failsafe.as_ref().is_some_and(|record| !record.is_empty() && !record.contains_key(name))
}

/// What keeps a member that the record does not name from leading.
pub fn obstacle(seen: &Observation, view: &ClusterView, name: &NodeName) -> Option<Obstacle> {
    (seen.settings.failsafe_mode && outside(view, name)).then_some(Obstacle::OutsideFailsafe)
}

/// Until when a member that an old record does not name leaves a free lease alone after the mode was turned off: a leader
/// may go on that has not heard of it, by the leave of members that have not either, or of nobody. A leader that hears
/// of it empties the record; until then a person who knows that the old one is gone must name the next. Patroni leaves
/// its record as it is: then the lead is free after a `ttl`, unless the record says that nobody's leave is needed.
pub fn leaves_alone(
    seen: &Observation,
    past: &Past,
    view: &ClusterView,
    named: bool,
) -> Option<(Moment, Reason)> {
    if seen.settings.failsafe_mode || !outside(view, &seen.me.name) {
        return None;
    }
    let because = Reason::NotEligible(Obstacle::OutsideFailsafe);
    let lone = view.failsafe.as_ref().is_some_and(|record| record.len() == 1);
    let ours = view.reign.is_some_and(|reign| reign.0 <= view.failsafe_at.0);
    if !named && (lone || ours) {
        return Some((seen.now + seen.settings.loop_wait, because));
    }
    let until = past.vacant_since.unwrap_or(seen.now) + seen.settings.ttl;
    (seen.now < until).then_some((until, because))
}

/// Before a standby that holds the lease is promoted: the record, as it is in this reign, names it. Absent: that is
/// not known yet.
pub fn admitted(seen: &Observation) -> Option<bool> {
    if !seen.settings.failsafe_mode {
        return Some(true);
    }
    let (held, view) = (seen.lease?, seen.store.view.as_ref()?);
    (view.revision >= held.revision).then(|| !outside(view, &seen.me.name))
}

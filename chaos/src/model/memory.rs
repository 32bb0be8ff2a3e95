//! [`Past`] as the model keeps it, and back.
//!
//! Left out is what no decision of the model depends on: what only words a reason (`verdict`), or makes a candidate wait (`away`,
//! `expected`); what belongs to slots (`members_seen`, `slots_at`, `strangers`), to a race with a primary that still writes (`flow`), to
//! bootstrap (`known`, `claim_returned`, `bootstrapping`) and to failsafe mode (`went_on`), none of which it has; what is
//! remembered of a store that could lose its records or get old ones back (`timelines`, `reign`, `store`, `wrote`, `taken_back`), as
//! this one does not; and of a failure what it said.

use coordinator::sync::leading::InForce;
use coordinator::{Intent as Aim, Past, Reason, Setback as Failure};
use dcs::{Epoch, Moment, Revision};

use super::cast::Cast;
use super::moment::NOW;
use super::observe::{epoch, list, record, rev, revision, synchronous, text};
use super::state::{Force, Intent, Memory, Rev, Setback, Stamp, Work};
use super::wal::{lsn, position};
use super::work::{task, work};

fn known_epoch(reign: Rev) -> Option<Epoch> {
    (reign > 0).then(|| epoch(reign))
}

fn known_revision(found: Rev) -> Option<Revision> {
    (found > 0).then(|| revision(found))
}

/// What a node remembers, as `decide` takes it.
#[must_use]
pub fn past(memory: &Memory, cast: &Cast) -> Past {
    let name = |node: u8| cast.name(usize::from(node)).clone();
    Past {
        intent: memory.intent.map(|intent| match intent {
            Intent::HandOver { revision, candidate, since } => Aim::HandOver {
                revision: known_revision(revision),
                candidate: candidate.map(|node| name(node).to_string()),
                since: since.moment(),
            },
            Intent::Demote => Aim::Demote,
            Intent::GiveUp => Aim::GiveUp(Reason::LeaseLost),
        }),
        vacant_since: memory.vacant_since.map(Stamp::moment),
        checkpointed: known_epoch(memory.checkpointed),
        setback: memory.setback.map(|setback| Failure {
            task: task(setback.work, cast),
            what: String::new(),
            times: u32::from(setback.times),
            again: if setback.hot { NOW.moment() + super::moment::TICK } else { Moment::default() },
        }),
        compared: memory.compared.map(|(node, reign)| (name(node), epoch(reign))),
        diverged: memory.diverged.map(|(node, reign, fork)| (name(node), epoch(reign), lsn(fork))),
        idle_since: memory.idle_since.map(Stamp::moment),
        read: memory.read.map(|(at, found)| (at.moment(), revision(found))),
        known: true,
        released_at: memory.released_at.map(Stamp::moment),
        listed_since: memory.listed_since.map(Stamp::moment),
        settled: memory.settled,
        weighed: memory.weighed.map(|(found, since)| (revision(found), since.moment())),
        abandoned: known_revision(memory.abandoned),
        superseded: memory.superseded.map(|sync| synchronous(sync, cast)),
        in_force: memory.in_force.map(|force| InForce {
            epoch: epoch(force.epoch),
            text: text(force.names, cast),
            since: force.since.moment(),
            barrier: (force.barrier > 0).then(|| lsn(force.barrier)),
            asked: force.asked.map(|(names, at)| (text(names, cast), at.moment())),
        }),
        ..Past::default()
    }
}

/// What is kept of it; nothing if a decision remembers what the model does not know.
#[must_use]
pub fn memory(past: &Past, cast: &Cast) -> Option<Memory> {
    let intent = match &past.intent {
        None => None,
        Some(Aim::HandOver { revision, candidate, since }) => Some(Intent::HandOver {
            revision: revision.map_or(0, |found| rev(found.0)),
            candidate: candidate.as_ref().map(|name| cast.id(name)),
            since: Stamp::of(*since),
        }),
        Some(Aim::Demote) => Some(Intent::Demote),
        Some(Aim::GiveUp(_)) => Some(Intent::GiveUp),
        Some(Aim::Revive { .. } | Aim::Reinitialize { .. }) => return None,
    };
    let setback = match &past.setback {
        None => None,
        Some(failure) => Some(Setback {
            work: timeless(work(&failure.task, cast)?),
            times: u8::try_from(failure.times).unwrap_or(2).min(2),
            hot: failure.again > NOW.moment(),
        }),
    };
    Some(Memory {
        intent,
        vacant_since: past.vacant_since.map(Stamp::of),
        checkpointed: past.checkpointed.map_or(0, |reign| rev(reign.0)),
        setback,
        compared: past.compared.as_ref().map(|(node, reign)| (cast.id(node.as_str()), rev(reign.0))),
        diverged: past
            .diverged
            .as_ref()
            .map(|(node, reign, fork)| (cast.id(node.as_str()), rev(reign.0), position(*fork))),
        idle_since: past.idle_since.map(Stamp::of),
        read: past.read.map(|(at, found)| (Stamp::of(at), rev(found.0))),
        released_at: past.released_at.map(Stamp::of),
        listed_since: past.listed_since.map(Stamp::of),
        settled: past.settled,
        weighed: past.weighed.map(|(found, since)| (rev(found.0), Stamp::of(since))),
        abandoned: past.abandoned.map_or(0, |found| rev(found.0)),
        superseded: past.superseded.as_ref().map(|sync| record(sync, 0, cast)),
        in_force: past.in_force.as_ref().map(|force| Force {
            epoch: rev(force.epoch.0),
            names: list(&force.text, cast),
            since: Stamp::of(force.since),
            barrier: force.barrier.map_or(0, position),
            asked: force.asked.as_ref().map(|(names, at)| (list(names, cast), Stamp::of(*at))),
        }),
    })
}

/// Of a failure only the kind counts, and the source of a copy.
fn timeless(work: Work) -> Work {
    match work {
        Work::RestartInPlace(_) => Work::RestartInPlace(0),
        Work::Promote(..) => Work::Promote(0, 0),
        Work::StartStandby(_) => Work::StartStandby(None),
        other => other,
    }
}

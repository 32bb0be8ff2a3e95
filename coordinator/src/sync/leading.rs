//! The leader's part: who can acknowledge commits, and which step comes next so that commits wait for the right ones.
//!
//! It looks and chooses; the rule of what may follow what is the resolver's.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::time::Duration;

use config::SynchronousMode;
use dcs::{ClusterView, Epoch, Lsn, Moment, Revision, SyncState, Versioned};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::names;
use super::resolver::{self, Change, Situation, Voters, Wait};
use crate::decision::Step;
use crate::local::{Running, Sender};
use crate::observation::Observation;
use crate::past::Past;
use crate::slots::{is_true, slot_name};

/// How long after a list was first seen in force every process of the server works by it: each is told at the same
/// moment and looks between two things that it does (Patroni waits as long). The one that may be busy for longer, the
/// checkpointer, has to be seen idle besides.
pub const SETTLE: Duration = Duration::from_secs(2);
/// How soon a list that was set and is not in force is set again.
const AGAIN: Duration = Duration::from_secs(2);
/// How often a leader looks while it waits for a standby to be confirmed.
const LOOK: Duration = Duration::from_millis(200);
/// How often a leader looks whether those who acknowledge are still there: commits wait for one that is gone.
const WATCH: Duration = Duration::from_millis(400);
/// How long a stranger under a member's name is watched before it is taken for one: what the server says of its
/// senders and of its slots is not of one moment.
const STRANGER: Duration = Duration::from_millis(300);

/// The list in force, as this leader came to know it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InForce {
    /// In which reign.
    pub epoch: Epoch,
    /// The setting.
    pub text: String,
    /// When it was first seen.
    pub since: Moment,
    /// A position that the leader reached after every process worked by it.
    pub barrier: Option<Lsn>,
    /// When this leader last set a list, and which.
    pub asked: Option<(String, Moment)>,
}

/// What is to be done now, and when to look again.
#[derive(Debug, Default)]
pub struct Upkeep {
    /// In this order.
    pub steps: Vec<Step>,
    /// At the latest.
    pub wake: Option<Moment>,
    /// Strict commits wait, and nobody is there to acknowledge them.
    pub blocked: bool,
}

/// Whether commits are to wait for standbys. A standby cluster's never do.
#[must_use]
pub fn mode(seen: &Observation) -> SynchronousMode {
    match seen.settings.standby_cluster {
        Some(_) => SynchronousMode::Off,
        None => seen.settings.synchronous_mode,
    }
}

/// The next step of a leader whose server takes writes.
pub fn keep(
    seen: &Observation,
    past: &mut Past,
    view: &ClusterView,
    epoch: Epoch,
    running: &Running,
) -> Upkeep {
    let mut upkeep = advance(seen, past, view, epoch, running);
    if mode(seen) != SynchronousMode::Off {
        let watch = seen.now + WATCH;
        upkeep.wake = Some(upkeep.wake.map_or(watch, |wake| wake.min(watch)));
    }
    upkeep
}

fn advance(
    seen: &Observation,
    past: &mut Past,
    view: &ClusterView,
    epoch: Epoch,
    running: &Running,
) -> Upkeep {
    let mut upkeep = Upkeep::default();
    if behind(seen, view) {
        // The watch tells in a moment what this node itself has written.
        return upkeep;
    }
    if mode(seen) == SynchronousMode::Off {
        past.in_force = None;
        upkeep.steps.extend(view.sync.as_ref().map(|sync| Step::DeleteSync { guard: sync.revision }));
        return upkeep;
    }
    let in_force = notice(seen, past, epoch, running);
    let strangers = strangers(seen, past, view, running);
    if !strangers.is_empty() {
        upkeep.steps.push(Step::Evict(strangers));
        upkeep.wake = Some(seen.now + LOOK);
    }
    let Some(record) = mine(seen, view) else {
        upkeep.steps.push(alone(seen, view.sync.as_ref().map(|sync| sync.revision)));
        return upkeep;
    };
    if seen.sync.doubtful {
        // A write whose end is not known could still arrive. What is written now overtakes it, and it is void.
        upkeep.steps.push(Step::WriteSync { sync: record.value.clone(), guard: Some(record.revision) });
        return upkeep;
    }
    let mut situation = situation(seen, view, running, &in_force, record);
    // What was set last may stand in the file, unread: the next start would read it. Nobody is certain under a list that
    // may change by itself.
    let unread = match &in_force.asked {
        Some((text, _)) => *text != in_force.text,
        None => matches!(situation.wait, Wait::For { .. }),
    };
    if unread {
        situation.settled = false;
        situation.confirmed.clear();
    }
    upkeep.blocked = situation.strict && situation.wanted.is_empty();
    let any = situation.any;
    let wanted = match resolver::next(&situation) {
        Some(Change::Record(voters)) => {
            let sync = SyncState {
                leader: Some(seen.me.name.to_string()),
                quorum: u32::try_from(voters.quorum).unwrap_or(u32::MAX),
                standbys: voters.names,
            };
            upkeep.steps.push(Step::WriteSync { sync, guard: Some(record.revision) });
            return upkeep;
        }
        Some(Change::Names(wait)) => names::text(&wait, any),
        // The other way of saying the same, after a change of mode.
        None if situation.wait != Wait::Foreign => names::text(&situation.wait, any),
        None => in_force.text.clone(),
    };
    if wanted != in_force.text || unread {
        set(seen, past, &mut upkeep, wanted);
    } else if !situation.settled {
        upkeep.wake = Some((in_force.since + SETTLE).max(seen.now + LOOK));
    } else if situation.wanted.iter().any(|name| !situation.confirmed.contains(name)) {
        upkeep.wake = Some(seen.now + LOOK);
    }
    upkeep
}

/// Sets the list, unless the same was tried a moment ago.
fn set(seen: &Observation, past: &mut Past, upkeep: &mut Upkeep, wanted: String) {
    let Some(noted) = &mut past.in_force else { return };
    let lately = noted.asked.as_ref().filter(|(text, at)| *text == wanted && seen.now < *at + AGAIN);
    if let Some((_, at)) = lately {
        upkeep.wake = Some(*at + AGAIN);
        return;
    }
    noted.asked = Some((wanted.clone(), seen.now));
    upkeep.steps.push(Step::SetNames(wanted));
}

/// Whether the view is older than the last record of this kind that this node wrote, or than one that is known to be
/// there.
pub fn behind(seen: &Observation, view: &ClusterView) -> bool {
    let shown = view.sync.as_ref().map(|sync| sync.revision).unwrap_or_default();
    seen.sync.written.is_some_and(|written| view.revision < written) || seen.sync.refused == Some(shown)
}

/// The record, if it names this node.
pub fn mine<'a>(seen: &Observation, view: &'a ClusterView) -> Option<&'a Versioned<SyncState>> {
    let me = seen.me.name.as_str();
    view.sync
        .as_ref()
        .filter(|sync| sync.value.leader.as_deref().is_some_and(|leader| leader.eq_ignore_ascii_case(me)))
}

/// Nobody but this node may lead: it is about to have commits that nobody else has.
pub fn alone(seen: &Observation, guard: Option<Revision>) -> Step {
    let leader = Some(seen.me.name.to_string());
    Step::WriteSync { sync: SyncState { leader, quorum: 0, standbys: BTreeSet::new() }, guard }
}

/// Keeps track of the list in force.
fn notice(seen: &Observation, past: &mut Past, epoch: Epoch, running: &Running) -> InForce {
    let known = past.in_force.take().filter(|known| known.epoch == epoch);
    let asked = known.as_ref().and_then(|known| known.asked.clone());
    let mut now = known.filter(|known| known.text == running.standby_names).unwrap_or_else(|| InForce {
        epoch,
        text: running.standby_names.clone(),
        since: seen.now,
        barrier: None,
        asked,
    });
    if now.barrier.is_none() && running.quiet && running.at >= now.since + SETTLE {
        now.barrier = Some(running.position);
    }
    past.in_force = Some(now.clone());
    now
}

fn situation(
    seen: &Observation,
    view: &ClusterView,
    running: &Running,
    in_force: &InForce,
    record: &Versioned<SyncState>,
) -> Situation<String> {
    let any = mode(seen) == SynchronousMode::Quorum;
    let spelled = |name: &String| spelled(view, name.as_str());
    let wait = match names::read(&in_force.text) {
        Wait::For { names, count } => Wait::of(names.iter().map(spelled).collect(), count),
        other => other,
    };
    let present = match &wait {
        Wait::For { names, .. } => names.clone(),
        _ => BTreeSet::new(),
    };
    let (able, barred) = able(seen, view, running, &present);
    let confirmed = match in_force.barrier {
        Some(barrier) => {
            able.iter().filter(|able| able.flushed >= barrier).map(|able| able.name.clone()).collect()
        }
        None => BTreeSet::new(),
    };
    let count = seen.settings.synchronous_node_count.max(1);
    let wanted = able.into_iter().map(|able| able.name).take(if any { usize::MAX } else { count }).collect();
    Situation {
        voters: Voters {
            quorum: usize::try_from(record.value.quorum).unwrap_or(usize::MAX),
            names: record.value.standbys.iter().map(spelled).collect(),
        },
        wait,
        settled: in_force.barrier.is_some(),
        confirmed,
        wanted,
        count,
        barred,
        any,
        strict: seen.settings.synchronous_mode_strict,
    }
}

/// A name as its member spells it: Patroni and Postgres compare names without regard to case.
fn spelled(view: &ClusterView, name: &str) -> String {
    let member = view.members.keys().find(|member| member.as_str().eq_ignore_ascii_case(name));
    member.map_or_else(|| name.to_string(), ToString::to_string)
}

/// A standby that can acknowledge commits.
#[derive(Debug)]
struct Able {
    name: String,
    flushed: Lsn,
    rank: (bool, i64, bool),
}

/// The standbys that can acknowledge commits, the most preferred first, and those that may not although they are there
/// (patroni-compat 5.8): ordered by `nofailover`, `sync_priority`, being chosen already, position, name.
fn able(
    seen: &Observation,
    view: &ClusterView,
    running: &Running,
    present: &BTreeSet<String>,
) -> (Vec<Able>, BTreeSet<String>) {
    let (mut able, mut barred) = (Vec::new(), BTreeSet::new());
    for (name, member) in view.members.iter().filter(|(name, _)| **name != seen.me.name) {
        let name = name.to_string();
        let alike = view.members.keys().filter(|other| other.as_str().eq_ignore_ascii_case(&name)).count();
        let priority = priority(&member.tags);
        let senders = || running.senders.iter().filter(|sender| sender.is_for(&name));
        let strange = senders().any(|sender| !genuine(seen, &name, sender));
        if alike > 1 || priority <= 0 || strange {
            barred.insert(name);
            continue;
        }
        let behind_another = member.tags.get("replicatefrom").and_then(Value::as_str).is_some_and(|from| {
            from != seen.me.name.as_str() && running.senders.iter().any(|sender| sender.is_for(from))
        });
        let mut streaming = senders().filter(|sender| sender.streaming);
        let (Some(sender), None) = (streaming.next(), streaming.next()) else { continue };
        let Some(flushed) = sender.flushed.filter(|_| member.state == "running" && !behind_another) else {
            continue;
        };
        let rank = (crate::eligible::forbids_leading(&member.tags), -priority, !present.contains(&name));
        able.push(Able { name, flushed, rank });
    }
    if let Some(limit) = seen.settings.maximum_lag_on_syncnode {
        // The only one is measured against the leader.
        let best = match able.as_slice() {
            [_] => running.position,
            _ => able.iter().map(|able| able.flushed).max().unwrap_or_default(),
        };
        let lags = |able: &Able| best.ahead_of(able.flushed) > limit;
        barred.extend(able.iter().filter(|able| lags(able)).map(|able| able.name.clone()));
        able.retain(|able| !lags(able));
    }
    able.sort_by(|one, other| {
        let by_rank = one.rank.cmp(&other.rank);
        by_rank.then(other.flushed.cmp(&one.flushed)).then_with(|| one.name.cmp(&other.name))
    });
    (able, barred)
}

/// The published `sync_priority`, 1 by default, 0 and below for who must not acknowledge; a written `nosync` decides.
fn priority(tags: &BTreeMap<String, Value>) -> i64 {
    let written = match tags.get("sync_priority") {
        Some(Value::String(text)) => text.trim().parse().ok(),
        Some(other) => other.as_i64(),
        None => None,
    };
    match tags.get("nosync") {
        None | Some(Value::Null) => written.unwrap_or(1),
        tag if is_true(tag) => 0,
        _ => written.unwrap_or(1).max(1),
    }
}

/// Whether a sender under a member's name serves that member (F133): it uses the member's own slot. Without slots the
/// name is all there is.
fn genuine(seen: &Observation, name: &str, sender: &Sender) -> bool {
    !seen.settings.use_slots || sender.slot.as_deref() == Some(slot_name(name).as_str())
}

/// How far a member that streams from here has the log on disk; nothing if it is not certain that it is that member.
pub fn flushed(seen: &Observation, running: &Running, name: &str) -> Option<Lsn> {
    let mut senders = running.senders.iter().filter(|sender| sender.is_for(name));
    let (Some(sender), None) = (senders.next(), senders.next()) else { return None };
    sender.flushed.filter(|_| sender.streaming && genuine(seen, name, sender))
}

/// The processes that have served a stranger under a member's name for a while. Postgres would take its word for the member's.
fn strangers(seen: &Observation, past: &mut Past, view: &ClusterView, running: &Running) -> Vec<i32> {
    let others = view.members.keys().filter(|name| **name != seen.me.name);
    let found: Vec<i32> = others
        .flat_map(|name| {
            running.senders.iter().filter(move |sender| sender.is_for(name.as_str())).map(move |s| (name, s))
        })
        .filter(|(name, sender)| !genuine(seen, name.as_str(), sender))
        .map(|(_, sender)| sender.pid)
        .collect();
    past.strangers.retain(|pid, _| found.contains(pid));
    for pid in found {
        past.strangers.entry(pid).or_insert(seen.now);
    }
    let long = |since: &Moment| seen.now.since(*since) >= STRANGER;
    past.strangers.iter().filter(|(_, since)| long(since)).map(|(pid, _)| *pid).collect()
}

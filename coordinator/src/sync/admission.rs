//! Whether clients are let in after a crash: not before what they may read is on the synchronous standbys as well.
//!
//! A commit that waited when the server crashed is visible once it has recovered, although nobody else need have it. With
//! `synchronous_mode_strict` such a server is started closed, and opened when whoever may lead after it has all that its log
//! held then. Pure; how a server is kept closed is the daemon's matter.

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::time::Duration;

use config::SynchronousMode;
use dcs::{ClusterView, Epoch, Lsn, SyncState};
use serde::{Deserialize, Serialize};

use super::resolver::Wait;
use super::{leading, names};
use crate::decision::{Decision, Step, Task};
use crate::local::Running;
use crate::observation::Observation;
use crate::past::Past;
use crate::reason::Reason;

/// How long after a try to open a server has failed the next one is made.
const AGAIN: Duration = Duration::from_secs(10);

/// Where the log of a closed server ended when it was first seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Closed {
    /// In which reign.
    pub epoch: Epoch,
    /// What clients could read there.
    pub until: Lsn,
}

/// What is to be done about a server that lets nobody in.
#[derive(Debug)]
pub enum Verdict {
    /// Open it.
    Admit,
    /// Wait, for this reason.
    Hold(Reason),
}

/// Whether a leader that starts its server again where it crashed lets nobody in for now: commits must wait, and somebody
/// else may lead who need not have them.
#[must_use]
pub fn closes(seen: &Observation) -> bool {
    let view = seen.view();
    strict(seen) && (unknown(seen, &view) || voters(seen, &view).is_some())
}

/// Whether a restart that was asked for leaves a server closed: one that is, and may not be opened yet.
#[must_use]
pub fn stays_closed(seen: &Observation, past: &Past) -> bool {
    let Some(epoch) = seen.lease.map(|held| held.epoch) else { return false };
    match &seen.postgres.running {
        None => closes(seen),
        Some(running) => {
            matches!(
                judge(seen, &mut Past { unopened: None, ..past.clone() }, &seen.view(), epoch, running),
                Some(Verdict::Hold(_))
            )
        }
    }
}

/// Opens a closed server: by a restart under the lease, on the same timeline.
#[must_use]
pub fn open(seen: &Observation, past: Past) -> Decision {
    let restart = Task::Restart { request: None, standby: None, timeout: None, closed: false };
    Decision::act(seen, past, Reason::Admitting { failed: false }, [Step::Begin(restart)])
}

/// Judges a leader's server; nothing if it is open. The first look at a closed one is remembered.
pub fn judge(
    seen: &Observation,
    past: &mut Past,
    view: &ClusterView,
    epoch: Epoch,
    running: &Running,
) -> Option<Verdict> {
    if !running.closed {
        past.closed = None;
        return None;
    }
    let known = past.closed.filter(|known| known.epoch == epoch);
    let until = known.unwrap_or(Closed { epoch, until: running.position }).until;
    past.closed = Some(Closed { epoch, until });
    let verdict = match voters(seen, view).filter(|_| strict(seen)) {
        _ if strict(seen) && unknown(seen, view) => {
            let whom = String::from("the synchronous standbys");
            Verdict::Hold(Reason::NotAdmitted { whom, lacks: Some(0) })
        }
        None => Verdict::Admit,
        Some(record) => match lacking(seen, running, record, until) {
            Some(because) => Verdict::Hold(because),
            None => Verdict::Admit,
        },
    };
    Some(match verdict {
        // The last try has failed, and the server was closed again.
        Verdict::Admit if past.unopened.is_some_and(|at| seen.now < at + AGAIN) => {
            Verdict::Hold(Reason::Admitting { failed: true })
        }
        other => other,
    })
}

fn strict(seen: &Observation) -> bool {
    leading::mode(seen) != SynchronousMode::Off && seen.settings.synchronous_mode_strict
}

/// What the record says now is not certain: it may name somebody.
fn unknown(seen: &Observation, view: &ClusterView) -> bool {
    seen.sync.doubtful || leading::behind(seen, view)
}

/// The record of this leader, if it lets somebody else lead.
fn voters<'a>(seen: &Observation, view: &'a ClusterView) -> Option<&'a SyncState> {
    let record = leading::mine(seen, view).map(|record| &record.value);
    record.filter(|record| !record.standbys.is_empty())
}

/// Why not enough standbys have the log up to `until`; nothing if enough have it.
///
/// Whoever leads by the record has compared itself with `quorum` others of it, so among these is one that has everything if all
/// but `quorum` of them have (resolver.rs). Besides, as many have to have it as a commit waits for.
fn lacking(seen: &Observation, running: &Running, record: &SyncState, until: Lsn) -> Option<Reason> {
    let quorum = usize::try_from(record.quorum).unwrap_or(usize::MAX);
    let all = record.standbys.len().saturating_sub(quorum).max(1);
    let listed = match names::read(&running.standby_names) {
        Wait::For { names, count } => Some((names, count)),
        _ => None,
    };
    let wanted = core::iter::once((record.standbys.clone(), all)).chain(listed);
    wanted.filter_map(|(names, count)| short(seen, running, &names, count, until)).next()
}

/// The reason if fewer than `count` of `names` have the log up to `until`.
fn short(
    seen: &Observation,
    running: &Running,
    names: &BTreeSet<String>,
    count: usize,
    until: Lsn,
) -> Option<Reason> {
    let mut flushed: Vec<Lsn> =
        names.iter().filter_map(|name| leading::flushed(seen, running, name)).collect();
    flushed.sort_by(|one, other| other.cmp(one));
    let last = flushed.get(count.saturating_sub(1)).copied();
    if last.is_some_and(|last| last >= until) {
        return None;
    }
    let list = names.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let whom = if count < names.len() { format!("{count} of {list}") } else { list };
    // Rounded up, so that the log has a line for each halving and not for each look.
    let rounded = |bytes: u64| bytes.checked_next_power_of_two().unwrap_or(u64::MAX);
    Some(Reason::NotAdmitted { whom, lacks: last.map(|last| rounded(until.ahead_of(last))) })
}

//! What operators asked of this node: stop, restart, reinitialise.

use core::time::Duration;

use dcs::Moment;

use crate::decision::{Decision, Reply, Step, StopMode, Task};
use crate::local::{Data, Process};
use crate::observation::{Consent, Observation, Request, Standing, Wish};
use crate::past::{Intent, Past};
use crate::reason::Reason;
use crate::replica;
use crate::sync::admission;

/// Decides on the oldest request that can be decided; nothing if there is none that matters now.
pub fn decide(seen: &Observation, past: &Past) -> Option<Decision> {
    match seen.ending {
        Some(Wish::LeaveRunning) => {
            let steps = [Step::Exit { code: 0 }];
            return Some(Decision::act(seen, past.clone(), Reason::LeaveRunning, steps));
        }
        Some(_) => return Some(stop(seen, past.clone())),
        None => {}
    }
    seen.requests.iter().find_map(|request| perform(seen, past, request))
}

/// Decides on one request; nothing if it has to wait for something to be known.
fn perform(seen: &Observation, past: &Past, request: &Request) -> Option<Decision> {
    match &request.wish {
        Wish::Restart { timeout, .. } => {
            if filters_fit(seen, &request.wish)
                && let Some(decision) = revive(seen, past, request.id, *timeout)
            {
                return Some(decision);
            }
            if seen.now < unknown_until(seen, request) {
                return None;
            }
            Some(if restart_fits(seen, &request.wish) {
                restart(seen, past.clone(), request.id, *timeout)
            } else {
                refuse(seen, past, request.id)
            })
        }
        Wish::Reinitialize { from_leader, consent, .. } => {
            let step = match may_reinitialize(seen, request.id, consent) {
                Verdict::Waits => return None,
                Verdict::Say(step) => step,
                Verdict::Goes => {
                    let intent =
                        Some(Intent::Reinitialize { request: request.id, from_leader: *from_leader });
                    let past = Past { intent, setback: None, ..past.clone() };
                    let steps = [Step::Answer(request.id, Reply::Started)];
                    return Some(Decision::act(seen, past, Reason::Reinitialize, steps));
                }
            };
            Some(Decision::act(seen, past.clone(), Reason::Reinitialize, [step]))
        }
        Wish::Stop | Wish::LeaveRunning => None,
    }
}

/// How long a restart waits for a server that runs and does not answer: right after a start, or for
/// a moment under load, nothing is known of it, and unknown is not refused.
const UNKNOWN: Duration = Duration::from_secs(5);

fn unknown_until(seen: &Observation, request: &Request) -> Moment {
    let silent = seen.postgres.process == Process::Postmaster && seen.postgres.running.is_none();
    if silent { request.asked + UNKNOWN } else { seen.now }
}

/// When a request that waits has to be decided at the latest.
pub fn due(seen: &Observation) -> Option<Moment> {
    let restarts = seen.requests.iter().filter(|request| matches!(request.wish, Wish::Restart { .. }));
    restarts.map(|request| unknown_until(seen, request)).filter(|until| *until > seen.now).min()
}

/// Whether the filters of a restart match, as far as can be told.
fn filters_fit(seen: &Observation, wish: &Wish) -> bool {
    let Wish::Restart { role, below_version, if_pending, pending, .. } = wish else { return false };
    let version = seen.postgres.running.as_ref().map_or(0, |running| running.version);
    role.as_deref().is_none_or(|role| has_role(seen, role))
        && below_version.is_none_or(|limit| version < limit)
        && (!if_pending || *pending)
}

/// Whether the server here is to be restarted. A stopped one is started as its place in the cluster
/// demands, not as somebody wishes; of one that stays silent no filter can be judged.
fn restart_fits(seen: &Observation, wish: &Wish) -> bool {
    let Wish::Restart { role, below_version, .. } = wish else { return false };
    let silent = seen.postgres.process == Process::Postmaster && role.is_none() && below_version.is_none();
    filters_fit(seen, wish)
        && (seen.postgres.running.is_some() || silent)
        && matches!(seen.data, Data::Present(_))
}

fn has_role(seen: &Observation, role: &str) -> bool {
    match role {
        "primary" => seen.is_primary(),
        "replica" => !seen.is_primary(),
        _ => false,
    }
}

fn refuse(seen: &Observation, past: &Past, id: u64) -> Decision {
    let steps = [Step::Answer(id, Reply::ConditionsNotMet)];
    Decision::act(seen, past.clone(), Reason::Restart, steps)
}

fn restart(seen: &Observation, past: Past, id: u64, timeout: Option<Duration>) -> Decision {
    let standby = match seen.standing_of_key() {
        _ if seen.is_primary() || seen.holds_lease() => None,
        Standing::Theirs(name) => Some(replica::upstream(seen, &seen.view(), &name)),
        _ => Some(None),
    };
    let closed = standby.is_none() && admission::stays_closed(seen, &past);
    let steps = [Step::Begin(Task::Restart { request: Some(id), standby, timeout, closed })];
    Decision::act(seen, past, Reason::Restart, steps)
}

/// How long whoever asked for a start in pause waits at least.
const A_START: Duration = Duration::from_secs(60);

/// In pause nothing else starts a stopped server again: where another node leads, a restart brings it
/// back as that node's replica, by the way on which any former member comes back.
fn revive(seen: &Observation, past: &Past, id: u64, timeout: Option<Duration>) -> Option<Decision> {
    let begun = match past.intent {
        Some(Intent::Revive { request, since }) if request == id => Some(since),
        _ => None,
    };
    let answer = |reply: Reply| {
        let past = Past { intent: None, ..past.clone() };
        Some(Decision::act(seen, past, Reason::Restart, [Step::Answer(id, reply)]))
    };
    if begun.is_some() && seen.postgres.running.is_some() {
        return answer(Reply::Restarted);
    }
    let Standing::Theirs(leader) = seen.standing_of_key() else { return None };
    if !seen.settings.pause || seen.postgres.running.is_some() || !matches!(seen.data, Data::Present(_)) {
        return None;
    }
    let patience = timeout.unwrap_or_else(|| seen.settings.primary_start_timeout.max(A_START));
    let (since, setback) = match begun {
        Some(_) if past.failed(|task| matches!(task, Task::StartStandby { .. })).is_some() => {
            return answer(Reply::RestartFailed);
        }
        Some(since) if seen.now.since(since) >= patience => return answer(Reply::StillStarting),
        Some(since) => (since, past.setback.clone()),
        None if seen.postgres.process == Process::Gone => (seen.now, None),
        None => return None,
    };
    let mut decision = replica::decide(seen, Past { setback, ..past.clone() }, &leader);
    decision.past.intent = Some(Intent::Revive { request: id, since });
    Some(decision.wake_by(since + patience))
}

/// Whether a new copy may be begun.
pub enum Verdict {
    /// It may.
    Goes,
    /// It is not known yet.
    Waits,
    /// It may not, or custody must be asked.
    Say(Step),
}

/// Judges a wish for a new copy before anybody is told that it has begun. Where nothing lies, nothing has to go.
pub fn may_reinitialize(seen: &Observation, id: u64, consent: &Consent) -> Verdict {
    if seen.holds_lease() {
        return Verdict::Say(Step::Answer(id, Reply::IamLeader));
    }
    if !matches!(seen.standing_of_key(), Standing::Theirs(_)) {
        return Verdict::Say(Step::Answer(id, Reply::NoLeader));
    }
    match consent {
        _ if seen.data == Data::Empty => Verdict::Goes,
        Consent::Given => Verdict::Goes,
        Consent::Asked => Verdict::Waits,
        Consent::Unasked => Verdict::Say(Step::SeekConsent(id)),
        Consent::Refused(why) => Verdict::Say(Step::Answer(id, Reply::Refused(why.clone()))),
    }
}

/// Ends the daemon: hand over if this node leads, stop Postgres, exit. In pause
/// Postgres is left alone (patroni-compat 5.7).
fn stop(seen: &Observation, past: Past) -> Decision {
    if seen.settings.pause {
        return Decision::act(seen, past, Reason::Stopping, [Step::Exit { code: 0 }]);
    }
    if seen.holds_lease() && seen.store.reachable {
        let (revision, candidate, since) = match &past.intent {
            Some(Intent::HandOver { since, .. }) => (None, None, *since),
            _ => (None, None, seen.now),
        };
        let intent = Intent::HandOver { revision, candidate, since };
        let past = Past { intent: Some(intent), ..past };
        return crate::handover::go_on(seen, past, None, None, since);
    }
    match seen.postgres.process {
        Process::Gone => Decision::act(seen, past, Reason::Stopping, [Step::Exit { code: 0 }]),
        _ => {
            if let Some(setback) = past.waits(seen.now, |task| matches!(task, Task::Stop(_))) {
                let again = setback.again;
                return Decision::wait(seen, past, Reason::Stopping).wake_by(again);
            }
            let failed = past.failed(|task| matches!(task, Task::Stop(_))).is_some();
            let mode = if failed { StopMode::Immediate } else { StopMode::Fast };
            Decision::act(seen, past, Reason::Stopping, [Step::Begin(Task::Stop(mode))])
        }
    }
}

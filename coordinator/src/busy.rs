//! What a turn may still do while a job runs: end it when the lease that it
//! needs is gone or its time is up; otherwise wait for it.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use dcs::Moment;

use crate::decision::{Decision, Reply, Step, StopMode, Task};
use crate::leader;
use crate::observation::{Job, Observation, Wish};
use crate::past::{Intent, Past};
use crate::reason::Reason;
use crate::request::{Verdict, may_reinitialize};

/// Decides while a job runs; nothing if no job stands in the way.
pub fn decide(seen: &Observation, past: &Past) -> Option<Decision> {
    let job = seen.job.as_ref()?;
    if job.task == Task::Checkpoint {
        // It only shortens later work; any other task replaces it.
        return None;
    }
    if needs_lease(&job.task) && !seen.settings.pause && !seen.holds_lease() {
        let mut steps = alloc::vec![Step::Cancel];
        if matches!(job.task, Task::Promote { .. }) {
            // A server that was told to promote does so, sooner or later, whoever leads by then.
            steps.push(Step::Begin(Task::Stop(StopMode::Immediate)));
        }
        return Some(Decision::act(seen, past.clone(), Reason::CancelJob, steps));
    }
    if let Some(because) = start_given_up(seen, job) {
        // What was started may go on without the job: it is stopped before the lease goes.
        let past = Past { intent: Some(Intent::GiveUp(because.clone())), ..past.clone() };
        let told = requester(&job.task).map(|id| Step::Answer(id, Reply::RestartFailed));
        return Some(Decision::act(seen, past, because, [Step::Cancel].into_iter().chain(told)));
    }
    let mut steps = Vec::new();
    for request in seen.requests.iter().filter(|request| !performs(&job.task, past, request.id)) {
        match &request.wish {
            // What may not be begun must not end what runs.
            Wish::Reinitialize { force: true, consent, .. } => {
                match may_reinitialize(seen, request.id, consent) {
                    Verdict::Goes => steps.push(Step::Cancel),
                    Verdict::Say(step) => steps.push(step),
                    Verdict::Waits => {}
                }
            }
            Wish::Reinitialize { .. } | Wish::Restart { .. } => {
                steps.push(Step::Answer(request.id, Reply::Busy));
            }
            Wish::Stop | Wish::LeaveRunning => {}
        }
    }
    if interrupted_by_ending(seen, &job.task) {
        steps.push(Step::Cancel);
    }
    let because = match job.task {
        Task::Promote { .. } => Reason::Promoting,
        _ => Reason::Busy(job.task.to_string()),
    };
    let Some(since) = leader_starts(seen, job) else {
        return Some(Decision::act(seen, past.clone(), because, steps));
    };
    steps.extend(crate::handover::ask_everybody(seen));
    let budget = since + start_budget(seen);
    let again = if seen.now < budget { budget } else { seen.now + core::time::Duration::from_secs(1) };
    Some(Decision::act(seen, past.clone(), because, steps).wake_by(again))
}

/// Whether the task is done for this request, which what comes of it answers.
fn performs(task: &Task, past: &Past, id: u64) -> bool {
    requester(task) == Some(id)
        || matches!(past.intent, Some(Intent::Revive { request, .. }) if request == id)
}

fn requester(task: &Task) -> Option<u64> {
    match task {
        Task::Restart { request, .. } => *request,
        _ => None,
    }
}

/// Whether the task makes or keeps a writable server: without the lease it must end,
/// and whatever it left is stopped at once.
fn needs_lease(task: &Task) -> bool {
    matches!(
        task,
        Task::Stop(StopMode::Handover)
            | Task::FirstStart { .. }
            | Task::RestartInPlace { .. }
            | Task::Promote { .. }
            | Task::Restart { standby: None, .. }
    )
}

/// Work that a stopping daemon does not wait for. Stops and restarts run to their end.
fn interrupted_by_ending(seen: &Observation, task: &Task) -> bool {
    seen.ending.is_some()
        && matches!(
            task,
            Task::Initdb | Task::Clone { .. } | Task::StartStandby { .. } | Task::Promote { .. }
        )
}

/// Since when the leader's server is being started; nothing if it is not. A restart stops it first,
/// and that takes the time that its checkpoint takes.
fn leader_starts(seen: &Observation, job: &Job) -> Option<Moment> {
    if !seen.holds_lease() || seen.settings.pause {
        return None;
    }
    match job.task {
        Task::RestartInPlace { .. } | Task::StartStandby { .. } => Some(job.since),
        Task::Restart { standby: None, .. } => seen.postgres.down.filter(|down| *down >= job.since),
        _ => None,
    }
}

fn start_budget(seen: &Observation) -> core::time::Duration {
    seen.settings.primary_start_timeout.max(core::time::Duration::from_secs(1))
}

/// A leader that starts for too long, or whose WAL somebody else holds whole, gives the lease up.
fn start_given_up(seen: &Observation, job: &Job) -> Option<Reason> {
    let since = leader_starts(seen, job)?;
    let spent = seen.now.since(since);
    let asked_for = matches!(job.task, Task::Restart { .. });
    if !asked_for
        && let crate::Data::Present(control) = &seen.data
        && spent.max(leader::recovery(control)) > leader::TAKEOVER
        && let Some(name) = crate::handover::complete_candidate(seen)
    {
        return Some(Reason::CandidateReady(name));
    }
    let overdue = spent >= start_budget(seen);
    (overdue && crate::handover::somebody_could_lead(seen))
        .then(|| Reason::CannotStart(String::from("it did not start within primary_start_timeout")))
}

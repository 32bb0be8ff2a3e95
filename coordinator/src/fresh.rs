//! No data here: create the cluster, clone, or wait. An empty directory is never
//! a reason for initdb where the cluster is known.

use core::time::Duration;

use dcs::{ClusterView, Initialize};

use config::NodeName;

use crate::decision::{Decision, Grounds, Step, StopMode, Task};
use crate::local::{Process, Unfinished};
use crate::observation::{Bootstrap, Observation};
use crate::past::{Intent, Past};
use crate::reason::Reason;
use crate::slots::is_true;
use crate::sync::right;

/// How soon a claim that may be this node's own is given back again: the first time may have failed, or been lost.
const RETURN_AGAIN: Duration = Duration::from_secs(30);

/// Nobody leads and there is no data.
pub fn vacant(seen: &Observation, past: Past, view: &ClusterView) -> Decision {
    if let Some(setback) = past.failed(|task| matches!(task, Task::Initdb | Task::FirstStart { .. })) {
        let because = Reason::BootstrapFailed(setback.what.clone());
        return Decision::act(seen, past, because, [Step::GiveUpInitialize, Step::Exit { code: 1 }]);
    }
    match view.initialize {
        Initialize::Done(_) | Initialize::Invalid => Decision::wait(seen, past, Reason::NothingToOffer),
        // If it was this node, in an earlier life, that claimed it, nobody else can give it back.
        Initialize::Running => match past.claim_returned.map(|at| at + RETURN_AGAIN) {
            Some(again) if seen.now < again => {
                Decision::wait(seen, past, Reason::WaitForBootstrap).wake_by(again)
            }
            _ => {
                let past = Past { claim_returned: Some(seen.now), ..past };
                Decision::act(seen, past, Reason::WaitForBootstrap, [Step::GiveUpInitialize])
            }
        },
        Initialize::Absent if seen.me.may_lead() && seen.me.bootstrap == Bootstrap::Initdb => {
            let steps = [Step::ClaimInitialize, Step::Begin(Task::Initdb)];
            let past = Past { bootstrapping: true, ..past };
            Decision::act(seen, past, Reason::CreateCluster, steps)
        }
        Initialize::Absent => Decision::wait(seen, past, Reason::MayNotBootstrap),
    }
}

/// The remains of a bootstrap of our own go to the vault; the key goes back.
pub fn clean_up(seen: &Observation, past: Past) -> Decision {
    let because = match past.failed(|task| matches!(task, Task::Initdb | Task::FirstStart { .. })) {
        Some(setback) => Reason::BootstrapFailed(setback.what.clone()),
        None => Reason::ToxicData(Unfinished::Bootstrap),
    };
    if seen.postgres.process != Process::Gone {
        return crate::replica::stop(seen, past, because, StopMode::Immediate);
    }
    if let Some(setback) = past.waits(seen.now, |task| matches!(task, Task::Retire { .. })) {
        let (again, because) = (setback.again, Reason::BootstrapFailed(setback.what.clone()));
        return Decision::wait(seen, past, because).wake_by(again);
    }
    let retire = Task::Retire { grounds: Grounds::UnfinishedBootstrap, leader: None };
    Decision::act(seen, past, because, [Step::GiveUpInitialize, Step::Begin(retire)])
}

/// Somebody leads and there is no data: clone.
pub fn clone(seen: &Observation, past: Past, leader: &NodeName) -> Decision {
    let view = seen.view();
    if seen.postgres.process != Process::Gone {
        if let Some(setback) = past.waits(seen.now, |task| matches!(task, Task::KillRemnants)) {
            let (again, because) = (setback.again, Reason::RejoinFailed(setback.what.clone()));
            return Decision::wait(seen, past, because).wake_by(again);
        }
        let steps = [Step::Begin(Task::KillRemnants)];
        return Decision::act(seen, past, Reason::NeedClone(leader.clone()), steps);
    }
    if !is_source(&view, leader) || !matches!(view.initialize, Initialize::Done(_)) {
        return Decision::wait(seen, past, Reason::LeaderNotReady(leader.clone()));
    }
    let leader_only = matches!(past.intent, Some(Intent::Reinitialize { from_leader: true, .. }));
    // Who is named as one that has every commit must not become one that lacks some (F140).
    let leader_only = leader_only
        || right::record(seen, &view).is_some_and(|record| right::names(record, seen.me.name.as_str()));
    let from = if leader_only { leader.clone() } else { preferred_source(seen, &view, leader) };
    let task = Task::Clone { from };
    if let Some(setback) = past.waits_for(seen.now, &task) {
        let (again, because) = (setback.again, Reason::RejoinFailed(setback.what.clone()));
        return Decision::wait(seen, past, because).wake_by(again);
    }
    Decision::act(seen, past, Reason::NeedClone(leader.clone()), [Step::Begin(task)])
}

fn is_source(view: &ClusterView, name: &NodeName) -> bool {
    view.members.get(name).is_some_and(|member| member.state == "running" && member.conn_url.is_some())
}

/// A running member tagged `clonefrom`, or the leader.
fn preferred_source(seen: &Observation, view: &ClusterView, leader: &NodeName) -> NodeName {
    view.members
        .iter()
        .filter(|(name, member)| {
            *name != leader && **name != seen.me.name && is_true(member.tags.get("clonefrom"))
        })
        .find(|(name, _)| is_source(view, name))
        .map_or_else(|| leader.clone(), |(name, _)| name.clone())
}

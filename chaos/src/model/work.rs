//! Tasks as the model keeps them, and as decisions say them.

use coordinator::{Grounds, StopMode, Task};
use dcs::Timeline;

use super::cast::Cast;
use super::observe::{epoch, rev, upstream};
use super::state::Work;

/// A task of a decision; nothing for one that the model never begins.
#[must_use]
pub fn work(task: &Task, cast: &Cast) -> Option<Work> {
    Some(match task {
        Task::StartStandby { upstream } => {
            Work::StartStandby(upstream.as_ref().map(|from| cast.id(from.member.as_str())))
        }
        Task::RestartInPlace { epoch, .. } => Work::RestartInPlace(rev(epoch.0)),
        Task::Promote { epoch, above } => {
            Work::Promote(rev(epoch.0), u8::try_from(above.0).unwrap_or(u8::MAX))
        }
        Task::Stop(StopMode::Handover) => Work::Handover,
        Task::Stop(StopMode::Fast) => Work::Fast,
        Task::Stop(StopMode::Immediate) => Work::Immediate,
        Task::KillRemnants => Work::KillRemnants,
        Task::Checkpoint => Work::Checkpoint,
        Task::Clone { from } => Work::Clone(cast.id(from.as_str())),
        Task::RecoverCrash => Work::RecoverCrash,
        Task::Rewind { from } => Work::Rewind(cast.id(from.as_str())),
        Task::Retire { leader, .. } => Work::Retire(leader.as_ref().map(|leader| cast.id(leader.as_str()))),
        Task::Initdb | Task::FirstStart { .. } | Task::Restart { .. } => return None,
    })
}

/// The task of a decision that it stands for.
#[must_use]
pub fn task(work: Work, cast: &Cast) -> Task {
    let name = |node: u8| cast.name(usize::from(node)).clone();
    match work {
        Work::StartStandby(from) => Task::StartStandby { upstream: from.map(|from| upstream(from, cast)) },
        Work::RestartInPlace(reign) => Task::RestartInPlace { epoch: epoch(reign), closed: false },
        Work::Promote(reign, above) => {
            Task::Promote { epoch: epoch(reign), above: Timeline(u32::from(above)) }
        }
        Work::Handover => Task::Stop(StopMode::Handover),
        Work::Fast => Task::Stop(StopMode::Fast),
        Work::Immediate => Task::Stop(StopMode::Immediate),
        Work::KillRemnants => Task::KillRemnants,
        Work::Checkpoint => Task::Checkpoint,
        Work::Clone(from) => Task::Clone { from: name(from) },
        Work::RecoverCrash => Task::RecoverCrash,
        Work::Rewind(from) => Task::Rewind { from: name(from) },
        Work::Retire(leader) => Task::Retire { grounds: Grounds::Diverged, leader: leader.map(name) },
    }
}

//! Guards of the decisions, each taken away in the simulator's copy: what a decision sees is falsified, or its steps are
//! replaced. The production code knows nothing of it.

use std::sync::Arc;

use config::NodeName;
use coordinator::{Control, Data, Decision, Observation, Process, Reason, Step, Task, Unfinished};
use dcs::{Epoch, Initialize, Moment, Timeline};

use super::Fault;
use crate::sim::World;

impl World {
    /// What a fault makes of what a decision is about to see.
    pub(in crate::sim) fn blind(&self, name: &NodeName, seen: &mut Observation) {
        let Some(fault) = self.planted.filter(|_| !self.quiet) else { return };
        match fault {
            Fault::SilentIsStandby if seen.postgres.running.is_none() => {
                if let Data::Present(control) = &mut seen.data {
                    control.standby_signal = true;
                }
            }
            Fault::PromiseForEver => {
                if let Some(promise) = &mut seen.failsafe.promise {
                    promise.until = Moment(u64::MAX);
                }
            }
            Fault::RemainsAreData if matches!(seen.data, Data::Unfinished(Unfinished::Bootstrap)) => {
                if let Some(dir) = &self.nodes[name].server.dir {
                    seen.data = Data::Present(Control { standby_signal: false, ..dir.control() });
                }
            }
            Fault::LagForgotten => {
                Arc::make_mut(&mut seen.settings).maximum_lag_on_failover = u64::MAX;
            }
            Fault::FloorForgotten => seen.floor = None,
            Fault::RemnantsForgotten if seen.postgres.process == Process::Remnants => {
                seen.postgres.process = Process::Gone;
            }
            Fault::EmptyIsNew if seen.data == Data::Empty => {
                if let Some(view) = &mut seen.store.view
                    && matches!(view.initialize, Initialize::Done(_))
                {
                    Arc::make_mut(view).initialize = Initialize::Absent;
                }
            }
            Fault::HungIsHealthy if seen.postgres.silent_since.is_some() => {
                seen.postgres.silent_since = Some(seen.now);
                seen.postgres.frozen = false;
            }
            Fault::IdentityForgotten => {
                if let (Data::Present(control), Some(view)) = (&seen.data, &mut seen.store.view) {
                    let same = Initialize::Done(control.system_id);
                    if matches!(view.initialize, Initialize::Done(_)) {
                        Arc::make_mut(view).initialize = same;
                    }
                }
            }
            Fault::FormerLeaderCounts => {
                if let Some(view) = &mut seen.store.view
                    && let Some(sync) = &mut Arc::make_mut(view).sync
                    && let Some(leader) = sync.value.leader.replace("nobody".into())
                {
                    sync.value.standbys.insert(leader);
                }
            }
            Fault::CheckpointForgotten => {
                if let Some(history) = &mut seen.leader_history {
                    history.settled = true;
                }
            }
            _ => {}
        }
    }

    /// What a fault makes of a decision.
    pub(in crate::sim) fn pervert(&self, name: &NodeName, seen: &Observation, decision: &mut Decision) {
        let Some(fault) = self.planted.filter(|_| !self.quiet) else { return };
        let was_primary = self.nodes[name].server.dir.as_ref().is_some_and(|dir| !dir.signal);
        match fault {
            Fault::StartsAsPrimary if was_primary => {
                for step in &mut decision.steps {
                    if matches!(step, Step::Begin(Task::StartStandby { .. })) {
                        *step = Step::Begin(Task::RestartInPlace { epoch: Epoch(0), closed: false });
                    }
                }
            }
            Fault::HistoriesAgree => {
                for step in &mut decision.steps {
                    if matches!(step, Step::Begin(Task::Rewind { .. })) {
                        *step = Step::Begin(Task::StartStandby { upstream: None });
                    }
                }
            }
            Fault::AdmitsAtOnce => {
                for step in &mut decision.steps {
                    if let Step::Begin(Task::RestartInPlace { closed, .. }) = step {
                        *closed = false;
                    }
                }
            }
            Fault::HandsOverUnseen if decision.because == Reason::WaitForCandidate => {
                decision.steps = vec![Step::Release { position: None }];
            }
            Fault::TimelineTwice => {
                for step in &mut decision.steps {
                    if let Step::Begin(Task::Promote { above, .. }) = step {
                        *above = Timeline(0);
                    }
                }
            }
            Fault::NamesNeverSet => decision.steps.retain(|step| !matches!(step, Step::SetNames(_))),
            Fault::RecordAfterNames => {
                decision.steps.retain(|step| !matches!(step, Step::WriteSync { .. }));
            }
            Fault::ReplicaRewrites if decision.because == Reason::RecordsLost => {
                if let Some(id) = self.nodes[name].identity() {
                    decision.steps = vec![Step::WriteInitialize(id), Step::RestoreConfig];
                }
            }
            Fault::ClaimKept => decision.steps.retain(|step| !matches!(step, Step::GiveUpInitialize)),
            Fault::CandidateForEver => decision.past.vacant_since = None,
            Fault::StaysWritable if seen.is_primary() && !seen.holds_lease() => {
                decision.steps.retain(|step| !matches!(step, Step::Begin(Task::Stop(_))));
            }
            _ => {}
        }
    }
}

//! What must hold in the world whatever happens; looked at after every event.

use std::time::Duration;

use config::NodeName;
use coordinator::{Decision, Process, Step, Task, Unfinished};
use dcs::Initialize;

use super::World;

/// A turn that repeats a step more often than this within a minute goes in circles.
const OFTEN: usize = 50;
/// How long two servers may take writes side by side while one of them is being stopped.
const OVERLAP: Duration = Duration::from_secs(1);

impl World {
    /// The state of the world.
    pub(super) fn check(&mut self) {
        self.one_writer();
        self.nothing_promised_is_lost();
        let toxic: Vec<NodeName> = self
            .nodes
            .values()
            .filter(|node| node.server.process == Process::Postmaster)
            .filter(|node| node.server.dir.as_ref().is_some_and(|dir| dir.marker == Some(Unfinished::Rewind)))
            .map(|node| node.name.clone())
            .collect();
        for name in toxic {
            self.broken(format!("{name} runs on a directory that an interrupted rewind left unusable"));
        }
        let mut identities = self.store.identities.clone();
        identities.dedup();
        if identities.len() > 1 {
            self.broken(format!("initialize was rewritten with another identity: {identities:?}"));
        }
    }

    /// At most one node writes under a valid lease, and two that write at all are soon one.
    fn one_writer(&mut self) {
        let now = self.now;
        let writers: Vec<_> = self
            .nodes
            .values()
            .filter(|node| node.server.writable())
            .filter_map(|node| Some((&node.name, node.daemon.as_ref()?)))
            .filter(|(_, daemon)| daemon.view.is_some() && !daemon.settings.pause)
            .collect();
        let leading = writers.iter().filter(|(_, daemon)| daemon.leads(now)).count();
        let names: Vec<String> = writers.iter().map(|(name, _)| name.to_string()).collect();
        if leading > 1 {
            self.broken(format!("{} take writes under valid leases", names.join(" and ")));
        }
        if names.len() < 2 {
            self.both_since = None;
            return;
        }
        let since = *self.both_since.get_or_insert(now);
        if now.since(since) > OVERLAP {
            self.broken(format!("{} took writes side by side for too long", names.join(" and ")));
        }
    }

    /// What a turn may ask for.
    pub(super) fn check_turn(&mut self, name: &NodeName, decision: &Decision) {
        let now = self.now;
        let mut circles = Vec::new();
        for step in &decision.steps {
            let asks = matches!(step, Step::Ask(_) | Step::SeekLeave(_) | Step::GoOn { .. });
            let often = if asks { OFTEN * 20 } else { OFTEN };
            let daemon = self.daemon(name);
            let taken = daemon.taken.entry(step.to_string()).or_default();
            taken.retain(|at| now.since(*at) < Duration::from_secs(60));
            taken.push(now);
            if taken.len() > often {
                circles.push(format!("{name} goes in circles: {step} ({})", decision.because));
                taken.clear();
            }
        }
        for what in circles {
            self.broken(what);
        }
    }

    /// What may begin.
    pub(super) fn check_begin(&mut self, name: &NodeName, task: &Task) {
        let (now, node) = (self.now, &self.nodes[name]);
        let Some(daemon) = &node.daemon else { return };
        let epoch = match task {
            Task::Promote { epoch, .. } | Task::RestartInPlace { epoch } | Task::FirstStart { epoch } => {
                Some(*epoch)
            }
            _ => None,
        };
        let held = daemon.held.filter(|held| now < held.soft);
        let wrong = epoch.is_some_and(|epoch| held.is_none_or(|held| held.epoch != epoch));
        let restart = matches!(task, Task::Restart { standby: None, .. });
        if wrong || (restart && held.is_none() && !daemon.settings.pause) {
            self.broken(format!("{name} begins {task} without the lease"));
        }
        let node = &self.nodes[name];
        let (full, runs) = (node.server.dir.is_some(), node.server.process != Process::Gone);
        let fresh = matches!(task, Task::Initdb | Task::Clone { .. });
        if fresh && full {
            self.broken(format!("{name} begins {task} over data"));
        }
        let offline = fresh || matches!(task, Task::Rewind { .. } | Task::RecoverCrash | Task::Retire { .. });
        if offline && runs {
            self.broken(format!("{name} begins {task} under a running server"));
        }
        if matches!(task, Task::Initdb) && matches!(self.store.initialize, Initialize::Done(_)) {
            self.broken(format!("{name} creates a cluster that exists"));
        }
    }

    /// Why the cluster is not whole yet: one leader that takes writes, everybody else streaming.
    pub fn unwell(&self) -> Option<String> {
        let Some(leader) = &self.store.leader else { return Some("nobody holds the lease".into()) };
        let Some(node) = self.nodes.get(&leader.name) else { return Some("a stranger leads".into()) };
        if !node.server.writable() || !node.server.answers() {
            return Some(format!("{} leads and takes no writes", leader.name));
        }
        for other in self.nodes.values().filter(|other| other.name != leader.name) {
            let Some(daemon) = &other.daemon else { continue };
            let quarantined = daemon.last.starts_with("cannot rejoin");
            if !other.server.streaming && !quarantined {
                return Some(format!("{} does not stream: {}", other.name, daemon.last));
            }
        }
        None
    }

    /// Ends all faults; from then on the cluster must come together within `bound`.
    pub fn converge(&mut self, bound: Duration) {
        self.end_faults();
        let mut left = bound;
        let step = Duration::from_millis(500);
        while let Some(why) = self.unwell() {
            if left.is_zero() {
                self.broken(format!("the cluster has not come together within {} s: {why}", bound.as_secs()));
                return;
            }
            left = left.saturating_sub(step);
            self.run(step);
        }
        // It must also stay so.
        self.run(Duration::from_secs(20));
        if let Some(why) = self.unwell() {
            self.broken(format!("the cluster came together and fell apart again: {why}"));
        }
    }
}

//! What must hold in the world whatever happens; looked at after every event.

use std::time::Duration;

use config::NodeName;
use coordinator::{Process, Reason, Step, Task, Unfinished};
use dcs::Initialize;

use super::World;
use super::node::Node;

/// A turn that repeats a step more often than this within a minute goes in circles.
const OFTEN: usize = 50;
/// How long two servers may take writes side by side while one of them is being stopped.
const OVERLAP: Duration = Duration::from_secs(1);

/// How long people look on before they help a cluster that asks for it.
const PEOPLE: Duration = Duration::from_secs(60);

impl World {
    /// The state of the world.
    pub(super) fn check(&mut self) {
        for node in self.nodes.values_mut() {
            let unwatched = node.server.unwatched || node.knows_no_promise();
            node.server.unwatched = unwatched && node.server.writable();
        }
        self.one_writer();
        self.nothing_promised_is_lost();
        self.no_toxic_directory_runs();
        if self.store.identities.len() < 2 {
            return;
        }
        let mut identities = self.store.identities.clone();
        identities.dedup();
        if identities.len() > 1 {
            self.broken(format!("initialize was rewritten with another identity: {identities:?}"));
        }
    }

    fn no_toxic_directory_runs(&mut self) {
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
    }

    /// At most one node writes under a valid lease, and two that write at all are soon one.
    fn one_writer(&mut self) {
        if self.nodes.values().filter(|node| node.server.writable()).count() < 2 {
            self.both_since = None;
            return;
        }
        let writers: Vec<_> = self
            .nodes
            .values()
            .filter(|node| node.server.writable() && node.stopped.host.is_none() && !node.is_unfenced())
            .filter_map(|node| Some((&node.name, node.daemon.as_ref()?, node.clock.shows(self.now))))
            .filter(|(_, daemon, _)| daemon.view.is_some() && !daemon.settings.pause)
            .collect();
        let leading = writers.iter().filter(|(_, daemon, local)| daemon.leads(*local)).count();
        let names: Vec<String> = writers.iter().map(|(name, ..)| name.to_string()).collect();
        if leading > 1 && !self.excused() {
            self.broken(format!("{} take writes under valid leases", names.join(" and ")));
        }
        if names.len() < 2 {
            self.both_since = None;
            return;
        }
        let now = self.now;
        let since = *self.both_since.get_or_insert(now);
        if now.since(since) > OVERLAP && !self.excused() {
            self.broken(format!("{} took writes side by side for too long", names.join(" and ")));
        }
    }

    /// A step that was taken, or failed: the same one again and again is a circle. What fails is tried five times a
    /// second.
    pub(super) fn check_step(&mut self, name: &NodeName, step: &Step, failed: bool) {
        let asks =
            matches!(step, Step::Ask(_) | Step::ReadLineage(_) | Step::SeekLeave(_) | Step::GoOn { .. });
        let often = if failed || asks { OFTEN * 20 } else { OFTEN };
        let now = self.now;
        // Who sees everything late does some of it twice.
        if !self.store.watch_delay.is_zero() {
            return;
        }
        let Some(daemon) = &mut self.node(name).daemon else { return };
        let taken =
            daemon.taken.entry(format!("{step}{}", if failed { " in vain" } else { "" })).or_default();
        taken.retain(|at| now.since(*at) < Duration::from_secs(60));
        taken.push(now);
        if taken.len() > often {
            taken.clear();
            self.broken(format!("{name} goes in circles: {step}"));
        }
    }

    /// What may begin.
    pub(super) fn check_begin(&mut self, name: &NodeName, task: &Task) {
        let (local, node) = (self.clock(name), &self.nodes[name]);
        let Some(daemon) = &node.daemon else { return };
        let epoch = match task {
            Task::Promote { epoch, .. } | Task::RestartInPlace { epoch, .. } | Task::FirstStart { epoch } => {
                Some(*epoch)
            }
            _ => None,
        };
        let held = daemon.held.filter(|held| local < held.soft);
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
        let starts =
            matches!(task, Task::StartStandby { .. } | Task::RestartInPlace { .. } | Task::FirstStart { .. });
        if (offline || starts) && runs {
            self.broken(format!("{name} begins {task} under a running server"));
        }
        if matches!(task, Task::Initdb) && matches!(self.store.initialize, Initialize::Done(_)) {
            self.broken(format!("{name} creates a cluster that exists"));
        }
    }

    /// Why the cluster is not whole yet: one leader that takes writes, everybody else streaming.
    pub fn unwell(&self) -> Option<String> {
        if let Some(node) = self.nodes.values().find(|node| ends(node)) {
            return Some(format!("the daemon of {} is about to end", node.name));
        }
        let Some(leader) = &self.store.leader else {
            // Only people may write the records again, and every node says so.
            let waits = |node: &Node| {
                let last = node.daemon.as_ref().and_then(|daemon| daemon.last.as_ref());
                let toxic = Reason::ToxicData(Unfinished::Rewind);
                matches!(
                    last,
                    Some(Reason::RecordsLost | Reason::ReplicaWithoutCluster | Reason::MayNotBootstrap)
                ) || last == Some(&toxic)
                    || node.exited.is_some()
            };
            let settled = self.nodes.values().all(waits) && self.store.initialize == Initialize::Absent;
            return if settled { None } else { Some("nobody holds the lease".into()) };
        };
        let Some(node) = self.nodes.get(&leader.name) else { return Some("a stranger leads".into()) };
        if !node.server.writable() || !node.server.answers() {
            return Some(format!("{} leads and takes no writes", leader.name));
        }
        if node.server.closed {
            return Some(format!("{} leads and lets no clients in", leader.name));
        }
        for other in self.nodes.values().filter(|other| other.name != leader.name) {
            let Some(daemon) = &other.daemon else { continue };
            let quarantined = matches!(daemon.last, Some(Reason::CannotRejoin(_)));
            if !other.server.streaming && !quarantined {
                let why = daemon.last.as_ref().map(ToString::to_string).unwrap_or_default();
                return Some(format!("{} does not stream: {why}", other.name));
            }
        }
        None
    }

    /// Where nothing befell a cluster, whoever led still leads (no failover without a cause).
    pub(super) fn keeps_its_leader(&mut self) {
        if self.mints > self.mints_then {
            self.broken("nothing befell the cluster, and somebody was promoted".to_owned());
        }
    }

    /// A switchover that was asked for before and comes soon, if somebody is there to carry it out.
    fn impending(&self) -> Option<String> {
        let asked = &self.store.failover.as_ref()?.value;
        let due: u64 = asked.scheduled_at.as_ref()?.parse().ok()?;
        let now = self.now.0 / 1_000_000_000;
        // One whose time has passed long ago is for a leader that is gone.
        let soon = (now.saturating_sub(5)..now + 60).contains(&due);
        (soon && self.store.leader.is_some()).then(|| "a switchover is still to come".to_owned())
    }

    /// Ends all faults; from then on the cluster must come together within `bound`.
    pub fn converge(&mut self, bound: Duration) {
        self.end_faults();
        let mut ending: Vec<NodeName> =
            self.nodes.values().filter(|node| ends(node)).map(|node| node.name.clone()).collect();
        let mut left = bound;
        let step = Duration::from_millis(500);
        let mut people = self.now + PEOPLE;
        while let Some(why) = self.unwell().or_else(|| self.impending()) {
            if left.is_zero() {
                self.broken(format!("the cluster has not come together within {} s: {why}", bound.as_secs()));
                return;
            }
            left = left.saturating_sub(step);
            self.run(step);
            if self.now >= people {
                self.rescue();
                people = self.now + PEOPLE;
            }
            // Whoever was told to end before all faults ended is started again once it has.
            let over = |name: &mut NodeName| self.nodes[name].daemon.is_none();
            for name in ending.extract_if(.., over).collect::<Vec<_>>() {
                self.start_node(&name);
            }
        }
        // It must also stay so.
        self.run(Duration::from_secs(20));
        if let Some(why) = self.unwell() {
            self.broken(format!("the cluster came together and fell apart again: {why}"));
        }
    }
}

/// Whether its daemon was told to end.
fn ends(node: &Node) -> bool {
    node.daemon.as_ref().is_some_and(|daemon| daemon.ending.is_some())
}

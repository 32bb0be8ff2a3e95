//! Notes which rows of the catalogue of failures a life has been through. Looks on; changes nothing.

use std::time::Duration;

use config::{NodeName, SynchronousMode};
use coordinator::{Decision, Job, Observation, Process, Reason, StopMode, Task};
use dcs::Moment;

use super::World;

impl World {
    /// What a verb is about to do, to a node in the state in which it is.
    pub(super) fn mark_verb(&mut self, words: &[&str]) {
        let name = words.get(1).and_then(|word| NodeName::new(word).ok());
        let node = name.filter(|name| self.nodes.contains_key(name));
        match (words, node) {
            (["kill" | "kill-daemon", ..], Some(name)) => self.mark_death(&name, words[0] == "kill"),
            (["kill-postmaster", ..], Some(name)) if self.nodes[&name].server.promotes.is_some() => {
                self.hit("F05");
            }
            (["kill-fencer", ..], Some(name)) if self.leads(&name) => self.hit("F27"),
            (["start", ..], Some(name)) => self.mark_start(&name),
            (["continue", ..], Some(name)) => self.mark_return(&name),
            (["stop-daemon", ..], Some(name)) if self.nodes[&name].server.promotes.is_some() => {
                self.hit("F50");
            }
            (["partition", ..], Some(name)) if self.leads(&name) => self.hit("F53"),
            (["cut", .., "store"], Some(name)) if self.leads(&name) => self.hit("F54"),
            (["cut", .., "store"], Some(_)) => self.hit("F55"),
            (["cut", one, other], Some(_)) => self.mark_bridge(one, other),
            (["cut-wal", one, other], Some(_)) if [one, other].iter().any(|end| self.leads_named(end)) => {
                self.hit("F56");
            }
            (["cut-rest", ..], Some(_)) => self.hit("F66"),
            (["deafen", from, to], _) => self.mark_deaf(from, to),
            (["wall", ..], Some(_)) => self.hit("F45"),
            (["slew", _, rate], Some(_)) if rate.len() >= 5 => self.hit("F46"),
            (["slack", ..], Some(_)) => self.hit("F58"),
            (["far", ..], Some(_)) => self.hit("F62"),
            (["wipe-store"], _) => self.hit("F73"),
            (["delete-leader-key"], _) => self.hit("F78"),
            (["store", "watches-lag", ..], _) => self.hit("F52"),
            (["store", "late", ..], _) => self.hit("F87"),
            (["overwrite-leader-key", ..], _) => self.hit("F169"),
            (["flap", ..], Some(name)) if self.leads(&name) => self.hit("F64"),
            (["pause-replay", ..], Some(_)) => self.hit("F115"),
            (["crash-on-start", ..], Some(_)) => self.hit("F96"),
            (["restart", ..], Some(name)) if !self.connected(&name) => self.hit("F159"),
            (["fail", _, "promote"], Some(_)) => self.hit("F10"),
            (["resume"], _) if self.store.settings.pause && self.writers() > 1 => self.hit("F152"),
            _ => {}
        }
        if self.cuts.len() + self.kinds.len() + self.deaf.len() >= 3 {
            self.hit("F70");
        }
    }

    fn leads(&self, name: &NodeName) -> bool {
        self.store.leader.as_ref().is_some_and(|leader| leader.name == *name)
    }

    fn leads_named(&self, name: &str) -> bool {
        self.store.leader.as_ref().is_some_and(|leader| leader.name.as_str() == name)
    }

    fn writers(&self) -> usize {
        self.nodes.values().filter(|node| node.server.writable()).count()
    }

    /// A daemon dies, with its host or alone: what was it at?
    fn mark_death(&mut self, name: &NodeName, whole: bool) {
        let node = &self.nodes[name];
        let Some(daemon) = &node.daemon else { return };
        let server = &node.server;
        let task = daemon.job.as_ref().map(|(job, _)| job.task.clone());
        let settled = server.dir.as_ref().is_some_and(|dir| dir.settled);
        let (held, writable, promotes) =
            (daemon.held.is_some(), server.writable(), server.promotes.is_some());
        let compares =
            matches!(daemon.last, Some(Reason::AskOthers | Reason::BestCandidate | Reason::WaitForMembers));
        let down = server.process == Process::Gone;
        let source = self.nodes.values().any(|other| {
            let job = other.daemon.as_ref().and_then(|daemon| daemon.job.as_ref());
            job.is_some_and(|(job, _)| matches!(&job.task, Task::Rewind { from } if from == name))
        });
        let mut rows = Vec::new();
        match task {
            Some(Task::Stop(_)) if writable => rows.push("F11"),
            Some(Task::Rewind { .. }) => rows.push("F15"),
            Some(Task::Clone { .. }) => rows.push("F20"),
            Some(Task::Initdb | Task::FirstStart { .. }) => rows.push("F24"),
            _ => {}
        }
        let at_work = [
            (compares && !held, "F01"),
            (held && !writable && !down && !promotes, "F03"),
            (promotes && !whole, "F04"),
            (promotes && whole, "F05"),
            (writable && !settled, "F06"),
            (writable && !settled, "F08"),
            (writable && settled && !whole, "F07"),
            (held && down, "F12"),
            (source, "F16"),
        ];
        rows.extend(at_work.iter().filter(|(is, _)| *is).map(|(_, row)| *row));
        rows.into_iter().for_each(|row| self.hit(row));
        self.mark_last_two(name);
    }

    /// F135: the leader and its only synchronous standby are gone, and a third node is there.
    fn mark_last_two(&mut self, name: &NodeName) {
        if self.store.settings.synchronous_mode == SynchronousMode::Off {
            return;
        }
        let Some(sync) = self.store.sync.as_ref().map(|sync| sync.value.clone()) else { return };
        let gone = |who: &str| {
            who == name.as_str()
                || self
                    .nodes
                    .iter()
                    .any(|(other, node)| other.as_str() == who && (!node.up || node.daemon.is_none()))
        };
        let all = sync.standbys.iter().map(String::as_str).chain(sync.leader.as_deref()).all(gone);
        let third = self.nodes.iter().any(|(other, node)| {
            other != name
                && node.daemon.is_some()
                && !sync.standbys.iter().any(|standby| standby == other.as_str())
        });
        if all && third && !sync.standbys.is_empty() {
            self.hit("F135");
        }
    }

    fn mark_start(&mut self, name: &NodeName) {
        let node = self.nodes[name].clone();
        if node.daemon.is_some() {
            return;
        }
        let was_primary = node.server.dir.as_ref().is_some_and(|dir| !dir.signal);
        let down = node.server.process == Process::Gone;
        if was_primary && down {
            self.hit("F13");
        }
        if node.server.writable() && self.leads(name) {
            self.hit("F26");
        }
        let empty = |node: &super::node::Node| node.server.dir.is_none();
        if self.nodes.values().all(empty) && matches!(self.store.initialize, dcs::Initialize::Done(_)) {
            self.hit("F145");
        }
    }

    /// What was stopped goes on.
    fn mark_return(&mut self, name: &NodeName) {
        let node = &self.nodes[name];
        let Some(daemon) = &node.daemon else { return };
        let long = |since: Moment| self.now.since(since) > self.store.settings.ttl;
        let led = daemon.held.is_some();
        let rows = [
            (led && node.stopped.daemon.is_some_and(long), "F35"),
            (led && node.stopped.lease.is_some_and(long), "F36"),
            (led && node.stopped.turns.is_some_and(long), "F28"),
            (led && !self.leads(name) && node.stopped.daemon.is_some(), "F51"),
        ];
        rows.iter().filter(|(is, _)| *is).for_each(|(_, row)| self.hit(row));
    }

    /// F59: two cannot hear each other, and both hear a third.
    fn mark_bridge(&mut self, one: &str, other: &str) {
        let third = |node: &NodeName| {
            let third = node.as_str();
            third != one && third != other && self.link(one, third) && self.link(other, third)
        };
        if self.nodes.keys().any(third) {
            self.hit("F59");
        }
    }

    fn mark_deaf(&mut self, from: &str, to: &str) {
        if from == "store" && self.leads_named(to) {
            self.hit("F57");
        }
    }

    /// A turn that has been decided.
    pub(super) fn mark_turn(&mut self, name: &NodeName, seen: &Observation, decision: &Decision) {
        let lost = seen.lease.is_none_or(|held| seen.now >= held.soft);
        let silent = seen.postgres.silent_since.is_some();
        let rows = [
            (silent && lost && seen.may_write() && !seen.settings.pause, "F113"),
            (matches!(decision.because, Reason::HandOverLease { .. }), "F138"),
            (seen.floor.is_some() && !matches!(decision.because, Reason::Busy(_)), "F19"),
            (matches!(decision.because, Reason::StoreAwayStepDown), "F72"),
            (matches!(decision.because, Reason::WrongCluster { .. }), "F89"),
        ];
        for (_, row) in rows.iter().filter(|(is, _)| *is) {
            self.hit(row);
        }
        let behind = self.nodes[name].server.unreplayed > 0;
        if behind && matches!(decision.because, Reason::BestCandidate | Reason::PromoteWithLease) {
            self.hit("F101");
            self.hit("F116");
        }
        if let Reason::CrashRestart { to_recover } = decision.because
            && to_recover > 0
        {
            self.hit("F97");
        }
    }

    /// A job that has ended.
    pub(super) fn mark_job(&mut self, name: &NodeName, job: &Job, failure: Option<&str>) {
        let span = self.clock(name).since(job.since);
        let leader = self.store.leader.as_ref().map(|leader| leader.name.clone());
        match (&job.task, failure) {
            (Task::Rewind { .. }, None) if span > self.store.settings.loop_wait => self.hit("F17"),
            (Task::Clone { from }, _) if leader.as_ref() != Some(from) => self.hit("F21"),
            (Task::Stop(StopMode::Handover | StopMode::Fast), _) if span > Duration::from_secs(5) => {
                self.hit("F110");
            }
            (Task::Promote { epoch, .. }, Some(_))
                if self.store.leader.as_ref().is_none_or(|leader| leader.epoch != *epoch) =>
            {
                self.hit("F67");
            }
            (Task::Promote { .. }, None) => self.mark_twins(name),
            _ => {}
        }
    }

    /// F102, F103: two logs have a timeline of the same number that are not the same, or of the same parent.
    fn mark_twins(&mut self, name: &NodeName) {
        let Some(mine) = self.nodes[name].server.dir.as_ref().map(|dir| dir.wal.clone()) else { return };
        let mut rows = Vec::new();
        for node in self.nodes.values().filter(|node| node.name != *name) {
            let Some(theirs) = node.server.dir.as_ref().map(|dir| &dir.wal) else { continue };
            let apart = mine.branches.iter().zip(&theirs.branches).find(|(one, other)| one != other);
            match apart {
                Some((one, other)) if one.timeline == other.timeline => rows.push("F103"),
                Some(_) => rows.push("F102"),
                None => {}
            }
        }
        rows.into_iter().for_each(|row| self.hit(row));
    }
}

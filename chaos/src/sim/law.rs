//! What clients were told, and the laws about it: one reign writes at a time (S2), and what was promised is never
//! missing (S1).

use std::time::Duration;

use config::{NodeName, SynchronousMode};
use dcs::{Epoch, Lsn, Moment, Timeline};

use super::World;
use super::chance::Stream;
use super::network::Kind;
use super::node::Node;
use super::planted::Fault;
use super::server::Wal;

/// Commits of one client that wait; it sends no more before one of them is answered.
const PATIENT: usize = 4;

/// What clients were told.
#[derive(Debug, Default)]
pub struct Ledger {
    /// The longest logs that hold all that was acknowledged.
    pub acknowledged: Vec<Wal>,
    /// Those of them that must never be lost.
    pub promised: Vec<Wal>,
    /// An operator accepts a loss.
    pub losing: bool,
    /// The newest reign that acknowledged a write.
    newest: Option<(Epoch, NodeName)>,
    /// Until then an older reign may still acknowledge writes: an assumption of the lease was broken on purpose.
    excused: Option<Moment>,
    /// The store lost its records, and with them what was claimed.
    pub forgot: bool,
    /// The store has old records again; the highest timeline that was claimed before.
    pub restored: Option<Timeline>,
    /// Who leads by them and could not know better.
    ignorant: Option<NodeName>,
    /// Commits that clients were told of.
    pub commits: u64,
    /// Those that an older reign told of while it was excused.
    pub late: u64,
}

impl Ledger {
    /// Whether a node may acknowledge writes in an earlier reign than this other, for all that it can know.
    fn is_its_own(&self, name: &NodeName, other: &NodeName) -> bool {
        self.restored.is_some() && (name == other || self.ignorant.as_ref() == Some(name))
    }
}

/// Adds a log, and drops what is part of it.
pub fn keep(logs: &mut Vec<Wal>, log: &Wal) {
    logs.retain(|known| !known.is_part_of(log));
    logs.push(log.clone());
}

impl World {
    /// A commit is acknowledged: never after one of a later reign.
    pub(super) fn told(&mut self, name: &NodeName, log: &Wal, promises: bool) {
        self.law.commits += 1;
        keep(&mut self.law.acknowledged, log);
        if promises && !self.store.settings.pause {
            keep(&mut self.law.promised, log);
        }
        let Some(reign) = self.nodes[name].server.reign.filter(|_| !self.store.settings.pause) else {
            return;
        };
        let unwatched = self.nodes[name].knows_no_promise() || self.nodes[name].server.unwatched;
        match &self.law.newest {
            // By a store that has old records again: its own reign of before, or one that it could not know to be over.
            Some((newest, who)) if *newest > reign && self.law.is_its_own(name, who) => {}
            Some((newest, _)) if *newest > reign && (self.excused() || unwatched) => {
                self.law.late += 1;
            }
            Some((newest, _)) if *newest > reign => {
                let newest = newest.0;
                self.broken(format!(
                    "{name} acknowledged a write of reign {} after one of reign {newest}",
                    reign.0
                ));
            }
            _ => self.law.newest = Some((reign, name.clone())),
        }
    }

    /// An assumption of the lease is broken on purpose: for so long an older reign may go on (reliability 6.6).
    pub(super) fn excuse(&mut self, span: Duration) {
        let until = self.now + span;
        self.law.excused = Some(self.law.excused.map_or(until, |before| before.max(until)));
    }

    /// Who leads by old records, was away when later ones were written, and reaches nobody who was there, cannot know: what
    /// it lacks is lost.
    pub(super) fn ignorance(&mut self, name: &NodeName) {
        let Some(claimed) = self.law.restored.filter(|claimed| self.nodes[name].known.timeline < *claimed)
        else {
            return;
        };
        let tells = |other: &&Node| {
            let awake =
                other.daemon.is_some() && other.stopped.daemon.is_none() && other.stopped.host.is_none();
            awake && other.known.timeline >= claimed && self.passes(Kind::Rest, name, &other.name)
        };
        if self.nodes.values().any(|other| tells(&other)) {
            return;
        }
        if let Some(dir) = &self.nodes[name].server.dir {
            let wal = dir.wal.clone();
            self.law.promised.retain(|written| written.is_part_of(&wal));
        }
        self.law.ignorant = Some(name.clone());
    }

    /// Whether an assumption of the lease has just been broken on purpose.
    pub(super) fn excused(&self) -> bool {
        self.store.settings.pause || self.law.excused.is_some_and(|until| self.now <= until)
    }

    /// Clients write wherever somebody takes writes.
    pub(super) fn clients(&mut self) {
        if self.clients_due.is_none_or(|due| due > self.now) {
            return;
        }
        self.clients_due =
            Some(self.now + Duration::from_millis(100 + self.chances.roll(Stream::Clients, 400)));
        for name in self.names().iter() {
            let node = &self.nodes[name];
            let server = &node.server;
            let open = server.writable() && server.answers() && !server.closed && node.stopped.host.is_none();
            if !open || server.waiting.len() >= PATIENT {
                continue;
            }
            let bytes = 1 + self.chances.roll(Stream::Clients, 0x20);
            if let Some(dir) = &mut self.node(name).server.dir {
                dir.wal.end += bytes;
                let wal = dir.wal.clone();
                self.commit(name, wal);
            }
        }
    }

    /// Whoever leads and takes writes has every commit that was acknowledged while the mode was on, unless an operator
    /// accepted the loss.
    pub(super) fn nothing_promised_is_lost(&mut self) {
        let settings = &self.store.settings;
        // In pause people decide, and the promises rest.
        if settings.pause || settings.synchronous_mode == SynchronousMode::Off || self.store.sync.is_none() {
            self.law.promised.clear();
        }
        if self.law.promised.is_empty() && !self.law.losing {
            return;
        }
        // A key that somebody else wrote for it makes no leader.
        let leading = self.nodes.values().find(|node| {
            let epoch = node.daemon.as_ref().and_then(|daemon| daemon.held).map(|held| held.epoch);
            node.server.writable()
                && node.daemon.as_ref().is_some_and(|daemon| daemon.leads(node.clock.shows(self.now)))
                && self.store.leader.as_ref().is_some_and(|leader| Some(leader.epoch) == epoch)
        });
        let Some(node) = leading else { return };
        let Some(wal) = node.server.dir.as_ref().map(|dir| dir.wal.clone()) else { return };
        let (name, asked) = (node.name.clone(), self.store.failover.is_some());
        if self.law.losing {
            let taken = self.store.sync.as_ref().and_then(|sync| sync.value.leader.clone());
            if !asked && taken.as_deref() == Some(name.as_str()) {
                self.law.losing = false;
                self.law.promised.retain(|written| written.is_part_of(&wal));
            }
            return;
        }
        if let Some(lost) = self.law.promised.iter().find(|written| !written.is_part_of(&wal)) {
            let at = Lsn(lost.end);
            self.broken(format!("{name} takes writes and lacks a commit at {at} that was acknowledged"));
        }
    }

    /// What is lost when a candidate takes over without synchronous standbys is bounded by the setting (S3): it may not
    /// have been further behind the last published position.
    pub(super) fn loss_is_bounded(&mut self, name: &NodeName) {
        let settings = &self.store.settings;
        let Some(dir) = &self.nodes[name].server.dir else { return };
        let bound = dir.wal.end.saturating_add(settings.maximum_lag_on_failover);
        let published = self.store.status.optime.unwrap_or_default();
        if published.0 > bound && self.store.failover.is_none() && !self.law.losing && !self.excused() {
            self.broken(format!(
                "{name} is promoted at {}, the last leader had published {published}: more than maximum_lag_on_failover",
                Lsn(dir.wal.end)
            ));
        }
    }

    /// Before a directory is moved away: what was promised is in another one too (S4).
    pub(super) fn leaves_a_copy(&mut self, name: &NodeName) {
        let elsewhere = |log: &&Wal| {
            let mut others = self.nodes.values().filter(|node| node.name != *name);
            others.any(|node| node.server.dir.as_ref().is_some_and(|dir| log.is_part_of(&dir.wal)))
        };
        let here = self.nodes[name].server.dir.as_ref().map(|dir| &dir.wal);
        let mut held = self.law.promised.iter().filter(|log| here.is_some_and(|wal| log.is_part_of(wal)));
        if let Some(end) = held.find(|log| !elsewhere(log)).map(|log| log.end).filter(|_| !self.law.losing) {
            self.broken(format!("{name} gives up the last copy of an acknowledged commit at {}", Lsn(end)));
        }
    }

    /// Whether a fault is planted that keeps commits from waiting.
    pub(super) fn nobody_waits(&self) -> bool {
        self.planted == Some(Fault::NobodyWaits)
    }
}

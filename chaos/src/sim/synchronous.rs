//! Simulated synchronous replication: the record in the store, the list in the server, commits that wait, and the law
//! that none of those which were acknowledged is ever missing.

use std::time::Duration;

use config::{NodeName, SynchronousMode};
use coordinator::slots::slot_name;
use coordinator::sync::{names, resolver::Wait};
use coordinator::{Sender, Step, SyncWrites};
use dcs::{Lsn, Revision, SyncState, Versioned};

use super::World;
use super::planted::Fault;
use super::server::Wal;
use super::verbs::Done;

/// How long some process of a server works by an old list.
const STRAGGLER: Duration = Duration::from_millis(1500);

/// The sender process that serves a stranger.
pub const STRANGER: i32 = 999;

impl World {
    /// Who streams from a node.
    pub(super) fn senders(&self, name: &NodeName) -> Vec<Sender> {
        let of = |(pid, node): (usize, &super::node::Node)| {
            let server = &node.server;
            let from = server.upstream.as_ref().is_some_and(|upstream| upstream.member == *name);
            let end = server.dir.as_ref().map(|dir| Lsn(dir.wal.end.saturating_sub(server.slack)));
            (server.streaming && from && node.stopped.host.is_none()).then(|| Sender {
                pid: i32::try_from(pid).unwrap_or_default(),
                name: node.name.to_string(),
                streaming: true,
                flushed: end,
                slot: Some(slot_name(node.name.as_str())),
            })
        };
        let mut senders: Vec<Sender> = self.nodes.values().enumerate().filter_map(of).collect();
        if let Some(stranger) = &self.nodes[name].server.stranger {
            let flushed = self.nodes[name].server.dir.as_ref().map(|dir| Lsn(dir.wal.end));
            let name = stranger.clone();
            senders.push(Sender { pid: STRANGER, name, streaming: true, flushed, slot: None });
        }
        senders
    }

    /// What a planted fault keeps a replica from knowing.
    pub(super) fn forget(&self, seen: &mut coordinator::Observation) {
        let fault = self.planted.filter(|_| !self.quiet && !seen.is_primary());
        let forgets = matches!(fault, Some(Fault::RecordForgotten | Fault::QuorumForgotten));
        if let Some(view) = seen.store.view.as_mut().filter(|_| forgets) {
            let view = std::sync::Arc::make_mut(view);
            match (fault, &mut view.sync) {
                (Some(Fault::QuorumForgotten), Some(sync)) => sync.value.quorum = 0,
                _ => view.sync = None,
            }
        }
    }

    /// Steps about the record and the list.
    pub(super) fn synchronous(&mut self, name: &NodeName, step: &Step) -> Result<(), String> {
        if let Step::SetNames(text) = step {
            let now = self.now;
            let server = &mut self.node(name).server;
            let old = std::mem::replace(&mut server.names, text.clone());
            server.by_hand = false;
            server.stragglers.push((now + STRAGGLER, old));
            self.soon(name);
            return Ok(());
        }
        let asked = self.asks(name, true);
        if asked.is_err() && self.chances.are_there() {
            self.doubt(name);
        }
        let (known, before) = (asked?, self.daemon(name).sync);
        let found = self.store.sync.as_ref().map(|sync| sync.revision);
        match step {
            Step::WriteSync { sync, guard } if found == *guard => {
                let revision = self.store.commit();
                self.store.sync = Some(Versioned { value: sync.clone(), revision });
                self.daemon(name).sync = SyncWrites { written: Some(revision), ..SyncWrites::default() };
            }
            Step::DeleteSync { guard } if found == Some(*guard) => {
                self.store.sync = None;
                let revision = self.store.commit();
                self.daemon(name).sync = SyncWrites { written: Some(revision), ..SyncWrites::default() };
            }
            Step::WriteSync { guard, .. } => return self.refuse(name, guard.unwrap_or_default()),
            Step::DeleteSync { guard } => return self.refuse(name, *guard),
            _ => return Err("no step about the record".to_owned()),
        }
        if !known {
            // Nobody tells it that it was done.
            self.daemon(name).sync = before;
            self.doubt(name);
            return Err("the store did not answer in time".to_owned());
        }
        Ok(())
    }

    /// What a standby is started with, and so what it is promoted with.
    pub(super) fn standby_list(&mut self, name: &NodeName) {
        let settings = self.store.settings.clone();
        let server = &mut self.node(name).server;
        server.names = names::of_standby(&settings).unwrap_or_default();
        server.stragglers.clear();
        server.waiting.clear();
    }

    /// The record is not the one that the node saw.
    fn refuse(&mut self, name: &NodeName, guard: Revision) -> Result<(), String> {
        let sync = &mut self.daemon(name).sync;
        (sync.doubtful, sync.refused) = (false, Some(guard));
        Err("somebody else changed the record".to_owned())
    }

    /// How the last write of the record ended is not known.
    fn doubt(&mut self, name: &NodeName) {
        self.daemon(name).sync.doubtful = true;
    }

    /// Ends a sender that serves a stranger.
    pub(super) fn evict(&mut self, name: &NodeName, pids: &[i32]) {
        if pids.contains(&STRANGER) {
            self.node(name).server.stranger = None;
            self.hit("F133");
        }
    }

    /// A commit is written here; the client hears of it when enough standbys have it.
    pub(super) fn commit(&mut self, name: &NodeName, wal: Wal) {
        self.node(name).server.waiting.push(wal);
        self.pump();
        self.acknowledge();
    }

    /// Commits whose wait is over, by any list that some process may still work by.
    pub(super) fn acknowledge(&mut self) {
        if self.nodes.values().all(|node| node.server.waiting.is_empty()) {
            return;
        }
        let now = self.now;
        for name in self.names().iter() {
            self.node(name).server.stragglers.retain(|(until, _)| *until > now);
            let server = &self.nodes[name].server;
            if server.waiting.is_empty() || !server.writable() || self.nodes[name].stopped.host.is_some() {
                continue;
            }
            let ignored = self.nobody_waits();
            let lists: Vec<Wait<String>> = server
                .stragglers
                .iter()
                .map(|(_, text)| text)
                .chain([&server.names])
                .map(|text| if ignored { Wait::Nobody } else { names::read(text) })
                .collect();
            let senders = self.senders(name);
            let has = |standby: &String, wal: &Wal, strangers: bool| {
                senders
                    .iter()
                    .filter(|sender| strangers || sender.pid != STRANGER)
                    .any(|sender| sender.is_for(standby) && sender.flushed >= Some(Lsn(wal.end)))
            };
            let enough = |wal: &Wal, strangers: bool| {
                lists.iter().any(|list| match list {
                    Wait::Nobody | Wait::Foreign => true,
                    Wait::Forever => false,
                    Wait::For { names, count } => {
                        names.iter().filter(|standby| has(standby, wal, strangers)).count() >= *count
                    }
                })
            };
            let (done, waiting) = server.waiting.clone().into_iter().partition(|wal| enough(wal, true));
            let done: Vec<Wal> = done;
            // What only a stranger has acknowledged, in the moment before it is ended, is not kept (F133), nor what a list of
            // somebody's own let pass before the record could follow (F132).
            let kept: Vec<bool> = done.iter().map(|wal| enough(wal, false) && !server.by_hand).collect();
            self.node(name).server.waiting = waiting;
            let promises = self.store.settings.synchronous_mode != SynchronousMode::Off
                && self
                    .store
                    .sync
                    .as_ref()
                    .is_some_and(|sync| sync.value.leader.as_deref() == Some(name.as_str()));
            for (log, kept) in done.iter().zip(kept) {
                self.told(name, log, promises && kept);
            }
        }
    }

    /// `set synchronous_mode=on|off|quorum` and what goes with it.
    pub(super) fn synchronous_setting(&mut self, key: &str, value: &str) -> Done {
        let settings = std::sync::Arc::make_mut(&mut self.store.settings);
        match (key, value) {
            ("synchronous_mode", "on") => settings.synchronous_mode = SynchronousMode::On,
            ("synchronous_mode", "quorum") => settings.synchronous_mode = SynchronousMode::Quorum,
            ("synchronous_mode", "off") => settings.synchronous_mode = SynchronousMode::Off,
            ("synchronous_mode_strict", _) => settings.synchronous_mode_strict = value == "true",
            ("maximum_lag_on_syncnode", _) => {
                settings.maximum_lag_on_syncnode = Some(super::script::position(value)?);
            }
            ("synchronous_node_count", _) => {
                settings.synchronous_node_count = value.parse().map_err(|_| "no number".to_owned())?;
            }
            _ => return Err("unknown setting".into()),
        }
        Ok(())
    }

    /// `expect sync n2 n3`, `expect sync nobody`: the record's standbys.
    pub(super) fn synchronous_are(&self, wanted: &[&str]) -> bool {
        let found: Vec<String> = match &self.store.sync {
            Some(Versioned { value: SyncState { standbys, .. }, .. }) => standbys.iter().cloned().collect(),
            None => return wanted == ["none"],
        };
        if found.is_empty() { wanted == ["nobody"] } else { found == wanted }
    }
}

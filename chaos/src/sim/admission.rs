//! Simulated admission: a server that was started closed lets no clients in, and what they can read at the moment it
//! opens counts as promised (S6).

use config::{NodeName, SynchronousMode};
use dcs::Epoch;

use super::World;
use super::law::keep;
use super::server::Wal;

impl World {
    /// A server starts again where it crashed.
    pub(super) fn starts_in_place(&mut self, name: &NodeName, epoch: Epoch, closed: bool) {
        let server = &mut self.node(name).server;
        server.start(true, None);
        (server.reign, server.closed, server.unread) = (Some(epoch), closed, None);
        let Some(log) = server.dir.as_ref().map(|dir| dir.wal.clone()) else { return };
        if !closed {
            self.lets_in(name, &log);
            return;
        }
        let mut others = self.nodes.values().filter(|node| node.name != *name);
        if !others.any(|node| node.server.dir.as_ref().is_some_and(|dir| log.is_part_of(&dir.wal))) {
            self.hit("F122");
        }
    }

    /// A server is about to be stopped, to be started again at once.
    pub(super) fn keeps_unread(&mut self, name: &NodeName) {
        let server = &mut self.node(name).server;
        server.unread =
            server.dir.as_ref().filter(|_| server.closed && server.writable()).map(|dir| dir.wal.clone());
    }

    /// It is started again.
    pub(super) fn starts_again(&mut self, name: &NodeName, reign: Option<Epoch>, closed: bool) {
        let server = &mut self.node(name).server;
        server.start(true, None);
        (server.reign, server.closed) = (reign, closed);
        if let Some(log) = server.unread.take().filter(|_| !closed) {
            self.lets_in(name, &log);
        }
    }

    /// Clients can read this log from now on.
    fn lets_in(&mut self, name: &NodeName, log: &Wal) {
        let strict = |settings: &config::ClusterConfig| {
            settings.synchronous_mode != SynchronousMode::Off
                && settings.synchronous_mode_strict
                && !settings.pause
        };
        let known = self.nodes[name].daemon.as_ref().is_some_and(|daemon| strict(&daemon.settings));
        let mine = self.store.sync.as_ref().and_then(|sync| sync.value.leader.as_deref());
        if known && strict(&self.store.settings) && mine == Some(name.as_str()) {
            keep(&mut self.law.promised, log);
        }
    }
}

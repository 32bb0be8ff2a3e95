//! Simulated streaming: who streams from whom, and what is on its way.

use std::time::Duration;

use config::NodeName;
use coordinator::Process;
use dcs::Lsn;

use super::World;
use super::chance::Stream;
use super::network::Kind;
use super::server;

impl World {
    /// Replication: what is on its way arrives; without chance, nothing is ever on its way.
    pub(crate) fn pump(&mut self) {
        self.replicate(!self.chances.are_there());
    }

    /// Every standby that can stream has all that its upstream has.
    pub(crate) fn pump_all(&mut self) {
        self.replicate(true);
    }

    fn replicate(&mut self, all: bool) {
        // Twice, so that what cascades arrives too.
        for _ in 0..if all { 2 } else { 1 } {
            for name in self.names().iter() {
                self.stream(name, all);
            }
        }
    }

    /// Where a standby streams from, and the log there.
    fn source_of(&self, name: &NodeName) -> Option<(&NodeName, &server::Wal)> {
        let node = &self.nodes[name];
        let server = &node.server;
        let able = node.up && server.process == Process::Postmaster && !server.primary && !server.frozen;
        let from = &server.upstream.as_ref().filter(|_| able)?.member;
        if from == name || !self.passes(Kind::Wal, name, from) {
            return None;
        }
        let (from, node) = self.nodes.get_key_value(from)?;
        let open = node.server.process == Process::Postmaster;
        Some((from, &node.server.dir.as_ref().filter(|_| open)?.wal))
    }

    fn stream(&mut self, name: &NodeName, all: bool) {
        let mine = self.nodes[name].server.dir.as_ref().map(|dir| &dir.wal);
        let (Some((from, theirs)), Some(mine)) = (self.source_of(name), mine) else {
            let server = &mut self.node(name).server;
            (server.streaming, server.arrives) = (false, None);
            return;
        };
        if mine == theirs {
            let server = &mut self.node(name).server;
            (server.streaming, server.arrives) = (true, None);
            self.arrived(name, None);
            return;
        }
        // As Postgres does: by number only.
        let (own, leads) = (mine.timeline(), theirs.timeline());
        let possible = if own == leads {
            mine.end <= theirs.end
        } else {
            theirs.switches().iter().any(|(past, at)| *past == own && Lsn(mine.end) <= *at)
        };
        let twins = possible && !mine.is_part_of(theirs);
        let unwatched = self.nodes[name].stopped.daemon.is_some() || self.nodes[name].daemon.is_none();
        if twins && !(self.law.forgot && (unwatched || mine.is_like(theirs))) {
            let from = from.clone();
            self.broken(format!("{name} streams from {from}, and their histories are not the same"));
        }
        self.node(name).server.streaming = possible;
        if !possible {
            self.node(name).server.arrives = None;
            return;
        }
        let (now, far) = (self.now, self.nodes[name].far);
        if !all && self.nodes[name].server.arrives.is_none() {
            let due = now + Duration::from_millis(1 + self.chances.roll(Stream::Net, 30)) + far;
            self.node(name).server.arrives = Some(due);
        }
        if all || self.node(name).server.arrives.take_if(|due| *due <= now).is_some() {
            let theirs = self.source_of(name).map(|(_, theirs)| theirs.clone());
            self.arrived(name, theirs);
        }
    }

    /// A standby has all of this log.
    fn arrived(&mut self, name: &NodeName, log: Option<server::Wal>) {
        let server = &mut self.node(name).server;
        if server.torn && server.hung.take().is_some() {
            server.torn = false;
        }
        let Some(dir) = &mut server.dir else { return };
        if let Some(log) = log {
            dir.wal = log;
            server.torn = false;
        }
        if dir.floor.is_some_and(|floor| Lsn(dir.wal.end) >= floor) {
            dir.floor = None;
        }
    }
}

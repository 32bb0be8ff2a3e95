//! What goes on by itself: time, replication, writes and their acknowledgement.

use super::Model;
use super::act::LEASE;
use super::canon::stamps;
use super::moment::NOW;
use super::planted::Fault;
use super::state::{Law, NODES, Names, Process, State};

impl Model {
    pub(super) fn tick(&self, next: &mut State) {
        let believed = self.planted == Some(Fault::LeaseForEver);
        let asleep = believed || self.planted == Some(Fault::FencerAsleep);
        let Some(records) = Some(next.store.records) else { return };
        let mut renewed = false;
        for at in 0..NODES {
            let connected = next.connected(at);
            let host = next.node_mut(at);
            stamps(host, &mut |stamp, long| *stamp = stamp.aged(long));
            host.server.stale = [None; 2];
            if let Some(age) = &mut host.server.fence {
                *age = (*age + 1).min(LEASE);
            }
            let mut alive = false;
            if let Some(daemon) = &mut host.daemon {
                alive = !daemon.frozen && connected;
                // Old answers count as none: whoever needs one asks again.
                daemon.peers = [None; NODES];
                if let Some(setback) = &mut daemon.memory.setback {
                    setback.hot = false;
                }
                if let Some(held) = &mut daemon.held {
                    let ours = records
                        .leader
                        .is_some_and(|key| usize::from(key.node) == at && key.epoch == held.epoch);
                    // What was not renewed in time is not renewed any more: it is left to run out.
                    if (alive && ours && held.age < 2) || believed {
                        held.age = 0;
                        host.server.fence = host.server.fence.map(|_| 0);
                        renewed |= ours && alive;
                    } else {
                        held.age = if alive { held.age.max(1) + 1 } else { held.age + 1 };
                    }
                }
                daemon.held = daemon.held.filter(|held| held.age < LEASE);
            }
            if host.server.fence == Some(LEASE) && !asleep {
                host.server.crash(Process::Gone);
                (host.server.process, host.server.crashed) = (Process::Gone, Some(NOW));
            }
            if let Some(age) = next.store.member_age.get_mut(at) {
                *age = if alive { 0 } else { (*age + 1).min(LEASE) };
                if *age == LEASE
                    && let Some(record) = next.store.records.members.get_mut(at)
                    && record.take().is_some()
                {
                    next.store.records.revision += 1;
                }
            }
        }
        next.store.leader_age = if renewed { 0 } else { (next.store.leader_age + 1).min(LEASE) };
        if next.store.records.leader.is_none() {
            next.store.leader_age = 0;
        }
    }

    /// A standby receives the next record of whom it follows.
    pub(super) fn replicate(&self, next: &mut State, at: usize) {
        let Some(from) = next.streams(at) else { return };
        let (theirs, mine) = (next.node(from).server, next.node(at).server);
        if next.common((mine.mint, mine.end), (theirs.mint, theirs.end)) < mine.end {
            next.breaks(Law::History);
        }
        let position = mine.end + 1;
        let mint = next.mint_at(theirs.mint, position);
        let server = next.server(at);
        (server.mint, server.end) = (mint, position);
        server.settled |= server.mint == theirs.mint && theirs.settled;
    }

    pub(super) fn write(&self, next: &mut State, at: usize) {
        next.left.writes -= 1;
        let waits = self.synchronous();
        let server = next.server(at);
        server.end += 1;
        if waits {
            server.waiting |= 1 << server.end;
        }
    }

    /// Tells clients of the commits whose wait is over, by any list that some process may still work by.
    pub(super) fn acknowledge(&self, next: &mut State) {
        for at in 0..NODES {
            let server = next.node(at).server;
            if server.waiting == 0 || !server.writable() {
                continue;
            }
            let ignored = self.planted == Some(Fault::NobodyWaits);
            let has = |position: u8| {
                (0..NODES).filter(|other| next.streams(*other) == Some(at)).fold(0_u8, |mask, other| {
                    mask | u8::from(next.node(other).server.end >= position) << other
                })
            };
            let enough = |position: u8| {
                server.stale.iter().flatten().chain([&server.names]).any(|list| match list {
                    _ if ignored => true,
                    Names::Nobody => true,
                    Names::Forever { .. } => false,
                    Names::For { mask, count, .. } => {
                        (mask & has(position)).count_ones() >= u32::from(*count)
                    }
                })
            };
            let told: Vec<u8> =
                (1..16).filter(|at| server.waiting & (1 << at) != 0).filter(|at| enough(*at)).collect();
            let promises = next.store.records.sync.is_some();
            for position in told {
                next.server(at).waiting &= !(1 << position);
                let mint = next.mint_at(server.mint, position);
                if let Some(last) = next.ghost.promised.get_mut(usize::from(mint)).filter(|_| promises) {
                    *last = position.max(*last);
                }
            }
        }
    }
}

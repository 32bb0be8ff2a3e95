//! The simulated lease thread: sessions, renewals, the hard deadline, the member record.

use std::time::Duration;

use config::NodeName;
use coordinator::{Held, Process};
use dcs::{Epoch, Lsn, Moment, Revision};

use super::planted::Fault;
use super::{PATIENCE, WATCH, World};

/// How long a renewal at `sent` gives, as the daemon's lease thread reckons it (reliability 6.1).
pub fn authority(ttl: Duration, sent: Moment, epoch: Epoch, revision: Revision) -> Held {
    let most = ttl * 10 / 11;
    let hard = most.saturating_sub((ttl / 17).clamp(Duration::from_millis(200), Duration::from_millis(500)));
    let stop = (ttl * 3 / 20).clamp(Duration::from_millis(200), Duration::from_millis(1500));
    Held { epoch, revision, soft: sent + hard.saturating_sub(stop), hard: sent + hard }
}

impl World {
    /// The lease thread's turn; whether the node should look.
    pub(super) fn renew(&mut self, name: &NodeName) -> bool {
        let now = self.now;
        let mut woken = self.deadline(name);
        let daemon = self.daemon(name);
        if daemon.renew_due > now {
            return woken;
        }
        let ttl = daemon.settings.ttl;
        daemon.renew_due = now + (ttl / 10).max(Duration::from_millis(200));
        if !self.connected(name) {
            self.daemon(name).renew_due = now + PATIENCE;
            if self.planted == Some(Fault::LeaseForEver) {
                let daemon = self.daemon(name);
                daemon.held = daemon.held.map(|held| authority(ttl, now, held.epoch, held.revision));
            }
            let daemon = self.daemon(name);
            woken |= daemon.reachable;
            daemon.reachable = false;
            return woken;
        }
        woken |= !self.daemon(name).reachable;
        let session = self.daemon(name).session.filter(|session| self.store.sessions.contains_key(session));
        let session = match session {
            Some(session) => {
                self.store.sessions.insert(session, now + ttl);
                session
            }
            None => self.store.open(now + ttl),
        };
        let leader = self.store.leader.clone();
        let left = self.store.passage.as_ref().is_some_and(|stand| stand.passage().leader == *name);
        let ignored = self.planted == Some(Fault::LeaseForEver);
        let daemon = self.daemon(name);
        if daemon.session != Some(session) || !daemon.reachable {
            daemon.view_due = Some(now + WATCH);
        }
        if daemon.session != Some(session) {
            daemon.published = None;
        }
        daemon.session = Some(session);
        daemon.reachable = true;
        daemon.seen = now;
        if let Some(held) = daemon.held {
            let ours = leader.is_some_and(|leader| leader.epoch == held.epoch && leader.lease == session);
            if ours || ignored {
                daemon.held = Some(authority(ttl, now, held.epoch, held.revision));
            } else if held.soft > now && !left {
                let soft = held.soft.min(now.max(self.leave_ends(name)));
                self.daemon(name).held = Some(Held { soft, ..held });
                woken = true;
            }
        }
        woken
    }

    /// At the hard deadline nothing of the instance goes on, whatever was decided.
    fn deadline(&mut self, name: &NodeName) -> bool {
        let now = self.now;
        let planted = self.planted == Some(Fault::LeaseForEver);
        let daemon = self.daemon(name);
        let paused = daemon.settings.pause;
        if daemon.held.is_none_or(|held| held.hard > now) {
            return false;
        }
        daemon.held = None;
        let promoting = daemon.job.as_ref().is_some_and(|(job, _)| {
            matches!(
                job.task,
                coordinator::Task::Promote { .. }
                    | coordinator::Task::RestartInPlace { .. }
                    | coordinator::Task::FirstStart { .. }
            )
        });
        let server = &mut self.node(name).server;
        if !paused && !planted && (server.writable() || promoting) && server.process != Process::Gone {
            server.crash(Process::Gone);
            server.crashed = Some(now);
            self.say(name.as_str(), "(the hard deadline kills the instance)");
        }
        true
    }

    /// The member record and, on the leader, the status.
    pub(super) fn publish(&mut self, name: &NodeName) {
        let member = self.nodes[name].member();
        let (connected, now) = (self.connected(name), self.now);
        let daemon = self.daemon(name);
        let Some(session) = daemon.session.filter(|_| connected && daemon.reachable) else { return };
        if !self.store.sessions.contains_key(&session) {
            return;
        }
        // Positions alone are published with the next renewal.
        let daemon = self.daemon(name);
        let worth = daemon.published.as_ref().is_none_or(|before| {
            (&before.state, &before.role, before.checkpoint_pending, &before.tags, before.timeline)
                != (&member.state, &member.role, member.checkpoint_pending, &member.tags, member.timeline)
        });
        let leads = daemon.leads(now);
        self.publish_record(name);
        if worth || !self.store.members.contains_key(name) {
            self.daemon(name).published = Some(member.clone());
            self.store.members.insert(name.clone(), (member, session));
            self.store.commit();
        }
        let node = &self.nodes[name];
        let optime = node.server.dir.as_ref().map(|dir| Lsn(dir.wal.end));
        if leads && node.server.writable() && self.store.status.optime != optime {
            self.store.status.optime = optime;
            self.store.commit();
        }
    }
}

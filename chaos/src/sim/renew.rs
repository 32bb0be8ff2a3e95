//! The simulated lease thread: sessions, renewals as messages that take time and may be lost either way, the hard
//! deadline, the member record.

use std::time::Duration;

use config::NodeName;
use coordinator::Held;
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

/// A renewal on its way.
#[derive(Debug, Clone)]
pub struct Flight {
    /// On the clock of the host that sent it, before it was sent.
    sent: Moment,
    /// When the store has it; it never does if this is absent.
    arrives: Option<Moment>,
    /// When the answer is there, or is not waited for any more.
    pub returns: Moment,
    /// What the store said, once it has.
    reply: Option<Reply>,
    /// The answer is lost.
    lost: bool,
}

impl Flight {
    /// When something happens to it next.
    pub fn next(&self) -> Moment {
        self.arrives.unwrap_or(self.returns)
    }
}

#[derive(Debug, Clone)]
struct Reply {
    session: Option<i64>,
    ours: bool,
}

impl World {
    /// The lease thread's turn; whether the node should look.
    pub(super) fn renew(&mut self, name: &NodeName) -> bool {
        let mut woken = self.deadline(name);
        self.keep_fencer(name);
        let now = self.now;
        let daemon = self.daemon(name);
        if daemon.flight.is_none() && daemon.renew_due <= now {
            self.send(name);
        }
        self.arrive(name);
        if let Some(flight) = self.daemon(name).flight.take_if(|flight| flight.returns <= now) {
            woken |= self.credit(name, &flight);
        }
        woken
    }

    fn send(&mut self, name: &NodeName) {
        let (now, local) = (self.now, self.clock(name));
        let daemon = self.daemon(name);
        let ttl = daemon.settings.ttl;
        let pace = (ttl / 10).max(Duration::from_millis(200));
        // A leader whose last renewal was answered at once takes its time.
        let calm = daemon.held.is_some() && daemon.reachable;
        daemon.renew_due = now + if calm { pace * 2 } else { pace };
        // A node whose loop hangs keeps no lease.
        if now.since(self.daemon(name).turned) > ttl && self.planted != Some(Fault::LoopUnwatched) {
            return;
        }
        let daemon = self.daemon(name);
        let over = daemon.held.filter(|held| held.soft <= local && daemon.given_up != Some(held.epoch));
        if let Some(held) = over {
            daemon.given_up = Some(held.epoch);
            // Not renewed in time: a renewal whose answers are lost would keep it from everybody for ever (F57).
            if self.planted != Some(Fault::RenewsForEver) {
                self.forget_session(name, local);
            }
        }
        let (there, back) = (self.trip(name), self.trip(name));
        let [mut heard, mut answered] =
            [self.hears(name.as_str(), "store"), self.hears("store", name.as_str())];
        heard &= self.store.up && there.is_some();
        answered &= back.is_some();
        let (there, back) = (there.unwrap_or_default(), back.unwrap_or_default());
        let whole = heard && answered && there + back < PATIENCE;
        let flight = Flight {
            sent: local,
            arrives: heard.then_some(now + there),
            returns: if whole { now + there + back } else { now + PATIENCE },
            reply: None,
            lost: !whole,
        };
        if !whole {
            self.daemon(name).renew_due = now + PATIENCE;
        }
        if !heard && !self.chances.are_there() {
            // Without chance nothing takes time, not even to notice.
            let mut flight = flight;
            flight.returns = now;
            self.daemon(name).flight = Some(flight);
            return;
        }
        self.daemon(name).flight = Some(flight);
    }

    /// The store hears a renewal: of the session, and whether the key is still the sender's.
    fn arrive(&mut self, name: &NodeName) {
        let now = self.now;
        let daemon = self.daemon(name);
        let Some(flight) = &mut daemon.flight else { return };
        if flight.arrives.take_if(|at| *at <= now).is_none() {
            return;
        }
        let (ttl, session) = (daemon.settings.ttl, daemon.session);
        let held = daemon.held;
        let until = now + self.store_span(ttl);
        let session = match session.filter(|session| self.store.sessions.contains_key(session)) {
            Some(session) => {
                self.store.renew(session, until, ttl);
                Some(session)
            }
            None if self.store.full => None,
            None => Some(self.store.open(until, ttl)),
        };
        let ours = held.is_none_or(|held| {
            let leader = self.store.leader.as_ref();
            leader.is_some_and(|leader| leader.epoch == held.epoch && Some(leader.lease) == session)
        });
        if !ours && session == self.daemon(name).session {
            self.hit("F78");
        }
        if let Some(flight) = &mut self.daemon(name).flight {
            flight.reply = Some(Reply { session, ours });
        }
    }

    /// The answer is there, or late.
    fn credit(&mut self, name: &NodeName, flight: &Flight) -> bool {
        let (now, local) = (self.now, self.clock(name));
        let forever = self.planted == Some(Fault::LeaseForEver);
        let left = self.store.passage.as_ref().is_some_and(|stand| stand.passage().leader == *name);
        let daemon = self.daemon(name);
        let ttl = daemon.settings.ttl;
        let Some(reply) = flight.reply.as_ref().filter(|_| !flight.lost) else {
            if forever {
                daemon.held = daemon.held.map(|held| authority(ttl, local, held.epoch, held.revision));
            }
            daemon.renew_due = daemon.renew_due.max(now);
            return std::mem::replace(&mut daemon.reachable, false);
        };
        let back = !daemon.reachable && daemon.view.is_some();
        let mut woken = !daemon.reachable;
        if daemon.session != reply.session || !daemon.reachable {
            daemon.view_due = Some(now + WATCH);
        }
        if daemon.session != reply.session {
            daemon.published = None;
        }
        daemon.session = reply.session;
        daemon.reachable = true;
        daemon.seen = local;
        let held = daemon.held;
        if back {
            // A watch that was away begins with a whole view at a new revision.
            self.hit("F75");
        }
        let Some(held) = held else { return woken };
        let daemon = self.daemon(name);
        if reply.ours || forever {
            let granted = authority(ttl, flight.sent, held.epoch, held.revision);
            let hard = held.hard.max(granted.hard);
            daemon.held = Some(Held { soft: held.soft.max(granted.soft), hard, ..held });
            self.tell_fencer(name, flight.sent, hard);
        } else if held.soft > local && !left {
            let until = self.leave_ends(name);
            self.forget_session(name, until);
            woken = true;
        }
        woken
    }

    /// Ownership is gone: the node steps down now, or goes on until then by the leave of all; the hard deadline stays, and
    /// the session is left to run out.
    fn forget_session(&mut self, name: &NodeName, until: Moment) {
        let (now, local) = (self.now, self.clock(name));
        // In a script without lost answers it is kept: a new one would be the same with another number.
        let kept = !self.chances.are_there() && self.deaf.is_empty();
        let daemon = self.daemon(name);
        if let Some(held) = &mut daemon.held {
            held.soft = held.soft.min(local.max(until));
        }
        if !kept && daemon.session.take().is_some() {
            daemon.renew_due = now;
            daemon.published = None;
        }
    }

    /// Before the key moves under a shorter lease: no deadline is later than that one can end.
    pub(super) fn bound(&mut self, name: &NodeName, ttl: Duration) {
        if self.planted == Some(Fault::LongerDeadline) {
            return;
        }
        let local = self.clock(name);
        let Some(held) = &mut self.daemon(name).held else { return };
        let most = authority(ttl, local, held.epoch, held.revision);
        if most.hard < held.hard {
            (held.soft, held.hard) = (held.soft.min(most.soft), most.hard);
            self.bound_fencer(name, local, most.hard);
        }
    }

    /// At the hard deadline nothing of the instance goes on, whatever was decided.
    fn deadline(&mut self, name: &NodeName) -> bool {
        let local = self.clock(name);
        let spared = matches!(self.planted, Some(Fault::LeaseForEver | Fault::NoDeadline));
        let writable = self.nodes[name].server.writable();
        let daemon = self.daemon(name);
        let (paused, ttl) = (daemon.settings.pause, daemon.settings.ttl);
        let end = match daemon.held {
            Some(held) => held.hard,
            // A server that may take writes without any lease has a time to live in which a lease is proven, or it stops.
            None if writable && !paused => *daemon.naked.get_or_insert(local) + ttl,
            None => {
                daemon.naked = None;
                return false;
            }
        };
        if end > local {
            return false;
        }
        (daemon.held, daemon.naked) = (None, None);
        if !paused && !spared {
            self.shoot(name, "the daemon");
        }
        true
    }

    /// The member record and, on the leader, the status.
    pub(super) fn publish(&mut self, name: &NodeName) {
        let member = self.nodes[name].member();
        let (connected, local) = (self.connected(name) && !self.store.full, self.clock(name));
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
        let leads = daemon.leads(local);
        self.publish_record(name);
        if worth || !self.store.members.contains_key(name) {
            self.daemon(name).published = Some(member.clone());
            self.store.members.insert(name.clone(), (member, session));
            self.store.commit();
        }
        let node = &self.nodes[name];
        let optime = node.server.dir.as_ref().map(|dir| Lsn(dir.wal.end));
        if leads && node.server.writable() && self.store.status.optime != optime {
            let now = self.now;
            let daemon = self.daemon(name);
            // As often as a renewal, once somebody writes all the time.
            if daemon.told_position.is_none_or(|told| now.since(told) >= daemon.settings.ttl / 10) || worth {
                daemon.told_position = Some(now);
                self.store.status.optime = optime;
                self.store.commit();
            }
        }
    }
}

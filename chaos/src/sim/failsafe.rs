//! Failsafe mode in the world: the record, questions for leave, promises. A promise is on the host's disk: it
//! outlives the daemon.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use config::NodeName;
use coordinator::Held;
use coordinator::failsafe::{Given, Leave, Promise, Said};
use dcs::{Epoch, Moment};

use super::network::Kind;
use super::node::Daemon;
use super::planted::Fault;
use super::renew::authority;
use super::{ANSWER, PATIENCE, World};

/// A question for leave on its way, and when its answer is there.
#[derive(Debug, Clone)]
pub struct Question {
    pub due: Moment,
    pub who: NodeName,
    pub given: Given,
}

impl Daemon {
    /// Whom it has added to the record and does not see there yet.
    pub fn unseen(&self) -> BTreeSet<NodeName> {
        let (revision, added) = &self.added;
        let seen = self.view.as_ref().is_some_and(|view| view.revision >= *revision);
        if seen { BTreeSet::new() } else { added.clone() }
    }
}

impl World {
    /// A leader asks for leave to go on.
    pub(super) fn seek_leave(&mut self, name: &NodeName, names: &BTreeSet<NodeName>) {
        for who in names {
            let heard = self.passes(Kind::Rest, name, who);
            let after = if heard { ANSWER + self.jitter(30) } else { PATIENCE };
            let (now, local) = (self.now, self.clock(name));
            let daemon = self.daemon(name);
            let Some(held) = daemon.held else { continue };
            let given = Given { epoch: held.epoch, sent: local, span: daemon.settings.ttl };
            let before = daemon.leaves.get(who).and_then(|leave| leave.given);
            let said = daemon.leaves.get(who).map_or(Said::Nothing, |leave| leave.said.clone());
            daemon.leaves.insert(who.clone(), Leave { asked: local, open: true, said, given: before });
            daemon.questions.push(Question { due: now + after, who: who.clone(), given });
        }
    }

    /// Answers that are there; whether there were any.
    pub(super) fn leaves_arrive(&mut self, name: &NodeName) -> bool {
        let now = self.now;
        let due: Vec<Question> =
            self.daemon(name).questions.extract_if(.., |question| question.due <= now).collect();
        for Question { who, given, .. } in &due {
            let said = self.answer_leave(name, who, given);
            let local = self.clock(name);
            let leave = self.daemon(name).leaves.entry(who.clone());
            let leave = leave.or_insert(Leave { asked: local, open: false, said: said.clone(), given: None });
            if said == Said::Promised {
                leave.given = Some(*given);
            }
            (leave.said, leave.open) = (said, false);
        }
        !due.is_empty()
    }

    fn answer_leave(&mut self, leader: &NodeName, who: &NodeName, asked: &Given) -> Said {
        let heard = self.passes(Kind::Rest, leader, who) && self.nodes[who].stopped.daemon.is_none();
        let until = self.clock(who) + asked.span;
        let node = self.node(who);
        let Some(daemon) = node.daemon.as_ref().filter(|_| heard) else { return Said::Nothing };
        if daemon.held.is_some() || node.server.writable() {
            return Said::Refused("it leads".into());
        }
        if !daemon.settings.failsafe_mode {
            return Said::Refused("its failsafe mode is off".into());
        }
        if daemon.view.as_ref().is_some_and(|view| view.epoch() > asked.epoch) {
            return Said::Refused("there is a later leader".into());
        }
        node.promise = Some(Promise { leader: leader.clone(), until });
        Said::Promised
    }

    /// Everybody has promised.
    pub(super) fn go_on(
        &mut self,
        name: &NodeName,
        epoch: Epoch,
        sent: Moment,
        span: Duration,
        until: Moment,
    ) {
        let local = self.clock(name);
        let Some(held) = self.daemon(name).held.filter(|held| held.epoch == epoch && local < held.soft)
        else {
            return;
        };
        let granted = authority(span, sent, epoch, held.revision);
        let soft = granted.soft.min(until);
        let daemon = self.daemon(name);
        daemon.held = Some(Held { soft: held.soft.max(soft), hard: held.hard.max(granted.hard), ..held });
        daemon.leave_ends = Some((epoch, soft));
        self.tell_fencer(name, sent, granted.hard);
    }

    /// Who let the lease go gives the promises back; whoever does not hear of it is free when its promise ends.
    pub(super) fn give_promises_back(&mut self, name: &NodeName) {
        for other in self.names().iter() {
            let hears = self.nodes[other].daemon.is_some() && self.nodes[other].stopped.daemon.is_none();
            if hears && self.passes(Kind::Rest, name, other) {
                self.node(other).promise.take_if(|promise| promise.leader == *name);
            }
        }
    }

    /// Until when a leader whose key is gone, and nobody else's, goes on.
    pub(super) fn leave_ends(&mut self, name: &NodeName) -> Moment {
        let vacant = self.store.leader.is_none();
        let daemon = self.daemon(name);
        let ends =
            daemon.leave_ends.filter(|(epoch, _)| vacant && daemon.held.is_some_and(|h| h.epoch == *epoch));
        ends.map_or(Moment::default(), |(_, soft)| soft)
    }

    /// The leader keeps the record of all members; with the mode off it names nobody.
    pub(super) fn publish_record(&mut self, name: &NodeName) {
        let on = self.store.settings.failsafe_mode;
        let now = self.clock(name);
        if !self.nodes[name].server.writable() {
            return;
        }
        let daemon = self.daemon(name);
        let leads = daemon.leads(now) && daemon.reachable && daemon.settings.failsafe_mode == on;
        let epoch = daemon.held.map(|held| held.epoch);
        let ours = self.store.leader.as_ref().is_some_and(|leader| Some(leader.epoch) == epoch);
        if !leads || !ours || !self.connected(name) || (!on && self.store.failsafe.is_none()) {
            return;
        }
        let members = self.store.members.iter().filter(|_| on);
        let wanted: BTreeMap<NodeName, String> =
            members.filter_map(|(name, (member, _))| Some((name.clone(), member.api_url.clone()?))).collect();
        if self.store.failsafe.as_ref() != Some(&wanted) {
            let added = wanted.keys().cloned().collect();
            self.store.failsafe = Some(wanted);
            let revision = self.store.commit();
            self.store.failsafe_at = revision;
            self.daemon(name).added = (revision, added);
        }
    }

    /// A person who names a leader that the record leaves out, with the mode off, makes sure first that nobody whom it names
    /// still takes writes without the store (docs/src/concepts/failsafe.md).
    pub(super) fn makes_sure(&self, named: &str) -> Result<(), String> {
        let record = self.store.failsafe.iter().flat_map(BTreeMap::keys);
        let unaware = |name: &&NodeName| {
            self.nodes.get(*name).is_some_and(|node| node.server.writable()) && !self.connected(name)
        };
        match record.clone().find(unaware) {
            Some(writer) if record.clone().all(|name| name.as_str() != named) => {
                Err(format!("a person sees that {writer} still takes writes"))
            }
            _ => Ok(()),
        }
    }

    /// What a planted fault forgets of a promise.
    pub(super) fn break_promise(&self, seen: &mut coordinator::Observation) {
        if self.planted == Some(Fault::PromiseForgotten) {
            seen.failsafe.promise = None;
        }
    }
}

//! A turn: look, decide, and carry out each step. The match knows every step, so
//! that none can be forgotten.

use std::collections::BTreeSet;
use std::time::Duration;

use config::NodeName;
use coordinator::slots::SlotChange;
use coordinator::{Asked, Decision, Job, Peer, Reason, Step, Wish, decide};
use dcs::{Claim, HistoryRow, Initialize, Lsn, SystemId, Timeline};

use super::network::{Fate, Kind};
use super::planted::Fault;
use super::renew::authority;
use super::{ANSWER, PATIENCE, PULSE, SOON, World};

/// The name of a reason, as in the source.
pub fn variant(reason: &Reason) -> String {
    let debug = format!("{reason:?}");
    debug.chars().take_while(char::is_ascii_alphanumeric).collect()
}

impl World {
    /// One turn of one node.
    pub(super) fn turn(&mut self, name: &NodeName) {
        let Some(mut seen) = self.nodes[name].observe(self.clock(name)) else { return };
        if let Some(running) = &mut seen.postgres.running {
            running.senders = self.senders(name);
        }
        seen.me.withheld.extend(self.withheld_for_want_of_a_fencer(name));
        self.forget(&mut seen);
        self.break_promise(&mut seen);
        self.blind(name, &mut seen);
        let now = self.now;
        let past = std::mem::take(&mut self.daemon(name).past);
        let mut decision = decide(&seen, &past);
        self.pervert(name, &seen, &mut decision);
        let wake = self.nodes[name].clock.reaches(decision.wake);
        let daemon = self.daemon(name);
        daemon.ended = None;
        daemon.past = decision.past.clone();
        self.node(name).known = decision.past.store;
        let daemon = self.daemon(name);
        daemon.wake = wake.min(now + PULSE).max(now + Duration::from_millis(1));
        self.mark_turn(name, &seen, &decision);
        let mut done: Vec<String> = Vec::new();
        for step in &decision.steps {
            let outcome = self.step(name, step);
            self.check_step(name, step, outcome.is_err());
            match outcome {
                Ok(()) if self.mute => {}
                Ok(()) => done.push(step.to_string()),
                Err(why) => {
                    if !self.mute {
                        done.push(format!("{step} FAILED: {why}"));
                    }
                    if let Some(daemon) = &mut self.node(name).daemon {
                        daemon.wake = daemon.wake.min(now + Duration::from_millis(200));
                    }
                    break;
                }
            }
        }
        self.tell(name, &decision, &done);
        self.note(name, &decision);
        if self.nodes[name].daemon.is_some() {
            self.plant(name);
        }
    }

    /// What a turn adds to the digest.
    fn note(&mut self, name: &NodeName, decision: &Decision) {
        let end = self.nodes[name].server.dir.as_ref().map_or(0, |dir| dir.wal.end);
        let steps = decision.steps.len() as u64;
        for word in [self.now.0, end, steps, decision.wake.0, self.store.revision.unsigned_abs()] {
            self.digest(word);
        }
    }

    /// A line for every turn that did something or changed its mind.
    fn tell(&mut self, name: &NodeName, decision: &Decision, done: &[String]) {
        // Questions are shown once, with the reason for them.
        let silent = decision.steps.iter().all(|step| {
            matches!(step, Step::Ask(_) | Step::ReadLineage(_) | Step::SeekLeave(_) | Step::GoOn { .. })
        });
        if let Some(daemon) = &mut self.node(name).daemon {
            let same = daemon.last.as_ref() == Some(&decision.because);
            if !same {
                daemon.last = Some(decision.because.clone());
            }
            if silent && (same || matches!(decision.because, Reason::Busy(_))) {
                return;
            }
        }
        if !self.quiet {
            self.shown.insert(variant(&decision.because));
        }
        if self.mute {
            return;
        }
        let because = decision.because.to_string();
        let did = if done.is_empty() { "-".to_owned() } else { done.join(", ") };
        self.say(name.as_str(), &format!("{did:<28} {because}"));
    }

    /// Asks the store for a change by a request that may be lost, or whose answer may be; `Ok(false)`: it was done, and
    /// the sender does not know.
    pub(super) fn asks(&mut self, name: &NodeName, puts: bool) -> Result<bool, String> {
        let fate = self.fate(name);
        if fate == Fate::Lost {
            return Err("the store does not answer".to_owned());
        }
        if puts && self.store.full {
            self.hit("F85");
            return Err("the store has no space left".to_owned());
        }
        Ok(fate == Fate::Answered)
    }

    pub(super) fn soon(&mut self, name: &NodeName) {
        let soon = self.now + SOON;
        let daemon = self.daemon(name);
        daemon.wake = daemon.wake.min(soon);
    }

    pub(super) fn step(&mut self, name: &NodeName, step: &Step) -> Result<(), String> {
        if self.planted == Some(Fault::StepsIgnored) && !self.quiet {
            self.soon(name);
            return Ok(());
        }
        match step {
            Step::ClaimInitialize
            | Step::WriteInitialize(_)
            | Step::GiveUpInitialize
            | Step::RestoreConfig
            | Step::ClearFailover { .. }
            | Step::WriteHistory => self.record(name, step)?,
            Step::WriteSync { .. } | Step::DeleteSync { .. } | Step::SetNames(_) => {
                self.synchronous(name, step)?;
            }
            Step::Evict(pids) => self.evict(name, pids),
            Step::SeekLeave(names) => self.seek_leave(name, names),
            Step::GoOn { epoch, sent, span, until } => self.go_on(name, *epoch, *sent, *span, *until),
            Step::Acquire(_) | Step::Adopt { .. } | Step::Release { .. } => self.lease(name, step)?,
            Step::ClaimTimeline(claim) => self.claim(name, *claim)?,
            Step::Ask(names) => self.ask(name, names),
            Step::ReadLineage(of) => {
                let at = self.now + ANSWER;
                let daemon = self.daemon(name);
                let epoch = daemon.view.as_ref().and_then(|view| Some(view.leader.as_ref()?.epoch));
                daemon.history_due = epoch.map(|epoch| (at, of.clone(), epoch));
            }
            Step::Follow(upstream) => {
                self.node(name).server.upstream.clone_from(upstream);
                self.soon(name);
            }
            Step::Slots(changes) => self.slots(name, changes),
            Step::Begin(task) => {
                let ends = self.now + self.duration(name, task);
                let job = Job { task: task.clone(), since: self.clock(name) };
                self.daemon(name).job = Some((job, ends));
                self.job_begins(name, task);
            }
            Step::Cancel => {
                self.daemon(name).job = None;
                self.soon(name);
            }
            Step::SeekConsent(id) => {
                let said = self.consent(name);
                let mut open = self.daemon(name).requests.iter_mut();
                if let Some(request) = open.find(|request| request.id == *id)
                    && let Wish::Reinitialize { consent, .. } = &mut request.wish
                {
                    *consent = said;
                }
                self.soon(name);
            }
            Step::Answer(id, reply) => {
                let (id, reply) = (*id, reply.clone());
                self.daemon(name).requests.retain(|request| request.id != id);
                self.say(name.as_str(), &format!("(request {id} is answered: {reply:?})"));
                self.soon(name);
            }
            Step::Exit { code } => {
                let node = self.node(name);
                node.daemon = None;
                node.exited = Some(*code);
            }
        }
        Ok(())
    }

    /// Steps that write shared records.
    fn record(&mut self, name: &NodeName, step: &Step) -> Result<(), String> {
        let known = self.asks(name, true)?;
        match step {
            Step::ClaimInitialize => {
                let own = self.store.claim.as_ref() == Some(name);
                match self.store.initialize {
                    Initialize::Absent => {
                        self.store.initialize = Initialize::Running;
                        self.store.claim = Some(name.clone());
                    }
                    Initialize::Running if own => {}
                    _ => return Err("another node is creating the cluster".into()),
                }
            }
            Step::WriteInitialize(id) => self.write_initialize(*id)?,
            Step::GiveUpInitialize => {
                if self.store.initialize == Initialize::Running && self.store.claim.as_ref() == Some(name) {
                    self.store.initialize = Initialize::Absent;
                    self.store.claim = None;
                }
            }
            Step::RestoreConfig => {
                let revision = self.store.commit();
                self.store.config = Some(revision);
            }
            Step::ClearFailover { revision } => {
                if self.store.failover.as_ref().is_some_and(|found| found.revision == *revision) {
                    self.store.failover = None;
                }
            }
            _ => self.write_history(name),
        }
        self.store.commit();
        if known { Ok(()) } else { Err("the store did not answer in time".to_owned()) }
    }

    pub(super) fn write_initialize(&mut self, id: SystemId) -> Result<(), String> {
        if let Initialize::Done(other) = self.store.initialize
            && other != id
            && self.planted != Some(Fault::InitializeRewritten)
        {
            return Err("the cluster was initialised with another system identifier".into());
        }
        self.store.initialize = Initialize::Done(id);
        self.store.identities.push(id);
        Ok(())
    }

    fn write_history(&mut self, name: &NodeName) {
        let switches = self.nodes[name].server.dir.as_ref().map(|dir| dir.wal.switches()).unwrap_or_default();
        let row = |(timeline, lsn)| HistoryRow {
            timeline,
            lsn,
            reason: "no recovery target specified".into(),
            timestamp: None,
            leader: Some(name.to_string()),
        };
        let mut rows: Vec<HistoryRow> = switches.into_iter().map(row).collect();
        // As the daemon does: the last row says which timeline is the present one.
        let before = self.nodes[name].timeline().map_or(0, |timeline| timeline.0 - 1);
        if let Some(last) = rows.last().filter(|last| last.timeline.0 < before).cloned() {
            rows.push(HistoryRow { timeline: Timeline(before), ..last });
        }
        self.store.history = Some(rows);
    }

    /// Another timeline in the same reign.
    fn claim(&mut self, name: &NodeName, claim: Claim) -> Result<(), String> {
        let known = self.asks(name, true)?;
        let held = self.daemon(name).held.map(|held| held.epoch);
        let ours = self.store.leader.as_ref().is_some_and(|leader| Some(leader.epoch) == held);
        if !ours || !self.store.reclaim(claim) {
            return Err("another node leads, or has claimed a timeline since".to_owned());
        }
        if known { Ok(()) } else { Err("the store did not answer in time".to_owned()) }
    }

    /// Steps that take and give the leader lease.
    fn lease(&mut self, name: &NodeName, step: &Step) -> Result<(), String> {
        let known = self.asks(name, !matches!(step, Step::Release { .. }))?;
        let (ttl, now, local) = (self.daemon(name).settings.ttl, self.now, self.clock(name));
        if let Step::Release { position } = step {
            self.release(name, *position);
            return Ok(());
        }
        let session = self.daemon(name).session.filter(|session| self.store.sessions.contains_key(session));
        let until = now + self.store_span(ttl);
        let session = session.unwrap_or_else(|| self.store.open(until, ttl));
        self.daemon(name).session = Some(session);
        let got = match step {
            Step::Adopt { revision } => {
                self.store.adopt(name, session, *revision).ok_or("the key does not name this node any more")
            }
            Step::Acquire(claim) => {
                self.store.acquire(name, session, *claim).ok_or("another node was faster")
            }
            _ => return Err("no step about the lease".to_owned()),
        };
        if got.is_err() {
            self.hit("F80");
        }
        let (epoch, revision) = got.map_err(str::to_owned)?;
        self.store.renew(session, until, ttl);
        self.ignorance(name);
        if !known {
            return Err("the store did not answer in time: nobody knows whether it was done".to_owned());
        }
        let held = authority(ttl, local, epoch, revision);
        self.daemon(name).held = Some(held);
        self.daemon(name).given_up = None;
        let server = &mut self.node(name).server;
        if server.writable() {
            server.reign = Some(epoch);
        }
        self.daemon(name).sync.written = None;
        self.tell_fencer(name, local, held.hard);
        self.soon(name);
        Ok(())
    }

    pub(super) fn release(&mut self, name: &NodeName, position: Option<Lsn>) {
        let held = self.daemon(name).held.take();
        self.daemon(name).released = held.map(|held| held.epoch);
        let process = self.nodes[name].server.process;
        let writable = self.nodes[name].server.writable();
        let paused = self.daemon(name).settings.pause;
        if writable && !paused {
            self.broken(format!("{name} let the lease go while its server takes writes ({process:?})"));
        }
        if let (Some(held), Some(leader)) = (held, &self.store.leader)
            && leader.epoch == held.epoch
        {
            self.store.leader = None;
            self.give_promises_back(name);
            if position.is_some() {
                self.store.status.optime = position;
            }
            self.store.commit();
        }
        self.soon(name);
    }

    fn ask(&mut self, name: &NodeName, names: &BTreeSet<NodeName>) {
        for who in names {
            let linked = self.passes(Kind::Rest, name, who);
            let silent = self.nodes.get(who).is_some_and(|node| node.stopped.daemon.is_some());
            let after = if linked && !silent { ANSWER + self.jitter(30) } else { PATIENCE };
            let (now, at) = (self.clock(name), self.now + after);
            let daemon = self.daemon(name);
            if daemon.peers.get(who).is_some_and(|peer| peer.answer == Asked::Waiting) {
                continue;
            }
            daemon.peers.insert(who.clone(), Peer { asked: now, answer: Asked::Waiting });
            daemon.answers_due.push((at, who.clone()));
        }
    }

    fn slots(&mut self, name: &NodeName, changes: &[SlotChange]) {
        let end = self.nodes[name].server.dir.as_ref().map_or(0, |dir| dir.wal.end);
        let slots = &mut self.node(name).server.slots;
        for change in changes {
            match change {
                SlotChange::Create(slot) => drop(slots.insert(slot.clone(), Lsn(end))),
                SlotChange::Advance(slot, to) => drop(slots.insert(slot.clone(), *to)),
                SlotChange::Drop(slot) => drop(slots.remove(slot)),
            }
        }
        self.soon(name);
    }

    /// Puts a request to a node.
    pub(super) fn request(&mut self, name: &NodeName, wish: Wish) {
        self.requests += 1;
        let id = self.requests;
        let (now, asked) = (self.now, self.clock(name));
        if let Some(daemon) = &mut self.node(name).daemon {
            daemon.requests.push(coordinator::Request { id, asked, wish });
            daemon.wake = now;
        }
    }
}

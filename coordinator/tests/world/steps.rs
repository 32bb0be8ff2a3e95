//! A turn: look, decide, and carry out each step. The match knows every step, so
//! that none can be forgotten.

use std::collections::BTreeSet;
use std::time::Duration;

use config::NodeName;
use coordinator::slots::SlotChange;
use coordinator::{Asked, Decision, Job, Peer, Reason, Step, Wish, decide};
use dcs::{HistoryRow, Initialize, Lsn, SystemId, Timeline};

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
        let Some(mut seen) = self.nodes[name].observe(self.now) else { return };
        if let Some(running) = &mut seen.postgres.running {
            running.senders = self.senders(name);
        }
        self.forget(&mut seen);
        self.break_promise(&mut seen);
        let now = self.now;
        let decision = decide(&seen, &self.daemon(name).past.clone());
        let daemon = self.daemon(name);
        daemon.ended = None;
        daemon.past = decision.past.clone();
        daemon.wake = decision.wake.min(now + PULSE).max(now + Duration::from_millis(1));
        self.check_turn(name, &decision);
        let mut done: Vec<String> = Vec::new();
        for step in &decision.steps {
            match self.step(name, step) {
                Ok(()) => done.push(step.to_string()),
                Err(why) => {
                    done.push(format!("{step} FAILED: {why}"));
                    if let Some(daemon) = &mut self.node(name).daemon {
                        daemon.wake = daemon.wake.min(now + Duration::from_millis(200));
                    }
                    break;
                }
            }
        }
        self.tell(name, &decision, &done);
        if self.nodes[name].daemon.is_some() {
            self.plant(name);
        }
    }

    /// A line for every turn that did something or changed its mind.
    fn tell(&mut self, name: &NodeName, decision: &Decision, done: &[String]) {
        // Questions are shown once, with the reason for them.
        let quiet = ["ask ", "read lineage", "seek leave", "go on "];
        let silent = done.iter().all(|step| quiet.iter().any(|start| step.starts_with(start)));
        let because = decision.because.to_string();
        if let Some(daemon) = &mut self.node(name).daemon {
            let same = daemon.last == because;
            daemon.last.clone_from(&because);
            if silent && (same || matches!(decision.because, Reason::Busy(_))) {
                return;
            }
        }
        if !self.quiet {
            self.shown.insert(variant(&decision.because));
        }
        let did = if done.is_empty() { "-".to_owned() } else { done.join(", ") };
        self.say(name.as_str(), &format!("{did:<28} {because}"));
    }

    fn online(&self, name: &NodeName) -> Result<(), String> {
        self.connected(name).then_some(()).ok_or_else(|| "the store does not answer".to_owned())
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
            Step::Evict(_) => {}
            Step::SeekLeave(names) => self.seek_leave(name, names),
            Step::GoOn { epoch, sent, span, until } => self.go_on(name, *epoch, *sent, *span, *until),
            Step::Acquire | Step::Adopt { .. } | Step::Release { .. } => self.lease(name, step)?,
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
                self.job_begins(name, task);
                let job = Job { task: task.clone(), since: self.now };
                self.daemon(name).job = Some((job, ends));
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
        self.online(name)?;
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
        Ok(())
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

    /// Steps that take and give the leader lease.
    fn lease(&mut self, name: &NodeName, step: &Step) -> Result<(), String> {
        self.online(name)?;
        let (ttl, now) = (self.daemon(name).settings.ttl, self.now);
        let session = self.daemon(name).session.filter(|session| self.store.sessions.contains_key(session));
        let session = session.unwrap_or_else(|| self.store.open(now + ttl));
        self.daemon(name).session = Some(session);
        let got = match step {
            Step::Acquire => self.store.acquire(name, session).ok_or("another node was faster"),
            Step::Adopt { revision } => {
                self.store.adopt(name, session, *revision).ok_or("the key does not name this node any more")
            }
            Step::Release { position } => {
                self.release(name, *position);
                return Ok(());
            }
            _ => return Ok(()),
        };
        let (epoch, revision) = got.map_err(str::to_owned)?;
        self.store.sessions.insert(session, now + ttl);
        self.daemon(name).held = Some(authority(ttl, now, epoch, revision));
        self.daemon(name).sync.written = None;
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
            if position.is_some() {
                self.store.status.optime = position;
            }
            self.store.commit();
        }
        self.soon(name);
    }

    fn ask(&mut self, name: &NodeName, names: &BTreeSet<NodeName>) {
        for who in names {
            let known = self.nodes.get(who).is_some_and(|node| node.daemon.is_some());
            let refused = self.linked(name, who) && !known;
            let after = if refused || self.linked(name, who) { ANSWER + self.jitter(30) } else { PATIENCE };
            let (now, at) = (self.now, self.now + after);
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
        let now = self.now;
        if let Some(daemon) = &mut self.node(name).daemon {
            daemon.requests.push(coordinator::Request { id, asked: now, wish });
            daemon.wake = now;
        }
    }
}

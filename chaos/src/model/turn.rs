//! A turn: look, decide, carry out each step. The match knows every step, so that none can be forgotten; a step that the
//! model has no use for breaks [`Law::Unknown`], so that the abstraction is shown to be closed.

use std::collections::BTreeSet;

use config::NodeName;
use coordinator::{Step, decide};
use dcs::SyncState;

use super::Model;
use super::cast::Cast;
use super::memory::{memory, past};
use super::moment::NOW;
use super::observe::{list, record, rev};
use super::planted::Fault;
use super::state::{
    Cut, Daemon, Dir, Held, Key, Law, Lineage, NODES, Peer, Process, Record, Said, State, Sync, Work,
};
use super::work::work;

/// A step that did not succeed ends the turn.
pub struct Failed;

type Done = Result<(), Failed>;

/// One turn's world: who takes it, by which names, and whether the answer to its next write is lost.
pub struct Turn<'a> {
    pub next: &'a mut State,
    pub at: usize,
    pub cast: &'static Cast,
    pub lost: bool,
}

impl Model {
    /// One turn of one node; nothing if there is no such turn.
    pub(super) fn turn(
        &self,
        next: &mut State,
        at: usize,
        stale: bool,
        swapped: bool,
        lost: bool,
    ) -> Option<()> {
        let cast = Cast::seen_by(at, swapped)?;
        let connected = next.connected(at);
        let daemon = next.node_mut(at).daemon.as_mut()?;
        if connected && !stale {
            daemon.view = None;
        }
        let seen = *daemon;
        let observation = self.believe(self.observe(next, at, &seen, cast), cast);
        let decision = decide(&observation, &past(&seen.memory, cast));
        self.table.note(next.node(at), &decision.steps);
        let daemon = next.node_mut(at).daemon.as_mut()?;
        daemon.ended = None;
        match memory(&decision.past, cast) {
            Some(kept) => daemon.memory = kept,
            None => next.breaks(Law::Unknown),
        }
        let mut turn = Turn { next, at, cast, lost };
        for step in &decision.steps {
            if self.step(&mut turn, step).is_err() {
                break;
            }
        }
        if lost && turn.lost {
            // It wrote nothing: the same turn without the loss is another action.
            return None;
        }
        next.left.lost -= u8::from(lost);
        self.misbehave(next, at);
        self.publish(next, at);
        Some(())
    }

    /// The member record, as soon as it has changed.
    fn publish(&self, next: &mut State, at: usize) {
        if !next.connected(at) || next.node(at).daemon.is_none() {
            return;
        }
        let server = next.node(at).server;
        let record = Record {
            primary: server.writable(),
            running: server.process == Process::Up,
            pending: server.writable() && !server.settled,
            timeline: next.mint(server.mint).number,
        };
        let records = &mut next.store.records;
        if let Some(found) = records.members.get_mut(at).filter(|found| **found != Some(record)) {
            *found = Some(record);
            records.revision += 1;
        }
        if let Some(age) = next.store.member_age.get_mut(at) {
            *age = 0;
        }
    }

    fn step(&self, turn: &mut Turn<'_>, step: &Step) -> Done {
        match step {
            Step::Acquire(_) => self.acquire(turn),
            // Numbers are minted apart here: what is claimed is not of the state.
            Step::ClaimTimeline(_) => turn.online(),
            Step::Adopt { revision } => self.adopt(turn, rev(revision.0)),
            Step::Release { .. } => release(turn),
            Step::ClearFailover { revision } => clear_failover(turn, rev(revision.0)),
            Step::Ask(names) => {
                ask(turn, names);
                Ok(())
            }
            Step::ReadLineage(of) => {
                read_lineage(turn, of);
                Ok(())
            }
            Step::Follow(upstream) => {
                let from = upstream.as_ref().map(|from| turn.cast.id(from.member.as_str()));
                turn.next.server(turn.at).upstream = from;
                Ok(())
            }
            Step::WriteHistory => {
                turn.online()?;
                let number = turn.next.mint(turn.next.node(turn.at).server.mint).number;
                turn.next.store.records.timeline = number;
                turn.next.store.records.revision += 1;
                Ok(())
            }
            Step::WriteSync { sync, guard } => {
                self.write_sync(turn, sync, guard.map_or(0, |guard| rev(guard.0)))
            }
            Step::SetNames(text) => {
                let names = list(text, turn.cast);
                turn.next.server(turn.at).file = names;
                Ok(())
            }
            Step::Begin(task) => {
                match work(task, turn.cast) {
                    Some(work) => self.begin(turn.next, turn.at, work),
                    None => turn.next.breaks(Law::Unknown),
                }
                Ok(())
            }
            Step::Cancel => {
                self.cancel(turn.next, turn.at);
                Ok(())
            }
            Step::ClaimInitialize
            | Step::WriteInitialize(_)
            | Step::GiveUpInitialize
            | Step::RestoreConfig
            | Step::Slots(_)
            | Step::DeleteSync { .. }
            | Step::Evict(_)
            | Step::SeekLeave(_)
            | Step::GoOn { .. }
            | Step::SeekConsent(_)
            | Step::Answer(..)
            | Step::Exit { .. } => {
                turn.next.breaks(Law::Unknown);
                Err(Failed)
            }
        }
    }

    fn acquire(&self, turn: &mut Turn<'_>) -> Done {
        turn.online()?;
        let records = &mut turn.next.store.records;
        if records.leader.is_some() {
            return Err(Failed);
        }
        records.revision += 1;
        let revision = records.revision;
        let again = self.planted == Some(Fault::EpochReused);
        let epoch = if again { turn.next.ghost.epoch } else { revision };
        if epoch <= turn.next.ghost.epoch {
            turn.next.breaks(Law::Epoch);
        }
        turn.next.ghost.epoch = epoch;
        turn.next.left.reigns = turn.next.left.reigns.wrapping_sub(1);
        turn.next.store.records.leader = Some(Key { node: turn.me(), epoch, revision });
        turn.next.store.leader_age = 0;
        if turn.loses() {
            return Err(Failed);
        }
        turn.holds(epoch, revision);
        Ok(())
    }

    fn adopt(&self, turn: &mut Turn<'_>, guard: u8) -> Done {
        turn.online()?;
        let records = &mut turn.next.store.records;
        let mine = records.leader.filter(|key| usize::from(key.node) == turn.at && key.revision == guard);
        let Some(key) = mine else { return Err(Failed) };
        records.revision += 1;
        let revision = records.revision;
        records.leader = Some(Key { revision, ..key });
        turn.next.store.leader_age = 0;
        if turn.loses() {
            return Err(Failed);
        }
        turn.holds(key.epoch, revision);
        Ok(())
    }

    fn write_sync(&self, turn: &mut Turn<'_>, sync: &SyncState, guard: u8) -> Done {
        turn.online()?;
        let record = record(sync, guard, turn.cast);
        let found = turn.next.store.records.sync.map_or(0, |sync| sync.revision);
        if turn.loses() {
            turn.next.store.flight = Some(record);
            turn.daemon(|daemon| daemon.doubtful = true);
            return Err(Failed);
        }
        if found != guard {
            turn.daemon(|daemon| daemon.doubtful = false);
            return Err(Failed);
        }
        let records = &mut turn.next.store.records;
        records.revision += 1;
        let revision = records.revision;
        records.sync = Some(Sync { revision, ..record });
        turn.daemon(|daemon| (daemon.written, daemon.doubtful) = (revision, false));
        Ok(())
    }
}

impl Turn<'_> {
    fn me(&self) -> u8 {
        u8::try_from(self.at).unwrap_or(0)
    }

    /// The store can be reached.
    fn online(&self) -> Done {
        if self.next.node(self.at).cut == Cut::No { Ok(()) } else { Err(Failed) }
    }

    /// Whether the answer to this write is the one that is lost.
    fn loses(&mut self) -> bool {
        std::mem::take(&mut self.lost)
    }

    fn daemon(&mut self, change: impl FnOnce(&mut Daemon)) {
        if let Some(daemon) = &mut self.next.node_mut(self.at).daemon {
            change(daemon);
        }
    }

    fn holds(&mut self, epoch: u8, revision: u8) {
        self.daemon(|daemon| {
            daemon.held = Some(Held { epoch, revision, age: 0 });
            daemon.written = 0;
        });
        let server = self.next.server(self.at);
        if server.writable() {
            server.fence = Some(0);
        }
    }
}

/// Gives the lease back. Whatever comes of the request, the node does not lead any more.
fn release(turn: &mut Turn<'_>) -> Done {
    if turn.next.node(turn.at).server.writable() {
        turn.next.breaks(Law::Release);
    }
    let held = turn.next.node_mut(turn.at).daemon.as_mut().and_then(|daemon| daemon.held.take());
    let Some(held) = held else { return Ok(()) };
    turn.daemon(|daemon| daemon.released = held.epoch);
    turn.online()?;
    if turn.loses() {
        return Err(Failed);
    }
    let records = &mut turn.next.store.records;
    if records.leader.is_some_and(|key| key.epoch == held.epoch) {
        records.leader = None;
        records.revision += 1;
        turn.next.store.leader_age = 0;
    }
    Ok(())
}

/// A release that nobody decided.
pub fn give_back(next: &mut State, at: usize) {
    if let Some(cast) = Cast::seen_by(at, false) {
        // How it ends shows in the laws.
        let _ = release(&mut Turn { next, at, cast, lost: false });
    }
}

fn clear_failover(turn: &mut Turn<'_>, revision: u8) -> Done {
    turn.online()?;
    let records = &mut turn.next.store.records;
    if records.failover.is_some_and(|wished| wished.revision == revision) {
        records.failover = None;
        records.revision += 1;
    }
    Ok(())
}

/// Questions are answered at once, or not at all; an answer grows old while the one who gave it goes on.
fn ask(turn: &mut Turn<'_>, names: &BTreeSet<NodeName>) {
    let asked: Vec<usize> = names.iter().map(|name| usize::from(turn.cast.id(name.as_str()))).collect();
    for other in asked.into_iter().filter(|other| *other < NODES) {
        let heard = turn.next.linked(turn.at, other) && turn.next.awake(other).is_some();
        let server = turn.next.node(other).server;
        let runs = server.process == Process::Up && server.dir == Dir::Whole;
        let said = heard.then(|| Said {
            primary: server.writable(),
            position: if runs { server.end } else { 0 },
            timeline: turn.next.mint(server.mint).number,
        });
        turn.daemon(|daemon| {
            if let Some(peer) = daemon.peers.get_mut(other) {
                *peer = Some(Peer { asked: NOW, said });
            }
        });
    }
}

fn read_lineage(turn: &mut Turn<'_>, of: &NodeName) {
    let other = usize::from(turn.cast.id(of.as_str()));
    let view = turn.next.view(turn.at);
    let (Some(key), true) = (view.and_then(|view| view.leader), other < NODES) else { return };
    let server = turn.next.node(other).server;
    if !turn.next.linked(turn.at, other) || server.process != Process::Up {
        return;
    }
    let member = u8::try_from(other).unwrap_or(0);
    let settled = server.primary && server.settled;
    let read = Lineage { member, epoch: key.epoch, mint: server.mint, settled };
    turn.daemon(|daemon| daemon.history = Some(read));
}

/// What a job of this kind needs before the server may take writes: a proof of the lease.
#[must_use]
pub fn makes_writable(work: Work) -> bool {
    matches!(work, Work::Promote(..) | Work::RestartInPlace(_))
}

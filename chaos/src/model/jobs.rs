//! What jobs leave behind. Those between whose beginning and end something may come are begun here and end by an action
//! of their own: promotions and starts as primary, in two steps (the proof, the act), stops and rewinds. The others are
//! done at once, and their end is seen by the next turn.

use super::Model;
use super::act::is_whole;
use super::moment::NOW;
use super::planted::Fault;
use super::state::{Control, Daemon, Dir, Ended, Job, Law, Names, Process, State, Work};
use super::turn::makes_writable;

impl Model {
    /// Begins a job, in place of any other.
    pub(super) fn begin(&self, next: &mut State, at: usize, work: Work) {
        let later = makes_writable(work)
            || matches!(work, Work::Handover | Work::Fast | Work::Immediate | Work::Rewind(_));
        if let Work::Rewind(_) = work
            && next.node(at).server.dir == Dir::Whole
        {
            next.server(at).dir = Dir::Toxic;
        }
        if later {
            if let Some(daemon) = &mut next.node_mut(at).daemon {
                daemon.job = Some(Job { work, proven: false, since: NOW });
            }
            return;
        }
        let done = self.does(next, at, work);
        ends(next, at, work, done);
    }

    /// A job ends at once; what it was about to make writable is killed.
    pub(super) fn cancel(&self, next: &mut State, at: usize) {
        let job = next.node_mut(at).daemon.as_mut().and_then(|daemon| daemon.job.take());
        if job.is_some_and(|job| makes_writable(job.work)) {
            self.begin(next, at, Work::KillRemnants);
        }
    }

    /// The proof before anything becomes writable: a transaction in the store, then the fencer.
    pub(super) fn prove(&self, next: &mut State, at: usize) {
        let key = next.store.records.leader;
        let online = next.connected(at);
        let host = next.node_mut(at);
        let Some(daemon) = &mut host.daemon else { return };
        let Some(job) = daemon.job else { return };
        let (Work::Promote(epoch, _) | Work::RestartInPlace(epoch)) = job.work else { return };
        let ours = key.is_some_and(|key| usize::from(key.node) == at && key.epoch == epoch);
        let leads = daemon.held.filter(|held| held.epoch == epoch && held.age < 2);
        let skipped = self.planted == Some(Fault::ProofSkipped);
        if let Some(held) = &mut daemon.held
            && online
            && !ours
        {
            // The store denies it: the node steps down now.
            held.age = held.age.max(2);
        }
        if (online && ours && leads.is_some()) || skipped {
            host.server.fence = Some(leads.map_or(0, |held| held.age));
            daemon.job = Some(Job { proven: true, ..job });
        } else {
            ends(next, at, job.work, false);
        }
    }

    /// A job comes to its end.
    pub(super) fn finish(&self, next: &mut State, at: usize) {
        let Some(job) = next.node(at).daemon.and_then(|daemon| daemon.job) else { return };
        let done = self.does(next, at, job.work);
        ends(next, at, job.work, done);
    }

    /// Does it; whether that succeeded.
    fn does(&self, next: &mut State, at: usize, work: Work) -> bool {
        match work {
            Work::StartStandby(upstream) => self.start_standby(next, at, upstream),
            Work::RestartInPlace(epoch) => self.restart_in_place(next, at, epoch),
            Work::Promote(epoch, above) => self.promote(next, at, epoch, above),
            Work::Handover | Work::Fast => stop_cleanly(next, at),
            Work::Immediate | Work::KillRemnants => {
                let server = next.server(at);
                server.crash(Process::Gone);
                (server.process, server.fence) = (Process::Gone, None);
                true
            }
            Work::Checkpoint => {
                let server = next.server(at);
                server.settled = true;
                server.process == Process::Up
            }
            Work::Clone(from) => clone_from(next, at, usize::from(from)),
            Work::RecoverCrash => {
                let server = next.server(at);
                if server.process != Process::Gone || server.dir != Dir::Whole {
                    return false;
                }
                server.end += 1;
                server.control = Control::ShutDown;
                true
            }
            Work::Rewind(from) => rewind_from(next, at, usize::from(from)),
            Work::Retire(leader) => retire(next, at, leader.map(usize::from)),
        }
    }

    fn leads_in(&self, daemon: Option<Daemon>, epoch: u8) -> bool {
        let held = daemon.and_then(|daemon| daemon.held);
        self.planted == Some(Fault::ProofSkipped)
            || held.is_some_and(|held| held.epoch == epoch && held.age < 2)
    }

    /// What holds at the moment in which a server becomes writable.
    fn is_entitled(next: &mut State, at: usize, epoch: u8) {
        let key = next.store.records.leader;
        let ours = key.is_some_and(|key| usize::from(key.node) == at && key.epoch == epoch);
        let held = next.node(at).daemon.and_then(|daemon| daemon.held);
        let guarded = next.node(at).server.fence.is_some();
        if !ours || !guarded || held.is_none_or(|held| held.epoch != epoch || held.age >= 2) {
            next.breaks(Law::Lease);
        }
    }

    fn start_standby(&self, next: &mut State, at: usize, upstream: Option<u8>) -> bool {
        let list = self.list_of_standby;
        if next.node(at).server.process != Process::Gone {
            return false;
        }
        if !is_whole(&next.node(at).server) {
            if self.hides_mark() {
                next.breaks(Law::Toxic);
            }
            // The executor refuses it, and so it fails.
            return false;
        }
        let server = next.server(at);
        (server.upstream, server.fence) = (upstream, None);
        if self.synchronous() {
            server.file = list;
        }
        server.start(false);
        true
    }

    fn restart_in_place(&self, next: &mut State, at: usize, epoch: u8) -> bool {
        let server = next.node(at).server;
        let able = server.process == Process::Gone && is_whole(&server);
        if !able || !self.leads_in(next.node(at).daemon, epoch) {
            return false;
        }
        Self::is_entitled(next, at, epoch);
        let server = next.server(at);
        server.upstream = None;
        server.start(true);
        true
    }

    fn promote(&self, next: &mut State, at: usize, epoch: u8, above: u8) -> bool {
        let server = next.node(at).server;
        let able = server.process == Process::Up && !server.primary;
        if !able || !self.leads_in(next.node(at).daemon, epoch) {
            return false;
        }
        let Some(mint) = next.make(&server, above) else { return false };
        Self::is_entitled(next, at, epoch);
        let server = next.server(at);
        (server.mint, server.primary, server.signal) = (mint, true, false);
        (server.control, server.settled) = (Control::InProduction, false);
        server.upstream = None;
        // The end of recovery is a record.
        server.end += 1;
        true
    }
}

fn ends(next: &mut State, at: usize, work: Work, done: bool) {
    if let Some(daemon) = &mut next.node_mut(at).daemon {
        daemon.job = None;
        daemon.ended = Some(Ended { work, failed: !done, at: NOW });
    }
}

/// A clean stop; a primary's sends all that it has to those who stream.
fn stop_cleanly(next: &mut State, at: usize) -> bool {
    let server = next.node(at).server;
    if server.process != Process::Up {
        next.server(at).process = Process::Gone;
        return true;
    }
    if server.primary {
        next.server(at).end += 1;
        let whole = next.node(at).server;
        for other in 0..next.nodes.len() {
            if next.streams(other) == Some(at) {
                let standby = next.server(other);
                (standby.mint, standby.end) = (whole.mint, whole.end);
            }
        }
    }
    let server = next.server(at);
    server.control = if server.primary { Control::ShutDown } else { Control::ShutDownInRecovery };
    (server.process, server.primary, server.fence) = (Process::Gone, false, None);
    server.down = Some(NOW);
    true
}

fn source(next: &State, at: usize, from: usize) -> Option<super::state::Server> {
    let server = next.node(from).server;
    (next.linked(at, from) && from != at && server.process == Process::Up && is_whole(&server))
        .then_some(server)
}

fn clone_from(next: &mut State, at: usize, from: usize) -> bool {
    let Some(source) = source(next, at, from) else { return false };
    let server = next.server(at);
    if server.dir != Dir::Empty || server.process != Process::Gone {
        return false;
    }
    (server.dir, server.mint, server.end) = (Dir::Whole, source.mint, source.end);
    (server.control, server.signal) = (Control::InRecovery, true);
    (server.settled, server.file) = (source.settled, Names::Nobody);
    true
}

fn rewind_from(next: &mut State, at: usize, from: usize) -> bool {
    let Some(source) = source(next, at, from).filter(|source| source.primary) else { return false };
    let mine = next.node(at).server;
    if mine.process != Process::Gone || mine.dir == Dir::Empty {
        return false;
    }
    let fork = next.common((mine.mint, mine.end), (source.mint, source.end));
    let mint = next.mint_at(source.mint, fork);
    let same = next.mint(mine.mint).number == next.mint(source.mint).number;
    let server = next.server(at);
    if !same {
        (server.mint, server.end) = (mint, fork);
    }
    (server.dir, server.control, server.signal) = (Dir::Whole, Control::InRecovery, true);
    true
}

/// Custody's part: only while another proves to lead and to take writes is a directory moved aside.
fn retire(next: &mut State, at: usize, leader: Option<usize>) -> bool {
    let Some(leader) = leader else { return false };
    let holds = next.store.records.leader.is_some_and(|key| usize::from(key.node) == leader);
    let server = next.node(leader).server;
    let proves = holds && server.writable() && next.linked(at, leader) && next.connected(at);
    if !proves || next.node(at).server.process != Process::Gone {
        return false;
    }
    let mine = next.server(at);
    (mine.dir, mine.signal, mine.settled) = (Dir::Empty, false, false);
    (mine.mint, mine.end, mine.control) = (0, 0, Control::ShutDown);
    (mine.upstream, mine.file, mine.names) = (None, Names::Nobody, Names::Nobody);
    true
}

//! What may happen next, and what comes of it: one function for each event of the environment. What a node does of its
//! own accord is in `turn.rs`, what a job does in `jobs.rs`.

use super::Model;
use super::moment::NOW;
use super::planted::Fault;
use super::state::{
    Control, Cut, Daemon, Dir, Law, Memory, NODES, Node, Process, Records, Server, State, Wished, Work,
};

/// One event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// A tick passes: leases are renewed where that is possible, everything else grows older, fencers fire.
    Tick,
    /// A node looks, decides and carries out the steps.
    Turn {
        /// Who.
        node: u8,
        /// By the view that it has, although the store has changed since.
        stale: bool,
        /// The names of the other two exchanged.
        swapped: bool,
        /// The answer to its first write to the store is lost.
        lost: bool,
    },
    /// A job proves the lease and arms the fencer.
    Prove(u8),
    /// A job ends.
    Finish(u8),
    /// A server reads its changed settings.
    Reload(u8),
    /// A standby receives one record.
    Replicate(u8),
    /// A client writes.
    Write(u8),
    /// A host goes down with all that runs on it.
    CrashHost(u8),
    /// A server ends on its own; perhaps not all of its processes.
    CrashServer {
        /// Which.
        node: u8,
        /// Some processes are left.
        remnants: bool,
    },
    /// A daemon starts.
    Start(u8),
    /// A daemon is stopped by a signal, its lease thread too.
    Freeze(u8),
    /// It goes on.
    Thaw(u8),
    /// A daemon keeps the view that it has for a while.
    Lag(u8),
    /// A host is cut off.
    CutOff(u8, Cut),
    /// It is not any more.
    Heal(u8),
    /// The store notices that the leader's lease has run out.
    Expire,
    /// A write of the sync record arrives of which nobody expects it.
    Arrive,
    /// People ask for a switchover.
    Switchover(Option<u8>),
}

/// How many ticks a lease lives in the store.
pub const LEASE: u8 = 3;

impl State {
    /// A host.
    #[must_use]
    #[allow(clippy::indexing_slicing, reason = "nodes are numbered below NODES throughout the model")]
    pub fn node(&self, node: usize) -> &Node {
        &self.nodes[node]
    }

    /// A host, to change it.
    #[allow(clippy::indexing_slicing, reason = "nodes are numbered below NODES throughout the model")]
    pub fn node_mut(&mut self, node: usize) -> &mut Node {
        &mut self.nodes[node]
    }

    /// Its server.
    pub fn server(&mut self, node: usize) -> &mut Server {
        &mut self.node_mut(node).server
    }

    /// Its daemon, if it can do something.
    #[must_use]
    pub fn awake(&self, node: usize) -> Option<&Daemon> {
        self.node(node).daemon.as_ref().filter(|daemon| !daemon.frozen)
    }

    /// Whether a node can talk to the store.
    #[must_use]
    pub fn connected(&self, node: usize) -> bool {
        self.node(node).cut == Cut::No
    }

    /// Whether two nodes can talk.
    #[must_use]
    pub fn linked(&self, one: usize, other: usize) -> bool {
        self.node(one).cut != Cut::All && self.node(other).cut != Cut::All
    }

    /// The newest view that a node has.
    #[must_use]
    pub fn view(&self, node: usize) -> Option<Records> {
        let kept = self.node(node).daemon.and_then(|daemon| daemon.view);
        kept.or_else(|| self.connected(node).then_some(self.store.records))
    }

    /// From now on the view of a node is the one that it has now.
    fn keeps_view(&mut self, node: usize) {
        let view = self.view(node);
        if let Some(daemon) = &mut self.node_mut(node).daemon {
            daemon.view = view;
        }
    }

    /// Notes that a law was broken.
    pub fn breaks(&mut self, law: Law) {
        self.ghost.broken.get_or_insert(law);
    }
}

impl Server {
    /// It takes writes.
    #[must_use]
    pub fn writable(&self) -> bool {
        self.process == Process::Up && self.primary
    }

    /// Its processes end without a clean stop.
    pub fn crash(&mut self, left: Process) {
        if self.process != Process::Gone {
            (self.process, self.down) = (left, Some(NOW));
            (self.primary, self.fence) = (false, None);
        }
    }

    /// It starts.
    pub fn start(&mut self, primary: bool) {
        (self.process, self.primary, self.signal) = (Process::Up, primary, !primary);
        self.control = if primary { Control::InProduction } else { Control::InRecovery };
        self.names = self.file;
        (self.crashed, self.down) = (None, None);
    }
}

impl Daemon {
    /// A daemon that has just been started.
    #[must_use]
    pub fn new() -> Self {
        Self {
            frozen: false,
            view: None,
            held: None,
            released: 0,
            written: 0,
            doubtful: false,
            job: None,
            ended: None,
            history: None,
            peers: [None; NODES],
            memory: Memory::default(),
        }
    }
}

impl Default for Daemon {
    fn default() -> Self {
        Self::new()
    }
}

fn small(node: usize) -> u8 {
    u8::try_from(node).unwrap_or(0)
}

impl Model {
    /// Everything that may happen next.
    pub(super) fn offers(&self, state: &State, actions: &mut Vec<Action>) {
        actions.push(Action::Tick);
        for node in 0..NODES {
            self.offers_of(state, node, actions);
        }
        let store = &state.store;
        let early = self.planted == Some(Fault::LeaseEndsEarly);
        if store.records.leader.is_some() && (store.leader_age >= LEASE || (early && store.leader_age > 0)) {
            actions.push(Action::Expire);
        }
        if store.flight.is_some() {
            actions.push(Action::Arrive);
        }
        if let (Some(key), None, true) =
            (store.records.leader, store.records.failover, state.left.switchovers > 0)
        {
            actions.push(Action::Switchover(None));
            let others = (0..NODES).map(small).filter(|node| *node != key.node);
            actions.extend(others.map(|node| Action::Switchover(Some(node))));
        }
    }

    fn offers_of(&self, state: &State, at: usize, actions: &mut Vec<Action>) {
        let (host, node, left) = (state.node(at), small(at), &state.left);
        if let Some(daemon) = state.awake(at) {
            let ties =
                self.synchronous() || state.store.records.failover.is_some() || self.hands_over(daemon);
            for swapped in [false, true] {
                if swapped && !ties {
                    continue;
                }
                actions.push(Action::Turn { node, stale: false, swapped, lost: false });
                if daemon.view.is_some() && host.cut == Cut::No {
                    actions.push(Action::Turn { node, stale: true, swapped, lost: false });
                }
                if left.lost > 0 && host.cut == Cut::No {
                    actions.push(Action::Turn { node, stale: false, swapped, lost: true });
                }
            }
            if let Some(job) = daemon.job {
                let must = matches!(job.work, Work::Promote(..) | Work::RestartInPlace(_));
                actions.push(if must && !job.proven { Action::Prove(node) } else { Action::Finish(node) });
            }
            if left.lags > 0 && host.cut == Cut::No && daemon.view.is_none() {
                actions.push(Action::Lag(node));
            }
            if left.pauses > 0 && daemon.held.is_some() {
                actions.push(Action::Freeze(node));
            }
        }
        match host.daemon {
            None => actions.push(Action::Start(node)),
            Some(daemon) if daemon.frozen => actions.push(Action::Thaw(node)),
            Some(_) => {}
        }
        let server = &host.server;
        if server.process == Process::Up && server.file != server.names {
            actions.push(Action::Reload(node));
        }
        if state.streams(at).is_some_and(|from| state.node(from).server.end > server.end) {
            actions.push(Action::Replicate(node));
        }
        if server.writable() && left.writes > 0 {
            actions.push(Action::Write(node));
        }
        if left.crashes > 0 && host.daemon.is_some() {
            actions.push(Action::CrashHost(node));
            if server.process == Process::Up {
                actions.push(Action::CrashServer { node, remnants: false });
                actions.push(Action::CrashServer { node, remnants: true });
            }
        }
        match host.cut {
            Cut::No if left.cuts > 0 && host.daemon.is_some() => {
                actions.extend([Action::CutOff(node, Cut::Store), Action::CutOff(node, Cut::All)]);
            }
            Cut::No => {}
            Cut::Store | Cut::All => actions.push(Action::Heal(node)),
        }
    }

    fn hands_over(&self, daemon: &Daemon) -> bool {
        daemon.memory.intent.is_some() || daemon.view.is_some_and(|view| view.failover.is_some())
    }

    /// What comes of it, as it is, with the nodes numbered as before; nothing if nothing changes.
    #[must_use]
    pub fn happens(&self, state: &State, action: Action) -> Option<State> {
        let mut next = *state;
        next.ghost.broken = None;
        match action {
            Action::Tick => self.tick(&mut next),
            Action::Turn { node, stale, swapped, lost } => {
                self.turn(&mut next, usize::from(node), stale, swapped, lost)?;
            }
            Action::Prove(node) => self.prove(&mut next, usize::from(node)),
            Action::Finish(node) => self.finish(&mut next, usize::from(node)),
            Action::Reload(node) => reload(next.server(usize::from(node))),
            Action::Replicate(node) => self.replicate(&mut next, usize::from(node)),
            Action::Write(node) => self.write(&mut next, usize::from(node)),
            Action::CrashHost(node) => {
                next.left.crashes -= 1;
                let host = next.node_mut(usize::from(node));
                host.daemon = None;
                host.server.crash(Process::Gone);
                (host.server.process, host.server.crashed, host.server.down) = (Process::Gone, None, None);
            }
            Action::CrashServer { node, remnants } => {
                next.left.crashes -= 1;
                let server = next.server(usize::from(node));
                server.crash(if remnants { Process::Remnants } else { Process::Gone });
                server.crashed = Some(NOW);
            }
            Action::Start(node) => next.node_mut(usize::from(node)).daemon = Some(Daemon::new()),
            Action::Freeze(node) | Action::Thaw(node) => {
                let stops = matches!(action, Action::Freeze(_));
                next.left.pauses -= u8::from(stops);
                next.keeps_view(usize::from(node));
                if let Some(daemon) = &mut next.node_mut(usize::from(node)).daemon {
                    daemon.frozen = stops;
                }
            }
            Action::Lag(node) => {
                next.left.lags -= 1;
                next.keeps_view(usize::from(node));
            }
            Action::CutOff(node, from) => {
                next.left.cuts -= 1;
                next.keeps_view(usize::from(node));
                next.node_mut(usize::from(node)).cut = from;
            }
            Action::Heal(node) => next.node_mut(usize::from(node)).cut = Cut::No,
            Action::Expire => {
                next.store.records.leader = None;
                next.store.records.revision += 1;
            }
            Action::Arrive => arrive(&mut next),
            Action::Switchover(candidate) => ask_for_switchover(&mut next, candidate),
        }
        self.acknowledge(&mut next);
        Some(next)
    }
}

fn reload(server: &mut Server) {
    let old = std::mem::replace(&mut server.names, server.file);
    if server.primary && !server.stale.contains(&Some(old)) {
        // Two are enough: a third would need a third change within a tick, and is not tried before the second settles.
        let free = server.stale.iter_mut().find(|slot| slot.is_none());
        if let Some(slot) = free {
            *slot = Some(old);
        }
    }
}

fn arrive(next: &mut State) {
    let Some(mut late) = next.store.flight.take() else { return };
    // Only a planted fault leaves a write without its guard.
    if late.revision == 0 || next.store.records.sync.map(|sync| sync.revision) == Some(late.revision) {
        next.store.records.revision += 1;
        late.revision = next.store.records.revision;
        next.store.records.sync = Some(late);
    }
}

fn ask_for_switchover(next: &mut State, candidate: Option<u8>) {
    let Some(key) = next.store.records.leader else { return };
    next.left.switchovers -= 1;
    next.store.records.revision += 1;
    let revision = next.store.records.revision;
    next.store.records.failover = Some(Wished { leader: key.node, candidate, revision });
}

/// A directory that can be started.
#[must_use]
pub fn is_whole(server: &Server) -> bool {
    server.dir == Dir::Whole
}

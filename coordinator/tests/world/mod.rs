//! A small deterministic world for decisions: hosts, simulated servers, a simulated
//! store, links, one clock. Every node runs the production `decide`, and every
//! step it takes is carried out here. No real time, no files, no sockets.

#![allow(dead_code)]

pub mod book;
mod check;
mod failsafe;
mod jobs;
mod moving;
mod node;
pub mod planted;
pub mod plot;
mod renew;
pub mod script;
mod server;
mod setup;
mod steps;
mod store;
mod synchronous;
mod verbs;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use config::NodeName;
use coordinator::{Asked, Outcome, Peer, Process, Task};
use dcs::{Lsn, Moment};

use node::{Daemon, Node};
use planted::Fault;
use store::Store;

/// How long the store's watch takes to tell.
const WATCH: Duration = Duration::from_millis(2);
/// How long an answer of a member takes.
const ANSWER: Duration = Duration::from_millis(5);
/// How long a member that cannot be reached is waited for.
const PATIENCE: Duration = Duration::from_millis(500);
/// How often a daemon looks although nothing happened.
const PULSE: Duration = Duration::from_millis(500);
/// How soon a turn follows one that has done something.
const SOON: Duration = Duration::from_millis(3);

/// The world.
#[derive(Debug)]
pub struct World {
    pub now: Moment,
    pub store: Store,
    pub nodes: BTreeMap<NodeName, Node>,
    /// Broken links, in both directions; the store is called "store".
    pub cuts: BTreeSet<(String, String)>,
    pub planted: Option<Fault>,
    /// Everything that a client was told is written: the log as it was then.
    pub acknowledged: Vec<server::Wal>,
    /// Those of them that must never be lost.
    pub promised: Vec<server::Wal>,
    /// An operator accepts a loss.
    pub losing: bool,
    /// The transcript.
    pub log: Vec<String>,
    /// The names of the reasons that the transcript shows.
    pub shown: BTreeSet<String>,
    /// Broken invariants.
    pub violations: Vec<String>,
    /// Nothing is written while the cluster is being set up.
    pub quiet: bool,
    /// The script says that this cluster cannot come together unaided.
    pub stays: Option<String>,
    mints: u64,
    requests: u64,
    random: Option<u64>,
    told: u64,
    both_since: Option<Moment>,
}

impl World {
    pub fn new(seed: Option<u64>) -> Self {
        Self {
            now: Moment(1_000_000_000_000),
            store: Store::new(),
            nodes: BTreeMap::new(),
            cuts: BTreeSet::new(),
            planted: None,
            acknowledged: Vec::new(),
            promised: Vec::new(),
            losing: false,
            log: Vec::new(),
            shown: BTreeSet::new(),
            violations: Vec::new(),
            quiet: false,
            stays: None,
            mints: 0,
            requests: 0,
            random: seed,
            told: 0,
            both_since: None,
        }
    }

    /// The next of a repeatable sequence; always 0 without a seed.
    pub fn random(&mut self, below: u64) -> u64 {
        let Some(state) = &mut self.random else { return 0 };
        *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (*state >> 33) % below.max(1)
    }

    pub(crate) fn jitter(&mut self, millis: u64) -> Duration {
        Duration::from_millis(self.random(millis))
    }

    fn node(&mut self, name: &NodeName) -> &mut Node {
        self.nodes.get_mut(name).expect("a known node")
    }

    fn daemon(&mut self, name: &NodeName) -> &mut Daemon {
        self.node(name).daemon.as_mut().expect("a running daemon")
    }

    pub(crate) fn names(&self) -> Vec<NodeName> {
        self.nodes.keys().cloned().collect()
    }

    /// Whether two ends can talk; `store` is an end too.
    pub(crate) fn link(&self, one: &str, other: &str) -> bool {
        let (first, second) = if one < other { (one, other) } else { (other, one) };
        !self.cuts.contains(&(first.to_owned(), second.to_owned()))
    }

    pub(crate) fn linked(&self, one: &NodeName, other: &NodeName) -> bool {
        self.link(one.as_str(), other.as_str()) && self.nodes.get(other).is_some_and(|node| node.up)
    }

    /// Whether a daemon can talk to the store.
    pub(crate) fn connected(&self, name: &NodeName) -> bool {
        self.store.up && self.link(name.as_str(), "store")
    }

    pub(crate) fn say(&mut self, who: &str, what: &str) {
        if self.quiet {
            return;
        }
        let since = self.now.0.saturating_sub(self.told) / 100_000_000;
        self.log.push(format!("{:>6} {who:<6} {what}", format!("{}.{}", since / 10, since % 10)));
    }

    pub(crate) fn broken(&mut self, what: String) {
        if !self.violations.contains(&what) {
            self.say("BROKEN", &what);
            self.violations.push(what);
        }
    }

    /// Time counts from here in the transcript.
    pub(crate) fn begin_transcript(&mut self) {
        self.quiet = false;
        self.told = self.now.0;
    }

    /// Lets time pass.
    pub fn run(&mut self, span: Duration) {
        let end = self.now + span;
        self.settle();
        while let Some(at) = self.next_event().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.event();
        }
        self.now = end;
        self.settle();
    }

    fn next_event(&self) -> Option<Moment> {
        let daemons = self.nodes.values().filter_map(|node| node.daemon.as_ref()).map(Daemon::next);
        daemons.chain(self.store.sessions.values().copied()).min()
    }

    /// Everything that is due now.
    fn event(&mut self) {
        for told in self.store.expire(self.now) {
            self.say("store", &told);
        }
        for name in self.names() {
            if self.nodes[&name].daemon.is_some() {
                self.attend(&name);
            }
        }
        self.settle();
    }

    /// What follows from the state of things at once: replication, watches, checks.
    fn settle(&mut self) {
        self.pump();
        self.acknowledge();
        let revision = self.store.revision;
        for name in self.names() {
            let delay = WATCH + self.jitter(20);
            let connected = self.connected(&name);
            let due = self.now + delay;
            if let Some(daemon) = self.node(&name).daemon.as_mut()
                && connected
                && daemon.reachable
                && daemon.view_due.is_none()
                && daemon.view.as_ref().is_none_or(|view| view.revision.0 < revision)
            {
                daemon.view_due = Some(due);
            }
        }
        self.check();
    }

    /// One daemon: what arrived for it, its lease, its job, its turn.
    fn attend(&mut self, name: &NodeName) {
        let now = self.now;
        let mut woken = self.renew(name);
        woken |= self.arrivals(name) | self.leaves_arrive(name);
        let daemon = self.daemon(name);
        if let Some((job, _)) = daemon.job.take_if(|(_, ends)| *ends <= now) {
            let failure = self.job_ends(name, &job.task).err();
            if let Task::Restart { request: Some(id), .. } = job.task {
                self.daemon(name).requests.retain(|request| request.id != id);
                let how = if failure.is_none() { "restarted" } else { "the restart failed" };
                self.say(name.as_str(), &format!("(request {id} is answered: {how})"));
            }
            self.daemon(name).ended = Some(Outcome { task: job.task, at: now, failure });
            woken = true;
        }
        if woken || self.daemon(name).wake <= now {
            self.turn(name);
        }
        if self.nodes[name].daemon.is_some() {
            self.publish(name);
        }
    }

    fn arrivals(&mut self, name: &NodeName) -> bool {
        let (now, connected) = (self.now, self.connected(name));
        let mut woken = false;
        if self.daemon(name).view_due.take_if(|due| *due <= now).is_some() && connected {
            let (view, settings) = (self.store.view(), self.store.settings.clone());
            let daemon = self.daemon(name);
            daemon.view = Some(view);
            daemon.settings = settings;
            daemon.seen = now;
            woken = true;
        }
        let due: Vec<NodeName> = self
            .daemon(name)
            .answers_due
            .extract_if(.., |(due, _)| *due <= now)
            .map(|(_, who)| who)
            .collect();
        for who in due {
            let heard = self.linked(name, &who) && self.nodes[&who].daemon.is_some();
            let answer = if heard { Asked::Answered(now, self.nodes[&who].answer()) } else { Asked::Nothing };
            let daemon = self.daemon(name);
            let asked = daemon.peers.get(&who).map_or(now, |peer| peer.asked);
            daemon.peers.insert(who, Peer { asked, answer });
            woken = true;
        }
        if let Some((_, who, epoch)) = self.daemon(name).history_due.take_if(|(due, ..)| *due <= now) {
            let read = self.linked(name, &who).then(|| self.nodes[&who].lineage(epoch)).flatten();
            if read.is_some() {
                self.daemon(name).history = read;
            }
            woken = true;
        }
        woken
    }

    /// Replication: every standby that can stream has all that its upstream has.
    pub(crate) fn pump(&mut self) {
        // Twice, so that what cascades arrives too.
        for _ in 0..2 {
            for name in self.names() {
                self.stream(&name);
            }
        }
    }

    fn stream(&mut self, name: &NodeName) {
        let server = &self.nodes[name].server;
        let upstream = server.upstream.as_ref().map(|upstream| upstream.member.clone());
        let able = self.nodes[name].up && server.process == Process::Postmaster && !server.primary;
        let source =
            upstream.filter(|from| able && !server.frozen && from != name && self.linked(name, from));
        let source = source.and_then(|from| {
            let server = &self.nodes.get(&from)?.server;
            let open = server.process == Process::Postmaster;
            Some((from, server.dir.as_ref().filter(|_| open)?.wal.clone()))
        });
        let (Some((from, theirs)), Some(mine)) = (source, server.dir.as_ref().map(|dir| dir.wal.clone()))
        else {
            self.node(name).server.streaming = false;
            return;
        };
        // As Postgres does: by number only.
        let (own, leads) = (mine.timeline(), theirs.timeline());
        let possible = if own == leads {
            mine.end <= theirs.end
        } else {
            theirs.switches().iter().any(|(past, at)| *past == own && Lsn(mine.end) <= *at)
        };
        if possible && !mine.is_part_of(&theirs) {
            self.broken(format!("{name} streams from {from}, and their histories are not the same"));
        }
        let server = &mut self.node(name).server;
        server.streaming = possible;
        if possible && server.torn && server.hung.take().is_some() {
            server.torn = false;
        }
        if let Some(dir) = server.dir.as_mut().filter(|_| possible) {
            dir.wal = theirs;
            if dir.floor.is_some_and(|floor| Lsn(dir.wal.end) >= floor) {
                dir.floor = None;
            }
        }
    }
}

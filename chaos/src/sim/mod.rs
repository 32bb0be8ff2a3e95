//! A small deterministic world for decisions: hosts, simulated servers, a simulated
//! store, links, one clock. Every node runs the production `decide`, and every
//! step it takes is carried out here. No real time, no files, no sockets.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a world that contradicts itself must stop at once: its judgements would be worth nothing"
)]

mod admission;
mod aim;
pub mod catalogue;
pub mod chance;
mod check;
mod clock;
pub mod command;
mod expect;
mod failsafe;
mod faults;
mod fencer;
mod jobs;
mod law;
pub mod many;
mod marks;
mod moving;
mod network;
mod node;
pub mod planted;
pub mod plot;
pub mod reasons;
mod renew;
mod replication;
mod rescue;
pub mod script;
mod server;
mod setup;
pub mod shrink;
mod steps;
mod stopped;
mod store;
mod synchronous;
pub mod trial;
mod verbs;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use config::NodeName;
use coordinator::{Asked, Outcome, Peer, Task};
use dcs::Moment;

use chance::{Chances, Stream};
use network::Kind;
use node::{Daemon, Node};
use planted::Fault;
pub use steps::variant;
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
    /// What is cut in one direction only.
    pub deaf: BTreeSet<(String, String)>,
    /// What is cut between two nodes for one kind of talk only.
    pub kinds: BTreeSet<(Kind, NodeName, NodeName)>,
    pub planted: Option<Fault>,
    /// What clients were told, and may count on.
    pub law: law::Ledger,
    /// Rows of the catalogue of failures that this world has been through.
    pub marks: BTreeSet<&'static str>,
    /// When the clients write next.
    clients_due: Option<Moment>,
    /// The transcript.
    pub log: Vec<String>,
    /// The names of the reasons that the transcript shows.
    pub shown: BTreeSet<String>,
    /// Broken invariants.
    pub violations: Vec<String>,
    /// A digest of everything that happened.
    pub digest: u64,
    /// Events so far.
    pub events: u64,
    /// No transcript is kept.
    pub mute: bool,
    /// Nothing is written while the cluster is being set up.
    pub quiet: bool,
    /// The script says that this cluster cannot come together unaided.
    pub stays: Option<String>,
    roster: Arc<[NodeName]>,
    mints: u64,
    /// As it was when the transcript began.
    mints_then: u64,
    requests: u64,
    pub(crate) chances: Chances,
    told: u64,
    both_since: Option<Moment>,
}

impl World {
    pub fn new(seed: Option<u64>) -> Self {
        Self {
            now: clock::DAWN,
            store: Store::new(),
            nodes: BTreeMap::new(),
            cuts: BTreeSet::new(),
            deaf: BTreeSet::new(),
            kinds: BTreeSet::new(),
            planted: None,
            law: law::Ledger::default(),
            marks: BTreeSet::new(),
            clients_due: None,
            log: Vec::new(),
            shown: BTreeSet::new(),
            violations: Vec::new(),
            digest: 0xCBF2_9CE4_8422_2325,
            events: 0,
            mute: false,
            quiet: false,
            stays: None,
            roster: Arc::new([]),
            mints: 0,
            mints_then: 0,
            requests: 0,
            chances: Chances::new(seed),
            told: 0,
            both_since: None,
        }
    }

    pub(crate) fn jitter(&mut self, millis: u64) -> Duration {
        Duration::from_millis(self.chances.roll(Stream::Net, millis))
    }

    /// This row of the catalogue was met.
    pub(crate) fn hit(&mut self, row: &'static str) {
        if !self.quiet {
            self.marks.insert(row);
        }
    }

    fn node(&mut self, name: &NodeName) -> &mut Node {
        self.nodes.get_mut(name).expect("a known node")
    }

    fn daemon(&mut self, name: &NodeName) -> &mut Daemon {
        self.node(name).daemon.as_mut().expect("a running daemon")
    }

    /// The nodes' names, apart from the nodes.
    pub(crate) fn names(&mut self) -> Arc<[NodeName]> {
        if self.roster.len() != self.nodes.len() {
            self.roster = self.nodes.keys().cloned().collect();
        }
        self.roster.clone()
    }

    pub(crate) fn linked(&self, one: &NodeName, other: &NodeName) -> bool {
        self.hears(one.as_str(), other.as_str())
            && self.hears(other.as_str(), one.as_str())
            && [one, other]
                .iter()
                .all(|end| self.nodes.get(*end).is_some_and(|node| node.up && node.stopped.host.is_none()))
    }

    /// Whether a daemon can talk to the store.
    pub(crate) fn connected(&self, name: &NodeName) -> bool {
        self.store.up && self.hears(name.as_str(), "store") && self.hears("store", name.as_str())
    }

    pub(crate) fn say(&mut self, who: &str, what: &str) {
        if self.quiet || self.mute {
            return;
        }
        let since = self.now.0.saturating_sub(self.told) / 100_000_000;
        self.log.push(format!("{:>6} {who:<6} {what}", format!("{}.{}", since / 10, since % 10)));
    }

    /// Adds to the digest (FNV-1a over words).
    pub(crate) fn digest(&mut self, word: u64) {
        self.digest = (self.digest ^ word).wrapping_mul(0x0000_0100_0000_01B3).rotate_left(23);
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
        self.mints_then = self.mints;
        self.clients_due = self.chances.are_there().then_some(self.now);
    }

    /// Lets time pass.
    pub fn run(&mut self, span: Duration) {
        let end = self.now + span;
        self.settle();
        while let Some(at) = self.next_event().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.events += 1;
            self.event();
        }
        self.now = end;
        self.settle();
    }

    fn next_event(&self) -> Option<Moment> {
        let nodes = self.nodes.values().filter_map(|node| node.next());
        let sessions = self.store.sessions.values().copied();
        nodes.chain(sessions).chain(self.clients_due).chain(self.store.back).min()
    }

    /// Everything that is due now.
    fn event(&mut self) {
        if self.store.back.take_if(|at| *at <= self.now).is_some() {
            self.store_returns();
        }
        for told in self.store.expire(self.now) {
            self.say("store", &told);
        }
        for name in self.names().iter() {
            self.wake_up(name);
            let idle = self.nodes[name].next().is_none_or(|due| due > self.now);
            if idle || self.nodes[name].stopped.host.is_some() {
                continue;
            }
            self.fence(name);
            self.promote_unattended(name);
            let stopped = self.nodes[name].stopped.daemon.is_some();
            if self.nodes[name].daemon.is_some() && !stopped {
                self.attend(name);
            }
        }
        self.clients();
        self.settle();
    }

    /// What follows from the state of things at once: replication, watches, checks.
    fn settle(&mut self) {
        self.pump();
        self.acknowledge();
        let revision = self.store.revision;
        for name in self.names().iter() {
            let late = self.nodes[name].daemon.as_ref().is_some_and(|daemon| {
                daemon.reachable
                    && daemon.view_due.is_none()
                    && daemon.view.as_ref().is_none_or(|view| view.revision.0 < revision)
            });
            if late && self.connected(name) {
                let due = self.now + WATCH + self.jitter(20) + self.store.watch_delay;
                self.daemon(name).view_due = Some(due);
            }
        }
        self.check();
    }

    /// One daemon: what arrived for it, its lease, its job, its turn.
    fn attend(&mut self, name: &NodeName) {
        let now = self.now;
        let mut woken = self.nodes[name].stopped.lease.is_none() && self.renew(name);
        if self.nodes[name].stopped.turns.is_some() {
            return;
        }
        woken |= self.arrivals(name) | self.leaves_arrive(name);
        let daemon = self.daemon(name);
        if let Some((job, _)) = daemon.job.take_if(|(_, ends)| *ends <= now) {
            let failure = self.job_ends(name, &job.task).err();
            self.mark_job(name, &job, failure.as_deref());
            if let Task::Restart { request: Some(id), .. } = job.task {
                self.daemon(name).requests.retain(|request| request.id != id);
                let how = if failure.is_none() { "restarted" } else { "the restart failed" };
                self.say(name.as_str(), &format!("(request {id} is answered: {how})"));
            }
            let at = self.clock(name);
            self.daemon(name).ended = Some(Outcome { task: job.task, at, failure });
            woken = true;
        }
        if woken || self.daemon(name).wake <= now {
            self.daemon(name).turned = now;
            self.turn(name);
            if self.nodes[name].daemon.is_some() {
                self.publish(name);
            }
        }
    }

    fn arrivals(&mut self, name: &NodeName) -> bool {
        let (now, local, connected) = (self.now, self.clock(name), self.connected(name));
        let mut woken = false;
        if self.daemon(name).view_due.take_if(|due| *due <= now).is_some() && connected {
            let (view, settings) = (self.store.view(), self.store.settings.clone());
            if self.daemon(name).settings.pause && !settings.pause {
                // Two may take writes until one of them has stopped.
                self.excuse(settings.ttl);
            }
            let before = self.daemon(name).settings.ttl;
            if settings.ttl < before {
                self.bound(name, settings.ttl);
            }
            if settings.ttl != before {
                self.daemon(name).renew_due = now;
            }
            let daemon = self.daemon(name);
            daemon.view = Some(view);
            daemon.settings = settings;
            daemon.seen = local;
            woken = true;
        }
        let due: Vec<NodeName> = self
            .daemon(name)
            .answers_due
            .extract_if(.., |(due, _)| *due <= now)
            .map(|(_, who)| who)
            .collect();
        for who in due {
            let other = &self.nodes[&who];
            let awake = other.daemon.is_some() && other.stopped.daemon.is_none();
            let heard = self.passes(Kind::Rest, name, &who) && awake;
            let answer =
                if heard { Asked::Answered(local, self.nodes[&who].answer()) } else { Asked::Nothing };
            let daemon = self.daemon(name);
            let asked = daemon.peers.get(&who).map_or(local, |peer| peer.asked);
            daemon.peers.insert(who, Peer { asked, answer });
            woken = true;
        }
        if let Some((_, who, epoch)) = self.daemon(name).history_due.take_if(|(due, ..)| *due <= now) {
            let read = self.passes(Kind::Wal, name, &who).then(|| self.nodes[&who].lineage(epoch)).flatten();
            if read.is_some() {
                self.daemon(name).history = read;
            }
            woken = true;
        }
        woken
    }
}

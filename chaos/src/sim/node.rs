//! One simulated host: its server and, while it runs, its daemon. Looking is here;
//! doing is in `steps` and `jobs`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use api::peer::PeerAnswer;
use config::{ClusterConfig, NodeName, Tags};
use coordinator::failsafe::{Failsafe, Leave, Promise};
use coordinator::restored::Known;
use coordinator::{
    Arrival, Bootstrap, Held, Job, LeaderHistory, Myself, Observation, Outcome, Past, Peer, Postgres,
    Process, Reason, Repair, Request, Running, Slot, Standby, SyncWrites, Wish,
};
use dcs::{ClusterView, Epoch, Lsn, Member, Moment, Revision, SystemId, Timeline};

use super::clock::Clock;
use super::failsafe::Question;
use super::fencer::Fencer;
use super::renew::Flight;
use super::server::Server;
use super::stopped::Stopped;

/// A host.
#[derive(Debug, Clone)]
pub struct Node {
    pub name: NodeName,
    pub up: bool,
    pub clock: Clock,
    /// What the wall clock is ahead, in seconds.
    pub wall_ahead: i64,
    pub fencer: Option<Fencer>,
    /// No fencer can be started here.
    pub unfenceable: bool,
    pub stopped: Stopped,
    /// How many of a hundred messages to the store, or back, are lost.
    pub poor_line: u64,
    /// How long WAL takes to here.
    pub far: Duration,
    pub tags: Tags,
    pub withheld: Vec<String>,
    pub bootstrap: Bootstrap,
    pub repair: Repair,
    pub server: Server,
    pub daemon: Option<Daemon>,
    /// Jobs that will fail, by the first word of their debug name.
    pub fails: Vec<String>,
    /// Jobs that take longer.
    pub slow: BTreeMap<String, Duration>,
    /// It ended with this status.
    pub exited: Option<i32>,
    /// What it has promised a leader without the store.
    pub promise: Option<Promise>,
    pub known: Known,
}

/// A running daemon.
#[derive(Debug, Clone)]
pub struct Daemon {
    pub started: Moment,
    pub past: Past,
    pub settings: Arc<ClusterConfig>,
    pub view: Option<Arc<ClusterView>>,
    /// When the next view arrives.
    pub view_due: Option<Moment>,
    pub reachable: bool,
    pub seen: Moment,
    pub session: Option<i64>,
    pub held: Option<Held>,
    pub released: Option<Epoch>,
    pub sync: SyncWrites,
    pub arrival: Option<Arrival>,
    pub renew_due: Moment,
    pub flight: Option<Flight>,
    /// When it last took a turn.
    pub turned: Moment,
    /// Since when it has had no fencer that answers.
    pub unguarded: Option<Moment>,
    /// The reign that it does not renew any more.
    pub given_up: Option<Epoch>,
    /// Since when its server has taken writes without any lease.
    pub naked: Option<Moment>,
    /// When the position was last published.
    pub told_position: Option<Moment>,
    pub job: Option<(Job, Moment)>,
    pub ended: Option<Outcome>,
    pub history: Option<LeaderHistory>,
    pub history_due: Option<(Moment, NodeName, Epoch)>,
    pub peers: BTreeMap<NodeName, Peer>,
    pub answers_due: Vec<(Moment, NodeName)>,
    pub leaves: BTreeMap<NodeName, Leave>,
    /// Whom it has added to the record `failsafe`, and when: older views do not show them.
    pub added: (Revision, BTreeSet<NodeName>),
    pub questions: Vec<Question>,
    /// In which reign and until when it goes on by the leave of all.
    pub leave_ends: Option<(Epoch, Moment)>,
    pub requests: Vec<Request>,
    pub ending: Option<Wish>,
    pub wake: Moment,
    pub published: Option<Member>,
    /// Why it last decided as it did.
    pub last: Option<Reason>,
    /// When each step was taken, within the last minute.
    pub taken: BTreeMap<String, Vec<Moment>>,
}

impl Daemon {
    pub fn new(now: Moment, local: Moment, settings: Arc<ClusterConfig>, known: Known) -> Self {
        Self {
            started: local,
            past: Past { store: known, ..Past::default() },
            settings,
            view: None,
            view_due: None,
            reachable: false,
            seen: local,
            session: None,
            held: None,
            released: None,
            sync: SyncWrites::default(),
            arrival: None,
            renew_due: now,
            flight: None,
            turned: now,
            unguarded: None,
            given_up: None,
            naked: None,
            told_position: None,
            job: None,
            ended: None,
            history: None,
            history_due: None,
            peers: BTreeMap::new(),
            answers_due: Vec::new(),
            leaves: BTreeMap::new(),
            added: (Revision(0), BTreeSet::new()),
            questions: Vec::new(),
            leave_ends: None,
            requests: Vec::new(),
            ending: None,
            wake: now,
            published: None,
            last: None,
            taken: BTreeMap::new(),
        }
    }

    /// When it has to be looked at again, given the clock of its host.
    fn next(&self, clock: &Clock, stopped: &Stopped) -> Moment {
        let never = Moment(u64::MAX);
        let mut at = never;
        if stopped.lease.is_none() {
            at = self.flight.as_ref().map_or(self.renew_due, Flight::next);
            if let Some(held) = &self.held {
                at = at.min(clock.reaches(held.hard));
            }
        }
        if stopped.turns.is_some() {
            return at;
        }
        at = at.min(self.wake);
        if let Some((_, ends)) = &self.job {
            at = at.min(*ends);
        }
        let arrivals = self.answers_due.iter().map(|(due, _)| *due);
        let others = self.view_due.into_iter().chain(self.history_due.iter().map(|(due, ..)| *due));
        let arrivals = arrivals.chain(self.questions.iter().map(|question| question.due));
        arrivals.chain(others).fold(at, Moment::min)
    }

    /// Holds the lease, as far as the clock and the newest view say.
    pub fn leads(&self, now: Moment) -> bool {
        let Some(held) = self.held.filter(|held| now < held.soft) else { return false };
        let newer = self.view.as_ref().filter(|view| self.reachable && view.revision >= held.revision);
        newer.is_none_or(|view| view.leader.as_ref().is_some_and(|leader| leader.epoch == held.epoch))
    }
}

/// The host's address in `conn_url`.
pub fn conn_url(name: &NodeName) -> String {
    format!("postgres://{name}:5432/postgres")
}

impl Node {
    pub fn new(name: &str, server: Server) -> Self {
        Self {
            name: NodeName::new(name).expect("a name"),
            up: true,
            clock: Clock::default(),
            wall_ahead: 0,
            fencer: Some(Fencer::default()),
            unfenceable: false,
            stopped: Stopped::default(),
            poor_line: 0,
            far: Duration::ZERO,
            tags: Tags::default(),
            withheld: Vec::new(),
            bootstrap: Bootstrap::Initdb,
            repair: Repair { rewind: true, after_failed_rewind: false, when_diverged: false },
            server,
            daemon: None,
            fails: Vec::new(),
            slow: BTreeMap::new(),
            exited: None,
            promise: None,
            known: Known::default(),
        }
    }

    /// When something happens here next.
    pub fn next(&self) -> Option<Moment> {
        if let Some((_, until, _)) = self.stopped.host {
            return Some(until);
        }
        let fires =
            self.fencer.as_ref().filter(|fencer| fencer.stopped.is_none()).and_then(|fencer| fencer.fires);
        let daemon = match self.stopped.daemon {
            Some(_) => None,
            None => self.daemon.as_ref().map(|daemon| daemon.next(&self.clock, &self.stopped)),
        };
        let recovery = self.server.promotes.as_ref().map(|(ends, ..)| *ends);
        [fires, daemon, recovery, self.server.arrives].into_iter().flatten().min()
    }

    pub fn running(&self, now: Moment) -> Option<Running> {
        let dir = self.server.dir.as_ref().filter(|_| self.server.answers())?;
        let standby = (!self.server.primary).then_some(Standby {
            received: Some(Lsn(dir.wal.end)),
            replayed: Lsn(dir.wal.end.saturating_sub(self.server.unreplayed)),
            streaming: self.server.streaming,
            paused: self.server.replay_paused,
        });
        let slots = self.server.slots.iter().map(|(name, at)| Slot {
            name: name.clone(),
            physical: true,
            active: false,
            restart: Some(*at),
        });
        Some(Running {
            at: now,
            system_id: dir.system_id,
            version: 150_000,
            timeline: dir.wal.timeline(),
            standby,
            position: Lsn(dir.wal.end),
            slots: slots.collect(),
            senders: Vec::new(),
            standby_names: self.server.names.clone(),
            quiet: true,
            closed: self.server.closed,
        })
    }

    pub fn observe(&self, now: Moment) -> Option<Observation> {
        let daemon = self.daemon.as_ref()?;
        let scheduled = daemon.view.as_ref().and_then(|view| {
            let at: i64 = view.failover.as_ref()?.value.scheduled_at.as_ref()?.parse().ok()?;
            Some(at - i64::try_from(self.clock.true_seconds(now)).ok()? - self.wall_ahead)
        });
        Some(Observation {
            now,
            me: Myself {
                name: self.name.clone(),
                tags: self.tags.clone(),
                withheld: self.withheld.clone(),
                bootstrap: self.bootstrap,
                repair: self.repair,
            },
            settings: daemon.settings.clone(),
            store: coordinator::Store {
                view: daemon.view.clone(),
                reachable: daemon.reachable,
                silent: !daemon.reachable,
                seen: daemon.seen,
            },
            failsafe: Failsafe {
                added: daemon.unseen(),
                leaves: daemon.leaves.clone(),
                promise: self.promise.clone(),
            },
            sync: daemon.sync,
            lease: daemon.held,
            released: daemon.released,
            arrival: daemon.arrival.clone(),
            restored: None,
            postgres: Postgres {
                process: self.server.process,
                upstream: self.server.upstream.clone().filter(|_| !self.server.primary),
                running: self.running(now),
                silent_since: self.server.hung,
                frozen: self.server.suspended && self.server.hung.is_some(),
                crashed: self.server.crashed,
                down: self.server.down,
            },
            data: self.server.data(daemon.past.creates(daemon.ended.as_ref())),
            job: daemon.job.as_ref().map(|(job, _)| job.clone()),
            ended: daemon.ended.clone(),
            leader_history: daemon.history.clone(),
            switches: self.server.dir.as_ref().map(|dir| dir.wal.switches()).unwrap_or_default(),
            peers: daemon.peers.clone(),
            floor: self.server.dir.as_ref().and_then(|dir| dir.floor),
            failover_due: scheduled,
            requests: daemon.requests.clone(),
            ending: daemon.ending.clone(),
        })
    }

    fn state(&self) -> &'static str {
        match self.daemon.as_ref().and_then(|daemon| daemon.job.as_ref()).map(|(job, _)| &job.task) {
            Some(coordinator::Task::Clone { .. }) => return "creating replica",
            Some(coordinator::Task::StartStandby { .. }) => return "starting",
            _ => {}
        }
        match self.server.process {
            Process::Postmaster if self.server.hung.is_none() => "running",
            Process::Postmaster => "unknown",
            _ if self.server.crashed.is_some() => "crashed",
            _ => "stopped",
        }
    }

    fn published_tags(&self) -> BTreeMap<String, serde_json::Value> {
        let mut tags = BTreeMap::new();
        let floor = self.server.dir.as_ref().is_some_and(|dir| dir.floor.is_some());
        if self.tags.nofailover || !self.withheld.is_empty() || floor {
            tags.insert("nofailover".to_owned(), true.into());
        }
        if self.tags.nosync || !self.withheld.is_empty() || floor {
            tags.insert("nosync".to_owned(), true.into());
        }
        if let Some(priority) = self.tags.sync_priority {
            tags.insert("sync_priority".to_owned(), priority.into());
        }
        if let Some(priority) = self.tags.failover_priority {
            tags.insert("failover_priority".to_owned(), priority.into());
        }
        if self.tags.clonefrom {
            tags.insert("clonefrom".to_owned(), true.into());
        }
        if let Some(from) = &self.tags.replicatefrom {
            tags.insert("replicatefrom".to_owned(), from.as_str().into());
        }
        tags
    }

    /// The record in the store.
    pub fn member(&self) -> Member {
        let primary = self.server.writable();
        let dir = self.server.dir.as_ref();
        Member {
            conn_url: Some(conn_url(&self.name)),
            api_url: Some(format!("http://{}:8008/patroni", self.name)),
            state: self.state().to_owned(),
            role: if primary { "primary" } else { "replica" }.to_owned(),
            checkpoint_pending: primary && dir.is_some_and(|dir| !dir.settled),
            tags: self.published_tags(),
            xlog_location: dir.filter(|_| self.server.answers()).map(|dir| Lsn(dir.wal.end)),
            timeline: dir.map(|dir| dir.wal.timeline()),
            ..Member::default()
        }
    }

    /// The answer to another member.
    pub fn answer(&self) -> PeerAnswer {
        let dir = self.server.dir.as_ref().filter(|_| self.server.answers());
        PeerAnswer {
            role: if self.server.writable() { "primary" } else { "replica" }.to_owned(),
            state: self.state().to_owned(),
            primary: self.server.writable(),
            position: dir.map(|dir| Lsn(dir.wal.end)),
            timeline: dir.map(|dir| dir.wal.timeline()),
            tags: self.published_tags(),
            watchdog_failed: false,
            matriarch: true,
            known: Some(self.known.timeline),
        }
    }

    /// What the server tells about its lineage.
    pub fn lineage(&self, epoch: Epoch) -> Option<LeaderHistory> {
        let dir = self.server.dir.as_ref().filter(|_| self.server.answers())?;
        Some(LeaderHistory {
            member: self.name.clone(),
            epoch,
            timeline: dir.wal.timeline(),
            switches: dir.wal.switches(),
            settled: self.server.primary && dir.settled,
        })
    }

    pub fn identity(&self) -> Option<SystemId> {
        self.server.dir.as_ref().map(|dir| dir.system_id)
    }

    pub fn timeline(&self) -> Option<Timeline> {
        self.server.dir.as_ref().map(|dir| dir.wal.timeline())
    }
}

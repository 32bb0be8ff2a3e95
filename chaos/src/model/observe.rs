//! From a state to what `decide` is given. Everything that the model does not vary is a constant here.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::peer::PeerAnswer;
use coordinator::sync::names;
use coordinator::sync::resolver::Wait;
use coordinator::{
    Asked, Bootstrap, Control, ControlState, Data, LeaderHistory, Myself, Observation, Outcome, Postgres,
    Repair, Running, Sender, Standby, Store, SyncWrites, Task, Unfinished, Upstream,
};
use dcs::{
    ClusterView, Epoch, Failover, HistoryRow, Initialize, Leader, Member, Revision, Status, SyncState,
    SystemId, Timeline, Versioned,
};

use super::Model;
use super::cast::Cast;
use super::moment::{NOW, TICK, TTL, ago};
use super::planted::Fault;
use super::state::{
    Control as Ending, Daemon, Dir, Held, Names, Peer, Process, Record, Records, Rev, Said, State, Sync,
};
use super::wal::lsn;
use super::work;

/// The identity of the cluster.
const IDENTITY: SystemId = SystemId(7);

/// A revision as the store says it.
#[must_use]
pub fn revision(rev: Rev) -> Revision {
    Revision(i64::from(rev))
}

/// An epoch as the store says it.
#[must_use]
pub fn epoch(rev: Rev) -> Epoch {
    Epoch(i64::from(rev))
}

/// And back.
#[must_use]
pub fn rev(number: i64) -> Rev {
    Rev::try_from(number).unwrap_or(Rev::MAX)
}

/// The text of a list.
#[must_use]
pub fn text(list: Names, cast: &Cast) -> String {
    match list {
        Names::Nobody => String::new(),
        Names::Forever { any } => names::text(&Wait::Forever, any),
        Names::For { mask, count, any } => {
            names::text(&Wait::of(cast.names(mask).collect(), usize::from(count)), any)
        }
    }
}

/// A list from its text.
#[must_use]
pub fn list(text: &str, cast: &Cast) -> Names {
    let any = text.starts_with("ANY");
    match names::read(text) {
        Wait::Nobody | Wait::Foreign => Names::Nobody,
        Wait::Forever => Names::Forever { any },
        Wait::For { names, count } => {
            Names::For { mask: cast.mask(&names), count: u8::try_from(count).unwrap_or(u8::MAX), any }
        }
    }
}

/// A record of synchronous standbys.
#[must_use]
pub fn synchronous(sync: Sync, cast: &Cast) -> SyncState {
    SyncState {
        leader: Some(cast.name(usize::from(sync.leader)).to_string()),
        quorum: u32::from(sync.quorum),
        standbys: cast.names(sync.standbys).collect(),
    }
}

/// A record of synchronous standbys as the model keeps it, as of this revision.
#[must_use]
pub fn record(sync: &SyncState, revision: Rev, cast: &Cast) -> Sync {
    Sync {
        leader: cast.id(sync.leader.as_deref().unwrap_or_default()),
        quorum: u8::try_from(sync.quorum).unwrap_or(u8::MAX),
        standbys: cast.mask(&sync.standbys),
        revision,
    }
}

fn member(node: usize, record: &Record, cast: &Cast) -> Member {
    let name = cast.name(node);
    Member {
        conn_url: Some(format!("postgres://{name}:5432/postgres")),
        api_url: Some(format!("http://{name}:8008/patroni")),
        state: if record.running { "running" } else { "stopped" }.to_owned(),
        role: if record.primary { "primary" } else { "replica" }.to_owned(),
        checkpoint_pending: record.pending,
        timeline: Some(Timeline(u32::from(record.timeline))),
        ..Member::default()
    }
}

/// The records as a view.
#[must_use]
pub fn view(records: &Records, cast: &Cast) -> ClusterView {
    let rows = |timeline: u8| {
        let row = |timeline: u8| HistoryRow {
            timeline: Timeline(u32::from(timeline)),
            lsn: lsn(1),
            reason: String::new(),
            timestamp: None,
            leader: None,
        };
        (1..timeline).map(row).collect()
    };
    let named = |node: u8| cast.name(usize::from(node)).to_string();
    let all = records.members.iter().enumerate();
    ClusterView {
        revision: revision(records.revision),
        initialize: Initialize::Done(IDENTITY),
        config: Some(Versioned { value: serde_json::json!({}), revision: Revision(0) }),
        leader: records.leader.map(|key| Leader {
            name: cast.name(usize::from(key.node)).clone(),
            epoch: epoch(key.epoch),
            revision: revision(key.revision),
            lease: 1,
        }),
        members: all
            .filter_map(|(node, record)| {
                Some((cast.name(node).clone(), member(node, record.as_ref()?, cast)))
            })
            .collect(),
        status: Status::default(),
        failover: records.failover.map(|wished| Versioned {
            value: Failover {
                leader: Some(named(wished.leader)),
                candidate: wished.candidate.map(named),
                scheduled_at: None,
            },
            revision: revision(wished.revision),
        }),
        sync: records
            .sync
            .map(|sync| Versioned { value: synchronous(sync, cast), revision: revision(sync.revision) }),
        history: Some(rows(records.timeline)),
        ..ClusterView::default()
    }
}

/// A held lease as `decide` sees it: it steps down after two ticks, and is fenced after three.
fn held(held: &Held) -> coordinator::Held {
    let sent = ago(held.age);
    let (epoch, revision) = (epoch(held.epoch), revision(held.revision));
    coordinator::Held { epoch, revision, soft: sent + TICK * 2, hard: sent + TTL }
}

/// Whom a server follows, as decisions say it.
#[must_use]
pub fn upstream(node: u8, cast: &Cast) -> Upstream {
    let member = cast.name(usize::from(node)).clone();
    Upstream { host: member.to_string(), member, port: 5432, slot: None }
}

fn answer(said: &Said) -> PeerAnswer {
    let runs = said.position > 0;
    PeerAnswer {
        role: if said.primary { "primary" } else { "replica" }.to_owned(),
        state: if runs { "running" } else { "stopped" }.to_owned(),
        primary: said.primary,
        position: runs.then(|| lsn(said.position)),
        timeline: runs.then(|| Timeline(u32::from(said.timeline))),
        tags: BTreeMap::new(),
        watchdog_failed: false,
        matriarch: true,
        known: None,
    }
}

fn peer(peer: &Peer) -> coordinator::Peer {
    let asked = peer.asked.moment();
    let answer = peer.said.as_ref().map_or(Asked::Nothing, |said| Asked::Answered(asked, answer(said)));
    coordinator::Peer { asked, answer }
}

impl Model {
    /// What a node sees.
    #[must_use]
    pub fn observe(&self, state: &State, node: usize, daemon: &Daemon, cast: &Cast) -> Observation {
        let now = NOW.moment();
        let server = &state.node(node).server;
        let task = |work: &super::state::Work| -> Task { work::task(*work, cast) };
        let others = daemon.peers.iter().enumerate();
        Observation {
            now,
            me: Myself {
                name: cast.name(node).clone(),
                tags: config::Tags::default(),
                withheld: Vec::new(),
                bootstrap: Bootstrap::Initdb,
                repair: Repair { rewind: true, after_failed_rewind: true, when_diverged: true },
            },
            settings: Arc::clone(&self.settings),
            store: Store {
                view: state.view(node).map(|records| Arc::new(view(&records, cast))),
                reachable: state.connected(node),
                seen: now,
                silent: false,
            },
            sync: SyncWrites {
                refused: None,
                written: (daemon.written > 0).then(|| revision(daemon.written)),
                doubtful: daemon.doubtful,
            },
            failsafe: coordinator::failsafe::Failsafe::default(),
            lease: daemon.held.as_ref().map(held),
            released: (daemon.released > 0).then(|| epoch(daemon.released)),
            arrival: None,
            restored: None,
            postgres: self.postgres(state, node, cast),
            data: self.data(state, node),
            job: daemon.job.map(|job| coordinator::Job { task: task(&job.work), since: job.since.moment() }),
            ended: daemon.ended.map(|ended| Outcome {
                task: task(&ended.work),
                at: ended.at.moment(),
                failure: ended.failed.then(|| "it failed".to_owned()),
            }),
            leader_history: daemon.history.map(|read| LeaderHistory {
                member: cast.name(usize::from(read.member)).clone(),
                epoch: epoch(read.epoch),
                timeline: Timeline(u32::from(state.mint(read.mint).number)),
                switches: state.switches(read.mint),
                settled: read.settled,
            }),
            switches: state.switches(server.mint),
            peers: others
                .filter_map(|(at, found)| Some((cast.name(at).clone(), peer(found.as_ref()?))))
                .collect(),
            // A rewound server is at the fork, which is its floor.
            floor: None,
            failover_due: None,
            requests: Vec::new(),
            ending: None,
        }
    }

    fn postgres(&self, state: &State, node: usize, cast: &Cast) -> Postgres {
        let server = &state.node(node).server;
        let running = (server.process == Process::Up).then(|| Running {
            at: NOW.moment(),
            system_id: IDENTITY,
            version: 170_000,
            timeline: Timeline(u32::from(state.mint(server.mint).number)),
            standby: (!server.primary).then(|| Standby {
                received: Some(lsn(server.end)),
                replayed: lsn(server.end),
                streaming: state.streams(node).is_some(),
                paused: false,
            }),
            position: lsn(server.end),
            slots: Vec::new(),
            senders: senders(state, node, cast),
            standby_names: text(self.shown_list(server), cast),
            quiet: true,
            closed: false,
        });
        Postgres {
            process: match server.process {
                Process::Gone => coordinator::Process::Gone,
                Process::Up => coordinator::Process::Postmaster,
                Process::Remnants => coordinator::Process::Remnants,
            },
            running,
            upstream: server.upstream.filter(|_| !server.primary).map(|from| upstream(from, cast)),
            silent_since: None,
            frozen: false,
            crashed: server.crashed.map(super::state::Stamp::moment),
            down: server.down.map(super::state::Stamp::moment),
        }
    }

    /// The list that the server shows: the one that it has read.
    fn shown_list(&self, server: &super::state::Server) -> Names {
        if self.planted == Some(Fault::ListAssumed) { server.file } else { server.names }
    }

    fn data(&self, state: &State, node: usize) -> Data {
        let server = &state.node(node).server;
        let dir = if self.hides_mark() && server.dir == Dir::Toxic { Dir::Whole } else { server.dir };
        match dir {
            Dir::Empty => Data::Empty,
            Dir::Toxic => Data::Unfinished(Unfinished::Rewind),
            Dir::Whole => Data::Present(Control {
                system_id: IDENTITY,
                state: match server.control {
                    Ending::ShutDown => ControlState::ShutDown,
                    Ending::ShutDownInRecovery => ControlState::ShutDownInRecovery,
                    Ending::InRecovery => ControlState::InArchiveRecovery,
                    Ending::InProduction => ControlState::InProduction,
                },
                timeline: Timeline(u32::from(state.mint(server.mint).number)),
                checkpoint: lsn(server.end.saturating_sub(1)),
                end: Some(lsn(server.end)),
                minimum_recovery: None,
                standby_signal: server.signal,
                backup_label: false,
                rewindable: true,
                to_recover: 0,
                recovery_rate: 1,
            }),
        }
    }
}

fn senders(state: &State, node: usize, cast: &Cast) -> Vec<Sender> {
    let of = |(other, host): (usize, &super::state::Node)| {
        (state.streams(other) == Some(node)).then(|| Sender {
            pid: i32::try_from(other).unwrap_or_default(),
            name: cast.name(other).to_string(),
            streaming: true,
            flushed: Some(lsn(host.server.end)),
            slot: None,
        })
    };
    state.nodes.iter().enumerate().filter_map(of).collect()
}

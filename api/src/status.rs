//! What a node knows of itself, in one watched value. Health checks, `/patroni`,
//! `/metrics` and `/why` are all answered from it, with no query behind them.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use config::{NodeName, Tags};
use dcs::{Epoch, Lsn, Moment, SystemId, Timeline};
use serde_json::Value;

/// The state of the local Postgres, in Patroni's words (patroni-compat 1.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PostgresState {
    /// initdb runs.
    Initializing,
    /// initdb failed.
    InitdbFailed,
    /// A custom bootstrap script runs.
    CustomBootstrap,
    /// The custom bootstrap script failed.
    CustomBootstrapFailed,
    /// A clone runs.
    CreatingReplica,
    /// Postgres answers.
    Running,
    /// Postgres was started and does not answer yet.
    Starting,
    /// Started after a custom bootstrap.
    BootstrapStarting,
    /// The last start failed.
    StartFailed,
    /// A restart runs.
    Restarting,
    /// The last restart failed.
    RestartFailed,
    /// A stop runs.
    Stopping,
    /// Postgres is stopped, as intended.
    Stopped,
    /// The last stop failed.
    StopFailed,
    /// Postgres ended without being told to.
    Crashed,
    /// Nothing is known.
    Unknown,
}

impl PostgresState {
    /// Patroni's text.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Initializing => "initializing new cluster",
            Self::InitdbFailed => "initdb failed",
            Self::CustomBootstrap => "running custom bootstrap script",
            Self::CustomBootstrapFailed => "custom bootstrap failed",
            Self::CreatingReplica => "creating replica",
            Self::Running => "running",
            Self::Starting => "starting",
            Self::BootstrapStarting => "starting after custom bootstrap",
            Self::StartFailed => "start failed",
            Self::Restarting => "restarting",
            Self::RestartFailed => "restart failed",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
            Self::StopFailed => "stop failed",
            Self::Crashed => "crashed",
            Self::Unknown => "unknown",
        }
    }

    /// Patroni's number in `patroni_postgres_state`.
    #[must_use]
    pub fn number(self) -> i32 {
        match self {
            Self::Initializing => 0,
            Self::InitdbFailed => 1,
            Self::CustomBootstrap => 2,
            Self::CustomBootstrapFailed => 3,
            Self::CreatingReplica => 4,
            Self::Running => 5,
            Self::Starting => 6,
            Self::BootstrapStarting => 7,
            Self::StartFailed => 8,
            Self::Restarting => 9,
            Self::RestartFailed => 10,
            Self::Stopping => 11,
            Self::Stopped => 12,
            Self::StopFailed => 13,
            Self::Crashed => 14,
            Self::Unknown => -1,
        }
    }
}

impl fmt::Display for PostgresState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

/// What the local Postgres is, in Patroni's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Accepts writes.
    Primary,
    /// Between the promotion request and the end of recovery.
    Promoted,
    /// Replays what a primary of this cluster writes.
    Replica,
    /// Leads a standby cluster.
    StandbyLeader,
    /// Was primary and is stopping or stopped.
    Demoted,
    /// Has no data yet.
    Uninitialized,
}

impl Role {
    /// Patroni's text.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Promoted => "promoted",
            Self::Replica => "replica",
            Self::StandbyLeader => "standby_leader",
            Self::Demoted => "demoted",
            Self::Uninitialized => "uninitialized",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

/// Everything one node says about itself.
#[derive(Debug, Clone)]
pub struct NodeStatus {
    /// The cluster's name.
    pub scope: String,
    /// The node's name.
    pub name: NodeName,
    /// When the local Postgres was last looked at.
    pub looked: Moment,
    /// The state of Postgres.
    pub state: PostgresState,
    /// What Postgres is.
    pub role: Role,
    /// What SQL told; absent while SQL does not answer.
    pub server: Option<Server>,
    /// The leader lease, if this node holds it.
    pub lease: Option<HeldLease>,
    /// Whether Postgres takes writes, as last seen: not in recovery, and answering.
    pub writable: bool,
    /// The database cluster's identity, if known.
    pub system_id: Option<SystemId>,
    /// This node's tags.
    pub tags: Tags,
    /// Parameters that wait for a restart: name → (old, new).
    pub pending_restart: BTreeMap<String, (String, String)>,
    /// Whether a restart is pending, with or without known reasons.
    pub pending_restart_flag: bool,
    /// A scheduled restart, as published.
    pub scheduled_restart: Option<Value>,
    /// The cluster is paused.
    pub pause: bool,
    /// The cluster follows another one.
    pub standby_cluster: bool,
    /// This node is a synchronous standby.
    pub sync_standby: bool,
    /// This node is a quorum standby.
    pub quorum_standby: bool,
    /// When the store last answered, and the same on the wall clock (epoch seconds).
    pub store_seen: Option<(Moment, u64)>,
    /// The cluster has a leader, as far as the store told.
    pub leader_known: bool,
    /// The leader's last published position.
    pub optime: Option<Lsn>,
    /// The lease's time to live.
    pub ttl: Duration,
    /// The backstop between two turns.
    pub loop_wait: Duration,
    /// Until when a leader that has lost the store leads by everybody's leave (failsafe mode).
    pub failsafe_until: Option<Moment>,
    /// A watchdog is required and cannot be used.
    pub watchdog_failed: bool,
    /// The highest timeline of which the store has told.
    pub known_timeline: Timeline,
    /// Largest lag with which a replica is ready, in bytes (`maximum_lag_on_failover`).
    pub maximum_lag: u64,
    /// When the last turn of the node ended.
    pub last_turn: Moment,
    /// The last decision and what keeps each member from leading.
    pub why: Why,
    /// The fencer beside the daemon.
    pub guard: Guard,
    /// The store is full: leases are renewed and nothing else is written, so nobody could take over.
    pub store_full: bool,
    /// Who streamed under a member's name.
    pub strangers: Strangers,
}

impl NodeStatus {
    /// The status of a node that has not looked at anything yet.
    #[must_use]
    pub fn unknown(scope: String, name: NodeName) -> Self {
        Self {
            scope,
            name,
            looked: Moment::default(),
            state: PostgresState::Unknown,
            role: Role::Uninitialized,
            server: None,
            lease: None,
            writable: false,
            system_id: None,
            tags: Tags::default(),
            pending_restart: BTreeMap::new(),
            pending_restart_flag: false,
            scheduled_restart: None,
            pause: false,
            standby_cluster: false,
            sync_standby: false,
            quorum_standby: false,
            store_seen: None,
            leader_known: false,
            optime: None,
            ttl: Duration::from_secs(30),
            loop_wait: Duration::from_secs(10),
            failsafe_until: None,
            watchdog_failed: false,
            known_timeline: Timeline(0),
            maximum_lag: 1_048_576,
            last_turn: Moment::default(),
            why: Why::default(),
            guard: Guard::default(),
            store_full: false,
            strangers: Strangers::default(),
        }
    }
}

/// Connections that streamed under a member's name, but not through that member's slot, and were ended. For as long as one
/// lived, Postgres may have taken what it acknowledged for the member's word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Strangers {
    /// How many, since the daemon started.
    pub ended: u64,
    /// How long the last one lived.
    pub last: Duration,
    /// How long one lived at most.
    pub longest: Duration,
}

/// What the fencer last said: the process that ends every process of Postgres here when the lease has run out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Guard {
    /// Whether there is one.
    pub running: bool,
    /// Whether it will kill the instance at the deadline of the lease.
    pub armed: bool,
    /// How much later than asked it last woke.
    pub woke: Duration,
    /// How much later than asked it woke at worst.
    pub woke_worst: Duration,
    /// How often it killed the instance, since it was started.
    pub kills: u64,
    /// The last kill, by whichever fencer.
    pub last: Option<Kill>,
    /// After which time without a ping the kernel's watchdog resets the host, while it is active.
    pub watchdog: Option<Duration>,
}

/// What is recorded of a kill at the deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Kill {
    /// When, on the wall clock (epoch seconds).
    pub at: u64,
    /// How many processes were killed.
    pub processes: u64,
    /// From the deadline until each of them had its signal, after which it acknowledges nothing.
    pub signalled: Duration,
    /// From the deadline until none was left.
    pub gone: Duration,
}

/// A lease as its holder sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeldLease {
    /// The reign.
    pub epoch: Epoch,
    /// After this moment the node must not call itself leader.
    pub until: Moment,
}

/// What SQL told about the running server.
#[derive(Debug, Clone, PartialEq)]
pub struct Server {
    /// Postmaster start as `2026-11-20 07:00:39.805522+00:00`.
    pub started: String,
    /// Postmaster start in epoch seconds.
    pub started_epoch: f64,
    /// `server_version_num`.
    pub version: u32,
    /// The timeline it is on.
    pub timeline: Option<Timeline>,
    /// Where it is in the log.
    pub position: Position,
    /// `streaming`, `in archive recovery`, or absent.
    pub replication_state: Option<String>,
    /// Its WAL senders.
    pub senders: Vec<Sender>,
}

/// Where a server is in the log.
#[derive(Debug, Clone, PartialEq)]
pub enum Position {
    /// A primary's current write position.
    Primary(Lsn),
    /// A standby's positions.
    Standby {
        /// Received and flushed.
        received: Option<Lsn>,
        /// Replayed.
        replayed: Option<Lsn>,
        /// Commit time of the last replayed transaction, as text and as epoch seconds.
        replayed_at: Option<(String, f64)>,
        /// Whether replay is paused.
        paused: bool,
        /// The upstream's end of log, as it last told (`latest_end_lsn`).
        upstream: Option<Lsn>,
    },
}

/// One row of `pg_stat_replication`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sender {
    /// User.
    pub usename: String,
    /// `application_name`: the member's name.
    pub application_name: String,
    /// Address, absent for sockets.
    pub client_addr: Option<String>,
    /// `streaming` and so on.
    pub state: String,
    /// `async`, `sync`, `quorum`, `potential`.
    pub sync_state: String,
    /// Priority.
    pub sync_priority: i32,
}

/// Why the node does what it does.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Why {
    /// When the reason last changed, on the wall clock (epoch seconds).
    pub since: u64,
    /// The reason's sentence.
    pub because: String,
    /// The steps last taken, one line each.
    pub steps: Vec<String>,
    /// For every member: what keeps it from becoming leader, or nothing.
    pub obstacles: BTreeMap<NodeName, Option<String>>,
}

//! The local side of an observation: the Postgres on this host and its data
//! directory, as plain data.

use alloc::string::String;
use alloc::vec::Vec;

use config::NodeName;
use dcs::{Lsn, Moment, SystemId, Timeline};
use serde::{Deserialize, Serialize};

/// The local Postgres.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Postgres {
    /// Its processes.
    pub process: Process,
    /// What SQL said, if it answers.
    pub running: Option<Running>,
    /// Whom the settings of a standby make it follow: known from its files, also while it does not answer.
    pub upstream: Option<Upstream>,
    /// Since when SQL has been silent although a postmaster runs.
    pub silent_since: Option<Moment>,
    /// A signal has stopped the postmaster (state T): it lets nobody in, and will not end unless killed.
    pub frozen: bool,
    /// When the postmaster was last seen to end on its own.
    pub crashed: Option<Moment>,
    /// When the last postmaster ended, in whatever way, until one answers again.
    pub down: Option<Moment>,
}

/// The processes of the instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Process {
    /// None is left.
    Gone,
    /// The postmaster runs.
    Postmaster,
    /// The postmaster is gone, others are left: the instance has not ended.
    Remnants,
}

/// What SQL said.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Running {
    /// When.
    pub at: Moment,
    /// Its identity.
    pub system_id: SystemId,
    /// `server_version_num`.
    pub version: u32,
    /// Its timeline: written by a primary; received, or else replayed, by a standby. Exact, not
    /// that of the last restart point: elections compare it.
    pub timeline: Timeline,
    /// A standby's state; absent on a primary.
    pub standby: Option<Standby>,
    /// Its position: a primary's current write position, a standby's larger one of received and replayed.
    pub position: Lsn,
    /// Its replication slots.
    pub slots: Vec<Slot>,
    /// Who streams from it.
    pub senders: Vec<Sender>,
    /// `synchronous_standby_names`, as the server has read it.
    pub standby_names: String,
    /// It was started so that it lets no clients in.
    #[serde(default)]
    pub closed: bool,
    /// The checkpointer was idle, so that it has read all settings that there are.
    pub quiet: bool,
}

/// A process that sends the log to somebody.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sender {
    /// Its process.
    pub pid: i32,
    /// The name that whoever receives has given.
    pub name: String,
    /// It has caught up, and sends what is written.
    pub streaming: bool,
    /// What is on disk there.
    pub flushed: Option<Lsn>,
    /// The slot that it uses.
    pub slot: Option<String>,
}

impl Sender {
    /// Whether it goes by this name: Postgres compares without regard to case.
    #[must_use]
    pub fn is_for(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name)
    }
}

/// A standby's state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standby {
    /// Received and flushed.
    pub received: Option<Lsn>,
    /// Replayed.
    pub replayed: Lsn,
    /// Streaming from somewhere now.
    pub streaming: bool,
    /// Replay is paused.
    pub paused: bool,
}

/// Whom a standby follows.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Upstream {
    /// The member.
    pub member: NodeName,
    /// Its host.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// The slot to stream from; absent without slots.
    pub slot: Option<String>,
}

/// A replication slot of the local server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slot {
    /// Its name.
    pub name: String,
    /// Physical rather than logical.
    pub physical: bool,
    /// Somebody streams from it.
    pub active: bool,
    /// Its `restart_lsn`.
    pub restart: Option<Lsn>,
}

/// The data directory.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Data {
    /// There is no directory, or nothing in it.
    Empty,
    /// It cannot be read or is not Postgres's: people must look.
    Unreadable(String),
    /// An interrupted act left it unusable; it is never started.
    Unfinished(Unfinished),
    /// A data directory, with what `pg_control` says.
    Present(Control),
}

/// What was interrupted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Unfinished {
    /// Creating a new cluster.
    Bootstrap,
    /// A rewind.
    Rewind,
}

/// What `pg_control` says (and `pg_waldump`, for `end`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Control {
    /// Identity.
    pub system_id: SystemId,
    /// State.
    pub state: ControlState,
    /// Timeline of the latest checkpoint.
    pub timeline: Timeline,
    /// Position of the latest checkpoint record.
    pub checkpoint: Lsn,
    /// Where a stopped primary's log ends, if it was read: the end of its shutdown
    /// checkpoint's record, or of all valid records after a crash. While a crashed leader is
    /// started again, where it ended when it crashed.
    pub end: Option<Lsn>,
    /// A standby must replay at least to here, on this timeline; known of a stopped server only.
    pub minimum_recovery: Option<(Timeline, Lsn)>,
    /// `standby.signal` was there: whatever ran last ran as a standby.
    pub standby_signal: bool,
    /// There is a `backup_label`: this is a copy that has not recovered yet. Its history begins where the backup
    /// did, whatever the control file says.
    pub backup_label: bool,
    /// Rewinding is possible: `wal_log_hints` or checksums are on.
    pub rewindable: bool,
    /// WAL written since the last redo point, in bytes, as far as known.
    pub to_recover: u64,
    /// How many bytes of WAL this host recovers in a second, measured or assumed.
    pub recovery_rate: u64,
}

/// The cluster state in `pg_control`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ControlState {
    /// `shut down`: a primary stopped cleanly.
    ShutDown,
    /// `shut down in recovery`: a standby stopped cleanly.
    ShutDownInRecovery,
    /// `in archive recovery`: a standby ran.
    InArchiveRecovery,
    /// `in production`: a primary runs, or ran and crashed.
    InProduction,
    /// Anything else: it stopped somewhere in between.
    Other,
}

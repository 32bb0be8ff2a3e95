//! One look at a running server: everything the daemon wants to know, in one statement.
//!
//! Owns the statement and its reading. It runs about once per second for ever, so it calls
//! the functions below the views and fetches nothing that changes rarely.

use dcs::{Lsn, SystemId, Timeline};
use serde::Deserialize;

use super::query::{QueryError, Session};

/// What a running server says about itself.
#[derive(Debug, Clone, PartialEq)]
pub struct Look {
    /// Whether it is in recovery: a standby, read-only.
    pub in_recovery: bool,
    /// The timeline: of the WAL being written (primary); received, or else replayed (standby).
    pub timeline: Timeline,
    /// Primary: where the next record will be written. Standby: zero.
    pub write: Lsn,
    /// Primary: how far the WAL is on disk. Standby: zero.
    pub flush: Lsn,
    /// Standby: how far WAL was received and is on disk, the higher of what the server and its receiver say.
    pub received: Lsn,
    /// Standby: how far WAL was replayed.
    pub replayed: Lsn,
    /// Standby: commit time of the last replayed transaction, seconds since the epoch.
    pub replayed_at: Option<f64>,
    /// Standby: replay is paused.
    pub replay_paused: bool,
    /// Standby: its WAL receiver, if one runs.
    pub receiver: Option<Receiver>,
    /// The timeline of the last checkpoint (or restart point).
    pub checkpoint_timeline: Timeline,
    /// `synchronous_standby_names`, as this session has read it.
    pub standby_names: String,
    /// The checkpointer was idle, or paused within a checkpoint: before either it reads what settings there are.
    pub quiet: bool,
    /// Who streams from this server.
    pub senders: Vec<Sender>,
    /// Its replication slots.
    pub slots: Vec<Slot>,
    /// The identity of the database cluster.
    pub system_id: SystemId,
    /// `server_version_num`.
    pub version: u32,
    /// It was started so that it lets no clients in.
    pub closed: bool,
    /// When the postmaster started, in seconds since the epoch.
    pub postmaster_start: f64,
}

impl Look {
    /// The position that stands for this server: written (primary), or the higher of received and
    /// replayed (standby).
    pub fn position(&self) -> Lsn {
        if self.in_recovery { self.received.max(self.replayed) } else { self.write }
    }
}

/// A running WAL receiver.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Receiver {
    /// `streaming`, `waiting` …
    pub status: String,
    /// From whom.
    pub sender_host: Option<String>,
    /// The sender's port.
    pub sender_port: Option<i32>,
    /// Through which slot.
    pub slot: Option<String>,
    /// On which timeline.
    pub timeline: Option<u32>,
    /// The sender's end of WAL when it last said so, in bytes.
    pub latest_end: Option<u64>,
    /// `primary_conninfo` in use, passwords hidden by Postgres.
    pub conninfo: Option<String>,
}

/// A standby, or a backup, that streams from this server.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Sender {
    /// Its process on this server.
    pub pid: i32,
    /// The role it logged in as.
    pub usename: Option<String>,
    /// The name it gave.
    pub application_name: String,
    /// Its address; absent over a socket.
    pub client_addr: Option<String>,
    /// `streaming`, `catchup`, `backup` …
    pub state: Option<String>,
    /// Sent, in bytes.
    pub sent: Option<u64>,
    /// Written there, in bytes.
    pub write: Option<u64>,
    /// On disk there, in bytes.
    pub flush: Option<u64>,
    /// Replayed there, in bytes.
    pub replay: Option<u64>,
    /// `async`, `sync`, `potential`, `quorum`.
    pub sync_state: Option<String>,
    /// Its place among the synchronous standbys.
    pub sync_priority: Option<i32>,
    /// When it connected, in milliseconds since 1970.
    pub since: Option<i64>,
}

/// A replication slot.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Slot {
    /// Its name.
    pub name: String,
    /// `physical` or `logical`.
    pub kind: String,
    /// The output plugin of a logical slot.
    pub plugin: Option<String>,
    /// The database of a logical slot.
    pub database: Option<String>,
    /// Somebody uses it.
    pub active: bool,
    /// The process that uses it.
    pub active_pid: Option<i32>,
    /// The horizon that it holds back.
    pub xmin: Option<i64>,
    /// The catalog horizon that it holds back.
    pub catalog_xmin: Option<i64>,
    /// The oldest WAL that it keeps, in bytes; absent: it never kept any.
    pub restart: Option<u64>,
    /// A logical slot's confirmed position, in bytes.
    pub confirmed: Option<u64>,
    /// `reserved`, `extended`, `unreserved`, `lost`.
    pub wal_status: Option<String>,
    /// Postgres 17: it is to be synchronised to standbys.
    #[serde(default)]
    pub failover: bool,
    /// Postgres 17: it was synchronised from the primary.
    #[serde(default)]
    pub synced: bool,
}

/// The statement for one version of Postgres.
pub(super) fn statement(version: u32) -> String {
    let failover = if version >= 170_000 { ", 'failover', s.failover, 'synced', s.synced" } else { "" };
    // Each CASE asks anew whether the server is in recovery: during a promotion that turns from
    // true to false once, and the functions of a standby still answer after it.
    format!(
        "SELECT pg_is_in_recovery() AS in_recovery, \
         CASE WHEN pg_is_in_recovery() THEN 0 ELSE \
           ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int4 END AS timeline, \
         CASE WHEN pg_is_in_recovery() THEN 0 ELSE pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::int8 END AS write, \
         CASE WHEN pg_is_in_recovery() THEN 0 ELSE pg_wal_lsn_diff(pg_current_wal_flush_lsn(), '0/0')::int8 END AS flush, \
         coalesce(pg_wal_lsn_diff(greatest(pg_last_wal_receive_lsn(), r.flushed_lsn), '0/0'), 0)::int8 AS received, \
         coalesce(pg_wal_lsn_diff(pg_last_wal_replay_lsn(), '0/0'), 0)::int8 AS replayed, \
         date_part('epoch', pg_last_xact_replay_timestamp()) AS replayed_at, \
         CASE WHEN pg_is_in_recovery() THEN pg_is_wal_replay_paused() ELSE false END AS replay_paused, \
         CASE WHEN r.pid IS NOT NULL THEN json_build_object('status', r.status, \
           'sender_host', r.sender_host, 'sender_port', r.sender_port, 'slot', r.slot_name, \
           'timeline', r.received_tli, 'latest_end', {latest_end}, 'conninfo', r.conninfo)::text END AS receiver, \
         current_setting('synchronous_standby_names') AS standby_names, \
         coalesce((SELECT b.wait_event IN ('CheckpointerMain', 'CheckpointWriteDelay') FROM pg_stat_activity AS b \
           WHERE b.backend_type = 'checkpointer'), false) AS quiet, \
         c.timeline_id AS checkpoint_timeline, \
         greatest(c.timeline_id, (SELECT min_recovery_end_timeline FROM pg_control_recovery())) AS replayed_timeline, \
         (SELECT json_agg(json_build_object('pid', w.pid, 'usename', a.usename, \
           'application_name', coalesce(a.application_name, ''), 'client_addr', host(a.client_addr), 'state', w.state, \
           'sent', {sent}, 'write', {write}, 'flush', {flush}, 'replay', {replay}, \
           'sync_state', w.sync_state, 'sync_priority', w.sync_priority, \
           'since', (date_part('epoch', a.backend_start) * 1000)::int8))::text \
           FROM pg_stat_get_wal_senders() AS w LEFT JOIN pg_stat_activity AS a ON a.pid = w.pid) AS senders, \
         (SELECT json_agg(json_build_object('name', s.slot_name, 'kind', s.slot_type, 'plugin', s.plugin, \
           'database', s.database, 'active', s.active, 'active_pid', s.active_pid, \
           'xmin', s.xmin::text::int8, 'catalog_xmin', s.catalog_xmin::text::int8, \
           'restart', {restart}, 'confirmed', {confirmed}, 'wal_status', s.wal_status{failover}))::text \
           FROM pg_replication_slots AS s) AS slots \
         FROM pg_control_checkpoint() AS c LEFT JOIN pg_stat_get_wal_receiver() AS r ON true",
        latest_end = bytes("r.latest_end_lsn"),
        sent = bytes("w.sent_lsn"),
        write = bytes("w.write_lsn"),
        flush = bytes("w.flush_lsn"),
        replay = bytes("w.replay_lsn"),
        restart = bytes("s.restart_lsn"),
        confirmed = bytes("s.confirmed_flush_lsn"),
    )
}

fn bytes(lsn: &str) -> String {
    format!("pg_wal_lsn_diff({lsn}, '0/0')::int8")
}

impl Session {
    /// Looks at the server.
    pub async fn look(&self) -> Result<Look, QueryError> {
        let row = self.look_row().await?;
        let lsn = |name: &'static str| {
            let value: i64 = row.try_get(name).map_err(|_| QueryError::Answer(name))?;
            Ok::<_, QueryError>(Lsn(value.cast_unsigned()))
        };
        let timeline = |name: &'static str| {
            let value: i32 = row.try_get(name).map_err(|_| QueryError::Answer(name))?;
            Ok::<_, QueryError>(Timeline(value.cast_unsigned()))
        };
        let flag = |name: &'static str| row.try_get::<_, bool>(name).map_err(|_| QueryError::Answer(name));
        let json =
            |name: &'static str| row.try_get::<_, Option<&str>>(name).map_err(|_| QueryError::Answer(name));
        let in_recovery = flag("in_recovery")?;
        let receiver: Option<Receiver> = read(json("receiver")?, "receiver")?;
        let checkpoint_timeline = timeline("checkpoint_timeline")?;
        let written = timeline("timeline")?;
        let replayed = timeline("replayed_timeline")?;
        let received = receiver.as_ref().and_then(|receiver| receiver.timeline).map(Timeline);
        Ok(Look {
            in_recovery,
            timeline: if in_recovery { received.unwrap_or_default().max(replayed) } else { written },
            write: lsn("write")?,
            flush: lsn("flush")?,
            received: lsn("received")?,
            replayed: lsn("replayed")?,
            replayed_at: row.try_get("replayed_at").map_err(|_| QueryError::Answer("replayed_at"))?,
            replay_paused: flag("replay_paused")?,
            receiver,
            standby_names: row
                .try_get("standby_names")
                .map_err(|_| QueryError::Answer("synchronous_standby_names"))?,
            quiet: flag("quiet")?,
            checkpoint_timeline,
            senders: read(json("senders")?, "senders")?.unwrap_or_default(),
            slots: read(json("slots")?, "slots")?.unwrap_or_default(),
            system_id: self.system_id(),
            version: self.version(),
            closed: self.hba_file().is_some_and(super::closed::is),
            postmaster_start: self.postmaster_start(),
        })
    }
}

fn read<T: for<'de> Deserialize<'de>>(
    json: Option<&str>,
    what: &'static str,
) -> Result<Option<T>, QueryError> {
    json.map(|json| serde_json::from_str(json).map_err(|_| QueryError::Answer(what))).transpose()
}

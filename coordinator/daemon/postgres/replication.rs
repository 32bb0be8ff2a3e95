//! Where histories went: the timelines of a server, here and elsewhere, and whom a standby follows.

use std::fs;
use std::io;
use std::path::Path;

use dcs::{Lsn, SystemId, Timeline};

use super::conf::{self, Conf, ConfError};
use super::query::{QueryError, Session};
use super::run::{self, RunError};
use super::{Paths, Postmaster};

/// One line of a history file: a timeline that ended, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Switch {
    /// The timeline that ended.
    pub timeline: Timeline,
    /// Where it ended.
    pub at: Lsn,
    /// Postgres's reason.
    pub reason: String,
}

/// The lineage of a server, asked by SQL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lineage {
    /// The identity of its cluster.
    pub system_id: SystemId,
    /// It takes writes.
    pub takes_writes: bool,
    /// Its current timeline.
    pub timeline: Timeline,
    /// Its last checkpoint is on this timeline, so that its control file shows it: before that
    /// a rewind would see the old one and do nothing (F08).
    pub settled: bool,
    /// Its past timelines, ascending.
    pub switches: Vec<Switch>,
}

/// Reads a history file's text; lines that are none are skipped, as by Postgres.
pub fn parse_history(text: &str) -> Vec<Switch> {
    let line = |line: &str| {
        let mut fields = line.splitn(3, '\t');
        let timeline = fields.next()?.trim().parse().ok().map(Timeline)?;
        let at = fields.next()?.trim().parse().ok()?;
        Some(Switch { timeline, at, reason: fields.next().unwrap_or_default().trim().to_owned() })
    };
    text.lines().filter(|text| !text.trim_start().starts_with('#')).filter_map(line).collect()
}

/// The local history file of a timeline; `None` if there is none, as for timeline 1.
pub fn local_history(data_dir: &Path, timeline: Timeline) -> io::Result<Option<Vec<Switch>>> {
    let file = data_dir.join("pg_wal").join(format!("{:08X}.history", timeline.0));
    match fs::read_to_string(file) {
        Ok(text) => Ok(Some(parse_history(&text))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Asks a server for its lineage. The login must be a superuser or the one for rewinds.
pub async fn lineage(session: &Session) -> Result<Lineage, QueryError> {
    let state = "SELECT NOT pg_is_in_recovery(), c.timeline_id, \
         CASE WHEN pg_is_in_recovery() THEN c.timeline_id ELSE \
           ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int4 END \
         FROM pg_control_checkpoint() AS c";
    let rows = session.query(state, &[]).await?;
    let row = rows.first().ok_or(QueryError::Answer("timeline"))?;
    let number = |at: usize| {
        row.try_get::<_, i32>(at)
            .map(|n| Timeline(n.cast_unsigned()))
            .map_err(|_| QueryError::Answer("timeline"))
    };
    let takes_writes: bool = row.try_get(0).map_err(|_| QueryError::Answer("state"))?;
    let (checkpointed, timeline) = (number(1)?, number(2)?);
    let mut switches = Vec::new();
    if timeline.0 > 1 {
        let file = format!("pg_wal/{:08X}.history", timeline.0);
        let rows = session.query("SELECT convert_from(pg_read_binary_file($1), 'UTF8')", &[&file]).await?;
        let text: &str =
            rows.first().and_then(|row| row.try_get(0).ok()).ok_or(QueryError::Answer("history"))?;
        switches = parse_history(text);
    }
    let settled = takes_writes && checkpointed == timeline;
    Ok(Lineage { system_id: session.system_id(), takes_writes, timeline, settled, switches })
}

/// What a change of source took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Followed {
    /// Nothing: the files said so already.
    Already,
    /// A reload.
    Reloaded,
    /// The files are written, but this version of Postgres reads them at a start only (P238).
    NeedsRestart,
}

/// A change of source failed.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    /// A file could not be written.
    #[error(transparent)]
    Conf(#[from] ConfError),
    /// The server could not be told.
    #[error(transparent)]
    Run(#[from] RunError),
}

/// Makes a running standby follow what `conf` says, by a reload where its version can (13 and later
/// for the source, 14 for `restore_command`).
pub async fn follow(
    paths: &Paths,
    conf: &Conf,
    postmaster: &Postmaster,
    version: u32,
) -> Result<Followed, FollowError> {
    let settings = || {
        let text = fs::read_to_string(paths.conf()).unwrap_or_default();
        let of = |name: &str| text.lines().find(|line| line.starts_with(name)).map(str::to_owned);
        (of("primary_conninfo"), of("primary_slot_name"), of("restore_command"))
    };
    let before = settings();
    if !conf::put(paths, conf).await?.any() {
        return Ok(Followed::Already);
    }
    let after = settings();
    run::reload(postmaster)?;
    let source = (&before.0, &before.1) != (&after.0, &after.1);
    let restart = (source && version < 130_000) || (before.2 != after.2 && version < 140_000);
    Ok(if restart { Followed::NeedsRestart } else { Followed::Reloaded })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn history_files_are_read() {
        let text =
            "1\t0/3000110\tno recovery target specified\n\n# note\n2\t1/A0\tbefore 2000-01-01 00:00:00+00\n";
        let switches = parse_history(text);
        assert_eq!(switches.len(), 2);
        let last = switches.last().unwrap();
        assert_eq!((last.timeline, last.at), (Timeline(2), Lsn((1 << 32) + 0xA0)));
        assert_eq!(last.reason, "before 2000-01-01 00:00:00+00");
    }
}

//! Timeline histories: the leader's, read from its server, and the rows that the
//! `history` key is made of, read from the local history file.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use api::wall;
use config::NodeName;
use coordinator::LeaderHistory;
use dcs::{Epoch, HistoryRow, Lsn, Timeline};
use tokio::task::JoinSet;

use crate::postgres::query::{Session, Terms};
use crate::postgres::{Paths, Target, replication};

/// How long reading the leader's lineage may take.
const PATIENCE: Duration = Duration::from_secs(3);

/// Whose lineage is to be read.
pub struct Question {
    /// The leader.
    pub member: NodeName,
    /// Its reign.
    pub epoch: Epoch,
    /// Its server, as the rewind role or superuser.
    pub target: Target,
}

/// The reading that is under way, if any.
#[derive(Debug, Default)]
pub struct Reading(JoinSet<anyhow::Result<LeaderHistory>>);

impl Reading {
    /// Reads a lineage in place of the one being read.
    pub fn begin(&mut self, question: Question) {
        self.0.abort_all();
        self.0.spawn(async move {
            let read = tokio::time::timeout(PATIENCE, read(&question)).await;
            read.unwrap_or_else(|_| Err(anyhow::anyhow!("it did not answer within {PATIENCE:?}")))
                .with_context(|| format!("reading the timeline history of {}", question.member))
        });
    }

    /// The lineage that was read; nothing if that failed. Pends while none is being read.
    pub async fn next(&mut self) -> Option<LeaderHistory> {
        loop {
            match self.0.join_next().await {
                Some(Ok(Ok(history))) => return Some(history),
                Some(Ok(Err(error))) => {
                    tracing::warn!("{error:#}");
                    return None;
                }
                Some(Err(_)) => {}
                None => std::future::pending().await,
            }
        }
    }
}

async fn read(question: &Question) -> anyhow::Result<LeaderHistory> {
    let session = Session::open(&question.target, Terms::default()).await?;
    let lineage = replication::lineage(&session).await?;
    Ok(LeaderHistory {
        member: question.member.clone(),
        epoch: question.epoch,
        timeline: lineage.timeline,
        switches: lineage.switches.iter().map(|switch| (switch.timeline, switch.at)).collect(),
        settled: lineage.settled,
    })
}

/// The past timelines of the local server and where it left them; empty if that is not known.
pub fn switches(paths: &Paths, timeline: Timeline) -> Vec<(Timeline, Lsn)> {
    if timeline.0 <= 1 {
        return Vec::new();
    }
    // A file that cannot be read says nothing.
    let switches = replication::local_history(&paths.data_dir, timeline).ok().flatten().unwrap_or_default();
    switches.iter().map(|switch| (switch.timeline, switch.at)).collect()
}

/// The `history` key for a leader on `timeline`: the local history file's rows, with the
/// times and names that are known already, and this node's for a new last row (patroni-compat 1.6).
pub fn history_rows(
    paths: &Paths,
    timeline: Timeline,
    known: &[HistoryRow],
    me: &str,
    keep: usize,
) -> anyhow::Result<Vec<HistoryRow>> {
    if timeline.0 <= 1 {
        return Ok(Vec::new());
    }
    let switches = replication::local_history(&paths.data_dir, timeline)?
        .with_context(|| format!("there is no history file of timeline {timeline}"))?;
    let mut rows: Vec<HistoryRow> = switches
        .into_iter()
        .map(|switch| HistoryRow {
            timeline: switch.timeline,
            lsn: switch.at,
            reason: switch.reason,
            timestamp: None,
            leader: None,
        })
        .collect();
    // The last row tells readers the present timeline: one more than its own. Where a promotion
    // left out numbers that others had made, the one before the present is named too.
    let before = Timeline(timeline.0 - 1);
    if let Some(lsn) = rows.last().filter(|row| row.timeline < before).map(|row| row.lsn) {
        let reason = "left out: another server may have made this timeline".to_owned();
        rows.push(HistoryRow { timeline: before, lsn, reason, timestamp: None, leader: None });
    }
    let last = rows.len().saturating_sub(1);
    for (at, row) in rows.iter_mut().enumerate() {
        let before = known.iter().find(|old| old.timeline == row.timeline && old.lsn == row.lsn);
        if let Some(before) = before {
            row.timestamp.clone_from(&before.timestamp);
            row.leader.clone_from(&before.leader);
        }
        if at == last && row.leader.is_none() {
            row.timestamp =
                Some(modified(&paths.data_dir.join(format!("pg_wal/{:08X}.history", timeline.0))));
            row.leader = Some(me.to_owned());
        }
    }
    if keep > 0 && rows.len() > keep {
        rows.drain(..rows.len() - keep);
    }
    Ok(rows)
}

fn modified(file: &Path) -> String {
    let time = std::fs::metadata(file).and_then(|meta| meta.modified()).ok();
    let time = time.and_then(|time| time.try_into().ok()).unwrap_or_else(wall::now);
    wall::iso(time)
}

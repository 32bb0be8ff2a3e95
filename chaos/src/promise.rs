//! A workload on a whole cluster, begun when commits are as safe as a test wants them, and judged when all is well again.
//!
//! Judges rows only: who leads is for the test to say.

use std::time::Duration;

use dcs::Moment;
use serde_json::{Value, json};

use crate::cluster::{Cluster, until};
use crate::workload::{Outcome, Record, Workload};

/// Longer than any recovery takes.
const PATIENCE: Duration = Duration::from_secs(60);
/// Pause between two inserts.
const PACE: Duration = Duration::from_millis(5);

/// Whether a commit waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Commits {
    /// For any one replica, so that a lost row is a fault whoever dies.
    Wait,
    /// For nobody.
    Return,
}

/// Makes commits so, starts a client in an empty table, and waits until it writes.
///
/// # Errors
/// When there is no leader, or commits are not so in time.
pub async fn under_writes(cluster: &Cluster, commits: Commits) -> anyhow::Result<Workload> {
    let (leader, _) = cluster.roles().await?;
    leader.sql("drop table if exists writes").await?;
    let names = if commits == Commits::Wait { json!("ANY 1 (*)") } else { Value::Null };
    let parameters = json!({"synchronous_standby_names": names});
    cluster.patch_config(&json!({"postgresql": {"parameters": parameters}})).await?;
    let wanted = until(PATIENCE, "the wanted way of committing", async || {
        let sql = "select count(*) from pg_stat_replication where sync_state = 'quorum'";
        Ok(((leader.cell(sql).await? != "0") == (commits == Commits::Wait)).then_some(()))
    });
    cluster.explain(wanted.await)?;
    let workload = Workload::start(&cluster.servers(), PACE).await?;
    workload.wait_ack_after(Moment::now(), PATIENCE).await?;
    Ok(workload)
}

/// Waits until the cluster is healthy and writes go on, then stops the clients and counts the rows.
///
/// # Errors
/// When it does not recover, hardly anything was written, or a row is missing or was written by nobody.
pub async fn nothing_is_lost(cluster: &Cluster, workload: Workload) -> anyhow::Result<()> {
    let leader = cluster.wait_healthy(PATIENCE).await?;
    cluster.explain(workload.wait_ack_after(Moment::now(), PATIENCE).await)?;
    let verdict = workload.verdict(leader.postgres).await?;
    anyhow::ensure!(verdict.acked > 10, "hardly anything was written: {verdict:?}");
    anyhow::ensure!(verdict.lost.is_empty() && verdict.phantom.is_empty(), "{verdict:?}");
    Ok(())
}

/// Two servers never take writes side by side: in the order in which the acknowledged ones were sent, the
/// server changes with the leader, and a single fault makes at most two changes of leader.
///
/// # Errors
/// When it changed more often, or hardly anything was written.
pub fn one_writer(records: &[Record]) -> anyhow::Result<()> {
    let mut acked: Vec<&Record> = records.iter().filter(|record| record.outcome == Outcome::Ok).collect();
    acked.sort_by_key(|record| record.sent);
    let pairs = acked.iter().zip(acked.iter().skip(1));
    let changes: Vec<_> = pairs.filter(|(one, next)| one.server != next.server).collect();
    anyhow::ensure!(acked.len() > 50, "only {} writes were acknowledged", acked.len());
    anyhow::ensure!(changes.len() <= 2, "the writer changed {} times: {changes:#?}", changes.len());
    Ok(())
}

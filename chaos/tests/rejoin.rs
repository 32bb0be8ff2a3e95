//! How members come back: after divergence, after a crash of the daemon, with nothing left, and by reinitialise.
//!
//! One cluster serves the tests in turn; each leaves it healthy.

use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use chaos::{Cluster, Node, Program, Shared, Spec, until};
use rustix::process::Signal;
use serde_json::json;

const PATIENCE: Duration = Duration::from_secs(60);
/// Less than an idle Postgres takes until it writes something by itself, which is 15 s and more.
const IDLE: Duration = Duration::from_secs(12);

static CLUSTER: Shared = Shared::new(|| Spec::tested(3));

async fn postmaster_start(node: &Node) -> anyhow::Result<String> {
    node.cell("select pg_postmaster_start_time()").await
}

/// Freezes what streams on the replicas, so that the leader gets ahead of them; returns the frozen processes.
async fn freeze_streaming(replicas: &[&Node]) -> anyhow::Result<Vec<i32>> {
    let mut frozen = Vec::new();
    for replica in replicas {
        let pid = replica.cell("select pid from pg_stat_wal_receiver").await?.parse()?;
        chaos::process::signal(pid, Signal::STOP);
        frozen.push(pid);
    }
    Ok(frozen)
}

async fn ids(cluster: &Cluster, table: &str) -> anyhow::Result<Vec<String>> {
    let (leader, _) = cluster.roles().await?;
    Ok(leader.sql(&format!("select id from {table} order by id")).await?.into_iter().flatten().collect())
}

/// Lets the leader have rows that nobody else has, die, and come back.
async fn diverge(cluster: &Cluster) -> anyhow::Result<()> {
    let (leader, replicas) = cluster.roles().await?;
    leader.sql("create table diverged (id int); insert into diverged values (1); checkpoint").await?;
    let lsn = leader.cell("select pg_current_wal_flush_lsn()").await?;
    for replica in &replicas {
        let has_all = until(PATIENCE, "the first row on the replica", async || {
            let sql = format!("select pg_last_wal_replay_lsn() >= '{lsn}'");
            Ok((replica.cell(&sql).await? == "t").then_some(()))
        });
        has_all.await?;
    }
    let frozen = freeze_streaming(&replicas).await?;
    leader.sql("insert into diverged values (2), (3)").await?;
    leader.kill();
    // What still waits in a socket must not be read: each receiver ends as soon as it goes on.
    for pid in frozen {
        chaos::process::signal(pid, Signal::TERM);
        chaos::process::signal(pid, Signal::CONT);
    }
    let next = cluster.wait_leader(&[&leader.name], PATIENCE).await?;
    let written = until(PATIENCE, "a write on the new leader", async || {
        next.sql("insert into diverged values (4)").await.map(|_| Some(()))
    });
    cluster.explain(written.await)?;
    // An idle leader whose last segment is empty: nothing but the rejoin makes it write.
    next.sql("checkpoint").await?;
    next.sql("select pg_switch_wal()").await?;
    leader.start()?;
    cluster.wait_streaming(leader, next, IDLE).await?;
    cluster.wait_healthy(PATIENCE).await?;
    let ids = ids(cluster, "diverged").await?;
    anyhow::ensure!(ids == ["1", "4"], "the rows are {ids:?}");
    let there = until(PATIENCE, "the new row on the old primary", async || {
        let rows = leader.sql("select id from diverged order by id").await?;
        Ok((rows.concat() == ["1", "4"]).then_some(()))
    });
    cluster.explain(there.await)?;
    next.sql("drop table diverged").await?;
    Ok(())
}

/// P230 a crashed old primary recovers first, P232 then rewinds what the new primary does not have, P236 after the new
/// primary's checkpoint, and streams on the new timeline.
#[tokio::test]
async fn an_old_primary_with_rows_nobody_else_has_is_rewound() {
    let cluster = CLUSTER.lend().await.unwrap();
    diverge(&cluster).await.unwrap();
}

/// P233 where replicas restore WAL from an archive, pg_rewind is told how, by the old primary's own configuration.
#[tokio::test]
async fn an_old_primary_is_rewound_where_there_is_an_archive() {
    let cluster = CLUSTER.lend().await.unwrap();
    let restore =
        |command: &serde_json::Value| json!({"postgresql": {"recovery_conf": {"restore_command": command}}});
    cluster.patch_config(&restore(&json!("cp /nonexistent/%f %p"))).await.unwrap();
    diverge(&cluster).await.unwrap();
    cluster.patch_config(&restore(&json!(null))).await.unwrap();
    cluster.wait_healthy(PATIENCE).await.unwrap();
}

/// P162 a daemon that was killed finds its Postgres running and goes on with it, on a leader and on a replica;
/// P006 the leader key hangs on a lease of the new process afterwards.
#[tokio::test]
async fn a_killed_daemon_adopts_its_running_postgres() {
    let cluster = CLUSTER.lend().await.unwrap();
    let (leader, replicas) = cluster.roles().await.unwrap();
    for node in [leader, replicas[0]] {
        let start = postmaster_start(node).await.unwrap();
        let lease =
            cluster.store.get(&cluster.key(&format!("members/{}", node.name))).await.unwrap().unwrap().lease;
        node.kill_coordinator();
        node.start().unwrap();
        let renewed = until(PATIENCE, "the member's key on a new lease", async || {
            let key = cluster.store.get(&cluster.key(&format!("members/{}", node.name))).await?;
            Ok(key.filter(|key| key.lease != lease).map(|_| ()))
        });
        cluster.explain(renewed.await).unwrap();
        cluster.wait_healthy(PATIENCE).await.unwrap();
        assert_eq!(postmaster_start(node).await.unwrap(), start, "Postgres of {} was restarted", node.name);
    }
    assert_eq!(cluster.leader().await.unwrap().name, leader.name);
}

/// P196 a node without data clones by pg_basebackup, P163's counterpart: the cluster knows its system identifier.
#[tokio::test]
async fn a_replica_whose_data_is_gone_is_cloned_again() {
    let cluster = CLUSTER.lend().await.unwrap();
    let (leader, replicas) = cluster.roles().await.unwrap();
    let replica = replicas[0];
    replica.stop(PATIENCE).await.unwrap();
    #[allow(clippy::disallowed_methods, reason = "a disk that was replaced: the test plays the operator")]
    std::fs::rename(replica.data(), replica.dir.join("taken-away")).unwrap();
    replica.start().unwrap();
    cluster.wait_streaming(replica, leader, PATIENCE).await.unwrap();
    cluster.wait_healthy(PATIENCE).await.unwrap();
    let id = "select system_identifier from pg_control_system()";
    assert_eq!(replica.cell(id).await.unwrap(), leader.cell(id).await.unwrap());
}

/// Overwrites what a stopped standby has of the log after `from` with zeros, as if it had not arrived.
fn tear(node: &Node, from: &str) -> anyhow::Result<()> {
    let (high, low) = from.split_once('/').ok_or_else(|| anyhow::anyhow!("{from} is no position"))?;
    let at = (u64::from_str_radix(high, 16)? << 32) | u64::from_str_radix(low, 16)?;
    let segment = format!("{:08X}{:08X}", at >> 32, (at & 0xFFFF_FFFF) >> 24);
    let page = (at & 0xFF_FFFF).next_multiple_of(8192);
    let mut torn = 0;
    for entry in std::fs::read_dir(node.data().join("pg_wal"))? {
        let name = entry?.file_name().into_string().unwrap_or_default();
        if name.len() == 24 && name[8..] >= *segment {
            let from = if name[8..] == *segment { page } else { 0 };
            let file =
                std::fs::OpenOptions::new().write(true).open(node.data().join("pg_wal").join(&name))?;
            std::os::unix::fs::FileExt::write_all_at(&file, &vec![0; (0x100_0000 - from) as usize], from)?;
            torn += 1;
        }
    }
    anyhow::ensure!(torn > 0, "there is no file of segment {segment}");
    Ok(())
}

/// A standby that lacks some of the log which it has replayed before is not consistent until it streams. Started while
/// nobody leads, it is told whom to follow as soon as somebody does. On etcd always: alone it would have no embedded store.
#[tokio::test]
async fn a_standby_that_is_not_consistent_streams_what_it_lacks() {
    let cluster = Cluster::healthy(Spec::new(Program::tested(), 3)).await.unwrap();
    let (leader, replicas) = cluster.roles().await.unwrap();
    leader.sql("create table torn (id int); insert into torn values (1)").await.unwrap();
    leader.sql("checkpoint").await.unwrap();
    let from = leader.cell("select pg_current_wal_insert_lsn()").await.unwrap();
    leader.sql("insert into torn select generate_series(2, 9999)").await.unwrap();
    let to = leader.cell("select pg_current_wal_flush_lsn()").await.unwrap();
    let replica = replicas[0];
    let arrived = until(PATIENCE, "the rows on the replica", async || {
        let sql = format!("select pg_last_wal_replay_lsn() >= '{to}'");
        Ok((replica.cell(&sql).await? == "t").then_some(()))
    });
    cluster.explain(arrived.await).unwrap();
    // A clean stop notes how far it has replayed; it is consistent again only there.
    replica.stop(PATIENCE).await.unwrap();
    tear(replica, &from).unwrap();
    leader.kill();
    replicas[1].kill();
    let vacant = until(PATIENCE, "a vacant lease", async || {
        Ok(cluster.store.get(&cluster.key("leader")).await?.is_none().then_some(()))
    });
    vacant.await.unwrap();
    replica.start().unwrap();
    let starts = until(PATIENCE, "its Postgres, not consistent", async || {
        let log = std::fs::read_to_string(replica.dir.join("data.log")).unwrap_or_default();
        Ok((replica.postmaster().is_some() && log.contains("invalid magic number 0000")).then_some(()))
    });
    cluster.explain(starts.await).unwrap();
    assert!(replica.cell("select 1").await.is_err());
    leader.start().unwrap();
    replicas[1].start().unwrap();
    let leads = cluster.wait_leader(&[], PATIENCE).await.unwrap();
    cluster.wait_streaming(replica, leads, PATIENCE).await.unwrap();
    cluster.wait_healthy(PATIENCE).await.unwrap();
    assert_eq!(replica.cell("select count(*) from torn").await.unwrap(), "9999");
}

/// P212 a former primary that is alone leads again, on a higher timeline, with all its rows. On etcd always: alone it
/// would have no embedded store.
#[tokio::test]
async fn a_former_primary_that_is_alone_leads_again() {
    let cluster = Cluster::healthy(Spec::new(Program::tested(), 2)).await.unwrap();
    let (leader, replicas) = cluster.roles().await.unwrap();
    leader.sql("create table alone (id int); insert into alone values (7)").await.unwrap();
    for replica in &replicas {
        replica.stop(PATIENCE).await.unwrap();
    }
    leader.stop(PATIENCE).await.unwrap();
    leader.start().unwrap();
    let again = cluster.wait_leader(&[], PATIENCE).await.unwrap();
    assert_eq!(again.name, leader.name);
    assert_eq!(ids(&cluster, "alone").await.unwrap(), ["7"]);
    for replica in &replicas {
        replica.start().unwrap();
    }
    cluster.wait_healthy(PATIENCE).await.unwrap();
}

/// P100 a replica is reinitialised on request and a leader refuses, P101 also from the leader itself.
#[tokio::test]
async fn a_replica_is_reinitialised_and_a_leader_refuses() {
    let cluster = CLUSTER.lend().await.unwrap();
    let (leader, replicas) = cluster.roles().await.unwrap();
    let refused = leader.send("POST", "/reinitialize", &json!({"force": true})).await.unwrap();
    assert_eq!((refused.status, refused.body.as_str()), (503, "I am the leader, can not reinitialize"));
    let replica = replicas[0];
    let inode = || std::fs::metadata(replica.data().join("global")).map(|found| found.ino());
    let before = inode().unwrap();
    let answer = replica.send("POST", "/reinitialize", &json!({"from_leader": true})).await.unwrap();
    assert_eq!((answer.status, answer.body.as_str()), (200, "reinitialize started"));
    let cloned = until(PATIENCE, "a fresh copy", async || Ok((inode()? != before).then_some(())));
    cluster.explain(cloned.await).unwrap();
    cluster.wait_streaming(replica, leader, PATIENCE).await.unwrap();
    cluster.wait_healthy(PATIENCE).await.unwrap();
}

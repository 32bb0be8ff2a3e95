//! Failovers of a real cluster: the leader dies in every way it can, and no promised row is missing.
//!
//! One cluster serves the tests in turn. Commits wait for one replica, so that a lost row is always a fault.

use std::time::Duration;

use chaos::promise::{Commits, nothing_is_lost, under_writes};
use chaos::{Shared, Spec, until};
use dcs::Moment;
use rustix::process::Signal;
use serde_json::json;

/// Longer than any recovery takes; what is fast is for the benchmarks to show.
const PATIENCE: Duration = Duration::from_secs(60);

static CLUSTER: Shared = Shared::new(|| Spec::tested(3));

/// P003 the leader key holds a bare name with a lease, P009 the member key goes with its process, P204 automatic
/// failover, P207 the most advanced replica wins (each row is certain to be on one replica only), P047's slots.
#[tokio::test]
async fn the_node_of_the_leader_dies_and_another_takes_over_without_loss() {
    let cluster = CLUSTER.lend().await.unwrap();
    let workload = under_writes(&cluster, Commits::Wait).await.unwrap();
    let (leader, _) = cluster.roles().await.unwrap();
    let key = cluster.store.get(&cluster.key("leader")).await.unwrap().unwrap();
    assert_eq!(key.value, leader.name);
    assert_ne!(key.lease, 0);

    leader.kill();
    let next = cluster.wait_leader(&[&leader.name], PATIENCE).await.unwrap();
    let key = cluster.store.get(&cluster.key("leader")).await.unwrap().unwrap();
    assert_eq!(key.value, next.name);
    let member = cluster.key(&format!("members/{}", leader.name));
    let gone = until(PATIENCE, "the end of the dead member's key", async || {
        Ok(cluster.store.get(&member).await?.is_none().then_some(()))
    });
    gone.await.unwrap();
    cluster.explain(workload.wait_ack_after(Moment::now(), PATIENCE).await).unwrap();

    leader.start().unwrap();
    cluster.wait_streaming(leader, next, PATIENCE).await.unwrap();
    nothing_is_lost(&cluster, workload).await.unwrap();
}

/// P229 a killed postmaster is started again in place: same leader, same timeline, nothing lost.
#[tokio::test]
async fn a_killed_postmaster_comes_back_in_place() {
    let cluster = CLUSTER.lend().await.unwrap();
    let workload = under_writes(&cluster, Commits::Wait).await.unwrap();
    let (leader, _) = cluster.roles().await.unwrap();
    let before = leader.postmaster().unwrap();
    let timeline = "select timeline_id from pg_control_checkpoint()";
    let old = leader.cell(timeline).await.unwrap();
    // Little to recover: after a lot of WAL a complete replica would rightly lead.
    leader.sql("checkpoint").await.unwrap();

    leader.kill_postmaster();
    cluster.explain(workload.wait_ack_after(Moment::now(), PATIENCE).await).unwrap();
    let now = cluster.wait_healthy(PATIENCE).await.unwrap();
    assert_eq!(now.name, leader.name, "the leader restarts in place: nobody else is ahead");
    assert_ne!(leader.postmaster().unwrap(), before);
    assert_eq!(leader.cell(timeline).await.unwrap(), old);
    nothing_is_lost(&cluster, workload).await.unwrap();
}

/// P229 a crashed leader whose recovery would take long does not keep the lease while a replica has all of its WAL:
/// that one leads, and nothing is lost.
#[tokio::test]
async fn a_complete_replica_does_not_wait_for_a_slow_recovery() {
    let cluster = CLUSTER.lend().await.unwrap();
    let parameters = json!({"max_wal_size": "2GB", "checkpoint_timeout": "1h"});
    cluster.patch_config(&json!({"postgresql": {"parameters": parameters}})).await.unwrap();
    let (leader, _) = cluster.roles().await.unwrap();
    leader.sql("create table ballast (t text)").await.unwrap();
    leader.sql("alter table ballast alter t set storage plain").await.unwrap();
    // More than the assumed rate of recovery does in two seconds.
    let behind =
        "select pg_current_wal_lsn() - redo_lsn > 300::bigint * 1024 * 1024 from pg_control_checkpoint()";
    while leader.cell(behind).await.unwrap() != "t" {
        leader
            .sql("insert into ballast select repeat('x', 6000) from generate_series(1, 3000)")
            .await
            .unwrap();
    }
    let count = "select count(*) from ballast";
    let rows = leader.cell(count).await.unwrap();
    // Nobody writes: what the leader has, the replicas will have.
    let sent = until(PATIENCE, "everything on both replicas", async || {
        let sql = "select count(*) from pg_stat_replication where flush_lsn = pg_current_wal_lsn()";
        Ok((leader.cell(sql).await? == "2").then_some(()))
    });
    cluster.explain(sent.await).unwrap();
    let before = leader.log().len();
    leader.kill_postmaster();
    let next = cluster.wait_leader(&[&leader.name], PATIENCE).await.unwrap();
    let log = leader.log();
    let since = log.get(before..).unwrap_or_default();
    assert!(since.contains("Postgres crashed here and n"), "{since}");
    assert!(since.contains(" has all of its WAL: releasing the lease"), "{since}");
    assert_eq!(next.cell(count).await.unwrap(), rows);
    let leader = cluster.wait_healthy(PATIENCE).await.unwrap();
    leader.sql("drop table ballast").await.unwrap();
    let parameters = json!({"max_wal_size": null, "checkpoint_timeout": null});
    cluster.patch_config(&json!({"postgresql": {"parameters": parameters}})).await.unwrap();
}

/// P158 SIGTERM stops Postgres cleanly and releases the lock, P244 as soon as a replica has everything: the failover does
/// not wait for the lease. The old leader follows without a rewind (P217's handover by shutdown).
#[tokio::test]
async fn sigterm_on_the_leader_hands_over_at_once() {
    let cluster = CLUSTER.lend().await.unwrap();
    let workload = under_writes(&cluster, Commits::Wait).await.unwrap();
    let (leader, _) = cluster.roles().await.unwrap();
    let asked = Moment::now();
    let status = leader.stop(PATIENCE).await.unwrap();
    assert_eq!(status, Some(0));
    assert_eq!(leader.postmaster(), None);
    let next = cluster.wait_leader(&[&leader.name], PATIENCE).await.unwrap();
    cluster.explain(workload.wait_ack_after(Moment::now(), PATIENCE).await).unwrap();
    let outage = workload.outage_since(asked);
    let ttl = cluster.ttl();
    assert!(
        outage < ttl - Duration::from_millis(500),
        "{outage:?}: that is no handover but an expired lease"
    );

    // Other tests of this cluster have left their lines before.
    let before = leader.log().len();
    leader.start().unwrap();
    cluster.wait_streaming(leader, next, PATIENCE).await.unwrap();
    let log = leader.log();
    let since = log.get(before..).unwrap_or_default();
    assert!(!since.contains("pg_rewind: "), "a clean handover needs no rewind:\n{since}");
    nothing_is_lost(&cluster, workload).await.unwrap();
}

/// P209 a member tagged nofailover is never elected, P099/P157 tags are read again on SIGHUP.
#[tokio::test]
async fn a_member_that_must_not_lead_does_not() {
    let cluster = CLUSTER.lend().await.unwrap();
    let (leader, replicas) = cluster.roles().await.unwrap();
    let [barred, other] = replicas[..] else { panic!("three nodes have two replicas") };
    barred.edit(&json!({"tags": {"nofailover": true}})).unwrap();
    barred.signal(Signal::HUP);
    let known = until(PATIENCE, "the tag in the store", async || {
        let member = cluster.store.get(&cluster.key(&format!("members/{}", barred.name))).await?;
        Ok(member.filter(|member| member.value.contains("nofailover")).map(|_| ()))
    });
    cluster.explain(known.await).unwrap();

    leader.kill();
    let next = cluster.wait_leader(&[&leader.name], PATIENCE).await.unwrap();
    assert_eq!(next.name, other.name);
    // Until the first file of the new timeline has arrived, Postgres itself cannot be promoted: it panics.
    let written = next.cell("select pg_current_wal_flush_lsn()").await.unwrap();
    let arrived = until(PATIENCE, "the new timeline on the barred member", async || {
        let replayed = barred.cell(&format!("select pg_last_wal_replay_lsn() >= '{written}'")).await;
        Ok((replayed.ok().as_deref() == Some("t")).then_some(()))
    });
    cluster.explain(arrived.await).unwrap();
    cluster.wait_streaming(barred, next, PATIENCE).await.unwrap();
    // The old leader comes back barred too: an embedded store needs two members to elect anybody.
    leader.edit(&json!({"tags": {"nofailover": true}})).unwrap();
    leader.start().unwrap();
    cluster.wait_streaming(leader, next, PATIENCE).await.unwrap();
    next.kill();
    // Only barred members are left: they must stay replicas for longer than a lease lives.
    let ttl = cluster.ttl();
    let wrong = until(ttl + Duration::from_secs(4), "no", async || {
        let led = barred.code("/primary").await == 200 || leader.code("/primary").await == 200;
        Ok(led.then_some(()))
    });
    assert!(wrong.await.is_err(), "a member tagged nofailover was promoted");
    for node in [barred, leader] {
        node.edit(&json!({"tags": null})).unwrap();
        node.signal(Signal::HUP);
    }
    next.start().unwrap();
    cluster.wait_healthy(PATIENCE).await.unwrap();
}

/// P218 a leader whose key somebody else holds stops writing at once, P007 and never deletes that key.
#[tokio::test]
async fn a_leader_that_lost_its_key_stops_writing_at_once() {
    let cluster = CLUSTER.lend().await.unwrap();
    let (leader, _) = cluster.roles().await.unwrap();
    cluster.store.put(&cluster.key("leader"), "somebody-else").await.unwrap();
    let stopped = until(Duration::from_secs(10), "the end of writes", async || {
        let writable = leader.cell("select not pg_is_in_recovery()").await;
        Ok((writable.ok().as_deref() != Some("t") && leader.code("/primary").await != 200).then_some(()))
    });
    cluster.explain(stopped.await).unwrap();
    let key = cluster.store.get(&cluster.key("leader")).await.unwrap().unwrap();
    assert_eq!(key.value, "somebody-else");
    cluster.store.delete(&cluster.key("leader")).await.unwrap();
    cluster.wait_healthy(PATIENCE).await.unwrap();
}

/// P008 health checks stop saying primary when the lease may have ended, P219 a primary without its store becomes
/// read-only within ttl, and the cluster heals when the store is back.
#[tokio::test]
async fn a_leader_without_its_store_is_read_only_within_the_ttl() {
    let cluster = CLUSTER.lend().await.unwrap();
    let (leader, _) = cluster.roles().await.unwrap();
    let ttl = cluster.ttl();
    cluster.store.freeze().unwrap();
    let frozen = Moment::now();
    let demoted = until(ttl + Duration::from_secs(1), "503 on /primary", async || {
        Ok((leader.code("/primary").await == 503).then_some(()))
    });
    cluster.explain(demoted.await).unwrap();
    let read_only = until(ttl + Duration::from_secs(5), "the end of writes", async || {
        let writable = leader.cell("select not pg_is_in_recovery()").await;
        Ok((writable.ok().as_deref() != Some("t")).then_some(()))
    });
    cluster.explain(read_only.await).unwrap();
    assert!(Moment::now().since(frozen) < ttl + Duration::from_secs(5));
    cluster.store.thaw();
    cluster.wait_healthy(PATIENCE).await.unwrap();
}

//! Slots that members keep for each other, so that whoever leads next still has the WAL that the others need.

use std::time::Duration;

use chaos::{Cluster, Spec, until};
use serde_json::json;

const PATIENCE: Duration = Duration::from_secs(60);

/// P258 a replica has a slot for every other member, used by nobody, and moves it forward as the leader's goes forward.
#[tokio::test]
async fn replicas_keep_slots_for_the_others_and_move_them_forward() {
    let cluster = Cluster::healthy(Spec::tested(3)).await.unwrap();
    let (leader, replicas) = cluster.roles().await.unwrap();
    leader.sql("create table moved (t text)").await.unwrap();
    leader.sql("insert into moved select repeat('x', 100) from generate_series(1, 20000)").await.unwrap();
    let reached = leader.cell("select pg_current_wal_flush_lsn()").await.unwrap();
    for replica in replicas {
        let moved = until(PATIENCE, "both slots past what was written", async || {
            let sql = format!(
                "select slot_name from pg_replication_slots where not active and restart_lsn >= '{reached}' order by 1"
            );
            let mut names: Vec<String> =
                cluster.others(replica).into_iter().map(|node| node.name.clone()).collect();
            names.sort();
            Ok((replica.sql(&sql).await?.concat() == names).then_some(()))
        });
        cluster.explain(moved.await).unwrap();
    }
}

/// P257, P258 a replica that never leads keeps the slot of the one that follows it, which streams through it; the
/// leader's slot for that one, which nobody uses, moves forward all the same.
#[tokio::test]
async fn a_follower_of_a_replica_that_never_leads_streams_and_holds_no_wal_back() {
    let cluster = Cluster::healthy(Spec::tested(3)).await.unwrap();
    let (leader, replicas) = cluster.roles().await.unwrap();
    let (upstream, follower) = (replicas[0], replicas[1]);
    for (node, tags) in
        [(upstream, json!({"nofailover": true})), (follower, json!({"replicatefrom": upstream.name}))]
    {
        node.edit(&json!({"tags": tags})).unwrap();
        assert_eq!(node.send("POST", "/reload", &json!({})).await.unwrap().status, 202);
    }
    let slot = format!("from pg_replication_slots where slot_name = '{}'", follower.name);
    let streams = until(PATIENCE, "the follower to stream from the replica through its slot", async || {
        Ok((upstream.sql(&format!("select active {slot}")).await?.concat() == ["t"]).then_some(()))
    });
    cluster.explain(streams.await).unwrap();
    leader.sql("create table moved (t text)").await.unwrap();
    leader.sql("insert into moved select repeat('x', 100) from generate_series(1, 20000)").await.unwrap();
    let reached = leader.cell("select pg_current_wal_flush_lsn()").await.unwrap();
    let moved = until(PATIENCE, "the leader's unused slot past what was written", async || {
        let sql = format!("select not active and restart_lsn >= '{reached}' {slot}");
        Ok((leader.sql(&sql).await?.concat() == ["t"]).then_some(()))
    });
    cluster.explain(moved.await).unwrap();
}

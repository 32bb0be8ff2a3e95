//! Maintenance mode: the cluster looks on and touches nothing, except what people ask of it.
//!
//! One cluster serves the tests in turn; the pause ends with each.

use std::time::Duration;

use chaos::{Cluster, Shared, Spec, until};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(60);

static CLUSTER: Shared = Shared::new(|| Spec::tested(3));

/// Pauses and waits until every member says so in the store.
async fn pause(cluster: &Cluster) -> anyhow::Result<()> {
    cluster.patch_config(&json!({"pause": true})).await?;
    let told = until(PATIENCE, "every member to say that it is paused", async || {
        let members = cluster.store.keys(&cluster.key("members/")).await?;
        let paused = members.iter().filter(|member| {
            serde_json::from_str::<Value>(&member.value)
                .is_ok_and(|value| value.get("pause") == Some(&json!(true)))
        });
        Ok((paused.count() == cluster.nodes.len()).then_some(()))
    });
    cluster.explain(told.await)
}

/// P016 each member publishes the pause, P076 /cluster shows it, P223 a daemon that stops leaves Postgres running and the
/// leader key in place as long as it lives, and adopts it when it is back.
#[tokio::test]
async fn in_pause_a_daemon_that_stops_leaves_postgres_running() {
    let cluster = CLUSTER.lend().await.unwrap();
    pause(&cluster).await.unwrap();
    let (leader, _) = cluster.roles().await.unwrap();
    assert_eq!(leader.get("/cluster").await.unwrap().json()["pause"], true);
    let postmaster = leader.postmaster().unwrap();
    leader.stop(PATIENCE).await.unwrap();
    assert_eq!(leader.postmaster(), Some(postmaster));
    leader.sql("create table paused (id int); drop table paused").await.unwrap();
    leader.start().unwrap();
    let back = cluster.wait_leader(&[], PATIENCE).await.unwrap();
    assert_eq!(back.name, leader.name);
    assert_eq!(leader.postmaster(), Some(postmaster));
}

/// P223 in pause a dead Postgres is not started, nobody else is promoted, and both happen when the pause ends.
#[tokio::test]
async fn in_pause_a_dead_primary_stays_dead_until_the_pause_ends() {
    let cluster = CLUSTER.lend().await.unwrap();
    pause(&cluster).await.unwrap();
    let (leader, replicas) = cluster.roles().await.unwrap();
    leader.kill_postmaster();
    let ttl = cluster.ttl();
    let wrong = until(ttl + Duration::from_secs(3), "no", async || {
        let mut promoted = false;
        for replica in &replicas {
            promoted |= replica.cell("select pg_is_in_recovery()").await? == "f";
        }
        Ok((promoted || leader.postmaster().is_some()).then_some(()))
    });
    assert!(wrong.await.is_err(), "somebody acted in pause");
    leader.send("PATCH", "/config", &json!({"pause": null})).await.unwrap();
    cluster.wait_healthy(PATIENCE).await.unwrap();
}

/// P223 in pause a replica whose postmaster was killed is stopped, as every view says, until an operator
/// restarts it (P095).
#[tokio::test]
async fn in_pause_a_restart_starts_a_stopped_replica() {
    let cluster = CLUSTER.lend().await.unwrap();
    pause(&cluster).await.unwrap();
    let (leader, replicas) = cluster.roles().await.unwrap();
    let replica = &replicas[0];
    replica.kill_postmaster();
    let key = cluster.key(&format!("members/{}", replica.name));
    let stopped = until(PATIENCE, "the member to be published as stopped", async || {
        let members = cluster.store.keys(&key).await?;
        let stopped = members.iter().any(|member| {
            serde_json::from_str::<Value>(&member.value).is_ok_and(|value| value["state"] == "stopped")
        });
        Ok((stopped && replica.get("/patroni").await?.json()["state"] == "stopped").then_some(()))
    });
    cluster.explain(stopped.await).unwrap();
    assert_eq!(replica.get("/replica").await.unwrap().status, 503);
    let answer = replica.send("POST", "/restart", &json!({})).await.unwrap();
    assert_eq!((answer.status, answer.body.as_str()), (200, "restarted successfully"));
    assert_eq!(replica.cell("select pg_is_in_recovery()").await.unwrap(), "t");
    assert_eq!(leader.cell("select pg_is_in_recovery()").await.unwrap(), "f");
    leader.send("PATCH", "/config", &json!({"pause": null})).await.unwrap();
    cluster.wait_healthy(PATIENCE).await.unwrap();
}

/// P224 a switchover to a named candidate works in pause, P087 without one it is refused.
#[tokio::test]
async fn in_pause_only_a_named_candidate_takes_over() {
    let cluster = CLUSTER.lend().await.unwrap();
    pause(&cluster).await.unwrap();
    let (leader, replicas) = cluster.roles().await.unwrap();
    let answer = leader.send("POST", "/switchover", &json!({"leader": leader.name})).await.unwrap();
    let text = "Switchover is possible only to a specific candidate in a paused state";
    assert_eq!((answer.status, answer.body.as_str()), (400, text));
    let body = json!({"leader": leader.name, "candidate": replicas[0].name});
    let answer = leader.send("POST", "/switchover", &body).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.body);
    let next = cluster.wait_leader(&[&leader.name], PATIENCE).await.unwrap();
    assert_eq!(next.name, replicas[0].name);
    next.send("PATCH", "/config", &json!({"pause": null})).await.unwrap();
    cluster.wait_healthy(PATIENCE).await.unwrap();
}

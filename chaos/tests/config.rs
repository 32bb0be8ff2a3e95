//! Dynamic and local configuration: what wins, what is applied when, and what waits for a restart.
//!
//! One cluster serves the tests in turn; each takes its changes back.

use std::time::Duration;

use chaos::{Shared, Spec, until};
use rustix::process::Signal;
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(60);

static CLUSTER: Shared = Shared::new(|| {
    Spec::tested(3)
        .local(&json!({"postgresql": {"parameters": {"work_mem": "7MB", "max_connections": "77"}}}))
});

/// P079 PATCH merges and null deletes, P038 the change reaches every node within two seconds, P119 a local value wins over
/// a dynamic one, P124 patroni.dynamic.json is the last configuration known.
#[tokio::test]
async fn a_patch_reaches_every_node_and_local_values_win() {
    let cluster = CLUSTER.lend().await.unwrap();
    let parameters = json!({"maintenance_work_mem": "33MB", "work_mem": "9MB"});
    cluster.patch_config(&json!({"postgresql": {"parameters": parameters}})).await.unwrap();
    for node in &cluster.nodes {
        let applied = until(Duration::from_secs(2), "the new value", async || {
            Ok((node.cell("show maintenance_work_mem").await? == "33MB").then_some(()))
        });
        cluster.explain(applied.await).unwrap();
        assert_eq!(node.cell("show work_mem").await.unwrap(), "7MB");
        let cached = until(PATIENCE, "the cached configuration", async || {
            let text = std::fs::read_to_string(node.data().join("patroni.dynamic.json"))?;
            let value: Value = serde_json::from_str(&text)?;
            Ok((value["postgresql"]["parameters"]["maintenance_work_mem"] == "33MB").then_some(()))
        });
        cluster.explain(cached.await).unwrap();
    }
    let gone = json!({"maintenance_work_mem": null, "work_mem": null});
    cluster.patch_config(&json!({"postgresql": {"parameters": gone}})).await.unwrap();
    let (leader, _) = cluster.roles().await.unwrap();
    let config = leader.get("/config").await.unwrap().json();
    assert!(config["postgresql"]["parameters"].get("maintenance_work_mem").is_none(), "{config}");
    let applied = until(PATIENCE, "the default again", async || {
        Ok((leader.cell("show maintenance_work_mem").await? == "64MB").then_some(()))
    });
    cluster.explain(applied.await).unwrap();
}

/// P120 parameters that standbys depend on come from the store only, P121 with their minimum, P014 and P150 a change waits
/// for a restart and says so with both values, P095 POST /restart applies it and P147 a standby keeps the larger value.
#[tokio::test]
async fn parameters_that_need_a_restart_wait_for_it() {
    let cluster = CLUSTER.lend().await.unwrap();
    let (leader, replicas) = cluster.roles().await.unwrap();
    assert_eq!(leader.cell("show max_connections").await.unwrap(), "50");
    cluster.patch_config(&json!({"postgresql": {"parameters": {"max_connections": "60"}}})).await.unwrap();
    for node in &cluster.nodes {
        let flagged = until(PATIENCE, "the pending restart", async || {
            let status = node.get("/patroni").await?.json();
            Ok((status["pending_restart"] == true).then_some(status))
        });
        let status = cluster.explain(flagged.await).unwrap();
        let values = &status["pending_restart_reason"]["max_connections"];
        assert_eq!((&values["old_value"], &values["new_value"]), (&json!("50"), &json!("60")), "{status}");
    }
    for node in [leader, replicas[0], replicas[1]] {
        let before = node.cell("select pg_postmaster_start_time()").await.unwrap();
        let answer = node.send("POST", "/restart", &json!({"restart_pending": true})).await.unwrap();
        assert_eq!((answer.status, answer.body.as_str()), (200, "restarted successfully"), "{}", node.name);
        assert_ne!(node.cell("select pg_postmaster_start_time()").await.unwrap(), before);
        assert_eq!(node.cell("show max_connections").await.unwrap(), "60");
        let done = until(PATIENCE, "the end of the pending restart", async || {
            Ok(node.get("/patroni").await?.json().get("pending_restart").is_none().then_some(()))
        });
        cluster.explain(done.await).unwrap();
    }
    let still = cluster.wait_healthy(PATIENCE).await.unwrap();
    assert_eq!(still.name, leader.name, "a restart of the leader is no failover");
}

/// P096 a restart whose conditions do not hold does nothing, and wrong filters are refused.
#[tokio::test]
async fn a_restart_keeps_to_its_conditions() {
    let cluster = CLUSTER.lend().await.unwrap();
    let (leader, _) = cluster.roles().await.unwrap();
    let before = leader.cell("select pg_postmaster_start_time()").await.unwrap();
    let cases = [
        (json!({"role": "replica"}), 503, "restart conditions are not satisfied"),
        (json!({"restart_pending": true}), 503, "restart conditions are not satisfied"),
        (
            json!({"role": "king"}),
            400,
            "PostgreSQL role should be either primary, standby_leader, or replica",
        ),
        (json!({"timeout": "-1"}), 400, "Timeout should be a positive number of seconds"),
    ];
    for (body, status, text) in cases {
        let answer = leader.send("POST", "/restart", &body).await.unwrap();
        assert_eq!((answer.status, answer.body.as_str()), (status, text), "{body}");
    }
    assert_eq!(leader.cell("select pg_postmaster_start_time()").await.unwrap(), before);
}

/// P099 POST /reload and P157 SIGHUP read the file again: tags are published, parameters applied, P138 access rules
/// rewritten.
#[tokio::test]
async fn a_reload_reads_the_file_again() {
    let cluster = CLUSTER.lend().await.unwrap();
    let (_, replicas) = cluster.roles().await.unwrap();
    let node = replicas[0];
    node.edit(&json!({"tags": {"rack": "b7"}, "postgresql": {"parameters": {"work_mem": "8MB"}}})).unwrap();
    let answer = node.send("POST", "/reload", &json!({})).await.unwrap();
    assert_eq!(answer.status, 202, "{}", answer.body);
    let applied = until(PATIENCE, "the new file", async || {
        let tags = node.get("/patroni").await?.json()["tags"]["rack"] == "b7";
        Ok((tags && node.cell("show work_mem").await? == "8MB").then_some(()))
    });
    cluster.explain(applied.await).unwrap();

    let rules = [
        "local all all trust",
        "host replication replicator 127.0.0.0/8 scram-sha-256",
        "host all all 127.0.0.0/8 scram-sha-256",
        "local nobody nobody reject",
    ];
    node.edit(&json!({"tags": null, "postgresql": {"parameters": {"work_mem": "7MB"}, "pg_hba": rules}}))
        .unwrap();
    node.signal(Signal::HUP);
    let applied = until(PATIENCE, "the file after SIGHUP", async || {
        let text = std::fs::read_to_string(node.data().join("pg_hba.conf"))?;
        let rules = text.contains("local nobody nobody reject");
        Ok((rules && node.cell("show work_mem").await? == "7MB").then_some(()))
    });
    cluster.explain(applied.await).unwrap();
}

/// P023 the leader restores `config` when somebody deletes it, P024 and replaces one that is broken.
#[tokio::test]
async fn the_leader_restores_the_shared_configuration() {
    let cluster = CLUSTER.lend().await.unwrap();
    let key = cluster.key("config");
    let before: Value = serde_json::from_str(&cluster.store.get(&key).await.unwrap().unwrap().value).unwrap();
    let restored = async || {
        let back = until(PATIENCE, "the configuration again", async || {
            let value = cluster.store.get(&key).await?.map(|found| found.value).unwrap_or_default();
            Ok((serde_json::from_str::<Value>(&value).ok().as_ref() == Some(&before)).then_some(()))
        });
        cluster.explain(back.await)
    };
    cluster.store.delete(&key).await.unwrap();
    restored().await.unwrap();
    cluster.store.put(&key, "[]").await.unwrap();
    restored().await.unwrap();
}

/// P081 PUT replaces the whole configuration, P112 a body that is no object is refused and changes nothing.
#[tokio::test]
async fn a_put_replaces_everything() {
    let cluster = CLUSTER.lend().await.unwrap();
    let (leader, _) = cluster.roles().await.unwrap();
    let before = leader.get("/config").await.unwrap().json();
    let mut other = before.clone();
    other["maximum_lag_on_failover"] = json!(2_000_000);
    assert_eq!(leader.send("PUT", "/config", &other).await.unwrap().status, 200);
    assert_eq!(leader.get("/config").await.unwrap().json(), other);
    assert_eq!(leader.send("PATCH", "/config", &json!([1])).await.unwrap().status, 400);
    assert_eq!(leader.get("/config").await.unwrap().json(), other);
    assert_eq!(leader.send("PUT", "/config", &before).await.unwrap().status, 200);
}

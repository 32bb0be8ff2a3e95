//! Restarts and new copies on request: what is done, what is refused, and in which words.
//!
//! One cluster serves the tests in turn; each leaves it healthy.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use chaos::{Node, Shared, Spec, until};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(60);

/// Clones are slow enough to be met while they run.
static CLUSTER: Shared =
    Shared::new(|| Spec::tested(3).local(&json!({"postgresql": {"basebackup": [{"max-rate": "8M"}]}})));

async fn answer(node: &Node, method: &str, path: &str, body: Value) -> (u16, String) {
    let answer = node.send(method, path, &body).await.unwrap();
    (answer.status, answer.body)
}

fn said(code: u16, text: &str) -> (u16, String) {
    (code, text.to_owned())
}

async fn started(node: &Node) -> anyhow::Result<String> {
    node.cell("select pg_postmaster_start_time()").await
}

/// P097 a server that is not up in time goes on starting, and the answer says so; nobody loses the lease over it.
#[tokio::test]
async fn a_restart_that_takes_longer_than_its_timeout_says_so() {
    let cluster = CLUSTER.lend().await.unwrap();
    let (leader, replicas) = cluster.roles().await.unwrap();
    for node in [replicas[0], leader] {
        let told = async || anyhow::Ok(node.get("/patroni").await?.json()["postmaster_start_time"].clone());
        let before = told().await.unwrap();
        let late = answer(node, "POST", "/restart", json!({"timeout": "1ms"})).await;
        assert_eq!(late, said(503, "postgres is still starting"), "{}", node.name);
        let restarted = until(PATIENCE, "the started server", async || {
            let now = told().await?;
            Ok((now.is_string() && now != before).then_some(()))
        });
        cluster.explain(restarted.await).unwrap();
        let in_time = answer(node, "POST", "/restart", json!({"timeout": "1min"})).await;
        assert_eq!(in_time, said(200, "restarted successfully"), "{}", node.name);
    }
    let still = cluster.wait_healthy(PATIENCE).await.unwrap();
    assert_eq!(still.name, leader.name);
}

/// P100 the leader keeps its copy, a replica gets a new one, and one at a time; P101 unless it is forced, and then
/// from the leader.
#[tokio::test]
async fn a_replica_is_cloned_anew_and_the_leader_is_not() {
    let cluster = CLUSTER.lend().await.unwrap();
    let (leader, replicas) = cluster.roles().await.unwrap();
    let node = replicas[0];
    let refused = answer(leader, "POST", "/reinitialize", json!({})).await;
    assert_eq!(refused, said(503, "I am the leader, can not reinitialize"));
    let before = started(node).await.unwrap();
    assert_eq!(answer(node, "POST", "/reinitialize", json!({})).await, said(200, "reinitialize started"));
    let busy = until(PATIENCE, "a refusal while it runs", async || {
        let (code, text) = answer(node, "POST", "/reinitialize", json!({})).await;
        Ok((code == 503).then_some(text))
    });
    let text = cluster.explain(busy.await).unwrap();
    assert!(text.ends_with(" already in progress"), "{text}");
    let (code, text) = answer(node, "POST", "/restart", json!({})).await;
    assert!(code == 503 && text.ends_with(" already in progress"), "{code} {text}");
    let forced = answer(node, "POST", "/reinitialize", json!({"force": true, "from_leader": true})).await;
    assert_eq!(forced, said(200, "reinitialize started"));
    cluster.wait_streaming(node, leader, PATIENCE).await.unwrap();
    assert_ne!(started(node).await.unwrap(), before);
    assert_eq!(cluster.wait_healthy(PATIENCE).await.unwrap().name, leader.name);
}

/// P100 what custody would refuse is refused before anything is stopped, in its words: a file that is not Postgres's.
#[tokio::test]
async fn a_copy_that_must_not_go_is_refused_at_once() {
    let cluster = CLUSTER.lend().await.unwrap();
    let (_, replicas) = cluster.roles().await.unwrap();
    let node = replicas[0];
    let (precious, before) = (node.data().join("precious.txt"), node.postmaster());
    std::fs::write(&precious, "do not lose me").unwrap();
    let (code, text) = answer(node, "POST", "/reinitialize", json!({})).await;
    assert_eq!(code, 503, "{text}");
    assert!(text.starts_with("can not reinitialize: the data directory stays where it is: "), "{text}");
    assert!(text.contains("precious.txt") && text.contains("move what is not Postgres's out"), "{text}");
    assert_eq!(node.postmaster(), before, "Postgres runs on");
    std::fs::remove_file(&precious).unwrap();
    assert_eq!(answer(node, "POST", "/reinitialize", json!({})).await, said(200, "reinitialize started"));
    cluster.wait_healthy(PATIENCE).await.unwrap();
}

/// P100 without a leader there is nothing to clone from.
#[tokio::test]
async fn without_a_leader_nothing_is_cloned() {
    let cluster = CLUSTER.lend().await.unwrap();
    let (leader, replicas) = cluster.roles().await.unwrap();
    let node = replicas[0];
    for replica in &replicas {
        replica.edit(&json!({"tags": {"nofailover": true}})).unwrap();
        assert_eq!(answer(replica, "POST", "/reload", json!({})).await.0, 202);
        let tagged = until(PATIENCE, "the tag", async || {
            Ok((replica.get("/patroni").await?.json()["tags"]["nofailover"] == true).then_some(()))
        });
        cluster.explain(tagged.await).unwrap();
    }
    leader.kill();
    let vacant = until(PATIENCE, "the end of the lease", async || {
        Ok((!node.get("/cluster").await?.body.contains(r#""role": "leader""#)).then_some(()))
    });
    cluster.explain(vacant.await).unwrap();
    let refused = answer(node, "POST", "/reinitialize", json!({})).await;
    assert_eq!(refused, said(503, "Cluster has no leader, can not reinitialize"));
    for replica in &replicas {
        replica.edit(&json!({"tags": null})).unwrap();
        assert_eq!(answer(replica, "POST", "/reload", json!({})).await.0, 202);
    }
    leader.start().unwrap();
    cluster.wait_healthy(PATIENCE).await.unwrap();
}

//! What is wrong with a node: one clear sentence that says what to do, nothing changed, nothing lost; and the cluster
//! does not notice.
//!
//! One cluster of three serves the tests in turn: a replica is started with something wrong and put right again.

#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a panic is a failed test, in its helpers too"
)]

use std::time::Duration;

use chaos::{Cluster, Node, Shared, Spec, Store, until};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(60);

static CLUSTER: Shared = Shared::new(|| Spec::matriarch(3));

/// A replica, stopped, so that it can be started with something wrong.
async fn stopped_replica(cluster: &Cluster) -> anyhow::Result<&Node> {
    let (_, replicas) = cluster.roles().await?;
    let replica = replicas.first().copied().ok_or_else(|| anyhow::anyhow!("no replica"))?;
    replica.stop(PATIENCE).await?;
    Ok(replica)
}

/// What the node logs from here on.
fn said_since(node: &Node, before: &str) -> String {
    node.log().strip_prefix(before).unwrap_or_default().to_owned()
}

/// Starts the replica with a change that it must refuse: it ends with status 1, says why, and touches nothing;
/// with the change taken back it is a replica again, and the leader was the same server all the while.
async fn refused(wrong: &Value, right: &Value, sentence: &[&str]) -> anyhow::Result<()> {
    let cluster = CLUSTER.lend().await?;
    let (leader, _) = cluster.roles().await?;
    let postmaster = leader.postmaster();
    let node = stopped_replica(&cluster).await?;
    let control = std::fs::read(node.data().join("global/pg_control"))?;
    let before = node.log();
    node.edit(wrong)?;
    node.start()?;
    let status = node.wait_end(PATIENCE).await?;
    let said = said_since(node, &before);
    anyhow::ensure!(status == Some(1), "it ended with {status:?}: {said}");
    for words in sentence {
        anyhow::ensure!(said.contains(words), "{words:?} is missing: {said}");
    }
    anyhow::ensure!(!said.contains("panicked"), "{said}");
    anyhow::ensure!(
        std::fs::read(node.data().join("global/pg_control"))? == control,
        "its data were changed"
    );
    node.edit(right)?;
    node.start()?;
    cluster.wait_healthy(PATIENCE).await?;
    anyhow::ensure!(leader.postmaster() == postmaster, "the leader was disturbed");
    Ok(())
}

fn other(node: &str) -> &'static str {
    if node == "n1" { "n2" } else { "n1" }
}

/// The name of whoever is the replica now.
async fn replica_name() -> String {
    let cluster = CLUSTER.lend().await.unwrap();
    let (_, replicas) = cluster.roles().await.unwrap();
    replicas[0].name.clone()
}

/// P161: a name that answers already is refused.
#[tokio::test]
async fn a_second_node_of_the_same_name_is_refused() {
    let name = replica_name().await;
    let words = [
        format!(" CRITICAL: Can't start; there is already a node named '{}' running", other(&name)),
        "another name".to_owned(),
    ];
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    refused(&json!({"name": other(&name)}), &json!({"name": name}), &words).await.unwrap();
}

/// P163: a replica's directory makes no cluster.
#[tokio::test]
async fn a_replica_that_is_first_is_refused() {
    let words = ["the cluster was never initialised", "start the primary's node first"];
    refused(&json!({"scope": "other"}), &json!({"scope": "demo"}), &words).await.unwrap();
    let cluster = CLUSTER.lend().await.unwrap();
    let made = cluster.store.get("/service/other/initialize").await.unwrap();
    assert!(made.is_none(), "it made a cluster: {made:?}");
}

/// P164: a directory of another cluster is refused, and neither side is changed.
#[tokio::test]
async fn a_directory_of_another_cluster_is_refused() {
    let key = "/service/foreign/initialize";
    let cluster = CLUSTER.lend().await.unwrap();
    cluster.store.put(key, "7710145069470500063").await.unwrap();
    drop(cluster);
    let words = [" CRITICAL: system ID mismatch", "7710145069470500063", "correct scope and data_dir"];
    refused(&json!({"scope": "foreign"}), &json!({"scope": "demo"}), &words).await.unwrap();
    let cluster = CLUSTER.lend().await.unwrap();
    assert_eq!(cluster.store.get(key).await.unwrap().unwrap().value, "7710145069470500063");
}

/// A port that somebody else uses is named, with whose it was to be.
#[tokio::test]
async fn a_taken_port_is_refused() {
    let cluster = CLUSTER.lend().await.unwrap();
    let (leader, replicas) = cluster.roles().await.unwrap();
    let (taken, own) = (leader.rest.to_string(), replicas[0].rest.to_string());
    drop(cluster);
    let wrong = json!({"restapi": {"listen": taken}});
    refused(&wrong, &json!({"restapi": {"listen": own}}), &[taken.as_str(), "restapi.listen"]).await.unwrap();
}

/// Without Postgres's programs nothing is begun.
#[tokio::test]
async fn a_missing_binary_is_refused() {
    let bin_dir = CLUSTER.lend().await.unwrap().tools.postgres.clone();
    let words = ["/nonexistent/postgres", "set postgresql.bin_dir"];
    let wrong = json!({"postgresql": {"bin_dir": "/nonexistent"}});
    refused(&wrong, &json!({"postgresql": {"bin_dir": bin_dir}}), &words).await.unwrap();
}

/// A value that cannot be is named with its line.
#[tokio::test]
async fn an_impossible_value_is_refused() {
    let words = ["node.yml:", "postgresql.pg_ctl_timeout", "soon"];
    let wrong = json!({"postgresql": {"pg_ctl_timeout": "soon"}});
    refused(&wrong, &json!({"postgresql": {"pg_ctl_timeout": null}}), &words).await.unwrap();
}

/// Without a store the node waits, says for what, and ends cleanly when it is told to.
#[tokio::test]
async fn a_store_that_does_not_answer_is_waited_for() {
    let cluster = CLUSTER.lend().await.unwrap();
    let node = stopped_replica(&cluster).await.unwrap();
    let before = node.log();
    let hosts = std::fs::read_to_string(node.file()).unwrap();
    // The node is a client of the embedded store then, and no member.
    let (elsewhere, waiting) = match Store::tested() {
        Store::Etcd => (json!({"etcd3": {"hosts": ["127.0.0.1:1"]}}), "waiting on etcd: "),
        Store::Embedded => {
            let raft = json!({"self_addr": null, "bind_addr": null, "partner_addrs": ["127.0.0.1:1"]});
            (json!({"raft": raft}), "waiting on the embedded store: ")
        }
    };
    node.edit(&elsewhere).unwrap();
    node.start().unwrap();
    let waits = until(PATIENCE, "a word about the store", async || {
        Ok(said_since(node, &before).contains(waiting).then_some(()))
    });
    waits.await.unwrap();
    assert_eq!(node.stop(PATIENCE).await.unwrap(), Some(0));
    assert_eq!(node.postmaster(), None);
    std::fs::write(node.file(), hosts).unwrap();
    node.start().unwrap();
    cluster.wait_healthy(PATIENCE).await.unwrap();
}

/// A wrong password for the leader is told in its words; put right, a reload is enough.
#[tokio::test]
async fn a_wrong_password_is_named_and_put_right_by_a_reload() {
    let cluster = CLUSTER.lend().await.unwrap();
    let (leader, _) = cluster.roles().await.unwrap();
    let node = stopped_replica(&cluster).await.unwrap();
    let (before, password) = (node.log(), chaos::spec::REPLICATION_PASSWORD);
    #[allow(clippy::disallowed_methods, reason = "a disk that was replaced: the test plays the operator")]
    std::fs::rename(node.data(), node.dir.join("away")).unwrap();
    node.edit(&json!({"postgresql": {"authentication": {"replication": {"password": "guess"}}}})).unwrap();
    node.start().unwrap();
    let told = until(PATIENCE, "a word about the password", async || {
        Ok(said_since(node, &before)
            .contains("password authentication failed for user \"replicator\"")
            .then_some(()))
    });
    cluster.explain(told.await).unwrap();
    assert!(!said_since(node, &before).contains("guess"), "the password is in the log");
    assert!(!node.data().join("PG_VERSION").exists(), "something half made was put in place");
    node.edit(&json!({"postgresql": {"authentication": {"replication": {"password": password}}}})).unwrap();
    assert_eq!(node.send("POST", "/reload", &json!({})).await.unwrap().status, 202);
    cluster.explain(cluster.wait_streaming(node, leader, PATIENCE).await).unwrap();
}

//! Clusters that keep their store themselves: no etcd, ttl 3.
//!
//! One cluster serves the first tests in turn; what is about members and witnesses has its own.

use std::time::Duration;

use chaos::embedded::{leading_member, store_members};
use chaos::promise::{Commits, nothing_is_lost, under_writes};
use chaos::spec::{STORE_PASSWORD, store_address};
use chaos::user::RunAs;
use chaos::{Cluster, Node, Program, Shared, Spec, until};
use dcs::Moment;
use serde_json::{Value, json};

/// Longer than any recovery takes; what is fast is for the benchmarks to show.
const PATIENCE: Duration = Duration::from_secs(60);
const TIMELINE: &str = "select timeline_id from pg_control_checkpoint()";

static CLUSTER: Shared = Shared::new(|| Spec::embedded(3));

/// Three nodes without any other store make one cluster, and matriarchctl works with it as with etcd.
#[tokio::test]
async fn three_nodes_keep_their_store_themselves() {
    let cluster = CLUSTER.lend().await.unwrap();
    assert!(cluster.nodes.iter().all(|node| !node.log().contains("demoted by a change of etcd")));
    let listed = cluster.matriarchctl(&["list", "-f", "json"]).await.unwrap();
    let listed: Vec<Value> = serde_json::from_str(&listed.out).unwrap();
    let roles = |role: &str| listed.iter().filter(|row| row["Role"] == role).count();
    assert_eq!((roles("Leader"), roles("Replica")), (1, 2), "{listed:?}");

    let members = store_members(&cluster).await.unwrap();
    let count = |key: &str, value: &str| members.iter().filter(|row| row[key] == value).count();
    assert_eq!((count("Role", "leader"), count("Role", "voter"), count("State", "reachable")), (1, 2, 3));

    let edited =
        cluster.matriarchctl(&["edit-config", "--force", "-s", "maximum_lag_on_failover=2000000"]).await;
    assert_eq!(edited.unwrap().code, Some(0));
    let shown = cluster.matriarchctl(&["show-config"]).await.unwrap().out;
    assert!(shown.contains("maximum_lag_on_failover: 2000000") && shown.contains("ttl: 3"), "{shown}");
    for node in &cluster.nodes {
        assert_eq!(node.code("/readiness").await, 200);
    }
}

/// The node of the leader dies: another leads, without loss, and the dead one comes back.
#[tokio::test]
async fn the_node_of_the_leader_dies_and_another_takes_over_without_loss() {
    let cluster = CLUSTER.lend().await.unwrap();
    let workload = under_writes(&cluster, Commits::Wait).await.unwrap();
    let (leader, _) = cluster.roles().await.unwrap();
    let killed = Moment::now();
    leader.kill();
    let next = cluster.wait_leader(&[&leader.name], PATIENCE).await.unwrap();
    cluster.explain(workload.wait_ack_after(Moment::now(), PATIENCE).await).unwrap();
    println!("writable again after {:?}", workload.outage_since(killed));
    leader.start().unwrap();
    cluster.wait_streaming(leader, next, PATIENCE).await.unwrap();
    nothing_is_lost(&cluster, workload).await.unwrap();
}

/// A switchover loses nothing.
#[tokio::test]
async fn a_switchover_loses_nothing() {
    let cluster = CLUSTER.lend().await.unwrap();
    let workload = under_writes(&cluster, Commits::Wait).await.unwrap();
    let (leader, replicas) = cluster.roles().await.unwrap();
    let candidate = replicas[0];
    let body = json!({"leader": leader.name, "candidate": candidate.name});
    let answer = leader.send("POST", "/switchover", &body).await.unwrap();
    assert_eq!(
        (answer.status, answer.body),
        (200, format!("Successfully switched over to \"{}\"", candidate.name))
    );
    assert_eq!(cluster.wait_healthy(PATIENCE).await.unwrap().name, candidate.name);
    nothing_is_lost(&cluster, workload).await.unwrap();
}

/// The leader of the store dies, which is not the leader of Postgres: that one stays, and is not even restarted.
#[tokio::test]
async fn the_leader_of_postgres_stays_when_the_leader_of_the_store_dies() {
    let cluster = CLUSTER.lend().await.unwrap();
    let leading = leading_member(&cluster).await.unwrap();
    let (leader, replicas) = cluster.roles().await.unwrap();
    if cluster.nodes[leading].name == leader.name {
        let body = json!({"leader": leader.name, "candidate": replicas[0].name});
        assert_eq!(leader.send("POST", "/switchover", &body).await.unwrap().status, 200);
        cluster.wait_healthy(PATIENCE).await.unwrap();
    }
    let workload = under_writes(&cluster, Commits::Wait).await.unwrap();
    let (leader, _) = cluster.roles().await.unwrap();
    let victim = &cluster.nodes[leading];
    assert_ne!(victim.name, leader.name);
    let before = (leader.postmaster().unwrap(), leader.cell(TIMELINE).await.unwrap());

    victim.kill();
    let moved = until(PATIENCE, "another leader of the store", async || {
        Ok((leading_member(&cluster).await? != leading).then_some(()))
    });
    cluster.explain(moved.await).unwrap();
    // Twice the ttl: whoever could not renew is demoted by now.
    let end = Moment::now() + Duration::from_secs(6);
    while Moment::now() < end {
        assert_eq!(leader.code("/primary").await, 200, "{}", cluster.report());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let after = (leader.postmaster().unwrap(), leader.cell(TIMELINE).await.unwrap());
    assert_eq!(before, after);
    victim.start().unwrap();
    nothing_is_lost(&cluster, workload).await.unwrap();
}

/// Every node is killed at once and started again: the same cluster, the same rows, nobody is needed.
#[tokio::test]
async fn all_nodes_killed_at_once_come_back_as_the_same_cluster() {
    let cluster = CLUSTER.lend().await.unwrap();
    let (leader, _) = cluster.roles().await.unwrap();
    leader
        .sql("drop table if exists kept; create table kept as select generate_series(1, 1000) n")
        .await
        .unwrap();
    let system = "select system_identifier from pg_control_system()";
    let identity = leader.cell(system).await.unwrap();
    let identities =
        |members: Vec<Value>| members.iter().map(|row| row["Identity"].to_string()).collect::<Vec<_>>();
    let members = identities(store_members(&cluster).await.unwrap());

    cluster.nodes.iter().for_each(Node::kill);
    cluster.nodes.iter().try_for_each(Node::start).unwrap();
    let leader = cluster.wait_healthy(PATIENCE).await.unwrap();
    assert_eq!(leader.cell(system).await.unwrap(), identity);
    assert_eq!(leader.cell("select count(*) from kept").await.unwrap(), "1000");
    assert_eq!(identities(store_members(&cluster).await.unwrap()), members);
}

/// Without a quorum nobody leads, the survivor says who is missing, and all is well when they are back.
#[tokio::test]
async fn without_a_quorum_nobody_leads_and_who_is_missing_is_said() {
    let cluster = CLUSTER.lend().await.unwrap();
    let (leader, replicas) = cluster.roles().await.unwrap();
    replicas.iter().for_each(|replica| replica.kill());
    let demoted = until(PATIENCE, "a leader that steps down", async || {
        Ok((leader.code("/primary").await != 200 && leader.cell("select pg_is_in_recovery()").await? == "t")
            .then_some(()))
    });
    cluster.explain(demoted.await).unwrap();
    let said = until(PATIENCE, "the name of the missing", async || {
        Ok(leader.log().contains("the embedded store has had no quorum for").then_some(()))
    });
    cluster.explain(said.await).unwrap();
    let members = store_members(&cluster).await.unwrap();
    let lost = members.iter().filter(|row| row["State"] == "not reachable").count();
    assert_eq!((members.len(), lost), (3, 2), "{members:?}");
    replicas.iter().try_for_each(|replica| replica.start()).unwrap();
    cluster.wait_healthy(PATIENCE).await.unwrap();
}

/// A node starts alone: it waits, and says which members it waits for.
#[tokio::test]
async fn a_first_start_says_who_is_missing_and_a_stop_ends_the_wait() {
    let cluster = Cluster::in_slot(Spec::embedded(3)).await.unwrap();
    let [first, second, third] = &cluster.nodes[..] else { panic!("three nodes") };
    first.start().unwrap();
    second.start().unwrap();
    let missing = store_address(2, cluster.net());
    let said = until(PATIENCE, "the missing member", async || {
        let log = first.log();
        let named =
            log.contains("it is founded only when all its members are there") && log.contains(&missing);
        Ok((named && log.contains("waiting on the embedded store: ")).then_some(()))
    });
    cluster.explain(said.await).unwrap();
    assert_eq!(first.stop(PATIENCE).await.unwrap(), Some(0));
    first.start().unwrap();
    third.start().unwrap();
    cluster.wait_healthy(PATIENCE).await.unwrap();
}

/// A node whose file names no store waits and says what to write; single on purpose, it is a cluster of its own.
#[tokio::test]
async fn a_node_without_a_store_is_no_cluster_unless_it_is_single_on_purpose() {
    let cluster = Cluster::in_slot(Spec::embedded(1).local(&json!({"raft": null}))).await.unwrap();
    let node = &cluster.nodes[0];
    node.start().unwrap();
    let host = node.postgres.ip().to_string();
    let said = until(PATIENCE, "what to write", async || {
        let log = node.log();
        Ok((log.contains(&format!("self_addr: {host}:2222")) && log.contains("single: true")).then_some(()))
    });
    cluster.explain(said.await).unwrap();
    assert!(!node.data().exists(), "nothing may be initialised");
    assert_eq!(node.stop(PATIENCE).await.unwrap(), Some(0));

    node.edit(&json!({"matriarch": {"single": true}})).unwrap();
    node.start().unwrap();
    cluster.wait_leader(&[], PATIENCE).await.unwrap();
    assert!(node.dir.join("data.raft").is_dir());
    assert_eq!(store_members(&cluster).await.unwrap().len(), 1);
    node.kill();
    node.start().unwrap();
    cluster.wait_leader(&[], PATIENCE).await.unwrap();
}

/// Two database hosts and a witness: any one may die. The witness needs little memory.
#[tokio::test]
async fn two_nodes_and_a_witness_survive_the_leader() {
    let mut cluster = Cluster::in_slot(Spec::embedded(2)).await.unwrap();
    let addresses = [0, 1, 2].map(|index| store_address(index, cluster.net()));
    for node in &cluster.nodes {
        node.edit(&json!({"raft": {"partner_addrs": addresses}})).unwrap();
    }
    let dir = cluster.dir().join("witness");
    let user = RunAs::choose().unwrap();
    let tree = json!({
        "name": "witness",
        "restapi": {"listen": "127.0.0.1:0"},
        "postgresql": {"listen": "127.0.0.1:0"},
        "raft": {"data_dir": dir.join("raft"), "self_addr": addresses[2], "partner_addrs": addresses, "password": STORE_PASSWORD},
    });
    let witness = Node::prepare(&tree, Program::Matriarch, cluster.binary("matriarch"), dir, &user).unwrap();
    witness.start_with(&["witness".to_owned(), witness.file().display().to_string()], &[]).unwrap();
    cluster.nodes.iter_mut().try_for_each(|node| node.start()).unwrap();
    let leader = cluster.wait_healthy(PATIENCE).await.unwrap();
    assert_eq!(store_members(&cluster).await.unwrap().len(), 3);

    leader.kill();
    let next = cluster.explain(cluster.wait_leader(&[&leader.name], PATIENCE).await);
    let next = next.map_err(|error| anyhow::anyhow!("{error:#}\n{}", witness.log())).unwrap();
    leader.start().unwrap();
    cluster.wait_streaming(leader, next, PATIENCE).await.unwrap();
    // Without the pages of the program's file, which are many in a build for tests.
    let status = std::fs::read_to_string(format!("/proc/{}/status", witness.pid().unwrap())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    let held: u64 = line.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(held < 15 * 1024, "the witness holds {held} KiB of its own");
    assert_eq!(witness.stop(PATIENCE).await.unwrap(), Some(0));
}

//! Patroni 4.1.5 and matriarch in one cluster, on the same scope and with the same file: joining, leading, handing back,
//! dying, and taking over each other's running Postgres.
//!
//! n1 and Node-2.x begin with Patroni, n3 joins them with matriarch. The tests take turns; each leaves it so, and healthy.

#![allow(clippy::indexing_slicing, reason = "a panic is a failed test, in its helpers too")]

use std::time::Duration;

use anyhow::Context;
use chaos::promise::{self, Commits, under_writes};
use chaos::{Cluster, Node, Program, Spec, Workload, until};
use dcs::Moment;
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::sync::{Mutex, MutexGuard, OnceCell};

const PATIENCE: Duration = Duration::from_secs(60);

/// The second node's name, and the slot that the rule makes of it.
const SECOND: (&str, &str) = ("Node-2.x", "node_2_x");

static CLUSTER: OnceCell<Mutex<Cluster>> = OnceCell::const_new();

/// The cluster, healthy, with the given node leading. Before n3 is started the two others are a cluster already.
async fn lend(leader: usize) -> anyhow::Result<MutexGuard<'static, Cluster>> {
    let cluster = CLUSTER.get_or_try_init(async || found().await.map(Mutex::new)).await?.lock().await;
    for node in cluster.nodes.iter().filter(|node| node.pid().is_none()) {
        node.start()?;
    }
    let now = cluster.wait_healthy(PATIENCE).await?;
    let wanted = &cluster.nodes[leader];
    if now.name != wanted.name {
        let body = json!({"leader": now.name, "candidate": wanted.name});
        let answer = now.send("POST", "/switchover", &body).await?;
        anyhow::ensure!(answer.status == 200, "{} {}\n{}", answer.status, answer.body, cluster.report());
        cluster.wait_healthy(PATIENCE).await?;
    }
    Ok(cluster)
}

async fn found() -> anyhow::Result<Cluster> {
    let spec = Spec {
        nodes: vec![Program::Patroni, Program::Patroni, Program::Matriarch],
        ..Spec::new(Program::Patroni, 3)
    };
    let mut cluster = Cluster::in_slot(spec).await?;
    SECOND.0.clone_into(&mut cluster.nodes[1].name);
    cluster.nodes[1].edit(&json!({"name": SECOND.0}))?;
    for node in &cluster.nodes[..2] {
        node.start()?;
    }
    let pair = until(PATIENCE, "a leader and a replica", async || {
        let members = cluster.nodes[0].get("/cluster").await?.json()["members"].clone();
        let states = members
            .as_array()
            .into_iter()
            .flatten()
            .map(|member| member["state"].as_str().unwrap_or_default());
        let well = states.filter(|state| ["running", "streaming"].contains(state)).count();
        Ok((well == 2 && cluster.leader().await.is_some()).then_some(()))
    });
    cluster.explain(pair.await)?;
    cluster.nodes[2].start()?;
    cluster.wait_healthy(PATIENCE).await?;
    Ok(cluster)
}

/// P011: the leaders took every member for one that reads `status`.
async fn nothing_is_lost(cluster: &Cluster, workload: Workload) -> anyhow::Result<()> {
    promise::nothing_is_lost(cluster, workload).await?;
    anyhow::ensure!(
        cluster.store.keys(&cluster.key("optime")).await?.is_empty(),
        "optime/leader was written"
    );
    Ok(())
}

/// Each standby streams from the leader, under its own name, through the slot named by the rule (P261).
async fn stream_through_their_slots(cluster: &Cluster) -> anyhow::Result<()> {
    let (leader, replicas) = cluster.roles().await?;
    let sql = "select application_name, slot_name from pg_stat_replication join pg_replication_slots on pid = active_pid \
               where state = 'streaming' order by application_name collate \"C\"";
    let slot = |name: &str| if name == SECOND.0 { SECOND.1.to_owned() } else { name.to_owned() };
    let mut wanted: Vec<[String; 2]> =
        replicas.iter().map(|node| [node.name.clone(), slot(&node.name)]).collect();
    wanted.sort();
    let streaming = until(PATIENCE, "every replica in its slot", async || {
        Ok((leader.sql(sql).await? == wanted).then_some(()))
    });
    cluster.explain(streaming.await)
}

/// P046 the new member follows Patroni's leader through the slot it was given, is listed and counted by Patroni's own
/// tools, and answers as a replica; P011 it is taken for a member of the present.
#[tokio::test]
async fn a_matriarch_node_is_a_replica_among_patronis() {
    let cluster = lend(0).await.unwrap();
    stream_through_their_slots(&cluster).await.unwrap();
    let list = cluster.patronictl(&["list", "-f", "json"]).await.unwrap();
    let list: Vec<Value> = serde_json::from_str(&list.out).unwrap();
    let told: Vec<_> = list.iter().map(|it| (&it["Member"], &it["Role"], &it["State"], &it["TL"])).collect();
    let timeline = &list[0]["TL"];
    let member = |name: &str, role: &str, state: &str| (json!(name), json!(role), json!(state));
    let wanted = [
        member(SECOND.0, "Replica", "streaming"),
        member("n1", "Leader", "running"),
        member("n3", "Replica", "streaming"),
    ];
    for (told, wanted) in told.iter().zip(&wanted) {
        assert_eq!(*told, (&wanted.0, &wanted.1, &wanted.2, timeline));
    }
    assert_eq!(told.len(), 3);
    for node in &cluster.nodes {
        let members = node.get("/cluster").await.unwrap().json()["members"].clone();
        assert_eq!(members.as_array().map(Vec::len), Some(3), "{} says {members}", node.name);
    }
    let codes = [cluster.nodes[2].code("/replica").await, cluster.nodes[2].code("/primary").await];
    assert_eq!(codes, [200, 503]);
    assert!(cluster.store.keys(&cluster.key("optime")).await.unwrap().is_empty());
}

/// P047 matriarch takes over by patronictl, Patroni's replicas stream from it through slots named by the rule, and it gives
/// back by REST: under inserts, without a lost row or a rewind.
#[tokio::test]
async fn leadership_goes_to_matriarch_and_back_without_loss() {
    let cluster = lend(0).await.unwrap();
    let workload = under_writes(&cluster, Commits::Return).await.unwrap();
    let before: Vec<usize> = cluster.nodes.iter().map(rewinds).collect();
    let said = cluster.patronictl(&["switchover", "--candidate", "n3", "--force"]).await.unwrap();
    assert!(said.out.contains("Successfully switched over to \"n3\""), "{said:?}\n{}", cluster.report());
    assert_eq!(cluster.wait_healthy(PATIENCE).await.unwrap().name, "n3");
    stream_through_their_slots(&cluster).await.unwrap();
    workload.wait_ack_after(Moment::now(), PATIENCE).await.unwrap();

    let body = json!({"leader": "n3", "candidate": "n1"});
    let answer = cluster.nodes[2].send("POST", "/switchover", &body).await.unwrap();
    assert_eq!(answer.body, "Successfully switched over to \"n1\"", "{}", cluster.report());
    assert_eq!(cluster.wait_healthy(PATIENCE).await.unwrap().name, "n1");
    stream_through_their_slots(&cluster).await.unwrap();
    nothing_is_lost(&cluster, workload).await.unwrap();
    let after: Vec<usize> = cluster.nodes.iter().map(rewinds).collect();
    assert_eq!(before, after);
}

/// How often a node, whatever its program, has rewound its Postgres.
fn rewinds(node: &Node) -> usize {
    node.log().matches("running pg_rewind").count()
}

/// Freezes what sends to a replica: nothing more leaves the leader for it, whatever the leader's end.
async fn cut_off(leader: &Node, replica: &Node) -> anyhow::Result<()> {
    let sql = format!("select pid from pg_stat_replication where application_name = '{}'", replica.name);
    chaos::process::signal(leader.cell(&sql).await?.parse()?, Signal::STOP);
    Ok(())
}

/// The leader dies with a row that only it has, while only `ahead` has what was acknowledged before: `ahead` must lead,
/// and the old leader comes back without its row.
async fn the_one_ahead_takes_over(leader: usize, ahead: usize, expire: bool) -> anyhow::Result<()> {
    let cluster = lend(leader).await?;
    let workload = under_writes(&cluster, Commits::Wait).await?;
    let (old, next) = (&cluster.nodes[leader], &cluster.nodes[ahead]);
    let behind = cluster.nodes.iter().find(|node| node.name != old.name && node.name != next.name);
    old.sql("drop table if exists extra; create table extra (id int)").await?;
    cut_off(old, behind.context("three nodes")?).await?;
    workload.wait_ack_after(Moment::now(), PATIENCE).await?;
    cut_off(old, next).await?;
    old.sql("set synchronous_commit = local; insert into extra values (1)").await?;
    let (before, rewound) = (cluster.store.revision().await?, rewinds(old));
    old.kill();
    if !expire {
        // What the end of the lease would do, without the wait for it.
        cluster.store.delete(&cluster.key("leader")).await?;
        cluster.store.delete(&cluster.key(&format!("members/{}", old.name))).await?;
    }
    let now = cluster.wait_leader(&[&old.name], PATIENCE).await?;
    anyhow::ensure!(now.name == next.name, "{} leads\n{}", now.name, cluster.report());
    old.start()?;
    cluster.wait_streaming(old, next, PATIENCE).await?;
    cluster.wait_healthy(PATIENCE).await?;
    let gone = until(PATIENCE, "the end of the row that nobody else had", async || {
        Ok((old.sql("select * from extra").await?.is_empty()).then_some(()))
    });
    cluster.explain(gone.await)?;
    anyhow::ensure!(rewinds(old) > rewound, "it came back without a rewind\n{}", cluster.report());
    // P013: due until the checkpoint's end, then gone; who rewinds waits for that.
    let values = cluster.store.values_since(&cluster.key(&format!("members/{}", next.name)), before).await?;
    let due = |value: &str| value.contains("\"checkpoint_after_promote\":false");
    let due: Vec<bool> = values.iter().flatten().map(|key| due(&key.value)).collect();
    anyhow::ensure!(due.contains(&true) && due.last() == Some(&false), "{values:?}");
    stream_through_their_slots(&cluster).await?;
    nothing_is_lost(&cluster, workload).await
}

/// Patroni's leader dies. P207 the other Patroni asks matriarch, hears that it is ahead, and lets it lead; P013 and P236
/// Patroni's old primary waits for the checkpoint that matriarch announces before it rewinds.
#[tokio::test]
async fn a_patroni_leader_dies_and_matriarch_takes_over() {
    the_one_ahead_takes_over(0, 2, true).await.unwrap();
}

/// Patroni's leader dies, and matriarch hears from the other Patroni that it is ahead.
#[tokio::test]
async fn a_patroni_leader_dies_and_matriarch_lets_the_other_patroni_lead() {
    the_one_ahead_takes_over(0, 1, false).await.unwrap();
}

/// The matriarch leader dies: the Patroni that is ahead leads, and matriarch comes back by a rewind against it.
#[tokio::test]
async fn a_matriarch_leader_dies_and_patroni_takes_over() {
    the_one_ahead_takes_over(2, 0, false).await.unwrap();
}

/// Replaces a node's program while its Postgres runs on, and waits until it is well.
async fn become_program(cluster: &mut Cluster, node: usize, program: Program) -> anyhow::Result<()> {
    let exe = cluster.exe(program).await?;
    cluster.nodes[node].become_program(program, exe);
    cluster.nodes[node].start()?;
    let serves = until(PATIENCE, "the new program with a running Postgres", async || {
        let status = cluster.nodes[node].get("/patroni").await?.json();
        let ours = status.pointer("/patroni/matriarch").is_some();
        Ok((status["state"] == "running" && ours == (program == Program::Matriarch)).then_some(()))
    });
    cluster.explain(serves.await)?;
    cluster.wait_healthy(PATIENCE).await.map(drop)
}

/// P162 in both directions, on the leader (0) and on a replica (1): a daemon that is gone, with or without a pause, is
/// followed by the other program within the ttl; the same postmaster serves throughout.
async fn swap(node: usize, paused: bool) -> anyhow::Result<()> {
    let mut cluster = lend(0).await?;
    let workload = under_writes(&cluster, Commits::Return).await?;
    let postmaster = cluster.nodes[node].postmaster();
    anyhow::ensure!(postmaster.is_some());
    let revision = cluster.store.get(&cluster.key("leader")).await?.map(|key| key.created);
    let swapped = Moment::now();
    for program in [Program::Matriarch, Program::Patroni] {
        if paused {
            let said = cluster.patronictl(&["pause", "--wait"]).await?;
            anyhow::ensure!(said.out.contains("Success"), "{said:?}");
            cluster.nodes[node].stop(PATIENCE).await?;
        } else {
            cluster.nodes[node].kill_coordinator();
        }
        become_program(&mut cluster, node, program).await?;
        if paused {
            let said = cluster.patronictl(&["resume", "--wait"]).await?;
            anyhow::ensure!(said.out.contains("Success"), "{said:?}");
            cluster.wait_healthy(PATIENCE).await?;
        }
        let now = cluster.nodes[node].postmaster();
        anyhow::ensure!(
            now == postmaster,
            "{program}: postmaster {now:?} instead of {postmaster:?}\n{}",
            cluster.report()
        );
        let leader = cluster.leader().await.map(|leader| leader.name.clone());
        anyhow::ensure!(leader.as_deref() == Some("n1"), "{leader:?} leads\n{}", cluster.report());
    }
    let outage = workload.outage_since(swapped);
    anyhow::ensure!(outage < Duration::from_secs(3), "no write for {outage:?}\n{}", cluster.report());
    let now = cluster.store.get(&cluster.key("leader")).await?.map(|key| key.created);
    anyhow::ensure!(now == revision || paused, "the leader key was taken anew");
    nothing_is_lost(&cluster, workload).await
}

/// P162, P006: on the leader, after SIGKILL and within the ttl.
#[tokio::test]
async fn the_leaders_daemon_is_swapped_within_the_ttl() {
    swap(0, false).await.unwrap();
}

/// P162, P223: on the leader, in a pause.
#[tokio::test]
async fn the_leaders_daemon_is_swapped_in_a_pause() {
    swap(0, true).await.unwrap();
}

/// P162: on a replica, after SIGKILL.
#[tokio::test]
async fn a_replicas_daemon_is_swapped() {
    swap(1, false).await.unwrap();
}

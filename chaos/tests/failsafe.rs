//! Failsafe mode on real clusters: a leader without its store goes on while every member has promised to leave the lead
//! alone, and in no other case; and what a store that is lost, full or silent does to a leader that has no such leave.

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a panic is a failed test, in its helpers too"
)]

use std::time::Duration;

use chaos::promise::one_writer;
use chaos::store::Keeper;
use chaos::{Cluster, Node, Program, Spec, Workload, until};
use dcs::Moment;
use rustix::process::Signal;
use serde_json::{Value, json};

const LONG: Duration = Duration::from_secs(120);
const TTL: Duration = Duration::from_secs(10);

/// Three members of matriarch and failsafe mode.
fn spec() -> Spec {
    let times = json!({"ttl": TTL.as_secs(), "loop_wait": 10, "retry_timeout": 10, "failsafe_mode": true});
    Spec::matriarch(3).dcs(&times)
}

/// Three members of etcd beside them, all of which can be killed.
fn on_three_etcd() -> Spec {
    let times = json!({"ttl": TTL.as_secs(), "loop_wait": 10, "retry_timeout": 10, "failsafe_mode": true});
    Spec { etcd: 3, ..Spec::new(Program::Matriarch, 3) }.dcs(&times)
}

/// Under writes, a client for all servers and one for each, and with everybody in the record.
async fn start(spec: Spec) -> (Cluster, Workload) {
    let cluster = Cluster::healthy(spec).await.unwrap();
    let mut workload = Workload::start(&cluster.servers(), Duration::from_millis(5)).await.unwrap();
    for server in cluster.servers() {
        workload.add_client(&[server], Duration::from_millis(20));
    }
    let enough = async || Ok((workload.acked() > 60).then_some(()));
    until(LONG, "sixty acknowledged rows", enough).await.unwrap();
    let named = until(LONG, "a record of all members on every node", async || {
        for node in &cluster.nodes {
            let answer = node.get("/failsafe").await?;
            let all = cluster.nodes.iter().all(|other| {
                let url = format!("http://{}/patroni", other.rest);
                answer.json().get(&other.name) == Some(&Value::from(url))
            });
            if answer.status != 200 || !all {
                return Ok(None);
            }
        }
        Ok(Some(()))
    });
    cluster.explain(named.await).unwrap();
    (cluster, workload)
}

async fn timeline(node: &Node) -> String {
    node.cell("select timeline_id from pg_control_checkpoint()").await.unwrap()
}

async fn active(node: &Node) -> bool {
    let status = node.get("/patroni").await.map(|answer| answer.json());
    status.is_ok_and(|status| status.get("failsafe_mode_is_active") == Some(&Value::Bool(true)))
}

async fn wait_active(cluster: &Cluster, nodes: &[&Node]) {
    let what = "failsafe mode on every node";
    let all = until(LONG, what, async || {
        for node in nodes {
            if !active(node).await {
                return Ok(None);
            }
        }
        Ok(Some(()))
    });
    cluster.explain(all.await).unwrap();
}

/// Until that moment the node calls itself primary and acknowledges writes, and nobody's clock is in doubt about it.
async fn leads_until(node: &Node, workload: &Workload, end: Moment) {
    while Moment::now() < end {
        let asked = Moment::now();
        assert_eq!(node.code("/primary").await, 200, "{}", node.log());
        workload.wait_ack_after(asked, Duration::from_secs(5)).await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn nothing_lost(workload: Workload, node: &Node) {
    let verdict = workload.verdict(node.postgres).await.unwrap();
    assert!(verdict.lost.is_empty() && verdict.phantom.is_empty(), "{verdict:?}");
}

/// P220, F54, F72: every member of etcd is killed for more than twice the ttl. Writes go on in the same server, and when the
/// store is back the same node leads on, on the same timeline.
#[tokio::test]
async fn writes_go_on_without_the_store_while_everybody_agrees() {
    let (cluster, workload) = start(on_three_etcd()).await;
    let (leader, others) = cluster.roles().await.unwrap();
    let (pid, before) = (leader.postmaster(), timeline(leader).await);
    let Keeper::Etcd(etcd) = &cluster.store else { panic!("an etcd was asked for") };
    etcd.signal(Signal::KILL);
    let killed = Moment::now();
    leads_until(leader, &workload, killed + TTL * 5 / 2).await;
    wait_active(&cluster, &[leader, others[0], others[1]]).await;
    let metrics = leader.get("/metrics").await.unwrap().body;
    for (name, value) in [("mode_is_active", 1), ("mode_enabled", 1), ("member", 1)] {
        let name = format!("patroni_failsafe_{name}{{");
        let line = metrics.lines().find(|line| line.starts_with(&name)).unwrap();
        assert!(line.ends_with(&format!(" {value}")), "{line}");
    }
    (0..3).for_each(|index| etcd.start_member(index).unwrap());
    etcd.wait_ready(LONG).await.unwrap();
    let ended = until(LONG, "the end of failsafe mode", async || Ok((!active(leader).await).then_some(())));
    cluster.explain(ended.await).unwrap();
    leads_until(leader, &workload, Moment::now() + TTL).await;
    let after = cluster.wait_healthy(LONG).await.unwrap();
    assert_eq!((&after.name, after.postmaster(), timeline(after).await), (&leader.name, pid, before));
    println!("the longest time without an acknowledged write: {:?}", workload.outage_since(killed));
    assert!(!leader.log().contains("demoting"), "{}", leader.log());
    nothing_lost(workload, after).await;
}

/// P220: the same with a store that is frozen: it breaks no connection, and its leases have run out when it goes on.
#[tokio::test]
async fn writes_go_on_while_the_store_is_frozen() {
    let (cluster, workload) = start(spec()).await;
    let (leader, others) = cluster.roles().await.unwrap();
    let (pid, before) = (leader.postmaster(), timeline(leader).await);
    cluster.store.freeze().unwrap();
    let frozen = Moment::now();
    leads_until(leader, &workload, frozen + TTL * 5 / 2).await;
    wait_active(&cluster, &[leader, others[0], others[1]]).await;
    cluster.store.thaw();
    let after = cluster.wait_healthy(LONG).await.unwrap();
    assert_eq!((&after.name, after.postmaster(), timeline(after).await), (&leader.name, pid, before));
    nothing_lost(workload, after).await;
}

/// P221: one member does not answer: the leader ends within its lease, as without the mode, and leads again with
/// every row when the store is back.
#[tokio::test]
async fn one_silent_member_ends_writes_within_the_lease() {
    let (cluster, workload) = start(spec().dcs(&json!({"loop_wait": 1}))).await;
    let (leader, others) = cluster.roles().await.unwrap();
    // Its daemon alone: the embedded store keeps its majority until it is frozen.
    others[0].signal(Signal::STOP);
    cluster.store.freeze().unwrap();
    let frozen = Moment::now();
    let stopped = until(LONG, "a read-only standby", async || {
        Ok((leader.cell("select pg_is_in_recovery()").await? == "t").then_some(()))
    });
    cluster.explain(stopped.await).unwrap();
    let last = workload.last_ack().unwrap();
    println!("the last write was acknowledged {:?} after the store froze", last.since(frozen));
    assert!(last.since(frozen) < TTL, "{}", leader.log());
    assert!(leader.log().contains(&format!("{} has not answered", others[0].name)), "{}", leader.log());
    others[0].signal(Signal::CONT);
    cluster.store.thaw();
    let next = cluster.wait_healthy(LONG).await.unwrap();
    workload.wait_ack_after(Moment::now(), LONG).await.unwrap();
    nothing_lost(workload, next).await;
}

/// The leader's daemon is frozen while it goes on by the leave of others: the fencer, which was told that deadline, kills its
/// Postgres before the first promise ends.
#[tokio::test]
async fn a_frozen_leader_is_fenced_before_the_promises_end() {
    let (cluster, workload) = start(spec()).await;
    let (leader, others) = cluster.roles().await.unwrap();
    cluster.store.freeze().unwrap();
    leads_until(leader, &workload, Moment::now() + TTL * 3 / 2).await;
    wait_active(&cluster, &others).await;
    let postmaster = leader.postmaster().unwrap();
    leader.signal(Signal::STOP);
    let frozen = Moment::now();
    let gone = until(LONG, "the end of the instance", async || {
        Ok((!chaos::process::within(&leader.data()).contains(&postmaster)).then_some(()))
    });
    cluster.explain(gone.await).unwrap();
    let gone = Moment::now().since(frozen);
    println!("the fencer ended it {gone:?} after the daemon froze");
    assert!(gone < TTL, "the others were promised to be free by then");
    cluster.store.thaw();
    leader.signal(Signal::CONT);
    cluster.wait_healthy(LONG).await.unwrap();
    assert!(leader.log().contains("the fencer killed the instance"), "{}", leader.log());
    workload.wait_ack_after(Moment::now(), LONG).await.unwrap();
    one_writer(&workload.stop().await).unwrap();
}

/// F54: the leader dies while it goes on without the store. Who has promised takes over, with the store, and not before the
/// promise has ended; a restart of the daemons does not end it.
#[tokio::test]
async fn whoever_promised_takes_over_when_the_promise_has_ended() {
    let (cluster, workload) = start(Spec::new(Program::Matriarch, 3).dcs(&spec().dcs)).await;
    let (leader, others) = cluster.roles().await.unwrap();
    cluster.store.freeze().unwrap();
    leads_until(leader, &workload, Moment::now() + TTL * 3 / 2).await;
    wait_active(&cluster, &others).await;
    leader.kill();
    let killed = Moment::now();
    cluster.store.thaw();
    others.iter().for_each(|other| other.kill_coordinator());
    others.iter().for_each(|other| other.start().unwrap());
    let next = cluster.wait_leader(&[&leader.name], LONG).await.unwrap();
    let took = Moment::now().since(killed);
    println!("{} led {took:?} after the leader died", next.name);
    // It was asked within the last two rounds of questions.
    assert!(took > TTL - Duration::from_secs(4), "{}", cluster.report());
    workload.wait_ack_after(Moment::now(), LONG).await.unwrap();
    leader.start().unwrap();
    cluster.wait_healthy(LONG).await.unwrap();
    let records = workload.stop().await;
    one_writer(&records).unwrap();
}

/// A member of Patroni acknowledges, and forgets that when it restarts: it prolongs nothing, and the leader ends in time.
#[tokio::test]
async fn what_patroni_acknowledges_prolongs_nothing() {
    let ttl = Duration::from_secs(20);
    let times = json!({"ttl": ttl.as_secs(), "loop_wait": 1, "retry_timeout": 3, "failsafe_mode": true});
    let nodes = vec![Program::Matriarch, Program::Patroni];
    let spec = Spec { nodes, ..Spec::new(Program::Matriarch, 2) }.dcs(&times);
    let cluster = Cluster::in_slot(spec).await.unwrap();
    cluster.nodes[0].start().unwrap();
    cluster.wait_leader(&[], LONG).await.unwrap();
    cluster.nodes[1].start().unwrap();
    cluster.wait_healthy(LONG).await.unwrap();
    let (leader, other) = (&cluster.nodes[0], &cluster.nodes[1]);
    let named = until(LONG, "a record of both", async || {
        Ok(leader.get("/failsafe").await?.json().get(&other.name).is_some().then_some(()))
    });
    cluster.explain(named.await).unwrap();
    let workload = Workload::start(&[leader.postgres], Duration::from_millis(20)).await.unwrap();
    workload.wait_ack_after(Moment::now(), LONG).await.unwrap();
    cluster.store.freeze().unwrap();
    let frozen = Moment::now();
    let stopped = until(LONG, "a read-only standby", async || {
        Ok((leader.cell("select pg_is_in_recovery()").await? == "t").then_some(()))
    });
    cluster.explain(stopped.await).unwrap();
    let last = workload.last_ack().unwrap().since(frozen);
    println!("the last write was acknowledged {last:?} after the store froze");
    assert!(last < ttl);
    assert!(leader.log().contains("runs Patroni, whose acknowledgement"), "{}", leader.log());
    assert!(active(other).await, "{}", cluster.report());
    cluster.store.thaw();
    cluster.wait_healthy(LONG).await.unwrap();
}

/// F72 without the mode: etcd loses its quorum for longer than the ttl. The primary ends writes in time, and when
/// the quorum is back the same node leads with every row.
#[tokio::test]
async fn a_lost_quorum_ends_writes_and_the_same_node_leads_again() {
    let spec = Spec { etcd: 3, ..Spec::new(Program::Matriarch, 3) }.dcs(&json!({"ttl": 5}));
    let cluster = Cluster::healthy(spec).await.unwrap();
    let workload = Workload::start(&cluster.servers(), Duration::from_millis(5)).await.unwrap();
    workload.wait_ack_after(Moment::now(), LONG).await.unwrap();
    let leader = cluster.leader().await.unwrap();
    let Keeper::Etcd(etcd) = &cluster.store else { panic!("an etcd was asked for") };
    let lost = Moment::now();
    (0..2).for_each(|index| etcd.signal_member(index, Signal::KILL));
    let stopped = until(LONG, "a read-only standby", async || {
        Ok((leader.cell("select pg_is_in_recovery()").await? == "t").then_some(()))
    });
    cluster.explain(stopped.await).unwrap();
    let last = workload.last_ack().unwrap();
    println!("the last write was acknowledged {:?} after the quorum was lost", last.since(lost));
    assert!(last.since(lost) < Duration::from_secs(5));
    assert_eq!(workload.acked_since(last), 0, "nobody takes writes");
    (0..2).for_each(|index| etcd.start_member(index).unwrap());
    etcd.wait_ready(LONG).await.unwrap();
    let next = cluster.wait_healthy(LONG).await.unwrap();
    workload.wait_ack_after(Moment::now(), LONG).await.unwrap();
    nothing_lost(workload, next).await;
}

/// F85: etcd is full: it renews leases and refuses every write. No false demotion, and every node says what to do.
#[tokio::test]
async fn a_full_store_demotes_nobody_and_is_complained_about() {
    let cluster = Cluster::healthy(Spec::new(Program::Matriarch, 3)).await.unwrap();
    let workload = Workload::start(&cluster.servers(), Duration::from_millis(5)).await.unwrap();
    let leader = cluster.leader().await.unwrap();
    let (pid, before) = (leader.postmaster(), timeline(leader).await);
    let Keeper::Etcd(etcd) = &cluster.store else { panic!("an etcd was asked for") };
    etcd.alarm_no_space(true).await.unwrap();
    let full = Moment::now();
    let told = until(LONG, "a loud alarm", async || {
        let metrics = leader.get("/metrics").await?.body;
        let shown =
            metrics.lines().any(|line| line.starts_with("matriarch_store_full{") && line.ends_with(" 1"));
        let logged = leader.log().contains("the store is full");
        leads_until(leader, &workload, Moment::now()).await;
        Ok((shown && logged).then_some(()))
    });
    cluster.explain(told.await).unwrap();
    leads_until(leader, &workload, full + TTL * 2).await;
    assert_eq!((leader.postmaster(), timeline(leader).await), (pid, before));
    etcd.alarm_no_space(false).await.unwrap();
    let calm = until(LONG, "the end of the alarm", async || {
        let metrics = leader.get("/metrics").await?.body;
        Ok(metrics
            .lines()
            .any(|line| line.starts_with("matriarch_store_full{") && line.ends_with(" 0"))
            .then_some(()))
    });
    cluster.explain(calm.await).unwrap();
    nothing_lost(workload, leader).await;
}

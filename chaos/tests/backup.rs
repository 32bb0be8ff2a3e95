//! An old backup of the store is put back under a real cluster (F74): what it says of who led is not believed.

#![allow(clippy::panic, clippy::unwrap_used, reason = "a panic is a failed test, in its helpers too")]

use std::time::Duration;

use chaos::store::Keeper;
use chaos::{Cluster, Node, Program, Spec, Workload, until};
use dcs::Moment;
use rustix::process::Signal;
use serde_json::{Value, json};

const LONG: Duration = Duration::from_secs(90);

/// Waits until the store says that commits wait for a standby of this leader.
async fn wait_synchronous(cluster: &Cluster, leader: &Node) {
    let what = format!("a synchronous standby of {}", leader.name);
    let named = until(LONG, &what, async || {
        let key = cluster.store.get(&cluster.key("sync")).await?;
        let record: Value = key.map(|key| serde_json::from_str(&key.value)).transpose()?.unwrap_or_default();
        let ours = record.get("leader") == Some(&Value::from(leader.name.as_str()));
        Ok((ours && record.get("sync_standby").is_some_and(Value::is_string)).then_some(()))
    });
    cluster.explain(named.await).unwrap();
}

/// The backup names the first leader and its standby. Since then it was killed, and another leads, with commits that the
/// third has. Every daemon is started again, as the log asks, and the first leader comes back at the same moment, with the
/// key in its name: it gives it back, and nothing that was acknowledged is lost.
#[tokio::test]
async fn an_old_backup_of_the_store_makes_nobody_leader() {
    let settings = json!({"ttl": 10, "loop_wait": 2, "retry_timeout": 3, "synchronous_mode": true});
    let spec = Spec { etcd: 1, ..Spec::new(Program::Matriarch, 3) }.dcs(&settings);
    let cluster = Cluster::healthy(spec).await.unwrap();
    let Keeper::Etcd(etcd) = &cluster.store else { panic!("an etcd was asked for") };
    let workload = Workload::start(&cluster.servers(), Duration::from_millis(5)).await.unwrap();
    let first = cluster.leader().await.unwrap();
    wait_synchronous(&cluster, first).await;

    etcd.signal(Signal::KILL);
    etcd.save().await.unwrap();
    etcd.start_member(0).unwrap();
    etcd.wait_ready(LONG).await.unwrap();

    first.kill();
    let second = cluster.wait_leader(&[&first.name], LONG).await.unwrap();
    wait_synchronous(&cluster, second).await;
    workload.wait_ack_after(Moment::now(), LONG).await.unwrap();

    etcd.signal(Signal::KILL);
    etcd.put_back().await.unwrap();
    etcd.start_member(0).unwrap();
    etcd.wait_ready(LONG).await.unwrap();
    for node in cluster.nodes.iter().filter(|node| node.name != first.name) {
        let refused = until(LONG, "a word about the backup", async || {
            Ok(node.log().contains("the store went back from revision").then_some(()))
        });
        cluster.explain(refused.await).unwrap();
        node.kill_coordinator();
        node.start().unwrap();
    }
    first.start().unwrap();

    let leader = cluster.wait_healthy(LONG).await.unwrap();
    assert_eq!(leader.name, second.name, "{}", cluster.report());
    let verdict = workload.verdict(leader.postgres).await.unwrap();
    assert!(verdict.lost.is_empty() && verdict.phantom.is_empty() && verdict.acked > 50, "{verdict:?}");
}

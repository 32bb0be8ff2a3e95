//! The harness itself, shown on a cluster of the real Patroni: what it can see, break and judge.

use std::time::Duration;

use chaos::{Cluster, Program, Spec, Workload};
use dcs::Moment;

/// A frozen leader of Patroni keeps its Postgres writable; here only its end matters: the harness kills both
/// processes of a leader, sees the failover, counts the rows, brings the old leader back, and leaves nothing behind.
#[tokio::test]
async fn a_cluster_of_patroni_fails_over_and_leaves_nothing_behind() {
    let cluster = Cluster::healthy(Spec::new(Program::Patroni, 3).with_haproxy()).await.unwrap();
    let dir = cluster.dir().to_path_buf();
    let leader = cluster.leader().await.unwrap();
    let workload = Workload::start(&cluster.servers(), Duration::from_millis(5)).await.unwrap();
    workload.wait_ack_after(Moment::now(), Duration::from_secs(5)).await.unwrap();

    let killed = Moment::now();
    leader.kill();
    let next = cluster.wait_leader(&[&leader.name], Duration::from_secs(40)).await.unwrap();
    workload.wait_ack_after(Moment::now(), Duration::from_secs(10)).await.unwrap();
    let outage = workload.outage_since(killed);
    assert!(outage > Duration::from_secs(1), "Patroni's ttl is 20 s, so {outage:?} cannot be");

    leader.start().unwrap();
    cluster.wait_streaming(leader, next, Duration::from_secs(60)).await.unwrap();
    cluster.wait_healthy(Duration::from_secs(30)).await.unwrap();
    let verdict = workload.verdict(next.postgres).await.unwrap();
    assert!(verdict.acked > 100 && verdict.phantom.is_empty(), "{verdict:?}");

    drop(cluster);
    assert!(!dir.exists() && chaos::process::within(&dir).is_empty());
}

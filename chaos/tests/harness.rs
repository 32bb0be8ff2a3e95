//! The harness itself, shown on a cluster of the real Patroni: what it can see, break and judge.

use std::path::Path;
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

    let segments = segments(&dir);
    assert!(segments.len() >= 3, "each server has one: {segments:?}");
    drop(cluster);
    assert!(!dir.exists() && chaos::process::within(&dir).is_empty());
    let table = std::fs::read_to_string("/proc/sysvipc/shm").unwrap();
    let left: Vec<_> =
        segments.iter().filter(|id| table.split_whitespace().any(|word| word == *id)).collect();
    assert!(left.is_empty(), "System V segments of killed servers are still there: {left:?}");
}

/// The System V segments of a cluster's servers, by the seventh line of their `postmaster.pid`: key and identifier.
#[allow(clippy::unwrap_used, reason = "a panic is a failed test, in its helpers too")]
fn segments(dir: &Path) -> Vec<String> {
    let nodes = std::fs::read_dir(dir).unwrap().flatten();
    let files =
        nodes.filter_map(|node| std::fs::read_to_string(node.path().join("data/postmaster.pid")).ok());
    files.filter_map(|file| Some(file.lines().nth(6)?.split_whitespace().nth(1)?.to_owned())).collect()
}

//! Whoever starves on the leader's host, the lease thread, the daemon, the fencer or Postgres: two servers never take writes
//! side by side, and once there is time again the cluster is healthy.

#![allow(clippy::indexing_slicing, clippy::unwrap_used, reason = "a panic is a failed test")]

use std::sync::Arc;
use std::time::Duration;

use chaos::promise::one_writer;
use chaos::starve::{Crowded, Share, Starved};
use chaos::{Cluster, Node, Spec, Workload, until};
use dcs::Moment;

const LONG: Duration = Duration::from_secs(90);

/// A fortieth of the time: a renewal that takes a millisecond elsewhere takes forty, or a whole round.
const SHARE: Share = Share { runs: Duration::from_millis(20), stands: Duration::from_millis(780) };

/// Three nodes, a client for all servers and one for each, which find a second primary.
async fn start() -> (Cluster, Workload) {
    let cluster = Cluster::healthy(Spec::tested(3)).await.unwrap();
    let workload = Workload::everywhere(&cluster.servers()).await.unwrap();
    (cluster, workload)
}

/// Three leases long.
async fn wait_three_leases(cluster: &Cluster) {
    let (began, ttl) = (Moment::now(), cluster.ttl());
    let over = async || Ok((Moment::now().since(began) > 3 * ttl).then_some(()));
    until(LONG, "three leases to pass", over).await.unwrap();
}

async fn starve(victims: fn(&Node) -> Vec<i32>) {
    let (cluster, workload) = start().await;
    let cluster = Arc::new(cluster);
    let leader = cluster.leader().await.unwrap().name.clone();
    let all = Arc::clone(&cluster);
    let of_leader =
        move || all.nodes.iter().find(|node| node.name == leader).map(victims).unwrap_or_default();
    let starved = Starved::processes(of_leader, SHARE);
    wait_three_leases(&cluster).await;
    let stops = starved.stops();
    drop(starved);
    assert!(stops >= 5, "nobody starved: {stops}");
    cluster.wait_healthy(LONG).await.unwrap();
    cluster.explain(workload.wait_ack_after(Moment::now(), LONG).await).unwrap();
    println!("{stops} times; led at last by {}", cluster.leader().await.unwrap().name);
    one_writer(&workload.stop().await).unwrap();
}

#[tokio::test]
async fn a_daemon_that_starves() {
    starve(|node| node.pid().into_iter().collect()).await;
}

#[tokio::test]
async fn a_fencer_that_starves() {
    starve(|node| node.fencer().into_iter().collect()).await;
}

/// The postmaster and whatever it has started.
#[tokio::test]
async fn a_server_that_starves() {
    starve(|node| chaos::process::within(&node.data())).await;
}

#[tokio::test]
async fn a_lease_thread_that_starves() {
    let (cluster, workload) = start().await;
    let (leader, _) = cluster.roles().await.unwrap();
    let crowded = Crowded::thread(leader.thread("lease").unwrap(), 3).unwrap();
    wait_three_leases(&cluster).await;
    drop(crowded);
    cluster.wait_healthy(LONG).await.unwrap();
    cluster.explain(workload.wait_ack_after(Moment::now(), LONG).await).unwrap();
    one_writer(&workload.stop().await).unwrap();
}

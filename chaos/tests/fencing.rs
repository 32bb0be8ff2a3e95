//! Whoever takes writes without the lease stops, whatever hangs: the store, the keys, Postgres, the disk,
//! the daemon itself. Safety is asserted; times only where the lease promises them.

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a panic is a failed test, in its helpers too"
)]

use std::path::PathBuf;
use std::time::Duration;

use chaos::cluster::until;
use chaos::promise::one_writer;
use chaos::workload::Record;
use chaos::{Cluster, Node, Program, Spec, Store, Workload};
use dcs::Moment;
use rustix::process::Signal;
use serde_json::{Value, json};

const LONG: Duration = Duration::from_secs(90);

/// The cluster's ttl, which differs between stores.
async fn start() -> (Cluster, Workload) {
    let cluster = Cluster::healthy(Spec::matriarch(3)).await.unwrap();
    let workload = Workload::everywhere(&cluster.servers()).await.unwrap();
    (cluster, workload)
}

fn assert_one_writer(records: &[Record]) {
    one_writer(records).unwrap();
}

async fn timeline(node: &Node) -> String {
    node.cell("select timeline_id from pg_control_checkpoint()").await.unwrap()
}

/// The node's Postgres does not take writes: it is gone, or in recovery.
async fn takes_no_writes(node: &Node) -> bool {
    match node.cell("select pg_is_in_recovery()").await {
        Ok(answer) => answer == "t",
        Err(_) => node.postmaster().is_none(),
    }
}

async fn wait_no_writes(cluster: &Cluster, node: &Node, limit: Duration) {
    let what = format!("{} to take no writes", node.name);
    let stopped = until(limit, &what, async || Ok(takes_no_writes(node).await.then_some(())));
    cluster.explain(stopped.await).unwrap();
}

/// P219, P008, F71, F72: with the store frozen the old primary takes nothing after the lease, becomes a
/// read-only standby, and is back with every row when the store is.
#[tokio::test]
async fn a_frozen_store_ends_writes_within_the_lease() {
    let (cluster, workload) = start().await;
    let leader = cluster.leader().await.unwrap();
    let frozen = Moment::now();
    cluster.store.freeze().unwrap();
    tokio::time::sleep(cluster.ttl()).await;
    assert_ne!(leader.code("/primary").await, 200, "it must have stepped down");
    let last = workload.last_ack().unwrap();
    println!("the last write was acknowledged {:?} after the store froze", last.since(frozen));
    assert!(last.since(frozen) < cluster.ttl());
    let standby = until(LONG, "a read-only standby", async || {
        Ok((leader.cell("select pg_is_in_recovery()").await? == "t").then_some(()))
    });
    cluster.explain(standby.await).unwrap();
    println!("it was a read-only standby after {:?}", Moment::now().since(frozen));
    assert!(!leader.log().contains("had run out"), "it must step down in good order, before the deadline");
    assert_eq!(workload.last_ack(), Some(last), "nobody takes writes while the store is away");
    cluster.store.thaw();
    let next = cluster.wait_healthy(LONG).await.unwrap();
    workload.wait_ack_after(Moment::now(), LONG).await.unwrap();
    let server = next.postgres;
    let verdict = workload.verdict(server).await.unwrap();
    assert!(verdict.lost.is_empty() && verdict.phantom.is_empty(), "{verdict:?}");
}

/// P218, F79: a leader key with another name in it stops Postgres at once, and nobody promotes while it stands.
#[tokio::test]
async fn an_overwritten_leader_key_stops_the_primary() {
    let (cluster, workload) = start().await;
    let leader = cluster.leader().await.unwrap();
    let before = timeline(leader).await;
    let changed = Moment::now();
    cluster.store.put(&cluster.key("leader"), "stranger").await.unwrap();
    wait_no_writes(&cluster, leader, LONG).await;
    let (stopped, last) = (Moment::now(), workload.last_ack().unwrap());
    println!("the last write was acknowledged {:?} after the key changed", last.since(changed));
    tokio::time::sleep(cluster.ttl()).await;
    assert_eq!(workload.acked_since(stopped), 0, "a foreign leader key, and somebody took writes");
    assert!(cluster.leader().await.is_none());
    cluster.store.delete(&cluster.key("leader")).await.unwrap();
    let next = cluster.wait_healthy(LONG).await.unwrap();
    println!("timeline {before}, then {}", timeline(next).await);
    assert_one_writer(&workload.stop().await);
}

/// P210, F78: the key deleted by hand: the primary that is there takes it again; nobody else promotes.
#[tokio::test]
async fn a_deleted_leader_key_makes_no_second_primary() {
    let (cluster, workload) = start().await;
    let leader = cluster.leader().await.unwrap();
    let (pid, before) = (leader.postmaster(), timeline(leader).await);
    cluster.store.delete(&cluster.key("leader")).await.unwrap();
    let back = until(LONG, "a leader key", async || cluster.store.get(&cluster.key("leader")).await);
    let back = cluster.explain(back.await).unwrap();
    assert_eq!(back.value, leader.name);
    cluster.wait_healthy(LONG).await.unwrap();
    assert_eq!((leader.postmaster(), timeline(leader).await), (pid, before));
    let server = leader.postgres;
    let verdict = workload.verdict(server).await.unwrap();
    assert!(verdict.lost.is_empty() && verdict.phantom.is_empty(), "{verdict:?}");
}

/// F77: the lease revoked by hand takes key and member record with it; the cluster heals with one writer.
#[tokio::test]
async fn a_revoked_lease_makes_no_second_primary() {
    let (cluster, workload) = start().await;
    let key = cluster.store.get(&cluster.key("leader")).await.unwrap().unwrap();
    assert_ne!(key.lease, 0);
    cluster.store.revoke(key.lease).await.unwrap();
    let healed = until(LONG, "a new reign", async || {
        let now = cluster.store.get(&cluster.key("leader")).await?;
        Ok(now.filter(|now| now.created != key.created))
    });
    cluster.explain(healed.await).unwrap();
    cluster.wait_healthy(LONG).await.unwrap();
    workload.wait_ack_after(Moment::now(), LONG).await.unwrap();
    assert_one_writer(&workload.stop().await);
}

/// The last moment at which the node called itself primary, once it has not done so for two seconds.
async fn last_yes(cluster: &Cluster, node: &Node) -> Moment {
    let mut last = Moment::now();
    let silent = until(LONG, "/primary to say no for two seconds", async || {
        let asked = Moment::now();
        if node.code("/primary").await == 200 {
            last = asked;
        }
        Ok((Moment::now().since(last) > Duration::from_secs(2)).then_some(()))
    });
    cluster.explain(silent.await).unwrap();
    last
}

/// F38: a stopped postmaster lets nobody in although open sessions answer: not 200 for longer than a
/// second, and soon somebody else leads.
#[tokio::test]
async fn a_frozen_postmaster_is_no_primary() {
    let (cluster, workload) = start().await;
    let leader = cluster.leader().await.unwrap();
    let postmaster = leader.postmaster().unwrap();
    chaos::process::signal(postmaster, Signal::STOP);
    let frozen = Moment::now();
    let (last, next) = tokio::join!(last_yes(&cluster, leader), async {
        let next = cluster.wait_leader(&[&leader.name], LONG).await.unwrap();
        (next, Moment::now())
    });
    let (next, led) = next;
    println!("/primary last said yes {:?} after the postmaster froze", last.since(frozen));
    println!("{} led {:?} after the postmaster froze", next.name, led.since(frozen));
    assert!(last.since(frozen) <= Duration::from_secs(1), "{:?}", last.since(frozen));
    assert!(
        led.since(frozen) < cluster.ttl(),
        "{:?}: it must not wait for the lease or a deadline",
        led.since(frozen)
    );
    cluster.wait_healthy(LONG).await.unwrap();
    assert!(!chaos::process::within(&leader.data()).contains(&postmaster), "the frozen one must be gone");
    assert_one_writer(&workload.stop().await);
}

/// F38: the same when every process of the server is stopped, as by a frozen container.
#[tokio::test]
async fn a_frozen_server_is_no_primary() {
    let (cluster, workload) = start().await;
    let leader = cluster.leader().await.unwrap();
    let frozen = Moment::now();
    for pid in chaos::process::within(&leader.data()) {
        chaos::process::signal(pid, Signal::STOP);
    }
    let last = last_yes(&cluster, leader).await;
    println!("/primary last said yes {:?} after the server froze", last.since(frozen));
    assert!(last.since(frozen) <= Duration::from_secs(1), "{:?}", last.since(frozen));
    cluster.wait_leader(&[&leader.name], LONG).await.unwrap();
    cluster.wait_healthy(LONG).await.unwrap();
    workload.wait_ack_after(Moment::now(), LONG).await.unwrap();
    assert_one_writer(&workload.stop().await);
}

/// P162, F26: a daemon killed and started again finds its Postgres running and leads on in the same reign.
#[tokio::test]
async fn a_daemon_killed_and_restarted_leads_on() {
    let (cluster, workload) = start().await;
    let leader = cluster.leader().await.unwrap();
    let key = cluster.store.get(&cluster.key("leader")).await.unwrap().unwrap();
    let (pid, before) = (leader.postmaster().unwrap(), timeline(leader).await);
    leader.kill_coordinator();
    assert_eq!(leader.postmaster(), Some(pid));
    leader.start().unwrap();
    cluster.wait_healthy(LONG).await.unwrap();
    let now = cluster.store.get(&cluster.key("leader")).await.unwrap().unwrap();
    assert_eq!((now.value, now.created), (key.value, key.created), "the same reign");
    assert_eq!((leader.postmaster(), timeline(leader).await), (Some(pid), before));
    let server = leader.postgres;
    let verdict = workload.verdict(server).await.unwrap();
    assert!(verdict.lost.is_empty() && verdict.phantom.is_empty(), "{verdict:?}");
    println!("the longest time without an acknowledged write: {:?}", verdict.outage);
}

/// F04, F54: a daemon that was killed and comes back without the store stops the primary that it finds.
#[tokio::test]
async fn a_primary_found_without_the_store_is_stopped() {
    let (cluster, workload) = start().await;
    let leader = cluster.leader().await.unwrap();
    leader.kill_coordinator();
    cluster.store.freeze().unwrap();
    leader.start().unwrap();
    wait_no_writes(&cluster, leader, LONG).await;
    let last = workload.last_ack();
    cluster.store.thaw();
    assert!(last.is_some());
    cluster.wait_healthy(LONG).await.unwrap();
    workload.wait_ack_after(Moment::now(), LONG).await.unwrap();
    assert_one_writer(&workload.stop().await);
}

/// P162: `matriarchctl handover` ends the daemon and leaves Postgres running; the next one goes on with it.
#[tokio::test]
async fn a_handed_over_postgres_runs_on() {
    let (cluster, workload) = start().await;
    let leader = cluster.leader().await.unwrap();
    let pid = leader.postmaster().unwrap();
    let answer = leader.send("POST", "/matriarch/handover", &json!({})).await.unwrap();
    assert_eq!(answer.status, 202, "{answer:?}");
    assert_eq!(leader.wait_end(LONG).await.unwrap(), Some(0));
    assert_eq!(leader.postmaster(), Some(pid));
    leader.start().unwrap();
    cluster.wait_healthy(LONG).await.unwrap();
    assert_eq!(leader.postmaster(), Some(pid));
    let server = leader.postgres;
    let verdict = workload.verdict(server).await.unwrap();
    assert!(verdict.lost.is_empty() && verdict.phantom.is_empty(), "{verdict:?}");
}

/// F144, B54: the data directory of the running leader is emptied: nothing of it survives, somebody else
/// leads the same cluster, and nobody makes a new one.
#[tokio::test]
async fn an_emptied_data_directory_fails_over_and_makes_no_new_cluster() {
    let (cluster, workload) = start().await;
    let leader = cluster.leader().await.unwrap();
    let initialize = cluster.store.get(&cluster.key("initialize")).await.unwrap().unwrap();
    let postmaster = leader.postmaster().unwrap();
    let listing: Vec<PathBuf> =
        std::fs::read_dir(leader.data()).unwrap().map(|entry| entry.unwrap().path()).collect();
    empty(&listing);
    let next = cluster.wait_leader(&[&leader.name], LONG).await.unwrap();
    assert!(!chaos::process::within(&leader.dir).contains(&postmaster), "the old postmaster must be gone");
    assert_eq!(cluster.store.get(&cluster.key("initialize")).await.unwrap().unwrap(), initialize);
    let id = next.cell("select system_identifier from pg_control_system()").await.unwrap();
    assert_eq!(id, initialize.value);
    cluster.wait_healthy(LONG).await.unwrap();
    let id = leader.cell("select system_identifier from pg_control_system()").await.unwrap();
    assert_eq!(id, initialize.value, "it is a copy of the same cluster again");
    assert_one_writer(&workload.stop().await);
}

#[allow(clippy::disallowed_methods, reason = "what an operator's rm -rf does, in a throw-away cluster")]
fn empty(listing: &[PathBuf]) {
    for path in listing {
        if path.is_dir() {
            // Postgres still writes there: what is new is left behind, as by rm -rf.
            let _ = std::fs::remove_dir_all(path);
        } else {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Another daemon with changes to a node's file, and how it ended.
async fn other(cluster: &Cluster, of: &Node, name: &str, patch: &Value) -> (Option<i32>, String) {
    let text = std::fs::read_to_string(of.file()).unwrap();
    let mut tree: Value = serde_saphyr::from_str(&text).unwrap();
    chaos::spec::merge(&mut tree, patch);
    let user = chaos::user::RunAs::choose().unwrap();
    let exe = cluster.exe(Program::Matriarch).await.unwrap();
    let second = Node::prepare(&tree, Program::Matriarch, exe, cluster.dir().join(name), &user).unwrap();
    second.start().unwrap();
    let end = second.wait_end(LONG).await;
    let end = end.unwrap_or_else(|error| panic!("{error:#}\n{}", second.log()));
    (end, second.log())
}

/// P161, F148: the same name a second time, and the same data directory a second time, are refused and change nothing.
#[tokio::test]
async fn a_second_daemon_is_refused() {
    let cluster = Cluster::healthy(Spec::matriarch(1)).await.unwrap();
    let node = cluster.leader().await.unwrap();
    let pid = node.postmaster();
    let host = |last: u8| {
        let mut octets = [127, 0, 0, last];
        if let std::net::IpAddr::V4(ip) = node.rest.ip() {
            let [_, b, c, _] = ip.octets();
            octets = [127, b, c, last];
        }
        std::net::Ipv4Addr::from(octets)
    };
    let elsewhere = |last: u8| {
        let (rest, postgres) = (
            format!("{}:{}", host(last), node.rest.port()),
            format!("{}:{}", host(last), node.postgres.port()),
        );
        json!({
            "restapi": {"listen": rest, "connect_address": rest},
            "postgresql": {"listen": postgres, "connect_address": postgres},
        })
    };
    // A member of the embedded store a second time is refused before either: these are its clients.
    let client = |mut tree: Value| {
        if Store::tested() == Store::Embedded {
            let partners = [chaos::spec::store_address(0, cluster.net())];
            tree["raft"] = json!({"self_addr": null, "bind_addr": null, "partner_addrs": partners});
        }
        tree
    };
    let mut same_name = client(elsewhere(91));
    chaos::spec::merge(&mut same_name, &json!({"postgresql": {"data_dir": cluster.dir().join("x1/data")}}));
    let (end, log) = other(&cluster, node, "x1", &same_name).await;
    assert_eq!(end, Some(1), "{log}");
    assert!(log.contains("there is already a node named 'n1' running"), "{log}");
    let mut same_data = client(elsewhere(92));
    chaos::spec::merge(&mut same_data, &json!({"name": "n2"}));
    let (end, log) = other(&cluster, node, "x2", &same_data).await;
    assert_eq!(end, Some(1), "{log}");
    assert!(log.contains("another matriarch (process") && log.contains("data directory"), "{log}");
    assert_eq!(node.postmaster(), pid);
    cluster.wait_healthy(LONG).await.unwrap();
}

/// P243, P244, P245: SIGTERM on the leader hands over; nothing that was acknowledged is lost.
#[tokio::test]
async fn a_terminated_leader_hands_over() {
    let (cluster, workload) = start().await;
    let leader = cluster.leader().await.unwrap();
    let began = Moment::now();
    let end = leader.stop(LONG).await;
    assert_eq!(cluster.explain(end).unwrap(), Some(0));
    assert!(leader.postmaster().is_none());
    let next = cluster.wait_leader(&[&leader.name], LONG).await.unwrap();
    workload.wait_ack_after(Moment::now(), LONG).await.unwrap();
    println!("writes were out for {:?}", workload.outage_since(began));
    let server = next.postgres;
    let verdict = workload.verdict(server).await.unwrap();
    assert!(verdict.lost.is_empty() && verdict.phantom.is_empty(), "{verdict:?}");
}

/// F108: the disk under the leader hangs (here: one file that is a pipe). The daemon answers on, and lets
/// somebody else lead.
#[tokio::test]
async fn a_hung_disk_makes_somebody_else_lead() {
    let (cluster, workload) = start().await;
    let leader = cluster.leader().await.unwrap();
    let pipe = leader.dir.join("data.rewind");
    rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::from_raw_mode(0o666)).unwrap();
    let hung = Moment::now();
    let next = cluster.wait_leader(&[&leader.name], LONG).await.unwrap();
    println!("{} led {:?} after the disk hung", next.name, Moment::now().since(hung));
    assert_eq!(leader.code("/liveness").await, 200, "its loop must go on");
    wait_no_writes(&cluster, leader, LONG).await;
    workload.wait_ack_after(Moment::now(), LONG).await.unwrap();
    assert_one_writer(&workload.stop().await);
}

//! Whatever befalls the daemon, its threads or its fencer: at the end of the lease nothing of the old primary takes
//! writes, and what runs well is left alone.

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a panic is a failed test, in its helpers too"
)]

use std::time::Duration;

use chaos::promise::one_writer;
use chaos::workload::Record;
use chaos::{Cluster, Node, Spec, Workload, until};
use dcs::Moment;
use nix::sys::ptrace;
use nix::unistd::Pid;
use rustix::process::Signal;
use serde_json::json;

const LONG: Duration = Duration::from_secs(90);

/// A cluster of three under writes: a client for all servers, and one for each, which find a second primary.
async fn start() -> (Cluster, Workload) {
    let cluster = Cluster::healthy(Spec::tested(3)).await.unwrap();
    let workload = Workload::everywhere(&cluster.servers()).await.unwrap();
    (cluster, workload)
}

/// When the last write was acknowledged that was sent to this node.
fn last_on(records: &[Record], node: &Node) -> Moment {
    let acked = records
        .iter()
        .filter(|record| record.server == node.postgres && record.outcome == chaos::workload::Outcome::Ok);
    acked.map(|record| record.answered).max().unwrap()
}

/// Waits until somebody else leads; the old leader, which may be frozen, is not asked.
async fn successor<'a>(cluster: &'a Cluster, old: &Node) -> &'a Node {
    let next = until(LONG, "a successor", async || {
        for node in cluster.others(old) {
            if node.code("/primary").await == 200 {
                return Ok(cluster.nodes.iter().find(|one| one.name == node.name));
            }
        }
        Ok(None)
    });
    cluster.explain(next.await).unwrap()
}

/// Somebody else leads and takes writes, while nothing of the old leader's server is left.
async fn wait_succeeded<'a>(cluster: &'a Cluster, old: &Node, workload: &Workload) -> &'a Node {
    let next = successor(cluster, old).await;
    let left = chaos::process::within(&old.data());
    assert!(left.is_empty(), "{} leads and of {} are left {left:?}", next.name, old.name);
    workload.wait_ack_after(Moment::now(), LONG).await.unwrap();
    next
}

/// F35: the whole daemon is stopped, as by SIGSTOP or a debugger; its Postgres goes on until the deadline, not longer.
/// When it wakes, it learns what happened and becomes a replica.
#[tokio::test]
async fn a_frozen_daemon_is_fenced() {
    let (cluster, workload) = start().await;
    let old = cluster.leader().await.unwrap();
    let frozen = Moment::now();
    old.signal(Signal::STOP);
    let next = wait_succeeded(&cluster, old, &workload).await;
    println!("{} led and took writes after {:?}", next.name, Moment::now().since(frozen));
    old.signal(Signal::CONT);
    cluster.wait_healthy(LONG).await.unwrap();
    let log = old.log();
    assert!(log.contains("the fencer killed the instance"), "{}", cluster.report());
    let words: Vec<_> = log.lines().filter(|line| line.contains("fencer")).collect();
    println!("{}", words.join("\n"));
    let records = workload.stop().await;
    let last = last_on(&records, old).since(frozen);
    println!("its last write was acknowledged after {last:?}");
    assert!(last < cluster.ttl());
    one_writer(&records).unwrap();
}

/// The ttl is lowered while a node leads: what a longer lease granted does not outlast the shorter one.
#[tokio::test]
async fn a_daemon_frozen_after_the_ttl_was_lowered_is_fenced_in_time() {
    let mut spec = Spec::tested(3);
    spec.dcs["ttl"] = json!(30);
    let cluster = Cluster::healthy(spec).await.unwrap();
    let workload = Workload::everywhere(&cluster.servers()).await.unwrap();
    let old = cluster.leader().await.unwrap();
    let key = cluster.key("leader");
    let before = cluster.store.get(&key).await.unwrap().unwrap().lease;
    cluster.patch_config(&json!({"ttl": 5})).await.unwrap();
    let moved = until(LONG, "the leader key to move under another lease", async || {
        Ok(cluster.store.get(&key).await?.filter(|record| record.lease != before))
    });
    cluster.explain(moved.await).unwrap();
    workload.wait_ack_after(Moment::now(), LONG).await.unwrap();
    let frozen = Moment::now();
    old.signal(Signal::STOP);
    wait_succeeded(&cluster, old, &workload).await;
    old.signal(Signal::CONT);
    cluster.wait_healthy(LONG).await.unwrap();
    let records = workload.stop().await;
    let last = last_on(&records, old).since(frozen);
    println!("its last write was acknowledged after {last:?}");
    assert!(last < Duration::from_secs(5));
    one_writer(&records).unwrap();
}

/// F04, F26: the daemon is killed and nobody starts it again: its Postgres ends at the deadline. The next daemon says so.
#[tokio::test]
async fn a_killed_daemon_leaves_no_primary_beyond_the_lease() {
    let (cluster, workload) = start().await;
    let old = cluster.leader().await.unwrap();
    let killed = Moment::now();
    old.kill_coordinator();
    wait_succeeded(&cluster, old, &workload).await;
    let ended = until(LONG, "the end of the fencer", async || Ok(old.fencer().is_none().then_some(())));
    ended.await.unwrap();
    old.start().unwrap();
    cluster.wait_healthy(LONG).await.unwrap();
    let told = "before this daemon started, the fencer killed every process of the instance";
    assert!(old.log().contains(told), "{}", cluster.report());
    let records = workload.stop().await;
    assert!(last_on(&records, old).since(killed) < cluster.ttl());
    one_writer(&records).unwrap();
}

/// A daemon that comes back in time takes the fencer and the server over: nothing is interrupted, and it guards on.
#[tokio::test]
async fn a_daemon_that_returns_in_time_takes_over() {
    let (cluster, workload) = start().await;
    let old = cluster.leader().await.unwrap();
    let (postmaster, fencer) = (old.postmaster().unwrap(), old.fencer().unwrap());
    let killed = Moment::now();
    old.kill_coordinator();
    old.start().unwrap();
    let past = async || Ok((Moment::now().since(killed) > cluster.ttl()).then_some(()));
    until(LONG, "the old deadline", past).await.unwrap();
    cluster.wait_healthy(LONG).await.unwrap();
    assert_eq!((old.postmaster(), old.fencer()), (Some(postmaster), Some(fencer)));
    assert!(old.log().contains("took over the fencer of the daemon before"), "{}", cluster.report());
    println!("the longest time without an acknowledged write: {:?}", workload.outage_since(killed));
    assert!(workload.outage_since(killed) < Duration::from_secs(1));
    old.signal(Signal::STOP);
    wait_succeeded(&cluster, old, &workload).await;
    old.signal(Signal::CONT);
    cluster.wait_healthy(LONG).await.unwrap();
    one_writer(&workload.stop().await).unwrap();
}

/// Waits for another fencer than `before`, while the leader leads on, and returns how long that took.
async fn wait_replaced(cluster: &Cluster, leader: &Node, before: i32) -> Duration {
    let (began, postmaster) = (Moment::now(), leader.postmaster());
    let another = until(LONG, "another fencer", async || {
        Ok(leader.fencer().filter(|fencer| *fencer != before).map(|_| Moment::now()))
    });
    let took = cluster.explain(another.await).unwrap().since(began);
    assert_eq!((leader.code("/primary").await, leader.postmaster()), (200, postmaster));
    took
}

/// A fencer that is killed, or stopped, is replaced within a moment; the new one is armed, as the freeze after it shows.
#[tokio::test]
async fn a_fencer_that_fails_is_replaced() {
    let (cluster, workload) = start().await;
    let leader = cluster.leader().await.unwrap();
    let first = leader.fencer().unwrap();
    chaos::process::signal(first, Signal::KILL);
    let took = wait_replaced(&cluster, leader, first).await;
    println!("a killed fencer was replaced after {took:?}");
    assert!(took < Duration::from_secs(1), "{took:?}");
    let second = leader.fencer().unwrap();
    chaos::process::signal(second, Signal::STOP);
    let took = wait_replaced(&cluster, leader, second).await;
    println!("a stopped fencer was replaced after {took:?}");
    assert!(took < Duration::from_millis(2500), "{took:?}");
    leader.signal(Signal::STOP);
    wait_succeeded(&cluster, leader, &workload).await;
    leader.signal(Signal::CONT);
    cluster.wait_healthy(LONG).await.unwrap();
    one_writer(&workload.stop().await).unwrap();
}

/// Where no fencer can be started the node does not lead: a leader hands over, and says what to do. With the
/// program back it is a member like any other.
#[tokio::test]
async fn without_a_fencer_nobody_leads() {
    let (cluster, workload) = start().await;
    let old = cluster.leader().await.unwrap();
    let (program, aside) = (cluster.binary("matriarch-fencer"), cluster.binary("away"));
    let fencer = old.fencer().unwrap();
    put(&program, &aside);
    chaos::process::signal(fencer, Signal::KILL);
    cluster.wait_leader(&[&old.name], LONG).await.unwrap();
    workload.wait_ack_after(Moment::now(), LONG).await.unwrap();
    let said = "install matriarch-fencer in the same folder as matriarch";
    assert!(old.log().contains(said), "{}", cluster.report());
    let why = old.get("/why").await.unwrap().body;
    println!("{why}");
    put(&aside, &program);
    let back = async || Ok(old.fencer());
    cluster.explain(until(LONG, "a fencer", back).await).unwrap();
    cluster.wait_healthy(LONG).await.unwrap();
    one_writer(&workload.stop().await).unwrap();
}

#[allow(
    clippy::disallowed_methods,
    reason = "what somebody who removes a program does, in a throw-away cluster"
)]
fn put(from: &std::path::Path, to: &std::path::Path) {
    std::fs::rename(from, to).unwrap();
}

/// In pause Postgres may go on without the lease: neither a killed nor a stopped daemon ends it. Afterwards it is
/// guarded again.
#[tokio::test]
async fn in_pause_nobody_is_fenced() {
    let (cluster, workload) = start().await;
    let leader = cluster.leader().await.unwrap();
    let postmaster = leader.postmaster();
    cluster.patch_config(&json!({"pause": true})).await.unwrap();
    let key = cluster.key(&format!("members/{}", leader.name));
    let told = until(LONG, "the member to say that it is paused", async || {
        let record = cluster.store.get(&key).await?;
        Ok(record.filter(|record| record.value.contains("\"pause\":true")))
    });
    cluster.explain(told.await).unwrap();
    wait_armed(&cluster, leader, false).await;
    leader.signal(Signal::STOP);
    let stopped = Moment::now();
    let past =
        async || Ok((Moment::now().since(stopped) > cluster.ttl() + Duration::from_secs(2)).then_some(()));
    until(LONG, "the end of the lease", past).await.unwrap();
    assert_eq!(leader.postmaster(), postmaster);
    leader.signal(Signal::CONT);
    cluster.wait_leader(&[], LONG).await.unwrap();
    cluster.patch_config(&json!({"pause": null})).await.unwrap();
    cluster.wait_healthy(LONG).await.unwrap();
    assert_eq!(leader.postmaster(), postmaster);
    // A daemon that is stopped before it has heard that the pause is over guards nothing.
    wait_armed(&cluster, leader, true).await;
    leader.signal(Signal::STOP);
    wait_succeeded(&cluster, leader, &workload).await;
    leader.signal(Signal::CONT);
    cluster.wait_healthy(LONG).await.unwrap();
}

/// Waits until the node says of its fencer that it is armed, or that it is not.
async fn wait_armed(cluster: &Cluster, node: &Node, armed: bool) {
    let end = if armed { " 1" } else { " 0" };
    let told = until(LONG, "the fencer to be armed, or disarmed", async || {
        let page = node.get("/metrics").await?.body;
        let told = |line: &str| line.starts_with("matriarch_fencer_armed{") && line.ends_with(end);
        Ok(page.lines().any(told).then_some(()))
    });
    cluster.explain(told.await).unwrap();
}

/// F36: only the lease thread stands still. The rest of the daemon steps down in time by itself, or the fencer ends it.
#[tokio::test]
async fn a_frozen_lease_thread_ends_writes_within_the_lease() {
    let (cluster, workload) = start().await;
    let old = cluster.leader().await.unwrap();
    let tid = Pid::from_raw(old.thread("lease").unwrap());
    let (let_go, held) = std::sync::mpsc::channel::<()>();
    let (attached, is_attached) = std::sync::mpsc::channel();
    // The thread that traces is the one that must let go.
    let tracer = std::thread::spawn(move || {
        attached.send(ptrace::attach(tid)).unwrap();
        let _ = held.recv();
        let _ = nix::sys::wait::waitpid(tid, Some(nix::sys::wait::WaitPidFlag::__WALL));
        ptrace::detach(tid, None)
    });
    is_attached.recv().unwrap().unwrap();
    let frozen = Moment::now();
    let next = successor(&cluster, old).await;
    workload.wait_ack_after(Moment::now(), LONG).await.unwrap();
    println!("{} led after {:?}", next.name, Moment::now().since(frozen));
    let _ = let_go.send(());
    tracer.join().unwrap().unwrap();
    cluster.wait_healthy(LONG).await.unwrap();
    let records = workload.stop().await;
    let last = last_on(&records, old).since(frozen);
    println!("its last write was acknowledged after {last:?}");
    assert!(last < cluster.ttl());
    one_writer(&records).unwrap();
}

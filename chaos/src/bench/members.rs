//! What only the embedded store is measured by: its leader's death, its fsyncs, its witness; and who leads what before
//! a node is killed.

use std::time::Duration;

use anyhow::Context;
use dcs::Moment;
use rustix::process::Signal;
use serde_json::json;

use super::{PATIENCE, SETTLE, count};
use crate::cluster::{Cluster, until};
use crate::embedded::leading_member;
use crate::node::Node;
use crate::process;
use crate::report::{Measure, Samples};
use crate::spec::{Program, STORE_PASSWORD, Spec, store_address};
use crate::user::RunAs;

/// Writes whose fsyncs are counted.
const WRITES: u64 = 200;
/// The system calls that wait for the disk.
const SYNCS: &str = "trace=fsync,fdatasync,sync_file_range,msync";

/// Lets a node lead Postgres that does not lead the store.
///
/// # Errors
/// When the switchover is refused or does not end well.
pub async fn lead_apart(cluster: &Cluster) -> anyhow::Result<()> {
    let leader = cluster.wait_healthy(PATIENCE).await?;
    let leading = leading_member(cluster).await?;
    if !is_at(cluster, leading, leader) {
        return Ok(());
    }
    let (_, replicas) = cluster.roles().await?;
    switch(cluster, replicas.first().copied().context("the leader is alone")?).await
}

/// Lets the node that leads the store lead Postgres too.
///
/// # Errors
/// As for [`lead_apart`].
pub async fn lead_both(cluster: &Cluster) -> anyhow::Result<()> {
    let leader = cluster.wait_healthy(PATIENCE).await?;
    let leading = leading_member(cluster).await?;
    if is_at(cluster, leading, leader) {
        return Ok(());
    }
    switch(cluster, cluster.nodes.get(leading).context("the store's leader is no node")?).await
}

fn is_at(cluster: &Cluster, index: usize, node: &Node) -> bool {
    cluster.nodes.get(index).is_some_and(|found| found.name == node.name)
}

async fn switch(cluster: &Cluster, to: &Node) -> anyhow::Result<()> {
    let (leader, _) = cluster.roles().await?;
    let body = json!({"leader": leader.name, "candidate": to.name});
    let answer = leader.send("POST", "/switchover", &body).await?;
    anyhow::ensure!(answer.status == 200, "the switchover was refused: {} {}", answer.status, answer.body);
    let now = cluster.wait_healthy(PATIENCE).await?;
    anyhow::ensure!(now.name == to.name, "{} leads instead of {}", now.name, to.name);
    Ok(())
}

/// The node that leads the store, and not Postgres, is killed: how long the store takes no write, while nothing happens
/// to Postgres's leader.
///
/// # Errors
/// When the leader of Postgres changes, or nothing recovers.
pub async fn leader_killed(cluster: &Cluster, samples: &mut Samples) -> anyhow::Result<()> {
    lead_apart(cluster).await?;
    let (leader, _) = cluster.roles().await?;
    let victim =
        cluster.nodes.get(leading_member(cluster).await?).context("the store's leader is no node")?;
    let (key, before) = (cluster.key("measured"), leader.postmaster());
    cluster.store.put(&key, "before").await?;
    let killed = Moment::now();
    victim.kill();
    let written =
        until(PATIENCE, "a write to the store", async || cluster.store.put(&key, "after").await.map(Some));
    cluster.explain(written.await)?;
    samples.add(Measure::StoreLeaderKilled, Moment::now().since(killed).as_secs_f64());
    // Longer than a lease lives that nobody could renew.
    let end = Moment::now() + Duration::from_secs(4);
    while Moment::now() < end {
        anyhow::ensure!(leader.code("/primary").await == 200, "Postgres's leader did not stay");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    anyhow::ensure!(leader.postmaster() == before, "Postgres's leader was restarted");
    victim.start()?;
    cluster.wait_healthy(PATIENCE).await?;
    cluster.store.delete(&key).await
}

/// Counts how often each daemon waits for its disk while the store is written to. Needs strace; says so without.
///
/// # Errors
/// When strace does not work, or the store takes no writes.
pub async fn fsyncs(cluster: &Cluster, samples: &mut Samples) -> anyhow::Result<()> {
    let Some(strace) = crate::packages::find("strace") else {
        eprintln!("  fsyncs are not counted: there is no strace (apt-get install strace)");
        return Ok(());
    };
    cluster.wait_healthy(PATIENCE).await?;
    let mut counting = Vec::new();
    for node in &cluster.nodes {
        let pid = node.pid().with_context(|| format!("{} does not run", node.name))?;
        let log = node.dir.join("fsyncs");
        let args = ["-f", "-q", "-e", SYNCS, "-o"].map(str::to_owned).into_iter();
        let args: Vec<String> =
            args.chain([log.display().to_string(), "-p".to_owned(), pid.to_string()]).collect();
        let out = node.dir.join("strace.log");
        let start = process::Start {
            program: &strace,
            args: &args,
            env: &[],
            dir: cluster.dir(),
            log: &out,
            user: &RunAs::Myself,
        };
        counting.push((process::spawn(&start)?, log));
    }
    let lines = |log: &std::path::Path| {
        std::fs::read_to_string(log)
            .unwrap_or_default()
            .lines()
            .filter(|line| line.contains("sync(") || line.contains("sync_file_range("))
            .count() as u64
    };
    // Renewals count too while they are measured: what an idle second costs is taken off.
    let settled = until(PATIENCE, "strace to see every daemon", async || {
        Ok(counting.iter().all(|(_, log)| lines(log) > 2).then_some(()))
    });
    settled.await?;
    let idle = Duration::from_secs(5);
    let begin: Vec<u64> = counting.iter().map(|(_, log)| lines(log)).collect();
    tokio::time::sleep(idle).await;
    let middle: Vec<u64> = counting.iter().map(|(_, log)| lines(log)).collect();
    let started = Moment::now();
    for number in 0..WRITES {
        cluster.store.put(&cluster.key("measured"), &number.to_string()).await?;
    }
    let took = Moment::now().since(started).as_secs_f64();
    for ((child, log), (begin, middle)) in counting.iter_mut().zip(begin.into_iter().zip(middle)) {
        let idle = count(middle - begin) / idle.as_secs_f64() * took;
        samples.add(Measure::FsyncsPerWrite, (count(lines(log) - middle) - idle).max(0.0) / count(WRITES));
        process::signal(i32::try_from(child.id())?, Signal::TERM);
        child.wait()?;
    }
    cluster.store.delete(&cluster.key("measured")).await
}

/// Two nodes and a witness: what the witness holds once it has kept the log for a while.
///
/// # Errors
/// When they do not become healthy.
pub async fn witness(samples: &mut Samples) -> anyhow::Result<()> {
    let cluster = Cluster::prepare(Spec::embedded(2)).await?;
    let addresses = [0, 1, 2].map(|index| store_address(index, cluster.net()));
    for node in &cluster.nodes {
        node.edit(&json!({"raft": {"partner_addrs": addresses}}))?;
    }
    let dir = cluster.dir().join("witness");
    let tree = json!({
        "name": "witness",
        "restapi": {"listen": "127.0.0.1:0"},
        "postgresql": {"listen": "127.0.0.1:0"},
        "raft": {
            "data_dir": dir.join("raft"),
            "self_addr": addresses.get(2),
            "partner_addrs": addresses,
            "password": STORE_PASSWORD,
        },
    });
    let exe = cluster.exe(Program::Matriarch).await?;
    let witness = Node::prepare(&tree, Program::Matriarch, exe, dir, &RunAs::choose()?)?;
    witness.start_with(&["witness".to_owned(), witness.file().display().to_string()], &[])?;
    cluster.nodes.iter().try_for_each(Node::start)?;
    cluster.wait_healthy(PATIENCE).await?;
    tokio::time::sleep(SETTLE).await;
    let pid = witness.pid().context("the witness has ended")?;
    let (_, resident) = process::usage(pid).context("the witness cannot be looked at")?;
    samples.add(Measure::WitnessMemory, count(resident) / 1_048_576.0);
    Ok(())
}

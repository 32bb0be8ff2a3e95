//! `cargo bench-ha`: the speeds that a coordinator is judged by, for matriarch and Patroni with the same harness.
//!
//! Measures; the table that people read is made in `report`.

use std::time::Duration;

use anyhow::Context;
use dcs::Moment;
use rustix::process::Signal;
use serde_json::json;

use crate::cluster::Cluster;
use crate::load::Load;
use crate::node::Node;
use crate::report::{Measure, Samples};
use crate::spec::{Program, Spec, Store};
use crate::store::Keeper;
use crate::workload::{Verdict, Workload};

mod members;

/// How long an idle cluster is watched.
const IDLE: Duration = Duration::from_secs(60);
/// How long a cluster settles before it counts as idle.
const SETTLE: Duration = Duration::from_secs(5);
/// How long a fault may take to heal before the benchmark gives up.
const PATIENCE: Duration = Duration::from_secs(90);

/// Takes every measure `runs` times on fresh clusters.
///
/// # Errors
/// When a cluster does not start, or does not recover from a fault.
pub async fn measure(program: Program, store: Store, runs: usize) -> anyhow::Result<Samples> {
    let mut samples = Samples::default();
    for run in 1..=runs {
        eprintln!("{program} on {store}, run {run} of {runs}");
        let cluster = start(Spec::on(store, program, 3), &mut samples).await?;
        idle(&cluster, &mut samples).await?;
        faults(&cluster, &mut samples).await?;
        match (program, store) {
            (Program::Patroni, _) => node_killed(&cluster, Measure::NodeKilledTtl20, &mut samples).await?,
            (Program::Matriarch, Store::Etcd) => {
                node_killed(&cluster, Measure::NodeKilledTtl5, &mut samples).await?;
            }
            (Program::Matriarch, Store::Embedded) => {
                members::lead_apart(&cluster).await?;
                node_killed(&cluster, Measure::NodeKilledTtl3, &mut samples).await?;
                members::lead_both(&cluster).await?;
                node_killed(&cluster, Measure::LeadingNodeKilled, &mut samples).await?;
                members::leader_killed(&cluster, &mut samples).await?;
                members::fsyncs(&cluster, &mut samples).await?;
            }
        }
        drop(cluster);
        if program == Program::Matriarch {
            let spec = Spec::on(store, program, 3);
            let spec = spec.dcs(&json!({"ttl": 2, "loop_wait": 1, "retry_timeout": 1}));
            let cluster = start(spec, &mut samples).await?;
            node_killed(&cluster, Measure::NodeKilledTtl2, &mut samples).await?;
        }
        if store == Store::Embedded {
            members::witness(&mut samples).await?;
        }
    }
    Ok(samples)
}

async fn faults(cluster: &Cluster, samples: &mut Samples) -> anyhow::Result<()> {
    primary_requests(cluster, samples).await?;
    switchover(cluster, samples).await?;
    postmaster_killed(cluster, samples).await?;
    daemon_terminated(cluster, samples).await
}

async fn start(spec: Spec, samples: &mut Samples) -> anyhow::Result<Cluster> {
    let cluster = Cluster::prepare(spec).await?;
    let started = Moment::now();
    cluster.nodes.iter().try_for_each(Node::start)?;
    cluster.wait_healthy(PATIENCE).await?;
    samples.add(Measure::EmptyToHealthy, Moment::now().since(started).as_secs_f64());
    Ok(cluster)
}

async fn idle(cluster: &Cluster, samples: &mut Samples) -> anyhow::Result<()> {
    tokio::time::sleep(SETTLE).await;
    let pids: Vec<i32> = cluster.nodes.iter().filter_map(Node::pid).collect();
    let usage = || pids.iter().filter_map(|pid| crate::process::usage(*pid)).collect::<Vec<_>>();
    let entries = async || match &cluster.store {
        Keeper::Embedded(embedded) => embedded.log().await.map(Some),
        Keeper::Etcd(_) => Ok(None),
    };
    let (before, revision, log) = (usage(), cluster.store.revision().await?, entries().await?);
    tokio::time::sleep(IDLE).await;
    let (after, later) = (usage(), cluster.store.revision().await?);
    if let (Some((length, renewals)), Some((longer, more))) = (log, entries().await?) {
        let per_renewal = count(longer - length) / count(more.saturating_sub(renewals)).max(1.0);
        samples.add(Measure::EntriesPerRenewal, per_renewal);
    }
    samples.add(Measure::StoreWrites, count(later - revision));
    for ((cpu, _), (later_cpu, resident)) in before.iter().zip(&after) {
        samples.add(Measure::Cpu, later_cpu.saturating_sub(*cpu).as_secs_f64());
        samples.add(Measure::Memory, count(*resident) / 1_048_576.0);
    }
    Ok(())
}

async fn primary_requests(cluster: &Cluster, samples: &mut Samples) -> anyhow::Result<()> {
    let leader = cluster.wait_healthy(PATIENCE).await?;
    let pid = leader.pid().context("the leader's daemon is gone")?;
    let cpu = || crate::process::usage(pid).map(|(cpu, _)| cpu).unwrap_or_default();
    let before = cpu();
    let mut command = std::process::Command::new(&cluster.tools.chaos);
    command.arg("load").arg(leader.rest.to_string());
    let load: Load = serde_json::from_str(&crate::process::run(command, Duration::from_secs(30)).await?)?;
    let per_answer =
        cpu().saturating_sub(before).as_secs_f64() * 1000.0 / count(load.answers as u64).max(1.0);
    samples.add(Measure::Requests, count(load.answers as u64) / load.seconds);
    samples.add(Measure::RequestP99, load.p99_ms);
    samples.add(Measure::RequestCpu, per_answer);
    Ok(())
}

async fn switchover(cluster: &Cluster, samples: &mut Samples) -> anyhow::Result<()> {
    let leader = cluster.wait_healthy(PATIENCE).await?;
    let (workload, asked) = write(cluster).await?;
    let answer = leader.send("POST", "/switchover", &json!({"leader": leader.name})).await?;
    if answer.status != 200 {
        anyhow::bail!("the switchover was refused: {} {}", answer.status, answer.body);
    }
    recovered(cluster, workload, asked, (Measure::Switchover, None), samples).await
}

async fn postmaster_killed(cluster: &Cluster, samples: &mut Samples) -> anyhow::Result<()> {
    let leader = cluster.wait_healthy(PATIENCE).await?;
    let (workload, killed) = write(cluster).await?;
    leader.kill_postmaster();
    let rows = Some(Measure::PostmasterKilledLost);
    recovered(cluster, workload, killed, (Measure::PostmasterKilled, rows), samples).await
}

async fn daemon_terminated(cluster: &Cluster, samples: &mut Samples) -> anyhow::Result<()> {
    let leader = cluster.wait_healthy(PATIENCE).await?;
    let (workload, stopped) = write(cluster).await?;
    leader.signal(Signal::TERM);
    leader.wait_end(PATIENCE).await?;
    workload.wait_ack_after(Moment::now(), PATIENCE).await?;
    leader.start()?;
    recovered(cluster, workload, stopped, (Measure::DaemonTerminated, None), samples).await
}

async fn node_killed(cluster: &Cluster, measure: Measure, samples: &mut Samples) -> anyhow::Result<()> {
    let leader = cluster.wait_healthy(PATIENCE).await?;
    let (workload, killed) = write(cluster).await?;
    leader.kill();
    let next = cluster.wait_leader(&[&leader.name], PATIENCE).await?;
    workload.wait_ack_after(Moment::now(), PATIENCE).await?;
    let returned = Moment::now();
    leader.start()?;
    cluster.wait_streaming(leader, next, PATIENCE).await?;
    samples.add(Measure::Rejoin, Moment::now().since(returned).as_secs_f64());
    recovered(cluster, workload, killed, (measure, None), samples).await
}

/// A client that has been writing for a second, and the moment of the fault.
async fn write(cluster: &Cluster) -> anyhow::Result<(Workload, Moment)> {
    let workload = Workload::start(&cluster.servers(), Duration::ZERO).await?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    workload.wait_ack_after(Moment::now(), PATIENCE).await?;
    Ok((workload, Moment::now()))
}

/// Waits for the end of the fault, and takes the outage and the lost rows.
async fn recovered(
    cluster: &Cluster,
    workload: Workload,
    fault: Moment,
    (outage, lost): (Measure, Option<Measure>),
    samples: &mut Samples,
) -> anyhow::Result<()> {
    cluster.explain(workload.wait_ack_after(Moment::now(), PATIENCE).await)?;
    let leader = cluster.wait_healthy(PATIENCE).await?;
    cluster.explain(workload.wait_ack_after(Moment::now(), PATIENCE).await)?;
    samples.add(outage, workload.outage_since(fault).as_secs_f64());
    let Verdict { lost: missing, phantom, .. } = workload.verdict(leader.postgres).await?;
    if let Some(lost) = lost {
        samples.add(lost, count(missing.len() as u64));
    } else if !missing.is_empty() {
        eprintln!("  {} acknowledged rows were lost in this run", missing.len());
    }
    if !phantom.is_empty() {
        anyhow::bail!("rows that nobody wrote: {phantom:?}");
    }
    leader.sql("drop table writes").await?;
    Ok(())
}

fn count(number: u64) -> f64 {
    u32::try_from(number).map_or(f64::INFINITY, f64::from)
}

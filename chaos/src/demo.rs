//! `cargo demo`: three nodes with HAProxy in front, under writes; and `--once`, a failover with a verdict.
//!
//! Commits wait for one replica (`synchronous_standby_names: ANY 1 (*)`), so that no acknowledged row may be missing,
//! whatever is killed.

use std::time::Duration;

use anyhow::{Context, bail};
use dcs::Moment;
use serde_json::json;

use crate::cluster::{Cluster, until};
use crate::node::Node;
use crate::setup;
use crate::spec::{Program, SUPERUSER_PASSWORD, Spec, Store};
use crate::workload::Workload;

/// `--once` ends after this long at the latest, whatever happens.
const ONCE: Duration = Duration::from_secs(180);
/// Pause of the writing client between two inserts.
const PACE: Duration = Duration::from_millis(2);

/// A cluster with HAProxy under writes.
#[derive(Debug)]
pub struct Stage {
    /// The cluster.
    pub cluster: Cluster,
    /// The client that writes through HAProxy.
    pub workload: Workload,
}

impl Stage {
    /// Starts everything and waits until it is healthy and written to.
    ///
    /// # Errors
    /// When a tool is missing, something does not start, or the cluster does not become healthy.
    pub async fn set(program: Program, store: Store) -> anyhow::Result<Self> {
        println!("starting three nodes of {program} on {store}, and HAProxy ...");
        let cluster = Cluster::prepare(Spec::on(store, program, 3).with_haproxy()).await?;
        let started = Moment::now();
        cluster.nodes.iter().try_for_each(Node::start)?;
        let leader = cluster.wait_healthy(Duration::from_secs(90)).await?;
        let took = Moment::now().since(started).as_secs_f64();
        println!("three healthy members after {took:.1} s; {} leads", leader.name);
        make_commits_wait(leader).await?;
        let front = cluster.haproxy.as_ref().context("the demo has no HAProxy")?.write;
        let workload = Workload::start(&[front], PACE).await?;
        workload.wait_ack_after(Moment::now(), Duration::from_secs(10)).await?;
        Ok(Self { cluster, workload })
    }

    /// How to reach what runs, in lines for people.
    #[must_use]
    pub fn how_to_connect(&self) -> String {
        let url =
            |at: std::net::SocketAddr| format!("psql postgres://postgres:{SUPERUSER_PASSWORD}@{at}/postgres");
        let mut lines = Vec::new();
        if let Some(front) = &self.cluster.haproxy {
            lines.push(format!("write   {}", url(front.write)));
            lines.push(format!("read    {}", url(front.read)));
        }
        let file = self.cluster.dir().join("n1/node.yml");
        lines.push(format!(
            "ctl     {} -c {} list",
            self.cluster.binary("matriarchctl").display(),
            file.display()
        ));
        for node in &self.cluster.nodes {
            lines.push(format!("{}      http://{}/  log {}/log", node.name, node.rest, node.dir.display()));
        }
        lines.join("\n")
    }
}

/// Without this a commit that the leader has acknowledged but not yet sent may die with it.
async fn make_commits_wait(leader: &Node) -> anyhow::Result<()> {
    let wait = json!({"postgresql": {"parameters": {"synchronous_standby_names": "ANY 1 (*)"}}});
    let answer = leader.send("PATCH", "/config", &wait).await?;
    if answer.status != 200 {
        bail!("{} refused the configuration change: {} {}", leader.name, answer.status, answer.body);
    }
    until(Duration::from_secs(20), "commits that wait for a replica", async || {
        let sql = "select count(*) from pg_stat_replication where sync_state = 'quorum'";
        Ok((leader.cell(sql).await? != "0").then_some(()))
    })
    .await
}

/// Builds and installs what the demo runs, which may take minutes the first time: no deadline of the demo counts it.
///
/// # Errors
/// When something is missing and cannot be installed, or the workspace does not build.
pub async fn prepare(program: Program, store: Store) -> anyhow::Result<()> {
    println!("building what the nodes run; the first time this takes minutes ...");
    setup::tools().await?;
    if matches!(store, Store::Etcd) {
        setup::etcd().await?;
    }
    if matches!(program, Program::Patroni) {
        setup::patroni().await?;
    }
    Ok(())
}

/// Plays one failover under writes: the leader's node dies, another takes over, the old one returns.
///
/// # Errors
/// When the cluster does not recover, an acknowledged row is missing, or it takes longer than three minutes.
pub async fn once(program: Program, store: Store) -> anyhow::Result<()> {
    prepare(program, store).await?;
    tokio::select! {
        played = tokio::time::timeout(ONCE, play(program, store)) => {
            played.with_context(|| format!("the demo did not finish within {ONCE:?}"))?
        }
        _ = tokio::signal::ctrl_c() => bail!("interrupted; everything that was started is being stopped"),
    }
}

async fn play(program: Program, store: Store) -> anyhow::Result<()> {
    let Stage { cluster, workload } = Stage::set(program, store).await?;
    let before = workload.acked();
    tokio::time::sleep(Duration::from_secs(2)).await;
    println!("one client writes through HAProxy: {} rows in 2 s", workload.acked() - before);

    let leader = cluster.leader().await.context("the leader went away by itself")?;
    let killed = Moment::now();
    leader.kill();
    println!("killed every process of {}", leader.name);
    let next = cluster.wait_leader(&[&leader.name], Duration::from_secs(60)).await?;
    println!("{} leads after {:.1} s", next.name, Moment::now().since(killed).as_secs_f64());
    cluster.explain(workload.wait_ack_after(Moment::now(), Duration::from_secs(30)).await)?;
    let outage = workload.outage_since(killed);

    let returned = Moment::now();
    leader.start()?;
    cluster.wait_streaming(leader, next, Duration::from_secs(60)).await?;
    println!(
        "{} is back as a replica after {:.1} s",
        leader.name,
        Moment::now().since(returned).as_secs_f64()
    );
    let last = cluster.wait_healthy(Duration::from_secs(60)).await?;
    println!("three healthy members; {} leads", last.name);

    let verdict = workload.verdict(last.postgres).await?;
    println!(
        "{} rows sent, {} acknowledged, {} with unknown fate: {} acknowledged rows lost, {} rows nobody wrote",
        verdict.sent,
        verdict.acked,
        verdict.unknown,
        verdict.lost.len(),
        verdict.phantom.len()
    );
    if !verdict.lost.is_empty() || !verdict.phantom.is_empty() {
        bail!("rows are wrong: lost {:?}, never written {:?}", verdict.lost, verdict.phantom);
    }
    println!("writes were out for {:.2} s", outage.as_secs_f64());
    Ok(())
}

//! A whole cluster: store, nodes, HAProxy, in a directory and a network of its own.
//!
//! Says how the cluster is, from outside; what it should be is for tests to say. Everything it started ends
//! with it, however this process ends.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use dcs::Moment;
use futures::future::join_all;
use serde_json::Value;

use crate::embedded::Embedded;
use crate::etcd::Etcd;
use crate::haproxy::Haproxy;
use crate::net::{Net, Slot};
use crate::node::{Node, tail};
use crate::process::{self, Reaped};
use crate::setup::{self, Tools};
use crate::spec::{Program, SUPERUSER_PASSWORD, Spec, Store};
use crate::store::Keeper;
use crate::user::RunAs;

/// Time between two looks while waiting.
const LOOK: Duration = Duration::from_millis(20);

/// A running cluster.
#[derive(Debug)]
pub struct Cluster {
    /// Its nodes, in the order of the spec.
    pub nodes: Vec<Node>,
    /// Its store.
    pub store: Keeper,
    /// Its proxy, if the spec wanted one.
    pub haproxy: Option<Haproxy>,
    /// What it was made from.
    pub spec: Spec,
    /// The programs in use.
    pub tools: &'static Tools,
    dir: Reaped,
    net: Net,
    _slot: Option<Slot>,
}

impl Cluster {
    /// Starts store, proxy and all nodes; does not wait for them.
    ///
    /// # Errors
    /// When a tool is missing or something does not start.
    pub async fn start(spec: Spec) -> anyhow::Result<Self> {
        let cluster = Self::prepare(spec).await?;
        cluster.nodes.iter().try_for_each(Node::start)?;
        Ok(cluster)
    }

    /// For tests: waits for one of the machine's few slots, starts everything, and waits until it is healthy.
    ///
    /// # Errors
    /// When a tool is missing, something does not start, or the cluster is not healthy after a minute.
    pub async fn healthy(spec: Spec) -> anyhow::Result<Self> {
        let mut cluster = Self::in_slot(spec).await?;
        cluster.nodes.iter_mut().try_for_each(|node| node.start())?;
        cluster.wait_healthy(Duration::from_secs(60)).await?;
        Ok(cluster)
    }

    /// For tests: waits for a slot, then as [`Cluster::prepare`].
    ///
    /// # Errors
    /// As for [`Cluster::prepare`].
    pub async fn in_slot(spec: Spec) -> anyhow::Result<Self> {
        setup::tools().await?;
        let slot = Slot::wait().await?;
        let mut cluster = Self::prepare(spec).await?;
        cluster._slot = Some(slot);
        Ok(cluster)
    }

    /// Starts the store and the proxy and writes the nodes' files, but starts no node.
    ///
    /// # Errors
    /// When a tool is missing or something does not start.
    pub async fn prepare(spec: Spec) -> anyhow::Result<Self> {
        Store::named()?;
        let tools = setup::tools().await?;
        let user = RunAs::choose()?;
        let net = Net::take()?;
        let dir = Reaped::new(&tools.chaos, net.share_lock()?)?;
        let bin = dir.path().join("bin");
        setup::copy_binaries(tools, &bin)?;
        let count = u8::try_from(spec.nodes.len()).context("more nodes than a network has room for")?;
        let mut nodes = Vec::new();
        for (index, program) in (0..count).zip(spec.nodes.iter().copied()) {
            let own = dir.path().join(format!("n{}", index + 1));
            let tree = spec.node(index, &net, &own, &tools.postgres);
            nodes.push(Node::prepare(&tree, program, exe(program, dir.path()).await?, own, &user)?);
        }
        let store = keeper(&spec, &nodes, &net, dir.path(), &user).await?;
        let haproxy = match spec.haproxy {
            true => Some(Haproxy::start(&tools.haproxy, count, &net, dir.path(), &user)?),
            false => None,
        };
        if let Keeper::Etcd(etcd) = &store {
            etcd.wait_ready(Duration::from_secs(20)).await?;
        }
        Ok(Self { nodes, store, haproxy, spec, tools, dir, net, _slot: None })
    }

    /// The cluster's directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The cluster's network.
    #[must_use]
    pub fn net(&self) -> &Net {
        &self.net
    }

    /// The file of a program of the workspace, as the nodes' user can run it.
    #[must_use]
    pub fn binary(&self, name: &str) -> PathBuf {
        self.dir.path().join("bin").join(name)
    }

    /// The file that runs `program` on a node of this cluster.
    ///
    /// # Errors
    /// When Patroni is wanted, missing, and cannot be installed.
    pub async fn exe(&self, program: Program) -> anyhow::Result<PathBuf> {
        exe(program, self.dir.path()).await
    }

    /// Where every node's Postgres listens, in order.
    #[must_use]
    pub fn servers(&self) -> Vec<SocketAddr> {
        self.nodes.iter().map(|node| node.postgres).collect()
    }

    /// The leader lease's time to live, as it was at the start.
    #[must_use]
    pub fn ttl(&self) -> Duration {
        Duration::from_secs(self.spec.dcs.get("ttl").and_then(Value::as_u64).unwrap_or(30))
    }

    /// The name of a key of this cluster in the store.
    #[must_use]
    pub fn key(&self, name: &str) -> String {
        format!("/service/{}/{name}", self.spec.scope)
    }

    /// The node that answers 200 to `GET /primary`, if exactly one does.
    pub async fn leader(&self) -> Option<&Node> {
        let codes = join_all(self.nodes.iter().map(|node| node.code("/primary"))).await;
        let mut leaders = self.nodes.iter().zip(codes).filter(|(_, code)| *code == 200);
        let first = leaders.next().map(|(node, _)| node);
        if leaders.next().is_some() { None } else { first }
    }

    /// The leader, now, and the others.
    ///
    /// # Errors
    /// When there is no leader.
    pub async fn roles(&self) -> anyhow::Result<(&Node, Vec<&Node>)> {
        let leader = self.explain(self.leader().await.context("nobody leads"))?;
        Ok((leader, self.others(leader)))
    }

    /// Changes the dynamic configuration through the leader, as an operator would.
    ///
    /// # Errors
    /// When there is no leader or it refuses.
    pub async fn patch_config(&self, patch: &Value) -> anyhow::Result<()> {
        let (leader, _) = self.roles().await?;
        let answer = leader.send("PATCH", "/config", patch).await?;
        if answer.status != 200 {
            anyhow::bail!("{} refused {patch}: {} {}", leader.name, answer.status, answer.body);
        }
        Ok(())
    }

    /// Runs the unmodified `patronictl` of Patroni on this cluster.
    ///
    /// # Errors
    /// When Patroni is missing or patronictl takes longer than a minute; its exit status is for the caller to judge.
    pub async fn patronictl(&self, args: &[&str]) -> anyhow::Result<process::Ended> {
        let program = setup::patroni().await?.with_file_name("patronictl");
        self.control(&program, args).await
    }

    /// Runs `matriarchctl` on this cluster.
    ///
    /// # Errors
    /// When it takes longer than a minute; its exit status is for the caller to judge.
    pub async fn matriarchctl(&self, args: &[&str]) -> anyhow::Result<process::Ended> {
        self.control(&self.binary("matriarchctl"), args).await
    }

    async fn control(&self, program: &Path, args: &[&str]) -> anyhow::Result<process::Ended> {
        let file = self.nodes.first().context("the cluster has no nodes")?.file();
        let mut command = std::process::Command::new(program);
        command
            .arg("-c")
            .arg(file)
            .args(args)
            .env("COLUMNS", "200")
            .env("LC_ALL", "C.UTF-8")
            .env("PGPASSWORD", SUPERUSER_PASSWORD);
        process::end_of(command, Duration::from_secs(60)).await
    }

    /// The nodes that are not this one.
    #[must_use]
    pub fn others(&self, than: &Node) -> Vec<&Node> {
        self.nodes.iter().filter(|node| node.name != than.name).collect()
    }

    /// Waits for a leader that is none of `except`.
    ///
    /// # Errors
    /// When there is none after `limit`; the message shows the ends of the logs.
    pub async fn wait_leader(&self, except: &[&str], limit: Duration) -> anyhow::Result<&Node> {
        let leader = until(limit, "a new leader", async || {
            Ok(self.leader().await.filter(|leader| !except.contains(&leader.name.as_str())))
        });
        self.explain(leader.await)
    }

    /// Waits until one node leads and every other streams from it, as REST and Postgres itself tell it.
    ///
    /// # Errors
    /// When this is not so after `limit`; the message shows the state and the ends of the logs.
    pub async fn wait_healthy(&self, limit: Duration) -> anyhow::Result<&Node> {
        let healthy = until(limit, "a leader with every other member streaming", async || {
            let Some(leader) = self.leader().await else { return Ok(None) };
            let ready = self.members_are_well(leader).await? && self.all_stream_from(leader).await?;
            Ok(ready.then_some(leader))
        });
        self.explain(healthy.await)
    }

    async fn members_are_well(&self, leader: &Node) -> anyhow::Result<bool> {
        let answer = leader.get("/cluster").await?.json();
        let none = Vec::new();
        let members = answer.get("members").and_then(Value::as_array).unwrap_or(&none);
        let field = |member: &Value, name: &str| member.get(name).and_then(Value::as_str).map(str::to_owned);
        let timelines: Vec<_> = members.iter().map(|member| member.get("timeline").cloned()).collect();
        let same_timeline =
            timelines.iter().all(|timeline| timeline.is_some() && Some(timeline) == timelines.first());
        let well = members.iter().all(|member| {
            let wanted = match field(member, "role").as_deref() {
                Some("leader") => "running",
                _ => "streaming",
            };
            field(member, "state").as_deref() == Some(wanted)
        });
        let leaders =
            members.iter().filter(|member| field(member, "role").as_deref() == Some("leader")).count();
        Ok(members.len() == self.nodes.len() && well && same_timeline && leaders == 1)
    }

    async fn all_stream_from(&self, leader: &Node) -> anyhow::Result<bool> {
        let sql =
            "select count(distinct application_name) from pg_stat_replication where state = 'streaming'";
        let streaming: usize = leader.cell(sql).await?.parse()?;
        Ok(streaming + 1 == self.nodes.len())
    }

    /// Waits until a node's Postgres is a standby that streams from `leader`, as the node's Postgres tells it.
    ///
    /// # Errors
    /// When this is not so after `limit`.
    pub async fn wait_streaming(&self, node: &Node, leader: &Node, limit: Duration) -> anyhow::Result<()> {
        let sql =
            "select sender_host from pg_stat_wal_receiver where status = 'streaming' and pg_is_in_recovery()";
        let host = leader.postgres.ip().to_string();
        let what = format!("{} streaming from {}", node.name, leader.name);
        let streaming = until(limit, &what, async || {
            let rows = node.sql(sql).await?;
            Ok(rows.into_iter().flatten().any(|sender| sender == host).then_some(()))
        });
        self.explain(streaming.await)
    }

    /// Adds the cluster's state and the ends of the logs to an error.
    ///
    /// # Errors
    /// The given one, with more to read.
    pub fn explain<T>(&self, result: anyhow::Result<T>) -> anyhow::Result<T> {
        result.map_err(|err| anyhow::anyhow!("{err:#}\n{}", self.report()))
    }

    /// The ends of all logs.
    #[must_use]
    pub fn report(&self) -> String {
        let mut text = String::new();
        for node in &self.nodes {
            let Node { name, program, .. } = node;
            let (pid, postmaster) = (node.pid(), node.postmaster());
            let lines = tail(&node.dir.join("log"), 25);
            let _infallible = writeln!(
                text,
                "--- {name} ({program} {pid:?}, postmaster {postmaster:?}) ends with\n{lines}"
            );
        }
        text
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.report());
        }
    }
}

/// Starts what the nodes' store needs besides the nodes.
async fn keeper(spec: &Spec, nodes: &[Node], net: &Net, dir: &Path, user: &RunAs) -> anyhow::Result<Keeper> {
    if spec.etcd > 0 {
        return Ok(Keeper::Etcd(Etcd::start(setup::etcd().await?, spec.etcd, net, dir, user)?));
    }
    let embedded = Embedded::of(nodes.first().context("the cluster has no nodes")?.file());
    if !spec.relay {
        return Ok(Keeper::Embedded(embedded));
    }
    let (tools, count) = (setup::tools().await?, u8::try_from(nodes.len())?);
    Ok(Keeper::Embedded(embedded.behind_relay(&tools.chaos, count, net, dir)?))
}

async fn exe(program: Program, dir: &Path) -> anyhow::Result<PathBuf> {
    match program {
        Program::Matriarch => Ok(dir.join("bin/matriarch")),
        Program::Patroni => setup::patroni().await.map(Path::to_path_buf),
    }
}

/// Looks again and again until `probe` gives a value; its errors count as "not yet".
///
/// # Errors
/// When there is no value after `limit`; the message has the last error.
pub async fn until<T>(
    limit: Duration,
    what: &str,
    mut probe: impl AsyncFnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<T> {
    let deadline = Moment::now() + limit;
    loop {
        let looked = probe().await;
        if let Ok(Some(value)) = looked {
            return Ok(value);
        }
        if Moment::now() > deadline {
            let last = looked.err().map(|err| format!(" (last: {err:#})")).unwrap_or_default();
            anyhow::bail!("waited {limit:?} for {what}, in vain{last}");
        }
        tokio::time::sleep(LOOK).await;
    }
}

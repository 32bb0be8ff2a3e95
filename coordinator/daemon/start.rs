//! From a configuration to a running node, in an order in which nothing is
//! touched before everything that could refuse has been asked.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use api::client::Client;
use api::command::Asked;
use api::recording::{FORMAT, Header, Recollection};
use api::server::{Inputs, Server};
use api::status::NodeStatus;
use config::{ClusterConfig, Loaded, NodeConfig};
use dcs::{ClusterView, Dcs, Keys, Seen};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;

use crate::failsafe::Promises;
use crate::fence::Post;
use crate::lease::{Flags, Keeper, Tenure, Terms};
use crate::mover::{self, Mover};
use crate::node::{Node, Parts, Signal, disarm_by_force};
use crate::postgres::Paths;
use crate::postgres::parameters::Catalog;
use crate::recorder::Recorder;
use crate::settings::{self, Settings};
use crate::source::Source;
use crate::ways::Ways;
use crate::{alone, logs, publish, reach, serve, version};

/// How long a primary that was found running may wait for the store.
const FIRST_WORD: Duration = Duration::from_secs(5);
/// How long a node of the same name may take to show that it is alive.
const PROBE: Duration = Duration::from_secs(3);
/// How long the first turn waits for the fencer.
const GUARD: Duration = Duration::from_secs(1);
/// How long open REST calls may go on after the node has ended.
const FAREWELL: Duration = Duration::from_secs(2);

/// Runs the daemon; returns its exit status.
///
/// # Errors
/// What keeps it from starting, in one sentence with what to do.
pub async fn run(path: Option<&Path>) -> anyhow::Result<i32> {
    let source = Source::new(path);
    let loaded = source.load().map_err(|problems| anyhow::anyhow!("{problems}"))?;
    let elsewhere = loaded.node.log.dir.is_some();
    let log = logs::start(&loaded.node.log)?;
    let ended = live(loaded, source).await.or_else(|error| {
        tracing::error!(target: logs::CRITICAL, "{error:#}");
        // Whoever started it looks at stderr first.
        if elsewhere { Err(error) } else { Ok(1) }
    });
    log.flush();
    ended
}

async fn live(loaded: Loaded, source: Source) -> anyhow::Result<i32> {
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    let node = Arc::new(loaded.node);
    tracing::info!("matriarch {} for {} of cluster {}", api::MATRIARCH_VERSION, node.name, node.scope);
    let paths = settings::paths(&node);
    let version = version::of_programs(&paths).await?;
    let catalog = Catalog::read(&paths).await?;
    let signals = signals()?;

    let _alone = alone::lock(&paths)?;
    alone::tidy(&paths, &node.matriarch.vault_dir).await?;

    let (known, _) = ClusterConfig::from_document(&publish::cached_document(&paths).unwrap_or_default());
    let grace = (!known.pause).then(|| known.ttl.min(FIRST_WORD));
    let ways = match Ways::open(&node, source.again(), paths.beside(".store")) {
        Ok(ways) => ways,
        Err(error) => {
            if grace.is_some() {
                reach::stop_primary(&paths, "the daemon ends and cannot lead").await;
            }
            return Err(error);
        }
    };
    let ended =
        with_store(Found { node, ways: ways.clone(), paths, version, catalog, grace, signals, source }).await;
    ways.close().await;
    ended
}

/// What was found out before the store was asked.
struct Found {
    node: Arc<NodeConfig>,
    ways: Ways,
    paths: Paths,
    version: u32,
    catalog: Catalog,
    grace: Option<Duration>,
    signals: mpsc::Receiver<Signal>,
    source: Source,
}

async fn with_store(found: Found) -> anyhow::Result<i32> {
    let Found { node, ways, paths, version, catalog, grace, mut signals, mut source } = found;
    let reached = reach::store(&node, &ways, &paths, grace, &mut signals).await?;
    let Some((dcs, view)) = reached else { return Ok(0) };
    let client = Client::new(&api::client::ClientSettings::for_peers(&node.ctl))?;
    refuse_duplicate(&node, &view, &client).await?;
    if let dcs::Abode::Here(generation) = view.abode() {
        ways.remember(generation);
    }

    let (cluster, warned) = cluster_settings(&node, &view, publish::cached_document(&paths));
    let settings = Arc::new(Settings::new(node.clone(), Arc::new(cluster), version));
    for warning in &settings.postgres.warnings {
        tracing::warn!("{warning}");
    }
    for why in settings.myself().withheld {
        tracing::warn!("this node only follows and never leads: {why}");
    }
    dcs.set_patience(settings.cluster.retry_timeout);
    let mut background = JoinSet::new();
    let (follow, seen) = dcs.follow();
    background.spawn(follow);
    let keeper = lease_thread(&node, &settings, &ways).await?;
    let (recorder, recollection) = recorder(&node)?;
    let promises = promises(&settings);
    let speech = Speech {
        node: &node,
        dcs: &dcs,
        seen: &seen,
        client: &client,
        recollection,
        promises: &promises,
        tenure: &keeper.tenure,
    };
    let Rest { status, inbox, moves, look, end, serving } = speech.start(&mut source, &mut background)?;
    let mover = Mover::new(mover::Parts {
        me: node.name.clone(),
        ways: ways.clone(),
        dcs: dcs.clone(),
        seen: seen.clone(),
        status: status.subscribe(),
        keeper: keeper.clone(),
    });
    background.spawn(mover.run(moves));
    let flags = Arc::clone(&keeper.flags);
    let parts = Parts {
        settings,
        dcs,
        seen,
        keeper,
        client,
        promises,
        status,
        inbox,
        signals,
        look,
        source,
        catalog,
        warned,
        background,
        ways,
        recorder,
    };
    let code = run_node(Node::new(parts), flags, paths).await;
    end.send_replace(true);
    // Open answers go out; whoever is slower than this is cut off.
    let _ = tokio::time::timeout(FAREWELL, tokio::task::spawn_blocking(move || serving.join())).await;
    Ok(code)
}

/// What keeps the decisions, and what REST tells of them.
fn recorder(node: &NodeConfig) -> anyhow::Result<(Recorder, Recollection)> {
    let recollection = Recollection::default();
    let header = Header {
        matriarch_turns: FORMAT,
        version: api::MATRIARCH_VERSION.to_owned(),
        scope: node.scope.clone(),
        name: node.name.to_string(),
    };
    let config::Recorder { dir, size } = node.matriarch.recorder.clone();
    let recorder = Recorder::start(dir, size, header, recollection.clone());
    Ok((recorder.context("starting the thread that records decisions")?, recollection))
}

/// What an earlier daemon has promised.
fn promises(settings: &Settings) -> Arc<Promises> {
    Arc::new(Promises::load(&settings.paths, &settings.node.name, settings.cluster.ttl))
}

/// Starts the thread that holds the lease, and waits a moment for its fencer.
async fn lease_thread(node: &NodeConfig, settings: &Settings, ways: &Ways) -> anyhow::Result<Keeper> {
    let keeper = Keeper::start(Terms {
        me: node.name.clone(),
        way: ways.present(),
        keys: Keys::new(&node.namespace, &node.scope),
        ttl: settings.cluster.ttl,
        patience: settings.cluster.retry_timeout,
        paths: settings.paths.clone(),
        post: Post::new(&settings.paths).context("finding the folder of this program")?,
    })?;
    keeper.guarded(GUARD).await;
    Ok(keeper)
}

/// What REST answers from.
struct Speech<'a> {
    node: &'a NodeConfig,
    dcs: &'a Dcs,
    seen: &'a watch::Receiver<Seen>,
    client: &'a Client,
    recollection: Recollection,
    promises: &'a Arc<Promises>,
    tenure: &'a watch::Receiver<Tenure>,
}

/// The node's ends of REST: what it tells, what it is asked, and how it ends the server.
struct Rest {
    status: watch::Sender<Arc<NodeStatus>>,
    inbox: mpsc::Receiver<Asked>,
    moves: mpsc::Receiver<Asked>,
    look: Arc<Notify>,
    end: watch::Sender<bool>,
    serving: std::thread::JoinHandle<()>,
}

impl Speech<'_> {
    fn start(&self, source: &mut Source, background: &mut JoinSet<()>) -> anyhow::Result<Rest> {
        let Self { node, dcs, seen, client, recollection, promises, tenure } = self;
        let unknown = NodeStatus::unknown(node.scope.clone(), node.name.clone());
        let (status, status_seen) = watch::channel(Arc::new(unknown));
        let (to_desk, desk_inbox) = mpsc::channel(64);
        let (to_node, inbox) = mpsc::channel(64);
        let (to_mover, moves) = mpsc::channel(8);
        let look = Arc::new(Notify::new());
        let inputs = Inputs {
            status: status_seen.clone(),
            seen: (*seen).clone(),
            node: to_desk,
            look: Some(Arc::clone(&look)),
            recollection: recollection.clone(),
        };
        let server = Server::bind(&api::server::Settings::from(&node.restapi), inputs)?;
        source.serve_with(server.reloader());
        let (end, ended) = watch::channel(false);
        let serving = server.start(ended)?;
        let desk = serve::Desk {
            dcs: (*dcs).clone(),
            seen: (*seen).clone(),
            status: status_seen,
            client: (*client).clone(),
            inbox: desk_inbox,
            to_node,
            to_mover,
            promises: Arc::clone(promises),
            tenure: (*tenure).clone(),
        };
        background.spawn(desk.run());
        Ok(Rest { status, inbox, moves, look, end, serving })
    }
}

/// Runs the node; where it panics, nobody is left to step down in time (F28).
async fn run_node(node: Node, flags: Arc<Flags>, paths: Paths) -> i32 {
    let mut running = JoinSet::new();
    running.spawn(node.run());
    match running.join_next().await {
        Some(Ok(code)) => code,
        _ => {
            tracing::error!("the node's loop panicked, which is a bug of matriarch: the daemon ends");
            disarm_by_force(&flags, &paths).await;
            1
        }
    }
}

/// SIGTERM and SIGINT stop, SIGHUP reloads.
pub fn signals() -> anyhow::Result<mpsc::Receiver<Signal>> {
    let (to, from) = mpsc::channel(4);
    let mut term = signal(SignalKind::terminate())?;
    let mut int = signal(SignalKind::interrupt())?;
    let mut hup = signal(SignalKind::hangup())?;
    let mut listening = JoinSet::new();
    listening.spawn(async move {
        loop {
            let told = tokio::select! {
                _ = term.recv() => Signal::Stop,
                _ = int.recv() => Signal::Stop,
                _ = hup.recv() => Signal::Reload,
            };
            if to.send(told).await.is_err() {
                return;
            }
        }
    });
    listening.detach_all();
    Ok(from)
}

/// A name may be used again only if nothing answers where its last holder did (patroni-compat 1.10, rule 16).
async fn refuse_duplicate(node: &NodeConfig, view: &ClusterView, client: &Client) -> anyhow::Result<()> {
    let Some(url) = view.members.get(&node.name).and_then(|member| member.api_url.as_deref()) else {
        return Ok(());
    };
    let liveness = format!("{}/liveness", url.trim_end_matches("/patroni").trim_end_matches('/'));
    if client.ask("GET", &liveness, None, PROBE).await.is_ok() {
        bail!(
            "Can't start; there is already a node named '{}' running: it answers at {liveness}. \
             Give this node another name, or stop the other one",
            node.name
        );
    }
    Ok(())
}

/// The cluster's settings: from the store, else from the copy beside the data, else as a new cluster's would be.
fn cluster_settings(
    node: &NodeConfig,
    view: &ClusterView,
    cached: Option<serde_json::Value>,
) -> (ClusterConfig, Vec<config::Problem>) {
    let stored = view.config.as_ref().map(|config| config.value.clone()).filter(serde_json::Value::is_object);
    let document =
        stored.or(cached).unwrap_or_else(|| ClusterConfig::default_document(node.bootstrap.dcs.as_ref()));
    let (cluster, mut problems) = ClusterConfig::from_document(&document);
    problems.extend(node.store.as_ref().and_then(|store| cluster.short_ttl(store)));
    for problem in &problems {
        tracing::warn!("{problem}");
    }
    (cluster, problems)
}

/// Reports all problems of a configuration; the exit status says whether it can be used.
pub fn check(path: Option<&Path>) -> i32 {
    match Source::new(path).load() {
        Ok(loaded) => {
            for warning in &loaded.warnings {
                println!("{warning}");
            }
            println!(
                "{} can be used",
                path.map_or("the environment".into(), |path| path.display().to_string())
            );
            0
        }
        Err(problems) => {
            println!("{problems}");
            1
        }
    }
}

/// What the programs are, for `--version`.
pub fn version_text() -> String {
    format!("matriarch {} (speaks as patroni {})", api::MATRIARCH_VERSION, api::PATRONI_VERSION)
}

/// Makes the one crypto provider known.
///
/// # Errors
/// If another one was installed first.
pub fn crypto() -> anyhow::Result<()> {
    rustls::crypto::ring::default_provider()
        .install_default()
        .map_err(|_| anyhow::anyhow!("two cryptographic providers were installed"))
        .context("starting TLS")
}

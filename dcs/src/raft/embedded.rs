//! A member of the embedded store in this process: its two threads, how they start, and how they end together.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use config::{Address, RaftConfig};
use raft::eraftpb::{ConfState, Snapshot};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::command::What;
use super::drive::{Drive, DriveError, Timing};
use super::link::Security;
use super::log::{Identity, Log};
use super::machine::Machine;
use super::request::{Introduction, Reply, Request};
use super::ring::Presence;
use super::watch::RaftWatch;
use super::wire::{Input, Wire};
use super::{found, peer, server};
use crate::Moment;
use crate::store::{StoreError, Txn, Write};

/// How many inputs may wait for the raft thread.
const INPUTS: usize = 8192;
/// How long an operator waits.
const PATIENCE: Duration = Duration::from_secs(10);

/// A member of the embedded store, in this process. Clones are the same member; it stops when
/// [`Embedded::stop`] is called or the last clone is gone, and its clients then get [`StoreError::Unreachable`].
#[derive(Clone)]
pub struct Embedded(Arc<Inner>);

struct Inner {
    wire: Arc<Wire>,
    inputs: SyncSender<Input>,
    ended: watch::Receiver<Option<String>>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        let _ = self.inputs.try_send(Input::Stop);
    }
}

/// One member of the embedded store, as the member that was asked sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreMember {
    /// Its identity, made at its first start with an empty directory.
    pub id: u64,
    /// Where the others reach it.
    pub address: String,
    /// Whether it votes; if not, it is still catching up.
    pub votes: bool,
    /// Whether it leads the store (which says nothing about Postgres).
    pub leads: bool,
    /// Whether the member that was asked hears it.
    pub reachable: bool,
}

impl Embedded {
    /// Starts a member on two threads of its own, which need no runtime of the caller. It returns at once:
    /// until the member has found a quorum, requests get [`StoreError::Unreachable`] after their patience.
    ///
    /// # Errors
    /// [`StoreError::Settings`] if an address, a certificate or the directory cannot be used, if the
    /// log is damaged, or if it would listen beyond loopback with neither password nor TLS.
    pub fn start(config: &RaftConfig) -> Result<Self, StoreError> {
        let settings = |why: String| StoreError::Settings(why);
        let address = config.self_addr.as_ref();
        let address = address.ok_or_else(|| settings("raft.self_addr is missing".to_owned()))?;
        let security = Security::new(config)?;
        let bind = config.bind_addr.as_ref().unwrap_or(address);
        let listener = listen(bind, security.is_open()).map_err(settings)?;
        let fresh =
            super::random().ok_or_else(|| settings("the system gives no random numbers".to_owned()))?;
        let log = Log::open(&config.data_dir, fresh).map_err(|error| settings(error.to_string()))?;
        let others: Vec<String> = config.partner_addrs.iter().map(ToString::to_string).collect();
        let list: BTreeSet<String> = others.iter().cloned().chain([address.to_string()]).collect();
        let introduction = Introduction {
            member: log.identity.member,
            cluster: log.identity.cluster,
            founders: log.identity.founders.clone(),
            list: list.into_iter().collect(),
            known: Vec::new(),
        };
        let (inputs, taken) = sync_channel(INPUTS);
        let wire =
            Wire::new(log.identity.member, address.to_string(), security, inputs.clone(), introduction);
        let wire = Arc::new(wire);
        let (tell, ended) = watch::channel(None);
        let (quit, quitting) = watch::channel(false);
        let net = Arc::clone(&wire);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| settings(format!("no thread for connections: {error}")))?;
        let thread = |name: &str| std::thread::Builder::new().name(name.to_owned());
        let threads = |error: std::io::Error| {
            settings(format!("the embedded store's threads cannot be started: {error}"))
        };
        let connections =
            thread("raft-net").spawn(move || runtime.block_on(connect(net, listener, others, quitting)));
        let connections = connections.map_err(threads)?;
        let (raft, timing) = (Arc::clone(&wire), timing(config));
        let driving = thread("raft").spawn(move || {
            let ring = raft.ring.clone();
            let running = std::panic::catch_unwind(AssertUnwindSafe(|| drive(raft, log, timing, &taken)));
            ring.set_presence(Presence::Ended);
            let why = match running {
                Ok(Ok(())) => "it was stopped".to_owned(),
                Ok(Err(error)) => error.to_string(),
                Err(panic) => {
                    format!("the embedded store found a contradiction in its own state: {}", text(&panic))
                }
            };
            drop(taken);
            quit.send_replace(true);
            let _ = connections.join();
            tell.send_replace(Some(why));
        });
        driving.map_err(threads)?;
        Ok(Self(Arc::new(Inner { wire, inputs, ended })))
    }

    /// Waits until the member has ended and returns why. Unless [`Embedded::stop`] was
    /// called, this process must end with that message: its disk or its memory cannot be trusted.
    pub async fn ended(&self) -> String {
        let mut ended = self.0.ended.clone();
        let why = ended.wait_for(Option::is_some).await;
        why.ok().and_then(|why| why.clone()).unwrap_or_else(|| "its thread is gone".to_owned())
    }

    /// Stops the member at once, as a crash would: what was not committed may be lost, nothing else.
    pub fn stop(&self) {
        let _ = self.0.inputs.send(Input::Stop);
    }

    /// Lets another member lead the store, if this one does, before it is stopped.
    pub fn abdicate(&self) {
        let _ = self.0.inputs.try_send(Input::Abdicate);
    }

    /// Makes this member neither hear nor speak to these addresses, until called again: a partition, for tests.
    pub fn cut(&self, addresses: &[Address]) {
        self.0.wire.set_cut(addresses.iter().map(ToString::to_string).collect());
    }

    /// Writes a key without conditions or lease, as an operator would.
    ///
    /// # Errors
    /// As [`crate::Dcs`]'s verbs.
    pub async fn put(&self, key: &str, value: &str) -> Result<(), StoreError> {
        self.write(Write::Put { key: key.to_owned(), value: value.to_owned(), lease: 0 }).await
    }

    /// Removes a key, as an operator would.
    ///
    /// # Errors
    /// As [`crate::Dcs`]'s verbs.
    pub async fn delete(&self, key: &str) -> Result<(), StoreError> {
        self.write(Write::Delete(key.to_owned())).await
    }

    /// Ends a lease, as an operator would.
    ///
    /// # Errors
    /// As [`crate::Dcs`]'s verbs.
    pub async fn revoke(&self, lease: i64) -> Result<(), StoreError> {
        let what = What::Revoke { lease, generation: None };
        self.ask(Request::Run(what), PATIENCE).await.map(drop)
    }

    async fn write(&self, write: Write) -> Result<(), StoreError> {
        let txn = Txn { then: vec![write], ..Txn::default() };
        self.ask(Request::Run(What::Commit(txn)), PATIENCE).await.map(drop)
    }

    /// Forgets the events so far, so that watchers must read everything again: for tests.
    pub fn forget_events(&self) {
        self.0.wire.ring.forget();
    }

    pub(super) async fn ask(&self, request: Request, patience: Duration) -> Result<Reply, StoreError> {
        if self.0.ended.borrow().is_some() {
            return Err(StoreError::Unreachable("this member of the embedded store has ended".to_owned()));
        }
        server::ask(&self.0.wire, request, patience).await
    }

    pub(super) fn watch(&self, prefix: &str, from: i64) -> Result<RaftWatch, StoreError> {
        Ok(RaftWatch::Local(Box::new(self.0.wire.ring.watch(prefix, from)?)))
    }
}

fn text(panic: &Box<dyn std::any::Any + Send>) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
}

/// A heartbeat twice in the shortest election timeout: one may come late, and an idle store wakes no oftener than that.
fn timing(config: &RaftConfig) -> Timing {
    let tick = (config.min_timeout / 4).clamp(Duration::from_millis(15), Duration::from_secs(1));
    let ticks =
        |span: Duration| usize::try_from(span.as_millis() / tick.as_millis().max(1)).unwrap_or(usize::MAX);
    let least = ticks(config.min_timeout).max(4);
    Timing { tick, election: (least, ticks(config.max_timeout).max(least + 1)), heartbeat: 2 }
}

/// Takes the port. Without password and TLS anybody who reaches it could write, so only this machine may.
fn listen(bind: &Address, open: bool) -> Result<std::net::TcpListener, String> {
    use std::net::ToSocketAddrs;
    let cannot = |error: std::io::Error| {
        format!("the embedded store cannot listen at {bind} (raft.bind_addr or raft.self_addr): {error}")
    };
    let found: Vec<_> = (bind.host.as_str(), bind.port).to_socket_addrs().map_err(cannot)?.collect();
    if open && found.iter().any(|address| !address.ip().is_loopback()) {
        return Err(format!(
            "the embedded store would listen at {bind} for anybody: write raft.password, or raft.cacert, cert and key"
        ));
    }
    let listener = std::net::TcpListener::bind(found.as_slice()).map_err(cannot)?;
    listener.set_nonblocking(true).map_err(cannot)?;
    Ok(listener)
}

/// The thread of the connections.
async fn connect(
    wire: Arc<Wire>,
    listener: std::net::TcpListener,
    others: Vec<String>,
    mut quit: watch::Receiver<bool>,
) {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!("the embedded store cannot listen: {error}"),
    };
    let mut tasks = JoinSet::new();
    tasks.spawn(server::serve(Arc::clone(&wire), listener));
    tasks.spawn(peer::keep_all(Arc::clone(&wire)));
    tasks.spawn(found::find(wire, others));
    let _ = quit.wait_for(|quit| *quit).await;
}

/// The raft thread: waits until this member belongs to a store, then drives it.
fn drive(wire: Arc<Wire>, mut log: Log, timing: Timing, inputs: &Receiver<Input>) -> Result<(), DriveError> {
    let mut waiting = Vec::new();
    while log.identity.cluster == 0 {
        match inputs.recv_timeout(Duration::from_millis(50)) {
            Ok(Input::Formed { cluster, founders }) => form(&wire, &mut log, cluster, founders)?,
            Ok(Input::Request { request, end, reply }) => waiting.push((request, end, reply)),
            Ok(Input::Stop) | Err(RecvTimeoutError::Disconnected) => return Ok(()),
            Ok(_) | Err(RecvTimeoutError::Timeout) => {}
        }
        let now = Moment::now();
        for (.., reply) in waiting.extract_if(.., |(_, end, _)| *end <= now) {
            let why = "the embedded store is not founded yet: its members are not all there".to_owned();
            let _ = reply.send(Err(StoreError::Unreachable(why)));
        }
    }
    let mut drive = Drive::new(wire, log, timing)?;
    for (request, end, reply) in waiting {
        drive.request(request, end, reply);
    }
    drive.run(inputs)
}

fn form(wire: &Wire, log: &mut Log, cluster: u64, founders: BTreeMap<u64, String>) -> Result<(), DriveError> {
    let identity = Identity { cluster, founders: founders.clone(), ..log.identity.clone() };
    if founders.contains_key(&identity.member) {
        let data = serde_json::to_vec(&Machine::new(founders.clone())).unwrap_or_default();
        let mut snapshot = Snapshot { data, ..Snapshot::default() };
        let meta = snapshot.mut_metadata();
        (meta.index, meta.term) = (1, 1);
        let voters: Vec<u64> = founders.keys().copied().collect();
        meta.set_conf_state(ConfState::from((voters, Vec::new())));
        log.found(identity, snapshot)?;
        let names: Vec<&str> = founders.values().map(String::as_str).collect();
        tracing::info!("the embedded store {cluster:x} is founded by {}", names.join(", "));
    } else {
        log.set_identity(identity)?;
        tracing::info!("this member joins the embedded store {cluster:x}");
    }
    wire.introduction.send_modify(|us| {
        us.cluster = cluster;
        us.founders = founders;
    });
    Ok(())
}

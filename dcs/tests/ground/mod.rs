//! The ground that the promises are tested on: a store in memory, or real etcd
//! servers on loopback ports of their own, and the hand of an operator on either.

#![allow(dead_code, reason = "each test program uses its own part")]

pub mod members;
pub mod servers;

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use config::{Endpoints, EtcdConfig, NodeName, StoreConfig};
use dcs::{Acquire, Claim, Dcs, Embedded, Faults, Keys, Leadership, Memory, Moment, Place, Seen, Session};
use tokio::sync::watch;
use tokio::task::JoinSet;

pub const PATIENCE: Duration = Duration::from_secs(10);

/// A store, and a scope in it that nobody else uses.
#[derive(Clone)]
pub struct Ground {
    pub store: Kind,
    pub keys: Keys,
}

#[derive(Clone)]
#[allow(clippy::large_enum_variant, reason = "a test")]
pub enum Kind {
    Memory(Memory),
    Etcd(StoreConfig),
    /// The members; each node uses the next one.
    Raft(Vec<Embedded>),
    /// Members elsewhere, and one of them for the operator.
    RaftClient(StoreConfig, Embedded),
}

static SCOPES: AtomicU64 = AtomicU64::new(0);

impl Ground {
    pub fn new(store: Kind) -> Self {
        let scope = format!("scope{}", SCOPES.fetch_add(1, Ordering::Relaxed));
        Self { store, keys: Keys::new("service", &scope) }
    }

    pub async fn node(&self) -> Dcs {
        match &self.store {
            Kind::Memory(memory) => Dcs::in_memory(memory.clone(), self.keys.clone(), PATIENCE),
            Kind::Etcd(config) | Kind::RaftClient(config, _) => {
                Dcs::connect(config, self.keys.clone(), PATIENCE).await.unwrap()
            }
            Kind::Raft(members) => Dcs::embedded(next(members), self.keys.clone(), PATIENCE),
        }
    }

    pub async fn faulty(&self) -> (Dcs, Faults) {
        let faults = Faults::default();
        let dcs = match &self.store {
            Kind::Memory(memory) => {
                Dcs::in_faulty_memory(memory.clone(), self.keys.clone(), PATIENCE, faults.clone())
            }
            Kind::Etcd(config) | Kind::RaftClient(config, _) => {
                Dcs::connect_faulty(config, self.keys.clone(), PATIENCE, faults.clone()).await.unwrap()
            }
            Kind::Raft(members) => {
                Dcs::embedded_faulty(next(members), self.keys.clone(), PATIENCE, faults.clone())
            }
        };
        (dcs, faults)
    }

    /// Writes a key as an operator would.
    pub async fn put(&self, place: &Place, value: &str) {
        self.put_path(&self.keys.path(place), value).await;
    }

    pub async fn put_path(&self, path: &str, value: &str) {
        match &self.store {
            Kind::Memory(memory) => memory.put(path, value),
            Kind::Etcd(config) => {
                raw(config).await.put(path, value, None).await.unwrap();
            }
            Kind::Raft(members) => next(members).put(path, value).await.unwrap(),
            Kind::RaftClient(_, member) => member.put(path, value).await.unwrap(),
        }
    }

    /// Removes a key as an operator would.
    pub async fn delete(&self, place: &Place) {
        let path = self.keys.path(place);
        match &self.store {
            Kind::Memory(memory) => memory.delete(&path),
            Kind::Etcd(config) => {
                raw(config).await.delete(path, None).await.unwrap();
            }
            Kind::Raft(members) => next(members).delete(&path).await.unwrap(),
            Kind::RaftClient(_, member) => member.delete(&path).await.unwrap(),
        }
    }

    /// Revokes a lease as an operator would.
    pub async fn revoke(&self, session: &Session) {
        match &self.store {
            Kind::Memory(memory) => memory.revoke(session.lease()),
            Kind::Etcd(config) => {
                raw(config).await.lease_revoke(session.lease()).await.unwrap();
            }
            Kind::Raft(members) => next(members).revoke(session.lease()).await.unwrap(),
            Kind::RaftClient(_, member) => member.revoke(session.lease()).await.unwrap(),
        }
    }

    /// Forgets all history.
    pub async fn compact(&self) {
        match &self.store {
            Kind::Memory(memory) => memory.compact(),
            Kind::Etcd(config) => {
                let mut client = raw(config).await;
                let now = client.get("x", None).await.unwrap().header().unwrap().revision();
                client.compact(now, None).await.unwrap();
            }
            Kind::Raft(members) => members.iter().for_each(Embedded::forget_events),
            Kind::RaftClient(_, member) => member.forget_events(),
        }
    }
}

/// The members in turn.
fn next(members: &[Embedded]) -> &Embedded {
    static TURN: AtomicUsize = AtomicUsize::new(0);
    &members[TURN.fetch_add(1, Ordering::Relaxed) % members.len()]
}

/// A plain client on the first server, to look and meddle without the code under test.
pub async fn raw(config: &StoreConfig) -> etcd_client::Client {
    let StoreConfig::Etcd(EtcdConfig { endpoints: Endpoints::Listed { urls, .. }, .. }) = config else {
        panic!("no listed endpoints")
    };
    let mut client = etcd_client::Client::connect([&urls[0]], None).await.unwrap();
    let end = Moment::now() + Duration::from_secs(20);
    while let Err(error) = client.status().await {
        assert!(Moment::now() < end, "waited 20 s in vain for etcd: {error}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    client
}

pub fn etcd(urls: &[String]) -> StoreConfig {
    StoreConfig::Etcd(EtcdConfig {
        endpoints: Endpoints::Listed { urls: urls.to_vec(), fixed: false },
        user: None,
        cacert: None,
        cert: None,
        key: None,
    })
}

pub fn name(text: &str) -> NodeName {
    NodeName::new(text).unwrap()
}

pub async fn won(dcs: &Dcs, me: &NodeName, session: &Session) -> Leadership {
    let after = Box::pin(dcs.load()).await.unwrap().claimed;
    match dcs.acquire(me, session, Claim { after, ..Claim::default() }).await.unwrap() {
        Acquire::Won(leadership, _) => leadership,
        Acquire::HeldBy(other) => panic!("{other} holds the lead"),
        Acquire::Late => panic!("somebody has led since"),
    }
}

/// Waits until something holds that nobody announces; at most 20 s.
pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Moment::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Moment::now() < end, "waited 20 s in vain until {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Somebody who follows a cluster.
pub struct Follower {
    pub seen: watch::Receiver<Seen>,
    tasks: JoinSet<()>,
}

impl Follower {
    pub fn new(dcs: &Dcs) -> Self {
        let (future, seen) = dcs.follow();
        let mut tasks = JoinSet::new();
        tasks.spawn(future);
        Self { seen, tasks }
    }

    /// Waits for a notification after which `holds`; at most 20 s.
    pub async fn sees(&mut self, what: &str, holds: impl Fn(&Seen) -> bool) -> Seen {
        let waiting = self.seen.wait_for(|seen| holds(seen));
        if let Ok(seen) = tokio::time::timeout(Duration::from_secs(20), waiting).await {
            return seen.unwrap().clone();
        }
        panic!("waited 20 s in vain to see {what}; last seen: {:?}", *self.seen.borrow())
    }
}

/// Whether a view is there for which `holds`.
pub fn view(seen: &Seen, holds: impl Fn(&dcs::ClusterView) -> bool) -> bool {
    seen.view.as_ref().is_some_and(|view| holds(view))
}

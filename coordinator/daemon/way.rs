//! The way to the store: over the network, or through the member of the embedded store that this process is.
//! It starts that member, and ends it last. What is in the store it never looks at.

use std::time::Duration;

use config::{NodeConfig, RaftConfig, StoreConfig};
use dcs::{Dcs, ETCD_CLOCK, Embedded, Keys, RAFT_CLOCK, StoreError};

/// How long a member may take to close its log.
const FAREWELL: Duration = Duration::from_secs(5);

/// The way to the store. Clones are the same way.
#[derive(Clone)]
pub enum Way {
    /// As a client.
    Network(Box<StoreConfig>),
    /// Through the member in this process.
    Member(Embedded),
    /// The configuration names no store, and this is what to write.
    Nowhere(String),
}

impl Way {
    /// Starts the member of the embedded store, if this node is one. Nothing is asked yet.
    ///
    /// # Errors
    /// [`StoreError::Settings`] if it cannot be a member: its log is damaged, its address taken, and so on.
    pub fn open(node: &NodeConfig) -> Result<Self, StoreError> {
        node.store.as_ref().map_or_else(|| Ok(Self::Nowhere(lines(node))), Self::to)
    }

    /// The way to one store; starts the member of the embedded store that this node is.
    ///
    /// # Errors
    /// As [`Way::open`].
    pub fn to(store: &StoreConfig) -> Result<Self, StoreError> {
        Ok(match store {
            StoreConfig::Raft(raft) if raft.self_addr.is_some() => Self::Member(Embedded::start(raft)?),
            store => Self::Network(Box::new(store.clone())),
        })
    }

    /// The section of the configuration that names the store: what it is called where clusters move.
    pub fn section(&self) -> &'static str {
        self.names().1
    }

    /// A cluster's records, over connections of its own.
    ///
    /// # Errors
    /// [`StoreError::Settings`] if an address or a certificate cannot be used.
    pub async fn connect(&self, keys: Keys, patience: Duration) -> Result<Dcs, StoreError> {
        match self {
            Self::Network(store) => Dcs::connect(store, keys, patience).await,
            Self::Member(member) => Ok(Dcs::embedded(member, keys, patience)),
            Self::Nowhere(_) => Err(StoreError::Settings("the configuration names no store".to_owned())),
        }
    }

    /// How wrong the clock may run that counts leases down, in parts per million (see [`dcs::authority`]).
    pub fn clock(&self) -> u64 {
        match self {
            Self::Network(store) if !store.is_embedded() => ETCD_CLOCK,
            _ => RAFT_CLOCK,
        }
    }

    /// What the store is called, and the section of the configuration that describes it.
    pub fn names(&self) -> (&'static str, &'static str) {
        match self {
            Self::Network(store) if !store.is_embedded() => ("etcd", "etcd3"),
            _ => ("the embedded store", "raft"),
        }
    }

    /// Waits until the member in this process has ended, and returns why; for ever if there is none.
    pub async fn ended(&self) -> String {
        match self {
            Self::Member(member) => member.ended().await,
            Self::Network(_) | Self::Nowhere(_) => std::future::pending().await,
        }
    }

    /// This process is about to end: another member should lead the store by then.
    pub fn abdicate(&self) {
        if let Self::Member(member) = self {
            member.abdicate();
        }
    }

    /// Stops the member in this process, after everything else.
    pub async fn close(&self) {
        if let Self::Member(member) = self {
            member.stop();
            if tokio::time::timeout(FAREWELL, member.ended()).await.is_err() {
                tracing::warn!(
                    "the embedded store did not end within {FAREWELL:?}; what it confirmed is safe"
                );
            }
        }
    }
}

/// What to write where no store is named.
fn lines(node: &NodeConfig) -> String {
    let postgresql = &node.postgresql;
    let raft = RaftConfig::proposal(&postgresql.connect_address.host, &postgresql.data_dir);
    format!(
        "the configuration names no store, so this node can neither lead nor follow: it waits. \
         If this node belongs to a cluster of three, write on each of them, each with its own self_addr and the two others as \
         partner_addrs, and one long random password for all,\n\n{raft}\n\nor etcd3: with hosts. If it is meant to be alone, \
         write\n\nmatriarch:\n  single: true\n\nThen start it again"
    )
}

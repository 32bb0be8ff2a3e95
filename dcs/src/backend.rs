//! Which store is in use. A new backend is a file, a variant here, a variant of
//! `config::StoreConfig` and a line in the conformance suite.

use std::time::Duration;

use crate::Revision;
use crate::etcd::{Etcd, EtcdWatch};
use crate::faulty::{Faults, Faulty, WatchFault};
use crate::memory::{Memory, MemoryWatch};
use crate::raft::{Raft, RaftWatch};
use crate::store::{Batch, Committed, Grant, Patience, Snapshot, Store, StoreError, Txn};

/// The store of one [`Dcs`](crate::Dcs).
pub(crate) enum Backend {
    Etcd(Etcd),
    Memory(Memory),
    Raft(Raft),
    FaultyEtcd(Faulty<Etcd>),
    FaultyMemory(Faulty<Memory>),
    FaultyRaft(Faulty<Raft>),
}

impl Backend {
    /// The embedded store, if that is what is used.
    pub fn raft(&self) -> Result<&Raft, StoreError> {
        match self {
            Self::Raft(raft) | Self::FaultyRaft(Faulty { store: raft, .. }) => Ok(raft),
            Self::Etcd(_) | Self::FaultyEtcd(_) => {
                Err(StoreError::Refused("etcd's members are managed with etcdctl member".to_owned()))
            }
            Self::Memory(_) | Self::FaultyMemory(_) => {
                Err(StoreError::Refused("a store in memory has no members".to_owned()))
            }
        }
    }
}

impl Backend {
    /// Reads as [`Store::load`] does, past the faults that a test planted.
    pub async fn undisturbed(&self, prefix: &str, patience: Patience) -> Result<Snapshot, StoreError> {
        match self {
            Self::FaultyEtcd(faulty) => faulty.store.load(prefix, patience).await,
            Self::FaultyMemory(faulty) => faulty.store.load(prefix, patience).await,
            Self::FaultyRaft(faulty) => faulty.store.load(prefix, patience).await,
            plain => plain.load(prefix, patience).await,
        }
    }
}

impl Store for Backend {
    async fn load(&self, prefix: &str, patience: Patience) -> Result<Snapshot, StoreError> {
        match self {
            Self::Etcd(store) => store.load(prefix, patience).await,
            Self::Memory(store) => store.load(prefix, patience).await,
            Self::Raft(store) => store.load(prefix, patience).await,
            Self::FaultyEtcd(store) => store.load(prefix, patience).await,
            Self::FaultyMemory(store) => store.load(prefix, patience).await,
            Self::FaultyRaft(store) => store.load(prefix, patience).await,
        }
    }

    async fn commit(&self, txn: &Txn, patience: Patience) -> Result<Committed, StoreError> {
        match self {
            Self::Etcd(store) => store.commit(txn, patience).await,
            Self::Memory(store) => store.commit(txn, patience).await,
            Self::Raft(store) => store.commit(txn, patience).await,
            Self::FaultyEtcd(store) => store.commit(txn, patience).await,
            Self::FaultyMemory(store) => store.commit(txn, patience).await,
            Self::FaultyRaft(store) => store.commit(txn, patience).await,
        }
    }

    async fn open_lease(&self, ttl: Duration, patience: Patience) -> Result<Grant, StoreError> {
        match self {
            Self::Etcd(store) => store.open_lease(ttl, patience).await,
            Self::Memory(store) => store.open_lease(ttl, patience).await,
            Self::Raft(store) => store.open_lease(ttl, patience).await,
            Self::FaultyEtcd(store) => store.open_lease(ttl, patience).await,
            Self::FaultyMemory(store) => store.open_lease(ttl, patience).await,
            Self::FaultyRaft(store) => store.open_lease(ttl, patience).await,
        }
    }

    async fn keep_lease(&self, lease: i64, patience: Patience) -> Result<(), StoreError> {
        match self {
            Self::Etcd(store) => store.keep_lease(lease, patience).await,
            Self::Memory(store) => store.keep_lease(lease, patience).await,
            Self::Raft(store) => store.keep_lease(lease, patience).await,
            Self::FaultyEtcd(store) => store.keep_lease(lease, patience).await,
            Self::FaultyMemory(store) => store.keep_lease(lease, patience).await,
            Self::FaultyRaft(store) => store.keep_lease(lease, patience).await,
        }
    }

    async fn close_lease(&self, lease: i64, patience: Patience) -> Result<(), StoreError> {
        match self {
            Self::Etcd(store) => store.close_lease(lease, patience).await,
            Self::Memory(store) => store.close_lease(lease, patience).await,
            Self::Raft(store) => store.close_lease(lease, patience).await,
            Self::FaultyEtcd(store) => store.close_lease(lease, patience).await,
            Self::FaultyMemory(store) => store.close_lease(lease, patience).await,
            Self::FaultyRaft(store) => store.close_lease(lease, patience).await,
        }
    }

    async fn watch(&self, prefix: &str, from: Revision, patience: Patience) -> Result<Watch, StoreError> {
        match self {
            Self::Etcd(store) => store.watch(prefix, from, patience).await,
            Self::Memory(store) => store.watch(prefix, from, patience).await,
            Self::Raft(store) => store.watch(prefix, from, patience).await,
            Self::FaultyEtcd(store) => store.watch(prefix, from, patience).await,
            Self::FaultyMemory(store) => store.watch(prefix, from, patience).await,
            Self::FaultyRaft(store) => store.watch(prefix, from, patience).await,
        }
    }
}

/// A watch that a backend opened.
pub(crate) struct Watch {
    source: Source,
    faults: Option<Faults>,
    again: Option<Batch>,
}

enum Source {
    Etcd(Box<EtcdWatch>),
    Memory(MemoryWatch),
    Raft(RaftWatch),
}

impl From<EtcdWatch> for Watch {
    fn from(watch: EtcdWatch) -> Self {
        Self { source: Source::Etcd(Box::new(watch)), faults: None, again: None }
    }
}

impl From<RaftWatch> for Watch {
    fn from(watch: RaftWatch) -> Self {
        Self { source: Source::Raft(watch), faults: None, again: None }
    }
}

impl From<MemoryWatch> for Watch {
    fn from(watch: MemoryWatch) -> Self {
        Self { source: Source::Memory(watch), faults: None, again: None }
    }
}

impl Watch {
    /// The same watch, disturbed.
    pub fn disturbed(self, faults: Faults) -> Self {
        Self { faults: Some(faults), ..self }
    }

    /// Waits for the next events. An empty batch only says that the store is there.
    ///
    /// # Errors
    /// [`StoreError::Gap`] if everything must be read again, anything else if the
    /// watch must be opened again. After an error the watch is of no use.
    pub async fn next(&mut self) -> Result<Batch, StoreError> {
        if let Some(batch) = self.again.take() {
            return Ok(batch);
        }
        let batch = match &mut self.source {
            Source::Etcd(watch) => watch.next().await?,
            Source::Memory(watch) => watch.next().await?,
            Source::Raft(watch) => watch.next().await?,
        };
        match self.faults.as_ref().and_then(Faults::on_watch) {
            None => Ok(batch),
            Some(WatchFault::Repeat) => {
                self.again = Some(batch.clone());
                Ok(batch)
            }
            Some(WatchFault::Cut) => Err(StoreError::Unreachable("the watch was cut".to_owned())),
            Some(WatchFault::Gap) => Err(StoreError::Gap("the watch missed events".to_owned())),
        }
    }
}

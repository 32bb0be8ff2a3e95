//! The ways to a cluster's records: over the network, through a member in this process, in memory;
//! and the members of the embedded store. What the records mean is not known here.

use std::time::Duration;

use config::{Address, StoreConfig};

use crate::backend::Backend;
use crate::cluster::Dcs;
use crate::etcd::Etcd;
use crate::faulty::{Faults, Faulty};
use crate::keys::Keys;
use crate::memory::Memory;
use crate::raft::{Embedded, Raft, StoreMember};
use crate::store::StoreError;

impl Dcs {
    /// Prepares the connection to a store. Nothing is asked yet: a store that is
    /// down shows at the first verb, not here. `patience` bounds every verb but
    /// renewals (`retry_timeout`).
    ///
    /// # Errors
    /// [`StoreError::Settings`] if an address or a certificate cannot be used.
    pub async fn connect(store: &StoreConfig, keys: Keys, patience: Duration) -> Result<Self, StoreError> {
        let backend = match store {
            StoreConfig::Etcd(etcd) => Backend::Etcd(Etcd::new(etcd).await?),
            StoreConfig::Raft(raft) => Backend::Raft(Raft::remote(raft)?),
        };
        Ok(Self::over(backend, keys, patience))
    }

    /// Like [`Dcs::connect`], with faults planted by a test.
    ///
    /// # Errors
    /// As [`Dcs::connect`].
    pub async fn connect_faulty(
        store: &StoreConfig,
        keys: Keys,
        patience: Duration,
        faults: Faults,
    ) -> Result<Self, StoreError> {
        let backend = match store {
            StoreConfig::Etcd(etcd) => Backend::FaultyEtcd(Faulty { store: Etcd::new(etcd).await?, faults }),
            StoreConfig::Raft(raft) => Backend::FaultyRaft(Faulty { store: Raft::remote(raft)?, faults }),
        };
        Ok(Self::over(backend, keys, patience))
    }

    /// A cluster in the embedded store, reached through the member in this process.
    #[must_use]
    pub fn embedded(member: &Embedded, keys: Keys, patience: Duration) -> Self {
        Self::over(Backend::Raft(Raft::local(member)), keys, patience)
    }

    /// Like [`Dcs::embedded`], with faults planted by a test.
    #[must_use]
    pub fn embedded_faulty(member: &Embedded, keys: Keys, patience: Duration, faults: Faults) -> Self {
        Self::over(Backend::FaultyRaft(Faulty { store: Raft::local(member), faults }), keys, patience)
    }

    /// The members of the embedded store.
    ///
    /// # Errors
    /// [`StoreError::Refused`] if the store is another one.
    pub async fn store_members(&self) -> Result<Vec<StoreMember>, StoreError> {
        self.home().backend().raft()?.members(self.patience()).await
    }

    /// Lets a member at an address join the embedded store that it does not know yet; it joins when it is started
    /// with an empty directory. (A member that lost its disk needs no leave: it replaces its former self.)
    ///
    /// # Errors
    /// [`StoreError::Unknown`] if the outcome is not known; asking again is safe.
    pub async fn admit_store_member(&self, address: &Address) -> Result<(), StoreError> {
        self.home().backend().raft()?.admit(&address.to_string(), self.patience()).await
    }

    /// Removes a member, by its address or identity, from the embedded store for good. Refused if fewer members
    /// than a quorum of the rest are reachable, unless `force`.
    ///
    /// # Errors
    /// [`StoreError::Refused`] with the reason; [`StoreError::Unknown`] if the outcome is not known: ask who is left.
    pub async fn remove_store_member(&self, member: &str, force: bool) -> Result<(), StoreError> {
        self.home().backend().raft()?.expel(member, force, self.patience()).await
    }

    /// A cluster in a store in memory, for tests and simulations.
    #[must_use]
    pub fn in_memory(memory: Memory, keys: Keys, patience: Duration) -> Self {
        Self::over(Backend::Memory(memory), keys, patience)
    }

    /// Like [`Dcs::in_memory`], with faults planted by a test.
    #[must_use]
    pub fn in_faulty_memory(memory: Memory, keys: Keys, patience: Duration, faults: Faults) -> Self {
        Self::over(Backend::FaultyMemory(Faulty { store: memory, faults }), keys, patience)
    }
}

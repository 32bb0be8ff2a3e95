//! The embedded store: a replicated store of records, leases and watches that the members keep
//! themselves, on the `raft` crate. Of clusters and Postgres it knows nothing.
//!
//! [`Embedded::start`] makes this process a member; [`Dcs::embedded`](crate::Dcs::embedded) is the way to the
//! store through it, [`Dcs::connect`](crate::Dcs::connect) the way of whoever is no member, over the same port
//! with the same password and certificates. If [`Embedded::ended`] resolves, the process must end.

use config::RaftConfig;
use serde::{Deserialize, Serialize};

use crate::Revision;
use crate::backend::Watch;
use crate::store::{Committed, Grant, Patience, Snapshot, Store, StoreError, Txn};

/// A member of the embedded store, in this process. Clones are the same member; it stops when
/// [`Embedded::stop`] is called or the last clone is gone, and its clients then get [`StoreError::Unreachable`].
#[derive(Clone)]
pub struct Embedded(());

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
    /// Whether the store's leader has heard of it within an election timeout.
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
        let _ = config;
        Err(StoreError::Settings("the section raft is not served yet".to_owned()))
    }

    /// Waits until the member has ended and returns why. Unless [`Embedded::stop`] was
    /// called, this process must end with that message: its disk or its memory cannot be trusted.
    pub async fn ended(&self) -> String {
        std::future::pending().await
    }

    /// Stops the member at once, as a crash would: what was not committed may be lost, nothing else.
    pub fn stop(&self) {}
}

/// The embedded store, through a member in this process or over the network.
pub(crate) struct Raft(());

impl Raft {
    pub fn local(member: &Embedded) -> Self {
        let _ = member;
        Self(())
    }

    pub fn remote(config: &RaftConfig) -> Result<Self, StoreError> {
        let _ = config;
        Err(StoreError::Settings("the section raft is not served yet".to_owned()))
    }

    pub async fn members(&self, _: Patience) -> Result<Vec<StoreMember>, StoreError> {
        Err(StoreError::Refused("not yet".to_owned()))
    }

    pub async fn admit(&self, _: &str, _: Patience) -> Result<(), StoreError> {
        Err(StoreError::Refused("not yet".to_owned()))
    }

    pub async fn expel(&self, _: &str, _: bool, _: Patience) -> Result<(), StoreError> {
        Err(StoreError::Refused("not yet".to_owned()))
    }
}

impl Store for Raft {
    async fn load(&self, _: &str, _: Patience) -> Result<Snapshot, StoreError> {
        Err(StoreError::Refused("not yet".to_owned()))
    }

    async fn commit(&self, _: &Txn, _: Patience) -> Result<Committed, StoreError> {
        Err(StoreError::Refused("not yet".to_owned()))
    }

    async fn open_lease(&self, _: std::time::Duration, _: Patience) -> Result<Grant, StoreError> {
        Err(StoreError::Refused("not yet".to_owned()))
    }

    async fn keep_lease(&self, _: i64, _: Patience) -> Result<(), StoreError> {
        Err(StoreError::Refused("not yet".to_owned()))
    }

    async fn close_lease(&self, _: i64, _: Patience) -> Result<(), StoreError> {
        Err(StoreError::Refused("not yet".to_owned()))
    }

    async fn watch(&self, _: &str, _: Revision, _: Patience) -> Result<Watch, StoreError> {
        Err(StoreError::Refused("not yet".to_owned()))
    }
}

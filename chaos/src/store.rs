//! A cluster's store as a test meets it, whichever it is: what stands in it, what an operator does to it by hand,
//! and its absence.
//!
//! Says nothing of what the keys mean; what is about one store only is with that store.

use std::time::Duration;

use rustix::process::Signal;

use crate::embedded::Embedded;
use crate::etcd::Etcd;

/// One key as the store keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// Its name.
    pub key: String,
    /// Its value.
    pub value: String,
    /// Revision of the last write.
    pub modified: u64,
    /// Revision at which it was created.
    pub created: u64,
    /// Lease it hangs on; 0 for none.
    pub lease: i64,
}

/// The store of a cluster.
#[derive(Debug)]
pub enum Keeper {
    /// An etcd beside the nodes.
    Etcd(Etcd),
    /// The nodes themselves.
    Embedded(Embedded),
}

impl Keeper {
    /// The store is there but silent, for nodes and for everybody: etcd's processes are stopped, or nothing passes
    /// between the members of an embedded store, which run on. A single member needs no network and goes on.
    ///
    /// # Errors
    /// When the cluster was not made for it (see [`crate::Spec::tested`]).
    pub fn freeze(&self) -> anyhow::Result<()> {
        match self {
            Self::Etcd(etcd) => {
                etcd.signal(Signal::STOP);
                Ok(())
            }
            Self::Embedded(embedded) => embedded.freeze(),
        }
    }

    /// Ends [`Keeper::freeze`].
    pub fn thaw(&self) {
        match self {
            Self::Etcd(etcd) => etcd.signal(Signal::CONT),
            Self::Embedded(embedded) => embedded.thaw(),
        }
    }

    /// The store's revision: it grows by one with each write.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn revision(&self) -> anyhow::Result<u64> {
        match self {
            Self::Etcd(etcd) => etcd.revision().await,
            Self::Embedded(embedded) => embedded.revision().await,
        }
    }

    /// Every key that starts with `prefix`, in order.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn keys(&self, prefix: &str) -> anyhow::Result<Vec<Key>> {
        match self {
            Self::Etcd(etcd) => etcd.keys(prefix).await,
            Self::Embedded(embedded) => embedded.keys(prefix).await,
        }
    }

    /// One key, if it exists.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn get(&self, name: &str) -> anyhow::Result<Option<Key>> {
        Ok(self.keys(name).await?.into_iter().find(|found| found.key == name))
    }

    /// Every value that a key got after revision `from`, oldest first; none where it was removed. What it had before
    /// may come first.
    ///
    /// # Errors
    /// When the store does not answer or has forgotten that far back.
    pub async fn values_since(&self, name: &str, from: u64) -> anyhow::Result<Vec<Option<Key>>> {
        match self {
            Self::Etcd(etcd) => etcd.values_since(name, from).await,
            Self::Embedded(embedded) => embedded.values_since(name, from).await,
        }
    }

    /// The time to live that a lease was granted with; none if it has ended.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn granted(&self, lease: i64) -> anyhow::Result<Option<Duration>> {
        match self {
            Self::Etcd(etcd) => etcd.granted(lease).await,
            Self::Embedded(embedded) => embedded.granted(lease).await,
        }
    }

    /// Writes a key by hand, as an operator or another program would.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn put(&self, name: &str, value: &str) -> anyhow::Result<()> {
        match self {
            Self::Etcd(etcd) => etcd.put(name, value).await,
            Self::Embedded(embedded) => embedded.put(name, value).await,
        }
    }

    /// Deletes a key by hand.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn delete(&self, name: &str) -> anyhow::Result<()> {
        match self {
            Self::Etcd(etcd) => etcd.delete(name).await,
            Self::Embedded(embedded) => embedded.delete(name).await,
        }
    }

    /// Revokes a lease by hand; every key that hangs on it vanishes.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn revoke(&self, lease: i64) -> anyhow::Result<()> {
        match self {
            Self::Etcd(etcd) => etcd.revoke(lease).await,
            Self::Embedded(embedded) => embedded.revoke(lease).await,
        }
    }
}

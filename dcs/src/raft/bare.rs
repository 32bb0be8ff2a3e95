//! The embedded store's keys as they are, for whoever looks at them from outside: operators, other programs, tests.
//! What they mean is not known here, and nothing is guarded: a daemon never uses this.

use std::time::Duration;

use config::RaftConfig;

use super::client::Remote;
use super::command::What;
use super::request::{Reply, Request};
use super::{Raft, odd};
use crate::store::{Event, Patience, Record, Store, StoreError, Txn, Write};

/// How long one question may take, an election included.
const PATIENCE: Patience = Patience { total: Duration::from_secs(3), each: None };

/// One key, with everything that the store knows of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BareKey {
    /// Its name.
    pub key: String,
    /// Its text.
    pub value: String,
    /// Revision at which it was created.
    pub created: i64,
    /// Revision of the last write.
    pub modified: i64,
    /// The lease that it hangs on; 0 for none.
    pub lease: i64,
}

impl From<Record> for BareKey {
    fn from(record: Record) -> Self {
        let Record { key, value, created, modified, lease } = record;
        Self { key, value, created, modified, lease }
    }
}

/// The way to the bare keys of an embedded store, over the network.
pub struct BareStore(Raft);

impl BareStore {
    /// Prepares the way; nothing is asked yet.
    ///
    /// # Errors
    /// [`StoreError::Settings`] if no member is named or a certificate cannot be used.
    pub fn new(config: &RaftConfig) -> Result<Self, StoreError> {
        Ok(Self(Raft::Remote(Box::new(Remote::new(config)?))))
    }

    /// Every key that starts with `prefix`, in order, and the store's revision, linearizably.
    ///
    /// # Errors
    /// Never [`StoreError::Unknown`].
    pub async fn keys(&self, prefix: &str) -> Result<(Vec<BareKey>, i64), StoreError> {
        let found = self.0.load(prefix, PATIENCE).await?;
        Ok((found.records.into_iter().map(BareKey::from).collect(), found.revision.0))
    }

    /// Writes a key, without conditions or lease.
    ///
    /// # Errors
    /// [`StoreError::Unknown`] if it may have happened.
    pub async fn put(&self, key: &str, value: &str) -> Result<(), StoreError> {
        self.write(Write::Put { key: key.to_owned(), value: value.to_owned(), lease: 0 }).await
    }

    /// Removes a key.
    ///
    /// # Errors
    /// [`StoreError::Unknown`] if it may have happened.
    pub async fn delete(&self, key: &str) -> Result<(), StoreError> {
        self.write(Write::Delete(key.to_owned())).await
    }

    async fn write(&self, write: Write) -> Result<(), StoreError> {
        self.0.commit(&Txn { then: vec![write], ..Txn::default() }, PATIENCE).await.map(drop)
    }

    /// Ends a lease; every key that hangs on it vanishes.
    ///
    /// # Errors
    /// [`StoreError::Unknown`] if it may have happened.
    pub async fn revoke(&self, lease: i64) -> Result<(), StoreError> {
        self.0.run(What::Revoke { lease, generation: None }, PATIENCE).await
    }

    /// The time to live that a lease was granted with, linearizably; none if it has ended.
    ///
    /// # Errors
    /// Never [`StoreError::Unknown`].
    pub async fn granted(&self, lease: i64) -> Result<Option<Duration>, StoreError> {
        Ok(self.lease(lease).await?.map(|(ttl, _)| Duration::from_millis(ttl)))
    }

    /// How often a lease was renewed, linearizably; none if it has ended.
    ///
    /// # Errors
    /// Never [`StoreError::Unknown`].
    pub async fn renewals(&self, lease: i64) -> Result<Option<u64>, StoreError> {
        Ok(self.lease(lease).await?.map(|(_, renewals)| renewals))
    }

    async fn lease(&self, lease: i64) -> Result<Option<(u64, u64)>, StoreError> {
        match self.0.ask(Request::Lease { lease }, PATIENCE).await? {
            Reply::Lease(found) => Ok(found),
            _ => Err(odd()),
        }
    }

    /// How many entries the log has had since the store was founded.
    ///
    /// # Errors
    /// Never [`StoreError::Unknown`].
    pub async fn length(&self) -> Result<u64, StoreError> {
        match self.0.ask(Request::Length, PATIENCE).await? {
            Reply::Length(entries) => Ok(entries),
            _ => Err(odd()),
        }
    }

    /// What a key became after revision `from`, oldest first; none where it was removed.
    ///
    /// # Errors
    /// [`StoreError::Gap`] if the member that is asked has forgotten that far back.
    pub async fn became(&self, key: &str, from: i64) -> Result<Vec<Option<BareKey>>, StoreError> {
        let Raft::Remote(remote) = &self.0 else { return Err(odd()) };
        // The member that is watched may not have heard of it yet.
        let (now, _) = self.keys(key).await?;
        let newest = now.iter().filter(|found| found.key == key).map(|found| found.modified).max();
        let mut watch = remote.watch(key, from + 1, PATIENCE).await?;
        let (mut found, mut reached) = (Vec::new(), from);
        loop {
            let batch = watch.next().await?;
            // It says that it is there when it has had nothing to say for a while.
            if batch.events.is_empty() && newest.is_none_or(|newest| newest <= reached) {
                return Ok(found);
            }
            for event in batch.events {
                match event {
                    Event::Put(record) if record.key == key => {
                        reached = reached.max(record.modified);
                        found.push(Some(record.into()));
                    }
                    Event::Delete { key: gone, .. } if gone == key => found.push(None),
                    Event::Put(_) | Event::Delete { .. } => {}
                }
            }
        }
    }
}

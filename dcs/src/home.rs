//! A cluster's store with the cluster's generation in front of its revisions, so that they go on growing when the
//! cluster moves to a store that counts from one. What the records mean is not known here.
//!
//! A generation begins with each move (`matriarch/generation`; a cluster that never moved is in its first, and sees
//! the store's own revisions). Nobody above this file sees a revision of one generation for one of another.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::Revision;
use crate::backend::{Backend, Watch};
use crate::store::{
    Batch, Committed, Condition, Event, Grant, Patience, Record, Snapshot, Store, StoreError, Txn,
};

/// How many revisions a generation has room for: 2^48, at a thousand writes a second for nine thousand years.
const ROOM: u32 = 48;

/// One store as one cluster sees it.
pub(crate) struct Home {
    backend: Backend,
    /// The key of the generation, and what every key of the cluster starts with.
    key: String,
    prefix: String,
    /// 0: not read yet.
    generation: AtomicU64,
}

impl Home {
    pub fn new(backend: Backend, key: String, prefix: String) -> Self {
        Self { backend, key, prefix, generation: AtomicU64::new(0) }
    }

    /// The store itself, for what has no revisions.
    pub fn backend(&self) -> &Backend {
        &self.backend
    }

    /// What is added to this store's revisions.
    async fn offset(&self, patience: Patience) -> Result<i64, StoreError> {
        match self.generation.load(Ordering::Acquire) {
            0 => {
                let read =
                    Box::pin(self.backend.undisturbed(&self.prefix, patience)).await.map_err(unsent)?;
                Ok(self.note(&read.records))
            }
            known => Ok(offset(known)),
        }
    }

    /// The generation may be another one now: it is read again before it is used.
    pub fn forget(&self) {
        self.generation.store(0, Ordering::Release);
    }

    /// Learns the generation from a listing.
    fn note(&self, records: &[Record]) -> i64 {
        let found = records.iter().find(|record| record.key == self.key);
        let generation = found.map_or(1, |record| generation(&record.value));
        self.generation.store(generation, Ordering::Release);
        offset(generation)
    }

    /// Reads everything below `prefix`, linearizably, at one revision.
    pub async fn load(&self, prefix: &str, patience: Patience) -> Result<Snapshot, StoreError> {
        let Snapshot { mut records, revision } = self.backend.load(prefix, patience).await?;
        let offset = self.note(&records);
        records.iter_mut().for_each(|record| raise(record, offset));
        Ok(Snapshot { records, revision: Revision(revision.0 + offset) })
    }

    /// Runs a transaction.
    pub async fn commit(&self, txn: &Txn, patience: Patience) -> Result<Committed, StoreError> {
        let offset = self.offset(patience).await?;
        let lowered;
        let txn = if offset == 0 {
            txn
        } else {
            let when = txn.when.iter().map(|condition| lower(condition, offset)).collect();
            lowered = Txn { when, ..txn.clone() };
            &lowered
        };
        // In a box: it is large, and whoever asks is moved about.
        let mut done = Box::pin(self.backend.commit(txn, patience)).await?;
        done.revision.0 += offset;
        if let Some(record) = &mut done.record {
            raise(record, offset);
        }
        Ok(done)
    }

    pub async fn open_lease(&self, ttl: Duration, patience: Patience) -> Result<Grant, StoreError> {
        self.backend.open_lease(ttl, patience).await
    }

    pub async fn keep_lease(&self, lease: i64, patience: Patience) -> Result<(), StoreError> {
        self.backend.keep_lease(lease, patience).await
    }

    pub async fn close_lease(&self, lease: i64, patience: Patience) -> Result<(), StoreError> {
        self.backend.close_lease(lease, patience).await
    }

    /// Watches everything below `prefix` from revision `from` on, inclusive.
    pub async fn watch(
        self: &Arc<Self>,
        prefix: &str,
        from: Revision,
        patience: Patience,
    ) -> Result<HomeWatch, StoreError> {
        let offset = self.offset(patience).await?;
        let watch = self.backend.watch(prefix, Revision(from.0 - offset), patience).await?;
        Ok(HomeWatch { watch, offset, home: Arc::clone(self) })
    }

    /// Whether a generation has begun since revisions were raised by `offset`.
    fn has_moved_on(&self, before: i64) -> bool {
        let now = self.generation.load(Ordering::Acquire);
        now != 0 && offset(now) != before
    }
}

/// A watch with the generation in front of its revisions.
pub(crate) struct HomeWatch {
    watch: Watch,
    offset: i64,
    home: Arc<Home>,
}

impl HomeWatch {
    /// As [`Watch::next`]; [`StoreError::Gap`] too when a generation begins.
    pub async fn next(&mut self) -> Result<Batch, StoreError> {
        let mut batch = self.watch.next().await?;
        let begins = batch.events.iter().any(|event| match event {
            Event::Put(record) => record.key == self.home.key,
            Event::Delete { key, .. } => *key == self.home.key,
        });
        if begins || self.home.has_moved_on(self.offset) {
            return Err(StoreError::Gap("the cluster's generation is another one".to_owned()));
        }
        for event in &mut batch.events {
            match event {
                Event::Put(record) => raise(record, self.offset),
                Event::Delete { modified, .. } => *modified += self.offset,
            }
        }
        Ok(batch)
    }
}

/// The generation that a record tells; the first if it cannot be read.
pub(crate) fn generation(value: &str) -> u64 {
    value.trim().parse().ok().filter(|number| (1..1 << (63 - ROOM)).contains(number)).unwrap_or(1)
}

fn offset(generation: u64) -> i64 {
    i64::try_from((generation - 1) << ROOM).unwrap_or(i64::MAX)
}

fn raise(record: &mut Record, offset: i64) {
    record.created += offset;
    record.modified += offset;
}

/// A condition in this store's own revisions. One about another generation cannot hold.
fn lower(condition: &Condition, offset: i64) -> Condition {
    let own = |revision: i64| match revision {
        // That the key does not exist.
        0 => 0,
        given if given > offset && given - offset < 1 << ROOM => given - offset,
        _ => -1,
    };
    match condition {
        Condition::Created(key, at) => Condition::Created(key.clone(), own(*at)),
        Condition::Modified(key, at) => Condition::Modified(key.clone(), own(*at)),
        other => other.clone(),
    }
}

/// A read that was not answered changed nothing, and what follows it was never sent.
fn unsent(error: StoreError) -> StoreError {
    match error {
        StoreError::Unknown(why) => StoreError::Unreachable(why),
        other => other,
    }
}

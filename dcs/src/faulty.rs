//! A store that misbehaves on request, around a real one: for tests only.
//! Each fault is used once, in the order in which it was planted.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::Revision;
use crate::backend::Watch;
use crate::store::{Committed, Grant, Patience, Snapshot, Store, StoreError, Txn};

/// What shall go wrong with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The request is refused; it does not happen.
    Refuse,
    /// The request is lost; it does not happen, and the caller cannot know.
    LoseRequest,
    /// The request happens, its answer is lost.
    LoseReply,
    /// No store is reached; it does not happen, and the caller knows.
    Unreachable,
    /// The store's database is full.
    Full,
}

/// What shall go wrong with a watch when its next events arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WatchFault {
    /// The events are lost and the watch breaks.
    Cut,
    /// The events are lost, and the store cannot give them again.
    Gap,
    /// The events come twice.
    Repeat,
}

/// The requests that a fault can be planted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum On {
    /// Reading everything.
    Load,
    /// A transaction that writes.
    Write,
    /// A transaction that only reads, such as the proof of ownership.
    Prove,
    /// Renewing a lease.
    Keep,
    /// Opening a lease.
    Open,
}

/// Faults that wait for their turn. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Faults(Arc<Mutex<Planted>>);

#[derive(Debug, Default)]
struct Planted {
    requests: Vec<(On, Fault)>,
    watches: VecDeque<WatchFault>,
}

impl Faults {
    /// Plants a fault for the next request of its kind that has none yet.
    pub fn plant(&self, on: On, fault: Fault) {
        self.planted().requests.push((on, fault));
    }

    /// Plants a fault for the next events of any watch.
    pub fn plant_watch(&self, fault: WatchFault) {
        self.planted().watches.push_back(fault);
    }

    /// How many faults still wait: a test that planted one must see it used.
    #[must_use]
    pub fn waiting(&self) -> usize {
        let planted = self.planted();
        planted.requests.len() + planted.watches.len()
    }

    pub(crate) fn on_watch(&self) -> Option<WatchFault> {
        self.planted().watches.pop_front()
    }

    fn on(&self, on: On) -> Option<Fault> {
        let mut planted = self.planted();
        let first = planted.requests.iter().position(|(wanted, _)| *wanted == on)?;
        Some(planted.requests.remove(first).1)
    }

    fn planted(&self) -> MutexGuard<'_, Planted> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A store with faults.
pub(crate) struct Faulty<S> {
    pub store: S,
    pub faults: Faults,
}

impl<S: Store> Faulty<S> {
    async fn disturbed<T>(
        &self,
        on: On,
        request: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        match self.faults.on(on) {
            None => request.await,
            Some(Fault::Refuse) => Err(StoreError::Refused("a planted fault".to_owned())),
            Some(Fault::LoseRequest) => Err(StoreError::Unknown("a planted fault".to_owned())),
            Some(Fault::LoseReply) => {
                request.await?;
                Err(StoreError::Unknown("a planted fault".to_owned()))
            }
            Some(Fault::Unreachable) => Err(StoreError::Unreachable("a planted fault".to_owned())),
            Some(Fault::Full) => Err(StoreError::NoSpace),
        }
    }
}

impl<S: Store> Store for Faulty<S> {
    async fn load(&self, prefix: &str, patience: Patience) -> Result<Snapshot, StoreError> {
        self.disturbed(On::Load, self.store.load(prefix, patience)).await
    }

    async fn commit(&self, txn: &Txn, patience: Patience) -> Result<Committed, StoreError> {
        let on = if txn.then.is_empty() { On::Prove } else { On::Write };
        self.disturbed(on, self.store.commit(txn, patience)).await
    }

    async fn open_lease(&self, ttl: Duration, patience: Patience) -> Result<Grant, StoreError> {
        self.disturbed(On::Open, self.store.open_lease(ttl, patience)).await
    }

    async fn keep_lease(&self, lease: i64, patience: Patience) -> Result<(), StoreError> {
        self.disturbed(On::Keep, self.store.keep_lease(lease, patience)).await
    }

    async fn close_lease(&self, lease: i64, patience: Patience) -> Result<(), StoreError> {
        self.store.close_lease(lease, patience).await
    }

    async fn watch(&self, prefix: &str, from: Revision, patience: Patience) -> Result<Watch, StoreError> {
        Ok(self.store.watch(prefix, from, patience).await?.disturbed(self.faults.clone()))
    }
}

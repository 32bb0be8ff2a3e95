//! A store in memory, for tests and simulations: the whole contract of `store`,
//! with the clock's own time for leases, shared by all who clone it.
//! Nothing of it survives the process.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use crate::backend::Watch;
use crate::store::{
    Batch, Committed, Condition, Event, Grant, Patience, Record, Snapshot, Store, StoreError, Txn, Write,
};
use crate::{Moment, Revision};

/// A store in memory. Clones share their content.
#[derive(Clone)]
pub struct Memory {
    world: Arc<Mutex<World>>,
    changed: watch::Sender<()>,
}

/// A promise that a store in memory breaks on purpose, so that tests of promises can be tested.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flaw {
    /// Every key counts as absent.
    IgnoresAbsence,
    /// Every create and mod revision counts as the expected one.
    IgnoresRevisions,
    /// Every value counts as the expected one.
    IgnoresValues,
    /// Leases never end by themselves.
    KeepsExpired,
    /// Renewing a lease of which nothing is known succeeds.
    RenewsAnything,
    /// Watches hear of nothing.
    LosesEvents,
}

struct World {
    flaw: Option<Flaw>,
    revision: i64,
    records: BTreeMap<String, Record>,
    leases: BTreeMap<i64, Lease>,
    last_lease: i64,
    log: Vec<(i64, Event)>,
    /// Events up to this revision are forgotten.
    compacted: i64,
    /// Watches opened before this count are cancelled.
    cuts: u64,
}

struct Lease {
    ttl: Duration,
    ends: Moment,
}

impl Default for Memory {
    fn default() -> Self {
        Self::new()
    }
}

impl Memory {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        let world = World {
            flaw: None,
            revision: 1,
            records: BTreeMap::new(),
            leases: BTreeMap::new(),
            last_lease: 0,
            log: Vec::new(),
            compacted: 0,
            cuts: 0,
        };
        Self { world: Arc::new(Mutex::new(world)), changed: watch::Sender::new(()) }
    }

    /// An empty store that breaks a promise.
    #[must_use]
    pub fn with_flaw(flaw: Flaw) -> Self {
        let memory = Self::new();
        memory.world().flaw = Some(flaw);
        memory
    }

    /// Writes a key as an operator would, without conditions or lease.
    pub fn put(&self, key: &str, value: &str) {
        self.write(&[Write::Put { key: key.to_owned(), value: value.to_owned(), lease: 0 }]);
    }

    /// Removes a key as an operator would.
    pub fn delete(&self, key: &str) {
        self.write(&[Write::Delete(key.to_owned())]);
    }

    /// Ends a lease as an operator would.
    pub fn revoke(&self, lease: i64) {
        let mut world = self.world();
        world.end_lease(lease);
        self.changed.send_replace(());
    }

    /// Forgets all events so far: watches that have not seen them get a gap.
    pub fn compact(&self) {
        let mut world = self.world();
        world.compacted = world.revision;
        world.log.clear();
    }

    /// Cancels every open watch.
    pub fn cut_watches(&self) {
        self.world().cuts += 1;
        self.changed.send_replace(());
    }

    fn write(&self, writes: &[Write]) {
        self.world().write(writes);
        self.changed.send_replace(());
    }

    /// The world as it is now, expired leases gone.
    fn world(&self) -> MutexGuard<'_, World> {
        let mut world = self.world.lock().unwrap_or_else(PoisonError::into_inner);
        if world.flaw == Some(Flaw::KeepsExpired) {
            return world;
        }
        let now = Moment::now();
        let ended: Vec<i64> =
            world.leases.iter().filter(|(_, lease)| lease.ends <= now).map(|(id, _)| *id).collect();
        for lease in &ended {
            world.end_lease(*lease);
        }
        if !ended.is_empty() {
            self.changed.send_replace(());
        }
        world
    }
}

impl World {
    fn end_lease(&mut self, lease: i64) {
        if self.leases.remove(&lease).is_none() {
            return;
        }
        let keys = self.records.values().filter(|record| record.lease == lease);
        let writes: Vec<Write> = keys.map(|record| Write::Delete(record.key.clone())).collect();
        self.write(&writes);
    }

    fn holds(&self, condition: &Condition) -> bool {
        let record = |key: &String| self.records.get(key);
        match condition {
            Condition::Absent(_) if self.flaw == Some(Flaw::IgnoresAbsence) => true,
            Condition::Created(..) | Condition::Modified(..) if self.flaw == Some(Flaw::IgnoresRevisions) => {
                true
            }
            Condition::Value(..) if self.flaw == Some(Flaw::IgnoresValues) => true,
            Condition::Absent(key) => record(key).is_none(),
            Condition::Created(key, at) => record(key).map_or(0, |found| found.created) == *at,
            Condition::Modified(key, at) => record(key).map_or(0, |found| found.modified) == *at,
            Condition::Value(key, value) => record(key).is_some_and(|found| found.value == *value),
            Condition::Lease(key, lease) => record(key).is_some_and(|found| found.lease == *lease),
        }
    }

    /// All writes share one revision; writes that change nothing need none.
    fn write(&mut self, writes: &[Write]) {
        let at = self.revision + 1;
        for write in writes {
            match write {
                Write::Put { key, value, lease } => {
                    let created = self.records.get(key).map_or(at, |found| found.created);
                    let record = Record {
                        key: key.clone(),
                        value: value.clone(),
                        created,
                        modified: at,
                        lease: *lease,
                    };
                    self.records.insert(key.clone(), record.clone());
                    self.happened(at, Event::Put(record));
                }
                Write::Delete(key) => self.delete(at, key),
                Write::DeleteAll(prefix) => {
                    let keys: Vec<String> =
                        self.records.keys().filter(|key| key.starts_with(prefix)).cloned().collect();
                    for key in keys {
                        self.delete(at, &key);
                    }
                }
            }
        }
    }

    fn delete(&mut self, at: i64, key: &str) {
        if self.records.remove(key).is_some() {
            self.happened(at, Event::Delete { key: key.to_owned(), modified: at });
        }
    }

    fn happened(&mut self, at: i64, event: Event) {
        self.revision = at;
        if self.flaw != Some(Flaw::LosesEvents) {
            self.log.push((at, event));
        }
    }
}

impl Store for Memory {
    async fn load(&self, prefix: &str, _: Patience) -> Result<Snapshot, StoreError> {
        let world = self.world();
        let records = world.records.values().filter(|record| record.key.starts_with(prefix));
        Ok(Snapshot { records: records.cloned().collect(), revision: Revision(world.revision) })
    }

    async fn commit(&self, txn: &Txn, _: Patience) -> Result<Committed, StoreError> {
        let mut world = self.world();
        let held = txn.when.iter().all(|condition| world.holds(condition));
        if held {
            let lost = |write: &Write| match write {
                Write::Put { lease, .. } => *lease != 0 && !world.leases.contains_key(lease),
                Write::Delete(_) | Write::DeleteAll(_) => false,
            };
            if txn.then.iter().any(lost) {
                return Err(StoreError::LeaseGone);
            }
            world.write(&txn.then);
            self.changed.send_replace(());
        }
        let record = txn.read.as_ref().and_then(|key| world.records.get(key).cloned());
        Ok(Committed { held, revision: Revision(world.revision), record })
    }

    async fn open_lease(&self, ttl: Duration, _: Patience) -> Result<Grant, StoreError> {
        let mut world = self.world();
        world.last_lease += 1;
        let lease = world.last_lease;
        world.leases.insert(lease, Lease { ttl, ends: Moment::now() + ttl });
        self.changed.send_replace(());
        Ok(Grant { lease, ttl })
    }

    async fn keep_lease(&self, lease: i64, _: Patience) -> Result<(), StoreError> {
        let mut world = self.world();
        if world.flaw == Some(Flaw::RenewsAnything) && !world.leases.contains_key(&lease) {
            return Ok(());
        }
        let kept = world.leases.get_mut(&lease).ok_or(StoreError::LeaseGone)?;
        kept.ends = Moment::now() + kept.ttl;
        Ok(())
    }

    async fn close_lease(&self, lease: i64, _: Patience) -> Result<(), StoreError> {
        self.revoke(lease);
        Ok(())
    }

    async fn watch(&self, prefix: &str, from: Revision, _: Patience) -> Result<Watch, StoreError> {
        let changed = self.changed.subscribe();
        let cuts = self.world().cuts;
        let watch =
            MemoryWatch { memory: self.clone(), prefix: prefix.to_owned(), from: from.0, changed, cuts };
        Ok(watch.into())
    }
}

/// A watch on a [`Memory`].
pub(crate) struct MemoryWatch {
    memory: Memory,
    prefix: String,
    /// The first revision not yet delivered.
    from: i64,
    changed: watch::Receiver<()>,
    cuts: u64,
}

impl MemoryWatch {
    pub async fn next(&mut self) -> Result<Batch, StoreError> {
        loop {
            self.changed.mark_unchanged();
            let wait = match self.ready()? {
                Ok(batch) => return Ok(batch),
                Err(wait) => wait,
            };
            // The next lease may end while nobody else looks.
            let _ = tokio::time::timeout(wait, self.changed.changed()).await;
        }
    }

    /// What happened since the last call, or how long at most to wait for something.
    fn ready(&mut self) -> Result<Result<Batch, Duration>, StoreError> {
        let world = self.memory.world();
        if world.cuts != self.cuts {
            return Err(StoreError::Unreachable("the watch was cancelled".to_owned()));
        }
        if self.from <= world.compacted && self.from <= world.revision {
            return Err(StoreError::Gap(format!("revision {} is compacted", self.from)));
        }
        let ours = |event: &Event| match event {
            Event::Put(record) => record.key.starts_with(&self.prefix),
            Event::Delete { key, .. } => key.starts_with(&self.prefix),
        };
        let new = world.log.iter().filter(|(at, event)| *at >= self.from && ours(event));
        let events: Vec<Event> = new.map(|(_, event)| event.clone()).collect();
        if events.is_empty() {
            let now = Moment::now();
            let ends = world.leases.values().map(|lease| now.until(lease.ends)).min();
            return Ok(Err(ends.unwrap_or(Duration::from_secs(3600))));
        }
        self.from = world.revision + 1;
        Ok(Ok(Batch { events }))
    }
}

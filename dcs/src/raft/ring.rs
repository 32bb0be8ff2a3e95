//! The last events of the store, for whoever watches it. It forgets the oldest, and says so.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use crate::store::{Batch, Event, StoreError};

/// How many events are kept.
const KEPT: usize = 4096;

/// A member that hears no leader for this long tells its watchers that the store is lost.
pub(super) const LOST: Duration = Duration::from_secs(2);

#[derive(Debug, Default)]
struct Events {
    kept: VecDeque<(i64, Event)>,
    /// Events up to this revision are forgotten.
    forgotten: i64,
    revision: i64,
}

/// The events of one member. Clones share them.
#[derive(Debug, Clone)]
pub(super) struct Ring {
    events: Arc<Mutex<Events>>,
    changed: Arc<watch::Sender<Presence>>,
}

/// Whether the store is there, as this member knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Presence {
    #[default]
    There,
    /// No leader is heard of.
    Lost,
    /// The member has ended.
    Ended,
}

impl Ring {
    pub fn new() -> Self {
        Self { events: Arc::default(), changed: Arc::new(watch::Sender::new(Presence::Lost)) }
    }

    fn events(&self) -> MutexGuard<'_, Events> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nothing is known of what happened up to this revision.
    pub fn restart(&self, revision: i64) {
        *self.events() = Events { kept: VecDeque::new(), forgotten: revision, revision };
        self.changed.send_modify(|_| {});
    }

    /// The events of one applied command, which took the store to a revision.
    pub fn push(&self, revision: i64, new: Vec<Event>) {
        if new.is_empty() {
            return;
        }
        let mut events = self.events();
        events.revision = revision;
        events.kept.extend(new.into_iter().map(|event| (revision, event)));
        while events.kept.len() > KEPT {
            if let Some((gone, _)) = events.kept.pop_front() {
                events.forgotten = events.forgotten.max(gone);
            }
        }
        drop(events);
        self.changed.send_modify(|_| {});
    }

    /// Tells whether the store is there.
    pub fn set_presence(&self, presence: Presence) {
        self.changed
            .send_if_modified(|old| *old != Presence::Ended && std::mem::replace(old, presence) != presence);
    }

    /// Forgets everything so far.
    pub fn forget(&self) {
        let mut events = self.events();
        events.kept.clear();
        events.forgotten = events.revision;
    }

    /// Watches what happens below a prefix from a revision on, if the store is there.
    pub fn watch(&self, prefix: &str, from: i64) -> Result<Watching, StoreError> {
        self.changed.borrow().check()?;
        Ok(Watching {
            ring: self.clone(),
            prefix: prefix.to_owned(),
            from,
            changed: self.changed.subscribe(),
        })
    }
}

impl Presence {
    fn check(self) -> Result<(), StoreError> {
        match self {
            Self::There => Ok(()),
            Self::Lost => Err(StoreError::Unreachable("the embedded store has no leader".to_owned())),
            Self::Ended => Err(StoreError::Unreachable("this member has ended".to_owned())),
        }
    }
}

/// Somebody who watches what happens below a prefix.
pub(crate) struct Watching {
    ring: Ring,
    prefix: String,
    /// The first revision not yet delivered.
    from: i64,
    changed: watch::Receiver<Presence>,
}

impl Watching {
    /// Waits for the next events. May be dropped at any time without losing any.
    pub async fn next(&mut self) -> Result<Batch, StoreError> {
        loop {
            let presence = *self.changed.borrow_and_update();
            if let Some(batch) = self.ready()? {
                return Ok(batch);
            }
            presence.check()?;
            if self.changed.changed().await.is_err() {
                return Err(StoreError::Unreachable("this member has ended".to_owned()));
            }
        }
    }

    fn ready(&mut self) -> Result<Option<Batch>, StoreError> {
        let events = self.ring.events();
        if self.from <= events.forgotten && self.from <= events.revision {
            return Err(StoreError::Gap(format!("revision {} is forgotten", self.from)));
        }
        let ours = |event: &Event| match event {
            Event::Put(record) => record.key.starts_with(&self.prefix),
            Event::Delete { key, .. } => key.starts_with(&self.prefix),
        };
        let new = events.kept.iter().filter(|(at, event)| *at >= self.from && ours(event));
        let new: Vec<Event> = new.map(|(_, event)| event.clone()).collect();
        if new.is_empty() {
            return Ok(None);
        }
        self.from = events.revision + 1;
        Ok(Some(Batch { events: new }))
    }
}

//! The one contract that every backend keeps: load at one revision, commit a
//! transaction, hold a lease, watch for changes. A backend knows keys and text;
//! what they mean is written once, above it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::Revision;
use crate::backend::Watch;

/// Why the store did not do what was asked. The difference that matters:
/// [`StoreError::Unknown`] may have happened, everything else did not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum StoreError {
    /// The store looked at the request and said no. It did not happen.
    #[error("the store refused it: {0}")]
    Refused(String),
    /// The request was sent and no answer came. It may have happened.
    #[error("the store did not answer, so it may or may not have happened: {0}")]
    Unknown(String),
    /// No store could be reached in time. It did not happen.
    #[error("the store cannot be reached: {0}")]
    Unreachable(String),
    /// The store does not accept our credentials. It did not happen.
    #[error("the store does not accept our user or certificate: {0}; check user, password and certificates")]
    Auth(String),
    /// The store's database is full. It did not happen; leases still renew, but nobody can take over (F85).
    #[error(
        "the store's database is full, so no failover is possible: compact and defragment it, then disarm its alarm"
    )]
    NoSpace,
    /// The lease has expired or was revoked.
    #[error("our lease is gone from the store")]
    LeaseGone,
    /// What answers is another cluster of etcd than the one we knew (F73).
    #[error(
        "this is another store than before: its cluster id was {was:x} and is {now:x}; if it was replaced on purpose, restart matriarch on every node"
    )]
    Replaced {
        /// The id that we knew.
        was: u64,
        /// The id that answered.
        now: u64,
    },
    /// The store went back in time, or an answer was stale (F74, F80).
    #[error(
        "the store went back from revision {seen} to {now}; if it was restored from a backup on purpose, restart matriarch on every node"
    )]
    Regressed {
        /// The highest revision that we had seen when we asked.
        seen: i64,
        /// The revision that answered.
        now: i64,
    },
    /// A change may have been missed: read everything again.
    #[error("changes may have been missed: {0}")]
    Gap(String),
    /// What we were told about the store cannot be used.
    #[error("the store's settings cannot be used: {0}")]
    Settings(String),
}

/// One key and its text at one revision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub key: String,
    pub value: String,
    /// Create revision.
    pub created: i64,
    /// Mod revision.
    pub modified: i64,
    /// 0 if none.
    pub lease: i64,
}

/// Everything below a prefix at one revision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Snapshot {
    pub records: Vec<Record>,
    pub revision: Revision,
}

/// What must hold for a transaction's writes to happen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Condition {
    /// The key does not exist.
    Absent(String),
    /// The key has this create revision.
    Created(String, i64),
    /// The key has this mod revision; 0: it does not exist.
    Modified(String, i64),
    /// The key has this text.
    Value(String, String),
    /// The key lives under this lease.
    Lease(String, i64),
}

/// One write of a transaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Write {
    /// Sets a key; a lease of 0 is none.
    Put { key: String, value: String, lease: i64 },
    /// Removes a key; nothing happens if it does not exist.
    Delete(String),
    /// Removes everything below a prefix.
    DeleteAll(String),
}

/// Conditions, and writes that happen together if all of them hold.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Txn {
    pub when: Vec<Condition>,
    pub then: Vec<Write>,
    /// A key to read linearizably, after the writes, whether or not the conditions held.
    pub read: Option<String>,
}

/// A transaction's outcome.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Committed {
    /// Whether the conditions held and the writes happened.
    pub held: bool,
    pub revision: Revision,
    /// The key of [`Txn::read`], if it exists.
    pub record: Option<Record>,
}

/// A lease as granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Grant {
    pub lease: i64,
    pub ttl: Duration,
}

/// How long an operation may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Patience {
    /// In all.
    pub total: Duration,
    /// One attempt at one server; `None`: half of what is left, at most [`Patience::ATTEMPT`].
    pub each: Option<Duration>,
}

impl Patience {
    /// Longest single attempt of an operation that may be repeated elsewhere.
    pub const ATTEMPT: Duration = Duration::from_millis(1500);

    /// Several attempts within `total`.
    pub fn within(total: Duration) -> Self {
        Self { total, each: None }
    }

    /// One attempt that may use all of `total`.
    pub fn once(total: Duration) -> Self {
        Self { total, each: Some(total) }
    }
}

/// Something that happened to one key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Event {
    Put(Record),
    Delete { key: String, modified: i64 },
}

/// Events in the order of their revisions; none: the store only said that it is there.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Batch {
    pub events: Vec<Event>,
}

/// What a store can do.
pub(crate) trait Store {
    /// Reads everything below `prefix`, linearizably, at one revision.
    async fn load(&self, prefix: &str, patience: Patience) -> Result<Snapshot, StoreError>;

    /// Runs a transaction. [`StoreError::Unknown`] if its writes may have happened.
    async fn commit(&self, txn: &Txn, patience: Patience) -> Result<Committed, StoreError>;

    /// Opens a lease of at least `ttl`.
    async fn open_lease(&self, ttl: Duration, patience: Patience) -> Result<Grant, StoreError>;

    /// Starts the lease's time again. [`StoreError::LeaseGone`] if there is none.
    async fn keep_lease(&self, lease: i64, patience: Patience) -> Result<(), StoreError>;

    /// Ends the lease; every key under it vanishes.
    async fn close_lease(&self, lease: i64, patience: Patience) -> Result<(), StoreError>;

    /// Watches everything below `prefix` from revision `from` on, inclusive.
    async fn watch(&self, prefix: &str, from: Revision, patience: Patience) -> Result<Watch, StoreError>;
}

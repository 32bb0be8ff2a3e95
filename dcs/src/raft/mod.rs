//! The embedded store: a replicated store of records, leases and watches that the members keep
//! themselves, on the `raft` crate. Of clusters and Postgres it knows nothing.
//!
//! [`Embedded::start`] makes this process a member; [`Dcs::embedded`](crate::Dcs::embedded) is the way to the
//! store through it, [`Dcs::connect`](crate::Dcs::connect) the way of whoever is no member, over the same port
//! with the same password and certificates. If [`Embedded::ended`] resolves, the process must end.

mod bare;
mod client;
mod command;
mod disk;
mod drive;
mod embedded;
mod found;
mod frame;
mod lease;
mod link;
mod log;
mod logger;
mod machine;
mod members;
mod peer;
mod pending;
mod presence;
mod ready;
mod record;
mod request;
mod ring;
mod server;
mod stored;
mod watch;
mod wire;

#[cfg(test)]
mod damage;
#[cfg(test)]
mod fuzz;

use std::time::Duration;

use ::ring::rand::{SecureRandom, SystemRandom};
use config::RaftConfig;

pub use self::bare::{BareKey, BareStore};
pub use self::embedded::{Embedded, StoreMember};
pub(crate) use self::watch::RaftWatch;

use self::client::Remote;
use self::command::What;
use self::request::{Reply, Request};
use crate::Revision;
use crate::backend::Watch;
use crate::store::{Committed, Grant, Patience, Snapshot, Store, StoreError, Txn};

/// How wrong the clock may run that counts a lease of the embedded store: its crystal only, as nobody
/// slews it; in parts per million (see `authority`).
pub const RAFT_CLOCK: u64 = 200;

/// The shortest lease; a shorter one would end with the next election.
const SHORTEST: Duration = Duration::from_secs(1);

/// The embedded store, through a member in this process or over the network.
pub(crate) enum Raft {
    Local(Embedded),
    Remote(Box<Remote>),
}

/// A random number that is not 0.
pub(crate) fn random() -> Option<u64> {
    let mut bytes = [0; 8];
    SystemRandom::new().fill(&mut bytes).ok()?;
    Some(u64::from_be_bytes(bytes).max(1))
}

impl Raft {
    pub fn local(member: &Embedded) -> Self {
        Self::Local(member.clone())
    }

    pub fn remote(config: &RaftConfig) -> Result<Self, StoreError> {
        Ok(Self::Remote(Box::new(Remote::new(config)?)))
    }

    async fn ask(&self, request: Request, patience: Patience) -> Result<Reply, StoreError> {
        let changes_nothing = request.is_repeatable();
        let done = match self {
            Self::Local(member) => member.ask(request, patience.total).await,
            Self::Remote(remote) => Box::pin(remote.ask(&request, patience)).await,
        };
        // Whether it was done is a question only where something may have been.
        done.map_err(|error| match error {
            StoreError::Unknown(why) if changes_nothing => StoreError::Unreachable(why),
            other => other,
        })
    }

    async fn run(&self, what: What, patience: Patience) -> Result<(), StoreError> {
        match self.ask(Request::Run(what), patience).await? {
            Reply::Done => Ok(()),
            _ => Err(odd()),
        }
    }

    pub async fn members(&self, patience: Patience) -> Result<Vec<StoreMember>, StoreError> {
        match self.ask(Request::Members, patience).await? {
            Reply::Members(members) => Ok(members),
            _ => Err(odd()),
        }
    }

    pub async fn admit(&self, address: &str, patience: Patience) -> Result<(), StoreError> {
        self.run(What::Admit { address: address.to_owned() }, patience).await
    }

    pub async fn expel(&self, member: &str, force: bool, patience: Patience) -> Result<(), StoreError> {
        self.run(What::Expel { member: member.to_owned(), force }, patience).await
    }
}

impl Store for Raft {
    async fn load(&self, prefix: &str, patience: Patience) -> Result<Snapshot, StoreError> {
        match self.ask(Request::Load { prefix: prefix.to_owned() }, patience).await? {
            Reply::Loaded(snapshot) => Ok(snapshot),
            _ => Err(odd()),
        }
    }

    async fn commit(&self, txn: &Txn, patience: Patience) -> Result<Committed, StoreError> {
        let request = match txn.then.is_empty() {
            true => Request::Look(txn.clone()),
            false => Request::Run(What::Commit(txn.clone())),
        };
        match self.ask(request, patience).await? {
            Reply::Committed(done) => Ok(done),
            _ => Err(odd()),
        }
    }

    async fn open_lease(&self, ttl: Duration, patience: Patience) -> Result<Grant, StoreError> {
        let ttl = ttl.max(SHORTEST);
        let number =
            random().ok_or_else(|| StoreError::Refused("the system gives no random numbers".to_owned()))?;
        // Numbers are drawn, not counted, so that no lease of one store is taken for one of another.
        let lease = i64::try_from(number >> 1).unwrap_or(i64::MAX).max(1);
        let millis = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
        self.run(What::Grant { lease, ttl: millis }, patience).await.map_err(|error| match error {
            // A lease that we never heard of ends by itself.
            StoreError::Unknown(why) => StoreError::Unreachable(why),
            other => other,
        })?;
        Ok(Grant { lease, ttl })
    }

    async fn keep_lease(&self, lease: i64, patience: Patience) -> Result<(), StoreError> {
        self.run(What::Touch { lease }, patience).await
    }

    async fn close_lease(&self, lease: i64, patience: Patience) -> Result<(), StoreError> {
        self.run(What::Revoke { lease, generation: None }, patience).await
    }

    async fn watch(&self, prefix: &str, from: Revision, patience: Patience) -> Result<Watch, StoreError> {
        Ok(match self {
            Self::Local(member) => member.watch(prefix, from.0)?,
            Self::Remote(remote) => {
                RaftWatch::Remote(Box::pin(remote.watch(prefix, from.0, patience)).await?)
            }
        }
        .into())
    }
}

fn odd() -> StoreError {
    StoreError::Unknown("the member of the embedded store answered something else".to_owned())
}

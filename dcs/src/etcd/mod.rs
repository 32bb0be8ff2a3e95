//! The store on etcd, v3 API. It knows keys, text, leases and revisions;
//! of clusters and Postgres it knows nothing.
//!
//! etcd-client neither retries nor changes servers, so that is done here: one
//! client per server, one server at a time, the next one on failure (`pool`).

mod access;
mod attempts;
mod channel;
mod gather;
mod keep;
mod outcome;
mod pool;
mod srv;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use config::EtcdConfig;
use etcd_client::{
    Compare, CompareOp, DeleteOptions, GetOptions, KeyValue, PutOptions, TxnOp, TxnOpResponse,
};

use self::keep::Keeping;
use self::pool::{Answer, Pool};
use crate::Revision;
use crate::backend::Watch;
use crate::store::{Committed, Condition, Grant, Patience, Record, Snapshot, Store, StoreError, Txn, Write};

pub(crate) use self::watch::EtcdWatch;

/// The store on etcd.
pub(crate) struct Etcd {
    pool: Arc<Pool>,
    keeping: Keeping,
}

impl Etcd {
    pub async fn new(config: &EtcdConfig) -> Result<Self, StoreError> {
        let pool = Arc::new(Pool::new(config)?);
        Ok(Self { keeping: Keeping::default(), pool })
    }
}

impl Store for Etcd {
    async fn load(&self, prefix: &str, patience: Patience) -> Result<Snapshot, StoreError> {
        let call = |mut client: etcd_client::Client| async move {
            let mut got = client.get(prefix, Some(GetOptions::new().with_prefix())).await?;
            let records = got.take_kvs().iter().map(record).collect();
            Ok(Answer::new(got.header(), records))
        };
        let answer = self.pool.call(patience, true, call).await?;
        Ok(Snapshot { revision: Revision(answer.revision()), records: answer.value })
    }

    async fn commit(&self, txn: &Txn, patience: Patience) -> Result<Committed, StoreError> {
        let request = request(txn);
        let call = |mut client: etcd_client::Client| {
            let request = request.clone();
            async move {
                let got = client.txn(request).await?;
                let read = got.op_responses().into_iter().find_map(|response| match response {
                    TxnOpResponse::Get(get) => get.kvs().first().map(record),
                    _ => None,
                });
                Ok(Answer::new(got.header(), (got.succeeded(), read)))
            }
        };
        let answer = self.pool.call(patience, txn.then.is_empty(), call).await?;
        let revision = Revision(answer.revision());
        let (held, record) = answer.value;
        Ok(Committed { held, revision, record })
    }

    async fn open_lease(&self, ttl: Duration, patience: Patience) -> Result<Grant, StoreError> {
        let seconds = i64::try_from(ttl.as_millis().div_ceil(1000)).unwrap_or(i64::MAX);
        let call = |mut client: etcd_client::Client| async move {
            let got = client.lease_grant(seconds, None).await?;
            Ok(Answer::new(got.header(), (got.id(), got.ttl())))
        };
        // A lease whose answer was lost has no keys and ends by itself: asking again does no harm.
        let (lease, ttl) = self.pool.call(patience, true, call).await?.value;
        Ok(Grant { lease, ttl: Duration::from_secs(u64::try_from(ttl).unwrap_or(0)) })
    }

    async fn keep_lease(&self, lease: i64, patience: Patience) -> Result<(), StoreError> {
        self.keeping.keep(&self.pool, lease, patience).await
    }

    async fn close_lease(&self, lease: i64, patience: Patience) -> Result<(), StoreError> {
        let call = |mut client: etcd_client::Client| async move {
            let got = client.lease_revoke(lease).await?;
            Ok(Answer::new(got.header(), ()))
        };
        match self.pool.call(patience, true, call).await {
            Ok(_) | Err(StoreError::LeaseGone) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn watch(&self, prefix: &str, from: Revision, patience: Patience) -> Result<Watch, StoreError> {
        Ok(EtcdWatch::open(&self.pool, prefix, from, patience).await?.into())
    }
}

fn record(found: &KeyValue) -> Record {
    Record {
        key: String::from_utf8_lossy(found.key()).into_owned(),
        value: String::from_utf8_lossy(found.value()).into_owned(),
        created: found.create_revision(),
        modified: found.mod_revision(),
        lease: found.lease(),
    }
}

fn request(txn: &Txn) -> etcd_client::Txn {
    let when: Vec<Compare> = txn.when.iter().map(compare).collect();
    let read = txn.read.iter().map(|key| TxnOp::get(key.as_str(), None));
    let then: Vec<TxnOp> = txn.then.iter().map(operation).chain(read.clone()).collect();
    let otherwise: Vec<TxnOp> = read.collect();
    etcd_client::Txn::new().when(when).and_then(then).or_else(otherwise)
}

fn compare(condition: &Condition) -> Compare {
    match condition {
        Condition::Absent(key) => Compare::create_revision(key.as_str(), CompareOp::Equal, 0),
        Condition::Created(key, at) => Compare::create_revision(key.as_str(), CompareOp::Equal, *at),
        Condition::Modified(key, at) => Compare::mod_revision(key.as_str(), CompareOp::Equal, *at),
        Condition::Value(key, value) => Compare::value(key.as_str(), CompareOp::Equal, value.as_str()),
        Condition::Lease(key, lease) => Compare::lease(key.as_str(), CompareOp::Equal, *lease),
    }
}

fn operation(write: &Write) -> TxnOp {
    match write {
        Write::Put { key, value, lease } => {
            TxnOp::put(key.as_str(), value.as_str(), Some(PutOptions::new().with_lease(*lease)))
        }
        Write::Delete(key) => TxnOp::delete(key.as_str(), None),
        Write::DeleteAll(prefix) => TxnOp::delete(prefix.as_str(), Some(DeleteOptions::new().with_prefix())),
    }
}

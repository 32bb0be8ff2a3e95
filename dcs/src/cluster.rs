//! The verbs on a cluster's records. Each documents its guard: the condition
//! under which the store performs it (patroni-compat 1.2). What a record means
//! for this node is not known here.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use config::NodeName;
use serde_json::Value;
use tokio::sync::watch;

use crate::backend::Backend;
use crate::home::Home;
use crate::keys::{Keys, Place};
use crate::lease::Session;
use crate::retry::Pauses;
use crate::store::{Committed, Condition, Patience, StoreError, Txn, Write};
use crate::view::{
    ClusterView, Epoch, Failover, HistoryRow, Initialize, Member, Revision, Status, SyncState,
};
use crate::{Lsn, Moment, Seen, SystemId, text};

/// One cluster's records in one store. Clones share the connection.
#[derive(Clone)]
pub struct Dcs(Arc<Inner>);

struct Inner {
    home: RwLock<Arc<Home>>,
    /// How often the cluster was found in another store.
    moves: watch::Sender<u64>,
    keys: Keys,
    /// Milliseconds.
    patience: AtomicU64,
    seen: watch::Sender<Seen>,
}

impl Dcs {
    pub(crate) fn over(backend: Backend, keys: Keys, patience: Duration) -> Self {
        let seen = watch::Sender::new(Seen::default());
        let home = Arc::new(Home::new(backend, keys.path(&Place::Generation), keys.prefix()));
        let (home, moves) = (RwLock::new(home), watch::Sender::new(0));
        let dcs = Self(Arc::new(Inner { home, moves, keys, patience: AtomicU64::new(0), seen }));
        dcs.set_patience(patience);
        dcs
    }

    /// Changes the bound on every verb but renewals (`retry_timeout`).
    pub fn set_patience(&self, patience: Duration) {
        self.0.patience.store(u64::try_from(patience.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// From now on the records are those in the store of `to`: for all clones, and for whoever follows.
    /// A request under way ends in the store that it began in.
    pub fn relocate(&self, to: &Dcs) {
        let home = to.home();
        *self.0.home.write().unwrap_or_else(PoisonError::into_inner) = home;
        self.0.moves.send_modify(|moves| *moves += 1);
    }

    /// Tells of each [`Dcs::relocate`].
    pub(crate) fn moves(&self) -> watch::Receiver<u64> {
        self.0.moves.subscribe()
    }

    /// Where this cluster's records live.
    #[must_use]
    pub fn keys(&self) -> &Keys {
        &self.0.keys
    }

    /// Reads everything, linearizably, at one revision.
    ///
    /// # Errors
    /// Never [`StoreError::Unknown`].
    pub async fn load(&self) -> Result<ClusterView, StoreError> {
        let sent = Moment::now();
        let snapshot = self.home().load(&self.0.keys.prefix(), self.patience()).await?;
        self.touch(sent);
        Ok(text::view(&self.0.keys, &snapshot.records, snapshot.revision))
    }

    /// Claims the right to bootstrap: writes the empty `initialize` key. Guard: the key does not exist.
    ///
    /// Beside it, in the same transaction, goes `matriarch/bootstrap` with our name, so that a
    /// claim whose answer was lost is recognised as ours rather than blocking everybody
    /// (Patroni #527), and so that a node that died while bootstrapping may go on when it is back.
    ///
    /// # Errors
    /// [`StoreError::Unknown`] if no attempt was answered in time; asking again is safe.
    pub async fn claim_initialize(&self, me: &NodeName) -> Result<bool, StoreError> {
        let (initialize, claim) = (self.path(&Place::Initialize), self.path(&Place::Bootstrap));
        let txn = Txn {
            when: vec![Condition::Absent(initialize.clone())],
            then: vec![put(initialize.clone(), String::new()), put(claim.clone(), me.to_string())],
            read: None,
        };
        if self.commit_surely(&txn).await?.held {
            return Ok(true);
        }
        let ours = Txn {
            when: vec![
                Condition::Value(initialize, String::new()),
                Condition::Value(claim.clone(), me.to_string()),
            ],
            then: Vec::new(),
            read: Some(claim),
        };
        Ok(self.commit(&ours).await?.held)
    }

    /// Writes the system identifier. Guard: the key is absent, empty or damaged, or already
    /// says the same; `false` if another identifier stands there, which is never overwritten.
    ///
    /// # Errors
    /// [`StoreError::Unknown`] if the outcome is not known; asking again is safe.
    pub async fn write_initialize(&self, id: SystemId) -> Result<bool, StoreError> {
        let key = self.path(&Place::Initialize);
        loop {
            let read = Txn { read: Some(key.clone()), ..Txn::default() };
            let found = self.commit(&read).await?.record;
            match found.as_ref().map_or(Initialize::Absent, |record| text::initialize(&record.value)) {
                Initialize::Done(other) => return Ok(other == id),
                Initialize::Absent | Initialize::Running | Initialize::Invalid => {}
            }
            let txn = Txn {
                when: vec![Condition::Modified(key.clone(), found.map_or(0, |record| record.modified))],
                then: vec![put(key.clone(), id.to_string()), Write::Delete(self.path(&Place::Bootstrap))],
                read: None,
            };
            if self.commit(&txn).await?.held {
                return Ok(true);
            }
        }
    }

    /// Gives up our claim after a failed bootstrap. Guard: `initialize` is still empty and the claim is ours.
    ///
    /// # Errors
    /// [`StoreError::Unknown`] if the outcome is not known; asking again is safe.
    pub async fn delete_initialize(&self, me: &NodeName) -> Result<bool, StoreError> {
        let (initialize, claim) = (self.path(&Place::Initialize), self.path(&Place::Bootstrap));
        let txn = Txn {
            when: vec![
                Condition::Value(initialize.clone(), String::new()),
                Condition::Value(claim.clone(), me.to_string()),
            ],
            then: vec![Write::Delete(initialize), Write::Delete(claim)],
            read: None,
        };
        Ok(self.commit(&txn).await?.held)
    }

    /// Writes the dynamic configuration. Guard: it still has mod revision `guard`; with `None`, it does not exist.
    ///
    /// # Errors
    /// [`StoreError::Unknown`] if the outcome is not known: read again before trying again.
    pub async fn write_config(&self, value: &Value, guard: Option<Revision>) -> Result<bool, StoreError> {
        let guard = guard.unwrap_or(Revision(0));
        Ok(self.guarded_put(&Place::Config, value.to_string(), guard).await?.is_some())
    }

    /// Writes the dynamic configuration without a guard (REST `PUT /config`).
    ///
    /// # Errors
    /// [`StoreError::Unknown`] if the outcome is not known.
    pub async fn put_config(&self, value: &Value) -> Result<(), StoreError> {
        self.plain_put(&Place::Config, value.to_string(), 0).await
    }

    /// Publishes our member record under the session's lease. No guard; nobody else writes it.
    ///
    /// # Errors
    /// [`StoreError::LeaseGone`] if the session ended; [`StoreError::Unknown`] if the outcome is not known.
    pub async fn write_member(
        &self,
        me: &NodeName,
        member: &Member,
        session: &Session,
    ) -> Result<(), StoreError> {
        self.plain_put(&Place::Member(me.clone()), text::member_text(member), session.lease()).await
    }

    /// Publishes the leader's position and slots. No guard; the leader writes it.
    ///
    /// # Errors
    /// [`StoreError::Unknown`] if the outcome is not known.
    pub async fn write_status(&self, status: &Status) -> Result<(), StoreError> {
        self.plain_put(&Place::Status, text::status_text(status), 0).await
    }

    /// Publishes the position as members older than 2.1.0 read it (P048). No guard.
    ///
    /// # Errors
    /// [`StoreError::Unknown`] if the outcome is not known.
    pub async fn write_optime_leader(&self, lsn: Lsn) -> Result<(), StoreError> {
        self.plain_put(&Place::OptimeLeader, lsn.0.to_string(), 0).await
    }

    /// Replaces the history. No guard; the leader writes it.
    ///
    /// # Errors
    /// [`StoreError::Unknown`] if the outcome is not known.
    pub async fn write_history(&self, rows: &[HistoryRow]) -> Result<(), StoreError> {
        self.plain_put(&Place::History, text::history_text(rows), 0).await
    }

    /// Publishes with whom the leader may outlive the store. Guards: the leader key is of this reign, and the record
    /// still has mod revision `guard` (0: there is none). `false` if not.
    ///
    /// # Errors
    /// [`StoreError::Unknown`] if the outcome is not known.
    pub async fn write_failsafe(
        &self,
        members: &BTreeMap<NodeName, String>,
        reign: Epoch,
        guard: Revision,
    ) -> Result<bool, StoreError> {
        let key = self.path(&Place::Failsafe);
        let txn = Txn {
            when: vec![
                Condition::Created(self.path(&Place::Leader), reign.0),
                Condition::Modified(key.clone(), guard.0),
            ],
            then: vec![put(key, text::failsafe_text(members))],
            read: None,
        };
        Ok(self.commit(&txn).await?.held)
    }

    /// Asks for a switchover or failover. Guard: the record still has mod revision `guard`; none with `None`.
    ///
    /// # Errors
    /// [`StoreError::Unknown`] if the outcome is not known.
    pub async fn write_failover(
        &self,
        asked: &Failover,
        guard: Option<Revision>,
    ) -> Result<bool, StoreError> {
        self.put_failover(text::failover_text(Some(asked)), guard).await
    }

    /// Writes `{}`: nothing is asked for any more. Guard: as [`Dcs::write_failover`].
    ///
    /// # Errors
    /// [`StoreError::Unknown`] if the outcome is not known; asking again is safe.
    pub async fn clear_failover(&self, guard: Option<Revision>) -> Result<bool, StoreError> {
        self.put_failover(text::failover_text(None), guard).await
    }

    async fn put_failover(&self, value: String, guard: Option<Revision>) -> Result<bool, StoreError> {
        match guard {
            Some(guard) => Ok(self.guarded_put(&Place::Failover, value, guard).await?.is_some()),
            None => self.plain_put(&Place::Failover, value, 0).await.map(|()| true),
        }
    }

    /// Writes which commits wait for whom. Guard: the record still has mod revision `guard`; with
    /// `None`, it does not exist. Returns its new mod revision; `None`: somebody was faster, look again.
    ///
    /// # Errors
    /// [`StoreError::Unknown`] if the outcome is not known: read again before trying again.
    pub async fn write_sync(
        &self,
        sync: &SyncState,
        guard: Option<Revision>,
    ) -> Result<Option<Revision>, StoreError> {
        self.guarded_put(&Place::Sync, text::sync_text(sync), guard.unwrap_or(Revision(0))).await
    }

    /// Removes the synchronous state. Guard: it still has mod revision `guard`.
    ///
    /// # Errors
    /// [`StoreError::Unknown`] if the outcome is not known: read again before trying again.
    pub async fn delete_sync(&self, guard: Revision) -> Result<bool, StoreError> {
        let key = self.path(&Place::Sync);
        let txn = Txn {
            when: vec![Condition::Modified(key.clone(), guard.0)],
            then: vec![Write::Delete(key)],
            read: None,
        };
        Ok(self.commit(&txn).await?.held)
    }

    /// Removes every record of the cluster (`remove`). No guard.
    ///
    /// # Errors
    /// [`StoreError::Unknown`] if the outcome is not known; asking again is safe.
    pub async fn remove_cluster(&self) -> Result<(), StoreError> {
        let txn = Txn { then: vec![Write::DeleteAll(self.0.keys.prefix())], ..Txn::default() };
        self.commit(&txn).await.map(drop)
    }

    async fn plain_put(&self, place: &Place, value: String, lease: i64) -> Result<(), StoreError> {
        let then = vec![Write::Put { key: self.path(place), value, lease }];
        self.commit(&Txn { then, ..Txn::default() }).await.map(drop)
    }

    async fn guarded_put(
        &self,
        place: &Place,
        value: String,
        guard: Revision,
    ) -> Result<Option<Revision>, StoreError> {
        let key = self.path(place);
        let txn = Txn {
            when: vec![Condition::Modified(key.clone(), guard.0)],
            then: vec![put(key, value)],
            read: None,
        };
        let done = self.commit(&txn).await?;
        Ok(done.held.then_some(done.revision))
    }

    /// Runs a transaction once; notes that the store answered.
    pub(crate) async fn commit(&self, txn: &Txn) -> Result<Committed, StoreError> {
        self.commit_within(txn, self.patience()).await
    }

    pub(crate) async fn commit_within(&self, txn: &Txn, patience: Patience) -> Result<Committed, StoreError> {
        let sent = Moment::now();
        let done = self.home().commit(txn, patience).await;
        if matches!(done, Ok(_) | Err(StoreError::Refused(_) | StoreError::LeaseGone | StoreError::NoSpace)) {
            self.touch(sent);
        }
        done
    }

    /// Runs a transaction again and again while its outcome is unknown, within our patience.
    /// Only for transactions whose success makes their own conditions false, so that at most
    /// one of the attempts happens; the caller must tell its own success from another's.
    pub(crate) async fn commit_surely(&self, txn: &Txn) -> Result<Committed, StoreError> {
        let end = Moment::now() + self.patience().total;
        let mut pauses = Pauses::new(Duration::from_millis(20), Duration::from_millis(500));
        loop {
            let left = Moment::now().until(end);
            match self.commit_within(txn, Patience::within(left)).await {
                Err(StoreError::Unknown(why)) => {
                    let pause = pauses.next();
                    if Moment::now().until(end) <= pause {
                        return Err(StoreError::Unknown(why));
                    }
                    tokio::time::sleep(pause).await;
                }
                known => return known,
            }
        }
    }

    pub(crate) fn path(&self, place: &Place) -> String {
        self.0.keys.path(place)
    }

    pub(crate) fn home(&self) -> Arc<Home> {
        Arc::clone(&self.0.home.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn seen(&self) -> &watch::Sender<Seen> {
        &self.0.seen
    }

    pub(crate) fn patience(&self) -> Patience {
        Patience::within(Duration::from_millis(self.0.patience.load(Ordering::Relaxed)))
    }

    /// Notes that the store answered a request sent at `sent`, without waking anybody.
    pub(crate) fn touch(&self, sent: Moment) {
        self.0.seen.send_if_modified(|seen| {
            seen.reached = seen.reached.max(sent);
            false
        });
    }
}

fn put(key: String, value: String) -> Write {
    Write::Put { key, value, lease: 0 }
}

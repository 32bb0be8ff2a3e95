//! The leader lease: sessions, proving the lead, taking it back, giving it up. Taking a free one: succession.rs.
//!
//! A keepalive's answer is not ownership, and ownership is not time: only both
//! together, in this order, renew a leader's authority (reliability.md §6.2),
//! and its time runs from before the keepalive was sent.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use config::NodeName;

use crate::cluster::Dcs;
use crate::keys::Place;
use crate::store::{Condition, Patience, Record, StoreError, Txn, Write};
use crate::view::{Epoch, Revision, Status};
use crate::{Moment, text};

/// One lease in the store, for our member record and for the leader key. Clones are the same lease.
/// It ends by itself when nobody renews it.
#[derive(Debug, Clone)]
pub struct Session(Arc<Lease>);

#[derive(Debug)]
struct Lease {
    id: i64,
    ttl: Duration,
    /// When the last renewal that succeeded was sent.
    renewed: AtomicU64,
}

impl Session {
    /// The store's id of the lease.
    #[must_use]
    pub fn lease(&self) -> i64 {
        self.0.id
    }

    /// How long a renewal lasts: what was asked for, or less if the store granted less.
    #[must_use]
    pub fn ttl(&self) -> Duration {
        self.0.ttl
    }

    /// When the last successful renewal was sent.
    #[must_use]
    pub fn renewed(&self) -> Moment {
        Moment(self.0.renewed.load(Ordering::Acquire))
    }

    /// How long one attempt to renew may take, and how soon the next one follows unless all is calm: ttl/10, at least 0.2 s.
    #[must_use]
    pub fn pace(&self) -> Duration {
        (self.0.ttl / 10).max(Duration::from_millis(200))
    }

    /// When to renew after a renewal that was answered at the first attempt: after two paces.
    #[must_use]
    pub fn calm(&self) -> Duration {
        self.pace() * 2
    }
}

/// The leader key as we last wrote it. Not `Clone`: there is one holder.
/// That it exists proves nothing about now; see [`Dcs::prove`].
#[derive(Debug)]
pub struct Leadership {
    me: NodeName,
    epoch: Epoch,
    revision: Revision,
    lease: i64,
}

impl Leadership {
    /// Which reign this is: the create revision of the leader key.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The mod revision of the leader key as we wrote it.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// The lease that the key lives under.
    #[must_use]
    pub fn lease(&self) -> i64 {
        self.lease
    }

    pub(crate) fn holder(&self) -> &NodeName {
        &self.me
    }

    /// Whether the key lives under this session; if not, [`Dcs::adopt`] it.
    #[must_use]
    pub fn is_under(&self, session: &Session) -> bool {
        self.lease == session.lease()
    }

    /// Whether this is the key as we wrote it.
    pub(crate) fn wrote(&self, record: &Record) -> bool {
        (record.created, record.modified, record.lease) == (self.epoch.0, self.revision.0, self.lease)
    }

    /// That the key is still exactly as we wrote it.
    pub(crate) fn conditions(&self, key: &str) -> Vec<Condition> {
        vec![
            Condition::Created(key.to_owned(), self.epoch.0),
            Condition::Modified(key.to_owned(), self.revision.0),
            Condition::Lease(key.to_owned(), self.lease),
        ]
    }
}

/// What came of taking over our own leader key from an earlier life.
#[derive(Debug)]
pub enum Adopt {
    /// It is ours under the new session, with the epoch it had; authority runs from this moment.
    Won(Leadership, Moment),
    /// Somebody else has it.
    HeldBy(NodeName),
    /// Nobody has it.
    Vacant,
}

/// The leader key was ours at some moment after this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Proof {
    /// Before the proof was sent. It extends no authority: a proof does not renew the lease.
    pub sent: Moment,
}

/// Why a renewal or a proof failed.
#[derive(Debug, thiserror::Error)]
pub enum RenewError {
    /// The key is not ours any more. Authority ends now.
    #[error("the leader key is not ours any more: {}", match holder { Some(name) => format!("{name} holds it"), None => "it is gone".to_owned() })]
    Lost {
        /// Who holds it, if anybody; our own name if it was written anew.
        holder: Option<NodeName>,
    },
    /// The lease is gone, and the key with it. Authority ends now.
    #[error("our lease is gone from the store, and the leader key with it")]
    LeaseGone,
    /// The store did not answer in time or would not. Authority runs on to its deadline.
    #[error("the leader lease could not be renewed")]
    Store(#[source] StoreError),
}

impl From<StoreError> for RenewError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::LeaseGone => Self::LeaseGone,
            other => Self::Store(other),
        }
    }
}

impl Dcs {
    /// Opens a session of `ttl` (etcd: whole seconds, at least 1.5 election timeouts).
    ///
    /// # Errors
    /// Never [`StoreError::Unknown`]: a lease that we never heard of ends by itself.
    pub async fn open_session(&self, ttl: Duration) -> Result<Session, StoreError> {
        let sent = Moment::now();
        let grant = self.home().open_lease(ttl, self.patience()).await?;
        self.touch(sent);
        let renewed = AtomicU64::new(sent.0);
        Ok(Session(Arc::new(Lease { id: grant.lease, ttl: grant.ttl.min(ttl), renewed })))
    }

    /// Renews a session: one attempt of at most [`Session::pace`] in all. Returns the moment before it was sent.
    ///
    /// # Errors
    /// [`StoreError::LeaseGone`] if it has ended; anything else leaves it as it was.
    pub async fn renew_session(&self, session: &Session) -> Result<Moment, StoreError> {
        self.renew_within(session, Patience::once(session.pace())).await
    }

    pub(crate) async fn renew_within(
        &self,
        session: &Session,
        patience: Patience,
    ) -> Result<Moment, StoreError> {
        let sent = Moment::now();
        self.home().keep_lease(session.lease(), patience).await?;
        self.touch(sent);
        session.0.renewed.fetch_max(sent.0, Ordering::AcqRel);
        Ok(sent)
    }

    /// Ends a session at once; our member record and the leader key under it vanish.
    ///
    /// # Errors
    /// Any; the session then ends by itself after its ttl.
    pub async fn close_session(&self, session: Session) -> Result<(), StoreError> {
        self.home().close_lease(session.lease(), self.patience()).await
    }

    /// Takes over the leader key that an earlier life of this daemon, or an earlier session,
    /// left in our name: writes it again under this session (P006). Guard: it still has our name
    /// and the mod revision that was just read. Its epoch stays.
    ///
    /// # Errors
    /// [`StoreError::LeaseGone`] if the session ended: open another.
    /// [`StoreError::Unknown`] if the outcome is not known; asking again is safe.
    pub async fn adopt(&self, me: &NodeName, session: &Session) -> Result<Adopt, StoreError> {
        self.home().forget();
        let sent = self.renew_within(session, self.patience()).await?;
        let key = self.path(&Place::Leader);
        let mut found = self.commit(&Txn { read: Some(key.clone()), ..Txn::default() }).await?.record;
        loop {
            let Some(record) = found else { return Ok(Adopt::Vacant) };
            if let Some(won) = leadership(me, session, &record) {
                return Ok(Adopt::Won(won, sent));
            }
            if record.value != me.as_str() {
                return Ok(Adopt::HeldBy(text::leader(&record).name));
            }
            let txn = Txn {
                when: vec![
                    Condition::Value(key.clone(), me.to_string()),
                    Condition::Modified(key.clone(), record.modified),
                ],
                then: vec![put_leader(&key, me, session)],
                read: Some(key.clone()),
            };
            found = self.commit_surely(&txn).await?.record;
        }
    }

    /// Asks the store, linearizably, whether the leader key is still exactly as we wrote it:
    /// create revision, mod revision and lease. It writes nothing.
    ///
    /// # Errors
    /// [`RenewError::Lost`] if it is not.
    pub async fn prove(&self, leadership: &Leadership) -> Result<Proof, RenewError> {
        self.prove_within(leadership, self.patience()).await
    }

    async fn prove_within(&self, leadership: &Leadership, patience: Patience) -> Result<Proof, RenewError> {
        let sent = Moment::now();
        let key = self.path(&Place::Leader);
        // The read in both branches is what makes the transaction linearizable: without one,
        // etcd answers from the state of whichever member was asked.
        let txn = Txn { when: leadership.conditions(&key), then: Vec::new(), read: Some(key) };
        let answer = self.commit_within(&txn, patience).await?;
        if answer.held {
            return Ok(Proof { sent });
        }
        Err(RenewError::Lost { holder: answer.record.map(|record| text::leader(&record).name) })
    }

    /// Renews the session and proves that the leader key is ours, both at once. Returns the moment
    /// before either was sent: authority runs from it. Each is one attempt of [`Session::pace`].
    ///
    /// Which of the two the store performs first does not matter: both happen after that moment, so the
    /// lease ends no earlier than a ttl after it, and the key that was under it lasts as long (§6.1).
    ///
    /// # Errors
    /// [`RenewError::Lost`] and [`RenewError::LeaseGone`] end authority now;
    /// [`RenewError::Store`] leaves it to its deadline.
    pub async fn renew(&self, session: &Session, leadership: &Leadership) -> Result<Moment, RenewError> {
        // In boxes: both futures together are large, and this one is moved about.
        let renewal = Box::pin(self.renew_session(session));
        let proof = Box::pin(self.prove_within(leadership, Patience::once(session.pace())));
        match tokio::join!(biased; renewal, proof) {
            (Err(StoreError::LeaseGone), _) => Err(RenewError::LeaseGone),
            (_, Err(error @ RenewError::Lost { .. })) => Err(error),
            (Err(error), _) => Err(error.into()),
            (Ok(_), Err(error)) => Err(error),
            (Ok(sent), Ok(proof)) => Ok(sent.min(proof.sent)),
        }
    }

    /// Gives the lead up. Guard: the key still has our name and its epoch (P007).
    /// `false` if it was not ours any more. A lost answer is resolved.
    ///
    /// # Errors
    /// [`StoreError::Unknown`] if no attempt was answered in time; the key then ends with its lease.
    pub async fn release(&self, leadership: Leadership) -> Result<bool, StoreError> {
        self.release_with(leadership, Vec::new()).await
    }

    /// Publishes the last status and gives the lead up, in one transaction. Guard: as
    /// [`Dcs::release`], for both: a status is not ours to write once another one leads.
    ///
    /// # Errors
    /// As [`Dcs::release`].
    pub async fn write_status_and_release(
        &self,
        status: &Status,
        leadership: Leadership,
    ) -> Result<bool, StoreError> {
        let value = text::status_text(status);
        self.release_with(leadership, vec![Write::Put { key: self.path(&Place::Status), value, lease: 0 }])
            .await
    }

    // By value: whoever has let go must not be able to renew.
    #[allow(clippy::needless_pass_by_value)]
    async fn release_with(&self, leadership: Leadership, mut then: Vec<Write>) -> Result<bool, StoreError> {
        let key = self.path(&Place::Leader);
        then.push(Write::Delete(key.clone()));
        let txn = Txn {
            when: vec![
                Condition::Value(key.clone(), leadership.me.to_string()),
                Condition::Created(key.clone(), leadership.epoch.0),
            ],
            then,
            read: None,
        };
        let first = self.commit(&txn).await;
        if let Err(StoreError::Unknown(_)) = &first {
            // Whether an attempt of ours or its lease ended the reign, it is over once this one holds or fails.
            return self.commit_surely(&txn).await.map(|_| true);
        }
        first.map(|done| done.held)
    }
}

pub(crate) fn put_leader(key: &str, me: &NodeName, session: &Session) -> Write {
    Write::Put { key: key.to_owned(), value: me.to_string(), lease: session.lease() }
}

/// The leadership that a leader key proves to be ours: our name under our lease.
pub(crate) fn leadership(me: &NodeName, session: &Session, record: &Record) -> Option<Leadership> {
    let ours = record.value == me.as_str() && record.lease == session.lease();
    ours.then(|| Leadership {
        me: me.clone(),
        epoch: Epoch(record.created),
        revision: Revision(record.modified),
        lease: record.lease,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authority::ETCD_CLOCK;

    /// A store that falls silent right after an answer, so that each attempt waits for its end: so many have all of their
    /// time before the holder stops in good order.
    fn attempts(ttl: u64) -> usize {
        let ttl = Duration::from_secs(ttl);
        let session = Session(Arc::new(Lease { id: 1, ttl, renewed: AtomicU64::new(0) }));
        let soft = crate::authority(ttl, Moment(0), ETCD_CLOCK).soft;
        let end = |number: u32| Moment(0) + session.calm() + session.pace() * number;
        (1..).take_while(|number| end(*number) <= soft).count()
    }

    #[test]
    fn a_calm_renewal_leaves_time_for_many_attempts() {
        assert_eq!([2, 3, 5, 10, 30].map(attempts), [4, 4, 5, 5, 6]);
    }
}

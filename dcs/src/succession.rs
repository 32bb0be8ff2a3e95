//! Taking the free lead, and with it the timeline that one may make. Whoever claims one knows the last claim.

use config::NodeName;
use serde::{Deserialize, Serialize};

use crate::cluster::Dcs;
use crate::keys::Place;
use crate::lease::{Leadership, Session, leadership, put_leader};
use crate::store::{Condition, StoreError, Txn, Write};
use crate::view::Revision;
use crate::{Moment, Timeline, text};

/// The timeline that a leader may make or is on already, which is nobody else's from then on.
///
/// Whoever has not seen the last claim could make a timeline of the same number: it is too late and must look again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Claim {
    /// The mod revision of the last claim that is known; 0 if there was none.
    pub after: Revision,
    /// Above all timelines that are known to be used or claimed.
    pub timeline: Timeline,
}

/// What came of reaching for the lead.
#[derive(Debug)]
pub enum Acquire {
    /// It is ours; authority runs from this moment (see [`crate::authority`]).
    Won(Leadership, Moment),
    /// Somebody else has it, or we have it under another lease: then [`Dcs::adopt`] it.
    HeldBy(NodeName),
    /// Nobody has it, but somebody has claimed a timeline that we do not know of: look again.
    Late,
}

impl Dcs {
    /// Takes the lead, and claims a timeline. Guard: nobody has it, and the last claim is the one we know. A lost answer is resolved: the
    /// transaction is sent again, and a key that names us under our lease is ours, whichever attempt wrote it (F02).
    ///
    /// # Errors
    /// [`StoreError::LeaseGone`] if the session ended: open another.
    /// [`StoreError::Unknown`] if no attempt was answered in time; asking again is safe.
    pub async fn acquire(
        &self,
        me: &NodeName,
        session: &Session,
        claim: Claim,
    ) -> Result<Acquire, StoreError> {
        // In boxes, here and below: they are large, and whoever asks is moved about.
        let sent = Box::pin(self.fresh(session)).await?;
        let key = self.path(&Place::Leader);
        let txn = Txn {
            when: vec![Condition::Absent(key.clone()), self.unclaimed(claim)],
            then: vec![put_leader(&key, me, session), self.put_reign(me), self.put_claim(me, claim)],
            read: Some(key),
        };
        Box::pin(self.acquire_by(&txn, me, session, sent)).await
    }

    /// Before the lead is taken: when the session was renewed last, now if that is long ago.
    pub(crate) async fn fresh(&self, session: &Session) -> Result<Moment, StoreError> {
        // Another generation may have begun since this connection read it: the new reign's epoch tells it.
        self.home().forget();
        let sent = session.renewed();
        if Moment::now().since(sent) > session.ttl() / 4 {
            // Nothing is at stake yet: it may take as long as what follows it.
            self.renew_within(session, self.patience()).await
        } else {
            Ok(sent)
        }
    }

    /// Runs a transaction that writes the leader key, and tells from the key what came of it.
    pub(crate) async fn acquire_by(
        &self,
        txn: &Txn,
        me: &NodeName,
        session: &Session,
        sent: Moment,
    ) -> Result<Acquire, StoreError> {
        let Some(record) = self.commit_surely(txn).await?.record else { return Ok(Acquire::Late) };
        Ok(match leadership(me, session, &record) {
            Some(won) => Acquire::Won(won, sent),
            None => Acquire::HeldBy(text::leader(&record).name),
        })
    }

    /// Claims another timeline in a reign that goes on. Guard: the leader key is ours, and the last claim is the one we
    /// know. `false` if either is not so. A lost answer is resolved.
    ///
    /// # Errors
    /// [`StoreError::Unknown`] if no attempt was answered in time; asking again is safe.
    pub async fn claim(&self, leadership: &Leadership, claim: Claim) -> Result<bool, StoreError> {
        let put = self.put_claim(leadership.holder(), claim);
        let Write::Put { key, value, .. } = &put else { return Ok(false) };
        let (key, value) = (key.clone(), value.clone());
        let mut when = leadership.conditions(&self.path(&Place::Leader));
        when.push(self.unclaimed(claim));
        let done = self.commit_surely(&Txn { when, then: vec![put], read: Some(key) }).await?;
        Ok(done.held || done.record.is_some_and(|record| record.value == value))
    }

    /// Who took the lead last. It outlives the leader key, at whose epoch it was written.
    pub(crate) fn put_reign(&self, me: &NodeName) -> Write {
        Write::Put { key: self.path(&Place::Reign), value: me.to_string(), lease: 0 }
    }

    fn put_claim(&self, me: &NodeName, claim: Claim) -> Write {
        let value = format!("{} {me}", claim.timeline.0);
        Write::Put { key: self.path(&Place::Claim), value, lease: 0 }
    }

    fn unclaimed(&self, claim: Claim) -> Condition {
        Condition::Modified(self.path(&Place::Claim), claim.after.0)
    }
}

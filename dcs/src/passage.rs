//! A cluster's move from one store to another: what stands in the two leader keys meanwhile, and the three
//! transactions that write it. Who may lead, and until when, is not decided here.
//!
//! While a store waits for the cluster its leader key holds *arriving*, and *left* for ever after the cluster has
//! gone: permanent, no node's name, so that nobody who only knows leader keys campaigns there, Patroni included.
//! One transaction closes the old store, a later one opens the new, so at most one store is open at any time.

use std::time::Duration;

use config::NodeName;
use serde::{Deserialize, Serialize};

use crate::cluster::Dcs;
use crate::estate::Estate;
use crate::keys::Place;
use crate::lease::{Leadership, Session, put_leader};
use crate::store::{Condition, Patience, StoreError, Txn, Write};
use crate::succession::Acquire;
use crate::view::Abode;
use crate::{Moment, text};

/// One move, as both stores keep it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Passage {
    /// The generation that begins with it.
    pub generation: u64,
    /// What tells this attempt from every other.
    pub seal: String,
    /// The section of the configuration that names the store that is left (`raft`, `etcd3`).
    pub from: String,
    /// The section that names the store it goes to.
    pub to: String,
    /// Who leads, and takes the lead along.
    pub leader: NodeName,
    /// The leader's lease in the store that is left, in milliseconds: its authority ends within this time.
    pub ttl: u64,
}

/// What a leader key says instead of a name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stand {
    /// The cluster is expected here; nobody may lead yet.
    Arriving(Passage),
    /// The cluster is gone from here for good.
    Left(Passage),
}

/// No name of a node has a slash (patroni-compat 1.1), so none begins so.
const ARRIVING: &str = "matriarch/arriving ";
const LEFT: &str = "matriarch/left ";

impl Stand {
    /// Reads a leader key; nothing if it holds a name, or anything else.
    pub(crate) fn read(value: &str) -> Option<Self> {
        let passage = |rest: &str| serde_json::from_str(rest).ok();
        match value.strip_prefix(ARRIVING) {
            Some(rest) => passage(rest).map(Self::Arriving),
            None => passage(value.strip_prefix(LEFT)?).map(Self::Left),
        }
    }

    /// The move that it is about.
    #[must_use]
    pub fn passage(&self) -> &Passage {
        match self {
            Self::Arriving(passage) | Self::Left(passage) => passage,
        }
    }

    fn text(&self) -> String {
        let (word, passage) = match self {
            Self::Arriving(passage) => (ARRIVING, passage),
            Self::Left(passage) => (LEFT, passage),
        };
        // Plain fields always have a text.
        format!("{word}{}", serde_json::to_string(passage).unwrap_or_default())
    }
}

impl Passage {
    /// A move that is about to be made, with a seal of its own; its generation comes when it is announced.
    ///
    /// # Errors
    /// [`StoreError::Refused`] if the system gives no random numbers.
    pub fn draft(from: &str, to: &str, leader: NodeName, ttl: Duration) -> Result<Self, StoreError> {
        let seal = crate::raft::random()
            .ok_or_else(|| StoreError::Refused("the system gives no random numbers".to_owned()))?;
        Ok(Self {
            generation: 0,
            seal: format!("{seal:016x}"),
            from: from.to_owned(),
            to: to.to_owned(),
            leader,
            ttl: u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX),
        })
    }

    /// How long after somebody saw that the old store is closed the leader's authority has certainly ended.
    ///
    /// Its last renewal there was proved before the key was overwritten, and sent before that; authority ends less
    /// than a ttl after it was sent, by more than any clock is wrong (`authority`). Whoever saw the key overwritten
    /// saw it later than all that.
    #[must_use]
    pub fn patience(&self) -> Duration {
        Duration::from_millis(self.ttl)
    }
}

/// What came of closing a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Departure {
    /// It is closed, and says where the cluster went.
    Left,
    /// A record has changed since it was copied: copy again.
    Changed,
    /// The leader key is not ours.
    Lost,
}

impl Dcs {
    /// Writes a copy of a cluster's records into this store, which waits for the cluster from then on. Guard: the
    /// cluster does not live here, and nobody has written the leader key since this looked. What an earlier attempt
    /// left, or an earlier stay, is overwritten. `draft.generation` is made higher than any that either store knows.
    ///
    /// # Errors
    /// [`StoreError::Refused`] if another cluster of this name is here; [`StoreError::Unknown`] if the outcome is
    /// not known: asking again is safe.
    pub async fn announce(&self, estate: &Estate, draft: Passage) -> Result<Passage, StoreError> {
        let (here, snapshot) = self.read_all().await?;
        let again = matches!(&here.passage, Some(Stand::Arriving(passage)) if passage.seal == draft.seal);
        let strangers = here.initialize.system_id().is_some_and(|id| Some(id) != estate.system_id());
        match here.abode() {
            Abode::Here(_) => return Err(StoreError::Refused(living(here.initialize.system_id()))),
            Abode::Moving(_) if strangers => {
                return Err(StoreError::Refused(living(here.initialize.system_id())));
            }
            Abode::Nowhere | Abode::Moving(_) => {}
        }
        let next = estate.generation().max(here.generation).max(1) + 1;
        let generation = if again { here.generation } else { next };
        let passage = Passage { generation, ..draft };
        let key = self.path(&Place::Leader);
        let stood =
            snapshot.records.iter().find(|record| record.key == key).map_or(0, |record| record.modified);
        let mut then = estate.writes(self.keys(), &snapshot);
        then.push(put(key.clone(), Stand::Arriving(passage.clone()).text()));
        then.push(put(self.path(&Place::Generation), generation.to_string()));
        let txn = Txn { when: vec![Condition::Modified(key, stood)], then, read: None };
        let done = self.commit(&txn).await;
        self.home().forget();
        match done?.held {
            true => Ok(passage),
            false => Err(StoreError::Refused(
                "somebody else has written the leader key there meanwhile".to_owned(),
            )),
        }
    }

    /// Takes an announcement back, with everything that it wrote. Guard: the store still waits for this very move.
    ///
    /// # Errors
    /// [`StoreError::Unknown`] if the outcome is not known; asking again is safe.
    pub async fn withdraw(&self, passage: &Passage) -> Result<bool, StoreError> {
        let waits = Condition::Value(self.path(&Place::Leader), Stand::Arriving(passage.clone()).text());
        let then = vec![Write::DeleteAll(self.keys().prefix())];
        let done = self.commit(&Txn { when: vec![waits], then, read: None }).await;
        self.home().forget();
        done.map(|done| done.held)
    }

    /// Closes this store for good: our leader key is replaced by the note where the cluster went, without a lease.
    /// Guard: the key is exactly as we wrote it, and what was copied has not changed. A lost answer is resolved.
    ///
    /// # Errors
    /// [`StoreError::Unknown`] if no attempt was answered within `patience`: it may be closed.
    pub async fn leave(
        &self,
        leadership: &Leadership,
        estate: &Estate,
        passage: &Passage,
        patience: Duration,
    ) -> Result<Departure, StoreError> {
        let (key, left) = (self.path(&Place::Leader), Stand::Left(passage.clone()).text());
        let mut when = leadership.conditions(&key);
        when.extend(estate.conditions(self.keys()));
        let txn = Txn { when, then: vec![put(key.clone(), left.clone())], read: Some(key.clone()) };
        let end = Moment::now() + patience;
        loop {
            let rest = Moment::now().until(end);
            match self.commit_within(&txn, Patience::within(rest)).await {
                Ok(done) if done.held => return Ok(Departure::Left),
                Ok(done) => {
                    return Ok(match done.record {
                        Some(record) if record.value == left => Departure::Left,
                        Some(record) if leadership.wrote(&record) => Departure::Changed,
                        _ => Departure::Lost,
                    });
                }
                Err(StoreError::Unknown(_)) if rest > AGAIN => tokio::time::sleep(AGAIN).await,
                Err(error) => return Err(error),
            }
        }
    }

    /// Opens this store by taking the lead in it. Guard: it still waits for this very move. As [`Dcs::acquire`].
    ///
    /// # Errors
    /// As [`Dcs::acquire`].
    pub async fn arrive(
        &self,
        me: &NodeName,
        session: &Session,
        passage: &Passage,
    ) -> Result<Acquire, StoreError> {
        let sent = self.fresh(session).await?;
        let key = self.path(&Place::Leader);
        let txn = Txn {
            when: vec![Condition::Value(key.clone(), Stand::Arriving(passage.clone()).text())],
            then: vec![put_leader(&key, me, session), self.put_reign(me)],
            read: Some(key),
        };
        self.acquire_by(&txn, me, session, sent).await
    }

    /// Everything, as it is and as it is understood.
    pub(crate) async fn read_all(&self) -> Result<(crate::ClusterView, crate::store::Snapshot), StoreError> {
        let snapshot = self.home().load(&self.keys().prefix(), self.patience()).await?;
        Ok((text::view(self.keys(), &snapshot.records, snapshot.revision), snapshot))
    }
}

/// The pause before an unanswered transaction is sent again.
const AGAIN: Duration = Duration::from_millis(20);

fn living(id: Option<crate::SystemId>) -> String {
    let id = id.map_or_else(|| "not initialised".to_owned(), |id| format!("system identifier {id}"));
    format!(
        "a cluster of this name is there already ({id}): if it is not wanted any more, take its records away with \
         matriarchctl remove"
    )
}

fn put(key: String, value: String) -> Write {
    Write::Put { key, value, lease: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passage() -> Passage {
        Passage {
            generation: 2,
            seal: "ab".to_owned(),
            from: "raft".to_owned(),
            to: "etcd3".to_owned(),
            leader: NodeName::new("n1").unwrap(),
            ttl: 3000,
        }
    }

    #[test]
    fn no_name_of_a_node_reads_as_a_move_and_no_move_as_a_name() {
        for stand in [Stand::Arriving(passage()), Stand::Left(passage())] {
            assert!(NodeName::new(&stand.text()).is_err());
            assert_eq!(Stand::read(&stand.text()), Some(stand));
        }
        for other in ["", "n1", "matriarch", "matriarch/left", "matriarch/left {}", "matriarch/arriving x"] {
            assert_eq!(Stand::read(other), None, "{other}");
        }
        assert_eq!(
            Stand::Left(passage()).text(),
            r#"matriarch/left {"generation":2,"seal":"ab","from":"raft","to":"etcd3","leader":"n1","ttl":3000}"#
        );
    }
}

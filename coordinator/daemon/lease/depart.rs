//! The lease when the cluster moves to another store: out of the old one and into the new, in this order, within the
//! time that the old lease still gives. Nothing here extends the old authority: after the request that closes the old
//! store is sent, no renewal of it counts any more.

use std::time::Duration;

use coordinator::Arrival;
use dcs::{Acquire, Dcs, Departure, Estate, Moment, Passage, Session, StoreError};

use super::renew::{Key, Renewer};
use crate::way::Way;

/// The pause between two tries of the last step.
const AGAIN: Duration = Duration::from_millis(50);

/// What the leader takes along.
pub struct Journey {
    /// The way to the new store.
    pub way: Way,
    /// Connections to it, for this thread.
    pub there: Dcs,
    /// What was copied.
    pub estate: Estate,
    /// The move that the new store waits for.
    pub passage: Passage,
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrived {
    /// This node leads in the new store.
    Led,
    /// A record changed meanwhile: nothing has happened, copy again.
    Changed,
    /// This node does not lead: nothing has happened.
    NotLeading,
    /// The old store is closed and the new one was not opened in time.
    Between,
}

impl Renewer {
    /// Closes the old store and takes the lead in the new one.
    ///
    /// # Errors
    /// The store's, from before the old one was closed: nothing has happened, or, if unknown, the next renewal tells.
    pub(super) async fn depart(&mut self, journey: Journey) -> Result<Arrived, StoreError> {
        let (Some(dcs), Some(leadership)) = (&self.dcs, &self.leadership) else {
            return Ok(Arrived::NotLeading);
        };
        let Some(old) = self.publish.borrow().session.clone() else { return Ok(Arrived::NotLeading) };
        let Journey { way, there, estate, passage } = journey;
        // What can be slow comes first, and the old lease is fresh when the last step but one is sent.
        let step = self.terms.ttl / 5;
        let session =
            within(step, there.open_session(self.terms.ttl)).await.map_err(|error| match error {
                // A lease that we never heard of ends by itself.
                StoreError::Unknown(why) => StoreError::Unreachable(why),
                other => other,
            })?;
        let sent = match dcs.renew(&old, leadership).await {
            Ok(sent) => sent,
            Err(error) => return Err(StoreError::Unreachable(super::chain(&error))),
        };
        self.extend(old.ttl(), sent);
        let Some(held) = self.publish.borrow().leading() else { return Ok(Arrived::NotLeading) };
        let (Some(dcs), Some(leadership)) = (&self.dcs, &self.leadership) else {
            return Ok(Arrived::NotLeading);
        };
        let left = Moment::now().until(held.soft);
        match dcs.leave(leadership, &estate, &passage, left / 2).await? {
            Departure::Left => {}
            Departure::Changed => return Ok(Arrived::Changed),
            Departure::Lost => return Ok(Arrived::NotLeading),
        }
        // From here on the old store gives nothing any more: what it gave ends at its own deadline.
        self.leadership = None;
        tracing::info!(
            "the old store is closed: the cluster moves to the store of the section {}",
            passage.to
        );
        self.enter(way, there, session, &passage, held.soft).await
    }

    /// Takes the lead in the new store, unless the authority from the old one ends first.
    async fn enter(
        &mut self,
        way: Way,
        there: Dcs,
        session: Session,
        passage: &Passage,
        end: Moment,
    ) -> Result<Arrived, StoreError> {
        let old = self.publish.borrow().session.clone();
        while Moment::now() < end {
            let left = Moment::now().until(end);
            match within(left, there.arrive(&self.terms.me, &session, passage)).await {
                Ok(Acquire::Won(leadership, sent)) => {
                    let before = self.dcs.replace(there);
                    self.terms.way = way;
                    self.publish.send_modify(|tenure| {
                        tenure.session = Some(session.clone());
                        tenure.arrival = None;
                    });
                    self.take(leadership, &session, sent);
                    tracing::info!("took the lead in the new store");
                    if let (Some(before), Some(old)) = (before, old) {
                        // It would end by itself; nobody needs its member record any more.
                        let _ = within(AGAIN * 4, before.close_session(old)).await;
                    }
                    return Ok(Arrived::Led);
                }
                Ok(Acquire::HeldBy(other)) => {
                    tracing::warn!("{other} leads in the new store");
                    break;
                }
                Ok(Acquire::Late) => {
                    tracing::warn!("somebody else has led in the new store since");
                    break;
                }
                Err(error) => {
                    tracing::warn!("the new store cannot be entered yet: {error}");
                    tokio::time::sleep(AGAIN).await;
                }
            }
        }
        self.due = Moment::now();
        Ok(Arrived::Between)
    }

    /// From now on the lease is one in another store; nobody leads there for this node yet.
    pub(super) fn relocate(&mut self, way: Way) {
        if self.leadership.is_some() {
            self.lost("the cluster lives in another store", Key::Taken);
        }
        (self.dcs, self.terms.way) = (None, way);
        self.publish.send_modify(|tenure| (tenure.session, tenure.arrival) = (None, None));
        self.due = Moment::now();
    }

    /// Opens the new store, if this node has seen the old one closed for long enough.
    pub(super) async fn arrive(&mut self, session: &Session) -> Result<bool, StoreError> {
        let arrival = self.publish.borrow().arrival.clone();
        let Some(Arrival { passage, from }) = arrival else { return Ok(false) };
        let Some(dcs) = self.dcs.as_ref().filter(|_| Moment::now() >= from) else { return Ok(false) };
        match dcs.arrive(&self.terms.me, session, &passage).await {
            Ok(Acquire::Won(leadership, sent)) => {
                self.publish.send_modify(|tenure| tenure.arrival = None);
                self.take(leadership, session, sent);
                Ok(true)
            }
            // Somebody has opened it: from then on it is a store like any other.
            Ok(Acquire::HeldBy(_) | Acquire::Late) | Err(StoreError::Refused(_)) => {
                self.publish.send_modify(|tenure| tenure.arrival = None);
                Ok(false)
            }
            Err(error) => self.failed(error),
        }
    }
}

async fn within<T>(
    limit: Duration,
    request: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    let late = || StoreError::Unknown(format!("no answer within {limit:?}"));
    tokio::time::timeout(limit, request).await.unwrap_or_else(|_| Err(late()))
}

//! Renewing the session and the leadership, taking it, giving it up. Every request
//! to the store is bounded; the deadline is enforced elsewhere, whatever waits here.

use std::sync::Arc;
use std::time::Duration;

use coordinator::Held;
use dcs::{
    Acquire, Adopt, Claim, Dcs, Epoch, Leadership, Moment, RenewError, Session, Status, StoreError, authority,
};
use tokio::sync::{mpsc, watch};

use super::{AdoptError, Flags, Order, Tenure, Terms, chain};
use crate::alarm::Alarm;
use crate::fence::Unguarded;

/// How soon after its beginning an attempt that failed is followed by the next; one that took longer, at once.
const AGAIN: Duration = Duration::from_millis(200);

/// What is known of a leader key that is not ours any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    /// Nobody holds it, as far as is known.
    Gone,
    /// Somebody holds it, or may.
    Taken,
}

/// The half of the lease thread that talks to the store.
pub struct Renewer {
    pub(super) terms: Terms,
    pub(super) dcs: Option<Dcs>,
    pub(super) leadership: Option<Leadership>,
    pub(super) publish: Arc<watch::Sender<Tenure>>,
    flags: Arc<Flags>,
    /// When the next renewal is due.
    pub(super) due: Moment,
    /// Renewals that failed in a row, so that only the first is logged loudly.
    failures: u32,
    /// It was said that the node's loop hangs.
    hangs: bool,
    /// A time to live that could not be put in force yet.
    wanted: Option<Duration>,
    /// How long a server may be without a lease: the time to live.
    grace: watch::Sender<Duration>,
}

impl Renewer {
    /// Nothing is held yet.
    pub fn new(
        terms: Terms,
        publish: Arc<watch::Sender<Tenure>>,
        flags: Arc<Flags>,
        grace: watch::Sender<Duration>,
    ) -> Self {
        Self {
            terms,
            dcs: None,
            leadership: None,
            publish,
            flags,
            due: Moment::now(),
            failures: 0,
            hangs: false,
            wanted: None,
            grace,
        }
    }

    /// Renews and obeys until nobody can ask any more.
    pub async fn run(mut self, mut inbox: mpsc::Receiver<Order>) {
        let alarm = Alarm::new();
        loop {
            tokio::select! {
                biased;
                () = alarm.at(self.due) => self.renew().await,
                order = inbox.recv() => match order {
                    Some(order) => self.obey(order).await,
                    None => return,
                },
            }
        }
    }

    /// One renewal: of the lease while it is held, of the session alone otherwise.
    async fn renew(&mut self) {
        let started = Moment::now();
        if self.leadership.is_some() && self.publish.borrow().leading().is_none() {
            // The node steps down, or the instance was killed. A renewal whose answers are lost would keep
            // the lease for ever from everybody (F57): it is left to run out. If it was not taken by then,
            // the key still names this node, and is taken back under a new lease.
            self.lost("it could not be renewed in time", Key::Gone);
        }
        let outcome = match self.session().await {
            Ok(session) => {
                let pace = if self.leadership.is_some() { session.pace() } else { session.ttl() / 3 };
                self.due = started + pace;
                self.renew_under(&session).await
            }
            Err(error) => {
                self.due = started + Duration::from_millis(500);
                Err(RenewError::Store(error))
            }
        };
        self.note_answer(!matches!(outcome, Err(RenewError::Store(_))));
        match outcome {
            Ok(()) => {
                if std::mem::take(&mut self.failures) > 0 {
                    tracing::info!("the lease is renewed again");
                }
                if let Some(ttl) = self.wanted.take() {
                    self.set_ttl(ttl).await;
                }
            }
            Err(RenewError::LeaseGone) => self.lost("its session has ended in the store", Key::Gone),
            Err(RenewError::Lost { holder: Some(holder) }) => {
                self.lost(&format!("{holder} holds it"), Key::Taken);
            }
            Err(RenewError::Lost { holder: None }) => self.lost("the leader key is gone", Key::Gone),
            Err(RenewError::Store(error)) => {
                self.failures += 1;
                // A dead connection is not worth the rest of the lease: try again at once, and a refusal soon.
                self.due = started + AGAIN;
                if self.failures == 1 {
                    tracing::warn!(error = %chain(&error), "the lease could not be renewed; trying again");
                }
            }
        }
    }

    async fn renew_under(&mut self, session: &Session) -> Result<(), RenewError> {
        let Some(dcs) = &self.dcs else { return Ok(()) };
        let hangs = !self.flags.alive(self.terms.ttl);
        if hangs {
            if !std::mem::replace(&mut self.hangs, true) {
                tracing::error!("the node's loop hangs: its lease is not renewed");
            }
            return Ok(());
        }
        self.hangs = false;
        let Some(leadership) = &self.leadership else {
            return dcs.renew_session(session).await.map(drop).map_err(RenewError::from);
        };
        let sent = dcs.renew(session, leadership).await?;
        if self.failures == 0 {
            self.due = sent + session.calm();
        }
        self.extend(session.ttl(), sent);
        Ok(())
    }

    /// Whether the store answers to this thread; a single late answer does not count against it.
    fn note_answer(&self, answered: bool) {
        let silent = !answered && self.failures > 0;
        self.publish.send_if_modified(|tenure| std::mem::replace(&mut tenure.silent, silent) != silent);
    }

    /// The session, opened anew if there is none.
    pub(super) async fn session(&mut self) -> Result<Session, StoreError> {
        if let Some(session) = self.publish.borrow().session.clone() {
            return Ok(session);
        }
        if self.dcs.is_none() {
            let dcs = self.terms.way.connect(self.terms.keys.clone(), self.terms.patience).await?;
            self.dcs = Some(dcs);
        }
        let Some(dcs) = &self.dcs else { return Err(StoreError::Unreachable("not connected".into())) };
        let session = dcs.open_session(self.terms.ttl).await?;
        self.publish.send_modify(|tenure| tenure.session = Some(session.clone()));
        Ok(session)
    }

    /// A renewal that succeeded: authority counts from before it was sent, and never shrinks.
    pub(super) fn extend(&self, ttl: Duration, sent: Moment) {
        let Some(leadership) = &self.leadership else { return };
        let granted = authority(ttl, sent, self.terms.way.clock());
        let (epoch, revision) = (leadership.epoch(), leadership.revision());
        self.flags.fence.extend(epoch, sent, granted.hard);
        self.publish.send_if_modified(|tenure| {
            let before = tenure.held.filter(|held| held.epoch == epoch);
            let held = Held {
                epoch,
                revision,
                soft: before.map_or(granted.soft, |held| held.soft.max(granted.soft)),
                hard: before.map_or(granted.hard, |held| held.hard.max(granted.hard)),
            };
            tenure.held = Some(held);
            // More time of the same is nothing that anybody waits for.
            before.is_none_or(|before| before.revision != held.revision)
        });
    }

    /// Ownership is gone: the node steps down now, unless nobody has it and every member has promised to leave it
    /// alone for longer (failsafe mode): then it has until the end of that to take it again. The hard deadline stays where it is.
    pub(super) fn lost(&mut self, why: &str, key: Key) {
        if self.leadership.take().is_some() {
            tracing::warn!("the leader lease is lost: {why}");
        }
        let now = Moment::now();
        self.publish.send_modify(|tenure| {
            tenure.session = None;
            let leave = tenure.leave.filter(|_| key == Key::Gone);
            if let Some(held) = &mut tenure.held {
                let leave = leave.filter(|(epoch, _)| *epoch == held.epoch).map(|(_, soft)| soft);
                held.soft = held.soft.min(leave.map_or(now, |soft| soft.max(now)));
            }
        });
        // A store that takes every session away at once must not be asked without pause.
        self.failures += 1;
        self.due = if self.failures > 1 { now + Duration::from_millis(200) } else { now };
    }

    async fn obey(&mut self, order: Order) {
        match order {
            Order::Acquire(claim, answer) => {
                let outcome = self.acquire(claim).await;
                let _ = answer.send(outcome);
            }
            Order::Claim(claim, answer) => {
                let outcome = match (&self.dcs, &self.leadership) {
                    (Some(dcs), Some(leadership)) => dcs.claim(leadership, claim).await,
                    _ => Ok(false),
                };
                let _ = answer.send(outcome);
            }
            Order::Adopt(answer) => {
                let outcome = self.adopt().await;
                let _ = answer.send(outcome);
            }
            Order::Prove(answer) => {
                let outcome = self.prove().await;
                let _ = answer.send(outcome);
            }
            Order::Release(status, answer) => {
                let outcome = self.release(status).await;
                let _ = answer.send(outcome);
            }
            Order::Ttl(ttl) => self.set_ttl(ttl).await,
            Order::Depart(departure, answer) => {
                let outcome = self.depart(*departure).await;
                let _ = answer.send(outcome);
            }
            Order::Relocate(way, answer) => {
                self.relocate(*way);
                let _ = answer.send(());
            }
            Order::Await(arrival) => {
                self.publish.send_modify(|tenure| tenure.arrival = Some(arrival));
            }
        }
    }

    async fn acquire(&mut self, claim: Claim) -> Result<bool, StoreError> {
        let session = self.session().await?;
        if self.arrive(&session).await? {
            return Ok(true);
        }
        let Some(dcs) = &self.dcs else { return Ok(false) };
        match dcs.acquire(&self.terms.me, &session, claim).await {
            Ok(Acquire::Won(leadership, sent)) => {
                self.take(leadership, &session, sent);
                Ok(true)
            }
            Ok(Acquire::HeldBy(_) | Acquire::Late) => Ok(false),
            Err(error) => self.failed(error),
        }
    }

    async fn adopt(&mut self) -> Result<bool, AdoptError> {
        let session = self.session().await?;
        self.bound(session.ttl()).await?;
        let Some(dcs) = &self.dcs else { return Ok(false) };
        match dcs.adopt(&self.terms.me, &session).await {
            Ok(Adopt::Won(leadership, sent)) => {
                self.take(leadership, &session, sent);
                Ok(true)
            }
            Ok(Adopt::HeldBy(_) | Adopt::Vacant) => Ok(false),
            Err(error) => Ok(self.failed(error)?),
        }
    }

    /// Before the key moves under a lease of `ttl`: no deadline of this reign, ours or the fencer's, is later than that
    /// lease can end. Those of a longer lease would otherwise outlast the key.
    async fn bound(&self, ttl: Duration) -> Result<(), Unguarded> {
        let sent = Moment::now();
        let most = authority(ttl, sent, self.terms.way.clock());
        self.publish.send_if_modified(|tenure| {
            let Some(held) = tenure.held.as_mut().filter(|held| held.hard > most.hard) else { return false };
            (held.soft, held.hard) = (held.soft.min(most.soft), most.hard);
            true
        });
        self.flags.fence.bound(sent, most.hard).await
    }

    pub(super) fn failed(&mut self, error: StoreError) -> Result<bool, StoreError> {
        if matches!(error, StoreError::LeaseGone) {
            self.lost("its session has ended in the store", Key::Gone);
        }
        Err(error)
    }

    pub(super) fn take(&mut self, leadership: Leadership, session: &Session, sent: Moment) {
        // What an earlier reign granted ends with the first word of this one.
        self.publish.send_if_modified(|tenure| tenure.leave.take().is_some());
        self.leadership = Some(leadership);
        self.extend(session.ttl(), sent);
        self.due = sent + session.pace();
    }

    async fn prove(&mut self) -> Result<Epoch, RenewError> {
        let (Some(dcs), Some(leadership)) = (&self.dcs, &self.leadership) else {
            return Err(RenewError::Lost { holder: None });
        };
        match dcs.prove(leadership).await {
            Ok(_) => Ok(leadership.epoch()),
            Err(error) => {
                if matches!(error, RenewError::Lost { .. }) {
                    self.lost("another one wrote the leader key", Key::Taken);
                }
                Err(error)
            }
        }
    }

    async fn release(&mut self, status: Option<Status>) -> Result<bool, StoreError> {
        let (Some(dcs), Some(leadership)) = (&self.dcs, self.leadership.take()) else { return Ok(false) };
        let epoch = leadership.epoch();
        // Whatever comes of the request, this node does not lead any more.
        self.publish.send_modify(|tenure| {
            (tenure.held, tenure.leave) = (None, None);
            tenure.released = Some(epoch);
        });
        match status {
            Some(status) => dcs.write_status_and_release(&status, leadership).await,
            None => dcs.release(leadership).await,
        }
    }

    /// A new ttl means a new lease: open it, move the leader key to it, let the old one go.
    async fn set_ttl(&mut self, ttl: Duration) {
        self.wanted = None;
        if ttl == self.terms.ttl {
            return;
        }
        let before = std::mem::replace(&mut self.terms.ttl, ttl);
        let old = self.publish.borrow().session.clone();
        self.publish.send_modify(|tenure| tenure.session = None);
        if self.leadership.is_some() {
            match self.adopt().await {
                Ok(true) => {}
                Ok(false) => self.lost("another one holds it", Key::Taken),
                Err(error) => {
                    tracing::warn!(error = %chain(&error), "the new ttl is not in force yet; trying again");
                    self.publish.send_modify(|tenure| tenure.session = old);
                    self.terms.ttl = before;
                    self.wanted = Some(ttl);
                    return;
                }
            }
        }
        self.flags.fence.set_grace(ttl);
        self.grace.send_replace(ttl);
        self.due = Moment::now();
    }
}

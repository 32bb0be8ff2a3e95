//! The lease thread: renews the session, holds the leadership, and enforces its
//! hard deadline. It runs beside the node's loop, on its own thread and runtime,
//! so that nothing which delays a turn can delay a renewal or the kill.
//! It never decides who should lead.

pub(crate) mod deadline;
mod depart;
mod flags;
mod renew;

pub use depart::{Arrived, Journey};
pub use flags::Flags;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use config::NodeName;
use coordinator::{Arrival, Held};
use dcs::{Authority, Claim, Epoch, Keys, Moment, RenewError, Session, Status, StoreError};
use tokio::sync::{mpsc, oneshot, watch};

use crate::fence::keep::keep;
use crate::fence::{Post, Unguarded};
use crate::postgres::Paths;
use crate::way::Way;

/// What the lease thread holds.
#[derive(Debug, Clone, Default)]
pub struct Tenure {
    /// The session under which the member record lives.
    pub session: Option<Session>,
    /// The leader lease.
    pub held: Option<Held>,
    /// The last epoch that was given up on purpose.
    pub released: Option<Epoch>,
    /// The move between stores whose end this node may bring about, and from when on.
    pub arrival: Option<Arrival>,
    /// The store has lately not answered to the lease thread, whatever the watch says: a store that
    /// is frozen, or behind a network that drops everything, breaks no connection.
    pub silent: bool,
    /// How often the hard deadline killed the instance.
    pub fenced: u64,
    /// In which reign the leader goes on by the leave of every member, and its soft deadline by that (failsafe mode).
    pub leave: Option<(Epoch, Moment)>,
    /// Why there is no fencer beside the daemon, so that this node must not lead.
    pub unguarded: Option<String>,
}

impl Tenure {
    /// The leader lease, while it gives the right to lead.
    pub fn leading(&self) -> Option<Held> {
        self.held.filter(|held| Moment::now() < held.soft)
    }
}

/// What the node's loop asks of the lease thread.
enum Order {
    Acquire(Claim, oneshot::Sender<Result<bool, StoreError>>),
    /// Another timeline in the same reign.
    Claim(Claim, oneshot::Sender<Result<bool, StoreError>>),
    Adopt(oneshot::Sender<Result<bool, AdoptError>>),
    Prove(oneshot::Sender<Result<Epoch, RenewError>>),
    Release(Option<Status>, oneshot::Sender<Result<bool, StoreError>>),
    Ttl(Duration),
    Depart(Box<Journey>, oneshot::Sender<Result<Arrived, StoreError>>),
    Relocate(Box<Way>, oneshot::Sender<()>),
    Await(Arrival),
}

/// The node's side of the lease thread.
#[derive(Debug, Clone)]
pub struct Keeper {
    orders: mpsc::Sender<Order>,
    /// What is held now.
    pub tenure: watch::Receiver<Tenure>,
    /// Arming and pause.
    pub flags: Arc<Flags>,
    publish: Arc<watch::Sender<Tenure>>,
}

/// The lease thread is gone; the node must not go on.
#[derive(Debug, thiserror::Error)]
#[error("the lease thread has ended: the daemon must be restarted")]
pub struct KeeperGone;

/// The leader key was not taken back.
#[derive(Debug, thiserror::Error)]
enum AdoptError {
    /// The store's.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A deadline may be in force that outlasts the new lease.
    #[error(transparent)]
    Fencer(#[from] Unguarded),
}

/// What the lease thread needs to know.
pub struct Terms {
    /// This node.
    pub me: NodeName,
    /// The way to the store; the thread has connections of its own.
    pub way: Way,
    /// Where the cluster's records live.
    pub keys: Keys,
    /// The lease's time to live.
    pub ttl: Duration,
    /// Bound on requests other than renewals.
    pub patience: Duration,
    /// The instance to kill at the hard deadline.
    pub paths: Paths,
    /// How the fencer is started.
    pub post: Post,
}

impl Keeper {
    /// Starts the lease thread.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn start(terms: Terms) -> anyhow::Result<Self> {
        let (orders, inbox) = mpsc::channel(8);
        let unguarded = Some("matriarch-fencer has not been started yet".to_owned());
        let (publish, tenure) = watch::channel(Tenure { unguarded, ..Tenure::default() });
        let (publish, flags) = (Arc::new(publish), Arc::new(Flags::default()));
        let told = Arc::clone(&publish);
        flags.fence.set_grace(terms.ttl);
        let seen = Arc::clone(&flags);
        std::thread::Builder::new()
            .name("lease".into())
            .spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                match runtime {
                    // Apart from each other: a request that waits for the store must not delay the kill.
                    Ok(runtime) => runtime.block_on(async {
                        let publish = told;
                        let (grace, given) = watch::channel(terms.ttl);
                        let mut halves = tokio::task::JoinSet::new();
                        let paths = terms.paths.clone();
                        halves.spawn(deadline::enforce(
                            Arc::clone(&publish),
                            Arc::clone(&seen),
                            paths,
                            given,
                        ));
                        let post = terms.post.clone();
                        halves.spawn(keep(Arc::clone(&seen), Arc::clone(&publish), post));
                        halves.spawn(renew::Renewer::new(terms, publish, seen, grace).run(inbox));
                        // Neither may go on without the other; the node sees that nothing is told any more.
                        halves.join_next().await;
                    }),
                    Err(error) => tracing::error!(%error, "the lease thread has no runtime"),
                }
            })
            .context("starting the lease thread")?;
        Ok(Self { orders, tenure, flags, publish })
    }

    /// Takes the leader lease, and with it a timeline; `false` if somebody holds it.
    ///
    /// # Errors
    /// The store's.
    pub async fn acquire(&self, claim: Claim) -> anyhow::Result<bool> {
        self.ask(|answer| Order::Acquire(claim, answer)).await?.context("acquiring the leader lease")
    }

    /// Claims another timeline while the lease is held; `false` if it is not, or somebody else has claimed one meanwhile.
    ///
    /// # Errors
    /// The store's.
    pub async fn claim(&self, claim: Claim) -> anyhow::Result<bool> {
        self.ask(|answer| Order::Claim(claim, answer)).await?.context("claiming a timeline")
    }

    /// Takes back a leader key that names this node under an old lease; `false` if it does not any more.
    ///
    /// # Errors
    /// The store's, and that of a fencer which may fire too late.
    pub async fn adopt(&self) -> anyhow::Result<bool> {
        self.ask(Order::Adopt).await?.context("taking the leader key back")
    }

    /// Proves by a transaction that the lease is held now.
    ///
    /// # Errors
    /// If it is not, or the store does not answer.
    pub async fn prove(&self) -> anyhow::Result<Epoch> {
        self.ask(Order::Prove).await?.context("proving the leader lease")
    }

    /// Gives the lease up, with a last status; `false` if it was not held any more.
    ///
    /// # Errors
    /// The store's.
    pub async fn release(&self, status: Option<Status>) -> anyhow::Result<bool> {
        self.ask(|answer| Order::Release(status, answer)).await?.context("releasing the leader lease")
    }

    /// Returns when a fencer is there, or after `patience`: what then lacks it does not lead.
    pub async fn guarded(&self, patience: Duration) {
        let mut tenure = self.tenure.clone();
        let _ = tokio::time::timeout(patience, tenure.wait_for(|tenure| tenure.unguarded.is_none())).await;
    }

    /// Whether this reign may take writes now.
    pub fn leads_in(&self, epoch: Epoch) -> bool {
        self.tenure.borrow().leading().is_some_and(|held| held.epoch == epoch)
    }

    /// Every member has promised to leave the lead alone, and was asked after `sent`: both deadlines of this reign move
    /// to what that gives, and never back. `false`, and nothing moves, if the node has ceased to lead meanwhile.
    pub fn go_on(&self, epoch: Epoch, sent: Moment, granted: Authority) -> bool {
        let mut leads = false;
        self.publish.send_if_modified(|tenure| {
            let held = tenure.held.as_mut().filter(|held| held.epoch == epoch && Moment::now() < held.soft);
            let Some(held) = held else { return false };
            (held.soft, held.hard) = (held.soft.max(granted.soft), held.hard.max(granted.hard));
            tenure.leave = Some((epoch, granted.soft));
            leads = true;
            // More time of the same is nothing that anybody waits for.
            false
        });
        if leads {
            self.flags.fence.extend(epoch, sent, granted.hard);
        }
        leads
    }

    /// Changes the lease's time to live; a new session is opened, the leader key moves to it.
    pub async fn set_ttl(&self, ttl: Duration) {
        // A closed channel shows at the next question.
        let _ = self.orders.send(Order::Ttl(ttl)).await;
    }

    /// Takes the lead along into another store: closes this one, and opens that one.
    ///
    /// # Errors
    /// The store's, from before this one was closed.
    pub async fn depart(&self, journey: Journey) -> anyhow::Result<Arrived> {
        let asked = self.ask(|answer| Order::Depart(Box::new(journey), answer)).await?;
        asked.context("closing the old store")
    }

    /// From now on sessions and the lead are those of another store.
    ///
    /// # Errors
    /// If the lease thread is gone.
    pub async fn relocate(&self, way: Way) -> Result<(), KeeperGone> {
        self.ask(|answer| Order::Relocate(Box::new(way), answer)).await
    }

    /// The old store was seen closed: this node may open the new one.
    pub async fn may_arrive(&self, arrival: Arrival) {
        // A closed channel shows at the next question.
        let _ = self.orders.send(Order::Await(arrival)).await;
    }

    async fn ask<T>(&self, order: impl FnOnce(oneshot::Sender<T>) -> Order) -> Result<T, KeeperGone> {
        let (answer, reply) = oneshot::channel();
        self.orders.send(order(answer)).await.map_err(|_| KeeperGone)?;
        reply.await.map_err(|_| KeeperGone)
    }
}

/// An error with its causes, on one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

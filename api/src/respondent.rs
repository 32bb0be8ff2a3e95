//! What every answer is made from: the watched status and view, the settings in
//! force, and the way to the node. It knows no paths and no methods.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::body::Bytes;
use dcs::{ClusterView, Moment, Seen};
use tokio::sync::{Notify, mpsc, oneshot, watch};

use crate::access::Access;
use crate::command::{Asked, Command, Reply};
use crate::page::Letterhead;
use crate::recording::Recollection;
use crate::server::Inputs;
use crate::status::NodeStatus;
use crate::{health, read, shared};

/// How long an answer waits for a fresh look at Postgres.
const LOOK_DEADLINE: Duration = Duration::from_millis(300);
/// A look at Postgres not older than this is fresh.
const FRESH: Duration = Duration::from_millis(20);

/// What may change while the server runs.
pub(crate) struct Policy {
    pub(crate) access: Access,
    pub(crate) letterhead: Letterhead,
}

/// Who calls.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Caller {
    pub(crate) address: IpAddr,
    pub(crate) has_certificate: bool,
}

/// Everything an answer is made from.
pub(crate) struct Respondent {
    pub(crate) status: watch::Receiver<Arc<NodeStatus>>,
    pub(crate) seen: watch::Receiver<Seen>,
    pub(crate) node: mpsc::Sender<Asked>,
    pub(crate) look: Option<Arc<Notify>>,
    pub(crate) recollection: Recollection,
    pub(crate) policy: ArcSwap<Policy>,
    pub(crate) requests: AtomicU64,
    pub(crate) hostname: String,
    rendered: ArcSwap<Rendered>,
}

/// `/patroni`, as last printed: most requests find the status unchanged.
struct Rendered {
    status: Arc<NodeStatus>,
    fresh: bool,
    failsafe: bool,
    body: Bytes,
}

impl Rendered {
    fn new(status: Arc<NodeStatus>, now: Moment) -> Self {
        let body = read::patroni(&status, now).into();
        let (fresh, failsafe) = Self::clockwork(&status, now);
        Self { status, fresh, failsafe, body }
    }

    /// What of the document changes with time alone.
    fn clockwork(status: &NodeStatus, now: Moment) -> (bool, bool) {
        (health::store_is_fresh(status, now), health::failsafe_is_active(status, now))
    }
}

impl Respondent {
    pub(crate) fn new(Inputs { status, seen, node, look, recollection }: Inputs, policy: Policy) -> Self {
        let rendered = Rendered::new(status.borrow().clone(), Moment::now());
        Self {
            status,
            seen,
            node,
            look,
            recollection,
            policy: ArcSwap::from_pointee(policy),
            requests: AtomicU64::new(0),
            hostname: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            rendered: ArcSwap::from_pointee(rendered),
        }
    }

    /// The `/patroni` document, printed anew only if something changed.
    pub(crate) fn document(&self, status: Arc<NodeStatus>, now: Moment) -> Bytes {
        let last = self.rendered.load();
        let clockwork = Rendered::clockwork(&status, now);
        if Arc::ptr_eq(&last.status, &status) && clockwork == (last.fresh, last.failsafe) {
            return last.body.clone();
        }
        let rendered = Rendered::new(status, now);
        let body = rendered.body.clone();
        self.rendered.store(Arc::new(rendered));
        body
    }

    /// Peers elect by the positions in `/patroni`, so it asks the node to look at
    /// Postgres now, and waits for that a little; a busy node answers with what it has.
    pub(crate) async fn look(&self) {
        let asked = Moment::now();
        let Some(look) = &self.look else { return };
        let mut status = self.status.clone();
        let is_fresh = |status: &Arc<NodeStatus>| status.looked + FRESH >= asked;
        if is_fresh(&status.borrow_and_update()) {
            return;
        }
        look.notify_one();
        let fresh = status.wait_for(is_fresh);
        let _ = tokio::time::timeout(LOOK_DEADLINE, fresh).await;
    }

    /// Has a claim to take writes looked at anew if it has grown old.
    pub(crate) async fn renew_claim(&self) {
        let is_aging = health::is_aging(&self.status.borrow(), Moment::now());
        if is_aging {
            self.look().await;
        }
    }

    pub(crate) fn view(&self) -> Option<Arc<ClusterView>> {
        self.seen.borrow().view.clone()
    }

    /// Whether operators have taken over.
    pub(crate) fn paused(&self) -> bool {
        self.view().map_or_else(|| self.status.borrow().pause, |view| shared::paused(&view))
    }

    /// Hands a command to the node and waits for its reply; a refused request is answered with the refusal.
    pub(crate) async fn carry_out(&self, command: Result<Command, Reply>) -> Reply {
        let (answer, answered) = oneshot::channel();
        let command = match command {
            Ok(command) => command,
            Err(refusal) => return refusal,
        };
        if self.node.try_send(Asked { command, answer }).is_err() {
            return Reply::text(503, "the node is stopping, or too many requests wait for it; try again");
        }
        answered.await.unwrap_or_else(|_| {
            Reply::text(503, "the node gave no answer; look at the cluster before asking again")
        })
    }
}

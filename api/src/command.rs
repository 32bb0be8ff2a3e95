//! What people and peers may ask of a node over REST, and how a node replies.

use dcs::Lsn;
use serde_json::Value;

/// A request that changes something. Its arguments are checked already
/// (patroni-compat 2.7); whether it can be done is the node's to say.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// `POST /switchover`, and `POST /failover` (`leader` absent).
    Handover(HandoverRequest),
    /// `DELETE /switchover`.
    CancelSwitchover,
    /// `POST /restart`.
    Restart(RestartRequest),
    /// `DELETE /restart`.
    CancelRestart,
    /// `POST /reload`.
    Reload,
    /// `POST /reinitialize`.
    Reinitialize {
        /// Cancel a running job first.
        force: bool,
        /// Clone from the leader only.
        from_leader: bool,
    },
    /// `PATCH /config`: null deletes, objects merge.
    PatchConfig(Value),
    /// `PUT /config`.
    PutConfig(Value),
    /// `POST /failsafe`, from a leader that has lost the store.
    Failsafe(Value),
    /// Stop the daemon and leave Postgres running (`matriarchctl handover`, `POST /matriarch/handover`).
    LeaveRunning,
    /// One step of moving the cluster to another store (`matriarchctl store move`, `POST /matriarch/store`).
    Move(MoveRequest),
}

/// One step of moving the cluster to another store, in the order in which they are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MoveRequest {
    /// The section of the configuration that names the new store (`raft`, `etcd3`).
    pub to: String,
    /// What to do.
    pub step: MoveStep,
}

/// What a member does for a move.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MoveStep {
    /// Read the configuration again and open the way to the new store.
    Prepare,
    /// Say whether the new store answers and has room for the cluster.
    Check,
    /// On the leader: copy the records into the new store, which waits for the cluster from then on.
    Announce,
    /// Say whether the new store, as seen from here, waits for the move with this seal.
    Confirm(String),
    /// On the leader: close the old store, and take the lead in the new one.
    Go(String),
    /// On the leader: take the announcement back.
    Withdraw(String),
}

/// Who should lead next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HandoverRequest {
    /// Who must give up; absent for a failover.
    pub leader: Option<String>,
    /// Who should take over.
    pub candidate: Option<String>,
    /// When, in UTC epoch seconds, with the text as given.
    pub scheduled_at: Option<(i64, String)>,
}

/// A restart with its filters, now or later.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RestartRequest {
    /// When, in UTC epoch seconds, with the text as given.
    pub schedule: Option<(i64, String)>,
    /// Only if the node has this role (`primary`, `standby_leader`, `replica`).
    pub role: Option<String>,
    /// Only if the running server is older than this version (`server_version_num`), with the text as given.
    pub postgres_version: Option<(u32, String)>,
    /// Give up waiting after this many seconds.
    pub timeout: Option<f64>,
    /// Only if a restart is pending.
    pub restart_pending: bool,
}

/// A node's reply: a status code and a body.
#[derive(Debug, Clone, PartialEq)]
pub struct Reply {
    /// HTTP status code.
    pub code: u16,
    /// The body.
    pub body: Body,
    /// The `lsn` header of a failsafe answer.
    pub lsn: Option<Lsn>,
    /// The words of a promise, in the header [`crate::PROMISE`].
    pub promise: Option<String>,
}

/// The body of a reply.
#[derive(Debug, Clone, PartialEq)]
pub enum Body {
    /// Patroni's plain text.
    Text(String),
    /// JSON.
    Json(Value),
}

impl Reply {
    /// A plain-text reply.
    #[must_use]
    pub fn text(code: u16, text: impl Into<String>) -> Self {
        Self { code, body: Body::Text(text.into()), lsn: None, promise: None }
    }

    /// A JSON reply.
    #[must_use]
    pub fn json(code: u16, value: Value) -> Self {
        Self { code, body: Body::Json(value), lsn: None, promise: None }
    }
}

/// A command on its way to the node, with the way back.
#[derive(Debug)]
pub struct Asked {
    /// What is asked.
    pub command: Command,
    /// Where the reply goes; a dropped sender answers 503.
    pub answer: tokio::sync::oneshot::Sender<Reply>,
}

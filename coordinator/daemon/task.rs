//! The jobs: work that outlasts a turn, one function per [`Task`]. Each gets all it
//! needs in its [`Context`], tells how it ended, and chooses nothing.

mod data;
mod run;

use std::sync::Arc;

use coordinator::{Task, Upstream};
use dcs::{ClusterView, Dcs};
use tokio::sync::watch;

use crate::lease::Keeper;
use crate::postgres::clone::Progress;
use crate::postgres::{Postmaster, Session};
use crate::settings::Settings;

/// What a job may use.
pub struct Context {
    /// The configuration in force when it began.
    pub settings: Arc<Settings>,
    /// The lease thread.
    pub keeper: Keeper,
    /// The store, for evidence.
    pub dcs: Dcs,
    /// The newest view of the cluster when it began.
    pub view: Arc<ClusterView>,
    /// The running postmaster.
    pub postmaster: Option<Arc<Postmaster>>,
    /// The monitoring session.
    pub session: Option<Arc<Session>>,
    /// Device and inode of the data directory that was seen when this was decided.
    pub directory: Option<(u64, u64)>,
    /// Where a clone tells how far it is.
    pub progress: watch::Sender<Progress>,
}

/// What a job left behind.
#[derive(Debug)]
pub enum Gain {
    /// The same server as before.
    Same,
    /// A server that was started, and whom it follows.
    Started(Arc<Postmaster>, Option<Upstream>),
    /// As before, but it does not accept connections yet: the node's loop watches it.
    Starting(Arc<Postmaster>, Option<Upstream>),
    /// The same server, now a primary.
    Promoted,
    /// No process is left.
    Stopped,
    /// The data directory is another one, or has another content.
    OtherData,
}

/// Whether a person's wish for a new copy may be granted, as far as can be told while Postgres runs.
///
/// # Errors
/// Why not.
pub async fn consent(context: &Context, leader: &config::NodeName) -> anyhow::Result<()> {
    data::consent(context, leader).await
}

/// Runs a job to its end.
///
/// # Errors
/// What went wrong, with its causes; what was begun is in a state that the next turn can see.
pub async fn run(task: &Task, context: &Context) -> anyhow::Result<Gain> {
    match task {
        Task::Initdb => data::initdb(context).await,
        Task::FirstStart { epoch } => run::first_start(context, *epoch).await,
        Task::StartStandby { upstream } => run::start_standby(context, upstream.as_ref()).await,
        Task::RestartInPlace { epoch, closed } => run::start_primary(context, *epoch, *closed).await,
        Task::Promote { epoch, above } => run::promote(context, *epoch, *above).await,
        Task::Stop(mode) => run::stop(context, *mode).await,
        Task::KillRemnants => run::kill(context).await,
        Task::Checkpoint => run::checkpoint(context).await,
        Task::Clone { from } => data::clone(context, from).await,
        Task::RecoverCrash => data::recover_crash(context).await,
        Task::Rewind { from } => data::rewind(context, from).await,
        Task::Retire { grounds, leader } => data::retire(context, *grounds, leader.as_ref()).await,
        Task::Restart { standby, timeout, closed, .. } => {
            run::restart(context, standby.as_ref(), *timeout, *closed).await
        }
    }
}

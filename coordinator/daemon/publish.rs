//! Telling others: the member record, the leader's status, the node's own status
//! for REST. Records are written when they differ,
//! positions when they moved by enough and at most once per `loop_wait`.

mod cache;
mod record;
mod scheduled;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use api::status::{HeldLease, NodeStatus, Position, PostgresState, Role, Why};
use api::{MATRIARCH_VERSION, PATRONI_VERSION, wall};
use config::{NodeName, SynchronousMode};
use coordinator::{Data, Intent, Obstacle, Process, Task};
use dcs::{Member, Moment, Session, Status, StoreError};
use serde_json::Value;
use tokio::task::JoinSet;

pub use cache::{cache_document, cached_document};
pub use scheduled::ScheduledRestart;

use record::{Worth, acknowledges, epoch_of, leader_status, server};

use crate::complaints::Complaints;
use crate::lease::{Tenure, chain};
use crate::logs;
use crate::node::Node;
use crate::postgres::look::Look;

/// What was written last, and when.
#[derive(Debug, Default)]
pub struct Published {
    pub(crate) member: Option<(Member, i64, Moment)>,
    status: Option<(Status, Moment)>,
    /// Writes under way, at most one of each kind: a slow store must not hold up the loop.
    writing: JoinSet<(Written, Result<(), StoreError>)>,
    member_open: bool,
    status_open: bool,
    /// Not before this moment is a write tried again that failed.
    again: Moment,
    said: Complaints,
    /// The store refused the last write because it is full.
    full: bool,
    role: Option<Role>,
    why_since: u64,
    because: String,
}

/// What was written.
#[derive(Debug)]
enum Written {
    Member(Box<Member>, i64, Moment),
    Status(Box<Status>, Moment),
}

/// How long a daemon that ends waits for its last words to be written.
const FAREWELL: Duration = Duration::from_secs(1);
/// What a full store means, and what to do.
const FULL: &str = "the store is full: leases are still renewed, so the leader goes on, but nothing can be written and nobody could \
                    take over. Make room (etcdctl compact, etcdctl defrag, a larger --quota-backend-bytes), then etcdctl alarm disarm";
/// How soon a write that failed is tried again.
const RETRY: Duration = Duration::from_millis(500);

impl Published {
    /// Returns when a write has ended; pends while none is under way.
    pub async fn written(&mut self) {
        match self.writing.join_next().await {
            Some(Ok((Written::Member(record, lease, at), done))) => {
                self.member_open = false;
                if self.succeeded("the member record was not written", done) {
                    self.member = Some((*record, lease, at));
                }
            }
            Some(Ok((Written::Status(status, at), done))) => {
                self.status_open = false;
                if self.succeeded("the status was not written", done) {
                    self.status = Some((*status, at));
                }
            }
            Some(Err(error)) => {
                (self.member_open, self.status_open) = (false, false);
                tracing::error!(%error, "a write to the store panicked");
            }
            None => std::future::pending().await,
        }
    }

    fn succeeded(&mut self, what: &'static str, done: Result<(), StoreError>) -> bool {
        self.full = matches!(done, Err(StoreError::NoSpace));
        let Err(error) = done else { return true };
        let now = Moment::now();
        self.again = now + RETRY;
        if self.full && self.said.news("full", FULL, now) {
            tracing::error!(target: logs::CRITICAL, "{FULL}");
        }
        let error = chain(&error);
        if self.said.news(what, &error, now) {
            tracing::warn!("{what}: {error}");
        }
        false
    }

    /// Waits for the writes under way, but not for long.
    pub async fn settle(&mut self, patience: Duration) {
        let settled = async {
            while self.member_open || self.status_open {
                self.written().await;
            }
        };
        // Whoever is slower is not waited for.
        let _ = tokio::time::timeout(patience, settled).await;
    }
}

impl Node {
    /// Publishes what this turn found and did.
    pub(crate) async fn tell(&mut self, obstacles: &BTreeMap<NodeName, Option<Obstacle>>) {
        let tenure = self.keeper.tenure.borrow().clone();
        let status = self.compose(&tenure, obstacles);
        self.keeper.flags.pause(self.settings.cluster.pause && self.pause_is_published());
        let status = Arc::new(status);
        self.status.send_replace(Arc::clone(&status));
        self.write_member(&status, &tenure);
        self.end_failsafe(self.seen.borrow().reachable && !tenure.silent);
        self.write_record(&tenure);
        if tenure.leading().is_some() {
            self.write_status();
        }
        if self.exit.is_some() {
            self.published.settle(FAREWELL).await;
        }
    }

    fn compose(&mut self, tenure: &Tenure, obstacles: &BTreeMap<NodeName, Option<Obstacle>>) -> NodeStatus {
        let now = Moment::now();
        let view = self.seen.borrow().view.clone().unwrap_or_default();
        let (reached, known) = {
            let seen = self.seen.borrow();
            (seen.reached, seen.view.is_some())
        };
        let look = self.instance.look().cloned();
        let data = self.instance.data(&self.settings, None);
        let state = self.state(look.is_some());
        let role = self.role(look.as_ref().map(|(_, look)| look), &data);
        self.published.role = Some(role);
        let cluster = &self.settings.cluster;
        let acknowledges = acknowledges(&view, &self.settings.node.name);
        NodeStatus {
            // That nothing answers is a finding as fresh as any other.
            looked: look.as_ref().map_or(now, |(at, _)| *at),
            state,
            role,
            server: look.as_ref().map(|(_, look)| server(look, &self.settings.postgres.recovery_conf)),
            lease: tenure.leading().map(|held| HeldLease { epoch: held.epoch, until: held.soft }),
            writable: look.as_ref().is_some_and(|(_, look)| !look.in_recovery && !look.closed),
            system_id: match (&look, &data) {
                (Some((_, look)), _) => Some(look.system_id),
                (None, Data::Present(control)) => Some(control.system_id),
                _ => None,
            },
            tags: self.tags(),
            pending_restart_flag: !self.pending.0.is_empty(),
            pending_restart: self
                .pending
                .0
                .iter()
                .map(|(name, waiting)| (name.clone(), (waiting.old.clone(), waiting.new.clone())))
                .collect(),
            scheduled_restart: self.scheduled_restart.as_ref().map(ScheduledRestart::document),
            pause: cluster.pause,
            standby_cluster: api::standby_cluster(&view),
            store_seen: known.then(|| (reached, epoch_of(reached, now))),
            sync_standby: acknowledges == SynchronousMode::On,
            quorum_standby: acknowledges == SynchronousMode::Quorum,
            leader_known: view.leader.is_some(),
            optime: view.status.optime,
            ttl: cluster.ttl,
            loop_wait: cluster.loop_wait,
            maximum_lag: cluster.maximum_lag_on_failover,
            last_turn: now,
            why: self.why(obstacles),
            guard: self.keeper.flags.fence.guard(),
            store_full: self.published.full,
            strangers: self.strangers,
            failsafe_until: self.failsafe.until(tenure.leading().map(|held| held.epoch)),
            watchdog_failed: self.keeper.flags.fence.unwatched().is_some(),
            known_timeline: self.past.store.timeline,
            ..NodeStatus::unknown(self.settings.node.scope.clone(), self.settings.node.name.clone())
        }
    }

    /// What is published of the tags; a node whose safety settings do not work yet says
    /// so in the words that every peer understands.
    fn tags(&self) -> config::Tags {
        let mut tags = self.settings.node.tags.clone();
        if !self.myself().withheld.is_empty() || self.floor.is_some() {
            tags.published.insert("nofailover".into(), Value::Bool(true));
            tags.published.insert("nosync".into(), Value::Bool(true));
        }
        tags
    }

    fn why(&mut self, obstacles: &BTreeMap<NodeName, Option<Obstacle>>) -> Why {
        let because = self.last.as_ref().map(|last| last.because.to_string()).unwrap_or_default();
        if because != self.published.because {
            self.published.because.clone_from(&because);
            self.published.why_since = u64::try_from(wall::now().as_second()).unwrap_or_default();
        }
        Why {
            since: self.published.why_since,
            because,
            steps: self
                .last
                .as_ref()
                .map(|last| last.steps.iter().map(ToString::to_string).collect())
                .unwrap_or_default(),
            obstacles: obstacles
                .iter()
                .map(|(name, obstacle)| (name.clone(), obstacle.as_ref().map(ToString::to_string)))
                .collect(),
        }
    }

    fn state(&self, answers: bool) -> PostgresState {
        // From the answer to the request until the copy is in place: `reinit --wait` waits for the end of this state.
        if matches!(self.past.intent, Some(Intent::Reinitialize { .. })) {
            return PostgresState::CreatingReplica;
        }
        if let Some(job) = self.jobs.running() {
            match job.task {
                Task::Initdb | Task::FirstStart { .. } => return PostgresState::Initializing,
                Task::Clone { .. } => return PostgresState::CreatingReplica,
                Task::Restart { .. } => return PostgresState::Restarting,
                Task::Stop(_) => return PostgresState::Stopping,
                Task::StartStandby { .. } | Task::RestartInPlace { .. } if !answers => {
                    return PostgresState::Starting;
                }
                _ => {}
            }
        }
        let failed = |is: fn(&Task) -> bool| self.past.failed(is).is_some();
        match self.instance.process() {
            _ if answers => PostgresState::Running,
            Process::Postmaster => PostgresState::Starting,
            // In pause nobody starts it again: it is stopped, whatever ended it.
            _ if self.instance.crashed().is_some() && !self.settings.cluster.pause => PostgresState::Crashed,
            _ if failed(|task| matches!(task, Task::Initdb)) => PostgresState::InitdbFailed,
            _ if failed(|task| matches!(task, Task::StartStandby { .. } | Task::RestartInPlace { .. })) => {
                PostgresState::StartFailed
            }
            _ => PostgresState::Stopped,
        }
    }

    fn role(&self, look: Option<&Look>, data: &Data) -> Role {
        let promoting = matches!(self.jobs.running().map(|job| job.task), Some(Task::Promote { .. }));
        match look {
            Some(look) if !look.in_recovery && promoting => Role::Promoted,
            Some(look) if !look.in_recovery => Role::Primary,
            Some(_) => Role::Replica,
            None if *data == Data::Empty => Role::Uninitialized,
            None => match self.published.role {
                Some(Role::Primary | Role::Promoted | Role::Demoted)
                    if self.keeper.tenure.borrow().leading().is_none() || self.past.intent.is_some() =>
                {
                    Role::Demoted
                }
                Some(role) if role != Role::Uninitialized => role,
                _ => Role::Replica,
            },
        }
    }

    /// The session of the lease thread.
    fn session(&self) -> Option<Session> {
        self.keeper.tenure.borrow().session.clone()
    }

    fn write_member(&mut self, status: &NodeStatus, tenure: &Tenure) {
        let Some(session) = self.session() else { return };
        let now = Moment::now();
        if !self.seen.borrow().reachable || self.published.member_open || now < self.published.again {
            return;
        }
        let record = self.record(status, tenure);
        if let Some((before, lease, at)) = &self.published.member {
            let worth = self.worth(now.since(*at)).member(before, &record);
            if !worth && *lease == session.lease() && self.still_there() {
                return;
            }
        }
        self.published.member_open = true;
        let (dcs, me) = (self.dcs.clone(), self.settings.node.name.clone());
        self.published.writing.spawn(async move {
            let done = dcs.write_member(&me, &record, &session).await;
            (Written::Member(Box::new(record), session.lease(), now), done)
        });
    }

    /// What is worth a write, `age` after the last.
    fn worth(&self, age: Duration) -> Worth {
        let cluster = &self.settings.cluster;
        let leader = self.seen.borrow().view.as_ref().and_then(|view| view.status.optime);
        Worth::new(age < cluster.loop_wait, cluster.maximum_lag_on_failover, leader)
    }

    /// Whether our own record is in the view; somebody may have removed it.
    fn still_there(&self) -> bool {
        let seen = self.seen.borrow();
        seen.view.as_ref().is_none_or(|view| view.members.contains_key(&self.settings.node.name))
            || self.published.member.as_ref().is_some_and(|(_, _, at)| seen.reached <= *at)
    }

    fn record(&self, status: &NodeStatus, tenure: &Tenure) -> Member {
        let node = &self.settings.node;
        let postgresql = &node.postgresql;
        let database = &postgresql.database;
        let mut record = Member {
            conn_url: Some(format!("postgres://{}/{database}", postgresql.connect_address)),
            api_url: Some(node.restapi.api_url()),
            proxy_url: postgresql
                .proxy_address
                .as_ref()
                .map(|proxy| format!("postgres://{proxy}/{database}")),
            state: status.state.text().to_owned(),
            role: status.role.text().to_owned(),
            version: Some(PATRONI_VERSION.to_owned()),
            matriarch: Some(MATRIARCH_VERSION.to_owned()),
            tags: status.tags.published.clone(),
            pending_restart: status.pending_restart.clone(),
            pending_restart_flag: status.pending_restart_flag,
            scheduled_restart: status.scheduled_restart.clone(),
            pause: status.pause,
            ..Member::default()
        };
        let epoch = tenure.leading().map(|held| held.epoch);
        record.checkpoint_pending = epoch.is_some()
            && matches!(status.role, Role::Primary | Role::Promoted)
            && self.past.checkpointed != epoch;
        if let Some(server) = &status.server {
            record.timeline = server.timeline;
            record.replication_state.clone_from(&server.replication_state);
            match &server.position {
                Position::Primary(at) => record.xlog_location = Some(*at),
                Position::Standby { received, replayed, .. } => {
                    record.xlog_location = (*received).max(*replayed);
                    record.receive_lsn = *received;
                    record.replay_lsn = *replayed;
                }
            }
        }
        record
    }

    /// The leader's position and slots: the replicas' yardstick.
    fn write_status(&mut self) {
        let now = Moment::now();
        let Some((_, look)) = self.instance.look() else { return };
        if look.in_recovery
            || !self.seen.borrow().reachable
            || self.published.status_open
            || now < self.published.again
        {
            return;
        }
        let view = self.seen.borrow().view.clone().unwrap_or_default();
        let status = leader_status(
            look,
            &view,
            &self.settings.node.name,
            &self.past.members_seen,
            now,
            self.settings.cluster.member_slots_ttl,
        );
        if let Some((before, at)) = &self.published.status
            && !self.worth(now.since(*at)).status(before, &status)
        {
            return;
        }
        if view.status == status {
            self.published.status = Some((status, now));
            return;
        }
        self.published.status_open = true;
        let dcs = self.dcs.clone();
        self.published.writing.spawn(async move {
            let done = dcs.write_status(&status).await;
            (Written::Status(Box::new(status), now), done)
        });
    }
}

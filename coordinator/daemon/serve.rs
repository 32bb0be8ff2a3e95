//! The desk behind the REST server: carries out the commands that are writes to the
//! store, waits for what they cause, and hands the rest to the node's loop.
//! It decides nothing about Postgres and touches none.

use std::sync::Arc;

use api::client::Client;
use api::command::{Asked, Command, Reply};
use api::status::{NodeStatus, Position, PostgresState, Role};
use dcs::{ClusterView, Dcs, Lsn, Seen, StoreError};
use serde_json::Value;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::failsafe::{Promises, Refusal, Wish};
use crate::lease::Tenure;

mod handover;
mod merge;

/// Everything the desk works with.
pub struct Desk {
    /// Where the cluster's records are.
    pub dcs: Dcs,
    /// What the store's watch tells.
    pub seen: watch::Receiver<Seen>,
    /// What this node knows of itself.
    pub status: watch::Receiver<Arc<NodeStatus>>,
    /// Asks other members.
    pub client: Client,
    /// Commands from the REST server.
    pub inbox: mpsc::Receiver<Asked>,
    /// Commands that the node's loop answers.
    pub to_node: mpsc::Sender<Asked>,
    /// Commands that move the cluster between stores.
    pub to_mover: mpsc::Sender<Asked>,
    /// What this node has promised leaders without the store.
    pub promises: Arc<Promises>,
    /// What the lease thread holds.
    pub tenure: watch::Receiver<Tenure>,
}

impl Desk {
    /// Serves until the inbox is closed; then lets what is open end.
    pub async fn run(mut self) {
        let clerk = Clerk {
            dcs: self.dcs,
            seen: self.seen,
            status: self.status,
            client: self.client,
            promises: self.promises,
            tenure: self.tenure,
        };
        let mut open = JoinSet::new();
        loop {
            tokio::select! {
                asked = self.inbox.recv() => match asked {
                    None => break,
                    Some(asked) if is_for_the_node(&asked.command) => {
                        // A node that does not take it in drops the sender, which tells the caller; waiting
                        // for it would keep all others waiting.
                        let _ = self.to_node.try_send(asked);
                    }
                    Some(asked) if matches!(asked.command, Command::Move(_)) => {
                        let _ = self.to_mover.try_send(asked);
                    }
                    Some(asked) => {
                        let clerk = clerk.clone();
                        open.spawn(async move {
                            let reply = clerk.perform(asked.command).await;
                            // Who asked may have hung up; what was asked for is done all the same.
                            let _ = asked.answer.send(reply);
                        });
                    }
                },
                Some(_) = open.join_next() => {}
            }
        }
        while open.join_next().await.is_some() {}
    }
}

fn is_for_the_node(command: &Command) -> bool {
    match command {
        Command::Restart(_)
        | Command::CancelRestart
        | Command::Reload
        | Command::Reinitialize { .. }
        | Command::LeaveRunning => true,
        Command::Handover(_)
        | Command::CancelSwitchover
        | Command::PatchConfig(_)
        | Command::PutConfig(_)
        | Command::Move(_)
        | Command::Failsafe(_) => false,
    }
}

/// Performs one command at a time; clones share everything.
#[derive(Clone)]
struct Clerk {
    dcs: Dcs,
    seen: watch::Receiver<Seen>,
    status: watch::Receiver<Arc<NodeStatus>>,
    client: Client,
    promises: Arc<Promises>,
    tenure: watch::Receiver<Tenure>,
}

impl Clerk {
    async fn perform(&self, command: Command) -> Reply {
        // A leader asks this because the store may be gone, so nothing is read for it.
        if let Command::Failsafe(body) = &command {
            return self.failsafe(body).await;
        }
        // Commands are judged by the cluster as it is now, not as it was last watched.
        let view = match self.dcs.load().await {
            Ok(view) => view,
            Err(error) => return unreachable_store(&error),
        };
        match command {
            Command::Handover(request) => self.hand_over(view, request).await,
            Command::CancelSwitchover => self.cancel_switchover(view).await,
            Command::PatchConfig(change) => self.patch_config(view, &change).await,
            Command::PutConfig(document) => self.put_config(view, document).await,
            Command::Failsafe(_)
            | Command::Move(_)
            | Command::Restart(_)
            | Command::CancelRestart
            | Command::Reload
            | Command::Reinitialize { .. }
            | Command::LeaveRunning => Reply::text(503, "the node is stopping; try again"),
        }
    }

    async fn cancel_switchover(&self, view: ClusterView) -> Reply {
        let scheduled = view.failover.filter(|failover| failover.value.scheduled_at.is_some());
        let Some(scheduled) = scheduled else { return Reply::text(404, "no switchover is scheduled") };
        match self.dcs.clear_failover(Some(scheduled.revision)).await {
            Ok(true) => Reply::text(200, "scheduled switchover deleted"),
            Ok(false) => Reply::text(409, ""),
            Err(error) => unreachable_store(&error),
        }
    }

    /// `PATCH /config`: merges, and writes only if something changed and nobody was faster.
    async fn patch_config(&self, view: ClusterView, change: &Value) -> Reply {
        let Some(config) = view.config.filter(|config| config.value.is_object()) else {
            return Reply::text(503, "");
        };
        let mut document = config.value.clone();
        if !merge::patch(&mut document, change) {
            return Reply::json(200, document);
        }
        if let Some(problem) = merge::new_problem(&config.value, &document) {
            return Reply::text(400, problem);
        }
        match self.dcs.write_config(&document, Some(config.revision)).await {
            Ok(true) => Reply::json(200, document),
            Ok(false) => Reply::text(409, ""),
            Err(error) => unreachable_store(&error),
        }
    }

    /// `PUT /config`: replaces, without a guard, as Patroni does.
    async fn put_config(&self, view: ClusterView, document: Value) -> Reply {
        let current = view.config.map(|config| config.value).unwrap_or_default();
        if merge::same(&current, &document) {
            return Reply::json(200, document);
        }
        if let Some(problem) = merge::new_problem(&current, &document) {
            return Reply::text(400, problem);
        }
        match self.dcs.put_config(&document).await {
            Ok(()) => Reply::json(200, document),
            Err(error) => Reply::text(502, format!("the configuration was not written: {error}")),
        }
    }

    /// A leader that has lost the store asks for leave to go on; who leads, or may, refuses it.
    async fn failsafe(&self, body: &Value) -> Reply {
        let view = self.seen.borrow().view.clone().unwrap_or_default();
        let document = view.config.as_ref().map(|config| &config.value);
        let setting = |name: &str| document.and_then(|document| document.get(name));
        if !setting("failsafe_mode").is_some_and(merge::is_on) {
            return Reply::text(502, "");
        }
        let wish = match Wish::read(body) {
            Ok(wish) => wish,
            Err(why) => return Reply::text(400, why),
        };
        let status = self.status.borrow().clone();
        let leads = || {
            self.tenure.borrow().held.is_some()
                || (status.state == PostgresState::Running && status.role == Role::Primary)
        };
        match self.promises.give(&wish, &view, status.ttl, leads).await {
            Ok(promise) => Reply { lsn: position(&status), promise, ..Reply::text(200, "Accepted") },
            Err(refusal @ (Refusal::Leads | Refusal::Disk)) => Reply::text(500, refusal.to_string()),
            Err(refusal) => Reply::text(409, refusal.to_string()),
        }
    }
}

fn position(status: &NodeStatus) -> Option<Lsn> {
    match &status.server.as_ref()?.position {
        Position::Primary(lsn) => Some(*lsn),
        Position::Standby { received, replayed, .. } => (*received).max(*replayed),
    }
}

fn unreachable_store(error: &StoreError) -> Reply {
    let done = match error {
        StoreError::Unknown(_) => "look at the cluster before asking again",
        _ => "nothing was changed; ask again when the store answers",
    };
    Reply::text(503, format!("{error}; {done}"))
}

#[cfg(test)]
mod tests;

//! What people ask of this node, on its way to the decisions: restarts, reloads,
//! new copies, leaving. What needs the store only is answered by `serve`.

use std::sync::Arc;
use std::time::Duration;

use api::command::{Asked, Command, Reply, RestartRequest};
use api::wall;
use coordinator::{Consent, Request, Task, Wish};
use dcs::Moment;

use crate::node::Node;
use crate::postgres::parameters::{self, Waiting};
use crate::postgres::{conf, controldata, run};
use crate::publish::ScheduledRestart;
use crate::settings::Settings;

/// How often files that operators may have changed are compared with the running server.
const PENDING: Duration = Duration::from_secs(60);
/// How long Postgres may take to read its files again.
const SETTLE: Duration = Duration::from_millis(500);

impl Node {
    /// Takes a command in: answers it, or keeps it until a decision has.
    pub(crate) async fn asked(&mut self, asked: Asked) {
        let Asked { command, answer } = asked;
        let reply = match command {
            Command::Restart(request) => match self.restart(request) {
                Ok((wish, patience)) => {
                    self.patience = patience.map(|patience| (self.next_request, Moment::now() + patience));
                    return self.keep(wish, answer);
                }
                Err(reply) => reply,
            },
            Command::Reinitialize { force, from_leader } => {
                let wish = Wish::Reinitialize { force, from_leader, consent: Consent::Unasked };
                return self.keep(wish, answer);
            }
            Command::CancelRestart => match self.scheduled_restart.take() {
                Some(_) => Reply::text(200, "scheduled restart deleted"),
                None => Reply::text(404, "no restarts are scheduled"),
            },
            Command::Reload => {
                self.reload();
                Reply::text(202, "reload scheduled")
            }
            Command::LeaveRunning => {
                self.end(Wish::LeaveRunning);
                Reply::text(202, "the daemon ends, Postgres goes on")
            }
            other => Reply::text(501, format!("{other:?} is not for the node's loop")),
        };
        // Whoever asked may have gone away.
        let _ = answer.send(reply);
    }

    /// The daemon is to end. Its member of the embedded store does not lead that to the last.
    pub(crate) fn end(&mut self, wish: Wish) {
        self.ways.present().abdicate();
        self.ending = Some(wish);
    }

    fn keep(&mut self, wish: Wish, answer: tokio::sync::oneshot::Sender<Reply>) {
        let request = Request { id: self.next_request, asked: Moment::now(), wish };
        self.requests.insert(request.id, (request, answer));
        self.next_request += 1;
    }

    /// A restart for now is for the decisions; one for later waits here.
    fn restart(&mut self, request: RestartRequest) -> Result<(Wish, Option<Duration>), Reply> {
        if request.schedule.is_none() {
            let patience = request.timeout.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
            return Ok((self.restart_wish(&request), patience));
        }
        if self.settings.cluster.pause {
            return Err(Reply::text(500, "Can't schedule restart in the paused state"));
        }
        if self.scheduled_restart.is_some() {
            return Err(Reply::text(409, "Another restart is already scheduled"));
        }
        let started = self.status.borrow().server.as_ref().map(|server| server.started.clone());
        let postmaster_start = started.unwrap_or_default();
        self.scheduled_restart = Some(ScheduledRestart { request, postmaster_start });
        Err(Reply::text(202, "Restart scheduled"))
    }

    fn restart_wish(&self, request: &RestartRequest) -> Wish {
        Wish::Restart {
            role: request.role.clone(),
            below_version: request.postgres_version.as_ref().map(|(version, _)| *version),
            if_pending: request.restart_pending,
            pending: self.status.borrow().pending_restart_flag,
            timeout: request
                .timeout
                .map(|seconds| Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)),
        }
    }

    /// A restart that takes longer than whoever asked will wait is answered now, and goes on (P097).
    pub(crate) fn tell_the_impatient(&mut self) {
        let Some((id, until)) = self.patience else { return };
        let running = self.jobs.running().map(|job| job.task);
        let begun = matches!(running, Some(Task::Restart { request: Some(of), .. }) if of == id);
        if begun
            && Moment::now() >= until
            && let Some((_, answer)) = self.requests.remove(&id)
        {
            // Whoever asked may have gone away.
            let _ = answer.send(Reply::text(503, "postgres is still starting"));
        }
        if !self.requests.contains_key(&id) {
            self.patience = None;
        }
    }

    /// A scheduled restart whose time has come becomes a request that nobody waits for;
    /// any other restart since it was scheduled cancels it.
    pub(crate) fn due_restart(&mut self) {
        let Some(scheduled) = &self.scheduled_restart else { return };
        let started = self.status.borrow().server.as_ref().map(|server| server.started.clone());
        if started.is_some_and(|started| started != scheduled.postmaster_start) {
            tracing::info!("the scheduled restart is dropped: Postgres was restarted meanwhile");
            self.scheduled_restart = None;
            return;
        }
        let due = scheduled.request.schedule.as_ref().is_some_and(|(at, _)| *at <= wall::now().as_second());
        if due && !self.settings.cluster.pause {
            let wish = self.restart_wish(&scheduled.request);
            self.scheduled_restart = None;
            let (answer, _) = tokio::sync::oneshot::channel();
            self.keep(wish, answer);
        }
    }

    /// Reads the node's file again; a file with errors changes nothing.
    pub(crate) fn reload(&mut self) {
        let loaded = match self.source.load() {
            Ok(loaded) => loaded,
            Err(problems) => {
                tracing::error!(
                    "the configuration was not reloaded, the running one stays in force: {problems}"
                );
                return;
            }
        };
        for warning in &loaded.warnings {
            tracing::warn!("{warning}");
        }
        let before = &self.settings.node;
        let mut node = loaded.node;
        if node.name != before.name || node.scope != before.scope || node.namespace != before.namespace {
            tracing::error!(
                "name, scope and namespace cannot change while the daemon runs: the old ones stay in force"
            );
            node.name = before.name.clone();
            node.scope.clone_from(&before.scope);
            node.namespace.clone_from(&before.namespace);
        }
        if node.postgresql.data_dir != before.postgresql.data_dir {
            tracing::error!("data_dir cannot change while the daemon runs: restart the daemon");
            node.postgresql.data_dir.clone_from(&before.postgresql.data_dir);
        }
        let settings =
            Settings::new(Arc::new(node), Arc::clone(&self.settings.cluster), self.settings.version);
        self.source.reloaded(&settings.node);
        self.replace_settings(settings);
        tracing::info!("configuration reloaded");
    }

    /// New settings are in force from here: files, server, lease.
    pub(crate) fn replace_settings(&mut self, settings: Settings) {
        for warning in &settings.postgres.warnings {
            tracing::warn!("{warning}");
        }
        self.dcs.set_patience(settings.cluster.retry_timeout);
        self.settings = Arc::new(settings);
        self.configure = true;
        self.unfitted = true;
    }

    /// The server's files and the lease follow changed settings; what needs a restart waits for one.
    pub(crate) async fn apply_settings(&mut self) {
        self.pending.1 = Moment::default();
        self.keeper.set_ttl(self.settings.cluster.ttl).await;
        if self.jobs.running().is_some() {
            // The job began with the old settings: look again when it has ended.
            self.configure = true;
            return;
        }
        let Some(postmaster) = self.instance.postmaster() else { return };
        let Some((_, look)) = self.instance.look().cloned() else {
            self.configure = true;
            return;
        };
        let written = if look.in_recovery {
            let following = self.upstream();
            let limits = self.limits().await;
            let (conf, _) = self.settings.standby_conf(following.as_ref(), &limits);
            conf::put(&self.settings.paths, &conf).await
        } else {
            conf::put(&self.settings.paths, &self.settings.primary_conf()).await
        };
        match written {
            Ok(written) if written.any() => {
                // Postgres flags what waits for a restart when it has read its files again.
                self.pending.1 = Moment::now() + SETTLE;
                if let Err(error) = run::reload(&postmaster) {
                    tracing::warn!("Postgres was not told to reload: {error}");
                }
            }
            Ok(_) => {}
            Err(error) => tracing::error!("the configuration of Postgres was not written: {error}"),
        }
    }

    /// Looks which parameters wait for a restart: after each start and change of settings, and
    /// now and then, since operators change files too.
    pub(crate) async fn look_for_pending(&mut self) {
        let now = Moment::now();
        let Some(session) =
            self.instance.session().filter(|_| now >= self.pending.1 && self.instance.look().is_some())
        else {
            return;
        };
        match parameters::pending_restart(&session, &self.settings.postgres.parameters).await {
            Ok(found) => {
                if found != self.pending.0 {
                    let named = |(name, waiting): (&String, &Waiting)| {
                        format!("{name} {} -> {}", waiting.old, waiting.new)
                    };
                    let names: Vec<_> = found.iter().map(named).collect();
                    match names.is_empty() {
                        true => tracing::info!("no restart is pending any more"),
                        false => tracing::info!("a restart is pending: {}", names.join(", ")),
                    }
                }
                self.pending = (found, now + PENDING);
            }
            Err(error) => {
                tracing::warn!("pending restarts cannot be read: {error}");
                self.pending.1 = now + PENDING;
            }
        }
    }

    /// Leaves out what the installed server does not know, and brings numbers into its range.
    pub(crate) async fn fit(&mut self) {
        let mut settings = Settings::clone(&self.settings);
        match self.catalog.fit(&settings.paths, &mut settings.postgres.parameters).await {
            Ok(changes) => {
                for change in changes {
                    tracing::warn!("{change}");
                }
                self.settings = Arc::new(settings);
            }
            Err(error) => tracing::warn!("the parameters cannot be held against the server: {error}"),
        }
    }

    /// The values below which a standby must not go, from `pg_control`.
    pub(crate) async fn limits(&self) -> std::collections::BTreeMap<&'static str, i64> {
        match controldata::read(&self.settings.paths).await {
            Ok(control) => control.limits,
            Err(error) => {
                tracing::warn!("pg_control cannot be read: {error}");
                std::collections::BTreeMap::new()
            }
        }
    }
}

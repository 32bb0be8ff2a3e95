//! Doing what a decision says: one arm per [`Step`], in order, the first failure
//! ends the turn. Every parameter is in the step; nothing is chosen here.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use api::command::Reply as Answer;
use coordinator::slots::SlotChange;
use coordinator::{Consent, Reply, Step, Task, Upstream, Wish};
use dcs::{Lsn, Moment, Status};
use tokio::sync::watch;

use crate::job::Done;
use crate::lineage;
use crate::node::Node;
use crate::postgres::clone::Progress;
use crate::postgres::replication::{self, Followed};
use crate::postgres::{conninfo, off_loop, slots};
use crate::task::{Context, Gain};

/// How soon a step that failed is tried again.
const RETRY: Duration = Duration::from_millis(200);
/// How long a leader waits for one step. What it wrote to the store by then is on its way.
const STEP: Duration = Duration::from_millis(700);

impl Node {
    /// Runs the steps of one decision.
    pub(crate) async fn act(&mut self, steps: &[Step]) {
        for step in steps {
            let urgent = self.urgent(step);
            let done = tokio::select! {
                biased;
                done = self.step(step) => done,
                why = urgent => Err(anyhow::anyhow!("{why}; whether it was done is not known yet")),
            };
            if let Err(error) = done {
                // The next turn sees the world as it is now; it comes soon, but not at once.
                let now = Moment::now();
                self.wake = self.wake.min(now + RETRY);
                let said = format!("{step} failed: {error:#}");
                if self.failures.news("step", &said, now) {
                    tracing::warn!("{said}");
                }
                return;
            }
        }
    }

    /// Returns when something happened that must not wait for this step to end: the lease
    /// has run out, Postgres has ended, or it takes so long that the health checks, which are
    /// answered from what the last turn saw, would take a leader for dead.
    fn urgent(&self, step: &Step) -> impl Future<Output = &'static str> + use<> {
        let mut tenure = self.keeper.tenure.clone();
        // Letting the lease go is no loss of it.
        let leads = tenure.borrow().leading().is_some() && !matches!(step, Step::Release { .. });
        let postmaster = self.instance.postmaster().filter(|_| !self.jobs.expects_end());
        async move {
            let lapsed = async {
                while let Some(held) = { tenure.borrow_and_update().leading() } {
                    tokio::select! {
                        () = tokio::time::sleep(Moment::now().until(held.soft)) => {}
                        // The thread's end is noticed elsewhere; here the deadline decides.
                        Ok(()) = tenure.changed() => {}
                    }
                }
            };
            let ended = async {
                match postmaster {
                    Some(postmaster) => postmaster.exited().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = lapsed, if leads => "the leader lease has run out",
                () = tokio::time::sleep(STEP), if leads => "it takes too long",
                () = ended => "Postgres has ended",
            }
        }
    }

    async fn step(&mut self, step: &Step) -> anyhow::Result<()> {
        if !matches!(step, Step::Ask(_)) {
            tracing::debug!("step: {step}");
        }
        match step {
            Step::ClaimInitialize => {
                let claimed = self.dcs.claim_initialize(&self.settings.node.name).await?;
                if !claimed {
                    self.past.bootstrapping = false;
                    bail!("another node is creating the cluster");
                }
            }
            Step::WriteInitialize(id) => {
                if !self.dcs.write_initialize(*id).await? {
                    bail!("the cluster was initialised with another system identifier");
                }
            }
            Step::GiveUpInitialize => {
                self.dcs.delete_initialize(&self.settings.node.name).await?;
            }
            Step::RestoreConfig => self.restore_config().await?,
            Step::Acquire(claim) => {
                if !self.keeper.acquire(*claim).await? {
                    bail!("another node was faster, or has claimed a timeline since: looking again");
                }
                tracing::info!("acquired the leader lease");
                self.sync.written = None;
                self.wake = Moment::now();
            }
            Step::ClaimTimeline(claim) => {
                if !self.keeper.claim(*claim).await? {
                    bail!("another node leads, or has claimed a timeline since: looking again");
                }
            }
            Step::Adopt { .. } => {
                if !self.keeper.adopt().await? {
                    bail!("the leader key does not name this node any more");
                }
                self.sync.written = None;
                self.wake = Moment::now();
            }
            Step::Release { position } => self.release(*position).await?,
            Step::ClearFailover { revision } => {
                // A lost race means that somebody asked for something else: the next turn reads it.
                self.dcs.clear_failover(Some(*revision)).await?;
            }
            Step::Ask(names) => {
                let view = self.seen.borrow().view.clone().unwrap_or_default();
                self.peers.keep_only(&view);
                self.peers.ask(names, &view);
            }
            Step::SeekLeave(names) => self.seek_leave(names),
            Step::GoOn { epoch, sent, span, until } => self.go_on(*epoch, *sent, *span, *until),
            Step::ReadLineage(member) => self.read_lineage(member)?,
            Step::Follow(upstream) => self.follow(upstream.as_ref()).await?,
            Step::Slots(changes) => self.change_slots(changes).await?,
            Step::WriteHistory => self.write_history().await?,
            Step::WriteSync { sync, guard } => self.write_sync(Some(sync), *guard).await?,
            Step::DeleteSync { guard } => self.write_sync(None, Some(*guard)).await?,
            Step::SetNames(names) => self.set_names(names).await?,
            Step::Evict(pids) => self.evict(pids).await?,
            Step::Begin(task) => self.begin(task.clone()),
            Step::Cancel => self.cancel(),
            Step::SeekConsent(id) => self.seek_consent(*id),
            Step::Answer(id, reply) => self.answer(*id, reply),
            Step::Exit { code } => self.exit = Some(*code),
        }
        Ok(())
    }

    /// Ends the running job with all that it started. What it was about to make writable is killed: a
    /// promotion that was asked for goes on by itself, and looks like a standby until it is done.
    fn cancel(&mut self) {
        let task = self.jobs.running().map(|job| job.task);
        self.jobs.cancel();
        self.instance.forget();
        self.wake = Moment::now();
        let makes_writable = matches!(
            task,
            Some(
                Task::Promote { .. }
                    | Task::RestartInPlace { .. }
                    | Task::FirstStart { .. }
                    | Task::Restart { standby: None, .. }
            )
        );
        if makes_writable {
            self.begin(Task::KillRemnants);
        }
    }

    /// All that is known now, for work beside the loop.
    fn context(&self, progress: watch::Sender<Progress>) -> Context {
        Context {
            settings: Arc::clone(&self.settings),
            keeper: self.keeper.clone(),
            dcs: self.dcs.clone(),
            view: self.seen.borrow().view.clone().unwrap_or_default(),
            postmaster: self.instance.postmaster(),
            session: self.instance.session(),
            directory: self.instance.on_disk().and_then(|found| found.identity),
            progress,
        }
    }

    /// Starts a job with all that is known now.
    fn begin(&mut self, task: Task) {
        let context = self.context(self.jobs.telling());
        self.jobs.begin(task, context);
    }

    /// Asks custody about the copy here, beside the loop: the leader's server has to answer.
    fn seek_consent(&mut self, id: u64) {
        let Some(leader) =
            self.seen.borrow().view.as_ref().and_then(|view| Some(view.leader.as_ref()?.name.clone()))
        else {
            return;
        };
        let context = self.context(self.jobs.telling());
        self.consents.seek(id, leader, context);
        self.consented(id, Consent::Asked);
    }

    /// What custody says about the copy here is part of the request from now on.
    pub(crate) fn consented(&mut self, id: u64, said: Consent) {
        if let Some((request, _)) = self.requests.get_mut(&id)
            && let Wish::Reinitialize { consent, .. } = &mut request.wish
        {
            *consent = said;
        }
    }

    /// Lets the lease go, with the position at which this server stopped.
    async fn release(&mut self, position: Option<Lsn>) -> anyhow::Result<()> {
        let status = match position {
            // What was known of slots is carried over (patroni-compat 1.6).
            Some(position) => {
                let known =
                    self.seen.borrow().view.as_ref().map(|view| view.status.clone()).unwrap_or_default();
                Some(Status { optime: Some(position), ..known })
            }
            None => None,
        };
        // A status on its way would undo the last one.
        self.published.settle(Duration::from_millis(200)).await;
        let epoch = self.keeper.tenure.borrow().held.map(|held| held.epoch);
        let released = self.keeper.release(status).await;
        // Whatever came of the request, this node does not lead in that reign any more.
        if let Some(epoch) = epoch {
            self.give_promises_back(epoch);
        }
        let ours = released?;
        tracing::info!(
            "{}",
            if ours { "released the leader lease" } else { "the leader lease was not ours any more" }
        );
        self.wake = Moment::now();
        Ok(())
    }

    fn read_lineage(&mut self, member: &config::NodeName) -> anyhow::Result<()> {
        let view = self.seen.borrow().view.clone().unwrap_or_default();
        let epoch = view.leader.as_ref().context("there is no leader")?.epoch;
        let record = view.members.get(member).context("the leader has no member record")?;
        let (host, port) = record
            .conn_url
            .as_deref()
            .and_then(coordinator::address)
            .context("the leader's conn_url cannot be read")?;
        let question =
            lineage::Question { member: member.clone(), epoch, target: self.settings.remote(&host, port) };
        self.reading.begin(question);
        Ok(())
    }

    /// Another upstream, without a restart.
    async fn follow(&mut self, upstream: Option<&Upstream>) -> anyhow::Result<()> {
        let settings = Arc::clone(&self.settings);
        let postmaster = self.instance.postmaster().context("no postmaster runs")?;
        if let Some(upstream) = upstream {
            let source = settings.source(&upstream.host, upstream.port);
            let rewind = settings.remote(&upstream.host, upstream.port);
            let file = settings.paths.pgpass.clone();
            off_loop(move || conninfo::write_pgpass(&file, &[&source, &rewind])).await?;
        }
        let limits = self.limits().await;
        let (conf, _) = settings.standby_conf(upstream, &limits);
        let followed = replication::follow(&settings.paths, &conf, &postmaster, settings.version).await?;
        self.instance.follows(upstream.cloned());
        if followed == Followed::NeedsRestart {
            self.begin(Task::Restart {
                request: None,
                standby: Some(upstream.cloned()),
                timeout: None,
                closed: false,
            });
        }
        Ok(())
    }

    async fn change_slots(&mut self, changes: &[SlotChange]) -> anyhow::Result<()> {
        let session = self.instance.session().context("Postgres does not answer")?;
        for change in changes {
            let done = match change {
                SlotChange::Create(name) => slots::create(&session, name).await,
                SlotChange::Advance(name, to) => slots::advance(&session, name, *to).await,
                SlotChange::Drop(name) => slots::drop_slot(&session, name).await,
            };
            // One slot that cannot be changed must not keep the others from it.
            if let Err(error) = done {
                tracing::warn!("slot {change}: {error}");
            }
        }
        Ok(())
    }

    async fn write_history(&mut self) -> anyhow::Result<()> {
        let timeline =
            self.instance.look().map(|(_, look)| look.timeline).context("Postgres does not answer")?;
        let known =
            self.seen.borrow().view.as_ref().and_then(|view| view.history.clone()).unwrap_or_default();
        let rows = lineage::history_rows(
            &self.settings.paths,
            timeline,
            &known,
            self.settings.node.name.as_str(),
            self.settings.cluster.max_timelines_history,
        )?;
        if rows != known || self.seen.borrow().view.as_ref().is_some_and(|view| view.history.is_none()) {
            self.dcs.write_history(&rows).await?;
        }
        Ok(())
    }

    async fn restore_config(&mut self) -> anyhow::Result<()> {
        let revision = self.seen.borrow().view.as_ref().and_then(|view| Some(view.config.as_ref()?.revision));
        let document = match &self.document {
            Some(document) => document.clone(),
            None => config::ClusterConfig::default_document(self.settings.node.bootstrap.dcs.as_ref()),
        };
        // Somebody who was faster wrote a configuration too.
        self.dcs.write_config(&document, revision).await?;
        Ok(())
    }

    fn answer(&mut self, id: u64, reply: &Reply) {
        let Some((_, answer)) = self.requests.remove(&id) else { return };
        let reply = match reply {
            Reply::ConditionsNotMet => Answer::text(503, "restart conditions are not satisfied"),
            Reply::Busy => {
                let task = self.jobs.running().map_or_else(String::new, |job| job.task.to_string());
                Answer::text(503, format!("{task} already in progress"))
            }
            Reply::NoLeader => Answer::text(503, "Cluster has no leader, can not reinitialize"),
            Reply::IamLeader => Answer::text(503, "I am the leader, can not reinitialize"),
            Reply::Refused(why) => Answer::text(503, format!("can not reinitialize: {why}")),
            Reply::Started => Answer::text(200, "reinitialize started"),
            Reply::Restarted => Answer::text(200, "restarted successfully"),
            Reply::RestartFailed => Answer::text(503, "restart failed"),
            Reply::StillStarting => Answer::text(503, "postgres is still starting"),
        };
        // Whoever asked may have gone away.
        let _ = answer.send(reply);
    }
}

/// Takes in what a job left behind.
pub fn merge(node: &mut Node, done: &Done) {
    match &done.result {
        Ok(Gain::Same) => {}
        Ok(Gain::Started(postmaster, upstream) | Gain::Starting(postmaster, upstream)) => {
            node.instance.started(Arc::clone(postmaster), Some(upstream.clone()));
            // Any start gives parameters their new values.
            node.pending.1 = Moment::default();
        }
        Ok(Gain::Promoted) => node.instance.follows(None),
        Ok(Gain::Stopped | Gain::OtherData) => node.instance.ended(true),
        // Whatever it left is found by looking.
        Err(_) => node.instance.lost(),
    }
}

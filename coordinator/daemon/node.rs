//! The node: one loop that waits for anything to happen, looks, decides, and acts.
//! All judgement is `coordinator::decide`; this file only keeps its rhythm.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use api::client::Client;
use api::command::{Asked, Reply};
use api::status::{NodeStatus, Strangers};
use coordinator::{Decision, LeaderHistory, Outcome, Past, Request, SyncWrites, Task, Wish, decide};
use dcs::{Dcs, Lsn, Moment, Seen};
use serde_json::Value;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::JoinSet;

use crate::alarm::Alarm;
use crate::complaints::Complaints;
use crate::consent::Consents;
use crate::crash::Crash;
use crate::failsafe::{Failsafe, Promises};
use crate::instance::Instance;
use crate::job::Jobs;
use crate::lease::{Flags, Keeper};

use crate::peers::Peers;
use crate::postgres::parameters::{Catalog, Waiting};
use crate::postgres::{Paths, process};
use crate::recorder::Recorder;
use crate::remembered::Remembered;
use crate::settings::Settings;
use crate::source::Source;
use crate::task::Gain;
use crate::ways::Ways;
use crate::{lineage, logs, publish};

/// How often the local server is looked at although nothing happened. Whoever asks whether it
/// takes writes has it looked at anew if that was long ago.
const PULSE: Duration = Duration::from_secs(1);
/// The same for one that has just not let us in, or not answered.
const DOUBT: Duration = Duration::from_millis(500);
/// How long the first turn waits for the watch to tell what the store has just told already.
const FIRST_VIEW: Duration = Duration::from_secs(1);

/// Everything a node consists of.
pub struct Node {
    pub(crate) settings: Arc<Settings>,
    pub(crate) dcs: Dcs,
    pub(crate) keeper: Keeper,
    pub(crate) instance: Instance,
    pub(crate) consents: Consents,
    pub(crate) crash: Crash,
    pub(crate) jobs: Jobs,
    pub(crate) peers: Peers,
    pub(crate) seen: watch::Receiver<Seen>,
    pub(crate) status: watch::Sender<Arc<NodeStatus>>,
    pub(crate) past: Past,
    remembered: Remembered,
    pub(crate) ended: Option<Outcome>,
    pub(crate) ending: Option<Wish>,
    pub(crate) requests: BTreeMap<u64, (Request, oneshot::Sender<Reply>)>,
    pub(crate) next_request: u64,
    pub(crate) leader_history: Option<LeaderHistory>,
    pub(crate) reading: lineage::Reading,
    pub(crate) floor: Option<Lsn>,
    /// This node's own writes of the record of synchronous standbys.
    pub(crate) sync: SyncWrites,
    pub(crate) strangers: Strangers,
    pub(crate) published: publish::Published,
    pub(crate) failsafe: Failsafe,
    pub(crate) last: Option<Decision>,
    recorder: Recorder,
    pub(crate) said: Moment,
    pub(crate) wake: Moment,
    alarm: Alarm,
    /// Nothing has happened since the last turn but that time has passed.
    idle: bool,
    pub(crate) exit: Option<i32>,
    pub(crate) document: Option<Value>,
    pub(crate) scheduled_restart: Option<publish::ScheduledRestart>,
    /// Until when whoever asked for a restart waits, and the number of the request.
    pub(crate) patience: Option<(u64, Moment)>,
    pub(crate) inbox: mpsc::Receiver<Asked>,
    pub(crate) signals: mpsc::Receiver<Signal>,
    pub(crate) look: Arc<Notify>,
    pub(crate) source: Source,
    /// The settings changed: the server's files and the lease must follow.
    pub(crate) configure: bool,
    /// Parameters that wait for a restart, and when to look again.
    pub(crate) pending: (BTreeMap<String, Waiting>, Moment),
    /// What the installed server knows, and whether the wanted parameters must be held against it.
    pub(crate) catalog: Catalog,
    pub(crate) unfitted: bool,
    /// What was last said about the cluster's settings.
    pub(crate) warned: Vec<config::Problem>,
    /// What was said of failures lately.
    pub(crate) failures: Complaints,
    /// What must run beside the loop, for as long as it runs.
    background: JoinSet<()>,
    pub(crate) ways: Ways,
}

/// What the operating system told the daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM, SIGINT: hand over, stop Postgres, end.
    Stop,
    /// SIGHUP: read the configuration again.
    Reload,
}

/// What a node is made of.
pub struct Parts {
    /// The configuration in force.
    pub settings: Arc<Settings>,
    /// The store.
    pub dcs: Dcs,
    /// The store's watched view.
    pub seen: watch::Receiver<Seen>,
    /// The lease thread.
    pub keeper: Keeper,
    /// For asking other members.
    pub client: Client,
    /// What this node has promised.
    pub promises: Arc<Promises>,
    /// Where the status goes.
    pub status: watch::Sender<Arc<NodeStatus>>,
    /// Commands from the REST interface.
    pub inbox: mpsc::Receiver<Asked>,
    /// Signals.
    pub signals: mpsc::Receiver<Signal>,
    /// Somebody wants a fresh look.
    pub look: Arc<Notify>,
    /// Where the configuration is read again.
    pub source: Source,
    /// What the installed server knows.
    pub catalog: Catalog,
    /// What was already said about the cluster's settings.
    pub warned: Vec<config::Problem>,
    /// What must run beside the loop, for as long as it runs.
    pub background: JoinSet<()>,
    /// The ways to the stores.
    pub ways: Ways,
    /// Keeps the decisions.
    pub recorder: Recorder,
}

impl Node {
    /// Puts a node together; nothing runs yet.
    pub fn new(parts: Parts) -> Self {
        let document = publish::cached_document(&parts.settings.paths);
        let remembered = Remembered::load(&parts.settings.paths);
        Self {
            settings: parts.settings,
            dcs: parts.dcs,
            keeper: parts.keeper,
            instance: Instance::default(),
            consents: Consents::default(),
            crash: Crash::default(),
            jobs: Jobs::default(),
            peers: Peers::new(parts.client.clone()),
            failsafe: Failsafe::new(parts.promises, parts.client),
            seen: parts.seen,
            status: parts.status,
            past: Past { store: remembered.known(), ..Past::default() },
            remembered,
            ended: None,
            ending: None,
            requests: BTreeMap::new(),
            next_request: 1,
            leader_history: None,
            reading: lineage::Reading::default(),
            floor: None,
            sync: SyncWrites::default(),
            strangers: Strangers::default(),
            published: publish::Published::default(),
            last: None,
            recorder: parts.recorder,
            said: Moment::default(),
            wake: Moment::now(),
            idle: false,
            exit: None,
            document,
            scheduled_restart: None,
            patience: None,
            inbox: parts.inbox,
            signals: parts.signals,
            look: parts.look,
            alarm: Alarm::new(),
            source: parts.source,
            configure: false,
            pending: (BTreeMap::new(), Moment::default()),
            catalog: parts.catalog,
            unfitted: true,
            warned: parts.warned,
            failures: Complaints::default(),
            background: parts.background,
            ways: parts.ways,
        }
    }

    /// Runs until a decision ends the daemon; returns the exit status.
    pub async fn run(mut self) -> i32 {
        // A store that is slower than this is looked at as it is: away again.
        let mut told = self.seen.clone();
        let _ = tokio::time::timeout(FIRST_VIEW, told.wait_for(|seen| seen.view.is_some())).await;
        loop {
            if !(std::mem::take(&mut self.idle) && self.glance().await) {
                self.turn().await;
            }
            if let Some(code) = self.exit {
                return code;
            }
            self.wait().await;
            if let Some(code) = self.exit {
                return code;
            }
        }
    }

    /// A part of the daemon has ended, which is a bug. Nobody is left who would step down in
    /// time, so what may take writes is stopped now.
    async fn collapse(&mut self, part: &str) {
        tracing::error!(
            "{part} has ended, which is a bug of matriarch: the daemon ends and must be restarted"
        );
        disarm_by_force(&self.keeper.flags, &self.settings.paths).await;
        self.exit = Some(1);
    }

    /// Whether a primary takes clients on and nothing else can have changed: then there is nothing
    /// to decide, and only that is told.
    async fn glance(&mut self) -> bool {
        // Where commits wait for a standby, its end must be noticed at once.
        let waits = self.settings.cluster.synchronous_mode != config::SynchronousMode::Off;
        if waits || !self.instance.glance(&self.settings).await {
            return false;
        }
        self.keeper.flags.turned();
        let now = Moment::now();
        self.status.send_modify(|status| {
            let status = Arc::make_mut(status);
            (status.looked, status.last_turn) = (now, now);
        });
        true
    }

    /// The member of the embedded store in this process has ended: nobody may lead through it any more.
    async fn bereave(&mut self, why: &str) {
        tracing::error!(target: logs::CRITICAL, "the embedded store has ended in this process, so the daemon ends: {why}");
        disarm_by_force(&self.keeper.flags, &self.settings.paths).await;
        self.exit = Some(1);
    }

    /// Looks, decides, acts, tells.
    async fn turn(&mut self) {
        self.keeper.flags.turned();
        self.take_settings();
        self.instance.refresh(&self.settings).await;
        if std::mem::take(&mut self.unfitted) {
            self.fit().await;
        }
        if std::mem::take(&mut self.configure) {
            self.apply_settings().await;
        }
        self.look_for_pending().await;
        self.due_restart();
        let observation = self.observe().await;
        let decision = decide(&observation, &self.past);
        self.ended = None;
        let past = std::mem::replace(&mut self.past, decision.past.clone());
        self.remembered.keep(self.past.store);
        self.wake = decision.wake;
        self.say(&decision, observation.now);
        let obstacles = coordinator::obstacles(&observation);
        self.recorder.take(observation, past, &decision);
        self.act(&decision.steps).await;
        self.tell_the_impatient();
        self.last = Some(decision);
        self.tell(&obstacles).await;
    }

    /// Returns as soon as anything has happened that a decision could depend on.
    async fn wait(&mut self) {
        let now = Moment::now();
        let patience = self.patience.map(|(_, until)| until).filter(|until| *until > now);
        let wake = self.wake.min(now + if self.instance.answers() { PULSE } else { DOUBT });
        let wake = patience.map_or(wake, |until| wake.min(until));
        tokio::select! {
            Ok(()) = self.seen.changed() => {}
            told = self.keeper.tenure.changed() => if told.is_err() {
                self.collapse("the lease thread").await;
            },
            Some(_) = self.background.join_next() => self.collapse("a part beside the loop").await,
            why = self.ways.ended() => self.bereave(&why).await,
            () = self.published.written() => {}
            () = self.instance.exited() => {
                let expected = self.jobs.expects_end();
                if !expected {
                    tracing::error!("the postmaster has ended on its own");
                }
                self.instance.ended(expected);
            }
            () = self.crash.read() => {}
            (id, said) = self.consents.next() => self.consented(id, said),
            done = self.jobs.next() => self.finish(done),
            () = self.peers.next() => {}
            () = self.failsafe.next() => {}
            read = self.reading.next() => self.leader_history = read.or(self.leader_history.take()),
            Some(asked) = self.inbox.recv() => self.asked(asked).await,
            signal = self.signals.recv() => match signal {
                Some(Signal::Reload) => self.reload(),
                Some(Signal::Stop) | None => self.end(Wish::Stop),
            },
            () = self.look.notified() => {}
            () = self.alarm.at(wake) => self.idle = Moment::now() < self.wake,
        }
    }

    /// The cluster's settings follow the store; an unusable document leaves the last good one in force.
    fn take_settings(&mut self) {
        let view = self.seen.borrow_and_update().view.clone();
        let Some(document) = view.as_ref().and_then(|view| view.config.as_ref()).map(|config| &config.value)
        else {
            return;
        };
        if self.document.as_ref() == Some(document) && self.settings.cluster.document == *document {
            return;
        }
        let (cluster, mut problems) =
            config::ClusterConfig::from_document_after(document, &self.settings.cluster);
        problems.extend(self.settings.node.store.as_ref().and_then(|store| cluster.short_ttl(store)));
        if problems != self.warned {
            for problem in &problems {
                tracing::warn!("{problem}");
            }
            self.warned = problems;
        }
        if document.is_object() {
            self.document = Some(document.clone());
            publish::cache_document(&self.settings.paths, document);
        }
        if cluster != *self.settings.cluster {
            let settings =
                Settings::new(Arc::clone(&self.settings.node), Arc::new(cluster), self.settings.version);
            self.replace_settings(settings);
        }
    }

    fn finish(&mut self, done: crate::job::Done) {
        crate::act::merge(self, &done);
        // Without a data directory the server could not tell all that it knows.
        self.unfitted |= matches!(done.task, Task::Initdb | Task::Clone { .. });
        let failure = done.result.as_ref().err().map(|error| format!("{error:#}"));
        if let Some(failure) = &failure {
            tracing::error!("{} failed: {failure}", done.task);
        }
        if let Task::Restart { request: Some(id), .. } = &done.task
            && let Some((_, answer)) = self.requests.remove(id)
        {
            let reply = match &done.result {
                Ok(Gain::Starting(..)) => Reply::text(503, "postgres is still starting"),
                Ok(_) => Reply::text(200, "restarted successfully"),
                Err(_) => Reply::text(503, "restart failed"),
            };
            // Whoever asked may have gone away.
            let _ = answer.send(reply);
        }
        self.ended = Some(Outcome { task: done.task, at: Moment::now(), failure });
    }

    /// The open requests, oldest first, for the decisions.
    pub(crate) fn open_requests(&self) -> Vec<Request> {
        self.requests.values().map(|(request, _)| request.clone()).collect()
    }
}

/// Kills what of the instance may take writes, when nobody is left to decide about it.
pub async fn disarm_by_force(flags: &Flags, paths: &Paths) {
    if !flags.armed() {
        return;
    }
    match process::kill_all(paths, Duration::from_secs(10)).await {
        Ok(_) => flags.disarm(),
        Err(error) => tracing::error!("Postgres may still take writes without a lease: {error}"),
    }
}

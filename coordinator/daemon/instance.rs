//! The local Postgres as the daemon holds it: its postmaster, the monitoring
//! session, and what was last seen. It looks; it changes nothing.

use std::sync::Arc;
use std::time::Duration;

use coordinator::{Control, ControlState, Data, Process, Unfinished, Upstream};
use dcs::{Lsn, Moment, Timeline};

use crate::complaints::Complaints;
use crate::disk::{Contents, Disk, Found as OnDisk};
use crate::lease::chain;
use crate::postgres::controldata::{self, ControlFile, State};
use crate::postgres::door;
use crate::postgres::look::Look;
use crate::postgres::process::{self, Found, Postmaster};
use crate::postgres::query::{Session, Terms};
use crate::postgres::rewind;
use crate::settings::Settings;

/// How long one look may take. A server that is slower counts as silent.
const LOOK: Duration = Duration::from_millis(400);
/// How long a primary may let nobody in before it counts as silent: its open sessions may
/// answer on while no client can connect (F38). Two knocks in a row fail within it.
const SHUT: Duration = Duration::from_millis(1500);
/// How often a primary is knocked at.
const KNOCK: Duration = Duration::from_millis(300);
/// How long a primary's last full answer stands while nothing happens and it lets clients in.
const ANSWER: Duration = Duration::from_millis(1900);
/// How long a hung disk is put up with at least (F108).
const HUNG: Duration = Duration::from_secs(10);
/// How often a silent server is tried again.
const RETRY: Duration = Duration::from_millis(100);
/// Bytes of WAL recovered per second, as long as nothing was measured here.
const ASSUMED_RATE: u64 = 64 << 20;

/// The local Postgres.
#[derive(Debug, Default)]
pub struct Instance {
    postmaster: Option<Arc<Postmaster>>,
    session: Option<Arc<Session>>,
    look: Option<(Moment, Look)>,
    process: Option<Process>,
    silent_since: Option<Moment>,
    /// A signal has stopped the postmaster.
    frozen: bool,
    crashed: Option<Moment>,
    /// When the last postmaster ended, until one answers again.
    down: Option<Moment>,
    try_again: Moment,
    last_flush: Lsn,
    /// The highest timeline that this server was seen on.
    timeline: Timeline,
    control: Option<ControlFile>,
    end: Option<Lsn>,
    end_sought: bool,
    /// Whom the configuration files make the server follow.
    following: Option<Option<Upstream>>,
    disk: Disk,
    /// When a new connection was last answered.
    open: Moment,
    /// When the last full answer was asked for.
    asked: Moment,
    said: Complaints,
}

impl Instance {
    /// Looks at the processes and, if a postmaster runs, asks it.
    pub async fn refresh(&mut self, settings: &Settings) {
        if self.postmaster.is_none() {
            self.find(settings);
        }
        self.frozen = self.postmaster.as_ref().is_some_and(|postmaster| postmaster.is_frozen());
        if self.frozen {
            // Its open sessions may answer on while it lets nobody in (F38).
            self.silent(Moment::now());
        } else if self.postmaster.is_some() {
            self.ask(settings).await;
        }
        // A server that answers is the better witness.
        self.disk.look(&settings.paths, self.look.is_none()).await;
        if self.postmaster.is_none() && self.control.is_none() {
            self.read_control(settings).await;
        }
    }

    fn find(&mut self, settings: &Settings) {
        match process::find(&settings.paths) {
            Ok(Found::Running(postmaster)) => self.started(Arc::new(postmaster), None),
            Ok(Found::Leftovers) => self.process = Some(Process::Remnants),
            Ok(Found::Nothing(_)) => self.process = Some(Process::Gone),
            Err(error) => {
                // Unknown is not gone: keep the last finding, and never take it for an end.
                let error = chain(&error);
                if self.said.news("processes", &error, Moment::now()) {
                    tracing::warn!(error, "the processes of the instance cannot be listed");
                }
                self.process.get_or_insert(Process::Remnants);
            }
        }
    }

    async fn ask(&mut self, settings: &Settings) {
        let now = Moment::now();
        if self.session.as_ref().is_none_or(|session| !session.is_usable()) {
            self.session = None;
            if now < self.try_again {
                return;
            }
            let terms = Terms { deadline: LOOK, ..Terms::default() };
            match Session::open(&settings.local(), terms).await {
                Ok(session) => {
                    self.session = Some(Arc::new(session));
                    self.open = now;
                }
                Err(_) => return self.silent(now),
            }
        }
        let Some(session) = &self.session else { return };
        // Its deadline is the session's.
        match session.look().await {
            Ok(mut look) => {
                let at = if look.in_recovery { now } else { self.knock(settings, now).await };
                if now.since(at) > SHUT {
                    return self.silent(now);
                }
                self.asked = now;
                self.last_flush = look.position();
                // A standby whose stream has ended tells the timeline of its last restart point,
                // which can be older than what it received; and timelines are compared in elections.
                look.timeline = look.timeline.max(self.timeline);
                self.timeline = look.timeline;
                self.look = Some((at, look));
                self.silent_since = None;
                self.crashed = None;
                self.down = None;
            }
            Err(_) => self.silent(now),
        }
    }

    /// Whether a primary that answered lately was just seen to let clients in: while nothing
    /// happens, that says enough for a while.
    pub async fn glance(&mut self, settings: &Settings) -> bool {
        let now = Moment::now();
        let lately = now.since(self.asked) < ANSWER.min(settings.cluster.loop_wait);
        let primary = self.look.as_ref().is_some_and(|(_, look)| !look.in_recovery);
        let usable = self.session.as_ref().is_some_and(|session| session.is_usable());
        if !(lately && primary && usable) || self.knock(settings, now).await != now {
            return false;
        }
        if let Some((at, _)) = &mut self.look {
            *at = now;
        }
        true
    }

    /// Whether the server answered the last time, and a primary let us in.
    pub fn answers(&self) -> bool {
        self.look.as_ref().is_some_and(|(at, look)| look.in_recovery || *at >= self.asked)
    }

    /// The last moment, at most `now`, at which the server was seen to let clients in.
    async fn knock(&mut self, settings: &Settings, now: Moment) -> Moment {
        if now.since(self.open) >= KNOCK && door::knock(&settings.local(), LOOK).await.is_ok() {
            self.open = now;
        }
        self.open.min(now)
    }

    fn silent(&mut self, now: Moment) {
        self.look = None;
        self.silent_since.get_or_insert(now);
        self.try_again = now + RETRY;
    }

    async fn read_control(&mut self, settings: &Settings) {
        if self.disk.found().is_none_or(|found| found.head.is_none()) || Moment::now() < self.try_again {
            return;
        }
        match controldata::read(&settings.paths).await {
            Ok(control) => self.control = Some(control),
            Err(error) => {
                let error = chain(&error);
                let now = Moment::now();
                self.try_again = now + Duration::from_secs(1);
                if self.said.news("pg_control", &error, now) {
                    tracing::warn!(error, "pg_control cannot be read");
                }
            }
        }
    }

    /// Reads where a stopped primary's history ends, once.
    pub async fn read_end(&mut self, settings: &Settings) {
        let Some(control) = &self.control else { return };
        if self.end.is_some() || self.end_sought || self.postmaster.is_some() {
            return;
        }
        self.end_sought = true;
        if settings.paths.standby_signal().exists() {
            // What ran last was a standby: its log is the leader's, whatever its end is.
            return;
        }
        let end = match control.state {
            State::ShutDown => rewind::end_of_checkpoint(&settings.paths, control).await.map(Some),
            State::InProduction => rewind::end_of_wal(&settings.paths, control, control.redo).await,
            _ => return,
        };
        match end {
            Ok(end) => self.end = end,
            Err(error) => tracing::warn!(error = %chain(&error), "the end of the log cannot be read"),
        }
    }

    /// A postmaster was started, or found running.
    pub fn started(&mut self, postmaster: Arc<Postmaster>, following: Option<Option<Upstream>>) {
        self.postmaster = Some(postmaster);
        self.process = Some(Process::Postmaster);
        self.session = None;
        self.look = None;
        self.timeline = Timeline::default();
        self.control = None;
        self.end = None;
        self.end_sought = false;
        self.silent_since = None;
        self.crashed = None;
        self.try_again = Moment(0);
        self.following = following;
        self.disk.forget();
    }

    /// The postmaster ended; what else runs is found by the next look.
    pub fn ended(&mut self, expected: bool) {
        self.forget();
        let now = Moment::now();
        self.down = Some(now);
        if !expected {
            self.crashed = Some(now);
        }
    }

    /// A job failed. It may have started a server that took writes, and ended.
    pub fn lost(&mut self) {
        self.forget();
        self.down = self.down.map(|_| Moment::now());
    }

    /// The data directory was moved, filled or rewound: nothing read before holds.
    pub fn forget(&mut self) {
        let (crashed, down, last_flush) = (self.crashed, self.down, self.last_flush);
        let (mut disk, said) = (std::mem::take(&mut self.disk), std::mem::take(&mut self.said));
        disk.forget();
        *self = Self { crashed, down, last_flush, disk, said, ..Self::default() };
    }

    /// What lies on the disk has changed.
    pub fn rewritten(&mut self) {
        self.disk.forget();
    }

    /// What lies on the disk.
    pub fn on_disk(&self) -> Option<&OnDisk> {
        self.disk.found()
    }

    /// Returns once the postmaster has ended; never, if none runs.
    pub async fn exited(&self) {
        match &self.postmaster {
            Some(postmaster) => postmaster.exited().await,
            None => std::future::pending().await,
        }
    }

    /// The running postmaster.
    pub fn postmaster(&self) -> Option<Arc<Postmaster>> {
        self.postmaster.clone()
    }

    /// The monitoring session.
    pub fn session(&self) -> Option<Arc<Session>> {
        self.session.clone()
    }

    /// What SQL last said, and when.
    pub fn look(&self) -> Option<&(Moment, Look)> {
        self.look.as_ref()
    }

    /// The processes.
    pub fn process(&self) -> Process {
        self.process.unwrap_or(Process::Remnants)
    }

    /// Since when SQL has not answered.
    pub fn silent_since(&self) -> Option<Moment> {
        self.silent_since
    }

    /// Whether a signal has stopped the postmaster.
    pub fn frozen(&self) -> bool {
        self.frozen
    }

    /// When the postmaster ended on its own.
    pub fn crashed(&self) -> Option<Moment> {
        self.crashed
    }

    /// How far the server is known to have written, or received, before it ended.
    pub fn written(&self) -> Lsn {
        self.last_flush
    }

    /// When the last postmaster ended, until one answers again.
    pub fn down(&self) -> Option<Moment> {
        self.down
    }

    /// Whom the server follows; read from its files if it was found running.
    pub fn following(&mut self, read: impl FnOnce() -> Option<Upstream>) -> Option<Upstream> {
        self.following.get_or_insert_with(read).clone()
    }

    /// The configuration files now make it follow somebody else.
    pub fn follows(&mut self, upstream: Option<Upstream>) {
        self.following = Some(upstream);
        self.disk.forget();
    }

    /// The data directory, as it is now.
    pub fn data(&self, settings: &Settings, unfinished: Option<Unfinished>) -> Data {
        let dir = settings.paths.data_dir.display();
        let hangs = self.disk.hangs();
        let Some(found) = self.disk.found().filter(|_| hangs < settings.cluster.ttl.max(HUNG)) else {
            return Data::Unreadable(format!("{dir}: the disk has not answered for {} s", hangs.as_secs()));
        };
        match &found.contents {
            Contents::Nothing => return Data::Empty,
            Contents::Unreadable(why) => return Data::Unreadable(format!("{dir}: {why}")),
            Contents::Something => {}
        }
        if let Some(unfinished) = unfinished {
            return Data::Unfinished(unfinished);
        }
        let Some(head) = found.head else {
            let what = "it holds files, but no readable global/pg_control";
            return Data::Unreadable(format!("{dir}: {what}"));
        };
        let end = self.end.filter(|_| matches!(head.state, State::ShutDown | State::InProduction));
        Data::Present(Control {
            system_id: head.system_id,
            state: state(head.state),
            timeline: head.timeline,
            checkpoint: head.checkpoint,
            end,
            minimum_recovery: self
                .control
                .as_ref()
                .map(|control| (control.min_recovery_timeline, control.min_recovery))
                .filter(|(timeline, _)| timeline.0 > 0),
            standby_signal: found.standby_signal,
            backup_label: found.backup_label,
            rewindable: self.control.as_ref().is_none_or(ControlFile::allows_rewind),
            to_recover: self.last_flush.ahead_of(head.redo),
            recovery_rate: ASSUMED_RATE,
        })
    }
}

fn state(state: State) -> ControlState {
    match state {
        State::ShutDown => ControlState::ShutDown,
        State::ShutDownInRecovery => ControlState::ShutDownInRecovery,
        State::InArchiveRecovery => ControlState::InArchiveRecovery,
        State::InProduction => ControlState::InProduction,
        _ => ControlState::Other,
    }
}

//! A simulated Postgres: a write-ahead log with its branches, a data directory,
//! processes. Two logs are the same only where their branches were minted by the
//! same promotion; timeline numbers alone say nothing, as in reality.

use std::collections::BTreeMap;

use coordinator::{Control, ControlState, Data, Process, Unfinished, Upstream};
use dcs::{Epoch, Lsn, Moment, SystemId, Timeline};

/// One timeline of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Branch {
    /// Its number.
    pub timeline: u32,
    /// Which promotion made it.
    pub mint: u64,
    /// Where it begins.
    pub from: u64,
}

/// A write-ahead log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wal {
    /// Its timelines, oldest first; never empty.
    pub branches: Vec<Branch>,
    /// Its flushed end.
    pub end: u64,
}

impl Wal {
    pub fn last(&self) -> &Branch {
        self.branches.last().expect("a log has a branch")
    }

    pub fn timeline(&self) -> Timeline {
        Timeline(self.last().timeline)
    }

    /// Past timelines and where they were left.
    pub fn switches(&self) -> Vec<(Timeline, Lsn)> {
        self.branches.windows(2).map(|pair| (Timeline(pair[0].timeline), Lsn(pair[1].from))).collect()
    }

    /// How far this log and another are the same.
    pub fn common(&self, other: &Wal) -> u64 {
        let mut until = 0;
        for (index, (mine, theirs)) in self.branches.iter().zip(&other.branches).enumerate() {
            if mine != theirs {
                break;
            }
            let end = |wal: &Wal| wal.branches.get(index + 1).map_or(wal.end, |next| next.from);
            until = end(self).min(end(other));
            if end(self) != end(other) {
                break;
            }
        }
        until
    }

    /// Whether all of this log is part of another.
    pub fn is_part_of(&self, other: &Wal) -> bool {
        self.common(other) == self.end
    }

    /// Whether all that a history file tells of this log is so of the other too.
    pub fn is_like(&self, other: &Wal) -> bool {
        let told = |branch: &Branch| (branch.timeline, branch.from);
        let mut pairs = self.branches.iter().zip(&other.branches);
        self.branches.len() <= other.branches.len() && pairs.all(|(one, other)| told(one) == told(other))
    }

    /// Cuts the log off at a position.
    pub fn cut(&mut self, at: u64) {
        self.branches.retain(|branch| branch.from < at || branch.from == 0);
        self.end = self.end.min(at);
    }
}

/// What lies in a data directory.
#[derive(Debug, Clone)]
pub struct Dir {
    pub system_id: SystemId,
    pub wal: Wal,
    pub state: ControlState,
    pub checkpoint: u64,
    pub signal: bool,
    pub marker: Option<Unfinished>,
    pub rewindable: bool,
    /// A copy that has not recovered yet.
    pub label: bool,
    /// A repaired server must pass this before it counts.
    pub floor: Option<Lsn>,
    /// It has checkpointed on its last timeline.
    pub settled: bool,
    pub to_recover: u64,
}

/// How many bytes of log are recovered in a simulated second.
pub const RECOVERY_RATE: u64 = 100;

impl Dir {
    /// A server's directory that stopped in `state` at the end of `wal`.
    pub fn new(system_id: SystemId, wal: Wal, state: ControlState) -> Self {
        Self {
            system_id,
            checkpoint: wal.end.saturating_sub(0x28),
            wal,
            state,
            signal: false,
            marker: None,
            rewindable: true,
            label: false,
            floor: None,
            settled: true,
            to_recover: 0,
        }
    }

    pub fn control(&self) -> Control {
        Control {
            system_id: self.system_id,
            state: self.state,
            timeline: self.wal.timeline(),
            checkpoint: Lsn(self.checkpoint),
            end: (!self.label).then_some(Lsn(self.wal.end)),
            minimum_recovery: Some((self.wal.timeline(), Lsn(self.wal.end))),
            standby_signal: self.signal,
            backup_label: self.label,
            rewindable: self.rewindable,
            to_recover: self.to_recover,
            recovery_rate: RECOVERY_RATE,
        }
    }

    /// A checkpoint record at the end, as a clean stop writes it.
    pub fn shutdown_checkpoint(&mut self) {
        self.checkpoint = self.wal.end;
        self.wal.end += 0x28;
        self.state = ControlState::ShutDown;
    }
}

/// The directory and the processes of one host.
#[derive(Debug, Clone)]
pub struct Server {
    pub dir: Option<Dir>,
    /// People must look.
    pub unreadable: bool,
    pub process: Process,
    pub primary: bool,
    /// It took writes while nothing on its host could end a reign, and does still.
    pub unwatched: bool,
    /// SQL does not answer although the postmaster runs, since then.
    pub hung: Option<Moment>,
    /// Because a signal has stopped the postmaster.
    pub suspended: bool,
    pub crashed: Option<Moment>,
    pub down: Option<Moment>,
    pub upstream: Option<Upstream>,
    pub streaming: bool,
    /// Replication does not move, for whatever reason.
    pub frozen: bool,
    pub slots: BTreeMap<String, Lsn>,
    /// The first file of its last timeline has not arrived whole: promoted it panics, and until it streams again it
    /// is never consistent.
    pub torn: bool,
    /// `synchronous_standby_names`.
    pub names: String,
    /// Earlier ones, and until when some process works by each.
    pub stragglers: Vec<(Moment, String)>,
    /// When WAL that is on its way arrives.
    pub arrives: Option<Moment>,
    /// Bytes that are here and not replayed.
    pub unreplayed: u64,
    /// Replay is paused.
    pub replay_paused: bool,
    /// The reign under which it was last made to take writes.
    pub reign: Option<Epoch>,
    /// Its recovery ends then, for this reign, above this timeline.
    pub promotes: Option<(Moment, Epoch, Timeline)>,
    /// What is being started will not come up, for this reason.
    pub doomed: Option<String>,
    /// Somebody streams under the name of this member.
    pub stranger: Option<String>,
    /// A person has changed for whom commits wait.
    pub by_hand: bool,
    /// By how many bytes what it says it has on disk lags.
    pub slack: u64,
    /// Commits that nobody was told of yet.
    pub waiting: Vec<Wal>,
    /// It lets no clients in.
    pub closed: bool,
    /// What clients could not read before it was stopped, and can when it is open.
    pub unread: Option<Wal>,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            dir: None,
            unreadable: false,
            process: Process::Gone,
            primary: false,
            unwatched: false,
            hung: None,
            suspended: false,
            crashed: None,
            down: None,
            upstream: None,
            streaming: false,
            frozen: false,
            slots: BTreeMap::new(),
            torn: false,
            names: String::new(),
            stragglers: Vec::new(),
            arrives: None,
            unreplayed: 0,
            replay_paused: false,
            reign: None,
            promotes: None,
            doomed: None,
            stranger: None,
            by_hand: false,
            slack: 0,
            waiting: Vec::new(),
            closed: false,
            unread: None,
        }
    }
}

impl Server {
    pub fn data(&self, bootstrapping: bool) -> Data {
        if self.unreadable {
            return Data::Unreadable("pg_control cannot be read".into());
        }
        match &self.dir {
            None => Data::Empty,
            Some(dir) => match dir.marker {
                Some(Unfinished::Bootstrap) if bootstrapping => Data::Present(dir.control()),
                Some(unfinished) => Data::Unfinished(unfinished),
                None => Data::Present(dir.control()),
            },
        }
    }

    /// Takes writes now, as far as Postgres is concerned.
    pub fn writable(&self) -> bool {
        self.process == Process::Postmaster && self.primary
    }

    /// Answers SQL.
    pub fn answers(&self) -> bool {
        self.process == Process::Postmaster && self.hung.is_none()
    }

    /// The processes are gone without a clean stop.
    pub fn crash(&mut self, left: Process) {
        if self.process == Process::Gone {
            return;
        }
        self.process = left;
        self.promotes = None;
        self.waiting.clear();
        self.streaming = false;
        self.hung = None;
        self.suspended = false;
    }

    /// A clean stop.
    pub fn stop(&mut self) {
        if self.process == Process::Postmaster
            && let Some(dir) = &mut self.dir
        {
            if self.primary {
                dir.shutdown_checkpoint();
                dir.to_recover = 0;
            } else {
                dir.state = ControlState::ShutDownInRecovery;
            }
        }
        self.process = Process::Gone;
        self.promotes = None;
        self.waiting.clear();
        self.streaming = false;
        self.hung = None;
        self.suspended = false;
    }

    /// A start, as a standby or as a primary.
    pub fn start(&mut self, primary: bool, upstream: Option<Upstream>) {
        if let Some(dir) = &mut self.dir {
            dir.signal = !primary;
            dir.label = false;
            dir.to_recover = 0;
            dir.state = if primary { ControlState::InProduction } else { ControlState::InArchiveRecovery };
        }
        self.process = Process::Postmaster;
        self.closed = false;
        self.stragglers.clear();
        self.primary = primary;
        self.crashed = None;
        self.down = None;
        self.hung = None;
        self.suspended = false;
        self.streaming = false;
        self.upstream = upstream;
    }

    /// Ends recovery on a new timeline.
    pub fn promote(&mut self, mint: u64, above: Timeline) {
        let Some(dir) = &mut self.dir else { return };
        let timeline = dir.wal.last().timeline.max(above.0) + 1;
        dir.wal.branches.push(Branch { timeline, mint, from: dir.wal.end });
        dir.wal.end += 0x30;
        dir.signal = false;
        dir.state = ControlState::InProduction;
        dir.settled = false;
        dir.floor = None;
        self.primary = true;
        self.upstream = None;
        self.streaming = false;
    }
}

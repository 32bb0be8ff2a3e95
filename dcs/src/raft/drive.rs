//! The raft thread: the only place that owns raft, the log and the state made of it. It takes what comes, lets time
//! pass in ticks, and ends with a reason; it waits for nothing else, and no connection waits for it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use raft::eraftpb::{ConfState, Message, MessageType};
use raft::{RawNode, ReadOnlyOption, SnapshotStatus, StateRole};

use super::command::{Command, Id, What};
use super::frame::Word;
use super::lease::Countdown;
use super::log::{Log, LogError};
use super::logger;
use super::machine::Machine;
use super::members::REMOVED;
use super::pending::{Answer, Pending, Reading, Waiting};
use super::request::{Reply, Request};
use super::wire::{Input, Wire};
use crate::Moment;
use crate::store::StoreError;

/// How many inputs are taken before what they caused is written: they share one commit to disk.
const BATCH: usize = 256;
/// The longest command, in bytes.
const LONGEST: usize = 1 << 20;
/// How many requests may wait at once.
const MOST: usize = 4096;

/// Why the raft thread ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum DriveError {
    #[error(transparent)]
    Log(#[from] LogError),
    #[error("the embedded store's consensus failed: {0}")]
    Raft(#[from] raft::Error),
    #[error(
        "entry {0} of the embedded store's log cannot be understood: it was written by a newer version; use the same version on \
         every node"
    )]
    Unreadable(u64),
    #[error("the system gives no random numbers")]
    Random,
}

/// How time passes for raft.
#[derive(Debug, Clone, Copy)]
pub(super) struct Timing {
    pub tick: Duration,
    /// Ticks without a leader before an election, at least and at most.
    pub election: (usize, usize),
    pub heartbeat: usize,
}

/// The raft thread's state.
pub(super) struct Drive {
    pub wire: Arc<Wire>,
    pub raw: RawNode<Log>,
    pub machine: Machine,
    pub applied: u64,
    pub conf: ConfState,
    /// Whether a snapshot must be taken whatever the log's length.
    pub reformed: bool,
    pub countdown: Countdown,
    pub pending: Pending,
    /// Who asks to be let in.
    pub joins: BTreeMap<u64, String>,
    /// When each member was last heard.
    pub heard: BTreeMap<u64, Moment>,
    /// When each request to remove a member came.
    pub leaving: BTreeMap<Id, Moment>,
    /// The change of members that the leader wants to make by itself.
    pub wanted: Option<Command>,
    pub timing: Timing,
    /// Drawn at the start, so that nothing of an earlier life is mistaken for this one's.
    start: u64,
    seq: u64,
    next_tick: Moment,
    /// Term, leader, and whether that is us and serves.
    seen: (u64, u64, bool),
    /// Since when there is no leader.
    pub lost: Option<Moment>,
    /// When that was last said.
    pub said: Option<Moment>,
}

impl Drive {
    /// Takes a log up where it ended.
    pub fn new(wire: Arc<Wire>, log: Log, timing: Timing) -> Result<Self, DriveError> {
        let meta = log.snapshot().get_metadata().clone();
        let machine = match meta.index {
            0 => Machine::new(BTreeMap::new()),
            index => {
                serde_json::from_slice(&log.snapshot().data).map_err(|_| DriveError::Unreadable(index))?
            }
        };
        let config = raft::Config {
            id: log.identity.member,
            applied: meta.index,
            election_tick: timing.election.0,
            min_election_tick: timing.election.0,
            max_election_tick: timing.election.1,
            heartbeat_tick: timing.heartbeat,
            pre_vote: true,
            check_quorum: true,
            read_only_option: ReadOnlyOption::Safe,
            max_size_per_msg: 1 << 20,
            max_inflight_msgs: 64,
            max_uncommitted_size: 16 << 20,
            ..raft::Config::default()
        };
        let raw = RawNode::new(&config, log, &logger::logger())?;
        let now = Moment::now();
        let mut drive = Self {
            start: super::random().ok_or(DriveError::Random)?,
            conf: meta.get_conf_state().clone(),
            countdown: Countdown::start(&machine, Moment::unslewed()),
            applied: meta.index,
            reformed: false,
            pending: Pending::default(),
            joins: BTreeMap::new(),
            heard: BTreeMap::new(),
            leaving: BTreeMap::new(),
            wanted: None,
            seq: 0,
            next_tick: now,
            seen: (0, 0, false),
            lost: Some(now),
            said: None,
            wire,
            raw,
            machine,
            timing,
        };
        drive.wire.ring.restart(drive.machine.revision);
        drive.tell_members();
        // Alone there is nobody to wait for.
        if drive.conf.voters == [drive.wire.member] {
            drive.raw.campaign()?;
        }
        Ok(drive)
    }

    /// Runs until it is stopped or cannot go on.
    pub fn run(&mut self, inputs: &Receiver<Input>) -> Result<(), DriveError> {
        loop {
            let wait = Moment::now().until(self.next_tick);
            let mut next = match inputs.recv_timeout(wait) {
                Ok(input) => Some(input),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            };
            for _ in 0..BATCH {
                match next.take() {
                    Some(Input::Stop) => return Ok(()),
                    Some(input) => self.take(input)?,
                    None => break,
                }
                next = inputs.try_recv().ok();
            }
            if let Some(input) = next {
                if matches!(input, Input::Stop) {
                    return Ok(());
                }
                self.take(input)?;
            }
            let now = Moment::now();
            if now >= self.next_tick {
                // What was missed while this process did not run is not caught up: nobody was heard meanwhile.
                self.next_tick = now + self.timing.tick;
                self.tick(now)?;
            }
            self.turn(now);
            self.propose_due(now)?;
            self.pending.confirm(&mut self.raw, self.wire.member, self.start, now);
            while self.raw.has_ready() {
                self.settle()?;
                self.turn(now);
            }
            self.answer_reads();
        }
    }

    fn take(&mut self, input: Input) -> Result<(), DriveError> {
        match input {
            Input::Message(message) => return self.hear(*message),
            Input::Request { request, end, reply } => self.request(request, end, reply),
            Input::Forwarded { from, command } => {
                let id = command.id;
                if let Some(refused) = self.propose(&command)? {
                    self.wire.say(from, Word::Turned { id, refused: refused.0 });
                }
            }
            Input::Turned { id, refused: Some(why) } => self.pending.refuse(id, why),
            Input::Turned { id, refused: None } => {
                self.pending.put_off(id, Moment::now(), self.timing.tick);
            }
            Input::Join { member, address } => {
                if self.leads() {
                    self.joins.insert(member, address);
                } else {
                    self.wire.say(self.raw.raft.leader_id, Word::Join { member, address });
                }
            }
            Input::Abdicate => self.abdicate(),
            Input::Unreachable(member) => self.raw.report_unreachable(member),
            Input::Sent { to, whole } => {
                let status = if whole { SnapshotStatus::Finish } else { SnapshotStatus::Failure };
                self.raw.report_snapshot(to, status);
            }
            Input::Formed { .. } | Input::Stop => {}
        }
        Ok(())
    }

    /// A message of another member's raft.
    fn hear(&mut self, message: Message) -> Result<(), DriveError> {
        self.heard.insert(message.from, Moment::now());
        let last = self.raw.raft.raft_log.last_index();
        if message.get_msg_type() == MessageType::MsgHeartbeat && message.commit > last {
            // A leader counts on entries of ours that we do not have: our disk forgot them.
            let (have, wanted) = (last, message.commit);
            tracing::error!(
                "the leader of the embedded store believes that this member has entry {wanted}, but it has only {have}: its data_dir \
                 is not the one it had; stop this member, move its data_dir away and start it again"
            );
            return Ok(());
        }
        match self.raw.step(message) {
            Ok(())
            | Err(raft::Error::StepPeerNotFound | raft::Error::StepLocalMsg | raft::Error::ProposalDropped) => {
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Takes a request of a client of this member.
    pub fn request(&mut self, request: Request, end: Moment, reply: Answer) {
        if self.is_removed() {
            let _ = reply.send(Err(StoreError::Unreachable(REMOVED.to_owned())));
            return;
        }
        let what = match request {
            Request::Run(What::Commit(txn)) if txn.then.is_empty() => {
                return self.pending.read(Reading { request: Request::Look(txn), reply, end });
            }
            Request::Run(what) => what,
            Request::Load { .. } | Request::Look(_) | Request::Lease { .. } | Request::Length => {
                return self.pending.read(Reading { request, reply, end });
            }
            Request::Members => {
                // A member that joins knows nobody yet: another one is to be asked.
                let nobody = || StoreError::Unreachable("this member does not know the store yet".to_owned());
                let members = Some(self.members()).filter(|members| !members.is_empty());
                let _ = reply.send(members.map(Reply::Members).ok_or_else(nobody));
                return;
            }
            Request::Introduce | Request::Watch { .. } => {
                let _ = reply.send(Err(StoreError::Refused("this is no request for the log".to_owned())));
                return;
            }
        };
        let command = self.command(what);
        let size = serde_json::to_vec(&command).map_or(usize::MAX, |bytes| bytes.len());
        if size > LONGEST {
            let why = format!("it has {size} bytes, and the embedded store takes {LONGEST} at once");
            let _ = reply.send(Err(StoreError::Refused(why)));
        } else if self.pending.len() >= MOST {
            let _ = reply.send(Err(StoreError::Unreachable(format!("{MOST} requests wait already"))));
        } else {
            let waiting = Waiting { command: command.clone(), reply, end, asked: None, proposals: 0 };
            self.pending.commands.insert(command.id, waiting);
        }
    }

    pub fn command(&mut self, what: What) -> Command {
        self.seq += 1;
        let id = Id { client: self.start, seq: self.seq };
        Command { id, after: self.raw.raft.raft_log.committed, what }
    }

    /// Sends what waits to the leader, or proposes it if that is us.
    fn propose_due(&mut self, now: Moment) -> Result<(), DriveError> {
        let leader = self.raw.raft.leader_id;
        if leader == raft::INVALID_ID {
            return Ok(());
        }
        for id in self.pending.due(now) {
            let Some(waiting) = self.pending.commands.get_mut(&id) else { continue };
            let command = waiting.command.clone();
            if leader != self.wire.member {
                if self.wire.say(leader, Word::Propose(command)) {
                    waiting.proposals += 1;
                    waiting.asked = Some(now);
                }
                continue;
            }
            waiting.asked = Some(now);
            match self.propose(&command)? {
                None => {
                    if let Some(waiting) = self.pending.commands.get_mut(&id) {
                        waiting.proposals += 1;
                    }
                }
                Some(Turned(Some(why))) => self.pending.refuse(id, why),
                Some(Turned(None)) => self.pending.put_off(id, now, self.timing.tick),
            }
        }
        Ok(())
    }

    /// Proposes a command if this member leads; otherwise, or if it must not happen, says so.
    pub fn propose(&mut self, command: &Command) -> Result<Option<Turned>, DriveError> {
        if !self.leads() {
            return Ok(Some(Turned(None)));
        }
        if self.machine.outcome(command).is_some() {
            return Ok(None);
        }
        if command.what.is_change() {
            return self.propose_change(command);
        }
        let bytes = serde_json::to_vec(command).unwrap_or_default();
        match self.raw.propose(Vec::new(), bytes) {
            Ok(()) => Ok(None),
            Err(raft::Error::ProposalDropped) => Ok(Some(Turned(None))),
            Err(error) => Err(error.into()),
        }
    }

    pub fn leads(&self) -> bool {
        self.raw.raft.state == StateRole::Leader
    }

    /// Whether this member leads and has applied an entry of its own term, and with it all that was committed before.
    pub fn serves(&self) -> bool {
        self.leads() && self.raw.raft.apply_to_current_term()
    }

    fn tick(&mut self, now: Moment) -> Result<(), DriveError> {
        self.raw.tick();
        if self.serves() {
            for (lease, generation) in self.countdown.due(&self.machine, Moment::unslewed()) {
                let command = self.command(What::Revoke { lease, generation: Some(generation) });
                self.propose(&command)?;
            }
            self.tend(now)?;
        }
        self.pending.expire(now, "the embedded store did not reach a quorum in time");
        self.tell_presence(now);
        Ok(())
    }

    /// Whatever waits is asked again as soon as the leader is another one, or begins to serve.
    fn turn(&mut self, now: Moment) {
        let seen = (self.raw.raft.term, self.raw.raft.leader_id, self.serves());
        if seen == self.seen {
            return;
        }
        let (term, leader, serves) = seen;
        if (term, leader) != (self.seen.0, self.seen.1) && leader != raft::INVALID_ID {
            let name = self.machine.members.get(&leader).map_or("a member not yet known", String::as_str);
            tracing::info!("{name} leads the embedded store in term {term}");
        }
        if leader == self.wire.member && serves && !self.seen.2 {
            self.heard.values_mut().for_each(|heard| *heard = now);
        }
        self.seen = seen;
        self.pending.turn();
        self.tell_presence(now);
    }

    fn answer_reads(&mut self) {
        for Reading { request, reply, .. } in self.pending.ready(self.applied) {
            let _ = reply.send(match request {
                Request::Load { prefix } => Ok(Reply::Loaded(self.machine.load(&prefix))),
                Request::Look(txn) => Ok(Reply::Committed(self.machine.look(&txn))),
                Request::Lease { lease } => Ok(Reply::Lease(self.machine.lease(lease))),
                Request::Length => Ok(Reply::Length(self.applied)),
                _ => Err(StoreError::Refused("this is no read".to_owned())),
            });
        }
    }
}

/// A command was not proposed: refused for a reason, or only not now and not here.
pub(super) struct Turned(pub Option<String>);

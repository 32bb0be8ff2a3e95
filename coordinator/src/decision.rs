//! What a turn may ask for, and why: plain data that prints as one line.
//!
//! Steps run in order, the first failure ends the turn, and the next turn looks
//! again. A step carries all its parameters; whoever runs it chooses nothing.

use alloc::collections::BTreeSet;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use config::NodeName;
use dcs::{Claim, Epoch, Lsn, Moment, Revision, SyncState, SystemId, Timeline};
use serde::{Deserialize, Serialize};

use crate::local::Upstream;
use crate::observation::Observation;
use crate::past::Past;
use crate::reason::Reason;
use crate::slots::SlotChange;

/// The outcome of one turn of judgement.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    /// What to do, in this order.
    pub steps: Vec<Step>,
    /// Why.
    pub because: Reason,
    /// When to ask again at the latest.
    pub wake: Moment,
    /// What to remember.
    pub past: Past,
}

/// One thing to do now. Each is quick; what takes long is a [`Task`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Step {
    /// Create the empty `initialize` key, under this node's lease, if nobody has.
    ClaimInitialize,
    /// Write the system identifier into `initialize`.
    WriteInitialize(SystemId),
    /// Give `initialize` back after a failed bootstrap.
    GiveUpInitialize,
    /// Write the node's own copy of the dynamic configuration into `config`.
    RestoreConfig,
    /// Take the leader lease if nobody holds it.
    /// The timeline that it claims with it is nobody else's, whether or not this node lives to tell of it.
    Acquire(Claim),
    /// Claim another timeline in a reign that goes on: the one that was claimed with the lease is used up.
    ClaimTimeline(Claim),
    /// Put the leader key, which names this node, under its present lease.
    Adopt {
        /// The mod revision that the key must still have.
        revision: Revision,
    },
    /// Give the lease up, telling the position at which this server stopped.
    Release {
        /// End of the shutdown checkpoint, or the last known position.
        position: Option<Lsn>,
    },
    /// Empty the `failover` key, if it still has this revision.
    ClearFailover {
        /// The revision at which it was read.
        revision: Revision,
    },
    /// Ask these members how they are.
    Ask(BTreeSet<NodeName>),
    /// Read the lineage of this member's server.
    ReadLineage(NodeName),
    /// Stream from this upstream, or from nowhere, without a restart where the server can.
    Follow(Option<Upstream>),
    /// Create, advance, drop physical slots.
    Slots(Vec<SlotChange>),
    /// Bring the `history` key in line with the local history file.
    WriteHistory,
    /// Write which standbys have every commit and may lead.
    WriteSync {
        /// The record.
        sync: SyncState,
        /// The revision that it must still have; absent: there must be none.
        guard: Option<Revision>,
    },
    /// Remove that record: no commit waits for anybody any more.
    DeleteSync {
        /// The revision that it must still have.
        guard: Revision,
    },
    /// Set `synchronous_standby_names` of the local server.
    SetNames(String),
    /// Ask these members for their leave to go on without the store.
    SeekLeave(BTreeSet<NodeName>),
    /// Every member has promised: write on until the first of the promises ends.
    GoOn {
        /// The reign in which they were asked.
        epoch: Epoch,
        /// Before the first of them was asked.
        sent: Moment,
        /// How long they promised, the shortest.
        span: Duration,
        /// Step down no later than this, if there are no new ones.
        until: Moment,
    },
    /// End these sender processes: each serves a stranger under a member's name.
    Evict(Vec<i32>),
    /// Start a job.
    Begin(Task),
    /// End the running job at once.
    Cancel,
    /// Ask custody whether the local copy may go, as this request wishes.
    SeekConsent(u64),
    /// Reply to a request.
    Answer(u64, Reply),
    /// End the daemon.
    Exit {
        /// Exit status.
        code: i32,
    },
}

/// A reply to a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// The filters of a restart do not match.
    ConditionsNotMet,
    /// Another job is running.
    Busy,
    /// There is no leader to clone from.
    NoLeader,
    /// This node leads.
    IamLeader,
    /// Custody refuses, for this reason.
    Refused(String),
    /// It has begun.
    Started,
    /// The stopped server runs again.
    Restarted,
    /// The server did not start, or its start was given up.
    RestartFailed,
    /// The stopped server has not answered for as long as whoever asked would wait.
    StillStarting,
}

/// Work that outlasts a turn. The daemon runs one at a time and tells how it ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Task {
    /// Create a new database cluster.
    Initdb,
    /// Start the newly created cluster as primary and set up its roles.
    FirstStart {
        /// The reign in which it may take writes.
        epoch: Epoch,
    },
    /// Start as a standby.
    StartStandby {
        /// Whom to follow; absent: nobody, read-only.
        upstream: Option<Upstream>,
    },
    /// Start as primary again where it crashed, under the lease that is still held.
    RestartInPlace {
        /// The reign in which it may take writes.
        epoch: Epoch,
        /// Let no clients in: what they might read is not on the synchronous standbys yet.
        #[serde(default)]
        closed: bool,
    },
    /// End recovery and take writes.
    Promote {
        /// The reign in which it may take writes.
        epoch: Epoch,
        /// The highest timeline that anybody is known to have made: the new one must be above it.
        above: Timeline,
    },
    /// Stop Postgres.
    Stop(StopMode),
    /// Kill what is left of the instance and see it gone.
    KillRemnants,
    /// Checkpoint, while serving.
    Checkpoint,
    /// Clone this member's server into the empty data directory.
    Clone {
        /// The source.
        from: NodeName,
    },
    /// Bring a crashed primary's log to a clean end, in single-user mode.
    RecoverCrash,
    /// Rewind the data directory to where it left the history of this member's server.
    Rewind {
        /// The source.
        from: NodeName,
    },
    /// Move the data directory aside, to be cloned anew. Custody must agree.
    Retire {
        /// Why, in one word for the vault's entry.
        grounds: Grounds,
        /// The leader that proves another copy; absent only for the remains of a bootstrap of our own.
        leader: Option<NodeName>,
    },
    /// Stop and start Postgres in the role it has.
    Restart {
        /// The request to answer; absent if nobody waits.
        request: Option<u64>,
        /// Start as a standby following this upstream; absent: as primary, under the held lease.
        standby: Option<Option<Upstream>>,
        /// How long to wait for the started server, which goes on starting all the same; absent: as configured.
        timeout: Option<Duration>,
        /// A primary that lets no clients in goes on so.
        #[serde(default)]
        closed: bool,
    },
}

/// How to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum StopMode {
    /// Checkpoint while serving, then a fast shutdown: the shortest outage.
    Handover,
    /// Fast shutdown: sessions end, everything is flushed and sent to standbys.
    Fast,
    /// Immediate shutdown: needs recovery afterwards, loses nothing that was flushed.
    Immediate,
}

/// Why a data directory is moved aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Grounds {
    /// A bootstrap of our own did not end.
    UnfinishedBootstrap,
    /// A rewind failed, and the configuration allows a new clone.
    FailedRewind,
    /// The history diverged, and the configuration allows a new clone.
    Diverged,
    /// An operator asked for this node by name.
    Reinitialize,
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Initdb | Self::FirstStart { .. } => f.write_str("bootstrap"),
            Self::StartStandby { .. } => f.write_str("starting as a standby"),
            Self::RestartInPlace { closed: true, .. } => {
                f.write_str("starting as primary, closed to clients")
            }
            Self::RestartInPlace { .. } => f.write_str("starting as primary"),
            Self::Promote { .. } => f.write_str("promote"),
            Self::Stop(_) => f.write_str("stopping Postgres"),
            Self::KillRemnants => f.write_str("killing what is left of the instance"),
            Self::Checkpoint => f.write_str("checkpoint"),
            Self::Clone { from } => write!(f, "bootstrap from {from}"),
            Self::RecoverCrash => f.write_str("crash recovery"),
            Self::Rewind { from } => write!(f, "running pg_rewind from {from}"),
            Self::Retire { .. } => f.write_str("moving the data directory aside"),
            Self::Restart { .. } => f.write_str("restart"),
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ClaimInitialize => f.write_str("claim initialize"),
            Self::WriteInitialize(id) => write!(f, "write initialize {id}"),
            Self::GiveUpInitialize => f.write_str("give up initialize"),
            Self::RestoreConfig => f.write_str("write config"),
            Self::Acquire(_) => f.write_str("acquire lease"),
            Self::ClaimTimeline(claim) => write!(f, "claim timeline {}", claim.timeline),
            Self::Adopt { .. } => f.write_str("adopt lease"),
            Self::Release { position: Some(at) } => write!(f, "release lease at {at}"),
            Self::Release { position: None } => f.write_str("release lease"),
            Self::ClearFailover { .. } => f.write_str("clear failover"),
            Self::Ask(names) => {
                f.write_str("ask")?;
                names.iter().try_for_each(|name| write!(f, " {name}"))
            }
            Self::SeekLeave(names) => {
                f.write_str("seek leave of")?;
                names.iter().try_for_each(|name| write!(f, " {name}"))
            }
            Self::GoOn { .. } => f.write_str("go on by their leave"),
            Self::ReadLineage(of) => write!(f, "read lineage of {of}"),
            Self::Follow(Some(upstream)) => write!(f, "follow {}", upstream.member),
            Self::Follow(None) => f.write_str("follow nobody"),
            Self::Slots(changes) => {
                f.write_str("slots")?;
                changes.iter().try_for_each(|change| write!(f, " {change}"))
            }
            Self::WriteHistory => f.write_str("write history"),
            Self::WriteSync { sync, .. } => {
                f.write_str("write sync:")?;
                match sync.standbys.is_empty() {
                    true => f.write_str(" nobody")?,
                    false => sync.standbys.iter().try_for_each(|name| write!(f, " {name}"))?,
                }
                if sync.quorum > 0 { write!(f, ", quorum {}", sync.quorum) } else { Ok(()) }
            }
            Self::DeleteSync { .. } => f.write_str("delete sync"),
            Self::SetNames(names) => write!(f, "synchronous_standby_names '{names}'"),
            Self::Evict(pids) => {
                f.write_str("end senders to strangers")?;
                pids.iter().try_for_each(|pid| write!(f, " {pid}"))
            }
            Self::Begin(task) => write!(f, "begin {task}"),
            Self::Cancel => f.write_str("cancel job"),
            Self::SeekConsent(id) => write!(f, "seek consent for request {id}"),
            Self::Answer(id, reply) => write!(f, "answer request {id}: {reply:?}"),
            Self::Exit { code } => write!(f, "exit {code}"),
        }
    }
}

impl Decision {
    /// Does nothing but wait, at the latest until the backstop.
    #[must_use]
    pub fn wait(seen: &Observation, past: Past, because: Reason) -> Self {
        Self { steps: Vec::new(), because, wake: seen.now + seen.settings.loop_wait, past }
    }

    /// Takes steps.
    #[must_use]
    pub fn act(
        seen: &Observation,
        past: Past,
        because: Reason,
        steps: impl IntoIterator<Item = Step>,
    ) -> Self {
        let mut decision = Self::wait(seen, past, because);
        decision.steps.extend(steps);
        decision
    }

    /// Asks again at this moment, if that is sooner.
    #[must_use]
    pub fn wake_by(mut self, moment: Moment) -> Self {
        self.wake = self.wake.min(moment);
        self
    }
}

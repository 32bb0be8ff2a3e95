//! What a daemon of the model keeps: its job, what others told it, what it remembers between turns. Plain data.

use super::state::{Id, Names, Pos, Rev, Stamp, Sync};

/// A job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Job {
    /// What.
    pub work: Work,
    /// The lease was proven for it and the fencer armed.
    pub proven: bool,
    /// Since when.
    pub since: Stamp,
}

/// How a job ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ended {
    /// What.
    pub work: Work,
    /// It failed.
    pub failed: bool,
    /// When.
    pub at: Stamp,
}

/// A task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Work {
    /// Start as a standby of this one.
    StartStandby(Option<Id>),
    /// Start as primary in this reign.
    RestartInPlace(Rev),
    /// Promote in this reign, above this timeline.
    Promote(Rev, u8),
    /// Stop with a checkpoint before.
    Handover,
    /// Stop cleanly.
    Fast,
    /// Stop at once.
    Immediate,
    /// Kill the rest.
    KillRemnants,
    /// Checkpoint.
    Checkpoint,
    /// Clone from this one.
    Clone(Id),
    /// Recover after a crash.
    RecoverCrash,
    /// Rewind from this one.
    Rewind(Id),
    /// Move the directory aside; this one proves another copy.
    Retire(Option<Id>),
}

/// What is known of the leader's history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Lineage {
    /// Whose.
    pub member: Id,
    /// Read in which reign.
    pub epoch: Rev,
    /// Its timeline.
    pub mint: u8,
    /// It takes writes and has checkpointed.
    pub settled: bool,
}

/// What another one answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Peer {
    /// When it was asked, and answered.
    pub asked: Stamp,
    /// What; absent: nothing.
    pub said: Option<Said>,
}

/// An answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Said {
    /// It takes writes.
    pub primary: bool,
    /// Its position; 0: its server does not run.
    pub position: Pos,
    /// Its timeline's number.
    pub timeline: u8,
}

/// What a node remembers between turns: `Past`, as far as the model lets it matter (`memory.rs` says what does not).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Memory {
    /// Why the server is stopped.
    pub intent: Option<Intent>,
    /// Since when the lease has been vacant.
    pub vacant_since: Option<Stamp>,
    /// The reign in which it has checkpointed.
    pub checkpointed: Rev,
    /// The last failure.
    pub setback: Option<Setback>,
    /// With whose reign its history was found to agree.
    pub compared: Option<(Id, Rev)>,
    /// Whose it was found to have left, and where.
    pub diverged: Option<(Id, Rev, Pos)>,
    /// Since when it has not been streaming.
    pub idle_since: Option<Stamp>,
    /// When a lineage was last read, and at which revision.
    pub read: Option<(Stamp, Rev)>,
    /// When the lease was last to be given back.
    pub released_at: Option<Stamp>,
    /// Since when it has been listed.
    pub listed_since: Option<Stamp>,
    /// Somebody led while it was listed.
    pub settled: bool,
    /// The switchover that waits for a candidate.
    pub weighed: Option<(Rev, Stamp)>,
    /// The switchover that was given up.
    pub abandoned: Rev,
    /// The record that it replaced to lead alone.
    pub superseded: Option<Sync>,
    /// For whom commits wait.
    pub in_force: Option<Force>,
}

/// The list in force, as a leader came to know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Force {
    /// In which reign.
    pub epoch: Rev,
    /// The list.
    pub names: Names,
    /// Since when.
    pub since: Stamp,
    /// A position reached after every process worked by it.
    pub barrier: Pos,
    /// What was last set, and when.
    pub asked: Option<(Names, Stamp)>,
}

/// Why a server is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Intent {
    /// To hand over.
    HandOver {
        /// The request; 0: none.
        revision: Rev,
        /// To whom.
        candidate: Option<Id>,
        /// Since when.
        since: Stamp,
    },
    /// To become a standby.
    Demote,
    /// To let somebody else lead.
    GiveUp,
}

/// A failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Setback {
    /// What failed.
    pub work: Work,
    /// How often, at most 2.
    pub times: u8,
    /// It must not be tried again before the next tick.
    pub hot: bool,
}

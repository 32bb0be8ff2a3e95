//! What a member can ask of the others through the log, and what came of it.
//! A command is data: it names no clock and no chance, so that every member applies it alike.

use serde::{Deserialize, Serialize};

use crate::store::{Committed, Txn};

/// Names one command for ever: repeated after a lost answer, it is applied once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Id {
    /// Drawn by a member at its start.
    pub client: u64,
    /// Counted by it.
    pub seq: u64,
}

/// One entry of the log, or the context of one change of membership.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Command {
    pub id: Id,
    /// An index that was committed before the command was first proposed. It is applied within a
    /// window after this one or not at all, so that what was applied need not be remembered for ever.
    pub after: u64,
    pub what: What,
}

/// What a command does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum What {
    /// Runs a transaction.
    Commit(Txn),
    /// Opens a lease under a number that its holder drew; `ttl` in milliseconds.
    Grant { lease: i64, ttl: u64 },
    /// Starts a lease's time again.
    Touch { lease: i64 },
    /// Ends a lease; with a generation, only if it was not touched since.
    Revoke { lease: i64, generation: Option<u64> },
    /// Lets a member at an address join that has none yet.
    Admit { address: String },
    /// Makes a member a learner.
    Learn { member: u64, address: String },
    /// Makes a learner a voter.
    Promote { member: u64 },
    /// Removes a member, by identity or address.
    Expel { member: String, force: bool },
}

impl What {
    /// Whether this is a change of membership, which raft itself must know.
    pub fn is_change(&self) -> bool {
        match self {
            Self::Learn { .. } | Self::Promote { .. } | Self::Expel { .. } => true,
            Self::Commit(_)
            | Self::Grant { .. }
            | Self::Touch { .. }
            | Self::Revoke { .. }
            | Self::Admit { .. } => false,
        }
    }
}

/// What came of a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Outcome {
    Committed(Committed),
    Done,
    /// There is no such lease.
    Gone,
    /// The store has no room for it.
    Full,
    /// It came too long after it was first proposed: nothing happened, now.
    Late,
}

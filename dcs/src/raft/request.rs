//! What a client may ask of a member, in this process or over the network, and the answers.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::StoreMember;
use super::command::What;
use crate::store::{Committed, Snapshot, Txn};

/// A request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) enum Request {
    /// Everything below a prefix, linearizably.
    Load { prefix: String },
    /// A transaction without writes, linearizably.
    Look(Txn),
    /// A lease as it stands, linearizably.
    Lease { lease: i64 },
    /// How long the log is.
    Length,
    /// A command for the log.
    Run(What),
    /// Who the members are, as far as the one asked knows.
    Members,
    /// Who the one asked is: for members that are not yet part of a store.
    Introduce,
    /// Events below a prefix from a revision on.
    Watch { prefix: String, from: i64 },
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) enum Reply {
    Loaded(Snapshot),
    Committed(Committed),
    Done,
    /// Its ttl in milliseconds and how often it was renewed; none if there is no such lease.
    Lease(Option<(u64, u64)>),
    /// Entries since the store was founded.
    Length(u64),
    Members(Vec<StoreMember>),
    Introduced(Introduction),
}

/// Who a member is, before it talks raft.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Introduction {
    pub member: u64,
    /// 0: it belongs to no store yet.
    pub cluster: u64,
    /// Who founded that store, with their addresses.
    pub founders: BTreeMap<u64, String>,
    /// All addresses that its configuration names, its own too, sorted.
    pub list: Vec<String>,
    /// Addresses that the store knows or lets join.
    pub known: Vec<String>,
}

impl Request {
    /// Whether somebody outside this process may ask for it.
    pub fn is_for_clients(&self) -> bool {
        match self {
            Self::Run(what) => match what {
                What::Commit(_) | What::Grant { .. } | What::Touch { .. } | What::Admit { .. } => true,
                What::Expel { .. } => true,
                What::Revoke { generation, .. } => generation.is_none(),
                What::Learn { .. } | What::Promote { .. } => false,
            },
            Self::Load { .. }
            | Self::Look(_)
            | Self::Lease { .. }
            | Self::Length
            | Self::Members
            | Self::Introduce
            | Self::Watch { .. } => true,
        }
    }

    /// Whether asking twice is as good as asking once.
    pub fn is_repeatable(&self) -> bool {
        !matches!(self, Self::Run(_))
    }
}

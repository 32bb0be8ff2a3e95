//! May this data directory be moved aside? The proofs, as plain evidence and one judgement.
//!
//! It touches nothing: the daemon's custody gathers the evidence, asks here, and asks again
//! with fresh evidence immediately before it acts. A missing proof is a refusal, never a default.

mod refusal;

use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use config::NodeName;
use dcs::{Epoch, Moment, SystemId};

use crate::Grounds;
pub use refusal::Refusal;

/// How old a piece of evidence may be at the moment of use.
pub const FRESH: Duration = Duration::from_secs(30);

/// Everything that was found out about one directory and the reasons to move it aside.
#[derive(Debug, Clone, PartialEq)]
pub struct Evidence {
    /// When the judgement is made.
    pub now: Moment,
    /// The directory (proof 1).
    pub directory: Directory,
    /// Who uses it (proof 2).
    pub usage: Usage,
    /// Who leads (proof 3).
    pub leadership: Option<Leadership>,
    /// Why it shall go, and what speaks against that (proof 7).
    pub permission: Permission,
}

/// What the configured path is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directory {
    /// When it was looked at.
    pub at: Moment,
    /// The path, for messages.
    pub path: String,
    /// What kind of thing the path names.
    pub kind: Kind,
    /// It is the file system's root, a home directory, or one of the system's own directories.
    pub precious: bool,
    /// Device and inode when it was decided that the directory shall go; absent if it was not there then.
    pub identity_when_decided: Option<(u64, u64)>,
    /// Device and inode now.
    pub identity: Option<(u64, u64)>,
    /// `PG_VERSION` is there and names a version.
    pub has_version: bool,
    /// The system identifier in `global/pg_control`; absent if it could not be read.
    pub system_id: Option<SystemId>,
    /// Names at the top level that Postgres does not use, the first few.
    pub unknown_names: Vec<String>,
    /// The vault is on the same file system, so that moving is a rename.
    pub vault_is_near: bool,
}

/// What a path names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A directory, by an absolute path whose last part is no link.
    Directory,
    /// A relative path.
    Relative,
    /// A symbolic link.
    Link,
    /// A file, or nothing, or it cannot be examined.
    Other,
}

/// Who uses the directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Usage {
    /// When no process of the instance was seen; absent if there was one, or nobody looked.
    pub nobody_seen: Option<Moment>,
    /// The pid file names a process that is alive and not known to be a stranger.
    pub pid_file_alive: bool,
    /// The lock on the directory is ours.
    pub locked_by_us: bool,
}

/// Who leads, found out by two linearizable reads of the store and one answer of the leader itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leadership {
    /// This node.
    pub me: NodeName,
    /// The holder of the leader key.
    pub leader: NodeName,
    /// When the first read was sent.
    pub at: Moment,
    /// The epoch in the first read.
    pub first: Epoch,
    /// The epoch in the second read, made after the leader answered; absent if that read failed.
    pub second: Option<Epoch>,
    /// The identity of the cluster by its `initialize` key.
    pub cluster: Option<SystemId>,
    /// What the leader's server said by SQL.
    pub answer: Option<LeaderAnswer>,
}

/// What the leader's server said by SQL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaderAnswer {
    /// When it was asked.
    pub at: Moment,
    /// Its identity.
    pub system_id: SystemId,
    /// It takes writes.
    pub takes_writes: bool,
}

/// Why the directory shall go, and what speaks against it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Permission {
    /// The grounds.
    pub grounds: Grounds,
    /// `remove_data_directory_on_rewind_failure`.
    pub after_failed_rewind: bool,
    /// `remove_data_directory_on_diverged_timelines`.
    pub when_diverged: bool,
    /// For an operator's request: the node that it names.
    pub named: Option<NodeName>,
    /// For an unfinished bootstrap: the marker of our own that says so.
    pub our_marker: bool,
    /// The cluster is paused.
    pub paused: bool,
    /// Deletion protection is on for this node.
    pub protected: bool,
}

/// Whether the directory may be moved aside, or the first proof that is missing.
pub fn judge(evidence: &Evidence) -> Result<(), Refusal> {
    right_directory(evidence)?;
    nobody_uses_it(evidence)?;
    permitted(evidence)?;
    if evidence.permission.grounds == Grounds::UnfinishedBootstrap && evidence.leadership.is_none() {
        // A cluster that never existed has no leader; the marker proves that nothing in the
        // directory was ever acknowledged.
        return Ok(());
    }
    somebody_else_leads(evidence)
}

/// Proof 1: it is the configured directory, it is Postgres's, and it is the one that was judged.
fn right_directory(evidence: &Evidence) -> Result<(), Refusal> {
    let directory = &evidence.directory;
    fresh(evidence, directory.at, "the look at the directory")?;
    match directory.kind {
        Kind::Directory => {}
        Kind::Relative => return Err(Refusal::RelativePath),
        Kind::Link => return Err(Refusal::Link),
        Kind::Other => return Err(Refusal::NoDirectory),
    }
    if directory.precious {
        return Err(Refusal::Precious);
    }
    if directory.identity.is_none() || directory.identity_when_decided != directory.identity {
        return Err(Refusal::Exchanged);
    }
    if let Some(name) = directory.unknown_names.first() {
        return Err(Refusal::UnknownFiles(name.clone()));
    }
    // What an interrupted bootstrap of our own left may lack anything.
    let half_made = evidence.permission.grounds == Grounds::UnfinishedBootstrap;
    if !half_made && !directory.has_version {
        return Err(Refusal::NotPostgres);
    }
    if !half_made && directory.system_id.is_none() {
        return Err(Refusal::UnreadableControl);
    }
    if !directory.vault_is_near {
        return Err(Refusal::VaultElsewhere);
    }
    Ok(())
}

/// Proof 2: no process of the instance is left, and no other daemon works on the directory.
fn nobody_uses_it(evidence: &Evidence) -> Result<(), Refusal> {
    let usage = &evidence.usage;
    let Some(seen) = usage.nobody_seen else { return Err(Refusal::InUse) };
    fresh(evidence, seen, "the proof that Postgres has stopped")?;
    if usage.pid_file_alive {
        return Err(Refusal::PidFileAlive);
    }
    if !usage.locked_by_us {
        return Err(Refusal::LockedByOthers);
    }
    Ok(())
}

/// Proof 3: another member leads, answers, takes writes, is of the same cluster, and led all the while.
fn somebody_else_leads(evidence: &Evidence) -> Result<(), Refusal> {
    let Some(found) = &evidence.leadership else { return Err(Refusal::LeaderUnknown) };
    fresh(evidence, found.at, "the look at who leads")?;
    if found.leader == found.me {
        return Err(Refusal::IamLeader);
    }
    let Some(answer) = found.answer else { return Err(Refusal::LeaderSilent(found.leader.clone())) };
    fresh(evidence, answer.at, "the leader's answer")?;
    if !answer.takes_writes {
        return Err(Refusal::LeaderReadOnly(found.leader.clone()));
    }
    let ours = evidence.directory.system_id;
    if found.cluster != Some(answer.system_id) || ours.is_some_and(|id| id != answer.system_id) {
        return Err(Refusal::OtherCluster(found.leader.clone()));
    }
    if found.second != Some(found.first) {
        return Err(Refusal::LeaderChanged);
    }
    Ok(())
}

/// Proof 7: the grounds are among those that count, and nothing forbids it.
fn permitted(evidence: &Evidence) -> Result<(), Refusal> {
    let permission = &evidence.permission;
    if permission.protected {
        return Err(Refusal::Protected);
    }
    // A person who names this node means it, also in pause (patroni-compat 5.11).
    if permission.paused && permission.grounds != Grounds::Reinitialize {
        return Err(Refusal::Paused);
    }
    let me = evidence.leadership.as_ref().map(|found| &found.me);
    match permission.grounds {
        Grounds::UnfinishedBootstrap if !permission.our_marker => Err(Refusal::NoMarker),
        Grounds::FailedRewind if !(permission.after_failed_rewind || permission.when_diverged) => {
            Err(Refusal::Setting("remove_data_directory_on_rewind_failure"))
        }
        Grounds::Diverged if !permission.when_diverged => {
            Err(Refusal::Setting("remove_data_directory_on_diverged_timelines"))
        }
        Grounds::Reinitialize if permission.named.is_none() || permission.named.as_ref() != me => {
            Err(Refusal::NotNamed)
        }
        _ => Ok(()),
    }
}

fn fresh(evidence: &Evidence, at: Moment, what: &'static str) -> Result<(), Refusal> {
    if at > evidence.now || evidence.now.since(at) > FRESH {
        return Err(Refusal::Stale(what));
    }
    Ok(())
}

#[cfg(test)]
mod tests;

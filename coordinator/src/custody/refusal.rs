//! Why a data directory stays where it is: one sentence each, and what would change it.

use alloc::string::String;
use core::fmt;

use config::NodeName;

/// The proof that is missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// Proof 1: the path is relative.
    RelativePath,
    /// Proof 1: the path is a symbolic link.
    Link,
    /// Proof 1: there is no directory.
    NoDirectory,
    /// Proof 1: root, home, or the system's.
    Precious,
    /// Proof 1: not the directory about which this was decided.
    Exchanged,
    /// Proof 1: no `PG_VERSION`.
    NotPostgres,
    /// Proof 1: the control file cannot be read.
    UnreadableControl,
    /// Proof 1: a name that Postgres does not use.
    UnknownFiles(String),
    /// Proof 1: moving would be copying.
    VaultElsewhere,
    /// Proof 2: processes are left.
    InUse,
    /// Proof 2: the pid file names a living process.
    PidFileAlive,
    /// Proof 2: another daemon.
    LockedByOthers,
    /// Proof 3: no look at who leads.
    LeaderUnknown,
    /// Proof 3: this node leads.
    IamLeader,
    /// Proof 3: no answer by SQL.
    LeaderSilent(NodeName),
    /// Proof 3: it does not take writes.
    LeaderReadOnly(NodeName),
    /// Proof 3: another system identifier.
    OtherCluster(NodeName),
    /// Proof 3: the leader changed, or the second read failed.
    LeaderChanged,
    /// Any: evidence older than 30 seconds.
    Stale(&'static str),
    /// Proof 7: deletion protection.
    Protected,
    /// Proof 7: pause.
    Paused,
    /// Proof 7: this setting does not allow it.
    Setting(&'static str),
    /// Proof 7: no request names this node.
    NotNamed,
    /// Proof 7: no marker of our own.
    NoMarker,
}

impl Refusal {
    /// The number of the proof that is missing (data-directory, "What must be proven").
    #[must_use]
    pub fn proof(&self) -> u8 {
        match self {
            Self::RelativePath | Self::Link | Self::NoDirectory | Self::Precious | Self::Exchanged => 1,
            Self::NotPostgres | Self::UnreadableControl | Self::UnknownFiles(_) | Self::VaultElsewhere => 1,
            Self::InUse | Self::PidFileAlive | Self::LockedByOthers => 2,
            Self::LeaderUnknown | Self::IamLeader | Self::LeaderSilent(_) | Self::LeaderReadOnly(_) => 3,
            Self::OtherCluster(_) | Self::LeaderChanged => 3,
            Self::Stale(_) => 0,
            Self::Protected | Self::Paused | Self::Setting(_) | Self::NotNamed | Self::NoMarker => 7,
        }
    }

    /// What a person can do about it.
    #[must_use]
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::RelativePath => "write an absolute path in postgresql.data_dir",
            Self::Link => "name the directory itself in postgresql.data_dir",
            Self::NoDirectory => "check postgresql.data_dir and its mount",
            Self::Precious => "give Postgres a directory of its own",
            Self::Exchanged => "check the mount; what is there now is judged anew",
            Self::NotPostgres => {
                "check postgresql.data_dir and its mount; if the directory is right, move it aside by hand"
            }
            Self::UnreadableControl => "the directory may be damaged: look at it, and move it aside by hand",
            Self::UnknownFiles(_) => "move what is not Postgres's out of the data directory",
            Self::VaultElsewhere => {
                "put the vault on the file system of the data directory, or the data directory below its mount point"
            }
            Self::InUse => "stop Postgres",
            Self::PidFileAlive => "find out what the process is, and stop it",
            Self::LockedByOthers => "stop the other matriarch that works on this directory",
            Self::LeaderUnknown => "wait until the store answers",
            Self::IamLeader => "switch over to another member first",
            Self::LeaderSilent(_) => {
                "make the leader reachable from this host with the rewind or superuser login"
            }
            Self::LeaderReadOnly(_) => "wait until the leader is promoted",
            Self::OtherCluster(_) => "check scope and store: this node's data belong to another cluster",
            Self::LeaderChanged => "it is tried again with the present leader",
            Self::Stale(_) => "it is tried again with fresh evidence",
            Self::Protected => "switch deletion protection off for this node",
            Self::Paused => "resume the cluster (matriarchctl resume), or reinitialize this node by name",
            Self::Setting(_) => {
                "switch the setting on, or reinitialize this node by name (matriarchctl reinit)"
            }
            Self::NotNamed => "ask for this node by its name (matriarchctl reinit)",
            Self::NoMarker => "look at the directory: nothing says that it is the remains of a bootstrap",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the data directory stays where it is: ")?;
        match self {
            Self::RelativePath => f.write_str("its path is not absolute"),
            Self::Link => f.write_str("its path is a symbolic link"),
            Self::NoDirectory => f.write_str("its path names no directory"),
            Self::Precious => f.write_str("its path is a directory of the system or of a user"),
            Self::Exchanged => f.write_str("it is not the directory that was there when this was decided"),
            Self::NotPostgres => f.write_str("it has no PG_VERSION"),
            Self::UnreadableControl => f.write_str("its control file cannot be read"),
            Self::UnknownFiles(name) => write!(f, "it contains {name:?}, which is not Postgres's"),
            Self::VaultElsewhere => f.write_str("the vault is on another file system"),
            Self::InUse => f.write_str("processes of Postgres are still working in it"),
            Self::PidFileAlive => f.write_str("its postmaster.pid names a process that is alive"),
            Self::LockedByOthers => f.write_str("another daemon holds its lock"),
            Self::LeaderUnknown => f.write_str("nobody knows who leads"),
            Self::IamLeader => f.write_str("this node is the leader"),
            Self::LeaderSilent(leader) => write!(f, "the leader {leader} does not answer SQL"),
            Self::LeaderReadOnly(leader) => write!(f, "the leader {leader} does not take writes"),
            Self::OtherCluster(leader) => write!(f, "the leader {leader} has another system identifier"),
            Self::LeaderChanged => f.write_str("the leader changed meanwhile"),
            Self::Stale(what) => write!(f, "{what} is more than 30 seconds old"),
            Self::Protected => f.write_str("deletion protection is on"),
            Self::Paused => f.write_str("the cluster is paused"),
            Self::Setting(name) => write!(f, "{name} is off"),
            Self::NotNamed => f.write_str("no request names this node"),
            Self::NoMarker => f.write_str("no marker says that a bootstrap was interrupted"),
        }?;
        write!(f, "; {}", self.remedy())
    }
}

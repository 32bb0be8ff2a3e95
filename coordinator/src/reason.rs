//! Why a turn decided as it did: one variant and one sentence per reason, the
//! same in the log, over REST, in the scenarios and in the book.

use alloc::string::String;
use core::fmt;

use config::NodeName;
use dcs::{Lsn, SystemId, Timeline};
use serde::{Deserialize, Serialize};

use crate::eligible::Obstacle;
use crate::local::Unfinished;

/// Why a turn decided as it did. Each prints as one sentence, the same in the
/// log, over REST and in the scenarios.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Reason {
    // the store
    /// Nothing was ever read from the store.
    StoreNeverSeen,
    /// The store is away; the lease still holds.
    StoreAwayLeaseHolds,
    /// The store is away and the lease has run out.
    StoreAwayStepDown,
    /// The store is away, failsafe mode is on, and not everybody has agreed yet.
    FailsafeAsks(String),
    /// The store is away, and every member agrees that the leader goes on (failsafe mode).
    FailsafeLeads,
    /// This node has promised a leader without the store not to take the lead (failsafe mode).
    Promised(NodeName),
    /// The store is away; a standby goes on.
    StoreAwayReplica,
    // identity
    /// The directory belongs to another cluster.
    WrongCluster {
        /// The identity of the directory.
        here: SystemId,
        /// The identity in the store.
        cluster: SystemId,
    },
    /// The directory cannot be judged.
    UnreadableData(String),
    /// A replica was started before any primary.
    ReplicaWithoutCluster,
    /// The store lost its records and only a primary may write them again.
    RecordsLost,
    /// The store has old records again, and the leader key is one of them.
    OldKey(NodeName),
    /// An act was interrupted and left the directory unusable.
    ToxicData(Unfinished),
    // bootstrap
    /// This node creates the cluster.
    CreateCluster,
    /// The new cluster is there; it becomes primary.
    FoundCluster,
    /// Another node is creating the cluster.
    WaitForBootstrap,
    /// Nobody may create the cluster from here.
    MayNotBootstrap,
    /// Creating the cluster failed.
    BootstrapFailed(String),
    /// The cluster exists, its leader does not, and this node has no data.
    NothingToOffer,
    // leading
    /// All is well on the leader.
    Leading,
    /// All is well but that no standby can acknowledge commits, and they must not return without.
    NobodyAcknowledges,
    /// Postgres crashed and was started where it was; what clients could read there is not on enough standbys yet.
    NotAdmitted {
        /// The standbys that are waited for.
        whom: String,
        /// At most so many bytes the last of them lacks, a power of two; absent: too few stream.
        lacks: Option<u64>,
    },
    /// Enough standbys have what clients may read: the server is started again to let them in.
    Admitting {
        /// The last try has failed, and the next one is made after a pause.
        failed: bool,
    },
    /// The lease is held, and somebody else may have commits that this node lacks.
    LeaseWithoutRight(Obstacle),
    /// The lease is held, Postgres is a standby.
    PromoteWithLease,
    /// The promotion has not ended yet.
    Promoting,
    /// The key names this node under an old lease.
    TakeBackOwnKey,
    /// Postgres ended on its own and is started where it was.
    CrashRestart {
        /// Bytes of WAL to recover, as far as known.
        to_recover: u64,
    },
    /// Postgres ended on its own, is started where it was although that takes too long, and what keeps each of the
    /// others from leading.
    NobodyInstead {
        /// One sentence.
        obstacles: String,
    },
    /// Starting failed or took too long; somebody else should lead.
    CannotStart(String),
    /// A candidate has everything this crashed server had.
    CandidateReady(NodeName),
    /// Another process of the instance is left.
    Remnants,
    /// A signal has stopped the postmaster.
    PostmasterFrozen,
    /// The primary does not answer, and time has run out.
    PrimarySilent,
    /// The leader's server was started as a standby and does not become consistent, and time has run out.
    NeverConsistent,
    /// The leader's server ended while it was a standby: its promotion did not come to its end.
    StandbyEnded,
    // electing
    /// This node is the best candidate.
    BestCandidate,
    /// An operator named this node.
    NamedCandidate {
        /// Bytes that the last leader published and that are not here.
        lacks: u64,
    },
    /// The former primary takes the free lease again.
    StillPrimary,
    /// Others must be asked first.
    AskOthers,
    /// The members have only just been listed.
    WaitForMembers,
    /// A switchover was asked for; the members are asked first.
    AskCandidates,
    /// Something keeps this node from leading.
    NotEligible(Obstacle),
    /// The primary that lost the lease still sends WAL.
    PrimaryStillWrites,
    /// A candidate was named, and it is another node.
    LeaveToCandidate(String),
    /// This node has just given the lease back, and this member can lead.
    LeaveToOther(NodeName),
    /// The database must start before it can lead.
    StartFirst,
    // handing over
    /// A switchover begins.
    HandOver {
        /// The named candidate.
        to: Option<String>,
    },
    /// Postgres stopped; the lease goes to a node that has everything.
    HandOverLease {
        /// Who has everything.
        to: NodeName,
    },
    /// Postgres stopped; nobody has proved to have everything yet.
    WaitForCandidate,
    /// No candidate could take over.
    HandOverImpossible(String),
    /// The switchover is not for now.
    HandOverScheduled,
    /// A failover request that cannot be meant for this leader.
    StaleFailover(String),
    // following
    /// All is well on a replica.
    Following(NodeName),
    /// Another node leads; follow it.
    Follow(NodeName),
    /// There is no server to follow yet.
    LeaderNotReady(NodeName),
    /// The server on this host does not answer yet.
    StartingHere,
    /// A standby has not become consistent for a while: its history is compared with the leader's.
    StandbyInconsistent,
    /// This server takes writes although another node leads.
    StepDown(NodeName),
    /// The lease is lost.
    LeaseLost,
    /// There is no data here.
    NeedClone(NodeName),
    /// The leader's lineage must be known first.
    ReadLineage(NodeName),
    /// The leader has not settled on its timeline.
    WaitForSettled(NodeName),
    /// This server's history left the leader's.
    Diverged {
        /// The last common position known.
        fork: Lsn,
        /// The local timeline.
        timeline: Timeline,
    },
    /// The directory is a copy that has not recovered yet.
    RestoredCopy(NodeName),
    /// A crashed primary must reach a clean end before it can be compared.
    RecoverFirst,
    /// Diverged, and nothing allows a repair.
    CannotRejoin(String),
    /// Rejoining failed lately.
    RejoinFailed(String),
    /// The cluster is between two stores, and nobody leads in either.
    Moving(String),
    // operators
    /// Paused.
    Paused,
    /// Paused, and this primary takes the free lease.
    PausedTakeLease,
    /// Paused, and this leader is no primary any more.
    PausedReleaseLease,
    /// A restart was asked for.
    Restart,
    /// A new copy was asked for.
    Reinitialize,
    /// A safety setting of the cluster does not work on this leader.
    Withheld(String),
    /// The daemon was told to stop.
    Stopping,
    /// The daemon leaves Postgres running.
    LeaveRunning,
    // jobs
    /// A job runs.
    Busy(String),
    /// The job must end: the lease is gone.
    CancelJob,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::StoreNeverSeen => f.write_str("waiting for the store: nothing was ever read from it"),
            Self::StoreAwayLeaseHolds => f.write_str("the store does not answer; the lease still holds"),
            Self::StoreAwayStepDown => {
                f.write_str("the store does not answer and the lease has run out: demoting to read-only")
            }
            Self::FailsafeAsks(open) => write!(
                f,
                "the store does not answer; the lease still holds, and to go on after it every member must agree (failsafe mode): {open}"
            ),
            Self::FailsafeLeads => f.write_str(
                "continue to run as a leader because failsafe mode is enabled and all members are accessible",
            ),
            Self::Promised(leader) => write!(
                f,
                "leaving the lease alone: {leader} has lost the store, and this node has promised to let it go on (failsafe mode)"
            ),
            Self::StoreAwayReplica => f.write_str("the store does not answer; going on as a replica"),
            Self::WrongCluster { here, cluster } => wrong_cluster(f, *here, *cluster),
            Self::UnreadableData(why) => write!(f, "the data directory cannot be judged ({why}); nothing is touched until a person has looked"),
            Self::ReplicaWithoutCluster => f.write_str("this data directory is a replica's and the cluster was never initialised: start the primary's node first"),
            Self::OldKey(name) => write!(f, "the store has old records again (a backup of it was put back), and by them {name} leads: waiting for that key to run out; if {name} really leads now and its data is to stay, clone this node anew (matriarchctl reinit)"),
            Self::RecordsLost => f.write_str("the store lost the cluster's records: waiting for the primary to write them again; if it is gone for good, start the node that led last"),
            Self::ToxicData(Unfinished::Rewind) => f.write_str("a rewind of this data directory was interrupted: it is not started, waiting for a leader to rewind from again"),
            Self::ToxicData(Unfinished::Bootstrap) => f.write_str("a bootstrap of ours did not end: its remains go to the vault"),
            Self::CreateCluster => f.write_str("trying to bootstrap a new cluster"),
            Self::FoundCluster => f.write_str("initialized a new cluster"),
            Self::WaitForBootstrap => f.write_str("waiting for leader to bootstrap"),
            Self::MayNotBootstrap => f.write_str("nobody has initialised the cluster, and this node may not (no bootstrap section, a bootstrap.method that is not supported yet, or nofailover)"),
            Self::BootstrapFailed(why) => write!(f, "failed to bootstrap the cluster: {why}"),
            Self::NothingToOffer => f.write_str("waiting for a leader to clone from: the cluster is initialised and this node has no data"),
            Self::Leading => f.write_str("no action. I am the leader with the lock"),
            Self::NobodyAcknowledges => f.write_str(
                "I am the leader with the lock, and commits wait: no standby can acknowledge them (synchronous_mode_strict)",
            ),
            Self::NotAdmitted { whom, lacks } => not_admitted(f, whom, *lacks),
            Self::Admitting { failed: true } => f.write_str("restarting Postgres to let clients in has failed, as the log says, and is tried again in a moment; so far only replication and the superuser are let in"),
            Self::Admitting { failed: false } => f.write_str("restarting Postgres to let clients in: what they may read is on the synchronous standbys as well, or synchronous_mode_strict is off"),
            Self::LeaseWithoutRight(obstacle) => {
                write!(f, "releasing the lease: somebody else may have commits that are not here ({obstacle})")
            }
            Self::PromoteWithLease => f.write_str("promoting: the lease is mine"),
            Self::Promoting => f.write_str("waiting for the promotion to end"),
            Self::TakeBackOwnKey => f.write_str("the leader key names me under an earlier lease: putting it under mine"),
            Self::NobodyInstead { obstacles } => write!(
                f,
                "Postgres ended on its own: starting it again under the lease although that takes longer than primary_start_timeout, since nobody else can lead ({obstacles})"
            ),
            Self::CrashRestart { to_recover } => write!(f, "Postgres ended on its own: starting it again under the lease ({to_recover} bytes of WAL to recover)"),
            Self::CannotStart(why) => write!(f, "Postgres cannot be started here ({why}): releasing the lease"),
            Self::CandidateReady(name) => write!(f, "Postgres crashed here and {name} has all of its WAL: releasing the lease"),
            Self::Remnants => f.write_str("the postmaster is gone, other processes of the instance are not: killing them"),
            Self::PostmasterFrozen => f.write_str("a signal has stopped the postmaster (state T), so that nobody can connect: killing the instance"),
            Self::NeverConsistent => f.write_str(
                "Postgres does not get ready as a standby and time has run out: releasing the lease, another member is back",
            ),
            Self::StandbyEnded => f.write_str(
                "Postgres ended before it was promoted: starting it again as a standby under the lease",
            ),
            Self::PrimarySilent => f.write_str("Postgres does not answer and time has run out: demoting"),
            Self::BestCandidate => f.write_str("nobody holds the lease and no reachable member is ahead of me"),
            Self::NamedCandidate { lacks: 0 } => f.write_str("nobody holds the lease and an operator named me"),
            Self::NamedCandidate { lacks } => write!(f, "nobody holds the lease and an operator named me: at least {lacks} bytes that the last leader published are not here, and are lost"),
            Self::StillPrimary => f.write_str("nobody holds the lease and I am still the primary"),
            Self::AskOthers => f.write_str("nobody holds the lease: asking the other members"),
            Self::WaitForMembers => f.write_str("nobody holds the lease, and this node was only just listed as a member: waiting a moment for the others"),
            Self::AskCandidates => f.write_str("manual failover: asking the members who could take over"),
            Self::NotEligible(obstacle) => write!(f, "following a different leader because {obstacle}"),
            Self::PrimaryStillWrites => f.write_str("nobody holds the lease, and WAL still flows from the primary: letting it come back (primary_race_backoff)"),
            Self::LeaveToOther(name) => {
                write!(f, "nobody holds the lease: leaving it to {name}, since this node has just given it back")
            }
            Self::LeaveToCandidate(name) => write!(f, "nobody holds the lease: leaving it to {name}, as an operator asked"),
            Self::StartFirst => f.write_str("nobody holds the lease: starting Postgres as a standby first"),
            Self::HandOver { to: Some(to) } => write!(f, "manual failover: demoting myself for {to}"),
            Self::HandOver { to: None } => f.write_str("manual failover: demoting myself"),
            Self::HandOverLease { to } => write!(f, "Postgres is stopped and {to} has its last checkpoint: releasing the lease"),
            Self::WaitForCandidate => f.write_str("Postgres is stopped: waiting for a member to confirm that it has the last checkpoint"),
            Self::HandOverImpossible(why) => write!(f, "manual failover is not possible: {why}"),
            Self::HandOverScheduled => f.write_str("no action. I am the leader with the lock (a switchover is scheduled)"),
            Self::StaleFailover(why) => write!(f, "clearing the failover key: {why}"),
            Self::Following(leader) => write!(f, "no action. I am a secondary following the leader ({leader})"),
            Self::Follow(leader) => write!(f, "following the leader ({leader})"),
            Self::LeaderNotReady(leader) => write!(f, "waiting for the leader ({leader}) to take connections"),
            Self::StartingHere => f.write_str("waiting for Postgres to answer here"),
            Self::StandbyInconsistent => f.write_str("Postgres has not become consistent here for 60 s: stopping it to compare its history with the leader's"),
            Self::StepDown(leader) => write!(f, "demoting: {leader} holds the lease and I take writes"),
            Self::LeaseLost => f.write_str("demoting: the lease is not mine any more"),
            Self::NeedClone(leader) => write!(f, "no data here: cloning, {leader} leads"),
            Self::ReadLineage(leader) => write!(f, "comparing histories with the leader ({leader})"),
            Self::WaitForSettled(leader) => write!(f, "waiting for a checkpoint of the leader ({leader}) on its timeline before rewinding"),
            Self::Diverged { fork, timeline } => write!(f, "running pg_rewind: my history left the leader's at {fork} of timeline {timeline}"),
            Self::RestoredCopy(leader) => write!(f, "there is a backup_label, so this is a copy that has not recovered yet: starting it as a standby, following the leader ({leader})"),
            Self::RecoverFirst => f.write_str("doing crash recovery in single-user mode before comparing histories"),
            Self::CannotRejoin(why) => write!(f, "cannot rejoin: {why}"),
            Self::RejoinFailed(why) => write!(f, "rejoining failed and will be tried again: {why}"),
            Self::Moving(to) => write!(f, "the cluster moves to the store of the section {to}: nobody leads until it is open there"),
            Self::Paused => f.write_str("PAUSE: no action; the promise of one writer is suspended"),
            Self::PausedTakeLease => f.write_str("PAUSE: acquiring the free lease, I am the primary"),
            Self::PausedReleaseLease => f.write_str("PAUSE: releasing the lease, I am not a primary"),
            Self::Restart => f.write_str("restart in progress, an operator asked for it"),
            Self::Reinitialize => f.write_str("reinitialize in progress, an operator asked for it"),
            Self::Withheld(why) => write!(f, "this node may not lead any more: {why}"),
            Self::Stopping => f.write_str("shutting down: an operator stopped the daemon"),
            Self::LeaveRunning => f.write_str("ending the daemon, Postgres goes on"),
            Self::Busy(what) => write!(f, "{what} in progress"),
            Self::CancelJob => f.write_str("ending the running job: the lease it needs is gone"),
        }
    }
}

fn wrong_cluster(f: &mut fmt::Formatter<'_>, here: SystemId, cluster: SystemId) -> fmt::Result {
    write!(
        f,
        "system ID mismatch: this data directory is {here}, the cluster is {cluster}; move the directory away or correct scope and data_dir"
    )
}

fn not_admitted(f: &mut fmt::Formatter<'_>, whom: &str, lacks: Option<u64>) -> fmt::Result {
    write!(
        f,
        "I am the leader with the lock; clients are not let in before what they may read after the crash is on {whom} as well (synchronous_mode_strict): "
    )?;
    match lacks {
        Some(bytes) => write!(f, "at most {bytes} bytes to go"),
        None => {
            f.write_str("too few stream from here; bring them back, or switch synchronous_mode_strict off")
        }
    }
}

//! Faults planted into the world itself, each to see that its checker fires.

use config::NodeName;
use coordinator::restored::Known;
use coordinator::{Step, Task};
use dcs::{Epoch, SystemId, Timeline};

pub mod bugs;
mod guards;

use super::World;

/// What the world does wrong on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// A standby without the lease is promoted.
    PromoteWithoutLease,
    /// A lease is believed in for ever, whatever the store says.
    LeaseForEver,
    /// `initialize` is written whatever it says.
    InitializeRewritten,
    /// An interrupted rewind is started all the same.
    MarkForgotten,
    /// Replication stands still for ever.
    NothingStreams,
    /// Steps say that they are done and do nothing.
    StepsIgnored,
    /// The lease goes while the server takes writes.
    ReleaseEarly,
    /// A cluster is created although it exists.
    CreateAgain,
    /// A data directory is cloned over.
    CloneOverData,
    /// A standby's log is not what its number says.
    TwinTimeline,
    /// Commits wait for nobody, whatever the settings say.
    NobodyWaits,
    /// A candidate does not know the record of synchronous standbys.
    RecordForgotten,
    /// A candidate does not know what it promised a leader without the store.
    PromiseForgotten,
    /// A candidate takes itself for one that needs to hear from nobody.
    QuorumForgotten,
    /// Nothing but the daemon enforces the deadline.
    NoFencer,
    /// Nothing but the fencer enforces the deadline.
    NoDeadline,
    /// What a longer lease granted outlasts the shorter one that the key was moved to.
    LongerDeadline,
    /// A node whose loop hangs keeps its lease.
    LoopUnwatched,
    /// A lease that could not be renewed in time is renewed on.
    RenewsForEver,
    /// A server that does not answer is taken for a standby.
    SilentIsStandby,
    /// A promise to a leader without the store never ends.
    PromiseForEver,
    /// What an interrupted bootstrap left is taken for data.
    RemainsAreData,
    /// Any lag is tolerable.
    LagForgotten,
    /// A rewound server counts before it has passed its old position.
    FloorForgotten,
    /// What is left of an instance is not noticed.
    RemnantsForgotten,
    /// An empty directory is a reason for initdb.
    EmptyIsNew,
    /// A server that does not answer is waited for without an end.
    HungIsHealthy,
    /// A directory of another cluster is taken for one of this.
    IdentityForgotten,
    /// A former primary is started as it was.
    StartsAsPrimary,
    /// The lease is handed over before anybody has the last checkpoint.
    HandsOverUnseen,
    /// A promotion takes the next number of its own, whoever has made the same.
    TimelineTwice,
    /// For whom commits wait is never changed.
    NamesNeverSet,
    /// Who has every commit is never written down.
    RecordAfterNames,
    /// A replica writes the records that the store has lost.
    ReplicaRewrites,
    /// A claim on the bootstrap is never given back.
    ClaimKept,
    /// A named candidate is waited for without an end.
    CandidateForEver,
    /// A server that takes writes without the lease is not stopped.
    StaysWritable,
    /// The only copy that is left is moved away.
    RetiresTheLast,
    /// Clients are let in right after a crash, whatever they may read.
    AdmitsAtOnce,
    /// What a former leader has beyond its synchronous standbys counts against them.
    FormerLeaderCounts,
    /// A history that left the leader's is taken for a part of it.
    HistoriesAgree,
    /// A leader's history counts before its first checkpoint.
    CheckpointForgotten,
    /// What a backup of the store says counts for today's.
    BackupBelieved,
}

/// Every fault, a script in which it shows (or the name of a scenario, whose script is played), and what its checker says.
pub const PLANTED: [(Fault, &str, &str); 43] = [
    (Fault::PromoteWithoutLease, "wait 2s", "without the lease"),
    // F35: the daemon is stopped by a signal.
    (Fault::NoFencer, "stop-daemon n1\nwait 60s", "side by side"),
    (
        Fault::LongerDeadline,
        "set ttl=60\nwait 30s\nset ttl=5\nwait 3s\nstop-daemon n1\nwait 90s",
        "side by side",
    ),
    // F27, F28: the loop hangs, and no fencer can be started.
    (Fault::NoDeadline, "stop-turns n1\nkill-fencer n1 for-good\nwait 90s", "side by side"),
    (Fault::LoopUnwatched, "stop-turns n1\nwait 90s\nexpect leader n2", "it is not so"),
    // F57: the store hears the leader, which does not hear the store.
    (Fault::RenewsForEver, "deafen store n1\nwait 90s\nexpect leader n2", "it is not so"),
    (Fault::LeaseForEver, "partition n1\nwait 60s", "take writes under valid leases"),
    (
        Fault::PromiseForgotten,
        "set failsafe_mode=true\nwait 10s\ncut n1 store\nwait 40s\ncut n1 n2\ncut n1 n3\nwait 20s",
        "take writes under valid leases",
    ),
    (Fault::InitializeRewritten, "wait 2s", "initialize was rewritten"),
    (
        Fault::MarkForgotten,
        "cut n1 n2\ncut n1 n3\nwrite n1 100\nkill n1\nwait 40s\nheal\nfail n1 rewind\nstart n1\nwait 20s",
        "that an interrupted rewind left unusable",
    ),
    (Fault::NothingStreams, "wait 2s", "has not come together"),
    (Fault::StepsIgnored, "kill-postmaster n1\nwait 10s", "goes in circles"),
    (Fault::ReleaseEarly, "wait 2s", "let the lease go while its server takes writes"),
    (Fault::CreateAgain, "wait 2s", "creates a cluster that exists"),
    (Fault::CloneOverData, "wait 2s", "over data"),
    (Fault::TwinTimeline, "wait 2s", "their histories are not the same"),
    (
        Fault::NobodyWaits,
        "set synchronous_mode=on\nwait 10s\ncut n1 n2\ncut n1 n3\nwrite n1 100\nkill n1\nheal\nwait 40s",
        "lacks a commit",
    ),
    (
        Fault::RecordForgotten,
        "set synchronous_mode=on\nwait 10s\ncut n1 n3\nwrite n1 100\nkill n1\nkill n2\nheal\nwait 60s",
        "lacks a commit",
    ),
    (
        Fault::QuorumForgotten,
        "set synchronous_mode=quorum\nwait 10s\ncut n1 n2\nwrite n1 100\nkill n1\nkill n3\nheal\nwait 60s",
        "lacks a commit",
    ),
    (Fault::SilentIsStandby, "scenario leader-key-lost-while-silent", "goes in circles"),
    (Fault::PromiseForEver, "scenario failsafe-leader-dies", "it is not so"),
    (Fault::RemainsAreData, "scenario bootstrap-killed", "it is not so"),
    (Fault::LagForgotten, "scenario leader-dies-maximum-lag", "more than maximum_lag_on_failover"),
    (Fault::FloorForgotten, "scenario returns-diverged-rewind", "it is not so"),
    (Fault::RemnantsForgotten, "scenario postmaster-dies-remnants", "under a running server"),
    (Fault::EmptyIsNew, "scenario data-vanished-replica", "it is not so"),
    (Fault::HungIsHealthy, "scenario postmaster-hangs", "it is not so"),
    (Fault::IdentityForgotten, "scenario wrong-cluster", "it is not so"),
    (Fault::StartsAsPrimary, "scenario daemon-restarts-late", "without the lease"),
    (Fault::HandsOverUnseen, "scenario switchover-candidate-lags", "it is not so"),
    (Fault::TimelineTwice, "scenario returns-after-two-failovers", "it is not so"),
    (Fault::NamesNeverSet, "scenario synchronous-quorum", "it is not so"),
    (Fault::RecordAfterNames, "scenario synchronous-failover-by-hand", "it is not so"),
    (Fault::ReplicaRewrites, "scenario store-wiped-primary-dead", "it is not so"),
    (Fault::ClaimKept, "scenario bootstrap-claimed-only", "it is not so"),
    (Fault::CandidateForEver, "scenario failover-candidate-cut-off", "goes in circles"),
    (
        Fault::RetiresTheLast,
        "set synchronous_mode=on\nwait 10s\nwrite n1 100\nkill n1\nwipe n1\nkill n3\nwipe n3\nwait 40s",
        "gives up the last copy",
    ),
    (Fault::StaysWritable, "scenario pause-two-primaries", "it is not so"),
    (
        Fault::AdmitsAtOnce,
        "set synchronous_mode=on\nset synchronous_mode_strict=true\nwait 10s\ncut n1 n2\ncut n1 n3\nwrite n1 100\n\
         kill-postmaster n1\nwait 5s\nkill n1\nheal\nwait 60s",
        "lacks a commit",
    ),
    (
        Fault::FormerLeaderCounts,
        "set synchronous_mode=on\nwait 10s\ncut n1 n2\ncut n1 n3\nwrite n1 100\nkill n1\ntag n1 nofailover\nheal\n\
         delete-leader-key\nstart n1\nwait 40s\nexpect leader n2",
        "it is not so",
    ),
    // F74.
    (Fault::BackupBelieved, "scenario store-restored-synchronous", "it is not so"),
    (Fault::HistoriesAgree, "scenario returns-diverged-rewind", "it is not so"),
    (
        Fault::CheckpointForgotten,
        "slow n2 checkpoint 20s\ncut n1 n2\ncut n1 n3\ncut n2 n3\nwrite n1 100\nkill n1\nkill n3\nwait 32s\nheal\nstart n1\n\
         wait 5s\nexpect stopped n1",
        "it is not so",
    ),
];

impl World {
    /// What a fault adds to the turn of n2, which is a replica in every script, or of n1, which leads.
    pub(super) fn plant(&mut self, name: &NodeName) {
        let Some(fault) = self.planted.filter(|_| !self.quiet) else { return };
        let leader = name.as_str() == "n1" && self.nodes[name].server.writable();
        let replica = name.as_str() == "n2" && !self.nodes[name].server.primary;
        let source = NodeName::new("n1").expect("a name");
        match fault {
            Fault::PromoteWithoutLease if replica => {
                self.begin(name, Task::Promote { epoch: Epoch(1), above: Timeline(0) });
            }
            Fault::CreateAgain if replica => self.begin(name, Task::Initdb),
            Fault::CloneOverData if replica => self.begin(name, Task::Clone { from: source }),
            Fault::InitializeRewritten if leader => {
                // Refused or not: the check sees what was written.
                let _ = self.write_initialize(SystemId(1));
            }
            Fault::MarkForgotten => {
                let server = &mut self.node(name).server;
                if server.dir.as_ref().is_some_and(|dir| dir.marker.is_some()) {
                    server.start(false, None);
                }
            }
            Fault::NothingStreams if replica => self.node(name).server.frozen = true,
            Fault::ReleaseEarly if leader => self.release(name, None),
            Fault::TwinTimeline if replica => {
                if let Some(branch) =
                    self.node(name).server.dir.as_mut().and_then(|dir| dir.wal.branches.last_mut())
                {
                    branch.mint = 99_999;
                }
            }
            Fault::BackupBelieved => {
                self.daemon(name).past.store = Known::default();
                self.node(name).known = Known::default();
            }
            Fault::RetiresTheLast if replica && !self.nodes[&source].up => {
                self.node(name).server.crash(coordinator::Process::Gone);
                self.leaves_a_copy(name);
                self.node(name).server.dir = None;
            }
            _ => {}
        }
    }

    fn begin(&mut self, name: &NodeName, task: Task) {
        // Its outcome shows in the check.
        let _ = self.step(name, &Step::Begin(task));
    }
}

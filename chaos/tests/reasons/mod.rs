//! The book's page of reasons: made from the source, the sentences and the scenarios.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use config::NodeName;
use coordinator::{Obstacle, Reason, Unfinished};
use dcs::{Lsn, SystemId, Timeline};

use chaos::sim::variant;

/// One of every reason, as it prints.
fn samples() -> Vec<Reason> {
    let n1 = || NodeName::new("n1").expect("a name");
    let why = || "WHY".to_owned();
    vec![
        Reason::StoreNeverSeen,
        Reason::StoreAwayLeaseHolds,
        Reason::StoreAwayStepDown,
        Reason::FailsafeAsks("n2 has not answered".into()),
        Reason::FailsafeLeads,
        Reason::Promised(n1()),
        Reason::StoreAwayReplica,
        Reason::WrongCluster { here: SystemId(1), cluster: SystemId(2) },
        Reason::UnreadableData(why()),
        Reason::ReplicaWithoutCluster,
        Reason::RecordsLost,
        Reason::OldKey(n1()),
        Reason::ToxicData(Unfinished::Rewind),
        Reason::CreateCluster,
        Reason::FoundCluster,
        Reason::WaitForBootstrap,
        Reason::MayNotBootstrap,
        Reason::BootstrapFailed(why()),
        Reason::NothingToOffer,
        Reason::Leading,
        Reason::NobodyAcknowledges,
        Reason::NotAdmitted { whom: "n2".to_owned(), lacks: Some(4096) },
        Reason::Admitting { failed: false },
        Reason::LeaseWithoutRight(Obstacle::NotSynchronous { leader: "n1".to_owned() }),
        Reason::PromoteWithLease,
        Reason::Promoting,
        Reason::TakeBackOwnKey,
        Reason::CrashRestart { to_recover: 0 },
        Reason::NobodyInstead { obstacles: "n2: it does not answer".to_owned() },
        Reason::CannotStart(why()),
        Reason::CandidateReady(n1()),
        Reason::Remnants,
        Reason::PostmasterFrozen,
        Reason::PrimarySilent,
        Reason::NeverConsistent,
        Reason::StandbyEnded,
        Reason::BestCandidate,
        Reason::NamedCandidate { lacks: 0 },
        Reason::StillPrimary,
        Reason::AskOthers,
        Reason::WaitForMembers,
        Reason::AskCandidates,
        Reason::NotEligible(Obstacle::Nofailover),
        Reason::PrimaryStillWrites,
        Reason::LeaveToCandidate("n1".into()),
        Reason::LeaveToOther(NodeName::new("n2").expect("a name")),
        Reason::StartFirst,
        Reason::HandOver { to: Some("n1".into()) },
        Reason::HandOverLease { to: n1() },
        Reason::WaitForCandidate,
        Reason::HandOverImpossible(why()),
        Reason::HandOverScheduled,
        Reason::StaleFailover(why()),
        Reason::Following(n1()),
        Reason::Follow(n1()),
        Reason::LeaderNotReady(n1()),
        Reason::StartingHere,
        Reason::StandbyInconsistent,
        Reason::StepDown(n1()),
        Reason::LeaseLost,
        Reason::NeedClone(n1()),
        Reason::ReadLineage(n1()),
        Reason::WaitForSettled(n1()),
        Reason::Diverged { fork: Lsn(0x0300_0000), timeline: Timeline(1) },
        Reason::RestoredCopy(n1()),
        Reason::RecoverFirst,
        Reason::CannotRejoin(why()),
        Reason::RejoinFailed(why()),
        Reason::Moving("etcd3".into()),
        Reason::Paused,
        Reason::PausedTakeLease,
        Reason::PausedReleaseLease,
        Reason::Restart,
        Reason::Reinitialize,
        Reason::Withheld(why()),
        Reason::Stopping,
        Reason::LeaveRunning,
        Reason::Busy("a job".into()),
        Reason::CancelJob,
    ]
}

const HEAD: &str = "# Reasons\n\n\
Why a node does what it does, and why it waits. The sentence is the same in the log, in `GET /why`, in\n\
`matriarchctl why` and in the scenarios of `chaos/tests/scenarios`, each of which shows what happens before and\n\
after. This page is made from the source by a test.\n\n\
| Reason | What it prints | Meaning | Shown by |\n|---|---|---|---|\n";

/// The page, and the reasons of which there is no sample.
pub fn page(declared: &[(String, String)], shown: &BTreeMap<String, Vec<String>>) -> (String, Vec<String>) {
    let samples: BTreeMap<String, String> =
        samples().iter().map(|reason| (variant(reason), reason.to_string().replace('|', "\\|"))).collect();
    let mut page = HEAD.to_owned();
    let mut missing = Vec::new();
    for (name, meaning) in declared {
        let Some(sentence) = samples.get(name) else {
            missing.push(name.clone());
            continue;
        };
        let by: Vec<String> =
            shown.get(name).into_iter().flatten().take(3).map(|file| format!("`{file}`")).collect();
        // Writing into a string cannot fail.
        let _ = writeln!(page, "| `{name}` | {sentence} | {meaning} | {} |", by.join(", "));
    }
    (page, missing)
}

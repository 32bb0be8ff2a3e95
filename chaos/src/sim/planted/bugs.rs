//! The known bugs of other systems (reliability 3), each with the planted faults that stand for it, or why none does. The
//! page `reference/known-bugs.md` of the book is made from this.

use super::Fault;

/// What stands for a bug.
#[derive(Debug, Clone, Copy)]
pub enum Stand {
    /// These faults: the same guard is gone.
    Planted(&'static [Fault]),
    /// None, since it is no matter of a decision, or not built; tests are named in backquotes.
    Elsewhere(&'static str),
}

use Fault as F;
use Stand::{Elsewhere, Planted};

/// Every bug, what went wrong there, and what stands for it here.
pub const BUGS: [(&str, &str, Stand); 72] = [
    (
        "B01",
        "A starved primary wakes up and takes the free lock again",
        Planted(&[F::StaysWritable, F::LeaseForEver]),
    ),
    ("B02", "A stale read of the leader key kept a node in its role", Planted(&[F::LeaseForEver])),
    (
        "B03",
        "The main loop hung; the lock ran out and nobody demoted",
        Planted(&[F::LoopUnwatched, F::NoDeadline]),
    ),
    ("B04", "A monitoring query timed out and the demotion was skipped", Planted(&[F::SilentIsStandby])),
    (
        "B05",
        "Two nodes of one name both believed that they led",
        Elsewhere("the world has one host for each name; `a_second_node_of_the_same_name_is_refused`"),
    ),
    (
        "B06",
        "The watchdog was disarmed while backends lived",
        Elsewhere("the watchdog is the lease thread's: `only_a_leader_that_holds_its_lease_pings`"),
    ),
    ("B07", "The watchdog was never disarmed where no backend was left", Elsewhere("as B06")),
    (
        "B08",
        "Health checks answered from a flag after the lock was lost",
        Elsewhere("an answer, no decision: `the_leases_deadline_ends_it`"),
    ),
    (
        "B09",
        "An exception kept a node from demoting",
        Elsewhere("a decision is total and throws nothing; a loop that is gone: see B03"),
    ),
    ("B10", "The promise to a leader without the store was never forgotten", Planted(&[F::PromiseForEver])),
    (
        "B11",
        "Several nodes were labelled primary at once",
        Elsewhere("an answer, no decision: `the_leases_deadline_ends_it`"),
    ),
    ("B12", "An isolated primary stayed one", Planted(&[F::LeaseForEver])),
    ("B13", "An isolated primary was stopped far too slowly", Planted(&[F::LeaseForEver, F::NoDeadline])),
    ("B14", "A former primary was started as one before it had the lease", Planted(&[F::StartsAsPrimary])),
    (
        "B15",
        "Clients were sent to a former primary that came back",
        Elsewhere("an answer, no decision: `haproxy_follows_the_leader`"),
    ),
    ("B16", "A crashed primary came back writable", Planted(&[F::StartsAsPrimary])),
    ("B17", "A second candidate was promoted while the first was at it", Planted(&[F::PromoteWithoutLease])),
    (
        "B18",
        "The store revoked leases that it should not",
        Elsewhere(
            "the store's bug; ownership is proven apart from the lease: `a_revoked_lease_makes_no_second_primary`",
        ),
    ),
    (
        "B19",
        "A renewal of a revoked lease was answered with success",
        Elsewhere("as B18: `a_deleted_key_ends_the_reign`"),
    ),
    ("B20", "Without a store of agreement a primary carries on", Planted(&[F::LeaseForEver])),
    (
        "B21",
        "A standby that had not followed for days was promoted",
        Planted(&[F::RecordForgotten, F::LagForgotten]),
    ),
    ("B22", "Waiting commits became visible after a restart", Planted(&[F::AdmitsAtOnce])),
    (
        "B23",
        "Nobody could know which standby had acknowledged",
        Planted(&[F::QuorumForgotten, F::NobodyWaits]),
    ),
    ("B24", "A node whose copy was unfinished was made primary", Planted(&[F::RemainsAreData])),
    ("B25", "A stale standby led after failures in an unlucky order", Planted(&[F::RecordForgotten])),
    (
        "B26",
        "A switchover's target was chosen before the primary had stopped",
        Planted(&[F::HandsOverUnseen]),
    ),
    ("B27", "A replica that did not stream was eligible for a switchover", Planted(&[F::HandsOverUnseen])),
    (
        "B28",
        "History files were rejected while the timeline was not known",
        Elsewhere("an archive's matter; histories are read from the leader"),
    ),
    ("B29", "A mark was taken for a node, and waited for", Planted(&[F::CandidateForEver])),
    ("B30", "A sort chose the wrong instance", Planted(&[F::LagForgotten])),
    ("B31", "A replica that could not replay was promotable", Planted(&[F::LagForgotten])),
    ("B32", "A stale node led again under a number that was taken", Planted(&[F::TimelineTwice])),
    ("B33", "In a switchover nodes raced that were not synchronous", Planted(&[F::RecordForgotten])),
    (
        "B34",
        "The longest log won although its timeline was old",
        Planted(&[F::LagForgotten, F::TimelineTwice]),
    ),
    (
        "B35",
        "A dead former primary that was ahead kept everybody from leading",
        Planted(&[F::FormerLeaderCounts]),
    ),
    ("B36", "A quick join and leave broke the resolver", Planted(&[F::NamesNeverSet])),
    ("B37", "For whom commits wait was never read back", Planted(&[F::NamesNeverSet])),
    ("B38", "After a restart the record and the list differed", Planted(&[F::RecordAfterNames])),
    (
        "B39",
        "What had just been written was read in an older state",
        Elsewhere("written only over the revision that was read: promise `views_go_forward`"),
    ),
    ("B40", "A candidate waited for dead sources, or for itself", Planted(&[F::RecordForgotten])),
    ("B41", "Timelines were compared by number only", Planted(&[F::TwinTimeline, F::TimelineTwice])),
    ("B42", "A rewound node counted before it had what it once had", Planted(&[F::FloorForgotten])),
    (
        "B43",
        "A position that stood still was taken for the end",
        Elsewhere(
            "no position is taken for final: what the lead was handed over at is the shutdown checkpoint, see B26",
        ),
    ),
    ("B44", "A promotion by an outdated pledge", Planted(&[F::PromiseForgotten])),
    (
        "B45",
        "A cancelled wait was answered with success",
        Elsewhere("Postgres's; documented, nothing here decides it"),
    ),
    (
        "B46",
        "A directory that a rewind had left half done was removed",
        Planted(&[F::MarkForgotten, F::RetiresTheLast]),
    ),
    ("B47", "A false verdict wiped a good node", Planted(&[F::RetiresTheLast])),
    ("B48", "The node with the only data was wiped", Planted(&[F::RetiresTheLast])),
    (
        "B49",
        "A rewind deleted log that nobody else had",
        Elsewhere("the rewind copies it first: `a_diverged_primary_is_rewound`"),
    ),
    ("B50", "The same number and two histories", Planted(&[F::TwinTimeline])),
    ("B51", "Histories were compared before the promotion had ended", Planted(&[F::HistoriesAgree])),
    ("B52", "A rewind ran before its source's checkpoint", Planted(&[F::CheckpointForgotten])),
    (
        "B53",
        "A replica wrote the lost identity again",
        Planted(&[F::ReplicaRewrites, F::InitializeRewritten]),
    ),
    ("B54", "Processes outlived the directory and disturbed the next", Planted(&[F::RemnantsForgotten])),
    (
        "B55",
        "Links in and to the directory",
        Elsewhere("custody's, with real directories: `tablespaces_are_moved_aside_too`"),
    ),
    ("B56", "What an interrupted copy left was taken for data", Planted(&[F::RemainsAreData])),
    ("B57", "A server was started during a copy", Planted(&[F::CloneOverData])),
    (
        "B58",
        "All directories were gone, and a new cluster was made",
        Planted(&[F::EmptyIsNew, F::CreateAgain]),
    ),
    (
        "B59",
        "A full disk broke a rewind",
        Elsewhere("the world has no disks that fill; a rewind that failed: see B60"),
    ),
    ("B60", "A rewind was killed and its directory started", Planted(&[F::MarkForgotten])),
    (
        "B61",
        "A promise in the directory was rolled back with it",
        Elsewhere("it is kept elsewhere: `a_promise_is_kept_over_a_restart`"),
    ),
    (
        "B62",
        "A directory was removed before a copy that could fail",
        Planted(&[F::CloneOverData, F::RetiresTheLast]),
    ),
    ("B63", "Too many timelines for an array", Elsewhere("lists here have no fixed length")),
    ("B64", "A state from which no way led on", Planted(&[F::CandidateForEver, F::StepsIgnored])),
    ("B65", "A server that hung was taken for a healthy one", Planted(&[F::HungIsHealthy])),
    ("B66", "For whom commits wait was not changed after a failover", Planted(&[F::NamesNeverSet])),
    (
        "B67",
        "Clients of the store demoted a healthy primary",
        Elsewhere(
            "the store library's: promise `views_go_forward`, `a_full_store_demotes_nobody_and_is_complained_about`",
        ),
    ),
    ("B68", "A claim on the bootstrap was never given back", Planted(&[F::ClaimKept])),
    ("B69", "A standby that was gone was waited for", Planted(&[F::NamesNeverSet])),
    ("B70", "Whoever had to be rewound was waited for by the leader", Planted(&[F::NothingStreams])),
    (
        "B71",
        "A postmaster that was gone and not reaped",
        Elsewhere("processes: `a_killed_postmaster_leaves_nothing_and_restarts_in_place`"),
    ),
    ("B72", "A hung postmaster held the lock", Planted(&[F::HungIsHealthy, F::LoopUnwatched])),
];

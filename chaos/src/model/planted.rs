//! Faults planted into the model's copy of the executor, of the store or of what a node sees, each to show that the law
//! against it is one that the checker can find broken.

use std::sync::Arc;

use coordinator::{Data, Observation};
use dcs::Initialize;

use super::Mode;
use super::Model;
use super::cast::Cast;
use super::law;
use super::state::{Left, State};
use super::turn::give_back;

/// What is done wrong on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// A lease is believed in for ever, by the fencer too.
    LeaseForEver,
    /// The fencer does not kill.
    FencerAsleep,
    /// The store ends a lease before its holder's deadline.
    LeaseEndsEarly,
    /// A promotion neither proves the lease nor looks whether it still holds.
    ProofSkipped,
    /// A new reign has the epoch of the last.
    EpochReused,
    /// Commits wait for nobody, whatever the list says.
    NobodyWaits,
    /// A candidate does not know the record of synchronous standbys.
    RecordForgotten,
    /// A candidate takes itself for one that needs to hear from nobody.
    QuorumForgotten,
    /// A leader takes a list for one that is in force and settled that its server has not read yet.
    ListAssumed,
    /// A late write of the record replaces whatever is there.
    GuardIgnored,
    /// The mark of an interrupted rewind is not seen.
    MarkForgotten,
    /// That a stopped server was a primary is forgotten, and so that its timeline may be its own.
    TwinTimelines,
    /// The lease is given back while the server takes writes.
    ReleaseEarly,
    /// The store says that nobody has created the cluster.
    ClusterDenied,
}

const NONE: Left =
    Left { crashes: 0, pauses: 0, cuts: 0, writes: 0, switchovers: 0, lost: 0, lags: 0, reigns: 1 };

/// Every fault, in which mode and with what else it shows, and the law that it breaks.
pub const PLANTED: [(Fault, Mode, Left, &str); 14] = [
    (Fault::LeaseForEver, Mode::Off, Left { cuts: 1, ..NONE }, law::ONE_WRITER),
    (Fault::FencerAsleep, Mode::Off, Left { pauses: 1, ..NONE }, law::ONE_WRITER),
    (Fault::LeaseEndsEarly, Mode::Off, Left { pauses: 1, ..NONE }, law::ONE_WRITER),
    (Fault::ProofSkipped, Mode::Off, Left { crashes: 1, cuts: 1, ..NONE }, law::LEASE),
    (Fault::EpochReused, Mode::Off, Left { crashes: 1, ..NONE }, law::EPOCH),
    (Fault::NobodyWaits, Mode::On, Left { crashes: 1, writes: 1, ..NONE }, law::NOTHING_LOST),
    (Fault::RecordForgotten, Mode::On, Left { crashes: 2, writes: 1, ..NONE }, law::NOTHING_LOST),
    (Fault::QuorumForgotten, Mode::Quorum, Left { crashes: 2, writes: 1, ..NONE }, law::NOTHING_LOST),
    (Fault::ListAssumed, Mode::On, Left { cuts: 1, writes: 1, ..NONE }, law::CANDIDATES),
    (Fault::GuardIgnored, Mode::On, Left { writes: 1, ..NONE }, law::CANDIDATES),
    (Fault::MarkForgotten, Mode::Off, NONE, law::TOXIC),
    (Fault::TwinTimelines, Mode::Off, Left { reigns: 2, ..NONE }, law::HISTORY),
    (Fault::ReleaseEarly, Mode::Off, NONE, law::RELEASE),
    (Fault::ClusterDenied, Mode::Off, NONE, law::KNOWN),
];

impl Fault {
    /// What it makes a node believe.
    pub(super) fn distorts(self, seen: &mut Observation, _cast: &Cast) {
        let follows = !seen.is_primary();
        match self {
            Self::RecordForgotten | Self::QuorumForgotten if follows => {
                if let Some(view) = &mut seen.store.view {
                    let view = Arc::make_mut(view);
                    match &mut view.sync {
                        Some(sync) if self == Self::QuorumForgotten => sync.value.quorum = 0,
                        record => *record = None,
                    }
                }
            }
            Self::ClusterDenied => {
                if let Some(view) = &mut seen.store.view {
                    Arc::make_mut(view).initialize = Initialize::Absent;
                }
            }
            Self::TwinTimelines => {
                if let Data::Present(control) = &mut seen.data {
                    control.standby_signal |= seen.postgres.process == coordinator::Process::Gone;
                }
            }
            _ => {}
        }
    }
}

impl Model {
    /// What a fault adds to a turn.
    pub(super) fn misbehave(&self, next: &mut State, at: usize) {
        if self.planted == Some(Fault::ReleaseEarly) && next.node(at).server.writable() {
            give_back(next, at);
        }
    }
}

//! The model checker: three nodes that each run the production `decide`, and every order of events up to a bound.
//!
//! A [`State`] holds what `decide` reads and nothing else, save the bits in `Ghost` that the laws need. It is small,
//! finite and counted once for all that `decide` cannot tell apart (`canon.rs`).
//!
//! # What is abstracted, and why that is sound
//!
//! *Time* is ticks (`moment.rs`). A tick is 10 s, the longest pause in `decide`, so that every deadline but the lease's is
//! due after one; a lease is three. Within a tick no deadline passes and only the order of a node's own events counts.
//! Every run of the model is thus one that real clocks allow; runs in which some pauses have passed and others of the
//! same tick have not are left to the simulator.
//!
//! *Names* are all tried (`cast.rs`), so no order of names is left out.
//!
//! *Turns* look and act in one step, and the next may come at any time: a node that does nothing for long is part of every
//! run. What lies between a turn and its effect is modelled where it matters: promotions, starts as primary, stops,
//! rewinds, the reading of `synchronous_standby_names`, a write of the sync record that arrives late, an acquisition whose
//! answer is lost. A turn may be taken by a view that is out of date.
//!
//! *The checker* is stateright's, breadth first. Its own symmetry reduction works depth first only, so states are reduced
//! before it sees them.
//!
//! *Left out*: pause, tags, slots, cascades, bootstrap, failsafe mode, moves between stores, people's requests other than a
//! switchover, a server that does not answer, lag limits, clocks that run wrong. The simulator has them.

mod act;
mod canon;
mod cast;
pub mod check;
pub mod command;
mod flow;
mod jobs;
mod law;
mod memory;
mod mind;
pub mod moment;
mod observe;
pub mod planted;
pub mod reach;
pub mod refusal;
mod start;
pub mod state;
pub mod table;
mod trace;
mod turn;
mod wal;
mod work;

use std::sync::Arc;

use config::ClusterConfig;
use coordinator::Observation;
use stateright::Property;

pub use act::Action;
use cast::Cast;
use planted::Fault;
use state::{Left, NODES, Names, State};
use table::Table;

/// Which commits wait for whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Mode {
    /// For nobody.
    Off,
    /// For one standby.
    On,
    /// For one standby, even if there is none.
    Strict,
    /// For any one of all standbys.
    Quorum,
}

/// The model: what does not change during a run.
#[derive(Debug, Clone)]
pub struct Model {
    settings: Arc<ClusterConfig>,
    mode: Mode,
    left: Left,
    planted: Option<Fault>,
    list_of_standby: Names,
    /// Which steps were asked of which local server.
    pub table: Arc<Table>,
}

/// The bounds of the issue: two crashes, one pause, two reigns after the first, three writes; one host cut off, one
/// switchover, one lost answer, one late view.
pub const BOUNDS: Left =
    Left { crashes: 2, pauses: 1, cuts: 1, writes: 3, switchovers: 1, lost: 1, lags: 1, reigns: 2 };

/// The last position that fits into a state.
const LAST: u8 = 14;

impl Model {
    /// A model of three healthy nodes, with these faults to come.
    #[must_use]
    pub fn new(mode: Mode, left: Left, planted: Option<Fault>) -> Self {
        let settings = start::settings(mode);
        let list_of_standby = coordinator::sync::names::of_standby(&settings)
            .zip(Cast::seen_by(0, false))
            .map_or(Names::Nobody, |(text, cast)| observe::list(&text, cast));
        let settings = Arc::new(settings);
        Self { settings, mode, left, planted, list_of_standby, table: Arc::default() }
    }

    fn synchronous(&self) -> bool {
        self.mode != Mode::Off
    }

    fn hides_mark(&self) -> bool {
        self.planted == Some(Fault::MarkForgotten)
    }

    /// What a planted fault makes a node believe.
    fn believe(&self, mut seen: Observation, cast: &Cast) -> Observation {
        if let Some(fault) = self.planted {
            fault.distorts(&mut seen, cast);
        }
        seen
    }

    /// What follows, counted once for all that is alike; nothing if nothing changes.
    #[must_use]
    pub fn follows(&self, state: &State, action: Action) -> Option<(State, [u8; NODES])> {
        let (next, order) = canon::canonical(self.happens(state, action)?);
        (next != *state).then_some((next, order))
    }

    /// Whether a state is within the bounds.
    #[must_use]
    pub fn is_within(&self, state: &State) -> bool {
        let reigns = state.left.reigns <= self.left.reigns;
        reigns && state.nodes.iter().all(|node| node.server.end <= LAST)
    }

    /// Everything that may happen next.
    #[must_use]
    pub fn choices(&self, state: &State) -> Vec<Action> {
        let mut actions = Vec::new();
        self.offers(state, &mut actions);
        actions
    }
}

impl stateright::Model for Model {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![self.begins()]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        self.offers(state, actions);
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        self.follows(state, action).map(|(next, _)| next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        law::properties()
    }

    fn within_boundary(&self, state: &State) -> bool {
        self.is_within(state)
    }
}

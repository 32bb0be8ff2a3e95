//! What must hold in every state, and what must happen in some.

use stateright::Property;

use super::Model;
use super::state::{Dir, Law, Process, State};

/// At most one server takes writes (S2).
pub const ONE_WRITER: &str = "one server takes writes";
/// Acknowledged synchronous commits are on every later primary (S1).
pub const NOTHING_LOST: &str = "no acknowledged commit is lost";
/// Enough of those in the sync record have every acknowledged commit (I7).
pub const CANDIDATES: &str = "whoever may lead has every commit";
/// Nothing becomes writable without a fresh lease and an armed fencer (I4).
pub const LEASE: &str = "nothing becomes writable without the lease";
/// Epochs increase (S5).
pub const EPOCH: &str = "epochs increase";
/// A directory that an interrupted act left is never started (I10).
pub const TOXIC: &str = "no unusable directory is started";
/// Nobody follows a history that is not its own (S5, I6).
pub const HISTORY: &str = "nobody follows another history";
/// The lease is given back only when nothing takes writes.
pub const RELEASE: &str = "the lease is kept while there is a writer";
/// Decisions ask for nothing that the model does not know.
pub const KNOWN: &str = "the model knows every step";

/// The laws.
pub const LAWS: [&str; 9] =
    [ONE_WRITER, NOTHING_LOST, CANDIDATES, LEASE, EPOCH, TOXIC, HISTORY, RELEASE, KNOWN];

/// What a bounded run must reach.
pub const SOMETIMES: [&str; 3] =
    ["a failover completes", "a switchover completes", "a former primary rejoins"];

/// Laws and hopes as the checker takes them.
#[must_use]
pub fn properties() -> Vec<Property<Model>> {
    let [failover, switchover, rejoin] = SOMETIMES;
    vec![
        Property::always(ONE_WRITER, |_, state| one_writer(state)),
        Property::always(NOTHING_LOST, |_, state| nothing_lost(state)),
        Property::always(CANDIDATES, |model, state| !model.synchronous() || candidates(state)),
        Property::always(LEASE, |_, state| keeps(state, Law::Lease)),
        Property::always(EPOCH, |_, state| keeps(state, Law::Epoch)),
        Property::always(TOXIC, |_, state| keeps(state, Law::Toxic) && !runs_unusable(state)),
        Property::always(HISTORY, |_, state| keeps(state, Law::History) && follows_its_own(state)),
        Property::always(RELEASE, |_, state| keeps(state, Law::Release)),
        Property::always(KNOWN, |_, state| keeps(state, Law::Unknown)),
        Property::sometimes(failover, |model: &Model, state: &State| {
            state.left.switchovers == model.left.switchovers && leads_anew(state)
        }),
        Property::sometimes(switchover, |model: &Model, state: &State| {
            let asked = state.left.switchovers < model.left.switchovers;
            let faultless = state.left.crashes == model.left.crashes && state.left.cuts == model.left.cuts;
            asked && faultless && state.left.pauses == model.left.pauses && leads_anew(state)
        }),
        Property::sometimes(rejoin, |_, state: &State| leads_anew(state) && everybody_streams(state)),
    ]
}

fn keeps(state: &State, law: Law) -> bool {
    state.ghost.broken != Some(law)
}

fn one_writer(state: &State) -> bool {
    state.nodes.iter().filter(|node| node.server.writable()).count() <= 1
}

/// Who takes writes under the leader key.
#[must_use]
pub fn admitted(state: &State) -> Option<usize> {
    let leader = usize::from(state.store.records.leader?.node);
    state.node(leader).server.writable().then_some(leader)
}

fn has_everything(state: &State, node: usize) -> bool {
    let server = &state.node(node).server;
    let promised = state.ghost.promised.iter().zip(0..);
    promised
        .filter(|(last, _)| **last > 0)
        .all(|(last, mint)| state.has((server.mint, server.end), mint, *last))
}

fn nothing_lost(state: &State) -> bool {
    admitted(state).is_none_or(|leader| has_everything(state, leader))
}

fn candidates(state: &State) -> bool {
    let Some(sync) = state.store.records.sync else { return true };
    let voters = (0..state.nodes.len()).filter(|node| sync.standbys & (1 << node) != 0);
    // What has no usable directory cannot lead.
    let able: Vec<usize> = voters.filter(|node| state.node(*node).server.dir == Dir::Whole).collect();
    let lacking = able.iter().filter(|node| !has_everything(state, **node)).count();
    lacking <= usize::from(sync.quorum)
}

/// Whoever could take a record now takes it from a log that its own is a part of.
fn follows_its_own(state: &State) -> bool {
    let log = |node: usize| (state.node(node).server.mint, state.node(node).server.end);
    let part = |node: usize, from: usize| state.common(log(node), log(from)) >= log(node).1;
    (0..state.nodes.len()).all(|node| state.streams(node).is_none_or(|from| part(node, from)))
}

fn runs_unusable(state: &State) -> bool {
    state.nodes.iter().any(|node| node.server.process == Process::Up && node.server.dir != Dir::Whole)
}

fn leads_anew(state: &State) -> bool {
    admitted(state).is_some_and(|leader| state.node(leader).server.mint > 0)
}

fn everybody_streams(state: &State) -> bool {
    let leader = admitted(state);
    (0..state.nodes.len())
        .all(|node| Some(node) == leader || (state.streams(node).is_some() && state.streams(node) == leader))
}

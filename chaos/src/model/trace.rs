//! A way to a state, for people to read: who did what, under names that stay the same all the way.

use std::fmt::Write as _;

use coordinator::decide;

use super::cast::Cast;
use super::memory::past;
use super::state::{NODES, Process, State};
use super::{Action, Model};

impl Model {
    /// Tells a run, action by action.
    #[must_use]
    pub fn tell(&self, actions: &[Action]) -> String {
        let mut state = self.begins();
        // Which node of the first state each of the present one is.
        let mut first: [usize; NODES] = [0, 1, 2];
        let mut told = String::new();
        let describe = |told: &mut String, state: &State, first: &[usize; NODES]| {
            // Writing into a string cannot fail.
            let _ = writeln!(told, "      {}", self.picture(state, first));
        };
        describe(&mut told, &state, &first);
        for action in actions {
            let _ = writeln!(told, "{}", self.line(&state, *action, &first));
            let Some((next, order)) = self.follows(&state, *action) else {
                let _ = writeln!(told, "(nothing comes of it)");
                continue;
            };
            let before = first;
            for (old, new) in order.iter().enumerate() {
                if let (Some(place), Some(name)) = (first.get_mut(usize::from(*new)), before.get(old)) {
                    *place = *name;
                }
            }
            state = next;
            describe(&mut told, &state, &first);
        }
        told
    }

    fn line(&self, state: &State, action: Action, first: &[usize; NODES]) -> String {
        let name = |node: u8| format!("node {}", first.get(usize::from(node)).map_or(0, |node| node + 1));
        match action {
            Action::Turn { node, stale, swapped, lost } => {
                let cast = Cast::seen_by(usize::from(node), swapped);
                let said =
                    cast.map_or(String::new(), |cast| self.judged(state, usize::from(node), stale, cast));
                let old = if stale { " (by an old view)" } else { "" };
                let lost = if lost { " (an answer is lost)" } else { "" };
                format!("{}{old}{lost}: {said}", name(node))
            }
            Action::Prove(node) => format!("{}: proves the lease", name(node)),
            Action::Finish(node) => format!("{}: its job ends", name(node)),
            Action::Reload(node) => format!("{}: reads its settings", name(node)),
            Action::Replicate(node) => format!("{}: receives a record", name(node)),
            Action::Write(node) => format!("{}: a client writes", name(node)),
            Action::CrashHost(node) => format!("{}: the host goes down", name(node)),
            Action::CrashServer { node, remnants } => {
                format!("{}: the server ends{}", name(node), if remnants { ", not all of it" } else { "" })
            }
            Action::Start(node) => format!("{}: the daemon starts", name(node)),
            Action::Freeze(node) => format!("{}: the daemon freezes", name(node)),
            Action::Thaw(node) => format!("{}: the daemon goes on", name(node)),
            Action::CutOff(node, from) => format!("{}: cut off: {from:?}", name(node)),
            Action::Heal(node) => format!("{}: connected again", name(node)),
            other => format!("{other:?}"),
        }
    }

    fn judged(&self, state: &State, node: usize, stale: bool, cast: &Cast) -> String {
        let mut state = *state;
        let connected = state.connected(node);
        let Some(daemon) = &mut state.node_mut(node).daemon else { return "it is gone".to_owned() };
        if connected && !stale {
            daemon.view = None;
        }
        let daemon = *daemon;
        let seen = self.believe(self.observe(&state, node, &daemon, cast), cast);
        let decision = decide(&seen, &past(&daemon.memory, cast));
        let steps: Vec<String> = decision.steps.iter().map(ToString::to_string).collect();
        format!("{} [{}] (named {})", decision.because, steps.join("; "), cast.name(node))
    }

    fn picture(&self, state: &State, first: &[usize; NODES]) -> String {
        let mut nodes: Vec<(usize, String)> = Vec::new();
        for (at, node) in state.nodes.iter().enumerate() {
            let server = &node.server;
            let runs = match server.process {
                Process::Up if server.primary => "PRIMARY",
                Process::Up => "standby",
                Process::Gone => "stopped",
                Process::Remnants => "remnants",
            };
            let held = node.daemon.and_then(|daemon| daemon.held);
            let lease = held.map_or(String::new(), |held| format!(" lease e{} age {}", held.epoch, held.age));
            let number = state.mint(server.mint).number;
            let name = first.get(at).copied().unwrap_or(0);
            let text = format!("{}: {runs} {number}#{}/{}{lease}", name + 1, server.mint, server.end);
            nodes.push((name, text));
        }
        nodes.sort();
        let texts: Vec<String> = nodes.into_iter().map(|(_, text)| text).collect();
        let key = state.store.records.leader.map(|key| {
            let name = first.get(usize::from(key.node)).map_or(0, |node| node + 1);
            format!("node {name} e{} age {}", key.epoch, state.store.leader_age)
        });
        let sync = state.store.records.sync.map(|sync| (sync.leader, sync.quorum, sync.standbys));
        let key = key.unwrap_or_else(|| "nobody".to_owned());
        format!("{} | key: {key} | sync {sync:?} | promised {:?}", texts.join(", "), state.ghost.promised)
    }
}

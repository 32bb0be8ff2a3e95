//! Where a run begins: three healthy nodes, one of which leads, with nothing left to do.

use config::{ClusterConfig, SynchronousMode};

use super::act::Action;
use super::canon::canonical;
use super::moment::TTL;
use super::planted::Fault;
use super::state::{
    Control, Cut, Daemon, Dir, Ghost, Held, Key, MINTS, Mint, NODES, Names, Node, Process, Records, Server, State, Store,
};
use super::{Mode, Model};

/// The settings of the cluster.
#[must_use]
pub fn settings(mode: Mode) -> ClusterConfig {
    ClusterConfig {
        ttl: TTL,
        use_slots: false,
        use_pg_rewind: true,
        maximum_lag_on_failover: u64::MAX,
        synchronous_mode: match mode {
            Mode::Off => SynchronousMode::Off,
            Mode::On | Mode::Strict => SynchronousMode::On,
            Mode::Quorum => SynchronousMode::Quorum,
        },
        synchronous_mode_strict: mode == Mode::Strict,
        ..ClusterConfig::default()
    }
}

/// How often everybody takes a turn before the run begins.
const ROUNDS: usize = 24;

impl Model {
    /// The first state: a cluster in which nobody has anything left to do.
    #[must_use]
    pub fn begins(&self) -> State {
        let sound = Self { planted: None, table: std::sync::Arc::default(), ..self.clone() };
        let (mut state, _) = canonical(sound.newborn());
        let rounds = if self.planted.is_some_and(Fault::is_early) { 0 } else { ROUNDS };
        for _ in 0..rounds {
            for action in sound.choices(&state) {
                let quiet = matches!(
                    action,
                    Action::Turn { stale: false, swapped: false, lost: false, .. }
                        | Action::Reload(_)
                        | Action::Replicate(_)
                        | Action::Finish(_)
                        | Action::Tick
                );
                if quiet {
                    // The names of the nodes do not matter: whoever moves, moves.
                    state = sound.follows(&state, action).map_or(state, |(next, _)| next);
                }
            }
        }
        self.spoil(&mut state);
        canonical(state).0
    }

    /// Where a planted fault shows soonest.
    fn spoil(&self, state: &mut State) {
        let follower = state.nodes.iter_mut().find(|node| !node.server.primary);
        if let (Some(Fault::MarkForgotten), Some(node)) = (self.planted, follower) {
            (node.server.dir, node.server.process) = (Dir::Toxic, Process::Gone);
        }
    }

    fn newborn(&self) -> State {
        let server = |node: usize| Server {
            dir: Dir::Whole,
            process: Process::Up,
            primary: node == 0,
            mint: 0,
            end: 2,
            control: if node == 0 { Control::InProduction } else { Control::InRecovery },
            signal: node != 0,
            settled: true,
            upstream: (node != 0).then_some(0),
            file: Names::Nobody,
            names: Names::Nobody,
            stale: [None; 2],
            waiting: 0,
            fence: (node == 0).then_some(0),
            crashed: None,
            down: None,
        };
        let node = |node: usize| {
            let held = (node == 0).then_some(Held { epoch: 1, revision: 1, age: 0 });
            Node { server: server(node), daemon: Some(Daemon { held, ..Daemon::new() }), cut: Cut::No }
        };
        let mut mints = [None; MINTS];
        mints[0] = Some(Mint { number: 1, parent: 0, from: 0 });
        State {
            nodes: std::array::from_fn(node),
            store: Store {
                records: Records {
                    revision: 1,
                    leader: Some(Key { node: 0, epoch: 1, revision: 1 }),
                    members: [None; NODES],
                    sync: None,
                    timeline: 1,
                    failover: None,
                },
                leader_age: 0,
                member_age: [0; NODES],
                flight: None,
            },
            mints,
            left: self.left,
            ghost: Ghost { epoch: 1, ..Ghost::default() },
        }
    }
}
